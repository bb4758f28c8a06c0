//! What the sink counts. The outcomes add up: `read` = the sum of [`SinkCounters::outcomes`] whenever the sink rests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the sink role, for the metric table.
#[derive(Debug, Default)]
pub struct SinkCounters {
    /// Records polled.
    pub read: AtomicU64,
    /// Outcome: a new row.
    pub stored: AtomicU64,
    /// Outcome: the decision was there already; nothing changed.
    pub repeated: AtomicU64,
    /// Outcome: nothing had fired (`decisions.emit: all`); not stored.
    pub without_signal: AtomicU64,
    /// Outcome: kept in `unreadable_records`.
    pub unreadable: AtomicU64,
    /// Outcome: given back unstored, because the partition was revoked or the sink stopped; its next owner reads it again.
    pub given_back: AtomicU64,
    /// Batches settled.
    pub batches: AtomicU64,
    /// Attempts to use the database that failed.
    pub database_failures: AtomicU64,
    /// Offset commits that failed; the records are read again, and a repeat changes nothing.
    pub commit_failures: AtomicU64,
    /// Times that Kafka refused for want of a right or of good credentials; the client tries again.
    pub refusals: AtomicU64,
}

impl SinkCounters {
    /// The outcomes of a record, by the word that a metric's label uses.
    pub fn outcomes(&self) -> [(&'static str, u64); 5] {
        [
            ("stored", self.stored.load(Ordering::Relaxed)),
            ("repeated", self.repeated.load(Ordering::Relaxed)),
            ("without_signal", self.without_signal.load(Ordering::Relaxed)),
            ("unreadable", self.unreadable.load(Ordering::Relaxed)),
            ("given_back", self.given_back.load(Ordering::Relaxed)),
        ]
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
