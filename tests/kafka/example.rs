//! The example under `examples/standing`, as an app would run it: a worker decides, and the consumer answers.

use crate::line::{Line, PATIENCE, Running, Setup, root};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tripline_core::time::format_rfc3339_ms;
use tripline_testkit::{Record, free_address, wait_until};

/// Five refusals block a user for a while, if the flag is on.
const RULES: &str = r#"schema: 1
kind: flags
flags: [{name: BLOCKING, default: false, description: Blocks.}]
---
schema: 1
kind: policy
id: policy.example
version: 1
actions:
  - {do: alert, at: 30}
  - {do: block, at: 60, families: 1, ttl: 10m, flag: BLOCKING}
allowed_lateness: 1s
---
schema: 1
id: example.refused
version: 1
title: Refused again and again
mode: enforce
on: http_request
by: user
when: status_code == 403
detect: {count: {at_least: 5, within: 1m}}
signal: {type: refused, severity: critical, points: 90, certain: true, user_message: Please contact us.}
"#;

/// An answer is a look into a table: a consumer that needs longer waits for something.
const AT_ONCE: Duration = Duration::from_secs(2);

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The Python that `scripts/setup.sh` made.
fn python() -> Result<PathBuf> {
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    let python = cache.map(|cache| cache.join("tripline/python/bin/python")).filter(|python| python.exists());
    let python = python.context("the example needs a Python with confluent-kafka: run scripts/setup.sh, which makes one")?;
    let has_client = Command::new(&python).args(["-c", "import confluent_kafka"]).stderr(Stdio::null()).status()?.success();
    ensure!(has_client, "the Python in {} lacks confluent-kafka: run scripts/setup.sh, which installs it", python.display());
    Ok(python)
}

/// `consumer.py` with pipes. It ends with its input, and with us.
struct Consumer {
    child: Child,
    questions: ChildStdin,
    answers: RefCell<Lines<BufReader<ChildStdout>>>,
}

impl Consumer {
    fn start(bootstrap: &str, topic: &str) -> Result<Consumer> {
        let mut command = Command::new(python()?);
        command.arg(root().join("examples/standing/consumer.py")).arg(topic).env("BOOTSTRAP", bootstrap);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let questions = child.stdin.take().context("a pipe")?;
        let answers = RefCell::new(BufReader::new(child.stdout.take().context("a pipe")?).lines());
        let consumer = Consumer { child, questions, answers };
        // Python has to start first; from then on every answer is there at once.
        ensure!(consumer.ask("user:nobody")? == "allow");
        Ok(consumer)
    }

    fn ask(&self, key: &str) -> Result<String> {
        writeln!(&self.questions, "{key}")?;
        self.answers.borrow_mut().next().context("the consumer ended")?.context("an answer")
    }

    /// The answer, which must not have waited for anything.
    fn ask_at_once(&self, key: &str) -> Result<String> {
        let asked = Instant::now();
        let answer = self.ask(key)?;
        ensure!(asked.elapsed() < AT_ONCE, "an answer took {:?}", asked.elapsed());
        Ok(answer)
    }

    fn wait_for(&self, key: &str, answer: &str) -> Result<()> {
        wait_until(PATIENCE, &format!("{answer} for {key}"), || self.ask(key).is_ok_and(|said| said == answer))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line() -> Result<Line> {
    let line = Line::new(&Setup { flags: r#"{"BLOCKING": true}"#.into(), ..Setup::routed(1, 2) })?;
    std::fs::create_dir(line.file("rules"))?;
    std::fs::write(line.file("rules").join("rules.yaml"), RULES)?;
    Ok(line)
}

fn start(line: &Line) -> Result<Running> {
    let rules = line.file("rules").display().to_string();
    let settings = [("TRIPLINE_RULES__PATH", rules.as_str()), ("TRIPLINE_STREAM__TICK_INTERVAL", "200ms")];
    let mut running = line.start_with("one", "detect", &settings)?;
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    Ok(running)
}

/// So many refusals of a user, a second apart, the last one now.
fn refusals(line: &Line, user: &str, count: i64) -> Result<()> {
    let now_ms = now_ms();
    let record = |n: i64| {
        let at_ms = now_ms - (count - 1 - n) * 1_000;
        let event = json!({"event_id": format!("{user}-{n}"), "event_type": "http_request", "event_time": at_ms, "user_id": user, "status_code": 403});
        Record::new(user, event.to_string()).at_ms(at_ms)
    };
    line.kafka.produce_all(&line.input, (0..count).map(record))?;
    Ok(())
}

/// A standing as the worker writes it, with an end of our choice.
fn standing(user: &str, action: &str, expires_ms: i64) -> Record {
    let value = json!({
        "schema_version": 1, "entity": {"kind": "user", "id": user}, "risk_score": 90, "axes": {"intrusion": 90}, "action": action,
        "actions": ["alert", action], "as_of": format_rfc3339_ms(now_ms()), "expires_at": format_rfc3339_ms(expires_ms),
        "ends": {"alert": format_rfc3339_ms(expires_ms), action: format_rfc3339_ms(expires_ms)},
        "throttle_interval_ms": 1818, "decision_id": null, "policy": "p@1", "rules": "r", "flags": "f",
    });
    Record::new(format!("user:{user}"), value.to_string())
}

/// A block that ends soon, and a step-up that lasts longer.
fn after_the_block(soon: i64, later: i64) -> Record {
    let mut record = standing("both", "block", soon);
    let mut value: Value = serde_json::from_slice(record.value.as_deref().unwrap_or_default()).expect("JSON");
    value["actions"] = json!(["step_up", "block"]);
    value["ends"]["step_up"] = json!(format_rfc3339_ms(later));
    record.value = Some(value.to_string().into_bytes());
    record
}

#[test]
fn the_example_answers_what_the_worker_decided_and_allows_everybody_else() -> Result<()> {
    let line = line()?;
    let running = start(&line)?;
    let consumer = Consumer::start(line.kafka.bootstrap(), &line.topic("standing"))?;
    refusals(&line, "u1", 5)?;
    refusals(&line, "u2", 2)?;
    consumer.wait_for("user:u1", "block")?;
    ensure!(consumer.ask_at_once("user:u2")? == "allow");
    let decided = line.decisions()?;
    ensure!(decided.values().any(|d: &Value| d["entity"]["id"] == "u1" && d["should_block"] == true), "{decided:?}");
    // A consumer that starts now reads what is there.
    Consumer::start(line.kafka.bootstrap(), &line.topic("standing"))?.wait_for("user:u1", "block")?;
    // Until it expires it holds, whether or not anybody works.
    running.stop()?;
    ensure!(consumer.ask_at_once("user:u1")? == "block");
    Ok(())
}

#[test]
fn the_example_allows_whatever_is_over_taken_back_or_not_to_be_read() -> Result<()> {
    let line = line()?;
    let topic = line.topic("standing");
    let (later, soon) = (now_ms() + 600_000, now_ms() + 8_000);
    let unreadable = |user: &str, value: &str| Record::new(format!("user:{user}"), value);
    let records = [
        standing("over", "block", now_ms() - 1_000),
        standing("taken-back", "block", later),
        Record { key: Some(b"user:taken-back".to_vec()), ..Record::default() },
        standing("garbled", "block", later),
        unreadable("garbled", "{\"action\": \"block\""),
        unreadable("list", "[1]"),
        unreadable("newer", "{\"action\": \"banish\", \"expires_at\": \"2999-01-01T00:00:00Z\"}"),
        unreadable("endless", "{\"action\": \"block\", \"expires_at\": null}"),
        standing("told", "alert", later),
        standing("slowed", "throttle", later),
        standing("asked", "step_up", later),
        standing("soon", "block", soon),
        after_the_block(soon, later),
    ];
    line.kafka.produce_all(&topic, records)?;
    let mark = standing("last", "block", later);
    let last = |partition| Record { key: Some(format!("user:last{partition}").into()), ..mark.clone() }.to_partition(partition);
    line.kafka.produce_all(&topic, (0..2).map(last))?;
    let consumer = Consumer::start(line.kafka.bootstrap(), &topic)?;
    // Every partition was read as far as its mark.
    consumer.wait_for("user:last0", "block")?;
    consumer.wait_for("user:last1", "block")?;
    for user in ["over", "taken-back", "garbled", "list", "newer", "endless", "told"] {
        ensure!(consumer.ask_at_once(&format!("user:{user}"))? == "allow", "{user}");
    }
    ensure!(consumer.ask_at_once("user:slowed")? == "throttle 1818");
    ensure!(consumer.ask_at_once("user:asked")? == "step_up");
    // Nothing says that it is over but its own end.
    consumer.wait_for("user:soon", "allow")?;
    ensure!(now_ms() >= soon, "{} ms early", soon - now_ms());
    // What is weaker and lasts longer holds on.
    consumer.wait_for("user:both", "step_up")?;
    Ok(())
}

#[test]
fn the_example_allows_everybody_when_there_is_no_broker() -> Result<()> {
    let consumer = Consumer::start(&free_address()?.to_string(), "tripline.standing")?;
    let asked = Instant::now();
    // Across several of its attempts to connect.
    wait_until(PATIENCE, "some seconds", || asked.elapsed() > Duration::from_secs(7) || consumer.ask_at_once("user:u1").is_err())?;
    ensure!(consumer.ask_at_once("user:u1")? == "allow");
    Ok(())
}
