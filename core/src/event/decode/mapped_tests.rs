use super::*;
use crate::event::mapping::SETS;
use proptest::prelude::*;
use serde_json::json;

fn mapping(written: Json) -> Mapping {
    Mapping::compile(&written).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// A mapping with a time and a type, and these fields.
fn with(fields: Json) -> Mapping {
    let mut all = json!({"event_time": "t", "event_type": {"const": "x"}});
    all.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    mapping(json!({ "fields": all }))
}

/// The event without time and type, as JSON; or why it is none.
fn decode(mapping: &Mapping, record: Json) -> Result<Json, String> {
    let mut record = record;
    record.as_object_mut().expect("an object").entry("t").or_insert(json!(1_770_108_800_123_i64));
    decode_text(mapping, &record.to_string())
}

fn decode_text(mapping: &Mapping, record: &str) -> Result<Json, String> {
    let event = Event::decode_mapped(Some(record.as_bytes()), mapping).map_err(|r| r.to_string())?;
    let mut bytes = Vec::new();
    event.encode(&mut bytes);
    assert_eq!(Event::decode(Some(&bytes)).as_ref(), Ok(&event), "what a mapping makes is an event");
    let mut json: Json = serde_json::from_slice(&bytes).expect("JSON");
    let object = json.as_object_mut().expect("an object");
    object.remove("event_time");
    object.remove("event_type");
    Ok(json)
}

fn time_of(unit: Option<&str>, value: Json) -> Result<i64, String> {
    let mapping = mapping(json!({"fields": {"event_time": {"path": "t", "unit": unit.unwrap_or("ms")}, "event_type": {"const": "x"}}}));
    let record = json!({ "t": value }).to_string();
    Event::decode_mapped(Some(record.as_bytes()), &mapping).map(|event| event.event_time_ms).map_err(|r| r.to_string())
}

#[test]
fn a_path_is_found_however_its_names_are_spread_over_objects() {
    let mapping = with(json!({"method": "http.request.method"}));
    for record in [
        json!({"http.request.method": "GET"}),
        json!({"http": {"request": {"method": "GET"}}}),
        json!({"http.request": {"method": "GET"}, "http": {"version": "2"}}),
        json!({"http": {"request.method": "GET", "response": {"method": "no"}}}),
    ] {
        assert_eq!(decode(&mapping, record.clone()), Ok(json!({"method": "GET"})), "{record}");
    }
    for record in [json!({"http": {"method": "GET"}}), json!({"request": {"method": "GET"}}), json!({"http": "GET"})] {
        assert_eq!(decode(&mapping, record.clone()), Ok(json!({})), "{record}");
    }
}

#[test]
fn the_first_source_with_a_value_wins_wherever_it_stands() {
    let mapping = with(json!({"user_id": ["a", "b.c", {"const": "nobody"}]}));
    for (record, expected) in [
        (json!({"a": "1", "b": {"c": "2"}}), "1"),
        (json!({"b": {"c": "2"}, "a": null}), "2"),
        (json!({"a": "", "b": {"c": 2}}), "2"),
        (json!({"a": "-", "b": {"c": "2"}}), "2"),
        (json!({}), "nobody"),
    ] {
        assert_eq!(decode(&mapping, record.clone()), Ok(json!({"user_id": expected})), "{record}");
    }
    assert_eq!(decode(&with(json!({"user_id": []})), json!({"user_id": "u"})), Ok(json!({})));
}

#[test]
fn times_are_rfc_3339_or_numbers_in_their_unit() {
    assert_eq!(time_of(None, json!("2026-02-03T08:53:20.123456+00:00")), Ok(1_770_108_800_123));
    assert_eq!(time_of(None, json!(1_770_108_800_123_i64)), Ok(1_770_108_800_123));
    assert_eq!(time_of(None, json!("1770108800123")), Ok(1_770_108_800_123));
    assert_eq!(time_of(Some("s"), json!("2026-02-03T08:53:20Z")), Ok(1_770_108_800_000));
    for seconds in [json!(1_770_108_800.123), json!("1770108800.123"), json!("1770108800.1239"), json!(1_770_108_800.123_9)] {
        assert_eq!(time_of(Some("s"), seconds.clone()), Ok(1_770_108_800_123), "{seconds}");
    }
    assert_eq!(time_of(Some("s"), json!(1_770_108_800)), Ok(1_770_108_800_000));
    assert_eq!(time_of(Some("s"), json!("1770108800.5")), Ok(1_770_108_800_500));
    assert_eq!(time_of(Some("us"), json!(1_770_108_800_123_456_i64)), Ok(1_770_108_800_123));
    for nanos in [json!(1_770_108_800_123_999_999_i64), json!("1770108800123999999")] {
        assert_eq!(time_of(Some("ns"), nanos.clone()), Ok(1_770_108_800_123), "{nanos}");
    }
    assert_eq!(time_of(Some("ns"), json!("0")), Err("missing_field: event_time".into()), "OTLP: not known");
    assert_eq!(time_of(Some("s"), json!(1_770_108_800_123_i64)), Err("bad_time: event_time".into()));
    for bad in [json!("soon"), json!("1.2.3"), json!("1e9"), json!("-"), json!(u64::MAX), json!(i64::MAX), json!("9".repeat(40))] {
        let expected = if bad == "-" { "missing_field: event_time" } else { "bad_time: event_time" };
        assert_eq!(time_of(Some("s"), bad.clone()), Err(expected.into()), "{bad}");
    }
    for wrong in [json!(true), json!({"a": 1}), json!(1e300)] {
        assert_eq!(time_of(None, wrong.clone()), Err("wrong_type: event_time".into()), "{wrong}");
    }
}

#[test]
fn lengths_of_time_become_whole_milliseconds() {
    let took =
        |unit: &str, value: Json| decode(&with(json!({"response_time_ms": {"path": "took", "unit": unit}})), json!({ "took": value }));
    for (unit, value, ms) in [
        ("s", json!("0.123"), 123),
        ("s", json!(0.0004), 0),
        ("s", json!(2), 2_000),
        ("ms", json!("12.9"), 12),
        ("ms", json!(12.9), 12),
        ("us", json!(12_900), 12),
        ("ns", json!(1_234_567_890_i64), 1_234),
        ("ns", json!("1234567890"), 1_234),
        ("s", json!("-0.5"), -500),
    ] {
        assert_eq!(took(unit, value.clone()), Ok(json!({"response_time_ms": ms})), "{value} {unit}");
    }
    for wrong in [json!("fast"), json!(true), json!(i64::MAX), json!({"a": 1})] {
        assert_eq!(took("s", wrong.clone()), Err("wrong_type: response_time_ms".into()), "{wrong}");
    }
}

#[test]
fn a_length_of_time_may_be_the_difference_of_two_times() {
    let mapping = with(json!({"response_time_ms": [{"path": "end", "since": "start", "unit": "ns"}, "took"]}));
    let took = |record: Json| decode(&mapping, record).map(|event| event["response_time_ms"].as_i64());
    assert_eq!(took(json!({"start": "1770108800000000000", "end": "1770108800250999999", "took": 1})), Ok(Some(250)));
    assert_eq!(took(json!({"start": "2026-02-03T08:53:20Z", "end": "2026-02-03T08:53:20.5Z"})), Ok(Some(500)));
    assert_eq!(took(json!({"start": 2_000_000_000, "end": 1_000_000_000})), Ok(Some(0)), "a clock that was set back");
    assert_eq!(took(json!({"start": "0", "end": "1770108800250999999", "took": 7})), Ok(Some(7)));
    assert_eq!(took(json!({"start": "1770108800250999999", "took": 7})), Ok(Some(7)));
}

#[test]
fn values_become_what_their_field_holds() {
    let mapping = with(json!({
        "status_code": "s", "is_staff": "b", "role": "r", "outcome": {"path": "o", "values": {"success": "ok"}}, "headers.X-N": "n", "user_id": "u",
    }));
    let record = json!({"s": " 200 ", "b": "true", "r": 7, "o": "success", "n": 1.5, "u": 42});
    let expected = json!({"status_code": 200, "is_staff": true, "role": "7", "outcome": "ok", "headers": {"x-n": "1.5"}, "user_id": "42"});
    assert_eq!(decode(&mapping, record), Ok(expected));
    assert_eq!(decode(&mapping, json!({"o": "unknown"})), Ok(json!({"outcome": "unknown"})));
    for (record, expected) in [
        (json!({"s": "2xx"}), "wrong_type: status_code"),
        (json!({"s": 200.0}), "wrong_type: status_code"),
        (json!({"b": "yes"}), "wrong_type: is_staff"),
        (json!({"r": {"a": 1}}), "wrong_type: role"),
        (json!({"n": {"a": 1}}), "wrong_type: headers"),
        (json!({"u": 1.5}), "wrong_type: user_id"),
        (json!({"u": "x".repeat(257)}), "id_too_long: user_id"),
        (json!({"u": "a\u{1}"}), "control_character: user_id"),
        (json!({"n": "\u{0}"}), "control_character: headers"),
    ] {
        assert_eq!(decode(&mapping, record.clone()), Err(expected.into()), "{record}");
    }
}

#[test]
fn a_path_comes_without_host_and_query() {
    let mapping = with(json!({"path": "p"}));
    for (url, path) in [
        ("/a/b?c=d", "/a/b"),
        ("/a#b", "/a"),
        ("https://example.org/a/b?c=d#e", "/a/b"),
        ("https://example.org:8443", "/"),
        ("https://example.org?a=/b", "/"),
        ("/go/https://example.org/x", "/go/https://example.org/x"),
        ("*", "*"),
        ("?a", "/"),
        ("/\u{e4}", "/\u{e4}"),
    ] {
        assert_eq!(decode(&mapping, json!({ "p": url })), Ok(json!({ "path": path })), "{url}");
        let escaped = format!(r#"{{"t":1770108800123,"p":"\u00{:02x}{}"}}"#, url.as_bytes()[0], &url[1..]);
        assert_eq!(decode_text(&mapping, &escaped), Ok(json!({ "path": path })), "{url}");
    }
}

#[test]
fn a_list_stands_for_its_first_item() {
    let mapping = with(json!({"role": "roles"}));
    assert_eq!(decode(&mapping, json!({"roles": [null, "admin", "user"]})), Ok(json!({"role": "admin"})));
    assert_eq!(decode(&mapping, json!({"roles": []})), Ok(json!({})));
    assert_eq!(decode(&mapping, json!({"roles": {}})), Ok(json!({})));
    for wrong in [json!([["a"]]), json!([{"name": "a"}]), json!({"name": "a"})] {
        assert_eq!(decode(&mapping, json!({"roles": wrong})), Err("wrong_type: role".into()), "{wrong}");
    }
}

#[test]
fn attributes_may_be_a_list_of_keys_and_wrapped_values() {
    let mapping =
        with(json!({"method": "attributes.http.request.method", "status_code": "attributes.status", "is_staff": "attributes.staff",
        "role": "attributes.user.roles", "user_id": "attributes.user.id", "data.plan": "attributes.plan", "data.n": "attributes.n"}));
    let expected = json!({"method": "GET", "status_code": 200, "is_staff": true, "role": "admin", "user_id": "u",
        "data": {"plan": {"a": [1, "x"]}, "n": 7}});
    let values = [
        ("http.request.method", json!({"stringValue": "GET"})),
        ("status", json!({"intValue": "200"})),
        ("staff", json!({"boolValue": true})),
        ("user.roles", json!({"arrayValue": {"values": [{"stringValue": "admin"}, {"stringValue": "user"}]}})),
        ("user", json!({"kvlistValue": {"values": [{"key": "id", "value": {"stringValue": "u"}}]}})),
        (
            "plan",
            json!({"kvlistValue": {"values": [{"key": "a", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "x"}]}}}]}}),
        ),
        ("n", json!({"intValue": 7})),
        ("other", json!({"stringValue": "GET"})),
    ];
    let list: Vec<Json> = values.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    assert_eq!(decode(&mapping, json!({ "attributes": list })), Ok(expected.clone()));
    // The value before its key, and an object in place of the list.
    let list: Vec<String> = values.iter().map(|(key, value)| format!(r#"{{"value":{value},"key":"{key}"}}"#)).collect();
    let record = format!(r#"{{"t":1770108800123,"attributes":[{}]}}"#, list.join(","));
    assert_eq!(decode_text(&mapping, &record), Ok(expected.clone()));
    let object: Map<String, Json> = values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    assert_eq!(decode(&mapping, json!({ "attributes": object })), Ok(expected));
    assert_eq!(decode(&mapping, json!({"attributes": [{"key": "status", "value": {}}]})), Ok(json!({})), "OTLP: no value");
}

#[test]
fn a_mapped_value_that_stands_twice_is_refused_and_others_are_not_looked_at() {
    let mapping = with(json!({"method": "a.b", "user_id": "attributes.u", "data.d": "d"}));
    let twice = |record: &str| decode_text(&mapping, &format!(r#"{{"t":1770108800123,{record}}}"#));
    for record in [
        r#""a.b":"GET","a.b":"GET""#,
        r#""a":{"b":"GET","b":"PUT"}"#,
        r#""a":{"b":"GET"},"a.b":"PUT""#,
        r#""a":{"b":"GET"},"a":{}"#,
        r#""attributes":[{"key":"u","value":"1"},{"key":"u","value":"2"}]"#,
        r#""attributes":[{"key":"u","value":"1","value":"2"}]"#,
        r#""attributes":[{"key":"u","key":"v","value":"1"}]"#,
        r#""attributes":{"u":{"stringValue":"1","intValue":"2"}}"#,
    ] {
        assert_eq!(twice(record), Err("duplicate_key: a mapped key".into()), "{record}");
    }
    assert_eq!(twice(r#""d":{"x":1,"x":2}"#), Err("duplicate_key: data".into()));
    assert_eq!(twice(r#""z":1,"z":2,"y":{"z":1,"z":2},"method":7,"attributes":[{"key":"w"},{"key":"w"}]"#), Ok(json!({})));
}

#[test]
fn data_takes_whole_values_and_whole_objects() {
    let mapping = with(
        json!({"data": "labels", "data.form.kind": ["form.kind", {"const": "none"}], "path": "url", "data.url": "url", "data.again": "url"}),
    );
    let record = json!({"labels": {"a": [1, {"b": 2}], "url": "x", "form": 1}, "form": {"kind": {"k": true}}, "url": "/a?b"});
    let expected = json!({"path": "/a", "data": {"a": [1, {"b": 2}], "form": {"kind": {"k": true}}, "url": "/a?b", "again": "/a?b"}});
    assert_eq!(decode(&mapping, record), Ok(expected));
    assert_eq!(decode(&mapping, json!({})), Ok(json!({"data": {"form": {"kind": "none"}}})));
    assert_eq!(decode(&mapping, json!({"labels": "x"})), Err("wrong_type: data".into()));
    assert_eq!(decode(&mapping, json!({"labels": {"a": "\u{0}"}})), Err("control_character: data".into()));
}

#[test]
fn headers_may_come_from_one_object_with_others_beside_it() {
    let mapping = with(json!({"headers": "req.headers", "headers.host": "req.host"}));
    let record = json!({"req": {"headers": {"Host": "a", "X-A": 1}, "host": "b"}});
    assert_eq!(decode(&mapping, record), Ok(json!({"headers": {"host": "b", "x-a": "1"}})));
    assert_eq!(decode(&mapping, json!({"req": {"headers": ["a"]}})), Err("wrong_type: headers".into()));
}

#[test]
fn what_data_gets_is_no_deeper_than_an_event_may_be() {
    let mapping = with(json!({"data.a.b.c": "d"}));
    let nested = |levels: usize| format!(r#"{{"t":1770108800123,"d":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(decode_text(&mapping, &nested(60)).is_ok());
    assert_eq!(decode_text(&mapping, &nested(61)), Err("too_deep: data".into()));
    assert_eq!(decode_text(&mapping, &nested(64)), Err("too_deep: more than 64 levels".into()));
}

#[test]
fn reasons_are_those_of_the_plain_decoder_in_their_order() {
    let mapping = with(json!({"user_id": "u", "role": "r"}));
    let reason = |value: Option<&[u8]>| Event::decode_mapped(value, &mapping).map(drop).map_err(|r| r.to_string());
    assert_eq!(reason(None), Err("null_value".into()));
    assert_eq!(reason(Some(b" \n")), Err("empty_value".into()));
    assert_eq!(reason(Some(b"{\"u\":\"\xff\"}")), Err("invalid_utf8: at byte 6".into()));
    assert_eq!(reason(Some(b"[1]")), Err("invalid_json: not an object".into()));
    assert_eq!(reason(Some(b"{\"u\":1")), Err("invalid_json: line 1 column 6".into()));
    assert_eq!(reason(Some(b"{} x")), Err("invalid_json: line 1 column 4".into()));
    assert_eq!(reason(Some(b"{}")), Err("missing_field: event_time".into()));
    assert_eq!(reason(Some(br#"{"t":1,"r":{"a":1},"u":1.5,"u":""}"#)), Err("duplicate_key: a mapped key".into()));
    assert_eq!(reason(Some(br#"{"t":1,"r":{"a":1},"u":1.5}"#)), Err("wrong_type: user_id".into()), "in the order of the fields");
    assert_eq!(reason(Some(br#"{"t":1}"#)), Err("bad_time: event_time".into()));
    assert!(reason(Some("\u{feff}{\"t\":1770108800123}".as_bytes())).is_ok());
    // Where a value is read a second time, too.
    let otlp = with(json!({"user_id": "a.u"}));
    let lone = r#"{"t":1770108800123,"a":[{"value":"\ud800","key":"u"}]}"#;
    assert_eq!(decode_text(&otlp, lone), Err("invalid_json: inside a mapped value".into()));
}

#[test]
fn our_own_set_decodes_what_the_plain_decoder_decodes() {
    let plain = Mapping::shipped("tripline").expect("a set");
    let same = mapping(json!({"set": "tripline", "fields": {"data.extra": "x"}}));
    let record = br#"{"event_id":"e","event_time":"2026-02-03T08:53:20Z","event_type":"t","user_id":42,"path":"/a","status_code":200,
        "is_staff":false,"headers":{"Host":"a"},"data":{"b":[1,{"c":null}]},"blocked_by":"self"}"#;
    let expected = Event::decode(Some(record)).expect("an event");
    assert_eq!(Event::decode_mapped(Some(record), &plain), Ok(expected.clone()));
    assert_eq!(Event::decode_mapped(Some(record), &same), Ok(expected));
}

#[test]
fn work_is_linear_in_the_length_of_a_record() {
    let mapping = mapping(json!({"set": "otel", "fields": {"data": "attributes"}}));
    let many: Vec<String> = (0..100_000).map(|i| format!(r#"{{"value":{{"stringValue":"v"}},"key":"k{i}"}}"#)).collect();
    let record = format!(r#"{{"timeUnixNano":"1770108800123000000","attributes":[{}]}}"#, many.join(","));
    assert!(Event::decode_mapped(Some(record.as_bytes()), &mapping).is_ok());
    // Values before their keys, inside each other as deep as can be.
    let deep =
        (0..13).fold(r#""x""#.to_owned(), |inner, _| format!(r#"{{"kvlistValue":{{"values":[{{"value":{inner},"key":"user"}}]}}}}"#));
    let record = format!(r#"{{"timeUnixNano":"1770108800123000000","attributes":[{{"value":{deep},"key":"user"}}]}}"#);
    assert!(Event::decode_mapped(Some(record.as_bytes()), &mapping).is_ok());
}

/// Pieces that records of all shapes are made of, so that random ones reach the mapped places.
fn records() -> impl Strategy<Value = Json> {
    let names = [
        "t",
        "a",
        "b",
        "attributes",
        "http",
        "request",
        "http.request.method",
        "method",
        "key",
        "value",
        "values",
        "stringValue",
        "intValue",
        "arrayValue",
        "kvlistValue",
        "labels",
        "@timestamp",
        "event",
        "duration",
        "user.id",
        "user",
        "id",
        "url.full",
        "timeUnixNano",
        "startTimeUnixNano",
        "endTimeUnixNano",
        "msec",
        "remote_addr",
        "request_uri",
        "status",
        "request_time",
        "headers",
        "data",
    ];
    let text = prop_oneof![
        proptest::sample::select(names.to_vec()).prop_map(str::to_owned),
        "[^\\p{Cc}]{0,8}",
        "[0-9.\\-]{0,24}",
        "(https?://)?[a-z./?#\u{0}é]{0,12}",
        Just("2026-02-03T08:53:20+01:00".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        Just(json!(1_770_108_800_123_i64)),
        proptest::num::f64::NORMAL.prop_map(Into::into),
        text.prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(6, 48, 6, move |inner| {
        let name = proptest::sample::select(names.to_vec());
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(name.clone(), inner.clone(), 0..6)
                .prop_map(|m| Json::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
            proptest::collection::vec((name, inner), 0..4)
                .prop_map(|list| list.into_iter().map(|(key, value)| json!({"key": key, "value": value})).collect()),
        ]
    });
    proptest::collection::btree_map(proptest::sample::select(names.to_vec()), value, 0..8)
        .prop_map(|m| Json::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
}

fn all_mappings() -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = SETS.into_iter().filter_map(Mapping::shipped).collect();
    mappings.push(with(json!({"data": "a", "data.b": "b", "data.http": "http", "method": "http.request.method", "headers": "attributes",
        "user_id": ["user", "user.id", "attributes.user"], "path": "url.full", "response_time_ms": {"path": "b", "since": "a", "unit": "us"}})));
    mappings
}

proptest! {
    /// Any JSON either becomes an event, which is then one for the plain decoder too, or is refused.
    #[test]
    fn any_record_becomes_an_event_or_is_refused(record in records()) {
        for mapping in all_mappings() {
            let _ = decode(&mapping, record.clone());
            let _ = decode_text(&mapping, &record.to_string());
        }
    }

    #[test]
    fn a_record_with_a_few_bytes_changed_or_cut_never_panics(record in records(), cut in any::<prop::sample::Index>(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut bytes = record.to_string().into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let end = cut.index(bytes.len() + 1);
        for mapping in all_mappings() {
            let _ = Event::decode_mapped(Some(&bytes), &mapping);
            let _ = Event::decode_mapped(Some(&bytes[..end]), &mapping);
        }
    }
}
