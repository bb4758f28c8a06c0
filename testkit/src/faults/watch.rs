//! Looks at the decisions as they become visible to a read_committed consumer: when did the next one come?
//! And at the commits of every task, by their markers in the changelog.

use crate::line::Line;
use anyhow::{Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CHANGELOG: &str = "internal.changelog";
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Where a read_committed consumer ends, by partition.
pub type Mark = BTreeMap<i32, i64>;

/// When something was seen.
#[derive(Default)]
struct Seen {
    /// Decisions with their offsets, by partition of their topic.
    decisions: BTreeMap<i32, Vec<(i64, Instant)>>,
    /// Commits by task.
    commits: BTreeMap<i32, Vec<Instant>>,
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
            list.add_partition_offset(&line.topic(CHANGELOG), *partition, Offset::Beginning)?;
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

    /// When the commits of a task with a state were seen, in their order.
    pub fn commits_of(&self, task: i32) -> Vec<Instant> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).commits.get(&task).cloned().unwrap_or_default()
    }

    /// When the first decision past the mark was seen, if one was.
    pub fn first_after(&self, mark: &Mark) -> Option<Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let first = |(partition, offset): (&i32, &i64)| {
            let seen = seen.decisions.get(partition)?;
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
            let (partition, now) = (message.partition(), Instant::now());
            if !message.topic().ends_with(CHANGELOG) {
                seen.decisions.entry(partition).or_default().push((message.offset(), now));
            } else if message.key() == Some(format!("task/{partition}").as_bytes()) {
                seen.commits.entry(partition).or_default().push(now);
            }
        }
    }
}
