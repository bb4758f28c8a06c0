//! A settings file as a tree that knows its places: TOML or YAML by its ending.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_saphyr::Spanned;
use std::fmt;
use toml::de::{DeTable, DeValue};

/// A place in a file: line and column from 1; 0 when unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// A value and its place.
#[derive(Debug)]
pub struct Node {
    /// Where it starts.
    pub at: Place,
    /// What it is.
    pub value: Tree,
}

/// Tables are walked, everything else is a leaf.
#[derive(Debug)]
pub enum Tree {
    /// A scalar or a list.
    Leaf(Json),
    /// Keys with their places, in the file's order.
    Table(Vec<(String, Place, Node)>),
}

/// Why a file is not readable at all.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where.
    pub at: Place,
    /// What.
    pub message: String,
}

/// Reads TOML. Every syntax error of the file is reported.
pub fn toml(text: &str) -> Result<Node, Vec<SyntaxError>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let at = Place { line: 1, column: 1 };
        return Ok(Node { at, value: toml_table(text, table.into_inner()) });
    }
    let error = |e: toml::de::Error| SyntaxError {
        at: e.span().map_or(Place::default(), |s| place(text, s.start)),
        message: e.message().to_owned(),
    };
    Err(errors.into_iter().map(error).collect())
}

/// Reads YAML (and so JSON).
pub fn yaml(text: &str) -> Result<Node, Vec<SyntaxError>> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
        return Ok(Node { at: Place { line: 1, column: 1 }, value: Tree::Table(Vec::new()) });
    }
    serde_saphyr::from_str_with_options::<Raw>(text, options).map(Raw::placed).map_err(|error| {
        let at = error.location().map_or(Place::default(), |l| Place { line: l.line() as usize, column: l.column() as usize });
        let whole = error.without_snippet().to_string();
        let message = whole.lines().next().unwrap_or_default().split(" at line ").next().unwrap_or_default();
        vec![SyntaxError { at, message: message.trim_start_matches("error: ").to_owned() }]
    })
}

fn place(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

fn toml_table(text: &str, table: DeTable<'_>) -> Tree {
    let entry = |(key, value): (toml::Spanned<_>, toml::Spanned<DeValue<'_>>)| {
        let key_at = place(text, key.span().start);
        let at = place(text, value.span().start);
        let key: std::borrow::Cow<'_, str> = key.into_inner();
        let value = match value.into_inner() {
            DeValue::Table(table) => toml_table(text, table),
            leaf => Tree::Leaf(toml_leaf(leaf)),
        };
        (key.into_owned(), key_at, Node { at, value })
    };
    Tree::Table(table.into_iter().map(entry).collect())
}

fn toml_leaf(value: DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => Json::String(text.into_owned()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| Json::String(number.as_str().to_owned()), Json::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or_else(|_| Json::String(number.as_str().to_owned()), Json::from),
        DeValue::Boolean(truth) => Json::Bool(truth),
        DeValue::Datetime(time) => Json::String(time.to_string()),
        DeValue::Array(items) => items.into_iter().map(|item| toml_leaf(item.into_inner())).collect(),
        DeValue::Table(table) => {
            Json::Object(table.into_iter().map(|(k, v)| (k.into_inner().into_owned(), toml_leaf(v.into_inner()))).collect())
        }
    }
}

/// The YAML tree as deserialised.
struct Raw(Spanned<RawTree>);

enum RawTree {
    Scalar(Json),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

fn yaml_place(location: &serde_saphyr::Location) -> Place {
    Place { line: location.line() as usize, column: location.column() as usize }
}

impl Raw {
    fn placed(self) -> Node {
        let at = yaml_place(&self.0.referenced);
        let value = match self.0.value {
            RawTree::Map(entries) => {
                Tree::Table(entries.into_iter().map(|(key, value)| (key.value, yaml_place(&key.referenced), value.placed())).collect())
            }
            other => Tree::Leaf(other.json()),
        };
        Node { at, value }
    }
}

impl RawTree {
    fn json(self) -> Json {
        match self {
            RawTree::Scalar(value) => value,
            RawTree::List(items) => items.into_iter().map(|item| item.0.value.json()).collect(),
            RawTree::Map(entries) => Json::Object(entries.into_iter().map(|(k, v)| (k.value, v.0.value.json())).collect()),
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::<RawTree>::deserialize(deserializer).map(Raw)
    }
}

impl<'de> Deserialize<'de> for RawTree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawTree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<RawTree, E> {
        Ok(RawTree::Scalar(Json::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<RawTree, E> {
        Ok(RawTree::Scalar(Json::Null))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<RawTree, E> {
        Ok(RawTree::Scalar(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<RawTree, E> {
        Ok(RawTree::Scalar(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<RawTree, E> {
        Ok(RawTree::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<RawTree, E> {
        Ok(RawTree::Scalar(value.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<RawTree, E> {
        Ok(RawTree::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawTree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(RawTree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawTree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(RawTree::Map(entries))
    }
}
