//! `schemas/asyncapi.yaml` says what the code does: names of topics and headers, schemas and examples that are there.
//!
//! Settings of the topics are compared where the code has them, in `src/stream/topics`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use tripline_core::cloud_event::{ALERT, DECISION, HEADERS, SHADOW_DECISION, STANDING};
use tripline_core::event::Event;
use tripline_core::event::cloud::ContentMode;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

fn read(file: &str) -> Value {
    let text = fs::read_to_string(folder().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    // JSON is YAML.
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn document() -> Value {
    read("asyncapi.yaml")
}

/// What a reference names; `None` if nothing is there.
fn resolved(document: &Value, reference: &str) -> Option<Value> {
    let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
    if file.is_empty() {
        return document.pointer(pointer).cloned();
    }
    folder().join(file).exists().then(|| read(file)).and_then(|found| found.pointer(pointer).cloned())
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|inner| references(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        _ => (),
    }
}

/// The object that a value is or names.
fn followed(document: &Value, value: &Value) -> Value {
    match value["$ref"].as_str() {
        Some(reference) => followed(document, &resolved(document, reference).unwrap_or_else(|| panic!("{reference} names nothing"))),
        None => value.clone(),
    }
}

fn object<'a>(value: &'a Value, name: &str) -> &'a serde_json::Map<String, Value> {
    value[name].as_object().unwrap_or_else(|| panic!("`{name}` is no object"))
}

#[test]
fn every_reference_names_something() {
    let document = document();
    let mut all = BTreeSet::new();
    references(&document, &mut all);
    let missing: Vec<_> = all.iter().filter(|reference| resolved(&document, reference).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(all.len() > 25, "{} references", all.len());
    for schema in ["alert", "dead-letter", "decision", "event", "standing"] {
        assert!(all.contains(&format!("./{schema}.schema.json")), "nothing refers to the schema of {schema}");
    }
}

/// That the examples fit their schemas is the business of `schemas.rs`, which goes by their names.
#[test]
fn examples_are_those_of_the_message_s_schema() {
    let document = document();
    let mut found = 0;
    for (name, message) in object(&document, "components")["messages"].as_object().expect("messages") {
        for example in message["examples"].as_array().into_iter().flatten() {
            for part in ["payload", "headers"] {
                let Some(file) = example[part]["$ref"].as_str() else { continue };
                let schema = message[part]["$ref"].as_str().and_then(|schema| schema.strip_suffix(".schema.json")).expect("a schema");
                let fits = file.starts_with(&schema.replace("./", "./examples/")) && !file.ends_with(".invalid.json");
                assert!(fits, "{name}: {file}");
                found += 1;
            }
        }
    }
    assert!(found >= 9, "{found} examples");
}

/// The names of topics in `config/default.toml`, by key.
fn default_topics() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(folder().join("../config/default.toml")).expect("config/default.toml");
    let mut section = "";
    let mut topics = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        }
        let Some((key, value)) = line.split_once(" = ") else { continue };
        if (section == "topics" && value.starts_with('"')) || (section == "input" && key == "topics") {
            topics.insert(key.to_owned(), value.split('"').skip(1).step_by(2).map(str::to_owned).collect());
        }
    }
    topics
}

#[test]
fn addresses_are_the_default_topics_and_each_has_one_operation() {
    let document = document();
    let topics: BTreeSet<String> = default_topics().into_values().flatten().collect();
    let channels = object(&document, "channels");
    let addresses: BTreeSet<String> =
        channels.values().map(|channel| channel["address"].as_str().expect("an address").to_owned()).collect();
    assert_eq!(addresses, topics);
    let inputs = &default_topics()["topics"];
    let mut used = BTreeSet::new();
    for (name, operation) in object(&document, "operations") {
        let reference = operation["channel"]["$ref"].as_str().expect("a channel");
        let address = followed(&document, &operation["channel"])["address"].as_str().expect("an address").to_owned();
        let expected = if inputs.contains(&address) { "receive" } else { "send" };
        assert_eq!(operation["action"], expected, "{name}");
        assert!(used.insert(reference.to_owned()), "{name}: a second operation on {reference}");
    }
    assert_eq!(used.len(), channels.len());
}

fn headers_of(document: &Value, message: &str) -> (BTreeSet<String>, Value) {
    let schema = &document["components"]["messages"][message]["headers"];
    let general = followed(document, &schema["allOf"][0]);
    (object(&general, "properties").keys().cloned().collect(), schema["allOf"][1]["properties"]["ce_type"]["const"].clone())
}

#[test]
fn headers_of_outputs_are_those_that_the_code_writes() {
    let document = document();
    let written: BTreeSet<String> = HEADERS.iter().map(|name| (*name).to_owned()).chain(["tripline-commit".to_owned()]).collect();
    // Only what came late has this one.
    let all: BTreeSet<String> = written.iter().cloned().chain(["tripline-degraded".to_owned()]).collect();
    let messages = [("decision", DECISION), ("shadowDecision", SHADOW_DECISION), ("alert", ALERT), ("standing", STANDING)];
    for (message, ty) in messages {
        assert_eq!(headers_of(&document, message), (all.clone(), Value::from(ty)), "{message}");
    }
    let required = document["components"]["schemas"]["outputHeaders"]["required"].as_array().expect("a list").clone();
    assert_eq!(required.iter().filter_map(Value::as_str).map(str::to_owned).collect::<BTreeSet<_>>(), written);
    // The headers that the core does not write.
    let outputs = fs::read_to_string(folder().join("../src/stream/outputs.rs")).expect("src/stream/outputs.rs");
    assert!(outputs.contains("\"tripline-commit\"") && outputs.contains("\"tripline-degraded\""));
}

#[test]
fn examples_of_inputs_are_read_as_they_say() {
    let document = document();
    let mut read = 0;
    for message in ["event", "cloudEventBinary", "cloudEventStructured"] {
        let examples = document["components"]["messages"][message]["examples"].as_array().expect("examples");
        for example in examples {
            let value = followed(&document, &example["payload"]).to_string();
            let headers = example["headers"].as_object().cloned().unwrap_or_default();
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str().map(str::as_bytes)));
            let mode = ContentMode::of_headers(headers);
            let expected = match message {
                "event" => matches!(mode, ContentMode::Unsaid),
                "cloudEventBinary" => matches!(mode, ContentMode::Binary(_)),
                _ => matches!(mode, ContentMode::Structured),
            };
            assert!(expected, "{message}: {mode:?}");
            let event = Event::decode_record(Some(value.as_bytes()), mode, None).unwrap_or_else(|r| panic!("{message}: {r}"));
            if message != "event" {
                assert_eq!((event.event_type.as_ref(), event.event_id.as_deref()), ("login", Some("/shop/accounts|4711")));
            }
            read += 1;
        }
    }
    assert!(read >= 5);
}

/// The attributes that the document names are the ones that change an event.
#[test]
fn attributes_of_inputs_are_those_that_the_decoder_reads() {
    let document = document();
    let named: BTreeSet<&str> = document["components"]["schemas"]["inputHeaders"]["properties"]
        .as_object()
        .expect("properties")
        .keys()
        .map(String::as_str)
        .collect();
    let envelope: BTreeSet<String> =
        document["components"]["schemas"]["envelope"]["properties"].as_object().expect("properties").keys().cloned().collect();
    let expected: BTreeSet<String> =
        named.iter().filter_map(|name| name.strip_prefix("ce_")).map(str::to_owned).chain(["data".to_owned()]).collect();
    assert_eq!(envelope, expected);
    let valid = [
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "/s"),
        ("ce_type", "t"),
        ("ce_time", "2026-02-03T08:53:20Z"),
        ("ce_subject", "s"),
        ("ce_datacontenttype", "text/plain"),
        ("ce_dataschema", "x"),
    ];
    let decode = |without: &str| {
        let headers = valid.iter().filter(|(name, _)| *name != without).map(|(name, value)| (*name, Some(value.as_bytes())));
        Event::decode_record(Some(b"{}"), ContentMode::of_headers(headers), None).ok()
    };
    let whole = decode("");
    assert!(whole.is_some());
    for (name, _) in valid {
        assert_eq!(decode(name) != whole, named.contains(name), "{name}");
    }
}
