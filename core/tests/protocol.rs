//! The commit protocol as a state machine, transition by transition. Whole runs with crashes are in `tests/simulation`.

use tripline_core::protocol::{CommitId, Committed, Effect, Failure, Found, Input, Lane, Phase, TaskId};

#[test]
fn a_task_that_never_committed_commits_its_start_before_its_first_record() {
    let id = TaskId { topic: 0, partition: 0 };
    let mut lane = Lane::default();
    assert_eq!(lane.step(Input::Assigned(vec![id])), [Effect::Restore(id)]);
    assert_eq!(lane.step(Input::RestoredFresh(id, 17)), []);
    assert!(lane.step(Input::Touched(id, 18, CommitId(1))).is_empty(), "nothing is processed before that");
    assert_eq!(lane.begin_fresh(CommitId(2)), [Effect::Begin]);
    let start = Committed { next_offset: 17, seq: 0, commit_id: CommitId(2) };
    assert_eq!(lane.step(Input::SealDue), [Effect::Seal(CommitId(2), vec![(id, start)])]);
    assert_eq!(lane.step(Input::Sealed(Ok(()))), [Effect::Apply(id, start), Effect::Resume(id, 17)]);
    assert!(lane.is_running(id));
}

#[test]
fn nothing_begins_while_an_outcome_is_unknown() {
    let id = TaskId { topic: 0, partition: 0 };
    let mut lane = Lane::default();
    lane.step(Input::Assigned(vec![id]));
    lane.step(Input::Restored(id, Committed { next_offset: 5, seq: 3, commit_id: CommitId(9) }));
    assert_eq!(lane.step(Input::Touched(id, 5, CommitId(10))), [Effect::Begin]);
    lane.step(Input::SealDue);
    assert_eq!(lane.step(Input::Sealed(Err(Failure::InDoubt))), [Effect::Recover(vec![id])]);
    assert!(lane.step(Input::Touched(id, 6, CommitId(11))).is_empty());
    assert!(lane.step(Input::SealDue).is_empty());
    assert_eq!(lane.step(Input::Resolved(vec![(id, Found::Attempt(CommitId(9)))])), [Effect::Drop(id), Effect::Rewind(id, 5)]);
    assert_eq!(lane.phase(), Phase::Idle);
}
