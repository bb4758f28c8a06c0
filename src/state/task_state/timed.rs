//! States that wait for a time to come.

use super::TaskState;
use crate::state::due::Hint;
use crate::state::store::{Scanned, StoreError};
use tripline_core::state::ActorState;

/// Entities read at once while the due index is made.
const REBUILD_STEP: usize = 4_096;

impl TaskState {
    /// [`TaskState::change`] while time may fire something: the due index follows.
    pub fn change_timed<R>(&mut self, entity: &str, work: impl FnOnce(&mut ActorState) -> R) -> Result<(R, usize), StoreError> {
        let (mut before, mut after) = (None, None);
        let done = self.change(entity, |state| {
            before = state.next_due_ms();
            let result = work(state);
            after = state.next_due_ms();
            result
        })?;
        self.due.moved(entity, before, after);
        Ok(done)
    }

    /// Whether something may be due by `until_ms`; cheap.
    pub fn may_be_due(&self, until_ms: i64) -> bool {
        self.due.may_have(until_ms)
    }

    /// Takes out the first hint that is due by `until_ms`, to be looked at by [`TaskState::look`].
    pub fn pop_due(&mut self, until_ms: i64) -> Result<Option<Hint>, StoreError> {
        let store = &self.store;
        self.due.pop(until_ms, |after, limit| store.hints(after, limit))
    }

    /// Looks at the entity of a hint. `fire` runs if its state has something due at the hint's time; what waits for a later time
    /// gets a hint of its own and its turn then. Answers `fire`'s result, and the bytes that now count as changed.
    pub fn look<R>(&mut self, hint: &Hint, fire: impl FnOnce(&mut ActorState) -> R) -> Result<(Option<R>, usize), StoreError> {
        let (due_ms, entity) = hint;
        let mut after = None;
        let done = self.change(entity, |state| {
            let fired = state.next_due_ms().is_some_and(|due| due <= *due_ms).then(|| fire(state));
            after = state.next_due_ms();
            fired
        })?;
        // Of what did not fire at its time (its rule is not loaded) nobody is reminded again: else this would never end.
        if let Some(later_ms) = after.filter(|later| later > due_ms) {
            self.due.add(later_ms, entity);
        }
        Ok(done)
    }

    /// Makes the due index of a store that was written without one.
    pub fn rebuild_due(&mut self) -> Result<(), StoreError> {
        let mut from = None;
        loop {
            let Scanned { found, is_end } = self.store.scan(from.as_deref(), REBUILD_STEP)?;
            for (entity, bytes) in &found {
                self.hint(entity, bytes)?;
            }
            if self.is_full() {
                self.write(None)?;
            }
            if is_end {
                return Ok(());
            }
            from = found.last().map(|(entity, _)| entity.clone());
        }
    }

    pub(super) fn hint(&mut self, entity: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let due = ActorState::decode_next_due(bytes).map_err(|e| self.store.state_error(e))?;
        if let Some(due_ms) = due {
            self.due.add(due_ms, entity);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::state::{Budget, StateDir, TaskState, TaskStore};
    use std::convert::Infallible;
    use tripline_core::protocol::start::Local;
    use tripline_core::state::{ActorState, Due, Edge, Memory, Pending, Slot};

    fn local(seq: u64) -> Local {
        let commit_id = format!("{seq:032x}");
        let (marker_offset, due_index) = (seq as i64, crate::state::DUE_INDEX);
        Local { history: "h".into(), seq, commit_id, marker_offset, marker_time_ms: 0, due_index, stream_time_ms: 0, sources: None }
    }

    struct World {
        folder: StateDir,
        budget: Budget,
        _dir: tempfile::TempDir,
    }

    impl World {
        fn new() -> World {
            let dir = tempfile::tempdir().expect("tempdir");
            World { folder: StateDir::open(dir.path()).expect("opens"), budget: Budget::new(8 << 20), _dir: dir }
        }

        fn open(&self) -> TaskState {
            TaskState::new(TaskStore::open(&self.folder.task(0), &self.budget).expect("opens"))
        }
    }

    fn waits_until(actor: &mut ActorState, due_ms: &[i64]) {
        let pending = |due_ms: &i64| Pending { join: 1, opened_ms: 0, due_ms: *due_ms, opening: b"o".as_slice().into() };
        let memory = Memory::Sequence { runs: Vec::new(), pending: due_ms.iter().map(pending).collect() };
        actor.note(0, 1_000);
        actor.put(Slot { rule: 1, sub: 0, end_ms: 1_000, window_ms: 1, warm_ms: i64::MIN, edge: Edge::default(), memory }, 8);
    }

    fn wait(state: &mut TaskState, entity: &str, due_ms: &[i64]) {
        state.change_timed(entity, |actor| waits_until(actor, due_ms)).expect("changes");
    }

    /// What fires up to a time, as the lane does it.
    fn fire(state: &mut TaskState, until_ms: i64) -> Vec<(i64, String)> {
        let mut fired = Vec::new();
        while let Some(hint) = state.pop_due(until_ms).expect("reads") {
            let take = |actor: &mut ActorState| {
                while let Some(Due::Rule(_, _, pending)) = actor.take_due(until_ms) {
                    fired.push((pending.due_ms, hint.1.to_string()));
                }
            };
            state.look(&hint, take).expect("reads");
        }
        fired
    }

    /// The changelog of a commit.
    fn commit(state: &mut TaskState) -> Vec<(String, Option<Vec<u8>>)> {
        let mut shown = Vec::new();
        let show = |entity: &str, bytes: Option<&[u8]>| {
            shown.push((entity.to_owned(), bytes.map(<[u8]>::to_vec)));
            Ok::<_, Infallible>(())
        };
        state.encode(show).unwrap_or(0);
        state.commit(1 << 20);
        shown
    }

    fn of(expected: &[(i64, &str)]) -> Vec<(i64, String)> {
        expected.iter().map(|(due_ms, entity)| (*due_ms, (*entity).to_owned())).collect()
    }

    #[test]
    fn what_is_due_fires_in_order_once_and_not_before_its_time() {
        let world = World::new();
        let mut state = world.open();
        wait(&mut state, "user:b", &[30]);
        wait(&mut state, "user:a", &[20, 40]);
        wait(&mut state, "user:c", &[30]);
        assert_eq!(fire(&mut state, 19), of(&[]));
        assert!(!state.may_be_due(19), "from now on a record costs a comparison");
        assert_eq!(fire(&mut state, 30), of(&[(20, "user:a"), (30, "user:b"), (30, "user:c")]));
        assert_eq!(fire(&mut state, 30), of(&[]));
        commit(&mut state);
        state.write(Some(&local(1))).expect("writes");
        assert_eq!(fire(&mut state, 100), of(&[(40, "user:a")]));
        assert!(state.store().hints(None, 10).expect("reads").len() <= 1);
    }

    #[test]
    fn an_answer_that_came_takes_the_hint_back() {
        let world = World::new();
        let mut state = world.open();
        wait(&mut state, "user:a", &[20]);
        commit(&mut state);
        state.write(Some(&local(1))).expect("writes");
        wait(&mut state, "user:a", &[]);
        commit(&mut state);
        state.write(Some(&local(2))).expect("writes");
        assert_eq!(state.store().hints(None, 10).expect("reads"), []);
        assert_eq!(fire(&mut state, 100), of(&[]));
    }

    #[test]
    fn an_abort_makes_what_fired_due_again() {
        let world = World::new();
        let mut state = world.open();
        wait(&mut state, "user:written", &[10]);
        commit(&mut state);
        state.write(Some(&local(1))).expect("writes");
        wait(&mut state, "user:unwritten", &[20]);
        commit(&mut state);
        let expected = of(&[(10, "user:written"), (20, "user:unwritten")]);
        for _ in 0..2 {
            wait(&mut state, "user:aborted", &[5]);
            wait(&mut state, "user:unwritten", &[]);
            state.abort();
            assert_eq!(fire(&mut state, 100), expected);
            state.abort();
        }
        assert_eq!(fire(&mut state, 100), expected);
        commit(&mut state);
        state.write(Some(&local(2))).expect("writes");
        assert_eq!(fire(&mut state, 100), of(&[]));
        assert_eq!(state.store().hints(None, 10).expect("reads"), []);
    }

    #[test]
    fn a_crash_between_commit_and_write_loses_nothing_and_fires_nothing_twice() {
        let world = World::new();
        let mut changelog = Vec::new();
        {
            let mut state = world.open();
            wait(&mut state, "user:fired", &[10]);
            wait(&mut state, "user:waiting", &[50]);
            commit(&mut state);
            state.write(Some(&local(1))).expect("writes");
            fire(&mut state, 20);
            wait(&mut state, "user:new", &[30]);
            changelog.extend(commit(&mut state));
            // Dies here: the store knows nothing of the second commit.
        }
        let mut state = world.open();
        for (entity, bytes) in &changelog {
            state.restore(entity, bytes.as_deref()).expect("restores");
        }
        state.write(Some(&local(2))).expect("writes");
        assert_eq!(fire(&mut state, 100), of(&[(30, "user:new"), (50, "user:waiting")]));
    }

    #[test]
    fn a_lost_disk_gets_its_hints_from_the_changelog() {
        let mut changelog = Vec::new();
        {
            let world = World::new();
            let mut state = world.open();
            wait(&mut state, "user:a", &[20]);
            changelog.extend(commit(&mut state));
        }
        let world = World::new();
        let mut state = world.open();
        for (entity, bytes) in &changelog {
            state.restore(entity, bytes.as_deref()).expect("restores");
        }
        assert_eq!(fire(&mut state, 20), of(&[(20, "user:a")]));
    }

    #[test]
    fn a_hint_too_many_costs_a_look_and_changes_no_order() {
        let world = World::new();
        let mut state = world.open();
        wait(&mut state, "user:a", &[10]);
        state.abort();
        wait(&mut state, "user:a", &[30]);
        wait(&mut state, "user:b", &[20]);
        assert_eq!(fire(&mut state, 100), of(&[(20, "user:b"), (30, "user:a")]));
    }

    #[test]
    fn a_store_written_without_an_index_gets_one() {
        let world = World::new();
        {
            let mut state = world.open();
            // Changed by a binary, or under rules, that knew nothing of time.
            state.change("user:a", |actor| waits_until(actor, &[20])).expect("changes");
            commit(&mut state);
            state.write(Some(&local(1))).expect("writes");
        }
        let mut state = world.open();
        assert_eq!(fire(&mut state, 100), of(&[]));
        let mut state = {
            drop(state);
            world.open()
        };
        state.rebuild_due().expect("scans");
        assert_eq!(fire(&mut state, 100), of(&[(20, "user:a")]));
    }

    #[test]
    fn what_waits_is_not_swept_away() {
        let world = World::new();
        let mut state = world.open();
        wait(&mut state, "user:a", &[20]);
        commit(&mut state);
        state.write(Some(&local(1))).expect("writes");
        state.sweep(i64::MAX - 1).expect("sweeps");
        assert!(!state.is_changed());
        fire(&mut state, 20);
        commit(&mut state);
        state.write(Some(&local(2))).expect("writes");
        state.sweep(i64::MAX - 1).expect("sweeps");
        assert!(state.is_changed(), "nothing waits any more");
    }
}
