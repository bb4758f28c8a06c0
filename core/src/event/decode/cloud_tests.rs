use crate::event::Event;
use crate::event::cloud::ContentMode;
use crate::event::decode::tests::events;
use crate::event::mapping::Mapping;
use crate::time::format_rfc3339_ms;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const TIME: i64 = 1_770_108_800_123;
const STRUCTURED: [(&str, &str); 1] = [("content-type", "application/cloudevents+json; charset=UTF-8")];

fn decode<'a>(headers: &[(&'a str, &'a str)], value: &'a str, mapping: Option<&Mapping>) -> Result<Event<'a>, String> {
    let mode = ContentMode::of_headers(headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))));
    Event::decode_record(Some(value.as_bytes()), mode, mapping).map_err(|r| r.to_string())
}

fn envelope(data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"17","source":"/shop","type":"order","time":"2026-02-03T08:53:20.123Z","subject":"o","data":{data}}}"#
    )
}

/// In binary mode, in structured mode with its header, and without one.
fn in_every_mode<'a>(data: &'a str, envelope: &'a str, mapping: Option<&Mapping>) -> [Result<Event<'a>, String>; 3] {
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", "17"),
        ("ce_source", "/shop"),
        ("ce_type", "order"),
        ("ce_time", "2026-02-03T08:53:20.123Z"),
        ("ce_subject", "o"),
        ("content-type", "application/json"),
    ];
    [decode(&headers, data, mapping), decode(&STRUCTURED, envelope, mapping), decode(&[], envelope, mapping)]
}

#[test]
fn the_attributes_give_what_the_data_lacks() {
    for data in [r#"{"user_id":"u1"}"#, r#"{"event_id":"","event_time":null,"event_type":"","user_id":"u1"}"#] {
        let user_id = Some("u1".into());
        let event =
            Event { event_id: Some("/shop|17".into()), event_time_ms: TIME, event_type: "order".into(), user_id, ..Event::default() };
        for found in in_every_mode(data, &envelope(data), None) {
            assert_eq!(found, Ok(event.clone()), "{data}");
        }
    }
}

#[test]
fn what_the_data_has_itself_wins() {
    let data = r#"{"event_id":"e1","event_time":1760000000000,"event_type":"login"}"#;
    let event = Event { event_id: Some("e1".into()), event_time_ms: 1_760_000_000_000, event_type: "login".into(), ..Event::default() };
    for found in in_every_mode(data, &envelope(data), None) {
        assert_eq!(found.as_ref(), Ok(&event));
    }
}

#[test]
fn a_mapping_is_applied_to_the_data() {
    let written = json!({"fields": {"event_time": "at", "event_type": "kind", "user_id": "account.id", "data.version": "specversion"}});
    let mapping = Mapping::compile(&written).expect("a mapping");
    let data = r#"{"account":{"id":7},"kind":"-","specversion":"2.0","time":"no","id":"no"}"#;
    for found in in_every_mode(data, &envelope(data), Some(&mapping)) {
        let event = found.expect("an event");
        assert_eq!((event.event_id.as_deref(), event.event_time_ms), (Some("/shop|17"), TIME));
        assert_eq!((event.event_type.as_ref(), event.user_id.as_deref()), ("order", Some("7")));
        assert_eq!(event.data["version"], "2.0");
    }
    let own = r#"{"account":{"id":7},"kind":"login","at":1760000000000}"#;
    for found in in_every_mode(own, &envelope(own), Some(&mapping)) {
        assert_eq!(found.map(|event| (event.event_type, event.event_time_ms)), Ok(("login".into(), 1_760_000_000_000)));
    }
    // A number is no version of CloudEvents: the record is what the mapping says.
    let record = r#"{"account":{"id":7},"kind":"login","at":1760000000000,"specversion":3}"#;
    assert_eq!(decode(&[], record, Some(&mapping)).map(|event| event.data["version"].clone()), Ok(Json::from(3)));
}

#[test]
fn an_envelope_is_known_by_a_version_in_text_at_the_top() {
    for version in ["1", "null", "[]", "{\"a\":\"1.0\"}"] {
        let record = format!(r#"{{"event_time":{TIME},"event_type":"t","specversion":{version}}}"#);
        assert!(decode(&[], &record, None).is_ok(), "{record}");
        let refused = decode(&STRUCTURED, &record, None).unwrap_err();
        let expected = if version == "null" { "missing_field: specversion" } else { "wrong_type: specversion" };
        assert_eq!(refused, expected, "{record}");
    }
    let inside = format!(r#"{{"event_time":{TIME},"event_type":"t","data":{{"specversion":"1.0"}}}}"#);
    assert!(decode(&[], &inside, None).is_ok());
    let escaped = r#"{"\u0073pecversion":"1.0","data":{},"type":"t","time":"2026-02-03T08:53:20Z"}"#;
    assert_eq!(decode(&[], escaped, None).map(|event| event.event_type), Ok("t".into()));
    let nested = envelope(&envelope("{}"));
    let [_, header, mark] = in_every_mode("{}", &nested, None);
    assert_eq!(header.map(|event| event.event_type), Ok("order".into()), "data is never an envelope again");
    assert!(mark.is_ok());
}

#[test]
fn a_refusal_names_the_attribute_where_it_stands() {
    let check = |headers: &[(&str, &str)], value: &str, expected: &str| {
        assert_eq!(decode(headers, value, None).map(|_| ()), Err(expected.to_owned()), "{headers:?} {value}");
    };
    let version = ("ce_specversion", "1.0");
    let whole = format!(r#"{{"event_time":{TIME},"event_type":"t"}}"#);
    check(&[("ce_specversion", "0.3")], &whole, "unsupported: specversion: only 1.x is read");
    check(&[], r#"{"specversion":"2.0","data":1}"#, "unsupported: specversion: only 1.x is read");
    check(&[("content-type", "application/cloudevents-batch+json")], "[]", "unsupported: a batch of CloudEvents: send one in a record");
    check(&[("content-type", "application/cloudevents-batch+json")], " ", "empty_value");
    check(&[("content-type", "application/cloudevents+protobuf")], "x", "unsupported: a CloudEvent that is not in JSON");
    check(&[], r#"{"specversion":"1.0","data_base64":"e30="}"#, "unsupported: data_base64: data is read as JSON only");
    check(&[version, ("ce_time", "soon")], r#"{"event_type":"t"}"#, "bad_time: ce_time");
    check(&[], r#"{"specversion":"1.0","time":"soon","data":{"event_type":"t"}}"#, "bad_time: time");
    check(&[version], r#"{"event_type":"t"}"#, "missing_field: event_time");
    check(&[version], &format!(r#"{{"event_time":{TIME}}}"#), "missing_field: event_type");
    check(&[version, ("ce_id", "1")], &whole, "missing_field: ce_source");
    check(&[version, ("ce_id", "1"), ("ce_id", "1")], &whole, "duplicate_key: ce_id");
    check(&[], r#"{"specversion":"1.0","id":null,"id":null,"data":{}}"#, "duplicate_key: id");
    check(&[], r#"{"specversion":"1.0","x":1,"x":1,"data":{}}"#, "duplicate_key: an unknown attribute");
    check(&[], r#"{"specversion":"1.0","data":{},"data":{}}"#, "duplicate_key: data");
    check(&[], r#"{"specversion":"1.0","data":[]}"#, "wrong_type: data");
    check(&[], r#"{"specversion":"1.0"}"#, "missing_field: data");
    check(&[], r#"{"specversion":"1.0","data":{"event_type":1}}"#, "wrong_type: event_type");
    check(&[], "{\"specversion\":\"1.0\",\"data\":{\"path\":\"\\ud800\"}}", "invalid_json: data, line 1 column 16");
    check(&[], r#"{"specversion":"1.0","data":{}"#, "invalid_json: line 1 column 30");
    check(&STRUCTURED, "[]", "invalid_json: not an object");
    check(&STRUCTURED, &whole, "missing_field: specversion");
    check(&[version], "[]", "invalid_json: not an object");
}

#[test]
fn the_envelope_is_one_of_the_levels() {
    let data = |levels: usize| format!(r#"{{"data":{}1{}}}"#, r#"{"a":"#.repeat(levels), "}".repeat(levels));
    let refused = |levels| {
        let data = data(levels);
        in_every_mode(&data, &envelope(&data), None).map(|found| found.err())
    };
    assert_eq!(refused(62), [None, None, None]);
    let too_deep = || Some("too_deep: more than 64 levels".to_owned());
    assert_eq!(refused(63), [None, too_deep(), too_deep()]);
}

/// The event without the fields that the attributes are to give, as JSON.
fn data_of(event: &Event<'_>, gives: [bool; 3]) -> String {
    let mut bytes = Vec::new();
    event.encode(&mut bytes);
    let mut json: Json = serde_json::from_slice(&bytes).expect("an event is JSON");
    let object = json.as_object_mut().expect("an event is an object");
    for (name, _) in ["event_id", "event_time", "event_type"].iter().zip(gives).filter(|(_, gives)| *gives) {
        object.remove(*name);
    }
    json.to_string()
}

proptest! {
    #[test]
    fn every_mode_gives_the_same_event(event in events(), gives in any::<[bool; 3]>(), id in "[^\\p{Cc}]{1,20}", data_first in any::<bool>()) {
        let data = data_of(&event, gives);
        let time = format_rfc3339_ms(event.event_time_ms);
        let mut expected = event.clone();
        if gives[0] || event.event_id.is_none() {
            expected.event_id = Some(format!("/shop|{id}").into());
        }
        let headers = [("ce_specversion", "1.0"), ("ce_id", &id), ("ce_source", "/shop"), ("ce_type", &event.event_type), ("ce_time", &time)];
        prop_assert_eq!(decode(&headers, &data, None), Ok(expected.clone()), "{}", data);
        let attributes = format!(
            r#""specversion":"1.0","time":"{time}","id":{},"source":"/shop","type":{}"#,
            Json::from(id.as_str()), Json::from(event.event_type.as_ref()),
        );
        let text = if data_first { format!(r#"{{"data":{data},{attributes}}}"#) } else { format!(r#"{{{attributes},"data":{data}}}"#) };
        prop_assert_eq!(decode(&STRUCTURED, &text, None), Ok(expected.clone()), "{}", &text);
        prop_assert_eq!(decode(&[], &text, None), Ok(expected.clone()), "{}", &text);
        // An event that says everything itself is the same without any envelope.
        if gives == [false; 3] && event.event_id.is_some() {
            prop_assert_eq!(decode(&[], &data, None), Ok(expected.clone()), "{}", &data);
        }
    }

    #[test]
    fn every_mode_is_mapped_alike(event in events()) {
        let mapping = Mapping::compile(&json!({"set": "tripline", "fields": {"data.extra": "user_agent"}})).expect("a mapping");
        // To a mapping `-` is no type, so that only an envelope could give one.
        prop_assume!(event.event_type != "-");
        let data = data_of(&event, [false; 3]);
        let (bare, text) = (decode(&[], &data, Some(&mapping)), envelope(&data));
        let mut expected = bare.clone();
        if let Ok(event) = &mut expected {
            event.event_id.get_or_insert("/shop|17".into());
        }
        for found in in_every_mode(&data, &text, Some(&mapping)) {
            prop_assert_eq!(found, expected.clone());
        }
    }

    #[test]
    fn nothing_in_headers_or_envelopes_panics(
        names in proptest::collection::vec("(ce_(specversion|id|source|type|time)|content-type|x)", 0..6),
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 6),
        text in r#"[\[\]{}",:\\0-9eau\- ]{0,100}"#,
    ) {
        let headers = names.iter().zip(&values).map(|(name, value)| (name.as_str(), Some(value.as_slice())));
        let _ = Event::decode_record(Some(text.as_bytes()), ContentMode::of_headers(headers), None);
        let _ = decode(&STRUCTURED, &envelope(&text), None);
        let _ = decode(&[("ce_specversion", "1.0")], &text, None);
    }
}
