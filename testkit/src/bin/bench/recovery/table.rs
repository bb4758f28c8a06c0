//! The figures of recovery, in Markdown.

use super::{Measured, Restart, SESSION};
use std::fmt::Write;
use std::time::Duration;

/// All of it.
pub fn table(measured: &Measured, rate: u64, partitions: i32) -> String {
    let Measured { changelog_bytes, users, empty, kept, pauses, decisions, compared } = measured;
    let mut text = format!(
        "### Recovery\n\nKeyed, {partitions} tasks, {rate} events/s throughout, a decision for every event; {:.0} MB of changelog, {users} users. Each of {decisions} events got one decision, and {compared} decisions of sampled users equal `replay`.\n\n\
         Killed, and started again at once: seconds from `kill -9`.\n\n\
         | Disk | ready | next decision | of every task | changelog records | MB | records/s | MB/s | CPU s | peak RSS MiB |\n|---|---|---|---|---|---|---|---|---|---|\n",
        changelog_bytes / 1e6
    );
    // Writing to a String cannot fail.
    let Restart { records, bytes, cpu_s, rss_bytes, .. } = empty;
    let (ready_s, megabytes) = (empty.ready.as_secs_f64(), bytes / 1e6);
    let _ = writeln!(
        text,
        "| empty | {ready_s:.2} | {:.2} | {:.2} | {records:.0} | {megabytes:.0} | {:.0} | {:.0} | {cpu_s:.1} | {:.0} |",
        empty.first.as_secs_f64(),
        empty.every.as_secs_f64(),
        records / ready_s,
        megabytes / ready_s,
        *rss_bytes as f64 / 1_048_576.0
    );
    let two = |of: fn(&Restart) -> f64| {
        let mut values: Vec<f64> = kept.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        (values[values.len() / 2], values[values.len() - 1])
    };
    let seconds = |of: fn(&Restart) -> f64| {
        let (middle, most) = two(of);
        format!("{middle:.2} / {most:.2}")
    };
    let _ = writeln!(
        text,
        "| kept, {} times, p50 / max | {} | {} | {} | {:.0} | {:.1} |  |  | {:.1} | {:.0} |",
        kept.len(),
        seconds(|run| run.ready.as_secs_f64()),
        seconds(|run| run.first.as_secs_f64()),
        seconds(|run| run.every.as_secs_f64()),
        two(|run| run.records).0,
        two(|run| run.bytes).0 / 1e6,
        two(|run| run.cpu_s).0,
        two(|run| run.rss_bytes as f64).0 / 1_048_576.0
    );
    let _ = write!(
        text,
        "\nTwo workers on the same state. The longest time from one decision of a task to its next, in milliseconds, as a read_committed consumer sees them: median / greatest of the tasks; `stream.session_timeout` {} s.\n\n\
         | What happens | tasks that move | of those that stay, before | meanwhile | of those that move |\n|---|---|---|---|---|\n",
        SESSION.as_secs()
    );
    let ms = |pause: Duration| format!("{:.0}", pause.as_secs_f64() * 1_000.0);
    let both = |(middle, most): (Duration, Duration)| format!("{} / {}", ms(middle), ms(most));
    for row in pauses {
        let _ = writeln!(text, "| {} | {} | {} | {} | {} |", row.what, row.moved, both(row.before), both(row.during), ms(row.of_moved));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::pause::Pauses;

    fn restart(ms: u64) -> Restart {
        let after = |more| Duration::from_millis(ms + more);
        Restart { ready: after(0), first: after(100), every: after(200), records: 1e6, bytes: 1e9, cpu_s: 8.0, rss_bytes: 300 << 20 }
    }

    #[test]
    fn rates_are_per_second_until_ready_and_kills_are_told_by_their_median_and_greatest() {
        let ms = Duration::from_millis;
        let pauses = vec![Pauses { what: "SIGTERM", moved: 4, before: (ms(50), ms(60)), during: (ms(51), ms(90)), of_moved: ms(10_400) }];
        let measured = Measured {
            changelog_bytes: 1.1e9,
            users: 300_000,
            empty: restart(10_000),
            kept: vec![restart(900), restart(700), restart(800)],
            pauses,
            decisions: 100,
            compared: 7,
        };
        let text = table(&measured, 2_000, 8);
        for line in [
            "| empty | 10.00 | 10.10 | 10.20 | 1000000 | 1000 | 100000 | 100 | 8.0 | 300 |",
            "| kept, 3 times, p50 / max | 0.80 / 0.90 | 0.90 / 1.00 | 1.00 / 1.10 | 1000000 | 1000.0 |  |  | 8.0 | 300 |",
            "| SIGTERM | 4 | 50 / 60 | 51 / 90 | 10400 |",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
