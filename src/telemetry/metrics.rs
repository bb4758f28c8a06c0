//! THE table of metrics. `docs/metrics.md` is generated from it (a test keeps it so).
//!
//! Counters of records move only when a commit is known: lanes count into a [`Tally`]. No label names an actor, a topic
//! or a rule; every label comes from a small closed set.

use super::table::{Current, Label, Row, Seconds, Table};
use super::tally::Tally;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tripline_core::rejection::Reason;

/// Upper bounds for the time of a commit: 50 ms is its period, 10 s its timeout.
const COMMIT_SECONDS: [f64; 12] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0];
const TRANSACTION_RECORDS: [f64; 9] = [1.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 50_000.0];
const RESTORE_SECONDS: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];

/// Anomaly types that get a counter of their own; further ones count as `other`.
pub const MAX_TYPES: usize = 64;

/// Every metric of the process. Handles are cheap to clone and share their numbers.
#[derive(Debug)]
pub struct Metrics {
    /// The router's input.
    pub input: InputOutcomes,
    /// Observations, or keyed input.
    pub observations: ObservationOutcomes,
    dead_letters: [Counter; Reason::ALL.len()],
    decisions: Decisions,
    actions: [Counter; Tally::ACTIONS.len()],
    alerts: [Counter; Tally::ALERTS.len()],
    standings: Counter,
    shadow: Counter,
    degraded: Counter,
    clamped: Counter,
    ticks: Counter,
    timed_decisions: Counter,
    subkeys_dropped: Counter,
    changelog_records: Counter,
    changelog_bytes: Counter,
    /// Transactions.
    pub commits: CommitMetrics,
    /// Restores from the changelog.
    pub restore: RestoreMetrics,
    /// Batches written to RocksDB.
    pub state_writes: Counter,
    /// Times that a lane held its input back, because its tasks' observations waited.
    pub input_holds: Counter,
    /// Rebalances.
    pub rebalances: RebalanceMetrics,
    /// Rules and flags.
    pub control: ControlMetrics,
    /// The event store.
    pub sink: SinkMetrics,
    /// Requests that Kafka refused.
    pub refusals: Counter,
    /// 1 while Kafka denies something.
    pub access_denied: Gauge,
    lanes: LaneFamilies,
}

/// Fates of input records.
#[derive(Debug, Clone)]
pub struct InputOutcomes {
    /// Became observations.
    pub routed: Counter,
    /// No rule's entity applies.
    pub unaddressed: Counter,
    /// Became dead letters.
    pub dead_lettered: Counter,
}

/// Fates of observations.
#[derive(Debug, Clone)]
pub struct ObservationOutcomes {
    /// Counted and evaluated.
    pub processed: Counter,
    /// Too late to count.
    pub late: Counter,
    /// Seen before.
    pub duplicate: Counter,
    /// Concern nobody that the rules count (keyed mode).
    pub unaddressed: Counter,
    /// Became dead letters.
    pub dead_lettered: Counter,
}

/// Transactions.
#[derive(Debug, Clone)]
pub struct CommitMetrics {
    /// Committed transactions.
    pub total: Counter,
    /// Aborted for a reason of ours (a panic, a full buffer, a failed produce).
    pub aborts: Counter,
    /// Ended by building the producer anew.
    pub rebuilds: Counter,
    /// Refused because of a rebalance: normal around one.
    pub rebalances: Counter,
    /// Ended, but slow enough to have been sent twice: the producer was built anew before the next one.
    pub suspects: Counter,
    /// From begin of the commit to its answer.
    pub seconds: Histogram,
    /// Input records per transaction.
    pub records: Histogram,
}

/// Restores from the changelog.
#[derive(Debug, Clone)]
pub struct RestoreMetrics {
    /// Changelog records applied.
    pub records: Counter,
    /// Their keys and values, bytes.
    pub bytes: Counter,
    /// Changelog offsets that running restores have before them, at most.
    pub remaining: Gauge,
    /// Local stores that were set aside.
    pub set_aside: Counter,
    /// Time of one task's restore.
    pub seconds: Histogram,
}

/// Rebalances, per lane and callback.
#[derive(Debug, Clone)]
pub struct RebalanceMetrics {
    /// Partitions came.
    pub assign: Counter,
    /// Partitions went, after a commit.
    pub revoke: Counter,
    /// Partitions were taken away.
    pub lost: Counter,
    /// Transactions of former owners were ended.
    pub fences: Counter,
}

/// Rules and flags in use.
#[derive(Debug, Clone)]
pub struct ControlMetrics {
    /// The rule pack was read again.
    pub rules_reloaded: Counter,
    /// It could not be used.
    pub rules_reload_failed: Counter,
    /// The flags were read again.
    pub flags_reloaded: Counter,
    /// They could not be used.
    pub flags_reload_failed: Counter,
    /// Digest of the rules.
    pub rules: Current,
    /// Digest of the flags.
    pub flags: Current,
    /// 1 unless the master flag is off for everyone.
    pub detection_enabled: Gauge,
}

/// The event store's side.
#[derive(Debug, Clone)]
pub struct SinkMetrics {
    /// Rows written.
    pub stored: Counter,
    /// Already there.
    pub repeated: Counter,
    /// Nothing fired: not stored.
    pub without_signal: Counter,
    /// Not a decision of a version that we read.
    pub unreadable: Counter,
    /// Database transactions.
    pub batches: Counter,
    last_batch: Seconds,
}

impl SinkMetrics {
    /// Counts a batch that the database has committed.
    pub fn batch_stored(&self) {
        self.batches.inc();
        self.last_batch.set(unix_seconds());
    }
}

/// What one lane says about itself.
#[derive(Debug, Clone)]
pub struct LaneMetrics {
    last_commit: Seconds,
    /// Bytes of decoded actor states.
    pub cache_bytes: Gauge,
    /// Number of decoded actor states.
    pub cache_entries: Gauge,
    /// Tasks being restored.
    pub restoring: Gauge,
    /// Tasks being processed.
    pub running: Gauge,
    stream_time: Seconds,
    /// How far behind the lane is.
    pub lag: Seconds,
}

impl LaneMetrics {
    /// The least stream time of the lane's tasks; `None` while one has none, or no rule needs it.
    pub fn stream_time(&self, at_ms: Option<i64>) {
        self.stream_time.set(at_ms.map_or(0.0, |ms| ms as f64 / 1_000.0));
    }

    /// A transaction of the lane was committed just now.
    pub fn committed_now(&self) {
        self.last_commit.set(unix_seconds());
    }
}

type ByLane<M> = Family<Vec<(&'static str, String)>, M>;

#[derive(Debug)]
struct LaneFamilies {
    last_commit: ByLane<Seconds>,
    cache_bytes: ByLane<Gauge>,
    cache_entries: ByLane<Gauge>,
    tasks: ByLane<Gauge>,
    stream_time: ByLane<Seconds>,
    lag: ByLane<Seconds>,
}

/// Decisions by type: types of loaded profiles, `other`, `none`.
#[derive(Debug)]
struct Decisions {
    family: Family<Label, Counter>,
    none: Counter,
    other: Counter,
    types: Mutex<HashMap<String, Counter>>,
}

impl Metrics {
    /// The metrics and the registry that serves them.
    pub fn new() -> (Arc<Metrics>, Registry) {
        let (metrics, table) = Metrics::build();
        (Arc::new(metrics), table.finish().0)
    }

    /// The rows of `docs/metrics.md`.
    pub fn rows() -> Vec<Row> {
        Metrics::build().1.finish().1
    }

    fn build() -> (Metrics, Table) {
        let mut table = Table::default();
        let t = &mut table;
        let [routed, unaddressed, dead_lettered] = t.counters(
            "input_records",
            "outcome",
            ["routed", "unaddressed", "dead_lettered"],
            "Input records by their one outcome at the router, committed. Routed mode only.",
        );
        let input = InputOutcomes { routed, unaddressed, dead_lettered };
        let [processed, late, duplicate, unaddressed, dead_lettered] = t.counters(
            "observations",
            "outcome",
            ["processed", "late", "duplicate", "unaddressed", "dead_lettered"],
            "Observations (keyed mode: input records) by their one outcome at their task, committed.",
        );
        let observations = ObservationOutcomes { processed, late, duplicate, unaddressed, dead_lettered };
        let dead_letters =
            t.counters("dead_letters", "reason", Reason::ALL.map(Reason::name), "Dead letters of both stages by reason, committed.");
        let decisions = Decisions::new(t);
        let actions =
            t.counters("decisions_actions", "action", Tally::ACTIONS, "Decisions by the strongest thing that happened, committed.");
        let alerts = t.counters("alerts", "state", Tally::ALERTS, "Records of alerts by what happened to the alert, committed.");
        let standings = t.counter("standings", "Standings published or taken back, committed.");
        let shadow = t.counter("shadow_decisions", "Decisions of rules that only watch (mode shadow), committed.");
        let degraded = t.counter(
            "decisions_degraded",
            "Decisions with the header `tripline-degraded`, which came longer after their cause than `stream.degraded_after`, committed.",
        );
        let clamped =
            t.counter("clamped", "Observations whose event time was ahead of the reference time and was capped to it, committed.");
        let ticks = t.counter("ticks", "Ticks read by tasks, committed: records of the observations topic that are no observations.");
        let timed_decisions =
            t.counter("timed_decisions", "Decisions that passing time caused, committed; they are among the decisions, too.");
        let subkeys_dropped = t.counter(
            "subkeys_dropped",
            "Decisions marked partial, because a rule had more sub-keys for the entity than its bound, committed.",
        );
        let changelog_records = t.counter("changelog_records", "Records written to the changelog, markers included, committed.");
        let changelog_bytes = t.byte_counter("changelog", "Bytes of keys and values written to the changelog, committed.");
        let metrics = Metrics {
            input,
            observations,
            dead_letters,
            decisions,
            actions,
            alerts,
            standings,
            shadow,
            degraded,
            clamped,
            ticks,
            timed_decisions,
            subkeys_dropped,
            changelog_records,
            changelog_bytes,
            commits: CommitMetrics::new(t),
            restore: RestoreMetrics::new(t),
            state_writes: t.counter("state_writes", "Batches written to RocksDB, each of one task and one or more commits."),
            input_holds: t.counter("input_holds", "Times that a lane took no new input until its waiting observations were processed."),
            rebalances: RebalanceMetrics::new(t),
            control: ControlMetrics::new(t),
            sink: SinkMetrics::new(t),
            refusals: t.counter(
                "kafka_refusals",
                "Requests that Kafka refused for want of a right, of good credentials or of a trusted certificate.",
            ),
            access_denied: t
                .gauge("kafka_access_denied", "1 while Kafka denies something that the roles need; the log and `/readyz` say what."),
            lanes: LaneFamilies::new(t),
        };
        t.info("build_info", "version", "version of the binary", "Always 1; the label says which binary this is.")
            .set(env!("CARGO_PKG_VERSION"));
        (metrics, table)
    }

    /// Gives these anomaly types (of the profiles of the loaded rules) a counter of their own. Types of earlier packs
    /// keep theirs; past [`MAX_TYPES`] they count as `other`, as do types that no profile names.
    pub fn know_types<'t>(&self, types: impl IntoIterator<Item = &'t str>) {
        let mut known = self.decisions.types.lock().unwrap_or_else(PoisonError::into_inner);
        for name in types.into_iter().collect::<HashSet<_>>() {
            // These two words are taken.
            if known.len() < MAX_TYPES && !known.contains_key(name) && !["other", "none"].contains(&name) {
                known.insert(name.to_owned(), self.decisions.family.get_or_create_owned(&[("type", name.to_owned())]));
            }
        }
    }

    /// Adds what a transaction did, once its commit is known.
    pub fn add(&self, tally: &Tally) {
        let single = [
            (&self.input.routed, tally.routed),
            (&self.input.unaddressed, tally.unaddressed),
            (&self.input.dead_lettered, tally.input_dead_lettered),
            (&self.observations.processed, tally.processed),
            (&self.observations.late, tally.late),
            (&self.observations.duplicate, tally.duplicate),
            (&self.observations.unaddressed, tally.concerns_nobody),
            (&self.observations.dead_lettered, tally.dead_lettered),
            (&self.standings, tally.standings),
            (&self.shadow, tally.shadow),
            (&self.degraded, tally.degraded),
            (&self.clamped, tally.clamped),
            (&self.ticks, tally.ticks),
            (&self.timed_decisions, tally.timed_decisions),
            (&self.subkeys_dropped, tally.subkeys_dropped),
            (&self.changelog_records, tally.changelog_records),
            (&self.changelog_bytes, tally.changelog_bytes),
            (&self.decisions.none, tally.without_type),
        ];
        let reasons = self.dead_letters.iter().zip(tally.dead_letters);
        let actions = self.actions.iter().zip(tally.actions);
        let alerts = self.alerts.iter().zip(tally.alerts);
        for (counter, by) in single.into_iter().chain(reasons).chain(actions).chain(alerts).filter(|(_, by)| *by > 0) {
            counter.inc_by(by);
        }
        if !tally.types.is_empty() {
            let known = self.decisions.types.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, by) in &tally.types {
                known.get(name).unwrap_or(&self.decisions.other).inc_by(*by);
            }
        }
    }

    /// The handles of one lane, by its number.
    pub fn lane(&self, number: usize) -> LaneMetrics {
        let lane = vec![("lane", number.to_string())];
        let state = |state: &str| {
            let mut labels = lane.clone();
            labels.push(("state", state.to_owned()));
            labels
        };
        LaneMetrics {
            last_commit: self.lanes.last_commit.get_or_create_owned(&lane),
            cache_bytes: self.lanes.cache_bytes.get_or_create_owned(&lane),
            cache_entries: self.lanes.cache_entries.get_or_create_owned(&lane),
            restoring: self.lanes.tasks.get_or_create_owned(&state("restoring")),
            running: self.lanes.tasks.get_or_create_owned(&state("running")),
            stream_time: self.lanes.stream_time.get_or_create_owned(&lane),
            lag: self.lanes.lag.get_or_create_owned(&lane),
        }
    }
}

impl Decisions {
    fn new(t: &mut Table) -> Decisions {
        let family = t.counter_family(
            "decisions",
            "type",
            "anomaly types of the loaded profiles (64 at most), `other`, and `none` (nothing fired, `decisions.emit: all`)",
            "Decisions by anomaly type, committed.",
        );
        let handle = |name: &str| family.get_or_create_owned(&[("type", name.to_owned())]);
        Decisions { none: handle("none"), other: handle("other"), types: Mutex::default(), family }
    }
}

impl CommitMetrics {
    fn new(t: &mut Table) -> CommitMetrics {
        let total = t.counter("commits", "Transactions committed.");
        let [aborts, rebuilds, rebalances, suspects] = t.counters(
            "commit_failures",
            "kind",
            ["abort", "rebuild", "rebalance", "suspect"],
            "Transactions that were not committed at the first try: aborted and done again, producer built anew, or refused because of a rebalance (normal around one); and those that ended so slowly that a request may have been sent twice, which is one of the reasons for a new producer.",
        );
        let seconds =
            t.histogram("commit", Some(Unit::Seconds), &COMMIT_SECONDS, "Time from sealing a transaction to the broker's answer.");
        let records = t.histogram("transaction_records", None, &TRANSACTION_RECORDS, "Records consumed per committed transaction.");
        CommitMetrics { total, aborts, rebuilds, rebalances, suspects, seconds, records }
    }
}

impl RestoreMetrics {
    fn new(t: &mut Table) -> RestoreMetrics {
        let records = t.counter("restore_records", "Changelog records applied while restoring.");
        let bytes = t.counter("restore_bytes", "Bytes of keys and values of changelog records applied while restoring.");
        let remaining = t.gauge("restore_remaining_offsets", "Changelog offsets that running restores still have before them, at most.");
        let set_aside = t.counter("state_set_aside", "Local stores set aside because they could not be read or were of another life.");
        let seconds = t.histogram("restore", Some(Unit::Seconds), &RESTORE_SECONDS, "Time of one task's restore, once its turn has come.");
        RestoreMetrics { records, bytes, remaining, set_aside, seconds }
    }
}

impl RebalanceMetrics {
    fn new(t: &mut Table) -> RebalanceMetrics {
        let [assign, revoke, lost] = t.counters("rebalances", "kind", ["assign", "revoke", "lost"], "Rebalance callbacks of all lanes.");
        let fences = t.counter("fences", "Transactions of former owners that were gone, ended by their successor.");
        RebalanceMetrics { assign, revoke, lost, fences }
    }
}

impl ControlMetrics {
    fn new(t: &mut Table) -> ControlMetrics {
        let [[rules_reloaded, rules_reload_failed], [flags_reloaded, flags_reload_failed]] = t.counters2(
            "reloads",
            ["what", "result"],
            ["rules", "flags"],
            ["ok", "failed"],
            "Times that changed rules or flags were read; after a failure the former ones stay in use.",
        );
        let rules =
            t.info("rules_info", "digest", "digest of the rule pack and its settings", "Always 1; the label says which rules are in use.");
        let flags = t.info("flags_info", "digest", "digest of the flags", "Always 1; the label says which flags are in use.");
        let detection_enabled = t.gauge("detection_enabled", "1, or 0 while the master flag is off for everyone.");
        ControlMetrics { rules_reloaded, rules_reload_failed, flags_reloaded, flags_reload_failed, rules, flags, detection_enabled }
    }
}

impl SinkMetrics {
    fn new(t: &mut Table) -> SinkMetrics {
        let [stored, repeated, without_signal, unreadable] = t.counters(
            "sink_records",
            "outcome",
            ["stored", "repeated", "without_signal", "unreadable"],
            "Decisions read by the sink: stored, already there, nothing fired (not stored), or not readable by this version.",
        );
        let batches = t.counter("sink_batches", "Database transactions of the sink.");
        let last_batch =
            t.seconds_gauge("sink_last_batch_timestamp", "Unix time of the sink's last database transaction; 0 before the first.");
        SinkMetrics { stored, repeated, without_signal, unreadable, batches, last_batch }
    }
}

impl LaneFamilies {
    fn new(t: &mut Table) -> LaneFamilies {
        LaneFamilies {
            tasks: t.lane_gauges("tasks", None, "`state`: `restoring`, `running`", "Tasks that the lane owns, by what they are doing."),
            last_commit: t.lane_gauges(
                "lane_last_commit_timestamp",
                Some(Unit::Seconds),
                "",
                "Unix time of the lane's last committed transaction; 0 before the first. An idle lane commits nothing.",
            ),
            stream_time: t.lane_gauges(
                "lane_stream_timestamp",
                Some(Unit::Seconds),
                "",
                "Stream time: up to when the lane's tasks have heard from all their sources, the least of them; 0 while a source was not heard, and while nothing waits for time.",
            ),
            lag: t.lane_gauges(
                "lane_lag",
                Some(Unit::Seconds),
                "",
                "Greatest age of an observation (keyed mode: input record) when it was processed just now, by its reference time; 0 when nothing was processed for a second.",
            ),
            cache_bytes: t.lane_gauges("state_cache", Some(Unit::Bytes), "", "Bytes of decoded actor states in memory."),
            cache_entries: t.lane_gauges("state_cache_entries", None, "", "Decoded actor states in memory."),
        }
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
