//! A process's disk: one store per task. A batch is written whole or not at all; what was not synced can be lost, newest first.
//! A table of it can be damaged: whoever reads or writes then is told so, until the store is made anew.

use std::collections::BTreeMap;
use std::rc::Rc;
use tripline_core::protocol::start::Local;

/// Batches that can still be lost with the power: the older ones are on the platter.
const UNSYNCED: usize = 8;

/// Encoded states by entity; `None` deletes.
pub type Batch = BTreeMap<Rc<str>, Option<Rc<[u8]>>>;

/// The stores of one process.
pub type Disk = BTreeMap<i32, Store>;

#[derive(Debug, Clone, Default)]
struct Undo {
    states: Batch,
    local: Option<Rc<str>>,
    is_between: bool,
    is_noted: bool,
}

/// The store cannot be read.
#[derive(Debug)]
pub struct Damaged;

/// The store of one task.
#[derive(Debug, Clone, Default)]
pub struct Store {
    states: BTreeMap<Rc<str>, Rc<[u8]>>,
    local: Option<Rc<str>>,
    /// A restore wrote a part of the changelog, so that the states are ahead of what the store says of itself.
    is_between: bool,
    /// A restore that was not at its end yet wrote down the commit that the store names.
    is_noted: bool,
    pub is_damaged: bool,
    undo: Vec<Undo>,
}

impl Store {
    /// What the store says of itself.
    pub fn local(&self) -> Option<Local> {
        serde_json::from_str(self.local.as_deref()?).ok()
    }

    /// The encoded states, as a process reads them.
    pub fn read(&self) -> Result<&BTreeMap<Rc<str>, Rc<[u8]>>, Damaged> {
        if self.is_damaged { Err(Damaged) } else { Ok(&self.states) }
    }

    /// The same, as the checks see them: damage hides them, it changes none.
    pub fn states(&self) -> &BTreeMap<Rc<str>, Rc<[u8]>> {
        &self.states
    }

    /// Whether the states are those of the commit that the store names.
    pub fn is_at_a_commit(&self) -> bool {
        !self.is_between
    }

    /// Whether the commit that the store names was noted on the way to a later one.
    pub fn is_noted(&self) -> bool {
        self.is_noted
    }

    /// Writes a batch, and the commit at which a restore has come by on its way.
    pub fn note(&mut self, batch: &Batch, local: &Local) -> Result<(), Damaged> {
        self.write(batch, Some(local))?;
        self.is_noted = true;
        Ok(())
    }

    /// Writes a batch, with what the store then says of itself.
    pub fn write(&mut self, batch: &Batch, local: Option<&Local>) -> Result<(), Damaged> {
        self.read()?;
        let mut undo = Undo { states: Batch::new(), local: self.local.clone(), is_between: self.is_between, is_noted: self.is_noted };
        for (entity, bytes) in batch {
            let before = match bytes {
                Some(bytes) => self.states.insert(entity.clone(), bytes.clone()),
                None => self.states.remove(entity),
            };
            undo.states.insert(entity.clone(), before);
        }
        match local {
            Some(local) => {
                self.local = serde_json::to_string(local).ok().map(Into::into);
                (self.is_between, self.is_noted) = (false, false);
            }
            None => self.is_between = true,
        }
        self.undo.push(undo);
        if self.undo.len() > UNSYNCED {
            self.undo.remove(0);
        }
        Ok(())
    }

    /// The power fails: the newest batches are gone.
    pub fn lose(&mut self, batches: usize) {
        for _ in 0..batches {
            let Some(undo) = self.undo.pop() else { return };
            for (entity, before) in undo.states {
                match before {
                    Some(bytes) => self.states.insert(entity, bytes),
                    None => self.states.remove(&entity),
                };
            }
            (self.local, self.is_between, self.is_noted) = (undo.local, undo.is_between, undo.is_noted);
        }
    }
}
