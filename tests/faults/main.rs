//! Promises 2, 3 and 5 under faults, the quick form of `make faults`: what a read_committed consumer sees in every topic, and what
//! the event store holds, is what the pure engine makes of the records that were appended. Nothing lost, twice, invented,
//! changed or out of order; no state wiped.

use anyhow::Result;
use tripline::stream::failpoints::Point;
use tripline_testkit::Kafka;
use tripline_testkit::faults::report::Report;
use tripline_testkit::faults::round::{self, Plan, Stage};
use tripline_testkit::faults::schedule::{Fault, POINTS, Schedule};

fn check(keyed: bool, workers: usize, schedule: Schedule, faults: usize) -> Result<Report> {
    let stage = Stage { kafka: Kafka::shared(), proxies: Vec::new() };
    check_on(&stage, keyed, workers, schedule, faults)
}

fn check_on(stage: &Stage, keyed: bool, workers: usize, mut schedule: Schedule, faults: usize) -> Result<Report> {
    let plan = Plan { keyed, workers, seed: 17, rate: 120, faults, deadline: None };
    let mut report = Report::default();
    round::run(stage, &plan, &mut schedule, &mut report, |step, struck| eprintln!("{} {} {struck:?}", step.fault.name(), step.point))?;
    eprintln!("{}", report.markdown());
    assert!(report.is_clean() && report.faults() == faults as u64);
    for topic in ["decisions", "alerts", "standing", "shadow", "late", "dead-letters", "event store"] {
        assert!(report.compared(topic) > 0, "nothing was compared in {topic}");
    }
    Ok(report)
}

#[test]
fn every_point_of_the_commit_is_known_to_the_harness() {
    assert_eq!(Point::ALL.map(Point::name), POINTS);
}
