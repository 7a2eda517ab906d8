-- Requests that came with an Idempotency-Key: which, and what was answered, so that a copy is answered the same and changes
-- nothing. Each key of a client is its own: another caller's of the same name is another. No secret is in an answer.
CREATE TABLE idempotency_keys (
    tenant          TEXT NOT NULL,  -- the account the caller is bound to; '' for one that is bound to none
    principal       TEXT NOT NULL,  -- who called: an API key, the edge token
    idempotency_key TEXT NOT NULL,
    fingerprint     TEXT NOT NULL,  -- a digest of the request: another one must not have the key
    owner           TEXT NOT NULL,  -- which copy carries it out; what another one did is rolled back
    held_until_ms   INTEGER NOT NULL,  -- then whoever carried it out cannot be at it any more
    status          INTEGER,  -- of the answer; none while it is carried out
    headers         TEXT,  -- JSON
    body            TEXT,
    created_at_ms   INTEGER NOT NULL,
    expires_at_ms   INTEGER NOT NULL,
    PRIMARY KEY (tenant, principal, idempotency_key)
) WITHOUT ROWID;
CREATE INDEX idempotency_keys_expires ON idempotency_keys (expires_at_ms);
