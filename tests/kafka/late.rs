//! A request that arrives when its transaction is long over (KAFKA-17754): what it does, and what it cannot do to a worker.
//!
//! The client gives up on a request when the connection breaks, and sends it again; the first one may still be on its way, and
//! a broker cannot tell to which transaction of a producer epoch it belongs. Why the worker is safe:
//! `docs/adr/0016-a-suspect-commit-renews-the-producer.md`.

use crate::line::{Line, PATIENCE, Setup, assert_equal, generated};
use crate::wire::{behind_a_proxy, start_behind};
use anyhow::{Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;
use tripline_testkit::proxy::{Api, Fate};
use tripline_testkit::{Kafka, client, unique, wait_until};

const NO_ERROR: i16 = 0;
const INVALID_PRODUCER_EPOCH: i16 = 47;

/// A transactional producer behind a proxy, without any rule of ours.
struct Plain {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Plain {
    fn new(kafka: &Kafka, bootstrap: &str) -> Result<Plain> {
        let topic = unique("late");
        kafka.create_topic(&topic, 1, &[])?;
        let mut config = client::client_config(bootstrap);
        let producer: ThreadedProducer<_> = config.set("transactional.id", &topic).create()?;
        producer.init_transactions(PATIENCE)?;
        Ok(Plain { producer, topic })
    }

    /// Begins a transaction with one record in it, which the broker has when this returns.
    fn begin(&self, value: &str) -> Result<()> {
        self.producer.begin_transaction()?;
        self.producer.send(BaseRecord::<(), str>::to(&self.topic).payload(value)).map_err(|(error, _)| error)?;
        Ok(self.producer.flush(PATIENCE)?)
    }

    fn committed(&self, kafka: &Kafka) -> Result<Vec<String>> {
        let text = |value: &Option<Vec<u8>>| String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
        Ok(kafka.read_committed(&self.topic)?.iter().map(|record| text(&record.value)).collect())
    }
}

/// The danger itself. When a broker refuses the late commit, the rule can go.
#[test]
fn a_late_commit_commits_the_open_transaction_of_a_plain_producer() -> Result<()> {
    let (kafka, proxy) = behind_a_proxy();
    let plain = Plain::new(kafka, &proxy.address().to_string())?;
    plain.begin("first")?;
    let late = proxy.next(Api::END_TXN, Fate::HoldAndCut);
    plain.producer.commit_transaction(PATIENCE)?;
    ensure!(late.happened(), "no commit was held");
    // A commit is answered before it is visible.
    wait_until(PATIENCE, "the second try commits it", || plain.committed(kafka).is_ok_and(|found| found == ["first"]))?;
    plain.begin("second")?;
    late.release();
    ensure!(end_txn_error(&late.wait_reply(PATIENCE)?) == NO_ERROR, "the broker refuses it: ADR 0016 is not needed any more");
    wait_until(PATIENCE, "nobody has committed it", || plain.committed(kafka).is_ok_and(|found| found == ["first", "second"]))?;
    // Aborting changes nothing: the application does the second one again, and it is there twice.
    let _ = plain.producer.abort_transaction(PATIENCE);
    ensure!(plain.committed(kafka)? == ["first", "second"], "an aborted record stays visible");
    Ok(())
}

/// The same with offsets: the group goes back, and does the later transaction's input again.
#[test]
fn late_offsets_replace_those_of_the_open_transaction_of_a_plain_producer() -> Result<()> {
    let (kafka, proxy) = behind_a_proxy();
    let bootstrap = proxy.address().to_string();
    let plain = Plain::new(kafka, &bootstrap)?;
    let consumer: BaseConsumer = client::client_config(&bootstrap).set("group.id", &plain.topic).create()?;
    consumer.subscribe(&[&plain.topic])?;
    wait_until(PATIENCE, "an assignment", || {
        consumer.poll(Duration::from_millis(50));
        consumer.assignment().is_ok_and(|assigned| assigned.count() == 1)
    })?;
    let send_offset = |offset| -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&plain.topic, 0, Offset::Offset(offset))?;
        let group = consumer.group_metadata().ok_or_else(|| anyhow::anyhow!("no group"))?;
        Ok(plain.producer.send_offsets_to_transaction(&offsets, &group, PATIENCE)?)
    };
    plain.begin("first")?;
    let late = proxy.next(Api::TXN_OFFSET_COMMIT, Fate::HoldAndCut);
    send_offset(1)?;
    plain.producer.commit_transaction(PATIENCE)?;
    plain.begin("second")?;
    send_offset(2)?;
    late.release();
    ensure!(offset_commit_error(&late.wait_reply(PATIENCE)?) == NO_ERROR, "the broker refuses it: ADR 0016 is not needed any more");
    plain.producer.commit_transaction(PATIENCE)?;
    wait_until(PATIENCE, "both are committed", || plain.committed(kafka).is_ok_and(|found| found == ["first", "second"]))?;
    let found = kafka.committed_offsets(&plain.topic, &plain.topic)?;
    ensure!(found.get(&0) == Some(&1), "the offset of the first one was expected, not {found:?}");
    Ok(())
}

/// What arrives late, and where the transaction after it stands at that moment.
struct Late {
    api: Api,
    /// Reads the broker's answer to it.
    error: fn(&[u8]) -> i16,
    /// The later transaction waits before this request.
    at: Api,
    failpoints: &'static str,
    /// The worker dies there; otherwise the transaction goes on.
    killed: bool,
}

/// The first transaction's request is held; it is sent again and done; the request arrives in the middle of the second.
fn arrives_late(late: &Late) -> Result<()> {
    let (kafka, proxy) = behind_a_proxy();
    let line = Line::on(kafka, &Setup { emit_all: true, ..Setup::keyed(1) })?;
    let mut running = start_behind(proxy, &line, &[("TRIPLINE_FAILPOINTS", late.failpoints)])?;
    let events = generated(81, 600)?;
    let lines: Vec<&str> = events.lines().collect();
    let held = proxy.next(late.api, Fate::HoldAndCut);
    // An aborted transaction is done again at once: the next one has no further cause.
    let aborts = !late.failpoints.is_empty();
    let early = aborts.then(|| proxy.next(late.at, Fate::Hold));
    line.produce(lines[..300].iter().copied())?;
    held.wait(PATIENCE)?;
    let middle = match early {
        Some(middle) => middle,
        None => {
            line.settle()?;
            proxy.next(late.at, Fate::Hold)
        }
    };
    // One record, so one transaction: a further one would hide what became of its offsets.
    line.produce(lines[300..301].iter().copied())?;
    middle.wait(PATIENCE)?;
    held.release();
    let error = (late.error)(&held.wait_reply(PATIENCE)?);
    if late.killed {
        running.worker.kill_9();
    }
    middle.release();
    if late.killed {
        running = start_behind(proxy, &line, &[])?;
    }
    // Nothing of it is left open, or taken back.
    line.settle()?;
    line.produce(lines[301..].iter().copied())?;
    line.settle()?;
    running.stop()?;
    // Disk, offset and changelog still agree.
    let running = start_behind(proxy, &line, &[])?;
    line.settle()?;
    assert_equal(&line.decisions()?, &line.replay(&events)?);
    ensure!(error == INVALID_PRODUCER_EPOCH, "the broker answered the late request with {error}");
    running.stop()
}

#[test]
fn a_late_commit_makes_nothing_visible_before_its_offsets() -> Result<()> {
    arrives_late(&Late { api: Api::END_TXN, error: end_txn_error, at: Api::ADD_OFFSETS_TO_TXN, failpoints: "", killed: true })
}

#[test]
fn a_late_abort_loses_nothing() -> Result<()> {
    let failpoints = "after_drain=abort@2";
    arrives_late(&Late { api: Api::END_TXN, error: end_txn_error, at: Api::ADD_OFFSETS_TO_TXN, failpoints, killed: false })
}

#[test]
fn late_offsets_do_not_take_the_group_back() -> Result<()> {
    arrives_late(&Late { api: Api::TXN_OFFSET_COMMIT, error: offset_commit_error, at: Api::END_TXN, failpoints: "", killed: false })
}

/// EndTxn, version 1: throttle time, error.
fn end_txn_error(reply: &[u8]) -> i16 {
    i16::from_be_bytes([reply[4], reply[5]])
}

/// TxnOffsetCommit, version 3, of one partition: its error is followed by the empty tags of partition, topic and reply.
fn offset_commit_error(reply: &[u8]) -> i16 {
    let end = reply.len() - 3;
    i16::from_be_bytes([reply[end - 2], reply[end - 1]])
}
