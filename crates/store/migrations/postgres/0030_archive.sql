-- What came with the form of a webhook, as JSON: its method, the public URL and some headers. Written where there is an archive.
ALTER TABLE events ADD COLUMN envelope TEXT;

-- One row while webhooks are kept for an archive: from then on each is queued by whoever writes it.
CREATE TABLE archive_switch (
    id       BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    since_ms BIGINT NOT NULL
);

-- What is not in the archive yet. Retention passes its events by.
CREATE TABLE archive_queue (
    dedupe_key     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account_sid    TEXT COLLATE "C" NOT NULL,
    received_at_ms BIGINT NOT NULL,
    bytes          BIGINT NOT NULL,
    batch_id       TEXT COLLATE "C"   -- the object it is to be in
);
CREATE INDEX archive_queue_account ON archive_queue (account_sid, received_at_ms, dedupe_key);
CREATE INDEX archive_queue_batch ON archive_queue (batch_id) WHERE batch_id IS NOT NULL;

-- The object that is being written of each account, one at a time. Whoever comes after a hold writes the same object again.
CREATE TABLE archive_batches (
    account_sid   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    batch_id      TEXT COLLATE "C" NOT NULL,
    object        TEXT COLLATE "C" NOT NULL,
    made_at_ms    BIGINT NOT NULL,
    held_by       TEXT COLLATE "C" NOT NULL,
    held_until_ms BIGINT NOT NULL
);

-- What is to be taken out of the archive because somebody had it taken out of the ledger. Whom it is about goes when that is done.
CREATE TABLE archive_erasures (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account_sid   TEXT COLLATE "C" NOT NULL,
    message_sid   TEXT COLLATE "C",
    number        TEXT COLLATE "C",
    channel       TEXT COLLATE "C",
    since_ms      BIGINT NOT NULL,
    until_ms      BIGINT NOT NULL,   -- that moment too
    made_at_ms    BIGINT NOT NULL,
    held_by       TEXT COLLATE "C" NOT NULL DEFAULT '',
    held_until_ms BIGINT NOT NULL DEFAULT 0
);

-- In the transaction that writes the form, whoever it is: so no way of writing an event can forget the archive.
CREATE FUNCTION queue_for_archive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM archive_switch) THEN
        INSERT INTO archive_queue (dedupe_key, account_sid, received_at_ms, bytes)
        VALUES (NEW.dedupe_key, NEW.account_sid, coalesce(NEW.received_at_ms, 0), octet_length(NEW.form))
        ON CONFLICT (dedupe_key) DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER events_came AFTER INSERT ON events FOR EACH ROW
    WHEN (NEW.form IS NOT NULL) EXECUTE FUNCTION queue_for_archive();
-- Of some only the end is heard first.
CREATE TRIGGER events_heard AFTER UPDATE OF form ON events FOR EACH ROW
    WHEN (OLD.form IS NULL AND NEW.form IS NOT NULL) EXECUTE FUNCTION queue_for_archive();
