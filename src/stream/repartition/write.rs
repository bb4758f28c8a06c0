//! The one transaction of the move.

use super::fold::Folded;
use super::homes::{Homes, placed};
use super::plan::{self, Plan};
use super::{RepartitionError, Request, Scene, Unread, broken, connect};
use crate::config::Start;
use crate::stream::changelog::{self, Span};
use crate::stream::failpoints::{self, Point};
use crate::stream::group::Found;
use crate::stream::headers::headers_of;
use crate::stream::partition::murmur2_partition;
use crate::stream::producer::{LaneProducer, Outgoing, SendError, UNTAGGED};
use crate::stream::restore::{self, format_fingerprint, marker_key, patience, time_key};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use tracing::warn;
use tripline_core::protocol::start::{LAYOUT, Marker, Metadata, OutputCounts, Work};
use tripline_core::protocol::{CommitId, Failure};
use tripline_core::stream_time::SourceTimes;
use tripline_core::tick::Tick;

/// What was unread in the keyed topic.
#[derive(Debug, Default)]
pub struct Passed {
    /// Observations.
    pub observations: u64,
    /// Ticks; nobody misses them.
    pub ticks: u64,
    /// The fingerprint of the last record of each partition that had one.
    fingerprints: BTreeMap<i32, String>,
}

/// Reads what no task has read and shows the observations among it, with the partition of their key, in the order of each
/// partition: an entity's are all in one.
pub fn unread(
    scene: &Scene<'_>,
    plan: &Plan,
    spans: &[Unread],
    mut show: impl FnMut(i32, &BorrowedMessage<'_>) -> Result<(), RepartitionError>,
) -> Result<Passed, RepartitionError> {
    let mut passed = Passed::default();
    if !scene.is_routed() {
        return Ok(passed);
    }
    for unread in spans {
        let span = span_of(scene, unread);
        let mut last = None;
        let show = |record: &BorrowedMessage<'_>| {
            last = Some(restore::fingerprint(record));
            if Tick::is_tick(record.key()) {
                passed.ticks += 1;
            } else {
                passed.observations += 1;
                show(murmur2_partition(record.key().unwrap_or_default(), plan.to), record)?;
            }
            Ok(false)
        };
        changelog::read_records(&scene.committed, span, patience(scene.config), || false, show)
            .map_err(|error| scene.read_error(&span, error))?;
        passed.fingerprints.extend(last.map(|last| (unread.partition, format_fingerprint(last))));
    }
    Ok(passed)
}

/// Keyed mode: a record that is unread where its key will not be any more has to be read first, for nobody but its owner may
/// write it again. Those that stay, and those of producers that know the new number, are read afterwards.
pub fn require_read(scene: &Scene<'_>, plan: &Plan, unread: &Unread) -> Result<(), RepartitionError> {
    let span = span_of(scene, unread);
    let refuse = |record: &BorrowedMessage<'_>| {
        let home = placed(scene.config.input.partitioner, record.key().unwrap_or_default(), plan.to);
        if home == unread.partition {
            return Ok(false);
        }
        Err(RepartitionError::Unread { topic: scene.keyed.clone(), partition: unread.partition, offset: record.offset() })
    };
    changelog::read_records(&scene.committed, span, patience(scene.config), || false, refuse)
        .map_err(|error| scene.read_error(&span, error))
}

fn span_of<'s>(scene: &'s Scene<'_>, unread: &Unread) -> Span<'s> {
    Span { topic: &scene.keyed, partition: unread.partition, from: unread.from, end: unread.end }
}

/// Everything that the transaction is made of.
pub struct Move<'a> {
    pub scene: &'a Scene<'a>,
    pub plan: &'a Plan,
    pub homes: Homes,
    pub folded: &'a [Folded],
}

impl Move<'_> {
    /// Writes and commits; when nobody knows what became of the commit, it is looked up.
    pub fn write(&self, producer: LaneProducer, generation: &ConsumerGroupMetadata, request: Request) -> Result<Passed, RepartitionError> {
        let attempt = CommitId(uuid::Uuid::new_v4().as_u128());
        // Before the first record of ours: what is written here is not unread.
        let spans = self.scene.spans(self.plan, request.leave_unread)?;
        match self.attempt(&producer, generation, attempt, &spans) {
            Ok(passed) => Ok(passed),
            Err(Trouble::Other(error)) => {
                let _ = producer.abort();
                Err(RepartitionError::Unwritten { why: error.to_string() })
            }
            Err(Trouble::Transaction(Failure::Abortable, step)) => {
                let _ = producer.abort();
                Err(RepartitionError::Unwritten { why: format!("Kafka refused to {step}") })
            }
            Err(Trouble::Transaction(Failure::InDoubt, step)) => {
                drop(producer);
                self.look_up(attempt, request, spans, step)
            }
        }
    }

    /// A producer with the same id ends what is open; then the offsets tell.
    fn look_up(&self, attempt: CommitId, request: Request, spans: Vec<Unread>, step: &'static str) -> Result<Passed, RepartitionError> {
        let unwritten = |why: String| RepartitionError::Unwritten { why };
        connect(self.scene.config, request).map_err(|error| unwritten(format!("nobody knows yet: {error}")))?;
        let found = self.scene.offsets(&[(&self.scene.keyed, 0)]).map_err(|error| unwritten(format!("nobody knows yet: {error}")))?;
        match found.first().and_then(Found::metadata) {
            // Read again only to tell how many they were.
            Some(metadata) if metadata.commit_id == attempt.to_hex() => Ok(unread(self.scene, self.plan, &spans, |_, _| Ok(()))
                .inspect_err(|error| warn!(%error, "it is done, but how many unread observations were written again is not known"))
                .unwrap_or_default()),
            _ => Err(unwritten(format!("Kafka did not answer the request to {step}"))),
        }
    }

    fn attempt(
        &self,
        producer: &LaneProducer,
        generation: &ConsumerGroupMetadata,
        attempt: CommitId,
        spans: &[Unread],
    ) -> Result<Passed, Trouble> {
        let step = |step| move |failure| Trouble::Transaction(failure, step);
        producer.begin().map_err(step("begin"))?;
        failpoints::reach(Point::AfterBegin).map_err(step("begin"))?;
        let states = self.states(producer)?;
        let passed = unread(self.scene, self.plan, spans, |partition, record| {
            let headers: Vec<(&str, &[u8])> = headers_of(record).filter_map(|(name, value)| Some((name, value?))).collect();
            let timestamp_ms = record.timestamp().to_millis().unwrap_or(0);
            let (key, value) = (record.key(), record.payload());
            let sent = producer.send(&Outgoing {
                topic: &self.scene.keyed,
                partition,
                key,
                value,
                timestamp_ms,
                headers: &headers,
                tag: UNTAGGED,
            });
            sent.map_err(|error| RepartitionError::Unwritten { why: format!("an observation was refused: {error:?}") })
        })
        .map_err(Trouble::Other)?;
        failpoints::reach(Point::BeforeSeal).map_err(step("write the states"))?;
        let mut offsets = TopicPartitionList::new();
        self.tasks(producer, attempt, spans, &states, &passed, &mut offsets)?;
        self.routers(producer, attempt, &mut offsets)?;
        failpoints::reach(Point::AfterChangelog).map_err(step("write the markers"))?;
        producer.drain().map_err(step("take the records"))?;
        failpoints::reach(Point::AfterDrain).map_err(step("take the records"))?;
        producer.send_offsets(&offsets, generation).map_err(step("take the offsets; the group may have moved on"))?;
        failpoints::reach(Point::AfterSendOffsets).map_err(step("take the offsets"))?;
        producer.commit().map_err(step("commit"))?;
        failpoints::reach(Point::AfterCommit).map_err(step("commit"))?;
        Ok(passed)
    }

    /// The states that move, and tombstones where they were; how many records that is for each task.
    fn states(&self, producer: &LaneProducer) -> Result<Vec<u64>, Trouble> {
        let mut written = vec![0; self.plan.to as usize];
        for (partition, task) in (0..).zip(self.folded) {
            let timestamp_ms = task.marker.stream_time_ms;
            task.each(|entity, bytes| {
                let home = self.homes.of(entity, self.plan.to).ok_or(Trouble::Other(broken("a state whose key names no entity")))?;
                if home != partition {
                    self.changelog(producer, home, entity, Some(bytes), timestamp_ms)?;
                    self.changelog(producer, partition, entity, None, timestamp_ms)?;
                    for task in [home, partition] {
                        written[task as usize] += 1;
                    }
                }
                Ok::<_, Trouble>(())
            })?;
        }
        Ok(written)
    }

    /// Source times and a marker for every task, and its offset.
    fn tasks(
        &self,
        producer: &LaneProducer,
        attempt: CommitId,
        spans: &[Unread],
        states: &[u64],
        passed: &Passed,
        offsets: &mut TopicPartitionList,
    ) -> Result<(), Trouble> {
        for partition in 0..self.plan.to {
            let sources: Vec<&Folded> = self.plan.sources_of(partition).filter_map(|p| self.folded.get(p as usize)).collect();
            let own = self.folded.get(partition as usize);
            let stream_time_ms = sources.iter().map(|task| task.marker.stream_time_ms).min().unwrap_or(0);
            // Whoever has not heard of any source has not heard of all of them.
            let heard: Option<Vec<&SourceTimes>> = sources.iter().map(|task| task.sources.as_ref()).collect();
            let heard = heard.and_then(SourceTimes::least_of);
            if heard.is_some() || own.is_some_and(|task| task.sources.is_some()) {
                let value = heard.map(|times| serde_json::to_vec(&times)).transpose().map_err(|_| not_json())?;
                self.changelog(producer, partition, &time_key(partition), value.as_deref(), stream_time_ms)?;
            }
            let next_offset = self.next_offset(partition, spans);
            // What was unread counts as taken: it is written again.
            let first_offset = self.plan.life(partition).and(self.plan.offset(partition)).unwrap_or(next_offset);
            let fingerprint = passed.fingerprints.get(&partition).cloned();
            let metadata = plan::next(self.plan.life(partition), attempt, self.plan.to, fingerprint);
            let digests = own.map(|task| (task.marker.rules.clone(), task.marker.flags.clone())).unwrap_or_default();
            let marker = Marker {
                stream_time_ms,
                rules: digests.0,
                flags: digests.1,
                states: states.get(partition as usize).copied().unwrap_or(0),
                ..marker(&self.scene.config.app.id, &metadata, (first_offset, next_offset), self.plan.from)
            };
            self.mark(producer, partition, &marker_key(None, partition), &marker)?;
            add(offsets, &self.scene.keyed, partition, next_offset, &metadata)?;
        }
        Ok(())
    }

    /// Routed mode: behind what was unread, for it is written again. Keyed mode: where the task stands, or the beginning of a
    /// partition that is new.
    fn next_offset(&self, partition: i32, spans: &[Unread]) -> i64 {
        let span = spans.get(partition as usize);
        if self.scene.is_routed() { span.map_or(0, |span| span.end) } else { span.map_or(0, |span| span.from) }
    }

    /// A marker for every router partition, where it is looked for from now on, and its offset. One that was never read begins
    /// where a worker would have begun: a worker that still thinks of the old number finds none that it may begin.
    fn routers(&self, producer: &LaneProducer, attempt: CommitId, offsets: &mut TopicPartitionList) -> Result<(), Trouble> {
        for router in &self.plan.routers {
            let next_offset = match &router.committed {
                Some((offset, _)) => *offset,
                None => {
                    let (low, high) = self.scene.ends(&router.topic, router.partition).map_err(Trouble::Other)?;
                    let is_read = |other: &&plan::Router| other.topic == router.topic && other.committed.is_some();
                    let was_added = self.plan.routers.iter().filter(is_read).any(|other| other.partition < router.partition);
                    if was_added || self.scene.config.input.start == Start::Earliest { low } else { high }
                }
            };
            let metadata = plan::next(router.committed.as_ref().map(|(_, metadata)| metadata), attempt, self.plan.to, None);
            let key = marker_key(Some(&router.topic), router.partition);
            let before = router.was(self.plan.from).max(1);
            let (was, is) = (router.partition.rem_euclid(before), router.partition.rem_euclid(self.plan.to));
            // A topic that was away since before the app was made anew with fewer partitions has no marker to take away.
            if was != is && was < self.plan.to {
                self.changelog(producer, was, &key, None, 0)?;
            }
            self.mark(producer, is, &key, &marker(&self.scene.config.app.id, &metadata, (next_offset, next_offset), before))?;
            add(offsets, &router.topic, router.partition, next_offset, &metadata)?;
        }
        Ok(())
    }

    fn mark(&self, producer: &LaneProducer, partition: i32, key: &str, marker: &Marker) -> Result<(), Trouble> {
        let value = serde_json::to_vec(marker).map_err(|_| not_json())?;
        self.changelog(producer, partition, key, Some(&value), marker.stream_time_ms)
    }

    fn changelog(
        &self,
        producer: &LaneProducer,
        partition: i32,
        key: &str,
        value: Option<&[u8]>,
        timestamp_ms: i64,
    ) -> Result<(), Trouble> {
        let topic = &self.scene.changelog;
        let record = Outgoing { topic, partition, key: Some(key.as_bytes()), value, timestamp_ms, headers: &[], tag: UNTAGGED };
        Ok(producer.send(&record)?)
    }
}

/// A marker without what a task alone knows.
fn marker(app: &str, metadata: &Metadata, (first_offset, next_offset): (i64, i64), moved_from: i32) -> Marker {
    Marker {
        v: LAYOUT,
        app: app.to_owned(),
        history: metadata.history.clone(),
        seq: metadata.seq,
        commit_id: metadata.commit_id.clone(),
        next_offset,
        partitions: metadata.partitions,
        work: Some(Work { first_offset, outputs: OutputCounts::default() }),
        moved_from: Some(moved_from),
        ..Marker::default()
    }
}

fn add(offsets: &mut TopicPartitionList, topic: &str, partition: i32, offset: i64, metadata: &Metadata) -> Result<(), Trouble> {
    let text = serde_json::to_string(metadata).map_err(|_| not_json())?;
    let mut element = offsets.add_partition(topic, partition);
    element.set_offset(Offset::Offset(offset)).map_err(|_| Trouble::Other(broken("an offset that is none")))?;
    element.set_metadata(text);
    Ok(())
}

/// Why the transaction did not come to its end.
enum Trouble {
    /// Kafka, at this step.
    Transaction(Failure, &'static str),
    Other(RepartitionError),
}

fn not_json() -> Trouble {
    Trouble::Other(broken("a marker that is no JSON"))
}

impl From<SendError> for Trouble {
    fn from(error: SendError) -> Trouble {
        Trouble::Transaction(error.into(), "take a record")
    }
}

impl From<crate::state::StoreError> for Trouble {
    fn from(error: crate::state::StoreError) -> Trouble {
        Trouble::Other(error.into())
    }
}
