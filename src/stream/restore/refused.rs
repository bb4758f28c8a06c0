//! Records of the changelog that are no states: somebody else wrote them, and perhaps an operator has written against them.

use crate::state::{StoreError, TaskState};
use crate::stream::changelog::Entry;
use std::collections::BTreeMap;
use tripline_core::state::StateError;

/// Records that are no states. A later record under the same key, a tombstone too, makes up for one.
#[derive(Debug, Default)]
pub struct Refused(BTreeMap<String, (i64, StateError)>);

impl Refused {
    /// More of them end the restore at once.
    const AT_MOST: usize = 1_000;

    /// Takes note of one; with too many it is the error itself.
    pub fn note(&mut self, key: &str, offset: i64, why: StateError) -> Result<(), (i64, StateError)> {
        if self.0.len() >= Self::AT_MOST {
            return Err((offset, why));
        }
        self.0.insert(key.to_owned(), (offset, why));
        Ok(())
    }

    /// A later record of this key, a state or a tombstone, was read: whether it made up for one.
    pub fn is_replaced(&mut self, key: &str) -> bool {
        !self.0.is_empty() && self.0.remove(key).is_some()
    }

    /// Behind the marker stands nothing of ours but, perhaps, what an operator wrote against a foreign record: that is done. Whether
    /// nothing is left to make up for.
    pub fn make_up(&mut self, state: &mut TaskState, record: &Entry<'_>) -> Result<bool, StoreError> {
        if record.value.is_none() && self.is_replaced(record.key) {
            state.restore(record.key, None)?;
        }
        Ok(self.is_empty())
    }

    /// Nothing is left that no later record made up for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first that is left, with its offset.
    pub fn into_first(self) -> Option<(i64, StateError)> {
        self.0.into_values().min_by_key(|(offset, _)| *offset)
    }
}
