-- Media that somebody gave us to be sent, until they go. The row is there before the object is, and goes after it: nothing is in
-- the bucket that is not here.
CREATE TABLE media (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- md_.., and the last part of its path in the bucket
    account_sid   TEXT COLLATE "C" NOT NULL,
    content_type  TEXT COLLATE "C" NOT NULL,
    bytes         BIGINT NOT NULL,
    digest        TEXT COLLATE "C" NOT NULL,          -- SHA-256
    created_at_ms BIGINT NOT NULL,
    created_by    TEXT COLLATE "C" NOT NULL,
    keep_ms       BIGINT NOT NULL,       -- for so long after it came, and after each message it is in
    expires_at_ms BIGINT NOT NULL,       -- then it goes; 0: at once
    is_stored     BIGINT NOT NULL        -- 1: the object is whole
);
CREATE INDEX media_expiring ON media (expires_at_ms);
-- In which messages they are, and to whom these go: by that they are found when a person is to be forgotten.
CREATE TABLE media_uses (
    media_id      TEXT COLLATE "C" NOT NULL,
    send_id       TEXT COLLATE "C" NOT NULL,
    account_sid   TEXT COLLATE "C" NOT NULL,
    channel       TEXT COLLATE "C" NOT NULL,
    recipient     TEXT COLLATE "C" NOT NULL,
    at_ms         BIGINT NOT NULL,
    PRIMARY KEY (media_id, send_id)
);
CREATE INDEX media_uses_by_recipient ON media_uses (account_sid, recipient);
