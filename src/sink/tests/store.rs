use crate::sink::examples::{RECORD_MS, decision, row};
use crate::sink::review::{Change, Filter, ReviewError, Status, StoredEvent};
use crate::sink::row::{EventRow, NoRow};
use crate::sink::store::{MIGRATIONS, Opening, UnreadableRecord, Written};
use crate::sink::{EventStore, Location, StoreError};
use sqlx::migrate::Migrator;
use sqlx::{Connection as _, Row as _};

const FIRST: &str = "11111111-aaaa-5000-8000-000000000001";
const SECOND: &str = "11111111-bbbb-5000-8000-000000000002";

async fn open() -> EventStore {
    EventStore::open(&Location::Memory, Opening::CreateIfMissing).await.expect("a store in memory")
}

async fn write(store: &mut EventStore, rows: &[EventRow]) -> Written {
    store.write(rows.iter(), std::iter::empty()).await.expect("written")
}

async fn find(store: &mut EventStore, id: &str) -> StoredEvent {
    store.find(id).await.expect("stored")
}

fn change(status: Option<Status>, note: &str, at: &str) -> Change {
    Change { status, note: note.to_owned(), by: "ann".to_owned(), at: at.to_owned() }
}

#[tokio::test]
async fn every_field_of_a_decision_has_its_column() {
    let mut store = open().await;
    write(&mut store, &[row(FIRST, |_| ())]).await;
    let stored = serde_json::to_value(find(&mut store, FIRST).await).expect("JSON");
    let expected: serde_json::Value = serde_json::from_str(
        r#"{
        "id": "11111111-aaaa-5000-8000-000000000001", "anomaly_type": "auth_failure_burst", "category": "request", "severity": "high", "risk_score": 72,
        "user_id": "u2", "tenant_id": "t1", "tenant_name": "Tenant One", "path": "/login/17", "method": "POST",
        "resource_type": "login", "resource_id": "17", "ip_address": "203.0.113.9", "user_agent": "curl/8", "device_id": "device-1",
        "request_id": "req-1", "status_code": 401, "metadata": {"count": 20, "token": "***"}, "masked_payload": {"form": "login"},
        "action_taken": "step_up_review", "blocked": true, "created_at": "2026-01-31T12:00:01.000Z",
        "event_id": "evt-7", "event_time": "2026-01-31T12:00:00.250Z", "event_type": "request.failed",
        "entity_kind": "user", "entity_id": "u1", "should_alert": true, "should_step_up": true,
        "user_message": "please confirm it is you", "internal_message": "20 failures in 60s",
        "receipt": [
            {"rule": "auth.burst@3", "points": 62, "why": "20 in 60s", "axis": "intrusion", "family": "credentials", "age_s": 0, "confidence": 0.9},
            {"rule": "app.says@1", "points": 10, "why": "reported by the app", "axis": "intrusion", "family": "credentials", "age_s": 180,
             "share": 0.5, "anomaly_type": "odd_login"},
            {"rule": "http.rate@2", "points": 8.25, "why": "more often than allowed", "axis": "abuse", "family": "load", "age_s": 0}
        ],
        "axes": {"intrusion": 72, "abuse": 8.25}, "should_throttle": true, "throttle_interval_ms": 1818,
        "expires_at": "2026-01-31T13:00:00.000Z", "fired": ["auth.burst@3"], "context": [{"id": "new-network", "times": 1.5}],
        "policy": "policy.shop@5", "warming": true, "suppressed": 4, "due_time": "2026-01-31T12:00:30.000Z", "held_back": [{"action": "block", "by": "mode:alert"}],
        "clamped": true, "partial": true, "rules": "sha256:0011", "flags": "sha256:2233", "schema_version": 1,
        "status": "new", "resolved": false, "resolved_at": null, "resolved_by": null, "notes": "",
        "updated_at": "2026-01-31T12:00:01.000Z", "version": 1
    }"#,
    )
    .expect("JSON");
    assert_eq!(stored, expected);
}

#[tokio::test]
async fn what_a_decision_does_not_have_is_null_not_empty() {
    let mut store = open().await;
    let bare = row(FIRST, |d| {
        (d.user_id, d.path, d.status_code, d.category) = (None, None, None, None);
        (d.should_block, d.clamped) = (false, false);
        (d.throttle_interval_ms, d.expires_at, d.due_time) = (None, None, None);
        d.held_back.clear();
        d.axes.clear();
    });
    write(&mut store, std::slice::from_ref(&bare)).await;
    assert_eq!(find(&mut store, FIRST).await.row, bare);
    assert_eq!((bare.user_id, bare.category, bare.blocked, bare.held_back.as_str()), (None, None, false, "[]"));
    assert_eq!((bare.throttle_interval_ms, bare.expires_at, bare.due_time, bare.axes.as_str()), (None, None, None, "{}"));
}

/// What a binary of the first version wrote, spelled out: its columns are frozen.
const ROW_OF_VERSION_1: &str = r#"
INSERT INTO anomaly_events (
    id, anomaly_type, category, severity, risk_score, user_id, metadata, masked_payload, action_taken, blocked, created_at,
    event_id, event_time, event_type, entity_kind, entity_id, should_alert, should_step_up, user_message, internal_message,
    receipt, held_back, clamped, "partial", rules, flags, schema_version, updated_at
) VALUES (
    ?, 'auth_failure_burst', 'request', 'high', 72, 'u1', '{}', '{}', 'alert', 0, '2026-01-31T12:00:01.000Z',
    'evt-7', '2026-01-31T12:00:00.250Z', 'request.failed', 'user', 'u1', 1, 0, 'Sign in again.', '',
    '[{"rule":"auth.burst@3","points":72,"why":"20 in 60s"}]', '[]', 0, 0, 'sha256:0011', 'sha256:2233', 1, '2026-01-31T12:00:01.000Z'
)"#;

#[tokio::test]
async fn rows_of_the_version_before_are_there_after_the_tables_were_brought_up_to_date() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut before = sqlx::SqliteConnection::connect_with(&options).await.expect("a database");
    let first = MIGRATIONS.iter().filter(|migration| migration.version == 1).cloned().collect();
    Migrator::with_migrations(first).run_direct(None, &mut before, false).await.expect("the tables of version 1");
    sqlx::query(ROW_OF_VERSION_1).bind(FIRST).execute(&mut before).await.expect("a row of version 1");
    sqlx::query("INSERT INTO event_notes (anomaly_event_id, created_at, author, text) VALUES (?, 't1', 'ann', 'seen')")
        .bind(FIRST)
        .execute(&mut before)
        .await
        .expect("a note");
    before.close().await.expect("closed");

    let location = Location::File(path);
    let mut store = EventStore::open(&location, Opening::Existing).await.expect("brought up to date");
    let event = find(&mut store, FIRST).await;
    let old = &event.row;
    assert_eq!((old.risk_score, old.entity_id.as_str(), store.notes(FIRST).await.expect("read").len()), (72, "u1", 1));
    assert_eq!((old.axes.as_str(), old.fired.as_str(), old.context.as_str(), old.policy.as_str()), ("{}", "[]", "[]", ""));
    assert_eq!((old.should_throttle, old.throttle_interval_ms, &old.expires_at), (false, None, &None));
    assert_eq!((old.warming, old.suppressed, &old.due_time), (false, 0, &None));
    assert_eq!(write(&mut store, &[row(FIRST, |_| ()), row(SECOND, |_| ())]).await, Written { stored: 1, repeated: 1 });
    assert_eq!(find(&mut store, FIRST).await, event, "a repeat leaves an old row as it was");
    store.change(&[(FIRST.to_owned(), 1)], &change(Some(Status::Resolved), "", "t2")).await.expect("an old row can be changed");
    assert_eq!(store.list(&Filter::default(), 10).await.expect("read").len(), 2);
    store.close().await.expect("closed");
    EventStore::open(&location, Opening::Existing).await.expect("once is enough").close().await.expect("closed");
}

#[test]
fn a_record_without_a_timestamp_gets_the_time_of_its_event_and_a_decision_without_a_signal_no_row() {
    let created = |record_ms| EventRow::of(decision(FIRST), record_ms).map(|row| row.created_at);
    assert_eq!(created(None).as_deref(), Ok("2026-01-31T12:00:00.250Z"));
    assert_eq!(created(Some(-1)).as_deref(), Ok("2026-01-31T12:00:00.250Z"));
    assert_eq!(created(Some(RECORD_MS)).as_deref(), Ok("2026-01-31T12:00:01.000Z"));
    let mut quiet = decision(FIRST);
    quiet.anomaly_type = None;
    assert_eq!(EventRow::of(quiet, None), Err(NoRow::WithoutSignal));
}

#[tokio::test]
async fn a_repeat_changes_nothing_least_of_all_what_an_analyst_did() {
    let mut store = open().await;
    assert_eq!(write(&mut store, &[row(FIRST, |_| ()), row(FIRST, |_| ()), row(SECOND, |_| ())]).await, Written { stored: 2, repeated: 1 });
    store.change(&[(FIRST.to_owned(), 1)], &change(Some(Status::Resolved), "a test", "2026-02-01T00:00:00.000Z")).await.expect("changed");
    let reviewed = find(&mut store, FIRST).await;
    assert_eq!(write(&mut store, &[row(FIRST, |d| d.risk_score = 1)]).await, Written { stored: 0, repeated: 1 });
    assert_eq!(find(&mut store, FIRST).await, reviewed);
    assert_eq!((reviewed.status.as_str(), reviewed.row.risk_score), ("resolved", 72));
}

#[tokio::test]
async fn a_batch_is_stored_whole_or_not_at_all() {
    let mut store = open().await;
    let mut broken = row(SECOND, |_| ());
    broken.receipt = "not JSON".to_owned();
    store.write([row(FIRST, |_| ()), broken].iter(), std::iter::empty()).await.expect_err("the table checks JSON columns");
    assert!(store.list(&Filter::default(), 10).await.expect("read").is_empty());
    assert_eq!(write(&mut store, &[row(FIRST, |_| ())]).await.stored, 1, "the store goes on after a failed batch");
}

#[tokio::test]
async fn closing_and_opening_keep_status_and_resolved_together() {
    let mut store = open().await;
    write(&mut store, &[row(FIRST, |_| ())]).await;
    let steps = [
        (Some(Status::InProgress), "", "t1", "in_progress", false, None, ""),
        (Some(Status::Suppressed), "known scanner", "t2", "suppressed", true, Some("t2"), "known scanner"),
        (Some(Status::Resolved), "", "t3", "resolved", true, Some("t2"), "known scanner"),
        (None, "seen again", "t4", "resolved", true, Some("t2"), "seen again"),
        (Some(Status::New), "", "t5", "new", false, None, "seen again"),
    ];
    for (version, (set, note, at, status, resolved, resolved_at, notes)) in (1..).zip(steps) {
        store.change(&[(FIRST.to_owned(), version)], &change(set, note, at)).await.expect("changed");
        let event = find(&mut store, FIRST).await;
        let seen = (event.status.as_str(), event.resolved, event.resolved_at.as_deref(), event.notes.as_str(), event.updated_at.as_str());
        assert_eq!(seen, (status, resolved, resolved_at, notes, at));
        assert_eq!(event.resolved_by.as_deref(), resolved.then_some("ann"));
    }
    assert_eq!(store.notes(FIRST).await.expect("read").len(), 5);
}

#[tokio::test]
async fn whoever_read_an_older_version_changes_nothing_not_even_the_events_before() {
    let mut store = open().await;
    write(&mut store, &[row(FIRST, |_| ()), row(SECOND, |_| ())]).await;
    store.change(&[(SECOND.to_owned(), 1)], &change(None, "mine", "t1")).await.expect("changed");
    let both = [(FIRST.to_owned(), 1), (SECOND.to_owned(), 1)];
    let error = store.change(&both, &change(Some(Status::Resolved), "late", "t2")).await.expect_err("the second has version 2");
    assert!(matches!(error, ReviewError::Changed(id) if id == SECOND));
    assert_eq!(find(&mut store, FIRST).await.status, "new");
    assert_eq!(store.notes(FIRST).await.expect("read"), []);
    assert_eq!(store.notes(SECOND).await.expect("read").len(), 1);
}

#[tokio::test]
async fn notes_are_append_only_for_every_client() {
    let mut store = open().await;
    write(&mut store, &[row(FIRST, |_| ())]).await;
    store.change(&[(FIRST.to_owned(), 1)], &change(None, "first", "t1")).await.expect("changed");
    for sql in ["UPDATE event_notes SET text = 'other'", "DELETE FROM event_notes"] {
        let error = sqlx::query(sql).execute(&mut store.connection).await.expect_err(sql);
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    assert_eq!(store.notes(FIRST).await.expect("read")[0].text, "first");
}

#[tokio::test]
async fn filters_narrow_and_the_newest_stand_first() {
    let mut store = open().await;
    let at = |id: &str, hour: i64, change: &dyn Fn(&mut tripline_core::decision::Decision)| {
        let mut decision = decision(id);
        change(&mut decision);
        EventRow::of(decision, Some(RECORD_MS + hour * 3_600_000)).expect("a signal")
    };
    let rows = [
        at("a", 0, &|d| d.severity = tripline_core::rule::Severity::Low),
        at("b", 2, &|d| d.user_id = Some("u9".to_owned())),
        at("c", 1, &|d| d.anomaly_type = Some("idor_probe".to_owned())),
        at("d", 3, &|d| d.ip_address = Some("198.51.100.1".to_owned())),
    ];
    write(&mut store, &rows).await;
    store.change(&[("c".to_owned(), 1)], &change(Some(Status::Suppressed), "", "t")).await.expect("changed");
    let some = |text: &str| Some(text.to_owned());
    let cases = [
        (Filter::default(), 10, "dbca"),
        (Filter::default(), 2, "db"),
        (Filter { status: Some(Status::Suppressed), ..Filter::default() }, 10, "c"),
        (Filter { severity: some("low"), ..Filter::default() }, 10, "a"),
        (Filter { anomaly_type: some("auth_failure_burst"), ..Filter::default() }, 10, "dba"),
        (Filter { user_id: some("u9"), ..Filter::default() }, 10, "b"),
        (Filter { ip_address: some("198.51.100.1"), ..Filter::default() }, 10, "d"),
        (Filter { since: some("2026-01-31T14:00:01.000Z"), ..Filter::default() }, 10, "db"),
        (Filter { user_id: some("u9"), severity: some("low"), ..Filter::default() }, 10, ""),
        (Filter { user_id: some("' OR 1=1 --"), ..Filter::default() }, 10, ""),
    ];
    for (filter, limit, expected) in cases {
        let listed: String = store.list(&filter, limit).await.expect("read").iter().map(|e| e.row.id.as_str()).collect();
        assert_eq!(listed, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn unreadable_records_are_kept_once_with_their_bytes() {
    let mut store = open().await;
    let record = UnreadableRecord {
        topic: "tripline.decisions".to_owned(),
        partition: 3,
        offset: 7,
        created_at: "2026-01-31T12:00:01.000Z".to_owned(),
        reason: "not_a_decision",
        detail: "line 1 column 1".to_owned(),
        key: None,
        value: Some(vec![0xff, 0x00]),
    };
    for _ in 0..2 {
        store.write(std::iter::empty(), [&record].into_iter()).await.expect("written");
    }
    let kept =
        sqlx::query(r#"SELECT "offset", reason, key, value FROM unreadable_records"#).fetch_all(&mut store.connection).await.expect("read");
    let kept: Vec<_> = kept.iter().map(|r| (r.get::<i64, _>(0), r.get::<String, _>(1), r.get::<Option<Vec<u8>>, _>(2), r.get(3))).collect();
    assert_eq!(kept, [(7, "not_a_decision".to_owned(), None, Some(vec![0xff_u8, 0x00]))]);
}

async fn open_error(location: &Location, opening: Opening) -> StoreError {
    match EventStore::open(location, opening).await {
        Ok(_) => panic!("{location} opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| Location::File(folder.path().join(name));

    std::fs::write(folder.path().join("text.db"), "this is a text file, and long enough to be read as a header".repeat(20))
        .expect("written");
    let error = open_error(&at("text.db"), Opening::CreateIfMissing).await;
    assert!(
        error.is_permanent() && error.to_string().contains("text.db") && error.to_string().contains("not a SQLite database"),
        "{error}"
    );

    let error = open_error(&at("text.db/events.db"), Opening::CreateIfMissing).await;
    assert!(error.is_permanent() && error.to_string().contains("folder"), "{error}");

    let error = open_error(&at("none.db"), Opening::Existing).await;
    assert!(error.is_permanent() && error.to_string().contains("none.db"), "{error}");

    std::fs::create_dir(folder.path().join("folder.db")).expect("made");
    let error = open_error(&at("folder.db"), Opening::CreateIfMissing).await;
    assert!(error.is_permanent() && error.to_string().contains("cannot be opened"), "{error}");
}

#[tokio::test]
async fn a_store_is_durable_in_every_commit_and_refuses_an_older_binary() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::File(folder.path().join("deep/er/events.db"));
    let mut store = EventStore::open(&location, Opening::CreateIfMissing).await.expect("made with its folders");
    let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(&mut store.connection).await.expect("read");
    let (synchronous,): (i64,) = sqlx::query_as("PRAGMA synchronous").fetch_one(&mut store.connection).await.expect("read");
    assert_eq!((mode.as_str(), synchronous), ("wal", 2));
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, 'later', TRUE, x'00', 0)",
    )
    .execute(&mut store.connection)
    .await
    .expect("a later version's mark");
    store.close().await.expect("closed");
    let error = open_error(&location, Opening::Existing).await;
    assert!(matches!(error, StoreError::Newer { version: 999, .. }) && error.is_permanent(), "{error}");
}

#[tokio::test]
async fn a_lock_held_by_another_process_is_worth_another_try() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::File(folder.path().join("events.db"));
    let mut holder = EventStore::open(&location, Opening::CreateIfMissing).await.expect("a store");
    let mut store = EventStore::open(&location, Opening::Existing).await.expect("the same store");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut holder.connection).await.expect("locked");
    let error = store.write([row(FIRST, |_| ())].iter(), std::iter::empty()).await.expect_err("locked");
    assert!(!error.is_permanent() && error.to_string().contains("lock"), "{error}");
    sqlx::query("ROLLBACK").execute(&mut holder.connection).await.expect("unlocked");
    assert_eq!(write(&mut store, &[row(FIRST, |_| ())]).await.stored, 1);
}
