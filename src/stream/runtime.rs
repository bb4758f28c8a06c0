//! The process: roles are started, watched and stopped together.
//!
//! A role that cannot go on ends the process with its reason, so that whatever runs it starts it anew; half a line that
//! looks healthy would be worse. SIGTERM and SIGINT: lanes commit what is open, stores are written, the sink flushes; all
//! within [`STOP_WITHIN`], after which the process ends anyway: every crash is safe.

use super::topics::{self, TopicsError};
use super::{Shared, access, client, fencing, group, lane, registry};
use crate::admin::{self, AdminError, health::Health};
use crate::config::memory::{Shares, Shortage};
use crate::config::{Config, KeyedBy};
use crate::live::Live;
use crate::sink::{self, SinkCounters, SinkError};
use crate::state::{Budget, StateDir, StoreError};
use crate::telemetry::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use tripline_core::protocol::start::Halt;

/// A graceful stop takes at most this long.
pub const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How often the sink's counters are carried over to the metric table.
const CARRY_EVERY: Duration = Duration::from_millis(200);
/// How long the start waits for a broker. A sink has nothing better to do.
const DETECT_REACHES_WITHIN: Duration = Duration::from_secs(10);
const SINK_REACHES_WITHIN: Duration = Duration::from_secs(30);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Routes and decides.
    Detect,
    /// Stores what was decided.
    Sink,
}

/// Why a process ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Kafka cannot be reached.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// Kafka does not allow what the roles need.
    #[error(transparent)]
    Access(#[from] access::AccessError),
    /// Topics are not as they must be.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// The tasks that there are need more memory than those that the settings speak of.
    #[error("memory.budget {0}; raise it, or lower stream.lanes or the parts that are set")]
    Memory(#[from] Shortage),
    /// The states were written for another number of partitions.
    #[error("the worker does not start: {0}")]
    Moved(#[from] Halt),
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The admin address is taken.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A lane ended.
    #[error(transparent)]
    Lane(#[from] lane::LaneError),
    /// The sink ended.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A thread ended without a word: our own bug.
    #[error("{0} ended unexpectedly: please report it with the log")]
    Panicked(String),
    /// The operating system refuses.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

impl RunError {
    /// Exit code: 3 for settings, 4 for a dependency.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Client(error) | RunError::Topics(TopicsError::Client(error)) => error.exit_code(),
            RunError::Access(error) => error.exit_code(),
            RunError::Topics(TopicsError::Wrong(_)) | RunError::Moved(_) => 3,
            RunError::Lane(lane::LaneError::Client { .. }) | RunError::Memory(_) => 3,
            RunError::Admin(error) => error.exit_code(),
            RunError::Sink(error) => error.exit_code(),
            _ => 4,
        }
    }
}

/// How a role ended.
type Ended = (String, Result<(), RunError>);

/// Runs the roles until a signal comes or one of them cannot go on.
pub fn run(config: Config, live: Arc<Live>, roles: &[Role]) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("edge").enable_all().build()?;
    let result = runtime.block_on(supervise(config, live, roles));
    // Blocking calls inside clients must not hold up the end of the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

async fn supervise(config: Config, live: Arc<Live>, roles: &[Role]) -> Result<(), RunError> {
    let (metrics, registry) = Metrics::new();
    let registry = Arc::new(registry);
    let health = Arc::new(Health::default());
    health.config_loaded();
    control(&metrics, &live);
    let access = access::Watch::start(&config, roles, &metrics)?;
    let listener = match config.admin.listen.as_str() {
        "" => None,
        listen => Some(admin::bind(listen).await?),
    };
    let (stop, stopping) = watch::channel(false);
    if let Some(listener) = listener {
        let (health, registry, mut stopping) = (health.clone(), registry.clone(), stopping.clone());
        tokio::spawn(async move {
            let asked = async move {
                let _ = stopping.wait_for(|s| *s).await;
            };
            if let Err(error) = admin::serve_on(listener, health, registry, asked).await {
                warn!(%error, "the admin endpoint ended");
            }
        });
    }
    let (ended, mut endings) = mpsc::unbounded_channel::<Ended>();
    let mut signals = Signals::new()?;

    let lanes = {
        let (config, live, metrics, health) = (config.clone(), live.clone(), metrics.clone(), health.clone());
        let (access, roles) = (access.clone(), roles.to_vec());
        let prepare = tokio::task::spawn_blocking(move || {
            if roles.contains(&Role::Detect) {
                return prepare(config, live, metrics, health, access, &roles).map(Some);
            }
            access::verify(&config, &roles, SINK_REACHES_WITHIN)?;
            Ok(None)
        });
        tokio::select! {
            prepared = prepare => prepared.map_err(|_| RunError::Panicked("start-up".to_owned()))??,
            () = signals.next() => return Ok(()),
        }
    };
    let mut running = 0;
    if let Some(shared) = &lanes {
        running += start_lanes(shared, &ended)?;
    }
    if roles.contains(&Role::Sink) {
        running += 1;
        start_sink(&config, &metrics, &health, &access, &stopping, &ended);
    }
    health.broker_reached();
    drop(ended);
    info!(roles = ?roles, lanes = config.stream.lanes, "running");

    let mut outcome = Ok(());
    tokio::select! {
        () = signals.next() => info!("stopping"),
        Some((name, result)) = endings.recv() => {
            running -= 1;
            outcome = result.inspect_err(|e| { error!(part = name, error = %e, "cannot go on"); health.dead(&name, e.to_string()); });
        }
    }
    health.stopping();
    if let Some(shared) = &lanes {
        shared.stop.store(true, Ordering::Relaxed);
    }
    let _ = stop.send(true);
    let rest = async {
        while running > 0 {
            match endings.recv().await {
                Some((_, result)) => {
                    running -= 1;
                    if outcome.is_ok() {
                        outcome = result;
                    }
                }
                None => break,
            }
        }
    };
    if tokio::time::timeout(STOP_WITHIN - Duration::from_secs(1), rest).await.is_err() {
        warn!("cut off while stopping; what is not committed is processed again at the next start");
    }
    info!("stopped");
    outcome
}

/// Everything that can be wrong before a lane starts.
fn prepare(
    config: Config,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    access: Arc<access::Watch>,
    roles: &[Role],
) -> Result<Arc<Shared>, RunError> {
    let dir = StateDir::open(&config.state.dir)?;
    let identity = match config.stream.identity.as_str() {
        "" => dir.identity()?,
        identity => identity.to_owned(),
    };
    access::verify(&config, roles, DETECT_REACHES_WITHIN)?;
    let found = topics::verify(&config)?;
    group::verify(&config, found.tasks)?;
    let memory = Shares::of(&config, usize::try_from(found.tasks).unwrap_or(0))?;
    info!(%memory, "memory budget");
    let names = &config.topics;
    let output_partitions: BTreeMap<String, i32> = [
        (config.keyed_topic(), found.tasks),
        (names.decisions.clone(), found.decisions),
        (names.alerts.clone(), found.alerts),
        (names.standing.clone(), found.standing),
        (names.dead_letters.clone(), found.dead_letters),
        (names.late.clone(), found.late),
        (names.shadow.clone(), found.shadow),
    ]
    .into();
    let mut inputs = vec![config.keyed_topic()];
    if config.input.keyed_by == KeyedBy::None {
        inputs.extend(config.input.topics.iter().cloned());
    }
    Ok(Arc::new(Shared {
        base: client::base(&config),
        inputs,
        partitions: found.tasks,
        output_partitions,
        inputs_at_start: group::inputs(&config, &found.inputs),
        layout: Mutex::new(found.inputs),
        changelog: config.changelog_topic(),
        live,
        metrics,
        health,
        budget: Budget::new(memory.rocksdb).with_unwritten(memory.lane().unwritten, memory.lane().restore_unwritten),
        memory,
        dir,
        identity,
        access,
        registry: registry::Registry::default(),
        fences: fencing::Fences::default(),
        stop: AtomicBool::new(false),
        config,
    }))
}

fn start_lanes(shared: &Arc<Shared>, ended: &mpsc::UnboundedSender<Ended>) -> Result<usize, RunError> {
    let lanes = shared.config.stream.lanes;
    for number in 0..lanes {
        let name = lane::name(number);
        shared.health.expect(&name);
        let (shared, ended) = (shared.clone(), ended.clone());
        std::thread::Builder::new().name(name.clone()).spawn(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lane::run(&shared, number)));
            let result = result.map_err(|_| RunError::Panicked(name.clone())).and_then(|r| r.map_err(RunError::from));
            let _ = ended.send((name, result));
        })?;
    }
    Ok(lanes)
}

fn start_sink(
    config: &Config,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    access: &Arc<access::Watch>,
    stopping: &watch::Receiver<bool>,
    ended: &mpsc::UnboundedSender<Ended>,
) {
    let counters = Arc::new(SinkCounters::default());
    health.started("sink");
    health.ready("sink");
    let role = sink::run(Arc::new(config.clone()), client::base(config), counters.clone(), stopping.clone());
    let ended = ended.clone();
    tokio::spawn(async move {
        let result = role.await.map_err(RunError::from);
        let _ = ended.send(("sink".to_owned(), result));
    });
    let (metrics, health, access) = (metrics.clone(), health.clone(), access.clone());
    tokio::spawn(async move {
        let (mut carried, mut refusals) = ([0; 5], 0);
        loop {
            carry(&metrics, &counters, &mut carried);
            let refused = counters.refusals.load(Ordering::Relaxed);
            if std::mem::replace(&mut refusals, refused) < refused {
                access.refused_elsewhere("in the sink");
            }
            match access.reason() {
                Some(reason) => health.waiting("sink", reason),
                None => health.ready("sink"),
            }
            tokio::time::sleep(CARRY_EVERY).await;
        }
    });
}

/// What the metric table says of rules and flags; carried over like the sink's counters.
fn control(metrics: &Arc<Metrics>, live: &Arc<Live>) {
    let (metrics, live) = (metrics.clone(), live.clone());
    let mut counted = (0, 0);
    tokio::spawn(async move {
        loop {
            let engine = live.current();
            metrics.control.rules.set(&engine.rules.digest);
            metrics.control.flags.set(&engine.flags_digest);
            metrics.control.detection_enabled.set(i64::from(engine.switched_off_by().is_none()));
            metrics.know_types(engine.rules.profiles.keys().map(String::as_str));
            let now = (live.reloads(), live.reload_failures());
            metrics.control.rules_reloaded.inc_by(now.0 - counted.0);
            metrics.control.rules_reload_failed.inc_by(now.1 - counted.1);
            counted = now;
            tokio::time::sleep(CARRY_EVERY).await;
        }
    });
}

/// Adds what the sink counted since the last time.
fn carry(metrics: &Metrics, counters: &SinkCounters, carried: &mut [u64; 5]) {
    let sink = &metrics.sink;
    let pairs = [
        (&sink.stored, &counters.stored),
        (&sink.repeated, &counters.repeated),
        (&sink.without_signal, &counters.without_signal),
        (&sink.unreadable, &counters.unreadable),
        (&sink.batches, &counters.batches),
    ];
    for ((metric, counter), carried) in pairs.into_iter().zip(carried) {
        let now = counter.load(Ordering::Relaxed);
        metric.inc_by(now - std::mem::replace(carried, now));
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
