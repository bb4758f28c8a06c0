//! How far a sequence came for one value of the join fields.
//!
//! Steps are laid out into positions, each `times` times. For each position that was reached the latest start of a way there
//! is kept. An event moves a position if it matches its step: the way to the position before goes on to this one. Positions
//! are looked at from the last to the first, so that one event takes one position. Source: how WINEPI recognises serial
//! episodes (Mannila, Toivonen, Verkamo: Discovery of Frequent Episodes in Event Sequences, 1997).

use super::{CANCEL, Completions};
use crate::state::{Run, Step};

/// The most events that are kept for stragglers.
pub const MAX_RECENT: usize = 64;

/// The positions of a sequence, and the time for all of them.
#[derive(Debug)]
pub struct Ladder {
    /// For each position the bit of its step.
    pub positions: Vec<u16>,
    /// From the first event to the last, milliseconds: the last lies in `(first, first + within)`.
    pub within_ms: i64,
}

impl Ladder {
    /// How many events make a sequence.
    pub fn length(&self) -> usize {
        self.positions.len()
    }

    /// Puts an event in its place among the recent ones and computes what follows again.
    pub fn take(&self, run: &mut Run, at_ms: i64, matches: u16) -> Completions {
        let place = run.recent.partition_point(|step| step.at_ms <= at_ms);
        // Of what a full list has let go, something may be newer than an event that is older than all that it kept.
        if place == 0 && run.recent.len() >= MAX_RECENT {
            return Completions::default();
        }
        run.newest_ms = run.newest_ms.max(at_ms);
        run.recent.insert(place, Step { at_ms, matches, completed: false });
        let mut completions = Completions::default();
        let mut starts_ms = run.starts_ms.clone();
        for step in &mut run.recent {
            let completed = self.advance(&mut starts_ms, step);
            match (step.completed, completed) {
                (false, true) => completions.new.push(step.at_ms),
                (true, false) => completions.gone.push(step.at_ms),
                _ => (),
            }
            step.completed = completed;
        }
        completions
    }

    /// Whether it has begun: some position was reached.
    pub fn is_under_way(&self, run: &Run) -> bool {
        let mut starts_ms = run.starts_ms.clone();
        for step in &run.recent {
            self.advance(&mut starts_ms, step);
        }
        !starts_ms.is_empty()
    }

    /// Folds events that nothing comes before any more (`all` of them without lateness), and what there is no room for, into
    /// the starts; and forgets starts that are too old for every event to come.
    pub fn settle(&self, run: &mut Run, settled_ms: i64, all: bool) {
        let settled = if all { run.recent.len() } else { run.recent.partition_point(|step| step.at_ms < settled_ms) };
        let settled = settled.max(run.recent.len().saturating_sub(MAX_RECENT));
        let mut starts_ms = std::mem::take(&mut run.starts_ms);
        for step in run.recent.drain(..settled) {
            self.advance(&mut starts_ms, &step);
        }
        let oldest_ms = settled_ms.saturating_sub(self.within_ms);
        starts_ms.truncate(starts_ms.partition_point(|start| *start > oldest_ms));
        run.starts_ms = starts_ms;
    }

    /// Moves the starts on by one event; answers whether it completed the sequence, which then begins anew.
    fn advance(&self, starts_ms: &mut Vec<i64>, step: &Step) -> bool {
        if step.matches & CANCEL != 0 {
            starts_ms.clear();
        }
        let oldest_ms = step.at_ms.saturating_sub(self.within_ms);
        let reached = starts_ms.len();
        for position in (0..=reached.min(self.length() - 1)).rev().filter(|at| self.positions[*at] & step.matches != 0) {
            let start_ms = if position == 0 { step.at_ms } else { starts_ms[position - 1] };
            if start_ms <= oldest_ms {
                continue;
            }
            if position == self.length() - 1 {
                starts_ms.clear();
                return true;
            }
            match starts_ms.get_mut(position) {
                Some(latest_ms) => *latest_ms = start_ms.max(*latest_ms),
                None => starts_ms.push(start_ms),
            }
        }
        false
    }
}
