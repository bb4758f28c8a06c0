//! Settings: one typed struct per section. `config/default.toml` holds every key with its default and meaning.
//!
//! Layers, later wins: defaults < `--config` files < environment (`TRIPLINE_SECTION__KEY`) < flags. Start at [`load()`]:
//! it reads every layer, knows where each value came from and reports all problems at once.

mod check;
mod layer;
mod load;
mod mapping;
pub mod memory;
mod parse;
pub mod reference;
mod report;
mod secret;
#[cfg(test)]
mod tests;
pub mod units;

pub use load::{Loaded, Sources, defaults, load};
pub use mapping::{EVERY_TOPIC, TopicMapping};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tripline_core::address::{Addressing, Scope, SessionKey};
use tripline_core::event::mapping::Mapping;
use units::{Bytes, Limit, Share, Span};

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who we are in Kafka.
    pub app: App,
    /// The cluster.
    pub kafka: Kafka,
    /// What is read.
    pub input: Input,
    /// Names and shape of the topics that Tripline writes.
    pub topics: Topics,
    /// Whom events are counted for.
    pub entity: Entity,
    /// The rule pack.
    pub rules: Rules,
    /// Feature flags.
    pub flags: Flags,
    /// Decisions.
    pub decisions: Decisions,
    /// The local state store.
    pub state: State,
    /// The memory of the process.
    pub memory: Memory,
    /// Lanes and transactions.
    pub stream: Stream,
    /// The event store.
    pub sink: Sink,
    /// Health and metrics.
    pub admin: Admin,
    /// The log.
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Consumer group; prefix of transactional ids and of internal topics.
    pub id: String,
}

#[derive(Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Brokers, comma separated.
    pub bootstrap_servers: String,
    /// Any librdkafka property, unless it would break exactly-once.
    pub properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for Kafka {
    /// The names of the properties without their values: one of them may be a password on its way into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("bootstrap_servers", &self.bootstrap_servers).field("properties", &self.properties.keys()).finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyedBy {
    /// Any key, any number of topics: records are routed over the observations topic.
    None,
    /// One topic whose key is the actor: no hop.
    Actor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Partitioner {
    /// Java's default.
    Murmur2,
    /// librdkafka's default (CRC32).
    Consistent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// From the oldest record.
    Earliest,
    /// From now on.
    Latest,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Topics to read.
    #[serde(deserialize_with = "units::list")]
    pub topics: Vec<String>,
    /// `none` (routed) or `actor` (keyed).
    pub keyed_by: KeyedBy,
    /// How the producers of a keyed topic choose the partition.
    pub partitioner: Partitioner,
    /// Where a group without committed offsets starts.
    pub start: Start,
    /// Longer values are dead-lettered as `too_large`.
    pub max_value_bytes: Bytes,
    /// How records of another shape become events: a mapping by topic, `*` for every other topic.
    pub mapping: BTreeMap<String, TopicMapping>,
}

impl Input {
    /// The mapping of a topic; `None`: its records are events as they are.
    pub fn mapping_of(&self, topic: &str) -> Option<&Mapping> {
        if self.mapping.is_empty() {
            return None;
        }
        self.mapping.get(topic).or_else(|| self.mapping.get(EVERY_TOPIC)).map(|found| found.mapping().as_ref())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// Decisions.
    pub decisions: String,
    /// Alerts.
    pub alerts: String,
    /// The present standing of entities: one record for each, the newest wins.
    pub standing: String,
    /// Dead letters.
    pub dead_letters: String,
    /// Observations too late to count.
    pub late: String,
    /// Decisions of rules that only watch (`mode: shadow`).
    pub shadow: String,
    /// Partitions of output topics and, in routed mode, of the observations and changelog topics.
    pub partitions: i32,
    /// Replication factor; -1 is the broker's default.
    pub replication_factor: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntityScope {
    /// Equal ids of two tenants are one entity.
    Global,
    /// The tenant is part of every entity's key.
    Tenant,
}

#[derive(Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entity {
    /// `global` or `tenant`: whether equal ids of two tenants are one entity.
    pub scope: EntityScope,
    /// Proxies of your own in front of the apps, each of which appends to `X-Forwarded-For`; 0: `ip_address` is the client's.
    pub trusted_hops: usize,
    /// Secret that session ids are hashed with; `${file:/path}` reads it from a file. Empty: events have no session.
    pub session_key: String,
}

impl std::fmt::Debug for Entity {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entity")
            .field("scope", &self.scope)
            .field("trusted_hops", &self.trusted_hops)
            .field("has_session_key", &!self.session_key.is_empty())
            .finish()
    }
}

impl Entity {
    /// As the engine takes it.
    pub fn addressing(&self) -> Addressing {
        Addressing {
            scope: match self.scope {
                EntityScope::Global => Scope::Global,
                EntityScope::Tenant => Scope::Tenant,
            },
            trusted_hops: self.trusted_hops,
            session_key: SessionKey::new(&self.session_key),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Folder of the rule pack.
    pub path: PathBuf,
    /// JSON or YAML file that overrides the pack's settings by name; empty for none.
    pub settings: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flags {
    /// JSON or YAML file; empty for none (every flag has its declared default).
    pub file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmitWhat {
    /// When something fired.
    Fired,
    /// For every event.
    All,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decisions {
    /// `fired` or `all`.
    pub emit: EmitWhat,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Folder of the state store; one process at a time.
    pub dir: PathBuf,
    /// Decoded actor states kept in memory, all lanes together; `auto`: a share of `memory.budget`.
    pub cache_bytes: Share,
    /// RocksDB block cache and write buffers, all tasks together; `auto`: a share of `memory.budget`.
    pub rocksdb_bytes: Share,
    /// How often committed state goes from memory to RocksDB.
    pub write_interval: Span,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Resident memory of the process at most: every queue, cache and buffer has its part of it.
    pub budget: Bytes,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Threads, each with a consumer and a transactional producer.
    pub lanes: usize,
    /// Stable name of this process: `group.instance.id` and `transactional.id`; empty: an id kept in the state folder.
    pub identity: String,
    /// Time between commits.
    pub commit_interval: Span,
    /// Time between two ticks of an input partition, while something waits for time to pass: a rule, an action that ends (routed mode).
    pub tick_interval: Span,
    /// Tasks that a lane restores at once.
    pub restores: usize,
    /// A transaction older than this is aborted by the broker.
    pub transaction_timeout: Span,
    /// A member that is silent for longer loses its partitions.
    pub session_timeout: Span,
    /// What is decided longer after its cause than this says so in a header; `off`: nothing does.
    pub degraded_after: Limit,
    /// Records in one transaction at most.
    pub max_records: usize,
    /// Bytes of actor state that one transaction touches at most; `auto`: a share of `memory.budget`.
    pub max_changed_bytes: Share,
}

#[derive(Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// `sqlite://PATH`.
    pub url: String,
    /// Rows written in one database transaction at most.
    pub batch_rows: usize,
    /// A batch that is not full is written after this time.
    pub batch_interval: Span,
}

impl std::fmt::Debug for Sink {
    /// The URL without its password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink")
            .field("url", &secret::without_password(&self.url))
            .field("batch_rows", &self.batch_rows)
            .field("batch_interval", &self.batch_interval)
            .finish()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address of `/livez`, `/readyz` and `/metrics`; empty for none.
    pub listen: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object per line.
    Json,
    /// Text.
    Pretty,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Format.
    pub format: LogFormat,
    /// Filter, as `RUST_LOG` (which wins): `info`, `tripline=debug`.
    pub level: String,
}

impl Config {
    /// Size that a record of ours may have: an event at its limit, written as a decision (the masked payload beside what
    /// rules recorded from it), with key and headers. Producers need it as `message.max.bytes`.
    pub fn max_record_bytes(&self) -> usize {
        // What brokers and librdkafka allow by default; below it nothing would be gained.
        const USUAL: usize = 1_048_588;
        self.input.max_value_bytes.0.saturating_mul(3).saturating_add(64 * 1024).clamp(USUAL, 1_000_000_000)
    }

    /// `<app.id>.internal.observations`.
    pub fn observations_topic(&self) -> String {
        format!("{}.internal.observations", self.app.id)
    }

    /// `<app.id>.internal.changelog`.
    pub fn changelog_topic(&self) -> String {
        format!("{}.internal.changelog", self.app.id)
    }

    /// `<app.id>.internal.epochs`.
    pub fn epochs_topic(&self) -> String {
        format!("{}.internal.epochs", self.app.id)
    }

    /// The topic whose partitions are tasks: the input in keyed mode, the observations in routed mode.
    pub fn keyed_topic(&self) -> String {
        match self.input.keyed_by {
            KeyedBy::Actor => self.input.topics.first().cloned().unwrap_or_default(),
            KeyedBy::None => self.observations_topic(),
        }
    }
}
