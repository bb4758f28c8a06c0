//! # sum
//!
//! **What it detects.** More of something than X within a time: bytes sent, money moved, items exported. **Why it matters.**
//! Draining an account or a database may take few requests. **Signals.** On the edge: once when the sum passes X; again
//! after it fell to X or below, or `once_per` later while it stays. **Tuning.** X from the busiest normal actors.
//! **Example.** `detect: { sum: { of: response_bytes, above: 50000000, within: 10m } }`.
//!
//! Added up in thousandths, in [buckets](super::buckets): a sum does not depend on the order of its events, and nothing that
//! is too old is in it. What it may lack is what the oldest sixtieth of the window holds.

use super::buckets::{Buckets, Sums, most_bytes, only_ring, only_sums};
use super::{Detector, Figure, Firing, Look, Row, Seen, fixed_point};
use crate::event::Event;
use crate::expr::{Expr, Scope};
use crate::firing::thousandths;
use crate::rule::load::codes;
use crate::rule::load::fields::{Fields, Keys};
use crate::rule::load::report::Report;
use crate::rule::load::rule::expression;
use crate::rule::load::tree::Node;
use crate::state::Memory;
use crate::time::format_duration_ms;
use crate::value::Type;

/// The row of the registry.
pub const ROW: Row = Row { name: "sum", keys: &KEYS, read };

const KEYS: Keys = Keys { what: "`sum`", known: &["of", "above", "within"], later: &[] };

/// The highest `above`, in thousandths: 10^15.
const MAX_ABOVE: i64 = 1_000_000_000_000_000_000;

#[derive(Debug)]
struct Sum {
    of: Expr,
    /// In thousandths.
    above: i64,
    buckets: Buckets,
}

fn read(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    let fields = Fields::open(node, &KEYS, report)?;
    let of_node = fields.need("of", report);
    let of = of_node.and_then(|n| expression(n, "`of`", scope?, report));
    let above = fields.need("above", report).and_then(|n| fixed_point::read(n, "`above`", 0..=MAX_ABOVE, report));
    let buckets = fields.need("within", report).and_then(|n| Buckets::read(n, report));
    let of = of?;
    if !matches!(of.ty(), Type::Int | Type::Float | Type::Any) {
        let message = format!("`of` must be a number, this is of type {}", of.ty().name());
        report.problem(codes::EXPRESSION, of_node?.at, message, None);
        return None;
    }
    Some(Box::new(Sum { of, above: above?, buckets: buckets? }))
}

impl Detector for Sum {
    fn name(&self) -> &'static str {
        ROW.name
    }

    fn memory(&self) -> Option<Memory> {
        Some(Memory::Window { times_ms: Vec::new(), rings: vec![self.buckets.ring()] })
    }

    fn takes(&self, event: &Event<'_>) -> bool {
        fixed_point::of_value(self.of.eval(event)).is_some()
    }

    fn observe(&self, look: &Look<'_>, memory: &mut Memory) -> Seen {
        let amount = fixed_point::of_value(self.of.eval(look.event())).unwrap_or(0);
        let within_ms = self.buckets.within_ms;
        let judge = |sums: Sums| {
            let firing = Firing { count: sums.total.unsigned_abs(), within_ms, figure: Figure::Sum(sums.amount) };
            (sums.amount > self.above).then_some(firing)
        };
        let rank = |firing: &Firing| if let Figure::Sum(sum) = firing.figure { sum } else { 0 };
        self.buckets.observe(only_ring(self.buckets, memory), look, Sums { amount, total: 1 }, judge, rank)
    }

    fn progress(&self, at_ms: i64, memory: &Memory) -> Option<String> {
        let sum = thousandths(only_sums(self.buckets, at_ms, memory)?.amount);
        let (above, within) = (thousandths(self.above), format_duration_ms(self.buckets.within_ms));
        Some(format!("a sum of {sum} in {within}, more than {above} is needed"))
    }

    fn window_ms(&self) -> i64 {
        self.buckets.within_ms
    }

    fn most_bytes(&self) -> usize {
        // An amount takes 10 bytes, its events 5.
        2 + most_bytes(15)
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
