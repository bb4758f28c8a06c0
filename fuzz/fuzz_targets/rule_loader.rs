//! Any text as a rule pack: it loads or is refused with problems, and what loads can be run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use tripline_core::engine::{Emit, Engine, Made};
use tripline_core::event::Event;
use tripline_core::flags::FlagSnapshot;
use tripline_core::observation::Position;
use tripline_core::rule::load::{SourceFile, load};
use tripline_core::state::ActorState;

const EVENT: &[u8] = br#"{"event_time":1760000000000,"event_type":"http_request","user_id":"u","ip_address":"203.0.113.9","path":"/a",
    "method":"GET","status_code":404,"response_bytes":10,"data":{"x":1}}"#;

fuzz_target!(|text: &str| {
    let files = [SourceFile { name: "fuzz.yaml".into(), text: text.into() }];
    match load(&files, &serde_json::Map::new()) {
        Err(problems) => assert!(!problems.is_empty(), "a refusal says why"),
        Ok(rules) => {
            let engine = Engine::new(Arc::new(rules), &FlagSnapshot::default(), Emit::All);
            let (mut out, mut state) = (Made::default(), ActorState::default());
            for offset in 0..8 {
                let position = Position { topic: "t".into(), partition: 0, offset };
                let mut event = Event::decode(Some(EVENT)).expect("an event");
                event.event_time_ms += offset * 700 * (1 - 2 * (offset % 2));
                let _ = engine.address(event, &position, 1_760_000_000_000).each(|observation| {
                    engine.process(observation, &mut state, &mut out);
                    engine.fire_due(&observation.entity, 1_760_000_000_000 + offset * 100_000, &mut state, &mut out);
                    Ok::<(), ()>(())
                });
            }
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            ActorState::decode(&bytes).expect("own bytes are read");
        }
    }
});
