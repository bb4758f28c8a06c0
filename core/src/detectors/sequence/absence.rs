//! `then_absent`: a completed sequence does not fire, it waits for an answer; when none came in its time, it fires.
//!
//! Whether a further sequence is part of one that waits is judged by event time alone, so one that has fired is remembered
//! until its time lies behind: whether it fired before or after a further event arrived depends on other entities' events.
//! A sequence that arrives out of order, completed by a straggler, is answered by what is known already.

use super::{ANSWER, Completions};
use crate::detectors::Look;
use crate::expr::Expr;
use crate::state::{Pending, Room, Run};

/// The most sequences that wait at a time, for one entity (and sub-key).
pub const MAX_PENDING: usize = 4;

#[derive(Debug)]
pub struct Absence {
    /// The answer.
    pub when: Expr,
    /// The time for it, milliseconds: it counts in `(completed, completed + within]`.
    pub within_ms: i64,
}

impl Absence {
    /// Takes an answer: what waits for it waits no more.
    pub fn answer(&self, join: u64, at_ms: i64, pending: &mut Vec<Pending>) {
        pending.retain(|p| !p.waits() || p.join != join || at_ms <= p.opened_ms || at_ms > p.due_ms);
    }

    /// Forgets what fired and covers nothing that may still come.
    pub fn forget(&self, settled_ms: i64, pending: &mut Vec<Pending>) {
        pending.retain(|p| p.waits() || p.due_ms > settled_ms);
    }

    /// Opens what an event completed, and takes back what after all was not completed.
    pub fn follow(&self, look: &Look<'_>, run: &Run, completions: &Completions, pending: &mut Vec<Pending>) -> Room {
        pending.retain(|p| !p.waits() || p.join != run.join || !completions.gone.contains(&p.opened_ms));
        let mut room = Room::Free;
        for &at_ms in &completions.new {
            if self.open(look, run, at_ms, pending) == Room::Dropped {
                room = Room::Dropped;
            }
        }
        room
    }

    fn open(&self, look: &Look<'_>, run: &Run, opened_ms: i64, pending: &mut Vec<Pending>) -> Room {
        let due_ms = opened_ms.saturating_add(self.within_ms);
        let answered = run.recent.iter().any(|s| s.matches & ANSWER != 0 && s.at_ms > opened_ms && s.at_ms <= due_ms);
        let covered = |p: &&Pending| p.join == run.join && opened_ms < p.due_ms && (p.opened_ms <= opened_ms || !p.waits());
        if answered || pending.iter().any(|p| covered(&p)) {
            return Room::Free;
        }
        // One that was opened later and lies in the time of this one is part of this one.
        pending.retain(|p| p.join != run.join || !p.waits() || p.opened_ms <= opened_ms || p.opened_ms >= due_ms);
        if pending.len() >= MAX_PENDING {
            match pending.iter().position(|p| !p.waits()) {
                Some(fired) => _ = pending.remove(fired),
                None => return Room::Dropped,
            }
        }
        let place = pending.partition_point(|p| p.due_ms <= due_ms);
        pending.insert(place, Pending { join: run.join, opened_ms, due_ms, opening: look.observation.opening() });
        Room::Free
    }
}
