//! Promise 3 when a restore does not come to its end, or has little to do: it goes on where it was, and what the disk has is not
//! applied again.

use crate::growth::{metadata, set_offset};
use crate::line::{Line, PATIENCE, Running, Setup, assert_equal, generated};
use anyhow::{Context, Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::time::{Duration, Instant};
use tripline_testkit::{Record, unique, wait_until};

/// Commits that are made, and the states in each.
const COMMITS: usize = 60;
const STATES: usize = 400;
/// Records at most between two places where a restore may go on: what fits into its MiB of memory, and the rest of a commit.
const STEP: usize = 5_000;
/// A restore says how far it is every 5 s.
const UNTIL_IT_IS_SAID: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(15);

/// The least memory, so that a restore writes often; and members that stopped are gone soon.
const SMALL: [(&str, &str); 4] = [
    ("TRIPLINE_MEMORY__BUDGET", "260MiB"),
    ("TRIPLINE_STREAM__LANES", "1"),
    ("TRIPLINE_STREAM__SESSION_TIMEOUT", "6s"),
    ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "5s"),
];

fn start(line: &Line, more: &[(&str, &str)]) -> Result<Running> {
    line.start_with("one", "detect", &[&SMALL, more].concat())
}

fn ready(mut running: Running) -> Result<Running> {
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    Ok(running)
}

/// The end of the task's changelog.
fn end(line: &Line) -> Result<usize> {
    Ok(usize::try_from(line.kafka.end_offsets(&line.topic("internal.changelog"))?[&0])?)
}

fn restored(running: &Running) -> Result<usize> {
    Ok(running.metrics()?.sum("tripline_restore_records_total", &[]) as usize)
}

fn left(running: &Running) -> Result<usize> {
    Ok(running.metrics()?.sum("tripline_restore_remaining_offsets", &[]) as usize)
}

/// Commits of many states behind those of the task, as a worker would have written them. `halfway` comes between them.
fn add_commits<T>(line: &Line, halfway: impl FnOnce() -> Result<T>) -> Result<T> {
    let written = line.read("internal.changelog")?;
    let states = written.iter().filter(|r| r.key_text().starts_with("user:"));
    // The largest: the more a state takes, the sooner a restore writes.
    let state = states.max_by_key(|r| r.value.as_ref().map_or(0, Vec::len)).context("a state")?;
    let mut marker = written.iter().rfind(|r| r.key_text() == "task/0").context("a marker")?.json()?;
    let (offset, ours) = metadata(line, &line.input, 0)?;
    let mut ours: Value = serde_json::from_str(&ours)?;
    let mut commit = |number: usize| -> Result<Vec<Record>> {
        for place in [&mut marker, &mut ours] {
            place["seq"] = (place["seq"].as_u64().context("a seq")? + 1).into();
            place["commit_id"] = format!("{:032x}", number + 1).into();
        }
        let states = (0..STATES).map(|n| Record { value: state.value.clone(), ..Record::new(format!("user:made{number}-{n}"), "") });
        Ok(states.chain([Record::new("task/0", marker.to_string())]).map(|record| record.to_partition(0)).collect())
    };
    let (mut records, changelog) = (Vec::new(), line.topic("internal.changelog"));
    for number in 0..COMMITS {
        records.push(commit(number)?);
    }
    let second = records.split_off(COMMITS / 2);
    line.kafka.produce_all(&changelog, records.into_iter().flatten())?;
    let between = halfway()?;
    line.kafka.produce_all(&changelog, second.into_iter().flatten())?;
    let ours = ours.to_string();
    wait_until(PATIENCE, "the group is empty", || set_offset(line, &line.input, 0, offset, &ours).is_ok())?;
    Ok(between)
}

/// A line that has decided the first half of the events, has many more states than that, and has lost its disk.
fn without_a_disk<T>(events: &[&str], halfway: impl FnOnce(&Line) -> Result<T>) -> Result<(Line, T)> {
    let line = Line::new(&Setup::keyed(1))?;
    let running = ready(start(&line, &[])?)?;
    line.produce(events[..events.len() / 2].iter().copied())?;
    line.settle()?;
    running.stop()?;
    let between = add_commits(&line, || halfway(&line))?;
    std::fs::remove_dir_all(line.file("state-one"))?;
    Ok((line, between))
}

/// Every state of the disk is what the changelog says, the made ones, too.
fn assert_right(line: &Line) -> Result<()> {
    let done = line.command(&["state", "verify"], &line.settings("one"))?;
    ensure!(done.status.success(), "{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    Ok(())
}

#[test]
fn a_restore_that_is_killed_goes_on_where_it_was_and_an_intact_disk_lacks_only_the_tail() -> Result<()> {
    let events = generated(58, 3_000)?;
    let lines: Vec<&str> = events.lines().collect();
    let (line, ()) = without_a_disk(&lines, |_| Ok(()))?;
    let whole = end(&line)?;
    let killed_at = whole / 4 * 3;
    let mut killed = start(&line, &[("TRIPLINE_FAILPOINTS", &format!("in_restore=kill@{killed_at}"))])?;
    wait_until(PATIENCE, "it is killed while it restores", || killed.worker.exit_status().is_some())?;
    ensure!(killed.worker.exit_status().is_some_and(|status| status.code().is_none()), "killed:\n{}", killed.worker.log_tail(20));
    // What comes after this start is written a minute later: the kill finds it in memory only.
    let mut running = ready(start(&line, &[("TRIPLINE_STATE__WRITE_INTERVAL", "60s")])?)?;
    let rest = restored(&running)?;
    eprintln!("{whole} offsets, killed after {killed_at} records, {rest} records applied after that");
    ensure!(rest > 0 && rest <= whole - killed_at + STEP, "{rest} records applied of {whole} after the kill at {killed_at}");

    let before = end(&line)?;
    line.produce(lines[lines.len() / 2..].iter().copied())?;
    line.settle()?;
    running.worker.kill_9();
    let tail = end(&line)? - before;
    let running = ready(start(&line, &[])?)?;
    let rest = restored(&running)?;
    eprintln!("{tail} offsets since the restore, {rest} records applied after a kill");
    ensure!(rest > 0 && rest <= tail && tail < STEP, "{rest} records applied of {tail} that the disk may lack");
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    running.stop()?;
    assert_right(&line)
}

/// Opens a transaction in the changelog: nobody reads past it before it ends. Answers where it begins, too.
fn hold(line: &Line) -> Result<(BaseProducer, usize)> {
    let mut config = line.kafka.client_config();
    let holder: BaseProducer = config.set("transactional.id", unique("holder")).set("transaction.timeout.ms", "60000").create()?;
    holder.init_transactions(LIMIT)?;
    holder.begin_transaction()?;
    let at = end(line)?;
    let changelog = line.topic("internal.changelog");
    let record = BaseRecord::<str, str>::to(&changelog).partition(0).key("user:never").payload("");
    holder.send(record).map_err(|(error, _)| error)?;
    holder.flush(LIMIT)?;
    Ok((holder, at))
}

#[test]
fn a_restore_that_is_stopped_has_shown_how_far_it_is_and_goes_on_there() -> Result<()> {
    let events = generated(59, 3_000)?;
    let lines: Vec<&str> = events.lines().collect();
    let (line, (holder, at)) = without_a_disk(&lines, hold)?;
    let behind = 1 + COMMITS / 2 * (STATES + 1);
    let whole = at + behind;
    // The gauge is set every 1,024 records.
    let stands = |running: &Running| left(running).is_ok_and(|left| left >= behind && left < behind + 1_024);
    let running = start(&line, &[])?;
    wait_until(PATIENCE, "half of it is restored", || stands(&running))?;
    ensure!(!running.worker.is_ready(&running.admin), "ready without its state");
    running.stop()?;

    let running = start(&line, &[])?;
    wait_until(PATIENCE, "the rest is looked at", || left(&running).is_ok_and(|left| left > 0))?;
    let began = Instant::now();
    wait_until(PATIENCE, "it is time to say how far it is", || began.elapsed() > UNTIL_IT_IS_SAID)?;
    holder.abort_transaction(LIMIT)?;
    let running = ready(running)?;
    let (rest, left) = (restored(&running)?, left(&running)?);
    eprintln!("{whole} offsets, stopped {behind} before the end, {rest} records applied after that");
    ensure!(rest >= COMMITS / 2 * STATES && rest <= behind + STEP, "{rest} records applied of {whole}");
    ensure!(left == 0, "{left} offsets left of a restore that has ended");
    let log = std::fs::read_to_string(running.worker.log())?;
    ensure!(log.contains(r#""message":"restoring""#) && log.contains(r#""message":"restore ended""#), "says how far it is:\n{log}");
    line.produce(lines[lines.len() / 2..].iter().copied())?;
    line.settle()?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    running.stop()?;
    assert_right(&line)
}
