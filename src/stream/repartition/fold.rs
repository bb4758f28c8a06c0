//! The states of the old tasks, each folded from its changelog up to its commit into a RocksDB that is thrown away.

use super::homes::{Evidence, Homes, KeyForm};
use super::plan::Plan;
use super::{RepartitionError, Scene};
use crate::config::Config;
use crate::state::{Budget, StateDir, TaskState, TaskStore};
use crate::stream::changelog::{self, Entry, Span};
use crate::stream::failpoints::{self, Point};
use crate::stream::restore::{MARKER_PREFIX, ROUTER_PREFIX, patience, time_key};
use std::path::PathBuf;
use tripline_core::protocol::start::{self, Halt, Marker, Metadata};
use tripline_core::stream_time::SourceTimes;

/// States that are looked at together.
const STEP: usize = 512;

/// The states of one task, and what else its changelog says.
pub struct Folded {
    state: TaskState,
    /// Of its last commit.
    pub marker: Marker,
    /// How far it has heard from its sources.
    pub sources: Option<SourceTimes>,
}

impl Folded {
    /// Shows every state, in the order of the entities.
    pub fn each<E: From<crate::state::StoreError>>(&self, mut show: impl FnMut(&str, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut from: Option<String> = None;
        loop {
            let scanned = self.state.store().scan(from.as_deref(), STEP)?;
            for (entity, bytes) in &scanned.found {
                show(entity, bytes)?;
            }
            if scanned.is_end {
                return Ok(());
            }
            from = scanned.found.into_iter().next_back().map(|(entity, _)| entity);
        }
    }
}

/// Memory for blocks and write buffers while states are folded.
const ROCKSDB_BYTES: usize = 128 << 20;

/// Where the states are folded: a folder beside the tasks', so that it is as private as they are and has their room.
pub struct Scratch {
    dir: StateDir,
    path: PathBuf,
    budget: Budget,
}

impl Scratch {
    /// Takes the folder, which no other run may use, and empties it of what a killed one left.
    pub fn open(config: &Config, tasks: i32) -> Result<Scratch, RepartitionError> {
        let path = config.state.dir.join("repartition");
        let scratch = Scratch { dir: StateDir::open(&path)?, path, budget: Budget::new(ROCKSDB_BYTES) };
        for partition in 0..tasks {
            TaskStore::destroy(&scratch.dir.task(partition))?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is emptied by the next run.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Folds the changelog of every old task.
pub fn fold(scene: &Scene<'_>, plan: &Plan, scratch: &Scratch) -> Result<Vec<Folded>, RepartitionError> {
    (0..plan.from)
        .map(|partition| {
            let metadata = plan.life(partition).ok_or_else(|| super::broken("a task of the old number without metadata"))?;
            fold_one(scene, metadata, partition, scratch)
        })
        .collect()
}

fn fold_one(scene: &Scene<'_>, metadata: &Metadata, partition: i32, scratch: &Scratch) -> Result<Folded, RepartitionError> {
    let topic = scene.changelog.as_str();
    let (from, end) = scene.ends(topic, partition)?;
    let halt = |source: Halt| RepartitionError::Halt { topic: scene.keyed.clone(), partition, source };
    let mut state = TaskState::new(TaskStore::open(&scratch.dir.task(partition), &scratch.budget)?);
    let (mut found, mut sources) = (None, None);
    let show = |&Entry { key, value, .. }: &Entry<'_>| {
        let _ = failpoints::reach(Point::InRestore);
        if key == time_key(partition) {
            sources = value.and_then(|v| serde_json::from_slice(v).ok());
        } else if key.starts_with(MARKER_PREFIX) {
            let Some(marker) = value.and_then(|v| serde_json::from_slice::<Marker>(v).ok()) else { return Ok(false) };
            if start::marker_met(&marker, metadata, metadata.partitions).map_err(halt)? {
                found = Some(marker);
                return Ok(true);
            }
        } else if !key.starts_with(ROUTER_PREFIX) {
            state.restore(key, value)?;
        }
        Ok(false)
    };
    let span = Span { topic, partition, from, end };
    changelog::read(&scene.committed, span, patience(scene.config), || false, show).map_err(|error| scene.read_error(&span, error))?;
    state.write(None)?;
    let marker = found.ok_or_else(|| halt(Halt::MarkerMissing { end, seq: metadata.seq }))?;
    Ok(Folded { state, marker, sources })
}

/// States, and how many of them move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// All.
    pub states: u64,
    /// Those with another partition than before.
    pub moving: u64,
}

/// Where every state goes; an error when one is not where it should be now.
pub fn place(scene: &Scene<'_>, plan: &Plan, folded: &[Folded], said: Option<KeyForm>) -> Result<(Homes, Count), RepartitionError> {
    let homes = if scene.is_routed() { Homes::Routed } else { learn(scene, plan, folded, said)? };
    let mut count = Count::default();
    let mut elsewhere = 0;
    for (partition, task) in (0..).zip(folded) {
        task.each(|entity, _| {
            count.states += 1;
            elsewhere += u64::from(homes.of(entity, plan.from) != Some(partition));
            count.moving += u64::from(homes.of(entity, plan.to) != Some(partition));
            Ok::<_, RepartitionError>(())
        })?;
    }
    match elsewhere {
        0 => Ok((homes, count)),
        states => Err(RepartitionError::Elsewhere { states }),
    }
}

fn learn(scene: &Scene<'_>, plan: &Plan, folded: &[Folded], said: Option<KeyForm>) -> Result<Homes, RepartitionError> {
    let partitioner = scene.config.input.partitioner;
    let mut evidence = Evidence::default();
    for (partition, task) in (0..).zip(folded) {
        task.each(|entity, _| {
            evidence.see(entity, partition, plan.from, partitioner);
            Ok::<_, RepartitionError>(())
        })?;
    }
    Ok(Homes::Keyed(partitioner, evidence.form(said)?))
}
