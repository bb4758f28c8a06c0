//! Where a state lives: the partition of its entity's key, and in keyed mode which of an entity's two names the keys are.

use crate::config::Partitioner;
use crate::stream::partition::{crc32_partition, murmur2_partition};
use tripline_core::entity::Entity;

/// How the keys of a keyed topic name an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyForm {
    /// With its kind: `user:u1`.
    Kind,
    /// Without: `u1`.
    Bare,
}

/// Where states live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Homes {
    /// Routed mode: the entity's key, placed by us.
    Routed,
    /// Keyed mode: the app's key, placed by its producer.
    Keyed(Partitioner, KeyForm),
}

impl Homes {
    /// The partition of an entity's state; `None` for a key that names no entity.
    pub fn of(self, entity: &str, partitions: i32) -> Option<i32> {
        match self {
            Homes::Routed => Some(murmur2_partition(entity.as_bytes(), partitions)),
            Homes::Keyed(partitioner, form) => Some(placed(partitioner, name(&Entity::parse(entity)?, form).as_bytes(), partitions)),
        }
    }
}

/// Where a producer puts a key.
pub fn placed(partitioner: Partitioner, key: &[u8], partitions: i32) -> i32 {
    match partitioner {
        Partitioner::Murmur2 => murmur2_partition(key, partitions),
        Partitioner::Consistent => crc32_partition(key, partitions),
    }
}

/// As [`Entity::is_named_by`] takes it; the tenant of a scope is no part of it.
fn name(entity: &Entity<'_>, form: KeyForm) -> String {
    match entity.kind.parts().next() {
        None => "anon".to_owned(),
        Some(part) if form == KeyForm::Kind => format!("{}:{}", part.name(), entity.id),
        Some(_) => entity.id.to_string(),
    }
}

/// What the states of a keyed app say about its keys: each lives in a partition that one name explains, or both, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    kind: u64,
    bare: u64,
    both: u64,
    neither: u64,
}

/// Why the keys of an app are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysUnknown {
    /// States that no key explains.
    #[error("{0} states live in a partition that is not their key's: input.partitioner is not the producers'")]
    Elsewhere(u64),
    /// Both names are in use: where one of them lives may be explained by either.
    #[error(
        "{kind} states live where keys with their kind go (`user:u1`), {bare} where keys without it go (`u1`): one app, two kinds of keys, cannot be moved"
    )]
    Mixed {
        /// With the kind.
        kind: u64,
        /// Without.
        bare: u64,
    },
    /// The operator says one thing, states another.
    #[error("--keys is not what the states say: {0} of them live where the other kind of key goes")]
    Contradicted(u64),
    /// No state tells one from the other.
    #[error("no state tells whether the keys carry their kind (`user:u1`) or not (`u1`): say it with --keys kind|bare")]
    Untold,
}

impl Evidence {
    /// Takes in that an entity's state lives in a partition.
    pub fn see(&mut self, entity: &str, partition: i32, partitions: i32, partitioner: Partitioner) {
        let explains = |form| Homes::Keyed(partitioner, form).of(entity, partitions) == Some(partition);
        match (explains(KeyForm::Kind), explains(KeyForm::Bare)) {
            (true, true) => self.both += u64::from(Entity::parse(entity).is_some_and(|e| e.kind.parts().next().is_some())),
            (true, false) => self.kind += 1,
            (false, true) => self.bare += 1,
            (false, false) => self.neither += 1,
        }
    }

    /// Which name the keys are, with what the operator says of it.
    pub fn form(self, said: Option<KeyForm>) -> Result<KeyForm, KeysUnknown> {
        match (self, said) {
            (Evidence { neither: 1.., .. }, _) => Err(KeysUnknown::Elsewhere(self.neither)),
            (Evidence { kind: 1.., bare: 1.., .. }, _) => Err(KeysUnknown::Mixed { kind: self.kind, bare: self.bare }),
            (Evidence { kind: 1.., .. }, Some(KeyForm::Bare)) => Err(KeysUnknown::Contradicted(self.kind)),
            (Evidence { bare: 1.., .. }, Some(KeyForm::Kind)) => Err(KeysUnknown::Contradicted(self.bare)),
            (_, Some(form)) => Ok(form),
            (Evidence { kind: 1.., .. }, None) => Ok(KeyForm::Kind),
            (Evidence { bare: 1.., .. }, None) => Ok(KeyForm::Bare),
            // Nothing is there that a wrong answer could misplace.
            (Evidence { both: 0, .. }, None) => Ok(KeyForm::Kind),
            (_, None) => Err(KeysUnknown::Untold),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(keys: &[&str], form: KeyForm) -> Evidence {
        let mut evidence = Evidence::default();
        for key in keys {
            let home = Homes::Keyed(Partitioner::Murmur2, form).of(key, 4).expect("an entity");
            evidence.see(key, home, 4, Partitioner::Murmur2);
        }
        evidence
    }

    const USERS: [&str; 6] = ["user:a", "user:b", "user:c", "user:d", "@t|user:e", "ip:203.0.113.9"];

    #[test]
    fn the_states_tell_whether_keys_carry_their_kind() {
        for form in [KeyForm::Kind, KeyForm::Bare] {
            assert_eq!(seen(&USERS, form).form(None), Ok(form));
            assert_eq!(seen(&USERS, form).form(Some(form)), Ok(form));
        }
        assert!(matches!(seen(&USERS, KeyForm::Kind).form(Some(KeyForm::Bare)), Err(KeysUnknown::Contradicted(_))));
    }

    #[test]
    fn a_tenant_is_no_part_of_an_apps_key() {
        let home = |key, form| Homes::Keyed(Partitioner::Consistent, form).of(key, 64);
        assert_eq!(home("@t|user:u1", KeyForm::Bare), Some(crc32_partition(b"u1", 64)));
        assert_eq!(home("@t|user:u1", KeyForm::Kind), Some(crc32_partition(b"user:u1", 64)));
        assert_eq!((home("anon", KeyForm::Bare), home("cat:x", KeyForm::Bare)), (Some(crc32_partition(b"anon", 64)), None));
        assert_eq!(Homes::Routed.of("@t|user:u1", 64), Some(murmur2_partition(b"@t|user:u1", 64)));
    }

    #[test]
    fn keys_of_both_kinds_and_of_none_are_refused() {
        let (mut mixed, bare) = (seen(&USERS, KeyForm::Kind), seen(&USERS, KeyForm::Bare));
        mixed.bare += bare.bare;
        assert!(matches!(mixed.form(None), Err(KeysUnknown::Mixed { .. })));
        let mut elsewhere = Evidence::default();
        let taken = [KeyForm::Kind, KeyForm::Bare].map(|form| Homes::Keyed(Partitioner::Murmur2, form).of("user:a", 4));
        let free = (0..4).find(|p| !taken.contains(&Some(*p))).expect("two of four are taken");
        elsewhere.see("user:a", free, 4, Partitioner::Murmur2);
        assert_eq!(elsewhere.form(None), Err(KeysUnknown::Elsewhere(1)));
    }

    #[test]
    fn states_that_tell_nothing_need_the_operator() {
        // One partition explains every key.
        let mut evidence = Evidence::default();
        evidence.see("user:a", 0, 1, Partitioner::Murmur2);
        assert_eq!(evidence.form(None), Err(KeysUnknown::Untold));
        assert_eq!(evidence.form(Some(KeyForm::Bare)), Ok(KeyForm::Bare));
        let mut nobody = Evidence::default();
        nobody.see("anon", 0, 1, Partitioner::Murmur2);
        assert_eq!(nobody.form(None), Ok(KeyForm::Kind), "it has one name only");
    }
}
