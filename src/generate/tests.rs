//! What the generator promises, checked against the thresholds of the parity pack with a counter of our own.

use super::*;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet, HashMap};

fn options() -> Options {
    Options {
        seed: 7,
        events: 20_000,
        rate: 2_000,
        attacks: true,
        actors: 500,
        start_ms: 1_767_225_600_000,
        malformed: 0,
        lines: true,
        requests_topic: "app.requests".into(),
        events_topic: "app.events".into(),
        keyed: false,
    }
}

fn json(record: &Generated) -> Json {
    serde_json::from_slice(record.value.as_deref().expect("a valid event has a value")).expect("a valid event is JSON")
}

fn attack(record: &Generated) -> Option<Attack> {
    match record.label {
        Some(Label::Attack { attack, .. }) => Some(attack),
        _ => None,
    }
}

/// For each (what is counted, actor) the times of its events.
type Times = BTreeMap<String, Vec<i64>>;

/// What the detectors of the parity pack would count, by `threshold window_ms what actor`.
fn counted(records: &[Generated]) -> Times {
    let mut times = Times::new();
    for record in records {
        let event = json(record);
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let actor = if event["user_id"].is_string() { text("user_id") } else { text("ip_address") };
        let (method, path) = (text("method"), text("path"));
        let below = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        let mut count = |threshold: u32, window_ms: u32, what: &str| {
            times.entry(format!("{threshold} {window_ms} {what} {actor}")).or_default().push(record.time_ms);
        };
        let writes = ["POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str());
        if writes && below(&["/api/v1/auth/", "/api/v1/account/", "/api/v1/users/", "/api/v1/invoice/", "/api/v1/payments/"]) {
            // Per path in the pack; over all sensitive paths here, which is stricter for the ordinary and the same for a burst.
            count(20, 60_000, "burst");
        }
        if below(&["/admin/", "/api/v1/account/roles/", "/api/v1/users/"]) {
            count(10, 300_000, &format!("probe {path}"));
        }
        match event["status_code"].as_i64() {
            Some(400) => count(5, 120_000, "400"),
            Some(403) => count(5, 120_000, "403"),
            _ => (),
        }
        let header = &event["headers"]["X-Tenant"];
        if header.is_string() && event["tenant_id"].is_string() && *header != event["tenant_id"] {
            count(1, 1, "tenant");
        }
        if event["anomaly_type"].is_string() {
            count(1, 1, "reported");
        }
    }
    times
}

/// What reached its threshold within its window, by what is counted.
fn fired(times: &Times) -> BTreeSet<String> {
    let reached = times.iter().filter(|(key, at)| {
        let mut words = key.split(' ').map_while(|word| word.parse::<i64>().ok());
        let (threshold, window_ms) = (words.next().unwrap_or(0) as usize, words.next().unwrap_or(0));
        at.windows(threshold).any(|run| run[threshold - 1] - run[0] < window_ms)
    });
    reached.map(|(key, _)| key.split(' ').nth(2).unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_same_options_give_the_same_bytes_and_another_seed_does_not() {
    let all = |options| traffic(options).collect::<Vec<_>>();
    let first = all(Options { malformed: 50, ..options() });
    assert_eq!(first, all(Options { malformed: 50, ..options() }));
    assert_ne!(first, all(Options { malformed: 50, seed: 8, ..options() }));
    // Pinned: a changed line of output is a changed promise, also from one version to the next.
    let bytes: Vec<u8> = first.iter().flat_map(|record| record.value.clone().unwrap_or_default()).collect();
    assert_eq!(tripline_core::hash::digest(&bytes), "sha256:1c4af91570641aca");
}

#[test]
fn every_event_has_the_required_fields_and_its_own_id() {
    let records: Vec<Generated> = traffic(options()).collect();
    let mut ids = BTreeSet::new();
    for (record, before) in records.iter().zip(std::iter::once(&records[0]).chain(&records)) {
        let event = json(record);
        let decoded = tripline_core::event::Event::decode(record.value.as_deref()).expect("a valid event decodes");
        assert_eq!(decoded.event_time_ms, record.time_ms);
        assert!(ids.insert(event["event_id"].as_str().expect("an id").to_owned()));
        let time = tripline_core::time::parse_rfc3339_ms(event["event_time"].as_str().expect("a time"));
        assert_eq!(time, Some(record.time_ms));
        assert!(record.time_ms >= before.time_ms);
        let is_request = event["event_type"].as_str().expect("a type") == "http_request";
        assert_eq!(record.topic, if is_request { "app.requests" } else { "app.events" });
        assert_eq!(is_request, event["path"].is_string() && event["method"].is_string() && event["status_code"].is_u64(), "{event}");
    }
    assert_eq!(ids.len(), 20_000);
    let last = records.last().expect("records").time_ms - records[0].time_ms;
    assert_eq!(last, 9_999, "event time follows the rate");
}

#[test]
fn every_attack_reaches_the_threshold_that_looks_for_it() {
    for rate in [1, 7, 2_000, 100_000] {
        let labelled: Vec<Generated> = traffic(Options { rate, ..options() }).filter(|record| attack(record).is_some()).collect();
        for (kind, what) in [
            (Attack::SensitiveBurst, "burst"),
            (Attack::PathProbing, "probe"),
            (Attack::CredentialGuessing, "403"),
            (Attack::ValidationProbing, "400"),
            (Attack::CrossTenant, "tenant"),
            (Attack::ReportedAnomaly, "reported"),
        ] {
            let steps: Vec<Generated> = labelled.iter().filter(|record| attack(record) == Some(kind)).cloned().collect();
            assert!(fired(&counted(&steps)).contains(what), "{kind:?} at {rate} events a second");
        }
        let share = labelled.len() as f64 / 20_000.0;
        assert!((0.02..0.2).contains(&share), "share of attacks {share} at {rate} events a second");
    }
}

#[test]
fn the_ordinary_never_fire() {
    for (actors, rate) in [(1, 1), (1, 50_000), (5, 50), (500, 2_000), (50_000, 2)] {
        let ordinary: Vec<Generated> = traffic(Options { actors, rate, ..options() }).filter(|record| record.label.is_none()).collect();
        assert_eq!(fired(&counted(&ordinary)), BTreeSet::new(), "{actors} actors at {rate} events a second");
    }
    assert!(traffic(Options { attacks: false, ..options() }).all(|record| record.label.is_none()));
}

#[test]
fn reported_anomalies_carry_a_secret_to_be_masked() {
    let reported: Vec<Json> =
        traffic(options()).filter(|record| attack(record) == Some(Attack::ReportedAnomaly)).map(|record| json(&record)).collect();
    assert!(!reported.is_empty());
    for event in reported {
        assert_eq!(event["event_type"], "anomaly.reported");
        assert!(event["data"]["access_token"].as_str().is_some_and(|secret| secret.starts_with("tok-")));
    }
}

#[test]
fn a_keyed_record_has_its_actor_as_key_and_one_topic() {
    for record in traffic(Options { keyed: true, ..options() }) {
        let event = json(&record);
        let entity = tripline_core::entity::Entity::actor(event["user_id"].as_str(), event["ip_address"].as_str());
        assert!(entity.is_named_by(record.key.as_deref().expect("a key").as_bytes()), "{event}");
        assert_eq!(record.topic, "app.requests");
    }
}

#[test]
fn malformed_records_come_on_top_and_everywhere() {
    let records: Vec<Generated> = traffic(Options { malformed: 100, ..options() }).collect();
    assert_eq!(records.len(), 20_100);
    let mut by_quarter: HashMap<usize, usize> = HashMap::new();
    for (place, record) in records.iter().enumerate() {
        if matches!(record.label, Some(Label::Malformed(_))) {
            *by_quarter.entry(place * 4 / records.len()).or_default() += 1;
        }
    }
    assert!((0..4).all(|quarter| by_quarter[&quarter] == 25), "{by_quarter:?}");
    let valid = |records: Vec<Generated>| records.into_iter().filter(|r| !matches!(r.label, Some(Label::Malformed(_)))).collect::<Vec<_>>();
    assert_eq!(valid(records), traffic(options()).collect::<Vec<_>>(), "malformed records do not change the others");
}
