//! What a redrive sends, where and in which order, and what it does not send; decided without a broker.

use super::index::Letter;
use crate::config::{Config, KeyedBy, Partitioner};
use crate::stream::partition::{crc32_partition, murmur2_partition};
use std::collections::BTreeMap;
use std::sync::Arc;
use tripline_core::dead_letter::LetterId;

/// Records of one transaction, at most.
const MOST_IN_BATCH: usize = 500;
/// Bytes of one transaction, at most; a larger record goes alone.
const MOST_BATCH_BYTES: usize = 8 << 20;

/// Why a dead letter is not redriven.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// It has a receipt.
    #[error("already redriven")]
    Redriven,
    /// The original was not copied.
    #[error("its value of {0} bytes was too large to copy: only the sender can send it again")]
    Truncated(u64),
    /// The original's headers were not copied.
    #[error("{0} bytes of its own headers were too many to copy: without them it would be another event")]
    HeadersLeftOut(u64),
    /// It failed often enough.
    #[error("attempt {0} failed, too: find out why, then allow more with --max-attempts")]
    Attempts(u32),
    /// Ticks are about the time at which they were sent.
    #[error("it is a tick: the next one of its router makes up for it, and this one's time is over")]
    Tick,
    /// Its source topic is none of this configuration's.
    #[error("its source topic {0} is not read with these settings (input.topics, app.id)")]
    NotRead(Arc<str>),
    /// Its source partition is gone.
    #[error("its source topic {0} has no partition {1} any more")]
    NoPartition(Arc<str>, i32),
}

/// The topics that dead letters come from, and how keys are laid out in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    keyed_topic: String,
    is_routed: bool,
    partitioner: Partitioner,
    /// Partitions of the topics that are read.
    partitions: BTreeMap<String, i32>,
}

impl Sources {
    /// The topics that are read: input topics, and observations when they are routed.
    pub fn topics(config: &Config) -> Vec<String> {
        let mut topics = config.input.topics.clone();
        topics.push(config.keyed_topic());
        topics.dedup();
        topics
    }

    /// With the partitions of [`Sources::topics`] as the cluster has them; one that does not exist is left out.
    pub fn new(config: &Config, partitions: BTreeMap<String, i32>) -> Sources {
        Sources {
            keyed_topic: config.keyed_topic(),
            is_routed: config.input.keyed_by == KeyedBy::None,
            partitioner: config.input.partitioner,
            partitions,
        }
    }

    /// The partition to send an original record to; `None` when there is none.
    ///
    /// The keyed topic: where the key belongs now, since the record counts nowhere else; the app may have grown since it was
    /// refused. Otherwise where the record was, which was the app's choice. When an app's topic is smaller now, it is where
    /// Java clients would put the key.
    pub fn partition_of(&self, topic: &str, source_partition: i32, key: Option<&[u8]>) -> Option<i32> {
        let partitions = *self.partitions.get(topic)?;
        let same = Some(source_partition).filter(|partition| (0..partitions).contains(partition));
        let key = key.filter(|key| !key.is_empty());
        match key {
            Some(key) if topic == self.keyed_topic && self.is_routed => Some(murmur2_partition(key, partitions)),
            Some(key) if topic == self.keyed_topic => Some(match self.partitioner {
                Partitioner::Murmur2 => murmur2_partition(key, partitions),
                Partitioner::Consistent => crc32_partition(key, partitions),
            }),
            _ if topic == self.keyed_topic => same,
            key => same.or_else(|| Some(murmur2_partition(key.unwrap_or_default(), partitions))),
        }
    }

    fn refusal(&self, letter: &Letter, max_attempts: u32) -> Option<Refusal> {
        let topic = &letter.source_topic;
        if letter.is_redriven {
            return Some(Refusal::Redriven);
        }
        if letter.is_tick && self.is_routed && topic.as_ref() == self.keyed_topic {
            return Some(Refusal::Tick);
        }
        if let Some(bytes) = letter.truncated {
            return Some(Refusal::Truncated(bytes));
        }
        if let Some(bytes) = letter.headers_left_out {
            return Some(Refusal::HeadersLeftOut(bytes));
        }
        if letter.attempt >= max_attempts {
            return Some(Refusal::Attempts(letter.attempt));
        }
        match self.partitions.get(&**topic) {
            None => Some(Refusal::NotRead(topic.clone())),
            // A key decides elsewhere, and is looked at when the record is.
            Some(_) if topic.as_ref() != self.keyed_topic || !self.is_routed => None,
            Some(_) if self.partition_of(topic, letter.source_partition, None).is_some() => None,
            Some(_) => Some(Refusal::NoPartition(topic.clone(), letter.source_partition)),
        }
    }
}

/// What a redrive does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To send, in this order.
    pub send: Vec<Letter>,
    /// Not to send.
    pub refused: Vec<(LetterId, Refusal)>,
    /// Would be sent, but for the limit.
    pub beyond_limit: usize,
}

impl Plan {
    /// Plans a redrive of at most `limit` dead letters, the oldest first.
    pub fn new<'l>(letters: impl Iterator<Item = &'l Letter>, sources: &Sources, max_attempts: u32, limit: usize) -> Plan {
        let mut plan = Plan::default();
        for letter in letters {
            match sources.refusal(letter, max_attempts) {
                Some(refusal) => plan.refused.push((letter.id, refusal)),
                None => plan.send.push(letter.clone()),
            }
        }
        plan.send = in_order(plan.send);
        plan.beyond_limit = plan.send.len().saturating_sub(limit);
        plan.send.truncate(limit);
        plan
    }

    /// What goes into one transaction each: at most `most` records, and no more than a transaction should hold.
    pub fn batches(&self, most: usize) -> impl Iterator<Item = &[Letter]> {
        let (most, mut rest) = (most.clamp(1, MOST_IN_BATCH), self.send.as_slice());
        std::iter::from_fn(move || {
            let mut bytes = 0usize;
            let fits = |letter: &&Letter| {
                bytes = bytes.saturating_add(letter.bytes);
                bytes <= MOST_BATCH_BYTES
            };
            let count = rest.iter().take(most).take_while(fits).count().max(1).min(rest.len());
            let (batch, after) = rest.split_at(count);
            rest = after;
            Some(batch).filter(|batch| !batch.is_empty())
        })
    }

    /// How many would go to each topic, by reason.
    pub fn by_topic_and_reason(&self) -> BTreeMap<(&str, &str), usize> {
        let mut counts = BTreeMap::new();
        for letter in &self.send {
            *counts.entry((&*letter.source_topic, &*letter.reason)).or_default() += 1;
        }
        counts
    }
}

/// As the originals were read: the order of each source partition is kept, and partitions go along with each other by time, so that
/// an entity whose records came in several of them is not late by the order of sending.
fn in_order(mut letters: Vec<Letter>) -> Vec<Letter> {
    letters.sort_by(|a, b| place(a).cmp(&place(b)));
    let mut reached: Vec<(i64, Letter)> = Vec::with_capacity(letters.len());
    for letter in letters {
        // A producer's clock may step back; within its partition the offset decides.
        let before = reached.last().filter(|(_, before)| partition(before) == partition(&letter)).map(|(reached_ms, _)| *reached_ms);
        reached.push((before.unwrap_or(i64::MIN).max(letter.source_timestamp_ms), letter));
    }
    reached.sort_by_key(|(reached_ms, _)| *reached_ms);
    reached.into_iter().map(|(_, letter)| letter).collect()
}

fn partition(letter: &Letter) -> (&str, i32) {
    (&letter.source_topic, letter.source_partition)
}

fn place(letter: &Letter) -> ((&str, i32), i64, LetterId) {
    (partition(letter), letter.source_offset, letter.id)
}

#[cfg(test)]
mod tests {
    use super::super::index::tests::{id, told};
    use super::super::index::{Filter, Index};
    use super::*;
    use crate::stream::client::tests::config;
    use tripline_core::dead_letter::{Kind, Stage, Told};

    fn routed() -> Sources {
        let partitions = [("app.requests", 4), ("app.events", 4), ("tripline.internal.observations", 6)];
        Sources::new(&config(), partitions.map(|(name, count)| (name.to_owned(), count)).into())
    }

    fn keyed(partitioner: Partitioner) -> Sources {
        let mut config = config();
        config.input.topics = vec!["app.requests".to_owned()];
        config.input.keyed_by = KeyedBy::Actor;
        config.input.partitioner = partitioner;
        Sources::new(&config, BTreeMap::from([("app.requests".to_owned(), 4)]))
    }

    fn plan_of(letters: &[Told<'_>], receipts: &[i64], limit: usize) -> Plan {
        let mut index = Index::new(Filter::default(), 10_000);
        for (offset, told) in letters.iter().enumerate() {
            index.see(id(0, offset as i64), 0, &Kind::Letter(told.clone()), 100, None);
        }
        for (at, offset) in receipts.iter().enumerate() {
            index.see(id(0, (letters.len() + at) as i64), 0, &Kind::Receipt(*offset), 0, None);
        }
        Plan::new(index.letters(), &routed(), 3, limit)
    }

    fn sent(plan: &Plan) -> Vec<i64> {
        plan.send.iter().map(|letter| letter.id.offset).collect()
    }

    #[test]
    fn what_cannot_or_should_not_be_sent_again_is_refused_with_the_way_out() {
        let observations = |partition| Told {
            source_topic: "tripline.internal.observations",
            stage: Stage::Detector,
            source_partition: partition,
            ..told(1)
        };
        let letters = [
            told(1),
            Told { truncated: Some(2_000_000), ..told(2) },
            Told { headers_left_out: Some(17_000), ..told(3) },
            Told { attempt: 3, ..told(4) },
            Told { attempt: 2, ..told(5) },
            Told { source_topic: "other.topic", ..told(6) },
            observations(5),
            observations(6),
            told(7),
        ];
        let plan = plan_of(&letters, &[8], 100);
        assert_eq!(sent(&plan), [0, 6, 4]);
        let refused: Vec<String> = plan.refused.iter().map(|(id, why)| format!("{id} {why}")).collect();
        assert_eq!(
            refused,
            [
                "0/1 its value of 2000000 bytes was too large to copy: only the sender can send it again",
                "0/2 17000 bytes of its own headers were too many to copy: without them it would be another event",
                "0/3 attempt 3 failed, too: find out why, then allow more with --max-attempts",
                "0/5 its source topic other.topic is not read with these settings (input.topics, app.id)",
                "0/7 its source topic tripline.internal.observations has no partition 6 any more",
                "0/8 already redriven",
            ]
        );
    }

    #[test]
    fn ticks_stay_and_an_event_whose_key_looks_like_one_goes_back() {
        let plan = |source_topic| {
            let mut index = Index::new(Filter::default(), 10);
            index.see(
                id(0, 0),
                0,
                &Kind::Letter(Told { source_topic, stage: Stage::Detector, ..told(1) }),
                100,
                Some(b"~tick/app.requests/0"),
            );
            Plan::new(index.letters(), &routed(), 3, 10)
        };
        assert_eq!(plan("tripline.internal.observations").refused, [(id(0, 0), Refusal::Tick)]);
        assert_eq!(sent(&plan("app.requests")), [0]);
    }

    #[test]
    fn originals_go_back_in_their_order_and_partitions_go_along_by_time() {
        let at = |partition, offset, ms| Told { source_partition: partition, source_timestamp_ms: ms, ..told(offset) };
        // The clock of partition 0 steps back after its first record.
        let letters = [at(1, 9, 350), at(0, 12, 200), at(0, 11, 300), at(0, 10, 100), at(1, 8, 150)];
        assert_eq!(sent(&plan_of(&letters, &[], 100)), [3, 4, 2, 1, 0]);
        let plan = plan_of(&letters, &[], 2);
        assert_eq!((sent(&plan), plan.beyond_limit), (vec![3, 4], 3), "the oldest first");
    }

    #[test]
    fn a_keyed_input_gets_each_key_where_its_partitioner_puts_it() {
        for (partitioner, place) in
            [(Partitioner::Murmur2, murmur2_partition as fn(&[u8], i32) -> i32), (Partitioner::Consistent, crc32_partition)]
        {
            for key in ["user:u1", "user:u2", "ip:10.0.0.1"] {
                let expected = Some(place(key.as_bytes(), 4));
                assert_eq!(keyed(partitioner).partition_of("app.requests", 9, Some(key.as_bytes())), expected, "{key}");
            }
            assert_eq!(keyed(partitioner).partition_of("app.requests", 3, None), Some(3));
            assert_eq!(keyed(partitioner).partition_of("app.requests", 4, Some(b"")), None);
        }
    }

    #[test]
    fn other_records_go_back_to_the_partition_they_came_from() {
        let key = Some(&b"u1"[..]);
        assert_eq!(routed().partition_of("app.requests", 3, key), Some(3));
        assert_eq!(routed().partition_of("app.requests", 7, key), Some(murmur2_partition(b"u1", 4)), "the topic is smaller now");
        let grown = Some(murmur2_partition(b"u1", 6));
        assert_eq!(routed().partition_of("tripline.internal.observations", 0, key), grown, "where the entity's state is now");
        assert_eq!(routed().partition_of("tripline.internal.observations", 6, None), None);
        assert_eq!(routed().partition_of("elsewhere", 0, key), None);
    }

    #[test]
    fn batches_are_bounded_in_records_and_bytes_and_leave_nothing_out() {
        let mut plan = plan_of(&(0..1_201).map(told).collect::<Vec<_>>(), &[], usize::MAX);
        let sizes = |plan: &Plan, most| plan.batches(most).map(<[Letter]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&plan, usize::MAX), [500, 500, 201]);
        assert_eq!(sizes(&plan, 1_000)[..2], [500, 500]);
        assert_eq!(sizes(&plan, 0).len(), 1_201);
        plan.send.truncate(4);
        for (letter, bytes) in plan.send.iter_mut().zip([6 << 20, 6 << 20, 9 << 20, 1]) {
            letter.bytes = bytes;
        }
        assert_eq!(sizes(&plan, 100), [1, 1, 1, 1]);
        assert_eq!(sizes(&Plan::default(), 100), Vec::<usize>::new());
    }
}
