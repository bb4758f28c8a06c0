//! In order and out of order against exhaustive search; what is bounded, and what is refused.

use super::*;
use crate::detectors::trial::{Random, Trial, problems};

mod absences;

const AB: &str = "sequence: {within: 10s, steps: [{id: a, when: data.a, times: 2}, {id: b, when: data.b}]}";

/// The JSON of an event that matches the steps named, an answer (`n`) or a cancel (`x`), in the session of this number.
pub(super) fn event(letters: &str, session: i64) -> String {
    let data: Vec<String> = letters.chars().map(|letter| format!(r#""{letter}":true"#)).collect();
    format!(r#""session_id":"s{session}","data":{{{}}}"#, data.join(","))
}

fn fires(trial: &mut Trial, events: &[(i64, &str)]) -> Vec<bool> {
    events.iter().map(|(at, letters)| trial.fires(*at, &event(letters, 0))).collect()
}

#[test]
fn steps_in_their_order_within_the_time_fire_once() {
    let mut trial = Trial::new(AB, 30_000);
    let found = fires(&mut trial, &[(0, "a"), (1, "b"), (2, "a"), (3, "b"), (4, "b"), (5, "a"), (6, "b")]);
    assert_eq!(found, [false, false, false, true, false, false, false]);
}

#[test]
fn the_window_is_open_at_its_start() {
    let check = |last: i64| fires(&mut Trial::new(AB, 0), &[(0, "a"), (1, "a"), (last, "b")])[2];
    assert_eq!((check(9_999), check(10_000)), (true, false));
    // The way that started last decides: the first step of this one has left the window, a later one has not.
    assert_eq!(fires(&mut Trial::new(AB, 0), &[(0, "a"), (5_000, "a"), (6_000, "a"), (12_000, "b")]), [false, false, false, true]);
}

#[test]
fn one_event_takes_one_position_and_equal_times_stand_in_the_order_of_arrival() {
    let both = "sequence: {within: 10s, steps: [{id: a, when: data.a}, {id: b, when: data.a || data.b}]}";
    assert_eq!(
        fires(&mut Trial::new(both, 30_000), &[(0, "a"), (0, "a"), (0, "b"), (0, "a"), (0, "b")]),
        [false, true, false, false, true]
    );
}

#[test]
fn a_cancel_clears_what_was_before_it_and_may_be_a_step_itself() {
    let cancelled = "sequence: {within: 10s, cancel_on: data.x, steps: [{id: a, when: data.a}, {id: b, when: data.b}]}";
    let found = fires(&mut Trial::new(cancelled, 30_000), &[(0, "a"), (1, "x"), (2, "b"), (3, "a"), (4, "xb"), (5, "ax"), (6, "b")]);
    assert_eq!(found, [false, false, false, false, false, false, true]);
}

#[test]
fn steps_of_different_sessions_are_not_put_together() {
    let joined = "sequence: {within: 10s, same: [session_id], steps: [{id: a, when: data.a}, {id: b, when: data.b}]}";
    let mut trial = Trial::new(joined, 30_000);
    assert!(!trial.fires(0, &event("a", 1)) && !trial.fires(1, &event("b", 2)));
    assert!(!trial.fires(1, r#""data":{"b":true}"#), "without a session it takes no part");
    assert!(trial.fires(2, &event("b", 1)));
}

#[test]
fn of_more_sessions_than_are_kept_the_one_that_moved_longest_ago_goes() {
    let joined = "sequence: {within: 10s, same: session_id, steps: [{id: a, when: data.a, times: 2}, {id: b, when: data.b}]}";
    for lateness_ms in [0, 5_000] {
        let mut trial = Trial::new(joined, lateness_ms);
        for (at, session) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 1), (5, 3), (6, 4)] {
            assert_eq!(trial.see(at, &event("a", session)).room, Room::Free);
        }
        assert_eq!(trial.see(7, &event("a", 5)).room, Room::Dropped, "the second session went");
        assert_eq!(trial.see(8, &event("a", 2)).room, Room::Dropped, "the first session went");
        assert_eq!(trial.see(8, &event("b", 6)).room, Room::Free, "what has not begun takes nobody's place");
        for (session, expected) in [(1, false), (3, true), (4, true)] {
            assert_eq!(trial.fires(9, &event("b", session)), expected, "session {session}, lateness {lateness_ms}");
        }
        // What is too old for every event to come is no loss.
        assert_eq!(trial.see(60_000, &event("a", 9)).room, Room::Free);
        let Memory::Sequence { runs, .. } = &trial.memory else { panic!("a sequence") };
        assert_eq!(runs.len(), 1);
    }
}

/// What an event of the random streams matches.
const LETTERS: [&str; 7] = ["a", "a", "b", "ab", "c", "bc", "x"];
/// The steps of the random streams, and their positions.
const RANDOM: [(&str, &str); 3] = [
    ("[{id: a, when: data.a, times: 2}, {id: b, when: data.b}]", "aab"),
    ("[{id: a, when: data.a}, {id: b, when: data.b}, {id: c, when: data.c}]", "abc"),
    ("[{id: a, when: data.a}, {id: b, when: data.b, times: 2}, {id: a2, when: data.a}]", "abba"),
];

/// Whether events reach the positions with none of them older than allowed.
type Reaches = fn(&[char], &[(i64, &str)], i64) -> bool;

/// Every choice of events is tried.
fn by_any_choice(positions: &[char], events: &[(i64, &str)], oldest_ms: i64) -> bool {
    let Some((last, before)) = positions.split_last() else { return true };
    (0..events.len()).any(|at| events[at].0 > oldest_ms && events[at].1.contains(*last) && by_any_choice(before, &events[..at], oldest_ms))
}

/// From the last position to the first, each time the newest event that will do.
fn by_the_newest(positions: &[char], events: &[(i64, &str)], oldest_ms: i64) -> bool {
    let Some((last, before)) = positions.split_last() else { return true };
    let found = events.iter().rposition(|(_, letters)| letters.contains(*last));
    found.is_some_and(|at| events[at].0 > oldest_ms && by_the_newest(before, &events[..at], oldest_ms))
}

/// The oracle: of events in order of time, those that complete the sequence. A completion uses up everything before it, and
/// so does a cancel.
pub(super) fn completions(positions: &str, within_ms: i64, events: &[(i64, &str)]) -> Vec<bool> {
    searched(positions, within_ms, events, by_the_newest)
}

fn searched(positions: &str, within_ms: i64, events: &[(i64, &str)], reaches: Reaches) -> Vec<bool> {
    let positions: Vec<char> = positions.chars().collect();
    let (last, before) = positions.split_last().expect("a position");
    let mut from = 0;
    let complete = |(index, (at_ms, letters)): (usize, &(i64, &str))| {
        if letters.contains('x') {
            from = index;
        }
        let completes = letters.contains(*last) && reaches(before, &events[from..index], at_ms - within_ms);
        if completes {
            from = index + 1;
        }
        completes
    };
    events.iter().enumerate().map(complete).collect()
}

fn random_trial(steps: &str, lateness_ms: i64) -> Trial {
    Trial::new(&format!("sequence: {{within: 10s, cancel_on: data.x, steps: {steps}}}"), lateness_ms)
}

#[test]
fn in_order_it_finds_what_exhaustive_search_finds() {
    let mut found = 0;
    for seed in 0..300 {
        let mut random = Random(seed);
        let (steps, positions) = RANDOM[seed as usize % RANDOM.len()];
        let gap = 500 + random.below(4_000);
        let events: Vec<(i64, &str)> = random.times(40, gap).into_iter().map(|at| (at, LETTERS[random.below(7) as usize])).collect();
        let expected = searched(positions, 10_000, &events, by_any_choice);
        assert_eq!(completions(positions, 10_000, &events), expected, "the quick search finds the same");
        for lateness_ms in [0, 5_000] {
            assert_eq!(fires(&mut random_trial(steps, lateness_ms), &events), expected, "seed {seed}");
        }
        found += expected.iter().filter(|completes| **completes).count();
    }
    assert!(found > 500, "{found} firings prove little");
}

#[test]
fn out_of_order_it_fires_exactly_where_search_has_one_more() {
    let (mut firing, mut missed) = (0, 0);
    for seed in 0..1_500 {
        let mut random = Random(seed ^ 0x1234);
        let (steps, positions) = RANDOM[seed as usize % RANDOM.len()];
        let (lateness_ms, gap) = (5_000, 500 + random.below(3_000));
        let mut trial = random_trial(steps, lateness_ms);
        let times = random.times(30, gap);
        let letters: Vec<&str> = times.iter().map(|_| LETTERS[random.below(7) as usize]).collect();
        let mut arrived: Vec<(i64, &str, bool)> = Vec::new();
        let (mut fired, mut expected) = (false, false);
        for at in random.arrivals(&times, lateness_ms) {
            let place = arrived.partition_point(|(time, ..)| *time <= times[at]);
            arrived.insert(place, (times[at], letters[at], false));
            let events: Vec<(i64, &str)> = arrived.iter().map(|(time, letters, _)| (*time, *letters)).collect();
            let now = completions(positions, 10_000, &events);
            let has_more = now.iter().zip(&arrived).any(|(now, (.., before))| *now && !before);
            arrived.iter_mut().zip(&now).for_each(|(event, now)| event.2 = *now);
            let fires = trial.fires(times[at], &event(letters[at], 0));
            assert_eq!(fires, has_more, "seed {seed}, arrivals so far {}", arrived.len());
            fired |= fires;
            expected |= has_more;
        }
        firing += usize::from(expected);
        missed += usize::from(expected && !fired);
    }
    println!("sequence: {missed} of {firing} firing streams missed");
    assert!(firing > 1_000 && missed == 0);
}

#[test]
fn with_more_events_than_are_kept_it_misses_one_stream_in_a_thousand_at_most() {
    let (mut firing, mut missed, mut other) = (0, 0, 0);
    for seed in 0..500 {
        let mut random = Random(seed ^ 0x4321);
        let (steps, positions) = RANDOM[seed as usize % RANDOM.len()];
        let mut trial = random_trial(steps, 5_000);
        let times = random.times(150, 30);
        // Only whether a stream fires at all is compared: what goes first for want of room decides which event completes it.
        let letters: Vec<&str> =
            times.iter().map(|_| if random.below(40) < 2 { "ab" } else { ["c", "b"][random.below(2) as usize] }).collect();
        let events: Vec<(i64, &str)> = times.iter().copied().zip(letters.iter().copied()).collect();
        let expected = completions(positions, 10_000, &events).contains(&true);
        let mut fired = false;
        for at in random.arrivals(&times, 5_000) {
            fired |= trial.fires(times[at], &event(letters[at], 0));
        }
        firing += usize::from(expected);
        missed += usize::from(expected && !fired);
        other += usize::from(fired && !expected);
    }
    println!("sequence, 150 events every 30 ms: {missed} of {firing} firing streams missed, {other} fired for events so far only");
    assert!(firing > 100 && missed * 1_000 <= firing);
}

#[test]
fn its_memory_takes_no_more_than_it_says() {
    let day_ms = 86_400_000;
    let steps = "{id: a, when: data.a, times: 63}, {id: b, when: data.b}";
    let detect = format!("sequence: {{within: 366d, same: session_id, steps: [{steps}], then_absent: {{when: data.n, within: 366d}}}}");
    let mut trial = Trial::new(&detect, day_ms);
    let long = |letters: &str, session: i64| format!(r#"{},"path":"/{}""#, event(letters, session), "p".repeat(1_800));
    for session in 0..4 {
        for at in 0..64 {
            trial.see(session + at * 1_000_000, &long("a", session));
        }
        trial.see(64_000_000 + session, &long("b", session));
    }
    for at in 0..140 {
        for session in 0..5 {
            trial.see(65_000_000 + at * 1_300_000, &long("a", session));
            assert!(trial.bytes() <= trial.detector().most_bytes(), "{} bytes", trial.bytes());
        }
    }
    assert!(trial.bytes() > trial.detector().most_bytes() / 2, "{} of {}", trial.bytes(), trial.detector().most_bytes());
}

#[test]
fn what_concerns_it_is_a_step_a_cancel_or_an_answer() {
    let detect = "sequence: {within: 1s, same: [asn], cancel_on: data.x, then_absent: {when: data.n, within: 1s}, \
        steps: [{id: a, when: data.a}, {id: b, when: data.b}]}";
    let trial = Trial::new(detect, 0);
    let sources = |found: Vec<&Expr>| found.iter().map(|expr| expr.source().to_owned()).collect::<Vec<_>>().join(" ");
    assert_eq!(sources(trial.detector().alternatives()), "data.a data.b data.x data.n");
    assert_eq!(sources(trial.detector().expressions()), "data.a data.b data.x data.n asn");
    assert_eq!(trial.detector().window_ms(), 1_000);
}

#[test]
fn what_is_wrong_with_a_sequence_is_said() {
    let step = "{id: a, when: data.a}";
    let nine = (0..9).map(|n| format!("{{id: a{n}, when: data.a}}")).collect::<Vec<_>>().join(", ");
    for (sequence, said) in [
        (format!("{{within: 1s, steps: [{step}]}}"), "no problem"),
        ("{within: 1s, steps: []}".into(), "R005 0 steps, a sequence has 1 to 8 | `times` counts one step several times\n"),
        (format!("{{within: 1s, steps: [{nine}]}}"), "R005 9 steps, a sequence has 1 to 8"),
        (format!("{{within: 1s, steps: [{step}, {step}]}}"), "R010 two steps have the id `a`\n"),
        ("{within: 1s, steps: [{id: a, when: data.a, times: 65}]}".into(), "R005 `times` is 65, it must be 1 to 64\n"),
        (
            "{within: 1s, steps: [{id: a, when: data.a, times: 60}, {id: b, when: data.b, times: 5}]}".into(),
            "R005 the steps add up to 65 events, at most 64 make a sequence | lower a `times`\n",
        ),
        (
            "{within: 1s, steps: [{id: a, when: status_code}]}".into(),
            "R012 `when` of a step in `sequence` must be true or false, this is of type int | compare it with something\n",
        ),
        ("{within: 1s, steps: [{id: a, when: outcom == 'ok'}]}".into(), "did you mean `outcome`?"),
        (
            format!("{{within: 1s, cancel_on: path, steps: [{step}]}}"),
            "R012 `cancel_on` in `sequence` must be true or false, this is of type string",
        ),
        (format!("{{within: 1s, same: [asn, asn, asn, asn, asn], steps: [{step}]}}"), "R005 `same` has 5 values, it takes 1 to 4"),
        (format!("{{within: 1s, same: [usr_id], steps: [{step}]}}"), "did you mean `user_id`?"),
        (format!("{{within: 367d, steps: [{step}]}}"), "R005 `within` is 367d, at most 366d are allowed"),
        (format!("{{within: 1s, steps: [{step}], then_absent: {{when: data.n}}}}"), "R003 `within` is missing in `then_absent`\n"),
        (
            format!("{{within: 1s, steps: [{step}], then_absnt: {{}}}}"),
            "R002 unknown key `then_absnt` in `sequence` | did you mean `then_absent`?",
        ),
        ("{within: 1s, steps: [{id: a, wen: data.a}]}".into(), "R002 unknown key `wen` in a step | did you mean `when`?"),
    ] {
        let found = problems(&format!("sequence: {sequence}"));
        assert!(found.contains(said), "{sequence}: {found}");
    }
}
