//! The schemas in `schemas/` are those of the code, and the examples beside them say what they claim to say.
//!
//! `TRIPLINE_BLESS=1 cargo test -p tripline-core --test schemas` writes the schemas anew.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tripline_core::event::{Event, FIELDS};
use tripline_core::rejection::Reason;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

fn generated(file: &str) -> Value {
    let (_, schema) = tripline_core::schema::all().into_iter().find(|(name, _)| *name == file).expect("a schema of this name");
    schema.to_value()
}

fn validator(file: &str) -> jsonschema::Validator {
    jsonschema::options().should_validate_formats(true).build(&generated(file)).expect("the schema is a schema")
}

#[test]
fn the_files_are_what_the_types_say() {
    for (file, schema) in tripline_core::schema::all() {
        let path = folder().join(file);
        let expected = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
        if std::env::var_os("TRIPLINE_BLESS").is_some() {
            fs::write(&path, &expected).expect("schemas/ can be written");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        // As values: the order of keys depends on the features of a JSON library.
        let found: Value = serde_json::from_str(&found).unwrap_or_default();
        assert_eq!(found, schema.to_value(), "{file} is out of date: run this test with TRIPLINE_BLESS=1");
        assert_eq!(found["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(found["$id"].as_str().is_some_and(|id| id.ends_with(file)) && found["description"].is_string(), "{file}");
    }
}

/// `event.login.json` must fit `event.schema.json`; `event.login.invalid.json` must not.
#[test]
fn examples_fit_their_schema_and_invalid_ones_do_not() {
    let mut counts = std::collections::BTreeMap::<(String, bool), usize>::new();
    for entry in fs::read_dir(folder().join("examples")).expect("schemas/examples") {
        let path = entry.expect("a folder can be read").path();
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        let kind = name.split('.').next().expect("a kind").to_owned();
        let is_valid = !name.ends_with(".invalid.json");
        let bytes = fs::read(&path).expect("an example can be read");
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let result = validator(&format!("{kind}.schema.json"));
        let problems: Vec<String> = result.iter_errors(&value).map(|e| e.to_string()).collect();
        assert_eq!(problems.is_empty(), is_valid, "{name}: {problems:?}");
        if kind == "event" {
            assert_eq!(Event::decode(Some(&bytes)).is_ok(), is_valid, "{name}: schema and decoder disagree");
        }
        *counts.entry((kind, is_valid)).or_default() += 1;
    }
    for kind in ["alert", "dead-letter", "decision", "event", "standing"] {
        for (is_valid, least) in [(true, 2), (false, 2)] {
            let count = counts.get(&(kind.to_owned(), is_valid)).copied().unwrap_or(0);
            assert!(count >= least, "{kind}: {count} examples, valid: {is_valid}");
        }
    }
}

#[test]
fn the_event_schema_names_the_fields_of_the_decoder() {
    let schema = generated("event.schema.json");
    let properties: BTreeSet<&str> = schema["properties"].as_object().expect("properties").keys().map(String::as_str).collect();
    let fields: BTreeSet<&str> = FIELDS.iter().map(|row| row.name).chain(["headers", "data"]).collect();
    assert_eq!(properties, fields);
    assert_eq!(schema["required"], json!(["event_time", "event_type"]));
    assert!(schema["properties"].as_object().expect("properties").values().all(|p| p["description"].is_string()));
}

/// For every field and every kind of value: the schema allows it exactly when the decoder takes it.
#[test]
fn schema_and_decoder_agree_on_types() {
    let schema = validator("event.schema.json");
    let long = "u".repeat(257);
    let values = [
        json!(null),
        json!(true),
        json!(7),
        json!(-7),
        json!(1.5),
        json!("x"),
        json!("2025-10-09T08:53:20Z"),
        json!(""),
        json!("a\u{7f}"),
        json!([]),
        json!([1]),
        json!({}),
        json!({"a": 1}),
        json!({"a": []}),
        json!(1_760_000_000_000_i64),
        json!(u64::MAX),
        json!(long),
    ];
    for field in FIELDS.iter().map(|row| row.name).chain(["headers", "data"]) {
        for value in &values {
            let mut event = json!({"event_time": 1_760_000_000_000_i64, "event_type": "t"});
            event[field] = value.clone();
            let bytes = event.to_string();
            let decoded = Event::decode(Some(bytes.as_bytes()));
            if field == "ip_address" && decoded.as_ref().is_err_and(|r| r.reason != Reason::WrongType) {
                // The limits hold after trimming, which a schema cannot say.
                continue;
            }
            assert_eq!(schema.is_valid(&event), decoded.is_ok(), "{field}: {value}");
        }
    }
}
