//! Two judges of the compiler: CEL itself where no field is missing, and a tree walker of a few lines where some are.

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

mod in_cel {
    use super::*;

    fn value(json: &Json) -> cel::Value {
        match json {
            Json::Bool(b) => (*b).into(),
            Json::Number(n) => n.as_i64().map_or_else(|| n.as_f64().expect("a float").into(), cel::Value::from),
            Json::String(s) => s.as_str().into(),
            other => panic!("{other} is no scalar"),
        }
    }

    fn map(pairs: impl IntoIterator<Item = (&'static str, cel::Value)>) -> cel::Value {
        cel::Value::Map(pairs.into_iter().collect::<HashMap<_, _>>().into())
    }

    /// The event as CEL sees it: every field a variable, and all of them in `event` for `has()`.
    fn context(fields: &Fields) -> cel::Context<'static, 'static> {
        let at = |name: &str| value(&fields[name]);
        let mut all: Vec<(&'static str, cel::Value)> =
            fields.iter().filter(|(n, _)| !n.contains(['.', '['])).map(|(n, v)| (*n, value(v))).collect();
        all.push(("headers", map([("x-tenant", at("headers[\"x-tenant\"]")), ("host", at("headers.host"))])));
        let form = map([("kind", at("data.form.kind"))]);
        let data =
            [("kind", at("data.kind")), ("amount", at("data.amount")), ("ratio", at("data.ratio")), ("ok", at("data.ok")), ("form", form)];
        all.push(("data", map(data)));
        let mut context = cel::Context::default();
        context.add_variable_from_value("event", map(all.clone()));
        all.into_iter().for_each(|(name, value)| context.add_variable_from_value(name, value));
        let texts = |texts: &[&str]| texts.iter().map(|text| cel::Value::from(*text)).collect::<Vec<_>>();
        let numbers = CODES.1.iter().map(|code| cel::Value::from(code.parse::<i64>().expect("a number")));
        let codes = (CODES.0, cel::Value::from(texts(CODES.1).into_iter().chain(numbers).collect::<Vec<_>>()));
        let lists = LISTS.iter().chain([&OFFICES]).map(|(name, list)| (*name, cel::Value::from(texts(list))));
        context.add_variable_from_value("lists", map(lists.chain([codes])));
        let hour = hour_of_week(fields["event_time"].as_i64().expect("a time"));
        let added = [
            context.add_function("hour_of_week", move || hour),
            context.add_function("duration_ms", |text: Arc<String>| {
                DURATIONS.iter().find(|(t, _)| *t == text.as_str()).map_or(0, |(_, ms)| *ms)
            }),
            context.add_function("cidr", |address: Arc<String>, network: Arc<String>| in_network(&address, &network)),
            context.add_function("cidr_any", |address: Arc<String>, networks: Arc<Vec<cel::Value>>| {
                networks.iter().any(|network| matches!(network, cel::Value::String(n) if in_network(&address, n)))
            }),
            context.add_function("lowerAscii", |This(text): This<Arc<String>>| text.to_ascii_lowercase()),
            context.add_function("upperAscii", |This(text): This<Arc<String>>| text.to_ascii_uppercase()),
            context.add_function("startsWithAny", |This(text): This<Arc<String>>, list: Arc<Vec<cel::Value>>| {
                list.iter().any(|prefix| matches!(prefix, cel::Value::String(p) if text.starts_with(p.as_str())))
            }),
        ];
        assert!(added.iter().all(Result::is_ok), "{added:?}");
        context
    }

    /// CEL's answer; `None` when CEL fails, as on overflow.
    pub fn answer(gen_: &Gen, fields: &Fields) -> Option<Json> {
        let source = gen_.print(Dialect::Cel);
        let program = cel::Program::compile(&source).unwrap_or_else(|error| panic!("{source}: {error}"));
        match program.execute(&context(fields)) {
            Ok(cel::Value::Bool(answer)) => Some(json!(answer)),
            Ok(cel::Value::Int(answer)) => Some(json!(answer)),
            Ok(cel::Value::Float(answer)) => Some(json!(answer)),
            Ok(cel::Value::String(answer)) => Some(json!(*answer)),
            Ok(other) => panic!("{source} is {other:?}"),
            Err(_) => None,
        }
    }
}

mod walked {
    use super::*;

    fn order(left: &Json, right: &Json) -> Option<Ordering> {
        match (left, right) {
            (Json::String(l), Json::String(r)) => Some(l.chars().cmp(r.chars())),
            (Json::Bool(l), Json::Bool(r)) => Some(l.cmp(r)),
            (Json::Number(l), Json::Number(r)) => match (l.as_i64(), r.as_i64()) {
                (Some(l), Some(r)) => Some(l.cmp(&r)),
                (None, None) => l.as_f64()?.partial_cmp(&r.as_f64()?),
                (Some(l), None) => Some((i128::from(l) * SCALE).cmp(&scaled(r.as_f64()?))),
                (None, Some(r)) => Some(scaled(l.as_f64()?).cmp(&(i128::from(r) * SCALE))),
            },
            _ => None,
        }
    }

    /// No float that is drawn is nearer to an integer than this part of one without being it.
    const SCALE: i128 = 1 << 50;

    /// A float in these parts; what is beyond every integer stays so.
    fn scaled(float: f64) -> i128 {
        (float * SCALE as f64) as i128
    }

    fn truth(gen_: &Gen, fields: &Fields) -> bool {
        value(gen_, fields) == Some(Json::Bool(true))
    }

    fn text(gen_: &Gen, fields: &Fields) -> Option<String> {
        value(gen_, fields)?.as_str().map(str::to_owned)
    }

    fn int(gen_: &Gen, fields: &Fields) -> Option<i128> {
        value(gen_, fields)?.as_i64().map(i128::from)
    }

    fn float(gen_: &Gen, fields: &Fields) -> Option<f64> {
        value(gen_, fields)?.as_number().filter(|n| n.is_f64())?.as_f64()
    }

    fn arithmetic(sign: &str, left: &Gen, right: &Gen, fields: &Fields) -> Option<Json> {
        if let (Some(l), Some(r)) = (int(left, fields), int(right, fields)) {
            let result = match sign {
                "+" => l + r,
                "-" => l - r,
                "*" => l * r,
                "/" => l.checked_div(r)?,
                _ => {
                    l.checked_div(r).filter(|q| i64::try_from(*q).is_ok())?;
                    l % r
                }
            };
            return i64::try_from(result).ok().map(Json::from);
        }
        let (l, r) = (float(left, fields)?, float(right, fields)?);
        let result = match sign {
            "+" => l + r,
            "-" => l - r,
            "*" => l * r,
            "/" => l / r,
            _ => return None,
        };
        // Not finite: no JSON number.
        serde_json::Number::from_f64(result).map(Json::Number)
    }

    /// What the expression is; `None` is missing.
    pub fn value(gen_: &Gen, fields: &Fields) -> Option<Json> {
        let question = match gen_ {
            Gen::Bool(b) => return Some(json!(b)),
            Gen::Int(i) => return Some(json!(i)),
            Gen::Float(f) => return Some(json!(f)),
            Gen::Str(s) => return Some(json!(s)),
            Gen::Field(name) => return fields.get(name).cloned(),
            Gen::HourOfWeek => return Some(json!(hour_of_week(fields["event_time"].as_i64()?))),
            Gen::Duration(text) => return DURATIONS.iter().find(|(t, _)| t == text).map(|(_, ms)| json!(ms)),
            Gen::Size(inner) => return text(inner, fields).map(|t| json!(t.chars().count())),
            Gen::Negate(inner) => {
                return int(inner, fields)
                    .and_then(|i| i64::try_from(-i).ok())
                    .map(Json::from)
                    .or_else(|| float(inner, fields).map(|f| json!(-f)));
            }
            Gen::Folded("lowerAscii", inner) => return text(inner, fields).map(|t| json!(t.to_ascii_lowercase())),
            Gen::Folded(_, inner) => return text(inner, fields).map(|t| json!(t.to_ascii_uppercase())),
            Gen::Ternary(parts) => return value(&parts[if truth(&parts[0], fields) { 1 } else { 2 }], fields),
            Gen::Infix(sign @ ("+" | "-" | "*" | "/" | "%"), left, right) => return arithmetic(sign, left, right, fields),
            Gen::Infix("&&", left, right) => truth(left, fields) && truth(right, fields),
            Gen::Infix("||", left, right) => truth(left, fields) || truth(right, fields),
            Gen::Infix(sign, left, right) => compared(sign, left, right, fields).unwrap_or(false),
            Gen::Not(inner) => !truth(inner, fields),
            Gen::Has(name) => fields.contains_key(name),
            Gen::InInts(left, items) => {
                value(left, fields).is_some_and(|v| items.iter().any(|i| order(&v, &json!(i)) == Some(Ordering::Equal)))
            }
            Gen::InCodes(left) => value(left, fields).is_some_and(|v| is_a_code(&v)),
            Gen::InTexts(left, Texts::Named(list)) if *list == CODES.0 => value(left, fields).is_some_and(|v| is_a_code(&v)),
            Gen::InTexts(left, texts) => text(left, fields).is_some_and(|t| texts.items().contains(&t.as_str())),
            Gen::InOffices(address) => text(address, fields).is_some_and(|a| OFFICES.1.iter().any(|n| in_network(&a, n))),
            Gen::StartsWithAny(left, texts) => text(left, fields).is_some_and(|t| texts.items().iter().any(|p| t.starts_with(p))),
            Gen::Cidr(address, network) => text(address, fields).is_some_and(|a| in_network(&a, network)),
            Gen::Method(name, receiver, argument) => match (text(receiver, fields), text(argument, fields)) {
                (Some(text), Some(other)) => match *name {
                    "startsWith" => text.starts_with(&other),
                    "endsWith" => text.ends_with(&other),
                    "contains" => text.contains(&other),
                    _ => regex::Regex::new(&other).expect("a pattern").is_match(&text),
                },
                _ => false,
            },
        };
        Some(json!(question))
    }

    /// Numbers of a list are numbers and texts.
    fn is_a_code(value: &Json) -> bool {
        let number = |code: &str| json!(code.parse::<i64>().expect("a number"));
        CODES.1.iter().any(|code| value == *code || order(value, &number(code)) == Some(Ordering::Equal))
    }

    fn compared(sign: &str, left: &Gen, right: &Gen, fields: &Fields) -> Option<bool> {
        let order = order(&value(left, fields)?, &value(right, fields)?)?;
        Some(match sign {
            "==" => order == Ordering::Equal,
            "!=" => order != Ordering::Equal,
            "<" => order == Ordering::Less,
            "<=" => order != Ordering::Greater,
            ">" => order == Ordering::Greater,
            _ => order != Ordering::Less,
        })
    }
}

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
