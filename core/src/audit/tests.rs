//! A small line that adds up, and each way in which it may not.

use super::*;
use crate::protocol::start::{LAYOUT, Marker, Metadata, OutputCounts, Work};

const MARGIN_MS: i64 = 20;
const SINCE_MS: i64 = 1_000;

#[derive(Debug, Clone)]
struct Written {
    role: Role,
    partition: i32,
    at_ms: i64,
    stamp: Stamp,
    id: u64,
}

/// One task with ten commits, each with two decisions and a standing; one router partition with ten commits of three
/// observations. Commits stand 10 ms apart from 1,000 ms on.
#[derive(Debug, Clone)]
struct Log {
    markers: Vec<(Task, i64, Option<Marker>)>,
    outputs: Vec<Written>,
    observations: Vec<(i64, u64)>,
    offset: Option<(i64, Option<Metadata>)>,
    kept_from_ms: i64,
    settled_below: i64,
    complete_from_ms: i64,
    /// From this offset on the router's markers, tombstones not, stand in this partition of the changelog.
    moved_to: Option<(i64, i32)>,
}

fn task() -> Task {
    Task { topic: "observations".into(), partition: 3 }
}

fn router() -> Task {
    Task { topic: "requests".into(), partition: 0 }
}

fn complete(from_ms: i64) -> [Complete; 7] {
    std::array::from_fn(|_| Complete { from_ms: vec![from_ms], step: 1 })
}

fn at_ms(seq: u64) -> i64 {
    SINCE_MS + 10 * seq as i64
}

fn marker(seq: u64, id: u128, outputs: OutputCounts) -> Marker {
    Marker {
        v: LAYOUT,
        app: "a".into(),
        history: "h".into(),
        seq,
        commit_id: CommitId(id).to_hex(),
        next_offset: 3 * seq as i64 + 3,
        stream_time_ms: 0,
        partitions: 4,
        rules: String::new(),
        flags: String::new(),
        states: 0,
        decisions: outputs.decisions,
        work: Some(Work { first_offset: 3 * seq as i64, outputs }),
        moved_from: None,
    }
}

fn metadata(seq: u64, id: u128) -> Metadata {
    let marker = marker(seq, id, OutputCounts::default());
    Metadata {
        v: LAYOUT,
        history: marker.history,
        seq,
        commit_id: marker.commit_id,
        owner: "o".into(),
        partitions: 4,
        fingerprint: String::new(),
        topic_id: None,
        changelog_low: 0,
    }
}

impl Log {
    fn new() -> Log {
        let mut log = Log {
            markers: Vec::new(),
            outputs: Vec::new(),
            observations: (0..30).map(|offset| (offset, 1_000 + offset as u64)).collect(),
            offset: Some((30, Some(metadata(9, 109)))),
            kept_from_ms: 0,
            settled_below: i64::MAX,
            complete_from_ms: SINCE_MS - MARGIN_MS,
            moved_to: None,
        };
        for seq in 0..10 {
            let (id, outputs) = (100 + u128::from(seq), OutputCounts { decisions: 2, standing: 1, ..OutputCounts::default() });
            log.markers.push((task(), 2 * seq as i64, Some(marker(seq, id, outputs))));
            let outputs = OutputCounts { observations: 3, ..OutputCounts::default() };
            log.markers.push((router(), 2 * seq as i64 + 1, Some(marker(seq, 200 + u128::from(seq), outputs))));
            let stamp = Stamp { seq, id };
            for at in 0..2 {
                log.outputs.push(Written { role: Role::Decisions, partition: at, at_ms: at_ms(seq), stamp, id: 10 * seq + at as u64 });
            }
            log.outputs.push(Written { role: Role::Standing, partition: 0, at_ms: at_ms(seq), stamp, id: 0 });
        }
        log
    }

    /// As of a commit later than this one; the commits before it are not in the log.
    fn without_markers_before(mut self, seq: u64) -> Log {
        self.markers.retain(|(_, offset, _)| *offset >= 2 * seq as i64);
        self
    }

    fn marker(&mut self, seq: usize) -> &mut Marker {
        self.markers[2 * seq].2.as_mut().expect("not deleted")
    }

    fn report(&self) -> Report {
        let mut markers = Markers::new(Window { since_ms: SINCE_MS, margin_ms: MARGIN_MS }, "changelog");
        for (task, offset, marker) in &self.markers {
            let value = marker.as_ref().map(|marker| serde_json::to_vec(marker).expect("plain struct"));
            let seq = (offset / 2) as u64;
            let moved = self.moved_to.filter(|(from, _)| offset >= from && *task == router() && marker.is_some());
            markers.marker(
                task,
                moved.map_or(3, |(_, partition)| partition),
                *offset,
                at_ms(seq),
                *offset < self.settled_below,
                value.as_deref(),
            );
        }
        let mut audit = markers.close(self.kept_from_ms);
        audit.offset(&task(), self.offset.as_ref().map(|(offset, metadata)| (*offset, metadata.as_ref())));
        for role in [Role::Decisions, Role::Standing] {
            for partition in 0..2 {
                audit.partition();
                for (offset, output) in self.outputs.iter().filter(|o| o.role == role && o.partition == partition).enumerate() {
                    let at = Place { topic: role.name(), partition, offset: offset as i64 };
                    let id = (role == Role::Decisions).then_some(output.id);
                    audit.output(&Output { role, at, at_ms: output.at_ms, task: &task(), stamp: output.stamp, id });
                }
            }
        }
        audit.partition();
        for (offset, (source, id)) in self.observations.iter().enumerate() {
            let at = Place { topic: "observations", partition: 3, offset: offset as i64 };
            audit.observation(at, at_ms(*source as u64 / 3), (&router(), *source), *id);
        }
        audit.close(&complete(self.complete_from_ms))
    }

    fn kinds(&self) -> Vec<Kind> {
        let report = self.report();
        assert_eq!(report.total, report.findings.len() as u64);
        report.findings.iter().map(|finding| finding.kind).collect()
    }

    fn notes(&self) -> Vec<(NoteKind, u64)> {
        self.report().notes.iter().map(|note| (note.kind, note.count)).collect()
    }
}

#[test]
fn a_line_that_adds_up_has_no_findings_and_says_what_was_covered() {
    let report = Log::new().report();
    assert_eq!((report.findings.as_slice(), report.notes.as_slice()), (&[][..], &[][..]));
    assert_eq!((report.commits(), report.records()), (20, 60));
    let task = &report.tasks[0];
    assert_eq!((task.first_seq, task.last_seq, task.from_beginning), (Some(0), Some(9), true));
    assert_eq!((task.from_ms, task.until_ms), (at_ms(0), Some(at_ms(9))));
}

#[test]
fn a_number_that_is_missing_is_a_lost_commit_unless_it_may_have_been_compacted_away() {
    let mut log = Log::new();
    log.markers.retain(|(of, offset, _)| *of != task() || ![8, 10].contains(offset));
    log.outputs.retain(|output| ![4, 5].contains(&output.stamp.seq));
    let report = log.report();
    let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
    assert_eq!((finding.kind, finding.offset), (Kind::LostCommit, 12));
    assert!(finding.detail.starts_with("commits 4 to 5 are missing"), "{}", finding.detail);

    // The marker before the hole was still kept then: only what comes later is covered.
    log.kept_from_ms = at_ms(3);
    assert_eq!(log.kinds(), [Kind::LostCommit]);
    log.kept_from_ms = at_ms(3) + 1;
    let report = log.report();
    assert_eq!((report.findings.len(), report.tasks[0].first_seq, report.tasks[0].from_beginning), (0, Some(6), false));
}

#[test]
fn two_commits_of_one_number_are_two_owners() {
    let mut log = Log::new();
    let mut other = log.marker(4).clone();
    other.commit_id = CommitId(77).to_hex();
    other.work = None;
    other.decisions = 0;
    log.markers.insert(9, (task(), 9, Some(other)));
    assert_eq!(log.kinds(), [Kind::TwoOwners]);

    // A history that was replaced goes on: a frozen owner woke.
    let mut log = Log::new();
    for seq in 5..9 {
        let marker = log.marker(seq);
        (marker.history, marker.seq) = ("g".into(), seq as u64 - 5);
    }
    log.outputs.iter_mut().filter(|output| (5..9).contains(&output.stamp.seq)).for_each(|output| output.stamp.seq -= 5);
    assert_eq!(log.kinds(), [Kind::TwoOwners]);
}

#[test]
fn a_new_history_is_a_remark() {
    let mut log = Log::new();
    for seq in 5..10 {
        let marker = log.marker(seq);
        (marker.history, marker.seq) = ("g".into(), seq as u64 - 5);
    }
    log.outputs.iter_mut().filter(|output| output.stamp.seq >= 5).for_each(|output| output.stamp.seq -= 5);
    log.offset = Some((30, Some(metadata(4, 109))));
    assert_eq!((log.kinds(), log.notes()), (vec![], vec![(NoteKind::NewHistory, 1)]));
}

#[test]
fn markers_that_stand_twice_or_out_of_order_or_are_deleted_are_found() {
    let mut log = Log::new();
    let again = log.markers[8].clone();
    log.markers.insert(9, (again.0, 9, again.2));
    assert_eq!(log.kinds(), [Kind::RepeatedMarker]);

    let mut log = Log::new();
    let (early, late) = (log.markers[8].2.clone(), log.markers[10].2.clone());
    (log.markers[8].2, log.markers[10].2) = (late, early);
    assert!(log.kinds().contains(&Kind::MarkerOutOfOrder));

    let mut log = Log::new();
    log.markers.push((task(), 20, None));
    assert_eq!(log.kinds(), [Kind::MarkerDeleted]);
}

/// What was unread is written anew, and a router's marker goes where its new task's changelog is.
#[test]
fn another_number_of_partitions_is_a_remark() {
    let mut log = Log::new();
    for seq in 5..10 {
        log.marker(seq).partitions = 8;
    }
    for (of, _, marker) in &mut log.markers {
        if let (true, Some(marker)) = (*of == router(), marker) {
            marker.partitions = if marker.seq >= 5 { 8 } else { 4 };
        }
    }
    log.markers.push((router(), 20, None));
    log.moved_to = Some((10, 5));
    let again: Vec<_> = log.observations[27..].iter().map(|(offset, id)| (*offset, id + 1_000)).collect();
    log.observations.extend(again);
    assert_eq!((log.kinds(), log.notes()), (vec![], vec![(NoteKind::Repartitioned, 1), (NoteKind::UntoldObservations, 33)]));
    log.moved_to = None;
    assert_eq!(log.kinds(), [Kind::MarkerDeleted], "without another place it is gone");
}

/// The window begins with the move: its marker says where the one before it stood, so that the tombstone there explains itself.
#[test]
fn a_move_at_the_beginning_of_the_window_is_no_deletion_and_no_older_binary() {
    let mut log = Log::new().without_markers_before(5);
    log.outputs.retain(|output| output.stamp.seq >= 5);
    log.moved_to = Some((10, 5));
    for (of, offset, marker) in &mut log.markers {
        let marker = marker.as_mut().expect("no tombstones yet");
        (marker.partitions, marker.moved_from) = (8, (*offset < 12).then_some(4));
        if *of == router() {
            marker.work.as_mut().expect("counts").outputs.observations = 0;
        }
    }
    // Router partition 0 stood in partition 0 of 4.
    let deleted = |log: &Log, partition, deleted_ms, kept_from_ms| {
        let mut markers = Markers::new(Window { since_ms: SINCE_MS, margin_ms: MARGIN_MS }, "changelog");
        for (task, offset, marker) in &log.markers {
            let value = serde_json::to_vec(marker.as_ref().expect("there")).expect("plain struct");
            markers.marker(task, 5, *offset, at_ms(*offset as u64 / 2), true, Some(&value));
        }
        markers.marker(&router(), partition, 99, deleted_ms, true, None);
        markers.close(kept_from_ms).close(&complete(i64::MAX)).findings.iter().map(|finding| finding.kind).collect::<Vec<_>>()
    };
    assert_eq!(deleted(&log, 0, at_ms(5), 0), []);
    assert_eq!(deleted(&log, 1, at_ms(5), 0), [Kind::MarkerDeleted], "it never stood there");
    assert_eq!(deleted(&log, 5, at_ms(9), 0), [Kind::MarkerDeleted], "where it stands now");
    // The move's own marker is gone by now: replaced, and older than compaction spares.
    log.markers.retain(|(_, offset, _)| *offset >= 12);
    assert_eq!(deleted(&log, 0, at_ms(5), at_ms(6)), []);
    assert_eq!(deleted(&log, 0, at_ms(5), at_ms(5)), [Kind::MarkerDeleted]);
    let notes = log.notes();
    assert!(notes.iter().all(|(kind, _)| *kind != NoteKind::MarkersWithoutCounts), "{notes:?}");
}

#[test]
fn states_are_as_many_as_the_marker_behind_them_counts() {
    let kinds = |found: [u64; 4], kept_from_ms| {
        let mut markers = Markers::new(Window { since_ms: SINCE_MS, margin_ms: MARGIN_MS }, "changelog");
        for (seq, found) in (0..).zip(found) {
            (0..found).for_each(|_| markers.state(&task()));
            let value = serde_json::to_vec(&Marker { states: 3, ..marker(seq, u128::from(seq), OutputCounts::default()) });
            markers.marker(&task(), 3, 10 * seq as i64, at_ms(seq), true, Some(&value.expect("plain struct")));
        }
        let report = markers.close(kept_from_ms).close(&complete(0));
        report.findings.iter().map(|f| (f.kind, f.stamp.map_or(0, |s| s.seq), f.detail.clone())).collect::<Vec<_>>()
    };
    assert_eq!(kinds([3, 3, 3, 3], 0), []);
    assert_eq!(kinds([0, 3, 3, 3], 0), [], "the first may have begun before what was read");
    assert_eq!(kinds([3, 3, 1, 3], 0), [(Kind::MissingStates, 2, "2 changed states that its marker counts are not there".into())]);
    assert_eq!(kinds([3, 3, 3, 4], 0), [(Kind::SurplusStates, 3, "1 changed states more than its marker counts".into())]);
    assert_eq!(kinds([3, 3, 1, 3], at_ms(1)).len(), 1);
    assert_eq!(kinds([3, 3, 1, 3], at_ms(1) + 1), [], "compaction may have taken them");
}

/// One partition of a topic that retention has emptied hides what is missing there, and nothing else.
#[test]
fn what_retention_took_of_one_partition_hides_only_what_stood_there() {
    let findings = |step, from_ms: &[i64]| {
        let mut log = Log::new();
        log.outputs.remove(3);
        log.markers.truncate(6);
        let mut markers = Markers::new(Window { since_ms: SINCE_MS, margin_ms: MARGIN_MS }, "changelog");
        for (of, offset, marker) in &log.markers {
            let value = serde_json::to_vec(marker.as_ref().expect("there")).expect("plain struct");
            markers.marker(of, 3, *offset, at_ms(*offset as u64 / 2), true, Some(&value));
        }
        let mut all = complete(i64::MAX - MARGIN_MS);
        all[Role::Decisions.index()] = Complete { from_ms: from_ms.to_vec(), step };
        let report = markers.close(0).close(&all);
        let decisions = report.outputs[Role::Decisions.index()];
        (report.total, decisions.earliest_ms == SINCE_MS, decisions.from_ms == SINCE_MS)
    };
    let late = i64::MAX - MARGIN_MS;
    assert_eq!(findings(4, &[late, late, late, 0]), (3, true, false), "task 3 writes to partition 3 only");
    assert_eq!(findings(4, &[0, 0, 0, late]), (0, true, false));
    assert_eq!(findings(2, &[late, 0, late, 0]), (3, true, false), "to 1 and 3");
    assert_eq!(findings(2, &[0, late, 0, 0]), (0, true, false));
    assert_eq!(findings(1, &[late, 0, 0, 0]), (0, true, false), "anywhere");
    assert_eq!(findings(1, &[0, 0, 0, 0]), (3, true, true));
}

#[test]
fn input_that_is_left_out_or_read_again_is_found() {
    for first_offset in [14, 16] {
        let mut log = Log::new();
        log.marker(5).work.as_mut().expect("counts").first_offset = first_offset;
        assert_eq!(log.kinds(), [Kind::InputMoved]);
    }
    let mut log = Log::new();
    log.offset = Some((31, Some(metadata(9, 109))));
    assert_eq!(log.kinds(), [Kind::InputMoved]);
}

#[test]
fn the_group_s_offset_and_the_newest_marker_are_of_one_commit() {
    let mut log = Log::new();
    log.offset = None;
    assert_eq!(log.kinds(), [Kind::OffsetForeign]);
    log.offset = Some((30, None));
    assert_eq!(log.kinds(), [Kind::OffsetForeign]);
    log.offset = Some((27, Some(metadata(8, 108))));
    assert_eq!(log.kinds(), [Kind::OffsetBehind], "state without its offset: records come twice");
    log.offset = Some((33, Some(metadata(10, 110))));
    assert_eq!(log.kinds(), [Kind::OffsetWithoutMarker], "an offset without its state: records are lost");

    // Commits after the first look at the changelog may or may not be in the offsets.
    log.settled_below = 16;
    for seq in [7, 8, 9] {
        log.offset = Some((3 * seq as i64 + 3, Some(metadata(seq, 100 + u128::from(seq)))));
        assert_eq!(log.kinds(), [], "{seq}");
    }
    log.offset = Some((21, Some(metadata(6, 106))));
    assert_eq!(log.kinds(), [Kind::OffsetBehind]);
}

#[test]
fn outputs_without_a_marker_are_found_wherever_it_would_have_to_be() {
    let stray = |seq| {
        let mut log = Log::new();
        let stamp = Stamp { seq, id: 77 };
        let written = |at_ms| Written { role: Role::Decisions, partition: 1, at_ms, stamp, id: 7_777 };
        log.outputs.push(written(at_ms(9)));
        log.outputs.push(Written { id: 7_778, ..written(at_ms(9)) });
        log
    };
    for seq in [0, 5, 9, 10, 500] {
        let report = stray(seq).report();
        let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
        assert_eq!((finding.kind, finding.stamp), (Kind::OutputWithoutMarker, Some(Stamp { seq, id: 77 })));
        assert_eq!((finding.topic.as_str(), finding.partition, finding.offset), ("decisions", 1, 10));
        assert!(finding.detail.starts_with("2 decisions of"), "{}", finding.detail);
    }

    // From a commit before the chain: its marker may have been compacted away, unless the output is too young for that.
    let mut log = stray(3).without_markers_before(4);
    log.outputs.retain(|output| output.stamp.id == 77 || output.stamp.seq >= 4);
    log.observations.retain(|(offset, _)| *offset >= 12);
    log.outputs.iter_mut().filter(|output| output.stamp.id == 77).for_each(|output| output.at_ms = at_ms(4) + MARGIN_MS - 1);
    assert_eq!(log.kinds(), []);
    log.outputs.iter_mut().filter(|output| output.stamp.id == 77).for_each(|output| output.at_ms = at_ms(4) + MARGIN_MS);
    assert_eq!(log.kinds(), [Kind::OutputWithoutMarker]);
}

#[test]
fn outputs_of_a_task_without_any_marker_are_found() {
    let mut log = Log::new();
    log.markers.retain(|(of, ..)| *of != task());
    log.outputs.truncate(2);
    let report = log.report();
    assert_eq!(report.findings.iter().map(|f| (f.kind, f.offset)).collect::<Vec<_>>(), [(Kind::OutputWithoutMarker, 0)]);
    log.outputs.iter_mut().for_each(|output| output.at_ms = SINCE_MS - 1);
    assert_eq!(log.kinds(), [], "before the window its marker was not looked for");
}

#[test]
fn a_commit_with_fewer_or_more_outputs_than_its_marker_counts_is_torn() {
    let mut log = Log::new();
    log.outputs.remove(3);
    let report = log.report();
    let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
    assert_eq!((finding.kind, finding.stamp), (Kind::MissingOutputs, Some(Stamp { seq: 1, id: 101 })));
    assert_eq!(finding.detail, "1 decisions that its marker counts are not there");

    log.settled_below = 2;
    assert_eq!(log.kinds(), [], "it was not yet settled when reading began");
    (log.settled_below, log.complete_from_ms) = (i64::MAX, at_ms(1) - MARGIN_MS + 1);
    assert_eq!(log.kinds(), [], "retention may have taken it");
    log.complete_from_ms -= 1;
    assert_eq!(log.kinds(), [Kind::MissingOutputs]);

    let mut log = Log::new();
    let more = Written { id: 9_999, ..log.outputs[27].clone() };
    log.outputs.push(more);
    assert_eq!(log.kinds(), [Kind::SurplusOutputs]);
    (log.settled_below, log.complete_from_ms) = (0, i64::MAX - MARGIN_MS);
    assert_eq!(log.kinds(), [Kind::SurplusOutputs], "more than there can be is wrong at any time");
}

#[test]
fn an_output_that_stands_twice_is_found_and_an_event_sent_again_is_a_remark() {
    let mut log = Log::new();
    let again = log.outputs[27].clone();
    log.outputs.push(again);
    assert_eq!(log.kinds(), [Kind::RepeatedOutput, Kind::SurplusOutputs]);

    let mut log = Log::new();
    let id = log.outputs[3].id;
    log.outputs[27].id = id;
    assert_eq!((log.kinds(), log.notes()), (vec![], vec![(NoteKind::RepeatedEvent, 1)]));
    log.marker(9).work = None;
    log.marker(9).decisions = 1;
    assert_eq!(log.kinds(), [Kind::RepeatedOutput, Kind::SurplusOutputs], "one of them is not accounted for");
}

#[test]
fn an_event_sent_again_is_a_remark_also_beside_what_cannot_be_judged() {
    let again = || {
        let mut log = Log::new();
        log.outputs[27].id = log.outputs[3].id;
        log
    };
    let remark = (vec![], vec![(NoteKind::RepeatedEvent, 1)]);
    let mut log = again();
    log.outputs.remove(28);
    log.settled_below = 18;
    assert_eq!((log.kinds(), log.notes()), remark, "the last commit was not yet settled when reading began");
    let mut log = again();
    log.outputs.remove(4);
    log.complete_from_ms = at_ms(1) - MARGIN_MS + 1;
    assert_eq!((log.kinds(), log.notes()), remark, "retention may have taken the rest of the earlier commit");
    log.complete_from_ms -= 1;
    assert_eq!(log.kinds(), [Kind::RepeatedOutput, Kind::MissingOutputs]);
}

#[test]
fn events_sent_again_are_a_remark_however_many_they_are() {
    let (mut log, again) = (Log::new(), MAX_FINDINGS + 20);
    // The last commit made all of them, each with an id of the commit before it.
    let [before, last] = [24, 27].map(|index: usize| log.outputs[index].clone());
    let many = |output: &Written| (0..again as u64).map(|at| Written { id: 10_000 + at, ..output.clone() }).collect::<Vec<_>>();
    log.outputs.extend(many(&last));
    log.outputs.splice(27..27, many(&before));
    for seq in [8, 9] {
        log.marker(seq).work.as_mut().expect("counts").outputs.decisions += again as u64;
    }
    assert_eq!((log.kinds(), log.notes()), (vec![], vec![(NoteKind::RepeatedEvent, again as u64)]));
    log.marker(9).work.as_mut().expect("counts").outputs.decisions -= 1;
    assert_eq!(log.report().total, again as u64 + 1, "all of them and the commit, when it does not add up");
}

#[test]
fn an_output_after_one_of_a_later_commit_came_back_from_the_dead() {
    let mut log = Log::new();
    let late = log.outputs.remove(3);
    log.outputs.push(late);
    let report = log.report();
    let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
    assert_eq!((finding.kind, finding.stamp.map(|s| s.seq), finding.offset), (Kind::OutputOutOfOrder, Some(1), 9));
}

#[test]
fn observations_are_counted_by_the_input_records_that_they_come_from() {
    let mut log = Log::new();
    log.observations.remove(4);
    assert_eq!(log.kinds(), [Kind::MissingOutputs]);

    // The records of an aborted attempt became visible, and were routed again.
    let mut log = Log::new();
    let again: Vec<_> = log.observations[12..15].to_vec();
    log.observations.splice(12..12, again);
    assert_eq!(log.kinds(), [vec![Kind::RepeatedOutput; 3], vec![Kind::SurplusOutputs]].concat());

    let mut log = Log::new();
    log.observations.push((30, 77));
    assert_eq!(log.kinds(), [Kind::OutputWithoutMarker], "no commit has come so far");
}

#[test]
fn what_an_older_binary_left_out_is_not_judged() {
    let mut log = Log::new();
    for seq in 0..5 {
        log.marker(seq).work = None;
    }
    log.outputs.retain(|output| output.role != Role::Standing || output.stamp.seq >= 5);
    assert_eq!((log.kinds(), log.notes()), (vec![], vec![(NoteKind::MarkersWithoutCounts, 5)]));
    log.outputs.remove(0);
    assert_eq!(log.kinds(), [Kind::MissingOutputs], "decisions it did count");
}

#[test]
fn records_that_no_commit_wrote_are_found() {
    let audit = || Markers::new(Window { since_ms: SINCE_MS, margin_ms: MARGIN_MS }, "changelog").close(0);
    let at = Place { topic: "t", partition: 1, offset: 2 };
    let mut of_today = audit();
    of_today.unstamped(Role::Decisions, at, SINCE_MS);
    of_today.unstamped(Role::Decisions, at, SINCE_MS - 1);
    assert_eq!(of_today.close(&complete(0)).findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::UnstampedOutput]);
    let mut of_before = audit();
    of_before.unstamped(Role::DeadLetters, at, SINCE_MS);
    let report = of_before.close(&complete(0));
    assert_eq!((report.total, report.notes), (0, vec![Note { kind: NoteKind::UnstampedOutputs, count: 1 }]));
}

#[test]
fn findings_that_are_kept_are_bounded_and_all_are_counted() {
    let mut log = Log::new();
    log.observations = (0..30).chain(vec![0; 3 * MAX_FINDINGS]).map(|offset| (offset, 1_000 + offset as u64)).collect();
    let report = log.report();
    assert_eq!(report.findings.len(), MAX_FINDINGS);
    assert!(report.total > 3 * MAX_FINDINGS as u64, "{}", report.total);
}

#[test]
fn the_auditor_s_header_is_read_as_it_is_written() {
    let hex = CommitId(77).to_hex();
    assert_eq!(Stamp::parse(format!("0-3/812/{hex}").as_bytes()), Some((3, Stamp { seq: 812, id: 77 })));
    for wrong in ["", "0-3", "3/812/0", &format!("03/812/{hex}"), &format!("0-3/x/{hex}"), &format!("0-3/812/{hex}/x"), "0-3/812/77"] {
        assert_eq!(Stamp::parse(wrong.as_bytes()), None, "{wrong}");
    }
}
