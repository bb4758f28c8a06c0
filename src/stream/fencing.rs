//! Ending what an owner that is gone left open.
//!
//! A transaction that a dead or frozen process has open hides every later record of the partitions it wrote to from
//! read_committed readers, ours and downstream's, until it times out; and it keeps the group's offset pending. Its
//! successor does not wait: a producer with the same transactional id ends the transaction by connecting (`init_transactions`),
//! and is thrown away. If the owner lives after all, its next call is fenced and it recovers by itself; nothing of it becomes
//! visible. Only an owner that the group no longer has is treated so.

use super::Shared;
use super::changelog::Quiet;
use super::producer::LaneProducer;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// One owner is ended at most once in this time: its tasks come one by one, and a live one must not be fenced again and again.
const ONCE_IN: Duration = Duration::from_secs(60);
/// How long the group's members, once listed, are believed; and how long a list that nobody got is not asked for again.
const MEMBERS_FOR: Duration = Duration::from_secs(1);

/// The owners that were ended lately.
#[derive(Debug, Default)]
pub struct Fences(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ended: BTreeMap<String, Instant>,
    /// The ids of the group's members; `None` when they are not known.
    members: Option<(Instant, Option<Vec<String>>)>,
}

impl Fences {
    /// Ends the open transaction of a former owner, if it is another process of this app and the group does not have it. What
    /// fails is not needed: the broker ends the transaction by itself, later.
    pub fn end(&self, shared: &Shared, client: &BaseConsumer<Quiet>, owner: &str) {
        if !is_of_another_process(owner, &shared.config.app.id, &shared.identity) {
            return;
        }
        let is_gone = self.members(shared, client).is_some_and(|members| {
            let has = |instance: &str| members.iter().any(|member| is_member_id_of(member, instance));
            // A list without ourselves is not the group's: a coordinator that has just taken over knows nobody yet.
            is_listed(&members, &shared.config.app.id, &shared.identity) && !has(owner)
        });
        // Not held while Kafka is asked: a second thread that wants the same owner ended goes on, and waits for its records.
        if !is_gone || !self.is_mine_to_end(owner) {
            return;
        }
        let now = Instant::now();
        let (timeout, largest) = (shared.config.stream.transaction_timeout.0, shared.config.max_record_bytes());
        match LaneProducer::connect(&shared.base, owner, timeout, largest, super::changelog::FEW) {
            Ok(_) => {
                shared.metrics.rebalances.fences.inc();
                info!(owner, milliseconds = now.elapsed().as_millis() as u64, "the former owner is gone: what it left open is ended");
            }
            Err(error) => warn!(owner, %error, "what the former owner left open could not be ended; it times out"),
        }
    }
}

impl Fences {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody has ended this owner lately; then it is for the caller to do.
    fn is_mine_to_end(&self, owner: &str) -> bool {
        let (mut known, now) = (self.known(), Instant::now());
        known.ended.retain(|_, at| now.duration_since(*at) < ONCE_IN);
        if known.ended.contains_key(owner) {
            return false;
        }
        known.ended.insert(owner.to_owned(), now);
        true
    }

    /// The ids of the group's members; a member's `group.instance.id` is its transactional id.
    fn members(&self, shared: &Shared, client: &BaseConsumer<Quiet>) -> Option<Vec<String>> {
        if let Some((at, members)) = &self.known().members
            && at.elapsed() < MEMBERS_FOR
        {
            return members.clone();
        }
        let group = &shared.config.app.id;
        let listed = client.fetch_group_list(Some(group), Duration::from_secs(5));
        let listed = listed
            .inspect_err(|error| debug!(%error, "the group's members cannot be listed: a former owner's transaction may have to time out"));
        let members = listed.ok().map(|listed| {
            let members = listed.groups().iter().filter(|g| g.name() == group).flat_map(|g| g.members());
            members.map(|m| m.id().to_owned()).collect::<Vec<String>>()
        });
        self.known().members = Some((Instant::now(), members.clone()));
        members
    }
}

/// Whether a lane of this process is among the members.
fn is_listed(members: &[String], app: &str, identity: &str) -> bool {
    let lanes = format!("{app}-{identity}-");
    let lane = |member: &String| member.strip_prefix(&lanes).and_then(|rest| rest.split_once('-')).map(|(lane, _)| lane.to_owned());
    members.iter().any(|member| lane(member).is_some_and(|lane| is_member_id_of(member, &format!("{lanes}{lane}"))))
}

/// The broker makes a static member's id from its `group.instance.id`, a dash and a UUID.
pub fn is_member_id_of(member: &str, owner: &str) -> bool {
    const UUID: usize = 36;
    member.strip_prefix(owner).is_some_and(|rest| rest.starts_with('-') && rest.len() == 1 + UUID)
}

fn is_of_another_process(owner: &str, app: &str, identity: &str) -> bool {
    let rest = owner.strip_prefix(app).and_then(|rest| rest.strip_prefix('-'));
    let whose = rest.and_then(|rest| rest.rsplit_once('-'));
    whose.is_some_and(|(whose, lane)| whose != identity && !lane.is_empty() && lane.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lanes_of_other_processes_of_this_app_are_ended() {
        let other = |owner| is_of_another_process(owner, "tripline", "pod-1");
        assert!(other("tripline-pod-2-0") && other("tripline-pod-11-3"));
        assert!(!other("tripline-pod-1-0"), "a lane of this process");
        assert!(!other("triplines-pod-2-0") && !other("other-pod-2-0"), "another app");
        assert!(!other("state adopt") && !other("tripline-dlq-redrive") && !other(""));
    }

    #[test]
    fn a_member_is_known_by_its_instance_id() {
        let member = "tripline-pod-2-0-01234567-89ab-cdef-0123-456789abcdef";
        assert!(is_member_id_of(member, "tripline-pod-2-0"));
        assert!(!is_member_id_of(member, "tripline-pod-2") && !is_member_id_of(member, "tripline-pod-2-01"));
        let members = [member.to_owned()];
        assert!(
            is_listed(&members, "tripline", "pod-2") && !is_listed(&members, "tripline", "pod") && !is_listed(&[], "tripline", "pod-2")
        );
    }
}
