//! The event store, and the role that fills it from the decisions topic.
//!
//! Promises: every decision with a signal that a `read_committed` reader sees is stored exactly once (its id is the
//! primary key, and a repeat changes nothing, least of all what an analyst did); offsets are committed only after the
//! database has the rows on disk; a record that cannot be read is kept, not skipped. `docs/event-store.md` says why.
//!
//! Where to start reading: [`role`] (poll → batch → database → offsets), then [`store`] and, for analysts, [`review`].

pub mod batch;
mod consumer;
pub mod counters;
pub mod error;
#[cfg(test)]
pub(crate) mod examples;
pub mod intake;
pub mod location;
pub mod review;
pub mod role;
pub mod row;
pub mod store;
#[cfg(test)]
mod tests;

pub use consumer::group;
pub use counters::SinkCounters;
pub use error::{SinkError, StoreError};
pub use location::Location;
pub use role::run;
pub use store::EventStore;
