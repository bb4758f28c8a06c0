//! Lists known at load, prepared for asking. Two of one content are equal, so that rules that ask the same share the answer.

use super::text::{Case, TextTest, order};
use super::tree::Const;
use super::value_ops::compare;
use crate::value::Value;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash, Hasher};

/// Up to so many entries a loop beats a table.
const SHORT: usize = 8;

/// A set of texts, to be found as they are or with ASCII letters seen in one case.
#[derive(Debug)]
pub(super) struct TextSet {
    /// Sorted, each once.
    texts: Box<[Box<str>]>,
    case: Case,
    /// Indices of `texts`, where a table is worth it. Texts are only looked up here, never put in by an event: a fixed seed
    /// is safe and keeps runs alike.
    table: HashTable<usize>,
}

fn hash(text: &str) -> u64 {
    FixedState::default().hash_one(text)
}

impl TextSet {
    pub fn new(mut texts: Vec<Box<str>>, case: Case) -> TextSet {
        texts.sort_unstable();
        texts.dedup();
        let mut table = HashTable::new();
        if case == Case::Exact && texts.len() > SHORT {
            for (index, text) in texts.iter().enumerate() {
                table.insert_unique(hash(text), index, |index| hash(&texts[*index]));
            }
        }
        TextSet { texts: texts.into(), case, table }
    }

    pub fn contains(&self, text: &str) -> bool {
        if self.case != Case::Exact {
            self.texts.binary_search_by(|t| order(text, self.case, t).reverse()).is_ok()
        } else if self.texts.len() <= SHORT {
            self.texts.iter().any(|t| &**t == text)
        } else {
            self.table.find(hash(text), |index| &*self.texts[*index] == text).is_some()
        }
    }

    pub fn case(&self) -> Case {
        self.case
    }

    pub fn texts(&self) -> &[Box<str>] {
        &self.texts
    }
}

impl PartialEq for TextSet {
    fn eq(&self, other: &TextSet) -> bool {
        self.case == other.case && self.texts == other.texts
    }
}

impl Eq for TextSet {}

impl Hash for TextSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.case, &self.texts).hash(state);
    }
}

/// Prefixes: sorted, and none the prefix of another. Then only the last one that is not after the text can be its prefix,
/// because whatever lies between a prefix and a text that it starts also starts with that prefix.
#[derive(Debug, PartialEq, Eq, Hash)]
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

    pub fn case(&self) -> Case {
        self.case
    }

    pub fn prefixes(&self) -> &[Box<str>] {
        &self.prefixes
    }
}

/// Values of any type; numbers are found by size whatever their type.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ValueSet {
    /// Sorted, each once.
    ints: Box<[i64]>,
    texts: TextSet,
    /// Floats and truth values, which only a literal list can hold.
    others: Box<[Const]>,
}

impl ValueSet {
    pub fn new(items: Vec<Const>) -> ValueSet {
        let (mut ints, mut texts, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match item {
                Const::Int(int) => ints.push(int),
                Const::Str(text) => texts.push(text),
                other => others.push(other),
            }
        }
        ints.sort_unstable();
        ints.dedup();
        ValueSet { ints: ints.into(), texts: TextSet::new(texts, Case::Exact), others: others.into() }
    }

    pub fn contains(&self, value: Value<'_>) -> bool {
        let listed = match value {
            Value::Int(int) => self.has_int(int),
            Value::Float(float) => whole(float).is_some_and(|int| self.has_int(int)),
            Value::Str(text) => self.texts.contains(text),
            Value::Bool(_) => false,
            Value::Missing => return false,
        };
        listed || self.others.iter().any(|item| compare(value, item.value()).is_some_and(|order| order.is_eq()))
    }

    fn has_int(&self, int: i64) -> bool {
        if self.ints.len() <= SHORT { self.ints.contains(&int) } else { self.ints.binary_search(&int).is_ok() }
    }

    /// The whole numbers, when there is nothing else.
    pub fn only_ints(&self) -> Option<&[i64]> {
        (self.texts.texts.is_empty() && self.others.is_empty()).then_some(&*self.ints)
    }
}

/// The integer of this size, if there is one.
pub(super) fn whole(float: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (float.trunc() == float && (-LIMIT..LIMIT).contains(&float)).then_some(float as i64)
}
