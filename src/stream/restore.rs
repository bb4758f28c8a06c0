//! Brings a task's state to its committed position, beside the lane, which goes on working meanwhile.
//!
//! A few threads per lane ([`pool`]), each with clients of its own (see [`changelog`](super::changelog)), so that one task
//! that has to wait does not hold up the others. What to do is decided by [`tripline_core::protocol::start`]; [`job`] does
//! it: the offset, the store, the changelog behind the store.

mod clients;
mod job;
mod pool;
mod progress;
mod refused;

pub use pool::start;
pub use refused::Refused;

use super::access;
use super::group::Pending;
use crate::config::Config;
use crate::state::TaskState;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tripline_core::hash;
use tripline_core::protocol::start::Halt;
use tripline_core::protocol::{Committed, TaskId};
use tripline_core::state::StateError;
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
#[derive(Debug, Clone)]
pub struct Request {
    /// Which.
    pub task: TaskId,
    /// The lane's number of this request for this task.
    pub generation: u64,
    /// The local store was found to be of no use: it is set aside first, and then this is no longer set.
    pub spoiled: Arc<AtomicBool>,
    /// Set by the lane when nobody waits for the answer any more.
    pub called_off: Arc<AtomicBool>,
}

impl Request {
    fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::Relaxed)
    }

    fn is_called_off(&self) -> bool {
        self.called_off.load(Ordering::Relaxed)
    }
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
    /// The input topic's id, if the brokers know ids.
    pub topic_id: Option<String>,
    /// As in the metadata.
    pub changelog_low: i64,
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
    #[error(transparent)]
    Pending(Pending),
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
    /// A record of the changelog is not one of ours.
    #[error(
        "changelog partition {partition}, offset {offset}: {source}; a newer version wrote it, or somebody else (see `tripline acls print`); to do without that entity's state, write a record with its key and a null value behind it"
    )]
    Record {
        /// The partition.
        partition: i32,
        /// The record.
        offset: i64,
        /// What is wrong with it.
        #[source]
        source: StateError,
    },
    /// The group's offset is not in the topic.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// Another owner committed while the task was restored.
    #[error("the committed offset of partition {0} moved while it was restored")]
    Moved(i32),
    /// A fault of ours.
    #[error("the restore of partition {0} panicked: please report it with the log")]
    Panicked(i32),
    /// Nobody waits for it any more.
    #[error("the restore of partition {0} was called off")]
    CalledOff(i32),
}

/// A committed offset that the topic does not have, or not any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the committed offset {offset} of {topic}/{partition} is outside what the topic has ({low}..{high}): records were deleted before they were read, or the topic was made anew; to go on with what is there, stop every worker and run `tripline state adopt --topic {topic} --partition {partition} --offset earliest`"
)]
pub struct OutOfRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The committed offset.
    pub offset: i64,
    /// First offset there is.
    pub low: i64,
    /// End of the partition.
    pub high: i64,
}

impl OutOfRange {
    /// That an offset lies between the ends of its partition.
    pub fn check(topic: &str, partition: i32, offset: i64, (low, high): (i64, i64)) -> Result<(), OutOfRange> {
        if (low..=high).contains(&offset) { Ok(()) } else { Err(OutOfRange { topic: topic.to_owned(), partition, offset, low, high }) }
    }
}

/// What an operator can do about it, unless the reason says so itself.
fn way_out(topic: &str, partition: i32, halt: &Halt) -> String {
    match halt {
        Halt::Partitions { .. } | Halt::Newer { .. } | Halt::UnreadableMarker { .. } => String::new(),
        Halt::ChangelogCut { .. } => {
            format!("; restore the topic, or go on with what is left: `tripline state adopt --topic {topic} --partition {partition}`")
        }
        _ => format!("; if the changelog is right, run `tripline state adopt --topic {topic} --partition {partition}`"),
    }
}

impl RestoreError {
    /// Whether Kafka refused for want of a right or of good credentials.
    pub fn is_refusal(&self) -> bool {
        matches!(self, RestoreError::Kafka { source, .. } if access::is_refusal(source))
    }
}

/// How long an open transaction may hold up what is read: until it ended or timed out. Brokers look for those that timed out every ten
/// seconds (`transaction.abort.timed.out.transaction.cleanup.interval.ms`), and then write a marker to each partition.
pub fn patience(config: &Config) -> Duration {
    2 * config.stream.transaction_timeout.0 + Duration::from_secs(15)
}

/// Half of the changelog's `delete.retention.ms` (7 days): a store older than this may hold entities whose tombstones are gone.
pub const DISCARD_AFTER_MS: i64 = 7 * 86_400_000 / 2;

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
