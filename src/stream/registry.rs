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
    /// Waits until no other lane has the partition's store open, then takes it. `false` if that took longer than `limit`.
    pub fn take(&self, partition: i32, limit: Duration) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.released.wait_timeout_while(open, limit, |open| open.contains(&partition));
        let (mut open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        open.insert(partition)
    }

    /// Gives it back.
    pub fn release(&self, partition: i32) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        self.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_taken_once_until_it_is_released() {
        let registry = Registry::default();
        assert!(registry.take(3, Duration::ZERO));
        assert!(!registry.take(3, Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| registry.take(3, Duration::from_secs(10)));
            registry.release(3);
            assert!(waiting.join().expect("no panic"));
        });
    }
}
