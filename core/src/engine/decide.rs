//! From firings to decisions: what every decision says, and the decision of one firing alone (`decide: per_signal`).

use super::weigh::{severity, throttle_interval_ms};
use super::{Circumstances, Engine, Made, flag_user};
use crate::decision::{ActionTaken, Contribution, Decision, EntityRef, HeldBack, Points, SCHEMA_VERSION};
use crate::event::Text;
use crate::flags::FlagUser;
use crate::observation::Observation;
use crate::policy::{Action, Decide};
use crate::rule::{Mode, Profile, Recorded, Rule, Severity, SignalType};
use crate::score::tally::{self, Whose};
use crate::score::{Axis, Milli};
use crate::state::{ActorState, Ledger};
use crate::{hash, mask, resource, time};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

impl Engine {
    /// The decision of one firing, with the score of its profile.
    pub(super) fn decide(&self, observation: &Observation<'_>, circumstances: Circumstances<'_>, state: &mut ActorState, out: &mut Made) {
        let (event, rule) = (&observation.event, &self.rules.rules[circumstances.rule]);
        let ty = self.type_of(rule, event);
        let profile = rule.signal.profile(self.rules.profile(ty));
        let at_ms = circumstances.due_ms.unwrap_or(event.event_time_ms);
        let mut decision = self.bare(observation, &rule.id, circumstances.due_ms);
        (decision.severity, decision.risk_score) = (profile.severity, profile.risk_score);
        self.act(rule.mode, circumstances.spared_by(), &profile, flag_user(event), &mut decision);
        self.describe(&mut decision, observation, rule, &profile);
        decision.metadata = mask::object(&self.recorded(observation, rule, &circumstances));
        decision.partial = circumstances.is_partial;
        decision.warming = circumstances.is_warming;
        decision.suppressed = circumstances.suppressed;
        decision.shadow = rule.mode == Mode::Shadow;
        let (points, why) = (Milli::of_points(profile.risk_score).into(), rule.told(circumstances.firing).why());
        decision.contributions.push(Contribution::new(rule.name(), points, why));
        decision.fired.push(rule.name());
        if decision.should_alert && !decision.shadow {
            self.alert_of_rule(rule, &decision, at_ms, state, out);
        }
        out.decisions.push(decision);
    }

    /// What a decision takes over from the rule that weighs most.
    pub(super) fn describe(&self, decision: &mut Decision, observation: &Observation<'_>, rule: &Rule, profile: &Profile) {
        let (event, signal) = (&observation.event, &rule.signal);
        decision.anomaly_type = Some(self.type_of(rule, event).to_owned());
        decision.category = Some(profile.category);
        decision.user_message.clone_from(&signal.user_message);
        decision.internal_message.clone_from(&signal.internal_message);
        decision.status_code = signal.status_code.or(event.status_code);
        if signal.resource {
            (decision.resource_type, decision.resource_id) = resource::of_path(event.path.as_deref().unwrap_or_default());
        }
        decision.ip_address = match &signal.ty {
            SignalType::Named(_) => self.client_address(event).map(str::to_owned),
            // The app speaks for itself: its own words, its own address.
            SignalType::Reported => owned(&event.ip_address),
        };
    }

    /// What a rule records of a firing; not masked yet.
    pub(super) fn recorded(&self, observation: &Observation<'_>, rule: &Rule, circumstances: &Circumstances<'_>) -> Map<String, Value> {
        let (event, firing) = (&observation.event, &circumstances.firing);
        let mut metadata = if rule.signal.metadata_from_data { event.data.clone() } else { Map::new() };
        for (name, recorded) in &rule.signal.metadata {
            let value = match recorded {
                Recorded::Count => firing.count.into(),
                Recorded::WindowSeconds => (firing.within_ms / 1_000).into(),
                Recorded::Value => firing.value(),
                Recorded::Expr(expr) => expr.eval(event).to_json(),
            };
            metadata.insert(name.clone(), value);
        }
        metadata
    }

    /// From the score of one firing to action: thresholds, then flags, then the rule's mode, then its exceptions.
    fn act(&self, mode: Mode, spared: Option<&str>, profile: &Profile, user: FlagUser<'_>, decision: &mut Decision) {
        let mut taken = Vec::new();
        for row in self.rules.policy.actions.iter().filter(|row| profile.risk_score >= row.at) {
            let off = row.flag.and_then(|flag| self.off(flag, user));
            let by = match (off, row.action.held_back_by(mode)) {
                (Some(flag), _) => Some(format!("flag:{flag}")),
                (None, Some(mode)) => Some(mode.to_owned()),
                (None, None) => spared.map(|exception| format!("exception:{exception}")),
            };
            match by {
                Some(by) => decision.held_back.push(HeldBack { action: row.action.name().to_owned(), by }),
                None => taken.push(row.action),
            }
        }
        self.take(&taken, decision);
    }

    /// Says which actions are taken.
    pub(super) fn take(&self, taken: &[Action], decision: &mut Decision) {
        let takes = |action: Action| taken.contains(&action);
        decision.should_alert = takes(Action::Alert);
        decision.should_throttle = takes(Action::Throttle);
        decision.should_step_up = takes(Action::StepUp);
        decision.should_block = takes(Action::Block);
        let named = self.rules.policy.precedence.iter().find(|action| takes(**action));
        decision.action_taken = named.map_or(ActionTaken::Log, |action| (*action).into());
    }

    /// The actions in force at a moment with these scores, the weakest first.
    pub(super) fn in_force(&self, ledger: &Ledger, at_ms: i64, scores: &tally::Scores) -> Vec<Action> {
        self.rules.policy.in_force(ledger, at_ms, scores.risk(), &|flag| self.flags.is_off_for_all(flag))
    }

    /// The decision about an event on which nothing fired.
    pub(super) fn nothing(&self, observation: &Observation<'_>, state: &ActorState) -> Decision {
        let mut decision = self.bare(observation, "", None);
        decision.ip_address = self.client_address(&observation.event).map(str::to_owned);
        decision.status_code = observation.event.status_code;
        let user = flag_user(&observation.event);
        let is_off = self.rules.policy.master_flag.is_some_and(|flag| !self.flags.is_on(flag, user));
        if let (Decide::PerEvent, Some(ledger), false) = (self.rules.policy.decide, &state.ledger, is_off) {
            let now_ms = ledger.as_of_ms.max(observation.event.event_time_ms);
            let scores = tally::at(&self.reasons, ledger, now_ms, Whose::All);
            let in_force = self.in_force(ledger, now_ms, &scores);
            decision.risk_score = scores.risk();
            decision.severity = severity(&scores, None);
            decision.throttle_interval_ms = throttle_interval_ms(&self.rules.policy, &in_force, scores.risk());
            self.take(&in_force, &mut decision);
            decision.expires_at = self.ends_ms(ledger, &in_force, now_ms).last().map(|end| time::format_rfc3339_ms(*end));
        }
        decision
    }

    /// A decision with what is known of event and entity. `rule_id` is empty for a decision of all rules together.
    pub(super) fn bare(&self, observation: &Observation<'_>, rule_id: &str, due_ms: Option<i64>) -> Decision {
        let event = &observation.event;
        let event_id = event.event_id.as_deref().unwrap_or_default();
        let entity = observation.entity.to_string();
        let ordinal = due_ms.map_or_else(|| "0".to_owned(), |due| due.to_string());
        Decision {
            schema_version: SCHEMA_VERSION,
            decision_id: hash::derived_id(&[&entity, event_id, rule_id, &ordinal]).to_string(),
            event_id: event_id.to_owned(),
            event_time: time::format_rfc3339_ms(event.event_time_ms),
            event_type: event.event_type.to_string(),
            entity: EntityRef::from(&observation.entity),
            anomaly_type: None,
            category: None,
            severity: Severity::Low,
            risk_score: 0,
            axes: BTreeMap::new(),
            action_taken: ActionTaken::Log,
            should_alert: false,
            should_step_up: false,
            should_block: false,
            should_throttle: false,
            throttle_interval_ms: None,
            expires_at: None,
            held_back: Vec::new(),
            user_message: String::new(),
            internal_message: String::new(),
            fired: Vec::new(),
            contributions: Vec::new(),
            context: Vec::new(),
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
            due_time: due_ms.map(time::format_rfc3339_ms),
            shadow: false,
            policy: self.rules.policy.name(),
            rules: self.rules.digest.clone(),
            flags: self.flags_digest.clone(),
        }
    }
}

/// The scores of the axes that have one.
pub(super) fn axes(scores: &tally::Scores) -> BTreeMap<Axis, Points> {
    let scored = Axis::ALL.into_iter().map(|axis| (axis, scores.of(axis).score));
    scored.filter(|(_, score)| *score > Milli::ZERO).map(|(axis, score)| (axis, score.into())).collect()
}

fn owned(text: &Text<'_>) -> Option<String> {
    text.as_deref().map(str::to_owned)
}
