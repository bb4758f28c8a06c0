//! Comparing text without allocating: as it is, or as if its ASCII letters were lower or upper case.

use std::cmp::Ordering;

/// How the ASCII letters of a text are seen. Other letters stay as they are, as in CEL's `lowerAscii()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Case {
    Exact,
    Lower,
    Upper,
}

impl Case {
    fn byte(self, byte: u8) -> u8 {
        match self {
            Case::Exact => byte,
            Case::Lower => byte.to_ascii_lowercase(),
            Case::Upper => byte.to_ascii_uppercase(),
        }
    }

    /// A literal as this case sees it.
    pub fn of(self, text: &str) -> String {
        match self {
            Case::Exact => text.to_owned(),
            Case::Lower => text.to_ascii_lowercase(),
            Case::Upper => text.to_ascii_uppercase(),
        }
    }
}

/// A test between two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TextTest {
    Equal,
    NotEqual,
    StartsWith,
    EndsWith,
}

impl TextTest {
    /// Whether it holds, each side seen in its own case.
    pub fn holds(self, (text, case): (&str, Case), (other, other_case): (&str, Case)) -> bool {
        let same = |a: &[u8], b: &[u8]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| case.byte(*a) == other_case.byte(*b));
        let (text, other) = (text.as_bytes(), other.as_bytes());
        match self {
            TextTest::Equal => same(text, other),
            TextTest::NotEqual => !same(text, other),
            TextTest::StartsWith => text.get(..other.len()).is_some_and(|head| same(head, other)),
            TextTest::EndsWith => text.len().checked_sub(other.len()).is_some_and(|start| same(&text[start..], other)),
        }
    }
}

/// How a text, seen in a case, stands to another in the order of their bytes, which is that of their code points.
pub(super) fn order(text: &str, case: Case, other: &str) -> Ordering {
    if case == Case::Exact { text.cmp(other) } else { text.bytes().map(|b| case.byte(b)).cmp(other.bytes()) }
}
