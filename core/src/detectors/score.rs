//! # score
//!
//! **What it detects.** An entity whose score of one axis is high, from enough families of evidence: a rule over what the other
//! rules found. **Why it matters.** Weak signals that mean nothing alone are worth a person's time together. **Signals.** On the
//! edge: once, when the score reaches the level; again after it fell below, or `once_per` later while it stays. **Tuning.** The
//! level from what [`replay`] shows of a normal week; two families at least, so that one noisy rule is never enough.
//! **Example.** `detect: { score: { axis: intrusion, at_least: 50, families: 3 } }`.
//!
//! It is shown events on which something else fired, after all other rules, and a score without the contributions of rules like
//! itself: composite rules do not feed each other.
//!
//! [`replay`]: crate::engine

#[cfg(test)]
mod tests;

use super::{Detector, Figure, Firing, Look, Row, Seen};
use crate::expr::Scope;
use crate::rule::load::fields::{Fields, Keys, whole, word};
use crate::rule::load::report::Report;
use crate::rule::load::tree::Node;
use crate::score::Axis;
use crate::score::tally::Scores;
use crate::state::{Memory, Room};

/// The row of the registry.
pub const ROW: Row = Row { name: "score", keys: &KEYS, read };

const KEYS: Keys = Keys { what: "`score`", known: &["axis", "at_least", "families"], later: &[] };

#[derive(Debug, Clone, Copy)]
struct Score {
    axis: Axis,
    at_least: u8,
    families: u32,
}

fn read(node: &Node, _: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    let fields = Fields::open(node, &KEYS, report)?;
    let axis = fields.need("axis", report).and_then(|n| word(n, "`axis`", &Axis::WORDS, report));
    let at_least = fields.need("at_least", report).and_then(|n| whole(n, "`at_least`", 1..=100, report));
    let families = fields.get("families").map_or(Some(1), |n| whole(n, "`families`", 1..=16, report));
    Some(Box::new(Score { axis: axis?, at_least: u8::try_from(at_least?).ok()?, families: u32::try_from(families?).ok()? }))
}

impl Score {
    fn is_met(&self, scores: &Scores) -> bool {
        let axis = scores.of(self.axis);
        axis.score.points() >= self.at_least && axis.families >= self.families
    }
}

impl Detector for Score {
    fn name(&self) -> &'static str {
        ROW.name
    }

    fn memory(&self) -> Option<Memory> {
        Some(Memory::Nothing)
    }

    fn observe(&self, look: &Look<'_>, _: &mut Memory) -> Seen {
        let Some(score) = look.score else {
            return Seen { lapsed: false, firing: None, holds: false, end_ms: look.at_ms, room: Room::Free };
        };
        let is_met = self.is_met(&score.now);
        let points = score.now.of(self.axis).score.points();
        let firing = Firing { count: points.into(), within_ms: 0, figure: Figure::Score(self.axis) };
        Seen {
            lapsed: !self.is_met(&score.before),
            firing: is_met.then_some(firing),
            holds: is_met,
            end_ms: score.gone_ms,
            room: Room::Free,
        }
    }

    fn window_ms(&self) -> i64 {
        0
    }

    fn most_bytes(&self) -> usize {
        0
    }

    fn variables(&self) -> &'static [&'static str] {
        &["$value"]
    }

    fn is_composite(&self) -> bool {
        true
    }

    fn is_met_by(&self, scores: &Scores) -> bool {
        self.is_met(scores)
    }
}
