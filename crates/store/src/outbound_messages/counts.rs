//! Counters of outbound messages by hour. A change of a message increments its counters in the same transaction, so a counter
//! never contradicts the rows. Counts of requests that a rule refused have no row: they wait in memory for the next
//! transaction, and a crash loses those of the last moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use sqlx::FromRow;

use super::{OutboundMessage, OutboundMessages};
use crate::{
    database::{Bind, Durability, Transaction},
    error::StoreError,
};
use twilio_edge_domain::sending::statistics::{Dimension, MessageEvent, hour_of};

/// Number of parts of each counter. A process increments one part, so that sidecars rarely wait for each other.
const SHARDS: u64 = 4;

/// Largest number of counters that wait in memory; further counts are dropped.
const MAX_WAITING: usize = 10_000;

static SHARD: LazyLock<i64> = LazyLock::new(|| {
    let random = getrandom::u64().unwrap_or_default() % SHARDS;
    i64::try_from(random).unwrap_or_default()
});

/// `$1` to `$8` are the key, `$9` is the shard and `$10` the number to add.
const INCREMENT: &str = "
    INSERT INTO message_counts (account_sid, hour_ms, event, channel, sender, template, country, code, shard, count)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (account_sid, hour_ms, event, channel, sender, template, country, code, shard)
    DO UPDATE SET count = message_counts.count + excluded.count";

/// One range of the key; `$1` is the account, `$2` the start, `$3` the end. `$4` to `$9` are 1 for the dimensions to show, and
/// `$10` to `$14` the values of filters, or empty.
const READ: &str = "
    SELECT CASE WHEN $4 = 1 THEN hour_ms ELSE 0 END AS hour_ms, event, CASE WHEN $5 = 1 THEN channel ELSE '' END AS channel,
        CASE WHEN $6 = 1 THEN sender ELSE '' END AS sender, CASE WHEN $7 = 1 THEN template ELSE '' END AS template,
        CASE WHEN $8 = 1 THEN country ELSE '' END AS country, CASE WHEN $9 = 1 THEN code ELSE '' END AS code,
        CAST(sum(count) AS BIGINT) AS count
    FROM message_counts WHERE account_sid = $1 AND hour_ms >= $2 AND hour_ms < $3
        AND ($10 = '' OR channel = $10) AND ($11 = '' OR sender = $11) AND ($12 = '' OR template = $12)
        AND ($13 = '' OR country = $13) AND ($14 = '' OR code = $14)
    GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 3, 4, 5, 6, 7, 2 LIMIT $15";

const DELETE_OLD: &str = "DELETE FROM message_counts WHERE hour_ms < $1";

/// Counter of one event of messages that have these properties in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageCount {
    /// Account SID of the tenant.
    pub account_sid: String,
    /// Start of the hour, in milliseconds since 1970.
    pub hour_ms: i64,
    /// Counted event.
    pub event: MessageEvent,
    /// Channel of the messages.
    pub channel: String,
    /// Sender of the messages; empty if it is unknown.
    pub sender: String,
    /// Template of the messages; empty without one.
    pub template: String,
    /// Country of the recipients; empty if it is unknown.
    pub country: String,
    /// Error code; empty without one.
    pub code: String,
}

impl OutboundMessage {
    /// Returns the counter for an event of this message.
    pub fn count(&self, event: MessageEvent, code: &str, at_ms: i64) -> MessageCount {
        MessageCount {
            account_sid: self.account_sid.clone(),
            hour_ms: hour_of(at_ms),
            event,
            channel: self.channel.clone(),
            sender: self.sender.clone(),
            template: self.template.clone(),
            country: self.country.clone(),
            code: code.to_owned(),
        }
    }
}

/// Query of the counters.
#[derive(Debug, Clone, Default)]
pub struct CountQuery {
    /// Account SID of the tenant.
    pub account_sid: String,
    /// Start of the period, inclusive, in milliseconds since 1970.
    pub since_ms: i64,
    /// End of the period, exclusive, in milliseconds since 1970.
    pub until_ms: i64,
    /// Dimensions that the result shows; the counters of all others are added up.
    pub by: BTreeSet<Dimension>,
    /// Channel of the messages; empty: any. The same applies to the other filters.
    pub channel: String,
    /// Sender of the messages.
    pub sender: String,
    /// Template of the messages.
    pub template: String,
    /// Country of the recipients.
    pub country: String,
    /// Error code.
    pub code: String,
}

/// Counters that wait for the next transaction.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Arc<Mutex<BTreeMap<MessageCount, i64>>>);

/// Counters of one transaction. Those that waited before wait again unless the transaction was committed.
pub(super) struct Increments {
    source: Counts,
    waited: BTreeMap<MessageCount, i64>,
    added: BTreeMap<MessageCount, i64>,
}

impl Counts {
    /// Adds one to a counter with the next transaction.
    pub(super) fn add(&self, count: MessageCount) {
        self.add_all(BTreeMap::from([(count, 1)]));
    }

    fn add_all(&self, counts: BTreeMap<MessageCount, i64>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (count, number) in counts {
            if waiting.len() < MAX_WAITING || waiting.contains_key(&count) {
                let sum = waiting.entry(count).or_default();
                *sum = sum.saturating_add(number);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn take(&self) -> Increments {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = std::mem::take(&mut *waiting);
        Increments { source: self.clone(), waited, added: BTreeMap::new() }
    }
}

impl Increments {
    pub(super) fn extend(&mut self, counts: Vec<MessageCount>) {
        for count in counts {
            let sum = self.added.entry(count).or_default();
            *sum = sum.saturating_add(1);
        }
    }

    /// Ends the transaction after its commit.
    pub(super) fn keep(mut self) {
        self.waited.clear();
    }

    fn sums(&self) -> BTreeMap<&MessageCount, i64> {
        let mut sums = BTreeMap::new();
        for (count, number) in self.waited.iter().chain(&self.added) {
            let sum: &mut i64 = sums.entry(count).or_default();
            *sum = sum.saturating_add(*number);
        }
        sums
    }
}

impl Drop for Increments {
    fn drop(&mut self) {
        if !self.waited.is_empty() {
            self.source.add_all(std::mem::take(&mut self.waited));
        }
    }
}

/// Increments the counters, in the order of their keys, as the last rows that the transaction changes: two sidecars never
/// wait for each other in a circle.
pub(super) async fn increment(tx: &mut Transaction, counts: &Increments) -> Result<(), StoreError> {
    for (count, number) in counts.sums() {
        let binds = [
            Bind::Text(&count.account_sid),
            Bind::Whole(count.hour_ms),
            Bind::Text(count.event.as_str()),
            Bind::Text(&count.channel),
            Bind::Text(&count.sender),
            Bind::Text(&count.template),
            Bind::Text(&count.country),
            Bind::Text(&count.code),
            Bind::Whole(*SHARD),
            Bind::Whole(number),
        ];
        tx.execute_bound(INCREMENT, &binds).await?;
    }
    Ok(())
}

#[derive(Debug, FromRow)]
struct CountRow {
    hour_ms: i64,
    event: String,
    channel: String,
    sender: String,
    template: String,
    country: String,
    code: String,
    count: i64,
}

impl OutboundMessages {
    /// Counts a request that a rule refused.
    pub fn count_refusal(&self, count: MessageCount) {
        self.writes.counts().add(count);
    }

    /// Writes the counters that wait in memory.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change; the counters then wait for the next transaction.
    pub async fn flush_counts(&self) -> Result<(), StoreError> {
        self.writes.flush_counts().await
    }

    /// Returns the sums of the counters, with empty values for dimensions that the query does not show; at most `most`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn counts(
        &self,
        query: &CountQuery,
        most: usize,
    ) -> Result<Vec<(MessageCount, i64)>, StoreError> {
        let shown = |dimension| Bind::Whole(i64::from(query.by.contains(&dimension)));
        let binds = [
            Bind::Text(&query.account_sid),
            Bind::Whole(query.since_ms),
            Bind::Whole(query.until_ms),
            shown(Dimension::Hour),
            shown(Dimension::Channel),
            shown(Dimension::Sender),
            shown(Dimension::Template),
            shown(Dimension::Country),
            shown(Dimension::Code),
            Bind::Text(&query.channel),
            Bind::Text(&query.sender),
            Bind::Text(&query.template),
            Bind::Text(&query.country),
            Bind::Text(&query.code),
            Bind::Whole(i64::try_from(most).unwrap_or(i64::MAX)),
        ];
        let rows: Vec<CountRow> = self.database.read_bound(READ, &binds).await?;
        let read = |row: CountRow| {
            let count = MessageCount {
                account_sid: query.account_sid.clone(),
                hour_ms: row.hour_ms,
                event: row.event.parse().ok()?,
                channel: row.channel,
                sender: row.sender,
                template: row.template,
                country: row.country,
                code: row.code,
            };
            Some((count, row.count))
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Deletes the counters of the hours before `before_ms`. Returns their number.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn delete_old_counts(&self, before_ms: i64) -> Result<u64, StoreError> {
        let binds = [Bind::Whole(before_ms)];
        self.database.execute_bound(Durability::Process, DELETE_OLD, &binds).await
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn counters_are_read_and_deleted_by_an_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        for statement in [READ, DELETE_OLD] {
            let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(plan).fetch_all(&mut connection).await.unwrap();
            let is_scan = |step: &str| step.contains("SCAN message_counts");
            assert!(!plan.iter().any(|(.., step)| is_scan(step)), "{plan:#?}");
        }
    }

    #[test]
    fn waiting_counters_survive_a_failed_transaction() {
        let count = OutboundMessage::default().count(MessageEvent::Refused, "no_consent", 0);
        let counts = Counts::default();
        counts.add(count.clone());
        drop(counts.take());
        assert!(!counts.is_empty(), "they wait again");
        let mut increments = counts.take();
        increments.extend(vec![count.clone(), count.clone()]);
        assert_eq!(increments.sums(), BTreeMap::from([(&count, 3)]));
        increments.keep();
        assert!(counts.is_empty());
    }
}
