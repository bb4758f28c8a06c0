//! Code that turns matching events into firings: one file per detector.
//!
//! A detector sees the memory of its rule (and sub-key), the event's time, and answers whether it fires. It knows nothing
//! of events, flags or scores.

pub mod count;
pub mod matching;

use crate::rule::{Detector, Rule};
use crate::state::{ActorState, Room};

/// A firing, and what it may record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firing {
    /// Events in the window, this one included.
    pub count: u32,
    /// Length of the window; 0 without one.
    pub within_ms: i64,
}

/// What one event did to one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The firing, if it fired.
    pub firing: Option<Firing>,
    /// Whether a sub-key that still mattered had to make room.
    pub room: Room,
}

/// Shows an event of this time, which passed the rule's predicate, to the rule's detector.
pub fn observe(rule: &Rule, sub: u64, event_ms: i64, state: &mut ActorState) -> Verdict {
    match rule.detector {
        Detector::Match => matching::observe(rule, sub, event_ms, state),
        Detector::Count { at_least, within_ms, window, firing } => {
            count::observe(rule, sub, event_ms, state, count::Spec { at_least, within_ms, window, firing })
        }
    }
}
