//! The event store in SQLite: opening it, and writing batches.

use super::error::StoreError;
use super::location::Location;
use super::row::EventRow;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection};
use std::time::Duration;

/// The tables, embedded in the binary.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("src/sink/migrations/sqlite");

/// How long SQLite itself waits for another process's lock. Short enough for a stop within five seconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// An open event store: one connection, for SQLite has one writer anyway.
pub struct EventStore {
    pub(super) connection: SqliteConnection,
    /// What messages call it.
    pub(super) name: String,
}

/// Whether opening may make a new store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The sink's first start: make the folder and the file.
    CreateIfMissing,
    /// Everyone else: a mistyped path must not become an empty store.
    Existing,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// New rows.
    pub stored: u64,
    /// Rows that were there already: unchanged.
    pub repeated: u64,
}

/// A record that could not be read, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRecord {
    /// The decisions topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The record's timestamp, RFC 3339.
    pub created_at: String,
    /// A word from a closed set.
    pub reason: &'static str,
    /// Where, without the record's content.
    pub detail: String,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
}

impl EventStore {
    /// Opens the store and brings its tables up to date.
    ///
    /// `synchronous=FULL`: offsets are committed to Kafka right after the database's commit. With `NORMAL` a power cut
    /// could take back a commit whose offsets Kafka keeps, and that batch would be lost; `FULL` costs one fsync per batch.
    pub async fn open(location: &Location, opening: Opening) -> Result<EventStore, StoreError> {
        let name = location.to_string();
        let options = SqliteConnectOptions::new()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .create_if_missing(opening == Opening::CreateIfMissing);
        let options = match location {
            Location::Memory => options.in_memory(true),
            Location::File(path) => {
                match path.parent() {
                    Some(folder) if opening == Opening::CreateIfMissing && !folder.as_os_str().is_empty() => {
                        std::fs::create_dir_all(folder).map_err(|source| StoreError::Folder { store: name.clone(), source })?;
                    }
                    _ if opening == Opening::Existing && !path.exists() => return Err(StoreError::Missing { store: name }),
                    _ => {}
                }
                options.filename(path)
            }
        };
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(|source| StoreError::Database {
            store: name.clone(),
            doing: "open",
            source,
        })?;
        MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|source| match source {
            MigrateError::VersionMissing(version) => StoreError::Newer { store: name.clone(), version },
            source => StoreError::Migrate { store: name.clone(), source: Box::new(source) },
        })?;
        Ok(EventStore { connection, name })
    }

    /// Writes a batch in one transaction. A row whose id is there changes nothing, also not what an analyst did to it.
    pub async fn write<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a EventRow>,
        unreadable: impl Iterator<Item = &'a UnreadableRecord>,
    ) -> Result<Written, StoreError> {
        let failed = self.failed("write to");
        // IMMEDIATE takes the write lock at once: a lock asked for later can fail without waiting for its holder.
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        let mut written = Written::default();
        for row in rows {
            let inserted = insert(row).execute(&mut *transaction).await.map_err(&failed)?.rows_affected();
            written.stored += inserted;
            written.repeated += 1 - inserted;
        }
        for record in unreadable {
            sqlx::query(KEEP_UNREADABLE)
                .bind(&record.topic)
                .bind(record.partition)
                .bind(record.offset)
                .bind(&record.created_at)
                .bind(record.reason)
                .bind(&record.detail)
                .bind(record.key.as_deref())
                .bind(record.value.as_deref())
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(written)
    }

    /// Closes the connection, which folds the write-ahead log into the file.
    pub async fn close(self) -> Result<(), StoreError> {
        let failed = self.failed("close");
        self.connection.close().await.map_err(failed)
    }

    pub(super) fn failed(&self, doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError + use<> {
        let store = self.name.clone();
        move |source| StoreError::Database { store: store.clone(), doing, source }
    }
}

const KEEP_UNREADABLE: &str = r#"
INSERT INTO unreadable_records (topic, "partition", "offset", created_at, reason, detail, key, value)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (topic, "partition", "offset") DO NOTHING"#;

const INSERT: &str = r#"
INSERT INTO anomaly_events (
    id, anomaly_type, category, severity, risk_score, user_id, tenant_id, tenant_name, path, method,
    resource_type, resource_id, ip_address, user_agent, device_id, request_id, status_code, metadata, masked_payload, action_taken,
    blocked, created_at, event_id, event_time, event_type, entity_kind, entity_id, should_alert, should_step_up, user_message,
    internal_message, receipt, held_back, clamped, "partial", rules, flags, schema_version, axes, should_throttle,
    throttle_interval_ms, expires_at, fired, context, policy, warming, suppressed, due_time, updated_at
) VALUES (
    ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,
    ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
    ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30,
    ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40,
    ?41, ?42, ?43, ?44, ?45, ?46, ?47, ?48, ?22
)
ON CONFLICT (id) DO NOTHING"#;

fn insert(row: &EventRow) -> sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    sqlx::query(INSERT)
        .bind(&row.id)
        .bind(&row.anomaly_type)
        .bind(&row.category)
        .bind(&row.severity)
        .bind(row.risk_score)
        .bind(&row.user_id)
        .bind(&row.tenant_id)
        .bind(&row.tenant_name)
        .bind(&row.path)
        .bind(&row.method)
        .bind(&row.resource_type)
        .bind(&row.resource_id)
        .bind(&row.ip_address)
        .bind(&row.user_agent)
        .bind(&row.device_id)
        .bind(&row.request_id)
        .bind(row.status_code)
        .bind(&row.metadata)
        .bind(&row.masked_payload)
        .bind(&row.action_taken)
        .bind(row.blocked)
        .bind(&row.created_at)
        .bind(&row.event_id)
        .bind(&row.event_time)
        .bind(&row.event_type)
        .bind(&row.entity_kind)
        .bind(&row.entity_id)
        .bind(row.should_alert)
        .bind(row.should_step_up)
        .bind(&row.user_message)
        .bind(&row.internal_message)
        .bind(&row.receipt)
        .bind(&row.held_back)
        .bind(row.clamped)
        .bind(row.partial)
        .bind(&row.rules)
        .bind(&row.flags)
        .bind(row.schema_version)
        .bind(&row.axes)
        .bind(row.should_throttle)
        .bind(row.throttle_interval_ms)
        .bind(&row.expires_at)
        .bind(&row.fired)
        .bind(&row.context)
        .bind(&row.policy)
        .bind(row.warming)
        .bind(row.suppressed)
        .bind(&row.due_time)
}
