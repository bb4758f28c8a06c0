//! What tests ask of a broker: topics, records in, committed records out, offsets.

use crate::kafka::Kafka;
use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const REQUEST_LIMIT: Duration = Duration::from_secs(15);
const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// A record to produce.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Key; decides the partition when none is given, as Java's clients do it.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Partition, or the key's.
    pub partition: Option<i32>,
    /// Timestamp, or now.
    pub timestamp_ms: Option<i64>,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// A record with a key and a value.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Record {
        Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() }
    }

    /// Into this partition, whatever the key.
    pub fn to_partition(self, partition: i32) -> Record {
        Record { partition: Some(partition), ..self }
    }

    /// With this timestamp.
    pub fn at_ms(self, timestamp_ms: i64) -> Record {
        Record { timestamp_ms: Some(timestamp_ms), ..self }
    }
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers in their order; a header without a value reads as empty.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Timestamp.
    pub timestamp_ms: Option<i64>,
}

impl OwnedRecord {
    /// The value of the last header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// The key as text; empty when there is none.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        let at = || format!("partition {} offset {} is no JSON", self.partition, self.offset);
        serde_json::from_slice(self.value.as_deref().unwrap_or_default()).with_context(at)
    }
}

/// The settings that every client of ours shares.
pub fn client_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("broker.address.family", "v4").set("reconnect.backoff.max.ms", "500");
    // A broker that is still starting refuses connections: that is expected, and not worth a line on stderr each time.
    config.set("log_level", "2");
    config
}

/// Waits until the broker answers a metadata request.
pub fn wait_for_metadata(bootstrap: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let consumer: BaseConsumer<Quiet> = client_config(bootstrap).set("reconnect.backoff.max.ms", "100").create_with_context(Quiet)?;
    loop {
        match consumer.fetch_metadata(None, Duration::from_millis(500).min(limit)) {
            Ok(metadata) if !metadata.brokers().is_empty() => return Ok(()),
            outcome if Instant::now() >= deadline => {
                let why = outcome.err().map_or("it lists no brokers".to_owned(), |e| e.to_string());
                bail!("no answer from {bootstrap} within {limit:?}: {why}")
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A client that keeps its connection errors to itself.
#[derive(Debug)]
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

/// Counts what the broker did not take.
#[derive(Debug, Default, Clone)]
pub(crate) struct Undelivered(Arc<AtomicU64>);

impl Undelivered {
    /// Records so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl ClientContext for Undelivered {}

impl ProducerContext for Undelivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Kafka {
    /// Settings of a client of this broker.
    pub fn client_config(&self) -> ClientConfig {
        client_config(self.bootstrap())
    }

    /// Creates a topic and waits until every partition of it has a leader.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let admin: AdminClient<_> = self.client_config().create()?;
        let topic = settings
            .iter()
            .fold(NewTopic::new(name, partitions, TopicReplication::Fixed(1)), |topic, (setting, value)| topic.set(setting, value));
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT)).request_timeout(Some(REQUEST_LIMIT));
        let outcomes = block_on(admin.create_topics([&topic], &options))?.with_context(|| format!("could not create topic {name}"))?;
        for outcome in outcomes {
            outcome.map_err(|(topic, code)| anyhow::anyhow!("could not create topic {topic}: {code}"))?;
        }
        let consumer: BaseConsumer = self.client_config().create()?;
        crate::wait_until(REQUEST_LIMIT, &format!("leaders of topic {name}"), || {
            partitions_of(&consumer, name).is_ok_and(|found| found.len() == partitions as usize)
        })
    }

    /// Deletes a topic and waits until it is gone.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let admin: AdminClient<_> = self.client_config().create()?;
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT)).request_timeout(Some(REQUEST_LIMIT));
        for outcome in block_on(admin.delete_topics(&[name], &options))?.with_context(|| format!("could not delete topic {name}"))? {
            outcome.map_err(|(topic, code)| anyhow::anyhow!("could not delete topic {topic}: {code}"))?;
        }
        crate::wait_until(REQUEST_LIMIT, &format!("topic {name} is gone"), || self.end_offsets(name).is_err())
    }

    /// Gives a topic these settings, and no others of its own.
    pub fn alter_topic(&self, name: &str, settings: &[(&str, &str)]) -> Result<()> {
        let admin: AdminClient<_> = self.client_config().create()?;
        let specifier = ResourceSpecifier::Topic(name);
        let change = settings.iter().fold(AlterConfig::new(specifier), |change, (setting, value)| change.set(setting, value));
        let options = AdminOptions::new().request_timeout(Some(REQUEST_LIMIT));
        for outcome in block_on(admin.alter_configs([&change], &options))?.with_context(|| format!("could not alter topic {name}"))? {
            outcome.map_err(|(_, code)| anyhow::anyhow!("could not alter topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// Produces the records, idempotently and in order, and waits until the broker has them all; how many there were.
    pub fn produce_all(&self, topic: &str, records: impl IntoIterator<Item = Record>) -> Result<u64> {
        let undelivered = Undelivered::default();
        let mut config = self.client_config();
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "5");
        config.set("message.max.bytes", "16000000").set("batch.size", "1000000").set("queue.buffering.max.messages", "500000");
        let producer: BaseProducer<Undelivered> = config.create_with_context(undelivered.clone())?;
        let mut sent = 0;
        for record in records {
            enqueue(&producer, topic, &record)?;
            sent += 1;
            if sent % 1000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(FLUSH_LIMIT).with_context(|| format!("could not deliver {sent} records to {topic}"))?;
        let lost = undelivered.count();
        ensure!(lost == 0, "{lost} of {sent} records did not reach {topic}");
        Ok(sent)
    }

    /// Everything committed in a topic, partition by partition in offset order: what a read_committed consumer sees up to the
    /// last stable offset at the time of the call. Records behind an open transaction are not in it.
    pub fn read_committed(&self, topic: &str) -> Result<Vec<OwnedRecord>> {
        self.read(topic, "read_committed", Duration::from_secs(60))
    }

    /// The same without regard to transactions: what is in an aborted or open one is there too.
    pub fn read_uncommitted(&self, topic: &str) -> Result<Vec<OwnedRecord>> {
        self.read(topic, "read_uncommitted", Duration::from_secs(60))
    }

    fn read(&self, topic: &str, isolation: &str, limit: Duration) -> Result<Vec<OwnedRecord>> {
        let deadline = Instant::now() + limit;
        let mut config = self.client_config();
        config.set("group.id", crate::unique("reader")).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set("isolation.level", isolation).set("fetch.wait.max.ms", "10").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create()?;
        let mut ends = BTreeMap::new();
        let mut start = TopicPartitionList::new();
        for partition in partitions_of(&consumer, topic)? {
            let (low, end) = watermarks(&consumer, topic, partition)?;
            if end > low {
                ends.insert(partition, end);
                start.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&start)?;
        let mut records = Vec::new();
        let mut unread: BTreeSet<i32> = ends.keys().copied().collect();
        while !unread.is_empty() {
            if Instant::now() >= deadline {
                bail!("read {} records of {topic} within {limit:?}, but not to the end of partitions {unread:?}", records.len());
            }
            match consumer.poll(Duration::from_millis(100)) {
                // What was appended after the call is left out, so that two readers see the same.
                Some(Ok(message)) if message.offset() < ends[&message.partition()] => records.push(owned(&message)),
                // The partition's own end says it has been read: the last offsets may be markers, which nobody gets to see.
                Some(Ok(message)) => drop(unread.remove(&message.partition())),
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(unread.remove(&partition)),
                Some(Err(why)) => return Err(why).with_context(|| format!("could not read {topic}")),
                None => (),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    }

    /// The last stable offset of every partition: where a read_committed consumer ends.
    pub fn end_offsets(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let consumer: BaseConsumer = self.client_config().set("isolation.level", "read_committed").create()?;
        let end = |partition| Ok((partition, watermarks(&consumer, topic, partition)?.1));
        partitions_of(&consumer, topic)?.into_iter().map(end).collect()
    }

    /// The offsets that a group has committed; partitions without one are left out.
    pub fn committed_offsets(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let consumer: BaseConsumer = self.client_config().set("group.id", group).create()?;
        let mut asked = TopicPartitionList::new();
        for partition in partitions_of(&consumer, topic)? {
            asked.add_partition(topic, partition);
        }
        let committed = consumer.committed_offsets(asked, REQUEST_LIMIT).with_context(|| format!("could not read offsets of {group}"))?;
        let mut offsets = BTreeMap::new();
        for element in committed.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert(element.partition(), offset);
            }
        }
        Ok(offsets)
    }
}

/// Runs a client's future to its end, also when the caller is itself inside a runtime.
fn block_on<F: Future<Output: Send> + Send>(future: F) -> Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("could not build a runtime")?;
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(future)).join()).map_err(|_| anyhow::anyhow!("a client call panicked"))
}

/// The partitions of a topic; an error when it does not exist or one of them has no leader.
fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_LIMIT).with_context(|| format!("could not look up topic {topic}"))?;
    let found = metadata.topics().first().filter(|found| found.error().is_none() && !found.partitions().is_empty());
    let found = found.with_context(|| format!("there is no topic {topic}"))?;
    ensure!(found.partitions().iter().all(|p| p.leader() >= 0), "a partition of {topic} has no leader");
    Ok(found.partitions().iter().map(|p| p.id()).collect())
}

/// The first and the next offset of a partition. Metadata knows the leader of a new topic a moment before the leader does.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<(i64, i64)> {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition, UnknownTopicOrPartition};
    let deadline = Instant::now() + REQUEST_LIMIT;
    loop {
        match consumer.fetch_watermarks(topic, partition, REQUEST_LIMIT) {
            Err(KafkaError::MetadataFetch(NotLeaderForPartition | LeaderNotAvailable | UnknownTopicOrPartition))
                if Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            found => return found.with_context(|| format!("could not look up the offsets of {topic}/{partition}")),
        }
    }
}

/// A record as rdkafka sends it, whole: its headers too.
pub(crate) fn message<'a>(topic: &'a str, record: &'a Record) -> BaseRecord<'a, [u8], [u8]> {
    let mut message = BaseRecord::<[u8], [u8]>::to(topic);
    message.key = record.key.as_deref();
    message.payload = record.value.as_deref();
    message.partition = record.partition;
    message.timestamp = record.timestamp_ms;
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        message.headers = Some(record.headers.iter().fold(headers, |all, (key, value)| all.insert(Header { key, value: Some(value) })));
    }
    message
}

fn enqueue(producer: &BaseProducer<Undelivered>, topic: &str, record: &Record) -> Result<()> {
    let mut message = message(topic, record);
    let deadline = Instant::now() + FLUSH_LIMIT;
    loop {
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if Instant::now() < deadline => {
                producer.poll(Duration::from_millis(10));
                message = back;
            }
            Err((why, _)) => return Err(why).with_context(|| format!("could not produce to {topic}")),
        }
    }
}

fn owned(message: &impl Message) -> OwnedRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_owned())).collect()
    });
    OwnedRecord {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp_ms: message.timestamp().to_millis(),
    }
}
