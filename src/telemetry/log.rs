//! The log: text on a terminal, one JSON object per line elsewhere, always on stderr.

use crate::config::{Log, LogFormat};
use std::io::{IsTerminal, stderr};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log; `RUST_LOG` wins over `log.level`. A second call changes nothing: tests share one process.
pub fn init(log: &Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&log.level));
    let terminal = stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_span_events(FmtSpan::NONE);
    let started = if is_json(log.format, terminal) {
        // Flat objects: a search for `partition` should not need to know where the field sits.
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish().try_init()
    } else {
        builder.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).finish().try_init()
    };
    if started.is_err() {
        tracing::debug!("the log was started before");
    }
}

fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !terminal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_text_for_people_and_json_for_machines() {
        assert!(is_json(LogFormat::Auto, false) && !is_json(LogFormat::Auto, true));
        assert!(is_json(LogFormat::Json, true) && !is_json(LogFormat::Pretty, false));
    }
}
