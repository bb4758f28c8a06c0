//! Runs the tests that stand in rule files, on the way of production: JSON → event → addressing → selection → engine, with
//! the state's own codec. Deterministic: no clock, and what is shuffled is shuffled by the test's name.
//!
//! The whole pack runs; a test is about the signals of its rule alone, and about all of them: one that is not expected
//! fails it as one that does not come. Every test runs [up to four ways](Way). Start at [`run_case`].

mod expect;
mod report;
mod shuffle;
#[cfg(test)]
mod tests;
mod way;

pub use report::{CaseReport, Failed, Skipped, Way};

use crate::address::{Addressing, SessionKey};
use crate::decision::Decision;
use crate::engine::{Emit, Engine};
use crate::flags::{Flag, FlagSnapshot};
use crate::rule::case::Case;
use crate::rule::{Mode, Rhythm, RuleSet};
use crate::state::{ActorState, StateError};
use std::collections::BTreeMap;
use std::sync::Arc;
use way::{Line, Ran};

/// How often a test's events are shuffled.
const SHUFFLES: u8 = 8;

/// What stands between two events in one of the ways. Tests of the runner put something broken here.
#[derive(Debug, Clone, Copy)]
struct Between {
    /// Gives back what was remembered.
    reload: fn(&ActorState) -> Result<ActorState, StateError>,
    /// Gives back the bytes of an event that is delivered again.
    redeliver: fn(&str) -> String,
}

impl Between {
    const PRODUCTION: Between = Between { reload, redeliver: str::to_owned };
}

/// Runs one test of a rule, by their indices; a failed expectation is in the report.
pub fn run_case(set: &Arc<RuleSet>, rule: usize, case: usize) -> CaseReport {
    run_between(set, rule, case, Between::PRODUCTION)
}

fn run_between(set: &Arc<RuleSet>, index: usize, case: usize, between: Between) -> CaseReport {
    let rule = &set.rules[index];
    let case = &rule.tests[case];
    let arrivals = case.arrivals();
    let mut report = CaseReport::new(case, arrivals.len());
    if rule.mode == Mode::Off {
        report.not_run = Some("the rule is off".to_owned());
        return report;
    }
    let engine = engine(set, index, case);
    let line = |way: Way| Line::new(&engine, index, case, way, between);
    let plain = match line(Way::Plain).run(&arrivals) {
        Ok(plain) => plain,
        Err(said) => {
            report.fail(Way::Plain, said);
            return report;
        }
    };
    for said in expect::unmet(case, &plain) {
        report.fail(Way::Plain, said);
    }
    report.ran.push(Way::Plain);
    for way in [Way::Reloaded, Way::Twice] {
        match skipped(set, way, rule.detector.cools_down(), case) {
            Some(why) => report.skipped.push(Skipped { way, why }),
            None => {
                report.ran.push(way);
                match line(way).run(&arrivals) {
                    Ok(ran) => report.fail_if(way, differs(&plain, &ran, case)),
                    Err(said) => report.fail(way, said),
                }
            }
        }
    }
    match skipped(set, Way::Shuffled, rule.detector.cools_down(), case) {
        Some(why) => report.skipped.push(Skipped { way: Way::Shuffled, why }),
        None => {
            report.ran.push(Way::Shuffled);
            let counts_every = rule.detector.rhythm() == Rhythm::Every;
            for round in 0..SHUFFLES {
                let shuffled = shuffle::arrivals(&arrivals, &case.name, round, engine.lateness_ms());
                let said = match line(Way::Shuffled).run(&shuffled) {
                    Ok(ran) => differs_in_number(&plain, &ran, counts_every),
                    Err(said) => Some(said),
                };
                if let Some(said) = said {
                    report.fail(Way::Shuffled, said);
                    break;
                }
            }
        }
    }
    report
}

/// The pack with the flags of a test: the rule's own and the master flag are on, the others as declared.
fn engine(set: &Arc<RuleSet>, rule: usize, case: &Case) -> Engine {
    let own = [set.rules[rule].flag, set.policy.master_flag].into_iter().flatten().map(|index| (set.flags[index].name.clone(), true));
    let mut flags: BTreeMap<String, bool> = own.collect();
    flags.extend(case.flags.iter().map(|(name, on)| (name.clone(), *on)));
    let flag = |enabled| Flag { enabled, rollout_percentage: 100, users: Vec::new(), staff_only: false };
    let snapshot = FlagSnapshot::new(flags.into_iter().map(|(name, on)| (name, flag(on))).collect());
    let addressing = Addressing { session_key: SessionKey::new("tests"), ..Addressing::default() };
    Engine::new(Arc::clone(set), &snapshot, Emit::Fired).addressing(addressing)
}

/// Why a way means nothing for this rule and test.
fn skipped(set: &RuleSet, way: Way, has_any_order: bool, case: &Case) -> Option<String> {
    let why = match (way, set.policy.allowed_lateness_ms) {
        (Way::Twice, _) if set.policy.remember_ids == 0 => "the policy does not recognise repeats (`remember_ids: 0`)",
        (Way::Shuffled, None | Some(0)) => "the policy takes events in the order in which they arrive (`allowed_lateness`)",
        (Way::Shuffled, _) if !has_any_order => "the rule's window is fixed and runs in the order in which events arrive",
        (Way::Shuffled, _) if case.has_own_order() => "the test itself says in which order events arrive (`late_by`)",
        _ => return None,
    };
    Some(why.to_owned())
}

/// What differs between two runs that have to agree to the byte.
fn differs(plain: &Ran, ran: &Ran, case: &Case) -> Option<String> {
    let text = |decision: &Decision| serde_json::to_string(decision).unwrap_or_default();
    let (expected, came): (Vec<String>, Vec<String>) =
        (plain.decisions.iter().map(text).collect(), ran.decisions.iter().map(text).collect());
    if expected == came {
        return None;
    }
    let at = expected.iter().zip(&came).take_while(|(a, b)| a == b).count();
    let shown = |ran: &Ran| ran.decisions.get(at).map_or_else(|| "none".to_owned(), |decision| expect::shown(decision, case));
    let field = plain.decisions.get(at).zip(ran.decisions.get(at)).and_then(|(a, b)| first_difference(a, b));
    let field = field.map(|name| format!(" (`{name}` differs)")).unwrap_or_default();
    Some(format!(
        "{} plain, {} this way; signal {}: {} plain, {} this way{field}",
        signals(expected.len()),
        signals(came.len()),
        at + 1,
        shown(plain),
        shown(ran)
    ))
}

fn first_difference(a: &Decision, b: &Decision) -> Option<String> {
    let (a, b) = (serde_json::to_value(a).ok()?, serde_json::to_value(b).ok()?);
    let (a, b) = (a.as_object()?, b.as_object()?);
    a.keys().chain(b.keys()).find(|name| a.get(*name) != b.get(*name)).cloned()
}

/// What differs between the plain run and one with another order of arrival: the causing events may be others, the
/// entities and the number of signals about each may not. Of a rule that fires on every event only the entities count.
fn differs_in_number(plain: &Ran, ran: &Ran, counts_every: bool) -> Option<String> {
    let (expected, came) = (plain.by_entity(), ran.by_entity());
    if let Some((entity, _)) = came.iter().find(|(entity, _)| !expected.contains_key(*entity)) {
        return Some(format!("a signal about {entity}, and none when the events arrive in order"));
    }
    let differs = |number: usize, of: usize| if counts_every { (number == 0) != (of == 0) } else { number != of };
    let (entity, number) = expected.iter().find(|(entity, number)| differs(came.get(*entity).copied().unwrap_or(0), **number))?;
    let other = came.get(entity).copied().unwrap_or(0);
    Some(format!("{} about {entity}, {} when the events arrive in order", signals(other), signals(*number)))
}

/// `1 signal`, `2 signals`.
fn signals(number: usize) -> String {
    if number == 1 { "1 signal".to_owned() } else { format!("{number} signals") }
}

/// The state, written and read as it is between two commits on two machines.
fn reload(state: &ActorState) -> Result<ActorState, StateError> {
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    ActorState::decode(&bytes)
}
