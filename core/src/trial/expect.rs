//! Whether a run gave the signals that a test expects, and no others.

use super::signals;
use super::way::{Ran, entity_of};
use crate::decision::{Decision, Points};
use crate::firing::thousandths;
use crate::policy::Action;
use crate::rule::case::{Case, Expectation, When};
use crate::rule::load::cases::shown_offset;
use crate::time;

/// A signal as a test looks at it.
struct Signal<'d> {
    decision: &'d Decision,
    at_ms: i64,
    entity: String,
    taken: bool,
}

/// What did not hold, in words. Every signal is covered by one expectation at most. An expectation that names more (an
/// exact time, an entity, a type) takes its signals first, then the one with the earlier time; each takes the earliest.
pub fn unmet(case: &Case, ran: &Ran) -> Vec<String> {
    let mut came: Vec<Signal<'_>> = ran
        .decisions
        .iter()
        .map(|decision| Signal { decision, at_ms: at_ms(decision) - case.start_ms, entity: entity_of(decision), taken: false })
        .collect();
    came.sort_by_key(|signal| signal.at_ms);
    let mut order: Vec<&Expectation> = case.expect.iter().collect();
    let names =
        |e: &Expectation| usize::from(matches!(e.when, When::At(_))) + usize::from(e.entity.is_some()) + usize::from(e.ty.is_some());
    order.sort_by_key(|e| (std::cmp::Reverse(names(e)), e.when.ms()));
    let mut unmet = Vec::new();
    for expected in order {
        let found = take(expected, &mut came);
        if found.len() < expected.signals as usize {
            unmet.push(missed(expected, found.len(), ran));
        }
        unmet.extend(found.into_iter().filter_map(|at| other(expected, &came[at])));
    }
    unmet.extend(came.iter().filter(|signal| !signal.taken).map(|signal| format!("not expected: {}", described(signal))));
    unmet
}

/// Takes the signals that an expectation covers, as many as it wants; answers their indices.
fn take(expected: &Expectation, came: &mut [Signal<'_>]) -> Vec<usize> {
    let covers = |signal: &Signal<'_>| {
        !signal.taken
            && expected.when.allows(signal.at_ms)
            && expected.entity.as_ref().is_none_or(|entity| *entity == signal.entity)
            && expected.ty.as_ref().is_none_or(|ty| signal.decision.anomaly_type.as_ref() == Some(ty))
    };
    let found: Vec<usize> = (0..came.len()).filter(|at| covers(&came[*at])).take(expected.signals as usize).collect();
    found.iter().for_each(|at| came[*at].taken = true);
    found
}

fn missed(expected: &Expectation, found: usize, ran: &Ran) -> String {
    let when = match expected.when {
        When::By(ms) => format!("by {}", shown_offset(ms)),
        When::At(ms) => format!("at {}", shown_offset(ms)),
    };
    let about = expected.entity.as_ref().map(|entity| format!(" about {entity}")).unwrap_or_default();
    let ty = expected.ty.as_ref().map(|ty| format!(" of type {ty}")).unwrap_or_default();
    let wanted = signals(expected.signals as usize);
    format!("expected {wanted}{about}{ty} {when}, came {found}; {}", how_far(expected, ran))
}

/// How many events reached the rule.
fn how_far(expected: &Expectation, ran: &Ran) -> String {
    let reached = |entity: &String| ran.reached.get(entity).copied().unwrap_or(0);
    let events = |number: usize| if number == 1 { "1 event".to_owned() } else { format!("{number} events") };
    let mut told = match &expected.entity {
        Some(entity) => format!("the rule counted {} of {entity}", events(reached(entity))),
        None => match ran.reached.iter().max_by_key(|(_, number)| **number) {
            Some((entity, number)) => format!("the rule counted {} of {entity}, the most of anyone", events(*number)),
            None => "no event passed the rule's `on`, `when` and `by`".to_owned(),
        },
    };
    if ran.late > 0 {
        told.push_str(&format!("; {} came too late", events(ran.late)));
    }
    if ran.unaddressed > 0 {
        told.push_str(&format!("; {} concerned nobody whom the pack counts", events(ran.unaddressed)));
    }
    told
}

/// What a signal that came in time has otherwise than expected.
fn other(expected: &Expectation, signal: &Signal<'_>) -> Option<String> {
    let mut said = Vec::new();
    if let Some(actions) = &expected.actions {
        let came = actions_of(signal.decision);
        if came.iter().any(|action| !actions.contains(action)) || actions.iter().any(|action| !came.contains(action)) {
            let held: Vec<String> = signal.decision.held_back.iter().map(|h| format!("{} by {}", h.action, h.by)).collect();
            let held = if held.is_empty() { String::new() } else { format!(" (held back: {})", held.join(", ")) };
            said.push(format!("expected actions {}, came {}{held}", words(actions), words(&came)));
        }
    }
    if let Some(severity) = expected.severity.filter(|severity| *severity != signal.decision.severity) {
        said.push(format!("expected severity {severity:?}, came {:?}", signal.decision.severity).to_lowercase());
    }
    for (axis, points) in &expected.score {
        let came = signal.decision.axes.get(axis).copied().unwrap_or_default();
        if whole_points(came) != i64::from(*points) {
            let receipt = if signal.decision.axes.is_empty() { " (the policy decides per signal: there is no score)" } else { "" };
            said.push(format!("expected a score of {points} for {}, came {}{receipt}", axis.name(), thousandths(came.0)));
        }
    }
    (!said.is_empty()).then(|| format!("{}: {}", described(signal), said.join("; ")))
}

/// The nearest whole point, a half goes up: what is compared with thresholds.
fn whole_points(points: Points) -> i64 {
    (points.0 + 500).div_euclid(1_000)
}

fn actions_of(decision: &Decision) -> Vec<Action> {
    let holds = [
        (Action::Alert, decision.should_alert),
        (Action::Throttle, decision.should_throttle),
        (Action::StepUp, decision.should_step_up),
        (Action::Block, decision.should_block),
    ];
    holds.into_iter().filter(|(_, holds)| *holds).map(|(action, _)| action).collect()
}

fn words(actions: &[Action]) -> String {
    format!("[{}]", actions.iter().map(|action| action.name()).collect::<Vec<_>>().join(", "))
}

/// When a signal happened: its event, or when it was due; milliseconds since 1970.
fn at_ms(decision: &Decision) -> i64 {
    time::parse_rfc3339_ms(decision.due_time.as_ref().unwrap_or(&decision.event_time)).unwrap_or(i64::MAX)
}

fn described(signal: &Signal<'_>) -> String {
    let ty = signal.decision.anomaly_type.as_deref().unwrap_or("no type");
    let decision = signal.decision;
    let why = decision.contributions.iter().find(|c| decision.fired.contains(&c.rule)).map_or("", |c| c.why.as_str());
    format!("a signal about {} at {}, {ty} ({why})", signal.entity, shown_offset(signal.at_ms))
}

/// A decision in words.
pub fn shown(decision: &Decision, case: &Case) -> String {
    described(&Signal { decision, at_ms: at_ms(decision) - case.start_ms, entity: entity_of(decision), taken: false })
}
