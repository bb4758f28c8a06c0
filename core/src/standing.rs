//! An entity's present score, the actions in force, and until when they hold: one record per entity, the newest wins.
//!
//! It is published with each decision that a score makes and whenever something ends, and taken back (a record without a value)
//! when nothing is left. Whoever reads it knows what to do about an entity without having read any decision, and does nothing past
//! an action's end: no record, no restriction.

use crate::decision::{EntityRef, Points};
use crate::policy::Action;
use crate::score::Axis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An entity's standing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// Version of this JSON: 1.
    pub schema_version: u32,
    /// Whom it is about.
    pub entity: EntityRef,
    /// 0 to 100: the highest axis, in whole points, at `as_of`. It falls from then on.
    pub risk_score: u8,
    /// The score of each axis that has one, at `as_of`.
    pub axes: BTreeMap<Axis, Points>,
    /// The strongest action in force; null when none is.
    pub action: Option<Action>,
    /// Every action in force, the weakest first.
    pub actions: Vec<Action>,
    /// With `throttle` in force: milliseconds between two requests that are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle_interval_ms: Option<u64>,
    /// The entity's time at which this was so, RFC 3339 in UTC.
    pub as_of: String,
    /// When `action` ends if nothing else happens, RFC 3339 in UTC; when the score is gone, if there is no action.
    pub expires_at: String,
    /// When each action in force ends if nothing else happens, RFC 3339 in UTC: after the strongest the next still holds.
    pub ends: BTreeMap<Action, String>,
    /// The decision that made it so; null when the passing of time did.
    pub decision_id: Option<String>,
    /// `id@version` of the policy.
    pub policy: String,
    /// Digest of the rule pack and its settings.
    pub rules: String,
    /// Digest of the flags.
    pub flags: String,
}

/// What happened to the standing of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingChange {
    /// Whom it is about.
    pub entity: EntityRef,
    /// When, milliseconds of the entity's time.
    pub at_ms: i64,
    /// What it is now; `None` when nothing is left.
    pub standing: Option<Box<Standing>>,
}
