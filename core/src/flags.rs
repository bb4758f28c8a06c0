//! Feature flags: a consistent snapshot, bound to the flags that a rule set uses. `docs/flags.md` tells it to users.
//!
//! The meaning is that of the Django package `feature-flag-infra`, so that a team can move its flags without anybody
//! changing sides: the same order of checks, the same sticky percentage.

mod file;

use crate::diagnostic::Diagnostic;
use crate::rule::FlagDecl;
use md5::{Digest, Md5};
use serde_json::json;
use std::collections::BTreeMap;

/// One flag as its source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Off means off for everyone (but see `staff_only`).
    pub enabled: bool,
    /// 0 to 100; below 100 it is sticky by user: `md5("flag:user_id")` as a 128-bit number, modulo 100, below the percentage.
    pub rollout_percentage: u8,
    /// Users for whom it is on whatever the percentage says.
    pub users: Vec<String>,
    /// On for staff and off for everyone else, looked at before `enabled`.
    pub staff_only: bool,
}

/// Every flag that the source knows, under one digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagSnapshot {
    /// Digest of the contents: the version.
    pub digest: String,
    /// By name.
    pub flags: BTreeMap<String, Flag>,
}

/// Whom a flag is evaluated for.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlagUser<'a> {
    /// The signed-in user.
    pub user_id: Option<&'a str>,
    /// Works for the operator.
    pub is_staff: bool,
    /// Signed in.
    pub is_authenticated: bool,
}

/// The flags of a rule set, by the rule set's index, reduced to what still depends on the user.
#[derive(Debug)]
pub struct BoundFlags {
    bound: Vec<Bound>,
}

#[derive(Debug)]
enum Bound {
    /// The same for everybody: costs nothing.
    Always(bool),
    /// On for staff.
    Staff,
    /// Depends on who it is.
    Rollout { name: String, users: Vec<String>, percentage: u8 },
}

impl Default for FlagSnapshot {
    /// No flag is known: every declared default holds.
    fn default() -> FlagSnapshot {
        FlagSnapshot::new(BTreeMap::new())
    }
}

impl FlagSnapshot {
    /// A snapshot of these flags. The digest is of their meaning: spelling, order and repeated users do not change it.
    pub fn new(flags: BTreeMap<String, Flag>) -> FlagSnapshot {
        let rows: Vec<_> = flags
            .iter()
            .map(|(name, flag)| json!([name, flag.enabled, flag.rollout_percentage, flag.staff_only, sorted(&flag.users)]))
            .collect();
        FlagSnapshot { digest: crate::hash::digest(json!(rows).to_string().as_bytes()), flags }
    }

    /// Reads a flags file: a JSON or YAML map from name to `true`/`false` or to an object. `file` names it in diagnostics.
    pub fn parse(file: &str, text: &str) -> Result<FlagSnapshot, Vec<Diagnostic>> {
        file::read(file, text).map(FlagSnapshot::new)
    }

    /// Binds the snapshot to the flags that a rule set declares.
    pub fn bind(&self, declared: &[FlagDecl]) -> BoundFlags {
        let bind = |declared: &FlagDecl| match self.flags.get(&declared.name) {
            Some(flag) => flag.bind(&declared.name),
            None => Bound::Always(declared.default),
        };
        BoundFlags { bound: declared.iter().map(bind).collect() }
    }

    /// Whether a flag is on for a user, and why. `default` holds where the source does not know the flag.
    pub fn explain(&self, name: &str, default: bool, user: FlagUser<'_>) -> (bool, &'static str) {
        self.flags.get(name).map_or((default, "unknown flag: the declared default"), |flag| flag.explain(name, user))
    }
}

impl BoundFlags {
    /// Whether the flag of this index is on for this user; the declared default if the source does not know it.
    pub fn is_on(&self, index: usize, user: FlagUser<'_>) -> bool {
        match &self.bound[index] {
            Bound::Always(on) => *on,
            Bound::Staff => user.is_staff,
            Bound::Rollout { name, users, percentage } => user.user_id.is_some_and(|id| {
                let listed = user.is_authenticated && users.binary_search_by(|listed| listed.as_str().cmp(id)).is_ok();
                listed || (*percentage > 0 && bucket(name, id) < *percentage)
            }),
        }
    }

    /// Whether the flag of this index is off whoever asks.
    pub fn is_off_for_all(&self, index: usize) -> bool {
        matches!(self.bound[index], Bound::Always(false))
    }
}

impl Flag {
    /// Evaluates the flag for a user.
    pub fn is_on(&self, name: &str, user: FlagUser<'_>) -> bool {
        self.explain(name, user).0
    }

    /// Evaluates the flag for a user and says which check decided. The order of the checks is the contract.
    pub fn explain(&self, name: &str, user: FlagUser<'_>) -> (bool, &'static str) {
        if self.staff_only {
            return if user.is_staff { (true, "staff only: is staff") } else { (false, "staff only: is not staff") };
        }
        if !self.enabled {
            return (false, "disabled");
        }
        if self.rollout_percentage >= 100 {
            return (true, "rolled out to everyone");
        }
        let Some(id) = user.user_id else { return (false, "partly rolled out: no user id") };
        if user.is_authenticated && self.users.iter().any(|listed| listed == id) {
            return (true, "listed user");
        }
        if self.rollout_percentage == 0 {
            return (false, "rolled out to nobody but listed users");
        }
        if bucket(name, id) < self.rollout_percentage { (true, "inside the rollout") } else { (false, "outside the rollout") }
    }

    fn bind(&self, name: &str) -> Bound {
        if self.staff_only {
            Bound::Staff
        } else if !self.enabled || (self.rollout_percentage == 0 && self.users.is_empty()) {
            Bound::Always(false)
        } else if self.rollout_percentage >= 100 {
            Bound::Always(true)
        } else {
            Bound::Rollout { name: name.to_owned(), users: sorted(&self.users), percentage: self.rollout_percentage }
        }
    }
}

fn sorted(users: &[String]) -> Vec<String> {
    let mut users = users.to_vec();
    users.sort_unstable();
    users.dedup();
    users
}

/// Where a user stands between 0 and 99 for a flag. Frozen: another formula would move real users to the other side.
/// Source: `feature-flag-infra` 0.2.1, `int(md5(f"{flag}:{user_id}").hexdigest(), 16) % 100`.
pub fn bucket(flag: &str, user_id: &str) -> u8 {
    let hash = Md5::new().chain_update(flag).chain_update(":").chain_update(user_id).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash);
    (u128::from_be_bytes(bytes) % 100) as u8
}

#[cfg(test)]
mod tests;
