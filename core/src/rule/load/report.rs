//! Problems, collected: each with its place, its source line and the way out.

use super::SourceFile;
use crate::diagnostic::{Diagnostic, nearest};

/// Where something stands in the pack's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the file.
    pub file: usize,
    /// Line from 1; 0 for the whole file.
    pub line: usize,
    /// Column in characters from 1; 0 for the whole line.
    pub column: usize,
}

/// The name that problems of overriding settings carry instead of a file's.
pub const SETTINGS: &str = "settings";

/// The most problems that are listed; more are only counted, so that a hostile or generated file costs little.
pub const MAX_PROBLEMS: usize = 1_000;
/// The longest source line that is shown.
const MAX_EXCERPT_BYTES: usize = 400;

/// Every problem found so far.
#[derive(Debug)]
pub struct Report<'f> {
    files: &'f [SourceFile],
    found: Vec<Diagnostic>,
    beyond: usize,
}

impl<'f> Report<'f> {
    /// An empty report on these files.
    pub fn new(files: &'f [SourceFile]) -> Report<'f> {
        Report { files, found: Vec::new(), beyond: 0 }
    }

    /// The files.
    pub fn files(&self) -> &'f [SourceFile] {
        self.files
    }

    /// Whether nothing was found so far.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds a problem at a place.
    pub fn problem(&mut self, code: &'static str, at: Place, message: impl Into<String>, help: Option<String>) {
        if self.found.len() >= MAX_PROBLEMS {
            self.beyond += 1;
            return;
        }
        let file = &self.files[at.file];
        let excerpt =
            at.line.checked_sub(1).and_then(|n| file.text.lines().nth(n)).filter(|l| l.len() <= MAX_EXCERPT_BYTES).map(str::to_owned);
        let diagnostic =
            Diagnostic { code, file: file.name.clone(), line: at.line, column: at.column, message: message.into(), excerpt, help };
        if !self.found.contains(&diagnostic) {
            self.found.push(diagnostic);
        }
    }

    /// Adds a problem of the pack as a whole, or of the overriding settings.
    pub fn global(&mut self, code: &'static str, file: &str, message: impl Into<String>, help: Option<String>) {
        let (message, file) = (message.into(), file.to_owned());
        self.found.push(Diagnostic { code, file, line: 0, column: 0, message, excerpt: None, help });
    }

    /// The place of byte `offset` of a scalar's text, for scalars of every style: plain, quoted or block. Characters are
    /// matched up by counting those that are not white space, which folding and indentation change.
    pub fn inside(&self, scalar: Place, text: &str, offset: usize) -> Place {
        let before = text.char_indices().take_while(|(at, _)| *at < offset).filter(|(_, c)| !c.is_whitespace()).count();
        let mut skipping = before;
        let mut style = None;
        let mut escaped = false;
        for (index, line) in self.files[scalar.file].text.lines().enumerate().skip(scalar.line.saturating_sub(1)) {
            let first = if index + 1 == scalar.line { scalar.column.saturating_sub(1) } else { 0 };
            for (column, c) in line.chars().enumerate().skip(first) {
                let Some(style) = style else {
                    style = Some(c);
                    match c {
                        '\'' | '"' => continue,
                        '|' | '>' => break,
                        _ if skipping == 0 => return Place { line: index + 1, column: column + 1, ..scalar },
                        _ => skipping -= 1,
                    }
                    continue;
                };
                if escaped {
                    escaped = false;
                } else if (style == '"' && c == '\\') || (style == '\'' && c == '\'') {
                    escaped = true;
                    continue;
                }
                match (c.is_whitespace(), skipping) {
                    (true, _) => {}
                    (false, 0) => return Place { line: index + 1, column: column + 1, ..scalar },
                    (false, _) => skipping -= 1,
                }
            }
        }
        scalar
    }

    /// What was found, in the order of files and lines; `None` if nothing was.
    pub fn finish(mut self) -> Option<Vec<Diagnostic>> {
        let order = |d: &Diagnostic| self.files.iter().position(|f| f.name == d.file).unwrap_or(usize::MAX);
        self.found.sort_by_cached_key(|d| (order(d), d.line, d.column));
        if self.beyond > 0 {
            let message = format!("and {} more problems", self.beyond);
            self.global(super::codes::LIMIT, "rules", message, Some(format!("the first {MAX_PROBLEMS} are listed")));
        }
        (!self.found.is_empty()).then_some(self.found)
    }
}

/// "did you mean", if one of `known` is near, else the whole list when it is short.
pub fn did_you_mean<'a>(given: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(near) = nearest(given, known.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let all: Vec<String> = known.take(25).map(|k| format!("`{k}`")).collect();
    (1..25).contains(&all.len()).then(|| format!("known here: {}", all.join(", ")))
}
