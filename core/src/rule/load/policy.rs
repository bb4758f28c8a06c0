//! The `policy` document: what is done about a score.
//!
//! A policy that cannot act as it is written is a problem here. What only looks wrong is lint's business.

use super::codes;
use super::fields::{Fields, Keys, duration, interval_us, list, name, points, thousandths, truth, whole, word};
use super::pack::flag_index;
use super::report::Report;
use super::rule::predicate;
use super::tree::{Node, Tree};
use crate::detectors::MAX_WITHIN_MS;
use crate::entity::{EntityKind, PARTS};
use crate::expr::Scope;
use crate::policy::{Action, ActionRow, Alerts, Allowed, Context, Decide, Policy, Sentence};
use crate::rule::FlagDecl;
use crate::score::Axis;

/// The longest lateness that may be allowed.
pub const MAX_LATENESS_MS: i64 = 86_400_000;
/// The most event ids that an entity remembers.
pub const MAX_REMEMBER_IDS: i64 = 64;
/// The most contexts of a policy.
pub const MAX_CONTEXTS: usize = 16;
/// The most families that an action may ask for.
const MAX_FAMILIES: i64 = 16;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// The keys of a `policy` document.
pub const POLICY: Keys = Keys {
    what: "a policy",
    known: &[
        "schema",
        "kind",
        "id",
        "version",
        "decide",
        "detection_flag",
        "actions",
        "precedence",
        "context",
        "allowed_lateness",
        "remember_ids",
        "client_address",
        "anon",
    ],
    later: &["guard"],
};
/// The keys of one action.
#[rustfmt::skip]
pub const ACTION: Keys = Keys {
    what: "an action",
    known: &[
        "do", "at", "leave", "flag", "families", "or_certain", "hold", "ttl", "grow", "max_ttl", "forget", "rate", "floor", "once_per",
        "resolve_after",
    ],
    later: &[],
};
/// The keys of one context.
pub const CONTEXT: Keys = Keys { what: "a context", known: &["id", "when", "times", "axis", "entity"], later: &[] };
/// Actions by their words.
pub const ACTIONS: [(&str, Action); 4] =
    [("alert", Action::Alert), ("throttle", Action::Throttle), ("step_up", Action::StepUp), ("block", Action::Block)];
/// Which keys of an action go with which actions, besides those that go with all; and whether they need `decide: per_event`.
const OWN: [(&str, &[Action]); 9] = [
    ("hold", &[Action::Throttle, Action::StepUp]),
    ("ttl", &[Action::Block]),
    ("grow", &[Action::Block]),
    ("max_ttl", &[Action::Block]),
    ("forget", &[Action::Block]),
    ("rate", &[Action::Throttle]),
    ("floor", &[Action::Throttle]),
    ("once_per", &[Action::Alert]),
    ("resolve_after", &[Action::Alert]),
];
/// Keys that mean something only where there is a score over time.
const OF_SCORES: [&str; 10] = ["leave", "families", "or_certain", "hold", "ttl", "grow", "max_ttl", "forget", "rate", "floor"];

/// A block: fifteen minutes, twice as long each time, a day at most, forgotten a week after it ended.
const DEFAULT_SENTENCE: Sentence = Sentence { ttl_ms: 15 * MINUTE_MS, grow: 2_000, max_ttl_ms: DAY_MS, forget_ms: 7 * DAY_MS };
/// One event per second, falling to one every ten seconds.
const DEFAULT_ALLOWED: Allowed = Allowed { from_us: 1_000_000, floor_us: 10_000_000 };

/// The policy of a pack that has none: alert from 50. Everything else must be written down.
pub fn default_policy() -> Policy {
    let alert = ActionRow {
        action: Action::Alert,
        at: 50,
        leave: 40,
        families: 1,
        or_certain: true,
        flag: None,
        hold_ms: 0,
        sentence: None,
        allowed: None,
    };
    Policy {
        id: "policy.default".into(),
        version: 1,
        decide: Decide::PerEvent,
        master_flag: None,
        actions: vec![alert],
        precedence: vec![Action::Block, Action::StepUp, Action::Throttle, Action::Alert],
        contexts: Vec::new(),
        alerts: Alerts { once_per_ms: 10 * MINUTE_MS, resolve_after_ms: HOUR_MS },
        allowed_lateness_ms: Some(30_000),
        remember_ids: 16,
        counts_anon: false,
        trust_forwarded_for: false,
    }
}

/// Reads a `policy` document. `scope` is what rules lean on.
pub fn read_policy(document: &Node, flags: &[FlagDecl], scope: &Scope, report: &mut Report<'_>) -> Option<Policy> {
    let defaults = default_policy();
    let fields = Fields::open(document, &POLICY, report)?;
    let id = fields.need("id", report).and_then(|n| name(n, "`id`", report));
    let version = fields.need("version", report).and_then(|n| whole(n, "`version`", 1..=i64::from(u32::MAX), report));
    let words = [("per_event", Decide::PerEvent), ("per_signal", Decide::PerSignal)];
    let decide = fields.get("decide").map_or(Some(Decide::PerEvent), |n| word(n, "`decide`", &words, report));
    let master_flag = fields.get("detection_flag").map(|n| flag_index(n, flags, report));
    let actions = fields.need("actions", report).and_then(|n| read_actions(n, flags, decide?, report));
    let precedence = match fields.get("precedence") {
        Some(node) => read_precedence(node, actions.as_ref().map_or(&[], |(rows, _)| rows), report),
        None => Some(defaults.precedence),
    };
    let contexts = fields.get("context").map_or(Some(Vec::new()), |n| read_contexts(n, scope, report));
    if fields.get("context").is_some() && decide == Some(Decide::PerSignal) {
        let message = "`context` weighs contributions to a score, and `decide: per_signal` has none";
        report.problem(codes::CONTRADICTION, fields.key_at("context"), message, None);
    }
    let allowed_lateness_ms = match fields.get("allowed_lateness") {
        Some(Node { value: Tree::Text(off), .. }) if off == "off" => Some(None),
        Some(Node { value: Tree::Text(zero), .. }) if zero == "0s" => Some(Some(0)),
        Some(node) => duration(node, "`allowed_lateness`", MAX_LATENESS_MS, report).map(Some),
        None => Some(defaults.allowed_lateness_ms),
    };
    let remember_ids = fields.get("remember_ids").map_or(Some(16), |n| whole(n, "`remember_ids`", 0..=MAX_REMEMBER_IDS, report));
    let counts_anon = fields.get("anon").map_or(Some(defaults.counts_anon), |n| truth(n, "`anon`", report));
    let trust_forwarded_for = match fields.get("client_address") {
        // As a setting it is the package's ANOMALY_TRUST_X_FORWARDED_FOR.
        Some(Node { value: Tree::Bool(trust), setting: Some(_), .. }) => Some(*trust),
        Some(node) => word(node, "`client_address`", &[("peer", false), ("first_forwarded_for", true)], report),
        None => Some(defaults.trust_forwarded_for),
    };
    let (actions, alerts) = actions?;
    Some(Policy {
        id: id?.to_owned(),
        version: u32::try_from(version?).ok()?,
        decide: decide?,
        master_flag: master_flag.map_or(Some(None), |index| index.map(Some))?,
        actions,
        precedence: precedence?,
        contexts: contexts?,
        alerts,
        allowed_lateness_ms: allowed_lateness_ms?,
        remember_ids: usize::try_from(remember_ids?).ok()?,
        counts_anon: counts_anon?,
        trust_forwarded_for: trust_forwarded_for?,
    })
}

fn read_actions(node: &Node, flags: &[FlagDecl], decide: Decide, report: &mut Report<'_>) -> Option<(Vec<ActionRow>, Alerts)> {
    let items = list(node, "`actions`", report)?;
    let mut rows: Vec<ActionRow> = Vec::new();
    let mut places = Vec::new();
    let mut alerts = default_policy().alerts;
    if decide == Decide::PerSignal {
        alerts.once_per_ms = 0;
    }
    let mut complete = true;
    for item in items {
        match read_action(item, flags, decide, &mut alerts, report) {
            Some(row) if rows.iter().any(|r| r.action == row.action) => {
                report.problem(codes::DUPLICATE, item.at, "this action has a row already", None);
            }
            Some(row) => {
                rows.push(row);
                places.push(item.at);
            }
            None => complete = false,
        }
    }
    // Scores that grow must meet the weaker action first. The package asked for no order, and has none under `per_signal`.
    if decide == Decide::PerEvent {
        for (row, at) in rows.iter().zip(&places) {
            if let Some(weaker) = rows.iter().find(|other| other.action < row.action && other.at > row.at) {
                let message = format!(
                    "`{}` from {} comes before the weaker `{}` from {}",
                    row.action.name(),
                    row.at,
                    weaker.action.name(),
                    weaker.at
                );
                report.problem(codes::CONTRADICTION, *at, message, Some("thresholds rise with the strength of the action".into()));
                complete = false;
            }
        }
    }
    complete.then_some((rows, alerts))
}

fn read_action(node: &Node, flags: &[FlagDecl], decide: Decide, alerts: &mut Alerts, report: &mut Report<'_>) -> Option<ActionRow> {
    let fields = Fields::open(node, &ACTION, report)?;
    let action = fields.need("do", report).and_then(|n| word(n, "`do`", &ACTIONS, report));
    let at = fields.need("at", report).and_then(|n| points(n, "`at`", report));
    let flag = fields.get("flag").map(|n| flag_index(n, flags, report));
    let (action, at) = (action?, at?);
    let flag = flag.map_or(Some(None), |index| index.map(Some))?;
    let mut good = check_keys(&fields, action, decide, report);
    if decide == Decide::PerEvent && at == 0 {
        report.problem(codes::RANGE, fields.key_at("at"), "`at` is 0, it must be 1 to 100: a score of 0 is no reason", None);
        good = false;
    }
    if decide == Decide::PerEvent && action == Action::Block && flag.is_none_or(|flag| flags[flag].default) {
        let message = "`block` must have a flag that is off unless somebody switches it on";
        let help = "declare a flag with `default: false` and name it: `flag: BLOCKING_ENABLED`";
        report.problem(codes::CONTRADICTION, fields.at, message, Some(help.into()));
        good = false;
    }
    let leave = fields.get("leave").map_or(Some(ActionRow::default_leave(at)), |n| points(n, "`leave`", report))?;
    if fields.get("leave").is_some() && !(1..=at).contains(&leave) {
        let message = format!("`leave` is {leave}, it must be 1 to `at`, which is {at}");
        report.problem(
            codes::RANGE,
            fields.key_at("leave"),
            message,
            Some("an action is left below the level at which it is entered".into()),
        );
        good = false;
    }
    let usual = if action == Action::Alert { 1 } else { 2 };
    let families = fields.get("families").map_or(Some(usual), |n| whole(n, "`families`", 1..=MAX_FAMILIES, report));
    let or_certain = fields.get("or_certain").map_or(Some(true), |n| truth(n, "`or_certain`", report));
    let mut time = |key: &str, usual: i64| fields.get(key).map_or(Some(usual), |n| duration(n, &format!("`{key}`"), MAX_WITHIN_MS, report));
    let hold_ms = time("hold", 0);
    let (ttl_ms, max_ttl_ms) = (time("ttl", DEFAULT_SENTENCE.ttl_ms), time("max_ttl", DEFAULT_SENTENCE.max_ttl_ms));
    let forget_ms = time("forget", DEFAULT_SENTENCE.forget_ms);
    if action == Action::Alert {
        let usual = *alerts;
        alerts.resolve_after_ms = time("resolve_after", usual.resolve_after_ms)?;
        alerts.once_per_ms = match fields.get("once_per") {
            Some(Node { value: Tree::Text(zero), .. }) if zero == "0s" => 0,
            _ => time("once_per", usual.once_per_ms)?,
        };
    }
    let grow = fields.get("grow").map_or(Some(DEFAULT_SENTENCE.grow), |n| thousandths(n, "`grow`", 1_000..=10_000, report));
    let sentence = Sentence { ttl_ms: ttl_ms?, grow: grow?, max_ttl_ms: max_ttl_ms?, forget_ms: forget_ms? };
    // A longer first block raises the most that there can be, unless that is given.
    let sentence = match fields.get("max_ttl") {
        None => Sentence { max_ttl_ms: sentence.max_ttl_ms.max(sentence.ttl_ms), ..sentence },
        Some(_) => sentence,
    };
    if sentence.ttl_ms > sentence.max_ttl_ms {
        report.problem(codes::CONTRADICTION, fields.key_at("max_ttl"), "`max_ttl` is shorter than `ttl`", None);
        good = false;
    }
    let from_us = fields.get("rate").map_or(Some(DEFAULT_ALLOWED.from_us), |n| interval_us(n, "`rate`", report));
    let floor_us = fields.get("floor").map_or(Some(DEFAULT_ALLOWED.floor_us), |n| interval_us(n, "`floor`", report));
    let allowed = Allowed { from_us: from_us?, floor_us: floor_us? };
    let allowed = match fields.get("floor") {
        None => Allowed { floor_us: allowed.floor_us.max(allowed.from_us), ..allowed },
        Some(_) => allowed,
    };
    if allowed.floor_us < allowed.from_us {
        report.problem(codes::CONTRADICTION, fields.key_at("floor"), "`floor` allows more than `rate`", None);
        good = false;
    }
    let row = ActionRow {
        action,
        at,
        leave,
        families: u32::try_from(families?).ok()?,
        or_certain: or_certain?,
        flag,
        hold_ms: hold_ms?,
        sentence: (action == Action::Block).then_some(sentence),
        allowed: (action == Action::Throttle).then_some(allowed),
    };
    good.then_some(row)
}

/// Keys that mean nothing for this action, or without a score.
fn check_keys(fields: &Fields<'_>, action: Action, decide: Decide, report: &mut Report<'_>) -> bool {
    let mut good = true;
    for (key, actions) in OWN {
        if fields.get(key).is_some() && !actions.contains(&action) {
            let words: Vec<String> = actions.iter().map(|action| format!("`{}`", action.name())).collect();
            let message = format!("`{key}` goes with {}, this is `{}`", words.join(" and "), action.name());
            report.problem(codes::CONTRADICTION, fields.key_at(key), message, None);
            good = false;
        }
    }
    if decide == Decide::PerEvent && fields.get("resolve_after").is_some() {
        let message = "`resolve_after` goes with `decide: per_signal`; an alert of a score is over below `leave`";
        report.problem(codes::CONTRADICTION, fields.key_at("resolve_after"), message, None);
        good = false;
    }
    if decide == Decide::PerSignal {
        for key in OF_SCORES.iter().filter(|key| fields.get(key).is_some()) {
            let message = format!("`{key}` needs a score over time, which `decide: per_signal` does not have");
            report.problem(codes::CONTRADICTION, fields.key_at(key), message, Some("leave it out, or write `decide: per_event`".into()));
            good = false;
        }
        if action == Action::Throttle {
            report.problem(codes::CONTRADICTION, fields.key_at("do"), "`throttle` needs `decide: per_event`", None);
            good = false;
        }
    }
    good
}

fn read_precedence(node: &Node, actions: &[ActionRow], report: &mut Report<'_>) -> Option<Vec<Action>> {
    let items = list(node, "`precedence`", report)?;
    let mut order: Vec<Action> = Vec::new();
    for item in items {
        let action = word(item, "`precedence`", &ACTIONS, report)?;
        if order.contains(&action) {
            report.problem(codes::DUPLICATE, item.at, "this action is named twice in `precedence`", None);
        }
        order.push(action);
    }
    for row in actions.iter().filter(|row| !order.contains(&row.action)) {
        let message = format!("`{}` has a row in `actions` and no place in `precedence`", row.action.name());
        report.problem(codes::CONTRADICTION, node.at, message, None);
    }
    Some(order)
}

fn read_contexts(node: &Node, scope: &Scope, report: &mut Report<'_>) -> Option<Vec<Context>> {
    let items = list(node, "`context`", report)?;
    if items.len() > MAX_CONTEXTS {
        report.problem(codes::LIMIT, node.at, format!("{} contexts, at most {MAX_CONTEXTS} are allowed", items.len()), None);
        return None;
    }
    let mut contexts: Vec<Context> = Vec::new();
    let mut good = true;
    for item in items {
        match read_context(item, scope, report) {
            Some(context) if contexts.iter().any(|c| c.id == context.id) => {
                report.problem(codes::DUPLICATE, item.at, format!("two contexts have the id `{}`", context.id), None);
                good = false;
            }
            Some(context) => contexts.push(context),
            None => good = false,
        }
    }
    good.then_some(contexts)
}

fn read_context(node: &Node, scope: &Scope, report: &mut Report<'_>) -> Option<Context> {
    let fields = Fields::open(node, &CONTEXT, report)?;
    let id = fields.need("id", report).and_then(|n| name(n, "`id` of a context", report));
    let when = fields.need("when", report).and_then(|n| predicate(n, scope, report));
    let times = fields.need("times", report).and_then(|n| thousandths(n, "`times`", 50..=4_000, report));
    let axis = fields.get("axis").map_or(Some(None), |n| word(n, "`axis`", &Axis::WORDS, report).map(Some));
    let kind = fields.get("entity").map_or(Some(None), |n| word(n, "`entity`", &PARTS, report).map(|part| Some(EntityKind::from(part))));
    Some(Context { id: id?.to_owned(), when: when?, times: times?, axis: axis?, kind: kind? })
}
