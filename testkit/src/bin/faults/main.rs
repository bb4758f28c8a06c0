//! `make faults`: proves on a real Kafka that nothing is lost and nothing comes twice, whatever is killed and when.
//!
//! `docs/faults.md` says what it does and how to read its report.

use anyhow::{Result, ensure};
use clap::Parser;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tripline_testkit::Kafka;
use tripline_testkit::faults::fleet::MOST_WORKERS;
use tripline_testkit::faults::report::Report;
use tripline_testkit::faults::round::{self, Plan, Stage};
use tripline_testkit::faults::schedule::{Fault, POINTS, Schedule};

/// The exit code of a run in which nothing was judged.
const SHOWN_NOTHING: u8 = 2;

/// Runs faults against the tripline workers and compares what a consumer sees with the pure engine.
#[derive(Debug, Parser)]
struct Args {
    /// Seed of every choice [default: drawn, and printed]
    #[arg(long)]
    seed: Option<u64>,
    /// So many kills, as fast as they come
    #[arg(long, conflicts_with_all = ["minutes", "scenario"])]
    kills: Option<u64>,
    /// Faults of every kind for so long
    #[arg(long, conflicts_with = "scenario")]
    minutes: Option<u64>,
    /// One kind of fault again and again; `list` names them
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// With --scenario fail-point: this point alone
    #[arg(long, value_name = "POINT", requires = "scenario", value_parser = POINTS)]
    point: Option<String>,
    /// How often, with --scenario
    #[arg(long, default_value_t = 10)]
    times: u64,
    /// The input is keyed by the actor; otherwise it is routed
    #[arg(long)]
    keyed: bool,
    /// Workers at the beginning [default: 1 with --kills, else 2]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MOST_WORKERS as u64))]
    workers: Option<u64>,
    /// Events per second
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Faults until the line is made anew and checked
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    round: u64,
    /// Write the report to this file too
    #[arg(long)]
    out: Option<std::path::PathBuf>,
}

/// What a run does.
struct Run {
    seed: u64,
    schedule: Schedule,
    /// Faults at most.
    faults: u64,
    deadline: Option<Instant>,
    workers: u64,
    is_on_the_wire: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.scenario.as_deref() == Some("list") {
        Fault::ALL.iter().for_each(|fault| println!("{}", fault.name()));
        return ExitCode::SUCCESS;
    }
    match faults(&args) {
        Ok(report) if report.is_judged() => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("\nnothing was shown: the broker made every round void, so none was judged; run it again");
            ExitCode::from(SHOWN_NOTHING)
        }
        Err(why) => {
            eprintln!("\nfailed: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn plan(args: &Args) -> Result<Run> {
    let seed = args.seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos().into());
    let run = |schedule, faults, minutes: Option<u64>, workers, is_on_the_wire| Run {
        seed,
        schedule,
        faults,
        deadline: minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60)),
        workers: args.workers.unwrap_or(workers),
        is_on_the_wire,
    };
    if let Some(name) = &args.scenario {
        let Some(fault) = Fault::named(name) else { anyhow::bail!("there is no scenario {name}: --scenario list names them") };
        if let Some(why) = fault.obstacle() {
            anyhow::bail!("{name} cannot be done here: {why}");
        }
        let point = POINTS.into_iter().find(|known| args.point.as_deref() == Some(*known));
        let schedule = Schedule::mixed(seed, &[fault]);
        let schedule = if let Some(point) = point { schedule.at_point(point) } else { schedule };
        return Ok(run(schedule, args.times, None, 2, fault.is_on_the_wire()));
    }
    if let Some(minutes) = args.minutes {
        let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| fault.obstacle().is_none()).collect();
        return Ok(run(Schedule::mixed(seed, &faults), u64::MAX, Some(minutes), 2, true));
    }
    Ok(run(Schedule::kills(seed), args.kills.unwrap_or(20), None, 1, false))
}

fn faults(args: &Args) -> Result<Report> {
    let mut run = plan(args)?;
    let mode = if args.keyed { "keyed" } else { "routed" };
    eprintln!("seed {}, {mode}, {} workers", run.seed, run.workers);
    let stage = if run.is_on_the_wire {
        Stage::with_proxies()?
    } else {
        Stage { kafka: Box::leak(Box::new(Kafka::start()?)), proxies: Vec::new() }
    };
    let mut report = Report::default();
    if args.minutes.is_some() {
        Fault::ALL.into_iter().filter_map(|fault| Some((fault, fault.obstacle()?))).for_each(|(fault, why)| report.left_out(fault, why));
    }
    let outcome = rounds(args, &mut run, &stage, &mut report);
    let text = format!(
        "seed {}, {mode}, {} workers at the beginning, {} events per second\n\n{}",
        run.seed,
        run.workers,
        args.rate,
        report.markdown()
    );
    println!("{text}");
    if let Some(file) = &args.out {
        std::fs::write(file, &text)?;
    }
    stage.kafka.stop();
    outcome?;
    ensure!(report.is_clean(), "the promise is broken");
    Ok(report)
}

fn rounds(args: &Args, run: &mut Run, stage: &Stage, report: &mut Report) -> Result<()> {
    let began = Instant::now();
    let (mut done, mut number) = (0, 0);
    while done < run.faults && run.deadline.is_none_or(|deadline| Instant::now() < deadline) {
        let faults = (run.faults - done).min(args.round) as usize;
        let plan = Plan {
            keyed: args.keyed,
            workers: run.workers as usize,
            seed: run.seed.wrapping_add(number),
            rate: args.rate,
            faults,
            deadline: run.deadline,
        };
        round::run(stage, &plan, &mut run.schedule, report, |step, struck| {
            let back = struck.back_after.map(|back| format!(", next decision after {:.2} s", back.as_secs_f64())).unwrap_or_default();
            eprintln!("{:7.1} s  {} {}{back}", began.elapsed().as_secs_f64(), step.fault.name(), step.point);
        })?;
        (done, number) = (done + faults as u64, number + 1);
        eprintln!("{:7.1} s  round {number} checked: {} faults so far", began.elapsed().as_secs_f64(), report.faults());
    }
    Ok(())
}
