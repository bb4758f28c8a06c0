//! What `tripline replay` decides about events, to compare with what the worker decided.

use crate::worker::{FLAGS, Setup};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// The decisions about these events (NDJSON) by their ids; `emit` as in `decisions.emit`.
pub fn decisions(setup: &Setup, events: &str, emit: &str) -> Result<BTreeMap<String, Value>> {
    let folder = tempfile::tempdir().context("could not make a folder for the sample")?;
    let (input, flags) = (folder.path().join("sample.ndjson"), folder.path().join("flags.json"));
    std::fs::write(&input, events)?;
    std::fs::write(&flags, FLAGS)?;
    let mut command = Command::new(&setup.binary);
    command.args(["replay", "--emit", emit, "--rules"]).arg(&setup.rules).arg("--input").arg(&input).arg("--flags").arg(&flags);
    let output = command.output().context("could not run tripline")?;
    ensure!(output.status.success(), "replay: {}", String::from_utf8_lossy(&output.stderr));
    Ok(by_id(String::from_utf8(output.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?))
}

/// Decisions by their ids.
pub fn by_id(decisions: Vec<Value>) -> BTreeMap<String, Value> {
    decisions.into_iter().map(|decision| (decision["decision_id"].as_str().unwrap_or_default().to_owned(), decision)).collect()
}

/// An error that names the first difference, unless the worker decided what replay decides.
pub fn ensure_equal(found: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) -> Result<()> {
    for (id, decision) in expected {
        let of_worker = found.get(id).with_context(|| format!("only replay makes this decision: {decision}"))?;
        ensure!(of_worker == decision, "the worker decides {of_worker}\nand replay {decision}");
    }
    let unexpected = found.iter().find(|(id, _)| !expected.contains_key(*id));
    ensure!(unexpected.is_none(), "replay does not make this decision: {unexpected:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn more_fewer_and_other_decisions_are_differences() {
        let decisions = |ids: &[(&str, u32)]| by_id(ids.iter().map(|(id, risk)| json!({"decision_id": id, "risk": risk})).collect());
        let expected = decisions(&[("a", 1), ("b", 2)]);
        assert!(ensure_equal(&expected, &expected).is_ok());
        for other in [decisions(&[("a", 1)]), decisions(&[("a", 1), ("b", 3)]), decisions(&[("a", 1), ("b", 2), ("c", 3)])] {
            assert!(ensure_equal(&other, &expected).is_err());
        }
    }
}
