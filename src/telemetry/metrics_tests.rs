use super::*;
use prometheus_client::encoding::text::encode;

fn scrape(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).expect("a String takes everything");
    text
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// `docs/metrics.md` as the table has it.
fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin address (`admin.listen`), as OpenMetrics text. This page is generated from the one\n\
         table in `src/telemetry/metrics.rs`; to renew it: `TRIPLINE_BLESS=1 cargo test --release --workspace telemetry::`.\n\n\
         \"Committed\" means: counted when the transaction's commit is known, never for work that was aborted. So, over the\n\
         life of a group, the outcomes of a stage add up to the records it read. A restart sets all of them to 0. No label\n\
         ever names an actor, a topic or a rule.\n\n\
         What to watch: [operations](operations.md#what-to-watch).\n\n\
         | Name | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n",
    );
    for row in Metrics::rows() {
        text.push_str(&format!("| `{}` | {} | {} | {} | {} |\n", row.name, row.kind, row.unit, row.labels, row.meaning));
    }
    text
}

#[test]
fn the_reference_page_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    if std::env::var_os("TRIPLINE_BLESS").is_some() {
        std::fs::write(path, reference()).expect("docs/metrics.md can be written");
    }
    let page = std::fs::read_to_string(path).expect("docs/metrics.md");
    assert!(
        page == reference(),
        "docs/metrics.md is not what the table says: TRIPLINE_BLESS=1 cargo test --release --workspace telemetry::"
    );
}

#[test]
fn every_row_is_scraped_under_its_name_with_type_and_meaning() {
    let (metrics, registry) = Metrics::new();
    metrics.lane(0).committed_now();
    metrics.control.rules.set("sha256:1");
    metrics.control.flags.set("sha256:2");
    let text = scrape(&registry);
    let rows = Metrics::rows();
    assert!(rows.len() > 20);
    for row in rows {
        let family = row.name.strip_suffix("_total").unwrap_or(&row.name);
        assert!(text.contains(&format!("# TYPE {family} {}\n", row.kind)), "{}: type", row.name);
        assert!(text.contains(&format!("# HELP {family} {}", row.meaning.trim_end_matches('.'))), "{}: meaning", row.name);
        let series = if row.kind == "histogram" { format!("{}_count", row.name) } else { row.name.clone() };
        let shown = text.lines().any(|l| l.strip_prefix(&series).is_some_and(|rest| rest.starts_with(['{', ' '])));
        assert!(shown, "{series}: no series at the start");
    }
}

#[test]
fn a_tally_is_added_once_and_stages_add_up() {
    let (metrics, registry) = Metrics::new();
    let mut tally = Tally { routed: 7, unaddressed: 2, processed: 5, late: 1, duplicate: 1, alerts: [1, 0, 0], ..Tally::default() };
    tally.reject_input(Reason::InvalidJson);
    tally.reject(Reason::Panicked);
    tally.reject(Reason::InvalidJson);
    metrics.add(&tally);
    tally.clear();
    metrics.add(&tally);
    let text = scrape(&registry);
    let sum = |name: &str, labels: &[&str]| labels.iter().map(|l| value(&text, &format!("{name}{{{l}}}")).unwrap_or(f64::NAN)).sum::<f64>();
    assert_eq!(sum("tripline_input_records_total", &["outcome=\"routed\"", "outcome=\"unaddressed\"", "outcome=\"dead_lettered\""]), 10.0);
    let outcomes = ["outcome=\"processed\"", "outcome=\"late\"", "outcome=\"duplicate\"", "outcome=\"dead_lettered\""];
    assert_eq!(sum("tripline_observations_total", &outcomes), 9.0);
    assert_eq!(value(&text, "tripline_dead_letters_total{reason=\"invalid_json\"}"), Some(2.0));
    assert_eq!(value(&text, "tripline_dead_letters_total{reason=\"panicked\"}"), Some(1.0));
    assert_eq!(value(&text, "tripline_alerts_total{state=\"opened\"}"), Some(1.0));
}

#[test]
fn reasons_are_counted_under_their_own_word() {
    for (at, reason) in Reason::ALL.into_iter().enumerate() {
        let mut tally = Tally::default();
        tally.reject(reason);
        assert_eq!(tally.dead_letters[at], 1, "{}", reason.name());
    }
}

#[test]
fn types_that_no_profile_names_count_as_other() {
    let (metrics, registry) = Metrics::new();
    metrics.know_types(["RATE_ABUSE", "none"]);
    let mut tally = Tally { without_type: 4, ..Tally::default() };
    tally.types.extend([("RATE_ABUSE".to_owned(), 3), ("reported-by-an-attacker".to_owned(), 2), ("none".to_owned(), 1)]);
    metrics.add(&tally);
    let text = scrape(&registry);
    assert_eq!(value(&text, "tripline_decisions_total{type=\"RATE_ABUSE\"}"), Some(3.0));
    assert_eq!(value(&text, "tripline_decisions_total{type=\"other\"}"), Some(3.0));
    assert_eq!(value(&text, "tripline_decisions_total{type=\"none\"}"), Some(4.0));
    assert!(!text.contains("attacker"));
}

#[test]
fn the_number_of_types_is_bounded() {
    let (metrics, registry) = Metrics::new();
    for n in 0..1_000 {
        metrics.know_types([format!("TYPE_{n}").as_str()]);
    }
    let series = scrape(&registry).lines().filter(|l| l.starts_with("tripline_decisions_total{")).count();
    assert_eq!(series, MAX_TYPES + 2);
}

#[test]
fn a_new_digest_replaces_the_old_one() {
    let (metrics, registry) = Metrics::new();
    assert!(!scrape(&registry).contains("tripline_rules_info{"));
    metrics.control.rules.set("sha256:old");
    metrics.control.rules.set("sha256:new");
    let text = scrape(&registry);
    assert_eq!(value(&text, "tripline_rules_info{digest=\"sha256:new\"}"), Some(1.0));
    assert!(!text.contains("sha256:old"));
}

#[test]
fn lanes_share_a_number_only_when_they_are_the_same_lane() {
    let (metrics, registry) = Metrics::new();
    metrics.lane(0).running.set(3);
    metrics.lane(1).running.set(2);
    metrics.lane(0).restoring.set(1);
    let text = scrape(&registry);
    assert_eq!(value(&text, "tripline_tasks{lane=\"0\",state=\"running\"}"), Some(3.0));
    assert_eq!(value(&text, "tripline_tasks{lane=\"1\",state=\"running\"}"), Some(2.0));
    assert_eq!(value(&text, "tripline_tasks{lane=\"0\",state=\"restoring\"}"), Some(1.0));
}

#[test]
fn decisions_are_counted_by_type_and_by_action_alike() {
    let decision = |anomaly: Option<&str>, action: &str, partial: bool| -> tripline_core::decision::Decision {
        serde_json::from_value(serde_json::json!({
            "schema_version": 1, "decision_id": "d", "event_id": "e", "event_time": "2026-01-01T00:00:00Z", "event_type": "request",
            "entity": {"kind": "anon", "id": ""}, "anomaly_type": anomaly, "category": null, "severity": "low", "risk_score": 1,
            "action_taken": action, "should_alert": false, "should_step_up": false, "should_block": false, "user_message": "",
            "contributions": [], "metadata": {}, "partial": partial, "rules": "", "flags": ""
        }))
        .expect("a decision")
    };
    let (metrics, registry) = Metrics::new();
    metrics.know_types(["RATE_ABUSE"]);
    let mut tally = Tally::default();
    tally.decision(&decision(Some("RATE_ABUSE"), "block", false));
    tally.decision(&decision(Some("RATE_ABUSE"), "step_up_review", true));
    tally.decision(&decision(None, "log", false));
    metrics.add(&tally);
    let text = scrape(&registry);
    let of = |series: &str| value(&text, series).unwrap_or(f64::NAN);
    let types = ["RATE_ABUSE", "none", "other"].map(|t| of(&format!("tripline_decisions_total{{type=\"{t}\"}}")));
    let actions = Tally::ACTIONS.map(|a| of(&format!("tripline_decisions_actions_total{{action=\"{a}\"}}")));
    assert_eq!((types, actions), ([2.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0, 1.0]));
    assert_eq!(of("tripline_subkeys_dropped_total"), 1.0);
}
