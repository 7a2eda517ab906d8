-- Times are milliseconds since 1970, UTC. Text keys are compared byte by byte (SQLite's default).

-- Who has which webhook. One row per dedupe key; forgotten after forget_at_ms.
CREATE TABLE leases (
    dedupe_key     TEXT    NOT NULL PRIMARY KEY,
    state          TEXT    NOT NULL CHECK (state IN ('free', 'held', 'done')),
    claim_id       TEXT,              -- who holds it, or whose commit made it done
    attempt        INTEGER NOT NULL,  -- how often it was handed out
    first_seen_ms  INTEGER NOT NULL,
    lease_until_ms INTEGER,           -- held only
    answer         TEXT,              -- done only: the backend's answer, as JSON
    forget_at_ms   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX leases_forget ON leases (forget_at_ms);

-- How claims ended that may still be asked about: given back, released before they came, or overtaken.
CREATE TABLE endings (
    dedupe_key   TEXT    NOT NULL,
    claim_id     TEXT    NOT NULL,
    ending       TEXT    NOT NULL CHECK (ending IN ('freed', 'tombstone', 'superseded')),
    forget_at_ms INTEGER NOT NULL,
    PRIMARY KEY (dedupe_key, claim_id)
) WITHOUT ROWID;
CREATE INDEX endings_forget ON endings (forget_at_ms);

-- Who must not be written to. A row with suppressed = 0 is somebody who came back.
CREATE TABLE suppressions (
    tenant        TEXT    NOT NULL,  -- the account SID
    channel       TEXT    NOT NULL,  -- sms, whatsapp, ..
    number        TEXT    NOT NULL,  -- E.164, or the channel's own id
    suppressed    INTEGER NOT NULL CHECK (suppressed IN (0, 1)),
    message_sid   TEXT    NOT NULL,  -- the opt event that made it so
    changed_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, channel, number)
) WITHOUT ROWID;

-- The audit: every STOP and START once, by its message. Never deleted, so an old one cannot count twice.
CREATE TABLE opt_events (
    account_sid    TEXT    NOT NULL,
    message_sid    TEXT    NOT NULL,
    channel        TEXT    NOT NULL,
    number         TEXT    NOT NULL,
    opt            TEXT    NOT NULL CHECK (opt IN ('stop', 'start')),
    cause          TEXT    NOT NULL,  -- keyword or opt_out_type
    route          TEXT    NOT NULL,
    recorded_at_ms INTEGER NOT NULL,
    PRIMARY KEY (account_sid, message_sid)
) WITHOUT ROWID;
CREATE INDEX opt_events_number ON opt_events (account_sid, channel, number, recorded_at_ms);

-- The last message of each pair of addresses.
CREATE TABLE windows (
    account_sid     TEXT    NOT NULL,
    channel         TEXT    NOT NULL,
    theirs          TEXT    NOT NULL,
    ours            TEXT    NOT NULL,
    last_inbound_ms INTEGER NOT NULL,
    PRIMARY KEY (account_sid, channel, theirs, ours)
) WITHOUT ROWID;

-- The ledger: every webhook once, as received. form is empty only when nothing but the end of it was heard.
CREATE TABLE events (
    id             INTEGER PRIMARY KEY,
    dedupe_key     TEXT    NOT NULL UNIQUE,
    class          TEXT    NOT NULL,
    account_sid    TEXT    NOT NULL,
    message_sid    TEXT    NOT NULL,
    status         TEXT,
    error_code     TEXT,
    route          TEXT,
    form           TEXT,
    received_at_ms INTEGER,
    attempts       INTEGER NOT NULL,
    outcome        TEXT CHECK (outcome IN ('accepted', 'refused')),
    settled_at_ms  INTEGER
);
CREATE INDEX events_message ON events (message_sid);
CREATE INDEX events_received ON events (received_at_ms);
