use super::*;
use std::path::Path;
use std::sync::Arc;
use tripline_core::engine::{Emit, Engine};
use tripline_core::flags::FlagSnapshot;

/// A rule for each thing that can keep one from firing, about users; about addresses one that always fires.
const RULES: &str = r#"
schema: 1
kind: flags
flags: [{name: GATED, default: false}]
---
schema: 1
kind: policy
id: policy.test
version: 2
actions: [{do: alert, at: 30, flag: GATED}]
---
{schema: 1, id: t.off, version: 1, title: t, mode: off, on: any, by: user, detect: {match: {}}, signal: {type: a}}
---
{schema: 1, id: t.flag, version: 1, title: t, mode: signal, on: any, by: user, flag: GATED, detect: {match: {}}, signal: {type: a}}
---
{schema: 1, id: t.type, version: 1, title: t, mode: signal, on: sign_in, by: user, detect: {match: {}}, signal: {type: a}}
---
{schema: 1, id: t.when, version: 1, title: t, mode: signal, on: any, by: user, when: status_code == 418, detect: {match: {}}, signal: {type: a}}
---
{schema: 1, id: t.count, version: 12, title: t, mode: signal, on: any, by: user,
 detect: {count: {at_least: 3, within: 2m}}, signal: {type: a},
 except: [{id: robots, when: user_agent == "robot", effect: ignore, owner: o, reason: r}]}
---
{schema: 1, id: t.watch, version: 1, title: t, mode: shadow, on: any, by: user, detect: {count: {at_least: 2, within: 1m}},
 signal: {type: watched, points: 20}}
---
{schema: 1, id: t.address, version: 1, title: t, mode: enforce, on: any, by: ip, detect: {match: {}},
 signal: {type: seen, points: 40, family: load}}
"#;

fn event(id: &str, second: u32) -> String {
    format!(
        "{{\"event_type\":\"request\",\"event_time\":\"2026-01-01T00:00:{second:02}Z\",\"user_id\":\"u1\",\"ip_address\":\"10.0.0.1\",\"event_id\":\"{id}\",\"user_agent\":\"robot\"}}\n"
    )
}

fn look(input: &str, id: &str) -> Found {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yaml"), RULES).expect("written");
    let rules = crate::rules::load_pack(folder.path(), Path::new(""))
        .unwrap_or_else(|p| panic!("{}", p.iter().map(ToString::to_string).collect::<String>()));
    let engine = Engine::new(Arc::new(rules), &FlagSnapshot::default(), Emit::Fired);
    let reading = Reading { max_line_bytes: 1_000, mapping: None, until_ms: None, progress: &mut |_| () };
    explain(input.as_bytes(), &engine, reading, id).expect("memory does not fail").0.expect("it is there")
}

#[test]
fn a_decision_has_its_chart_and_where_nothing_came_each_rule_its_line() {
    let found = look(&event("e1", 0), "e1");
    let drawn = draw::found("e1", "events.ndjson", &found, 100);
    let id = &found.about[1].decisions[0].decision_id;
    assert_eq!(
        drawn,
        format!(
            "\
event e1, request at 2026-01-01T00:00:00.000Z, line 1 of events.ndjson

user:u1
  no decision
  t.off@1     off
  t.flag@1    its flag GATED is off
  t.type@1    looks at sign_in events only
  t.when@1    `when` is false
  t.count@12  not counted: exception robots
  t.watch@1   only watches (mode: shadow); counted, condition not met: 1 of 2 in 1m

ip:10.0.0.1
  decision {id}: seen
  fired      t.address@1
  intrusion  40  medium
     +40  ████▊         t.address@1  load  one event is enough, now
  actions    none
  held back  alert by flag:GATED
"
        )
    );
}

#[test]
fn a_decision_that_nobody_acts_on_stands_beside_the_rules_that_did_not_fire() {
    let found = look(&(event("e1", 0) + &event("e2", 1)), "e2");
    let drawn = draw::found("e2", name("-"), &found, 100);
    assert!(drawn.contains("line 2 of stdin\n"), "{drawn}");
    assert!(drawn.contains(": watched, only watched (mode: shadow): nobody acts on it\n  fired      t.watch@1\n"), "{drawn}");
    assert!(drawn.contains("  no decision\n") && drawn.contains("  t.watch@1   only watches (mode: shadow); fires\n"), "{drawn}");
}

#[test]
fn what_is_said_once_for_all_rules() {
    let late = event("e1", 59) + &event("e2", 1);
    assert!(draw::found("e2", "f", &look(&late, "e2"), 100).contains("  no decision: late, "));
    let nobody = "{\"event_type\":\"request\",\"event_time\":\"2026-01-01T00:00:00Z\"}\n";
    assert!(draw::found("file/0/0", "f", &look(nobody, "file/0/0"), 100).ends_with("\nit concerns nobody whom the rules count\n"));
}

#[test]
fn no_event_writes_to_the_terminal() {
    let hostile = event("e1", 0).replace("u1", "evil\\u200b").replace("\"request\"", "\"re\\u202equest\"");
    let drawn = draw::found("e1", "f", &look(&hostile, "e1"), 100);
    assert!(drawn.contains("evil\\u{200b}") && drawn.contains("re\\u{202e}quest"), "{drawn}");
    assert!(!drawn.contains('\u{200b}') && !drawn.contains('\u{202e}'), "{drawn}");
}

#[test]
fn json_has_one_object_per_entity() {
    let text = as_json("e1", &look(&event("e1", 0), "e1"));
    let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(objects.iter().map(|o| o["entity"]["kind"].as_str().expect("a kind")).collect::<Vec<_>>(), ["user", "ip"]);
    assert_eq!((&objects[0]["line"], &objects[0]["outcome"], &objects[0]["decisions"]), (&json!(1), &json!("processed"), &json!([])));
    let rules = objects[0]["rules"].as_array().expect("a list");
    let words: Vec<_> = rules.iter().map(|rule| rule["why"].as_str().expect("a word")).collect();
    assert_eq!(words, ["off", "flag_off", "other_type", "when_false", "ignored", "not_met"]);
    assert_eq!((&rules[5]["mode"], &rules[5]["progress"]), (&json!("shadow"), &json!("1 of 2 in 1m")));
    assert_eq!(objects[1]["decisions"][0]["contributions"][0]["rule"], "t.address@1");
}
