//! Reads of the claim path in SQLite: the leases of webhooks and the suppressions of their senders, and the keys of all
//! webhooks once after the start.

use std::time::Duration;

use sqlx::SqliteExecutor;

use super::Sqlite;
use crate::{
    error::StoreError,
    rows::{ContactQuery, LookupRow},
};

/// Keys per read while the keys are remembered, and the pause after each read.
const KEYS: usize = 4096;
const PAUSE: Duration = Duration::from_millis(2);

/// Keys of the ledger after `?1`, in order.
const KEYS_AFTER: &str =
    "SELECT dedupe_key FROM events WHERE dedupe_key > ?1 ORDER BY dedupe_key LIMIT ?2";

/// Known webhooks among the keys `?1`.
macro_rules! known_webhooks {
    () => {
        "SELECT dedupe_key, attempts, received_at_ms, claim_id, held_until_ms, outcome, settled_at_ms, answer, \
            NULL AS tenant, NULL AS channel, NULL AS number \
        FROM events WHERE dedupe_key IN (SELECT value FROM json_each(?1))"
    };
}

/// Sidecars that are cut off from Redis.
macro_rules! partitions {
    () => {
        " UNION ALL \
        SELECT NULL, NULL, NULL, NULL, partition_until_ms - CAST(unixepoch('subsec') * 1000 AS INTEGER), NULL, NULL, NULL, \
            NULL, NULL, NULL \
        FROM sidecars WHERE partition_until_ms > CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

/// Webhooks without contacts, as most status callbacks are.
const LOOK_UP_KEYS: &str = concat!(known_webhooks!(), partitions!());

/// Webhooks, and the suppressions of the contacts `?2`. A suppression of an id that belongs to the same contact counts
/// too. Its expiry is in the column `received_at_ms`.
const LOOK_UP: &str = concat!(
    known_webhooks!(),
    " UNION ALL \
    SELECT NULL, NULL, expires_at_ms, NULL, NULL, NULL, NULL, NULL, tenant, channel, number \
    FROM json_each(?2) CROSS JOIN suppressions ON tenant = value ->> 0 AND number = value ->> 1 \
    WHERE suppressed \
    UNION ALL \
    SELECT NULL, NULL, known.expires_at_ms, NULL, NULL, NULL, NULL, NULL, tied.tenant, known.channel, value ->> 1 \
    FROM json_each(?2) CROSS JOIN contact_links AS tied ON tied.tenant = value ->> 0 AND tied.number = value ->> 1 \
        CROSS JOIN suppressions AS known ON known.tenant = tied.tenant AND known.number = tied.other \
    WHERE suppressed \
    UNION ALL \
    SELECT NULL, NULL, known.expires_at_ms, NULL, NULL, NULL, NULL, NULL, tied.tenant, known.channel, value ->> 1 \
    FROM json_each(?2) CROSS JOIN contact_links AS tied ON tied.tenant = value ->> 0 AND tied.number = value ->> 1 \
        CROSS JOIN contact_links AS far ON far.tenant = tied.tenant AND far.number = tied.other \
        CROSS JOIN suppressions AS known ON known.tenant = far.tenant AND known.number = far.other \
    WHERE suppressed",
    partitions!()
);

pub(crate) async fn look_up(
    executor: impl SqliteExecutor<'_>,
    keys: &[&str],
    contacts: &[ContactQuery<'_>],
) -> Result<Vec<LookupRow>, StoreError> {
    let keys = crate::error::json(keys)?;
    if contacts.is_empty() {
        return Ok(sqlx::query_as(LOOK_UP_KEYS).bind(keys).fetch_all(executor).await?);
    }
    let contacts: Vec<[&str; 2]> =
        contacts.iter().map(|person| [person.tenant, &*person.number]).collect();
    let contacts = crate::error::json(&contacts)?;
    Ok(sqlx::query_as(LOOK_UP).bind(keys).bind(contacts).fetch_all(executor).await?)
}

impl Sqlite {
    /// Remembers the existing keys of the ledger; new ones are added as they are written. Only for a sidecar that has its database
    /// to itself, leases included.
    pub(crate) async fn remember_keys(&self) -> Result<(), StoreError> {
        let mut last = String::new();
        loop {
            let page = sqlx::query_as(KEYS_AFTER).bind(&last).bind(KEYS as i64);
            let keys: Vec<(String,)> = page.fetch_all(&self.lookups).await?;
            self.known.add(keys.iter().map(|(key,)| key.as_str()));
            let is_last = keys.len() < KEYS;
            if let Some((key,)) = keys.into_iter().next_back() {
                last = key;
            }
            if is_last {
                self.known.complete();
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{assert_uses_index, ledger},
        *,
    };

    /// The claim path never scans a table.
    #[tokio::test]
    async fn reads_of_the_claim_path_use_an_index() {
        let mut ledger = ledger().await;
        for (statement, index) in [
            (LOOK_UP_KEYS, "sqlite_autoindex_events_1 (dedupe_key=?)"),
            (KEYS_AFTER, "USING COVERING INDEX sqlite_autoindex_events_1 (dedupe_key>?)"),
            (LOOK_UP, "sqlite_autoindex_events_1 (dedupe_key=?)"),
            (LOOK_UP, "SEARCH suppressions USING PRIMARY KEY (tenant=? AND number=?)"),
        ] {
            let sorts = assert_uses_index(&mut ledger, statement, index).await;
            assert!(!sorts, "{index}");
        }
    }
}
