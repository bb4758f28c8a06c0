//! A lane's part of the memory budget: its tasks share it.

use super::*;

impl Driver {
    /// Bytes of decoded states that each task may keep.
    pub(super) fn cache_budget(&self) -> usize {
        let tasks = self.tasks.values().filter(|task| task.state.is_some()).count();
        self.shared.memory.lane().cache / tasks.max(1)
    }

    /// Tasks whose committed states should go to RocksDB now: when their time has come, and while all of them together have
    /// more than the lane may keep, those that have most. Half of it goes, so that not every commit writes.
    pub(super) fn writes_due(&self, now: Instant) -> Vec<TaskId> {
        let interval = self.shared.config.state.write_interval.0;
        let (mut due, mut others): (Vec<_>, Vec<_>) = self
            .tasks
            .iter()
            .map(|(id, task)| (task.unwritten_bytes(), *id, task.is_write_due(now, interval)))
            .partition(|(_, _, is_due)| *is_due);
        let bound = self.shared.memory.lane().unwritten;
        let mut kept: usize = others.iter().map(|(bytes, ..)| bytes).sum();
        if kept > bound {
            others.sort_unstable_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
            let largest = others.into_iter().take_while(|(bytes, ..)| {
                let is_over = kept > bound / 2;
                kept = kept.saturating_sub(*bytes);
                is_over
            });
            due.extend(largest);
        }
        due.into_iter().map(|(_, id, _)| id).collect()
    }

    /// A task that is quiet keeps no more than its part, either, when more tasks have come. Between transactions.
    pub(super) fn trim_caches(&mut self) {
        let budget = self.cache_budget();
        self.tasks.values_mut().filter_map(|task| task.state.as_mut()).for_each(|state| state.trim(budget));
    }
}
