//! A proxy between clients and a broker that knows where a Kafka request begins and ends, and what it asks for.
//!
//! Start with [`Proxy::start`]: a broker with a further listener that advertises the proxy, so that everything a client does
//! that bootstraps from [`Proxy::address`] goes through it. Faults are set while it runs: latency, a partition
//! ([`Proxy::pause`]), connections that break ([`Proxy::cut`]), and the [`Fate`] of one request ([`Proxy::next`]), whose
//! [`Fault`] tells when it took place.
//!
//! It reads length, API key and correlation id, and nothing else: no TLS. A connection has two threads and at most one frame in
//! memory in each direction.

mod connection;
mod fault;
mod frame;

pub use fault::{Api, Fate, Fault};

use crate::kafka::{Kafka, Listener, Options};
use anyhow::{Context, Result};
use connection::Wire;
use fault::Order;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The broker's listener behind a proxy that [`Proxy::start`] made.
const LISTENER: &str = "PROXIED";
/// More connections at a time are refused.
const MOST_CONNECTIONS: usize = 512;

/// A proxy in front of one listener of a broker; ends with this value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A broker with these options, and a proxy in front of a further listener of it.
    ///
    /// # Errors
    /// When the broker is not our child: others have no such listener.
    pub fn start(mut options: Options) -> Result<(Kafka, Proxy)> {
        let proxy = Proxy::bind()?;
        options.listeners.push(Listener { name: LISTENER.into(), protocol: "PLAINTEXT".into(), advertised: Some(proxy.address) });
        let kafka = Kafka::start_with(&options)?;
        let upstream = kafka.listener(LISTENER).with_context(|| format!("no proxy can stand in front of the {}", kafka.origin()))?;
        proxy.forward_to(upstream);
        Ok((kafka, proxy))
    }

    /// A proxy on a free port of the loopback address. Connections wait until it knows where to forward them.
    pub fn bind() -> Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("could not bind a port for the proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let acceptor = {
            let shared = shared.clone();
            thread::Builder::new().name("proxy".into()).spawn(move || accept(&listener, &shared))?
        };
        Ok(Proxy { address, shared, acceptor: Some(acceptor) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where new connections lead to.
    pub fn forward_to(&self, upstream: SocketAddr) {
        self.shared.change(|state| state.upstream = Some(upstream));
    }

    /// Every frame, in each direction, arrives this much later. Frames of one connection are delayed one after the other.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.change(|state| state.latency = latency);
    }

    /// A partition: connections stay, new ones are accepted, and nothing is forwarded, not even the end of a connection.
    pub fn pause(&self) {
        self.shared.change(|state| state.paused = true);
    }

    /// Ends a partition. What was sent meanwhile arrives now, also from clients that have given up since.
    pub fn resume(&self) {
        self.shared.change(|state| state.paused = false);
    }

    /// Breaks every connection, on both sides; what is under way is lost. Answers how many there were.
    pub fn cut(&self) -> usize {
        let wires: Vec<Arc<Wire>> = self.shared.state().wires.values().cloned().collect();
        wires.iter().for_each(|wire| wire.cut(&self.shared));
        wires.len()
    }

    /// The next request of this kind meets this fate.
    pub fn next(&self, api: Api, fate: Fate) -> Fault {
        self.nth(api, 1, fate)
    }

    /// The `n`-th request of this kind from now on, counted from 1, meets this fate. Of several faults that fall due with the same
    /// request, the one that was set first takes it, and the others the next.
    pub fn nth(&self, api: Api, n: u32, fate: Fate) -> Fault {
        let order = Arc::new(Order::new(api, n, fate));
        self.shared.change(|state| state.orders.push(order.clone()));
        Fault::new(self.shared.clone(), order)
    }

    /// Forgets every fault that has not taken place; requests that are held stay held.
    pub fn clear(&self) {
        self.shared.change(|state| state.orders.clear());
    }

    /// How many requests of this kind came from clients.
    pub fn requests(&self, api: Api) -> u64 {
        self.shared.state().requests.get(&api).copied().unwrap_or_default()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.shared.state().wires.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|state| state.stopping = true);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// What the threads of a proxy share. Whoever changes something wakes everyone who waits for something.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    upstream: Option<SocketAddr>,
    latency: Duration,
    paused: bool,
    stopping: bool,
    /// Faults that have not met their request.
    orders: Vec<Arc<Order>>,
    requests: BTreeMap<Api, u64>,
    wires: BTreeMap<u64, Arc<Wire>>,
    next_wire: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let answer = change(&mut self.state());
        self.changed.notify_all();
        answer
    }

    /// Waits until the condition answers something; `None` when the proxy ends or the time is up.
    fn wait<T>(&self, deadline: Option<Instant>, mut condition: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(answer) = condition(&state) {
                return Some(answer);
            }
            if state.stopping {
                return None;
            }
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Waits until something that arrived just now may go on: the latency is over and there is no partition.
    fn pass(&self, more: Duration) -> bool {
        let due = Instant::now() + self.state().latency + more;
        let _: Option<()> = self.wait(Some(due), |_| None);
        self.wait(None, |state| (!state.paused).then_some(())).is_some()
    }

    /// Counts a request, and finds the fault that is set on it.
    fn arrived(&self, api: Api) -> Option<Arc<Order>> {
        let mut state = self.state();
        *state.requests.entry(api).or_default() += 1;
        let mut due = None;
        for (at, order) in state.orders.iter().enumerate().filter(|(_, order)| order.api == api) {
            // One that is due already gave way to another and stays due.
            let left = order.left.load(Ordering::Relaxed).saturating_sub(1);
            order.left.store(left, Ordering::Relaxed);
            if left == 0 && due.is_none() {
                due = Some(at);
            }
        }
        due.map(|at| state.orders.remove(at))
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for client in listener.incoming().map_while(Result::ok) {
        if shared.state().stopping {
            break;
        }
        threads.retain(|thread| !thread.is_finished());
        if threads.len() >= MOST_CONNECTIONS {
            continue;
        }
        let shared = shared.clone();
        threads.extend(thread::Builder::new().name("proxy-connection".into()).spawn(move || connection::serve(&shared, client)));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests;
