//! Records of another shape to events: the walk keeps what stands at the mapping's places, then each field takes the first
//! of its sources that has a value, converted to what the field holds, and is checked as in the plain decoder.

use super::problems::Problems;
use super::slot::Slot;
use super::values::{Scalar, last_of_equal_names};
use super::walk::Walk;
use super::{Dialect, Event, Reading, cloud, convert, not_json};
use crate::event::MAX_DEPTH;
use crate::event::cloud::ContentMode;
use crate::event::mapping::{Mapping, Pick, Plan, Tree, Unit};
use crate::rejection::{Reason, Rejection};
use serde::Deserializer;
use serde_json::{Map, Value as Json};
use std::borrow::Cow;

impl<'a> Event<'a> {
    /// Decodes a record's value of the shape that a mapping describes. The same events and the same reasons as
    /// [`Event::decode`], and like it linear in the record's length; keys that the mapping does not read are not looked at.
    pub fn decode_mapped(value: Option<&'a [u8]>, mapping: &Mapping) -> Result<Event<'a>, Rejection> {
        Event::decode_record(value, ContentMode::Unsaid, Some(mapping))
    }
}

/// Reads a record's text, or the data in it if it is an envelope.
pub(super) fn decode<'a>(text: &'a str, tree: &Tree) -> Result<Event<'a>, Rejection> {
    let mut walk = Walk::new(tree, Dialect::Event);
    match read(&mut walk, text) {
        Err(_) if walk.is_envelope => cloud::structured(text, Some(tree)),
        Err(error) => Err(not_json(error)),
        Ok(()) => fill(walk).finish().map(|(event, _)| event),
    }
}

/// Reads the data of a CloudEvent.
pub(super) fn read_data<'a>(text: &'a str, tree: &Tree, problems: Problems) -> Result<Reading<'a>, serde_json::Error> {
    let mut walk = Walk::new(tree, Dialect::Data);
    walk.problems = problems;
    read(&mut walk, text)?;
    Ok(fill(walk))
}

fn read<'a>(walk: &mut Walk<'_, 'a>, text: &'a str) -> Result<(), serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.deserialize_any(walk).and_then(|()| parser.end())
}

/// The event of what a walk has kept.
fn fill<'de>(walk: Walk<'_, 'de>) -> Reading<'de> {
    let Walk { tree, problems, scalars, mut wholes, headers, .. } = walk;
    let mut reading = Reading::new(Dialect::Event);
    reading.problems = problems;
    let from_one_place = headers.len();
    reading.event.headers = headers;
    for plan in &tree.plans {
        match plan {
            Plan::Field(slot, picks) => {
                if let Some(value) = first(picks, &scalars, *slot) {
                    reading.seen |= slot.bit();
                    reading.set(*slot, value);
                }
            }
            Plan::Header(name, picks) => {
                if let Some(value) = first(picks, &scalars, Slot::Headers) {
                    reading.header(name, value);
                }
            }
            Plan::Data(names, places, constant) => {
                let found = places.iter().find(|place| !is_nothing(&wholes[**place]));
                let found = found.map(|place| if tree.wholes[*place] == 1 { wholes[*place].take() } else { wholes[*place].clone() });
                if let Some(value) = found.or_else(|| constant.clone()) {
                    reading.data(names, value);
                }
            }
        }
    }
    if from_one_place > 0 && reading.event.headers.len() > from_one_place {
        reading.event.headers = last_of_equal_names(std::mem::take(&mut reading.event.headers));
    }
    reading
}

/// Empty text and `-`, which logs write for a value that is not there.
fn is_no_word(text: &str) -> bool {
    matches!(text, "" | "-")
}

fn is_nothing(value: &Json) -> bool {
    value.is_null() || value.as_str().is_some_and(is_no_word)
}

/// The value of the first source that has one.
fn first<'de>(picks: &[Pick], scalars: &[Scalar<'de>], slot: Slot) -> Option<Scalar<'de>> {
    picks.iter().find_map(|pick| match pick {
        Pick::Constant(value) => constant(value),
        Pick::Kept { scalar, unit, since, values } => {
            let value = &scalars[*scalar];
            let is_absent = match value {
                Scalar::Null => true,
                Scalar::Text(text) => is_no_word(text),
                _ => false,
            };
            if is_absent {
                return None;
            }
            let value = match since {
                Some(since) => between(&scalars[*since], value, *unit)?,
                None => converted(value.clone(), slot, *unit)?,
            };
            Some(replaced(value, values))
        }
    })
}

fn constant(value: &Json) -> Option<Scalar<'static>> {
    match value {
        Json::Bool(truth) => Some(Scalar::Bool(*truth)),
        Json::String(text) => Some(Scalar::Text(Cow::Owned(text.clone()))),
        Json::Number(number) => number.as_i64().map(Scalar::Int).or_else(|| number.as_u64().map(Scalar::Unsigned)),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Our word for theirs, where the mapping has one.
fn replaced<'de>(value: Scalar<'de>, values: &[(String, String)]) -> Scalar<'de> {
    match &value {
        Scalar::Text(text) => match values.iter().find(|(theirs, _)| theirs == text) {
            Some((_, ours)) => Scalar::Text(Cow::Owned(ours.clone())),
            None => value,
        },
        _ => value,
    }
}

/// The milliseconds between two times; none when one is missing, and never less than zero.
fn between(earlier: &Scalar<'_>, later: &Scalar<'_>, unit: Unit) -> Option<Scalar<'static>> {
    let (earlier, later) = (convert::time_ms(earlier, unit)?, convert::time_ms(later, unit)?);
    // OTLP writes 0 for a time that is not known.
    (earlier != 0 && later != 0).then(|| Scalar::Int(later.saturating_sub(earlier).max(0)))
}

/// A value as the slot takes it, or as it is: then the slot says what is wrong with it.
fn converted(value: Scalar<'_>, slot: Slot, unit: Unit) -> Option<Scalar<'_>> {
    Some(match slot {
        Slot::EventTime => match convert::time_ms(&value, unit) {
            Some(0) => return None,
            Some(ms) => Scalar::Int(ms),
            None => value,
        },
        // What is no number, or beyond 64 bits, is of the wrong type.
        Slot::ResponseTimeMs => convert::number_ms(&value, unit).map_or(Scalar::Nested, Scalar::Int),
        Slot::StatusCode | Slot::RequestBytes | Slot::ResponseBytes | Slot::Asn => convert::whole_number(value),
        Slot::IsStaff | Slot::IsAuthenticated => convert::truth(value),
        Slot::EventId | Slot::TenantId | Slot::UserId | Slot::SessionId | Slot::DeviceId | Slot::RequestId => value,
        Slot::Path => convert::url_path(convert::text(value)),
        _ => convert::text(value),
    })
}

impl<'de> Reading<'de> {
    fn header(&mut self, name: &str, value: Scalar<'de>) {
        let Scalar::Text(value) = value else { return self.problems.note(Reason::WrongType, "headers") };
        self.problems.refuse_nul(&value, "headers");
        self.event.headers.push((Cow::Owned(name.to_owned()), value));
    }

    /// Puts a value under `data`, with objects on the way to it. The result has to be an event again, so it ends at the
    /// same depth.
    fn data(&mut self, names: &[String], value: Json) {
        if 1 + names.len() + levels(&value) > MAX_DEPTH {
            return self.problems.note(Reason::TooDeep, "data");
        }
        let Some((last, outer)) = names.split_last() else {
            match value {
                Json::Object(object) => self.event.data = object,
                _ => self.problems.note(Reason::WrongType, "data"),
            }
            return;
        };
        let mut object = &mut self.event.data;
        for name in outer {
            let inner = object.entry(name.as_str()).or_insert_with(|| Json::Object(Map::new()));
            if !inner.is_object() {
                *inner = Json::Object(Map::new());
            }
            let Json::Object(inner) = inner else { return };
            object = inner;
        }
        object.insert(last.clone(), value);
    }
}

/// How many levels of objects and lists a value has.
fn levels(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Json::Object(object) => 1 + object.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
#[path = "mapped_tests.rs"]
mod tests;
