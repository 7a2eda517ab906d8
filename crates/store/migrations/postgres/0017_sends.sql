-- What is to be sent, and how far that is. An attempt is written down before Twilio is called: who dies in the middle leaves a
-- row that says so, and it is posted again only once Twilio has shown that it never had it. What was asked for goes when it
-- has ended.
CREATE TABLE sends (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account_sid   TEXT COLLATE "C" NOT NULL,
    channel       TEXT COLLATE "C" NOT NULL,
    recipient     TEXT COLLATE "C" NOT NULL,          -- the number; masked once it has ended
    sender        TEXT COLLATE "C" NOT NULL,          -- our number, or the Messaging Service
    category      TEXT COLLATE "C" NOT NULL,
    kind          TEXT COLLATE "C" NOT NULL,
    priority      BIGINT NOT NULL,       -- the smaller the sooner
    form          TEXT COLLATE "C" NOT NULL,          -- what Twilio is told; empty once it has ended
    state         TEXT COLLATE "C" NOT NULL CHECK (state IN ('queued', 'attempting', 'sent', 'refused', 'unknown', 'not_sent', 'canceled')),
    due_at_ms     BIGINT NOT NULL,       -- of an attempt: when its hold ends
    wanted_at_ms  BIGINT NOT NULL,       -- when it was first to be sent
    attempt_id    TEXT COLLATE "C" NOT NULL,
    tries         BIGINT NOT NULL,
    message_sid   TEXT COLLATE "C" NOT NULL,
    code          TEXT COLLATE "C" NOT NULL,          -- why it was not sent
    reason        TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    created_by    TEXT COLLATE "C" NOT NULL,
    changed_at_ms BIGINT NOT NULL,
    attempted_at_ms BIGINT NOT NULL DEFAULT 0,  -- when its last attempt began
    looks         BIGINT NOT NULL DEFAULT 0,    -- at Twilio's list, since nobody knows
    look_at_ms    BIGINT NOT NULL DEFAULT 0,    -- the next one; 0: none any more
    request_id    TEXT COLLATE "C" NOT NULL DEFAULT ''  -- Twilio's name of the last call
);
CREATE INDEX sends_looked_for ON sends (look_at_ms) WHERE state = 'unknown' AND look_at_ms > 0;
CREATE INDEX sends_by_sid ON sends (message_sid) WHERE message_sid <> '';
CREATE INDEX sends_due ON sends (priority, due_at_ms) WHERE state = 'queued';
CREATE INDEX sends_held ON sends (due_at_ms) WHERE state = 'attempting';
CREATE INDEX sends_unknown ON sends (created_at_ms) WHERE state = 'unknown';
