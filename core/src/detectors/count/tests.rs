//! What count promises, against counting by hand.

use super::SPARE;
use crate::detectors::edge;
use crate::detectors::testing::{Bench, Course, START_MS, detector, in_order, shuffled, some_aligned, some_window, tally};
use crate::firing::{Figure, Firing};
use crate::rule::Rhythm;
use crate::state::Edge;
use proptest::prelude::*;

/// The times at which a rule fires, through the edge.
fn firings(detect: &str, once_per_ms: i64, times: &[i64]) -> Vec<i64> {
    let mut bench = Bench::new(detect, 0);
    let mut edge = Edge::default();
    let fires = |at: &i64| {
        let seen = bench.show(*at, "1").expect("taken");
        edge::take(&mut edge, &seen, Rhythm::Edge, START_MS + at, once_per_ms).is_some()
    };
    times.iter().copied().filter(fires).collect()
}

#[test]
fn the_window_is_open_at_its_start_and_closed_at_its_end() {
    let rule = "count: {at_least: 3, within: 10ms}";
    assert_eq!(firings(rule, 0, &[0, 5, 10]), [] as [i64; 0], "0 is not in (0, 10]");
    assert_eq!(firings(rule, 0, &[1, 5, 10]), [10]);
    assert_eq!(firings(rule, 0, &[5, 5, 5]), [5], "equal times count");
}

#[test]
fn an_edge_fires_once_until_the_count_fell_below() {
    let rule = "count: {at_least: 3, within: 10ms}";
    assert_eq!(firings(rule, 0, &[1, 2, 3, 4, 5]), [3]);
    assert_eq!(firings(rule, 0, &[1, 2, 3, 20, 21, 22]), [3, 22]);
    assert_eq!(firings(rule, 3, &[1, 2, 3, 4, 5, 6, 7]), [3, 6], "while it stays, once per cooldown");
    assert_eq!(firings(rule, 100, &[1, 2, 3, 20, 21, 22]), [3], "a fresh edge within the cooldown is held");
}

#[test]
fn a_straggler_inside_the_window_still_counts() {
    let rule = "count: {at_least: 3, within: 10ms}";
    assert_eq!(firings(rule, 0, &[1, 9, 3]), [3], "1, 3 and 9 lie in one window");
    assert_eq!(firings(rule, 0, &[1, 12, 3]), [] as [i64; 0]);
}

#[test]
fn all_of_needs_every_window_at_one_end_and_any_of_needs_one() {
    let windows = "[{at_least: 3, within: 10ms}, {at_least: 5, within: 100ms}]";
    let (all, any) = (format!("count: {{all_of: {windows}}}"), format!("count: {{any_of: {windows}}}"));
    let burst_then_calm = [0, 1, 2, 50, 80];
    assert_eq!(firings(&all, 0, &burst_then_calm), [] as [i64; 0], "the short window is over when the long one holds");
    assert_eq!(firings(&any, 0, &burst_then_calm), [2, 80]);
    assert_eq!(firings(&all, 0, &[0, 40, 80, 81, 82]), [82]);
}

#[test]
fn a_fixed_window_starts_with_its_first_hit() {
    let mut bench = Bench::new("count: {at_least: 2, within: 10ms, window: fixed, firing: every}", 0);
    let fires: Vec<bool> = [0, 9, 9, 10, 19, 20].iter().map(|at| bench.show(*at, "1").unwrap().firing.is_some()).collect();
    assert_eq!(fires, [false, true, true, false, true, false]);
    bench.check_bytes();
}

#[test]
fn the_heaviest_window_that_holds_speaks_for_the_rule() {
    let read = detector("count: {any_of: [{at_least: 2, within: 10ms, points: 40}, {at_least: 4, within: 20ms, points: 70}]}").unwrap();
    let mut bench = Bench::new("count: {any_of: [{at_least: 2, within: 10ms, points: 40}, {at_least: 4, within: 20ms, points: 70}]}", 0);
    let points: Vec<Option<u8>> =
        [0, 5, 11, 14, 40].iter().map(|at| bench.show(*at, "1").unwrap().firing.and_then(|firing| read.points(&firing))).collect();
    assert_eq!(points, [None, Some(40), Some(40), Some(70), None]);
    assert_eq!(
        detector("count: {at_least: 2, within: 10ms}").unwrap().points(&Firing { count: 2, within_ms: 10, figure: Figure::Events }),
        None
    );
}

#[test]
fn windows_have_their_bounds() {
    for (detect, said) in [
        ("count: {at_least: 65, within: 59ms}", "R005 1:31 `within` is 59ms, at least 60ms are needed for a threshold above 64"),
        ("count: {at_least: 1000001, within: 1m}", "R005 1:19 `at_least` is 1000001, it must be 1 to 1000000"),
        ("count: {all_of: []}", "R005 1:17 `all_of` has 0 windows, it must have 1 to 8"),
        ("count: {any_of: [{at_least: 1, within: 1s, points: 101}]}", "R005 1:52 `points` is 101, it must be 0 to 100"),
        ("count: {all_of: [{at_least: 1, within: 1s, points: 5}]}", "R002 1:44 unknown key `points` in a window of `all_of`"),
        ("count: {all_of: [{at_least: 1}]}", "R003 1:18 `within` is missing in a window of `all_of`"),
        ("count: {all_of: [{at_least: 1, within: 1s}], at_least: 3}", "R016 1:46 `at_least` and `all_of` exclude each other"),
        ("count: {any_of: [{at_least: 1, within: 1s}], window: fixed}", "R016 1:46 `window` and `any_of` exclude each other"),
        ("count: {any_of: [], all_of: []}", "R016 1:9 `all_of` and `any_of` exclude each other"),
    ] {
        let found = detector(detect).map(|_| ()).unwrap_err();
        assert!(found.starts_with(said), "{detect}: {found}");
    }
    let nine = format!("count: {{any_of: [{}]}}", "{at_least: 1, within: 1s},".repeat(9));
    assert!(detector(&nine).unwrap_err().contains("`any_of` has 9 windows"));
    assert!(detector("count: {at_least: 1000000, within: 366d}").is_ok());
}

#[test]
fn another_threshold_keeps_what_was_counted() {
    // From times to buckets, to other buckets, and back to times.
    let mut bench = Bench::new("count: {at_least: 60, within: 1h}", 0);
    (0..64).for_each(|at| _ = bench.show(at * 1_000, "1"));
    bench.change("count: {at_least: 65, within: 1h}");
    assert!(bench.show(64_000, "1").unwrap().firing.is_some());
    bench.change("count: {at_least: 66, within: 2h}");
    assert!(bench.show(65_000, "1").unwrap().firing.is_some());
    bench.change("count: {all_of: [{at_least: 67, within: 2h}, {at_least: 64, within: 1h}]}");
    assert!(bench.show(66_000, "1").unwrap().firing.is_some());
    bench.change("count: {at_least: 64, within: 1h}");
    assert!(bench.show(67_000, "1").unwrap().firing.is_some());
    bench.check_bytes();
}

fn count_rule(k: i64, within_ms: i64) -> String {
    format!("count: {{at_least: {k}, within: {within_ms}ms}}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn in_order_the_newest_k_times_decide_exactly(events in in_order(8, 1, 200), k in 1i64..12, within_ms in 1i64..40) {
        let mut bench = Bench::new(&count_rule(k, within_ms), 0);
        for (place, (at, _)) in events.iter().enumerate() {
            let inside = events[..=place].iter().filter(|(t, _)| *t > at - within_ms).count() as i64;
            let seen = bench.show(*at, "1").unwrap();
            prop_assert_eq!(seen.firing.is_some(), inside >= k);
            prop_assert_eq!(seen.holds, inside >= k);
            prop_assert_eq!(seen.lapsed, inside - 1 < k);
            bench.check_bytes();
        }
    }

    #[test]
    fn in_order_buckets_count_what_lies_in_whole_ones(events in in_order(30, 1, 300), k in 65i64..80, within_ms in 60i64..2_000) {
        let mut bench = Bench::new(&count_rule(k, within_ms), 0);
        for (place, (at, _)) in events.iter().enumerate() {
            let bucket = |at: i64| (START_MS + at) * 60 / within_ms;
            let inside = events[..=place].iter().filter(|(t, _)| bucket(*t) > bucket(*at) - 60).count() as i64;
            let seen = bench.show(*at, "1").unwrap();
            prop_assert_eq!(seen.firing.map(|f| f.count), (inside >= k).then_some(inside as u64));
        }
        bench.check_bytes();
    }

    #[test]
    fn out_of_order_nothing_fires_that_brute_force_would_not(
        events in in_order(4, 1, 200),
        delays in proptest::collection::vec(0i64..30, 200),
        spans in proptest::collection::vec((prop_oneof![1i64..8, 65i64..70], 60i64..300), 1..4),
        all in any::<bool>(),
        lateness_ms in prop_oneof![Just(0), Just(30)],
    ) {
        let windows: Vec<String> = spans.iter().map(|(k, within)| format!("{{at_least: {k}, within: {within}ms}}")).collect();
        let rule = format!("count: {{{}: [{}]}}", if all { "all_of" } else { "any_of" }, windows.join(", "));
        let arrivals = shuffled(events, &delays);
        let mut bench = Bench::new(&rule, lateness_ms);
        for (place, (at, _)) in arrivals.iter().enumerate() {
            if bench.show(*at, "1").unwrap().firing.is_none() {
                continue;
            }
            let arrived = &arrivals[..=place];
            let longest = spans.iter().map(|(_, within)| *within).max().unwrap();
            let holds = |end: i64, k: i64, within: i64| arrived.iter().filter(|(t, _)| *t <= end && *t > end - within).count() as i64 >= k;
            let reaches = |end: i64, within: i64| *at <= end && *at > end - within;
            let by_hand = arrived.iter().map(|(end, _)| *end).any(|end| {
                if all {
                    reaches(end, longest) && spans.iter().all(|(k, within)| holds(end, *k, *within))
                } else {
                    spans.iter().any(|(k, within)| reaches(end, *within) && holds(end, *k, *within))
                }
            });
            prop_assert!(by_hand, "{} at {} of {:?}", rule, place, arrivals);
        }
        bench.check_bytes();
    }
}

/// With arrival shuffled by up to 5 s on windows of 20 to 60 s.
#[test]
fn out_of_order_at_most_one_in_a_thousand_streams_is_missed() {
    let found = tally(2_000, |dice| {
        let (k, within_ms) = (2 + dice.below(19), 20_000 + dice.below(40_001));
        let gap_ms = within_ms / k;
        let gap_ms = gap_ms + dice.below(gap_ms + 1);
        let arrivals = dice.stream(60, gap_ms, 1);
        let by_hand =
            move |arrived: &[(i64, i64)], place: Option<usize>| some_window(arrived, place, within_ms, |inside| inside.len() as i64 >= k);
        Course { rule: count_rule(k, within_ms), arrivals, value: |_| "1".into(), by_hand: Box::new(by_hand) }
    });
    println!("count, {SPARE} spare: {found:?}");
    assert!(found.firing >= 1_000 && found.missed * 1_000 <= found.firing, "{found:?}");
}

#[test]
fn out_of_order_at_most_one_in_a_thousand_streams_in_buckets_is_missed() {
    let found = tally(800, |dice| {
        let (k, within_ms) = (65 + dice.below(20), 20_000 + dice.below(40_001));
        let gap_ms = within_ms / k;
        let gap_ms = gap_ms + dice.below(gap_ms / 4 + 1);
        let arrivals = dice.stream(150, gap_ms, 1);
        let by_hand =
            move |arrived: &[(i64, i64)], place: Option<usize>| some_aligned(arrived, place, within_ms, |inside| inside.len() as i64 >= k);
        Course { rule: count_rule(k, within_ms), arrivals, value: |_| "1".into(), by_hand: Box::new(by_hand) }
    });
    println!("count in buckets: {found:?}");
    assert!(found.firing >= 300 && found.missed * 1_000 <= found.firing, "{found:?}");
}

#[test]
fn it_says_how_far_each_window_is() {
    let progress = |detect: &str, times: &[i64]| {
        let mut bench = Bench::new(detect, 60_000);
        times.iter().for_each(|at_ms| _ = bench.show(*at_ms, "1"));
        bench.progress(times[times.len() - 1]).unwrap_or_default()
    };
    assert_eq!(progress("count: {at_least: 5, within: 2m}", &[0, 60_000, 150_000]), "2 of 5 in 2m");
    assert_eq!(progress("count: {at_least: 500, within: 2m}", &[0, 60_000, 90_000]), "3 of 500 in 2m");
    assert_eq!(progress("count: {at_least: 5, within: 2m, window: fixed}", &[0, 60_000, 150_000]), "1 of 5 in 2m");
    let windows = "[{at_least: 5, within: 1m}, {at_least: 500, within: 1h}]";
    assert_eq!(progress(&format!("count: {{all_of: {windows}}}"), &[0, 30_000, 70_000]), "2 of 5 in 1m and 3 of 500 in 1h");
    assert_eq!(progress(&format!("count: {{any_of: {windows}}}"), &[0, 30_000, 70_000]), "2 of 5 in 1m or 3 of 500 in 1h");
    // A late event is told about the window that ends with it.
    assert_eq!(progress("count: {at_least: 5, within: 2m}", &[0, 1_000, 60_000, 30_000]), "3 of 5 in 2m");
}
