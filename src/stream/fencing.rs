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
    /// The instances in the group; `None` when they are not known.
    members: Option<(Instant, Option<Vec<String>>)>,
}

impl Fences {
    /// Ends the open transaction of a former owner, if it is another process of this app and the group does not have it. What
    /// fails is not needed: the broker ends the transaction by itself, later.
    pub fn end(&self, shared: &Shared, client: &BaseConsumer<Quiet>, owner: &str) {
        let is_ours = |instance: &str| identity_of(instance, &shared.config.app.id) == Some(&shared.identity);
        if identity_of(owner, &shared.config.app.id).is_none() || is_ours(owner) {
            return;
        }
        let is_gone = self.members(shared, client).is_some_and(|members| {
            // A list without ourselves is not the group's: a coordinator that has just taken over knows nobody yet.
            members.iter().any(|member| is_ours(member)) && !members.iter().any(|member| member == owner)
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

    /// The instances in the group: a lane's `group.instance.id` is its transactional id.
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
            members.filter_map(|m| instance_of(m.id()).map(str::to_owned)).collect::<Vec<String>>()
        });
        self.known().members = Some((Instant::now(), members.clone()));
        members
    }
}

/// The `group.instance.id` of a static member, whose id the broker makes of it, a dash and a UUID.
pub fn instance_of(member: &str) -> Option<&str> {
    const DASH_AND_UUID: usize = 37;
    let (instance, rest) = member.split_at_checked(member.len().checked_sub(DASH_AND_UUID)?)?;
    rest.starts_with('-').then_some(instance)
}

/// The process whose lane has this transactional id, if it is one of this app's.
fn identity_of<'i>(instance: &'i str, app: &str) -> Option<&'i str> {
    let (identity, lane) = instance.strip_prefix(app)?.strip_prefix('-')?.rsplit_once('-')?;
    (!lane.is_empty() && lane.bytes().all(|byte| byte.is_ascii_digit())).then_some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lanes_of_this_app_have_an_identity() {
        let of = |owner| identity_of(owner, "tripline");
        assert_eq!((of("tripline-pod-2-0"), of("tripline-pod-11-3")), (Some("pod-2"), Some("pod-11")));
        assert_eq!((of("triplines-pod-2-0"), of("other-pod-2-0")), (None, None), "another app");
        assert_eq!([of("state adopt"), of("tripline-dlq-redrive"), of("tripline-1"), of("tripline-pod-"), of("")], [None; 5]);
    }

    #[test]
    fn a_member_is_known_by_its_instance_id() {
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(instance_of(&format!("tripline-pod-2-0-{uuid}")), Some("tripline-pod-2-0"));
        assert_eq!((instance_of(uuid), instance_of(""), instance_of(&format!("tripline_{uuid}"))), (None, None, None));
    }
}
