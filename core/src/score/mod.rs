//! The score of an entity: what its contributions add up to, axis by axis. `docs/scoring.md` says it for operators.
//!
//! ```text
//! contribution = min(cap, points × confidence? × context) × 2^(−age / half-life)
//! family       = c1 + c2/2 + c3/4        the strongest first; the rest adds nothing
//! axis         = min(100, Σ families)
//! risk score   = the highest axis, in whole points
//! ```
//!
//! All of it in whole thousandths of a point ([`Milli`]), so that the parts add up exactly and nothing depends on the order in
//! which they came. Which rule says what is in [`reasons`], what is held against an entity in [`crate::state::Ledger`];
//! [`tally`] adds up.

pub mod decay;
pub mod reasons;
pub mod tally;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What evidence speaks about. Scores of different axes are never added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Somebody who should not be here.
    Intrusion,
    /// Somebody who does what their role must not.
    Policy,
    /// Somebody who takes more than their share.
    Abuse,
    /// Somebody who bends data or money.
    Integrity,
}

impl Axis {
    /// Every axis.
    pub const ALL: [Axis; 4] = [Axis::Intrusion, Axis::Policy, Axis::Abuse, Axis::Integrity];

    /// The axis' word.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Intrusion => "intrusion",
            Axis::Policy => "policy",
            Axis::Abuse => "abuse",
            Axis::Integrity => "integrity",
        }
    }

    /// The axes by their words.
    pub const WORDS: [(&str, Axis); 4] =
        [("intrusion", Axis::Intrusion), ("policy", Axis::Policy), ("abuse", Axis::Abuse), ("integrity", Axis::Integrity)];
}

/// Thousandths of a point, 0 to 100 000: of one contribution, and of an axis. There is no larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Milli(u32);

impl Milli {
    /// Nothing.
    pub const ZERO: Milli = Milli(0);
    /// 100 points: the most.
    pub const MOST: Milli = Milli(100_000);
    /// Half a point: a contribution below it is gone.
    pub const LEAST: Milli = Milli(500);

    /// The nearest there is.
    pub fn saturating(thousandths: u64) -> Milli {
        Milli(u32::try_from(thousandths).unwrap_or(u32::MAX).min(Milli::MOST.0))
    }

    /// Whole points.
    pub const fn of_points(points: u8) -> Milli {
        let thousandths = points as u32 * 1_000;
        if thousandths > Milli::MOST.0 { Milli::MOST } else { Milli(thousandths) }
    }

    /// Thousandths.
    pub fn thousandths(self) -> u32 {
        self.0
    }

    /// The nearest whole point, 0 to 100; a half goes up. Thresholds are compared with this: what is shown is what acts.
    pub fn points(self) -> u8 {
        u8::try_from((self.0 + 500) / 1_000).unwrap_or(100)
    }

    /// Multiplied by thousandths, rounded down.
    #[must_use]
    pub fn times(self, thousandths: u32) -> Milli {
        Milli::saturating(u64::from(self.0) * u64::from(thousandths) / 1_000)
    }
}
