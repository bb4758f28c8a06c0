//! The topics that Tripline needs: what they should be ([`desired`]), how that compares with what is there
//! ([`findings::compare`], pure), and the cluster itself ([`cluster`]).
//!
//! Promises: nothing is ever deleted or shrunk, and given more partitions only where the states move along
//! ([`super::repartition`]; a key's partition is where its state lives); input topics belong to the apps. `docs/topics.md` is the reference.

pub mod cluster;
pub mod findings;

use crate::config::{Config, KeyedBy};
use crate::stream::client::ClientError;
use cluster::{Cluster, Found};
use findings::{Finding, Level};
use std::collections::BTreeMap;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What a topic is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The apps own it.
    Input,
    /// Decisions.
    Decisions,
    /// Alerts.
    Alerts,
    /// Dead letters.
    DeadLetters,
    /// Observations too late to count.
    Late,
    /// Present standings.
    Standing,
    /// Decisions of rules that only watch.
    Shadow,
    /// Events, once per entity (routed mode).
    Observations,
    /// Actor states and markers.
    Changelog,
    /// Which rules and flags a task used from which offset.
    Epochs,
}

/// How a setting is compared with the one that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// This value.
    Exactly(&'static str),
    /// At least this; -1 means without end.
    AtLeast(i64),
    /// At most this.
    AtMost(i64),
    /// This when we create the topic; the operator's choice afterwards.
    AtFirst(i64),
}

impl Want {
    /// The value that a new topic gets.
    pub fn value(&self) -> String {
        match self {
            Want::Exactly(text) => (*text).to_owned(),
            Want::AtLeast(number) | Want::AtMost(number) | Want::AtFirst(number) => number.to_string(),
        }
    }
}

/// One topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// What it is to us.
    pub role: Role,
    /// Partitions; none while they follow an input topic that is not there.
    pub partitions: Option<i32>,
    /// Replication factor; -1 is the broker's default.
    pub replication: i32,
    /// Settings by Kafka's names.
    pub settings: BTreeMap<&'static str, Want>,
}

/// Every topic of a configuration, input topics first. `found` gives the partitions of a keyed input, which the
/// changelog follows.
pub fn desired(config: &Config, found: &BTreeMap<String, Found>) -> Vec<Topic> {
    let keyed = config.input.keyed_by == KeyedBy::Actor;
    let inputs = config.input.topics.iter().map(|name| Topic {
        name: name.clone(),
        role: Role::Input,
        partitions: found.get(name).map(|f| f.partitions),
        replication: config.topics.replication_factor,
        settings: BTreeMap::from([("message.timestamp.type", Want::Exactly("LogAppendTime"))]),
    });
    let tasks = if keyed { found.get(&config.keyed_topic()).map(|f| f.partitions) } else { Some(config.topics.partitions) };
    let outputs = Some(config.topics.partitions);
    let ours = [
        (config.topics.decisions.clone(), Role::Decisions, outputs),
        (config.topics.alerts.clone(), Role::Alerts, outputs),
        (config.topics.standing.clone(), Role::Standing, outputs),
        (config.topics.dead_letters.clone(), Role::DeadLetters, outputs),
        (config.topics.late.clone(), Role::Late, outputs),
        (config.topics.shadow.clone(), Role::Shadow, outputs),
        (config.observations_topic(), Role::Observations, tasks),
        (config.changelog_topic(), Role::Changelog, tasks),
        (config.epochs_topic(), Role::Epochs, Some(1)),
    ];
    let ours = ours.into_iter().filter(|(_, role, _)| !(keyed && *role == Role::Observations)).map(|(name, role, partitions)| Topic {
        name,
        role,
        partitions,
        replication: config.topics.replication_factor,
        settings: settings(role, config),
    });
    inputs.chain(ours).collect()
}

/// Topics that `apply --inputs` may create get the partitions of the configuration.
pub fn with_inputs(mut desired: Vec<Topic>, config: &Config) -> Vec<Topic> {
    for topic in &mut desired {
        topic.partitions.get_or_insert(config.topics.partitions);
    }
    desired
}

fn settings(role: Role, config: &Config) -> BTreeMap<&'static str, Want> {
    // Old event times must not trip retention: the broker's clock stamps everything of ours.
    let mut settings = BTreeMap::from([("message.timestamp.type", Want::Exactly("LogAppendTime"))]);
    if config.topics.replication_factor >= 3 {
        settings.insert("min.insync.replicas", Want::AtLeast(2));
    }
    let policy = if matches!(role, Role::Changelog | Role::Standing) { "compact" } else { "delete" };
    settings.insert("cleanup.policy", Want::Exactly(policy));
    if role != Role::Epochs {
        settings.insert("max.message.bytes", Want::AtLeast(config.max_record_bytes() as i64));
    }
    match role {
        Role::Decisions | Role::Late | Role::Shadow => settings.insert("retention.ms", Want::AtFirst(7 * DAY_MS)),
        // A reader that was away for less than this sees that a standing was taken back.
        Role::Standing => {
            settings.insert("delete.retention.ms", Want::AtLeast(DAY_MS));
            // What is compacted away cannot be counted: the audit covers as much as the changelog keeps.
            settings.insert("min.compaction.lag.ms", Want::AtFirst(HOUR_MS))
        }
        Role::Alerts => settings.insert("retention.ms", Want::AtFirst(30 * DAY_MS)),
        // Original bytes, unmasked: short.
        Role::DeadLetters => settings.insert("retention.ms", Want::AtMost(3 * DAY_MS)),
        Role::Observations => settings.insert("retention.ms", Want::AtLeast(7 * DAY_MS)),
        Role::Epochs => settings.insert("retention.ms", Want::AtLeast(365 * DAY_MS)),
        Role::Changelog => {
            // A disk away for less than half of this is caught up; an older one is rebuilt.
            settings.insert("delete.retention.ms", Want::AtLeast(7 * DAY_MS));
            // Restores read up to a high watermark: what they rely on must not be compacted under them.
            settings.insert("min.compaction.lag.ms", Want::AtLeast(HOUR_MS));
            // The newest segment is never compacted: small segments make short restores.
            settings.insert("segment.bytes", Want::AtFirst(100 * 1024 * 1024))
        }
        Role::Input => None,
    };
    settings
}

/// Partitions as the broker has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitions {
    /// By input topic.
    pub inputs: BTreeMap<String, i32>,
    /// Of the keyed topic: the number of tasks, and of partitions of the changelog.
    pub tasks: i32,
    /// Of the decisions topic.
    pub decisions: i32,
    /// Of the alerts topic.
    pub alerts: i32,
    /// Of the topic of standings.
    pub standing: i32,
    /// Of the dead-letters topic.
    pub dead_letters: i32,
    /// Of the topic of late observations.
    pub late: i32,
    /// Of the topic of decisions that only watch.
    pub shadow: i32,
}

/// Why topics are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// There is no client or no cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cluster refused a request.
    #[error("could not {what}: {why}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The cluster's words.
        why: String,
    },
    /// Kafka does not let us see topics: whether they exist is not known.
    #[error("Kafka does not allow this client to see {}: it needs Describe on them, as `tripline acls print --for setup` says", .0.join(", "))]
    Hidden(Vec<String>),
    /// Findings that processing cannot live with.
    #[error("the topics are not as Tripline needs them:\n{}", lines(.0))]
    Wrong(Vec<Finding>),
}

impl TopicsError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            TopicsError::Client(error) => error.exit_code(),
            TopicsError::Refused { .. } | TopicsError::Hidden(_) => 4,
            TopicsError::Wrong(_) => 1,
        }
    }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("  {finding}")).collect::<Vec<_>>().join("\n")
}

/// For the start of a worker: how many partitions there are, or every problem with its way out. What is only unwise is
/// logged as a warning.
pub fn verify(config: &Config) -> Result<Partitions, TopicsError> {
    let cluster = Cluster::connect(config)?;
    let found = cluster.find(&names(config))?;
    let desired = desired(config, &found);
    let (errors, warnings): (Vec<_>, Vec<_>) = findings::compare(&desired, &found).into_iter().partition(|f| f.level() == Level::Error);
    for warning in &warnings {
        tracing::warn!(topic = warning.topic, "{}", warning.problem);
    }
    if !errors.is_empty() {
        return Err(TopicsError::Wrong(errors));
    }
    Ok(partitions(config, &found).expect("a topic that does not exist is an error among the findings"))
}

/// Every name that a configuration mentions.
pub fn names(config: &Config) -> Vec<String> {
    desired(config, &BTreeMap::new()).into_iter().map(|topic| topic.name).collect()
}

fn partitions(config: &Config, found: &BTreeMap<String, Found>) -> Option<Partitions> {
    let of = |name: &str| found.get(name).map(|f| f.partitions);
    Some(Partitions {
        inputs: config.input.topics.iter().map(|name| Some((name.clone(), of(name)?))).collect::<Option<_>>()?,
        tasks: of(&config.keyed_topic())?,
        decisions: of(&config.topics.decisions)?,
        alerts: of(&config.topics.alerts)?,
        standing: of(&config.topics.standing)?,
        dead_letters: of(&config.topics.dead_letters)?,
        late: of(&config.topics.late)?,
        shadow: of(&config.topics.shadow)?,
    })
}

#[cfg(test)]
mod asyncapi_tests;
