//! Who has something due when, for a replay: in memory, exact.

use std::collections::BTreeSet;
use tripline_core::entity::Entity;

/// Due times in milliseconds and the keys of their entities, in that order.
#[derive(Debug, Default)]
pub struct Due(BTreeSet<(i64, Box<str>)>);

impl Due {
    /// What an entity waits for changed from one time to another.
    pub fn moved(&mut self, key: &str, before: Option<i64>, after: Option<i64>) {
        if before == after {
            return;
        }
        if let Some(due_ms) = before {
            self.0.remove(&(due_ms, key.into()));
        }
        if let Some(due_ms) = after {
            self.0.insert((due_ms, key.into()));
        }
    }

    /// Shows who has something due by `until_ms`. `fire` answers what the entity waits for next.
    pub fn take(&mut self, until_ms: i64, mut fire: impl FnMut(&str, &Entity<'_>) -> Option<i64>) {
        while self.0.first().is_some_and(|(due_ms, _)| *due_ms <= until_ms) {
            let Some((due_ms, key)) = self.0.pop_first() else { return };
            let next = Entity::parse(&key).and_then(|entity| fire(&key, &entity));
            // What did not fire at its time never will: nobody is reminded of it again.
            if let Some(next_ms) = next.filter(|next| *next > due_ms) {
                self.0.insert((next_ms, key));
            }
        }
    }
}
