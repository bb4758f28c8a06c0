//! What Tripline writes, as CloudEvents 1.0 in binary mode: the attributes are headers, the value stays what it is.
//!
//! Nothing here reads a clock: a record that is written again after a crash has the same headers. What comes in as
//! CloudEvents is the business of [`crate::event::cloud`].

use crate::decision::{Alert, Decision};

/// The headers, in the order in which they are written.
pub const HEADERS: [&str; 7] = ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "content-type"];

/// `ce_type` of a decision.
pub const DECISION: &str = "io.tripline.decision.v1";
/// `ce_type` of a decision of a rule that only watches: of its own, so that nobody acts on it by mistake.
pub const SHADOW_DECISION: &str = "io.tripline.shadow-decision.v1";
/// `ce_type` of an alert.
pub const ALERT: &str = "io.tripline.alert.v1";
/// `ce_type` of the standing of an entity.
pub const STANDING: &str = "io.tripline.standing.v1";

/// The attributes of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloudEvent<'a> {
    /// Unique among all records with this source; the same when the record is written again.
    pub id: &'a str,
    /// Who says so: see [`source`].
    pub source: &'a str,
    /// What it is and which version of its JSON.
    pub ty: &'static str,
    /// When it happened, RFC 3339 in UTC: time of the input, not of writing.
    pub time: &'a str,
    /// The entity that it is about: the record's key.
    pub subject: &'a str,
}

/// Who writes: the group.
pub fn source(app_id: &str) -> String {
    format!("/tripline/{app_id}")
}

/// The id of an alert's record. An alert is one over all its records; what tells them apart is what happened to it and the
/// decision that made it happen.
pub fn alert_record_id(alert: &Alert) -> String {
    format!("{}/{}/{}", alert.alert_id, alert.state.name(), alert.decision.decision_id)
}

impl<'a> CloudEvent<'a> {
    /// A decision's. It happened when its event did, or when it was due if the passing of time made it.
    pub fn of_decision(decision: &'a Decision, source: &'a str, subject: &'a str) -> CloudEvent<'a> {
        let ty = if decision.shadow { SHADOW_DECISION } else { DECISION };
        CloudEvent { id: &decision.decision_id, source, ty, time: happened(decision), subject }
    }

    /// An alert's; `id` is its [`alert_record_id`].
    pub fn of_alert(alert: &'a Alert, id: &'a str, source: &'a str, subject: &'a str) -> CloudEvent<'a> {
        CloudEvent { id, source, ty: ALERT, time: happened(&alert.decision), subject }
    }

    /// Names and values, in the order of [`HEADERS`].
    pub fn headers(&self) -> [(&'static str, &'a [u8]); HEADERS.len()] {
        let values = ["1.0", self.id, self.source, self.ty, self.time, self.subject, "application/json"];
        std::array::from_fn(|at| (HEADERS[at], values[at].as_bytes()))
    }
}

fn happened(decision: &Decision) -> &str {
    decision.due_time.as_deref().unwrap_or(&decision.event_time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::SCHEMA_VERSION;
    use crate::event::Event;
    use crate::event::cloud::ContentMode;

    fn decision(changes: serde_json::Value) -> Decision {
        let mut example: serde_json::Value = serde_json::from_str(include_str!("../../schemas/examples/decision.burst.json")).unwrap();
        example.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(example).unwrap()
    }

    fn values<'a>(event: &CloudEvent<'a>) -> Vec<&'a str> {
        event.headers().iter().map(|(_, value)| std::str::from_utf8(value).unwrap()).collect()
    }

    #[test]
    fn a_decision_says_what_it_is_and_when_it_happened() {
        let plain = decision(serde_json::json!({}));
        let event = CloudEvent::of_decision(&plain, "/tripline/shop", "user:u-42");
        let expected = ["1.0", &plain.decision_id, "/tripline/shop", DECISION, &plain.event_time, "user:u-42", "application/json"];
        assert_eq!(values(&event), expected);
        assert_eq!(event.headers().map(|(name, _)| name), HEADERS);
        let timed = decision(serde_json::json!({"due_time": "2026-02-03T09:00:00.000Z", "shadow": true}));
        let event = CloudEvent::of_decision(&timed, "s", "k");
        assert_eq!((event.ty, event.time), (SHADOW_DECISION, "2026-02-03T09:00:00.000Z"));
    }

    #[test]
    fn a_record_of_an_alert_has_an_id_of_its_own_that_is_always_the_same() {
        let first = Alert::opened_by(&decision(serde_json::json!({})));
        let second = Alert { decision: decision(serde_json::json!({"decision_id": "other"})), ..first.clone() };
        assert_eq!(alert_record_id(&first), alert_record_id(&first.clone()));
        assert_ne!(alert_record_id(&first), alert_record_id(&second));
        assert_eq!(alert_record_id(&first), format!("{}/opened/{}", first.alert_id, first.decision.decision_id));
        let event = CloudEvent::of_alert(&first, "id", "s", "k");
        assert_eq!((event.ty, event.time, event.id), (ALERT, first.decision.event_time.as_str(), "id"));
    }

    #[test]
    fn types_carry_the_version_of_the_json() {
        for ty in [DECISION, SHADOW_DECISION, ALERT] {
            assert!(ty.ends_with(&format!(".v{SCHEMA_VERSION}")), "{ty}");
        }
    }

    #[test]
    fn what_we_write_is_what_we_would_read() {
        let decision = decision(serde_json::json!({}));
        let headers = CloudEvent::of_decision(&decision, "/tripline/shop", "user:u-42").headers();
        let mode = ContentMode::of_headers(headers.map(|(name, value)| (name, Some(value))));
        let event = Event::decode_record(Some(br#"{"event_time":null}"#), mode, None).unwrap();
        assert_eq!(
            (event.event_type.as_ref(), event.event_id),
            (DECISION, Some(format!("/tripline/shop|{}", decision.decision_id).into()))
        );
    }
}
