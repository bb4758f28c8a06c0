//! Does a fault to a fleet, and waits until the line is at work again: a run that goes on without recovering has failed.

use super::clock::Clock;
use super::fleet::{Fleet, RECOVERS_WITHIN, SESSION, SINK_SESSION, TRANSACTION};
use super::pack::VARIANTS;
use super::pauses;
use super::schedule::{Fault, Step};
use crate::proxy::{Api, Fate, Proxy};
use crate::wait_until;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tripline_core::time::parse_rfc3339_ms;

/// What a worker says while it looks at its tasks after an assignment.
const ASSIGNED: &str = "partitions assigned";
/// An armed point that is not reached within this is reported: nothing would be tested.
const POINT_WITHIN: Duration = Duration::from_secs(60);
/// Delay of every frame while the network is slow.
const SLOW: Duration = Duration::from_millis(40);
/// How far a clock jumps, ahead and back behind.
const JUMP_SECONDS: i64 = 3_600;
/// A clock that is so near to where it was put has jumped.
const JUMPED_MS: i64 = 60_000;
/// A worker that is at work says something several times a second.
const JUMPS_WITHIN: Duration = Duration::from_secs(20);

/// What a fault did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Struck {
    /// From the kill to the next decision that a read_committed consumer saw: same identity, same disk, no other worker.
    pub back_after: Option<Duration>,
    /// The longest pause of each task that stayed where it was, while one worker was struck.
    pub pauses: Vec<Duration>,
    /// The record under evaluation was made to panic.
    pub panicked: bool,
    /// The broker was killed.
    pub broker_killed: bool,
}

/// Does one fault. `proxies`: one in front of each worker, for faults on the wire.
pub fn strike(fleet: &mut Fleet, step: &Step, proxies: &[Proxy]) -> Result<Struck> {
    let mut struck = Struck::default();
    // At any moment, not at the one that we noticed.
    std::thread::sleep(Duration::from_millis(step.after_ms));
    fleet.ensure_alive()?;
    let mut name = fleet.name_of(step.who)?;
    if needs_a_store(step) {
        name = with_a_store(fleet, &name)?;
    }
    let (began, workers, starts) = (Instant::now(), fleet.workers.len(), fleet.starts());
    match step.fault {
        Fault::KillWorker => struck.back_after = kill(fleet, &name)?,
        Fault::KillSink => {
            fleet.kill_sink()?;
            fleet.start_sink("")?;
        }
        Fault::FreezeSink => freeze_sink(fleet, SINK_SESSION + Duration::from_millis(500 + step.extra_ms))?,
        Fault::ClockJump => clock_jump(fleet, &name, Duration::from_millis(500 + step.extra_ms / 2))?,
        Fault::FailPoint => struck.back_after = fail_point(fleet, &name, &step.point)?,
        Fault::Panic => {
            panic_in_a_record(fleet, &name, step.extra_ms)?;
            struck.panicked = true;
        }
        Fault::Freeze => freeze(fleet, &name, TRANSACTION + Duration::from_millis(500 + step.extra_ms / 2))?,
        Fault::Zombie => zombie(fleet, &name)?,
        Fault::Join => join(fleet)?,
        Fault::Leave => leave(fleet, &name)?,
        Fault::StopInRestore => stop_in_restore(fleet, &name, step.extra_ms)?,
        Fault::LoseDisk => {
            fleet.kill(&name)?;
            fleet.lose_disk(&name)?;
            fleet.start(&name, "")?;
        }
        Fault::ChangeRules => change_rules(fleet)?,
        // Every third time longer than any session lasts.
        Fault::PauseBroker if step.who.is_multiple_of(3) => pause_broker(fleet, SINK_SESSION + Duration::from_millis(step.extra_ms))?,
        Fault::PauseBroker => pause_broker(fleet, Duration::from_millis(500 + 2 * step.extra_ms))?,
        Fault::KillBroker => {
            fleet.line.kafka.kill_9()?;
            let is_long = step.who.is_multiple_of(3);
            std::thread::sleep(Duration::from_millis(step.extra_ms) + if is_long { SINK_SESSION } else { Duration::ZERO });
            fleet.line.kafka.restart()?;
            struck.broker_killed = true;
        }
        wire => on_the_wire(
            wire,
            fleet.place_of(&name).and_then(|place| proxies.get(place)).context("no proxy stands in front of the worker")?,
            step.extra_ms,
        )?,
    }
    fleet.wait_at_work().with_context(|| format!("after {} {}", step.fault.name(), step.point))?;
    struck.pauses = pauses::of_the_unaffected(step, workers, (&starts, &fleet.starts()), &fleet.watch, began);
    Ok(struck)
}

/// Kills a worker and starts it again; how long until the next decision, if nobody else could have made it.
fn kill(fleet: &mut Fleet, name: &str) -> Result<Option<Duration>> {
    let killed = Instant::now();
    fleet.kill(name)?;
    come_back(fleet, name, killed)
}

fn come_back(fleet: &mut Fleet, name: &str, killed: Instant) -> Result<Option<Duration>> {
    let alone = fleet.workers.is_empty();
    let mark = if alone { Some(fleet.mark()?) } else { None };
    fleet.start(name, "")?;
    let Some(mark) = mark else { return Ok(None) };
    let next = fleet.watch.next_after(&mark, Instant::now() + RECOVERS_WITHIN).context("after a kill")?;
    Ok(Some(next.saturating_duration_since(killed)))
}

/// Longer than a session: what it had under way belongs to nobody when it wakes, and comes again.
fn freeze_sink(fleet: &mut Fleet, time: Duration) -> Result<()> {
    let sink = fleet.sink.as_mut().context("no sink runs")?;
    sink.worker.process().signal(libc::SIGSTOP);
    std::thread::sleep(time);
    sink.worker.process().signal(libc::SIGCONT);
    Ok(())
}

/// The wall clock of a worker is set an hour ahead, then an hour behind, then right while the worker is at work, which its log has to
/// show.
fn clock_jump(fleet: &mut Fleet, name: &str, time: Duration) -> Result<()> {
    let clock = Clock::new(fleet.line.file(&format!("clock-{name}")))?;
    fleet.stop(name)?;
    fleet.start_with_clock(name, &clock)?;
    fleet.wait_at_work().context("before the clock jumps")?;
    for ahead in [JUMP_SECONDS, -JUMP_SECONDS, 0] {
        clock.set(ahead)?;
        let what = format!("the clock of {name} is {ahead} s ahead");
        wait_until(JUMPS_WITHIN, &what, || ahead_ms(fleet, name).is_some_and(|ms| (ms - ahead * 1_000).abs() < JUMPED_MS))?;
        std::thread::sleep(time);
        fleet.wait_at_work().with_context(|| format!("its clock {ahead} s ahead"))?;
    }
    fleet.stop(name)?;
    fleet.start(name, "")
}

/// Whether the fault meets only a worker with detector tasks: one that routes alone evaluates nothing, writes no store, and has nothing
/// to say about it.
fn needs_a_store(step: &Step) -> bool {
    const OF_STORES: [&str; 5] = ["in_record", "in_firing", "in_restore", "before_store_write", "after_store_write"];
    matches!(step.fault, Fault::Panic | Fault::ClockJump) || OF_STORES.iter().any(|point| step.point.starts_with(point))
}

/// This worker, or another if this one writes no store.
fn with_a_store(fleet: &Fleet, name: &str) -> Result<String> {
    let writes = |name: &str| {
        let metrics = fleet.workers.get(name).and_then(|running| running.metrics().ok());
        metrics.map_or(0.0, |metrics| metrics.sum("tripline_state_writes_total", &[]))
    };
    let before: Vec<(&str, f64)> = fleet.workers.keys().map(|name| (name.as_str(), writes(name))).collect();
    let mut writing = Vec::new();
    wait_until(RECOVERS_WITHIN, "a worker writes to a store", || {
        writing = before.iter().filter(|(name, before)| writes(name) > *before).map(|(name, _)| *name).collect();
        !writing.is_empty()
    })?;
    Ok(writing.iter().find(|found| **found == name).unwrap_or(&writing[0]).to_string())
}

/// How far ahead of ours a worker's clock was when it last said something.
fn ahead_ms(fleet: &Fleet, name: &str) -> Option<i64> {
    let log = fleet.log_text(name);
    let said_ms = |line: &str| parse_rfc3339_ms(serde_json::from_str::<Value>(line).ok()?["timestamp"].as_str()?);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis() as i64;
    log.lines().rev().find_map(said_ms).map(|said_ms| said_ms - now_ms)
}

/// Arms a fail point in a worker and waits until it was reached.
fn fail_point(fleet: &mut Fleet, name: &str, point: &str) -> Result<Option<Duration>> {
    if point.starts_with("after_sink_write") {
        return in_the_sink(fleet, point).map(|()| None);
    }
    fleet.kill(name)?;
    if point.starts_with("in_restore") {
        // On its own disk there would be nothing to restore.
        fleet.lose_disk(name)?;
    }
    fleet.start(name, point)?;
    if point.starts_with("in_revoke") || point.starts_with("after_revoke") {
        return in_revoke(fleet, name).map(|()| None);
    }
    if !point.contains("=kill") {
        return fails_and_goes_on(fleet, name, point).map(|()| None);
    }
    fleet.wait_for_end(name, POINT_WITHIN).with_context(|| format!("{point} was armed"))?;
    let killed = Instant::now();
    let back_after = come_back(fleet, name, killed)?;
    // Without its disk it has to restore first: another figure.
    Ok(back_after.filter(|_| !point.starts_with("in_restore")))
}

/// The sink dies between its database and its offsets.
fn in_the_sink(fleet: &mut Fleet, point: &str) -> Result<()> {
    fleet.kill_sink()?;
    fleet.start_sink(point)?;
    fleet.wait_for_sink_end(POINT_WITHIN).with_context(|| format!("{point} was armed"))?;
    fleet.start_sink("")
}

/// A refused or doubtful step is taken again by the same process.
fn fails_and_goes_on(fleet: &mut Fleet, name: &str, point: &str) -> Result<()> {
    let failures = |fleet: &Fleet| {
        let metrics = fleet.workers.get(name).and_then(|running| running.metrics().ok());
        metrics.map_or(0.0, |metrics| metrics.sum("tripline_commit_failures_total", &[]))
    };
    let waited = wait_until(POINT_WITHIN, &format!("{point} is reached"), || failures(fleet) >= 1.0);
    waited.with_context(|| fleet.tail(name))
}

/// Another worker joins, and the armed one dies while it gives partitions back.
fn in_revoke(fleet: &mut Fleet, name: &str) -> Result<()> {
    let guest = fleet.free_name();
    match guest {
        // Everybody is there: one leaves, is given up, and comes back, which moves partitions twice.
        None => {
            let other = fleet.workers.keys().find(|other| *other != name).cloned().context("nobody else runs")?;
            fleet.wait_at_work()?;
            fleet.stop(&other)?;
            fleet.wait_for_takeover(&other)?;
            fleet.start(&other, "")?;
        }
        Some(guest) => {
            fleet.wait_at_work()?;
            fleet.start(guest, "")?;
        }
    }
    fleet.wait_for_end(name, POINT_WITHIN).context("a point of the revocation was armed")?;
    fleet.start(name, "")?;
    fleet.wait_at_work()?;
    if let Some(guest) = guest {
        fleet.stop(guest)?;
        fleet.wait_for_takeover(guest)?;
    }
    Ok(())
}

fn signal(fleet: &mut Fleet, name: &str, signal: libc::c_int) -> Result<()> {
    fleet.worker(name)?.worker.process().signal(signal);
    Ok(())
}

/// Longer than a transaction lives, shorter than a session: the broker ends what the worker has open.
fn freeze(fleet: &mut Fleet, name: &str, time: Duration) -> Result<()> {
    signal(fleet, name, libc::SIGSTOP)?;
    std::thread::sleep(time);
    signal(fleet, name, libc::SIGCONT)
}

/// Frozen until others have taken over, then woken: its work may not become visible, and it has to find its way back by itself.
fn zombie(fleet: &mut Fleet, name: &str) -> Result<()> {
    if fleet.workers.len() < 2 {
        join(fleet)?;
        fleet.wait_at_work()?;
    }
    let process = fleet.worker(name)?.worker.id();
    signal(fleet, name, libc::SIGSTOP)?;
    let taken = fleet.wait_for_takeover(name);
    signal(fleet, name, libc::SIGCONT)?;
    taken?;
    wait_until(RECOVERS_WITHIN, &format!("{name} has a share again"), || fleet.running_tasks(name) > 0)
        .with_context(|| fleet.tail(name))?;
    ensure!(fleet.worker(name)?.worker.id() == process, "{name} is another process");
    Ok(())
}

fn join(fleet: &mut Fleet) -> Result<()> {
    match fleet.free_name() {
        Some(name) => fleet.start(name, ""),
        None => {
            let name = fleet.name_of(0)?;
            leave(fleet, &name)
        }
    }
}

fn leave(fleet: &mut Fleet, name: &str) -> Result<()> {
    if fleet.workers.len() < 2 {
        return join(fleet);
    }
    fleet.stop(name)?;
    // Static members leave no word: their tasks move when their session is over.
    fleet.wait_for_takeover(name)
}

/// Asked to stop while it rebuilds its state: it has to obey, and the next start has to begin where this one was cut off.
fn stop_in_restore(fleet: &mut Fleet, name: &str, moment_ms: u64) -> Result<()> {
    fleet.kill(name)?;
    fleet.lose_disk(name)?;
    let before = log_lines(fleet, name, ASSIGNED);
    fleet.start(name, "")?;
    wait_until(RECOVERS_WITHIN, &format!("{name} is given partitions"), || log_lines(fleet, name, ASSIGNED) > before)?;
    std::thread::sleep(Duration::from_millis(moment_ms % 60));
    fleet.stop(name)?;
    fleet.start(name, "")
}

fn log_lines(fleet: &Fleet, name: &str, words: &str) -> usize {
    fleet.log_text(name).matches(words).count()
}

/// A record whose evaluation panics, and is given up for it.
fn panic_in_a_record(fleet: &mut Fleet, name: &str, which: u64) -> Result<()> {
    const GIVEN_UP: &str = "a record cannot be finished";
    let before = log_lines(fleet, name, GIVEN_UP);
    fleet.kill(name)?;
    fleet.start(name, &format!("in_record=panic@{}", 1 + which % 200))?;
    wait_until(POINT_WITHIN, &format!("a record panics in {name}"), || log_lines(fleet, name, GIVEN_UP) > before)
}

/// Rules and flags are written anew; every worker takes them up.
fn change_rules(fleet: &mut Fleet) -> Result<()> {
    let reloads = |fleet: &Fleet| fleet.sum("tripline_reloads_total", &[("result", "ok")]);
    let (before, workers) = (reloads(fleet), fleet.workers.len() as f64);
    fleet.variant = (fleet.variant + 1) % VARIANTS;
    fleet.write_pack()?;
    wait_until(RECOVERS_WITHIN, "every worker takes up the new rules", || reloads(fleet) >= before + workers)
}

fn pause_broker(fleet: &Fleet, time: Duration) -> Result<()> {
    fleet.line.kafka.signal(libc::SIGSTOP)?;
    std::thread::sleep(time);
    fleet.line.kafka.signal(libc::SIGCONT)
}

/// Slow, silent or broken connections between one worker and the broker, and the fates of a commit's last request.
fn on_the_wire(fault: Fault, proxy: &Proxy, extra_ms: u64) -> Result<()> {
    let extra = Duration::from_millis(extra_ms);
    let ends = |fate: Fate| {
        let fault = proxy.next(Api::END_TXN, fate);
        fault.wait(RECOVERS_WITHIN).map(|()| fault)
    };
    match fault {
        Fault::Delay => {
            proxy.set_latency(SLOW);
            std::thread::sleep(Duration::from_secs(2) + extra);
            proxy.set_latency(Duration::ZERO);
        }
        Fault::Partition => {
            proxy.pause();
            // Longer than a transaction lives, and as often as not longer than a session.
            std::thread::sleep((TRANSACTION + SESSION) / 2 + extra);
            proxy.resume();
        }
        Fault::LoseCommit => drop(ends(Fate::LoseRequest)?),
        Fault::LoseReply => drop(ends(Fate::LoseReply)?),
        Fault::LateCommit => {
            let late = ends(Fate::HoldAndCut)?;
            std::thread::sleep(extra / 4);
            late.release();
        }
        _ => {
            for _ in 0..3 {
                proxy.cut();
                std::thread::sleep(extra / 10);
            }
        }
    }
    Ok(())
}
