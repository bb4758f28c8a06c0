//! # sequence
//!
//! **What it detects.** Steps in their order within a time: five failed sign-ins, then one that succeeds. With `then_absent`,
//! steps after which something does not come: an export, and no approval within an hour. **Why it matters.** Each step is
//! ordinary; the order is the attack. **Signals.** One for each completed sequence, whose events are then used up, or one per
//! `once_per`; with `then_absent` one when the time for the answer has passed. **Tuning.** `within` from how long an attacker
//! can afford to wait between the first step and the last; `same` so that steps of different sessions are not put together.
//! **Example.** `detect: { sequence: { within: 10m, steps: [{id: guess, when: 'outcome == "fail"', times: 5}, {id: entry,
//! when: 'outcome == "ok"'}] } }`.
//!
//! Other events may lie between the steps. What is kept is the latest start of a way to each position ([`run`]): of all ways
//! to a position the one that started last is the last to leave the window, so it decides, and no other need be remembered.
//! In order that is exact. Events of the allowed lateness, at most [`run::MAX_RECENT`], are kept beside it; a straggler is put
//! in its place and what follows is computed again: exact, while they fit. One that is older than all that is kept of a full
//! list is not counted. What waits for an answer is in [`absence`].

mod absence;
mod load;
mod run;

use super::{Detector, Figure, Firing, Look, Row, Seen, tuple};
use crate::event::Event;
use crate::expr::Expr;
use crate::observation::MAX_OPENING_BYTES;
use crate::state::{Memory, Pending, Room, Run};
use absence::Absence;
use run::Ladder;

/// The row of the registry.
pub const ROW: Row = Row { name: "sequence", keys: &load::KEYS, read: load::read };

#[cfg(test)]
pub(crate) use load::{STEP, THEN_ABSENT};

/// The most runs, one for each value of the join fields, that are kept at a time. Of more, one that has not begun (it only
/// helps stragglers) goes first, then the one that moved longest ago.
pub const MAX_RUNS: usize = 4;
/// The bit of an event that `then_absent` waits for, in [`crate::state::Step::matches`].
const ANSWER: u16 = 1 << 14;
/// The bit of an event that clears the run.
const CANCEL: u16 = 1 << 15;

#[derive(Debug)]
struct Sequence {
    /// The predicates of the steps, in their order.
    steps: Vec<Expr>,
    ladder: Ladder,
    same: Vec<Expr>,
    cancel_on: Option<Expr>,
    then_absent: Option<Absence>,
}

/// A sequence that an event completed, or did after all not complete.
#[derive(Debug, Default, PartialEq, Eq)]
struct Completions {
    /// Times of those that were not there before.
    new: Vec<i64>,
    /// Times of those that are there no more: a straggler came before them.
    gone: Vec<i64>,
}

impl Sequence {
    /// What an event matches, one bit each.
    fn matches(&self, event: &Event<'_>) -> u16 {
        let bit = |there: bool, bit: u16| if there { bit } else { 0 };
        let steps = self.steps.iter().enumerate().map(|(at, when)| bit(when.holds(event), 1 << at)).sum::<u16>();
        let answers = self.then_absent.as_ref().is_some_and(|absence| absence.when.holds(event));
        let cancels = self.cancel_on.as_ref().is_some_and(|when| when.holds(event));
        steps | bit(answers, ANSWER) | bit(cancels, CANCEL)
    }

    fn firing(&self) -> Firing {
        Firing { count: self.ladder.length() as u64, within_ms: self.ladder.within_ms, figure: Figure::Steps }
    }

    fn see(&self, look: &Look<'_>, join: u64, matches: u16, runs: &mut Vec<Run>, pending: &mut Vec<Pending>) -> Seen {
        let at_ms = look.at_ms;
        // Nothing older than this comes any more; without lateness the order of arrival is the order.
        let newest_ms = runs.iter().map(|run| run.newest_ms).fold(at_ms, i64::max);
        let settled_ms = if look.lateness_ms == 0 { at_ms } else { newest_ms.saturating_sub(look.lateness_ms) };
        let mut run = match runs.binary_search_by_key(&join, |run| run.join) {
            Ok(at) => runs.remove(at),
            Err(_) => Run { join, newest_ms: at_ms, starts_ms: Vec::new(), recent: Vec::new() },
        };
        let completions = self.ladder.take(&mut run, at_ms, matches);
        let mut room = Room::Free;
        if let Some(absence) = &self.then_absent {
            absence.forget(settled_ms, pending);
            room = absence.follow(look, matches & ANSWER != 0, &run, &completions, pending);
        }
        runs.insert(runs.partition_point(|other| other.join < join), run);
        runs.iter_mut().for_each(|run| self.ladder.settle(run, settled_ms, look.lateness_ms == 0));
        runs.retain(|run| !run.recent.is_empty() || !run.starts_ms.is_empty());
        if runs.len() > MAX_RUNS
            && let Some(oldest) = (0..runs.len()).min_by_key(|at| (self.ladder.is_under_way(&runs[*at]), runs[*at].newest_ms))
            && self.ladder.is_under_way(&runs.remove(oldest))
        {
            room = Room::Dropped;
        }
        let last_due_ms = pending.iter().map(|p| p.due_ms).max().unwrap_or(i64::MIN);
        let fires = self.then_absent.is_none() && !completions.new.is_empty();
        Seen {
            // Each completed sequence is an edge of its own.
            lapsed: true,
            firing: fires.then(|| self.firing()),
            holds: false,
            end_ms: at_ms.saturating_add(self.ladder.within_ms).max(last_due_ms),
            room,
        }
    }
}

impl Detector for Sequence {
    fn name(&self) -> &'static str {
        ROW.name
    }

    fn memory(&self) -> Option<Memory> {
        Some(Memory::Sequence { runs: Vec::new(), pending: Vec::new() })
    }

    fn observe(&self, look: &Look<'_>, memory: &mut Memory) -> Seen {
        if !matches!(memory, Memory::Sequence { .. }) {
            *memory = Memory::Sequence { runs: Vec::new(), pending: Vec::new() };
        }
        let Memory::Sequence { runs, pending } = memory else { unreachable!("it was made a sequence") };
        let matches = self.matches(look.event());
        match tuple::hash(&self.same, look.event()) {
            Some(join) if matches != 0 => self.see(look, join, matches, runs, pending),
            // It lacks one of the join fields, or is none of the steps: it takes no part.
            _ => Seen { lapsed: true, firing: None, holds: false, end_ms: look.at_ms, room: Room::Free },
        }
    }

    fn window_ms(&self) -> i64 {
        self.ladder.within_ms.max(self.then_absent.as_ref().map_or(0, |absence| absence.within_ms))
    }

    fn most_bytes(&self) -> usize {
        // A time takes 7 bytes at most, as its distance from another; a count up to 64, and up to a pack's sizes, 1 and 2.
        let run = 8 + 7 + 1 + self.ladder.length() * 7 + 1 + run::MAX_RECENT * (7 + 3);
        let pending = 8 + 7 + 7 + 2 + MAX_OPENING_BYTES;
        2 + MAX_RUNS * run + self.then_absent.as_ref().map_or(0, |_| absence::MAX_PENDING * pending)
    }

    fn expressions(&self) -> Vec<&Expr> {
        self.alternatives().into_iter().chain(&self.same).collect()
    }

    fn alternatives(&self) -> Vec<&Expr> {
        let answer = self.then_absent.as_ref().map(|absence| &absence.when);
        self.steps.iter().chain(&self.cancel_on).chain(answer).collect()
    }

    fn due(&self) -> Option<Firing> {
        let within_ms = self.then_absent.as_ref()?.within_ms;
        Some(Firing { count: self.ladder.length() as u64, within_ms, figure: Figure::Absence })
    }
}

#[cfg(test)]
mod tests;
