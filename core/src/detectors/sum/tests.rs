//! What sum promises, against adding up by hand.

use crate::detectors::testing::{Bench, Course, START_MS, detector, in_order, shuffled, some_aligned, some_window, tally};
use proptest::prelude::*;

fn rule(above: i64, within_ms: i64) -> String {
    format!("sum: {{of: data.v, above: {above}, within: {within_ms}ms}}")
}

fn total(inside: &[(i64, i64)]) -> i64 {
    inside.iter().map(|(_, value)| value).sum()
}

#[test]
fn it_fires_above_and_not_at_the_threshold_and_says_the_sum() {
    let mut bench = Bench::new("sum: {of: data.v, above: 1.5, within: 1m}", 0);
    assert!(bench.show(0, "1").unwrap().firing.is_none());
    assert!(bench.show(1, "0.5").unwrap().firing.is_none(), "1.5 is not above 1.5");
    assert!(bench.show(2, "\"9\"").is_none() && bench.show(2, "null").is_none(), "what is no number is not counted");
    let firing = bench.show(3, "0.001").unwrap().firing.unwrap();
    assert_eq!((firing.why(), firing.value(), firing.count), ("a sum of 1.501 in 1m".into(), 1.501.into(), 3));
}

#[test]
fn huge_amounts_saturate() {
    let mut bench = Bench::new(&rule(1_000_000_000_000_000, 60_000), 0);
    for at in 0..100 {
        assert!(bench.show(at * 1_000, "9223372036854775807").unwrap().firing.is_some());
        bench.check_bytes();
    }
    bench.show(100_000, "-1e300");
    bench.check_bytes();
}

#[test]
fn keys_have_their_types_and_bounds() {
    for (detect, said) in [
        ("sum: {of: path, above: 1, within: 1m}", "R012 1:11 `of` must be a number, this is of type string"),
        ("sum: {of: is_staff, above: 1, within: 1m}", "R012 1:11 `of` must be a number, this is of type bool"),
        ("sum: {of: data.v, above: -1, within: 1m}", "R005 1:26 `above` is -1, it must be 0 to 1000000000000000"),
        ("sum: {of: data.v, above: 1.0005, within: 1m}", "R005 1:26 `above` is 1.0005, at most three decimals are allowed"),
        ("sum: {of: data.v, above: 1e16, within: 1m}", "R005 1:26 `above` is 10000000000000000, it must be 0 to"),
        ("sum: {of: data.v, above: a, within: 1m}", "R004 1:26 `above` needs a number, this is text"),
        ("sum: {of: data.v, above: 1, within: 59ms}", "R005 1:37 `within` is 59ms, at least 60ms are needed"),
        ("sum: {of: data.v, within: 1m}", "R003 1:6 `above` is missing in `sum`"),
    ] {
        let found = detector(detect).map(|_| ()).unwrap_err();
        assert!(found.starts_with(said), "{detect}: {found}");
    }
    for of in ["response_bytes", "data.v", "response_bytes + 0", "1"] {
        assert!(detector(&format!("sum: {{of: {of}, above: 0.125, within: 60ms}}")).is_ok(), "{of}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn in_order_it_adds_up_what_lies_in_whole_buckets(events in in_order(50, 40, 200), above in 0i64..2_000, within_ms in 60i64..4_000) {
        let mut bench = Bench::new(&rule(above, within_ms), 0);
        for (place, (at, value)) in events.iter().enumerate() {
            let bucket = |at: i64| (START_MS + at) * 60 / within_ms;
            let inside: Vec<_> = events[..=place].iter().filter(|(t, _)| bucket(*t) > bucket(*at) - 60).copied().collect();
            let seen = bench.show(*at, &value.to_string()).unwrap();
            prop_assert_eq!(seen.firing.is_some(), total(&inside) > above);
            prop_assert_eq!(seen.holds, total(&inside) > above);
            let before = total(&inside) - value;
            prop_assert_eq!(seen.lapsed, before <= above);
        }
        bench.check_bytes();
    }

    #[test]
    fn out_of_order_nothing_fires_that_adding_up_would_not(
        events in in_order(20, 40, 150),
        delays in proptest::collection::vec(0i64..300, 150),
        above in 0i64..1_500,
        within_ms in 60i64..1_200,
        negative in any::<bool>(),
        lateness_ms in prop_oneof![Just(0), Just(300)],
    ) {
        let value = |number: i64| if negative { number - 15 } else { number };
        let arrivals: Vec<_> = shuffled(events, &delays).into_iter().map(|(at, number)| (at, value(number))).collect();
        let mut bench = Bench::new(&rule(above, within_ms), lateness_ms);
        let mut kept = Vec::new();
        for (at, value) in &arrivals {
            kept.push((*at, *value));
            let fires = bench.show(*at, &value.to_string()).unwrap().firing.is_some();
            prop_assert!(!fires || some_aligned(&kept, Some(kept.len() - 1), within_ms, |inside| total(inside) > above));
            if !negative {
                prop_assert!(!fires || some_window(&kept, Some(kept.len() - 1), within_ms, |inside| total(inside) > above));
            }
        }
        bench.check_bytes();
    }
}

/// With arrival shuffled by up to 5 s on windows of 20 to 60 s.
#[test]
fn out_of_order_at_most_one_in_a_thousand_streams_is_missed() {
    let found = tally(1_500, |dice| {
        let (events, within_ms) = (5 + dice.below(30), 20_000 + dice.below(40_001));
        let above = events * 60;
        let arrivals = dice.stream(60, within_ms / events, 100);
        let by_hand =
            move |arrived: &[(i64, i64)], place: Option<usize>| some_aligned(arrived, place, within_ms, |inside| total(inside) > above);
        Course { rule: rule(above, within_ms), arrivals, value: |value| value.to_string(), by_hand: Box::new(by_hand) }
    });
    println!("sum: {found:?}");
    assert!(found.firing >= 500 && found.missed * 1_000 <= found.firing, "{found:?}");
}

#[test]
fn it_says_how_far_it_is() {
    let mut bench = Bench::new("sum: {of: data.v, above: 1.5, within: 1m}", 0);
    bench.show(0, "1");
    bench.show(30_000, "0.25");
    assert_eq!(bench.progress(30_000).as_deref(), Some("a sum of 1.25 in 1m, more than 1.5 is needed"));
    bench.show(70_000, "0.5");
    assert_eq!(bench.progress(70_000).as_deref(), Some("a sum of 0.75 in 1m, more than 1.5 is needed"));
}
