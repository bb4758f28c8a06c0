use super::*;
use proptest::prelude::*;

const TIME: i64 = 1_760_000_000_000;

fn decode(json: &str) -> Result<Event<'_>, String> {
    Event::decode(Some(json.as_bytes())).map_err(|r| r.to_string())
}

/// A valid event with more fields.
fn with(fields: &str) -> String {
    format!(r#"{{"event_time":{TIME},"event_type":"t",{fields}}}"#)
}

fn refused(fields: &str) -> String {
    decode(&with(fields)).expect_err(fields)
}

#[test]
fn slots_stand_in_the_order_of_the_field_table() {
    for (index, row) in FIELDS.iter().enumerate() {
        let slot = Slot::of(row.name, Dialect::Event);
        assert_eq!((slot as usize, slot.name()), (index, row.name));
    }
    assert_eq!(Slot::of("headers", Dialect::Event) as usize, FIELDS.len());
    assert_eq!(Slot::of("_v", Dialect::Event), Slot::Unknown);
    assert!((Slot::Unknown as u32) < u64::BITS);
}

#[test]
fn absent_and_null_are_the_same() {
    let nulls: Vec<String> = FIELDS.iter().skip(3).map(|row| format!(r#""{}":null"#, row.name)).collect();
    let json = with(&format!(r#"{},"headers":null,"data":null,"event_id":"""#, nulls.join(",")));
    assert_eq!(decode(&json).unwrap(), Event { event_time_ms: TIME, event_type: "t".into(), ..Event::default() });
}

#[test]
fn ids_are_text_or_whole_numbers() {
    let json = with(r#""user_id":42,"tenant_id":18446744073709551615,"session_id":-7,"request_id":"\u00e4""#);
    let event = decode(&json).unwrap();
    assert_eq!(event.user_id.as_deref(), Some("42"));
    assert_eq!(event.tenant_id.as_deref(), Some("18446744073709551615"));
    assert_eq!(event.session_id.as_deref(), Some("-7"));
    assert_eq!(event.request_id.as_deref(), Some("ä"));
    for wrong in ["1.0", "true", "[]", "{}", "1e3", "184467440737095516160"] {
        assert_eq!(refused(&format!(r#""user_id":{wrong}"#)), "wrong_type: user_id");
    }
}

#[test]
fn an_id_holds_256_bytes_without_control_characters() {
    assert!(decode(&with(&format!(r#""user_id":"{}""#, "u".repeat(256)))).is_ok());
    assert_eq!(refused(&format!(r#""user_id":"{}""#, "é".repeat(129))), "id_too_long: user_id");
    assert_eq!(refused(&format!(r#""ip_address":"{}""#, "1".repeat(257))), "id_too_long: ip_address");
    for control in ["\\u0000", "\\u001f", "\\n", "\u{7f}", "\u{85}", "\\u009f"] {
        assert_eq!(refused(&format!(r#""device_id":"d{control}d""#)), "control_character: device_id");
        assert_eq!(refused(&format!(r#""anomaly_type":"{control}""#)), "control_character: anomaly_type");
        assert_eq!(refused(&format!(r#""ip_address":"1{control}2""#)), "control_character: ip_address");
    }
    assert_eq!(decode(&with(r#""user_id":"ÂÃ¡ …""#)).unwrap().user_id.as_deref(), Some("ÂÃ¡ …"));
}

#[test]
fn other_text_is_kept_as_sent_but_for_nul() {
    let json = with(r#""path":"","user_agent":"a\tb\u001f","ip_address":" 203.0.113.9\n ""#);
    let event = decode(&json).unwrap();
    assert_eq!(event.path.as_deref(), Some(""));
    assert_eq!(event.user_agent.as_deref(), Some("a\tb\u{1f}"));
    assert_eq!(event.ip_address.as_deref(), Some("203.0.113.9"));
    assert_eq!(decode(&with(r#""ip_address":"  ""#)).unwrap().ip_address, None);
    assert_eq!(refused(r#""path":"a\u0000b""#), "control_character: path");
    assert_eq!(refused(r#""data":{"a":[{"b":"\u0000"}]}"#), "control_character: data");
    assert_eq!(refused(r#""data":{"\u0000":1}"#), "control_character: data");
    assert_eq!(refused(r#""headers":{"a":"\u0000"}"#), "control_character: headers");
}

#[test]
fn text_is_borrowed_where_it_has_no_escapes() {
    let json = with(r#""path":"/a","route":"/\u0061""#);
    let event = decode(&json).unwrap();
    assert!(matches!(event.path, Some(Cow::Borrowed("/a"))));
    assert!(matches!(event.route, Some(Cow::Owned(ref route)) if route == "/a"));
}

#[test]
fn header_names_fold_their_case_and_values_become_text() {
    let json = with(r#""headers":{"Host":"a","X-N":1,"host":"b","x-t":true,"x-f":1.5,"x-null":null,"HOST":null}"#);
    let event = decode(&json).unwrap();
    let headers: Vec<(&str, &str)> = event.headers.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).collect();
    assert_eq!(headers, [("x-n", "1"), ("host", "b"), ("x-t", "true"), ("x-f", "1.5")]);
    for wrong in [r#"[]"#, r#""x""#, "1", "1.5", "true", r#"{"a":[]}"#, r#"{"a":{}}"#] {
        assert_eq!(refused(&format!(r#""headers":{wrong}"#)), "wrong_type: headers");
    }
    for wrong in [r#"[{"a":1}]"#, r#""x""#, "-1", "1.5", "false"] {
        assert_eq!(refused(&format!(r#""data":{wrong}"#)), "wrong_type: data");
    }
}

#[test]
fn a_key_stands_once_in_an_object() {
    assert_eq!(refused(r#""event_type":"t""#), "duplicate_key: event_type");
    assert_eq!(refused(r#""x":1,"y":1,"x":1"#), "duplicate_key: an unknown field");
    assert_eq!(refused(r#""headers":{"a":"1","\u0061":"2"}"#), "duplicate_key: headers");
    assert_eq!(refused(r#""data":{"a":[1,{"b":{"c":1,"c":1}}]}"#), "duplicate_key: data");
    let many: Vec<String> = (0..100).map(|i| format!(r#""k{i}":{i}"#)).collect();
    assert!(decode(&with(&many.join(","))).is_ok());
    assert_eq!(refused(&format!(r#"{},"k3":0"#, many.join(","))), "duplicate_key: an unknown field");
    assert_eq!(refused(&format!(r#""headers":{{{},"k99":0}}"#, many.join(","))), "duplicate_key: headers");
}

#[test]
fn of_several_problems_the_first_in_the_table_is_reported() {
    let long = "u".repeat(300);
    let mut json = format!(r#"{{"user_id":"{long}","tenant_id":"\u0001""#);
    let mut expect = |more: &str, expected: &str| {
        json.push_str(more);
        assert_eq!(decode(&format!("{json}}}")).unwrap_err(), expected);
    };
    expect(r#","event_time":"soon","event_type":"t""#, "bad_time: event_time");
    expect(r#","event_type":"""#, "duplicate_key: event_type");
    assert_eq!(decode(r#"{"is_staff":1,"path":2}"#).unwrap_err(), "wrong_type: is_staff");
    assert_eq!(decode(r#"{"user_id":"\u0001"}"#).unwrap_err(), "missing_field: event_time");
    assert_eq!(decode(r#"{"event_time":"x","event_type":""}"#).unwrap_err(), "missing_field: event_type");
    assert_eq!(decode(r#"{"a":1,"a":1"#).unwrap_err(), "invalid_json: line 1 column 12");
}

#[test]
fn event_time_is_rfc_3339_or_milliseconds_between_2000_and_2100() {
    let time =
        |json: &str| decode(&format!(r#"{{"event_type":"t","event_time":{json}}}"#)).map(|e| e.event_time_ms).map_err(|e| e.to_string());
    assert_eq!(time(r#""2025-10-09T08:53:20.123456+02:00""#), Ok(1_759_992_800_123));
    assert_eq!(time("946684800000"), Ok(time::EARLIEST_MS));
    assert_eq!(time(r#""2099-12-31T23:59:59.999Z""#), Ok(time::LATEST_MS - 1));
    for bad in ["946684799999", "4102444800000", "0", "-1", "18446744073709551615", r#""2100-01-01T00:00:00Z""#, r#""""#, r#""2025-10-09""#]
    {
        assert_eq!(time(bad), Err("bad_time: event_time".into()), "{bad}");
    }
    for wrong in ["1760000000000.0", "true", "[]", "1e12"] {
        assert_eq!(time(wrong), Err("wrong_type: event_time".into()), "{wrong}");
    }
    assert_eq!(time("null"), Err("missing_field: event_time".into()));
}

#[test]
fn nesting_ends_at_64_levels_wherever_it_is() {
    let nested =
        |field: &str, levels: usize| with(&format!(r#""{field}":{}{}"#, r#"{"a":"#.repeat(levels), "1".to_owned() + &"}".repeat(levels)));
    let words = r#""path":"[[[[[[[[[[[[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[""#;
    assert!(decode(&with(words)).is_ok(), "brackets inside text do not count");
    assert!(decode(&nested("data", 63)).is_ok());
    assert!(decode(&nested("unknown", 63)).is_ok());
    for field in ["data", "unknown", "headers", "user_id"] {
        for levels in [64, 10_000] {
            assert_eq!(decode(&nested(field, levels)).unwrap_err(), "too_deep: more than 64 levels");
        }
    }
    assert_eq!(decode(&"[".repeat(1_000_000)).unwrap_err(), "too_deep: more than 64 levels");
    assert!(decode(&with(&format!(r#""data":{{"a":[{}[]]}}"#, "[],".repeat(500)))).is_ok(), "width is not depth");
}

#[test]
fn what_is_not_one_json_object_is_refused_without_quoting_it() {
    for bad in ["[]", "1", r#""secret""#, "null", "true"] {
        assert_eq!(decode(bad).unwrap_err(), "invalid_json: not an object");
    }
    assert_eq!(decode(r#"{} x"#).unwrap_err(), "invalid_json: line 1 column 4");
    assert_eq!(decode(r#"{"path":"\ud800"}"#).unwrap_err(), "invalid_json: line 1 column 16");
    assert_eq!(Event::decode(Some(b"{\"path\":\"\xff\"}")).unwrap_err().to_string(), "invalid_utf8: at byte 9");
    assert_eq!(decode(" \r\n\t").unwrap_err(), "empty_value");
    assert_eq!(decode("\u{feff}").unwrap_err(), "empty_value");
    assert_eq!(Event::decode(None).unwrap_err().to_string(), "null_value");
    assert!(decode(&format!("\u{feff} {}\n", with(r#""x":1"#))).is_ok(), "a byte order mark in front is stepped over");
}

prop_compose! {
    fn id()(text in prop_oneof![Just(String::new()), "[^\\p{Cc}]{1,20}", "[0-9]{1,9}"]) -> Text<'static> {
        (!text.is_empty()).then(|| text.into())
    }
}

fn text() -> impl Strategy<Value = Text<'static>> {
    proptest::option::of("[^\0]{0,20}".prop_map(Cow::from))
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        proptest::num::f64::NORMAL.prop_map(Into::into),
        "[^\0]{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map("[^\0]{0,6}", inner, 0..4).prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

prop_compose! {
    pub(super) fn events()(
        ids in proptest::array::uniform6(id()),
        texts in proptest::array::uniform9(text()),
        ints in proptest::array::uniform5(proptest::option::of(any::<i64>())),
        truths in proptest::array::uniform2(proptest::option::of(any::<bool>())),
        event_time_ms in time::EARLIEST_MS..time::LATEST_MS,
        event_type in "[^\\p{Cc}]{1,12}",
        address in proptest::option::of("[0-9a-f:.]{1,20}".prop_map(Cow::from)),
        anomaly_type in proptest::option::of("[a-z_]{0,12}".prop_map(Cow::from)),
        headers in proptest::collection::btree_map("[^\0A-Z]{0,12}", "[^\0]{0,12}", 0..20),
        data in proptest::collection::btree_map("[^\0]{0,6}", json(), 0..4),
    ) -> Event<'static> {
        let [event_id, tenant_id, user_id, session_id, device_id, request_id] = ids;
        let [tenant_name, method, path, route, user_agent, country, role, outcome, blocked_by] = texts;
        let [status_code, response_time_ms, request_bytes, response_bytes, asn] = ints;
        let [is_staff, is_authenticated] = truths;
        Event {
            event_id, event_time_ms, event_type: event_type.into(), tenant_id, tenant_name, user_id, session_id, device_id,
            ip_address: address, method, path, route, status_code, response_time_ms, request_bytes, response_bytes, user_agent,
            request_id, country, asn, role, is_staff, is_authenticated, outcome, anomaly_type, blocked_by,
            headers: headers.into_iter().map(|(n, v)| (n.into(), v.into())).collect(),
            data: data.into_iter().collect(),
        }
    }
}

proptest! {
    #[test]
    fn an_encoded_event_decodes_to_itself(event in events()) {
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        prop_assert_eq!(Event::decode(Some(&bytes)), Ok(event), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_valid_event_with_a_few_bytes_changed_never_panics(event in events(), changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = Event::decode(Some(&bytes));
        let _ = crate::observation::Observation::decode(Some(&bytes), Some(&bytes));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Event::decode(Some(&bytes));
    }

    #[test]
    fn random_json_marks_never_panic(text in r#"[\[\]{}",:\\0-9eau\- ]{0,300}"#) {
        let _ = Event::decode(Some(text.as_bytes()));
    }
}
