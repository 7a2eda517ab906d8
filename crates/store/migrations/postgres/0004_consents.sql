-- Why a person must not be written to: a row for each reason, and they are suppressed while one of them holds. The number
-- comes before the channel, so that one look finds what is said of a number on its channel and on all of them ('*').
CREATE TABLE suppressions_by_reason (
    tenant        TEXT COLLATE "C" NOT NULL,             -- the account SID
    number        TEXT COLLATE "C" NOT NULL,             -- E.164, or the channel's own id
    channel       TEXT COLLATE "C" NOT NULL,             -- sms, whatsapp, .. or * for every channel
    source        TEXT COLLATE "C" NOT NULL,             -- keyword, opt_out_type, callback, administrator, ..
    error_code    TEXT COLLATE "C" NOT NULL DEFAULT '',  -- of a callback
    suppressed    BOOLEAN NOT NULL,                      -- false: it held once
    since_ms      BIGINT NOT NULL,                       -- since when it holds, or did the last time
    changed_at_ms BIGINT NOT NULL,
    message_sid   TEXT COLLATE "C",                      -- what made it so
    route         TEXT,
    origin_channel      TEXT COLLATE "C",                      -- the channel on which it was said
    sender        TEXT COLLATE "C",                      -- our number or sender it was said to
    service_sid   TEXT COLLATE "C",                      -- the Messaging Service a callback was about
    changed_by    TEXT,                                  -- an API key or the command line; nobody for what a person said
    PRIMARY KEY (tenant, number, channel, error_code, source)
);
INSERT INTO suppressions_by_reason (tenant, number, channel, source, suppressed, since_ms, changed_at_ms, message_sid,
        route, origin_channel)
    SELECT tenant, suppressions.number, suppressions.channel, coalesce(cause, 'keyword'), suppressed, changed_at_ms,
        changed_at_ms, suppressions.message_sid, route, suppressions.channel
    FROM suppressions LEFT JOIN opt_events
        ON account_sid = tenant AND opt_events.message_sid = suppressions.message_sid;
DROP TABLE suppressions;
ALTER TABLE suppressions_by_reason RENAME TO suppressions;
CREATE INDEX suppressions_source ON suppressions (tenant, source, number, channel, error_code);

-- Evidence that a person agreed to be written to, or took it back. Only added to; what holds is the latest of a person,
-- channel and category, and a withdrawal if two are of the same time.
CREATE TABLE consents (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- a digest of all that follows: the same evidence twice is once
    tenant         TEXT COLLATE "C" NOT NULL,
    number         TEXT COLLATE "C" NOT NULL,
    channel        TEXT COLLATE "C" NOT NULL,
    category       TEXT COLLATE "C" NOT NULL,
    state          TEXT COLLATE "C" NOT NULL CHECK (state IN ('granted', 'withdrawn')),
    at_ms          BIGINT NOT NULL,                        -- when the person said so
    source         TEXT NOT NULL,                          -- where: a form, a call, a contract
    proof          TEXT,                                   -- what they were shown and said
    ip             TEXT,
    user_agent     TEXT,
    recorded_at_ms BIGINT NOT NULL,
    recorded_by    TEXT NOT NULL
);
CREATE INDEX consents_person ON consents (tenant, number, channel, category, at_ms, state, id);
