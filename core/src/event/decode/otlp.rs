//! How OTLP writes values in JSON: a list of `{"key": …, "value": …}` is an object, and each value is wrapped in an object
//! that names its type, `{"stringValue": "…"}`.

use super::problems::Problems;
use crate::rejection::Reason;
use serde_json::{Map, Value as Json};

/// Whether a name is one of those that OTLP wraps a single value in.
pub(super) fn wraps_one(name: &str) -> bool {
    matches!(name, "stringValue" | "intValue" | "boolValue" | "doubleValue" | "bytesValue")
}

/// Whether a name is one of those that OTLP wraps `{"values": […]}` in.
pub(super) fn wraps_many(name: &str) -> bool {
    matches!(name, "arrayValue" | "kvlistValue")
}

/// A value without what OTLP wraps it in. Nested as deep as the record at most.
pub(super) fn unwrapped(value: Json, problems: &mut Problems) -> Json {
    match value {
        Json::Object(object) if object.len() == 1 => {
            let Some((name, inner)) = object.into_iter().next() else { return Json::Null };
            match (name.as_str(), inner) {
                // Whole numbers of 64 bits are text in OTLP's JSON.
                ("intValue", Json::String(text)) => text.parse::<i64>().map_or(Json::String(text), Json::from),
                (name, inner) if wraps_one(name) => inner,
                (name, Json::Object(mut list)) if wraps_many(name) => match list.remove("values") {
                    Some(Json::Array(items)) if name == "arrayValue" => items.into_iter().map(|item| unwrapped(item, problems)).collect(),
                    Some(values) => unwrapped(values, problems),
                    None => Json::Null,
                },
                (_, inner) => Json::Object([(name, inner)].into_iter().collect()),
            }
        }
        Json::Array(items) if !items.is_empty() && items.iter().all(is_attribute) => {
            let mut object = Map::new();
            for item in items {
                let Json::Object(mut item) = item else { continue };
                let (Some(Json::String(key)), Some(value)) = (item.remove("key"), item.remove("value")) else { continue };
                if object.insert(key, unwrapped(value, problems)).is_some() {
                    problems.note(Reason::DuplicateKey, "a mapped key");
                }
            }
            Json::Object(object)
        }
        other => other,
    }
}

fn is_attribute(item: &Json) -> bool {
    item.as_object()
        .is_some_and(|object| object.len() == 2 && object.get("key").is_some_and(Json::is_string) && object.contains_key("value"))
}
