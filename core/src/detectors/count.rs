//! # count
//!
//! **What it detects.** At least K events within a time. **Why it matters.** Guessing, scanning and bursts are many of
//! something ordinary. **Signals.** On the edge (once, when the K-th event comes; again after the count fell below K, or
//! `once_per` later while it stays), or on every event at and past the threshold. **Tuning.** K from what normal actors
//! do at their busiest (p99.9), the window from how slow an attacker can afford to be.
//! **Example.** `detect: { count: { at_least: 20, within: 60s } }`.
//!
//! Sliding windows are `(t - within, t]` and exact: the newest K times decide whether K events lie in a window, whatever
//! came before them. [`SPARE`] more are kept for events that arrive out of order. Fixed windows start with their first hit
//! and run in arrival order, as anomaly-infra's counters do.

use super::{Detector, Figure, Firing, Look, Row, Seen};
use crate::expr::Scope;
use crate::rule::Rhythm;
use crate::rule::load::codes;
use crate::rule::load::fields::{Fields, Keys, duration, of_setting, whole, word};
use crate::rule::load::report::Report;
use crate::rule::load::tree::{Node, Tree};
use crate::state::{Memory, Room};

/// The row of the registry.
pub const ROW: Row = Row { name: "count", keys: &KEYS, read };

const KEYS: Keys = Keys { what: "`count`", known: &["at_least", "within", "window", "firing"], later: &["all_of", "any_of"] };

/// Times kept beyond the threshold, so that a straggler does not push out one that still decides.
pub const SPARE: usize = 4;
/// The highest threshold of a sliding window, which is exact.
pub const MAX_SLIDING: i64 = 64;
/// The highest threshold of a fixed window.
pub const MAX_FIXED: i64 = 1_000_000;

/// How the window is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Window {
    /// `(t - within, t]`, exact.
    Sliding,
    /// Starts with the first hit and ends `within` later; the next hit starts a new one. In arrival order.
    Fixed,
}

#[derive(Debug)]
struct Count {
    at_least: u32,
    within_ms: i64,
    window: Window,
    rhythm: Rhythm,
}

fn read(node: &Node, _: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    let fields = Fields::open(node, &KEYS, report)?;
    let within_ms = fields.need("within", report).and_then(|n| duration(n, "`within`", super::MAX_WITHIN_MS, report));
    let window = fields
        .get("window")
        .map_or(Some(Window::Sliding), |n| word(n, "`window`", &[("sliding", Window::Sliding), ("fixed", Window::Fixed)], report));
    let rhythm = fields
        .get("firing")
        .map_or(Some(Rhythm::Edge), |n| word(n, "`firing`", &[("edge", Rhythm::Edge), ("every", Rhythm::Every)], report));
    let at_least = fields.need("at_least", report).and_then(|n| at_least(n, window?, report));
    Some(Box::new(Count { at_least: at_least?, within_ms: within_ms?, window: window?, rhythm: rhythm? }))
}

fn at_least(node: &Node, window: Window, report: &mut Report<'_>) -> Option<u32> {
    let limit = match window {
        Window::Sliding => MAX_SLIDING,
        Window::Fixed => MAX_FIXED,
    };
    match node.value {
        Tree::Int(given) if given > limit && window == Window::Sliding => {
            let message = format!("`at_least` is {given}{}, a sliding window is exact up to {MAX_SLIDING}", of_setting(node));
            report.problem(codes::RANGE, node.at, message, Some("write `window: fixed` for a higher threshold".into()));
            None
        }
        Tree::Int(given) if given < 1 => {
            let message = format!("`at_least` is {given}{}, it must be 1 to {limit}", of_setting(node));
            report.problem(codes::RANGE, node.at, message, Some("1 fires on every event that passes `when`".into()));
            None
        }
        _ => whole(node, "`at_least`", 1..=limit, report).and_then(|n| u32::try_from(n).ok()),
    }
}

impl Count {
    fn firing(&self, count: u64) -> Firing {
        Firing { count, within_ms: self.within_ms, figure: Figure::Events }
    }

    fn fixed(&self, at_ms: i64, memory: &mut Memory) -> Seen {
        let (now, end_ms) = match memory {
            Memory::Fixed { end_ms, count } if at_ms < *end_ms => {
                *count = count.saturating_add(1);
                (*count, *end_ms)
            }
            _ => {
                let end_ms = at_ms.saturating_add(self.within_ms);
                *memory = Memory::Fixed { end_ms, count: 1 };
                (1, end_ms)
            }
        };
        let met = now >= self.at_least;
        Seen { lapsed: now <= self.at_least, firing: met.then(|| self.firing(now.into())), holds: met, end_ms, room: Room::Free }
    }

    fn sliding(&self, at_ms: i64, times_ms: &mut Vec<i64>) -> Seen {
        let k = self.at_least as usize;
        let window = |end_ms: i64, times: &[i64]| {
            times.partition_point(|t| *t <= end_ms) - times.partition_point(|t| *t <= end_ms.saturating_sub(self.within_ms))
        };
        let newest_ms = times_ms.last().copied().unwrap_or(i64::MIN);
        let lapsed = at_ms >= newest_ms && window(at_ms, times_ms) < k;
        let at = times_ms.partition_point(|t| *t <= at_ms);
        times_ms.insert(at, at_ms);
        // A straggler completes a window that ends at a later event: look at each stored window that contains it.
        let completed = times_ms[at..]
            .iter()
            .take_while(|end| at_ms > end.saturating_sub(self.within_ms))
            .map(|end| window(*end, times_ms))
            .max()
            .unwrap_or(0);
        let holds = window(at_ms.max(newest_ms), times_ms) >= k;
        let surplus = times_ms.len().saturating_sub(k + SPARE);
        times_ms.drain(..surplus);
        let firing = (completed >= k).then(|| self.firing(completed as u64));
        Seen { lapsed, firing, holds, end_ms: at_ms.saturating_add(self.within_ms), room: Room::Free }
    }
}

impl Detector for Count {
    fn name(&self) -> &'static str {
        ROW.name
    }

    fn memory(&self) -> Option<Memory> {
        Some(Memory::Window { times_ms: Vec::new(), rings: Vec::new() })
    }

    fn observe(&self, look: &Look<'_>, memory: &mut Memory) -> Seen {
        if self.window == Window::Fixed {
            return self.fixed(look.at_ms, memory);
        }
        if !matches!(memory, Memory::Window { .. }) {
            *memory = Memory::Window { times_ms: Vec::new(), rings: Vec::new() };
        }
        let Memory::Window { times_ms, .. } = memory else { unreachable!("it was made a window") };
        self.sliding(look.at_ms, times_ms)
    }

    fn rhythm(&self) -> Rhythm {
        self.rhythm
    }

    fn cools_down(&self) -> bool {
        self.window == Window::Sliding
    }

    fn window_ms(&self) -> i64 {
        self.within_ms
    }

    fn most_bytes(&self) -> usize {
        match self.window {
            Window::Fixed => 12,
            Window::Sliding => (self.at_least as usize + SPARE) * 5 + 2,
        }
    }
}
