//! `tripline check`: settings, rules and flags, all problems at once.

use super::failure::count;
use super::{Failure, Global, Output, code, lint, print};
use crate::config::memory::Shares;
use crate::config::{Config, Sources, defaults, load};
use crate::{flags, rules};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tripline_core::diagnostic::Diagnostic;
use tripline_core::engine::{Emit, Engine};
use tripline_core::flags::FlagSnapshot;
use tripline_core::rule::RuleSet;

/// What to check.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Folders of rules, settings files and flags files; without any, what the settings in force name
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Warnings are findings: exit code 1
    #[arg(long)]
    pub strict: bool,
    /// How to print problems
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    problems: Vec<Diagnostic>,
    warnings: Vec<String>,
    /// Lint of the packs: its problems make exit code 1, and with `--strict` its warnings.
    lint: tripline_core::lint::Findings,
    /// What the rules of each pack remember: in words, and as JSON.
    costs: Vec<(String, Value)>,
    /// What is in order, in words.
    good: Vec<String>,
}

/// Checks; problems make exit code 3.
pub fn run(args: &CheckArgs, global: &Global) -> Result<u8, Failure> {
    let mut findings = Findings::default();
    if args.paths.is_empty() {
        findings.everything(global);
    } else {
        for path in &args.paths {
            findings.path(path);
        }
    }
    match args.output {
        Output::Json => print(&format!("{:#}\n", findings.json()))?,
        Output::Table => print(&findings.text())?,
    };
    Ok(findings.exit_code(args.strict))
}

impl Findings {
    fn exit_code(&self, is_strict: bool) -> u8 {
        let warned = !self.warnings.is_empty() || !self.lint.warnings.is_empty();
        if !self.problems.is_empty() {
            code::INVALID
        } else if !self.lint.problems.is_empty() || (is_strict && warned) {
            code::FINDINGS
        } else {
            code::OK
        }
    }

    /// The settings in force and what they name.
    fn everything(&mut self, global: &Global) {
        let loaded = match load(&Sources::of_process(global.files.clone(), global.settings.clone())) {
            Ok(loaded) => loaded,
            Err(problems) => return self.problems.extend(problems),
        };
        self.warnings.extend(loaded.warnings);
        self.good.push("settings".to_owned());
        self.good.extend(mappings(&loaded.config));
        // Settings that are valid fit: what it says is how.
        self.good
            .extend(Shares::of(&loaded.config, loaded.config.topics.partitions as usize).map(|shares| format!("memory.budget {shares}")));
        let Config { rules, flags, .. } = &loaded.config;
        let pack = self.pack(&rules.path, &rules.settings);
        let snapshot = self.flags(&flags.file);
        if let (Some(pack), Some(snapshot)) = (pack, snapshot) {
            self.warnings.extend(flags::unused(&snapshot, &pack.flags));
            let engine = Engine::new(pack.into(), &snapshot, Emit::Fired);
            if let Some(flag) = engine.switched_off_by() {
                self.warnings
                    .push(format!("nothing will be decided: the master flag `{flag}` is off; switch it on in the flags file (flags.file)"));
            }
        }
    }

    fn path(&mut self, path: &Path) {
        match Kind::of(path) {
            Kind::Pack(folder) => drop(self.pack(&folder, Path::new(""))),
            Kind::Flags => drop(self.flags(path)),
            Kind::Settings => match load(&Sources { files: vec![path.to_owned()], ..Sources::default() }) {
                Ok(loaded) => {
                    self.warnings.extend(loaded.warnings);
                    self.good.push(format!("settings {}", path.display()));
                }
                Err(problems) => self.problems.extend(problems),
            },
        }
    }

    fn pack(&mut self, folder: &Path, settings: &Path) -> Option<RuleSet> {
        match rules::load_pack(folder, settings) {
            Ok(pack) => {
                self.good.push(format!("rules {}: {}, {}", folder.display(), count(pack.rules.len(), "rule"), pack.digest));
                let found = lint::of(&pack);
                self.lint.warnings.extend(found.warnings);
                self.lint.problems.extend(found.problems);
                self.costs.push((lint::costs(&pack), lint::costs_as_json(&pack)));
                Some(pack)
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    fn flags(&mut self, file: &Path) -> Option<FlagSnapshot> {
        match flags::load_file(file) {
            Ok(snapshot) => {
                let name =
                    if file.as_os_str().is_empty() { "none, so declared defaults hold".to_owned() } else { file.display().to_string() };
                self.good.push(format!("flags {name}: {}, {}", count(snapshot.flags.len(), "flag"), snapshot.digest));
                Some(snapshot)
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    fn text(&self) -> String {
        let found = self.problems.iter().chain(&self.lint.problems).chain(&self.lint.warnings);
        let mut text: String = found.map(|problem| format!("{problem}\n")).collect();
        self.costs.iter().for_each(|(costs, _)| text.push_str(costs));
        self.good.iter().for_each(|good| text.push_str(&format!("ok: {good}\n")));
        self.warnings.iter().for_each(|warning| text.push_str(&format!("warning: {warning}\n")));
        text.push_str(&format!(
            "{}, {}\n",
            count(self.problems.len() + self.lint.problems.len(), "problem"),
            count(self.warnings.len() + self.lint.warnings.len(), "warning")
        ));
        text
    }

    fn json(&self) -> Value {
        let all = |found: &[Diagnostic]| found.iter().map(lint::as_json).collect::<Vec<_>>();
        json!({
            "problems": all(&[self.problems.as_slice(), &self.lint.problems].concat()),
            "warnings": self.warnings, "lint": all(&self.lint.warnings),
            "state": self.costs.iter().map(|(_, costs)| costs).collect::<Vec<_>>(),
        })
    }
}

/// How each topic's records become events, if any topic has a mapping.
fn mappings(config: &Config) -> Vec<String> {
    if config.input.mapping.is_empty() {
        return Vec::new();
    }
    let how = |topic: &String| config.input.mapping_of(topic).map_or("none, so its records are events", |mapping| mapping.summary());
    config.input.topics.iter().map(|topic| format!("mapping of {topic}: {}", how(topic))).collect()
}

/// What a path is.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A rule pack: the folder, or the folder of one of its files (rules lean on their pack).
    Pack(PathBuf),
    Settings,
    Flags,
}

impl Kind {
    /// TOML is settings. YAML and JSON tell by their first keys: `kind:` is a rule pack's document, a section's name
    /// settings, anything else flags.
    fn of(path: &Path) -> Kind {
        if path.is_dir() || (!path.exists() && path.extension().is_none()) {
            return Kind::Pack(path.to_owned());
        }
        if path.extension().is_some_and(|e| e == "toml") {
            return Kind::Settings;
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut keys = text.lines().filter_map(|line| line.trim_start_matches(['{', ' ', '"']).split_once([':', '"'])).map(|(key, _)| key);
        let sections = defaults().shown();
        let found = keys.find_map(|key| match key {
            "kind" => Some(Kind::Pack(path.parent().map_or_else(PathBuf::new, Path::to_owned))),
            key if sections.get(key).is_some() => Some(Kind::Settings),
            _ => None,
        });
        match found {
            Some(Kind::Pack(folder)) if folder.as_os_str().is_empty() => Kind::Pack(".".into()),
            Some(kind) => kind,
            None => Kind::Flags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_by_what_it_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = |name: &str, text: &str, expected: Kind| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            assert_eq!(Kind::of(&path), expected, "{name}");
        };
        check("a.toml", "", Kind::Settings);
        check("a.yaml", "# mine\nstream:\n  lanes: 2\n", Kind::Settings);
        check("rules.yaml", "schema: 1\nkind: rule\n", Kind::Pack(folder.path().to_owned()));
        check("flags.yaml", "ANOMALY_DETECTION_ENABLED: true\n", Kind::Flags);
        check("flags.json", "{\"ANOMALY_DETECTION_ENABLED\": {\"enabled\": true}}", Kind::Flags);
        check("settings.json", "{\"stream\": {\"lanes\": 2}}", Kind::Settings);
        assert_eq!(Kind::of(folder.path()), Kind::Pack(folder.path().to_owned()));
    }
}
