//! Observation, actor state and rules in; decisions out. The only door, used by run, replay and tests.

use crate::decision::Decision;
use crate::entity::Entity;
use crate::event::Event;
use crate::flags::{BoundFlags, FlagSnapshot};
use crate::observation::Observation;
use crate::rule::RuleSet;
use crate::state::ActorState;
use std::sync::Arc;

/// Which events get a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// Those on which something fired.
    Fired,
    /// Every one.
    All,
}

/// The one fate of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Counted and evaluated.
    Processed,
    /// Older than the entity's newest event minus the allowed lateness: not counted.
    Late,
    /// Its event id was seen before: not counted again.
    Duplicate,
}

/// Rules and flags, consistent with each other, ready to decide.
#[derive(Debug)]
pub struct Engine {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// The flags' digest.
    pub flags_digest: String,
    flags: BoundFlags,
    emit: Emit,
}

impl Engine {
    /// Binds rules to flags.
    pub fn new(rules: Arc<RuleSet>, flags: &FlagSnapshot, emit: Emit) -> Engine {
        let bound = flags.bind(&rules.flags);
        Engine { rules, flags_digest: flags.digest.clone(), flags: bound, emit }
    }

    /// Whom an event is about: the actor, by the pack's way of finding the client's address.
    pub fn actor<'e>(&self, event: &'e Event<'_>) -> Entity<'e> {
        let _ = event;
        Entity::actor(None, None)
    }

    /// Whether the master flag is off for everyone, so that nothing will ever be decided.
    pub fn is_switched_off(&self) -> bool {
        false
    }

    /// Counts and evaluates one observation. Decisions are appended to `out`, in the order of the rules.
    pub fn process(&self, observation: &Observation<'_>, state: &mut ActorState, out: &mut Vec<Decision>) -> Outcome {
        let _ = (observation, state, out, self.emit, &self.flags);
        Outcome::Processed
    }
}
