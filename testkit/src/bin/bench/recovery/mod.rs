//! Recovery: how long it takes until decisions come again after a worker was killed, with its disk and without it, and how
//! long the tasks that it does not concern are held up when workers come and go.
//!
//! One line goes through all of it, under a load that never stops, and is compared with `replay` in the end.

mod load;
mod pause;
mod sight;
mod table;

use crate::worker::{Run, Setup};
use crate::{Args, Mode, replay};
use anyhow::{Context, Result, ensure};
use load::{Sender, Traffic};
use pause::Pauses;
use sight::Sight;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tripline_testkit::{Kafka, Metrics, Worker, unique, wait_until};

/// A member that is silent for longer loses its partitions: shorter than the default, so that a run does not only wait.
const SESSION: Duration = Duration::from_secs(15);
/// How long the line runs undisturbed before each measurement; also what a disturbed line is compared with.
const CALM: Duration = Duration::from_secs(5);

/// What came of killing the worker and starting it again.
#[derive(Debug, Clone)]
struct Restart {
    /// From the kill until it was ready.
    ready: Duration,
    /// From the kill until a decision about an event that was sent after it.
    first: Duration,
    /// From the kill until every task had made one.
    every: Duration,
    /// Changelog records that it applied.
    records: f64,
    /// Their keys and values.
    bytes: f64,
    /// CPU seconds that it had used when every task had decided.
    cpu_s: f64,
    /// Its largest resident memory by then.
    rss_bytes: u64,
}

/// Everything that was measured.
struct Measured {
    /// Keys and values in the changelog, of how many users, when the load began.
    changelog_bytes: f64,
    users: u64,
    /// The disk was removed.
    empty: Restart,
    /// The disk was left.
    kept: Vec<Restart>,
    pauses: Vec<Pauses>,
    decisions: u64,
    compared: usize,
}

/// A line under load.
struct Bench<'b> {
    run: &'b Run,
    worker: Worker,
    input: &'b str,
    partitions: usize,
    sight: Sight,
    sender: Sender,
    limit: Duration,
}

/// Runs it and prints what was seen, in Markdown.
pub fn measure(kafka: &Kafka, setup: &Setup, args: &Args) -> Result<String> {
    ensure!(setup.partitions > 1, "two workers cannot share one partition");
    let folder = tempfile::tempdir().context("could not make a folder for the rules")?;
    std::fs::write(folder.path().join("rules.yaml"), load::rules())?;
    let setup = Setup { binary: setup.binary.clone(), rules: folder.path().to_owned(), ..*setup };
    let input = unique("bench-recovery");
    kafka.create_topic(&input, setup.partitions, &[("message.timestamp.type", "CreateTime"), ("retention.ms", "-1")])?;
    let mut run = Run::prepare(kafka, &setup, Mode::Keyed, &input, "fired")?;
    run.set("STREAM__SESSION_TIMEOUT", &format!("{}s", SESSION.as_secs()));
    let limit = Duration::from_secs(args.limit);

    let mut traffic = Traffic::default();
    let changelog_bytes = fill(kafka, &run, &input, &mut traffic, args.changelog_mib << 20, limit)?;
    let users = traffic.users;
    eprintln!("{users} users, {changelog_bytes} bytes of changelog");

    // From here on every event gets a decision, which tells when it was processed.
    run.set("DECISIONS__EMIT", "all");
    let mut worker = run.start()?;
    worker.wait_ready(&run.admin, limit)?;
    let sight = Sight::start(kafka, &run.topic("decisions"), setup.partitions)?;
    let sender = Sender::start(kafka, &input, traffic, args.rate)?;
    let first_event = sender.sent.first;
    let mut bench = Bench { run: &run, worker, input: &input, partitions: setup.partitions as usize, sight, sender, limit };
    bench.calm()?;
    let empty = bench.restart(true)?;
    eprintln!("empty disk: {empty:?}");
    let mut kept = Vec::new();
    for _ in 0..args.kills {
        bench.calm()?;
        kept.push(bench.restart(false)?);
        eprintln!("kept disk: {:?}", kept.last());
    }
    let pauses = pause::measure(kafka, &mut bench)?;

    let Bench { worker, sight, sender, .. } = bench;
    let traffic = sender.finish()?;
    let decisions = traffic.made - first_event;
    wait_until(limit, "every event has its decision", || sight.count() as u64 >= decisions)?;
    ensure!(sight.count() as u64 == decisions, "{} decisions about {decisions} events", sight.count());
    let found = replay::by_id(sight.finish()?);
    let expected = replay::decisions(&setup, &traffic.sample, "all")?;
    // What was sent before the load was not decided about, unless something fired, and nothing did.
    let under_load = |id: &str| crate::events::number_of(id).is_some_and(|number| number >= first_event);
    let expected: BTreeMap<_, _> =
        expected.into_iter().filter(|(_, decision)| decision["event_id"].as_str().is_some_and(under_load)).collect();
    ensure!(expected.values().any(fired), "nothing fired among {} sampled decisions: send more (--rate)", expected.len());
    replay::ensure_equal(&found, &expected)?;
    run.clean_up(kafka, worker)?;
    let measured = Measured { changelog_bytes, users, empty, kept, pauses, decisions, compared: expected.len() };
    Ok(table::table(&measured, args.rate, setup.partitions))
}

fn fired(decision: &serde_json::Value) -> bool {
    decision["fired"].as_array().is_some_and(|rules| !rules.is_empty())
}

/// Lets users send until the changelog has this many bytes; answers how many it has.
fn fill(kafka: &Kafka, run: &Run, input: &str, traffic: &mut Traffic, target_bytes: u64, limit: Duration) -> Result<f64> {
    let mut worker = run.start()?;
    worker.wait_ready(&run.admin, limit)?;
    let target = target_bytes as f64;
    let mut wanted = 1_000;
    loop {
        let count = wanted - traffic.users;
        kafka.produce_all(input, traffic.newcomers(count))?;
        let mut metrics = Metrics::default();
        wait_until(limit, "everything is processed", || {
            metrics = Metrics::scrape(&run.admin).unwrap_or_default();
            metrics.sum("tripline_observations_total", &[("outcome", "processed")]) as u64 >= traffic.made
        })
        .with_context(|| worker.log_tail(30))?;
        let bytes = metrics.sum("tripline_changelog_bytes_total", &[]);
        if bytes >= target {
            worker.terminate(Duration::from_secs(60))?;
            return Ok(bytes);
        }
        // A little more than should do, in steps that are processed within the limit.
        let needed = (target / bytes * 1.01 * traffic.users as f64) as u64 + 1;
        wanted = needed.min(traffic.users + 100_000);
    }
}

impl Bench<'_> {
    /// Waits until every task decides in time, and a while longer.
    fn calm(&self) -> Result<()> {
        // Twice: what stands in the input already is worked off before the second.
        for _ in 0..2 {
            self.sight.wait_for_all(Instant::now(), &self.sender.sent, self.limit)?;
        }
        std::thread::sleep(CALM);
        Ok(())
    }

    /// Kills the worker and starts it again, on the disk that it had or on an empty one.
    fn restart(&mut self, empty_disk: bool) -> Result<Restart> {
        let (state, lost) = (self.run.state("bench"), self.run.state("lost"));
        let killed = Instant::now();
        self.worker.kill_9();
        if empty_disk {
            // Gone at once for the worker; removing a gigabyte takes a while.
            std::fs::rename(&state, &lost).with_context(|| format!("could not move {}", state.display()))?;
        }
        self.worker = self.run.start()?;
        self.worker.wait_ready(&self.run.admin, self.limit)?;
        let ready = killed.elapsed();
        let first = self.sight.wait_for_all(killed, &self.sender.sent, self.limit).with_context(|| self.worker.log_tail(30))?;
        let (cpu_s, rss_bytes) = (self.worker.cpu_seconds(), self.worker.peak_rss_bytes());
        let metrics = Metrics::scrape(&self.run.admin)?;
        if empty_disk {
            std::fs::remove_dir_all(&lost).with_context(|| format!("could not remove {}", lost.display()))?;
        }
        let since = |at: Option<&Instant>| at.map_or(Duration::ZERO, |at| at.duration_since(killed));
        Ok(Restart {
            ready,
            first: since(first.values().min()),
            every: since(first.values().max()),
            records: metrics.sum("tripline_restore_records_total", &[]),
            bytes: metrics.sum("tripline_restore_bytes_total", &[]),
            cpu_s,
            rss_bytes,
        })
    }
}
