//! A round: a fresh line, faults while traffic flows, quiet, and the check of everything. A run is rounds of bounded length,
//! so that the check stays proportional to the run.

use super::evidence::{self, Checked};
use super::fleet::{EndedByItself, Fleet, MOST_WORKERS, RECOVERS_WITHIN};
use super::inspect::{Inspected, inspect};
use super::nemesis::{self, Struck};
use super::report::Report;
use super::schedule::{Schedule, Step};
use super::traffic::Source;
use crate::kafka::{Kafka, Options};
use crate::line::{Line, Setup};
use crate::proxy::Proxy;
use crate::wait_until;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What the broker says when it ends transactions without their markers: a fault of its own, after which nothing can be judged.
pub const VOID: &str = "likely deleted already and hence can be skipped";

/// Time between two looks at committed offsets: each is a new client.
const POLL_EVERY: Duration = Duration::from_millis(200);

/// The broker of a run, and what stands in front of it.
#[derive(Debug)]
pub struct Stage {
    /// The broker.
    pub kafka: &'static Kafka,
    /// One proxy for each worker's identity; none when nothing happens on the wire.
    pub proxies: Vec<Proxy>,
}

impl Stage {
    /// A broker of our own, with proxies in front of the workers. It lives as long as the process, or until [`Kafka::stop`].
    pub fn with_proxies() -> Result<Stage> {
        let (kafka, proxies) = Proxy::start_several(Options::default(), MOST_WORKERS)?;
        Ok(Stage { kafka: Box::leak(Box::new(kafka)), proxies })
    }
}

/// How a round is played.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The input is keyed by the actor.
    pub keyed: bool,
    /// Workers at the beginning.
    pub workers: usize,
    /// Seed of the traffic.
    pub seed: u64,
    /// Events per second.
    pub rate: u64,
    /// Faults at most.
    pub faults: usize,
    /// No fault begins later.
    pub deadline: Option<Instant>,
}

/// Plays a round and adds it to the report. `tell` hears of every fault.
///
/// # Errors
/// When a process ends that nobody killed, when the line does not recover, and when a record is wrong; the message names the
/// folder where logs and findings were kept.
pub fn run(stage: &Stage, plan: &Plan, schedule: &mut Schedule, report: &mut Report, mut tell: impl FnMut(&Step, &Struck)) -> Result<()> {
    let voids_before = voids(stage.kafka);
    let setup = if plan.keyed { Setup::keyed(4) } else { Setup::routed(2, 4) };
    let tasks = setup.task_partitions + if plan.keyed { 0 } else { setup.input_partitions };
    let bootstrap: Vec<String> = stage.proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    let mut fleet = Fleet::new(Line::on(stage.kafka, &setup)?, tasks as usize, &bootstrap)?;
    let played = play(stage, plan, &mut fleet, schedule, report, &mut tell);
    // Whoever did not come to the end may have failed because of a process that is gone.
    let played = played.map_err(|why| fleet.ensure_alive().err().unwrap_or(why));
    let is_void = voids(stage.kafka) > voids_before;
    if is_void {
        report.void();
    }
    let verdict = match played {
        // What the broker left hanging nobody can go on from: then a process has to say so and end.
        Err(why) if why.downcast_ref::<EndedByItself>().is_some_and(|ended| !(is_void && ended.waited_for_a_hanging_transaction())) => {
            report.ended_by_itself();
            Err(why)
        }
        _ if is_void => Ok(()),
        Err(why) => Err(why),
        Ok(Played { checked, inspected }) => {
            let wipes = fleet.wipes();
            report.checked(&checked, &inspected, wipes.len());
            judge(&fleet, &checked, &inspected, &wipes)
        }
    };
    verdict.map_err(|why| keep(fleet, &why))
}

/// What was found at the end of a round.
struct Played {
    checked: Checked,
    inspected: Inspected,
}

fn play(
    stage: &Stage,
    plan: &Plan,
    fleet: &mut Fleet,
    schedule: &mut Schedule,
    report: &mut Report,
    tell: &mut impl FnMut(&Step, &Struck),
) -> Result<Played> {
    fleet.start_sink("")?;
    for _ in 0..plan.workers.clamp(1, MOST_WORKERS) {
        let name = fleet.free_name().context("every identity is taken")?;
        fleet.start(name, "")?;
    }
    let source = Source::start(&fleet.line, plan.seed, plan.rate)?;
    fleet.wait_at_work().context("at the start")?;
    let mut panics = 0;
    for _ in 0..plan.faults {
        if plan.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        let Some(step) = schedule.next() else { break };
        let struck = nemesis::strike(fleet, &step, &stage.proxies).with_context(|| format!("{step:?}"))?;
        panics += u64::from(struck.panicked);
        report.struck(&step, &struck);
        tell(&step, &struck);
    }
    source.stop()?;
    come_to_rest(fleet)?;
    let checked = evidence::check(&fleet.line, &fleet.pack)?;
    ensure!(checked.panicked <= panics, "{} records were given up as panicked, {panics} were made to panic", checked.panicked);
    Ok(Played { checked, inspected: inspect(fleet)? })
}

/// Everything that was sent is decided and stored, and no worker runs any more.
fn come_to_rest(fleet: &mut Fleet) -> Result<()> {
    reach_ends(fleet, &fleet.line.input)?;
    if !fleet.line.keyed {
        // Ticks go on coming, so the offsets that are waited for are passed.
        reach_ends(fleet, &fleet.line.topic("internal.observations"))?;
    }
    for name in fleet.workers.keys().cloned().collect::<Vec<_>>() {
        fleet.stop(&name)?;
    }
    let line = &fleet.line;
    let is_stored = |decision: &Value| !decision["anomaly_type"].is_null();
    // An event that was sent again may decide again, under the same id: they share a row.
    let id = |record: &crate::OwnedRecord| Some(record.json().ok().filter(is_stored)?["decision_id"].to_string());
    let decided = line.read("decisions")?.iter().filter_map(id).collect::<BTreeSet<_>>().len();
    // What is missing then is the checker's to name.
    let _ = wait_until(RECOVERS_WITHIN, "everything is stored", || evidence::stored(line).is_ok_and(|rows| rows.len() >= decided));
    fleet.ensure_alive()?;
    match fleet.sink.take() {
        Some(sink) => sink.stop(),
        None => Ok(()),
    }
}

/// Waits until the group has committed what stands in a topic now. However slow the machine is, something has to be committed all
/// the time.
fn reach_ends(fleet: &Fleet, topic: &str) -> Result<()> {
    let line = &fleet.line;
    let ends = line.kafka.end_offsets(topic)?;
    let (mut farthest, mut moved) = (-1, Instant::now());
    loop {
        // Unanswered while a commit is pending: then nothing has moved.
        let committed = line.kafka.committed_offsets(&line.app, topic).unwrap_or_default();
        if ends.iter().all(|(partition, end)| *end == 0 || committed.get(partition).is_some_and(|at| at >= end)) {
            return Ok(());
        }
        let through: i64 = ends.iter().map(|(partition, end)| committed.get(partition).map_or(0, |at| *at.min(end))).sum();
        if through > farthest {
            (farthest, moved) = (through, Instant::now());
        }
        ensure!(
            moved.elapsed() < RECOVERS_WITHIN,
            "nothing more of {topic} was committed for {RECOVERS_WITHIN:?}: it ends at {ends:?}, {committed:?} is committed\n{}",
            fleet.tails()
        );
        std::thread::sleep(POLL_EVERY);
    }
}

fn judge(fleet: &Fleet, checked: &Checked, inspected: &Inspected, wipes: &[String]) -> Result<()> {
    let records = checked.violations.iter().map(ToString::to_string);
    let wipes = wipes.iter().map(|wipe| format!("wiped: {wipe}"));
    let wrong: Vec<String> = wipes.chain(inspected.findings.iter().cloned()).chain(records).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    std::fs::write(fleet.line.file("violations.txt"), wrong.join("\n") + "\n")?;
    Err(anyhow!("{} violations:\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n")))
}

/// Keeps what explains a failure: the folder of the line and the broker's log.
fn keep(fleet: Fleet, why: &anyhow::Error) -> anyhow::Error {
    let Fleet { line, workers, sink, watch, .. } = fleet;
    drop((workers, sink, watch));
    if let Some(log) = line.kafka.broker_log() {
        let _ = std::fs::copy(log, line.file("broker.log"));
    }
    let app = line.app.clone();
    let folder: PathBuf = line.folder.keep();
    anyhow!("{why:#}\nlogs and findings of {app}: {}", folder.display())
}

fn voids(kafka: &Kafka) -> usize {
    let log = kafka.broker_log().and_then(|log| std::fs::read_to_string(log).ok());
    log.map_or(0, |log| log.matches(VOID).count())
}
