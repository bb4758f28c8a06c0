//! One run of a test's events through the engine.

use super::{Between, Way};
use crate::decision::Decision;
use crate::engine::{Engine, Made, Outcome, Selection};
use crate::entity::Entity;
use crate::event::Event;
use crate::observation::{Observation, Position};
use crate::rule::case::{Arrival, Case};
use crate::state::ActorState;
use std::collections::{BTreeMap, BTreeSet};

/// What a run left.
#[derive(Debug, Default)]
pub struct Ran {
    /// The signals of the rule under test, in order.
    pub decisions: Vec<Decision>,
    /// The observations that the rule looked at and that counted, by entity.
    pub reached: BTreeMap<String, usize>,
    /// Observations that came too late to count.
    pub late: usize,
    /// Events that concern nobody whom the pack counts.
    pub unaddressed: usize,
}

impl Ran {
    /// The number of signals about each entity that there are signals about.
    pub fn by_entity(&self) -> BTreeMap<String, usize> {
        let mut numbers = BTreeMap::new();
        for decision in &self.decisions {
            *numbers.entry(entity_of(decision)).or_insert(0) += 1;
        }
        numbers
    }
}

/// Whom a decision is about, `user:u1`.
pub fn entity_of(decision: &Decision) -> String {
    let mut key = String::new();
    decision.entity.write_key(&mut key);
    key
}

/// One run: the engine, a state for each entity, and the times that something waits for.
pub struct Line<'a> {
    engine: &'a Engine,
    rule: usize,
    case: &'a Case,
    way: Way,
    between: Between,
    states: BTreeMap<String, ActorState>,
    /// What waits, by due time: each entity at most once.
    due: BTreeSet<(i64, String)>,
    stream_ms: i64,
    selection: Selection,
    ran: Ran,
}

impl<'a> Line<'a> {
    pub fn new(engine: &'a Engine, rule: usize, case: &'a Case, way: Way, between: Between) -> Line<'a> {
        let (states, due, selection, ran) = (BTreeMap::new(), BTreeSet::new(), Selection::default(), Ran::default());
        Line { engine, rule, case, way, between, states, due, stream_ms: i64::MIN, selection, ran }
    }

    /// Shows the events in this order and lets time pass; an error says why the test cannot be run.
    pub fn run(mut self, arrivals: &[Arrival]) -> Result<Ran, String> {
        for (offset, arrival) in arrivals.iter().enumerate() {
            // Ticks tell a task of the time between two events; the event itself is seen before the tick of its own time.
            self.pass(arrival.arrives_ms - 1)?;
            self.arrive(&arrival.json, offset, arrival)?;
            if self.way == Way::Twice {
                self.arrive(&(self.between.redeliver)(&arrival.json), offset, arrival)?;
            }
            self.pass(arrival.arrives_ms)?;
        }
        if let Some(until_ms) = self.case.until_ms {
            self.pass(self.case.start_ms + until_ms + self.engine.lateness_ms())?;
        }
        Ok(self.ran)
    }

    fn arrive(&mut self, json: &str, offset: usize, arrival: &Arrival) -> Result<(), String> {
        let event = Event::decode(Some(json.as_bytes()))
            .map_err(|rejection| format!("an event of the entry on line {} is no event: {rejection}", arrival.line))?;
        let position = Position { topic: "tests".into(), partition: 0, offset: offset as i64 };
        let addressed = self.engine.address(event, &position, arrival.arrives_ms);
        if addressed.is_empty() {
            self.ran.unaddressed += 1;
        }
        addressed.each(|observation| self.observe(observation))
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        if !self.engine.select(observation, &mut self.selection) {
            return Ok(());
        }
        let entity = observation.entity.to_string();
        let mut state = self.take(&entity);
        let mut made = Made::default();
        let outcome = self.engine.apply(observation, &self.selection, &mut state, &mut made);
        match outcome {
            Outcome::Processed if self.selection.has(self.rule) => *self.ran.reached.entry(entity.clone()).or_insert(0) += 1,
            Outcome::Late => self.ran.late += 1,
            Outcome::Processed | Outcome::Duplicate => {}
        }
        self.keep(entity, state)?;
        self.note(made.decisions);
        Ok(())
    }

    /// Fires everything that is due by this stream time, in the order of due times.
    fn pass(&mut self, stream_ms: i64) -> Result<(), String> {
        self.stream_ms = self.stream_ms.max(stream_ms);
        let until_ms = self.stream_ms.saturating_sub(self.engine.lateness_ms());
        while let Some((due_ms, entity)) = self.due.first().filter(|(due_ms, _)| *due_ms <= until_ms).cloned() {
            let mut state = self.take(&entity);
            let mut made = Made::default();
            if let Some(about) = Entity::parse(&entity) {
                // Only what is due first: another entity may come next.
                self.engine.fire_due(&about, due_ms.saturating_add(self.engine.lateness_ms()), &mut state, &mut made);
            }
            if state.next_due_ms().is_some_and(|next_ms| next_ms <= due_ms) {
                return Err(format!("what is due of {entity} stays due"));
            }
            self.keep(entity, state)?;
            self.note(made.decisions);
        }
        Ok(())
    }

    fn take(&mut self, entity: &str) -> ActorState {
        let state = self.states.remove(entity).unwrap_or_default();
        if let Some(due_ms) = state.next_due_ms() {
            self.due.remove(&(due_ms, entity.to_owned()));
        }
        state
    }

    fn keep(&mut self, entity: String, state: ActorState) -> Result<(), String> {
        let state = match self.way {
            Way::Reloaded => {
                (self.between.reload)(&state).map_err(|error| format!("the state of {entity} cannot be read again: {error}"))?
            }
            _ => state,
        };
        if let Some(due_ms) = state.next_due_ms() {
            self.due.insert((due_ms, entity.clone()));
        }
        self.states.insert(entity, state);
        Ok(())
    }

    /// Keeps the signals of the rule under test.
    fn note(&mut self, decisions: Vec<Decision>) {
        let name = self.engine.rules.rules[self.rule].name();
        let is_own = |decision: &Decision| decision.fired.contains(&name);
        self.ran.decisions.extend(decisions.into_iter().filter(is_own));
    }
}
