//! `tripline audit` on a real Kafka: a line that adds up, killed and running, and what contradicts it.

use crate::line::{Line, PATIENCE, Setup, generated, root};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tripline_core::time::{format_rfc3339_ms, parse_rfc3339_ms};
use tripline_testkit::{OwnedRecord, Record, wait_until};

/// Exit code and report.
fn audit(line: &Line) -> Result<(i32, Value)> {
    let done = line.command(&["audit", "-o", "json"], &line.settings("auditor"))?;
    let code = done.status.code().context("it ended by itself")?;
    let report = serde_json::from_slice(&done.stdout)
        .with_context(|| format!("code {code}: {}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)))?;
    Ok((code, report))
}

fn assert_clean(line: &Line) -> Result<Value> {
    let (code, report) = audit(line)?;
    ensure!(code == 0 && report["clean"] == true && report["findings"] == json!([]), "{report:#}");
    Ok(report)
}

/// `state list` beside a worker: what is committed while it reads is no contradiction.
fn assert_every_task_starts(line: &Line) -> Result<()> {
    let done = line.command(&["state", "list", "-o", "json"], &line.settings("auditor"))?;
    let rows: Vec<Value> = serde_json::from_slice(&done.stdout).context("a list")?;
    ensure!(done.status.success() && !rows.is_empty() && rows.iter().all(|row| row["starts"] == true), "{rows:#?}");
    Ok(())
}

fn records(report: &Value, kind: &str) -> u64 {
    let outputs = report["outputs"].as_array().into_iter().flatten();
    outputs.filter(|output| output["kind"] == kind).filter_map(|output| output["records"].as_u64()).sum()
}

/// The first events again, as new ones of ten minutes before: by now their entities are further.
fn sent_late(events: &str, count: usize) -> Result<Vec<String>> {
    let late = |line: &str| {
        let mut event: Value = serde_json::from_str(line)?;
        let time_ms = event["event_time"].as_str().and_then(parse_rfc3339_ms).or(event["event_time"].as_i64()).context("a time")?;
        event["event_time"] = json!(format_rfc3339_ms(time_ms - 600_000));
        event["event_id"] = json!(format!("late-{}", event["event_id"].as_str().unwrap_or_default()));
        Ok(event.to_string())
    };
    events.lines().take(count).map(late).collect()
}

#[test]
fn a_line_adds_up_while_it_runs_whatever_was_killed() -> Result<()> {
    let line = Line::new(&Setup { emit_all: true, ..Setup::routed(2, 3) })?;
    // A pack with scores, standings and ticks: every kind of output.
    let rules = root().join("config/packs/starter").display().to_string();
    let settings = [("TRIPLINE_RULES__PATH", rules.as_str())];
    let events = generated(71, 9_000)?;
    let lines: Vec<&str> = events.lines().collect();
    for part in lines.chunks(3_000) {
        let before = line.read("decisions")?.len();
        let mut running = line.start_with("one", "detect", &settings)?;
        line.produce(part.iter().copied())?;
        wait_until(PATIENCE, "a new decision", || line.read("decisions").is_ok_and(|d| d.len() > before))?;
        // Beside a worker in the middle of its work, whose transactions come and go.
        let report = assert_clean(&line)?;
        ensure!(report["commits"].as_u64() > Some(0), "{report:#}");
        assert_every_task_starts(&line)?;
        running.worker.kill_9();
    }
    let running = line.start_with("one", "detect", &settings)?;
    line.produce(sent_late(&events, 300)?.iter().map(String::as_str))?;
    line.kafka.produce_all(&line.input, (0..20).map(|n| Record::new(format!("k{n}"), "no event")))?;
    line.settle()?;
    assert_clean(&line)?;
    running.stop()?;
    let report = assert_clean(&line)?;
    for kind in ["decisions", "alerts", "standing", "late", "dead-letters"] {
        let (found, there) = (records(&report, &kind.replace('-', "_")), line.read(kind)?.len() as u64);
        ensure!(found == there && (there > 0 || kind == "alerts"), "{found} of {there} {kind}");
    }
    let observations = line.read("internal.observations")?.iter().filter(|r| !r.key_text().starts_with('~')).count() as u64;
    ensure!(records(&report, "observations") == observations && observations > 9_000, "{observations} observations");
    eprintln!("{} commits, {} outputs, all add up", report["commits"], report["outputs_read"]);
    let tasks = report["tasks"].as_array().context("tasks")?;
    ensure!(tasks.len() == 5 && tasks.iter().all(|task| task["from_beginning"] == true), "{tasks:#?}");
    Ok(())
}

/// A record as it was, to be written once more.
fn copy(record: &OwnedRecord) -> Record {
    Record { key: record.key.clone(), value: record.value.clone(), headers: record.headers.clone(), ..Record::default() }
        .to_partition(record.partition)
}

/// The header `tripline-commit` as task, seq and id.
fn commit(record: &OwnedRecord) -> Result<(String, u64, String)> {
    let text = String::from_utf8(record.header("tripline-commit").context("no header")?.to_vec())?;
    let [task, seq, id] = text.split('/').collect::<Vec<_>>()[..] else { anyhow::bail!("{text}") };
    Ok((task.to_owned(), seq.parse()?, id.to_owned()))
}

/// Writes a record and answers where it stands.
fn write(line: &Line, topic: &str, record: Record) -> Result<i64> {
    let (topic, partition) = (line.topic(topic), record.partition.context("a partition")?);
    line.kafka.produce_all(&topic, [record])?;
    let last = line.kafka.read_committed(&topic)?.into_iter().rfind(|r| r.partition == partition).map(|r| r.offset);
    last.context("it was written")
}

/// The findings that name this record.
fn findings_at(report: &Value, topic: &str, partition: i32, offset: i64) -> Vec<Value> {
    let findings = report["findings"].as_array().into_iter().flatten();
    findings.filter(|f| f["topic"] == topic && f["partition"] == partition && f["offset"] == offset).cloned().collect()
}

#[test]
fn what_contradicts_a_commit_is_found_and_named() -> Result<()> {
    let line = Line::new(&Setup::keyed(2))?;
    let running = line.start("one")?;
    for part in generated(72, 4_000)?.lines().collect::<Vec<_>>().chunks(500) {
        line.produce(part.iter().copied())?;
        line.settle()?;
    }
    running.stop()?;
    assert_clean(&line)?;
    let decisions = line.read("decisions")?;
    let first = decisions.first().context("decisions")?;
    let (task, seq, id) = commit(first)?;
    let latest = decisions.iter().rfind(|d| d.partition == first.partition).context("decisions")?;
    ensure!(commit(latest)?.1 > seq, "several commits");
    let keyed = line.input.clone();
    let task_number: i32 = task.trim_start_matches("0-").parse()?;
    let named = |finding: &Value, kind: &str, seq: u64, id: &str| {
        let task = json!({"topic": keyed, "partition": task_number});
        finding["kind"] == kind && finding["task"] == task && finding["seq"] == seq && finding["commit_id"] == id
    };

    // Visible outputs of a commit whose state and offset are not.
    let foreign_id = "0123456789abcdef0123456789abcdef";
    let mut foreign = copy(first);
    for (name, value) in &mut foreign.headers {
        match name.as_str() {
            "tripline-commit" => *value = format!("{task}/{seq}/{foreign_id}").into_bytes(),
            "ce_id" => *value = b"never-seen".to_vec(),
            _ => {}
        }
    }
    let offset = write(&line, "decisions", foreign)?;
    let (code, report) = audit(&line)?;
    let found = findings_at(&report, &line.topic("decisions"), first.partition, offset);
    ensure!(code == 1 && report["total_findings"] == 1, "{report:#}");
    ensure!(matches!(&found[..], [one] if named(one, "output_without_marker", seq, foreign_id)), "{found:#?}");

    // A decision that comes back: twice, too many for its commit, and after later ones.
    let offset = write(&line, "decisions", copy(first))?;
    let (code, report) = audit(&line)?;
    let found = findings_at(&report, &line.topic("decisions"), first.partition, offset);
    ensure!(code == 1 && report["total_findings"] == 4, "{report:#}");
    ensure!(found.iter().any(|one| named(one, "repeated_output", seq, &id)), "{found:#?}");
    ensure!(found.iter().any(|one| named(one, "output_out_of_order", seq, &id)), "{found:#?}");
    let changelog = line.read("internal.changelog")?;
    let key = format!("task/{task_number}");
    let is_marker = |r: &&OwnedRecord| r.key_text() == key && r.json().is_ok_and(|marker| marker["commit_id"] == id.as_str());
    let marker = changelog.iter().find(is_marker).context("its marker")?;
    let found = findings_at(&report, &line.topic("internal.changelog"), marker.partition, marker.offset);
    ensure!(matches!(&found[..], [one] if named(one, "surplus_outputs", seq, &id)), "{found:#?}");

    // Another owner's commit of the number that was given last.
    let newest = changelog.iter().rfind(|r| r.key_text() == key).context("a marker")?;
    let mut value = newest.json()?;
    let newest_seq = value["seq"].as_u64().context("a seq")?;
    value["commit_id"] = json!(foreign_id);
    value["work"] = json!({"first_offset": value["next_offset"]});
    let offset = write(&line, "internal.changelog", Record { value: Some(value.to_string().into_bytes()), ..copy(newest) })?;
    let (code, report) = audit(&line)?;
    let found = findings_at(&report, &line.topic("internal.changelog"), newest.partition, offset);
    ensure!(code == 1 && found.iter().any(|one| named(one, "two_owners", newest_seq, foreign_id)), "{report:#}");

    // The marker is deleted.
    let offset = write(&line, "internal.changelog", Record { value: None, ..copy(newest) })?;
    let (code, report) = audit(&line)?;
    let found = findings_at(&report, &line.topic("internal.changelog"), newest.partition, offset);
    ensure!(code == 1 && matches!(&found[..], [one] if one["kind"] == "marker_deleted"), "{report:#}");

    // For people the same.
    let bytes = changelog.iter().filter(|r| r.key_text() == key).map(|r| r.value.as_ref().map_or(0, Vec::len)).max();
    eprintln!("the longest marker has {bytes:?} bytes");
    let done = line.command(&["audit"], &line.settings("auditor"))?;
    let text = String::from_utf8(done.stdout)?;
    ensure!(
        done.status.code() == Some(1) && text.contains(&format!("repeated_output: task {keyed}/{task_number} commit {seq} ({id}) at")),
        "{text}"
    );
    ensure!(text.trim_end().ends_with("do not add up"), "{text}");
    eprintln!("{text}");
    Ok(())
}
