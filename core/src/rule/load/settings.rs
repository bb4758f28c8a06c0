//! `kind: settings`: values that an operator may override, and their use in the other documents.
//!
//! A scalar that is exactly `$NAME` stands for the setting; `{NAME}` inside the text of a default stands for it too, so
//! that one setting (an API version) can shape another (a list of prefixes). An override is taken as it is.

use super::codes;
use super::fields::{Fields, Keys, map, shown, text, word};
use super::report::{Report, SETTINGS, did_you_mean};
use super::tree::{Entry, Node, Tree};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The most settings a pack may declare.
const MAX_SETTINGS: usize = 1_000;
/// The keys of a `settings` document.
pub const DOCUMENT: Keys = Keys { what: "a settings document", known: &["schema", "kind", "settings"], later: &[] };
/// The keys of one setting.
pub const SETTING: Keys = Keys { what: "a setting", known: &["type", "default", "strip", "description"], later: &[] };

/// What a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Int,
    Text,
    Texts,
    Truth,
    Seconds,
    Profiles,
}

const TYPES: [(&str, Type); 6] = [
    ("int", Type::Int),
    ("string", Type::Text),
    ("strings", Type::Texts),
    ("bool", Type::Truth),
    ("seconds", Type::Seconds),
    ("profiles", Type::Profiles),
];

/// Every setting's present value, by name.
pub type Values = BTreeMap<String, Tree>;

/// Reads the settings documents and applies the overrides.
pub fn read(documents: &[Node], overrides: &Map<String, Value>, report: &mut Report<'_>) -> Values {
    let mut values = Values::new();
    let mut with_defaults = Vec::new();
    for document in documents {
        let Some(fields) = Fields::open(document, &DOCUMENT, report) else { continue };
        let Some(entries) = fields.need("settings", report).and_then(|n| map(n, "`settings`", report)) else { continue };
        for entry in entries {
            declare(entry, overrides, &mut values, &mut with_defaults, report);
        }
    }
    let plain = values.clone();
    for name in &with_defaults {
        if let Some(value) = values.get_mut(&name.key) {
            interpolate(value, name, &plain, report);
        }
    }
    for name in overrides.keys().filter(|name| !values.contains_key(*name)) {
        let help = did_you_mean(name, plain.keys().map(String::as_str)).or_else(|| Some("the rule pack declares no settings".into()));
        report.global(codes::UNKNOWN_SETTING, SETTINGS, format!("unknown setting `{}`", shown(name)), help);
    }
    values
}

fn declare<'n>(
    entry: &'n Entry,
    overrides: &Map<String, Value>,
    values: &mut Values,
    with_defaults: &mut Vec<&'n Entry>,
    report: &mut Report<'_>,
) {
    if !is_setting_name(&entry.key) {
        let help = "capital letters, digits and `_`, a letter first".to_owned();
        report.problem(codes::NAME, entry.at, format!("a setting is spelled `{}`", shown(&entry.key)), Some(help));
        return;
    }
    if values.len() >= MAX_SETTINGS {
        report.problem(codes::LIMIT, entry.at, format!("more than {MAX_SETTINGS} settings"), None);
        return;
    }
    let Some(fields) = Fields::open(&entry.value, &SETTING, report) else { return };
    let Some(ty) = fields.need("type", report).and_then(|n| word(n, "`type` of a setting", &TYPES, report)) else { return };
    if let Some(description) = fields.get("description") {
        text(description, "`description`", report);
    }
    let strip = fields.get("strip").and_then(|n| text(n, "`strip`", report));
    if strip.is_some() && ty != Type::Text {
        report.problem(codes::CONTRADICTION, fields.key_at("strip"), "`strip` is for settings of type `string`", None);
    }
    let coerced = match overrides.get(&entry.key) {
        Some(json) => coerce(ty, &Tree::from_json(json, entry.at)).map_err(|problems| {
            for problem in problems {
                report.global(codes::SETTING_VALUE, SETTINGS, format!("{}: {problem}", entry.key), None);
            }
        }),
        None => {
            let Some(default) = fields.need("default", report) else { return };
            with_defaults.push(entry);
            coerce(ty, &default.value).map_err(|problems| {
                for problem in problems {
                    report.problem(codes::SETTING_VALUE, default.at, format!("{}: {problem}", entry.key), None);
                }
            })
        }
    };
    // A wrong value is reported; the setting is known all the same, so that its uses are not reported as well.
    let mut value = coerced.unwrap_or(Tree::Null);
    if let (Tree::Text(text), Some(strip)) = (&mut value, strip) {
        *text = text.trim_matches(|c| strip.contains(c)).to_owned();
    }
    if values.insert(entry.key.clone(), value).is_some() {
        report.problem(codes::DUPLICATE, entry.at, format!("the setting {} is declared twice", entry.key), None);
    }
}

/// Takes a value as the type of its setting, as the Python package would: its `int()` reads `"20"` too.
fn coerce(ty: Type, value: &Tree) -> Result<Tree, Vec<String>> {
    let wrong = |needed: &str| Err(vec![format!("needs {needed}, this is {}", value.kind())]);
    match (ty, value) {
        (Type::Int | Type::Seconds, _) => {
            let Some(number) = python_int(value) else { return wrong("a whole number") };
            match ty {
                Type::Int => Ok(Tree::Int(number)),
                _ if number < 1 => Err(vec![format!("needs at least 1 second, this is {number}")]),
                _ => Ok(Tree::Text(format!("{number}s"))),
            }
        }
        (Type::Text, Tree::Text(_)) | (Type::Truth, Tree::Bool(_)) => Ok(value.clone()),
        (Type::Text, _) => wrong("text"),
        (Type::Truth, _) => wrong("`true` or `false`"),
        (Type::Texts, Tree::List(items)) if items.iter().all(|i| matches!(i.value, Tree::Text(_))) => Ok(value.clone()),
        (Type::Texts, Tree::List(_)) => Err(vec!["needs a list of texts, some of these are not".into()]),
        (Type::Texts, _) => wrong("a list of texts"),
        (Type::Profiles, Tree::Null) => Ok(Tree::Map(Vec::new())),
        (Type::Profiles, Tree::Map(entries)) => {
            let results: Vec<_> = entries.iter().map(profile).collect();
            let problems: Vec<String> = results.iter().filter_map(|r| r.as_ref().err().cloned()).collect();
            if problems.is_empty() { Ok(Tree::Map(results.into_iter().flatten().collect())) } else { Err(problems) }
        }
        (Type::Profiles, _) => wrong("a map from anomaly type to profile"),
    }
}

/// One overriding profile, with the checks and the wording of the package's `AnomalyConfig`; fields it does not know are ignored, as there.
fn profile(entry: &Entry) -> Result<Entry, String> {
    let name = &entry.key;
    if name.is_empty() {
        return Err("rule profile names must be non-empty strings".into());
    }
    let Tree::Map(fields) = &entry.value.value else { return Err(format!("invalid rule profile for '{name}': expected a map")) };
    let get = |key: &str| fields.iter().find(|f| f.key == key);
    let missing: Vec<&str> = ["category", "risk_score", "severity"].into_iter().filter(|key| get(key).is_none()).collect();
    if !missing.is_empty() {
        return Err(format!("rule profile '{name}' is missing fields: {}", missing.join(", ")));
    }
    match get("risk_score").map(|f| &f.value.value) {
        Some(Tree::Int(0..=100)) => {}
        Some(Tree::Int(_)) => return Err(format!("rule profile '{name}' risk_score must be between 0 and 100")),
        _ => return Err(format!("rule profile '{name}' risk_score must be an int")),
    }
    for (key, words) in [("severity", &["critical", "high", "low", "medium"][..]), ("category", &["business", "permission", "request"][..])]
    {
        if !matches!(get(key).map(|f| &f.value.value), Some(Tree::Text(given)) if words.contains(&given.as_str())) {
            return Err(format!("rule profile '{name}' {key} must be one of {}", words.join(", ")));
        }
    }
    let kept = fields.iter().filter(|f| ["risk_score", "severity", "category"].contains(&f.key.as_str())).cloned().collect();
    Ok(Entry { value: Node { value: Tree::Map(kept), ..entry.value.clone() }, ..entry.clone() })
}

/// Python's `int()` on what JSON can hold, except truth values: whole numbers, fractions cut off, and text with a sign,
/// white space around it and single underscores between digits.
fn python_int(value: &Tree) -> Option<i64> {
    match value {
        Tree::Int(number) => Some(*number),
        Tree::Float(number) if number.is_finite() && number.abs() < 9.0e15 => Some(number.trunc() as i64),
        Tree::Text(text) => {
            let text = text.trim();
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let groups_are_digits = digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
            groups_are_digits.then(|| text.replace('_', "").parse().ok()).flatten()
        }
        _ => None,
    }
}

/// Puts the settings into the documents' trees.
pub fn substitute(node: &mut Node, values: &Values, report: &mut Report<'_>) {
    match &mut node.value {
        Tree::List(items) => items.iter_mut().for_each(|item| substitute(item, values, report)),
        Tree::Map(entries) => entries.iter_mut().for_each(|entry| substitute(&mut entry.value, values, report)),
        Tree::Text(text) => {
            let Some(name) = text.strip_prefix('$').filter(|name| is_setting_name(name)).map(str::to_owned) else { return };
            match values.get(&name) {
                Some(value) => {
                    node.value = value.clone();
                    stamp(node, node.at, &name);
                }
                None => {
                    let help = did_you_mean(&name, values.keys().map(String::as_str));
                    report.problem(codes::UNKNOWN_SETTING, node.at, format!("unknown setting `{name}`"), help);
                    node.value = Tree::Null;
                    stamp(node, node.at, &name);
                }
            }
        }
        _ => {}
    }
}

/// Marks a value as taken from a setting: it stands where the setting is used.
fn stamp(node: &mut Node, at: super::report::Place, name: &str) {
    node.at = at;
    node.setting = Some(name.to_owned());
    match &mut node.value {
        Tree::List(items) => items.iter_mut().for_each(|item| stamp(item, at, name)),
        Tree::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.at = at;
            stamp(&mut entry.value, at, name);
        }),
        _ => {}
    }
}

fn interpolate(value: &mut Tree, setting: &Entry, plain: &Values, report: &mut Report<'_>) {
    match value {
        Tree::Text(text) => *text = interpolated(text, setting, plain, report),
        Tree::List(items) => items.iter_mut().for_each(|item| interpolate(&mut item.value, setting, plain, report)),
        _ => {}
    }
}

fn interpolated(text: &str, setting: &Entry, plain: &Values, report: &mut Report<'_>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        match after.split_once('}').filter(|(name, _)| is_setting_name(name)) {
            Some((name, tail)) => {
                match plain.get(name) {
                    Some(Tree::Text(value)) if !value.contains('{') => out.push_str(value),
                    Some(Tree::Int(value)) => out.push_str(&value.to_string()),
                    // Its value is wrong, which is reported already.
                    Some(Tree::Null) => {}
                    Some(_) => {
                        let message = format!("{}: `{{{name}}}` is not a plain text or number", setting.key);
                        report.problem(codes::SETTING_VALUE, setting.at, message, None);
                    }
                    None => {
                        let help = did_you_mean(name, plain.keys().map(String::as_str));
                        report.problem(codes::UNKNOWN_SETTING, setting.at, format!("unknown setting `{name}` in {}", setting.key), help);
                    }
                }
                rest = tail;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out + rest
}

fn is_setting_name(name: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}
