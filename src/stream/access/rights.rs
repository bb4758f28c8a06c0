//! What Tripline has to be allowed on a cluster with an authorizer, and why. Pure: `acls print` prints it, the start of a
//! worker asks the cluster for it.
//!
//! It is the least: what another right implies (Read and Write imply Describe, AlterConfigs implies DescribeConfigs) is not
//! listed. Idempotent writes need nothing more than Write on a topic, transactions nothing more than Write on their id.

use crate::config::{Config, KeyedBy};
use crate::sink;
use crate::stream::Role;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What a right is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
    /// A transactional id.
    TransactionalId,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Topic => "topic",
            Resource::Group => "group",
            Resource::TransactionalId => "transactional id",
        })
    }
}

/// What may be done. The names are those of Kafka's tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Operation {
    /// Fetch records; join a group and commit its offsets.
    Read,
    /// Produce; use a transactional id.
    Write,
    /// Create a topic.
    Create,
    /// Give a topic more partitions.
    Alter,
    /// See that it exists.
    Describe,
    /// Read settings.
    DescribeConfigs,
    /// Change settings.
    AlterConfigs,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Operation {
    /// What an authorizer allows beside it on the same resource.
    fn implies(self, other: Operation) -> bool {
        use Operation::{Alter, AlterConfigs, Describe, DescribeConfigs, Read, Write};
        matches!((self, other), (Read | Write | Alter, Describe) | (AlterConfigs, DescribeConfigs))
    }
}

/// On whose behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Purpose {
    /// A worker.
    Run,
    /// `topics plan`, `topics apply --alter`, `topics check`.
    Setup,
    /// `state`, `dlq` and `audit`: people who look and repair.
    Operate,
}

/// One operation on one resource, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Right {
    /// Of which kind.
    pub resource: Resource,
    /// Its name.
    pub name: String,
    /// The name is a prefix.
    pub prefixed: bool,
    /// What may be done.
    pub operation: Operation,
    /// What for, in words.
    pub why: &'static str,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.prefixed { " (prefix)" } else { "" };
        write!(f, "{} on {} {}{prefix}", self.operation, self.resource, self.name)
    }
}

/// The rights for these purposes, each once, by resource and name. Roles matter to [`Purpose::Run`] only.
pub fn needed(config: &Config, purposes: &[Purpose], roles: &[Role]) -> Vec<Right> {
    let mut all = Collected::default();
    for purpose in purposes {
        match purpose {
            Purpose::Run if roles.contains(&Role::Detect) => detect(config, &mut all),
            Purpose::Run => {}
            Purpose::Setup => setup(config, &mut all),
            Purpose::Operate => operate(config, &mut all),
        }
        if *purpose == Purpose::Run && roles.contains(&Role::Sink) {
            all.topic(&config.topics.decisions, Operation::Read, "the sink reads decisions");
            all.add(Resource::Group, &sink::group(config), false, Operation::Read, "the sink's consumer group");
        }
    }
    all.least()
}

/// Rights by resource, name and whether it is a prefix, then by operation.
#[derive(Debug, Default)]
struct Collected(BTreeMap<(Resource, String, bool), BTreeMap<Operation, &'static str>>);

impl Collected {
    fn add(&mut self, resource: Resource, name: &str, prefixed: bool, operation: Operation, why: &'static str) {
        self.0.entry((resource, name.to_owned(), prefixed)).or_default().entry(operation).or_insert(why);
    }

    fn topic(&mut self, name: &str, operation: Operation, why: &'static str) {
        self.add(Resource::Topic, name, false, operation, why);
    }

    fn least(self) -> Vec<Right> {
        let mut rights = Vec::new();
        for ((resource, name, prefixed), operations) in self.0 {
            let is_implied = |operation: Operation| operations.keys().any(|other| other.implies(operation));
            let least = operations.iter().filter(|(operation, _)| !is_implied(**operation));
            rights.extend(least.map(|(operation, why)| Right { resource, name: name.clone(), prefixed, operation: *operation, why }));
        }
        rights
    }
}

/// Topics that a worker writes for others.
fn outputs(config: &Config) -> [(&str, &'static str); 6] {
    let topics = &config.topics;
    [
        (&topics.decisions, "decisions"),
        (&topics.alerts, "alerts"),
        (&topics.standing, "standings"),
        (&topics.dead_letters, "dead letters"),
        (&topics.late, "late observations"),
        (&topics.shadow, "decisions that only watch"),
    ]
}

fn is_routed(config: &Config) -> bool {
    config.input.keyed_by == KeyedBy::None
}

fn detect(config: &Config, all: &mut Collected) {
    use Operation::{DescribeConfigs, Read, Write};
    const SETTINGS: &str = "the start checks its settings";
    for topic in &config.input.topics {
        all.topic(topic, Read, "input");
        all.topic(topic, DescribeConfigs, SETTINGS);
    }
    for (topic, what) in outputs(config) {
        all.topic(topic, Write, what);
        all.topic(topic, DescribeConfigs, SETTINGS);
    }
    if is_routed(config) {
        all.topic(&config.observations_topic(), Read, "tasks read observations");
        all.topic(&config.observations_topic(), Write, "routing");
        all.topic(&config.observations_topic(), DescribeConfigs, SETTINGS);
    }
    all.topic(&config.changelog_topic(), Read, "restore");
    all.topic(&config.changelog_topic(), Write, "states and markers of every commit");
    all.topic(&config.changelog_topic(), DescribeConfigs, SETTINGS);
    all.topic(&config.epochs_topic(), Write, "which rules and flags were used from where on");
    all.topic(&config.epochs_topic(), DescribeConfigs, SETTINGS);
    all.add(Resource::Group, &config.app.id, false, Read, "the consumer group");
    let ids = format!("{}-", config.app.id);
    all.add(Resource::TransactionalId, &ids, true, Write, "transactions: one id for each identity and lane");
}

fn setup(config: &Config, all: &mut Collected) {
    use Operation::{AlterConfigs, Create, Describe, DescribeConfigs};
    for topic in &config.input.topics {
        all.topic(topic, Describe, "whether the input is there");
        all.topic(topic, DescribeConfigs, "`topics check`");
    }
    let internal = [config.changelog_topic(), config.epochs_topic()].into_iter();
    let internal = internal.chain(is_routed(config).then(|| config.observations_topic()));
    let ours: Vec<String> = outputs(config).into_iter().map(|(topic, _)| topic.to_owned()).chain(internal).collect();
    for topic in &ours {
        all.topic(topic, Describe, "whether it is there");
        all.topic(topic, Create, "`topics apply`");
        all.topic(topic, AlterConfigs, "`topics apply --alter`");
    }
}

fn operate(config: &Config, all: &mut Collected) {
    use Operation::{Alter, Describe, DescribeConfigs, Read, Write};
    const SETTINGS: &str = "`audit` says how far back its topics are whole";
    all.topic(&config.changelog_topic(), Read, "`state` and `audit` read markers and states");
    all.topic(&config.changelog_topic(), Write, "`state repartition` moves states");
    all.topic(&config.changelog_topic(), Alter, "`state repartition` adds partitions");
    all.topic(&config.changelog_topic(), DescribeConfigs, SETTINGS);
    all.topic(&config.epochs_topic(), Describe, "`state repartition` joins the group by it");
    all.topic(&config.epochs_topic(), DescribeConfigs, SETTINGS);
    all.add(Resource::Group, &config.app.id, false, Read, "`state adopt` and `state repartition` write its offsets");
    for (topic, _) in outputs(config) {
        all.topic(topic, Read, "`audit` reads what was written");
        all.topic(topic, DescribeConfigs, SETTINGS);
    }
    if is_routed(config) {
        all.topic(&config.observations_topic(), Alter, "`state repartition` adds partitions");
    }
    all.topic(&config.topics.dead_letters, Write, "`dlq redrive` leaves a receipt");
    let sources = config.input.topics.iter().cloned().chain(is_routed(config).then(|| config.observations_topic()));
    for topic in sources {
        all.topic(&topic, Read, "`state adopt` commits offsets of it");
        all.topic(&topic, Write, "`dlq redrive` sends records back");
        all.topic(&topic, DescribeConfigs, SETTINGS);
    }
    let id = format!("{}-repartition", config.app.id);
    all.add(Resource::TransactionalId, &id, false, Write, "`state repartition` is transactional");
    let id = format!("{}-dlq-redrive", config.app.id);
    all.add(Resource::TransactionalId, &id, false, Write, "`dlq redrive` is transactional");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::client::tests::config;
    use clap::ValueEnum;
    use std::collections::BTreeSet;

    fn texts(rights: &[Right]) -> Vec<String> {
        rights.iter().map(Right::to_string).collect()
    }

    fn run(roles: &[Role]) -> Vec<String> {
        texts(&needed(&config(), &[Purpose::Run], roles))
    }

    #[test]
    fn a_sink_reads_decisions_and_no_more() {
        assert_eq!(run(&[Role::Sink]), ["Read on topic tripline.decisions", "Read on group tripline-sink"]);
    }

    #[test]
    fn a_detector_reads_its_inputs_and_never_its_outputs() {
        let rights = run(&[Role::Detect]);
        assert!(rights.contains(&"Read on topic app.requests".to_owned()), "{rights:?}");
        assert!(rights.contains(&"Write on transactional id tripline- (prefix)".to_owned()), "{rights:?}");
        assert!(!rights.iter().any(|r| r.starts_with("Read on topic tripline.") && !r.contains(".internal.")), "{rights:?}");
        assert!(!rights.contains(&"Read on topic tripline.internal.epochs".to_owned()), "{rights:?}");
    }

    #[test]
    fn keyed_mode_has_no_observations() {
        let mut config = config();
        config.input.topics.truncate(1);
        config.input.keyed_by = KeyedBy::Actor;
        for purpose in Purpose::value_variants() {
            let rights = texts(&needed(&config, &[*purpose], Role::value_variants()));
            assert!(!rights.iter().any(|right| right.contains("observations")), "{rights:?}");
        }
    }

    #[test]
    fn nothing_is_listed_twice_or_beside_what_implies_it() {
        for purposes in [&[Purpose::Run][..], &[Purpose::Setup], &[Purpose::Operate], Purpose::value_variants()] {
            let rights = needed(&config(), purposes, Role::value_variants());
            let all: BTreeSet<_> = rights.iter().map(|r| (r.resource, &r.name, r.operation)).collect();
            assert_eq!(all.len(), rights.len());
            for right in &rights {
                let beside = rights.iter().filter(|other| (other.resource, &other.name) == (right.resource, &right.name));
                assert!(!beside.into_iter().any(|other| other.operation.implies(right.operation)), "{right}");
            }
        }
    }

    #[test]
    fn every_topic_of_ours_has_its_rights() {
        for topic in crate::stream::topics::names(&config()) {
            for purposes in [Purpose::Run, Purpose::Setup] {
                let rights = needed(&config(), &[purposes], &[Role::Detect]);
                assert!(rights.iter().any(|r| r.resource == Resource::Topic && r.name == topic), "{topic}");
            }
        }
    }
}
