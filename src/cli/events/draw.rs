//! Events as text for a terminal.

use crate::cli::draw::receipt::{self, Receipt};
use crate::cli::draw::{aligned, clean};
use crate::sink::review::{Note, StoredEvent};
use std::io::{self, Write};

/// A cell longer than this is cut.
const MAX_CELL: usize = 40;

/// One line per event, columns aligned.
pub(super) fn table(events: &[StoredEvent], out: &mut dyn Write) -> io::Result<()> {
    let head = ["ID", "CREATED", "SEVERITY", "SCORE", "TYPE", "ENTITY", "ACTION", "STATUS"].map(str::to_owned);
    let mut lines = vec![head.to_vec()];
    lines.extend(events.iter().map(|event| line(event).to_vec()));
    out.write_all(aligned(&lines).as_bytes())
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

/// Everything about one event, with its receipt as a chart; what is empty is left out.
pub(super) fn event(event: &StoredEvent, notes: &[Note], columns: usize, out: &mut dyn Write) -> io::Result<()> {
    let row = &event.row;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let resolved = event.resolved_at.as_ref().map(|at| format!("{at} by {}", text(&event.resolved_by))).unwrap_or_default();
    let marks: Vec<&str> = [(row.clamped, "clamped"), (row.partial, "partial"), (row.warming, "warming")]
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, mark)| *mark)
        .collect();
    let held_back_before = if row.suppressed == 0 { String::new() } else { format!("{} since the firings before", row.suppressed) };
    let fired: Vec<String> = serde_json::from_str(&row.fired).map_err(io::Error::other)?;
    let fields = [
        ("id", row.id.clone()),
        ("type", format!("{} ({})", row.anomaly_type, row.category.as_deref().unwrap_or("no category"))),
        ("severity", format!("{}, score {}", row.severity, row.risk_score)),
        ("entity", entity(event)),
        ("action", row.action_taken.clone()),
        ("status", format!("{} (version {})", event.status, event.version)),
        ("resolved", resolved),
        ("created", row.created_at.clone()),
        ("event", format!("{} {} at {}", row.event_type, row.event_id, row.event_time)),
        ("due", text(&row.due_time)),
        ("fired", fired.join(", ")),
        ("suppressed", held_back_before),
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
        ("policy", row.policy.clone()),
        ("rules", row.rules.clone()),
        ("flags", row.flags.clone()),
    ];
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{name:<12} {}", clean(value))?;
    }
    let receipt = Receipt::try_from(row).map_err(io::Error::other)?;
    write!(out, "\n{}", receipt::draw(&receipt, columns))?;
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
