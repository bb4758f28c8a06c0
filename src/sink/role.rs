//! The sink role: poll → batch → one database transaction → offsets.
//!
//! One thread does all of it, in that order, and blocks where it waits: no queue between reading and writing could
//! overflow, and a rebalance callback never runs while a batch is being written. tokio serves only the caller and sqlx.

use super::batch::Batch;
use super::consumer::{self, SinkConsumer, Trouble};
use super::counters::{SinkCounters, add};
use super::error::{SinkError, StoreError};
use super::location::Location;
use super::store::{EventStore, Opening};
use crate::config::Config;
use crate::stream::failpoints::{self, Point};
use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};

/// Trouble outside that lasts longer than this stops the sink.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// A stop is noticed within this time.
const TICK: Duration = Duration::from_millis(100);
/// A graceful stop takes at most this long. Cutting it off is safe: what has no committed offset is read again.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Runs the sink until `shutdown` turns true (or its sender is gone), then writes the open batch, commits and leaves the group.
/// `base` carries the cluster's address and the operator's librdkafka properties.
pub async fn run(
    config: Arc<Config>,
    base: ClientConfig,
    counters: Arc<SinkCounters>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), SinkError> {
    let location = Location::parse(&config.sink.url)?;
    let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let (done, mut outcome) = oneshot::channel();
    let trouble = Retries { stop: Arc::clone(&stop.0), counters: Arc::clone(&counters) };
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("sink".to_owned())
        .spawn(move || {
            // The caller is gone when nobody listens any more: then nobody misses the outcome.
            let _ = done.send(consume(&config, &base, location, counters, trouble, runtime));
        })
        .map_err(SinkError::Thread)?;
    tokio::select! {
        result = &mut outcome => return result.unwrap_or(Err(SinkError::Panicked)),
        _ = shutdown.wait_for(|stop| *stop) => stop.0.store(true, Ordering::Relaxed),
    }
    match tokio::time::timeout(STOP_WITHIN, outcome).await {
        Ok(result) => result.unwrap_or(Err(SinkError::Panicked)),
        Err(_) => {
            warn!("sink cut off while stopping: its last batch is read again at the next start");
            Ok(())
        }
    }
}

/// Stops the thread when the future of [`run`] is dropped half-way.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connects to both sides, then loops until told to stop.
fn consume(
    config: &Config,
    base: &ClientConfig,
    location: Location,
    counters: Arc<SinkCounters>,
    retries: Retries,
    runtime: Handle,
) -> Result<(), SinkError> {
    let Some(store) = retries.database(|| runtime.block_on(EventStore::open(&location, Opening::CreateIfMissing)))? else { return Ok(()) };
    let consumer = consumer::subscribe(config, base)?;
    if !retries.brokers(&consumer, config)? {
        return Ok(());
    }
    info!(store = %location, topic = config.topics.decisions, group = consumer::group(config), "sink started");
    let mut sink = Sink {
        config,
        consumer,
        store: Some(store),
        location,
        counters,
        retries,
        runtime,
        batch: Batch::default(),
        logged_unreadable: false,
    };
    sink.run()?;
    if let Some(store) = sink.store.take() {
        sink.runtime.block_on(store.close())?;
    }
    info!("sink stopped");
    Ok(())
}

struct Sink<'a> {
    config: &'a Config,
    consumer: SinkConsumer,
    /// `None` after a failure: the next attempt opens it anew.
    store: Option<EventStore>,
    location: Location,
    counters: Arc<SinkCounters>,
    retries: Retries,
    runtime: Handle,
    batch: Batch,
    /// One log line per process; the counter and the table tell the rest.
    logged_unreadable: bool,
}

impl Sink<'_> {
    fn run(&mut self) -> Result<(), SinkError> {
        let (max_rows, max_age) = (self.config.sink.batch_rows, self.config.sink.batch_interval.0);
        let mut troubles = Troubles::default();
        while !self.retries.stopping() {
            let wait = self.batch.due_in(max_age, Instant::now()).map_or(TICK, |left| left.min(TICK));
            let polled = self.consumer.poll(wait);
            // Rebalances are served inside `poll`, before the record that it returns: give back first, then add.
            let revoked = self.consumer.context().take_revoked();
            add(&self.counters.given_back, self.batch.give_back(&revoked));
            match polled {
                None => {}
                Some(Ok(record)) => {
                    add(&self.counters.read, 1);
                    let unreadable = self.batch.add(&record, Instant::now());
                    if let (Some(reason), false) = (unreadable, self.logged_unreadable) {
                        self.logged_unreadable = true;
                        let (partition, offset) = (rdkafka::Message::partition(&record), rdkafka::Message::offset(&record));
                        warn!(partition, offset, reason, "decision not readable: kept in unreadable_records (later ones are only counted)");
                    }
                    troubles.passed();
                }
                // Told by whoever reads the counter.
                Some(Err(error)) if consumer::trouble(&error) == Trouble::Denied => add(&self.counters.refusals, 1),
                Some(Err(error)) => troubles.meet(error, self.config)?,
            }
            if self.batch.is_due(max_rows, max_age, Instant::now()) {
                self.settle()?;
            }
        }
        self.settle()
    }

    /// Writes the open batch, then commits its offsets. When it cannot be written in time, it is given back.
    fn settle(&mut self) -> Result<(), SinkError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        match self.store_batch(&batch) {
            Ok(true) => {}
            not_stored => {
                add(&self.counters.given_back, batch.records());
                return not_stored.map(|_| ()).map_err(SinkError::from);
            }
        }
        add(&self.counters.batches, 1);
        let _ = failpoints::reach(Point::AfterSinkWrite);
        if let Err(error) = self.commit(&batch) {
            add(&self.counters.commit_failures, 1);
            add(&self.counters.refusals, u64::from(consumer::trouble(&error) == Trouble::Denied));
            warn!(%error, "offsets of the sink not committed: these records are read again, and a repeat changes nothing");
        }
        Ok(())
    }

    /// Whether the batch is in the database; `false` when a stop was asked for while the database failed.
    fn store_batch(&mut self, batch: &Batch) -> Result<bool, StoreError> {
        let shares = batch.shares().values();
        let (store, location, runtime) = (&mut self.store, &self.location, &self.runtime);
        let written = if batch.has_no_rows() {
            Some(Default::default())
        } else {
            self.retries.database(|| {
                runtime.block_on(async {
                    let mut open = match store.take() {
                        Some(open) => open,
                        None => EventStore::open(location, Opening::Existing).await?,
                    };
                    let written = open.write(shares.clone().flat_map(|s| &s.rows), shares.clone().flat_map(|s| &s.unreadable)).await?;
                    *store = Some(open);
                    Ok(written)
                })
            })?
        };
        let Some(written) = written else { return Ok(false) };
        add(&self.counters.stored, written.stored);
        add(&self.counters.repeated, written.repeated);
        add(&self.counters.unreadable, shares.clone().map(|s| s.unreadable.len() as u64).sum());
        add(&self.counters.without_signal, shares.map(|s| s.without_signal).sum());
        debug!(stored = written.stored, repeated = written.repeated, "batch stored");
        Ok(true)
    }

    fn commit(&self, batch: &Batch) -> Result<(), KafkaError> {
        let mut offsets = TopicPartitionList::with_capacity(batch.shares().len());
        for (partition, share) in batch.shares() {
            offsets.add_partition_offset(&self.config.topics.decisions, *partition, Offset::Offset(share.next_offset))?;
        }
        self.consumer.commit(&offsets, CommitMode::Sync)
    }
}

/// Trouble outside: retried with growing pauses, for a bounded time, never past a stop.
struct Retries {
    stop: Arc<AtomicBool>,
    counters: Arc<SinkCounters>,
}

impl Retries {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The database's answer, or `None` when a stop was asked for before there was one.
    fn database<T>(&self, mut attempt: impl FnMut() -> Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        let started = Instant::now();
        let mut pause = TICK;
        loop {
            let error = match attempt() {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => error,
            };
            add(&self.counters.database_failures, 1);
            if error.is_permanent() || started.elapsed() + pause > RETRY_FOR {
                return Err(error);
            }
            warn!(error = &error as &dyn std::error::Error, pause_ms = pause.as_millis() as u64, "event store failed: trying again");
            if !self.sleep(pause) {
                return Ok(None);
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Whether the brokers answer; `false` when a stop was asked for before they did.
    fn brokers(&self, consumer: &SinkConsumer, config: &Config) -> Result<bool, SinkError> {
        let started = Instant::now();
        while !self.stopping() {
            match consumer::ask_brokers(consumer, &config.topics.decisions, Duration::from_secs(1)) {
                Ok(()) => return Ok(true),
                Err(source) if started.elapsed() >= RETRY_FOR => {
                    return Err(SinkError::Unreachable { servers: config.kafka.bootstrap_servers.clone(), source: Box::new(source) });
                }
                Err(_) => self.sleep(TICK),
            };
        }
        Ok(false)
    }

    /// Sleeps; `false` when a stop was asked for.
    fn sleep(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while !self.stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(TICK));
        }
        false
    }
}

/// Errors of `poll` in a row: logged at the first, ended when they will not pass.
#[derive(Default)]
struct Troubles {
    logged: Option<Trouble>,
    /// The first and the latest refusal of the present series.
    refused: Option<(Instant, Instant)>,
}

impl Troubles {
    fn passed(&mut self) {
        *self = Troubles::default();
    }

    fn meet(&mut self, error: KafkaError, config: &Config) -> Result<(), SinkError> {
        let (group, topic) = (consumer::group(config), config.topics.decisions.clone());
        let trouble = consumer::trouble(&error);
        let now = Instant::now();
        match trouble {
            Trouble::Fatal => return Err(SinkError::Refused { group, topic, source: Box::new(error) }),
            Trouble::Refused => {
                let first = self.refused.filter(|(_, latest)| now - *latest < RETRY_FOR).map_or(now, |(first, _)| first);
                self.refused = Some((first, now));
                if now - first >= RETRY_FOR {
                    return Err(SinkError::Refused { group, topic, source: Box::new(error) });
                }
            }
            Trouble::NoTopic | Trouble::Passing | Trouble::Denied => {}
        }
        if self.logged != Some(trouble) {
            self.logged = Some(trouble);
            match trouble {
                Trouble::NoTopic => warn!(topic, "decisions topic not there yet: the sink waits (`tripline topics apply` creates it)"),
                _ => warn!(%error, topic, "kafka error in the sink: librdkafka tries again"),
            }
        }
        Ok(())
    }
}
