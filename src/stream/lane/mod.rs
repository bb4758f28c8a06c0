//! One lane: a thread, a consumer, a transactional producer and the tasks it owns. The driver of the commit protocol.
//!
//! Everything that changes state happens on this thread: polling, processing, transactions, and rebalance callbacks,
//! which run inside `poll`. The mutex around [`Driver`] is never contended; it is there because the client's callback has
//! to reach it.

use super::Shared;
use super::access::{self, AccessError};
use super::failpoints::{self, Point};
use super::probe::Prober;
use super::process::{Processor, Trouble, guarded};
use super::producer::{LaneProducer, Outgoing, UNTAGGED};
use super::restore::{self, OutOfRange, Ready, RestoreError};
use crate::state::TaskState;
use crate::telemetry::metrics::LaneMetrics;
use crate::telemetry::tally::Tally;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};
use tripline_core::engine::Engine;
use tripline_core::protocol::start::{LAYOUT, Local, Marker, Metadata};
use tripline_core::protocol::{CommitId, Committed, Effect, Failure, Found, Input, Lane as Protocol, Phase, TaskId};
use tripline_core::rejection::Rejection;
use tripline_core::state::DELETE_GRACE_MS;

/// Fenced this often within a minute means that another process has our identity.
const FENCED_LIMIT: usize = 3;
/// Time between two looks for expired states.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Aborts without a commit in between before the lane slows down and says so.
const PATIENT_ABORTS: u64 = 3;
/// A seek that fails for this long means that the consumer has lost the partition: it is rebuilt.
const SEEK_LIMIT: Duration = Duration::from_secs(10);
/// Time between two reports to health and gauges.
const REPORT_EVERY: Duration = Duration::from_millis(50);

mod assignment;
mod consumer;
mod effects;
mod errors;
mod intake;
mod memory;
mod task;
mod time;

use consumer::{consume, rejoin};
use effects::first_producer;
pub use errors::LaneError;
use intake::Intake;
use task::Task;
use time::{Arrival, Ticking};

/// What the callback and the loop share.
struct Driver {
    shared: Arc<Shared>,
    number: usize,
    transactional_id: String,
    protocol: Protocol,
    producer: Option<LaneProducer>,
    connecting: Option<std::thread::JoinHandle<Result<LaneProducer, LaneError>>>,
    tasks: HashMap<TaskId, Task>,
    engine: Arc<Engine>,
    processor: Processor,
    tally: Tally,
    opened: Option<Instant>,
    records: usize,
    changed_bytes: usize,
    wanted: VecDeque<TaskId>,
    /// Restores under way, by task: an answer to another request is out of date.
    restores: HashMap<TaskId, Restoring>,
    generation: u64,
    /// Tasks whose local store is of no use, until that is asked for.
    spoiled: BTreeSet<TaskId>,
    /// When stores were found damaged, lately.
    spoils: Vec<Instant>,
    /// When the ends of the partitions are compared with where the tasks stand: the client said that some offset is not there.
    look_at_range: Option<Instant>,
    requests: Sender<restore::Request>,
    answers: Receiver<restore::Answer>,
    /// Records that cannot be finished, and why: they are dead-lettered when they come again.
    suspects: HashMap<(TaskId, i64), Rejection>,
    fenced: VecDeque<Instant>,
    swept: Instant,
    reported: Instant,
    metrics: LaneMetrics,
    fatal: Option<LaneError>,
    consumer_is_dead: bool,
    aborts_in_row: u64,
    /// Since when partitions could not be positioned.
    seeking: HashMap<TaskId, Instant>,
    ticking: Ticking,
    intake: Intake,
    /// The group has to distribute its partitions anew.
    rejoins: bool,
}

/// A task that is being restored.
#[derive(Debug)]
struct Restoring {
    generation: u64,
    spoiled: Arc<AtomicBool>,
    called_off: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Context(Arc<Mutex<Driver>>);

impl Context {
    fn driver(&self) -> MutexGuard<'_, Driver> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "consumer");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Context>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let mut driver = self.driver();
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            driver.on_assign(consumer, list);
        } else {
            driver.on_revoke(consumer, list);
        }
    }
}

/// The name of a lane's thread, in logs and health.
pub fn name(number: usize) -> String {
    format!("lane {number}")
}

/// Runs a lane until the process stops or the lane cannot go on.
pub fn run(shared: &Arc<Shared>, number: usize) -> Result<(), LaneError> {
    let (requests, answers) = restore::start(shared, number);
    let context = Context(Arc::new(Mutex::new(Driver::new(shared.clone(), number, requests, answers))));
    loop {
        // Connecting the producer takes up to a second when a transaction dangled: beside joining the group, never after.
        context.driver().connect();
        let consumer = consume(shared, &context)?;
        let outcome = poll_loop(shared, &context, &consumer);
        if shared.is_stopping() || outcome.is_err() {
            context.driver().finish(&consumer, outcome.is_err());
            // Closing a consumer can hang inside the client; the group does not need it (static membership): let the process end.
            std::mem::forget(consumer);
            return outcome;
        }
        info!(lane = number, "the consumer is rebuilt");
    }
}

fn poll_loop(shared: &Arc<Shared>, context: &Context, consumer: &BaseConsumer<Context>) -> Result<(), LaneError> {
    let mut ticked = Instant::now();
    let mut wait = Duration::from_millis(10);
    let mut since_tick = 0;
    loop {
        let polled = consumer.poll(wait);
        let mut driver = context.driver();
        let idle = polled.is_none();
        match polled {
            Some(Ok(record)) => driver.on_record(consumer, &record),
            Some(Err(error)) => driver.on_error(consumer, &error),
            None => {}
        }
        since_tick += 1;
        // The clock is not asked for every record.
        if idle || since_tick >= 32 || ticked.elapsed() > Duration::from_millis(1) {
            (ticked, since_tick) = (Instant::now(), 0);
            wait = driver.tick(consumer, ticked);
            if let Some(error) = driver.fatal.take() {
                return Err(error);
            }
            if shared.is_stopping() {
                return Ok(());
            }
            if std::mem::take(&mut driver.rejoins) {
                drop(driver);
                rejoin(shared, consumer);
                continue;
            }
            if std::mem::take(&mut driver.consumer_is_dead) {
                driver.on_consumer_death(consumer);
                return Ok(());
            }
        }
    }
}

impl Driver {
    fn new(shared: Arc<Shared>, number: usize, requests: Sender<restore::Request>, answers: Receiver<restore::Answer>) -> Driver {
        let transactional_id = format!("{}-{}-{number}", shared.config.app.id, shared.identity);
        let mut driver = Driver {
            ticking: Ticking::new(Prober::start(&shared, number, &transactional_id)),
            transactional_id,
            protocol: Protocol::default(),
            producer: None,
            connecting: None,
            tasks: HashMap::new(),
            engine: shared.live.current(),
            processor: Processor::new(shared.clone()),
            tally: Tally::default(),
            opened: None,
            records: 0,
            changed_bytes: 0,
            wanted: VecDeque::new(),
            restores: HashMap::new(),
            generation: 0,
            spoiled: BTreeSet::new(),
            spoils: Vec::new(),
            look_at_range: None,
            requests,
            answers,
            suspects: HashMap::new(),
            fenced: VecDeque::new(),
            swept: Instant::now(),
            reported: Instant::now(),
            metrics: shared.metrics.lane(number),
            fatal: None,
            consumer_is_dead: false,
            aborts_in_row: 0,
            seeking: HashMap::new(),
            intake: Intake::default(),
            rejoins: false,
            number,
            shared,
        };
        driver.processor.needs_time = driver.engine.needs_time();
        driver
    }

    fn connect(&mut self) {
        if self.producer.is_some() || self.connecting.is_some() {
            return;
        }
        let (shared, id) = (self.shared.clone(), self.transactional_id.clone());
        self.connecting = Some(std::thread::spawn(move || first_producer(&shared, &id)));
    }

    /// Takes the producer once it is connected. Restores wait for it: it has fenced every earlier owner of its id.
    fn connected(&mut self) -> bool {
        if self.connecting.as_ref().is_some_and(|c| c.is_finished())
            && let Some(connecting) = self.connecting.take()
        {
            match connecting.join() {
                Ok(Ok(producer)) => self.producer = Some(producer),
                Ok(Err(error)) => self.give_up(error),
                Err(_) => self.give_up(LaneError::Client { what: "producer", source: KafkaError::Canceled }),
            }
        }
        self.producer.is_some()
    }

    fn on_record(&mut self, consumer: &BaseConsumer<Context>, record: &BorrowedMessage<'_>) {
        let Some(id) = self.shared.task(record.topic(), record.partition()) else { return };
        let offset = record.offset();
        // A record from before a rewind, or of a task that is not ours (any more): the position decides, not the queue.
        let expected = self.tasks.get(&id).is_some_and(|t| t.flows() && offset >= t.next);
        if !expected || !self.protocol.is_running(id) || self.fatal.is_some() {
            return;
        }
        if self.tasks.get(&id).is_some_and(|t| !t.touched) && !self.touch(consumer, id, offset) {
            return;
        }
        let stage = if id.topic > 0 { "router" } else { "detector" };
        let mut arrival = Ok(Arrival::Record);
        if id.topic == 0 && !self.suspects.contains_key(&(id, offset)) {
            let until_ms;
            (arrival, until_ms) = self.arrival(id, record).map_or_else(|e| (Err(e), None), |(arrival, until_ms)| (Ok(arrival), until_ms));
            // Time comes first: what was due before this record has to fire as if the record were not there.
            if until_ms.is_some_and(|until_ms| !self.fire(consumer, id, record, until_ms)) {
                return;
            }
        }
        let before = self.tally.written();
        let (Some(producer), Some(task)) = (&self.producer, self.tasks.get_mut(&id)) else { return };
        let (processor, engine, tally) = (&mut self.processor, &self.engine, &mut self.tally);
        let rejection = self.suspects.get(&(id, offset)).or(arrival.as_ref().err());
        let done = match (rejection, &mut task.state) {
            (Some(rejection), _) => processor.give_up(record, rejection, stage, producer, tally, &task.commit).map(|()| 0),
            (None, Some(_)) if matches!(arrival, Ok(Arrival::Tick(_))) => {
                tally.ticks += 1;
                Ok(0)
            }
            (None, Some(state)) => guarded(|| processor.detect(record, engine, state, producer, tally, &task.commit)),
            (None, None) => guarded(|| processor.route(record, engine, producer, tally, &task.commit).map(|()| 0)),
        };
        match done {
            Ok(changed) => {
                let Some(task) = self.tasks.get_mut(&id) else { return };
                task.next = offset + 1;
                task.written.add(&before, &self.tally.written());
                let timestamp_ms = record.timestamp().to_millis().unwrap_or(-1);
                task.stream_time_ms = task.stream_time_ms.max(timestamp_ms);
                task.input_time_ms = task.input_time_ms.max(self.processor.reference_ms);
                if let Ok(Arrival::Tick(Some(sources))) = arrival {
                    task.hear(sources);
                }
                if id.topic > 0 {
                    task.heard.routed(record.timestamp(), self.processor.needs_time);
                }
                task.last = Some(restore::fingerprint(record));
                self.records += 1;
                self.changed_bytes += changed;
                if self.records >= self.shared.config.stream.max_records || self.changed_bytes >= self.shared.memory.lane().max_changed {
                    self.seal(consumer);
                }
            }
            Err(trouble) => self.on_trouble(consumer, id, offset, trouble),
        }
    }

    fn on_trouble(&mut self, consumer: &BaseConsumer<Context>, id: TaskId, offset: i64, trouble: Trouble) {
        let failure = match trouble {
            Trouble::Transaction(failure) => failure,
            Trouble::Store(error) => {
                self.on_store_error(consumer, id, error);
                return;
            }
            Trouble::Hopeless(rejection) => {
                let (topic, partition, reason) = (self.shared.topic(id), id.partition, rejection.reason.name());
                error!(lane = self.number, topic, partition, offset, reason, "a record cannot be finished: it will be dead-lettered");
                self.suspects.insert((id, offset), rejection);
                Failure::Abortable
            }
        };
        self.tell_touched();
        let effects = self.protocol.step(Input::Failed(failure));
        self.perform(Some(consumer), effects);
    }

    /// Opens the transaction if need be, and notes that this task is part of it.
    fn touch(&mut self, consumer: &BaseConsumer<Context>, id: TaskId, offset: i64) -> bool {
        let attempt = CommitId(uuid::Uuid::new_v4().as_u128());
        let effects = self.protocol.step(Input::Touched(id, offset, attempt));
        self.perform(Some(consumer), effects);
        let Phase::Open(attempt) = self.protocol.phase() else { return false };
        let seq = self.protocol.committed(id).map_or(0, |c| c.seq + 1);
        if let Some(task) = self.tasks.get_mut(&id) {
            task.touched = true;
            task.commit = format!("{}-{}/{seq}/{}", id.topic, id.partition, attempt.to_hex());
        }
        true
    }

    /// Tells the protocol how far each touched task came.
    fn tell_touched(&mut self) {
        let Phase::Open(attempt) = self.protocol.phase() else { return };
        for (id, task) in self.tasks.iter().filter(|(_, t)| t.touched) {
            self.protocol.step(Input::Touched(*id, task.next, attempt));
        }
    }

    fn seal(&mut self, consumer: &BaseConsumer<Context>) {
        self.tell_touched();
        let effects = self.protocol.step(Input::SealDue);
        self.perform(Some(consumer), effects);
    }

    /// What is due now; answers how long to wait for the next record.
    fn tick(&mut self, consumer: &BaseConsumer<Context>, now: Instant) -> Duration {
        self.processor.lag.tick(now);
        if self.connected() {
            while let Some(task) = self.wanted.pop_front() {
                let request = self.request(task);
                if self.requests.send(request).is_err() {
                    break;
                }
            }
        }
        self.take_restored(consumer);
        self.look_at_backlog(consumer, now);
        self.look_at_range(consumer, now);
        self.seek(consumer);
        if self.protocol.has_fresh() && self.producer.is_some() {
            let effects = self.protocol.begin_fresh(CommitId(uuid::Uuid::new_v4().as_u128()));
            self.perform(Some(consumer), effects);
            self.seal(consumer);
        }
        self.tick_sources(consumer, now);
        self.look_at_owners(now);
        self.look_at_topics(now);
        let interval = self.shared.config.stream.commit_interval.0;
        match self.opened {
            Some(opened) if now.duration_since(opened) >= interval => self.seal(consumer),
            _ => {}
        }
        if self.opened.is_none() {
            self.between_transactions(consumer, now);
        }
        if now.duration_since(self.reported) >= REPORT_EVERY {
            self.reported = now;
            self.report();
        }
        match self.opened {
            Some(opened) => interval.saturating_sub(opened.elapsed()).clamp(Duration::from_millis(1), Duration::from_millis(50)),
            None if self.connecting.is_some() || self.tasks.values().any(|t| t.seek.is_some()) || self.is_restoring() => {
                Duration::from_millis(5)
            }
            None => Duration::from_millis(50),
        }
    }

    fn is_restoring(&self) -> bool {
        self.protocol.tasks().any(|id| !self.tasks.contains_key(&id))
    }

    fn between_transactions(&mut self, consumer: &BaseConsumer<Context>, now: Instant) {
        let current = self.shared.live.current();
        if !Arc::ptr_eq(&current, &self.engine) {
            self.engine = current;
            self.processor.needs_time = self.engine.needs_time();
        }
        if now.duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.trim_caches();
            let mut failed = Vec::new();
            for (id, task) in &mut self.tasks {
                let before_ms = task.input_time_ms.saturating_sub(DELETE_GRACE_MS);
                if let Some(Err(error)) = task.state.as_mut().map(|state| state.sweep(before_ms)) {
                    failed.push((*id, error));
                }
            }
            for (id, error) in failed {
                self.on_store_error(consumer, id, error);
            }
        }
        for id in self.writes_due(now) {
            self.write(consumer, id);
        }
    }

    fn write(&mut self, consumer: &BaseConsumer<Context>, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let _ = failpoints::reach(Point::BeforeStoreWrite);
        match task.write() {
            Ok(true) => {
                self.shared.metrics.state_writes.inc();
            }
            Ok(false) => {}
            Err(error) => self.on_store_error(consumer, id, error),
        }
        let _ = failpoints::reach(Point::AfterStoreWrite);
    }

    fn report(&mut self) {
        let part = name(self.number);
        let restoring = self.protocol.tasks().filter(|id| !self.protocol.is_running(*id)).count();
        self.metrics.restoring.set(restoring as i64);
        self.metrics.running.set(self.tasks.len() as i64);
        self.metrics.stream_time(self.stream_time());
        self.metrics.lag.set(self.processor.lag.report(self.reported));
        let (entries, bytes) =
            self.tasks.values().filter_map(|t| t.state.as_ref()).map(TaskState::cached).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        self.metrics.cache_entries.set(entries as i64);
        self.metrics.cache_bytes.set(bytes as i64);
        if let Some(denied) = self.shared.access.reason() {
            self.shared.health.waiting(&part, denied);
        } else if self.producer.is_none() {
            self.shared.health.waiting(&part, "connecting the producer");
        } else if self.protocol.tasks().next().is_none() {
            self.shared.health.waiting(&part, "no partition assigned yet");
        } else if restoring > 0 {
            self.shared.health.waiting(&part, format!("restoring {restoring} tasks"));
        } else {
            self.shared.health.ready(&part);
        }
    }
}
