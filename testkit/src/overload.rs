//! More input than a worker can take: what it must still do then. Behind `make bench BENCH=--overload` and a short test.
//!
//! The worker's own figures say how fast it was, the decisions whether it was right: one about each actor that sent
//! [`AT_LEAST`] events, never two, and those of a sample of actors are kept to be compared with `replay`.

use crate::choices::Choices;
use crate::client::{OwnedRecord, Record};
use crate::http::Metrics;
use crate::kafka::Kafka;
use crate::worker::Worker;
use anyhow::{Context, Result, ensure};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Events of an actor until a decision is made about it.
pub const AT_LEAST: u8 = 5;
/// One in so many actors is kept for the comparison with `replay`.
const SAMPLED: u64 = 256;
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// The rule pack: every event changes the state of its user, so that caches, changelog and RocksDB are worked as hard as the
/// client.
pub const RULES: &str = r"schema: 1
id: overload.many-requests
version: 1
title: Many requests of one user
mode: enforce
on: http_request
by: user
detect: {count: {at_least: 5, within: 7d}}
signal: {type: many_requests}
---
schema: 1
kind: policy
id: overload
version: 1
actions: []
decide: per_signal
allowed_lateness: 30s
remember_ids: 8
";

/// Events that were made so far, seeded, and what has to come of them.
#[derive(Debug)]
pub struct Traffic {
    actors: u64,
    choices: Choices,
    /// Events made.
    pub made: u64,
    seen: Vec<u8>,
    sample: String,
}

impl Traffic {
    /// Of so many actors, each as busy as the others: the hardest for a cache.
    pub fn new(seed: u64, actors: u64) -> Traffic {
        Traffic { actors, choices: Choices::new(seed), made: 0, seen: vec![0; actors as usize], sample: String::new() }
    }

    /// The next event, of a random actor, with this time.
    pub fn next(&mut self, time_ms: i64) -> Record {
        let actor = self.choices.below(self.actors);
        self.of(actor, time_ms)
    }

    fn of(&mut self, actor: u64, time_ms: i64) -> Record {
        let mut json = String::with_capacity(320);
        // Writing to a String cannot fail.
        let _ = write!(
            json,
            r#"{{"event_id":"e-{:012x}","event_time":{time_ms},"event_type":"http_request","user_id":"user-{actor:07}","ip_address":"10.{}.{}.{}","method":"GET","path":"/api/v1/orders/{:08}","route":"/api/v1/orders/{{id}}","status_code":200,"response_time_ms":{},"user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML) Chrome/126.0"}}"#,
            self.made,
            actor >> 16 & 255,
            actor >> 8 & 255,
            actor & 255,
            self.made % 100_000_000,
            3 + self.made % 400,
        );
        self.made += 1;
        let seen = &mut self.seen[actor as usize];
        *seen = seen.saturating_add(1);
        if actor.is_multiple_of(SAMPLED) {
            self.sample.push_str(&json);
            self.sample.push('\n');
        }
        Record::new(format!("user-{actor:07}"), json).at_ms(time_ms)
    }

    /// Actors that nobody has seen yet, with enough events for a decision about each.
    fn newcomers(&mut self, count: usize, time_ms: i64) -> Vec<Record> {
        let first = self.seen.len() as u64;
        self.seen.resize(self.seen.len() + count, 0);
        (first..first + count as u64).flat_map(|actor| (0..AT_LEAST).map(move |_| actor)).map(|actor| self.of(actor, time_ms)).collect()
    }

    /// Decisions that these events make: one for each actor with enough of them.
    pub fn decisions(&self) -> u64 {
        self.seen.iter().filter(|seen| **seen >= AT_LEAST).count() as u64
    }

    /// The events of the sampled actors, as NDJSON in their order.
    pub fn sample(&self) -> &str {
        &self.sample
    }

    /// Whether an entity's events are in the sample.
    pub fn is_sampled(entity_key: &str) -> bool {
        entity_key.strip_prefix("user:user-").and_then(|actor| actor.parse::<u64>().ok()).is_some_and(|actor| actor.is_multiple_of(SAMPLED))
    }
}

/// The line that is overloaded. The worker is ready, has one input topic and [`RULES`], and nothing was produced.
#[derive(Debug)]
pub struct Target<'a> {
    /// The broker.
    pub kafka: &'a Kafka,
    /// The worker.
    pub worker: &'a mut Worker,
    /// Where its metrics are.
    pub admin: &'a str,
    /// Its input, with the producers' timestamps.
    pub input: &'a str,
    /// Its decisions.
    pub decisions: &'a str,
    /// `stream.degraded_after`.
    pub degraded_after: Duration,
}

/// How much, how long.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Events that come first, so that the capacity is that of a worker which has states to look up.
    pub warm_up: u64,
    /// Events by which the capacity is measured.
    pub events: u64,
    /// So many times the capacity.
    pub factor: f64,
    /// For so long.
    pub load: Duration,
    /// Then the broker stands still for so long, under as much load as the worker can take; zero leaves that out.
    pub stop: Duration,
    /// The time in which any one step has to be done.
    pub limit: Duration,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Events per second that the worker takes.
    pub capacity: f64,
    /// Events per second that were sent during the load.
    pub sent: f64,
    /// Events per second that were processed while they were sent.
    pub under_load: f64,
    /// Events per second that were routed meanwhile. Input that waits is routed before what came of it is read back, so this is
    /// the greater of the two until the observations wait, too; each event takes both steps.
    pub routed: f64,
    /// Events per second afterwards, until all were processed.
    pub draining: f64,
    /// Greatest lag that the worker told of, seconds.
    pub lag_s: f64,
    /// Largest resident memory after the load was drained.
    pub rss_bytes: u64,
    /// Largest resident memory at the end, after the broker had stood still.
    pub rss_at_the_end_bytes: u64,
    /// Events in all.
    pub events: u64,
    /// Decisions, and how many of them say that they are degraded.
    pub decisions: u64,
    /// See `decisions`.
    pub degraded: u64,
    /// Decisions about sampled actors: compare them with what `replay` says of [`Traffic::sample`].
    pub sample: Vec<OwnedRecord>,
}

/// What was seen, as a table in Markdown.
pub fn table(seen: &Seen, budget_bytes: u64) -> String {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    format!(
        "| capacity, events/s | sent, events/s | routed / processed meanwhile, events/s | afterwards, events/s | greatest lag, s | peak RSS MiB: overload, broker stopped | budget MiB | events | decisions | of them degraded |\n\
         |---|---|---|---|---|---|---|---|---|---|\n\
         | {:.0} | {:.0} | {:.0} / {:.0} | {:.0} | {:.1} | {:.0}, {:.0} | {:.0} | {} | {} | {} |",
        seen.capacity,
        seen.sent,
        seen.routed,
        seen.under_load,
        seen.draining,
        seen.lag_s,
        mib(seen.rss_bytes),
        mib(seen.rss_at_the_end_bytes),
        mib(budget_bytes),
        seen.events,
        seen.decisions,
        seen.degraded
    )
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// Measures the capacity, overloads, waits, stops the broker, and checks every promise that needs no `replay`.
pub fn run(target: &mut Target<'_>, traffic: &mut Traffic, plan: Plan) -> Result<Seen> {
    let joined = target.rebalances()?;
    target.produce(traffic, plan.warm_up, None)?;
    target.drain(traffic, plan.limit)?;
    let started = Instant::now();
    target.produce(traffic, plan.events, None)?;
    let first = target.sample()?;
    let from = (Instant::now(), first.processed);
    target.drain(traffic, plan.limit)?;
    let behind = traffic.made.saturating_sub(from.1);
    ensure!(behind * 2 > plan.events, "the worker kept up with the sender ({:?}): there is nothing to measure", started.elapsed());
    let capacity = behind as f64 / from.0.elapsed().as_secs_f64();

    let (before, load_started) = (target.sample()?, Instant::now());
    let count = (capacity * plan.factor * plan.load.as_secs_f64()) as u64;
    let mut lag_s = target.produce(traffic, count, Some(capacity * plan.factor))?;
    let took_s = load_started.elapsed().as_secs_f64();
    let (after, drain_started) = (target.sample()?, Instant::now());
    let (under_load, routed) = ((after.processed - before.processed) as f64 / took_s, (after.routed - before.routed) as f64 / took_s);
    let left = traffic.made - after.processed;
    lag_s = lag_s.max(target.drain(traffic, plan.limit)?);
    let draining = left as f64 / drain_started.elapsed().as_secs_f64();
    ensure!(target.rebalances()? == joined, "a member left the group while it was overloaded:\n{}", target.worker.log_tail(20));
    ensure!(target.failures()? == 0.0, "a transaction failed while it was overloaded:\n{}", target.worker.log_tail(20));
    let rss_bytes = target.worker.peak_rss_bytes();

    if !plan.stop.is_zero() {
        target.stand_still(traffic, capacity, plan)?;
    }
    target.in_time_again(traffic, plan)?;
    target.check_decisions(traffic).map(|(decisions, degraded, sample)| Seen {
        capacity,
        sent: count as f64 / took_s,
        under_load,
        routed,
        draining,
        lag_s,
        rss_bytes,
        rss_at_the_end_bytes: target.worker.peak_rss_bytes(),
        events: traffic.made,
        decisions,
        degraded,
        sample,
    })
}

/// What the worker says of itself.
struct Sample {
    routed: u64,
    processed: u64,
    lag_s: f64,
}

impl Target<'_> {
    fn sample(&mut self) -> Result<Sample> {
        let metrics = self.metrics()?;
        let processed = metrics.sum("tripline_observations_total", &[("outcome", "processed")]) as u64;
        let routed = metrics.sum("tripline_input_records_total", &[("outcome", "routed")]) as u64;
        Ok(Sample { routed, processed, lag_s: metrics.sum("tripline_lane_lag_seconds", &[]) })
    }

    fn metrics(&mut self) -> Result<Metrics> {
        if let Some(status) = self.worker.exit_status() {
            anyhow::bail!("the worker ended ({status}):\n{}", self.worker.log_tail(30));
        }
        Metrics::scrape(self.admin)
    }

    fn rebalances(&mut self) -> Result<f64> {
        Ok(self.metrics()?.sum("tripline_rebalances_total", &[]))
    }

    fn failures(&mut self) -> Result<f64> {
        Ok(self.metrics()?.sum("tripline_commit_failures_total", &[]))
    }

    /// Waits until everything is processed and committed; the greatest lag meanwhile, in seconds.
    fn drain(&mut self, traffic: &Traffic, limit: Duration) -> Result<f64> {
        let (deadline, mut lag_s) = (Instant::now() + limit, 0.0_f64);
        loop {
            let sample = self.sample()?;
            lag_s = lag_s.max(sample.lag_s);
            ensure!(sample.processed <= traffic.made, "{} of {} events were processed", sample.processed, traffic.made);
            if sample.processed == traffic.made {
                return Ok(lag_s);
            }
            let tail = || self.worker.log_tail(30);
            ensure!(Instant::now() < deadline, "{} of {} processed within {limit:?}:\n{}", sample.processed, traffic.made, tail());
            thread::sleep(SAMPLE_EVERY);
        }
    }

    /// Sends so many events, at most at this rate; the greatest lag meanwhile, in seconds.
    fn produce(&mut self, traffic: &mut Traffic, count: u64, rate: Option<f64>) -> Result<f64> {
        let (kafka, input, done) = (self.kafka, self.input, AtomicBool::new(false));
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let sent = send(kafka, input, traffic, count, rate);
                done.store(true, Ordering::Relaxed);
                sent
            });
            let mut lag_s = 0.0_f64;
            while !done.load(Ordering::Relaxed) {
                // A scrape that a busy machine is too slow for is only one sample less.
                lag_s = lag_s.max(self.sample().map_or(0.0, |sample| sample.lag_s));
                thread::sleep(SAMPLE_EVERY);
            }
            sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
            Ok(lag_s)
        })
    }

    /// The broker stands still in the middle of the load, and goes on.
    fn stand_still(&mut self, traffic: &mut Traffic, capacity: f64, plan: Plan) -> Result<()> {
        let (kafka, pause) = (self.kafka, plan.stop / 4);
        let count = (capacity * plan.stop.as_secs_f64()) as u64;
        thread::scope(|scope| {
            let stopper = scope.spawn(move || {
                thread::sleep(pause);
                kafka.signal(libc::SIGSTOP)?;
                thread::sleep(plan.stop);
                kafka.signal(libc::SIGCONT)
            });
            let produced = self.produce(traffic, count, Some(capacity));
            stopper.join().map_err(|_| anyhow::anyhow!("the stopper panicked"))??;
            produced
        })?;
        self.drain(traffic, plan.limit).context("after the broker stood still").map(drop)
    }

    /// Everything is in time again: decisions about newcomers say nothing of a lag. Others of the load are past it by now.
    fn in_time_again(&mut self, traffic: &mut Traffic, plan: Plan) -> Result<()> {
        let before = self.degraded()?;
        let records = traffic.newcomers(20, now_ms());
        self.kafka.produce_all(self.input, records)?;
        self.drain(traffic, plan.limit)?;
        let after = self.degraded()?;
        ensure!(before == after, "{} decisions were degraded though nothing lagged any more", after - before);
        Ok(())
    }

    fn degraded(&mut self) -> Result<f64> {
        Ok(self.metrics()?.sum("tripline_decisions_degraded_total", &[]))
    }

    /// One decision for each actor with enough events; those that the metric counts, and no others, carry the header, and what it
    /// says is past the limit.
    fn check_decisions(&mut self, traffic: &Traffic) -> Result<(u64, u64, Vec<OwnedRecord>)> {
        let (mut decisions, mut degraded, mut sample) = (0, 0, Vec::new());
        let limit_ms = self.degraded_after.as_millis() as i64;
        for record in self.kafka.read_committed(self.decisions)? {
            decisions += 1;
            if let Some(value) = record.header("tripline-degraded") {
                let text = String::from_utf8_lossy(value);
                let lag_ms = text.strip_prefix("lag_ms=").and_then(|ms| ms.parse::<i64>().ok());
                ensure!(lag_ms.is_some_and(|ms| ms > limit_ms), "tripline-degraded: {text}");
                degraded += 1;
            }
            if Traffic::is_sampled(&record.key_text()) {
                sample.push(record);
            }
        }
        ensure!(decisions == traffic.decisions(), "{decisions} decisions, {} expected", traffic.decisions());
        let counted = self.degraded()? as u64;
        ensure!(counted == degraded, "{degraded} decisions carry the header, {counted} are counted");
        Ok((decisions, degraded, sample))
    }
}

/// Sends events of now, at most at this rate, until all are delivered.
fn send(kafka: &Kafka, topic: &str, traffic: &mut Traffic, count: u64, rate: Option<f64>) -> Result<()> {
    let mut config = kafka.client_config();
    config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "5");
    config.set("compression.type", "lz4").set("queue.buffering.max.messages", "500000");
    let producer: BaseProducer = config.create()?;
    let started = Instant::now();
    for number in 0..count {
        if let Some(rate) = rate
            && number % 64 == 0
        {
            let due = started + Duration::from_secs_f64(number as f64 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let record = traffic.next(now_ms());
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        let mut next = BaseRecord::<[u8], [u8]>::to(topic).key(&key).payload(&value).timestamp(record.timestamp_ms.unwrap_or_default());
        while let Err((error, back)) = producer.send(next) {
            ensure!(error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), "could not send an event: {error}");
            producer.poll(Duration::from_millis(5));
            next = back;
        }
        if number % 64 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120)).context("could not deliver the last events")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_decision_is_expected_for_each_actor_with_enough_events() {
        let mut traffic = Traffic::new(1, 100);
        for _ in 0..250 {
            traffic.next(0);
        }
        let few = traffic.seen.iter().filter(|seen| **seen < AT_LEAST).count() as u64;
        assert!(few > 0 && few < 100);
        assert_eq!(traffic.decisions(), 100 - few);
        let records = traffic.newcomers(3, 0);
        assert_eq!((records.len(), traffic.decisions(), traffic.made), (15, 103 - few, 265));
        let sampled = traffic.sample().lines().count();
        assert_eq!(sampled, usize::from(traffic.seen[0]));
        assert!(
            Traffic::is_sampled("user:user-0000000")
                && Traffic::is_sampled("user:user-0000256")
                && !Traffic::is_sampled("user:user-0000001")
        );
    }
}
