//! A real Kafka, from wherever one can be had.
//!
//! In this order: the broker that `TRIPLINE_TEST_BOOTSTRAP` names; `apache/kafka` in Docker, where an engine answers; Apache
//! Kafka from Maven Central on Java 17, as a child process. If none works, one error names all three ways and why each
//! failed. Nothing is skipped silently: a test without a broker is a failed test.

pub mod access;
mod docker;
mod local;

use crate::client;
use anyhow::{Result, bail};
use local::LocalBroker;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::time::Duration;

/// The version that tests and demo run against.
pub const VERSION: &str = "4.3.1";
/// The variable that names a broker which is there already.
pub const BOOTSTRAP_VARIABLE: &str = "TRIPLINE_TEST_BOOTSTRAP";

/// How a broker is started. A broker that is there already is taken as it is.
#[derive(Debug, Clone)]
pub struct Options {
    /// The JVM's largest heap, as Java writes it.
    pub heap: String,
    /// More lines for `server.properties`; they win over ours.
    pub properties: Vec<(String, String)>,
    /// Further listeners; only a broker that runs as our child has them.
    pub listeners: Vec<Listener>,
    /// Loggers of the broker and their levels, beside ours; only a broker that runs as our child has them.
    pub loggers: Vec<(String, String)>,
}

/// A further listener of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name in Kafka's settings, in capitals.
    pub name: String,
    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub protocol: String,
    /// Where clients are told to connect, when it is not the listener itself: a proxy in front of it.
    pub advertised: Option<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Options { heap: "512m".to_owned(), properties: Vec::new(), listeners: Vec::new(), loggers: Vec::new() }
    }
}

/// A broker. One that was started here ends with this value, and at the latest with the process.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: String,
    broker: Mutex<Broker>,
}

#[derive(Debug)]
enum Broker {
    /// Somebody else's.
    External,
    Docker(#[expect(dead_code, reason = "held for its Drop")] docker::Container),
    Local(LocalBroker),
    /// Stopped by us.
    Stopped,
}

impl Kafka {
    /// Starts a broker, or finds one; see the module for the order.
    pub fn start() -> Result<Kafka> {
        Kafka::start_with(&Options::default())
    }

    /// Starts a broker with these options.
    pub fn start_with(options: &Options) -> Result<Kafka> {
        remember_panics();
        if let Some(bootstrap) = std::env::var(BOOTSTRAP_VARIABLE).ok().filter(|b| !b.is_empty()) {
            return Kafka::connect(&bootstrap);
        }
        let docker = if options.listeners.is_empty() {
            docker::start(options).and_then(Kafka::in_docker)
        } else {
            Err(anyhow::anyhow!("a broker with further listeners has to be our child"))
        };
        let docker = match docker {
            Ok(kafka) => return Ok(kafka),
            Err(why) => why,
        };
        let local = match local::start(options) {
            Ok(broker) => return Ok(Kafka { bootstrap: broker.bootstrap().to_owned(), broker: Mutex::new(Broker::Local(broker)) }),
            Err(why) => why,
        };
        bail!(
            "no Kafka to work with; one of these three is needed:\n\
             1. a broker: set {BOOTSTRAP_VARIABLE}=host:port (not set)\n\
             2. Docker, for the image apache/kafka:{VERSION}: {docker:#}\n\
             3. Java 17 and Maven, for Apache Kafka {VERSION} from Maven Central (`make setup` installs them): {local:#}"
        )
    }

    /// Uses a broker that is there already.
    pub fn connect(bootstrap: &str) -> Result<Kafka> {
        client::wait_for_metadata(bootstrap, Duration::from_secs(15))?;
        Ok(Kafka { bootstrap: bootstrap.to_owned(), broker: Mutex::new(Broker::External) })
    }

    fn in_docker(container: docker::Container) -> Result<Kafka> {
        client::wait_for_metadata(container.bootstrap(), Duration::from_secs(60))?;
        Ok(Kafka { bootstrap: container.bootstrap().to_owned(), broker: Mutex::new(Broker::Docker(container)) })
    }

    /// The broker that all tests of this binary share; started by the first one that asks, stopped when the process ends.
    ///
    /// # Panics
    /// When there is no Kafka: every test that needs one fails with the same message.
    pub fn shared() -> &'static Kafka {
        match SHARED.get_or_init(|| Kafka::start().map(Kafka::keep).map_err(|why| format!("{why:#}"))) {
            Ok(kafka) => kafka,
            Err(why) => panic!("{why}"),
        }
    }

    /// Keeps a broker until the process ends, and stops it then.
    pub fn keep(self) -> &'static Kafka {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the handler is a plain function without preconditions.
            unsafe { libc::atexit(stop_kept) };
        });
        let kafka: &'static Kafka = Box::leak(Box::new(self));
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(kafka);
        kafka
    }

    /// `host:port` for clients.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Where this broker comes from, in words for people.
    pub fn origin(&self) -> String {
        match &*self.broker() {
            Broker::External => format!("broker at {}", self.bootstrap),
            Broker::Docker(_) => format!("apache/kafka:{VERSION} in Docker at {}", self.bootstrap),
            Broker::Local(_) => format!("Apache Kafka {VERSION} on Java at {}", self.bootstrap),
            Broker::Stopped => "stopped broker".to_owned(),
        }
    }

    /// The broker's log file. Only a broker that runs as our child has one.
    pub fn broker_log(&self) -> Option<PathBuf> {
        match &*self.broker() {
            Broker::Local(local) => Some(local.log().to_owned()),
            _ => None,
        }
    }

    /// Where a further listener of the broker is reached (not what it advertises).
    pub fn listener(&self, name: &str) -> Option<SocketAddr> {
        match &*self.broker() {
            Broker::Local(local) => local.listener(name),
            _ => None,
        }
    }

    /// Kills the broker without warning (SIGKILL). Only one that runs as our child can be killed.
    pub fn kill_9(&self) -> Result<()> {
        self.local(|local| {
            local.process().kill_9();
            Ok(())
        })
    }

    /// Sends the broker a signal. Only one that runs as our child gets it.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        self.local(|local| {
            local.process().signal(signal);
            Ok(())
        })
    }

    /// Starts a broker that was killed again, on the same data and ports, and waits until it answers.
    pub fn restart(&self) -> Result<()> {
        self.local(LocalBroker::restart)
    }

    fn local(&self, work: impl FnOnce(&mut LocalBroker) -> Result<()>) -> Result<()> {
        match &mut *self.broker() {
            Broker::Local(local) => work(local),
            _ => bail!("only a broker that runs as our child can be treated so: this one is {}", self.bootstrap),
        }
    }

    /// Process id of a broker that runs as our child.
    pub fn broker_pid(&self) -> Option<u32> {
        match &*self.broker() {
            Broker::Local(local) => Some(local.id()),
            _ => None,
        }
    }

    /// Stops the broker if it is ours. The log stays behind when a test has panicked.
    pub fn stop(&self) {
        let broker = std::mem::replace(&mut *self.broker(), Broker::Stopped);
        if let Broker::Local(local) = &broker {
            let log = local.log().to_owned();
            drop(broker);
            if PANICKED.load(Ordering::Relaxed) {
                eprintln!("the broker's log: {}", log.display());
            } else {
                let _ = fs::remove_file(log);
            }
        }
    }

    fn broker(&self) -> std::sync::MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.stop();
    }
}

static SHARED: OnceLock<Result<&'static Kafka, String>> = OnceLock::new();
static KEPT: Mutex<Vec<&'static Kafka>> = Mutex::new(Vec::new());
/// Some thread has panicked: a test failed, and the log may say why.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Statics are not dropped: brokers that are kept are stopped when the process exits. (A child dies with us in any case, and a
/// container would stay behind after a SIGKILL.)
extern "C" fn stop_kept() {
    for kafka in std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner)) {
        kafka.stop();
    }
}

fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.store(true, Ordering::Relaxed);
            before(info);
        }));
    });
}

/// The settings every broker of ours shares: small, fast to start, quick rebalances.
fn common_properties() -> Vec<(&'static str, String)> {
    [
        ("process.roles", "broker,controller"),
        ("node.id", "1"),
        ("controller.listener.names", "CONTROLLER"),
        ("inter.broker.listener.name", "PLAINTEXT"),
        ("offsets.topic.replication.factor", "1"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
        ("share.coordinator.state.topic.replication.factor", "1"),
        ("share.coordinator.state.topic.min.isr", "1"),
        // The default of 50 is the slow part of the first join.
        ("offsets.topic.num.partitions", "1"),
        ("transaction.state.log.num.partitions", "1"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("group.min.session.timeout.ms", "500"),
        // The default of 128 MiB is taken from the heap at the start.
        ("log.cleaner.dedupe.buffer.size", "2097152"),
        // Compaction tests need not wait 15 s.
        ("log.cleaner.backoff.ms", "500"),
        ("num.network.threads", "1"),
        ("num.io.threads", "2"),
        ("background.threads", "2"),
        ("auto.create.topics.enable", "false"),
    ]
    .into_iter()
    .map(|(name, value)| (name, value.to_owned()))
    .collect()
}
