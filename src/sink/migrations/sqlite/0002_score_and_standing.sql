-- What a decision says since scores add up: its axes, what weighed on it, and until when its actions hold.
-- Rows of before get the defaults: a decision of one firing had none of it.

ALTER TABLE anomaly_events ADD COLUMN axes                 TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(axes));
ALTER TABLE anomaly_events ADD COLUMN should_throttle      INTEGER NOT NULL DEFAULT 0 CHECK (should_throttle IN (0, 1));
ALTER TABLE anomaly_events ADD COLUMN throttle_interval_ms INTEGER;
ALTER TABLE anomaly_events ADD COLUMN expires_at           TEXT;
ALTER TABLE anomaly_events ADD COLUMN fired                TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(fired));
ALTER TABLE anomaly_events ADD COLUMN context              TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(context));
ALTER TABLE anomaly_events ADD COLUMN policy               TEXT    NOT NULL DEFAULT '';
ALTER TABLE anomaly_events ADD COLUMN warming              INTEGER NOT NULL DEFAULT 0 CHECK (warming IN (0, 1));
ALTER TABLE anomaly_events ADD COLUMN suppressed           INTEGER NOT NULL DEFAULT 0;
ALTER TABLE anomaly_events ADD COLUMN due_time             TEXT;
