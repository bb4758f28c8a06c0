//! Searching schedules, and making the one that was found short enough to be read.

use super::choices::{Choices, KINDS, Made};
use super::schedule::{self, Report};
use super::world::{Bug, Sights};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs that shrinking may take.
const EFFORT: usize = 4_000;

/// A schedule that breaks a promise.
pub struct Found {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// Schedules looked at, this one included.
    pub tries: u64,
    /// The broken promise, after shrinking.
    pub violation: String,
    /// The choices that are left, zeros included.
    pub choices: Made,
    /// What happens in it.
    pub trace: Vec<String>,
}

impl Found {
    /// Choices that are not the calm one.
    pub fn deliberate(&self) -> usize {
        deliberate(&self.choices)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation)?;
        writeln!(f, "seed {}, found after {} schedules; {} deliberate choices are left of it:", self.seed, self.tries, self.deliberate())?;
        self.trace.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

/// Schedules that every core runs before the results are put together.
const BLOCK: u64 = 128;

/// Runs schedules with seeds from `first` on, until one breaks a promise; that one is shrunk. Whatever the number of cores, it
/// is the one with the lowest seed.
pub fn search(first: u64, schedules: u64, bug: Option<Bug>) -> Result<Sights, Box<Found>> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut sights = Sights::new();
    for from in (0..schedules).step_by((cores * BLOCK) as usize) {
        let to = schedules.min(from + cores * BLOCK);
        let share = |core: u64| (from + core..to).step_by(cores as usize).map(move |nth| (nth, first.wrapping_add(nth)));
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|core| scope.spawn(move || run_all(share(core), bug))).collect();
            threads.into_iter().map(|thread| thread.join().expect("panics are caught where they happen")).collect()
        });
        for (seen, count) in results.iter().flat_map(|(sights, _)| sights) {
            *sights.entry(*seen).or_default() += count;
        }
        if let Some((nth, choices)) = results.into_iter().filter_map(|(_, broken)| broken).min() {
            return Err(Box::new(explain(first.wrapping_add(nth), nth + 1, choices, bug)));
        }
    }
    Ok(sights)
}

/// Runs schedules until one breaks a promise: its number, and its choices if it did not panic.
fn run_all(seeds: impl Iterator<Item = (u64, u64)>, bug: Option<Bug>) -> (Sights, Option<(u64, Option<Made>)>) {
    let mut sights = Sights::new();
    for (nth, seed) in seeds {
        let Ok(report) = catch_unwind(AssertUnwindSafe(|| schedule::run(Choices::drawn(seed), bug, false))) else {
            return (sights, Some((nth, None)));
        };
        for (seen, count) in &report.sights {
            *sights.entry(*seen).or_default() += count;
        }
        if report.violation.is_some() {
            return (sights, Some((nth, Some(report.choices))));
        }
    }
    (sights, None)
}

fn explain(seed: u64, tries: u64, choices: Option<Made>, bug: Option<Bug>) -> Found {
    let Some(choices) = choices else {
        return Found { seed, tries, violation: "a panic, see above".into(), choices: Made::default(), trace: Vec::new() };
    };
    let Report { violation, choices, trace, .. } = schedule::run(Choices::again(&shrink(choices, bug)), bug, true);
    let violation = violation.unwrap_or_else(|| "the schedule is not a function of its choices".into());
    Found { seed, tries, violation, choices, trace }
}

/// Choices that are not the calm one.
fn deliberate(choices: &Made) -> usize {
    choices.iter().flatten().filter(|choice| **choice != 0).count()
}

/// Calms and drops pieces of each list, the larger ones first, as long as some promise stays broken.
fn shrink(mut choices: Made, bug: Option<Bug>) -> Made {
    let mut effort = EFFORT;
    let mut breaks = |choices: &Made| {
        effort = effort.saturating_sub(1);
        let report = (effort > 0).then(|| catch_unwind(AssertUnwindSafe(|| schedule::run(Choices::again(choices), bug, false))));
        report.is_some_and(|report| report.is_ok_and(|report| report.violation.is_some()))
    };
    loop {
        let before = deliberate(&choices);
        for kind in 0..KINDS {
            let mut size = choices[kind].len().next_power_of_two();
            while size > 0 {
                shrink_by(&mut choices, kind, size, &mut breaks);
                size /= 2;
            }
        }
        if deliberate(&choices) == before {
            return choices;
        }
    }
}

/// One pass over one list, in pieces of `size`.
fn shrink_by(choices: &mut Made, kind: usize, size: usize, breaks: &mut impl FnMut(&Made) -> bool) {
    let mut at = 0;
    while at < choices[kind].len() {
        let end = (at + size).min(choices[kind].len());
        // A piece that is calm already is in nobody's way.
        if choices[kind][at..end].iter().any(|choice| *choice != 0) {
            let (mut calmed, mut dropped) = (choices.clone(), choices.clone());
            calmed[kind][at..end].fill(0);
            dropped[kind].drain(at..end);
            if breaks(&calmed) {
                *choices = calmed;
            } else if breaks(&dropped) {
                *choices = dropped;
                continue;
            }
        }
        at = end;
    }
}
