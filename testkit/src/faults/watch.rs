//! Looks at the decisions as they become visible to a read_committed consumer: when did the next one come, and of which task?

use crate::line::Line;
use anyhow::{Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Where a read_committed consumer ends, by partition.
pub type Mark = BTreeMap<i32, i64>;

/// The header that says which commit of which task a decision belongs to.
const COMMIT: &str = "tripline-commit";

/// When decisions were seen.
#[derive(Default)]
struct Seen {
    /// With their offsets, by partition of the topic.
    by_partition: BTreeMap<i32, Vec<(i64, Instant)>>,
    /// By the number of the task that made them.
    by_task: BTreeMap<i32, Vec<Instant>>,
}

/// A consumer of the decisions topic.
pub struct Watch {
    consumer: Arc<BaseConsumer>,
    topic: String,
    partitions: Vec<i32>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks from the beginning on. What it remembers is bounded by the length of a round.
    pub fn start(line: &Line) -> Result<Watch> {
        let topic = line.topic("decisions");
        let partitions: Vec<i32> = line.kafka.end_offsets(&topic)?.into_keys().collect();
        let mut config = line.kafka.client_config();
        config.set("group.id", crate::unique("watch")).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        config.set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition_offset(&topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let (consumer, seen, stop) = (Arc::new(consumer), Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (consumer, seen, stop) = (consumer.clone(), seen.clone(), stop.clone());
            std::thread::Builder::new().name("watch".into()).spawn(move || look(&consumer, &seen, &stop))?
        };
        Ok(Watch { consumer, topic, partitions, seen, stop, thread: Some(thread) })
    }

    /// Where the decisions end now.
    pub fn mark(&self) -> Result<Mark> {
        let end = |partition: &i32| Ok((*partition, self.consumer.fetch_watermarks(&self.topic, *partition, ANSWERS_WITHIN)?.1));
        self.partitions.iter().map(end).collect()
    }

    /// When the first decision past the mark was seen; waits at most until the deadline.
    pub fn next_after(&self, mark: &Mark, deadline: Instant) -> Result<Instant> {
        loop {
            if let Some(at) = self.first_after(mark) {
                return Ok(at);
            }
            if Instant::now() >= deadline {
                bail!("no decision became visible");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Partitions of the decisions, as many as there are tasks with a state.
    pub fn partitions(&self) -> &[i32] {
        &self.partitions
    }

    /// When the decisions of a task were seen, in their order.
    pub fn decisions_of(&self, task: i32) -> Vec<Instant> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).by_task.get(&task).cloned().unwrap_or_default()
    }

    /// When the first decision past the mark was seen, if one was.
    pub fn first_after(&self, mark: &Mark) -> Option<Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let first = |(partition, offset): (&i32, &i64)| {
            let seen = seen.by_partition.get(partition)?;
            seen.get(seen.partition_point(|(at, _)| at < offset)).map(|(_, when)| *when)
        };
        mark.iter().filter_map(first).min()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(consumer: &BaseConsumer, seen: &Mutex<Seen>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // Errors come while a broker is away; the client goes on by itself.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            seen.by_partition.entry(message.partition()).or_default().push((message.offset(), now));
            if let Some(task) = task(&message) {
                seen.by_task.entry(task).or_default().push(now);
            }
        }
    }
}

/// The number of the task that made a decision: the header says topic-task/seq/commit.
fn task(message: &BorrowedMessage<'_>) -> Option<i32> {
    let header = message.headers()?.iter().find(|header| header.key == COMMIT)?;
    task_of(std::str::from_utf8(header.value?).ok()?)
}

fn task_of(commit: &str) -> Option<i32> {
    commit.split('/').next()?.rsplit_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_says_which_task_made_it() {
        assert_eq!(task_of("0-3/17/00ff"), Some(3));
        assert_eq!([task_of(""), task_of("x/1/2"), task_of("0-x/1/2")], [None; 3]);
    }
}
