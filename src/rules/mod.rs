//! A rule pack's folder to a [`RuleSet`]: the reading of files; what they mean is the core's business.

#[cfg(test)]
mod tests;

use crate::config::{Entity as EntitySettings, KeyedBy};
use serde_json::{Map, Value};
use std::io;
use std::path::{Path, PathBuf};
use tripline_core::diagnostic::Diagnostic;
use tripline_core::rule::load::{self, MAX_FILE_BYTES, MAX_FILES, SourceFile};
use tripline_core::rule::{By, RuleSet};

/// A file or folder cannot be read.
const UNREADABLE: &str = "P001";
/// More than is sane: files, bytes, levels of folders.
const TOO_MUCH: &str = "P002";
/// The settings file is not a map.
const NOT_A_MAP: &str = "P003";

/// The rules need what the settings do not give.
const UNMET: &str = "P004";

/// Folders inside folders at most; a link that leads back to its own folder ends here.
const MAX_LEVELS: usize = 8;

/// Loads the pack in a folder. `settings_file` overrides the pack's settings by name; empty for none.
pub fn load_pack(dir: &Path, settings_file: &Path) -> Result<RuleSet, Vec<Diagnostic>> {
    let sources = PackSources::read(dir, settings_file)?;
    sources.load()
}

/// What a pack is made of, read and not yet understood: equal sources make equal rule sets.
#[derive(Debug, Clone)]
pub struct PackSources {
    files: Vec<SourceFile>,
    settings_name: String,
    settings: Option<String>,
}

impl PackSources {
    /// Reads `*.yaml` and `*.yml` below a folder, sorted by their path in it. Names that begin with a dot are left out:
    /// a mounted ConfigMap keeps its versions in such folders.
    pub fn read(dir: &Path, settings_file: &Path) -> Result<PackSources, Vec<Diagnostic>> {
        if !dir.is_dir() {
            let help = "name the folder of a rule pack: rules.path, TRIPLINE_RULES__PATH or --rules";
            return Err(vec![problem(UNREADABLE, dir, "there is no such folder of rules".to_owned(), Some(help))]);
        }
        let (mut paths, mut problems) = (Vec::new(), Vec::new());
        collect(dir, 0, &mut paths, &mut problems);
        paths.sort();
        if paths.is_empty() && problems.is_empty() {
            problems.push(problem(
                UNREADABLE,
                dir,
                "the folder holds no rules".to_owned(),
                Some("a pack is made of `.yaml` and `.yml` files"),
            ));
        }
        if paths.len() > MAX_FILES {
            problems.push(problem(TOO_MUCH, dir, format!("{} files, at most {MAX_FILES} are allowed", paths.len()), None));
            paths.clear();
        }
        let mut files = Vec::with_capacity(paths.len());
        for path in &paths {
            match read_text(path) {
                Ok(text) => files.push(SourceFile { name: path.display().to_string(), text }),
                Err(diagnostic) => problems.push(*diagnostic),
            }
        }
        let mut settings = None;
        if !settings_file.as_os_str().is_empty() {
            match read_text(settings_file) {
                Ok(text) => settings = Some(text),
                Err(diagnostic) => problems.push(*diagnostic),
            }
        }
        let settings_name = settings_file.display().to_string();
        if problems.is_empty() { Ok(PackSources { files, settings_name, settings }) } else { Err(problems) }
    }

    /// Understands them.
    pub fn load(&self) -> Result<RuleSet, Vec<Diagnostic>> {
        let settings = match &self.settings {
            Some(text) => overrides(&self.settings_name, text)?,
            None => Map::new(),
        };
        load::load(&self.files, &settings)
    }

    /// Every text in order, for comparing.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter().map(|f| (f.name.as_str(), f.text.as_str()));
        files.chain(self.settings.iter().map(|text| (self.settings_name.as_str(), text.as_str())))
    }
}

/// What loaded rules need and the settings do not give.
pub fn unmet(rules: &RuleSet, path: &Path, keyed_by: KeyedBy, entity: &EntitySettings) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for rule in &rules.rules {
        if keyed_by == KeyedBy::Actor && rule.by != By::Actor {
            let message = format!("the rule {} counts another entity than the actor, and `input.keyed_by` is `actor`", rule.id);
            problems.push(problem(UNMET, path, message, Some("the routed mode (`input.keyed_by: none`) counts every kind of entity")));
        }
        if entity.session_key.is_empty() && rule.needs_sessions() {
            let message = format!("the rule {} looks at sessions, and there is no key to hash their ids with", rule.id);
            problems.push(problem(UNMET, path, message, Some("set `entity.session_key` to a secret")));
        }
    }
    problems
}

/// A settings file: a JSON or YAML map from name to value.
fn overrides(name: &str, text: &str) -> Result<Map<String, Value>, Vec<Diagnostic>> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    match serde_saphyr::from_str_with_options::<Option<Map<String, Value>>>(text, options) {
        Ok(map) => Ok(map.unwrap_or_default()),
        Err(error) => {
            let (line, column) = error.location().map_or((0, 0), |l| (l.line() as usize, l.column() as usize));
            let whole = error.without_snippet().to_string();
            let message =
                whole.lines().next().unwrap_or_default().split(" at line ").next().unwrap_or_default().trim_start_matches("error: ");
            let message = format!("not a map of settings: {message}");
            let help = Some("write `ANOMALY_BURST_THRESHOLD: 20`, one setting per line".to_owned());
            Err(vec![Diagnostic { code: NOT_A_MAP, file: name.to_owned(), line, column, message, excerpt: None, help }])
        }
    }
}

fn collect(dir: &Path, level: usize, paths: &mut Vec<PathBuf>, problems: &mut Vec<Diagnostic>) {
    if level > MAX_LEVELS {
        problems.push(problem(
            TOO_MUCH,
            dir,
            format!("folders nest deeper than {MAX_LEVELS} levels"),
            Some("does a link lead back to its own folder?"),
        ));
        return;
    }
    let listed = std::fs::read_dir(dir).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>());
    let mut entries = match listed {
        Ok(entries) => entries,
        Err(error) => return problems.push(problem(UNREADABLE, dir, format!("cannot read the folder: {error}"), None)),
    };
    entries.sort();
    for path in entries {
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        if path.is_dir() {
            collect(&path, level + 1, paths, problems);
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml")) {
            paths.push(path);
        }
        if !problems.is_empty() && problems[0].code == TOO_MUCH {
            return;
        }
    }
}

/// Reads a text file of bounded size.
pub(crate) fn read_text(path: &Path) -> Result<String, Box<Diagnostic>> {
    let unreadable = |error: io::Error| Box::new(problem(UNREADABLE, path, format!("cannot read the file: {error}"), None));
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE_BYTES as u64 {
        return Err(Box::new(problem(TOO_MUCH, path, format!("the file has {size} bytes, at most {MAX_FILE_BYTES} are allowed"), None)));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn problem(code: &'static str, path: &Path, message: String, help: Option<&str>) -> Diagnostic {
    Diagnostic { code, file: path.display().to_string(), line: 0, column: 0, message, excerpt: None, help: help.map(str::to_owned) }
}
