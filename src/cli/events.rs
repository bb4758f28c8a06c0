//! `tripline events list|show|resolve|note`: the analyst's side of the event store.

mod draw;

use super::draw::{clean, columns};
use crate::config::Config;
use crate::sink::Location;
use crate::sink::review::{Change, Filter, ReviewError, Status, StoredEvent};
use crate::sink::store::{EventStore, Opening};
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use tripline_core::time::{format_rfc3339_ms, parse_duration_ms, parse_rfc3339_ms};

/// Look at decided events and say what became of them.
#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List events, the newest first.
    List {
        /// Only events of this status.
        #[arg(long)]
        status: Option<Status>,
        /// Only events of this severity.
        #[arg(long, value_parser = ["low", "medium", "high", "critical"])]
        severity: Option<String>,
        /// Only this anomaly type.
        #[arg(long = "type", value_name = "TYPE")]
        anomaly_type: Option<String>,
        /// Only events of this user.
        #[arg(long)]
        user: Option<String>,
        /// Only events from this address.
        #[arg(long)]
        ip: Option<String>,
        /// Only events since then: a length of time before now (`24h`, `7d`) or an RFC 3339 time.
        #[arg(long)]
        since: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// How to write them.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show one event with its receipt, as a chart, and its notes.
    Show {
        /// Its id, or at least the first 8 characters.
        id: String,
        /// How to write it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Set the status of events, all of them or none.
    Resolve {
        /// Their ids, or at least the first 8 characters of each.
        #[arg(required = true)]
        ids: Vec<String>,
        /// The status to set.
        #[arg(long, default_value = "resolved")]
        status: Status,
        /// Why.
        #[arg(long, default_value = "")]
        note: String,
        #[command(flatten)]
        author: Author,
    },
    /// Add a note to an event.
    Note {
        /// Its id, or at least the first 8 characters.
        id: String,
        /// The note.
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        text: String,
        #[command(flatten)]
        author: Author,
    },
}

#[derive(Debug, Args)]
struct Author {
    /// Who says so.
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, default_value = "unknown")]
    by: String,
}

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON value.
    Json,
    /// One JSON object per line.
    Ndjson,
}

/// Runs the verb; the answer is the exit code. Call it outside of a tokio runtime: it brings its own.
///
/// A [`crate::sink::StoreError`] inside the error knows its exit code ([`crate::sink::StoreError::exit_code`]).
pub fn run(args: EventsArgs, config: &Config) -> anyhow::Result<u8> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    // stderr is not locked: the log goes there too, and the database's thread may have something to say while we wait for it.
    let done = execute(args.command, &config.sink.url, now_ms, columns(), &mut std::io::stdout().lock(), &mut std::io::stderr());
    match done {
        // The reader of our pipe has seen enough (`| head`).
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => Ok(0),
        done => done,
    }
}

fn execute(command: Command, url: &str, now_ms: i64, columns: usize, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<u8> {
    let location = Location::parse(url)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("could not start the runtime of the event store")?;
    runtime.block_on(async {
        // Arguments are checked first: a wrong one must not depend on what stands in the store.
        let since = match &command {
            Command::List { since: Some(text), .. } => match since(text, now_ms) {
                Some(since) => Some(since),
                None => {
                    writeln!(err, "error: `{text}` is not a time: write --since 24h, or --since 2026-01-31T12:00:00Z")?;
                    return Ok(2);
                }
            },
            _ => None,
        };
        let mut store = EventStore::open(&location, Opening::Existing).await?;
        let answer = match answer(command, since, &mut store, now_ms, columns, out, err).await {
            Ok(()) => Ok(0),
            Err(error) => match error.downcast::<ReviewError>() {
                Ok(ReviewError::Store(error)) => Err(error.into()),
                Ok(finding) => {
                    writeln!(err, "error: {finding}")?;
                    Ok(1)
                }
                Err(error) => Err(error),
            },
        };
        store.close().await?;
        answer
    })
}

async fn answer(
    command: Command,
    since: Option<String>,
    store: &mut EventStore,
    now_ms: i64,
    columns: usize,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<()> {
    match command {
        Command::List { status, severity, anomaly_type, user, ip, since: _, limit, output } => {
            let filter = Filter { status, severity, anomaly_type, user_id: user, ip_address: ip, since };
            let events = store.list(&filter, limit).await?;
            write_list(&events, output, out)?;
            if output == Output::Table && events.len() == limit as usize {
                writeln!(err, "the newest {limit}; there may be more: --limit")?;
            }
        }
        Command::Show { id, output } => {
            let event = store.find(&id).await?;
            let notes = store.notes(&event.row.id).await?;
            match output {
                Output::Table => draw::event(&event, &notes, columns, out)?,
                Output::Json | Output::Ndjson => {
                    let mut value = serde_json::to_value(&event)?;
                    value["history"] = serde_json::to_value(&notes)?;
                    write_json(&value, output, out)?;
                }
            }
        }
        Command::Resolve { ids, status, note, author } => {
            let mut events: Vec<(String, i64)> = Vec::with_capacity(ids.len());
            for id in &ids {
                let event = store.find(id).await?;
                if !events.iter().any(|(known, _)| *known == event.row.id) {
                    events.push((event.row.id, event.version));
                }
            }
            store.change(&events, &Change { status: Some(status), note, by: author.by, at: format_rfc3339_ms(now_ms) }).await?;
            for (id, _) in &events {
                writeln!(out, "{} {}", clean(id), status.name())?;
            }
        }
        Command::Note { id, text, author } => {
            let event = store.find(&id).await?;
            let change = Change { status: None, note: text, by: author.by, at: format_rfc3339_ms(now_ms) };
            store.change(&[(event.row.id.clone(), event.version)], &change).await?;
            writeln!(out, "{} noted", clean(&event.row.id))?;
        }
    }
    Ok(())
}

/// The start of the listed time, as the table spells it.
fn since(text: &str, now_ms: i64) -> Option<String> {
    since_ms(text, now_ms).map(format_rfc3339_ms)
}

/// `24h` before now, or an RFC 3339 time, in milliseconds.
pub(super) fn since_ms(text: &str, now_ms: i64) -> Option<i64> {
    parse_duration_ms(text).map(|ms| now_ms.saturating_sub(ms)).or_else(|| parse_rfc3339_ms(text))
}

fn write_list(events: &[StoredEvent], output: Output, out: &mut dyn Write) -> anyhow::Result<()> {
    match output {
        Output::Table => Ok(draw::table(events, out)?),
        Output::Json => write_json(&json!(events), output, out),
        Output::Ndjson => events.iter().try_for_each(|event| write_json(&serde_json::to_value(event)?, output, out)),
    }
}

fn write_json(value: &Value, output: Output, out: &mut dyn Write) -> anyhow::Result<()> {
    let text = if output == Output::Json { serde_json::to_string_pretty(value)? } else { value.to_string() };
    Ok(writeln!(out, "{text}")?)
}

#[cfg(test)]
mod tests;
