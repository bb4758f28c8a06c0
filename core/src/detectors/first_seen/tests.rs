use super::*;
use crate::detectors::trial::{Random, Trial, problems};

const DAY_MS: i64 = 86_400_000;

fn trial(memory: &str, learn: &str, lateness_ms: i64) -> Trial {
    Trial::new(&format!("first_seen: {{of: [country], memory: {memory}, learn: {learn}}}"), lateness_ms)
}

fn country(value: i64) -> String {
    format!(r#""country":"c{value}""#)
}

#[test]
fn a_value_is_new_until_it_was_seen_and_again_when_it_was_forgotten() {
    let mut trial = trial("30d", "0s", 0);
    let days = [(0, 1, true), (1, 1, false), (30, 1, false), (30, 2, true), (60, 1, true), (60, 2, true), (60, 1, false), (89, 2, false)];
    for (day, value, expected) in days {
        assert_eq!(trial.fires(day * DAY_MS, &country(value)), expected, "c{value} on day {day}");
    }
}

#[test]
fn nothing_fires_while_it_learns() {
    let mut trial = trial("30d", "7d", 0);
    assert!(!trial.fires(0, &country(1)) && !trial.fires(7 * DAY_MS - 1, &country(2)));
    assert!(trial.fires(7 * DAY_MS, &country(3)) && !trial.fires(7 * DAY_MS, &country(2)));
    assert!(!trial.fires(37 * DAY_MS, &country(4)), "after as long a silence it learns anew");
    assert!(trial.fires(44 * DAY_MS, &country(5)));
}

#[test]
fn an_event_that_lacks_a_value_takes_no_part() {
    let mut trial = Trial::new("first_seen: {of: [country, asn], memory: 30d, learn: 7d}", 0);
    assert!(!trial.fires(0, r#""country":"c1""#));
    assert!(!trial.fires(DAY_MS, r#""country":"c1","asn":5"#), "the first that takes part");
    assert!(!trial.fires(7 * DAY_MS, r#""country":"c2","asn":5"#), "learns from there");
    assert!(trial.fires(8 * DAY_MS, r#""country":"c1","asn":6"#));
    assert!(!trial.fires(8 * DAY_MS, r#""country":"c2","asn":5"#));
}

#[test]
fn with_more_live_values_than_are_kept_nothing_is_new_until_memory_has_passed() {
    let mut trial = trial("30d", "0s", 0);
    for value in 0..64 {
        assert!(trial.fires(value, &country(value)));
    }
    let seen = trial.see(DAY_MS, &country(64));
    assert_eq!((seen.firing, seen.room), (None, Room::Dropped));
    assert!(!trial.fires(2 * DAY_MS, &country(0)), "it was forgotten, and is not taken for new");
    for value in 3..50 {
        trial.see(20 * DAY_MS, &country(value));
    }
    assert!(!trial.fires(32 * DAY_MS - 1, &country(70)));
    assert!(trial.fires(32 * DAY_MS, &country(71)));
}

#[test]
fn a_straggler_never_refreshes_backwards_and_fires_if_it_is_the_first_to_arrive() {
    let mut trial = trial("30d", "0s", DAY_MS);
    assert!(trial.fires(10 * DAY_MS, &country(1)));
    assert!(!trial.fires(9 * DAY_MS + 1, &country(1)));
    assert!(trial.fires(9 * DAY_MS + 1, &country(2)));
    assert!(!trial.fires(40 * DAY_MS - 1, &country(1)), "last seen on day 10, not on day 9");
}

/// The oracle: every event so far, by time. Answers which are the first of their value within `memory`, past `learn`.
fn firsts(memory_ms: i64, learn_ms: i64, events: &[(i64, i64)]) -> Vec<bool> {
    let (mut since_ms, mut newest_ms) = (i64::MAX, i64::MIN);
    let first = |(index, (at_ms, value)): (usize, &(i64, i64))| {
        if newest_ms == i64::MIN || newest_ms <= at_ms - memory_ms {
            since_ms = *at_ms;
        }
        newest_ms = *at_ms;
        let is_known = events[..index].iter().any(|(time, other)| other == value && *time > at_ms - memory_ms);
        !is_known && *at_ms >= since_ms + learn_ms
    };
    events.iter().enumerate().map(first).collect()
}

#[test]
fn in_order_it_is_the_whole_history() {
    let mut fired = 0;
    for seed in 0..400 {
        let mut random = Random(seed);
        let (learn_s, values) = (random.below(20), 1 + random.below(60));
        let events: Vec<(i64, i64)> = random.times(150, 400).into_iter().map(|at| (at, random.below(values))).collect();
        let expected = firsts(20_000, learn_s * 1_000, &events);
        for lateness_ms in [0, 5_000] {
            let mut trial = trial("20s", &format!("{learn_s}s"), lateness_ms);
            let fires: Vec<bool> = events.iter().map(|(at, value)| trial.fires(*at, &country(*value))).collect();
            assert_eq!(fires, expected, "seed {seed}");
        }
        fired += expected.iter().filter(|first| **first).count();
    }
    assert!(fired > 1_000, "{fired} firings prove little");
}

#[test]
fn out_of_order_it_fires_only_on_what_is_first_so_far_and_misses_one_stream_in_a_thousand_at_most() {
    let (mut firing, mut missed) = (0, 0);
    for seed in 0..2_000 {
        let mut random = Random(seed ^ 0x77);
        let lateness_ms = 5_000;
        let mut trial = trial("20s", "10s", lateness_ms);
        let values = 3 + random.below(100);
        let times = random.times(80, 400);
        let events: Vec<(i64, i64)> = times.iter().map(|at| (*at, random.below(values))).collect();
        let (mut arrived, mut fires, mut expected): (Vec<(i64, i64)>, bool, bool) = (Vec::new(), false, false);
        for at in random.arrivals(&times, lateness_ms) {
            let place = arrived.partition_point(|(time, _)| *time <= events[at].0);
            arrived.insert(place, events[at]);
            let firsts = firsts(20_000, 10_000, &arrived);
            let fired = trial.fires(events[at].0, &country(events[at].1));
            assert!(!fired || firsts[place], "seed {seed}: it is not the first by counting by hand");
            fires |= fired;
            expected |= firsts[place];
        }
        firing += usize::from(expected);
        missed += usize::from(expected && !fires);
    }
    println!("first_seen: {missed} of {firing} firing streams missed");
    assert!(firing > 1_000 && missed * 1_000 <= firing);
}

#[test]
fn its_memory_takes_no_more_than_it_says() {
    let mut trial = trial("366d", "1d", DAY_MS);
    for value in 0..70 {
        trial.see(value * 5 * DAY_MS, &country(value));
        assert!(trial.bytes() <= trial.detector().most_bytes(), "{} bytes", trial.bytes());
    }
    assert!(trial.bytes() > trial.detector().most_bytes() * 3 / 4, "the bound says little");
}

#[test]
fn what_is_wrong_with_first_seen_is_said() {
    for (first_seen, said) in [
        ("{of: country, memory: 30d, learn: 30d}", "no problem"),
        ("{of: [status_code >= 400, data.a, asn, headers.host], memory: 366d, learn: 0s}", "no problem"),
        (
            "{of: [], memory: 1d, learn: 1d}",
            "R005 `of` has 0 values, it takes 1 to 4 | fields or expressions, such as `[ip_address, country]`\n",
        ),
        ("{of: [asn, asn, asn, asn, asn], memory: 1d, learn: 1d}", "R005 `of` has 5 values, it takes 1 to 4"),
        ("{of: [contry], memory: 1d, learn: 1d}", "did you mean `country`?"),
        ("{of: country, memory: 367d, learn: 1d}", "R005 `memory` is 367d, at most 366d are allowed\n"),
        ("{of: country, memory: 1d, learn: 25h}", "R016 `learn` is 25h, longer than `memory`, which is 1d | "),
        ("{of: country, memory: 0s, learn: 0s}", "R004 `memory` is `0s`, which is not a duration"),
        ("{of: country, memory: 1d}", "R003 `learn` is missing in `first_seen`\n"),
        ("{of: country, memory: 1d, learn: 1d, peers: true}", "R007 `peers` in `first_seen` is not available yet"),
    ] {
        let found = problems(&format!("first_seen: {first_seen}"));
        assert!(found.contains(said), "{first_seen}: {found}");
    }
}
