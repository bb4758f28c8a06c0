//! Records read but not yet stored, by partition, so that a revoked partition's can be given back.

use super::intake::{self, Intake};
use super::row::EventRow;
use super::store::UnreadableRecord;
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tripline_core::time::format_rfc3339_ms;

/// A batch is written when its records reach this size, however few they are: the bound of the sink's memory.
const MAX_BYTES: usize = 4 << 20;

/// One partition's share of a batch.
#[derive(Debug, Default)]
pub struct Share {
    /// The offset to commit: one past the last record.
    pub next_offset: i64,
    /// Decisions with a signal.
    pub rows: Vec<EventRow>,
    /// Records to keep unread.
    pub unreadable: Vec<UnreadableRecord>,
    /// Decisions that are counted only.
    pub without_signal: u64,
}

impl Share {
    fn records(&self) -> u64 {
        self.rows.len() as u64 + self.unreadable.len() as u64 + self.without_signal
    }
}

/// Records on their way into one database transaction.
#[derive(Debug, Default)]
pub struct Batch {
    shares: BTreeMap<i32, Share>,
    /// Rows of either table.
    rows: usize,
    bytes: usize,
    opened: Option<Instant>,
}

impl Batch {
    /// Takes a record in. Answers why it is unreadable, if it is: the caller decides whether to log that.
    pub fn add(&mut self, record: &BorrowedMessage<'_>, now: Instant) -> Option<&'static str> {
        let record_ms = record.timestamp().to_millis();
        self.opened.get_or_insert(now);
        let share = self.shares.entry(record.partition()).or_default();
        share.next_offset = record.offset() + 1;
        let unreadable = match intake::read(record.payload(), record_ms) {
            Intake::WithoutSignal => {
                share.without_signal += 1;
                return None;
            }
            Intake::Event(row) => {
                share.rows.push(*row);
                None
            }
            Intake::Unreadable(why) => {
                share.unreadable.push(UnreadableRecord {
                    topic: record.topic().to_owned(),
                    partition: record.partition(),
                    offset: record.offset(),
                    created_at: format_rfc3339_ms(record_ms.unwrap_or(0)),
                    reason: why.reason,
                    detail: why.detail,
                    key: record.key().map(<[u8]>::to_owned),
                    value: record.payload().map(<[u8]>::to_owned),
                });
                Some(why.reason)
            }
        };
        self.rows += 1;
        self.bytes += record.payload_len() + record.key_len();
        unreadable
    }

    /// Drops the records of partitions that another member owns now, and says how many they were.
    /// Their offsets are not committed, so that the new owner reads them.
    pub fn give_back(&mut self, partitions: &[i32]) -> u64 {
        let dropped: Vec<Share> = partitions.iter().filter_map(|p| self.shares.remove(p)).collect();
        self.rows -= dropped.iter().map(|share| share.rows.len() + share.unreadable.len()).sum::<usize>();
        if self.shares.is_empty() {
            *self = Batch::default();
        }
        dropped.iter().map(Share::records).sum()
    }

    /// Time to write it.
    pub fn is_due(&self, max_rows: usize, max_age: Duration, now: Instant) -> bool {
        self.rows >= max_rows || self.bytes >= MAX_BYTES || self.due_in(max_age, now).is_some_and(|left| left.is_zero())
    }

    /// How long until its age alone makes it due; `None` when it is empty.
    pub fn due_in(&self, max_age: Duration, now: Instant) -> Option<Duration> {
        self.opened.map(|opened| (opened + max_age).saturating_duration_since(now))
    }

    /// Each partition's share.
    pub fn shares(&self) -> &BTreeMap<i32, Share> {
        &self.shares
    }

    /// No record in it.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// Needs no database: nothing but offsets to commit.
    pub fn has_no_rows(&self) -> bool {
        self.rows == 0
    }

    /// All records in it.
    pub fn records(&self) -> u64 {
        self.shares.values().map(Share::records).sum()
    }
}
