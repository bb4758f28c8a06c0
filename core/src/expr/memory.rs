//! What a plan has worked out about the event at hand: one cell per shared part of its expressions.

use super::lower::{Context, Program};
use crate::value::Value;
use std::cell::Cell;

/// A value that does not borrow. Texts are never kept: they belong to the event.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    Missing,
    Bool(bool),
    Int(i64),
    Float(f64),
}

/// One remembered value, and the event that it is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The number of the event; 0 is none.
    about: u64,
    kept: Kept,
}

impl Slot {
    pub const EMPTY: Slot = Slot { about: 0, kept: Kept::Missing };
}

/// The cells of a plan while one event is looked at. A slot of an earlier event counts as empty, so that nothing is cleared
/// between events.
#[derive(Clone, Copy)]
pub(super) struct Memory<'e> {
    pub programs: &'e [Program],
    pub slots: &'e [Cell<Slot>],
    /// The number of the event at hand, from 1.
    pub event: u64,
}

impl Memory<'_> {
    /// The value of a cell, worked out when it is asked for the first time. Cells name only cells of lower number.
    pub fn value<'e>(&self, cell: usize, context: Context<'e>) -> Value<'e> {
        let Slot { about, kept } = self.slots[cell].get();
        if about == self.event {
            return match kept {
                Kept::Missing => Value::Missing,
                Kept::Bool(b) => Value::Bool(b),
                Kept::Int(i) => Value::Int(i),
                Kept::Float(f) => Value::Float(f),
            };
        }
        let value = self.programs[cell].eval(context);
        let kept = match value {
            Value::Missing => Kept::Missing,
            Value::Bool(b) => Kept::Bool(b),
            Value::Int(i) => Kept::Int(i),
            Value::Float(f) => Kept::Float(f),
            // `Node::may_be_text` keeps these out of cells; if one came it would be read anew each time, rightly.
            Value::Str(_) => return value,
        };
        self.slots[cell].set(Slot { about: self.event, kept });
        value
    }

    /// Whether a cell is true.
    pub fn holds(&self, cell: usize, context: Context<'_>) -> bool {
        let Slot { about, kept } = self.slots[cell].get();
        if about == self.event { kept == Kept::Bool(true) } else { self.value(cell, context).is_true() }
    }
}
