//! A task that runs: its states, how far it came, and what the open transaction did to it.

use super::intake::Progress;
use super::time::{Heard, Stuck};
use super::*;
use crate::state::DUE_INDEX;
use tripline_core::protocol::start::{OutputCounts, Work};
use tripline_core::stream_time::SourceTimes;

/// A task that runs.
#[derive(Debug)]
pub(super) struct Task {
    /// `None` for a router partition.
    pub(super) state: Option<TaskState>,
    pub(super) history: String,
    /// The next offset to process, in the open transaction.
    pub(super) next: i64,
    /// The committed next offset: the first that the open transaction may touch.
    pub(super) committed_next: i64,
    /// Told to the protocol as touched in the open transaction.
    pub(super) touched: bool,
    /// Fingerprint of the last record, and of the last committed one; `None` until a record was processed here.
    pub(super) last: Option<u64>,
    pub(super) last_committed: Option<u64>,
    /// The fingerprint that the committed metadata had when the task was restored.
    pub(super) found_fingerprint: String,
    /// The input topic's id, as it was when the task started.
    pub(super) topic_id: Option<String>,
    /// As in the metadata.
    pub(super) changelog_low: i64,
    /// Newest record time, milliseconds: the stream time of a task with one source. In the open transaction, and committed.
    pub(super) stream_time_ms: i64,
    /// Greatest reference time of an observation since the start, milliseconds: the clock by which states are deleted. Not
    /// the record's own time, which in routed mode is the present also while an old backlog is read.
    pub(super) input_time_ms: i64,
    committed_time_ms: i64,
    /// Routed mode, while rules need time: the sources. `former` is what is committed, if the open transaction changed them.
    pub(super) sources: Option<SourceTimes>,
    former: Option<Option<SourceTimes>>,
    /// A router partition: what its next tick says.
    pub(super) heard: Heard,
    /// Hints that failed.
    pub(super) stuck: Stuck,
    /// Offset of the newest marker, and the commit it belongs to.
    pub(super) marker_offset: i64,
    /// The auditor's header in the open transaction: task/seq/commit_id.
    pub(super) commit: String,
    /// What the open transaction wrote for this task: its marker says so, and the auditor counts it again.
    pub(super) written: OutputCounts,
    pub(super) digests: Option<(String, String)>,
    /// What the open transaction's marker says; counts once it is committed.
    pub(super) sealed_digests: Option<(String, String)>,
    /// Where polling shall go on: set until the seek is done.
    pub(super) seek: Option<i64>,
    pub(super) paused: bool,
    /// A router partition that is paused because observations wait.
    pub(super) held: bool,
    pub(super) progress: Progress,
    pub(super) local: Option<Local>,
    pub(super) unwritten_since: Option<Instant>,
}

impl Task {
    pub(super) fn new(ready: Ready) -> Task {
        Task {
            state: ready.state,
            history: ready.history,
            next: ready.next_offset,
            committed_next: ready.next_offset,
            touched: false,
            last: None,
            last_committed: None,
            found_fingerprint: ready.fingerprint,
            topic_id: ready.topic_id,
            changelog_low: ready.changelog_low,
            stream_time_ms: ready.stream_time_ms,
            input_time_ms: 0,
            committed_time_ms: ready.stream_time_ms,
            sources: ready.sources,
            former: None,
            heard: Heard::default(),
            stuck: Stuck::default(),
            marker_offset: ready.marker_offset,
            commit: String::new(),
            written: OutputCounts::default(),
            digests: ready.digests,
            sealed_digests: None,
            seek: None,
            paused: true,
            held: false,
            progress: Progress::default(),
            local: None,
            unwritten_since: None,
        }
    }

    /// Whether its records come.
    pub(super) fn flows(&self) -> bool {
        self.seek.is_none() && !self.paused
    }

    pub(super) fn rewind(&mut self, offset: i64) {
        self.next = offset;
        self.seek = Some(offset);
        // The seek ends every pause.
        self.held = false;
    }

    pub(super) fn forget(&mut self) {
        if let Some(state) = &mut self.state {
            state.abort();
        }
        (self.touched, self.written) = (false, OutputCounts::default());
        self.last = self.last_committed;
        self.stream_time_ms = self.committed_time_ms;
        if let Some(former) = self.former.take() {
            self.sources = former;
        }
        self.heard.abort();
    }

    /// Takes in what a tick said, as part of the open transaction.
    pub(super) fn hear(&mut self, sources: SourceTimes) {
        let former = self.sources.replace(sources);
        self.former.get_or_insert(former);
    }

    /// Bytes of committed encodings that are not in RocksDB yet.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.state.as_ref().map_or(0, TaskState::unwritten_bytes)
    }

    pub(super) fn is_write_due(&self, now: Instant, interval: Duration) -> bool {
        let full = self.state.as_ref().is_some_and(TaskState::is_full);
        full || self.unwritten_since.is_some_and(|since| now.duration_since(since) >= interval)
    }

    /// Changed states, then the marker, to the task's changelog partition; an epoch when rules or flags changed.
    pub(super) fn seal(
        &mut self,
        shared: &Shared,
        producer: &LaneProducer,
        engine: &Engine,
        id: TaskId,
        target: Committed,
        tag: usize,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let timestamp_ms = self.stream_time_ms;
        let partition = id.partition.rem_euclid(shared.partitions.max(1));
        let record = |key: &str, value: Option<&[u8]>, tag: usize| {
            producer.send(&Outgoing {
                topic: &shared.changelog,
                partition,
                key: Some(key.as_bytes()),
                value,
                timestamp_ms,
                headers: &[],
                tag,
            })
        };
        let mut states = 0;
        if let Some(state) = &mut self.state {
            states = state.encode(|entity, bytes| {
                tally.changelog_records += 1;
                tally.changelog_bytes += (entity.len() + bytes.map_or(0, <[u8]>::len)) as u64;
                record(entity, bytes, UNTAGGED)
            })?;
        }
        if let Some(sources) = self.sources.as_ref().filter(|_| self.former.is_some()) {
            let (key, value) = (restore::time_key(id.partition), serde_json::to_vec(sources).map_err(|_| Failure::Abortable)?);
            tally.changelog_records += 1;
            tally.changelog_bytes += (key.len() + value.len()) as u64;
            record(&key, Some(&value), UNTAGGED)?;
        }
        let digests = (engine.rules.digest.clone(), engine.flags_digest.clone());
        let marker = Marker {
            v: LAYOUT,
            app: shared.config.app.id.clone(),
            history: self.history.clone(),
            seq: target.seq,
            commit_id: target.commit_id.to_hex(),
            next_offset: target.next_offset,
            stream_time_ms: self.stream_time_ms,
            partitions: shared.partitions,
            rules: digests.0.clone(),
            flags: digests.1.clone(),
            states,
            decisions: self.written.decisions,
            work: Some(Work { first_offset: self.committed_next, outputs: self.written }),
            moved_from: None,
        };
        let key = restore::marker_key((id.topic > 0).then(|| shared.topic(id)), id.partition);
        let value = serde_json::to_vec(&marker).map_err(|_| Failure::Abortable)?;
        tally.changelog_records += 1;
        tally.changelog_bytes += (key.len() + value.len()) as u64;
        record(&key, Some(&value), tag)?;
        if id.topic == 0 && self.digests.as_ref() != Some(&digests) {
            self.epoch(shared, producer, id, target, &digests)?;
        }
        self.sealed_digests = Some(digests);
        Ok(())
    }

    /// The digests of rules and flags that decided this task's records up to here from the last commit on.
    pub(super) fn epoch(
        &self,
        shared: &Shared,
        producer: &LaneProducer,
        id: TaskId,
        target: Committed,
        digests: &(String, String),
    ) -> Result<(), Failure> {
        let epoch = serde_json::json!({
            "v": LAYOUT, "task": id.partition, "topic": shared.topic(id), "seq": target.seq, "first_offset": self.committed_next,
            "rules": digests.0, "flags": digests.1,
        });
        let key = restore::marker_key(None, id.partition);
        let (topic, value) = (shared.config.epochs_topic(), epoch.to_string());
        let record = Outgoing {
            topic: &topic,
            partition: 0,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            timestamp_ms: self.stream_time_ms,
            headers: &[],
            tag: UNTAGGED,
        };
        Ok(producer.send(&record)?)
    }

    pub(super) fn apply(&mut self, committed: Committed, cache_budget: usize) {
        if let Some(state) = &mut self.state {
            state.commit(cache_budget);
            self.unwritten_since.get_or_insert_with(Instant::now);
            self.local = Some(Local {
                history: self.history.clone(),
                seq: committed.seq,
                commit_id: committed.commit_id.to_hex(),
                marker_offset: self.marker_offset,
                marker_time_ms: jiff::Timestamp::now().as_millisecond(),
                due_index: DUE_INDEX,
                stream_time_ms: self.stream_time_ms,
                sources: None,
            });
        }
        self.digests = self.sealed_digests.take().or(self.digests.take());
        self.next = committed.next_offset;
        self.committed_next = committed.next_offset;
        (self.touched, self.written) = (false, OutputCounts::default());
        self.last_committed = self.last;
        self.committed_time_ms = self.stream_time_ms;
        self.former = None;
        self.heard.commit();
    }

    pub(super) fn write(&mut self) -> Result<bool, crate::state::StoreError> {
        let (Some(state), Some(mut local)) = (&mut self.state, self.local.take()) else { return Ok(false) };
        // Between transactions only: what stands here is committed.
        local.sources = self.sources.clone();
        self.unwritten_since = None;
        state.write(Some(&local))?;
        Ok(true)
    }
}
