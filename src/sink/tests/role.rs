//! The role against librdkafka's in-process broker, which knows no transactions: that side is tested with a real one.

use crate::config::Config;
use crate::sink::examples::decision;
use crate::sink::review::Filter;
use crate::sink::store::Opening;
use crate::sink::{EventStore, Location, SinkCounters, SinkError, run};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const TOPIC: &str = "tripline.decisions";
/// Far more than a join takes, so that only a sink that hangs runs into it.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(servers: &str, database: &Path) -> Arc<Config> {
    let value = json!({
        "app": {"id": "t"}, "kafka": {"bootstrap_servers": servers, "properties": {}},
        "input": {"topics": ["in"], "keyed_by": "none", "partitioner": "murmur2", "start": "earliest", "max_value_bytes": "1MiB", "mapping": {}},
        "topics": {"decisions": TOPIC, "alerts": "a", "standing": "st", "dead_letters": "d", "late": "l", "shadow": "s", "partitions": 2, "replication_factor": 1},
        "entity": {"scope": "global", "trusted_hops": 0, "session_key": ""},
        "rules": {"path": "", "settings": ""}, "flags": {"file": ""}, "decisions": {"emit": "all"},
        "state": {"dir": "", "cache_bytes": "1MiB", "rocksdb_bytes": "1MiB", "write_interval": "1s"},
        "memory": {"budget": "512MiB"},
        "stream": {"lanes": 1, "identity": "", "commit_interval": "50ms", "tick_interval": "5s", "restores": 2, "transaction_timeout": "10s", "degraded_after": "1m", "session_timeout": "45s",
            "max_records": 100, "max_changed_bytes": "1MiB"},
        "sink": {"url": format!("sqlite://{}", database.display()), "batch_rows": 3, "batch_interval": "50ms"},
        "admin": {"listen": ""}, "log": {"format": "auto", "level": "info"},
    });
    Arc::new(serde_json::from_value(value).expect("a config"))
}

fn produce(servers: &str, values: impl Iterator<Item = (i32, Vec<u8>)>) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", servers).create().expect("a producer");
    for (partition, value) in values {
        producer.send(BaseRecord::<(), _>::to(TOPIC).partition(partition).payload(&value)).map_err(|(e, _)| e).expect("queued");
    }
    producer.flush(PATIENCE).expect("produced");
}

fn bytes(id: &str) -> Vec<u8> {
    serde_json::to_vec(&decision(id)).expect("JSON")
}

/// Runs the sink until `records` records have an outcome, then stops it gracefully.
async fn run_until(config: &Arc<Config>, servers: &str, records: u64) -> Arc<SinkCounters> {
    let counters = Arc::new(SinkCounters::default());
    let (stop, stopped) = watch::channel(false);
    let mut base = ClientConfig::new();
    // The mock keeps a member that has left until its session ends; with sessions of 1 s this test did not end.
    base.set("bootstrap.servers", servers).set("session.timeout.ms", "6000");
    let sink = tokio::spawn(run(Arc::clone(config), base, Arc::clone(&counters), stopped));
    let deadline = Instant::now() + PATIENCE;
    while counters.outcomes().iter().map(|(_, n)| n).sum::<u64>() < records && !sink.is_finished() {
        assert!(Instant::now() < deadline, "{counters:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.send_replace(true);
    sink.await.expect("no panic").expect("a graceful stop");
    counters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_has_one_outcome_and_a_restart_goes_on_behind_the_last_stored_one() {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, 2, 1).expect("a topic");
    let servers = cluster.bootstrap_servers();
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(&servers, &folder.path().join("events.db"));

    let mut quiet = decision("quiet");
    quiet.anomaly_type = None;
    let quiet = serde_json::to_vec(&quiet).expect("JSON");
    let decisions = (0..10).map(|n| (n % 2, bytes(&format!("d{n}"))));
    produce(&servers, decisions.chain([(0, quiet), (1, b"{".to_vec()), (0, bytes("d0"))]));
    let first = run_until(&config, &servers, 13).await;
    assert_eq!(first.outcomes(), [("stored", 10), ("repeated", 1), ("without_signal", 1), ("unreadable", 1), ("given_back", 0)]);
    assert_eq!(first.read.load(Ordering::Relaxed), 13);
    assert_eq!(first.commit_failures.load(Ordering::Relaxed), 0);

    produce(&servers, [(0, bytes("d10"))].into_iter());
    let second = run_until(&config, &servers, 1).await;
    assert_eq!(second.read.load(Ordering::Relaxed), 1, "committed offsets are where the second start begins: {second:?}");

    let mut store = EventStore::open(&Location::parse(&config.sink.url).expect("valid"), Opening::Existing).await.expect("there");
    assert_eq!(store.list(&Filter::default(), 100).await.expect("read").len(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_be_used_ends_the_sink_before_it_reads_anything() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("events.db");
    std::fs::write(&database, "no database ".repeat(100)).expect("written");
    let (_stop, stopped) = watch::channel(false);
    let counters = Arc::new(SinkCounters::default());
    let error =
        run(config("127.0.0.1:1", &database), ClientConfig::new(), Arc::clone(&counters), stopped).await.expect_err("not a database");
    assert!(matches!(error, SinkError::Store(_)) && error.exit_code() == 4 && error.to_string().contains("events.db"), "{error}");
    assert_eq!((counters.read.load(Ordering::Relaxed), counters.database_failures.load(Ordering::Relaxed)), (0, 1));
}
