//! Promise of the expression language: evaluating allocates nothing. A binary of its own, because it counts allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use tripline_core::event::Event;
use tripline_core::expr::plan::{Plan, PlanRule, Scratch};
use tripline_core::expr::{Expr, Scope};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more; it is not the one that is measured.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, that is from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const SOURCES: &[&str] = &[
    "method == \"POST\" && status_code in [401, 403] || user_id != \"u1\"",
    "path.startsWithAny(lists.prefixes) && path.lowerAscii().startsWithAny(lists.prefixes)",
    "path.lowerAscii().contains(\"wp-admin\") || path.upperAscii() == path || method.lowerAscii() in lists.prefixes",
    "path.matches(\"^/[A-Z]\\\\w+/\\\\d+$\") || path.contains(method) || size(path) > 3",
    "cidr(ip_address, [\"10.0.0.0/8\", \"2001:db8::/32\"]) && hour_of_week() >= 0",
    "data.form.kind == \"login\" && data.amount * 2 / 3 > -1 && has(data.form.kind)",
    "headers[\"x-tenant\"] != \"\" ? headers[\"x-tenant\"] : (has(user_id) ? user_id : \"nobody\")",
];

fn scope() -> Scope {
    Scope { lists: [("prefixes".to_owned(), (0..30).map(|i| format!("/p{i}/")).collect())].into(), ..Scope::default() }
}

fn event() -> Event<'static> {
    let data = serde_json::json!({ "form": { "kind": "login" }, "amount": 7 });
    Event {
        event_type: "http_request".into(),
        method: Some("POST".into()),
        path: Some("/P29/7".into()),
        ip_address: Some("2001:db8::1".into()),
        status_code: Some(403),
        data: data.as_object().cloned().unwrap_or_default(),
        ..Event::default()
    }
}

#[test]
fn selecting_rules_allocates_nothing() {
    let scope = scope();
    let exprs: Vec<Expr> = SOURCES.iter().chain(SOURCES).filter_map(|source| Expr::compile(source, &scope).ok()).collect();
    let steps: Vec<&Expr> = exprs.iter().take(6).collect();
    let mut rules: Vec<PlanRule<'_>> = exprs.iter().map(|when| PlanRule { when: Some(when), ..PlanRule::default() }).collect();
    rules.push(PlanRule { on: Some("http_request"), when: exprs.first(), any_of: &steps });
    rules.push(PlanRule { on: Some("order"), when: None, any_of: &[] });
    let (plan, event, bare) = (Plan::build(&rules), event(), Event { event_type: "order".into(), ..Event::default() });
    let (mut scratch, mut selected) = (Scratch::new(), Vec::with_capacity(rules.len()));
    plan.select(&event, &mut scratch, &mut selected);
    assert!(selected.len() > 8 && scratch.asked() > 8, "there is something to do: {selected:?}");
    let count = || ALLOCATIONS.with(Cell::get);
    let before = count();
    for _ in 0..100 {
        plan.select(black_box(&event), &mut scratch, &mut selected);
        black_box((&selected, plan.holds(&scratch, 14, 3)));
        plan.select(black_box(&bare), &mut scratch, &mut selected);
    }
    assert_eq!(count(), before);
}

#[test]
fn evaluating_allocates_nothing() {
    let (scope, event) = (scope(), event());
    let count = || ALLOCATIONS.with(Cell::get);
    let before = count();
    black_box(Box::new(1));
    assert!(count() > before, "the counter counts");
    for source in SOURCES {
        let expr = Expr::compile(source, &scope).unwrap_or_else(|error| panic!("{source}: {error:?}"));
        // The first use of a regular expression builds its scratch space.
        black_box(expr.eval(&event));
        let before = count();
        for _ in 0..100 {
            black_box(expr.eval(black_box(&event)));
            black_box(expr.holds(black_box(&event)));
        }
        assert_eq!(count(), before, "{source}");
    }
}
