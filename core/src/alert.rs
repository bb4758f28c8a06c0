//! Something that a person should see: an episode with one id, opened, updated and resolved.
//!
//! With `decide: per_event` there is one for each policy and entity, over when the action is left; with `per_signal` one for each
//! rule and entity, over when the rule was quiet for a while. What happens within `once_per` of the last record is folded into the
//! next, unless it is worse than everything before.

use crate::decision::{Decision, EntityRef};
use crate::policy::Action;
use crate::rule::Severity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It is new.
    Opened,
    /// More of the same, or worse.
    Updated,
    /// It is over.
    Resolved,
}

impl AlertState {
    /// Its word, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            AlertState::Opened => "opened",
            AlertState::Updated => "updated",
            AlertState::Resolved => "resolved",
        }
    }
}

/// Something that a person should see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// Version of this JSON: 1.
    pub schema_version: u32,
    /// UUIDv5 over the opening decision's id and the rule's or policy's: the same for every record of the episode.
    pub alert_id: String,
    /// What happened to it.
    pub state: AlertState,
    /// Whom it is about.
    pub entity: EntityRef,
    /// The rule, or the policy, that it is an episode of.
    pub about: String,
    /// When it was opened, RFC 3339 in UTC.
    pub opened_at: String,
    /// When this happened, RFC 3339 in UTC.
    pub at: String,
    /// The highest severity so far.
    pub severity: Severity,
    /// The strongest action so far.
    pub action: Action,
    /// Decisions of the episode so far.
    pub decisions: u32,
    /// Decisions since the last record that had none of their own, and firings that were held back since.
    pub folded: u32,
    /// What to do: the runbook of the rule that weighs most.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub runbook: String,
    /// The decision, with its receipt and the message for the user; null when the alert is over.
    pub decision: Option<Decision>,
}
