//! What the queues inside librdkafka may hold: its settings for a share of the memory budget.
//!
//! Its own bounds count the values of records only. What else a record takes (bookkeeping, key, headers, the response or the
//! request that it travels in) is a multiple of that for small ones, so numbers of records are bounded, too.

use crate::config::memory::QUEUE_FACTOR;
use rdkafka::ClientConfig;

/// What a record in a consumer's queue takes beside its value, bytes.
const FETCHED_OVERHEAD: usize = 512;
/// As much for a producer's: a decision has nine headers.
const PRODUCED_OVERHEAD: usize = 2_048;
/// librdkafka does not fetch less at once than a producer's batch may be (`message.max.bytes` of the client).
const LEAST_FETCH: usize = 1_000_000;
const LEAST_RECORDS: usize = 500;

/// Bounds a consumer. Fetching pauses at either bound, but an answer that is on its way comes on top: compressed it has a
/// sixteenth at most, per broker.
pub fn bound_consumer(config: &mut ClientConfig, bytes: usize) {
    let records = (bytes / QUEUE_FACTOR / FETCHED_OVERHEAD).max(LEAST_RECORDS);
    config
        .set("queued.max.messages.kbytes", (bytes / QUEUE_FACTOR / 1_000).max(1).to_string())
        .set("queued.min.messages", records.to_string())
        .set("fetch.max.bytes", (bytes / 16).max(LEAST_FETCH).to_string());
}

/// Bounds a producer: at either bound `send` waits.
pub fn bound_producer(config: &mut ClientConfig, bytes: usize) {
    let records = (bytes / 2 / PRODUCED_OVERHEAD).max(LEAST_RECORDS);
    config
        .set("queue.buffering.max.kbytes", (bytes / QUEUE_FACTOR).div_ceil(1_024).to_string())
        .set("queue.buffering.max.messages", records.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(config: &ClientConfig, name: &str) -> usize {
        config.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    #[test]
    fn values_and_what_comes_with_them_stay_inside_the_share() {
        for bytes in [8 << 20, 32 << 20, 256 << 20] {
            let mut consumer = ClientConfig::new();
            bound_consumer(&mut consumer, bytes);
            let held =
                number(&consumer, "queued.max.messages.kbytes") * 1_000 + number(&consumer, "queued.min.messages") * FETCHED_OVERHEAD;
            assert!(held <= bytes / 2, "{bytes}: {held}");
            // JSON comes to a fifth or so: what one broker's answer becomes.
            assert!(held + 4 * number(&consumer, "fetch.max.bytes") <= bytes, "{bytes}");
            let mut producer = ClientConfig::new();
            bound_producer(&mut producer, bytes);
            let values = number(&producer, "queue.buffering.max.kbytes") * 1_024;
            assert!(2 * values + number(&producer, "queue.buffering.max.messages") * PRODUCED_OVERHEAD <= bytes, "{bytes}");
        }
    }

    #[test]
    fn the_largest_record_of_the_least_share_fits_into_the_queue() {
        let largest = 3 * (1 << 20) + 64 * 1024;
        let mut producer = ClientConfig::new();
        bound_producer(&mut producer, QUEUE_FACTOR * largest);
        assert!(number(&producer, "queue.buffering.max.kbytes") * 1_024 >= largest);
    }
}
