//! Actor states of the tasks of this process: decoded in memory, encoded once per commit, kept in RocksDB.
//!
//! ```text
//!   entity() ─▶ cache (decoded) ─▶ unwritten (encoded, committed) ─▶ RocksDB (encoded, committed, a second behind)
//! ```
//!
//! RocksDB is always a committed prefix (promise 3): an encoding reaches `unwritten` only after Kafka has committed it,
//! and RocksDB only from there, together with the id of the commit it belongs to. An abort forgets the changed entries of
//! the cache; their committed form is still in one of the two places behind it. Beside the states stands an index of who
//! has something due when ([`DueIndex`](due::DueIndex)), derived from them.

mod cache;
mod due;
mod store;
mod task_state;

pub use due::Hint;
pub use store::{Budget, DUE_INDEX, StateDir, StoreError, TaskStore};
pub use task_state::TaskState;
