//! # match
//!
//! **What it detects.** Every event that passes `when`. **Why it matters.** Some things are wrong the first time: a header
//! that names another tenant, an anomaly the app itself reports. **Signals.** One per event, or one per `once_per`.
//! **Tuning.** All of it is in `when`. **Example.** `detect: { match: {} }`.

use super::{Detector, Figure, Firing, Look, Row, Seen};
use crate::expr::Scope;
use crate::rule::load::fields::{Fields, Keys};
use crate::rule::load::report::Report;
use crate::rule::load::tree::{Node, Tree};
use crate::state::{Memory, Room};

/// The row of the registry.
pub const ROW: Row = Row { name: "match", keys: &KEYS, read };

const KEYS: Keys = Keys { what: "`match`", known: &[], later: &[] };

#[derive(Debug)]
struct Match;

fn read(node: &Node, _: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    if !matches!(node.value, Tree::Null) {
        Fields::open(node, &KEYS, report)?;
    }
    Some(Box::new(Match))
}

impl Detector for Match {
    fn name(&self) -> &'static str {
        ROW.name
    }

    fn memory(&self) -> Option<Memory> {
        None
    }

    fn observe(&self, look: &Look<'_>, _: &mut Memory) -> Seen {
        let firing = Firing { count: 1, within_ms: 0, figure: Figure::One };
        // Each event is an edge of its own.
        Seen { lapsed: true, firing: Some(firing), holds: false, end_ms: look.at_ms, room: Room::Free }
    }

    fn window_ms(&self) -> i64 {
        0
    }

    fn most_bytes(&self) -> usize {
        0
    }

    fn variables(&self) -> &'static [&'static str] {
        &[]
    }
}
