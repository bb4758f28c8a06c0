//! `docs/expressions.md` says what is so.

use super::compiled;
use crate::event::FIELDS;
use crate::expr::call::{FUNCTIONS, METHODS};
use crate::expr::{Expr, Scope};

const DOCS: &str = include_str!("../../../../docs/expressions.md");

/// The lines between two markers.
fn section(name: &str) -> Vec<&'static str> {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let (_, after) = DOCS.split_once(&begin).expect("the opening marker");
    let (inside, _) = after.split_once(&end).expect("the closing marker");
    inside.lines().filter(|line| !line.trim().is_empty()).collect()
}

#[test]
fn the_field_table_is_the_table_of_fields() {
    let rows: Vec<(&str, &str)> = section("fields")
        .into_iter()
        .skip(2)
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            (cells.next().unwrap_or("").trim_matches('`'), cells.next().unwrap_or(""))
        })
        .collect();
    let fields: Vec<(&str, &str)> = FIELDS.iter().map(|row| (row.name, row.ty.name())).collect();
    assert_eq!(rows, fields);
}

#[test]
fn every_function_has_a_row() {
    let rows = section("functions");
    for name in FUNCTIONS {
        assert!(rows.iter().any(|row| row.starts_with(&format!("| `{name}("))), "{name}");
    }
    for name in METHODS {
        assert!(rows.iter().any(|row| row.starts_with(&format!("| `s.{name}("))), "{name}");
    }
}

#[test]
fn every_example_compiles() {
    let examples = section("examples");
    let sources: Vec<&str> = examples.into_iter().filter(|line| !line.starts_with("```") && !line.starts_with("//")).collect();
    assert!(sources.len() >= 8, "{sources:?}");
    for source in sources {
        compiled(source);
    }
}

#[test]
fn the_limits_are_the_ones_that_hold() {
    let said = |number: usize| DOCS.contains(&format!("{number}"));
    assert!(said(crate::expr::parse::MAX_SOURCE_BYTES / 1024) && said(crate::expr::tree::MAX_NESTING));
    assert!(said(crate::expr::check::MAX_DEPTH) && said(crate::expr::check::MAX_NODES));
    assert!(Expr::compile("unknown_field", &Scope::default()).is_err());
}
