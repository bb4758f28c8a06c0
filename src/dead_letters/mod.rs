//! The dead-letter topic from the operator's side: what is in it, and sending it back where it came from.
//!
//! ```text
//!   reader: every record up to the end ─▶ index: dead letters, less those with a receipt ─▶ plan: what goes where, what does not
//!   redrive, in one transaction per batch: the record to its source topic · a receipt beside the dead letter
//! ```
//!
//! The promise: a dead letter is redriven at most once, whatever is killed and when. Record and receipt become visible
//! together or not at all; a run first fences the one before it (one transactional id per `app.id`) and only then reads the
//! receipts, up to an end that was taken after the fence. [`index`] and [`plan`] are pure.

pub mod index;
pub mod plan;
pub mod reader;
pub mod redrive;

use crate::stream::client::ClientError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Why dead letters could not be read or redriven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no client or no cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The topic is not there.
    #[error("{0} does not exist; look with `tripline topics check` (topics.dead_letters)")]
    NoTopic(String),
    /// Kafka refused.
    #[error("could not {what}: {source}")]
    Kafka {
        /// What was being done.
        what: String,
        /// The client's words.
        #[source]
        source: KafkaError,
    },
    /// A partition cannot be read to its end.
    #[error(
        "{topic}/{partition} stays open below offset {end}: a transaction neither ended nor timed out; look with kafka-transactions.sh find-hanging"
    )]
    Open {
        /// The dead-letter topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Its high watermark.
        end: i64,
    },
    /// Another redrive of the same `app.id` has begun.
    #[error("another redrive of {app} took over, and this one stopped after {sent}: what was sent has its receipt")]
    Fenced {
        /// `app.id`.
        app: String,
        /// Dead letters that this run had sent.
        sent: usize,
    },
    /// A transaction did not end well.
    #[error(
        "stopped after {sent}: the next batch, {batch}, could not be sent as a whole; run it again: a dead letter that was sent after all has its receipt"
    )]
    Batch {
        /// Dead letters that were sent for certain.
        sent: usize,
        /// The first of the batch, and how many.
        batch: String,
    },
}

impl Error {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Client(error) => error.exit_code(),
            Error::Kafka { source, .. } if is_gone(source) => 4,
            _ => 1,
        }
    }

    fn kafka(what: impl Into<String>) -> impl FnOnce(KafkaError) -> Error {
        move |source| Error::Kafka { what: what.into(), source }
    }
}

fn is_gone(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as E;
    matches!(error.rdkafka_error_code(), Some(E::OperationTimedOut | E::BrokerTransportFailure | E::AllBrokersDown))
}
