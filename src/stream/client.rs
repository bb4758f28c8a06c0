//! What every Kafka client of ours has in common: its base settings, its log and one clear answer to "is the cluster there?".

pub use super::refusal::Refusal;
use super::refusal::without_circumstances;
use crate::config::Config;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The settings that consumers, producers and admin clients start from. What a role needs for exactly-once is set
/// after it and therefore wins over `kafka.properties`.
pub fn base(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("client.id", &config.app.id);
    for (name, value) in &config.kafka.properties {
        client.set(name, value);
    }
    client.set("bootstrap.servers", &config.kafka.bootstrap_servers);
    let debug = tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG);
    client.set_log_level(if debug { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    client
}

/// Why there is no client to work with.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A property is unknown to librdkafka or has a value it refuses. The value is not repeated: it may be a secret.
    #[error("kafka.properties: {why}")]
    Properties {
        /// librdkafka's words.
        why: String,
    },
    /// A broker is there, and one side refuses the other.
    #[error("Kafka at {servers} {refusal}")]
    Refused {
        /// `kafka.bootstrap_servers`.
        servers: String,
        /// Why.
        refusal: Refusal,
    },
    /// No broker answered.
    #[error("cannot reach Kafka at {servers}: {why}; check kafka.bootstrap_servers")]
    Unreachable {
        /// `kafka.bootstrap_servers`.
        servers: String,
        /// The last thing that went wrong, in librdkafka's words.
        why: String,
    },
}

impl ClientError {
    /// The process's exit code: 3 for settings, 4 for a dependency that cannot be reached.
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::Properties { .. } => 3,
            ClientError::Refused { refusal, .. } => refusal.exit_code(),
            ClientError::Unreachable { .. } => 4,
        }
    }

    /// Sorts an error of creating a client.
    pub(crate) fn creating(error: KafkaError) -> ClientError {
        let why = match error {
            KafkaError::ClientConfig(_, what, name, _) => format!("{name}: {what}"),
            other => other.to_string(),
        };
        ClientError::Properties { why }
    }
}

/// How long the first try for metadata lasts; between tries the client's log is read for the reason. Each further try
/// may take twice as long: the answer of a large cluster far away is not quick.
const FIRST_TRY: Duration = Duration::from_millis(500);

/// A refusal is believed when it lasts for so long: another broker of the cluster may still answer.
const BELIEVE_AFTER: Duration = Duration::from_secs(2);
/// How long a look at why a connection failed may take.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// Asks the cluster for its metadata until it answers, refuses, or `timeout` is over.
pub fn reach(config: &Config, timeout: Duration) -> Result<(), ClientError> {
    let probe: BaseProducer<Probe> = base(config).create_with_context(Probe::default()).map_err(ClientError::creating)?;
    let mut deadline = Instant::now() + timeout;
    let mut patience = FIRST_TRY;
    let mut refusal = None;
    loop {
        let Err(error) = probe.ask(deadline, patience) else { return Ok(()) };
        patience *= 2;
        let last = probe.client().context().last();
        if refusal.is_none() {
            refusal = last.as_deref().and_then(|words| Refusal::of(words, config));
            if refusal.is_some() {
                deadline = deadline.min(Instant::now() + BELIEVE_AFTER);
            }
        }
        if Instant::now() < deadline {
            continue;
        }
        let servers = config.kafka.bootstrap_servers.clone();
        let refusal = match refusal {
            Some(Refusal::Certificate) if verifies_without_the_name(config) => Some(Refusal::HostName),
            None if last.is_none() && !has_tls(config) && takes_connections(&servers) => Some(Refusal::WantsTls),
            refusal => refusal,
        };
        return Err(match refusal {
            Some(refusal) => ClientError::Refused { servers, refusal },
            None => {
                let why = last.map_or_else(|| error.to_string(), |words| without_circumstances(&words).to_owned());
                ClientError::Unreachable { servers, why }
            }
        });
    }
}

fn has_tls(config: &Config) -> bool {
    config.kafka.properties.get("security.protocol").is_some_and(|protocol| protocol.to_ascii_lowercase().ends_with("ssl"))
}

/// librdkafka says the same of an unknown authority and of another host's name. This looks again without regard to the name, and
/// without credentials: they are nothing to show to a stranger.
fn verifies_without_the_name(config: &Config) -> bool {
    let mut without = base(config);
    without.set("security.protocol", "ssl").set("ssl.endpoint.identification.algorithm", "none");
    for credential in ["sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password"] {
        without.remove(credential);
    }
    let Ok(probe) = without.create_with_context::<_, BaseProducer<Probe>>(Probe::default()) else { return false };
    let answered = probe.ask(Instant::now() + LOOK_WITHIN, LOOK_WITHIN).is_ok();
    let last = probe.client().context().last();
    answered || last.is_some_and(|words| Refusal::of(&words, config) != Some(Refusal::Certificate))
}

/// Whether somebody listens at one of these addresses.
fn takes_connections(servers: &str) -> bool {
    let addresses = servers.split(',').filter_map(|server| server.trim().to_socket_addrs().ok()).flatten();
    addresses.take(8).any(|address| TcpStream::connect_timeout(&address, LOOK_WITHIN).is_ok())
}

/// Remembers the last complaint instead of logging it: the caller gets one message, not a dozen lines.
#[derive(Default)]
struct Probe {
    last: Mutex<Option<String>>,
    heard: std::sync::atomic::AtomicU64,
}

/// Asks for metadata.
trait Ask {
    /// One try of at most `patience`, not past the deadline.
    fn ask(&self, deadline: Instant, patience: Duration) -> Result<(), KafkaError>;
}

impl Ask for BaseProducer<Probe> {
    fn ask(&self, deadline: Instant, patience: Duration) -> Result<(), KafkaError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = self.client().fetch_metadata(None, left.min(patience).max(Duration::from_millis(1)));
        // Log lines and errors wait in the client's main queue; the reason for a failure is among them.
        while self.client().context().take_news(|| self.poll(Duration::from_millis(1))) {}
        answer.map(|_| ())
    }
}

impl Probe {
    fn last(&self) -> Option<String> {
        self.last.lock().ok().and_then(|last| last.clone())
    }

    fn remember(&self, text: &str) {
        self.heard.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Ok(mut last) = self.last.lock() {
            *last = Some(text.to_owned());
        }
    }

    /// Polls once; whether that brought a line.
    fn take_news(&self, poll: impl FnOnce()) -> bool {
        let before = self.heard.load(std::sync::atomic::Ordering::Relaxed);
        poll();
        self.heard.load(std::sync::atomic::Ordering::Relaxed) != before
    }
}

impl ClientContext for Probe {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // Remarks about settings are no reason for a failure.
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 && facility != "CONFWARN" {
            self.remember(cause(text));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // "All brokers down" comes last and says least.
        let all_down = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::AllBrokersDown);
        if !all_down {
            self.remember(cause(reason));
        }
    }
}

impl ProducerContext for Probe {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, _: ()) {}
}

/// librdkafka prefixes its lines with the thread and the broker: `[thrd:…]: host:port/bootstrap: Connect to …`.
fn cause(line: &str) -> &str {
    let line = line.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(line, |(_, text)| text);
    line.split_once("/bootstrap: ").map_or(line, |(_, text)| text)
}

/// Sends librdkafka's log to ours: at most one line of a kind per 30 s and client, with the number of lines left out.
///
/// Use it as the context of a client, or keep one inside a context of your own and pass `log` and `error` on to it.
#[derive(Debug)]
pub struct LogContext {
    client: String,
    recent: Mutex<Recent>,
}

impl LogContext {
    /// A context whose lines carry `client` (`lane 0 consumer`).
    pub fn new(client: impl Into<String>) -> LogContext {
        LogContext { client: client.into(), recent: Mutex::new(Recent::default()) }
    }

    fn admit(&self, text: &str) -> Option<u64> {
        match self.recent.lock() {
            Ok(mut recent) => recent.admit(text, Instant::now()),
            Err(_) => Some(0),
        }
    }
}

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        use RDKafkaLogLevel as L;
        // Debug lines were asked for: all of them.
        if matches!(level, L::Debug) {
            tracing::debug!(target: "librdkafka", client = self.client, facility, "{text}");
            return;
        }
        let Some(left_out) = self.admit(text) else { return };
        match level {
            L::Emerg | L::Alert | L::Critical => tracing::error!(target: "librdkafka", client = self.client, facility, left_out, "{text}"),
            // librdkafka retries on its own: look tomorrow.
            L::Error | L::Warning => tracing::warn!(target: "librdkafka", client = self.client, facility, left_out, "{text}"),
            _ => tracing::info!(target: "librdkafka", client = self.client, facility, left_out, "{text}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(left_out) = self.admit(reason) else { return };
        tracing::warn!(target: "librdkafka", client = self.client, %error, left_out, "{reason}");
    }
}

impl ConsumerContext for LogContext {}

impl ProducerContext for LogContext {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, _: ()) {}
}

/// The kinds of lines that were written lately.
#[derive(Debug, Default)]
struct Recent {
    kinds: HashMap<u64, (Instant, u64)>,
}

impl Recent {
    const QUIET: Duration = Duration::from_secs(30);
    const KINDS: usize = 64;

    /// `Some(lines left out since the last one)` when a line of this kind may be written now.
    fn admit(&mut self, text: &str, now: Instant) -> Option<u64> {
        let kind = kind(text);
        if let Some((written, left_out)) = self.kinds.get_mut(&kind) {
            if now.saturating_duration_since(*written) < Recent::QUIET {
                *left_out += 1;
                return None;
            }
            *written = now;
            return Some(std::mem::take(left_out));
        }
        if self.kinds.len() >= Recent::KINDS {
            self.kinds.retain(|_, (written, _)| now.saturating_duration_since(*written) < Recent::QUIET);
        }
        if self.kinds.len() >= Recent::KINDS {
            // More kinds than that within 30 s are a storm: only known kinds may speak.
            return None;
        }
        self.kinds.insert(kind, (now, 0));
        Some(0)
    }
}

/// Lines that differ in numbers only (durations, ports, counts) are of one kind.
fn kind(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for byte in text.bytes().filter(|b| !b.is_ascii_digit()) {
        byte.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Settings for tests, as the defaults have them.
    pub(crate) fn config() -> Config {
        let json = serde_json::json!({
            "app": {"id": "tripline"},
            "kafka": {"bootstrap_servers": "127.0.0.1:1", "properties": {}},
            "input": {"topics": ["app.requests", "app.events"], "keyed_by": "none", "partitioner": "murmur2", "start": "earliest", "max_value_bytes": "1MiB", "mapping": {}},
            "topics": {"decisions": "tripline.decisions", "alerts": "tripline.alerts", "standing": "tripline.standing", "dead_letters": "tripline.dead-letters",
                       "late": "tripline.late", "shadow": "tripline.shadow", "partitions": 6, "replication_factor": -1},
            "entity": {"scope": "global", "trusted_hops": 0, "session_key": ""},
            "rules": {"path": "rules", "settings": ""},
            "flags": {"file": ""},
            "decisions": {"emit": "fired"},
            "state": {"dir": "state", "cache_bytes": "64MiB", "rocksdb_bytes": "64MiB", "write_interval": "1s"},
            "memory": {"budget": "512MiB"},
            "stream": {"lanes": 1, "identity": "", "commit_interval": "50ms", "tick_interval": "5s", "restores": 2, "transaction_timeout": "10s", "degraded_after": "1m", "session_timeout": "45s",
                       "max_records": 10000, "max_changed_bytes": "16MiB"},
            "sink": {"url": "sqlite://events.db", "batch_rows": 500, "batch_interval": "200ms"},
            "admin": {"listen": "127.0.0.1:0"},
            "log": {"format": "auto", "level": "info"}
        });
        serde_json::from_value(json).expect("the settings of tests are settings")
    }

    #[test]
    fn properties_pass_through_but_do_not_move_the_client_to_another_cluster() {
        let mut config = config();
        config.kafka.properties.insert("socket.keepalive.enable".into(), "true".into());
        config.kafka.properties.insert("bootstrap.servers".into(), "elsewhere:9092".into());
        let base = base(&config);
        assert_eq!(base.get("socket.keepalive.enable"), Some("true"));
        assert_eq!(base.get("bootstrap.servers"), Some("127.0.0.1:1"));
        assert_eq!(base.get("client.id"), Some("tripline"));
    }

    #[test]
    fn an_absent_cluster_is_one_message_with_address_cause_and_way_out() {
        // Port 1 of the loopback address: nobody listens there.
        let error = reach(&config(), Duration::from_secs(2)).expect_err("nobody listens on port 1");
        let text = error.to_string();
        assert_eq!(error.exit_code(), 4, "{text}");
        assert!(text.starts_with("cannot reach Kafka at 127.0.0.1:1: "), "{text}");
        assert!(text.contains("Connection refused"), "{text}");
        assert!(text.ends_with("; check kafka.bootstrap_servers"), "{text}");
    }

    #[test]
    fn an_unknown_property_is_a_setting_to_correct_and_its_value_is_not_repeated() {
        let mut config = config();
        config.kafka.properties.insert("sasl.pasword".into(), "hunter2".into());
        let error = reach(&config, Duration::from_secs(2)).expect_err("no such property");
        let text = error.to_string();
        assert_eq!(error.exit_code(), 3);
        assert!(text.contains("sasl.pasword") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn lines_of_one_kind_are_written_once_and_counted() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let later = |s| start + Duration::from_secs(s);
        assert_eq!(recent.admit("connect failed after 3ms", start), Some(0));
        assert_eq!(recent.admit("connect failed after 77ms", later(1)), None);
        assert_eq!(recent.admit("connect failed after 5ms", later(29)), None);
        assert_eq!(recent.admit("disconnected", later(29)), Some(0));
        assert_eq!(recent.admit("connect failed after 1ms", later(30)), Some(2));
    }

    #[test]
    fn memory_of_kinds_is_bounded() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let name = |n: usize| "x".repeat(n + 1);
        let written = (0..200).filter(|n| recent.admit(&name(*n), start).is_some()).count();
        assert_eq!((written, recent.kinds.len()), (Recent::KINDS, Recent::KINDS));
        assert_eq!(recent.admit("afterwards", start + Recent::QUIET), Some(0), "old kinds make room");
    }
}
