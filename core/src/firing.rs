//! A condition that is met: what happened, in numbers and in words.

use crate::score::Axis;
use crate::time;

/// A condition that is met, and what may be recorded of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firing {
    /// Events (for `distinct`: values) that met it, as far as they are remembered.
    pub count: u64,
    /// Length of the window; 0 without one.
    pub within_ms: i64,
    /// What it is about.
    pub figure: Figure,
}

/// What a firing is about, for its reason in words and for `$value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// One event was enough.
    One,
    /// Events in a window.
    Events,
    /// Events beyond an allowed rate.
    Rate,
    /// Different values in a window.
    Values,
    /// A sum in a window, in thousandths.
    Sum(i64),
    /// A share of the events of a window, in thousandths.
    Share(i64),
    /// Steps in their order.
    Steps,
    /// Steps in their order, and then nothing.
    Absence,
    /// A value never seen before.
    New,
    /// The entity's score.
    Score(Axis),
    /// The app says so itself.
    Reported,
}

impl Firing {
    /// The reason in words: "20 in 60s".
    pub fn why(&self) -> String {
        let within = time::format_duration_ms(self.within_ms);
        let count = self.count;
        match self.figure {
            Figure::One => "one event is enough".to_owned(),
            Figure::Events => format!("{count} in {within}"),
            Figure::Rate => "more often than allowed".to_owned(),
            Figure::Values => format!("{count} different values in {within}"),
            Figure::Sum(sum) => format!("a sum of {} in {within}", thousandths(sum)),
            Figure::Share(share) => format!("{}% of {count} in {within}", thousandths(share.saturating_mul(100))),
            Figure::Steps => format!("{count} events in their order in {within}"),
            Figure::Absence if count == 1 => format!("one event, and then nothing for {within}"),
            Figure::Absence => format!("{count} events in their order, and then nothing for {within}"),
            Figure::New => format!("not seen for {within}"),
            Figure::Score(axis) => format!("a score of {count} for {}", axis.name()),
            Figure::Reported => "reported by the app".to_owned(),
        }
    }

    /// `$value`: the sum, or the share between 0 and 1; the count for everything else.
    pub fn value(&self) -> serde_json::Value {
        match self.figure {
            Figure::Sum(figure) | Figure::Share(figure) if figure % 1_000 == 0 => (figure / 1_000).into(),
            Figure::Sum(figure) | Figure::Share(figure) => (figure as f64 / 1_000.0).into(),
            _ => self.count.into(),
        }
    }
}

/// Thousandths in decimals: `1.5`.
pub fn thousandths(figure: i64) -> String {
    let (sign, whole, rest) = (if figure < 0 { "-" } else { "" }, figure.unsigned_abs() / 1_000, figure.unsigned_abs() % 1_000);
    if rest == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest:03}").trim_end_matches('0').to_owned() }
}
