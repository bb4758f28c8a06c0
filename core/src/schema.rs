//! The wire formats as JSON Schemas (2020-12). `schemas/` holds what [`all`] makes; a test compares them.
//!
//! Decisions, alerts and standing are the types themselves. Events are read by hand and dead letters are Kafka headers, so their
//! shape is written down here a second time, for the schema only; tests keep it in step with the decoder.

use crate::alert::Alert;
use crate::decision::{Decision, SCHEMA_VERSION};
use crate::event::MAX_ID_BYTES;
use crate::rejection::Reason;
use crate::standing::Standing;
use crate::time::{EARLIEST_MS, LATEST_MS};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where the schemas live; a name, not a promise that something answers there.
const HOME: &str = "https://github.com/tripline/tripline/schemas/";

/// An event as an app sends it: one JSON object. Fields that are not named here are ignored; null means absent.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "Event")]
pub struct EventSchema {
    /// Unique id that the app gave. Without one, repeats of the event cannot be recognised.
    #[schemars(schema_with = "id")]
    pub event_id: Option<String>,
    /// When it happened: RFC 3339 with an offset, or whole milliseconds since 1970. From 2000 until before 2100.
    #[schemars(schema_with = "event_time")]
    pub event_time: String,
    /// `http_request` or the name of a domain event.
    #[schemars(schema_with = "event_type")]
    pub event_type: String,
    /// Tenant the request ran in.
    #[schemars(schema_with = "id")]
    pub tenant_id: Option<String>,
    /// The tenant's name.
    pub tenant_name: Option<String>,
    /// Signed-in user.
    #[schemars(schema_with = "id")]
    pub user_id: Option<String>,
    /// Session.
    #[schemars(schema_with = "id")]
    pub session_id: Option<String>,
    /// Device.
    #[schemars(schema_with = "id")]
    pub device_id: Option<String>,
    /// Peer address as the app saw it. White space around it is cut.
    #[schemars(schema_with = "address")]
    pub ip_address: Option<String>,
    /// HTTP method as sent.
    pub method: Option<String>,
    /// Path as sent, without the query.
    pub path: Option<String>,
    /// The route's template, `/users/{id}`.
    pub route: Option<String>,
    /// HTTP status.
    #[schemars(schema_with = "whole_number")]
    pub status_code: Option<i64>,
    /// Time to answer, milliseconds.
    #[schemars(schema_with = "whole_number")]
    pub response_time_ms: Option<i64>,
    /// Bytes received.
    #[schemars(schema_with = "whole_number")]
    pub request_bytes: Option<i64>,
    /// Bytes sent.
    #[schemars(schema_with = "whole_number")]
    pub response_bytes: Option<i64>,
    /// User agent as sent.
    pub user_agent: Option<String>,
    /// Id of the request in the app's logs.
    #[schemars(schema_with = "id")]
    pub request_id: Option<String>,
    /// Country of the address.
    pub country: Option<String>,
    /// Autonomous system of the address.
    #[schemars(schema_with = "whole_number")]
    pub asn: Option<i64>,
    /// The user's role.
    pub role: Option<String>,
    /// The user works for the operator.
    pub is_staff: Option<bool>,
    /// The user is signed in.
    pub is_authenticated: Option<bool>,
    /// `ok`, `fail` or the app's own word.
    pub outcome: Option<String>,
    /// Set when the app itself reports an anomaly: its type.
    #[schemars(schema_with = "printable")]
    pub anomaly_type: Option<String>,
    /// Who refused the request: `self` when it was one of Tripline's own decisions, else the app's word.
    pub blocked_by: Option<String>,
    /// Request headers the app chose to send. Names are folded to lower case; of equal names the last one stays.
    #[schemars(schema_with = "headers")]
    pub headers: Option<BTreeMap<String, String>>,
    /// Whatever else the app sends, by name. Masked before it is stored.
    pub data: Option<Map<String, Value>>,
}

/// The headers of a dead letter, all of them UTF-8 text. Its key and value are the original ones, unless it is marked as truncated.
/// A record with the header `tripline-redriven` is no dead letter but a receipt: it has no value, and says that the dead letter at that
/// offset of its partition was redriven.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "DeadLetterHeaders", rename_all = "kebab-case")]
pub struct DeadLetterSchema {
    /// Why: one word of the table in `docs/bad-input.md`.
    #[schemars(schema_with = "reason")]
    pub tripline_reason: String,
    /// Which field or position, in the schema's words; never content of the record. May be empty.
    pub tripline_detail: String,
    /// Topic of the original record.
    pub tripline_source_topic: String,
    /// Its partition.
    #[schemars(regex(pattern = r"^[0-9]+$"))]
    pub tripline_source_partition: String,
    /// Its offset.
    #[schemars(regex(pattern = r"^[0-9]+$"))]
    pub tripline_source_offset: String,
    /// Its timestamp, milliseconds since 1970; 0 when it had none.
    #[schemars(regex(pattern = r"^-?[0-9]+$"))]
    pub tripline_source_timestamp: String,
    /// The same timestamp as RFC 3339 in UTC.
    #[schemars(extend("format" = "date-time"))]
    pub tripline_time: String,
    /// Who refused it: `router` or `detector`.
    #[schemars(schema_with = "stage")]
    pub tripline_stage: String,
    /// Digest of the original value, when that was too large to copy.
    #[schemars(schema_with = "digest")]
    pub tripline_digest: Option<String>,
    /// Set when the original was too large to copy, and the dead letter has neither key nor value: the original value's length in bytes.
    #[schemars(schema_with = "number")]
    pub tripline_truncated: Option<String>,
    /// Set when the original's headers `content-type` and `ce_…` were too many to repeat: their bytes.
    #[schemars(schema_with = "number")]
    pub tripline_headers_left_out: Option<String>,
    /// Set when the original had been redriven itself: the dead letter it came from, partition and offset.
    #[schemars(schema_with = "letter_id")]
    pub tripline_redriven_from: Option<String>,
    /// Beside `tripline-redriven-from`: which attempt the original was, from 2.
    #[schemars(schema_with = "number")]
    pub tripline_attempt: Option<String>,
    /// Task, seq and commit id of the transaction that wrote it, with `/` between them; for the audit.
    #[schemars(schema_with = "commit")]
    pub tripline_commit: Option<String>,
    /// `app.id` of whoever wrote it.
    #[schemars(schema_with = "app")]
    pub tripline_app: Option<String>,
}

/// Text without C0 and C1 control characters and DEL.
const PRINTABLE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

fn id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "string", "maxLength": MAX_ID_BYTES, "pattern": PRINTABLE },
            { "type": "integer", "minimum": i64::MIN, "maximum": u64::MAX },
            { "type": "null" },
        ]
    })
}

fn event_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "string", "format": "date-time" },
            { "type": "integer", "minimum": EARLIEST_MS, "exclusiveMaximum": LATEST_MS },
        ]
    })
}

fn event_type(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES, "pattern": PRINTABLE })
}

fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"] })
}

fn printable(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "pattern": PRINTABLE })
}

fn whole_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["integer", "null"], "minimum": i64::MIN, "maximum": i64::MAX })
}

fn headers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["object", "null"], "additionalProperties": { "type": ["string", "number", "boolean", "null"] } })
}

fn reason(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Reason::ALL.map(Reason::name) })
}

fn digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^sha256:[0-9a-f]{16}$" })
}

fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9]+$" })
}

fn letter_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9]+/[0-9]+$" })
}

fn commit(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9]+-[0-9]+/[0-9]+/[0-9a-f]{32}$" })
}

fn app(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string" })
}

fn stage(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["router", "detector"] })
}

/// Every schema, by the name of its file.
pub fn all() -> [(&'static str, Schema); 5] {
    [
        ("alert.schema.json", with_bounds(generate::<Alert>("alert.schema.json"))),
        ("dead-letter.schema.json", require_only(generate::<DeadLetterSchema>("dead-letter.schema.json"), &DEAD_LETTER_REQUIRED)),
        ("decision.schema.json", with_bounds(generate::<Decision>("decision.schema.json"))),
        ("standing.schema.json", with_bounds(generate::<Standing>("standing.schema.json"))),
        ("event.schema.json", require_only(generate::<EventSchema>("event.schema.json"), &EVENT_REQUIRED)),
    ]
}

fn generate<T: JsonSchema>(file: &str) -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), format!("{HOME}{file}").into());
    schema
}

const EVENT_REQUIRED: [&str; 2] = ["event_time", "event_type"];
const DEAD_LETTER_REQUIRED: [&str; 8] = [
    "tripline-reason",
    "tripline-detail",
    "tripline-source-topic",
    "tripline-source-partition",
    "tripline-source-offset",
    "tripline-source-timestamp",
    "tripline-time",
    "tripline-stage",
];

/// A member whose schema is written by hand counts as required whatever its type; this says which ones are.
fn require_only(mut schema: Schema, names: &[&str]) -> Schema {
    schema.insert("required".to_owned(), json!(names));
    schema
}

/// What the types of Rust do not say: scores end at 100, and the version is this one.
fn with_bounds(mut schema: Schema) -> Schema {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(object) => {
                for (name, inner) in object.iter_mut() {
                    match (name.as_str(), inner) {
                        ("risk_score", Value::Object(number)) => drop(number.insert("maximum".to_owned(), json!(100))),
                        ("schema_version", Value::Object(number)) => drop(number.insert("const".to_owned(), json!(SCHEMA_VERSION))),
                        (_, other) => walk(other),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => (),
        }
    }
    schema.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(walk);
    schema
}
