-- What somebody asked to have delivered once more, and how far that is: whoever carries it on moves the place and adds the
-- deliveries in one transaction. Kept, as the audit is.
CREATE TABLE replays (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sink          TEXT COLLATE "C" NOT NULL,
    account_sid   TEXT COLLATE "C",              -- none: of all accounts
    message_sid   TEXT COLLATE "C",              -- none: of all messages
    class         TEXT COLLATE "C",              -- none: of all classes
    since_ms      BIGINT NOT NULL,
    until_ms      BIGINT NOT NULL,      -- not that moment any more
    state         TEXT COLLATE "C" NOT NULL CHECK (state IN ('running', 'done')),
    through_ms    BIGINT NOT NULL,      -- the last webhook that was looked at
    through_key   TEXT COLLATE "C" NOT NULL,
    found         BIGINT NOT NULL,      -- webhooks that were asked for
    queued        BIGINT NOT NULL,      -- of these, on their way to the sink
    left_out      BIGINT NOT NULL,      -- of these, not whole any more
    created_at_ms BIGINT NOT NULL,
    created_by    TEXT COLLATE "C" NOT NULL,
    ended_at_ms   BIGINT
);
CREATE INDEX replays_running ON replays (created_at_ms) WHERE state = 'running';
