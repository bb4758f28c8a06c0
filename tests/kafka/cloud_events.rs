//! CloudEvents on a real Kafka: in as headers or as an envelope, out as headers.

use crate::line::{Line, PATIENCE, Setup, actor, assert_equal, generated};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tripline::stream::partition::murmur2_partition;
use tripline_core::cloud_event::{ALERT, DECISION, HEADERS, source};
use tripline_core::time::parse_rfc3339_ms;
use tripline_testkit::{OwnedRecord, Record, wait_until};

const PARTITIONS: i32 = 2;

/// An event as it is, in binary mode or in structured mode with and without its header; where there are attributes, its
/// time and type stand nowhere else.
fn record(event: &Value, mode: usize) -> Result<Record> {
    let text = |name: &str| event[name].as_str().map(str::to_owned).with_context(|| format!("an event without {name}"));
    let (key, time, ty) = (actor(event), text("event_time")?, text("event_type")?);
    let mut data = event.clone();
    let members = data.as_object_mut().context("an event is an object")?;
    members.remove("event_time");
    members.remove("event_type");
    let envelope = json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": ty, "time": time, "data": data});
    let (value, headers) = match mode {
        0 => (event, vec![]),
        1 => (
            &data,
            vec![("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/shop"), ("ce_type", ty.as_str()), ("ce_time", time.as_str())],
        ),
        2 => (&envelope, vec![("content-type", "application/cloudevents+json; charset=utf-8")]),
        _ => (&envelope, vec![]),
    };
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
    let partition = murmur2_partition(key.as_bytes(), PARTITIONS);
    let at_ms = parse_rfc3339_ms(&time).context("a time that is none")?;
    Ok(Record { headers, ..Record::new(key, value.to_string()).to_partition(partition).at_ms(at_ms) })
}

fn header(record: &OwnedRecord, name: &str) -> String {
    String::from_utf8_lossy(record.header(name).unwrap_or_default()).into_owned()
}

/// Every record has every header; answers the ids.
fn check_outputs(line: &Line, records: &[OwnedRecord], ty: &str) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for record in records {
        let names: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
        // The events are of long ago.
        ensure!(names == [&["tripline-commit"][..], &HEADERS, &["tripline-degraded"]].concat(), "{names:?}");
        let value = record.json()?;
        let decision = value.get("decision").unwrap_or(&value);
        let happened = decision.get("due_time").unwrap_or(&decision["event_time"]);
        ensure!(header(record, "ce_type") == ty && header(record, "ce_source") == source(&line.app));
        ensure!(header(record, "ce_time") == happened.as_str().unwrap_or_default());
        ensure!(header(record, "ce_subject") == record.key_text());
        ensure!(ids.insert(header(record, "ce_id")), "an id stands twice");
    }
    Ok(ids)
}

#[test]
fn events_in_every_mode_are_decided_alike_and_outputs_carry_their_attributes() -> Result<()> {
    let line = Line::new(&Setup::keyed(PARTITIONS))?;
    let events = generated(43, 4_000)?;
    let expected = line.replay(&events)?;
    let mut records = Vec::new();
    for (number, text) in events.lines().enumerate() {
        records.push(record(&serde_json::from_str(text)?, number % 4)?);
    }
    let mut bad = record(&json!({"event_time": "2026-01-01T00:00:00Z", "event_type": "t", "user_id": "u1"}), 1)?;
    bad.headers.retain(|(name, _)| name != "ce_time");
    bad.headers.push(("ce_time".to_owned(), b"soon".to_vec()));
    bad.headers.push(("unrelated".to_owned(), b"x".to_vec()));
    let own: Vec<_> = bad.headers.iter().filter(|(name, _)| name.starts_with("ce_")).cloned().collect();
    records.push(bad);
    line.kafka.produce_all(&line.input, records)?;
    let running = line.start("one")?;
    line.settle()?;

    let found = line.decisions()?;
    ensure!(!found.is_empty(), "nothing was decided");
    assert_equal(&found, &expected);
    let ids = check_outputs(&line, &line.read("decisions")?, DECISION)?;
    ensure!(ids.iter().eq(found.keys()), "the id of a decision is its record's");
    let alerts = line.read("alerts")?;
    ensure!(alerts.len() == found.values().filter(|decision| decision["should_alert"] == true).count());
    check_outputs(&line, &alerts, ALERT)?;

    wait_until(PATIENCE, "the dead letter", || line.read("dead-letters").is_ok_and(|letters| !letters.is_empty()))?;
    let letters = line.read("dead-letters")?;
    ensure!(letters.len() == 1 && header(&letters[0], "tripline-detail") == "ce_time", "{} dead letters", letters.len());
    let kept: Vec<_> = letters[0].headers.iter().filter(|(name, _)| !name.starts_with("tripline-")).cloned().collect();
    ensure!(kept == own, "a dead letter keeps the attributes of its record and no other header");
    running.stop()
}
