//! A process: it does what `src/stream` does, in the same order, with the real protocol, engine and state codec. Whoever
//! changes the order there changes it here.
//!
//! It is an `async fn` without a runtime: the scheduler polls it, each [`pause`] hands back to the scheduler, and a process
//! that is killed is a future that is dropped. Fields that are only metrics, logs or time are left out.

mod assignment;
mod effects;
pub mod restore;
mod states;
mod task;

use crate::choices::About;
use crate::client::{Consumer, Polled, Producer};
use crate::disk::Damaged;
use crate::kafka::Topic;
use crate::kafka::group::News;
use crate::kafka::log::{Record, Value};
use crate::workload::{Output, engine, observe, panics_on, position};
use crate::world::{Bug, Counted, Seen, Shared, name, pause};
use restore::{Desk, Request};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use task::Task;
use tripline_core::engine::{Made, Outcome};
use tripline_core::entity::Entity;
use tripline_core::event::Event;
use tripline_core::protocol::{Failure, Input, Lane, Phase, TaskId};
use tripline_core::rejection::Reason;
use tripline_core::state::{ActorState, DELETE_GRACE_MS};
use tripline_core::stream_time::{self, reached_by};

/// Records of one transaction, and hints looked at in it: small, so that floods are split.
const MAX_RECORDS: usize = 6;

/// In how many of 256 cases expired states are looked for.
const SWEEPS: u8 = 128;

/// Why a record could not be finished now.
enum Trouble {
    Transaction(Failure),
    Store,
    Hopeless(Reason),
}

impl From<Damaged> for Trouble {
    fn from(Damaged: Damaged) -> Trouble {
        Trouble::Store
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Transaction(failure)
    }
}

/// One process with one lane.
pub struct Driver {
    shared: Shared,
    number: usize,
    protocol: Lane,
    producer: Option<Producer>,
    consumer: Consumer,
    tasks: BTreeMap<TaskId, Task>,
    desk: Rc<Desk>,
    wanted: VecDeque<TaskId>,
    /// Restores under way.
    restores: BTreeMap<TaskId, Request>,
    generation: u64,
    /// Tasks whose store is of no use, until that is asked for.
    spoiled: BTreeSet<TaskId>,
    suspects: BTreeMap<(TaskId, i64), Reason>,
    tally: Counted,
    /// Turns of the loop that the open transaction still waits for more records.
    patience: Option<usize>,
    records: usize,
}

/// Runs a process until everybody shall stop.
pub async fn run(shared: Shared, number: usize, desk: Rc<Desk>) {
    let consumer = Consumer::join(&shared, number);
    let mut driver = Driver {
        shared,
        number,
        protocol: Lane::default(),
        producer: None,
        consumer,
        tasks: BTreeMap::new(),
        desk,
        wanted: VecDeque::new(),
        restores: BTreeMap::new(),
        generation: 0,
        spoiled: BTreeSet::new(),
        suspects: BTreeMap::new(),
        tally: Counted::default(),
        patience: None,
        records: 0,
    };
    while !driver.shared.world().is_stopping {
        pause().await;
        match driver.consumer.poll() {
            Polled::News(News::Assigned(tasks)) => driver.on_assign(tasks).await,
            Polled::News(News::Revoked(tasks)) => driver.on_revoke(tasks).await,
            Polled::News(News::Lost) => driver.on_lost().await,
            Polled::Record(id, offset, record) => driver.on_record(id, offset, record).await,
            Polled::Nothing => {}
        }
        driver.tick().await;
    }
    driver.finish().await;
}

impl Driver {
    /// As `Driver::on_record` of `src/stream/lane/mod.rs`.
    async fn on_record(&mut self, id: TaskId, offset: i64, record: Record) {
        let expected = self.tasks.get(&id).is_some_and(|t| t.seek.is_none() && !t.is_paused && offset >= t.next);
        if !expected || !self.protocol.is_running(id) {
            return;
        }
        if self.tasks.get(&id).is_some_and(|t| !t.is_touched) && !self.touch(id, offset).await {
            return;
        }
        let suspect = self.suspects.get(&(id, offset)).copied();
        let is_routed = self.shared.world().is_routed;
        if id.topic == 0 && !is_routed && suspect.is_none() {
            let newest_ms = self.tasks[&id].stream_time_ms.max(record.timestamp_ms);
            if !self.fire(id, offset, reached_by(newest_ms)).await {
                return;
            }
        }
        let done = match (suspect, id.topic) {
            (Some(reason), _) => self.dead_letter(id, offset, reason).await,
            (None, 0) => self.detect(id, offset, &record).await,
            (None, _) => self.route(id, offset, &record).await,
        };
        match done {
            Ok(()) => {
                let Some(task) = self.tasks.get_mut(&id) else { return };
                task.next = offset + 1;
                task.stream_time_ms = task.stream_time_ms.max(record.timestamp_ms);
                task.input_time_ms = task.input_time_ms.max(record.timestamp_ms);
                self.records += 1;
                if self.records >= MAX_RECORDS {
                    self.seal().await;
                }
            }
            Err(trouble) => self.on_trouble(id, offset, trouble).await,
        }
    }

    async fn dead_letter(&mut self, id: TaskId, offset: i64, reason: Reason) -> Result<(), Trouble> {
        let (key, value) = (format!("{}-{}", id.topic, id.partition).into(), Value::DeadLetter(offset, reason.name()));
        self.send((Topic::DeadLetters, 0), Record { key, value, timestamp_ms: 0 }).await?;
        self.tally.rejected += 1;
        Ok(())
    }

    async fn send(&mut self, at: (Topic, i32), record: Record) -> Result<(), Failure> {
        self.producer.as_mut().ok_or(Failure::InDoubt)?.send(at, record, 0).await
    }

    async fn route(&mut self, id: TaskId, offset: i64, record: &Record) -> Result<(), Trouble> {
        let event = match Event::decode(record.bytes()) {
            Ok(event) => event,
            Err(rejection) => return self.dead_letter(id, offset, rejection.reason).await,
        };
        let mut observations = Vec::new();
        let addressed = engine().address(event, &position(id, offset), record.timestamp_ms);
        let _ = addressed.each(|observation| {
            let mut value = Vec::new();
            observation.encode(&mut value);
            observations.push((observation.entity.to_string(), value));
            Ok::<(), ()>(())
        });
        for (key, value) in observations {
            let at = (Topic::Keyed, crate::workload::partition_of(&key));
            let observation = Record { key: key.into(), value: Value::Bytes(value.into()), timestamp_ms: record.timestamp_ms };
            self.send(at, observation).await?;
        }
        self.tally.routed += 1;
        self.shared.saw(Seen::Routed);
        Ok(())
    }

    async fn detect(&mut self, id: TaskId, offset: i64, record: &Record) -> Result<(), Trouble> {
        let is_routed = self.shared.world().is_routed;
        let observation = match observe(is_routed, id, offset, record) {
            Ok(observation) => observation,
            Err(rejection) => return self.dead_letter(id, offset, rejection.reason).await,
        };
        let mut made = Made::default();
        let outcome = self.change(id, &observation.entity.to_string(), |actor| {
            stream_time::settle(engine(), &observation, actor, &mut made);
            engine().process(&observation, actor, &mut made)
        })?;
        if panics_on(&observation) {
            self.shared.saw(Seen::Panicked);
            return Err(Trouble::Hopeless(Reason::Panicked));
        }
        match outcome {
            Outcome::Processed => self.tally.processed += 1,
            Outcome::Duplicate => self.tally.duplicate += 1,
            Outcome::Late => self.tally.late += 1,
        }
        self.hand_out(id, made, record.timestamp_ms).await
    }

    fn change<R>(&mut self, id: TaskId, entity: &str, work: impl FnOnce(&mut ActorState) -> R) -> Result<R, Damaged> {
        let world = self.shared.world();
        let task = self.tasks.get_mut(&id).expect("a record of a task that runs");
        task.states.change(&world.disks[self.number][&id.partition], entity, work)
    }

    async fn hand_out(&mut self, id: TaskId, made: Made, timestamp_ms: i64) -> Result<(), Trouble> {
        for output in Output::all(made) {
            let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
            let kind = output.kind();
            task.decisions += u64::from(kind == 0);
            let record = output.into_record(&task.commit, timestamp_ms);
            self.send((Topic::Outputs, kind), record).await?;
        }
        Ok(())
    }

    /// As `Driver::fire`: what is due fires before the record that brought the time; a flood is spread over transactions.
    async fn fire(&mut self, id: TaskId, offset: i64, until_ms: i64) -> bool {
        let due_ms = until_ms.saturating_sub(engine().lateness_ms());
        let most = MAX_RECORDS.saturating_sub(self.records).max(1);
        for looked in 0.. {
            let fired = match self.next_due(id, due_ms) {
                Ok(None) => return true,
                Ok(Some(_)) if looked >= most => break,
                Ok(Some(entity)) => self.fire_one(id, &entity, until_ms).await,
                Err(damaged) => Err(damaged.into()),
            };
            if let Err(trouble) = fired {
                self.on_trouble(id, offset, trouble).await;
                return false;
            }
        }
        self.seal().await;
        // Unless the transaction was aborted and the task stands before the record anyway.
        if let Some(task) = self.tasks.get_mut(&id).filter(|task| task.next == offset) {
            task.rewind(offset);
        }
        false
    }

    fn next_due(&self, id: TaskId, due_ms: i64) -> Result<Option<Rc<str>>, Damaged> {
        let world = self.shared.world();
        let due = self.tasks[&id].states.due(&world.disks[self.number][&id.partition], due_ms)?;
        Ok(due.map(|(_, entity)| entity))
    }

    async fn fire_one(&mut self, id: TaskId, entity: &str, until_ms: i64) -> Result<(), Trouble> {
        let mut made = Made::default();
        let about = Entity::parse(entity).expect("a key of ours");
        self.change(id, entity, |actor| engine().fire_due(&about, until_ms, actor, &mut made))?;
        self.records += 1;
        self.shared.saw(Seen::Fired);
        self.hand_out(id, made, until_ms).await
    }

    async fn on_trouble(&mut self, id: TaskId, offset: i64, trouble: Trouble) {
        let failure = match trouble {
            Trouble::Transaction(failure) => failure,
            Trouble::Store => return self.on_store_error(id).await,
            Trouble::Hopeless(reason) => {
                self.suspects.insert((id, offset), reason);
                Failure::Abortable
            }
        };
        self.tell_touched();
        let effects = self.protocol.step(Input::Failed(failure));
        self.perform(effects).await;
    }

    /// As `Driver::on_store_error`.
    async fn on_store_error(&mut self, id: TaskId) {
        self.shared.saw(Seen::Spoiled);
        self.shared.note(|| format!("p{}: the store of {} is damaged", self.number, name(id)));
        self.spoiled.insert(id);
        self.tell_touched();
        let effects = self.protocol.step(Input::Spoiled(id));
        self.perform(effects).await;
    }

    async fn touch(&mut self, id: TaskId, offset: i64) -> bool {
        let attempt = self.shared.world().new_id();
        let effects = self.protocol.step(Input::Touched(id, offset, attempt));
        self.perform(effects).await;
        let Phase::Open(attempt) = self.protocol.phase() else { return false };
        let seq = self.protocol.committed(id).map_or(0, |c| c.seq + 1);
        if let Some(task) = self.tasks.get_mut(&id) {
            task.is_touched = true;
            task.commit = format!("{}-{}/{seq}/{}", id.topic, id.partition, attempt.to_hex()).into();
        }
        true
    }

    fn tell_touched(&mut self) {
        let Phase::Open(attempt) = self.protocol.phase() else { return };
        for (id, task) in self.tasks.iter().filter(|(_, t)| t.is_touched) {
            self.protocol.step(Input::Touched(*id, task.next, attempt));
        }
    }

    async fn seal(&mut self) {
        self.tell_touched();
        let effects = self.protocol.step(Input::SealDue);
        self.perform(effects).await;
    }

    /// As `Driver::tick`.
    async fn tick(&mut self) {
        if self.producer.is_none() {
            self.producer = self.desk.producer.take();
        }
        if self.producer.is_some() {
            while let Some(task) = self.wanted.pop_front() {
                let request = self.request(task);
                self.desk.requests.borrow_mut().push_back(request);
            }
        }
        self.take_restored().await;
        self.seek();
        if self.protocol.has_fresh() && self.producer.is_some() {
            let attempt = self.shared.world().new_id();
            let effects = self.protocol.begin_fresh(attempt);
            self.perform(effects).await;
            self.seal().await;
        }
        match &mut self.patience {
            Some(0) => self.seal().await,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.patience.is_none() {
            self.between_transactions().await;
        }
        self.check_bounds();
    }

    async fn between_transactions(&mut self) {
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for &id in &ids {
            if self.sweep(id).is_err() {
                self.on_store_error(id).await;
            }
        }
        for &id in &ids {
            if self.tasks.get(&id).is_some_and(Task::is_write_due) {
                pause().await;
                if self.write(id).is_err() {
                    self.on_store_error(id).await;
                }
                pause().await;
            }
        }
    }

    fn sweep(&mut self, id: TaskId) -> Result<(), Damaged> {
        let world = &mut *self.shared.world();
        let Some(task) = self.tasks.get_mut(&id).filter(|_| id.topic == 0) else { return Ok(()) };
        if world.choices.strikes(About::Process, SWEEPS) {
            task.states.sweep(&world.disks[self.number][&id.partition], task.input_time_ms.saturating_sub(DELETE_GRACE_MS))?;
        }
        Ok(())
    }

    fn write(&mut self, id: TaskId) -> Result<(), Damaged> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        let mut world = self.shared.world();
        world.disks[self.number].get_mut(&id.partition).map_or(Ok(()), |store| task.write(store))
    }

    /// Promise 6, as far as it is about the commit protocol.
    fn check_bounds(&self) {
        let tasks = self.protocol.tasks().count();
        let queued = self.wanted.len() + self.desk.requests.borrow().len() + self.desk.answers.borrow().len();
        let held = self.tasks.values().filter(|task| !task.is_touched).map(|task| task.states.held());
        let (cached, unwritten) = held.fold((0, 0), |most, held| (held.0.max(most.0), held.1.max(most.1)));
        let are_ours = self.tasks.len().max(self.restores.len()).max(self.spoiled.len()) <= tasks;
        let is_within = are_ours && queued <= 64 && cached <= 8 && unwritten <= 16 && self.suspects.len() <= 64;
        if !is_within {
            self.shared.violated(format!("p{}: {queued} requests, {cached} cached, {unwritten} unwritten", self.number));
        }
    }
}
