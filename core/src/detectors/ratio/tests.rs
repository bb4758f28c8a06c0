//! What ratio promises, against counting by hand.

use crate::detectors::testing::{Bench, Course, START_MS, detector, in_order, shuffled, some_aligned, tally};
use proptest::prelude::*;

fn rule(above: &str, min_events: i64, within_ms: i64) -> String {
    format!("ratio: {{of: data.v, above: {above}, min_events: {min_events}, within: {within_ms}ms}}")
}

fn met(inside: &[(i64, i64)], thousandths: i64, min_events: i64) -> bool {
    let (hits, all) = (inside.iter().filter(|(_, value)| *value > 0).count() as i64, inside.len() as i64);
    all >= min_events && hits * 1_000 > thousandths * all
}

fn truth(value: i64) -> String {
    (value > 0).to_string()
}

#[test]
fn it_needs_enough_events_and_more_than_the_share() {
    let mut bench = Bench::new(&rule("0.6", 5, 60_000), 0);
    for (at, value) in [(0, "true"), (1, "true"), (2, "true"), (3, "false"), (4, "null"), (4, "1"), (5, "false")] {
        assert!(bench.show(at, value).is_none_or(|seen| seen.firing.is_none()), "{at}: 3 of 5 is not more than 0.6");
    }
    assert!(bench.show(6, "\"true\"").is_none(), "what is not a truth value is not counted");
    let firing = bench.show(7, "true").unwrap().firing.unwrap();
    assert_eq!((firing.why(), firing.value(), firing.count), ("66.6% of 6 in 1m".into(), 0.666.into(), 6));
}

#[test]
fn an_event_that_is_no_hit_can_end_it() {
    let mut bench = Bench::new(&rule("0.5", 2, 60_000), 0);
    bench.show(0, "true");
    assert!(bench.show(1, "true").unwrap().holds);
    bench.show(2, "false");
    assert!(!bench.show(3, "false").unwrap().holds);
}

#[test]
fn keys_have_their_types_and_bounds() {
    for (detect, said) in [
        ("ratio: {of: path, above: 0.6, min_events: 20, within: 1m}", "R012 1:13 `of` must be true or false, this is of type string"),
        ("ratio: {of: data.v, above: 1, min_events: 20, within: 1m}", "R005 1:28 `above` is 1, it must be 0 to 0.999"),
        ("ratio: {of: data.v, above: 0.6666, min_events: 20, within: 1m}", "R005 1:28 `above` is 0.6666, at most three decimals"),
        ("ratio: {of: data.v, above: 0.6, min_events: 0, within: 1m}", "R005 1:45 `min_events` is 0, it must be 1 to 1000000"),
        ("ratio: {of: data.v, above: 0.6, within: 1m}", "R003 1:8 `min_events` is missing in `ratio`"),
        ("ratio: {of: data.v, above: 0.6, min_events: 20, within: 1ms}", "R005 1:57 `within` is 1ms, at least 60ms are needed"),
    ] {
        let found = detector(detect).map(|_| ()).unwrap_err();
        assert!(found.starts_with(said), "{detect}: {found}");
    }
    for of in ["status_code >= 400", "data.v", "is_staff", "false"] {
        assert!(detector(&format!("ratio: {{of: {of}, above: 0, min_events: 1, within: 60ms}}")).is_ok(), "{of}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn in_order_it_counts_what_lies_in_whole_buckets(
        events in in_order(50, 2, 200),
        above in 0i64..1_000,
        min_events in 1i64..20,
        within_ms in 60i64..4_000,
    ) {
        let mut bench = Bench::new(&rule(&format!("{}", above as f64 / 1_000.0), min_events, within_ms), 0);
        for (place, (at, value)) in events.iter().enumerate() {
            let bucket = |at: i64| (START_MS + at) * 60 / within_ms;
            let inside: Vec<_> = events[..=place].iter().filter(|(t, _)| bucket(*t) > bucket(*at) - 60).copied().collect();
            let seen = bench.show(*at, &truth(*value)).unwrap();
            prop_assert_eq!(seen.firing.is_some(), met(&inside, above, min_events));
            prop_assert_eq!(seen.holds, met(&inside, above, min_events));
            prop_assert_eq!(seen.lapsed, !met(&inside[..inside.len() - 1], above, min_events));
        }
        bench.check_bytes();
    }

    #[test]
    fn out_of_order_nothing_fires_that_counting_would_not(
        events in in_order(20, 2, 150),
        delays in proptest::collection::vec(0i64..300, 150),
        above in 0i64..1_000,
        min_events in 1i64..20,
        within_ms in 60i64..1_200,
    ) {
        let arrivals = shuffled(events, &delays);
        let mut bench = Bench::new(&rule(&format!("{}", above as f64 / 1_000.0), min_events, within_ms), 300);
        for (place, (at, value)) in arrivals.iter().enumerate() {
            let fires = bench.show(*at, &truth(*value)).unwrap().firing.is_some();
            let by_hand = || some_aligned(&arrivals[..=place], Some(place), within_ms, |inside| met(inside, above, min_events));
            prop_assert!(!fires || by_hand(), "at {} of {:?}", place, arrivals);
        }
        bench.check_bytes();
    }
}

/// With arrival shuffled by up to 5 s on windows of 20 to 60 s. Counting by hand looks at the events as they arrived: a share
/// can be passed for a moment and be gone when the rest has arrived, and the other way round.
#[test]
fn out_of_order_at_most_one_in_a_thousand_streams_is_missed() {
    let found = tally(1_500, |dice| {
        let (min_events, within_ms) = (5 + dice.below(16), 20_000 + dice.below(40_001));
        let arrivals = dice.stream(60, within_ms / (2 * min_events), 2);
        let by_hand = move |arrived: &[(i64, i64)], place: Option<usize>| {
            some_aligned(arrived, place, within_ms, |inside| met(inside, 650, min_events))
        };
        Course { rule: rule("0.65", min_events, within_ms), arrivals, value: truth, by_hand: Box::new(by_hand) }
    });
    println!("ratio: {found:?}");
    assert!(found.firing >= 200 && found.missed * 1_000 <= found.firing, "{found:?}");
}

#[test]
fn it_says_how_far_it_is() {
    let mut bench = Bench::new("ratio: {of: data.v >= 400, above: 0.6, min_events: 20, within: 10m}", 0);
    bench.show(0, "200");
    bench.show(1_000, "404");
    assert_eq!(bench.progress(1_000).as_deref(), Some("1 of 2 events in 10m, more than 60% of at least 20 is needed"));
}
