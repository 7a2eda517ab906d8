-- What waits is gone through by category, account and sender, so that none of them has to wait for all of another; and the
-- oldest that is due is told from the index.
DROP INDEX sends_due;
CREATE INDEX sends_lanes ON sends (priority, account_sid, sender, due_at_ms) WHERE state = 'queued';
CREATE INDEX sends_due ON sends (due_at_ms) WHERE state = 'queued';

-- How many messages a sender may send now, for sidecars that have no Redis, or do not reach it (SQLite has one sidecar, which
-- remembers it). Senders are named by callers: what is full goes.
CREATE TABLE paces (
    name   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    bucket TEXT COLLATE "C" NOT NULL,
    at_ms  BIGINT NOT NULL          -- when it is full, if nobody touches it
);
CREATE INDEX paces_at ON paces (at_ms);
