//! A line: topics, group, state folder and database of its own on a broker, and the processes that run on it.

use crate::{Kafka, Metrics, OwnedRecord, Record, Worker, free_address, unique, wait_until, worker};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Long enough for a busy machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// What switches the reference pack on.
pub const FLAGS_ON: &str = r#"{"ANOMALY_DETECTION_ENABLED": true, "ANOMALY_ALERTING_ENABLED": true}"#;

/// How the line is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The input is keyed by the actor (`input.keyed_by`).
    pub keyed: bool,
    /// Partitions of the input topic.
    pub input_partitions: i32,
    /// Partitions of every other topic, so how many tasks there are.
    pub task_partitions: i32,
    /// A decision for every event.
    pub emit_all: bool,
    /// The flags file.
    pub flags: String,
    /// The settings file of the rule pack.
    pub settings: String,
}

impl Setup {
    /// A keyed input with as many partitions as tasks.
    pub fn keyed(partitions: i32) -> Setup {
        Setup {
            keyed: true,
            input_partitions: partitions,
            task_partitions: partitions,
            emit_all: false,
            flags: FLAGS_ON.into(),
            settings: "{}".into(),
        }
    }

    /// An input of any key, routed to the tasks.
    pub fn routed(input_partitions: i32, task_partitions: i32) -> Setup {
        Setup { keyed: false, input_partitions, task_partitions, ..Setup::keyed(1) }
    }
}

/// A line: topics exist, nothing runs yet.
#[derive(Debug)]
pub struct Line {
    /// The broker.
    pub kafka: &'static Kafka,
    /// `app.id`: the group, and the prefix of its topics.
    pub app: String,
    /// The input topic.
    pub input: String,
    /// Files, logs, states and the event store; goes with the line.
    pub folder: tempfile::TempDir,
    /// The input is keyed by the actor.
    pub keyed: bool,
    /// A decision for every event.
    pub emit_all: bool,
    partitions: i32,
    binary: PathBuf,
}

/// A process of the line.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub worker: Worker,
    /// Its admin address.
    pub admin: String,
}

/// The root of the repository.
pub fn root() -> &'static Path {
    static ROOT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    ROOT.get_or_init(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned())
}

impl Line {
    /// Creates topics and files on the broker that all tests of a binary share.
    pub fn new(setup: &Setup) -> Result<Line> {
        Line::on(Kafka::shared(), setup)
    }

    /// The same on a broker of the caller's.
    pub fn on(kafka: &'static Kafka, setup: &Setup) -> Result<Line> {
        let app = unique("line");
        let input = format!("{app}.requests");
        kafka.create_topic(
            &input,
            setup.input_partitions,
            &[("message.timestamp.type", "CreateTime"), ("retention.ms", "-1"), ("max.message.bytes", "4000000")],
        )?;
        let line = Line {
            kafka,
            app,
            input,
            folder: tempfile::tempdir()?,
            keyed: setup.keyed,
            emit_all: setup.emit_all,
            partitions: setup.task_partitions,
            binary: worker::sibling_binary()?,
        };
        std::fs::write(line.file("flags.json"), &setup.flags)?;
        std::fs::write(line.file("settings.json"), &setup.settings)?;
        let done = line.command(&["topics", "apply"], &line.settings("setup"))?;
        ensure!(done.status.success(), "topics apply: {}", String::from_utf8_lossy(&done.stderr));
        Ok(line)
    }

    /// A file in the line's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A topic of the line by its last name.
    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.app)
    }

    /// The event store.
    pub fn database(&self) -> PathBuf {
        self.file("events.db")
    }

    /// Settings of a process; processes with the same name share identity and state folder.
    pub fn settings(&self, name: &str) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.display().to_string();
        [
            ("APP__ID", self.app.clone()),
            ("KAFKA__BOOTSTRAP_SERVERS", self.kafka.bootstrap().to_owned()),
            ("INPUT__TOPICS", self.input.clone()),
            ("INPUT__KEYED_BY", if self.keyed { "actor" } else { "none" }.to_owned()),
            ("TOPICS__PARTITIONS", self.partitions.to_string()),
            ("TOPICS__DECISIONS", self.topic("decisions")),
            ("TOPICS__ALERTS", self.topic("alerts")),
            ("TOPICS__STANDING", self.topic("standing")),
            ("TOPICS__DEAD_LETTERS", self.topic("dead-letters")),
            ("TOPICS__LATE", self.topic("late")),
            ("TOPICS__SHADOW", self.topic("shadow")),
            ("RULES__PATH", text(root().join("config/packs/anomaly-infra"))),
            ("RULES__SETTINGS", text(self.file("settings.json"))),
            ("FLAGS__FILE", text(self.file("flags.json"))),
            ("DECISIONS__EMIT", if self.emit_all { "all" } else { "fired" }.to_owned()),
            ("STATE__DIR", text(self.file(&format!("state-{name}")))),
            ("STREAM__IDENTITY", name.to_owned()),
            ("SINK__URL", format!("sqlite://{}", self.database().display())),
            ("ADMIN__LISTEN", String::new()),
            ("LOG__FORMAT", "json".to_owned()),
        ]
        .into_iter()
        .map(|(key, value)| (format!("TRIPLINE_{key}"), value))
        .collect()
    }

    /// Runs a verb to its end.
    pub fn command(&self, args: &[&str], settings: &[(String, String)]) -> Result<std::process::Output> {
        let mut command = worker::command(&self.binary, args, settings.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        command.current_dir(root()).output().context("the binary starts")
    }

    /// Starts `tripline run` with these roles; `more` wins over the line's settings. Does not wait for anything.
    pub fn start_with(&self, name: &str, roles: &str, more: &[(&str, &str)]) -> Result<Running> {
        let admin = free_address()?.to_string();
        let mut settings = self.settings(name);
        settings.retain(|(key, _)| key != "TRIPLINE_ADMIN__LISTEN" && !more.iter().any(|(m, _)| m == key));
        settings.push(("TRIPLINE_ADMIN__LISTEN".into(), admin.clone()));
        settings.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let log = self.file(&format!("{name}.log"));
        let worker = Worker::spawn(&self.binary, &["run", "--roles", roles], settings.iter().map(|(k, v)| (k.as_str(), v.as_str())), log)?;
        Ok(Running { worker, admin })
    }

    /// Starts detect and sink and waits until they are ready.
    pub fn start(&self, name: &str) -> Result<Running> {
        let mut running = self.start_with(name, "detect,sink", &[])?;
        running.worker.wait_ready(&running.admin, PATIENCE)?;
        Ok(running)
    }

    /// Produces events as NDJSON, keyed by actor in keyed mode, with their own time as the record's.
    pub fn produce<'e>(&self, events: impl IntoIterator<Item = &'e str>) -> Result<u64> {
        let records: Vec<Record> = events
            .into_iter()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let event: Value = serde_json::from_str(line)?;
                Ok(Record::new(actor(&event), line).at_ms(time_ms(&event)))
            })
            .collect::<Result<_>>()?;
        self.kafka.produce_all(&self.input, records)
    }

    /// Waits until the group has committed everything that stands in the inputs (and in the observations).
    pub fn settle(&self) -> Result<()> {
        wait_until(PATIENCE, "everything is committed", || self.is_settled().unwrap_or(false))
    }

    fn is_settled(&self) -> Result<bool> {
        let mut topics = vec![self.input.clone()];
        if !self.keyed {
            topics.push(self.topic("internal.observations"));
        }
        for topic in topics {
            let committed = self.kafka.committed_offsets(&self.app, &topic)?;
            // The last offset of a partition may be a transaction's own record, which is not consumed but passed over.
            let last: BTreeMap<i32, i64> =
                self.kafka.read_committed(&topic)?.iter().map(|r| (r.partition, r.offset)).fold(BTreeMap::new(), |mut m, (p, o)| {
                    m.insert(p, o.max(m.get(&p).copied().unwrap_or(-1)));
                    m
                });
            if last.iter().any(|(partition, offset)| committed.get(partition).is_none_or(|c| c <= offset)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Everything committed in a topic of the line.
    pub fn read(&self, topic: &str) -> Result<Vec<OwnedRecord>> {
        self.kafka.read_committed(&self.topic(topic))
    }

    /// Committed decisions by id; an id that stands twice is an error.
    pub fn decisions(&self) -> Result<BTreeMap<String, Value>> {
        by_id(
            self.read("decisions")?
                .iter()
                .map(|r| serde_json::from_slice(r.value.as_deref().unwrap_or_default()))
                .collect::<Result<Vec<Value>, _>>()?,
        )
    }

    /// What `replay` says of the same events.
    pub fn replay(&self, events: &str) -> Result<BTreeMap<String, Value>> {
        self.replay_with(events, &root().join("config/packs/anomaly-infra").display().to_string())
    }

    /// What `replay` says of the same events with the rules of this folder.
    pub fn replay_with(&self, events: &str, rules: &str) -> Result<BTreeMap<String, Value>> {
        let input = self.file("replay-input.ndjson");
        std::fs::write(&input, events)?;
        let file = |name: &str| self.file(name).display().to_string();
        let (input, flags, settings) = (input.display().to_string(), file("flags.json"), file("settings.json"));
        let emit = if self.emit_all { "all" } else { "fired" };
        let args = ["replay", "--input", &input, "--rules", rules, "--flags", &flags, "--settings", &settings, "--emit", emit];
        let done = self.command(&args, &[])?;
        ensure!(done.status.success(), "replay: {}", String::from_utf8_lossy(&done.stderr));
        by_id(String::from_utf8(done.stdout)?.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?)
    }

    /// Ids in the event store.
    pub fn stored(&self) -> Result<Vec<String>> {
        let mut settings = self.settings("reader");
        settings.retain(|(key, _)| key != "TRIPLINE_ADMIN__LISTEN");
        let done = self.command(&["events", "list", "--limit", "1000000", "-o", "ndjson"], &settings)?;
        ensure!(done.status.success(), "events list: {}", String::from_utf8_lossy(&done.stderr));
        let mut ids: Vec<String> = String::from_utf8(done.stdout)?
            .lines()
            .map(|l| Ok(serde_json::from_str::<Value>(l)?["id"].as_str().unwrap_or_default().to_owned()))
            .collect::<Result<_>>()?;
        ids.sort();
        Ok(ids)
    }

    /// Waits until the sink has stored as many rows, then compares the ids.
    pub fn assert_stored(&self, decisions: &BTreeMap<String, Value>) -> Result<()> {
        let expected: Vec<&String> = decisions.iter().filter(|(_, d)| !d["anomaly_type"].is_null()).map(|(id, _)| id).collect();
        wait_until(PATIENCE, "the sink has stored every decision", || self.stored().is_ok_and(|ids| ids.len() >= expected.len()))?;
        let stored = self.stored()?;
        ensure!(stored.iter().eq(expected.iter().copied()), "the event store has other ids than the decisions topic");
        Ok(())
    }
}

impl Running {
    /// The numbers of its admin endpoint.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(&self.admin)
    }

    /// Asks it to stop; an error when it does not, or not well.
    pub fn stop(mut self) -> Result<()> {
        let log = self.worker.log_tail(20);
        let status = self.worker.terminate(Duration::from_secs(12))?;
        ensure!(status.success(), "stopped with {status}:\n{log}");
        Ok(())
    }
}

/// Decisions by their id; an id that stands twice is an error.
pub fn by_id(decisions: Vec<Value>) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for decision in decisions {
        let id = decision["decision_id"].as_str().context("a decision without an id")?.to_owned();
        ensure!(found.insert(id.clone(), decision).is_none(), "decision {id} stands twice");
    }
    Ok(found)
}

/// Compares two sets of decisions and names the first difference.
///
/// # Panics
/// When they differ.
pub fn assert_equal(found: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) {
    let missing: Vec<_> = expected.keys().filter(|id| !found.contains_key(*id)).collect();
    let surplus: Vec<_> = found.keys().filter(|id| !expected.contains_key(*id)).collect();
    let differing = expected.iter().find(|(id, d)| found.get(*id).is_some_and(|f| f != *d)).map(|(id, d)| format!("{d}\n  {}", found[id]));
    assert!(
        missing.is_empty() && surplus.is_empty() && differing.is_none(),
        "{} found, {} expected, {} missing, {} surplus; first missing {:?}; first differing {}",
        found.len(),
        expected.len(),
        missing.len(),
        surplus.len(),
        missing.first().map(|id| &expected[*id]),
        differing.unwrap_or_default(),
    );
}

/// The actor of an event, as the key of a keyed topic names it.
pub fn actor(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    text("user_id")
        .map(|u| format!("user:{u}"))
        .or_else(|| text("ip_address").map(|ip| format!("ip:{ip}")))
        .unwrap_or_else(|| "anon".to_owned())
}

fn time_ms(event: &Value) -> i64 {
    event["event_time"].as_str().and_then(tripline_core::time::parse_rfc3339_ms).or_else(|| event["event_time"].as_i64()).unwrap_or(0)
}

/// A seeded trace of the generator, as NDJSON.
pub fn generated(seed: u64, events: usize) -> Result<String> {
    let (seed, events) = (seed.to_string(), events.to_string());
    let mut command =
        worker::command(&worker::sibling_binary()?, &["generate", "--seed", &seed, "--events", &events, "--attacks", "on"], []);
    let done = command.current_dir(root()).output()?;
    ensure!(done.status.success(), "generate: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?)
}
