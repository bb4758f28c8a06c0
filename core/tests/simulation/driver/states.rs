//! The states of one task through a transaction, as `src/state/task_state.rs` keeps them: changed in a cache, encoded once,
//! committed, written.

use crate::disk::{Batch, Damaged, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tripline_core::protocol::start::Local;
use tripline_core::state::ActorState;

/// Decoded states that stay after a commit: small, so that some always have to come back from behind it.
const CACHE: usize = 1;
/// Committed encodings that are written before their time: a task has three entities.
const UNWRITTEN: usize = 3;
/// As many in a restore, which notes its way at the next marker.
const RESTORING: usize = 2;

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
    pub fn change<R>(&mut self, store: &Store, entity: &str, work: impl FnOnce(&mut ActorState) -> R) -> Result<R, Damaged> {
        let key: Rc<str> = entity.into();
        if !self.cache.contains_key(&key) {
            self.cache.insert(key.clone(), self.load(store, entity)?);
        }
        self.changed.insert(key.clone());
        Ok(work(self.cache.get_mut(&key).expect("just put there")))
    }

    fn load(&self, store: &Store, entity: &str) -> Result<ActorState, Damaged> {
        let encoded = match self.unwritten.get(entity) {
            Some(bytes) => bytes.as_ref(),
            None => store.read()?.get(entity),
        };
        Ok(encoded.map_or_else(ActorState::default, |bytes| ActorState::decode(bytes).expect("bytes of ours")))
    }

    fn encoded<'s>(&'s self, stored: &'s BTreeMap<Rc<str>, Rc<[u8]>>, entity: &str) -> Option<&'s Rc<[u8]>> {
        self.unwritten.get(entity).map_or_else(|| stored.get(entity), Option::as_ref)
    }

    /// Whom something is due for by then, first in time.
    pub fn due(&self, store: &Store, until_ms: i64) -> Result<Option<(i64, Rc<str>)>, Damaged> {
        let stored = store.read()?;
        let behind = stored.keys().chain(self.unwritten.keys()).filter(|entity| !self.cache.contains_key(*entity));
        let behind = behind.filter_map(|entity| {
            Some((ActorState::decode_next_due(self.encoded(stored, entity)?).expect("bytes of ours")?, entity.clone()))
        });
        let cached = self.cache.iter().filter_map(|(entity, state)| Some((state.next_due_ms()?, entity.clone())));
        Ok(cached.chain(behind).filter(|(due_ms, _)| *due_ms <= until_ms).min())
    }

    /// Finds states that have expired; the next commit deletes them.
    pub fn sweep(&mut self, store: &Store, before_ms: i64) -> Result<(), Damaged> {
        let stored = store.read()?;
        for entity in stored.keys() {
            let Some(bytes) = self.encoded(stored, entity) else { continue };
            let delete_after_ms = ActorState::decode_delete_after(bytes).expect("bytes of ours");
            if delete_after_ms < before_ms && !self.changed.contains(entity) {
                self.expired.insert(entity.clone());
            }
        }
        Ok(())
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
        self.unwritten.len() >= RESTORING
    }

    /// Whether what is committed should be written before its time.
    pub fn is_full(&self) -> bool {
        self.unwritten.len() >= UNWRITTEN
    }

    /// Writes what is committed, with the commit it belongs to; a restore has none until a marker comes.
    pub fn write(&mut self, store: &mut Store, local: Option<&Local>) -> Result<(), Damaged> {
        store.write(&self.unwritten, local)?;
        self.unwritten.clear();
        Ok(())
    }

    /// The same in the middle of a restore, at the marker of an earlier commit.
    pub fn note(&mut self, store: &mut Store, local: &Local) -> Result<(), Damaged> {
        store.note(&self.unwritten, local)?;
        self.unwritten.clear();
        Ok(())
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
