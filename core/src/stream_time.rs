//! The time up to which a task has heard from all its sources, and what that time lets fire.
//!
//! In routed mode a task's stream time is the minimum over its sources (input topic, partition). It moves with
//! [`Tick`]s only: they carry everything that single observations could say, a few seconds later, and a record then costs
//! nothing. A source's time is the greatest reference time routed from it, or, when the router found the source read to
//! its end, the broker's time of the tick before: whatever was appended to the source before that tick had been routed. It
//! follows the broker's clock, one tick behind, and never a worker's.
//!
//! A time of `t` says that everything before `t` was seen; records of the same millisecond may follow. So stream time is one
//! millisecond less.
//!
//! In keyed mode and in a file there is one source, and its time is the greatest reference time seen ([`reached_by`]).

use crate::engine::{Engine, Made};
use crate::observation::Observation;
use crate::state::ActorState;
use crate::tick::{Layout, MAX_TOPICS, Tick};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// For how long, in the log's append time, a source counts that no tick names any more: ten minutes. Routers that know
/// different layouts, while partitions are added or settings rolled out, must not make each other's sources come and go.
pub const LAYOUT_MEMORY_MS: i64 = 600_000;

/// When a tick was appended to the log it is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The record's timestamp, milliseconds.
    pub at_ms: i64,
    /// The broker's clock gave it (LogAppendTime), not the producer's.
    pub by_broker: bool,
}

/// The sources of one task and the time each was heard up to. Part of what a task commits: after a restart it is exactly
/// what it was. Bounded by the layouts of the last [`LAYOUT_MEMORY_MS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTimes {
    topics: BTreeMap<String, Sources>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    now_ms: Option<i64>,
}

/// The partitions of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sources {
    /// How many there are.
    count: i32,
    /// Append time of the newest tick that said so.
    told_ms: i64,
    /// Those that were heard of.
    heard: BTreeMap<i32, Source>,
}

/// One source partition, as `[heard up to, append time of its newest tick]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Source(Option<i64>, Option<i64>);

impl SourceTimes {
    /// The stream time, milliseconds: everything up to and including it was seen. `None` while a source has not been heard.
    /// Never decreases.
    pub fn now(&self) -> Option<i64> {
        self.now_ms
    }

    /// Takes a tick that was appended to the task's log then.
    pub fn tick(&mut self, tick: &Tick, appended: Appended) {
        self.learn(&tick.layout, appended.at_ms);
        let Some(topic) = self.topics.get_mut(&tick.topic) else { return };
        let source = topic.heard.entry(tick.partition).or_default();
        // Nobody can have heard of a time that is still to come: a producer's clock that is ahead moves nothing.
        let routed = tick.at_ms.map(|at| at.min(appended.at_ms));
        let idle = if tick.idle { source.1 } else { None };
        source.0 = source.0.max(routed).max(idle);
        source.1 = source.1.max(appended.by_broker.then_some(appended.at_ms));
        self.now_ms = self.now_ms.max(self.least().map(reached_by));
    }

    /// The times of a task that takes over from others: of each source the least that all of them heard, so that nothing fires
    /// early; it has not heard of a source that one of them has not heard of. `None` for nobody.
    pub fn least_of<'a>(times: impl IntoIterator<Item = &'a SourceTimes>) -> Option<SourceTimes> {
        times.into_iter().cloned().reduce(|one, other| {
            let names: BTreeSet<&String> = one.topics.keys().chain(other.topics.keys()).collect();
            let none = Sources::default();
            let of = |times: &'_ SourceTimes, name| times.topics.get(name).unwrap_or(&none).clone();
            SourceTimes {
                topics: names.into_iter().map(|name| (name.clone(), Sources::least(&of(&one, name), &of(&other, name)))).collect(),
                now_ms: one.now_ms.min(other.now_ms),
            }
        })
    }

    /// Takes in which sources there are. A smaller count, and a topic that is not named, count only once the greater one has
    /// not been told for a while.
    fn learn(&mut self, layout: &Layout, appended_ms: i64) {
        let is_old = |told_ms: i64| appended_ms.saturating_sub(told_ms) > LAYOUT_MEMORY_MS;
        self.topics.retain(|topic, sources| layout.contains_key(topic) || !is_old(sources.told_ms));
        for (topic, &count) in layout {
            if !self.topics.contains_key(topic) && self.topics.len() >= MAX_TOPICS {
                continue;
            }
            let sources = self.topics.entry(topic.clone()).or_default();
            if count >= sources.count || is_old(sources.told_ms) {
                sources.count = count;
                sources.told_ms = sources.told_ms.max(appended_ms);
                sources.heard.retain(|partition, _| *partition < count);
            }
        }
    }

    /// The least time of all sources, if each was heard.
    fn least(&self) -> Option<i64> {
        let mut least = None;
        for sources in self.topics.values() {
            if sources.heard.len() < usize::try_from(sources.count).ok()? {
                return None;
            }
            for Source(heard, _) in sources.heard.values() {
                least = Some(least.map_or((*heard)?, |least: i64| least.min(heard.unwrap_or(i64::MIN))));
                (*heard)?;
            }
        }
        least
    }
}

impl Sources {
    /// All partitions that one of them knows of, each heard as far as both heard it.
    fn least(one: &Sources, other: &Sources) -> Sources {
        let heard = one.heard.iter().filter_map(|(partition, Source(a, a_tick))| {
            let Source(b, b_tick) = other.heard.get(partition)?;
            Some((*partition, Source(*a.min(b), *a_tick.min(b_tick))))
        });
        Sources { count: one.count.max(other.count), told_ms: one.told_ms.max(other.told_ms), heard: heard.collect() }
    }
}

/// The stream time once a source has been heard up to `reference_ms`.
pub fn reached_by(reference_ms: i64) -> i64 {
    reference_ms.saturating_sub(1)
}

/// Fires what an event proves to be over for its own entity, before it is counted: past the event's time minus the allowed
/// lateness nothing older counts for this entity any more. So an entity that goes on acting gets its decisions without
/// waiting for its task's other sources, and its state cannot expire under something that waits.
pub fn settle(engine: &Engine, observation: &Observation<'_>, state: &mut ActorState, out: &mut Made) {
    let proven_ms = reached_by(observation.event.event_time_ms.min(observation.reference_ms));
    if is_due(engine, state, proven_ms) {
        engine.fire_due(&observation.entity, proven_ms, state, out);
    }
}

/// Whether something in this state fires at this stream time.
pub fn is_due(engine: &Engine, state: &ActorState, stream_time_ms: i64) -> bool {
    state.next_due_ms().is_some_and(|due| due.saturating_add(engine.lateness_ms()) <= stream_time_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(counts: &[(&str, i32)]) -> Layout {
        counts.iter().map(|(topic, n)| ((*topic).to_owned(), *n)).collect()
    }

    fn tick(topic: &str, partition: i32, at_ms: Option<i64>, idle: bool, counts: &[(&str, i32)]) -> Tick {
        Tick { topic: topic.into(), partition, at_ms, idle, layout: layout(counts) }
    }

    fn at(at_ms: i64) -> Appended {
        Appended { at_ms, by_broker: true }
    }

    #[test]
    fn stream_time_waits_for_every_source_and_is_the_least() {
        let mut times = SourceTimes::default();
        let both = [("a", 1), ("b", 1)];
        times.tick(&tick("a", 0, Some(500), false, &both), at(1_000));
        assert_eq!(times.now(), None, "b was not heard");
        times.tick(&tick("b", 0, None, false, &both), at(1_000));
        assert_eq!(times.now(), None, "b said that it has nothing to say");
        times.tick(&tick("b", 0, Some(300), false, &both), at(1_100));
        assert_eq!(times.now(), Some(299));
        times.tick(&tick("a", 0, Some(900), false, &both), at(1_200));
        assert_eq!(times.now(), Some(299), "b lags and holds it back");
    }

    #[test]
    fn an_idle_source_is_heard_up_to_the_tick_before() {
        let mut times = SourceTimes::default();
        let one = [("a", 1)];
        times.tick(&tick("a", 0, None, false, &one), at(1_000));
        times.tick(&tick("a", 0, None, true, &one), at(6_000));
        assert_eq!(times.now(), Some(999));
        times.tick(&tick("a", 0, None, true, &one), at(11_000));
        assert_eq!(times.now(), Some(5_999));
        times.tick(&tick("a", 0, Some(7_000), false, &one), at(16_000));
        assert_eq!(times.now(), Some(6_999), "a record came: what was routed counts");
    }

    #[test]
    fn the_first_tick_of_a_source_cannot_be_idle_and_a_workers_clock_never_counts() {
        let mut times = SourceTimes::default();
        let one = [("a", 1)];
        times.tick(&tick("a", 0, None, true, &one), at(1_000));
        assert_eq!(times.now(), None);
        let mut times = SourceTimes::default();
        for at_ms in [1_000, 6_000, 11_000] {
            times.tick(&tick("a", 0, None, true, &one), Appended { at_ms, by_broker: false });
        }
        assert_eq!(times.now(), None);
    }

    #[test]
    fn a_producers_clock_that_is_ahead_moves_the_time_no_further_than_the_broker() {
        let mut times = SourceTimes::default();
        times.tick(&tick("a", 0, Some(i64::MAX), false, &[("a", 1)]), at(1_000));
        assert_eq!(times.now(), Some(999));
    }

    #[test]
    fn a_new_partition_holds_the_time_until_it_is_heard() {
        let mut times = SourceTimes::default();
        times.tick(&tick("a", 0, Some(500), false, &[("a", 1)]), at(1_000));
        times.tick(&tick("a", 0, Some(900), false, &[("a", 2)]), at(2_000));
        assert_eq!(times.now(), Some(499));
        // Another router has not learnt of it yet.
        times.tick(&tick("a", 0, Some(950), false, &[("a", 1)]), at(2_001));
        assert_eq!(times.now(), Some(499));
        times.tick(&tick("a", 1, Some(800), false, &[("a", 2)]), at(3_000));
        assert_eq!(times.now(), Some(799));
    }

    #[test]
    fn a_source_that_nobody_names_any_more_is_dropped_after_a_while() {
        let mut times = SourceTimes::default();
        times.tick(&tick("a", 0, Some(500), false, &[("a", 1), ("b", 3)]), at(1_000));
        times.tick(&tick("a", 0, Some(600), false, &[("a", 1)]), at(1_000 + LAYOUT_MEMORY_MS));
        assert_eq!(times.now(), None, "b still counts");
        times.tick(&tick("a", 0, Some(700), false, &[("a", 1)]), at(1_001 + LAYOUT_MEMORY_MS));
        assert_eq!(times.now(), Some(699));
        // A topic that was made anew with fewer partitions.
        let mut times = SourceTimes::default();
        times.tick(&tick("a", 3, Some(500), false, &[("a", 4)]), at(1_000));
        for (partition, at_ms) in [(0, 2_000), (0, 1_001 + LAYOUT_MEMORY_MS), (1, 1_002 + LAYOUT_MEMORY_MS)] {
            assert_eq!(times.now(), None);
            times.tick(&tick("a", partition, Some(900), false, &[("a", 2)]), at(at_ms));
        }
        assert_eq!(times.now(), Some(899));
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let mut times = SourceTimes::default();
        times.tick(&tick("a", 1, Some(500), false, &[("a", 2)]), at(1_000));
        times.tick(&tick("a", 0, None, false, &[("a", 2)]), at(1_000));
        let text = serde_json::to_string(&times).expect("plain");
        assert_eq!(text, r#"{"topics":{"a":{"count":2,"told_ms":1000,"heard":{"0":[null,1000],"1":[500,1000]}}}}"#);
        assert_eq!(serde_json::from_str::<SourceTimes>(&text).expect("own text"), times);
    }

    #[test]
    fn who_takes_over_has_heard_what_all_before_it_heard() {
        let both = [("a", 1), ("b", 1)];
        let (mut one, mut other) = (SourceTimes::default(), SourceTimes::default());
        for (times, a_ms, b_ms) in [(&mut one, 500, 900), (&mut other, 700, 600)] {
            times.tick(&tick("a", 0, Some(a_ms), false, &both), at(1_000));
            times.tick(&tick("b", 0, Some(b_ms), false, &both), at(1_000));
        }
        let mut least = SourceTimes::least_of([&one, &other]).expect("two");
        assert_eq!(least.now(), Some(499));
        least.tick(&tick("a", 0, Some(950), false, &both), at(2_000));
        assert_eq!(least.now(), Some(599), "b was heard by both up to 600 only");
        assert_eq!(SourceTimes::least_of([&one, &SourceTimes::default()]).expect("two").now(), None);
        assert_eq!(SourceTimes::least_of([&one]), Some(one));
        assert_eq!(SourceTimes::least_of([]), None);
    }

    /// A source: what is appended to it and when, and how far its router is.
    #[derive(Default)]
    struct Model {
        /// Append times, ascending, one record each (LogAppendTime: also the reference times).
        appended: Vec<i64>,
        routed: usize,
        ticked: bool,
        /// Nothing unrouted was found after the last tick, and nothing was routed since.
        found_idle: bool,
    }

    proptest! {
        /// Whatever two tasks heard before, and whatever ticks come after: who takes over from both is never ahead of either.
        #[test]
        fn who_takes_over_is_never_ahead(
            before in prop::collection::vec((any::<bool>(), 0..2usize, 0..3i32, prop::option::of(0..9_000i64), any::<bool>()), 0..40),
            after in prop::collection::vec((0..2usize, 0..3i32, prop::option::of(0..90_000i64), any::<bool>()), 0..40),
        ) {
            let (mut one, mut other, mut clock) = (SourceTimes::default(), SourceTimes::default(), 0);
            let counts = [("a", 3), ("b", 3)];
            for (is_one, topic, partition, at_ms, idle) in before {
                clock += 250;
                let times = if is_one { &mut one } else { &mut other };
                times.tick(&tick(counts[topic].0, partition, at_ms, idle, &counts), at(clock));
            }
            let mut least = SourceTimes::least_of([&one, &other]).expect("two");
            for (topic, partition, at_ms, idle) in after {
                prop_assert!(least.now() <= one.now() && least.now() <= other.now());
                clock += 2_500;
                for times in [&mut one, &mut other, &mut least] {
                    times.tick(&tick(counts[topic].0, partition, at_ms, idle, &counts), at(clock));
                }
            }
            prop_assert!(least.now() <= one.now() && least.now() <= other.now());
        }

        /// Whatever the routers do: never decreasing, and never past a record that no router has handed on yet.
        #[test]
        fn stream_time_never_passes_a_record_that_is_still_to_come(steps in prop::collection::vec((0..4u8, 0..3usize, 0..5_000i64), 1..200)) {
            let mut sources: [Model; 3] = Default::default();
            let (mut times, mut clock, mut before) = (SourceTimes::default(), 0, None);
            for (step, which, passes) in steps {
                clock += passes;
                let source = &mut sources[which];
                match step {
                    0 => source.appended.push(clock),
                    1 => {
                        if source.routed < source.appended.len() {
                            source.routed += 1;
                            source.found_idle = false;
                        }
                    }
                    2 => source.found_idle = source.ticked && source.routed == source.appended.len(),
                    _ => {
                        let at_ms = source.routed.checked_sub(1).map(|last| source.appended[last]);
                        let idle = std::mem::take(&mut source.found_idle);
                        source.ticked = true;
                        times.tick(&tick("a", which as i32, at_ms, idle, &[("a", 3)]), at(clock));
                    }
                }
                prop_assert!(times.now() >= before);
                before = times.now();
                for source in &sources {
                    if let (Some(now), Some(next)) = (times.now(), source.appended.get(source.routed)) {
                        prop_assert!(now < *next, "stream time {now}, but a record of {next} is still to come");
                    }
                }
            }
        }
    }
}
