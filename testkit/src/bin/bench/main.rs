//! The benchmark: throughput per CPU second and latency of the worker, beside a real broker. Prints a report in Markdown.
//!
//! `docs/benchmarks.md` says how it measures and how to read it. Run it with `make bench`, on a machine that does nothing else.

mod cluster;
mod drain;
mod events;
mod instructions;
mod latency;
mod overload;
mod recovery;
mod replay;
mod report;
mod worker;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use drain::drain;
use events::Events;
use latency::{Load, measure};
use report::Series;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tripline_testkit::{Kafka, unique};
use worker::Setup;

/// Event time that the full load covers.
const SPAN_MS: u64 = 30 * 60 * 1000;

/// Measures throughput and latency of the tripline worker and prints a report in Markdown.
#[derive(Debug, Parser)]
pub struct Args {
    /// Events of a full throughput run; each round also runs with half of them, for the slope
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(2..))]
    events: u64,
    /// Actors
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    actors: u32,
    /// Modes of the worker
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["keyed", "routed"])]
    modes: Vec<Mode>,
    /// Rounds; within a round the modes take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure latency too
    #[arg(long)]
    latency: bool,
    /// Events per second of the latency and the recovery run
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Measured seconds of the latency run
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measure overload too: three times the capacity, then a broker that stands still
    #[arg(long)]
    overload: bool,
    /// Seconds of overload
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    overload_seconds: u64,
    /// Actors of the overload
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    overload_actors: u32,
    /// Measure recovery too: an empty disk, kills, workers that join and leave
    #[arg(long)]
    recovery: bool,
    /// Keys and values in the changelog that is restored, MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    changelog_mib: u64,
    /// How often the worker of the recovery run is killed on the disk that it has
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Decisions of the throughput runs: `all` makes one for every event, as the reference jobs did
    #[arg(long, value_enum, default_value_t = Emit::Fired)]
    emit: Emit,
    /// Threads of the worker
    #[arg(long, default_value_t = 1)]
    lanes: usize,
    /// Partitions of every topic
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Rule pack
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/packs/anomaly-infra"), hide_default_value = true)]
    rules: PathBuf,
    /// The worker [default: the `tripline` beside this program]
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Seconds after which a throughput run has failed
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// Write the report to this file too
    #[arg(long)]
    out: Option<PathBuf>,
}

/// How the worker finds the actor's partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The input is keyed by the actor.
    Keyed,
    /// Over the observations topic.
    Routed,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Keyed => "keyed",
            Mode::Routed => "routed",
        }
    }

    /// The value of `input.keyed_by`.
    fn keyed_by(self) -> &'static str {
        match self {
            Mode::Keyed => "actor",
            Mode::Routed => "none",
        }
    }
}

/// The value of `decisions.emit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// When something fired.
    Fired,
    /// For every event.
    All,
}

impl Emit {
    fn name(self) -> &'static str {
        match self {
            Emit::Fired => "fired",
            Emit::All => "all",
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

fn main() -> Result<()> {
    let args = Args::parse();
    let rules = args.rules.canonicalize().with_context(|| format!("there is no rule pack at {}", args.rules.display()))?;
    let binary = args.binary.clone().map_or_else(tripline_testkit::worker::sibling_binary, Ok)?;
    let version = std::process::Command::new(&binary).arg("--version").output().context("could not run tripline")?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let setup = Setup { binary, rules, lanes: args.lanes, partitions: args.partitions };
    let kafka = Kafka::start()?;
    eprintln!("{}", kafka.origin());

    let mut report = report::header(&args, &kafka.origin(), &version);
    report.push_str(&report::throughput(&throughput(&kafka, &setup, &args)?));
    if args.latency {
        let load = Load { rate: args.rate, warm_up_s: 10, seconds: args.seconds, actors: args.actors as usize };
        let mut rows = Vec::new();
        for mode in &args.modes {
            let row = measure(&kafka, &setup, *mode, load)?;
            eprintln!("{} latency: {row:?}", mode.name());
            rows.push((*mode, row));
        }
        report.push('\n');
        report.push_str(&report::latency(load, &rows));
    }
    if args.overload {
        report.push('\n');
        report.push_str(&overload::measure(&kafka, &setup, &args)?);
    }
    if args.recovery {
        report.push('\n');
        report.push_str(&recovery::measure(&kafka, &setup, &args)?);
    }
    println!("{report}");
    if let Some(file) = &args.out {
        std::fs::write(file, &report).with_context(|| format!("could not write {}", file.display()))?;
    }
    Ok(())
}

/// All rounds. Modes and sizes take turns within a round, so that a machine that drifts harms all alike.
fn throughput(kafka: &Kafka, setup: &Setup, args: &Args) -> Result<Vec<Series>> {
    let mut series: Vec<Series> = args.modes.iter().map(|mode| Series { mode: *mode, full: Vec::new(), half: Vec::new() }).collect();
    if args.rounds == 0 {
        return Ok(Vec::new());
    }
    let full = fill(kafka, args, args.events)?;
    let half = fill(kafka, args, args.events / 2)?;
    for round in 1..=args.rounds {
        for Series { mode, full: of_full, half: of_half } in &mut series {
            for (topic, runs) in [(&full, of_full), (&half, of_half)] {
                let run = drain(kafka, setup, *mode, topic, args.emit.name(), Duration::from_secs(args.limit))?;
                eprintln!("round {round}, {}: {run:?}", mode.name());
                runs.push(run);
            }
        }
    }
    Ok(series)
}

/// A topic with so many events, as dense in event time as the full load and over by now: nothing lies in the future.
fn fill(kafka: &Kafka, args: &Args, count: u64) -> Result<String> {
    let topic = unique("bench-input");
    kafka.create_topic(&topic, args.partitions, &[("retention.ms", "-1"), ("segment.bytes", "1073741824")])?;
    let mut events = Events::new(42, args.actors as usize);
    let start_ms = now_ms() - SPAN_MS as i64;
    let records = (0..count).map(|number| events.next(start_ms + (number * SPAN_MS / args.events) as i64));
    kafka.produce_all(&topic, records)?;
    eprintln!("filled {topic} with {count} events");
    Ok(topic)
}
