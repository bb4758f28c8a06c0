//! Feature flags: a consistent snapshot, bound to the flags that a rule set uses.

use crate::diagnostic::Diagnostic;
use crate::rule::FlagDecl;
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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

/// The flags of a rule set, by the rule set's index.
#[derive(Debug)]
pub struct BoundFlags {
    bound: Vec<(String, Option<Flag>, bool)>,
}

impl FlagSnapshot {
    /// Reads a flags file: a JSON or YAML map from name to `true`/`false` or to an object. `file` names it in diagnostics.
    pub fn parse(file: &str, text: &str) -> Result<FlagSnapshot, Vec<Diagnostic>> {
        let _ = (file, text);
        Err(vec![])
    }

    /// Binds the snapshot to the flags that a rule set declares.
    pub fn bind(&self, declared: &[FlagDecl]) -> BoundFlags {
        BoundFlags { bound: declared.iter().map(|d| (d.name.clone(), self.flags.get(&d.name).cloned(), d.default)).collect() }
    }
}

impl BoundFlags {
    /// Whether the flag of this index is on for this user; the declared default if the source does not know it.
    pub fn is_on(&self, index: usize, user: FlagUser<'_>) -> bool {
        let (name, flag, default) = &self.bound[index];
        flag.as_ref().map_or(*default, |flag| flag.is_on(name, user))
    }
}

impl BoundFlags {
    /// Whether the flag of this index is off whoever asks.
    pub fn is_off_for_everyone(&self, index: usize) -> bool {
        let (_, flag, default) = &self.bound[index];
        flag.as_ref().map_or(!default, |f| !f.staff_only && (!f.enabled || (f.rollout_percentage == 0 && f.users.is_empty())))
    }
}

impl Flag {
    /// Evaluates the flag for a user.
    pub fn is_on(&self, name: &str, user: FlagUser<'_>) -> bool {
        let _ = (name, user);
        self.enabled
    }
}
