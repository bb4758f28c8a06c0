//! The changelog's side of a comparison: what its records add up to, in 16 bytes an entity.
//!
//! Kept are hashes only: of the entity and of its state, decoded and encoded anew, so that the two sides are compared by what
//! they say. When there are more entities than the bound, they are shared out by hash over several passes.

use hashbrown::{HashMap, HashSet};
use tripline_core::hash;
use tripline_core::state::ActorState;

type Seeded = foldhash::fast::RandomState;

/// Which entities one pass looks at: those whose hash leaves `pass` when it is divided by `passes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub pass: u64,
    /// At least 1.
    pub passes: u64,
}

/// More entities than the bound: more passes are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// How an entity of the store compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Another pass's.
    NotMine,
    /// Both say the same.
    Same,
    /// They say different things.
    Differs,
    /// The changelog does not have it.
    OnlyInStore,
    /// The changelog went on about it after the store's commit, and may have dropped what it said before.
    WentOn,
}

/// States by the changelog, of one pass.
#[derive(Debug)]
pub struct Fold {
    share: Share,
    most: usize,
    states: HashMap<u64, u64, Seeded>,
    went_on: HashSet<u64, Seeded>,
}

/// The hash of an entity.
pub fn of_entity(entity: &str) -> u64 {
    hash::short(entity.as_bytes())
}

/// The hash of what a state says; of its bytes when this binary cannot read them.
pub fn of_state(bytes: &[u8]) -> u64 {
    let mut canonical = Vec::with_capacity(bytes.len());
    match ActorState::decode(bytes) {
        Ok(state) => state.encode(&mut canonical),
        Err(_) => canonical.extend_from_slice(bytes),
    }
    hash::short(&canonical)
}

impl Fold {
    /// Of at most `most` entities.
    pub fn new(share: Share, most: usize) -> Fold {
        Fold { share, most, states: HashMap::default(), went_on: HashSet::default() }
    }

    fn mine(&self, entity: &str) -> Option<u64> {
        Some(of_entity(entity)).filter(|key| key % self.share.passes.max(1) == self.share.pass)
    }

    /// Applies a record up to the store's commit; `None` deletes.
    pub fn apply(&mut self, entity: &str, state: Option<&[u8]>) -> Result<(), Full> {
        let Some(key) = self.mine(entity) else { return Ok(()) };
        match state {
            Some(state) => drop(self.states.insert(key, of_state(state))),
            None => drop(self.states.remove(&key)),
        }
        self.check()
    }

    /// Notes that a record after the store's commit is about this entity.
    pub fn went_on(&mut self, entity: &str) -> Result<(), Full> {
        if let Some(key) = self.mine(entity) {
            self.went_on.insert(key);
        }
        self.check()
    }

    fn check(&self) -> Result<(), Full> {
        if self.states.len() + self.went_on.len() > self.most { Err(Full) } else { Ok(()) }
    }

    /// Compares an entity of the store, each once.
    pub fn compare(&mut self, entity: &str, state: &[u8]) -> Compared {
        let Some(key) = self.mine(entity) else { return Compared::NotMine };
        let went_on = self.went_on.contains(&key);
        match self.states.remove(&key) {
            Some(found) if found == of_state(state) => Compared::Same,
            _ if went_on => Compared::WentOn,
            Some(_) => Compared::Differs,
            None => Compared::OnlyInStore,
        }
    }

    /// Entities that the store did not have, ascending by hash.
    pub fn only_in_changelog(&self) -> Vec<u64> {
        let mut rest: Vec<u64> = self.states.keys().copied().filter(|key| !self.went_on.contains(key)).collect();
        rest.sort_unstable();
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Share = Share { pass: 0, passes: 1 };

    fn state(at_ms: i64) -> Vec<u8> {
        let mut state = ActorState::default();
        state.note(at_ms, 1_000);
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        bytes
    }

    #[test]
    fn each_way_to_differ_is_told_apart() {
        let mut fold = Fold::new(ALL, 100);
        for entity in ["same", "differs", "gone", "lost", "went_on", "lost_later"] {
            fold.apply(entity, Some(&state(1))).expect("room");
        }
        fold.apply("gone", None).expect("room");
        fold.went_on("went_on").expect("room");
        fold.went_on("lost_later").expect("room");
        assert_eq!(fold.compare("same", &state(1)), Compared::Same);
        assert_eq!(fold.compare("differs", &state(2)), Compared::Differs);
        assert_eq!(fold.compare("gone", &state(1)), Compared::OnlyInStore);
        assert_eq!(fold.compare("went_on", &state(2)), Compared::WentOn);
        assert_eq!(fold.only_in_changelog(), [of_entity("lost")]);
    }

    #[test]
    fn the_last_record_of_an_entity_counts_and_bytes_that_are_no_state_are_compared_as_bytes() {
        let mut fold = Fold::new(ALL, 100);
        fold.apply("a", Some(&state(1))).expect("room");
        fold.apply("a", Some(&state(2))).expect("room");
        fold.apply("b", Some(b"nonsense")).expect("room");
        assert_eq!(fold.compare("a", &state(2)), Compared::Same);
        assert_eq!(fold.compare("b", b"nonsense"), Compared::Same);
    }

    #[test]
    fn passes_share_the_entities_out_and_each_is_bounded() {
        let names: Vec<String> = (0..1_000).map(|n| format!("user:u{n}")).collect();
        let mut one = Fold::new(ALL, 300);
        assert!(names.iter().any(|name| one.apply(name, Some(&state(1))) == Err(Full)));
        let mut compared = 0;
        for pass in 0..8 {
            let mut fold = Fold::new(Share { pass, passes: 8 }, 300);
            names.iter().for_each(|name| fold.apply(name, Some(&state(1))).expect("an eighth has room"));
            compared += names.iter().filter(|name| fold.compare(name, &state(1)) == Compared::Same).count();
            assert!(fold.only_in_changelog().is_empty());
        }
        assert_eq!(compared, names.len());
    }
}
