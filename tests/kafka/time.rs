//! Time that passes without traffic: what a rule waits for fires from the log's own time, once, not early, whatever was
//! killed and whichever source lags.

use crate::line::{Line, PATIENCE, Running, Setup, assert_equal, by_id};
use anyhow::{Context, Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tripline_testkit::{Metrics, Record, wait_until};

/// After the question, the answer has to come within this.
const WITHIN_MS: i64 = 3_000;
const LATENESS_MS: i64 = 1_000;
const TICK: &str = "200ms";

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
    within: 1m
    steps:
      - { id: asked, when: event_type == "mfa_asked" }
    then_absent: { when: event_type == "mfa_answered", within: 3s }
signal: { type: unanswered, user_message: Please sign in again. }
---
schema: 1
kind: policy
id: time
version: 1
actions: []
allowed_lateness: 1s
"#;

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A line whose only rule waits.
struct Waiting {
    line: Line,
    rules: String,
    produced: Vec<String>,
}

impl Waiting {
    fn new(input_partitions: i32, task_partitions: i32) -> Result<Waiting> {
        let line = Line::new(&Setup { flags: "{}".into(), ..Setup::routed(input_partitions, task_partitions) })?;
        let rules = line.file("rules");
        std::fs::create_dir(&rules)?;
        std::fs::write(rules.join("rules.yaml"), RULES)?;
        Ok(Waiting { rules: rules.display().to_string(), line, produced: Vec::new() })
    }

    fn start(&self, name: &str) -> Result<Running> {
        self.start_with(name, &[])
    }

    fn start_with(&self, name: &str, more: &[(&str, &str)]) -> Result<Running> {
        let settings = [
            ("TRIPLINE_RULES__PATH", self.rules.as_str()),
            ("TRIPLINE_STREAM__TICK_INTERVAL", TICK),
            ("TRIPLINE_STREAM__SESSION_TIMEOUT", "10s"),
            ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "5s"),
        ];
        let mut running = self.line.start_with(name, "detect", &[&settings[..], more].concat())?;
        running.worker.wait_ready(&running.admin, PATIENCE)?;
        Ok(running)
    }

    fn event(&mut self, user: &str, event_type: &str, at_ms: i64) -> String {
        let event =
            json!({ "event_id": format!("{user}-{event_type}-{at_ms}"), "event_type": event_type, "event_time": at_ms, "user_id": user });
        self.produced.push(event.to_string());
        event.to_string()
    }

    /// Produces an event of now to an input partition; answers its time.
    fn produce(&mut self, partition: i32, user: &str, event_type: &str) -> Result<i64> {
        let at_ms = now_ms();
        let value = self.event(user, event_type, at_ms);
        self.line.kafka.produce_all(&self.line.input, [Record::new(user, value).to_partition(partition).at_ms(at_ms)])?;
        Ok(at_ms)
    }

    fn stream_time_ms(running: &Running) -> Result<i64> {
        Ok((running.metrics()?.sum("tripline_lane_stream_timestamp_seconds", &[]) * 1_000.0) as i64)
    }

    /// Waits until time has passed for every task.
    fn pass(&self, running: &Running, until_ms: i64) -> Result<()> {
        wait_until(PATIENCE, "stream time passes", || Waiting::stream_time_ms(running).is_ok_and(|now| now > until_ms))
    }

    /// The decisions, each with the broker's time; every one is unique and about an unanswered question.
    fn fired(&self) -> Result<BTreeMap<String, i64>> {
        let mut fired = BTreeMap::new();
        for record in self.line.read("decisions")? {
            let decision = record.json()?;
            ensure!(decision["anomaly_type"] == "unanswered", "unexpected: {decision}");
            let user = decision["entity"]["id"].as_str().unwrap_or_default().to_owned();
            ensure!(fired.insert(user, record.timestamp_ms.unwrap_or_default()).is_none(), "fired twice: {decision}");
        }
        Ok(fired)
    }

    fn wait_for(&self, users: &[&str]) -> Result<BTreeMap<String, i64>> {
        wait_until(PATIENCE, "what is due fires", || self.fired().is_ok_and(|fired| fired.len() >= users.len()))?;
        let fired = self.fired()?;
        ensure!(fired.keys().eq(users), "{users:?} expected: {fired:?}");
        Ok(fired)
    }

    /// The decisions are those of the pure engine over the same events, once their time has passed.
    fn assert_replayed(&self) -> Result<()> {
        let input = self.line.file("events.ndjson");
        let mut events: Vec<(i64, &String)> = self
            .produced
            .iter()
            .map(|e| Ok((serde_json::from_str::<Value>(e)?["event_time"].as_i64().context("a time")?, e)))
            .collect::<Result<_>>()?;
        events.sort();
        std::fs::write(&input, events.into_iter().map(|(_, e)| format!("{e}\n")).collect::<String>())?;
        let until = tripline_core::time::format_rfc3339_ms(now_ms());
        let (input, flags) = (input.display().to_string(), self.line.file("flags.json").display().to_string());
        let args = ["replay", "--input", &input, "--rules", &self.rules, "--flags", &flags, "--until", &until];
        let done = self.line.command(&args, &[])?;
        ensure!(done.status.success(), "replay: {}", String::from_utf8_lossy(&done.stderr));
        let expected = by_id(String::from_utf8(done.stdout)?.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?)?;
        assert_equal(&self.line.decisions()?, &expected);
        Ok(())
    }
}

fn processed(metrics: &Metrics) -> u64 {
    metrics.sum("tripline_observations_total", &[("outcome", "processed")]) as u64
}

#[test]
fn an_absence_fires_without_any_further_traffic_once_and_not_early() -> Result<()> {
    let mut waiting = Waiting::new(3, 4)?;
    let running = waiting.start("one")?;
    let asked_ms = waiting.produce(1, "quiet", "mfa_asked")?;
    waiting.produce(1, "answers", "mfa_asked")?;
    waiting.produce(2, "answers", "mfa_answered")?;
    let fired = waiting.wait_for(&["quiet"])?;
    let due_ms = asked_ms + WITHIN_MS + LATENESS_MS;
    ensure!(fired["quiet"] >= due_ms, "fired {} ms early", due_ms - fired["quiet"]);
    // Time goes on, and nothing fires a second time.
    waiting.pass(&running, due_ms + 3_000)?;
    waiting.wait_for(&["quiet"])?;
    waiting.assert_replayed()?;
    let metrics = running.metrics()?;
    ensure!(processed(&metrics) == 3, "ticks count as observations");
    ensure!(metrics.sum("tripline_ticks_total", &[]) > 0.0 && metrics.sum("tripline_timed_decisions_total", &[]) == 1.0);
    ensure!(metrics.sum("tripline_dead_letters_total", &[]) == 0.0, "dead letters");
    running.stop()
}

#[test]
fn an_absence_fires_once_when_the_worker_was_down_at_its_time() -> Result<()> {
    let mut waiting = Waiting::new(2, 2)?;
    let mut running = waiting.start("one")?;
    let asked_ms = waiting.produce(0, "quiet", "mfa_asked")?;
    wait_until(PATIENCE, "the question was counted", || running.metrics().is_ok_and(|m| processed(&m) == 1))?;
    running.worker.kill_9();
    let due_ms = asked_ms + WITHIN_MS + LATENESS_MS;
    wait_until(PATIENCE, "its time comes while nobody works", || now_ms() > due_ms + 500)?;
    ensure!(waiting.fired()?.is_empty(), "fired early: it was not due when the worker died");
    let running = waiting.start("one")?;
    waiting.wait_for(&["quiet"])?;
    waiting.pass(&running, due_ms + 2_000)?;
    waiting.wait_for(&["quiet"])?;
    waiting.assert_replayed()?;
    running.stop()?;
    // Nor does it fire again on a disk that is rebuilt from the changelog.
    std::fs::remove_dir_all(waiting.line.file("state-one"))?;
    let running = waiting.start("one")?;
    waiting.pass(&running, now_ms())?;
    waiting.wait_for(&["quiet"])?;
    running.stop()
}

#[test]
fn a_kill_between_firing_and_commit_fires_once() -> Result<()> {
    let mut waiting = Waiting::new(1, 1)?;
    let settings = [
        ("TRIPLINE_RULES__PATH", waiting.rules.clone()),
        ("TRIPLINE_STREAM__TICK_INTERVAL", TICK.to_owned()),
        ("TRIPLINE_FAILPOINTS", "in_firing=kill@1".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let mut dying = waiting.line.start_with("one", "detect", &settings)?;
    dying.worker.wait_ready(&dying.admin, PATIENCE)?;
    waiting.produce(0, "quiet", "mfa_asked")?;
    wait_until(PATIENCE, "it dies while it fires", || dying.worker.exit_status().is_some())?;
    ensure!(waiting.fired()?.is_empty(), "what was not committed is visible");
    let running = waiting.start("one")?;
    waiting.wait_for(&["quiet"])?;
    waiting.pass(&running, now_ms())?;
    waiting.wait_for(&["quiet"])?;
    running.stop()
}

/// The answer stands in a partition that its router cannot read to the end: in a transaction that is still open.
#[test]
fn a_source_that_lags_holds_the_time_back_so_that_nothing_fires_early() -> Result<()> {
    let mut waiting = Waiting::new(3, 2)?;
    let running = waiting.start("one")?;
    waiting.pass(&running, now_ms())?;
    let asked_ms = waiting.produce(0, "answers", "mfa_asked")?;
    waiting.produce(0, "quiet", "mfa_asked")?;
    let mut config = waiting.line.kafka.client_config();
    let app = config.set("transactional.id", &waiting.line.app).set("transaction.timeout.ms", "60000").create::<BaseProducer>()?;
    let limit = Duration::from_secs(20);
    app.init_transactions(limit)?;
    app.begin_transaction()?;
    let answered_ms = now_ms();
    let value = waiting.event("answers", "mfa_answered", answered_ms);
    let input = waiting.line.input.clone();
    let record = BaseRecord::to(&input).key("answers").payload(&value).partition(1).timestamp(answered_ms);
    app.send(record).map_err(|(error, _)| error)?;
    app.flush(limit)?;
    let due_ms = asked_ms + WITHIN_MS + LATENESS_MS;
    wait_until(PATIENCE, "the clock is well past it", || now_ms() > due_ms + 3_000)?;
    ensure!(waiting.fired()?.is_empty(), "fired while a source lagged");
    ensure!(Waiting::stream_time_ms(&running)? < due_ms, "stream time passed a record that was still to come");
    app.commit_transaction(limit)?;
    waiting.wait_for(&["quiet"])?;
    waiting.pass(&running, now_ms())?;
    waiting.wait_for(&["quiet"])?;
    waiting.assert_replayed()?;
    running.stop()
}

/// Behind the last record that anybody will ever see stand an aborted one and the transaction's own mark.
#[test]
fn an_aborted_transaction_at_the_end_of_a_partition_does_not_hold_the_time() -> Result<()> {
    let mut waiting = Waiting::new(2, 2)?;
    let mut config = waiting.line.kafka.client_config();
    let app = config.set("transactional.id", &waiting.line.app).create::<BaseProducer>()?;
    let limit = Duration::from_secs(20);
    app.init_transactions(limit)?;
    app.begin_transaction()?;
    let input = waiting.line.input.clone();
    app.send(BaseRecord::to(&input).key("nobody").payload("{}").partition(1)).map_err(|(error, _)| error)?;
    app.flush(limit)?;
    app.abort_transaction(limit)?;
    let running = waiting.start("one")?;
    waiting.produce(0, "quiet", "mfa_asked")?;
    waiting.wait_for(&["quiet"])?;
    running.stop()
}

/// What waits moves to other tasks while one source lags: there, too, nothing fires before that source was heard, and then once.
#[test]
fn what_waits_moves_along_and_fires_once_and_not_early() -> Result<()> {
    let mut waiting = Waiting::new(3, 2)?;
    let mut running = waiting.start("one")?;
    waiting.pass(&running, now_ms())?;
    // Held from here on: this transaction stays open.
    let mut config = waiting.line.kafka.client_config();
    let app = config.set("transactional.id", &waiting.line.app).set("transaction.timeout.ms", "300000").create::<BaseProducer>()?;
    let limit = Duration::from_secs(20);
    app.init_transactions(limit)?;
    app.begin_transaction()?;
    let input = waiting.line.input.clone();
    let send_open = |waiting: &mut Waiting, user: &str, at_ms: i64| {
        let value = waiting.event(user, "mfa_answered", at_ms);
        app.send(BaseRecord::to(&input).key(user).payload(&value).partition(1).timestamp(at_ms)).map_err(|(error, _)| error)?;
        app.flush(limit)
    };
    send_open(&mut waiting, "other", now_ms())?;
    let asked_ms = waiting.produce(0, "answers", "mfa_asked")?;
    let quiet: Vec<String> = (10..20).map(|n| format!("quiet{n}")).collect();
    for user in &quiet {
        waiting.produce(0, user, "mfa_asked")?;
    }
    // In time, whenever it arrives.
    send_open(&mut waiting, "answers", asked_ms + 1)?;
    waiting.line.settle()?;
    running.worker.kill_9();
    crate::growth::grow(&waiting.line, 5, &[])?;
    let running = waiting.start_with("one", &[("TRIPLINE_TOPICS__PARTITIONS", "5")])?;
    let due_ms = asked_ms + WITHIN_MS + LATENESS_MS;
    wait_until(PATIENCE, "the clock is well past it, and ticks came", || {
        now_ms() > due_ms + 3_000 && running.metrics().is_ok_and(|m| m.sum("tripline_ticks_total", &[]) > 50.0)
    })?;
    let early = waiting.fired()?;
    ensure!(early.is_empty(), "fired while a source lagged: {early:?}, asked at {asked_ms}");
    app.commit_transaction(limit)?;
    waiting.wait_for(&quiet.iter().map(String::as_str).collect::<Vec<_>>())?;
    waiting.pass(&running, now_ms())?;
    waiting.assert_replayed()?;
    running.stop()
}

/// Two workers share the input's partitions: ticks of both are needed, and both send them.
#[test]
fn the_sources_of_two_workers_are_heard_together() -> Result<()> {
    let mut waiting = Waiting::new(4, 4)?;
    let one = waiting.start("one")?;
    let two = waiting.start("two")?;
    let routes = |running: &Running| running.metrics().map(|m| m.sum("tripline_tasks", &[("state", "running")])).unwrap_or(0.0);
    wait_until(PATIENCE, "both have a share", || routes(&one) >= 3.0 && routes(&two) >= 3.0)?;
    for partition in 0..4 {
        waiting.produce(partition, &format!("quiet{partition}"), "mfa_asked")?;
    }
    waiting.wait_for(&["quiet0", "quiet1", "quiet2", "quiet3"])?;
    waiting.assert_replayed()?;
    two.stop()?;
    one.stop()
}

/// Neither a rule that fires on time nor an action that could end.
const TIMELESS: &str = "{schema: 1, kind: policy, id: timeless, version: 1, decide: per_signal, actions: []}\n---\n\
    {schema: 1, id: t.any, version: 1, title: any, mode: enforce, on: any, detect: {match: {}}, signal: {type: any}}\n";

#[test]
fn without_anything_that_needs_time_nothing_ticks() -> Result<()> {
    let line = Line::new(&Setup::routed(2, 2))?;
    let folder = line.file("timeless");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("pack.yaml"), TIMELESS)?;
    let rules = folder.display().to_string();
    let settings = [("TRIPLINE_STREAM__TICK_INTERVAL", "100ms"), ("TRIPLINE_RULES__PATH", rules.as_str())];
    let mut running = line.start_with("one", "detect", &settings)?;
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    line.produce(crate::line::generated(81, 200)?.lines())?;
    line.settle()?;
    ensure!(!line.read("decisions")?.is_empty(), "something was decided meanwhile");
    ensure!(line.read("internal.observations")?.iter().all(|r| !r.key_text().starts_with('~')), "a tick without need");
    ensure!(running.metrics()?.sum("tripline_ticks_total", &[]) == 0.0);
    running.stop()
}
