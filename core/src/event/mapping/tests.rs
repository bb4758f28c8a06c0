use super::*;
use serde_json::json;

/// `place: message | help` of every problem.
fn refused(written: Json) -> Vec<String> {
    let problems = Mapping::compile(&written).expect_err("this mapping is wrong");
    problems.iter().map(|p| format!("{}: {} | {}", p.at.join("/"), p.message, p.help.as_deref().unwrap_or(""))).collect()
}

#[test]
fn every_shipped_set_compiles_and_the_list_is_in_order() {
    for set in SETS {
        let mapping = Mapping::shipped(set).expect(set);
        assert_eq!((mapping.summary(), mapping.tree().is_none()), (set, set == "tripline"));
    }
    assert!(SETS.is_sorted());
    assert!(Mapping::shipped("osi").is_none());
}

#[test]
fn a_summary_says_what_a_mapping_is_made_of() {
    let summary = |written: Json| Mapping::compile(&written).expect("valid").summary().to_owned();
    assert_eq!(summary(json!({"set": "ecs"})), "ecs");
    assert_eq!(summary(json!({"set": "ecs", "fields": {"user_id": "labels.account"}})), "ecs with 1 field of its own");
    assert_eq!(summary(json!({"fields": {"event_time": "t", "event_type": {"const": "login"}}})), "2 fields of its own");
    assert!(Mapping::compile(&json!({"set": "tripline", "fields": {"role": "r"}})).expect("valid").tree().is_some());
}

#[test]
fn every_problem_of_a_mapping_is_told_with_its_place_and_the_way_out() {
    let written = json!({
        "set": "exs",
        "field": {},
        "fields": {
            "user_idd": "a",
            "user_id": {"pth": "a", "unit": "s"},
            "event_time": {"path": "t", "unit": "sec"},
            "response_time_ms": {"path": "a..b", "since": "$.b"},
            "status_code": {"const": "x"},
            "path": ["a", {"const": "/"}, "b"],
            "route": 7,
            "method": {"path": "m", "values": {"G": 1}},
            "headers.a b": "x",
            "data": {"const": {}},
        },
    });
    assert_eq!(
        refused(written),
        [
            "field: unknown key `field` of a mapping | did you mean `fields`?",
            "fields/data/const: `data` cannot be {} | see docs/event.md for what it takes",
            "fields/event_time/unit: `sec` is no unit | units are `s`, `ms`, `us`, `ns`",
            "fields/headers.a b: events have no field `headers.a b` | fields are those of docs/event.md, `headers.NAME` and `data.NAME`",
            "fields/method/values/G: `G` does not become a text | write values = { success = \"ok\" }",
            "fields/path: nothing after a constant is ever read | put the constant last",
            "fields/response_time_ms/path: `a..b` has an empty name | a path is names with dots between them (\"http.request.method\"); a list stands for its first item",
            "fields/response_time_ms/since: `$.b` is not a path of names | a path is names with dots between them (\"http.request.method\"); a list stands for its first item",
            "fields/route: `7` is not a source of `route` | write a path (\"user.id\"), { path = \"took\", unit = \"s\" }, { const = \"http_request\" }, or a list of them",
            "fields/status_code/const: `status_code` cannot be \"x\" | see docs/event.md for what it takes",
            "fields/user_id/pth: unknown key `pth` of a source | did you mean `path`?",
            "fields/user_id/unit: `unit` is a text, and only for `event_time` and `response_time_ms` | leave it out",
            "fields/user_id: neither `path` nor `const` | say where the value stands: { path = \"took\" }",
            "fields/user_idd: events have no field `user_idd` | did you mean `user_id`?",
            "set: there is no mapping `exs` | did you mean `ecs`?",
        ]
    );
}

#[test]
fn what_cannot_be_a_mapping_is_refused() {
    let check = |written: Json, expected: &str| {
        let problems = refused(written);
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{expected}: {problems:?}");
    };
    check(json!(7), ": a mapping is the name of a set, or a table");
    check(json!("nginx"), ": there is no mapping `nginx` | shipped sets are");
    check(json!({"fields": {"event_type": {"const": "t"}}}), ": nothing says where `event_time` comes from");
    check(json!({"set": "ecs", "fields": {"event_time": []}}), ": nothing says where `event_time` comes from");
    check(json!({"set": "ecs", "fields": 7}), "fields: `fields` is not a table");
    check(json!({"set": 7}), "set: `set` is not a text");
    check(json!({"set": "ecs", "fields": {"user_id": vec!["a"; 17]}}), "fields/user_id: 17 sources for one field");
    check(json!({"set": "ecs", "fields": {"user_id": "a".repeat(257)}}), "fields/user_id: `aaaa");
    check(json!({"set": "ecs", "fields": {"user_id": (["a"; 17].join("."))}}), "fields/user_id: `a.a.a");
    check(json!({"set": "ecs", "fields": {"user_id": {"const": "a\u{0}"}}}), "fields/user_id/const: ");
    check(json!({"set": "ecs", "fields": {"user_id": {"const": null}}}), "fields/user_id/const: ");
    check(json!({"set": "ecs", "fields": {"headers.X": "a", "headers.x": "b"}}), "fields/headers.x: `headers.x` is mapped twice");
    check(json!({"set": "ecs", "fields": {"data.a.b": "a", "data.a": "b"}}), "fields/data.a.b: it lies inside `data.a`");
    check(json!({"set": "ecs", "fields": {"headers": ["a", "b"]}}), "fields/headers: all headers come from one place");
    check(json!({"set": "ecs", "fields": {"event_time": {"path": "a", "since": "b"}}}), "fields/event_time/since: ");
    let many: serde_json::Map<String, Json> = (0..1024).map(|n| (format!("data.k{n}"), json!(format!("p{n}")))).collect();
    check(json!({"set": "ecs", "fields": many}), ": it reads ");
}
