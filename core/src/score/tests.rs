//! The eight cases of the manual, and what holds of every score.

use super::reasons::Reasons;
use super::tally::{self, Whose};
use super::{Axis, Milli};
use crate::detectors::testing::START_MS;
use crate::firing::{Figure, Firing};
use crate::rule::RuleSet;
use crate::rule::load::{SourceFile, load};
use crate::state::{Held, Ledger};
use proptest::prelude::*;
use serde_json::Map;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// A rule that gives points: its name, `severity`, `points`, `family` and whatever else.
fn rule(name: &str, signal: &str) -> String {
    format!(
        "schema: 1\nid: t.{name}\nversion: 1\ntitle: {name}\nmode: enforce\non: {name}\ndetect: {{match: {{}}}}\nsignal: {{type: {name}, {signal}}}\n---\n"
    )
}

fn pack(rules: &[String]) -> RuleSet {
    let files = [SourceFile { name: "r.yaml".into(), text: rules.concat() }];
    load(&files, &Map::new()).unwrap_or_else(|found| panic!("{}", found.iter().map(ToString::to_string).collect::<String>()))
}

/// A firing of a rule, with the points that the rule gives.
fn held(reasons: &Reasons, rule: usize, at_ms: i64) -> Held {
    let index = reasons.of_firing(rule, None);
    let firing = Firing { count: 1, within_ms: 0, figure: Figure::One };
    Held { reason: reasons.row(index).key, points: reasons.row(index).points, at_ms, firing }
}

/// Risk score, and the sum before the cut, of firings (rule, minutes before now).
fn score(rules: &[String], firings: &[(usize, i64)]) -> (u8, f64) {
    let set = pack(rules);
    let reasons = Reasons::of(&set);
    let mut ledger = Ledger::default();
    for (rule, ago) in firings {
        hold(&reasons, &mut ledger, held(&reasons, *rule, START_MS - ago * MINUTE), START_MS);
    }
    let scores = tally::at(&reasons, &ledger, START_MS, Whose::All);
    (scores.risk(), scores.of(Axis::Intrusion).sum as f64 / 1_000.0)
}

/// The table of `docs/scoring.md`, "Compared": the last column.
#[test]
fn the_eight_cases_of_the_manual() {
    let probing = rule("probing", "severity: high, points: 60, family: recon");
    let burst = rule("burst", "severity: medium, points: 20, family: authz");
    let foreign = rule("foreign", "severity: high, points: 50, family: authz");
    let tampering = rule("tampering", "severity: critical, points: 90, family: money");
    let weak = |family: &str| rule(&format!("weak-{family}"), &format!("severity: low, points: 10, family: {family}"));
    let check = |case: &str, (risk, sum): (u8, f64), shown: u8, exact: f64| {
        assert!(risk == shown && (sum - exact).abs() < 0.051, "{case}: {risk} ({sum}), expected {shown} ({exact})");
    };
    check("A", score(std::slice::from_ref(&probing), &[(0, 0)]), 60, 60.0);
    check(
        "B",
        score(
            std::slice::from_ref(&probing),
            &[(0, 11), (0, 10), (0, 9), (0, 8), (0, 7), (0, 6), (0, 5), (0, 4), (0, 3), (0, 2), (0, 1), (0, 0)],
        ),
        60,
        60.0,
    );
    check("C", score(&[burst.clone(), foreign.clone()], &[(0, 4), (1, 0)]), 60, 59.5);
    let three = [burst, foreign, probing];
    check("D", score(&three, &[(0, 4), (1, 0), (2, 3)]), 100, 119.2);
    let five: Vec<String> = ["a", "b", "c", "d", "e"].iter().map(|family| weak(family)).collect();
    let all: Vec<(usize, i64)> = (0..5).map(|rule| (rule, 0)).collect();
    check("E", score(&five, &all), 50, 50.0);
    let one: Vec<String> = (0..5).map(|n| rule(&format!("weak-{n}"), "severity: low, points: 10, family: a")).collect();
    check("F", score(&one, &all), 18, 17.5);
    check("G", score(&[tampering], &[(0, 0)]), 90, 90.0);
    check("H", score(&three, &[(0, 364), (1, 360), (2, 363)]), 55, 54.8);
}

/// Rules of all axes, severities and three families.
fn many() -> RuleSet {
    let axes = ["intrusion", "policy", "abuse", "integrity"];
    let severities = [("low", 20), ("medium", 45), ("high", 75), ("critical", 95)];
    let rules: Vec<String> = (0..24)
        .map(|n| {
            let (severity, points) = severities[n % 4];
            let (axis, family) = (axes[(n / 4) % 2 * (n % 3)], n % 5);
            rule(&format!("r{n}"), &format!("severity: {severity}, points: {points}, axis: {axis}, family: f{family}"))
        })
        .collect();
    pack(&rules)
}

fn firings() -> impl Strategy<Value = Vec<(usize, i64)>> {
    proptest::collection::vec((0usize..24, 0i64..3 * 24 * HOUR), 0..40)
}

/// Holds as the engine does: of two the heavier now stays.
fn hold(reasons: &Reasons, ledger: &mut Ledger, new: Held, now_ms: i64) {
    let (_, reason) = reasons.get(new.reason).unwrap();
    ledger.hold(new, |held| tally::left(held, reason, now_ms));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn lines_add_up_and_order_does_not_matter(mut firings in firings(), seed in any::<u64>()) {
        let set = many();
        let reasons = Reasons::of(&set);
        let now_ms = START_MS + 3 * 24 * HOUR;
        let of = |firings: &[(usize, i64)]| {
            let mut ledger = Ledger::default();
            firings.iter().for_each(|(rule, at)| hold(&reasons, &mut ledger, held(&reasons, *rule, START_MS + at), now_ms));
            ledger
        };
        let ledger = of(&firings);
        let lines = tally::lines(&reasons, &ledger, now_ms, Whose::All);
        let scores = tally::scores(&reasons, &lines);
        for axis in Axis::ALL {
            let sum: u64 = lines.iter().filter(|l| reasons.row(l.reason).axis == axis).map(|l| u64::from(l.adds.thousandths())).sum();
            let cut = sum.saturating_sub(100_000);
            prop_assert_eq!(u64::from(scores.of(axis).score.thousandths()), sum - cut);
        }
        let n = firings.len();
        (1..n).for_each(|at| firings.swap(at, (seed >> (at % 48)) as usize % (at + 1)));
        prop_assert_eq!(of(&firings), ledger);
    }

    #[test]
    fn a_new_firing_never_lowers_a_score_and_time_alone_never_raises_it(firings in firings(), rule in 0usize..24, later in 0i64..48 * HOUR) {
        let set = many();
        let reasons = Reasons::of(&set);
        let now_ms = START_MS + 3 * 24 * HOUR;
        let mut ledger = Ledger::default();
        firings.iter().for_each(|(rule, at)| hold(&reasons, &mut ledger, held(&reasons, *rule, START_MS + at), now_ms));
        let before = tally::at(&reasons, &ledger, now_ms, Whose::All);
        let after_a_while = tally::at(&reasons, &ledger, now_ms + later, Whose::All);
        hold(&reasons, &mut ledger, held(&reasons, rule, now_ms), now_ms);
        let more = tally::at(&reasons, &ledger, now_ms, Whose::All);
        for axis in Axis::ALL {
            prop_assert!(more.of(axis).score >= before.of(axis).score);
            prop_assert!(after_a_while.of(axis).score <= before.of(axis).score);
            prop_assert!(after_a_while.of(axis).families <= before.of(axis).families);
        }
    }

    #[test]
    fn one_rule_alone_never_passes_its_band(rule in 0usize..24, times in 1usize..50, factor in 0u32..5_000) {
        let set = many();
        let reasons = Reasons::of(&set);
        let reason = reasons.row(reasons.of_firing(rule, None));
        let mut ledger = Ledger::default();
        for at in 0..times {
            let firing = held(&reasons, rule, START_MS + at as i64);
            let points = firing.points.times(factor).min(reason.cap);
            hold(&reasons, &mut ledger, Held { points, ..firing }, START_MS + at as i64);
        }
        let scores = tally::at(&reasons, &ledger, START_MS + times as i64, Whose::All);
        prop_assert!(scores.risk() <= super::reasons::band_top(reason.profile.severity));
    }

    /// Nothing can be added up, multiplied or waited for beyond its type: whatever the times, scores end at 100.
    #[test]
    fn no_time_and_no_factor_overflows(at in proptest::collection::vec((0usize..24, any::<i64>()), 0..30), now_ms in any::<i64>(), factor in any::<u32>(), points in any::<u8>()) {
        let set = many();
        let reasons = Reasons::of(&set);
        let mut ledger = Ledger::default();
        for (rule, at_ms) in at {
            let firing = held(&reasons, rule, at_ms);
            let (_, reason) = reasons.get(firing.reason).unwrap();
            ledger.hold(Held { points: firing.points.times(factor), ..firing }, |held| tally::left(held, reason, now_ms));
        }
        let scores = tally::at(&reasons, &ledger, now_ms, Whose::All);
        prop_assert!(scores.risk() <= 100 && Axis::ALL.iter().all(|axis| scores.of(*axis).score <= Milli::MOST));
        prop_assert!(tally::is_gone(&reasons, &ledger, now_ms) >= now_ms);
        prop_assert!(tally::falls_below(&reasons, &ledger, now_ms, points) >= now_ms);
    }

    /// The moments that are found by bisection are the first ones.
    #[test]
    fn ends_are_exact(firings in firings(), points in 1u8..=100) {
        let set = many();
        let reasons = Reasons::of(&set);
        let now_ms = START_MS + 3 * 24 * HOUR;
        let mut ledger = Ledger::default();
        firings.iter().for_each(|(rule, at)| hold(&reasons, &mut ledger, held(&reasons, *rule, START_MS + at), now_ms));
        let risk = |at_ms| tally::at(&reasons, &ledger, at_ms, Whose::All).risk();
        let end = tally::falls_below(&reasons, &ledger, now_ms, points);
        prop_assert!(end > now_ms && risk(end) < points && (end == now_ms + 1 || risk(end - 1) >= points));
        let gone = tally::is_gone(&reasons, &ledger, now_ms);
        let is_empty = |at_ms| tally::lines(&reasons, &ledger, at_ms, Whose::All).is_empty();
        prop_assert!(is_empty(gone) && (gone == now_ms + 1 || !is_empty(gone - 1)));
    }
}

#[test]
fn what_a_signal_does_not_say_comes_from_its_profile_and_then_from_its_severity() {
    let profiles = "schema: 1\nkind: profiles\nprofiles:\n  told: {risk_score: 90, severity: high, category: business, axis: integrity, family: money, half_life: 2h}\n  plain: {risk_score: 20, severity: medium, category: permission}\n---\n";
    let told = rule("told", "certain: true");
    let own = "severity: low, points: 40, axis: abuse, family: own, half_life: 3h, confidence: 0.5, discounts: true";
    let set = pack(&[profiles.to_owned(), told, rule("plain", "confidence: 0.5"), rule("own", own)]);
    let reasons = Reasons::of(&set);
    let row = |rule: usize| {
        let reason = reasons.row(reasons.of_firing(rule, None));
        let family = reasons.family(reason.family).to_owned();
        (reason.points.thousandths(), reason.cap.thousandths(), reason.axis, family, reason.half_life_ms, reason.certain)
    };
    // A profile's score is given as such: the band of its severity does not cut it.
    assert_eq!(row(0), (90_000, 90_000, Axis::Integrity, "money".to_owned(), 2 * HOUR, true));
    assert_eq!(row(1), (20_000, 50_000, Axis::Intrusion, "permission".to_owned(), HOUR, false));
    assert_eq!(row(2), (20_000, 25_000, Axis::Abuse, "own".to_owned(), 3 * HOUR, false));
}

#[test]
fn a_rule_that_passes_on_has_a_reason_for_each_type_with_a_profile_and_one_for_the_rest() {
    let profiles = "schema: 1\nkind: profiles\nprofiles:\n  a: {risk_score: 90, severity: critical, category: business}\n  b: {risk_score: 20, severity: low, category: request}\n---\n";
    let reported =
        "schema: 1\nid: t.reported\nversion: 1\ntitle: t\nmode: enforce\non: any\ndetect: {match: {}}\nsignal: {type_from: anomaly_type}\n";
    let set = pack(&[profiles.to_owned(), reported.to_owned()]);
    let reasons = Reasons::of(&set);
    let points = |ty: &str| reasons.row(reasons.of_firing(0, Some(ty))).points;
    assert_eq!((points("a"), points("b"), points("c")), (Milli::of_points(90), Milli::of_points(20), Milli::of_points(30)));
    let keys: std::collections::BTreeSet<u64> = ["a", "b", "c"].iter().map(|ty| reasons.row(reasons.of_firing(0, Some(ty))).key).collect();
    assert_eq!((keys.len(), reasons.rows().len(), reasons.of_firing(0, Some("c"))), (3, 3, reasons.of_firing(0, Some("d"))));
}
