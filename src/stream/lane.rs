//! One lane: a thread, a consumer, a transactional producer and the tasks it owns. The driver of the commit protocol.
//!
//! Everything that changes state happens on this thread: polling, processing, transactions, and rebalance callbacks,
//! which run inside `poll`. The mutex around [`Driver`] is never contended; it is there because the client's callback has
//! to reach it.

use super::Shared;
use super::failpoints::{self, Point};
use super::process::{Processor, Trouble, guarded};
use super::producer::{LaneProducer, Outgoing, UNTAGGED};
use super::restore::{self, Ready, RestoreError};
use super::topics;
use crate::state::TaskState;
use crate::telemetry::metrics::LaneMetrics;
use crate::telemetry::tally::Tally;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};
use tripline_core::engine::Engine;
use tripline_core::protocol::start::{LAYOUT, Local, Marker, Metadata};
use tripline_core::protocol::{CommitId, Committed, Effect, Failure, Found, Input, Lane as Protocol, Phase, TaskId};
use tripline_core::rejection::Rejection;

/// Fenced this often within a minute means that another process has our identity.
const FENCED_LIMIT: usize = 3;
/// How long after its expiry, in record time, a state is deleted.
const SWEEP_GRACE_MS: i64 = 86_400_000;
/// Time between two looks for expired states.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Aborts without a commit in between before the lane slows down and says so.
const PATIENT_ABORTS: u64 = 3;
/// A seek that fails for this long means that the consumer has lost the partition: it is rebuilt.
const SEEK_LIMIT: Duration = Duration::from_secs(10);
/// Time between two reports to health and gauges.
const REPORT_EVERY: Duration = Duration::from_millis(50);

/// Why a lane ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// A client could not be created: a property is wrong.
    #[error("cannot create the Kafka {what}: {source}; check kafka.properties")]
    Client {
        /// `consumer` or `producer`.
        what: &'static str,
        /// The client's words.
        #[source]
        source: KafkaError,
    },
    /// Another process has our identity.
    #[error("fenced {FENCED_LIMIT} times within a minute: another process uses identity `{0}` (stream.identity, or a copied state folder)")]
    Fenced(String),
    /// A task does not start.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] crate::state::StoreError),
    /// The thread that restores tasks is gone.
    #[error("the thread that restores tasks could not start or has ended: please report it with the log")]
    Restorer,
    /// A position is gone.
    #[error(
        "the committed offset {offset} of {topic}/{partition} is outside what the topic has ({low}..{high}): records were deleted before they were read, or the topic was made anew"
    )]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The committed offset.
        offset: i64,
        /// First offset there is.
        low: i64,
        /// End of the partition.
        high: i64,
    },
}

/// A task that runs.
#[derive(Debug)]
struct Task {
    /// `None` for a router partition.
    state: Option<TaskState>,
    history: String,
    /// The next offset to process, in the open transaction.
    next: i64,
    /// The committed next offset: the first that the open transaction may touch.
    committed_next: i64,
    /// Told to the protocol as touched in the open transaction.
    touched: bool,
    /// Fingerprint of the last record, and of the last committed one; `None` until a record was processed here.
    last: Option<u64>,
    last_committed: Option<u64>,
    /// The fingerprint that the committed metadata had when the task was restored.
    found_fingerprint: String,
    /// Newest record time, milliseconds.
    stream_time_ms: i64,
    /// Offset of the newest marker, and the commit it belongs to.
    marker_offset: i64,
    /// The auditor's header in the open transaction: task/seq/commit_id.
    commit: String,
    /// Decisions and states are counted for the marker.
    decisions: u64,
    digests: Option<(String, String)>,
    /// What the open transaction's marker says; counts once it is committed.
    sealed_digests: Option<(String, String)>,
    /// Where polling shall go on: set until the seek is done.
    seek: Option<i64>,
    paused: bool,
    local: Option<Local>,
    unwritten_since: Option<Instant>,
}

/// What the callback and the loop share.
struct Driver {
    shared: Arc<Shared>,
    number: usize,
    transactional_id: String,
    protocol: Protocol,
    producer: Option<LaneProducer>,
    connecting: Option<std::thread::JoinHandle<Result<LaneProducer, KafkaError>>>,
    tasks: HashMap<TaskId, Task>,
    engine: Arc<Engine>,
    processor: Processor,
    tally: Tally,
    opened: Option<Instant>,
    records: usize,
    changed_bytes: usize,
    wanted: VecDeque<TaskId>,
    /// Which request of a task is the current one: an answer to an earlier one is out of date.
    generations: HashMap<TaskId, u64>,
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
    seeking_since: Option<Instant>,
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
    let (requests, to_restore) = channel();
    let (restored, answers) = channel();
    let restorer = {
        let shared = shared.clone();
        std::thread::Builder::new().name(format!("restore-{number}")).spawn(move || restore::serve(&shared, &to_restore, &restored))
    };
    if let Err(source) = restorer {
        warn!(%source, "cannot start the restore thread");
    }
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

fn consume(shared: &Arc<Shared>, context: &Context) -> Result<BaseConsumer<Context>, LaneError> {
    let transactional_id = context.driver().transactional_id.clone();
    let stream = &shared.config.stream;
    let mut config = shared.base.clone();
    config
        .set("group.id", &shared.config.app.id)
        .set("group.instance.id", &transactional_id)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("session.timeout.ms", stream.session_timeout.0.as_millis().to_string())
        .set("heartbeat.interval.ms", (stream.session_timeout.0.as_millis() / 10).clamp(100, 1_000).to_string())
        .set("max.poll.interval.ms", stream.session_timeout.0.as_millis().max(300_000).to_string())
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.max.messages.kbytes", "32768")
        .set("topic.metadata.refresh.interval.ms", "60000");
    let client = |source| LaneError::Client { what: "consumer", source };
    let consumer: BaseConsumer<Context> = config.create_with_context(context.clone()).map_err(client)?;
    let topics: Vec<&str> = shared.inputs.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(client)?;
    Ok(consumer)
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
            if std::mem::take(&mut driver.consumer_is_dead) {
                driver.on_consumer_death(consumer);
                return Ok(());
            }
        }
    }
}

impl Driver {
    fn new(shared: Arc<Shared>, number: usize, requests: Sender<restore::Request>, answers: Receiver<restore::Answer>) -> Driver {
        Driver {
            transactional_id: format!("{}-{}-{number}", shared.config.app.id, shared.identity),
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
            generations: HashMap::new(),
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
            seeking_since: None,
            number,
            shared,
        }
    }

    fn connect(&mut self) {
        if self.producer.is_some() || self.connecting.is_some() {
            return;
        }
        let (shared, id) = (self.shared.clone(), self.transactional_id.clone());
        self.connecting = Some(std::thread::spawn(move || connect_producer(&shared, &id)));
    }

    /// Takes the producer once it is connected. Restores wait for it: it has fenced every earlier owner of its id.
    fn connected(&mut self) -> bool {
        if self.connecting.as_ref().is_some_and(|c| c.is_finished())
            && let Some(connecting) = self.connecting.take()
        {
            match connecting.join() {
                Ok(Ok(producer)) => self.producer = Some(producer),
                Ok(Err(source)) => self.give_up(LaneError::Client { what: "producer", source }),
                Err(_) => self.give_up(LaneError::Client { what: "producer", source: KafkaError::Canceled }),
            }
        }
        self.producer.is_some()
    }

    // ---- rebalance -------------------------------------------------------------------------------------------------

    fn ids(&self, list: &TopicPartitionList) -> Vec<TaskId> {
        if list.count() == 0 {
            return Vec::new();
        }
        list.elements().iter().filter_map(|e| self.shared.task(e.topic(), e.partition())).collect()
    }

    fn list(&self, tasks: impl IntoIterator<Item = TaskId>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for task in tasks {
            list.add_partition(self.shared.topic(task), task.partition);
        }
        list
    }

    fn on_assign(&mut self, consumer: &BaseConsumer<Context>, list: &mut TopicPartitionList) {
        // An explicit offset always: without one the client would ask for the committed one and block on a pending commit.
        // It is an absolute one: a logical one (beginning, end) is looked up at the broker, and a late answer to that would
        // move the position after our seek. What is read at 0 before the pause takes effect is dropped by `on_record`.
        if list.count() > 0 {
            let _ = list.set_all_offsets(Offset::Offset(0));
        }
        if let Err(error) = consumer.incremental_assign(list) {
            warn!(lane = self.number, %error, "assign failed: the consumer is rebuilt");
            self.consumer_is_dead = true;
            return;
        }
        let tasks = self.ids(list);
        if tasks.is_empty() {
            return;
        }
        if let Err(error) = consumer.pause(list) {
            warn!(lane = self.number, %error, "pause failed");
        }
        self.shared.metrics.rebalances.assign.inc();
        info!(lane = self.number, tasks = tasks.len(), "partitions assigned");
        let effects = self.protocol.step(Input::Assigned(tasks));
        self.perform(Some(consumer), effects);
    }

    fn on_revoke(&mut self, consumer: &BaseConsumer<Context>, list: &TopicPartitionList) {
        let tasks = self.ids(list);
        if !tasks.is_empty() {
            let lost = consumer.assignment_lost();
            if lost {
                self.shared.metrics.rebalances.lost.inc()
            } else {
                self.shared.metrics.rebalances.revoke.inc()
            };
            info!(lane = self.number, tasks = tasks.len(), lost, "partitions taken back");
            let _ = failpoints::reach(Point::InRevoke);
            self.tell_touched();
            let effects = self.protocol.step(if lost || std::thread::panicking() { Input::Lost(tasks) } else { Input::Revoked(tasks) });
            self.perform(Some(consumer), effects);
        }
        if let Err(error) = consumer.incremental_unassign(list) {
            warn!(lane = self.number, %error, "unassign failed");
        }
    }

    // ---- records ---------------------------------------------------------------------------------------------------

    fn on_record(&mut self, consumer: &BaseConsumer<Context>, record: &BorrowedMessage<'_>) {
        let Some(id) = self.shared.task(record.topic(), record.partition()) else { return };
        let offset = record.offset();
        // A record from before a rewind, or of a task that is not ours (any more): the position decides, not the queue.
        let expected = self.tasks.get(&id).is_some_and(|t| t.seek.is_none() && !t.paused && offset >= t.next);
        if !expected || !self.protocol.is_running(id) || self.fatal.is_some() {
            return;
        }
        if self.tasks.get(&id).is_some_and(|t| !t.touched) && !self.touch(consumer, id, offset) {
            return;
        }
        let before = self.tally_decisions();
        let (Some(producer), Some(task)) = (&self.producer, self.tasks.get_mut(&id)) else { return };
        let stage = if id.topic > 0 { "router" } else { "detector" };
        let (processor, engine, tally) = (&mut self.processor, &self.engine, &mut self.tally);
        let done = match (self.suspects.get(&(id, offset)), &mut task.state) {
            (Some(rejection), _) => processor.give_up(record, rejection, stage, producer, tally).map(|()| 0),
            (None, Some(state)) => guarded(|| processor.detect(record, engine, state, producer, tally, &task.commit)),
            (None, None) => guarded(|| processor.route(record, engine, producer, tally).map(|()| 0)),
        };
        let decided = self.tally_decisions() - before;
        match done {
            Ok(changed) => {
                let Some(task) = self.tasks.get_mut(&id) else { return };
                task.next = offset + 1;
                task.decisions += decided;
                let timestamp_ms = record.timestamp().to_millis().unwrap_or(-1);
                task.stream_time_ms = task.stream_time_ms.max(timestamp_ms);
                task.last = Some(restore::fingerprint(record));
                self.records += 1;
                self.changed_bytes += changed;
                if self.records >= self.shared.config.stream.max_records
                    || self.changed_bytes >= self.shared.config.stream.max_changed_bytes.0
                {
                    self.seal(consumer);
                }
            }
            Err(trouble) => self.on_trouble(consumer, id, offset, trouble),
        }
    }

    fn tally_decisions(&self) -> u64 {
        self.tally.actions.iter().sum()
    }

    fn on_trouble(&mut self, consumer: &BaseConsumer<Context>, id: TaskId, offset: i64, trouble: Trouble) {
        let failure = match trouble {
            Trouble::Transaction(failure) => failure,
            Trouble::Store(error) => {
                self.fatal = Some(error.into());
                Failure::Abortable
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

    // ---- time ------------------------------------------------------------------------------------------------------

    /// What is due now; answers how long to wait for the next record.
    fn tick(&mut self, consumer: &BaseConsumer<Context>, now: Instant) -> Duration {
        if self.connected() {
            while let Some(task) = self.wanted.pop_front() {
                let generation = self.generations.get(&task).copied().unwrap_or_default();
                if self.requests.send(restore::Request { task, generation }).is_err() {
                    break;
                }
            }
        }
        self.take_restored(consumer);
        self.seek(consumer);
        if self.protocol.has_fresh() && self.producer.is_some() {
            let effects = self.protocol.begin_fresh(CommitId(uuid::Uuid::new_v4().as_u128()));
            self.perform(Some(consumer), effects);
            self.seal(consumer);
        }
        let interval = self.shared.config.stream.commit_interval.0;
        match self.opened {
            Some(opened) if now.duration_since(opened) >= interval => self.seal(consumer),
            _ => {}
        }
        if self.opened.is_none() {
            self.between_transactions(now);
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

    fn between_transactions(&mut self, now: Instant) {
        let current = self.shared.live.current();
        if !Arc::ptr_eq(&current, &self.engine) {
            self.engine = current;
        }
        if now.duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            for task in self.tasks.values_mut() {
                let before_ms = task.stream_time_ms.saturating_sub(SWEEP_GRACE_MS);
                if let Some(state) = &mut task.state
                    && let Err(error) = state.sweep(before_ms)
                {
                    self.fatal.get_or_insert(error.into());
                }
            }
        }
        let interval = self.shared.config.state.write_interval.0;
        let due: Vec<TaskId> = self.tasks.iter().filter(|(_, t)| t.is_write_due(now, interval)).map(|(id, _)| *id).collect();
        for id in due {
            self.write(id);
        }
    }

    fn write(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let _ = failpoints::reach(Point::BeforeStoreWrite);
        match task.write() {
            Ok(true) => {
                self.shared.metrics.state_writes.inc();
            }
            Ok(false) => {}
            Err(error) => {
                self.fatal.get_or_insert(error.into());
            }
        }
        let _ = failpoints::reach(Point::AfterStoreWrite);
    }

    fn report(&mut self) {
        let part = name(self.number);
        let restoring = self.protocol.tasks().filter(|id| !self.protocol.is_running(*id)).count();
        self.metrics.restoring.set(restoring as i64);
        self.metrics.running.set(self.tasks.len() as i64);
        let (entries, bytes) =
            self.tasks.values().filter_map(|t| t.state.as_ref()).map(TaskState::cached).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        self.metrics.cache_entries.set(entries as i64);
        self.metrics.cache_bytes.set(bytes as i64);
        if self.producer.is_none() {
            self.shared.health.waiting(&part, "connecting the producer");
        } else if self.protocol.tasks().next().is_none() {
            self.shared.health.waiting(&part, "no partition assigned yet");
        } else if restoring > 0 {
            self.shared.health.waiting(&part, format!("restoring {restoring} tasks"));
        } else {
            self.shared.health.ready(&part);
        }
    }

    fn take_restored(&mut self, consumer: &BaseConsumer<Context>) {
        loop {
            match self.answers.try_recv() {
                Ok(restore::Answer { task: id, generation, outcome: Ok(ready) }) => {
                    if !self.protocol.owns(id) || self.generations.get(&id) != Some(&generation) {
                        drop(ready);
                        self.release(id);
                        continue;
                    }
                    let input = match ready.committed {
                        Some(committed) => Input::Restored(id, committed),
                        None => Input::RestoredFresh(id, ready.next_offset),
                    };
                    self.tasks.insert(id, Task::new(ready));
                    let effects = self.protocol.step(input);
                    self.perform(Some(consumer), effects);
                }
                Ok(restore::Answer { task: id, generation, outcome: Err(error) }) => {
                    if !self.protocol.owns(id) || self.generations.get(&id) != Some(&generation) {
                        continue;
                    }
                    match error {
                        // Brokers come and go, and another lane takes its time: asked again, for as long as it takes.
                        RestoreError::Kafka { .. } | RestoreError::Held(_) => {
                            warn!(lane = self.number, %error, "restore is tried again");
                            self.wanted.push_back(id);
                        }
                        error => self.give_up(error.into()),
                    }
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    if self.is_restoring() {
                        self.give_up(LaneError::Restorer);
                    }
                    return;
                }
            }
        }
    }

    /// Seeks do nothing inside a rebalance callback, so they are done here. Each element's error is looked at.
    fn seek(&mut self, consumer: &BaseConsumer<Context>) {
        let due: BTreeMap<TaskId, i64> = self.tasks.iter().filter_map(|(id, t)| Some((*id, t.seek?))).collect();
        if due.is_empty() {
            self.seeking_since = None;
            return;
        }
        if self.seeking_since.get_or_insert_with(Instant::now).elapsed() > SEEK_LIMIT {
            warn!(lane = self.number, "a partition cannot be positioned: the consumer is rebuilt");
            self.seeking_since = None;
            self.consumer_is_dead = true;
            return;
        }
        let mut list = TopicPartitionList::new();
        for (id, offset) in &due {
            let _ = list.add_partition_offset(self.shared.topic(*id), id.partition, Offset::Offset(*offset));
        }
        let done = match consumer.seek_partitions(list, Duration::from_secs(1)) {
            Ok(done) => done,
            Err(error) => {
                debug!(lane = self.number, %error, "seek failed, tried again");
                return;
            }
        };
        let mut resume = Vec::new();
        for element in done.elements() {
            let Some(id) = self.shared.task(element.topic(), element.partition()) else { continue };
            match (element.error(), self.tasks.get_mut(&id)) {
                (Ok(()), Some(task)) => {
                    task.seek = None;
                    if std::mem::take(&mut task.paused) {
                        resume.push(id);
                    }
                }
                (Err(error), _) => debug!(lane = self.number, %error, "seek of one partition failed, tried again"),
                (Ok(()), None) => {}
            }
        }
        // Only what is paused: resuming a partition that is not has stalled consumers before.
        if !resume.is_empty()
            && let Err(error) = consumer.resume(&self.list(resume))
        {
            warn!(lane = self.number, %error, "resume failed");
        }
    }

    // ---- errors ----------------------------------------------------------------------------------------------------

    fn on_error(&mut self, consumer: &BaseConsumer<Context>, error: &KafkaError) {
        if consumer.client().fatal_error().is_some() || matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            // One death is reported many times; it counts once.
            if !std::mem::replace(&mut self.consumer_is_dead, true) {
                warn!(lane = self.number, %error, "the consumer is fenced or dead: it is rebuilt");
                self.note_fenced();
            }
            return;
        }
        match error {
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => self.name_out_of_range(consumer),
            // Brokers come and go, the client reconnects by itself: not a reason to stop.
            error => debug!(lane = self.number, %error, "consumer error"),
        }
    }

    /// The client does not say which partition's offset is out of range: compare every position with what there is.
    fn name_out_of_range(&mut self, consumer: &BaseConsumer<Context>) {
        for (id, task) in &self.tasks {
            if task.seek.is_some() {
                continue;
            }
            let topic = self.shared.topic(*id);
            if let Ok((low, high)) = consumer.fetch_watermarks(topic, id.partition, Duration::from_secs(5))
                && (task.next < low || task.next > high)
            {
                self.fatal = Some(LaneError::OutOfRange { topic: topic.to_owned(), partition: id.partition, offset: task.next, low, high });
                return;
            }
        }
        // Every position is fine: the client lost its own. A seek in progress repairs that; otherwise only a new consumer does.
        if self.tasks.values().all(|task| task.seek.is_none()) && !self.is_restoring() {
            self.consumer_is_dead = true;
        }
    }

    /// The consumer is thrown away: nothing that it owns may become visible any more.
    fn on_consumer_death(&mut self, consumer: &BaseConsumer<Context>) {
        self.tell_touched();
        let tasks: Vec<TaskId> = self.protocol.tasks().collect();
        let effects = self.protocol.step(Input::Lost(tasks));
        self.perform(Some(consumer), effects);
    }

    fn note_fenced(&mut self) {
        let now = Instant::now();
        self.fenced.push_back(now);
        while self.fenced.front().is_some_and(|t| now.duration_since(*t) > Duration::from_secs(60)) {
            self.fenced.pop_front();
        }
        if self.fenced.len() >= FENCED_LIMIT {
            self.fatal = Some(LaneError::Fenced(self.shared.identity.clone()));
        }
    }

    // ---- effects ---------------------------------------------------------------------------------------------------

    /// Does what the protocol asks for, in order; what happened becomes its next input.
    fn perform(&mut self, consumer: Option<&BaseConsumer<Context>>, effects: Vec<Effect>) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            let input = match effect {
                Effect::Restore(id) => {
                    if self.tasks.remove(&id).is_some() {
                        self.release(id);
                        if let Some(consumer) = consumer
                            && let Err(error) = consumer.pause(&self.list([id]))
                        {
                            warn!(lane = self.number, %error, "pause failed");
                        }
                    }
                    *self.generations.entry(id).or_default() += 1;
                    self.wanted.push_back(id);
                    None
                }
                Effect::Resume(id, offset) | Effect::Rewind(id, offset) => {
                    if let Some(task) = self.tasks.get_mut(&id) {
                        task.rewind(offset);
                    }
                    None
                }
                Effect::Begin => self.begin(),
                Effect::Seal(attempt, targets) => Some(Input::Sealed(self.commit(consumer, attempt, &targets))),
                Effect::Abort => Some(Input::Aborted(self.abort())),
                Effect::Apply(id, committed) => {
                    self.apply(id, committed);
                    None
                }
                Effect::Drop(id) => {
                    if let Some(task) = self.tasks.get_mut(&id) {
                        task.forget();
                    }
                    None
                }
                Effect::Close(id) => {
                    self.close(id);
                    None
                }
                Effect::Recover(ids) => Some(Input::Resolved(self.recover(consumer, &ids))),
            };
            if let Some(input) = input {
                queue.extend(self.protocol.step(input));
            }
        }
        if self.protocol.phase() == Phase::Idle && self.opened.take().is_some() {
            (self.records, self.changed_bytes) = (0, 0);
            self.tally.clear();
        }
    }

    fn begin(&mut self) -> Option<Input> {
        self.opened = Some(Instant::now());
        self.tally.clear();
        let begun = self.producer.as_ref().map_or(Err(Failure::InDoubt), LaneProducer::begin);
        let begun = begun.and_then(|()| failpoints::reach(Point::AfterBegin));
        begun.err().map(Input::Failed)
    }

    fn abort(&mut self) -> bool {
        self.shared.metrics.commits.aborts.inc();
        self.aborts_in_row += 1;
        if self.aborts_in_row > PATIENT_ABORTS {
            let pause = (self.aborts_in_row - PATIENT_ABORTS).saturating_mul(50).min(1_000);
            warn!(lane = self.number, aborts = self.aborts_in_row, "transactions are aborted one after the other");
            std::thread::sleep(Duration::from_millis(pause));
        }
        self.producer.as_ref().is_some_and(|p| p.abort().is_ok())
    }

    fn commit(
        &mut self,
        consumer: Option<&BaseConsumer<Context>>,
        attempt: CommitId,
        targets: &[(TaskId, Committed)],
    ) -> Result<(), Failure> {
        let started = Instant::now();
        failpoints::reach(Point::BeforeSeal)?;
        let producer = self.producer.take().ok_or(Failure::InDoubt)?;
        let result = self.commit_with(&producer, consumer, attempt, targets);
        self.producer = Some(producer);
        match result {
            Ok(()) => {
                let commits = &self.shared.metrics.commits;
                commits.total.inc();
                commits.seconds.observe(started.elapsed().as_secs_f64());
                commits.records.observe(self.records as f64);
                self.metrics.committed_now();
                // Only now: a kill here finds a commit that the store has not heard of.
                failpoints::reach(Point::AfterCommit)
            }
            Err(failure) => {
                debug!(lane = self.number, ?failure, "commit failed");
                Err(failure)
            }
        }
    }

    fn commit_with(
        &mut self,
        producer: &LaneProducer,
        consumer: Option<&BaseConsumer<Context>>,
        attempt: CommitId,
        targets: &[(TaskId, Committed)],
    ) -> Result<(), Failure> {
        let consumer = consumer.ok_or(Failure::InDoubt)?;
        let mut offsets = TopicPartitionList::new();
        for (tag, (id, target)) in targets.iter().enumerate() {
            let Some(task) = self.tasks.get_mut(id) else { continue };
            task.seal(&self.shared, producer, &self.engine, *id, *target, tag + 1, &mut self.tally)?;
            let metadata = Metadata {
                v: LAYOUT,
                history: task.history.clone(),
                seq: target.seq,
                commit_id: attempt.to_hex(),
                owner: self.transactional_id.clone(),
                partitions: self.shared.partitions,
                fingerprint: task.last.map_or_else(|| task.found_fingerprint.clone(), restore::format_fingerprint),
            };
            let mut element = offsets.add_partition(self.shared.topic(*id), id.partition);
            element.set_offset(Offset::Offset(target.next_offset)).map_err(|_| Failure::Abortable)?;
            element.set_metadata(serde_json::to_string(&metadata).map_err(|_| Failure::Abortable)?);
        }
        failpoints::reach(Point::AfterChangelog)?;
        producer.drain()?;
        for (tag, offset) in producer.placed() {
            if let Some(task) = targets.get(tag.wrapping_sub(1)).and_then(|(id, _)| self.tasks.get_mut(id)) {
                task.marker_offset = offset;
            }
        }
        failpoints::reach(Point::AfterDrain)?;
        // The group's generation is read as late as possible: an earlier look is refused after a rebalance.
        let group = consumer.group_metadata().ok_or(Failure::Abortable)?;
        producer.send_offsets(&offsets, &group).inspect_err(|failure| {
            if *failure == Failure::Abortable {
                self.shared.metrics.commits.rebalances.inc();
            }
        })?;
        failpoints::reach(Point::AfterSendOffsets)?;
        producer.commit()
    }

    fn apply(&mut self, id: TaskId, committed: Committed) {
        let budget = self.shared.config.state.cache_bytes.0 / self.shared.config.stream.lanes.max(1) / self.tasks.len().max(1);
        // Counted when the commit is known, whether it was known at once or had to be looked up.
        self.shared.metrics.add(&self.tally);
        self.tally.clear();
        self.suspects.retain(|(task, offset), _| *task != id || *offset >= committed.next_offset);
        self.aborts_in_row = 0;
        if let Some(task) = self.tasks.get_mut(&id) {
            task.apply(committed, budget);
        }
        let _ = failpoints::reach(Point::AfterApply);
    }

    fn close(&mut self, id: TaskId) {
        self.wanted.retain(|wanted| *wanted != id);
        self.suspects.retain(|(task, _), _| *task != id);
        if let Some(mut task) = self.tasks.remove(&id) {
            if let Err(error) = task.write() {
                warn!(lane = self.number, %error, "could not write on close; the changelog has it");
            }
            drop(task);
            self.release(id);
        }
    }

    fn release(&self, id: TaskId) {
        if id.topic == 0 {
            self.shared.registry.release(id.partition);
        }
    }

    /// The one recovery path: a new producer with the same id, then the metadata tells what became of the attempt.
    fn recover(&mut self, consumer: Option<&BaseConsumer<Context>>, ids: &[TaskId]) -> Vec<(TaskId, Found)> {
        self.shared.metrics.commits.rebuilds.inc();
        // A transaction that outlived its timeout is fenced by the broker itself: no other process is behind that.
        let timed_out = self.opened.is_some_and(|opened| opened.elapsed() >= self.shared.config.stream.transaction_timeout.0);
        if !timed_out && self.producer.as_ref().is_some_and(LaneProducer::is_fenced) {
            self.note_fenced();
        }
        warn!(lane = self.number, tasks = ids.len(), "the outcome of a transaction is unknown: rebuilding the producer and looking it up");
        self.shared.health.waiting(&name(self.number), "looking up the outcome of a transaction");
        self.producer = None;
        match connect_producer(&self.shared, &self.transactional_id) {
            Ok(producer) => self.producer = Some(producer),
            Err(source) => {
                self.give_up(LaneError::Client { what: "producer", source });
                return Vec::new();
            }
        }
        let Some(consumer) = consumer else { return Vec::new() };
        let deadline = Instant::now() + restore::patience(&self.shared.config);
        loop {
            let found = consumer.committed_offsets(self.list(ids.iter().copied()), Duration::from_secs(2));
            match found.and_then(|found| self.outcomes(ids, &found)) {
                Ok(outcomes) => return outcomes,
                Err(error) if !self.shared.is_stopping() && Instant::now() < deadline => {
                    debug!(lane = self.number, %error, "metadata not readable yet, asking again");
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(_) => {
                    let id = ids.first().copied().unwrap_or(TaskId { topic: 0, partition: -1 });
                    let pending = RestoreError::Pending { topic: self.shared.topic(id).to_owned(), partition: id.partition };
                    self.give_up(pending.into());
                    return Vec::new();
                }
            }
        }
    }

    fn outcomes(&self, ids: &[TaskId], found: &TopicPartitionList) -> Result<Vec<(TaskId, Found)>, KafkaError> {
        let outcome = |id: &TaskId| {
            let Some(element) = found.find_partition(self.shared.topic(*id), id.partition) else { return Ok((*id, Found::Nothing)) };
            element.error()?;
            let commit = Metadata::parse(element.metadata()).and_then(|m| CommitId::from_hex(&m.commit_id));
            Ok((*id, commit.map_or(Found::Nothing, Found::Attempt)))
        };
        ids.iter().map(outcome).collect()
    }

    /// The lane cannot go on; while the process stops anyway that is no news.
    fn give_up(&mut self, error: LaneError) {
        if !self.shared.is_stopping() {
            self.fatal.get_or_insert(error);
        }
    }

    /// The last commit, and every store written and closed.
    fn finish(&mut self, consumer: &BaseConsumer<Context>, in_trouble: bool) {
        self.tell_touched();
        let tasks: Vec<TaskId> = self.protocol.tasks().collect();
        let effects = self.protocol.step(if in_trouble { Input::Lost(tasks) } else { Input::Revoked(tasks) });
        self.perform(Some(consumer), effects);
        info!(lane = self.number, "lane stopped");
    }
}

/// Connects, again and again while brokers are away; a wrong property fails at once.
fn connect_producer(shared: &Shared, id: &str) -> Result<LaneProducer, KafkaError> {
    loop {
        match LaneProducer::connect(&shared.base, id, shared.config.stream.transaction_timeout.0, topics::max_record_bytes(&shared.config))
        {
            Err(KafkaError::Transaction(error)) if !shared.is_stopping() => {
                warn!(%error, "init_transactions failed, tried again");
                std::thread::sleep(Duration::from_millis(500));
            }
            other => return other,
        }
    }
}

impl Task {
    fn new(ready: Ready) -> Task {
        Task {
            state: ready.state,
            history: ready.history,
            next: ready.next_offset,
            committed_next: ready.next_offset,
            touched: false,
            last: None,
            last_committed: None,
            found_fingerprint: ready.fingerprint,
            stream_time_ms: 0,
            marker_offset: ready.marker_offset,
            commit: String::new(),
            decisions: 0,
            digests: ready.digests,
            sealed_digests: None,
            seek: None,
            paused: true,
            local: None,
            unwritten_since: None,
        }
    }

    fn rewind(&mut self, offset: i64) {
        self.next = offset;
        self.seek = Some(offset);
    }

    fn forget(&mut self) {
        if let Some(state) = &mut self.state {
            state.abort();
        }
        (self.touched, self.decisions) = (false, 0);
        self.last = self.last_committed;
    }

    fn is_write_due(&self, now: Instant, interval: Duration) -> bool {
        let full = self.state.as_ref().is_some_and(TaskState::is_full);
        full || self.unwritten_since.is_some_and(|since| now.duration_since(since) >= interval)
    }

    /// Changed states, then the marker, to the task's changelog partition; an epoch when rules or flags changed.
    fn seal(
        &mut self,
        shared: &Shared,
        producer: &LaneProducer,
        engine: &Engine,
        id: TaskId,
        target: Committed,
        tag: usize,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let timestamp_ms = self.stream_time_ms;
        let partition = id.partition.rem_euclid(shared.partitions.max(1));
        let record = |key: &str, value: Option<&[u8]>, tag: usize| {
            producer.send(&Outgoing {
                topic: &shared.changelog,
                partition,
                key: Some(key.as_bytes()),
                value,
                timestamp_ms,
                headers: &[],
                tag,
            })
        };
        let mut states = 0;
        if let Some(state) = &mut self.state {
            states = state.encode(|entity, bytes| {
                tally.changelog_records += 1;
                tally.changelog_bytes += (entity.len() + bytes.map_or(0, <[u8]>::len)) as u64;
                record(entity, bytes, UNTAGGED)
            })?;
        }
        let digests = (engine.rules.digest.clone(), engine.flags_digest.clone());
        let marker = Marker {
            v: LAYOUT,
            app: shared.config.app.id.clone(),
            history: self.history.clone(),
            seq: target.seq,
            commit_id: target.commit_id.to_hex(),
            next_offset: target.next_offset,
            stream_time_ms: self.stream_time_ms,
            partitions: shared.partitions,
            rules: digests.0.clone(),
            flags: digests.1.clone(),
            states,
            decisions: self.decisions,
        };
        let key = restore::marker_key((id.topic > 0).then(|| shared.topic(id)), id.partition);
        let value = serde_json::to_vec(&marker).map_err(|_| Failure::Abortable)?;
        tally.changelog_records += 1;
        tally.changelog_bytes += (key.len() + value.len()) as u64;
        record(&key, Some(&value), tag)?;
        if id.topic == 0 && self.digests.as_ref() != Some(&digests) {
            self.epoch(shared, producer, id, target, &digests)?;
        }
        self.sealed_digests = Some(digests);
        Ok(())
    }

    /// The digests of rules and flags that decided this task's records up to here from the last commit on.
    fn epoch(
        &self,
        shared: &Shared,
        producer: &LaneProducer,
        id: TaskId,
        target: Committed,
        digests: &(String, String),
    ) -> Result<(), Failure> {
        let epoch = serde_json::json!({
            "v": LAYOUT, "task": id.partition, "topic": shared.topic(id), "seq": target.seq, "first_offset": self.committed_next,
            "rules": digests.0, "flags": digests.1,
        });
        let key = restore::marker_key(None, id.partition);
        let (topic, value) = (shared.config.epochs_topic(), epoch.to_string());
        let record = Outgoing {
            topic: &topic,
            partition: 0,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            timestamp_ms: self.stream_time_ms,
            headers: &[],
            tag: UNTAGGED,
        };
        Ok(producer.send(&record)?)
    }

    fn apply(&mut self, committed: Committed, cache_budget: usize) {
        if let Some(state) = &mut self.state {
            state.commit(cache_budget);
            self.unwritten_since.get_or_insert_with(Instant::now);
            self.local = Some(Local {
                history: self.history.clone(),
                seq: committed.seq,
                commit_id: committed.commit_id.to_hex(),
                marker_offset: self.marker_offset,
                marker_time_ms: jiff::Timestamp::now().as_millisecond(),
            });
        }
        self.digests = self.sealed_digests.take().or(self.digests.take());
        self.next = committed.next_offset;
        self.committed_next = committed.next_offset;
        (self.touched, self.decisions) = (false, 0);
        self.last_committed = self.last;
    }

    fn write(&mut self) -> Result<bool, crate::state::StoreError> {
        let (Some(state), Some(local)) = (&mut self.state, self.local.take()) else { return Ok(false) };
        self.unwritten_since = None;
        state.write(Some(&local))?;
        Ok(true)
    }
}
