-- What somebody asked to have delivered once more, and how far that is: whoever carries it on moves the place and adds the
-- deliveries in one transaction. Kept, as the audit is.
CREATE TABLE replays (
    id            TEXT NOT NULL PRIMARY KEY,
    sink          TEXT NOT NULL,
    account_sid   TEXT,              -- none: of all accounts
    message_sid   TEXT,              -- none: of all messages
    class         TEXT,              -- none: of all classes
    since_ms      INTEGER NOT NULL,
    until_ms      INTEGER NOT NULL,      -- not that moment any more
    state         TEXT NOT NULL CHECK (state IN ('running', 'done')),
    through_ms    INTEGER NOT NULL,      -- the last webhook that was looked at
    through_key   TEXT NOT NULL,
    found         INTEGER NOT NULL,      -- webhooks that were asked for
    queued        INTEGER NOT NULL,      -- of these, on their way to the sink
    left_out      INTEGER NOT NULL,      -- of these, not whole any more
    created_at_ms INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    ended_at_ms   INTEGER
);
CREATE INDEX replays_running ON replays (created_at_ms) WHERE state = 'running';
