use super::*;
use crate::rules::load_pack;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tripline_core::engine::Emit;
use tripline_core::flags::FlagSnapshot;

const RULES: &str = "schema: 1
id: http.any
version: 1
title: Anything
status: stable
mode: enforce
on: http_request
by: actor
detect: {match: {}}
signal: {type: anything, user_message: Hello.}
---
schema: 1
kind: policy
id: p
version: 1
actions: []
allowed_lateness: 30s
remember_ids: 4
anon: true
";

fn engine(emit: Emit) -> Engine {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yaml"), RULES).expect("written");
    let rules =
        load_pack(folder.path(), Path::new("")).unwrap_or_else(|p| panic!("{}", p.iter().map(ToString::to_string).collect::<String>()));
    Engine::new(Arc::new(rules), &FlagSnapshot::default(), emit)
}

fn replay(input: &str, engine: &Engine) -> (Counts, Vec<Value>, u64) {
    let (mut out, mut told) = (Vec::new(), 0);
    let options = Options {
        max_line_bytes: 300,
        mapping: None,
        shadow: false,
        until_ms: None,
        alerts: None,
        standing: None,
        progress: &mut |bytes| told += bytes,
    };
    let counts = run(input.as_bytes(), engine, options, &mut out).expect("memory does not fail");
    let decisions = out.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).expect("JSON")).collect();
    (counts, decisions, told)
}

fn event(id: &str, time: &str, more: &str) -> String {
    format!("{{\"event_type\":\"http_request\",\"event_time\":\"2026-01-01T{time}Z\",\"user_id\":\"u\",\"event_id\":\"{id}\"{more}}}\n")
}

#[test]
fn every_line_has_one_outcome_and_bad_ones_do_not_stop_the_run() {
    let lines = [
        event("1", "00:01:00", ""),
        event("1", "00:01:00", ""),
        event("2", "00:00:29.999", ""),
        event("3", "00:00:30", ""),
        "not json\n".to_owned(),
        "\n".to_owned(),
        format!("{{\"event_type\":\"{}\"}}\n", "x".repeat(300)),
        event("4", "00:01:01", ",\"broker_time\":\"noon\""),
        "{\"event_time\":\"2026-01-01T00:00:00Z\"}\n".to_owned(),
        "[]\n".to_owned(),
        event("5", "00:01:02", "").trim_end().to_owned(),
    ];
    let input = lines.concat();
    let (counts, decisions, told) = replay(&input, &engine(Emit::Fired));
    assert_eq!(told, input.len() as u64);
    assert_eq!((counts.lines, counts.processed, counts.late, counts.duplicate, counts.rejections()), (11, 3, 1, 1, 6));
    let named: Vec<_> = counts.rejected.iter().map(|(reason, n)| (reason.name(), *n)).collect();
    assert_eq!(named, [("empty_value", 1), ("too_large", 1), ("invalid_json", 2), ("missing_field", 1), ("bad_time", 1)]);
    let first: Vec<u64> = counts.first_rejected.iter().map(|(number, _)| *number).collect();
    assert_eq!(first, [5, 6, 7, 8, 9], "only the first are named");
    let ids: Vec<_> = decisions.iter().map(|d| d["event_id"].as_str().unwrap_or_default()).collect();
    assert_eq!(ids, ["1", "3", "5"]);
    assert_eq!((counts.decisions, counts.actors), (3, 1));
    let summary = counts.to_string();
    assert!(
        summary.starts_with("11 lines = 5 routed + 0 unaddressed + 6 rejected\n5 observations = 3 processed + 1 late + 1 duplicate\n"),
        "{summary}"
    );
    assert!(summary.contains("  … and 1 lines more\n"), "{summary}");
}

#[test]
fn the_reference_time_is_the_brokers_where_the_line_has_it() {
    let ahead = event("1", "00:01:00", ",\"broker_time\":\"2026-01-01T00:00:54.999Z\"");
    let near = event("2", "00:01:00", ",\"broker_time\":1767225655000");
    let without = event("3", "00:01:00", "");
    let (_, decisions, _) = replay(&[ahead, near, without].concat(), &engine(Emit::Fired));
    let times: Vec<_> = decisions.iter().map(|d| (d["event_time"].as_str().unwrap_or_default(), d["clamped"].as_bool())).collect();
    assert_eq!(
        times,
        [("2026-01-01T00:00:54.999Z", Some(true)), ("2026-01-01T00:01:00.000Z", None), ("2026-01-01T00:01:00.000Z", None)],
        "more than five seconds ahead is capped"
    );
}

#[test]
fn an_event_without_an_id_has_the_one_of_its_line() {
    let line = "{\"event_type\":\"http_request\",\"event_time\":\"2026-01-01T00:00:00Z\"}\n";
    let (_, decisions, _) = replay(&format!("oops\n{line}{line}"), &engine(Emit::All));
    let ids: Vec<_> = decisions.iter().map(|d| d["event_id"].as_str().unwrap_or_default()).collect();
    assert_eq!(ids, ["file/0/1", "file/0/2"]);
    assert!(decisions.iter().all(|d| d["entity"]["kind"] == "anon"));
}

#[test]
fn the_golden_events_give_the_golden_rows_every_time() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let golden = root.join("tests/parity/golden/default");
    let rules = Arc::new(load_pack(&root.join("config/packs/anomaly-infra"), Path::new("")).expect("valid"));
    let flags = FlagSnapshot::parse("flags", "{ANOMALY_DETECTION_ENABLED: true, ANOMALY_ALERTING_ENABLED: true}").expect("valid");
    let engine = Engine::new(rules, &flags, Emit::Fired);
    let once = || {
        let mut out = Vec::new();
        let input = io::BufReader::new(std::fs::File::open(golden.join("events.ndjson")).expect("the trace"));
        let options = Options {
            max_line_bytes: 1 << 20,
            mapping: None,
            shadow: false,
            until_ms: None,
            alerts: None,
            standing: None,
            progress: &mut |_| {},
        };
        let counts = run(input, &engine, options, &mut out).expect("readable");
        (counts, out)
    };
    let (counts, out) = once();
    assert_eq!(counts.lines, counts.processed);
    let rows = |text: &str| -> Vec<(Value, Value)> {
        let row = |line| serde_json::from_str::<Value>(line).expect("JSON");
        text.lines().map(row).map(|row| (row["event_id"].clone(), row["anomaly_type"].clone())).collect()
    };
    let expected = std::fs::read_to_string(golden.join("expected.ndjson")).expect("the rows");
    assert!(!expected.is_empty());
    assert_eq!(rows(std::str::from_utf8(&out).expect("UTF-8")), rows(&expected));
    assert_eq!(once(), (counts, out), "byte for byte");
}
