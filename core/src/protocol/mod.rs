//! The commit protocol of one lane as a pure state machine: input → next state and effects.
//!
//! A lane owns tasks (partitions) and one transactional producer; all its tasks share one transaction. What the machine
//! decides: when a transaction begins, what is sealed into it, what is applied or rewound after it, and how every doubt
//! is resolved. What it leaves to its driver (rdkafka and RocksDB in production, a simulated broker in the tests): doing
//! the effects, in order, and reporting what happened as the next input.
//!
//! ```text
//!            Touched            SealDue                Sealed(Ok)
//!   Idle ───────────▶ Open ───────────────▶ Sealing ─────────────▶ Idle   (+ Apply each touched task)
//!     ▲                 │ Failed(Abortable)    │ Sealed(Abortable)
//!     │ Aborted(true)   ▼                      ▼
//!     ├──────────── Aborting ◀─────────────────┘
//!     │                 │ Aborted(false)       Sealed(InDoubt) / Failed(InDoubt)
//!     │ Resolved        ▼                      │
//!     └───────────── InDoubt ◀─────────────────┘   rebuild the producer, read the metadata, decide per task
//! ```
//!
//! Invariants, checked by the simulation in `tests/simulation`: a task processes only from a committed position whose
//! `commit_id` it knows (promise 3); no transaction begins while the outcome of the one before is unknown; a task that was
//! lost never applies.

pub mod start;

use std::collections::BTreeMap;

/// A partition that the lane owns: index 0 is the keyed topic, 1.. the router's input topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Index of the topic in the lane's list.
    pub topic: u16,
    /// The partition.
    pub partition: i32,
}

/// Random id of one commit attempt, drawn by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommitId(pub u128);

/// A committed position of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The next input offset.
    pub next_offset: i64,
    /// Number of the commit; a task's first commit is 0.
    pub seq: u64,
    /// The attempt that committed it.
    pub commit_id: CommitId,
}

/// What happened to a step of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The transaction can be aborted and the producer lives on: ILLEGAL_GENERATION around a rebalance, a failed delivery.
    Abortable,
    /// Nobody knows (fatal producer, timed-out commit): the outcome must be looked up.
    InDoubt,
}

/// What the metadata of the committed offset says of a task, after a doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// This attempt committed last.
    Attempt(CommitId),
    /// No offset or no metadata of ours.
    Nothing,
    /// The broker does not say yet: somebody else's transaction has it open.
    Unreadable,
}

/// What the driver reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The group gave these tasks to the lane.
    Assigned(Vec<TaskId>),
    /// The group takes these tasks back and waits for our answer.
    Revoked(Vec<TaskId>),
    /// The group gave these tasks to somebody else already.
    Lost(Vec<TaskId>),
    /// The task's state equals this committed position.
    Restored(TaskId, Committed),
    /// The task never committed anything; it shall start at this offset.
    RestoredFresh(TaskId, i64),
    /// A record was processed: the task's next offset. `attempt` is used if this begins a transaction.
    Touched(TaskId, i64, CommitId),
    /// The interval is over, a bound is reached, or the lane stops.
    SealDue,
    /// Producing failed while the transaction is open, or a record panicked.
    Failed(Failure),
    /// The sealed transaction committed, or did not.
    Sealed(Result<(), Failure>),
    /// The abort succeeded, or did not.
    Aborted(bool),
    /// After a doubt, with a new producer: what each touched task's metadata says.
    Resolved(Vec<(TaskId, Found)>),
    /// The task's local state is of no use any more: a transaction that may rest on it is given up.
    Spoiled(TaskId),
}

/// What the driver does, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Pause the partition and bring the task's state to the committed position; report `Restored…`.
    Restore(TaskId),
    /// Start polling the task from this offset.
    Resume(TaskId, i64),
    /// Begin a transaction.
    Begin,
    /// Produce changed states and a marker with this seq for each task, drain, send offsets, commit; report `Sealed`.
    Seal(CommitId, Vec<(TaskId, Committed)>),
    /// Abort the transaction; report `Aborted`.
    Abort,
    /// The task's changes are committed: keep them.
    Apply(TaskId, Committed),
    /// Forget the task's changes since its last commit.
    Drop(TaskId),
    /// Go on polling from the committed position.
    Rewind(TaskId, i64),
    /// Write what is committed, close the task's store, give the partition back.
    Close(TaskId),
    /// Drop the producer, build one with the same id, read the metadata of these tasks; report `Resolved`.
    Recover(Vec<TaskId>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Restoring,
    /// Restored without any committed position: its first commit (seq 0) comes before its first record.
    Fresh,
    Running(Committed),
}

#[derive(Debug, Clone)]
struct Task {
    standing: Standing,
    /// Next offset in the open transaction, if it touched the task.
    touched: Option<i64>,
    /// To be restored as soon as the outcome of the transaction is known.
    spoiled: bool,
}

impl Task {
    const RESTORING: Task = Task { standing: Standing::Restoring, touched: None, spoiled: false };
}

/// Where the lane's transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No transaction.
    Idle,
    /// A transaction has records.
    Open(CommitId),
    /// Its end was asked for.
    Sealing(CommitId),
    /// Its abort was asked for.
    Aborting(CommitId),
    /// Its outcome is unknown.
    InDoubt(CommitId),
}

/// The state machine of one lane.
#[derive(Debug, Clone)]
pub struct Lane {
    phase: Phase,
    tasks: BTreeMap<TaskId, Task>,
    /// Lost while a doubt was open: closed once it is resolved.
    leaving: Vec<TaskId>,
}

impl Default for Lane {
    fn default() -> Lane {
        Lane { phase: Phase::Idle, tasks: BTreeMap::new(), leaving: Vec::new() }
    }
}

impl Lane {
    /// Where the transaction stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the lane may process records of this task now.
    pub fn is_running(&self, task: TaskId) -> bool {
        self.tasks.get(&task).is_some_and(|t| matches!(t.standing, Standing::Running(_)))
    }

    /// Whether the lane owns this task.
    pub fn owns(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    /// The tasks it owns.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.tasks.keys().copied()
    }

    /// The committed position of a running task.
    pub fn committed(&self, task: TaskId) -> Option<Committed> {
        match self.tasks.get(&task)?.standing {
            Standing::Running(committed) => Some(committed),
            _ => None,
        }
    }

    /// One transition. Inputs that make no sense in a phase (a late report about a task that is gone) change nothing.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Assigned(tasks) => self.assign(tasks),
            Input::Revoked(tasks) => self.revoke(tasks),
            Input::Lost(tasks) => self.lose(tasks),
            Input::Restored(id, committed) => self.restored(id, Standing::Running(committed), committed.next_offset),
            Input::RestoredFresh(id, offset) => self.restored(id, Standing::Fresh, offset),
            Input::Touched(id, next, attempt) => self.touch(id, next, attempt),
            Input::SealDue => self.seal(),
            Input::Failed(Failure::Abortable) | Input::Sealed(Err(Failure::Abortable)) => self.abort(),
            Input::Failed(Failure::InDoubt) | Input::Sealed(Err(Failure::InDoubt)) => self.doubt(),
            Input::Sealed(Ok(())) => self.committed_all(),
            Input::Aborted(true) => self.rewind_all(),
            Input::Aborted(false) => self.doubt(),
            Input::Resolved(found) => self.resolve(found),
            Input::Spoiled(id) => self.spoil(id),
        }
    }

    fn assign(&mut self, tasks: Vec<TaskId>) -> Vec<Effect> {
        let new: Vec<TaskId> = tasks.into_iter().filter(|id| !self.owns(*id)).collect();
        for &id in &new {
            self.leaving.retain(|left| *left != id);
            self.tasks.insert(id, Task::RESTORING);
        }
        new.into_iter().map(Effect::Restore).collect()
    }

    /// The whole lane commits before anything is given back: a transaction cannot be split.
    fn revoke(&mut self, tasks: Vec<TaskId>) -> Vec<Effect> {
        self.leave(tasks);
        match self.phase {
            Phase::Open(_) => self.seal(),
            Phase::Idle => self.close_leaving(),
            // Its end is under way: closed when it is known.
            Phase::Sealing(_) | Phase::Aborting(_) | Phase::InDoubt(_) => Vec::new(),
        }
    }

    /// The new owner may already work: nothing of ours may become visible.
    fn lose(&mut self, tasks: Vec<TaskId>) -> Vec<Effect> {
        self.leave(tasks);
        match self.phase {
            Phase::Open(_) => self.abort(),
            Phase::Idle => self.close_leaving(),
            Phase::Sealing(_) | Phase::Aborting(_) | Phase::InDoubt(_) => Vec::new(),
        }
    }

    fn leave(&mut self, tasks: Vec<TaskId>) {
        for id in tasks {
            if self.owns(id) && !self.leaving.contains(&id) {
                self.leaving.push(id);
            }
        }
    }

    fn close_leaving(&mut self) -> Vec<Effect> {
        let leaving = std::mem::take(&mut self.leaving);
        leaving.into_iter().filter(|id| self.tasks.remove(id).is_some()).map(Effect::Close).collect()
    }

    fn restored(&mut self, id: TaskId, standing: Standing, offset: i64) -> Vec<Effect> {
        let Some(task) = self.tasks.get_mut(&id) else { return Vec::new() };
        if task.standing != Standing::Restoring {
            return Vec::new();
        }
        task.standing = standing;
        match standing {
            Standing::Fresh => {
                // Committed at once, with seq 0, so that a crash before the first record cannot choose another start.
                task.touched = Some(offset);
                Vec::new()
            }
            _ => vec![Effect::Resume(id, offset)],
        }
    }

    /// Whether a restored task waits for its first commit; the driver then begins a transaction by [`Lane::begin_fresh`].
    pub fn has_fresh(&self) -> bool {
        self.phase == Phase::Idle && self.tasks.values().any(|t| t.standing == Standing::Fresh)
    }

    /// Begins a transaction for tasks that wait for their first commit.
    pub fn begin_fresh(&mut self, attempt: CommitId) -> Vec<Effect> {
        if !self.has_fresh() {
            return Vec::new();
        }
        self.phase = Phase::Open(attempt);
        vec![Effect::Begin]
    }

    fn touch(&mut self, id: TaskId, next: i64, attempt: CommitId) -> Vec<Effect> {
        if !self.is_running(id) {
            return Vec::new();
        }
        let effects = match self.phase {
            Phase::Idle => {
                self.phase = Phase::Open(attempt);
                vec![Effect::Begin]
            }
            Phase::Open(_) => Vec::new(),
            // Processing while the outcome is unknown would build on sand.
            _ => return Vec::new(),
        };
        if let Some(task) = self.tasks.get_mut(&id) {
            task.touched = Some(next);
        }
        effects
    }

    fn seal(&mut self) -> Vec<Effect> {
        let Phase::Open(attempt) = self.phase else { return Vec::new() };
        self.phase = Phase::Sealing(attempt);
        vec![Effect::Seal(attempt, self.targets(attempt))]
    }

    /// What each touched task will have committed if this attempt succeeds.
    fn targets(&self, attempt: CommitId) -> Vec<(TaskId, Committed)> {
        let target = |task: &Task| {
            let seq = match task.standing {
                Standing::Running(before) => before.seq + 1,
                Standing::Fresh => 0,
                Standing::Restoring => return None,
            };
            Some(Committed { next_offset: task.touched?, seq, commit_id: attempt })
        };
        self.tasks.iter().filter_map(|(id, task)| Some((*id, target(task)?))).collect()
    }

    fn committed_all(&mut self) -> Vec<Effect> {
        let Phase::Sealing(attempt) = self.phase else { return Vec::new() };
        let mut effects = Vec::new();
        for (id, target) in self.targets(attempt) {
            effects.extend(self.apply(id, target));
        }
        self.finish(effects)
    }

    fn apply(&mut self, id: TaskId, target: Committed) -> Vec<Effect> {
        let Some(task) = self.tasks.get_mut(&id) else { return Vec::new() };
        let was_fresh = task.standing == Standing::Fresh;
        task.standing = Standing::Running(target);
        task.touched = None;
        let mut effects = vec![Effect::Apply(id, target)];
        if was_fresh {
            effects.push(Effect::Resume(id, target.next_offset));
        }
        effects
    }

    fn finish(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        self.phase = Phase::Idle;
        let spoiled: Vec<TaskId> = self.tasks.iter().filter(|(_, task)| task.spoiled).map(|(id, _)| *id).collect();
        effects.extend(spoiled.into_iter().flat_map(|id| self.renew(id)));
        let closing = self.close_leaving();
        // A task that leaves is neither rewound nor resumed.
        let gone = |id: &TaskId| closing.contains(&Effect::Close(*id));
        effects.retain(|e| !matches!(e, Effect::Rewind(id, _) | Effect::Resume(id, _) | Effect::Restore(id) if gone(id)));
        effects.extend(closing);
        effects
    }

    fn abort(&mut self) -> Vec<Effect> {
        match self.phase {
            Phase::Open(attempt) | Phase::Sealing(attempt) => {
                self.phase = Phase::Aborting(attempt);
                vec![Effect::Abort]
            }
            _ => Vec::new(),
        }
    }

    fn rewind_all(&mut self) -> Vec<Effect> {
        let Phase::Aborting(_) = self.phase else { return Vec::new() };
        let touched: Vec<TaskId> = self.touched();
        let effects = touched.into_iter().flat_map(|id| self.rewind(id)).collect();
        self.finish(effects)
    }

    fn touched(&self) -> Vec<TaskId> {
        self.tasks.iter().filter(|(_, t)| t.touched.is_some()).map(|(id, _)| *id).collect()
    }

    fn rewind(&mut self, id: TaskId) -> Vec<Effect> {
        let Some(task) = self.tasks.get_mut(&id) else { return Vec::new() };
        match task.standing {
            Standing::Running(committed) => {
                task.touched = None;
                vec![Effect::Drop(id), Effect::Rewind(id, committed.next_offset)]
            }
            // Still waiting for its first commit: tried again with the next transaction.
            Standing::Fresh | Standing::Restoring => Vec::new(),
        }
    }

    fn spoil(&mut self, id: TaskId) -> Vec<Effect> {
        let Some(task) = self.tasks.get_mut(&id) else { return Vec::new() };
        task.spoiled = true;
        match self.phase {
            Phase::Open(_) => self.abort(),
            Phase::Idle => self.renew(id),
            Phase::Sealing(_) | Phase::Aborting(_) | Phase::InDoubt(_) => Vec::new(),
        }
    }

    /// Everything from the beginning.
    fn renew(&mut self, id: TaskId) -> Vec<Effect> {
        self.tasks.insert(id, Task::RESTORING);
        vec![Effect::Drop(id), Effect::Restore(id)]
    }

    fn doubt(&mut self) -> Vec<Effect> {
        let (Phase::Open(attempt) | Phase::Sealing(attempt) | Phase::Aborting(attempt) | Phase::InDoubt(attempt)) = self.phase else {
            return vec![Effect::Recover(Vec::new())];
        };
        self.phase = Phase::InDoubt(attempt);
        vec![Effect::Recover(self.touched())]
    }

    fn resolve(&mut self, found: Vec<(TaskId, Found)>) -> Vec<Effect> {
        let Phase::InDoubt(attempt) = self.phase else { return Vec::new() };
        let targets: BTreeMap<TaskId, Committed> = self.targets(attempt).into_iter().collect();
        let mut effects = Vec::new();
        for (id, found) in found {
            let Some(task) = self.tasks.get(&id) else { continue };
            let before = match task.standing {
                Standing::Running(before) => Found::Attempt(before.commit_id),
                _ => Found::Nothing,
            };
            if found == Found::Attempt(attempt)
                && let Some(target) = targets.get(&id)
            {
                effects.extend(self.apply(id, *target));
            } else if found == before {
                effects.extend(self.rewind(id));
            } else {
                // Somebody else's commit, none at all where there was one, or nobody knows: the start procedure finds out,
                // beside the lane.
                effects.extend(self.renew(id));
            }
        }
        self.finish(effects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TaskId = TaskId { topic: 0, partition: 0 };
    const OTHER: TaskId = TaskId { topic: 0, partition: 1 };

    fn at(next_offset: i64, seq: u64, commit_id: u128) -> Committed {
        Committed { next_offset, seq, commit_id: CommitId(commit_id) }
    }

    /// Both tasks run; the first one has touched the open transaction of attempt 9.
    fn open() -> Lane {
        let mut lane = Lane::default();
        lane.step(Input::Assigned(vec![ID, OTHER]));
        lane.step(Input::Restored(ID, at(5, 3, 1)));
        lane.step(Input::Restored(OTHER, at(7, 4, 2)));
        assert_eq!(lane.step(Input::Touched(ID, 6, CommitId(9))), [Effect::Begin]);
        lane
    }

    #[test]
    fn a_spoiled_task_is_restored_after_the_transaction_is_given_up_and_the_other_goes_on() {
        let mut lane = open();
        lane.step(Input::Touched(OTHER, 8, CommitId(9)));
        assert_eq!(lane.step(Input::Spoiled(ID)), [Effect::Abort]);
        let effects = lane.step(Input::Aborted(true));
        let expected =
            [Effect::Drop(ID), Effect::Rewind(ID, 5), Effect::Drop(OTHER), Effect::Rewind(OTHER, 7), Effect::Drop(ID), Effect::Restore(ID)];
        assert_eq!(effects, expected);
        assert!(!lane.is_running(ID) && lane.is_running(OTHER));
        assert_eq!(lane.step(Input::Restored(ID, at(5, 3, 1))), [Effect::Resume(ID, 5)]);
        assert!(lane.is_running(ID));
    }

    #[test]
    fn a_spoiled_task_without_a_transaction_is_restored_at_once() {
        let mut lane = open();
        lane.step(Input::SealDue);
        lane.step(Input::Sealed(Ok(())));
        assert_eq!(lane.step(Input::Spoiled(ID)), [Effect::Drop(ID), Effect::Restore(ID)]);
        assert_eq!(lane.step(Input::Spoiled(TaskId { topic: 0, partition: 7 })), [], "not ours");
    }

    #[test]
    fn a_task_that_leaves_while_spoiled_is_closed_and_not_restored() {
        let mut lane = open();
        assert_eq!(lane.step(Input::Spoiled(ID)), [Effect::Abort]);
        lane.step(Input::Lost(vec![ID]));
        let effects = lane.step(Input::Aborted(true));
        assert!(effects.contains(&Effect::Close(ID)) && !effects.contains(&Effect::Restore(ID)), "{effects:?}");
    }

    #[test]
    fn what_cannot_be_read_after_a_doubt_is_restored_beside_the_lane() {
        let mut lane = open();
        lane.step(Input::Touched(OTHER, 8, CommitId(9)));
        lane.step(Input::SealDue);
        assert_eq!(lane.step(Input::Sealed(Err(Failure::InDoubt))), [Effect::Recover(vec![ID, OTHER])]);
        let effects = lane.step(Input::Resolved(vec![(ID, Found::Unreadable), (OTHER, Found::Attempt(CommitId(9)))]));
        assert_eq!(effects, [Effect::Drop(ID), Effect::Restore(ID), Effect::Apply(OTHER, at(8, 5, 9))]);
        assert!(!lane.is_running(ID) && lane.is_running(OTHER));
    }
}
