//! `sequence` as it is written.

use super::absence::Absence;
use super::run::Ladder;
use super::{ROW, Sequence};
use crate::detectors::{Detector, MAX_WITHIN_MS, tuple};
use crate::expr::{Expr, Scope};
use crate::rule::load::codes;
use crate::rule::load::fields::{Fields, Keys, duration, list, name, whole};
use crate::rule::load::report::Report;
use crate::rule::load::rule::expression;
use crate::rule::load::tree::Node;
use crate::value::Type;

pub const KEYS: Keys = Keys { what: "`sequence`", known: &["within", "same", "steps", "cancel_on", "then_absent"], later: &[] };
/// The keys of a step.
pub const STEP: Keys = Keys { what: "a step", known: &["id", "when", "times"], later: &[] };
/// The keys of `then_absent`.
pub const THEN_ABSENT: Keys = Keys { what: "`then_absent`", known: &["when", "within"], later: &[] };

/// The most steps.
const MAX_STEPS: usize = 8;
/// The most events that make a sequence.
const MAX_EVENTS: i64 = 64;

struct Step {
    id: String,
    when: Expr,
    times: i64,
}

pub fn read(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>> {
    let fields = Fields::open(node, &KEYS, report)?;
    let within_ms = fields.need("within", report).and_then(|n| duration(n, "`within`", MAX_WITHIN_MS, report));
    let same = fields.get("same").map_or(Some(Vec::new()), |n| tuple::read(n, "`same`", scope, report));
    let steps = fields.need("steps", report).and_then(|n| read_steps(n, scope, report));
    let cancel_on = fields.get("cancel_on").map_or(Some(None), |n| predicate(n, "`cancel_on`", scope, report).map(Some));
    let then_absent = fields.get("then_absent").map_or(Some(None), |n| read_absence(n, scope, report).map(Some));
    let (steps, within_ms) = (steps?, within_ms?);
    let laid_out = |(at, step): (usize, &Step)| std::iter::repeat_n(1 << at, usize::try_from(step.times).unwrap_or(0));
    let positions = steps.iter().enumerate().flat_map(laid_out).collect();
    Some(Box::new(Sequence {
        steps: steps.into_iter().map(|step| step.when).collect(),
        ladder: Ladder { positions, within_ms },
        same: same?,
        cancel_on: cancel_on?,
        then_absent: then_absent?,
    }))
}

fn read_steps(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Vec<Step>> {
    let items = list(node, "`steps`", report)?;
    if items.is_empty() || items.len() > MAX_STEPS {
        let message = format!("{} steps, a sequence has 1 to {MAX_STEPS}", items.len());
        report.problem(codes::RANGE, node.at, message, Some("`times` counts one step several times".into()));
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| read_step(item, scope, report)).collect();
    let mut good = true;
    for (at, step) in read.iter().enumerate() {
        if let Some(step) = step
            && read[..at].iter().flatten().any(|other| other.id == step.id)
        {
            report.problem(codes::DUPLICATE, items[at].at, format!("two steps have the id `{}`", step.id), None);
            good = false;
        }
    }
    let steps: Vec<Step> = read.into_iter().collect::<Option<_>>()?;
    let events: i64 = steps.iter().map(|step| step.times).sum();
    if events > MAX_EVENTS {
        let message = format!("the steps add up to {events} events, at most {MAX_EVENTS} make a sequence");
        report.problem(codes::RANGE, node.at, message, Some("lower a `times`".into()));
        return None;
    }
    good.then_some(steps)
}

fn read_step(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Step> {
    let fields = Fields::open(node, &STEP, report)?;
    let id = fields.need("id", report).and_then(|n| name(n, "`id` of a step", report));
    let when = fields.need("when", report).and_then(|n| predicate(n, "`when` of a step", scope, report));
    let times = fields.get("times").map_or(Some(1), |n| whole(n, "`times`", 1..=MAX_EVENTS, report));
    Some(Step { id: id?.to_owned(), when: when?, times: times? })
}

fn read_absence(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Absence> {
    let fields = Fields::open(node, &THEN_ABSENT, report)?;
    let when = fields.need("when", report).and_then(|n| predicate(n, "`when` of `then_absent`", scope, report));
    let within_ms = fields.need("within", report).and_then(|n| duration(n, "`within` of `then_absent`", MAX_WITHIN_MS, report));
    Some(Absence { when: when?, within_ms: within_ms? })
}

/// An expression that is true or false.
fn predicate(node: &Node, what: &str, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Expr> {
    let expr = expression(node, what, scope?, report)?;
    if !matches!(expr.ty(), Type::Bool | Type::Any) {
        let message = format!("{what} in `{}` must be true or false, this is of type {}", ROW.name, expr.ty().name());
        report.problem(codes::EXPRESSION, node.at, message, Some("compare it with something".into()));
        return None;
    }
    Some(expr)
}
