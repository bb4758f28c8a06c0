//! An event: decoded, valid, flat. Field names are the same on the wire, in rules and in the event store.
//!
//! If an [`Event`] exists it is valid: `event_time` lies between 2000 and 2100, ids are at most 256 bytes without control
//! characters, nesting is at most 64 deep, no key stands twice. What is wrong with a record that is not an event is a
//! [`crate::rejection::Rejection`]. Decoding lives in [`decode`](Event::decode).

pub(crate) mod decode;
pub(crate) mod encode;

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
    ($name:ident, Str) => {
        FieldRow { name: stringify!($name), ty: Type::Str, get: |e| text(&e.$name) }
    };
    ($name:ident, Int) => {
        FieldRow { name: stringify!($name), ty: Type::Int, get: |e| int(e.$name) }
    };
    ($name:ident, Bool) => {
        FieldRow { name: stringify!($name), ty: Type::Bool, get: |e| truth(e.$name) }
    };
}

/// Every named field, in the order of the schema.
pub static FIELDS: &[FieldRow] = &[
    row!(event_id, Str),
    FieldRow { name: "event_time", ty: Type::Int, get: |e| Value::Int(e.event_time_ms) },
    FieldRow { name: "event_type", ty: Type::Str, get: |e| Value::Str(&e.event_type) },
    row!(tenant_id, Str),
    row!(tenant_name, Str),
    row!(user_id, Str),
    row!(session_id, Str),
    row!(device_id, Str),
    row!(ip_address, Str),
    row!(method, Str),
    row!(path, Str),
    row!(route, Str),
    row!(status_code, Int),
    row!(response_time_ms, Int),
    row!(request_bytes, Int),
    row!(response_bytes, Int),
    row!(user_agent, Str),
    row!(request_id, Str),
    row!(country, Str),
    row!(asn, Int),
    row!(role, Str),
    row!(is_staff, Bool),
    row!(is_authenticated, Bool),
    row!(outcome, Str),
    row!(anomaly_type, Str),
    row!(blocked_by, Str),
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
