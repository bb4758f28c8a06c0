//! Throughput: a topic filled beforehand, a fresh worker, from its start until its committed offsets reach the end.

use crate::Mode;
use crate::cluster::{Offsets, Probe, data_folder, segment_bytes};
use crate::instructions::Counter;
use crate::worker::{Run, Setup};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};
use tripline_testkit::{Kafka, process};

/// What one run gave.
#[derive(Debug, Clone)]
pub struct Drained {
    /// Events in the topic.
    pub events: u64,
    /// User and system time of the worker, its start included.
    pub cpu_s: f64,
    /// Events per second of wall time after the first commit.
    pub events_per_s: f64,
    /// Largest resident memory of the worker.
    pub rss_bytes: u64,
    /// The broker's CPU time meanwhile, if it is our child.
    pub broker_cpu_s: Option<f64>,
    /// CPU time of everything else on the machine: a run with much of it is disturbed.
    pub other_cpu_s: f64,
    /// Instructions in user space, where they are counted.
    pub instructions: Option<u64>,
    /// Keys and values in the changelog.
    pub changelog_bytes: u64,
    /// The changelog's segments, compressed.
    pub changelog_disk_bytes: Option<u64>,
    /// Decisions made.
    pub decisions: u64,
}

/// Drains the topic once.
pub fn drain(kafka: &Kafka, setup: &Setup, mode: Mode, input: &str, emit: &str, limit: Duration) -> Result<Drained> {
    let run = Run::prepare(kafka, setup, mode, input, emit)?;
    let probe = Probe::new(kafka, &run.app)?;
    let ends = probe.ends(input)?;
    let events = ends.values().sum::<i64>() as u64;
    let broker_cpu = || kafka.broker_pid().and_then(process::cpu_seconds);
    let (broker_before, machine_before, started) = (broker_cpu(), machine_cpu_seconds(), Instant::now());
    let mut worker = run.start()?;
    let counter = Counter::start(worker.id());
    let mut first: Option<(Instant, u64)> = None;
    // The keyed topic: where the detectors read. In routed mode its end is known once all input has been routed.
    let mut observed: Option<Offsets> = None;
    loop {
        std::thread::sleep(Duration::from_millis(20));
        if let Some(status) = worker.exit_status() {
            bail!("the worker ended ({status}):\n{}", worker.log_tail(30));
        }
        ensure!(started.elapsed() < limit, "not drained within {limit:?}; the worker's last lines:\n{}", worker.log_tail(30));
        let committed = probe.committed(input, &ends)?;
        let done = committed.values().sum::<i64>() as u64;
        if first.is_none() && done > 0 {
            first = Some((Instant::now(), done));
        }
        if !reached(&committed, &ends) {
            continue;
        }
        if mode == Mode::Keyed {
            break;
        }
        let topic = run.topic("internal.observations");
        let target = match &observed {
            Some(target) => target,
            None => observed.insert(probe.after_last_record(&topic)?),
        };
        if reached(&probe.committed(&topic, target)?, target) {
            break;
        }
    }
    let (cpu_s, rss_bytes, finished) = (worker.cpu_seconds(), worker.peak_rss_bytes(), Instant::now());
    let broker_cpu_s = broker_cpu().zip(broker_before).map(|(after, before)| after - before);
    let other_cpu_s = machine_cpu_seconds() - machine_before - cpu_s - broker_cpu_s.unwrap_or(0.0);
    let instructions = counter.and_then(Counter::stop);
    let (first_at, first_done) = first.unwrap_or((started, 0));
    let changelog = run.topic("internal.changelog");
    let result = Drained {
        events,
        cpu_s,
        events_per_s: (events - first_done) as f64 / finished.duration_since(first_at).as_secs_f64().max(1e-3),
        rss_bytes,
        broker_cpu_s,
        other_cpu_s,
        instructions,
        changelog_bytes: probe.size(&changelog)?.bytes,
        changelog_disk_bytes: data_folder(kafka).map(|data| segment_bytes(&data, &changelog)).transpose()?,
        decisions: probe.size(&run.topic("decisions"))?.records,
    };
    run.clean_up(kafka, worker)?;
    Ok(result)
}

fn reached(committed: &Offsets, target: &Offsets) -> bool {
    target.iter().all(|(partition, end)| committed.get(partition).copied().unwrap_or(0) >= *end)
}

/// CPU seconds that everything on this machine has used (idle and waiting for disks left out).
fn machine_cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<f64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    // Linux counts these in hundredths of a second on every platform it supports (USER_HZ).
    (ticks.iter().sum::<f64>() - idle) / 100.0
}
