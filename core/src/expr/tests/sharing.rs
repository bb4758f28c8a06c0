//! A plan answers as the rules one by one would, and asks less.

use super::generate::{Choices, boolean};
use super::oracles::{compiled as generated, event, fields};
use super::{compiled, refused_request};
use crate::event::Event;
use crate::expr::Expr;
use crate::expr::plan::{Plan, PlanRule, Scratch};
use proptest::prelude::*;
use std::borrow::Cow;
use std::cell::Cell;

thread_local! {
    /// How often a regular expression was run in this thread. Counted in tests only.
    pub(in crate::expr) static PATTERNS_RUN: Cell<usize> = const { Cell::new(0) };
}

fn patterns_run(during: impl FnOnce()) -> usize {
    let before = PATTERNS_RUN.get();
    during();
    PATTERNS_RUN.get() - before
}

/// A rule with what it borrows.
#[derive(Debug)]
struct Owned {
    on: Option<&'static str>,
    when: Option<Expr>,
    any_of: Vec<Expr>,
}

impl Owned {
    fn when(on: Option<&'static str>, source: &str) -> Owned {
        Owned { on, when: Some(compiled(source)), any_of: Vec::new() }
    }

    fn common(&self, event: &Event<'_>) -> bool {
        self.on.is_none_or(|on| on == event.event_type) && self.when.as_ref().is_none_or(|when| when.holds(event))
    }

    /// Which alternatives hold, one by one; a rule without any has one, itself.
    fn one_by_one(&self, event: &Event<'_>) -> Vec<bool> {
        if self.any_of.is_empty() {
            return vec![self.common(event)];
        }
        self.any_of.iter().map(|alternative| self.common(event) && alternative.holds(event)).collect()
    }
}

fn plan(rules: &[Owned]) -> Plan {
    let alternatives: Vec<Vec<&Expr>> = rules.iter().map(|rule| rule.any_of.iter().collect()).collect();
    let rows = rules.iter().zip(&alternatives);
    let rows: Vec<PlanRule<'_>> = rows.map(|(rule, any_of)| PlanRule { on: rule.on, when: rule.when.as_ref(), any_of }).collect();
    Plan::build(&rows)
}

#[track_caller]
fn agrees(plan: &Plan, rules: &[Owned], event: &Event<'_>, scratch: &mut Scratch) {
    let mut selected = vec![usize::MAX];
    plan.select(event, scratch, &mut selected);
    let one_by_one: Vec<Vec<bool>> = rules.iter().map(|rule| rule.one_by_one(event)).collect();
    let expected: Vec<usize> = (0..rules.len()).filter(|rule| one_by_one[*rule].contains(&true)).collect();
    assert_eq!(selected, expected, "{rules:?} of {event:?}");
    for (rule, answers) in one_by_one.iter().enumerate() {
        let told: Vec<bool> = (0..answers.len()).map(|alternative| plan.holds(scratch, rule, alternative)).collect();
        assert_eq!(&told, answers, "rule {rule} of {rules:?} of {event:?}");
        assert!(!plan.holds(scratch, rule, answers.len()), "there is no such alternative");
    }
    assert!(!plan.holds(scratch, rules.len(), 0), "there is no such rule");
}

const TYPES: &[&str] = &["http_request", "order", "login"];

fn drawn_rule(c: &mut Choices<'_>) -> Owned {
    let on = if c.below(3) == 0 { None } else { Some(c.one(TYPES)) };
    let when = (c.below(4) > 0).then(|| generated(&boolean(c, 3)));
    let alternatives = c.below(7).saturating_sub(3);
    Owned { on, when, any_of: (0..alternatives).map(|_| generated(&boolean(c, 2))).collect() }
}

/// Without optimisation fewer.
const CASES: u32 = if cfg!(debug_assertions) { 250 } else { 3000 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_answers_as_its_rules_one_by_one(
        rules in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12),
        events in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..4),
    ) {
        let rules: Vec<Owned> = rules.iter().map(|bytes| drawn_rule(&mut Choices::new(bytes))).collect();
        let (plan, fewer) = (plan(&rules), plan(&rules[..rules.len() / 2]));
        let mut scratch = Scratch::new();
        for bytes in &events {
            let mut choices = Choices::new(bytes);
            let drawn = event(&fields(&mut choices, true));
            let event = Event { event_type: Cow::from(choices.one(TYPES)), ..drawn };
            agrees(&plan, &rules, &event, &mut scratch);
            agrees(&fewer, &rules[..rules.len() / 2], &event, &mut scratch);
        }
    }
}

/// What rules are written like: each has another witness, and the event shows some.
const WRITTEN: &[&str] = &[
    "path == '/Admin/users/7'",
    "path.lowerAscii() == '/admin/users/7' && status_code >= 400",
    "path.upperAscii().startsWith('/ADMIN/') || method == 'GET'",
    "route.startsWithAny(lists.admin_prefixes)",
    "route.startsWithAny(lists.many) || '/admin/users/{id}' == route",
    "method.lowerAscii() in ['post', 'put']",
    "status_code in [401, 403] && !is_staff",
    "data.amount == 40 && data.form.kind == 'login'",
    "data.ratio in [0, 1] || data.ratio == 0.5",
    "headers['x-tenant'] != '' ? headers['x-tenant'] == 'a' : headers.host == 'shop.example'",
    "!(!(has(data.ok)))",
    "!has(user_id) && !refused_admin",
    "hour_of_week() > 100 && event_time > 0",
    "size(path) > 3 && size(path) * 2 < 100",
    "path.startsWith('') && path.startsWith('/')",
    "cidr(ip_address, lists.offices)",
    "has(user_id) ? user_id == 'u1' : country.endsWith('L')",
    "event_type == 'http_request'",
    "event_type in ['http_request', 'order'] && is_staff == false",
    "'/Admin/users/7/8'.startsWith(path)",
    "path.contains(method) || path.contains('users')",
    "false || path.matches('users')",
    "true && is_staff || data.ok",
    "path in []",
    "user_id != 'u1'",
    "-status_code < -400 && 403.0 == status_code",
];

#[test]
fn every_kind_of_witness_finds_its_rules() {
    let mut rules: Vec<Owned> = WRITTEN.iter().map(|source| Owned::when(None, source)).collect();
    rules.extend(WRITTEN.iter().map(|source| Owned::when(Some("http_request"), source)));
    rules.extend(WRITTEN.iter().map(|source| Owned::when(Some("order"), source)));
    let plan = plan(&rules);
    let mut scratch = Scratch::new();
    let request = refused_request();
    agrees(&plan, &rules, &request, &mut scratch);
    agrees(&plan, &rules, &Event { event_type: "order".into(), ..request.clone() }, &mut scratch);
    agrees(&plan, &rules, &Event { event_type: "http_request".into(), ..Event::default() }, &mut scratch);
    agrees(&plan, &rules, &Event { path: Some("/page7/x".into()), route: Some("/page39/".into()), ..request }, &mut scratch);
}

#[test]
fn what_a_hundred_rules_ask_is_asked_once() {
    let sources = (0..100).map(|i| format!("path.matches('users/[0-9]+$') && response_time_ms > {} - 100", i * 2));
    let rules: Vec<Owned> = sources.map(|source| Owned::when(None, &source)).collect();
    let plan = plan(&rules);
    let (event, mut scratch, mut selected) = (refused_request(), Scratch::new(), Vec::new());
    assert_eq!(patterns_run(|| plan.select(&event, &mut scratch, &mut selected)), 1);
    assert_eq!(selected.len(), 56);
    assert_eq!(patterns_run(|| plan.select(&event, &mut scratch, &mut selected)), 1, "and again for the next event");
    let dear_last = |rule: &Owned| rule.one_by_one(&event)[0];
    assert_eq!(patterns_run(|| assert_eq!(rules.iter().filter(|rule| dear_last(rule)).count(), 56)), 56, "one by one it is dear");
}

#[test]
fn order_and_lets_do_not_hide_that_two_parts_are_the_same() {
    let sources = [
        "path.matches('users') && method == 'POST'",
        "method == 'POST' && path.matches('users')",
        "method == 'GET' || path.matches('users')",
        "!(path.matches('users') && (method == 'POST' && path.matches('users')))",
        "(path.matches('users') ? 2 : 1) > 1",
    ];
    let rules: Vec<Owned> = sources.iter().map(|source| Owned::when(None, source)).collect();
    let plan = plan(&rules);
    let mut selected = Vec::new();
    assert_eq!(patterns_run(|| plan.select(&refused_request(), &mut Scratch::new(), &mut selected)), 1);
    assert_eq!(selected, [0, 1, 2, 4]);
}

#[test]
fn numbers_are_shared_and_texts_are_read() {
    let sources = ["size(path) > 3", "size(path) > 4", "tenant != 'a'", "tenant != 'b'", "path != 'a'", "path != 'b'"];
    let rules: Vec<Owned> = sources.iter().map(|source| Owned::when(None, source)).collect();
    // The size of the path, and whether the first header of `tenant` is filled.
    assert_eq!(format!("{:?}", plan(&rules)), "Plan(6 rules, 6 questions, 2 shared parts)");
}

#[test]
fn rules_that_do_not_concern_an_event_are_not_asked() {
    let mut rules: Vec<Owned> = (0..250)
        .flat_map(|i| {
            [
                Owned::when(Some("order"), "path.matches('users')"),
                Owned::when(None, &format!("path.startsWith('/shop{i}/') && path.matches('users')")),
                Owned::when(Some("http_request"), &format!("data.field{i} == 'x' && path.matches('users')")),
                Owned::when(None, &format!("status_code in [{}, {}] || user_id == 'u{i}'", 1000 + i, 2000 + i)),
            ]
        })
        .collect();
    let (event, mut scratch, mut selected) = (refused_request(), Scratch::new(), Vec::new());
    let selecting = patterns_run(|| plan(&rules).select(&event, &mut scratch, &mut selected));
    assert_eq!((selecting, scratch.asked(), selected.as_slice()), (0, 0, [].as_slice()));
    rules.insert(700, Owned::when(Some("http_request"), "route.startsWith('/admin/')"));
    plan(&rules).select(&event, &mut scratch, &mut selected);
    assert_eq!((scratch.asked(), selected.as_slice()), (1, [700].as_slice()));
}

#[test]
fn alternatives_are_told_apart() {
    let steps = || vec![compiled("status_code == 403"), compiled("method == 'GET'"), compiled("has(route)")];
    let rules = [
        Owned { on: Some("http_request"), when: Some(compiled("!is_staff")), any_of: steps() },
        Owned { on: Some("http_request"), when: Some(compiled("is_staff")), any_of: steps() },
        Owned { on: None, when: None, any_of: Vec::new() },
    ];
    let plan = plan(&rules);
    let (mut scratch, mut selected) = (Scratch::new(), Vec::new());
    plan.select(&refused_request(), &mut scratch, &mut selected);
    assert_eq!(selected, [0, 2]);
    let told = |rule| [0, 1, 2].map(|alternative| plan.holds(&scratch, rule, alternative));
    assert_eq!([told(0), told(1), told(2)], [[true, false, true], [false; 3], [true, false, false]]);
}

#[test]
fn a_plan_of_the_deepest_runs_on_a_threads_stack() {
    // Every level is shared by two rules, so that each is a cell.
    let source = (0..30).fold("path.contains('u')".to_owned(), |inner, i| format!("(({inner}) || asn == {i}) && status_code != {i}"));
    let run = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        let rules = [format!("{source} || asn == 77"), format!("{source} && asn != 77"), source].map(|s| Owned::when(None, &s));
        let mut selected = Vec::new();
        plan(&rules).select(&refused_request(), &mut Scratch::new(), &mut selected);
        selected
    });
    assert_eq!(run.expect("a thread").join().expect("no panic"), [0, 2]);
}
