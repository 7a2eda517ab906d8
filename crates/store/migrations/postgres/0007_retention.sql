-- What was taken out of a row, and when last. Null while nothing was; an insert does not write them.
ALTER TABLE events ADD COLUMN redacted BIGINT;        -- a bit for each part: body 1, media 2, person 4, addresses 8, other 16, answer 32
ALTER TABLE events ADD COLUMN redacted_at_ms BIGINT;
-- A row of which only the end was heard is in no index by time; there are few, and no other row is in this one.
CREATE INDEX events_unheard ON events (settled_at_ms) WHERE received_at_ms IS NULL;

-- How far each part of each account's rows is taken out: all that was received until then. So no row needs a mark, nor an
-- index of those that have none yet. Whoever works on one has it locked.
CREATE TABLE retention (
    account_sid TEXT COLLATE "C" NOT NULL,
    part        TEXT COLLATE "C" NOT NULL,
    through_ms  BIGINT NOT NULL,
    through_key TEXT COLLATE "C" NOT NULL,  -- among those of the same millisecond
    PRIMARY KEY (account_sid, part)
);
