//! # match
//!
//! **What it detects.** Every event that passes `when`. **Why it matters.** Some things are wrong the first time: a header
//! that names another tenant, an anomaly the app itself reports. **Signals.** One per event, or one per `once_per`.
//! **Tuning.** All of it is in `when`. **Example.** `detect: { match: {} }`.

use super::{Firing, Verdict};
use crate::rule::Rule;
use crate::state::{ActorState, Memory, Room};

/// Fires, unless the rule fired within `once_per` before. Without a cooldown nothing is remembered.
pub fn observe(rule: &Rule, sub: u64, event_ms: i64, state: &mut ActorState) -> Verdict {
    let fires = Verdict { firing: Some(Firing { count: 1, within_ms: 0 }), room: Room::Free };
    let cooldown_ms = rule.signal.once_per_ms;
    if cooldown_ms == 0 {
        return fires;
    }
    if let Some(Memory::Fired { at_ms, .. }) = state.memory(rule.slot, sub)
        && event_ms < at_ms.saturating_add(cooldown_ms)
    {
        return Verdict { firing: None, room: Room::Free };
    }
    state.note(event_ms, cooldown_ms);
    let room = state.put(rule.slot, sub, Memory::Fired { at_ms: event_ms, end_ms: event_ms.saturating_add(cooldown_ms) }, rule.per_max);
    Verdict { room, ..fires }
}
