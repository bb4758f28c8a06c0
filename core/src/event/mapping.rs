//! How records of another shape become events: for each field the places where its value may stand.
//!
//! A mapping is written in the settings (`input.mapping`) as the name of a shipped set, or as an object with fields of
//! its own; `docs/mapping.md` has the language and the sets. [`Mapping::compile`] checks it and builds the tree of places
//! that the decoder walks once per record ([`crate::event::Event::decode_mapped`]).

mod compile;
mod markdown;
mod source;
#[cfg(test)]
mod tests;
mod written;

pub use markdown::{field_table, set_table};

pub(in crate::event) use compile::{Node, Pick, Plan, ROOT, Tree};
pub(in crate::event) use source::Unit;

use serde_json::Value as Json;
use std::fmt;

/// Names of the shipped sets. `tripline` is our own event: alone it means the plain decoder, with `fields` it is a start.
pub const SETS: [&str; 4] = ["ecs", "nginx-json", "otel", "tripline"];

/// The most places that one mapping reads, with the objects on the way to them.
pub const MAX_PLACES: usize = 1024;
/// The longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 256;
/// The most names in one path.
pub const MAX_PATH_NAMES: usize = 16;
/// The most sources of one field.
pub const MAX_SOURCES: usize = 16;

/// A mapping, checked and ready for the decoder.
#[derive(Clone)]
pub struct Mapping {
    summary: String,
    /// `None`: records are events as they are.
    tree: Option<Tree>,
}

/// One thing wrong with a mapping as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in it: names of keys from the outside, `["fields", "user_id", "unit"]`; empty for the whole.
    pub at: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
}

impl Mapping {
    /// Checks a mapping as written and compiles it; every problem that was found is in the answer.
    pub fn compile(written: &Json) -> Result<Mapping, Vec<Problem>> {
        let read = written::read(written)?;
        let tree = if read.is_plain() { None } else { Some(compile::compile(&read.fields)?) };
        Ok(Mapping { summary: read.summary(), tree })
    }

    /// A shipped set by its name; one of [`SETS`].
    pub fn shipped(set: &str) -> Option<Mapping> {
        Mapping::compile(&Json::from(set)).ok()
    }

    /// In a few words: `ecs`, `ecs with 2 fields of its own`.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// What the decoder walks; `None` when records are events as they are.
    pub(in crate::event) fn tree(&self) -> Option<&Tree> {
        self.tree.as_ref()
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mapping").field(&self.summary).finish()
    }
}
