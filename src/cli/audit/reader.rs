//! Reads what an audit compares, in the order that [`tripline_core::audit`] needs.

mod record;

use super::{Failure, code, of_client, of_kafka, of_topics};
use crate::config::{Config, KeyedBy};
use crate::stream::changelog::{self, Isolation, Quiet, ReadError, Span};
use crate::stream::client::{self, ClientError};
use crate::stream::group::{self, OffsetsError};
use crate::stream::restore::patience;
use crate::stream::topics::cluster::{Cluster, Found};
use crate::stream::topics::names;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, Timestamp, TopicPartitionList};
use record::Ours;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tripline_core::audit::{Audit, Complete, Markers, Report, Role, Task, Window};

/// How long the cluster may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A commit's records are appended while its transaction is open, which brokers look after every 10 s; clocks of brokers may be
/// 5 s apart.
const BEYOND_TRANSACTION_MS: i64 = 15_000;
/// `min.compaction.lag.ms` that workers insist on; taken when we may not read the topic's settings.
const LEAST_LAG_MS: i64 = 3_600_000;

/// A partition to read: its first offset to look at, and the watermark.
#[derive(Debug, Clone, Copy)]
struct Part {
    partition: i32,
    from: i64,
    end: i64,
}

/// A cluster to read from.
pub(super) struct Reader<'a> {
    config: &'a Config,
    found: BTreeMap<String, Found>,
    committed: BaseConsumer<Quiet>,
    uncommitted: BaseConsumer<Quiet>,
}

impl Reader<'_> {
    pub(super) fn connect(config: &Config) -> Result<Reader<'_>, Failure> {
        let cluster = Cluster::connect(config).map_err(of_client)?;
        let found = cluster.find(&names(config)).map_err(of_topics)?;
        let base = client::base(config);
        let client = |isolation| {
            changelog::client(&base, &config.app.id, isolation, changelog::MANY).map_err(|e| of_client(ClientError::creating(e)))
        };
        Ok(Reader { config, found, committed: client(Isolation::Committed)?, uncommitted: client(Isolation::Uncommitted)? })
    }

    /// One audit of the commits of this long.
    pub(super) fn audit(&self, since: Duration) -> Result<Report, Failure> {
        let margin_ms = self.config.stream.transaction_timeout.0.as_millis() as i64 + BEYOND_TRANSACTION_MS;
        let since_ms = now_ms().saturating_sub(since.as_millis() as i64);
        let window = Window { since_ms, margin_ms };
        let changelog = self.config.changelog_topic();
        let settled = self.ends(&self.committed, &changelog)?;
        let outputs = self.roles();
        let parts: Vec<Vec<Part>> =
            outputs.iter().map(|(_, topic)| self.parts(topic, since_ms - margin_ms)).collect::<Result<_, Failure>>()?;
        for ((_, topic), parts) in outputs.iter().zip(&parts) {
            self.wait_until_closed(topic, parts)?;
        }
        let offsets = self.offsets()?;
        let mut audit = self.markers(window, &changelog, &settled)?;
        for (task, found) in &offsets {
            audit.offset(task, found.offset().map(|offset| (offset, found.metadata())));
        }
        // Where a kind has no topic, nothing of it is missing.
        let mut complete: [Complete; Role::ALL.len()] = Default::default();
        for ((role, topic), parts) in outputs.iter().zip(&parts) {
            let compacted_ms = if *role == Role::Standing { now_ms() - self.lag_ms(topic, 0) } else { i64::MIN };
            let least_ms = compacted_ms.max(since_ms - margin_ms);
            let from_ms = parts.iter().map(|part| Ok(self.read(&mut audit, *role, topic, *part)?.max(least_ms)));
            let from_ms = from_ms.collect::<Result<Vec<_>, Failure>>()?;
            complete[*role as usize] = Complete { step: self.step(*role, from_ms.len(), settled.len()), from_ms };
        }
        Ok(audit.close(&complete))
    }

    /// See [`Complete::step`]. Routed mode places observations and what is said of their entity by one key. Elsewhere the app placed the
    /// record, and what came of it may stand anywhere.
    fn step(&self, role: Role, partitions: usize, tasks: usize) -> i32 {
        let is_by_entity = !matches!(role, Role::DeadLetters | Role::Observations);
        if is_by_entity && self.config.input.keyed_by == KeyedBy::None { divisor(partitions, tasks) as i32 } else { 1 }
    }

    fn roles(&self) -> Vec<(Role, String)> {
        let topics = &self.config.topics;
        let mut roles = vec![
            (Role::Decisions, topics.decisions.clone()),
            (Role::Shadow, topics.shadow.clone()),
            (Role::Alerts, topics.alerts.clone()),
            (Role::Standing, topics.standing.clone()),
            (Role::Late, topics.late.clone()),
            (Role::DeadLetters, topics.dead_letters.clone()),
        ];
        if self.config.input.keyed_by == KeyedBy::None {
            roles.push((Role::Observations, self.config.observations_topic()));
        }
        roles
    }

    fn partitions(&self, topic: &str) -> Result<std::ops::Range<i32>, Failure> {
        let found = self.found.get(topic);
        let missing =
            || Failure::new(code::FINDINGS, format!("{topic} does not exist: nothing to audit; look with `tripline topics check`"));
        Ok(0..found.ok_or_else(missing)?.partitions)
    }

    fn lag_ms(&self, topic: &str, unknown_ms: i64) -> i64 {
        let settings = self.found.get(topic).and_then(|found| found.settings.as_ref());
        settings.and_then(|settings| settings.get("min.compaction.lag.ms")?.value.parse().ok()).unwrap_or(unknown_ms)
    }

    /// First and next offset of a partition, as a client of this isolation is told them.
    fn watermarks(&self, client: &BaseConsumer<Quiet>, topic: &str, partition: i32) -> Result<(i64, i64), Failure> {
        changelog::ends(client, topic, partition, || false).map_err(|e| of_kafka(&format!("read the ends of {topic}/{partition}"), &e))
    }

    fn ends(&self, client: &BaseConsumer<Quiet>, topic: &str) -> Result<Vec<i64>, Failure> {
        self.partitions(topic)?.map(|partition| Ok(self.watermarks(client, topic, partition)?.1)).collect()
    }

    /// Each partition from an append time on, up to its high watermark.
    fn parts(&self, topic: &str, from_ms: i64) -> Result<Vec<Part>, Failure> {
        let ends = self.ends(&self.uncommitted, topic)?;
        let mut times = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            times.add_partition_offset(topic, partition, Offset::Offset(from_ms.max(0))).map_err(|e| of_kafka("name a time", &e))?;
        }
        let starts = self.uncommitted.offsets_for_times(times, TIMEOUT).map_err(|e| of_kafka(&format!("find a time in {topic}"), &e))?;
        let part = |(partition, end): (i32, &i64)| {
            let start = starts.find_partition(topic, partition);
            let start = start.ok_or_else(|| Failure::new(code::FINDINGS, format!("no offsets of {topic}/{partition}")))?;
            start.error().map_err(|e| of_kafka(&format!("find a time in {topic}/{partition}"), &e))?;
            let from = start.offset().to_raw().filter(|from| *from >= 0).unwrap_or(*end).min(*end);
            Ok(Part { partition, from, end: *end })
        };
        (0..).zip(&ends).map(part).collect()
    }

    /// Nothing below the watermarks is open any more.
    fn wait_until_closed(&self, topic: &str, parts: &[Part]) -> Result<(), Failure> {
        let deadline = Instant::now() + patience(self.config);
        for part in parts {
            while self.watermarks(&self.committed, topic, part.partition)?.1 < part.end {
                if Instant::now() >= deadline {
                    return Err(open(topic, *part));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// The tasks, and the group's offset of each, once no transaction holds one of them.
    fn offsets(&self) -> Result<Vec<(Task, group::Found)>, Failure> {
        let keyed = self.config.keyed_topic();
        let inputs = self.config.input.topics.iter().filter(|topic| **topic != keyed);
        let mut tasks = Vec::new();
        for topic in std::iter::once(&keyed).chain(inputs) {
            tasks.extend(self.partitions(topic)?.map(|partition| Task { topic: topic.clone(), partition }));
        }
        let partitions: Vec<_> = tasks.iter().map(|task| (task.topic.as_str(), task.partition)).collect();
        let found = group::offsets(&self.committed, &partitions, patience(self.config)).map_err(|error| match error {
            OffsetsError::Pending(held) => Failure::new(code::FINDINGS, held),
            OffsetsError::Kafka(error) => of_kafka("read the group's offsets", &error),
        })?;
        Ok(tasks.into_iter().zip(found).collect())
    }

    fn markers(&self, window: Window, changelog: &str, settled: &[i64]) -> Result<Audit, Failure> {
        let mut markers = Markers::new(window, changelog);
        let mut newest_ms = i64::MIN;
        let parts = self.parts(changelog, window.since_ms - 2 * window.margin_ms)?;
        let keyed_topic = self.config.keyed_topic();
        for (part, settled) in parts.into_iter().zip(settled) {
            let owner = Task { topic: keyed_topic.clone(), partition: part.partition };
            self.each(changelog, part, |record, at_ms| {
                newest_ms = newest_ms.max(at_ms);
                if let Some(task) = record::task_of_marker(record.key(), &keyed_topic) {
                    markers.marker(&task, part.partition, record.offset(), at_ms, record.offset() < *settled, record.payload());
                } else if record::is_state(record.key()) {
                    markers.state(&owner);
                }
            })?;
        }
        // What compaction may have taken by now, by whichever clock is ahead.
        let kept_from_ms = now_ms().max(newest_ms) - self.lag_ms(changelog, LEAST_LAG_MS) + window.margin_ms;
        Ok(markers.close(kept_from_ms))
    }

    /// Reads a partition of outputs; answers the append time from which on it was complete.
    fn read(&self, audit: &mut Audit, role: Role, topic: &str, part: Part) -> Result<i64, Failure> {
        let ours = Ours::new(self.config, role, topic);
        let mut times = Vec::new();
        audit.partition();
        self.each(topic, part, |record, at_ms| {
            // Enough to know the time of the first record whose predecessors retention did not take meanwhile.
            if times.last().is_none_or(|(_, last)| at_ms > *last) && times.len() < FIRST_TIMES {
                times.push((record.offset(), at_ms));
            }
            ours.show(audit, record, at_ms);
        })?;
        let (low, _) = self.watermarks(&self.uncommitted, topic, part.partition)?;
        if low == 0 || low < part.from {
            return Ok(i64::MIN);
        }
        // Retention has come this far: what was before the first record that is left is not known, but it was no younger than
        // retention takes.
        let first_ms = times.iter().find(|(offset, _)| *offset >= low).map_or_else(now_ms, |(_, at_ms)| *at_ms);
        Ok(self.retention_ms(topic).map_or(first_ms, |retention_ms| first_ms.min(now_ms().saturating_sub(retention_ms))))
    }

    /// The age that every record of a topic reaches, less what clocks may be apart; `None` when they can go by size, or nobody may say.
    fn retention_ms(&self, topic: &str) -> Option<i64> {
        let settings = self.found.get(topic)?.settings.as_ref()?;
        let number = |name: &str| settings.get(name)?.value.parse::<i64>().ok();
        let retention_ms = number("retention.ms")?;
        // Without a bound in time or size somebody else deleted them.
        (number("retention.bytes")? < 0 && retention_ms >= 0).then(|| retention_ms.saturating_sub(BEYOND_TRANSACTION_MS))
    }

    /// Every committed record of a partition with its append time.
    fn each(&self, topic: &str, part: Part, mut show: impl FnMut(&BorrowedMessage<'_>, i64)) -> Result<(), Failure> {
        let Part { partition, from, end } = part;
        let span = Span { topic, partition, from, end };
        let shown = |record: &BorrowedMessage<'_>| match record.timestamp() {
            Timestamp::LogAppendTime(at_ms) => {
                show(record, at_ms);
                Ok(false)
            }
            Timestamp::CreateTime(_) | Timestamp::NotAvailable => Err(format!(
                "{topic} is not LogAppendTime, so nobody can say which commits are covered: set message.timestamp.type (`tripline topics apply --alter`)"
            )),
        };
        changelog::read_what_is_left(&self.committed, span, patience(self.config), shown).map_err(|error| match error {
            ReadError::Open => open(topic, part),
            ReadError::Kafka(error) => of_kafka(&format!("read {topic}"), &error),
            ReadError::Shown(why) => Failure::new(code::FINDINGS, why),
        })
    }
}

/// First records of a partition whose times are kept, in case retention takes some of them while they are read.
const FIRST_TIMES: usize = 1_000;

/// The greatest common divisor of two positive numbers.
fn divisor(a: usize, b: usize) -> usize {
    if b == 0 { a.max(1) } else { divisor(b, a % b) }
}

fn open(topic: &str, part: Part) -> Failure {
    let Part { partition, end, .. } = part;
    Failure::new(
        code::FINDINGS,
        format!(
            "{topic}/{partition} cannot be read up to offset {end}: a transaction below it neither ended nor timed out; look with kafka-transactions.sh find-hanging"
        ),
    )
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
