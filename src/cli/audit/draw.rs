//! A report as text and as JSON.

use crate::cli::draw::clean;
use crate::cli::failure::count;
use serde_json::{Value, json};
use std::fmt::Write;
use tripline_core::audit::{Finding, OutputCoverage, Report, TaskCoverage};
use tripline_core::time::format_rfc3339_ms;

/// For people: what was covered, what is remarkable, what is wrong, and the verdict last.
pub(super) fn text(report: &Report, group: &str) -> String {
    let mut text = format!("group {group}, commits since {}\n\n", format_rfc3339_ms(report.window.since_ms));
    if !report.tasks.is_empty() {
        let head = ["TASK", "COMMITS", "SEQ", "COVERED FROM", "TO"].map(str::to_owned);
        table(&mut text, std::iter::once(head).chain(report.tasks.iter().map(task_line)).collect());
        let head = ["OUTPUTS", "RECORDS", "COMPLETE FROM"].map(str::to_owned);
        table(&mut text, std::iter::once(head).chain(report.outputs.iter().map(output_line)).collect());
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {}: {} ({})", note.kind.name(), note.kind.meaning(), note.count);
    }
    for finding in &report.findings {
        let _ = writeln!(text, "{}", clean(&finding_line(finding)));
    }
    let left_out = report.total - report.findings.len() as u64;
    if left_out > 0 {
        let _ = writeln!(text, "and {left_out} more findings");
    }
    text + &verdict(report) + "\n"
}

fn verdict(report: &Report) -> String {
    let commits = count(report.commits() as usize, "commit");
    let (tasks, outputs) = (count(report.tasks.len(), "task"), count(report.records() as usize, "output"));
    match report.total {
        0 if report.commits() == 0 => "nothing to judge: no commit in this time".to_owned(),
        0 => format!("clean: {commits} of {tasks} and {outputs} add up"),
        total => format!("{}: {commits} of {tasks} and {outputs} do not add up", count(total as usize, "finding")),
    }
}

fn task_line(task: &TaskCoverage) -> [String; 5] {
    let seqs = task.first_seq.zip(task.last_seq).map_or_else(|| "-".to_owned(), |(first, last)| format!("{first} to {last}"));
    let from = format_rfc3339_ms(task.from_ms);
    let from = if task.from_beginning { format!("{from} (its first)") } else { from };
    [clean(&task.task.to_string()), task.commits.to_string(), seqs, from, task.until_ms.map_or_else(|| "-".to_owned(), format_rfc3339_ms)]
}

fn output_line(output: &OutputCoverage) -> [String; 3] {
    [output.role.name().to_owned(), output.records.to_string(), format_rfc3339_ms(output.from_ms)]
}

fn finding_line(finding: &Finding) -> String {
    let task = finding.task.as_ref().map(|task| format!(" task {task}")).unwrap_or_default();
    let commit = finding.stamp.zip(finding.commit_id()).map(|(stamp, id)| format!(" commit {} ({id})", stamp.seq)).unwrap_or_default();
    let Finding { kind, topic, partition, offset, detail, .. } = finding;
    format!("{}:{task}{commit} at {topic}/{partition} offset {offset}: {detail}", kind.name())
}

fn table<const N: usize>(text: &mut String, lines: Vec<[String; N]>) {
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text.push('\n');
}

/// One object for machines.
pub(super) fn json(report: &Report, group: &str) -> String {
    let object = json!({
        "group": group,
        "clean": report.total == 0,
        "since": format_rfc3339_ms(report.window.since_ms),
        "commits": report.commits(),
        "outputs_read": report.records(),
        "tasks": report.tasks.iter().map(task_json).collect::<Vec<_>>(),
        "outputs": report.outputs.iter().map(output_json).collect::<Vec<_>>(),
        "notes": report.notes.iter().map(|n| json!({"kind": n.kind.name(), "meaning": n.kind.meaning(), "count": n.count})).collect::<Vec<_>>(),
        "total_findings": report.total,
        "findings": report.findings.iter().map(finding_json).collect::<Vec<_>>(),
    });
    format!("{object:#}\n")
}

fn task_json(task: &TaskCoverage) -> Value {
    json!({
        "topic": task.task.topic, "partition": task.task.partition, "commits": task.commits,
        "first_seq": task.first_seq, "last_seq": task.last_seq,
        "from": format_rfc3339_ms(task.from_ms), "to": task.until_ms.map(format_rfc3339_ms), "from_beginning": task.from_beginning,
    })
}

fn output_json(output: &OutputCoverage) -> Value {
    json!({"kind": output.role.name(), "records": output.records, "complete_from": format_rfc3339_ms(output.from_ms)})
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "kind": finding.kind.name(),
        "task": finding.task.as_ref().map(|task| json!({"topic": task.topic, "partition": task.partition})),
        "seq": finding.stamp.map(|stamp| stamp.seq), "commit_id": finding.commit_id(),
        "topic": finding.topic, "partition": finding.partition, "offset": finding.offset,
        "detail": finding.detail,
    })
}
