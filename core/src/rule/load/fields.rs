//! Typed reading of a mapping: strict keys, and a report instead of a stop.
//!
//! A reader returns `None` after it has reported a problem, so that the caller goes on with the next key.

use super::codes;
use super::report::{Place, Report, did_you_mean};
use super::tree::{Entry, Node, Tree};
use crate::detectors::MAX_WITHIN_MS;
use crate::time::{format_duration_ms, parse_duration_ms};
use std::ops::RangeInclusive;

/// The longest text that a key may hold, in bytes.
pub const MAX_TEXT_BYTES: usize = 8 * 1024;

/// The keys of one kind of mapping.
#[derive(Debug)]
pub struct Keys {
    /// How messages call the mapping.
    pub what: &'static str,
    /// Keys that are read.
    pub known: &'static [&'static str],
    /// Keys of the format that this version does not read yet.
    pub later: &'static [&'static str],
}

/// A mapping whose keys have been checked.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'n> {
    /// Where the mapping starts.
    pub at: Place,
    what: &'static str,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// Takes a node as a mapping with these keys and reports every other key.
    pub fn open(node: &'n Node, keys: &Keys, report: &mut Report<'_>) -> Option<Fields<'n>> {
        let entries = map(node, keys.what, report)?;
        for entry in entries {
            let key = entry.key.as_str();
            if keys.later.contains(&key) {
                not_yet(entry.at, &format!("`{key}` in {}", keys.what), report);
            } else if !keys.known.contains(&key) {
                let message = format!("unknown key `{key}` in {}", keys.what);
                report.problem(codes::UNKNOWN_KEY, entry.at, message, did_you_mean(key, keys.known.iter().copied()));
            }
        }
        Some(Fields { at: node.at, what: keys.what, entries })
    }

    /// The value of a key; `None` when it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.value).filter(|n| !matches!(n.value, Tree::Null))
    }

    /// Where a key stands, for problems about the key itself.
    pub fn key_at(&self, key: &str) -> Place {
        self.entries.iter().find(|e| e.key == key).map_or(self.at, |e| e.at)
    }

    /// The value of a key that must be there.
    pub fn need(&self, key: &str, report: &mut Report<'_>) -> Option<&'n Node> {
        let found = self.get(key);
        let entry = self.entries.iter().find(|e| e.key == key);
        if found.is_none() && !entry.is_some_and(|e| is_reported(&e.value)) {
            let message = format!("`{key}` is {} in {}", if entry.is_some() { "empty" } else { "missing" }, self.what);
            report.problem(codes::MISSING_KEY, self.key_at(key), message, None);
        }
        found
    }
}

/// Says that something is part of the format, but not of this version.
pub fn not_yet(at: Place, what: &str, report: &mut Report<'_>) {
    report.problem(codes::NOT_YET, at, format!("{what} is not available yet"), Some("docs/rules.md lists what this version reads".into()));
}

/// Whether the value came from a setting that is unknown or has a wrong value: reported there, once.
fn is_reported(node: &Node) -> bool {
    matches!(node.value, Tree::Null) && node.setting.is_some()
}

/// Says that a value is not of the kind that is needed.
pub fn wrong_type(node: &Node, what: &str, needed: &str, report: &mut Report<'_>) {
    if is_reported(node) {
        return;
    }
    let message = format!("{what} needs {needed}, this is {}{}", node.value.kind(), of_setting(node));
    report.problem(codes::WRONG_TYPE, node.at, message, None);
}

/// " (from setting X)", for values that do not stand where the problem is shown.
pub fn of_setting(node: &Node) -> String {
    node.setting.as_ref().map_or_else(String::new, |name| format!(" (from the setting {name})"))
}

/// A mapping with keys of the author's choice.
pub fn map<'n>(node: &'n Node, what: &str, report: &mut Report<'_>) -> Option<&'n [Entry]> {
    let Tree::Map(entries) = &node.value else {
        wrong_type(node, what, "a map", report);
        return None;
    };
    Some(entries)
}

/// A sequence.
pub fn list<'n>(node: &'n Node, what: &str, report: &mut Report<'_>) -> Option<&'n [Node]> {
    let Tree::List(items) = &node.value else {
        wrong_type(node, what, "a list", report);
        return None;
    };
    Some(items)
}

/// Text.
pub fn text<'n>(node: &'n Node, what: &str, report: &mut Report<'_>) -> Option<&'n str> {
    let Tree::Text(text) = &node.value else {
        wrong_type(node, what, "text (quote it if it looks like something else)", report);
        return None;
    };
    if text.len() > MAX_TEXT_BYTES {
        report.problem(codes::RANGE, node.at, format!("{what} has {} bytes, at most {MAX_TEXT_BYTES} are allowed", text.len()), None);
        return None;
    }
    Some(text)
}

/// `true` or `false`.
pub fn truth(node: &Node, what: &str, report: &mut Report<'_>) -> Option<bool> {
    let Tree::Bool(value) = node.value else {
        wrong_type(node, what, "`true` or `false`", report);
        return None;
    };
    Some(value)
}

/// A whole number within a range.
pub fn whole(node: &Node, what: &str, range: RangeInclusive<i64>, report: &mut Report<'_>) -> Option<i64> {
    let Tree::Int(value) = node.value else {
        wrong_type(node, what, "a whole number", report);
        return None;
    };
    if !range.contains(&value) {
        let message = format!("{what} is {value}{}, it must be {} to {}", of_setting(node), range.start(), range.end());
        report.problem(codes::RANGE, node.at, message, None);
        return None;
    }
    Some(value)
}

/// A duration in milliseconds, from 1 ms to `max_ms`.
pub fn duration(node: &Node, what: &str, max_ms: i64, report: &mut Report<'_>) -> Option<i64> {
    let Tree::Text(text) = &node.value else {
        wrong_type(node, what, "a duration with its unit, such as `90s`", report);
        return None;
    };
    let Some(ms) = parse_duration_ms(text) else {
        let message = format!("{what} is `{text}`, which is not a duration");
        report.problem(
            codes::WRONG_TYPE,
            node.at,
            message,
            Some("a whole number above zero and `ms`, `s`, `m`, `h` or `d`: `90s`, `5m`".into()),
        );
        return None;
    };
    if ms > max_ms {
        let message = format!("{what} is {text}{}, at most {} are allowed", of_setting(node), format_duration_ms(max_ms));
        report.problem(codes::RANGE, node.at, message, None);
        return None;
    }
    Some(ms)
}

/// The most events of a rate.
pub const MAX_RATE_EVENTS: i64 = 1_000_000;

/// A rate as the time that one event takes, whole microseconds: `1/500ms`, `100/1m`, `1/s`.
pub fn interval_us(node: &Node, what: &str, report: &mut Report<'_>) -> Option<i64> {
    let given = text(node, what, report)?;
    let parts = given.split_once('/').and_then(|(events, per)| {
        let is_number = !events.is_empty() && events.bytes().all(|b| b.is_ascii_digit());
        // `1/s` is `1/1s`.
        let per_ms = parse_duration_ms(per).or_else(|| parse_duration_ms(&format!("1{per}")))?;
        Some((events.parse::<i64>().ok().filter(|_| is_number)?, per_ms))
    });
    let Some((events, per_ms)) = parts else {
        let message = format!("{what} is `{}`{}, which is not a rate", shown(given), of_setting(node));
        let help = "events and the time for them, without spaces: `1/500ms`, `100/1m`".to_owned();
        report.problem(codes::WRONG_TYPE, node.at, message, Some(help));
        return None;
    };
    if !(1..=MAX_RATE_EVENTS).contains(&events) || per_ms > MAX_WITHIN_MS {
        let longest = format_duration_ms(MAX_WITHIN_MS);
        let message = format!("{what} is {given}{}, it must be 1 to {MAX_RATE_EVENTS} events in at most {longest}", of_setting(node));
        report.problem(codes::RANGE, node.at, message, None);
        return None;
    }
    let interval_us = per_ms * 1_000 / events;
    if interval_us == 0 {
        let message = format!("{what} is {given}{}, one event in a microsecond is the fastest", of_setting(node));
        report.problem(codes::RANGE, node.at, message, None);
        return None;
    }
    Some(interval_us)
}

/// One of a few words.
pub fn word<T: Copy>(node: &Node, what: &str, words: &[(&'static str, T)], report: &mut Report<'_>) -> Option<T> {
    let given = text(node, what, report)?;
    let found = words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value);
    if found.is_none() {
        let message = format!("{what} is `{given}`{}, which it cannot be", of_setting(node));
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let near = crate::diagnostic::nearest(given, all.iter().copied()).map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
        report.problem(codes::UNKNOWN_WORD, node.at, message, Some(format!("{near}one of: {}", all.join(", "))));
    }
    found
}

/// Points, 0 to 100.
pub fn points(node: &Node, what: &str, report: &mut Report<'_>) -> Option<u8> {
    whole(node, what, 0..=100, report).and_then(|n| u8::try_from(n).ok())
}

/// A number with at most three decimals, in thousandths; `range` is in thousandths, too.
pub fn thousandths(node: &Node, what: &str, range: RangeInclusive<u32>, report: &mut Report<'_>) -> Option<u32> {
    let given = match node.value {
        Tree::Int(number) => number as f64,
        Tree::Float(number) => number,
        _ => {
            wrong_type(node, what, "a number", report);
            return None;
        }
    };
    let scaled = (given * 1_000.0).round();
    let found = (scaled >= 0.0 && scaled <= f64::from(u32::MAX)).then_some(scaled as u32).filter(|n| range.contains(n));
    if found.is_none() {
        let (least, most) = (f64::from(*range.start()) / 1_000.0, f64::from(*range.end()) / 1_000.0);
        report.problem(codes::RANGE, node.at, format!("{what} is {given}{}, it must be {least} to {most}", of_setting(node)), None);
    }
    found
}

/// A name: letters, digits and `allowed`, starting with a letter, at most 100 bytes.
pub fn name<'n>(node: &'n Node, what: &str, report: &mut Report<'_>) -> Option<&'n str> {
    let name = text(node, what, report)?;
    check_name(name, node.at, what, report).then_some(name)
}

/// Whether `name` is spelled as a name; reports it if not.
pub fn check_name(name: &str, at: Place, what: &str, report: &mut Report<'_>) -> bool {
    let good = name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if !good {
        let help = "a letter first, then letters, digits, `_`, `-` and `.`; at most 100".to_owned();
        report.problem(codes::NAME, at, format!("{what} is spelled `{}`", shown(name)), Some(help));
    }
    good
}

/// At most 60 characters of a text, for messages.
pub fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}
