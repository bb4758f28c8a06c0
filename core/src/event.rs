//! An event: decoded, valid, flat. Field names are the same on the wire, in rules and in the event store.
//!
//! If an [`Event`] exists it is valid: `event_time` lies between 2000 and 2100, ids are at most 256 bytes without control
//! characters, nesting is at most 64 deep, no key stands twice. What is wrong with a record that is not an event is a
//! [`crate::rejection::Rejection`]. Decoding lives in [`decode`](Event::decode); records of another shape become events
//! through a [`mapping`], the data of CloudEvents through [`cloud`].

pub mod cloud;
pub(crate) mod decode;
pub(crate) mod encode;
pub mod mapping;

use crate::value::{Type, Value};
use serde_json::{Map, Value as Json};
use std::borrow::Cow;

/// The longest id, in bytes.
pub const MAX_ID_BYTES: usize = 256;
/// The deepest nesting of objects and arrays, the record's own object included.
pub const MAX_DEPTH: usize = 64;

/// Text borrowed from the record where it has no escapes.
pub type Text<'a> = Option<Cow<'a, str>>;

/// One request or domain event. Absent and null are the same: `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event<'a> {
    /// Unique id that the app gave; without one the router gives one from topic, partition and offset.
    pub event_id: Text<'a>,
    /// When it happened, milliseconds since the epoch. Required on the wire (`event_time`: RFC 3339, or integer milliseconds).
    pub event_time_ms: i64,
    /// `http_request` or the name of a domain event. Required.
    pub event_type: Cow<'a, str>,
    /// Tenant the request ran in.
    pub tenant_id: Text<'a>,
    /// The tenant's name.
    pub tenant_name: Text<'a>,
    /// Signed-in user.
    pub user_id: Text<'a>,
    /// Session.
    pub session_id: Text<'a>,
    /// Device.
    pub device_id: Text<'a>,
    /// Peer address as the app saw it.
    pub ip_address: Text<'a>,
    /// HTTP method as sent.
    pub method: Text<'a>,
    /// Path as sent, without the query.
    pub path: Text<'a>,
    /// The route's template, `/users/{id}`.
    pub route: Text<'a>,
    /// HTTP status.
    pub status_code: Option<i64>,
    /// Time to answer, milliseconds.
    pub response_time_ms: Option<i64>,
    /// Bytes received.
    pub request_bytes: Option<i64>,
    /// Bytes sent.
    pub response_bytes: Option<i64>,
    /// User agent as sent.
    pub user_agent: Text<'a>,
    /// Id of the request in the app's logs.
    pub request_id: Text<'a>,
    /// Country of the address.
    pub country: Text<'a>,
    /// Autonomous system of the address.
    pub asn: Option<i64>,
    /// The user's role.
    pub role: Text<'a>,
    /// The user works for the operator.
    pub is_staff: Option<bool>,
    /// The user is signed in.
    pub is_authenticated: Option<bool>,
    /// `ok`, `fail` or the app's own word.
    pub outcome: Text<'a>,
    /// Set when the app itself reports an anomaly: its type.
    pub anomaly_type: Text<'a>,
    /// Who refused the request: `self` when it was one of Tripline's own decisions, else the app's word.
    pub blocked_by: Text<'a>,
    /// Request headers the app chose to send; names in lower case (the last of equal names wins).
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Whatever else the app sent, by name.
    pub data: Map<String, Json>,
}

/// A field that a rule can name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// One of [`FIELDS`], by its index.
    Named(usize),
    /// `headers["x-tenant"]` or `headers.host`, in lower case.
    Header(String),
    /// `data.form.kind`.
    Data(Vec<String>),
}

/// One row of the field table.
#[derive(Debug)]
pub struct FieldRow {
    /// Its name everywhere.
    pub name: &'static str,
    /// Its type in expressions.
    pub ty: Type,
    /// What it takes on the wire, in the words of `docs/event.md`.
    pub takes: &'static str,
    /// What it means.
    pub meaning: &'static str,
    get: for<'e> fn(&'e Event<'_>) -> Value<'e>,
}

fn text<'e>(value: &'e Text<'_>) -> Value<'e> {
    value.as_deref().map_or(Value::Missing, Value::Str)
}

fn int(value: Option<i64>) -> Value<'static> {
    value.map_or(Value::Missing, Value::Int)
}

fn truth(value: Option<bool>) -> Value<'static> {
    value.map_or(Value::Missing, Value::Bool)
}

macro_rules! row {
    ($name:ident, id, $meaning:literal) => {
        row!($name, Str, "id", $meaning, |e| text(&e.$name))
    };
    ($name:ident, text, $meaning:literal) => {
        row!($name, Str, "text", $meaning, |e| text(&e.$name))
    };
    ($name:ident, int, $meaning:literal) => {
        row!($name, Int, "whole number", $meaning, |e| int(e.$name))
    };
    ($name:ident, truth, $meaning:literal) => {
        row!($name, Bool, "true or false", $meaning, |e| truth(e.$name))
    };
    ($name:ident, $ty:ident, $takes:literal, $meaning:literal, $get:expr) => {
        FieldRow { name: stringify!($name), ty: Type::$ty, takes: $takes, meaning: $meaning, get: $get }
    };
}

/// Every named field, in the order of the schema.
pub static FIELDS: &[FieldRow] = &[
    row!(
        event_id,
        id,
        "Unique id that the app gave. Without one, an id is made from topic, partition and offset, and repeats cannot be recognised"
    ),
    row!(event_time, Int, "time, required", "When it happened", |e| Value::Int(e.event_time_ms)),
    row!(event_type, Str, "text, required", "`http_request` or the name of a domain event; 1 to 256 bytes", |e| Value::Str(&e.event_type)),
    row!(tenant_id, id, "Tenant the request ran in"),
    row!(tenant_name, text, "The tenant's name"),
    row!(user_id, id, "Signed-in user. With it, the user is the actor; without it, the address is; without both, nobody in particular"),
    row!(session_id, id, "Session"),
    row!(device_id, id, "Device"),
    row!(ip_address, text, "Peer address as the app saw it; white space around it is cut, empty is absent"),
    row!(method, text, "HTTP method as sent"),
    row!(path, text, "Path as sent, without the query"),
    row!(route, text, "The route's template, `/orders/{id}`"),
    row!(status_code, int, "HTTP status"),
    row!(response_time_ms, int, "Time to answer, milliseconds"),
    row!(request_bytes, int, "Bytes received"),
    row!(response_bytes, int, "Bytes sent"),
    row!(user_agent, text, "User agent as sent"),
    row!(request_id, id, "Id of the request in the app's logs"),
    row!(country, text, "Country of the address"),
    row!(asn, int, "Autonomous system of the address"),
    row!(role, text, "The user's role"),
    row!(is_staff, truth, "The user works for the operator; flags look at it"),
    row!(is_authenticated, truth, "The user is signed in; flags look at it"),
    row!(outcome, text, "`ok`, `fail` or the app's own word"),
    row!(anomaly_type, text, "Set when the app itself reports an anomaly: its type"),
    row!(blocked_by, text, "Who refused the request: `self` when it was one of Tripline's own decisions, else the app's word"),
];

impl Field {
    /// The field of this name: a row of [`FIELDS`], `headers.NAME` or `data.NAME…`.
    pub fn named(path: &[&str]) -> Option<Field> {
        match path {
            ["headers", name] => Some(Field::Header(name.to_ascii_lowercase())),
            ["data", rest @ ..] if !rest.is_empty() => Some(Field::Data(rest.iter().map(|s| (*s).to_owned()).collect())),
            [name] => FIELDS.iter().position(|row| row.name == *name).map(Field::Named),
            _ => None,
        }
    }

    /// Its type in expressions.
    pub fn ty(&self) -> Type {
        match self {
            Field::Named(index) => FIELDS[*index].ty,
            Field::Header(_) => Type::Str,
            Field::Data(_) => Type::Any,
        }
    }
}

impl<'a> Event<'a> {
    /// The value of a field. Objects and arrays under `data` are [`Value::Missing`] in expressions.
    pub fn get<'e>(&'e self, field: &Field) -> Value<'e> {
        match field {
            Field::Named(index) => (FIELDS[*index].get)(self),
            Field::Header(name) => self.header(name).map_or(Value::Missing, Value::Str),
            Field::Data(path) => {
                let Some((first, rest)) = path.split_first() else { return Value::Missing };
                let found = rest.iter().try_fold(self.data.get(first.as_str()), |at, key| at.map(|v| v.get(key.as_str())));
                match found.flatten() {
                    Some(Json::Bool(b)) => Value::Bool(*b),
                    Some(Json::String(s)) => Value::Str(s),
                    Some(Json::Number(n)) => n.as_i64().map(Value::Int).or_else(|| n.as_f64().map(Value::Float)).unwrap_or(Value::Missing),
                    _ => Value::Missing,
                }
            }
        }
    }

    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_ref())
    }
}
