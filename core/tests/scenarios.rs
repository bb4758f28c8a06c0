//! Every folder of `tests/scenarios`: a pack (`rules.yaml`), what happened (`events.jsonl`), and what was decided
//! (`expected.jsonl`). The states are encoded and decoded between all events.
//!
//! A line of `events.jsonl` is an event, or `{"time": "2026-01-01T00:00:00Z"}`: time passes up to then. With
//! `TRIPLINE_BLESS=1` in the environment `expected.jsonl` is written; read what changed before you commit it.

mod support;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use support::Line;
use tripline_core::decision::Decision;
use tripline_core::rule::load::SourceFile;
use tripline_core::time::parse_rfc3339_ms;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What is compared of a decision: what a reader of the scenario wants to know.
fn projection(decision: &Decision) -> String {
    let contribution = &decision.contributions[0];
    let entity = format!("{}:{}", decision.entity.kind, decision.entity.id);
    let mut line = json!({
        "event_id": decision.event_id, "entity": entity, "rule": contribution.rule, "why": contribution.why, "metadata": decision.metadata,
    });
    let more = [
        ("suppressed", json!(decision.suppressed), decision.suppressed > 0),
        ("due_time", json!(decision.due_time), decision.due_time.is_some()),
        ("partial", json!(true), decision.partial),
        ("warming", json!(true), decision.warming),
    ];
    for (name, value, _) in more.into_iter().filter(|(_, _, said)| *said) {
        line[name] = value;
    }
    line.to_string() + "\n"
}

fn check(folder: &Path) {
    let rules = folder.join("rules.yaml");
    let mut line = Line::new(&[SourceFile { name: rules.display().to_string(), text: read(&rules) }]);
    let mut decided = String::new();
    for text in read(&folder.join("events.jsonl")).lines() {
        let event: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{}: {text}: {e}", folder.display()));
        let decisions = match event["time"].as_str() {
            Some(time) => line.pass(parse_rfc3339_ms(time).expect("an RFC 3339 time")),
            None => line.show(text),
        };
        decided.extend(decisions.iter().map(projection));
    }
    let expected = folder.join("expected.jsonl");
    if std::env::var_os("TRIPLINE_BLESS").is_some() {
        std::fs::write(&expected, &decided).expect("writable");
    }
    assert!(!decided.is_empty(), "{}: a scenario in which nothing happens", folder.display());
    assert_eq!(decided, read(&expected), "{}: decided on the left, expected on the right", folder.display());
}

#[test]
fn every_scenario_decides_what_it_expects() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root).expect("scenarios").map(|entry| entry.expect("readable").path()).collect();
    folders.sort();
    assert!(folders.len() >= 4, "{folders:?}");
    folders.iter().for_each(|folder| check(folder));
}
