//! Traffic: seeded events of many users, addresses and devices, attack bursts among them, late ones, some that are sent again, and
//! everything bad that `docs/bad-input.md` knows.

use crate::choices::Choices;
use crate::client::Undelivered;
use crate::line::{Line, actor};
use crate::malformed::{self, Sample};
use crate::{Record, client};
use anyhow::{Context, Result, ensure};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use serde_json::{Value, json};
use std::collections::VecDeque;
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
/// Of a hundred records: so many that every kind of bad input comes about three times a minute at the usual rate.
const MALFORMED_PERCENT: u64 = 2;
/// Of a hundred records: events that are sent again, as a client does that heard no answer.
const REPEATED_PERCENT: u64 = 1;
/// Of a hundred records, on a keyed input: events in a partition that was drawn by lot.
const MISPLACED_PERCENT: u64 = 1;
/// What is sent again is one of so many last events: about a second, so that few are too late to count again.
const REPEATED_WITHIN: usize = 128;
/// As large as the input topic takes them: beyond `input.max_value_bytes`.
const MAX_RECORD_BYTES: &str = "4000000";
/// The last records have to reach the broker within this.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);

/// What an app would send, event by event: a function of the seed and the clock that it is told.
#[derive(Debug)]
pub struct Traffic {
    choices: Choices,
    number: u64,
    keyed_partitions: Option<i32>,
    /// The kinds of bad input that a record can be by itself, and which comes next: in turn, so that none is left out.
    kinds: Vec<&'static str>,
    turn: usize,
    recent: VecDeque<Record>,
}

impl Traffic {
    /// From the beginning. `keyed_partitions`: keys as an input has them that is keyed by the actor, and how many partitions it has.
    pub fn new(seed: u64, keyed_partitions: Option<i32>) -> Traffic {
        let kinds: Vec<_> = malformed::KINDS.into_iter().filter(|kind| !malformed::samples(kind).is_empty()).collect();
        let mut choices = Choices::new(seed);
        let turn = choices.below(kinds.len() as u64) as usize;
        Traffic { choices, number: 0, keyed_partitions, kinds, turn, recent: VecDeque::with_capacity(REPEATED_WITHIN) }
    }

    /// The next record, sent at `now_ms`. An event's id comes again only when the event itself is sent again.
    pub fn next(&mut self, now_ms: i64) -> Record {
        self.number += 1;
        if self.choices.percent(MALFORMED_PERCENT) {
            return self.malformed().at_ms(now_ms);
        }
        if self.choices.percent(REPEATED_PERCENT) && !self.recent.is_empty() {
            return self.recent[self.choices.below(self.recent.len() as u64) as usize].clone().at_ms(now_ms);
        }
        let record = self.good(now_ms);
        if let Some(partitions) = self.keyed_partitions
            && self.choices.percent(MISPLACED_PERCENT)
        {
            return record.to_partition(self.choices.below(partitions.max(1) as u64) as i32);
        }
        if self.recent.len() == REPEATED_WITHIN {
            self.recent.pop_front();
        }
        self.recent.push_back(record.clone());
        record
    }

    fn good(&mut self, now_ms: i64) -> Record {
        let event = self.event(now_ms);
        let user = || event["user_id"].as_str().unwrap_or_default().to_owned();
        let key = if self.keyed_partitions.is_some() { actor(&event) } else { user() };
        Record::new(key, event.to_string()).at_ms(now_ms)
    }

    fn malformed(&mut self) -> Record {
        let mut samples = malformed::samples(self.kinds[self.turn % self.kinds.len()]);
        self.turn += 1;
        let Sample { key, value, headers, .. } = samples.swap_remove(self.choices.below(samples.len() as u64) as usize);
        // Both ways to write an actor's key are right, but belong to different partitions: a client keeps to one of them.
        let is_bare = key.as_deref() == Some(malformed::USER.as_bytes());
        let key = if is_bare && self.keyed_partitions.is_some() { Some(format!("user:{}", malformed::USER).into()) } else { key };
        Record { key, value, headers, ..Record::default() }
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
        config.set("message.timeout.ms", "0").set("queue.buffering.max.messages", "500000").set("message.max.bytes", MAX_RECORD_BYTES);
        let undelivered = Undelivered::default();
        let producer: BaseProducer<Undelivered> = config.create_with_context(undelivered.clone())?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, counted, topic) = (stop.clone(), sent.clone(), line.input.clone());
        let partitions = line.kafka.end_offsets(&topic)?.len() as i32;
        let mut traffic = Traffic::new(seed, line.keyed.then_some(partitions));
        let send = move || {
            let began = Instant::now();
            while !stopping.load(Ordering::Relaxed) {
                let due = (began.elapsed().as_millis() as u64).saturating_mul(per_second) / 1_000;
                while counted.load(Ordering::Relaxed) < due {
                    send(&producer, &topic, &traffic.next(now_ms()))?;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                producer.poll(Duration::from_millis(10));
            }
            producer.flush(FLUSH_WITHIN).context("the last events did not reach the broker")?;
            ensure!(undelivered.count() == 0, "the broker did not take {} records of the traffic", undelivered.count());
            Ok(())
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

fn send(producer: &BaseProducer<Undelivered>, topic: &str, record: &Record) -> Result<()> {
    let mut message = client::message(topic, record);
    loop {
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(Duration::from_millis(10));
                message = back;
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
    use std::collections::{BTreeMap, BTreeSet};

    const MODES: [Option<i32>; 2] = [None, Some(4)];

    fn records(seed: u64, keyed_partitions: Option<i32>, count: i64) -> Vec<Record> {
        let mut traffic = Traffic::new(seed, keyed_partitions);
        (0..count).map(|n| traffic.next(1_760_000_000_000 + n * 8)).collect()
    }

    /// The number of an event of ours; a sample has none.
    fn number(record: &Record) -> Option<u64> {
        let event: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
        event["event_id"].as_str()?.strip_prefix('e')?.parse().ok()
    }

    #[test]
    fn traffic_is_a_function_of_its_seed() {
        for mode in MODES {
            assert_eq!(records(3, mode, 1_000), records(3, mode, 1_000));
            assert_ne!(records(3, mode, 1_000), records(4, mode, 1_000));
        }
    }

    #[test]
    fn about_one_event_in_a_hundred_is_sent_again_as_it_was_and_no_other_has_its_id() {
        let records = records(3, None, 5_000);
        let mut by_number: BTreeMap<u64, Vec<&Record>> = BTreeMap::new();
        for record in &records {
            by_number.entry(number(record).unwrap_or_default()).or_default().push(record);
        }
        by_number.remove(&0);
        for again in by_number.values() {
            assert!(again.iter().all(|record| (&record.key, &record.value) == (&again[0].key, &again[0].value)));
        }
        let repeats: usize = by_number.values().map(|again| again.len() - 1).sum();
        assert!((25..=100).contains(&repeats), "{repeats} of 5000");
        assert!(by_number.len() > 4_700, "{} events", by_number.len());
    }

    #[test]
    fn every_kind_of_bad_input_is_sent_with_its_headers() {
        for mode in MODES {
            let records = records(5, mode, 4_000);
            let sent: BTreeSet<_> = records.iter().map(|record| (&record.value, &record.headers)).collect();
            for kind in malformed::KINDS.into_iter().filter(|kind| *kind != "evaluation_panics") {
                let samples = malformed::samples(kind);
                assert!(samples.iter().any(|sample| sent.contains(&(&sample.value, &sample.headers))), "{kind} in {mode:?}");
            }
        }
    }

    #[test]
    fn on_a_keyed_input_an_actor_has_one_key_and_some_events_stand_in_another_partition() {
        let records = records(6, Some(4), 4_000);
        let user = malformed::USER.as_bytes();
        assert!(records.iter().all(|record| record.key.as_deref() != Some(user)), "{} is written as user:{0}", malformed::USER);
        let drawn: BTreeSet<i32> = records.iter().filter_map(|record| record.partition).collect();
        assert_eq!(drawn, (0..4).collect());
    }
}
