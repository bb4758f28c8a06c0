//! Outputs, each counted off against the marker of its commit.

use super::chain::{Chain, Commit, verify_offset};
use super::finding::Findings;
use super::report::{OutputCoverage, Report, TaskCoverage};
use super::seen::{Seen, Sighting};
use super::{Kind, MAX_FINDINGS, NoteKind, Place, Role, Stamp, Task, Window};
use crate::protocol::start::Metadata;
use std::collections::BTreeMap;

/// A record of an output topic that says which commit wrote it.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// What its topic holds.
    pub role: Role,
    /// Where it stands.
    pub at: Place<'a>,
    /// Its append time, milliseconds.
    pub at_ms: i64,
    /// The task that wrote it.
    pub task: &'a Task,
    /// The commit that wrote it.
    pub stamp: Stamp,
    /// Hash of its id; none for kinds that may say the same twice.
    pub id: Option<u64>,
}

/// From when on a topic of outputs has every record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complete {
    /// For each of its partitions the append time from which on it has them all, milliseconds.
    pub from_ms: Vec<i64>,
    /// A task's outputs stand in partitions that leave the same remainder as its own number when divided by this. 1: in any.
    pub step: i32,
}

impl Complete {
    /// For outputs of every task.
    fn everywhere(&self) -> i64 {
        self.from_ms.iter().copied().max().unwrap_or(i64::MIN)
    }

    /// For outputs of the task of this partition.
    fn of_task(&self, partition: i32) -> i64 {
        let step = self.step.max(1);
        self.from_ms.iter().skip(partition.rem_euclid(step) as usize).step_by(step as usize).copied().max().unwrap_or(i64::MIN)
    }
}

/// An id that came twice.
#[derive(Debug)]
struct Repeat {
    role: Role,
    topic: String,
    partition: i32,
    offset: i64,
    stamp: Option<Stamp>,
    commit: Option<(u32, u32)>,
    before: Sighting,
}

/// Markers are read and agree with each other, or are found not to; outputs come next.
#[derive(Debug)]
pub struct Audit {
    window: Window,
    changelog: String,
    tasks: Vec<(Task, Chain)>,
    findings: Findings,
    records: [u64; Role::ALL.len()],
    repeats: Vec<Repeat>,
    /// Those that are not named any more, by the commit that the later one is of.
    more_repeats: BTreeMap<(Role, Option<(u32, u32)>), u64>,
    seen: Seen,
    /// Of the partition that is being read: the place in its chain of the last commit of each task.
    last: Vec<Option<u32>>,
}

impl Audit {
    pub(super) fn new(window: Window, changelog: String, tasks: Vec<(Task, Chain)>, findings: Findings) -> Audit {
        let last = vec![None; tasks.len()];
        let (records, repeats, more_repeats) = ([0; Role::ALL.len()], Vec::new(), BTreeMap::new());
        Audit { window, changelog, tasks, findings, records, repeats, more_repeats, seen: Seen::default(), last }
    }

    /// The group's offset of a task with its metadata, if it is ours. Tasks without a commit in the window are passed over.
    pub fn offset(&mut self, task: &Task, found: Option<(i64, Option<&Metadata>)>) {
        if let Some(at) = self.task(task) {
            verify_offset(task, &self.tasks[at].1, &self.changelog, found, &mut self.findings);
        }
    }

    /// Another partition of outputs begins.
    pub fn partition(&mut self) {
        self.seen = Seen::default();
        self.last.fill(None);
    }

    /// An output, in the order of its partition.
    pub fn output(&mut self, output: &Output<'_>) {
        self.records[output.role.index()] += 1;
        let commit = match self.task(output.task) {
            Some(task) => self.count_off(task, output),
            None => {
                // Its marker would have been read.
                if output.at_ms >= self.window.since_ms {
                    self.findings.stray(output.role, Some(output.task), output.stamp, output.at);
                }
                None
            }
        };
        if let Some(id) = output.id {
            self.see(id, output.role, output.at, Some(output.stamp), commit);
        }
    }

    /// An observation, in the order of its partition; `source` is the router's task and the record that it made it of.
    pub fn observation(&mut self, at: Place<'_>, at_ms: i64, source: (&Task, i64), id: u64) {
        self.records[Role::Observations.index()] += 1;
        let (task, offset) = source;
        let commit = match self.task(task) {
            Some(index) if self.tasks[index].1.moved => {
                self.findings.note(NoteKind::UntoldObservations);
                return;
            }
            Some(index) => {
                let chain = &mut self.tasks[index].1;
                let commit = chain.took(offset);
                if let Some(commit) = commit {
                    chain.commits[commit].found(Role::Observations);
                }
                let is_after = chain.commits.last().is_some_and(|newest| offset >= newest.next);
                if is_after {
                    let detail = format!("made of input offset {offset}, which no commit has taken");
                    self.findings.push(Kind::OutputWithoutMarker, Some(task), None, at, detail);
                }
                commit.map(|commit| reference(index, commit))
            }
            None => {
                if at_ms >= self.window.since_ms {
                    let detail = format!("made of input offset {offset}; no commit of the task is known");
                    self.findings.push(Kind::OutputWithoutMarker, Some(task), None, at, detail);
                }
                None
            }
        };
        self.see(id, Role::Observations, at, None, commit);
    }

    /// A record without the auditor's header in a topic of outputs.
    pub fn unstamped(&mut self, role: Role, at: Place<'_>, at_ms: i64) {
        self.records[role.index()] += 1;
        if matches!(role, Role::Late | Role::DeadLetters) {
            self.findings.note(NoteKind::UnstampedOutputs);
        } else if at_ms >= self.window.since_ms {
            self.findings.push(Kind::UnstampedOutput, None, None, at, format!("among the {}: no commit of ours wrote it", role.name()));
        }
    }

    /// Everything is read. `complete`: for each kind, from when on its topic has every record.
    pub fn close(mut self, complete: &[Complete; Role::ALL.len()]) -> Report {
        self.judge_repeats(complete);
        for (task, chain) in &self.tasks {
            for commit in &chain.commits {
                let place = Place { topic: &self.changelog, partition: commit.partition, offset: commit.offset };
                for role in Role::ALL {
                    let Some((kind, count)) = verdict(task, commit, role, chain.moved, self.window, complete) else { continue };
                    let what =
                        if kind == Kind::SurplusOutputs { "more than its marker counts" } else { "that its marker counts are not there" };
                    self.findings.push(kind, Some(task), Some(commit.stamp()), place, format!("{count} {} {what}", role.name()));
                }
            }
        }
        let tasks = self.tasks.iter().map(|(task, chain)| coverage(task, chain, self.window)).collect();
        let outputs = Role::ALL.map(|role| {
            let Complete { from_ms, .. } = &complete[role.index()];
            let covered = |complete_ms: i64| complete_ms.saturating_add(self.window.margin_ms).max(self.window.since_ms);
            OutputCoverage {
                role,
                records: self.records[role.index()],
                from_ms: covered(complete[role.index()].everywhere()),
                earliest_ms: covered(from_ms.iter().copied().min().unwrap_or(i64::MIN)),
            }
        });
        let (findings, total, notes) = self.findings.close();
        Report { window: self.window, tasks, outputs, findings, total, notes }
    }

    fn task(&self, task: &Task) -> Option<usize> {
        self.tasks.binary_search_by(|(known, _)| known.cmp(task)).ok()
    }

    fn count_off(&mut self, task: usize, output: &Output<'_>) -> Option<(u32, u32)> {
        let chain = &mut self.tasks[task].1;
        let Some(found) = chain.find(output.stamp) else {
            if chain.must_have(output.stamp, output.at_ms, self.window) {
                self.findings.stray(output.role, Some(output.task), output.stamp, output.at);
            }
            return None;
        };
        let commit = &mut chain.commits[found];
        commit.found(output.role);
        let last = self.last[task].replace(commit.order);
        if let Some(last) = last.filter(|last| *last > commit.order) {
            self.last[task] = Some(last);
            let detail = "outputs of a later commit of its task stand before it".to_owned();
            self.findings.push(Kind::OutputOutOfOrder, Some(output.task), Some(output.stamp), output.at, detail);
        }
        Some(reference(task, found))
    }

    fn see(&mut self, id: u64, role: Role, at: Place<'_>, stamp: Option<Stamp>, commit: Option<(u32, u32)>) {
        let Some(before) = self.seen.see(id, Sighting { commit, offset: at.offset }) else { return };
        // What they mean is known when all is counted.
        if self.repeats.len() >= MAX_FINDINGS {
            *self.more_repeats.entry((role, commit)).or_default() += 1;
            return;
        }
        let Place { topic, partition, offset } = at;
        self.repeats.push(Repeat { role, topic: topic.to_owned(), partition, offset, stamp, commit, before });
    }

    /// An id that came twice is an output that was made twice, if its commit or the earlier one's has more outputs than it counts, or lacks
    /// some. Else two input records made them, and the app sent an event id again.
    fn judge_repeats(&mut self, complete: &[Complete; Role::ALL.len()]) {
        let contradicts = |role: Role, commit: Option<(u32, u32)>| {
            // One that is not known is a finding by itself, or from before what is covered.
            commit.is_some_and(|(task, at)| {
                let (task, chain) = &self.tasks[task as usize];
                let commit = &chain.commits[at as usize];
                !commit.knows(role) || verdict(task, commit, role, chain.moved, self.window, complete).is_some()
            })
        };
        for ((role, commit), count) in std::mem::take(&mut self.more_repeats) {
            // If the earlier one's commit contradicts, that is a finding by itself.
            if role == Role::Observations || contradicts(role, commit) {
                self.findings.total += count;
            } else {
                self.findings.notes(NoteKind::RepeatedEvent, count);
            }
        }
        for repeat in std::mem::take(&mut self.repeats) {
            let role = repeat.role;
            if role != Role::Observations && !contradicts(role, repeat.commit) && !contradicts(role, repeat.before.commit) {
                self.findings.note(NoteKind::RepeatedEvent);
                continue;
            }
            let task = repeat.commit.map(|(task, _)| self.tasks[task as usize].0.clone());
            let place = Place { topic: &repeat.topic, partition: repeat.partition, offset: repeat.offset };
            let detail = format!("the same of the {} stands at offset {}", role.name(), repeat.before.offset);
            self.findings.push(Kind::RepeatedOutput, task.as_ref(), repeat.stamp, place, detail);
        }
    }
}

fn reference(task: usize, commit: usize) -> (u32, u32) {
    (task as u32, commit as u32)
}

/// What a marker counts against what was found: outputs that are too many, or that are missing although they can be expected.
fn verdict(
    task: &Task,
    commit: &Commit,
    role: Role,
    moved: bool,
    window: Window,
    complete: &[Complete; Role::ALL.len()],
) -> Option<(Kind, u32)> {
    let left = commit.left[role.index()];
    if left == 0 || !commit.knows(role) || (moved && role == Role::Observations) {
        return None;
    }
    if left < 0 {
        return Some((Kind::SurplusOutputs, left.unsigned_abs()));
    }
    // Before a move a task wrote to other partitions.
    let complete = &complete[role.index()];
    let is_there = if moved { complete.everywhere() } else { complete.of_task(task.partition) }.saturating_add(window.margin_ms);
    (commit.settled && commit.at_ms >= window.since_ms.max(is_there)).then_some((Kind::MissingOutputs, left.unsigned_abs()))
}

fn coverage(task: &Task, chain: &Chain, window: Window) -> TaskCoverage {
    let judged = || chain.commits.iter().filter(|commit| commit.settled && commit.at_ms >= window.since_ms.max(chain.covered_from_ms));
    TaskCoverage {
        task: task.clone(),
        commits: judged().count() as u64,
        first_seq: judged().map(|commit| commit.seq).min(),
        last_seq: judged().map(|commit| commit.seq).max(),
        from_ms: chain.covered_from_ms.max(window.since_ms),
        until_ms: judged().map(|commit| commit.at_ms).max(),
        from_beginning: chain.from_beginning && chain.covered_from_ms >= window.since_ms,
    }
}
