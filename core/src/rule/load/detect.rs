//! `detect` and `signal` of a rule.

use super::codes;
use super::fields::{Fields, Keys, duration, map, name, of_setting, shown, text, truth, whole, word};
use super::report::{Report, did_you_mean};
use super::rule::expression;
use super::tree::{Entry, Node, Tree};
use crate::expr::Scope;
use crate::rule::{Detector, Firing, Recorded, Signal, SignalType, Window};

/// The longest window and the longest `once_per`.
pub const MAX_WITHIN_MS: i64 = 366 * 86_400_000;
/// The highest threshold of a sliding window, which is exact.
pub const MAX_SLIDING: i64 = 64;
/// The highest threshold of a fixed window.
pub const MAX_FIXED: i64 = 1_000_000;
/// The most values recorded with a decision.
const MAX_METADATA: usize = 64;

/// The detectors that exist, and those of the format that do not yet.
pub const DETECT: Keys = Keys {
    what: "`detect`",
    known: &["match", "count"],
    later: &["rate", "distinct", "sum", "ratio", "sequence", "first_seen", "baseline", "drift", "travel", "score"],
};
/// The keys of `match`.
pub const MATCH: Keys = Keys { what: "`match`", known: &[], later: &[] };
/// The keys of `count`.
pub const COUNT: Keys = Keys { what: "`count`", known: &["at_least", "within", "window", "firing"], later: &["all_of", "any_of"] };
/// The keys of `signal`.
pub const SIGNAL: Keys = Keys {
    what: "`signal`",
    known: &["type", "type_from", "user_message", "internal_message", "once_per", "status_code", "resource", "metadata", "metadata_from"],
    later: &["axis", "family", "category", "severity", "points", "confidence", "half_life", "certain"],
};

/// What the package says to the user unless a detector says otherwise.
pub const DEFAULT_USER_MESSAGE: &str = "Suspicious activity detected.";

/// Reads `detect`: exactly one detector.
pub fn read_detector(node: &Node, report: &mut Report<'_>) -> Option<Detector> {
    Fields::open(node, &DETECT, report)?;
    let detectors: Vec<&Entry> = map(node, "`detect`", report)?.iter().filter(|e| DETECT.known.contains(&e.key.as_str())).collect();
    match detectors.as_slice() {
        [one] if one.key == "match" => read_match(&one.value, report),
        [one] => read_count(&one.value, report),
        [] => {
            if !map(node, "`detect`", report)?.iter().any(|e| DETECT.later.contains(&e.key.as_str())) {
                report.problem(
                    codes::MISSING_KEY,
                    node.at,
                    "`detect` names no detector",
                    Some("`match: {}` or `count: {at_least: 5, within: 1m}`".into()),
                );
            }
            None
        }
        [_, second, ..] => {
            report.problem(codes::CONTRADICTION, second.at, "`detect` holds exactly one detector", Some("write a rule for each".into()));
            None
        }
    }
}

fn read_match(node: &Node, report: &mut Report<'_>) -> Option<Detector> {
    match node.value {
        Tree::Null => Some(Detector::Match),
        _ => Fields::open(node, &MATCH, report).map(|_| Detector::Match),
    }
}

fn read_count(node: &Node, report: &mut Report<'_>) -> Option<Detector> {
    let fields = Fields::open(node, &COUNT, report)?;
    let within_ms = fields.need("within", report).and_then(|n| duration(n, "`within`", MAX_WITHIN_MS, report));
    let window = fields
        .get("window")
        .map_or(Some(Window::Sliding), |n| word(n, "`window`", &[("sliding", Window::Sliding), ("fixed", Window::Fixed)], report));
    let firing = fields
        .get("firing")
        .map_or(Some(Firing::Edge), |n| word(n, "`firing`", &[("edge", Firing::Edge), ("every", Firing::Every)], report));
    let at_least = fields.need("at_least", report).and_then(|n| at_least(n, window?, report));
    Some(Detector::Count { at_least: at_least?, within_ms: within_ms?, window: window?, firing: firing? })
}

fn at_least(node: &Node, window: Window, report: &mut Report<'_>) -> Option<u32> {
    let limit = match window {
        Window::Sliding => MAX_SLIDING,
        Window::Fixed => MAX_FIXED,
    };
    match node.value {
        Tree::Int(given) if given > limit && window == Window::Sliding => {
            let message = format!("`at_least` is {given}{}, a sliding window is exact up to {MAX_SLIDING}", of_setting(node));
            report.problem(codes::RANGE, node.at, message, Some("write `window: fixed` for a higher threshold".into()));
            None
        }
        Tree::Int(given) if given < 1 => {
            let message = format!("`at_least` is {given}{}, it must be 1 to {limit}", of_setting(node));
            report.problem(codes::RANGE, node.at, message, Some("1 fires on every event that passes `when`".into()));
            None
        }
        _ => whole(node, "`at_least`", 1..=limit, report).and_then(|n| u32::try_from(n).ok()),
    }
}

/// Reads `signal`. `scope` is `None` when a `let` is wrong: expressions are then not looked at.
pub fn read_signal(node: &Node, detector: Option<Detector>, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Signal> {
    let fields = Fields::open(node, &SIGNAL, report)?;
    let ty = match (fields.get("type"), fields.get("type_from")) {
        (Some(named), None) => name(named, "`type`", report).map(|n| SignalType::Named(n.to_owned())),
        (None, Some(from)) => word(from, "`type_from`", &[("anomaly_type", ())], report).map(|()| SignalType::Reported),
        (Some(_), Some(_)) => {
            report.problem(codes::CONTRADICTION, fields.key_at("type_from"), "`type` and `type_from` exclude each other", None);
            None
        }
        (None, None) => fields.need("type", report).and(None),
    };
    let user_message = fields.get("user_message").map_or(Some(DEFAULT_USER_MESSAGE), |n| text(n, "`user_message`", report));
    let internal_message = fields.get("internal_message").map_or(Some(""), |n| text(n, "`internal_message`", report));
    let once_per_ms = fields.get("once_per").map_or(Some(0), |n| duration(n, "`once_per`", MAX_WITHIN_MS, report));
    let has_edge = !matches!(detector, Some(Detector::Count { window: Window::Fixed, .. } | Detector::Count { firing: Firing::Every, .. }));
    if fields.get("once_per").is_some() && !has_edge {
        let message = "`once_per` goes with `match`, and with a `count` over a sliding window that fires on the edge";
        report.problem(
            codes::CONTRADICTION,
            fields.key_at("once_per"),
            message,
            Some("this rule fires on every event, or once per fixed window".into()),
        );
    }
    let status_code = fields.get("status_code").map_or(Some(None), |n| whole(n, "`status_code`", 100..=599, report).map(Some));
    let resource = fields.get("resource").map_or(Some(true), |n| truth(n, "`resource`", report));
    let metadata = fields.get("metadata").map_or(Some(Vec::new()), |n| read_metadata(n, detector, scope, report));
    let metadata_from_data = fields.get("metadata_from").map_or(Some(false), |n| word(n, "`metadata_from`", &[("data", true)], report));
    Some(Signal {
        ty: ty?,
        user_message: user_message?.to_owned(),
        internal_message: internal_message?.to_owned(),
        once_per_ms: once_per_ms?,
        status_code: status_code?,
        resource: resource?,
        metadata: metadata?,
        metadata_from_data: metadata_from_data?,
    })
}

fn read_metadata(
    node: &Node,
    detector: Option<Detector>,
    scope: Option<&Scope>,
    report: &mut Report<'_>,
) -> Option<Vec<(String, Recorded)>> {
    let entries = map(node, "`metadata`", report)?;
    if entries.len() > MAX_METADATA {
        report.problem(codes::LIMIT, node.at, format!("{} values in `metadata`, at most {MAX_METADATA} are allowed", entries.len()), None);
        return None;
    }
    let recorded: Vec<_> = entries.iter().map(|entry| read_recorded(entry, detector, scope, report)).collect();
    recorded.into_iter().collect()
}

fn read_recorded(entry: &Entry, detector: Option<Detector>, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<(String, Recorded)> {
    let recorded = match &entry.value.value {
        Tree::Text(variable) if variable.starts_with('$') => {
            let found = match variable.as_str() {
                "$count" => Recorded::Count,
                "$window_seconds" => Recorded::WindowSeconds,
                other => {
                    let help = did_you_mean(other, ["$count", "$window_seconds"].into_iter());
                    report.problem(codes::UNKNOWN_WORD, entry.value.at, format!("unknown value `{}` in `metadata`", shown(other)), help);
                    return None;
                }
            };
            if detector == Some(Detector::Match) {
                report.problem(codes::CONTRADICTION, entry.value.at, format!("`match` has no `{variable}`"), None);
                return None;
            }
            found
        }
        _ => Recorded::Expr(expression(&entry.value, "a value of `metadata`", scope?, report)?),
    };
    Some((entry.key.clone(), recorded))
}
