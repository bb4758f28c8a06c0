//! One connection: a thread for each direction, which end together.

use super::fault::{Fate, Order};
use super::frame::{self, Frame};
use super::{Api, Shared};
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Both sides of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    id: u64,
    client: TcpStream,
    broker: TcpStream,
    /// Replies that something will happen to, by correlation id.
    owed: Mutex<HashMap<i32, Arc<Order>>>,
    is_cut: AtomicBool,
}

impl Wire {
    /// Breaks both sides.
    pub(super) fn cut(&self, shared: &Shared) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.broker.shutdown(Shutdown::Both);
        shared.change(|state| {
            self.is_cut.store(true, Ordering::Relaxed);
            state.wires.remove(&self.id);
        });
    }

    fn owed(&self) -> MutexGuard<'_, HashMap<i32, Arc<Order>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to the broker and forwards until either side ends.
pub(super) fn serve(shared: &Arc<Shared>, client: TcpStream) {
    // A partition or a broker that is not there yet: the client waits for its first reply.
    let Some(upstream) = shared.wait(None, |state| state.upstream.filter(|_| !state.paused)) else { return };
    let Ok(broker) = TcpStream::connect(upstream) else { return };
    if client.set_nodelay(true).and(broker.set_nodelay(true)).is_err() {
        return;
    }
    let wire = shared.change(|state| {
        state.next_wire += 1;
        let (owed, is_cut) = (Mutex::default(), AtomicBool::new(state.stopping));
        let wire = Arc::new(Wire { id: state.next_wire, client, broker, owed, is_cut });
        // One that is not listed would not be cut when the proxy ends.
        (!state.stopping).then(|| state.wires.insert(wire.id, wire.clone()));
        wire
    });
    if wire.is_cut.load(Ordering::Relaxed) {
        return;
    }
    thread::scope(|scope| {
        scope.spawn(|| until_cut(shared, &wire, forward_replies));
        until_cut(shared, &wire, forward_requests);
    });
}

/// Runs one direction, then ends the connection. In a partition nobody hears of that before it is over.
fn until_cut(shared: &Shared, wire: &Wire, forward: impl FnOnce(&Shared, &Wire) -> Option<()>) {
    forward(shared, wire);
    if !wire.is_cut.load(Ordering::Relaxed) {
        shared.wait(None, |state| (!state.paused || wire.is_cut.load(Ordering::Relaxed)).then_some(()));
    }
    wire.cut(shared);
}

/// Ends at the end of a side, and when a fate breaks the connection.
fn forward_requests(shared: &Shared, wire: &Wire) -> Option<()> {
    loop {
        let request = Frame::read(&wire.client)?;
        let order = shared.arrived(request.api().unwrap_or(Api(-1)));
        let mut more = Duration::ZERO;
        if let Some(order) = &order {
            match order.fate {
                Fate::LoseRequest => {
                    wire.cut(shared);
                    order.happen(shared);
                    return None;
                }
                Fate::LoseReply | Fate::TearReply => {}
                Fate::Hold | Fate::HoldAndCut => hold(shared, wire, order)?,
                Fate::Delay(delay) => more = delay,
            }
            // Before it is sent: the reply may be quicker than we are.
            wire.owed().insert(request.request_id()?, order.clone());
        }
        if !shared.pass(more) || !frame::write(&wire.broker, request.bytes()) {
            return None;
        }
        match order {
            Some(order) if matches!(order.fate, Fate::Delay(_)) => order.happen(shared),
            // Ending now could tell the broker of the end before it has read the request.
            Some(order) if order.fate == Fate::HoldAndCut => {
                let over = || order.reply.get().is_some() || wire.is_cut.load(Ordering::Relaxed);
                return shared.wait(None, |_| over().then_some(()));
            }
            _ => {}
        }
    }
}

/// Keeps a request until it is released; `None` if that never happens.
fn hold(shared: &Shared, wire: &Wire, order: &Order) -> Option<()> {
    if order.fate == Fate::HoldAndCut {
        let _ = wire.client.shutdown(Shutdown::Both);
    }
    order.happen(shared);
    let is_over = |wire: &Wire| wire.is_cut.load(Ordering::Relaxed);
    shared.wait(None, |_| (order.released.load(Ordering::Relaxed) || is_over(wire)).then_some(()))?;
    (!is_over(wire)).then_some(())
}

fn forward_replies(shared: &Shared, wire: &Wire) -> Option<()> {
    loop {
        let reply = Frame::read(&wire.broker)?;
        let order = reply.reply_id().and_then(|id| wire.owed().remove(&id));
        if !shared.pass(Duration::ZERO) {
            return None;
        }
        if let Some(order) = order {
            match order.fate {
                Fate::LoseReply | Fate::TearReply => {
                    if order.fate == Fate::TearReply {
                        frame::write(&wire.client, reply.half());
                    }
                    wire.cut(shared);
                    order.happen(shared);
                    return None;
                }
                _ => {
                    shared.change(|_| order.reply.set(reply.reply_body().to_vec())).ok();
                }
            }
        }
        if !frame::write(&wire.client, reply.bytes()) {
            return None;
        }
    }
}
