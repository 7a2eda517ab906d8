-- What sinks are owed: written in the transaction of the event, so that neither is ever without the other.
CREATE TABLE deliveries (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order within a lane
    sink           TEXT NOT NULL,
    delivery_id    TEXT NOT NULL,  -- the event, and which replay of it
    dedupe_key     TEXT NOT NULL,  -- the event
    replay_id      TEXT,
    account_sid    TEXT NOT NULL,
    lane           TEXT NOT NULL,  -- what must stay in order: account, channel and person
    state          TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'dead', 'discarded')),
    recorded_at_ms INTEGER NOT NULL,
    tries          INTEGER NOT NULL DEFAULT 0,
    reason         TEXT,                       -- why the last try failed
    ended_at_ms    INTEGER,
    UNIQUE (sink, delivery_id)
);
CREATE INDEX deliveries_waiting ON deliveries (sink, lane, seq) WHERE state = 'waiting';
CREATE INDEX deliveries_dead ON deliveries (ended_at_ms, seq) WHERE state = 'dead';
CREATE INDEX deliveries_done ON deliveries (ended_at_ms) WHERE state IN ('done', 'discarded');
CREATE INDEX deliveries_event ON deliveries (dedupe_key);

-- One row for each sink and lane that has something waiting. Who works on a lane makes it due when its hold ends, so that
-- the lane of a sidecar that died comes up again by itself.
CREATE TABLE lanes (
    sink      TEXT NOT NULL,
    lane      TEXT NOT NULL,
    due_at_ms INTEGER NOT NULL,
    held_by   TEXT,
    PRIMARY KEY (sink, lane)
) WITHOUT ROWID;
CREATE INDEX lanes_due ON lanes (sink, due_at_ms);
