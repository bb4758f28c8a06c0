//! `tests` of a rule. What a case means is in `docs/rule-tests.md`; running it is [`crate::trial`]'s business.

use super::codes;
use super::fields::{Fields, Keys, duration, list, map, name, points, shown, text, truth, whole, word, wrong_type};
use super::pack::SEVERITIES;
use super::policy::ACTIONS;
use super::report::{Place, Report, did_you_mean};
use super::tree::{Node, Tree};
use crate::detectors::MAX_WITHIN_MS;
use crate::entity::{Entity, EntityKind, Part};
use crate::event::Event;
use crate::rule::case::{Case, DEFAULT_EVERY_MS, DEFAULT_START_MS, Entry, Expectation, MAX_CASES, MAX_EVENTS, Origin, When};
use crate::rule::{By, FlagDecl};
use crate::score::Axis;
use crate::time::{self, format_duration_ms};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The keys of a test.
pub const CASE: Keys = Keys { what: "a test", known: &["name", "start", "until", "flags", "events", "expect"], later: &["settings"] };
/// The keys of an entry of `events`: when, and the event's fields.
#[rustfmt::skip]
pub const ENTRY: Keys = Keys {
    what: "an event of a test",
    known: &[
        "at", "every", "times", "late_by",
        "event_id", "event_type", "tenant_id", "tenant_name", "user_id", "session_id", "device_id", "ip_address", "method", "path",
        "route", "status_code", "response_time_ms", "request_bytes", "response_bytes", "user_agent", "request_id", "country", "asn",
        "role", "is_staff", "is_authenticated", "outcome", "anomaly_type", "blocked_by", "headers", "data",
    ],
    later: &[],
};
/// The keys of [`ENTRY`] that are not the event's.
const TIMING: [&str; 4] = ["at", "every", "times", "late_by"];
/// The keys of an expectation.
pub const EXPECTATION: Keys =
    Keys { what: "an expectation", known: &["by", "at", "signals", "entity", "type", "actions", "severity", "score"], later: &[] };

/// What a test needs to know of its rule.
#[derive(Debug, Clone, Copy)]
pub struct Tested<'r> {
    /// The event type it looks at; `None` for any.
    pub on: Option<&'r str>,
    /// Whom it counts.
    pub by: By,
    /// It fires on the passing of time.
    pub fires_on_time: bool,
    /// The declared flags.
    pub flags: &'r [FlagDecl],
}

/// Reads `tests`.
pub fn read_cases(node: &Node, rule: Tested<'_>, report: &mut Report<'_>) -> Option<Vec<Case>> {
    let items = list(node, "`tests`", report)?;
    if items.len() > MAX_CASES {
        report.problem(codes::LIMIT, node.at, format!("{} tests, at most {MAX_CASES} are allowed", items.len()), None);
        return None;
    }
    let mut cases: Vec<Case> = Vec::new();
    let mut good = true;
    for item in items {
        match read_case(item, rule, report) {
            Some(case) if cases.iter().any(|c| c.name == case.name) => {
                report.problem(codes::DUPLICATE, item.at, format!("two tests have the name `{}`", shown(&case.name)), None);
                good = false;
            }
            Some(case) => cases.push(case),
            None => good = false,
        }
    }
    good.then_some(cases)
}

fn read_case(node: &Node, rule: Tested<'_>, report: &mut Report<'_>) -> Option<Case> {
    let fields = Fields::open(node, &CASE, report)?;
    let name = fields.need("name", report).and_then(|n| text(n, "`name` of a test", report));
    let start_ms = fields.get("start").map_or(Some(DEFAULT_START_MS), |n| start(n, report));
    let until_ms = fields.get("until").map_or(Some(None), |n| offset(n, "`until`", report).map(Some));
    let flags = fields.get("flags").map_or(Some(BTreeMap::new()), |n| read_flags(n, rule.flags, report));
    let entries = fields.need("events", report).and_then(|n| read_entries(n, rule, start_ms, report));
    let expect = fields.need("expect", report).and_then(|n| read_expect(n, rule, report));
    let at = Origin { file: report.files()[node.at.file].name.as_str().into(), line: node.at.line, column: node.at.column };
    let (entries, expect, until_ms) = (entries?, expect?, until_ms?);
    let case = Case {
        name: name?.to_owned(),
        at,
        start_ms: start_ms?,
        until_ms,
        flags: flags?,
        entries,
        expect: expect.iter().map(|(_, e)| e.clone()).collect(),
    };
    let until_ms = end(&case, &expect, &fields, rule, report)?;
    Some(Case { until_ms, ..case })
}

/// Up to when time passes, if the rule fires on time. A time that the test never reaches is a problem: what is asserted of
/// it would hold whatever the rule does.
fn end(
    case: &Case,
    expect: &[(Place, Expectation)],
    fields: &Fields<'_>,
    rule: Tested<'_>,
    report: &mut Report<'_>,
) -> Option<Option<i64>> {
    let last_ms = case.last_ms();
    let asserted_ms = expect.iter().map(|(_, e)| e.when.ms()).max();
    if !rule.fires_on_time {
        if case.until_ms.is_some() {
            let message = "`until` is for rules that fire on the passing of time, events alone make this one fire";
            report.problem(codes::CONTRADICTION, fields.key_at("until"), message, None);
            return None;
        }
        let mut good = true;
        for (at, _) in expect.iter().filter(|(_, e)| e.when.ms() > last_ms) {
            let message = format!("a time after the last event, which happens at {}", shown_offset(last_ms));
            report.problem(
                codes::CONTRADICTION,
                *at,
                message,
                Some("this rule fires on events only: nothing can come after the last".into()),
            );
            good = false;
        }
        return good.then_some(None);
    }
    match (case.until_ms, asserted_ms) {
        (None, None) => {
            let help = "write `until: 10m`, a time from the start of the test";
            let message = "the rule fires on the passing of time: say by `until` how long it stays quiet";
            report.problem(codes::MISSING_KEY, fields.at, message, Some(help.into()));
            None
        }
        (Some(until_ms), _) if until_ms < asserted_ms.unwrap_or(0).max(last_ms) => {
            let message = format!("`until` is {}, before the last event or the last time that is asserted", shown_offset(until_ms));
            report.problem(codes::CONTRADICTION, fields.key_at("until"), message, None);
            None
        }
        (given, asserted) => Some(Some(given.or(asserted).unwrap_or(0).max(last_ms))),
    }
}

fn start(node: &Node, report: &mut Report<'_>) -> Option<i64> {
    let given = text(node, "`start`", report)?;
    let start = time::parse_rfc3339_ms(given);
    if start.is_none() {
        let message = format!("`start` is `{}`, which is not a time", shown(given));
        report.problem(codes::WRONG_TYPE, node.at, message, Some("RFC 3339, such as `2024-01-01T09:00:00Z`".into()));
    }
    start
}

/// A time from the start: a duration, or `0s`.
fn offset(node: &Node, what: &str, report: &mut Report<'_>) -> Option<i64> {
    match &node.value {
        Tree::Text(zero) if zero == "0s" => Some(0),
        _ => duration(node, what, MAX_WITHIN_MS, report),
    }
}

/// A time from the start, for messages.
pub fn shown_offset(ms: i64) -> String {
    if ms == 0 { "0s".to_owned() } else { format_duration_ms(ms) }
}

fn read_flags(node: &Node, declared: &[FlagDecl], report: &mut Report<'_>) -> Option<BTreeMap<String, bool>> {
    let mut flags = BTreeMap::new();
    let mut good = true;
    for entry in map(node, "`flags` of a test", report)? {
        if !declared.iter().any(|flag| flag.name == entry.key) {
            let help = did_you_mean(&entry.key, declared.iter().map(|f| f.name.as_str()));
            report.problem(codes::UNKNOWN_FLAG, entry.at, format!("unknown flag `{}`", shown(&entry.key)), help);
            good = false;
        }
        match truth(&entry.value, "a flag of a test", report) {
            Some(on) => _ = flags.insert(entry.key.clone(), on),
            None => good = false,
        }
    }
    good.then_some(flags)
}

fn read_entries(node: &Node, rule: Tested<'_>, start_ms: Option<i64>, report: &mut Report<'_>) -> Option<Vec<Entry>> {
    let items = list(node, "`events`", report)?;
    if items.is_empty() {
        report.problem(codes::MISSING_KEY, node.at, "`events` is empty: a test in which nothing happens shows nothing", None);
        return None;
    }
    let (mut entries, mut good, mut next_ms) = (Vec::new(), true, 0);
    for item in items {
        match read_entry(item, rule, next_ms, report) {
            Some(entry) => {
                next_ms = entry.last_ms().saturating_add(DEFAULT_EVERY_MS);
                good &= start_ms.is_none_or(|start_ms| is_event(&entry, start_ms, item.at, report));
                entries.push(entry);
            }
            None => good = false,
        }
    }
    let events: usize = entries.iter().map(|entry| entry.times as usize).sum();
    if events > MAX_EVENTS {
        report.problem(codes::LIMIT, node.at, format!("a test with {events} events, at most {MAX_EVENTS} are allowed"), None);
        return None;
    }
    good.then_some(entries)
}

fn read_entry(node: &Node, rule: Tested<'_>, next_ms: i64, report: &mut Report<'_>) -> Option<Entry> {
    if let Tree::Map(given) = &node.value
        && let Some(time) = given.iter().find(|entry| entry.key == "event_time")
    {
        let message = "the events of a test have their times from `start`, `at` and `every`";
        report.problem(codes::CONTRADICTION, time.at, message, Some("leave `event_time` out".into()));
        return None;
    }
    let fields = Fields::open(node, &ENTRY, report)?;
    let at_ms = fields.get("at").map_or(Some(next_ms), |n| offset(n, "`at`", report));
    let every_ms = fields.get("every").map_or(Some(DEFAULT_EVERY_MS), |n| offset(n, "`every`", report));
    let times = fields.get("times").map_or(Some(1), |n| whole(n, "`times`", 1..=MAX_EVENTS as i64, report));
    let late_by_ms = fields.get("late_by").map_or(Some(0), |n| offset(n, "`late_by`", report));
    if fields.get("every").is_some() && fields.get("times").is_none() {
        report.problem(codes::CONTRADICTION, fields.key_at("every"), "`every` goes with `times`", Some("such as `times: 9`".into()));
        return None;
    }
    let Tree::Map(given) = &node.value else { return None };
    let mut event = Map::new();
    for entry in given.iter().filter(|entry| ENTRY.known.contains(&entry.key.as_str()) && !TIMING.contains(&entry.key.as_str())) {
        event.insert(entry.key.clone(), json(&entry.value, report)?);
    }
    let given_type = event.get("event_type").is_some_and(|ty| !ty.is_null());
    if !given_type {
        event.insert("event_type".to_owned(), rule.on.unwrap_or("http_request").into());
    }
    let has_own_id = event.get("event_id").is_some_and(|id| !id.is_null());
    if !has_own_id {
        event.remove("event_id");
    }
    let whole = Value::Object(event).to_string();
    let members = whole.strip_prefix('{')?.strip_suffix('}')?.to_owned();
    let times = u32::try_from(times?).ok()?;
    Some(Entry { line: node.at.line, at_ms: at_ms?, every_ms: every_ms?, times, late_by_ms: late_by_ms?, members, has_own_id })
}

/// Whether the first and the last repetition are events; what lies between differs from them in a number only.
fn is_event(entry: &Entry, start_ms: i64, at: Place, report: &mut Report<'_>) -> bool {
    for n in [1, entry.times] {
        let at_ms = start_ms.saturating_add(if n == 1 { entry.at_ms } else { entry.last_ms() });
        let bytes = entry.json(n, n as usize, at_ms);
        match Event::decode(Some(bytes.as_bytes())) {
            Err(rejection) => {
                let help = "docs/event.md has the fields and their bounds".to_owned();
                report.problem(codes::WRONG_TYPE, at, format!("this is no event: {rejection}"), Some(help));
                return false;
            }
            Ok(event) if entry.has_own_id && is_generated(event.event_id.as_deref().unwrap_or_default()) => {
                let message = "the ids `e1`, `e2`, … are those of events that have none of their own";
                report.problem(codes::NAME, at, message, Some("choose another `event_id`".into()));
                return false;
            }
            Ok(_) => {}
        }
    }
    true
}

fn is_generated(id: &str) -> bool {
    id.strip_prefix('e').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// A value as JSON, as an app would send it.
fn json(node: &Node, report: &mut Report<'_>) -> Option<Value> {
    Some(match &node.value {
        Tree::Null => Value::Null,
        Tree::Bool(truth) => (*truth).into(),
        Tree::Int(number) => (*number).into(),
        Tree::Float(number) if !number.is_finite() => {
            wrong_type(node, "a value of an event", "a finite number", report);
            return None;
        }
        Tree::Float(number) => (*number).into(),
        Tree::Text(text) => text.as_str().into(),
        Tree::List(items) => Value::Array(items.iter().map(|item| json(item, report)).collect::<Option<_>>()?),
        Tree::Map(entries) => {
            Value::Object(entries.iter().map(|entry| Some((entry.key.clone(), json(&entry.value, report)?))).collect::<Option<_>>()?)
        }
    })
}

/// Reads `expect`, each with its place; nothing for `expect: nothing`.
fn read_expect(node: &Node, rule: Tested<'_>, report: &mut Report<'_>) -> Option<Vec<(Place, Expectation)>> {
    let items = match &node.value {
        Tree::Text(word) if word == "nothing" => return Some(Vec::new()),
        Tree::List(items) => items,
        _ => {
            wrong_type(node, "`expect`", "`nothing` or a list of expectations", report);
            return None;
        }
    };
    if items.is_empty() {
        let help = "write `expect: nothing` for a test in which the rule stays quiet".to_owned();
        report.problem(codes::MISSING_KEY, node.at, "an empty `expect` says nothing", Some(help));
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| Some((item.at, read_expectation(item, rule, report)?))).collect();
    read.into_iter().collect()
}

fn read_expectation(node: &Node, rule: Tested<'_>, report: &mut Report<'_>) -> Option<Expectation> {
    let fields = Fields::open(node, &EXPECTATION, report)?;
    let when = match (fields.get("by"), fields.get("at")) {
        (Some(by), None) => offset(by, "`by`", report).map(When::By),
        (None, Some(at)) => offset(at, "`at`", report).map(When::At),
        (Some(_), Some(_)) => {
            report.problem(codes::CONTRADICTION, fields.key_at("at"), "`by` and `at` exclude each other", None);
            None
        }
        (None, None) => {
            let help = "`by: 4m`: not later; `at: 4m`: exactly then; both from the start of the test";
            report.problem(codes::MISSING_KEY, fields.at, "an expectation says when: `by` or `at`", Some(help.into()));
            None
        }
    };
    let signals = fields.get("signals").map_or(Some(1), |n| whole(n, "`signals`", 1..=MAX_EVENTS as i64, report));
    let entity = fields.get("entity").map_or(Some(None), |n| read_entity(n, rule.by, report).map(Some));
    let ty = fields.get("type").map_or(Some(None), |n| name(n, "`type`", report).map(|ty| Some(ty.to_owned())));
    let actions = fields.get("actions").map_or(Some(None), |n| {
        let words: Vec<_> = list(n, "`actions`", report)?.iter().map(|item| word(item, "`actions`", &ACTIONS, report)).collect();
        words.into_iter().collect::<Option<Vec<_>>>().map(Some)
    });
    let severity = fields.get("severity").map_or(Some(None), |n| word(n, "`severity`", &SEVERITIES, report).map(Some));
    let score = fields.get("score").map_or(Some(BTreeMap::new()), |n| read_score(n, report));
    let signals = u32::try_from(signals?).ok()?;
    Some(Expectation { when: when?, signals, entity: entity?, ty: ty?, actions: actions?, severity: severity?, score: score? })
}

/// The scores that a signal leaves: `{ intrusion: 60 }`.
fn read_score(node: &Node, report: &mut Report<'_>) -> Option<BTreeMap<Axis, u8>> {
    let mut scores = BTreeMap::new();
    let mut good = true;
    for entry in map(node, "`score`", report)? {
        let axis = Axis::WORDS.iter().find(|(word, _)| *word == entry.key).map(|(_, axis)| *axis);
        if axis.is_none() {
            let help = did_you_mean(&entry.key, Axis::WORDS.iter().map(|(word, _)| *word));
            report.problem(codes::UNKNOWN_WORD, entry.at, format!("`{}` is no axis", shown(&entry.key)), help);
        }
        match axis.zip(points(&entry.value, "a score", report)) {
            Some((axis, points)) => _ = scores.insert(axis, points),
            None => good = false,
        }
    }
    good.then_some(scores)
}

/// Somebody whom the rule counts, as `user:u1`.
fn read_entity(node: &Node, by: By, report: &mut Report<'_>) -> Option<String> {
    let given = text(node, "`entity`", report)?;
    let Some(entity) = Entity::parse(given) else {
        let message = format!("`entity` is `{}`, which names nobody", shown(given));
        report.problem(codes::WRONG_TYPE, node.at, message, Some("a kind and an id, such as `user:u1`".into()));
        return None;
    };
    let actors = [EntityKind::from(Part::User), EntityKind::from(Part::Ip), EntityKind::ANON];
    let counted = match by {
        By::Actor => actors.contains(&entity.kind),
        By::Kind(kind) => entity.kind == kind,
    };
    if !counted {
        let message = format!("the rule never speaks about `{}`: it counts others", entity.kind);
        report.problem(codes::CONTRADICTION, node.at, message, Some("the rule's `by` says whom".into()));
        return None;
    }
    Some(entity.to_string())
}

#[cfg(test)]
mod tests;
