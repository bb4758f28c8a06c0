//! The states of one task through a transaction, as `src/state/task_state.rs` keeps them: changed in a cache, encoded once,
//! committed, written.

use crate::disk::{Batch, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tripline_core::state::ActorState;

/// Decoded states that stay after a commit: small, so that some always have to come back from behind it.
const CACHE: usize = 1;
/// Committed encodings that are written before their time.
const UNWRITTEN: usize = 6;

/// See the module.
#[derive(Debug, Default)]
pub struct States {
    cache: BTreeMap<Rc<str>, ActorState>,
    changed: BTreeSet<Rc<str>>,
    sealed: Batch,
    expired: BTreeSet<Rc<str>>,
    unwritten: Batch,
}

impl States {
    /// Lets `work` change an entity's state.
    pub fn change<R>(&mut self, store: &Store, entity: &str, work: impl FnOnce(&mut ActorState) -> R) -> R {
        let key: Rc<str> = entity.into();
        if !self.cache.contains_key(&key) {
            self.cache.insert(key.clone(), self.load(store, entity));
        }
        self.changed.insert(key.clone());
        work(self.cache.get_mut(&key).expect("just put there"))
    }

    fn encoded<'s>(&'s self, store: &'s Store, entity: &str) -> Option<&'s Rc<[u8]>> {
        match self.unwritten.get(entity) {
            Some(bytes) => bytes.as_ref(),
            None => store.get(entity),
        }
    }

    fn load(&self, store: &Store, entity: &str) -> ActorState {
        self.encoded(store, entity).map_or_else(ActorState::default, |bytes| ActorState::decode(bytes).expect("bytes of ours"))
    }

    /// Whom something is due for by then, first in time.
    pub fn due(&self, store: &Store, until_ms: i64) -> Option<(i64, Rc<str>)> {
        let behind = store.states().keys().chain(self.unwritten.keys()).filter(|entity| !self.cache.contains_key(*entity));
        let behind = behind.filter_map(|entity| {
            Some((ActorState::decode_next_due(self.encoded(store, entity)?).expect("bytes of ours")?, entity.clone()))
        });
        let cached = self.cache.iter().filter_map(|(entity, state)| Some((state.next_due_ms()?, entity.clone())));
        cached.chain(behind).filter(|(due_ms, _)| *due_ms <= until_ms).min()
    }

    /// Finds states that have expired; the next commit deletes them.
    pub fn sweep(&mut self, store: &Store, before_ms: i64) {
        for entity in store.states().keys() {
            let Some(bytes) = self.encoded(store, entity) else { continue };
            let delete_after_ms = ActorState::decode_delete_after(bytes).expect("bytes of ours");
            if delete_after_ms < before_ms && !self.changed.contains(entity) {
                self.expired.insert(entity.clone());
            }
        }
    }

    /// Encodes what changed, for the changelog.
    pub fn encode(&mut self) -> Batch {
        self.sealed.clear();
        for entity in &self.changed {
            let mut bytes = Vec::new();
            self.cache[entity].encode(&mut bytes);
            self.sealed.insert(entity.clone(), Some(bytes.into()));
        }
        for entity in std::mem::take(&mut self.expired) {
            if !self.changed.contains(&entity) {
                self.cache.remove(&entity);
                self.sealed.insert(entity, None);
            }
        }
        self.sealed.clone()
    }

    /// The transaction is committed: what was encoded is the truth.
    pub fn commit(&mut self) {
        self.unwritten.append(&mut self.sealed);
        self.changed.clear();
        while self.cache.len() > CACHE {
            self.cache.pop_first();
        }
    }

    /// The transaction is not committed: what changed is forgotten.
    pub fn abort(&mut self) {
        self.sealed.clear();
        self.expired.clear();
        for entity in std::mem::take(&mut self.changed) {
            self.cache.remove(&entity);
        }
    }

    /// [`super::Bug::CacheKeptAfterAbort`].
    pub fn abort_and_keep_the_cache(&mut self) {
        self.sealed.clear();
        self.expired.clear();
        self.changed.clear();
    }

    /// Takes a record of the changelog. Answers whether what is unwritten should be written.
    pub fn restore(&mut self, entity: Rc<str>, bytes: Option<Rc<[u8]>>) -> bool {
        self.unwritten.insert(entity, bytes);
        self.is_full()
    }

    /// Whether what is committed should be written before its time.
    pub fn is_full(&self) -> bool {
        self.unwritten.len() >= UNWRITTEN
    }

    /// What is committed and not yet written.
    pub fn take_unwritten(&mut self) -> Batch {
        std::mem::take(&mut self.unwritten)
    }

    /// Entries held: decoded between transactions, and encoded.
    pub fn held(&self) -> (usize, usize) {
        (self.cache.len(), self.unwritten.len())
    }

    /// Every state as of the last commit, encoded. Between transactions only.
    pub fn committed(&self, store: &Store) -> BTreeMap<Rc<str>, Rc<[u8]>> {
        let mut states = store.states().clone();
        for (entity, bytes) in &self.unwritten {
            match bytes {
                Some(bytes) => states.insert(entity.clone(), bytes.clone()),
                None => states.remove(entity),
            };
        }
        states
    }
}
