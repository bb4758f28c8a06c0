//! Promise 5: several owners, one after the other and at the same time; the work of two never both becomes visible.

use crate::line::{Line, PATIENCE, Setup, assert_equal, generated};
use anyhow::Result;
use std::time::Duration;
use tripline_testkit::wait_until;

const QUICK: [(&str, &str); 2] = [("TRIPLINE_STREAM__SESSION_TIMEOUT", "6s"), ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "3s")];

fn owned(running: &crate::line::Running) -> f64 {
    running.metrics().map(|m| m.sum("tripline_tasks", &[("state", "running")])).unwrap_or(0.0)
}

#[test]
fn workers_join_leave_die_and_freeze_without_a_trace_in_the_decisions() -> Result<()> {
    let line = Line::new(&Setup::keyed(4))?;
    let events = generated(61, 12_000)?;
    let lines: Vec<&str> = events.lines().collect();
    let mut parts = lines.chunks(lines.len() / 4 + 1);
    let mut produce = || line.produce(parts.next().unwrap_or_default().iter().copied());

    let mut one = line.start_with("one", "detect,sink", &QUICK)?;
    one.worker.wait_ready(&one.admin, PATIENCE)?;
    produce()?;
    let mut two = line.start_with("two", "detect", &QUICK)?;
    wait_until(PATIENCE, "the second worker has a share", || owned(&two) >= 2.0 && owned(&one) <= 2.0)?;
    produce()?;
    // Dies without a word: its share goes to the other one after the session's time.
    two.worker.kill_9();
    wait_until(PATIENCE, "the first worker has it all", || owned(&one) >= 4.0)?;
    produce()?;
    // Freezes past its session, is replaced, and wakes up with a transaction of its own open.
    let mut two = line.start_with("two", "detect", &QUICK)?;
    wait_until(PATIENCE, "the second worker has a share again", || owned(&two) >= 2.0)?;
    produce()?;
    two.worker.process().signal(libc::SIGSTOP);
    wait_until(PATIENCE, "the first worker has it all again", || owned(&one) >= 4.0)?;
    two.worker.process().signal(libc::SIGCONT);
    wait_until(PATIENCE, "the second worker is back", || owned(&two) >= 2.0)?;
    line.settle()?;
    let found = line.decisions()?;
    assert_equal(&found, &line.replay(&events)?);
    line.assert_stored(&found)?;
    std::thread::sleep(Duration::from_millis(200));
    two.stop()?;
    one.stop()
}

#[test]
fn two_lanes_of_one_process_share_the_tasks() -> Result<()> {
    let line = Line::new(&Setup::routed(2, 4))?;
    let mut running = line.start_with("one", "detect,sink", &[("TRIPLINE_STREAM__LANES", "2")])?;
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    wait_until(PATIENCE, "both lanes have tasks", || {
        running.metrics().is_ok_and(|m| m.by_label("tripline_tasks", "lane").values().filter(|n| **n > 0.0).count() == 2)
    })?;
    let produced = line.produce(generated(62, 4_000)?.lines())?;
    line.settle()?;
    let metrics = running.metrics()?;
    assert_eq!(metrics.sum("tripline_observations_total", &[]) as u64, produced);
    let found = line.decisions()?;
    assert!(!found.is_empty());
    line.assert_stored(&found)?;
    running.stop()
}
