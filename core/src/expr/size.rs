//! How much there is of an expression, and how much there may be.

use super::ExprError;
use super::tree::Span;

/// How deep an expression may be with its lets put in: bounds the recursion at run time.
pub(super) const MAX_DEPTH: usize = 128;
/// How large an expression may be with its lets put in: ten lets that each name another twice are a thousand times one.
pub(super) const MAX_NODES: usize = 10_000;
/// The most entries that the named lists of one expression have together, a list counting as often as it is named.
pub(super) const MAX_LIST_ENTRIES: usize = 200_000;
/// The most regular expressions of one expression.
pub(super) const MAX_PATTERNS: usize = 64;

/// How much there is of an expression, its lets put in. Each figure is bounded for one expression; a pack bounds their sums.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Names, literals, operators and calls.
    pub parts: usize,
    /// Entries of the named lists, a list counting as often as it is named: each mention keeps a prepared copy.
    pub list_entries: usize,
    /// Regular expressions, `contains` on folded case included: each takes at most 1 MiB, and ½ MiB more in each thread that
    /// has used it.
    pub patterns: usize,
}

impl Size {
    /// Notes one more part.
    pub(super) fn add_part(&mut self, span: Span) -> Result<(), ExprError> {
        self.parts += 1;
        let message = || format!("the expression has more than {MAX_NODES} parts with its lets put in");
        if self.parts > MAX_NODES { Err(span.error(message()).or_try("split the rule")) } else { Ok(()) }
    }

    /// Notes one more mention of a named list.
    pub(super) fn add_list(&mut self, entries: usize, span: Span) -> Result<(), ExprError> {
        self.list_entries = self.list_entries.saturating_add(entries);
        let message = || format!("the lists of the expression have more than {MAX_LIST_ENTRIES} entries together");
        if self.list_entries > MAX_LIST_ENTRIES { Err(span.error(message()).or_try("shorten the lists")) } else { Ok(()) }
    }

    /// Notes one more regular expression.
    pub(super) fn add_pattern(&mut self, span: Span) -> Result<(), ExprError> {
        self.patterns += 1;
        let message = || format!("the expression has more than {MAX_PATTERNS} regular expressions");
        if self.patterns > MAX_PATTERNS { Err(span.error(message()).or_try("join patterns with |, or split the rule")) } else { Ok(()) }
    }
}
