//! One row of `anomaly_events`, and how a decision becomes one.

use serde::{Serialize, Serializer};
use serde_json::Value;
use tripline_core::decision::Decision;
use tripline_core::time::{format_rfc3339_ms, parse_rfc3339_ms};

/// The columns that come from the decision. Field names are column names; the order is the table's, those that later versions
/// of it added last.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct EventRow {
    /// The decision's id.
    pub id: String,
    pub anomaly_type: String,
    pub category: Option<String>,
    pub severity: String,
    pub risk_score: i64,
    pub user_id: Option<String>,
    pub tenant_id: Option<String>,
    pub tenant_name: Option<String>,
    pub path: Option<String>,
    pub method: Option<String>,
    pub resource_type: Option<String>,
    pub resource_id: Option<String>,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub device_id: Option<String>,
    pub request_id: Option<String>,
    pub status_code: Option<i64>,
    #[serde(serialize_with = "as_json")]
    pub metadata: String,
    #[serde(serialize_with = "as_json")]
    pub masked_payload: String,
    pub action_taken: String,
    /// anomaly-infra's word for "the app should refuse".
    pub blocked: bool,
    /// The Kafka record's timestamp: the same on every repeat, unlike a clock.
    pub created_at: String,
    pub event_id: String,
    pub event_time: String,
    pub event_type: String,
    pub entity_kind: String,
    pub entity_id: String,
    pub should_alert: bool,
    pub should_step_up: bool,
    pub user_message: String,
    pub internal_message: String,
    /// The decision's contributions.
    #[serde(serialize_with = "as_json")]
    pub receipt: String,
    #[serde(serialize_with = "as_json")]
    pub held_back: String,
    pub clamped: bool,
    pub partial: bool,
    pub rules: String,
    pub flags: String,
    pub schema_version: i64,
    /// The score of each axis.
    #[serde(serialize_with = "as_json")]
    pub axes: String,
    pub should_throttle: bool,
    pub throttle_interval_ms: Option<i64>,
    /// When the strongest action ends.
    pub expires_at: Option<String>,
    #[serde(serialize_with = "as_json")]
    pub fired: String,
    #[serde(serialize_with = "as_json")]
    pub context: String,
    /// Empty in rows of before there was one.
    pub policy: String,
    pub warming: bool,
    pub suppressed: i64,
    pub due_time: Option<String>,
}

/// Why a decision has no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRow {
    /// Nothing fired.
    WithoutSignal,
    /// This field has no value that the table can hold.
    BadField(&'static str),
}

impl EventRow {
    /// The row of a decision. `record_ms` is the Kafka record's timestamp; a record without one gets the event's time.
    pub fn of(decision: Decision, record_ms: Option<i64>) -> Result<EventRow, NoRow> {
        let Some(anomaly_type) = decision.anomaly_type else { return Err(NoRow::WithoutSignal) };
        if decision.decision_id.is_empty() {
            return Err(NoRow::BadField("decision_id"));
        }
        let event_ms = parse_rfc3339_ms(&decision.event_time).ok_or(NoRow::BadField("event_time"))?;
        Ok(EventRow {
            anomaly_type,
            category: decision.category.map(word),
            severity: word(decision.severity),
            risk_score: i64::from(decision.risk_score),
            user_id: decision.user_id,
            tenant_id: decision.tenant_id,
            tenant_name: decision.tenant_name,
            path: decision.path,
            method: decision.method,
            resource_type: decision.resource_type,
            resource_id: decision.resource_id,
            ip_address: decision.ip_address,
            user_agent: decision.user_agent,
            device_id: decision.device_id,
            request_id: decision.request_id,
            status_code: decision.status_code,
            metadata: Value::Object(decision.metadata).to_string(),
            masked_payload: Value::Object(decision.masked_payload).to_string(),
            action_taken: word(decision.action_taken),
            blocked: decision.should_block,
            created_at: format_rfc3339_ms(record_ms.filter(|ms| *ms >= 0).unwrap_or(event_ms)),
            event_id: decision.event_id,
            event_time: format_rfc3339_ms(event_ms),
            event_type: decision.event_type,
            entity_kind: decision.entity.kind,
            entity_id: decision.entity.id,
            should_alert: decision.should_alert,
            should_step_up: decision.should_step_up,
            user_message: decision.user_message,
            internal_message: decision.internal_message,
            receipt: json_of(&decision.contributions),
            held_back: json_of(&decision.held_back),
            clamped: decision.clamped,
            partial: decision.partial,
            rules: decision.rules,
            flags: decision.flags,
            schema_version: i64::from(decision.schema_version),
            axes: json_of(&decision.axes),
            should_throttle: decision.should_throttle,
            throttle_interval_ms: decision.throttle_interval_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            expires_at: time_of(decision.expires_at.as_deref(), "expires_at")?,
            fired: json_of(&decision.fired),
            context: json_of(&decision.context),
            policy: decision.policy,
            warming: decision.warming,
            suppressed: i64::from(decision.suppressed),
            due_time: time_of(decision.due_time.as_deref(), "due_time")?,
            id: decision.decision_id,
        })
    }
}

/// The word of a unit enum on the wire, which is also the word in the table.
fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        other => unreachable!("a unit enum is written as a word, not as {other:?}"),
    }
}

/// A time that may be missing, as the table spells times.
fn time_of(time: Option<&str>, field: &'static str) -> Result<Option<String>, NoRow> {
    time.map(|time| parse_rfc3339_ms(time).map(format_rfc3339_ms).ok_or(NoRow::BadField(field))).transpose()
}

fn json_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| unreachable!("plain structs of text and numbers are always JSON: {e}"))
}

/// JSON columns leave as JSON, not as text that holds JSON.
fn as_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<Value>(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
}
