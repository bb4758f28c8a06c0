//! The checked form: every name resolved, every type known, every literal prepared. Nothing in here can fail any more.
//! What a rule needs to know about its predicate besides the answer is to be read off this tree.

use super::network::Network;
use super::text::{Case, PrefixSet, TextSet, TextTest};
use super::tree::{Arithmetic, Comparison, Const};
use crate::event::Field;
use regex::Regex;

/// A text and how its letters are seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub node: Box<Node>,
    pub case: Case,
}

#[derive(Debug)]
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
    StartsWithAny(Box<Node>, PrefixSet),
    /// A text in a set of texts.
    InTexts(Box<Node>, TextSet),
    /// A number or truth value in a list of such.
    InValues(Box<Node>, Vec<Const>),
    InNetworks(Box<Node>, Vec<Network>),
}
