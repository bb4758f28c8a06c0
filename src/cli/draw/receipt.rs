//! A decision's receipt as a small bar chart: what each axis' score is made of, and what came of it.
//!
//! ```text
//! intrusion  72  high
//!      +62  ███████▍      auth.burst@3  credentials  20 in 60s, now
//!      +10  █▏░           app.says@1    credentials  reported by the app, 3m ago, half of 20
//! actions    alert, step_up
//! expires    2026-01-31T13:00:00.000Z
//! ```
//!
//! A bar as long as its column is 100 points. What a contribution loses to stronger ones of its family is drawn light. The lines
//! of an axis add up to its score.

use super::clean;
use crate::sink::row::EventRow;
use std::collections::BTreeMap;
use tripline_core::decision::{ContextApplied, Contribution, Decision, HeldBack, Points};
use tripline_core::firing::thousandths;
use tripline_core::score::Axis;
use tripline_core::score::reasons::severity_of;
use tripline_core::time::format_duration_ms;

/// What the chart shows of a decision. No field of it names a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    risk_score: i64,
    severity: String,
    axes: BTreeMap<Axis, Points>,
    contributions: Vec<Contribution>,
    context: Vec<ContextApplied>,
    actions: Vec<String>,
    held_back: Vec<HeldBack>,
    expires_at: Option<String>,
}

impl From<&Decision> for Receipt {
    fn from(decision: &Decision) -> Receipt {
        Receipt {
            risk_score: decision.risk_score.into(),
            severity: decision.severity.name().to_owned(),
            axes: decision.axes.clone(),
            contributions: decision.contributions.clone(),
            context: decision.context.clone(),
            actions: actions(
                decision.should_alert,
                decision.should_throttle.then_some(decision.throttle_interval_ms),
                decision.should_step_up,
                decision.should_block,
            ),
            held_back: decision.held_back.clone(),
            expires_at: decision.expires_at.clone(),
        }
    }
}

impl TryFrom<&EventRow> for Receipt {
    type Error = serde_json::Error;

    fn try_from(row: &EventRow) -> Result<Receipt, serde_json::Error> {
        let interval_ms = row.throttle_interval_ms.and_then(|ms| u64::try_from(ms).ok());
        Ok(Receipt {
            risk_score: row.risk_score,
            severity: row.severity.clone(),
            axes: serde_json::from_str(&row.axes)?,
            contributions: serde_json::from_str(&row.receipt)?,
            context: serde_json::from_str(&row.context)?,
            actions: actions(row.should_alert, row.should_throttle.then_some(interval_ms), row.should_step_up, row.blocked),
            held_back: serde_json::from_str(&row.held_back)?,
            expires_at: row.expires_at.clone(),
        })
    }
}

fn actions(alert: bool, throttle: Option<Option<u64>>, step_up: bool, block: bool) -> Vec<String> {
    let mut actions = Vec::new();
    let mut add = |takes: bool, action: &str| actions.extend(takes.then(|| action.to_owned()));
    add(alert, "alert");
    match throttle {
        Some(Some(ms)) => add(true, &format!("throttle to one in {ms} ms")),
        Some(None) => add(true, "throttle"),
        None => {}
    }
    add(step_up, "step_up");
    add(block, "block");
    actions
}

/// Draws a receipt for a terminal of so many columns; narrower than that only if a word is longer.
pub fn draw(receipt: &Receipt, columns: usize) -> String {
    let mut out = String::new();
    let table = Table::of(&receipt.contributions, columns);
    for axis in Axis::ALL.into_iter().map(Some).chain([None]) {
        let lines: Vec<&Contribution> = receipt.contributions.iter().filter(|line| line.axis == axis).collect();
        if lines.is_empty() {
            continue;
        }
        out.push_str(&headline(receipt, axis));
        lines.into_iter().for_each(|line| table.draw(line, &mut out));
    }
    if receipt.contributions.is_empty() {
        out.push_str(&headline(receipt, None));
    }
    let context = receipt.context.iter().map(|context| format!("{} x{}", context.id, thousandths(context.times.0)));
    let context = context.collect::<Vec<_>>().join(", ");
    let actions = if receipt.actions.is_empty() { "none".to_owned() } else { receipt.actions.join(", ") };
    let mut facts = vec![("context", context), ("actions", actions)];
    facts.extend(receipt.held_back.iter().map(|held| ("held back", format!("{} by {}", held.action, held.by))));
    facts.push(("expires", receipt.expires_at.clone().unwrap_or_default()));
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str(&format!("{name:<9}  {}\n", clean(value)));
    }
    out
}

/// Name, score and severity of an axis. The one that makes the risk score has the decision's severity, which is never more than a
/// step below that of the strongest reason.
fn headline(receipt: &Receipt, axis: Option<Axis>) -> String {
    let Some(axis) = axis else { return format!("score  {}  {}\n", receipt.risk_score, clean(&receipt.severity)) };
    let score = receipt.axes.get(&axis).copied().unwrap_or_default();
    let whole = u8::try_from(score.0.saturating_add(500) / 1_000).unwrap_or(100);
    let severity = if i64::from(whole) == receipt.risk_score { receipt.severity.as_str() } else { severity_of(whole).name() };
    format!("{}  {}  {}\n", axis.name(), thousandths(score.0), clean(severity))
}

/// The widths that all lines of a receipt share.
struct Table {
    points: usize,
    bar: usize,
    rule: usize,
    family: usize,
    columns: usize,
}

impl Table {
    fn of(lines: &[Contribution], columns: usize) -> Table {
        let widest = |text: fn(&Contribution) -> String| lines.iter().map(|line| text(line).chars().count()).max().unwrap_or(0);
        Table {
            points: widest(points).max("+100".len()),
            bar: (columns / 8).clamp(8, 24),
            rule: widest(|line| clean(&line.rule)),
            family: widest(|line| clean(line.family.as_deref().unwrap_or_default())),
            columns,
        }
    }

    fn draw(&self, line: &Contribution, out: &mut String) {
        let mut head = format!("  {:>1$}  ", points(line), self.points);
        head.push_str(&pad(&bar(line, self.bar), self.bar));
        head.push_str("  ");
        head.push_str(&pad(&clean(&line.rule), self.rule));
        if self.family > 0 {
            head.push_str("  ");
            head.push_str(&pad(&clean(line.family.as_deref().unwrap_or_default()), self.family));
        }
        head.push_str("  ");
        let indent = head.chars().count();
        for row in wrapped(&clean(&reason(line)), self.columns.saturating_sub(indent).max(LEAST_TEXT)) {
            out.push_str(format!("{}{row}", std::mem::take(&mut head)).trim_end());
            out.push('\n');
            head = " ".repeat(indent);
        }
    }
}

/// A reason gets this much room on each of its lines, however narrow the terminal.
const LEAST_TEXT: usize = 24;

/// Breaks text into lines of at most so many characters where it has spaces; at least one line.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap_or_else(|| unreachable!("there is a first line"));
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > columns {
            lines.push(word.to_owned());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines
}

/// Padded by characters, which is what a terminal counts.
fn pad(text: &str, columns: usize) -> String {
    format!("{text:<columns$}")
}

fn points(line: &Contribution) -> String {
    format!("{}{}", if line.points.0 < 0 { "" } else { "+" }, thousandths(line.points.0))
}

/// An eighth of a column each.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// What counts in full blocks, to an eighth of a column; what its rank took from it in light ones. No bar for what is taken off.
fn bar(line: &Contribution, columns: usize) -> String {
    let eighths = |points: i64| usize::try_from(points.clamp(0, 100_000)).unwrap_or(0) * columns * 8 / 100_000;
    let counts = eighths(line.points.0);
    let mut bar = "█".repeat(counts / 8);
    if !counts.is_multiple_of(8) {
        bar.push(EIGHTHS[counts % 8]);
    } else if counts == 0 && line.points.0 > 0 {
        // Something is there, however little.
        bar.push(EIGHTHS[1]);
    }
    let all = undivided(line).map_or(0, |all| eighths(all).div_ceil(8));
    let drawn = bar.chars().count();
    bar.push_str(&"░".repeat(all.saturating_sub(drawn)));
    bar
}

/// What a contribution would be worth with its whole share, thousandths; `None` when it has it, and when nothing is left to tell.
fn undivided(line: &Contribution) -> Option<i64> {
    let share = line.share?.0;
    (share > 0).then(|| line.points.0.saturating_mul(1_000) / share)
}

/// Why, since when, and what speaks for less or more.
fn reason(line: &Contribution) -> String {
    let mut parts = vec![line.why.clone()];
    parts.extend(line.anomaly_type.clone());
    parts.extend(line.age_s.map(age));
    parts.extend(line.confidence.map(|confidence| format!("confidence {}", thousandths(confidence.0))));
    match (line.share.map(|share| share.0), undivided(line)) {
        (Some(500), Some(all)) => parts.push(format!("half of {}", thousandths(all))),
        (Some(250), Some(all)) => parts.push(format!("a quarter of {}", thousandths(all))),
        (Some(share), Some(all)) => parts.push(format!("{} of {}", thousandths(share), thousandths(all))),
        (Some(_), None) => parts.push("adds nothing beside three stronger ones of its family".to_owned()),
        (None, _) => {}
    }
    parts.join(", ")
}

/// In its largest unit of which there are at least two.
fn age(seconds: i64) -> String {
    let units = [86_400, 3_600, 60, 1];
    let unit = units.into_iter().find(|unit| seconds >= 2 * unit || *unit == 1).unwrap_or(1);
    if seconds <= 0 { "now".to_owned() } else { format!("{} ago", format_duration_ms(seconds / unit * unit * 1_000)) }
}

#[cfg(test)]
mod tests;
