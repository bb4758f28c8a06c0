//! `tripline test`: the tests written inside rule files, on the way of production.

mod junit;

use super::failure::count;
use super::lint;
use super::{Failure, Global, Output, code, print};
use crate::rules;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tripline_core::lint::Findings;
use tripline_core::rule::RuleSet;
use tripline_core::trial::{self, CaseReport};

/// What to test.
#[derive(Debug, Clone, Args)]
pub struct TestArgs {
    /// Folders of rules, or files of them (the whole pack is loaded, the tests of these files run) [default: rules.path]
    #[arg(value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// Only the tests of this rule; may be repeated
    #[arg(long = "rule", value_name = "ID")]
    pub rules: Vec<String>,
    /// Write a JUnit report, too
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Warnings are findings: exit code 1
    #[arg(long)]
    pub strict: bool,
    /// How to print results
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// A rule and what became of its tests, with the time that each took.
#[derive(Debug)]
struct Tested {
    id: String,
    cases: Vec<(CaseReport, Duration)>,
}

/// A pack, and which of its files are meant; none for all.
struct Pack {
    folder: PathBuf,
    settings: PathBuf,
    files: BTreeSet<String>,
}

/// Tests; what fails makes exit code 1, a pack that does not load 3.
pub fn run(args: &TestArgs, global: &Global) -> Result<u8, Failure> {
    let (mut tested, mut findings) = (Vec::new(), Findings::default());
    let mut known = BTreeSet::new();
    for pack in packs(args, global)? {
        let set = Arc::new(rules::load_pack(&pack.folder, &pack.settings).map_err(|problems| Failure::invalid(&problems))?);
        known.extend(set.rules.iter().map(|rule| rule.id.clone()));
        tested.extend(test(&set, &pack.files, &args.rules));
        let found = lint::of(&set);
        findings.warnings.extend(found.warnings.into_iter().filter(|_| args.rules.is_empty()));
        findings.problems.extend(found.problems);
    }
    if let Some(unknown) = args.rules.iter().find(|id| !known.contains(*id)) {
        return Err(Failure::usage(format!("there is no rule `{unknown}` in the pack")));
    }
    if let Some(file) = &args.junit {
        let bytes = junit::report(&tested).map_err(|error| Failure::new(code::FINDINGS, format!("cannot make the report: {error}")))?;
        std::fs::write(file, bytes).map_err(|error| Failure::new(code::FINDINGS, format!("cannot write {}: {error}", file.display())))?;
    }
    let totals = Totals::of(&tested);
    match args.output {
        Output::Json => print(&format!("{:#}\n", as_json(&tested, &findings)))?,
        Output::Table => print(&text(&tested, &findings, &totals))?,
    };
    let is_clean = totals.failed == 0 && totals.ok > 0 && findings.problems.is_empty() && (!args.strict || findings.warnings.is_empty());
    Ok(if is_clean { code::OK } else { code::FINDINGS })
}

/// The packs that are meant: each folder once.
fn packs(args: &TestArgs, global: &Global) -> Result<Vec<Pack>, Failure> {
    if args.paths.is_empty() {
        let rules = global.load()?.config.rules;
        return Ok(vec![Pack { folder: rules.path, settings: rules.settings, files: BTreeSet::new() }]);
    }
    let mut packs: Vec<Pack> = Vec::new();
    for path in &args.paths {
        let is_file = path.is_file();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = if is_file { parent.to_owned() } else { path.clone() };
        let file = is_file.then(|| folder.join(path.file_name().unwrap_or_default()).display().to_string());
        match packs.iter_mut().find(|pack| pack.folder == folder) {
            // A folder beside one of its files means all of them.
            Some(pack) if file.is_none() || pack.files.is_empty() => pack.files.clear(),
            Some(pack) => pack.files.extend(file),
            None => packs.push(Pack { folder, settings: PathBuf::new(), files: file.into_iter().collect() }),
        }
    }
    Ok(packs)
}

/// Runs the tests of the rules that are meant.
fn test(set: &Arc<RuleSet>, files: &BTreeSet<String>, ids: &[String]) -> Vec<Tested> {
    let is_meant = |index: usize| {
        let file = set.outline.rules.get(index).map_or("", |places| &*places.at.file);
        (files.is_empty() || files.contains(file)) && (ids.is_empty() || ids.contains(&set.rules[index].id))
    };
    let run = |index: usize, case: usize| {
        let start = Instant::now();
        let report = trial::run_case(set, index, case);
        (report, start.elapsed())
    };
    (0..set.rules.len())
        .filter(|index| is_meant(*index))
        .map(|index| {
            let rule = &set.rules[index];
            Tested { id: rule.id.clone(), cases: (0..rule.tests.len()).map(|case| run(index, case)).collect() }
        })
        .collect()
}

/// What became of everything.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    rules: usize,
    untested: Vec<String>,
    ok: usize,
    failed: usize,
    not_run: usize,
}

impl Totals {
    fn of(tested: &[Tested]) -> Totals {
        let mut totals = Totals { rules: tested.len(), ..Totals::default() };
        for rule in tested {
            if rule.cases.is_empty() {
                totals.untested.push(rule.id.clone());
            }
            for (case, _) in &rule.cases {
                match (case.is_ok(), &case.not_run) {
                    (true, _) => totals.ok += 1,
                    (false, Some(_)) => totals.not_run += 1,
                    (false, None) => totals.failed += 1,
                }
            }
        }
        totals
    }
}

fn text(tested: &[Tested], findings: &Findings, totals: &Totals) -> String {
    let mut text = String::new();
    for problem in findings.problems.iter().chain(&findings.warnings) {
        let _ = writeln!(text, "{problem}");
    }
    for rule in tested.iter().filter(|rule| !rule.cases.is_empty()) {
        let _ = writeln!(text, "{}", rule.id);
        rule.cases.iter().for_each(|(case, _)| describe(case, &mut text));
        let skipped: BTreeSet<String> =
            rule.cases.iter().flat_map(|(case, _)| &case.skipped).map(|skipped| format!("{}: {}", skipped.way, skipped.why)).collect();
        for line in skipped {
            let _ = writeln!(text, "  left out  {line}");
        }
    }
    if !totals.untested.is_empty() {
        let _ = writeln!(text, "untested: {}", totals.untested.join(", "));
    }
    let Totals { rules, untested, ok, failed, not_run } = totals;
    let _ = writeln!(
        text,
        "{}, {} untested; {}: {ok} ok, {failed} failed, {not_run} not run; {}",
        count(*rules, "rule"),
        untested.len(),
        count(ok + failed + not_run, "test"),
        count(findings.warnings.len(), "warning")
    );
    if *ok == 0 && *failed == 0 {
        text.push_str("no test was run: that shows nothing\n");
    }
    text
}

fn describe(case: &CaseReport, text: &mut String) {
    let word = match (&case.not_run, case.is_ok()) {
        (Some(_), _) => "not run",
        (None, true) => "ok",
        (None, false) => "FAILED",
    };
    let _ = writeln!(text, "  {word:<8}  {} ({})", case.name, count(case.events, "event"));
    if let Some(why) = &case.not_run {
        let _ = writeln!(text, "            {why}");
    }
    for failed in &case.failed {
        let _ = writeln!(text, "            {}: {}", failed.way, failed.said);
    }
    if !case.failed.is_empty() {
        let _ = writeln!(text, "            --> {}:{}:{}", case.at.file, case.at.line, case.at.column);
    }
}

fn as_json(tested: &[Tested], findings: &Findings) -> Value {
    let case = |(case, took): &(CaseReport, Duration)| {
        json!({
            "name": case.name, "ok": case.is_ok(), "file": case.at.file.to_string(), "line": case.at.line, "events": case.events,
            "seconds": took.as_secs_f64(), "not_run": case.not_run,
            "ran": case.ran.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "left_out": case.skipped.iter().map(|s| json!({"way": s.way.to_string(), "why": s.why})).collect::<Vec<_>>(),
            "failed": case.failed.iter().map(|f| json!({"way": f.way.to_string(), "said": f.said})).collect::<Vec<_>>(),
        })
    };
    let rule = |rule: &Tested| json!({"id": rule.id, "tests": rule.cases.iter().map(case).collect::<Vec<_>>()});
    json!({
        "rules": tested.iter().map(rule).collect::<Vec<_>>(),
        "problems": findings.problems.iter().map(lint::as_json).collect::<Vec<_>>(),
        "warnings": findings.warnings.iter().map(lint::as_json).collect::<Vec<_>>(),
    })
}
