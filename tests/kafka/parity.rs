//! Promise 2 without faults: what a read_committed consumer sees equals `replay`, in keyed and in routed mode.

use crate::line::{Line, Setup, assert_equal, root};
use anyhow::Result;
use serde_json::Value;

fn golden(case: &str) -> Result<(String, Value)> {
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(root().join("tests/parity/cases.json"))?)?;
    let case = cases.into_iter().find(|c| c["name"] == case).unwrap_or_default();
    let folder = root().join("tests/parity/golden").join(case["name"].as_str().unwrap_or_default());
    Ok((std::fs::read_to_string(folder.join("events.ndjson"))?, case))
}

fn check(case: &str, mut setup: Setup) -> Result<()> {
    let (events, case) = golden(case)?;
    setup.flags = case["flags"].to_string();
    setup.settings = case["settings"].to_string();
    check_events(&events, &setup)
}

fn check_events(events: &str, setup: &Setup) -> Result<()> {
    let line = Line::new(setup)?;
    let expected = line.replay(events)?;
    let produced = line.produce(events.lines())?;
    let running = line.start("one")?;
    line.settle()?;
    let found = line.decisions()?;
    assert_equal(&found, &expected);
    line.assert_stored(&found)?;
    let metrics = running.metrics()?;
    let observations = metrics.sum("tripline_observations_total", &[]);
    assert_eq!(observations as u64, produced, "every record has one outcome");
    assert_eq!(metrics.sum("tripline_decisions_total", &[]) as usize, found.len());
    eprintln!("{produced} events, {} decisions", found.len());
    running.stop()
}

/// Whole traces: those of a folder (`TRIPLINE_PARITY_TRACES`, one `*.ndjson` each), else the golden trace with the most settings.
#[test]
fn whole_traces_equal_replay_in_both_modes() -> Result<()> {
    let Some(folder) = std::env::var_os("TRIPLINE_PARITY_TRACES") else { return check("thresholds", Setup::keyed(4)) };
    // With every event's decision asked for, traces of ordinary traffic have something to compare too.
    let emit_all = std::env::var_os("TRIPLINE_PARITY_EMIT_ALL").is_some();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let events = std::fs::read_to_string(&path)?;
        eprintln!("{}", path.display());
        for setup in [Setup::keyed(4), Setup::routed(1, 4)] {
            check_events(&events, &Setup { emit_all, ..setup })?;
        }
    }
    Ok(())
}

#[test]
fn keyed_with_four_partitions_equals_replay() -> Result<()> {
    check("default", Setup::keyed(4))
}

#[test]
fn routed_from_one_partition_equals_replay() -> Result<()> {
    check("default", Setup::routed(1, 4))
}

#[test]
fn another_pack_setting_through_kafka_equals_replay() -> Result<()> {
    check("profiles", Setup::routed(1, 2))
}

#[test]
fn every_event_has_a_decision_when_all_are_asked_for() -> Result<()> {
    let mut setup = Setup::routed(1, 4);
    setup.emit_all = true;
    let line = Line::new(&setup)?;
    let events = crate::line::generated(3, 3_000)?;
    let running = line.start("one")?;
    line.produce(events.lines())?;
    line.settle()?;
    let found = line.decisions()?;
    assert_equal(&found, &line.replay(&events)?);
    line.assert_stored(&found)?;
    running.stop()
}
