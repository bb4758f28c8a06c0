//! What a pack that loads should still be told: rules without tests or owners, exceptions without an end, what nothing
//! uses, what costs too much. The core has no clock: the day is an argument.
//!
//! [`lint`] says everything at once, in the order of the files. The codes are in [`codes`], their meaning in
//! `docs/rules.md`; what rules remember is reckoned in [`cost`].

mod attack;
pub mod codes;
pub mod cost;
mod policy;
#[cfg(test)]
mod tests;

use crate::diagnostic::Diagnostic;
use crate::rule::case::Origin;
use crate::rule::load::outline::{Named, Places};
use crate::rule::{Mode, Rule, RuleSet};
use crate::time::{self, format_duration_ms};

/// What lint compares a pack with.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    /// The present time, milliseconds since 1970.
    pub now_ms: i64,
    /// How long observations are kept, milliseconds.
    pub retention_ms: i64,
    /// What the rules together should not remember of one entity, bytes.
    pub budget_bytes: usize,
}

/// How long observations are kept unless the operator says otherwise: seven days.
pub const DEFAULT_RETENTION_MS: i64 = 7 * 86_400_000;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// What should be looked at.
    pub warnings: Vec<Diagnostic>,
    /// What is wrong today, though the pack loads: exceptions whose last day has passed.
    pub problems: Vec<Diagnostic>,
}

/// Says what a pack should be told.
pub fn lint(set: &RuleSet, circumstances: Circumstances) -> Findings {
    let mut findings = Findings::default();
    for (rule, places) in set.rules.iter().zip(&set.outline.rules) {
        tests(rule, places, &mut findings);
        meta(rule, places, circumstances.now_ms, &mut findings);
        exceptions(rule, places, circumstances.now_ms, &mut findings);
        window(rule, places, circumstances.retention_ms, &mut findings);
        cannot_fire(rule, places, &mut findings);
        policy::bands(rule, places, set, &mut findings);
    }
    unused(set, &mut findings);
    policy::policy(set, &mut findings);
    budget(set, circumstances.budget_bytes, &mut findings);
    for found in [&mut findings.warnings, &mut findings.problems] {
        found.sort_by(|a, b| (&a.file, a.line, a.column, a.code).cmp(&(&b.file, b.line, b.column, b.code)));
    }
    findings
}

impl Findings {
    fn warn(&mut self, code: &'static str, at: &Origin, message: String, help: Option<&str>) {
        self.warnings.push(diagnostic(code, at, message, help));
    }
}

fn diagnostic(code: &'static str, at: &Origin, message: String, help: Option<&str>) -> Diagnostic {
    let help = help.map(str::to_owned);
    Diagnostic { code, file: at.file.to_string(), line: at.line, column: at.column, message, excerpt: None, help }
}

fn tests(rule: &Rule, places: &Places, findings: &mut Findings) {
    let help = Some("docs/rule-tests.md shows one");
    if !rule.tests.iter().any(|case| !case.expect.is_empty()) {
        let message = format!("{} has no test in which it fires", rule.id);
        findings.warn(codes::NO_FIRING_TEST, places.of("tests"), message, help);
    }
    if !rule.tests.iter().any(|case| case.expect.is_empty()) {
        let message = format!("{} has no test in which it stays quiet (`expect: nothing`)", rule.id);
        findings.warn(codes::NO_QUIET_TEST, places.of("tests"), message, help);
    }
}

fn meta(rule: &Rule, places: &Places, now_ms: i64, findings: &mut Findings) {
    let meta = &rule.meta;
    let blind_spots = meta.blind_spots.concat();
    let given = [("owner", &meta.owner), ("goal", &meta.goal), ("blind_spots", &blind_spots), ("runbook", &meta.runbook)];
    let missing: Vec<&str> = given.iter().filter(|(_, text)| text.trim().is_empty()).map(|(key, _)| *key).collect();
    if !missing.is_empty() {
        let message = format!("{} does not say its {} in `meta`", rule.id, missing.join(", "));
        findings.warn(codes::META, places.of("meta"), message, Some("someone will be woken by it"));
    }
    for (n, tag) in meta.tags.iter().enumerate() {
        if let Some((message, help)) = attack::problem(tag) {
            findings.warn(codes::TAG, places.of(&format!("meta.tags.{n}")), message, help.as_deref());
        }
    }
    if !meta.review_by.is_empty() {
        let at = places.of("meta.review_by");
        match time::parse_rfc3339_ms(&format!("{}T00:00:00Z", meta.review_by)) {
            None => {
                let message = format!("`review_by` of {} is no day", rule.id);
                findings.warn(codes::REVIEW, at, message, Some("such as `2027-06-30`"));
            }
            Some(day) if now_ms >= day.saturating_add(86_400_000) => {
                let message = format!("{} was to be looked at again by {}", rule.id, meta.review_by);
                findings.warn(codes::REVIEW, at, message, Some("look at it, and set another day"));
            }
            Some(_) => {}
        }
    }
}

fn exceptions(rule: &Rule, places: &Places, now_ms: i64, findings: &mut Findings) {
    for (n, exception) in rule.exceptions.iter().enumerate() {
        let at = |key: &str| places.of(&format!("except.{n}{key}"));
        match exception.expires_ms {
            None => {
                let message = format!("the exception `{}` of {} never ends", exception.id, rule.id);
                findings.warn(
                    codes::ENDLESS_EXCEPTION,
                    at(""),
                    message,
                    Some("say when it is to be looked at again: `expires: 2027-01-31`"),
                );
            }
            Some(end_ms) if now_ms >= end_ms => {
                let message = format!("the exception `{}` of {} has expired: it spares nothing any more", exception.id, rule.id);
                let help = Some("take it out, or give it another day");
                findings.problems.push(diagnostic(codes::EXPIRED_EXCEPTION, at(".expires"), message, help));
            }
            Some(_) => {}
        }
    }
}

fn window(rule: &Rule, places: &Places, retention_ms: i64, findings: &mut Findings) {
    let window_ms = rule.detector.window_ms();
    if window_ms > retention_ms {
        let (window, kept) = (format_duration_ms(window_ms), format_duration_ms(retention_ms));
        let message = format!("{} looks back {window}, and observations are kept for {kept}: it cannot be checked against them", rule.id);
        findings.warn(codes::RETENTION, places.of("detect"), message, Some("keep the observations longer, or shorten the window"));
    }
}

fn cannot_fire(rule: &Rule, places: &Places, findings: &mut Findings) {
    if rule.mode == Mode::Off {
        let tests = if rule.tests.is_empty() { "" } else { ", and its tests do not run" };
        findings.warn(codes::CANNOT_FIRE, places.of("mode"), format!("{} is off: it cannot fire{tests}", rule.id), None);
    }
    let is_false = rule.when.as_ref().is_some_and(|when| when.source().trim() == "false");
    if is_false {
        let message = format!("`when` of {} is always false: it cannot fire", rule.id);
        findings.warn(codes::CANNOT_FIRE, places.of("when"), message, Some("`mode: off` says so where people look"));
    }
}

fn unused(set: &RuleSet, findings: &mut Findings) {
    for unused in &set.outline.unused {
        let what = match unused.what {
            Named::List => "the list",
            Named::Predicate => "the predicate",
            Named::Let => "the `let`",
        };
        findings.warn(codes::UNUSED, &unused.at, format!("no expression names {what} `{}`", unused.name), Some("take it out"));
    }
    for (index, flag) in set.flags.iter().enumerate() {
        let policy = &set.policy;
        let used = set.rules.iter().any(|rule| rule.flag == Some(index))
            || policy.master_flag == Some(index)
            || policy.actions.iter().any(|row| row.flag == Some(index));
        if let (false, Some(at)) = (used, set.outline.flags.get(&flag.name)) {
            let message = format!("neither a rule nor the policy names the flag {}", flag.name);
            findings.warn(codes::UNUSED_FLAG, at, message, None);
        }
    }
}

fn budget(set: &RuleSet, budget_bytes: usize, findings: &mut Findings) {
    let costs = cost::of(set);
    for (kind, bytes) in costs.kinds.iter().filter(|(_, bytes)| **bytes > budget_bytes) {
        let is_actor = ["user", "ip"].contains(&kind.as_str());
        let mut dearest: Option<&cost::RuleCost> = None;
        for rule in costs.rules.iter().filter(|rule| rule.by == *kind || (is_actor && rule.by == "actor")) {
            if dearest.is_none_or(|known| rule.bytes > known.bytes) {
                dearest = Some(rule);
            }
        }
        let Some(rule) = dearest else { continue };
        let message = format!(
            "the state of one `{kind}` may take {bytes} bytes, more than {budget_bytes}; {} takes {} of them",
            set.rules[rule.rule].id, rule.bytes
        );
        findings.warn(codes::COST, set.outline.rules[rule.rule].of("detect"), message, Some("lower `per_max` or the detector's threshold"));
    }
}
