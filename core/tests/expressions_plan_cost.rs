//! What a plan costs: with many rules of which few concern an event, hardly more than with few. Times are printed, not judged
//! (`cargo test --release --workspace plan_costs -- --nocapture`); what is judged is how many rules were asked.

use std::hint::black_box;
use std::time::{Duration, Instant};
use tripline_core::event::Event;
use tripline_core::expr::plan::{Plan, PlanRule, Scratch};
use tripline_core::expr::{Expr, Scope};

/// The least of some runs, in nanoseconds per event: others use the machine, too.
fn nanoseconds_per_event(events: &[Event<'_>], mut look_at: impl FnMut(&Event<'_>)) -> f64 {
    let times = if cfg!(debug_assertions) { 1 } else { 30 };
    let run = |look_at: &mut dyn FnMut(&Event<'_>)| {
        let start = Instant::now();
        (0..times).for_each(|_| events.iter().for_each(&mut *look_at));
        start.elapsed()
    };
    let least: Duration = (0..7).map(|_| run(&mut look_at)).min().unwrap_or_default();
    least.as_secs_f64() * 1e9 / (times * events.len()) as f64
}

/// Requests of ten users to eight paths with five answers.
fn requests() -> Vec<Event<'static>> {
    let paths = ["/", "/api/v1/auth/login", "/api/v1/items/17", "/admin/users/7", "/static/app.js", "/api/v1/users/3", "/cart", "/search"];
    let request = |i: usize| Event {
        event_time_ms: 1_795_255_200_000 + i as i64,
        event_type: "http_request".into(),
        user_id: Some(format!("u{}", i % 10).into()),
        ip_address: Some("203.0.113.9".into()),
        tenant_id: Some("t1".into()),
        method: Some(["GET", "GET", "POST"][i % 3].into()),
        path: Some(paths[i % 8].into()),
        route: Some(paths[(i + 3) % 8].into()),
        status_code: Some([200, 200, 403, 404, 400][i % 5]),
        response_time_ms: Some(i as i64 % 90),
        headers: vec![("host".into(), "shop.example".into()), ("x-tenant".into(), "t1".into())],
        ..Event::default()
    };
    (0..240).map(request).collect()
}

fn report(name: &str, rules: &[PlanRule<'_>]) -> usize {
    let (plan, events) = (Plan::build(rules), requests());
    let (mut scratch, mut selected, mut asked, mut found) = (Scratch::new(), Vec::new(), 0, 0);
    for event in &events {
        plan.select(event, &mut scratch, &mut selected);
        asked += scratch.asked();
        found += selected.len();
    }
    let planned = nanoseconds_per_event(&events, |event| {
        plan.select(event, &mut scratch, &mut selected);
        black_box(&selected);
    });
    let one_by_one = nanoseconds_per_event(&events, |event| {
        let holds =
            |rule: &&PlanRule<'_>| rule.on.is_none_or(|on| on == event.event_type) && rule.when.is_none_or(|when| when.holds(event));
        black_box(rules.iter().filter(holds).count());
    });
    let of = |count: usize| count as f64 / events.len() as f64;
    println!(
        "{name}: {planned:.0} ns/event, one by one {one_by_one:.0}; {:.2} asked and {:.2} found of {}",
        of(asked),
        of(found),
        rules.len()
    );
    asked
}

/// Sixteen rules on the requests, the rest on other types, paths, users and values.
fn synthetic(rules: usize) -> Vec<(Option<&'static str>, Expr)> {
    let source = |i: usize| match i {
        0..16 => (Some("http_request"), format!("status_code in [401, 403] && response_time_ms > {i} && path.startsWith('/admin/')")),
        _ => match i % 6 {
            0 => (Some("order_placed"), format!("data.amount > {i}")),
            1 => (Some("http_request"), format!("path.startsWith('/shop{i}/') && status_code == 403")),
            2 => (None, format!("user_id == 'u{i}' && path.matches('^/api/v[0-9]+/')")),
            3 => (Some("http_request"), format!("data.kind{i} == 'x' && method == 'POST'")),
            4 => (Some("http_request"), format!("method == 'POST' && path.startsWithAny(['/pay{i}/', '/refund{i}/'])")),
            _ => (Some("http_request"), format!("status_code == {i} && !(path.contains('health'))")),
        },
    };
    let compiled = |(on, source): (_, String)| (on, Expr::compile(&source, &Scope::default()).expect("compiles"));
    (0..rules).map(source).map(compiled).collect()
}

/// What the rules of the pack `anomaly-infra` ask; the last one looks at every event type.
const PREDICATES: &[&str] = &[
    "!reported && header_tenant != '' && tenant_id != '' && header_tenant != tenant_id",
    "!reported && status_code == 400",
    "!reported && status_code == 403",
    "!reported && method.upperAscii() in ['POST', 'PUT', 'PATCH', 'DELETE'] && path.startsWithAny(lists.sensitive_prefixes)",
    "!reported && path.startsWithAny(lists.probe_prefixes)",
    "anomaly_type != ''",
];

/// The lists and lets of that pack.
fn anomaly_infra() -> Scope {
    let owned = |(name, texts): (&str, &[&str])| (name.to_owned(), texts.iter().map(|text| (*text).to_owned()).collect());
    let sensitive: &[&str] = &["/api/v1/auth/", "/api/v1/account/", "/api/v1/users/", "/api/v1/invoice/", "/api/v1/payments/"];
    let probed: &[&str] = &["/admin/", "/api/v1/account/roles/", "/api/v1/users/"];
    Scope {
        lists: [("sensitive_prefixes", sensitive), ("probe_prefixes", probed)].map(owned).into(),
        lets: [
            ("reported", "anomaly_type != ''"),
            ("header_tenant", "headers['x-tenant'] != '' ? headers['x-tenant'] : headers['x-tenant-id']"),
        ]
        .map(|(name, source)| (name.to_owned(), source.to_owned()))
        .into(),
    }
}

#[test]
fn plan_costs_little_for_rules_that_do_not_concern_an_event() {
    let scope = anomaly_infra();
    let rules: Vec<Expr> = PREDICATES.iter().map(|source| Expr::compile(source, &scope).expect("compiles")).collect();
    let on = |i: usize| (i < 5).then_some("http_request");
    let rules: Vec<PlanRule<'_>> =
        rules.iter().enumerate().map(|(i, when)| PlanRule { on: on(i), when: Some(when), any_of: &[] }).collect();
    report("anomaly-infra", &rules);
    let asked = [16, 100, 1000].map(|count| {
        let rules = synthetic(count);
        let rules: Vec<PlanRule<'_>> = rules.iter().map(|(on, when)| PlanRule { on: *on, when: Some(when), any_of: &[] }).collect();
        report(&format!("synthetic {count}"), &rules)
    });
    assert!(asked[0] > 0);
    // Rules on a status above 400 ask about some of the requests: 403, 404 and 400 are not among their numbers up to 100.
    assert_eq!(asked[0], asked[1], "rules that do not concern the events are not asked");
    assert!(asked[2] <= asked[0] + 240, "{asked:?}");
}
