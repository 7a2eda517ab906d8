-- What was taken out of a row, and when last. Null while nothing was; an insert does not write them.
ALTER TABLE events ADD COLUMN redacted INTEGER;        -- a bit for each part: body 1, media 2, person 4, addresses 8, other 16, answer 32
ALTER TABLE events ADD COLUMN redacted_at_ms INTEGER;

-- How far each part of each account's rows is taken out: all that was received until then. So no row needs a mark, nor an
-- index of those that have none yet.
CREATE TABLE retention (
    account_sid TEXT NOT NULL,
    part        TEXT NOT NULL,
    through_ms  INTEGER NOT NULL,
    through_key TEXT NOT NULL,  -- among those of the same millisecond
    PRIMARY KEY (account_sid, part)
) WITHOUT ROWID;
