//! `tripline replay`: events of a file in, decisions out, without a broker.

use super::{Failure, code};
use crate::config::{Config, EVERY_TOPIC, EmitWhat, Loaded};
use crate::live::Live;
use crate::replay::{self, Counts, Options};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tripline_core::diagnostic::nearest;
use tripline_core::event::mapping::{Mapping, SETS};
use tripline_core::time::parse_rfc3339_ms;

/// What to replay, and with what.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Events, one JSON object per line; `-` for stdin
    #[arg(long, value_name = "FILE|-")]
    pub input: String,
    /// With what
    #[command(flatten)]
    pub with: With,
    /// Which events get a decision [default: decisions.emit]
    #[arg(long, value_enum)]
    pub emit: Option<EmitArg>,
    /// Write the decisions of rules that only watch (mode: shadow), too
    #[arg(long)]
    pub shadow: bool,
    /// Let time pass up to here after the last line, and fire what is due (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<i64>,
    /// Write the records of alerts to this file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub alerts: Option<PathBuf>,
    /// Write what becomes of standings to this file, one `{"key": …, "value": …}` per line
    #[arg(long, value_name = "FILE")]
    pub standing: Option<PathBuf>,
    /// Exit with 1 when a line is no event
    #[arg(long)]
    pub strict: bool,
}

/// With what a file is replayed.
#[derive(Debug, Clone, Args)]
pub struct With {
    /// Folder of the rule pack [default: rules.path]
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
    /// Flags file [default: flags.file]
    #[arg(long, value_name = "FILE")]
    pub flags: Option<PathBuf>,
    /// Settings of the pack by name, JSON or YAML [default: rules.settings]
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// How lines of another shape become events: a shipped set, or a topic of input.mapping [default: the mapping of `*`]
    #[arg(long, value_name = "SET|TOPIC")]
    pub mapping: Option<String>,
}

/// Which events get a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmitArg {
    /// Those on which something fired
    Fired,
    /// Every one
    All,
}

/// Replays; the summary goes to stderr.
pub fn run(args: &ReplayArgs, loaded: &Loaded) -> Result<u8, Failure> {
    let mut config = args.with.over(&loaded.config);
    match args.emit {
        Some(EmitArg::Fired) => config.decisions.emit = EmitWhat::Fired,
        Some(EmitArg::All) => config.decisions.emit = EmitWhat::All,
        None => {}
    }
    let live = Live::load(&config).map_err(|problems| Failure::invalid(&problems))?;
    let mapping = args.with.mapping(&config)?;
    let (input, bytes) = open(&args.input)?;
    let bar = progress(bytes);
    let mut advance = |bytes| bar.inc(bytes);
    let (mut alerts, mut standing) = (create(args.alerts.as_deref())?, create(args.standing.as_deref())?);
    let options = Options {
        max_line_bytes: config.input.max_value_bytes.0,
        mapping: mapping.as_deref(),
        shadow: args.shadow,
        until_ms: args.until,
        alerts: alerts.as_mut().map(|out| out as &mut dyn Write),
        standing: standing.as_mut().map(|out| out as &mut dyn Write),
        progress: &mut advance,
    };
    let out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let result = replay::run(input, &live.current(), options, out);
    bar.finish_and_clear();
    let counts = match result {
        Ok(counts) => counts,
        // Whoever read the decisions has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(code::OK),
        Err(error) => return Err(Failure::new(code::FINDINGS, format!("replay of {} failed: {error}", args.input))),
    };
    summarise(&counts);
    Ok(if args.strict && counts.rejections() > 0 { code::FINDINGS } else { code::OK })
}

/// A file to write to.
fn create(path: Option<&Path>) -> Result<Option<BufWriter<File>>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let file = File::create(path).map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
    Ok(Some(BufWriter::new(file)))
}

pub(super) fn time(text: &str) -> Result<i64, String> {
    parse_rfc3339_ms(text).ok_or_else(|| "not a time: write it as RFC 3339, `2026-01-31T12:00:00Z`".to_owned())
}

fn summarise(counts: &Counts) {
    let _ = writeln!(io::stderr().lock(), "{counts}");
}

impl With {
    /// The settings with what the command line names.
    pub(super) fn over(&self, config: &Config) -> Config {
        let mut config = config.clone();
        if let Some(rules) = &self.rules {
            config.rules.path = rules.clone();
        }
        if let Some(settings) = &self.settings {
            config.rules.settings = settings.clone();
        }
        if let Some(flags) = &self.flags {
            config.flags.file = flags.clone();
        }
        config
    }

    /// The mapping that was asked for: a topic's, or a shipped set.
    pub(super) fn mapping(&self, config: &Config) -> Result<Option<Arc<Mapping>>, Failure> {
        let of_settings = |topic: &str| config.input.mapping.get(topic).map(|found| found.mapping().clone());
        let Some(asked) = self.mapping.as_deref() else { return Ok(of_settings(EVERY_TOPIC)) };
        let found = of_settings(asked).or_else(|| Mapping::shipped(asked).map(Arc::new));
        found.map(Some).ok_or_else(|| {
            let known = SETS.into_iter().chain(config.input.mapping.keys().map(String::as_str));
            let near = nearest(asked, known)
                .map_or_else(|| format!("shipped sets are {}", SETS.join(", ")), |near| format!("did you mean {near}?"));
            Failure::usage(format!("there is no mapping {asked}: {near}"))
        })
    }
}

/// The input, and its size when it has one.
pub(super) fn open(input: &str) -> Result<(Box<dyn BufRead>, Option<u64>), Failure> {
    if input == "-" {
        return Ok((Box::new(BufReader::with_capacity(1 << 16, io::stdin())), None));
    }
    let unreadable = |error: io::Error| Failure::usage(format!("cannot read {input}: {error}"));
    let file = File::open(input).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(Failure::usage(format!("{input} is a folder: name a file of events, one JSON object per line")));
    }
    let size = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(BufReader::with_capacity(1 << 16, file)), size))
}

/// A bar on stderr when a person looks on; nothing else.
pub(super) fn progress(bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() || io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let Some(bytes) = bytes else {
        return ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
    };
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style)
}
