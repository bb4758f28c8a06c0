//! Problems with settings, collected until all are known.

use super::layer::Origin;
use std::collections::BTreeMap;
use tripline_core::diagnostic::Diagnostic;

/// A file cannot be read, or is not TOML or YAML.
pub const UNREADABLE: &str = "C001";
/// A section or key does not exist.
pub const UNKNOWN_KEY: &str = "C002";
/// A value is of another type than its key.
pub const WRONG_TYPE: &str = "C003";
/// A value is not possible, alone or beside another one.
pub const INVALID: &str = "C004";
/// A client property would break exactly-once.
pub const PROPERTY: &str = "C005";
/// A secret file cannot be read.
pub const SECRET_FILE: &str = "C006";
/// The mapping of a topic cannot be used.
pub const MAPPING: &str = "C007";

/// All problems so far, and the files' texts for excerpts.
#[derive(Debug, Default)]
pub struct Report {
    /// Found so far.
    pub problems: Vec<Diagnostic>,
    texts: BTreeMap<String, String>,
}

impl Report {
    /// Keeps a file's text for excerpts.
    pub fn add_file(&mut self, path: &str, text: &str) {
        self.texts.insert(path.to_owned(), text.to_owned());
    }

    /// Notes a problem.
    pub fn problem(&mut self, code: &'static str, origin: &Origin, message: impl Into<String>, help: Option<String>) {
        let (file, line, column) = match origin {
            Origin::Default => ("default settings".to_owned(), 0, 0),
            Origin::File { path, at } => (path.clone(), at.line, at.column),
            Origin::Environment(name) => (format!("environment variable {name}"), 0, 0),
            Origin::Flag => ("--set".to_owned(), 0, 0),
        };
        let excerpt = self.excerpt(&file, line);
        self.problems.push(Diagnostic { code, file, line, column, message: message.into(), excerpt, help });
    }

    /// All problems, by file and place.
    pub fn in_order(mut self) -> Vec<Diagnostic> {
        self.problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        self.problems
    }

    /// The source line, unless it may hold a secret.
    fn excerpt(&self, file: &str, line: usize) -> Option<String> {
        let text = self.texts.get(file)?.lines().nth(line.checked_sub(1)?)?;
        (!super::secret::is_secret_name(text) && !text.contains("://")).then(|| text.to_owned())
    }
}
