//! `tripline config`: the settings in force, and their schema.

use super::{Failure, Global, print};
use crate::config::reference;
use clap::Subcommand;

/// What to show.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// The settings in force as TOML; secrets are shown as ***
    Show {
        /// Say where each value was set
        #[arg(long)]
        origin: bool,
        /// toml or json
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// JSON Schema of a settings file
    Schema,
}

/// How settings are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A settings file
    #[default]
    Toml,
    /// One JSON object
    Json,
}

/// Shows it.
pub fn run(command: &ConfigCommand, global: &Global) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Schema => print(&format!("{:#}\n", reference::schema())),
        ConfigCommand::Show { origin: true, output: Format::Json } => Err(Failure::usage("--origin goes with -o toml only")),
        ConfigCommand::Show { output: Format::Json, .. } => print(&format!("{:#}\n", global.load()?.shown())),
        ConfigCommand::Show { origin, output: Format::Toml } => print(&global.load()?.render(*origin)),
    }
}
