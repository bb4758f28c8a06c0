//! Everything remembered about one entity, and its bytes.
//!
//! What a rule remembers lives in slots, keyed by the rule and, for rules with `per`, by the sub-key's hash. A slot that
//! ended more than [`SLOT_GRACE_MS`] before the entity's newest event reads as absent whether or not it is still there,
//! so that it can be dropped whenever it suits (when the state is encoded) without changing any decision.
//!
//! The encoding is frozen per version: a new binary reads the versions before it, an old one refuses what it cannot read.

mod codec;

pub use codec::StateError;

/// How long past its end a slot is kept for events that arrive out of order, in milliseconds of the entity's own time.
pub const SLOT_GRACE_MS: i64 = 60_000;

/// Everything remembered about one entity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ActorState {
    /// Time of the newest event that was counted, milliseconds; `None` for none yet.
    pub newest_ms: Option<i64>,
    /// Past this event time the state reads as empty.
    pub expire_at_ms: i64,
    /// Past this reference time (record time) it may be deleted. Apart from the expiry, because the events of an entity may
    /// be old when they are read: a state that still matters to them must not go.
    pub delete_after_ms: i64,
    /// Hashes of the most recent event ids, oldest first.
    pub(crate) seen: Vec<u64>,
    /// Sorted by (rule, sub).
    slots: Vec<Slot>,
    /// Something changed since it was last encoded or decoded. Not part of the bytes.
    pub changed: bool,
}

/// What one rule remembers (of one sub-key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// [`crate::rule::Rule::slot`].
    pub rule: u64,
    /// Hash of the sub-key; 0 for rules without `per`.
    pub sub: u64,
    /// What it remembers.
    pub memory: Memory,
}

/// The memory of a detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Memory {
    /// A window that started with its first hit.
    Fixed {
        /// It is over at this time.
        end_ms: i64,
        /// Hits so far.
        count: u32,
    },
    /// The newest hits of a sliding window.
    Sliding {
        /// Times, ascending; at most the threshold plus a few for stragglers.
        times_ms: Vec<i64>,
        /// It matters until this time.
        end_ms: i64,
        /// The condition held at the newest hit.
        on: bool,
        /// When it last fired; `i64::MIN` for never.
        fired_ms: i64,
    },
    /// When a `match` rule with a cooldown last fired.
    Fired {
        /// Then.
        at_ms: i64,
        /// It matters until this time.
        end_ms: i64,
    },
}

impl Memory {
    /// The time from which it no longer matters.
    pub fn end_ms(&self) -> i64 {
        match self {
            Memory::Fixed { end_ms, .. } | Memory::Sliding { end_ms, .. } | Memory::Fired { end_ms, .. } => *end_ms,
        }
    }

    /// How much would be lost with it: the order in which full sub-keys make room.
    fn weight(&self) -> (u32, i64) {
        match self {
            Memory::Fixed { end_ms, count } => (*count, *end_ms),
            Memory::Sliding { end_ms, times_ms, .. } => (times_ms.len() as u32, *end_ms),
            Memory::Fired { end_ms, .. } => (1, *end_ms),
        }
    }
}

/// What became of a request for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There was room.
    Free,
    /// A sub-key that still mattered had to go.
    Dropped,
}

impl ActorState {
    /// Empties it if the event comes after its expiry.
    pub fn expire(&mut self, event_ms: i64) {
        if self.newest_ms.is_some() && event_ms > self.expire_at_ms {
            *self = ActorState { changed: true, ..ActorState::default() };
        }
    }

    /// Notes that an event of this time was counted and that something about it matters for `keep_ms`.
    pub fn note(&mut self, event_ms: i64, keep_ms: i64) {
        self.newest_ms = Some(self.newest_ms.map_or(event_ms, |newest| newest.max(event_ms)));
        self.expire_at_ms = self.expire_at_ms.max(event_ms.saturating_add(keep_ms));
        self.changed = true;
    }

    /// Notes the reference time of an event that was counted: what matters for a while of event time is kept for as long of
    /// reference time.
    pub fn keep(&mut self, event_ms: i64, reference_ms: i64) {
        let still_ms = self.expire_at_ms.saturating_sub(event_ms).max(0);
        self.delete_after_ms = self.delete_after_ms.max(reference_ms.saturating_add(still_ms));
    }

    /// Whether this event id is among the most recent ones.
    pub fn has_seen(&self, id: u64) -> bool {
        self.seen.contains(&id)
    }

    /// Remembers an event id, at most `bound` of them.
    pub fn remember(&mut self, id: u64, bound: usize) {
        self.seen.push(id);
        if self.seen.len() > bound {
            self.seen.drain(..self.seen.len() - bound);
        }
        self.changed = true;
    }

    fn is_live(&self, slot: &Slot) -> bool {
        self.newest_ms.is_none_or(|newest| slot.memory.end_ms().saturating_add(SLOT_GRACE_MS) > newest)
    }

    /// The memory of a rule and sub-key, if it still matters.
    pub fn memory(&mut self, rule: u64, sub: u64) -> Option<&mut Memory> {
        let at = self.slots.binary_search_by_key(&(rule, sub), |s| (s.rule, s.sub)).ok()?;
        if !self.is_live(&self.slots[at]) {
            return None;
        }
        Some(&mut self.slots[at].memory)
    }

    /// Stores the memory of a rule and sub-key. When the rule already has `bound` sub-keys that matter, the one with the
    /// lowest count goes (the one that ends first among equals).
    pub fn put(&mut self, rule: u64, sub: u64, memory: Memory, bound: usize) -> Room {
        self.changed = true;
        match self.slots.binary_search_by_key(&(rule, sub), |s| (s.rule, s.sub)) {
            Ok(at) => {
                self.slots[at].memory = memory;
                Room::Free
            }
            Err(_) => {
                let room = self.make_room(rule, bound);
                let at = self.slots.partition_point(|s| (s.rule, s.sub) < (rule, sub));
                self.slots.insert(at, Slot { rule, sub, memory });
                room
            }
        }
    }

    fn make_room(&mut self, rule: u64, bound: usize) -> Room {
        let from = self.slots.partition_point(|s| s.rule < rule);
        let to = self.slots.partition_point(|s| s.rule <= rule);
        if to - from < bound {
            return Room::Free;
        }
        let newest = self.newest_ms;
        let live = |s: &Slot| newest.is_none_or(|newest| s.memory.end_ms().saturating_add(SLOT_GRACE_MS) > newest);
        self.slots = std::mem::take(&mut self.slots).into_iter().filter(|s| s.rule != rule || live(s)).collect();
        let to = self.slots.partition_point(|s| s.rule <= rule);
        if to - from < bound {
            return Room::Free;
        }
        if let Some(at) = (from..to).min_by_key(|&i| (self.slots[i].memory.weight(), self.slots[i].sub)) {
            self.slots.remove(at);
        }
        Room::Dropped
    }

    /// Roughly the bytes it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        let times: usize =
            self.slots.iter().map(|s| if let Memory::Sliding { times_ms, .. } = &s.memory { times_ms.capacity() * 8 } else { 0 }).sum();
        size_of::<ActorState>() + self.slots.capacity() * size_of::<Slot>() + self.seen.capacity() * 8 + times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(end_ms: i64, count: u32) -> Memory {
        Memory::Fixed { end_ms, count }
    }

    #[test]
    fn a_slot_past_its_grace_reads_as_absent_whether_or_not_it_was_dropped() {
        let mut state = ActorState::default();
        state.note(1_000, 600_000);
        state.put(1, 0, fixed(2_000, 7), 64);
        assert!(state.memory(1, 0).is_some());
        state.note(2_000 + SLOT_GRACE_MS, 600_000);
        assert!(state.memory(1, 0).is_none());
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        let mut reloaded = ActorState::decode(&bytes).expect("own bytes");
        assert!(reloaded.memory(1, 0).is_none());
    }

    #[test]
    fn full_sub_keys_make_room_expired_first_then_lowest_count() {
        let mut state = ActorState::default();
        state.note(100_000, 600_000);
        state.put(1, 1, fixed(200_000, 9), 2);
        state.put(1, 2, fixed(10_000, 9), 2);
        state.put(2, 5, fixed(200_000, 1), 2);
        assert_eq!(state.put(1, 3, fixed(200_000, 2), 2), Room::Free, "the expired one went");
        assert_eq!(state.put(1, 4, fixed(200_000, 1), 2), Room::Dropped, "the lowest count went");
        assert!(state.memory(1, 1).is_some() && state.memory(1, 3).is_none() && state.memory(1, 4).is_some());
        assert!(state.memory(2, 5).is_some(), "another rule's sub-keys are untouched");
    }

    #[test]
    fn past_its_expiry_a_state_is_empty() {
        let mut state = ActorState::default();
        state.note(1_000, 500);
        state.remember(77, 16);
        state.expire(1_500);
        assert!(state.has_seen(77));
        state.expire(1_501);
        assert_eq!(state.newest_ms, None);
        assert!(!state.has_seen(77));
    }
}
