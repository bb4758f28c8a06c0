//! Reading one changelog partition: what is committed, up to the high watermark.
//!
//! It takes two clients, for a client's isolation level decides which end of a partition it is told: one reads committed
//! data and the group's offsets, the other only knows where the partition really ends.

use super::{access, queues};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Keeps quiet: whoever asks says what failed.
pub struct Quiet;
impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, message, "client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "client");
    }
}
impl ConsumerContext for Quiet {}

/// Events that a client is heard for at a time.
const HEARD: usize = 256;

/// Lets a client that is only asked say what it logs and complains of: until somebody polls, it keeps all of it.
pub fn hear<C: ConsumerContext>(consumer: &BaseConsumer<C>) {
    for _ in 0..HEARD {
        // Nothing is assigned, so no record comes; whether Kafka can be reached the next question tells.
        let _ = consumer.poll(Duration::ZERO);
    }
}

/// What a client gets to see, and which end of a partition it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Committed records and stable offsets.
    Committed,
    /// High watermarks, whatever is open below them.
    Uncommitted,
}

/// What a client that only asks, or reads a few records, needs for those that it fetches ahead, bytes.
pub const FEW: usize = 1 << 20;
/// What a client of a verb that reads whole partitions takes for records that it fetches ahead, bytes.
pub const MANY: usize = 32 << 20;

/// A client that reads as `group` without being a member of it. Records that it has fetched ahead take `memory_bytes`.
pub fn client(base: &ClientConfig, group: &str, isolation: Isolation, memory_bytes: usize) -> KafkaResult<BaseConsumer<Quiet>> {
    let isolation = if isolation == Isolation::Committed { "read_committed" } else { "read_uncommitted" };
    let mut config = base.clone();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.queue.backoff.ms", "5");
    queues::bound_consumer(&mut config, memory_bytes);
    config.create_with_context(Quiet)
}

/// Which records to read.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The high watermark, taken once: reading ends before it.
    pub end: i64,
}

/// Why a span was not read to its end. `E` is what the reader of the records found.
#[derive(Debug)]
pub enum ReadError<E> {
    /// For too long nothing came, though the end was not reached; or the process stops.
    Open,
    /// The client refused.
    Kafka(KafkaError),
    /// The records were refused.
    Shown(E),
}

/// A record of the changelog.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its key; empty when it is no text.
    pub key: &'a str,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its place.
    pub offset: i64,
    /// When the broker appended it, milliseconds; as far as the topic is `LogAppendTime`.
    pub time_ms: i64,
}

/// How long the ends of a partition are asked for, and one question: partitions change their leaders, and new ones have none for a
/// moment.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
const ENDS_ASKED: Duration = Duration::from_secs(5);
const ENDS_PAUSE: Duration = Duration::from_millis(200);
/// A partition that is not there is asked for so often: a broker that has just started may not know it yet.
const ABSENT_TRIES: usize = 5;
const ABSENT: [RDKafkaErrorCode; 3] =
    [RDKafkaErrorCode::UnknownPartition, RDKafkaErrorCode::UnknownTopic, RDKafkaErrorCode::UnknownTopicOrPartition];

/// The first offset of a partition that is still there, and the next one to be written.
pub fn ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    is_stopping: impl Fn() -> bool,
) -> KafkaResult<(i64, i64)> {
    let deadline = Instant::now() + ENDS_WITHIN;
    let mut tries = 0;
    loop {
        tries += 1;
        let answer = consumer.fetch_watermarks(topic, partition, ENDS_ASKED);
        let Err(error) = &answer else { return answer };
        let is_absent = error.rdkafka_error_code().is_some_and(|code| ABSENT.contains(&code)) && tries >= ABSENT_TRIES;
        if is_absent || access::is_refusal(error) || is_stopping() || Instant::now() >= deadline {
            return answer;
        }
        debug!(topic, partition, %error, "the ends of a partition are not known yet, asking again");
        std::thread::sleep(ENDS_PAUSE);
        // A client goes by what it knew of a topic that has grown since; this it learns from.
        let _ = consumer.fetch_metadata(Some(topic), ENDS_ASKED);
    }
}

/// How long the leader of a partition is asked for, before it is left to the client to find it.
const LEADER_WITHIN: Duration = Duration::from_secs(1);

/// Lets a client read one partition from this offset.
pub fn point<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, partition: i32, from: i64) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(from))?;
    // For the leader of a topic that it has not heard of the client looks once a second; what it is told here it knows at once.
    if let Err(error) = consumer.fetch_metadata(Some(topic), LEADER_WITHIN) {
        debug!(topic, partition, %error, "the leader is not known yet");
    }
    consumer.assign(&list)
}

/// Shows the committed records of a span. `show` answers whether it has seen enough. `patience` is how long to wait while
/// nothing comes: an open transaction ends or times out within it.
pub fn read<C: ConsumerContext, E>(
    consumer: &BaseConsumer<C>,
    span: Span<'_>,
    patience: Duration,
    is_stopping: impl Fn() -> bool,
    mut show: impl FnMut(&Entry<'_>) -> Result<bool, E>,
) -> Result<(), ReadError<E>> {
    read_records(consumer, span, patience, is_stopping, |record| {
        let key = record.key().and_then(|k| std::str::from_utf8(k).ok()).unwrap_or_default();
        let time_ms = record.timestamp().to_millis().unwrap_or(0);
        show(&Entry { key, value: record.payload(), offset: record.offset(), time_ms })
    })
}

/// As [`read`], of any topic, with everything that a record has.
pub fn read_records<C: ConsumerContext, E>(
    consumer: &BaseConsumer<C>,
    span: Span<'_>,
    patience: Duration,
    is_stopping: impl Fn() -> bool,
    mut show: impl FnMut(&BorrowedMessage<'_>) -> Result<bool, E>,
) -> Result<(), ReadError<E>> {
    if span.from >= span.end {
        return Ok(());
    }
    point(consumer, span.topic, span.partition, span.from).map_err(ReadError::Kafka)?;
    let mut deadline = Instant::now() + patience;
    let result = loop {
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(record)) => {
                if record.offset() >= span.end {
                    break Ok(());
                }
                // Time passing only counts while nothing comes.
                deadline = Instant::now() + patience;
                match show(&record) {
                    Ok(false) => {}
                    Ok(true) => break Ok(()),
                    Err(error) => break Err(ReadError::Shown(error)),
                }
            }
            // An end-of-file event also comes at the last stable offset: it counts only past the watermark.
            Some(Err(KafkaError::PartitionEOF(_))) if position(consumer, span).is_some_and(|at| at >= span.end) => break Ok(()),
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            // It is reported once and comes never again: no reason to wait for more.
            Some(Err(error)) if access::is_refusal(&error) || is_gone(&error) => break Err(ReadError::Kafka(error)),
            Some(Err(error)) => warn!(topic = span.topic, partition = span.partition, %error, "could not read, tried again"),
        }
        if Instant::now() > deadline || is_stopping() {
            break Err(ReadError::Open);
        }
    };
    let _ = consumer.unassign();
    result
}

/// As [`read_records`], of a topic with a retention: records that it takes before they are read are passed by.
pub fn read_what_is_left<C: ConsumerContext, E>(
    consumer: &BaseConsumer<C>,
    mut span: Span<'_>,
    patience: Duration,
    mut show: impl FnMut(&BorrowedMessage<'_>) -> Result<bool, E>,
) -> Result<(), ReadError<E>> {
    loop {
        let mut next = span.from;
        let shown = |record: &BorrowedMessage<'_>| {
            next = record.offset() + 1;
            show(record)
        };
        match read_records(consumer, span, patience, || false, shown) {
            Err(ReadError::Kafka(error)) if is_gone(&error) => {
                let (low, _) = ends(consumer, span.topic, span.partition, || false).map_err(ReadError::Kafka)?;
                // Not taken by retention, but made anew or cut off.
                if low < next || low == span.from {
                    return Err(ReadError::Kafka(error));
                }
                span.from = low;
            }
            other => return other,
        }
    }
}

/// Whether the offset that is to be read is not there any more.
fn is_gone(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))
}

fn position<C: ConsumerContext>(consumer: &BaseConsumer<C>, span: Span<'_>) -> Option<i64> {
    consumer.position().ok()?.find_partition(span.topic, span.partition)?.offset().to_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::bindings as rd;

    /// Events that wait in the client for somebody to poll.
    fn waiting(client: &BaseConsumer<Quiet>) -> usize {
        // SAFETY: the client lives as long as the reference; the queue is given back.
        unsafe {
            let queue = rd::rd_kafka_queue_get_consumer(client.client().native_ptr());
            let waiting = rd::rd_kafka_queue_length(queue);
            rd::rd_kafka_queue_destroy(queue);
            waiting
        }
    }

    #[test]
    fn a_client_that_is_only_asked_keeps_nothing_once_it_was_heard() {
        // Nobody listens there, so the client has something to complain of, again and again.
        let mut base = ClientConfig::new();
        base.set("bootstrap.servers", "127.0.0.1:9").set("reconnect.backoff.ms", "1").set("reconnect.backoff.max.ms", "5");
        let client = client(&base, "g", Isolation::Uncommitted, FEW).expect("no broker is needed");
        let deadline = Instant::now() + Duration::from_secs(20);
        while waiting(&client) < 3 && Instant::now() < deadline {
            let _ = client.fetch_watermarks("t", 0, Duration::from_millis(100));
        }
        assert!(waiting(&client) >= 3, "{} events", waiting(&client));
        hear(&client);
        assert!(waiting(&client) < 3, "{} events", waiting(&client));
    }
}
