//! One event, addressed to one entity: what the router writes and the detectors read.
//!
//! In keyed mode and in `replay` there is no router, and the observation is built from the record itself.

use crate::entity::Entity;
use crate::event::Event;
use crate::event::decode::{Envelope, read_observation};
use crate::event::encode::ObjectWriter;
use crate::mask;
use crate::rejection::{Reason, Rejection};

/// Where an input record stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The topic; a file's observations name the file's role, `file`.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset; in a file, the line's number from 0.
    pub offset: i64,
}

/// An event addressed to an entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation<'a> {
    /// The event; it has an `event_id` by now, and its time is capped (see [`Observation::new`]).
    pub event: Event<'a>,
    /// Whom it is about.
    pub entity: Entity<'a>,
    /// The entity is the event's actor: rules with `by: actor` count it here.
    pub is_actor: bool,
    /// The app gave the `event_id` itself, so that repeats can be recognised.
    pub has_own_id: bool,
    /// The event's time was ahead of the reference time by more than 5 s and was capped to it.
    pub clamped: bool,
    /// The input record it came from.
    pub source: Position,
    /// That record's timestamp: the reference time.
    pub reference_ms: i64,
}

/// How far an event's time may be ahead of its reference time before it is clamped, in milliseconds.
pub const MAX_AHEAD_MS: i64 = 5_000;

/// Version of the observation's JSON. A reader reads the version before it, too (there every entity was the actor), and
/// refuses every other.
pub const OBSERVATION_VERSION: i64 = 2;

/// The most bytes of an [`Observation::opening`].
pub const MAX_OPENING_BYTES: usize = 2_048;

/// What an opening goes without, in this order, until it fits. The event's id, type and time always stay.
const DISPENSABLE: [fn(&mut Event<'_>); 16] = [
    |event| event.data.clear(),
    |event| event.user_agent = None,
    |event| event.path = None,
    |event| event.route = None,
    |event| event.tenant_name = None,
    |event| event.outcome = None,
    |event| event.blocked_by = None,
    |event| event.role = None,
    |event| event.country = None,
    |event| event.method = None,
    |event| event.anomaly_type = None,
    |event| event.request_id = None,
    |event| event.ip_address = None,
    |event| event.session_id = None,
    |event| event.device_id = None,
    |event| (event.tenant_id, event.user_id) = (None, None),
];

impl<'a> Observation<'a> {
    /// Addresses an event to its actor: gives it an id from `position` if it has none and caps its time at `reference_ms`
    /// (the record's timestamp) when it is more than [`MAX_AHEAD_MS`] ahead of it.
    pub fn new(mut event: Event<'a>, entity: Entity<'a>, position: &Position, reference_ms: i64) -> Observation<'a> {
        let clamped = event.event_time_ms > reference_ms.saturating_add(MAX_AHEAD_MS);
        if clamped {
            event.event_time_ms = reference_ms;
        }
        let has_own_id = event.event_id.is_some();
        if !has_own_id {
            event.event_id = Some(format!("{}/{}/{}", position.topic, position.partition, position.offset).into());
        }
        Observation { event, entity, is_actor: true, has_own_id, clamped, source: position.clone(), reference_ms }
    }

    /// Writes the observation as the value of a record of the observations topic; the record's key is the entity's text.
    ///
    /// One flat object, so that it is read in one pass: the envelope under names that begin with `_`, then the event.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut object = ObjectWriter::begin(out);
        object.int("_v", Some(OBSERVATION_VERSION));
        object.text("_topic", Some(&self.source.topic));
        object.int("_partition", Some(self.source.partition.into()));
        object.int("_offset", Some(self.source.offset));
        object.int("_at", Some(self.reference_ms));
        object.truth("_actor", self.is_actor.then_some(true));
        object.truth("_own", self.has_own_id.then_some(true));
        object.truth("_clamped", self.clamped.then_some(true));
        object.event(&self.event, |object| object.int("event_time", Some(self.event.event_time_ms)));
        object.end();
    }

    /// What is kept of an observation while something waits for a time to come: as [`Observation::encode`] writes it,
    /// without headers, with `data` masked, in at most [`MAX_OPENING_BYTES`]. What does not fit is left out as a whole field,
    /// `data` first and the ids last; no value is cut.
    pub fn opening(&self) -> Box<[u8]> {
        let event = Event { headers: Vec::new(), data: mask::object(&self.event.data), ..self.event.clone() };
        let mut kept = Observation { event, ..self.clone() };
        let mut bytes = Vec::new();
        kept.encode(&mut bytes);
        for leave_out in DISPENSABLE {
            if bytes.len() <= MAX_OPENING_BYTES {
                break;
            }
            leave_out(&mut kept.event);
            bytes.clear();
            kept.encode(&mut bytes);
        }
        bytes.into()
    }

    /// Reads a record of the observations topic.
    pub fn decode(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Result<Observation<'a>, Rejection> {
        Observation::decode_about(entity_of(key), value)
    }

    /// Reads the value of an observation about an entity that is known.
    pub(crate) fn decode_about(entity: Result<Entity<'a>, Rejection>, value: Option<&'a [u8]>) -> Result<Observation<'a>, Rejection> {
        let (event, envelope) = read_observation(value)?;
        let Envelope { version, topic, partition, offset, reference_ms, is_actor, has_own_id, clamped } = envelope;
        let is_actor = match version {
            Some(OBSERVATION_VERSION) => is_actor,
            Some(1) => true,
            _ => return Err(Rejection::new(Reason::WrongType, "observation version")),
        };
        let missing = |name: &str| Rejection::new(Reason::MissingField, name);
        let partition = partition.ok_or_else(|| missing("_partition"))?;
        let source = Position {
            topic: topic.ok_or_else(|| missing("_topic"))?.into_owned(),
            partition: i32::try_from(partition).map_err(|_| Rejection::new(Reason::WrongType, "_partition"))?,
            offset: offset.ok_or_else(|| missing("_offset"))?,
        };
        let reference_ms = reference_ms.ok_or_else(|| missing("_at"))?;
        if event.event_id.is_none() {
            return Err(missing("event_id"));
        }
        Ok(Observation { event, entity: entity?, is_actor, has_own_id, clamped, source, reference_ms })
    }
}

fn entity_of(key: Option<&[u8]>) -> Result<Entity<'_>, Rejection> {
    let wrong = || Rejection::new(Reason::WrongType, "observation key");
    let key = std::str::from_utf8(key.ok_or_else(wrong)?).map_err(|_| Rejection::new(Reason::InvalidUtf8, "observation key"))?;
    Entity::parse(key).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        Position { topic: "app.requests".into(), partition: 3, offset: 42 }
    }

    fn event(id: &str) -> Vec<u8> {
        format!(r#"{{{id}"event_time":1760000000000,"event_type":"http_request","user_id":"u\u0031","path":"/a \"b\""}}"#).into_bytes()
    }

    fn routed(observation: &Observation<'_>) -> (Vec<u8>, Vec<u8>) {
        let mut value = Vec::new();
        observation.encode(&mut value);
        (observation.entity.to_string().into_bytes(), value)
    }

    #[test]
    fn an_observation_survives_the_topic() {
        for (id, reference_ms) in [("", 1_760_000_000_500), (r#""event_id":"e1","#, 1_760_000_000_500), ("", 1_600_000_000_000), ("", -1)] {
            let bytes = event(id);
            let event = Event::decode(Some(&bytes)).unwrap();
            let observation = Observation::new(event, Entity::actor(Some("u1"), None), &position(), reference_ms);
            let (key, value) = routed(&observation);
            assert_eq!(Observation::decode(Some(&key), Some(&value)), Ok(observation.clone()));
            assert_eq!(observation.has_own_id, !id.is_empty());
            assert_eq!(observation.clamped, reference_ms < 1_700_000_000_000);
        }
    }

    #[test]
    fn an_observation_of_the_version_before_is_the_actor_s() {
        let value = br#"{"_v":1,"_topic":"app.requests","_partition":3,"_offset":42,"_at":1760000000500,"event_id":"e1",
            "event_time":1760000000000,"event_type":"t"}"#;
        assert_eq!(Observation::decode(Some(b"user:u1"), Some(value)).map(|o| o.is_actor), Ok(true));
    }

    #[test]
    fn an_id_made_from_the_longest_topic_is_read_back() {
        let bytes = event("");
        let position = Position { topic: "t".repeat(249), partition: i32::MAX, offset: i64::MAX };
        let observation = Observation::new(Event::decode(Some(&bytes)).unwrap(), Entity::actor(None, None), &position, 1_760_000_000_000);
        let (key, value) = routed(&observation);
        assert_eq!(Observation::decode(Some(&key), Some(&value)), Ok(observation));
    }

    #[test]
    fn what_the_router_did_not_write_is_refused() {
        let bytes = event(r#""event_id":"e1","#);
        let event = Event::decode(Some(&bytes)).unwrap();
        let (key, value) = routed(&Observation::new(event, Entity::actor(Some("u1"), None), &position(), 1_760_000_000_000));
        let value = String::from_utf8(value).unwrap();
        let check = |key: Option<&[u8]>, value: &str, expected: &str| {
            let refused = Observation::decode(key, Some(value.as_bytes())).map_err(|r| r.to_string());
            assert_eq!(refused, Err(expected.to_owned()), "{value}");
        };
        check(Some(&key), &value.replace(r#""_v":2"#, r#""_v":3"#), "wrong_type: observation version");
        check(Some(&key), &value.replace(r#""_v":2,"#, ""), "wrong_type: observation version");
        check(Some(&key), std::str::from_utf8(&bytes).unwrap(), "wrong_type: observation version");
        check(Some(&key), &value.replace(r#""_offset":42,"#, ""), "missing_field: _offset");
        check(Some(&key), &value.replace(r#""_partition":3"#, r#""_partition":3000000000"#), "wrong_type: _partition");
        check(Some(&key), &value.replace(r#""_at":"#, r#""_v":2,"_at":"#), "duplicate_key: observation version");
        check(Some(&key), &value.replace(r#""event_id":"e1","#, ""), "missing_field: event_id");
        check(None, &value, "wrong_type: observation key");
        check(Some(b"cat:x"), &value, "wrong_type: observation key");
        check(Some(b"user:\xff"), &value, "invalid_utf8: observation key");
    }

    #[test]
    fn an_opening_has_no_headers_and_its_data_is_masked() {
        let bytes = br#"{"event_id":"e1","event_time":1760000000000,"event_type":"t","path":"/a","headers":{"cookie":"c"},
            "data":{"order":7,"card":{"number":"4111"}}}"#;
        let observation =
            Observation::new(Event::decode(Some(bytes)).unwrap(), Entity::actor(Some("u1"), None), &position(), 1_760_000_000_500);
        let opening = observation.opening();
        let read = Observation::decode_about(Ok(observation.entity.clone()), Some(&opening)).unwrap();
        assert_eq!(read.event.data, *serde_json::json!({"order": 7, "card": "***"}).as_object().unwrap());
        assert_eq!((read.event.path.as_deref(), read.event.headers.len(), read.has_own_id), (Some("/a"), 0, true));
    }

    /// Quotes, which JSON writes as two bytes, in every field, each as long as it may be.
    #[test]
    fn an_opening_fits_whatever_the_event_and_keeps_ids_before_texts() {
        let check = |id: &str, text: usize, kept: &[&str]| {
            let (id, text, short) = (Some(id.to_owned().into()), Some("\"".repeat(text).into()), Some("\"".repeat(256).into()));
            let mut event = Event { event_id: id, event_time_ms: i64::MIN, event_type: "\"".repeat(256).into(), ..Event::default() };
            for field in [&mut event.tenant_id, &mut event.user_id, &mut event.session_id, &mut event.device_id, &mut event.request_id] {
                field.clone_from(&short);
            }
            for field in [&mut event.path, &mut event.route, &mut event.user_agent, &mut event.tenant_name, &mut event.method] {
                field.clone_from(&text);
            }
            for field in [&mut event.country, &mut event.role, &mut event.outcome, &mut event.anomaly_type, &mut event.blocked_by] {
                field.clone_from(&text);
            }
            event.ip_address = short;
            event.data.insert("k".into(), "v".repeat(5_000).into());
            let source = Position { topic: "t".repeat(249), partition: i32::MIN, offset: i64::MIN };
            let entity = Entity::anon();
            let observation =
                Observation { event, entity, is_actor: true, has_own_id: true, clamped: true, source, reference_ms: i64::MIN };
            let opening = observation.opening();
            assert!(opening.len() <= MAX_OPENING_BYTES, "{} bytes", opening.len());
            let read = Observation::decode_about(Ok(Entity::anon()), Some(&opening)).expect("an observation");
            assert_eq!((&read.event.event_id, &read.event.event_type), (&observation.event.event_id, &observation.event.event_type));
            assert_eq!(read.event.event_time_ms, i64::MIN);
            let object: serde_json::Value = serde_json::from_slice(&opening).unwrap();
            let names: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).filter(|name| !name.starts_with('_')).collect();
            assert_eq!(names.iter().filter(|name| !name.starts_with("event_")).copied().collect::<Vec<_>>(), kept);
        };
        check(&"\"".repeat(512), 70_000, &[]);
        check("e1", 70_000, &["tenant_id", "user_id"]);
    }

    #[test]
    fn names_of_the_envelope_mean_nothing_in_an_app_s_event() {
        let event = Event::decode(Some(br#"{"_v":9,"_own":"x","event_time":1760000000000,"event_type":"t"}"#)).unwrap();
        assert_eq!(event.event_id, None);
    }
}
