//! The group coordinator: static members, cooperative rebalances, committed offsets, and offsets that wait for the end of
//! their transaction.
//!
//! A partition that moves is first taken back, and given on once its owner said that it let go, or was expelled. Only the
//! member's own callback says so; a member that was expelled learns of it the next time it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tripline_core::protocol::TaskId;

/// An offset with its metadata string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    pub metadata: Rc<str>,
}

/// Offsets of one transaction.
pub type Offsets = BTreeMap<TaskId, CommittedOffset>;

/// What a member learns from its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These are taken back; the group waits.
    Revoked(BTreeSet<TaskId>),
    /// Expelled: everything belongs to others by now.
    Lost,
    /// These are given.
    Assigned(BTreeSet<TaskId>),
}

#[derive(Debug)]
struct Member {
    incarnation: u64,
    owned: BTreeSet<TaskId>,
    /// Taken back, and not let go of yet.
    leaving: BTreeSet<TaskId>,
}

/// The group.
#[derive(Debug, Default)]
pub struct Group {
    tasks: Vec<TaskId>,
    members: BTreeMap<usize, Member>,
    incarnations: u64,
    /// How far the assignment is turned: another figure moves partitions.
    turn: usize,
    /// With the place of the offset in its log: of two, the later one stands, in whichever order their transactions end.
    committed: BTreeMap<TaskId, (u64, CommittedOffset)>,
    pending: BTreeMap<usize, BTreeMap<TaskId, (u64, CommittedOffset)>>,
    appended: u64,
}

impl Group {
    /// Of these tasks.
    pub fn new(tasks: Vec<TaskId>) -> Group {
        Group { tasks, ..Group::default() }
    }

    /// All tasks.
    pub fn tasks(&self) -> &[TaskId] {
        &self.tasks
    }

    /// A member joins, or its successor takes its place at once and keeps what it owned (static membership). Answers its
    /// incarnation.
    pub fn join(&mut self, instance: usize) -> u64 {
        self.incarnations += 1;
        let owned = self.members.remove(&instance).map(|member| member.owned).unwrap_or_default();
        self.members.insert(instance, Member { incarnation: self.incarnations, owned, leaving: BTreeSet::new() });
        self.incarnations
    }

    /// The session of a member ends. Answers whether it was one.
    pub fn expel(&mut self, instance: usize) -> bool {
        self.members.remove(&instance).is_some()
    }

    /// Whether there is a member of that name.
    pub fn has(&self, instance: usize) -> bool {
        self.members.contains_key(&instance)
    }

    /// Whether this is the member of that name.
    pub fn knows(&self, instance: usize, incarnation: u64) -> bool {
        self.members.get(&instance).is_some_and(|member| member.incarnation == incarnation)
    }

    /// What a member has to be told, given what it believes to own.
    pub fn news(&mut self, instance: usize, incarnation: u64, assigned: &BTreeSet<TaskId>) -> Option<News> {
        let Some(member) = self.members.get_mut(&instance).filter(|member| member.incarnation == incarnation) else {
            return Some(News::Lost);
        };
        // Given and taken back before it asked: there is nothing to let go of.
        member.leaving.retain(|task| assigned.contains(task));
        let gone: BTreeSet<TaskId> = assigned.difference(&member.owned).copied().collect();
        if !gone.is_empty() {
            return Some(News::Revoked(gone));
        }
        let new: BTreeSet<TaskId> = member.owned.difference(assigned).copied().collect();
        (!new.is_empty()).then_some(News::Assigned(new))
    }

    /// A member has let go of what was taken back.
    pub fn let_go(&mut self, instance: usize, incarnation: u64, tasks: &BTreeSet<TaskId>) {
        if let Some(member) = self.members.get_mut(&instance).filter(|member| member.incarnation == incarnation) {
            member.leaving.retain(|task| !tasks.contains(task));
        }
    }

    /// Other members get the partitions.
    pub fn turn(&mut self) {
        self.turn += 1;
    }

    /// One rebalance, if something has to move. It needs every member: `is_there` says which of them answer.
    pub fn rebalance(&mut self, is_there: impl Fn(usize) -> bool) -> bool {
        if self.members.is_empty() || !self.members.keys().all(|instance| is_there(*instance)) {
            return false;
        }
        let instances: Vec<usize> = self.members.keys().copied().collect();
        let mut has_moved = false;
        for (at, task) in self.tasks.iter().enumerate() {
            let target = instances[(at + self.turn) % instances.len()];
            let owner = instances.iter().copied().find(|instance| self.members[instance].owned.contains(task));
            let is_leaving = self.members.values().any(|member| member.leaving.contains(task));
            let (from, to) = match owner {
                Some(owner) if owner != target => (Some(owner), None),
                None if !is_leaving => (None, Some(target)),
                _ => continue,
            };
            has_moved = true;
            if let Some(member) = from.and_then(|from| self.members.get_mut(&from)) {
                member.owned.remove(task);
                member.leaving.insert(*task);
            }
            if let Some(member) = to.and_then(|to| self.members.get_mut(&to)) {
                member.owned.insert(*task);
            }
        }
        has_moved
    }

    /// The committed offset of a task; an error while a transaction is open that would change it (require_stable).
    pub fn committed(&self, task: TaskId) -> Result<Option<&CommittedOffset>, Pending> {
        if self.pending.values().any(|offsets| offsets.contains_key(&task)) {
            return Err(Pending);
        }
        Ok(self.last_committed(task))
    }

    /// The same as of the last transaction that has ended, whatever is open.
    pub fn last_committed(&self, task: TaskId) -> Option<&CommittedOffset> {
        self.committed.get(&task).map(|(_, offset)| offset)
    }

    pub(super) fn pend(&mut self, producer: usize, offsets: Offsets) {
        let pending = self.pending.entry(producer).or_default();
        for (task, offset) in offsets {
            self.appended += 1;
            pending.insert(task, (self.appended, offset));
        }
    }

    pub(super) fn end(&mut self, producer: usize, commit: bool) {
        let pending = self.pending.remove(&producer).unwrap_or_default();
        for (task, offset) in pending.into_iter().filter(|_| commit) {
            if self.committed.get(&task).is_none_or(|(place, _)| *place < offset.0) {
                self.committed.insert(task, offset);
            }
        }
    }
}

/// Offsets of an open transaction hide what will be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending;
