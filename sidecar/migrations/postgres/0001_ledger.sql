-- Times are milliseconds since 1970, UTC. Text keys are compared byte by byte (COLLATE "C").

-- Who has which webhook. One row per dedupe key; forgotten after forget_at_ms.
CREATE TABLE leases (
    dedupe_key     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    state          TEXT COLLATE "C" NOT NULL CHECK (state IN ('free', 'held', 'done')),
    claim_id       TEXT,              -- who holds it, or whose commit made it done
    attempt        BIGINT  NOT NULL,  -- how often it was handed out
    first_seen_ms  BIGINT  NOT NULL,
    lease_until_ms BIGINT ,           -- held only
    answer         TEXT,              -- done only: the backend's answer, as JSON
    forget_at_ms   BIGINT  NOT NULL
);
CREATE INDEX leases_forget ON leases (forget_at_ms);

-- How claims ended that may still be asked about: given back, released before they came, or overtaken.
CREATE TABLE endings (
    dedupe_key   TEXT COLLATE "C" NOT NULL,
    claim_id     TEXT COLLATE "C" NOT NULL,
    ending       TEXT COLLATE "C" NOT NULL CHECK (ending IN ('freed', 'tombstone', 'superseded')),
    forget_at_ms BIGINT  NOT NULL,
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
    changed_at_ms BIGINT  NOT NULL,
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
    route          TEXT COLLATE "C" NOT NULL,
    recorded_at_ms BIGINT  NOT NULL,
    PRIMARY KEY (account_sid, message_sid)
);
CREATE INDEX opt_events_number ON opt_events (account_sid, channel, number, recorded_at_ms);

-- The last message of each pair of addresses.
CREATE TABLE windows (
    account_sid     TEXT COLLATE "C" NOT NULL,
    channel         TEXT COLLATE "C" NOT NULL,
    theirs          TEXT COLLATE "C" NOT NULL,
    ours            TEXT COLLATE "C" NOT NULL,
    last_inbound_ms BIGINT  NOT NULL,
    PRIMARY KEY (account_sid, channel, theirs, ours)
);

-- The ledger: every webhook once, as received. form is empty only when nothing but the end of it was heard.
CREATE TABLE events (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dedupe_key     TEXT COLLATE "C" NOT NULL UNIQUE,
    class          TEXT COLLATE "C" NOT NULL,
    account_sid    TEXT COLLATE "C" NOT NULL,
    message_sid    TEXT COLLATE "C" NOT NULL,
    status         TEXT,
    error_code     TEXT,
    route          TEXT,
    form           TEXT,
    received_at_ms BIGINT ,
    attempts       BIGINT  NOT NULL,
    outcome        TEXT CHECK (outcome IN ('accepted', 'refused')),
    settled_at_ms  BIGINT 
);
CREATE INDEX events_message ON events (message_sid);
CREATE INDEX events_received ON events (received_at_ms);
