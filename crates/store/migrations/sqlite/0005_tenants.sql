-- What is said of accounts beyond the settings that count for all: who they are, and what counts for them otherwise. An account
-- without a row is as every other. No secret is in here: auth tokens stay in the accounts file.
CREATE TABLE tenants (
    account_sid   TEXT    NOT NULL PRIMARY KEY,
    parent_sid    TEXT,               -- of a subaccount: the account it belongs to
    friendly_name TEXT    NOT NULL,
    senders       TEXT    NOT NULL,   -- JSON: numbers and senders
    services      TEXT    NOT NULL,   -- JSON: SIDs of Messaging Services
    policy        TEXT    NOT NULL,   -- JSON: what differs from [policy]
    retention     TEXT    NOT NULL,   -- JSON: what differs from [retention]
    revision      INTEGER NOT NULL,   -- counts the changes
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    closed_at_ms  INTEGER
) WITHOUT ROWID;
