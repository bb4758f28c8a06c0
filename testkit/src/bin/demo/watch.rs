//! The numbers while the traffic flows, from the worker's own `/metrics`.

use crate::interrupt;
use crate::paint::{end_notes, note, on_terminal, thousands};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};
use tripline_testkit::{Metrics, Process, Worker};

/// Records in, by outcome.
pub const INPUT: &str = "tripline_input_records_total";
/// Observations, by outcome.
pub const OBSERVATIONS: &str = "tripline_observations_total";
/// Decisions, by type.
pub const DECISIONS: &str = "tripline_decisions_total";
/// Decisions at the event store, by outcome.
pub const SINK: &str = "tripline_sink_records_total";
/// From sealing a transaction to the broker's answer.
const COMMIT: &str = "tripline_commit_seconds";

const SENT_WITHIN: Duration = Duration::from_secs(60);

/// Shows a line of numbers until the generator has sent everything.
pub fn until_sent(admin: &str, worker: &mut Worker, generator: &mut Process) -> Result<()> {
    let began = Instant::now();
    let every = Duration::from_millis(if on_terminal() { 500 } else { 2500 });
    let mut before = (Instant::now(), 0.0);
    let mut shown = Instant::now();
    let status = loop {
        interrupt::check()?;
        ensure!(worker.exit_status().is_none(), "the worker ended while traffic was flowing");
        if let Some(status) = generator.exit_status() {
            break status;
        }
        if began.elapsed() > SENT_WITHIN {
            bail!("the traffic was not sent within {SENT_WITHIN:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
        if shown.elapsed() >= every {
            let metrics = Metrics::scrape(admin)?;
            let now = (Instant::now(), metrics.sum(INPUT, &[]));
            let per_second = (now.1 - before.1) / (now.0 - before.0).as_secs_f64();
            note(&line(&metrics, began.elapsed(), per_second));
            (before, shown) = (now, Instant::now());
        }
    };
    end_notes();
    ensure!(status.success(), "`tripline generate` ended with {status}");
    Ok(())
}

fn line(metrics: &Metrics, elapsed: Duration, per_second: f64) -> String {
    let count = |name: &str, labels: &[(&str, &str)]| thousands(metrics.sum(name, labels) as u64);
    let mut text = format!(
        "{:>4.1} s  in {} ({}/s)  processed {}  dead-lettered {}  decisions {}  stored {}",
        elapsed.as_secs_f64(),
        count(INPUT, &[]),
        thousands(per_second.max(0.0) as u64),
        count(OBSERVATIONS, &[("outcome", "processed")]),
        count(INPUT, &[("outcome", "dead_lettered")]),
        count(DECISIONS, &[]),
        count(SINK, &[("outcome", "stored")]),
    );
    if let Some(seconds) = metrics.quantile(COMMIT, 0.5).filter(|seconds| seconds.is_finite()) {
        text.push_str(&format!("  commit p50 ≤ {:.0} ms", seconds * 1000.0));
    }
    text
}
