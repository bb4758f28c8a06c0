//! What rules may remember, in bytes of the encoded state of one entity. Upper bounds: most entities remember far less.

use crate::detectors::Detector;
use crate::entity::{EntityKind, Part};
use crate::policy::Decide;
use crate::rule::{By, Mode, Rule, RuleSet};
use crate::score::reasons::Reasons;
use crate::state::{EPISODE_BYTES, HELD_BYTES, REST_BYTES};
use std::collections::BTreeMap;

/// The most that one rule may remember of one entity: 1 MiB. More is a problem of the rule (R015).
pub const MAX_RULE_BYTES: usize = 1 << 20;
/// The most that the rules of a pack together may remember of one entity: 1 000 000 bytes. A state is one record of the
/// changelog, and a topic takes records of that size whatever the settings.
pub const MAX_ENTITY_BYTES: usize = 1_000_000;
/// What the rules of a pack together should not exceed for one entity, unless the caller says otherwise: 64 KiB.
pub const DEFAULT_BUDGET_BYTES: usize = 64 << 10;

/// A slot besides the detector's memory: the rule's hash and the sub-key's (8 each), what there is (1), its end, window,
/// last firing and the end of its warming (6 each: times of at most two years apart), firings held back (5).
const SLOT_BYTES: usize = 8 + 8 + 1 + 4 * 6 + 5;
/// A state besides its slots and event ids: version and parts (2), four times and the age of its windows (6 each), the
/// hash of the windows (8), the numbers of ids and of slots (1 and 3).
const STATE_BYTES: usize = 2 + 5 * 6 + 8 + 4;

/// What one rule may remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCost {
    /// Its index in [`RuleSet::rules`].
    pub rule: usize,
    /// Whom it counts: `actor`, or a kind of entity.
    pub by: String,
    /// Bytes of one entity, all sub-keys together.
    pub bytes: usize,
}

/// The costs of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// One for each rule that is not off, in their order.
    pub rules: Vec<RuleCost>,
    /// All rules together and what is remembered besides, by kind of entity. A user and an address may be actors: what
    /// rules remember of actors is part of both.
    pub kinds: BTreeMap<String, usize>,
}

/// The most bytes that a rule with this detector remembers of one entity.
pub fn bytes(detector: &dyn Detector, once_per_ms: i64, sub_keys: usize) -> usize {
    match detector.memory() {
        None if once_per_ms == 0 => 0,
        None => SLOT_BYTES.saturating_mul(sub_keys),
        Some(_) => detector.most_bytes().saturating_add(SLOT_BYTES).saturating_mul(sub_keys),
    }
}

/// What the rules of a pack may remember.
pub fn of(set: &RuleSet) -> Costs {
    let on = |rule: &&Rule| rule.mode != Mode::Off;
    let cost = |rule: &Rule| bytes(&*rule.detector, rule.signal.once_per_ms, rule.per.as_ref().map_or(1, |_| rule.per_max));
    let rules = set.rules.iter().enumerate().filter(|(_, rule)| on(rule)).map(|(index, rule)| RuleCost {
        rule: index,
        by: match rule.by {
            By::Actor => "actor".to_owned(),
            By::Kind(kind) => kind.to_string(),
        },
        bytes: cost(rule),
    });
    let mut kinds = BTreeMap::new();
    for rule in set.rules.iter().filter(on) {
        match rule.by {
            By::Kind(kind) => *kinds.entry(kind.to_string()).or_insert(0) += cost(rule),
            By::Actor => {
                for actor in [EntityKind::from(Part::User), EntityKind::from(Part::Ip)] {
                    *kinds.entry(actor.to_string()).or_insert(0) += cost(rule);
                }
            }
        }
    }
    let ledger = ledger_bytes(set);
    for bytes in kinds.values_mut() {
        *bytes += STATE_BYTES + 8 * set.policy.remember_ids + ledger;
    }
    Costs { rules: rules.collect(), kinds }
}

/// What may be held against one entity: a contribution for each reason, or an alert for each rule.
fn ledger_bytes(set: &RuleSet) -> usize {
    let reasons = Reasons::of(set);
    let live = set.rules.iter().filter(|rule| rule.mode > Mode::Shadow);
    let (held, episodes) = match set.policy.decide {
        Decide::PerEvent => (live.map(|rule| reasons.count(rule, set)).sum(), 1),
        Decide::PerSignal => (0, live.count()),
    };
    REST_BYTES + HELD_BYTES * held + EPISODE_BYTES * episodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{ActorState, Edge, Memory, Slot};

    #[test]
    fn the_bound_holds_for_the_fullest_state() {
        let year_ms = 366 * 86_400_000;
        let mut state = ActorState::default();
        state.note(4_000_000_000_000, 2 * year_ms);
        state.keep(4_000_000_000_000, 4_000_000_000_000);
        state.note_windows(4_000_000_000_000, 1);
        state.note_windows(4_000_000_000_000 - year_ms, u64::MAX);
        (0..64).for_each(|id| state.remember(id, 64));
        let edge = Edge { on: true, fired_ms: 4_000_000_000_000 - 2 * year_ms, suppressed: u32::MAX };
        let slot = |sub| Slot {
            rule: u64::MAX,
            sub,
            end_ms: 4_000_000_000_000 + 2 * year_ms,
            window_ms: year_ms,
            warm_ms: 4_000_000_000_000 + year_ms,
            edge,
            memory: Memory::Nothing,
        };
        (1..=4_096).for_each(|sub| _ = state.put(slot(sub), 4_096));
        let mut encoded = Vec::new();
        state.encode(&mut encoded);
        let bound = STATE_BYTES + 8 * 64 + SLOT_BYTES * 4_096;
        assert!(encoded.len() <= bound && encoded.len() * 10 > bound * 9, "{} bytes, bound {bound}", encoded.len());
    }
}
