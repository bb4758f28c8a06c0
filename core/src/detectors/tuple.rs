//! The hash of several values together: what joins the events of a sequence, and what `first_seen` knows.

use crate::event::Event;
use crate::expr::{Expr, Scope};
use crate::hash;
use crate::rule::load::codes;
use crate::rule::load::fields::list;
use crate::rule::load::report::Report;
use crate::rule::load::rule::expression;
use crate::rule::load::tree::{Node, Tree};
use crate::value::Value;

/// The most values taken together.
pub const MAX_VALUES: usize = 4;

/// Reads one expression, or a list of at most [`MAX_VALUES`] of them.
pub fn read(node: &Node, what: &str, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Vec<Expr>> {
    let items = match &node.value {
        Tree::List(_) => list(node, what, report)?,
        _ => std::slice::from_ref(node),
    };
    if items.is_empty() || items.len() > MAX_VALUES {
        let message = format!("{what} has {} values, it takes 1 to {MAX_VALUES}", items.len());
        report.problem(codes::RANGE, node.at, message, Some("fields or expressions, such as `[ip_address, country]`".into()));
        return None;
    }
    let values: Vec<_> = items.iter().map(|item| expression(item, &format!("a value of {what}"), scope?, report)).collect();
    values.into_iter().collect()
}

/// The hash of an event's values; `None` if it lacks one of them. Stored: its bytes are frozen. Each value is written with
/// its kind and, for text, its length, so that no two lists of values are written alike; a number is the same number
/// whether or not it was sent with a fraction.
pub fn hash(values: &[Expr], event: &Event<'_>) -> Option<u64> {
    let mut bytes = Vec::with_capacity(64);
    for value in values {
        match value.eval(event) {
            Value::Missing => return None,
            Value::Bool(truth) => bytes.extend_from_slice(&[b'b', u8::from(truth)]),
            Value::Int(number) => write(&mut bytes, b'i', number.to_le_bytes()),
            Value::Float(number) => match number as i64 {
                whole if whole as f64 == number && whole != i64::MAX => write(&mut bytes, b'i', whole.to_le_bytes()),
                _ => write(&mut bytes, b'f', number.to_le_bytes()),
            },
            Value::Str(text) => {
                write(&mut bytes, b's', (text.len() as u64).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
    Some(hash::short(&bytes))
}

fn write(bytes: &mut Vec<u8>, kind: u8, number: [u8; 8]) {
    bytes.push(kind);
    bytes.extend_from_slice(&number);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn of(data: &str) -> Option<u64> {
        let values = ["data.a", "data.b"].map(|source| Expr::compile(source, &Scope::default()).expect("an expression"));
        let event = format!(r#"{{"event_time":1760000000000,"event_type":"t","data":{data}}}"#);
        hash(&values, &Event::decode(Some(event.as_bytes())).expect("an event"))
    }

    #[test]
    fn different_values_have_different_hashes() {
        let all = [
            r#"{"a":"x","b":"yz"}"#,
            r#"{"a":"xy","b":"z"}"#,
            r#"{"a":"yz","b":"x"}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":"1","b":"2"}"#,
            r#"{"a":true,"b":2}"#,
            r#"{"a":1.5,"b":2}"#,
            r#"{"a":"","b":""}"#,
            r#"{"a":1e300,"b":2}"#,
        ];
        assert_eq!(all.iter().map(|data| of(data).expect("both are there")).collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_number_is_the_same_with_and_without_a_fraction_and_nothing_stands_for_what_is_missing() {
        assert_eq!(of(r#"{"a":1.0,"b":-0.0}"#), of(r#"{"a":1,"b":0}"#));
        assert_eq!(of(r#"{"a":1}"#), None);
        assert_eq!(of(r#"{"a":1,"b":null}"#), None);
    }

    #[test]
    fn the_hash_is_frozen() {
        assert_eq!(of(r#"{"a":"x","b":7}"#), Some(3_425_528_334_803_980_201));
    }
}
