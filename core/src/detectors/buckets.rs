//! A window kept in sixty buckets, for what cannot be kept event by event: `sum`, `ratio`, and `count` with a high
//! threshold.
//!
//! Buckets are aligned to multiples of a sixtieth of the window, counted from the epoch. The window at a time is the bucket
//! of that time and the 59 before it, all of them whole. So everything in it lies within `within`: an event that is too old
//! is never in it. What it lacks of `(t - within, t]` is at most one bucket at the old end: that is the error.
//!
//! For events that come late, as many older buckets are kept as the allowed lateness spans, at most [`SPARE`]; windows that
//! end in one of those are looked at again. Windows that would reach past what is kept are not looked at: half a window may
//! have a higher sum or share than the whole.

use super::{Firing, Look, MAX_WITHIN_MS, Seen};
use crate::rule::load::codes;
use crate::rule::load::fields::{duration, of_setting};
use crate::rule::load::report::Report;
use crate::rule::load::tree::Node;
use crate::state::{Cell, Memory, Ring, Room};
use crate::time::format_duration_ms;
use std::cmp::Reverse;

/// Buckets of a window.
pub const BUCKETS: i64 = 60;
/// Buckets kept at most beyond a window, for late events: a quarter of it, and one.
pub const SPARE: i64 = 16;
/// The shortest window in buckets: one millisecond each.
pub const LEAST_WITHIN_MS: i64 = BUCKETS;
/// Where a bucket stops counting events, so that its encoding has a bound.
const FULL: i64 = u32::MAX as i64;

/// The most bytes of a ring when encoded, with `cell_bytes` for amount and total of a bucket.
pub const fn most_bytes(cell_bytes: usize) -> usize {
    // Length of the window, number of buckets, number of the first bucket; then for each its distance (2 bytes).
    16 + (BUCKETS + SPARE) as usize * (2 + cell_bytes)
}

/// What was added up over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Events, thousandths of a sum, hits.
    pub amount: i64,
    /// Events, where the amount is something else.
    pub total: i64,
}

/// How a window is cut into buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// Length of the window, milliseconds.
    pub within_ms: i64,
}

impl Buckets {
    /// Reads a `within`.
    pub fn read(node: &Node, report: &mut Report<'_>) -> Option<Buckets> {
        let within_ms = duration(node, "`within`", MAX_WITHIN_MS, report)?;
        if within_ms < LEAST_WITHIN_MS {
            let (given, least) = (format_duration_ms(within_ms), format_duration_ms(LEAST_WITHIN_MS));
            let message = format!("`within` is {given}{}, at least {least} are needed", of_setting(node));
            report.problem(codes::RANGE, node.at, message, Some("the window is kept in 60 buckets of 1ms or more".into()));
            return None;
        }
        Some(Buckets { within_ms })
    }

    /// An empty ring.
    pub fn ring(self) -> Ring {
        Ring { within_ms: self.within_ms, cells: Vec::new() }
    }

    /// The bucket of a time.
    pub fn index(self, at_ms: i64) -> i64 {
        at_ms.saturating_mul(BUCKETS).div_euclid(self.within_ms.max(1))
    }

    /// The first millisecond of a bucket.
    pub fn start_ms(self, index: i64) -> i64 {
        let (whole, rest) =
            (index.saturating_mul(self.within_ms).div_euclid(BUCKETS), index.saturating_mul(self.within_ms).rem_euclid(BUCKETS));
        whole.saturating_add(i64::from(rest > 0))
    }

    /// The last millisecond of a bucket.
    pub fn last_ms(self, index: i64) -> i64 {
        self.start_ms(index.saturating_add(1)).saturating_sub(1)
    }

    /// Makes a ring one of this window, if its rule had another `within` before: what a bucket held moves to the bucket in
    /// which the old one began. It may leave the window early by an old bucket's width, never late.
    pub fn adopt(self, ring: &mut Ring) {
        if ring.within_ms == self.within_ms {
            return;
        }
        let old = Buckets { within_ms: ring.within_ms };
        let cells = std::mem::take(&mut ring.cells);
        ring.within_ms = self.within_ms;
        for cell in cells {
            self.put(ring, self.index(old.start_ms(cell.index)), SPARE, Sums { amount: cell.amount, total: cell.total });
        }
    }

    /// Adds one event. One that is older than everything kept is left out.
    pub fn add(self, ring: &mut Ring, at_ms: i64, lateness_ms: i64, sums: Sums) {
        self.put(ring, self.index(at_ms), self.spare(lateness_ms), sums);
    }

    fn put(self, ring: &mut Ring, index: i64, spare: i64, sums: Sums) {
        let newest = ring.cells.last().map_or(index, |cell| cell.index.max(index));
        let oldest = newest.saturating_sub(BUCKETS + spare - 1);
        if index < oldest {
            return;
        }
        match ring.cells.binary_search_by_key(&index, |cell| cell.index) {
            // A bucket that is full takes no more: neither hits nor events, so that their share stays what it is.
            Ok(at) if ring.cells[at].total >= FULL || (sums.total == 0 && ring.cells[at].amount >= FULL) => {}
            Ok(at) => {
                let cell = &mut ring.cells[at];
                cell.amount = cell.amount.saturating_add(sums.amount);
                cell.total = cell.total.saturating_add(sums.total);
            }
            Err(at) => ring.cells.insert(at, Cell { index, amount: sums.amount, total: sums.total }),
        }
        let gone = ring.cells.partition_point(|cell| cell.index < oldest);
        ring.cells.drain(..gone);
    }

    /// How many buckets are kept beyond a window.
    fn spare(self, lateness_ms: i64) -> i64 {
        let wide = lateness_ms.saturating_mul(BUCKETS);
        wide.saturating_add(self.within_ms - 1).div_euclid(self.within_ms.max(1)).clamp(0, SPARE)
    }

    /// What the buckets after `end - 60`, up to `last`, add up to.
    pub fn sums(self, ring: &Ring, end: i64, last: i64) -> Sums {
        let from = ring.cells.partition_point(|cell| cell.index <= end.saturating_sub(BUCKETS));
        let (mut amount, mut total) = (0i128, 0i128);
        for cell in ring.cells[from..].iter().take_while(|cell| cell.index <= last) {
            amount += i128::from(cell.amount);
            total += i128::from(cell.total);
        }
        // Cut off once, at the end: the order in which buckets were filled does not matter.
        let cut = |sum: i128| sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Sums { amount: cut(amount), total: cut(total) }
    }

    /// Shows an event to a detector whose condition is about one window in buckets. `judge` answers what a window's sums
    /// mean; of several windows that contain a late event the one with the highest `rank` speaks.
    pub fn observe(
        self,
        ring: &mut Ring,
        look: &Look<'_>,
        sums: Sums,
        judge: impl Fn(Sums) -> Option<Firing>,
        rank: fn(&Firing) -> i64,
    ) -> Seen {
        self.adopt(ring);
        let index = self.index(look.at_ms);
        let before = ring.cells.last().map_or(i64::MIN, |cell| cell.index);
        let lapsed = index >= before && judge(self.sums(ring, index, index)).is_none();
        self.add(ring, look.at_ms, look.lateness_ms, sums);
        let newest = index.max(before);
        let first = index.max(newest.saturating_sub(self.spare(look.lateness_ms)));
        let from = ring.cells.partition_point(|cell| cell.index < first);
        let ends = ring.cells[from..].iter().map(|cell| cell.index).take_while(|end| end.saturating_sub(BUCKETS) < index);
        let firing = ends.filter_map(|end| judge(self.sums(ring, end, end))).min_by_key(|firing| Reverse(rank(firing)));
        let holds = judge(self.sums(ring, newest, newest)).is_some();
        Seen { lapsed, firing, holds, end_ms: look.at_ms.saturating_add(self.within_ms), room: Room::Free }
    }
}

/// What the window that ends at a time adds up to, for a detector that has one window and nothing else.
pub fn only_sums(buckets: Buckets, at_ms: i64, memory: &Memory) -> Option<Sums> {
    let Memory::Window { rings, .. } = memory else { return None };
    let index = buckets.index(at_ms);
    rings.first().filter(|ring| ring.within_ms == buckets.within_ms).map(|ring| buckets.sums(ring, index, index))
}

/// The ring of a detector that has one window and nothing else; what another detector left is dropped.
pub fn only_ring(buckets: Buckets, memory: &mut Memory) -> &mut Ring {
    if !matches!(memory, Memory::Window { times_ms, rings } if times_ms.is_empty() && rings.len() == 1) {
        *memory = Memory::Window { times_ms: Vec::new(), rings: vec![buckets.ring()] };
    }
    let Memory::Window { rings, .. } = memory else { unreachable!("it was made a window") };
    &mut rings[0]
}

#[cfg(test)]
mod tests;
