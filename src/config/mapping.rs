//! `input.mapping`: for each topic, how its records become events. Each topic is a setting by itself, so a later layer
//! replaces the mapping of one topic. A mapping is checked and compiled where it is read, while its place is known.

use super::layer::{Key, Origin, Setting, Settings};
use super::parse::{Node, Place, Tree};
use super::report::{MAPPING, Report, WRONG_TYPE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value as Json};
use std::sync::Arc;
use tripline_core::event::mapping::{Mapping, Problem, SETS};

/// The mapping of every input topic that has none of its own.
pub const EVERY_TOPIC: &str = "*";

/// The mapping of one topic, compiled, and as it was written.
#[derive(Debug, Clone)]
pub struct TopicMapping {
    written: Json,
    mapping: Arc<Mapping>,
}

impl TopicMapping {
    /// What the decoder takes.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
}

impl PartialEq for TopicMapping {
    fn eq(&self, other: &TopicMapping) -> bool {
        self.written == other.written
    }
}

impl Serialize for TopicMapping {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(s)
    }
}

impl<'de> Deserialize<'de> for TopicMapping {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<TopicMapping, D::Error> {
        let written = Json::deserialize(d)?;
        let first = |problems: Vec<Problem>| problems.into_iter().next().map_or_else(String::new, |p| p.message);
        let mapping = Mapping::compile(&written).map_err(|problems| serde::de::Error::custom(first(problems)))?;
        Ok(TopicMapping { written, mapping: Arc::new(mapping) })
    }
}

impl schemars::JsonSchema for TopicMapping {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TopicMapping".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let path = serde_json::json!({"type": "string", "minLength": 1, "maxLength": tripline_core::event::mapping::MAX_PATH_BYTES});
        let place = serde_json::json!({
            "type": "object",
            "properties": {
                "path": path,
                "unit": {"enum": ["s", "ms", "us", "ns"]},
                "since": path,
                "values": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "required": ["path"],
            "additionalProperties": false,
        });
        let constant = serde_json::json!({
            "type": "object",
            "properties": {"const": {"type": ["string", "number", "boolean"]}},
            "required": ["const"],
            "additionalProperties": false,
        });
        let source = serde_json::json!({"anyOf": [path, place, constant]});
        let sources = serde_json::json!({"type": "array", "maxItems": tripline_core::event::mapping::MAX_SOURCES, "items": source});
        schemars::json_schema!({
            "description": "How the records of a topic become events: a shipped set, or a table; docs/mapping.md has the language.",
            "anyOf": [
                {"enum": SETS},
                {
                    "type": "object",
                    "properties": {
                        "set": {"enum": SETS},
                        "fields": {"type": "object", "additionalProperties": {"anyOf": [path, place, constant, sources]}},
                    },
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// The table of a file; each problem stands at its key.
pub(super) fn of_file(node: Node, origin: &impl Fn(Place) -> Origin, found: &mut Settings, report: &mut Report) {
    let topics = match node.value {
        Tree::Table(topics) => topics,
        Tree::Leaf(Json::Null) => return,
        Tree::Leaf(Json::String(text)) => return of_text(&text, &origin(node.at), found, report),
        Tree::Leaf(_) => return not_a_table(&origin(node.at), report),
    };
    for (topic, _, node) in topics {
        let written = json(&node);
        let at = |problem: &Problem| origin(place(&node, &problem.at));
        keep(&topic, written, &origin(node.at), at, found, report);
    }
}

/// A text from outside a file: `topic=set,topic=set`, or the table as JSON.
pub(super) fn of_text(text: &str, origin: &Origin, found: &mut Settings, report: &mut Report) {
    if text.trim_start().starts_with('{') {
        let Ok(topics) = serde_json::from_str::<Map<String, Json>>(text) else { return not_a_table(origin, report) };
        for (topic, written) in topics {
            keep(&topic, written, origin, |_| origin.clone(), found, report);
        }
        return;
    }
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.split_once('=') {
            Some((topic, set)) => of_topic(topic.trim(), set.trim(), origin, found, report),
            None => not_a_table(origin, report),
        }
    }
}

/// A text for one topic: the name of a set, or a mapping as JSON.
pub(super) fn of_topic(topic: &str, text: &str, origin: &Origin, found: &mut Settings, report: &mut Report) {
    let written = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).unwrap_or(Json::Null),
        false => text.into(),
    };
    keep(topic, written, origin, |_| origin.clone(), found, report);
}

fn not_a_table(origin: &Origin, report: &mut Report) {
    let help = "write `[input.mapping]` and below it `\"app.logs\" = \"ecs\"`; in the environment `app.logs=ecs`, or the table as JSON";
    report.problem(WRONG_TYPE, origin, "`input.mapping` is a table of topics", Some(help.to_owned()));
}

/// Keeps the mapping of a topic, if it is one.
fn keep(topic: &str, written: Json, origin: &Origin, at: impl Fn(&Problem) -> Origin, found: &mut Settings, report: &mut Report) {
    match Mapping::compile(&written) {
        Ok(_) => {
            found.insert(Key::new(&["input", "mapping", topic]), Setting { value: written, origin: origin.clone() });
        }
        Err(problems) => {
            for problem in problems {
                let inside = if problem.at.is_empty() { String::new() } else { format!(", `{}`", problem.at.join(".")) };
                let message = format!("mapping of `{topic}`{inside}: {}", problem.message);
                report.problem(MAPPING, &at(&problem), message, problem.help);
            }
        }
    }
}

fn json(node: &Node) -> Json {
    match &node.value {
        Tree::Leaf(value) => value.clone(),
        Tree::Table(entries) => Json::Object(entries.iter().map(|(key, _, node)| (key.clone(), json(node))).collect()),
    }
}

/// The place of the innermost key that a problem names.
fn place(node: &Node, names: &[String]) -> Place {
    let (mut node, mut at) = (node, node.at);
    for name in names {
        let Tree::Table(entries) = &node.value else { break };
        let Some((_, key_at, inner)) = entries.iter().find(|(key, ..)| key == name) else { break };
        (node, at) = (inner, *key_at);
    }
    at
}
