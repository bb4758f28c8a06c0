//! Feature flags from a file. What a flag means is the core's business.

use crate::rules::read_text;
use std::path::Path;
use tripline_core::diagnostic::{Diagnostic, nearest};
use tripline_core::flags::FlagSnapshot;
use tripline_core::rule::FlagDecl;

/// Loads a flags file. An empty path is no file: every flag has its declared default.
pub fn load_file(path: &Path) -> Result<FlagSnapshot, Vec<Diagnostic>> {
    match read(path)? {
        Some(text) => parse(path, &text),
        None => Ok(FlagSnapshot::default()),
    }
}

/// The text of a flags file; `None` for an empty path.
pub fn read(path: &Path) -> Result<Option<String>, Vec<Diagnostic>> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    match read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(mut diagnostic) => {
            diagnostic.help = Some("name a JSON or YAML file: flags.file, TRIPLINE_FLAGS__FILE or --flags".to_owned());
            Err(vec![*diagnostic])
        }
    }
}

/// Understands the text of a flags file.
pub fn parse(path: &Path, text: &str) -> Result<FlagSnapshot, Vec<Diagnostic>> {
    FlagSnapshot::parse(&path.display().to_string(), text)
}

/// Flags of the file that neither rules nor policy use. Not an error, as the file may serve other programs too, but a
/// misspelt flag would silently keep its default.
pub fn unused(snapshot: &FlagSnapshot, declared: &[FlagDecl]) -> Vec<String> {
    let names = || declared.iter().map(|d| d.name.as_str());
    let unknown = snapshot.flags.keys().filter(|name| !names().any(|n| n == name.as_str()));
    unknown
        .map(|name| match nearest(name, names()) {
            Some(near) => format!("the rule pack does not use the flag `{name}`; did you mean `{near}`?"),
            None => format!("the rule pack does not use the flag `{name}`"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_the_declared_defaults_and_a_missing_file_is_a_problem() {
        assert_eq!(load_file(Path::new("")), Ok(FlagSnapshot::default()));
        let problems = load_file(Path::new("nowhere/flags.yaml")).expect_err("there is no such file");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].file, "nowhere/flags.yaml");
        assert!(problems[0].help.as_deref().is_some_and(|h| h.contains("TRIPLINE_FLAGS__FILE")));
    }

    #[test]
    fn a_misspelt_flag_is_told_with_the_one_that_was_meant() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("flags.yaml");
        std::fs::write(&path, "ANOMALY_BLOKING_ENABLED: true\nANOMALY_ALERTING_ENABLED: true\nother: false\n").expect("written");
        let declare = |name: &str| FlagDecl { name: name.into(), default: false, description: String::new() };
        let declared = [declare("ANOMALY_BLOCKING_ENABLED"), declare("ANOMALY_ALERTING_ENABLED")];
        assert_eq!(
            unused(&load_file(&path).expect("valid"), &declared),
            [
                "the rule pack does not use the flag `ANOMALY_BLOKING_ENABLED`; did you mean `ANOMALY_BLOCKING_ENABLED`?",
                "the rule pack does not use the flag `other`"
            ]
        );
    }
}
