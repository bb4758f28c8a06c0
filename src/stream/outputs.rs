//! What comes of a record: decisions, alerts, standings, observations, late records, dead letters.

use super::Shared;
use super::headers::headers_of;
use super::partition::murmur2_partition;
use super::producer::{LaneProducer, Outgoing, SendError, UNTAGGED};
use rdkafka::message::{BorrowedMessage, Message};
use std::sync::Arc;
use tripline_core::alert::Alert;
use tripline_core::cloud_event::{self, CloudEvent};
use tripline_core::dead_letter;
use tripline_core::decision::{Decision, EntityRef};
use tripline_core::hash;
use tripline_core::observation::Observation;
use tripline_core::rejection::Rejection;
use tripline_core::standing::StandingChange;
use tripline_core::time::format_rfc3339_ms;

/// The header that says in which commit a record was written: task, seq and commit id.
pub const COMMIT: &str = "tripline-commit";
/// The header of late records and dead letters that says whose they are. What is a CloudEvent says so with `ce_source`.
pub const APP: &str = "tripline-app";
/// The header of what was made longer after its cause than `stream.degraded_after`: how long, `lag_ms=61234`.
const DEGRADED: &str = "tripline-degraded";

/// Writes outputs of one lane; buffers are reused.
#[derive(Debug)]
pub struct Outputs {
    shared: Arc<Shared>,
    /// `ce_source` of everything written here.
    source: String,
    key: String,
    value: Vec<u8>,
    /// The value of [`DEGRADED`] for what is written now; empty for none.
    degraded: String,
}

/// The headers of a record that is a CloudEvent: its attributes, after the auditor's header (task, seq and commit id) and
/// before that of a degraded one.
fn cloud_headers<'h>(event: &CloudEvent<'h>, commit: &'h str, degraded: &'h str) -> Vec<(&'h str, &'h [u8])> {
    let mut headers = Vec::with_capacity(2 + cloud_event::HEADERS.len());
    headers.push((COMMIT, commit.as_bytes()));
    headers.extend(event.headers());
    if !degraded.is_empty() {
        headers.push((DEGRADED, degraded.as_bytes()));
    }
    headers
}

impl Outputs {
    /// For a lane.
    pub fn new(shared: Arc<Shared>) -> Outputs {
        let source = cloud_event::source(&shared.config.app.id);
        Outputs { shared, source, key: String::new(), value: Vec::with_capacity(2048), degraded: String::new() }
    }

    /// From here on, what is written came this long after its cause, milliseconds, which is too long; `None`: in time.
    pub fn degraded(&mut self, lag_ms: Option<i64>) {
        self.degraded.clear();
        if let Some(lag_ms) = lag_ms {
            self.degraded = format!("lag_ms={lag_ms}");
        }
    }

    fn send(&self, producer: &LaneProducer, topic: &str, timestamp_ms: i64, headers: &[(&str, &[u8])]) -> Result<(), SendError> {
        self.send_value(producer, topic, Some(&self.value), timestamp_ms, headers)
    }

    fn send_value(
        &self,
        producer: &LaneProducer,
        topic: &str,
        value: Option<&[u8]>,
        timestamp_ms: i64,
        headers: &[(&str, &[u8])],
    ) -> Result<(), SendError> {
        let partition = murmur2_partition(self.key.as_bytes(), self.shared.partitions_of(topic));
        producer.send(&Outgoing { topic, partition, key: Some(self.key.as_bytes()), value, timestamp_ms, headers, tag: UNTAGGED })
    }

    fn json(&mut self, value: &impl serde::Serialize) -> Result<(), SendError> {
        self.value.clear();
        // Our own types with string keys always serialise; if one day they do not, the record is not lost but tried again.
        serde_json::to_writer(&mut self.value, value).map_err(|_| SendError::Failed(tripline_core::protocol::Failure::Abortable))
    }

    /// A decision; one of a rule that only watches goes to a topic of its own. `commit` is the auditor's header: task, seq and
    /// commit id.
    pub fn decision(&mut self, producer: &LaneProducer, decision: &Decision, timestamp_ms: i64, commit: &str) -> Result<(), SendError> {
        let shared = self.shared.clone();
        self.about(&decision.entity);
        self.json(decision)?;
        let topic = if decision.shadow { &shared.config.topics.shadow } else { &shared.config.topics.decisions };
        let headers = cloud_headers(&CloudEvent::of_decision(decision, &self.source, &self.key), commit, &self.degraded);
        self.send(producer, topic, timestamp_ms, &headers)
    }

    /// What happened to an alert.
    pub fn alert(&mut self, producer: &LaneProducer, alert: &Alert, timestamp_ms: i64, commit: &str) -> Result<(), SendError> {
        let shared = self.shared.clone();
        self.about(&alert.entity);
        self.json(alert)?;
        let id = cloud_event::alert_record_id(alert);
        let headers = cloud_headers(&CloudEvent::of_alert(alert, &id, &self.source, &self.key), commit, &self.degraded);
        self.send(producer, &shared.config.topics.alerts, timestamp_ms, &headers)
    }

    /// An entity's standing, or that there is none any more.
    pub fn standing(&mut self, producer: &LaneProducer, change: &StandingChange, timestamp_ms: i64, commit: &str) -> Result<(), SendError> {
        let shared = self.shared.clone();
        self.about(&change.entity);
        if let Some(standing) = &change.standing {
            self.json(standing)?;
        }
        let (id, at) = (cloud_event::standing_record_id(change, &self.key), format_rfc3339_ms(change.at_ms));
        let headers = cloud_headers(&CloudEvent::of_standing(&id, &at, &self.source, &self.key), commit, &self.degraded);
        let value = change.standing.as_ref().map(|_| self.value.as_slice());
        self.send_value(producer, &shared.config.topics.standing, value, timestamp_ms, &headers)
    }

    /// The key of records about an entity.
    fn about(&mut self, entity: &EntityRef) {
        self.key.clear();
        entity.write_key(&mut self.key);
    }

    /// An observation, to the keyed topic.
    pub fn observation(&mut self, producer: &LaneProducer, observation: &Observation<'_>, timestamp_ms: i64) -> Result<(), SendError> {
        let shared = self.shared.clone();
        // No header of the auditor's: an observation says which input record it comes from, and a marker which ones its commit took.
        self.observation_to(producer, observation, timestamp_ms, &shared.inputs[0], &[])
    }

    /// An observation that was too late to count.
    pub fn late(
        &mut self,
        producer: &LaneProducer,
        observation: &Observation<'_>,
        timestamp_ms: i64,
        commit: &str,
    ) -> Result<(), SendError> {
        let shared = self.shared.clone();
        let headers: [(&str, &[u8]); 2] = [(COMMIT, commit.as_bytes()), (APP, shared.config.app.id.as_bytes())];
        self.observation_to(producer, observation, timestamp_ms, &shared.config.topics.late, &headers)
    }

    fn observation_to(
        &mut self,
        producer: &LaneProducer,
        observation: &Observation<'_>,
        timestamp_ms: i64,
        topic: &str,
        headers: &[(&str, &[u8])],
    ) -> Result<(), SendError> {
        self.key.clear();
        observation.entity.write_key(&mut self.key);
        self.value.clear();
        observation.encode(&mut self.value);
        self.send(producer, topic, timestamp_ms, headers)
    }

    /// The record that says why another could not become an event: original bytes, or their digest when they are too many.
    pub fn dead_letter(
        &self,
        producer: &LaneProducer,
        record: &BorrowedMessage<'_>,
        rejection: &Rejection,
        stage: &str,
        commit: &str,
    ) -> Result<(), SendError> {
        let shared = &self.shared;
        let timestamp_ms = record.timestamp().to_millis().unwrap_or(0);
        let (partition, offset, timestamp) = (record.partition().to_string(), record.offset().to_string(), timestamp_ms.to_string());
        let time = format_rfc3339_ms(timestamp_ms);
        let mut headers: Vec<(&str, &[u8])> = vec![
            (dead_letter::REASON, rejection.reason.name().as_bytes()),
            (dead_letter::DETAIL, rejection.detail.as_bytes()),
            (dead_letter::STAGE, stage.as_bytes()),
            (dead_letter::SOURCE_TOPIC, record.topic().as_bytes()),
            (dead_letter::SOURCE_PARTITION, partition.as_bytes()),
            (dead_letter::SOURCE_OFFSET, offset.as_bytes()),
            (dead_letter::SOURCE_TIMESTAMP, timestamp.as_bytes()),
            (dead_letter::TIME, time.as_bytes()),
            (COMMIT, commit.as_bytes()),
            (APP, shared.config.app.id.as_bytes()),
        ];
        let present = || headers_of(record).filter_map(|(name, value)| Some((name, value?)));
        let lineage = dead_letter::lineage_of(present()).map(|(from, attempt)| (from.to_string(), attempt.to_string()));
        if let Some((from, attempt)) = &lineage {
            headers.extend([(dead_letter::REDRIVEN_FROM, from.as_bytes()), (dead_letter::ATTEMPT, attempt.as_bytes())]);
        }
        let limit = shared.config.input.max_value_bytes.0;
        let (key, value) = (record.key(), record.payload());
        let truncated = value.map_or(0, <[u8]>::len) > limit || key.map_or(0, <[u8]>::len) > limit;
        let (digest, size) = (hash::digest(value.unwrap_or_default()), value.map_or(0, <[u8]>::len).to_string());
        let own: Vec<_> = present().filter(|(name, _)| dead_letter::is_own(name)).collect();
        let own_bytes: usize = own.iter().map(|(name, value)| name.len() + value.len()).sum();
        let left_out = own_bytes.to_string();
        if truncated {
            headers.extend([(dead_letter::TRUNCATED, size.as_bytes()), (dead_letter::DIGEST, digest.as_bytes())]);
        } else if own_bytes > dead_letter::MAX_OWN_HEADER_BYTES {
            headers.push((dead_letter::HEADERS_LEFT_OUT, left_out.as_bytes()));
        } else {
            headers.extend(own);
        }
        let topic = &shared.config.topics.dead_letters;
        let partition = murmur2_partition(key.unwrap_or_default(), shared.partitions_of(topic));
        let (key, value) = if truncated { (None, None) } else { (key, value) };
        producer.send(&Outgoing { topic, partition, key, value, timestamp_ms, headers: &headers, tag: UNTAGGED })
    }
}
