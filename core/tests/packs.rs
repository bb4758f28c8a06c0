//! The packs that ship: their own tests hold, and lint has nothing to say of them that is not said here.

use serde_json::Map;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tripline_core::lint::{Circumstances, DEFAULT_RETENTION_MS, cost, lint};
use tripline_core::rule::RuleSet;
use tripline_core::rule::load::{SourceFile, load};
use tripline_core::trial::run_case;

fn packs() -> Vec<(String, RuleSet)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/packs");
    let list = |folder: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let load = |folder: PathBuf| {
        let yaml = list(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "yaml"));
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let files: Vec<SourceFile> =
            yaml.map(|path| SourceFile { name: name(&path), text: std::fs::read_to_string(&path).unwrap() }).collect();
        let set = load(&files, &Map::new()).unwrap_or_else(|found| panic!("{}", found.iter().map(ToString::to_string).collect::<String>()));
        (name(&folder), set)
    };
    list(&root).into_iter().map(load).collect()
}

#[test]
fn every_rule_of_every_pack_is_tested_and_its_tests_hold() {
    let packs = packs();
    assert!(!packs.is_empty());
    for (pack, set) in packs {
        let set = Arc::new(set);
        for (index, rule) in set.rules.iter().enumerate() {
            assert!(rule.tests.iter().any(|case| case.expect.is_empty()), "{pack}: {} is never quiet", rule.id);
            assert!(rule.tests.iter().any(|case| !case.expect.is_empty()), "{pack}: {} never fires", rule.id);
            for case in 0..rule.tests.len() {
                let report = run_case(&set, index, case);
                assert!(report.is_ok(), "{pack}: {}: {report:#?}", rule.id);
            }
        }
    }
}

/// A day on which every exception of the packs still holds; they have none yet.
const NOW_MS: i64 = 1_704_067_200_000;

#[test]
fn lint_finds_in_the_packs_what_is_known_and_no_more() {
    // The package's flag that only apps ask for, and its counters per path: as many of them as it may take to be exact.
    // And what the starter pack knows of an account's places is older than observations are kept.
    let known = [("anomaly-infra", "W008"), ("anomaly-infra", "W011"), ("anomaly-infra", "W011"), ("starter", "W010")];
    let circumstances = Circumstances { now_ms: NOW_MS, retention_ms: DEFAULT_RETENTION_MS, budget_bytes: cost::DEFAULT_BUDGET_BYTES };
    let mut found: Vec<(String, &str)> = Vec::new();
    for (pack, set) in packs() {
        let findings = lint(&set, circumstances);
        found.extend(findings.warnings.iter().chain(&findings.problems).map(|finding| (pack.clone(), finding.code)));
    }
    let mut found: Vec<(&str, &str)> = found.iter().map(|(pack, code)| (pack.as_str(), *code)).collect();
    found.sort_unstable();
    assert_eq!(found, known);
}
