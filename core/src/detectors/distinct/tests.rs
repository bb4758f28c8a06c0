//! What distinct promises, against counting by hand.

use super::{EARLIER, SPARE, Sample};
use crate::detectors::testing::{Bench, Course, Dice, detector, in_order, shuffled, some_window, tally};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn rule(k: i64, within_ms: i64) -> String {
    format!("distinct: {{of: data.v, at_least: {k}, within: {within_ms}ms}}")
}

fn values(inside: &[(i64, i64)]) -> i64 {
    inside.iter().map(|(_, value)| value).collect::<BTreeSet<_>>().len() as i64
}

#[test]
fn types_differ_and_missing_values_do_not_count() {
    let mut bench = Bench::new(&rule(3, 1_000), 0);
    for (at, value) in [(0, "1"), (1, "1.0"), (2, "\"1\""), (3, "null"), (4, "[1]")] {
        assert!(bench.show(at, value).is_none_or(|seen| seen.firing.is_none()), "{value}");
    }
    assert!(bench.show(5, "null").is_none());
    assert_eq!(bench.show(6, "true").and_then(|seen| seen.firing).map(|firing| firing.why()), Some("3 different values in 1s".into()));
}

#[test]
fn a_value_seen_again_late_counts_where_it_was_seen() {
    let mut bench = Bench::new(&rule(3, 10), 5_000);
    for (at, value) in [(0, "1"), (4, "2"), (20, "3")] {
        assert!(bench.show(at, value).unwrap().firing.is_none());
    }
    let seen = bench.show(5, "3").unwrap();
    assert!(seen.firing.is_some(), "1, 2 and 3 lie in (-5, 5]");
    assert!(!seen.holds, "and not at the newest event");
}

#[test]
fn a_value_seen_again_still_counts_in_a_window_that_ended_before() {
    let mut bench = Bench::new(&rule(3, 10), 5_000);
    for (at, value) in [(0, "1"), (4, "2"), (20, "2"), (21, "2")] {
        assert!(bench.show(at, value).unwrap().firing.is_none());
        bench.check_bytes();
    }
    assert!(bench.show(5, "3").unwrap().firing.is_some(), "2 was seen at 4, too");
    let mut arrival_order = Bench::new(&rule(3, 10), 0);
    [(0, "1"), (4, "2"), (20, "2")].into_iter().for_each(|(at, value)| _ = arrival_order.show(at, value));
    assert!(arrival_order.show(5, "3").unwrap().firing.is_none(), "not kept where lateness is not judged");
}

#[test]
fn keys_have_their_bounds() {
    for (detect, said) in [
        ("distinct: {of: data.v, at_least: 0, within: 1m}", "R005 1:34 `at_least` is 0, it must be 1 to 1000000"),
        ("distinct: {of: data.v, at_least: 1000001, within: 1m}", "R005 1:34 `at_least` is 1000001, it must be 1 to 1000000"),
        ("distinct: {at_least: 1, within: 1m}", "R003 1:11 `of` is missing in `distinct`"),
        ("distinct: {of: nowhere, at_least: 1, within: 1m}", "R012 1:16 `of`: "),
        ("distinct: {of: path, at_least: 1, within: 367d}", "R005 1:43 `within` is 367d, at most 366d are allowed"),
    ] {
        let found = detector(detect).map(|_| ()).unwrap_err();
        assert!(found.starts_with(said), "{detect}: {found}");
    }
    for of in ["path", "status_code", "is_staff", "data.v", "status_code / 100"] {
        assert!(detector(&format!("distinct: {{of: {of}, at_least: 8, within: 5m}}")).is_ok(), "{of}");
    }
}

#[test]
fn a_threshold_above_the_exact_ones_keeps_a_share() {
    for at_least in (1..3_000).chain([65_535, 65_536, 999_999, 1_000_000]) {
        let sample = Sample::of(at_least);
        assert!(sample.at_least <= 257, "{at_least}: {sample:?}");
        assert!((sample.at_least << sample.shift) - (at_least as usize) < 1 << sample.shift, "{at_least}: {sample:?}");
    }
    assert_eq!(Sample::of(256), Sample { shift: 0, at_least: 256 });
    assert_eq!(Sample::of(257), Sample { shift: 1, at_least: 129 });
    assert_eq!(Sample::of(1_000_000), Sample { shift: 12, at_least: 245 });
}

/// How many different values it takes until it fires, one after the other.
fn until_it_fires(k: i64, salt: i64) -> i64 {
    let mut bench = Bench::new(&rule(k, 1_000_000_000), 0);
    let fires = |n: &i64| bench.show(*n, &format!("\"{salt}/{n}\"")).is_some_and(|seen| seen.firing.is_some());
    (1..k * 3).find(fires).expect("it fires")
}

#[test]
fn up_to_256_it_is_exact_and_above_that_the_error_is_the_one_stated() {
    assert_eq!(until_it_fires(256, 0), 256);
    for k in [300, 520, 1_000] {
        let errors: Vec<f64> = (0..60).map(|salt| until_it_fires(k, salt) as f64 / k as f64 - 1.0).collect();
        let standard = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
        println!("distinct at {k}: relative standard error {:.1} %", standard * 100.0);
        assert!(standard < 0.10, "{k}: {standard}");
        assert!(errors.iter().all(|e| e.abs() < 0.3), "{k}: {errors:?}");
    }
}

#[test]
fn a_higher_threshold_forgets_what_its_share_does_not_keep() {
    let mut bench = Bench::new(&rule(256, 1_000_000), 0);
    (0..255).for_each(|n| _ = bench.show(n, &n.to_string()));
    bench.change(&rule(500, 1_000_000));
    let fired = (255..400).filter_map(|n| bench.show(n, &n.to_string())).filter(|seen| seen.firing.is_some()).count();
    assert_eq!(fired, 0, "400 values are not 500");
    bench.check_bytes();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn in_order_the_k_values_seen_last_decide_exactly(events in in_order(8, 15, 200), k in 1i64..12, within_ms in 1i64..60) {
        let mut bench = Bench::new(&rule(k, within_ms), 0);
        for (place, (at, value)) in events.iter().enumerate() {
            let inside: Vec<_> = events[..=place].iter().filter(|(t, _)| *t > at - within_ms).copied().collect();
            let before: Vec<_> = events[..place].iter().filter(|(t, _)| *t > at - within_ms).copied().collect();
            let seen = bench.show(*at, &value.to_string()).unwrap();
            prop_assert_eq!(seen.firing.is_some(), values(&inside) >= k);
            prop_assert_eq!(seen.holds, values(&inside) >= k);
            prop_assert_eq!(seen.lapsed, values(&before) < k);
            bench.check_bytes();
        }
    }

    #[test]
    fn out_of_order_nothing_fires_that_brute_force_would_not(
        events in in_order(8, 15, 150),
        delays in proptest::collection::vec(0i64..30, 150),
        k in 1i64..10,
        within_ms in 1i64..60,
        lateness_ms in prop_oneof![Just(0), Just(30)],
    ) {
        let arrivals = shuffled(events, &delays);
        let mut bench = Bench::new(&rule(k, within_ms), lateness_ms);
        for (place, (at, value)) in arrivals.iter().enumerate() {
            let fires = bench.show(*at, &value.to_string()).unwrap().firing.is_some();
            prop_assert!(!fires || some_window(&arrivals[..=place], Some(place), within_ms, |inside| values(inside) >= k));
        }
        bench.check_bytes();
    }
}

/// With arrival shuffled by up to 5 s on windows of 20 to 60 s.
#[test]
fn out_of_order_at_most_one_in_a_thousand_streams_is_missed() {
    let found = tally(2_000, |dice: &mut Dice| {
        let (k, within_ms) = (2 + dice.below(19), 20_000 + dice.below(40_001));
        let gap_ms = within_ms / k;
        let (gap_ms, values_there) = (gap_ms / 2 + dice.below(gap_ms), k + 1 + dice.below(2 * k));
        let arrivals = dice.stream(60, gap_ms, values_there);
        let by_hand =
            move |arrived: &[(i64, i64)], place: Option<usize>| some_window(arrived, place, within_ms, |inside| values(inside) >= k);
        Course { rule: rule(k, within_ms), arrivals, value: |value| value.to_string(), by_hand: Box::new(by_hand) }
    });
    println!("distinct, {SPARE} spare, {EARLIER} earlier: {found:?}");
    assert!(found.firing >= 1_000 && found.missed * 1_000 <= found.firing, "{found:?}");
}

#[test]
fn it_says_how_far_it_is() {
    let mut bench = Bench::new("distinct: {of: data.v, at_least: 8, within: 5m}", 60_000);
    for (at_ms, value) in [(0, "1"), (1_000, "2"), (301_000, "3"), (302_000, "2")] {
        bench.show(at_ms, value);
    }
    assert_eq!(bench.progress(302_000).as_deref(), Some("2 of 8 different values in 5m"));
    let bench = Bench::new("distinct: {of: data.v, at_least: 4096, within: 5m}", 0);
    assert_eq!(bench.progress(0).as_deref(), Some("about 0 of 4096 different values in 5m"));
}
