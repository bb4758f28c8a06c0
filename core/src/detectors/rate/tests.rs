use super::*;
use crate::detectors::trial::{NOW, Random, Trial, problems};

/// The oracle: a bucket that holds `burst` events and gets one back per interval, counted in microseconds. Answers which of
/// the events, in order of time, found it too empty.
fn beyond(burst: i64, interval_us: i64, times_ms: &[i64]) -> Vec<bool> {
    let full_us = burst * interval_us;
    let (mut credit_us, mut before_us) = (full_us, i64::MIN);
    let take = |at_ms: &i64| {
        let at_us = (NOW + at_ms) * 1_000;
        let passed_us = if before_us == i64::MIN { full_us } else { at_us - before_us };
        credit_us = full_us.min(credit_us + passed_us);
        before_us = at_us;
        let is_beyond = credit_us < interval_us;
        if !is_beyond {
            credit_us -= interval_us;
        }
        is_beyond
    };
    times_ms.iter().map(take).collect()
}

fn trial(burst: i64, refill: &str, lateness_ms: i64) -> Trial {
    Trial::new(&format!("rate: {{burst: {burst}, refill: {refill}}}"), lateness_ms)
}

#[test]
fn a_burst_passes_and_then_the_rate_holds() {
    let mut trial = trial(3, "1/1s", 30_000);
    let fires: Vec<bool> = [0, 0, 0, 0, 999, 1_000, 1_001, 2_000].iter().map(|at| trial.fires(*at, "")).collect();
    assert_eq!(fires, [false, false, false, true, true, false, true, false]);
}

#[test]
fn it_holds_until_the_bucket_has_run_empty() {
    for lateness_ms in [0, 30_000] {
        let mut trial = trial(2, "1/1s", lateness_ms);
        let seen: Vec<(bool, bool)> =
            [0, 0, 0, 1_000, 2_999, 6_000].iter().map(|at| trial.see(*at, "")).map(|seen| (seen.lapsed, seen.holds)).collect();
        assert_eq!(seen, [(true, false), (false, false), (false, true), (false, true), (false, true), (true, false)], "{lateness_ms}");
    }
}

#[test]
fn in_order_it_is_the_bucket() {
    let mut fired = 0;
    for seed in 0..400 {
        let mut random = Random(seed);
        let (burst, n, ms) = (1 + random.below(6), 1 + random.below(5), 1 + random.below(2_000));
        let times = random.times(60, 1 + ms / n);
        let expected = beyond(burst, ms * 1_000 / n, &times);
        for lateness_ms in [0, 3_000] {
            let mut trial = trial(burst, &format!("{n}/{ms}ms"), lateness_ms);
            let fires: Vec<bool> = times.iter().map(|at| trial.fires(*at, "")).collect();
            assert_eq!(fires, expected, "seed {seed}");
        }
        fired += expected.iter().filter(|beyond| **beyond).count();
    }
    assert!(fired > 1_000, "{fired} firings prove little");
}

/// Shows shuffled streams; answers how many fired by the oracle, and how many of those without a firing here. While all that
/// may still change is kept, each firing is the oracle's; beyond that there are never more of them.
fn shuffled(streams: u64, events: usize, gap: i64, all_is_kept: bool) -> (usize, usize) {
    let (mut firing, mut missed) = (0, 0);
    for seed in 0..streams {
        let mut random = Random(seed ^ 0xabcd);
        let (burst, ms, lateness_ms) = (2 + random.below(6), 1 + random.below(2 * gap), 5_000);
        let mut trial = trial(burst, &format!("1/{ms}ms"), lateness_ms);
        let times = random.times(events, gap);
        let (mut arrived, mut before, mut fired) = (Vec::new(), 0, 0);
        for at in random.arrivals(&times, lateness_ms) {
            arrived.push(times[at]);
            arrived.sort_unstable();
            let after = beyond(burst, ms * 1_000, &arrived).into_iter().filter(|beyond| *beyond).count();
            let fires = trial.fires(times[at], "");
            fired += usize::from(fires);
            assert!(fired <= after && (!all_is_kept || fires == (after > before)), "seed {seed}: nothing new by counting by hand");
            before = after;
        }
        firing += usize::from(before > 0);
        missed += usize::from(before > 0 && fired == 0);
    }
    println!("rate, {events} events every {gap} ms: {missed} of {firing} firing streams missed");
    (firing, missed)
}

#[test]
fn out_of_order_it_fires_where_the_bucket_would() {
    let (firing, missed) = shuffled(1_500, 40, 300, true);
    assert!(firing > 500 && missed == 0);
}

/// Three times as many as are kept, all within the lateness and in any order: the worst that can come.
#[test]
fn with_more_events_than_are_kept_there_are_fewer_firings_and_never_more() {
    let (firing, missed) = shuffled(200, 200, 20, false);
    assert!(firing > 100 && missed * 10 <= firing);
}

#[test]
fn a_straggler_takes_its_place_and_an_older_one_than_all_kept_is_not_counted() {
    let mut late = trial(2, "1/1s", 30_000);
    assert!(!late.fires(10_000, "") && !late.fires(10_500, ""));
    assert!(late.fires(9_900, ""), "it makes the one at 10.5 s too many");
    let mut full = trial(1_000, "1/1ms", 30_000);
    for at in 0..=64 {
        full.see(100 + at, "");
    }
    let before = full.memory.clone();
    full.see(50, "");
    assert_eq!(full.memory, before);
}

#[test]
fn its_memory_takes_no_more_than_it_says() {
    let day_ms = 86_400_000;
    let mut trial = trial(1_000_000, "1/30s", day_ms);
    for at in 0..70 {
        trial.see(at * day_ms / 64, "");
        assert!(trial.bytes() <= trial.detector().most_bytes(), "{} bytes", trial.bytes());
    }
    assert!(trial.bytes() > trial.detector().most_bytes() * 3 / 4, "the bound says little");
}

#[test]
fn a_memory_of_another_kind_starts_anew() {
    let mut trial = trial(1, "1/1s", 0);
    trial.memory = Memory::Nothing;
    assert!(!trial.fires(0, "") && trial.fires(1, ""));
}

#[test]
fn what_is_wrong_with_a_rate_is_said() {
    for (rate, said) in [
        ("{burst: 0, refill: 1/1s}", "R005 `burst` is 0, it must be 1 to 1000000\n"),
        (
            "{burst: 1, refill: 1 / 1s}",
            "R004 `refill` is `1 / 1s`, which is not a rate | events and the time for them, without spaces: `1/500ms`, `100/1m`\n",
        ),
        ("{burst: 1, refill: +1/1s}", "R004 `refill` is `+1/1s`, which is not a rate"),
        ("{burst: 1, refill: 5}", "R004 `refill` needs text"),
        ("{burst: 1, refill: 0/1s}", "R005 `refill` is 0/1s, it must be 1 to 1000000 events in at most 366d\n"),
        ("{burst: 1, refill: 1/367d}", "R005 `refill` is 1/367d, it must be"),
        ("{burst: 1, refill: 1000000/1s}", "no problem"),
        ("{burst: 1, refill: 1000000/999ms}", "R005 `refill` is 1000000/999ms, one event in a microsecond is the fastest\n"),
        ("{burst: 366, refill: 1/1d}", "no problem"),
        ("{burst: 367, refill: 1/1d}", "R005 a burst of 367 takes longer to refill than 366d | a smaller `burst` or a faster `refill`\n"),
        ("{burst: 1, refil: 1/1s}", "R002 unknown key `refil` in `rate` | did you mean `refill`?\n"),
    ] {
        let found = problems(&format!("rate: {rate}"));
        assert!(found.contains(said), "{rate}: {found}");
    }
}
