//! What became of a test.

use crate::rule::case::{Case, Origin};
use std::fmt;

/// How a test is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As the test says.
    Plain,
    /// The state is written and read again after every event: nothing may be lost. Agrees with plain to the byte.
    Reloaded,
    /// Every event is delivered twice: nothing may count double. Agrees with plain to the byte.
    Twice,
    /// Events arrive in other orders, each within the allowed lateness: as many signals about the same entities.
    Shuffled,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Plain => "plain",
            Way::Reloaded => "state reloaded",
            Way::Twice => "delivered twice",
            Way::Shuffled => "arrival shuffled",
        })
    }
}

/// A way in which a test did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Which way.
    pub way: Way,
    /// What was expected and what came, with times from the test's start.
    pub said: String,
}

/// A way that means nothing for this test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Which way.
    pub way: Way,
    /// Why.
    pub why: String,
}

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub at: Origin,
    /// The events it made.
    pub events: usize,
    /// The ways it was run.
    pub ran: Vec<Way>,
    /// The ways that mean nothing for it.
    pub skipped: Vec<Skipped>,
    /// What did not hold.
    pub failed: Vec<Failed>,
    /// Why it was not run at all: then it shows nothing.
    pub not_run: Option<String>,
}

/// The most failures that are told of one test; the rest would say the same.
const MAX_FAILED: usize = 20;

impl CaseReport {
    pub(super) fn new(case: &Case, events: usize) -> CaseReport {
        let (name, at) = (case.name.clone(), case.at.clone());
        CaseReport { name, at, events, ran: Vec::new(), skipped: Vec::new(), failed: Vec::new(), not_run: None }
    }

    pub(super) fn fail(&mut self, way: Way, said: String) {
        if self.failed.len() < MAX_FAILED {
            self.failed.push(Failed { way, said });
        }
    }

    pub(super) fn fail_if(&mut self, way: Way, said: Option<String>) {
        if let Some(said) = said {
            self.fail(way, said);
        }
    }

    /// Whether it was run, and all that it says held every way.
    pub fn is_ok(&self) -> bool {
        self.not_run.is_none() && self.failed.is_empty() && !self.ran.is_empty()
    }
}
