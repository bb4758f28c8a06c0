//! Who goes on and who begins: decided from the group's offsets, without a broker.

use crate::stream::group::Found;
use tripline_core::protocol::CommitId;
use tripline_core::protocol::start::{LAYOUT, Metadata};

/// What stands as the owner in metadata written by this verb.
const OWNER: &str = "state repartition";

/// Why nothing is moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No task ever committed.
    #[error("group {group} has committed nothing: there is no state to move; make {topic} anew with the partitions you want")]
    NothingCommitted {
        /// `app.id`.
        group: String,
        /// The keyed topic.
        topic: String,
    },
    /// Kafka takes no partition away.
    #[error("the state was written for {written} partitions: --to has to be more than that, not {to}")]
    NotGrowth {
        /// Now.
        written: i32,
        /// Asked for.
        to: i32,
    },
    /// A topic that is larger already.
    #[error("{topic} has {has} partitions already: --to cannot be less than that")]
    Larger {
        /// The topic.
        topic: String,
        /// What it has.
        has: i32,
    },
    /// A partition without metadata of ours, beside others that have it.
    #[error(
        "the group's offset of {topic}/{partition} is missing or is not ours: start the workers until every task runs, or look at `tripline state adopt`"
    )]
    Unknown {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: i32,
    },
    /// A newer version has run.
    #[error("the group's offset of {topic}/{partition} was written in layout {layout}: move with the version that wrote it")]
    Newer {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// How the offset's metadata is written.
        layout: u64,
    },
    /// Tasks of one group for different numbers of partitions.
    #[error("{topic}/{partition} was written for {found} partitions, others for {written}: a worker ran with another number")]
    Uneven {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// What the others have.
        written: i32,
        /// What this one has.
        found: i32,
    },
}

/// One partition of an input topic that is only routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// The topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// What the group has for it; `None` when it was never read.
    pub committed: Option<(i64, Metadata)>,
}

impl Router {
    /// For how many partitions of the keyed topic its newest marker was written: by that it is found.
    pub fn was(&self, tasks: i32) -> i32 {
        self.committed.as_ref().map_or(tasks, |(_, metadata)| metadata.partitions)
    }
}

/// What is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Partitions for which the states were written.
    pub from: i32,
    /// Partitions afterwards.
    pub to: i32,
    /// What the group has for each of the tasks to come; `None` for one that begins.
    pub tasks: Vec<Option<(i64, Metadata)>>,
    /// The router partitions; none in keyed mode.
    pub routers: Vec<Router>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is written for as many partitions already.
    Done,
    /// This.
    Move(Plan),
}

impl Plan {
    /// Decides. `tasks` is what the group has for the partitions of the keyed topic, `routers` what it has for those of the other inputs.
    pub fn decide(group: &str, topic: &str, tasks: &[Found], routers: &[(String, i32, Found)], to: i32) -> Result<Verdict, Refusal> {
        let known = |name: &str, partition: i32, found: &Found| match found {
            Found::Ours(offset, metadata) => Ok(Some((*offset, metadata.clone()))),
            Found::Nothing => Ok(None),
            Found::Newer(_, layout) => Err(Refusal::Newer { topic: name.to_owned(), partition, layout: *layout }),
            Found::Foreign(_) => Err(Refusal::Unknown { topic: name.to_owned(), partition }),
        };
        let Some(written) = tasks.first().and_then(Found::metadata).map(|metadata| metadata.partitions) else {
            let any = tasks.iter().any(|found| *found != Found::Nothing);
            tasks.first().map(|first| known(topic, 0, first)).transpose()?;
            return Err(if any {
                Refusal::Unknown { topic: topic.to_owned(), partition: 0 }
            } else {
                Refusal::NothingCommitted { group: group.to_owned(), topic: topic.to_owned() }
            });
        };
        if to < written || (to == written && tasks.len() as i32 > to) {
            return Err(Refusal::NotGrowth { written, to });
        }
        if tasks.len() as i32 > to {
            return Err(Refusal::Larger { topic: topic.to_owned(), has: tasks.len() as i32 });
        }
        let mut lives = Vec::new();
        for (partition, found) in (0..).zip(tasks) {
            let life = known(topic, partition, found)?;
            if let Some((_, Metadata { partitions, .. })) = &life
                && *partitions != written
            {
                return Err(Refusal::Uneven { topic: topic.to_owned(), partition, written, found: *partitions });
            }
            if life.is_none() && partition < written {
                return Err(Refusal::Unknown { topic: topic.to_owned(), partition });
            }
            lives.push(life);
        }
        // A router has no keys that could have moved, and its topic may have been none of the app's while the app grew before.
        let routers = routers
            .iter()
            .map(|(topic, partition, found)| {
                let committed = known(topic, *partition, found)?;
                Ok(Router { topic: topic.clone(), partition: *partition, committed })
            })
            .collect::<Result<Vec<_>, Refusal>>()?;
        if to == written {
            return Ok(Verdict::Done);
        }
        lives.resize(to as usize, None);
        Ok(Verdict::Move(Plan { from: written, to, tasks: lives, routers }))
    }

    /// The life that a task goes on with. One beyond the old number begins anew also when a worker had begun it after the topic grew:
    /// it has no state, and its markers stand where they are not looked for any more.
    pub fn life(&self, partition: i32) -> Option<&Metadata> {
        let committed = self.tasks.get(usize::try_from(partition).ok()?)?;
        committed.as_ref().map(|(_, metadata)| metadata).filter(|_| partition < self.from)
    }

    /// The next offset that the group has for a task.
    pub fn offset(&self, partition: i32) -> Option<i64> {
        self.tasks.get(usize::try_from(partition).ok()?)?.as_ref().map(|(offset, _)| *offset)
    }

    /// The tasks from which a task takes over states: a key of one of them may be a key of it.
    pub fn sources_of(&self, partition: i32) -> impl Iterator<Item = i32> {
        let step = divisor(self.from, self.to);
        (partition.rem_euclid(step)..self.from).step_by(step as usize)
    }
}

/// The greatest common divisor of two positive numbers.
fn divisor(a: i32, b: i32) -> i32 {
    if b == 0 { a.max(1) } else { divisor(b, a % b) }
}

/// The metadata of the move's commit: the next of a life that goes on, or the first.
pub fn next(life: Option<&Metadata>, commit: CommitId, partitions: i32, fingerprint: Option<String>) -> Metadata {
    Metadata {
        v: LAYOUT,
        history: life.map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), |m| m.history.clone()),
        seq: life.map_or(0, |m| m.seq + 1),
        commit_id: commit.to_hex(),
        owner: OWNER.to_owned(),
        partitions,
        fingerprint: fingerprint.or_else(|| life.map(|m| m.fingerprint.clone())).unwrap_or_default(),
        topic_id: life.and_then(|m| m.topic_id.clone()),
        changelog_low: life.map_or(0, |m| m.changelog_low),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::partition::murmur2_partition;
    use proptest::prelude::*;

    fn ours(partitions: i32) -> Found {
        Found::Ours(7, Metadata { partitions, ..next(None, CommitId(1), partitions, None) })
    }

    fn plan(tasks: &[Found], routers: &[Found], to: i32) -> Result<Verdict, Refusal> {
        let routers: Vec<_> = routers.iter().map(|found| ("in".to_owned(), 0, found.clone())).collect();
        Plan::decide("g", "t", tasks, &routers, to)
    }

    #[test]
    fn old_tasks_go_on_and_new_ones_begin() {
        let Ok(Verdict::Move(plan)) = plan(&[ours(2), ours(2)], &[ours(2), Found::Nothing], 5) else { panic!("a plan") };
        assert_eq!((plan.from, plan.to, plan.routers.len()), (2, 5, 2));
        assert_eq!(plan.tasks.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, false, false]);
        let (_, before) = plan.tasks[0].clone().expect("goes on");
        let before = Metadata { changelog_low: 3, ..before };
        let after = next(Some(&before), CommitId(9), 5, None);
        assert_eq!((after.seq, &after.history, after.partitions), (before.seq + 1, &before.history, 5));
        let first = next(None, CommitId(9), 5, None);
        assert_eq!((first.seq, first.history.len()), (0, 32));
        assert_eq!((after.changelog_low, first.changelog_low), (3, 0), "what was accepted stays so");
    }

    #[test]
    fn a_topic_that_grew_under_running_workers_or_before_a_kill_is_planned_all_the_same() {
        let Ok(Verdict::Move(plan)) = plan(&[ours(2), ours(2), ours(2), Found::Nothing], &[], 4) else { panic!("a plan") };
        let goes_on: Vec<bool> = (0..4).map(|partition| plan.life(partition).is_some()).collect();
        assert_eq!((goes_on, plan.offset(2), plan.offset(3)), (vec![true, true, false, false], Some(7), None));
    }

    #[test]
    fn what_is_written_for_as_many_is_done() {
        assert_eq!(plan(&[ours(2), ours(2)], &[ours(2)], 2), Ok(Verdict::Done));
    }

    #[test]
    fn a_router_that_was_away_while_the_app_grew_goes_on_from_where_it_was() {
        for away_since in [1, 2, 8] {
            let Ok(Verdict::Move(plan)) = plan(&[ours(4), ours(4), ours(4), ours(4)], &[ours(away_since), ours(4)], 8) else {
                panic!("a plan")
            };
            let was = plan.routers.iter().map(|router| router.was(plan.from)).collect::<Vec<_>>();
            assert_eq!(was, [away_since, 4]);
        }
    }

    #[test]
    fn fewer_unknown_uneven_and_empty_are_refused_by_name() {
        assert_eq!(plan(&[ours(4), ours(4)], &[], 2), Err(Refusal::NotGrowth { written: 4, to: 2 }));
        assert_eq!(plan(&[ours(2), ours(2), Found::Nothing, Found::Nothing], &[], 3), Err(Refusal::Larger { topic: "t".into(), has: 4 }));
        assert_eq!(plan(&[ours(2), ours(2), Found::Nothing], &[], 2), Err(Refusal::NotGrowth { written: 2, to: 2 }));
        let unknown = |topic: &str, partition| Err(Refusal::Unknown { topic: topic.into(), partition });
        assert_eq!(plan(&[ours(2), Found::Nothing], &[], 4), unknown("t", 1));
        assert_eq!(plan(&[Found::Foreign(3), ours(2)], &[], 4), unknown("t", 0));
        let newer = |partition| Err(Refusal::Newer { topic: "t".into(), partition, layout: 2 });
        assert_eq!((plan(&[Found::Newer(3, 2)], &[], 4), plan(&[ours(2), Found::Newer(3, 2)], &[], 4)), (newer(0), newer(1)));
        assert_eq!(plan(&[ours(2), ours(2), Found::Foreign(3)], &[], 4), unknown("t", 2));
        assert_eq!(plan(&[ours(2), ours(2)], &[Found::Foreign(3)], 4), unknown("in", 0));
        let uneven = |topic: &str, partition| Err(Refusal::Uneven { topic: topic.into(), partition, written: 2, found: 4 });
        assert_eq!(plan(&[ours(2), ours(4)], &[], 4), uneven("t", 1));
        assert!(matches!(plan(&[Found::Nothing, Found::Nothing], &[], 4), Err(Refusal::NothingCommitted { .. })));
    }

    proptest! {
        /// Time is taken from every task that a key can come from.
        #[test]
        fn a_key_comes_from_one_of_the_tasks_that_are_asked(key in "[a-z]{1,9}", from in 1..40i32, more in 1..40i32) {
            let to = from + more;
            let plan = Plan { from, to, tasks: Vec::new(), routers: Vec::new() };
            let (was, is) = (murmur2_partition(key.as_bytes(), from), murmur2_partition(key.as_bytes(), to));
            prop_assert!(plan.sources_of(is).any(|source| source == was));
        }
    }

    #[test]
    fn a_multiple_takes_over_from_one_task_each() {
        let plan = Plan { from: 4, to: 16, tasks: Vec::new(), routers: Vec::new() };
        assert_eq!(plan.sources_of(13).collect::<Vec<_>>(), [1]);
        let uneven = Plan { from: 4, to: 6, ..plan };
        assert_eq!(uneven.sources_of(5).collect::<Vec<_>>(), [1, 3]);
    }
}
