//! Observation, actor state and rules in; decisions out. The only door, used by run, replay and tests.

use crate::address::{Addressing, Kinds};
use crate::decision::{ActionTaken, Contribution, Decision, EntityRef, HeldBack, SCHEMA_VERSION};
use crate::detectors::{Firing, Look, edge};
use crate::entity::Entity;
use crate::event::{Event, Text};
use crate::expr::Expr;
use crate::expr::plan::{Plan, PlanRule, Scratch};
use crate::flags::{BoundFlags, FlagSnapshot, FlagUser};
use crate::observation::{Observation, Position};
use crate::rule::{Action, By, Effect, Exception, Mode, Profile, Recorded, Rule, RuleSet, Severity, SignalType};
use crate::state::{ActorState, Edge, Memory, Room, SLOT_GRACE_MS, Slot};
use crate::{hash, mask, resource, time};
use serde_json::Map;
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

/// What is said of a firing besides its rule and event.
#[derive(Debug, Clone, Copy)]
struct Circumstances<'a> {
    firing: Firing,
    suppressed: u32,
    is_partial: bool,
    is_warming: bool,
    exception: Option<&'a Exception>,
    due_ms: Option<i64>,
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
            rules,
        }
    }

    /// The same, with the operator's way of addressing events.
    pub fn addressing(self, addressing: Addressing) -> Engine {
        Engine { addressing, ..self }
    }

    /// Whether some rule fires on the passing of time.
    pub fn needs_time(&self) -> bool {
        self.rules.rules.iter().any(|rule| rule.mode != Mode::Off && rule.detector.due().is_some())
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
            let own_block = event.blocked_by.as_deref() == Some(OWN_BLOCK);
            let looks = |index: &usize| {
                let rule = &self.rules.rules[*index];
                rule.mode != Mode::Off
                    && counts(rule, observation)
                    && (rule.include_own_blocks || !own_block)
                    && rule.detector.takes(event)
                    && rule.flag.is_none_or(|flag| self.flags.is_on(flag, user))
            };
            self.plan.select(event, &mut selection.scratch, &mut selection.rules);
            selection.rules.retain(looks);
        }
        !selection.rules.is_empty() || policy.allowed_lateness_ms.is_some() || policy.remember_ids > 0 || self.emit == Emit::All
    }

    /// Counts and evaluates one observation. Decisions are appended to `out`, in the order of the rules.
    pub fn process(&self, observation: &Observation<'_>, state: &mut ActorState, out: &mut Vec<Decision>) -> Outcome {
        let mut selection = Selection::default();
        self.select(observation, &mut selection);
        self.apply(observation, &selection, state, out)
    }

    /// [`Engine::process`] with the rules already selected.
    pub fn apply(&self, observation: &Observation<'_>, selection: &Selection, state: &mut ActorState, out: &mut Vec<Decision>) -> Outcome {
        let event = &observation.event;
        let policy = &self.rules.policy;
        let at = event.event_time_ms;
        state.expire(at, observation.reference_ms);
        if let (Some(lateness), Some(newest)) = (policy.allowed_lateness_ms, state.newest_ms)
            && at < newest.saturating_sub(lateness)
        {
            return Outcome::Late;
        }
        if policy.remember_ids > 0 && observation.has_own_id {
            let id = hash::short(event.event_id.as_deref().unwrap_or_default().as_bytes());
            if state.has_seen(id) {
                return Outcome::Duplicate;
            }
            state.remember(id, policy.remember_ids);
        }
        if policy.allowed_lateness_ms.is_some() || policy.remember_ids > 0 {
            state.note(at, self.keep_ms);
        }
        let before = out.len();
        for &index in &selection.rules {
            let rule = &self.rules.rules[index];
            if let Some(circumstances) = self.show(rule, observation, state) {
                out.push(self.decide(observation, rule, circumstances));
            }
        }
        state.keep(at, observation.reference_ms);
        if self.emit == Emit::All && out[before..].iter().all(|decision| decision.shadow) {
            out.push(self.nothing(observation));
        }
        Outcome::Processed
    }

    /// Shows an event to one rule; answers what is to be said if it fires.
    fn show<'r>(&self, rule: &'r Rule, observation: &Observation<'_>, state: &mut ActorState) -> Option<Circumstances<'r>> {
        let event = &observation.event;
        let at_ms = event.event_time_ms;
        let holds = |e: &&Exception| e.expires_ms.is_none_or(|end| observation.reference_ms < end) && e.when.holds(event);
        let exception = rule.exceptions.iter().find(holds);
        let effect = exception.map(|e| e.effect);
        if effect == Some(Effect::Ignore) {
            return None;
        }
        let look = Look { observation, at_ms, lateness_ms: self.lateness_ms() };
        let sub = rule.per.as_ref().map_or(0, |per| sub_key(per.eval(event)));
        let once_per_ms = rule.signal.once_per_ms;
        let fresh = match rule.detector.memory() {
            Some(memory) => memory,
            None if once_per_ms > 0 => Memory::Nothing,
            None => {
                let firing = rule.detector.observe(&look, &mut Memory::Nothing).firing.filter(|_| effect != Some(Effect::CountOnly))?;
                return Some(Circumstances { firing, suppressed: 0, is_partial: false, is_warming: false, exception, due_ms: None });
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
        state.note(at_ms, end_ms.saturating_sub(at_ms));
        let is_partial = room == Room::Dropped || seen.room == Room::Dropped;
        Some(Circumstances { firing: seen.firing?, suppressed: fires?, is_partial, is_warming, exception, due_ms: None })
    }

    /// Fires what waits in an entity's state and is due: everything whose due time and the allowed lateness together are not
    /// after `stream_time_ms`, in the order of due times. Decisions are appended to `out`.
    pub fn fire_due(&self, entity: &Entity<'_>, stream_time_ms: i64, state: &mut ActorState, out: &mut Vec<Decision>) {
        let until_ms = stream_time_ms.saturating_sub(self.lateness_ms());
        while let Some((slot, sub, pending)) = state.take_due(until_ms) {
            // A rule that is gone, and one that is switched off by now, says nothing.
            let Some(rule) = self.by_slot.get(&slot).map(|index| &self.rules.rules[*index]) else { continue };
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
            if let Some(suppressed) = edge::take(edge, &seen, rule.detector.rhythm(), due_ms, rule.signal.once_per_ms) {
                let due_ms = Some(due_ms);
                let circumstances = Circumstances { firing, suppressed, is_partial: false, is_warming: false, exception: None, due_ms };
                out.push(self.decide(&opening, rule, circumstances));
            }
        }
    }

    fn decide(&self, observation: &Observation<'_>, rule: &Rule, circumstances: Circumstances<'_>) -> Decision {
        let event = &observation.event;
        let signal = &rule.signal;
        let (ty, ip_address) = match &signal.ty {
            SignalType::Named(name) => (name.clone(), self.client_address(event).map(str::to_owned)),
            // The app speaks for itself: its own words, its own address.
            SignalType::Reported => (event.anomaly_type.as_deref().unwrap_or_default().to_owned(), owned(&event.ip_address)),
        };
        let Circumstances { firing, suppressed, is_partial, is_warming, exception, due_ms } = circumstances;
        let profile = self.rules.profile(&ty);
        let ordinal = due_ms.map_or_else(|| "0".to_owned(), |due| due.to_string());
        let mut decision = self.bare(observation, &rule.id, &ordinal, profile);
        let spared = exception.filter(|e| e.effect == Effect::NoAction);
        self.act(rule.mode, spared, profile, flag_user(event), &mut decision);
        decision.anomaly_type = Some(ty);
        decision.category = Some(profile.category);
        decision.user_message.clone_from(&signal.user_message);
        decision.internal_message.clone_from(&signal.internal_message);
        decision.contributions.push(Contribution {
            rule: format!("{}@{}", rule.id, rule.version),
            points: profile.risk_score,
            why: if signal.ty == SignalType::Reported { "reported by the app".to_owned() } else { firing.why() },
        });
        let mut metadata: Map<_, _> = if signal.metadata_from_data { event.data.clone() } else { Map::new() };
        for (name, recorded) in &signal.metadata {
            let value = match recorded {
                Recorded::Count => firing.count.into(),
                Recorded::WindowSeconds => (firing.within_ms / 1_000).into(),
                Recorded::Value => firing.value(),
                Recorded::Expr(expr) => expr.eval(event).to_json(),
            };
            metadata.insert(name.clone(), value);
        }
        decision.metadata = mask::object(&metadata);
        decision.status_code = signal.status_code.or(event.status_code);
        if signal.resource {
            (decision.resource_type, decision.resource_id) = resource::of_path(event.path.as_deref().unwrap_or_default());
        }
        decision.ip_address = ip_address;
        decision.partial = is_partial;
        decision.warming = is_warming;
        decision.suppressed = suppressed;
        decision.due_time = due_ms.map(time::format_rfc3339_ms);
        decision.shadow = rule.mode == Mode::Shadow;
        decision
    }

    /// From score to action: thresholds, then flags, then the rule's mode, then its exceptions.
    fn act(&self, mode: Mode, spared: Option<&Exception>, profile: Profile, user: FlagUser<'_>, decision: &mut Decision) {
        let policy = &self.rules.policy;
        for row in policy.actions.iter().filter(|row| profile.risk_score >= row.at) {
            let by = match row.flag {
                Some(flag) if !self.flags.is_on(flag, user) => Some(format!("flag:{}", self.rules.flags[flag].name)),
                _ if mode == Mode::Shadow => Some("mode:shadow".to_owned()),
                _ if mode == Mode::Signal => Some("mode:signal".to_owned()),
                _ if mode == Mode::Alert && row.action != Action::Alert => Some("mode:alert".to_owned()),
                _ => spared.map(|exception| format!("exception:{}", exception.id)),
            };
            match by {
                Some(by) => decision.held_back.push(HeldBack { action: row.action.name().to_owned(), by }),
                None => match row.action {
                    Action::Alert => decision.should_alert = true,
                    Action::StepUp => decision.should_step_up = true,
                    Action::Block => decision.should_block = true,
                },
            }
        }
        let holds = |action: &&Action| match action {
            Action::Alert => decision.should_alert,
            Action::StepUp => decision.should_step_up,
            Action::Block => decision.should_block,
        };
        decision.action_taken = match policy.precedence.iter().find(holds) {
            Some(Action::Alert) => ActionTaken::Alert,
            Some(Action::StepUp) => ActionTaken::StepUpReview,
            Some(Action::Block) => ActionTaken::Block,
            None => ActionTaken::Log,
        };
    }

    /// The decision about an event on which nothing fired.
    fn nothing(&self, observation: &Observation<'_>) -> Decision {
        let quiet = Profile { risk_score: 0, severity: Severity::Low, ..self.rules.default_profile };
        let mut decision = self.bare(observation, "", "0", quiet);
        decision.ip_address = self.client_address(&observation.event).map(str::to_owned);
        decision.status_code = observation.event.status_code;
        decision
    }

    fn bare(&self, observation: &Observation<'_>, rule_id: &str, ordinal: &str, profile: Profile) -> Decision {
        let event = &observation.event;
        let event_id = event.event_id.as_deref().unwrap_or_default();
        let entity = observation.entity.to_string();
        Decision {
            schema_version: SCHEMA_VERSION,
            decision_id: hash::derived_id(&[&entity, event_id, rule_id, ordinal]).to_string(),
            event_id: event_id.to_owned(),
            event_time: time::format_rfc3339_ms(event.event_time_ms),
            event_type: event.event_type.to_string(),
            entity: EntityRef::from(&observation.entity),
            anomaly_type: None,
            category: None,
            severity: profile.severity,
            risk_score: profile.risk_score,
            action_taken: ActionTaken::Log,
            should_alert: false,
            should_step_up: false,
            should_block: false,
            held_back: Vec::new(),
            user_message: String::new(),
            internal_message: String::new(),
            contributions: Vec::new(),
            metadata: Map::new(),
            masked_payload: mask::object(&event.data),
            status_code: None,
            resource_type: None,
            resource_id: None,
            user_id: owned(&event.user_id),
            tenant_id: owned(&event.tenant_id),
            tenant_name: owned(&event.tenant_name),
            ip_address: None,
            path: owned(&event.path),
            method: owned(&event.method),
            user_agent: owned(&event.user_agent),
            device_id: owned(&event.device_id),
            request_id: owned(&event.request_id),
            clamped: observation.clamped,
            partial: false,
            warming: false,
            suppressed: 0,
            due_time: None,
            shadow: false,
            rules: self.rules.digest.clone(),
            flags: self.flags_digest.clone(),
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

fn owned(text: &Text<'_>) -> Option<String> {
    text.as_deref().map(str::to_owned)
}

fn flag_user<'e>(event: &'e Event<'_>) -> FlagUser<'e> {
    FlagUser {
        user_id: event.user_id.as_deref(),
        is_staff: event.is_staff.unwrap_or(false),
        is_authenticated: event.is_authenticated.unwrap_or(event.user_id.is_some()),
    }
}

/// A sub-key's hash; never 0, which means no sub-key.
fn sub_key(value: crate::value::Value<'_>) -> u64 {
    let text: Cow<'_, str> = match value {
        crate::value::Value::Str(text) => Cow::Borrowed(text),
        crate::value::Value::Missing => Cow::Borrowed(""),
        other => Cow::Owned(other.to_json().to_string()),
    };
    hash::short(text.as_bytes()).max(1)
}
