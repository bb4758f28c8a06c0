//! The load of the recovery benchmark: users of whom much is remembered, and one event after the other about them.
//!
//! The key is the entity (`user:user-…`), as it is in the observations topic, so that a task's decisions stand in the
//! partition of the same number, and what one dead worker left open hides no decision of another's task.

use crate::now_ms;
use anyhow::{Context, Result};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tripline_testkit::choices::Choices;
use tripline_testkit::{Kafka, Record};

/// Rules beside the one that fires. With eight windows each they remember about a hundred bytes of a user.
const WIDE_RULES: usize = 32;
/// One in so many users sends one event fewer at first: its third comes later than that of the others.
const BEHIND: u64 = 8;
/// One in so many users is compared with `replay`. Prime to [`BEHIND`], so that users of both kinds are.
const SAMPLED: u64 = 61;

/// The rule pack: one rule fires at a user's third event, the others make the state fat and never fire.
pub fn rules() -> String {
    let mut text = String::from(
        "schema: 1\nid: recovery.third-request\nversion: 1\ntitle: The third request within a week\nmode: enforce\non: http_request\nby: actor\n\
         detect: {count: {at_least: 3, within: 7d}}\nsignal: {type: third_request}\n---\n",
    );
    for number in 0..WIDE_RULES {
        // More than 64: kept in buckets, with a window of its own for each length.
        let windows: Vec<String> = (1..=8).map(|hours| format!("{{at_least: 100000, within: {hours}h}}")).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "schema: 1\nid: recovery.wide-{number}\nversion: 1\ntitle: More than anybody sends\nmode: enforce\non: http_request\nby: actor\n\
             detect: {{count: {{any_of: [{}]}}}}\nsignal: {{type: wide}}\n---\n",
            windows.join(", ")
        );
    }
    text.push_str("schema: 1\nkind: policy\nid: recovery\nversion: 1\nactions: []\nallowed_lateness: 30s\nremember_ids: 8\n");
    text
}

/// Events that were made so far.
#[derive(Debug, Default)]
pub struct Traffic {
    choices: Choices,
    /// Users that have sent something.
    pub users: u64,
    /// Events made.
    pub made: u64,
    /// The events of the sampled users, as NDJSON in their order.
    pub sample: String,
}

impl Traffic {
    /// The first two events of this many further users, one short of a decision; of some only the first.
    pub fn newcomers(&mut self, count: u64) -> impl Iterator<Item = Record> + '_ {
        let first = self.users;
        self.users += count;
        (first..first + count).flat_map(|user| (0..if user % BEHIND == 0 { 1 } else { 2 }).map(move |_| user)).map(|user| self.of(user))
    }

    /// The next event of a user who has sent something before.
    fn next(&mut self) -> Record {
        let user = self.choices.below(self.users);
        self.of(user)
    }

    fn of(&mut self, user: u64) -> Record {
        let time_ms = now_ms();
        let json = format!(
            r#"{{"event_id":"e-{:012x}","event_time":{time_ms},"event_type":"http_request","user_id":"user-{user:07}","ip_address":"10.{}.{}.{}","method":"GET","path":"/api/v1/orders/{:08}","route":"/api/v1/orders/{{id}}","status_code":200,"response_time_ms":{}}}"#,
            self.made,
            user >> 16 & 255,
            user >> 8 & 255,
            user & 255,
            self.made % 100_000_000,
            3 + self.made % 400,
        );
        self.made += 1;
        if user.is_multiple_of(SAMPLED) {
            self.sample.push_str(&json);
            self.sample.push('\n');
        }
        Record::new(format!("user:user-{user:07}"), json).at_ms(time_ms)
    }
}

/// Whether an entity's decisions are compared with `replay`.
pub fn is_sampled(entity_key: &[u8]) -> bool {
    let text = std::str::from_utf8(entity_key).unwrap_or_default();
    text.strip_prefix("user:user-").and_then(|user| user.parse::<u64>().ok()).is_some_and(|user| user.is_multiple_of(SAMPLED))
}

/// When events were handed to the producer, by their number.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The number of the first.
    pub first: u64,
    at: Arc<Mutex<Vec<Instant>>>,
}

impl Sent {
    /// When this event was sent; none if it was not.
    pub fn at(&self, number: u64) -> Option<Instant> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.at.lock().unwrap_or_else(PoisonError::into_inner).get(index).copied()
    }
}

/// A thread that sends at a steady rate until it is stopped.
pub struct Sender {
    /// What it has sent.
    pub sent: Sent,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Traffic>>,
}

impl Sender {
    /// Starts it.
    pub fn start(kafka: &Kafka, topic: &str, traffic: Traffic, rate: u64) -> Result<Sender> {
        let mut config = kafka.client_config();
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "1");
        let producer: BaseProducer = config.create()?;
        let (sent, stop) = (Sent { first: traffic.made, at: Arc::default() }, Arc::new(AtomicBool::new(false)));
        let thread = {
            let (topic, at, stop) = (topic.to_owned(), sent.at.clone(), stop.clone());
            thread::Builder::new().name("send".into()).spawn(move || send(&producer, &topic, traffic, rate, &at, &stop))?
        };
        Ok(Sender { sent, stop, thread })
    }

    /// Stops it and waits until everything is delivered.
    pub fn finish(self) -> Result<Traffic> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))?
    }
}

fn send(
    producer: &BaseProducer,
    topic: &str,
    mut traffic: Traffic,
    rate: u64,
    at: &Mutex<Vec<Instant>>,
    stop: &AtomicBool,
) -> Result<Traffic> {
    let started = Instant::now();
    for number in 0.. {
        let due = started + Duration::from_micros(number * 1_000_000 / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let record = traffic.next();
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        let timestamp_ms = record.timestamp_ms.unwrap_or_default();
        at.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        let mut next = BaseRecord::<[u8], [u8]>::to(topic).key(&key).payload(&value).timestamp(timestamp_ms);
        while let Err((error, back)) = producer.send(next) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("could not send an event");
            }
            producer.poll(Duration::from_millis(1));
            next = back;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60)).context("could not deliver the last events")?;
    Ok(traffic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_users_are_one_event_short_and_some_two() {
        let mut traffic = Traffic::default();
        assert_eq!(traffic.newcomers(16).count(), 30);
        assert_eq!((traffic.users, traffic.made), (16, 30));
        assert_eq!(traffic.sample.lines().count(), 1, "user 0, who is behind");
        assert!(is_sampled(b"user:user-0000061") && !is_sampled(b"user:user-0000062"));
        let record = traffic.next();
        assert!(record.key.is_some_and(|key| key.starts_with(b"user:user-00000")));
    }
}
