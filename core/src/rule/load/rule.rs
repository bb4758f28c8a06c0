//! One rule document.

use super::cases::{Tested, read_cases};
use super::codes;
use super::detect::{read_detector, read_signal};
use super::fields::{Fields, Keys, list, map, name, not_yet, shown, text, truth, whole, word};
use super::pack::flag_index;
use super::report::Report;
use super::tree::{Node, Tree};
use crate::detectors::Detector;
use crate::entity::{EntityKind, MAX_PARTS, PARTS};
use crate::expr::{Expr, Scope, name_problem};
use crate::hash;
use crate::rule::{By, Effect, Exception, FlagDecl, Meta, Mode, Rule, Signal};
use crate::time;
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
        "schema",
        "kind",
        "id",
        "version",
        "state",
        "title",
        "status",
        "mode",
        "flag",
        "meta",
        "on",
        "let",
        "when",
        "by",
        "per",
        "per_max",
        "detect",
        "signal",
        "except",
        "include_own_blocks",
        "tests",
    ],
    later: &["rollout"],
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
/// The most exceptions of one rule.
const MAX_EXCEPTIONS: usize = 64;
/// The keys of an exception.
pub const EXCEPTION: Keys = Keys { what: "an exception", known: &["id", "when", "effect", "owner", "reason", "expires"], later: &[] };
const EFFECTS: [(&str, Effect); 3] = [("ignore", Effect::Ignore), ("count_only", Effect::CountOnly), ("no_action", Effect::NoAction)];
const LATER_BY: [&str; 2] = ["route", "asn"];
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
    let meta = fields.get("meta").map_or(Some(Meta::default()), |n| read_meta(n, report));
    let on = fields.need("on", report).and_then(|n| name(n, "`on`", report)).map(|on| (on != "any").then(|| on.to_owned()));
    let by = fields.get("by").map_or(Some(By::Actor), |n| read_by(n, report));
    let include_own_blocks = fields.get("include_own_blocks").map_or(Some(false), |n| truth(n, "`include_own_blocks`", report));
    let scope = read_lets(&fields, pack.scope, report);
    let when = fields.get("when").map_or(Some(None), |n| predicate(n, scope.as_ref()?, report).map(Some));
    let per = fields.get("per").map_or(Some(None), |n| expression(n, "`per`", scope.as_ref()?, report).map(Some));
    let per_max = fields.get("per_max").map_or(Some(DEFAULT_PER as i64), |n| whole(n, "`per_max`", 1..=MAX_PER, report));
    let detector = fields.need("detect", report).and_then(|n| read_detector(n, scope.as_ref(), report));
    let exceptions = fields.get("except").map_or(Some(Vec::new()), |n| read_exceptions(n, scope.as_ref(), report));
    if fields.get("per_max").is_some() && fields.get("per").is_none() {
        report.problem(
            codes::CONTRADICTION,
            fields.key_at("per_max"),
            "`per_max` bounds the sub-keys of `per`, and there is no `per`",
            None,
        );
    }
    let signal = fields.need("signal", report).and_then(|n| read_signal(n, detector.as_deref(), scope.as_ref(), report));
    let cools_down = signal.as_ref().is_none_or(|s| s.once_per_ms > 0);
    if detector.as_ref().is_some_and(|d| d.memory().is_none()) && fields.get("per").is_some() && !cools_down {
        report.problem(
            codes::CONTRADICTION,
            fields.key_at("per"),
            "a `match` without `once_per` remembers nothing that could be kept `per` sub-key",
            None,
        );
    }
    let tests = fields.get("tests").map_or(Some(Vec::new()), |n| {
        let fires_on_time = detector.as_ref()?.due().is_some();
        read_cases(n, Tested { on: on.as_ref()?.as_deref(), by: by?, fires_on_time, flags: pack.flags }, report)
    });
    let bound = detector.as_deref().zip(signal.as_ref()).zip(per.as_ref()).zip(per_max);
    if let Some((((detector, signal), per), per_max)) = bound {
        check_cost(&fields, detector, signal, per.as_ref().map_or(1, |_| usize::try_from(per_max).unwrap_or(usize::MAX)), report);
    }
    let id = id?;
    status?;
    Some(Rule {
        id: id.to_owned(),
        version: u32::try_from(version?).ok()?,
        title: title?.to_owned(),
        mode: mode?,
        flag: flag?,
        on: on?,
        when: when?,
        by: by?,
        exceptions: exceptions?,
        include_own_blocks: include_own_blocks?,
        meta: meta?,
        per: per?,
        per_max: usize::try_from(per_max?).ok()?,
        detector: detector?,
        signal: signal?,
        tests: tests?,
        slot: hash::short(format!("{id}#{}", state?).as_bytes()),
    })
}

/// A rule that may remember more of one entity than is sane is a problem: the figure says what to lower.
fn check_cost(fields: &Fields<'_>, detector: &dyn Detector, signal: &Signal, sub_keys: usize, report: &mut Report<'_>) {
    let bytes = crate::lint::cost::bytes(detector, signal.once_per_ms, sub_keys);
    if bytes > crate::lint::cost::MAX_RULE_BYTES {
        let message =
            format!("the rule may remember {bytes} bytes of one entity, at most {} are allowed", crate::lint::cost::MAX_RULE_BYTES);
        let help = "lower `per_max` or the detector's threshold".to_owned();
        report.problem(codes::LIMIT, fields.key_at("detect"), message, Some(help));
    }
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

fn read_meta(node: &Node, report: &mut Report<'_>) -> Option<Meta> {
    let fields = Fields::open(node, &META, report)?;
    let mut line = |key: &str| fields.get(key).map_or(Some(String::new()), |n| text(n, &format!("`{key}`"), report).map(str::to_owned));
    let (owner, goal, rationale) = (line("owner"), line("goal"), line("rationale"));
    let (runbook, review_by) = (line("runbook"), line("review_by"));
    let mut lines = |key: &str| {
        let Some(node) = fields.get(key) else { return Some(Vec::new()) };
        let items = list(node, &format!("`{key}`"), report)?;
        items.iter().map(|item| text(item, &format!("an entry of `{key}`"), report).map(str::to_owned)).collect()
    };
    let (blind_spots, false_positives, tags) = (lines("blind_spots"), lines("false_positives"), lines("tags"));
    Some(Meta {
        owner: owner?,
        goal: goal?,
        rationale: rationale?,
        blind_spots: blind_spots?,
        false_positives: false_positives?,
        runbook: runbook?,
        tags: tags?,
        review_by: review_by?,
    })
}

/// `actor`, a kind, or a list of kinds that make a composite.
fn read_by(node: &Node, report: &mut Report<'_>) -> Option<By> {
    let words: Vec<&Node> = match &node.value {
        Tree::List(items) => items.iter().collect(),
        _ => vec![node],
    };
    let mut parts = Vec::new();
    for &item in &words {
        match text(item, "`by`", report)? {
            "actor" if words.len() == 1 => return Some(By::Actor),
            given if LATER_BY.contains(&given) => {
                not_yet(item.at, &format!("`by: {given}`"), report);
                return None;
            }
            _ => parts.push(word(item, "`by`", &PARTS, report)?),
        }
    }
    let kind = EntityKind::of(&parts);
    if kind.is_none() {
        let message = format!("`by` takes one to {MAX_PARTS} different kinds");
        report.problem(codes::RANGE, node.at, message, Some("such as `by: [tenant, user]`".into()));
    }
    kind.map(By::Kind)
}

fn read_exceptions(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Vec<Exception>> {
    let items = list(node, "`except`", report)?;
    if items.len() > MAX_EXCEPTIONS {
        report.problem(codes::LIMIT, node.at, format!("{} exceptions, at most {MAX_EXCEPTIONS} are allowed", items.len()), None);
        return None;
    }
    let mut exceptions: Vec<Exception> = Vec::new();
    let mut good = true;
    for item in items {
        match read_exception(item, scope, report) {
            Some(exception) if exceptions.iter().any(|e| e.id == exception.id) => {
                report.problem(codes::DUPLICATE, item.at, format!("two exceptions have the id `{}`", exception.id), None);
                good = false;
            }
            Some(exception) => exceptions.push(exception),
            None => good = false,
        }
    }
    good.then_some(exceptions)
}

fn read_exception(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Exception> {
    let fields = Fields::open(node, &EXCEPTION, report)?;
    let id = fields.need("id", report).and_then(|n| name(n, "`id` of an exception", report));
    let when = fields.need("when", report).and_then(|n| predicate(n, scope?, report));
    let effect = fields.get("effect").map_or(Some(Effect::Ignore), |n| word(n, "`effect`", &EFFECTS, report));
    for key in ["owner", "reason"] {
        fields.need(key, report).and_then(|n| text(n, &format!("`{key}`"), report))?;
    }
    let expires_ms = fields.get("expires").map_or(Some(None), |n| day(n, "`expires`", report).map(Some));
    Some(Exception { id: id?.to_owned(), when: when?, effect: effect?, expires_ms: expires_ms? })
}

/// The end of a day written `2027-01-31`, in UTC.
fn day(node: &Node, what: &str, report: &mut Report<'_>) -> Option<i64> {
    let given = text(node, what, report)?;
    let end = time::parse_rfc3339_ms(&format!("{given}T00:00:00Z")).map(|start| start + 86_400_000);
    if end.is_none() {
        let message = format!("{what} is `{}`, which is not a day", shown(given));
        report.problem(codes::WRONG_TYPE, node.at, message, Some("such as `2027-01-31`".into()));
    }
    end
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
        let hidden = pack.lets.contains_key(&entry.key).then(|| format!("`{}` is the name of a predicate", shown(&entry.key)));
        if let Some(problem) = hidden.or_else(|| name_problem(&entry.key)) {
            report.problem(codes::NAME, entry.at, format!("{problem}, a `let` cannot hide it"), None);
            good = false;
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
pub fn predicate(node: &Node, scope: &Scope, report: &mut Report<'_>) -> Option<Expr> {
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
pub fn expression_text(node: &Node, what: &str, report: &mut Report<'_>) -> Option<String> {
    match &node.value {
        Tree::Bool(value) => Some(value.to_string()),
        Tree::Int(value) => Some(value.to_string()),
        _ => text(node, what, report).map(str::to_owned),
    }
}
