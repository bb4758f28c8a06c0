//! What the demo plays on: names, settings, a folder, and the programs with their settings.

use crate::paint::{dim, step};
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tripline_testkit::worker::{command, sibling_binary};
use tripline_testkit::{Kafka, Process, Worker, free_address, unique};

const PARTITIONS: i32 = 4;
/// Detection and alerting are on; blocking stays off, so that one sees what would have been blocked.
const FLAGS: &str = "{\"ANOMALY_DETECTION_ENABLED\": true, \"ANOMALY_ALERTING_ENABLED\": true}\n";

/// The stage.
pub struct Stage {
    pub requests: String,
    pub events: String,
    pub decisions: String,
    pub dead_letters: String,
    pub observations: String,
    /// Address of the admin endpoint.
    pub admin: String,
    binary: PathBuf,
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
}

impl Stage {
    /// Prepares names, settings and files. On somebody else's broker every topic has a name of its own.
    pub fn set(kafka: &Kafka) -> Result<Stage> {
        let binary = sibling_binary()?;
        let folder = binary.parent().context("tripline has no folder")?.with_file_name("demo");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        let flags = folder.join("flags.json");
        fs::write(&flags, FLAGS)?;

        let ours = kafka.broker_pid().is_some();
        let app = if ours { "demo".to_owned() } else { unique("demo") };
        let topic = |name: &str| if ours { name.to_owned() } else { format!("{app}.{name}") };
        let (requests, events) = (topic("app.requests"), topic("app.events"));
        let (decisions, dead_letters) = (topic("tripline.decisions"), topic("tripline.dead-letters"));
        let admin = free_address()?.to_string();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("config").join("packs/anomaly-infra");
        let settings = vec![
            ("TRIPLINE_APP__ID", app.clone()),
            ("TRIPLINE_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap().to_owned()),
            ("TRIPLINE_INPUT__TOPICS", format!("{requests},{events}")),
            ("TRIPLINE_INPUT__START", "earliest".to_owned()),
            ("TRIPLINE_TOPICS__DECISIONS", decisions.clone()),
            ("TRIPLINE_TOPICS__ALERTS", topic("tripline.alerts")),
            ("TRIPLINE_TOPICS__STANDING", topic("tripline.standing")),
            ("TRIPLINE_TOPICS__DEAD_LETTERS", dead_letters.clone()),
            ("TRIPLINE_TOPICS__LATE", topic("tripline.late")),
            ("TRIPLINE_TOPICS__SHADOW", topic("tripline.shadow")),
            ("TRIPLINE_TOPICS__PARTITIONS", PARTITIONS.to_string()),
            ("TRIPLINE_RULES__PATH", rules.display().to_string()),
            ("TRIPLINE_FLAGS__FILE", flags.display().to_string()),
            ("TRIPLINE_STATE__DIR", folder.join("state").display().to_string()),
            ("TRIPLINE_SINK__URL", format!("sqlite://{}", folder.join("events.db").display())),
            ("TRIPLINE_ADMIN__LISTEN", admin.clone()),
        ];
        let observations = format!("{app}.internal.observations");
        Ok(Stage { requests, events, decisions, dead_letters, observations, admin, binary, folder, settings })
    }

    fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The app's own topics as an app would have them, then ours.
    pub fn create_topics(&self, kafka: &Kafka) -> Result<()> {
        for topic in [&self.requests, &self.events] {
            kafka.create_topic(topic, PARTITIONS, &[("message.timestamp.type", "LogAppendTime")])?;
        }
        let output = command(&self.binary, &["topics", "apply"], self.settings()).output().context("could not run tripline")?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`tripline topics apply` ended with {}:\n{}", output.status, text.trim());
        Ok(())
    }

    /// `tripline run`: every role in one process.
    pub fn start_worker(&self) -> Result<Worker> {
        Worker::spawn(&self.binary, &["run"], self.settings(), self.folder.join("worker.log"))
    }

    /// `tripline generate` to Kafka, with the truth about the attacks beside it.
    pub fn start_generator(&self, events: u64, malformed: u64, rate: u64) -> Result<Process> {
        let (events, malformed, rate) = (events.to_string(), malformed.to_string(), rate.to_string());
        let truth = self.truth().display().to_string();
        let mut args = vec!["generate", "--seed", "7", "--events", &events, "--malformed", &malformed, "--rate", &rate];
        args.extend(["--attacks", "on", "--output", "kafka", "--truth", &truth]);
        args.extend(["--requests-topic", &self.requests, "--events-topic", &self.events]);
        let mut generate = command(&self.binary, &args, self.settings());
        let log = File::create(self.generator_log())?;
        generate.stdout(log.try_clone()?).stderr(log);
        Process::spawn("tripline generate", generate)
    }

    /// Where the generator says which event belongs to which attack.
    pub fn truth(&self) -> PathBuf {
        self.folder.join("truth.ndjson")
    }

    /// The generator's log.
    pub fn generator_log(&self) -> PathBuf {
        self.folder.join("generate.log")
    }

    /// What stays, and where to read on.
    pub fn say_where_to_look_next(&self) {
        let shown = |path: &Path| {
            let here = std::env::current_dir().unwrap_or_default();
            path.strip_prefix(here).unwrap_or(path).display().to_string()
        };
        let (folder, binary) = (shown(&self.folder), shown(&self.binary));
        step("next", &format!("the event store and the logs stay in {folder}:"));
        for (text, what) in [
            (format!("TRIPLINE_SINK__URL=sqlite://{folder}/events.db {binary} events list"), "what an analyst sees"),
            (format!("{binary} generate --events 2000 --output events.ndjson"), "the same traffic as a file"),
            (format!("{binary} replay --input events.ndjson --flags {folder}/flags.json --rules config/packs/anomaly-infra"), "no broker"),
            ("docs/rules.md, docs/configuration.md, ARCHITECTURE.md".to_owned(), "rules, settings, how it works"),
        ] {
            println!("{:>9} {text}  {}", "", dim(what));
        }
    }
}
