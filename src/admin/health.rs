//! What the parts of the process say about themselves. Parts write, the endpoint reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The state of the process. A part is named after its thread: `lane 0`, `sink`.
#[derive(Debug, Default)]
pub struct Health {
    config_loaded: AtomicBool,
    broker_reached: AtomicBool,
    stopping: AtomicBool,
    parts: Mutex<BTreeMap<String, Part>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Announced; not at work yet.
    Expected,
    /// At work; this is still to be done.
    Waiting(String),
    Ready,
    Dead(String),
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Of what.
    pub name: String,
    /// What is wrong; nothing when it passed.
    pub problem: Option<String>,
}

impl Health {
    /// Settings, rules and flags were read and are valid.
    pub fn config_loaded(&self) {
        self.config_loaded.store(true, Ordering::Relaxed);
    }

    /// A broker answered. Its going away later is no matter of health: clients reconnect.
    pub fn broker_reached(&self) {
        self.broker_reached.store(true, Ordering::Relaxed);
    }

    /// The process was asked to stop: not ready from here on, alive until its end.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Announces a part before its thread starts, so that readiness waits for it.
    pub fn expect(&self, part: &str) {
        self.set(part, Part::Expected);
    }

    /// The part is at work, and not ready yet.
    pub fn started(&self, part: &str) {
        self.set(part, Part::Waiting("is starting".to_owned()));
    }

    /// The part is at work and waits for something: `restores 3 tasks`. The reason names no actor.
    pub fn waiting(&self, part: &str, reason: impl Into<String>) {
        self.set(part, Part::Waiting(reason.into()));
    }

    /// The part does its work: a lane whose owned tasks are all restored (also when it owns none).
    pub fn ready(&self, part: &str) {
        self.set(part, Part::Ready);
    }

    /// The part has ended and will not come back by itself; the process should be restarted. It stays dead.
    pub fn dead(&self, part: &str, reason: impl Into<String>) {
        self.set(part, Part::Dead(reason.into()));
    }

    /// The part ended as it should.
    pub fn ended(&self, part: &str) {
        self.parts().remove(part);
    }

    /// Whether a part has died: for the exit code.
    pub fn is_dead(&self) -> bool {
        self.parts().values().any(|part| matches!(part, Part::Dead(_)))
    }

    /// No part has died.
    pub fn live_checks(&self) -> Vec<Check> {
        self.check_parts(|part| match part {
            Part::Dead(reason) => Some(format!("died: {reason}")),
            _ => None,
        })
    }

    /// Everything began its work.
    pub fn startup_checks(&self) -> Vec<Check> {
        let mut checks = self.beginnings();
        checks.extend(self.check_parts(|part| match part {
            Part::Expected => Some("has not started".to_owned()),
            Part::Dead(reason) => Some(format!("died: {reason}")),
            Part::Waiting(_) | Part::Ready => None,
        }));
        checks
    }

    /// Everything does its work.
    pub fn ready_checks(&self) -> Vec<Check> {
        let mut checks = self.beginnings();
        checks.extend(self.check_parts(|part| match part {
            Part::Expected => Some("has not started".to_owned()),
            Part::Waiting(reason) => Some(reason.clone()),
            Part::Dead(reason) => Some(format!("died: {reason}")),
            Part::Ready => None,
        }));
        if self.stopping.load(Ordering::Relaxed) {
            checks.push(Check { name: "process".to_owned(), problem: Some("is stopping".to_owned()) });
        }
        checks
    }

    fn beginnings(&self) -> Vec<Check> {
        let check =
            |name: &str, passed: bool, problem: &str| Check { name: name.to_owned(), problem: (!passed).then(|| problem.to_owned()) };
        let mut checks = vec![
            check("config", self.config_loaded.load(Ordering::Relaxed), "is not loaded"),
            check("broker", self.broker_reached.load(Ordering::Relaxed), "has not been reached"),
        ];
        // While stopping, parts end one by one; before, no part means that nothing was started.
        if self.parts().is_empty() && !self.stopping.load(Ordering::Relaxed) {
            checks.push(check("parts", false, "none has started"));
        }
        checks
    }

    fn check_parts(&self, problem: impl Fn(&Part) -> Option<String>) -> Vec<Check> {
        self.parts().iter().map(|(name, part)| Check { name: name.clone(), problem: problem(part) }).collect()
    }

    /// A part that died while its thread unwinds may be told otherwise by a late caller: death stays.
    fn set(&self, name: &str, part: Part) {
        let mut parts = self.parts();
        if !matches!(parts.get(name), Some(Part::Dead(_))) {
            parts.insert(name.to_owned(), part);
        }
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(checks: &[Check]) -> bool {
        checks.iter().all(|check| check.problem.is_none())
    }

    fn running() -> Health {
        let health = Health::default();
        health.config_loaded();
        health.broker_reached();
        health.ready("lane 0");
        health.ready("sink");
        health
    }

    #[test]
    fn a_restore_after_a_rebalance_ends_readiness_but_not_life() {
        let health = running();
        assert!(passes(&health.ready_checks()));
        health.waiting("lane 0", "restores 2 tasks");
        assert!(!passes(&health.ready_checks()));
        assert!(passes(&health.startup_checks()) && passes(&health.live_checks()));
        health.ready("lane 0");
        assert!(passes(&health.ready_checks()));
    }

    #[test]
    fn one_dead_part_is_enough_and_it_stays_dead() {
        let health = running();
        health.dead("sink", "the disk is full");
        health.ready("sink");
        assert!(health.is_dead());
        assert!(!passes(&health.live_checks()) && !passes(&health.ready_checks()));
    }

    #[test]
    fn stopping_ends_readiness_only() {
        let health = running();
        health.stopping();
        assert!(!passes(&health.ready_checks()) && passes(&health.live_checks()));
        health.ended("lane 0");
        health.ended("sink");
        assert!(passes(&health.live_checks()) && passes(&health.startup_checks()) && !health.is_dead());
    }
}
