//! CloudEvents to events: the envelope is opened, its data is read as any event is, and what the data lacks is filled in.

use super::problems::{Names, Problems, has_control};
use super::values::{NameSeed, Scalar, ScalarSeed};
use super::{Event, Reading, not_json, read_data};
use crate::event::MAX_ID_BYTES;
use crate::event::cloud::{Attributes, Name, Place, event_id};
use crate::event::mapping::Tree;
use crate::rejection::{Reason, Rejection};
use crate::time;
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The member that tells an envelope from an event when no header does.
pub(super) const MARK: &str = "specversion";

/// Reads an envelope: first its own members, then its data as the event that it is.
pub(super) fn structured<'a>(text: &'a str, tree: Option<&Tree>) -> Result<Event<'a>, Rejection> {
    let mut envelope = Envelope { attributes: Attributes::new(Place::Envelope), data: None, problems: Problems::default() };
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.deserialize_any(&mut envelope).and_then(|()| parser.end()).map_err(not_json)?;
    let Envelope { mut attributes, data, mut problems } = envelope;
    check_version(&mut attributes, &mut problems);
    match data.map(RawValue::get) {
        None | Some("null") => problems.note(Reason::MissingField, "data"),
        Some(data) if data.starts_with('{') => {
            let inside = |error| {
                let Rejection { reason, detail } = not_json(error);
                Rejection::new(reason, format!("data, {detail}"))
            };
            return read_data(data, tree, problems).map_err(inside)?.completed(attributes);
        }
        Some(_) => problems.note(Reason::WrongType, "data"),
    }
    Err(problems.worst().expect("an envelope without an event has a problem"))
}

/// Notes what stands twice, and a version that is not read.
pub(super) fn check_version(attributes: &mut Attributes<'_>, problems: &mut Problems) {
    if let Some(twice) = attributes.twice() {
        problems.note(Reason::DuplicateKey, twice);
    }
    let label = attributes.label(Name::SpecVersion);
    match attributes.take(Name::SpecVersion) {
        Ok(Some(version)) if is_read(&version) => {}
        Ok(Some(_)) => problems.note(Reason::Unsupported, "specversion: only 1.x is read"),
        Ok(None) => problems.note(Reason::MissingField, label),
        Err(_) => problems.note(Reason::WrongType, label),
    }
}

/// 1.0 and what may follow it: minor versions add and do not change.
fn is_read(version: &str) -> bool {
    version.strip_prefix("1.").is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()))
}

/// The members of an envelope.
struct Envelope<'a> {
    attributes: Attributes<'a>,
    /// As it is written: an event of any shape.
    data: Option<&'a RawValue>,
    problems: Problems,
}

impl<'de> Visitor<'de> for &mut Envelope<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = Names::default();
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let attribute = Name::of(&name);
            let label = match (attribute, name.as_ref()) {
                (Some(attribute), _) => {
                    match map.next_value_seed(ScalarSeed)? {
                        Scalar::Null => {}
                        Scalar::Text(text) => self.attributes.add(attribute, Some(text)),
                        _ => self.attributes.add(attribute, None),
                    }
                    self.attributes.label(attribute)
                }
                (None, "data") => {
                    self.data = Some(map.next_value::<&'de RawValue>()?);
                    "data"
                }
                (None, "data_base64") => {
                    if map.next_value_seed(ScalarSeed)? != Scalar::Null {
                        self.problems.note(Reason::Unsupported, "data_base64: data is read as JSON only");
                    }
                    "data_base64"
                }
                (None, _) => {
                    map.next_value::<IgnoredAny>()?;
                    "an unknown attribute"
                }
            };
            if !names.insert(name) {
                self.problems.note(Reason::DuplicateKey, label);
            }
        }
        Ok(())
    }
}

impl<'de> Reading<'de> {
    /// The event, with what it lacks taken from the attributes; what it has itself is not asked for.
    pub(super) fn completed(mut self, mut attributes: Attributes<'de>) -> Result<Event<'de>, Rejection> {
        if !self.has_time
            && let Some(text) = self.attribute(&mut attributes, Name::Time)
        {
            self.has_time = true;
            match time::parse_rfc3339_ms(&text).filter(|ms| (time::EARLIEST_MS..time::LATEST_MS).contains(ms)) {
                Some(ms) => self.event.event_time_ms = ms,
                None => self.problems.note(Reason::BadTime, attributes.label(Name::Time)),
            }
        }
        if self.event.event_type.is_empty()
            && let Some(text) = self.word(&mut attributes, Name::Type)
        {
            if text.len() > MAX_ID_BYTES {
                self.problems.note(Reason::IdTooLong, attributes.label(Name::Type));
            }
            self.event.event_type = text;
        }
        if self.event.event_id.is_none()
            && let Some(id) = self.word(&mut attributes, Name::Id)
        {
            match self.word(&mut attributes, Name::Source) {
                Some(source) => self.event.event_id = Some(event_id(&source, &id).into()),
                // Alone it could be another producer's id, too, and an event would pass for a repeat.
                None => self.problems.note(Reason::MissingField, attributes.label(Name::Source)),
            }
        }
        self.finish().map(|(event, _)| event)
    }

    fn attribute(&mut self, attributes: &mut Attributes<'de>, name: Name) -> Option<Cow<'de, str>> {
        attributes.take(name).unwrap_or_else(|_| {
            self.problems.note(Reason::WrongType, attributes.label(name));
            None
        })
    }

    /// Text without control characters; empty is absent.
    fn word(&mut self, attributes: &mut Attributes<'de>, name: Name) -> Option<Cow<'de, str>> {
        let text = self.attribute(attributes, name)?;
        if has_control(&text) {
            self.problems.note(Reason::ControlCharacter, attributes.label(name));
        }
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
#[path = "cloud_tests.rs"]
mod tests;
