//! What the product's own inspectors say of a line at rest: `tripline audit`, and `tripline state verify` for every disk.

use super::fleet::Fleet;
use crate::line::Line;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Output;

/// Longer than a round lasts.
const SINCE: &str = "24h";
/// What `state verify` says of a folder in which no store ever came to a commit.
const NOTHING: &str = "nothing to verify";

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Every finding, in words.
    pub findings: Vec<String>,
    /// Commits that the audit held against their outputs.
    pub commits: u64,
    /// Stores that were held against the changelog.
    pub stores: u64,
    /// States in them that the changelog has, too.
    pub states: u64,
}

/// Audits the line and verifies every disk that a worker ever had. No worker may run. A task whose state no disk holds is a
/// finding, too: its last owner stopped in good order.
///
/// # Errors
/// When an inspector cannot do its work.
pub fn inspect(fleet: &Fleet) -> Result<Inspected> {
    let line = &fleet.line;
    let mut inspected = Inspected::default();
    inspected.audited(&report(&run(line, &["audit", "--since", SINCE], "auditor")?).context("tripline audit")?);
    let mut held = BTreeSet::new();
    for name in fleet.disks() {
        let done = run(line, &["state", "verify"], name)?;
        if String::from_utf8_lossy(&done.stderr).contains(NOTHING) {
            continue;
        }
        held.extend(inspected.verified(name, &report(&done).with_context(|| format!("tripline state verify of {name}"))?));
    }
    let missing = fleet.watch.partitions().iter().filter(|task| !held.contains(&i64::from(**task)));
    inspected.findings.extend(missing.map(|task| format!("no worker's disk holds a state of task {task}")));
    Ok(inspected)
}

fn run(line: &Line, args: &[&str], name: &str) -> Result<Output> {
    line.command(&[args, &["-o", "json"]].concat(), &line.settings(name))
}

/// What an inspector said: 0 and 1 come with a report.
fn report(done: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(matches!(done.status.code(), Some(0 | 1)), "{}: {said}", done.status);
    serde_json::from_slice(&done.stdout).with_context(|| format!("{}: no report: {said}", done.status))
}

impl Inspected {
    fn audited(&mut self, report: &Value) {
        self.commits += report["commits"].as_u64().unwrap_or_default();
        let findings = report["findings"].as_array().into_iter().flatten();
        self.findings.extend(findings.map(|finding| format!("audit: {finding}")));
        if report["clean"] != true && self.findings.is_empty() {
            self.findings.push(format!("audit: {report}"));
        }
        if self.commits == 0 {
            self.findings.push("audit: there was no commit to judge".to_owned());
        }
    }

    /// Answers which tasks the disk holds.
    fn verified(&mut self, name: &str, report: &Value) -> Vec<i64> {
        let stores = report.as_array().map_or(&[][..], Vec::as_slice);
        for store in stores {
            self.stores += 1;
            self.states += store["same"].as_u64().unwrap_or_default();
            if store["clean"] != true {
                self.findings.push(format!("state verify of {name}: {store}"));
            }
        }
        stores.iter().filter_map(|store| store["partition"].as_i64()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_finding_of_the_audit_is_kept_in_its_words_and_no_commit_is_one_too() {
        let mut inspected = Inspected::default();
        inspected.audited(&json!({"clean": true, "commits": 7, "findings": []}));
        assert_eq!(inspected, Inspected { commits: 7, ..Inspected::default() });
        inspected.audited(&json!({"clean": false, "commits": 7, "findings": [{"kind": "lost_commit"}]}));
        assert_eq!(inspected.findings, ["audit: {\"kind\":\"lost_commit\"}"]);
        let mut empty = Inspected::default();
        empty.audited(&json!({"clean": true, "commits": 0, "findings": []}));
        assert_eq!(empty.findings, ["audit: there was no commit to judge"]);
        let mut unsaid = Inspected::default();
        unsaid.audited(&json!({"clean": false, "commits": 1}));
        assert_eq!(unsaid.findings.len(), 1);
    }

    #[test]
    fn a_store_that_differs_is_a_finding_and_every_store_is_counted() {
        let mut inspected = Inspected::default();
        let stores = json!([{"partition": 0, "clean": true, "same": 5}, {"partition": 3, "clean": false, "same": 2}]);
        assert_eq!(inspected.verified("one", &stores), [0, 3]);
        assert_eq!((inspected.stores, inspected.states, inspected.findings.len()), (2, 7, 1));
        assert!(inspected.findings[0].starts_with("state verify of one: "), "{:?}", inspected.findings);
    }
}
