//! Two judges of the compiler: CEL itself where no field is missing, and a tree walker of a few lines where some are.

mod in_cel;
mod walked;

use super::generate::*;
use crate::event::Event;
use crate::expr::{Expr, Scope};
use crate::value::Value;
use cel::extractors::This;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What an event holds, by the name that expressions use.
pub(super) type Fields = HashMap<&'static str, Json>;

/// Fields with values of their own types; with `gaps` some are absent and those of `data` have any type.
pub(super) fn fields(c: &mut Choices<'_>, gaps: bool) -> Fields {
    let mut fields = Fields::new();
    let kinds: [(&[&'static str], usize); 4] = [(STRING_FIELDS, 0), (INT_FIELDS, 1), (FLOAT_FIELDS, 2), (BOOL_FIELDS, 3)];
    for (names, kind) in kinds {
        for name in names {
            let absent = gaps && *name != "event_time" && c.below(2) == 0;
            let kind = if gaps && name.starts_with("data.") { c.below(4) } else { kind };
            let value = match kind {
                0 => json!(c.one(STRINGS)),
                1 => json!(c.one(INTS)),
                2 => json!(c.one(FLOATS)),
                _ => json!(c.below(2) == 0),
            };
            if !absent {
                fields.insert(name, value);
            }
        }
    }
    fields
}

pub(super) fn event(fields: &Fields) -> Event<'static> {
    let text = |name: &str| fields.get(name).and_then(Json::as_str).map(|s| s.to_owned().into());
    let int = |name: &str| fields.get(name).and_then(Json::as_i64);
    let truth = |name: &str| fields.get(name).and_then(Json::as_bool);
    let headers = [("x-tenant", "headers[\"x-tenant\"]"), ("host", "headers.host")];
    let mut data = Map::new();
    for name in ["kind", "amount", "ratio", "ok"] {
        fields.get(format!("data.{name}").as_str()).map(|value| data.insert(name.to_owned(), value.clone()));
    }
    fields.get("data.form.kind").map(|value| data.insert("form".to_owned(), json!({ "kind": value })));
    Event {
        event_time_ms: int("event_time").expect("always there"),
        event_type: "http_request".into(),
        method: text("method"),
        path: text("path"),
        route: text("route"),
        user_id: text("user_id"),
        ip_address: text("ip_address"),
        role: text("role"),
        status_code: int("status_code"),
        response_time_ms: int("response_time_ms"),
        asn: int("asn"),
        is_staff: truth("is_staff"),
        is_authenticated: truth("is_authenticated"),
        headers: headers.iter().filter_map(|(name, field)| Some(((*name).into(), text(field)?))).collect(),
        data,
        ..Event::default()
    }
}

pub(super) fn compiled(gen_: &Gen) -> Expr {
    let scope = Scope {
        lists: LISTS
            .iter()
            .chain([&CODES, &OFFICES])
            .map(|(name, texts)| ((*name).to_owned(), texts.iter().map(|t| (*t).to_owned()).collect()))
            .collect(),
        ..Scope::default()
    };
    let source = gen_.print(Dialect::Ours);
    Expr::compile(&source, &scope).unwrap_or_else(|error| panic!("{source}: {error:?}"))
}

fn in_network(address: &str, network: &str) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().iter().map(|o| format!("{o:08b}")).collect::<String>(),
        IpAddr::V6(v6) => v6.octets().iter().map(|o| format!("{o:08b}")).collect::<String>(),
    };
    let (base, length) = network.split_once('/').expect("a network");
    let (base, length): (IpAddr, usize) = (base.parse().expect("an address"), length.parse().expect("a length"));
    address.parse::<IpAddr>().is_ok_and(|a| a.is_ipv4() == base.is_ipv4() && bits(a)[..length] == bits(base)[..length])
}

/// Asked of a calendar, not of a modulus.
fn hour_of_week(time_ms: i64) -> i64 {
    let time = jiff::Timestamp::from_millisecond(time_ms).expect("a time").to_zoned(jiff::tz::TimeZone::UTC);
    i64::from(time.weekday().to_monday_zero_offset()) * 24 + i64::from(time.hour())
}

/// An event's time lies between 2000 and 2100.
const TIMES: &[i64] = &[946_684_800_000, 1_795_255_200_000, 1_795_391_999_999, 1_795_392_000_000, 4_102_444_799_999];

/// How many answers each oracle is asked for with fixed seeds; without optimisation fewer.
fn cases() -> usize {
    let by_default = if cfg!(debug_assertions) { 2_000 } else { 100_000 };
    std::env::var("TRIPLINE_EXPR_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(by_default)
}

/// An expression and an event from the same bytes.
fn drawn(bytes: &[u8], gaps: bool) -> (Gen, Fields) {
    let mut choices = Choices::new(bytes);
    let mut fields = fields(&mut choices, gaps);
    fields.insert("event_time", json!(choices.one(TIMES)));
    (anything(&mut choices, 4), fields)
}

/// Bytes from a number, by SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn seeded(mut state: u64) -> Vec<u8> {
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..25).flat_map(|_| next().to_le_bytes()).collect()
}

fn ours(gen_: &Gen, fields: &Fields) -> Option<Json> {
    match compiled(gen_).eval(&event(fields)) {
        Value::Missing => None,
        value => Some(value.to_json()),
    }
}

/// CEL's answer, which is ours; `None` where it has none because a result does not fit.
#[track_caller]
fn agrees_with_cel(bytes: &[u8]) -> Option<Option<Json>> {
    let (gen_, fields) = drawn(bytes, false);
    let expected = in_cel::answer(&gen_, &fields)?;
    assert_eq!(ours(&gen_, &fields).as_ref(), Some(&expected), "{} with {:?}", gen_.print(Dialect::Cel), fields);
    Some(Some(expected))
}

/// The walker's answer, which is ours.
#[track_caller]
fn agrees_with_the_walker(bytes: &[u8]) -> Option<Option<Json>> {
    let (gen_, fields) = drawn(bytes, true);
    let expected = walked::value(&gen_, &fields);
    assert_eq!(ours(&gen_, &fields), expected, "{} with {:?}", gen_.print(Dialect::Ours), fields);
    let holds = compiled(&gen_).holds(&event(&fields));
    assert_eq!(holds, expected == Some(json!(true)), "{} with {:?}", gen_.print(Dialect::Ours), fields);
    Some(expected)
}

/// What a judge answered, by kind. A seed without an answer does not count as asked. Threads share the work, because CEL
/// takes its time.
fn ask(judge: fn(&[u8]) -> Option<Option<Json>>) -> HashMap<String, usize> {
    const THREADS: usize = 4;
    let each = cases().div_ceil(THREADS);
    let share = move |thread: usize| {
        let answers = (0_u64..).filter_map(|i| judge(&seeded((thread as u64) << 48 | i)));
        answers.take(each).collect::<Vec<_>>()
    };
    let threads: Vec<_> = (0..THREADS).map(|thread| std::thread::spawn(move || share(thread))).collect();
    let mut seen = HashMap::new();
    for answer in threads.into_iter().flat_map(|thread| thread.join().expect("agrees")) {
        let kind = answer.map_or("missing".to_owned(), |value| if value.is_boolean() { value.to_string() } else { "a value".to_owned() });
        *seen.entry(kind).or_insert(0) += 1;
    }
    seen
}

/// Both answers are common, so that a judge which always says the same would be noticed.
fn has_all(seen: &HashMap<String, usize>, kinds: &[&str]) {
    let asked: usize = seen.values().sum();
    assert!(asked >= cases(), "{seen:?}");
    kinds.iter().for_each(|kind| assert!(seen.get(*kind).is_some_and(|count| count * 12 > asked), "{kind}: {seen:?}"));
}

#[test]
fn what_cel_answers_we_answer_for_all_seeds() {
    has_all(&ask(agrees_with_cel), &["true", "false", "a value"]);
}

#[test]
fn with_fields_missing_we_answer_as_the_tree_walker_for_all_seeds() {
    has_all(&ask(agrees_with_the_walker), &["true", "false", "a value", "missing"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_cel_answers_we_answer(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        agrees_with_cel(&bytes);
    }

    #[test]
    fn with_fields_missing_we_answer_as_the_tree_walker(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        agrees_with_the_walker(&bytes);
    }
}
