//! Events as text for a terminal.

use crate::sink::review::{Note, StoredEvent};
use std::io::{self, Write};
use tripline_core::decision::{Contribution, HeldBack};

/// A cell longer than this is cut.
const MAX_CELL: usize = 40;

/// Text as it may go to a terminal. Paths, user agents and ids come from whoever attacks: control characters and those
/// that reorder or hide text are written as escapes, so that no event can rewrite the analyst's screen.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        let hides = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || hides { cleaned.extend(c.escape_unicode()) } else { cleaned.push(c) }
    }
    cleaned
}

/// One line per event, columns aligned.
pub(super) fn table(events: &[StoredEvent], out: &mut dyn Write) -> io::Result<()> {
    let head = ["ID", "CREATED", "SEVERITY", "SCORE", "TYPE", "ENTITY", "ACTION", "STATUS"].map(str::to_owned);
    let mut lines = vec![head];
    lines.extend(events.iter().map(line));
    let mut widths = [0; 8];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn line(event: &StoredEvent) -> [String; 8] {
    let row = &event.row;
    [
        // As much of the id as the other verbs need at least; ids that begin alike are told apart by `-o json`.
        row.id.chars().take(13).collect(),
        row.created_at.clone(),
        row.severity.clone(),
        row.risk_score.to_string(),
        row.anomaly_type.clone(),
        entity(event),
        row.action_taken.clone(),
        event.status.clone(),
    ]
    .map(|cell| cut(&clean(&cell)))
}

fn cut(cell: &str) -> String {
    if cell.chars().count() <= MAX_CELL {
        return cell.to_owned();
    }
    cell.chars().take(MAX_CELL - 1).chain(['…']).collect()
}

fn entity(event: &StoredEvent) -> String {
    let row = &event.row;
    if row.entity_id.is_empty() { row.entity_kind.clone() } else { format!("{}:{}", row.entity_kind, row.entity_id) }
}

/// Everything about one event; what is empty is left out.
pub(super) fn event(event: &StoredEvent, notes: &[Note], out: &mut dyn Write) -> io::Result<()> {
    let row = &event.row;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let resolved = event.resolved_at.as_ref().map(|at| format!("{at} by {}", text(&event.resolved_by))).unwrap_or_default();
    let marks: Vec<&str> =
        [(row.clamped, "clamped"), (row.partial, "partial")].iter().filter(|(on, _)| *on).map(|(_, mark)| *mark).collect();
    let asks: Vec<&str> = [(row.should_alert, "alert"), (row.should_step_up, "step up"), (row.blocked, "block")]
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, ask)| *ask)
        .collect();
    let fields = [
        ("id", row.id.clone()),
        ("type", format!("{} ({})", row.anomaly_type, row.category.as_deref().unwrap_or("no category"))),
        ("severity", format!("{}, score {}", row.severity, row.risk_score)),
        ("entity", entity(event)),
        ("action", row.action_taken.clone()),
        ("asks for", asks.join(", ")),
        ("status", format!("{} (version {})", event.status, event.version)),
        ("resolved", resolved),
        ("created", row.created_at.clone()),
        ("event", format!("{} {} at {}", row.event_type, row.event_id, row.event_time)),
        ("marks", marks.join(", ")),
        ("user", text(&row.user_id)),
        ("tenant", [text(&row.tenant_id), text(&row.tenant_name)].join(" ").trim().to_owned()),
        ("address", text(&row.ip_address)),
        ("request", [text(&row.method), text(&row.path)].join(" ").trim().to_owned()),
        ("status code", row.status_code.map(|code| code.to_string()).unwrap_or_default()),
        ("request id", text(&row.request_id)),
        ("resource", [text(&row.resource_type), text(&row.resource_id)].join(" ").trim().to_owned()),
        ("user agent", text(&row.user_agent)),
        ("device", text(&row.device_id)),
        ("to the user", row.user_message.clone()),
        ("internal", row.internal_message.clone()),
        ("metadata", unless_empty(&row.metadata)),
        ("payload", unless_empty(&row.masked_payload)),
        ("rules", row.rules.clone()),
        ("flags", row.flags.clone()),
    ];
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{name:<12} {}", clean(value))?;
    }
    receipt(&row.receipt, row.risk_score, out)?;
    let held_back: Vec<HeldBack> = serde_json::from_str(&row.held_back).map_err(io::Error::other)?;
    for held in &held_back {
        writeln!(out, "held back    {} by {}", clean(&held.action), clean(&held.by))?;
    }
    if !notes.is_empty() {
        writeln!(out, "\nnotes")?;
    }
    for note in notes {
        let status = note.status.as_ref().map(|status| format!(" -> {status}")).unwrap_or_default();
        writeln!(out, "  {}  {}{}  {}", clean(&note.created_at), clean(&note.author), clean(&status), clean(&note.text))?;
    }
    Ok(())
}

fn unless_empty(object: &str) -> String {
    if object == "{}" { String::new() } else { object.to_owned() }
}

/// The parts of the score, and their sum.
fn receipt(json: &str, score: i64, out: &mut dyn Write) -> io::Result<()> {
    let parts: Vec<Contribution> = serde_json::from_str(json).map_err(io::Error::other)?;
    writeln!(out, "\nreceipt")?;
    let width = parts.iter().map(|part| clean(&part.rule).chars().count()).max().unwrap_or(0).max("score".len());
    for part in &parts {
        writeln!(out, "  {:>4}  {:<width$}  {}", format!("{:+}", part.points.0 as f64 / 1_000.0), clean(&part.rule), clean(&part.why))?;
    }
    writeln!(out, "  {score:>4}  score")
}
