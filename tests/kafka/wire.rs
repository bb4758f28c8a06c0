//! Promises 2, 3 and 5 when it is the wire that fails: a request or a reply is lost, late or torn, or nothing passes for a while.
//! The worker stays alive, and its decisions equal `replay`.

use crate::line::{Line, PATIENCE, Running, Setup, assert_equal, generated};
use anyhow::{Result, ensure};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tripline_testkit::proxy::{Api, Fate};
use tripline_testkit::{Kafka, Options, Proxy, wait_until};

/// Tests that ask for a proxy.
const PROXIES: usize = 12;

/// The broker that these tests share, and a proxy in front of it that is the caller's alone.
pub fn behind_a_proxy() -> (&'static Kafka, &'static Proxy) {
    static STAGE: OnceLock<Result<(&'static Kafka, Vec<Proxy>), String>> = OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let start = || Proxy::start_several(Options::default(), PROXIES).map(|(kafka, proxies)| (kafka.keep(), proxies));
    let started = STAGE.get_or_init(|| start().map_err(|why| format!("{why:#}")));
    match started {
        Ok((kafka, proxies)) => (*kafka, &proxies[NEXT.fetch_add(1, Ordering::Relaxed)]),
        Err(why) => panic!("{why}"),
    }
}

/// Starts a detector all of whose requests go through the proxy, and waits until it is ready.
pub fn start_behind(proxy: &Proxy, line: &Line, more: &[(&str, &str)]) -> Result<Running> {
    let bootstrap = proxy.address().to_string();
    let settings: Vec<(&str, &str)> =
        [("TRIPLINE_KAFKA__BOOTSTRAP_SERVERS", bootstrap.as_str())].into_iter().chain(more.iter().copied()).collect();
    let mut running = line.start_with("one", "detect", &settings)?;
    running.worker.wait_ready(&running.admin, PATIENCE)?;
    Ok(running)
}

/// Everything is decided, once and as `replay` decides it; the worker has not ended, and its state was not wiped.
pub fn assert_unharmed(line: &Line, running: &mut Running, events: &str) -> Result<()> {
    line.settle()?;
    ensure!(running.worker.exit_status().is_none(), "the worker ended:\n{}", running.worker.log_tail(20));
    let log = std::fs::read_to_string(running.worker.log())?;
    ensure!(!log.contains("rebuilt from the changelog"), "the state was wiped");
    assert_equal(&line.decisions()?, &line.replay(events)?);
    Ok(())
}

fn producers_built(running: &Running, kind: &str) -> Result<f64> {
    Ok(running.metrics()?.sum("tripline_commit_failures_total", &[("kind", kind)]))
}

#[test]
fn a_request_or_a_reply_that_is_lost_changes_nothing() -> Result<()> {
    let (kafka, proxy) = behind_a_proxy();
    let line = Line::on(kafka, &Setup::routed(1, 2))?;
    let mut running = start_behind(proxy, &line, &[])?;
    let lost = [
        (Api::END_TXN, Fate::LoseRequest),
        (Api::END_TXN, Fate::LoseReply),
        (Api::END_TXN, Fate::TearReply),
        (Api::TXN_OFFSET_COMMIT, Fate::LoseRequest),
        (Api::TXN_OFFSET_COMMIT, Fate::LoseReply),
        (Api::ADD_OFFSETS_TO_TXN, Fate::LoseReply),
        (Api::ADD_PARTITIONS_TO_TXN, Fate::LoseReply),
        (Api::PRODUCE, Fate::LoseRequest),
        (Api::PRODUCE, Fate::LoseReply),
        (Api::PRODUCE, Fate::TearReply),
        (Api::FETCH, Fate::LoseRequest),
        (Api::FETCH, Fate::TearReply),
        (Api::HEARTBEAT, Fate::LoseReply),
    ];
    let events = generated(71, 300 * lost.len())?;
    let lines: Vec<&str> = events.lines().collect();
    for (part, (api, fate)) in lines.chunks(300).zip(lost) {
        let fault = proxy.next(api, fate);
        line.produce(part.iter().copied())?;
        fault.wait(PATIENCE)?;
        // One fault after the other: each transaction has its own.
        line.settle()?;
    }
    assert_unharmed(&line, &mut running, &events)?;
    // An end or offsets that were sent twice: five of the faults, each noticed.
    let suspects = producers_built(&running, "suspect")?;
    eprintln!("{} faults, {suspects} suspect transactions, {} producers built", lost.len(), producers_built(&running, "rebuild")?);
    ensure!(suspects >= 5.0, "{suspects} suspect transactions");
    running.stop()
}

/// Slow but whole: nothing is sent twice, and hardly anything is suspected.
#[test]
fn a_slow_wire_changes_nothing_and_hardly_costs_a_producer() -> Result<()> {
    let (kafka, proxy) = behind_a_proxy();
    let line = Line::on(kafka, &Setup::keyed(2))?;
    let mut running = start_behind(proxy, &line, &[])?;
    proxy.set_latency(Duration::from_millis(10));
    let events = generated(72, 2_000)?;
    let lines: Vec<&str> = events.lines().collect();
    let slow = [Api::PRODUCE, Api::ADD_OFFSETS_TO_TXN, Api::TXN_OFFSET_COMMIT, Api::END_TXN, Api::FETCH];
    for (part, api) in lines.chunks(lines.len().div_ceil(slow.len())).zip(slow) {
        let delayed = proxy.next(api, Fate::Delay(Duration::from_millis(100)));
        line.produce(part.iter().copied())?;
        delayed.wait(PATIENCE)?;
    }
    assert_unharmed(&line, &mut running, &events)?;
    let commits = running.metrics()?.sum("tripline_commits_total", &[]);
    let (suspects, built) = (producers_built(&running, "suspect")?, producers_built(&running, "rebuild")?);
    eprintln!("{commits} commits, {suspects} suspect transactions, {built} producers built");
    // Usually none; a machine that is busy can make any step slow.
    ensure!(suspects * 4.0 <= commits && built <= suspects, "{commits} commits, {suspects} suspect transactions, {built} producers built");
    proxy.set_latency(Duration::ZERO);
    running.stop()
}

/// Each transaction takes longer than the client's wait before a second try: each one is suspected, and the next one still begins.
#[test]
fn a_wire_too_slow_to_tell_goes_on_with_a_new_producer_each_time() -> Result<()> {
    let (kafka, proxy) = behind_a_proxy();
    let line = Line::on(kafka, &Setup::keyed(2))?;
    let mut running = start_behind(proxy, &line, &[])?;
    let events = generated(76, 900)?;
    proxy.set_latency(Duration::from_millis(100));
    for part in events.lines().collect::<Vec<_>>().chunks(300) {
        let started = Instant::now();
        line.produce(part.iter().copied())?;
        line.settle()?;
        eprintln!("committed after {:?}", started.elapsed());
    }
    let (commits, suspects) = (running.metrics()?.sum("tripline_commits_total", &[]), producers_built(&running, "suspect")?);
    eprintln!("{commits} commits, {suspects} suspect transactions");
    ensure!(suspects >= 2.0, "{suspects} suspect transactions");
    proxy.set_latency(Duration::ZERO);
    assert_unharmed(&line, &mut running, &events)?;
    running.stop()
}

#[test]
fn connections_that_break_at_any_moment_change_nothing() -> Result<()> {
    let (kafka, proxy) = behind_a_proxy();
    let line = Line::on(kafka, &Setup::routed(1, 2))?;
    let mut running = start_behind(proxy, &line, &[])?;
    let events = generated(73, 4_000)?;
    let mut broken = 0;
    for part in events.lines().collect::<Vec<_>>().chunks(400) {
        let before = line.read("decisions")?.len();
        line.produce(part.iter().copied())?;
        wait_until(PATIENCE, "a new decision", || line.read("decisions").is_ok_and(|d| d.len() > before))?;
        broken += proxy.cut();
    }
    eprintln!("{broken} connections broken, {} producers built", producers_built(&running, "rebuild")?);
    ensure!(broken >= 10, "{broken} connections broken");
    assert_unharmed(&line, &mut running, &events)?;
    running.stop()
}

/// Longer than the transaction may last and than the group waits for its member: the broker has given up on both.
#[test]
fn a_partition_that_outlasts_transaction_and_session_changes_nothing() -> Result<()> {
    let (kafka, proxy) = behind_a_proxy();
    let line = Line::on(kafka, &Setup::keyed(2))?;
    let short = [("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "2s"), ("TRIPLINE_STREAM__SESSION_TIMEOUT", "3s")];
    let mut running = start_behind(proxy, &line, &short)?;
    let events = generated(74, 2_000)?;
    let (first, second) = events.split_at(events[..events.len() / 2].rfind('\n').unwrap_or_default() + 1);
    let (during, after) = second.split_at(second[..second.len() / 2].rfind('\n').unwrap_or_default() + 1);
    // The partition begins inside a transaction.
    let inside = proxy.next(Api::TXN_OFFSET_COMMIT, Fate::Hold);
    line.produce(first.lines())?;
    inside.wait(PATIENCE)?;
    proxy.pause();
    inside.release();
    line.produce(during.lines())?;
    // Not a wait for something: the partition is the fault, and this is how long it lasts.
    std::thread::sleep(Duration::from_secs(8));
    ensure!(running.worker.exit_status().is_none(), "the worker ended:\n{}", running.worker.log_tail(20));
    proxy.resume();
    line.produce(after.lines())?;
    assert_unharmed(&line, &mut running, &events)?;
    running.stop()
}

/// The other worker has its partitions already when what it sent arrives.
#[test]
fn a_partitioned_worker_that_was_replaced_leaves_no_trace() -> Result<()> {
    let (kafka, proxy) = behind_a_proxy();
    let line = Line::on(kafka, &Setup::keyed(2))?;
    let short = [("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", "2s"), ("TRIPLINE_STREAM__SESSION_TIMEOUT", "3s")];
    let mut one = start_behind(proxy, &line, &short)?;
    let events = generated(75, 3_000)?;
    let lines: Vec<&str> = events.lines().collect();
    let third = lines.len() / 3;
    let inside = proxy.next(Api::END_TXN, Fate::Hold);
    line.produce(lines[..third].iter().copied())?;
    inside.wait(PATIENCE)?;
    proxy.pause();
    inside.release();
    let two = line.start_with("two", "detect", &short)?;
    line.produce(lines[third..2 * third].iter().copied())?;
    line.settle()?;
    proxy.resume();
    line.produce(lines[2 * third..].iter().copied())?;
    line.settle()?;
    ensure!(one.worker.exit_status().is_none(), "the worker ended:\n{}", one.worker.log_tail(20));
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    one.stop()?;
    two.stop()
}
