//! What can go wrong outside: the database and the broker. Every message names the thing and the way out.

use rdkafka::error::KafkaError;

/// The event store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `sink.url` is no address of an event store.
    #[error("invalid sink.url: {problem}")]
    Url {
        /// What is wrong and how to write it.
        problem: String,
    },
    /// The file is not there, and the caller does not create one.
    #[error("there is no event store at {store}: the sink creates it (`tripline run --roles sink`), or name another in sink.url")]
    Missing {
        /// The database.
        store: String,
    },
    /// Its folder cannot be made.
    #[error("could not create the folder of the event store {store}: make it writable, or name another place in sink.url")]
    Folder {
        /// The database.
        store: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A newer binary wrote the tables.
    #[error(
        "the event store {store} was written by a newer tripline (its schema version {version} is not known here): run that version or a newer one"
    )]
    Newer {
        /// The database.
        store: String,
        /// The first unknown migration.
        version: i64,
    },
    /// The tables cannot be created or brought up to date.
    #[error("could not bring the tables of the event store {store} up to date: {}", way_out(database_error(.source)))]
    Migrate {
        /// The database.
        store: String,
        /// Why.
        #[source]
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// The database refused an operation.
    #[error("could not {doing} the event store {store}: {}", way_out(Some(.source)))]
    Database {
        /// The database.
        store: String,
        /// `open`, `write to`, `read`.
        doing: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
}

impl StoreError {
    /// The process's exit code: 3 for a setting that is wrong, 4 for a database that cannot be used.
    pub fn exit_code(&self) -> u8 {
        match self {
            StoreError::Url { .. } => 3,
            _ => 4,
        }
    }

    /// Whether trying again cannot help: the setting or the file itself has to change first.
    pub fn is_permanent(&self) -> bool {
        match self {
            StoreError::Url { .. } | StoreError::Missing { .. } | StoreError::Folder { .. } | StoreError::Newer { .. } => true,
            StoreError::Migrate { source, .. } => {
                database_error(source).is_none_or(|e| matches!(result_code(e), Some(CORRUPT | NOT_A_DATABASE | READ_ONLY)))
            }
            StoreError::Database { source, .. } => matches!(result_code(source), Some(CORRUPT | NOT_A_DATABASE | READ_ONLY | CANNOT_OPEN)),
        }
    }
}

/// The sink had to stop. Its offsets stand behind the last stored batch: a restart goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The event store cannot be used, and retrying did not help.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The consumer cannot be created or subscribed.
    #[error("could not start the sink's consumer of {topic}: check kafka.bootstrap_servers and kafka.properties")]
    Consumer {
        /// The decisions topic.
        topic: String,
        /// Why.
        #[source]
        source: Box<KafkaError>,
    },
    /// No broker answers.
    #[error("could not reach kafka at {servers}: check kafka.bootstrap_servers, and that the brokers are up")]
    Unreachable {
        /// `kafka.bootstrap_servers`.
        servers: String,
        /// Why.
        #[source]
        source: Box<KafkaError>,
    },
    /// Kafka refused for good: no permission, fenced, or another fatal state of the client.
    #[error("kafka refused the sink: check that group {group} may read {topic}")]
    Refused {
        /// The consumer group.
        group: String,
        /// The decisions topic.
        topic: String,
        /// Why.
        #[source]
        source: Box<KafkaError>,
    },
    /// The operating system has no thread for us.
    #[error("could not start the sink's thread")]
    Thread(#[source] std::io::Error),
    /// Our own bug: the consuming thread panicked.
    #[error("the sink's thread panicked: see the log; nothing is lost, a restart goes on from the last stored batch")]
    Panicked,
}

impl SinkError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            SinkError::Store(store) => store.exit_code(),
            _ => 4,
        }
    }
}

/// SQLite's primary result codes: <https://www.sqlite.org/rescode.html>.
const BUSY: u32 = 5;
const READ_ONLY: u32 = 8;
const IO: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANNOT_OPEN: u32 = 14;
const NOT_A_DATABASE: u32 = 26;

fn database_error(error: &sqlx::migrate::MigrateError) -> Option<&sqlx::Error> {
    match error {
        sqlx::migrate::MigrateError::Execute(source) | sqlx::migrate::MigrateError::ExecuteMigration(source, _) => Some(source),
        _ => None,
    }
}

/// The primary result code; the extended one carries it in its low byte.
fn result_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}

fn way_out(error: Option<&sqlx::Error>) -> &'static str {
    match error.and_then(result_code) {
        Some(BUSY) => "another process holds its lock: end that process's transaction, or wait",
        Some(READ_ONLY) => "it is read-only: make the file and its folder writable for this user",
        Some(IO) => "the disk reports an error: check the disk, then restart",
        Some(CORRUPT) => {
            "the file is damaged: restore a backup, or move it away and let the sink read the decisions again (docs/event-store.md)"
        }
        Some(FULL) => "the disk is full: make room, then restart",
        Some(CANNOT_OPEN) => {
            "the file cannot be opened: check that its folder exists and is writable for this user, or name another in sink.url"
        }
        Some(NOT_A_DATABASE) => "the file is not a SQLite database: move it away, or name another in sink.url",
        _ => "see the cause; a restart goes on where the sink stopped",
    }
}
