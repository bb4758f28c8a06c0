//! Promise 3: the state is what the changelog says, and a task starts only at the commit that it knows.

use crate::line::{Line, PATIENCE, Setup, assert_equal, generated};
use anyhow::{Result, ensure};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};
use tripline_testkit::{Kafka, Options, wait_until};

/// From an owner's death to the last decision: a session of 6 s, a join, and what a busy machine takes for it.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

fn halves(events: &str) -> (Vec<&str>, Vec<&str>) {
    let lines: Vec<&str> = events.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    (first.to_vec(), second.to_vec())
}

#[test]
fn a_lost_disk_is_rebuilt_from_the_changelog() -> Result<()> {
    let line = Line::new(&Setup::keyed(3))?;
    let events = generated(51, 8_000)?;
    let (first, second) = halves(&events);
    let running = line.start("one")?;
    line.produce(first)?;
    line.settle()?;
    running.stop()?;
    std::fs::remove_dir_all(line.file("state-one"))?;
    let running = line.start("one")?;
    ensure!(running.metrics()?.sum("tripline_restore_records_total", &[]) > 0.0, "nothing was restored");
    line.produce(second)?;
    line.settle()?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    running.stop()
}

/// Moves the group's offset, as an operator might with Kafka's own tools.
fn set_offset(line: &Line, partition: i32, offset: i64) -> Result<()> {
    let mut config = line.kafka.client_config();
    let consumer: BaseConsumer = config.set("group.id", &line.app).set("enable.auto.commit", "false").create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&line.input, partition, Offset::Offset(offset))?;
    consumer.commit(&list, CommitMode::Sync)?;
    Ok(())
}

#[test]
fn offsets_that_are_not_ours_stop_the_task_until_the_changelog_is_adopted() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let events = generated(52, 4_000)?;
    let (first, second) = halves(&events);
    let mut running = line.start_with(
        "one",
        "detect,sink",
        &[("TRIPLINE_STREAM__SESSION_TIMEOUT", "6s"), ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "3s")],
    )?;
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    line.produce(first)?;
    line.settle()?;
    running.stop()?;
    // Static members leave no word: their place is free after the session's time.
    wait_until(Duration::from_secs(30), "the group is empty", || set_offset(&line, 0, 7).inspect_err(|e| eprintln!("{e:#}")).is_ok())?;
    let mut stopped =
        line.start_with("one", "detect", &[("TRIPLINE_STREAM__SESSION_TIMEOUT", "6s"), ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "3s")])?;
    wait_until(PATIENCE, "the process stops", || stopped.worker.exit_status().is_some())?;
    let log = stopped.worker.log_tail(20);
    ensure!(stopped.worker.exit_status().and_then(|s| s.code()) == Some(4), "exit code 4 expected:\n{log}");
    ensure!(
        log.contains("tripline state adopt --topic") && log.contains("--partition 0") && log.contains("offset"),
        "the message names the way out:\n{log}"
    );
    let adopt = || line.command(&["state", "adopt", "--partition", "0"], &line.settings("one"));
    wait_until(Duration::from_secs(30), "the group is empty", || adopt().is_ok_and(|done| done.status.success()))?;
    let running = line.start("one")?;
    line.produce(second)?;
    line.settle()?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    running.stop()
}

#[test]
fn rules_and_flags_change_between_transactions_and_are_recorded() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let running = line.start("one")?;
    let events = generated(53, 2_000)?;
    let (first, second) = halves(&events);
    line.produce(first)?;
    line.settle()?;
    // Broken: the old flags stay, and the log says so.
    std::fs::write(line.file("flags.json"), "{ this is not a flags file")?;
    wait_until(PATIENCE, "the broken file is reported", || {
        running.metrics().is_ok_and(|m| m.sum("tripline_reloads_total", &[("result", "failed")]) >= 1.0)
    })?;
    std::fs::write(line.file("flags.json"), r#"{"ANOMALY_DETECTION_ENABLED": true}"#)?;
    wait_until(PATIENCE, "the new flags are taken up", || {
        running.metrics().is_ok_and(|m| m.sum("tripline_reloads_total", &[("result", "ok")]) >= 1.0)
    })?;
    line.produce(second)?;
    line.settle()?;
    let found = line.decisions()?;
    let digests: std::collections::BTreeSet<_> = found.values().map(|d| d["flags"].as_str().unwrap_or_default().to_owned()).collect();
    ensure!(digests.len() == 2, "{} flag digests on decisions", digests.len());
    let epochs: Vec<_> = line.read("internal.epochs")?.iter().map(|r| r.json()).collect::<Result<_>>()?;
    let recorded: std::collections::BTreeSet<_> = epochs.iter().map(|e| e["flags"].as_str().unwrap_or_default().to_owned()).collect();
    ensure!(digests.is_subset(&recorded), "every digest stands in the epochs: {recorded:?}");
    ensure!(found.values().any(|d| d["held_back"][0]["by"] == "flag:ANOMALY_ALERTING_ENABLED"), "without the flag alerts are held back");
    running.stop()
}

/// The state on this disk is fine, but nothing could rebuild it elsewhere: better said now than after the disk is lost.
#[test]
fn a_changelog_that_was_made_anew_stops_the_task() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let running = line.start("one")?;
    line.produce(generated(54, 1_000)?.lines())?;
    line.settle()?;
    running.stop()?;
    let changelog = line.topic("internal.changelog");
    line.kafka.delete_topic(&changelog)?;
    wait_until(PATIENCE, "the changelog is there again, empty", || {
        line.command(&["topics", "apply"], &line.settings("setup")).is_ok_and(|done| done.status.success())
            && line.kafka.end_offsets(&changelog).is_ok_and(|ends| ends.values().all(|end| *end == 0))
    })?;
    let mut stopped = line.start_with("one", "detect", &[])?;
    wait_until(PATIENCE, "the process stops", || stopped.worker.exit_status().is_some())?;
    let log = stopped.worker.log_tail(20);
    ensure!(log.contains("records are missing from it"), "the message says what is missing:\n{log}");
    Ok(())
}

/// The owner is killed with its offsets in an open transaction: its successor does not wait until the broker gives it up. This
/// broker looks for transactions that have timed out every ten minutes only.
#[test]
fn what_a_dead_owner_left_open_is_ended_by_its_successor() -> Result<()> {
    let rarely = ("transaction.abort.timed.out.transaction.cleanup.interval.ms".to_owned(), "600000".to_owned());
    let kafka = Kafka::start_with(&Options { properties: vec![rarely], ..Options::default() })?.keep();
    let line = Line::on(kafka, &Setup::routed(1, 4))?;
    let timing = [("TRIPLINE_STREAM__SESSION_TIMEOUT", "6s"), ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "5s")];
    let mut one = line.start_with("one", "detect,sink", &timing)?;
    one.worker.wait_ready(&one.admin, PATIENCE)?;
    let events = generated(56, 6_000)?;
    let mut pieces = events.lines().collect::<Vec<_>>().chunks(60).map(<[&str]>::to_vec).collect::<Vec<_>>().into_iter();
    let dying = [timing[0], timing[1], ("TRIPLINE_FAILPOINTS", "after_send_offsets=kill@8")];
    let mut two = line.start_with("two", "detect", &dying)?;
    wait_until(PATIENCE, "the second worker dies in a transaction", || {
        two.worker.exit_status().is_some() || line.produce(pieces.next().unwrap_or_default()).is_err()
    })?;
    let died = Instant::now();
    line.produce(pieces.flatten())?;
    line.settle()?;
    let took = died.elapsed();
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    ensure!(one.metrics()?.sum("tripline_fences_total", &[]) == 1.0, "one dead owner, ended once:\n{}", one.worker.log_tail(20));
    eprintln!("session timeout 6 s: everything decided {took:?} after the owner's death");
    ensure!(took < ENDED_WITHIN, "everything was decided only {took:?} after the owner's death");
    one.stop()
}
