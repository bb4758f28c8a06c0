//! `tripline state adopt`: takes the changelog's word for a task whose offset, metadata and changelog disagree.
//!
//! It writes one thing: the group's offset of the task's partition, with the metadata of the newest marker. The ordinary
//! restore finds that marker at the next start and rebuilds the state up to it.

use super::adoption::Adoption;
use super::group::{Group, Task};
use super::{AdoptArgs, Failure, print, refused};
use crate::config::Config;

/// Runs the verb.
pub(super) fn run(args: &AdoptArgs, config: &Config) -> Result<u8, Failure> {
    let task = Task::new(args.topic.clone(), args.partition, config)?;
    let group = Group::connect(config)?;
    let tasks = group.check_partitions(&task)?;
    group.check_empty()?;
    let found = group.offset_of(&task)?;
    let marker = group.newest_marker(&task, tasks)?;
    let ends = group.ends(&task.topic, task.partition)?;
    let (changelog_low, _) = group.changelog(&task)?;
    let marker = marker.as_ref().map(|(marker, _)| marker.as_slice());
    let adoption = Adoption::new(marker, (tasks, task.is_router), args.offset, ends, changelog_low);
    let adoption = adoption.map_err(|why| refused(format!("{task}: {why}")))?;
    let mut text = adoption.describe(&task.to_string(), &config.app.id, &found);
    if args.dry_run {
        text.push_str("nothing written: dry run\n");
        return print(&text);
    }
    group.commit(&task, &adoption)?;
    text.push_str("written: the next start restores the task up to its marker\n");
    print(&text)
}
