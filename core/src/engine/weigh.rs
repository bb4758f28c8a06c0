//! What fired, together with what is held against the entity already: one decision, its receipt, and the entity's standing
//! (`decide: per_event`). The way from contributions to a score is [`crate::score`]'s, from a score to actions
//! [`crate::policy::enforce`]'s.

use super::decide::axes;
use super::{Circumstances, Engine, Made, Shown, flag_user, is_about, spares};
use crate::decision::{ContextApplied, Contribution, Decision, EntityRef, HeldBack, Points, SCHEMA_VERSION};
use crate::detectors::{Firing, ScoreLook};
use crate::entity::Entity;
use crate::observation::Observation;
use crate::policy::enforce::Asked;
use crate::policy::{Action, CONTEXT_BOUNDS, Decide, Policy};
use crate::rule::{Exception, Mode, Severity, SignalType};
use crate::score::decay::GONE_AFTER_HALF_LIVES;
use crate::score::reasons::{Reason, severity_of};
use crate::score::tally::{self, Line, Scores, Whose};
use crate::score::{Axis, Milli};
use crate::standing::{Standing, StandingChange};
use crate::state::{ActorState, Held, Ledger};
use crate::{hash, mask, time};

/// The most lines of one axis of a receipt, so that a decision fits into a record.
const MAX_LINES: usize = 40;

/// A firing and what it counts for.
struct Fired<'a> {
    circumstances: Circumstances<'a>,
    /// Index of its reason.
    reason: usize,
    held: Held,
}

/// A ledger added up at one moment of its entity's time.
struct Sheet<'a> {
    ledger: &'a Ledger,
    now_ms: i64,
    lines: Vec<Line>,
    scores: Scores,
}

impl Engine {
    /// Weighs what fired at `at_ms`; at least one rule did.
    pub(super) fn weigh(
        &self,
        observation: &Observation<'_>,
        at_ms: i64,
        fired: Vec<Circumstances<'_>>,
        state: &mut ActorState,
        out: &mut Made,
    ) {
        let mut fired: Vec<Fired<'_>> = fired.into_iter().map(|c| self.count_for(observation, at_ms, c)).collect();
        let is_live = |fired: &Fired<'_>| self.reasons.row(fired.reason).is_live;
        let mut ledger = state.take_ledger();
        // What came late adds its part in its place; the score is the one of now.
        let now_ms = ledger.as_of_ms.max(at_ms);
        let unchanged = ledger.clone();
        let before = tally::at(&self.reasons, &ledger, now_ms, Whose::All);
        let counts = |fired: &&Fired<'_>| is_live(fired) && fired.circumstances.spared_by().is_none();
        for one in fired.iter().filter(counts) {
            self.hold(&mut ledger, one.held, now_ms);
        }
        if !self.composites.is_empty() && fired.iter().any(|one| counts(&one)) {
            let due_ms = fired.iter().find_map(|one| one.circumstances.due_ms);
            let above = self.composites(observation, (at_ms, due_ms), &unchanged, &mut ledger, now_ms, state);
            fired.extend(above.into_iter().map(|circumstances| self.count_for(observation, at_ms, circumstances)));
            fired.sort_by_key(|fired| fired.circumstances.rule);
            for one in fired.iter().filter(counts) {
                self.hold(&mut ledger, one.held, now_ms);
            }
        }
        let (live, watching): (Vec<Fired<'_>>, Vec<Fired<'_>>) = fired.into_iter().partition(is_live);
        let watched: Vec<Decision> = watching.iter().map(|one| self.as_if(observation, &ledger, one, now_ms)).collect();
        if live.is_empty() {
            // What only watches leaves no trace.
            ledger = unchanged;
        } else {
            self.strike_out(&mut ledger, now_ms);
            ledger.as_of_ms = now_ms;
            let (decision, gone_ms) = self.judge(observation, before, &mut ledger, &live, now_ms, out);
            out.decisions.push(decision);
            if at_ms == observation.event.event_time_ms {
                state.note(at_ms, 0);
            }
            state.retain(gone_ms.max(self.rules.policy.remembers_until_ms(&ledger)));
        }
        out.decisions.extend(watched);
        state.put_ledger(ledger);
    }

    /// A firing that was held back refreshes what its rule gives.
    pub(super) fn refresh(
        &self,
        rule: usize,
        observation: &Observation<'_>,
        firing: Firing,
        exception: Option<&Exception>,
        state: &mut ActorState,
    ) {
        let reason = self.reason_of(rule, observation);
        if !self.reasons.row(reason).is_live || spares(exception).is_some() {
            return;
        }
        let at_ms = observation.event.event_time_ms;
        let held = self.held(reason, observation, at_ms, firing);
        let mut ledger = state.take_ledger();
        let now_ms = ledger.as_of_ms.max(at_ms);
        self.strike_out(&mut ledger, now_ms);
        // What was left, and what no longer held, before this raises the score again.
        if !ledger.forces.is_empty() {
            let risk = tally::at(&self.reasons, &ledger, now_ms, Whose::All).risk();
            self.rules.policy.leave(&mut ledger, now_ms, risk);
        }
        if !self.composites.is_empty() {
            let scores = tally::at(&self.reasons, &ledger, now_ms, Whose::Evidence);
            for composite in self.composites.iter().map(|index| &self.rules.rules[*index]) {
                let is_met = composite.detector.is_met_by(&scores);
                state.edges(composite.slot).for_each(|edge| edge.on &= is_met);
            }
        }
        ledger.as_of_ms = now_ms;
        self.hold(&mut ledger, held, now_ms);
        // A score that nobody was told of is told of with the next that time brings.
        ledger.due_ms.get_or_insert(now_ms);
        // Floods come this way: when it will be gone at the latest is enough here.
        state.retain(at_ms.saturating_add(self.reasons.row(reason).half_life_ms.saturating_mul(GONE_AFTER_HALF_LIVES)));
        state.put_ledger(ledger);
    }

    /// Tells of what ends by itself at `due_ms`: actions, the alert, the score. What is held against the entity stays as it is:
    /// its own events find by their own time what is left of it, whether or not this was told before.
    pub(super) fn lapse(&self, entity: &Entity<'_>, due_ms: i64, state: &mut ActorState, out: &mut Made) {
        let entity = EntityRef::from(entity);
        let mut ledger = state.take_ledger();
        self.resolve_rules(&entity, due_ms, &mut ledger, out);
        if self.rules.policy.decide == Decide::PerSignal {
            // What an earlier pack held against it is told to be over.
            (ledger.held, ledger.forces) = (Vec::new(), Vec::new());
        }
        let scores = tally::at(&self.reasons, &ledger, due_ms, Whose::All);
        let in_force = self.in_force(&ledger, due_ms, &scores);
        if !in_force.contains(&Action::Alert) {
            self.resolve_policy(&entity, due_ms, &mut ledger, out);
        }
        self.publish(&entity, None, &scores, &in_force, &mut ledger, due_ms, out);
        state.put_ledger(ledger);
    }

    /// What ended before an event of the entity itself happened is told of first, whether or not time has been heard of by then.
    pub(super) fn lapse_before(&self, entity: &Entity<'_>, at_ms: i64, state: &mut ActorState, out: &mut Made) {
        // Not before something of a rule that is due earlier: that waits until it is certain, and comes first.
        let before_ms = state.next_rule_due_ms().unwrap_or(i64::MAX);
        let is_over = |due_ms: &mut i64| *due_ms <= at_ms && *due_ms < before_ms;
        while let Some(due_ms) = state.ledger.as_mut().and_then(|ledger| ledger.due_ms.take_if(is_over)) {
            self.lapse(entity, due_ms, state, out);
        }
    }

    /// Takes out what counts no more: what has decayed, and what its rule took with it.
    fn strike_out(&self, ledger: &mut Ledger, now_ms: i64) {
        let counts = |held: &Held, reason: &Reason| reason.is_live && tally::left(held, reason, now_ms) >= Milli::LEAST;
        ledger.held.retain(|held| self.reasons.get(held.reason).is_some_and(|(_, reason)| counts(held, reason)));
    }

    fn reason_of(&self, rule: usize, observation: &Observation<'_>) -> usize {
        let reported = match self.rules.rules[rule].signal.ty {
            SignalType::Named(_) => None,
            SignalType::Reported => observation.event.anomaly_type.as_deref(),
        };
        self.reasons.of_firing(rule, reported)
    }

    fn count_for<'c>(&self, observation: &Observation<'_>, at_ms: i64, circumstances: Circumstances<'c>) -> Fired<'c> {
        let reason = self.reason_of(circumstances.rule, observation);
        let held = self.held(reason, observation, at_ms, circumstances.firing);
        Fired { circumstances, reason, held }
    }

    fn held(&self, index: usize, observation: &Observation<'_>, at_ms: i64, firing: Firing) -> Held {
        let reason = self.reasons.row(index);
        let times = product(self.contexts(reason, observation).map(|(_, times)| times));
        let rule = &self.rules.rules[reason.rule];
        let given = rule.detector.points(&firing).map_or(reason.points, |points| rule.signal.discounted(Milli::of_points(points)));
        Held { reason: reason.key, points: given.times(times).min(reason.cap), at_ms, firing: rule.told(firing) }
    }

    /// The contexts of the policy that hold for a reason of an event, with their multipliers.
    fn contexts<'p>(&'p self, reason: &'p Reason, observation: &'p Observation<'_>) -> impl Iterator<Item = (&'p str, u32)> {
        let holds = move |context: &&crate::policy::Context| {
            context.axis.is_none_or(|axis| axis == reason.axis)
                && context.kind.is_none_or(|kind| kind == observation.entity.kind)
                && context.when.holds(&observation.event)
        };
        self.rules.policy.contexts.iter().filter(holds).map(|context| (context.id.as_str(), context.times))
    }

    /// Puts a contribution into a ledger, unless the one that is there weighs more now.
    fn hold(&self, ledger: &mut Ledger, held: Held, now_ms: i64) {
        let Some((_, reason)) = self.reasons.get(held.reason) else { return };
        ledger.hold(held, |held| tally::left(held, reason, now_ms));
    }

    /// The rules over the score, shown what the others found; at the time of the event, or of what was due.
    fn composites(
        &self,
        observation: &Observation<'_>,
        (at_ms, due_ms): (i64, Option<i64>),
        before: &Ledger,
        ledger: &mut Ledger,
        now_ms: i64,
        state: &mut ActorState,
    ) -> Vec<Circumstances<'_>> {
        let look = ScoreLook {
            before: tally::at(&self.reasons, before, now_ms, Whose::Evidence),
            now: tally::at(&self.reasons, ledger, now_ms, Whose::Evidence),
            gone_ms: tally::is_gone(&self.reasons, ledger, now_ms),
        };
        let mut fired = Vec::new();
        for &index in &self.composites {
            let rule = &self.rules.rules[index];
            if self.passed_over(rule, observation).is_some() || !is_about(rule, observation) {
                continue;
            }
            match self.show(index, observation, at_ms, Some(&look), state) {
                Shown::Nothing => {}
                Shown::Fires(circumstances) => fired.push(Circumstances { due_ms, ..circumstances }),
                Shown::HeldBack(firing, exception) => {
                    let reason = self.reason_of(index, observation);
                    if self.reasons.row(reason).is_live && spares(exception).is_none() {
                        self.hold(ledger, self.held(reason, observation, at_ms, firing), now_ms);
                    }
                }
            }
        }
        fired
    }

    fn sheet<'l>(&self, ledger: &'l Ledger, now_ms: i64, whose: Whose) -> Sheet<'l> {
        let lines = tally::lines(&self.reasons, ledger, now_ms, whose);
        let scores = tally::scores(&self.reasons, &lines);
        Sheet { ledger, now_ms, lines, scores }
    }

    /// The decision about live firings: what the policy does about the score that they make. The ledger has what counts of them.
    /// Answers also when nothing is left of the score.
    fn judge(
        &self,
        observation: &Observation<'_>,
        before: Scores,
        ledger: &mut Ledger,
        fired: &[Fired<'_>],
        now_ms: i64,
        out: &mut Made,
    ) -> (Decision, i64) {
        let policy = &self.rules.policy;
        let (spared, counting): (Vec<&Fired<'_>>, Vec<&Fired<'_>>) =
            fired.iter().partition(|fired| fired.circumstances.spared_by().is_some());
        // Something that time alone brings has its rule in its id: one event may open several such.
        let due = fired.iter().find(|fired| fired.circumstances.due_ms.is_some());
        let rule_id = due.map_or("", |fired| self.rules.rules[fired.circumstances.rule].id.as_str());
        let mut decision = self.bare(observation, rule_id, due.and_then(|fired| fired.circumstances.due_ms));
        let acting = self.sheet(ledger, now_ms, Whose::All);
        let heaviest = if spared.is_empty() {
            self.write_receipt(&mut decision, observation, &acting, fired)
        } else {
            // What is spared is shown, and counts for no action.
            let mut shown = ledger.clone();
            spared.iter().for_each(|spared| self.hold(&mut shown, spared.held, now_ms));
            self.write_receipt(&mut decision, observation, &self.sheet(&shown, now_ms, Whose::All), fired)
        };
        let now = acting.scores;
        let live = acting.lines.iter().map(|line| line.reason);
        let mode = live.chain(counting.iter().map(|fired| fired.reason)).map(|reason| self.mode_of(reason)).max();
        let user = flag_user(&observation.event);
        let off_for_all = |flag: usize| self.flags.is_off_for_all(flag);
        let asked = Asked {
            at_ms: now_ms,
            before: &before,
            now: &now,
            shown: decision.risk_score,
            mode: mode.unwrap_or(Mode::Signal),
            spared: spared.first().and_then(|fired| fired.circumstances.spared_by()),
            counts: !counting.is_empty(),
            kind: observation.entity.kind,
            seed: hash::short(decision.decision_id.as_bytes()),
            off: &|flag| self.off(flag, user),
            off_for_all: &off_for_all,
        };
        decision.held_back = policy.enforce(&asked, ledger);
        let in_force = self.in_force(ledger, now_ms, &now);
        self.take(&in_force, &mut decision);
        let entity = decision.entity.clone();
        let (expires_ms, gone_ms) = self.publish(&entity, Some(&decision), &now, &in_force, ledger, now_ms, out);
        if !in_force.is_empty() {
            decision.expires_at = Some(time::format_rfc3339_ms(expires_ms));
            decision.throttle_interval_ms = throttle_interval_ms(policy, &in_force, now.risk());
        }
        match in_force.last() {
            Some(strongest) if decision.should_alert => {
                let runbook = &self.rules.rules[heaviest].meta.runbook;
                self.alert_of_policy(runbook, &decision, *strongest, now_ms, ledger, out);
            }
            _ => self.resolve_policy(&entity, now_ms, ledger, out),
        }
        (decision, gone_ms)
    }

    /// The decision about a rule that only watches: what would be, had it counted.
    fn as_if(&self, observation: &Observation<'_>, ledger: &Ledger, fired: &Fired<'_>, now_ms: i64) -> Decision {
        let rule = &self.rules.rules[fired.circumstances.rule];
        let mut shown = ledger.clone();
        self.hold(&mut shown, fired.held, now_ms);
        let sheet = self.sheet(&shown, now_ms, Whose::And(fired.circumstances.rule));
        let mut decision = self.bare(observation, &rule.id, fired.circumstances.due_ms);
        self.write_receipt(&mut decision, observation, &sheet, std::slice::from_ref(fired));
        let watches = |action: Action, by: &str| HeldBack { action: action.name().to_owned(), by: by.to_owned() };
        let reached = self.rules.policy.actions.iter().map(|row| (row.action, row.at)).filter(|(_, at)| decision.risk_score >= *at);
        decision.held_back = reached.filter_map(|(action, _)| Some(watches(action, action.held_back_by(Mode::Shadow)?))).collect();
        decision.shadow = true;
        decision
    }

    fn mode_of(&self, reason: usize) -> Mode {
        self.rules.rules[self.reasons.row(reason).rule].mode
    }

    /// Writes down score and receipt, and what the heaviest firing says; answers that rule's index.
    fn write_receipt(&self, decision: &mut Decision, observation: &Observation<'_>, sheet: &Sheet<'_>, fired: &[Fired<'_>]) -> usize {
        let mut by_weight: Vec<&Fired<'_>> = fired.iter().collect();
        by_weight.sort_by_key(|fired| (std::cmp::Reverse(fired.held.points), fired.circumstances.rule));
        let mut metadata = serde_json::Map::new();
        for fired in by_weight.iter().rev() {
            let rule = &self.rules.rules[fired.circumstances.rule];
            metadata.append(&mut self.recorded(observation, rule, &fired.circumstances));
        }
        decision.metadata = mask::object(&metadata);
        let heaviest = by_weight[0];
        let reason = self.reasons.row(heaviest.reason);
        self.describe(decision, observation, &self.rules.rules[reason.rule], &reason.profile);
        let Sheet { lines, scores, .. } = sheet;
        decision.risk_score = scores.risk();
        decision.axes = axes(scores);
        decision.severity = severity(scores, lines.iter().map(|line| self.reasons.row(line.reason).profile.severity).max());
        decision.fired = fired.iter().map(|fired| self.rules.rules[fired.circumstances.rule].name()).collect();
        decision.partial = fired.iter().any(|fired| fired.circumstances.is_partial);
        decision.warming = fired.iter().any(|fired| fired.circumstances.is_warming);
        decision.suppressed = fired.iter().fold(0, |sum, fired| sum.saturating_add(fired.circumstances.suppressed));
        decision.context = self.applied(observation, fired);
        for axis in Axis::ALL {
            let of_axis: Vec<&Line> = lines.iter().filter(|line| self.reasons.row(line.reason).axis == axis).collect();
            decision.contributions.extend(self.receipt_of(axis, of_axis, sheet));
            let cut = scores.of(axis).sum.saturating_sub(scores.of(axis).score.thousandths().into());
            if cut > 0 {
                decision.contributions.push(closing("clamp", axis, -signed(cut), "a score ends at 100".to_owned()));
            }
        }
        reason.rule
    }

    /// The lines of an axis. Past [`MAX_LINES`] those that add least are one line.
    fn receipt_of(&self, axis: Axis, mut lines: Vec<&Line>, sheet: &Sheet<'_>) -> Vec<Contribution> {
        let rest = lines.len().saturating_sub(MAX_LINES);
        if rest > 0 {
            lines.sort_by_key(|line| std::cmp::Reverse(line.adds));
        }
        let (told, folded) = lines.split_at(lines.len() - rest);
        let mut receipt: Vec<Contribution> = told.iter().map(|line| self.receipt_line(sheet.ledger, line, sheet.now_ms)).collect();
        if rest > 0 {
            let sum: u64 = folded.iter().map(|line| u64::from(line.adds.thousandths())).sum();
            receipt.push(closing("others", axis, signed(sum), format!("{rest} more")));
        }
        receipt
    }

    /// The contexts that weighed on what fired, each once.
    fn applied(&self, observation: &Observation<'_>, fired: &[Fired<'_>]) -> Vec<ContextApplied> {
        let mut applied: Vec<ContextApplied> = Vec::new();
        for fired in fired {
            for (id, times) in self.contexts(self.reasons.row(fired.reason), observation) {
                if !applied.iter().any(|there| there.id == id) {
                    applied.push(ContextApplied { id: id.to_owned(), times: Points(times.into()) });
                }
            }
        }
        applied
    }

    fn receipt_line(&self, ledger: &Ledger, line: &Line, now_ms: i64) -> Contribution {
        let (held, reason) = (&ledger.held[line.held], self.reasons.row(line.reason));
        let rule = &self.rules.rules[reason.rule];
        Contribution {
            axis: Some(reason.axis),
            family: Some(self.reasons.family(reason.family).to_owned()),
            age_s: Some(now_ms.saturating_sub(held.at_ms).max(0) / 1_000),
            share: (line.share != 1_000).then_some(Points(line.share.into())),
            confidence: rule.signal.confidence.map(|confidence| Points(confidence.into())),
            anomaly_type: reason.ty.clone(),
            ..Contribution::new(rule.name(), line.adds.into(), held.firing.why())
        }
    }

    /// When each of these actions ends if nothing comes in between.
    pub(super) fn ends_ms(&self, ledger: &Ledger, in_force: &[Action], now_ms: i64) -> Vec<i64> {
        let ends = |action: &Action| {
            let (row, force) = (self.rules.policy.row(*action)?, ledger.force(*action)?);
            Some(match row.sentence {
                Some(_) => force.until_ms,
                None => force.until_ms.max(tally::falls_below(&self.reasons, ledger, now_ms, row.leave)),
            })
        };
        in_force.iter().filter_map(ends).collect()
    }

    /// Publishes the entity's standing, or takes it back; sets when something ends next. Answers when what stands ends, and when
    /// nothing is left of the score.
    #[allow(clippy::too_many_arguments, reason = "a standing has all of them on it")]
    fn publish(
        &self,
        entity: &EntityRef,
        decision: Option<&Decision>,
        scores: &Scores,
        in_force: &[Action],
        ledger: &mut Ledger,
        now_ms: i64,
        out: &mut Made,
    ) -> (i64, i64) {
        let policy = &self.rules.policy;
        let gone_ms = tally::is_gone(&self.reasons, ledger, now_ms);
        let ends_ms = self.ends_ms(ledger, in_force, now_ms);
        let expires_ms = ends_ms.last().copied().unwrap_or(gone_ms);
        let has_score = Axis::ALL.into_iter().any(|axis| scores.of(axis).sum > 0);
        let is_something = has_score || !in_force.is_empty();
        if is_something || ledger.published {
            let standing = is_something.then(|| {
                Box::new(Standing {
                    schema_version: SCHEMA_VERSION,
                    entity: entity.clone(),
                    risk_score: scores.risk(),
                    axes: axes(scores),
                    action: in_force.last().copied(),
                    actions: in_force.to_vec(),
                    throttle_interval_ms: throttle_interval_ms(policy, in_force, scores.risk()),
                    as_of: time::format_rfc3339_ms(now_ms),
                    expires_at: time::format_rfc3339_ms(expires_ms),
                    ends: in_force.iter().zip(&ends_ms).map(|(action, end)| (*action, time::format_rfc3339_ms(*end))).collect(),
                    decision_id: decision.map(|decision| decision.decision_id.clone()),
                    policy: policy.name(),
                    rules: self.rules.digest.clone(),
                    flags: self.flags_digest.clone(),
                })
            });
            out.standings.push(StandingChange { entity: entity.clone(), at_ms: now_ms, standing });
        }
        ledger.published = is_something;
        let gone = has_score.then_some(gone_ms);
        let resolved = ledger.episodes.iter().map(|episode| episode.until_ms).filter(|until| *until != i64::MAX);
        ledger.due_ms = ends_ms.into_iter().chain(gone).chain(resolved).min();
        (expires_ms, gone_ms)
    }
}

/// The product of multipliers, kept within bounds; thousandths.
fn product(times: impl Iterator<Item = u32>) -> u32 {
    let product = times.fold(1_000u64, |product, times| (product * u64::from(times) / 1_000).min(1_000_000_000));
    u32::try_from(product).unwrap_or(u32::MAX).clamp(CONTEXT_BOUNDS.0, CONTEXT_BOUNDS.1)
}

/// The severity of the score, never more than a step below the strongest live reason's.
pub(super) fn severity(scores: &Scores, strongest: Option<Severity>) -> Severity {
    let step_below = match strongest {
        Some(Severity::Critical) => Severity::High,
        Some(Severity::High) => Severity::Medium,
        _ => Severity::Low,
    };
    severity_of(scores.risk()).max(step_below)
}

pub(super) fn throttle_interval_ms(policy: &Policy, in_force: &[Action], risk: u8) -> Option<u64> {
    let row = policy.row(Action::Throttle).filter(|_| in_force.contains(&Action::Throttle))?;
    Some(row.allowed?.interval_ms(row.at, risk))
}

fn signed(thousandths: u64) -> i64 {
    i64::try_from(thousandths).unwrap_or(i64::MAX)
}

/// A line that closes an axis of the receipt.
fn closing(rule: &str, axis: Axis, thousandths: i64, why: String) -> Contribution {
    Contribution { axis: Some(axis), ..Contribution::new(rule.to_owned(), Points(thousandths), why) }
}
