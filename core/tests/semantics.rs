//! The twelve semantics of `docs/rules.md`, one test each, in their order.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tripline_core::decision::Decision;
use tripline_core::engine::{Emit, Engine, Made, Outcome};
use tripline_core::entity::Entity;
use tripline_core::event::Event;
use tripline_core::expr::{Expr, Scope};
use tripline_core::flags::FlagSnapshot;
use tripline_core::observation::Position;
use tripline_core::rule::load::{SourceFile, load};
use tripline_core::state::ActorState;

const START_MS: i64 = 1_760_000_000_000;

fn rule(more: &str) -> String {
    format!("schema: 1\nid: test.rule\nversion: 3\ntitle: A rule under test\nmode: enforce\non: http_request\n{more}\n")
}

/// A world of entities that a pack looks at.
struct World {
    engine: Engine,
    states: BTreeMap<String, ActorState>,
    count: u64,
}

impl World {
    fn of(text: &str) -> World {
        World { engine: engine(text, "{}"), states: BTreeMap::new(), count: 0 }
    }

    /// An event `at` seconds after the start; what is decided about it, and each observation's outcome.
    fn see(&mut self, at: f64, fields: Value) -> (Vec<Decision>, Vec<Outcome>) {
        self.see_by(at, at, fields)
    }

    /// The same, with a record's time of its own.
    fn see_by(&mut self, at: f64, reference: f64, fields: Value) -> (Vec<Decision>, Vec<Outcome>) {
        let ms = |seconds: f64| START_MS + (seconds * 1_000.0).round() as i64;
        let mut event = json!({"event_type": "http_request", "event_time": ms(at), "event_id": format!("e{}", self.count)});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.count += 1;
        let text = event.to_string();
        let position = Position { topic: "file".into(), partition: 0, offset: self.count as i64 };
        let event = Event::decode(Some(text.as_bytes())).unwrap();
        let (mut made, mut outcomes) = (Made::default(), Vec::new());
        let engine = &self.engine;
        let _ = engine.address(event, &position, ms(reference)).each(|observation| {
            let state = self.states.entry(observation.entity.to_string()).or_default();
            outcomes.push(engine.process(observation, state, &mut made));
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            *state = ActorState::decode(&bytes).unwrap();
            Ok::<(), ()>(())
        });
        (made.decisions, outcomes)
    }

    /// Whether an event fires.
    fn fires(&mut self, at: f64, fields: Value) -> bool {
        !self.see(at, fields).0.is_empty()
    }

    /// At which of these times an event of one user fires.
    fn firings(&mut self, times: &[f64]) -> Vec<f64> {
        times.iter().copied().filter(|at| self.fires(*at, json!({"user_id": "u"}))).collect()
    }

    /// Time passes until `now` seconds after the start.
    fn pass(&mut self, now: f64) -> Vec<Decision> {
        let mut made = Made::default();
        for (entity, state) in &mut self.states {
            self.engine.fire_due(&Entity::parse(entity).unwrap(), START_MS + (now * 1_000.0) as i64, state, &mut made);
        }
        made.decisions
    }
}

fn engine(text: &str, flags: &str) -> Engine {
    let files = [SourceFile { name: "r.yaml".into(), text: text.into() }];
    let rules = load(&files, &Map::new()).unwrap_or_else(|p| panic!("{}", p.iter().map(ToString::to_string).collect::<String>()));
    Engine::new(Arc::new(rules), &FlagSnapshot::parse("flags.json", flags).unwrap(), Emit::Fired)
}

const THREE: &str = "detect: {count: {at_least: 3, within: 10s}}\nsignal: {type: many}";

#[test]
fn semantics_01_a_window_is_open_at_its_start_and_closed_at_its_end() {
    let text = rule(THREE);
    assert_eq!(World::of(&text).firings(&[0.0, 5.0, 10.0]), [] as [f64; 0], "0 is not in (0, 10]");
    assert_eq!(World::of(&text).firings(&[0.001, 5.0, 10.0]), [10.0]);
    assert_eq!(World::of(&text).firings(&[5.0, 5.0, 5.0]), [5.0], "equal times count");
}

#[test]
fn semantics_02_a_rule_fires_on_the_edge_and_while_it_stays_once_per_cooldown() {
    let times: Vec<f64> = (0..20).map(f64::from).collect();
    assert_eq!(World::of(&rule(THREE)).firings(&times), [2.0], "once while it stays");
    let cooled = rule(&THREE.replace("type: many", "type: many, once_per: 5s"));
    assert_eq!(World::of(&cooled).firings(&times), [2.0, 7.0, 12.0, 17.0]);
    let twice = [0.0, 1.0, 2.0, 3.0, 60.0, 61.0, 62.0, 63.0];
    assert_eq!(World::of(&rule(THREE)).firings(&twice), [2.0, 62.0], "it turned false in between");
}

#[test]
fn semantics_03_the_cooldown_has_the_key_of_the_rule() {
    let mut world = World::of(&rule("by: user\nper: path\ndetect: {match: {}}\nsignal: {type: any, once_per: 1h}"));
    assert!(world.fires(0.0, json!({"user_id": "a", "path": "/x"})));
    assert!(!world.fires(1.0, json!({"user_id": "a", "path": "/x"})), "resting");
    assert!(world.fires(2.0, json!({"user_id": "a", "path": "/y"})), "another sub-key");
    assert!(world.fires(3.0, json!({"user_id": "b", "path": "/x"})), "another user");
}

#[test]
fn semantics_04_firings_held_back_are_counted_and_ride_on_the_next() {
    let mut world = World::of(&rule("detect: {match: {}}\nsignal: {type: any, once_per: 1m}"));
    let mut suppressed = |at| world.see(at, json!({"user_id": "u"})).0.iter().map(|d| d.suppressed).collect::<Vec<_>>();
    assert_eq!(suppressed(0.0), [0]);
    for at in 1..=41 {
        assert_eq!(suppressed(f64::from(at)), [] as [u32; 0]);
    }
    assert_eq!(suppressed(60.0), [41], "and 41 more");
    assert_eq!(suppressed(120.0), [0]);
}

#[test]
fn semantics_05_an_exception_spares_the_event_before_it_is_counted() {
    let except = |effect: &str| {
        let exception = format!(
            "{{id: checker, when: 'data.service == \"checker\"', effect: {effect}, owner: web, reason: nightly, expires: 2025-10-09}}"
        );
        rule(&format!("{THREE}\nexcept: [{exception}]"))
    };
    let checker = || json!({"user_id": "u", "data": {"service": "checker"}});
    let user = || json!({"user_id": "u"});
    let mut ignored = World::of(&except("ignore"));
    assert!(!ignored.fires(0.0, checker()) && !ignored.fires(1.0, checker()) && !ignored.fires(2.0, user()) && !ignored.fires(3.0, user()));
    assert!(ignored.fires(4.0, user()), "only events of the user counted");
    let mut counted = World::of(&except("count_only"));
    assert!(!counted.fires(0.0, user()) && !counted.fires(1.0, user()) && !counted.fires(2.0, checker()), "it makes no signal");
    assert!(counted.fires(3.0, user()), "but it counted");
    let mut spared = World::of(&except("no_action"));
    assert!(!spared.fires(0.0, user()) && !spared.fires(1.0, user()));
    let (decisions, _) = spared.see(2.0, checker());
    assert!(decisions.iter().all(|d| !d.should_alert && d.held_back.iter().all(|h| h.by == "exception:checker")) && decisions.len() == 1);
    // 2025-10-09 ends 54 400 s after the start.
    let mut expired = World::of(&except("ignore"));
    assert!(!expired.fires(54_399.0, checker()) && !expired.fires(54_400.0, checker()) && !expired.fires(54_401.0, checker()));
    assert!(expired.fires(54_402.0, checker()), "the first one was spared, the next three count");
    // In a sequence, an exception removes the event, not the sequence.
    let steps = "steps: [{id: a, when: 'path == \"/a\"'}, {id: b, when: 'path == \"/b\"'}]";
    let mut sequence = World::of(&rule(&format!(
        "detect: {{sequence: {{within: 1m, {steps}}}}}\nsignal: {{type: any}}\nexcept: [{{id: c, when: 'data.service == \"checker\"', owner: web, reason: nightly}}]"
    )));
    assert!(!sequence.fires(0.0, json!({"user_id": "u", "path": "/a"})));
    assert!(!sequence.fires(1.0, json!({"user_id": "u", "path": "/b", "data": {"service": "checker"}})));
    assert!(sequence.fires(2.0, json!({"user_id": "u", "path": "/b"})));
}

#[test]
fn semantics_06_answers_of_our_own_blocks_do_not_count_unless_a_rule_says_so() {
    let refused = |by: &str| json!({"user_id": "u", "status_code": 403, "blocked_by": by});
    let mut world = World::of(&rule(THREE));
    assert!((0..9).all(|at| !world.fires(f64::from(at), refused("self"))));
    assert!((0..9).any(|at| world.fires(20.0 + f64::from(at), refused("waf"))), "somebody else's blocks count");
    let mut included = World::of(&rule(&format!("include_own_blocks: true\n{THREE}")));
    assert!((0..9).any(|at| included.fires(f64::from(at), refused("self"))));
}

#[test]
fn semantics_07_late_is_judged_by_the_entity_and_a_straggler_is_counted_in_its_place() {
    let mut world = World::of(&rule(THREE));
    let of = |user: &str| json!({"user_id": user});
    world.see(100.0, of("a"));
    world.see(101.0, of("a"));
    assert_eq!(world.see_by(70.9, 102.0, of("a")).1, [Outcome::Late], "older than the newest minus 30 s");
    assert_eq!(world.see_by(70.9, 102.0, of("b")).1, [Outcome::Processed], "another entity has its own time");
    let (decisions, outcomes) = world.see_by(92.0, 102.0, of("a"));
    assert_eq!((decisions.len(), outcomes.as_slice()), (1, &[Outcome::Processed][..]), "92, 100 and 101 lie in one window");
    // A time ahead of the record's is capped and flagged.
    let (decisions, _) = world.see_by(9_999.0, 103.0, json!({"user_id": "c"}));
    assert!(decisions.is_empty());
    world.see(104.0, of("c"));
    let (decisions, _) = world.see_by(9_999.0, 105.0, of("c"));
    assert!(decisions[0].clamped && decisions[0].event_time == "2025-10-09T08:55:05.000Z", "{}", decisions[0].event_time);
}

#[test]
fn semantics_08_absence_is_certain_when_the_stream_s_time_says_so() {
    let step = |word: &str| format!("'path == \"/{word}\"'");
    let detect = format!(
        "detect: {{sequence: {{within: 1m, steps: [{{id: login, when: {}}}], then_absent: {{when: {}, within: 2m}}}}}}\nsignal: {{type: any}}",
        step("login"),
        step("mfa")
    );
    let mut world = World::of(&rule(&detect));
    assert!(world.engine.needs_time());
    world.see(0.0, json!({"user_id": "a", "path": "/login"}));
    world.see(0.0, json!({"user_id": "b", "path": "/login"}));
    assert_eq!(world.see_by(119.0, 119.0, json!({"user_id": "b", "path": "/mfa"})).0.len(), 0);
    assert!(world.pass(149.9).is_empty(), "due after 2 minutes, certain 30 s of lateness later");
    let decisions = world.pass(150.0);
    assert_eq!(
        decisions.iter().map(|d| (d.entity.id.as_str(), d.due_time.as_deref())).collect::<Vec<_>>(),
        [("a", Some("2025-10-09T08:55:20.000Z"))]
    );
    assert_eq!(decisions[0].event_id, "e0");
    assert!(world.pass(9_999.0).is_empty(), "once");
}

#[test]
fn semantics_09_a_missing_field_compares_false_and_is_never_an_error() {
    let event = Event::decode(Some(br#"{"event_time":1760000000000,"event_type":"t"}"#)).unwrap();
    let holds = |source: &str| Expr::compile(source, &Scope::default()).unwrap().holds(&event);
    for source in ["path == \"/\"", "path != \"/\"", "status_code > 1", "status_code <= 1", "path in [\"/\"]", "data.x == 1"] {
        assert!(!holds(source), "{source}");
    }
    assert!(holds("!has(path)") && !holds("has(data.x)"));
    let error = Expr::compile("statsu_code == 1", &Scope::default()).map(|_| ()).unwrap_err();
    assert!(error.help.unwrap().contains("status_code"), "names are checked at load");
}

#[test]
fn semantics_10_a_mode_bounds_the_effect_and_a_flag_can_only_lower_it() {
    let pack = |mode: &str| {
        let policy = "---\nschema: 1\nkind: policy\nid: p\nversion: 1\nactions: [{do: alert, at: 1}, {do: block, at: 1, families: 1, flag: BLOCKING}]\n";
        let flags = "---\nschema: 1\nkind: flags\nflags: [{name: RULE, default: true}, {name: BLOCKING}]\n";
        rule("flag: RULE\ndetect: {match: {}}\nsignal: {type: any}").replace("mode: enforce", &format!("mode: {mode}")) + policy + flags
    };
    let decided = |mode: &str, flags: &str| {
        let mut world = World { engine: engine(&pack(mode), flags), ..World::of(&pack(mode)) };
        let (decisions, _) = world.see(0.0, json!({"user_id": "u"}));
        decisions.iter().map(|d| (d.should_alert, d.should_block, d.shadow)).collect::<Vec<_>>()
    };
    assert_eq!(decided("off", "{}"), []);
    assert_eq!(decided("shadow", "{}"), [(false, false, true)]);
    assert_eq!(decided("signal", "{}"), [(false, false, false)]);
    assert_eq!(decided("alert", "{}"), [(true, false, false)]);
    assert_eq!(decided("enforce", "{}"), [(true, false, false)], "nothing blocks until it is switched on");
    assert_eq!(decided("enforce", r#"{"BLOCKING": true}"#), [(true, true, false)]);
    assert_eq!(decided("alert", r#"{"BLOCKING": true}"#), [(true, false, false)]);
    assert_eq!(decided("enforce", r#"{"RULE": false}"#), []);
    assert_eq!(decided("off", r#"{"RULE": true}"#), [], "a flag raises nothing");
}

#[test]
fn semantics_11_decisions_name_pack_and_version_and_what_is_remembered_belongs_to_id_and_state() {
    let mut world = World::of(&rule(THREE));
    assert_eq!(world.firings(&[0.0, 1.0]), [] as [f64; 0]);
    let newer = rule(THREE).replace("version: 3", "version: 4");
    world.engine = engine(&newer, "{}");
    let (decisions, _) = world.see(2.0, json!({"user_id": "u"}));
    assert_eq!(decisions.len(), 1, "a new version keeps what is remembered");
    assert_eq!((decisions[0].contributions[0].rule.as_str(), &decisions[0].rules), ("test.rule@4", &world.engine.rules.digest));
    let mut dropped = World::of(&rule(THREE));
    dropped.firings(&[0.0, 1.0]);
    dropped.engine = engine(&rule(&format!("state: 2\n{THREE}")), "{}");
    assert_eq!(dropped.firings(&[2.0]), [] as [f64; 0], "a new state begins anew");
}

#[test]
fn semantics_12_a_window_that_grew_says_that_it_is_warming() {
    let warming = |world: &mut World, at| world.see(at, json!({"user_id": "u"})).0.iter().map(|d| d.warming).collect::<Vec<_>>();
    let every = "detect: {count: {at_least: 1, within: 10s, firing: every}}\nsignal: {type: any}";
    let mut world = World::of(&rule(every));
    assert_eq!(warming(&mut world, 0.0), [false], "a state that began with the rule knows all");
    world.engine = engine(&rule(&every.replace("10s", "60s")), "{}");
    assert_eq!(warming(&mut world, 5.0), [true]);
    assert_eq!(warming(&mut world, 64.9), [true]);
    assert_eq!(warming(&mut world, 65.0), [false], "it has looked back for 60 s by now");
    world.engine = engine(&rule(every), "{}");
    assert_eq!(warming(&mut world, 66.0), [false], "a window that shrank knows all");
    let second = rule(every).replace("test.rule", "test.second").replace("10s", "30s");
    let apart = "---\nschema: 1\nkind: policy\nid: p\nversion: 1\ndecide: per_signal\nactions: []\n";
    world.engine = engine(&format!("{}---\n{second}{apart}", rule(every)), "{}");
    assert_eq!(warming(&mut world, 70.0), [false, true], "so does a new rule");
    assert_eq!(warming(&mut world, 100.0), [false, false]);
}
