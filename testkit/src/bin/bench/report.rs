//! The report, in Markdown: where and how it was measured, then the figures.

use crate::drain::Drained;
use crate::latency::{Latency, Load};
use crate::{Args, Mode};
use std::fmt::Write;
use std::process::Command;

/// All rounds of one mode and one size.
pub struct Series {
    /// Mode of the worker.
    pub mode: Mode,
    /// Rounds with all events.
    pub full: Vec<Drained>,
    /// Rounds with half of them.
    pub half: Vec<Drained>,
}

/// The machine, the versions, the command.
pub fn header(args: &Args, broker: &str, tripline_version: &str) -> String {
    let mut text = String::new();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "Measured {}, commit {}.\n",
        output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        output("git", &["rev-parse", "--short", "HEAD"])
    );
    let memory = line_of("/proc/meminfo", "MemTotal:").split(' ').next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0);
    let _ = writeln!(
        text,
        "- Machine: {cores} cores, {}, {:.0} GiB, Linux {}",
        line_of("/proc/cpuinfo", "model name"),
        memory / 1048576.0,
        output("uname", &["-r"])
    );
    let _ = writeln!(text, "- Broker: {broker}; it shares the machine with the worker");
    let _ = writeln!(text, "- Versions: {tripline_version}, librdkafka {}", rdkafka::util::get_rdkafka_version().1);
    let _ = writeln!(text, "- Command: `{}`", command_line());
    let _ = writeln!(
        text,
        "- Load: {} events of about 485 bytes over 30 minutes of event time, {} actors (Zipf 1.05), {} partitions, {} lane(s), `decisions.emit: {}`, rules `{}`\n",
        args.events,
        args.actors,
        args.partitions,
        args.lanes,
        args.emit.name(),
        args.rules.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
    );
    text
}

/// The throughput tables: min / median of the rounds, and every run.
pub fn throughput(series: &[Series]) -> String {
    let mut text = String::from(
        "### Throughput\n\nFrom the worker's start until its committed offsets reach the end of the topic; min / median of the rounds, the slope from the medians of both sizes (start-up not charged).\n\n\
         | Mode | Events | CPU s per million | events per CPU s (median) | slope, CPU s per million | events/s after the first commit (median) | peak RSS MiB | broker CPU s | changelog bytes/event: raw, on disk | decisions/event |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for Series { mode, full, half } in series {
        for (runs, slope) in [(full, slope(full, half)), (half, None)] {
            let Some(first) = runs.first() else { continue };
            let per_million = |run: &Drained| run.cpu_s * 1e6 / run.events as f64;
            let (least, middle) = spread(runs, per_million);
            let _ = writeln!(
                text,
                "| {} | {} | {least:.2} / {middle:.2} | {:.0} | {} | {:.0} | {:.0} | {} | {:.1}, {} | {:.3} |",
                mode.name(),
                first.events,
                1e6 / middle,
                slope.map_or("".to_owned(), |seconds| format!("{seconds:.2}")),
                spread(runs, |run| run.events_per_s).1,
                spread(runs, |run| run.rss_bytes as f64).1 / 1048576.0,
                optional(runs, |run| run.broker_cpu_s, |seconds| format!("{seconds:.1}")),
                spread(runs, |run| run.changelog_bytes as f64 / run.events as f64).1,
                optional(runs, |run| run.changelog_disk_bytes.map(|bytes| bytes as f64 / run.events as f64), |bytes| format!("{bytes:.1}")),
                spread(runs, |run| run.decisions as f64 / run.events as f64).1,
            );
        }
    }
    text.push_str("\nEvery run, in the order of measuring per mode. Throw away a run with much CPU used by others.\n\n| Mode | Events | CPU s | events/s | CPU s of others | instructions/event |\n|---|---|---|---|---|---|\n");
    for Series { mode, full, half } in series {
        for run in full.iter().chain(half) {
            let instructions =
                run.instructions.map_or("not counted here".to_owned(), |count| format!("{:.0}", count as f64 / run.events as f64));
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} | {:.0} | {:.1} | {instructions} |",
                mode.name(),
                run.events,
                run.cpu_s,
                run.events_per_s,
                run.other_cpu_s
            );
        }
    }
    text
}

/// The latency table.
pub fn latency(load: Load, rows: &[(Mode, Latency)]) -> String {
    let mut text = format!(
        "### Latency\n\n{} events/s for {} s after {} s of warm-up, a decision for every event, from handing the event to the producer until a read_committed consumer receives its decision. A commit runs from sealing the transaction to the broker's answer; of it the bound of the bucket of `tripline_commit_seconds` is told.\n\n\
         | Mode | p50 ms | p99 ms | p99.9 ms | commit p50, p99, p99.9 ms, at most | received of sent | worker cores |\n|---|---|---|---|---|---|---|\n",
        load.rate, load.seconds, load.warm_up_s
    );
    for (mode, row) in rows {
        let Latency { sent, received, p50_ms, p99_ms, p999_ms, worker_cores, commit_ms: [c50_ms, c99_ms, c999_ms] } = row;
        let _ = writeln!(
            text,
            "| {} | {p50_ms:.1} | {p99_ms:.1} | {p999_ms:.1} | {c50_ms:.0}, {c99_ms:.0}, {c999_ms:.0} | {received} of {sent} | {worker_cores:.2} |",
            mode.name()
        );
    }
    text
}

/// CPU seconds that a further million events costs.
fn slope(full: &[Drained], half: &[Drained]) -> Option<f64> {
    let more = full.first()?.events.checked_sub(half.first()?.events).filter(|more| *more > 0)?;
    Some((spread(full, |run| run.cpu_s).1 - spread(half, |run| run.cpu_s).1) * 1e6 / more as f64)
}

/// Least and median. There is at least one run.
fn spread(runs: &[Drained], value: impl Fn(&Drained) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    (values[0], median)
}

/// The median where every run has the value.
fn optional(runs: &[Drained], value: impl Fn(&Drained) -> Option<f64>, show: impl Fn(f64) -> String) -> String {
    if runs.iter().all(|run| value(run).is_some()) {
        show(spread(runs, |run| value(run).unwrap_or_default()).1)
    } else {
        "not known".to_owned()
    }
}

fn output(program: &str, args: &[&str]) -> String {
    let text = Command::new(program)
        .args(args)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    if text.is_empty() { "unknown".to_owned() } else { text }
}

fn line_of(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or("unknown".to_owned(), |rest| rest.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

/// The command as one types it: without the program's folder.
fn command_line() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    format!("make bench BENCH=\"{}\"", args.join(" ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: u64, cpu_s: f64) -> Drained {
        Drained {
            events,
            cpu_s,
            events_per_s: 400_000.0,
            rss_bytes: 200 << 20,
            broker_cpu_s: None,
            other_cpu_s: 0.5,
            instructions: None,
            changelog_bytes: events * 30,
            changelog_disk_bytes: None,
            decisions: events / 10,
        }
    }

    #[test]
    fn the_slope_leaves_the_start_out() {
        // One second of start, two seconds per million.
        let series = Series {
            mode: Mode::Keyed,
            full: vec![run(2_000_000, 5.0), run(2_000_000, 7.0), run(2_000_000, 4.0)],
            half: vec![run(1_000_000, 3.0)],
        };
        assert_eq!(slope(&series.full, &series.half), Some(2.0));
        let text = throughput(&[series]);
        assert!(
            text.contains("| keyed | 2000000 | 2.00 / 2.50 | 400000 | 2.00 | 400000 | 200 | not known | 30.0, not known | 0.100 |"),
            "{text}"
        );
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(spread(&[run(1, 1.0), run(1, 4.0), run(1, 2.0), run(1, 9.0)], |run| run.cpu_s), (1.0, 3.0));
    }
}
