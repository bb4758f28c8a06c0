//! Decoded actor states, in two generations: what was used since the last turn, and what was not.
//!
//! When the young generation outgrows half its budget it becomes the old one, and the old one is forgotten; an entry found
//! in the old one moves to the young. Entries never leave while they are changed, because generations turn only after a
//! commit; the cap on changed bytes bounds the young generation in between.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use tripline_core::state::ActorState;

/// One entity's decoded state.
#[derive(Debug)]
pub struct Entry {
    /// Its key, `user:u1`.
    pub key: Box<str>,
    /// Its state.
    pub state: ActorState,
    /// It stands in the list of changed entries.
    pub listed: bool,
    /// What it was charged when it was last settled.
    cost: usize,
}

#[derive(Debug, Default)]
struct Generation {
    index: HashTable<u32>,
    entries: Vec<Option<Entry>>,
    bytes: usize,
}

/// The cache of one task.
#[derive(Debug, Default)]
pub struct Cache {
    hasher: RandomState,
    young: Generation,
    old: Generation,
    /// Positions in the young generation.
    changed: Vec<u32>,
}

fn cost(entry: &Entry) -> usize {
    entry.key.len() + size_of::<Entry>() + entry.state.memory_bytes() + 8
}

impl Generation {
    fn find(&self, hash: u64, key: &str) -> Option<u32> {
        self.index.find(hash, |&at| self.entries[at as usize].as_ref().is_some_and(|e| &*e.key == key)).copied()
    }

    fn take(&mut self, hash: u64, key: &str) -> Option<Entry> {
        let found = self.index.find_entry(hash, |&at| self.entries[at as usize].as_ref().is_some_and(|e| &*e.key == key)).ok()?;
        let (at, _) = found.remove();
        let entry = self.entries[at as usize].take()?;
        self.bytes = self.bytes.saturating_sub(entry.cost);
        Some(entry)
    }

    fn insert(&mut self, hasher: &RandomState, hash: u64, mut entry: Entry) -> u32 {
        entry.cost = cost(&entry);
        self.bytes += entry.cost;
        let at = self.entries.len() as u32;
        self.entries.push(Some(entry));
        let entries = &self.entries;
        self.index.insert_unique(hash, at, |&at| entries[at as usize].as_ref().map_or(0, |e| hasher.hash_one(&*e.key)));
        at
    }
}

impl Cache {
    /// The position of an entity, found or made by `load`.
    pub fn locate<E>(&mut self, key: &str, load: impl FnOnce() -> Result<ActorState, E>) -> Result<u32, E> {
        let hash = self.hasher.hash_one(key);
        if let Some(at) = self.young.find(hash, key) {
            return Ok(at);
        }
        let entry = match self.old.take(hash, key) {
            Some(entry) => entry,
            None => Entry { key: key.into(), state: load()?, listed: false, cost: 0 },
        };
        Ok(self.young.insert(&self.hasher, hash, entry))
    }

    /// The entity at a position that [`Cache::locate`] gave since the last [`Cache::turn`].
    pub fn state(&mut self, at: u32) -> &mut ActorState {
        // A position is never given for an empty place, and places empty only when generations turn or changes are dropped.
        &mut self.young.entries[at as usize].as_mut().expect("a located entity stays until the commit").state
    }

    /// Lists the entity as changed; answers whether it was not listed yet.
    pub fn list(&mut self, at: u32) -> bool {
        match &mut self.young.entries[at as usize] {
            Some(entry) if !entry.listed => {
                entry.listed = true;
                self.changed.push(at);
                true
            }
            _ => false,
        }
    }

    /// Takes the entity that was listed last off the list again if nothing changed; answers the bytes it takes otherwise.
    pub fn keep_listed_if_changed(&mut self, at: u32) -> usize {
        match &mut self.young.entries[at as usize] {
            Some(entry) if entry.state.changed => cost(entry),
            Some(entry) if self.changed.last() == Some(&at) => {
                entry.listed = false;
                self.changed.pop();
                0
            }
            _ => 0,
        }
    }

    /// Shows the changed entries, in the order in which they changed.
    pub fn for_each_changed(&self, mut show: impl FnMut(&Entry)) {
        for &at in &self.changed {
            if let Some(entry) = &self.young.entries[at as usize] {
                show(entry);
            }
        }
    }

    /// How many entries changed.
    pub fn changed_len(&self) -> usize {
        self.changed.len()
    }

    /// After a commit: nothing is changed any more.
    pub fn settle(&mut self) {
        for at in self.changed.drain(..) {
            if let Some(entry) = &mut self.young.entries[at as usize] {
                entry.listed = false;
                entry.state.changed = false;
                let now = cost(entry);
                self.young.bytes = (self.young.bytes + now).saturating_sub(entry.cost);
                entry.cost = now;
            }
        }
    }

    /// After an abort: changed entries are forgotten.
    pub fn drop_changed(&mut self) {
        for at in std::mem::take(&mut self.changed) {
            if let Some(key) = self.young.entries[at as usize].as_ref().map(|e| e.key.clone()) {
                let hash = self.hasher.hash_one(&*key);
                self.young.take(hash, &key);
            }
        }
    }

    /// Forgets an entity that is not changed.
    pub fn forget(&mut self, key: &str) {
        let hash = self.hasher.hash_one(key);
        self.young.take(hash, key);
        self.old.take(hash, key);
    }

    /// Whether the entity is changed in the open transaction.
    pub fn is_changed(&self, key: &str) -> bool {
        let hash = self.hasher.hash_one(key);
        self.young.find(hash, key).is_some_and(|at| self.young.entries[at as usize].as_ref().is_some_and(|e| e.listed))
    }

    /// Turns the generations when the young one outgrew half of `budget`. Only when nothing is changed.
    pub fn turn(&mut self, budget: usize) {
        // Places emptied by drops count too, so that they cannot pile up.
        let hollow = self.young.entries.len() > 2 * self.young.index.len() + 4_096;
        if self.changed.is_empty() && (hollow || self.young.bytes > budget / 2) {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// Forgets the old generation, and if that is not enough the young one, until what is held is within `budget`. Only when
    /// nothing is changed.
    pub fn trim(&mut self, budget: usize) {
        if !self.changed.is_empty() || self.bytes() <= budget {
            return;
        }
        self.old = Generation::default();
        if self.young.bytes > budget {
            self.young = Generation::default();
        }
    }

    /// Bytes held, roughly.
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    /// Entities held.
    pub fn count(&self) -> usize {
        self.young.index.len() + self.old.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(cache: &mut Cache, key: &str, newest_ms: i64) {
        let at = cache.locate::<()>(key, || Ok(ActorState::default())).expect("loads");
        if cache.list(at) {
            cache.state(at).note(newest_ms, 1_000);
            cache.keep_listed_if_changed(at);
        }
    }

    fn newest(cache: &mut Cache, key: &str) -> Option<i64> {
        let at = cache.locate::<()>(key, || Ok(ActorState::default())).expect("loads");
        cache.state(at).newest_ms
    }

    #[test]
    fn an_abort_forgets_what_changed_and_only_that() {
        let mut cache = Cache::default();
        touch(&mut cache, "user:a", 1);
        cache.settle();
        touch(&mut cache, "user:b", 2);
        cache.drop_changed();
        assert_eq!(newest(&mut cache, "user:a"), Some(1));
        assert_eq!(newest(&mut cache, "user:b"), None, "loaded anew");
    }

    #[test]
    fn what_is_used_stays_and_the_rest_leaves_within_the_budget() {
        let mut cache = Cache::default();
        for i in 0..10_000 {
            touch(&mut cache, &format!("user:{i}"), i);
            cache.settle();
            newest(&mut cache, "user:0");
            cache.turn(64 * 1024);
            assert!(cache.bytes() < 80 * 1024);
        }
        assert_eq!(newest(&mut cache, "user:0"), Some(0), "used all the time");
        assert_eq!(newest(&mut cache, "user:1"), None, "long unused");
    }

    #[test]
    fn a_smaller_budget_holds_at_once_but_never_for_what_is_changed() {
        let mut cache = Cache::default();
        for i in 0..100 {
            touch(&mut cache, &format!("user:{i}"), i);
        }
        cache.trim(0);
        assert_eq!(cache.count(), 100, "an open transaction needs them");
        cache.settle();
        cache.turn(0);
        touch(&mut cache, "user:new", 1);
        cache.settle();
        let young = cache.young.bytes;
        cache.trim(young);
        assert_eq!((cache.count(), cache.bytes()), (1, young), "the old ones go first");
        cache.trim(young - 1);
        assert_eq!((cache.count(), cache.bytes()), (0, 0));
    }

    #[test]
    fn changed_entries_come_in_the_order_of_their_first_change() {
        let mut cache = Cache::default();
        for key in ["user:c", "user:a", "user:b", "user:a"] {
            touch(&mut cache, key, 1);
        }
        let mut keys = Vec::new();
        cache.for_each_changed(|e| keys.push(e.key.to_string()));
        assert_eq!(keys, ["user:c", "user:a", "user:b"]);
    }
}
