//! `tripline audit`: whether the commits of the last hour add up, while workers run or not.
//!
//! What is compared, and why a running line raises no false alarm, is said in [`tripline_core::audit`]; here the topics are read
//! in the order that it needs. Nothing is written, and the group has no member more.

mod draw;
mod reader;

use super::{Failure, Output, code, print};
use crate::config::Config;
use crate::stream::client::ClientError;
use crate::stream::topics::TopicsError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use reader::Reader;
use std::time::Duration;
use tripline_core::time::parse_duration_ms;

/// What to audit.
#[derive(Debug, Clone, clap::Args)]
pub struct AuditArgs {
    /// How far back; beyond the changelog's compaction lag only what is left of it is judged
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub since: Duration,
    /// Audit again and again, with this pause in between; ends with the first findings
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub watch: Option<Duration>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

fn duration(text: &str) -> Result<Duration, String> {
    let ms = parse_duration_ms(text).filter(|ms| *ms > 0).and_then(|ms| u64::try_from(ms).ok());
    ms.map(Duration::from_millis).ok_or_else(|| "write a length of time, as in `1h` or `30m`".to_owned())
}

/// Runs the verb: 0 when all adds up, 1 with findings.
pub fn run(args: &AuditArgs, config: &Config) -> Result<u8, Failure> {
    loop {
        let report = Reader::connect(config)?.audit(args.since)?;
        print(&match args.output {
            Output::Table => draw::text(&report, &config.app.id),
            Output::Json => draw::json(&report, &config.app.id),
        })?;
        match args.watch {
            _ if report.total > 0 => return Ok(code::FINDINGS),
            None => return Ok(code::OK),
            Some(pause) => std::thread::sleep(pause),
        }
    }
}

fn of_client(error: ClientError) -> Failure {
    Failure::new(error.exit_code(), error)
}

fn of_topics(error: TopicsError) -> Failure {
    Failure::new(error.exit_code(), error)
}

fn of_kafka(what: &str, error: &KafkaError) -> Failure {
    use RDKafkaErrorCode as E;
    let is_gone = matches!(error.rdkafka_error_code(), Some(E::OperationTimedOut | E::BrokerTransportFailure | E::AllBrokersDown));
    Failure::new(if is_gone { code::UNREACHABLE } else { code::FINDINGS }, format!("could not {what}: {error}"))
}
