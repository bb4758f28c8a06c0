//! More partitions for an app that has states: `tripline state repartition`.
//!
//! Workers are stopped, the apps go on producing into the input topics. In this order:
//!
//! 1. [`hold`]: joins the empty group, so that no worker works meanwhile; the producer fences an earlier run.
//! 2. [`plan`]: the group's offsets decide who goes on and who begins.
//! 3. [`fold`]: the states of the old tasks, up to their commits, and whether each is where it should be.
//! 4. The group is ours still, and topics grow. Until here nothing has changed, and from here on workers do not start until the move is done.
//! 5. [`write`]: one transaction with states, tombstones, unread observations, source times, markers and offsets.
//!
//! Killed at any moment and run again it comes to the same end: the transaction counts or it does not. A dry run does 2 and 3.

mod fold;
mod hold;
mod homes;
mod plan;
mod scratch;
mod write;

pub use homes::KeyForm;
pub use plan::Refusal;

use super::changelog::{self, Isolation, Quiet, ReadError, Span};
use super::client::{self, ClientError};
use super::failpoints::{self, Point};
use super::group::{self, Found, OffsetsError, Pending};
use super::producer::LaneProducer;
use super::restore::patience;
use super::topics::{self, TopicsError, cluster::Cluster};
use crate::config::{Config, KeyedBy};
use crate::state::StoreError;
use fold::{Count, Folded};
use homes::{Homes, KeysUnknown};
use plan::{Plan, Verdict};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use scratch::Scratch;
use std::time::{Duration, Instant};
use tracing::info;
use tripline_core::protocol::start::Halt;
use tripline_core::state::StateError;

/// How long the one transaction may last: what brokers allow unless `transaction.max.timeout.ms` says otherwise.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Partitions of the keyed topic afterwards.
    pub to: i32,
    /// Keyed mode: how keys name actors, where the states do not tell.
    pub keys: Option<KeyForm>,
    /// Keyed mode: move although records are unread whose keys move; they are dead-lettered.
    pub leave_unread: bool,
    /// How long the transaction may last.
    pub transaction_timeout: Duration,
}

/// Why nothing was moved. Only [`RepartitionError::Unwritten`] comes after the topics grew: run it again.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum RepartitionError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Topics(#[from] TopicsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Keys(#[from] KeysUnknown),
    #[error("{0} does not exist: nothing to move; look with `tripline topics check`")]
    Missing(String),
    #[error(
        "group {group} has members (client ids: {members}): stop its workers first; a stopped one counts as a member until its session is over (stream.session_timeout)"
    )]
    Members { group: String, members: String },
    #[error(transparent)]
    Pending(Pending),
    #[error(
        "{topic}/{partition} stays open below offset {end}: a transaction neither ended nor timed out; look with kafka-transactions.sh find-hanging"
    )]
    Open { topic: String, partition: i32, end: i64 },
    #[error("task {topic}/{partition} cannot be moved: {source}; look at `tripline state adopt`")]
    Halt { topic: String, partition: i32, source: Halt },
    #[error(
        "{topic}/{partition}, offset {offset}: {source}; a newer version wrote it, or somebody else (see `tripline acls print`); to do without that entity's state, write a record with its key and a null value behind it"
    )]
    Record { topic: String, partition: i32, offset: i64, source: StateError },
    #[error("the group {0} is not held any more, nothing was moved: this process was stopped for too long; run it again")]
    Lost(String),
    #[error("{states} states live in a partition that is not their entity's: please report it, nothing was moved")]
    Elsewhere { states: u64 },
    #[error("{topic} has {has} partitions: its owner gives it {to} first (input.keyed_by is `actor`), then come back")]
    OwnersTopic { topic: String, has: i32, to: i32 },
    #[error(
        "{topic}/{partition} has unread records whose keys move, the first at offset {offset}: they have to be read before the topic grows; with --leave-unread they are dead-lettered as misrouted"
    )]
    Unread { topic: String, partition: i32, offset: i64 },
    #[error(
        "the committed offset {offset} of {topic}/{partition} is outside what the topic has ({low}..{high}): records were deleted before they were read, or the topic was made anew"
    )]
    OutOfRange { topic: String, partition: i32, offset: i64, low: i64, high: i64 },
    #[error("could not {what}: {source}")]
    Kafka { what: &'static str, source: KafkaError },
    #[error("the move was not written ({why}): the old state stands, workers wait for the move; run it again")]
    Unwritten { why: String },
    #[error("{0}: please report it, nothing was moved")]
    Broken(&'static str),
}

fn broken(what: &'static str) -> RepartitionError {
    RepartitionError::Broken(what)
}

/// What was, and what was or would be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The keyed topic.
    pub topic: String,
    /// Partitions before.
    pub from: i32,
    /// Partitions after.
    pub to: i32,
    /// States, and those that move.
    pub states: u64,
    /// See [`Report::states`].
    pub moving: u64,
    /// Unread observations, which are written again.
    pub unread: u64,
    /// Unread ticks, which are dropped.
    pub ticks: u64,
    /// Router partitions that get a new marker.
    pub routers: usize,
    /// Members that the group has: a dry run looks while workers run.
    pub members: usize,
    /// Reading the states.
    pub reading: Duration,
    /// Growing the topics and writing; zero for a dry run.
    pub writing: Duration,
    /// From the moment the group was held until the commit; zero for a dry run.
    pub stop: Duration,
}

/// Looks, and writes nothing; workers may run. `None` when the states are written for that number already.
pub fn survey(config: &Config, request: Request) -> Result<Option<Report>, RepartitionError> {
    let scene = Scene::connect(config)?;
    let Some(plan) = scene.plan(request.to)? else { return Ok(None) };
    let members = group::members(&scene.committed, &config.app.id)
        .map_err(|source| RepartitionError::Kafka { what: "read the group's members", source })?;
    let (mut report, _) = scene.read(&plan, request, &Scratch::open()?)?;
    let unread = write::unread(&scene, &plan, &scene.spans(&plan, request.leave_unread)?, |_, _| Ok(()))?;
    (report.unread, report.ticks, report.members) = (unread.observations, unread.ticks, members.len());
    Ok(Some(report))
}

/// Moves. `None` when the states are written for that number already.
pub fn execute(config: &Config, request: Request) -> Result<Option<Report>, RepartitionError> {
    let scene = Scene::connect(config)?;
    let held = hold::hold(config)?;
    let started = Instant::now();
    info!("the group is held");
    let producer = connect(config, request)?;
    let Some(plan) = scene.plan(request.to)? else { return Ok(None) };
    let scratch = Scratch::open()?;
    let (mut report, (homes, folded)) = scene.read(&plan, request, &scratch)?;
    // Reading may have taken long: a holder that was frozen meanwhile has lost the group, and growing is not to be taken back.
    held.verify(config)?;
    let writing = Instant::now();
    scene.grow(request.to)?;
    info!(states = report.states, moving = report.moving, "topics have grown, writing");
    let written = write::Move { scene: &scene, plan: &plan, homes, folded: &folded }.write(producer, &held.generation, request)?;
    (report.unread, report.ticks) = (written.observations, written.ticks);
    (report.writing, report.stop) = (writing.elapsed(), started.elapsed());
    Ok(Some(report))
}

/// One transactional id for the app: a second run fences the first, and ends the transaction that a killed one left open.
fn connect(config: &Config, request: Request) -> Result<LaneProducer, RepartitionError> {
    let id = format!("{}-repartition", config.app.id);
    LaneProducer::connect(&client::base(config), &id, request.transaction_timeout, config.max_record_bytes(), changelog::MANY).map_err(
        |source| RepartitionError::Kafka {
            what: "begin (is the broker's transaction.max.timeout.ms less than --transaction-timeout?)",
            source,
        },
    )
}

/// The app's topics and the clients that look at them.
struct Scene<'a> {
    config: &'a Config,
    keyed: String,
    changelog: String,
    /// Partitions of the keyed topic when it was looked at.
    there: i32,
    /// Partitions of the topics that are only routed.
    inputs: Vec<(String, i32)>,
    cluster: Cluster,
    committed: BaseConsumer<Quiet>,
    ends: BaseConsumer<Quiet>,
}

impl Scene<'_> {
    fn connect(config: &Config) -> Result<Scene<'_>, RepartitionError> {
        let cluster = Cluster::connect(config)?;
        let found = cluster.find(&topics::names(config))?;
        let partitions =
            |name: &String| found.get(name).map(|found| found.partitions).ok_or_else(|| RepartitionError::Missing(name.clone()));
        let keyed = config.keyed_topic();
        let routed = if config.input.keyed_by == KeyedBy::None { config.input.topics.as_slice() } else { &[] };
        let inputs = routed.iter().map(|name| Ok((name.clone(), partitions(name)?))).collect::<Result<_, RepartitionError>>()?;
        let base = client::base(config);
        let client = |isolation| changelog::client(&base, &config.app.id, isolation, changelog::MANY).map_err(ClientError::creating);
        Ok(Scene {
            config,
            there: partitions(&keyed)?,
            keyed,
            changelog: config.changelog_topic(),
            inputs,
            cluster,
            committed: client(Isolation::Committed)?,
            ends: client(Isolation::Uncommitted)?,
        })
    }

    fn is_routed(&self) -> bool {
        self.config.input.keyed_by == KeyedBy::None
    }

    /// The first offset that is still there, and the next one to be written.
    fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), RepartitionError> {
        changelog::ends(&self.ends, topic, partition, || false)
            .map_err(|source| RepartitionError::Kafka { what: "read the ends of a partition", source })
    }

    fn read_error(&self, span: &Span<'_>, error: ReadError<RepartitionError>) -> RepartitionError {
        match error {
            ReadError::Open => RepartitionError::Open { topic: span.topic.to_owned(), partition: span.partition, end: span.end },
            ReadError::Kafka(source) => RepartitionError::Kafka { what: "read a partition", source },
            ReadError::Shown(error) => error,
        }
    }

    /// What the group has, once no transaction holds any of it.
    fn offsets(&self, partitions: &[(&str, i32)]) -> Result<Vec<Found>, RepartitionError> {
        group::offsets(&self.committed, partitions, patience(self.config)).map_err(|error| match error {
            OffsetsError::Pending(held) => RepartitionError::Pending(held),
            OffsetsError::Kafka(source) => RepartitionError::Kafka { what: "read the group's offsets", source },
        })
    }

    fn plan(&self, to: i32) -> Result<Option<Plan>, RepartitionError> {
        let tasks: Vec<(&str, i32)> = (0..self.there).map(|partition| (self.keyed.as_str(), partition)).collect();
        let routers: Vec<(&str, i32)> =
            self.inputs.iter().flat_map(|(topic, count)| (0..*count).map(|partition| (topic.as_str(), partition))).collect();
        // In one question: nothing that commits in between is seen half.
        let mut found = self.offsets(&[tasks, routers.clone()].concat())?;
        let routed = found.split_off(self.there as usize);
        let routers: Vec<_> =
            routers.into_iter().zip(routed).map(|((topic, partition), found)| (topic.to_owned(), partition, found)).collect();
        let verdict = Plan::decide(&self.config.app.id, &self.keyed, &found, &routers, to)?;
        let has = self.partitions(&self.changelog)?;
        if has > to {
            return Err(Refusal::Larger { topic: self.changelog.clone(), has }.into());
        }
        match verdict {
            Verdict::Done => Ok(None),
            Verdict::Move(plan) => Ok(Some(plan)),
        }
    }

    fn partitions(&self, topic: &str) -> Result<i32, RepartitionError> {
        let found = self.cluster.find(&[topic.to_owned()])?;
        found.get(topic).map(|found| found.partitions).ok_or_else(|| RepartitionError::Missing(topic.to_owned()))
    }

    /// Reads the states and finds a place for each; everything that can be refused is refused here, before anything changes.
    fn read(&self, plan: &Plan, request: Request, scratch: &Scratch) -> Result<(Report, (Homes, Vec<Folded>)), RepartitionError> {
        let started = Instant::now();
        self.spans(plan, request.leave_unread)?;
        if !self.is_routed() && self.there != plan.to {
            return Err(RepartitionError::OwnersTopic { topic: self.keyed.clone(), has: self.there, to: plan.to });
        }
        let folded = fold::fold(self, plan, scratch)?;
        let (homes, Count { states, moving }) = fold::place(self, plan, &folded, request.keys)?;
        let report = Report {
            topic: self.keyed.clone(),
            from: plan.from,
            to: plan.to,
            states,
            moving,
            routers: plan.routers.len(),
            reading: started.elapsed(),
            ..Report::default()
        };
        Ok((report, (homes, folded)))
    }

    /// What is unread in each partition of the keyed topic that is there, up to its end, taken before anything is written.
    fn spans(&self, plan: &Plan, leave_unread: bool) -> Result<Vec<Unread>, RepartitionError> {
        (0..self.there)
            .map(|partition| {
                let (low, high) = self.ends(&self.keyed, partition)?;
                let from = plan.offset(partition).unwrap_or(low);
                if !(low..=high).contains(&from) {
                    return Err(RepartitionError::OutOfRange { topic: self.keyed.clone(), partition, offset: from, low, high });
                }
                let unread = Unread { partition, from, end: high };
                if !self.is_routed() && partition < plan.from && !leave_unread {
                    write::require_read(self, plan, &unread)?;
                }
                Ok(unread)
            })
            .collect()
    }

    /// The topics that are ours; a keyed input is its owner's and has grown already.
    fn grow(&self, to: i32) -> Result<(), RepartitionError> {
        if self.is_routed() {
            self.cluster.grow(&self.keyed, to)?;
            let _ = failpoints::reach(Point::AfterGrowth);
        }
        self.cluster.grow(&self.changelog, to)?;
        let _ = failpoints::reach(Point::AfterGrowth);
        Ok(())
    }
}

/// The part of a partition that no task has read.
struct Unread {
    partition: i32,
    from: i64,
    end: i64,
}
