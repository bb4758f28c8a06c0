//! Observation, actor state and rules in; decisions, alerts and standing out. The only door, used by run, replay and tests.
//!
//! Rules look at an event in the pack's order ([`Engine::apply`]). What fires makes a decision each (`decide: per_signal`,
//! [`mod@decide`]), or is weighed together, with what is held against the entity already ([`weigh`]).

mod alerts;
mod decide;
pub mod explain;
#[cfg(test)]
mod tests;
mod weigh;

use crate::address::{Addressing, Kinds};
use crate::alert::Alert;
use crate::decision::Decision;
use crate::detectors::{Firing, Look, ScoreLook, edge};
use crate::entity::Entity;
use crate::event::Event;
use crate::expr::Expr;
use crate::expr::plan::{Plan, PlanRule, Scratch};
use crate::flags::{BoundFlags, FlagSnapshot, FlagUser};
use crate::hash;
use crate::observation::{Observation, Position};
use crate::policy::Decide;
use crate::rule::{By, Effect, Exception, Mode, Rule, RuleSet, SignalType};
use crate::score::reasons::Reasons;
use crate::standing::StandingChange;
use crate::state::{ActorState, Due, Edge, Memory, Room, SLOT_GRACE_MS, Slot};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which events get a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// Those on which something fired.
    Fired,
    /// Every one.
    All,
}

/// The one fate of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Counted and evaluated.
    Processed,
    /// Older than the entity's newest event minus the allowed lateness: not counted.
    Late,
    /// Its event id was seen before: not counted again.
    Duplicate,
}

/// What came of an event, or of the passing of time. Each list in the order in which it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Made {
    /// Decisions, those of rules that only watch included.
    pub decisions: Vec<Decision>,
    /// Alerts opened, updated, resolved.
    pub alerts: Vec<Alert>,
    /// What became of an entity's standing.
    pub standings: Vec<StandingChange>,
}

impl Made {
    /// Empties it.
    pub fn clear(&mut self) {
        self.decisions.clear();
        self.alerts.clear();
        self.standings.clear();
    }

    /// Whether nothing was made.
    pub fn is_empty(&self) -> bool {
        self.decisions.is_empty() && self.alerts.is_empty() && self.standings.is_empty()
    }
}

/// Rules and flags, consistent with each other, ready to decide.
#[derive(Debug)]
pub struct Engine {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// The flags' digest.
    pub flags_digest: String,
    flags: BoundFlags,
    emit: Emit,
    addressing: Addressing,
    /// Which entities the rules count.
    kinds: Kinds,
    /// How long an entity is remembered for its own sake (late events, repeats), besides what its rules remember.
    keep_ms: i64,
    /// A hash of how far each rule looks back.
    windows: u64,
    by_slot: BTreeMap<u64, usize>,
    /// The predicates of all rules as one program.
    plan: Plan,
    /// What their firings count for.
    reasons: Reasons,
    /// The rules that look at the score, in their order.
    composites: Vec<usize>,
}

/// The rules that look at one event, found before its entity's state is touched.
#[derive(Debug, Default)]
pub struct Selection {
    rules: Vec<usize>,
    scratch: Scratch,
}

/// An event on its way to the entities that it concerns.
#[derive(Debug)]
pub struct Addressed<'e> {
    observation: Observation<'e>,
    entities: Vec<(Entity<'static>, bool)>,
}

impl Selection {
    /// Whether this rule is among them, by its index.
    pub fn has(&self, rule: usize) -> bool {
        self.rules.contains(&rule)
    }
}

impl<'e> Addressed<'e> {
    /// Whether it concerns nobody.
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    /// Shows one observation for each entity, the actor's first.
    pub fn each<E>(self, mut show: impl FnMut(&Observation<'e>) -> Result<(), E>) -> Result<(), E> {
        let mut observation = self.observation;
        for (entity, is_actor) in self.entities {
            (observation.entity, observation.is_actor) = (entity, is_actor);
            show(&observation)?;
        }
        Ok(())
    }

    /// The actor's observation, if it concerns the actor.
    pub fn into_actor(self) -> Option<Observation<'e>> {
        let (entity, is_actor) = self.entities.into_iter().find(|(_, is_actor)| *is_actor)?;
        Some(Observation { entity, is_actor, ..self.observation })
    }
}

/// An entity is remembered at least this long after its newest event when lateness or repeats are judged: one hour.
const KEEP_AT_LEAST_MS: i64 = 3_600_000;

/// The word in `blocked_by` that names our own decisions.
const OWN_BLOCK: &str = "self";

/// Why a rule does not look at an event at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PassedOver {
    /// `mode: off`.
    Off,
    /// It counts another kind of entity.
    OtherEntity,
    /// One of our own decisions refused the request.
    OwnBlock,
    /// The event lacks what the rule counts.
    NothingToCount,
    /// Its flag (its index) is off for the event's user.
    Flag(usize),
}

/// What an event did to a rule.
enum Shown<'a> {
    /// Nothing that anybody need know.
    Nothing,
    /// Its condition is met, and it has fired for that already.
    HeldBack(Firing, Option<&'a Exception>),
    /// It fires.
    Fires(Circumstances<'a>),
}

/// What is said of a firing besides its event.
#[derive(Debug, Clone, Copy)]
struct Circumstances<'a> {
    /// Index of its rule.
    rule: usize,
    firing: Firing,
    suppressed: u32,
    is_partial: bool,
    is_warming: bool,
    exception: Option<&'a Exception>,
    due_ms: Option<i64>,
}

impl Circumstances<'_> {
    /// The exception that spares it: the decision is made, and nothing done or held against anyone.
    fn spared_by(&self) -> Option<&str> {
        spares(self.exception)
    }
}

/// The id of an exception that lets a decision be made and nothing be done.
fn spares(exception: Option<&Exception>) -> Option<&str> {
    exception.filter(|exception| exception.effect == Effect::NoAction).map(|exception| exception.id.as_str())
}

impl Engine {
    /// Binds rules to flags. Events are addressed as they come: no proxies, no scope, no sessions.
    pub fn new(rules: Arc<RuleSet>, flags: &FlagSnapshot, emit: Emit) -> Engine {
        let bound = flags.bind(&rules.flags);
        let keep_ms = rules.policy.allowed_lateness_ms.unwrap_or(0).max(KEEP_AT_LEAST_MS);
        let by_slot: BTreeMap<u64, usize> = rules.rules.iter().enumerate().map(|(index, rule)| (rule.slot, index)).collect();
        let windows: Vec<u8> = by_slot
            .iter()
            .flat_map(|(slot, index)| [slot.to_le_bytes(), rules.rules[*index].detector.window_ms().to_le_bytes()].concat())
            .collect();
        // Rules that look at the score are asked when something fired.
        let composites: Vec<usize> = (0..rules.rules.len()).filter(|index| rules.rules[*index].detector.is_composite()).collect();
        let alternatives: Vec<Vec<&Expr>> = rules.rules.iter().map(|rule| rule.detector.alternatives()).collect();
        let plan_rules: Vec<PlanRule<'_>> = rules
            .rules
            .iter()
            .zip(&alternatives)
            .map(|(rule, any_of)| PlanRule { on: rule.on.as_deref(), when: rule.when.as_ref(), any_of })
            .collect();
        let plan = Plan::build(&plan_rules);
        Engine {
            flags_digest: flags.digest.clone(),
            flags: bound,
            emit,
            addressing: Addressing::default(),
            kinds: rules.kinds(),
            keep_ms,
            windows: hash::short(&windows).max(1),
            by_slot,
            plan,
            reasons: Reasons::of(&rules),
            composites,
            rules,
        }
    }

    /// The same, with the operator's way of addressing events.
    pub fn addressing(self, addressing: Addressing) -> Engine {
        Engine { addressing, ..self }
    }

    /// Whether the passing of time may bring something: a rule that fires on it, an action or an alert that ends.
    pub fn needs_time(&self) -> bool {
        let on = |rule: &Rule| rule.mode != Mode::Off && rule.detector.due().is_some();
        !self.rules.policy.actions.is_empty() || self.rules.policy.decide == Decide::PerEvent || self.rules.rules.iter().any(on)
    }

    /// How much older than its entity's newest event an event may be, milliseconds; 0 when that is not judged.
    pub fn lateness_ms(&self) -> i64 {
        self.rules.policy.allowed_lateness_ms.unwrap_or(0)
    }

    /// Finds whom an event concerns. From here on it has an id, its time is capped and its session id is hashed.
    pub fn address<'e>(&self, mut event: Event<'e>, position: &Position, reference_ms: i64) -> Addressed<'e> {
        self.addressing.normalise(&mut event);
        let mut entities = Vec::new();
        self.addressing.entities(&event, self.client_address(&event), &self.kinds, &mut entities);
        Addressed { observation: Observation::new(event, Entity::anon(), position, reference_ms), entities }
    }

    /// The client's address, by the pack's way of finding it.
    fn client_address<'e>(&self, event: &'e Event<'_>) -> Option<&'e str> {
        if self.rules.policy.trust_forwarded_for
            && let Some(forwarded) = event.header("x-forwarded-for").map(str::trim).filter(|f| !f.is_empty())
        {
            // An empty first value is no address, not a reason to believe the peer's: what the package does.
            return forwarded.split(',').next().map(str::trim).filter(|first| !first.is_empty());
        }
        event.ip_address.as_deref()
    }

    /// Whether the master flag is off for everyone, so that nothing will be decided; with the flag's name.
    pub fn switched_off_by(&self) -> Option<&str> {
        let flag = self.rules.policy.master_flag?;
        self.flags.is_off_for_all(flag).then(|| self.rules.flags[flag].name.as_str())
    }

    /// Finds the rules that look at an event. Answers whether the entity's state is needed at all: an event that no rule
    /// looks at leaves no trace when neither lateness nor repeats are judged and only firings are emitted.
    pub fn select(&self, observation: &Observation<'_>, selection: &mut Selection) -> bool {
        selection.rules.clear();
        let (policy, event) = (&self.rules.policy, &observation.event);
        let user = flag_user(event);
        if policy.master_flag.is_none_or(|flag| self.flags.is_on(flag, user)) {
            self.plan.select(event, &mut selection.scratch, &mut selection.rules);
            selection.rules.retain(|index| {
                let rule = &self.rules.rules[*index];
                !rule.detector.is_composite() && self.passed_over(rule, observation).is_none()
            });
        }
        !selection.rules.is_empty() || policy.allowed_lateness_ms.is_some() || policy.remember_ids > 0 || self.emit == Emit::All
    }

    /// Why a rule does not look at an event, whatever its `on` and `when` say; `None` if it does.
    fn passed_over(&self, rule: &Rule, observation: &Observation<'_>) -> Option<PassedOver> {
        let event = &observation.event;
        if rule.mode == Mode::Off {
            return Some(PassedOver::Off);
        }
        if !counts(rule, observation) {
            return Some(PassedOver::OtherEntity);
        }
        if !rule.include_own_blocks && event.blocked_by.as_deref() == Some(OWN_BLOCK) {
            return Some(PassedOver::OwnBlock);
        }
        if !rule.detector.takes(event) {
            return Some(PassedOver::NothingToCount);
        }
        rule.flag.filter(|flag| !self.flags.is_on(*flag, flag_user(event))).map(PassedOver::Flag)
    }

    /// Counts and evaluates one observation. What comes of it is appended to `out`.
    pub fn process(&self, observation: &Observation<'_>, state: &mut ActorState, out: &mut Made) -> Outcome {
        let mut selection = Selection::default();
        self.select(observation, &mut selection);
        self.apply(observation, &selection, state, out)
    }

    /// [`Engine::process`] with the rules already selected.
    pub fn apply(&self, observation: &Observation<'_>, selection: &Selection, state: &mut ActorState, out: &mut Made) -> Outcome {
        let (policy, at) = (&self.rules.policy, observation.event.event_time_ms);
        let outcome = self.count(observation, state);
        if outcome != Outcome::Processed {
            return outcome;
        }
        self.lapse_before(&observation.entity, at, state, out);
        let before = out.decisions.len();
        let mut fired = Vec::new();
        for &index in &selection.rules {
            match (self.show(index, observation, at, None, state), policy.decide) {
                (Shown::Nothing, _) | (Shown::HeldBack(..), Decide::PerSignal) => {}
                (Shown::HeldBack(firing, exception), Decide::PerEvent) => self.refresh(index, observation, firing, exception, state),
                (Shown::Fires(circumstances), Decide::PerSignal) => self.decide(observation, circumstances, state, out),
                (Shown::Fires(circumstances), Decide::PerEvent) => fired.push(circumstances),
            }
        }
        if !fired.is_empty() {
            self.weigh(observation, at, fired, state, out);
        }
        state.keep(at, observation.reference_ms);
        if self.emit == Emit::All && out.decisions[before..].iter().all(|decision| decision.shadow) {
            out.decisions.push(self.nothing(observation, state));
        }
        Outcome::Processed
    }

    /// Decides on an observation's outcome, and notes that it was counted.
    fn count(&self, observation: &Observation<'_>, state: &mut ActorState) -> Outcome {
        let (policy, at) = (&self.rules.policy, observation.event.event_time_ms);
        state.expire(at, observation.reference_ms);
        if let (Some(lateness), Some(newest)) = (policy.allowed_lateness_ms, state.newest_ms)
            && at < newest.saturating_sub(lateness)
        {
            return Outcome::Late;
        }
        if policy.remember_ids > 0 && observation.has_own_id {
            let id = hash::short(observation.event.event_id.as_deref().unwrap_or_default().as_bytes());
            if state.has_seen(id) {
                return Outcome::Duplicate;
            }
            state.remember(id, policy.remember_ids);
        }
        if policy.allowed_lateness_ms.is_some() || policy.remember_ids > 0 {
            state.note(at, self.keep_ms);
        }
        Outcome::Processed
    }

    /// Shows an event to one rule; answers what is to be said if it fires.
    fn show(
        &self,
        index: usize,
        observation: &Observation<'_>,
        at_ms: i64,
        score: Option<&ScoreLook>,
        state: &mut ActorState,
    ) -> Shown<'_> {
        let rule = &self.rules.rules[index];
        let event = &observation.event;
        let exception = exception(rule, observation);
        let effect = exception.map(|e| e.effect);
        if effect == Some(Effect::Ignore) {
            return Shown::Nothing;
        }
        let look = Look { observation, at_ms, lateness_ms: self.lateness_ms(), score };
        let sub = sub_key(rule, event);
        let once_per_ms = rule.signal.once_per_ms;
        let fresh = match rule.detector.memory() {
            Some(memory) => memory,
            None if once_per_ms > 0 => Memory::Nothing,
            None => {
                let firing = rule.detector.observe(&look, &mut Memory::Nothing).firing.filter(|_| effect != Some(Effect::CountOnly));
                let fires = |firing| Circumstances {
                    rule: index,
                    firing,
                    suppressed: 0,
                    is_partial: false,
                    is_warming: false,
                    exception,
                    due_ms: None,
                };
                return firing.map_or(Shown::Nothing, |firing| Shown::Fires(fires(firing)));
            }
        };
        state.note_windows(at_ms, self.windows);
        let since_ms = state.windows_since_ms();
        let window_ms = rule.detector.window_ms();
        let advance = |slot: &mut Slot| {
            if slot.window_ms < window_ms {
                slot.warm_ms = at_ms.saturating_add(window_ms);
            }
            slot.window_ms = window_ms;
            let seen = rule.detector.observe(&look, &mut slot.memory);
            // A slot is kept for a grace past its end; where more lateness is allowed, for that.
            let late_ms = (look.lateness_ms - SLOT_GRACE_MS).max(0);
            slot.end_ms = slot.end_ms.max(seen.end_ms.saturating_add(once_per_ms).saturating_add(late_ms));
            let fires = match effect {
                Some(Effect::CountOnly) => {
                    slot.edge.on &= seen.holds && !seen.lapsed;
                    None
                }
                // What is spared leaves the edge to what is not: one spared event must not hide those after it.
                Some(Effect::NoAction) => {
                    let mut aside = slot.edge;
                    let fires = edge::take(&mut aside, &seen, rule.detector.rhythm(), at_ms, once_per_ms);
                    slot.edge.on &= seen.holds && !seen.lapsed;
                    fires
                }
                _ => edge::take(&mut slot.edge, &seen, rule.detector.rhythm(), at_ms, once_per_ms),
            };
            (seen, fires, at_ms < slot.warm_ms, slot.end_ms)
        };
        let (advanced, room) = match state.slot(rule.slot, sub) {
            Some(slot) => (advance(slot), Room::Free),
            None => {
                let warm_ms = if since_ms == i64::MIN { i64::MIN } else { since_ms.saturating_add(window_ms) };
                let edge = Edge::default();
                let mut slot = Slot { rule: rule.slot, sub, end_ms: i64::MIN, window_ms, warm_ms, edge, memory: fresh };
                (advance(&mut slot), state.put(slot, rule.per_max))
            }
        };
        let (seen, fires, is_warming, end_ms) = advanced;
        if at_ms == event.event_time_ms {
            state.note(at_ms, end_ms.saturating_sub(at_ms));
        } else {
            // Asked at a time that has come: no event of the entity happened then.
            state.retain(end_ms);
        }
        let is_partial = room == Room::Dropped || seen.room == Room::Dropped;
        match (seen.firing, fires) {
            (Some(firing), Some(suppressed)) => {
                Shown::Fires(Circumstances { rule: index, firing, suppressed, is_partial, is_warming, exception, due_ms: None })
            }
            (Some(firing), None) if effect != Some(Effect::CountOnly) => Shown::HeldBack(firing, exception),
            _ => Shown::Nothing,
        }
    }

    /// Deals with what waits in an entity's state and is due: everything whose due time and the allowed lateness together are not
    /// after `stream_time_ms`, in the order of due times. What comes of it is appended to `out`.
    pub fn fire_due(&self, entity: &Entity<'_>, stream_time_ms: i64, state: &mut ActorState, out: &mut Made) {
        let until_ms = stream_time_ms.saturating_sub(self.lateness_ms());
        while let Some(due) = state.take_due(until_ms) {
            let (slot, sub, pending) = match due {
                Due::Rule(slot, sub, pending) => (slot, sub, pending),
                Due::Ledger(due_ms) => {
                    self.lapse(entity, due_ms, state, out);
                    continue;
                }
            };
            // A rule that is gone, and one that is switched off by now, says nothing.
            let Some(&index) = self.by_slot.get(&slot) else { continue };
            let rule = &self.rules.rules[index];
            let Ok(opening) = Observation::decode_about(Ok(entity.clone()), Some(&pending.opening)) else { continue };
            let user = flag_user(&opening.event);
            let is_on = |flag: Option<usize>| flag.is_none_or(|flag| self.flags.is_on(flag, user));
            let Some(firing) =
                rule.detector.due().filter(|_| rule.mode != Mode::Off && is_on(rule.flag) && is_on(self.rules.policy.master_flag))
            else {
                continue;
            };
            let mut aside = Edge::default();
            let edge = state.edge(slot, sub).unwrap_or(&mut aside);
            let (due_ms, room) = (pending.due_ms, Room::Free);
            let seen = crate::detectors::Seen { lapsed: true, firing: Some(firing), holds: false, end_ms: due_ms, room };
            let Some(suppressed) = edge::take(edge, &seen, rule.detector.rhythm(), due_ms, rule.signal.once_per_ms) else { continue };
            let (is_partial, is_warming, exception, at_ms) = (false, false, None, due_ms);
            let due_ms = Some(due_ms);
            let circumstances = Circumstances { rule: index, firing, suppressed, is_partial, is_warming, exception, due_ms };
            match self.rules.policy.decide {
                Decide::PerSignal => self.decide(&opening, circumstances, state, out),
                Decide::PerEvent => self.weigh(&opening, at_ms, vec![circumstances], state, out),
            }
            state.keep(opening.event.event_time_ms, opening.reference_ms);
        }
    }

    /// The name of a flag that is off for a user.
    fn off(&self, flag: usize, user: FlagUser<'_>) -> Option<String> {
        (!self.flags.is_on(flag, user)).then(|| self.rules.flags[flag].name.clone())
    }

    /// The anomaly type of a rule's firing.
    fn type_of<'e>(&'e self, rule: &'e Rule, event: &'e Event<'_>) -> &'e str {
        match &rule.signal.ty {
            SignalType::Named(name) => name,
            SignalType::Reported => event.anomaly_type.as_deref().unwrap_or_default(),
        }
    }
}

/// Whether a rule counts the entity that an observation is about.
fn counts(rule: &Rule, observation: &Observation<'_>) -> bool {
    match rule.by {
        By::Actor => observation.is_actor,
        By::Kind(kind) => observation.entity.kind == kind,
    }
}

/// Whether an event is what a rule's `on` and `when` ask for. The rules of which that is so are found by their plan; this is for
/// one rule.
fn is_about(rule: &Rule, observation: &Observation<'_>) -> bool {
    let event = &observation.event;
    rule.on.as_deref().is_none_or(|on| on == event.event_type) && rule.when.as_ref().is_none_or(|when| when.holds(event))
}

fn flag_user<'e>(event: &'e Event<'_>) -> FlagUser<'e> {
    FlagUser {
        user_id: event.user_id.as_deref(),
        is_staff: event.is_staff.unwrap_or(false),
        is_authenticated: event.is_authenticated.unwrap_or(event.user_id.is_some()),
    }
}

/// The exception that spares an event, if one does: the first that matches.
fn exception<'r>(rule: &'r Rule, observation: &Observation<'_>) -> Option<&'r Exception> {
    let holds = |e: &&Exception| e.expires_ms.is_none_or(|end| observation.reference_ms < end) && e.when.holds(&observation.event);
    rule.exceptions.iter().find(holds)
}

/// The hash of an event's sub-key; 0 for a rule without `per`, and never 0 otherwise.
fn sub_key(rule: &Rule, event: &Event<'_>) -> u64 {
    use crate::value::Value;
    let Some(per) = &rule.per else { return 0 };
    let text: Cow<'_, str> = match per.eval(event) {
        Value::Str(text) => Cow::Borrowed(text),
        Value::Missing => Cow::Borrowed(""),
        other => Cow::Owned(other.to_json().to_string()),
    };
    hash::short(text.as_bytes()).max(1)
}
