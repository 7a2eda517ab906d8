-- Times are milliseconds since 1970, UTC. Text keys are compared byte by byte (COLLATE "C").

-- The ledger: every webhook once, as received, with who has it or how it ended. One insert in its life when the backend
-- answers soon. form is empty only when nothing but the end of it was heard.
CREATE TABLE events (
    dedupe_key     TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- class, account and message first: finds a message's webhooks too
    class          TEXT COLLATE "C" NOT NULL,
    account_sid    TEXT COLLATE "C" NOT NULL,
    message_sid    TEXT COLLATE "C" NOT NULL,
    status         TEXT,
    error_code     TEXT,
    route          TEXT,
    form           TEXT,
    channel        TEXT COLLATE "C",              -- inbound only, as theirs and ours: sms, whatsapp, ..
    theirs         TEXT COLLATE "C",              -- the person: E.164, or the channel's own id
    ours           TEXT COLLATE "C",
    received_at_ms BIGINT,           -- first heard of: from here the conversation window counts
    attempts       BIGINT NOT NULL,  -- how often it was handed out; whoever knows of more is ahead
    claim_id       TEXT,              -- who holds it, or whose end of it this is
    held_until_ms  BIGINT,           -- while a claim holds it
    outcome        TEXT COLLATE "C" CHECK (outcome IN ('accepted', 'refused')),
    settled_at_ms  BIGINT,
    answer         TEXT               -- accepted only: the backend's answer, as JSON
);
-- Rows come in the order of time: the range of each block is enough to find a day, and costs an insert nothing.
CREATE INDEX events_received ON events USING brin (received_at_ms);
-- The last message of each pair of addresses: the conversation window.
CREATE INDEX events_pair ON events (theirs, ours, account_sid, channel, received_at_ms) WHERE theirs IS NOT NULL;

-- How claims ended that were decided here, not in Redis or in memory: given back, released before they came, overtaken.
CREATE TABLE endings (
    dedupe_key   TEXT COLLATE "C" NOT NULL,
    claim_id     TEXT COLLATE "C" NOT NULL,
    ending       TEXT COLLATE "C" NOT NULL CHECK (ending IN ('freed', 'tombstone', 'superseded')),
    forget_at_ms BIGINT NOT NULL,
    PRIMARY KEY (dedupe_key, claim_id)
);
CREATE INDEX endings_forget ON endings (forget_at_ms);

-- Who must not be written to. A row with suppressed = false is somebody who came back.
CREATE TABLE suppressions (
    tenant        TEXT COLLATE "C" NOT NULL,  -- the account SID
    channel       TEXT COLLATE "C" NOT NULL,  -- sms, whatsapp, ..
    number        TEXT COLLATE "C" NOT NULL,  -- E.164, or the channel's own id
    suppressed    BOOLEAN NOT NULL,
    message_sid   TEXT COLLATE "C" NOT NULL,  -- the opt event that made it so
    changed_at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, channel, number)
);

-- The audit: every STOP and START once, by its message. Never deleted, so an old one cannot count twice.
CREATE TABLE opt_events (
    account_sid    TEXT COLLATE "C" NOT NULL,
    message_sid    TEXT COLLATE "C" NOT NULL,
    channel        TEXT COLLATE "C" NOT NULL,
    number         TEXT COLLATE "C" NOT NULL,
    opt            TEXT COLLATE "C" NOT NULL CHECK (opt IN ('stop', 'start')),
    cause          TEXT COLLATE "C" NOT NULL,  -- keyword or opt_out_type
    route          TEXT NOT NULL,
    recorded_at_ms BIGINT NOT NULL,
    PRIMARY KEY (account_sid, message_sid)
);
CREATE INDEX opt_events_number ON opt_events (account_sid, channel, number, recorded_at_ms);
