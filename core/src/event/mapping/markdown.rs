//! The tables of `docs/event.md` and `docs/mapping.md`.

use super::source::{Fields, Source, Target, Unit};
use super::{SETS, written};
use crate::event::FIELDS;
use std::fmt::Write;

/// The sets that have columns and tables: all but our own.
fn sets() -> impl Iterator<Item = &'static str> {
    SETS.into_iter().filter(|set| *set != "tripline")
}

/// Every field: its type, its meaning, and where each shipped set finds it first.
pub fn field_table() -> String {
    let mut out = "| Field | Type | Meaning |".to_owned();
    sets().for_each(|set| out.push_str(&format!(" In `{set}` |")));
    out.push_str("\n|---|---|---|");
    sets().for_each(|_| out.push_str("---|"));
    out.push('\n');
    let shipped: Vec<Fields> = sets().map(written::shipped).collect();
    let named = FIELDS.iter().map(|row| (row.name, row.takes, row.meaning));
    let open = [
        ("headers", "object of text", "Request headers the app chooses to send. Names are folded to lower case"),
        ("data", "object", "Whatever else the app wants rules to see. Masked before it is stored"),
    ];
    for (name, takes, meaning) in named.chain(open) {
        let _ = write!(out, "| `{name}` | {takes} | {meaning} |");
        for fields in &shipped {
            let _ = write!(out, " {} |", first_place(fields, name));
        }
        out.push('\n');
    }
    out
}

fn first_place(fields: &Fields, name: &str) -> String {
    let whole = Target::named(name).and_then(|target| fields.get(&target));
    match whole.and_then(|sources| sources.first()) {
        Some(Source::Place { path, .. }) => format!("`{path}`"),
        Some(Source::Constant(value)) => format!("always `{}`", value.as_str().unwrap_or_default()),
        // `headers.host` and others, one by one.
        None if fields.keys().any(|target| target.name().starts_with(&format!("{name}."))) => "some, by name".to_owned(),
        None => "-".to_owned(),
    }
}

/// One shipped set: every field it fills and all its sources, the first that has a value wins.
pub fn set_table(set: &str) -> String {
    let mut out = "| Field | From, the first that has a value |\n|---|---|\n".to_owned();
    for (target, sources) in written::shipped(set) {
        let sources: Vec<String> = sources.iter().map(|source| described(source, &target)).collect();
        let _ = writeln!(out, "| `{}` | {} |", target.name(), sources.join(", "));
    }
    out
}

fn described(source: &Source, target: &Target) -> String {
    let (path, unit, since, values) = match source {
        Source::Constant(value) => return format!("else `{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        Source::Place { path, unit, since, values } => (path, unit, since, values),
    };
    let mut notes = Vec::new();
    if let Some(since) = since {
        notes.push(format!("since `{since}`"));
    }
    if target.has_unit() && *unit != Unit::Milliseconds {
        notes.push(unit.name().to_owned());
    }
    notes.extend(values.iter().map(|(theirs, ours)| format!("`{theirs}` is `{ours}`")));
    if notes.is_empty() { format!("`{path}`") } else { format!("`{path}` ({})", notes.join(", ")) }
}
