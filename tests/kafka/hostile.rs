//! Hands that are not ours: foreign records in the changelog, foreign words in the offsets, topics made anew, partitions added,
//! records gone before they were read. Each stops with a message that says what to do, or goes on as documented.

use crate::growth;
use crate::line::{Line, PATIENCE, Running, Setup, assert_equal, generated};
use anyhow::{Context, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::convert::Infallible;
use std::time::Duration;
use tripline::stream::changelog::{self, Isolation, ReadError, Span};
use tripline_testkit::{Record, wait_until};

/// A member that was stopped is one until its session is over: short, so that offsets can be written soon.
const QUICK: [(&str, &str); 2] = [("TRIPLINE_STREAM__SESSION_TIMEOUT", "6s"), ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "3s")];

fn start(line: &Line, more: &[(&str, &str)]) -> Result<Running> {
    let mut running = line.start_with("one", "detect,sink", &[&QUICK, more].concat())?;
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    Ok(running)
}

/// Starts a worker that has to refuse, and answers what it said.
fn refusal(line: &Line) -> Result<String> {
    let stopped = line.start_with("one", "detect", &QUICK)?;
    said_at_the_end(stopped)
}

fn said_at_the_end(mut stopped: Running) -> Result<String> {
    let ended = wait_until(PATIENCE, "the process stops", || stopped.worker.exit_status().is_some());
    let log = stopped.worker.log_tail(30);
    ended.with_context(|| format!("last lines:\n{log}"))?;
    ensure!(stopped.worker.exit_status().and_then(|s| s.code()) == Some(4), "exit code 4 expected:\n{log}");
    Ok(log)
}

fn lose_the_disk(line: &Line) -> Result<()> {
    std::fs::remove_dir_all(line.file("state-one")).context("the state folder")
}

fn admin<T>(line: &Line, work: impl AsyncFnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> T) -> Result<T> {
    let admin = line.kafka.client_config().create()?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(15)));
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work(&admin, &options)))
}

/// Deletes what stands before these offsets of these partitions.
fn delete_before(line: &Line, topic: &str, firsts: impl IntoIterator<Item = (i32, i64)>) -> Result<()> {
    let mut gone = TopicPartitionList::new();
    for (partition, offset) in firsts {
        gone.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    let delete = || admin(line, async |admin, options| admin.delete_records(&gone, options).await);
    let is_deleted = || delete().is_ok_and(|done| done.is_ok_and(|gone| gone.elements().iter().all(|each| each.error().is_ok())));
    wait_until(PATIENCE, "the records are gone", is_deleted)
}

fn add_partitions(line: &Line, topic: &str, count: usize) -> Result<()> {
    let outcome = admin(line, async |admin, options| admin.create_partitions(&[NewPartitions::new(topic, count)], options).await)??;
    outcome.into_iter().try_for_each(|outcome| outcome.map(drop).map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}")))?;
    wait_until(PATIENCE, "the partitions have leaders", || line.kafka.end_offsets(topic).is_ok_and(|ends| ends.len() == count))
}

fn set_offset(line: &Line, topic: &str, partition: i32, offset: i64, metadata: &str) -> Result<()> {
    // Static members leave no word: their place is free after the session's time.
    let set = || growth::set_offset(line, topic, partition, offset, metadata).is_ok();
    wait_until(Duration::from_secs(30), "the group is empty", set)
}

/// Takes the changelog's word for the input's partition, with these arguments, as soon as the group is empty.
fn adopt(line: &Line, args: &[&str]) -> Result<()> {
    let args = [&["state", "adopt", "--topic", &line.input, "--partition", "0"], args].concat();
    let adopt = || line.command(&args, &line.settings("one"));
    wait_until(Duration::from_secs(30), "the group is empty", || adopt().is_ok_and(|done| done.status.success()))
}

fn parts(events: &str, number: usize) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = events.lines().collect();
    lines.chunks(lines.len().div_ceil(number)).map(<[&str]>::to_vec).collect()
}

/// Foreign records under entities' and markers' keys: the store goes on as it is, a rebuild names the record that is no state,
/// and a tombstone behind it is the way out.
#[test]
fn foreign_records_in_the_changelog_are_named_or_passed_by() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let events = generated(71, 6_000)?;
    let parts = parts(&events, 3);
    let changelog = line.topic("internal.changelog");
    let running = start(&line, &[])?;
    line.produce(parts[0].iter().copied())?;
    line.settle()?;
    let foreign_marker = r#"{"v":1,"app":"another","history":"h","seq":900,"commit_id":"x","next_offset":1,"stream_time_ms":0,"partitions":1,"rules":"","flags":"","states":0,"decisions":0}"#;
    let markers =
        ["{\"v\":9,\"app\":\"new\"}", "{\"v\":1,\"app\":", foreign_marker, ""].map(|text| Record::new("task/0", text).to_partition(0));
    let states =
        [("user:nobody", "no state"), ("", "\u{3}"), ("task/0/time", "[")].map(|(key, value)| Record::new(key, value).to_partition(0));
    line.kafka.produce_all(&changelog, markers.into_iter().chain(states))?;
    line.produce(parts[1].iter().copied())?;
    line.settle()?;
    running.stop()?;
    lose_the_disk(&line)?;
    let log = refusal(&line)?;
    ensure!(log.contains("changelog partition 0, offset") && log.contains("null value"), "names the record and the way out:\n{log}");
    // The way out: a tombstone behind each of them, and a commit behind that.
    let tombstones = ["user:nobody", ""].map(|key| Record { value: None, ..Record::new(key, "").to_partition(0) });
    line.kafka.produce_all(&changelog, tombstones)?;
    let running = start(&line, &[])?;
    line.produce(parts[2].iter().copied())?;
    line.settle()?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    running.stop()
}

/// Words of a newer version, and of somebody else, beside the offset of the input.
fn foreign_words(setup: &Setup) -> Result<()> {
    let line = Line::new(setup)?;
    let events = generated(72, 3_000)?;
    let running = start(&line, &[])?;
    line.produce(events.lines())?;
    line.settle()?;
    running.stop()?;
    let next = line.kafka.committed_offsets(&line.app, &line.input)?[&0];
    set_offset(&line, &line.input, 0, next, r#"{"v":2,"history":"h","seq":1}"#)?;
    let log = refusal(&line)?;
    ensure!(log.contains("layout 2") && log.contains("start the version that wrote it"), "names the version:\n{log}");
    set_offset(&line, &line.input, 0, next, "written by another tool")?;
    let log = refusal(&line)?;
    ensure!(log.contains("it expired, was reset") && log.contains("tripline state adopt"), "names the way out:\n{log}");
    ensure!(log.contains(&format!("--topic {} --partition 0", line.input)), "names the partition:\n{log}");
    // The way out, as it is named.
    adopt(&line, &[])?;
    let running = start(&line, &[])?;
    line.settle()?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    running.stop()
}

#[test]
fn foreign_words_beside_the_offset_stop_the_task() -> Result<()> {
    foreign_words(&Setup::keyed(1))
}

#[test]
fn foreign_words_beside_the_offset_of_a_routed_input_stop_the_router() -> Result<()> {
    foreign_words(&Setup::routed(1, 2))
}

/// A marker that is no marker is not taken for "there is no state".
#[test]
fn a_newest_marker_that_cannot_be_read_is_no_fresh_start() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let marker = Record::new("task/0", r#"{"v":2,"app":"a newer version"}"#).to_partition(0);
    line.kafka.produce_all(&line.topic("internal.changelog"), [marker])?;
    let log = refusal(&line)?;
    ensure!(log.contains("should be the task's newest marker"), "names the record:\n{log}");
    Ok(())
}

/// The way out that the manual names: the task's last marker once more, and then the changelog's word for it.
#[test]
fn a_marker_that_somebody_wrote_over_is_written_again_and_adopted() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let events = generated(78, 2_000)?;
    let parts = parts(&events, 2);
    let running = start(&line, &[])?;
    line.produce(parts[0].iter().copied())?;
    line.settle()?;
    running.stop()?;
    let changelog = line.topic("internal.changelog");
    let markers = line.read("internal.changelog")?;
    let last = markers.iter().rfind(|record| record.key_text() == "task/0").and_then(|record| record.value.clone()).context("a marker")?;
    line.kafka.produce_all(&changelog, [Record::new("task/0", "somebody else's").to_partition(0)])?;
    let next = line.kafka.committed_offsets(&line.app, &line.input)?[&0];
    set_offset(&line, &line.input, 0, next, "somebody else's")?;
    let listed = line.command(&["state", "list"], &line.settings("one"))?;
    let said = String::from_utf8_lossy(&listed.stdout).into_owned();
    ensure!(listed.status.code() == Some(1) && said.contains("should be the task's newest marker"), "it is foretold: {said}");
    let log = refusal(&line)?;
    ensure!(log.contains("should be the task's newest marker") && !log.contains("state adopt"), "adopt alone is no way out:\n{log}");
    line.kafka.produce_all(&changelog, [Record::new("task/0", last).to_partition(0)])?;
    adopt(&line, &[])?;
    let running = start(&line, &[])?;
    line.produce(parts[1].iter().copied())?;
    line.settle()?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    running.stop()
}

/// A topic with a retention begins somewhere in the middle. Each start reads on where it was, by the first consumer.
#[test]
fn topics_whose_first_records_are_gone_are_read_on_at_once() -> Result<()> {
    let line = Line::new(&Setup::routed(8, 8))?;
    let events = generated(79, 3_000)?;
    for part in parts(&events, 5) {
        let running = start(&line, &[])?;
        line.produce(part)?;
        line.settle()?;
        let log = std::fs::read_to_string(running.worker.log())?;
        ensure!(!log.contains("the consumer is rebuilt"), "the positions were found at once:\n{log}");
        running.stop()?;
        for topic in [&line.input, &line.topic("internal.observations")] {
            delete_before(&line, topic, line.kafka.committed_offsets(&line.app, topic)?)?;
        }
    }
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    Ok(())
}

/// What retention takes while somebody reads: those who read what is left go on behind it, all others are told at once.
#[test]
fn records_that_go_before_they_are_read_are_passed_by_or_told_of() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    line.kafka.produce_all(&line.input, (0..30).map(|n| Record::new(format!("user:u{n}"), "{}").to_partition(0)))?;
    delete_before(&line, &line.input, [(0, 20)])?;
    let client = changelog::client(&line.kafka.client_config(), &line.app, Isolation::Committed, changelog::FEW)?;
    let span = Span { topic: &line.input, partition: 0, from: 0, end: 30 };
    let mut found = Vec::new();
    let mut show = |record: &BorrowedMessage<'_>| {
        found.push(record.offset());
        Ok::<_, Infallible>(false)
    };
    let told = changelog::read_records(&client, span, 4 * PATIENCE, || false, &mut show);
    ensure!(matches!(told, Err(ReadError::Kafka(_))), "{told:?}");
    let read = changelog::read_what_is_left(&client, span, 4 * PATIENCE, &mut show);
    ensure!(read.is_ok(), "{read:?}");
    ensure!(found == (20..30).collect::<Vec<_>>(), "{found:?}");
    Ok(())
}

/// Records that were deleted before they were read: said, and read on from what is there when told so.
fn outran_by_retention(setup: &Setup) -> Result<()> {
    let line = Line::new(setup)?;
    let events = generated(73, 4_000)?;
    let parts = parts(&events, 3);
    let running = start(&line, &[])?;
    line.produce(parts[0].iter().copied())?;
    line.settle()?;
    running.stop()?;
    line.produce(parts[1].iter().copied())?;
    let end = line.kafka.end_offsets(&line.input)?[&0];
    delete_before(&line, &line.input, [(0, end)])?;
    let log = refusal(&line)?;
    ensure!(log.contains("records were deleted before they were read") && log.contains("--offset earliest"), "names the way out:\n{log}");
    adopt(&line, &["--offset", "earliest"])?;
    let running = start(&line, &[])?;
    line.produce(parts[2].iter().copied())?;
    line.settle()?;
    let kept: String = parts[0].iter().chain(&parts[2]).map(|event| format!("{event}\n")).collect();
    assert_equal(&line.decisions()?, &line.replay(&kept)?);
    running.stop()
}

#[test]
fn retention_that_outran_the_offset_stops_the_task_until_it_is_told_where_to_go_on() -> Result<()> {
    outran_by_retention(&Setup::keyed(1))
}

#[test]
fn retention_that_outran_a_routed_input_stops_the_router_until_it_is_told_where_to_go_on() -> Result<()> {
    outran_by_retention(&Setup::routed(1, 2))
}

/// Compaction leaves a partition's beginning where it is, so a changelog that begins later has lost states. A whole store goes on
/// and says so, a rebuild stops, and what is left is gone on with when an operator says so, then and ever after.
#[test]
fn a_changelog_that_lost_its_beginning_rebuilds_nothing_until_it_is_told_to() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let events = generated(77, 3_000)?;
    let parts = parts(&events, 3);
    let mut remaining = parts.iter();
    let mut go_on = || -> Result<String> {
        let running = start(&line, &[])?;
        line.produce(remaining.next().context("a part of the events")?.iter().copied())?;
        line.settle()?;
        let log = std::fs::read_to_string(running.worker.log())?;
        running.stop()?;
        Ok(log)
    };
    go_on()?;
    // Kafka deletes records only of a topic that is not, or not only, compacted.
    let changelog = line.topic("internal.changelog");
    line.kafka.alter_topic(&changelog, &[("cleanup.policy", "delete")])?;
    delete_before(&line, &changelog, [(0, 20)])?;
    let topics = |args: &[&str]| line.command(&[&["topics"], args].concat(), &line.settings("setup"));
    topics(&["apply", "--alter"])?;
    wait_until(PATIENCE, "it is compacted again", || topics(&["check"]).is_ok_and(|done| done.status.success()))?;
    let log = go_on()?;
    ensure!(log.contains("a rebuild would lack states"), "a whole store goes on, and says so:\n{log}");
    lose_the_disk(&line)?;
    let log = refusal(&line)?;
    ensure!(log.contains("from offset 0 on, and that begins at 20") && log.contains("state adopt"), "names the way out:\n{log}");
    adopt(&line, &[])?;
    go_on()?;
    lose_the_disk(&line)?;
    let running = start(&line, &[])?;
    line.settle()?;
    running.stop()?;
    let verified = line.command(&["state", "verify"], &line.settings("one"))?;
    ensure!(verified.status.success(), "what is left is whole: {}", String::from_utf8_lossy(&verified.stdout));
    Ok(())
}

/// A topic under the same name is another topic.
fn made_anew(setup: &Setup) -> Result<()> {
    for is_running in [false, true] {
        let line = Line::new(setup)?;
        let mut running = start(&line, &[])?;
        line.produce(generated(74, 2_000)?.lines())?;
        line.settle()?;
        if !is_running {
            running.worker.terminate(Duration::from_secs(12))?;
        }
        line.kafka.delete_topic(&line.input)?;
        line.kafka.create_topic(&line.input, 1, &[("message.timestamp.type", "CreateTime"), ("retention.ms", "-1")])?;
        // More than was read of the former one: the offset is inside the new topic.
        line.produce(generated(75, 2_500)?.lines())?;
        let log = if is_running { said_at_the_end(running)? } else { refusal(&line)? };
        // Kafka forgets a group's offsets with their topic.
        let is_said = ["went with its topic", "created again", "made anew"].iter().any(|words| log.contains(words));
        ensure!(is_said, "running: {is_running}; says what happened:\n{log}");
    }
    Ok(())
}

#[test]
fn an_input_that_was_deleted_and_created_again_stops_the_task() -> Result<()> {
    made_anew(&Setup::keyed(1))
}

#[test]
fn a_routed_input_that_was_deleted_and_created_again_stops_the_router() -> Result<()> {
    made_anew(&Setup::routed(1, 2))
}

/// `input.start` is about a group's first start. A partition that comes later is read from its beginning, whatever was written
/// to it before the worker heard of it.
#[test]
fn partitions_added_to_a_routed_input_are_read_from_their_beginning() -> Result<()> {
    let line = Line::new(&Setup::routed(1, 2))?;
    let latest = [("TRIPLINE_INPUT__START", "latest")];
    let running = start(&line, &latest)?;
    let events = generated(76, 4_000)?;
    let parts = parts(&events, 2);
    line.produce(parts[0].iter().copied())?;
    line.settle()?;
    running.stop()?;
    add_partitions(&line, &line.input, 3)?;
    let produced = line.produce(parts[1].iter().copied())?;
    let running = start(&line, &latest)?;
    line.settle().with_context(|| running.worker.log_tail(30))?;
    let observed = running.metrics()?.sum("tripline_input_records_total", &[]) as u64;
    ensure!(observed == produced, "{observed} of {produced} records were routed");
    running.stop()
}

/// Keys move when the keyed topic gets partitions, and their states do not.
#[test]
fn partitions_added_to_a_keyed_input_stop_the_worker() -> Result<()> {
    let line = Line::new(&Setup::keyed(2))?;
    let running = start(&line, &[("TRIPLINE_KAFKA__PROPERTIES__TOPIC_METADATA_REFRESH_INTERVAL_MS", "1000")])?;
    line.produce(generated(77, 2_000)?.lines())?;
    line.settle()?;
    add_partitions(&line, &line.input, 4)?;
    let log = said_at_the_end(running)?;
    ensure!(log.contains("keys have moved"), "says what happened:\n{log}");
    Ok(())
}
