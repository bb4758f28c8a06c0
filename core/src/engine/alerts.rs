//! Alerts as episodes: opened, updated, resolved.

use super::{Engine, Made};
use crate::alert::{Alert, AlertState};
use crate::decision::{Decision, EntityRef, SCHEMA_VERSION};
use crate::policy::Action;
use crate::rule::Rule;
use crate::state::{ActorState, Episode, Ledger};
use crate::{hash, time};

/// The key of the policy's own episode.
const POLICY: u64 = 0;

/// What an alert is an episode of.
struct About<'a> {
    key: u64,
    /// The id of the rule or the policy: part of the alert's id.
    id: &'a str,
    /// `id@version`.
    name: String,
    runbook: &'a str,
}

impl Engine {
    /// An alerting decision of one firing (`per_signal`).
    pub(super) fn alert_of_rule(&self, rule: &Rule, decision: &Decision, at_ms: i64, state: &mut ActorState, out: &mut Made) {
        let mut ledger = state.take_ledger();
        let strongest = [(Action::Block, decision.should_block), (Action::StepUp, decision.should_step_up)];
        let action = strongest.iter().find(|(_, takes)| *takes).map_or(Action::Alert, |(action, _)| *action);
        let about = About { key: rule.slot, id: &rule.id, name: rule.name(), runbook: &rule.meta.runbook };
        let until_ms = at_ms.saturating_add(self.rules.policy.alerts.resolve_after_ms);
        self.tell(&mut ledger, &about, decision, action, at_ms, until_ms, out);
        // What an earlier pack left to be told of keeps its time.
        let until = ledger.episodes.iter().map(|episode| episode.until_ms);
        ledger.due_ms = until.chain(ledger.due_ms).min();
        state.put_ledger(ledger);
        state.retain(until_ms);
    }

    /// A decision under which the policy's alert is in force, or is not.
    pub(super) fn alert_of_policy(
        &self,
        runbook: &str,
        decision: &Decision,
        strongest: Action,
        at_ms: i64,
        ledger: &mut Ledger,
        out: &mut Made,
    ) {
        let about = About { key: POLICY, id: &self.rules.policy.id, name: self.rules.policy.name(), runbook };
        self.tell(ledger, &about, decision, strongest, at_ms, i64::MAX, out);
    }

    /// Opens an alert, updates it, or folds a decision into the next record.
    #[allow(clippy::too_many_arguments, reason = "each is another fact of one record")]
    fn tell(&self, ledger: &mut Ledger, about: &About<'_>, decision: &Decision, action: Action, at_ms: i64, until_ms: i64, out: &mut Made) {
        let alerts = self.rules.policy.alerts;
        let Some(episode) = ledger.episode(about.key) else {
            let id = hash::derived_id(&[&decision.decision_id, about.id]);
            let (opened_ms, told_ms, severity) = (at_ms, at_ms, decision.severity);
            let episode = Episode { key: about.key, id, opened_ms, told_ms, until_ms, decisions: 1, folded: 0, severity, action };
            ledger.open(episode);
            out.alerts.push(record(&decision.entity, &episode, AlertState::Opened, about, Some(decision), at_ms, decision.suppressed));
            return;
        };
        let is_worse = decision.severity > episode.severity || action > episode.action;
        episode.decisions = episode.decisions.saturating_add(1);
        episode.severity = episode.severity.max(decision.severity);
        episode.action = episode.action.max(action);
        episode.until_ms = if until_ms == i64::MAX { until_ms } else { episode.until_ms.max(until_ms) };
        if !is_worse && alerts.once_per_ms > 0 && at_ms.saturating_sub(episode.told_ms) < alerts.once_per_ms {
            episode.folded = episode.folded.saturating_add(1).saturating_add(decision.suppressed);
            return;
        }
        let folded = std::mem::take(&mut episode.folded).saturating_add(decision.suppressed);
        episode.told_ms = episode.told_ms.max(at_ms);
        out.alerts.push(record(&decision.entity, episode, AlertState::Updated, about, Some(decision), at_ms, folded));
    }

    /// Ends the policy's alert, if it is open.
    pub(super) fn resolve_policy(&self, entity: &EntityRef, at_ms: i64, ledger: &mut Ledger, out: &mut Made) {
        let about = About { key: POLICY, id: &self.rules.policy.id, name: self.rules.policy.name(), runbook: "" };
        let Some(episode) = ledger.episode(POLICY).copied() else { return };
        ledger.episodes.retain(|episode| episode.key != POLICY);
        out.alerts.push(record(entity, &episode, AlertState::Resolved, &about, None, at_ms, episode.folded));
    }

    /// Ends the alerts of rules that were quiet long enough.
    pub(super) fn resolve_rules(&self, entity: &EntityRef, at_ms: i64, ledger: &mut Ledger, out: &mut Made) {
        let over: Vec<Episode> = ledger.episodes.extract_if(.., |e| e.key != POLICY && e.until_ms <= at_ms).collect();
        for episode in over {
            // Of a rule that is gone only the alert is known.
            let rule = self.by_slot.get(&episode.key).map(|index| &self.rules.rules[*index]);
            let (id, name) = rule.map_or(("", String::new()), |rule| (rule.id.as_str(), rule.name()));
            let about = About { key: episode.key, id, name, runbook: rule.map_or("", |rule| &rule.meta.runbook) };
            out.alerts.push(record(entity, &episode, AlertState::Resolved, &about, None, episode.until_ms, episode.folded));
        }
    }
}

fn record(
    entity: &EntityRef,
    episode: &Episode,
    state: AlertState,
    about: &About<'_>,
    decision: Option<&Decision>,
    at_ms: i64,
    folded: u32,
) -> Alert {
    Alert {
        schema_version: SCHEMA_VERSION,
        alert_id: episode.id.to_string(),
        state,
        entity: entity.clone(),
        about: about.name.clone(),
        opened_at: time::format_rfc3339_ms(episode.opened_ms),
        at: time::format_rfc3339_ms(at_ms),
        severity: episode.severity,
        action: episode.action,
        decisions: episode.decisions,
        folded,
        runbook: about.runbook.to_owned(),
        decision: decision.cloned(),
    }
}
