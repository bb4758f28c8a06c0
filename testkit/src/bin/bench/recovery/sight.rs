//! Decisions as a read_committed consumer gets to see them: which task made them, about which event, and when.

use super::load::{Sent, is_sampled};
use crate::events::number_in;
use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tripline_testkit::{Kafka, unique, wait_until};

/// A decision that was seen.
#[derive(Debug, Clone, Copy)]
struct Decision {
    task: i32,
    event: u64,
    at: Instant,
}

/// Everything seen so far. Bounded by the length of a run.
#[derive(Debug, Default)]
struct Seen {
    decisions: Vec<Decision>,
    sample: Vec<Value>,
}

/// A thread that looks at the decisions.
pub struct Sight {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
    tasks: usize,
}

impl Sight {
    /// Looks at this topic from its beginning; so many tasks make decisions.
    pub fn start(kafka: &Kafka, topic: &str, partitions: i32) -> Result<Sight> {
        let mut config = kafka.client_config();
        config.set("group.id", unique("bench-sight")).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        config.set("fetch.wait.max.ms", "500").set("fetch.min.bytes", "1").set("fetch.queue.backoff.ms", "1");
        let consumer: BaseConsumer = config.create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (seen, stop) = (seen.clone(), stop.clone());
            thread::Builder::new().name("sight".into()).spawn(move || look(&consumer, &seen, &stop))?
        };
        Ok(Sight { seen, stop, thread, tasks: usize::try_from(partitions)? })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When each task's first decision about an event that was sent at this time or later was seen.
    pub fn first_since(&self, since: Instant, sent: &Sent) -> BTreeMap<i32, Instant> {
        let mut first = BTreeMap::new();
        for decision in self.seen().decisions.iter().rev().take_while(|decision| decision.at >= since) {
            if sent.at(decision.event).is_some_and(|at| at >= since) {
                first.insert(decision.task, decision.at);
            }
        }
        first
    }

    /// Waits until every task has decided about an event that was sent at this time or later; when each did.
    pub fn wait_for_all(&self, since: Instant, sent: &Sent, limit: Duration) -> Result<BTreeMap<i32, Instant>> {
        wait_until(limit, "every task decides again", || self.thread.is_finished() || self.first_since(since, sent).len() == self.tasks)?;
        let first = self.first_since(since, sent);
        ensure!(first.len() == self.tasks, "the consumer of decisions ended");
        Ok(first)
    }

    /// The longest pause of every task between these times: from one decision to the next, the last one before included.
    pub fn longest_pauses(&self, from: Instant, to: Instant) -> BTreeMap<i32, Duration> {
        let tasks = 0..self.tasks as i32;
        let mut last: BTreeMap<i32, Instant> = tasks.clone().map(|task| (task, from)).collect();
        let mut longest: BTreeMap<i32, Duration> = tasks.clone().map(|task| (task, Duration::ZERO)).collect();
        let mut decided = |task: i32, at: Instant| {
            let before = last.insert(task, at).unwrap_or(from);
            if at >= from {
                let pause = longest.entry(task).or_default();
                *pause = (*pause).max(at.duration_since(before));
            }
        };
        for decision in self.seen().decisions.iter().take_while(|decision| decision.at < to) {
            decided(decision.task, decision.at);
        }
        tasks.for_each(|task| decided(task, to));
        longest
    }

    /// How many decisions were seen.
    pub fn count(&self) -> usize {
        self.seen().decisions.len()
    }

    /// Stops looking. An error if an event has two decisions; else the decisions of the sampled users.
    pub fn finish(self) -> Result<Vec<Value>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the reading thread panicked"))??;
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let mut events: Vec<u64> = seen.decisions.iter().map(|decision| decision.event).collect();
        events.sort_unstable();
        if let Some(pair) = events.windows(2).find(|pair| pair[0] == pair[1]) {
            anyhow::bail!("event {} has two decisions", pair[0]);
        }
        Ok(seen.sample)
    }
}

fn look(consumer: &BaseConsumer, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else { continue };
        let (message, at) = (message.context("could not read decisions")?, Instant::now());
        let task = message.headers().and_then(|headers| headers.iter().find(|header| header.key == "tripline-commit"));
        let task = task.and_then(|header| task_of(header.value?)).context("a decision does not name its task")?;
        let value = message.payload().unwrap_or_default();
        let event = number_in(value)?;
        let sampled = is_sampled(message.key().unwrap_or_default()).then(|| serde_json::from_slice(value)).transpose()?;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.decisions.push(Decision { task, event, at });
        seen.sample.extend(sampled);
    }
    Ok(())
}

/// The partition in the header `tripline-commit`: `0-PARTITION/SEQ/COMMIT`.
fn task_of(header: &[u8]) -> Option<i32> {
    let (task, _) = std::str::from_utf8(header).ok()?.split_once('/')?;
    task.split_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_names_its_task() {
        assert_eq!(task_of(b"0-13/42/00ff"), Some(13));
        assert_eq!((task_of(b"0-13"), task_of(b"13/42/00ff")), (None, None));
    }
}
