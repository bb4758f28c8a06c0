//! `detect` and `signal` of a rule.

use super::codes;
use super::fields::{Fields, Keys, duration, map, name, not_yet, points, shown, text, thousandths, truth, whole, word};
use super::pack::{CATEGORIES, SEVERITIES};
use super::report::{Report, did_you_mean};
use super::rule::expression;
use super::tree::{Entry, Node, Tree};
use crate::detectors::{Detector, MAX_WITHIN_MS, REGISTRY, Row};
use crate::expr::Scope;
use crate::rule::{Recorded, Rhythm, Signal, SignalType};
use crate::score::Axis;

/// The most values recorded with a decision.
const MAX_METADATA: usize = 64;

/// Detectors of the format that this version does not have yet.
pub const LATER: [&str; 3] = ["baseline", "drift", "travel"];
/// The keys of `signal`.
pub const SIGNAL: Keys = Keys {
    what: "`signal`",
    known: &[
        "type",
        "type_from",
        "category",
        "severity",
        "points",
        "axis",
        "family",
        "half_life",
        "confidence",
        "discounts",
        "certain",
        "user_message",
        "internal_message",
        "once_per",
        "status_code",
        "resource",
        "metadata",
        "metadata_from",
    ],
    later: &[],
};

/// The longest half-life: 90 days.
const MAX_HALF_LIFE_MS: i64 = 90 * 86_400_000;

/// What the package says to the user unless a detector says otherwise.
pub const DEFAULT_USER_MESSAGE: &str = "Suspicious activity detected.";

/// Reads `detect`: exactly one detector. `scope` is `None` when a `let` is wrong.
pub fn read_detector(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    let entries = map(node, "`detect`", report)?;
    let mut found: Option<(&Entry, &Row)> = None;
    for entry in entries {
        let key = entry.key.as_str();
        match (REGISTRY.iter().find(|row| row.name == key), found) {
            (Some(_), Some(_)) => {
                let help = "write a rule for each".to_owned();
                report.problem(codes::CONTRADICTION, entry.at, "`detect` holds exactly one detector", Some(help));
                return None;
            }
            (Some(row), None) => found = Some((entry, row)),
            (None, _) if LATER.contains(&key) => {
                not_yet(entry.at, &format!("`{key}` in `detect`"), report);
                return None;
            }
            (None, _) => {
                let help = did_you_mean(key, REGISTRY.iter().map(|row| row.name));
                report.problem(codes::UNKNOWN_KEY, entry.at, format!("unknown key `{}` in `detect`", shown(key)), help);
                return None;
            }
        }
    }
    match found {
        Some((entry, row)) => (row.read)(&entry.value, scope, report),
        None => {
            let help = "`match: {}` or `count: {at_least: 5, within: 1m}`".to_owned();
            report.problem(codes::MISSING_KEY, node.at, "`detect` names no detector", Some(help));
            None
        }
    }
}

/// Reads `signal`. `scope` is `None` when a `let` is wrong: expressions are then not looked at.
pub fn read_signal(node: &Node, detector: Option<&dyn Detector>, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Signal> {
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
    let has_edge = detector.is_none_or(|detector| detector.rhythm() == Rhythm::Edge && detector.cools_down());
    if fields.get("once_per").is_some() && !has_edge {
        let message = "`once_per` goes with a rule that fires on the edge and does not rest by itself";
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
    let category = fields.get("category").map_or(Some(None), |n| word(n, "`category`", &CATEGORIES, report).map(Some));
    let severity = fields.get("severity").map_or(Some(None), |n| word(n, "`severity`", &SEVERITIES, report).map(Some));
    let points = fields.get("points").map_or(Some(None), |n| points(n, "`points`", report).map(Some));
    let evidence = read_evidence(&fields, report);
    let confidence = fields.get("confidence").map_or(Some(None), |n| thousandths(n, "`confidence`", 0..=1_000, report).map(Some));
    let discounts = fields.get("discounts").map_or(Some(false), |n| truth(n, "`discounts`", report));
    if discounts == Some(true) && fields.get("confidence").is_none() {
        let help = "write `confidence: 0.8`".to_owned();
        report.problem(
            codes::CONTRADICTION,
            fields.key_at("discounts"),
            "`discounts` multiplies the points by the `confidence`, and there is none",
            Some(help),
        );
    }
    let certain = fields.get("certain").map_or(Some(false), |n| truth(n, "`certain`", report));
    let Evidence { axis, family, half_life_ms } = evidence?;
    Some(Signal {
        category: category?,
        severity: severity?,
        points: points?,
        axis,
        family,
        half_life_ms,
        confidence: confidence?,
        discounts: discounts?,
        certain: certain?,
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

/// What a signal or a profile says about its evidence.
pub struct Evidence {
    /// `axis`.
    pub axis: Option<Axis>,
    /// `family`.
    pub family: Option<String>,
    /// `half_life`, milliseconds.
    pub half_life_ms: Option<i64>,
}

/// Reads `axis`, `family` and `half_life`.
pub fn read_evidence(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Evidence> {
    let axis = fields.get("axis").map_or(Some(None), |n| word(n, "`axis`", &Axis::WORDS, report).map(Some));
    let family = fields.get("family").map_or(Some(None), |n| name(n, "`family`", report).map(|family| Some(family.to_owned())));
    let half_life_ms = fields.get("half_life").map_or(Some(None), |n| duration(n, "`half_life`", MAX_HALF_LIFE_MS, report).map(Some));
    Some(Evidence { axis: axis?, family: family?, half_life_ms: half_life_ms? })
}

fn read_metadata(
    node: &Node,
    detector: Option<&dyn Detector>,
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

fn read_recorded(
    entry: &Entry,
    detector: Option<&dyn Detector>,
    scope: Option<&Scope>,
    report: &mut Report<'_>,
) -> Option<(String, Recorded)> {
    let recorded = match &entry.value.value {
        Tree::Text(variable) if variable.starts_with('$') => {
            let known = [("$count", Recorded::Count), ("$window_seconds", Recorded::WindowSeconds), ("$value", Recorded::Value)];
            let words = known.iter().map(|(word, _)| *word).collect::<Vec<_>>();
            let Some((word, found)) = known.into_iter().find(|(word, _)| word == variable) else {
                let help = did_you_mean(variable, words.into_iter());
                report.problem(codes::UNKNOWN_WORD, entry.value.at, format!("unknown value `{}` in `metadata`", shown(variable)), help);
                return None;
            };
            if let Some(detector) = detector
                && !detector.variables().contains(&word)
            {
                report.problem(codes::CONTRADICTION, entry.value.at, format!("`{}` has no `{variable}`", detector.name()), None);
                return None;
            }
            found
        }
        _ => Recorded::Expr(expression(&entry.value, "a value of `metadata`", scope?, report)?),
    };
    Some((entry.key.clone(), recorded))
}
