//! The launcher and the client calls against a real broker: what every other Kafka test leans on.

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;
use tripline_testkit::process::is_running;
use tripline_testkit::{Kafka, Process, Record, unique, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

fn keys(records: &[tripline_testkit::OwnedRecord]) -> Vec<String> {
    records.iter().map(tripline_testkit::OwnedRecord::key_text).collect()
}

fn transactional(kafka: &Kafka) -> BaseProducer {
    let producer: BaseProducer = kafka.client_config().set("transactional.id", unique("tx")).create().unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, key: &str) {
    producer.send(BaseRecord::to(topic).key(key).payload("v").partition(0)).unwrap();
    producer.flush(LIMIT).unwrap();
}

#[test]
fn a_broker_goes_when_its_value_goes() {
    let kafka = Kafka::start().unwrap();
    let topic = unique("short");
    kafka.create_topic(&topic, 1, &[]).unwrap();
    kafka.produce_all(&topic, [Record::new("k", "v")]).unwrap();
    assert_eq!(keys(&kafka.read_committed(&topic).unwrap()), ["k"]);
    let (pid, log) = (kafka.broker_pid(), kafka.broker_log());
    assert!(pid.is_none_or(is_running));
    drop(kafka);
    assert!(!pid.is_some_and(is_running), "the broker is still there");
    assert!(!log.is_some_and(|log| log.exists()), "the log of a broker that ended well stays behind");
}

#[test]
fn only_committed_records_are_read() {
    let kafka = Kafka::shared();
    let topic = unique("committed");
    kafka.create_topic(&topic, 1, &[]).unwrap();
    let producer = transactional(kafka);
    producer.begin_transaction().unwrap();
    send(&producer, &topic, "aborted");
    producer.abort_transaction(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, &topic, "committed");
    producer.commit_transaction(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, &topic, "open");

    assert_eq!(keys(&kafka.read_committed(&topic).unwrap()), ["committed"]);
    assert_eq!(keys(&kafka.read_uncommitted(&topic).unwrap()), ["aborted", "committed", "open"]);
    // Two records, two markers; the open one is behind the last stable offset.
    assert_eq!(kafka.end_offsets(&topic).unwrap(), BTreeMap::from([(0, 4)]));
    producer.commit_transaction(LIMIT).unwrap();
    assert_eq!(keys(&kafka.read_committed(&topic).unwrap()), ["committed", "open"]);
}

#[test]
fn many_records_arrive_whole_and_in_order() {
    let kafka = Kafka::shared();
    let topic = unique("many");
    kafka.create_topic(&topic, 3, &[("message.timestamp.type", "CreateTime")]).unwrap();
    let record = |n: u32| Record {
        headers: vec![("n".into(), n.to_string().into_bytes())],
        ..Record::new(format!("key{}", n % 7), n.to_string()).at_ms(1_700_000_000_000 + i64::from(n))
    };
    assert_eq!(kafka.produce_all(&topic, (0..100_000).map(record)).unwrap(), 100_000);
    let tombstone = Record { value: None, ..Record::new("gone", "") }.to_partition(2);
    kafka.produce_all(&topic, [tombstone]).unwrap();

    let records = kafka.read_committed(&topic).unwrap();
    assert_eq!(records.len(), 100_001);
    let (gone, numbered): (Vec<_>, Vec<_>) = records.into_iter().partition(|r| r.value.is_none());
    assert_eq!((gone[0].partition, gone[0].key_text()), (2, "gone".to_owned()));
    let mut seen = vec![false; 100_000];
    let mut newest = BTreeMap::new();
    for record in numbered {
        let n: u32 = record.json().unwrap().as_u64().unwrap().try_into().unwrap();
        assert!(!std::mem::replace(&mut seen[n as usize], true), "{n} came twice");
        assert_eq!(record.header("n"), Some(n.to_string().as_bytes()));
        assert_eq!(record.timestamp_ms, Some(1_700_000_000_000 + i64::from(n)));
        // One key, one partition, in order.
        let (partition, before) = newest.insert(record.key_text(), (record.partition, n)).unwrap_or((record.partition, 0));
        assert!(partition == record.partition && before <= n);
    }
    assert!(seen.iter().all(|s| *s));
}

#[test]
fn committed_offsets_of_a_group_are_read() {
    let kafka = Kafka::shared();
    let (topic, group) = (unique("offsets"), unique("group"));
    kafka.create_topic(&topic, 2, &[]).unwrap();
    assert_eq!(kafka.committed_offsets(&group, &topic).unwrap(), BTreeMap::new());
    let consumer: BaseConsumer = kafka.client_config().set("group.id", &group).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 1, Offset::Offset(7)).unwrap();
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
    assert_eq!(kafka.committed_offsets(&group, &topic).unwrap(), BTreeMap::from([(1, 7)]));
}

#[test]
fn a_topic_that_does_not_exist_is_named() {
    let why = Kafka::shared().read_committed("no.such.topic").unwrap_err();
    assert!(format!("{why:#}").contains("no.such.topic"), "{why:#}");
}

#[test]
fn a_child_ends_when_asked_and_when_dropped() {
    let sleep = || {
        let mut command = Command::new("sleep");
        command.arg("100");
        Process::spawn("sleep", command).unwrap()
    };
    let mut asked = sleep();
    assert!(!asked.terminate(LIMIT).unwrap().success());
    let dropped = sleep();
    let pid = dropped.id();
    assert!(is_running(pid));
    drop(dropped);
    assert!(!is_running(pid));

    let mut stubborn = Command::new("sh");
    stubborn.args(["-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]).stdout(std::process::Stdio::null());
    let mut stubborn = Process::spawn("stubborn", stubborn).unwrap();
    // It ignores SIGTERM once its trap is set: before that the signal may end it, which is no failure of ours.
    std::thread::sleep(Duration::from_millis(300));
    assert!(stubborn.terminate(Duration::from_millis(300)).is_err());
    assert!(!is_running(stubborn.id()));
}

/// A child of a process that is killed dies too: this test runs itself as that process.
#[test]
fn a_child_dies_with_a_killed_parent() {
    const PID_FILE: &str = "TESTKIT_PID_FILE";
    if let Ok(file) = std::env::var(PID_FILE) {
        // The forking thread is not this one: a thread that ends must not take the child along.
        let child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("100");
            Process::spawn("sleep", command).unwrap()
        });
        let child = child.join().unwrap();
        assert!(is_running(child.id()));
        std::fs::write(file, child.id().to_string()).unwrap();
        std::thread::sleep(Duration::from_secs(100));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_child_dies_with_a_killed_parent"]).env(PID_FILE, &file).stdout(std::process::Stdio::null());
    let mut parent = Process::spawn("parent", command).unwrap();
    let pid = || std::fs::read_to_string(&file).ok()?.parse::<u32>().ok();
    wait_until(LIMIT, "the parent's child", || pid().is_some()).unwrap();
    let child = pid().unwrap();
    assert!(is_running(child));
    parent.kill_9();
    wait_until(LIMIT, "the end of the killed parent's child", || !is_running(child)).unwrap();
}
