//! Time in a file: what waits for something that does not happen.

use super::*;
use crate::rules::load_pack;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tripline_core::engine::Emit;
use tripline_core::flags::FlagSnapshot;

const RULES: &str = r#"schema: 1
id: auth.unanswered
version: 1
title: A second factor was asked for, and nobody answered
status: stable
mode: enforce
on: any
by: actor
detect:
  sequence:
    within: 1h
    steps:
      - { id: asked, when: event_type == "mfa_asked" }
    then_absent: { when: event_type == "mfa_answered", within: 2m }
signal: { type: unanswered, user_message: Please sign in again. }
---
schema: 1
kind: policy
id: time
version: 1
actions: []
allowed_lateness: 30s
"#;

const DUE_MS: i64 = 120_000;
const LATENESS_MS: i64 = 30_000;
/// 2026-01-01T00:00:00Z
const START_MS: i64 = 1_767_225_600_000;

fn engine() -> Engine {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yaml"), RULES).expect("written");
    let rules =
        load_pack(folder.path(), Path::new("")).unwrap_or_else(|p| panic!("{}", p.iter().map(ToString::to_string).collect::<String>()));
    let engine = Engine::new(Arc::new(rules), &FlagSnapshot::default(), Emit::Fired);
    assert!(engine.needs_time());
    engine
}

fn event(at_ms: i64, user: &str, event_type: &str) -> String {
    let at_ms = START_MS + at_ms;
    format!(
        "{{\"event_type\":\"{event_type}\",\"event_time\":{at_ms},\"user_id\":\"{user}\",\"event_id\":\"{user}-{event_type}-{at_ms}\"}}\n"
    )
}

/// Who fired, in order.
fn fired(lines: &[String], until_ms: Option<i64>) -> Vec<String> {
    let mut out = Vec::new();
    let until_ms = until_ms.map(|until_ms| START_MS + until_ms);
    let options =
        Options { max_line_bytes: 1_000, mapping: None, shadow: false, until_ms, alerts: None, standing: None, progress: &mut |_| {} };
    run(lines.concat().as_bytes(), &engine(), options, &mut out).expect("memory does not fail");
    let decision = |line: &[u8]| serde_json::from_slice::<Value>(line).expect("JSON");
    out.split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| decision(l)["entity"]["id"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn time_passes_only_up_to_the_last_line_unless_told() {
    let lines = [event(0, "a", "mfa_asked"), event(DUE_MS + LATENESS_MS, "b", "other")];
    assert_eq!(fired(&lines, None), [""; 0], "an answer of the last line's millisecond may follow");
    assert_eq!(fired(&lines, Some(DUE_MS + LATENESS_MS - 1)), [""; 0]);
    assert_eq!(fired(&lines, Some(DUE_MS + LATENESS_MS)), ["a"]);
    let lines = [event(0, "a", "mfa_asked"), event(DUE_MS + LATENESS_MS + 1, "b", "other")];
    assert_eq!(fired(&lines, None), ["a"]);
    assert_eq!(fired(&lines, Some(0)), ["a"], "an earlier time changes nothing");
}

#[test]
fn an_answer_in_time_keeps_it_quiet_also_when_it_is_late_within_the_allowance() {
    let answer = event(DUE_MS - 1, "a", "mfa_answered");
    let asked = event(0, "a", "mfa_asked");
    let others = |at_ms| event(at_ms, "b", "other");
    assert_eq!(fired(&[asked.clone(), answer.clone()], Some(10 * DUE_MS)), [""; 0]);
    assert_eq!(fired(&[asked.clone(), others(DUE_MS + LATENESS_MS), answer.clone()], Some(10 * DUE_MS)), [""; 0]);
    assert_eq!(fired(&[asked, others(DUE_MS + LATENESS_MS + 1), answer], Some(10 * DUE_MS)), ["a"]);
}

#[test]
fn what_is_due_fires_in_the_order_of_time_before_the_line_that_brought_it() {
    let lines = [event(2, "c", "mfa_asked"), event(1, "b", "mfa_asked"), event(1, "a", "mfa_asked"), event(10 * DUE_MS, "a", "mfa_asked")];
    assert_eq!(fired(&lines, None), ["a", "b", "c"]);
    assert_eq!(fired(&lines, Some(20 * DUE_MS)), ["a", "b", "c", "a"]);
}

#[test]
fn the_time_of_the_file_does_not_change_what_fires() {
    // One by one or all at the end: the same decisions with the same ids.
    let asked: Vec<String> = (0..50).map(|n| event(n * 1_000, &format!("u{n:02}"), "mfa_asked")).collect();
    let mut slow = asked.clone();
    slow.extend((0..50).map(|n| event(DUE_MS + LATENESS_MS + n * 1_000 + 1, "other", "other")));
    assert_eq!(fired(&slow, None), fired(&asked, Some(10 * DUE_MS)));
    assert_eq!(fired(&slow, None).len(), 50);
}
