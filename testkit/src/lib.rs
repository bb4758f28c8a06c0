//! A real Kafka for tests, demo and benchmarks, and what one needs around it.
//!
//! Start with [`Kafka::shared`] (one broker for all tests of a binary) or [`Kafka::start`]; it has the client calls that tests
//! want: [`Kafka::create_topic`], [`Kafka::produce_all`], [`Kafka::read_committed`]. [`Worker`] runs the `tripline` binary
//! beside it and can kill it. Nothing that is started here outlives the process that started it.

pub mod choices;
pub mod client;
pub mod faults;
pub mod http;
pub mod kafka;
pub mod keys;
pub mod line;
pub mod malformed;
pub mod overload;
pub mod preload;
pub mod process;
pub mod proxy;
pub mod worker;

pub use client::{OwnedRecord, Record};
pub use http::Metrics;
pub use kafka::{Kafka, Options};
pub use line::Line;
pub use process::Process;
pub use proxy::Proxy;
pub use worker::Worker;

use anyhow::{Result, bail};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A name that no other test and no earlier run uses: `prefix-…`. For topics, groups and app ids on a shared broker.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{prefix}-{:x}-{:x}-{}", since_epoch.as_millis(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Asks again and again until the condition holds; an error that says what was waited for when the time is up.
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A loopback address that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
