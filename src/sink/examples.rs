//! Decisions for tests.

use super::row::EventRow;
use serde_json::json;
use tripline_core::decision::{ActionTaken, ContextApplied, Contribution, Decision, EntityRef, HeldBack, Points};
use tripline_core::rule::{Category, Severity};
use tripline_core::score::Axis;

/// A decision in which every field has a value, none equal to another of its type where that is possible.
pub(crate) fn decision(id: &str) -> Decision {
    let object = |value: serde_json::Value| value.as_object().cloned().unwrap_or_default();
    Decision {
        schema_version: 1,
        decision_id: id.to_owned(),
        event_id: "evt-7".to_owned(),
        event_time: "2026-01-31T13:00:00.25+01:00".to_owned(),
        event_type: "request.failed".to_owned(),
        entity: EntityRef { kind: "user".to_owned(), id: "u1".to_owned(), tenant: None },
        anomaly_type: Some("auth_failure_burst".to_owned()),
        category: Some(Category::Request),
        severity: Severity::High,
        risk_score: 72,
        axes: [(Axis::Intrusion, Points(72_000)), (Axis::Abuse, Points(8_250))].into(),
        action_taken: ActionTaken::StepUpReview,
        should_alert: true,
        should_step_up: true,
        should_block: true,
        should_throttle: true,
        throttle_interval_ms: Some(1_818),
        expires_at: Some("2026-01-31T14:00:00+01:00".to_owned()),
        held_back: vec![HeldBack { action: "block".to_owned(), by: "mode:alert".to_owned() }],
        user_message: "please confirm it is you".to_owned(),
        internal_message: "20 failures in 60s".to_owned(),
        fired: vec!["auth.burst@3".to_owned()],
        contributions: contributions(),
        context: vec![ContextApplied { id: "new-network".to_owned(), times: Points(1_500) }],
        metadata: object(json!({"count": 20, "token": "***"})),
        masked_payload: object(json!({"form": "login"})),
        status_code: Some(401),
        resource_type: Some("login".to_owned()),
        resource_id: Some("17".to_owned()),
        user_id: Some("u2".to_owned()),
        tenant_id: Some("t1".to_owned()),
        tenant_name: Some("Tenant One".to_owned()),
        ip_address: Some("203.0.113.9".to_owned()),
        path: Some("/login/17".to_owned()),
        method: Some("POST".to_owned()),
        user_agent: Some("curl/8".to_owned()),
        device_id: Some("device-1".to_owned()),
        request_id: Some("req-1".to_owned()),
        clamped: true,
        partial: true,
        warming: true,
        suppressed: 4,
        due_time: Some("2026-01-31T12:00:30Z".to_owned()),
        shadow: false,
        policy: "policy.shop@5".to_owned(),
        rules: "sha256:0011".to_owned(),
        flags: "sha256:2233".to_owned(),
    }
}

/// A receipt of two axes: what an axis is above 100 is cut in neither.
fn contributions() -> Vec<Contribution> {
    let line = |rule: &str, points, why: &str| Contribution {
        rule: rule.to_owned(),
        points: Points(points),
        why: why.to_owned(),
        axis: Some(Axis::Intrusion),
        family: Some("credentials".to_owned()),
        age_s: Some(0),
        share: None,
        confidence: None,
        anomaly_type: None,
    };
    vec![
        Contribution { confidence: Some(Points(900)), ..line("auth.burst@3", 62_000, "20 in 60s") },
        Contribution {
            share: Some(Points(500)),
            age_s: Some(180),
            anomaly_type: Some("odd_login".to_owned()),
            ..line("app.says@1", 10_000, "reported by the app")
        },
        Contribution { axis: Some(Axis::Abuse), family: Some("load".to_owned()), ..line("http.rate@2", 8_250, "more often than allowed") },
    ]
}

/// 2026-01-31T12:00:01.000Z: when Kafka took the decision in.
pub(crate) const RECORD_MS: i64 = 1_769_860_801_000;

/// The row of a changed [`decision`].
pub(crate) fn row(id: &str, change: impl FnOnce(&mut Decision)) -> EventRow {
    let mut decision = decision(id);
    change(&mut decision);
    EventRow::of(decision, Some(RECORD_MS)).expect("the example has a signal")
}
