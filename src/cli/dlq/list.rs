//! `tripline dlq list`.

use super::{ListArgs, Output, Status, print, remark};
use crate::cli::Failure;
use crate::cli::draw::{self, clean};
use crate::config::Config;
use crate::dead_letters::index::{Filter, Index, Letter};
use crate::dead_letters::reader::Reader;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tripline_core::time::format_rfc3339_ms;

pub(super) fn run(args: &ListArgs, filter: Filter, config: &Config) -> Result<u8, Failure> {
    let index = Reader::connect(config)?.index(filter)?;
    let newest = newest(&index, args.status, args.limit as usize);
    remark(&index);
    let counts = index.by_reason();
    let text = match args.output {
        Output::Json => {
            let letters: Vec<Value> = newest.iter().map(|letter| letter.json()).collect();
            format!("{:#}\n", json!({ "letters": letters, "reasons": reasons(&counts), "left_out": index.left_out().count }))
        }
        Output::Ndjson => newest.iter().map(|letter| format!("{}\n", letter.json())).collect(),
        Output::Table => table(&newest),
    };
    if args.output != Output::Json {
        eprint!("{}", summary(&counts));
    }
    print(&text)
}

/// The newest that have the status, newest last.
fn newest(index: &Index, status: Option<Status>, limit: usize) -> Vec<&Letter> {
    let is_wanted = |letter: &&Letter| status.is_none_or(|status| (status == Status::Redriven) == letter.is_redriven);
    let mut letters: Vec<&Letter> = index.letters().filter(is_wanted).collect();
    letters.sort_by_key(|letter| (letter.at_ms, letter.id));
    letters.split_off(letters.len().saturating_sub(limit))
}

fn reasons(counts: &BTreeMap<&str, (usize, usize)>) -> Value {
    counts.iter().map(|(reason, (open, redriven))| ((*reason).to_owned(), json!({ "open": open, "redriven": redriven }))).collect()
}

fn summary(counts: &BTreeMap<&str, (usize, usize)>) -> String {
    let mut lines = vec![["REASON", "OPEN", "REDRIVEN"].map(str::to_owned).to_vec()];
    let row = |name: &str, (open, redriven): (usize, usize)| vec![clean(name), open.to_string(), redriven.to_string()];
    lines.extend(counts.iter().map(|(reason, counts)| row(reason, *counts)));
    let all = counts.values().fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
    lines.push(row("all", all));
    draw::aligned(&lines)
}

fn table(letters: &[&Letter]) -> String {
    let head = ["LETTER", "APPENDED", "REASON", "STAGE", "SOURCE", "ATTEMPT", "STATUS", "DETAIL"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(letters.iter().map(|letter| {
        let cells = [
            letter.id.to_string(),
            format_rfc3339_ms(letter.at_ms),
            letter.reason.to_string(),
            letter.stage.name().to_owned(),
            letter.source(),
            letter.attempt.to_string(),
            letter.status().to_owned(),
            letter.detail.to_string(),
        ];
        cells.map(|cell| clean(&cell)).to_vec()
    }));
    draw::aligned(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tripline_core::dead_letter::{Kind, LetterId, Stage, Told};

    fn index() -> Index {
        let mut index = Index::new(Filter::default(), 100);
        let told = |reason: &'static str, detail: &'static str| Told {
            reason,
            detail,
            stage: Stage::Router,
            source_topic: "app.requests",
            source_partition: 0,
            source_offset: 41,
            source_timestamp_ms: 0,
            truncated: None,
            digest: None,
            headers_left_out: None,
            attempt: 1,
            redriven_from: None,
        };
        let mut see = |partition, offset, at_ms, kind: &Kind<'_>| index.see(LetterId { partition, offset }, at_ms, kind, 9, None);
        see(0, 0, 3_000, &Kind::Letter(told("bad_time", "event_time")));
        see(0, 1, 4_000, &Kind::Letter(told("bad_time", "evil\u{1b}[2J")));
        see(0, 2, 5_000, &Kind::Receipt(0));
        see(1, 0, 1_000, &Kind::Letter(told("wrong_type", "status_code")));
        index
    }

    #[test]
    fn the_newest_stand_last_and_the_limit_takes_the_oldest_away() {
        let index = index();
        let ids = |status, limit| newest(&index, status, limit).iter().map(|l| l.id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(None, 9), ["1/0", "0/0", "0/1"]);
        assert_eq!(ids(None, 2), ["0/0", "0/1"]);
        assert_eq!(ids(Some(Status::Open), 9), ["1/0", "0/1"]);
        assert_eq!(ids(Some(Status::Redriven), 9), ["0/0"]);
    }

    #[test]
    fn a_list_is_aligned_counts_by_reason_and_rewrites_no_screen() {
        let index = index();
        let text = table(&newest(&index, None, 9));
        assert_eq!(text.lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "), {
            "1/0 1970-01-01T00:00:01.000Z wrong_type router app.requests/0/41 1 open status_code"
        });
        assert!(text.contains("evil\\u{1b}[2J") && !text.contains('\u{1b}'), "{text}");
        let counted: Vec<String> =
            summary(&index.by_reason()).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(counted, ["REASON OPEN REDRIVEN", "bad_time 1 1", "wrong_type 1 0", "all 2 1"]);
    }
}
