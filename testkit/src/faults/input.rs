//! What the stream looks at around the decoder, as the oracle sees it: the length of a value, and on a keyed input whether a record
//! stands where its actor's state is.

use crate::client::OwnedRecord;
use rdkafka::bindings::rd_kafka_msg_partitioner_murmur2;
use std::ptr::{null, null_mut};
use tripline_core::entity::Entity;
use tripline_core::event::Event;
use tripline_core::event::cloud::ContentMode;
use tripline_core::rejection::{Reason, Rejection};

/// `input.max_value_bytes`: the default, which a line leaves as it is.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Whether a value is so long that nobody decodes it.
pub fn is_too_large(record: &OwnedRecord) -> bool {
    record.value.as_ref().is_some_and(|value| value.len() > MAX_VALUE_BYTES)
}

/// The event of an input record.
///
/// # Errors
/// Why it is none.
pub fn decode(record: &OwnedRecord) -> Result<Event<'_>, Rejection> {
    if is_too_large(record) {
        let bytes = record.value.as_ref().map_or(0, Vec::len);
        let detail = format!("{bytes} bytes, the limit is {MAX_VALUE_BYTES} (input.max_value_bytes)");
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    let headers = record.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice())));
    Event::decode_record(record.value.as_deref(), ContentMode::of_headers(headers), None)
}

/// On an input that is keyed by the actor: the key names the actor, and the partition is the key's.
///
/// # Errors
/// Which of the two is wrong.
pub fn check_place(record: &OwnedRecord, actor: &Entity<'_>, partitions: i32) -> Result<(), Rejection> {
    let key = record.key.as_deref().unwrap_or_default();
    if !actor.is_named_by(key) {
        return Err(Rejection::new(Reason::Misrouted, "the key is not the event's actor (input.keyed_by)"));
    }
    match partition_of(key, partitions) {
        home if home == record.partition => Ok(()),
        home => Err(Rejection::new(Reason::Misrouted, format!("the key belongs to partition {home} (input.partitioner)"))),
    }
}

/// Where librdkafka itself puts a key by the partitioner of Java's clients: the product's own arithmetic is what is judged.
fn partition_of(key: &[u8], partitions: i32) -> i32 {
    // SAFETY: it reads `key.len()` bytes of the key and hands on the three pointers that say whose topic it is, which a partitioner
    // that asks for no topic's state does not look at.
    unsafe { rd_kafka_msg_partitioner_murmur2(null(), key.as_ptr().cast(), key.len(), partitions.max(1), null_mut(), null_mut()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::malformed::{self, Sample};
    use std::collections::BTreeMap;

    const PARTITIONS: i32 = 4;

    fn record(sample: Sample) -> OwnedRecord {
        let Sample { key, value, headers, .. } = sample;
        let partition = partition_of(key.as_deref().unwrap_or_default(), PARTITIONS);
        OwnedRecord { partition, offset: 0, key, value, headers, timestamp_ms: None }
    }

    fn judge(record: &OwnedRecord) -> Result<(), Rejection> {
        let event = decode(record)?;
        check_place(record, &Entity::actor(event.user_id.as_deref(), event.ip_address.as_deref()), PARTITIONS)
    }

    /// The reason of each kind that is dead-lettered, as the page has it; `None` is processed.
    fn table() -> BTreeMap<&'static str, Option<&'static str>> {
        let row = |line: &'static str| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`'));
            let (kind, outcome, reason) = (cells.next()?, cells.nth(1)?, cells.next()?);
            Some((kind, (outcome == "dead-lettered").then_some(reason)))
        };
        include_str!("../../../docs/bad-input.md").lines().filter_map(row).collect()
    }

    #[test]
    fn every_sample_has_the_outcome_of_the_table() {
        let table = table();
        for kind in malformed::KINDS {
            for sample in malformed::samples(kind) {
                let what = sample.what.clone();
                assert_eq!(judge(&record(sample)).err().map(|rejection| rejection.reason.name()), table[kind], "{what}");
            }
        }
    }

    #[test]
    fn a_record_in_another_partition_than_its_keys_is_misrouted_and_the_right_one_is_named() {
        let good = record(malformed::samples("unknown_field").remove(0));
        assert_eq!(judge(&good), Ok(()));
        let home = good.partition;
        let moved = OwnedRecord { partition: (home + 1) % PARTITIONS, ..good };
        let rejection = judge(&moved).expect_err("it is not at home");
        assert_eq!(rejection.to_string(), format!("misrouted: the key belongs to partition {home} (input.partitioner)"));
    }

    /// Known answers of Apache Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn a_key_has_the_partition_that_javas_clients_give_it() {
        for (key, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("abc", 479_470_107)] {
            assert_eq!(partition_of(key.as_bytes(), 12), (hash & i32::MAX) % 12, "{key}");
        }
    }
}
