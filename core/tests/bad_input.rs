//! The table in `docs/bad-input.md` is true: one outcome for every kind of bad input, and nothing panics.

#[path = "../../testkit/src/malformed.rs"]
mod malformed;

use malformed::{KINDS, USER, samples};
use std::collections::BTreeSet;
use tripline_core::entity::Entity;
use tripline_core::event::Event;
use tripline_core::event::cloud::ContentMode;
use tripline_core::rejection::Reason;

const PAGE: &str = include_str!("../../docs/bad-input.md");

struct Row<'a> {
    kind: &'a str,
    outcome: &'a str,
    reason: &'a str,
    stage: &'a str,
}

/// The rows of the table whose first column is a kind in backticks.
fn rows() -> Vec<Row<'static>> {
    let rows = PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`'));
        let row = (cells.next()?, cells.next()?, cells.next()?, cells.next()?, cells.next()?);
        Some(Row { kind: row.0, outcome: row.2, reason: row.3, stage: row.4 })
    });
    rows.collect()
}

#[test]
fn every_kind_has_one_row_and_every_reason_is_in_the_table() {
    let rows = rows();
    assert_eq!(rows.iter().map(|row| row.kind).collect::<Vec<_>>(), KINDS, "one row for each kind, in the same order");
    let named: BTreeSet<&str> = rows.iter().filter(|row| row.outcome == "dead-lettered").map(|row| row.reason).collect();
    assert_eq!(named, Reason::ALL.map(Reason::name).into_iter().collect::<BTreeSet<_>>());
}

#[test]
fn every_sample_has_the_outcome_of_its_row() {
    for row in rows() {
        let samples = samples(row.kind);
        assert_eq!(samples.is_empty(), row.kind == "evaluation_panics", "{}", row.kind);
        for sample in samples {
            let headers = sample.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice())));
            let found = Event::decode_record(sample.value.as_deref(), ContentMode::of_headers(headers), None);
            match (row.outcome, row.stage) {
                ("dead-lettered", "decode") => {
                    assert_eq!(found.map_err(|r| r.reason.name()).err(), Some(row.reason), "{}", sample.what);
                }
                // The value itself is fine: the stream looks at its length, its key and its partition.
                ("dead-lettered", "stream") => {
                    let event = found.unwrap_or_else(|r| panic!("{}: {r}", sample.what));
                    let actor = Entity::actor(event.user_id.as_deref(), event.ip_address.as_deref());
                    let is_named = sample.key.as_deref().is_some_and(|key| actor.is_named_by(key));
                    assert_eq!(is_named, row.reason != "misrouted", "{}", sample.what);
                }
                ("processed", "-") => {
                    let event = found.unwrap_or_else(|r| panic!("{}: {r}", sample.what));
                    assert_eq!(event.user_id.as_deref(), Some(USER), "{}", sample.what);
                }
                other => panic!("{}: {other:?} is not an outcome", row.kind),
            }
        }
    }
}

#[test]
fn a_rejection_never_quotes_the_record() {
    let secret = "hunter2hunter2";
    for value in [
        format!(r#"{{"event_time":"{secret}","event_type":"t"}}"#),
        format!(r#"{{"{secret}":1,"{secret}":2}}"#),
        format!(r#"{{"status_code":"{secret}"}}"#),
        format!(r#"{{"data":{{"{secret}":1,"{secret}":1}}}}"#),
        format!(r#""{secret}""#),
        format!("{{{secret}}}"),
        format!(r#"{{"user_id":"{}"}}"#, secret.repeat(50)),
    ] {
        let rejection = Event::decode(Some(value.as_bytes())).expect_err(&value);
        assert!(!rejection.to_string().contains(secret), "{rejection}");
    }
}

#[test]
fn work_is_linear_in_the_length_of_a_record() {
    // 200 000 names in one object: comparing each with each would take minutes.
    let names: Vec<String> = (0..200_000).map(|i| format!(r#""k{i}":1"#)).collect();
    for object in [names.join(","), format!(r#""headers":{{{}}}"#, names.join(",")), format!(r#""data":{{{}}}"#, names.join(","))] {
        let value = format!(r#"{{"event_time":1770108800123,"event_type":"t",{object}}}"#);
        assert!(Event::decode(Some(value.as_bytes())).is_ok());
    }
}
