//! What one transaction did, record by record, kept by its lane until the commit is known.
//!
//! Counters that move while records are processed count aborted work twice. A lane therefore counts into a tally,
//! hands it to [`Metrics::add`](super::metrics::Metrics::add) once Kafka has committed, and clears it on an abort: so
//! the counters add up with what a read_committed consumer sees.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tripline_core::alert::{Alert, AlertState};
use tripline_core::decision::{ActionTaken, Decision};
use tripline_core::protocol::start::OutputCounts;
use tripline_core::rejection::Reason;

/// Counts of one transaction. Its size is bounded by the records of a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Input records that became observations (routed mode).
    pub routed: u64,
    /// Observations that they became: one for each entity that rules count.
    pub observations: u64,
    /// Input records that no rule's entity applies to (routed mode).
    pub unaddressed: u64,
    /// Input records that the router dead-lettered.
    pub input_dead_lettered: u64,
    /// Observations (or keyed input) that were counted and evaluated.
    pub processed: u64,
    /// Observations too late to count.
    pub late: u64,
    /// Input records that no rule's entity applies to (keyed mode).
    pub concerns_nobody: u64,
    /// Observations whose event id was seen before.
    pub duplicate: u64,
    /// Observations (or keyed input) that were dead-lettered.
    pub dead_lettered: u64,
    /// Dead letters of both stages by reason, in the order of `Reason::ALL`.
    pub dead_letters: [u64; Reason::ALL.len()],
    /// Decisions by `action_taken`, in the order of [`Tally::ACTIONS`].
    pub actions: [u64; Tally::ACTIONS.len()],
    /// Records of alerts: opened, updated, resolved, in the order of [`Tally::ALERTS`].
    pub alerts: [u64; Tally::ALERTS.len()],
    /// Standings published or taken back.
    pub standings: u64,
    /// Decisions of rules that only watch.
    pub shadow: u64,
    /// Decisions that came longer after their cause than `stream.degraded_after`.
    pub degraded: u64,
    /// Events whose time was capped to the reference time.
    pub clamped: u64,
    /// Ticks read by tasks.
    pub ticks: u64,
    /// Decisions that passing time caused.
    pub timed_decisions: u64,
    /// Decisions that say that sub-keys of a rule were dropped.
    pub subkeys_dropped: u64,
    /// Records written to the changelog, markers included.
    pub changelog_records: u64,
    /// Bytes of their keys and values.
    pub changelog_bytes: u64,
    /// Decisions on which nothing fired (`decisions.emit: all`).
    pub(super) without_type: u64,
    /// Decisions by anomaly type.
    pub(super) types: HashMap<String, u64, RandomState>,
}

impl Tally {
    /// The words of `action_taken`, as decisions carry them.
    pub const ACTIONS: [&str; 5] = ["log", "alert", "throttle", "step_up_review", "block"];

    /// The words of an alert's `state`.
    pub const ALERTS: [&str; 3] = ["opened", "updated", "resolved"];

    /// Counts a dead letter of the router.
    pub fn reject_input(&mut self, reason: Reason) {
        self.input_dead_lettered += 1;
        self.dead_letters[index(reason)] += 1;
    }

    /// Counts a dead letter of a task.
    pub fn reject(&mut self, reason: Reason) {
        self.dead_lettered += 1;
        self.dead_letters[index(reason)] += 1;
    }

    /// Counts a decision: type, action, and whether sub-keys were dropped. A clamped
    /// event is counted once per observation, not per decision.
    pub fn decision(&mut self, decision: &Decision) {
        let action = match decision.action_taken {
            ActionTaken::Log => 0,
            ActionTaken::Alert => 1,
            ActionTaken::Throttle => 2,
            ActionTaken::StepUpReview => 3,
            ActionTaken::Block => 4,
        };
        self.actions[action] += 1;
        self.subkeys_dropped += u64::from(decision.partial);
        match &decision.anomaly_type {
            Some(anomaly) => *self.types.entry_ref(anomaly.as_str()).or_insert(0) += 1,
            None => self.without_type += 1,
        }
    }

    /// Counts a record of an alert.
    pub fn alert(&mut self, alert: &Alert) {
        let state = match alert.state {
            AlertState::Opened => 0,
            AlertState::Updated => 1,
            AlertState::Resolved => 2,
        };
        self.alerts[state] += 1;
    }

    /// What was written, for markers.
    pub fn written(&self) -> OutputCounts {
        OutputCounts {
            decisions: self.actions.iter().sum(),
            shadow: self.shadow,
            alerts: self.alerts.iter().sum(),
            standing: self.standings,
            late: self.late,
            dead_letters: self.input_dead_lettered + self.dead_lettered,
            observations: self.observations,
        }
    }

    /// Forgets everything: after the commit was counted, and after an abort.
    pub fn clear(&mut self) {
        let mut types = std::mem::take(&mut self.types);
        types.clear();
        *self = Tally { types, ..Tally::default() };
    }
}

fn index(reason: Reason) -> usize {
    Reason::ALL.iter().position(|r| *r == reason).unwrap_or(Reason::ALL.len() - 1)
}
