//! The line on Kafka: lanes, tasks, transactions, restore.
//!
//! # The path of one record
//!
//! ```text
//! app.* ─ poll ─▶ decode ─▶ Event ─ route ─▶ observation                        router    (routed mode only)
//! observation ─ poll ─▶ decode ─▶ select rules ─▶ actor state ─▶ apply ─▶ decisions   detector
//! every commit interval, one transaction per lane (begun by its first record):
//!   outputs as records finish · changed states and a marker per task to the changelog · drain · offsets · commit
//!   then: apply (the committed encodings wait in memory) · about once a second: RocksDB
//! ```
//!
//! A [`lane`] is one OS thread with one consumer and one transactional producer. What it does when is decided by
//! [`tripline_core::protocol::Lane`]; [`lane`] is that machine's driver, [`restore`] brings tasks to their committed
//! position beside it, [`process`] is what happens to a record, [`outputs`] writes what comes of it.

pub mod access;
pub mod changelog;
pub mod client;
pub mod failpoints;
mod fencing;
pub mod group;
pub(crate) mod headers;
mod lag;
mod lane;
pub(crate) mod outputs;
pub mod partition;
mod probe;
mod process;
pub(crate) mod producer;
mod queues;
mod refusal;
mod registry;
pub mod repartition;
pub mod restore;
mod runtime;
pub mod topics;
mod unowned;

pub use runtime::{Role, RunError, run};

use crate::admin::health::Health;
use crate::config::memory::Shares;
use crate::config::{Config, KeyedBy};
use crate::live::Live;
use crate::state::{Budget, StateDir};
use crate::telemetry::metrics::Metrics;
use rdkafka::ClientConfig;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tripline_core::protocol::TaskId;
use tripline_core::tick::Layout;

/// What all lanes of a process share. Nothing in it is written by a lane while it processes records.
#[derive(Debug)]
pub struct Shared {
    /// Settings.
    pub config: Config,
    /// Client settings that every client starts from.
    pub base: ClientConfig,
    /// Input topics by [`TaskId::topic`]: 0 is the keyed topic.
    pub inputs: Vec<String>,
    /// Partitions of the keyed topic: the number of tasks.
    pub partitions: i32,
    /// Partitions of the topics that lanes write by key: decisions, alerts, dead letters, late, and the keyed topic itself.
    pub output_partitions: std::collections::BTreeMap<String, i32>,
    /// The input topics when the process started.
    pub inputs_at_start: std::collections::BTreeMap<String, group::Input>,
    /// Partitions of the input topics, looked at now and then while a rule needs time: what ticks tell.
    pub layout: Mutex<Layout>,
    /// The changelog's name.
    pub changelog: String,
    /// Rules and flags.
    pub live: Arc<Live>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` answers.
    pub health: Arc<Health>,
    /// The parts of the memory budget.
    pub memory: Shares,
    /// RocksDB's part of it.
    pub budget: Budget,
    /// The state folder.
    pub dir: StateDir,
    /// Stable name of this process.
    pub identity: String,
    /// What Kafka denies.
    pub access: Arc<access::Watch>,
    /// Open stores.
    pub registry: registry::Registry,
    /// Former owners whose transactions were ended.
    pub fences: fencing::Fences,
    /// Set to stop.
    pub stop: AtomicBool,
}

impl Shared {
    /// The input topic of a task.
    pub fn topic(&self, task: TaskId) -> &str {
        self.inputs.get(usize::from(task.topic)).map_or("?", String::as_str)
    }

    /// The task of a topic's partition.
    pub fn task(&self, topic: &str, partition: i32) -> Option<TaskId> {
        let index = self.inputs.iter().position(|t| t == topic)?;
        Some(TaskId { topic: index as u16, partition })
    }

    /// Whether inputs are routed over the observations topic.
    pub fn is_routed(&self) -> bool {
        self.config.input.keyed_by == KeyedBy::None
    }

    /// Partitions of the input topics as last seen.
    pub fn layout(&self) -> Layout {
        self.layout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the process was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Partitions of an output topic.
    pub fn partitions_of(&self, topic: &str) -> i32 {
        self.output_partitions.get(topic).copied().unwrap_or(1)
    }
}
