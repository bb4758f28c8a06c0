//! What policy says about one entity because of one event, with the receipt.
//!
//! These are wire types: the JSON Schemas under `schemas/` are generated from them. Every text in them is masked or
//! safe: `metadata` and `masked_payload` went through [`crate::mask`].

use crate::entity::{Entity, EntityKind};
use crate::firing::thousandths;
use crate::policy::Action;
use crate::rule::{Category, Severity};
use crate::score::{Axis, Milli};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Version of the JSON of decisions, alerts and standing.
pub const SCHEMA_VERSION: u32 = 1;

/// The strongest thing that happened, in anomaly-infra's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionTaken {
    /// Recorded only.
    Log,
    /// An alert goes out.
    Alert,
    /// The app should allow less per time.
    Throttle,
    /// The app should ask the user to prove who they are.
    StepUpReview,
    /// The app should refuse.
    Block,
}

impl From<Action> for ActionTaken {
    fn from(action: Action) -> ActionTaken {
        match action {
            Action::Alert => ActionTaken::Alert,
            Action::Throttle => ActionTaken::Throttle,
            Action::StepUp => ActionTaken::StepUpReview,
            Action::Block => ActionTaken::Block,
        }
    }
}

/// Points on the wire: a number with at most three decimals, from whole thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Points(pub i64);

impl From<Milli> for Points {
    fn from(milli: Milli) -> Points {
        Points(milli.thousandths().into())
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&thousandths(self.0))
    }
}

impl Serialize for Points {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1_000 == 0 { serializer.serialize_i64(self.0 / 1_000) } else { serializer.serialize_f64(self.0 as f64 / 1_000.0) }
    }
}

impl<'de> Deserialize<'de> for Points {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Points, D::Error> {
        let points = f64::deserialize(deserializer)?;
        // Far beyond what can be, and far within what a float holds exactly.
        let is_possible = points.abs() <= 1e9;
        is_possible.then(|| Points((points * 1_000.0).round() as i64)).ok_or_else(|| serde::de::Error::custom("points out of range"))
    }
}

impl JsonSchema for Points {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Points".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "number" })
    }
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

/// One line of the receipt: the lines of an axis add up to its score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Contribution {
    /// `id@version` of the rule. `clamp`: what an axis has above 100, with negative points. `others`: lines that did not fit.
    pub rule: String,
    /// Points it adds.
    pub points: Points,
    /// Why, in words: "20 in 60s".
    pub why: String,
    /// What it speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<Axis>,
    /// The family of evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Seconds since its rule fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<i64>,
    /// What is left of it counts this much (1, 0.5, 0.25 or 0), by its rank in the family. Left out when it counts whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Points>,
    /// How sure the rule says it is, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Points>,
    /// The anomaly type, where the rule passes on what the app reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly_type: Option<String>,
}

impl Contribution {
    /// A line that says who adds how much, and why, and nothing else.
    pub fn new(rule: String, points: Points, why: String) -> Contribution {
        Contribution { rule, points, why, axis: None, family: None, age_s: None, share: None, confidence: None, anomaly_type: None }
    }
}

/// A circumstance under which what fired weighs more or less.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContextApplied {
    /// Its name in the policy.
    pub id: String,
    /// So many times.
    pub times: Points,
}

/// An action that the score asked for and that did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldBack {
    /// `alert`, `throttle`, `step_up` or `block`.
    pub action: String,
    /// By what: `flag:ANOMALY_BLOCKING_ENABLED`, `mode:signal`, `exception:link-checker`, `entity:tenant`, `families`.
    pub by: String,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Severity of the score, and never more than a step below the strongest reason's. With `decide: per_signal` the
    /// profile's.
    pub severity: Severity,
    /// 0 to 100: the highest axis, in whole points.
    pub risk_score: u8,
    /// The score of each axis that has one. With `decide: per_signal` none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub axes: BTreeMap<Axis, Points>,
    /// The strongest thing that happened.
    pub action_taken: ActionTaken,
    /// A person should see it.
    pub should_alert: bool,
    /// The app should ask the user to prove who they are.
    pub should_step_up: bool,
    /// The app should refuse.
    pub should_block: bool,
    /// The app should allow less per time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub should_throttle: bool,
    /// With `should_throttle`: milliseconds between two requests that are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle_interval_ms: Option<u64>,
    /// When the strongest action ends if nothing else happens, RFC 3339 in UTC. Nobody need act on it after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Actions that the score asked for and that something held back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_back: Vec<HeldBack>,
    /// Safe to show to the user.
    pub user_message: String,
    /// For the operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub internal_message: String,
    /// `id@version` of the rules that fired, in the pack's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fired: Vec<String>,
    /// The receipt.
    pub contributions: Vec<Contribution>,
    /// What made the points of what fired more or less.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<ContextApplied>,
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
    /// Firings of these rules about this entity that were held back since the ones before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u32,
    /// When it was due, RFC 3339 in UTC, for a decision that the passing of time made; the event is the one that opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_time: Option<String>,
    /// The rule only watches (`mode: shadow`): the decision went to `topics.shadow`, and nobody was asked to act.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// `id@version` of the policy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// Digest of the rule pack and its settings.
    pub rules: String,
    /// Digest of the flags.
    pub flags: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
