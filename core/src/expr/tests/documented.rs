//! `docs/expressions.md` says what is so.

use super::compiled;
use crate::event::{Event, FIELDS};
use crate::expr::call::{FUNCTIONS, MAX_REGEX_BYTES, MAX_REGEX_CACHE_BYTES, METHODS};
use crate::expr::parse::MAX_SOURCE_BYTES;
use crate::expr::size::{MAX_DEPTH, MAX_LIST_ENTRIES, MAX_NODES, MAX_PATTERNS};
use crate::expr::tree::MAX_NESTING;

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
fn every_function_has_an_example_that_is_true_of_the_event() {
    let record: String = section("event").into_iter().filter(|line| !line.starts_with("```")).collect();
    let event = Event::decode(Some(record.as_bytes())).expect("an event");
    let rows: Vec<&str> = section("functions").into_iter().skip(2).collect();
    assert_eq!(rows.len(), FUNCTIONS.len() + METHODS.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect();
        let (name, _) = cells[0].trim_start_matches("s.").split_once('(').expect("a call");
        assert!(cells[2].contains(&format!("{name}(")), "{row}");
        assert!(compiled(cells[2]).holds(&event), "{row}");
    }
}

#[test]
fn the_limits_are_the_ones_that_hold() {
    let figures: Vec<usize> =
        section("limits").into_iter().skip(2).filter_map(|row| row.trim_end_matches('|').rsplit('|').next()?.trim().parse().ok()).collect();
    let of_expressions = [MAX_SOURCE_BYTES, MAX_NESTING, MAX_DEPTH, MAX_NODES, MAX_LIST_ENTRIES, MAX_PATTERNS];
    let of_patterns = [MAX_REGEX_BYTES, MAX_REGEX_CACHE_BYTES];
    assert_eq!(figures, [of_expressions.as_slice(), &of_patterns].concat());
}
