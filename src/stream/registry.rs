//! Which lane of this process has which task's store open: a RocksDB is handed from lane to lane, never shared.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The open stores.
#[derive(Debug, Default)]
pub struct Registry {
    open: Mutex<HashSet<i32>>,
    released: Condvar,
}

impl Registry {
    /// Waits until no other lane has the partition's store open, then takes it. `None` if that took longer than `limit`.
    pub fn take(&self, partition: i32, limit: Duration) -> Option<Held<'_>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.released.wait_timeout_while(open, limit, |open| open.contains(&partition));
        let (mut open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // Not `then_some`: a `Held` that is made and dropped would release what another lane has.
        open.insert(partition).then(|| Held { registry: self, partition })
    }

    /// Gives it back.
    pub fn release(&self, partition: i32) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        self.released.notify_all();
    }
}

/// A store that was taken: given back when this is dropped, unless somebody keeps it.
#[derive(Debug)]
pub struct Held<'r> {
    registry: &'r Registry,
    partition: i32,
}

impl Held<'_> {
    /// From now on [`Registry::release`] gives it back.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.registry.release(self.partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_taken_once_until_it_is_released() {
        let registry = Registry::default();
        registry.take(3, Duration::ZERO).expect("nobody has it").keep();
        assert!(registry.take(3, Duration::from_millis(1)).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| registry.take(3, Duration::from_secs(10)).is_some());
            registry.release(3);
            assert!(waiting.join().expect("no panic"));
        });
        let dropped = registry.take(3, Duration::ZERO);
        assert!(dropped.is_some(), "what was taken and not kept is given back");
    }
}
