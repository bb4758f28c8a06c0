//! Sliding windows: exact up to a threshold of [`MAX_EXACT`], in buckets above it, one or several in one rule.
//!
//! The newest K times decide whether K events lie in `(t - within, t]`, whatever came before them; one list, as long as the
//! highest exact threshold asks for, serves every exact window. A late event completes windows that end at later events:
//! each stored end that it can reach is looked at.

use super::SPARE;
use crate::detectors::buckets::{Buckets, LEAST_WITHIN_MS, Sums, most_bytes};
use crate::detectors::{Figure, Firing, Look, Seen};
use crate::state::{Memory, Ring, Room};
use crate::time::format_duration_ms;

/// The highest threshold that is counted time by time.
pub const MAX_EXACT: u32 = 64;

/// One window with its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Events that must lie in it.
    pub at_least: u32,
    /// Its length, milliseconds.
    pub within_ms: i64,
}

impl Span {
    /// Whether it is kept in buckets.
    pub fn is_big(self) -> bool {
        self.at_least > MAX_EXACT
    }

    /// The shortest window that can be kept in buckets.
    pub const LEAST_BIG_MS: i64 = LEAST_WITHIN_MS;

    fn buckets(self) -> Buckets {
        Buckets { within_ms: self.within_ms }
    }

    /// "3 of 5 in 2m".
    pub fn progress(self, count: i64) -> String {
        format!("{count} of {} in {}", self.at_least, format_duration_ms(self.within_ms))
    }
}

/// Which of several windows must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// All, at one common end.
    All,
    /// Any.
    Any,
}

/// The windows of a rule, at least one.
#[derive(Debug, PartialEq, Eq)]
pub struct Sliding {
    /// In the rule's order.
    pub windows: Vec<Span>,
    /// Which of them must hold.
    pub fit: Fit,
}

/// A time at which windows may end, and the next event after it, as far as that is known (`None`: there is none).
#[derive(Debug, Clone, Copy)]
struct End {
    at_ms: i64,
    next_ms: Option<i64>,
}

/// What is remembered: [`Memory::Window`], borrowed.
#[derive(Debug, Clone, Copy)]
struct Kept<'m> {
    times_ms: &'m [i64],
    rings: &'m [Ring],
}

impl Kept<'_> {
    /// The newest event's time; with buckets only, the earliest that is in the newest bucket of every ring.
    fn newest_ms(self) -> Option<i64> {
        let ring = |ring: &Ring| ring.cells.last().map(|cell| Buckets { within_ms: ring.within_ms }.start_ms(cell.index));
        self.times_ms.last().copied().or_else(|| self.rings.iter().filter_map(ring).max())
    }
}

impl Sliding {
    /// What is remembered before the first event.
    pub fn memory(&self) -> Memory {
        Memory::Window { times_ms: Vec::new(), rings: self.big().map(|span| span.buckets().ring()).collect() }
    }

    fn big(&self) -> impl Iterator<Item = &Span> {
        self.windows.iter().filter(|span| span.is_big())
    }

    /// Times kept: none if every window is in buckets.
    fn bound(&self) -> usize {
        self.windows.iter().filter(|span| !span.is_big()).map(|span| span.at_least as usize + SPARE).max().unwrap_or(0)
    }

    /// The longest window, milliseconds.
    pub fn longest_ms(&self) -> i64 {
        self.windows.iter().map(|span| span.within_ms).max().unwrap_or(0)
    }

    /// The most bytes of its memory when encoded: a bucket's events take 5 bytes, its unused total 1; a time takes 7.
    pub fn most_bytes(&self) -> usize {
        2 + self.bound() * 7 + self.big().count() * most_bytes(6)
    }

    /// Counts an event.
    pub fn observe(&self, look: &Look<'_>, times_ms: &mut Vec<i64>, rings: &mut Vec<Ring>) -> Seen {
        self.adopt(times_ms, rings);
        let at_ms = look.at_ms;
        let before = Kept { times_ms, rings };
        let newest_ms = before.newest_ms().unwrap_or(i64::MIN);
        let here = End { at_ms: at_ms.max(newest_ms), next_ms: None };
        let lapsed = at_ms >= newest_ms && self.at(here, before).is_none();
        if self.bound() > 0 {
            times_ms.insert(times_ms.partition_point(|time| *time <= at_ms), at_ms);
        }
        for (span, ring) in self.big().zip(rings.iter_mut()) {
            span.buckets().add(ring, at_ms, look.lateness_ms, Sums { amount: 1, total: 0 });
        }
        let kept = Kept { times_ms, rings };
        let now = self.at(here, kept);
        let firing = if at_ms >= newest_ms { now } else { self.completed(at_ms, here, kept) };
        times_ms.drain(..times_ms.len().saturating_sub(self.bound()));
        let end_ms = at_ms.saturating_add(self.longest_ms());
        Seen { lapsed, firing, holds: now.is_some(), end_ms, room: Room::Free }
    }

    /// How far each window that ends at a time is from its threshold.
    pub fn progress(&self, end_ms: i64, times_ms: &[i64], rings: &[Ring]) -> String {
        let end = End { at_ms: end_ms, next_ms: None };
        let mut rings = rings.iter();
        let mut count = |span: &Span| match span.is_big() {
            true => rings.next().map_or(0, |ring| in_ring(*span, ring, end)),
            false => in_times(*span, times_ms, end),
        };
        let windows: Vec<String> = self.windows.iter().map(|span| span.progress(count(span))).collect();
        windows.join(if self.fit == Fit::All { " and " } else { " or " })
    }

    /// The windows that must hold together.
    fn groups(&self) -> impl Iterator<Item = &[Span]> {
        self.windows.chunks(if self.fit == Fit::All { self.windows.len().max(1) } else { 1 })
    }

    /// The first group that holds at an end.
    fn at(&self, end: End, kept: Kept<'_>) -> Option<Firing> {
        self.groups().enumerate().find_map(|(group, spans)| self.group_at(group, spans, end, kept))
    }

    /// Whether a group holds at an end; its first window speaks for it.
    fn group_at(&self, group: usize, spans: &[Span], end: End, kept: Kept<'_>) -> Option<Firing> {
        let first_big = self.windows.iter().take(group).filter(|span| span.is_big()).count();
        let mut rings = kept.rings.get(first_big..).unwrap_or_default().iter();
        let mut count = |span: &Span| match span.is_big() {
            true => rings.next().map_or(0, |ring| in_ring(*span, ring, end)),
            false => in_times(*span, kept.times_ms, end),
        };
        let counts = spans.iter().map(|span| (span, count(span)));
        let mut first = None;
        for (span, count) in counts {
            if count < i64::from(span.at_least) {
                return None;
            }
            first = first.or(Some(Firing { count: count.unsigned_abs(), within_ms: span.within_ms, figure: Figure::Events }));
        }
        first
    }

    /// What a late event completed: the first group that holds at one of the ends that the event's windows can have, with
    /// the highest count among those ends.
    fn completed(&self, at_ms: i64, newest: End, kept: Kept<'_>) -> Option<Firing> {
        self.groups().enumerate().find_map(|(group, spans)| {
            let longest_ms = spans.iter().map(|span| span.within_ms).max().unwrap_or(0);
            let reaches = |end: &End| at_ms > end.at_ms.saturating_sub(longest_ms);
            let holds = |end: End| self.group_at(group, spans, end, kept);
            let ends = self.ends(spans, at_ms, newest, kept);
            ends.into_iter().filter(reaches).filter_map(holds).max_by_key(|firing| firing.count)
        })
    }

    /// The ends that a group's windows may have at or after a time: the stored times, or the ends of the buckets of its
    /// shortest window if all are in buckets.
    fn ends(&self, spans: &[Span], at_ms: i64, newest: End, kept: Kept<'_>) -> Vec<End> {
        if spans.iter().any(|span| !span.is_big()) {
            let times = &kept.times_ms[kept.times_ms.partition_point(|time| *time < at_ms)..];
            let next = |time: i64| times.get(times.partition_point(|t| *t <= time)).copied();
            return times.iter().map(|time| End { at_ms: *time, next_ms: next(*time) }).collect();
        }
        let shortest_ms = spans.iter().map(|span| span.within_ms).min().unwrap_or(0);
        let Some(ring) = kept.rings.iter().find(|ring| ring.within_ms == shortest_ms) else { return Vec::new() };
        let buckets = Buckets { within_ms: shortest_ms };
        let cells = &ring.cells[ring.cells.partition_point(|cell| cell.index < buckets.index(at_ms))..];
        let pairs = cells.iter().zip(cells.iter().skip(1));
        let passed = pairs.map(|(cell, next)| End { at_ms: buckets.last_ms(cell.index), next_ms: Some(buckets.start_ms(next.index)) });
        passed.chain([newest]).collect()
    }

    /// Makes what an earlier form of the rule remembered fit this one: other windows count the same events. What is known
    /// only by its bucket counts as having happened when the bucket began.
    fn adopt(&self, times_ms: &mut Vec<i64>, rings: &mut Vec<Ring>) {
        let fits = rings.iter().map(|ring| ring.within_ms).eq(self.big().map(|span| span.within_ms));
        let lacks_times = self.bound() > 0 && times_ms.is_empty() && rings.iter().any(|ring| !ring.cells.is_empty());
        if fits && !lacks_times {
            return;
        }
        let longest = rings.iter().max_by_key(|ring| ring.within_ms).filter(|ring| !ring.cells.is_empty()).cloned();
        if let Some(ring) = longest.as_ref().filter(|_| lacks_times) {
            let buckets = Buckets { within_ms: ring.within_ms };
            let all = ring.cells.iter().flat_map(|cell| {
                let events = usize::try_from(cell.amount).unwrap_or(0).min(self.bound());
                std::iter::repeat_n(buckets.start_ms(cell.index), events)
            });
            times_ms.extend(all);
        }
        let before = std::mem::take(rings);
        rings.extend(self.big().map(|span| {
            let same = before.iter().find(|ring| ring.within_ms == span.within_ms);
            let mut ring = same.or(longest.as_ref()).cloned().unwrap_or_else(|| span.buckets().ring());
            span.buckets().adopt(&mut ring);
            if before.is_empty() {
                times_ms.iter().for_each(|time| span.buckets().add(&mut ring, *time, i64::MAX, Sums { amount: 1, total: 0 }));
            }
            ring
        }));
        times_ms.drain(..times_ms.len().saturating_sub(self.bound()));
    }
}

/// Events in `(end - within, end]`.
fn in_times(span: Span, times_ms: &[i64], end: End) -> i64 {
    let from = times_ms.partition_point(|time| *time <= end.at_ms.saturating_sub(span.within_ms));
    let to = times_ms.partition_point(|time| *time <= end.at_ms);
    to.saturating_sub(from) as i64
}

/// Events in the whole buckets of a window. The bucket of the end itself is left out if it may hold later events.
fn in_ring(span: Span, ring: &Ring, end: End) -> i64 {
    let buckets = span.buckets();
    let index = buckets.index(end.at_ms);
    let is_whole = end.next_ms.is_none_or(|next| buckets.index(next) > index);
    buckets.sums(ring, index, if is_whole { index } else { index - 1 }).amount
}
