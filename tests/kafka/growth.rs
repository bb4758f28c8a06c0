//! More partitions for an app that has states: nothing is lost, nothing twice, whoever is killed and when.

use crate::line::{Line, PATIENCE, Running, Setup, assert_equal, generated};
use anyhow::{Context, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;
use tripline::stream::partition::murmur2_partition;
use tripline_testkit::{Record, wait_until};

/// Stopped and killed members are gone soon.
const QUICK: [(&str, &str); 2] = [("TRIPLINE_STREAM__SESSION_TIMEOUT", "6s"), ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "3s")];

/// Runs `state repartition` with this fault armed.
pub fn repartition(line: &Line, to: i32, args: &[&str], fault: &str) -> Result<Output> {
    let mut settings = line.settings("tool");
    settings.extend(QUICK.map(|(name, value)| (name.to_owned(), value.to_owned())));
    settings.push(("TRIPLINE_FAILPOINTS".to_owned(), fault.to_owned()));
    let to = to.to_string();
    line.command(&[&["state", "repartition", "--to", &to], args].concat(), &settings)
}

/// Runs it to its end; what it says.
pub fn grow(line: &Line, to: i32, args: &[&str]) -> Result<String> {
    let done = repartition(line, to, &[&["--execute"], args].concat(), "")?;
    ensure!(done.status.success(), "state repartition: {}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout)?;
    eprint!("{said}");
    Ok(said)
}

fn refused(done: &Output, why: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.code() == Some(1) && said.contains(why), "{:?}, expected `{why}`: {said}", done.status);
    Ok(())
}

fn start(line: &Line, partitions: i32, more: &[(&str, &str)]) -> Result<Running> {
    let partitions = partitions.to_string();
    let settings = [&[("TRIPLINE_TOPICS__PARTITIONS", partitions.as_str())], &QUICK[..], more].concat();
    line.start_with("one", "detect,sink", &settings)
}

fn ready(mut running: Running) -> Result<Running> {
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    Ok(running)
}

fn partitions(line: &Line, topic: &str) -> Result<usize> {
    Ok(line.kafka.end_offsets(topic)?.len())
}

/// Every state that the changelog still has stands in its entity's partition, once.
fn assert_at_home(line: &Line, partitions: i32) -> Result<usize> {
    let mut states = BTreeMap::new();
    for record in line.read("internal.changelog")? {
        let key = record.key_text();
        if !key.starts_with("task/") && !key.starts_with("router/") {
            states.insert((key, record.partition), record.value.is_some());
        }
    }
    states.retain(|_, is_there| *is_there);
    ensure!(!states.is_empty(), "no states at all");
    for (key, partition) in states.keys() {
        ensure!(murmur2_partition(key.as_bytes(), partitions) == *partition, "{key} stands in partition {partition}");
    }
    Ok(states.len())
}

/// Apps produce all the time; the worker dies in the middle of it. It dies over an observation, which is unread for certain: what is
/// read is committed, and the transaction that reads it is not.
#[test]
fn growth_under_traffic_changes_no_decision() -> Result<()> {
    let line = Line::new(&Setup::routed(6, 4))?;
    let events = generated(91, 12_000)?;
    let lines: Vec<&str> = events.lines().collect();
    let mut one = start(&line, 4, &[("TRIPLINE_FAILPOINTS", "in_record=kill@300")])?;
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            // One after the other for about as long as the move lasts.
            for chunk in lines.chunks(200) {
                line.produce(chunk.iter().copied())?;
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok::<_, anyhow::Error>(())
        });
        wait_until(PATIENCE, "the worker is killed over an observation", || one.worker.exit_status().is_some())?;
        let said = grow(&line, 16, &[])?;
        ensure!(said.contains("4 → 16 tasks") && !said.contains("unread    0 "), "observations were unread: {said}");
        let running = ready(start(&line, 16, &[])?)?;
        producing.join().expect("the producer does not panic")?;
        line.settle()?;
        let found = line.decisions()?;
        assert_equal(&found, &line.replay(&events)?);
        line.assert_stored(&found)?;
        assert_at_home(&line, 16)?;
        running.stop()
    })
}

/// At every step, one after the other on the same app; then it moves, and moves again.
#[test]
fn a_move_that_is_killed_anywhere_is_run_again_to_the_same_end() -> Result<()> {
    let line = Line::new(&Setup::routed(1, 2))?;
    let events = generated(92, 6_000)?;
    let lines: Vec<&str> = events.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    let running = ready(start(&line, 2, &[])?)?;
    line.produce(first.iter().copied())?;
    line.settle()?;
    running.stop()?;
    let observations = line.topic("internal.observations");
    for fault in
        ["in_restore=kill@50", "after_growth=kill@1", "after_growth=kill@2", "after_begin=kill", "before_seal=kill", "after_drain=kill"]
    {
        let done = repartition(&line, 5, &["--execute"], fault)?;
        ensure!(done.status.code().is_none(), "{fault}: {:?} {}", done.status, String::from_utf8_lossy(&done.stderr));
        ensure!(partitions(&line, &observations)? == if fault.starts_with("in_restore") { 2 } else { 5 }, "{fault}");
    }
    // Between the growth and the move no worker begins, whatever it believes.
    for (believed, why) in [(5, "state repartition --to 5"), (2, "has 5 partitions")] {
        let mut early = start(&line, believed, &[])?;
        wait_until(PATIENCE, "the worker gives up", || early.worker.exit_status().is_some())?;
        let log = early.worker.log_tail(20);
        ensure!(early.worker.exit_status().and_then(|s| s.code()) == Some(3) && log.contains(why), "{why} expected:\n{log}");
    }
    for fault in ["after_changelog=abort", "after_send_offsets=doubt"] {
        refused(&repartition(&line, 5, &["--execute"], fault)?, "run it again")?;
    }
    let killed = repartition(&line, 5, &["--execute"], "after_send_offsets=kill")?;
    ensure!(killed.status.code().is_none(), "{:?}", killed.status);
    // Committed, and nobody knows: the offsets tell.
    let done = repartition(&line, 5, &["--execute"], "after_commit=doubt")?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let killed = repartition(&line, 8, &["--execute"], "after_commit=kill")?;
    ensure!(killed.status.code().is_none(), "{:?}", killed.status);
    ensure!(grow(&line, 8, &[])?.contains("nothing to do"), "the commit before the kill counts");

    let running = ready(start(&line, 8, &[])?)?;
    line.produce(second.iter().copied())?;
    line.settle()?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    assert_at_home(&line, 8)?;
    running.stop()
}

fn give_partitions(line: &Line, topic: &str, count: usize) -> Result<()> {
    let admin: AdminClient<_> = line.kafka.client_config().create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(admin.create_partitions([&NewPartitions::new(topic, count)], &AdminOptions::new()))?;
    wait_until(PATIENCE, "the partitions are there", || line.kafka.end_offsets(topic).is_ok_and(|ends| ends.len() == count))
}

/// The keyed topic is the app's: its owner gives it partitions, once everything in it is read.
#[test]
fn a_keyed_app_moves_when_its_owner_has_given_the_partitions() -> Result<()> {
    let line = Line::new(&Setup::keyed(2))?;
    let events = generated(93, 8_000)?;
    let lines: Vec<&str> = events.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    let (read, unread) = first.split_at(first.len() - 100);
    let running = ready(start(&line, 2, &[])?)?;
    line.produce(read.iter().copied())?;
    line.settle()?;
    running.stop()?;
    line.produce(unread.iter().copied())?;
    refused(&repartition(&line, 4, &["--execute"], "")?, "they have to be read before the topic grows")?;
    let running = ready(start(&line, 2, &[])?)?;
    line.settle()?;
    running.stop()?;
    refused(&repartition(&line, 4, &["--execute"], "")?, "its owner gives it 4 first")?;
    give_partitions(&line, &line.input, 4)?;
    refused(&repartition(&line, 4, &["--keys", "bare"], "")?, "--keys is not what the states say")?;
    // Producers that know the new number already need not wait.
    line.produce(second.iter().copied())?;
    let said = grow(&line, 4, &[])?;
    ensure!(said.contains("2 → 4 tasks"), "{said}");
    let running = ready(start(&line, 4, &[])?)?;
    line.settle()?;
    let found = line.decisions()?;
    assert_equal(&found, &line.replay(&events)?);
    line.assert_stored(&found)?;
    assert_at_home(&line, 4)?;
    running.stop()
}

/// Sets the group's offset of a partition, as a tool might.
pub fn set_offset(line: &Line, topic: &str, partition: i32, offset: i64, metadata: &str) -> Result<()> {
    let consumer: BaseConsumer = line.kafka.client_config().set("group.id", &line.app).create()?;
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(topic, partition);
    element.set_offset(Offset::Offset(offset))?;
    element.set_metadata(metadata);
    consumer.commit(&list, CommitMode::Sync)?;
    Ok(())
}

/// The group's offset of a partition, and what stands beside it.
pub fn metadata(line: &Line, topic: &str, partition: i32) -> Result<(i64, String)> {
    let consumer: BaseConsumer = line.kafka.client_config().set("group.id", &line.app).create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let found = consumer.committed_offsets(list, Duration::from_secs(15))?;
    let element = found.find_partition(topic, partition).context("the partition")?;
    Ok((element.offset().to_raw().context("an offset")?, element.metadata().to_owned()))
}

#[test]
fn what_cannot_be_moved_is_refused_by_name_and_nothing_grows() -> Result<()> {
    let line = Line::new(&Setup::routed(1, 4))?;
    let observations = line.topic("internal.observations");
    refused(&repartition(&line, 8, &["--execute"], "")?, "has committed nothing")?;
    let running = ready(start(&line, 4, &[])?)?;
    line.produce(generated(94, 2_000)?.lines())?;
    line.settle()?;
    let dry = repartition(&line, 8, &[], "")?;
    let said = String::from_utf8_lossy(&dry.stdout);
    ensure!(dry.status.success() && said.contains("nothing written: dry run") && said.contains("has 1 member now"), "{said}");
    refused(&repartition(&line, 8, &["--execute"], "")?, "has members")?;
    refused(&repartition(&line, 2, &[], "")?, "--to has to be more than that, not 2")?;
    let same = repartition(&line, 4, &[], "")?;
    ensure!(String::from_utf8_lossy(&same.stdout).contains("nothing to do"), "{same:?}");
    running.stop()?;

    let (offset, ours) = metadata(&line, &observations, 0)?;
    let mut other: serde_json::Value = serde_json::from_str(&ours)?;
    other["commit_id"] = "0123456789abcdef0123456789abcdef".into();
    wait_until(PATIENCE, "the group is empty", || set_offset(&line, &observations, 0, offset, "").is_ok())?;
    refused(&repartition(&line, 8, &["--execute"], "")?, "is missing or is not ours")?;
    set_offset(&line, &observations, 0, offset, &other.to_string())?;
    refused(&repartition(&line, 8, &["--execute"], "")?, "without the marker of commit")?;
    ensure!(partitions(&line, &observations)? == 4 && partitions(&line, &line.topic("internal.changelog"))? == 4, "something grew");
    set_offset(&line, &observations, 0, offset, &ours)?;
    grow(&line, 8, &[])?;
    ready(start(&line, 8, &[])?)?.stop()
}

/// What holds the group is its member, with an assignor that no worker has. A worker that is started meanwhile gets no partition,
/// does not die of it, and works once the group is free.
#[test]
fn a_worker_that_is_started_during_a_move_waits_at_the_door() -> Result<()> {
    let line = Line::new(&Setup::routed(1, 2))?;
    let mut config = line.kafka.client_config();
    config.set("group.id", &line.app).set("partition.assignment.strategy", "range").set("auto.offset.reset", "error");
    let holder: BaseConsumer = config.create()?;
    holder.subscribe(&[&line.topic("internal.epochs")])?;
    wait_until(PATIENCE, "the group is held", || {
        let _ = holder.poll(Duration::from_millis(20));
        holder.assignment().is_ok_and(|assigned| assigned.count() == 1)
    })?;
    let running = start(&line, 2, &[("TRIPLINE_LOG__LEVEL", "info,tripline=debug")])?;
    wait_until(PATIENCE, "the worker is refused", || {
        let _ = holder.poll(Duration::from_millis(1));
        running.worker.log_tail(500).contains("InconsistentGroupProtocol")
    })?;
    ensure!(!running.worker.is_ready(&running.admin), "ready without a partition");
    refused(&repartition(&line, 4, &["--execute"], "")?, "has members")?;
    drop(holder);
    ready(running)?.stop()
}

/// A process that has not heard of a move, and owns no task that would stop it, must not route: its observations would go to where their
/// entities were.
#[test]
fn a_router_that_knows_of_fewer_tasks_than_there_are_stops() -> Result<()> {
    let line = Line::new(&Setup::routed(1, 2))?;
    let running = ready(start(&line, 2, &[])?)?;
    line.produce(generated(94, 400)?.lines())?;
    line.settle()?;
    running.stop()?;
    let (offset, ours) = metadata(&line, &line.input, 0)?;
    // What a move writes beside a router's offset.
    let mut moved: serde_json::Value = serde_json::from_str(&ours)?;
    moved["partitions"] = 4.into();
    wait_until(PATIENCE, "the group is empty", || set_offset(&line, &line.input, 0, offset, &moved.to_string()).is_ok())?;
    let listed = line.command(&["state", "list"], &line.settings("one"))?;
    ensure!(listed.status.code() == Some(1), "it is foretold: {}", String::from_utf8_lossy(&listed.stdout));
    let mut stopped = start(&line, 2, &[])?;
    wait_until(PATIENCE, "the process stops", || stopped.worker.exit_status().is_some())?;
    let log = stopped.worker.log_tail(30);
    ensure!(log.contains("the state was written for 4 partitions, the topic has 2"), "says why:\n{log}");
    Ok(())
}

/// What somebody wrote to an entity's former partition, or to any but its own, makes no second state there.
#[test]
fn an_observation_in_another_partition_than_its_keys_is_dead_lettered_and_can_be_sent_home() -> Result<()> {
    let line = Line::new(&Setup::routed(1, 2))?;
    let running = ready(start(&line, 2, &[])?)?;
    line.produce(generated(95, 400)?.lines())?;
    line.settle()?;
    let observations = line.topic("internal.observations");
    let found = line.read("internal.observations")?;
    let entity = found.iter().find(|record| record.key_text().starts_with("user:")).context("an observation of a user")?;
    let strayed = Record::new(entity.key_text(), entity.value.clone().context("a value")?);
    line.kafka.produce_all(&observations, [strayed.to_partition(1 - entity.partition)])?;
    let letters = || line.read("dead-letters").unwrap_or_default();
    wait_until(PATIENCE, "it is dead-lettered", || {
        letters()
            .iter()
            .any(|letter| letter.header("tripline-reason") == Some(b"misrouted") && letter.header("tripline-stage") == Some(b"detector"))
    })?;
    assert_at_home(&line, 2)?;
    let sent = line.command(&["dlq", "redrive", "--reason", "misrouted", "--execute"], &line.settings("one"))?;
    ensure!(String::from_utf8_lossy(&sent.stdout).contains("1 dead letter sent back"), "{}", String::from_utf8_lossy(&sent.stderr));
    let at_home = |record: &&tripline_testkit::OwnedRecord| record.partition == entity.partition && record.key == entity.key;
    let before = found.iter().filter(at_home).count();
    wait_until(PATIENCE, "it is at home", || {
        line.read("internal.observations").is_ok_and(|now| now.iter().filter(at_home).count() == before + 1)
    })?;
    line.settle()?;
    ensure!(letters().iter().filter(|letter| letter.header("tripline-reason").is_some()).count() == 1, "it was taken there");
    running.stop()
}

/// A commit of many states, as a worker would have written it; the evidence run sets more.
#[test]
fn many_states_move_and_none_is_left_behind() -> Result<()> {
    let states: usize = std::env::var("TRIPLINE_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000);
    let line = Line::new(&Setup::routed(1, 2))?;
    let running = ready(start(&line, 2, &[])?)?;
    line.produce(generated(95, 500)?.lines())?;
    line.settle()?;
    running.stop()?;
    let (observations, changelog) = (line.topic("internal.observations"), line.topic("internal.changelog"));
    let before = assert_at_home(&line, 2)?;
    let written = line.read("internal.changelog")?;
    let state = written.iter().rev().find(|r| r.key_text().starts_with("user:") && r.value.is_some()).context("a state")?;
    for partition in 0..2 {
        let key = format!("task/{partition}");
        let mut marker = written.iter().rev().find(|r| r.key_text() == key).context("a marker")?.json()?;
        let (offset, ours) = metadata(&line, &observations, partition)?;
        let mut ours: serde_json::Value = serde_json::from_str(&ours)?;
        for place in [&mut marker, &mut ours] {
            place["seq"] = (place["seq"].as_u64().context("a seq")? + 1).into();
            place["commit_id"] = "0123456789abcdef0123456789abcdef".into();
        }
        let users = (0..states).map(|n| format!("user:made{n}")).filter(|key| murmur2_partition(key.as_bytes(), 2) == partition);
        let records = users.map(|key| Record { value: state.value.clone(), ..Record::new(key, "") });
        let marker = Record::new(key, marker.to_string());
        line.kafka.produce_all(&changelog, records.chain([marker]).map(|record| record.to_partition(partition)))?;
        let set = || set_offset(&line, &observations, partition, offset, &ours.to_string()).is_ok();
        wait_until(PATIENCE, "the group is empty", set)?;
    }
    let said = grow(&line, 6, &[])?;
    ensure!(said.contains(&format!("  states    {},", before + states)), "{} states expected: {said}", before + states);
    ensure!(assert_at_home(&line, 6)? == before + states, "states were lost or doubled");
    ready(start(&line, 6, &[])?)?.stop()
}
