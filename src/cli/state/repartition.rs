//! `tripline state repartition`: more partitions for an app that has states. The work is in [`crate::stream::repartition`].

use super::super::failure::count;
use super::super::{Failure, code, print};
use crate::config::Config;
use crate::stream::failpoints;
use crate::stream::repartition::{self, KeyForm, RepartitionError, Report, Request, TRANSACTION_TIMEOUT};
use crate::stream::topics::TopicsError;
use rdkafka::error::RDKafkaErrorCode;
use std::fmt::Write;
use std::time::Duration;

/// What a dry run reckons with, where nobody knows how fast the cluster takes records.
const RECORDS_A_SECOND: u64 = 50_000;

/// How many partitions.
#[derive(Debug, Clone, clap::Args)]
pub struct RepartitionArgs {
    /// Partitions of the keyed topic afterwards; more than now
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub to: i32,
    /// Do it; without it everything is read and nothing is written
    #[arg(long)]
    pub execute: bool,
    /// Keyed mode: whether the topic's keys carry the actor's kind (`user:u1`) or not (`u1`) [default: as the states say]
    #[arg(long, value_enum, value_name = "kind|bare")]
    pub keys: Option<KeyForm>,
    /// Keyed mode: move although records are unread whose keys move; they are dead-lettered as misrouted
    #[arg(long)]
    pub leave_unread: bool,
    /// Seconds that the transaction may last; the broker's transaction.max.timeout.ms has to allow it
    #[arg(long, value_name = "SECONDS", default_value_t = TRANSACTION_TIMEOUT.as_secs(), value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub transaction_timeout: u64,
}

/// Runs the verb.
pub fn run(args: &RepartitionArgs, config: &Config) -> Result<u8, Failure> {
    failpoints::arm(std::env::var("TRIPLINE_FAILPOINTS").ok().as_deref()).map_err(|problem| Failure::new(code::USAGE, problem))?;
    let request = Request {
        to: args.to,
        keys: args.keys,
        leave_unread: args.leave_unread,
        transaction_timeout: Duration::from_secs(args.transaction_timeout),
    };
    let done = if args.execute { repartition::execute(config, request) } else { repartition::survey(config, request) };
    match done.map_err(|error| Failure::new(exit_code(&error), error))? {
        None => print(&format!("nothing to do: the states are written for {} partitions\n", args.to)),
        Some(report) => print(&describe(&report, config, args.execute)),
    }
}

fn exit_code(error: &RepartitionError) -> u8 {
    use RDKafkaErrorCode as E;
    match error {
        RepartitionError::Client(error) => error.exit_code(),
        RepartitionError::Topics(TopicsError::Client(error)) => error.exit_code(),
        RepartitionError::Store(_) => code::UNREACHABLE,
        RepartitionError::Kafka { source, .. } => match source.rdkafka_error_code() {
            Some(E::OperationTimedOut | E::BrokerTransportFailure | E::AllBrokersDown) => code::UNREACHABLE,
            _ => code::FINDINGS,
        },
        _ => code::FINDINGS,
    }
}

fn describe(report: &Report, config: &Config, is_written: bool) -> String {
    let Report { from, to, states, moving, unread, ticks, routers, members, .. } = report;
    let mut text = format!("group {}: {from} → {to} tasks of {}\n", config.app.id, report.topic);
    let _ = writeln!(text, "  states    {states}, of which {moving} move; read in {}", seconds(report.reading));
    let _ = writeln!(text, "  unread    {unread} observations are written again, {ticks} ticks are not");
    let _ = writeln!(text, "  markers   {to} tasks, {routers} input partitions");
    if is_written {
        let rate = (*states as f64 / report.stop.as_secs_f64().max(0.001)) as u64;
        let _ = writeln!(
            text,
            "written in {}; the group was held for {} ({rate} states a second)",
            seconds(report.writing),
            seconds(report.stop)
        );
        let _ = writeln!(text, "now set topics.partitions to {to} and start the workers");
        return text;
    }
    let records = 2 * moving + unread + u64::from(to.unsigned_abs()) * 2;
    let about = report.reading + Duration::from_secs_f64(records as f64 / RECORDS_A_SECOND as f64 + 2.0);
    let session = tripline_core::time::format_duration_ms(config.stream.session_timeout.0.as_millis() as i64);
    let _ = writeln!(
        text,
        "the stop is about {} at {RECORDS_A_SECOND} records a second, after up to {session} until stopped workers have left (stream.session_timeout)",
        seconds(about)
    );
    if *members > 0 {
        let _ = writeln!(text, "the group has {} now: stop the workers before --execute", count(*members, "member"));
    }
    text.push_str("nothing written: dry run\n");
    text
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
