//! Brings a task's state to its committed position, beside the lane, which goes on working meanwhile.
//!
//! One thread per lane, with clients of its own (see [`changelog`]). What to do is decided by
//! [`tripline_core::protocol::start`]; here it is done.

use super::Shared;
use super::changelog::{self, Isolation, Quiet, ReadError, Span};
use super::failpoints::{self, Point};
use crate::config::{Config, Start};
use crate::state::{DUE_INDEX, TaskState, TaskStore};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};
use tracing::{info, warn};
use tripline_core::hash;
use tripline_core::protocol::start::{self, Halt, Local, Marker, Metadata, Plan};
use tripline_core::protocol::{CommitId, Committed, TaskId};
use tripline_core::stream_time::SourceTimes;

/// Records of the changelog whose key starts with this are markers, not states: no entity's key does.
pub const MARKER_PREFIX: &str = "task/";
/// As [`MARKER_PREFIX`], for router partitions.
pub const ROUTER_PREFIX: &str = "router/";

/// The key of a task's markers; `router` is the input topic of a router partition.
pub fn marker_key(router: Option<&str>, partition: i32) -> String {
    match router {
        None => format!("{MARKER_PREFIX}{partition}"),
        Some(topic) => format!("{ROUTER_PREFIX}{topic}/{partition}"),
    }
}

/// The key of what a task's commit says about its sources. It stands under the markers' prefix, so that a binary that does not
/// know it passes it by.
pub fn time_key(partition: i32) -> String {
    format!("{MARKER_PREFIX}{partition}/time")
}

/// Asks for a task's state.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Which.
    pub task: TaskId,
    /// The lane's number of this request for this task.
    pub generation: u64,
}

/// Answers a [`Request`].
#[derive(Debug)]
pub struct Answer {
    /// As asked.
    pub task: TaskId,
    /// As asked.
    pub generation: u64,
    /// What came of it.
    pub outcome: Result<Ready, RestoreError>,
}

/// A task that is ready to run.
#[derive(Debug)]
pub struct Ready {
    /// Which.
    pub task: TaskId,
    /// Its states; `None` for a router partition.
    pub state: Option<TaskState>,
    /// Where it stands; `None` when it never committed.
    pub committed: Option<Committed>,
    /// Where to start.
    pub next_offset: i64,
    /// Its life.
    pub history: String,
    /// The digests of rules and flags of its last commit.
    pub digests: Option<(String, String)>,
    /// The newest marker's offset in the changelog.
    pub marker_offset: i64,
    /// Fingerprint of the last processed record; empty for none.
    pub fingerprint: String,
    /// The newest record time it saw, milliseconds; 0 for none.
    pub stream_time_ms: i64,
    /// Routed mode: how far it has heard from its sources, if rules needed that.
    pub sources: Option<SourceTimes>,
}

/// Why a task could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// An operator has to look.
    #[error("task {topic}/{partition} does not start: {source}{}", way_out(topic, *partition, source))]
    Halt {
        /// The input topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Why.
        #[source]
        source: Halt,
    },
    /// The group's offset stays pending.
    #[error(
        "the committed offset of {topic}/{partition} stays pending: another producer's transaction neither ended nor timed out; look with kafka-transactions.sh find-hanging"
    )]
    Pending {
        /// The input topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The changelog cannot be read to its end.
    #[error(
        "changelog partition {partition} stays open below offset {end}: a transaction neither ended nor timed out; look with kafka-transactions.sh find-hanging"
    )]
    Open {
        /// The partition.
        partition: i32,
        /// The high watermark.
        end: i64,
    },
    /// Kafka refused.
    #[error("restoring {topic}/{partition}: {source}")]
    Kafka {
        /// The input topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The client's words.
        #[source]
        source: KafkaError,
    },
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] crate::state::StoreError),
    /// Another lane does not let go.
    #[error("the store of partition {0} stays open in another lane")]
    Held(i32),
}

/// What an operator can do about it, unless the reason says so itself.
fn way_out(topic: &str, partition: i32, halt: &Halt) -> String {
    match halt {
        Halt::Partitions { .. } => String::new(),
        _ => format!("; if the changelog is right, run `tripline state adopt --topic {topic} --partition {partition}`"),
    }
}

struct Restorer {
    shared: Arc<Shared>,
    committed: BaseConsumer<Quiet>,
    ends: BaseConsumer<Quiet>,
}

/// Serves requests until the lane hangs up.
pub fn serve(shared: &Arc<Shared>, requests: &Receiver<Request>, answers: &Sender<Answer>) {
    let restorer = match Restorer::connect(shared) {
        Ok(restorer) => restorer,
        Err(source) => {
            // A client that cannot even be created: every request gets the reason.
            let text = source.to_string();
            for Request { task, generation } in requests {
                let error = RestoreError::Kafka {
                    topic: shared.topic(task).to_owned(),
                    partition: task.partition,
                    source: KafkaError::ClientCreation(text.clone()),
                };
                if answers.send(Answer { task, generation, outcome: Err(error) }).is_err() {
                    return;
                }
            }
            return;
        }
    };
    for Request { task, generation } in requests {
        let started = Instant::now();
        let outcome = restorer.restore(task);
        shared.metrics.restore.seconds.observe(started.elapsed().as_secs_f64());
        if answers.send(Answer { task, generation, outcome }).is_err() {
            return;
        }
    }
}

impl Restorer {
    fn connect(shared: &Arc<Shared>) -> Result<Restorer, KafkaError> {
        let client = |isolation| changelog::client(&shared.base, &shared.config.app.id, isolation);
        Ok(Restorer { shared: shared.clone(), committed: client(Isolation::Committed)?, ends: client(Isolation::Uncommitted)? })
    }

    fn kafka(&self, task: TaskId, source: KafkaError) -> RestoreError {
        RestoreError::Kafka { topic: self.shared.topic(task).to_owned(), partition: task.partition, source }
    }

    fn halt(&self, task: TaskId, source: Halt) -> RestoreError {
        RestoreError::Halt { topic: self.shared.topic(task).to_owned(), partition: task.partition, source }
    }

    fn restore(&self, task: TaskId) -> Result<Ready, RestoreError> {
        let (offset, text) = self.committed_offset(task)?;
        let metadata = Metadata::parse(&text);
        if let (Some(offset), Some(metadata)) = (offset, &metadata) {
            self.check_fingerprint(task, offset, metadata)?;
        }
        if task.topic > 0 {
            return self.router(task, offset, metadata);
        }
        if !self.shared.registry.take(task.partition, Duration::from_secs(30)) {
            return Err(RestoreError::Held(task.partition));
        }
        let ready = self.detector(task, offset, metadata);
        if ready.is_err() {
            self.shared.registry.release(task.partition);
        }
        ready
    }

    /// The group's offset and metadata. A pending transactional offset makes the broker wait: that is how the outcome of an
    /// earlier owner's commit is awaited.
    fn committed_offset(&self, task: TaskId) -> Result<(Option<i64>, String), RestoreError> {
        let topic = self.shared.topic(task);
        let deadline = Instant::now() + patience(&self.shared.config);
        loop {
            let mut list = TopicPartitionList::new();
            list.add_partition(topic, task.partition);
            match self.committed.committed_offsets(list, Duration::from_secs(2)) {
                Ok(found) => {
                    let Some(element) = found.find_partition(topic, task.partition) else { return Ok((None, String::new())) };
                    element.error().map_err(|e| self.kafka(task, e))?;
                    return Ok(match element.offset() {
                        Offset::Offset(offset) => (Some(offset), element.metadata().to_owned()),
                        _ => (None, String::new()),
                    });
                }
                Err(error) if Instant::now() < deadline && !self.shared.is_stopping() => {
                    warn!(topic, partition = task.partition, %error, "committed offset not readable yet, asking again");
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut) | KafkaError::OffsetFetch(_)) => {
                    return Err(RestoreError::Pending { topic: topic.to_owned(), partition: task.partition });
                }
                Err(source) => return Err(self.kafka(task, source)),
            }
        }
    }

    fn high_watermark(&self, topic: &str, task: TaskId) -> Result<(i64, i64), RestoreError> {
        let mut tries = 0;
        loop {
            match self.ends.fetch_watermarks(topic, task.partition, Duration::from_secs(5)) {
                Ok(ends) => return Ok(ends),
                Err(error) if tries < 10 && !self.shared.is_stopping() => {
                    tries += 1;
                    warn!(topic, partition = task.partition, %error, "watermarks not readable yet, asking again");
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(source) => return Err(self.kafka(task, source)),
            }
        }
    }

    /// A topic that was deleted and created again is read on at the old offset without any error by Kafka. The record before
    /// the committed offset tells: if it is still there it must be the one that was processed.
    fn check_fingerprint(&self, task: TaskId, next_offset: i64, metadata: &Metadata) -> Result<(), RestoreError> {
        if metadata.fingerprint.is_empty() || next_offset == 0 {
            return Ok(());
        }
        let topic = self.shared.topic(task);
        let (low, high) = self.high_watermark(topic, task)?;
        if high < next_offset {
            return Err(self.halt(task, Halt::Recreated { next_offset }));
        }
        if next_offset - 1 < low {
            return Ok(());
        }
        self.assign(task, topic, next_offset - 1)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut verdict = Ok(());
        while Instant::now() < deadline {
            match self.committed.poll(Duration::from_millis(100)) {
                Some(Ok(record)) if record.offset() == next_offset - 1 => {
                    if format_fingerprint(fingerprint(&record)) != metadata.fingerprint {
                        verdict = Err(self.halt(task, Halt::Recreated { next_offset }));
                    }
                    break;
                }
                // Compacted away, or already at the end: nothing to compare with.
                Some(Ok(_)) | Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(_)) | None => {}
            }
        }
        let _ = self.committed.unassign();
        verdict
    }

    fn assign(&self, task: TaskId, topic: &str, offset: i64) -> Result<(), RestoreError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, task.partition, Offset::Offset(offset)).map_err(|e| self.kafka(task, e))?;
        self.committed.assign(&list).map_err(|e| self.kafka(task, e))
    }

    /// Where a group without offsets starts.
    fn first_offset(&self, task: TaskId) -> Result<i64, RestoreError> {
        let (low, high) = self.high_watermark(self.shared.topic(task), task)?;
        // Observations are our own: none may be skipped, whatever the input's start is.
        let is_ours = task.topic == 0 && self.shared.is_routed();
        Ok(if is_ours || self.shared.config.input.start == Start::Earliest { low } else { high })
    }

    fn router(&self, task: TaskId, offset: Option<i64>, metadata: Option<Metadata>) -> Result<Ready, RestoreError> {
        if let Some(metadata) = &metadata
            && metadata.partitions != self.shared.partitions
        {
            return Err(self.halt(task, Halt::Partitions { written: metadata.partitions, found: self.shared.partitions }));
        }
        // Its markers are the memory of what was routed: without metadata of ours beside one, routing again would count twice.
        let newest = if metadata.is_none() { self.newest_marker(task)? } else { None };
        if let Some(marker) = newest {
            return Err(self.halt(task, Halt::ForeignOffset { marker: marker.seq }));
        }
        let next_offset = match offset {
            Some(offset) => offset,
            None => self.first_offset(task)?,
        };
        Ok(Ready {
            task,
            state: None,
            committed: metadata.as_ref().map(|m| position(m, next_offset)),
            next_offset,
            fingerprint: metadata.as_ref().map_or_else(String::new, |m| m.fingerprint.clone()),
            history: metadata.map_or_else(new_history, |m| m.history),
            digests: None,
            marker_offset: -1,
            stream_time_ms: 0,
            sources: None,
        })
    }

    fn detector(&self, task: TaskId, offset: Option<i64>, metadata: Option<Metadata>) -> Result<Ready, RestoreError> {
        let path = self.shared.dir.task(task.partition);
        let open = || TaskStore::open(&path, &self.shared.budget);
        let mut state = TaskState::new(open()?);
        let local = state.store().local()?;
        let too_old_ms = now_ms() - DISCARD_AFTER_MS;
        let plan =
            start::plan(offset, metadata.as_ref(), local.as_ref(), too_old_ms, self.shared.partitions).map_err(|h| self.halt(task, h))?;
        let stays = matches!(plan, Plan::Ready(_) | Plan::Restore { discard: false, .. });
        if stays && local.as_ref().is_some_and(|local| local.due_index != DUE_INDEX) {
            info!(partition = task.partition, "the store was written without an index of what is due: it is made");
            state.rebuild_due()?;
        }
        match plan {
            Plan::Ready(next_offset) => {
                let marker_offset = local.as_ref().map_or(-1, |l| l.marker_offset);
                let time = local.map_or((0, None), |l| (l.stream_time_ms, l.sources));
                // A changelog that was deleted and made anew could not rebuild this state on another disk: said now, not then.
                let (_, end) = self.high_watermark(&self.shared.changelog, task)?;
                if let Some(metadata) = &metadata
                    && marker_offset >= end
                {
                    return Err(self.halt(task, Halt::MarkerMissing { end, seq: metadata.seq }));
                }
                Ok(ready(task, state, metadata, next_offset, marker_offset, None, time))
            }
            Plan::Restore { from, discard } => {
                let mut sources = local.and_then(|l| l.sources).filter(|_| !discard);
                if discard {
                    drop(state);
                    info!(partition = task.partition, "local state is of another life or too old: rebuilt from the changelog");
                    TaskStore::destroy(&path)?;
                    state = TaskState::new(open()?);
                }
                let (Some(offset), Some(metadata)) = (offset, metadata) else {
                    return Err(self.halt(task, Halt::ForeignOffset { marker: 0 }));
                };
                let (marker, marker_offset) = self.apply_changelog(task, &mut state, from, &metadata, &mut sources)?;
                let time = (marker.stream_time_ms, sources);
                state.write(Some(&local_of(&metadata, marker_offset, &time)))?;
                Ok(ready(task, state, Some(metadata), offset, marker_offset, Some((marker.rules, marker.flags)), time))
            }
            Plan::SearchMarker | Plan::Fresh | Plan::AtOffset(_) => {
                let newest = self.newest_marker(task)?;
                let next_offset = match start::after_search(offset, newest.as_ref()).map_err(|h| self.halt(task, h))? {
                    Plan::AtOffset(offset) => offset,
                    _ => self.first_offset(task)?,
                };
                drop(state);
                TaskStore::destroy(&path)?;
                Ok(ready(task, TaskState::new(open()?), None, next_offset, -1, None, (0, None)))
            }
        }
    }

    /// Applies the changelog from `from` until the marker of the metadata. Values are absolute: applying one twice is harmless.
    fn apply_changelog(
        &self,
        task: TaskId,
        state: &mut TaskState,
        from: Option<i64>,
        metadata: &Metadata,
        sources: &mut Option<SourceTimes>,
    ) -> Result<(Marker, i64), RestoreError> {
        let mut found = None;
        let mut count = 0u64;
        self.read_changelog(task, from, |key, value, offset| {
            let _ = failpoints::reach(Point::InRestore);
            if key == time_key(task.partition) {
                *sources = value.and_then(|v| serde_json::from_slice(v).ok());
            } else if key.starts_with(MARKER_PREFIX) {
                let Some(marker) = value.and_then(|v| serde_json::from_slice::<Marker>(v).ok()) else { return Ok(false) };
                if start::marker_met(&marker, metadata, self.shared.partitions).map_err(|h| self.halt(task, h))? {
                    found = Some((marker, offset));
                    return Ok(true);
                }
            } else if !key.starts_with(ROUTER_PREFIX) {
                state.restore(key, value)?;
                count += 1;
            }
            Ok(false)
        })?;
        self.shared.metrics.restore.records.inc_by(count);
        match found {
            Some(found) => Ok(found),
            None => {
                let (_, end) = self.high_watermark(&self.shared.changelog, task)?;
                Err(self.halt(task, Halt::MarkerMissing { end, seq: metadata.seq }))
            }
        }
    }

    fn newest_marker(&self, task: TaskId) -> Result<Option<Marker>, RestoreError> {
        let mut newest = None;
        let mine = marker_key((task.topic > 0).then(|| self.shared.topic(task)), task.partition);
        self.read_changelog(task, None, |key, value, _| {
            if key == mine {
                newest = value.and_then(|v| serde_json::from_slice::<Marker>(v).ok());
            }
            Ok(false)
        })?;
        Ok(newest)
    }

    /// Shows the committed records of the task's changelog partition up to the high watermark, taken once. `show` answers
    /// whether it has seen enough.
    fn read_changelog(
        &self,
        task: TaskId,
        from: Option<i64>,
        show: impl FnMut(&str, Option<&[u8]>, i64) -> Result<bool, RestoreError>,
    ) -> Result<(), RestoreError> {
        let topic = &self.shared.changelog;
        let place = TaskId { partition: task.partition.rem_euclid(self.shared.partitions.max(1)), ..task };
        let (low, end) = self.high_watermark(topic, place)?;
        let span = Span { topic, partition: place.partition, from: from.unwrap_or(low).max(low), end };
        let patience = patience(&self.shared.config);
        changelog::read(&self.committed, span, patience, || self.shared.is_stopping(), show).map_err(|error| match error {
            ReadError::Open => RestoreError::Open { partition: place.partition, end },
            ReadError::Kafka(source) => self.kafka(task, source),
            ReadError::Shown(error) => error,
        })
    }
}

/// How long an open transaction may hold up what is read: until it ended or timed out, with its coordinator's moment to say so.
pub fn patience(config: &Config) -> Duration {
    2 * config.stream.transaction_timeout.0 + Duration::from_secs(5)
}

/// Half of the changelog's `delete.retention.ms` (7 days): a store older than this may hold entities whose tombstones are gone.
const DISCARD_AFTER_MS: i64 = 7 * 86_400_000 / 2;

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn new_history() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The newest record time that a task saw, and how far it has heard from its sources.
type Time = (i64, Option<SourceTimes>);

fn ready(
    task: TaskId,
    state: TaskState,
    metadata: Option<Metadata>,
    next_offset: i64,
    marker_offset: i64,
    digests: Option<(String, String)>,
    (stream_time_ms, sources): Time,
) -> Ready {
    let committed = metadata.as_ref().map(|m| position(m, next_offset));
    let (history, fingerprint) = metadata.map_or_else(|| (new_history(), String::new()), |m| (m.history, m.fingerprint));
    Ready { task, state: Some(state), committed, next_offset, history, digests, marker_offset, fingerprint, stream_time_ms, sources }
}

fn position(metadata: &Metadata, next_offset: i64) -> Committed {
    Committed { next_offset, seq: metadata.seq, commit_id: CommitId::from_hex(&metadata.commit_id).unwrap_or(CommitId(0)) }
}

fn local_of(metadata: &Metadata, marker_offset: i64, (stream_time_ms, sources): &Time) -> Local {
    Local {
        history: metadata.history.clone(),
        seq: metadata.seq,
        commit_id: metadata.commit_id.clone(),
        marker_offset,
        marker_time_ms: now_ms(),
        due_index: DUE_INDEX,
        stream_time_ms: *stream_time_ms,
        sources: sources.clone(),
    }
}

/// What a record looks like, for [`Metadata::fingerprint`].
pub fn fingerprint(record: &impl Message) -> u64 {
    let timestamp_ms = record.timestamp().to_millis().unwrap_or(-1);
    let parts = [hash::short(record.key().unwrap_or_default()), hash::short(record.payload().unwrap_or_default()), timestamp_ms as u64];
    let mut bytes = [0; 24];
    for (place, part) in bytes.chunks_exact_mut(8).zip(parts) {
        place.copy_from_slice(&part.to_le_bytes());
    }
    hash::short(&bytes)
}

/// As it stands in the metadata.
pub fn format_fingerprint(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}
