//! What the processes of one schedule share: the cluster, the disks, the choices, and what went wrong.

use super::choices::{About, Choices};
use super::disk::Disk;
use super::kafka::{Kafka, Topic};
use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tripline_core::protocol::{CommitId, TaskId};

/// Partitions of the keyed topic.
pub const PARTITIONS: i32 = 2;
/// Partitions of the router's input topic.
pub const ROUTERS: i32 = 2;

/// A mistake that is made on purpose, to see it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Changed states go to the disk before their transaction is committed.
    WrittenBeforeCommit,
    /// A local store is taken for current without a look at its commit id.
    CommitIdUnchecked,
    /// An abort leaves the changed states in the cache.
    CacheKeptAfterAbort,
    /// A producer goes on although a request of an earlier transaction may still be on its way (KAFKA-17754).
    LateRequestsTrusted,
    /// A restore halts for a commit that another owner made while it read.
    HaltBelieved,
    /// A restore that is not at its end yet notes the commit that it is on its way to.
    NotedAhead,
    /// An abort leaves the time by which states are deleted where the aborted records had brought it.
    InputTimeKeptAfterAbort,
}

/// How often what goes wrong, in 256 cases. Each schedule draws its own mixture: rare things meet only where others are absent.
#[derive(Debug, Default)]
pub struct Faults {
    pub delivery_failed: u8,
    pub offsets_refused: u8,
    pub answer_lost: u8,
    pub arrives_late: u8,
    pub given_up: u8,
    /// A lane waits no longer for an offset that it looks up.
    pub unreadable: u8,
    pub disk_too_old: u8,
    /// A member hears of its group with the answer to a heartbeat only.
    pub news_late: u8,
    /// What the environment does, per step.
    pub environment: u8,
}

impl Faults {
    fn draw(choices: &mut Choices) -> Faults {
        let mut rate = |often: u8| [0, often / 4, often][choices.pick(About::Environment, 3)];
        Faults {
            delivery_failed: rate(8),
            offsets_refused: rate(48),
            answer_lost: rate(48),
            arrives_late: rate(64),
            given_up: rate(48),
            unreadable: rate(48),
            disk_too_old: rate(64),
            news_late: rate(224),
            environment: rate(16),
        }
    }
}

/// What a schedule went through. A run of many that leaves one of these out has not shown much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    Committed,
    Aborted,
    /// An outcome was looked up, and it was a commit.
    DoubtCommitted,
    /// An outcome was looked up, and it was none.
    DoubtAborted,
    /// An outcome was looked up, and nobody said.
    Unreadable,
    ProducerRebuilt,
    TimedOut,
    /// A successor ended what an owner had open that is gone; that lives.
    OwnerEnded,
    OwnerFenced,
    ArrivedLate,
    OffsetsRefused,
    Killed,
    DiskLost,
    BatchesLost,
    /// A store turned out to be damaged while it was used, and was set aside.
    Spoiled,
    SetAside,
    Frozen,
    Revoked,
    /// Taken away without being asked.
    Lost,
    /// A task started fresh, from its store, from a part of the changelog, from all of it.
    Fresh,
    Ready,
    CaughtUp,
    Rebuilt,
    /// A restore noted its way at a marker, and one that was cut off went on from there.
    Noted,
    WentOn,
    /// A restore was called off on its way.
    CalledOff,
    /// A restore read of a commit that another owner made meanwhile, and looked again.
    HaltDisbelieved,
    Compacted,
    Panicked,
    /// Something fired because time passed.
    Fired,
    StateDeleted,
    Routed,
}

impl Seen {
    /// All of them.
    pub const ALL: [Seen; 32] = {
        use Seen::*;
        [
            Committed,
            Aborted,
            DoubtCommitted,
            DoubtAborted,
            Unreadable,
            ProducerRebuilt,
            TimedOut,
            OwnerEnded,
            OwnerFenced,
            ArrivedLate,
            OffsetsRefused,
            Killed,
            DiskLost,
            BatchesLost,
            Spoiled,
            SetAside,
            Frozen,
            Revoked,
            Lost,
            Fresh,
            Ready,
            CaughtUp,
            Rebuilt,
            Noted,
            WentOn,
            CalledOff,
            HaltDisbelieved,
            Compacted,
            Panicked,
            Fired,
            StateDeleted,
            Routed,
        ]
    };
}

/// How often each was seen.
pub type Sights = BTreeMap<Seen, u64>;

/// What one commit says it counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub routed: u64,
    pub processed: u64,
    pub late: u64,
    pub duplicate: u64,
    pub rejected: u64,
}

impl Counted {
    /// All outcomes together.
    pub fn records(&self) -> u64 {
        self.routed + self.processed + self.late + self.duplicate + self.rejected
    }

    /// The sum, outcome by outcome.
    pub fn plus(&self, other: &Counted) -> Counted {
        Counted {
            routed: self.routed + other.routed,
            processed: self.processed + other.processed,
            late: self.late + other.late,
            duplicate: self.duplicate + other.duplicate,
            rejected: self.rejected + other.rejected,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct World {
    pub kafka: Kafka,
    /// One per process; it outlives it.
    pub disks: Vec<Disk>,
    pub choices: Choices,
    pub faults: Faults,
    pub is_routed: bool,
    pub bug: Option<Bug>,
    /// The processes shall commit, write and end.
    pub is_stopping: bool,
    /// What was counted when a commit was known, by commit.
    pub counted: BTreeMap<u128, Counted>,
    /// A process may have ended between a commit and its counting, or never learned of its commit.
    pub has_lost_counts: bool,
    /// What it went through.
    pub sights: Sights,
    /// The first broken promise.
    pub violation: Option<String>,
    ids: u128,
    /// What happened, if somebody wants to read it.
    trace: Option<Vec<String>>,
}

/// The world, as each of its processes holds it.
#[derive(Debug, Clone)]
pub struct Shared(Rc<RefCell<World>>);

impl Shared {
    /// A world of `processes` disks.
    pub fn new(mut choices: Choices, is_routed: bool, processes: usize, bug: Option<Bug>, is_traced: bool) -> Shared {
        let faults = Faults::draw(&mut choices);
        let routers = if is_routed { ROUTERS } else { 0 };
        let partitions = (0..PARTITIONS)
            .flat_map(|p| [(Topic::Keyed, p), (Topic::Changelog, p)])
            .chain([(Topic::Outputs, 0), (Topic::Outputs, 1), (Topic::Outputs, 2), (Topic::DeadLetters, 0)])
            .chain((0..routers).map(|p| (Topic::Requests, p)));
        let tasks = (0..PARTITIONS).map(|partition| TaskId { topic: 0, partition });
        let tasks = tasks.chain((0..routers).map(|partition| TaskId { topic: 1, partition })).collect();
        Shared(Rc::new(RefCell::new(World {
            kafka: Kafka::new(partitions, tasks),
            disks: (0..processes).map(|_| Disk::default()).collect(),
            choices,
            faults,
            is_routed,
            bug,
            is_stopping: false,
            counted: BTreeMap::new(),
            has_lost_counts: false,
            sights: Sights::new(),
            violation: None,
            ids: 0,
            trace: is_traced.then(Vec::new),
        })))
    }

    /// The world. Nobody holds it across an `await`.
    pub fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    /// The world itself, once every process has ended.
    pub fn into_world(self) -> World {
        Rc::into_inner(self.0).expect("every process has ended").into_inner()
    }

    /// Counts what happened.
    pub fn saw(&self, what: Seen) {
        self.world().saw(what);
    }

    /// Notes what happened.
    pub fn note(&self, what: impl FnOnce() -> String) {
        self.world().note(what);
    }

    /// A promise is broken: the schedule ends here.
    pub fn violated(&self, what: impl Into<String>) {
        self.world().violation.get_or_insert(what.into());
    }
}

impl World {
    /// An id that nobody else has.
    pub fn new_id(&mut self) -> CommitId {
        self.ids += 1;
        CommitId(self.ids)
    }

    /// Counts what happened.
    pub fn saw(&mut self, what: Seen) {
        *self.sights.entry(what).or_default() += 1;
    }

    /// Notes what happened.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    /// What happened.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// The topic that a task reads.
    pub fn input(task: TaskId) -> (Topic, i32) {
        (if task.topic == 0 { Topic::Keyed } else { Topic::Requests }, task.partition)
    }
}

/// The short name of a task.
pub fn name(task: TaskId) -> String {
    format!("{}{}", if task.topic == 0 { "task " } else { "router " }, task.partition)
}

/// Lets the scheduler choose who goes on: another process, the environment, or nobody ever again. It stands wherever a real
/// process can be interrupted, so it stands before and after every effect.
pub async fn pause() {
    Pause(false).await;
}

struct Pause(bool);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}
