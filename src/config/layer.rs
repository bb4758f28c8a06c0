//! Layers: where settings come from, and which one wins.

use super::mapping;
use super::parse::{Node, Place, Tree};
use super::report::{Report, UNKNOWN_KEY, WRONG_TYPE};
use config::{Map, Source, Value, ValueKind};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt;
use tripline_core::diagnostic::nearest;

/// `["stream", "lanes"]`; a client property is one segment, and so is a topic: `["kafka", "properties", "sasl.mechanism"]`,
/// `["input", "mapping", "app.logs"]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub Vec<String>);

impl Key {
    /// A key from its segments.
    pub fn new(segments: &[&str]) -> Key {
        Key(segments.iter().map(|s| (*s).to_owned()).collect())
    }

    /// The name of a client property, for keys under `kafka.properties`.
    pub fn property(&self) -> Option<&str> {
        match self.0.as_slice() {
            [kafka, properties, name] if kafka == "kafka" && properties == "properties" => Some(name),
            _ => None,
        }
    }

    /// The name of a topic, for keys under `input.mapping`.
    pub fn mapped_topic(&self) -> Option<&str> {
        match self.0.as_slice() {
            [input, mapping, topic] if input == "input" && mapping == "mapping" => Some(topic),
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `config/default.toml`, compiled in.
    Default,
    /// A `--config` file.
    File {
        /// Its path as given.
        path: String,
        /// Where in it.
        at: Place,
    },
    /// An environment variable.
    Environment(String),
    /// `--set`.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, at } => write!(f, "file {path}:{}:{}", at.line, at.column),
            Origin::Environment(name) => write!(f, "env {name}"),
            Origin::Flag => f.write_str("flag --set"),
        }
    }
}

impl Origin {
    /// As the text that the `config` crate carries with a value.
    fn tag(&self) -> String {
        match self {
            Origin::Default => "default".to_owned(),
            Origin::File { path, at } => format!("file:{}:{}:{path}", at.line, at.column),
            Origin::Environment(name) => format!("env:{name}"),
            Origin::Flag => "flag".to_owned(),
        }
    }

    fn from_tag(tag: &str) -> Origin {
        match tag.split_once(':') {
            Some(("env", name)) => Origin::Environment(name.to_owned()),
            Some(("file", rest)) => {
                let mut parts = rest.splitn(3, ':');
                let mut number = || parts.next().and_then(|n| n.parse().ok()).unwrap_or_default();
                let at = Place { line: number(), column: number() };
                Origin::File { path: parts.next().unwrap_or_default().to_owned(), at }
            }
            _ if tag == "flag" => Origin::Flag,
            _ => Origin::Default,
        }
    }
}

/// One value, and where it was set.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The value as written.
    pub value: Json,
    /// Where.
    pub origin: Origin,
}

/// Settings by key.
pub type Settings = BTreeMap<Key, Setting>;

/// Every key that exists, from the defaults. `kafka.properties` and `input.mapping` are open.
#[derive(Debug)]
pub struct Known(pub BTreeMap<String, Vec<String>>);

impl Known {
    /// From a settings tree that holds every key.
    pub fn of(tree: &Node) -> Known {
        let mut known = BTreeMap::new();
        if let Tree::Table(sections) = &tree.value {
            for (section, _, node) in sections {
                let Tree::Table(keys) = &node.value else { continue };
                known.insert(section.clone(), keys.iter().map(|(key, _, _)| key.clone()).collect());
            }
        }
        Known(known)
    }

    /// What is wrong with `section.key`, and the way out; `None` when it exists.
    pub fn problem(&self, section: &str, key: Option<&str>) -> Option<(String, String)> {
        let Some(keys) = self.0.get(section) else {
            let help = nearest(section, self.0.keys().map(String::as_str))
                .map_or_else(|| format!("sections are {}", join(self.0.keys())), |near| format!("did you mean `{near}`?"));
            return Some((format!("unknown section `{section}`"), help));
        };
        let key = key?;
        if keys.iter().any(|k| k == key) {
            return None;
        }
        let elsewhere =
            || self.0.iter().find(|(_, keys)| keys.iter().any(|k| k == key)).map(|(section, _)| format!("did you mean `{section}.{key}`?"));
        let help = nearest(key, keys.iter().map(String::as_str))
            .map(|near| format!("did you mean `{section}.{near}`?"))
            .or_else(elsewhere)
            .unwrap_or_else(|| format!("keys of `{section}` are {}", join(keys.iter())));
        Some((format!("unknown key `{section}.{key}`"), help))
    }
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// The settings of one file; unknown keys go to the report.
pub fn flatten(tree: Node, known: &Known, origin: impl Fn(Place) -> Origin, report: &mut Report) -> Settings {
    let mut found = Settings::new();
    let Tree::Table(sections) = tree.value else {
        report.problem(
            WRONG_TYPE,
            &origin(tree.at),
            "settings are sections with keys",
            Some("write `[stream]` and below it `lanes = 2`".into()),
        );
        return found;
    };
    for (section, section_at, node) in sections {
        if let Some((message, help)) = known.problem(&section, None) {
            report.problem(UNKNOWN_KEY, &origin(section_at), message, Some(help));
            continue;
        }
        let Tree::Table(keys) = node.value else {
            if !matches!(node.value, Tree::Leaf(Json::Null)) {
                let help = format!("write `[{section}]` and its keys below it");
                report.problem(WRONG_TYPE, &origin(node.at), format!("`{section}` is a section, not a value"), Some(help));
            }
            continue;
        };
        for (key, key_at, node) in keys {
            if let Some((message, help)) = known.problem(&section, Some(&key)) {
                report.problem(UNKNOWN_KEY, &origin(key_at), message, Some(help));
            } else if section == "kafka" && key == "properties" {
                properties(node, "", &origin, &mut found, report);
            } else if section == "input" && key == "mapping" {
                mapping::of_file(node, &origin, &mut found, report);
            } else {
                let value = match node.value {
                    Tree::Leaf(value) => value,
                    Tree::Table(_) => Json::Object(serde_json::Map::new()),
                };
                found.insert(Key(vec![section.clone(), key]), Setting { value, origin: origin(node.at) });
            }
        }
    }
    found
}

/// Client properties: `"sasl.mechanism" = "PLAIN"` and `sasl.mechanism = "PLAIN"` are the same.
fn properties(node: Node, prefix: &str, origin: &impl Fn(Place) -> Origin, found: &mut Settings, report: &mut Report) {
    match node.value {
        Tree::Table(entries) => {
            for (name, _, node) in entries {
                let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                properties(node, &name, origin, found, report);
            }
        }
        Tree::Leaf(Json::Null) if prefix.is_empty() => {}
        Tree::Leaf(_) if prefix.is_empty() => {
            report.problem(
                WRONG_TYPE,
                &origin(node.at),
                "`kafka.properties` is a table of properties",
                Some("write `[kafka.properties]` and below it `\"sasl.mechanism\" = \"PLAIN\"`".into()),
            );
        }
        Tree::Leaf(value) => {
            found.insert(Key::new(&["kafka", "properties", prefix]), Setting { value, origin: origin(node.at) });
        }
    }
}

/// One layer, as the `config` crate wants it.
#[derive(Debug, Clone)]
struct Layer(Settings);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let mut root = Map::new();
        for (key, setting) in &self.0 {
            let tag = setting.origin.tag();
            // Values travel as JSON text: what the crate would convert on its way stays as it was written.
            insert(&mut root, &key.0, &tag, setting.value.to_string());
        }
        Ok(root)
    }
}

fn insert(table: &mut Map<String, Value>, path: &[String], tag: &String, text: String) {
    match path {
        [] => {}
        [last] => drop(table.insert(last.clone(), Value::new(Some(tag), ValueKind::String(text)))),
        [first, rest @ ..] => {
            let next = table.entry(first.clone()).or_insert_with(|| Value::new(Some(tag), ValueKind::Table(Map::new())));
            if let ValueKind::Table(inner) = &mut next.kind {
                insert(inner, rest, tag, text);
            }
        }
    }
}

/// Lays the layers over each other; the last one that sets a key wins.
pub fn merge(layers: Vec<Settings>) -> Result<Settings, config::ConfigError> {
    let mut builder = config::Config::builder();
    for layer in layers {
        builder = builder.add_source(Layer(layer));
    }
    let mut merged = Settings::new();
    gather(builder.build()?.collect()?, &mut Vec::new(), &mut merged);
    Ok(merged)
}

fn gather(table: Map<String, Value>, path: &mut Vec<String>, merged: &mut Settings) {
    for (name, value) in table {
        let origin = Origin::from_tag(value.origin().unwrap_or_default());
        path.push(name);
        match value.kind {
            ValueKind::Table(inner) => gather(inner, path, merged),
            ValueKind::String(text) => {
                let value = serde_json::from_str(&text).unwrap_or(Json::Null);
                merged.insert(Key(path.clone()), Setting { value, origin });
            }
            _ => {}
        }
        path.pop();
    }
}
