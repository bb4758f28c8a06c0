//! As `src/stream/restore.rs`: brings a task's state to its committed position, beside the lane, which goes on meanwhile.

use super::states::States;
use super::*;
use crate::disk::Store;
use crate::kafka::group::CommittedOffset;
use crate::promises;
use crate::world::{PARTITIONS, World};
use std::cell::{Cell, RefCell};
use tripline_core::protocol::start::{self, Halt, Local, Marker, Metadata, Plan};
use tripline_core::protocol::{CommitId, Committed};

/// Asks for a task's state.
#[derive(Clone)]
pub struct Request {
    pub task: TaskId,
    pub generation: u64,
    /// The store is to be set aside first.
    pub spoiled: Rc<Cell<bool>>,
    /// Nobody waits for the answer any more.
    pub called_off: Rc<Cell<bool>>,
}

/// Answers a [`Request`].
pub struct Answer {
    pub task: TaskId,
    pub generation: u64,
    pub outcome: Result<Box<Ready>, NotReady>,
}

/// Why a task could not be restored.
#[derive(Debug)]
pub enum NotReady {
    /// An operator has to look.
    Halt(Halt),
    /// Somebody has committed meanwhile.
    Moved,
    CalledOff,
    Damaged,
}

impl From<Halt> for NotReady {
    fn from(halt: Halt) -> NotReady {
        NotReady::Halt(halt)
    }
}

impl From<Damaged> for NotReady {
    fn from(Damaged: Damaged) -> NotReady {
        NotReady::Damaged
    }
}

/// A task that is ready to run.
pub struct Ready {
    pub states: States,
    pub committed: Option<Committed>,
    pub next_offset: i64,
    pub history: String,
    pub marker_offset: i64,
    pub stream_time_ms: i64,
}

/// What the lane and its helper pass each other, and who has which store open.
#[derive(Default)]
pub struct Desk {
    pub producer: Cell<Option<Producer>>,
    pub requests: RefCell<VecDeque<Request>>,
    pub answers: RefCell<VecDeque<Answer>>,
    open: RefCell<BTreeSet<i32>>,
}

impl Desk {
    /// The store of a task is closed.
    pub fn release(&self, id: TaskId) {
        if id.topic == 0 {
            self.open.borrow_mut().remove(&id.partition);
        }
    }

    async fn take(&self, id: TaskId) {
        while !self.open.borrow_mut().insert(id.partition) {
            pause().await;
        }
    }
}

/// The key of a task's markers.
pub fn marker_key(id: TaskId) -> String {
    if id.topic == 0 { format!("task/{}", id.partition) } else { format!("router/requests/{}", id.partition) }
}

/// Connects the producer, then restores one task after the other.
pub async fn serve(shared: Shared, number: usize, desk: Rc<Desk>) {
    desk.producer.set(Some(Producer::connect(&shared, number).await));
    loop {
        pause().await;
        let request = desk.requests.borrow_mut().pop_front();
        let Some(request) = request else { continue };
        let restore = Restore { shared: &shared, number, task: request.task, request: &request, end: Cell::new(0) };
        let outcome = restore.run(&desk).await.map(Box::new);
        desk.answers.borrow_mut().push_back(Answer { task: request.task, generation: request.generation, outcome });
    }
}

/// In how many of 256 cases what was read so far is written at once: memory is short.
const HURRIES: u8 = 64;
/// In how many of 256 cases damage is noticed when the store is opened; otherwise when it is used.
const NOTICED: u8 = 128;

struct Restore<'s> {
    shared: &'s Shared,
    number: usize,
    task: TaskId,
    request: &'s Request,
    /// Where the changelog ended when it was last looked at.
    end: Cell<i64>,
}

impl Restore<'_> {
    /// The offset, the store and the changelog are read one after the other, and another owner may commit in between: no reason
    /// to halt is believed while the offset moves.
    async fn run(&self, desk: &Desk) -> Result<Ready, NotReady> {
        if self.request.called_off.get() {
            return Err(NotReady::CalledOff);
        }
        let found = self.committed_offset().await?;
        let ready = self.prepare(desk, found.clone()).await;
        pause().await;
        match ready {
            Err(NotReady::Halt(_)) if self.has_moved(found.as_ref()) => {
                self.shared.saw(Seen::HaltDisbelieved);
                Err(NotReady::Moved)
            }
            Err(NotReady::CalledOff) => {
                self.shared.saw(Seen::CalledOff);
                self.shared.note(|| format!("p{}: the restore of {} is called off", self.number, name(self.task)));
                ready
            }
            ready => ready,
        }
    }

    fn has_moved(&self, found: Option<&CommittedOffset>) -> bool {
        let world = self.shared.world();
        world.bug != Some(Bug::HaltBelieved) && world.kafka.group.committed(self.task).ok() != Some(found)
    }

    /// The committed offset of the task, as soon as no open transaction hides it. Whoever is gone is not waited for.
    async fn committed_offset(&self) -> Result<Option<CommittedOffset>, NotReady> {
        loop {
            pause().await;
            let (found, is_stable) = {
                let group = &self.shared.world().kafka.group;
                (group.last_committed(self.task).cloned(), group.committed(self.task).is_ok())
            };
            if !is_stable && self.request.called_off.get() {
                return Err(NotReady::CalledOff);
            }
            self.end_former_owner(found.as_ref()).await;
            if is_stable {
                return Ok(found);
            }
        }
    }

    /// As `src/stream/fencing.rs`: a producer with the id of an owner that the group does not have ends what that one left open,
    /// and is thrown away. Who is a member may be another story by then.
    async fn end_former_owner(&self, found: Option<&CommittedOffset>) {
        let metadata = found.and_then(|found| Metadata::parse(&found.metadata)).filter(|_| !self.request.called_off.get());
        let owner = metadata.and_then(|metadata| metadata.owner.strip_prefix('p')?.parse().ok());
        let Some(owner) = owner.filter(|owner| *owner != self.number) else { return };
        let had_open = {
            let kafka = &self.shared.world().kafka;
            if !kafka.group.has(self.number) || kafka.group.has(owner) {
                return;
            }
            kafka.transactions.has_open(owner)
        };
        drop(Producer::connect(self.shared, owner).await);
        if had_open {
            self.shared.saw(Seen::OwnerEnded);
            self.shared.note(|| format!("p{}: p{owner} is gone, what it left open is ended", self.number));
        }
    }

    async fn prepare(&self, desk: &Desk, found: Option<CommittedOffset>) -> Result<Ready, NotReady> {
        let metadata = found.as_ref().and_then(|found| Metadata::parse(&found.metadata));
        if self.task.topic > 0 {
            return self.router(found, metadata).await;
        }
        desk.take(self.task).await;
        let ready = self.detector(found, metadata).await;
        match &ready {
            Ok(ready) => promises::starts_from_its_commit(self.shared, self.task, ready, self.number),
            Err(_) => desk.release(self.task),
        }
        ready
    }

    async fn router(&self, found: Option<CommittedOffset>, metadata: Option<Metadata>) -> Result<Ready, NotReady> {
        if metadata.is_none()
            && let Some(marker) = self.newest_marker().await?
        {
            return Err(Halt::ForeignOffset { marker: marker.seq }.into());
        }
        Ok(self.ready(metadata, found.map_or(0, |found| found.offset), -1, 0, States::default()))
    }

    async fn detector(&self, found: Option<CommittedOffset>, metadata: Option<Metadata>) -> Result<Ready, NotReady> {
        if self.request.spoiled.get() {
            self.set_aside();
            pause().await;
            self.request.spoiled.set(false);
        }
        let offset = found.map(|found| found.offset);
        loop {
            match self.open_and_plan(offset, metadata.clone()).await {
                Err(NotReady::Damaged) => self.set_aside(),
                other => return other,
            }
        }
    }

    fn set_aside(&self) {
        self.with_store(|store| *store = Store::default());
        self.shared.saw(Seen::SetAside);
        self.shared.note(|| format!("p{}: the store of {} is set aside", self.number, name(self.task)));
    }

    async fn open_and_plan(&self, offset: Option<i64>, metadata: Option<Metadata>) -> Result<Ready, NotReady> {
        pause().await;
        let is_noted = self.open()?;
        let (local, too_old_ms) = {
            let World { disks, choices, faults, bug, .. } = &mut *self.shared.world();
            let mut local = disks[self.number].entry(self.task.partition).or_default().local();
            if let (Some(local), Some(metadata), Some(Bug::CommitIdUnchecked)) = (&mut local, &metadata, bug) {
                local.commit_id.clone_from(&metadata.commit_id);
            }
            (local, if choices.strikes(About::Process, faults.disk_too_old) { i64::MAX } else { 0 })
        };
        match start::plan(offset, metadata.as_ref(), local.as_ref(), too_old_ms, PARTITIONS)? {
            Plan::Ready(next_offset) => {
                self.shared.saw(Seen::Ready);
                let Local { marker_offset, stream_time_ms, .. } = local.unwrap_or_default();
                let end = self.shared.world().kafka.log(Topic::Changelog, self.task.partition).high_watermark();
                if let Some(metadata) = metadata.as_ref().filter(|_| marker_offset >= end) {
                    return Err(Halt::MarkerMissing { end, seq: metadata.seq }.into());
                }
                Ok(self.ready(metadata, next_offset, marker_offset, stream_time_ms, States::default()))
            }
            Plan::Restore(from) => {
                let (Some(offset), Some(metadata)) = (offset, metadata) else { return Err(Halt::ForeignOffset { marker: 0 }.into()) };
                let (from, discard) = start::restore_from(from, 0, &metadata)?;
                self.shared.saw(if discard { Seen::Rebuilt } else { Seen::CaughtUp });
                if discard {
                    self.with_store(|store| *store = Store::default());
                } else if is_noted {
                    self.shared.saw(Seen::WentOn);
                }
                let mut states = States::default();
                let (marker, marker_offset) = self.apply_changelog(&mut states, from, &metadata).await?;
                pause().await;
                self.with_store(|store| states.write(store, Some(&local_of(&marker, marker_offset))))?;
                Ok(self.ready(Some(metadata), offset, marker_offset, marker.stream_time_ms, states))
            }
            Plan::SearchMarker | Plan::Fresh | Plan::AtOffset(_) => {
                self.shared.saw(Seen::Fresh);
                let newest = self.newest_marker().await?;
                let next_offset = match start::after_search(offset, newest.as_ref())? {
                    Plan::AtOffset(offset) => offset,
                    _ => 0,
                };
                self.with_store(|store| *store = Store::default());
                Ok(self.ready(None, next_offset, -1, 0, States::default()))
            }
        }
    }

    fn ready(&self, metadata: Option<Metadata>, next_offset: i64, marker_offset: i64, stream_time_ms: i64, states: States) -> Ready {
        let committed = metadata.as_ref().map(|m| position(m, next_offset));
        let history = metadata.map_or_else(|| self.shared.world().new_id().to_hex(), |m| m.history);
        Ready { states, committed, next_offset, history, marker_offset, stream_time_ms }
    }

    /// Opens the store: damage may be noticed here already. Answers whether it is on its way to a commit.
    fn open(&self) -> Result<bool, Damaged> {
        let World { disks, choices, .. } = &mut *self.shared.world();
        let store = disks[self.number].entry(self.task.partition).or_default();
        let is_noticed = store.is_damaged && choices.strikes(About::Process, NOTICED);
        if is_noticed { Err(Damaged) } else { Ok(store.is_noted()) }
    }

    fn with_store<R>(&self, work: impl FnOnce(&mut Store) -> R) -> R {
        work(self.shared.world().disks[self.number].entry(self.task.partition).or_default())
    }

    async fn apply_changelog(&self, states: &mut States, from: i64, metadata: &Metadata) -> Result<(Marker, i64), NotReady> {
        let (mut at, mut is_ahead) = (self.begin_reading(from), false);
        while let Some((offset, record)) = self.read(&mut at).await? {
            if record.key.starts_with("task/") {
                let marker = marker_of(&record);
                if start::marker_met(&marker, metadata, PARTITIONS)? {
                    return Ok((marker, offset));
                }
                if marker.history == metadata.history && std::mem::take(&mut is_ahead) {
                    let mut local = local_of(&marker, offset);
                    if self.shared.world().bug == Some(Bug::NotedAhead) {
                        local.commit_id.clone_from(&metadata.commit_id);
                    }
                    self.with_store(|store| states.note(store, &local))?;
                    self.shared.saw(Seen::Noted);
                    self.shared.note(|| format!("p{}: the restore of {} comes by seq {}", self.number, name(self.task), marker.seq));
                }
            } else if !record.key.starts_with("router/") {
                let bytes = match record.value {
                    Value::Bytes(bytes) => Some(bytes),
                    _ => None,
                };
                if states.restore(record.key, bytes) || self.hurries() {
                    self.with_store(|store| states.write(store, None))?;
                    is_ahead = true;
                }
            }
        }
        Err(Halt::MarkerMissing { end: self.end.get(), seq: metadata.seq }.into())
    }

    fn hurries(&self) -> bool {
        self.shared.world().choices.strikes(About::Process, HURRIES)
    }

    async fn newest_marker(&self) -> Result<Option<Marker>, NotReady> {
        let (mut at, mut newest, mine) = (self.begin_reading(0), None, marker_key(self.task));
        while let Some((_, record)) = self.read(&mut at).await? {
            if *record.key == *mine {
                newest = Some(marker_of(&record));
            }
        }
        Ok(newest)
    }

    /// Takes the high watermark, once.
    fn begin_reading(&self, from: i64) -> i64 {
        self.end.set(self.shared.world().kafka.log(Topic::Changelog, self.task.partition).high_watermark());
        from
    }

    /// The next committed record below that watermark; what is open there is waited for.
    async fn read(&self, at: &mut i64) -> Result<Option<(i64, Record)>, NotReady> {
        loop {
            pause().await;
            if self.request.called_off.get() {
                return Err(NotReady::CalledOff);
            }
            let world = self.shared.world();
            let log = world.kafka.log(Topic::Changelog, self.task.partition);
            match log.next(*at) {
                Some((offset, record)) if offset < self.end.get() => {
                    *at = offset + 1;
                    return Ok(Some((offset, record.clone())));
                }
                None if log.last_stable_offset() < self.end.get() => {}
                _ => return Ok(None),
            }
        }
    }
}

/// The marker in a record of the changelog.
pub fn marker_of(record: &Record) -> Marker {
    serde_json::from_slice(record.bytes().unwrap_or_default()).expect("a marker of ours")
}

/// The commit that metadata name.
fn position(metadata: &Metadata, next_offset: i64) -> Committed {
    let commit_id = CommitId::from_hex(&metadata.commit_id).expect("an id of ours");
    Committed { next_offset, seq: metadata.seq, commit_id }
}

/// What a store says of itself that stands at a marker.
fn local_of(marker: &Marker, marker_offset: i64) -> Local {
    Local {
        history: marker.history.clone(),
        seq: marker.seq,
        commit_id: marker.commit_id.clone(),
        marker_offset,
        marker_time_ms: 0,
        due_index: 1,
        stream_time_ms: marker.stream_time_ms,
        sources: None,
    }
}
