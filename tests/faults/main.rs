//! Promises 2, 3 and 5 under faults, the quick form of `make faults`: what a read_committed consumer sees in every topic, and what
//! the event store holds, is what the pure engine makes of the records that were appended. Nothing lost, twice, invented,
//! changed or out of order; no state wiped, nothing for `tripline audit` or `tripline state verify` to find.

use anyhow::Result;
use tripline::stream::failpoints::Point;
use tripline_testkit::Kafka;
use tripline_testkit::faults::report::Report;
use tripline_testkit::faults::round::{self, Plan, Stage};
use tripline_testkit::faults::schedule::{Fault, POINTS, Schedule};

fn check(keyed: bool, mut schedule: Schedule, faults: usize) -> Result<Report> {
    let stage = Stage { kafka: Kafka::shared(), proxies: Vec::new() };
    let plan = Plan { keyed, workers: 1, seed: 17, rate: 80, faults, deadline: None };
    let mut report = Report::default();
    round::run(&stage, &plan, &mut schedule, &mut report, |step, struck| eprintln!("{} {} {struck:?}", step.fault.name(), step.point))?;
    eprintln!("{}", report.markdown());
    assert!(report.is_clean() && report.faults() == faults as u64);
    for topic in ["decisions", "alerts", "standing", "shadow", "late", "dead-letters", "event store"] {
        assert!(report.compared(topic) > 0, "nothing was compared in {topic}");
    }
    Ok(report)
}

fn in_turn(keyed: bool, seed: u64, faults: &[Fault]) -> Result<()> {
    check(keyed, Schedule::in_turn(seed, faults), faults.len()).map(drop)
}

#[test]
fn every_point_of_the_commit_is_known_to_the_harness() {
    // Growing is a verb's business, and killed by its own test.
    let of_workers = Point::ALL.into_iter().filter(|point| *point != Point::AfterGrowth).map(Point::name);
    assert!(of_workers.eq(POINTS));
}

#[test]
fn kills_at_any_moment_and_at_fail_points_leave_no_trace() -> Result<()> {
    check(false, Schedule::kills(5), 5).map(drop)
}

#[test]
fn a_keyed_line_survives_panics_lost_disks_new_rules_and_killed_sinks() -> Result<()> {
    in_turn(true, 6, &[Fault::Panic, Fault::LoseDisk, Fault::ChangeRules, Fault::FreezeSink, Fault::KillSink, Fault::StopInRestore])
}

#[test]
fn workers_join_freeze_wake_and_leave_while_rules_change() -> Result<()> {
    in_turn(false, 7, &[Fault::Join, Fault::Join, Fault::Zombie, Fault::ChangeRules, Fault::Leave])
}
