-- What is to be sent, and how far that is. An attempt is written down before Twilio is called: who dies in the middle leaves a
-- row that says so, and it is posted again only once Twilio has shown that it never had it. What was asked for goes when it
-- has ended.
CREATE TABLE sends (
    id            TEXT NOT NULL PRIMARY KEY,
    account_sid   TEXT NOT NULL,
    channel       TEXT NOT NULL,
    recipient     TEXT NOT NULL,          -- the number; masked once it has ended
    sender        TEXT NOT NULL,          -- our number, or the Messaging Service
    category      TEXT NOT NULL,
    kind          TEXT NOT NULL,
    priority      INTEGER NOT NULL,       -- the smaller the sooner
    form          TEXT NOT NULL,          -- what Twilio is told; empty once it has ended
    state         TEXT NOT NULL CHECK (state IN ('queued', 'attempting', 'sent', 'refused', 'unknown', 'not_sent', 'canceled')),
    due_at_ms     INTEGER NOT NULL,       -- of an attempt: when its hold ends
    wanted_at_ms  INTEGER NOT NULL,       -- when it was first to be sent
    attempt_id    TEXT NOT NULL,
    tries         INTEGER NOT NULL,
    message_sid   TEXT NOT NULL,
    code          TEXT NOT NULL,          -- why it was not sent
    reason        TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    attempted_at_ms INTEGER NOT NULL DEFAULT 0,  -- when its last attempt began
    looks         INTEGER NOT NULL DEFAULT 0,    -- at Twilio's list, since nobody knows
    look_at_ms    INTEGER NOT NULL DEFAULT 0,    -- the next one; 0: none any more
    request_id    TEXT NOT NULL DEFAULT ''  -- Twilio's name of the last call
);
CREATE INDEX sends_looked_for ON sends (look_at_ms) WHERE state = 'unknown' AND look_at_ms > 0;
CREATE INDEX sends_by_sid ON sends (message_sid) WHERE message_sid <> '';
CREATE INDEX sends_due ON sends (priority, due_at_ms) WHERE state = 'queued';
CREATE INDEX sends_held ON sends (due_at_ms) WHERE state = 'attempting';
CREATE INDEX sends_unknown ON sends (created_at_ms) WHERE state = 'unknown';
