//! An explanation as text for a terminal.

use crate::cli::draw::clean;
use crate::cli::draw::receipt::{self, Receipt};
use crate::replay::explain::{About, Found};
use std::fmt::Write;
use tripline_core::decision::Decision;
use tripline_core::engine::Outcome;
use tripline_core::engine::explain::{Explained, Explanation, Why};
use tripline_core::rule::Mode;
use tripline_core::time::format_rfc3339_ms;

/// What was found, entity by entity.
pub(super) fn found(event_id: &str, file: &str, found: &Found, columns: usize) -> String {
    let mut out = String::new();
    let Found { line, event_type, event_time, about } = found;
    line_of(&mut out, &format!("event {event_id}, {event_type} at {event_time}, line {line} of {file}"));
    if about.is_empty() {
        line_of(&mut out, "it concerns nobody whom the rules count");
    }
    for about in about {
        out.push('\n');
        line_of(&mut out, &about.key);
        one(&mut out, about, columns);
    }
    out
}

/// Decisions, and the rules unless something that counts was decided.
fn one(out: &mut String, about: &About, columns: usize) {
    let fired = || about.decisions.iter().filter(|decision| decision.anomaly_type.is_some());
    fired().for_each(|one| decision(out, one, columns));
    if fired().all(|decision| decision.shadow) {
        line_of(out, &format!("  {}", nothing(&about.explanation)));
        rules(out, &about.explanation.rules);
    }
}

fn nothing(explanation: &Explanation) -> String {
    match (explanation.outcome, &explanation.switched_off_by) {
        (Outcome::Late, _) => "no decision: late, older than the entity's newest event by more than allowed_lateness".to_owned(),
        (Outcome::Duplicate, _) => "no decision: duplicate, an event with this id was counted before".to_owned(),
        (Outcome::Processed, Some(flag)) => format!("no decision: the master flag {flag} is off"),
        (Outcome::Processed, None) if explanation.rules.is_empty() => "no decision: no rule counts such entities".to_owned(),
        (Outcome::Processed, None) => "no decision".to_owned(),
    }
}

fn decision(out: &mut String, decision: &Decision, columns: usize) {
    let due = decision.due_time.as_ref().map(|due| format!(", made by the passing of time at {due}")).unwrap_or_default();
    let shadow = if decision.shadow { ", only watched (mode: shadow): nobody acts on it" } else { "" };
    let ty = decision.anomaly_type.as_deref().unwrap_or_default();
    line_of(out, &format!("  decision {}: {ty}{due}{shadow}", decision.decision_id));
    line_of(out, &format!("  fired      {}", decision.fired.join(", ")));
    for line in receipt::draw(&Receipt::from(decision), columns.saturating_sub(2)).lines() {
        let _ = writeln!(out, "  {line}");
    }
}

fn rules(out: &mut String, rules: &[Explained]) {
    let width = rules.iter().map(|explained| clean(&explained.rule).chars().count()).max().unwrap_or(0);
    for Explained { rule, mode, why } in rules {
        let shadow = if *mode == Mode::Shadow { "only watches (mode: shadow); " } else { "" };
        line_of(out, &format!("  {:<width$}  {shadow}{}", clean(rule), text(why)));
    }
}

/// Why, as a part of a sentence.
pub(super) fn text(why: &Why) -> String {
    match why {
        Why::Off => "off".to_owned(),
        Why::FlagOff(flag) => format!("its flag {flag} is off"),
        Why::OwnBlock => "left out: our own block refused the request, and the rule does not include those".to_owned(),
        Why::OtherType(on) => format!("looks at {on} events only"),
        Why::WhenFalse => "`when` is false".to_owned(),
        Why::NothingToCount => "the event has nothing that it counts".to_owned(),
        Why::Ignored(id) => format!("not counted: exception {id}"),
        Why::CountedOnly(id) => format!("counted, and kept from firing: exception {id}"),
        Why::NotMet { progress: Some(progress) } => format!("counted, condition not met: {progress}"),
        Why::NotMet { progress: None } => "counted, condition not met".to_owned(),
        Why::Waits(due_ms) => format!("counted, and waits: fires at {} unless what it waits for comes", format_rfc3339_ms(*due_ms)),
        Why::HeldBack { fired_ms, suppressed } => {
            format!("held back: fired at {} already, {suppressed} held back since", format_rfc3339_ms(*fired_ms))
        }
        Why::NotAsked => "looks at the score, and is asked when another rule fires".to_owned(),
        Why::Fires => "fires".to_owned(),
    }
}

fn line_of(out: &mut String, text: &str) {
    out.push_str(&clean(text));
    out.push('\n');
}
