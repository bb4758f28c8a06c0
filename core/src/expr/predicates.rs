//! Named predicates of a pack: questions that any of its rules may ask by name.

use super::check::{Checker, expect};
use super::parse::{RESERVED, parse};
use super::{ExprError, Scope};
use crate::event::FIELDS;
use crate::value::Type;

/// Words of the language besides the fields and CEL's own reserved words.
const WORDS: &[&str] = &["lists", "headers", "data", "has", "true", "false", "null", "and", "or", "not"];

/// Why nothing that an expression can name may have this name, or `None` when it may: a field or a word of the language
/// would be hidden, or an expression could not be written with it.
pub fn name_problem(name: &str) -> Option<String> {
    if FIELDS.iter().any(|row| row.name == name) {
        return Some(format!("`{name}` is the name of a field"));
    }
    if WORDS.contains(&name) || RESERVED.contains(&name) {
        return Some(format!("`{name}` is a word of the language"));
    }
    let word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    (!word || name.is_empty()).then(|| format!("`{name}` is not a name: letters, digits and `_`, no digit first"))
}

/// Checks a pack's named predicates, which are the `lets` of this scope: each by itself, whether a rule uses it or not. The
/// answer has each predicate that is wrong, by name, with what is wrong at its place in the predicate's own source: its name,
/// its expression, a circle, or an answer that is not true or false.
pub fn check_predicates(scope: &Scope) -> Vec<(String, ExprError)> {
    let problem = |name: &String, source: &String| {
        let whole = |message| ExprError { message, offset: 0, length: source.len().max(1), help: None };
        let checked = match name_problem(name) {
            Some(message) => Err(whole(message)),
            None => parse(source).and_then(|tree| Checker::inside(scope, name).value(&tree)),
        };
        checked.and_then(|typed| expect(&typed, &[Type::Bool], "a predicate")).err()
    };
    scope.lets.iter().filter_map(|(name, source)| Some((name.clone(), problem(name, source)?))).collect()
}
