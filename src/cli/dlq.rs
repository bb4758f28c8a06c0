//! `tripline dlq list|show|redrive`: what was dead-lettered, and sending it back once its cause is gone.

mod list;
mod redrive;
mod show;

use super::events::{Output, since_ms};
use super::{Failure, print};
use crate::config::Config;
use crate::dead_letters::Error;
use crate::dead_letters::index::{Filter, LeftOut, MOST_LETTERS};
use clap::Args;
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use tripline_core::dead_letter::{LetterId, Stage};
use tripline_core::rejection::Reason;
use tripline_core::time::format_rfc3339_ms;

/// What to do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum DlqCommand {
    /// List dead letters, newest last, and count them by reason; never their content
    List(ListArgs),
    /// Show one dead letter, its value masked
    Show(ShowArgs),
    /// Send dead letters back where they came from, each at most once; shows what it would do unless --execute is given
    Redrive(RedriveArgs),
}

/// Which dead letters.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// Only with this reason; may be repeated
    #[arg(long = "reason", value_name = "REASON", value_parser = Reason::ALL.map(Reason::name))]
    pub reasons: Vec<String>,
    /// Only from this source topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only those that this stage refused
    #[arg(long)]
    pub stage: Option<StageName>,
    /// Only those appended since then: a length of time before now (`24h`, `7d`) or an RFC 3339 time
    #[arg(long)]
    pub since: Option<String>,
}

/// [`Stage`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StageName {
    /// The router: the record could not become an event
    Router,
    /// The detector
    Detector,
}

/// Of `dlq list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Which ones
    #[command(flatten)]
    pub which: Which,
    /// Only those with this status
    #[arg(long)]
    pub status: Option<Status>,
    /// At most so many, the newest; the counts are of all that were looked at
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Status {
    /// Not redriven
    Open,
    /// Sent back
    Redriven,
}

/// Of `dlq show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// Where it stands, as `dlq list` names it
    #[arg(value_name = "PARTITION/OFFSET")]
    pub letter: LetterId,
    /// Print the value as it is, unmasked, and nothing else
    #[arg(long, conflicts_with = "output")]
    pub raw: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Of `dlq redrive`.
#[derive(Debug, Clone, Args)]
pub struct RedriveArgs {
    /// These, as `dlq list` names them [default: every open one that the filters let through]
    #[arg(value_name = "PARTITION/OFFSET")]
    pub letters: Vec<LetterId>,
    /// Which ones
    #[command(flatten)]
    pub which: Which,
    /// Send them; without it nothing is written
    #[arg(long)]
    pub execute: bool,
    /// Records a second, at most
    #[arg(long, default_value = "100")]
    pub rate: NonZeroU32,
    /// Send at most so many, the oldest first
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Leave those whose records failed so often, the first time included
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: u32,
    /// How to print what is done
    #[arg(short, long, value_enum, default_value_t)]
    pub output: super::Output,
}

/// Runs the verb.
pub fn run(command: &DlqCommand, config: &Config) -> Result<u8, Failure> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    match command {
        DlqCommand::List(args) => list::run(args, args.which.filter(now_ms, &[])?, config),
        DlqCommand::Show(args) => show::run(args, config),
        DlqCommand::Redrive(args) => redrive::run(args, args.which.filter(now_ms, &args.letters)?, config),
    }
}

impl Which {
    fn filter(&self, now_ms: i64, letters: &[LetterId]) -> Result<Filter, Failure> {
        let since = |text: &String| {
            let problem = || Failure::usage(format!("`{text}` is not a time: write --since 24h, or --since 2026-01-31T12:00:00Z"));
            since_ms(text, now_ms).ok_or_else(problem)
        };
        Ok(Filter {
            ids: letters.iter().copied().collect::<BTreeSet<_>>(),
            reasons: self.reasons.iter().cloned().collect(),
            topic: self.topic.clone(),
            stage: self.stage.map(|stage| match stage {
                StageName::Router => Stage::Router,
                StageName::Detector => Stage::Detector,
            }),
            since_ms: self.since.as_ref().map(since).transpose()?,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(error.exit_code(), error)
    }
}

/// Says what an index could not hold or did not know.
fn remark(index: &crate::dead_letters::index::Index) {
    let LeftOut { count, until_ms } = index.left_out();
    if count > 0 {
        eprintln!(
            "{count} more match and were left out, none newer than {}: {MOST_LETTERS} are looked at, redriven ones leave first, then the oldest; narrow with --reason, --topic or --stage",
            format_rfc3339_ms(until_ms)
        );
    }
    if index.foreign() > 0 {
        eprintln!("{} records are not tripline's and were passed over", index.foreign());
    }
}
