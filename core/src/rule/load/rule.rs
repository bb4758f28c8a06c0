//! One rule document.

use super::codes;
use super::detect::{read_detector, read_signal};
use super::fields::{Fields, Keys, check_name, list, map, name, not_yet, shown, text, whole, word};
use super::pack::flag_index;
use super::report::Report;
use super::tree::{Node, Tree};
use crate::event::FIELDS;
use crate::expr::{Expr, Scope};
use crate::hash;
use crate::rule::{Detector, FlagDecl, Mode, Rule};
use crate::value::Type;

/// The most `let`s of one rule.
const MAX_LETS: usize = 64;
/// The most sub-keys per entity that a rule may keep.
pub const MAX_PER: i64 = 4_096;
/// The sub-keys kept unless the rule says otherwise.
pub const DEFAULT_PER: usize = 64;

/// The keys of a rule.
pub const RULE: Keys = Keys {
    what: "a rule",
    known: &[
        "schema", "kind", "id", "version", "state", "title", "status", "mode", "flag", "meta", "on", "let", "when", "by", "per", "per_max",
        "detect", "signal",
    ],
    later: &["except", "tests", "rollout"],
};
/// The keys of `meta`.
pub const META: Keys = Keys {
    what: "`meta`",
    known: &["owner", "goal", "rationale", "blind_spots", "false_positives", "runbook", "tags", "review_by"],
    later: &[],
};
/// The words of `mode`.
pub const MODES: [(&str, Mode); 5] =
    [("off", Mode::Off), ("shadow", Mode::Shadow), ("signal", Mode::Signal), ("alert", Mode::Alert), ("enforce", Mode::Enforce)];
const STATUSES: [(&str, ()); 4] = [("experimental", ()), ("test", ()), ("stable", ()), ("deprecated", ())];
const LATER_BY: [&str; 8] = ["user", "ip", "net24", "device", "session", "tenant", "route", "asn"];
const U32: std::ops::RangeInclusive<i64> = 1..=u32::MAX as i64;

/// What a rule may lean on.
#[derive(Debug, Clone, Copy)]
pub struct Pack<'p> {
    /// The declared flags.
    pub flags: &'p [FlagDecl],
    /// The declared lists; no `let`s.
    pub scope: &'p Scope,
}

/// Reads a rule. `None` when a problem was reported.
pub fn read_rule(document: &Node, pack: Pack<'_>, report: &mut Report<'_>) -> Option<Rule> {
    let fields = Fields::open(document, &RULE, report)?;
    let id = fields.need("id", report).and_then(|n| rule_id(n, report));
    let version = fields.need("version", report).and_then(|n| whole(n, "`version`", U32, report));
    let state = fields.get("state").map_or(Some(1), |n| whole(n, "`state`", U32, report));
    let title = fields.need("title", report).and_then(|n| text(n, "`title`", report));
    let status = fields.get("status").map_or(Some(()), |n| word(n, "`status`", &STATUSES, report));
    let mode = fields.get("mode").map_or(Some(Mode::Shadow), |n| word(n, "`mode`", &MODES, report));
    let flag = fields.get("flag").map_or(Some(None), |n| flag_index(n, pack.flags, report).map(Some));
    let meta = fields.get("meta").map_or(Some(()), |n| check_meta(n, report));
    let on = fields.need("on", report).and_then(|n| name(n, "`on`", report)).map(|on| (on != "any").then(|| on.to_owned()));
    if let Some(node) = fields.get("by") {
        check_by(node, report);
    }
    let scope = read_lets(&fields, pack.scope, report);
    let when = fields.get("when").map_or(Some(None), |n| predicate(n, scope.as_ref()?, report).map(Some));
    let per = fields.get("per").map_or(Some(None), |n| expression(n, "`per`", scope.as_ref()?, report).map(Some));
    let per_max = fields.get("per_max").map_or(Some(DEFAULT_PER as i64), |n| whole(n, "`per_max`", 1..=MAX_PER, report));
    let detector = fields.need("detect", report).and_then(|n| read_detector(n, report));
    if fields.get("per_max").is_some() && fields.get("per").is_none() {
        report.problem(
            codes::CONTRADICTION,
            fields.key_at("per_max"),
            "`per_max` bounds the sub-keys of `per`, and there is no `per`",
            None,
        );
    }
    let signal = fields.need("signal", report).and_then(|n| read_signal(n, detector, scope.as_ref(), report));
    let cools_down = signal.as_ref().is_none_or(|s| s.once_per_ms > 0);
    if detector == Some(Detector::Match) && fields.get("per").is_some() && !cools_down {
        report.problem(
            codes::CONTRADICTION,
            fields.key_at("per"),
            "a `match` without `once_per` remembers nothing that could be kept `per` sub-key",
            None,
        );
    }
    let id = id?;
    meta.and(status)?;
    Some(Rule {
        id: id.to_owned(),
        version: u32::try_from(version?).ok()?,
        title: title?.to_owned(),
        mode: mode?,
        flag: flag?,
        on: on?,
        when: when?,
        per: per?,
        per_max: usize::try_from(per_max?).ok()?,
        detector: detector?,
        signal: signal?,
        slot: hash::short(format!("{id}#{}", state?).as_bytes()),
    })
}

fn rule_id<'n>(node: &'n Node, report: &mut Report<'_>) -> Option<&'n str> {
    let id = text(node, "`id`", report)?;
    let part = |p: &str| {
        p.starts_with(|c: char| c.is_ascii_lowercase()) && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if id.len() > 100 || !id.contains('.') || !id.split('.').all(part) {
        let help = "`area.name-with-dashes`: small letters, digits and `-`, parts joined by `.`, at most 100".to_owned();
        report.problem(codes::NAME, node.at, format!("a rule's id is spelled `{}`", shown(id)), Some(help));
        return None;
    }
    Some(id)
}

fn check_meta(node: &Node, report: &mut Report<'_>) -> Option<()> {
    let fields = Fields::open(node, &META, report)?;
    for key in ["owner", "goal", "rationale", "runbook", "review_by"] {
        if let Some(value) = fields.get(key) {
            text(value, &format!("`{key}`"), report)?;
        }
    }
    for key in ["blind_spots", "false_positives", "tags"] {
        if let Some(value) = fields.get(key) {
            for item in list(value, &format!("`{key}`"), report)? {
                text(item, &format!("an entry of `{key}`"), report)?;
            }
        }
    }
    Some(())
}

fn check_by(node: &Node, report: &mut Report<'_>) {
    match &node.value {
        Tree::List(_) => not_yet(node.at, "`by` with several fields", report),
        Tree::Text(given) if LATER_BY.contains(&given.as_str()) => not_yet(node.at, &format!("`by: {given}`"), report),
        _ => _ = word(node, "`by`", &[("actor", ())], report),
    }
}

/// The scope of a rule's expressions; `None` when a `let` is wrong, so that its uses are not reported as well.
fn read_lets(fields: &Fields<'_>, pack: &Scope, report: &mut Report<'_>) -> Option<Scope> {
    let mut scope = pack.clone();
    let Some(node) = fields.get("let") else { return Some(scope) };
    let entries = map(node, "`let`", report)?;
    if entries.len() > MAX_LETS {
        report.problem(codes::LIMIT, node.at, format!("{} lets, at most {MAX_LETS} are allowed", entries.len()), None);
        return None;
    }
    let mut good = true;
    for entry in entries {
        let taken = FIELDS.iter().any(|f| f.name == entry.key)
            || ["lists", "headers", "data", "has", "true", "false", "null", "in"].contains(&entry.key.as_str());
        if taken {
            report.problem(codes::NAME, entry.at, format!("`{}` is the name of a field, a `let` cannot hide it", entry.key), None);
            good = false;
        } else if !check_name(&entry.key, entry.at, "a `let`", report) || entry.key.contains(['-', '.']) {
            good = false;
            report.problem(codes::NAME, entry.at, "the name of a `let` has letters, digits and `_` only", None);
        }
        match expression_text(&entry.value, "a `let`", report) {
            Some(source) => _ = scope.lets.insert(entry.key.clone(), source),
            None => good = false,
        }
    }
    for entry in entries {
        good &= good && expression(&entry.value, "a `let`", &scope, report).is_some();
    }
    good.then_some(scope)
}

/// An expression that is true or false.
fn predicate(node: &Node, scope: &Scope, report: &mut Report<'_>) -> Option<Expr> {
    let expr = expression(node, "`when`", scope, report)?;
    if !matches!(expr.ty(), Type::Bool | Type::Any) {
        let message = format!("`when` must be true or false, this is of type {}", expr.ty().name());
        report.problem(codes::EXPRESSION, node.at, message, Some("compare it with something".into()));
        return None;
    }
    Some(expr)
}

/// Compiles an expression; its problems stand where they are inside the scalar.
pub fn expression(node: &Node, what: &str, scope: &Scope, report: &mut Report<'_>) -> Option<Expr> {
    let source = expression_text(node, what, report)?;
    match Expr::compile(&source, scope) {
        Ok(expr) => Some(expr),
        Err(error) => {
            let at = if node.setting.is_some() { node.at } else { report.inside(node.at, &source, error.offset) };
            report.problem(codes::EXPRESSION, at, format!("{what}: {}", error.message), error.help);
            None
        }
    }
}

/// The text of an expression; YAML reads `when: true` and `limit: 3` as what they are.
fn expression_text(node: &Node, what: &str, report: &mut Report<'_>) -> Option<String> {
    match &node.value {
        Tree::Bool(value) => Some(value.to_string()),
        Tree::Int(value) => Some(value.to_string()),
        _ => text(node, what, report).map(str::to_owned),
    }
}
