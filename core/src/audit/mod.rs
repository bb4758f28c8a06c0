//! Whether commits add up: markers, outputs and the group's offsets held against each other. Pure; the verb `audit` reads them.
//!
//! A commit of a task is one marker in the changelog, some outputs and one offset, all in one transaction. Each says to which
//! commit it belongs, and the marker says how many outputs there are and which input records it took. So whatever is lost,
//! torn, repeated or comes back from the dead contradicts something else: [`Kind`] has the ways.
//!
//! # No false alarm while workers run
//!
//! What is read is always a moment of a line that moves on, and a topic is read at another moment than the next. The order of
//! the reader decides what may be said:
//!
//! 1. the last stable offset of each changelog partition. A marker below it is *settled*: its transaction has ended, so all its
//!    outputs were acknowledged before;
//! 2. the high watermark of each output partition: outputs of settled commits stand below it;
//! 3. wait until nothing below these watermarks is open. What stands there is committed now, so its marker was appended before now;
//! 4. the group's offsets, which wait for open transactions themselves: none is older than a settled marker;
//! 5. the high watermark of each changelog partition, and markers up to it: they include the marker of every output and of every
//!    offset seen;
//! 6. outputs up to the watermarks of step 2.
//!
//! So outputs and offsets without a marker are always a finding, and outputs that are missing are one if the marker is settled.
//! States stand in the marker's own partition before it: reading that once is enough.
//!
//! # What time hides
//!
//! Compaction may take a marker that a later one of its task replaced, once it is older than the compaction lag. A hole between
//! markers is therefore a lost commit only if the marker before the hole is younger than that; behind an older hole the
//! task's coverage begins. States are counted only where none can have been compacted away. Retention may take outputs: what is
//! missing counts from the time on from which every partition that the task writes to has them all ([`Complete`]). Times are the broker's append times; those of one commit are apart by [`Window::margin_ms`] at most.

mod chain;
mod finding;
mod outputs;
mod report;
mod seen;
mod states;
#[cfg(test)]
mod tests;

pub use chain::Markers;
pub use finding::{Finding, Kind, MAX_FINDINGS, Note, NoteKind, Place};
pub use outputs::{Audit, Complete, Output};
pub use report::{OutputCoverage, Report, TaskCoverage};

use crate::protocol::CommitId;

/// A task as people know it: its input topic and partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// The topic that it reads.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What a topic of outputs holds, in the order of [`OutputCounts::all`](crate::protocol::start::OutputCounts::all).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Decisions.
    Decisions,
    /// Decisions of rules that only watch.
    Shadow,
    /// Records of alerts.
    Alerts,
    /// Standings.
    Standing,
    /// Late observations.
    Late,
    /// Dead letters.
    DeadLetters,
    /// Observations (routed mode).
    Observations,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 7] =
        [Role::Decisions, Role::Shadow, Role::Alerts, Role::Standing, Role::Late, Role::DeadLetters, Role::Observations];

    /// Its word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Role::Decisions => "decisions",
            Role::Shadow => "shadow",
            Role::Alerts => "alerts",
            Role::Standing => "standing",
            Role::Late => "late",
            Role::DeadLetters => "dead_letters",
            Role::Observations => "observations",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// Which commits are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Commits whose marker was appended then or later, milliseconds.
    pub since_ms: i64,
    /// The most that append times of one commit's records are apart, milliseconds.
    pub margin_ms: i64,
}

/// Which commit of its task wrote a record: the rest of the auditor's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Number of the commit.
    pub seq: u64,
    /// The attempt.
    pub id: u128,
}

impl Stamp {
    /// Reads the auditor's header, `TOPIC-PARTITION/SEQ/COMMIT_ID`: the partition of the task, and the commit. The number of
    /// the topic is that of the writer's settings and means nothing to others.
    pub fn parse(header: &[u8]) -> Option<(i32, Stamp)> {
        let mut parts = std::str::from_utf8(header).ok()?.split('/');
        let (_, partition) = parts.next()?.split_once('-')?;
        let stamp = Stamp { seq: parts.next()?.parse().ok()?, id: CommitId::from_hex(parts.next()?)?.0 };
        parts.next().is_none().then_some((partition.parse().ok()?, stamp))
    }
}
