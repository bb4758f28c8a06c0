//! Overload: a worker with one stated memory budget, and many times more input than it takes.

use crate::worker::{Run, Setup};
use crate::{Args, Mode, replay};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tripline_testkit::overload::{self, Plan, RULES, Target, Traffic};
use tripline_testkit::{Kafka, unique};

const BUDGET_MIB: u64 = 512;
/// Events of each actor before anything is measured, in the mean: six of seven have a state then.
const WARM_UP: u64 = 2;
const DEGRADED_AFTER: Duration = Duration::from_secs(10);
/// Standing still: longer than a transaction may last, shorter than a member may be silent.
const STOP: Duration = Duration::from_secs(20);

/// Runs it and prints what was seen, in Markdown.
pub fn measure(kafka: &Kafka, setup: &Setup, args: &Args) -> Result<String> {
    let folder = tempfile::tempdir().context("could not make a folder for the rules")?;
    std::fs::write(folder.path().join("rules.yaml"), RULES)?;
    let setup = Setup { binary: setup.binary.clone(), rules: folder.path().to_owned(), ..*setup };
    let input = unique("bench-overload");
    kafka.create_topic(&input, setup.partitions, &[("message.timestamp.type", "CreateTime"), ("retention.ms", "-1")])?;
    let mut run = Run::prepare(kafka, &setup, Mode::Routed, &input, "fired")?;
    run.set("MEMORY__BUDGET", &format!("{BUDGET_MIB}MiB"));
    run.set("STREAM__DEGRADED_AFTER", &format!("{}s", DEGRADED_AFTER.as_secs()));
    let mut worker = run.start()?;
    worker.wait_ready(&run.admin, Duration::from_secs(60))?;
    let decisions = run.topic("decisions");
    let mut traffic = Traffic::new(42, u64::from(args.overload_actors));
    let plan = Plan {
        warm_up: WARM_UP * u64::from(args.overload_actors),
        events: args.events,
        factor: 3.0,
        load: Duration::from_secs(args.overload_seconds),
        // Only a broker that is our child can be stopped.
        stop: if kafka.broker_pid().is_some() { STOP } else { Duration::ZERO },
        limit: Duration::from_secs(args.overload_seconds * 10 + args.limit),
    };
    let mut target =
        Target { kafka, worker: &mut worker, admin: &run.admin, input: &input, decisions: &decisions, degraded_after: DEGRADED_AFTER };
    let seen = overload::run(&mut target, &mut traffic, plan)?;
    ensure!(seen.rss_at_the_end_bytes <= BUDGET_MIB << 20, "{} bytes resident of {BUDGET_MIB} MiB", seen.rss_at_the_end_bytes);
    let expected = replay::decisions(&setup, traffic.sample(), "fired")?;
    let found = replay::by_id(seen.sample.iter().map(|record| record.json()).collect::<Result<_>>()?);
    replay::ensure_equal(&found, &expected)?;
    let text = format!(
        "### Overload\n\nThree times the capacity for {} s, {} actors, routed, a budget of {BUDGET_MIB} MiB; the broker stood still for {} s afterwards. {} decisions of sampled actors equal `replay`.\n\n{}\n",
        args.overload_seconds,
        args.overload_actors,
        plan.stop.as_secs(),
        expected.len(),
        overload::table(&seen, BUDGET_MIB << 20)
    );
    run.clean_up(kafka, worker)?;
    Ok(text)
}
