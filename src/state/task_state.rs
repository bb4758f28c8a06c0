//! The states of one task through a transaction: changed, encoded once, committed, written.

mod timed;

use super::cache::Cache;
use super::due::DueIndex;
use super::store::{Scanned, StoreError, TaskStore};
use std::collections::HashMap;
use tripline_core::protocol::start::Local;
use tripline_core::state::ActorState;

/// Entities looked at in one sweep for expired states.
const SWEEP_STEP: usize = 512;

/// What an encoding that waits takes beside its key and its bytes: its place in the table, two small allocations.
const UNWRITTEN_ENTRY: usize = 80;

type Encoded = Option<Box<[u8]>>;

/// One task's states.
#[derive(Debug)]
pub struct TaskState {
    store: TaskStore,
    cache: Cache,
    /// Encoded for the open transaction, by [`TaskState::encode`].
    sealed: Vec<(Box<str>, Encoded)>,
    /// Committed, not yet in RocksDB.
    unwritten: HashMap<Box<str>, Encoded, foldhash::fast::RandomState>,
    unwritten_bytes: usize,
    /// Expired entities that the next commit deletes.
    expired: Vec<String>,
    sweep_from: Option<String>,
    due: DueIndex,
}

impl TaskState {
    /// Wraps an open store.
    pub fn new(store: TaskStore) -> TaskState {
        TaskState {
            store,
            cache: Cache::default(),
            sealed: Vec::new(),
            unwritten: HashMap::default(),
            unwritten_bytes: 0,
            expired: Vec::new(),
            sweep_from: None,
            due: DueIndex::default(),
        }
    }

    /// The store.
    pub fn store(&self) -> &TaskStore {
        &self.store
    }

    /// Lets `work` change an entity's state. Answers `work`'s result and the bytes that the transaction holds in memory because
    /// of it: those of a state that changed, and of one that had to be loaded, for neither leaves the cache before the commit.
    pub fn change<R>(&mut self, entity: &str, work: impl FnOnce(&mut ActorState) -> R) -> Result<(R, usize), StoreError> {
        let (store, unwritten) = (&self.store, &self.unwritten);
        let before = self.cache.bytes();
        let at = self.cache.locate(entity, || load(store, unwritten, entity))?;
        let loaded = self.cache.bytes().saturating_sub(before);
        // Listed before the work: should it panic half-way, the abort must find the entry.
        let newly = self.cache.list(at);
        let result = work(self.cache.state(at));
        let changed = if newly { self.cache.keep_listed_if_changed(at) } else { 0 };
        Ok((result, changed.max(loaded)))
    }

    /// Whether the open transaction changed anything.
    pub fn is_changed(&self) -> bool {
        self.cache.changed_len() > 0 || !self.expired.is_empty()
    }

    /// Encodes every changed state once and shows it (`None`: deleted), for the changelog.
    pub fn encode<E>(&mut self, mut show: impl FnMut(&str, Option<&[u8]>) -> Result<(), E>) -> Result<u64, E> {
        let (sealed, mut buffer) = (&mut self.sealed, Vec::new());
        sealed.clear();
        self.cache.for_each_changed(|entry| {
            buffer.clear();
            entry.state.encode(&mut buffer);
            sealed.push((entry.key.clone(), Some(buffer.as_slice().into())));
        });
        for entity in self.expired.drain(..) {
            if !self.cache.is_changed(&entity) {
                self.cache.forget(&entity);
                sealed.push((entity.into(), None));
            }
        }
        for (entity, bytes) in sealed.iter() {
            show(entity, bytes.as_deref())?;
        }
        Ok(sealed.len() as u64)
    }

    /// The transaction committed: what was encoded is the truth.
    pub fn commit(&mut self, cache_budget: usize) {
        for (entity, bytes) in self.sealed.drain(..) {
            let key_bytes = entity.len();
            self.unwritten_bytes += key_bytes + bytes.as_ref().map_or(0, |b| b.len());
            if let Some(before) = self.unwritten.insert(entity, bytes) {
                self.unwritten_bytes = self.unwritten_bytes.saturating_sub(key_bytes + before.map_or(0, |b| b.len()));
            }
        }
        self.due.commit();
        self.cache.settle();
        self.cache.turn(cache_budget);
    }

    /// The transaction did not commit: what changed is forgotten.
    pub fn abort(&mut self) {
        self.sealed.clear();
        self.expired.clear();
        self.cache.drop_changed();
        self.due.abort();
    }

    /// Takes a record of the changelog during restore: committed already, not decoded. Whether what waited was written, so that
    /// the store is now ahead of what it says of itself.
    pub fn restore(&mut self, entity: &str, bytes: Option<&[u8]>) -> Result<bool, StoreError> {
        if let Some(bytes) = bytes {
            self.hint(entity, bytes)?;
        }
        self.unwritten_bytes += entity.len() + bytes.map_or(0, <[u8]>::len);
        if let Some(before) = self.unwritten.insert(entity.into(), bytes.map(Into::into)) {
            self.unwritten_bytes = self.unwritten_bytes.saturating_sub(entity.len() + before.map_or(0, |b| b.len()));
        }
        let is_full = self.unwritten_bytes() > self.store.unwritten().restoring;
        if is_full {
            self.write(None)?;
        }
        Ok(is_full)
    }

    /// Whether what is unwritten should be written before its time.
    pub fn is_full(&self) -> bool {
        self.unwritten_bytes() > self.store.unwritten().running
    }

    /// Bytes that are committed and not in RocksDB yet, roughly.
    pub fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes + self.unwritten.len() * UNWRITTEN_ENTRY + self.due.unwritten_bytes()
    }

    /// Forgets decoded states until they are within a budget, whatever was used last. Between transactions.
    pub fn trim(&mut self, cache_budget: usize) {
        self.cache.trim(cache_budget);
    }

    /// Writes what is committed to RocksDB, with the commit it belongs to. `None` (during restore) leaves the store's own
    /// words as they are: applying the same records again is harmless.
    pub fn write(&mut self, local: Option<&Local>) -> Result<(), StoreError> {
        let states = self.unwritten.iter().map(|(entity, bytes)| (&**entity, bytes.as_deref()));
        self.store.write(states, self.due.unwritten(), local)?;
        self.due.written();
        self.unwritten.clear();
        self.unwritten_bytes = 0;
        Ok(())
    }

    /// Looks for states that expired before `before_ms`, a few at a time; the next commit deletes them.
    pub fn sweep(&mut self, before_ms: i64) -> Result<(), StoreError> {
        // What was found waits for a commit; until then there is no use in finding it again.
        if !self.expired.is_empty() {
            return Ok(());
        }
        let Scanned { found, is_end } = self.store.scan(self.sweep_from.as_deref(), SWEEP_STEP)?;
        self.sweep_from = found.last().map(|(entity, _)| entity.clone()).filter(|_| !is_end);
        for (entity, bytes) in found {
            let newest = self.unwritten.get(entity.as_str()).map_or(Some(bytes.as_slice()), |b| b.as_deref());
            let Some(newest) = newest else { continue };
            let delete_after = ActorState::decode_delete_after(newest).map_err(|e| self.store.state_error(e))?;
            // Never, while something waits for its time.
            if delete_after < before_ms && !self.cache.is_changed(&entity) {
                self.expired.push(entity);
            }
        }
        Ok(())
    }

    /// Decoded states held, and their bytes.
    pub fn cached(&self) -> (usize, usize) {
        (self.cache.count(), self.cache.bytes())
    }
}

fn load(
    store: &TaskStore,
    unwritten: &HashMap<Box<str>, Encoded, foldhash::fast::RandomState>,
    entity: &str,
) -> Result<ActorState, StoreError> {
    let decoded = match unwritten.get(entity) {
        Some(Some(bytes)) => ActorState::decode(bytes),
        Some(None) => return Ok(ActorState::default()),
        None => match store.get(entity)? {
            Some(bytes) => ActorState::decode(&bytes),
            None => return Ok(ActorState::default()),
        },
    };
    decoded.map_err(|e| store.state_error(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Budget, StateDir};
    use std::convert::Infallible;

    fn local(seq: u64) -> Local {
        Local {
            history: "h".into(),
            seq,
            commit_id: format!("{seq:032x}"),
            marker_offset: seq as i64,
            marker_time_ms: 0,
            due_index: 1,
            stream_time_ms: 0,
            sources: None,
        }
    }

    fn commit(state: &mut TaskState) -> u64 {
        let count = state.encode(|_, _| Ok::<_, Infallible>(())).unwrap_or(0);
        state.commit(1 << 20);
        count
    }

    fn touch(state: &mut TaskState, entity: &str, at_ms: i64) {
        let change = |s: &mut ActorState| {
            s.note(at_ms, 1_000);
            s.keep(at_ms, at_ms);
        };
        state.change(entity, change).expect("changes");
    }

    fn newest(state: &mut TaskState, entity: &str) -> Option<i64> {
        state.change(entity, |s| s.newest_ms).expect("reads").0
    }

    #[test]
    fn the_store_is_always_at_one_commit() {
        let dir = tempfile::tempdir().expect("tempdir");
        let folder = StateDir::open(dir.path()).expect("opens");
        let budget = Budget::new(8 << 20);
        {
            let mut state = TaskState::new(TaskStore::open(&folder.task(0), &budget).expect("opens"));
            touch(&mut state, "user:a", 1);
            assert_eq!(commit(&mut state), 1);
            state.write(Some(&local(1))).expect("writes");
            touch(&mut state, "user:a", 2);
            touch(&mut state, "user:b", 2);
            assert_eq!(commit(&mut state), 2, "committed, but not written: the process dies here");
            touch(&mut state, "user:c", 3);
        }
        let mut state = TaskState::new(TaskStore::open(&folder.task(0), &budget).expect("opens"));
        assert_eq!(state.store().local().expect("reads"), Some(local(1)));
        assert_eq!((newest(&mut state, "user:a"), newest(&mut state, "user:b"), newest(&mut state, "user:c")), (Some(1), None, None));
    }

    #[test]
    fn an_abort_goes_back_to_the_last_commit_wherever_it_is_kept() {
        let dir = tempfile::tempdir().expect("tempdir");
        let folder = StateDir::open(dir.path()).expect("opens");
        let mut state = TaskState::new(TaskStore::open(&folder.task(0), &Budget::new(8 << 20)).expect("opens"));
        touch(&mut state, "user:written", 1);
        commit(&mut state);
        state.write(Some(&local(1))).expect("writes");
        touch(&mut state, "user:unwritten", 1);
        commit(&mut state);
        for entity in ["user:written", "user:unwritten", "user:new"] {
            touch(&mut state, entity, 9);
        }
        state.encode(|_, _| Ok::<_, Infallible>(())).expect("encodes");
        state.abort();
        assert_eq!(
            (newest(&mut state, "user:written"), newest(&mut state, "user:unwritten"), newest(&mut state, "user:new")),
            (Some(1), Some(1), None)
        );
    }

    #[test]
    fn a_panic_half_way_leaves_no_trace_after_the_abort() {
        let dir = tempfile::tempdir().expect("tempdir");
        let folder = StateDir::open(dir.path()).expect("opens");
        let mut state = TaskState::new(TaskStore::open(&folder.task(0), &Budget::new(8 << 20)).expect("opens"));
        touch(&mut state, "user:a", 1);
        commit(&mut state);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = state.change("user:a", |s| {
                s.note(9, 1_000);
                panic!("a bug in a rule");
            });
        }));
        assert!(panicked.is_err());
        state.abort();
        assert_eq!(newest(&mut state, "user:a"), Some(1));
    }

    #[test]
    fn old_events_read_today_keep_their_states() {
        let dir = tempfile::tempdir().expect("tempdir");
        let folder = StateDir::open(dir.path()).expect("opens");
        let mut state = TaskState::new(TaskStore::open(&folder.task(0), &Budget::new(8 << 20)).expect("opens"));
        let today_ms = 1_000_000_000;
        let old = |s: &mut ActorState| {
            s.note(1, 1_000);
            s.keep(1, today_ms);
        };
        state.change("user:a", old).expect("changes");
        commit(&mut state);
        state.write(Some(&local(1))).expect("writes");
        state.sweep(today_ms).expect("sweeps");
        assert!(!state.is_changed(), "an event of long ago was read just now: its state stays");
        state.sweep(today_ms + 2_000).expect("sweeps");
        assert!(state.is_changed());
    }

    #[test]
    fn expired_states_are_deleted_by_the_next_commit_unless_they_come_back_to_life() {
        let dir = tempfile::tempdir().expect("tempdir");
        let folder = StateDir::open(dir.path()).expect("opens");
        let mut state = TaskState::new(TaskStore::open(&folder.task(0), &Budget::new(8 << 20)).expect("opens"));
        for entity in ["user:a", "user:b", "user:c"] {
            touch(&mut state, entity, 1);
        }
        touch(&mut state, "user:fresh", 50_000);
        commit(&mut state);
        state.write(Some(&local(1))).expect("writes");
        state.sweep(10_000).expect("sweeps");
        touch(&mut state, "user:b", 10_000);
        let mut shown = Vec::new();
        state
            .encode(|entity, bytes| {
                shown.push((entity.to_owned(), bytes.is_some()));
                Ok::<_, Infallible>(())
            })
            .expect("encodes");
        state.commit(1 << 20);
        state.write(Some(&local(2))).expect("writes");
        assert_eq!(shown, [("user:b".to_owned(), true), ("user:a".to_owned(), false), ("user:c".to_owned(), false)]);
        assert_eq!(state.store().get("user:a").expect("reads"), None);
        assert_eq!((newest(&mut state, "user:b"), newest(&mut state, "user:fresh")), (Some(10_000), Some(50_000)));
    }

    #[test]
    fn a_folder_serves_one_process_and_keeps_its_identity() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = StateDir::open(dir.path()).expect("opens");
        let identity = first.identity().expect("has one");
        assert!(matches!(StateDir::open(dir.path()), Err(StoreError::InUse { .. })));
        drop(first);
        assert_eq!(StateDir::open(dir.path()).expect("opens").identity().expect("has one"), identity);
    }
}
