//! Generated traffic to Kafka: an idempotent producer with a bounded queue and a deadline on everything that waits.

use super::Generated;
use crate::config::{Config, Partitioner};
use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long an unreachable broker is tried before we say so.
const REACH: Duration = Duration::from_secs(10);
/// How long the queue may stay full, and how long the last records may take.
const DRAIN: Duration = Duration::from_secs(30);

/// Why the traffic did not get to Kafka. The command line exits with 4 on each: a dependency does not do its part.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings make no client.
    #[error("could not make a producer for {brokers}")]
    Client {
        /// The brokers asked for.
        brokers: String,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// Nobody answers.
    #[error("could not reach Kafka at {brokers} within {} s: is it running, and is kafka.bootstrap_servers right?", REACH.as_secs())]
    Unreachable {
        /// The brokers asked for.
        brokers: String,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// Kafka answers, but there is no such topic.
    #[error("could not find topic {topic} at {brokers}: create it first")]
    NoTopic {
        /// The topic.
        topic: String,
        /// The brokers asked.
        brokers: String,
    },
    /// A record was refused before it was sent.
    #[error("could not produce to {topic}")]
    Produce {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// Records were sent and not acknowledged.
    #[error("{failed} records were not acknowledged by {brokers}")]
    Delivery {
        /// How many.
        failed: u64,
        /// The brokers.
        brokers: String,
    },
}

/// Counts failed deliveries and keeps librdkafka's own lines out of the user's way: what matters comes back as an [`Error`].
#[derive(Debug, Default)]
struct Deliveries {
    failed: AtomicU64,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends generated records.
pub struct Sender {
    producer: ThreadedProducer<Deliveries>,
    brokers: String,
}

impl Sender {
    /// Connects and makes sure that the topics exist.
    pub fn connect(config: &Config, topics: &[&str]) -> Result<Sender, Error> {
        let brokers = config.kafka.bootstrap_servers.clone();
        let mut settings = ClientConfig::new();
        for (name, value) in &config.kafka.properties {
            settings.set(name, value);
        }
        let partitioner = match config.input.partitioner {
            Partitioner::Murmur2 => "murmur2_random",
            Partitioner::Consistent => "consistent_random",
        };
        settings
            .set("bootstrap.servers", &brokers)
            .set("client.id", "tripline-generate")
            .set("partitioner", partitioner)
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("message.timeout.ms", DRAIN.as_millis().to_string());
        let made = settings.create_with_context(Deliveries::default());
        let producer: ThreadedProducer<Deliveries> = made.map_err(|source| Error::Client { brokers: brokers.clone(), source })?;
        for topic in topics {
            require_topic(producer.client(), topic, &brokers)?;
        }
        Ok(Sender { producer, brokers })
    }

    /// Hands one record over; waits while the queue is full.
    pub fn send(&self, record: &Generated) -> Result<(), Error> {
        let mut next = BaseRecord::<str, [u8]>::to(&record.topic).timestamp(record.time_ms);
        if let Some(key) = &record.key {
            next = next.key(key);
        }
        if let Some(value) = &record.value {
            next = next.payload(value);
        }
        let deadline = Instant::now() + DRAIN;
        while let Err((source, back)) = self.producer.send(next) {
            if source.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || Instant::now() >= deadline {
                return Err(Error::Produce { topic: record.topic.clone(), source });
            }
            next = back;
            sleep(Duration::from_millis(2));
        }
        self.all_delivered()
    }

    /// Waits for the last acknowledgements.
    pub fn finish(self) -> Result<(), Error> {
        let flushed = self.producer.flush(DRAIN);
        self.all_delivered()?;
        flushed.map_err(|_| Error::Delivery { failed: self.producer.in_flight_count().max(1) as u64, brokers: self.brokers.clone() })
    }

    fn all_delivered(&self) -> Result<(), Error> {
        match self.producer.context().failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(Error::Delivery { failed, brokers: self.brokers.clone() }),
        }
    }
}

fn require_topic(client: &Client<Deliveries>, topic: &str, brokers: &str) -> Result<(), Error> {
    let metadata =
        client.fetch_metadata(Some(topic), REACH).map_err(|source| Error::Unreachable { brokers: brokers.to_owned(), source })?;
    let exists = metadata.topics().iter().any(|found| found.name() == topic && found.error().is_none() && !found.partitions().is_empty());
    if exists { Ok(()) } else { Err(Error::NoTopic { topic: topic.to_owned(), brokers: brokers.to_owned() }) }
}
