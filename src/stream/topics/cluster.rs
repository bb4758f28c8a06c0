//! The cluster's side: what is there, and making it what it should be.

use super::{Topic, TopicsError};
use crate::config::Config;
use crate::stream::access;
use crate::stream::client::{self, ClientError, LogContext};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long a cluster may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Partitions.
    pub partitions: i32,
    /// Replicas of its least replicated partition.
    pub replication: i32,
    /// Settings by name; none when we may not read them.
    pub settings: Option<Settings>,
}

/// Settings by name.
pub type Settings = BTreeMap<String, Setting>;
/// What became of each topic that was to be created; an error in the cluster's words.
pub type Created = BTreeMap<String, Result<(), String>>;

/// A setting as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its value.
    pub value: String,
    /// Somebody set it on this topic; otherwise it is inherited.
    pub own: bool,
}

/// A connection for administration. Not for use inside an async runtime: it blocks on a small one of its own.
pub struct Cluster {
    admin: AdminClient<LogContext>,
    runtime: Runtime,
}

impl Cluster {
    /// Connects; fails with one clear message when the cluster does not answer.
    pub fn connect(config: &Config) -> Result<Cluster, ClientError> {
        client::reach(config, TIMEOUT)?;
        let admin = client::base(config).create_with_context(LogContext::new("admin")).map_err(ClientError::creating)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ClientError::Properties { why: format!("no runtime for the admin client: {error}") })?;
        Ok(Cluster { admin, runtime })
    }

    /// Those of `names` that exist.
    pub fn find(&self, names: &[String]) -> Result<BTreeMap<String, Found>, TopicsError> {
        let metadata = self.metadata()?;
        let mut found = BTreeMap::new();
        for topic in metadata.topics().iter().filter(|topic| names.iter().any(|name| name == topic.name())) {
            let replication = topic.partitions().iter().map(|p| p.replicas().len() as i32).min().unwrap_or(0);
            let partitions = topic.partitions().len() as i32;
            // A topic that is being deleted has no partitions.
            if partitions > 0 {
                found.insert(topic.name().to_owned(), Found { partitions, replication, settings: None });
            }
        }
        let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| !found.contains_key(*name)).collect();
        // Brokers leave out of their metadata what we may not see: that is no missing topic.
        let hidden = access::hidden(self.admin.inner(), &missing).map_err(|why| refused("look for topics", why))?;
        if !hidden.is_empty() {
            return Err(TopicsError::Hidden(hidden));
        }
        for (name, settings) in self.settings(found.keys())? {
            if let Some(found) = found.get_mut(&name) {
                found.settings = Some(settings);
            }
        }
        Ok(found)
    }

    /// Creates topics. One that exists by now (two operators at once) is as good as created.
    pub fn create(&self, topics: &[Topic]) -> Result<Created, TopicsError> {
        let values: Vec<Vec<(&str, String)>> =
            topics.iter().map(|topic| topic.settings.iter().map(|(name, want)| (*name, want.value())).collect()).collect();
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .zip(&values)
            .map(|(topic, values)| {
                let new = NewTopic::new(&topic.name, topic.partitions.unwrap_or(-1), TopicReplication::Fixed(topic.replication));
                values.iter().fold(new, |new, (name, value)| new.set(name, value))
            })
            .collect();
        if new.is_empty() {
            return Ok(Created::new());
        }
        let results = self.runtime.block_on(self.admin.create_topics(&new, &options())).map_err(|e| refused("create topics", e))?;
        let results = results.into_iter().map(|result| match result {
            Ok(name) | Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => (name, Ok(())),
            Err((name, code)) => (name, Err(code.to_string())),
        });
        Ok(results.collect())
    }

    /// Gives a topic more partitions and waits until each has a leader; one that has as many is left alone. Keys move: only
    /// for those who move what belongs to them.
    pub fn grow(&self, name: &str, partitions: i32) -> Result<(), TopicsError> {
        let has = self.metadata()?.topics().iter().find(|topic| topic.name() == name).map_or(0, |topic| topic.partitions().len() as i32);
        if has < partitions {
            let new = NewPartitions::new(name, partitions as usize);
            let results =
                self.runtime.block_on(self.admin.create_partitions([&new], &options())).map_err(|e| refused("add partitions", e))?;
            if let Some((topic, code)) = results.into_iter().find_map(Result::err) {
                return Err(refused("add partitions", format!("{topic}: {code}")));
            }
        }
        self.wait_until_shown(&[(name, partitions)])
    }

    /// Changes settings of one topic. librdkafka's call replaces all of a topic's own settings, so those that are there
    /// are written again beside the changed ones.
    pub fn alter(&self, name: &str, there: &Settings, changes: &[(&str, &str)]) -> Result<(), TopicsError> {
        let own = there.iter().filter(|(_, setting)| setting.own).map(|(name, setting)| (name.as_str(), setting.value.as_str()));
        let entries: HashMap<&str, &str> = own.chain(changes.iter().copied()).collect();
        let alter = AlterConfig { specifier: ResourceSpecifier::Topic(name), entries };
        let results = self.runtime.block_on(self.admin.alter_configs([&alter], &options())).map_err(|e| refused("alter settings", e))?;
        match results.into_iter().find_map(Result::err) {
            Some((_, code)) => Err(refused("alter settings", code)),
            None => Ok(()),
        }
    }

    /// Waits until every broker's answer shows these topics with all partitions and a leader for each.
    pub fn wait_for(&self, topics: &[Topic]) -> Result<(), TopicsError> {
        let expected: Vec<(&str, i32)> = topics.iter().map(|topic| (topic.name.as_str(), topic.partitions.unwrap_or(1))).collect();
        self.wait_until_shown(&expected)
    }

    fn wait_until_shown(&self, expected: &[(&str, i32)]) -> Result<(), TopicsError> {
        let deadline = Instant::now() + TIMEOUT * 2;
        loop {
            let metadata = self.metadata()?;
            let shown = |(name, partitions): &(&str, i32)| {
                let there = metadata.topics().iter().find(|t| t.name() == *name);
                there.is_some_and(|t| t.partitions().len() as i32 >= *partitions && t.partitions().iter().all(|p| p.leader() >= 0))
            };
            let Some((absent, _)) = expected.iter().find(|topic| !shown(topic)) else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(refused("see a created topic in the metadata", absent));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Of all topics: asking a broker for one by name would create it where brokers create topics on their own.
    fn metadata(&self) -> Result<Metadata, TopicsError> {
        self.admin.inner().fetch_metadata(None, TIMEOUT).map_err(|e| refused("read the cluster's metadata", e))
    }

    fn settings<'n>(&self, names: impl Iterator<Item = &'n String>) -> Result<Vec<(String, Settings)>, TopicsError> {
        let specifiers: Vec<_> = names.map(|name| ResourceSpecifier::Topic(name)).collect();
        if specifiers.is_empty() {
            return Ok(Vec::new());
        }
        let results = self
            .runtime
            .block_on(self.admin.describe_configs(&specifiers, &options()))
            .map_err(|e| refused("read settings of topics", e))?;
        let read = results.into_iter().flatten().filter(|resource| !resource.entries.is_empty()).filter_map(|resource| {
            let OwnedResourceSpecifier::Topic(name) = resource.specifier else { return None };
            let settings = resource.entries.into_iter().map(|entry| {
                let own = matches!(entry.source, ConfigSource::DynamicTopic);
                (entry.name, Setting { value: entry.value.unwrap_or_default(), own })
            });
            Some((name, settings.collect()))
        });
        Ok(read.collect())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

fn refused(what: &'static str, why: impl ToString) -> TopicsError {
    TopicsError::Refused { what, why: why.to_string() }
}
