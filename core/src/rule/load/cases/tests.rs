//! Every problem of `tests`, at its place.

use super::*;
use crate::event::FIELDS;
use crate::policy::Action;
use crate::rule::load::{SourceFile, load};
use crate::rule::{RuleSet, Severity};
use crate::score::Axis;

const RULE: &str =
    "schema: 1\nid: http.any\nversion: 1\ntitle: Any\non: http_request\nby: user\ndetect: {match: {}}\nsignal: {type: any}\ntests:\n";

fn read(tests: &str) -> Result<RuleSet, String> {
    let text = format!("{RULE}{tests}---\nschema: 1\nkind: flags\nflags: [{{name: ALERTING}}]\n");
    load(&[SourceFile { name: "r.yaml".into(), text }], &Map::new()).map_err(|problems| {
        let line = |d: &crate::diagnostic::Diagnostic| {
            let help = d.help.as_ref().map(|h| format!(" | {h}")).unwrap_or_default();
            format!("{} {}:{} {}{help}\n", d.code, d.line, d.column, d.message)
        };
        problems.iter().map(line).collect()
    })
}

fn case(text: &str) -> Case {
    let set = read(&format!("  - {text}\n")).unwrap_or_else(|found| panic!("{found}"));
    set.rules[0].tests[0].clone()
}

#[test]
fn entries_become_events_in_the_order_of_their_arrival() {
    let case = case(
        "{name: n, start: '2026-05-01T00:00:00Z', flags: {ALERTING: true}, expect: nothing, events: [\n\
        \x20     {times: 2, every: 30s, path: '/x/{n}', headers: {x-n: '{n}'}, data: {n: [1, 'v{n}', 1.5, true, null]}},\n\
        \x20     {status_code: 403, event_id: mine}, {at: 10s, late_by: 25s, event_type: other}, {at: 30s, user_id: 7}]}",
    );
    let got: Vec<(i64, i64, String)> =
        case.arrivals().into_iter().map(|a| (a.at_ms - case.start_ms, a.arrives_ms - case.start_ms, a.json)).collect();
    let time = |ms: i64| case.start_ms + ms;
    let first = |n, id, ms| {
        format!(
            r#"{{"event_id":"{id}","event_time":{},"data":{{"n":[1,"v{n}",1.5,true,null]}},"event_type":"http_request","headers":{{"x-n":"{n}"}},"path":"/x/{n}"}}"#,
            time(ms)
        )
    };
    let expected = [
        (0, 0, first(1, "e1", 0)),
        (30_000, 30_000, first(2, "e2", 30_000)),
        (30_000, 30_000, format!(r#"{{"event_id":"e5","event_time":{},"event_type":"http_request","user_id":7}}"#, time(30_000))),
        (31_000, 31_000, format!(r#"{{"event_time":{},"event_id":"mine","event_type":"http_request","status_code":403}}"#, time(31_000))),
        (10_000, 35_000, format!(r#"{{"event_id":"e4","event_time":{},"event_type":"other"}}"#, time(10_000))),
    ];
    let same = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for ((at, arrives, json), (at_expected, arrives_expected, expected)) in got.iter().zip(&expected) {
        assert_eq!((at, arrives, same(json)), (at_expected, arrives_expected, same(expected)));
    }
    assert_eq!((got.len(), case.start_ms, case.flags["ALERTING"]), (5, 1_777_593_600_000, true));
}

#[test]
fn an_expectation_is_read_with_its_defaults() {
    let events = "events: [{user_id: u}]";
    let read = case(&format!(
        "{{name: n, {events}, expect: [{{by: 0s}}, {{at: 0s, signals: 2, entity: 'user:u', type: t, actions: [alert, step_up], severity: high, score: {{intrusion: 60}}}}]}}"
    ));
    let plain =
        Expectation { when: When::By(0), signals: 1, entity: None, ty: None, actions: None, severity: None, score: BTreeMap::new() };
    let full = Expectation {
        when: When::At(0),
        signals: 2,
        entity: Some("user:u".into()),
        ty: Some("t".into()),
        actions: Some(vec![Action::Alert, Action::StepUp]),
        severity: Some(Severity::High),
        score: BTreeMap::from([(Axis::Intrusion, 60)]),
    };
    assert_eq!(read.expect, [plain, full]);
    assert_eq!((read.start_ms, read.until_ms), (DEFAULT_START_MS, None));
}

#[test]
fn every_problem_is_reported_at_its_place() {
    let events = "events: [{user_id: u}]";
    for (test, expected) in [
        ("name: n", "R003 10:5 `events` is missing in a test\nR003 10:5 `expect` is missing in a test\n"),
        ("{name: n, events: [], expect: nothing}", "R003 10:23 `events` is empty: a test in which nothing happens shows nothing\n"),
        (
            &format!("{{name: n, {events}, expect: []}}"),
            "R003 10:47 an empty `expect` says nothing | write `expect: nothing` for a test in which the rule stays quiet\n",
        ),
        (&format!("{{name: n, {events}, expect: none}}"), "R004 10:47 `expect` needs `nothing` or a list of expectations, this is text\n"),
        (&format!("{{name: n, {events}, expect: [{{signals: 1}}]}}"), "R003 10:48 an expectation says when: `by` or `at`"),
        (&format!("{{name: n, {events}, expect: [{{by: 0s, at: 0s}}]}}"), "R016 10:57 `by` and `at` exclude each other\n"),
        (
            &format!("{{name: n, {events}, expect: [{{by: 1s}}]}}"),
            "R016 10:48 a time after the last event, which happens at 0s | this rule fires on events only: nothing can come after the last\n",
        ),
        (&format!("{{name: n, {events}, expect: [{{by: 0s, signals: 0}}]}}"), "R005 10:66 `signals` is 0, it must be 1 to 100000\n"),
        (&format!("{{name: n, {events}, expect: [{{by: 0s, score: {{mood: 5}}}}]}}"), "R006 10:65 `mood` is no axis"),
        (&format!("{{name: n, {events}, expect: [{{by: 0s, actions: [warn]}}]}}"), "R006 10:67 `actions` is `warn`"),
        (&format!("{{name: n, {events}, expect: [{{by: 0s, entity: u1}}]}}"), "R004 10:65 `entity` is `u1`, which names nobody"),
        (&format!("{{name: n, {events}, expect: [{{by: 0s, entity: 'ip:192.0.2.1'}}]}}"), "R016 10:65 the rule never speaks about `ip`"),
        (&format!("{{name: n, until: 5m, {events}, expect: nothing}}"), "R016 10:15 `until` is for rules that fire on the passing of time"),
        (&format!("{{name: n, start: monday, {events}, expect: nothing}}"), "R004 10:22 `start` is `monday`, which is not a time"),
        (
            &format!("{{name: n, flags: {{ALERTNG: true}}, {events}, expect: nothing}}"),
            "R011 10:23 unknown flag `ALERTNG` | did you mean `ALERTING`?\n",
        ),
        ("{name: n, events: [{user: u}], expect: nothing}", "R002 10:25 unknown key `user` in an event of a test"),
        ("{name: n, events: [{event_time: 5}], expect: nothing}", "R016 10:25 the events of a test have their times from"),
        ("{name: n, events: [{times: 0}], expect: nothing}", "R005 10:32 `times` is 0, it must be 1 to 100000\n"),
        ("{name: n, events: [{every: 5s}], expect: nothing}", "R016 10:25 `every` goes with `times`"),
        ("{name: n, events: [{status_code: high}], expect: nothing}", "R004 10:24 this is no event: wrong_type: status_code"),
        (
            "{name: n, events: [{event_id: e7}], expect: nothing}",
            "R009 10:24 the ids `e1`, `e2`, … are those of events that have none of their own",
        ),
        (
            "{name: n, events: [{times: 2, at: 366d, every: 366d, user_id: u}], start: '2098-06-01T00:00:00Z', expect: nothing}",
            "R004 10:24 this is no event",
        ),
        (
            "{name: n, events: [{times: 60000}, {times: 60000}], expect: nothing}",
            "R015 10:23 a test with 120000 events, at most 100000 are allowed\n",
        ),
    ] {
        let found = read(&format!("  - {test}\n")).err().unwrap_or_else(|| "no problem".into());
        assert!(found.starts_with(expected), "{test}\n{found}");
    }
    let twice = format!("  - {{name: n, {events}, expect: nothing}}\n").repeat(2);
    assert_eq!(read(&twice).unwrap_err(), "R010 11:5 two tests have the name `n`\n");
    let many: String = (0..=MAX_CASES).map(|n| format!("  - {{name: n{n}, {events}, expect: nothing}}\n")).collect();
    assert_eq!(read(&many).unwrap_err(), "R015 10:3 101 tests, at most 100 are allowed\n");
}

#[test]
fn a_test_can_say_every_field_of_an_event() {
    let mut fields: Vec<&str> = FIELDS.iter().map(|row| row.name).filter(|name| *name != "event_time").collect();
    fields.extend(["headers", "data"]);
    let mut known: Vec<&str> = ENTRY.known.iter().copied().filter(|key| !TIMING.contains(key)).collect();
    fields.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, fields);
}

#[test]
fn a_rule_that_fires_on_time_says_until_when() {
    let node = |text: &str| {
        let files = [SourceFile { name: "r.yaml".into(), text: text.into() }];
        let mut report = Report::new(&files);
        let documents = super::super::tree::documents(0, &mut report);
        let tested = Tested { on: None, by: By::Actor, fires_on_time: true, flags: &[] };
        let cases = read_cases(&documents[0], tested, &mut report);
        let found = report.finish().map(|found| found.into_iter().map(|d| format!("{} {}", d.code, d.message)).collect::<String>());
        (cases.map(|cases| cases[0].until_ms), found.unwrap_or_default())
    };
    let case = |more: &str| node(&format!("- {{name: n, events: [{{at: 1m, user_id: u}}], {more}}}\n"));
    assert_eq!(case("expect: [{at: 3m}]"), (Some(Some(180_000)), String::new()));
    assert_eq!(case("until: 10m, expect: [{at: 3m}]"), (Some(Some(600_000)), String::new()));
    assert_eq!(case("until: 10m, expect: nothing"), (Some(Some(600_000)), String::new()));
    assert!(case("expect: nothing").1.starts_with("R003 the rule fires on the passing of time: say by `until`"));
    for early in ["until: 2m, expect: [{at: 3m}]", "until: 30s, expect: nothing"] {
        assert!(case(early).1.starts_with("R016 `until` is"), "{early}");
    }
}
