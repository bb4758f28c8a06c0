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

use super::{Firing as Fired, Verdict};
use crate::rule::{Firing, Rule, Window};
use crate::state::{ActorState, Memory, Room};

/// Times kept beyond the threshold, so that a straggler does not push out one that still decides.
pub const SPARE: usize = 4;

/// The rule's numbers.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Threshold K.
    pub at_least: u32,
    /// Length of the window, milliseconds.
    pub within_ms: i64,
    /// Sliding or fixed.
    pub window: Window,
    /// Edge or every.
    pub firing: Firing,
}

/// Counts one event.
pub fn observe(rule: &Rule, sub: u64, event_ms: i64, state: &mut ActorState, spec: Spec) -> Verdict {
    match spec.window {
        Window::Fixed => fixed(rule, sub, event_ms, state, spec),
        Window::Sliding => sliding(rule, sub, event_ms, state, spec),
    }
}

fn fixed(rule: &Rule, sub: u64, event_ms: i64, state: &mut ActorState, spec: Spec) -> Verdict {
    let (count, room) = match state.memory(rule.slot, sub) {
        Some(Memory::Fixed { end_ms, count }) if event_ms < *end_ms => {
            *count = count.saturating_add(1);
            (*count, Room::Free)
        }
        _ => {
            let memory = Memory::Fixed { end_ms: event_ms.saturating_add(spec.within_ms), count: 1 };
            (1, state.put(rule.slot, sub, memory, rule.per_max))
        }
    };
    state.note(event_ms, spec.within_ms);
    let fires = match spec.firing {
        Firing::Every => count >= spec.at_least,
        Firing::Edge => count == spec.at_least,
    };
    Verdict { firing: fires.then_some(Fired { count, within_ms: spec.within_ms }), room }
}

fn sliding(rule: &Rule, sub: u64, event_ms: i64, state: &mut ActorState, spec: Spec) -> Verdict {
    let keep_ms = spec.within_ms.saturating_add(rule.signal.once_per_ms);
    let end = event_ms.saturating_add(keep_ms);
    let (firing, room) = match state.memory(rule.slot, sub) {
        Some(Memory::Sliding { times_ms, end_ms, on, fired_ms }) => {
            *end_ms = end.max(*end_ms);
            (slide(times_ms, on, fired_ms, event_ms, rule.signal.once_per_ms, spec), Room::Free)
        }
        _ => {
            let (mut times_ms, mut on, mut fired_ms) = (Vec::new(), false, i64::MIN);
            let firing = slide(&mut times_ms, &mut on, &mut fired_ms, event_ms, rule.signal.once_per_ms, spec);
            (firing, state.put(rule.slot, sub, Memory::Sliding { times_ms, end_ms: end, on, fired_ms }, rule.per_max))
        }
    };
    state.note(event_ms, keep_ms);
    Verdict { firing, room }
}

/// Inserts a time in order and answers whether the rule fires.
fn slide(times_ms: &mut Vec<i64>, on: &mut bool, fired_ms: &mut i64, event_ms: i64, once_per_ms: i64, spec: Spec) -> Option<Fired> {
    let k = spec.at_least as usize;
    let window = |end_ms: i64, times: &[i64]| {
        times.partition_point(|t| *t <= end_ms) - times.partition_point(|t| *t <= end_ms.saturating_sub(spec.within_ms))
    };
    // Just before this event the condition may have turned false by the passing of time alone.
    if window(event_ms, times_ms) < k {
        *on = false;
    }
    let at = times_ms.partition_point(|t| *t <= event_ms);
    times_ms.insert(at, event_ms);
    // A straggler completes a window that ends at a later event: look at each stored window that contains it.
    let completed = times_ms[at..]
        .iter()
        .take_while(|end| event_ms > end.saturating_sub(spec.within_ms))
        .map(|end| window(*end, times_ms))
        .max()
        .unwrap_or(0);
    let surplus = times_ms.len().saturating_sub(k + SPARE);
    times_ms.drain(..surplus);
    if completed < k {
        return None;
    }
    let was_on = std::mem::replace(on, true);
    let rested = *fired_ms == i64::MIN || event_ms >= fired_ms.saturating_add(once_per_ms);
    let fires = match spec.firing {
        Firing::Every => true,
        Firing::Edge if was_on => once_per_ms > 0 && rested,
        Firing::Edge => rested,
    };
    if !fires {
        return None;
    }
    *fired_ms = event_ms;
    Some(Fired { count: completed as u32, within_ms: spec.within_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(at_least: u32, within_ms: i64, firing: Firing) -> Spec {
        Spec { at_least, within_ms, window: Window::Sliding, firing }
    }

    fn firings(times: &[i64], once_per_ms: i64, spec: Spec) -> Vec<i64> {
        let (mut kept, mut on, mut fired) = (Vec::new(), false, i64::MIN);
        times.iter().copied().filter(|t| slide(&mut kept, &mut on, &mut fired, *t, once_per_ms, spec).is_some()).collect()
    }

    #[test]
    fn the_window_is_open_at_its_start_and_closed_at_its_end() {
        assert_eq!(firings(&[0, 5, 10], 0, spec(3, 10, Firing::Edge)), [] as [i64; 0], "0 is not in (0, 10]");
        assert_eq!(firings(&[1, 5, 10], 0, spec(3, 10, Firing::Edge)), [10]);
        assert_eq!(firings(&[5, 5, 5], 0, spec(3, 10, Firing::Edge)), [5], "equal times count");
    }

    #[test]
    fn an_edge_fires_once_until_the_count_fell_below() {
        assert_eq!(firings(&[1, 2, 3, 4, 5], 0, spec(3, 10, Firing::Edge)), [3]);
        assert_eq!(firings(&[1, 2, 3, 20, 21, 22], 0, spec(3, 10, Firing::Edge)), [3, 22]);
        assert_eq!(firings(&[1, 2, 3, 4, 5, 6, 7], 3, spec(3, 10, Firing::Edge)), [3, 6], "while it stays, once per cooldown");
        assert_eq!(firings(&[1, 2, 3, 20, 21, 22], 100, spec(3, 10, Firing::Edge)), [3], "a fresh edge within the cooldown is held");
    }

    #[test]
    fn a_straggler_inside_the_window_still_counts() {
        assert_eq!(firings(&[1, 9, 3], 0, spec(3, 10, Firing::Edge)), [3], "1, 3 and 9 lie in one window");
        assert_eq!(firings(&[1, 12, 3], 0, spec(3, 10, Firing::Edge)), [] as [i64; 0]);
    }

    proptest! {
        #[test]
        fn in_order_the_newest_k_times_decide_exactly(gaps in proptest::collection::vec(0i64..8, 1..200), k in 1u32..12, within in 1i64..40) {
            let times: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let expected: Vec<i64> = (0..times.len())
                .filter(|i| times[..=*i].iter().filter(|t| **t > times[*i] - within).count() >= k as usize)
                .map(|i| times[i])
                .collect();
            prop_assert_eq!(firings(&times, 0, spec(k, within, Firing::Every)), expected);
        }

        #[test]
        fn out_of_order_nothing_fires_that_brute_force_would_not(times in proptest::collection::vec(0i64..60, 1..80), k in 1u32..8, within in 1i64..30) {
            for (i, _) in times.iter().enumerate() {
                let (mut kept, mut on, mut fired) = (Vec::new(), false, i64::MIN);
                let fires = times[..=i].iter().map(|t| slide(&mut kept, &mut on, &mut fired, *t, 0, spec(k, within, Firing::Every))).next_back().flatten();
                let brute = times[..=i].iter().any(|end| times[i] <= *end && times[i] > end - within
                    && times[..=i].iter().filter(|t| **t <= *end && **t > end - within).count() >= k as usize);
                prop_assert!(fires.is_none() || brute);
            }
        }
    }
}
