//! What each rule did with an event, and why: for people who ask why nothing came of it.
//!
//! It asks what decisions ask ([`Engine::select`], `show`), on a copy of the entity's state, so that it says what the engine
//! does. Nothing is decided and nothing changes.

use super::{Engine, Made, Outcome, PassedOver, Selection, Shown, counts, exception, flag_user, is_about, sub_key};
use crate::observation::Observation;
use crate::rule::{Effect, Mode, Rule};
use crate::state::{ActorState, Memory};

/// What came of an event for one entity, rule by rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it was counted at all.
    pub outcome: Outcome,
    /// The master flag, if it is off for the event's user: nothing is decided then.
    pub switched_off_by: Option<String>,
    /// The rules that count entities of this kind, in the pack's order; none when the event was not counted.
    pub rules: Vec<Explained>,
}

/// What one rule did with the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// `id@version`.
    pub rule: String,
    /// What the rule may do at most.
    pub mode: Mode,
    /// What it did.
    pub why: Why,
}

/// What a rule did with an event, and why it did not fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is off.
    Off,
    /// Its flag, named here, is off for the event's user.
    FlagOff(String),
    /// One of our own decisions refused the request, and the rule leaves those out.
    OwnBlock,
    /// It looks at events of another type, named here.
    OtherType(String),
    /// Its `when` does not hold.
    WhenFalse,
    /// The event lacks what it counts, or is no step that it knows.
    NothingToCount,
    /// An exception, named here, leaves the event out.
    Ignored(String),
    /// An exception, named here, lets the event count and not fire.
    CountedOnly(String),
    /// The event was counted, and the condition is not met.
    NotMet {
        /// How far it is, in words: "3 of 5 in 2m". `None` where that is not a matter of numbers.
        progress: Option<String>,
    },
    /// The event was counted, and the rule waits: it fires at this time (milliseconds) unless something comes in between.
    Waits(i64),
    /// The condition is met, and the rule has fired for that already.
    HeldBack {
        /// When it last fired, milliseconds.
        fired_ms: i64,
        /// Firings held back since, this one included.
        suppressed: u32,
    },
    /// A rule over the score: it is asked when another rule fires, and none did.
    NotAsked,
    /// It fires.
    Fires,
}

impl Engine {
    /// What [`Engine::process`] makes of an observation, rule by rule. `state` is the entity's before it.
    pub fn explain(&self, observation: &Observation<'_>, state: &ActorState) -> Explanation {
        let mut selection = Selection::default();
        self.select(observation, &mut selection);
        let (mut after, mut made) = (state.clone(), Made::default());
        let outcome = self.apply(observation, &selection, &mut after, &mut made);
        let user = flag_user(&observation.event);
        let switched_off_by = self.rules.policy.master_flag.and_then(|flag| self.off(flag, user));
        let mut rules = Vec::new();
        // Every rule is shown the state that the rules before it left, as decisions have it.
        let mut shown = state.clone();
        if self.count(observation, &mut shown) == Outcome::Processed && switched_off_by.is_none() {
            let fired = made.decisions.iter().flat_map(|decision| &decision.fired).collect::<Vec<_>>();
            for (index, rule) in self.rules.rules.iter().enumerate().filter(|(_, rule)| counts(rule, observation)) {
                let why = match self.passed_over(rule, observation) {
                    Some(passed_over) => self.why_not(passed_over),
                    None if rule.detector.is_composite() => self.why_composite(rule, observation, &fired, state, &mut after),
                    None if selection.has(index) => self.why_shown(index, observation, &mut shown),
                    None => not_concerned(rule, observation),
                };
                rules.push(Explained { rule: rule.name(), mode: rule.mode, why });
            }
        }
        Explanation { outcome, switched_off_by, rules }
    }

    fn why_not(&self, passed_over: PassedOver) -> Why {
        match passed_over {
            PassedOver::Off => Why::Off,
            PassedOver::OwnBlock => Why::OwnBlock,
            PassedOver::Flag(flag) => Why::FlagOff(self.rules.flags[flag].name.clone()),
            PassedOver::NothingToCount | PassedOver::OtherEntity => Why::NothingToCount,
        }
    }

    /// Shows the event to a rule that looks at it.
    fn why_shown(&self, index: usize, observation: &Observation<'_>, state: &mut ActorState) -> Why {
        let (rule, event) = (&self.rules.rules[index], &observation.event);
        let (is_met, fires) = match self.show(index, observation, observation.event.event_time_ms, None, state) {
            Shown::Nothing => (false, false),
            Shown::HeldBack(..) => (true, false),
            Shown::Fires(_) => (true, true),
        };
        let spared = exception(rule, observation).map(|exception| (exception.effect, exception.id.clone()));
        let slot = state.slot(rule.slot, sub_key(rule, event));
        match (spared, slot) {
            _ if fires => Why::Fires,
            (Some((Effect::Ignore, id)), _) => Why::Ignored(id),
            (Some((Effect::CountOnly, id)), _) => Why::CountedOnly(id),
            (_, Some(slot)) if is_met => Why::HeldBack { fired_ms: slot.edge.fired_ms, suppressed: slot.edge.suppressed },
            (_, Some(slot)) => match waits_ms(&slot.memory, event.event_time_ms) {
                Some(due_ms) => Why::Waits(due_ms),
                None => Why::NotMet { progress: rule.detector.progress(event.event_time_ms, &slot.memory) },
            },
            (_, None) => Why::NotMet { progress: None },
        }
    }

    /// What a rule over the score did, by what it left behind.
    fn why_composite(
        &self,
        rule: &Rule,
        observation: &Observation<'_>,
        fired: &[&String],
        before: &ActorState,
        after: &mut ActorState,
    ) -> Why {
        let (event, name) = (&observation.event, rule.name());
        if !is_about(rule, observation) {
            return not_concerned(rule, observation);
        }
        if fired.is_empty() {
            return Why::NotAsked;
        }
        if fired.iter().any(|fired| **fired == name) {
            return Why::Fires;
        }
        match exception(rule, observation).map(|exception| (exception.effect, exception.id.clone())) {
            Some((Effect::Ignore, id)) => return Why::Ignored(id),
            Some((Effect::CountOnly, id)) => return Why::CountedOnly(id),
            _ => {}
        }
        let sub = sub_key(rule, event);
        let held_back = |state: &mut ActorState| state.edge(rule.slot, sub).map(|edge| (edge.fired_ms, edge.suppressed));
        match (held_back(&mut before.clone()), held_back(after)) {
            (before, Some((fired_ms, suppressed))) if before.is_none_or(|(_, before)| suppressed > before) && suppressed > 0 => {
                Why::HeldBack { fired_ms, suppressed }
            }
            _ => Why::NotMet { progress: None },
        }
    }
}

/// Why the event does not concern a rule.
fn not_concerned(rule: &Rule, observation: &Observation<'_>) -> Why {
    match &rule.on {
        Some(on) if **on != *observation.event.event_type => Why::OtherType(on.clone()),
        _ if is_about(rule, observation) => Why::NothingToCount,
        _ => Why::WhenFalse,
    }
}

/// When what an event of this time opened is due.
fn waits_ms(memory: &Memory, at_ms: i64) -> Option<i64> {
    match memory {
        Memory::Sequence { pending, .. } => pending.iter().find(|p| p.waits() && p.opened_ms == at_ms).map(|p| p.due_ms),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
