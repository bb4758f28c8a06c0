//! The markers of each task: one chain of commits without a gap.

use super::finding::Findings;
use super::states::States;
use super::{Audit, Kind, NoteKind, Place, Role, Stamp, Task, Window};
use crate::protocol::CommitId;
use crate::protocol::start::{Marker, Metadata};
use std::collections::{BTreeMap, BTreeSet};

/// Tombstones under markers' keys that are kept until all is read: more than a move of any input leaves.
const MAX_TOMBSTONES: usize = 1 << 16;

/// What an audit remembers of a commit: 96 bytes, see `docs/audit.md`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commit {
    pub(super) id: u128,
    pub(super) seq: u64,
    /// Where its marker stands.
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Its place among the commits of the task.
    pub(super) order: u32,
    pub(super) at_ms: i64,
    /// The input records that it took: from the first up to the next.
    pub(super) first: i64,
    pub(super) next: i64,
    /// Outputs that its marker counts and that were not found yet; below 0 there are more than it counts.
    pub(super) left: [i32; Role::ALL.len()],
    history: u16,
    /// The kinds of outputs that its marker counts, as bits.
    known: u8,
    pub(super) settled: bool,
}

const _: () = assert!(size_of::<Commit>() <= 96);

impl Commit {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { seq: self.seq, id: self.id }
    }

    /// Its marker counts outputs of this kind.
    pub(super) fn knows(&self, role: Role) -> bool {
        self.known & (1 << role.index()) != 0
    }

    pub(super) fn found(&mut self, role: Role) {
        self.left[role.index()] = self.left[role.index()].saturating_sub(1);
    }
}

/// The commits of a task.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// In log order while markers are read; by seq afterwards.
    pub(super) commits: Vec<Commit>,
    histories: Vec<String>,
    /// From then on no marker can have been compacted away, or none is missing although it might.
    pub(super) covered_from_ms: i64,
    /// The number of the first commit from which on none is missing.
    pub(super) covered_from: u64,
    /// The chain holds the task's first commit of all.
    pub(super) from_beginning: bool,
    /// Input was moved: its records do not tell the commit any more.
    pub(super) moved: bool,
    /// The newest settled commit.
    newest: Option<Commit>,
}

impl Chain {
    pub(super) fn find(&self, stamp: Stamp) -> Option<usize> {
        let from = self.commits.partition_point(|commit| commit.seq < stamp.seq);
        let same = self.commits[from..].iter().take_while(|commit| commit.seq == stamp.seq);
        same.enumerate().find(|(_, commit)| commit.id == stamp.id).map(|(at, _)| from + at)
    }

    /// The commit that took an input record.
    pub(super) fn took(&self, offset: i64) -> Option<usize> {
        let at = self.commits.partition_point(|commit| commit.next <= offset);
        self.commits.get(at).filter(|commit| commit.first <= offset).map(|_| at)
    }

    /// Whether the marker of a commit must be there, if its output was appended then.
    pub(super) fn must_have(&self, stamp: Stamp, at_ms: i64, window: Window) -> bool {
        let by_number = self.histories.len() == 1 && stamp.seq >= self.covered_from;
        self.from_beginning || by_number || at_ms >= self.covered_from_ms.saturating_add(window.margin_ms)
    }

    /// The number of a history; numbers are given in the order in which histories appear.
    fn history(&mut self, name: &str) -> u16 {
        let at = self.histories.iter().position(|known| known == name).unwrap_or_else(|| {
            self.histories.push(name.to_owned());
            self.histories.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }
}

/// A marker's key without a value.
#[derive(Debug)]
struct Tombstone {
    task: Task,
    partition: i32,
    offset: i64,
    at_ms: i64,
}

/// Markers as they are read.
#[derive(Debug)]
pub struct Markers {
    window: Window,
    changelog: String,
    tasks: BTreeMap<Task, Chain>,
    deleted: Vec<Tombstone>,
    /// Numbers of partitions of the keyed topic that markers name.
    partitions: BTreeSet<i32>,
    /// Tasks that were moved, with the partition of the changelog where the marker had been before.
    moves: BTreeSet<(Task, i32)>,
    /// A marker of a move was read.
    has_moved: bool,
    states: States,
    findings: Findings,
}

impl Markers {
    /// None yet; `changelog` is the topic's name.
    pub fn new(window: Window, changelog: impl Into<String>) -> Markers {
        Markers {
            window,
            changelog: changelog.into(),
            tasks: BTreeMap::new(),
            deleted: Vec::new(),
            partitions: BTreeSet::new(),
            moves: BTreeSet::new(),
            has_moved: false,
            states: States::default(),
            findings: Findings::default(),
        }
    }

    /// A task's marker, in the order of its partition. `at_ms` is its append time, `settled` whether it stands below the last
    /// stable offset that was taken first.
    pub fn marker(&mut self, task: &Task, partition: i32, offset: i64, at_ms: i64, settled: bool, value: Option<&[u8]>) {
        let Some(value) = value else {
            self.states.unknown(task);
            if self.deleted.len() < MAX_TOMBSTONES {
                self.deleted.push(Tombstone { task: task.clone(), partition, offset, at_ms });
            } else {
                self.findings.total += 1;
            }
            return;
        };
        let Some((marker, CommitId(id))) = Marker::parse(value).and_then(|m| CommitId::from_hex(&m.commit_id).map(|id| (m, id))) else {
            self.states.unknown(task);
            self.findings.note(NoteKind::UnreadableMarkers);
            return;
        };
        let (known, counts, first) = match &marker.work {
            Some(work) => (u8::MAX, work.outputs.all(), work.first_offset),
            None => {
                self.findings.note(NoteKind::MarkersWithoutCounts);
                let decisions = std::array::from_fn(|at| if at == Role::Decisions.index() { marker.decisions } else { 0 });
                (1 << Role::Decisions.index(), decisions, i64::MIN)
            }
        };
        let former = marker.moved_from.map(|before| task.partition.rem_euclid(before.max(1)));
        if let Some(former) = former {
            self.has_moved = true;
            // Where it still stands a tombstone is no move's.
            if former != partition {
                self.moves.insert((task.clone(), former));
            }
        }
        self.states.marker(task, Stamp { seq: marker.seq, id }, (partition, offset), at_ms, marker.states);
        let chain = self.tasks.entry(task.clone()).or_default();
        self.partitions.insert(marker.partitions);
        let commit = Commit {
            id,
            seq: marker.seq,
            partition,
            offset,
            order: 0,
            at_ms,
            first,
            next: marker.next_offset,
            left: counts.map(|count| i32::try_from(count).unwrap_or(i32::MAX)),
            history: chain.history(&marker.history),
            known,
            settled,
        };
        chain.commits.push(commit);
    }

    /// A state that a task wrote, or its tombstone, in the order of the partition and so before the marker of its commit.
    pub fn state(&mut self, task: &Task) {
        self.states.state(task);
    }

    /// All markers are read. Markers appended at `kept_from_ms` or later cannot have been compacted away meanwhile.
    pub fn close(mut self, kept_from_ms: i64) -> Audit {
        // With another number of partitions, what was unread is written anew, and markers of routers move with the tasks.
        let is_moved = self.partitions.len() > 1 || self.has_moved;
        if is_moved {
            self.findings.note(NoteKind::Repartitioned);
        }
        for tombstone in std::mem::take(&mut self.deleted) {
            if !self.is_of_a_move(&tombstone, kept_from_ms) {
                let Tombstone { task, partition, offset, .. } = tombstone;
                let place = Place { topic: &self.changelog, partition, offset };
                let detail = "a tombstone under the key of the task's marker".to_owned();
                self.findings.push(Kind::MarkerDeleted, Some(&task), None, place, detail);
            }
        }
        self.states.judge(self.window, kept_from_ms, &self.changelog, &mut self.findings);
        for (task, chain) in &mut self.tasks {
            chain.moved |= is_moved;
            if is_moved {
                chain.commits.sort_by_key(|commit| commit.at_ms);
            }
            verify(task, chain, kept_from_ms, &self.changelog, &mut self.findings);
        }
        let tasks = self.tasks.into_iter().filter(|(_, chain)| !chain.commits.is_empty()).collect();
        Audit::new(self.window, self.changelog, tasks, self.findings)
    }

    /// Whether a move left this tombstone where the task's marker had been. The move's marker may stand just before what is read, as
    /// long as the tombstone is before the window. It may have been compacted away, or an older binary may not have said what it
    /// was: then a marker elsewhere tells.
    fn is_of_a_move(&self, tombstone: &Tombstone, kept_from_ms: i64) -> bool {
        let Tombstone { task, partition, at_ms, .. } = tombstone;
        let elsewhere = || self.tasks.get(task).is_some_and(|chain| chain.commits.iter().any(|commit| commit.partition != *partition));
        let is_untold = self.partitions.len() > 1 || *at_ms < kept_from_ms;
        *at_ms < self.window.since_ms || self.moves.contains(&(task.clone(), *partition)) || (is_untold && elsewhere())
    }
}

/// Each commit against the one before it in the log.
fn verify(task: &Task, chain: &mut Chain, kept_from_ms: i64, changelog: &str, findings: &mut Findings) {
    let mut kept: Vec<Commit> = Vec::with_capacity(chain.commits.len());
    let (mut covered, mut histories) = (0, 0);
    for commit in std::mem::take(&mut chain.commits) {
        let Some(before) = kept.last().copied() else {
            kept.push(commit);
            continue;
        };
        let place = Place { topic: changelog, partition: commit.partition, offset: commit.offset };
        let mut find = |kind, detail| findings.push(kind, Some(task), Some(commit.stamp()), place, detail);
        if commit.history > histories {
            histories = commit.history;
            findings.note(NoteKind::NewHistory);
        } else if commit.history != before.history {
            find(Kind::TwoOwners, "a history that had ended goes on".into());
        } else if commit.id == before.id && commit.seq == before.seq {
            if commit.next == before.next && commit.first == before.first {
                find(Kind::RepeatedMarker, format!("the same marker stands at offset {}", before.offset));
            } else {
                find(Kind::TwoOwners, format!("another marker of this commit stands at offset {}", before.offset));
            }
            // Counted once.
            continue;
        } else if commit.seq == before.seq {
            let other = CommitId(before.id).to_hex();
            find(Kind::TwoOwners, format!("commit {other} has the same number, at offset {}", before.offset));
        } else if commit.seq < before.seq {
            find(Kind::MarkerOutOfOrder, format!("commit {} stands before it, at offset {}", before.seq, before.offset));
        } else if commit.seq > before.seq + 1 {
            let (first, last) = (before.seq + 1, commit.seq - 1);
            let missing =
                if first == last { format!("commit {first} is missing") } else { format!("commits {first} to {last} are missing") };
            if before.at_ms >= kept_from_ms {
                find(Kind::LostCommit, format!("{missing}: the marker before it stands at offset {}", before.offset));
            } else {
                covered = kept.len();
            }
        } else if commit.first != i64::MIN && commit.first != before.next {
            chain.moved = true;
            let (from, to) = (before.next, commit.first);
            let what = if to > from { "never read" } else { "read again" };
            find(
                Kind::InputMoved,
                format!(
                    "it begins at offset {to} of its input, the one before ended at {from}: what is between was {what}, unless an operator moved it (state adopt)"
                ),
            );
        }
        kept.push(commit);
    }
    if let Some(first) = kept.get(covered) {
        chain.covered_from_ms = first.at_ms;
        chain.covered_from = kept[covered..].iter().map(|commit| commit.seq).min().unwrap_or(first.seq);
        chain.from_beginning = covered == 0 && first.seq == 0;
    }
    chain.moved |= chain.histories.len() > 1;
    (0..).zip(&mut kept).for_each(|(order, commit)| commit.order = order);
    chain.newest = kept.iter().rev().find(|commit| commit.settled).copied();
    kept.sort_by_key(|commit| (commit.seq, commit.order));
    chain.commits = kept;
}

/// The group's offset of a task against its chain.
pub(super) fn verify_offset(task: &Task, chain: &Chain, changelog: &str, found: Option<(i64, Option<&Metadata>)>, findings: &mut Findings) {
    let Some(newest) = chain.newest else { return };
    let place = Place { topic: changelog, partition: newest.partition, offset: newest.offset };
    let Some((offset, Some(metadata))) = found else {
        let detail = "the group's offset is missing or not ours, beside this marker: it expired or was reset".to_owned();
        findings.push(Kind::OffsetForeign, Some(task), Some(newest.stamp()), place, detail);
        return;
    };
    let Some(CommitId(id)) = CommitId::from_hex(&metadata.commit_id) else { return };
    let stamp = Stamp { seq: metadata.seq, id };
    match chain.find(stamp).map(|at| chain.commits[at]) {
        Some(commit) if commit.order < newest.order => {
            let detail = format!("the group's offset belongs to commit {}, the changelog has come to {}", stamp.seq, newest.seq);
            findings.push(Kind::OffsetBehind, Some(task), Some(newest.stamp()), place, detail);
        }
        Some(commit) if commit.next != offset => {
            let detail = format!("the group's offset is {offset}, its commit ended at {}: an operator moved it", commit.next);
            findings.push(
                Kind::InputMoved,
                Some(task),
                Some(stamp),
                Place { partition: commit.partition, offset: commit.offset, ..place },
                detail,
            );
        }
        Some(_) => {}
        None if stamp.seq < newest.seq => {
            let detail = format!("the group's offset belongs to commit {}, the changelog has come to {}", stamp.seq, newest.seq);
            findings.push(Kind::OffsetBehind, Some(task), Some(newest.stamp()), place, detail);
        }
        None => {
            let detail = format!("the group's offset {offset} belongs to it; the newest marker is commit {}", newest.seq);
            findings.push(Kind::OffsetWithoutMarker, Some(task), Some(stamp), place, detail);
        }
    }
}
