//! What is possible: each value alone, and values beside each other.

use super::layer::{Key, Origin, Settings};
use super::memory::Shares;
use super::report::{INVALID, PROPERTY, Report};
use super::{Config, EVERY_TOPIC, KeyedBy};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tripline_core::address::MAX_TRUSTED_HOPS;
use tripline_core::diagnostic::nearest;
use tripline_core::time::format_duration_ms;

/// The shortest session key, in characters.
const MIN_SESSION_KEY: usize = 16;

/// Client properties that exactly-once rests on or that have a setting of their own, and why they are not free.
const REFUSED: &[(&str, &str)] = &[
    ("acks", "transactions need all replicas to answer"),
    ("allow.auto.create.topics", "a topic created by accident has the wrong settings: `tripline topics apply` creates them"),
    ("auto.commit.enable", "offsets are committed in the transaction, never on a timer"),
    ("auto.commit.interval.ms", "offsets are committed in the transaction, never on a timer"),
    ("auto.offset.reset", "an offset that is gone must stop the task instead of skipping records: see `input.start`"),
    ("bootstrap.servers", "set `kafka.bootstrap_servers`"),
    ("delivery.timeout.ms", "a record's delivery is bounded by `stream.transaction_timeout`"),
    ("enable.auto.commit", "offsets are committed in the transaction, never on a timer"),
    ("enable.auto.offset.store", "offsets are committed in the transaction, never on a timer"),
    ("enable.gapless.guarantee", "a transaction aborts and starts again instead"),
    ("enable.idempotence", "transactions rest on it"),
    ("enable.partition.eof", "restore relies on its value"),
    ("fetch.max.bytes", "queues have their part of `memory.budget`"),
    ("group.id", "set `app.id`"),
    ("group.instance.id", "set `stream.identity`"),
    ("group.protocol", "ownership of partitions is written for the classic protocol"),
    ("group.remote.assignor", "ownership of partitions is written for the classic protocol"),
    ("isolation.level", "aborted records must not be read"),
    ("max.in.flight", "idempotence allows at most five"),
    ("max.in.flight.requests.per.connection", "idempotence allows at most five"),
    ("max.poll.interval.ms", "it follows from `stream.session_timeout` and `stream.transaction_timeout`; the sink's is a minute"),
    ("message.max.bytes", "records are as large as `input.max_value_bytes` lets them be"),
    ("message.send.max.retries", "idempotence needs retries"),
    ("message.timeout.ms", "a record's delivery is bounded by `stream.transaction_timeout`"),
    ("metadata.broker.list", "set `kafka.bootstrap_servers`"),
    ("offset.store.method", "offsets are committed in the transaction"),
    ("partition.assignment.strategy", "handing over state is written for cooperative-sticky"),
    ("partitioner", "partitions are chosen explicitly: see `input.partitioner`"),
    ("plugin.library.paths", "foreign code in the client can break every promise"),
    ("queue.buffering.max.kbytes", "queues have their part of `memory.budget`"),
    ("queue.buffering.max.messages", "queues have their part of `memory.budget`"),
    ("queued.max.messages.kbytes", "queues have their part of `memory.budget`"),
    ("queued.min.messages", "queues have their part of `memory.budget`"),
    ("request.required.acks", "transactions need all replicas to answer"),
    ("retries", "idempotence needs retries"),
    ("retry.backoff.max.ms", "it tells which requests may have been sent twice"),
    ("retry.backoff.ms", "it tells which requests may have been sent twice"),
    ("session.timeout.ms", "set `stream.session_timeout`"),
    ("transaction.timeout.ms", "set `stream.transaction_timeout`"),
    ("transactional.id", "set `stream.identity`"),
];

struct Checks<'a> {
    settings: &'a Settings,
    report: &'a mut Report,
}

impl Checks<'_> {
    fn origin(&self, key: &Key) -> Origin {
        self.settings.get(key).map_or(Origin::Default, |s| s.origin.clone())
    }

    /// Notes a problem of `section.name` unless `holds`.
    fn require(&mut self, holds: bool, section: &str, name: &str, message: impl FnOnce() -> String, help: &str) {
        if !holds {
            let origin = self.origin(&Key::new(&[section, name]));
            let help = (!help.is_empty()).then(|| help.to_owned());
            self.report.problem(INVALID, &origin, format!("`{section}.{name}` {}", message()), help);
        }
    }

    /// The later set of two keys: that is where a problem between them is shown.
    fn later(&self, a: [&'static str; 2], b: [&'static str; 2]) -> [&'static str; 2] {
        if self.origin(&Key::new(&b)) == Origin::Default { a } else { b }
    }
}

/// Checks everything; answers what is worth a look though valid.
pub fn check(config: &Config, settings: &Settings, report: &mut Report) -> Vec<String> {
    let mut checks = Checks { settings, report };
    topics(config, &mut checks);
    entities(config, &mut checks);
    mappings(config, &mut checks);
    numbers(config, &mut checks);
    memory(config, &mut checks);
    times(config, &mut checks);
    places(config, &mut checks);
    properties(config, &mut checks);
    warnings(config)
}

fn entities(config: &Config, checks: &mut Checks<'_>) {
    let hops = config.entity.trusted_hops;
    let message = || format!("is {hops}, at most {MAX_TRUSTED_HOPS} are allowed");
    checks.require(hops <= MAX_TRUSTED_HOPS, "entity", "trusted_hops", message, "count the proxies that are your own");
    let key = &config.entity.session_key;
    let message = || format!("has {} characters, it needs {MIN_SESSION_KEY} or more", key.chars().count());
    let fits = key.is_empty() || key.chars().count() >= MIN_SESSION_KEY;
    checks.require(fits, "entity", "session_key", message, "such as 32 random bytes in hexadecimal");
}

fn is_legal_topic(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 249 && name != "." && name != ".." && name.bytes().all(legal)
}

fn topics(config: &Config, checks: &mut Checks<'_>) {
    const LEGAL: &str = "letters, digits, `.`, `_` and `-`, at most 249";
    let outputs = [
        ("decisions", &config.topics.decisions),
        ("alerts", &config.topics.alerts),
        ("standing", &config.topics.standing),
        ("dead_letters", &config.topics.dead_letters),
        ("late", &config.topics.late),
        ("shadow", &config.topics.shadow),
    ];
    checks.require(!config.input.topics.is_empty(), "input", "topics", || "is empty".into(), "name at least one topic");
    for topic in &config.input.topics {
        checks.require(is_legal_topic(topic), "input", "topics", || format!("names `{topic}`, which is not a topic's name"), LEGAL);
    }
    for (key, topic) in outputs {
        checks.require(is_legal_topic(topic), "topics", key, || format!("is `{topic}`, which is not a topic's name"), LEGAL);
    }
    let many = config.input.keyed_by == KeyedBy::Actor && config.input.topics.len() > 1;
    let [section, key] = checks.later(["input", "topics"], ["input", "keyed_by"]);
    let message = || format!("does not fit: `input.keyed_by` is `actor` and `input.topics` has {} topics", config.input.topics.len());
    checks.require(!many, section, key, message, "keyed mode reads exactly one topic; the routed mode (`none`) reads any number");

    let internal = [config.observations_topic(), config.changelog_topic(), config.epochs_topic()];
    let mut taken: BTreeMap<&str, String> =
        internal.iter().map(|name| (name.as_str(), "an internal topic of `app.id`".to_owned())).collect();
    let named = config.input.topics.iter().map(|t| ("input", "topics", t)).chain(outputs.into_iter().map(|(key, t)| ("topics", key, t)));
    for (section, key, topic) in named {
        if let Some(other) = taken.insert(topic, format!("`{section}.{key}`")) {
            checks.require(
                false,
                section,
                key,
                || format!("names `{topic}`, and so does {other}"),
                "every topic has one use: give it another name",
            );
        }
    }
}

/// A mapping that no topic reads is a misspelt topic.
fn mappings(config: &Config, checks: &mut Checks<'_>) {
    let topics = &config.input.topics;
    for topic in config.input.mapping.keys().filter(|topic| *topic != EVERY_TOPIC && !topics.contains(topic)) {
        let origin = checks.origin(&Key::new(&["input", "mapping", topic]));
        let help = nearest(topic, topics.iter().map(String::as_str))
            .map_or_else(|| "add it to `input.topics`, or write `*` for every topic".to_owned(), |near| format!("did you mean `{near}`?"));
        checks.report.problem(INVALID, &origin, format!("`input.mapping` maps `{topic}`, which is not in `input.topics`"), Some(help));
    }
}

fn is_name(text: &str, longest: usize) -> bool {
    text.len() <= longest && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn numbers(config: &Config, checks: &mut Checks<'_>) {
    let id = &config.app.id;
    checks.require(
        !id.is_empty() && is_name(id, 200),
        "app",
        "id",
        || "is not a name".into(),
        "1 to 200 letters, digits, `.`, `_` and `-`",
    );
    checks.require(
        is_name(&config.stream.identity, 200),
        "stream",
        "identity",
        || "is not a name".into(),
        "letters, digits, `.`, `_` and `-`, at most 200",
    );
    let lanes = config.stream.lanes;
    checks.require((1..=64).contains(&lanes), "stream", "lanes", || format!("is {lanes}"), "1 to 64: about one per core");
    let restores = config.stream.restores;
    checks.require((1..=16).contains(&restores), "stream", "restores", || format!("is {restores}"), "1 to 16");
    let records = config.stream.max_records;
    checks.require((1..=1_000_000).contains(&records), "stream", "max_records", || format!("is {records}"), "1 to 1000000");
    let partitions = config.topics.partitions;
    checks.require((1..=10_000).contains(&partitions), "topics", "partitions", || format!("is {partitions}"), "1 to 10000");
    let factor = config.topics.replication_factor;
    checks.require(
        factor == -1 || (1..=100).contains(&factor),
        "topics",
        "replication_factor",
        || format!("is {factor}"),
        "-1 for the broker's default, or 1 to 100",
    );
    let rows = config.sink.batch_rows;
    checks.require((1..=100_000).contains(&rows), "sink", "batch_rows", || format!("is {rows}"), "1 to 100000");
    let value = config.input.max_value_bytes.0;
    checks.require((1 << 10..=100 << 20).contains(&value), "input", "max_value_bytes", || format!("is {value} bytes"), "1KiB to 100MiB");
    for (name, bytes) in [("cache_bytes", config.state.cache_bytes.0), ("rocksdb_bytes", config.state.rocksdb_bytes.0)] {
        let bytes = bytes.unwrap_or(1 << 20);
        checks.require(bytes >= 1 << 20, "state", name, || format!("is {bytes} bytes"), "at least 1MiB, or `auto`");
    }
    let changed = config.stream.max_changed_bytes.0.unwrap_or(64 << 10);
    let message = || format!("is {changed} bytes");
    checks.require(changed >= 64 << 10, "stream", "max_changed_bytes", message, "at least 64KiB, or `auto`");
}

/// The parts of the budget, for as many tasks as the settings speak of.
fn memory(config: &Config, checks: &mut Checks<'_>) {
    // Values that are wrong by themselves are told of as such.
    if !(1..=64).contains(&config.stream.lanes) || !(1..=10_000).contains(&config.topics.partitions) {
        return;
    }
    if let Err(shortage) = Shares::of(config, config.topics.partitions as usize) {
        let help = "raise `memory.budget`, or lower `stream.lanes`, `input.max_value_bytes`, or the parts that are set";
        checks.require(false, "memory", "budget", || shortage.to_string(), help);
    }
}

fn text(time: Duration) -> String {
    format_duration_ms(time.as_millis() as i64)
}

fn times(config: &Config, checks: &mut Checks<'_>) {
    let (commit, transaction, session) =
        (config.stream.commit_interval.0, config.stream.transaction_timeout.0, config.stream.session_timeout.0);
    let in_range = (Duration::from_millis(5)..=Duration::from_secs(5)).contains(&commit);
    checks.require(in_range, "stream", "commit_interval", || format!("is {}", text(commit)), "5ms to 5s");
    let [section, key] = checks.later(["stream", "commit_interval"], ["stream", "transaction_timeout"]);
    let message = || {
        format!(
            "does not fit: a commit every {} needs a transaction timeout of more than twice that, not {}",
            text(commit),
            text(transaction)
        )
    };
    checks.require(
        !in_range || commit * 2 < transaction,
        section,
        key,
        message,
        "raise `stream.transaction_timeout` or lower `stream.commit_interval`",
    );
    let tick = config.stream.tick_interval.0;
    let holds = (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&tick);
    checks.require(holds, "stream", "tick_interval", || format!("is {}", text(tick)), "100ms to 1m");
    let [section, key] = checks.later(["stream", "transaction_timeout"], ["stream", "session_timeout"]);
    let message =
        || format!("does not fit: transactions may last {} and a silent member is given up after {}", text(transaction), text(session));
    checks.require(
        transaction < session,
        section,
        key,
        message,
        "`stream.transaction_timeout` must be shorter than `stream.session_timeout`",
    );
    let degraded = config.stream.degraded_after.0.unwrap_or(Duration::from_secs(1));
    let holds = (Duration::from_secs(1)..=Duration::from_secs(7 * 86_400)).contains(&degraded);
    checks.require(holds, "stream", "degraded_after", || format!("is {}", text(degraded)), "1s to 7d, or `off`");
    for (section, name, time) in
        [("state", "write_interval", config.state.write_interval.0), ("sink", "batch_interval", config.sink.batch_interval.0)]
    {
        let holds = (Duration::from_millis(5)..=Duration::from_secs(60)).contains(&time);
        checks.require(holds, section, name, || format!("is {}", text(time)), "5ms to 1m");
    }
}

fn places(config: &Config, checks: &mut Checks<'_>) {
    checks.require(
        !config.kafka.bootstrap_servers.trim().is_empty(),
        "kafka",
        "bootstrap_servers",
        || "is empty".into(),
        "`host:9092`, several with commas",
    );
    checks.require(!config.rules.path.as_os_str().is_empty(), "rules", "path", || "is empty".into(), "name the folder of a rule pack");
    checks.require(!config.state.dir.as_os_str().is_empty(), "state", "dir", || "is empty".into(), "name a folder on a local disk");
    let listen = &config.admin.listen;
    let holds = listen.is_empty() || listen.parse::<SocketAddr>().is_ok();
    checks.require(
        holds,
        "admin",
        "listen",
        || format!("is `{listen}`, which is not an address"),
        "write `127.0.0.1:9464`, or nothing for none",
    );
    let url = &config.sink.url;
    let holds = url.contains("://") || url == "sqlite::memory:";
    checks.require(holds, "sink", "url", || "is not a URL".into(), "write `sqlite://tripline.db`");
    let level = &config.log.level;
    let holds = level.parse::<tracing_subscriber::filter::EnvFilter>().is_ok();
    checks.require(
        holds,
        "log",
        "level",
        || format!("is `{level}`, which is not a filter"),
        "write `info`, `debug` or `tripline=debug,info`",
    );
}

fn properties(config: &Config, checks: &mut Checks<'_>) {
    for name in config.kafka.properties.keys() {
        let origin = checks.origin(&Key::new(&["kafka", "properties", name]));
        // A prefix `topic.` or another case would slip past the table, and past the client's own names.
        let is_dotted = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.');
        if !is_dotted {
            let help = Some("names are in lower case with dots: `sasl.mechanism`".to_owned());
            checks.report.problem(PROPERTY, &origin, format!("`{name}` is not the name of a client property"), help);
        } else if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| refused == name) {
            checks.report.problem(PROPERTY, &origin, format!("`kafka.properties` may not set `{name}`: {why}"), None);
        }
    }
}

fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.admin.listen.parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback()) {
        warnings.push(format!(
            "admin.listen is {}: health and metrics have no password, so let only your network reach them",
            config.admin.listen
        ));
    }
    warnings
}

/// The refused client properties and the reasons, for the reference.
pub fn refused_properties() -> &'static [(&'static str, &'static str)] {
    REFUSED
}
