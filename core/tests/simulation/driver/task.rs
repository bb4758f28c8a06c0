//! As `src/stream/lane/task.rs`: a task that runs.

use super::restore::{Ready, marker_key};
use super::states::States;
use super::*;
use crate::disk::{Damaged, Store};
use tripline_core::protocol::Committed;
use tripline_core::protocol::start::{LAYOUT, Local, Marker};

/// See the module.
pub struct Task {
    pub states: States,
    pub history: String,
    /// The next offset to process, in the open transaction.
    pub next: i64,
    pub is_touched: bool,
    pub stream_time_ms: i64,
    pub input_time_ms: i64,
    /// Both as of the last commit: an aborted transaction has heard of nothing.
    committed_time_ms: (i64, i64),
    pub marker_offset: i64,
    pub commit: Rc<str>,
    pub decisions: u64,
    pub seek: Option<i64>,
    pub is_paused: bool,
    local: Option<Local>,
    /// Commits until the store is written.
    write_in: usize,
}

impl Task {
    pub(super) fn new(ready: Ready) -> Task {
        Task {
            states: ready.states,
            history: ready.history,
            next: ready.next_offset,
            is_touched: false,
            stream_time_ms: ready.stream_time_ms,
            input_time_ms: 0,
            committed_time_ms: (ready.stream_time_ms, 0),
            marker_offset: ready.marker_offset,
            commit: "".into(),
            decisions: 0,
            seek: None,
            is_paused: true,
            local: None,
            write_in: 0,
        }
    }

    pub(super) fn rewind(&mut self, offset: i64) {
        self.next = offset;
        self.seek = Some(offset);
    }

    pub(super) fn forget(&mut self, bug: Option<Bug>) {
        if bug == Some(Bug::CacheKeptAfterAbort) {
            self.states.abort_and_keep_the_cache()
        } else {
            self.states.abort()
        }
        (self.is_touched, self.decisions) = (false, 0);
        self.stream_time_ms = self.committed_time_ms.0;
        if bug != Some(Bug::InputTimeKeptAfterAbort) {
            self.input_time_ms = self.committed_time_ms.1;
        }
    }

    pub(super) fn is_write_due(&self) -> bool {
        self.states.is_full() || (self.local.is_some() && self.write_in == 0)
    }

    /// Changed states, then the marker, to the task's changelog partition.
    pub(super) async fn seal(&mut self, producer: &mut Producer, id: TaskId, target: Committed, tag: usize) -> Result<(), Failure> {
        let (at, timestamp_ms) = ((Topic::Changelog, id.partition), self.stream_time_ms);
        let states = if id.topic == 0 { self.states.encode() } else { BTreeMap::new() };
        let count = states.len() as u64;
        for (key, bytes) in states {
            if bytes.is_none() {
                producer.shared().saw(Seen::StateDeleted);
            }
            let value = bytes.map_or(Value::Tombstone, Value::Bytes);
            producer.send(at, Record { key, value, timestamp_ms }, 0).await?;
        }
        let marker = Marker {
            v: LAYOUT,
            app: "simulation".into(),
            history: self.history.clone(),
            seq: target.seq,
            commit_id: target.commit_id.to_hex(),
            next_offset: target.next_offset,
            stream_time_ms: self.stream_time_ms,
            partitions: crate::world::PARTITIONS,
            rules: String::new(),
            flags: String::new(),
            states: count,
            decisions: self.decisions,
            work: None,
            moved_from: None,
        };
        let value = Value::Bytes(serde_json::to_vec(&marker).map_err(|_| Failure::Abortable)?.into());
        producer.send(at, Record { key: marker_key(id).into(), value, timestamp_ms }, tag).await
    }

    pub(super) fn apply(&mut self, id: TaskId, committed: Committed, shared: &Shared) {
        if id.topic == 0 {
            self.states.commit();
            if self.local.is_none() {
                self.write_in = [1, 2, 1, 4][shared.world().choices.pick(About::Process, 4)];
            }
            self.write_in = self.write_in.saturating_sub(1);
            self.local = Some(Local {
                history: self.history.clone(),
                seq: committed.seq,
                commit_id: committed.commit_id.to_hex(),
                marker_offset: self.marker_offset,
                marker_time_ms: 0,
                due_index: 1,
                stream_time_ms: self.stream_time_ms,
                sources: None,
            });
        }
        self.next = committed.next_offset;
        (self.is_touched, self.decisions) = (false, 0);
        self.committed_time_ms = (self.stream_time_ms, self.input_time_ms);
    }

    pub(super) fn write(&mut self, store: &mut Store) -> Result<(), Damaged> {
        let Some(local) = self.local.take() else { return Ok(()) };
        self.states.write(store, Some(&local))
    }
}
