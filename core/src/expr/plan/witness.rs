//! Witnesses: what an event must show for a predicate to be true of it.

use super::super::node::{Node, Seen};
use super::super::text::{Case, TextTest};
use super::super::tree::{Comparison, Const};
use crate::event::{FIELDS, Field};

/// One thing that an event may show.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key<'n> {
    /// The field, its letters seen in this case, is this text.
    Text(&'n Field, Case, &'n str),
    /// The field, its letters seen in this case, begins with this text.
    Prefix(&'n Field, Case, &'n str),
    /// The field is a number of this size.
    Int(&'n Field, i64),
    /// The event has the field.
    Has(&'n Field),
}

/// An event of which the predicate is true shows at least one of these. None at all: there is no such event.
pub(super) type Witness<'n> = Vec<Key<'n>>;

/// The best witness of nodes that must all be true; `None` when each of them can be true of an event that shows nothing.
pub(super) fn of_all<'n>(nodes: impl IntoIterator<Item = &'n Node>) -> Option<Witness<'n>> {
    nodes.into_iter().filter_map(of).min_by_key(|witness| (rank(witness), witness.len()))
}

/// The witness of one of these being true.
fn of_any<'n>(nodes: impl IntoIterator<Item = &'n Node>) -> Option<Witness<'n>> {
    let witnesses: Option<Vec<Witness<'n>>> = nodes.into_iter().map(of).collect();
    witnesses.map(|witnesses| witnesses.concat())
}

/// The witness of a node being true.
fn of(node: &Node) -> Option<Witness<'_>> {
    match node {
        Node::Const(constant) => (*constant != Const::Bool(true)).then(Vec::new),
        Node::Field(field) | Node::Has(field) => has(field),
        Node::All(parts) => of_all(parts),
        Node::AnyOf(parts) => of_any(parts),
        Node::Not(part) => match &**part {
            Node::Not(inner) => of(inner),
            _ => None,
        },
        Node::Ternary(parts) => {
            let [condition, then, otherwise] = &**parts;
            let (then, otherwise) = (of_all([condition, then])?, of(otherwise)?);
            Some([then, otherwise].concat())
        }
        Node::Compare(operator, left, right) => compared(*operator, left, right).or_else(|| both(left, right)),
        Node::Text(test, left, right) => text(*test, left, right).or_else(|| both(&left.node, &right.node)),
        Node::Contains(left, right) => both(left, right),
        Node::Matches(subject, _) | Node::InNetworks(subject, _) => there(subject),
        Node::StartsWithAny(subject, set) => match &**subject {
            Node::Field(field) => Some(set.prefixes().iter().map(|prefix| Key::Prefix(field, set.case(), prefix)).collect()),
            other => there(other),
        },
        Node::InTexts(subject, set) => match &**subject {
            Node::Field(field) => Some(set.texts().iter().map(|text| Key::Text(field, set.case(), text)).collect()),
            other => there(other),
        },
        Node::InValues(subject, set) => match (&**subject, set.only_ints()) {
            (Node::Field(field), Some(ints)) => Some(ints.iter().map(|int| Key::Int(field, *int)).collect()),
            (other, _) => there(other),
        },
        Node::HourOfWeek | Node::Arithmetic(..) | Node::Negate(_) | Node::Size(_) | Node::Shared(_) => None,
    }
}

fn compared<'n>(operator: Comparison, left: &'n Node, right: &'n Node) -> Option<Witness<'n>> {
    match (operator, left, right) {
        (Comparison::Equal, Node::Field(field), Node::Const(constant)) | (Comparison::Equal, Node::Const(constant), Node::Field(field)) => {
            match constant {
                Const::Str(text) => Some(vec![Key::Text(field, Case::Exact, text)]),
                Const::Int(int) => Some(vec![Key::Int(field, *int)]),
                Const::Bool(_) | Const::Float(_) => None,
            }
        }
        _ => None,
    }
}

fn text<'n>(test: TextTest, left: &'n Seen, right: &'n Seen) -> Option<Witness<'n>> {
    match (test, (&*left.node, left.case), (&*right.node, right.case)) {
        (TextTest::Equal, (Node::Field(field), case), (Node::Const(Const::Str(text)), Case::Exact))
        | (TextTest::Equal, (Node::Const(Const::Str(text)), Case::Exact), (Node::Field(field), case)) => {
            Some(vec![Key::Text(field, case, text)])
        }
        (TextTest::StartsWith, (Node::Field(field), case), (Node::Const(Const::Str(text)), Case::Exact)) => {
            Some(vec![Key::Prefix(field, case, text)])
        }
        _ => None,
    }
}

/// The witness of two values being there, which every test between two values needs.
fn both<'n>(left: &'n Node, right: &'n Node) -> Option<Witness<'n>> {
    [there(left), there(right)].into_iter().flatten().min_by_key(|witness| (rank(witness), witness.len()))
}

/// The witness of a value being there.
fn there(node: &Node) -> Option<Witness<'_>> {
    match node {
        Node::Field(field) => has(field),
        Node::Size(inner) | Node::Negate(inner) => there(inner),
        Node::Arithmetic(_, left, right) => both(left, right),
        Node::Ternary(parts) => Some([there(&parts[1])?, there(&parts[2])?].concat()),
        _ => None,
    }
}

/// The witness of an event having the field; those that every event has tell nothing.
fn has(field: &Field) -> Option<Witness<'_>> {
    let always = matches!(field, Field::Named(index) if ["event_time", "event_type"].contains(&FIELDS[*index].name));
    (!always).then(|| vec![Key::Has(field)])
}

/// Fields with few values: finding one of them rules little out.
const FEW_VALUES: &[&str] = &["method", "outcome", "role", "country", "status_code"];
/// Named fields that few events have.
const SELDOM_THERE: &[&str] = &["anomaly_type", "device_id"];

/// How much a witness lets through, judged by its weakest key; less is better. A guess: it decides about speed only.
fn rank(witness: &[Key<'_>]) -> u8 {
    let named = |field: &Field, names: &[&str]| matches!(field, Field::Named(index) if names.contains(&FIELDS[*index].name));
    let of_key = |key: &Key<'_>| match key {
        Key::Text(field, ..) | Key::Int(field, _) if named(field, FEW_VALUES) => 2,
        Key::Text(..) | Key::Int(..) => 0,
        Key::Prefix(.., prefix) if prefix.len() > 1 => 1,
        Key::Has(field) if named(field, SELDOM_THERE) || !matches!(field, Field::Named(_)) => 3,
        Key::Prefix(.., prefix) if !prefix.is_empty() => 4,
        Key::Prefix(..) | Key::Has(_) => 5,
    };
    witness.iter().map(of_key).max().unwrap_or(0)
}
