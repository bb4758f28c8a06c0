//! Three times more input than the worker can take, then a broker that stands still: it falls behind, says so, stays inside
//! its memory and its group, and is right in the end. `make bench BENCH=--overload` does the same for long.

use crate::line::{Line, PATIENCE, Setup, by_id};
use anyhow::{Result, ensure};
use std::time::Duration;
use tripline_testkit::Kafka;
use tripline_testkit::overload::{self, Plan, RULES, Target, Traffic};

/// Little more than the least with which a worker starts.
const BUDGET_MIB: u64 = 192;

/// A broker of its own: others would stand still with it.
struct OwnKafka(&'static Kafka);

impl OwnKafka {
    fn start() -> Result<OwnKafka> {
        Ok(OwnKafka(Box::leak(Box::new(Kafka::start()?))))
    }
}

impl Drop for OwnKafka {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[test]
fn overload_and_a_broker_that_stands_still_cost_time_and_nothing_else() -> Result<()> {
    let kafka = OwnKafka::start()?;
    let line = Line::on(kafka.0, &Setup { flags: "{}".into(), ..Setup::routed(4, 4) })?;
    let rules = line.file("rules");
    std::fs::create_dir(&rules)?;
    std::fs::write(rules.join("rules.yaml"), RULES)?;
    let (budget, rules) = (format!("{BUDGET_MIB}MiB"), rules.display().to_string());
    let settings = [
        ("TRIPLINE_RULES__PATH", rules.as_str()),
        ("TRIPLINE_MEMORY__BUDGET", budget.as_str()),
        ("TRIPLINE_STREAM__DEGRADED_AFTER", "2s"),
        ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "5s"),
        ("TRIPLINE_STREAM__SESSION_TIMEOUT", "30s"),
        // Small transactions, so that the lane has to hold its input back.
        ("TRIPLINE_STREAM__MAX_RECORDS", "1000"),
    ];
    let mut running = line.start_with("one", "detect", &settings)?;
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    let decisions = line.topic("decisions");
    let degraded_after = Duration::from_secs(2);
    let mut target = Target {
        kafka: kafka.0,
        worker: &mut running.worker,
        admin: &running.admin,
        input: &line.input,
        decisions: &decisions,
        degraded_after,
    };
    let mut traffic = Traffic::new(7, 20_000);
    let plan = Plan {
        warm_up: 0,
        events: 60_000,
        factor: 3.0,
        load: Duration::from_secs(8),
        stop: Duration::from_secs(8),
        limit: Duration::from_secs(240),
    };
    let seen = overload::run(&mut target, &mut traffic, plan)?;
    eprintln!("{}", overload::table(&seen, BUDGET_MIB << 20));
    let holds = running.metrics()?.sum("tripline_input_holds_total", &[]);
    eprintln!("input was held back {holds} times");
    ensure!(holds > 0.0, "routed work was never waited for");

    ensure!(seen.sent > 1.5 * seen.under_load, "it was not overloaded");
    // How much it does meanwhile is the benchmark's to say: here the load shares the machine with other tests.
    ensure!(seen.degraded > 0 && seen.degraded < seen.decisions, "{} of {} are degraded", seen.degraded, seen.decisions);
    ensure!(seen.rss_at_the_end_bytes <= BUDGET_MIB << 20, "{} bytes resident, {BUDGET_MIB} MiB were promised", seen.rss_at_the_end_bytes);
    let found = by_id(seen.sample.iter().map(|record| record.json()).collect::<Result<_>>()?)?;
    ensure!(found.len() > 20, "the sample is small");
    crate::line::assert_equal(&found, &line.replay_with(traffic.sample(), &rules)?);
    let log = std::fs::read_to_string(running.worker.log())?;
    ensure!(log.contains("memory budget"), "the parts of the budget are told at the start");
    running.stop()
}
