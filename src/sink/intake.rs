//! What a record of the decisions topic is: a row, a decision without a signal, or something to keep unread.

use super::row::{EventRow, NoRow};
use serde::Deserialize;
use tripline_core::decision::{Decision, SCHEMA_VERSION};

/// What a record is to the sink.
#[derive(Debug, Clone, PartialEq)]
pub enum Intake {
    /// A decision with a signal.
    Event(Box<EventRow>),
    /// A decision without one: counted, not stored.
    WithoutSignal,
    /// Not a decision that this version knows.
    Unreadable(Unreadable),
}

/// Why a record cannot be read. No content of the record: it may be personal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// One of a closed set: `no_value`, `not_a_decision`, `unknown_schema`, `bad_field`.
    pub reason: &'static str,
    /// Where, in the schema's words.
    pub detail: String,
}

/// Reads a record's value. `record_ms` is the record's timestamp.
pub fn read(value: Option<&[u8]>, record_ms: Option<i64>) -> Intake {
    let unreadable = |reason, detail: String| Intake::Unreadable(Unreadable { reason, detail });
    let Some(value) = value else { return unreadable("no_value", String::new()) };
    match serde_json::from_slice::<Decision>(value) {
        Ok(decision) if decision.schema_version != SCHEMA_VERSION => version_not_known(decision.schema_version),
        Ok(decision) => match EventRow::of(decision, record_ms) {
            Ok(row) => Intake::Event(Box::new(row)),
            Err(NoRow::WithoutSignal) => Intake::WithoutSignal,
            Err(NoRow::BadField(field)) => unreadable("bad_field", field.to_owned()),
        },
        Err(error) => match serde_json::from_slice::<Version>(value) {
            Ok(Version { schema_version }) if schema_version > u64::from(SCHEMA_VERSION) => version_not_known(schema_version),
            _ => unreadable("not_a_decision", format!("line {} column {}", error.line(), error.column())),
        },
    }
}

/// A newer schema may have moved every other field: only its version is sure to be where it was.
#[derive(Deserialize)]
struct Version {
    schema_version: u64,
}

fn version_not_known(version: impl std::fmt::Display) -> Intake {
    Intake::Unreadable(Unreadable { reason: "unknown_schema", detail: format!("schema_version {version}, known is {SCHEMA_VERSION}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::examples::decision;

    fn reason(value: &[u8]) -> String {
        match read(Some(value), Some(0)) {
            Intake::Unreadable(Unreadable { reason, detail }) => format!("{reason}: {detail}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_a_known_decision_is_unreadable_and_its_content_stays_out_of_the_reason() {
        assert_eq!(read(None, None), Intake::Unreadable(Unreadable { reason: "no_value", detail: String::new() }));
        assert_eq!(reason(b"{\"user_id\": \"bob"), "not_a_decision: line 1 column 16");
        assert_eq!(reason(b"{\"schema_version\": 7, \"all\": \"new\"}"), "unknown_schema: schema_version 7, known is 1");

        let mut newer = serde_json::to_value(decision("d1")).expect("JSON");
        newer["schema_version"] = 2.into();
        assert_eq!(reason(newer.to_string().as_bytes()), "unknown_schema: schema_version 2, known is 1");

        let mut timeless = decision("d1");
        timeless.event_time = "yesterday".to_owned();
        assert_eq!(reason(&serde_json::to_vec(&timeless).expect("JSON")), "bad_field: event_time");

        let mut endless = decision("d1");
        endless.expires_at = Some("never".to_owned());
        assert_eq!(reason(&serde_json::to_vec(&endless).expect("JSON")), "bad_field: expires_at");
    }

    #[test]
    fn a_decision_without_a_signal_is_not_a_row() {
        let mut quiet = decision("d1");
        quiet.anomaly_type = None;
        assert_eq!(read(Some(&serde_json::to_vec(&quiet).expect("JSON")), Some(0)), Intake::WithoutSignal);
    }

    #[test]
    fn fields_that_a_later_version_adds_do_not_matter() {
        let mut value = serde_json::to_value(decision("d1")).expect("JSON");
        value["added_later"] = 1.into();
        assert!(matches!(read(Some(value.to_string().as_bytes()), Some(0)), Intake::Event(_)));
    }
}
