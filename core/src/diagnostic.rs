//! One problem in a file, with its place and the way out.

use std::fmt;

/// A problem found while loading rules, flags or config; a warning, if its code begins with `W`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable code, `R001`; the list is in `docs/rules.md`.
    pub code: &'static str,
    /// The file, as given by the user.
    pub file: String,
    /// Line from 1; 0 when the whole file is meant.
    pub line: usize,
    /// Column from 1; 0 when the whole line is meant.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The source line, if there is one.
    pub excerpt: Option<String>,
    /// The way out.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.code.starts_with('W') { "warning" } else { "error" };
        writeln!(f, "{word}[{}]: {}", self.code, self.message)?;
        match (self.line, self.column) {
            (0, _) => writeln!(f, "  --> {}", self.file)?,
            (line, 0) => writeln!(f, "  --> {}:{line}", self.file)?,
            (line, column) => writeln!(f, "  --> {}:{line}:{column}", self.file)?,
        }
        if let Some(excerpt) = &self.excerpt {
            writeln!(f, "   | {excerpt}")?;
            if self.column > 0 {
                writeln!(f, "   | {:>1$}", "^", self.column)?;
            }
        }
        if let Some(help) = &self.help {
            writeln!(f, "   = help: {help}")?;
        }
        Ok(())
    }
}

/// The nearest of `known` to `given`, when it is near enough to be what was meant.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known.into_iter().map(|k| (strsim::damerau_levenshtein(given, k), k)).filter(|(d, k)| *d <= 1 + k.len() / 4).min().map(|(_, k)| k)
}
