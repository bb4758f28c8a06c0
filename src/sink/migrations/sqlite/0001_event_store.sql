-- The event store: decided events for review. docs/event-store.md explains every column.
-- Times are RFC 3339 text in UTC with milliseconds: readable, and their order as text is their order in time.

CREATE TABLE anomaly_events (
    -- From the decision: never changed after the insert.
    id               TEXT    NOT NULL PRIMARY KEY,
    anomaly_type     TEXT    NOT NULL,
    category         TEXT,
    severity         TEXT    NOT NULL,
    risk_score       INTEGER NOT NULL,
    user_id          TEXT,
    tenant_id        TEXT,
    tenant_name      TEXT,
    path             TEXT,
    method           TEXT,
    resource_type    TEXT,
    resource_id      TEXT,
    ip_address       TEXT,
    user_agent       TEXT,
    device_id        TEXT,
    request_id       TEXT,
    status_code      INTEGER,
    metadata         TEXT    NOT NULL CHECK (json_valid(metadata)),
    masked_payload   TEXT    NOT NULL CHECK (json_valid(masked_payload)),
    action_taken     TEXT    NOT NULL,
    blocked          INTEGER NOT NULL CHECK (blocked IN (0, 1)),
    created_at       TEXT    NOT NULL,
    event_id         TEXT    NOT NULL,
    event_time       TEXT    NOT NULL,
    event_type       TEXT    NOT NULL,
    entity_kind      TEXT    NOT NULL,
    entity_id        TEXT    NOT NULL,
    should_alert     INTEGER NOT NULL CHECK (should_alert IN (0, 1)),
    should_step_up   INTEGER NOT NULL CHECK (should_step_up IN (0, 1)),
    user_message     TEXT    NOT NULL,
    internal_message TEXT    NOT NULL,
    receipt          TEXT    NOT NULL CHECK (json_valid(receipt)),
    held_back        TEXT    NOT NULL CHECK (json_valid(held_back)),
    clamped          INTEGER NOT NULL CHECK (clamped IN (0, 1)),
    "partial"        INTEGER NOT NULL CHECK ("partial" IN (0, 1)),
    rules            TEXT    NOT NULL,
    flags            TEXT    NOT NULL,
    schema_version   INTEGER NOT NULL,
    -- From the analyst: a repeated decision never touches these.
    status           TEXT    NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'in_progress', 'suppressed', 'resolved')),
    resolved         INTEGER NOT NULL DEFAULT 0,
    resolved_at      TEXT,
    resolved_by      TEXT,
    notes            TEXT    NOT NULL DEFAULT '',
    updated_at       TEXT    NOT NULL,
    version          INTEGER NOT NULL DEFAULT 1,
    CHECK (resolved = (status IN ('suppressed', 'resolved'))),
    CHECK ((resolved_at IS NOT NULL) = resolved),
    CHECK ((resolved_by IS NOT NULL) = resolved)
) STRICT;

-- The package's indexes. A single-column index that begins one of these would be a second copy of it.
CREATE INDEX anomaly_events_category_severity ON anomaly_events (category, severity);
CREATE INDEX anomaly_events_tenant_created ON anomaly_events (tenant_id, created_at);
CREATE INDEX anomaly_events_type_created ON anomaly_events (anomaly_type, created_at);
CREATE INDEX anomaly_events_resolved_created ON anomaly_events (resolved, created_at);
CREATE INDEX anomaly_events_action_created ON anomaly_events (action_taken, created_at);
CREATE INDEX anomaly_events_risk_score ON anomaly_events (risk_score);
CREATE INDEX anomaly_events_blocked_created ON anomaly_events (blocked, created_at);
-- Ours: what `tripline events list` asks for.
CREATE INDEX anomaly_events_created ON anomaly_events (created_at);
CREATE INDEX anomaly_events_status_created ON anomaly_events (status, created_at);
CREATE INDEX anomaly_events_severity_created ON anomaly_events (severity, created_at);
CREATE INDEX anomaly_events_user_created ON anomaly_events (user_id, created_at);
CREATE INDEX anomaly_events_ip_created ON anomaly_events (ip_address, created_at);
CREATE INDEX anomaly_events_entity_created ON anomaly_events (entity_kind, entity_id, created_at);
CREATE INDEX anomaly_events_event ON anomaly_events (event_id);

-- What analysts wrote and which status they set, in order. Append-only: the triggers say so to every client.
CREATE TABLE event_notes (
    id               INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    anomaly_event_id TEXT    NOT NULL REFERENCES anomaly_events (id),
    created_at       TEXT    NOT NULL,
    author           TEXT    NOT NULL,
    -- The status set together with the note; null for a plain note.
    status           TEXT    CHECK (status IN ('new', 'in_progress', 'suppressed', 'resolved')),
    text             TEXT    NOT NULL
) STRICT;

CREATE INDEX event_notes_event ON event_notes (anomaly_event_id, id);

CREATE TRIGGER event_notes_no_update BEFORE UPDATE ON event_notes
BEGIN
    SELECT RAISE(ABORT, 'event_notes is append-only');
END;

CREATE TRIGGER event_notes_no_delete BEFORE DELETE ON event_notes
BEGIN
    SELECT RAISE(ABORT, 'event_notes is append-only');
END;

-- Records of the decisions topic that this version could not read. Kept, so that nothing is lost.
CREATE TABLE unreadable_records (
    topic         TEXT    NOT NULL,
    "partition"   INTEGER NOT NULL,
    "offset"      INTEGER NOT NULL,
    created_at    TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    detail        TEXT    NOT NULL,
    key           BLOB,
    value         BLOB,
    PRIMARY KEY (topic, "partition", "offset")
) STRICT;
