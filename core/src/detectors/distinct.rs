//! # distinct
//!
//! **What it detects.** At least K different values of something within a time: routes, addresses, accounts. **Why it
//! matters.** One page asked for often is a reload; many pages asked for once are a search. **Signals.** On the edge: once
//! when the K-th value comes; again after their number fell below K, or `once_per` later while it stays. **Tuning.** K from
//! what normal actors reach at their busiest, and a value that they cannot vary by accident (`route`, not `path`).
//! **Example.** `detect: { distinct: { of: route, at_least: 8, within: 5m } }`.
//!
//! The K values seen last decide whether K values lie in `(t - within, t]`, whatever came before them: exact but for
//! collisions of 64-bit hashes. Above [`MAX_EXACT`] only values whose hash falls into a 1/2^s share are kept, and their
//! number is compared with K/2^s: see docs/adr/0011-distinct-by-sampling-values.md.

use super::{Detector, Figure, Firing, Look, MAX_WITHIN_MS, Row, Seen};
use crate::event::Event;
use crate::expr::{Expr, Scope};
use crate::hash;
use crate::rule::load::fields::{Fields, Keys, duration, whole};
use crate::rule::load::report::Report;
use crate::rule::load::rule::expression;
use crate::rule::load::tree::Node;
use crate::state::{Memory, Room};
use crate::time::format_duration_ms;

/// The row of the registry.
pub const ROW: Row = Row { name: "distinct", keys: &KEYS, read };

const KEYS: Keys = Keys { what: "`distinct`", known: &["of", "at_least", "within"], later: &[] };

/// Values kept beyond the threshold, so that a straggler does not push out one that still decides.
pub const SPARE: usize = 4;
/// Earlier times of values that were seen again, kept at most; none where lateness is not judged.
pub const EARLIER: usize = 16;
/// The highest threshold for which every value is kept.
pub const MAX_EXACT: u32 = 256;
/// The highest threshold.
pub const MAX_AT_LEAST: i64 = 1_000_000;

#[derive(Debug)]
struct Distinct {
    of: Expr,
    within_ms: i64,
    sample: Sample,
}

/// Which values are kept, and how many of them make a firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// One in 2^shift values is kept.
    shift: u32,
    /// Values kept that make a firing.
    at_least: usize,
}

impl Sample {
    /// The largest share that keeps a threshold of at most [`MAX_EXACT`].
    fn of(at_least: u32) -> Sample {
        let shift = (0..32).find(|shift| at_least >> shift <= MAX_EXACT).unwrap_or(31);
        Sample { shift, at_least: at_least.div_ceil(1 << shift) as usize }
    }

    /// Whether a value is kept: by the upper bits of its hash.
    fn keeps(self, hash: u64) -> bool {
        self.shift == 0 || hash >> (64 - self.shift) == 0
    }
}

fn read(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    let fields = Fields::open(node, &KEYS, report)?;
    let of = fields.need("of", report).and_then(|n| expression(n, "`of`", scope?, report));
    let at_least = fields.need("at_least", report).and_then(|n| whole(n, "`at_least`", 1..=MAX_AT_LEAST, report));
    let within_ms = fields.need("within", report).and_then(|n| duration(n, "`within`", MAX_WITHIN_MS, report));
    let sample = Sample::of(u32::try_from(at_least?).ok()?);
    Some(Box::new(Distinct { of: of?, within_ms: within_ms?, sample }))
}

/// Where a hash stands. Eight at a time without a branch between them, so that it becomes vector instructions.
fn position(values: &[u64], hash: u64) -> Option<usize> {
    let (eights, _) = values.as_chunks::<8>();
    let hit = |eight: &[u64; 8]| eight.iter().fold(false, |found, value| found | (*value == hash));
    let from = eights.iter().position(hit).unwrap_or(eights.len()) * 8;
    values[from..].iter().position(|value| *value == hash).map(|at| from + at)
}

/// How many times lie in `(end - within, end]`.
fn within(times_ms: &[i64], end_ms: i64, within_ms: i64) -> usize {
    let from = times_ms.partition_point(|time| *time <= end_ms.saturating_sub(within_ms));
    times_ms.partition_point(|time| *time <= end_ms).saturating_sub(from)
}

impl Distinct {
    fn show(&self, hash: u64, look: &Look<'_>, values: &mut Vec<u64>, times_ms: &mut Vec<i64>) -> Seen {
        let (at_ms, k) = (look.at_ms, self.sample.at_least);
        let mut earlier = Earlier::split_off(values, times_ms);
        self.drop_strangers(values, times_ms, &mut earlier);
        let before_ms = times_ms.last().copied().unwrap_or(i64::MIN);
        let newest_ms = at_ms.max(before_ms);
        let lapsed = at_ms >= before_ms && within(times_ms, at_ms, self.within_ms) < k;
        if let Some(followed_ms) = see(hash, at_ms, values, times_ms).filter(|_| look.lateness_ms > 0) {
            earlier.note(hash, followed_ms, newest_ms.saturating_sub(look.lateness_ms));
        }
        let now = within(times_ms, newest_ms, self.within_ms);
        let most = if at_ms >= before_ms { now } else { self.completed(hash, at_ms, values, times_ms, &earlier) };
        // What no event within the allowed lateness can reach any more, then what is not needed to decide.
        let horizon_ms = newest_ms.saturating_sub(self.within_ms).saturating_sub(look.lateness_ms);
        let surplus = times_ms.partition_point(|time| *time <= horizon_ms).max(times_ms.len().saturating_sub(k + SPARE));
        times_ms.drain(..surplus);
        values.drain(..surplus);
        earlier.put_back(horizon_ms, values, times_ms);
        let count = (most as u64) << self.sample.shift;
        let firing = (most >= k).then_some(Firing { count, within_ms: self.within_ms, figure: Figure::Values });
        Seen { lapsed, firing, holds: now >= k, end_ms: at_ms.saturating_add(self.within_ms), room: Room::Free }
    }

    /// The most values in a window that contains a late event and ends when that event, or some value, was seen last. A value
    /// that was seen again after the end counts if an earlier time is known; the event's own does.
    fn completed(&self, hash: u64, at_ms: i64, values: &[u64], times_ms: &[i64], earlier: &Earlier) -> usize {
        let last_seen_ms = |value: u64| position(values, value).map_or(i64::MIN, |at| times_ms[at]);
        let sightings: Vec<(i64, i64)> = std::iter::once((at_ms, last_seen_ms(hash)))
            .chain(earlier.0.iter().filter(|(value, _)| *value != hash).map(|(value, time)| (*time, last_seen_ms(*value))))
            .collect();
        let seen_again = |end: i64| {
            let counts = |(time, last): &&(i64, i64)| *last > end && *time <= end && *time > end.saturating_sub(self.within_ms);
            sightings.iter().filter(counts).count()
        };
        let later = times_ms[times_ms.partition_point(|time| *time < at_ms)..].iter().copied();
        let known = earlier.0.iter().map(|(_, time)| *time).filter(|time| *time > at_ms);
        let ends = std::iter::once(at_ms).chain(later).chain(known).filter(|end| at_ms > end.saturating_sub(self.within_ms));
        ends.map(|end| within(times_ms, end, self.within_ms) + seen_again(end)).max().unwrap_or(0)
    }

    /// Values that this share does not keep, left by a lower threshold.
    fn drop_strangers(&self, values: &mut Vec<u64>, times_ms: &mut Vec<i64>, earlier: &mut Earlier) {
        if values.iter().all(|value| self.sample.keeps(*value)) {
            return;
        }
        earlier.0.clear();
        let mut keeps = values.iter().map(|value| self.sample.keeps(*value));
        times_ms.retain(|_| keeps.next().unwrap_or(false));
        values.retain(|value| self.sample.keeps(*value));
    }
}

/// Earlier times of values that were seen again, ascending, one for each value: a late event may complete a window that ends
/// between the two. They stand behind the values seen last; the step back in time tells where they begin.
#[derive(Debug)]
struct Earlier(Vec<(u64, i64)>);

impl Earlier {
    /// Where they begin.
    fn begin(times_ms: &[i64]) -> usize {
        times_ms.windows(2).position(|pair| pair[1] < pair[0]).map_or(times_ms.len(), |at| at + 1)
    }

    fn split_off(values: &mut Vec<u64>, times_ms: &mut Vec<i64>) -> Earlier {
        let cut = Earlier::begin(times_ms);
        Earlier(values.drain(cut..).zip(times_ms.drain(cut..)).collect())
    }

    /// Notes a time that another followed. Until `reach_ms` has passed the one that is known already, that one stays: windows
    /// that still can be completed end after it.
    fn note(&mut self, value: u64, at_ms: i64, reach_ms: i64) {
        if let Some(known) = self.0.iter().position(|(known, _)| *known == value) {
            let known_ms = self.0[known].1;
            if known_ms > reach_ms && known_ms <= at_ms {
                return;
            }
            self.0.remove(known);
        }
        self.0.insert(self.0.partition_point(|(_, time)| *time <= at_ms), (value, at_ms));
    }

    /// Puts the newest of them back behind the values.
    fn put_back(self, horizon_ms: i64, values: &mut Vec<u64>, times_ms: &mut Vec<i64>) {
        let from = self.0.partition_point(|(_, time)| *time <= horizon_ms).max(self.0.len().saturating_sub(EARLIER));
        for (value, time) in &self.0[from..] {
            values.push(*value);
            times_ms.push(*time);
        }
    }
}

/// Notes that a value was seen. Answers the earlier of two times if the value was seen before (or, late, after).
fn see(hash: u64, at_ms: i64, values: &mut Vec<u64>, times_ms: &mut Vec<i64>) -> Option<i64> {
    let to = times_ms.partition_point(|time| *time <= at_ms);
    match position(values, hash) {
        Some(at) if times_ms[at] > at_ms => Some(at_ms),
        Some(at) => {
            // It moves up behind all that was seen before.
            let before_ms = times_ms[at];
            values[at..to].rotate_left(1);
            times_ms[at..to].rotate_left(1);
            times_ms[to - 1] = at_ms;
            (before_ms < at_ms).then_some(before_ms)
        }
        None => {
            values.insert(to, hash);
            times_ms.insert(to, at_ms);
            None
        }
    }
}

impl Detector for Distinct {
    fn name(&self) -> &'static str {
        ROW.name
    }

    fn memory(&self) -> Option<Memory> {
        Some(Memory::Distinct { values: Vec::new(), times_ms: Vec::new() })
    }

    fn takes(&self, event: &Event<'_>) -> bool {
        hash::of_value(self.of.eval(event)).is_some_and(|hash| self.sample.keeps(hash))
    }

    fn observe(&self, look: &Look<'_>, memory: &mut Memory) -> Seen {
        if !matches!(memory, Memory::Distinct { .. }) {
            *memory = Memory::Distinct { values: Vec::new(), times_ms: Vec::new() };
        }
        let Memory::Distinct { values, times_ms } = memory else { unreachable!("it was made one of values") };
        let hash = hash::of_value(self.of.eval(look.event())).unwrap_or_default();
        self.show(hash, look, values, times_ms)
    }

    fn progress(&self, at_ms: i64, memory: &Memory) -> Option<String> {
        let Memory::Distinct { times_ms, .. } = memory else { return None };
        let last_seen = &times_ms[..Earlier::begin(times_ms)];
        let (shift, about) = (self.sample.shift, if self.sample.shift > 0 { "about " } else { "" });
        let (count, at_least) = (within(last_seen, at_ms, self.within_ms) << shift, self.sample.at_least << shift);
        Some(format!("{about}{count} of {at_least} different values in {}", format_duration_ms(self.within_ms)))
    }

    fn window_ms(&self) -> i64 {
        self.within_ms
    }

    fn most_bytes(&self) -> usize {
        // A hash takes 8 bytes, a time 7; their number 2.
        2 + (self.sample.at_least + SPARE + EARLIER) * 15
    }

    fn expressions(&self) -> Vec<&Expr> {
        vec![&self.of]
    }
}

#[cfg(test)]
mod tests;
