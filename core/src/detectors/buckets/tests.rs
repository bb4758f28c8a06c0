use super::*;
use crate::detectors::testing::START_MS;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_bucket_begins_and_ends_where_its_index_says(at_ms in 0i64..4_102_444_800_000, within_ms in LEAST_WITHIN_MS..=MAX_WITHIN_MS) {
        let buckets = Buckets { within_ms };
        let index = buckets.index(at_ms);
        prop_assert!(buckets.start_ms(index) <= at_ms && at_ms <= buckets.last_ms(index));
        prop_assert_eq!(buckets.index(buckets.start_ms(index)), index);
        prop_assert_eq!(buckets.index(buckets.last_ms(index)), index);
        prop_assert_eq!(buckets.index(buckets.last_ms(index) + 1), index + 1);
    }

    #[test]
    fn nothing_too_old_is_in_a_window_and_what_lacks_is_less_than_a_bucket(
        at_ms in START_MS..START_MS + 100_000_000,
        age_ms in 0i64..200_000,
        within_ms in LEAST_WITHIN_MS..150_000,
    ) {
        let buckets = Buckets { within_ms };
        let mut ring = buckets.ring();
        buckets.add(&mut ring, at_ms - age_ms, 0, Sums { amount: 1, total: 0 });
        let end = buckets.index(at_ms);
        let counted = buckets.sums(&ring, end, end).amount == 1;
        prop_assert!(!counted || age_ms < within_ms);
        prop_assert!(counted || age_ms * BUCKETS > within_ms * (BUCKETS - 1));
    }

    #[test]
    fn whatever_is_added_a_ring_has_a_bound(
        events in proptest::collection::vec((0i64..400_000, any::<i64>()), 1..300),
        within_ms in LEAST_WITHIN_MS..150_000,
        lateness_ms in 0i64..100_000,
    ) {
        let buckets = Buckets { within_ms };
        let mut ring = buckets.ring();
        for (at, amount) in events {
            buckets.add(&mut ring, START_MS + at, lateness_ms, Sums { amount, total: 1 });
        }
        prop_assert!(ring.cells.len() as i64 <= BUCKETS + SPARE);
        prop_assert!(ring.cells.is_sorted_by(|a, b| a.index < b.index));
    }

    #[test]
    fn another_within_never_makes_an_event_younger(
        events in proptest::collection::vec(0i64..200_000, 1..100),
        before_ms in LEAST_WITHIN_MS..150_000,
        within_ms in LEAST_WITHIN_MS..150_000,
    ) {
        let old = Buckets { within_ms: before_ms };
        let mut ring = old.ring();
        let mut times = events;
        times.sort_unstable();
        times.iter().for_each(|at| old.add(&mut ring, START_MS + at, 0, Sums { amount: 1, total: 0 }));
        let new = Buckets { within_ms };
        new.adopt(&mut ring);
        let newest = START_MS + times[times.len() - 1];
        let counted = new.sums(&ring, new.index(newest), new.index(newest)).amount;
        let by_hand = times.iter().filter(|at| START_MS + **at > newest - within_ms).count() as i64;
        prop_assert!(counted <= by_hand, "{counted} of {by_hand}");
    }
}

#[test]
fn sums_saturate_and_do_not_depend_on_the_order_of_buckets() {
    let buckets = Buckets { within_ms: 60_000 };
    let mut ring = buckets.ring();
    for (second, amount) in [(0, i64::MAX), (1, i64::MAX), (2, i64::MIN), (3, i64::MIN), (4, 7)] {
        buckets.add(&mut ring, START_MS + second * 1_000, 0, Sums { amount, total: 1 });
    }
    let end = buckets.index(START_MS + 4_000);
    assert_eq!(buckets.sums(&ring, end, end), Sums { amount: 5, total: 5 });
    assert_eq!(buckets.sums(&ring, end, end - 3).amount, i64::MAX);
}

#[test]
fn a_full_bucket_takes_neither_hits_nor_events() {
    let buckets = Buckets { within_ms: 60_000 };
    let index = buckets.index(START_MS);
    for (amount, total) in [(7, FULL), (FULL, 0)] {
        let mut ring = Ring { within_ms: 60_000, cells: vec![Cell { index, amount, total }] };
        buckets.add(&mut ring, START_MS, 0, Sums { amount: 1, total: i64::from(total > 0) });
        assert_eq!(ring.cells, [Cell { index, amount, total }]);
    }
}
