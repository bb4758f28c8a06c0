//! What can happen to one request, and the handle on it.

use super::Shared;
use anyhow::{Context, Result};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A kind of request, by Kafka's API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Api(pub i16);

impl Api {
    /// Records, to a partition's leader.
    pub const PRODUCE: Api = Api(0);
    /// Records, from a partition's leader.
    pub const FETCH: Api = Api(1);
    /// Topics and leaders.
    pub const METADATA: Api = Api(3);
    /// Committed offsets of a group.
    pub const OFFSET_FETCH: Api = Api(9);
    /// Coordinator of a group or of a transactional id.
    pub const FIND_COORDINATOR: Api = Api(10);
    /// A member joins its group.
    pub const JOIN_GROUP: Api = Api(11);
    /// A member is alive.
    pub const HEARTBEAT: Api = Api(12);
    /// Producer id and epoch.
    pub const INIT_PRODUCER_ID: Api = Api(22);
    /// Partitions join a transaction.
    pub const ADD_PARTITIONS_TO_TXN: Api = Api(24);
    /// A group's offsets join a transaction.
    pub const ADD_OFFSETS_TO_TXN: Api = Api(25);
    /// Commit or abort.
    pub const END_TXN: Api = Api(26);
    /// Offsets, inside a transaction.
    pub const TXN_OFFSET_COMMIT: Api = Api(28);
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The broker never gets it; its connection breaks.
    LoseRequest,
    /// The broker does it; the connection breaks instead of the reply.
    LoseReply,
    /// The broker does it; the connection breaks in the middle of the reply.
    TearReply,
    /// It is kept, with all that follows on its connection, until [`Fault::release`].
    Hold,
    /// It is kept until [`Fault::release`], and the client's connection breaks at once. The broker's stays: the request arrives late.
    HoldAndCut,
    /// It arrives this much later, with all that follows on its connection.
    Delay(Duration),
}

/// A fault that was set, as proxy and test share it.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) api: Api,
    pub(super) fate: Fate,
    /// Requests until it is due.
    pub(super) left: AtomicU32,
    pub(super) happened: AtomicBool,
    pub(super) released: AtomicBool,
    pub(super) reply: OnceLock<Vec<u8>>,
}

impl Order {
    pub(super) fn new(api: Api, n: u32, fate: Fate) -> Order {
        let (happened, released) = (AtomicBool::new(false), AtomicBool::new(false));
        Order { api, fate, left: AtomicU32::new(n.max(1)), happened, released, reply: OnceLock::new() }
    }

    pub(super) fn happen(&self, shared: &Shared) {
        shared.change(|_| self.happened.store(true, Ordering::Relaxed));
    }
}

/// The handle on a fault.
#[derive(Debug, Clone)]
pub struct Fault {
    shared: Arc<Shared>,
    order: Arc<Order>,
}

impl Fault {
    pub(super) fn new(shared: Arc<Shared>, order: Arc<Order>) -> Fault {
        Fault { shared, order }
    }

    /// Whether it took place: the request is lost or held, the reply lost or torn, the delay over.
    pub fn happened(&self) -> bool {
        self.order.happened.load(Ordering::Relaxed)
    }

    /// Waits until it took place.
    pub fn wait(&self, limit: Duration) -> Result<()> {
        let happened = self.shared.wait(Some(Instant::now() + limit), |_| self.happened().then_some(()));
        happened.with_context(|| format!("waited {limit:?} in vain: {:?} for a request {:?}", self.order.fate, self.order.api))
    }

    /// Lets a request that is held go on.
    pub fn release(&self) {
        self.shared.change(|_| self.order.released.store(true, Ordering::Relaxed));
    }

    /// Waits for the broker's reply to a request that was held: what follows the correlation id.
    pub fn wait_reply(&self, limit: Duration) -> Result<Vec<u8>> {
        let reply = self.shared.wait(Some(Instant::now() + limit), |_| self.order.reply.get().cloned());
        reply.with_context(|| format!("waited {limit:?} in vain for the reply to a request {:?}", self.order.api))
    }
}
