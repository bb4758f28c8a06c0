//! What Tripline writes, as CloudEvents 1.0 in binary mode: the attributes are headers, the value stays what it is.
//!
//! Nothing here reads a clock: a record that is written again after a crash has the same headers. What comes in as
//! CloudEvents is the business of [`crate::event::cloud`].

use crate::alert::Alert;
use crate::decision::Decision;
use crate::standing::{Standing, StandingChange};
use crate::time::format_rfc3339_ms;

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

/// The id of an alert's record. An alert is one over all its records; what tells them apart is what happened to it, and the
/// decision that made it happen or the time that did.
pub fn alert_record_id(alert: &Alert) -> String {
    let cause = alert.decision.as_ref().map_or(&alert.at, |decision| &decision.decision_id);
    format!("{}/{}/{cause}", alert.alert_id, alert.state.name())
}

/// The id of what became of a standing; `key` is the entity's. What time ended at a moment may be told twice, when an event from
/// before it comes in between: then both records say the same.
pub fn standing_record_id(change: &StandingChange, key: &str) -> String {
    let at = format_rfc3339_ms(change.at_ms);
    match change.standing.as_deref() {
        Some(Standing { decision_id: Some(decision), .. }) => format!("{key}/{at}/{decision}"),
        Some(standing) => {
            format!("{key}/{at}/{}/{}", standing.action.map_or("none", |action| action.name()), standing.risk_score)
        }
        None => format!("{key}/{at}/gone"),
    }
}

impl<'a> CloudEvent<'a> {
    /// A decision's. It happened when its event did, or when it was due if the passing of time made it.
    pub fn of_decision(decision: &'a Decision, source: &'a str, subject: &'a str) -> CloudEvent<'a> {
        let ty = if decision.shadow { SHADOW_DECISION } else { DECISION };
        CloudEvent { id: &decision.decision_id, source, ty, time: happened(decision), subject }
    }

    /// An alert's; `id` is its [`alert_record_id`].
    pub fn of_alert(alert: &'a Alert, id: &'a str, source: &'a str, subject: &'a str) -> CloudEvent<'a> {
        CloudEvent { id, source, ty: ALERT, time: &alert.at, subject }
    }

    /// A standing's; `id` is its [`standing_record_id`], `at` the entity's time.
    pub fn of_standing(id: &'a str, at: &'a str, source: &'a str, subject: &'a str) -> CloudEvent<'a> {
        CloudEvent { id, source, ty: STANDING, time: at, subject }
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
    use crate::alert::AlertState;
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
    fn a_record_of_an_alert_or_a_standing_has_an_id_of_its_own_that_is_always_the_same() {
        let example = include_str!("../../schemas/examples/alert.opened.json");
        let opened: Alert = serde_json::from_str(example).unwrap();
        let of_decision = opened.decision.as_ref().unwrap().decision_id.clone();
        assert_eq!(alert_record_id(&opened), format!("{}/opened/{of_decision}", opened.alert_id));
        let over = Alert { state: AlertState::Resolved, decision: None, at: "2026-02-03T09:00:00.000Z".into(), ..opened.clone() };
        assert_eq!(alert_record_id(&over), format!("{}/resolved/2026-02-03T09:00:00.000Z", opened.alert_id));
        let event = CloudEvent::of_alert(&over, "id", "s", "k");
        assert_eq!((event.ty, event.time, event.id), (ALERT, "2026-02-03T09:00:00.000Z", "id"));

        let entity = opened.entity.clone();
        let gone = StandingChange { entity: entity.clone(), at_ms: 1_770_109_200_000, standing: None };
        assert_eq!(standing_record_id(&gone, "user:u"), "user:u/2026-02-03T09:00:00.000Z/gone");
        let standing = include_str!("../../schemas/examples/standing.blocked.json");
        let standing: Box<Standing> = serde_json::from_str(standing).unwrap();
        let id = standing.decision_id.clone().unwrap();
        let made = StandingChange { entity, at_ms: 0, standing: Some(standing) };
        assert_eq!(standing_record_id(&made, "user:u"), format!("user:u/1970-01-01T00:00:00.000Z/{id}"));
    }

    #[test]
    fn types_carry_the_version_of_the_json() {
        for ty in [DECISION, SHADOW_DECISION, ALERT, STANDING] {
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
