//! Observation, actor state and rules in; decisions out. The only door, used by run, replay and tests.

use crate::decision::{ActionTaken, Contribution, Decision, EntityRef, HeldBack, SCHEMA_VERSION};
use crate::detectors::{self, Firing};
use crate::entity::Entity;
use crate::event::{Event, Text};
use crate::flags::{BoundFlags, FlagSnapshot, FlagUser};
use crate::observation::Observation;
use crate::rule::{Action, Mode, Profile, Recorded, Rule, RuleSet, Severity, SignalType};
use crate::state::{ActorState, Room};
use crate::{hash, mask, resource, time};
use serde_json::Map;
use std::borrow::Cow;
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
    /// How long an entity is remembered for its own sake (late events, repeats), besides what its rules remember.
    keep_ms: i64,
}

/// The rules that look at one event, found before its entity's state is touched.
#[derive(Debug, Default)]
pub struct Selection {
    rules: Vec<usize>,
}

/// An entity is remembered at least this long after its newest event when lateness or repeats are judged: one hour.
const KEEP_AT_LEAST_MS: i64 = 3_600_000;

impl Engine {
    /// Binds rules to flags.
    pub fn new(rules: Arc<RuleSet>, flags: &FlagSnapshot, emit: Emit) -> Engine {
        let bound = flags.bind(&rules.flags);
        let keep_ms = rules.policy.allowed_lateness_ms.unwrap_or(0).max(KEEP_AT_LEAST_MS);
        Engine { rules, flags_digest: flags.digest.clone(), flags: bound, emit, keep_ms }
    }

    /// Whom an event is about: the actor, by the pack's way of finding the client's address.
    pub fn actor<'e>(&self, event: &'e Event<'_>) -> Entity<'e> {
        Entity::actor(event.user_id.as_deref(), self.client_address(event))
    }

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
    pub fn select(&self, event: &Event<'_>, selection: &mut Selection) -> bool {
        selection.rules.clear();
        let policy = &self.rules.policy;
        let user = flag_user(event);
        if policy.master_flag.is_none_or(|flag| self.flags.is_on(flag, user)) {
            let looks = |rule: &Rule| {
                rule.mode != Mode::Off
                    && rule.on.as_deref().is_none_or(|on| on == event.event_type)
                    && rule.flag.is_none_or(|flag| self.flags.is_on(flag, user))
                    && rule.when.as_ref().is_none_or(|when| when.holds(event))
            };
            selection.rules.extend(self.rules.rules.iter().enumerate().filter(|(_, rule)| looks(rule)).map(|(index, _)| index));
        }
        !selection.rules.is_empty() || policy.allowed_lateness_ms.is_some() || policy.remember_ids > 0 || self.emit == Emit::All
    }

    /// Counts and evaluates one observation. Decisions are appended to `out`, in the order of the rules.
    pub fn process(&self, observation: &Observation<'_>, state: &mut ActorState, out: &mut Vec<Decision>) -> Outcome {
        let mut selection = Selection::default();
        self.select(&observation.event, &mut selection);
        self.apply(observation, &selection, state, out)
    }

    /// [`Engine::process`] with the rules already selected.
    pub fn apply(&self, observation: &Observation<'_>, selection: &Selection, state: &mut ActorState, out: &mut Vec<Decision>) -> Outcome {
        let event = &observation.event;
        let policy = &self.rules.policy;
        let at = event.event_time_ms;
        state.expire(at);
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
            let sub = rule.per.as_ref().map_or(0, |per| sub_key(per.eval(event)));
            let verdict = detectors::observe(rule, sub, at, state);
            if let Some(firing) = verdict.firing
                && rule.mode > Mode::Shadow
            {
                out.push(self.decide(observation, rule, firing, verdict.room));
            }
        }
        state.keep(at, observation.reference_ms);
        if self.emit == Emit::All && out.len() == before {
            out.push(self.nothing(observation));
        }
        Outcome::Processed
    }

    fn decide(&self, observation: &Observation<'_>, rule: &Rule, firing: Firing, room: Room) -> Decision {
        let event = &observation.event;
        let signal = &rule.signal;
        let (ty, ip_address) = match &signal.ty {
            SignalType::Named(name) => (name.clone(), self.client_address(event).map(str::to_owned)),
            // The app speaks for itself: its own words, its own address.
            SignalType::Reported => (event.anomaly_type.as_deref().unwrap_or_default().to_owned(), owned(&event.ip_address)),
        };
        let profile = self.rules.profile(&ty);
        let mut decision = self.bare(observation, &rule.id, profile);
        self.act(rule.mode, profile, flag_user(event), &mut decision);
        decision.anomaly_type = Some(ty);
        decision.category = Some(profile.category);
        decision.user_message.clone_from(&signal.user_message);
        decision.internal_message.clone_from(&signal.internal_message);
        decision.contributions.push(Contribution {
            rule: format!("{}@{}", rule.id, rule.version),
            points: profile.risk_score,
            why: why(signal, firing),
        });
        let mut metadata: Map<_, _> = if signal.metadata_from_data { event.data.clone() } else { Map::new() };
        for (name, recorded) in &signal.metadata {
            let value = match recorded {
                Recorded::Count => firing.count.into(),
                Recorded::WindowSeconds => (firing.within_ms / 1_000).into(),
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
        decision.partial = room == Room::Dropped;
        decision
    }

    /// From score to action: thresholds, then flags, then the rule's mode.
    fn act(&self, mode: Mode, profile: Profile, user: FlagUser<'_>, decision: &mut Decision) {
        let policy = &self.rules.policy;
        for row in policy.actions.iter().filter(|row| profile.risk_score >= row.at) {
            let by = match row.flag {
                Some(flag) if !self.flags.is_on(flag, user) => Some(format!("flag:{}", self.rules.flags[flag].name)),
                _ if mode == Mode::Signal => Some("mode:signal".to_owned()),
                _ if mode == Mode::Alert && row.action != Action::Alert => Some("mode:alert".to_owned()),
                _ => None,
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
        let mut decision = self.bare(observation, "", quiet);
        decision.ip_address = self.client_address(&observation.event).map(str::to_owned);
        decision.status_code = observation.event.status_code;
        decision
    }

    fn bare(&self, observation: &Observation<'_>, rule_id: &str, profile: Profile) -> Decision {
        let event = &observation.event;
        let event_id = event.event_id.as_deref().unwrap_or_default();
        let entity = observation.entity.to_string();
        Decision {
            schema_version: SCHEMA_VERSION,
            decision_id: hash::derived_id(&[&entity, event_id, rule_id, "0"]).to_string(),
            event_id: event_id.to_owned(),
            event_time: time::format_rfc3339_ms(event.event_time_ms),
            event_type: event.event_type.to_string(),
            entity: EntityRef { kind: observation.entity.kind.name().to_owned(), id: observation.entity.id.to_string() },
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
            rules: self.rules.digest.clone(),
            flags: self.flags_digest.clone(),
        }
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

fn why(signal: &crate::rule::Signal, firing: Firing) -> String {
    match (&signal.ty, firing.within_ms) {
        (SignalType::Reported, _) => "reported by the app".to_owned(),
        (_, 0) => "one event is enough".to_owned(),
        (_, within) => format!("{} in {}", firing.count, time::format_duration_ms(within)),
    }
}
