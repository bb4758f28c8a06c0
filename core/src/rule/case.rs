//! Tests written beside a rule: what happens, and what the rule says to it. [`crate::trial`] runs them.

use super::Severity;
use crate::policy::Action;
use crate::score::Axis;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most tests of one rule.
pub const MAX_CASES: usize = 100;
/// The most events that one test makes.
pub const MAX_EVENTS: usize = 100_000;
/// When a test begins unless it says otherwise: Monday, 2024-01-01T00:00:00Z.
pub const DEFAULT_START_MS: i64 = 1_704_067_200_000;
/// Between two events, and between two entries, unless the test says otherwise: one second.
pub const DEFAULT_EVERY_MS: i64 = 1_000;

/// Where something stands in the pack's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file's name as the user knows it.
    pub file: Arc<str>,
    /// Line from 1.
    pub line: usize,
    /// Column from 1.
    pub column: usize,
}

/// One test of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What it shows; unlike every other test's of the rule.
    pub name: String,
    /// Where it stands.
    pub at: Origin,
    /// When it begins, milliseconds since 1970. All times of the case are counted from here.
    pub start_ms: i64,
    /// Everything that is due up to this time is fired, milliseconds from the start; `None` for rules that only events fire.
    pub until_ms: Option<i64>,
    /// Flags with another value than tests give them.
    pub flags: BTreeMap<String, bool>,
    /// What happens. Never empty.
    pub entries: Vec<Entry>,
    /// The signals that the rule gives, and no others; none for a test that expects nothing.
    pub expect: Vec<Expectation>,
}

/// One event, or one that repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub line: usize,
    /// When the first happens, milliseconds from the start.
    pub at_ms: i64,
    /// From one to the next, milliseconds.
    pub every_ms: i64,
    /// How many, at least 1.
    pub times: u32,
    /// How long after they happen they arrive, milliseconds.
    pub late_by_ms: i64,
    /// The members of the event's JSON, with `{n}` for the repetition's number; without its time.
    pub members: String,
    /// Its id is among the members.
    pub has_own_id: bool,
}

/// Signals that a test expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// When, milliseconds from the start.
    pub when: When,
    /// How many, at least 1.
    pub signals: u32,
    /// About whom, `user:u1`; `None` for anyone.
    pub entity: Option<String>,
    /// Of which anomaly type; `None` for any.
    pub ty: Option<String>,
    /// Exactly these actions; `None` for any.
    pub actions: Option<Vec<Action>>,
    /// The severity; `None` for any.
    pub severity: Option<Severity>,
    /// The scores of these axes, in whole points.
    pub score: BTreeMap<Axis, u8>,
}

/// When a signal is expected, milliseconds from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Not later.
    By(i64),
    /// Exactly then.
    At(i64),
}

impl When {
    /// The time that is named.
    pub fn ms(self) -> i64 {
        match self {
            When::By(ms) | When::At(ms) => ms,
        }
    }

    /// Whether a signal of this time is one.
    pub fn allows(self, at_ms: i64) -> bool {
        match self {
            When::By(ms) => at_ms <= ms,
            When::At(ms) => at_ms == ms,
        }
    }
}

/// One event of a test on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When it happens, milliseconds since 1970.
    pub at_ms: i64,
    /// When it arrives: its reference time.
    pub arrives_ms: i64,
    /// The line of its entry.
    pub line: usize,
    /// The event as an app would send it.
    pub json: String,
}

impl Entry {
    /// When the last happens, milliseconds from the start.
    pub fn last_ms(&self) -> i64 {
        self.at_ms.saturating_add(self.every_ms.saturating_mul(i64::from(self.times) - 1))
    }

    /// The repetition `n` (from 1), which happens at `at_ms` since 1970; `ordinal` makes its id if it has none.
    pub fn json(&self, n: u32, ordinal: usize, at_ms: i64) -> String {
        let id = if self.has_own_id { String::new() } else { format!("\"event_id\":\"e{ordinal}\",") };
        // In JSON `{n}` stands inside texts only.
        format!("{{{id}\"event_time\":{at_ms},{}}}", self.members.replace("{n}", &n.to_string()))
    }
}

impl Case {
    /// When the last event happens, milliseconds from the start.
    pub fn last_ms(&self) -> i64 {
        self.entries.iter().map(Entry::last_ms).max().unwrap_or(0)
    }

    /// Whether it says itself in which order events arrive.
    pub fn has_own_order(&self) -> bool {
        self.entries.iter().any(|entry| entry.late_by_ms > 0)
    }

    /// Its events in the order in which they arrive; of equal times the entry that stands first goes first.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        for entry in &self.entries {
            for n in 1..=entry.times {
                let at_ms = self.start_ms + entry.at_ms + entry.every_ms * i64::from(n - 1);
                let json = entry.json(n, arrivals.len() + 1, at_ms);
                arrivals.push(Arrival { at_ms, arrives_ms: at_ms + entry.late_by_ms, line: entry.line, json });
            }
        }
        arrivals.sort_by_key(|arrival| arrival.arrives_ms);
        arrivals
    }
}
