//! The checked form: every name resolved, every type known, every literal prepared. Nothing in here can fail any more.
//! What a rule needs to know about its predicate besides the answer is read off this tree.

use super::network::NetworkSet;
use super::sets::{PrefixSet, TextSet, ValueSet};
use super::text::{Case, TextTest};
use super::tree::{Arithmetic, Comparison, Const};
use crate::event::Field;
use crate::value::Type;
use regex::Regex;
use std::sync::Arc;

/// A text and how its letters are seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub node: Box<Node>,
    pub case: Case,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Const(Const),
    Field(Field),
    /// Whether the event has the field.
    Has(Field),
    HourOfWeek,
    Not(Box<Node>),
    All(Vec<Node>),
    AnyOf(Vec<Node>),
    /// Condition, then, else.
    Ternary(Box<[Node; 3]>),
    Compare(Comparison, Box<Node>, Box<Node>),
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    Negate(Box<Node>),
    /// Code points of a text.
    Size(Box<Node>),
    /// Two texts, at least one of them not known at load or not seen as it is.
    Text(TextTest, Seen, Seen),
    /// The first text contains the second, both seen as they are.
    Contains(Box<Node>, Box<Node>),
    Matches(Box<Node>, Regex),
    StartsWithAny(Box<Node>, Arc<PrefixSet>),
    /// A text in a set of texts.
    InTexts(Box<Node>, Arc<TextSet>),
    /// A value in a list that holds others than texts.
    InValues(Box<Node>, Arc<ValueSet>),
    InNetworks(Box<Node>, Arc<NetworkSet>),
    /// What a plan works out once per event, by the number of its cell. No expression by itself has it.
    Shared(usize),
}

/// What a node is apart from its parts. Two nodes with equal parts and this equal have one value on every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Own<'n> {
    Const(&'n Const),
    Field(&'n Field),
    Has(&'n Field),
    HourOfWeek,
    Not,
    All,
    AnyOf,
    Ternary,
    Compare(Comparison),
    Arithmetic(Arithmetic),
    Negate,
    Size,
    Text(TextTest, Case, Case),
    Contains,
    Matches(&'n str),
    StartsWithAny(&'n PrefixSet),
    InTexts(&'n TextSet),
    InValues(&'n ValueSet),
    InNetworks(&'n NetworkSet),
    Shared(usize),
}

impl Node {
    /// What it is apart from its parts.
    pub fn own(&self) -> Own<'_> {
        match self {
            Node::Const(constant) => Own::Const(constant),
            Node::Field(field) => Own::Field(field),
            Node::Has(field) => Own::Has(field),
            Node::HourOfWeek => Own::HourOfWeek,
            Node::Not(_) => Own::Not,
            Node::All(_) => Own::All,
            Node::AnyOf(_) => Own::AnyOf,
            Node::Ternary(_) => Own::Ternary,
            Node::Compare(operator, ..) => Own::Compare(*operator),
            Node::Arithmetic(operator, ..) => Own::Arithmetic(*operator),
            Node::Negate(_) => Own::Negate,
            Node::Size(_) => Own::Size,
            Node::Text(test, left, right) => Own::Text(*test, left.case, right.case),
            Node::Contains(..) => Own::Contains,
            Node::Matches(_, regex) => Own::Matches(regex.as_str()),
            Node::StartsWithAny(_, set) => Own::StartsWithAny(set),
            Node::InTexts(_, set) => Own::InTexts(set),
            Node::InValues(_, set) => Own::InValues(set),
            Node::InNetworks(_, set) => Own::InNetworks(set),
            Node::Shared(cell) => Own::Shared(*cell),
        }
    }

    /// The nodes right below it, from left to right.
    pub fn parts(&self) -> Vec<&Node> {
        match self {
            Node::Const(_) | Node::Field(_) | Node::Has(_) | Node::HourOfWeek | Node::Shared(_) => Vec::new(),
            Node::All(parts) | Node::AnyOf(parts) => parts.iter().collect(),
            Node::Ternary(parts) => parts.iter().collect(),
            Node::Compare(_, left, right) | Node::Arithmetic(_, left, right) | Node::Contains(left, right) => vec![left, right],
            Node::Text(_, left, right) => vec![&left.node, &right.node],
            Node::Not(part)
            | Node::Negate(part)
            | Node::Size(part)
            | Node::Matches(part, _)
            | Node::StartsWithAny(part, _)
            | Node::InTexts(part, _)
            | Node::InValues(part, _)
            | Node::InNetworks(part, _) => vec![part],
        }
    }

    /// The same node with each part replaced by what `with` makes of it, from left to right.
    pub fn rebuilt(&self, mut with: impl FnMut(&Node) -> Node) -> Node {
        let mut boxed = |part: &Node| Box::new(with(part));
        match self {
            Node::Const(_) | Node::Field(_) | Node::Has(_) | Node::HourOfWeek | Node::Shared(_) => self.clone(),
            Node::All(parts) => Node::All(parts.iter().map(with).collect()),
            Node::AnyOf(parts) => Node::AnyOf(parts.iter().map(with).collect()),
            Node::Ternary(parts) => Node::Ternary(Box::new(parts.each_ref().map(with))),
            Node::Compare(operator, left, right) => Node::Compare(*operator, boxed(left), boxed(right)),
            Node::Arithmetic(operator, left, right) => Node::Arithmetic(*operator, boxed(left), boxed(right)),
            Node::Contains(left, right) => Node::Contains(boxed(left), boxed(right)),
            Node::Text(test, left, right) => {
                let mut seen = |side: &Seen| Seen { node: boxed(&side.node), case: side.case };
                Node::Text(*test, seen(left), seen(right))
            }
            Node::Not(part) => Node::Not(boxed(part)),
            Node::Negate(part) => Node::Negate(boxed(part)),
            Node::Size(part) => Node::Size(boxed(part)),
            Node::Matches(part, regex) => Node::Matches(boxed(part), regex.clone()),
            Node::StartsWithAny(part, set) => Node::StartsWithAny(boxed(part), Arc::clone(set)),
            Node::InTexts(part, set) => Node::InTexts(boxed(part), Arc::clone(set)),
            Node::InValues(part, set) => Node::InValues(boxed(part), Arc::clone(set)),
            Node::InNetworks(part, set) => Node::InNetworks(boxed(part), Arc::clone(set)),
        }
    }

    /// Whether its value can be a text, which belongs to an event or an expression and cannot be kept apart from it.
    pub fn may_be_text(&self) -> bool {
        match self {
            Node::Const(constant) => matches!(constant, Const::Str(_)),
            Node::Field(field) => matches!(field.ty(), Type::Str | Type::Any),
            Node::Ternary(parts) => parts[1].may_be_text() || parts[2].may_be_text(),
            _ => false,
        }
    }
}
