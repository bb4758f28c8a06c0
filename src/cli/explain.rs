//! `tripline explain`: why an event of a file fired, or what kept it from firing.

mod draw;

use super::replay::{With, open, progress, time};
use super::{Failure, code, print};
use crate::cli::draw::{clean, columns};
use crate::config::Loaded;
use crate::live::Live;
use crate::replay::Counts;
use crate::replay::explain::{About, Found, Reading, explain};
use clap::Args;
use serde_json::{Value, json};
use tripline_core::engine::Outcome;
use tripline_core::engine::explain::{Explained, Why};
use tripline_core::time::format_rfc3339_ms;

/// Which event to explain, and with what.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// Events, one JSON object per line; `-` for stdin
    #[arg(long, value_name = "FILE|-")]
    pub input: String,
    /// The event's id; of one without, `file/0/LINE`, counted from 0
    #[arg(long, value_name = "ID")]
    pub event: String,
    /// Only for this entity: `user:u1`
    #[arg(long, value_name = "KIND:ID")]
    pub entity: Option<String>,
    /// With what
    #[command(flatten)]
    pub with: With,
    /// Let time pass up to here after the last line (RFC 3339), for what a rule waits for
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<i64>,
    /// One JSON object per entity, one per line
    #[arg(long)]
    pub json: bool,
}

/// Explains; the answer goes to stdout.
pub fn run(args: &ExplainArgs, loaded: &Loaded) -> Result<u8, Failure> {
    let config = args.with.over(&loaded.config);
    let live = Live::load(&config).map_err(|problems| Failure::invalid(&problems))?;
    let mapping = args.with.mapping(&config)?;
    let (input, bytes) = open(&args.input)?;
    let bar = progress(bytes);
    let reading = Reading {
        max_line_bytes: config.input.max_value_bytes.0,
        mapping: mapping.as_deref(),
        until_ms: args.until,
        progress: &mut |bytes| bar.inc(bytes),
    };
    let result = explain(input, &live.current(), reading, &args.event);
    bar.finish_and_clear();
    let (found, counts) = result.map_err(|error| Failure::new(code::FINDINGS, format!("replay of {} failed: {error}", args.input)))?;
    let mut found = found.ok_or_else(|| absent(args, &counts))?;
    if let Some(asked) = &args.entity {
        let known = found.about.iter().map(|about| about.key.clone()).collect::<Vec<_>>().join(", ");
        found.about.retain(|about| about.key == *asked);
        if found.about.is_empty() {
            let whom = if known.is_empty() { "nobody whom the rules count".to_owned() } else { clean(&known) };
            return Err(Failure::new(code::FINDINGS, format!("event {} does not concern {asked}, it concerns {whom}", args.event)));
        }
    }
    print(&if args.json { as_json(&args.event, &found) } else { draw::found(&args.event, name(&args.input), &found, columns()) })
}

/// What an input is called.
fn name(input: &str) -> &str {
    if input == "-" { "stdin" } else { input }
}

fn absent(args: &ExplainArgs, counts: &Counts) -> Failure {
    let no_events = match counts.rejections() {
        0 => String::new(),
        rejected => format!(", {rejected} of them no events"),
    };
    Failure::new(
        code::FINDINGS,
        format!("no event of {} has the id {}: {} lines read{no_events}", name(&args.input), args.event, counts.lines),
    )
}

/// One object per entity.
fn as_json(event_id: &str, found: &Found) -> String {
    let object = |about: &About| {
        let Found { line, event_type, event_time, .. } = found;
        json!({
            "event_id": event_id, "line": line, "event_type": event_type, "event_time": event_time,
            "entity": about.entity,
            "outcome": outcome(about.explanation.outcome),
            "switched_off_by": about.explanation.switched_off_by,
            "decisions": about.decisions,
            "rules": about.explanation.rules.iter().map(rule_as_json).collect::<Vec<_>>(),
        })
    };
    found.about.iter().map(|about| format!("{}\n", object(about))).collect()
}

fn rule_as_json(explained: &Explained) -> Value {
    let mut value =
        json!({"rule": explained.rule, "mode": explained.mode, "why": word(&explained.why), "text": draw::text(&explained.why)});
    match &explained.why {
        Why::FlagOff(flag) => value["flag"] = json!(flag),
        Why::OtherType(on) => value["on"] = json!(on),
        Why::Ignored(id) | Why::CountedOnly(id) => value["exception"] = json!(id),
        Why::NotMet { progress: Some(progress) } => value["progress"] = json!(progress),
        Why::Waits(due_ms) => value["due_time"] = json!(format_rfc3339_ms(*due_ms)),
        Why::HeldBack { fired_ms, suppressed } => {
            (value["fired_at"], value["suppressed"]) = (json!(format_rfc3339_ms(*fired_ms)), json!(suppressed));
        }
        Why::Off | Why::OwnBlock | Why::WhenFalse | Why::NothingToCount | Why::NotMet { progress: None } | Why::NotAsked | Why::Fires => {}
    }
    value
}

/// The word for programs.
fn word(why: &Why) -> &'static str {
    match why {
        Why::Off => "off",
        Why::FlagOff(_) => "flag_off",
        Why::OwnBlock => "own_block",
        Why::OtherType(_) => "other_type",
        Why::WhenFalse => "when_false",
        Why::NothingToCount => "nothing_to_count",
        Why::Ignored(_) => "ignored",
        Why::CountedOnly(_) => "counted_only",
        Why::NotMet { .. } => "not_met",
        Why::Waits(_) => "waits",
        Why::HeldBack { .. } => "held_back",
        Why::NotAsked => "not_asked",
        Why::Fires => "fires",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Processed => "processed",
        Outcome::Late => "late",
        Outcome::Duplicate => "duplicate",
    }
}

#[cfg(test)]
mod tests;
