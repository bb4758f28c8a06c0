use super::*;
use crate::engine::Emit;
use crate::entity::Entity;
use crate::event::Event;
use crate::flags::FlagSnapshot;
use crate::observation::Position;
use crate::rule::load::{SourceFile, load};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const START_MS: i64 = 1_760_000_000_000;

/// A rule for each thing that can keep one from firing.
const PACK: &str = r#"
schema: 1
kind: flags
flags: [{name: GATED, default: false}, {name: MASTER, default: true}]
---
schema: 1
kind: policy
id: p
version: 1
detection_flag: MASTER
actions: [{do: alert, at: 50}]
---
{schema: 1, id: t.off, version: 1, title: t, mode: off, on: any, by: user, detect: {match: {}}, signal: {type: a}}
---
{schema: 1, id: t.flag, version: 1, title: t, mode: signal, on: any, by: user, flag: GATED, detect: {match: {}}, signal: {type: a}}
---
{schema: 1, id: t.type, version: 1, title: t, mode: signal, on: sign_in, by: user, detect: {match: {}}, signal: {type: a}}
---
{schema: 1, id: t.when, version: 1, title: t, mode: signal, on: any, by: user, when: status_code == 418, detect: {match: {}}, signal: {type: a}}
---
{schema: 1, id: t.lacks, version: 1, title: t, mode: signal, on: any, by: user, detect: {sum: {of: data.bytes, above: 5, within: 1m}}, signal: {type: a}}
---
schema: 1
id: t.spared
version: 1
title: t
mode: signal
on: any
by: user
except:
  - {id: robots, when: user_agent == "robot", effect: ignore, owner: o, reason: r}
  - {id: testers, when: user_agent == "tester", effect: count_only, owner: o, reason: r}
detect: {count: {at_least: 3, within: 2m}}
signal: {type: a, points: 40}
---
schema: 1
id: t.waits
version: 1
title: t
mode: signal
on: any
by: user
detect:
  sequence:
    within: 1m
    steps: [{id: asked, when: event_type == "asked"}]
    then_absent: {when: event_type == "answered", within: 10s}
signal: {type: a}
---
{schema: 1, id: t.fresh, version: 1, title: t, mode: signal, on: any, by: user, detect: {first_seen: {of: device_id, memory: 30d, learn: 1d}}, signal: {type: a}}
---
{schema: 1, id: t.watch, version: 1, title: t, mode: shadow, on: any, by: user, detect: {count: {at_least: 4, within: 1m}}, signal: {type: a}}
---
{schema: 1, id: t.score, version: 1, title: t, mode: signal, on: any, by: user, detect: {score: {axis: intrusion, at_least: 35}}, signal: {type: a, points: 20}}
---
{schema: 1, id: t.ip, version: 1, title: t, mode: signal, on: any, by: ip, detect: {match: {}}, signal: {type: a}}
"#;

struct World {
    engine: Engine,
    states: BTreeMap<String, ActorState>,
}

impl World {
    fn new(flags: &str) -> World {
        let files = [SourceFile { name: "pack.yaml".into(), text: PACK.into() }];
        let rules = load(&files, &Default::default())
            .unwrap_or_else(|found| panic!("{}", found.iter().map(ToString::to_string).collect::<String>()));
        let flags = FlagSnapshot::parse("flags.json", flags).expect("flags");
        World { engine: Engine::new(Arc::new(rules), &flags, Emit::Fired), states: BTreeMap::new() }
    }

    /// Shows an event to everybody whom it concerns; what is said of it beforehand, and what came of it.
    fn see(&mut self, at_ms: i64, fields: Value) -> Vec<(String, Explanation, Outcome, Made)> {
        let mut event = json!({"event_type": "request", "event_time": START_MS + at_ms, "user_id": "u"});
        event.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let text = event.to_string();
        let event = Event::decode(Some(text.as_bytes())).expect("an event");
        let position = Position { topic: "file".into(), partition: 0, offset: at_ms };
        let mut seen = Vec::new();
        let Ok(()) = self.engine.address(event, &position, START_MS + at_ms).each(|observation| {
            let entity = observation.entity.to_string();
            let state = self.states.entry(entity.clone()).or_default();
            let before = state.clone();
            let explanation = self.engine.explain(observation, state);
            assert_eq!(*state, before, "explaining changes nothing");
            let mut made = Made::default();
            let outcome = self.engine.process(observation, state, &mut made);
            seen.push((entity, explanation, outcome, made));
            Ok::<(), std::convert::Infallible>(())
        });
        seen
    }

    /// What is said about the user, by rule.
    fn why(&mut self, at_ms: i64, fields: Value) -> BTreeMap<String, Why> {
        let user = self.see(at_ms, fields).into_iter().find(|(entity, ..)| entity == "user:u").expect("the user");
        user.1.rules.into_iter().map(|explained| (explained.rule, explained.why)).collect()
    }
}

fn not_met(progress: &str) -> Why {
    Why::NotMet { progress: Some(progress.to_owned()) }
}

#[test]
fn each_rule_about_this_kind_of_entity_says_what_kept_it() {
    let mut world = World::new("{}");
    let why = world.why(0, json!({"user_agent": "robot"}));
    assert_eq!(why.keys().map(String::as_str).collect::<Vec<_>>().len(), 10, "all but the rule about addresses: {why:?}");
    assert_eq!(why["t.off@1"], Why::Off);
    assert_eq!(why["t.flag@1"], Why::FlagOff("GATED".into()));
    assert_eq!(why["t.type@1"], Why::OtherType("sign_in".into()));
    assert_eq!(why["t.when@1"], Why::WhenFalse);
    assert_eq!(why["t.lacks@1"], Why::NothingToCount);
    assert_eq!(why["t.spared@1"], Why::Ignored("robots".into()));
    assert_eq!(why["t.waits@1"], Why::NothingToCount);
    assert_eq!(why["t.fresh@1"], Why::NotMet { progress: None });
    assert_eq!(why["t.watch@1"], not_met("1 of 4 in 1m"));
    assert_eq!(why["t.score@1"], Why::NotAsked);

    assert_eq!(world.why(1_000, json!({"user_agent": "tester"}))["t.spared@1"], Why::CountedOnly("testers".into()));
    assert_eq!(world.why(2_000, json!({}))["t.spared@1"], not_met("2 of 3 in 2m"));
    assert_eq!(world.why(3_000, json!({"event_type": "asked", "device_id": "d"}))["t.waits@1"], Why::Waits(START_MS + 13_000));
    assert_eq!(world.why(4_000, json!({"blocked_by": "self"}))["t.watch@1"], Why::OwnBlock);
    let spared = Why::HeldBack { fired_ms: START_MS + 3_000, suppressed: 1 };
    assert_eq!(world.why(5_000, json!({"device_id": "d"}))["t.spared@1"], spared, "it fired with the third event that it counted");
    assert_eq!(world.why(6_000, json!({"device_id": "d"}))["t.fresh@1"], Why::NotMet { progress: None });
}

#[test]
fn a_rule_over_the_score_says_whether_it_was_asked_and_what_it_found() {
    let mut world = World::new("{}");
    for at_ms in [0, 1_000] {
        assert_eq!(world.why(at_ms, json!({}))["t.score@1"], Why::NotAsked);
    }
    assert_eq!(world.why(2_000, json!({}))["t.score@1"], Why::Fires);
    // The first comes again after the count fell; the score is still above the level that was passed.
    for at_ms in [130_000, 131_000] {
        assert_eq!(world.why(at_ms, json!({}))["t.score@1"], Why::NotAsked);
    }
    assert_eq!(world.why(132_000, json!({}))["t.score@1"], Why::HeldBack { fired_ms: START_MS + 2_000, suppressed: 1 });
}

#[test]
fn an_event_that_is_not_counted_and_a_master_flag_that_is_off_are_said_once_for_all_rules() {
    let mut world = World::new("{}");
    world.see(100_000, json!({"event_id": "one"}));
    let late = world.see(0, json!({})).remove(0).1;
    assert_eq!((late.outcome, late.rules), (Outcome::Late, vec![]));
    let again = world.see(100_000, json!({"event_id": "one"})).remove(0).1;
    assert_eq!((again.outcome, again.rules), (Outcome::Duplicate, vec![]));
    let off = World::new(r#"{"MASTER": false}"#).see(0, json!({})).remove(0).1;
    assert_eq!((off.switched_off_by.as_deref(), off.rules), (Some("MASTER"), vec![]));
}

proptest! {
    #[test]
    fn what_is_said_is_what_happens(
        events in proptest::collection::vec((0..40_000i64, 0..6usize, 0..4usize, 0..4usize), 1..60),
    ) {
        let mut world = World::new(r#"{"GATED": true}"#);
        let mut at_ms = 0;
        for (step_ms, kind, agent, device) in events {
            // Now and then a step back.
            at_ms += if step_ms < 4_000 { -step_ms } else { step_ms - 4_000 };
            let event_type = ["request", "sign_in", "asked", "answered", "request", "request"][kind];
            let user_agent = ["robot", "tester", "browser", "browser"][agent];
            let device_id = ["a", "b", "c", "d"][device];
            let mut fields =
                json!({"event_type": event_type, "user_agent": user_agent, "device_id": device_id, "data": {"bytes": kind * 2}});
            if kind == 4 {
                fields["blocked_by"] = "self".into();
                fields["ip_address"] = "10.0.0.1".into();
            }
            for (entity, explanation, outcome, made) in world.see(at_ms, fields) {
                prop_assert_eq!(explanation.outcome, outcome);
                let mut said: Vec<String> =
                    explanation.rules.iter().filter(|e| e.why == Why::Fires).map(|e| e.rule.clone()).collect();
                let mut fired: Vec<String> = made.decisions.iter().flat_map(|decision| decision.fired.clone()).collect();
                said.sort();
                fired.sort();
                prop_assert_eq!(said, fired, "{} at {}", entity, at_ms);
                prop_assert!(Entity::parse(&entity).is_some());
            }
        }
    }
}
