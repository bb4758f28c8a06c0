//! The command line: one file per verb. Data on stdout, logs and progress on stderr.
//!
//! [`main`] reads the arguments, [`dispatch`] is the table of verbs, and a verb answers with an exit code or a
//! [`Failure`]. `docs/cli.md` has the contract.

pub mod acls;
pub mod audit;
pub mod check;
pub mod config;
pub mod dlq;
mod draw;
pub mod events;
pub mod explain;
mod failure;
pub mod flags;
pub mod generate;
mod lint;
pub mod replay;
pub mod run;
pub mod state;
pub mod test;
#[cfg(test)]
mod tests;
pub mod topics;

pub use failure::{Failure, code};

use crate::config::{Loaded, Sources, load};
use crate::telemetry::log;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

const EXIT_CODES: &str = "Exit codes:
  0  ok
  1  findings, or the verb failed
  2  wrong usage
  3  invalid settings, rules or flags
  4  a dependency cannot be reached

Settings: defaults < --config files < environment (TRIPLINE_SECTION__KEY) < --set section.key=value.";

/// Abuse and anomaly detection on Kafka: windowed counters per actor, flag-gated rules, decisions exactly once.
#[derive(Debug, Parser)]
#[command(name = "tripline", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    /// What holds for every verb
    #[command(flatten)]
    pub global: Global,
    /// The verb
    #[command(subcommand)]
    pub verb: Verb,
}

/// What holds for every verb.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Settings file, TOML or YAML; may be repeated, later ones win
    #[arg(long = "config", global = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One setting; may be repeated, wins over files and environment
    #[arg(id = "set", long = "set", global = true, value_name = "SECTION.KEY=VALUE", value_parser = setting)]
    pub settings: Vec<String>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the worker: every role, or those named
    Run(run::RunArgs),
    /// Check settings, rules and flags: all problems with file, line, column and the way out
    Check(check::CheckArgs),
    /// Run the tests that stand in rule files
    Test(test::TestArgs),
    /// Events as NDJSON in, decisions as NDJSON out, without a broker
    Replay(replay::ReplayArgs),
    /// Why an event of a file fired, or what kept it from firing
    Explain(explain::ExplainArgs),
    /// What flags say
    #[command(subcommand)]
    Flags(flags::FlagsCommand),
    /// The analyst's side of the event store
    Events(events::EventsArgs),
    /// What was dead-lettered, and sending it back
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// The topics that Tripline needs
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    /// The rights that Tripline needs on a cluster with an authorizer
    #[command(subcommand)]
    Acls(acls::AclsCommand),
    /// What tasks remember
    #[command(subcommand)]
    State(state::StateCommand),
    /// Whether commits add up: none lost, torn, repeated or come back
    Audit(audit::AuditArgs),
    /// Make seeded synthetic traffic
    Generate(generate::GenerateArgs),
    /// The settings in force, and their schema
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

fn setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if key.contains('.') => Ok(text.to_owned()),
        _ => Err("write `section.key=value`, as in `stream.lanes=4`".to_owned()),
    }
}

impl Global {
    /// Loads the settings of this process.
    pub fn load(&self) -> Result<Loaded, Failure> {
        load(&Sources::of_process(self.files.clone(), self.settings.clone())).map_err(|problems| Failure::invalid(&problems))
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// JSON
    Json,
}

/// Runs a command line and answers the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if is_help { code::OK } else { code::USAGE };
        }
    };
    dispatch(cli).unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            eprintln!("{}", failure.message.trim_end());
        }
        failure.code
    })
}

/// The table of verbs.
pub fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let global = &cli.global;
    match cli.verb {
        Verb::Run(args) => run::run(&args, ready(global)?),
        Verb::Check(args) => check::run(&args, global),
        Verb::Test(args) => test::run(&args, global),
        Verb::Replay(args) => replay::run(&args, &ready(global)?),
        Verb::Explain(args) => explain::run(&args, &ready(global)?),
        Verb::Flags(command) => flags::run(&command, &ready(global)?),
        Verb::Events(args) => Ok(events::run(args, &ready(global)?.config)?),
        Verb::Dlq(command) => dlq::run(&command, &ready(global)?.config),
        Verb::Topics(command) => Ok(topics::run(&command, &ready(global)?.config)),
        Verb::Acls(command) => acls::run(&command, &ready(global)?.config),
        Verb::State(command) => state::run(&command, &ready(global)?.config),
        Verb::Audit(args) => audit::run(&args, &ready(global)?.config),
        Verb::Generate(args) => Ok(generate::run(&args, &ready(global)?.config).map(|()| code::OK)?),
        Verb::Config(command) => config::run(&command, global),
        Verb::Completions { shell } => completions(shell),
    }
}

/// Settings loaded and the log started.
fn ready(global: &Global) -> Result<Loaded, Failure> {
    let loaded = global.load()?;
    log::init(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

fn completions(shell: Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tripline", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes a result to stdout. A reader that has gone (`| head`) is no failure.
fn print(text: &str) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(code::FINDINGS, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(code::OK),
    }
}
