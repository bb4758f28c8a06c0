use super::*;
use crate::config::KeyedBy;
use crate::stream::client::tests::config;
use crate::stream::topics::{Role, verify};
use std::time::Duration;
use tripline_testkit::wait_until;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn found(partitions: i32) -> Found {
    Found { partitions, replication: 1, settings: None }
}

#[test]
fn inputs_are_created_only_when_asked_for() {
    let config = config();
    let created = |inputs| Plan::new(&config, &BTreeMap::new(), inputs, false).create.iter().filter(|t| t.role == Role::Input).count();
    assert_eq!((created(false), created(true)), (0, 2));
}

#[test]
fn a_keyed_input_that_is_missing_holds_back_the_changelog_unless_it_is_created_too() {
    let mut config = config();
    config.input.keyed_by = KeyedBy::Actor;
    config.input.topics = vec!["app.requests".into()];
    let names = |plan: &Plan| plan.create.iter().map(|t| (t.name.clone(), t.partitions)).collect::<BTreeMap<_, _>>();
    let without = Plan::new(&config, &BTreeMap::new(), false, false);
    assert!(!names(&without).contains_key("tripline.internal.changelog"));
    assert!(without.left.iter().any(|f| f.topic == "tripline.internal.changelog" && f.level() == Level::Error));
    let with = names(&Plan::new(&config, &BTreeMap::new(), true, false));
    assert_eq!(with["tripline.internal.changelog"], Some(6));
    let there = BTreeMap::from([("app.requests".to_owned(), found(12))]);
    assert_eq!(names(&Plan::new(&config, &there, false, false))["tripline.internal.changelog"], Some(12));
}

#[test]
fn a_plan_in_json_says_what_would_be_created_and_what_is_left() {
    let plan = Plan::new(&config(), &BTreeMap::new(), false, false).json("plan");
    let created: Vec<_> = plan["create"].as_array().into_iter().flatten().filter_map(|t| t["topic"].as_str()).collect();
    assert!(created.contains(&"tripline.decisions") && !created.contains(&"app.requests"), "{created:?}");
    let left: Vec<_> = plan["findings"].as_array().into_iter().flatten().filter_map(|t| t["topic"].as_str()).collect();
    assert_eq!(left, ["app.requests", "app.events"]);
}

#[test]
fn topics_are_created_verified_and_mended_on_a_real_broker() {
    let mut config = config();
    config.kafka.bootstrap_servers = tripline_testkit::Kafka::shared().bootstrap().to_owned();
    let run_id = std::process::id();
    config.app.id = format!("t{run_id}");
    config.input.topics = vec![format!("in{run_id}")];
    config.topics.decisions = format!("decisions{run_id}");
    config.topics.alerts = format!("alerts{run_id}");
    config.topics.standing = format!("standing{run_id}");
    config.topics.dead_letters = format!("dead{run_id}");
    config.topics.late = format!("late{run_id}");
    config.topics.shadow = format!("shadow{run_id}");
    let run = |command: TopicsCommand, config: &Config| {
        let mut out = Vec::new();
        let code = run_to(&mut out, &command, config).expect("the broker answers");
        (code, serde_json::from_slice::<Value>(&out).expect("JSON"))
    };
    let output = Output::Json;
    let check = TopicsCommand::Check { output, strict: false };

    let (code, _) = run(check.clone(), &config);
    assert_eq!(code, 1, "nothing exists yet");
    let error = verify(&config).expect_err("nothing exists yet").to_string();
    assert!(error.contains(&format!("{}: does not exist; run `tripline topics apply`", config.changelog_topic())), "{error}");

    let (code, plan) = run(TopicsCommand::Apply { output, inputs: true, alter: false }, &config);
    assert_eq!((code, plan["create"].as_array().map(Vec::len)), (0, Some(10)), "{plan}");
    let (code, again) = run(TopicsCommand::Apply { output, inputs: true, alter: true }, &config);
    assert_eq!((code, &again["create"], &again["alter"]), (0, &json!([]), &json!([])), "applying twice changes nothing");
    wait_until(PATIENCE, "every topic is as it should be", || run(check.clone(), &config).0 == 0).expect("they were created");
    let partitions = verify(&config).expect("all there");
    assert_eq!((partitions.tasks, partitions.inputs[&config.input.topics[0]]), (6, 6));

    // A setting that someone changed is found, mended, and the topic's other settings stay as they are.
    let cluster = Cluster::connect(&config).expect("the broker answers");
    let changelog = config.changelog_topic();
    let before =
        cluster.find(std::slice::from_ref(&changelog)).expect("found").remove(&changelog).and_then(|f| f.settings).expect("settings");
    cluster.alter(&changelog, &before, &[("cleanup.policy", "delete"), ("flush.messages", "7777")]).expect("altered");
    // Brokers take a change over when they have heard of it, which is after the answer.
    let is_told = || verify(&config).is_err_and(|error| error.to_string().contains("cleanup.policy is delete, and should be compact"));
    wait_until(PATIENCE, "a changelog that deletes is refused", is_told).expect("it loses state");
    let (code, plan) = run(TopicsCommand::Apply { output, inputs: false, alter: true }, &config);
    assert_eq!((code, plan["alter"].as_array().map(Vec::len)), (0, Some(1)), "{plan}");
    wait_until(PATIENCE, "the changelog is as it should be", || verify(&config).is_ok()).expect("it was altered");
    let after =
        cluster.find(std::slice::from_ref(&changelog)).expect("found").remove(&changelog).and_then(|f| f.settings).expect("settings");
    assert_eq!(after["flush.messages"].value, "7777", "the operator's own setting stays");
    for setting in ["cleanup.policy", "delete.retention.ms", "min.compaction.lag.ms", "message.timestamp.type"] {
        assert_eq!(after[setting], before[setting], "{setting}");
    }

    // Keyed mode over an input of another number of partitions: the changelog does not fit.
    let mut keyed = config.clone();
    keyed.input.keyed_by = KeyedBy::Actor;
    keyed.topics.partitions = 3;
    keyed.input.topics = vec![format!("keyed{run_id}")];
    let (code, plan) = run(TopicsCommand::Apply { output, inputs: true, alter: false }, &keyed);
    assert_eq!(code, 1, "{plan}");
    let error = verify(&keyed).expect_err("6 is not 3").to_string();
    assert!(error.contains("has 6 partitions, and the topic whose tasks it remembers has 3"), "{error}");
}
