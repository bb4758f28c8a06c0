//! The line without Kafka: rules in, events in, decisions out, with every state encoded and decoded between all events.

use std::collections::BTreeMap;
use std::sync::Arc;
use tripline_core::engine::{Emit, Engine, Made};
use tripline_core::entity::Entity;
use tripline_core::event::Event;
use tripline_core::flags::FlagSnapshot;
use tripline_core::observation::Position;
use tripline_core::rule::load::{SourceFile, load};
use tripline_core::state::ActorState;

/// An engine and the states of its entities, as bytes.
pub struct Line {
    engine: Engine,
    states: BTreeMap<String, Vec<u8>>,
    events: i64,
}

impl Line {
    /// Loads a pack; its problems are the panic's text.
    pub fn new(files: &[SourceFile], flags: &str) -> Line {
        let rules = load(files, &Default::default())
            .unwrap_or_else(|found| panic!("{}", found.iter().map(ToString::to_string).collect::<String>()));
        let flags = FlagSnapshot::parse("flags.json", flags).expect("flags");
        Line { engine: Engine::new(Arc::new(rules), &flags, Emit::Fired), states: BTreeMap::new(), events: 0 }
    }

    /// Shows one event to every entity that it concerns. It is read when it happened.
    pub fn show(&mut self, event: &str) -> Made {
        let event = Event::decode(Some(event.as_bytes())).unwrap_or_else(|rejection| panic!("{event}: {rejection:?}"));
        let position = Position { topic: "file".into(), partition: 0, offset: self.events };
        self.events += 1;
        let reference_ms = event.event_time_ms;
        let mut made = Made::default();
        let shown = self.engine.address(event, &position, reference_ms).each(|observation| {
            let bytes = self.states.entry(observation.entity.to_string()).or_default();
            change(bytes, |state| _ = self.engine.process(observation, state, &mut made));
            Ok::<(), ()>(())
        });
        shown.expect("nothing fails");
        made
    }

    /// Lets time pass for every entity, up to a stream time.
    pub fn pass(&mut self, stream_time_ms: i64) -> Made {
        let mut made = Made::default();
        for (key, bytes) in &mut self.states {
            let entity = Entity::parse(key).expect("an entity's key");
            change(bytes, |state| self.engine.fire_due(&entity, stream_time_ms, state, &mut made));
        }
        made
    }
}

/// Decodes a state (no bytes: a fresh one), changes it, encodes it.
fn change(bytes: &mut Vec<u8>, change: impl FnOnce(&mut ActorState)) {
    let mut state = if bytes.is_empty() { ActorState::default() } else { ActorState::decode(bytes).expect("own bytes") };
    change(&mut state);
    bytes.clear();
    state.encode(bytes);
}
