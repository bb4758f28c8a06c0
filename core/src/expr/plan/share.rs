//! What several expressions have in common: each distinct part once, and a cell for each that is asked more than once.

use super::super::lower::{self, Program, Test};
use super::super::node::{Node, Own};
use crate::event::Field;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Every distinct node of some expressions, parts before wholes.
#[derive(Default)]
pub(super) struct Pool<'n> {
    numbers: HashMap<(Own<'n>, Vec<usize>), usize, FixedState>,
    entries: Vec<Entry<'n>>,
}

struct Entry<'n> {
    node: &'n Node,
    parts: Vec<usize>,
    /// How often it is asked as a whole expression.
    as_root: usize,
}

impl<'n> Pool<'n> {
    /// Adds a whole expression and gives its number.
    pub fn root(&mut self, node: &'n Node) -> usize {
        let number = self.add(node);
        self.entries[number].as_root += 1;
        number
    }

    fn add(&mut self, node: &'n Node) -> usize {
        let parts: Vec<usize> = node.parts().into_iter().map(|part| self.add(part)).collect();
        let mut key = parts.clone();
        if matches!(node, Node::All(_) | Node::AnyOf(_)) {
            // `a && b` is `b && a`, and `a && a` is `a`.
            key.sort_unstable();
            key.dedup();
        }
        let next = self.entries.len();
        let number = *self.numbers.entry((node.own(), key)).or_insert(next);
        if number == next {
            self.entries.push(Entry { node, parts, as_root: 0 });
        }
        number
    }

    /// Gives a cell to each part that would be asked more than once per event.
    pub fn shared(self) -> Shared<'n> {
        let mut uses: Vec<usize> = self.entries.iter().map(|entry| entry.as_root).collect();
        let mut celled = vec![false; uses.len()];
        for (number, entry) in self.entries.iter().enumerate().rev() {
            celled[number] = uses[number] > 1 && is_worth_a_cell(entry.node);
            // What has a cell asks its parts once, whoever asks it; what has none asks them each time.
            let times = if celled[number] { 1 } else { uses[number] };
            for part in &entry.parts {
                uses[*part] = uses[*part].saturating_add(times);
            }
        }
        let cells = celled.iter().scan(0, |next, celled| {
            let cell = celled.then_some(*next);
            *next += usize::from(*celled);
            Some(cell)
        });
        Shared { cells: cells.collect(), entries: self.entries }
    }
}

/// Reading a field costs what reading a cell costs, and `!` hardly more; a text cannot be kept, what decides between two
/// texts can.
fn is_worth_a_cell(node: &Node) -> bool {
    !matches!(node, Node::Const(_) | Node::Field(_) | Node::Has(Field::Named(_)) | Node::Not(_)) && !node.may_be_text()
}

/// The nodes with their cells.
pub(super) struct Shared<'n> {
    entries: Vec<Entry<'n>>,
    /// The cell of each node that has one. Parts come before wholes, so a cell needs only cells before it.
    cells: Vec<Option<usize>>,
}

impl Shared<'_> {
    /// What fills each cell.
    pub fn programs(&self, texts: &mut Vec<Box<str>>) -> Box<[Program]> {
        let celled = self.cells.iter().enumerate().filter(|(_, cell)| cell.is_some());
        celled.map(|(number, _)| lower::program(self.inside(number), texts)).collect()
    }

    /// Asks whether an expression of this number is true.
    pub fn test(&self, number: usize, texts: &mut Vec<Box<str>>) -> Test {
        lower::test(self.node(number), texts)
    }

    /// A node as others ask it: its cell, if it has one.
    fn node(&self, number: usize) -> Node {
        self.cells[number].map_or_else(|| self.inside(number), Node::Shared)
    }

    /// A node with cells in the place of those of its parts that have one.
    fn inside(&self, number: usize) -> Node {
        let Entry { node, parts, .. } = &self.entries[number];
        let mut parts = parts.iter();
        node.rebuilt(|part| parts.next().map_or_else(|| part.clone(), |number| self.node(*number)))
    }
}
