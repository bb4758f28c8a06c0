//! YAML to a tree that knows where every key and value stands in its file.
//!
//! Rules are not deserialised straight into their types: a derive stops at the first problem, and a pack's author wants
//! all of them. The tree is read by [`super::fields`], which reports and goes on.

use super::codes;
use super::report::{Place, Report};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands; a value taken from a setting stands where the setting is named.
    pub at: Place,
    /// What it is.
    pub value: Tree,
    /// The setting that it came from.
    pub setting: Option<String>,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Tree {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text, quoted or not.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the file's order.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: Place,
    /// The value.
    pub value: Node,
}

impl Tree {
    /// What it is, in a word for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Tree::Null => "nothing",
            Tree::Bool(_) => "a truth value",
            Tree::Int(_) => "a whole number",
            Tree::Float(_) => "a number with a fraction",
            Tree::Text(_) => "text",
            Tree::List(_) => "a list",
            Tree::Map(_) => "a map",
        }
    }

    /// A JSON value (of an override) as a tree; its nodes stand at `at`.
    pub fn from_json(value: &serde_json::Value, at: Place) -> Tree {
        use serde_json::Value;
        let node = |v: &Value| Node { at, value: Tree::from_json(v, at), setting: None };
        match value {
            Value::Null => Tree::Null,
            Value::Bool(b) => Tree::Bool(*b),
            Value::Number(n) => n.as_i64().map_or_else(|| Tree::Float(n.as_f64().unwrap_or(f64::INFINITY)), Tree::Int),
            Value::String(s) => Tree::Text(s.clone()),
            Value::Array(items) => Tree::List(items.iter().map(node).collect()),
            Value::Object(map) => Tree::Map(map.iter().map(|(k, v)| Entry { key: k.clone(), at, value: node(v) }).collect()),
        }
    }
}

/// Every document of a file. A document that is not YAML is reported, and the others are still read.
pub fn documents(file: usize, report: &mut Report<'_>) -> Vec<Node> {
    let files = report.files();
    let mut found = Vec::new();
    for (line_offset, text) in split(&files[file].text) {
        if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#') || l.trim_end() == "---") {
            continue;
        }
        // `mode: off` is a word, not a truth value.
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        match serde_saphyr::from_str_with_options::<Raw>(text, options) {
            Ok(raw) => found.push(raw.placed(file, line_offset)),
            Err(error) => {
                let location = error.location();
                let line = location.map_or(0, |l| l.line() as usize);
                let at = Place {
                    file,
                    line: if line == 0 { 0 } else { line + line_offset },
                    column: location.map_or(0, |l| l.column() as usize),
                };
                let whole = error.without_snippet().to_string();
                let message = whole.lines().next().unwrap_or_default();
                let message = message.split(" at line ").next().unwrap_or_default().trim_start_matches("error: ");
                report.problem(codes::YAML, at, format!("not readable as YAML: {message}"), None);
            }
        }
    }
    found
}

/// Cuts a stream into its documents, each with the number of lines before it. A line that starts with `---` separates
/// documents wherever it stands, block scalars included: YAML forbids it inside one.
fn split(text: &str) -> Vec<(usize, &str)> {
    let (mut parts, mut start, mut start_line, mut offset) = (Vec::new(), 0, 0, 0);
    for (line_number, line) in text.split_inclusive('\n').enumerate() {
        let is_marker = line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_marker && offset > start {
            parts.push((start_line, &text[start..offset]));
            (start, start_line) = (offset, line_number);
        }
        offset += line.len();
    }
    parts.push((start_line, &text[start..]));
    parts
}

/// The tree as deserialised, with places inside its document.
struct Raw(Spanned<RawTree>);

enum RawTree {
    Leaf(Tree),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

impl Raw {
    fn placed(self, file: usize, line_offset: usize) -> Node {
        let place = |l: &serde_saphyr::Location| Place { file, line: l.line() as usize + line_offset, column: l.column() as usize };
        let at = place(&self.0.referenced);
        let value = match self.0.value {
            RawTree::Leaf(leaf) => leaf,
            RawTree::List(items) => Tree::List(items.into_iter().map(|i| i.placed(file, line_offset)).collect()),
            RawTree::Map(entries) => Tree::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| Entry { at: place(&key.referenced), key: key.value, value: value.placed(file, line_offset) })
                    .collect(),
            ),
        };
        Node { at, value, setting: None }
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
        Ok(RawTree::Leaf(Tree::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<RawTree, E> {
        Ok(RawTree::Leaf(Tree::Null))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<RawTree, E> {
        Ok(RawTree::Leaf(Tree::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<RawTree, E> {
        Ok(RawTree::Leaf(Tree::Int(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<RawTree, E> {
        Ok(RawTree::Leaf(i64::try_from(value).map_or(Tree::Float(value as f64), Tree::Int)))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<RawTree, E> {
        Ok(RawTree::Leaf(i64::try_from(value).map_or(Tree::Float(value as f64), Tree::Int)))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<RawTree, E> {
        Ok(RawTree::Leaf(i64::try_from(value).map_or(Tree::Float(value as f64), Tree::Int)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<RawTree, E> {
        Ok(RawTree::Leaf(Tree::Float(value)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<RawTree, E> {
        Ok(RawTree::Leaf(Tree::Text(value.to_owned())))
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
