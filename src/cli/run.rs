//! `tripline run`: the worker.

use super::{Failure, code};
use crate::config::Loaded;
use crate::live::Live;
use crate::stream::{self, Role, failpoints};
use clap::{Args, ValueEnum};

/// Which roles to run.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Roles of this process, comma separated; all when left out
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLE")]
    pub roles: Vec<Role>,
}

/// Runs until a signal comes or a role cannot go on.
pub fn run(args: &RunArgs, loaded: Loaded) -> Result<u8, Failure> {
    let mut roles = if args.roles.is_empty() { Role::value_variants().to_vec() } else { args.roles.clone() };
    roles.sort_by_key(|role| *role as u8);
    roles.dedup();
    failpoints::arm(std::env::var("TRIPLINE_FAILPOINTS").ok().as_deref()).map_err(|problem| Failure::new(code::USAGE, problem))?;
    let live = Live::start(&loaded.config).map_err(|problems| Failure::invalid(&problems))?;
    stream::run(loaded.config, live, &roles).map(|()| code::OK).map_err(|error| Failure::new(error.exit_code(), chain(&error)))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
