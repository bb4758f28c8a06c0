//! The event as the generator writes it: the fields of the event schema, in its order, absent ones left out.

use serde::Serialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use tripline_core::entity::Entity;

/// One event before it has its id and its time.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Wire {
    pub event_id: String,
    pub event_time: String,
    pub event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_time_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anomaly_type: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<&'static str, Json>,
}

/// The type of a request; every other type is a domain event.
pub const REQUEST: &str = "http_request";

impl Wire {
    /// Whether it belongs to the requests topic.
    pub fn is_request(&self) -> bool {
        self.event_type == REQUEST
    }

    /// The id of its actor, as the key of a keyed topic.
    pub fn actor_key(&self) -> String {
        match Entity::actor(self.user_id.as_deref(), self.ip_address.as_deref()) {
            Entity { id, .. } if !id.is_empty() => id.into_owned(),
            nobody => nobody.to_string(),
        }
    }
}
