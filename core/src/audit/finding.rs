//! What an audit finds, and what it only remarks on.

use super::{Role, Stamp, Task};
use crate::protocol::CommitId;
use std::collections::BTreeMap;

/// Findings that are kept with their places; further ones are counted.
pub const MAX_FINDINGS: usize = 1_000;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A number is missing among the commits of a task.
    LostCommit,
    /// Two commits of one number, or a history that came back: two owners.
    TwoOwners,
    /// A marker stands after one of a later commit.
    MarkerOutOfOrder,
    /// A marker stands twice.
    RepeatedMarker,
    /// Somebody deleted a task's marker.
    MarkerDeleted,
    /// A commit does not begin where the one before it ended: input was left out or read again.
    InputMoved,
    /// The group's offset belongs to an earlier commit than the changelog's newest.
    OffsetBehind,
    /// The group's offset belongs to a commit that the changelog does not know.
    OffsetWithoutMarker,
    /// The group's offset is missing or not ours.
    OffsetForeign,
    /// Outputs of a commit that the changelog does not know.
    OutputWithoutMarker,
    /// A commit wrote more outputs than there are.
    MissingOutputs,
    /// A commit wrote fewer outputs than there are.
    SurplusOutputs,
    /// A commit wrote more states than the changelog has of it.
    MissingStates,
    /// A commit wrote fewer states than stand before its marker.
    SurplusStates,
    /// An output stands after one of a later commit of its task.
    OutputOutOfOrder,
    /// An output stands twice.
    RepeatedOutput,
    /// A record that no commit of ours wrote.
    UnstampedOutput,
}

impl Kind {
    /// Its word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::LostCommit => "lost_commit",
            Kind::TwoOwners => "two_owners",
            Kind::MarkerOutOfOrder => "marker_out_of_order",
            Kind::RepeatedMarker => "repeated_marker",
            Kind::MarkerDeleted => "marker_deleted",
            Kind::InputMoved => "input_moved",
            Kind::OffsetBehind => "offset_behind",
            Kind::OffsetWithoutMarker => "offset_without_marker",
            Kind::OffsetForeign => "offset_foreign",
            Kind::OutputWithoutMarker => "output_without_marker",
            Kind::MissingOutputs => "missing_outputs",
            Kind::SurplusOutputs => "surplus_outputs",
            Kind::MissingStates => "missing_states",
            Kind::SurplusStates => "surplus_states",
            Kind::OutputOutOfOrder => "output_out_of_order",
            Kind::RepeatedOutput => "repeated_output",
            Kind::UnstampedOutput => "unstamped_output",
        }
    }
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// One thing that is wrong. It names no entity and repeats nothing that came from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// The task, if one is known.
    pub task: Option<Task>,
    /// Its commit, if one is known.
    pub stamp: Option<Stamp>,
    /// The record that shows it.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// In words.
    pub detail: String,
}

impl Finding {
    /// The commit id as markers have it.
    pub fn commit_id(&self) -> Option<String> {
        self.stamp.map(|stamp| CommitId(stamp.id).to_hex())
    }
}

/// What is worth knowing and proves nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// A task began a new history.
    NewHistory,
    /// Markers of a binary that counts less.
    MarkersWithoutCounts,
    /// Markers of a layout that this binary does not read.
    UnreadableMarkers,
    /// Markers name several numbers of partitions.
    Repartitioned,
    /// An app sent an event id again, long after the first time.
    RepeatedEvent,
    /// Late records and dead letters of a binary that did not stamp them.
    UnstampedOutputs,
    /// Observations of a router partition whose input was moved: they cannot be told apart by commit.
    UntoldObservations,
}

impl NoteKind {
    /// Its word in reports.
    pub fn name(self) -> &'static str {
        match self {
            NoteKind::NewHistory => "new_history",
            NoteKind::MarkersWithoutCounts => "markers_without_counts",
            NoteKind::UnreadableMarkers => "unreadable_markers",
            NoteKind::Repartitioned => "repartitioned",
            NoteKind::RepeatedEvent => "repeated_event",
            NoteKind::UnstampedOutputs => "unstamped_outputs",
            NoteKind::UntoldObservations => "untold_observations",
        }
    }

    /// What it means.
    pub fn meaning(self) -> &'static str {
        match self {
            NoteKind::NewHistory => "tasks that began a new history: their changelog was made anew",
            NoteKind::MarkersWithoutCounts => "commits of an older binary, which counts decisions only",
            NoteKind::UnreadableMarkers => "markers of a layout that this binary does not read: audit with the newer one",
            NoteKind::Repartitioned => "the keyed topic got another number of partitions",
            NoteKind::RepeatedEvent => "outputs with an id of before, each counted by its own commit: an app sent an event id again",
            NoteKind::UnstampedOutputs => "late records or dead letters of an older binary, which say nothing of their commit",
            NoteKind::UntoldObservations => "observations of input that was moved: not counted by commit",
        }
    }
}

/// A remark and how often it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Which.
    pub kind: NoteKind,
    /// How often.
    pub count: u64,
}

/// Collects both, within bounds.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) kept: Vec<Finding>,
    pub(super) total: u64,
    notes: BTreeMap<NoteKind, u64>,
    strays: BTreeMap<(Role, Option<Task>, Stamp), Stray>,
}

/// Outputs of one commit without a marker.
#[derive(Debug)]
struct Stray {
    topic: String,
    partition: i32,
    offset: i64,
    count: u64,
}

impl Findings {
    pub(super) fn push(&mut self, kind: Kind, task: Option<&Task>, stamp: Option<Stamp>, at: Place<'_>, detail: String) {
        self.total += 1;
        if self.kept.len() < MAX_FINDINGS {
            let Place { topic, partition, offset } = at;
            self.kept.push(Finding { kind, task: task.cloned(), stamp, topic: topic.to_owned(), partition, offset, detail });
        }
    }

    pub(super) fn note(&mut self, kind: NoteKind) {
        self.notes(kind, 1);
    }

    pub(super) fn notes(&mut self, kind: NoteKind, count: u64) {
        *self.notes.entry(kind).or_default() += count;
    }

    /// An output without a marker: those of one commit are one finding.
    pub(super) fn stray(&mut self, role: Role, task: Option<&Task>, stamp: Stamp, at: Place<'_>) {
        let key = (role, task.cloned(), stamp);
        if let Some(stray) = self.strays.get_mut(&key) {
            stray.count += 1;
        } else if self.strays.len() < MAX_FINDINGS {
            let Place { topic, partition, offset } = at;
            self.strays.insert(key, Stray { topic: topic.to_owned(), partition, offset, count: 1 });
        } else {
            self.total += 1;
        }
    }

    pub(super) fn close(mut self) -> (Vec<Finding>, u64, Vec<Note>) {
        for ((role, task, stamp), Stray { topic, partition, offset, count }) in std::mem::take(&mut self.strays) {
            let detail = format!("{count} {} of a commit that the changelog does not know; the first is named", role.name());
            self.push(Kind::OutputWithoutMarker, task.as_ref(), Some(stamp), Place { topic: &topic, partition, offset }, detail);
        }
        let notes = self.notes.into_iter().map(|(kind, count)| Note { kind, count }).collect();
        (self.kept, self.total, notes)
    }
}
