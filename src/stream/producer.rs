//! A lane's transactional producer, and what its errors mean.
//!
//! Two traps of the binding are avoided here: committing while records are un-acknowledged waits in steps of 100 ms, so the
//! lane drains first; and aborting needs delivery reports to be served meanwhile, so the producer polls on a thread of its own.
//!
//! A third is made harmless: the client sends a request again when its connection breaks or its time is up, and the first one may
//! still be on its way. Brokers tell transactions of one producer epoch not apart, so a late commit or abort ends a *later*
//! transaction, and late offsets replace its own (KAFKA-17754). A producer that may have sent one twice is
//! [suspect](LaneProducer::is_suspect): building it anew raises the epoch, which the broker refuses late requests of.

use super::{access, queues};
use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, TopicPartitionList};
use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, warn};
use tripline_core::protocol::Failure;

/// Wait of the client before it sends a request again, before jitter. librdkafka waits at least 80 % of it
/// before a second EndTxn, and always 500 ms before a second TxnOffsetCommit.
const RETRY_BACKOFF: Duration = Duration::from_millis(500);
/// A step that was answered sooner was sent once: less than the least wait before a second try.
const SENT_ONCE_WITHIN: Duration = Duration::from_millis(375);
const _: () = assert!(SENT_ONCE_WITHIN.as_millis() * 100 < RETRY_BACKOFF.as_millis() * 80);

/// Tag of a record whose place nobody asks for.
pub const UNTAGGED: usize = 0;

/// What the delivery reports of the open transaction said.
#[derive(Debug, Default)]
struct Reports {
    failed: Option<RDKafkaErrorCode>,
    /// Tag, offset.
    placed: Vec<(usize, i64)>,
}

/// Collects delivery reports.
#[derive(Debug, Clone, Default)]
pub struct Deliveries(Arc<Mutex<Reports>>);

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        match result {
            Ok(_) if tag == UNTAGGED => {}
            Ok(message) => self.lock().placed.push((tag, message.offset())),
            Err((KafkaError::MessageProduction(code), _)) => self.lock().failed = Some(*code),
            Err(_) => self.lock().failed = Some(RDKafkaErrorCode::Fail),
        }
    }
}

impl Deliveries {
    fn lock(&self) -> std::sync::MutexGuard<'_, Reports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record to produce; the partition is always ours to choose.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Timestamp of the record that caused it, milliseconds.
    pub timestamp_ms: i64,
    /// Headers.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Answered with the offset by [`LaneProducer::placed`]; [`UNTAGGED`] for none.
    pub tag: usize,
}

/// Why a record was not produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// It is larger than any topic takes: producing it again would end the same way.
    TooLarge,
    /// The transaction failed.
    Failed(Failure),
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Failure {
        match error {
            SendError::TooLarge => Failure::Abortable,
            SendError::Failed(failure) => failure,
        }
    }
}

/// The producer of one lane.
pub struct LaneProducer {
    inner: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
    timeout: Duration,
    is_suspect: Cell<bool>,
}

impl std::fmt::Debug for LaneProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaneProducer")
    }
}

impl LaneProducer {
    /// Builds the producer and fences every earlier one of the same id; a transaction it left open is aborted by that. Its
    /// records have at most `largest_bytes` each, and all that wait have `memory_bytes`.
    pub fn connect(
        base: &ClientConfig,
        transactional_id: &str,
        timeout: Duration,
        largest_bytes: usize,
        memory_bytes: usize,
    ) -> Result<LaneProducer, KafkaError> {
        let mut config = base.clone();
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            .set("message.max.bytes", largest_bytes.to_string())
            .set("compression.type", "lz4")
            .set("linger.ms", "2")
            // Both: the smaller one counts.
            .set("retry.backoff.ms", RETRY_BACKOFF.as_millis().to_string())
            .set("retry.backoff.max.ms", (2 * RETRY_BACKOFF).as_millis().to_string())
            .set("sticky.partitioning.linger.ms", "0");
        queues::bound_producer(&mut config, memory_bytes);
        let deliveries = Deliveries::default();
        let inner: ThreadedProducer<Deliveries> = config.create_with_context(deliveries.clone())?;
        inner.init_transactions(timeout.max(Duration::from_secs(10)))?;
        Ok(LaneProducer { inner, deliveries, timeout, is_suspect: Cell::new(false) })
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<(), Failure> {
        *self.deliveries.lock() = Reports::default();
        self.inner.begin_transaction().map_err(|e| triage("begin", &e))
    }

    /// Produces a record. A full queue is waited for, at most as long as the transaction may last.
    pub fn send(&self, record: &Outgoing<'_>) -> Result<(), SendError> {
        let deadline = Instant::now() + self.timeout;
        let mut base: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(record.topic, record.tag).partition(record.partition).timestamp(record.timestamp_ms);
        if let Some(key) = record.key {
            base = base.key(key);
        }
        if let Some(value) = record.value {
            base = base.payload(value);
        }
        if !record.headers.is_empty() {
            let headers = record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(*value) })
            });
            base = base.headers(headers);
        }
        loop {
            match self.inner.send(base) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                    base = again;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    warn!(topic = record.topic, "a record is larger than the topic takes");
                    return Err(SendError::TooLarge);
                }
                Err((error, _)) => {
                    if self.refusal().is_none() {
                        warn!(topic = record.topic, %error, "could not produce");
                    }
                    return Err(SendError::Failed(if self.inner.client().fatal_error().is_some() {
                        Failure::InDoubt
                    } else {
                        Failure::Abortable
                    }));
                }
            }
        }
    }

    /// Waits until every record is acknowledged.
    pub fn drain(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        while self.inner.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return Err(Failure::InDoubt);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        match self.deliveries.lock().failed {
            None => Ok(()),
            Some(code) => {
                if self.refusal().is_none() {
                    warn!(%code, "a record could not be delivered, the transaction is aborted");
                }
                Err(if self.inner.client().fatal_error().is_some() { Failure::InDoubt } else { Failure::Abortable })
            }
        }
    }

    /// Offsets of the tagged records of this transaction, once it is drained.
    pub fn placed(&self) -> Vec<(usize, i64)> {
        std::mem::take(&mut self.deliveries.lock().placed)
    }

    /// Adds the input offsets. A call that may be tried again is tried again with the same arguments, within the timeout.
    pub fn send_offsets(&self, offsets: &TopicPartitionList, group: &ConsumerGroupMetadata) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.watched(|| self.inner.send_offsets_to_transaction(offsets, group, self.timeout)) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(e)) if e.is_retriable() && Instant::now() < deadline => {
                    self.is_suspect.set(true);
                    std::thread::sleep(Duration::from_millis(20))
                }
                // Normal around a rebalance: the group moved on between two looks at it. Not worth a warning.
                Err(error) => return Err(triage("send offsets", &error)),
            }
        }
    }

    /// Commits. The wait is bounded by the transaction timeout, not by ours: a shorter one would lose track of the outcome.
    pub fn commit(&self) -> Result<(), Failure> {
        let committed = self.watched(|| self.inner.commit_transaction(rdkafka::util::Timeout::Never));
        committed.map_err(|e| {
            // It may have been sent, and nobody knows whether it has arrived.
            self.is_suspect.set(true);
            triage("commit", &e)
        })
    }

    /// Aborts.
    pub fn abort(&self) -> Result<(), Failure> {
        self.watched(|| self.inner.abort_transaction(self.timeout)).map_err(|e| triage("abort", &e))
    }

    /// Does a step whose request must not arrive in a later transaction.
    fn watched<T>(&self, step: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = step();
        if started.elapsed() >= SENT_ONCE_WITHIN {
            self.is_suspect.set(true);
        }
        done
    }

    /// Whether a request of an ended transaction may still be on its way: no transaction may begin with this producer.
    ///
    /// Told by the clock, which cannot miss one: between two tries the client waits longer than a step may take here. A broker that
    /// is only slow is suspected, too; that costs a new producer, for a step that took longer than that costs.
    pub fn is_suspect(&self) -> bool {
        self.is_suspect.get()
    }

    /// Why the open transaction has failed, if Kafka refused it. Not for a transaction that is well.
    ///
    /// What librdkafka remembers as the reason comes with the next call that it cannot allow: records that it purges say only
    /// that they were purged. Beginning is such a call, and changes nothing in a transaction that has begun; where none has, the
    /// abort that follows every failure ends the one it begins.
    pub fn refusal(&self) -> Option<RDKafkaErrorCode> {
        match self.inner.begin_transaction() {
            Err(KafkaError::Transaction(error)) => Some(error.code()).filter(|code| access::is_refusal_code(*code)),
            _ => None,
        }
    }

    /// Whether this producer was fenced by another with the same id.
    pub fn is_fenced(&self) -> bool {
        matches!(
            self.inner.client().fatal_error(),
            Some((RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch, _))
        )
    }
}

fn triage(step: &'static str, error: &KafkaError) -> Failure {
    debug!(step, %error, "transaction step failed");
    match error {
        KafkaError::Transaction(e) if !e.is_fatal() && e.txn_requires_abort() => Failure::Abortable,
        _ => Failure::InDoubt,
    }
}
