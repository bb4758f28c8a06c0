//! Event to bytes.

use super::Event;
use crate::time;
use serde_json::Value as Json;

/// Writes one JSON object, member by member. Absent values are left out.
pub(crate) struct ObjectWriter<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> ObjectWriter<'o> {
    pub fn begin(out: &'o mut Vec<u8>) -> ObjectWriter<'o> {
        out.push(b'{');
        ObjectWriter { out, is_empty: true }
    }

    pub fn end(self) {
        self.out.push(b'}');
    }

    /// A name of ours, which needs no escapes.
    fn name(&mut self, name: &'static str) {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn separate(&mut self) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
    }

    pub fn text(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.name(name);
            write_text(self.out, value);
        }
    }

    pub fn int(&mut self, name: &'static str, value: Option<i64>) {
        if let Some(value) = value {
            self.name(name);
            write_int(self.out, value);
        }
    }

    pub fn truth(&mut self, name: &'static str, value: Option<bool>) {
        if let Some(value) = value {
            self.name(name);
            self.out.extend_from_slice(if value { b"true" } else { b"false" });
        }
    }

    /// Everything of the event but its time, in the order of the schema.
    pub fn event(&mut self, event: &Event<'_>, write_time: impl FnOnce(&mut Self)) {
        self.text("event_id", event.event_id.as_deref());
        write_time(self);
        self.text("event_type", Some(&event.event_type));
        self.text("tenant_id", event.tenant_id.as_deref());
        self.text("tenant_name", event.tenant_name.as_deref());
        self.text("user_id", event.user_id.as_deref());
        self.text("session_id", event.session_id.as_deref());
        self.text("device_id", event.device_id.as_deref());
        self.text("ip_address", event.ip_address.as_deref());
        self.text("method", event.method.as_deref());
        self.text("path", event.path.as_deref());
        self.text("route", event.route.as_deref());
        self.int("status_code", event.status_code);
        self.int("response_time_ms", event.response_time_ms);
        self.int("request_bytes", event.request_bytes);
        self.int("response_bytes", event.response_bytes);
        self.text("user_agent", event.user_agent.as_deref());
        self.text("request_id", event.request_id.as_deref());
        self.text("country", event.country.as_deref());
        self.int("asn", event.asn);
        self.text("role", event.role.as_deref());
        self.truth("is_staff", event.is_staff);
        self.truth("is_authenticated", event.is_authenticated);
        self.text("outcome", event.outcome.as_deref());
        self.text("anomaly_type", event.anomaly_type.as_deref());
        self.text("blocked_by", event.blocked_by.as_deref());
        self.headers(event);
        if !event.data.is_empty() {
            self.name("data");
            write_object(self.out, event.data.iter(), write_json);
        }
    }

    fn headers(&mut self, event: &Event<'_>) {
        if !event.headers.is_empty() {
            self.name("headers");
            write_object(self.out, event.headers.iter().map(|(name, value)| (name, value)), |out, value| write_text(out, value));
        }
    }
}

fn write_object<K: AsRef<str>, V>(out: &mut Vec<u8>, members: impl Iterator<Item = (K, V)>, write: impl Fn(&mut Vec<u8>, V)) {
    let mut separator = b'{';
    for (name, value) in members {
        out.push(separator);
        write_text(out, name.as_ref());
        out.push(b':');
        write(out, value);
        separator = b',';
    }
    out.push(b'}');
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // Nearly all text stands as it is; the check runs over whole words.
    if text.bytes().fold(false, |found, b| found | (b < 0x20) | (b == b'"') | (b == b'\\')) {
        serde_json::to_writer(out, text).expect("writing text into memory does not fail");
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

fn write_int(out: &mut Vec<u8>, number: i64) {
    serde_json::to_writer(out, &number).expect("writing a number into memory does not fail");
}

fn write_json(out: &mut Vec<u8>, value: &Json) {
    serde_json::to_writer(out, value).expect("writing JSON into memory does not fail");
}

impl Event<'_> {
    /// Writes the event as normalised JSON: fields in the order of the schema, absent ones left out, `event_time` in RFC 3339 with milliseconds.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut object = ObjectWriter::begin(out);
        object.event(self, |object| object.text("event_time", Some(&time::format_rfc3339_ms(self.event_time_ms))));
        object.end();
    }
}
