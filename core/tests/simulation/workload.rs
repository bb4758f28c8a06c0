//! What goes in, and what has to come out: a small pack, some records, and the engine run over a log without any broker.

use super::choices::{About, Choices};
use super::kafka::Topic;
use super::kafka::log::{Record, Value};
use super::world::PARTITIONS;
use serde_json::Map;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use tripline_core::alert::Alert;
use tripline_core::decision::Decision;
use tripline_core::engine::{Emit, Engine, Made, Outcome};
use tripline_core::entity::Entity;
use tripline_core::event::Event;
use tripline_core::flags::FlagSnapshot;
use tripline_core::observation::{Observation, Position};
use tripline_core::protocol::TaskId;
use tripline_core::rejection::{Reason, Rejection};
use tripline_core::rule::load::{SourceFile, load};
use tripline_core::standing::StandingChange;
use tripline_core::state::ActorState;
use tripline_core::stream_time::{self, reached_by};

const START_MS: i64 = 1_760_000_000_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const USERS: usize = 6;
/// Records that one schedule has, at least and at most.
const RECORDS: (usize, usize) = (10, 40);

/// Each decision tells the whole count, so a state that is off by one event shows; and one rule waits for time to pass.
const PACK: &str = "schema: 1
id: sim.many
version: 1
title: Many requests
mode: enforce
on: http_request
detect: {count: {at_least: 2, within: 1m}}
signal: {type: many, once_per: 1s}
---
schema: 1
id: sim.unapproved
version: 1
title: An export that nobody approved
mode: enforce
on: any
detect:
  sequence:
    within: 1m
    steps: [{id: export, when: event_type == \"export.started\"}]
    then_absent: {when: event_type == \"export.approved\", within: 20s}
signal: {type: unapproved}
";

/// The one engine of all schedules.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let files = [SourceFile { name: "simulation.yaml".into(), text: PACK.into() }];
        let rules = load(&files, &Map::new()).unwrap_or_else(|p| panic!("{}", p.iter().map(ToString::to_string).collect::<String>()));
        let flags = FlagSnapshot::parse("flags.json", "{}").expect("no flags are fine");
        Engine::new(Arc::new(rules), &flags, Emit::Fired)
    })
}

/// The keyed topic's partition of an entity.
pub fn partition_of(entity: &str) -> i32 {
    entity.bytes().last().map_or(0, |last| i32::from(last) % PARTITIONS)
}

/// An input, and the user it is about.
fn input(number: usize, choices: &mut Choices, is_routed: bool, clock_ms: &mut i64) -> (String, Record) {
    let user = format!("user:u{}", choices.pick(About::Workload, USERS));
    let kind = choices.pick(About::Workload, 32);
    // A source that lags another by more than a day may find its states deleted (a limit that ARCHITECTURE.md names): with
    // several sources no day is skipped.
    let skips = !is_routed && matches!(kind, 9 | 11 | 12);
    *clock_ms += [500, 1_500, 4_000, 25_000][choices.pick(About::Workload, 4)] + if skips { 40 * DAY_MS } else { 0 };
    let clock_ms = *clock_ms;
    let (id, at_ms, event_type) = match kind {
        1 => (number.saturating_sub(2), clock_ms, "http_request"),
        2 => (number, clock_ms - 90_000, "http_request"),
        3 => (number, clock_ms, "poison"),
        4..=7 => (number, clock_ms, "export.started"),
        8 => (number, clock_ms, "export.approved"),
        _ => (number, clock_ms, "http_request"),
    };
    let user_id = &user["user:".len()..];
    let text = match kind {
        10 => "{".to_owned(),
        _ => format!(r#"{{"event_id":"e{id}","event_time":{at_ms},"event_type":"{event_type}","user_id":"{user_id}"}}"#),
    };
    let record = Record { key: user.as_str().into(), value: Value::Bytes(text.into_bytes().into()), timestamp_ms: clock_ms };
    (user, record)
}

/// The inputs of a schedule, each with its partition. The last ones move every task's time on, so that nothing is left waiting.
pub fn inputs(choices: &mut Choices, is_routed: bool) -> Vec<((Topic, i32), Record)> {
    let count = RECORDS.0 + choices.pick(About::Workload, RECORDS.1 - RECORDS.0 + 1);
    let mut clock_ms = START_MS;
    let mut inputs = Vec::with_capacity(count + USERS);
    for number in 0..count {
        let (user, record) = input(number, choices, is_routed, &mut clock_ms);
        let spread = number as i32 % 2;
        inputs.push(if is_routed { ((Topic::Requests, spread), record) } else { ((Topic::Keyed, partition_of(&user)), record) });
    }
    clock_ms += HOUR_MS;
    for user in 0..USERS {
        let key = format!("user:u{user}");
        let text = format!(r#"{{"event_id":"last{user}","event_time":{clock_ms},"event_type":"http_request","user_id":"u{user}"}}"#);
        let at = if is_routed { (Topic::Requests, 0) } else { (Topic::Keyed, partition_of(&key)) };
        inputs.push((at, Record { key: key.into(), value: Value::Bytes(text.into_bytes().into()), timestamp_ms: clock_ms }));
    }
    inputs
}

/// The observation in a record of the keyed topic.
pub fn observe<'r>(is_routed: bool, task: TaskId, offset: i64, record: &'r Record) -> Result<Observation<'r>, Rejection> {
    if is_routed {
        return Observation::decode(Some(record.key.as_bytes()), record.bytes());
    }
    let event = Event::decode(record.bytes())?;
    engine()
        .address(event, &position(task, offset), record.timestamp_ms)
        .into_actor()
        .ok_or(Rejection::new(Reason::MissingField, "user_id"))
}

/// Where an input record stood.
pub fn position(task: TaskId, offset: i64) -> Position {
    Position { topic: if task.topic == 0 { "keyed".into() } else { "requests".into() }, partition: task.partition, offset }
}

/// Whether the code panics on this record, in the middle of its work. The simulation's stand-in for our own bugs.
pub fn panics_on(observation: &Observation<'_>) -> bool {
    observation.event.event_type == "poison"
}

/// What has to come of one task's log.
#[derive(Debug, Default)]
pub struct Expected {
    /// Per kind and entity, in order.
    pub outputs: BTreeMap<(i32, String), Vec<Output>>,
    /// Offset and reason of each dead letter, in order.
    pub dead_letters: Vec<(i64, &'static str)>,
    /// Offset and outcome of each other record.
    pub outcomes: BTreeMap<i64, Outcome>,
}

/// The engine over the records of one task in offset order, in one go, without a broker, a cache or a codec.
pub fn expected<'r>(is_routed: bool, task: TaskId, records: impl Iterator<Item = (i64, &'r Record)>) -> Expected {
    let engine = engine();
    let mut expected = Expected::default();
    let mut states: BTreeMap<String, ActorState> = BTreeMap::new();
    let mut newest_ms = 0;
    for (offset, record) in records {
        let mut made = Made::default();
        let observation = observe(is_routed, task, offset, record);
        newest_ms = newest_ms.max(record.timestamp_ms);
        match observation {
            Ok(observation) if panics_on(&observation) => expected.dead_letters.push((offset, Reason::Panicked.name())),
            read => {
                if !is_routed {
                    fire(engine, reached_by(newest_ms), &mut states, &mut made);
                }
                match read {
                    Err(rejection) => expected.dead_letters.push((offset, rejection.reason.name())),
                    Ok(observation) => {
                        let state = states.entry(observation.entity.to_string()).or_default();
                        stream_time::settle(engine, &observation, state, &mut made);
                        expected.outcomes.insert(offset, engine.process(&observation, state, &mut made));
                    }
                }
            }
        }
        for output in Output::all(made) {
            expected.outputs.entry((output.kind(), output.key())).or_default().push(output);
        }
    }
    expected
}

fn fire(engine: &Engine, until_ms: i64, states: &mut BTreeMap<String, ActorState>, made: &mut Made) {
    for (entity, state) in states {
        if stream_time::is_due(engine, state, until_ms) {
            let entity = Entity::parse(entity).expect("a key of ours");
            engine.fire_due(&entity, until_ms, state, made);
        }
    }
}

/// What is made known about an entity.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Decision(Box<Decision>),
    Alert(Box<Alert>),
    Standing(StandingChange),
}

impl Output {
    /// Everything that was made, in the order in which it is produced.
    pub fn all(made: Made) -> impl Iterator<Item = Output> {
        let decisions = made.decisions.into_iter().map(|decision| Output::Decision(decision.into()));
        let alerts = made.alerts.into_iter().map(|alert| Output::Alert(alert.into()));
        decisions.chain(alerts).chain(made.standings.into_iter().map(Output::Standing))
    }

    /// The partition of its kind.
    pub fn kind(&self) -> i32 {
        match self {
            Output::Decision(_) => 0,
            Output::Alert(_) => 1,
            Output::Standing(_) => 2,
        }
    }

    /// Whom it is about.
    pub fn key(&self) -> String {
        let mut key = String::new();
        match self {
            Output::Decision(decision) => decision.entity.write_key(&mut key),
            Output::Alert(alert) => alert.entity.write_key(&mut key),
            Output::Standing(change) => change.entity.write_key(&mut key),
        }
        key
    }

    /// What tells it from its neighbours, to be read by people.
    pub fn brief(&self) -> String {
        match self {
            Output::Decision(d) => {
                format!("a decision on {}: {}", d.event_id, d.contributions.iter().map(|c| c.why.as_str()).collect::<Vec<_>>().join(", "))
            }
            Output::Alert(a) => format!("alert {} at {} with {} decisions", a.state.name(), a.at, a.decisions),
            Output::Standing(s) => format!("standing at {}: {:?}", s.at_ms, s.standing.as_ref().map(|s| s.risk_score)),
        }
    }

    /// Its record.
    pub fn into_record(self, commit: &Rc<str>, timestamp_ms: i64) -> Record {
        Record { key: self.key().into(), value: Value::Output(Rc::new(self), commit.clone()), timestamp_ms }
    }
}
