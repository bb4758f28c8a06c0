//! What `check` and `test` say of a pack that loads: warnings, and what its rules may remember.

use serde_json::{Value, json};
use std::fmt::Write as _;
use tripline_core::diagnostic::Diagnostic;
use tripline_core::lint::{Circumstances, DEFAULT_RETENTION_MS, Findings, cost, lint};
use tripline_core::rule::RuleSet;

/// Lint of a pack, today.
pub fn of(set: &RuleSet) -> Findings {
    let circumstances = Circumstances {
        now_ms: jiff::Timestamp::now().as_millisecond(),
        retention_ms: DEFAULT_RETENTION_MS,
        budget_bytes: cost::DEFAULT_BUDGET_BYTES,
    };
    lint(set, circumstances)
}

/// The most that the rules remember of one entity: a line for each rule, and one for each kind of entity.
pub fn costs(set: &RuleSet) -> String {
    let costs = cost::of(set);
    let mut text = String::from("state of one entity, at most:\n");
    for rule in &costs.rules {
        let _ = writeln!(text, "  {:>9} bytes  {} (by {})", rule.bytes, set.rules[rule.rule].id, rule.by);
    }
    for (kind, bytes) in &costs.kinds {
        let _ = writeln!(text, "  {bytes:>9} bytes  all rules together, of one {kind}");
    }
    text
}

/// The costs as JSON: bytes by rule, and by kind of entity.
pub fn costs_as_json(set: &RuleSet) -> Value {
    let costs = cost::of(set);
    let rule = |cost: &cost::RuleCost| json!({"rule": set.rules[cost.rule].id, "by": cost.by, "bytes": cost.bytes});
    json!({"rules": costs.rules.iter().map(rule).collect::<Vec<_>>(), "kinds": costs.kinds})
}

/// A problem or warning as JSON.
pub fn as_json(found: &Diagnostic) -> Value {
    json!({
        "code": found.code, "file": found.file, "line": found.line, "column": found.column,
        "message": found.message, "excerpt": found.excerpt, "help": found.help,
    })
}
