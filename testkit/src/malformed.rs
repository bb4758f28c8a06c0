//! Records of every kind that can be wrong, and of kinds that only look wrong: one list for every test that feeds them in.
//!
//! The kinds are the rows of the table in `docs/bad-input.md`. No dependency but `serde_json`: the core's tests include
//! this file by its path.

use serde_json::{Value, json};

/// One record: its key and its value as they stand in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What is special about it, for messages.
    pub what: String,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// The user whose key every sample carries, but those of the kind `wrong_key`.
pub const USER: &str = "u1";

/// Every kind, as the table names them.
pub const KINDS: [&str; 42] = [
    "null_value",
    "empty_value",
    "invalid_utf8",
    "invalid_json",
    "not_an_object",
    "large_value",
    "deep_nesting",
    "duplicate_key",
    "duplicate_key_inside",
    "wrong_type",
    "missing_event_time",
    "missing_event_type",
    "time_in_the_past",
    "time_in_the_future",
    "not_a_time",
    "long_id",
    "control_character",
    "nul_in_text",
    "cloudevent_form",
    "cloudevent_version",
    "cloudevent_without_data",
    "cloudevent_data_not_an_object",
    "cloudevent_attribute_twice",
    "cloudevent_attribute_not_text",
    "cloudevent_id_without_source",
    "cloudevent_bad_time",
    "cloudevent_long_type",
    "cloudevent_control_character",
    "wrong_key",
    "evaluation_panics",
    "unknown_event_type",
    "unknown_field",
    "null_field",
    "empty_id",
    "number_as_id",
    "byte_order_mark",
    "header_case",
    "time_ahead_of_record",
    "cloudevent_long_id",
    "cloudevent_unknown_attribute",
    "cloudevent_needless_attribute",
    "cloudevent_headers_without_version",
];

/// Samples of a kind; none for a kind that is not in [`KINDS`], and none for `evaluation_panics`, which no record causes by itself.
pub fn samples(kind: &str) -> Vec<Sample> {
    let values: Vec<Option<Vec<u8>>> = match kind {
        "null_value" => vec![None],
        "empty_value" => texts(["", " ", "\n", " \t\r\n "]),
        "invalid_utf8" => [&b"\xff"[..], b"{\"event_type\":\"\xc3\"}", b"\xed\xa0\x80", b"{\"path\":\"\xf0\x9f\x98\"}", b"\xef\xbb"]
            .iter()
            .map(|b| Some(b.to_vec()))
            .collect(),
        "invalid_json" => broken_json(),
        "not_an_object" => texts(["[]", "1", "null", "true", "\"text\"", "[{\"event_type\":\"t\"}]"]),
        "large_value" => vec![event(json!({"data": {"blob": "x".repeat(1 << 20)}})), event(json!({"path": "/".repeat(1 << 20)}))],
        "deep_nesting" => deep(),
        "duplicate_key" => with_text(["\"user_id\":\"u2\"", "\"event_type\":\"t\"", "\"x\":1,\"x\":1", "\"\\u0075ser_id\":null"]),
        "duplicate_key_inside" => with_text([
            "\"data\":{\"a\":1,\"a\":1}",
            "\"data\":{\"a\":[{\"b\":{\"c\":1,\"c\":2}}]}",
            "\"headers\":{\"host\":\"a\",\"host\":\"b\"}",
        ]),
        "wrong_type" => wrong_types(),
        "missing_event_time" => vec![without("event_time"), event(json!({"event_time": null}))],
        "missing_event_type" => vec![without("event_type"), event(json!({"event_type": null})), event(json!({"event_type": ""}))],
        "time_in_the_past" => times([json!("1999-12-31T23:59:59.999Z"), json!(0), json!(-1), json!(i64::MIN), json!(1_770_108_800)]),
        "time_in_the_future" => times([json!("2100-01-01T00:00:00Z"), json!("9999-12-31T23:59:59Z"), json!(i64::MAX), json!(u64::MAX)]),
        "not_a_time" => times([json!(""), json!("yesterday"), json!("2026-02-30T00:00:00Z"), json!("2026-02-03"), json!("1770108800123")]),
        "long_id" => ids(|field| json!({ field: "i".repeat(257) })).chain([event(json!({"event_type": "t".repeat(1_000)}))]).collect(),
        "control_character" => control_characters(),
        "nul_in_text" => {
            [json!({"path": "a\0b"}), json!({"headers": {"a": "\0"}}), json!({"data": {"a": ["\0"]}}), json!({"data": {"\0": 1}})]
                .map(event)
                .into()
        }
        "wrong_key" | "evaluation_panics" => Vec::new(),
        "unknown_event_type" => vec![event(json!({"event_type": "never heard of"})), event(json!({"event_type": "☂"}))],
        "unknown_field" => with_text(["\"x\":{\"a\":1,\"a\":2}", "\"Event_Id\":7,\"\":null", "\"_v\":9"]),
        "null_field" => vec![event(json!({"path": null, "status_code": null, "headers": null, "data": null, "is_staff": null}))],
        "empty_id" => ids(|field| json!({ field: "" })).collect(),
        "number_as_id" => ids(|field| json!({ field: u64::MAX })).chain([event(json!({"tenant_id": -1}))]).collect(),
        "byte_order_mark" => vec![event(json!({})).map(|value| [b"\xef\xbb\xbf", value.as_slice()].concat())],
        "header_case" => with_text(["\"headers\":{\"Host\":\"a\",\"host\":\"b\",\"X-N\":1,\"x-t\":true,\"x-null\":null}"]),
        "time_ahead_of_record" => vec![event(json!({"event_time": "2099-12-31T23:59:59Z"}))],
        _ => Vec::new(),
    };
    if kind == "wrong_key" {
        return [None, Some("u2"), Some("ip:u1"), Some(""), Some("user:"), Some("u1 ")]
            .iter()
            .map(|key| {
                let key = key.map(|k| k.as_bytes().to_vec());
                Sample { what: format!("{kind}: {key:?}"), key, value: event(json!({})), headers: Vec::new() }
            })
            .collect();
    }
    let records = values.into_iter().map(|value| (Vec::new(), value)).chain(cloud_events(kind));
    let sample =
        |(index, (headers, value))| Sample { what: format!("{kind}: {index}"), key: Some(USER.as_bytes().to_vec()), value, headers };
    records.enumerate().map(sample).collect()
}

/// Headers and value.
type CloudEvent = (Vec<(String, Vec<u8>)>, Option<Vec<u8>>);

/// Samples of the kinds that CloudEvents have of their own.
fn cloud_events(kind: &str) -> Vec<CloudEvent> {
    const DEL: &str = "a\u{7f}b";
    let whole = event(json!({"event_id": "17"}));
    let content_type = |name: &str| vec![("content-type".to_owned(), name.as_bytes().to_vec())];
    match kind {
        "cloudevent_form" => vec![
            (content_type("application/cloudevents-batch+json"), Some(b"[]".to_vec())),
            (content_type("Application/CloudEvents-Batch+JSON; charset=utf-8"), whole.clone()),
            (content_type("application/cloudevents+avro"), whole),
            envelope(json!({"data": null, "data_base64": "e30="})),
            envelope(json!({"data_base64": "e30="})),
        ],
        "cloudevent_version" => [json!("0.3"), json!("2.0"), json!("1"), json!("1."), json!("1.x"), json!("")]
            .into_iter()
            .flat_map(|version| [binary(json!({"ce_specversion": version})), envelope(json!({"specversion": version}))])
            .collect(),
        "cloudevent_without_data" => vec![envelope(json!({"data": null}))],
        "cloudevent_data_not_an_object" => {
            [json!("{}"), json!(1), json!([{}]), json!(false)].map(|data| envelope(json!({ "data": data }))).into()
        }
        "cloudevent_attribute_twice" => {
            let (headers, value) = binary(json!({}));
            let twice = [headers.clone(), headers].concat();
            let text = envelope(json!({})).1.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).replacen('{', "{\"type\":\"a\",", 1);
            vec![(twice, value), (Vec::new(), Some(text.into_bytes()))]
        }
        "cloudevent_attribute_not_text" => {
            let bytes = |name: &str| {
                let (mut headers, value) = binary(json!({}));
                headers.iter_mut().filter(|(header, _)| header == name).for_each(|(_, value)| *value = b"a\xff".to_vec());
                (headers, value)
            };
            let names = ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"];
            let members = [json!({"id": 1}), json!({"source": {}}), json!({"type": true}), json!({"time": 1_770_108_800_123_i64})];
            names.map(bytes).into_iter().chain(members.map(envelope)).collect()
        }
        "cloudevent_id_without_source" => [json!(null), json!("")]
            .into_iter()
            .flat_map(|source| [binary(json!({"ce_source": source})), envelope(json!({"source": source}))])
            .collect(),
        "cloudevent_bad_time" => ["", "yesterday", "2026-02-03", "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "1770108800123"]
            .into_iter()
            .flat_map(|time| [binary(json!({"ce_time": time})), envelope(json!({"time": time}))])
            .collect(),
        "cloudevent_long_type" => {
            let long = "t".repeat(257);
            vec![binary(json!({"ce_type": long})), envelope(json!({"type": long}))]
        }
        "cloudevent_control_character" => ["id", "source", "type"]
            .into_iter()
            .flat_map(|name| [binary(json!({ format!("ce_{name}"): DEL })), envelope(json!({ name: DEL }))])
            .collect(),
        "cloudevent_long_id" => {
            let long = "i".repeat(10_000);
            vec![binary(json!({"ce_id": long})), envelope(json!({"source": long, "specversion": "1.1"}))]
        }
        "cloudevent_unknown_attribute" => {
            vec![
                binary(json!({"ce_traceparent": DEL, "ce_": ""})),
                envelope(json!({"subject": 7, "x": {"a": [1]}, "datacontenttype": "x"})),
            ]
        }
        "cloudevent_needless_attribute" => {
            let own = json!({"event_id": "e", "event_time": "2026-02-03T08:53:20Z", "event_type": "t", "user_id": USER});
            let wrong = json!({"ce_id": DEL, "ce_source": null, "ce_type": "", "ce_time": "yesterday"});
            let text = own.to_string().into_bytes();
            vec![(binary(wrong).0, Some(text)), envelope(json!({"data": own, "id": 1, "source": null, "type": [], "time": "soon"}))]
        }
        "cloudevent_headers_without_version" => {
            vec![(vec![("ce_time".to_owned(), b"soon".to_vec()), ("ce_type".to_owned(), b"\xff".to_vec())], event(json!({})))]
        }
        _ => Vec::new(),
    }
}

/// A valid CloudEvent in binary mode, whose data lacks what the headers give; some headers replaced, null ones left out.
fn binary(headers: Value) -> CloudEvent {
    let mut all = json!({"ce_specversion": "1.0", "ce_id": "17", "ce_source": "/shop", "ce_type": "http_request",
        "ce_time": "2026-02-03T08:53:20.123Z", "content-type": "application/json"});
    if let (Some(all), Value::Object(headers)) = (all.as_object_mut(), headers) {
        all.extend(headers);
    }
    let texts = all.as_object().into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.into())));
    (texts.collect(), Some(json!({ "user_id": USER }).to_string().into_bytes()))
}

/// The same in structured mode, with a header that says so.
fn envelope(members: Value) -> CloudEvent {
    let mut all = json!({"specversion": "1.0", "id": "17", "source": "/shop", "type": "http_request",
        "time": "2026-02-03T08:53:20.123Z", "data": {"user_id": USER}});
    if let (Some(all), Value::Object(members)) = (all.as_object_mut(), members) {
        all.extend(members);
    }
    let header = ("content-type".to_owned(), b"application/cloudevents+json".to_vec());
    (vec![header], Some(all.to_string().into_bytes()))
}

/// A valid event with some fields replaced.
fn event(fields: Value) -> Option<Vec<u8>> {
    let mut event = valid();
    if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
        event.extend(fields);
    }
    Some(event.to_string().into_bytes())
}

fn valid() -> Value {
    json!({"event_time": "2026-02-03T08:53:20.123Z", "event_type": "http_request", "user_id": USER, "path": "/api/v1/orders/17", "status_code": 200})
}

fn without(field: &str) -> Option<Vec<u8>> {
    let mut event = valid();
    if let Some(event) = event.as_object_mut() {
        event.remove(field);
    }
    Some(event.to_string().into_bytes())
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<Option<Vec<u8>>> {
    texts.iter().map(|text| Some(text.as_bytes().to_vec())).collect()
}

/// A valid event with more members, written out: a map could not hold a key twice.
fn with_text<const N: usize>(members: [&str; N]) -> Vec<Option<Vec<u8>>> {
    let valid = valid().to_string();
    members.iter().map(|members| Some(format!("{},{members}}}", &valid[..valid.len() - 1]).into_bytes())).collect()
}

fn times<const N: usize>(times: [Value; N]) -> Vec<Option<Vec<u8>>> {
    times.into_iter().map(|time| event(json!({ "event_time": time }))).collect()
}

fn ids(fields: impl Fn(&str) -> Value) -> impl Iterator<Item = Option<Vec<u8>>> {
    let names = ["event_id", "tenant_id", "session_id", "device_id", "request_id"];
    names.map(|name| event(fields(name))).into_iter()
}

fn broken_json() -> Vec<Option<Vec<u8>>> {
    let whole = event(json!({"data": {"a": [1, 2.5, "x"]}})).unwrap_or_default();
    // Cut anywhere it is broken: the closing brace is the last byte.
    let mut values: Vec<_> = (1..whole.len()).map(|end| Some(whole[..end].to_vec())).collect();
    values.extend(texts([
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "{} {}",
        "{}x",
        "{\"a\":NaN}",
        "{\"path\":\"\\ud800\"}",
    ]));
    values.extend(texts(["{\"path\":\"a\tb\"}", "\0{}", "{\"data\":{\"a\":1e400}}"]));
    values
}

fn deep() -> Vec<Option<Vec<u8>>> {
    let mut values = Vec::new();
    for levels in [64, 200, 10_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            for field in ["data", "headers", "x", "user_id"] {
                values.push(Some(format!("{{\"{field}\":{nested}}}").into_bytes()));
            }
            values.push(Some(open.repeat(levels + 1).into_bytes()));
        }
    }
    values
}

fn wrong_types() -> Vec<Option<Vec<u8>>> {
    let text = [
        "tenant_name",
        "method",
        "path",
        "route",
        "user_agent",
        "country",
        "role",
        "outcome",
        "anomaly_type",
        "blocked_by",
        "ip_address",
        "event_type",
    ];
    let ids = ["event_id", "tenant_id", "user_id", "session_id", "device_id", "request_id"];
    let ints = ["status_code", "response_time_ms", "request_bytes", "response_bytes", "asn"];
    let mut values = Vec::new();
    let mut each = |fields: &[&str], wrong: &[Value]| {
        for field in fields {
            values.extend(wrong.iter().map(|wrong| event(json!({ *field: wrong }))));
        }
    };
    each(&text, &[json!(1), json!(1.5), json!(true), json!([]), json!({"a": 1})]);
    each(&ids, &[json!(1.5), json!(true), json!(["a"]), json!({})]);
    each(&ints, &[json!("200"), json!(200.0), json!(true), json!([200]), json!({}), json!(u64::MAX), json!(1e300)]);
    each(&["is_staff", "is_authenticated"], &[json!("true"), json!(1), json!(0.5), json!([]), json!({})]);
    each(&["event_time"], &[json!(1_770_108_800_123.0), json!(true), json!([2026]), json!({})]);
    each(&["headers", "data"], &[json!("x"), json!(1), json!(-1), json!(0.5), json!(true), json!([{"a": 1}])]);
    each(&["headers"], &[json!({"accept": ["a"]}), json!({"accept": {}})]);
    values
}

fn control_characters() -> Vec<Option<Vec<u8>>> {
    let mut values = Vec::new();
    for field in ["event_id", "event_type", "tenant_id", "user_id", "session_id", "device_id", "request_id", "ip_address", "anomaly_type"] {
        values.extend(['\0', '\u{1f}', '\n', '\u{7f}', '\u{80}', '\u{9f}'].map(|c| event(json!({ field: format!("a{c}b") }))));
    }
    values
}
