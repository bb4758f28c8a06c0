//! A mapping as written: the name of a set, or `{set, fields}`. Everything wrong with it is found in one reading.

use super::source::{Fields, Source, Target, Unit};
use super::{MAX_PATH_BYTES, MAX_PATH_NAMES, MAX_SOURCES, Problem, SETS};
use crate::diagnostic::nearest;
use crate::event::FIELDS;
use serde_json::{Map, Value as Json};

/// What was written.
#[derive(Debug)]
pub(super) struct Read {
    set: Option<String>,
    own: usize,
    /// Those of the set, and over them its own.
    pub fields: Fields,
}

impl Read {
    /// Whether records are events as they are.
    pub fn is_plain(&self) -> bool {
        self.own == 0 && self.set.as_deref() == Some("tripline")
    }

    pub fn summary(&self) -> String {
        let own = match self.own {
            1 => "1 field of its own".to_owned(),
            own => format!("{own} fields of its own"),
        };
        match &self.set {
            Some(set) if self.own == 0 => set.clone(),
            Some(set) => format!("{set} with {own}"),
            None => own,
        }
    }
}

/// Problems, and where in the mapping we are.
struct Reader {
    at: Vec<String>,
    problems: Vec<Problem>,
}

/// Reads a mapping; its fields are checked each for itself.
pub(super) fn read(written: &Json) -> Result<Read, Vec<Problem>> {
    let mut reader = Reader { at: Vec::new(), problems: Vec::new() };
    let mut read = Read { set: None, own: 0, fields: Fields::new() };
    match written {
        Json::String(set) => read.set = reader.set(set),
        Json::Object(object) => reader.object(object, &mut read),
        _ => reader.problem("a mapping is the name of a set, or a table", "write \"ecs\", or { set = \"ecs\", fields = { … } }"),
    }
    let mut fields = read.set.as_deref().map(shipped).unwrap_or_default();
    fields.append(&mut read.fields);
    read.fields = fields;
    if reader.problems.is_empty() {
        reader.required(&read.fields);
    }
    if reader.problems.is_empty() { Ok(read) } else { Err(reader.problems) }
}

/// The fields of a shipped set.
pub(super) fn shipped(set: &str) -> Fields {
    let text = match set {
        "ecs" => include_str!("sets/ecs.json"),
        "nginx-json" => include_str!("sets/nginx-json.json"),
        "otel" => include_str!("sets/otel.json"),
        _ => return own_names(),
    };
    let mut reader = Reader { at: Vec::new(), problems: Vec::new() };
    let object: Map<String, Json> = serde_json::from_str(text).expect("a shipped set is JSON: a test holds it to that");
    let fields = reader.fields(&object);
    assert!(reader.problems.is_empty(), "a shipped set has no problems: a test holds it to that");
    fields
}

/// Every field under its own name.
fn own_names() -> Fields {
    let names = FIELDS.iter().map(|row| row.name).chain(["headers", "data"]);
    let place = |path: &str| Source::Place { path: path.to_owned(), unit: Unit::default(), since: None, values: Vec::new() };
    names.filter_map(|name| Some((Target::named(name)?, vec![place(name)]))).collect()
}

impl Reader {
    fn problem(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem { at: self.at.clone(), message: message.into(), help: Some(help.into()) });
    }

    /// Does `work` one level deeper.
    fn inside<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        self.at.push(name.to_owned());
        let done = work(self);
        self.at.pop();
        done
    }

    fn set(&mut self, name: &str) -> Option<String> {
        if SETS.contains(&name) {
            return Some(name.to_owned());
        }
        let sets = || format!("shipped sets are {}", listed(SETS));
        let help = nearest(name, SETS).map_or_else(sets, |near| format!("did you mean `{near}`?"));
        self.problem(format!("there is no mapping `{name}`"), help);
        None
    }

    fn object(&mut self, object: &Map<String, Json>, read: &mut Read) {
        for (key, value) in object {
            self.inside(key, |reader| match (key.as_str(), value) {
                ("set", Json::String(set)) => read.set = reader.set(set),
                ("set", _) => reader.problem("`set` is not a text", format!("shipped sets are {}", listed(SETS))),
                ("fields", Json::Object(fields)) => {
                    read.own = fields.len();
                    read.fields = reader.fields(fields);
                }
                ("fields", _) => reader.problem("`fields` is not a table", "write fields = { user_id = \"account.id\" }"),
                (key, _) => {
                    let help = match nearest(key, ["set", "fields"]) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "a mapping has `set` and `fields`; a topic with dots in its name stands in quotes".to_owned(),
                    };
                    reader.problem(format!("unknown key `{key}` of a mapping"), help);
                }
            });
        }
    }

    fn fields(&mut self, object: &Map<String, Json>) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in object {
            self.inside(name, |reader| {
                let Some(target) = Target::named(name) else { return reader.unknown_field(name) };
                let sources = reader.sources(&target, value);
                if fields.insert(target, sources).is_some() {
                    reader.problem(format!("`{name}` is mapped twice"), "names of headers are the same in upper and lower case");
                }
            });
        }
        fields
    }

    fn unknown_field(&mut self, name: &str) {
        let known = FIELDS.iter().map(|row| row.name).chain(["headers", "data"]);
        let help = nearest(name, known).map_or_else(
            || "fields are those of docs/event.md, `headers.NAME` and `data.NAME`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        self.problem(format!("events have no field `{name}`"), help);
    }

    /// One source, or a list of them.
    fn sources(&mut self, target: &Target, value: &Json) -> Vec<Source> {
        let Json::Array(items) = value else { return self.source(target, value).into_iter().collect() };
        if items.len() > MAX_SOURCES {
            self.problem(format!("{} sources for one field", items.len()), format!("at most {MAX_SOURCES}"));
        }
        let found: Vec<Source> = items.iter().take(MAX_SOURCES).filter_map(|item| self.source(target, item)).collect();
        if found.iter().rev().skip(1).any(|source| matches!(source, Source::Constant(_))) {
            self.problem("nothing after a constant is ever read", "put the constant last");
        }
        found
    }

    fn source(&mut self, target: &Target, value: &Json) -> Option<Source> {
        match value {
            Json::String(path) => {
                let path = self.path(path)?;
                Some(Source::Place { path, unit: Unit::default(), since: None, values: Vec::new() })
            }
            Json::Object(object) if object.contains_key("const") => self.constant(target, object),
            Json::Object(object) => self.place(target, object),
            _ => {
                let help = "write a path (\"user.id\"), { path = \"took\", unit = \"s\" }, { const = \"http_request\" }, or a list of them";
                self.problem(format!("`{}` is not a source of `{}`", short(value), target.name()), help);
                None
            }
        }
    }

    fn constant(&mut self, target: &Target, object: &Map<String, Json>) -> Option<Source> {
        for key in object.keys().filter(|key| *key != "const") {
            self.inside(key, |reader| reader.problem(format!("`{key}` says nothing beside `const`"), "leave it out"));
        }
        let value = &object["const"];
        let fits = match target {
            Target::Named(index) => {
                let mut event = serde_json::json!({"event_time": crate::time::EARLIEST_MS, "event_type": "t"});
                event[FIELDS[*index].name] = value.clone();
                crate::event::Event::decode(Some(event.to_string().as_bytes())).is_ok()
            }
            Target::Header(_) => value.as_str().is_some_and(|text| !text.contains('\0')),
            Target::Data(names) if !names.is_empty() => match value {
                Json::String(text) => !text.contains('\0'),
                other => other.is_number() || other.is_boolean(),
            },
            Target::Headers | Target::Data(_) => false,
        };
        if !fits || value.is_null() {
            self.inside("const", |r| {
                r.problem(format!("`{}` cannot be {}", target.name(), short(value)), "see docs/event.md for what it takes")
            });
            return None;
        }
        Some(Source::Constant(value.clone()))
    }

    fn place(&mut self, target: &Target, object: &Map<String, Json>) -> Option<Source> {
        const KEYS: [&str; 5] = ["path", "unit", "since", "values", "const"];
        let (mut path, mut unit, mut since, mut values) = (None, Unit::default(), None, Vec::new());
        for (key, value) in object {
            self.inside(key, |reader| match (key.as_str(), value) {
                ("path", Json::String(text)) => path = reader.path(text),
                ("since", Json::String(text)) if target.has_unit() && target.name() != "event_time" => since = reader.path(text),
                ("since", _) => reader.problem("`since` is a path, and only for `response_time_ms`", "leave it out"),
                ("unit", Json::String(name)) if target.has_unit() => match Unit::named(name) {
                    Some(named) => unit = named,
                    None => reader.problem(format!("`{name}` is no unit"), format!("units are {}", listed(Unit::NAMES))),
                },
                ("unit", _) => reader.problem("`unit` is a text, and only for `event_time` and `response_time_ms`", "leave it out"),
                ("values", Json::Object(words)) if target.is_text() => values = reader.values(target, words),
                ("values", _) => reader.problem("`values` is a table, and only for fields of text", "leave it out"),
                ("path", _) => reader.problem("`path` is not a text", "write names with dots between them: \"http.request.method\""),
                (key, _) => {
                    let help =
                        nearest(key, KEYS).map_or_else(|| format!("keys are {}", listed(KEYS)), |near| format!("did you mean `{near}`?"));
                    reader.problem(format!("unknown key `{key}` of a source"), help);
                }
            });
        }
        if !object.contains_key("path") {
            self.problem("neither `path` nor `const`", "say where the value stands: { path = \"took\" }");
        }
        path.map(|path| Source::Place { path, unit, since, values })
    }

    fn values(&mut self, target: &Target, words: &Map<String, Json>) -> Vec<(String, String)> {
        let mut values = Vec::new();
        for (theirs, ours) in words {
            let word = Map::from_iter([("const".to_owned(), ours.clone())]);
            self.inside(theirs, |reader| match ours {
                Json::String(text) => values.extend(reader.constant(target, &word).map(|_| (theirs.clone(), text.clone()))),
                _ => reader.problem(format!("`{theirs}` does not become a text"), "write values = { success = \"ok\" }"),
            });
        }
        values
    }

    fn path(&mut self, path: &str) -> Option<String> {
        let names = path.split('.').count();
        let why = if path.is_empty() || path.split('.').any(str::is_empty) {
            "has an empty name"
        } else if path.contains(['[', ']']) || path.starts_with(['$', '/']) || path.contains(char::is_control) {
            "is not a path of names"
        } else if path.len() > MAX_PATH_BYTES || names > MAX_PATH_NAMES {
            "is too long"
        } else {
            return Some(path.to_owned());
        };
        let help = "a path is names with dots between them (\"http.request.method\"); a list stands for its first item";
        self.problem(format!("`{}` {why}", path.chars().take(64).collect::<String>().escape_default()), help);
        None
    }

    /// Without these no record could become an event.
    fn required(&mut self, fields: &Fields) {
        for name in ["event_time", "event_type"] {
            let has_source = Target::named(name).and_then(|target| fields.get(&target)).is_some_and(|sources| !sources.is_empty());
            if !has_source {
                self.problem(format!("nothing says where `{name}` comes from"), "map it, or start from a `set`");
            }
        }
    }
}

fn listed<const N: usize>(names: [&str; N]) -> String {
    names.map(|n| format!("`{n}`")).join(", ")
}

/// A value of the settings, cut short for a message.
fn short(value: &Json) -> String {
    value.to_string().chars().take(64).collect()
}
