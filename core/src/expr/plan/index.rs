//! From an event to the questions that it may answer with yes: each field is read once and looked up among the keys of all
//! witnesses.

use super::super::sets::whole;
use super::super::text::{Case, TextTest, order};
use super::witness::{Key, Witness};
use crate::event::{Event, Field};
use crate::value::Value;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::BTreeMap;

/// Questions that have one witness in common.
type Group = usize;

/// Finds candidates among the questions that were added.
#[derive(Default)]
pub(super) struct Index {
    /// Questions without a witness.
    always: Box<[usize]>,
    groups: Box<[Box<[usize]>]>,
    named: Box<[FieldIndex]>,
    headers: ByRoot,
    data: ByRoot,
}

/// Fields that an event has few of among many possible ones, by the name under `headers` or `data` at which they begin.
#[derive(Default)]
struct ByRoot {
    fields: Box<[FieldIndex]>,
    /// Indices of `fields`.
    roots: HashMap<Box<str>, Vec<usize>, FixedState>,
}

/// The keys of one field.
struct FieldIndex {
    field: Field,
    has: Box<[Group]>,
    /// By number.
    ints: HashMap<i64, Vec<Group>, FixedState>,
    texts: Box<[TextIndex]>,
}

/// Texts and prefixes of one field seen in one case, sorted. The longest that begins a text is the last that does not come
/// after the text, or one of those that begin it: a trie without its nodes.
struct TextIndex {
    case: Case,
    entries: Box<[Entry]>,
}

#[derive(Default)]
struct Entry {
    text: Box<str>,
    /// The longest other entry that begins this one.
    shorter: Option<usize>,
    /// Groups with this text.
    exact: Vec<Group>,
    /// Groups with this prefix.
    prefix: Vec<Group>,
}

impl Index {
    /// Sets the bit of every question that the event may answer with yes.
    pub fn mark(&self, event: &Event<'_>, bits: &mut [u64]) {
        let mut set = |question: &usize| bits[question / 64] |= 1 << (question % 64);
        self.always.iter().for_each(&mut set);
        let mut hit = |group: Group| self.groups[group].iter().for_each(&mut set);
        self.named.iter().for_each(|field| field.look_up(event, &mut hit));
        self.headers.look_up(event, event.headers.len(), || event.headers.iter().map(|(name, _)| &**name), &mut hit);
        self.data.look_up(event, event.data.len(), || event.data.keys().map(String::as_str), &mut hit);
    }
}

impl ByRoot {
    /// Goes through the fields or through the event's names, whichever are fewer.
    fn look_up<'e, N: Iterator<Item = &'e str>>(
        &self,
        event: &Event<'_>,
        there: usize,
        names: impl Fn() -> N,
        hit: &mut impl FnMut(Group),
    ) {
        if self.fields.len() <= there {
            self.fields.iter().for_each(|field| field.look_up(event, hit));
        } else {
            let fields = names().filter_map(|name| self.roots.get(name)).flatten();
            fields.for_each(|field| self.fields[*field].look_up(event, hit));
        }
    }
}

impl FieldIndex {
    fn look_up(&self, event: &Event<'_>, hit: &mut impl FnMut(Group)) {
        let int = match event.get(&self.field) {
            Value::Missing => return,
            Value::Bool(_) => None,
            Value::Int(int) => Some(int),
            Value::Float(float) => whole(float),
            Value::Str(text) => {
                self.texts.iter().for_each(|index| index.look_up(text, hit));
                None
            }
        };
        self.has.iter().copied().for_each(&mut *hit);
        if let Some(groups) = int.and_then(|int| self.ints.get(&int)) {
            groups.iter().copied().for_each(hit);
        }
    }
}

impl TextIndex {
    fn look_up(&self, text: &str, hit: &mut impl FnMut(Group)) {
        let after = self.entries.partition_point(|entry| order(text, self.case, &entry.text).is_ge());
        let mut at = after.checked_sub(1);
        while let Some(entry) = at.map(|index| &self.entries[index]) {
            if TextTest::StartsWith.holds((text, self.case), (&entry.text, Case::Exact)) {
                entry.prefix.iter().copied().for_each(&mut *hit);
                if entry.text.len() == text.len() {
                    entry.exact.iter().copied().for_each(&mut *hit);
                }
            }
            at = entry.shorter;
        }
    }
}

/// An index being made.
#[derive(Default)]
pub(super) struct IndexBuilder<'n> {
    always: Vec<usize>,
    groups: HashMap<Witness<'n>, Group, FixedState>,
    questions: Vec<Vec<usize>>,
}

impl<'n> IndexBuilder<'n> {
    /// Adds a question by its number, with its witness.
    pub fn add(&mut self, question: usize, witness: Option<Witness<'n>>) {
        let Some(witness) = witness else { return self.always.push(question) };
        let next = self.questions.len();
        let group = *self.groups.entry(witness).or_insert(next);
        if group == next {
            self.questions.push(Vec::new());
        }
        self.questions[group].push(question);
    }

    pub fn build(self) -> Index {
        let mut fields: HashMap<&Field, FieldKeys<'_>, FixedState> = HashMap::default();
        for (witness, group) in &self.groups {
            for key in witness {
                let (Key::Text(field, ..) | Key::Prefix(field, ..) | Key::Int(field, _) | Key::Has(field)) = key;
                fields.entry(*field).or_default().add(key, *group);
            }
        }
        let mut index = Index { always: self.always.into(), ..Index::default() };
        index.groups = self.questions.into_iter().map(Vec::into_boxed_slice).collect();
        let (mut named, mut headers, mut data) = (Vec::new(), Vec::new(), Vec::new());
        for (field, keys) in fields {
            let (root, kind) = match field {
                Field::Named(_) => ("", &mut named),
                Field::Header(name) => (name.as_str(), &mut headers),
                Field::Data(path) => (path.first().map_or("", String::as_str), &mut data),
            };
            kind.push((root, keys.build(field.clone())));
        }
        index.named = named.into_iter().map(|(_, field)| field).collect();
        (index.headers, index.data) = (by_root(headers), by_root(data));
        index
    }
}

fn by_root(fields: Vec<(&str, FieldIndex)>) -> ByRoot {
    let mut roots: HashMap<Box<str>, Vec<usize>, FixedState> = HashMap::default();
    for (index, (root, _)) in fields.iter().enumerate() {
        roots.entry(Box::from(*root)).or_default().push(index);
    }
    ByRoot { fields: fields.into_iter().map(|(_, field)| field).collect(), roots }
}

/// The keys of one field being gathered.
#[derive(Default)]
struct FieldKeys<'n> {
    has: Vec<Group>,
    ints: HashMap<i64, Vec<Group>, FixedState>,
    texts: BTreeMap<Case, BTreeMap<&'n str, Entry>>,
}

impl<'n> FieldKeys<'n> {
    fn add(&mut self, key: &Key<'n>, group: Group) {
        match *key {
            Key::Has(_) => self.has.push(group),
            Key::Int(_, int) => self.ints.entry(int).or_default().push(group),
            Key::Text(_, case, text) => self.texts.entry(case).or_default().entry(text).or_default().exact.push(group),
            Key::Prefix(_, case, text) => self.texts.entry(case).or_default().entry(text).or_default().prefix.push(group),
        }
    }

    fn build(self, field: Field) -> FieldIndex {
        let texts = self.texts.into_iter().map(|(case, entries)| TextIndex { case, entries: linked(entries) }).collect();
        FieldIndex { field, has: self.has.into(), ints: self.ints, texts }
    }
}

/// The entries in their order, each told which one begins it.
fn linked(entries: BTreeMap<&str, Entry>) -> Box<[Entry]> {
    let mut linked: Vec<Entry> = Vec::with_capacity(entries.len());
    for (text, entry) in entries {
        // What begins this text begins, or is, the entry before it.
        let mut shorter = linked.len().checked_sub(1);
        while let Some(index) = shorter.filter(|index| !text.starts_with(&*linked[*index].text)) {
            shorter = linked[index].shorter;
        }
        linked.push(Entry { text: text.into(), shorter, ..entry });
    }
    linked.into()
}
