//! `then_absent`: a completed sequence does not fire, it waits for an answer; when none came in its time, it fires.
//!
//! Whether a further sequence is part of one that waits is judged by event time alone, so one that has fired is remembered
//! until its time lies behind: whether it fired before or after a further event arrived depends on other entities' events.
//! A sequence that a straggler completes is answered by what is known already.

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
    /// Forgets what fired and covers nothing that may still come.
    pub fn forget(&self, settled_ms: i64, pending: &mut Vec<Pending>) {
        pending.retain(|p| p.waits() || p.due_ms > settled_ms);
    }

    /// Does what an event means for what waits: it may be an answer, and it changed which recent events complete a sequence.
    /// What waits because of recent events is found anew, in their order. It keeps the observation that opened it; what was
    /// part of another that waits no more gets that one's.
    pub fn follow(&self, look: &Look<'_>, answers: bool, run: &Run, completions: &Completions, pending: &mut Vec<Pending>) -> Room {
        let answered = |p: &Pending| answers && look.at_ms > p.opened_ms && look.at_ms <= p.due_ms;
        let is_recent = |time: i64| completions.gone.contains(&time) || run.recent.iter().any(|s| s.completed && s.at_ms == time);
        let (before, others): (Vec<Pending>, Vec<Pending>) =
            std::mem::take(pending).into_iter().partition(|p| p.waits() && p.join == run.join && (answered(p) || is_recent(p.opened_ms)));
        *pending = others;
        let mut room = Room::Free;
        for opened_ms in run.recent.iter().filter(|step| step.completed).map(|step| step.at_ms) {
            let due_ms = opened_ms.saturating_add(self.within_ms);
            let is_answered = run.recent.iter().any(|s| s.matches & ANSWER != 0 && s.at_ms > opened_ms && s.at_ms <= due_ms);
            let covers = |p: &Pending| p.join == run.join && opened_ms < p.due_ms && (p.opened_ms <= opened_ms || !p.waits());
            if is_answered || pending.iter().any(covers) {
                continue;
            }
            let same = before.iter().find(|p| p.opened_ms == opened_ms);
            let opening = match same.or_else(|| before.iter().find(|p| covers(p))) {
                Some(p) => p.opening.clone(),
                None if completions.new.contains(&opened_ms) => look.observation.opening(),
                // There was no room for it when it was completed.
                None => continue,
            };
            if insert(pending, Pending { join: run.join, opened_ms, due_ms, opening }) == Room::Dropped {
                room = Room::Dropped;
            }
        }
        room
    }
}

/// Puts one more among those that wait, in the order of their due times. When that many wait, it is not taken.
fn insert(pending: &mut Vec<Pending>, new: Pending) -> Room {
    if pending.len() >= MAX_PENDING {
        match pending.iter().position(|p| !p.waits()) {
            Some(fired) => _ = pending.remove(fired),
            None => return Room::Dropped,
        }
    }
    let place = pending.partition_point(|p| p.due_ms <= new.due_ms);
    pending.insert(place, new);
    Room::Free
}
