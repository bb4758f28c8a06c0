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
use rdkafka::error::KafkaResult;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// One owner is ended at most once in this time: its tasks come one by one, and a live one must not be fenced again and again.
const ONCE_IN: Duration = Duration::from_secs(60);
/// How long the group's members, once listed, are believed.
const MEMBERS_FOR: Duration = Duration::from_secs(1);

/// The owners that were ended lately.
#[derive(Debug, Default)]
pub struct Fences(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ended: BTreeMap<String, Instant>,
    members: Option<(Instant, Vec<String>)>,
}

impl Fences {
    /// Ends the open transaction of a former owner, if it is another process of this app and the group does not have it. What
    /// fails is not needed: the broker ends the transaction by itself, later.
    pub fn end(&self, shared: &Shared, client: &BaseConsumer<Quiet>, owner: &str) {
        if !is_of_another_process(owner, &shared.config.app.id, &shared.identity) {
            return;
        }
        // Held throughout: a second thread that wants the same owner ended waits until it is.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        known.ended.retain(|_, at| now.duration_since(*at) < ONCE_IN);
        if known.ended.contains_key(owner) {
            return;
        }
        match known.has(owner, shared, client) {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => {
                debug!(%error, "the group's members cannot be listed: the former owner's transaction may have to time out");
                return;
            }
        }
        known.ended.insert(owner.to_owned(), now);
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

impl Known {
    /// Whether the group has a member with this transactional id, which is its `group.instance.id`, too.
    fn has(&mut self, owner: &str, shared: &Shared, client: &BaseConsumer<Quiet>) -> KafkaResult<bool> {
        if self.members.as_ref().is_none_or(|(at, _)| at.elapsed() > MEMBERS_FOR) {
            let group = &shared.config.app.id;
            let listed = client.fetch_group_list(Some(group), Duration::from_secs(5))?;
            let members = listed.groups().iter().filter(|g| g.name() == group).flat_map(|g| g.members());
            self.members = Some((Instant::now(), members.map(|m| m.id().to_owned()).collect()));
        }
        Ok(self.members.iter().flat_map(|(_, members)| members).any(|member| is_member_id_of(member, owner)))
    }
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
    }
}
