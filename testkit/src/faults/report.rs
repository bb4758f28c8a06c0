//! What a run did and what it found, as a table.

use super::checker::{Kind, Violation};
use super::evidence::Checked;
use super::inspect::Inspected;
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
    findings: usize,
    inspected: [u64; 3],
    ended: u64,
    back_after: Vec<Duration>,
    pauses: Vec<Duration>,
    left_out: Vec<(Fault, &'static str)>,
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
        self.pauses.extend(&struck.pauses);
    }

    /// Notes a kind of fault that cannot be done here, and why.
    pub fn left_out(&mut self, fault: Fault, why: &'static str) {
        self.left_out.push((fault, why));
    }

    /// Notes the check at the end of a round.
    pub fn checked(&mut self, checked: &Checked, inspected: &Inspected, wipes: usize) {
        self.rounds += 1;
        self.events += checked.events;
        self.panicked += checked.panicked;
        self.most_epochs = self.most_epochs.max(checked.epochs);
        self.wipes += wipes;
        self.findings += inspected.findings.len();
        for (sum, one) in self.inspected.iter_mut().zip([inspected.commits, inspected.stores, inspected.states]) {
            *sum += one;
        }
        for (topic, compared) in &checked.compared {
            *self.compared.entry(topic).or_default() += compared;
        }
        for Violation { kind, .. } in &checked.violations {
            *self.violations.entry(*kind).or_default() += 1;
        }
    }

    /// Notes a round in which the broker itself broke its promises: nothing of it counts but a process that ended.
    pub fn void(&mut self) {
        self.void += 1;
    }

    /// Notes a process that ended although nobody killed it.
    pub fn ended_by_itself(&mut self) {
        self.ended += 1;
    }

    /// Whether something was judged: a run of void rounds alone shows nothing.
    pub fn is_judged(&self) -> bool {
        self.rounds > 0
    }

    /// Faults so far.
    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.wipes == 0 && self.findings == 0 && self.ended == 0
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
        row("rounds judged, rounds that the broker made void", format!("{}, {}", self.rounds, self.void));
        row("input records", self.events.to_string());
        row("records compared", list(&mut self.compared.iter().map(|(topic, count)| ((*topic).to_owned(), *count))));
        row("dead-lettered because they were made to panic", self.panicked.to_string());
        row("rules and flags that decided, in one round", self.most_epochs.to_string());
        for kind in Kind::ALL {
            row(&format!("**{}**", kind.name()), self.violations.get(&kind).copied().unwrap_or_default().to_string());
        }
        row("**states wiped**", self.wipes.to_string());
        let [commits, stores, states] = self.inspected;
        row("commits audited; stores verified, states in them", format!("{commits}; {stores}, {states}"));
        row("**findings of `audit` and `state verify`**", self.findings.to_string());
        row("**processes that ended by themselves**", self.ended.to_string());
        row("kill → next decision, p50 / p99 / max", quantiles(&self.back_after, &[0.5, 0.99], "kills"));
        row("longest pause of an unaffected partition, p50 / max", quantiles(&self.pauses, &[0.5], "pauses"));
        for (fault, why) in &self.left_out {
            row("left out", format!("{}: {why}", fault.name()));
        }
        text
    }
}

/// These shares by the nearest rank, and the greatest: of few, p99 is the greatest, too.
fn quantiles(measured: &[Duration], shares: &[f64], what: &str) -> String {
    let mut sorted = measured.to_vec();
    sorted.sort();
    let Some(last) = sorted.last() else { return "not measured".to_owned() };
    let rank = |share: &f64| sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1];
    let said: Vec<String> = shares.iter().map(rank).chain([*last]).map(|d| format!("{:.2} s", d.as_secs_f64())).collect();
    format!("{} ({} {what})", said.join(" / "), sorted.len())
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
        let pauses = [30, 10, 20].map(Duration::from_millis).to_vec();
        report.struck(&step(Fault::FailPoint, "after_drain=kill@7"), &Struck { pauses, ..Struck::default() });
        assert!(report.is_clean());
        let violation = Violation { kind: Kind::Lost, topic: "alerts".into(), id: "a".into(), detail: String::new() };
        let checked = Checked { violations: vec![violation], compared: [("alerts", 7)].into(), events: 9, ..Checked::default() };
        report.checked(&checked, &Inspected::default(), 0);
        assert!(!report.is_clean());
        let text = report.markdown();
        assert!(text.contains("| by kind | fail-point 1, kill-worker 100 |"), "{text}");
        assert!(text.contains("| fail points | after_drain=kill 1 |") && text.contains("| records compared | alerts 7 |"), "{text}");
        assert!(text.contains("| **lost** | 1 |") && text.contains("| **duplicated** | 0 |"), "{text}");
        assert!(text.contains("0.50 s / 0.99 s / 1.00 s (100 kills)"), "{text}");
        assert!(text.contains("unaffected partition, p50 / max | 0.02 s / 0.03 s (3 pauses) |"), "{text}");
    }

    #[test]
    fn a_wiped_state_a_finding_and_a_process_that_ended_are_no_clean_run() {
        let is_clean = |note: &dyn Fn(&mut Report)| {
            let mut report = Report::default();
            note(&mut report);
            report.is_clean()
        };
        let found = Inspected { findings: vec!["audit: lost_commit".into()], ..Inspected::default() };
        assert!(is_clean(&|report| report.checked(&Checked::default(), &Inspected::default(), 0)));
        assert!(!is_clean(&|report| report.checked(&Checked::default(), &Inspected::default(), 1)));
        assert!(!is_clean(&|report| report.checked(&Checked::default(), &found, 0)));
        assert!(!is_clean(&|report| {
            report.void();
            report.ended_by_itself();
        }));
    }

    #[test]
    fn void_rounds_alone_show_nothing_and_what_was_left_out_is_said() {
        let mut report = Report::default();
        report.void();
        report.left_out(Fault::ClockJump, "no library");
        assert!(report.is_clean() && !report.is_judged());
        assert!(report.markdown().contains("| left out | clock-jump: no library |"));
        report.checked(&Checked::default(), &Inspected::default(), 0);
        assert!(report.is_judged());
    }
}
