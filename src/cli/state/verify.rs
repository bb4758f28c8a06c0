//! `tripline state verify`: whether this machine's stores equal the changelog up to the commit that each says of itself.

use super::fold::{self, Compared, Fold, Full, Share};
use super::group::Group;
use super::{Failure, VerifyArgs, code, print, refused};
use crate::cli::Output;
use crate::cli::draw::clean;
use crate::config::Config;
use crate::state::{StateDir, StoreError, TaskStore};
use crate::stream::restore::{MARKER_PREFIX, ROUTER_PREFIX, marker_key};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use tripline_core::protocol::start::{Local, Marker};
use tripline_core::state::{ActorState, DELETE_GRACE_MS};

/// Entities that are held at a time, 16 bytes each and what a hash table adds: about 100 MiB.
const MOST_ENTITIES: usize = 4_000_000;
/// Passes over a changelog, at most: a thousand million entities.
const MOST_PASSES: u64 = 256;
/// Entities of a partition that are named, at most; all are counted.
const NAMED: usize = 100;
/// Entities read from a store at a time.
const STEP: usize = 512;

pub(super) fn run(args: &VerifyArgs, config: &Config) -> Result<u8, Failure> {
    let group = Group::connect(config)?;
    let tasks = group.tasks()?;
    let dir = StateDir::existing(&config.state.dir).map_err(of_store)?.ok_or_else(|| nothing(config, args.partition))?;
    let mut verified = Vec::new();
    for partition in (0..tasks).filter(|p| args.partition.is_none_or(|wanted| wanted == *p)) {
        let Some(store) = TaskStore::open_read_only(&dir.task(partition)).map_err(refused)? else { continue };
        let Some(local) = store.local().map_err(refused)? else { continue };
        verified.push(Task { group: &group, store: &store, local: &local, partition }.verify(args.show_entities)?);
    }
    if verified.is_empty() {
        return Err(nothing(config, args.partition));
    }
    match args.output {
        Output::Table => print(&verified.iter().map(Verified::text).collect::<String>())?,
        Output::Json => print(&format!("{:#}\n", Value::from(verified.iter().map(Verified::json).collect::<Vec<_>>())))?,
    };
    Ok(if verified.iter().all(Verified::is_clean) { code::OK } else { code::FINDINGS })
}

/// A worker that writes meanwhile would be compared half-way.
pub(super) fn of_store(error: StoreError) -> Failure {
    match error {
        StoreError::InUse { path } => {
            refused(format!("{} is in use by a worker: stop it first, or look at a snapshot of its folder", path.display()))
        }
        other => refused(other),
    }
}

fn nothing(config: &Config, partition: Option<i32>) -> Failure {
    let what = partition.map_or_else(|| "no store of any task".to_owned(), |p| format!("no store of partition {p}"));
    refused(format!("there is {what} in {}: nothing to verify (state.dir)", config.state.dir.display()))
}

/// How an entity differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    Differs,
    OnlyInStore,
    OnlyInChangelog,
}

impl Difference {
    fn name(self) -> &'static str {
        match self {
            Difference::Differs => "differs",
            Difference::OnlyInStore => "only_in_store",
            Difference::OnlyInChangelog => "only_in_changelog",
        }
    }
}

/// What was found of one partition.
#[derive(Debug, Default)]
struct Verified {
    partition: i32,
    seq: u64,
    marker_offset: i64,
    same: u64,
    /// The store does not know yet that they went; they read as empty.
    expired: u64,
    /// Not comparable.
    went_on: u64,
    counts: BTreeMap<Difference, u64>,
    /// The first of them, by hash, with their names when they are asked for.
    named: BTreeMap<u64, (Difference, Option<String>)>,
    /// Why nothing was compared: the commit of the store is not in the changelog.
    foreign: Option<String>,
    /// The first offset that is left of the changelog.
    low: i64,
}

impl Verified {
    fn is_clean(&self) -> bool {
        self.counts.is_empty() && self.foreign.is_none()
    }

    fn note(&mut self, difference: Difference, key: u64, name: Option<&str>) {
        *self.counts.entry(difference).or_default() += 1;
        if self.named.len() < NAMED {
            self.named.insert(key, (difference, name.map(str::to_owned)));
        }
    }

    fn text(&self) -> String {
        let verdict = match &self.foreign {
            Some(_) => "CANNOT BE COMPARED with the changelog",
            None if self.is_clean() => "equals the changelog",
            None => "DIFFERS from the changelog",
        };
        let mut text = format!("partition {}: {verdict} up to commit {} (offset {})\n", self.partition, self.seq, self.marker_offset);
        let mut line = |count: u64, what: &str| {
            if count > 0 {
                let _ = writeln!(text, "{count:>10}  {what}");
            }
        };
        line(self.same, "the same");
        line(self.went_on, "not compared: the changelog went on about them after the store's commit");
        line(self.expired, "only in the store, and expired: they read as empty");
        for (difference, count) in &self.counts {
            line(*count, difference.name());
        }
        if self.low > 0 && self.foreign.is_none() {
            let _ = writeln!(
                text,
                "  the changelog begins at offset {}: what only the store has may have stood before it, keep the folder",
                self.low
            );
        }
        if let Some(why) = &self.foreign {
            let _ = writeln!(text, "  {}", clean(why));
        }
        for (key, (difference, name)) in &self.named {
            let name = name.as_deref().map(clean).unwrap_or_default();
            let _ = writeln!(text, "  {key:016x}  {:<17} {name}", difference.name());
        }
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    fn json(&self) -> Value {
        let counts: BTreeMap<&str, u64> = self.counts.iter().map(|(difference, count)| (difference.name(), *count)).collect();
        let entities = self.named.iter().map(|(key, (difference, name))| {
            let mut value = json!({ "digest": format!("{key:016x}"), "difference": difference.name() });
            if let Some(name) = name {
                value["entity"] = json!(name);
            }
            value
        });
        json!({
            "partition": self.partition, "clean": self.is_clean(), "commit": self.seq, "marker_offset": self.marker_offset,
            "same": self.same, "expired": self.expired, "went_on": self.went_on, "differences": counts,
            "foreign": self.foreign, "changelog_low": self.low, "entities": entities.collect::<Vec<_>>(),
        })
    }
}

/// One store beside its changelog partition.
struct Task<'a> {
    group: &'a Group<'a>,
    store: &'a TaskStore,
    local: &'a Local,
    partition: i32,
}

impl Task<'_> {
    fn verify(&self, show_entities: bool) -> Result<Verified, Failure> {
        let mut passes = 1;
        let mut verified = loop {
            match self.all(passes)? {
                Ok(verified) => break verified,
                Err(Full) if passes < MOST_PASSES => passes *= 2,
                Err(Full) => return Err(refused(format!("partition {} has too many entities to compare", self.partition))),
            }
        };
        if show_entities {
            self.name(&mut verified)?;
        } else {
            verified.named.values_mut().for_each(|(_, name)| *name = None);
        }
        Ok(verified)
    }

    fn all(&self, passes: u64) -> Result<Result<Verified, Full>, Failure> {
        let Local { seq, marker_offset, .. } = *self.local;
        let (low, end) = self.group.ends(&self.group.config.changelog_topic(), self.partition)?;
        let nothing_compared = |foreign| Verified { partition: self.partition, seq, marker_offset, low, foreign, ..Verified::default() };
        let mut verified = nothing_compared(None);
        for pass in 0..passes {
            let mut fold = Fold::new(Share { pass, passes }, MOST_ENTITIES);
            match self.read((low, end), &mut fold)? {
                Ok(None) => {}
                // Of states that another changelog tells of nothing is to be said.
                Ok(why) => return Ok(Ok(nothing_compared(why))),
                Err(Full) => return Ok(Err(Full)),
            }
            self.compare(&mut fold, &mut verified)?;
        }
        Ok(Ok(verified))
    }

    /// Folds the changelog; answers what speaks against the store's commit being in it.
    fn read(&self, (low, end): (i64, i64), fold: &mut Fold) -> Result<Result<Option<String>, Full>, Failure> {
        let marker_offset = self.local.marker_offset;
        if marker_offset >= end {
            return Ok(Ok(Some(format!("the changelog ends at offset {end}, before the store's commit: it was made anew"))));
        }
        if marker_offset < low {
            return Ok(Ok(Some(format!("the changelog begins at offset {low}, after the store's commit: they cannot be compared"))));
        }
        let (key, mut foreign, mut full) = (marker_key(None, self.partition), None, false);
        self.group.read_changelog(self.partition, (low, end), |found, value, offset| {
            if offset == marker_offset {
                let marker = value.and_then(|value| serde_json::from_slice::<Marker>(value).ok());
                if found != key || marker.is_none_or(|marker| marker.commit_id != self.local.commit_id) {
                    foreign = Some(format!("offset {offset} of the changelog is not the store's commit: it was made anew"));
                }
            }
            if !is_state(found) || full {
                return;
            }
            let applied = if offset <= marker_offset { fold.apply(found, value) } else { fold.went_on(found) };
            full = applied.is_err();
        })?;
        Ok(if full { Err(Full) } else { Ok(foreign) })
    }

    fn compare(&self, fold: &mut Fold, verified: &mut Verified) -> Result<(), Failure> {
        let mut from: Option<String> = None;
        loop {
            let scanned = self.store.scan(from.as_deref(), STEP).map_err(refused)?;
            for (entity, state) in &scanned.found {
                let key = fold::of_entity(entity);
                match fold.compare(entity, state) {
                    Compared::NotMine => {}
                    Compared::Same => verified.same += 1,
                    Compared::WentOn => verified.went_on += 1,
                    Compared::Differs => verified.note(Difference::Differs, key, Some(entity)),
                    Compared::OnlyInStore if self.is_expired(state) => verified.expired += 1,
                    Compared::OnlyInStore => verified.note(Difference::OnlyInStore, key, Some(entity)),
                }
            }
            if scanned.is_end {
                break;
            }
            from = scanned.found.into_iter().next_back().map(|(entity, _)| entity);
        }
        for key in fold.only_in_changelog() {
            verified.note(Difference::OnlyInChangelog, key, None);
        }
        Ok(())
    }

    /// Whether a sweep would delete it: it reads as empty, and nothing in it waits.
    fn is_expired(&self, state: &[u8]) -> bool {
        ActorState::decode_delete_after(state).is_ok_and(|until_ms| until_ms < self.local.stream_time_ms.saturating_sub(DELETE_GRACE_MS))
    }

    /// Finds the names of entities that only the changelog has: only their hashes were kept.
    fn name(&self, verified: &mut Verified) -> Result<(), Failure> {
        let unnamed: BTreeSet<u64> = verified.named.iter().filter(|(_, (_, name))| name.is_none()).map(|(key, _)| *key).collect();
        if unnamed.is_empty() {
            return Ok(());
        }
        let (low, end) = self.group.ends(&self.group.config.changelog_topic(), self.partition)?;
        self.group.read_changelog(self.partition, (low, end), |entity, _, _| {
            let key = fold::of_entity(entity);
            if unnamed.contains(&key)
                && let Some((_, name)) = verified.named.get_mut(&key)
            {
                *name = Some(entity.to_owned());
            }
        })
    }
}

/// Whether a record of the changelog is about an entity.
pub(super) fn is_state(key: &str) -> bool {
    !key.starts_with(MARKER_PREFIX) && !key.starts_with(ROUTER_PREFIX)
}
