//! Checking the operators: what each takes and gives; what is known at load is worked out at load.

use super::ExprError;
use super::check::{Checker, List, Operand, Typed, comparable, expect, text_of, type_of};
use super::node::{Node, Seen};
use super::sets::{TextSet, ValueSet};
use super::text::{Case, TextTest};
use super::tree::{Arithmetic, Comparison, Const, Kind, Span, Tree};
use super::value_ops::{negate, reckon};
use crate::event::Field;
use crate::value::{Type, Value};
use std::sync::Arc;

impl Checker<'_> {
    pub(super) fn ternary(&mut self, [condition, then, otherwise]: &[Tree; 3], span: Span) -> Result<(Node, Type), ExprError> {
        let condition = self.truth(condition, "?:")?;
        let (then, otherwise) = (self.value(then)?, self.value(otherwise)?);
        let ty = match (then.ty, otherwise.ty) {
            (a, b) if a == b => a,
            (a, b) if comparable(a, b) => Type::Any,
            (a, b) => return Err(span.error(format!("the branches of ?: differ in type: {} and {}", a.name(), b.name()))),
        };
        Ok((Node::Ternary(Box::new([condition, then.node, otherwise.node])), ty))
    }

    pub(super) fn compare(&mut self, operator: Comparison, left: &Tree, right: &Tree, span: Span) -> Result<Node, ExprError> {
        let equality = match operator {
            Comparison::Equal => Some(TextTest::Equal),
            Comparison::NotEqual => Some(TextTest::NotEqual),
            _ => None,
        };
        let Some(equality) = equality else {
            let (left, right) = (self.value(left)?, self.value(right)?);
            return same_type(left, right, span).map(|(left, right)| Node::Compare(operator, left, right));
        };
        let (left, left_case) = self.side(left)?;
        let (right, right_case) = self.side(right)?;
        if (left_case, right_case) == (Case::Exact, Case::Exact) {
            return same_type(left, right, span).map(|(left, right)| Node::Compare(operator, left, right));
        }
        for side in [&left, &right] {
            expect(side, &[Type::Str], "a comparison with lowerAscii() or upperAscii()")?;
        }
        Ok(Node::Text(equality, left.seen(left_case), right.seen(right_case)))
    }

    /// One side of an equality.
    fn side(&mut self, tree: &Tree) -> Result<(Typed, Case), ExprError> {
        match self.operand(tree)? {
            Operand::Cased(typed, case) => Ok((typed, case)),
            Operand::Value(typed) => Ok((typed, Case::Exact)),
            Operand::List(_) => Err(tree.span.error("a list cannot be compared").or_try("test membership with `in`")),
        }
    }

    pub(super) fn membership(&mut self, left: &Tree, right: &Tree, span: Span) -> Result<Node, ExprError> {
        let (subject, case) = self.side(left)?;
        // A text in another case is a text, whatever the field holds.
        let ty = if case == Case::Exact { subject.ty } else { Type::Str };
        let items = match self.operand(right)? {
            Operand::List(list) => entries_for(ty, list),
            Operand::Value(other) => {
                return Err(right
                    .span
                    .error(format!("`in` takes a list, this is {}", other.ty.name()))
                    .or_try("write [a, b] or lists.NAME"));
            }
            Operand::Cased(..) => return Err(right.span.error("`in` takes a list, this is string")),
        };
        if let Some(item) = items.iter().find(|item| !comparable(ty, type_of(item))) {
            let error = span.error(format!("cannot find {} in a list of {}", ty.name(), type_of(item).name()));
            let number = comparable(ty, Type::Int) && matches!(right.kind, Kind::Path(_));
            return Err(if number { error.or_try("a named list is one of numbers when every entry is a whole number") } else { error });
        }
        let texts: Option<Vec<Box<str>>> = items.iter().map(text_of).collect();
        Ok(match texts {
            Some(texts) => {
                let Seen { node, case } = subject.seen(case);
                Node::InTexts(node, Arc::new(TextSet::new(texts, case)))
            }
            None => Node::InValues(Box::new(subject.node), Arc::new(ValueSet::new(items))),
        })
    }

    pub(super) fn negate(&mut self, inner: &Tree, span: Span) -> Result<(Node, Type), ExprError> {
        let typed = self.value(inner)?;
        expect(&typed, &[Type::Int, Type::Float], "-")?;
        let node = match &typed.node {
            Node::Const(constant) => folded(negate(constant.value()), span)?,
            _ => Node::Negate(Box::new(typed.node)),
        };
        Ok((node, typed.ty))
    }

    pub(super) fn arithmetic(&mut self, operator: Arithmetic, left: &Tree, right: &Tree, span: Span) -> Result<(Node, Type), ExprError> {
        let numbers: &[Type] = if operator == Arithmetic::Remainder { &[Type::Int] } else { &[Type::Int, Type::Float] };
        let left = self.value(left)?;
        expect(&left, numbers, operator.sign()).map_err(|error| match (&left.node, operator) {
            (Node::Field(Field::Header(_)), Arithmetic::Subtract) => error.or_try("a header with dashes is written headers[\"x-tenant\"]"),
            (_, Arithmetic::Add) => error.or_try("strings cannot be built here"),
            _ => error,
        })?;
        let right = self.value(right)?;
        expect(&right, numbers, operator.sign())?;
        let ty = match (left.ty, right.ty) {
            (Type::Any, other) | (other, Type::Any) => other,
            (a, b) if a == b => a,
            (a, b) => {
                let message = format!("{} takes two numbers of one type, these are {} and {}", operator.sign(), a.name(), b.name());
                return Err(span.error(message).or_try("write a float literal with its point: 2.0"));
            }
        };
        let by_zero = matches!(right.node, Node::Const(Const::Int(0))) || matches!(right.node, Node::Const(Const::Float(f)) if f == 0.0);
        if by_zero && matches!(operator, Arithmetic::Divide | Arithmetic::Remainder) {
            return Err(right.span.error("division by zero"));
        }
        let node = match (&left.node, &right.node) {
            (Node::Const(l), Node::Const(r)) => folded(reckon(operator, l.value(), r.value()), span)?,
            _ => Node::Arithmetic(operator, Box::new(left.node), Box::new(right.node)),
        };
        Ok((node, ty))
    }
}

/// The entries among which a value of this type is to be found: where a number can be looked for, a named list of whole
/// numbers is one of numbers, and stays one of texts for a text.
fn entries_for(subject: Type, list: List) -> Vec<Const> {
    if !list.named || !comparable(subject, Type::Int) {
        return list.entries;
    }
    let Some(numbers) = list.entries.iter().map(whole_number).collect::<Option<Vec<Const>>>() else { return list.entries };
    if subject == Type::Any { numbers.into_iter().chain(list.entries).collect() } else { numbers }
}

/// The number that a text is, in the one way to write it.
fn whole_number(entry: &Const) -> Option<Const> {
    let text = text_of(entry)?;
    text.parse::<i64>().ok().filter(|number| number.to_string() == *text).map(Const::Int)
}

/// The result of reckoning with literals.
fn folded(value: Value<'_>, span: Span) -> Result<Node, ExprError> {
    match value {
        Value::Int(i) => Ok(Node::Const(Const::Int(i))),
        Value::Float(f) => Ok(Node::Const(Const::Float(f))),
        _ => Err(span.error("the result does not fit 64 bits")),
    }
}

fn same_type(left: Typed, right: Typed, span: Span) -> Result<(Box<Node>, Box<Node>), ExprError> {
    if comparable(left.ty, right.ty) {
        return Ok((Box::new(left.node), Box::new(right.node)));
    }
    let error = span.error(format!("cannot compare {} with {}", left.ty.name(), right.ty.name()));
    let quoted = [&left, &right].into_iter().find_map(|side| side.literal().filter(|text| text.parse::<i64>().is_ok()));
    Err(match quoted {
        Some(number) if [left.ty, right.ty].contains(&Type::Int) => error.or_try(format!("write {number} without quotes")),
        _ => error,
    })
}
