//! The parts of a mapping: which field, and where its value may come from.

use crate::event::{FIELDS, Field};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What a mapping fills, in the order of the event's fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A row of [`FIELDS`].
    Named(usize),
    /// All headers, from one object.
    Headers,
    /// One header, its name in lower case.
    Header(String),
    /// A place under `data`; without names, all of it, from one object.
    Data(Vec<String>),
}

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Option<Target> {
        match name.split_once('.') {
            // A header's name is a token: it may have dots, but neither spaces nor controls.
            Some(("headers", header)) => {
                let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                (!header.is_empty() && header.bytes().all(is_token)).then(|| Target::Header(header.to_ascii_lowercase()))
            }
            Some(("data", rest)) => {
                let is_name = |n: &str| !n.is_empty() && !n.contains(char::is_control);
                rest.split('.').all(is_name).then(|| Target::Data(rest.split('.').map(str::to_owned).collect()))
            }
            Some(_) => None,
            None if name == "headers" => Some(Target::Headers),
            None if name == "data" => Some(Target::Data(Vec::new())),
            None => match Field::named(&[name])? {
                Field::Named(index) => Some(Target::Named(index)),
                _ => None,
            },
        }
    }

    /// Its name, as rules write it.
    pub fn name(&self) -> String {
        match self {
            Target::Named(index) => FIELDS[*index].name.to_owned(),
            Target::Headers => "headers".to_owned(),
            Target::Header(name) => format!("headers.{name}"),
            Target::Data(names) if names.is_empty() => "data".to_owned(),
            Target::Data(names) => format!("data.{}", names.join(".")),
        }
    }

    /// Whether numbers for it count units of time.
    pub fn has_unit(&self) -> bool {
        matches!(self, Target::Named(index) if matches!(FIELDS[*index].name, "event_time" | "response_time_ms"))
    }

    /// Whether its value is text of the app's own.
    pub fn is_text(&self) -> bool {
        match self {
            Target::Named(index) => FIELDS[*index].ty == crate::value::Type::Str,
            Target::Header(_) => true,
            Target::Headers | Target::Data(_) => false,
        }
    }
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::event) enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds, which is what events have.
    #[default]
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

impl Unit {
    /// The words for units.
    pub const NAMES: [&'static str; 4] = ["s", "ms", "us", "ns"];

    /// The unit of this word.
    pub fn named(name: &str) -> Option<Unit> {
        let units = [Unit::Seconds, Unit::Milliseconds, Unit::Microseconds, Unit::Nanoseconds];
        Unit::NAMES.iter().position(|n| *n == name).map(|index| units[index])
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        Unit::NAMES[self as usize]
    }
}

/// Where one value may come from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// From the record.
    Place {
        /// Names with dots between them.
        path: String,
        /// What numbers there count.
        unit: Unit,
        /// Another place: the value is the time between the two.
        since: Option<String>,
        /// Words of the record and ours for them.
        values: Vec<(String, String)>,
    },
    /// Always this.
    Constant(Json),
}

/// Fields and their sources, the first source that has a value wins.
pub(super) type Fields = BTreeMap<Target, Vec<Source>>;
