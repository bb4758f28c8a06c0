//! What happens to one record: routed, or counted and decided.

use super::Shared;
use super::failpoints::{self, Point};
use super::outputs::Outputs;
use super::partition::{crc32_partition, murmur2_partition};
use super::producer::{LaneProducer, SendError};
use crate::config::Partitioner;
use crate::state::{StoreError, TaskState};
use crate::telemetry::tally::Tally;
use rdkafka::message::{BorrowedMessage, Message};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tripline_core::decision::Decision;
use tripline_core::engine::{Engine, Outcome, Selection};
use tripline_core::event::Event;
use tripline_core::observation::{Observation, Position};
use tripline_core::protocol::Failure;
use tripline_core::rejection::{Reason, Rejection};
use tripline_core::state::ActorState;

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
    decisions: Vec<Decision>,
    key: String,
}

impl Processor {
    /// For a lane.
    pub fn new(shared: Arc<Shared>) -> Processor {
        Processor {
            outputs: Outputs::new(shared.clone()),
            shared,
            selection: Selection::default(),
            decisions: Vec::new(),
            key: String::new(),
        }
    }

    /// Routes a record of an input topic: decode, address, hand on.
    pub fn route(
        &mut self,
        record: &BorrowedMessage<'_>,
        engine: &Engine,
        producer: &LaneProducer,
        tally: &mut Tally,
    ) -> Result<(), Trouble> {
        let event = match self.decode(record) {
            Ok(event) => event,
            Err(rejection) => {
                self.outputs.dead_letter(producer, record, &rejection, "router")?;
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
        addressed.each(|observation| self.outputs.observation(producer, observation, timestamp_ms))?;
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
                self.outputs.dead_letter(producer, record, &rejection, "detector")?;
                tally.reject(rejection.reason);
                return Ok(0);
            }
        };
        let (selection, decisions, key) = (&mut self.selection, &mut self.decisions, &mut self.key);
        decisions.clear();
        let needs_state = engine.select(&observation, selection);
        let evaluate = |actor: &mut ActorState| {
            let outcome = engine.apply(&observation, selection, actor, decisions);
            // After the state was changed: the worst moment.
            let _ = failpoints::reach(Point::InRecord);
            outcome
        };
        let (outcome, changed) = if needs_state {
            key.clear();
            observation.entity.write_key(key);
            state.change(key, evaluate).map_err(Trouble::Store)?
        } else {
            (Outcome::Processed, 0)
        };
        let timestamp_ms = record.timestamp().to_millis().unwrap_or(observation.event.event_time_ms);
        match outcome {
            Outcome::Processed => tally.processed += 1,
            Outcome::Duplicate => tally.duplicate += 1,
            Outcome::Late => {
                tally.late += 1;
                self.outputs.late(producer, &observation, timestamp_ms)?;
            }
        }
        tally.clamped += u64::from(observation.clamped);
        for decision in &self.decisions {
            self.outputs.decision(producer, decision, timestamp_ms, commit)?;
            if decision.shadow {
                tally.shadow += 1;
                continue;
            }
            tally.decision(decision);
            tally.alerts += u64::from(decision.should_alert);
        }
        Ok(changed)
    }

    /// A record that could not be finished before: it goes to the dead letters without being looked at again.
    pub fn give_up(
        &self,
        record: &BorrowedMessage<'_>,
        rejection: &Rejection,
        stage: &str,
        producer: &LaneProducer,
        tally: &mut Tally,
    ) -> Result<(), Trouble> {
        self.outputs.dead_letter(producer, record, rejection, stage)?;
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
            value => Event::decode(value),
        }
    }

    /// The observation of a record of the keyed topic; `None` when the event concerns nobody that the rules count.
    fn observe<'m>(&self, record: &'m BorrowedMessage<'_>, engine: &Engine) -> Result<Option<Observation<'m>>, Rejection> {
        if self.shared.is_routed() {
            return Observation::decode(record.key(), record.payload()).map(Some);
        }
        let event = self.decode(record)?;
        let reference_ms = record.timestamp().to_millis().unwrap_or(event.event_time_ms);
        let Some(observation) = engine.address(event, &position(record), reference_ms).into_actor() else { return Ok(None) };
        let key = record.key().unwrap_or_default();
        if !observation.entity.is_named_by(key) {
            return Err(Rejection::new(Reason::Misrouted, "the key is not the event's actor (input.keyed_by)"));
        }
        let expected = match self.shared.config.input.partitioner {
            Partitioner::Murmur2 => murmur2_partition(key, self.shared.partitions),
            Partitioner::Consistent => crc32_partition(key, self.shared.partitions),
        };
        if expected != record.partition() {
            return Err(Rejection::new(Reason::Misrouted, format!("the key belongs to partition {expected} (input.partitioner)")));
        }
        Ok(Some(observation))
    }
}

fn position(record: &BorrowedMessage<'_>) -> Position {
    Position { topic: record.topic().to_owned(), partition: record.partition(), offset: record.offset() }
}
