//! `tripline state`: what an operator does with what tasks remember; the workers of the group are stopped.
//!
//! `adopt` takes the changelog's word for a task whose offset, metadata and changelog disagree. It writes one thing: the
//! group's offset of the task's partition, with the metadata of the newest marker. The ordinary restore finds that marker at
//! the next start and rebuilds the state up to it. `repartition` is in a file of its own.

mod adoption;
mod repartition;

use super::{Failure, code, print};
use crate::config::{Config, KeyedBy};
use crate::stream::changelog::{self, Isolation, Quiet, ReadError, Span};
use crate::stream::client::{self, ClientError};
use crate::stream::group::{self, Found, OffsetsError};
use crate::stream::restore::{RestoreError, marker_key, patience};
use adoption::{Adoption, OffsetChoice};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::convert::Infallible;
use std::time::Duration;
use tripline_core::protocol::start::{Halt, LAYOUT, Marker, Metadata};

/// How long the cluster may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What to do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum StateCommand {
    /// Take the changelog's word for a task that does not start; every worker of the group must be stopped
    Adopt(AdoptArgs),
    /// Move the app to more partitions with its state; every worker of the group must be stopped
    Repartition(repartition::RepartitionArgs),
}

/// Which task, and where it reads on.
#[derive(Debug, Clone, clap::Args)]
pub struct AdoptArgs {
    /// Partition of the topic
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: i32,
    /// Topic of the task [default: the keyed topic]
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Where to read on, with the marker's state [default: the marker's next offset]
    #[arg(long, value_name = "N|earliest|latest")]
    pub offset: Option<OffsetChoice>,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs the verb.
pub fn run(command: &StateCommand, config: &Config) -> Result<u8, Failure> {
    match command {
        StateCommand::Adopt(args) => adopt(args, config),
        StateCommand::Repartition(args) => repartition::run(args, config),
    }
}

fn adopt(args: &AdoptArgs, config: &Config) -> Result<u8, Failure> {
    let task = Task::new(args, config)?;
    client::reach(config, TIMEOUT).map_err(of_client)?;
    let group = Group::connect(config)?;
    let tasks = group.check_partitions(&task)?;
    group.check_empty()?;
    let found = group.offset_of(&task)?;
    let marker = group.newest_marker(&task, tasks)?;
    let ends = group.ends(&task.topic, task.partition)?;
    let adoption = Adoption::new(marker.as_deref(), tasks, args.offset, ends).map_err(|why| refused(format!("{task}: {why}")))?;
    let mut text = adoption.describe(&task.to_string(), &config.app.id, &found);
    if args.dry_run {
        text.push_str("nothing written: dry run\n");
        return print(&text);
    }
    group.commit(&task, &adoption)?;
    text.push_str("written: the next start restores the task up to its marker\n");
    print(&text)
}

/// The task that is meant.
struct Task {
    topic: String,
    partition: i32,
    is_router: bool,
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl Task {
    fn new(args: &AdoptArgs, config: &Config) -> Result<Task, Failure> {
        let keyed = config.keyed_topic();
        let topic = args.topic.clone().unwrap_or_else(|| keyed.clone());
        let is_router = topic != keyed;
        let is_ours = !is_router || (config.input.keyed_by == KeyedBy::None && config.input.topics.contains(&topic));
        if !is_ours {
            return Err(Failure::usage(format!(
                "{topic} has no tasks: name {keyed} or, when input.keyed_by is `none`, a topic of input.topics"
            )));
        }
        Ok(Task { topic, partition: args.partition, is_router })
    }
}

/// The group's offsets and the changelog, as an outsider sees them.
struct Group<'a> {
    config: &'a Config,
    committed: BaseConsumer<Quiet>,
    uncommitted: BaseConsumer<Quiet>,
}

impl Group<'_> {
    fn connect(config: &Config) -> Result<Group<'_>, Failure> {
        let base = client::base(config);
        let client = |isolation| changelog::client(&base, &config.app.id, isolation).map_err(|e| of_client(ClientError::creating(e)));
        Ok(Group { config, committed: client(Isolation::Committed)?, uncommitted: client(Isolation::Uncommitted)? })
    }

    /// The partitions of the keyed topic, after a look at whether the task and a changelog that fits are there.
    fn check_partitions(&self, task: &Task) -> Result<i32, Failure> {
        let metadata = self.uncommitted.fetch_metadata(None, TIMEOUT).map_err(|e| of_kafka("read the topics", &e))?;
        let partitions = |name: &str| match metadata.topics().iter().find(|t| t.name() == name).map(|t| t.partitions().len() as i32) {
            Some(partitions) if partitions > 0 => Ok(partitions),
            _ => Err(refused(format!("{name} does not exist: nothing to adopt; look with `tripline topics check`"))),
        };
        let own = partitions(&task.topic)?;
        if task.partition >= own {
            return Err(Failure::usage(format!("{} has no partition {}: they are 0 to {}", task.topic, task.partition, own - 1)));
        }
        let tasks = partitions(&self.config.keyed_topic())?;
        let written = partitions(&self.config.changelog_topic())?;
        if written != tasks {
            return Err(refused(format!("{task}: {}", Halt::Partitions { written, found: tasks })));
        }
        Ok(tasks)
    }

    /// A running worker would go on from what it knows and write over what is written here.
    fn check_empty(&self) -> Result<(), Failure> {
        let id = &self.config.app.id;
        let names = group::members(&self.committed, id).map_err(|e| of_kafka("read the group's members", &e))?;
        if names.is_empty() {
            return Ok(());
        }
        let (count, names) = (super::failure::count(names.len(), "member"), names.join(", "));
        let session = tripline_core::time::format_duration_ms(self.config.stream.session_timeout.0.as_millis() as i64);
        Err(refused(format!(
            "group {id} has {count} (client ids: {names}): stop its workers first; a stopped one counts as a member for up to {session} (stream.session_timeout)"
        )))
    }

    /// The group's offset, once no transaction holds it.
    fn offset_of(&self, task: &Task) -> Result<Found, Failure> {
        let found = group::offsets(&self.committed, &[(&task.topic, task.partition)], patience(self.config));
        match found {
            Ok(found) => Ok(found.into_iter().next().unwrap_or(Found::Nothing)),
            Err(OffsetsError::Pending) => Err(refused(RestoreError::Pending { topic: task.topic.clone(), partition: task.partition })),
            Err(OffsetsError::Kafka(error)) => Err(of_kafka("read the group's offset", &error)),
        }
    }

    /// The task's newest marker as it was written; none when there is none, or it was deleted.
    fn newest_marker(&self, task: &Task, tasks: i32) -> Result<Option<Vec<u8>>, Failure> {
        let (topic, partition) = (self.config.changelog_topic(), task.partition.rem_euclid(tasks.max(1)));
        let (from, end) = self.ends(&topic, partition)?;
        let key = marker_key(task.is_router.then_some(task.topic.as_str()), task.partition);
        let mut newest = None;
        let show = |found: &str, value: Option<&[u8]>, _| {
            if found == key {
                newest = value.map(<[u8]>::to_vec);
            }
            Ok::<_, Infallible>(false)
        };
        changelog::read(&self.committed, Span { topic: &topic, partition, from, end }, patience(self.config), || false, show).map_err(
            |error| match error {
                ReadError::Open => refused(RestoreError::Open { partition, end }),
                ReadError::Kafka(error) => of_kafka("read the changelog", &error),
                ReadError::Shown(never) => match never {},
            },
        )?;
        Ok(newest)
    }

    /// The first offset that is still there, and the next one to be written.
    fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), Failure> {
        self.uncommitted
            .fetch_watermarks(topic, partition, TIMEOUT)
            .map_err(|e| of_kafka(&format!("read the ends of {topic}/{partition}"), &e))
    }

    /// Writes the offset. The broker refuses it, too, when the group has members by now.
    fn commit(&self, task: &Task, adoption: &Adoption) -> Result<(), Failure> {
        let text = serde_json::to_string(&adoption.metadata()).map_err(refused)?;
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&task.topic, task.partition);
        element.set_offset(Offset::Offset(adoption.offset)).map_err(refused)?;
        element.set_metadata(text);
        self.committed.commit(&list, CommitMode::Sync).map_err(|e| of_kafka("write the group's offset", &e))
    }
}

fn refused(why: impl std::fmt::Display) -> Failure {
    Failure::new(code::FINDINGS, why)
}

fn of_client(error: ClientError) -> Failure {
    Failure::new(error.exit_code(), error)
}

fn of_kafka(what: &str, error: &KafkaError) -> Failure {
    use RDKafkaErrorCode as E;
    let is_gone = matches!(error.rdkafka_error_code(), Some(E::OperationTimedOut | E::BrokerTransportFailure | E::AllBrokersDown));
    Failure::new(if is_gone { code::UNREACHABLE } else { code::FINDINGS }, format!("could not {what}: {error}"))
}
