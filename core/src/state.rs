//! Everything remembered about one entity, and its bytes.
//!
//! What a rule remembers lives in slots, keyed by the rule and, for rules with `per`, by the sub-key's hash. A slot that
//! ended more than [`SLOT_GRACE_MS`] before the entity's newest event reads as absent whether or not it is still there,
//! so that it can be dropped whenever it suits (when the state is encoded) without changing any decision. A slot that
//! waits for a time to come is there until that time was dealt with.
//!
//! The encoding is frozen per version: a new binary reads the versions before it, an old one refuses what it cannot read.

mod codec;
mod ledger;
mod memory;

pub use codec::StateError;
pub use codec::ledger::{EPISODE_BYTES, HELD_BYTES, REST_BYTES};
pub use ledger::{Episode, Force, Held, Ledger};
pub use memory::{Cell, Edge, Memory, Pending, Ring, Run, Step};

/// How long past [`ActorState::delete_after_ms`] a state reads as what it was: one day of reference time. It may be deleted
/// after that, and not before, so that no decision depends on whether it was.
pub const DELETE_GRACE_MS: i64 = 86_400_000;

/// How long past its end a slot is kept for events that arrive out of order, in milliseconds of the entity's own time.
pub const SLOT_GRACE_MS: i64 = 60_000;

/// Everything remembered about one entity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ActorState {
    /// Time of the newest event that was counted, milliseconds; `None` for none yet.
    pub newest_ms: Option<i64>,
    /// Past this event time the state reads as empty, but for what waits.
    pub expire_at_ms: i64,
    /// Past this reference time (record time) it may be deleted. Apart from the expiry, because the events of an entity may
    /// be old when they are read: a state that still matters to them must not go.
    pub delete_after_ms: i64,
    /// Which windows the rules had when it was last changed, and the event time from which they have them; 0 and
    /// `i64::MIN` for a state that has known no other.
    pub(crate) windows: u64,
    pub(crate) windows_since_ms: i64,
    /// Hashes of the most recent event ids, oldest first.
    pub(crate) seen: Vec<u64>,
    /// Sorted by (rule, sub).
    slots: Vec<Slot>,
    /// What is held against it; `None` for nothing.
    pub(crate) ledger: Option<Box<Ledger>>,
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
    /// The time from which it no longer matters.
    pub end_ms: i64,
    /// The longest time its rule looks back, when it was last changed.
    pub window_ms: i64,
    /// Until this event time it may know less than its rule looks back; `i64::MIN` when it knows all.
    pub warm_ms: i64,
    /// Whether its condition holds, and its firings.
    pub edge: Edge,
    /// What its detector remembers.
    pub memory: Memory,
}

impl Slot {
    /// The earliest time that something in it waits for.
    fn next_due_ms(&self) -> Option<i64> {
        self.memory.next_due_ms()
    }

    /// How much would be lost with it: the order in which full sub-keys make room. What waits goes last.
    fn weight(&self) -> (bool, u64, i64) {
        (self.next_due_ms().is_some(), self.memory.weight(), self.end_ms)
    }
}

/// What a state waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Something of a rule (its slot's and sub-key's hash).
    Rule(u64, u64, Pending),
    /// Something that is held against the entity ends at this time.
    Ledger(i64),
}

/// What became of a request for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There was room.
    Free,
    /// Something that still mattered had to go.
    Dropped,
}

impl ActorState {
    /// Empties it if the event comes after its expiry, or its record so late that the state may be gone. What waits for a time
    /// to come stays.
    pub fn expire(&mut self, event_ms: i64, reference_ms: i64) {
        let may_be_gone = reference_ms > self.delete_after_ms.saturating_add(DELETE_GRACE_MS) && self.next_due_ms().is_none();
        if self.newest_ms.is_some() && (event_ms > self.expire_at_ms || may_be_gone) {
            let waiting = std::mem::take(&mut self.slots).into_iter().filter(|slot| slot.next_due_ms().is_some()).collect();
            let ledger = self.ledger.take().filter(|ledger| ledger.due_ms.is_some());
            *self = ActorState { changed: true, slots: waiting, ledger, delete_after_ms: self.delete_after_ms, ..ActorState::default() };
        }
    }

    /// Notes that an event of this time was counted and that something about it matters for `keep_ms`.
    pub fn note(&mut self, event_ms: i64, keep_ms: i64) {
        self.newest_ms = Some(self.newest_ms.map_or(event_ms, |newest| newest.max(event_ms)));
        self.expire_at_ms = self.expire_at_ms.max(event_ms.saturating_add(keep_ms));
        self.changed = true;
    }

    /// Notes that something about the entity matters until this event time, whichever event made it so.
    pub fn retain(&mut self, until_ms: i64) {
        self.expire_at_ms = self.expire_at_ms.max(until_ms);
        self.changed = true;
    }

    /// Notes the reference time of an event that was counted: what matters for a while of event time is kept for as long of
    /// reference time.
    pub fn keep(&mut self, event_ms: i64, reference_ms: i64) {
        let still_ms = self.expire_at_ms.saturating_sub(event_ms).max(0);
        let until_ms = reference_ms.saturating_add(still_ms);
        if until_ms > self.delete_after_ms {
            self.delete_after_ms = until_ms;
            // A state that holds nothing is not written for its own sake.
            self.changed |= self.newest_ms.is_some();
        }
    }

    /// Notes which windows the rules have (a hash), so that what is remembered since a change is known to be partial.
    pub fn note_windows(&mut self, event_ms: i64, windows: u64) {
        if self.windows == windows {
            return;
        }
        self.windows_since_ms = if self.windows == 0 { i64::MIN } else { event_ms };
        self.windows = windows;
        self.changed = true;
    }

    /// The event time since which the rules look back as they do; `i64::MIN` for all of this state's life.
    pub fn windows_since_ms(&self) -> i64 {
        self.windows_since_ms
    }

    /// What rules remember, by rule and sub-key, whether or not it still matters.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// What is held against the entity, if anything is.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_deref()
    }

    /// How many event ids are remembered.
    pub fn seen_count(&self) -> usize {
        self.seen.len()
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
        slot.next_due_ms().is_some() || self.newest_ms.is_none_or(|newest| slot.end_ms.saturating_add(SLOT_GRACE_MS) > newest)
    }

    /// The slot of a rule and sub-key, if it still matters.
    pub fn slot(&mut self, rule: u64, sub: u64) -> Option<&mut Slot> {
        let at = self.slots.binary_search_by_key(&(rule, sub), |s| (s.rule, s.sub)).ok()?;
        if !self.is_live(&self.slots[at]) {
            return None;
        }
        Some(&mut self.slots[at])
    }

    /// Stores a slot. When its rule already has `bound` sub-keys that matter, the one with the lowest count goes (the one
    /// that ends first among equals; one that waits for a time last of all).
    pub fn put(&mut self, slot: Slot, bound: usize) -> Room {
        self.changed = true;
        match self.slots.binary_search_by_key(&(slot.rule, slot.sub), |s| (s.rule, s.sub)) {
            Ok(at) => {
                self.slots[at] = slot;
                Room::Free
            }
            Err(_) => {
                let room = self.make_room(slot.rule, bound);
                let at = self.slots.partition_point(|s| (s.rule, s.sub) < (slot.rule, slot.sub));
                self.slots.insert(at, slot);
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
        let slots = std::mem::take(&mut self.slots);
        self.slots = slots.into_iter().filter(|s| s.rule != rule || self.is_live(s)).collect();
        let to = self.slots.partition_point(|s| s.rule <= rule);
        if to - from < bound {
            return Room::Free;
        }
        if let Some(at) = (from..to).min_by_key(|&i| (self.slots[i].weight(), self.slots[i].sub)) {
            self.slots.remove(at);
        }
        Room::Dropped
    }

    /// The earliest time that something in it waits for.
    pub fn next_due_ms(&self) -> Option<i64> {
        let ledger = self.ledger.as_ref().and_then(|ledger| ledger.due_ms);
        self.next_rule_due_ms().into_iter().chain(ledger).min()
    }

    /// Takes out what waits for the earliest time of all, if that is not after `until_ms`. Among equals the lower rule goes
    /// first, and what is held against the entity last.
    pub fn take_due(&mut self, until_ms: i64) -> Option<Due> {
        let earliest_ms = self.next_due_ms().filter(|due_ms| *due_ms <= until_ms)?;
        self.changed = true;
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.next_due_ms() == Some(earliest_ms)) {
            let pending = slot.memory.take_due()?;
            return Some(Due::Rule(slot.rule, slot.sub, pending));
        }
        self.ledger.as_mut()?.due_ms = None;
        Some(Due::Ledger(earliest_ms))
    }

    /// What is held against the entity, to be changed and put back.
    pub(crate) fn take_ledger(&mut self) -> Box<Ledger> {
        self.ledger.take().unwrap_or_default()
    }

    /// Puts back what is held against the entity.
    pub(crate) fn put_ledger(&mut self, ledger: Box<Ledger>) {
        self.ledger = (!ledger.is_empty()).then_some(ledger);
        self.changed = true;
    }

    /// The edge of a rule and sub-key, whether or not its slot still matters to new events.
    pub fn edge(&mut self, rule: u64, sub: u64) -> Option<&mut Edge> {
        let at = self.slots.binary_search_by_key(&(rule, sub), |s| (s.rule, s.sub)).ok()?;
        Some(&mut self.slots[at].edge)
    }

    /// The edges of all sub-keys of a rule.
    pub(crate) fn edges(&mut self, rule: u64) -> impl Iterator<Item = &mut Edge> {
        self.slots.iter_mut().filter(move |slot| slot.rule == rule).map(|slot| &mut slot.edge)
    }

    /// The earliest time that something of a rule waits for.
    pub(crate) fn next_rule_due_ms(&self) -> Option<i64> {
        self.slots.iter().filter_map(Slot::next_due_ms).min()
    }

    /// Roughly the bytes it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        let memories: usize = self.slots.iter().map(|s| s.memory.heap_bytes()).sum();
        size_of::<ActorState>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.seen.capacity() * 8
            + memories
            + self.ledger.as_ref().map_or(0, |l| l.heap_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(rule: u64, sub: u64, end_ms: i64, count: u32) -> Slot {
        let memory = Memory::Fixed { end_ms, count };
        Slot { rule, sub, end_ms, window_ms: 1_000, warm_ms: i64::MIN, edge: Edge::default(), memory }
    }

    #[test]
    fn a_slot_past_its_grace_reads_as_absent_whether_or_not_it_was_dropped() {
        let mut state = ActorState::default();
        state.note(1_000, 600_000);
        state.put(fixed(1, 0, 2_000, 7), 64);
        assert!(state.slot(1, 0).is_some());
        state.note(2_000 + SLOT_GRACE_MS, 600_000);
        assert!(state.slot(1, 0).is_none());
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        let mut reloaded = ActorState::decode(&bytes).expect("own bytes");
        assert!(reloaded.slot(1, 0).is_none());
    }

    #[test]
    fn full_sub_keys_make_room_expired_first_then_lowest_count() {
        let mut state = ActorState::default();
        state.note(100_000, 600_000);
        state.put(fixed(1, 1, 200_000, 9), 2);
        state.put(fixed(1, 2, 10_000, 9), 2);
        state.put(fixed(2, 5, 200_000, 1), 2);
        assert_eq!(state.put(fixed(1, 3, 200_000, 2), 2), Room::Free, "the expired one went");
        assert_eq!(state.put(fixed(1, 4, 200_000, 1), 2), Room::Dropped, "the lowest count went");
        assert!(state.slot(1, 1).is_some() && state.slot(1, 3).is_none() && state.slot(1, 4).is_some());
        assert!(state.slot(2, 5).is_some(), "another rule's sub-keys are untouched");
    }

    #[test]
    fn a_state_that_may_be_gone_reads_as_gone_and_not_before() {
        let mut state = ActorState::default();
        state.note(1_000, 500);
        state.keep(1_000, 2_000);
        state.remember(77, 16);
        state.expire(1_100, 2_500 + DELETE_GRACE_MS);
        assert!(state.has_seen(77));
        state.expire(1_100, 2_501 + DELETE_GRACE_MS);
        assert!(!state.has_seen(77), "a sweep may have deleted it");
    }

    #[test]
    fn past_its_expiry_a_state_is_empty_but_for_what_waits() {
        let mut state = ActorState::default();
        state.note(1_000, 500);
        state.remember(77, 16);
        let pending = Pending { join: 1, opened_ms: 900, due_ms: 9_000, opening: (*b"{}").into() };
        let memory = Memory::Sequence { runs: Vec::new(), pending: vec![pending.clone()] };
        state.put(fixed(1, 0, 1_200, 3), 64);
        state.put(Slot { memory, ..fixed(2, 0, 1_200, 0) }, 64);
        state.keep(1_000, 1_000);
        state.expire(1_500, 1_500);
        assert!(state.has_seen(77));
        state.expire(1_501, 1_501);
        assert_eq!(state.newest_ms, None);
        assert!(!state.has_seen(77) && state.slot(1, 0).is_none());
        assert_eq!(state.take_due(8_999), None);
        assert_eq!(state.take_due(9_000), Some(Due::Rule(2, 0, pending)));
        assert_eq!(state.next_due_ms(), None);
    }
}
