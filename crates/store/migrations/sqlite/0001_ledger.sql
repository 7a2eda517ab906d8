-- Times are milliseconds since 1970, UTC. Text keys are compared byte by byte (SQLite's default).

-- The ledger: every webhook once, as received, with who has it or how it ended. One insert in its life when the backend
-- answers soon. form is empty only when nothing but the end of it was heard.
CREATE TABLE events (
    dedupe_key     TEXT    NOT NULL PRIMARY KEY,  -- class, account and message first: finds a message's webhooks too
    class          TEXT    NOT NULL,
    account_sid    TEXT    NOT NULL,
    message_sid    TEXT    NOT NULL,
    status         TEXT,
    error_code     TEXT,
    route          TEXT,
    form           TEXT,
    channel        TEXT,              -- inbound only, as theirs and ours: sms, whatsapp, ..
    theirs         TEXT,              -- the person: E.164, or the channel's own id
    ours           TEXT,
    received_at_ms INTEGER,           -- first heard of: from here the conversation window counts
    attempts       INTEGER NOT NULL,  -- how often it was handed out; whoever knows of more is ahead
    claim_id       TEXT,              -- who holds it, or whose end of it this is
    held_until_ms  INTEGER,           -- while a claim holds it
    outcome        TEXT CHECK (outcome IN ('accepted', 'refused')),
    settled_at_ms  INTEGER,
    answer         TEXT               -- accepted only: the backend's answer, as JSON
);
CREATE INDEX events_received ON events (received_at_ms);
-- The last message of each pair of addresses: the conversation window.
CREATE INDEX events_pair ON events (theirs, ours, account_sid, channel, received_at_ms) WHERE theirs IS NOT NULL;

-- How claims ended that were decided here, not in Redis or in memory: given back, released before they came, overtaken.
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
