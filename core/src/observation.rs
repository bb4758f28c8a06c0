//! One event, addressed to one entity: what the router writes and the detectors read.
//!
//! In keyed mode and in `replay` there is no router, and the observation is built from the record itself.

use crate::entity::Entity;
use crate::event::Event;
use crate::rejection::Rejection;

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
    /// The app gave the `event_id` itself, so that repeats can be recognised.
    pub has_own_id: bool,
    /// The event's time was ahead of the reference time by more than 5 s and was capped to it.
    pub clamped: bool,
}

/// How far an event's time may be ahead of its reference time before it is clamped, in milliseconds.
pub const MAX_AHEAD_MS: i64 = 5_000;

impl<'a> Observation<'a> {
    /// Addresses an event: gives it an id from `position` if it has none and caps its time at `reference_ms`
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
        Observation { event, entity, has_own_id, clamped }
    }

    /// Writes the observation as the value of a record of the observations topic.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Reads a record of the observations topic.
    pub fn decode(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Result<Observation<'a>, Rejection> {
        let _ = (key, value);
        Err(Rejection::new(crate::rejection::Reason::InvalidJson, "decoder missing"))
    }
}
