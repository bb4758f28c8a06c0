//! `tripline acls print`: the least rights that Tripline needs on a cluster with an authorizer, in the words of whatever sets them.

mod write;

use super::{Failure, print};
use crate::config::Config;
use crate::stream::Role;
use crate::stream::access::rights::{Purpose, needed};
use clap::ValueEnum;

/// What to do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum AclsCommand {
    /// Print the rights that are needed, and nothing more than those
    Print(PrintArgs),
}

/// For whom, for what and how.
#[derive(Debug, Clone, clap::Args)]
pub struct PrintArgs {
    /// Who gets the rights [default: User: and sasl.username, or app.id where there is none]
    #[arg(long, value_name = "TYPE:NAME", value_parser = principal)]
    pub principal: Option<String>,
    /// Roles of the worker, comma separated; all when left out
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLE")]
    pub roles: Vec<Role>,
    /// What the rights are for, comma separated
    #[arg(long = "for", value_enum, value_delimiter = ',', value_name = "PURPOSE", default_value = "run")]
    pub purposes: Vec<Purpose>,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// How rights are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: with what each is for
    #[default]
    Text,
    /// Lines of kafka-acls.sh, for a shell
    Commands,
    /// A KafkaUser of the Strimzi operator
    Strimzi,
    /// One JSON object
    Json,
}

fn principal(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err("write a type and a name, as in `User:tripline`".to_owned()),
    }
}

/// Runs the verb; no broker is asked.
pub fn run(command: &AclsCommand, config: &Config) -> Result<u8, Failure> {
    let AclsCommand::Print(args) = command;
    let user = || config.kafka.properties.get("sasl.username").unwrap_or(&config.app.id);
    let principal = args.principal.clone().unwrap_or_else(|| format!("User:{}", user()));
    let roles = if args.roles.is_empty() { Role::value_variants() } else { &args.roles };
    let rights = needed(config, &args.purposes, roles);
    let text = match args.output {
        Output::Text => write::text(&principal, &rights),
        Output::Commands => write::commands(&principal, &rights, &config.kafka.bootstrap_servers),
        Output::Strimzi => write::strimzi(&principal, &rights).map_err(Failure::usage)?,
        Output::Json => format!("{:#}\n", write::json(&principal, &rights)),
    };
    print(&text)
}
