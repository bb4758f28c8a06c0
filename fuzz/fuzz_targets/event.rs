//! Any bytes as a record: an event or a rejection that does not quote them; what is an event is written and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tripline_core::entity::Entity;
use tripline_core::event::Event;
use tripline_core::event::cloud::ContentMode;
use tripline_core::observation::{Observation, Position};

fuzz_target!(|bytes: &[u8]| {
    let _ = Observation::decode(Some(b"user:u"), Some(bytes));
    let _ = Event::decode_record(Some(bytes), ContentMode::Structured, None);
    let Ok(event) = Event::decode(Some(bytes)) else { return };
    let position = Position { topic: "t".into(), partition: 0, offset: 1 };
    let observation = Observation::new(event, Entity::actor(Some("u"), None), &position, 1_760_000_000_000);
    let mut value = Vec::new();
    observation.encode(&mut value);
    assert_eq!(Observation::decode(Some(b"user:u"), Some(&value)).as_ref(), Ok(&observation));
});
