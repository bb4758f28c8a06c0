//! What has to hold, whatever happened: the promises of ARCHITECTURE.md, judged by what is committed in the logs.

use super::driver::restore::{Ready, marker_key, marker_of};
use super::kafka::Topic;
use super::kafka::log::{Record, Value};
use super::workload::{Expected, Output, expected};
use super::world::{Counted, PARTITIONS, ROUTERS, Shared, World, name};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tripline_core::engine::Outcome;
use tripline_core::observation::Observation;
use tripline_core::protocol::start::{Marker, Metadata};
use tripline_core::protocol::{CommitId, TaskId};

type States = BTreeMap<Rc<str>, Rc<[u8]>>;
type Commits = BTreeMap<TaskId, Vec<(Marker, u64)>>;
type Outputs = BTreeMap<(i32, String), Vec<Output>>;
type Checked = Result<(), String>;

/// The committed states of a task up to the marker of a commit; `None` if there is none.
fn fold(world: &World, task: TaskId, commit_id: &str) -> Option<States> {
    let mut states = States::new();
    let mine = marker_key(task);
    for (_, Record { key, value, .. }) in world.kafka.log(Topic::Changelog, task.partition).committed() {
        match value {
            // An id is nowhere in a marker but in its place.
            Value::Bytes(bytes) if **key == *mine && std::str::from_utf8(bytes).is_ok_and(|text| text.contains(commit_id)) => {
                return Some(states);
            }
            Value::Bytes(bytes) if !key.contains('/') => drop(states.insert(key.clone(), bytes.clone())),
            Value::Tombstone => drop(states.remove(key)),
            _ => {}
        }
    }
    None
}

/// The committed markers of a task, each with the states before it.
fn commits(world: &World, task: TaskId) -> Vec<(Marker, u64)> {
    let (mut commits, mut states, mine) = (Vec::new(), 0, marker_key(task));
    for (_, record) in world.kafka.log(Topic::Changelog, task.partition).committed() {
        if *record.key == *mine {
            commits.push((marker_of(record), std::mem::take(&mut states)));
        } else if task.topic == 0 && !record.key.contains('/') {
            states += 1;
        }
    }
    commits
}

/// Promise 3, when a task was restored: its states are those of the commit that it starts from, and that one is committed.
pub fn starts_from_its_commit(shared: &Shared, task: TaskId, ready: &Ready, process: usize) {
    let world = shared.world();
    let found = ready.states.committed(&world.disks[process][&task.partition]);
    let committed = &ready.committed;
    let wrong = match committed {
        None => !found.is_empty(),
        Some(committed) => fold(&world, task, &committed.commit_id.to_hex()).is_none_or(|states| states != found),
    };
    drop(world);
    if wrong {
        shared.violated(format!("promise 3: p{process} starts {} with states that are not those of {committed:?}", name(task)));
    }
}

/// Everything else, once nothing moves any more.
pub fn hold(world: &World) -> Checked {
    let mut outputs = Outputs::new();
    let mut dead_letters = BTreeMap::new();
    let mut records = BTreeMap::new();
    let mut outcomes = Counted::default();
    for task in tasks(world) {
        let (topic, partition) = World::input(task);
        let log = || world.kafka.log(topic, partition).committed();
        let expected = if task.topic == 0 { expected(world.is_routed, task, log()) } else { expected_of_router(log()) };
        count(&expected, task, &mut outcomes);
        // An entity is in one task only.
        outputs.extend(expected.outputs);
        dead_letters.insert(format!("{}-{}", task.topic, partition), expected.dead_letters);
        records.insert(task, log().map(|(offset, _)| offset).collect::<Vec<_>>());
    }
    everything_is_processed(world, &records)?;
    outputs_are_those_of_the_engine(world, &outputs)?;
    dead_letters_are_those_of_the_engine(world, dead_letters)?;
    let commits: Commits = tasks(world).map(|task| (task, commits(world, task))).collect();
    commits_have_no_gap_and_count_what_they_hold(world, &commits)?;
    counts_add_up(world, &commits, &records, &outcomes)?;
    stores_are_folds_of_the_changelog(world)?;
    if world.is_routed { everything_is_routed_once(world) } else { Ok(()) }
}

fn tasks(world: &World) -> impl Iterator<Item = TaskId> {
    let routers = if world.is_routed { ROUTERS } else { 0 };
    let keyed = (0..PARTITIONS).map(|partition| TaskId { topic: 0, partition });
    keyed.chain((0..routers).map(|partition| TaskId { topic: 1, partition }))
}

fn expected_of_router<'r>(records: impl Iterator<Item = (i64, &'r Record)>) -> Expected {
    let mut expected = Expected::default();
    for (offset, record) in records {
        match tripline_core::event::Event::decode(record.bytes()) {
            Ok(_) => drop(expected.outcomes.insert(offset, Outcome::Processed)),
            Err(rejection) => expected.dead_letters.push((offset, rejection.reason.name())),
        }
    }
    expected
}

fn count(expected: &Expected, task: TaskId, counted: &mut Counted) {
    counted.rejected += expected.dead_letters.len() as u64;
    for outcome in expected.outcomes.values() {
        *match outcome {
            _ if task.topic > 0 => &mut counted.routed,
            Outcome::Processed => &mut counted.processed,
            Outcome::Late => &mut counted.late,
            Outcome::Duplicate => &mut counted.duplicate,
        } += 1;
    }
}

/// Liveness: every task has committed behind its last record, and nothing is open or pending.
fn everything_is_processed(world: &World, records: &BTreeMap<TaskId, Vec<i64>>) -> Checked {
    for (task, offsets) in records {
        let committed = world.kafka.group.committed(*task).map_err(|_| format!("offsets of {} stay pending", name(*task)))?;
        let next = committed.map_or(-1, |c| c.offset);
        if offsets.last().is_some_and(|last| next <= *last) {
            return Err(format!("liveness: {} stands at {next} of {:?}", name(*task), offsets.last()));
        }
    }
    let open = world.kafka.logs().find(|(_, log)| log.last_stable_offset() < log.high_watermark());
    open.map_or(Ok(()), |(at, _)| Err(format!("liveness: {at:?} stays open")))
}

/// Promises 2, 4 and 5. What is visible twice, or out of order, is not what the engine makes.
fn outputs_are_those_of_the_engine(world: &World, expected: &Outputs) -> Checked {
    let mut found = BTreeMap::<(i32, &str), Vec<&Output>>::new();
    for kind in 0..3 {
        for (_, record) in world.kafka.log(Topic::Outputs, kind).committed() {
            if let Value::Output(output, _) = &record.value {
                found.entry((kind, &record.key)).or_default().push(output);
            }
        }
    }
    for ((kind, entity), want) in expected {
        let found = found.remove(&(*kind, entity.as_str())).unwrap_or_default();
        if let Some(at) = (0..want.len().max(found.len())).find(|at| found.get(*at).copied() != want.get(*at)) {
            let show = |output: Option<&Output>| output.map_or("nothing".into(), Output::brief);
            let (found, want) = (show(found.get(at).copied()), show(want.get(at)));
            return Err(format!("promise 2: output {at} about {entity} is {found}, the engine makes {want}"));
        }
    }
    found.keys().next().map_or(Ok(()), |(_, entity)| Err(format!("promise 2: outputs about {entity}, the engine makes none")))
}

/// Promise 7.
fn dead_letters_are_those_of_the_engine(world: &World, expected: BTreeMap<String, Vec<(i64, &'static str)>>) -> Checked {
    let mut found: BTreeMap<String, Vec<(i64, &'static str)>> = expected.keys().map(|task| (task.clone(), Vec::new())).collect();
    for (_, record) in world.kafka.log(Topic::DeadLetters, 0).committed() {
        if let Value::DeadLetter(offset, reason) = record.value {
            found.entry(record.key.to_string()).or_default().push((offset, reason));
        }
    }
    if found == expected { Ok(()) } else { Err(format!("promise 7: dead letters are {found:?}, the engine makes {expected:?}")) }
}

/// Promises 2 and 3: the markers of a task follow each other without a gap, each says how many decisions and states its commit
/// has, and the group's offset is that of the last.
fn commits_have_no_gap_and_count_what_they_hold(world: &World, commits: &Commits) -> Checked {
    let mut decisions = BTreeMap::<&str, u64>::new();
    for (_, record) in world.kafka.log(Topic::Outputs, 0).committed() {
        if let Value::Output(_, commit) = &record.value {
            *decisions.entry(commit).or_default() += 1;
        }
    }
    for (task, commits) in commits {
        let mut last: Option<&Marker> = None;
        let mut ids = BTreeSet::new();
        for (marker, states) in commits {
            let commit = format!("{}-{}/{}/{}", task.topic, task.partition, marker.seq, marker.commit_id);
            let follows = last.map_or(marker.seq == 0, |before| {
                marker.seq == before.seq + 1 && marker.next_offset >= before.next_offset && marker.history == before.history
            });
            if !follows || !ids.insert(&marker.commit_id) {
                return Err(format!("promise 3: commit {commit} follows {:?}", last.map(|m| (m.seq, m.next_offset, &m.history))));
            }
            let made = decisions.remove(commit.as_str()).unwrap_or(0);
            if (made, *states) != (marker.decisions, marker.states) {
                let said = (marker.decisions, marker.states);
                return Err(format!("promise 2: commit {commit} says {said:?} decisions and states, {made} and {states} are visible"));
            }
            last = Some(marker);
        }
        let found = world.kafka.group.committed(*task).ok().flatten();
        let metadata = found.and_then(|found| Metadata::parse(&found.metadata));
        let said = metadata.as_ref().zip(found).map(|(m, found)| (m.seq, &m.commit_id, found.offset));
        let marked = last.map(|m| (m.seq, &m.commit_id, m.next_offset));
        if said != marked {
            return Err(format!("promise 3: the group's offset of {} is of {said:?}, its last marker of {marked:?}", name(*task)));
        }
    }
    decisions.keys().next().map_or(Ok(()), |commit| Err(format!("promise 2: decisions of commit {commit} are visible, its marker is not")))
}

/// Promise 1: each commit counted its records, once; where no process died before it could count, all of them are counted.
fn counts_add_up(world: &World, commits: &Commits, records: &BTreeMap<TaskId, Vec<i64>>, outcomes: &Counted) -> Checked {
    let mut held = BTreeMap::<u128, u64>::new();
    for (task, commits) in commits {
        let mut next = 0;
        for (marker, _) in commits {
            let count = records[task].iter().filter(|offset| (next..marker.next_offset).contains(*offset)).count();
            next = marker.next_offset;
            let commit = CommitId::from_hex(&marker.commit_id).map_or(0, |id| id.0);
            *held.entry(commit).or_default() += count as u64;
        }
    }
    let all: u64 = held.values().sum();
    if all != outcomes.records() {
        return Err(format!("promise 1: the commits hold {all} records, there are {}", outcomes.records()));
    }
    for (commit, counted) in &world.counted {
        if held.get(commit) != Some(&counted.records()) {
            return Err(format!("promise 1: commit {commit} holds {:?} records and counted {counted:?}", held.get(commit)));
        }
    }
    let sum = world.counted.values().fold(Counted::default(), |sum, counted| sum.plus(counted));
    let are_all_counted = sum.records() == all;
    if (are_all_counted && sum != *outcomes) || (!are_all_counted && !world.has_lost_counts) {
        return Err(format!("promise 1: counted {sum:?}, the engine says {outcomes:?}"));
    }
    Ok(())
}

/// Whether a restore that stands at a marker has what is there: all but what a later record makes anew. That one may already
/// have been read by a restore before, or compaction may have taken the earlier one for it.
fn is_on_the_way(world: &World, task: TaskId, committed: &States, stored: &States, marker_offset: i64) -> bool {
    let log = world.kafka.log(Topic::Changelog, task.partition);
    let later: BTreeSet<&Rc<str>> = log.committed().filter(|(offset, _)| *offset > marker_offset).map(|(_, r)| &r.key).collect();
    let mut entities = committed.keys().chain(stored.keys()).filter(|entity| !later.contains(entity));
    entities.all(|entity| committed.get(entity) == stored.get(entity))
}

/// Promise 3: every store on every disk, also those that nobody reads any more.
fn stores_are_folds_of_the_changelog(world: &World) -> Checked {
    for (process, disk) in world.disks.iter().enumerate() {
        for (partition, store) in disk.iter().filter(|(_, store)| store.is_at_a_commit()) {
            let Some(local) = store.local() else { continue };
            let task = TaskId { topic: 0, partition: *partition };
            match fold(world, task, &local.commit_id) {
                None => {
                    return Err(format!("promise 3: the store of {} at p{process} is at {local:?}, which is not committed", name(task)));
                }
                Some(states) if store.is_noted() && is_on_the_way(world, task, &states, store.states(), local.marker_offset) => {}
                Some(states) if states != *store.states() => {
                    return Err(format!(
                        "promise 3: the store of {} at p{process} is not the changelog up to seq {}",
                        name(task),
                        local.seq
                    ));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Routed mode: one observation per input that is an event.
fn everything_is_routed_once(world: &World) -> Checked {
    let mut sources = BTreeSet::new();
    for (_, record) in (0..PARTITIONS).flat_map(|p| world.kafka.log(Topic::Keyed, p).committed()) {
        let source = Observation::decode(Some(record.key.as_bytes()), record.bytes()).expect("an observation of ours").source;
        if !sources.insert((source.partition, source.offset)) {
            return Err(format!("promise 2: input {}/{} is routed twice", source.partition, source.offset));
        }
    }
    let events =
        |p| world.kafka.log(Topic::Requests, p).committed().filter(|(_, r)| tripline_core::event::Event::decode(r.bytes()).is_ok());
    let inputs: BTreeSet<(i32, i64)> = (0..ROUTERS).flat_map(|p| events(p).map(move |(offset, _)| (p, offset))).collect();
    if inputs == sources { Ok(()) } else { Err(format!("promise 1: inputs {inputs:?} are routed as {sources:?}")) }
}
