//! Checked form to closures. What is asked most (a field against a literal or a set) gets a closure of its own; the rest
//! is put together from the closures of its parts.

use super::memory::Memory;
use super::node::{Node, Seen};
use super::text::{Case, TextTest};
use super::tree::{Comparison, Const};
use super::value_ops::{compare, hour_of_week, negate, reckon};
use crate::event::Event;
use crate::value::Value;

/// What a closure may look at.
#[derive(Clone, Copy)]
pub(super) struct Context<'e> {
    pub event: &'e Event<'e>,
    /// The literals that can be the result of the expression: a closure cannot lend what it owns.
    pub texts: &'e Vec<Box<str>>,
    /// What a plan remembers about the event; an expression by itself remembers nothing.
    pub memory: Option<&'e Memory<'e>>,
}

/// Reads a value.
pub(super) type Read = Box<dyn for<'e> Fn(Context<'e>) -> Value<'e> + Send + Sync>;
/// Answers a question; missing is false.
pub(super) type Test = Box<dyn for<'e> Fn(Context<'e>) -> bool + Send + Sync>;

/// What an expression became.
pub(super) enum Program {
    Test(Test),
    Read(Read),
}

impl Program {
    /// The value.
    pub fn eval<'e>(&self, context: Context<'e>) -> Value<'e> {
        match self {
            Program::Test(test) => Value::Bool(test(context)),
            Program::Read(read) => read(context),
        }
    }

    /// Whether the value is true; missing is false.
    pub fn holds(&self, context: Context<'_>) -> bool {
        match self {
            Program::Test(test) => test(context),
            Program::Read(read) => read(context).is_true(),
        }
    }
}

/// Lowers a whole expression; `texts` takes the literals it may return.
pub(super) fn program(node: Node, texts: &mut Vec<Box<str>>) -> Program {
    match node {
        Node::Const(_)
        | Node::Field(_)
        | Node::HourOfWeek
        | Node::Ternary(_)
        | Node::Arithmetic(..)
        | Node::Negate(_)
        | Node::Size(_)
        | Node::Shared(_) => Program::Read(read(node, texts)),
        _ => Program::Test(test(node, texts)),
    }
}

fn read(node: Node, texts: &mut Vec<Box<str>>) -> Read {
    match node {
        Node::Const(Const::Bool(b)) => Box::new(move |_| Value::Bool(b)),
        Node::Const(Const::Int(i)) => Box::new(move |_| Value::Int(i)),
        Node::Const(Const::Float(f)) => Box::new(move |_| Value::Float(f)),
        Node::Const(Const::Str(text)) => {
            let index = texts.len();
            texts.push(text);
            Box::new(move |c| c.texts.get(index).map_or(Value::Missing, |text| Value::Str(text)))
        }
        Node::Field(field) => Box::new(move |c| c.event.get(&field)),
        Node::HourOfWeek => Box::new(|c| Value::Int(hour_of_week(c.event.event_time_ms))),
        Node::Ternary(parts) => {
            let [condition, then, otherwise] = *parts;
            let (condition, then, otherwise) = (test(condition, texts), read(then, texts), read(otherwise, texts));
            Box::new(move |c| if condition(c) { then(c) } else { otherwise(c) })
        }
        Node::Arithmetic(operator, left, right) => {
            let (left, right) = (read(*left, texts), read(*right, texts));
            Box::new(move |c| reckon(operator, left(c), right(c)))
        }
        Node::Negate(inner) => {
            let inner = read(*inner, texts);
            Box::new(move |c| negate(inner(c)))
        }
        Node::Size(text) => {
            let text = read(*text, texts);
            Box::new(move |c| match text(c) {
                Value::Str(text) => Value::Int(i64::try_from(text.chars().count()).unwrap_or(i64::MAX)),
                _ => Value::Missing,
            })
        }
        Node::Shared(cell) => Box::new(move |c| c.memory.map_or(Value::Missing, |memory| memory.value(cell, c))),
        question => {
            let test = test(question, texts);
            Box::new(move |c| Value::Bool(test(c)))
        }
    }
}

/// Lowers a question.
pub(super) fn test(node: Node, texts: &mut Vec<Box<str>>) -> Test {
    match node {
        Node::Not(inner) => {
            let inner = test(*inner, texts);
            Box::new(move |c| !inner(c))
        }
        Node::All(parts) => all(parts.into_iter().map(|part| test(part, texts)).collect()),
        Node::AnyOf(parts) => any_of(parts.into_iter().map(|part| test(part, texts)).collect()),
        Node::Has(field) => Box::new(move |c| c.event.get(&field) != Value::Missing),
        Node::Compare(operator, left, right) => comparison(operator, *left, *right, texts),
        Node::Text(kind, left, right) => text_test(kind, left, right, texts),
        Node::Contains(subject, part) => match *part {
            Node::Const(Const::Str(part)) => on_text(*subject, texts, move |text| text.contains(&*part)),
            part => {
                let (subject, part) = (read(*subject, texts), read(part, texts));
                Box::new(move |c| matches!((subject(c), part(c)), (Value::Str(text), Value::Str(part)) if text.contains(part)))
            }
        },
        Node::Matches(subject, regex) => on_text(*subject, texts, move |text| {
            #[cfg(test)]
            super::tests::sharing::PATTERNS_RUN.with(|run| run.set(run.get() + 1));
            regex.is_match(text)
        }),
        Node::StartsWithAny(subject, prefixes) => on_text(*subject, texts, move |text| prefixes.starts(text)),
        Node::InTexts(subject, set) => on_text(*subject, texts, move |text| set.contains(text)),
        Node::InValues(subject, set) => on_value(*subject, texts, move |value| set.contains(value)),
        Node::InNetworks(address, networks) => on_text(*address, texts, move |text| networks.holds(text)),
        Node::Shared(cell) => Box::new(move |c| c.memory.is_some_and(|memory| memory.holds(cell, c))),
        other => on_value(other, texts, |value| value.is_true()),
    }
}

/// A test of one value; reading a field costs no call of its own.
fn on_value(subject: Node, texts: &mut Vec<Box<str>>, test: impl for<'v> Fn(Value<'v>) -> bool + Send + Sync + 'static) -> Test {
    match subject {
        Node::Field(field) => Box::new(move |c| test(c.event.get(&field))),
        other => {
            let subject = read(other, texts);
            Box::new(move |c| test(subject(c)))
        }
    }
}

/// A test of one text; false of everything else.
fn on_text(subject: Node, texts: &mut Vec<Box<str>>, test: impl Fn(&str) -> bool + Send + Sync + 'static) -> Test {
    on_value(subject, texts, move |value| matches!(value, Value::Str(text) if test(text)))
}

fn all(mut parts: Vec<Test>) -> Test {
    match (parts.pop(), parts.pop(), parts.is_empty()) {
        (Some(second), Some(first), true) => Box::new(move |c| first(c) && second(c)),
        (last, before, _) => {
            parts.extend(before);
            parts.extend(last);
            let parts = parts.into_boxed_slice();
            Box::new(move |c| parts.iter().all(|part| part(c)))
        }
    }
}

fn any_of(mut parts: Vec<Test>) -> Test {
    match (parts.pop(), parts.pop(), parts.is_empty()) {
        (Some(second), Some(first), true) => Box::new(move |c| first(c) || second(c)),
        (last, before, _) => {
            parts.extend(before);
            parts.extend(last);
            let parts = parts.into_boxed_slice();
            Box::new(move |c| parts.iter().any(|part| part(c)))
        }
    }
}

fn comparison(operator: Comparison, left: Node, right: Node, texts: &mut Vec<Box<str>>) -> Test {
    match (left, right) {
        (left @ Node::Const(_), right) if !matches!(right, Node::Const(_)) => comparison(operator.flipped(), right, left, texts),
        (left, Node::Const(Const::Str(text))) => match operator {
            Comparison::Equal => on_text(left, texts, move |value| value == &*text),
            Comparison::NotEqual => on_text(left, texts, move |value| value != &*text),
            _ => on_text(left, texts, move |value| operator.accepts(value.cmp(&*text))),
        },
        (left, Node::Const(Const::Int(number))) => on_value(left, texts, move |value| match value {
            Value::Int(i) => operator.accepts(i.cmp(&number)),
            other => compare(other, Value::Int(number)).is_some_and(|order| operator.accepts(order)),
        }),
        (left, Node::Const(constant)) => {
            on_value(left, texts, move |value| compare(value, constant.value()).is_some_and(|order| operator.accepts(order)))
        }
        (left, right) => {
            let (left, right) = (read(left, texts), read(right, texts));
            Box::new(move |c| compare(left(c), right(c)).is_some_and(|order| operator.accepts(order)))
        }
    }
}

fn text_test(kind: TextTest, left: Seen, right: Seen, texts: &mut Vec<Box<str>>) -> Test {
    let (case, other_case) = (left.case, right.case);
    match (kind, *left.node, *right.node) {
        (TextTest::StartsWith, subject, Node::Const(Const::Str(part))) if case == Case::Exact => {
            on_text(subject, texts, move |text| text.starts_with(&*part))
        }
        (kind, subject, Node::Const(Const::Str(part))) => {
            on_text(subject, texts, move |text| kind.holds((text, case), (&part, other_case)))
        }
        (kind, subject, part) => {
            let (subject, part) = (read(subject, texts), read(part, texts));
            Box::new(move |c| match (subject(c), part(c)) {
                (Value::Str(text), Value::Str(part)) => kind.holds((text, case), (part, other_case)),
                _ => false,
            })
        }
    }
}
