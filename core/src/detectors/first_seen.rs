//! # first_seen
//!
//! **What it detects.** A value, or values together, that an entity did not have for a long time: a country, a device and
//! network, a role used for the first time. **Why it matters.** A stolen account behaves like its owner, from somewhere
//! else. **Signals.** One for each value that is not known, or one per `once_per`. **Tuning.** `memory` from how long people
//! are away, `learn` from how long it takes to see what is ordinary; together with other signals rather than alone.
//! **Example.** `detect: { first_seen: { of: [user_agent, country], memory: 30d, learn: 7d } }`.
//!
//! The values seen last, at most [`MAX_VALUES`], each with the exact time when it was last seen. A value is known at `t` if
//! it was seen in `(t - memory, t]`, or later. An entity with more live values than that is diverse: it loses the one seen
//! longest ago, and nothing is certainly new for it until `memory` has passed without another loss. Values are 32 bits of a
//! hash: with 64 known, one new value in 67 million is taken for a known one, and is silent.
//!
//! Nothing fires until `learn` after the first event; an entity of which nothing is known any more learns anew.

use super::{Detector, Figure, Firing, Look, Row, Seen, tuple};
use crate::expr::{Expr, Scope};
use crate::rule::load::codes;
use crate::rule::load::fields::{Fields, Keys, duration};
use crate::rule::load::report::Report;
use crate::rule::load::tree::{Node, Tree};
use crate::state::{Memory, Room};
use crate::time;

/// The row of the registry.
pub const ROW: Row = Row { name: "first_seen", keys: &KEYS, read };

const KEYS: Keys = Keys { what: "`first_seen`", known: &["of", "memory", "learn"], later: &["peers"] };

/// The most values known of an entity (and sub-key).
pub const MAX_VALUES: usize = 64;

#[derive(Debug)]
struct FirstSeen {
    of: Vec<Expr>,
    memory_ms: i64,
    learn_ms: i64,
}

/// What is known of an entity; see [`Memory::FirstSeen`].
struct Known {
    since_ms: i64,
    diverse_until_ms: i64,
    values: Vec<u32>,
    times_ms: Vec<i64>,
}

fn read(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    let fields = Fields::open(node, &KEYS, report)?;
    let of = fields.need("of", report).and_then(|n| tuple::read(n, "`of`", scope, report));
    let memory_ms = fields.need("memory", report).and_then(|n| duration(n, "`memory`", super::MAX_WITHIN_MS, report));
    let learn_ms = fields.need("learn", report).and_then(|n| match &n.value {
        Tree::Text(none) if none == "0s" => Some(0),
        _ => duration(n, "`learn`", super::MAX_WITHIN_MS, report),
    });
    let (memory_ms, learn_ms) = (memory_ms?, learn_ms?);
    if learn_ms > memory_ms {
        let (learn, memory) = (time::format_duration_ms(learn_ms), time::format_duration_ms(memory_ms));
        let message = format!("`learn` is {learn}, longer than `memory`, which is {memory}");
        let help = "what is learnt first would be forgotten before anything can fire".to_owned();
        report.problem(codes::CONTRADICTION, fields.key_at("learn"), message, Some(help));
        return None;
    }
    Some(Box::new(FirstSeen { of: of?, memory_ms, learn_ms }))
}

impl Known {
    /// Notes that a value was seen; answers whether it was known.
    fn see(&mut self, value: u32, at_ms: i64, memory_ms: i64) -> bool {
        let oldest_ms = at_ms.saturating_sub(memory_ms);
        let at = self.values.iter().position(|known| *known == value);
        let last_ms = at.map(|at| (self.values.remove(at), self.times_ms.remove(at)).1);
        let seen_ms = last_ms.map_or(at_ms, |last_ms| last_ms.max(at_ms));
        let place = self.times_ms.partition_point(|time| *time <= seen_ms);
        self.values.insert(place, value);
        self.times_ms.insert(place, seen_ms);
        last_ms.is_some_and(|last_ms| last_ms > oldest_ms)
    }

    /// Drops values that no event to come can find alive; and, of too many, the one seen longest ago.
    fn make_room(&mut self, at_ms: i64, memory_ms: i64, lateness_ms: i64) -> Room {
        let newest_ms = self.times_ms.last().copied().unwrap_or(at_ms);
        let dead_ms = newest_ms.saturating_sub(lateness_ms).saturating_sub(memory_ms);
        let dead = self.times_ms.partition_point(|time| *time <= dead_ms);
        self.values.drain(..dead);
        self.times_ms.drain(..dead);
        if self.values.len() <= MAX_VALUES {
            return Room::Free;
        }
        self.values.remove(0);
        let end_ms = self.times_ms.remove(0).saturating_add(memory_ms);
        if end_ms <= newest_ms {
            // Only a straggler could still have known it.
            self.diverse_until_ms = self.diverse_until_ms.max(end_ms);
            return Room::Free;
        }
        self.diverse_until_ms = self.diverse_until_ms.max(at_ms.saturating_add(memory_ms));
        Room::Dropped
    }
}

impl Detector for FirstSeen {
    fn name(&self) -> &'static str {
        ROW.name
    }

    fn memory(&self) -> Option<Memory> {
        Some(Memory::FirstSeen { since_ms: i64::MAX, diverse_until_ms: i64::MIN, values: Vec::new(), times_ms: Vec::new() })
    }

    fn observe(&self, look: &Look<'_>, memory: &mut Memory) -> Seen {
        let at_ms = look.at_ms;
        let silent = Seen { lapsed: true, firing: None, holds: false, end_ms: at_ms, room: Room::Free };
        let Some(hash) = tuple::hash(&self.of, look.event()) else { return silent };
        let mut known = match std::mem::replace(memory, Memory::Nothing) {
            Memory::FirstSeen { since_ms, diverse_until_ms, values, times_ms } => Known { since_ms, diverse_until_ms, values, times_ms },
            _ => Known { since_ms: i64::MAX, diverse_until_ms: i64::MIN, values: Vec::new(), times_ms: Vec::new() },
        };
        if known.times_ms.last().is_none_or(|newest| *newest <= at_ms.saturating_sub(self.memory_ms)) {
            known.since_ms = at_ms;
        }
        known.since_ms = known.since_ms.min(at_ms);
        let was_known = known.see(hash as u32, at_ms, self.memory_ms);
        let room = known.make_room(at_ms, self.memory_ms, look.lateness_ms);
        let learning = at_ms < known.since_ms.saturating_add(self.learn_ms);
        let fires = !was_known && !learning && at_ms >= known.diverse_until_ms;
        let Known { since_ms, diverse_until_ms, values, times_ms } = known;
        *memory = Memory::FirstSeen { since_ms, diverse_until_ms, values, times_ms };
        let firing = Firing { count: 1, within_ms: self.memory_ms, figure: Figure::New };
        Seen { firing: fires.then_some(firing), end_ms: at_ms.saturating_add(self.memory_ms), room, ..silent }
    }

    fn window_ms(&self) -> i64 {
        self.memory_ms
    }

    fn most_bytes(&self) -> usize {
        // Two times, a count, and for each value its hash and its distance in time: 7 bytes at most.
        7 + 8 + 1 + MAX_VALUES * (4 + 7)
    }

    fn variables(&self) -> &'static [&'static str] {
        &["$window_seconds"]
    }

    fn expressions(&self) -> Vec<&Expr> {
        self.of.iter().collect()
    }
}

#[cfg(test)]
mod tests;
