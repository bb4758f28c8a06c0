//! What the tests of several detectors need: a detector from its YAML, events at given times, and streams to show it.

use super::{Detector, Look, REGISTRY, Seen};
use crate::entity::Entity;
use crate::event::Event;
use crate::expr::Scope;
use crate::observation::{Observation, Position};
use crate::rule::load::SourceFile;
use crate::rule::load::report::Report;
use crate::rule::load::tree;
use crate::state::{ActorState, Edge, Memory, Slot};
use proptest::prelude::*;

/// Where the streams of tests begin: late enough that nothing falls before the earliest believed time.
pub const START_MS: i64 = 1_760_000_000_000;

/// A detector from what stands in `detect`; its problems if there are any.
pub fn detector(detect: &str) -> Result<Box<dyn Detector>, String> {
    let file = SourceFile { name: "d.yaml".into(), text: detect.into() };
    let mut report = Report::new(std::slice::from_ref(&file));
    let documents = tree::documents(0, &mut report);
    let tree::Tree::Map(entries) = &documents[0].value else { panic!("{detect} is no map") };
    let row = REGISTRY.iter().find(|row| row.name == entries[0].key).expect("a detector");
    let found = (row.read)(&entries[0].value, Some(&Scope::default()), &mut report);
    match report.finish() {
        None => Ok(found.expect("neither a detector nor a problem")),
        Some(problems) => Err(problems.iter().map(|p| format!("{} {}:{} {}\n", p.code, p.line, p.column, p.message)).collect()),
    }
}

/// A detector, and what it remembers of one entity.
pub struct Bench {
    detector: Box<dyn Detector>,
    memory: Memory,
    lateness_ms: i64,
    /// The most bytes that its memory took when encoded.
    pub bytes: usize,
}

impl Bench {
    pub fn new(detect: &str, lateness_ms: i64) -> Bench {
        let detector = detector(detect).unwrap_or_else(|problems| panic!("{problems}"));
        let memory = detector.memory().expect("it remembers");
        Bench { detector, memory, lateness_ms, bytes: 0 }
    }

    /// The same memory under another form of the rule.
    pub fn change(&mut self, detect: &str) {
        self.detector = Bench::new(detect, 0).detector;
    }

    /// Shows an event of `START_MS + at_ms` whose `data.v` is the given JSON; `None` if it is not taken.
    pub fn show(&mut self, at_ms: i64, value: &str) -> Option<Seen> {
        let at_ms = START_MS + at_ms;
        let text = format!(r#"{{"event_id":"e","event_time":{at_ms},"event_type":"t","data":{{"v":{value}}}}}"#);
        let event = Event::decode(Some(text.as_bytes())).expect("an event");
        let position = Position { topic: "t".into(), partition: 0, offset: 0 };
        let observation = Observation::new(event, Entity::anon(), &position, at_ms);
        self.look(at_ms, &observation)
    }

    fn look(&mut self, at_ms: i64, observation: &Observation<'_>) -> Option<Seen> {
        if !self.detector.takes(&observation.event) {
            return None;
        }
        let look = Look { observation, at_ms, lateness_ms: self.lateness_ms, score: None };
        Some(self.detector.observe(&look, &mut self.memory))
    }

    /// How far the condition is, after an event of `START_MS + at_ms`.
    pub fn progress(&self, at_ms: i64) -> Option<String> {
        self.detector.progress(START_MS + at_ms, &self.memory)
    }

    /// Encodes the memory as part of a state, checks that it is read back and that it is no larger than was said.
    pub fn check_bytes(&mut self) {
        let encoded = |memory: Memory| {
            let mut state = ActorState::default();
            state.note(START_MS, 1_000);
            let end_ms = i64::MAX / 2;
            state.put(Slot { rule: 1, sub: 0, end_ms, window_ms: 1, warm_ms: i64::MIN, edge: Edge::default(), memory }, 1);
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            state.changed = false;
            assert_eq!(ActorState::decode(&bytes).as_ref(), Ok(&state));
            bytes.len()
        };
        let bytes = encoded(self.memory.clone()) - encoded(Memory::Nothing);
        let most = self.detector.most_bytes();
        assert!(bytes <= most, "{bytes} bytes, at most {most} were said");
        self.bytes = self.bytes.max(bytes);
    }
}

/// A stream shuffled within the lateness, with what arrives when: `(time, value)` in the order of arrival.
pub fn shuffled(mut events: Vec<(i64, i64)>, delays: &[i64]) -> Vec<(i64, i64)> {
    let mut arriving: Vec<(i64, (i64, i64))> = events.drain(..).zip(delays).map(|(event, delay)| (event.0 + delay, event)).collect();
    arriving.sort_by_key(|(arrival, _)| *arrival);
    arriving.into_iter().map(|(_, event)| event).collect()
}

/// Times in order, each up to `gap` after the one before, with a value below `values`.
pub fn in_order(gap: i64, values: i64, events: usize) -> impl Strategy<Value = Vec<(i64, i64)>> {
    proptest::collection::vec((0..gap, 0..values), 1..events).prop_map(|steps| {
        let along = steps.into_iter().scan(0, |at, (gap, value)| {
            *at += gap;
            Some((*at, value))
        });
        along.collect()
    })
}

/// What became of many random streams.
#[derive(Debug, Default)]
pub struct Tally {
    /// Streams on which counting by hand fires.
    pub firing: u32,
    /// Of those, the ones on which the detector never did.
    pub missed: u32,
}

/// Shows `streams` seeded streams to a detector, each shuffled by up to `LATE_MS`. `by_hand` answers, for the events that
/// arrived and a place among them, whether a window that contains that event (any window, for `None`) meets the condition.
pub fn tally(streams: u32, mut detect: impl FnMut(&mut Dice) -> Course) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..streams {
        let mut dice = Dice(u64::from(seed) + 1);
        let Course { rule, arrivals, value, by_hand } = detect(&mut dice);
        let mut bench = Bench::new(&rule, LATE_MS);
        let mut fired = false;
        for (place, (at_ms, number)) in arrivals.iter().enumerate() {
            if bench.show(*at_ms, &value(*number)).is_some_and(|seen| seen.firing.is_some()) {
                fired = true;
                assert!(by_hand(&arrivals[..=place], Some(place)), "{rule}: fired at {place} of {arrivals:?}");
            }
        }
        if by_hand(&arrivals, None) {
            tally.firing += 1;
            tally.missed += u32::from(!fired);
        }
    }
    tally
}

/// How late events come in [`tally`].
pub const LATE_MS: i64 = 5_000;

/// One stream for [`tally`], and what counting by hand says of it.
pub struct Course {
    pub rule: String,
    pub arrivals: Vec<(i64, i64)>,
    pub value: fn(i64) -> String,
    #[allow(clippy::type_complexity, reason = "said once")]
    pub by_hand: Box<dyn Fn(&[(i64, i64)], Option<usize>) -> bool>,
}

/// Random numbers from a seed. Source: SplitMix64 (Steele, Lea, Flood 2014).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.unsigned_abs()) as i64
    }

    /// A stream of `events` events, on average `gap_ms` apart, each delayed by up to [`LATE_MS`].
    pub fn stream(&mut self, events: usize, gap_ms: i64, values: i64) -> Vec<(i64, i64)> {
        let mut at_ms = 0;
        let events: Vec<(i64, i64)> = (0..events)
            .map(|_| {
                at_ms += self.below(2 * gap_ms + 1);
                (at_ms, self.below(values))
            })
            .collect();
        let delays: Vec<i64> = events.iter().map(|_| self.below(LATE_MS)).collect();
        shuffled(events, &delays)
    }
}

/// Whether some window `(end - within, end]` that ends at an event, and contains the event at `place`, satisfies `judge`.
pub fn some_window(arrived: &[(i64, i64)], place: Option<usize>, within_ms: i64, judge: impl Fn(&[(i64, i64)]) -> bool) -> bool {
    let contains = |end: i64| place.is_none_or(|place| arrived[place].0 <= end && arrived[place].0 > end - within_ms);
    arrived.iter().filter(|(end, _)| contains(*end)).any(|(end, _)| {
        let inside: Vec<(i64, i64)> = arrived.iter().filter(|(at, _)| at <= end && *at > end - within_ms).copied().collect();
        judge(&inside)
    })
}

/// The same for windows of whole buckets.
pub fn some_aligned(arrived: &[(i64, i64)], place: Option<usize>, within_ms: i64, judge: impl Fn(&[(i64, i64)]) -> bool) -> bool {
    let bucket = |at: i64| ((START_MS + at) * 60).div_euclid(within_ms);
    let contains = |end: i64| place.is_none_or(|place| bucket(arrived[place].0) <= end && bucket(arrived[place].0) > end - 60);
    arrived.iter().map(|(at, _)| bucket(*at)).filter(|end| contains(*end)).any(|end| {
        let inside: Vec<(i64, i64)> = arrived.iter().filter(|(at, _)| bucket(*at) <= end && bucket(*at) > end - 60).copied().collect();
        judge(&inside)
    })
}
