//! What policy says about one entity because of one event, with the reason; and the alert that a person sees.
//!
//! These are wire types: the JSON Schemas under `schemas/` are generated from them. Every text in them is masked or
//! safe: `metadata` and `masked_payload` went through [`crate::mask`].

use crate::entity::{Entity, EntityKind};
use crate::rule::{Category, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Version of the decision's and the alert's JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// The strongest thing that happened, in anomaly-infra's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionTaken {
    /// Recorded only.
    Log,
    /// An alert goes out.
    Alert,
    /// The app should ask the user to prove who they are.
    StepUpReview,
    /// The app should refuse.
    Block,
}

/// Whom a decision is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EntityRef {
    /// `user`, `ip`, `net24`, `device`, `session`, `tenant`, several of them joined by `+`, or `anon`.
    pub kind: String,
    /// Its id; empty for `anon`. Several ids are joined by `|` (in each, `%` is written `%25` and `|` is written `%7C`).
    pub id: String,
    /// The tenant that it lives in, under `entity.scope: tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

impl From<&Entity<'_>> for EntityRef {
    fn from(entity: &Entity<'_>) -> EntityRef {
        let tenant = entity.tenant.as_deref().map(str::to_owned);
        EntityRef { kind: entity.kind.to_string(), id: entity.id.to_string(), tenant }
    }
}

impl EntityRef {
    /// Writes the key of records about it.
    pub fn write_key(&self, out: &mut String) {
        let kind = EntityKind::parse(&self.kind).unwrap_or(EntityKind::ANON);
        Entity { tenant: self.tenant.as_deref().map(Into::into), kind, id: self.id.as_str().into() }.write_key(out);
    }
}

/// One line of the receipt: the parts add up to the score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Contribution {
    /// `id@version` of the rule.
    pub rule: String,
    /// Points it gave.
    pub points: u8,
    /// Why, in words: "20 in 60s".
    pub why: String,
}

/// An action that the score asked for and that did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldBack {
    /// `alert`, `step_up` or `block`.
    pub action: String,
    /// By what: `flag:ANOMALY_BLOCKING_ENABLED`, `mode:signal`, `exception:link-checker`.
    pub by: String,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// Version of this JSON: 1.
    pub schema_version: u32,
    /// UUIDv5 over entity, event id, rule id and ordinal: the same event decided again has the same id.
    pub decision_id: String,
    /// The event that caused it.
    pub event_id: String,
    /// When that event happened, RFC 3339 in UTC.
    pub event_time: String,
    /// Its type.
    pub event_type: String,
    /// Whom it is about.
    pub entity: EntityRef,
    /// The anomaly type; null when nothing fired (`decisions.emit: all`).
    pub anomaly_type: Option<String>,
    /// What the behaviour is about.
    pub category: Option<Category>,
    /// Severity of the profile.
    pub severity: Severity,
    /// 0 to 100.
    pub risk_score: u8,
    /// The strongest thing that happened.
    pub action_taken: ActionTaken,
    /// A person should see it.
    pub should_alert: bool,
    /// The app should ask the user to prove who they are.
    pub should_step_up: bool,
    /// The app should refuse.
    pub should_block: bool,
    /// Actions that the score asked for and that flags or modes held back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_back: Vec<HeldBack>,
    /// Safe to show to the user.
    pub user_message: String,
    /// For the operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub internal_message: String,
    /// The receipt.
    pub contributions: Vec<Contribution>,
    /// What the rule recorded, masked.
    pub metadata: Map<String, Value>,
    /// The event's `data`, masked.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub masked_payload: Map<String, Value>,
    /// Status: the rule's, else the event's.
    pub status_code: Option<i64>,
    /// Type of the resource that the path names.
    pub resource_type: Option<String>,
    /// Id of the resource that the path names.
    pub resource_id: Option<String>,
    /// The event's user.
    pub user_id: Option<String>,
    /// The event's tenant.
    pub tenant_id: Option<String>,
    /// The tenant's name.
    pub tenant_name: Option<String>,
    /// The client's address.
    pub ip_address: Option<String>,
    /// Path as sent.
    pub path: Option<String>,
    /// Method as sent.
    pub method: Option<String>,
    /// User agent as sent.
    pub user_agent: Option<String>,
    /// Device.
    pub device_id: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// The event's time was capped to the reference time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clamped: bool,
    /// Sub-keys of a rule were dropped for this entity because its bound was reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// What it says may be less than the whole: the rule has looked back this far for a shorter time than it looks back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warming: bool,
    /// Firings of this rule about this entity that were held back since the one before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u32,
    /// When it was due, RFC 3339 in UTC, for a decision that the passing of time made; the event is the one that opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_time: Option<String>,
    /// The rule only watches (`mode: shadow`): the decision went to `topics.shadow`, and nobody was asked to act.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// Digest of the rule pack and its settings.
    pub rules: String,
    /// Digest of the flags.
    pub flags: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It is new.
    Opened,
}

impl AlertState {
    /// Its word, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            AlertState::Opened => "opened",
        }
    }
}

/// Something a person should see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// Version of this JSON: 1.
    pub schema_version: u32,
    /// UUIDv5 over the opening decision's id and the rule's.
    pub alert_id: String,
    /// What happened to it.
    pub state: AlertState,
    /// The decision that opened it.
    pub decision: Decision,
}

impl Alert {
    /// The alert that a decision opens.
    pub fn opened_by(decision: &Decision) -> Alert {
        let rule = decision.contributions.first().map_or("", |c| c.rule.split('@').next().unwrap_or(""));
        Alert {
            schema_version: SCHEMA_VERSION,
            alert_id: crate::hash::derived_id(&[&decision.decision_id, rule]).to_string(),
            state: AlertState::Opened,
            decision: decision.clone(),
        }
    }
}
