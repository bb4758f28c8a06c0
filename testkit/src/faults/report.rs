//! What a run did and what it found, as a table.

use super::checker::{Kind, Violation};
use super::evidence::Checked;
use super::nemesis::Struck;
use super::schedule::{Fault, Step};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Sums over the rounds of a run.
#[derive(Debug, Default)]
pub struct Report {
    faults: BTreeMap<&'static str, u64>,
    points: BTreeMap<String, u64>,
    rounds: u64,
    void: u64,
    events: u64,
    panicked: u64,
    most_epochs: usize,
    compared: BTreeMap<&'static str, u64>,
    violations: BTreeMap<Kind, u64>,
    wipes: usize,
    back_after: Vec<Duration>,
}

impl Report {
    /// Notes a fault.
    pub fn struck(&mut self, step: &Step, struck: &Struck) {
        *self.faults.entry(step.fault.name()).or_default() += 1;
        if step.fault == Fault::FailPoint {
            let point = step.point.split('@').next().unwrap_or_default();
            *self.points.entry(point.to_owned()).or_default() += 1;
        }
        self.back_after.extend(struck.back_after);
    }

    /// Notes the check at the end of a round.
    pub fn checked(&mut self, checked: &Checked, wipes: usize) {
        self.rounds += 1;
        self.events += checked.events;
        self.panicked += checked.panicked;
        self.most_epochs = self.most_epochs.max(checked.epochs);
        self.wipes += wipes;
        for (topic, compared) in &checked.compared {
            *self.compared.entry(topic).or_default() += compared;
        }
        for Violation { kind, .. } in &checked.violations {
            *self.violations.entry(*kind).or_default() += 1;
        }
    }

    /// Notes a round in which the broker itself broke its promises: nothing of it counts.
    pub fn void(&mut self) {
        self.void += 1;
    }

    /// Faults so far.
    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.wipes == 0
    }

    /// A record of this topic was compared.
    pub fn compared(&self, topic: &str) -> u64 {
        self.compared.get(topic).copied().unwrap_or_default()
    }

    /// The tables for `docs/faults.md`.
    pub fn markdown(&self) -> String {
        let list = |counts: &mut dyn Iterator<Item = (String, u64)>| {
            let all: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
            if all.is_empty() { "none".to_owned() } else { all.join(", ") }
        };
        let mut text = String::from("| What | Seen |\n|---|---|\n");
        let mut row = |what: &str, seen: String| {
            let _ = writeln!(text, "| {what} | {seen} |");
        };
        row("faults", self.faults().to_string());
        row("by kind", list(&mut self.faults.iter().map(|(name, count)| ((*name).to_owned(), *count))));
        row("fail points", list(&mut self.points.iter().map(|(name, count)| (name.clone(), *count))));
        row("rounds, those that the broker made void", format!("{}, {}", self.rounds, self.void));
        row("input records", self.events.to_string());
        row("records compared", list(&mut self.compared.iter().map(|(topic, count)| ((*topic).to_owned(), *count))));
        row("dead-lettered because they were made to panic", self.panicked.to_string());
        row("rules and flags that decided, in one round", self.most_epochs.to_string());
        for kind in Kind::ALL {
            row(&format!("**{}**", kind.name()), self.violations.get(&kind).copied().unwrap_or_default().to_string());
        }
        row("**states wiped**", self.wipes.to_string());
        row("kill → next decision, p50 / p99 / max", self.latency());
        text
    }

    fn latency(&self) -> String {
        let mut sorted = self.back_after.clone();
        sorted.sort();
        let Some(last) = sorted.last() else { return "not measured".to_owned() };
        // The nearest rank: with few kills p99 is the maximum.
        let rank = |share: f64| sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1];
        let [p50, p99, most] = [rank(0.5), rank(0.99), *last].map(|d| format!("{:.2} s", d.as_secs_f64()));
        format!("{p50} / {p99} / {most} ({} kills)", sorted.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(fault: Fault, point: &str) -> Step {
        Step { fault, who: 0, after_ms: 0, extra_ms: 0, point: point.into() }
    }

    #[test]
    fn a_report_adds_up() {
        let mut report = Report::default();
        for ms in 1..=100 {
            let struck = Struck { back_after: Some(Duration::from_millis(ms * 10)), ..Struck::default() };
            report.struck(&step(Fault::KillWorker, ""), &struck);
        }
        report.struck(&step(Fault::FailPoint, "after_drain=kill@7"), &Struck::default());
        assert!(report.is_clean());
        let violation = Violation { kind: Kind::Lost, topic: "alerts".into(), id: "a".into(), detail: String::new() };
        let checked = Checked { violations: vec![violation], compared: [("alerts", 7)].into(), events: 9, ..Checked::default() };
        report.checked(&checked, 0);
        assert!(!report.is_clean());
        let text = report.markdown();
        assert!(text.contains("| by kind | fail-point 1, kill-worker 100 |"), "{text}");
        assert!(text.contains("| fail points | after_drain=kill 1 |") && text.contains("| records compared | alerts 7 |"), "{text}");
        assert!(text.contains("| **lost** | 1 |") && text.contains("| **duplicated** | 0 |"), "{text}");
        assert!(text.contains("0.50 s / 0.99 s / 1.00 s (100 kills)"), "{text}");
    }

    #[test]
    fn a_wiped_state_is_no_clean_run() {
        let mut report = Report::default();
        report.checked(&Checked::default(), 1);
        assert!(!report.is_clean());
    }
}
