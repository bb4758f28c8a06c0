//! Bytes to event. `docs/bad-input.md` has the outcome of everything that can be wrong.
//!
//! One pass over the JSON, borrowing from it. A problem does not end the pass: the one that comes first in the order of
//! [`Reason`] is reported, so that a record with two faults has the same reason whichever field comes first. The work is
//! linear in the record's length whatever it holds, and the stack is bounded by [`MAX_DEPTH`].

mod cloud;
mod convert;
mod mapped;
mod otlp;
mod problems;
mod slot;
mod values;
mod walk;

pub(in crate::event) use slot::Slot;

use super::cloud::ContentMode;
use super::mapping::{Mapping, Tree};
use super::{Event, FIELDS, MAX_DEPTH, MAX_ID_BYTES, Text};
use crate::rejection::{Reason, Rejection};
use crate::time;
use problems::{Names, Problems, has_control};
use serde::Deserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use values::{DataSeed, HeadersSeed, NameSeed, Scalar, ScalarSeed};

/// Which keys mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// An app's record: the schema's fields, or an envelope.
    Event,
    /// The data of a CloudEvent: the schema's fields.
    Data,
    /// An observation that our router wrote: the same fields and the envelope, under names that begin with `_`. Its time
    /// was capped at routing to a record's timestamp, which may be any, and its id may be a position's text.
    Observation,
}

/// The longest id of an observation: a position's text, with a topic's name of up to 249 bytes.
const MAX_POSITION_ID_BYTES: usize = 512;

/// What an observation carries beside the event.
#[derive(Debug, Default)]
pub(crate) struct Envelope<'a> {
    pub version: Option<i64>,
    pub topic: Text<'a>,
    pub partition: Option<i64>,
    pub offset: Option<i64>,
    pub reference_ms: Option<i64>,
    pub is_actor: bool,
    pub has_own_id: bool,
    pub clamped: bool,
}

impl<'a> Event<'a> {
    /// Decodes the value of a record without headers. `None` is a null value (a tombstone).
    pub fn decode(value: Option<&'a [u8]>) -> Result<Event<'a>, Rejection> {
        let text = checked_text(value)?;
        let mut reading = Reading::new(Dialect::Event);
        match reading.read(text) {
            Err(_) if reading.is_envelope => cloud::structured(text, None),
            Err(error) => Err(not_json(error)),
            Ok(()) => reading.finish().map(|(event, _)| event),
        }
    }

    /// Decodes a record: what its headers say, its value, and where in it the fields stand if it is of another shape.
    pub fn decode_record(value: Option<&'a [u8]>, mode: ContentMode<'a>, mapping: Option<&Mapping>) -> Result<Event<'a>, Rejection> {
        let tree = mapping.and_then(Mapping::tree);
        match (mode, tree) {
            (ContentMode::Unsaid, None) => Event::decode(value),
            (ContentMode::Unsaid, Some(tree)) => mapped::decode(checked_text(value)?, tree),
            (ContentMode::Binary(mut attributes), tree) => {
                let mut problems = Problems::default();
                cloud::check_version(&mut attributes, &mut problems);
                read_data(checked_text(value)?, tree, problems).map_err(not_json)?.completed(attributes)
            }
            (ContentMode::Structured, tree) => cloud::structured(checked_text(value)?, tree),
            (ContentMode::Refused(why), _) => {
                checked_text(value)?;
                Err(Rejection::new(Reason::Unsupported, why))
            }
        }
    }
}

/// Reads an observation that our router wrote.
pub(crate) fn read_observation(value: Option<&[u8]>) -> Result<(Event<'_>, Envelope<'_>), Rejection> {
    let mut reading = Reading::new(Dialect::Observation);
    reading.read(checked_text(value)?).map_err(not_json)?;
    reading.finish()
}

/// Reads the data of a CloudEvent, which is an event or what a mapping makes one of, and never an envelope again.
fn read_data<'a>(text: &'a str, tree: Option<&Tree>, problems: Problems) -> Result<Reading<'a>, serde_json::Error> {
    if let Some(tree) = tree {
        return mapped::read_data(text, tree, problems);
    }
    let mut reading = Reading::new(Dialect::Data);
    reading.problems = problems;
    reading.read(text)?;
    Ok(reading)
}

/// What can be said without parsing: there is text, and it is not nested too deep.
fn checked_text(value: Option<&[u8]>) -> Result<&str, Rejection> {
    let bytes = value.ok_or_else(|| Rejection::new(Reason::NullValue, ""))?;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => return Err(Rejection::new(Reason::InvalidUtf8, format!("at byte {}", e.valid_up_to()))),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
        return Err(Rejection::new(Reason::EmptyValue, ""));
    }
    if is_too_deep(text.as_bytes()) {
        return Err(Rejection::new(Reason::TooDeep, format!("more than {MAX_DEPTH} levels")));
    }
    Ok(text)
}

/// Whether objects and arrays are nested deeper than [`MAX_DEPTH`]. Counting the opening brackets settles it for nearly
/// every record; the walk that knows about strings runs only when there are more of them than levels. It agrees with
/// the parser up to the first error in the JSON, so the parser never recurses deeper than this allows.
fn is_too_deep(bytes: &[u8]) -> bool {
    // `[` is 0x5b and `{` is 0x7b.
    if bytes.iter().filter(|b| **b | 0x20 == b'{').count() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_string, mut at) = (0_usize, false, 0);
    while let Some(byte) = bytes.get(at) {
        match (in_string, byte) {
            (true, b'\\') => at += 1,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => (),
        }
        if depth > MAX_DEPTH {
            return true;
        }
        at += 1;
    }
    false
}

/// Only the position: the parser's message can quote the record.
fn not_json(error: serde_json::Error) -> Rejection {
    match error.classify() {
        serde_json::error::Category::Data => Rejection::new(Reason::InvalidJson, "not an object"),
        _ => Rejection::new(Reason::InvalidJson, format!("line {} column {}", error.line(), error.column())),
    }
}

/// One pass over a record.
struct Reading<'a> {
    event: Event<'a>,
    envelope: Envelope<'a>,
    problems: Problems,
    dialect: Dialect,
    /// Slots seen, one bit each.
    seen: u64,
    has_time: bool,
    /// The pass was ended, because the record is an envelope.
    is_envelope: bool,
}

impl<'de> Visitor<'de> for &mut Reading<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut unknown = Names::default();
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let slot = Slot::of(&name, self.dialect);
            if slot == Slot::Unknown {
                if name == cloud::MARK && self.dialect == Dialect::Event {
                    if matches!(map.next_value_seed(ScalarSeed)?, Scalar::Text(_)) {
                        self.is_envelope = true;
                        return Err(A::Error::custom("an envelope"));
                    }
                    if !unknown.insert(name) {
                        self.problems.note(Reason::DuplicateKey, "an unknown field");
                    }
                    continue;
                }
                if !unknown.insert(name) {
                    self.problems.note(Reason::DuplicateKey, "an unknown field");
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if self.seen & slot.bit() != 0 {
                self.problems.note(Reason::DuplicateKey, slot.name());
            }
            self.seen |= slot.bit();
            match slot {
                Slot::Headers => self.event.headers = map.next_value_seed(HeadersSeed(&mut self.problems))?,
                Slot::Data => self.event.data = map.next_value_seed(DataSeed(&mut self.problems))?,
                _ => {
                    let value = map.next_value_seed(ScalarSeed)?;
                    self.set(slot, value);
                }
            }
        }
        Ok(())
    }
}

impl<'de> Reading<'de> {
    fn new(dialect: Dialect) -> Reading<'de> {
        Reading {
            event: Event::default(),
            envelope: Envelope::default(),
            problems: Problems::default(),
            dialect,
            seen: 0,
            has_time: false,
            is_envelope: false,
        }
    }

    fn read(&mut self, text: &'de str) -> Result<(), serde_json::Error> {
        let mut parser = serde_json::Deserializer::from_str(text);
        parser.deserialize_any(self).and_then(|()| parser.end())
    }

    fn set(&mut self, slot: Slot, value: Scalar<'de>) {
        match slot {
            Slot::EventId => self.event.event_id = self.id(slot, value),
            Slot::EventTime => self.event.event_time_ms = self.event_time(slot, value),
            Slot::EventType => self.event.event_type = self.event_type(slot, value),
            Slot::TenantId => self.event.tenant_id = self.id(slot, value),
            Slot::TenantName => self.event.tenant_name = self.text(slot, value),
            Slot::UserId => self.event.user_id = self.id(slot, value),
            Slot::SessionId => self.event.session_id = self.id(slot, value),
            Slot::DeviceId => self.event.device_id = self.id(slot, value),
            Slot::IpAddress => self.event.ip_address = self.address(slot, value),
            Slot::Method => self.event.method = self.text(slot, value),
            Slot::Path => self.event.path = self.text(slot, value),
            Slot::Route => self.event.route = self.text(slot, value),
            Slot::StatusCode => self.event.status_code = self.int(slot, value),
            Slot::ResponseTimeMs => self.event.response_time_ms = self.int(slot, value),
            Slot::RequestBytes => self.event.request_bytes = self.int(slot, value),
            Slot::ResponseBytes => self.event.response_bytes = self.int(slot, value),
            Slot::UserAgent => self.event.user_agent = self.text(slot, value),
            Slot::RequestId => self.event.request_id = self.id(slot, value),
            Slot::Country => self.event.country = self.text(slot, value),
            Slot::Asn => self.event.asn = self.int(slot, value),
            Slot::Role => self.event.role = self.text(slot, value),
            Slot::IsStaff => self.event.is_staff = self.truth(slot, value),
            Slot::IsAuthenticated => self.event.is_authenticated = self.truth(slot, value),
            Slot::Outcome => self.event.outcome = self.text(slot, value),
            Slot::AnomalyType => self.event.anomaly_type = self.printable(slot, value),
            Slot::BlockedBy => self.event.blocked_by = self.text(slot, value),
            Slot::Version => self.envelope.version = self.int(slot, value),
            Slot::Topic => self.envelope.topic = self.text(slot, value),
            Slot::Partition => self.envelope.partition = self.int(slot, value),
            Slot::Offset => self.envelope.offset = self.int(slot, value),
            Slot::Reference => self.envelope.reference_ms = self.int(slot, value),
            Slot::Actor => self.envelope.is_actor = self.truth(slot, value).unwrap_or(false),
            Slot::Own => self.envelope.has_own_id = self.truth(slot, value).unwrap_or(false),
            Slot::Clamped => self.envelope.clamped = self.truth(slot, value).unwrap_or(false),
            Slot::Headers | Slot::Data | Slot::Unknown => (),
        }
    }

    /// A field of another type than the schema says is noted and reads as absent.
    fn wrong_type<T>(&mut self, slot: Slot) -> Option<T> {
        self.problems.note(Reason::WrongType, slot.name());
        None
    }

    fn text(&mut self, slot: Slot, value: Scalar<'de>) -> Text<'de> {
        match value {
            Scalar::Null => None,
            Scalar::Text(text) => {
                self.problems.refuse_nul(&text, slot.name());
                Some(text)
            }
            _ => self.wrong_type(slot),
        }
    }

    /// Text without control characters.
    fn printable(&mut self, slot: Slot, value: Scalar<'de>) -> Text<'de> {
        let text = self.text(slot, value)?;
        if has_control(&text) {
            self.problems.note(Reason::ControlCharacter, slot.name());
        }
        Some(text)
    }

    /// Printable text of at most an id's length; empty is absent.
    fn short(&mut self, slot: Slot, value: Scalar<'de>) -> Text<'de> {
        let text = self.printable(slot, value)?;
        let longest = if self.dialect == Dialect::Observation && slot == Slot::EventId { MAX_POSITION_ID_BYTES } else { MAX_ID_BYTES };
        if text.len() > longest {
            self.problems.note(Reason::IdTooLong, slot.name());
        }
        (!text.is_empty()).then_some(text)
    }

    /// An id: text, or a whole number taken as its decimal text.
    fn id(&mut self, slot: Slot, value: Scalar<'de>) -> Text<'de> {
        match value {
            Scalar::Int(number) => Some(Cow::Owned(number.to_string())),
            Scalar::Unsigned(number) => Some(Cow::Owned(number.to_string())),
            other => self.short(slot, other),
        }
    }

    fn address(&mut self, slot: Slot, value: Scalar<'de>) -> Text<'de> {
        let trimmed = match value {
            Scalar::Text(Cow::Borrowed(text)) => Scalar::Text(Cow::Borrowed(text.trim())),
            Scalar::Text(Cow::Owned(text)) => Scalar::Text(Cow::Owned(text.trim().to_owned())),
            other => other,
        };
        self.short(slot, trimmed)
    }

    fn event_type(&mut self, slot: Slot, value: Scalar<'de>) -> Cow<'de, str> {
        self.short(slot, value).unwrap_or_default()
    }

    fn int(&mut self, slot: Slot, value: Scalar<'de>) -> Option<i64> {
        match value {
            Scalar::Null => None,
            Scalar::Int(number) => Some(number),
            _ => self.wrong_type(slot),
        }
    }

    fn truth(&mut self, slot: Slot, value: Scalar<'de>) -> Option<bool> {
        match value {
            Scalar::Null => None,
            Scalar::Bool(truth) => Some(truth),
            _ => self.wrong_type(slot),
        }
    }

    fn event_time(&mut self, slot: Slot, value: Scalar<'de>) -> i64 {
        let ms = match value {
            Scalar::Null => return 0,
            Scalar::Int(ms) => Some(ms),
            Scalar::Unsigned(_) => None,
            Scalar::Text(text) => time::parse_rfc3339_ms(&text),
            Scalar::Bool(_) | Scalar::Float(_) | Scalar::Nested => self.wrong_type(slot),
        };
        self.has_time = true;
        let believed = |ms: &i64| self.dialect == Dialect::Observation || (time::EARLIEST_MS..time::LATEST_MS).contains(ms);
        ms.filter(believed).unwrap_or_else(|| {
            self.problems.note(Reason::BadTime, slot.name());
            0
        })
    }

    fn finish(mut self) -> Result<(Event<'de>, Envelope<'de>), Rejection> {
        if !self.has_time {
            self.problems.note(Reason::MissingField, FIELDS[Slot::EventTime as usize].name);
        }
        if self.event.event_type.is_empty() {
            self.problems.note(Reason::MissingField, FIELDS[Slot::EventType as usize].name);
        }
        match self.problems.worst() {
            Some(rejection) => Err(rejection),
            None => Ok((self.event, self.envelope)),
        }
    }
}

#[cfg(test)]
mod tests;
