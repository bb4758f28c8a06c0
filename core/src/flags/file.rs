//! A flags file: a YAML map (JSON is YAML), read with the place of everything in it, all problems reported at once.

use super::Flag;
use crate::diagnostic::{Diagnostic, nearest};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use std::collections::BTreeMap;
use std::fmt;

const KEYS: [&str; 4] = ["enabled", "rollout_percentage", "users", "staff_only"];

/// Any value, with the places of what is inside it.
enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float,
    Text(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of flags")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Node, E> {
        Ok(Node::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Int(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Int(number.into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Float)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Map(members))
    }
}

/// Reads the file or says everything that is wrong with it.
pub(super) fn read(file: &str, text: &str) -> Result<BTreeMap<String, Flag>, Vec<Diagnostic>> {
    let mut reader = Reader { file, text, found: Vec::new() };
    let mut flags = BTreeMap::new();
    match serde_saphyr::from_str::<Spanned<Node>>(text) {
        Err(error) => {
            let place = error.location().unwrap_or(Location::UNKNOWN);
            // The parser's message ends with the place, which the diagnostic has already.
            let message = error.without_snippet().to_string();
            let message = message.lines().next().unwrap_or_default().split(" at line ").next().unwrap_or_default().to_owned();
            reader.note("F001", place, format!("the flags file is not valid YAML or JSON: {message}"), None);
        }
        Ok(Spanned { value: Node::Null, .. }) => (),
        Ok(Spanned { value: Node::Map(members), .. }) => {
            for (name, node) in members {
                if name.value.is_empty() {
                    reader.note("F002", name.referenced, "a flag needs a name".into(), None);
                } else if let Some(flag) = reader.flag(&name.value, node) {
                    flags.insert(name.value, flag);
                }
            }
        }
        Ok(other) => {
            let help = "write `FLAG_NAME: true`, one flag a line".to_owned();
            reader.note("F003", other.referenced, "the flags file must be a map from flag name to flag".into(), Some(help));
        }
    }
    if reader.found.is_empty() { Ok(flags) } else { Err(reader.found) }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn note(&mut self, code: &'static str, place: Location, message: String, help: Option<String>) {
        let (line, column) = (place.line() as usize, place.column() as usize);
        let excerpt = line.checked_sub(1).and_then(|above| self.text.lines().nth(above)).map(str::to_owned);
        self.found.push(Diagnostic { code, file: self.file.to_owned(), line, column, message, excerpt, help });
    }

    fn flag(&mut self, name: &str, node: Spanned<Node>) -> Option<Flag> {
        let mut flag = Flag { enabled: true, rollout_percentage: 100, users: Vec::new(), staff_only: false };
        match node.value {
            Node::Bool(enabled) => flag.enabled = enabled,
            Node::Map(members) => {
                let before = self.found.len();
                for (key, value) in members {
                    self.member(name, &mut flag, key, value);
                }
                return (self.found.len() == before).then_some(flag);
            }
            _ => {
                let help = format!("an object has {}", KEYS.join(", "));
                self.note("F003", node.referenced, format!("flag `{name}` must be true, false or an object"), Some(help));
                return None;
            }
        }
        Some(flag)
    }

    fn member(&mut self, name: &str, flag: &mut Flag, key: Spanned<String>, value: Spanned<Node>) {
        let place = value.referenced;
        match (key.value.as_str(), value.value) {
            ("enabled", Node::Bool(truth)) => flag.enabled = truth,
            ("staff_only", Node::Bool(truth)) => flag.staff_only = truth,
            ("rollout_percentage", Node::Int(number)) => match u8::try_from(number) {
                Ok(percentage) if percentage <= 100 => flag.rollout_percentage = percentage,
                _ => self.note("F004", place, format!("`rollout_percentage` of flag `{name}` must lie between 0 and 100"), None),
            },
            ("users", Node::List(items)) => items.into_iter().for_each(|item| self.user(name, flag, item)),
            ("users", Node::Null) => (),
            ("enabled" | "staff_only", _) => {
                self.note("F003", place, format!("`{}` of flag `{name}` must be true or false", key.value), None)
            }
            ("rollout_percentage", _) => {
                self.note("F003", place, format!("`rollout_percentage` of flag `{name}` must be a whole number"), None);
            }
            ("users", _) => self.note("F003", place, format!("`users` of flag `{name}` must be a list of user ids"), None),
            (unknown, _) => {
                let help =
                    nearest(unknown, KEYS).map_or_else(|| format!("the keys are {}", KEYS.join(", ")), |k| format!("did you mean `{k}`?"));
                self.note("F002", key.referenced, format!("flag `{name}` has no key `{unknown}`"), Some(help));
            }
        }
    }

    fn user(&mut self, name: &str, flag: &mut Flag, item: Spanned<Node>) {
        match item.value {
            Node::Text(user) => flag.users.push(user),
            Node::Int(user) => flag.users.push(user.to_string()),
            _ => self.note("F003", item.referenced, format!("a user of flag `{name}` must be an id: text or a whole number"), None),
        }
    }
}
