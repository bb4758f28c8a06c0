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
    let from = format_rfc3339_ms(output.from_ms);
    // Where partitions go back to different times, the tasks that write to them do.
    let earliest = (output.earliest_ms < output.from_ms).then(|| format_rfc3339_ms(output.earliest_ms));
    let from = earliest.map_or_else(|| from.clone(), |earliest| format!("{from} (some tasks: {earliest})"));
    [output.role.name().to_owned(), output.records.to_string(), from]
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
    json!({
        "kind": output.role.name(), "records": output.records,
        "complete_from": format_rfc3339_ms(output.from_ms), "complete_from_earliest": format_rfc3339_ms(output.earliest_ms),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use tripline_core::audit::{Complete, Kind, Markers, Place, Role, Stamp, Task, Window};

    fn report(with_finding: bool) -> Report {
        let task = Task { topic: "app.requests".into(), partition: 3 };
        let mut markers = Markers::new(Window { since_ms: 1_760_000_000_000, margin_ms: 0 }, "changelog");
        let marker = r#"{"v":1,"app":"a","history":"h","seq":7,"commit_id":"0000000000000000000000000000004d","next_offset":9,"stream_time_ms":0,
            "partitions":4,"rules":"","flags":"","states":0,"decisions":1,"work":{"first_offset":8,"decisions":1}}"#;
        markers.marker(&task, 1, 40, 1_760_000_001_000, true, Some(marker.as_bytes()));
        let mut audit = markers.close(0);
        if !with_finding {
            let at = Place { topic: "decisions", partition: 0, offset: 5 };
            let stamp = Stamp { seq: 7, id: 77 };
            let role = Role::Decisions;
            audit.output(&tripline_core::audit::Output { role, at, at_ms: 1_760_000_001_000, task: &task, stamp, id: None });
        }
        let mut complete: [Complete; 7] = Default::default();
        complete[Role::Decisions as usize] = Complete { from_ms: vec![0, 0, 1_760_000_009_000, 0], step: 4 };
        audit.close(&complete)
    }

    #[test]
    fn the_verdict_stands_last_and_a_finding_names_what_it_is_about() {
        let clean = text(&report(false), "shop");
        assert!(clean.ends_with("\n\nclean: 1 commit of 1 task and 1 output add up\n"), "{clean}");
        assert!(clean.contains("app.requests/3  1        7 to 7  2025-10-09T08:53:21.000Z"), "{clean}");
        let partly = "decisions     1        2025-10-09T08:53:29.000Z (some tasks: 2025-10-09T08:53:20.000Z)\n";
        assert!(clean.contains(partly), "{clean}");
        let torn = text(&report(true), "shop");
        let finding = "missing_outputs: task app.requests/3 commit 7 (0000000000000000000000000000004d) at changelog/1 offset 40: ";
        assert!(torn.contains(finding) && torn.ends_with("1 finding: 1 commit of 1 task and 0 outputs do not add up\n"), "{torn}");
    }

    #[test]
    fn machines_are_told_the_same() {
        let torn = report(true);
        let object: Value = serde_json::from_str(&json(&torn, "shop")).expect("JSON");
        assert_eq!((&object["clean"], &object["total_findings"], &object["tasks"][0]["last_seq"]), (&json!(false), &json!(1), &json!(7)));
        let finding = &object["findings"][0];
        assert_eq!(finding["kind"], Kind::MissingOutputs.name());
        assert_eq!((&finding["seq"], &finding["commit_id"]), (&json!(7), &json!("0000000000000000000000000000004d")));
        assert_eq!((&finding["topic"], &finding["partition"], &finding["offset"]), (&json!("changelog"), &json!(1), &json!(40)));
    }
}
