//! Dead letters redriven: each at most once, whatever is killed, and decided as if nothing had been wrong.

use crate::line::{BINARY, Line, PATIENCE, Setup, assert_equal, generated};
use crate::wire::behind_a_proxy;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tripline_testkit::{OwnedRecord, Record, Worker, wait_until};

/// A mapping under which no event of ours has a time.
const WRONG: [(&str, &str); 1] = [("TRIPLINE_INPUT__MAPPING", "*=ecs")];

/// Kills in one test; the evidence run sets more.
fn kills() -> u64 {
    std::env::var("TRIPLINE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// Runs `dlq …` to its end: exit code, stdout, stderr.
fn dlq(line: &Line, args: &[&str]) -> Result<(Option<i32>, String, String)> {
    let done = line.command(&[&["dlq"], args].concat(), &line.settings("operator"))?;
    Ok((done.status.code(), String::from_utf8(done.stdout)?, String::from_utf8_lossy(&done.stderr).into_owned()))
}

fn redrive(line: &Line, args: &[&str]) -> Result<Value> {
    let (code, out, err) = dlq(line, &[&["redrive", "-o", "json"], args].concat())?;
    ensure!(code == Some(0), "redrive: {code:?}\n{out}\n{err}");
    Ok(serde_json::from_str(&out)?)
}

fn list(line: &Line, args: &[&str]) -> Result<Value> {
    let (code, out, err) = dlq(line, &[&["list", "-o", "json", "--limit", "1000000"], args].concat())?;
    ensure!(code == Some(0), "list: {code:?}\n{err}");
    Ok(serde_json::from_str(&out)?)
}

/// Starts `dlq redrive --execute` beside the test.
fn spawn(line: &Line, rate: &str, name: &str, failpoints: &str) -> Result<Worker> {
    let mut settings = line.settings("operator");
    settings.push(("TRIPLINE_FAILPOINTS".into(), failpoints.into()));
    let args = ["dlq", "redrive", "--execute", "--rate", rate];
    Worker::spawn(BINARY, &args, settings.iter().map(|(k, v)| (k.as_str(), v.as_str())), line.file(&format!("{name}.log")))
}

fn letters(line: &Line) -> Result<Vec<OwnedRecord>> {
    Ok(line.read("dead-letters")?.into_iter().filter(|r| r.header("tripline-reason").is_some()).collect())
}

fn receipts(line: &Line) -> Result<Vec<(i32, String)>> {
    let text = |r: &OwnedRecord| Some((r.partition, String::from_utf8_lossy(r.header("tripline-redriven")?).into_owned()));
    Ok(line.read("dead-letters")?.iter().filter_map(text).collect())
}

/// What was redriven to the input, by the dead letter it came from; one that came twice is an error.
fn redriven(line: &Line) -> Result<BTreeMap<String, OwnedRecord>> {
    let mut found = BTreeMap::new();
    for record in line.kafka.read_committed(&line.input)? {
        let Some(from) = record.header("tripline-redriven-from").map(|v| String::from_utf8_lossy(v).into_owned()) else { continue };
        ensure!(found.insert(from.clone(), record).is_none(), "dead letter {from} was redriven twice");
    }
    Ok(found)
}

/// Each dead letter was redriven once, as it had been, and has one receipt.
fn check_once(line: &Line) -> Result<()> {
    let (letters, redriven, receipts) = (letters(line)?, redriven(line)?, receipts(line)?);
    ensure!(receipts.len() == receipts.iter().collect::<BTreeSet<_>>().len(), "a dead letter has two receipts");
    ensure!(
        (redriven.len(), receipts.len()) == (letters.len(), letters.len()),
        "{} dead letters, {} redriven, {} receipts",
        letters.len(),
        redriven.len(),
        receipts.len()
    );
    for letter in letters {
        let record = redriven.get(&format!("{}/{}", letter.partition, letter.offset)).context("redriven")?;
        ensure!((&record.key, &record.value) == (&letter.key, &letter.value), "key and value are the original ones");
        let source = |name: &str| letter.header(name).map(|v| String::from_utf8_lossy(v).into_owned());
        ensure!(Some(record.partition.to_string()) == source("tripline-source-partition"));
        ensure!(record.timestamp_ms.map(|ms| ms.to_string()) == source("tripline-source-timestamp"));
    }
    Ok(())
}

/// The first half is dead-lettered by a wrong setting, which is then put right. Redrives are killed at random moments and at each step,
/// while the worker takes up what comes back; the second half follows.
fn redriven_through_kills(setup: &Setup, mut seed: u64) -> Result<()> {
    let line = Line::new(setup)?;
    let events = generated(seed, 3_000)?;
    let (first, second): (Vec<&str>, Vec<&str>) = {
        let lines: Vec<&str> = events.lines().collect();
        (lines[..2_000].to_vec(), lines[2_000..].to_vec())
    };
    let mut wrong = line.start_with("one", "detect", &WRONG)?;
    wrong.worker.wait_ready(&wrong.admin, PATIENCE)?;
    line.produce(first.iter().copied())?;
    line.settle()?;
    wrong.stop()?;
    ensure!(letters(&line)?.len() == first.len() && line.read("decisions")?.is_empty(), "everything was dead-lettered");

    let before = line.kafka.end_offsets(&line.input)?;
    let planned = redrive(&line, &[])?;
    ensure!(planned["planned"].as_array().map(Vec::len) == Some(first.len()) && planned["sent"] == 0 && planned["executed"] == false);
    ensure!(line.kafka.end_offsets(&line.input)? == before && receipts(&line)?.is_empty(), "a dry run writes nothing");

    let running = line.start("one")?;
    let steps = ["before_seal=kill@2", "after_drain=kill@2", "after_commit=kill@2"];
    for step in steps {
        let mut killed = spawn(&line, "100", "redrive", step)?;
        wait_until(PATIENCE, step, || killed.exit_status().is_some())?;
        ensure!(killed.exit_status().and_then(|s| s.code()).is_none(), "{step}: killed, not ended:\n{}", killed.log_tail(5));
    }
    let mut inside = 0;
    for _ in 0..kills() {
        let sent = receipts(&line)?.len();
        let mut killed = spawn(&line, "60", "redrive", "")?;
        // Killed at any moment after its first batch: most of the time inside a transaction or between two.
        wait_until(PATIENCE, "a batch", || killed.exit_status().is_some() || receipts(&line).is_ok_and(|r| r.len() > sent))?;
        std::thread::sleep(Duration::from_millis(next(&mut seed) % 1_200));
        inside += u64::from(killed.exit_status().is_none());
        killed.kill_9();
    }
    let left = redrive(&line, &["--execute", "--rate", "100000"])?["sent"].as_u64();
    let again = redrive(&line, &["--execute"])?;
    ensure!(again["sent"] == 0 && again["already_redriven"] == first.len(), "nothing is left: {again}");
    check_once(&line)?;
    let reasons = list(&line, &[])?["reasons"].clone();
    ensure!(reasons["missing_field"]["open"] == 0 && reasons["missing_field"]["redriven"] == first.len(), "{reasons}");
    line.settle()?;
    line.produce(second)?;
    line.settle()?;
    let found = line.decisions()?;
    assert_equal(&found, &line.replay(&events)?);
    ensure!(line.read("late")?.is_empty() && letters(&line)?.len() == first.len(), "nothing late, nothing refused again");
    eprintln!("{} redriven, {inside} kills and {} steps, {left:?} in the last run, {} decisions", first.len(), steps.len(), found.len());
    running.stop()
}

#[test]
fn a_killed_redrive_sends_each_dead_letter_once_keyed() -> Result<()> {
    redriven_through_kills(&Setup::keyed(3), 71)
}

#[test]
fn a_killed_redrive_sends_each_dead_letter_once_routed() -> Result<()> {
    redriven_through_kills(&Setup::routed(1, 2), 72)
}

/// Dead letters of events that no setting makes right, and the worker that refuses them again.
fn refused_again(count: usize) -> Result<(Line, crate::line::Running)> {
    let line = Line::new(&Setup::routed(2, 2))?;
    let running = line.start("one")?;
    let value = r#"{"event_type":"login","user_id":"u1","headers":{"Authorization":"Bearer s3cret"},"data":{"card_number":"4111-1111"}}"#;
    let headers = [("ce_subject", "x"), ("other", "y"), ("content-type", "application/json")];
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let record = |n: usize| Record { headers: headers.clone(), ..Record::new(format!("k{n}"), value).at_ms(1_770_000_000_000) };
    line.kafka.produce_all(&line.input, (0..count).map(record))?;
    wait_until(PATIENCE, "dead letters", || letters(&line).is_ok_and(|l| l.len() == count))?;
    Ok((line, running))
}

#[test]
fn a_second_redrive_fences_the_first() -> Result<()> {
    let (line, running) = refused_again(300)?;
    let mut slow = spawn(&line, "20", "slow", "")?;
    wait_until(PATIENCE, "the first has begun", || receipts(&line).is_ok_and(|r| r.len() >= 20))?;
    let started = Instant::now();
    let sent = redrive(&line, &["--execute", "--rate", "100", "--max-attempts", "2"])?["sent"].as_u64().unwrap_or(0);
    ensure!(sent > 0 && started.elapsed() >= Duration::from_millis(sent * 10), "{sent} sent, at most 100 a second");
    wait_until(PATIENCE, "the first ends", || slow.exit_status().is_some())?;
    let log = slow.log_tail(5);
    ensure!(slow.exit_status().and_then(|s| s.code()) == Some(1) && log.contains("another redrive"), "{log}");
    wait_until(PATIENCE, "all have failed again", || letters(&line).is_ok_and(|l| l.len() == 600))?;
    ensure!(redriven(&line)?.len() == 300 && receipts(&line)?.len() == 300, "each once");
    running.stop()
}

#[test]
fn attempts_are_counted_and_bounded_and_a_receipt_is_no_dead_letter() -> Result<()> {
    let (line, running) = refused_again(1)?;
    for attempt in 1..=3u64 {
        wait_until(PATIENCE, "the next dead letter", || letters(&line).is_ok_and(|l| l.len() as u64 == attempt))?;
        let listed = list(&line, &["--status", "open"])?;
        let open = listed["letters"].as_array().context("a list")?;
        ensure!(open.len() == 1 && open[0]["attempt"] == attempt, "{listed}");
        let done = redrive(&line, &["--execute"])?;
        ensure!(done["sent"] == u64::from(attempt < 3), "attempt {attempt}: {done}");
    }
    let records = redriven(&line)?;
    for record in records.values() {
        let headers: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(headers == ["ce_subject", "content-type", "tripline-redriven-from", "tripline-attempt"], "{headers:?}");
    }
    let listed = list(&line, &[])?;
    ensure!(listed["letters"].as_array().map(Vec::len) == Some(3) && listed["reasons"]["missing_field"]["redriven"] == 2, "{listed}");
    // By name: what cannot be sent is a failure, what is done already is not.
    let last = listed["letters"][2]["letter"].as_str().context("a name")?.to_owned();
    let first = listed["letters"][0]["letter"].as_str().context("a name")?.to_owned();
    ensure!(dlq(&line, &["redrive", &last])?.0 == Some(1) && dlq(&line, &["redrive", &first])?.0 == Some(0));
    ensure!(dlq(&line, &["redrive", &last, "--max-attempts", "4", "--execute"])?.0 == Some(0));
    ensure!(dlq(&line, &["show", "0/999999"])?.0 == Some(1) && dlq(&line, &["show", "nonsense"])?.0 == Some(2));

    for output in ["table", "json"] {
        let (code, out, err) = dlq(&line, &["show", &first, "-o", output])?;
        ensure!(code == Some(0) && out.contains("u1") && out.contains("***") && out.contains("ce_subject"), "{out}\n{err}");
        ensure!(!out.contains("s3cret") && !out.contains("4111"), "masked: {out}");
    }
    let (_, out, err) = dlq(&line, &["show", &first, "--raw"])?;
    ensure!(out.contains("s3cret") && err.contains("unmasked"), "{out}\n{err}");
    for verb in [&["list"][..], &["list", "-o", "ndjson"], &["redrive"]] {
        let (_, out, err) = dlq(&line, verb)?;
        ensure!(!format!("{out}{err}").contains("u1") && !out.contains("s3cret"), "no content: {out}\n{err}");
    }
    running.stop()
}

/// A bug of ours, fixed: the observation goes back to the task that holds its entity.
#[test]
fn an_observation_goes_back_to_its_task() -> Result<()> {
    let mut setup = Setup::routed(1, 3);
    setup.emit_all = true;
    let line = Line::new(&setup)?;
    let events = generated(73, 400)?;
    let lines: Vec<&str> = events.lines().collect();
    let running = line.start("one")?;
    line.produce(lines[..399].iter().copied())?;
    line.settle()?;
    running.stop()?;
    let mut broken = line.start_with("one", "detect", &[("TRIPLINE_FAILPOINTS", "in_record=panic@1")])?;
    broken.worker.wait_ready(&broken.admin, PATIENCE)?;
    line.produce(lines[399..].iter().copied())?;
    line.settle()?;
    broken.stop()?;
    let listed = list(&line, &["--stage", "detector", "--reason", "panicked", "--topic", &line.topic("internal.observations")])?;
    ensure!(listed["letters"].as_array().map(Vec::len) == Some(1), "{listed}");
    let name = listed["letters"][0]["letter"].as_str().context("a name")?.to_owned();
    let running = line.start("one")?;
    ensure!(redrive(&line, &["--execute", &name])?["sent"] == 1);
    line.settle()?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    running.stop()
}

/// A line so long that each commit may have been sent twice: every batch gets a producer of its own, which also fences a run that began
/// meanwhile. What that one had sent by then is not sent again.
#[test]
fn a_redrive_that_cannot_tell_how_often_it_committed_sends_nothing_twice() -> Result<()> {
    let (kafka, proxy) = behind_a_proxy();
    let line = Line::on(kafka, &Setup::keyed(2))?;
    let running = line.start("one")?;
    let number = 24;
    line.kafka.produce_all(&line.input, (0..number).map(|n| Record::new(format!("user:u{n}"), "no event").at_ms(1_760_000_000_000 + n)))?;
    wait_until(PATIENCE, "all are dead-lettered", || letters(&line).is_ok_and(|letters| letters.len() as i64 == number))?;
    running.stop()?;

    proxy.set_latency(Duration::from_millis(250));
    let mut settings = line.settings("slow");
    settings.push(("TRIPLINE_KAFKA__BOOTSTRAP_SERVERS".into(), proxy.address().to_string()));
    let slow = |args: &[&str], name: &str| {
        let args = [&["dlq", "redrive", "--execute", "--rate", "3"], args].concat();
        Worker::spawn(BINARY, &args, settings.iter().map(|(k, v)| (k.as_str(), v.as_str())), line.file(&format!("{name}.log")))
    };
    let mut first = slow(&["--limit", "12"], "first")?;
    wait_until(PATIENCE, "the first run ends", || first.exit_status().is_some())?;
    let log = std::fs::read_to_string(first.log())?;
    ensure!(first.exit_status().is_some_and(|status| status.success()) && receipts(&line)?.len() == 12, "{log}");
    // Four batches at least: every one but the first began with a new producer.
    ensure!(log.matches("going on with a new producer").count() >= 3, "{log}");

    // Another run takes over somewhere in the middle of this one, and is fenced itself or not; who ends how is a matter of time.
    let mut second = slow(&[], "second")?;
    wait_until(PATIENCE, "a batch of the second run", || receipts(&line).is_ok_and(|receipts| receipts.len() > 12))?;
    let _ = dlq(&line, &["redrive", "--execute"])?;
    wait_until(PATIENCE, "the second run ends", || second.exit_status().is_some())?;
    redrive(&line, &["--execute"])?;
    check_once(&line)
}
