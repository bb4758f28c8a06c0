//! CloudEvents 1.0 as inputs: what a record's headers say about its value, and the attributes that an event is completed
//! from.
//!
//! In binary mode the headers hold the attributes and the value is the data; in structured mode the value is an envelope
//! with both. The data is the event. What it lacks comes from the attributes: `time` is its `event_time`, `type` its
//! `event_type`, `source` and `id` together its `event_id` ([`event_id`]). An attribute that the data makes needless is not
//! looked at, so the event's own fields win whatever stands beside them.

use super::MAX_ID_BYTES;
use crate::hash::derived_id;
use std::borrow::Cow;

/// How a record carries its event.
#[derive(Debug, Clone, Default)]
pub enum ContentMode<'a> {
    /// The headers say nothing: the value is an event, or an envelope if it has a `specversion`.
    #[default]
    Unsaid,
    /// The headers are the attributes, the value is the data.
    Binary(Attributes<'a>),
    /// The value is an envelope.
    Structured,
    /// A form that is not read, in words for the rejection.
    Refused(&'static str),
}

/// The media type that every form but binary mode begins with.
const MEDIA_TYPE: &[u8] = b"application/cloudevents";

impl<'a> ContentMode<'a> {
    /// The mode that the headers of a Kafka record name. The media type decides; without it, `ce_specversion` means binary
    /// mode. A header without a value is absent.
    pub fn of_headers(headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> ContentMode<'a> {
        let mut attributes = Attributes::new(Place::Headers);
        let mut format = None;
        for (name, value) in headers {
            let Some(value) = value else { continue };
            if name == "content-type" {
                format = format.or_else(|| format_of(value));
            } else if let Some(name) = name.strip_prefix("ce_").and_then(Name::of) {
                attributes.add(name, std::str::from_utf8(value).ok().map(Cow::Borrowed));
            }
        }
        match format {
            Some(mode) => mode,
            None if attributes.has(Name::SpecVersion) => ContentMode::Binary(attributes),
            None => ContentMode::Unsaid,
        }
    }
}

/// What a media type says, if it is one of CloudEvents.
fn format_of<'a>(content_type: &[u8]) -> Option<ContentMode<'a>> {
    let (begin, rest) = content_type.split_at_checked(MEDIA_TYPE.len())?;
    if !begin.eq_ignore_ascii_case(MEDIA_TYPE) {
        return None;
    }
    let format = rest.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    Some(match format.as_slice() {
        b"+json" => ContentMode::Structured,
        batch if batch.starts_with(b"-batch") => ContentMode::Refused("a batch of CloudEvents: send one in a record"),
        _ => ContentMode::Refused("a CloudEvent that is not in JSON"),
    })
}

/// An attribute that means something to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::event) enum Name {
    SpecVersion,
    Id,
    Source,
    Type,
    Time,
}

/// By [`Name`]: as a header, and in an envelope.
const NAMES: [(&str, &str); 5] =
    [("ce_specversion", "specversion"), ("ce_id", "id"), ("ce_source", "source"), ("ce_type", "type"), ("ce_time", "time")];

impl Name {
    /// The attribute of a name without its prefix.
    pub fn of(name: &str) -> Option<Name> {
        match name {
            "specversion" => Some(Name::SpecVersion),
            "id" => Some(Name::Id),
            "source" => Some(Name::Source),
            "type" => Some(Name::Type),
            "time" => Some(Name::Time),
            _ => None,
        }
    }
}

/// Where attributes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::event) enum Place {
    Headers,
    Envelope,
}

#[derive(Debug, Clone, Default)]
enum Attribute<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    /// Another type of JSON, or bytes that are not UTF-8.
    NotText,
}

/// The attributes of one CloudEvent, as they came: what is wrong with them is said when they are needed.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    place: Place,
    values: [Attribute<'a>; NAMES.len()],
    twice: Option<Name>,
}

/// An attribute that is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::event) struct NotText;

impl<'a> Attributes<'a> {
    pub(in crate::event) fn new(place: Place) -> Attributes<'a> {
        Attributes { place, values: Default::default(), twice: None }
    }

    /// Adds one that is there; `None` when it is no text.
    pub(in crate::event) fn add(&mut self, name: Name, text: Option<Cow<'a, str>>) {
        if self.has(name) {
            self.twice = self.twice.or(Some(name));
        }
        self.values[name as usize] = text.map_or(Attribute::NotText, Attribute::Text);
    }

    fn has(&self, name: Name) -> bool {
        !matches!(self.values[name as usize], Attribute::Absent)
    }

    /// The first that stands twice.
    pub(in crate::event) fn twice(&self) -> Option<&'static str> {
        self.twice.map(|name| self.label(name))
    }

    /// Takes the text of one.
    pub(in crate::event) fn take(&mut self, name: Name) -> Result<Option<Cow<'a, str>>, NotText> {
        match std::mem::take(&mut self.values[name as usize]) {
            Attribute::Absent => Ok(None),
            Attribute::Text(text) => Ok(Some(text)),
            Attribute::NotText => Err(NotText),
        }
    }

    /// Its name where it stands, for messages.
    pub(in crate::event) fn label(&self, name: Name) -> &'static str {
        let (header, member) = NAMES[name as usize];
        match self.place {
            Place::Headers => header,
            Place::Envelope => member,
        }
    }
}

/// The `event_id` of an event that has none: `source|id`, which no other CloudEvent has, since `|` does not stand in a URI (where
/// one does, it is written `%7C`, as in URIs). Longer than an id may be: a UUID made from both.
pub(in crate::event) fn event_id(source: &str, id: &str) -> String {
    let joined = if source.contains('|') { format!("{}|{id}", source.replace('|', "%7C")) } else { format!("{source}|{id}") };
    if joined.len() <= MAX_ID_BYTES { joined } else { derived_id(&["cloudevent", source, id]).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(headers: &[(&'static str, &'static str)]) -> String {
        match ContentMode::of_headers(headers.iter().map(|(name, value)| (*name, Some(value.as_bytes())))) {
            ContentMode::Unsaid => "unsaid".to_owned(),
            ContentMode::Binary(_) => "binary".to_owned(),
            ContentMode::Structured => "structured".to_owned(),
            ContentMode::Refused(why) => why.to_owned(),
        }
    }

    #[test]
    fn the_media_type_decides_and_then_the_version() {
        let batch = "a batch of CloudEvents: send one in a record";
        let other = "a CloudEvent that is not in JSON";
        for (content_type, expected) in [
            ("application/json", "unsaid"),
            ("application/cloudevent+json", "unsaid"),
            ("", "unsaid"),
            ("application/cloudevents+json", "structured"),
            ("Application/CloudEvents+JSON ; charset=UTF-8", "structured"),
            ("application/cloudevents-batch+json", batch),
            ("application/cloudevents-batch+avro; x=y", batch),
            ("application/cloudevents+avro", other),
            ("application/cloudevents", other),
            ("application/cloudevents;charset=utf-8", other),
        ] {
            assert_eq!(mode(&[("content-type", content_type)]), expected, "{content_type}");
            let with_version = if expected == "unsaid" { "binary" } else { expected };
            assert_eq!(mode(&[("ce_specversion", "1.0"), ("content-type", content_type)]), with_version, "{content_type}");
        }
        assert_eq!(mode(&[("ce_id", "1"), ("ce_time", "now"), ("specversion", "1.0"), ("ce-specversion", "1.0")]), "unsaid");
        assert!(matches!(ContentMode::of_headers([("ce_specversion", None)]), ContentMode::Unsaid), "null is absent");
        assert!(matches!(ContentMode::of_headers([("ce_specversion", Some(&b"\xff"[..]))]), ContentMode::Binary(_)));
    }

    #[test]
    fn an_id_is_unique_by_source_and_bounded() {
        assert_eq!(event_id("/shop/orders", "17"), "/shop/orders|17");
        assert_ne!(event_id("/a|b", "c"), event_id("/a", "b|c"));
        assert_eq!(event_id("/a|b", "c"), "/a%7Cb|c");
        assert_eq!(event_id("/a", &"i".repeat(253)).len(), 256);
        let (long, other) = (event_id("/a", &"i".repeat(254)), event_id("/b", &"i".repeat(254)));
        assert_eq!((long.len(), other.len()), (36, 36));
        assert_ne!(long, other);
        assert_eq!(event_id("é", "x"), "é|x");
    }
}
