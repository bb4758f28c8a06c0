//! What is held against an entity: contributions to its score, actions in force, open alerts.

use crate::firing::Firing;
use crate::policy::Action;
use crate::rule::Severity;
use crate::score::Milli;
use uuid::Uuid;

/// One contribution, as it was when its rule fired. It is never written back decayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Key of its [reason](crate::score::reasons::Reason).
    pub reason: u64,
    /// What it gave then.
    pub points: Milli,
    /// When, milliseconds of event time.
    pub at_ms: i64,
    /// What was met.
    pub firing: Firing,
}

/// An action that was taken, and what is remembered of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Force {
    /// Which.
    pub action: Action,
    /// The score has not been seen below `leave` since it was taken.
    pub on: bool,
    /// When it was last taken.
    pub since_ms: i64,
    /// It holds until here at least; an action with a lifetime until here exactly.
    pub until_ms: i64,
    /// How often it was taken, as far as that is not forgotten.
    pub offences: u8,
}

/// An alert that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Episode {
    /// The slot of its rule; 0 for the policy's.
    pub key: u64,
    /// Its id.
    pub id: Uuid,
    /// When it was opened.
    pub opened_ms: i64,
    /// When something was last said of it.
    pub told_ms: i64,
    /// When it is over, unless something comes before; `i64::MAX` when that is not a matter of time alone.
    pub until_ms: i64,
    /// Decisions so far.
    pub decisions: u32,
    /// Decisions since something was last said.
    pub folded: u32,
    /// The highest severity so far.
    pub severity: Severity,
    /// The strongest action so far.
    pub action: Action,
}

/// What is held against an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Ascending by reason, each once.
    pub held: Vec<Held>,
    /// Ascending by action, each once.
    pub forces: Vec<Force>,
    /// Ascending by key, each once.
    pub episodes: Vec<Episode>,
    /// A standing was published and not taken back.
    pub published: bool,
    /// When something ends by itself; `None` when nothing does.
    pub due_ms: Option<i64>,
    /// The newest time that counted for it, milliseconds; `i64::MIN` for none.
    pub as_of_ms: i64,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { held: Vec::new(), forces: Vec::new(), episodes: Vec::new(), published: false, due_ms: None, as_of_ms: i64::MIN }
    }
}

impl Ledger {
    /// Puts a contribution in its place, unless the one that its reason has weighs more by `weight`. Of two that weigh the same the
    /// later stays, so that it does not matter which came first. What is below [`Milli::LEAST`] is nothing.
    pub fn hold(&mut self, held: Held, weight: impl Fn(&Held) -> Milli) {
        let rank = |held: &Held| (weight(held), held.at_ms, held.points, held.firing.count);
        match self.held.binary_search_by_key(&held.reason, |held| held.reason) {
            Ok(at) if rank(&self.held[at]) < rank(&held) => self.held[at] = held,
            Err(at) if held.points >= Milli::LEAST => self.held.insert(at, held),
            _ => {}
        }
    }

    /// What is remembered of an action.
    pub fn force(&self, action: Action) -> Option<&Force> {
        self.forces.iter().find(|force| force.action == action)
    }

    /// Puts what is remembered of an action in its place, or takes it out.
    pub fn set_force(&mut self, action: Action, force: Option<Force>) {
        let at = self.forces.binary_search_by_key(&action, |force| force.action);
        match (at, force) {
            (Ok(at), Some(force)) => self.forces[at] = force,
            (Ok(at), None) => drop(self.forces.remove(at)),
            (Err(at), Some(force)) => self.forces.insert(at, force),
            (Err(_), None) => {}
        }
    }

    /// The open alert of a rule's slot, or of the policy (0).
    pub fn episode(&mut self, key: u64) -> Option<&mut Episode> {
        let at = self.episodes.binary_search_by_key(&key, |episode| episode.key).ok()?;
        Some(&mut self.episodes[at])
    }

    /// Opens an alert.
    pub fn open(&mut self, episode: Episode) {
        match self.episodes.binary_search_by_key(&episode.key, |episode| episode.key) {
            Ok(at) => self.episodes[at] = episode,
            Err(at) => self.episodes.insert(at, episode),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.forces.is_empty() && self.episodes.is_empty() && !self.published && self.due_ms.is_none()
    }

    /// Roughly the bytes that it takes.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Ledger>()
            + self.held.capacity() * size_of::<Held>()
            + self.forces.capacity() * size_of::<Force>()
            + self.episodes.capacity() * size_of::<Episode>()
    }
}
