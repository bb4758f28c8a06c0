//! `make demo`: the whole line at work on a real Kafka, in about a minute.
//!
//! Starts a broker, creates the topics, runs `tripline run` with every role, sends seeded traffic with attacks in it, watches
//! the numbers, and then shows what was decided, why, and that every record is accounted for. Ends by itself and leaves no
//! process behind; anything that does not add up is a failure with the worker's last log lines.

mod interrupt;
mod paint;
mod report;
mod stage;
mod watch;

use anyhow::{Result, anyhow, ensure};
use paint::{note, step};
use report::Counts;
use stage::Stage;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tripline_testkit::worker::tail;
use tripline_testkit::{Kafka, Worker};

/// Valid events, and records on top of them that are no events.
const EVENTS: u64 = 20_000;
const MALFORMED: u64 = 12;
const RATE: u64 = 2_000;

const READY_WITHIN: Duration = Duration::from_secs(30);
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    interrupt::listen();
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::happened() => {
            eprintln!("\ninterrupted: everything is stopped");
            ExitCode::from(130)
        }
        Err(why) => {
            eprintln!("\n{} {why:#}", paint::bad("demo failed:"));
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let began = Instant::now();
    step("Kafka", "starting …");
    let kafka = Kafka::start()?;
    step("Kafka", &kafka.origin());
    interrupt::check()?;

    let stage = Stage::set(&kafka)?;
    stage.create_topics(&kafka)?;
    step("topics", &format!("{} and {} for the app, the rest by `tripline topics apply`", stage.requests, stage.events));
    interrupt::check()?;

    let mut worker = stage.start_worker()?;
    worker.wait_ready(&stage.admin, READY_WITHIN)?;
    step("worker", &format!("tripline run, every role, ready after {:.1} s", began.elapsed().as_secs_f64()));

    let outcome = show(&kafka, &stage, &mut worker);
    let stopped = worker.terminate(STOPPED_WITHIN);
    let outcome = outcome.map_err(|why| anyhow!("{why:#}\n\nlast lines of {}:\n{}", worker.log().display(), worker.log_tail(20)));
    outcome?;
    let status = stopped?;
    ensure!(status.success(), "the worker ended with {status}:\n{}", worker.log_tail(20));
    step("done", &format!("in {:.0} s; worker and broker are stopped", began.elapsed().as_secs_f64()));
    stage.say_where_to_look_next();
    Ok(())
}

/// Traffic in, numbers while it flows, then what came of it.
fn show(kafka: &Kafka, stage: &Stage, worker: &mut Worker) -> Result<()> {
    step("traffic", &format!("{EVENTS} events at {RATE}/s, attacks among them, and {MALFORMED} records that are no events"));
    let mut generator = stage.start_generator(EVENTS, MALFORMED, RATE)?;
    watch::until_sent(&stage.admin, worker, &mut generator)
        .map_err(|why| anyhow!("{why:#}\n\nlast lines of {}:\n{}", stage.generator_log().display(), tail(&stage.generator_log(), 10)))?;
    let counts = settle(kafka, stage, worker)?;
    report::decisions(kafka, stage)?;
    report::counts(&counts);
    Ok(())
}

/// Waits until everything that went in is accounted for at every stage.
fn settle(kafka: &Kafka, stage: &Stage, worker: &mut Worker) -> Result<Counts> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        interrupt::check()?;
        ensure!(worker.exit_status().is_none(), "the worker ended");
        let counts = Counts::take(kafka, stage)?;
        match counts.mismatch(EVENTS + MALFORMED) {
            None => return Ok(counts),
            Some(what) if Instant::now() >= deadline => {
                report::counts(&counts);
                anyhow::bail!("{SETTLED_WITHIN:?} after the last event the counts do not add up: {what}");
            }
            Some(what) => note(&format!("waiting: {what}")),
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
