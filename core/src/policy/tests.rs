//! Actions entered, left, held back; lifetimes.

use super::*;

const MINUTE: i64 = 60_000;

#[test]
fn lifetimes_grow_to_the_longest_and_are_a_tenth_longer_at_most() {
    let sentence = Sentence { ttl_ms: 15 * MINUTE, grow: 2_000, max_ttl_ms: 24 * 60 * MINUTE, forget_ms: 1 };
    let minutes: Vec<i64> = (0..9).map(|offences| sentence.length_ms(offences, 0) / MINUTE).collect();
    assert_eq!(minutes, [15, 30, 60, 120, 240, 480, 960, 1_440, 1_440]);
    assert_eq!(sentence.length_ms(u8::MAX, 0), 24 * 60 * MINUTE);
    for seed in [0, 1, 500, 1_000, 1_001, u64::MAX] {
        let length = sentence.length_ms(0, seed);
        assert!((15 * MINUTE..=15 * MINUTE + 15 * MINUTE / 10).contains(&length), "{seed}: {length}");
    }
    assert_eq!(sentence.length_ms(0, 1_000), 15 * MINUTE * 11 / 10);
    let half_more = Sentence { grow: 1_500, ..sentence };
    assert_eq!(half_more.length_ms(2, 0), 15 * MINUTE * 9 / 4);
}

#[test]
fn what_throttle_allows_slides_evenly_from_rate_to_floor() {
    let allowed = Allowed { from_us: 1_000_000, floor_us: 10_000_000 };
    let at = |points| allowed.interval_ms(60, points);
    // 1 per second at 60, 0.1 at 100; in the middle 0.55.
    assert_eq!([at(60), at(80), at(100), at(0)], [1_000, 1_819, 10_000, 1_000]);
    assert!((60..100).all(|points| at(points) <= at(points + 1)));
    assert_eq!(Allowed { from_us: 1, floor_us: 1 }.interval_ms(100, 100), 1, "no division by what is not there");
    let longest = Allowed { from_us: i64::MAX, floor_us: i64::MAX };
    assert!(longest.interval_ms(1, 100) > 0);
}

#[test]
fn many_people_are_not_refused_because_of_some_of_them() {
    use crate::entity::Part;
    let tenant = EntityKind::from(Part::Tenant);
    for (action, many, one) in
        [(Action::Alert, true, true), (Action::Throttle, true, true), (Action::StepUp, false, true), (Action::Block, false, true)]
    {
        assert_eq!((action.is_for(tenant), action.is_for(EntityKind::ANON)), (many, many), "{action:?}");
        assert_eq!((action.is_for(EntityKind::from(Part::User)), action.is_for(EntityKind::from(Part::Ip))), (one, one), "{action:?}");
    }
}
