//! One worker on topics, group and state of its own.

use crate::Mode;
use crate::cluster::delete_topics;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tripline_testkit::{Kafka, Worker, free_address, unique, worker};

/// Flags as they are when the pack is in use: off by default, like the package that it follows.
pub const FLAGS: &str = r#"{"ANOMALY_DETECTION_ENABLED": true, "ANOMALY_ALERTING_ENABLED": true}"#;

/// The identity of a worker that is alone.
const ALONE: &str = "bench";

/// What all workers of a benchmark have in common.
pub struct Setup {
    /// The `tripline` binary.
    pub binary: PathBuf,
    /// Folder of the rule pack.
    pub rules: PathBuf,
    /// Threads of the worker.
    pub lanes: usize,
    /// Partitions of every topic.
    pub partitions: i32,
}

/// Names and settings of one run.
pub struct Run {
    /// Consumer group, and what all its topics start with.
    pub app: String,
    /// Where `/metrics` answers.
    pub admin: String,
    settings: Vec<(String, String)>,
    binary: PathBuf,
    folder: TempDir,
}

impl Run {
    /// Creates topics for a run over this input.
    pub fn prepare(kafka: &Kafka, setup: &Setup, mode: Mode, input: &str, emit: &str) -> Result<Run> {
        let app = unique(&format!("bench-{}", mode.name()));
        let folder = tempfile::tempdir().context("could not make a folder for the state")?;
        let flags = folder.path().join("flags.json");
        std::fs::write(&flags, FLAGS)?;
        let admin = free_address()?.to_string();
        let settings = [
            ("APP__ID", app.clone()),
            ("KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap().to_owned()),
            ("INPUT__TOPICS", input.to_owned()),
            ("INPUT__KEYED_BY", mode.keyed_by().to_owned()),
            ("INPUT__START", "earliest".to_owned()),
            ("TOPICS__PARTITIONS", setup.partitions.to_string()),
            ("TOPICS__DECISIONS", format!("{app}.decisions")),
            ("TOPICS__ALERTS", format!("{app}.alerts")),
            ("TOPICS__STANDING", format!("{app}.standing")),
            ("TOPICS__DEAD_LETTERS", format!("{app}.dead-letters")),
            ("TOPICS__LATE", format!("{app}.late")),
            ("TOPICS__SHADOW", format!("{app}.shadow")),
            ("RULES__PATH", setup.rules.display().to_string()),
            ("FLAGS__FILE", flags.display().to_string()),
            ("DECISIONS__EMIT", emit.to_owned()),
            ("STREAM__LANES", setup.lanes.to_string()),
        ];
        let settings = settings.into_iter().map(|(name, value)| (format!("TRIPLINE_{name}"), value)).collect();
        let run = Run { app, admin, settings, binary: setup.binary.clone(), folder };
        let state = run.state(ALONE).display().to_string();
        let settings = run.settings().chain([("TRIPLINE_STATE__DIR", state.as_str())]);
        let output = worker::command(&run.binary, &["topics", "apply"], settings).output().context("could not run tripline")?;
        ensure!(output.status.success(), "tripline topics apply failed:\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(run)
    }

    fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets something else than the other runs have: `MEMORY__BUDGET`.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((format!("TRIPLINE_{name}"), value.to_owned()));
    }

    /// Starts the worker.
    pub fn start(&self) -> Result<Worker> {
        self.start_as(ALONE, &self.admin)
    }

    /// Starts a worker with this identity, a log and a state folder of its own; `/metrics` answers at `admin`.
    pub fn start_as(&self, identity: &str, admin: &str) -> Result<Worker> {
        let state = self.state(identity).display().to_string();
        let own = [("TRIPLINE_STREAM__IDENTITY", identity), ("TRIPLINE_STATE__DIR", state.as_str()), ("TRIPLINE_ADMIN__LISTEN", admin)];
        let log = self.folder.path().join(format!("{identity}.log"));
        Worker::spawn(&self.binary, &["run", "--roles", "detect"], self.settings().chain(own), log)
    }

    /// The state folder of the worker with this identity.
    pub fn state(&self, identity: &str) -> PathBuf {
        self.folder.path().join(format!("state-{identity}"))
    }

    /// Stops the worker and deletes what it made.
    pub fn clean_up(self, kafka: &Kafka, mut worker: Worker) -> Result<()> {
        worker.terminate(Duration::from_secs(30)).with_context(|| format!("the worker did not stop:\n{}", worker.log_tail(20)))?;
        delete_topics(kafka, &self.app)
    }

    /// The topics by name.
    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.app)
    }
}
