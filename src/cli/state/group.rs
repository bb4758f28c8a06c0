//! The group's offsets and the changelog, as an outsider sees them.

use super::adoption::Adoption;
use super::{Failure, code, refused};
use crate::cli::failure::count;
use crate::config::{Config, KeyedBy};
use crate::stream::changelog::{self, Entry, Isolation, Quiet, ReadError, Span};
use crate::stream::client::{self, ClientError};
use crate::stream::group::{self, Found, OffsetsError};
use crate::stream::restore::{RestoreError, marker_key, patience};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::convert::Infallible;
use std::time::Duration;

/// How long the cluster may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Offsets before the end in which a marker is looked for at first.
const FIRST_REACH: i64 = 1_000;

/// The task that is meant.
pub(super) struct Task {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) is_router: bool,
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl Task {
    /// The task of a topic's partition, if the topic has tasks; without a topic the keyed one's.
    pub(super) fn new(topic: Option<String>, partition: i32, config: &Config) -> Result<Task, Failure> {
        let keyed = config.keyed_topic();
        let topic = topic.unwrap_or_else(|| keyed.clone());
        let is_router = topic != keyed;
        let is_ours = !is_router || (config.input.keyed_by == KeyedBy::None && config.input.topics.contains(&topic));
        if !is_ours {
            return Err(Failure::usage(format!(
                "{topic} has no tasks: name {keyed} or, when input.keyed_by is `none`, a topic of input.topics"
            )));
        }
        Ok(Task { topic, partition, is_router })
    }
}

/// The group's offsets and the changelog, as an outsider sees them.
pub(super) struct Group<'a> {
    pub(super) config: &'a Config,
    committed: BaseConsumer<Quiet>,
    uncommitted: BaseConsumer<Quiet>,
}

impl Group<'_> {
    /// Connects; an error when no broker answers.
    pub(super) fn connect(config: &Config) -> Result<Group<'_>, Failure> {
        client::reach(config, TIMEOUT).map_err(of_client)?;
        let base = client::base(config);
        let client = |isolation| {
            changelog::client(&base, &config.app.id, isolation, changelog::MANY).map_err(|e| of_client(ClientError::creating(e)))
        };
        Ok(Group { config, committed: client(Isolation::Committed)?, uncommitted: client(Isolation::Uncommitted)? })
    }

    /// The partitions of the keyed topic, after a look at whether the task and a changelog that fits are there.
    pub(super) fn check_partitions(&self, task: &Task) -> Result<i32, Failure> {
        let metadata = self.uncommitted.fetch_metadata(None, TIMEOUT).map_err(|e| of_kafka("read the topics", &e))?;
        let partitions = |name: &str| match metadata.topics().iter().find(|t| t.name() == name).map(|t| t.partitions().len() as i32) {
            Some(partitions) if partitions > 0 => Ok(partitions),
            _ => Err(refused(format!("{name} does not exist; look with `tripline topics check`"))),
        };
        let own = partitions(&task.topic)?;
        if task.partition >= own {
            return Err(Failure::usage(format!("{} has no partition {}: they are 0 to {}", task.topic, task.partition, own - 1)));
        }
        let tasks = partitions(&self.config.keyed_topic())?;
        let changelog = self.config.changelog_topic();
        let (keyed, written) = (self.config.keyed_topic(), partitions(&changelog)?);
        if written != tasks {
            return Err(refused(uneven(task, (&changelog, written), (&keyed, tasks))));
        }
        Ok(tasks)
    }

    /// A running worker would go on from what it knows and write over what is written here.
    pub(super) fn check_empty(&self) -> Result<(), Failure> {
        let id = &self.config.app.id;
        let names = group::members(&self.committed, id).map_err(|e| of_kafka("read the group's members", &e))?;
        if names.is_empty() {
            return Ok(());
        }
        let (count, names) = (count(names.len(), "member"), names.join(", "));
        let session = tripline_core::time::format_duration_ms(self.config.stream.session_timeout.0.as_millis() as i64);
        Err(refused(format!(
            "group {id} has {count} (client ids: {names}): stop its workers first; a stopped one counts as a member for up to {session} (stream.session_timeout)"
        )))
    }

    /// The group's offset, once no transaction holds it.
    pub(super) fn offset_of(&self, task: &Task) -> Result<Found, Failure> {
        match group::offsets(&self.committed, &[(&task.topic, task.partition)], patience(self.config)) {
            Ok(found) => Ok(found.into_iter().next().unwrap_or(Found::Nothing)),
            Err(OffsetsError::Pending(held)) => Err(refused(held)),
            Err(OffsetsError::Kafka(error)) => Err(of_kafka("read the group's offset", &error)),
        }
    }

    /// The task's newest marker as it was written, and its offset; none when there is none, or it was deleted. Each commit ends with its marker,
    /// so the search begins at the end of the partition and goes further back only when it has to.
    pub(super) fn newest_marker(&self, task: &Task, tasks: i32) -> Result<Option<(Vec<u8>, i64)>, Failure> {
        let partition = task.partition.rem_euclid(tasks.max(1));
        let (low, end) = self.ends(&self.config.changelog_topic(), partition)?;
        let key = marker_key(task.is_router.then_some(task.topic.as_str()), task.partition);
        let mut newest = None;
        let mut reach = FIRST_REACH;
        loop {
            let from = end.saturating_sub(reach).max(low);
            self.read_changelog(partition, (from, end), |found, value, offset| {
                if found == key {
                    newest = value.map(|value| (value.to_vec(), offset));
                }
            })?;
            if newest.is_some() || from <= low {
                return Ok(newest);
            }
            reach = reach.saturating_mul(16);
        }
    }

    /// Shows the committed records of a changelog partition between two offsets as key, value and offset.
    pub(super) fn read_changelog(
        &self,
        partition: i32,
        (from, end): (i64, i64),
        mut show: impl FnMut(&str, Option<&[u8]>, i64),
    ) -> Result<(), Failure> {
        let topic = self.config.changelog_topic();
        let span = Span { topic: &topic, partition, from, end };
        let show = |record: &Entry<'_>| {
            show(record.key, record.value, record.offset);
            Ok::<_, Infallible>(false)
        };
        changelog::read(&self.committed, span, patience(self.config), || false, show).map_err(|error| match error {
            ReadError::Open => refused(RestoreError::Open { partition, end }),
            ReadError::Kafka(source) => of_kafka("read the changelog", &source),
            ReadError::Shown(never) => match never {},
        })
    }

    /// Partitions of the keyed topic: as many as there are tasks, and partitions of the changelog.
    pub(super) fn tasks(&self) -> Result<i32, Failure> {
        self.check_partitions(&Task::new(None, 0, self.config)?)
    }

    /// Partitions of a topic; 0 when it does not exist.
    pub(super) fn partitions(&self, name: &str) -> Result<i32, Failure> {
        let metadata = self.uncommitted.fetch_metadata(None, TIMEOUT).map_err(|e| of_kafka("read the topics", &e))?;
        Ok(metadata.topics().iter().find(|t| t.name() == name).map_or(0, |t| t.partitions().len() as i32))
    }

    /// The first offset that is still there, and the next one to be written.
    pub(super) fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), Failure> {
        changelog::ends(&self.uncommitted, topic, partition, || false)
            .map_err(|e| of_kafka(&format!("read the ends of {topic}/{partition}"), &e))
    }

    /// The first offset that is left of a task's changelog, and the next one to be written; zeros for a router, which has no state
    /// in it.
    pub(super) fn changelog(&self, task: &Task) -> Result<(i64, i64), Failure> {
        if task.is_router { Ok((0, 0)) } else { self.ends(&self.config.changelog_topic(), task.partition) }
    }

    /// Writes the offset. The broker refuses it, too, when the group has members by now.
    pub(super) fn commit(&self, task: &Task, adoption: &Adoption) -> Result<(), Failure> {
        let text = serde_json::to_string(&adoption.metadata()).map_err(refused)?;
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&task.topic, task.partition);
        element.set_offset(Offset::Offset(adoption.offset)).map_err(refused)?;
        element.set_metadata(text);
        self.committed.commit(&list, CommitMode::Sync).map_err(|e| of_kafka("write the group's offset", &e))
    }
}

/// The changelog has one partition for each of the keyed topic's: what to do when it has not.
fn uneven(task: &Task, (changelog, written): (&str, i32), (keyed, tasks): (&str, i32)) -> String {
    let way_out = if written < tasks {
        format!("if {keyed} grew, `tripline state repartition --to {tasks}` gives the changelog as many and moves the states")
    } else {
        format!("{keyed} was made anew, or is another one than the states are of: look with `tripline topics check`")
    };
    format!("{task}: the changelog {changelog} has {written} partitions, {keyed} has {tasks}: {way_out}")
}

fn of_client(error: ClientError) -> Failure {
    Failure::new(error.exit_code(), error)
}

fn of_kafka(what: &str, error: &KafkaError) -> Failure {
    use RDKafkaErrorCode as E;
    let is_gone = matches!(error.rdkafka_error_code(), Some(E::OperationTimedOut | E::BrokerTransportFailure | E::AllBrokersDown));
    Failure::new(if is_gone { code::UNREACHABLE } else { code::FINDINGS }, format!("could not {what}: {error}"))
}
