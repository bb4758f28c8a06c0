//! Comparing text without allocating: as it is, or as if its ASCII letters were lower or upper case.

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use std::cmp::Ordering;

/// How the ASCII letters of a text are seen. Other letters stay as they are, as in CEL's `lowerAscii()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
fn order(text: &str, case: Case, other: &str) -> Ordering {
    if case == Case::Exact { text.cmp(other) } else { text.bytes().map(|b| case.byte(b)).cmp(other.bytes()) }
}

/// Up to so many texts a loop beats a table.
const SHORT: usize = 8;

/// A set of texts known at load.
#[derive(Debug)]
pub(super) enum TextSet {
    Few(Box<[Box<str>]>),
    /// Texts are only looked up here, never put in by an event: a fixed seed is safe and keeps runs alike.
    Many(HashSet<Box<str>, FixedState>),
    Sorted(Box<[Box<str>]>, Case),
}

impl TextSet {
    pub fn new(mut texts: Vec<Box<str>>, case: Case) -> TextSet {
        match case {
            Case::Exact if texts.len() <= SHORT => TextSet::Few(texts.into()),
            Case::Exact => TextSet::Many(texts.into_iter().collect()),
            _ => {
                texts.sort_unstable();
                TextSet::Sorted(texts.into(), case)
            }
        }
    }

    pub fn contains(&self, text: &str) -> bool {
        match self {
            TextSet::Few(texts) => texts.iter().any(|t| &**t == text),
            TextSet::Many(texts) => texts.contains(text),
            TextSet::Sorted(texts, case) => texts.binary_search_by(|t| order(text, *case, t).reverse()).is_ok(),
        }
    }
}

/// Prefixes known at load: sorted, and none the prefix of another. Then only the last one that is not after the text can
/// be its prefix, because whatever lies between a prefix and a text that it starts also starts with that prefix.
#[derive(Debug)]
pub(super) struct PrefixSet {
    prefixes: Box<[Box<str>]>,
    case: Case,
}

impl PrefixSet {
    pub fn new(mut prefixes: Vec<Box<str>>, case: Case) -> PrefixSet {
        prefixes.sort_unstable();
        prefixes.dedup_by(|longer, shorter| longer.starts_with(&**shorter));
        PrefixSet { prefixes: prefixes.into(), case }
    }

    pub fn starts(&self, text: &str) -> bool {
        if self.case == Case::Exact && self.prefixes.len() <= SHORT {
            return self.prefixes.iter().any(|p| text.starts_with(&**p));
        }
        let after = self.prefixes.partition_point(|p| order(text, self.case, p).is_ge());
        let Some(candidate) = after.checked_sub(1).map(|index| &self.prefixes[index]) else { return false };
        TextTest::StartsWith.holds((text, self.case), (candidate, Case::Exact))
    }
}
