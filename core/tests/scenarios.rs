//! Every folder of `tests/scenarios`: a pack (`rules.yaml`, and `flags.json` if some are on), what happened (`events.jsonl`), and what was decided
//! (`expected.jsonl`). The states are encoded and decoded between all events.
//!
//! A line of `events.jsonl` is an event, or `{"time": "2026-01-01T00:00:00Z"}`: time passes up to then. With
//! `TRIPLINE_BLESS=1` in the environment `expected.jsonl` is written; read what changed before you commit it.

mod support;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use support::Line;
use tripline_core::alert::Alert;
use tripline_core::decision::{Decision, EntityRef};
use tripline_core::engine::Made;
use tripline_core::rule::load::SourceFile;
use tripline_core::standing::StandingChange;
use tripline_core::time::{format_rfc3339_ms, parse_rfc3339_ms};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What is compared of a decision: what a reader of the scenario wants to know.
fn projection(decision: &Decision) -> String {
    let receipt: Vec<String> = decision.contributions.iter().map(|line| format!("{} {}: {}", line.points, line.rule, line.why)).collect();
    let mut line = json!({
        "event_id": decision.event_id, "entity": key(&decision.entity), "fired": decision.fired, "receipt": receipt, "score": decision.axes,
    });
    let actions = [
        ("alert", decision.should_alert),
        ("throttle", decision.should_throttle),
        ("step_up", decision.should_step_up),
        ("block", decision.should_block),
    ];
    let actions: Vec<&str> = actions.iter().filter(|(_, takes)| *takes).map(|(action, _)| *action).collect();
    let held_back: Vec<String> = decision.held_back.iter().map(|held| format!("{} by {}", held.action, held.by)).collect();
    let more = [
        ("metadata", json!(decision.metadata), !decision.metadata.is_empty()),
        ("severity", json!(decision.severity), !actions.is_empty()),
        ("actions", json!(actions), !actions.is_empty()),
        ("expires_at", json!(decision.expires_at), decision.expires_at.is_some()),
        ("throttle_interval_ms", json!(decision.throttle_interval_ms), decision.should_throttle),
        ("held_back", json!(held_back), !held_back.is_empty()),
        ("context", json!(decision.context), !decision.context.is_empty()),
        ("shadow", json!(true), decision.shadow),
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

fn key(entity: &EntityRef) -> String {
    let mut key = String::new();
    entity.write_key(&mut key);
    key
}

/// What came of an event or of time, in the words of the scenario.
fn told(made: &Made) -> String {
    let mut told: String = made.decisions.iter().map(projection).collect();
    for alert in &made.alerts {
        let Alert { state, entity, at, severity, action, decisions, folded, .. } = alert;
        let line = json!({"alert": state, "entity": key(entity), "at": at, "severity": severity, "action": action, "decisions": decisions, "folded": folded});
        told.push_str(&format!("{line}\n"));
    }
    for StandingChange { entity, at_ms, standing } in &made.standings {
        let line = match standing {
            Some(standing) => json!({
                "standing": key(entity), "as_of": standing.as_of, "score": standing.risk_score, "actions": standing.actions, "expires_at": standing.expires_at,
            }),
            None => json!({"standing": key(entity), "as_of": format_rfc3339_ms(*at_ms), "gone": true}),
        };
        told.push_str(&format!("{line}\n"));
    }
    told
}

fn check(folder: &Path) {
    let rules = folder.join("rules.yaml");
    let flags = std::fs::read_to_string(folder.join("flags.json")).unwrap_or_else(|_| "{}".to_owned());
    let mut line = Line::new(&[SourceFile { name: rules.display().to_string(), text: read(&rules) }], &flags);
    let mut decided = String::new();
    for text in read(&folder.join("events.jsonl")).lines() {
        let event: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{}: {text}: {e}", folder.display()));
        let made = match event["time"].as_str() {
            Some(time) => line.pass(parse_rfc3339_ms(time).expect("an RFC 3339 time")),
            None => line.show(text),
        };
        decided.push_str(&told(&made));
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

/// A row for everything that was said of one user in three months.
fn table(expected: &str) -> String {
    let when = |time: &Value| time.as_str().unwrap_or_default().replace('T', " ").split(':').take(2).collect::<Vec<_>>().join(":");
    let words = |list: &Value| {
        let words: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if words.is_empty() { "–".to_owned() } else { words.join(", ") }
    };
    let (mut table, mut fired) = ("| When | What | Score | In force | Until |\n|---|---|---|---|---|\n".to_owned(), String::new());
    for line in expected.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        if line["fired"].is_array() {
            fired = words(&line["fired"]);
        } else if line["standing"].is_string() {
            let what = if fired.is_empty() { "time passes" } else { &fired };
            let (score, until) = match line["gone"].as_bool() {
                Some(true) => ("gone".to_owned(), "–".to_owned()),
                _ => (line["score"].to_string(), when(&line["expires_at"])),
            };
            table.push_str(&format!("| {} | {what} | {score} | {} | {until} |\n", when(&line["as_of"]), words(&line["actions"])));
            fired.clear();
        }
    }
    table
}

#[test]
fn the_manual_shows_the_three_months_as_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (page, expected) = (root.join("../docs/scoring.md"), read(&root.join("tests/scenarios/three_months/expected.jsonl")));
    let (begin, end) = ("<!-- three months -->\n", "<!-- end -->");
    let text = read(&page);
    let (before, rest) = text.split_once(begin).expect("the place for the table");
    let (found, after) = rest.split_once(end).expect("its end");
    let wanted = table(&expected);
    if std::env::var_os("TRIPLINE_BLESS").is_some() {
        std::fs::write(&page, format!("{before}{begin}{wanted}{end}{after}")).expect("writable");
        return;
    }
    assert_eq!(found, wanted);
}
