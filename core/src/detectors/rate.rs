//! # rate
//!
//! **What it detects.** Events that come faster than an allowed rate, with room for a burst. **Why it matters.** Scraping
//! and hammering go on for hours; a window counts them anew each time, a rate says when the allowance is used up.
//! **Signals.** On the edge: once when an event comes for which there is no room, again only after the bucket has run
//! empty, or `once_per` later. **Tuning.** `refill` from the busiest normal actor over an hour, `burst` from what one page
//! load sends. **Example.** `detect: { rate: { burst: 40, refill: 1/500ms } }`.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A), a leaky bucket as a meter: one theoretical arrival time, moved
//! on by the emission interval with each event that conforms. An event that does not conform leaves it where it is. Whole
//! microseconds; a bucket of `burst` events that loses one per interval is the same thing and is the oracle of the tests.
//!
//! Events that arrive out of order: the arrivals of the allowed lateness, at most [`MAX_RECENT`], are kept beside the
//! theoretical arrival time from before them. A straggler is put in its place and what follows is computed again: exact,
//! while they fit. One that is older than all that is kept of a full list is not counted; there may then be fewer firings
//! than by counting by hand, never more (of 143 streams with three times as many in any order, 6 were missed).

use super::{Detector, Figure, Firing, Look, Row, Seen};
use crate::expr::Scope;
use crate::rule::load::codes;
use crate::rule::load::fields::{Fields, Keys, MAX_RATE_EVENTS, interval_us, whole};
use crate::rule::load::report::Report;
use crate::rule::load::tree::Node;
use crate::state::{Memory, Room};
use crate::time;

/// The row of the registry.
pub const ROW: Row = Row { name: "rate", keys: &KEYS, read };

const KEYS: Keys = Keys { what: "`rate`", known: &["burst", "refill"], later: &[] };

/// The most arrivals that are kept for stragglers.
pub const MAX_RECENT: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Time that one event takes, microseconds: I.371's T.
    interval_us: i64,
    /// How much too early an event may be: I.371's tau.
    tolerance_us: i64,
}

/// The bucket between two events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    /// The theoretical arrival time of the next event, microseconds: the bucket has run empty by then.
    arrival_us: i64,
    /// An event did not conform, and the bucket has not run empty since.
    exceeded: bool,
}

fn read(node: &Node, _: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    let fields = Fields::open(node, &KEYS, report)?;
    let burst = fields.need("burst", report).and_then(|n| whole(n, "`burst`", 1..=MAX_RATE_EVENTS, report));
    let interval_us = fields.need("refill", report).and_then(|n| interval_us(n, "`refill`", report));
    let (burst, interval_us) = (burst?, interval_us?);
    let longest_us = super::MAX_WITHIN_MS * 1_000;
    if burst > longest_us / interval_us {
        let message = format!("a burst of {burst} takes longer to refill than {}", time::format_duration_ms(super::MAX_WITHIN_MS));
        report.problem(codes::RANGE, fields.key_at("burst"), message, Some("a smaller `burst` or a faster `refill`".into()));
        return None;
    }
    Some(Box::new(Rate { interval_us, tolerance_us: (burst - 1) * interval_us }))
}

impl Rate {
    /// Takes an event; answers whether it was beyond the rate.
    fn take(&self, bucket: &mut Bucket, at_ms: i64) -> bool {
        let at_us = at_ms.saturating_mul(1_000);
        if bucket.arrival_us <= at_us {
            bucket.exceeded = false;
        }
        let conforms = at_us >= bucket.arrival_us.saturating_sub(self.tolerance_us);
        if conforms {
            bucket.arrival_us = bucket.arrival_us.max(at_us).saturating_add(self.interval_us);
        } else {
            bucket.exceeded = true;
        }
        !conforms
    }

    /// Takes events in their order; answers how many were beyond the rate.
    fn take_all(&self, bucket: &mut Bucket, times_ms: &[i64]) -> usize {
        times_ms.iter().filter(|at_ms| self.take(bucket, **at_ms)).count()
    }

    fn firing(&self) -> Firing {
        Firing { count: 1, within_ms: 0, figure: Figure::Rate }
    }

    fn see(&self, look: &Look<'_>, start: &mut Bucket, recent_ms: &mut Vec<i64>) -> Seen {
        let at_ms = look.at_ms;
        if start.arrival_us == i64::MIN {
            // Nothing comes that is older than this: an empty bucket is the same from here on, and takes fewer bytes.
            start.arrival_us = at_ms.saturating_sub(look.lateness_ms).saturating_mul(1_000);
        }
        let place = recent_ms.partition_point(|recent| *recent <= at_ms);
        let is_newest = place == recent_ms.len();
        let mut before = *start;
        let beyond_before = self.take_all(&mut before, recent_ms);
        // Of what a full list has let go, something may be newer than an event that is older than all that it kept.
        let counts = place > 0 || recent_ms.len() < MAX_RECENT;
        if counts {
            recent_ms.insert(place, at_ms);
        }
        let mut after = *start;
        let beyond = self.take_all(&mut after, recent_ms);
        // What is older than this by the allowed lateness is past: nothing comes before it any more.
        let newest_ms = recent_ms.last().copied().unwrap_or(at_ms);
        let past = match look.lateness_ms {
            0 => recent_ms.len(),
            lateness => recent_ms.partition_point(|recent| *recent < newest_ms.saturating_sub(lateness)),
        };
        let past = past.max(recent_ms.len().saturating_sub(MAX_RECENT));
        self.take_all(start, &recent_ms[..past]);
        recent_ms.drain(..past);
        Seen {
            lapsed: is_newest && before.arrival_us <= at_ms.saturating_mul(1_000),
            firing: (beyond > beyond_before).then(|| self.firing()),
            holds: after.exceeded,
            end_ms: after.arrival_us.div_euclid(1_000).saturating_add(1).max(at_ms),
            room: Room::Free,
        }
    }
}

impl Detector for Rate {
    fn name(&self) -> &'static str {
        ROW.name
    }

    fn memory(&self) -> Option<Memory> {
        Some(Memory::Rate { arrival_us: i64::MIN, exceeded: false, recent_ms: Vec::new() })
    }

    fn observe(&self, look: &Look<'_>, memory: &mut Memory) -> Seen {
        let (mut bucket, mut recent_ms) = match memory {
            Memory::Rate { arrival_us, exceeded, recent_ms } => {
                (Bucket { arrival_us: *arrival_us, exceeded: *exceeded }, std::mem::take(recent_ms))
            }
            _ => (Bucket { arrival_us: i64::MIN, exceeded: false }, Vec::new()),
        };
        let seen = self.see(look, &mut bucket, &mut recent_ms);
        *memory = Memory::Rate { arrival_us: bucket.arrival_us, exceeded: bucket.exceeded, recent_ms };
        seen
    }

    fn window_ms(&self) -> i64 {
        (self.tolerance_us + self.interval_us).div_euclid(1_000).saturating_add(1)
    }

    fn most_bytes(&self) -> usize {
        // The arrival time, how many are kept, the distance of the newest, and the distances between them: a day at most.
        10 + 2 + 7 + (MAX_RECENT - 1) * 4
    }

    fn variables(&self) -> &'static [&'static str] {
        &[]
    }
}

#[cfg(test)]
mod tests;
