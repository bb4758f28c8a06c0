//! The first judge: the `cel` crate, for events that have all fields.

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
        context
            .add_function("duration_ms", |text: Arc<String>| DURATIONS.iter().find(|(t, _)| *t == text.as_str()).map_or(0, |(_, ms)| *ms)),
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
