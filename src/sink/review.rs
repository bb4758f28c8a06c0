//! What analysts do with stored events: list, look, set a status, add a note.

use super::error::StoreError;
use super::row::EventRow;
use super::store::EventStore;
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, QueryBuilder, Sqlite, SqliteConnection};

/// Where an event stands in the analyst's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Status {
    /// Nobody has looked at it.
    New,
    /// Somebody is looking at it.
    InProgress,
    /// Closed: right, but not worth anyone's time.
    Suppressed,
    /// Closed: dealt with.
    Resolved,
}

impl Status {
    /// The word in the table.
    pub fn name(self) -> &'static str {
        match self {
            Status::New => "new",
            Status::InProgress => "in_progress",
            Status::Suppressed => "suppressed",
            Status::Resolved => "resolved",
        }
    }

    /// Closed events have `resolved`, `resolved_at` and `resolved_by`.
    pub fn is_closed(self) -> bool {
        matches!(self, Status::Suppressed | Status::Resolved)
    }
}

/// A stored event: what was decided, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct StoredEvent {
    /// What was decided.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub row: EventRow,
    /// `new`, `in_progress`, `suppressed` or `resolved`.
    pub status: String,
    /// The status is a closed one.
    pub resolved: bool,
    /// When it was closed.
    pub resolved_at: Option<String>,
    /// By whom.
    pub resolved_by: Option<String>,
    /// The latest note's text; all of them are in `event_notes`.
    pub notes: String,
    /// When the row last changed.
    pub updated_at: String,
    /// Grows with every change: whoever changes an event names the version that was read.
    pub version: i64,
}

/// One line of an event's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Note {
    /// When it was written.
    pub created_at: String,
    /// By whom.
    pub author: String,
    /// The status set with it, if any.
    pub status: Option<String>,
    /// May be empty when a status was set.
    pub text: String,
}

/// Which events to list. Every field narrows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this status.
    pub status: Option<Status>,
    /// Only this severity.
    pub severity: Option<String>,
    /// Only this anomaly type.
    pub anomaly_type: Option<String>,
    /// Only events of this user.
    pub user_id: Option<String>,
    /// Only events from this address.
    pub ip_address: Option<String>,
    /// Only events created at or after this RFC 3339 time (UTC, milliseconds).
    pub since: Option<String>,
}

/// A change to one event.
#[derive(Debug, Clone)]
pub struct Change {
    /// The status to set; `None` adds a note only.
    pub status: Option<Status>,
    /// The note; empty for none.
    pub note: String,
    /// Who makes it.
    pub by: String,
    /// When, RFC 3339: the caller's clock.
    pub at: String,
}

/// An analyst's request that cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// No event has this id.
    #[error("no event has the id {0}: `tripline events list` shows them")]
    Unknown(String),
    /// Several events begin like this.
    #[error("several events have an id that begins with {0}: give more of it")]
    Ambiguous(String),
    /// Somebody else was faster.
    #[error("event {0} was changed by someone else since it was read: look at it again")]
    Changed(String),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The first characters of an id that may stand for all of it.
pub const SHORTEST_PREFIX: usize = 8;

impl EventStore {
    /// Newest events first, at most `limit`.
    pub async fn list(&mut self, filter: &Filter, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT * FROM anomaly_events WHERE 1 = 1");
        let equals = [
            (" AND status = ", filter.status.map(Status::name)),
            (" AND severity = ", filter.severity.as_deref()),
            (" AND anomaly_type = ", filter.anomaly_type.as_deref()),
            (" AND user_id = ", filter.user_id.as_deref()),
            (" AND ip_address = ", filter.ip_address.as_deref()),
            (" AND created_at >= ", filter.since.as_deref()),
        ];
        for (condition, value) in equals {
            if let Some(value) = value {
                query.push(condition).push_bind(value);
            }
        }
        query.push(" ORDER BY created_at DESC, id LIMIT ").push_bind(limit);
        let failed = self.failed("read");
        query.build_query_as().fetch_all(&mut self.connection).await.map_err(failed)
    }

    /// The event with this id, or the only one whose id begins with it.
    pub async fn find(&mut self, id: &str) -> Result<StoredEvent, ReviewError> {
        let failed = self.failed("read");
        let exact = sqlx::query_as("SELECT * FROM anomaly_events WHERE id = ?").bind(id);
        if let Some(event) = exact.fetch_optional(&mut self.connection).await.map_err(&failed)? {
            return Ok(event);
        }
        let prefix = id.to_ascii_lowercase();
        if prefix.len() < SHORTEST_PREFIX || !prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err(ReviewError::Unknown(id.to_owned()));
        }
        // A range instead of LIKE uses the primary key; no digit, dash or letter of an id sorts after `g`.
        let mut found: Vec<StoredEvent> = sqlx::query_as("SELECT * FROM anomaly_events WHERE id > ?1 AND id < ?1 || 'g' LIMIT 2")
            .bind(&prefix)
            .fetch_all(&mut self.connection)
            .await
            .map_err(&failed)?;
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(_), false) => Err(ReviewError::Ambiguous(id.to_owned())),
            (None, _) => Err(ReviewError::Unknown(id.to_owned())),
        }
    }

    /// The history of an event, oldest first.
    pub async fn notes(&mut self, id: &str) -> Result<Vec<Note>, StoreError> {
        let failed = self.failed("read");
        sqlx::query_as("SELECT created_at, author, status, text FROM event_notes WHERE anomaly_event_id = ? ORDER BY id")
            .bind(id)
            .fetch_all(&mut self.connection)
            .await
            .map_err(failed)
    }

    /// Changes events, all or none. Each is named with the version that its reader saw: if it has another by now,
    /// somebody else was faster, and nothing is written over their work.
    pub async fn change(&mut self, events: &[(String, i64)], change: &Change) -> Result<(), ReviewError> {
        let failed = self.failed("write to");
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        for (id, version) in events {
            // An early return drops the transaction, which rolls back what stood before.
            if !change_row(&mut transaction, id, *version, change).await.map_err(&failed)? {
                return Err(ReviewError::Changed(id.clone()));
            }
            add_note(&mut transaction, id, change).await.map_err(&failed)?;
        }
        Ok(transaction.commit().await.map_err(&failed)?)
    }
}

/// `?7` is 1 to close, 0 to open again, null to leave that as it is. A closed event that is closed again keeps who closed it first, and when.
const CHANGE: &str = "
UPDATE anomaly_events SET
    notes = CASE ?3 WHEN '' THEN notes ELSE ?3 END,
    status = COALESCE(?5, status),
    resolved = COALESCE(?7, resolved),
    resolved_at = CASE ?7 WHEN 1 THEN COALESCE(resolved_at, ?4) WHEN 0 THEN NULL ELSE resolved_at END,
    resolved_by = CASE ?7 WHEN 1 THEN COALESCE(resolved_by, ?6) WHEN 0 THEN NULL ELSE resolved_by END,
    updated_at = ?4,
    version = version + 1
WHERE id = ?1 AND version = ?2";

/// Whether the event still had that version.
async fn change_row(connection: &mut SqliteConnection, id: &str, version: i64, change: &Change) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(CHANGE).bind(id).bind(version).bind(&change.note).bind(&change.at);
    let query = query.bind(change.status.map(Status::name)).bind(&change.by).bind(change.status.map(Status::is_closed));
    Ok(query.execute(connection).await?.rows_affected() == 1)
}

async fn add_note(connection: &mut SqliteConnection, id: &str, change: &Change) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO event_notes (anomaly_event_id, created_at, author, status, text) VALUES (?, ?, ?, ?, ?)")
        .bind(id)
        .bind(&change.at)
        .bind(&change.by)
        .bind(change.status.map(Status::name))
        .bind(&change.note)
        .execute(connection)
        .await?;
    Ok(())
}
