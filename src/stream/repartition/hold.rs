//! Holds the group, so that no worker works while its states move.
//!
//! A transactional commit of offsets without member and generation is accepted by the broker beside live members, so being
//! outside is no protection. Whoever holds the group is its member, with an assignor that no worker has: the broker refuses each
//! of the two while the other is in.

use super::RepartitionError;
use crate::config::Config;
use crate::stream::client;
use crate::stream::group;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::{debug, info};

/// What a worker's consumer does not offer.
const ASSIGNOR: &str = "range";
/// How soon the broker gives the group free when the holder was killed; less than this brokers do not allow by default. Heartbeats
/// are sent by a thread of the client, whatever the holder does.
const SESSION: Duration = Duration::from_secs(6);
/// How long joining an empty group may take.
const JOIN_WITHIN: Duration = Duration::from_secs(30);
/// The client's longest: nobody else joins, so there is no rebalance that would have to be answered.
const POLL_INTERVAL: Duration = Duration::from_secs(86_400);

/// Reads nothing, whatever it is given.
#[derive(Default)]
struct Holder {
    holds: AtomicBool,
}

impl ClientContext for Holder {
    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "holding the group");
    }
}

impl ConsumerContext for Holder {
    fn rebalance(&self, consumer: &BaseConsumer<Holder>, event: RDKafkaRespErr, _: &mut TopicPartitionList) {
        let is_assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let answered = if is_assigned { consumer.assign(&TopicPartitionList::new()) } else { consumer.unassign() };
        self.holds.store(is_assigned && answered.is_ok(), Ordering::Relaxed);
    }
}

/// The group, held until it is dropped.
pub struct Held {
    /// Of the moment of joining: should the group move on, what is committed with it is refused.
    pub generation: ConsumerGroupMetadata,
    consumer: BaseConsumer<Holder>,
}

impl Held {
    /// Whether the group is still held, and by nobody else beside.
    pub fn verify(&self, config: &Config) -> Result<(), RepartitionError> {
        let members = group::members(&self.consumer, &config.app.id)
            .map_err(|source| RepartitionError::Kafka { what: "read the group's members", source })?;
        let ours = client_id(config);
        match members.iter().filter(|member| **member != ours).count() {
            0 if members.is_empty() => Err(RepartitionError::Lost(config.app.id.clone())),
            0 => Ok(()),
            _ => Err(members_left(config, &members)),
        }
    }
}

fn client_id(config: &Config) -> String {
    format!("{}-repartition", config.app.id)
}

/// Waits until the group is empty, and joins it. Workers that stopped count as members for `stream.session_timeout`.
pub fn hold(config: &Config) -> Result<Held, RepartitionError> {
    let kafka = |source| RepartitionError::Kafka { what: "join the group", source };
    let mut properties = client::base(config);
    properties
        .set("group.id", &config.app.id)
        .set("client.id", client_id(config))
        .set("partition.assignment.strategy", ASSIGNOR)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("session.timeout.ms", SESSION.as_millis().to_string())
        .set("heartbeat.interval.ms", "1000")
        .set("max.poll.interval.ms", POLL_INTERVAL.as_millis().to_string());
    let consumer: BaseConsumer<Holder> = properties.create_with_context(Holder::default()).map_err(client::ClientError::creating)?;
    wait_until_empty(config, &consumer)?;
    // Of a topic that does not grow: the client would join anew, and the generation would move on.
    consumer.subscribe(&[&config.epochs_topic()]).map_err(kafka)?;
    let deadline = Instant::now() + JOIN_WITHIN;
    while !consumer.context().holds.load(Ordering::Relaxed) {
        match consumer.poll(Duration::from_millis(50)) {
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::InconsistentGroupProtocol))) => {
                return Err(members_left(config, &group::members(&consumer, &config.app.id).unwrap_or_default()));
            }
            Some(Err(error)) => debug!(%error, "joining the group"),
            Some(Ok(_)) | None => {}
        }
        if Instant::now() > deadline {
            return Err(kafka(KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut)));
        }
    }
    let generation = consumer.group_metadata().ok_or_else(|| kafka(KafkaError::Canceled))?;
    Ok(Held { generation, consumer })
}

fn wait_until_empty(config: &Config, consumer: &BaseConsumer<Holder>) -> Result<(), RepartitionError> {
    let deadline = Instant::now() + config.stream.session_timeout.0.max(SESSION) + Duration::from_secs(5);
    let mut is_told = false;
    loop {
        let members = group::members(consumer, &config.app.id)
            .map_err(|source| RepartitionError::Kafka { what: "read the group's members", source })?;
        if members.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(members_left(config, &members));
        }
        if !std::mem::replace(&mut is_told, true) {
            info!(members = members.len(), "waiting for the group to be empty: a worker that stopped counts until its session is over");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn members_left(config: &Config, members: &[String]) -> RepartitionError {
    RepartitionError::Members { group: config.app.id.clone(), members: members.join(", ") }
}
