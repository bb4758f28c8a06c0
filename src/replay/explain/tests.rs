use super::*;
use crate::rules::load_pack;
use std::path::Path;
use std::sync::Arc;
use tripline_core::engine::explain::Why;
use tripline_core::engine::{Emit, Outcome};
use tripline_core::flags::FlagSnapshot;

const RULES: &str = r#"
{schema: 1, id: t.many, version: 1, title: t, mode: enforce, on: request, by: user, detect: {count: {at_least: 3, within: 2m}},
 signal: {type: many, points: 40}}
---
{schema: 1, id: t.address, version: 1, title: t, mode: enforce, on: request, by: ip, detect: {count: {at_least: 9, within: 2m}},
 signal: {type: many}}
---
{schema: 1, id: t.unanswered, version: 1, title: t, mode: enforce, on: any, by: user,
 detect: {sequence: {within: 1m, steps: [{id: asked, when: event_type == "asked"}],
   then_absent: {when: event_type == "answered", within: 10s}}},
 signal: {type: unanswered}}
"#;

fn engine(rules: &str) -> Engine {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yaml"), rules).expect("written");
    let rules =
        load_pack(folder.path(), Path::new("")).unwrap_or_else(|p| panic!("{}", p.iter().map(ToString::to_string).collect::<String>()));
    Engine::new(Arc::new(rules), &FlagSnapshot::default(), Emit::Fired)
}

fn event(id: &str, ty: &str, second: u32) -> String {
    format!(
        "{{\"event_type\":\"{ty}\",\"event_time\":\"2026-01-01T00:00:{second:02}Z\",\"user_id\":\"u1\",\"ip_address\":\"10.0.0.1\",\"event_id\":\"{id}\"}}\n"
    )
}

fn explained(input: &str, event_id: &str, until_ms: Option<i64>) -> (Option<Found>, Counts) {
    let reading = Reading { max_line_bytes: 1_000, mapping: None, until_ms, progress: &mut |_| () };
    explain(input.as_bytes(), &engine(RULES), reading, event_id).expect("memory does not fail")
}

fn why(about: &About, rule: &str) -> Why {
    about.explanation.rules.iter().find(|e| e.rule == rule).unwrap_or_else(|| panic!("{rule}: {about:?}")).why.clone()
}

#[test]
fn each_entity_of_the_event_has_its_rules_and_its_decisions() {
    let input: String = ["a", "b", "c", "d"].iter().zip(0..).map(|(id, second)| event(id, "request", second)).collect();
    let found = explained(&input, "b", None).0.expect("it is there");
    assert_eq!((found.line, found.event_type.as_str(), found.event_time.as_str()), (2, "request", "2026-01-01T00:00:01.000Z"));
    let keys: Vec<&str> = found.about.iter().map(|about| about.key.as_str()).collect();
    assert_eq!(keys, ["user:u1", "ip:10.0.0.1"]);
    assert_eq!(why(&found.about[0], "t.many@1"), Why::NotMet { progress: Some("2 of 3 in 2m".into()) });
    assert_eq!(why(&found.about[1], "t.address@1"), Why::NotMet { progress: Some("2 of 9 in 2m".into()) });
    assert!(found.about.iter().all(|about| about.decisions.is_empty()));

    let found = explained(&input, "c", None).0.expect("it is there");
    assert_eq!(why(&found.about[0], "t.many@1"), Why::Fires);
    let decisions: Vec<_> = found.about[0].decisions.iter().map(|d| (d.event_id.as_str(), d.risk_score)).collect();
    assert_eq!(decisions, [("c", 40)]);
    let found = explained(&input, "d", None).0.expect("it is there");
    assert!(matches!(why(&found.about[0], "t.many@1"), Why::HeldBack { suppressed: 1, .. }));
}

#[test]
fn what_time_decides_later_belongs_to_the_event_that_opened_it() {
    let input = [event("one", "asked", 0), event("two", "request", 1), event("three", "request", 50)].concat();
    // The entity's own event at second 50 says that second 10 is over.
    let found = explained(&input, "one", None).0.expect("it is there");
    assert_eq!(why(&found.about[0], "t.unanswered@1"), Why::Waits(1_767_225_610_000));
    let due: Vec<_> = found.about[0].decisions.iter().map(|d| d.due_time.as_deref()).collect();
    assert_eq!(due, [Some("2026-01-01T00:00:10.000Z")]);

    let input = [event("one", "asked", 0), event("two", "request", 1)].concat();
    let decisions = |until_ms| explained(&input, "one", until_ms).0.expect("it is there").about[0].decisions.len();
    assert_eq!((decisions(None), decisions(Some(1_767_225_700_000))), (0, 1));
}

#[test]
fn an_id_that_stands_twice_is_explained_at_its_first_line_and_one_that_is_absent_is_not_found() {
    let input = [event("a", "request", 0), "nonsense\n".to_owned(), event("a", "request", 1), event("b", "request", 2)].concat();
    let found = explained(&input, "a", None).0.expect("it is there");
    assert_eq!((found.line, found.about[0].explanation.outcome), (1, Outcome::Processed));
    let (found, counts) = explained(&input, "z", None);
    assert_eq!((found, counts.lines, counts.rejections()), (None, 4, 1));
}

#[test]
fn an_event_without_an_id_is_found_by_its_place_and_one_about_nobody_too() {
    let nameless = "{\"event_type\":\"request\",\"event_time\":\"2026-01-01T00:00:00Z\"}\n".repeat(2);
    let found = explained(&nameless, "file/0/1", None).0.expect("it is there");
    assert_eq!((found.line, found.about), (2, vec![]));
}

/// Whatever is asked about, replay decides the same: the decisions of an event are those of an explanation.
#[test]
fn an_explanation_has_the_decisions_that_replay_has() {
    let ids = ["a", "b", "c", "d", "e", "f"];
    let lines = ids.iter().enumerate().map(|(at, id)| event(id, if at % 2 == 0 { "request" } else { "asked" }, 9 * at as u32));
    let input: String = lines.collect();
    let until_ms = Some(1_767_225_800_000);
    let mut out = Vec::new();
    let options = crate::replay::Options {
        max_line_bytes: 1_000,
        mapping: None,
        shadow: true,
        until_ms,
        alerts: None,
        standing: None,
        progress: &mut |_| (),
    };
    crate::replay::run(input.as_bytes(), &engine(RULES), options, &mut out).expect("memory does not fail");
    let decided: Vec<Decision> =
        out.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).expect("a decision")).collect();
    assert!(decided.len() > 2, "something to compare");
    for id in ids {
        let about = explained(&input, id, until_ms).0.expect("it is there").about;
        let found: Vec<Decision> = about.into_iter().flat_map(|about| about.decisions).collect();
        assert_eq!(found, decided.iter().filter(|d| d.event_id == id).cloned().collect::<Vec<_>>(), "{id}");
    }
}
