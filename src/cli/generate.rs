//! `tripline generate`: seeded synthetic traffic to a file, to stdout or to Kafka.

use crate::config::Config;
use crate::generate::kafka::Sender;
use crate::generate::{Generated, Label, Options, traffic};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tripline_core::time::{EARLIEST_MS, LATEST_MS, format_rfc3339_ms, parse_rfc3339_ms};

/// The event time at which files start, so that the same seed gives the same file on any day: 2026-01-01T00:00:00Z.
const FILE_START_MS: i64 = 1_767_225_600_000;

/// Make seeded synthetic traffic, ordinary and hostile, for a demo, a test or a benchmark.
#[derive(Debug, Clone, Args)]
pub struct GenerateArgs {
    /// Everything random follows from it: same seed and options, same bytes
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Valid events
    #[arg(long, default_value_t = 20_000)]
    pub events: u64,
    /// Events per second of event time; to Kafka also the pace of sending
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// Whether there are attacks among them
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub attacks: Switch,
    /// Ordinary actors; attackers come on top
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub actors: u64,
    /// Event time of the first event, RFC 3339 [default: now for Kafka, 2026-01-01T00:00:00Z else]
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// `-` for stdout, `kafka` for the configured cluster, else a file
    #[arg(long, default_value = "-", value_name = "-|FILE|kafka")]
    pub output: String,
    /// Topic of requests
    #[arg(long, default_value = "app.requests", value_name = "TOPIC")]
    pub requests_topic: String,
    /// Topic of domain events
    #[arg(long, default_value = "app.events", value_name = "TOPIC")]
    pub events_topic: String,
    /// For `input.keyed_by: actor`: everything to the requests topic, the actor's id as the key
    #[arg(long)]
    pub keyed: bool,
    /// Malformed records in addition, spread evenly
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub malformed: u64,
    /// Write which event belongs to which attack, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

enum Output {
    Lines(BufWriter<Box<dyn Write>>),
    Kafka { sender: Sender, started: Instant, start_ms: i64 },
}

/// Makes the traffic.
pub fn run(args: &GenerateArgs, config: &Config) -> Result<()> {
    let options = options(args)?;
    let mut output = open(args, &options, config)?;
    let mut truth = args.truth.as_deref().map(create).transpose()?;
    let bar = progress(args);
    for record in traffic(options) {
        if let (Some(file), Some(line)) = (&mut truth, truth_line(&record)) {
            writeln!(file, "{line}").context("could not write the truth file")?;
        }
        if !write(&mut output, &record)? {
            return Ok(());
        }
        bar.inc(1);
    }
    if let Some(mut file) = truth {
        file.flush().context("could not write the truth file")?;
    }
    match output {
        Output::Lines(mut lines) => {
            finish_lines(lines.flush())?;
        }
        Output::Kafka { sender, .. } => sender.finish()?,
    }
    bar.finish_and_clear();
    Ok(())
}

fn options(args: &GenerateArgs) -> Result<Options> {
    let kafka = args.output == "kafka";
    let start_ms = match &args.start {
        Some(text) => parse_rfc3339_ms(text).with_context(|| format!("--start: `{text}` is not a time like 2026-01-31T12:00:00Z"))?,
        None if kafka => SystemTime::now().duration_since(UNIX_EPOCH).context("the system clock stands before 1970")?.as_millis() as i64,
        None => FILE_START_MS,
    };
    let span_ms = i64::try_from(u128::from(args.events) * 1000 / u128::from(args.rate)).unwrap_or(i64::MAX);
    let end_ms = start_ms.saturating_add(span_ms);
    ensure!(
        start_ms >= EARLIEST_MS && end_ms < LATEST_MS,
        "--start, --events and --rate: event times from {} to {} are not all between 2000 and 2100",
        format_rfc3339_ms(start_ms),
        format_rfc3339_ms(end_ms),
    );
    Ok(Options {
        seed: args.seed,
        events: args.events,
        rate: args.rate,
        attacks: args.attacks == Switch::On,
        actors: args.actors,
        start_ms,
        malformed: args.malformed,
        lines: !kafka,
        requests_topic: args.requests_topic.clone(),
        events_topic: args.events_topic.clone(),
        keyed: args.keyed,
    })
}

fn open(args: &GenerateArgs, options: &Options, config: &Config) -> Result<Output> {
    Ok(match args.output.as_str() {
        "-" => Output::Lines(BufWriter::new(Box::new(std::io::stdout().lock()))),
        "kafka" => {
            let both = [args.requests_topic.as_str(), args.events_topic.as_str()];
            let sender = Sender::connect(config, if args.keyed { &both[..1] } else { &both })?;
            Output::Kafka { sender, started: Instant::now(), start_ms: options.start_ms }
        }
        file => Output::Lines(create(Path::new(file))?),
    })
}

fn create(file: &Path) -> Result<BufWriter<Box<dyn Write>>> {
    let opened = File::create(file).with_context(|| format!("could not create {}", file.display()))?;
    Ok(BufWriter::new(Box::new(opened)))
}

/// Writes one record; false when the reader of stdout has gone, which is its right.
fn write(output: &mut Output, record: &Generated) -> Result<bool> {
    match output {
        Output::Lines(lines) => {
            let value = record.value.as_deref().unwrap_or_default();
            finish_lines(lines.write_all(value).and_then(|()| lines.write_all(b"\n")))
        }
        Output::Kafka { sender, started, start_ms } => {
            let due = Duration::from_millis((record.time_ms - *start_ms).max(0) as u64);
            sleep(due.saturating_sub(started.elapsed()));
            sender.send(record)?;
            Ok(true)
        }
    }
}

fn finish_lines(written: std::io::Result<()>) -> Result<bool> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).context("could not write the events"),
    }
}

fn truth_line(record: &Generated) -> Option<String> {
    match record.label.as_ref()? {
        Label::Attack { attack, event_id, actor } => {
            let time = format_rfc3339_ms(record.time_ms);
            Some(serde_json::json!({"event_id": event_id, "event_time": time, "actor": actor, "attack": attack.name()}).to_string())
        }
        // A malformed record has no id that one could look up.
        Label::Malformed(_) => None,
    }
}

/// A bar on stderr when a terminal looks on; none when the events themselves go to that terminal.
fn progress(args: &GenerateArgs) -> ProgressBar {
    if !std::io::stderr().is_terminal() || (args.output == "-" && std::io::stdout().is_terminal()) {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(args.events + args.malformed);
    match ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} events, {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
