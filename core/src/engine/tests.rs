//! What holds of decisions, alerts and standing, whatever happens and whenever time is told of.

use super::*;
use crate::entity::Entity;
use crate::flags::FlagSnapshot;
use crate::observation::Position;
use crate::rule::load::{SourceFile, load};
use crate::time::parse_rfc3339_ms;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const START_MS: i64 = 1_760_000_000_000;
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60_000;

/// `{watching}` is the mode of two rules.
const PACK: &str = r#"schema: 1
kind: flags
flags: [{name: BLOCKING}, {name: STEPPING}]
---
schema: 1
kind: policy
id: p
version: 1
actions:
  - {do: alert, at: 40, leave: 30, once_per: 30s}
  - {do: throttle, at: 55, leave: 45, hold: 20s}
  - {do: step_up, at: 70, leave: 50, hold: 40s, flag: STEPPING}
  - {do: block, at: 85, leave: 60, ttl: 30s, max_ttl: 10m, forget: 5m, flag: BLOCKING}
allowed_lateness: 10s
---
{schema: 1, id: t.a, version: 1, title: a, mode: enforce, on: a, by: user, detect: {count: {at_least: 2, within: 30s}},
 signal: {type: a, severity: medium, points: 45, family: one, half_life: 40s}}
---
{schema: 1, id: t.b, version: 1, title: b, mode: enforce, on: b, by: user, detect: {match: {}},
 signal: {type: b, severity: high, points: 60, family: two, half_life: 30s, once_per: 5s}}
---
{schema: 1, id: t.c, version: 1, title: c, mode: signal, on: c, by: user, detect: {match: {}},
 signal: {type: c, severity: low, points: 20, family: three, half_life: 20s}}
---
{schema: 1, id: t.together, version: 1, title: together, mode: alert, on: any, by: user,
 detect: {score: {axis: intrusion, at_least: 50, families: 2}}, signal: {type: together, severity: low, points: 10, family: four}}
---
{schema: 1, id: t.watch, version: 1, title: watch, mode: {watching}, on: b, by: user, detect: {match: {}},
 signal: {type: watch, severity: critical, points: 95, family: five}}
---
{schema: 1, id: t.watch-score, version: 1, title: watch, mode: {watching}, on: any, by: user,
 detect: {score: {axis: intrusion, at_least: 40}}, signal: {type: watch-score, severity: high, points: 60, family: six}}
"#;
const ON: &str = r#"{"BLOCKING": true, "STEPPING": true}"#;

/// One user, whose state is encoded and decoded between all steps.
struct World {
    engine: Engine,
    state: ActorState,
    shown: i64,
    made: Made,
}

impl World {
    fn of(pack: &str, flags: &str) -> World {
        let files = [SourceFile { name: "r.yaml".into(), text: pack.into() }];
        let rules = load(&files, &Map::new()).unwrap_or_else(|p| panic!("{}", p.iter().map(ToString::to_string).collect::<String>()));
        let engine = Engine::new(Arc::new(rules), &FlagSnapshot::parse("flags.json", flags).expect("flags"), Emit::Fired);
        World { engine, state: ActorState::default(), shown: 0, made: Made::default() }
    }

    fn reload(&mut self) {
        let mut bytes = Vec::new();
        self.state.encode(&mut bytes);
        self.state = ActorState::decode(&bytes).expect("own bytes");
        assert_eq!(ActorState::decode_next_due(&bytes), Ok(self.state.next_due_ms()));
    }

    /// An event of this type, so many milliseconds after the start.
    fn see(&mut self, at_ms: i64, ty: &str, more: Value) -> Outcome {
        self.reload();
        let mut event = json!({"event_id": format!("e{}", self.shown), "event_time": START_MS + at_ms, "event_type": ty, "user_id": "u1"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.shown += 1;
        let text = event.to_string();
        let event = Event::decode(Some(text.as_bytes())).unwrap();
        let position = Position { topic: "t".into(), partition: 0, offset: self.shown };
        let kinds = self.engine.address(event, &position, START_MS + at_ms);
        let mut outcome = Outcome::Late;
        let Ok(()) = kinds.each(|observation| {
            outcome = self.engine.process(observation, &mut self.state, &mut self.made);
            Ok::<(), std::convert::Infallible>(())
        });
        outcome
    }

    /// Lets the stream time come.
    fn pass(&mut self, stream_time_ms: i64) {
        self.reload();
        self.engine.fire_due(&Entity::actor(Some("u1"), None), START_MS + stream_time_ms, &mut self.state, &mut self.made);
    }

    fn live(&self) -> Vec<&Decision> {
        self.made.decisions.iter().filter(|decision| !decision.shadow).collect()
    }

    fn last(&self) -> &Decision {
        self.live().last().expect("a decision")
    }
}

fn ms(time: &str) -> i64 {
    parse_rfc3339_ms(time).expect("a time") - START_MS
}

fn pack(watching: &str) -> String {
    PACK.replace("{watching}", watching)
}

/// Types and times of events, some of them late; and after each, whether time is told of, and how far.
fn story() -> impl Strategy<Value = Vec<(i64, &'static str, Option<i64>)>> {
    let step = (0i64..25 * SECOND, 0i64..8 * SECOND, prop_oneof![Just("a"), Just("b"), Just("c")], proptest::option::of(0i64..3 * MINUTE));
    proptest::collection::vec(step, 1..40).prop_map(|steps| {
        let mut now = 0;
        let told = |(gap, late, ty, told): (i64, i64, &'static str, Option<i64>)| {
            now += gap;
            (now - late.min(now), ty, told.map(|ahead| now + ahead))
        };
        steps.into_iter().map(told).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn rules_that_watch_change_nothing_else(story in story()) {
        let (mut with, mut without) = (World::of(&pack("shadow"), ON), World::of(&pack("off"), ON));
        for (at, ty, told) in story {
            for world in [&mut with, &mut without] {
                world.see(at, ty, json!({}));
                if let Some(told) = told {
                    world.pass(told);
                }
            }
        }
        let live = |world: &World| {
            let texts = world.live().into_iter().map(|d| Decision { rules: String::new(), ..d.clone() }).collect::<Vec<_>>();
            let alerts: Vec<_> = world.made.alerts.iter().map(|a| (a.alert_id.clone(), a.state, a.at.clone(), a.decisions, a.folded)).collect();
            let standing = |s: &crate::standing::Standing| (s.risk_score, s.axes.clone(), s.actions.clone(), s.as_of.clone(), s.expires_at.clone());
            let standings: Vec<_> = world.made.standings.iter().map(|s| (s.at_ms, s.standing.as_deref().map(standing))).collect();
            (texts, alerts, standings)
        };
        prop_assert_eq!(live(&with), live(&without));
    }

    /// Being told of time, however far and however often, changes no decision: it only says what has ended.
    #[test]
    fn when_time_is_told_of_decisions_are_the_same(story in story()) {
        let (mut told_of, mut quiet) = (World::of(&pack("off"), ON), World::of(&pack("off"), ON));
        for (at, ty, told) in story {
            told_of.see(at, ty, json!({}));
            quiet.see(at, ty, json!({}));
            if let Some(told) = told {
                told_of.pass(told);
            }
        }
        prop_assert_eq!(told_of.made.decisions, quiet.made.decisions);
    }

    /// Blocked means blocked until the time that was said, whatever else is found; and nothing is in force beyond it unasked.
    #[test]
    fn a_block_holds_until_it_ends_and_no_longer(story in story()) {
        let mut world = World::of(&pack("shadow"), ON);
        let mut until = i64::MIN;
        let mut now = 0;
        for (at, ty, _) in story {
            let before = world.made.standings.len();
            let decided = world.live().len();
            world.see(at, ty, json!({}));
            now = now.max(at);
            for standing in world.made.standings[before..].iter().filter_map(|change| change.standing.as_deref()) {
                let ends = ms(&standing.expires_at);
                prop_assert!(ends > ms(&standing.as_of));
                if standing.action == Some(crate::policy::Action::Block) {
                    prop_assert!(until <= ms(&standing.as_of) || ends == until, "prolonged while it runs");
                    until = ends;
                }
            }
            for decision in &world.live()[decided..] {
                prop_assert!(decision.should_block || now >= until, "lifted before its end");
                let sum: i64 = decision.contributions.iter().map(|line| line.points.0).sum();
                prop_assert_eq!(sum, decision.axes.values().map(|points| points.0).sum::<i64>());
            }
        }
    }

    /// After the last event everything ends: alerts are resolved, standing is taken back, nothing waits.
    #[test]
    fn everything_ends(story in story()) {
        let mut world = World::of(&pack("shadow"), ON);
        for (at, ty, told) in story {
            world.see(at, ty, json!({}));
            if let Some(told) = told {
                world.pass(told);
            }
        }
        world.pass(24 * 60 * MINUTE);
        prop_assert_eq!(world.state.next_due_ms(), None);
        prop_assert!(world.made.standings.last().is_none_or(|change| change.standing.is_none()));
        let mut open = std::collections::BTreeSet::new();
        for alert in &world.made.alerts {
            match alert.state {
                crate::alert::AlertState::Opened => prop_assert!(open.insert(alert.alert_id.clone())),
                crate::alert::AlertState::Updated => prop_assert!(open.contains(&alert.alert_id)),
                crate::alert::AlertState::Resolved => prop_assert!(open.remove(&alert.alert_id)),
            }
        }
        prop_assert!(open.is_empty(), "{:?}", open);
    }
}

#[test]
fn a_score_of_signals_alone_never_acts_and_says_why() {
    let weak = PACK.replace("mode: enforce", "mode: signal").replace("mode: alert", "mode: signal");
    let mut world = World::of(&weak.replace("{watching}", "off"), ON);
    for (at, ty) in [(0, "a"), (1, "a"), (2, "b"), (3, "c")] {
        world.see(at * SECOND, ty, json!({}));
    }
    let decision = world.last();
    assert!(decision.risk_score >= 85 && !decision.should_alert && !decision.should_block, "{decision:?}");
    let held: Vec<_> = decision.held_back.iter().map(|held| (held.action.as_str(), held.by.as_str())).collect();
    assert_eq!(held, [("alert", "mode:signal"), ("throttle", "mode:signal"), ("step_up", "mode:signal"), ("block", "mode:signal")]);
}

#[test]
fn one_family_alone_is_not_challenged_or_refused() {
    let lone = pack("off").replace("points: 60, family: two", "points: 79, family: two").replace("severity: high", "severity: critical");
    let mut world = World::of(&lone.replace("points: 79", "points: 95"), ON);
    world.see(0, "b", json!({}));
    let decision = world.last();
    assert_eq!((decision.risk_score, decision.should_alert, decision.should_throttle, decision.should_block), (95, true, false, false));
    assert!(decision.held_back.iter().all(|held| held.by == "families"));
    let certain = lone.replace("points: 79, family: two", "points: 95, certain: true, family: two");
    let mut world = World::of(&certain, ON);
    world.see(0, "b", json!({}));
    assert!(world.last().should_block, "{:?}", world.last());
}

#[test]
fn an_exception_without_action_leaves_nothing_behind() {
    let spared = pack("off").replace(
        "family: two, half_life: 30s, once_per: 5s}}",
        "family: two, half_life: 30s, once_per: 5s}, except: [{id: drill, when: data.drill == true, effect: no_action, owner: o, reason: r}]}",
    );
    let mut world = World::of(&spared, ON);
    world.see(0, "b", json!({"data": {"drill": true}}));
    let decision = world.last();
    assert_eq!((decision.risk_score, decision.should_alert), (60, false), "shown, and nothing done");
    assert_eq!(decision.held_back.iter().map(|held| held.by.as_str()).collect::<Vec<_>>(), ["exception:drill", "exception:drill"]);
    // Nor does it hide what comes after it from the rule.
    world.see(SECOND, "b", json!({}));
    assert!(world.last().should_alert && world.live().len() == 2);
    let mut world = World::of(&spared, ON);
    world.see(0, "b", json!({"data": {"drill": true}}));
    world.see(30 * SECOND, "c", json!({}));
    assert_eq!(world.last().risk_score, 20, "nothing is left of it");
    // What counted before is not washed off either.
    world.see(60 * SECOND, "b", json!({}));
    assert!(world.last().should_alert);
    world.see(66 * SECOND, "b", json!({"data": {"drill": true}}));
    assert!(world.last().should_alert);
}

#[test]
fn what_is_spared_takes_no_block_that_another_score_would_allow() {
    let spared = pack("off").replace(
        "family: three, half_life: 20s}}",
        "family: three, half_life: 20s}, except: [{id: drill, when: data.drill == true, effect: no_action, owner: o, reason: r}]}",
    );
    let mut world = World::of(&spared, ON);
    for (at, ty) in [(0, "a"), (1, "a"), (2, "b")] {
        world.see(at * SECOND, ty, json!({}));
    }
    assert!(world.last().should_block);
    let until = ms(world.last().expires_at.as_deref().unwrap());
    world.see(until + 1, "b", json!({"data": {"drill": true}}));
    let again = ms(world.last().expires_at.as_deref().unwrap());
    assert!(world.last().should_block && again > until, "new evidence above `leave` takes it again");
    world.see(again + 1, "c", json!({"data": {"drill": true}}));
    assert!(!world.last().should_block, "{:?}", world.last());
}

#[test]
fn a_composite_asked_at_a_timer_makes_no_event_late() {
    let timer = r#"
---
{schema: 1, id: t.absence, version: 1, title: absence, mode: enforce, on: any, by: user,
 detect: {sequence: {within: 1m, steps: [{id: asked, when: event_type == "c"}], then_absent: {when: event_type == "z", within: 10m}}},
 signal: {type: absence, severity: high, points: 50, family: nine}}"#;
    let mut world = World::of(&(pack("off") + timer).replace("families: 2", "families: 1"), ON);
    world.see(0, "c", json!({}));
    world.pass(11 * MINUTE);
    assert_eq!(world.see(9 * MINUTE, "b", json!({})), Outcome::Processed);
}

#[test]
fn what_runs_stays_until_its_flag_is_off_for_everybody() {
    let mut world = World::of(&pack("off"), ON);
    for (at, ty) in [(0, "a"), (1, "a"), (2, "b")] {
        world.see(at * SECOND, ty, json!({}));
    }
    assert!(world.last().should_block && world.last().should_step_up);
    let rules = Arc::clone(&world.engine.rules);
    let engine = |flags: &str| Engine::new(Arc::clone(&rules), &FlagSnapshot::parse("f.json", flags).expect("flags"), Emit::Fired);
    world.engine = engine(r#"{"STEPPING": true, "BLOCKING": {"enabled": true, "users": ["somebody-else"]}}"#);
    world.see(6 * SECOND, "c", json!({}));
    assert!(world.last().should_block, "a flag that is off for this user ends nothing");
    world.engine = engine(r#"{"STEPPING": true, "BLOCKING": false}"#);
    world.see(8 * SECOND, "c", json!({}));
    assert!(!world.last().should_block && world.last().should_step_up);
    assert!(world.last().held_back.iter().any(|held| (held.action.as_str(), held.by.as_str()) == ("block", "flag:BLOCKING")));
    world.engine = engine("{}");
    let before = world.made.standings.len();
    world.pass(40 * MINUTE);
    let told = world.made.standings[before..].iter().filter_map(|change| change.standing.as_deref());
    assert!(told.into_iter().all(|standing| !standing.actions.contains(&crate::policy::Action::StepUp)), "told of without what is off");
}

#[test]
fn standing_is_taken_back_when_a_pack_decides_per_signal() {
    let mut world = World::of(&pack("off"), ON);
    for (at, ty) in [(0, "a"), (1, "a"), (2, "b")] {
        world.see(at * SECOND, ty, json!({}));
    }
    assert!(world.made.standings.last().is_some_and(|change| change.standing.is_some()));
    let per_signal = "schema: 1\nkind: policy\nid: p\nversion: 2\ndecide: per_signal\nactions: [{do: alert, at: 40}]\nallowed_lateness: 10s\n---\n{schema: 1, id: t.b, version: 1, title: b, mode: enforce, on: b, by: user, detect: {match: {}}, signal: {type: b, points: 60}}\n";
    world.engine = World::of(per_signal, "{}").engine;
    for at in 0..8 {
        world.see(MINUTE + at * 30 * MINUTE, "b", json!({}));
    }
    assert!(world.made.standings.last().is_some_and(|change| change.standing.is_none()), "an alert that stays open holds nothing up");
    world.pass(12 * 60 * MINUTE);
    assert_eq!(world.made.alerts.last().map(|alert| alert.state), Some(crate::alert::AlertState::Resolved));
    assert_eq!(world.state.next_due_ms(), None);
}

#[test]
fn a_timer_s_decision_says_when_it_was_due_and_its_composite_has_the_same_time() {
    let late = r#"
---
{schema: 1, id: t.absence, version: 1, title: absence, mode: enforce, on: any, by: user,
 detect: {sequence: {within: 1m, steps: [{id: asked, when: event_type == "c"}], then_absent: {when: event_type == "z", within: 10m}}},
 signal: {type: absence, severity: high, points: 50, family: nine}}"#;
    let mut world = World::of(&(pack("shadow") + late).replace("families: 2", "families: 1"), ON);
    world.see(0, "c", json!({}));
    world.pass(11 * MINUTE);
    let due: Vec<_> = world.made.decisions.iter().filter(|d| d.due_time.is_some()).collect();
    assert_eq!(due.iter().map(|d| ms(d.due_time.as_deref().unwrap())).collect::<Vec<_>>(), [10 * MINUTE, 10 * MINUTE]);
    assert_eq!(due[0].fired, ["t.together@1", "t.absence@1"]);
    let ids: std::collections::BTreeSet<&str> = world.made.decisions.iter().map(|d| d.decision_id.as_str()).collect();
    assert_eq!(ids.len(), world.made.decisions.len());
}

#[test]
fn a_firing_that_is_held_back_refreshes_without_a_decision() {
    let mut world = World::of(&pack("off"), "{}");
    world.see(0, "a", json!({}));
    for at in 1..5 {
        world.see(at * 10 * SECOND, "a", json!({}));
    }
    assert_eq!(world.live().len(), 1, "the edge fires once");
    world.see(45 * SECOND, "c", json!({}));
    let line = world.last().contributions.iter().find(|line| line.rule == "t.a@1").expect("still there");
    assert_eq!(line.age_s, Some(5), "as old as the last that was held back");
}
