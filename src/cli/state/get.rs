//! `tripline state get`: what is remembered of one entity, from this machine's store or from the changelog.

use super::group::Group;
use super::verify::is_state;
use super::{Failure, GetArgs, print, readable, refused};
use crate::cli::Output;
use crate::cli::draw::clean;
use crate::config::{Config, KeyedBy, Partitioner};
use crate::rules::load_pack;
use crate::state::{StateDir, StoreError, TaskStore};
use crate::stream::partition::{crc32_partition, murmur2_partition};
use serde_json::json;
use tripline_core::entity::Entity;
use tripline_core::state::ActorState;

pub(super) fn run(args: &GetArgs, config: &Config) -> Result<u8, Failure> {
    let entity = Entity::parse(&args.entity)
        .ok_or_else(|| Failure::usage("write the entity with its kind, as in `user:u1`, `ip:203.0.113.9` or `anon`"))?;
    let mut key = String::new();
    entity.write_key(&mut key);
    let rules = load_pack(&config.rules.path, &config.rules.settings).map_err(|problems| Failure::invalid(&problems))?;
    let group = Group::connect(config)?;
    let homes = homes(&entity, config, group.tasks()?);
    let found = match if args.changelog { None } else { in_store(config, &homes, &key)? } {
        Some(found) => Some(found),
        None => in_changelog(&group, &homes, &key)?,
    };
    let Some(Found { partition, place, bytes }) = found else {
        return Err(refused(format!("nothing is remembered of this entity, in partition {}", listed(&homes))));
    };
    let state = ActorState::decode(&bytes).map_err(|why| refused(format!("the state in partition {partition} cannot be read: {why}")))?;
    let told = readable::as_json(&state, &rules);
    match args.output {
        Output::Table => {
            print(&format!("{}, partition {partition}, {} bytes, from {place}\n\n{}", clean(&key), bytes.len(), readable::text(&told)))
        }
        Output::Json => {
            let whole = json!({ "entity": key, "partition": partition, "from": place, "bytes": bytes.len(), "state": told });
            print(&format!("{whole:#}\n"))
        }
    }
}

struct Found {
    partition: i32,
    place: String,
    bytes: Vec<u8>,
}

fn listed(partitions: &[i32]) -> String {
    partitions.iter().map(i32::to_string).collect::<Vec<_>>().join(" or ")
}

/// The partitions that may hold an entity: its key's. A keyed input may name its actors with their kind or without; which way, only
/// its sender knows.
fn homes(entity: &Entity<'_>, config: &Config, tasks: i32) -> Vec<i32> {
    let mut key = String::new();
    entity.write_key(&mut key);
    if config.input.keyed_by == KeyedBy::None {
        return vec![murmur2_partition(key.as_bytes(), tasks)];
    }
    let place = |key: &[u8]| match config.input.partitioner {
        Partitioner::Murmur2 => murmur2_partition(key, tasks),
        Partitioner::Consistent => crc32_partition(key, tasks),
    };
    let untenanted = Entity { tenant: None, ..entity.clone() };
    let mut with_kind = String::new();
    untenanted.write_key(&mut with_kind);
    let mut homes = vec![place(with_kind.as_bytes())];
    if !entity.id.is_empty() {
        homes.push(place(entity.id.as_bytes()));
    }
    homes.dedup();
    homes
}

/// What this machine's store has; `None` when it has no store of these partitions, or a worker is at work in it.
fn in_store(config: &Config, homes: &[i32], key: &str) -> Result<Option<Found>, Failure> {
    let dir = match StateDir::existing(&config.state.dir) {
        Ok(Some(dir)) => dir,
        Ok(None) => return Ok(None),
        Err(StoreError::InUse { path }) => {
            eprintln!("{} is in use by a worker: reading the changelog instead", path.display());
            return Ok(None);
        }
        Err(other) => return Err(refused(other)),
    };
    for &partition in homes {
        let Some(store) = TaskStore::open_read_only(&dir.task(partition)).map_err(refused)? else { continue };
        if let Some(bytes) = store.get(key).map_err(refused)? {
            let seq = store.local().map_err(refused)?.map_or(0, |local| local.seq);
            return Ok(Some(Found { partition, place: format!("this machine's store, at commit {seq}"), bytes }));
        }
    }
    Ok(None)
}

/// The newest committed state in the changelog.
fn in_changelog(group: &Group<'_>, homes: &[i32], key: &str) -> Result<Option<Found>, Failure> {
    for &partition in homes {
        let ends = group.ends(&group.config.changelog_topic(), partition)?;
        let mut newest = None;
        group.read_changelog(partition, ends, |found, value, offset| {
            if found == key && is_state(found) {
                newest = value.map(|value| (offset, value.to_vec()));
            }
        })?;
        if let Some((offset, bytes)) = newest {
            return Ok(Some(Found { partition, place: format!("the changelog, at offset {offset}"), bytes }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::client::tests::config;

    #[test]
    fn an_entity_lives_where_its_records_key_puts_it() {
        let mut config = config();
        let user = Entity::parse("user:u1").expect("an entity");
        assert_eq!(homes(&user, &config, 64), [murmur2_partition(b"user:u1", 64)]);
        config.input.keyed_by = KeyedBy::Actor;
        assert_eq!(homes(&user, &config, 64), [murmur2_partition(b"user:u1", 64), murmur2_partition(b"u1", 64)]);
        config.input.partitioner = Partitioner::Consistent;
        assert_eq!(homes(&user, &config, 64), [crc32_partition(b"user:u1", 64), crc32_partition(b"u1", 64)]);
        assert_eq!(homes(&Entity::anon(), &config, 64), [crc32_partition(b"anon", 64)]);
        assert_eq!(homes(&user, &config, 1), [0]);
    }
}
