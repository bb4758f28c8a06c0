//! The states of the old tasks, each folded from its changelog up to its commit into a RocksDB that is thrown away.

use super::homes::{Evidence, Homes, KeyForm};
use super::plan::Plan;
use super::scratch::Scratch;
use super::{RepartitionError, Scene};
use crate::state::{StoreError, TaskState, TaskStore};
use crate::stream::changelog::{self, Entry, Span};
use crate::stream::failpoints::{self, Point};
use crate::stream::restore::{MARKER_PREFIX, ROUTER_PREFIX, Refused, patience, time_key};
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
    pub fn each<E: From<StoreError>>(&self, mut show: impl FnMut(&str, &[u8]) -> Result<(), E>) -> Result<(), E> {
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
    let (low, end) = scene.ends(topic, partition)?;
    let halt = |source: Halt| RepartitionError::Halt { topic: scene.keyed.clone(), partition, source };
    let (from, _) = start::restore_from(None, low, metadata).map_err(halt)?;
    let no_state = |(offset, source)| RepartitionError::Record { topic: topic.to_owned(), partition, offset, source };
    let mut state = TaskState::new(TaskStore::open(&scratch.task(partition), scratch.budget())?);
    let (mut found, mut sources, mut refused) = (None, None, Refused::default());
    let show = |record: &Entry<'_>| {
        let Entry { key, value, offset, .. } = *record;
        let _ = failpoints::reach(Point::InRestore);
        if found.is_some() {
            return Ok(refused.make_up(&mut state, record)?);
        }
        if key == time_key(partition) {
            sources = value.and_then(|v| serde_json::from_slice(v).ok());
        } else if key.starts_with(MARKER_PREFIX) {
            let Some(marker) = value.and_then(|v| serde_json::from_slice::<Marker>(v).ok()) else { return Ok(false) };
            if start::marker_met(&marker, metadata, metadata.partitions).map_err(halt)? {
                found = Some(marker);
                return Ok(refused.is_empty());
            }
        } else if !key.starts_with(ROUTER_PREFIX) {
            match state.restore(key, value) {
                Ok(_) => drop(refused.is_replaced(key)),
                Err(StoreError::State { source, .. }) => refused.note(key, offset, source).map_err(no_state)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    };
    let span = Span { topic, partition, from, end };
    changelog::read(&scene.committed, span, patience(scene.config), || false, show).map_err(|error| scene.read_error(&span, error))?;
    refused.into_first().map_or(Ok(()), |why| Err(no_state(why)))?;
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
