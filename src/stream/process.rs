//! What happens to one record: routed, or counted and decided.

use super::Shared;
use super::failpoints::{self, Point};
use super::headers::headers_of;
use super::lag::Lag;
use super::outputs::Outputs;
use super::partition::{crc32_partition, murmur2_partition};
use super::producer::{LaneProducer, SendError};
use crate::config::Partitioner;
use crate::state::{Hint, StoreError, TaskState};
use crate::telemetry::tally::Tally;
use rdkafka::message::{BorrowedMessage, Message};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tripline_core::decision::Decision;
use tripline_core::engine::{Engine, Made, Outcome, Selection};
use tripline_core::entity::Entity;
use tripline_core::event::Event;
use tripline_core::event::cloud::ContentMode;
use tripline_core::observation::{Observation, Position};
use tripline_core::protocol::Failure;
use tripline_core::rejection::{Reason, Rejection};
use tripline_core::state::ActorState;
use tripline_core::stream_time;

/// Why a record could not be finished now.
#[derive(Debug)]
pub enum Trouble {
    /// The transaction failed.
    Transaction(Failure),
    /// The disk failed: the task cannot go on.
    Store(StoreError),
    /// This record cannot be finished, however often it is tried.
    Hopeless(Rejection),
}

impl From<SendError> for Trouble {
    fn from(error: SendError) -> Trouble {
        match error {
            SendError::TooLarge => {
                Trouble::Hopeless(Rejection::new(Reason::TooLarge, "what is decided about it is larger than a topic takes"))
            }
            SendError::Failed(failure) => Trouble::Transaction(failure),
        }
    }
}

/// Runs `work` on a record; a panic in it is our own bug, and the record's end, not the lane's.
pub fn guarded<R>(work: impl FnOnce() -> Result<R, Trouble>) -> Result<R, Trouble> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Trouble::Hopeless(Rejection::new(Reason::Panicked, "evaluating this record failed inside tripline: please report it")))
    })
}

/// Processes records of one lane; buffers are reused.
#[derive(Debug)]
pub struct Processor {
    shared: Arc<Shared>,
    outputs: Outputs,
    selection: Selection,
    made: Made,
    key: String,
    /// Reference time of the observation that was looked at last, milliseconds.
    pub reference_ms: i64,
    /// How long after its cause each thing is done.
    pub lag: Lag,
    /// A rule of the engine in use fires on time.
    pub needs_time: bool,
    /// The hint that is being looked at.
    looking: Option<Hint>,
}

/// What to fire: everything that is due by a time, within the bounds of a transaction.
#[derive(Debug, Clone, Copy)]
pub struct Firing<'a> {
    /// The stream time, milliseconds.
    pub until_ms: i64,
    /// Time of the record that brought it: decisions are produced with no later one.
    pub timestamp_ms: i64,
    /// Hints to look at, at most.
    pub most: usize,
    /// Bytes of changed state, at most.
    pub most_bytes: usize,
    /// Hints that failed before: passed over.
    pub stuck: &'a HashSet<Hint>,
}

/// What was fired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fired {
    /// Hints looked at.
    pub looked: usize,
    /// Bytes of state that now count as changed.
    pub changed: usize,
    /// Nothing more is due.
    pub is_done: bool,
}

impl Processor {
    /// For a lane.
    pub fn new(shared: Arc<Shared>) -> Processor {
        Processor {
            outputs: Outputs::new(shared.clone()),
            selection: Selection::default(),
            made: Made::default(),
            key: String::new(),
            reference_ms: 0,
            lag: Lag::new(&shared.config),
            needs_time: false,
            looking: None,
            shared,
        }
    }

    /// Routes a record of an input topic: decode, address, hand on.
    pub fn route(
        &mut self,
        record: &BorrowedMessage<'_>,
        engine: &Engine,
        producer: &LaneProducer,
        tally: &mut Tally,
        commit: &str,
    ) -> Result<(), Trouble> {
        let event = match self.decode(record) {
            Ok(event) => event,
            Err(rejection) => {
                self.outputs.dead_letter(producer, record, &rejection, "router", commit)?;
                tally.reject_input(rejection.reason);
                return Ok(());
            }
        };
        let timestamp_ms = record.timestamp().to_millis().unwrap_or(event.event_time_ms);
        let addressed = engine.address(event, &position(record), timestamp_ms);
        if addressed.is_empty() {
            tally.unaddressed += 1;
            return Ok(());
        }
        addressed.each(|observation| {
            tally.observations += 1;
            self.outputs.observation(producer, observation, timestamp_ms)
        })?;
        tally.routed += 1;
        Ok(())
    }

    /// Counts a record of the keyed topic and decides. `Ok` carries the bytes of state that now count as changed.
    pub fn detect(
        &mut self,
        record: &BorrowedMessage<'_>,
        engine: &Engine,
        state: &mut TaskState,
        producer: &LaneProducer,
        tally: &mut Tally,
        commit: &str,
    ) -> Result<usize, Trouble> {
        let observation = match self.observe(record, engine) {
            Ok(Some(observation)) => observation,
            Ok(None) => {
                tally.concerns_nobody += 1;
                return Ok(0);
            }
            Err(rejection) => {
                self.outputs.dead_letter(producer, record, &rejection, "detector", commit)?;
                tally.reject(rejection.reason);
                return Ok(0);
            }
        };
        self.reference_ms = observation.reference_ms;
        let lag_ms = self.lag.of_observation(observation.reference_ms);
        let (selection, made, key) = (&mut self.selection, &mut self.made, &mut self.key);
        made.clear();
        let needs_state = engine.select(&observation, selection);
        let needs_time = self.needs_time;
        let mut timed = 0;
        let evaluate = |actor: &mut ActorState| {
            if needs_time {
                stream_time::settle(engine, &observation, actor, made);
                timed = counted(&made.decisions);
            }
            let outcome = engine.apply(&observation, selection, actor, made);
            // After the state was changed: the worst moment.
            let _ = failpoints::reach(Point::InRecord);
            outcome
        };
        let (outcome, changed) = if needs_state {
            key.clear();
            observation.entity.write_key(key);
            if needs_time { state.change_timed(key, evaluate) } else { state.change(key, evaluate) }.map_err(Trouble::Store)?
        } else {
            (Outcome::Processed, 0)
        };
        let timestamp_ms = record.timestamp().to_millis().unwrap_or(observation.event.event_time_ms);
        match outcome {
            Outcome::Processed => tally.processed += 1,
            Outcome::Duplicate => tally.duplicate += 1,
            Outcome::Late => {
                tally.late += 1;
                self.outputs.late(producer, &observation, timestamp_ms, commit)?;
            }
        }
        tally.clamped += u64::from(observation.clamped);
        tally.timed_decisions += timed;
        self.hand_out(producer, tally, timestamp_ms, lag_ms, commit)?;
        Ok(changed)
    }

    /// Fires what is due, in order of time and entity. What is not done when a bound is reached is done by the next call.
    pub fn fire(
        &mut self,
        engine: &Engine,
        firing: Firing<'_>,
        state: &mut TaskState,
        producer: &LaneProducer,
        tally: &mut Tally,
        commit: &str,
    ) -> Result<Fired, Trouble> {
        let mut fired = Fired::default();
        let due_ms = firing.until_ms.saturating_sub(engine.lateness_ms());
        while state.may_be_due(due_ms) {
            if fired.looked >= firing.most || fired.changed >= firing.most_bytes {
                return Ok(fired);
            }
            let Some(hint) = state.pop_due(due_ms).map_err(Trouble::Store)? else { break };
            fired.looked += 1;
            let Some(entity) = Entity::parse(&hint.1).filter(|_| !firing.stuck.contains(&hint)) else { continue };
            self.looking = Some(hint.clone());
            let made = &mut self.made;
            made.clear();
            let look = |actor: &mut ActorState| {
                engine.fire_due(&entity, firing.until_ms, actor, made);
                let _ = failpoints::reach(Point::InFiring);
            };
            let (_, changed) = state.look(&hint, look).map_err(Trouble::Store)?;
            fired.changed += changed;
            tally.timed_decisions += counted(&self.made.decisions);
            let lag_ms = self.lag.since(hint.0.saturating_add(engine.lateness_ms()));
            self.hand_out(producer, tally, hint.0.min(firing.timestamp_ms), lag_ms, commit)?;
            self.looking = None;
        }
        fired.is_done = true;
        Ok(fired)
    }

    /// The hint that was being looked at when firing ended early.
    pub fn take_looking(&mut self) -> Option<Hint> {
        self.looking.take()
    }

    fn hand_out(
        &mut self,
        producer: &LaneProducer,
        tally: &mut Tally,
        timestamp_ms: i64,
        lag_ms: i64,
        commit: &str,
    ) -> Result<(), Trouble> {
        let degraded = self.lag.degraded(lag_ms);
        self.outputs.degraded(degraded);
        if degraded.is_some() {
            tally.degraded += counted(&self.made.decisions);
        }
        for decision in &self.made.decisions {
            self.outputs.decision(producer, decision, timestamp_ms, commit)?;
            if decision.shadow {
                tally.shadow += 1;
            } else {
                tally.decision(decision);
            }
        }
        for alert in &self.made.alerts {
            self.outputs.alert(producer, alert, timestamp_ms, commit)?;
            tally.alert(alert);
        }
        for standing in &self.made.standings {
            self.outputs.standing(producer, standing, timestamp_ms, commit)?;
            tally.standings += 1;
        }
        Ok(())
    }

    /// A record that could not be finished before: it goes to the dead letters without being looked at again.
    pub fn give_up(
        &self,
        record: &BorrowedMessage<'_>,
        rejection: &Rejection,
        stage: &str,
        producer: &LaneProducer,
        tally: &mut Tally,
        commit: &str,
    ) -> Result<(), Trouble> {
        self.outputs.dead_letter(producer, record, rejection, stage, commit)?;
        if stage == "router" {
            tally.reject_input(rejection.reason)
        } else {
            tally.reject(rejection.reason)
        }
        Ok(())
    }

    fn decode<'m>(&self, record: &'m BorrowedMessage<'_>) -> Result<Event<'m>, Rejection> {
        let limit = self.shared.config.input.max_value_bytes.0;
        match record.payload() {
            Some(value) if value.len() > limit => {
                Err(Rejection::new(Reason::TooLarge, format!("{} bytes, the limit is {limit} (input.max_value_bytes)", value.len())))
            }
            value => {
                let mode = ContentMode::of_headers(headers_of(record));
                Event::decode_record(value, mode, self.shared.config.input.mapping_of(record.topic()))
            }
        }
    }

    /// The observation of a record of the keyed topic; `None` when the event concerns nobody that the rules count.
    fn observe<'m>(&self, record: &'m BorrowedMessage<'_>, engine: &Engine) -> Result<Option<Observation<'m>>, Rejection> {
        if self.shared.is_routed() {
            let observation = Observation::decode(record.key(), record.payload())?;
            // Written by somebody who knew another number of tasks: here the entity has no state, and would get a second one.
            self.require_home(record, Partitioner::Murmur2, "another number of tasks, or written by hand")?;
            return Ok(Some(observation));
        }
        let event = self.decode(record)?;
        let reference_ms = record.timestamp().to_millis().unwrap_or(event.event_time_ms);
        let Some(observation) = engine.address(event, &position(record), reference_ms).into_actor() else { return Ok(None) };
        let key = record.key().unwrap_or_default();
        if !observation.entity.is_named_by(key) {
            return Err(Rejection::new(Reason::Misrouted, "the key is not the event's actor (input.keyed_by)"));
        }
        self.require_home(record, self.shared.config.input.partitioner, "input.partitioner")?;
        Ok(Some(observation))
    }

    /// That a record of the keyed topic stands where its key belongs; `why` is where to look if not.
    fn require_home(&self, record: &BorrowedMessage<'_>, partitioner: Partitioner, why: &str) -> Result<(), Rejection> {
        let (key, partitions) = (record.key().unwrap_or_default(), self.shared.partitions);
        let home = match partitioner {
            Partitioner::Murmur2 => murmur2_partition(key, partitions),
            Partitioner::Consistent => crc32_partition(key, partitions),
        };
        if home == record.partition() {
            return Ok(());
        }
        Err(Rejection::new(Reason::Misrouted, format!("the key belongs to partition {home} ({why})")))
    }
}

/// Decisions that count as such: not those of rules that only watch.
fn counted(decisions: &[Decision]) -> u64 {
    decisions.iter().filter(|decision| !decision.shadow).count() as u64
}

fn position(record: &BorrowedMessage<'_>) -> Position {
    Position { topic: record.topic().to_owned(), partition: record.partition(), offset: record.offset() }
}
