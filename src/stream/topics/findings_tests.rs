use super::*;
use crate::config::{Config, KeyedBy};
use crate::stream::client::tests::config;
use crate::stream::topics::cluster::Setting;
use crate::stream::topics::desired;

/// A cluster that is exactly as it should be, with three replicas.
fn as_desired(config: &Config) -> BTreeMap<String, Found> {
    let inputs = config.input.topics.iter().map(|name| (name.clone(), Found { partitions: 6, replication: 3, settings: None })).collect();
    let found = desired(config, &inputs).into_iter().map(|topic| {
        let settings = topic.settings.iter().map(|(name, want)| ((*name).to_owned(), Setting { value: want.value(), own: true })).collect();
        (topic.name, Found { partitions: topic.partitions.unwrap_or(0), replication: 3, settings: Some(settings) })
    });
    found.collect()
}

/// Finds what a change to a perfect cluster brings.
fn check(config: &Config, change: impl FnOnce(&mut BTreeMap<String, Found>)) -> Vec<(Level, String)> {
    let mut found = as_desired(config);
    change(&mut found);
    compare(&desired(config, &found), &found).into_iter().map(|f| (f.level(), f.to_string())).collect()
}

fn set(found: &mut BTreeMap<String, Found>, topic: &str, name: &str, value: &str) {
    let settings = found.get_mut(topic).and_then(|f| f.settings.as_mut()).expect("the topic is there");
    settings.insert(name.to_owned(), Setting { value: value.to_owned(), own: true });
}

fn keyed() -> Config {
    let mut config = config();
    config.input.keyed_by = KeyedBy::Actor;
    config.input.topics = vec!["app.requests".into()];
    config
}

#[test]
fn a_cluster_as_it_should_be_has_no_findings() {
    assert_eq!(check(&config(), |_| ()), []);
    assert_eq!(check(&keyed(), |_| ()), []);
}

#[test]
fn routed_mode_needs_observations_and_keyed_mode_does_not() {
    let names = |config: &Config| desired(config, &BTreeMap::new()).into_iter().map(|t| t.name).collect::<Vec<_>>();
    assert!(names(&config()).contains(&"tripline.internal.observations".to_owned()));
    assert!(!names(&keyed()).contains(&"tripline.internal.observations".to_owned()));
}

#[test]
fn each_missing_topic_is_named_with_its_way_out() {
    let lines: Vec<_> = compare(&desired(&config(), &BTreeMap::new()), &BTreeMap::new()).iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 11, "{lines:#?}");
    assert!(lines.contains(&"tripline.decisions: does not exist; run `tripline topics apply`".to_owned()));
    assert!(lines.iter().any(|l| l.starts_with("app.requests: does not exist; the apps own it")));
}

#[test]
fn a_changelog_must_have_the_partitions_of_its_tasks() {
    let resize = |found: &mut BTreeMap<String, Found>| {
        if let Some(input) = found.get_mut("app.requests") {
            input.partitions = 12;
        }
    };
    let findings = check(&keyed(), resize);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].0, Level::Error);
    assert!(
        findings[0].1.starts_with("tripline.internal.changelog: has 6 partitions, and the topic whose tasks it remembers has 12"),
        "{findings:?}"
    );
    // In routed mode the number of an input's partitions is its owner's.
    assert_eq!(check(&config(), resize), []);
}

#[test]
fn another_number_of_partitions_stops_tasks_and_only_warns_for_outputs() {
    let mut more = config();
    more.topics.partitions = 8;
    let found = as_desired(&config());
    let findings = compare(&desired(&more, &found), &found);
    let of = |level| findings.iter().filter(|f| f.level() == level).map(|f| f.topic.as_str()).collect::<Vec<_>>();
    assert_eq!(of(Level::Error), ["tripline.internal.observations", "tripline.internal.changelog"]);
    assert_eq!(
        of(Level::Warning),
        ["tripline.decisions", "tripline.alerts", "tripline.standing", "tripline.dead-letters", "tripline.late", "tripline.shadow"]
    );
    assert!(findings.iter().all(|f| f.remedy == Remedy::ByHand), "no verb changes a number of partitions");
}

#[test]
fn settings_are_bounds_where_more_is_as_good() {
    let changelog = "tripline.internal.changelog";
    for (value, fine) in [("604800000", true), ("700000000", true), ("-1", true), ("3600000", false), ("", false)] {
        let findings = check(&config(), |f| set(f, changelog, "delete.retention.ms", value));
        assert_eq!(findings.is_empty(), fine, "delete.retention.ms={value}: {findings:?}");
    }
    for (value, fine) in [("3600000", true), ("259200000", true), ("-1", false), ("604800000", false)] {
        let findings = check(&config(), |f| set(f, "tripline.dead-letters", "retention.ms", value));
        assert_eq!(findings.is_empty(), fine, "dead letters, retention.ms={value}: {findings:?}");
    }
    assert_eq!(check(&config(), |f| set(f, "tripline.decisions", "retention.ms", "1000")), [], "the operator's choice");
}

#[test]
fn settings_that_lose_state_or_stop_a_lane_are_errors() {
    for (topic, name, value) in [
        ("tripline.internal.changelog", "cleanup.policy", "delete"),
        ("tripline.internal.changelog", "cleanup.policy", "compact,delete"),
        ("tripline.internal.observations", "cleanup.policy", "compact"),
        ("tripline.dead-letters", "max.message.bytes", "1048588"),
    ] {
        let findings = check(&config(), |f| set(f, topic, name, value));
        assert_eq!(findings.len(), 1, "{topic} {name}={value}");
        assert_eq!(findings[0].0, Level::Error, "{findings:?}");
        assert!(findings[0].1.ends_with("run `tripline topics apply --alter`"), "{findings:?}");
    }
}

#[test]
fn inputs_with_the_producers_clock_and_single_replicas_are_warnings() {
    let findings = check(&config(), |f| set(f, "app.requests", "message.timestamp.type", "CreateTime"));
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].0, Level::Warning);
    let single = |found: &mut BTreeMap<String, Found>| found.values_mut().for_each(|f| f.replication = 1);
    let findings = check(&config(), single);
    assert_eq!(findings.len(), 9, "every topic of ours, no input: {findings:?}");
    assert!(findings.iter().all(|(level, _)| *level == Level::Warning));
}

#[test]
fn settings_that_may_not_be_read_are_a_warning_and_not_taken_for_wrong() {
    let findings = check(&config(), |f| f.values_mut().for_each(|f| f.settings = None));
    assert_eq!(findings.len(), 11);
    assert!(findings.iter().all(|(level, text)| *level == Level::Warning && text.contains("cannot be read")), "{findings:?}");
}

#[test]
fn a_topic_has_one_purpose() {
    let mut config = config();
    config.topics.decisions = "app.events".into();
    let findings = compare(&desired(&config, &BTreeMap::new()), &BTreeMap::new());
    assert!(findings.iter().any(|f| f.topic == "app.events" && f.problem == "is named for two purposes"));
}

#[test]
fn records_at_the_limit_fit_their_topics() {
    let mut config = config();
    for (limit, bytes) in [(1, 1_048_588), (1 << 20, (3 << 20) + 65_536), (usize::MAX, 1_000_000_000)] {
        config.input.max_value_bytes.0 = limit;
        assert_eq!(config.max_record_bytes(), bytes);
    }
}
