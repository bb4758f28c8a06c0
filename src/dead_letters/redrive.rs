//! Sending dead letters back, each at most once.

use super::Error;
use super::index::Letter;
use super::plan::{Plan, Sources};
use super::reader::{Original, Reader};
use crate::config::Config;
use crate::stream::client::{self, ClientError};
use crate::stream::failpoints::{self, Point};
use crate::stream::producer::{LaneProducer, Outgoing, SendError, UNTAGGED};
use rdkafka::error::KafkaError;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tracing::warn;
use tripline_core::dead_letter::{ATTEMPT, LetterId, REDRIVEN, REDRIVEN_FROM};
use tripline_core::protocol::Failure;

/// The one that may redrive. Receipts that are read after it was taken are all there will be, but for its own.
#[derive(Debug)]
pub struct Redriver<'c> {
    config: &'c Config,
    producer: LaneProducer,
}

/// What a redrive did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Sent, with a receipt.
    pub sent: usize,
    /// Redriven by another run that began after this one.
    pub elsewhere: usize,
    /// Not found any more, or without a partition to go to.
    pub gone: Vec<LetterId>,
}

/// The transactional id of redrives: one for each `app.id`, so that a run fences the one before it.
pub fn transactional_id(app: &str) -> String {
    format!("{app}-dlq-redrive")
}

/// Memory for records on their way out.
const QUEUE_BYTES: usize = 64 << 20;

fn connect(config: &Config) -> Result<LaneProducer, Error> {
    let (id, timeout) = (transactional_id(&config.app.id), config.stream.transaction_timeout.0);
    let producer = LaneProducer::connect(&client::base(config), &id, timeout, config.max_record_bytes(), QUEUE_BYTES);
    producer.map_err(|error| match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => Error::Client(ClientError::creating(error)),
        source => Error::Kafka { what: format!("begin as {id}"), source },
    })
}

impl Redriver<'_> {
    /// Fences every earlier redrive of this `app.id`; what it had not committed is aborted.
    pub fn take_over(config: &Config) -> Result<Redriver<'_>, Error> {
        client::reach(config, Duration::from_secs(15))?;
        Ok(Redriver { config, producer: connect(config)? })
    }

    /// A request of the last transaction may still be on its way, and would end the next one
    /// (`docs/adr/0016-a-suspect-commit-renews-the-producer.md`): a new producer is safe from it. It also fences another run that began
    /// meanwhile, so the receipts are read again: which of these dead letters have one by now.
    fn renew(&mut self, reader: &Reader<'_>, rest: &[Letter]) -> Result<BTreeSet<LetterId>, Error> {
        warn!("a request of the last batch may still be on its way: going on with a new producer");
        self.producer = connect(self.config)?;
        reader.redriven(rest.iter().map(|letter| letter.id).collect())
    }

    /// Sends what is planned, at most `rate` records a second. `progress` is told the number of each batch that was committed.
    pub fn send(
        &mut self,
        reader: &Reader<'_>,
        sources: &Sources,
        plan: &Plan,
        rate: u32,
        mut progress: impl FnMut(usize),
    ) -> Result<Done, Error> {
        let (mut done, started) = (Done::default(), Instant::now());
        let (mut rest, mut elsewhere) = (plan.send.as_slice(), BTreeSet::new());
        for batch in plan.batches(rate as usize) {
            if self.producer.is_suspect() {
                elsewhere = self.renew(reader, rest)?;
            }
            rest = rest.get(batch.len()..).unwrap_or_default();
            let (before, batch): (Vec<&Letter>, Vec<&Letter>) = batch.iter().partition(|letter| elsewhere.contains(&letter.id));
            done.elsewhere += before.len();
            let originals = reader.fetch(&batch.iter().map(|letter| letter.id).collect::<BTreeSet<_>>())?;
            let mut ready = Vec::with_capacity(batch.len());
            for letter in batch {
                let placed = originals.get(&letter.id).and_then(|original| {
                    let key = original.key.as_deref();
                    Some((letter, original, sources.partition_of(&letter.source_topic, letter.source_partition, key)?))
                });
                match placed {
                    Some(placed) => ready.push(placed),
                    None => done.gone.push(letter.id),
                }
            }
            if !ready.is_empty() {
                self.commit(&ready).map_err(|_| self.stopped(done.sent, &ready))?;
                done.sent += ready.len();
                progress(ready.len());
            }
            let due = Duration::from_secs_f64(done.sent as f64 / f64::from(rate.max(1)));
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        Ok(done)
    }

    fn stopped(&self, sent: usize, batch: &[(&Letter, &Original, i32)]) -> Error {
        if self.producer.is_fenced() {
            return Error::Fenced { app: self.config.app.id.clone(), sent };
        }
        let first = batch.first().map(|(letter, ..)| letter.id.to_string()).unwrap_or_default();
        Error::Batch { sent, batch: format!("{} from {first} on", batch.len()) }
    }

    /// One transaction: each record and its receipt. Not tried again: the next run finds out what became of it.
    fn commit(&self, batch: &[(&Letter, &Original, i32)]) -> Result<(), Failure> {
        self.producer.begin()?;
        let sent = batch.iter().try_for_each(|placed| self.send_one(*placed)).map_err(Failure::from);
        let committed = sent
            .and_then(|()| failpoints::reach(Point::BeforeSeal))
            .and_then(|()| self.producer.drain())
            .and_then(|()| failpoints::reach(Point::AfterDrain))
            .and_then(|()| self.producer.commit())
            .and_then(|()| failpoints::reach(Point::AfterCommit));
        if committed == Err(Failure::Abortable) {
            // An open transaction would hide what others write until it times out.
            let _ = self.producer.abort();
        }
        committed
    }

    fn send_one(&self, (letter, original, partition): (&Letter, &Original, i32)) -> Result<(), SendError> {
        let (from, attempt) = (letter.id.to_string(), letter.attempt.saturating_add(1).to_string());
        let mut headers: Vec<(&str, &[u8])> = original.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        headers.extend([(REDRIVEN_FROM, from.as_bytes()), (ATTEMPT, attempt.as_bytes())]);
        let key = original.key.as_deref();
        self.producer.send(&Outgoing {
            topic: &letter.source_topic,
            partition,
            key,
            value: original.value.as_deref(),
            // Where the topic keeps the producer's time, the event is as old as it was.
            timestamp_ms: letter.source_timestamp_ms,
            headers: &headers,
            tag: UNTAGGED,
        })?;
        let offset = letter.id.offset.to_string();
        self.producer.send(&Outgoing {
            topic: &self.config.topics.dead_letters,
            partition: letter.id.partition,
            key,
            value: None,
            timestamp_ms: letter.source_timestamp_ms,
            headers: &[(REDRIVEN, offset.as_bytes())],
            tag: UNTAGGED,
        })
    }
}
