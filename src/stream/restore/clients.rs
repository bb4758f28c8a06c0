//! The clients of one restore thread.

use crate::stream::Shared;
use crate::stream::changelog::{self, Isolation, Quiet};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaResult;

/// One that reads what is committed, and one that is told where partitions end.
pub(super) struct Clients {
    pub(super) committed: BaseConsumer<Quiet>,
    pub(super) ends: BaseConsumer<Quiet>,
}

impl Clients {
    pub(super) fn connect(shared: &Shared) -> KafkaResult<Clients> {
        let client = |isolation, memory| changelog::client(&shared.base, &shared.config.app.id, isolation, memory);
        let fetched = shared.memory.lane().restore_fetched;
        Ok(Clients { committed: client(Isolation::Committed, fetched)?, ends: client(Isolation::Uncommitted, changelog::FEW)? })
    }

    /// See [`changelog::hear`].
    pub(super) fn hear(&self) {
        changelog::hear(&self.committed);
        changelog::hear(&self.ends);
    }
}
