//! # ratio
//!
//! **What it detects.** Too large a share of an actor's events is of one kind: refusals, errors, searches without a result.
//! **Why it matters.** A scanner fails where a user succeeds, however slowly it goes. **Signals.** On the edge: once when the
//! share passes `above` with at least `min_events` events; again after it fell, or `once_per` later while it stays.
//! **Tuning.** `min_events` so high that bad luck does not reach the share; `above` from normal actors on a bad day.
//! **Example.** `detect: { ratio: { of: status_code >= 400, above: 0.6, min_events: 20, within: 10m } }`.
//!
//! Hits and events are counted in [buckets](super::buckets); shares are compared in whole numbers. What it may lack is what
//! the oldest sixtieth of the window holds.

use super::buckets::{Buckets, Sums, most_bytes, only_ring, only_sums};
use super::{Detector, Figure, Firing, Look, Row, Seen, fixed_point};
use crate::event::Event;
use crate::expr::{Expr, Scope};
use crate::firing::thousandths;
use crate::rule::load::codes;
use crate::rule::load::fields::{Fields, Keys, whole};
use crate::rule::load::report::Report;
use crate::rule::load::rule::expression;
use crate::rule::load::tree::Node;
use crate::state::Memory;
use crate::time::format_duration_ms;
use crate::value::{Type, Value};

/// The row of the registry.
pub const ROW: Row = Row { name: "ratio", keys: &KEYS, read };

const KEYS: Keys = Keys { what: "`ratio`", known: &["of", "above", "min_events", "within"], later: &[] };

/// The highest `above`, in thousandths: no share is above 1.
const MAX_ABOVE: i64 = 999;
/// The highest `min_events`.
const MAX_MIN_EVENTS: i64 = 1_000_000;

#[derive(Debug)]
struct Ratio {
    of: Expr,
    /// In thousandths.
    above: i64,
    min_events: i64,
    buckets: Buckets,
}

fn read(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    let fields = Fields::open(node, &KEYS, report)?;
    let of_node = fields.need("of", report);
    let of = of_node.and_then(|n| expression(n, "`of`", scope?, report));
    let above = fields.need("above", report).and_then(|n| fixed_point::read(n, "`above`", 0..=MAX_ABOVE, report));
    let min_events = fields.need("min_events", report).and_then(|n| whole(n, "`min_events`", 1..=MAX_MIN_EVENTS, report));
    let buckets = fields.need("within", report).and_then(|n| Buckets::read(n, report));
    let of = of?;
    if !matches!(of.ty(), Type::Bool | Type::Any) {
        let message = format!("`of` must be true or false, this is of type {}", of.ty().name());
        report.problem(codes::EXPRESSION, of_node?.at, message, Some("compare it with something".into()));
        return None;
    }
    Some(Box::new(Ratio { of, above: above?, min_events: min_events?, buckets: buckets? }))
}

impl Detector for Ratio {
    fn name(&self) -> &'static str {
        ROW.name
    }

    fn memory(&self) -> Option<Memory> {
        Some(Memory::Window { times_ms: Vec::new(), rings: vec![self.buckets.ring()] })
    }

    fn takes(&self, event: &Event<'_>) -> bool {
        matches!(self.of.eval(event), Value::Bool(_))
    }

    fn observe(&self, look: &Look<'_>, memory: &mut Memory) -> Seen {
        let amount = i64::from(self.of.holds(look.event()));
        let within_ms = self.buckets.within_ms;
        let judge = |Sums { amount: hits, total }: Sums| {
            let is_above = i128::from(hits) * 1_000 > i128::from(self.above) * i128::from(total);
            let share = i64::try_from(i128::from(hits) * 1_000 / i128::from(total.max(1))).unwrap_or(1_000);
            let firing = Firing { count: total.unsigned_abs(), within_ms, figure: Figure::Share(share) };
            (total >= self.min_events && is_above).then_some(firing)
        };
        let rank = |firing: &Firing| if let Figure::Share(share) = firing.figure { share } else { 0 };
        self.buckets.observe(only_ring(self.buckets, memory), look, Sums { amount, total: 1 }, judge, rank)
    }

    fn progress(&self, at_ms: i64, memory: &Memory) -> Option<String> {
        let Sums { amount: hits, total } = only_sums(self.buckets, at_ms, memory)?;
        let (above, within) = (thousandths(self.above * 100), format_duration_ms(self.buckets.within_ms));
        Some(format!("{hits} of {total} events in {within}, more than {above}% of at least {} is needed", self.min_events))
    }

    fn window_ms(&self) -> i64 {
        self.buckets.within_ms
    }

    fn most_bytes(&self) -> usize {
        // Hits and events of a bucket take 5 bytes each.
        2 + most_bytes(10)
    }

    fn variables(&self) -> &'static [&'static str] {
        &["$count", "$window_seconds", "$value"]
    }

    fn expressions(&self) -> Vec<&Expr> {
        vec![&self.of]
    }
}

#[cfg(test)]
mod tests;
