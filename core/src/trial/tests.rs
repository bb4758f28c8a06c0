//! What the runner promises: a broken rule cannot pass, and neither can a test that shows nothing.

use super::*;
use crate::detectors::{Detector, Figure, Firing, Look, Seen};
use crate::rule::load::{SourceFile, load};
use crate::state::{Memory, Room};
use serde_json::Map;
use std::sync::atomic::{AtomicU32, Ordering};

const RULE: &str = "schema: 1\nid: http.refused\nversion: 1\ntitle: Refused often\nmode: enforce\non: http_request\nwhen: status_code == 403\nby: user\n\
    detect: {count: {at_least: 3, within: 5m}}\nsignal: {type: refused}\n";
const POLICY: &str = "---\nschema: 1\nkind: policy\nid: p\nversion: 1\nactions: [{do: alert, at: 20}]\n";

fn pack(text: &str) -> RuleSet {
    let files = [SourceFile { name: "r.yaml".into(), text: text.into() }];
    load(&files, &Map::new()).unwrap_or_else(|found| panic!("{}", found.iter().map(ToString::to_string).collect::<String>()))
}

fn case(rule: &str, case: &str) -> Arc<RuleSet> {
    Arc::new(pack(&format!("{rule}tests:\n  - name: t\n{case}{POLICY}")))
}

/// What a test of this rule says, one line per failure; empty if it holds.
fn said(rule: &str, text: &str) -> String {
    let report = run_case(&case(rule, text), 0, 0);
    assert_eq!(report.is_ok(), report.failed.is_empty());
    report.failed.iter().map(|failed| format!("{}: {}\n", failed.way, failed.said)).collect()
}

const THREE: &str = "    events:\n      - {every: 30s, times: 3, status_code: 403, user_id: u1}\n";

fn three(expect: &str) -> String {
    format!("{THREE}    expect: {expect}\n")
}

#[test]
fn what_is_expected_holds_all_four_ways() {
    let report = run_case(&case(RULE, &three("[{by: 1m, entity: 'user:u1', type: refused, actions: [alert], severity: medium}]")), 0, 0);
    assert!(report.is_ok(), "{report:?}");
    assert_eq!(report.ran, [Way::Plain, Way::Reloaded, Way::Twice, Way::Shuffled]);
    assert_eq!((report.events, report.skipped.len()), (3, 0));
}

#[test]
fn a_signal_that_nobody_expects_fails_the_test() {
    let expected = "plain: not expected: a signal about user:u1 at 1m, refused (3 in 5m)\n";
    assert_eq!(said(RULE, &three("nothing")), expected);
    let twice = "    events:\n      - {every: 30s, times: 3, status_code: 403, user_id: u1}\n      - {at: 10m, every: 30s, times: 3, status_code: 403, user_id: u1}\n";
    let found = said(RULE, &format!("{twice}    expect: [{{at: 1m}}]\n"));
    assert_eq!(found, "plain: not expected: a signal about user:u1 at 11m, refused (3 in 5m)\n");
}

#[test]
fn a_signal_that_does_not_come_fails_the_test_and_says_how_far_it_got() {
    let two = "    events:\n      - {every: 30s, times: 2, status_code: 403, user_id: u1}\n      - {status_code: 403, user_id: u2}\n      - {status_code: 403, ip_address: 192.0.2.1}\n";
    let found = said(RULE, &format!("{two}    expect: [{{by: 30s, entity: 'user:u1'}}]\n"));
    assert_eq!(
        found,
        "plain: expected 1 signal about user:u1 by 30s, came 0; the rule counted 2 events of user:u1; 1 event concerned nobody whom the pack counts\n"
    );
    let found = said(RULE, "    events: [{user_id: u1, status_code: 200}]\n    expect: [{at: 0s, type: refused}]\n");
    assert_eq!(found, "plain: expected 1 signal of type refused at 0s, came 0; no event passed the rule's `on`, `when` and `by`\n");
}

#[test]
fn the_time_the_number_the_actions_and_the_severity_are_held_to() {
    for (expect, expected) in [
        ("[{by: 59s}]", "expected 1 signal by 59s, came 0"),
        ("[{at: 30s}]", "expected 1 signal at 30s, came 0"),
        ("[{by: 1m, signals: 2}]", "expected 2 signals by 1m, came 1"),
        ("[{by: 1m, entity: 'user:u2'}]", "expected 1 signal about user:u2"),
        ("[{by: 1m, type: other}]", "expected 1 signal of type other"),
        ("[{by: 1m, actions: [alert, block]}]", "expected actions [alert, block], came [alert]"),
        ("[{by: 1m, actions: []}]", "expected actions [], came [alert]"),
        ("[{by: 1m, severity: low}]", "expected severity low, came medium"),
    ] {
        let found = said(RULE, &three(expect));
        assert!(found.contains(expected), "{expect}: {found}");
    }
}

#[test]
fn an_expectation_that_names_more_takes_its_signals_first() {
    let both = "    events:\n      - {every: 30s, times: 3, status_code: 403, user_id: u1}\n      - {at: 5s, every: 30s, times: 3, status_code: 403, user_id: u2}\n\
        \x20   expect: [{by: 65s}, {by: 65s, entity: 'user:u1'}]\n";
    assert_eq!(said(RULE, both), "");
}

#[test]
fn what_is_held_back_is_told_by_whom() {
    let found = said(&RULE.replace("mode: enforce", "mode: signal"), &three("[{by: 1m, actions: [alert]}]"));
    assert!(found.contains("expected actions [alert], came [] (held back: alert by mode:signal)"), "{found}");
    assert_eq!(said(&RULE.replace("mode: enforce", "mode: shadow"), &three("[{by: 1m, actions: []}]")), "", "a shadow's signals count");
}

#[test]
fn a_rule_that_is_off_is_not_run_and_not_ok() {
    let report = run_case(&case(&RULE.replace("mode: enforce", "mode: off"), &three("nothing")), 0, 0);
    assert_eq!((report.is_ok(), report.not_run.as_deref()), (false, Some("the rule is off")));
}

#[test]
fn the_flags_of_rule_and_detection_are_on_unless_the_test_says_otherwise() {
    let flags = "---\nschema: 1\nkind: flags\nflags: [{name: MASTER}, {name: OWN}, {name: ALERTING}]\n";
    let policy = POLICY.replace("at: 20}]", "at: 20, flag: ALERTING}]\ndetection_flag: MASTER");
    for (given, expect) in [
        ("{}", "[{by: 1m, actions: []}]"),
        ("{ALERTING: true}", "[{by: 1m, actions: [alert]}]"),
        ("{OWN: false}", "nothing"),
        ("{MASTER: false}", "nothing"),
    ] {
        let text = format!("{RULE}flag: OWN\ntests:\n  - name: t\n{}    flags: {given}\n{flags}{policy}", three(expect));
        let report = run_case(&Arc::new(pack(&text)), 0, 0);
        assert!(report.is_ok(), "{given}: {report:?}");
    }
}

#[test]
fn the_rules_beside_the_one_under_test_run_and_do_not_count() {
    let other = RULE.replace("http.refused", "http.other").replace("at_least: 3", "at_least: 2");
    let text = format!("{RULE}tests:\n  - name: t\n{}---\n{other}{POLICY}", three("[{at: 1m}]"));
    assert!(run_case(&Arc::new(pack(&text)), 0, 0).is_ok());
}

#[test]
fn late_events_repeats_and_numbers_are_what_the_test_makes_them() {
    let late = "    events:\n      - {status_code: 403, user_id: u1, times: 2, every: 1m}\n      - {at: 10s, late_by: 90s, status_code: 403, user_id: u1}\n    expect: nothing\n";
    assert_eq!(said(RULE, late), "", "older than the newest by more than 30s");
    let straggler = late.replace("late_by: 90s", "late_by: 55s").replace("every: 1m", "every: 30s").replace("nothing", "[{at: 10s}]");
    assert_eq!(said(RULE, &straggler), "", "the straggler is the cause");
    let repeat = "    events: [{times: 9, event_id: same, status_code: 403, user_id: u1}]\n    expect: nothing\n";
    assert_eq!(said(RULE, repeat), "");
    let numbered =
        "    events: [{times: 3, event_id: 'own-{n}', path: '/x/{n}', status_code: 403, user_id: 'u{n}'}]\n    expect: nothing\n";
    assert_eq!(said(RULE, numbered), "");
}

#[test]
fn ways_that_mean_nothing_are_named_with_the_reason() {
    let skipped = |rule: &str, policy: &str, test: &str| {
        let text = format!("{rule}tests:\n  - name: t\n{test}{POLICY}{policy}");
        let report = run_case(&Arc::new(pack(&text)), 0, 0);
        assert!(report.is_ok(), "{report:?}");
        report.skipped.iter().map(|s| format!("{}: {}", s.way, s.why)).collect::<Vec<_>>().join("\n")
    };
    let test = three("[{by: 1m}]");
    assert_eq!(skipped(RULE, "", &test), "");
    assert!(skipped(RULE, "remember_ids: 0\n", &test).starts_with("delivered twice: the policy does not recognise repeats"));
    assert!(skipped(RULE, "allowed_lateness: off\n", &test).starts_with("arrival shuffled: the policy takes events in the order"));
    let fixed = RULE.replace("within: 5m", "within: 5m, window: fixed");
    assert!(skipped(&fixed, "", &test).starts_with("arrival shuffled: the rule's window is fixed"));
    let late = test.replace("times: 3", "times: 3, late_by: 1s");
    assert!(skipped(RULE, "", &late).starts_with("arrival shuffled: the test itself says"));
}

#[test]
fn a_state_that_does_not_survive_being_written_is_caught() {
    let set = case(RULE, &three("[{by: 1m}]"));
    let forgets = Between { reload: |_| Ok(ActorState::default()), ..Between::PRODUCTION };
    let report = run_between(&set, 0, 0, forgets);
    let [failed] = report.failed.as_slice() else { panic!("{report:?}") };
    assert_eq!(
        (failed.way, failed.said.as_str()),
        (
            Way::Reloaded,
            "1 signal plain, 0 signals this way; signal 1: a signal about user:u1 at 1m, refused (3 in 5m) plain, none this way"
        )
    );
    let damaged = Between { reload: |_| Err(StateError::Damaged), ..Between::PRODUCTION };
    let report = run_between(&set, 0, 0, damaged);
    assert_eq!(report.failed[0].said, "the state of user:u1 cannot be read again: actor state is damaged");
}

#[test]
fn an_event_that_counts_twice_is_caught() {
    let set = case(RULE, &three("[{by: 1m}]"));
    let renames =
        Between { redeliver: |json| json.replace("\"e", "\"again-e").replacen("again-event", "event", 20), ..Between::PRODUCTION };
    let report = run_between(&set, 0, 0, renames);
    let [failed] = report.failed.as_slice() else { panic!("{report:?}") };
    assert_eq!(failed.way, Way::Twice);
    assert!(failed.said.contains("at 1m, refused (3 in 5m) plain, a signal about user:u1 at 30s"), "{}", failed.said);
}

/// Remembers outside the entity's state.
#[derive(Debug)]
struct Elsewhere(AtomicU32);

/// Fires when an event is older than the one before.
#[derive(Debug)]
struct Backwards;

fn seen(fires: bool, at_ms: i64) -> Seen {
    let firing = Firing { count: 1, within_ms: 600_000, figure: Figure::Events };
    Seen { lapsed: true, firing: fires.then_some(firing), holds: false, end_ms: at_ms + 600_000, room: Room::Free }
}

macro_rules! detector {
    ($name:ident, |$self:ident, $look:ident, $memory:ident| $observe:expr) => {
        impl Detector for $name {
            fn name(&self) -> &'static str {
                "broken"
            }
            fn memory(&self) -> Option<Memory> {
                Some(Memory::Window { times_ms: Vec::new(), rings: Vec::new() })
            }
            fn observe(&$self, $look: &Look<'_>, $memory: &mut Memory) -> Seen {
                $observe
            }
            fn window_ms(&self) -> i64 {
                600_000
            }
            fn most_bytes(&self) -> usize {
                8
            }
        }
    };
}

detector!(Elsewhere, |self, look, _memory| seen(self.0.fetch_add(1, Ordering::Relaxed) == 2, look.at_ms));
detector!(Backwards, |self, look, memory| {
    let Memory::Window { times_ms, .. } = memory else { return seen(false, look.at_ms) };
    let fires = times_ms.last().is_some_and(|last| look.at_ms < *last);
    *times_ms = vec![look.at_ms];
    seen(fires, look.at_ms)
});

fn with(detector: impl Detector + 'static, text: &str) -> Arc<RuleSet> {
    let mut set = pack(&format!("{RULE}tests:\n  - name: t\n{text}{POLICY}"));
    set.rules[0].detector = Box::new(detector);
    Arc::new(set)
}

#[test]
fn a_rule_that_remembers_outside_its_state_is_caught() {
    let report = run_case(&with(Elsewhere(AtomicU32::new(0)), &three("[{by: 1m}]")), 0, 0);
    assert_eq!(report.failed.iter().map(|f| f.way).collect::<Vec<_>>(), [Way::Reloaded, Way::Twice, Way::Shuffled], "{report:?}");
}

#[test]
fn a_rule_that_depends_on_the_order_of_arrival_is_caught() {
    let close = three("nothing").replace("every: 30s", "every: 1s");
    let report = run_case(&with(Backwards, &close), 0, 0);
    let [failed] = report.failed.as_slice() else { panic!("{report:?}") };
    assert_eq!((failed.way, failed.said.as_str()), (Way::Shuffled, "a signal about user:u1, and none when the events arrive in order"));
    assert_eq!(run_case(&with(Backwards, &close), 0, 0), report, "the same order every time");
}

#[test]
fn an_event_that_is_none_fails_the_test() {
    let mut set = pack(&format!("{RULE}tests:\n  - name: t\n{}{POLICY}", three("nothing")));
    set.rules[0].tests[0].entries[0].members = "\"event_type\":7".to_owned();
    let report = run_case(&Arc::new(set), 0, 0);
    assert!(!report.is_ok() && report.failed[0].said.contains("is no event"), "{report:?}");
}

#[test]
fn a_report_without_a_run_is_not_ok() {
    let set = case(RULE, &three("nothing"));
    assert!(!CaseReport::new(&set.rules[0].tests[0], 3).is_ok());
}

#[test]
fn no_shuffle_makes_an_event_late() {
    let set = case(RULE, &three("nothing").replace("every: 30s, times: 3", "every: 7s, times: 40"));
    let plain = set.rules[0].tests[0].arrivals();
    for round in 0..SHUFFLES {
        let shuffled = shuffle::arrivals(&plain, "t", round, 30_000);
        assert_ne!(shuffled, plain);
        let mut newest_ms = i64::MIN;
        for arrival in &shuffled {
            newest_ms = newest_ms.max(arrival.at_ms);
            assert!(arrival.at_ms > newest_ms - 30_000);
        }
        let mut times: Vec<i64> = shuffled.iter().map(|a| a.at_ms).collect();
        times.sort_unstable();
        assert_eq!(times, plain.iter().map(|a| a.at_ms).collect::<Vec<_>>());
    }
}
