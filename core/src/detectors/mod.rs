//! Code that turns matching events into firings: one file per detector, one row in [`REGISTRY`].
//!
//! A detector sees an event that passed its rule's `when`, and the memory of its rule (and sub-key). It answers whether
//! its condition is met, whether it still held just before, and how long what it remembers matters. It knows nothing of
//! flags, cooldowns or scores: whether a condition that is met becomes a firing is decided in one place, [`edge`].
//!
//! An event may be older than those seen before it, within the allowed lateness. A detector counts it in its place and
//! looks again at the windows that contain it. What it remembers is bounded; where that makes it less than exact, its
//! own page says by how much, and on which side: never a firing that counting by hand would not give.

pub mod buckets;
pub mod count;
pub mod distinct;
pub mod edge;
pub mod first_seen;
pub mod fixed_point;
pub mod matching;
pub mod rate;
pub mod ratio;
pub mod score;
pub mod sequence;
pub mod sum;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod trial;
mod tuple;

use crate::event::Event;
use crate::expr::{Expr, Scope};
pub use crate::firing::{Figure, Firing};
use crate::observation::Observation;
use crate::rule::Rhythm;
use crate::rule::load::fields::Keys;
use crate::rule::load::report::Report;
use crate::rule::load::tree::Node;
use crate::score::tally::Scores;
use crate::state::{Memory, Room};
use std::fmt::Debug;

/// The longest window, and the longest `once_per`.
pub const MAX_WITHIN_MS: i64 = 366 * 86_400_000;

/// One event as a detector sees it.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The observation: its event, and whom it is about.
    pub observation: &'a Observation<'a>,
    /// When the event happened, milliseconds.
    pub at_ms: i64,
    /// How much older than the entity's newest event an event may be; 0 when lateness is not judged, and events are then
    /// taken in the order in which they arrive.
    pub lateness_ms: i64,
    /// The entity's score; only composite rules are shown it.
    pub score: Option<&'a ScoreLook>,
}

/// An entity's score, as composite rules see it: without their own contributions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreLook {
    /// Just before the event, by the passing of time alone.
    pub before: Scores,
    /// With what fired.
    pub now: Scores,
    /// When nothing is left of it, milliseconds.
    pub gone_ms: i64,
}

impl<'a> Look<'a> {
    /// The event.
    pub fn event(&self) -> &'a Event<'a> {
        &self.observation.event
    }
}

/// What one event did to a detector's condition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// The condition no longer held just before this event, by the passing of time alone. `false` for an event that is
    /// older than the newest one: what lies between them is known already.
    pub lapsed: bool,
    /// The condition is met in a window that contains this event.
    pub firing: Option<Firing>,
    /// The condition is met at the newest event.
    pub holds: bool,
    /// What is remembered matters until this event time.
    pub end_ms: i64,
    /// Whether something that still mattered had to go, for want of room.
    pub room: Room,
}

/// A detector with a rule's numbers and expressions.
pub trait Detector: Debug + Send + Sync {
    /// Its name: the key in `detect`.
    fn name(&self) -> &'static str;

    /// What it remembers before the first event. `None`: it remembers nothing, ever.
    fn memory(&self) -> Option<Memory>;

    /// Shows it an event that passed `when`. `memory` is what [`Detector::memory`] gave and earlier events left; of another
    /// kind if the rule's detector changed without its `state`: then it starts anew.
    fn observe(&self, look: &Look<'_>, memory: &mut Memory) -> Seen;

    /// When it fires.
    fn rhythm(&self) -> Rhythm {
        Rhythm::Edge
    }

    /// Whether `once_per` means anything to it: not if its windows rest by themselves.
    fn cools_down(&self) -> bool {
        true
    }

    /// The longest time that it looks back, milliseconds: until that has passed since a change, what it knows is partial.
    fn window_ms(&self) -> i64;

    /// The most bytes that its memory takes when encoded, for one entity (and sub-key).
    fn most_bytes(&self) -> usize;

    /// The variables that `metadata` may record, besides expressions.
    fn variables(&self) -> &'static [&'static str] {
        &["$count", "$window_seconds"]
    }

    /// Its expressions, with what they are for.
    fn expressions(&self) -> Vec<&Expr> {
        Vec::new()
    }

    /// If not empty, an event for which none of these holds does not concern the rule, even if it passes `when`.
    fn alternatives(&self) -> Vec<&Expr> {
        Vec::new()
    }

    /// Whether it takes an event that passes `when`: not if the event lacks what is counted. An event that is not taken does
    /// not concern the rule.
    fn takes(&self, _: &Event<'_>) -> bool {
        true
    }

    /// Whether it looks at the entity's score, after all other rules: it is then shown events on which something fired, and no
    /// others.
    fn is_composite(&self) -> bool {
        false
    }

    /// Whether its condition is met by these scores; only asked of composite rules.
    fn is_met_by(&self, _: &Scores) -> bool {
        true
    }

    /// The points of this firing, where the detector says them itself.
    fn points(&self, _: &Firing) -> Option<u8> {
        None
    }

    /// The most that [`Detector::points`] may say.
    fn most_points(&self) -> Option<u8> {
        None
    }

    /// How far its condition is from being met in the window that ends with an event, in words: "3 of 5 in 2m". `memory` is
    /// what was left after that event. `None` where it is not a matter of numbers.
    fn progress(&self, _at_ms: i64, _: &Memory) -> Option<String> {
        None
    }

    /// What a time that has come means: the firing of what waited. Only asked of detectors whose memory waits.
    fn due(&self) -> Option<Firing> {
        None
    }
}

/// A row of the registry.
#[derive(Debug)]
pub struct Row {
    /// The key in `detect`.
    pub name: &'static str,
    /// The keys below it.
    pub keys: &'static Keys,
    /// Reads what stands below the key. `scope` is `None` when a `let` is wrong: expressions are then not looked at.
    pub read: Read,
}

/// Reads a detector's keys.
pub type Read = fn(node: &Node, scope: Option<&Scope>, report: &mut Report<'_>) -> Option<Box<dyn Detector>>;

/// Every detector.
pub static REGISTRY: &[Row] =
    &[matching::ROW, count::ROW, rate::ROW, distinct::ROW, sum::ROW, ratio::ROW, sequence::ROW, first_seen::ROW, score::ROW];
