//! `tripline state adopt|list|get|repartition|verify`: what tasks remember, and where they stand.
//!
//! All but `adopt` and `repartition` only look. They take the state folder's lock while they look into it, so that nobody writes meanwhile, and
//! open stores read-only.

mod adopt;
mod adoption;
mod fold;
mod get;
mod group;
mod list;
mod readable;
mod repartition;
mod verify;

use super::{Failure, code, print};
use crate::config::Config;
use crate::stream::group::Found;
use adoption::OffsetChoice;
use tripline_core::protocol::start::{Marker, Metadata};

/// What to do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum StateCommand {
    /// Take the changelog's word for a task that does not start; every worker of the group must be stopped
    Adopt(AdoptArgs),
    /// Move the app to more partitions with its state; every worker of the group must be stopped
    Repartition(repartition::RepartitionArgs),
    /// Where each task stands: the group's offset, the changelog, this machine's store, and how it would start
    List(ListArgs),
    /// What is remembered of an entity
    Get(GetArgs),
    /// Compare this machine's stores with the changelog; its worker must be stopped
    Verify(VerifyArgs),
}

/// Which task, and where it reads on.
#[derive(Debug, Clone, clap::Args)]
pub struct AdoptArgs {
    /// Partition of the topic
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: i32,
    /// Topic of the task [default: the keyed topic]
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Where to read on, with the marker's state [default: the marker's next offset]
    #[arg(long, value_name = "N|earliest|latest")]
    pub offset: Option<OffsetChoice>,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Of `state list`.
#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: super::Output,
}

/// Of `state get`.
#[derive(Debug, Clone, clap::Args)]
pub struct GetArgs {
    /// Kind and id, as records are keyed: `user:u1`, `ip:203.0.113.9`, `anon`
    #[arg(value_name = "ENTITY")]
    pub entity: String,
    /// Read the changelog, even if this machine has a store
    #[arg(long)]
    pub changelog: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: super::Output,
}

/// Of `state verify`.
#[derive(Debug, Clone, clap::Args)]
pub struct VerifyArgs {
    /// Only this partition [default: every store in state.dir]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Name entities that differ, instead of a digest of each: they are personal
    #[arg(long)]
    pub show_entities: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: super::Output,
}

/// Runs the verb.
pub fn run(command: &StateCommand, config: &Config) -> Result<u8, Failure> {
    match command {
        StateCommand::Adopt(args) => adopt::run(args, config),
        StateCommand::Repartition(args) => repartition::run(args, config),
        StateCommand::List(args) => list::run(args, config),
        StateCommand::Get(args) => get::run(args, config),
        StateCommand::Verify(args) => verify::run(args, config),
    }
}

fn refused(why: impl std::fmt::Display) -> Failure {
    Failure::new(code::FINDINGS, why)
}
