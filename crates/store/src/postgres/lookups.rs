//! Read of the claim path in PostgreSQL: the leases of webhooks and the suppressions of their senders.

use sqlx::PgExecutor;

use crate::{
    error::StoreError,
    rows::{ContactQuery, LookupRow},
};

/// Known webhooks among the keys `$1`.
macro_rules! known_webhooks {
    () => {
        "SELECT dedupe_key, attempts, received_at_ms, claim_id, held_until_ms, outcome, settled_at_ms, answer, \
            NULL AS tenant, NULL AS channel, NULL AS number \
        FROM events WHERE dedupe_key = ANY($1)"
    };
}

/// Sidecars that are cut off from Redis.
macro_rules! partitions {
    () => {
        " UNION ALL \
        SELECT NULL, NULL, NULL, NULL, partition_until_ms - now_ms, NULL, NULL, NULL, NULL, NULL, NULL \
        FROM (SELECT (extract(epoch FROM now()) * 1000)::bigint AS now_ms) AS clock \
            JOIN sidecars ON partition_until_ms > now_ms"
    };
}

/// Webhooks without contacts, as most status callbacks are: the suppressions cost more than the webhooks.
const LOOK_UP_KEYS: &str = concat!(known_webhooks!(), partitions!());

/// Webhooks, and the suppressions of contacts: of the tenants `$2`, the numbers `$3`. A suppression of an id that belongs to
/// the same contact counts too. Its expiry is in the column `received_at_ms`.
const LOOK_UP: &str = concat!(
    known_webhooks!(),
    " UNION ALL \
    SELECT NULL, NULL, known.expires_at_ms, NULL, NULL, NULL, NULL, NULL, input.tenant, known.channel, input.number \
    FROM unnest($2::text[], $3::text[]) AS input(tenant, number) \
        CROSS JOIN LATERAL (SELECT input.number AS id \
            UNION ALL SELECT tied.other FROM contact_links AS tied \
            WHERE tied.tenant = input.tenant AND tied.number = input.number \
            UNION ALL SELECT far.other FROM contact_links AS tied \
                JOIN contact_links AS far ON far.tenant = tied.tenant AND far.number = tied.other \
            WHERE tied.tenant = input.tenant AND tied.number = input.number) AS ids \
        JOIN suppressions AS known ON known.tenant = input.tenant AND known.number = ids.id \
    WHERE suppressed",
    partitions!()
);

pub(crate) async fn look_up(
    executor: impl PgExecutor<'_>,
    keys: &[&str],
    contacts: &[ContactQuery<'_>],
) -> Result<Vec<LookupRow>, StoreError> {
    if contacts.is_empty() {
        return Ok(sqlx::query_as(LOOK_UP_KEYS).bind(keys).fetch_all(executor).await?);
    }
    let tenants: Vec<&str> = contacts.iter().map(|person| person.tenant).collect();
    let numbers: Vec<&str> = contacts.iter().map(|person| &*person.number).collect();
    let query = sqlx::query_as(LOOK_UP).bind(keys).bind(tenants).bind(numbers);
    Ok(query.fetch_all(executor).await?)
}
