//! Promises 2 and 3 under faults: whatever is killed and when, decisions equal `replay`, none twice, no state wiped.

use crate::line::{Line, PATIENCE, Setup, assert_equal, generated};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use tripline_testkit::wait_until;

/// Kills in one test; the evidence run sets more.
fn kills() -> u64 {
    std::env::var("TRIPLINE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

/// A small generator of choices: a run is a function of its seed.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn killed_at_random(setup: &Setup, mut seed: u64) -> Result<()> {
    let line = Line::new(setup)?;
    let kills = kills();
    let events = generated(seed, 3_000 * kills as usize)?;
    let lines: Vec<&str> = events.lines().collect();
    let chunk = lines.len() / kills as usize;
    let mut slowest = Duration::ZERO;
    for part in lines.chunks(chunk.max(1)) {
        let before = line.read("decisions")?.len();
        let started = Instant::now();
        let mut running = line.start_with("one", "detect,sink", &[("TRIPLINE_STATE__WRITE_INTERVAL", "200ms")])?;
        line.produce(part.iter().copied())?;
        // Killed at any moment after the first new decision: inside a transaction, a store write, a sink batch.
        wait_until(PATIENCE, "a new decision after a restart", || line.read("decisions").is_ok_and(|d| d.len() > before))?;
        slowest = slowest.max(started.elapsed());
        std::thread::sleep(Duration::from_millis(next(&mut seed) % 400));
        ensure!(running.worker.exit_status().is_none(), "the worker ended by itself:\n{}", running.worker.log_tail(20));
        running.worker.kill_9();
    }
    eprintln!("{kills} kills, slowest first new decision after a restart: {slowest:?}");
    let running = line.start("one")?;
    line.settle()?;
    let found = line.decisions()?;
    assert_equal(&found, &line.replay(&events)?);
    line.assert_stored(&found)?;
    let log = std::fs::read_to_string(line.file("one.log"))?;
    ensure!(!log.contains("rebuilt from the changelog"), "the state was wiped");
    running.stop()
}

#[test]
fn random_kills_in_keyed_mode_change_nothing() -> Result<()> {
    killed_at_random(&Setup::keyed(4), 11)
}

#[test]
fn random_kills_in_routed_mode_change_nothing() -> Result<()> {
    killed_at_random(&Setup::routed(1, 4), 12)
}

/// Each step of the commit protocol, killed or refused right there.
#[test]
fn a_fault_at_any_step_of_a_commit_changes_nothing() -> Result<()> {
    let line = Line::new(&Setup::routed(1, 2))?;
    let faults = [
        "after_begin=kill@3",
        "after_changelog=kill@3",
        "after_drain=kill@3",
        "after_send_offsets=kill@3",
        "after_commit=kill@3",
        "after_apply=kill@3",
        "before_store_write=kill@2",
        "after_store_write=kill@2",
        "before_seal=abort@3,after_drain=abort@5,after_send_offsets=abort@7",
        "after_changelog=doubt@3,after_send_offsets=doubt@5,after_commit=doubt@7",
    ];
    let events = generated(21, 600 * faults.len())?;
    let lines: Vec<&str> = events.lines().collect();
    for (part, fault) in lines.chunks(600).zip(faults) {
        let more = [("TRIPLINE_FAILPOINTS", fault), ("TRIPLINE_STATE__WRITE_INTERVAL", "100ms")];
        let mut running = line.start_with("one", "detect,sink", &more)?;
        let kills = fault.contains("kill");
        // In small pieces, so that there are several transactions.
        for piece in part.chunks(60) {
            line.produce(piece.iter().copied())?;
            std::thread::sleep(Duration::from_millis(60));
        }
        if kills {
            wait_until(PATIENCE, fault, || running.worker.exit_status().is_some())?;
        } else {
            line.settle()?;
            ensure!(running.worker.exit_status().is_none(), "{fault}: the worker ended:\n{}", running.worker.log_tail(20));
            running.stop()?;
        }
    }
    let running = line.start("one")?;
    line.settle()?;
    let found = line.decisions()?;
    assert_equal(&found, &line.replay(&events)?);
    line.assert_stored(&found)?;
    running.stop()
}

#[test]
fn a_stop_is_graceful_and_quick_under_load() -> Result<()> {
    let line = Line::new(&Setup::keyed(2))?;
    let events = generated(31, 20_000)?;
    let running = line.start("one")?;
    line.produce(events.lines())?;
    let started = Instant::now();
    running.stop()?;
    ensure!(started.elapsed() < Duration::from_secs(10), "the stop took {:?}", started.elapsed());
    let running = line.start("one")?;
    line.settle()?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    running.stop()
}
