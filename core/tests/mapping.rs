//! The sets that ship: their pages are the code's, the worked examples on them are true, and records as their programs
//! write them become the events that one expects.
//!
//! `TRIPLINE_BLESS=1 cargo test -p tripline-core --test mapping` writes the tables in `docs/` anew.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tripline_core::event::Event;
use tripline_core::event::mapping::{Mapping, SETS, field_table, set_table};

/// Holds the part of a page between `<!-- NAME: generated … -->` and `<!-- NAME: end -->` equal to a table.
fn check_table(page: &str, name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = fs::read_to_string(&path).expect(page);
    let begin =
        text.find(&format!("<!-- {name}: generated")).and_then(|at| text[at..].find("-->\n").map(|end| at + end + 4)).expect("a mark");
    let end = text.find(&format!("<!-- {name}: end -->")).expect("an end");
    let wanted = format!("{}{table}{}", &text[..begin], &text[end..]);
    if std::env::var_os("TRIPLINE_BLESS").is_some() {
        fs::write(&path, &wanted).expect("docs/ can be written");
    } else {
        assert!(text == wanted, "docs/{page}: the table of {name} is out of date: run this test with TRIPLINE_BLESS=1");
    }
}

#[test]
fn the_tables_in_the_docs_are_the_codes() {
    check_table("event.md", "fields", &field_table());
    for set in sets() {
        check_table("mapping.md", set, &set_table(set));
    }
}

/// All sets but that of our own events.
fn sets() -> impl Iterator<Item = &'static str> {
    SETS.into_iter().filter(|set| *set != "tripline")
}

fn event(set: &str, record: &str) -> Result<Value, String> {
    let mapping = Mapping::shipped(set).expect(set);
    let event = Event::decode_mapped(Some(record.as_bytes()), &mapping).map_err(|r| r.to_string())?;
    let mut bytes = Vec::new();
    event.encode(&mut bytes);
    Ok(serde_json::from_slice(&bytes).expect("an event is JSON"))
}

#[test]
fn the_worked_examples_are_true() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mapping.md")).expect("docs/mapping.md");
    for set in sets() {
        let section = page.split(&format!("\n## `{set}`\n")).nth(1).and_then(|rest| rest.split("\n## ").next()).expect(set);
        let blocks: Vec<&str> = section.split("```json\n").skip(1).filter_map(|block| block.split("```").next()).collect();
        let [record, expected] = blocks[..] else { panic!("{set}: a record and its event") };
        let expected: Value = serde_json::from_str(expected).expect(set);
        assert_eq!(event(set, record), Ok(expected), "{set}");
    }
}

#[test]
fn an_otlp_span_is_a_request() {
    let record = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "GET /users/{id}", "kind": 2,
        "startTimeUnixNano": "1770108800000000000", "endTimeUnixNano": "1770108800123999999", "status": {"code": 2},
        "attributes": [
            {"key": "http.request.method", "value": {"stringValue": "_OTHER"}},
            {"key": "http.request.method_original", "value": {"stringValue": "PROPFIND"}},
            {"key": "url.full", "value": {"stringValue": "https://api.example.org/users/7?x=1"}},
            {"key": "http.response.status_code", "value": {"intValue": 404}},
            {"key": "enduser.id", "value": {"stringValue": "alice"}},
            {"key": "network.peer.address", "value": {"stringValue": "10.0.0.1"}},
            {"key": "http.request.header.x-forwarded-for", "value": {"arrayValue": {"values": [{"stringValue": "203.0.113.9, 10.0.0.1"}]}}},
            {"key": "http.request.header.x-request-id", "value": {"arrayValue": {"values": [{"stringValue": "r-1"}]}}},
        ],
        "events": [{"timeUnixNano": "1", "attributes": [{"key": "user.id", "value": {"stringValue": "not this one"}}]}],
    });
    let expected = json!({
        "event_time": "2026-02-03T08:53:20.123Z", "event_type": "http_request", "user_id": "alice", "ip_address": "10.0.0.1",
        "method": "PROPFIND", "path": "/users/7", "status_code": 404, "response_time_ms": 123, "request_id": "r-1",
        "headers": {"x-forwarded-for": "203.0.113.9, 10.0.0.1"},
    });
    assert_eq!(event("otel", &record.to_string()), Ok(expected));
}

#[test]
fn otel_attributes_may_be_an_object_with_the_names_of_before() {
    let record = json!({
        "timestamp": "2026-02-03T08:53:20.123456Z", "severity_text": "INFO", "body": "request", "trace_id": "0x5b8e",
        "attributes": {"http.method": "GET", "http.target": "/a?b=c", "http.status_code": 200, "http.client_ip": "203.0.113.9",
            "http.user_agent": "curl/8", "http.route": "/a", "session.id": "s-1", "http.response_content_length": 12},
    });
    let expected = json!({
        "event_time": "2026-02-03T08:53:20.123Z", "event_type": "http_request", "session_id": "s-1", "ip_address": "203.0.113.9",
        "method": "GET", "path": "/a", "route": "/a", "status_code": 200, "response_bytes": 12, "user_agent": "curl/8", "request_id": "0x5b8e",
    });
    assert_eq!(event("otel", &record.to_string()), Ok(expected));
}

#[test]
fn an_otel_event_keeps_its_name() {
    let record = json!({"timeUnixNano": "0", "observedTimeUnixNano": "1770108800123456789", "eventName": "user.login",
        "attributes": [{"key": "user.id", "value": {"stringValue": "u"}}], "body": {"kvlistValue": {"values": []}}});
    let expected = json!({"event_time": "2026-02-03T08:53:20.123Z", "event_type": "user.login", "user_id": "u"});
    assert_eq!(event("otel", &record.to_string()), Ok(expected));
}

#[test]
fn a_batch_in_one_record_is_refused_and_not_half_read() {
    let span = json!({"endTimeUnixNano": "1770108800123999999", "attributes": []});
    let record = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span, span]}]}]});
    assert_eq!(event("otel", &record.to_string()), Err("missing_field: event_time".into()));
}

#[test]
fn an_ecs_access_log_may_be_wholly_flat() {
    let record = json!({
        "@timestamp": "2026-02-03T08:53:20.123Z", "http.request.method": "GET", "url.path": "/a", "http.response.status_code": 200,
        "http.response.body.bytes": 17, "event.duration": 1_999_999, "client.ip": ["203.0.113.9"], "source.ip": "10.0.0.1", "user.id": "u",
        "event.outcome": "success", "http.request.id": "r", "organization.id": 7, "trace.id": "t", "http.request.referrer": "https://a/",
        "user.roles": ["admin", "user"], "event.category": ["web"],
    });
    let expected = json!({
        "event_time": "2026-02-03T08:53:20.123Z", "event_type": "http_request", "tenant_id": "7", "user_id": "u", "ip_address": "203.0.113.9",
        "method": "GET", "path": "/a", "status_code": 200, "response_time_ms": 1, "response_bytes": 17, "request_id": "r", "role": "admin",
        "outcome": "ok", "headers": {"referer": "https://a/"},
    });
    assert_eq!(event("ecs", &record.to_string()), Ok(expected));
}

#[test]
fn nginx_writes_numbers_with_and_without_quotes() {
    let expected = |ms: &str| {
        json!({"event_time": ms, "event_type": "http_request", "user_id": "alice", "ip_address": "2001:db8::1", "method": "GET",
            "path": "/\u{e4}", "status_code": 499, "response_time_ms": 0, "response_bytes": 0, "user_agent": "a\"b"})
    };
    let record = r#"{"time_iso8601":"2026-02-03T09:53:20+01:00","remote_addr":"2001:db8::1","remote_user":"alice","request_method":"GET",
        "uri":"/ä","status":"499","request_time":"0.000","body_bytes_sent":"0","http_user_agent":"a\"b","http_referer":"-"}"#;
    assert_eq!(event("nginx-json", record), Ok(expected("2026-02-03T08:53:20.000Z")));
    let record = r#"{"timestamp":1770108800.123,"remote_addr":"2001:db8::1","remote_user":"alice","request_method":"GET",
        "request_uri":"/\u00e4?x","status":499,"request_time":0.000,"body_bytes_sent":0,"http_user_agent":"a\u0022b"}"#;
    assert_eq!(event("nginx-json", record), Ok(expected("2026-02-03T08:53:20.123Z")));
}

#[test]
fn records_cut_short_are_refused_wherever_they_are_cut() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mapping.md")).expect("docs/mapping.md");
    for record in page.split("```json\n").skip(1).filter_map(|block| block.split("```").next()) {
        let record = record.trim();
        for set in sets() {
            let mapping = Mapping::shipped(set).expect(set);
            for end in 0..record.len() {
                let rejection = Event::decode_mapped(Some(&record.as_bytes()[..end]), &mapping).expect_err("cut short");
                assert!(["empty_value", "invalid_json", "invalid_utf8"].contains(&rejection.reason.name()), "{rejection}");
            }
        }
    }
}

#[test]
fn a_rejection_never_quotes_the_record() {
    let secret = "hunter2hunter2";
    for set in sets() {
        for record in [
            json!({"timeUnixNano": secret, "@timestamp": secret, "msec": secret}),
            json!({"timeUnixNano": 1, "status": secret, "http.response.status_code": secret}),
            json!({"attributes": [{"key": secret, "value": secret}], "labels": secret, "user.id": secret.repeat(40)}),
        ] {
            let rejection = event(set, &record.to_string()).expect_err(set);
            assert!(!rejection.contains(secret), "{rejection}");
        }
    }
}
