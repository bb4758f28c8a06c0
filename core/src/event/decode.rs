//! Bytes to event. `docs/bad-input.md` has the outcome of everything that can be wrong.

use super::Event;
use crate::rejection::Rejection;

impl<'a> Event<'a> {
    /// Decodes a record's value. `None` is a null value (a tombstone).
    pub fn decode(value: Option<&'a [u8]>) -> Result<Event<'a>, Rejection> {
        let _ = value;
        Err(Rejection::new(crate::rejection::Reason::InvalidJson, "decoder missing"))
    }

    /// Writes the event as normalised JSON: fields in the order of the schema, absent ones left out, `event_time` in RFC 3339 with milliseconds.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
    }
}
