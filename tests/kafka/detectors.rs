//! Every detector on four kinds of entity, and then scores, actions, alerts and standing, through Kafka in routed mode, killed
//! again and again: what a read_committed consumer sees equals the pure engine over the observations in offset order, and
//! `replay --until` over the file.

use crate::line::{Line, PATIENCE, Running, Setup, assert_equal, by_id};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tripline_core::decision::EntityRef;
use tripline_testkit::faults::oracle::{Caused, Log, by_partition, decide};
use tripline_testkit::faults::pack::engine;
use tripline_testkit::{Record, wait_until};

const TICK: &str = "200ms";
/// Beyond everything that a rule of the pack waits for, in milliseconds.
const AFTERWARDS_MS: i64 = 25_000;

const PACK: &str = r#"schema: 1
kind: policy
id: policy.detectors
version: 1
decide: per_signal
actions: [{do: alert, at: 1, resolve_after: 1h}]
allowed_lateness: 1s
---
{schema: 1, id: t.match, version: 1, title: match, mode: enforce, on: http_request, by: ip, when: status_code == 418,
 detect: {match: {}}, signal: {type: match, once_per: 2s}}
---
{schema: 1, id: t.count, version: 1, title: count, mode: enforce, on: http_request, by: user,
 detect: {count: {any_of: [{at_least: 12, within: 3s}, {at_least: 90, within: 30s}]}}, signal: {type: count}}
---
{schema: 1, id: t.rate, version: 1, title: rate, mode: enforce, on: http_request, by: device,
 detect: {rate: {burst: 4, refill: 1/1s}}, signal: {type: rate, once_per: 3s}}
---
{schema: 1, id: t.distinct, version: 1, title: distinct, mode: enforce, on: http_request, by: ip,
 detect: {distinct: {of: path, at_least: 9, within: 2s}}, signal: {type: distinct}}
---
{schema: 1, id: t.sum, version: 1, title: sum, mode: enforce, on: http_request, by: [tenant, user],
 detect: {sum: {of: response_bytes, above: 9000, within: 3s}}, signal: {type: sum, metadata: {bytes: $value}}}
---
{schema: 1, id: t.ratio, version: 1, title: ratio, mode: enforce, on: http_request, by: actor,
 detect: {ratio: {of: status_code >= 400, above: 0.6, min_events: 6, within: 4s}}, signal: {type: ratio, metadata: {share: $value}}}
---
{schema: 1, id: t.sequence, version: 1, title: sequence, mode: enforce, on: any, by: user,
 detect: {sequence: {within: 5s, same: [device_id], cancel_on: event_type == "reset",
   steps: [{id: guess, when: outcome == "fail", times: 2}, {id: entry, when: outcome == "ok"}]}}, signal: {type: sequence}}
---
{schema: 1, id: t.absence, version: 1, title: absence, mode: enforce, on: any, by: user,
 detect: {sequence: {within: 5s, steps: [{id: asked, when: event_type == "mfa_asked"}],
   then_absent: {when: event_type == "mfa_answered", within: 2s}}}, signal: {type: absence}}
---
{schema: 1, id: t.new, version: 1, title: first seen, mode: enforce, on: any, by: device,
 detect: {first_seen: {of: [user_id, country], memory: 1h, learn: 1s}}, signal: {type: new}}
"#;

/// Actions that begin and end within seconds, a rule over the score, a family that three rules share.
const SCORES: &str = r#"schema: 1
kind: flags
flags: [{name: BLOCKING}]
---
schema: 1
kind: policy
id: policy.scores
version: 3
actions:
  - {do: alert, at: 30, leave: 20, once_per: 2s}
  - {do: throttle, at: 45, leave: 30, hold: 1s}
  - {do: step_up, at: 55, leave: 40, hold: 700ms}
  - {do: block, at: 70, leave: 45, ttl: 900ms, max_ttl: 5s, forget: 3s, flag: BLOCKING}
context: [{id: far, when: country == "it", times: 1.3}]
allowed_lateness: 1s
---
{schema: 1, id: s.refused, version: 1, title: refused, mode: enforce, on: http_request, by: user, when: status_code >= 400,
 detect: {count: {at_least: 4, within: 3s}}, signal: {type: refused, severity: medium, points: 30, family: probing, half_life: 2s, once_per: 1s}}
---
{schema: 1, id: s.teapot, version: 1, title: teapot, mode: alert, on: http_request, by: user, when: status_code == 418,
 detect: {match: {}}, signal: {type: teapot, severity: high, points: 50, family: probing, half_life: 1s, once_per: 2s}}
---
{schema: 1, id: s.paths, version: 1, title: paths, mode: signal, on: http_request, by: user,
 detect: {distinct: {of: path, at_least: 6, within: 3s}}, signal: {type: paths, severity: medium, points: 25, family: recon, half_life: 3s}}
---
{schema: 1, id: s.absence, version: 1, title: absence, mode: enforce, on: any, by: device,
 detect: {sequence: {within: 5s, steps: [{id: asked, when: event_type == "mfa_asked"}],
   then_absent: {when: event_type == "mfa_answered", within: 2s}}},
 signal: {type: absence, severity: high, points: 60, family: mfa, half_life: 2s}}
---
{schema: 1, id: s.many, version: 1, title: many, mode: alert, on: http_request, by: ip,
 detect: {count: {any_of: [{at_least: 8, within: 2s, points: 45}, {at_least: 14, within: 4s, points: 70}]}},
 signal: {type: many, severity: high, half_life: 2s, once_per: 1s, axis: abuse}}
---
{schema: 1, id: s.together, version: 1, title: together, mode: enforce, on: any, by: user,
 detect: {score: {axis: intrusion, at_least: 50, families: 2}}, signal: {type: together, severity: low, points: 5, family: together}}
---
{schema: 1, id: s.watched, version: 1, title: watched, mode: shadow, on: http_request, by: user, when: status_code == 404,
 detect: {match: {}}, signal: {type: watched, severity: high, points: 70}}
"#;

/// A small generator of choices: a run is a function of its seed and of the clock.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// What an app would send now. `delay_ms`: it may have happened so long ago.
fn event(number: u64, seed: &mut u64, at_ms: i64, delay_ms: u64) -> Value {
    let pick = |seed: &mut u64, bound: u64| next(seed) % bound;
    let user = pick(seed, 6);
    let at_ms = at_ms - pick(seed, delay_ms.max(1)) as i64;
    let mut event = json!({
        "event_id": format!("e{number}"), "event_time": at_ms, "user_id": format!("u{user}"), "tenant_id": format!("t{}", user % 2),
        "device_id": format!("d{}", pick(seed, 5)), "ip_address": format!("203.0.113.{}", pick(seed, 4)),
        "country": (["de", "fr", "it"][pick(seed, 3) as usize]),
    });
    let more = match pick(seed, 12) {
        0 => json!({"event_type": "mfa_asked"}),
        1 => json!({"event_type": "mfa_answered"}),
        2 => json!({"event_type": "login", "outcome": "fail"}),
        3 => json!({"event_type": "login", "outcome": (["fail", "ok"][pick(seed, 2) as usize])}),
        4 => json!({"event_type": "reset"}),
        _ => json!({
            "event_type": "http_request", "path": format!("/p/{}", pick(seed, 14)), "method": "GET",
            "status_code": ([200, 200, 404, 403, 418][pick(seed, 5) as usize]), "response_bytes": pick(seed, 2_000),
        }),
    };
    event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    event
}

fn rules(line: &Line, pack: &str) -> Result<String> {
    let folder = line.file("rules");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("pack.yaml"), pack)?;
    Ok(folder.display().to_string())
}

fn start(line: &Line, rules: &str) -> Result<Running> {
    let settings = [("TRIPLINE_RULES__PATH", rules), ("TRIPLINE_STREAM__TICK_INTERVAL", TICK), ("TRIPLINE_STATE__WRITE_INTERVAL", "200ms")];
    let mut running = line.start_with("one", "detect", &settings)?;
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    Ok(running)
}

/// What was made, however: decisions by id, alerts by entity and what they are about, standings by entity, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
struct Found {
    decisions: BTreeMap<String, Value>,
    alerts: BTreeMap<String, Vec<Value>>,
    standings: BTreeMap<String, Vec<Value>>,
}

impl Found {
    /// Without what is about entities of a kind.
    fn without(mut self, kind: &str) -> Found {
        let prefix = format!("{kind}:");
        self.decisions.retain(|_, decision| decision["entity"]["kind"] != kind);
        self.alerts.retain(|key, _| !key.starts_with(&prefix));
        self.standings.retain(|key, _| !key.starts_with(&prefix));
        self
    }

    fn assert_is(&self, other: &Found) {
        assert_equal(&self.decisions, &other.decisions);
        for (what, ours, theirs) in [("alerts", &self.alerts, &other.alerts), ("standings", &self.standings, &other.standings)] {
            assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "entities with {what}");
            for (entity, records) in ours {
                for (n, (ours, theirs)) in records.iter().zip(&theirs[entity]).enumerate() {
                    assert_eq!(ours, theirs, "record {n} of the {what} about {entity}");
                }
                assert_eq!(records.len(), theirs[entity].len(), "{what} about {entity}");
            }
        }
    }
}

/// What an alert is an episode of: of two that time and an event make, either may come first.
fn about(record: &Value) -> String {
    record["about"].as_str().map(|about| format!(" {about}")).unwrap_or_default()
}

/// What a read_committed consumer of the output topics sees.
fn committed(line: &Line) -> Result<Found> {
    let mut found = Found { decisions: line.decisions()?, ..Found::default() };
    for (topic, into) in [("alerts", &mut found.alerts), ("standing", &mut found.standings)] {
        for record in line.read(topic)? {
            let value = if record.value.is_some() { record.json()? } else { Value::Null };
            into.entry(format!("{}{}", record.key_text(), about(&value))).or_default().push(value);
        }
    }
    Ok(found)
}

/// The pure engine over the observations topic, each partition in the order of its offsets.
fn pure(line: &Line, pack: &str, flags: &str) -> Result<Found> {
    let engine = engine(pack, flags)?;
    let topic = line.topic("internal.observations");
    let mut found = Found::default();
    let mut decisions = Vec::new();
    for records in by_partition(line.kafka.read_committed(&topic)?, None).values() {
        let log = Log { topic: &topic, records, keyed_partitions: None, panicked: &BTreeSet::new() };
        let decided = decide(&log, |_| Ok(&engine))?;
        ensure!(decided.duplicates == 0, "no event was sent twice");
        ensure!(decided.rejected.is_empty(), "not an observation: {:?}", decided.rejected);
        for Caused { made, .. } in decided.made {
            let live = made.decisions.iter().filter(|decision| !decision.shadow);
            decisions.extend(live.map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?);
            for alert in &made.alerts {
                let value = serde_json::to_value(alert)?;
                found.alerts.entry(format!("{}{}", key_of(&alert.entity), about(&value))).or_default().push(value);
            }
            for change in &made.standings {
                found.standings.entry(key_of(&change.entity)).or_default().push(serde_json::to_value(&change.standing)?);
            }
        }
    }
    found.decisions = by_id(decisions)?;
    Ok(found)
}

fn key_of(entity: &EntityRef) -> String {
    let mut key = String::new();
    entity.write_key(&mut key);
    key
}

/// What `replay` says of the input as it stands in its one partition.
fn replayed(line: &Line, rules: &str, until_ms: i64) -> Result<Found> {
    let mut records = line.read("requests")?;
    records.sort_by_key(|record| record.offset);
    let mut text = String::new();
    for record in &records {
        let mut event = record.json()?;
        event["broker_time"] = json!(record.timestamp_ms);
        text.push_str(&format!("{event}\n"));
    }
    let input = line.file("events.ndjson");
    std::fs::write(&input, text)?;
    let (input, flags) = (input.display().to_string(), line.file("flags.json").display().to_string());
    let until = tripline_core::time::format_rfc3339_ms(until_ms);
    let beside = |name: &str| line.file(name).display().to_string();
    let (alerts, standing) = (beside("alerts.ndjson"), beside("standing.ndjson"));
    let args = ["replay", "--input", &input, "--rules", rules, "--flags", &flags, "--until", &until];
    let done = line.command(&[&args[..], &["--alerts", &alerts, "--standing", &standing]].concat(), &[])?;
    ensure!(done.status.success(), "replay: {}", String::from_utf8_lossy(&done.stderr));
    let rows = |text: &str| text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let mut found = Found { decisions: by_id(rows(&String::from_utf8(done.stdout)?)?)?, ..Found::default() };
    for alert in rows(&std::fs::read_to_string(alerts)?)? {
        let entity: EntityRef = serde_json::from_value(alert["entity"].clone())?;
        found.alerts.entry(format!("{}{}", key_of(&entity), about(&alert))).or_default().push(alert);
    }
    for row in rows(&std::fs::read_to_string(standing)?)? {
        found.standings.entry(row["key"].as_str().unwrap_or_default().to_owned()).or_default().push(row["value"].clone());
    }
    Ok(found)
}

#[test]
fn every_detector_on_four_kinds_of_entity_equals_the_engine_and_replay_whatever_is_killed() -> Result<()> {
    let found = killed_again_and_again(PACK, "{}", 300)?;
    let types: BTreeSet<&str> = found.decisions.values().filter_map(|d| d["anomaly_type"].as_str()).collect();
    let kinds: BTreeSet<&str> = found.decisions.values().filter_map(|d| d["entity"]["kind"].as_str()).collect();
    eprintln!("{types:?} about {kinds:?}");
    assert_eq!(types.len(), 9, "every rule fired");
    assert_eq!(kinds, ["device", "ip", "tenant+user", "user"].into());
    Ok(())
}

/// Events happen when they are produced: what ends in between, ends before or after the same events for a file and for ticks.
#[test]
fn scores_alerts_and_standing_equal_the_engine_and_replay_whatever_is_killed() -> Result<()> {
    let found = killed_again_and_again(SCORES, r#"{"BLOCKING": true}"#, 0)?;
    let alerts = || found.alerts.values().flatten();
    let states: BTreeSet<&str> = alerts().filter_map(|alert| alert["state"].as_str()).collect();
    let standings = || found.standings.values().flatten();
    let actions: BTreeSet<&str> = standings().filter_map(|standing| standing["action"].as_str()).collect();
    let fired: BTreeSet<&str> =
        found.decisions.values().flat_map(|d| d["fired"].as_array().into_iter().flatten().filter_map(Value::as_str)).collect();
    let gone = standings().filter(|standing| standing.is_null()).count();
    eprintln!("{} records of alerts, {} of standing, {gone} taken back; {fired:?}", alerts().count(), standings().count());
    assert_eq!(states, ["opened", "resolved", "updated"].into());
    assert_eq!(actions, ["alert", "block", "step_up", "throttle"].into());
    assert_eq!(fired, ["s.absence@1", "s.many@1", "s.paths@1", "s.refused@1", "s.teapot@1", "s.together@1"].into());
    assert!(gone > 0, "a standing was taken back");
    for entity in found.alerts.keys() {
        assert_eq!(found.alerts[entity].last().map(|alert| alert["state"].clone()), Some("resolved".into()), "time has passed: {entity}");
    }
    Ok(())
}

/// Sends events while the worker is killed again and again, and lets time pass; what is seen has to be what the engine makes of
/// the observations and `replay` of the file.
fn killed_again_and_again(pack: &str, flags: &str, delay_ms: u64) -> Result<Found> {
    let kills: u64 = std::env::var("TRIPLINE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let line = Line::new(&Setup { flags: flags.into(), ..Setup::routed(1, 4) })?;
    let rules = rules(&line, pack)?;
    let (mut seed, mut number) = (0x5eed, 0);
    for _ in 0..kills {
        let before = line.read("decisions")?.len();
        let mut running = start(&line, &rules)?;
        let mut batches = 0;
        // Killed at any moment after the first new decision, while events go on coming.
        while batches < 20 || line.read("decisions")?.len() <= before {
            batches += 1;
            let at_ms = now_ms();
            let events: Vec<Value> = (0..20)
                .map(|_| {
                    number += 1;
                    event(number, &mut seed, at_ms, delay_ms)
                })
                .collect();
            let records = events.iter().map(|e| Record::new(e["user_id"].as_str().unwrap_or_default(), e.to_string()).at_ms(at_ms));
            line.kafka.produce_all(&line.input, records)?;
            std::thread::sleep(Duration::from_millis(40 + next(&mut seed) % 40));
            ensure!(batches < 2_000, "no new decision:\n{}", running.worker.log_tail(20));
        }
        ensure!(running.worker.exit_status().is_none(), "the worker ended by itself:\n{}", running.worker.log_tail(20));
        running.worker.kill_9();
    }
    let last_ms = now_ms();
    let running = start(&line, &rules)?;
    wait_until(PATIENCE, "time passes for every task", || {
        let metrics = running.metrics();
        metrics.is_ok_and(|m| m.sum("tripline_lane_stream_timestamp_seconds", &[]) * 1_000.0 > (last_ms + AFTERWARDS_MS) as f64)
    })?;
    running.stop()?;
    let found = committed(&line)?;
    found.assert_is(&pure(&line, pack, flags)?);
    // Whether an absence or an event of the next moment comes first is decided by when time was heard of, and a score shows it.
    let timed = if pack == SCORES { "device" } else { "none" };
    found.clone().without(timed).assert_is(&replayed(&line, &rules, last_ms + AFTERWARDS_MS)?.without(timed));
    eprintln!("{number} events, {kills} kills, {} decisions", found.decisions.len());
    Ok(found)
}
