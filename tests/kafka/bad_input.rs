//! The table of `docs/bad-input.md` on a real Kafka: malformed records of every kind among good ones.

use crate::line::{Line, PATIENCE, Setup, actor, generated, root};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use tripline::stream::partition::murmur2_partition;
use tripline_testkit::{Record, malformed, wait_until};

/// How many malformed records, and good ones around them; the evidence run sets more.
fn amounts() -> (usize, usize) {
    let set = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    (set("TRIPLINE_MALFORMED", 400), set("TRIPLINE_GOOD", 4_000))
}

/// The reason that the table gives each kind; `None` is processed.
fn table() -> Result<BTreeMap<String, Option<String>>> {
    let page = std::fs::read_to_string(root().join("docs/bad-input.md"))?;
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(|c| c.trim().trim_matches('`')).collect();
        malformed::KINDS.contains(cells.get(1)?).then(|| (cells[1].to_owned(), (cells[3] == "dead-lettered").then(|| cells[4].to_owned())))
    };
    Ok(page.lines().filter_map(row).collect())
}

/// Malformed samples of every kind, round and round, with the kind's own twist where the stream is the judge.
fn malformed_records(count: usize, partitions: i32, limit: usize) -> Vec<(String, Record)> {
    let kinds: Vec<&str> = malformed::KINDS.into_iter().filter(|k| !malformed::samples(k).is_empty()).collect();
    let mut records = Vec::new();
    for round in 0.. {
        for kind in &kinds {
            if records.len() == count {
                return records;
            }
            let samples = malformed::samples(kind);
            let sample = &samples[round % samples.len()];
            let value = match *kind {
                "large_value" => Some(
                    format!("{{\"event_type\":\"x\",\"event_time\":1770000000000,\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(limit))
                        .into_bytes(),
                ),
                _ => sample.value.clone(),
            };
            let key = sample.key.clone().unwrap_or_default();
            let partition = murmur2_partition(&key, partitions);
            records.push((
                (*kind).to_owned(),
                Record {
                    key: sample.key.clone(),
                    value,
                    partition: Some(partition),
                    timestamp_ms: Some(1_770_000_000_000),
                    headers: sample.headers.clone(),
                },
            ));
        }
    }
    records
}

fn check(keyed: bool) -> Result<()> {
    let setup = if keyed { Setup::keyed(2) } else { Setup::routed(2, 2) };
    let line = Line::new(&setup)?;
    let (bad, good) = amounts();
    let table = table()?;
    let mut kinds = malformed_records(bad, 2, 1 << 20);
    if !keyed {
        kinds.retain(|(kind, _)| kind != "wrong_key");
    }
    let events = generated(41, good)?;
    let mut expected: BTreeMap<(i32, i64), Option<String>> = BTreeMap::new();
    let mut next = [0i64; 2];
    let mut records = Vec::new();
    let mut push = |record: Record, reason: Option<String>| {
        let partition = record.partition.unwrap_or(0);
        expected.insert((partition, next[partition as usize]), reason);
        next[partition as usize] += 1;
        records.push(record);
    };
    let every = (good / kinds.len().max(1)).max(1);
    let mut bad_ones = kinds.into_iter();
    for (i, text) in events.lines().enumerate() {
        let key = actor(&serde_json::from_str::<Value>(text)?);
        let partition = murmur2_partition(key.as_bytes(), 2);
        push(Record::new(key, text).to_partition(partition).at_ms(1_770_000_000_000), None);
        if i % every == 0
            && let Some((kind, record)) = bad_ones.next()
        {
            push(record, table.get(&kind).cloned().context("a kind without a row")?);
        }
    }
    for (kind, record) in bad_ones {
        push(record, table.get(&kind).cloned().context("a kind without a row")?);
    }
    let total = records.len();
    let rejected: BTreeMap<(i32, i64), String> = expected.into_iter().filter_map(|(at, reason)| Some((at, reason?))).collect();

    let running = line.start("one")?;
    line.kafka.produce_all(&line.input, records)?;
    line.settle()?;
    wait_until(PATIENCE, "every dead letter", || line.read("dead-letters").is_ok_and(|d| d.len() >= rejected.len()))?;
    let mut found = BTreeMap::new();
    for letter in line.read("dead-letters")? {
        let header = |name: &str| letter.header(name).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
        let at = (header("tripline-source-partition").parse()?, header("tripline-source-offset").parse()?);
        ensure!(header("tripline-source-topic") == line.input);
        if header("tripline-reason") == "too_large" {
            ensure!(letter.value.is_none() && !header("tripline-digest").is_empty(), "too large to copy: position and digest");
        }
        ensure!(found.insert(at, header("tripline-reason")).is_none(), "{at:?} has two dead letters");
    }
    let wrong: Vec<_> =
        rejected.iter().filter(|(at, reason)| found.get(*at) != Some(*reason)).map(|(at, reason)| (at, reason, found.get(at))).collect();
    ensure!(wrong.is_empty(), "{} records have another outcome than the table says: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    ensure!(found.len() == rejected.len(), "{} dead letters, {} expected", found.len(), rejected.len());
    let metrics = running.metrics()?;
    let (stage, rest) = if keyed { ("tripline_observations_total", "processed") } else { ("tripline_input_records_total", "routed") };
    let outcome = |name: &str| metrics.sum(stage, &[("outcome", name)]) as usize;
    ensure!(outcome("dead_lettered") == rejected.len() && outcome(rest) == total - rejected.len(), "the counts do not add up to {total}");
    eprintln!("{total} records: {} dead-lettered by the table, {} {rest}", rejected.len(), outcome(rest));
    running.stop()
}

#[test]
fn every_malformed_record_has_the_outcome_of_the_table_keyed() -> Result<()> {
    check(true)
}

#[test]
fn every_malformed_record_has_the_outcome_of_the_table_routed() -> Result<()> {
    check(false)
}

/// Promise 7 for our own bugs: the one record goes to the dead letters, its neighbours are processed.
#[test]
fn a_record_that_panics_is_dead_lettered_alone() -> Result<()> {
    let line = Line::new(&Setup::keyed(1))?;
    let mut running = line.start_with("one", "detect,sink", &[("TRIPLINE_FAILPOINTS", "in_record=panic@50")])?;
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    let produced = line.produce(generated(42, 300)?.lines())?;
    line.settle()?;
    let letters = line.read("dead-letters")?;
    ensure!(letters.len() == 1 && letters[0].header("tripline-reason") == Some(&b"panicked"[..]), "{} dead letters", letters.len());
    let metrics = running.metrics()?;
    let outcome = |name: &str| metrics.sum("tripline_observations_total", &[("outcome", name)]) as u64;
    ensure!(outcome("processed") == produced - 1 && outcome("dead_lettered") == 1);
    running.stop()
}
