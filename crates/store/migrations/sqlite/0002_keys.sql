-- Who may call the API. The secret of a key is shown once and not stored; a revoked key stays, so that the audit can be read.
CREATE TABLE api_keys (
    id              TEXT    NOT NULL PRIMARY KEY,  -- the public part of the key
    name            TEXT    NOT NULL,
    scope           TEXT    NOT NULL CHECK (scope IN ('edge', 'app', 'admin')),
    account_sid     TEXT,               -- the only tenant it sees; none: all of them
    secret_sha256   TEXT    NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    last_used_at_ms INTEGER,            -- to the minute
    revoked_at_ms   INTEGER
) WITHOUT ROWID;
CREATE INDEX api_keys_created ON api_keys (created_at_ms, id);
CREATE INDEX api_keys_account ON api_keys (account_sid, created_at_ms, id);
CREATE INDEX api_keys_scope ON api_keys (scope);

-- Every administrative change, in the order they were made; never changed, never deleted.
CREATE TABLE audit (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms       INTEGER NOT NULL,
    actor       TEXT    NOT NULL,  -- who: a key, the edge token, the command line
    source      TEXT    NOT NULL,  -- from where: an address, or the user of the command line
    action      TEXT    NOT NULL,  -- what was done: key.created, ..
    subject     TEXT    NOT NULL,  -- to what
    account_sid TEXT,              -- whose
    detail      TEXT    NOT NULL   -- JSON, without secrets
);
CREATE INDEX audit_account ON audit (account_sid, id);
