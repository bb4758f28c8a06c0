//! What the tests of detectors share: one detector, shown events one by one, its memory encoded and decoded between all of
//! them; and seeded random streams.

use super::{Detector, Look, Seen};
use crate::entity::Entity;
use crate::event::Event;
use crate::observation::{Observation, Position};
use crate::rule::RuleSet;
use crate::rule::load::{SourceFile, load};
use crate::state::{ActorState, Edge, Memory, Slot};

/// A time to begin at.
pub const NOW: i64 = 1_760_000_000_000;

/// A pack of one rule with this detector, with more in its signal and more documents; or its problems.
pub fn pack(detect: &str, signal: &str, more: &str) -> Result<RuleSet, String> {
    let text = format!(
        "schema: 1\nid: a.rule\nversion: 1\ntitle: A rule\nmode: signal\non: any\ndetect: {{{detect}}}\nsignal: {{type: found{signal}}}\n{more}"
    );
    let problems = |found: Vec<crate::diagnostic::Diagnostic>| {
        found
            .iter()
            .map(|d| format!("{} {}{}\n", d.code, d.message, d.help.as_ref().map(|h| format!(" | {h}")).unwrap_or_default()))
            .collect()
    };
    load(&[SourceFile { name: "r.yaml".into(), text }], &serde_json::Map::new()).map_err(problems)
}

/// The problems of a detector; says so if there are none.
pub fn problems(detect: &str) -> String {
    pack(detect, "", "").err().unwrap_or_else(|| "no problem".into())
}

/// A detector and its memory.
pub struct Trial {
    rules: RuleSet,
    pub lateness_ms: i64,
    pub memory: Memory,
}

impl Trial {
    pub fn new(detect: &str, lateness_ms: i64) -> Trial {
        let rules = pack(detect, "", "").unwrap_or_else(|found| panic!("{found}"));
        let memory = rules.rules[0].detector.memory().expect("it remembers");
        Trial { rules, lateness_ms, memory }
    }

    pub fn detector(&self) -> &dyn Detector {
        self.rules.rules[0].detector.as_ref()
    }

    /// Shows an event that happened `at_ms` after [`NOW`]; `fields` is the rest of its JSON, such as `"outcome":"ok"`.
    pub fn see(&mut self, at_ms: i64, fields: &str) -> Seen {
        let comma = if fields.is_empty() { "" } else { "," };
        let text = format!(r#"{{"event_id":"e{at_ms}","event_time":{},"event_type":"t"{comma}{fields}}}"#, NOW + at_ms);
        let event = Event::decode(Some(text.as_bytes())).expect("an event");
        let position = Position { topic: "t".into(), partition: 0, offset: 0 };
        let observation = Observation::new(event, Entity::anon(), &position, NOW + at_ms);
        let look = Look { observation: &observation, at_ms: NOW + at_ms, lateness_ms: self.lateness_ms, score: None };
        self.memory = reloaded(&self.memory);
        self.rules.rules[0].detector.observe(&look, &mut self.memory)
    }

    /// Whether an event fires.
    pub fn fires(&mut self, at_ms: i64, fields: &str) -> bool {
        self.see(at_ms, fields).firing.is_some()
    }

    /// The bytes that the memory takes in an encoded state.
    pub fn bytes(&self) -> usize {
        encoded(&self.memory).len() - encoded(&Memory::Nothing).len()
    }
}

fn encoded(memory: &Memory) -> Vec<u8> {
    let mut state = ActorState::default();
    state.note(NOW + 366 * 86_400_000, 600_000);
    let slot = Slot { rule: 1, sub: 0, end_ms: i64::MAX, window_ms: 1, warm_ms: i64::MIN, edge: Edge::default(), memory: memory.clone() };
    state.put(slot, 64);
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    bytes
}

fn reloaded(memory: &Memory) -> Memory {
    let mut state = ActorState::decode(&encoded(memory)).expect("own bytes");
    state.slot(1, 0).expect("it was put there").memory.clone()
}

/// A seeded source of numbers (SplitMix64: Steele, Lea, Flood, 2014).
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % bound.unsigned_abs()) as i64
    }

    /// Times in ascending order, `gap` apart on average; equal ones among them.
    pub fn times(&mut self, count: usize, gap: i64) -> Vec<i64> {
        let mut at_ms = 0;
        (0..count)
            .map(|_| {
                at_ms += self.below(2 * gap + 1);
                at_ms
            })
            .collect()
    }

    /// The order in which events of these times arrive, none of them later than the lateness allows.
    pub fn arrivals(&mut self, times_ms: &[i64], lateness_ms: i64) -> Vec<usize> {
        let mut order: Vec<(i64, usize)> = times_ms.iter().enumerate().map(|(at, time)| (time + self.below(lateness_ms + 1), at)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, at)| at).collect()
    }
}
