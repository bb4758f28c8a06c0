//! Latency at a steady rate: from handing an event to the producer until a read_committed consumer receives its first decision.

use crate::cluster::{Probe, delete_topics};
use crate::events::{Events, number_in};
use crate::worker::{Run, Setup};
use crate::{Mode, now_ms};
use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tripline_testkit::{Kafka, Metrics, unique};

/// How the load looks.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Events per second.
    pub rate: u64,
    /// Not measured.
    pub warm_up_s: u64,
    /// Measured.
    pub seconds: u64,
    /// Actors of the events.
    pub actors: usize,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Latency {
    /// Measured events.
    pub sent: u64,
    /// Measured events whose decision was received.
    pub received: u64,
    /// 50, 99 and 99.9 % of them took at most this long.
    pub p50_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// Cores that the worker used.
    pub worker_cores: f64,
    /// 50, 99 and 99.9 % of the commits took at most this long: bounds of the histogram's buckets.
    pub commit_ms: [f64; 3],
}

/// Measures once.
pub fn measure(kafka: &Kafka, setup: &Setup, mode: Mode, load: Load) -> Result<Latency> {
    let input = unique("bench-latency");
    kafka.create_topic(&input, setup.partitions, &[])?;
    let run = Run::prepare(kafka, setup, mode, &input, "all")?;
    let mut worker = run.start()?;
    worker.wait_ready(&run.admin, Duration::from_secs(60))?;
    let decisions = run.topic("decisions");
    let consumer = consumer(kafka, &decisions, &Probe::new(kafka, &run.app)?)?;

    let warm_up = load.rate * load.warm_up_s;
    let total = warm_up + load.rate * load.seconds;
    let clock = Clock { origin: Instant::now(), sent_us: (0..total).map(|_| AtomicU64::new(0)).collect() };
    let clock = Arc::new(clock);
    let stop = Arc::new(AtomicBool::new(false));
    let sender = {
        let (clock, stop, producer, input) = (clock.clone(), stop.clone(), producer(kafka)?, input.clone());
        thread::spawn(move || send(&producer, &input, load, &clock, &stop))
    };
    let (cpu_before, started, before) = (worker.cpu_seconds(), Instant::now(), Metrics::scrape(&run.admin)?);
    let received = receive(&consumer, &clock, warm_up, started + Duration::from_secs(load.warm_up_s + load.seconds + 15));
    let worker_cores = (worker.cpu_seconds() - cpu_before) / started.elapsed().as_secs_f64();
    // The sender is done by now, unless the receiver failed.
    stop.store(true, Ordering::Relaxed);
    let sent = sender.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))?;
    let mut latencies_us = received.with_context(|| format!("the worker's last lines:\n{}", worker.log_tail(20)))?;
    sent?;
    let commits = Metrics::scrape(&run.admin)?.since(&before);
    let commit_ms = |quantile| commits.quantile("tripline_commit_seconds", quantile).map(|seconds| seconds * 1_000.0);
    let commit_ms = [0.5, 0.99, 0.999].map(|quantile| commit_ms(quantile).unwrap_or(f64::NAN));
    run.clean_up(kafka, worker)?;
    delete_topics(kafka, &input)?;
    ensure!(!latencies_us.is_empty(), "no decision was received");
    latencies_us.sort_unstable();
    let at = |quantile: f64| percentile(&latencies_us, quantile) as f64 / 1000.0;
    Ok(Latency {
        sent: total - warm_up,
        received: latencies_us.len() as u64,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        worker_cores,
        commit_ms,
    })
}

/// The smallest value that this share of the sorted values does not exceed.
fn percentile(sorted: &[u64], quantile: f64) -> u64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// When each event was handed over, in microseconds after the origin; 0: not yet.
struct Clock {
    origin: Instant,
    sent_us: Vec<AtomicU64>,
}

impl Clock {
    fn now_us(&self) -> u64 {
        (self.origin.elapsed().as_micros() as u64).max(1)
    }
}

fn producer(kafka: &Kafka) -> Result<BaseProducer> {
    let mut config = kafka.client_config();
    config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "1");
    Ok(config.create()?)
}

fn consumer(kafka: &Kafka, topic: &str, probe: &Probe) -> Result<BaseConsumer> {
    let mut config = kafka.client_config();
    config.set("group.id", unique("bench-reader")).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
    config.set("fetch.wait.max.ms", "500").set("fetch.min.bytes", "1").set("fetch.queue.backoff.ms", "1");
    let consumer: BaseConsumer = config.create()?;
    let mut all = TopicPartitionList::new();
    for partition in probe.ends(topic)?.keys() {
        all.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    Ok(consumer)
}

/// Sends at the steady rate until all is sent or told to stop.
fn send(producer: &BaseProducer, topic: &str, load: Load, clock: &Clock, stop: &AtomicBool) -> Result<()> {
    let mut events = Events::new(7, load.actors);
    for (number, sent_us) in clock.sent_us.iter().enumerate() {
        let due_us = number as u64 * 1_000_000 / load.rate;
        thread::sleep(Duration::from_micros(due_us.saturating_sub(clock.now_us())));
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let record = events.next(now_ms());
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        sent_us.store(clock.now_us(), Ordering::Release);
        let mut next = BaseRecord::<[u8], [u8]>::to(topic).key(&key).payload(&value);
        while let Err((error, back)) = producer.send(next) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) || stop.load(Ordering::Relaxed) {
                return Err(error).context("could not send an event");
            }
            producer.poll(Duration::from_millis(1));
            next = back;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(10)).context("could not deliver the last events")
}

/// The latency in microseconds of every measured event, at its first decision; ends when all are there or the time is up.
fn receive(consumer: &BaseConsumer, clock: &Clock, warm_up: u64, until: Instant) -> Result<Vec<u64>> {
    let total = clock.sent_us.len();
    let mut seen = vec![false; total];
    let mut left = total;
    let mut latencies_us = Vec::with_capacity(total);
    while left > 0 && Instant::now() < until {
        let message = match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(message) => message.context("could not read decisions")?,
        };
        let now_us = clock.now_us();
        let number = number_in(message.payload().unwrap_or_default())?;
        ensure!((number as usize) < total, "a decision names an event that was not sent");
        if !std::mem::replace(&mut seen[number as usize], true) {
            left -= 1;
            if number >= warm_up {
                latencies_us.push(now_us.saturating_sub(clock.sent_us[number as usize].load(Ordering::Acquire)));
            }
        }
    }
    Ok(latencies_us)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<u64> = (1..=1000).collect();
        assert_eq!([percentile(&sorted, 0.5), percentile(&sorted, 0.99), percentile(&sorted, 0.999)], [500, 990, 999]);
        assert_eq!(percentile(&[5], 0.999), 5);
    }
}
