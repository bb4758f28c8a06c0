//! The sink's Kafka consumer: its properties, what it does in a rebalance, and which of its errors end it.

use super::error::SinkError;
use crate::config::Config;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::util::Timeout;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::{debug, error};

/// A consumer that remembers what a rebalance took away.
pub(super) type SinkConsumer = BaseConsumer<Rebalances>;

/// The sink's consumer group: its own, so that it may lag, stop or start over without the detectors noticing.
pub fn group(config: &Config) -> String {
    format!("{}-sink", config.app.id)
}

/// Creates the consumer and subscribes it to the decisions topic.
pub(super) fn subscribe(config: &Config, base: &ClientConfig) -> Result<SinkConsumer, SinkError> {
    let topic = &config.topics.decisions;
    let failed = |source| SinkError::Consumer { topic: topic.clone(), source: Box::new(source) };
    let consumer: SinkConsumer = properties(config, base).create_with_context(Rebalances::default()).map_err(failed)?;
    consumer.subscribe(&[topic]).map_err(failed)?;
    Ok(consumer)
}

/// The base's properties, and those that the sink's promises rest on.
fn properties(config: &Config, base: &ClientConfig) -> ClientConfig {
    let mut properties = base.clone();
    properties
        .set("group.id", group(config))
        // Aborted decisions must never be stored.
        .set("isolation.level", "read_committed")
        // Offsets follow the database's commit, never a timer.
        .set("enable.auto.commit", "false")
        // The first start stores everything that is there; after lost offsets the repeats change nothing. `latest` would leave a gap.
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "false")
        .set("allow.auto.create.topics", "false")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // A killed sink's partitions wait for this long. Shorter than a lane's: a heartbeat comes from librdkafka's own thread,
        // so a slow disk does not look dead, and losing partitions by mistake costs repeats that change nothing.
        .set("session.timeout.ms", "10000")
        // Twice the time for which a database that fails is tried again. It is also how long the client waits for the answer when it
        // joins the group: one that a broker has lost when it went down is asked for again only then.
        .set("max.poll.interval.ms", "60000")
        // The sink's part of the memory budget.
        .set("queued.max.messages.kbytes", "4096")
        .set("queued.min.messages", "4000")
        .set("fetch.max.bytes", "1000000");
    let mut default = |key: &str, value: &str| {
        if base.get(key).is_none() {
            properties.set(key, value);
        }
    };
    // A topic made after the sink has started is found within seconds instead of five minutes.
    default("topic.metadata.refresh.interval.ms", "5000");
    // At the bound of what is fetched ahead a partition pauses: not for the default's whole second.
    default("fetch.queue.backoff.ms", "50");
    properties
}

/// Carries out rebalances and remembers revoked partitions until the loop has given their records back.
#[derive(Default)]
pub(super) struct Rebalances {
    /// Written and read on the polling thread alone (callbacks run inside `poll`): never contended.
    revoked: Mutex<Vec<i32>>,
}

impl Rebalances {
    /// The partitions revoked since the last call.
    pub(super) fn take_revoked(&self) -> Vec<i32> {
        std::mem::take(&mut self.revoked())
    }

    fn revoked(&self) -> MutexGuard<'_, Vec<i32>> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    /// The crate's own version ignores a failed (un)assign; here it is an error in the log.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let done = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                debug!(partitions = partitions.count(), "partitions assigned to the sink");
                consumer.incremental_assign(partitions)
            }
            _ => {
                debug!(partitions = partitions.count(), "partitions revoked from the sink");
                self.revoked().extend(partitions.elements().iter().map(|p| p.partition()));
                consumer.incremental_unassign(partitions)
            }
        };
        if let Err(error) = done {
            error!(%error, "could not take over an assignment of the sink: restart it if it stands still");
        }
    }
}

/// Asks the brokers for the topic once; an answer proves that they can be reached.
pub(super) fn ask_brokers(consumer: &SinkConsumer, topic: &str, within: Duration) -> Result<(), KafkaError> {
    consumer.fetch_metadata(Some(topic), Timeout::After(within)).map(|_| ())
}

/// What an error of `poll` means for the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// librdkafka goes on by itself.
    Passing,
    /// The topic is not there (yet).
    NoTopic,
    /// No right, or no good credentials: the client tries again, and somebody has to be told.
    Denied,
    /// A group that we cannot be in: may pass, but not for long.
    Refused,
    /// The client is dead.
    Fatal,
}

/// Sorts an error of `poll`.
pub(super) fn trouble(error: &KafkaError) -> Trouble {
    use RDKafkaErrorCode as Code;
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return Trouble::Fatal;
    }
    match error.rdkafka_error_code() {
        Some(Code::Fatal) => Trouble::Fatal,
        Some(Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition) => Trouble::NoTopic,
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL,
        ) => Trouble::Denied,
        Some(Code::InvalidGroupId | Code::InconsistentGroupProtocol) => Trouble::Refused,
        _ => Trouble::Passing,
    }
}
