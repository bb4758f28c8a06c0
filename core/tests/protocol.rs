//! The commit protocol against a simulated broker, group and store: seeded runs with crashes, refused and doubtful
//! commits, failed aborts, rebalances and a second owner. After every run each record is visible exactly once (promise 2),
//! every store is the fold of what is committed (promise 3), and nothing of a lost task became visible (promise 5).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tripline_core::protocol::{CommitId, Committed, Effect, Failure, Found, Input, Lane, Phase, TaskId};

const RECORDS: i64 = 40;

/// A small generator of choices: the run is a function of the seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// What the brokers know.
#[derive(Default)]
struct Kafka {
    committed: BTreeMap<TaskId, Committed>,
    visible: Vec<(TaskId, i64)>,
    attempts: u128,
}

/// One process: a lane, its local stores, and the transaction that it has open.
#[derive(Default)]
struct Process {
    lane: Lane,
    /// Offsets folded into the task's state, open transaction included.
    memory: BTreeMap<TaskId, Vec<i64>>,
    /// As last applied.
    applied: BTreeMap<TaskId, Vec<i64>>,
    next: BTreeMap<TaskId, i64>,
    open: Option<Vec<(TaskId, i64)>>,
    /// What the group says it owns; a commit for anything else is refused.
    granted: BTreeSet<TaskId>,
}

struct World {
    chance: Chance,
    kafka: Kafka,
    faults: bool,
}

impl World {
    fn attempt(&mut self) -> CommitId {
        self.kafka.attempts += 1;
        CommitId(self.kafka.attempts)
    }

    fn perform(&mut self, p: &mut Process, effects: Vec<Effect>) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            let input = match effect {
                Effect::Restore(id) => Some(self.restore(p, id)),
                Effect::Resume(id, offset) | Effect::Rewind(id, offset) => {
                    p.next.insert(id, offset);
                    None
                }
                Effect::Begin => {
                    assert!(p.open.is_none(), "a transaction begins while another is open");
                    p.open = Some(Vec::new());
                    (self.faults && self.chance.one_in(60)).then_some(Input::Failed(Failure::Abortable))
                }
                Effect::Seal(attempt, targets) => Some(Input::Sealed(self.seal(p, attempt, &targets))),
                Effect::Abort => {
                    let succeeds = !(self.faults && self.chance.one_in(4));
                    p.open = None;
                    Some(Input::Aborted(succeeds))
                }
                Effect::Apply(id, committed) => {
                    assert_eq!(self.kafka.committed.get(&id), Some(&committed), "applied what is not committed");
                    p.applied.insert(id, p.memory[&id].clone());
                    assert_eq!(
                        p.applied[&id],
                        (0..committed.next_offset).collect::<Vec<_>>(),
                        "the store is the fold of what is committed"
                    );
                    None
                }
                Effect::Drop(id) => {
                    let applied = p.applied.get(&id).cloned().unwrap_or_default();
                    p.memory.insert(id, applied);
                    None
                }
                Effect::Close(id) => {
                    p.next.remove(&id);
                    p.memory.remove(&id);
                    p.applied.remove(&id);
                    None
                }
                Effect::Recover(ids) => {
                    // A new producer with the same id ends whatever the old one left open.
                    p.open = None;
                    let found = |id: &TaskId| (*id, self.kafka.committed.get(id).map_or(Found::Nothing, |c| Found::Attempt(c.commit_id)));
                    Some(Input::Resolved(ids.iter().map(found).collect()))
                }
            };
            if let Some(input) = input {
                queue.extend(p.lane.step(input));
            }
        }
    }

    fn restore(&mut self, p: &mut Process, id: TaskId) -> Input {
        let visible: Vec<i64> = self.kafka.visible.iter().filter(|(task, _)| *task == id).map(|(_, offset)| *offset).collect();
        p.memory.insert(id, visible.clone());
        p.applied.insert(id, visible);
        match self.kafka.committed.get(&id) {
            Some(committed) => Input::Restored(id, *committed),
            None => Input::RestoredFresh(id, 0),
        }
    }

    fn seal(&mut self, p: &mut Process, attempt: CommitId, targets: &[(TaskId, Committed)]) -> Result<(), Failure> {
        assert!(!targets.is_empty(), "an empty transaction is sealed");
        if targets.iter().any(|(id, _)| !p.granted.contains(id)) {
            return Err(Failure::Abortable);
        }
        let fate = if self.faults { self.chance.next() % 12 } else { 11 };
        match fate {
            0 => return Err(Failure::Abortable),
            1 => {
                p.open = None;
                return Err(Failure::InDoubt);
            }
            _ => {}
        }
        for (id, target) in targets {
            assert_eq!(target.commit_id, attempt);
            let before = self.kafka.committed.insert(*id, *target);
            assert_eq!(target.seq, before.map_or(0, |b| b.seq + 1), "the sequence of commits has no gap");
        }
        self.kafka.visible.extend(p.open.take().expect("a sealed transaction was open"));
        if fate == 2 { Err(Failure::InDoubt) } else { Ok(()) }
    }

    /// One record of a task, if it may run and has one.
    fn process(&mut self, p: &mut Process, id: TaskId) {
        let Some(&offset) = p.next.get(&id) else { return };
        if !p.lane.is_running(id) || offset >= RECORDS {
            return;
        }
        let attempt = self.attempt();
        let effects = p.lane.step(Input::Touched(id, offset, attempt));
        self.perform(p, effects);
        let (Phase::Open(attempt), Some(open)) = (p.lane.phase(), &mut p.open) else { return };
        open.push((id, offset));
        p.memory.entry(id).or_default().push(offset);
        p.next.insert(id, offset + 1);
        let effects = p.lane.step(Input::Touched(id, offset + 1, attempt));
        assert!(effects.is_empty());
    }

    fn commit(&mut self, p: &mut Process) {
        if p.lane.has_fresh() {
            let attempt = self.attempt();
            let effects = p.lane.begin_fresh(attempt);
            self.perform(p, effects);
        }
        let effects = p.lane.step(Input::SealDue);
        self.perform(p, effects);
    }
}

/// Moves a task between two processes, kills one, or throws one into doubt.
fn disturb(world: &mut World, processes: &mut [Process; 2], tasks: &[TaskId]) {
    let id = tasks[(world.chance.next() % tasks.len() as u64) as usize];
    let owner = usize::from(processes[1].granted.contains(&id));
    match world.chance.next() % 4 {
        0 => {
            // kill -9: everything local is gone, the group gives its tasks to a new process in the same place.
            let granted = std::mem::take(&mut processes[owner]).granted;
            processes[owner].granted = granted.clone();
            let effects = processes[owner].lane.step(Input::Assigned(granted.into_iter().collect()));
            world.perform(&mut processes[owner], effects);
        }
        1 => {
            // Revoked: the owner commits inside the callback, then the other one gets it.
            let effects = processes[owner].lane.step(Input::Revoked(vec![id]));
            world.perform(&mut processes[owner], effects);
            hand_over(world, processes, id, owner);
        }
        2 => {
            // Lost: the group has moved on first, the owner learns of it later, perhaps with a commit in between.
            hand_over(world, processes, id, owner);
            if world.chance.one_in(2) {
                world.commit(&mut processes[owner]);
            }
            let effects = processes[owner].lane.step(Input::Lost(vec![id]));
            world.perform(&mut processes[owner], effects);
        }
        _ => {
            let effects = processes[owner].lane.step(Input::Failed(Failure::InDoubt));
            world.perform(&mut processes[owner], effects);
        }
    }
}

fn hand_over(world: &mut World, processes: &mut [Process; 2], id: TaskId, from: usize) {
    processes[from].granted.remove(&id);
    let to = &mut processes[1 - from];
    to.granted.insert(id);
    let effects = to.lane.step(Input::Assigned(vec![id]));
    world.perform(to, effects);
    if world.chance.one_in(2) {
        for _ in 0..3 {
            world.process(to, id);
        }
        world.commit(to);
    }
}

fn run(seed: u64) {
    let tasks: Vec<TaskId> = (0..3).map(|partition| TaskId { topic: 0, partition }).chain([TaskId { topic: 1, partition: 0 }]).collect();
    let mut world = World { chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), kafka: Kafka::default(), faults: true };
    let mut processes = [Process::default(), Process::default()];
    processes[0].granted = tasks.iter().copied().collect();
    let effects = processes[0].lane.step(Input::Assigned(tasks.clone()));
    world.perform(&mut processes[0], effects);
    for step in 0.. {
        world.faults = step < 2_000;
        for process in &mut processes {
            for &id in &tasks {
                if world.chance.one_in(2) {
                    world.process(process, id);
                }
            }
            if world.chance.one_in(3) {
                world.commit(process);
            }
        }
        if world.faults && world.chance.one_in(6) {
            disturb(&mut world, &mut processes, &tasks);
        }
        if tasks.iter().all(|id| world.kafka.committed.get(id).is_some_and(|c| c.next_offset == RECORDS)) {
            break;
        }
        assert!(step < 5_000, "seed {seed}: the run does not end: {:?}", world.kafka.committed);
    }
    for id in tasks {
        let visible: Vec<i64> = world.kafka.visible.iter().filter(|(task, _)| *task == id).map(|(_, offset)| *offset).collect();
        assert_eq!(visible, (0..RECORDS).collect::<Vec<_>>(), "seed {seed}: {id:?}");
    }
}

#[test]
fn whatever_fails_and_whoever_owns_each_record_is_visible_exactly_once() {
    for seed in 0..3_000 {
        run(seed);
    }
}

#[test]
fn a_task_that_never_committed_commits_its_start_before_its_first_record() {
    let id = TaskId { topic: 0, partition: 0 };
    let mut lane = Lane::default();
    assert_eq!(lane.step(Input::Assigned(vec![id])), [Effect::Restore(id)]);
    assert_eq!(lane.step(Input::RestoredFresh(id, 17)), []);
    assert!(lane.step(Input::Touched(id, 18, CommitId(1))).is_empty(), "nothing is processed before that");
    assert_eq!(lane.begin_fresh(CommitId(2)), [Effect::Begin]);
    let start = Committed { next_offset: 17, seq: 0, commit_id: CommitId(2) };
    assert_eq!(lane.step(Input::SealDue), [Effect::Seal(CommitId(2), vec![(id, start)])]);
    assert_eq!(lane.step(Input::Sealed(Ok(()))), [Effect::Apply(id, start), Effect::Resume(id, 17)]);
    assert!(lane.is_running(id));
}

#[test]
fn nothing_begins_while_an_outcome_is_unknown() {
    let id = TaskId { topic: 0, partition: 0 };
    let mut lane = Lane::default();
    lane.step(Input::Assigned(vec![id]));
    lane.step(Input::Restored(id, Committed { next_offset: 5, seq: 3, commit_id: CommitId(9) }));
    assert_eq!(lane.step(Input::Touched(id, 5, CommitId(10))), [Effect::Begin]);
    lane.step(Input::SealDue);
    assert_eq!(lane.step(Input::Sealed(Err(Failure::InDoubt))), [Effect::Recover(vec![id])]);
    assert!(lane.step(Input::Touched(id, 6, CommitId(11))).is_empty());
    assert!(lane.step(Input::SealDue).is_empty());
    assert_eq!(lane.step(Input::Resolved(vec![(id, Found::Attempt(CommitId(9)))])), [Effect::Drop(id), Effect::Rewind(id, 5)]);
    assert_eq!(lane.phase(), Phase::Idle);
}
