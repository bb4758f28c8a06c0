//! How far a restore has come, for the log and the metrics.

use crate::telemetry::metrics::RestoreMetrics;
use std::time::{Duration, Instant};
use tracing::info;

/// Time between two lines about one restore.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// One task's way through its changelog.
#[derive(Debug)]
pub struct Progress<'m> {
    metrics: &'m RestoreMetrics,
    partition: i32,
    started: Instant,
    said: Instant,
    records: u64,
    bytes: u64,
    /// Offsets left, as last added to the gauge.
    left: i64,
    /// The high watermark that bounds the search.
    end: i64,
}

impl<'m> Progress<'m> {
    /// Begins: offsets `from` until `end` of the partition are to be read.
    pub fn new(metrics: &'m RestoreMetrics, partition: i32, from: i64, end: i64) -> Progress<'m> {
        let (now, left) = (Instant::now(), (end - from).max(0));
        metrics.remaining.inc_by(left);
        Progress { metrics, partition, started: now, said: now, records: 0, bytes: 0, left, end }
    }

    /// A record was applied.
    pub fn applied(&mut self, offset: i64, bytes: usize) {
        (self.records, self.bytes) = (self.records + 1, self.bytes + bytes as u64);
        // The clock and the gauge are not asked for every record.
        if self.records.is_multiple_of(1_024) {
            self.set_left((self.end - offset - 1).max(0));
            if self.said.elapsed() >= SAY_EVERY {
                self.said = Instant::now();
                self.say("restoring");
            }
        }
    }

    fn set_left(&mut self, left: i64) {
        self.metrics.remaining.inc_by(left - self.left);
        self.left = left;
    }

    fn say(&self, what: &str) {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        info!(
            partition = self.partition,
            records = self.records,
            bytes = self.bytes,
            offsets_left = self.left,
            seconds = (seconds * 10.0).round() / 10.0,
            records_per_second = (self.records as f64 / seconds) as u64,
            "{what}"
        );
    }
}

impl Drop for Progress<'_> {
    /// However it ended, nothing of it is left to do.
    fn drop(&mut self) {
        self.set_left(0);
        self.metrics.records.inc_by(self.records);
        self.metrics.bytes.inc_by(self.bytes);
        if self.records > 0 {
            self.say("restore ended");
        }
    }
}
