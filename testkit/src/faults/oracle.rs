//! What had to come of the records that were really appended: the pure engine over each task's log in the order of its offsets,
//! the router's pure function over each input partition. No broker, no clock.

use super::input::{check_place, decode};
use crate::client::OwnedRecord;
use anyhow::{Result, anyhow};
use std::collections::{BTreeMap, BTreeSet};
use tripline_core::engine::{Engine, Made, Outcome};
use tripline_core::entity::Entity;
use tripline_core::observation::{Observation, Position};
use tripline_core::rejection::{Reason, Rejection};
use tripline_core::state::ActorState;
use tripline_core::stream_time::{self, Appended, SourceTimes, reached_by};
use tripline_core::tick::Tick;

/// A record that had to be written, with the offset of the one that it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Caused<T> {
    /// The offset in the log that was read.
    pub offset: i64,
    /// What was made.
    pub made: T,
}

/// An observation as it stands in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The record's key: the entity.
    pub key: String,
    /// The record's value.
    pub value: Vec<u8>,
    /// The input record.
    pub source: Position,
}

/// What one partition of an input topic had to become.
#[derive(Debug, Default)]
pub struct Routed {
    /// Observations, in order.
    pub observations: Vec<Caused<Written>>,
    /// Records that are no events.
    pub rejected: Vec<Caused<Rejection>>,
    /// Events that concern nobody whom the rules count.
    pub unaddressed: u64,
}

/// What one task had to make of its log.
#[derive(Debug, Default)]
pub struct Decided {
    /// Decisions, alerts and standings, in order.
    pub made: Vec<Caused<Made>>,
    /// Observations that were too late.
    pub late: Vec<Caused<Written>>,
    /// Records that could not be observations.
    pub rejected: Vec<Caused<Rejection>>,
    /// Observations, the late ones and repeats included.
    pub observations: u64,
    /// Observations of events that were seen before.
    pub duplicates: u64,
}

/// The log of a task: a partition of the keyed topic.
#[derive(Debug, Clone, Copy)]
pub struct Log<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The records, in the order of their offsets.
    pub records: &'a [OwnedRecord],
    /// The topic is the input itself (`input.keyed_by: actor`), and has so many partitions; `None` for the observations.
    pub keyed_partitions: Option<i32>,
    /// Offsets of records whose evaluation was made to panic: dead-lettered without a trace in the state.
    pub panicked: &'a BTreeSet<i64>,
}

/// What the router makes of the records of one input partition.
pub fn route(topic: &str, records: &[OwnedRecord], engine: &Engine) -> Routed {
    let mut routed = Routed::default();
    for record in records {
        let event = match decode(record) {
            Ok(event) => event,
            Err(rejection) => {
                routed.rejected.push(Caused { offset: record.offset, made: rejection });
                continue;
            }
        };
        let reference_ms = record.timestamp_ms.unwrap_or(event.event_time_ms);
        let addressed = engine.address(event, &position(topic, record), reference_ms);
        routed.unaddressed += u64::from(addressed.is_empty());
        let show = |observation: &Observation<'_>| -> Result<(), std::convert::Infallible> {
            routed.observations.push(Caused { offset: record.offset, made: written(observation) });
            Ok(())
        };
        let Ok(()) = addressed.each(show);
    }
    routed
}

/// What a task makes of its log. `engine_at` knows which rules and flags hold at an offset.
pub fn decide<'e>(log: &Log<'_>, engine_at: impl Fn(i64) -> Result<&'e Engine>) -> Result<Decided> {
    let (mut task, mut decided) = (Task::default(), Decided::default());
    for record in log.records {
        let engine = engine_at(record.offset)?;
        let mut made = Made::default();
        let panicked = log.panicked.contains(&record.offset);
        let until_ms = if panicked { Ok(None) } else { task.hear(log, record) };
        if let Ok(Some(until_ms)) = until_ms {
            task.fire(engine, until_ms, &mut made);
        }
        task.newest_ms = task.newest_ms.max(record.timestamp_ms.unwrap_or(-1));
        if panicked {
            let rejection = Rejection::new(Reason::Panicked, "");
            decided.rejected.push(Caused { offset: record.offset, made: rejection });
        } else if let Err(rejection) = until_ms {
            decided.rejected.push(Caused { offset: record.offset, made: rejection });
        } else if !log.is_tick(record) {
            task.observe(log, record, engine, &mut made, &mut decided);
        }
        if !made.is_empty() {
            decided.made.push(Caused { offset: record.offset, made });
        }
    }
    Ok(decided)
}

impl Log<'_> {
    fn is_tick(&self, record: &OwnedRecord) -> bool {
        self.keyed_partitions.is_none() && Tick::is_tick(record.key.as_deref())
    }
}

/// What a task remembers.
#[derive(Default)]
struct Task {
    times: SourceTimes,
    states: BTreeMap<String, ActorState>,
    /// The newest record's time: the stream time of a keyed log.
    newest_ms: i64,
}

impl Task {
    /// The stream time that a record brings, before it is looked at.
    fn hear(&mut self, log: &Log<'_>, record: &OwnedRecord) -> Result<Option<i64>, Rejection> {
        if log.keyed_partitions.is_some() {
            return Ok(Some(reached_by(self.newest_ms.max(record.timestamp_ms.unwrap_or(-1)))));
        }
        if !log.is_tick(record) {
            return Ok(None);
        }
        let tick = Tick::decode(record.value.as_deref())?;
        self.times.tick(&tick, Appended { at_ms: record.timestamp_ms.unwrap_or_default(), by_broker: true });
        Ok(self.times.now())
    }

    /// Everything that is due, in the order of time and entity.
    fn fire(&mut self, engine: &Engine, until_ms: i64, made: &mut Made) {
        let is_due = |state: &ActorState| engine.needs_time() && stream_time::is_due(engine, state, until_ms);
        let mut due: Vec<(Option<i64>, String)> =
            self.states.iter().filter(|(_, state)| is_due(state)).map(|(key, state)| (state.next_due_ms(), key.clone())).collect();
        due.sort();
        for (_, key) in due {
            let Some(entity) = Entity::parse(&key) else { continue };
            if let Some(state) = self.states.get_mut(&key) {
                engine.fire_due(&entity, until_ms, state, made);
            }
        }
    }

    fn observe(&mut self, log: &Log<'_>, record: &OwnedRecord, engine: &Engine, made: &mut Made, decided: &mut Decided) {
        let observation = match observation(log, record, engine) {
            Ok(Some(observation)) => observation,
            Ok(None) => return,
            Err(rejection) => return decided.rejected.push(Caused { offset: record.offset, made: rejection }),
        };
        let state = self.states.entry(observation.entity.to_string()).or_default();
        if engine.needs_time() {
            stream_time::settle(engine, &observation, state, made);
        }
        decided.observations += 1;
        match engine.process(&observation, state, made) {
            Outcome::Processed => {}
            Outcome::Duplicate => decided.duplicates += 1,
            Outcome::Late => decided.late.push(Caused { offset: record.offset, made: written(&observation) }),
        }
    }
}

/// The observation that a record of the keyed topic is.
fn observation<'r>(log: &Log<'_>, record: &'r OwnedRecord, engine: &Engine) -> Result<Option<Observation<'r>>, Rejection> {
    let Some(partitions) = log.keyed_partitions else {
        return Observation::decode(record.key.as_deref(), record.value.as_deref()).map(Some);
    };
    let event = decode(record)?;
    let reference_ms = record.timestamp_ms.unwrap_or(event.event_time_ms);
    let observation = engine.address(event, &position(log.topic, record), reference_ms).into_actor();
    if let Some(observation) = &observation {
        check_place(record, &observation.entity, partitions)?;
    }
    Ok(observation)
}

fn position(topic: &str, record: &OwnedRecord) -> Position {
    Position { topic: topic.to_owned(), partition: record.partition, offset: record.offset }
}

fn written(observation: &Observation<'_>) -> Written {
    let mut value = Vec::new();
    observation.encode(&mut value);
    Written { key: observation.entity.to_string(), value, source: observation.source.clone() }
}

/// Records by partition, each in the order of its offsets, those alone that stand before the partition's end.
pub fn by_partition(records: Vec<OwnedRecord>, ends: Option<&BTreeMap<i32, i64>>) -> BTreeMap<i32, Vec<OwnedRecord>> {
    let mut partitions: BTreeMap<i32, Vec<OwnedRecord>> = BTreeMap::new();
    for record in records {
        if ends.is_none_or(|ends| ends.get(&record.partition).is_some_and(|end| record.offset < *end)) {
            partitions.entry(record.partition).or_default().push(record);
        }
    }
    for records in partitions.values_mut() {
        records.sort_by_key(|record| record.offset);
    }
    partitions
}

/// The rules and flags that held for a task, from its epochs.
#[derive(Debug, Default)]
pub struct Epochs {
    /// By task: from which offset on, in which commit, which digests.
    by_task: BTreeMap<i32, Vec<Epoch>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Epoch {
    seq: u64,
    first_offset: i64,
    digests: (String, String),
}

impl Epochs {
    /// Reads the records of the epochs topic.
    pub fn read(records: &[OwnedRecord]) -> Result<Epochs> {
        let mut epochs = Epochs::default();
        for record in records {
            let json = record.json()?;
            let digest = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
            let number = |name: &str| json[name].as_i64().ok_or_else(|| anyhow!("an epoch without {name}: {json}"));
            let task = i32::try_from(number("task")?)?;
            let seq = u64::try_from(number("seq")?)?;
            let epoch = Epoch { seq, first_offset: number("first_offset")?, digests: (digest("rules"), digest("flags")) };
            epochs.by_task.entry(task).or_default().push(epoch);
        }
        for task in epochs.by_task.values_mut() {
            task.sort_by_key(|epoch| epoch.seq);
        }
        Ok(epochs)
    }

    /// The digests of rules and flags that hold at an offset of a task.
    pub fn at(&self, task: i32, offset: i64) -> Result<&(String, String)> {
        let epochs = self.by_task.get(&task).map_or(&[][..], Vec::as_slice);
        let before = epochs.iter().rev().find(|epoch| epoch.first_offset <= offset);
        before.map(|epoch| &epoch.digests).ok_or_else(|| anyhow!("no epoch says which rules hold for task {task} at offset {offset}"))
    }

    /// How many different digests there are.
    pub fn distinct(&self) -> usize {
        self.by_task.values().flatten().map(|epoch| &epoch.digests).collect::<BTreeSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::MAX_VALUE_BYTES;
    use super::super::pack::Pack;
    use super::*;

    fn epoch(task: i32, seq: u64, first_offset: i64, rules: &str) -> OwnedRecord {
        let value = serde_json::json!({"task": task, "seq": seq, "first_offset": first_offset, "rules": rules, "flags": "f"});
        OwnedRecord {
            partition: 0,
            offset: 0,
            key: None,
            value: Some(value.to_string().into_bytes()),
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    #[test]
    fn a_keyed_log_takes_what_stands_where_its_actor_is_and_an_event_that_is_sent_again_counts_again() {
        let pack = Pack::load(true).expect("the pack loads");
        let engine = pack.router().expect("an engine");
        let event = |fields: serde_json::Value| fields.to_string().into_bytes();
        let good =
            event(serde_json::json!({"event_id": "e1", "event_type": "login", "event_time": 1_760_000_000_000_i64, "user_id": "u1"}));
        let large = [good.clone(), vec![b' '; MAX_VALUE_BYTES]].concat();
        let at = |offset, key: &str, value: &[u8]| OwnedRecord {
            offset,
            key: Some(key.into()),
            value: Some(value.to_vec()),
            timestamp_ms: Some(1_760_000_000_000),
            ..epoch(0, 0, 0, "")
        };
        let records = [at(0, "user:u1", &good), at(1, "user:u2", &good), at(2, "user:u1", &large), at(3, "user:u1", &good)];
        // With one partition every key is at home; the other ways of being misrouted are tested where they are found.
        let log = Log { topic: "in", records: &records, keyed_partitions: Some(1), panicked: &BTreeSet::new() };
        let decided = decide(&log, |_| Ok(engine)).expect("decided");
        let rejected: Vec<_> = decided.rejected.iter().map(|rejected| (rejected.offset, rejected.made.reason)).collect();
        assert_eq!(rejected, [(1, Reason::Misrouted), (2, Reason::TooLarge)]);
        assert_eq!((decided.observations, decided.duplicates), (2, 0));
    }

    #[test]
    fn an_epoch_holds_from_its_first_offset_to_the_next_one_of_its_task() {
        let epochs = Epochs::read(&[epoch(1, 9, 50, "b"), epoch(1, 1, 0, "a"), epoch(2, 3, 7, "c")]).expect("epochs");
        let at = |task, offset| epochs.at(task, offset).map(|digests| digests.0.as_str()).ok();
        assert_eq!([at(1, 0), at(1, 49), at(1, 50), at(1, 99)], [Some("a"), Some("a"), Some("b"), Some("b")]);
        assert_eq!([at(2, 6), at(2, 7), at(3, 0)], [None, Some("c"), None]);
        assert_eq!(epochs.distinct(), 3);
    }

    #[test]
    fn records_past_the_end_of_their_partition_are_left_out() {
        let at = |partition, offset| OwnedRecord { partition, offset, ..epoch(0, 0, 0, "") };
        let found = by_partition(vec![at(0, 3), at(0, 1), at(1, 0), at(2, 0)], Some(&[(0, 3), (1, 5)].into()));
        let offsets: Vec<(i32, Vec<i64>)> = found.iter().map(|(p, r)| (*p, r.iter().map(|r| r.offset).collect())).collect();
        assert_eq!(offsets, [(0, vec![1]), (1, vec![0])]);
    }
}
