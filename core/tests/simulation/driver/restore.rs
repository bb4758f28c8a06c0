//! As `src/stream/restore.rs`: brings a task's state to its committed position, beside the lane, which goes on meanwhile.

use super::states::States;
use super::*;
use crate::client::committed_offset;
use crate::disk::Store;
use crate::kafka::group::CommittedOffset;
use crate::promises;
use crate::world::{PARTITIONS, World};
use std::cell::{Cell, RefCell};
use tripline_core::protocol::start::{self, Halt, Local, Marker, Metadata, Plan};
use tripline_core::protocol::{CommitId, Committed};

/// Asks for a task's state.
pub struct Request {
    pub task: TaskId,
    pub generation: u64,
}

/// Answers a [`Request`].
pub struct Answer {
    pub task: TaskId,
    pub generation: u64,
    pub outcome: Result<Box<Ready>, Halt>,
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
        let Some(Request { task, generation }) = request else { continue };
        let restore = Restore { shared: &shared, number, task, end: Cell::new(0) };
        let outcome = restore.run(&desk).await.map(Box::new);
        desk.answers.borrow_mut().push_back(Answer { task, generation, outcome });
    }
}

struct Restore<'s> {
    shared: &'s Shared,
    number: usize,
    task: TaskId,
    /// Where the changelog ended when it was last looked at.
    end: Cell<i64>,
}

impl Restore<'_> {
    /// The offset, the store and the changelog are read one after the other, and another owner may commit in between: no reason
    /// to halt is believed while the offset moves.
    async fn run(&self, desk: &Desk) -> Result<Ready, Halt> {
        loop {
            let found = committed_offset(self.shared, self.task).await;
            let ready = self.prepare(desk, found.clone()).await;
            let believes = ready.is_ok() || self.shared.world().bug == Some(Bug::HaltBelieved);
            if believes || committed_offset(self.shared, self.task).await == found {
                return ready;
            }
            self.shared.saw(Seen::HaltDisbelieved);
        }
    }

    async fn prepare(&self, desk: &Desk, found: Option<CommittedOffset>) -> Result<Ready, Halt> {
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

    async fn router(&self, found: Option<CommittedOffset>, metadata: Option<Metadata>) -> Result<Ready, Halt> {
        if metadata.is_none()
            && let Some(marker) = self.newest_marker().await
        {
            return Err(Halt::ForeignOffset { marker: marker.seq });
        }
        Ok(self.ready(metadata, found.map_or(0, |found| found.offset), -1, 0, States::default()))
    }

    async fn detector(&self, found: Option<CommittedOffset>, metadata: Option<Metadata>) -> Result<Ready, Halt> {
        pause().await;
        let offset = found.map(|found| found.offset);
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
                    return Err(Halt::MarkerMissing { end, seq: metadata.seq });
                }
                Ok(self.ready(metadata, next_offset, marker_offset, stream_time_ms, States::default()))
            }
            Plan::Restore { from, discard } => {
                self.shared.saw(if discard { Seen::Rebuilt } else { Seen::CaughtUp });
                if discard {
                    self.with_store(|store| *store = Store::default());
                }
                let (Some(offset), Some(metadata)) = (offset, metadata) else { return Err(Halt::ForeignOffset { marker: 0 }) };
                let mut states = States::default();
                let (marker, marker_offset) = self.apply_changelog(&mut states, from, &metadata).await?;
                pause().await;
                let local = local_of(&metadata, marker_offset, marker.stream_time_ms);
                self.with_store(|store| store.write(&states.take_unwritten(), Some(&local)));
                Ok(self.ready(Some(metadata), offset, marker_offset, marker.stream_time_ms, states))
            }
            Plan::SearchMarker | Plan::Fresh | Plan::AtOffset(_) => {
                self.shared.saw(Seen::Fresh);
                let newest = self.newest_marker().await;
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

    fn with_store<R>(&self, work: impl FnOnce(&mut Store) -> R) -> R {
        work(self.shared.world().disks[self.number].entry(self.task.partition).or_default())
    }

    async fn apply_changelog(&self, states: &mut States, from: Option<i64>, metadata: &Metadata) -> Result<(Marker, i64), Halt> {
        let mut at = self.begin_reading(from);
        while let Some((offset, record)) = self.read(&mut at).await {
            if record.key.starts_with("task/") {
                let marker = marker_of(&record);
                if start::marker_met(&marker, metadata, PARTITIONS)? {
                    return Ok((marker, offset));
                }
            } else if !record.key.starts_with("router/") {
                let bytes = match record.value {
                    Value::Bytes(bytes) => Some(bytes),
                    _ => None,
                };
                if states.restore(record.key, bytes) {
                    self.with_store(|store| store.write(&states.take_unwritten(), None));
                }
            }
        }
        Err(Halt::MarkerMissing { end: self.end.get(), seq: metadata.seq })
    }

    async fn newest_marker(&self) -> Option<Marker> {
        let (mut at, mut newest, mine) = (self.begin_reading(None), None, marker_key(self.task));
        while let Some((_, record)) = self.read(&mut at).await {
            if *record.key == *mine {
                newest = Some(marker_of(&record));
            }
        }
        newest
    }

    /// Takes the high watermark, once.
    fn begin_reading(&self, from: Option<i64>) -> i64 {
        self.end.set(self.shared.world().kafka.log(Topic::Changelog, self.task.partition).high_watermark());
        from.unwrap_or(0)
    }

    /// The next committed record below that watermark; what is open there is waited for.
    async fn read(&self, at: &mut i64) -> Option<(i64, Record)> {
        loop {
            pause().await;
            let world = self.shared.world();
            let log = world.kafka.log(Topic::Changelog, self.task.partition);
            match log.next(*at) {
                Some((offset, record)) if offset < self.end.get() => {
                    *at = offset + 1;
                    return Some((offset, record.clone()));
                }
                None if log.last_stable_offset() < self.end.get() => {}
                _ => return None,
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

fn local_of(metadata: &Metadata, marker_offset: i64, stream_time_ms: i64) -> Local {
    Local {
        history: metadata.history.clone(),
        seq: metadata.seq,
        commit_id: metadata.commit_id.clone(),
        marker_offset,
        marker_time_ms: 0,
        due_index: 1,
        stream_time_ms,
        sources: None,
    }
}
