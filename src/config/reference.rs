//! The settings described: JSON Schema, the table in the docs, effective TOML.

use super::layer::{Key, Settings};
use super::{Config, check, load, secret};
use serde_json::{Value as Json, json};
use std::fmt::Write;
use std::sync::LazyLock;

/// The JSON Schema of a settings file: nothing is required, every key has its default.
pub fn schema() -> &'static Json {
    static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
        let mut schema = schemars::schema_for!(Config).to_value();
        schema["title"] = "Tripline settings".into();
        let defaults = defaults();
        forget_required(&mut schema);
        for (section, keys) in defaults.as_object().into_iter().flatten() {
            for (key, default) in keys.as_object().into_iter().flatten() {
                if let Some(property) = property_mut(&mut schema, section, key) {
                    property["default"] = default.clone();
                }
            }
        }
        schema
    });
    &SCHEMA
}

fn defaults() -> Json {
    toml::from_str(load::DEFAULTS).unwrap_or(Json::Null)
}

fn forget_required(node: &mut Json) {
    match node {
        Json::Object(map) => {
            map.remove("required");
            map.values_mut().for_each(forget_required);
        }
        Json::Array(items) => items.iter_mut().for_each(forget_required),
        _ => {}
    }
}

fn section_type(schema: &Json, section: &str) -> Option<String> {
    let reference = schema["properties"][section]["$ref"].as_str()?;
    reference.rsplit('/').next().map(str::to_owned)
}

fn property_mut<'s>(schema: &'s mut Json, section: &str, key: &str) -> Option<&'s mut Json> {
    let ty = section_type(schema, section)?;
    schema["$defs"][ty]["properties"].get_mut(key)
}

fn property<'s>(schema: &'s Json, section: &str, key: &str) -> &'s Json {
    section_type(schema, section).map_or(&Json::Null, |ty| &schema["$defs"][ty]["properties"][key])
}

/// What a key takes, in words.
fn expected(section: &str, key: &str) -> String {
    let schema = schema();
    let property = property(schema, section, key);
    let default = property["default"].to_string();
    let example = default.trim_matches('"');
    let definition = property["$ref"].as_str().and_then(|r| r.rsplit('/').next());
    let target = definition.map_or(property, |name| &schema["$defs"][name]);
    match definition {
        Some("Span") => return format!("a length of time like `{example}` (ms, s, m, h, d)"),
        Some("Limit") => return format!("`off` or a length of time like `{example}` (ms, s, m, h, d)"),
        Some("Share") => return "`auto` or a size like `64MiB` (KiB, MiB, GiB)".to_owned(),
        Some("Bytes") => return format!("a size like `{example}` (KiB, MiB, GiB)"),
        _ => {}
    }
    if let Some(variants) = target["oneOf"].as_array() {
        return variants.iter().filter_map(|v| v["const"].as_str()).map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" or ");
    }
    match target["type"].as_str() {
        Some("integer") if target["minimum"] == json!(0) => format!("a whole number, not negative, like `{example}`"),
        Some("integer") => format!("a whole number like `{example}`"),
        Some("array") => "a list of texts".to_owned(),
        Some("object") => "a table".to_owned(),
        _ => "a text".to_owned(),
    }
}

/// Whether a value fits a key, tried on top of the defaults; the error says what the key takes.
pub fn fits(key: &Key, value: &Json) -> Result<(), String> {
    let [section, name] = key.0.as_slice() else { return Err("a setting `section.key`".to_owned()) };
    let mut tried = defaults();
    tried[section][name] = value.clone();
    serde_json::from_value::<Config>(tried).map(drop).map_err(|_| expected(section, name))
}

/// Settings as TOML, secrets masked.
pub fn render(settings: &Settings, origins: bool) -> String {
    let mut out = String::new();
    let mut open = String::new();
    // The keys of a table before the tables in it.
    let mut in_order: Vec<_> = settings.iter().filter_map(|(key, setting)| Some((key.0.split_last()?, key, setting))).collect();
    in_order.sort_by_key(|((name, parents), ..)| (*parents, *name));
    for ((name, parents), key, setting) in in_order {
        let table = parents.join(".");
        if table != open {
            let _ = writeln!(out, "{}[{table}]", if out.is_empty() { "" } else { "\n" });
            open = table;
        }
        let name = if key.property().is_some() || key.mapped_topic().is_some() {
            toml::Value::from(name.as_str()).to_string()
        } else {
            name.clone()
        };
        let value = toml::Value::try_from(secret::shown(key, setting)).map_or_else(|_| "\"\"".to_owned(), |v| v.to_string());
        let _ = if origins { writeln!(out, "{name} = {value} # {}", setting.origin) } else { writeln!(out, "{name} = {value}") };
    }
    out
}

/// The table of all keys, for `docs/configuration.md`.
pub fn markdown() -> String {
    let (schema, defaults) = (schema(), defaults());
    let mut out = String::new();
    let sections = load::section_order();
    for (section, keys) in &sections {
        let about = schema["properties"][section]["description"].as_str().unwrap_or_default();
        let _ = writeln!(out, "### `[{section}]`\n\n{about}\n\n| Key | Default | Takes | Meaning |\n|---|---|---|---|");
        for key in keys {
            let meaning = description(section, key);
            let default = toml::Value::try_from(&defaults[section][key]).map_or_else(|_| String::new(), |v| v.to_string());
            let takes = match key.as_str() {
                "properties" => "a table of texts".to_owned(),
                "mapping" => "a table of [mappings](mapping.md)".to_owned(),
                key => expected(section, key),
            };
            let _ = writeln!(out, "| `{key}` | `{default}` | {takes} | {meaning} |");
        }
        out.push('\n');
    }
    out.push_str("### Client properties that are refused\n\n| Property | Why |\n|---|---|\n");
    for (name, why) in check::refused_properties() {
        let _ = writeln!(out, "| `{name}` | {why} |");
    }
    out
}

/// The doc comment of a key.
pub fn description(section: &str, key: &str) -> String {
    property(schema(), section, key)["description"].as_str().unwrap_or_default().replace('\n', " ")
}
