//! The processes of a round: workers with identities and state folders of their own, and the sink.

use super::clock::Clock;
use super::pack::Pack;
use super::watch::{Mark, Watch};
use super::wipes;
use crate::http::Metrics;
use crate::line::{Line, Running};
use crate::wait_until;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A member that is silent for longer loses its partitions.
pub const SESSION: Duration = Duration::from_secs(6);
/// The same for the sink, which has no setting for it.
pub const SINK_SESSION: Duration = Duration::from_secs(10);
/// A transaction that is older is aborted by the broker.
pub const TRANSACTION: Duration = Duration::from_secs(3);
/// After a fault the line is at work again within this, or the run has failed.
pub const RECOVERS_WITHIN: Duration = Duration::from_secs(120);
/// A stop is graceful within this.
pub const STOPS_WITHIN: Duration = Duration::from_secs(12);
/// The most workers at a time.
pub const MOST_WORKERS: usize = 3;
/// The identities of workers.
const NAMES: [&str; MOST_WORKERS] = ["one", "two", "three"];

/// A process that ended although nobody killed it: a violation whatever else happened.
#[derive(Debug)]
pub struct EndedByItself(String);

impl EndedByItself {
    /// What is said of a process that runs no more, unless it runs.
    fn check(name: &str, running: &mut Running) -> Result<()> {
        let Some(status) = running.worker.exit_status() else { return Ok(()) };
        Err(EndedByItself(format!("{name} ended by itself ({status}):\n{}", last_words(running))).into())
    }

    /// Whether it gave up waiting for a transaction that nobody ends, and said so.
    pub fn waited_for_a_hanging_transaction(&self) -> bool {
        self.0.contains("find-hanging")
    }
}

impl std::fmt::Display for EndedByItself {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EndedByItself {}

fn tail(name: &str, running: &Running) -> String {
    format!("last lines of {name}:\n{}", last_words(running))
}

/// The last lines of a process's log, without its word on every write to a store.
fn last_words(running: &Running) -> String {
    const LINES: usize = 20;
    let bytes = std::fs::read(running.worker.log()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut last: Vec<&str> = text.lines().rev().filter(|line| !line.contains(wipes::WRITTEN)).take(LINES).collect();
    last.reverse();
    last.join("\n")
}

/// Waits until a process has ended by itself.
fn ends(mut running: Running, name: &str, limit: Duration) -> Result<()> {
    let ended = wait_until(limit, &format!("{name} ends"), || running.worker.exit_status().is_some());
    ended.with_context(|| tail(name, &running))
}

/// The running processes of a line.
pub struct Fleet {
    /// The line.
    pub line: Line,
    /// The rules and flags.
    pub pack: Pack,
    /// Which variant of them was written last.
    pub variant: u64,
    /// Workers by their identity.
    pub workers: BTreeMap<String, Running>,
    /// The sink, a process of its own.
    pub sink: Option<Running>,
    /// Looks at the decisions.
    pub watch: Watch,
    /// Tasks of the group, those of routers included.
    tasks: usize,
    /// Where a worker finds its broker, when it is not the broker itself.
    bootstrap: BTreeMap<String, String>,
    /// Lengths of a worker's log at which its disk was taken away.
    taken: BTreeMap<String, Vec<usize>>,
}

impl Fleet {
    /// Prepares a line; nothing runs yet. `bootstrap`: what stands between a worker and its broker, by its identity.
    pub fn new(line: Line, tasks: usize, bootstrap: &[String]) -> Result<Fleet> {
        let pack = Pack::load(line.keyed)?;
        let (watch, bootstrap) = (Watch::start(&line)?, NAMES.iter().map(|n| (*n).to_owned()).zip(bootstrap.iter().cloned()).collect());
        let fleet = Fleet { line, pack, variant: 0, workers: BTreeMap::new(), sink: None, watch, tasks, bootstrap, taken: BTreeMap::new() };
        fleet.write_pack()?;
        Ok(fleet)
    }

    /// Writes the present variant of rules and flags.
    pub fn write_pack(&self) -> Result<()> {
        self.pack.write(self.variant, &self.line.file("rules"), &self.line.file("flags.json"))
    }

    /// Starts a worker, with a fail point armed or not; does not wait for it.
    pub fn start(&mut self, name: &str, fail_point: &str) -> Result<()> {
        let armed = [("TRIPLINE_FAILPOINTS", fail_point)];
        self.start_in(name, if fail_point.is_empty() { &[] } else { &armed })
    }

    /// Starts a worker that goes by a clock of its own; does not wait for it.
    pub fn start_with_clock(&mut self, name: &str, clock: &Clock) -> Result<()> {
        let environment = clock.environment();
        self.start_in(name, &environment.each_ref().map(|(key, value)| (*key, value.as_str())))
    }

    fn start_in(&mut self, name: &str, environment: &[(&str, &str)]) -> Result<()> {
        let (session, transaction) = (format!("{}s", SESSION.as_secs()), format!("{}s", TRANSACTION.as_secs()));
        let rules = self.line.file("rules").display().to_string();
        let mut settings = vec![
            ("TRIPLINE_RULES__PATH", rules.as_str()),
            ("TRIPLINE_RULES__SETTINGS", ""),
            ("TRIPLINE_STREAM__TICK_INTERVAL", "200ms"),
            ("TRIPLINE_STREAM__SESSION_TIMEOUT", session.as_str()),
            ("TRIPLINE_STREAM__TRANSACTION_TIMEOUT", transaction.as_str()),
            ("TRIPLINE_STATE__WRITE_INTERVAL", "200ms"),
            // What comes late says so in a header, and it is the machine that is late.
            ("TRIPLINE_STREAM__DEGRADED_AFTER", "off"),
            ("TRIPLINE_LOG__LEVEL", wipes::LEVEL),
        ];
        settings.extend_from_slice(environment);
        if let Some(bootstrap) = self.bootstrap.get(name) {
            settings.push(("TRIPLINE_KAFKA__BOOTSTRAP_SERVERS", bootstrap));
        }
        let running = self.line.start_with(name, "detect", &settings)?;
        self.workers.insert(name.to_owned(), running);
        Ok(())
    }

    /// Starts the sink, with these fail points armed; does not wait for it.
    pub fn start_sink(&mut self, points: &str) -> Result<()> {
        let rules = self.line.file("rules").display().to_string();
        let settings = [("TRIPLINE_RULES__PATH", rules.as_str()), ("TRIPLINE_RULES__SETTINGS", ""), ("TRIPLINE_FAILPOINTS", points)];
        self.sink = Some(self.line.start_with("sink", "sink", &settings)?);
        Ok(())
    }

    /// The name of a worker that runs, by a number that was drawn.
    pub fn name_of(&self, who: u64) -> Result<String> {
        let names: Vec<&String> = self.workers.keys().collect();
        ensure!(!names.is_empty(), "no worker runs");
        Ok(names[(who % names.len() as u64) as usize].clone())
    }

    /// The first identity that nobody has.
    pub fn free_name(&self) -> Option<&'static str> {
        NAMES.into_iter().find(|name| !self.workers.contains_key(*name))
    }

    /// The place of a worker's identity among all.
    pub fn place_of(&self, name: &str) -> Option<usize> {
        NAMES.iter().position(|known| *known == name)
    }

    /// A worker.
    pub fn worker(&mut self, name: &str) -> Result<&mut Running> {
        self.workers.get_mut(name).with_context(|| format!("no worker {name} runs"))
    }

    /// Kills a worker without warning.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let mut running = self.workers.remove(name).with_context(|| format!("no worker {name} runs"))?;
        EndedByItself::check(name, &mut running)?;
        running.worker.kill_9();
        Ok(())
    }

    /// Asks a worker to stop; it has to do so in good order.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        let mut running = self.workers.remove(name).with_context(|| format!("no worker {name} runs"))?;
        EndedByItself::check(name, &mut running)?;
        let status = running.worker.terminate(STOPS_WITHIN)?;
        ensure!(status.success(), "{name} stopped with {status}:\n{}", last_words(&running));
        Ok(())
    }

    /// Waits until a worker has ended by itself.
    pub fn wait_for_end(&mut self, name: &str, limit: Duration) -> Result<()> {
        ends(self.workers.remove(name).with_context(|| format!("no worker {name} runs"))?, name, limit)
    }

    /// Waits until the sink has ended by itself, as it was armed to.
    pub fn wait_for_sink_end(&mut self, limit: Duration) -> Result<()> {
        ends(self.sink.take().context("no sink runs")?, "the sink", limit)
    }

    /// Takes a worker's disk away: its state is gone.
    pub fn lose_disk(&mut self, name: &str) -> Result<()> {
        let length = std::fs::metadata(self.log(name)).map_or(0, |log| log.len() as usize);
        self.taken.entry(name.to_owned()).or_default().push(length);
        let folder = self.state(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("could not remove {}", folder.display()))?;
        }
        Ok(())
    }

    /// Tasks that a worker runs now; none when it does not answer.
    pub fn running_tasks(&self, name: &str) -> usize {
        let metrics = self.workers.get(name).and_then(|running| running.metrics().ok());
        metrics.map_or(0, |metrics| metrics.sum("tripline_tasks", &[("state", "running")]) as usize)
    }

    /// Waits until the workers other than this one run every task.
    pub fn wait_for_takeover(&self, from: &str) -> Result<()> {
        let others: Vec<&String> = self.workers.keys().filter(|name| *name != from).collect();
        wait_until(RECOVERS_WITHIN, &format!("others have the tasks of {from}"), || {
            others.iter().map(|name| self.running_tasks(name)).sum::<usize>() >= self.tasks
        })
    }

    /// The sum of a metric over the workers.
    pub fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        let metrics = self.workers.values().filter_map(|running| running.metrics().ok());
        metrics.map(|metrics: Metrics| metrics.sum(metric, labels)).sum()
    }

    /// Waits until every task runs, every process is ready, and decisions come again; nobody may have ended by itself.
    pub fn wait_at_work(&mut self) -> Result<()> {
        let mark = self.mark()?;
        let deadline = Instant::now() + RECOVERS_WITHIN;
        loop {
            self.ensure_alive()?;
            let running: usize = self.workers.keys().map(|name| self.running_tasks(name)).sum();
            let ready = self.workers.values().chain(&self.sink).all(|running| running.worker.is_ready(&running.admin));
            if ready && running == self.tasks && self.watch.first_after(&mark).is_some() {
                return Ok(());
            }
            let decided = self.watch.first_after(&mark).is_some();
            ensure!(
                Instant::now() < deadline,
                "not at work {RECOVERS_WITHIN:?} after the fault: {running} of {} tasks run, ready {ready}, decisions come {decided}\n{}",
                self.tasks,
                self.tails()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where the decisions end, however long the broker takes to say so.
    pub fn mark(&self) -> Result<Mark> {
        let mut mark = Err(anyhow::anyhow!("not asked"));
        wait_until(RECOVERS_WITHIN, "the broker says where the decisions end", || {
            mark = self.watch.mark();
            mark.is_ok()
        })?;
        mark
    }

    /// [`EndedByItself`], when a process ended that nobody killed.
    pub fn ensure_alive(&mut self) -> Result<()> {
        let named = self.workers.iter_mut().map(|(name, running)| (name.as_str(), running));
        named.chain(self.sink.as_mut().map(|sink| ("the sink", sink))).try_for_each(|(name, running)| EndedByItself::check(name, running))
    }

    /// Kills the sink, if it runs, without warning.
    pub fn kill_sink(&mut self) -> Result<()> {
        let Some(mut sink) = self.sink.take() else { return Ok(()) };
        EndedByItself::check("the sink", &mut sink)?;
        sink.worker.kill_9();
        Ok(())
    }

    /// The last words of a worker, for messages.
    pub fn tail(&self, name: &str) -> String {
        self.workers.get(name).map_or_else(String::new, |running| tail(name, running))
    }

    /// The last words of every worker, for messages.
    pub fn tails(&self) -> String {
        self.workers.iter().map(|(name, running)| tail(name, running) + "\n").collect()
    }

    /// Every state that a worker threw away although its disk still had it.
    pub fn wipes(&self) -> Vec<String> {
        let wiped = |name: &&str| {
            let taken = self.taken.get(*name).map_or(&[][..], Vec::as_slice);
            wipes::wipes(&self.log_text(name), taken).into_iter().map(|wipe| format!("{name}: {wipe}")).collect::<Vec<_>>()
        };
        NAMES.iter().flat_map(wiped).collect()
    }

    /// How often each task that has a state was started, by whomever.
    pub fn starts(&self) -> BTreeMap<i32, usize> {
        let logs: Vec<String> = NAMES.iter().map(|name| self.log_text(name)).collect();
        let starts = |task: i32| logs.iter().map(|log| wipes::starts(log, task)).sum();
        self.watch.partitions().iter().map(|task| (*task, starts(*task))).collect()
    }

    /// Identities that have a state folder, whether they run or not.
    pub fn disks(&self) -> Vec<&'static str> {
        NAMES.into_iter().filter(|name| self.state(name).exists()).collect()
    }

    /// The state folder of a worker.
    fn state(&self, name: &str) -> std::path::PathBuf {
        self.line.file(&format!("state-{name}"))
    }

    /// What a worker has said so far, in all its lives.
    pub fn log_text(&self, name: &str) -> String {
        let bytes = std::fs::read(self.log(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The log of a worker.
    pub fn log(&self, name: &str) -> std::path::PathBuf {
        self.line.file(&format!("{name}.log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_known_whatever_was_said_about_it_since() {
        let ended = anyhow::Error::from(EndedByItself("one ended by itself".into()));
        assert!(ended.context("after a fault").context("in a step").is::<EndedByItself>());
        assert!(!anyhow::anyhow!("one ended by itself").context("after a fault").is::<EndedByItself>());
    }
}
