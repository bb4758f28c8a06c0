//! The consumer group as an outsider sees it: who is in it, what it has committed, and whether that fits the topic.

use super::changelog::{self, Isolation};
use super::{access, client};
use crate::config::Config;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tracing::warn;
use tripline_core::protocol::start::{Halt, Metadata};
use tripline_core::tick::Layout;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long one look at offsets may take: the client itself asks again while they are held.
const LOOK: Duration = Duration::from_secs(2);

/// What the group has for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No offset.
    Nothing,
    /// An offset that a worker did not write.
    Foreign(i64),
    /// An offset that a worker of a newer version wrote, in this layout.
    Newer(i64, u64),
    /// An offset of ours.
    Ours(i64, Metadata),
}

impl Found {
    /// Sorts an offset by its metadata.
    pub fn new(offset: i64, metadata: &str) -> Found {
        match Metadata::read(metadata) {
            Ok(Some(metadata)) => Found::Ours(offset, metadata),
            Err(Halt::Newer { layout }) => Found::Newer(offset, layout),
            Ok(None) | Err(_) => Found::Foreign(offset),
        }
    }

    /// The offset, whoever wrote it.
    pub fn offset(&self) -> Option<i64> {
        match self {
            Found::Ours(offset, _) | Found::Newer(offset, _) | Found::Foreign(offset) => Some(*offset),
            Found::Nothing => None,
        }
    }

    /// What a worker wrote with the offset.
    pub fn metadata(&self) -> Option<&Metadata> {
        match self {
            Found::Ours(_, metadata) => Some(metadata),
            Found::Nothing | Found::Foreign(_) | Found::Newer(..) => None,
        }
    }
}

/// Another producer's transaction holds an offset, and neither ended nor timed out.
#[derive(Debug, thiserror::Error)]
#[error(
    "the committed offset of {topic}/{partition} stays pending: another producer's transaction neither ended nor timed out; look with kafka-transactions.sh find-hanging"
)]
pub struct Pending {
    /// The topic that is read.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
}

/// Why offsets were not read.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    /// One of them is held.
    #[error(transparent)]
    Pending(Pending),
    /// The client refused.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

/// Client ids of the group's members, sorted. A worker that stopped counts as a member until its session is over.
pub fn members<C: ConsumerContext>(client: &BaseConsumer<C>, group: &str) -> KafkaResult<Vec<String>> {
    let groups = client.fetch_group_list(Some(group), TIMEOUT)?;
    let members = groups.groups().iter().filter(|found| found.name() == group).flat_map(|found| found.members());
    let mut names: Vec<String> = members.map(|member| member.client_id().to_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

/// The group's offsets of these partitions, in their order, once no transaction holds one of them; `client` reads committed
/// data as the group.
pub fn offsets<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[(&str, i32)],
    patience: Duration,
) -> Result<Vec<Found>, OffsetsError> {
    let deadline = Instant::now() + patience;
    loop {
        match look(client, partitions, LOOK) {
            Ok(found) => return Ok(found),
            Err(error) if access::is_refusal(&error) => return Err(error.into()),
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            Err(error) => return Err(pending(client, partitions).map_or_else(|| error.into(), OffsetsError::Pending)),
        }
    }
}

/// The first of the offsets that is held. A broker that is asked for several at once does not say which.
fn pending<C: ConsumerContext>(client: &BaseConsumer<C>, partitions: &[(&str, i32)]) -> Option<Pending> {
    let is_held =
        |error: KafkaError| matches!(error, KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut) | KafkaError::OffsetFetch(_));
    let held = partitions.iter().find(|one| look(client, &[**one], LOOK).is_err_and(is_held));
    held.map(|(topic, partition)| Pending { topic: (*topic).to_owned(), partition: *partition })
}

fn look<C: ConsumerContext>(client: &BaseConsumer<C>, partitions: &[(&str, i32)], timeout: Duration) -> KafkaResult<Vec<Found>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    let found = client.committed_offsets(list, timeout)?;
    let of = |(topic, partition): &(&str, i32)| {
        let Some(element) = found.find_partition(topic, *partition) else { return Ok(Found::Nothing) };
        element.error()?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Found::new(offset, element.metadata()),
            _ => Found::Nothing,
        })
    };
    partitions.iter().map(of).collect()
}

/// An input topic when a process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Its partitions.
    pub partitions: i32,
    /// The group had an offset for one of them: it was not the group's first start.
    pub was_read: bool,
}

/// For the start of a worker, before it joins: whether the group has read these topics before. What cannot be read counts as
/// read: reading too much is better than skipping.
pub fn inputs(config: &Config, topics: &Layout) -> BTreeMap<String, Input> {
    let client = changelog::client(&client::base(config), &config.app.id, Isolation::Uncommitted, changelog::FEW);
    let was_read = |topic: &str, count: i32| {
        let partitions: Vec<(&str, i32)> = (0..count).map(|partition| (topic, partition)).collect();
        let found = client.as_ref().map_err(Clone::clone).and_then(|client| look(client, &partitions, TIMEOUT));
        found.map_or(true, |found| found.iter().any(|found| *found != Found::Nothing))
    };
    topics.iter().map(|(topic, count)| (topic.clone(), Input { partitions: *count, was_read: was_read(topic, *count) })).collect()
}

/// For the start of a worker, before it joins: whether the tasks' states were written for another number of partitions. A task
/// would find that out for itself; but one that never committed has nothing to compare, and would begin beside states that
/// are still to be moved to it. What cannot be read is left to the tasks.
pub fn verify(config: &Config, tasks: i32) -> Result<(), Halt> {
    let topic = config.keyed_topic();
    let partitions: Vec<(&str, i32)> = (0..tasks).map(|partition| (topic.as_str(), partition)).collect();
    // What is pending does not matter: the number of partitions is in the offset before it, too.
    let found = changelog::client(&client::base(config), &config.app.id, Isolation::Uncommitted, changelog::FEW)
        .and_then(|client| look(&client, &partitions, TIMEOUT));
    match found {
        Ok(found) => match found.iter().filter_map(Found::metadata).find(|metadata| metadata.partitions != tasks) {
            Some(metadata) => Err(Halt::Partitions { written: metadata.partitions, found: tasks }),
            None => Ok(()),
        },
        Err(error) => {
            warn!(%error, "the group's offsets cannot be read before the start; each task looks for itself");
            Ok(())
        }
    }
}
