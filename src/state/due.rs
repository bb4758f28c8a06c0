//! Which entity may have something due when: hints, in order of time.
//!
//! A hint says "look at this entity at that time"; whether something fires is decided by the entity's state. So a hint too
//! many costs one look, and a missing one would be a firing lost: hints are written in one batch with the states that they
//! are about, one that an open transaction took out comes back with its abort, and a restore derives them from the states.
//! Hints not yet in RocksDB are kept in memory beside the encodings that wait for the same batch.

use std::collections::{BTreeSet, VecDeque};

/// Due time in milliseconds, and whose.
pub type Hint = (i64, Box<str>);

/// Hints read from the store at once.
const READ_AHEAD: usize = 256;
/// What a hint costs besides its entity's bytes, roughly.
const HINT_BYTES: usize = 48;

/// The hints of one task.
#[derive(Debug)]
pub struct DueIndex {
    /// Not in the store yet.
    added: BTreeSet<Hint>,
    /// No longer wanted; perhaps in the store, so deleted with the next write.
    removed: BTreeSet<Hint>,
    /// Those of `removed` that the open transaction took out.
    open: Vec<Hint>,
    /// The next ones of the store.
    ahead: VecDeque<Hint>,
    /// The store has nothing that is wanted up to here.
    passed: Option<Hint>,
    /// The store has nothing behind `ahead`.
    at_end: bool,
    /// Nothing is due before this.
    next_ms: i64,
    bytes: usize,
}

impl Default for DueIndex {
    /// Of a store that has not been looked at.
    fn default() -> DueIndex {
        DueIndex {
            added: BTreeSet::new(),
            removed: BTreeSet::new(),
            open: Vec::new(),
            ahead: VecDeque::new(),
            passed: None,
            at_end: false,
            next_ms: i64::MIN,
            bytes: 0,
        }
    }
}

impl DueIndex {
    /// Notes that an entity wants to be looked at.
    pub fn add(&mut self, due_ms: i64, entity: &str) {
        let hint = (due_ms, entity.into());
        self.removed.remove(&hint);
        self.next_ms = self.next_ms.min(due_ms);
        if self.added.insert(hint) {
            self.bytes += entity.len() + HINT_BYTES;
        }
    }

    /// Notes that what an entity waits for changed from one time to another.
    pub fn moved(&mut self, entity: &str, before: Option<i64>, after: Option<i64>) {
        if before == after {
            return;
        }
        if let Some(due_ms) = before {
            self.remove((due_ms, entity.into()));
        }
        if let Some(due_ms) = after {
            self.add(due_ms, entity);
        }
    }

    fn remove(&mut self, hint: Hint) {
        self.added.remove(&hint);
        self.bytes += hint.1.len() + HINT_BYTES;
        self.open.push(hint.clone());
        self.removed.insert(hint);
    }

    /// Whether something may be due up to `until_ms`: one comparison.
    pub fn may_have(&self, until_ms: i64) -> bool {
        self.next_ms <= until_ms
    }

    /// Takes out the first hint that is due by `until_ms`. `read` answers so many hints of the store after one, in order.
    pub fn pop<E>(&mut self, until_ms: i64, mut read: impl FnMut(Option<&Hint>, usize) -> Result<Vec<Hint>, E>) -> Result<Option<Hint>, E> {
        while self.may_have(until_ms) {
            if self.ahead.is_empty() && !self.at_end {
                self.ahead = read(self.passed.as_ref(), READ_AHEAD)?.into();
                self.at_end = self.ahead.len() < READ_AHEAD;
            }
            if let Some(first) = self.ahead.front()
                && self.removed.contains(first)
            {
                self.passed = self.ahead.pop_front();
                continue;
            }
            let (stored, added) = (self.ahead.front(), self.added.first());
            let is_stored = match (stored, added) {
                (Some(stored), Some(added)) => stored <= added,
                (stored, _) => stored.is_some(),
            };
            let Some(first) = (if is_stored { stored } else { added }).cloned() else {
                self.next_ms = i64::MAX;
                break;
            };
            self.next_ms = first.0;
            if first.0 > until_ms {
                break;
            }
            if is_stored {
                self.passed = self.ahead.pop_front();
            }
            self.remove(first.clone());
            return Ok(Some(first));
        }
        Ok(None)
    }

    /// What was taken out stays out.
    pub fn commit(&mut self) {
        self.open.clear();
    }

    /// What the open transaction took out is back; what it added may stay, a hint too many does no harm.
    pub fn abort(&mut self) {
        for hint in std::mem::take(&mut self.open) {
            self.removed.remove(&hint);
            self.add(hint.0, &hint.1);
        }
    }

    /// Bytes that wait for the next write, roughly.
    pub fn unwritten_bytes(&self) -> usize {
        self.bytes
    }

    /// What the next write puts and what it deletes.
    pub fn unwritten(&self) -> (impl Iterator<Item = &Hint>, impl Iterator<Item = &Hint>) {
        (self.added.iter(), self.removed.iter())
    }

    /// The write was done. Not while a transaction is open.
    pub fn written(&mut self) {
        // What was put may stand before the place up to which the store was read.
        if self.added.first() <= self.passed.as_ref() && !self.added.is_empty() {
            self.passed = None;
        }
        if !self.added.is_empty() {
            self.at_end = false;
            self.ahead.clear();
        }
        self.added.clear();
        self.removed.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    /// The index with a store of its own.
    #[derive(Default)]
    struct Model {
        index: DueIndex,
        store: BTreeSet<Hint>,
        /// What the committed states say, and what the open transaction would make of it.
        committed: BTreeSet<Hint>,
        now: BTreeSet<Hint>,
    }

    impl Model {
        fn pop(&mut self, until_ms: i64) -> Option<Hint> {
            let store = &self.store;
            let read = |after: Option<&Hint>, limit: usize| {
                let hints = store.iter().filter(|h| after.is_none_or(|after| *h > after)).take(limit).cloned();
                Ok::<_, Infallible>(hints.collect())
            };
            self.index.pop(until_ms, read).unwrap_or(None)
        }

        /// Takes hints until one is wanted, as the lane does: stale ones are dropped.
        fn pop_wanted(&mut self, until_ms: i64) -> Option<Hint> {
            loop {
                let hint = self.pop(until_ms)?;
                if self.now.remove(&hint) {
                    return Some(hint);
                }
            }
        }

        fn write(&mut self) {
            let (put, delete) = self.index.unwritten();
            let (put, delete): (Vec<Hint>, Vec<Hint>) = (put.cloned().collect(), delete.cloned().collect());
            for hint in &delete {
                self.store.remove(hint);
            }
            self.store.extend(put);
            self.index.written();
        }
    }

    proptest! {
        /// Nothing that is wanted is ever lost or late, whatever commits, aborts, writes and crashes come in between.
        #[test]
        fn wanted_hints_come_out_in_order_and_none_is_lost(steps in prop::collection::vec((0..8u8, 0..40i64, 0..6u8), 1..300)) {
            let mut model = Model::default();
            for (step, time, who) in steps {
                let entity = format!("user:{who}");
                match step {
                    0..=2 => {
                        let before = model.now.iter().find(|h| *h.1 == *entity).cloned();
                        model.index.moved(&entity, before.as_ref().map(|h| h.0), Some(time));
                        if let Some(before) = before {
                            model.now.remove(&before);
                        }
                        model.now.insert((time, entity.into()));
                    }
                    3 | 4 => {
                        let expected = model.now.first().filter(|h| h.0 <= time).cloned();
                        prop_assert_eq!(model.pop_wanted(time), expected);
                    }
                    5 => {
                        model.index.commit();
                        model.committed = model.now.clone();
                        if time % 2 == 0 {
                            model.write();
                        }
                    }
                    6 => {
                        model.index.abort();
                        model.now = model.committed.clone();
                    }
                    // The process dies after a commit: the changelog brings back what was committed since the last write.
                    _ => {
                        model.index = DueIndex::default();
                        for (due_ms, entity) in &model.committed {
                            model.index.add(*due_ms, entity);
                        }
                        model.now = model.committed.clone();
                    }
                }
            }
            let mut rest = Vec::new();
            while let Some(hint) = model.pop_wanted(i64::MAX) {
                rest.push(hint);
            }
            prop_assert!(model.now.is_empty(), "never came: {:?}", model.now);
            prop_assert!(rest.is_sorted());
        }
    }

    #[test]
    fn more_hints_than_are_read_at_once_come_in_order() {
        let mut model = Model::default();
        for n in 0..3 * READ_AHEAD as i64 {
            model.index.add(n * 7 % 600, "user:a");
            model.now.insert((n * 7 % 600, "user:a".into()));
        }
        model.index.commit();
        model.write();
        let expected: Vec<Hint> = model.now.iter().cloned().collect();
        let found: Vec<Hint> = std::iter::from_fn(|| model.pop(i64::MAX)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn before_the_first_due_time_nothing_is_read() {
        let mut model = Model::default();
        model.index.add(100, "user:a");
        assert_eq!(model.pop(99), None);
        assert!(!model.index.may_have(99) && model.index.may_have(100));
    }
}
