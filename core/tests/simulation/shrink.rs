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
        self.trace.iter().try_for_each(|step| writeln!(f, "  {step}"))?;
        write!(f, "again: TRIPLINE_SEED={} TRIPLINE_SCHEDULES=1 cargo test -p tripline-core --test simulation", self.seed)
    }
}

/// Runs schedules with seeds from `first` on, until one breaks a promise; that one is shrunk.
pub fn search(first: u64, schedules: u64, bug: Option<Bug>) -> Result<Sights, Box<Found>> {
    let mut sights = Sights::new();
    for tries in 0..schedules {
        let seed = first.wrapping_add(tries);
        let report = catch_unwind(AssertUnwindSafe(|| schedule::run(Choices::drawn(seed), bug, false)));
        let Ok(report) = report else {
            let violation = "a panic, see above".to_owned();
            return Err(Box::new(Found { seed, tries: tries + 1, violation, choices: Made::default(), trace: Vec::new() }));
        };
        for (seen, count) in &report.sights {
            *sights.entry(*seen).or_default() += count;
        }
        if report.violation.is_some() {
            let Report { violation, choices, trace, .. } = schedule::run(Choices::again(&shrink(report.choices, bug)), bug, true);
            let violation = violation.unwrap_or_else(|| "the schedule is not a function of its choices".into());
            return Err(Box::new(Found { seed, tries: tries + 1, violation, choices, trace }));
        }
    }
    Ok(sights)
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
