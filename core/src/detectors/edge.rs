//! Whether a condition that is met becomes a firing.
//!
//! A rule fires when its condition turns true; while it stays true at most once per `once_per` (never again without one),
//! and a fresh edge within `once_per` of a firing is held back. What was held back is counted and rides on the next firing.

use super::Seen;
use crate::rule::Rhythm;
use crate::state::Edge;

/// Takes what an event did to the condition; answers whether the rule fires, with how many firings were held back since
/// the one before.
pub fn take(edge: &mut Edge, seen: &Seen, rhythm: Rhythm, at_ms: i64, once_per_ms: i64) -> Option<u32> {
    let was_on = edge.on && !seen.lapsed;
    // What held without firing (an exception only counted it) is no edge yet: the next event that fires is.
    edge.on = seen.holds && (was_on || seen.firing.is_some());
    seen.firing?;
    if rhythm == Rhythm::Every {
        return Some(0);
    }
    // Looked at from both sides: of two edges that are far enough apart both fire, whichever came first.
    let rested = edge.fired_ms == i64::MIN || at_ms.abs_diff(edge.fired_ms) >= once_per_ms.unsigned_abs();
    if !rested || (was_on && once_per_ms == 0) {
        edge.suppressed = edge.suppressed.saturating_add(1);
        return None;
    }
    edge.fired_ms = edge.fired_ms.max(at_ms);
    Some(std::mem::take(&mut edge.suppressed))
}
