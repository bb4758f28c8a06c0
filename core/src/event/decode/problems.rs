//! What is wrong with a record, and the names seen in an object.

use crate::rejection::{Reason, Rejection};
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use std::borrow::Cow;

/// Keeps the problem that comes first in the order of [`Reason`]; of equal ones, the first found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    worst: Option<(Reason, &'static str)>,
}

impl Problems {
    /// Notes a problem. The detail is a word of the schema, so it cannot hold content of the record.
    pub fn note(&mut self, reason: Reason, detail: &'static str) {
        if self.worst.is_none_or(|(worst, _)| reason < worst) {
            self.worst = Some((reason, detail));
        }
    }

    /// Text with U+0000 cannot be stored: Postgres refuses it and C libraries cut it. In JSON it can only be written as
    /// an escape, and text with escapes is never borrowed.
    pub fn refuse_nul(&mut self, text: &Cow<'_, str>, detail: &'static str) {
        if matches!(text, Cow::Owned(text) if text.contains('\0')) {
            self.note(Reason::ControlCharacter, detail);
        }
    }

    pub fn worst(&self) -> Option<Rejection> {
        self.worst.map(|(reason, detail)| Rejection::new(reason, detail))
    }
}

/// Whether text has a control character: C0, DEL or C1 (in UTF-8 those begin with 0xc2).
pub(super) fn has_control(text: &str) -> bool {
    text.bytes().fold(false, |found, b| found | (b < 0x20) | (b == 0x7f) | (b == 0xc2)) && text.chars().any(char::is_control)
}

/// The names seen in one object. A few are compared one by one; an object made of a hundred thousand names must not
/// cost their square.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>, RandomState>,
}

const FEW: usize = 16;

impl<'a> Names<'a> {
    /// Remembers a name; `false` if it was there.
    pub fn insert(&mut self, name: Cow<'a, str>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(name);
        }
        if self.few.contains(&name) {
            return false;
        }
        self.few.push(name);
        if self.few.len() > FEW {
            self.many.extend(self.few.drain(..));
        }
        true
    }
}
