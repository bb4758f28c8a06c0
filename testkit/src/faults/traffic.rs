//! Traffic: seeded events of many users, addresses and devices, attack bursts among them, late ones, records that are no events.

use super::schedule::Choices;
use crate::line::{Line, actor};
use crate::malformed;
use crate::{Record, client};
use anyhow::{Context, Result};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const USERS: u64 = 24;
const ADDRESSES: u64 = 12;
const DEVICES: u64 = 16;
/// Attackers at a time: so few that each of them is fast.
const ATTACKERS: u64 = 3;
/// Events until other users attack.
const EVENTS_OF_A_BURST: u64 = 150;
/// The rules take events that are up to four seconds older than their entity's newest: about what a restart takes, after which
/// one input partition may be read before the other.
const LATE_BY_MS: std::ops::Range<u64> = 4_200..8_000;
/// Kinds of records that can never become events.
const BROKEN: [&str; 6] = ["null_value", "empty_value", "invalid_utf8", "invalid_json", "missing_event_type", "not_a_time"];
/// The last records have to reach the broker within this.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);

/// What an app would send, event by event: a function of the seed and the clock that it is told.
#[derive(Debug)]
pub struct Traffic {
    choices: Choices,
    number: u64,
    keyed: bool,
}

impl Traffic {
    /// From the beginning. `keyed`: keys as a topic that is keyed by the actor has them.
    pub fn new(seed: u64, keyed: bool) -> Traffic {
        Traffic { choices: Choices::new(seed), number: 0, keyed }
    }

    /// The next record, sent at `now_ms`. Event ids never come twice.
    pub fn next(&mut self, now_ms: i64) -> Record {
        self.number += 1;
        if self.choices.percent(1) {
            return self.broken(now_ms);
        }
        let event = self.event(now_ms);
        let key = if self.keyed { actor(&event) } else { event["user_id"].as_str().unwrap_or_default().to_owned() };
        Record::new(key, event.to_string()).at_ms(now_ms)
    }

    fn broken(&mut self, now_ms: i64) -> Record {
        let kind = *self.choices.pick(&BROKEN);
        let samples = malformed::samples(kind);
        let sample = self.choices.pick(&samples);
        Record { key: sample.key.clone(), value: sample.value.clone(), headers: sample.headers.clone(), ..Record::default() }.at_ms(now_ms)
    }

    fn event(&mut self, now_ms: i64) -> Value {
        let burst = self.number / EVENTS_OF_A_BURST * ATTACKERS;
        let attacks = self.choices.percent(50);
        let user = if attacks { (burst + self.choices.below(ATTACKERS)) % USERS } else { self.choices.below(USERS) };
        let address = if attacks { user % ADDRESSES } else { self.choices.below(ADDRESSES) };
        let is_late = self.choices.percent(4);
        let jitter_ms =
            if is_late { LATE_BY_MS.start + self.choices.below(LATE_BY_MS.end - LATE_BY_MS.start) } else { self.choices.below(250) };
        let mut event = json!({
            "event_id": format!("e{}", self.number), "event_time": now_ms - jitter_ms as i64,
            "user_id": format!("u{user}"), "ip_address": format!("203.0.113.{address}"),
            "device_id": format!("d{}", self.choices.below(DEVICES)),
        });
        let more = match self.choices.below(14) {
            0 => json!({"event_type": "mfa_asked"}),
            1 => json!({"event_type": "mfa_answered"}),
            2 => json!({"event_type": "login", "outcome": "fail"}),
            3 => json!({"event_type": "login", "outcome": (if self.choices.percent(50) { "ok" } else { "fail" })}),
            4 => json!({"event_type": "reset"}),
            _ => {
                let statuses: &[i32] = if attacks { &[404, 403, 418, 200] } else { &[200, 200, 200, 404, 403] };
                let (path, status) = (self.choices.below(40), *self.choices.pick(statuses));
                json!({"event_type": "http_request", "method": "GET", "path": format!("/p/{path}"), "status_code": status})
            }
        };
        if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        event
    }
}

/// Sends traffic to a line's input until it is told to stop. An outage of the broker delays what it sends, and loses nothing.
#[derive(Debug)]
pub struct Source {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Source {
    /// So many events per second from now on.
    pub fn start(line: &Line, seed: u64, per_second: u64) -> Result<Source> {
        let mut config = client::client_config(line.kafka.bootstrap());
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "5");
        // For as long as a broker may be away.
        config.set("message.timeout.ms", "0").set("queue.buffering.max.messages", "500000");
        let producer: BaseProducer = config.create()?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, counted, topic, keyed) = (stop.clone(), sent.clone(), line.input.clone(), line.keyed);
        let send = move || {
            let mut traffic = Traffic::new(seed, keyed);
            let began = Instant::now();
            while !stopping.load(Ordering::Relaxed) {
                let due = (began.elapsed().as_millis() as u64).saturating_mul(per_second) / 1_000;
                while counted.load(Ordering::Relaxed) < due {
                    send(&producer, &topic, &traffic.next(now_ms()))?;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                producer.poll(Duration::from_millis(10));
            }
            producer.flush(FLUSH_WITHIN).context("the last events did not reach the broker")
        };
        let thread = std::thread::Builder::new().name("traffic".into()).spawn(send)?;
        Ok(Source { stop, sent, thread: Some(thread) })
    }

    /// Records sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends no more, and waits until the broker has everything.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Err(_)) => anyhow::bail!("the thread of the traffic panicked"),
            Some(Ok(outcome)) => outcome.map(|()| self.sent()),
            None => Ok(self.sent()),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send(producer: &BaseProducer, topic: &str, record: &Record) -> Result<()> {
    loop {
        let mut message = BaseRecord::<[u8], [u8]>::to(topic);
        (message.key, message.payload, message.timestamp) = (record.key.as_deref(), record.value.as_deref(), record.timestamp_ms);
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((why, _)) => return Err(why).with_context(|| format!("could not send to {topic}")),
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn traffic_is_a_function_of_its_seed_and_its_events_have_ids_of_their_own() {
        let records = |seed| {
            let mut traffic = Traffic::new(seed, false);
            (0..3_000).map(|n| traffic.next(1_760_000_000_000 + n * 8)).collect::<Vec<_>>()
        };
        assert_eq!(records(3), records(3));
        assert_ne!(records(3), records(4));
        let events: Vec<Value> = records(3).iter().filter_map(|r| serde_json::from_slice(r.value.as_deref()?).ok()).collect();
        let ids: Vec<&str> = events.iter().filter_map(|e| e["event_id"].as_str()).filter(|id| id.starts_with('e')).collect();
        assert!(ids.len() > 2_900 && ids.len() < 3_000, "some are no events: {}", ids.len());
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    }
}
