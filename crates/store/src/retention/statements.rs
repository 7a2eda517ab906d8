//! Statements of retention that both databases share.

macro_rules! found {
    ($rest:literal) => {
        concat!(
            "SELECT dedupe_key, coalesce(received_at_ms, settled_at_ms, 0) AS at_ms, form, \
             answer IS NOT NULL AS answered, theirs, channel, \
             coalesce(redacted, 0) AS redacted, \
             coalesce(held_until_ms, settled_at_ms, received_at_ms, 0) AS last_ms, \
             EXISTS (SELECT 1 FROM deliveries WHERE deliveries.dedupe_key = events.dedupe_key \
             AND state IN ('waiting', 'dead')) OR EXISTS (SELECT 1 FROM archive_queue \
             WHERE archive_queue.dedupe_key = events.dedupe_key) AS owed FROM events WHERE ",
            $rest
        )
    };
}

/// `$1` is the account, `$2` and `$3` the position to continue from, `$4` the end, `$5` the maximum number of rows.
macro_rules! forward {
    ($which:literal) => {
        concat!(
            found!($which),
            "account_sid = $1 AND received_at_ms >= $2 AND (received_at_ms > $2 OR dedupe_key > $3) \
             AND received_at_ms <= $4 ORDER BY received_at_ms, dedupe_key LIMIT $5"
        )
    };
}
pub(crate) use {forward, found};

pub(crate) const OF_ACCOUNT: &str = forward!("");

/// Returns each account once. The query jumps from account to account in the index instead of scanning all rows.
pub(crate) const ACCOUNTS: &str = "
    WITH RECURSIVE accounts(account_sid) AS (
        SELECT min(account_sid) FROM events WHERE received_at_ms IS NOT NULL
        UNION ALL
        SELECT (SELECT min(account_sid) FROM events
            WHERE events.account_sid > accounts.account_sid AND received_at_ms IS NOT NULL)
        FROM accounts WHERE accounts.account_sid IS NOT NULL)
    SELECT account_sid FROM accounts WHERE account_sid IS NOT NULL";

/// Returns the first row after a position: `$1` is the account, `$2` and `$3` the position.
pub(crate) const FIRST_AFTER: &str = "
    SELECT received_at_ms FROM events
    WHERE account_sid = $1 AND received_at_ms >= $2 AND (received_at_ms > $2 OR dedupe_key > $3)
    ORDER BY received_at_ms, dedupe_key LIMIT 1";

pub(super) const PROGRESS: &str =
    "SELECT part, through_ms, through_key FROM retention WHERE account_sid = $1 AND part = $2";

/// Deletes rows without later changes and open deliveries, by time of arrival. `$1` is the account, `$2` the end, `$3` the
/// maximum number of rows.
pub(crate) const DELETE_OLD: &str = "
    DELETE FROM events WHERE dedupe_key IN (SELECT dedupe_key FROM events
        WHERE account_sid = $1 AND received_at_ms <= $2
            AND coalesce(held_until_ms, settled_at_ms, received_at_ms) <= $2
            AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.dedupe_key = events.dedupe_key
                AND state IN ('waiting', 'dead'))
            AND NOT EXISTS (SELECT 1 FROM archive_queue WHERE archive_queue.dedupe_key = events.dedupe_key)
        ORDER BY received_at_ms LIMIT $3)";

pub(crate) const DELETE_UNRECEIVED: &str = "
    DELETE FROM events WHERE dedupe_key IN (SELECT dedupe_key FROM events
        WHERE received_at_ms IS NULL AND settled_at_ms <= $2 AND account_sid = $1
        ORDER BY settled_at_ms LIMIT $3)";

/// Audit entries are in order of time: `$1` is the end, `$2` the maximum number of rows.
pub(crate) const DELETE_AUDIT: &str = "
    DELETE FROM audit WHERE at_ms <= $1 AND id IN (SELECT id FROM audit ORDER BY id LIMIT $2)";

/// `$1` is now, `$2` the maximum number of rows.
pub(crate) const DELETE_CLAIM_ENDS: &str = "
    DELETE FROM claim_ends WHERE (dedupe_key, claim_id) IN
        (SELECT dedupe_key, claim_id FROM claim_ends WHERE expires_at_ms <= $1 LIMIT $2)";

/// `$1` is the end, `$2` the maximum number of rows. Waiting deliveries and dead letters are never deleted.
pub(crate) const DELETE_DELIVERIES: &str = "
    DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries
        WHERE state IN ('done', 'discarded') AND ended_at_ms <= $1 ORDER BY ended_at_ms LIMIT $2)";
