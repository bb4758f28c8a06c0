//! One task's restore: the group's offset, the local store, the changelog behind the store.

use super::clients::Clients;
use super::progress::Progress;
use super::refused::Refused;
use super::{
    DISCARD_AFTER_MS, MARKER_PREFIX, OutOfRange, ROUTER_PREFIX, Ready, Request, RestoreError, fingerprint, format_fingerprint, marker_key,
    patience, time_key,
};
use crate::config::Start;
use crate::state::{DUE_INDEX, StoreError, TaskState, TaskStore};
use crate::stream::Shared;
use crate::stream::access;
use crate::stream::changelog::{self, Entry, Quiet, ReadError, Span};
use crate::stream::failpoints::{self, Point};
use crate::stream::group::Pending;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{info, warn};
use tripline_core::protocol::start::{self, Halt, Local, Marker, Metadata, Plan};
use tripline_core::protocol::{CommitId, Committed, TaskId};
use tripline_core::state::StateError;
use tripline_core::stream_time::SourceTimes;

mod topic;

/// How long one question for the group's offset waits, before it is found out whose transaction it waits for.
const ASK_FOR: Duration = Duration::from_secs(1);
/// How long a restore waits for another lane to let go of a store before the lane is told.
const HELD_FOR: Duration = Duration::from_secs(5);

/// Does what is asked.
pub(super) fn restore(clients: &Clients, shared: &Shared, request: &Request) -> Result<Ready, RestoreError> {
    Job { clients, shared, request, task: request.task }.run()
}

/// The newest record time that a task saw, and how far it has heard from its sources.
type Time = (i64, Option<SourceTimes>);

struct Job<'j> {
    clients: &'j Clients,
    shared: &'j Shared,
    request: &'j Request,
    task: TaskId,
}

impl Job<'_> {
    fn run(&self) -> Result<Ready, RestoreError> {
        let task = self.task;
        // Partitions that were added to the keyed topic while we run: keys have moved, and their states have not.
        if task.topic == 0 && task.partition >= self.shared.partitions {
            return Err(self.halt(Halt::Partitions { written: self.shared.partitions, found: task.partition + 1 }));
        }
        let found = self.committed_offset()?;
        match self.start_at(&found) {
            // Somebody else has committed, or is about to: the group has moved on, and our lane will hear of it. Nobody reset
            // anything.
            Err(RestoreError::Halt { .. } | RestoreError::OutOfRange(_))
                if !self.ask_offset(&self.clients.committed).is_ok_and(|now| now == found) =>
            {
                Err(RestoreError::Moved(task.partition))
            }
            outcome => outcome,
        }
    }

    fn start_at(&self, (offset, text): &(Option<i64>, String)) -> Result<Ready, RestoreError> {
        let (task, offset) = (self.task, *offset);
        let metadata = Metadata::read(text).map_err(|h| self.halt(h))?;
        let topic_id = match offset {
            Some(offset) => self.same_topic(offset, metadata.as_ref())?,
            None => self.topic_id(None)?,
        };
        if task.topic > 0 {
            return Ok(Ready { topic_id, ..self.router(offset, metadata)? });
        }
        let registry = &self.shared.registry;
        let held = registry.take(task.partition, HELD_FOR).ok_or(RestoreError::Held(task.partition))?;
        let ready = self.detector(offset, metadata)?;
        held.keep();
        Ok(Ready { topic_id, ..ready })
    }

    fn topic(&self) -> &str {
        self.shared.topic(self.task)
    }

    fn kafka(&self, source: KafkaError) -> RestoreError {
        RestoreError::Kafka { topic: self.topic().to_owned(), partition: self.task.partition, source }
    }

    fn halt(&self, source: Halt) -> RestoreError {
        RestoreError::Halt { topic: self.topic().to_owned(), partition: self.task.partition, source }
    }

    /// Nobody waits for the answer: the lane gave the task back, or the process stops.
    fn is_needless(&self) -> bool {
        self.shared.is_stopping() || self.request.is_called_off()
    }

    /// The group's offset and metadata. A pending transactional offset makes the broker wait: that is how the outcome of an
    /// earlier owner's commit is awaited. One that is gone is not waited for: its transaction is ended.
    fn committed_offset(&self) -> Result<(Option<i64>, String), RestoreError> {
        let deadline = Instant::now() + patience(&self.shared.config);
        loop {
            match self.ask_offset(&self.clients.committed) {
                Ok(found) => {
                    self.end_former_owner(&found.1);
                    return Ok(found);
                }
                Err(source) if access::is_refusal(&source) => return Err(self.kafka(source)),
                Err(_) if self.is_needless() => return Err(RestoreError::CalledOff(self.task.partition)),
                Err(error) if Instant::now() < deadline => {
                    warn!(topic = self.topic(), partition = self.task.partition, %error, "committed offset not readable yet, asking again");
                    // What was committed before names who had the task.
                    if let Ok((_, text)) = self.ask_offset(&self.clients.ends) {
                        self.end_former_owner(&text);
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                // One that does not wait for stable offsets gets an answer: so it is not the coordinator that is away.
                Err(_) if self.ask_offset(&self.clients.ends).is_ok() => {
                    return Err(RestoreError::Pending(Pending { topic: self.topic().to_owned(), partition: self.task.partition }));
                }
                Err(source) => return Err(self.kafka(source)),
            }
        }
    }

    fn ask_offset(&self, client: &BaseConsumer<Quiet>) -> KafkaResult<(Option<i64>, String)> {
        let mut list = TopicPartitionList::new();
        list.add_partition(self.topic(), self.task.partition);
        let found = client.committed_offsets(list, ASK_FOR)?;
        let Some(element) = found.find_partition(self.topic(), self.task.partition) else { return Ok((None, String::new())) };
        element.error()?;
        Ok(match element.offset() {
            Offset::Offset(offset) => (Some(offset), element.metadata().to_owned()),
            _ => (None, String::new()),
        })
    }

    fn end_former_owner(&self, metadata: &str) {
        if let Some(metadata) = Metadata::parse(metadata).filter(|_| !self.is_needless()) {
            self.shared.fences.end(self.shared, &self.clients.ends, &metadata.owner);
        }
    }

    fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), RestoreError> {
        changelog::ends(&self.clients.ends, topic, partition, || self.is_needless()).map_err(|source| self.kafka(source))
    }

    /// Where a partition without a committed offset starts.
    fn first_offset(&self) -> Result<i64, RestoreError> {
        let (low, high) = self.ends(self.topic(), self.task.partition)?;
        // Observations are our own: none may be skipped, whatever the input's start is.
        let is_ours = self.task.topic == 0 && self.shared.is_routed();
        let from_low = is_ours || self.shared.config.input.start == Start::Earliest || self.was_added();
        Ok(if from_low { low } else { high })
    }

    /// Whether the partition was added to a topic that the group reads already: `input.start` is about the group's first
    /// start, and what was written before the group heard of the partition must not be skipped.
    fn was_added(&self) -> bool {
        self.shared.inputs_at_start.get(self.topic()).is_some_and(|then| then.was_read || self.task.partition >= then.partitions)
    }

    fn router(&self, offset: Option<i64>, metadata: Option<Metadata>) -> Result<Ready, RestoreError> {
        let task = self.task;
        // It may have been away while the tasks became more: it has no state that could be at home elsewhere. But one that knows of
        // fewer tasks than there are would send observations to where their entities are not any more.
        let (found, written) = (self.shared.partitions, metadata.as_ref().map_or(0, |metadata| metadata.partitions));
        if written > found {
            return Err(self.halt(Halt::Partitions { written, found }));
        }
        // Its markers are the memory of what was routed: without metadata of ours beside one, routing again would count twice.
        let newest = if metadata.is_none() { self.newest_marker(self.span()?)? } else { None };
        if let Some(marker) = newest {
            return Err(self.halt(Halt::ForeignOffset { marker: marker.seq }));
        }
        let next_offset = match offset {
            Some(offset) => offset,
            None => self.first_offset()?,
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
            topic_id: None,
            changelog_low: 0,
        })
    }

    /// A store that cannot be read is set aside, for whoever wants to know why, and made anew from the changelog.
    fn detector(&self, offset: Option<i64>, metadata: Option<Metadata>) -> Result<Ready, RestoreError> {
        if self.request.is_spoiled() {
            self.set_aside("it could not be read while it was used")?;
            self.request.spoiled.store(false, Ordering::Relaxed);
        }
        match self.open_and_plan(offset, metadata.clone()) {
            Err(RestoreError::Store(error)) if error.is_corruption() => {
                self.set_aside(&error.to_string())?;
                self.open_and_plan(offset, metadata)
            }
            other => other,
        }
    }

    fn set_aside(&self, why: &str) -> Result<(), StoreError> {
        let partition = self.task.partition;
        if let Some(to) = self.shared.dir.set_aside(partition)? {
            self.shared.metrics.restore.set_aside.inc();
            warn!(partition, why, folder = %to.display(), "the local state is set aside and rebuilt from the changelog; remove the folder when nobody needs it");
        }
        Ok(())
    }

    fn open(&self) -> Result<TaskState, StoreError> {
        Ok(TaskState::new(TaskStore::open(&self.shared.dir.task(self.task.partition), &self.shared.budget)?))
    }

    /// An empty store in the place of one that is of no use to us, but may be to somebody: that is set aside.
    fn open_empty(&self, former: TaskState, worth: Option<&str>) -> Result<TaskState, StoreError> {
        drop(former);
        match worth {
            Some(why) => self.set_aside(why)?,
            None => TaskStore::destroy(&self.shared.dir.task(self.task.partition))?,
        }
        self.open()
    }

    /// Whether the changelog can rebuild what a store of this life has.
    fn look_at_changelog(&self, changelog: Span<'_>, metadata: &Metadata, marker_offset: i64) -> Result<(), RestoreError> {
        // One that was deleted and made anew could not, on another disk: said now, not then.
        if marker_offset >= changelog.end {
            return Err(self.halt(Halt::MarkerMissing { end: changelog.end, seq: metadata.seq }));
        }
        if let Err(halt) = start::restore_from(None, changelog.from, metadata) {
            warn!(partition = self.task.partition, %halt, "a rebuild would lack states that this disk has: keep it");
        }
        Ok(())
    }

    fn open_and_plan(&self, offset: Option<i64>, metadata: Option<Metadata>) -> Result<Ready, RestoreError> {
        let task = self.task;
        let mut state = self.open()?;
        let local = state.store().local()?;
        let too_old_ms = now_ms() - DISCARD_AFTER_MS;
        let plan = start::plan(offset, metadata.as_ref(), local.as_ref(), too_old_ms, self.shared.partitions).map_err(|h| self.halt(h))?;
        info!(
            partition = task.partition,
            stored = local.as_ref().map(|local| local.seq),
            committed = metadata.as_ref().map(|metadata| metadata.seq),
            "a task starts {}",
            words(&plan)
        );
        let stays = matches!(plan, Plan::Ready(_) | Plan::Restore(Some(_)));
        if stays && local.as_ref().is_some_and(|local| local.due_index != DUE_INDEX) {
            info!(partition = task.partition, "the store was written without an index of what is due: it is made");
            state.rebuild_due()?;
        }
        match plan {
            Plan::Ready(next_offset) => {
                let marker_offset = local.as_ref().map_or(-1, |l| l.marker_offset);
                let time = local.map_or((0, None), |l| (l.stream_time_ms, l.sources));
                if let Some(metadata) = &metadata {
                    self.look_at_changelog(self.span()?, metadata, marker_offset)?;
                }
                Ok(ready(task, state, metadata, next_offset, marker_offset, None, time))
            }
            Plan::Restore(from) => {
                let (Some(offset), Some(metadata)) = (offset, metadata) else {
                    return Err(self.halt(Halt::ForeignOffset { marker: 0 }));
                };
                let whole = self.span()?;
                // Before anything is discarded: what the changelog lacks, the store may have.
                let (from, discard) = start::restore_from(from, whole.from, &metadata).map_err(|h| self.halt(h))?;
                let own = local.as_ref().filter(|local| local.history == metadata.history);
                if let Some(own) = own {
                    self.look_at_changelog(whole, &metadata, own.marker_offset)?;
                }
                if discard {
                    let worth = match (&local, own) {
                        (Some(_), None) => Some("it is of another life"),
                        (Some(_), Some(_)) if whole.from > 0 => Some("the changelog has lost its beginning"),
                        _ => None,
                    };
                    state = self.open_empty(state, worth)?;
                }
                let sources = local.and_then(|l| l.sources).filter(|_| !discard);
                let (marker, marker_offset, time) = self.apply_changelog(&mut state, Span { from, ..whole }, &metadata, sources)?;
                state.write(Some(&local_of(&marker, marker_offset, now_ms(), &time)))?;
                Ok(ready(task, state, Some(metadata), offset, marker_offset, Some((marker.rules, marker.flags)), time))
            }
            Plan::SearchMarker | Plan::Fresh | Plan::AtOffset(_) => {
                let whole = self.span()?;
                let newest = self.newest_marker(whole)?;
                let next_offset = match start::after_search(offset, newest.as_ref()).map_err(|h| self.halt(h))? {
                    Plan::AtOffset(offset) => offset,
                    _ => self.first_offset()?,
                };
                let state = self.open_empty(state, local.as_ref().map(|_| "it is of another life"))?;
                Ok(Ready { changelog_low: whole.from, ..ready(task, state, None, next_offset, -1, None, (0, None)) })
            }
        }
    }

    /// Applies a span of the changelog until the marker of the metadata. Values are absolute: applying one twice is harmless.
    /// On the way the store notes how far it is, at the markers of earlier commits: a restore that is cut off goes on there. In
    /// what Kafka has compacted none of them is left, so one that is cut off there begins again.
    fn apply_changelog(
        &self,
        state: &mut TaskState,
        span: Span<'_>,
        metadata: &Metadata,
        mut sources: Option<SourceTimes>,
    ) -> Result<(Marker, i64, Time), RestoreError> {
        let (partition, started_ms) = (self.task.partition, now_ms());
        let mut progress = Progress::new(&self.shared.metrics.restore, partition, span.from, span.end);
        let (mine, times) = (marker_key(None, partition), time_key(partition));
        let (mut found, mut is_ahead, mut refused) = (None, false, Refused::default());
        self.read_changelog(span, |record| {
            let Entry { key, value, offset, time_ms } = *record;
            let _ = failpoints::reach(Point::InRestore);
            progress.applied(offset, key.len() + value.map_or(0, <[u8]>::len));
            if found.is_some() {
                return Ok(refused.make_up(state, record)?);
            }
            if key == mine {
                let Some(marker) = self.marker(value, offset) else { return Ok(false) };
                let is_it = start::marker_met(&marker, metadata, self.shared.partitions).map_err(|h| self.halt(h))?;
                if is_it {
                    let time = (marker.stream_time_ms, sources.take());
                    found = Some((marker, offset, time));
                } else if marker.history == metadata.history && refused.is_empty() && std::mem::take(&mut is_ahead) {
                    let time = (marker.stream_time_ms, sources.clone());
                    // As old as the marker: tombstones that stand right behind it are no younger, and are gone some day.
                    state.write(Some(&local_of(&marker, offset, time_ms.min(started_ms), &time)))?;
                }
                return Ok(is_it && refused.is_empty());
            }
            if key == times {
                sources = value.and_then(|v| serde_json::from_slice(v).ok());
            } else if !key.starts_with(MARKER_PREFIX) && !key.starts_with(ROUTER_PREFIX) {
                // The store is ahead of what it says of itself until the next marker.
                match state.restore(key, value) {
                    Ok(was_written) => {
                        is_ahead |= was_written;
                        refused.is_replaced(key);
                    }
                    Err(StoreError::State { source, .. }) => refused.note(key, offset, source).map_err(|why| self.refused(why))?,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(false)
        })?;
        refused.into_first().map_or(Ok(()), |why| Err(self.refused(why)))?;
        found.ok_or_else(|| self.halt(Halt::MarkerMissing { end: span.end, seq: metadata.seq }))
    }

    fn refused(&self, (offset, source): (i64, StateError)) -> RestoreError {
        RestoreError::Record { partition: self.task.partition, offset, source }
    }

    /// A marker of ours. Another record under its key is passed by: the one that is looked for is known by its commit id.
    fn marker(&self, value: Option<&[u8]>, offset: i64) -> Option<Marker> {
        let ours = value.and_then(Marker::parse).filter(|marker| marker.app == self.shared.config.app.id);
        if ours.is_none() {
            warn!(partition = self.task.partition, offset, "passed by a record under a marker's key that is no marker of ours");
        }
        ours
    }

    fn newest_marker(&self, changelog: Span<'_>) -> Result<Option<Marker>, RestoreError> {
        let mut newest = None;
        let mine = marker_key((self.task.topic > 0).then(|| self.topic()), self.task.partition);
        self.read_changelog(changelog, |record| {
            if record.key == mine {
                newest = record.value.map(|value| (self.marker(Some(value), record.offset), record.offset));
            }
            Ok(false)
        })?;
        match newest {
            Some((None, offset)) => Err(self.halt(Halt::UnreadableMarker { offset })),
            Some((marker, _)) => Ok(marker),
            None => Ok(None),
        }
    }

    /// The records of the task's changelog partition up to the high watermark, taken once.
    fn span(&self) -> Result<Span<'_>, RestoreError> {
        let topic = &self.shared.changelog;
        let partition = self.task.partition.rem_euclid(self.shared.partitions.max(1));
        let (from, end) = self.ends(topic, partition)?;
        Ok(Span { topic, partition, from, end })
    }

    /// Shows the committed records of a span. `show` answers whether it has seen enough.
    fn read_changelog(&self, span: Span<'_>, show: impl FnMut(&Entry<'_>) -> Result<bool, RestoreError>) -> Result<(), RestoreError> {
        let patience = patience(&self.shared.config);
        changelog::read(&self.clients.committed, span, patience, || self.is_needless(), show).map_err(|error| match error {
            ReadError::Open if self.is_needless() => RestoreError::CalledOff(self.task.partition),
            ReadError::Open => RestoreError::Open { partition: span.partition, end: span.end },
            ReadError::Kafka(source) => self.kafka(source),
            ReadError::Shown(error) => error,
        })
    }
}

/// How a task starts, in the words of `state list`.
fn words(plan: &Plan) -> &'static str {
    match plan {
        Plan::Ready(_) => "at once",
        Plan::Restore(None) => "after the whole changelog",
        Plan::Restore(Some(_)) => "after what its store lacks of the changelog",
        Plan::Fresh | Plan::AtOffset(_) | Plan::SearchMarker => "without a state",
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn new_history() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

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
    let changelog_low = metadata.as_ref().map_or(0, |m| m.changelog_low);
    let (history, fingerprint) = metadata.map_or_else(|| (new_history(), String::new()), |m| (m.history, m.fingerprint));
    Ready {
        task,
        state: Some(state),
        committed,
        next_offset,
        history,
        digests,
        marker_offset,
        fingerprint,
        stream_time_ms,
        sources,
        topic_id: None,
        changelog_low,
    }
}

fn position(metadata: &Metadata, next_offset: i64) -> Committed {
    Committed { next_offset, seq: metadata.seq, commit_id: CommitId::from_hex(&metadata.commit_id).unwrap_or(CommitId(0)) }
}

/// What a store says of itself that stands at a marker.
fn local_of(marker: &Marker, marker_offset: i64, marker_time_ms: i64, (stream_time_ms, sources): &Time) -> Local {
    Local {
        history: marker.history.clone(),
        seq: marker.seq,
        commit_id: marker.commit_id.clone(),
        marker_offset,
        marker_time_ms,
        due_index: DUE_INDEX,
        stream_time_ms: *stream_time_ms,
        sources: sources.clone(),
    }
}
