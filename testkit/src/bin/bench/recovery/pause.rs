//! How long a task makes no decision while another worker comes or goes.

use super::{Bench, CALM};
use crate::cluster::Probe;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tripline_testkit::{Kafka, Worker, free_address, wait_until};

/// The identity of the worker that comes and goes.
const OTHER: &str = "other";

/// What one change of the group did.
#[derive(Debug)]
pub struct Pauses {
    /// What happened.
    pub what: &'static str,
    /// Tasks that changed their owner.
    pub moved: usize,
    /// The longest pause of each task that did not move, before it happened: median and greatest of the tasks.
    pub before: (Duration, Duration),
    /// The same from then on, until all tasks decide in time again.
    pub during: (Duration, Duration),
    /// Longest pause of a task that moved.
    pub of_moved: Duration,
}

/// A second worker joins, dies, comes back and stops.
pub fn measure(kafka: &Kafka, bench: &mut Bench<'_>) -> Result<Vec<Pauses>> {
    let probe = Probe::new(kafka, &bench.run.app)?;
    let mut all = Vec::new();
    let mut note = |pauses: Pauses| {
        eprintln!("{pauses:?}");
        all.push(pauses);
    };
    let mut other = None;
    note(bench.pauses(&probe, "a worker with an empty disk joins", |bench| join(bench, &mut other))?);
    note(bench.pauses(&probe, "`kill -9` of a worker", |_| other.take().map_or(Ok(()), kill))?);
    note(bench.pauses(&probe, "it joins again, with its disk", |bench| join(bench, &mut other))?);
    note(bench.pauses(&probe, "SIGTERM to it", |_| other.take().map_or(Ok(()), stop))?);
    Ok(all)
}

fn join(bench: &Bench<'_>, other: &mut Option<Worker>) -> Result<()> {
    *other = Some(bench.run.start_as(OTHER, &free_address()?.to_string())?);
    Ok(())
}

fn kill(mut worker: Worker) -> Result<()> {
    worker.kill_9();
    Ok(())
}

fn stop(mut worker: Worker) -> Result<()> {
    worker.terminate(Duration::from_secs(60)).map(drop)
}

impl Bench<'_> {
    /// Does something to the group, and waits until its partitions are distributed anew and every task decides in time.
    fn pauses(&self, probe: &Probe, what: &'static str, happen: impl FnOnce(&Self) -> Result<()>) -> Result<Pauses> {
        self.calm()?;
        let (owners, began) = (probe.owners(self.input)?, Instant::now());
        let joins = owners.values().all(|owner| !self.is_others(owner));
        happen(self)?;
        let expected = if joins { self.partitions / 2 } else { 0 };
        let mut after = BTreeMap::new();
        wait_until(self.limit, "the partitions are distributed anew", || {
            after = probe.owners(self.input).unwrap_or_default();
            after.len() == self.partitions && after.values().filter(|owner| self.is_others(owner)).count() == expected
        })
        .with_context(|| format!("{what}: {after:?}\n{}", self.worker.log_tail(20)))?;
        self.calm()?;
        let ended = Instant::now();
        let moved = |task: &i32| owners.get(task) != after.get(task);
        let before = self.sight.longest_pauses(began - CALM, began);
        let during = self.sight.longest_pauses(began, ended);
        let of = |longest: &BTreeMap<i32, Duration>, moves: bool| {
            let mut all: Vec<Duration> = longest.iter().filter(|(task, _)| moved(task) == moves).map(|(_, pause)| *pause).collect();
            all.sort_unstable();
            all
        };
        ensure!(after.keys().any(moved) && !after.keys().all(moved), "{what}: {after:?}");
        Ok(Pauses {
            what,
            moved: after.keys().filter(|task| moved(task)).count(),
            before: spread(&of(&before, false)),
            during: spread(&of(&during, false)),
            of_moved: spread(&of(&during, true)).1,
        })
    }

    fn is_others(&self, owner: &str) -> bool {
        owner.starts_with(&format!("{}-{OTHER}-", self.run.app))
    }
}

/// Median and greatest of what is sorted.
fn spread(sorted: &[Duration]) -> (Duration, Duration) {
    (sorted.get(sorted.len() / 2).copied().unwrap_or_default(), sorted.last().copied().unwrap_or_default())
}
