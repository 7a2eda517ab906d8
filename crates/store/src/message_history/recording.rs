//! Webhooks in the order in which they were recorded, for live streams. A page ends before the first commit that may still be
//! incomplete, so no later commit adds a webhook before the end of a page (docs/adr/0041-live-stream.md).

use sqlx::FromRow;

use super::{MessageHistory, WebhookRow};
use crate::{columns::webhook_columns, database::within, error::StoreError};
use twilio_edge_domain::{live_stream::StreamPosition, message::RecordedWebhook};

/// `$1` to `$3` are the position, `$4` the end, `$5` the maximum number of rows. The same in both databases.
pub(crate) const RECORDED: &str = concat!(
    "SELECT ",
    webhook_columns!(),
    ", commit_position FROM events WHERE received_at_ms IS NOT NULL AND commit_position >= $1 AND commit_position < $4 \
     AND (commit_position > $1 OR received_at_ms > $2 OR (received_at_ms = $2 AND dedupe_key > $3)) \
     ORDER BY commit_position, received_at_ms, dedupe_key LIMIT $5"
);

#[derive(Debug, FromRow)]
pub(crate) struct RecordingRow {
    #[sqlx(flatten)]
    webhook: WebhookRow,
    commit_position: i64,
}

/// Part of a page of recorded webhooks, as both databases bind it.
pub(crate) struct RecordingRange<'a> {
    pub(crate) after: &'a StreamPosition,
    pub(crate) end: i64,
    pub(crate) limit: i64,
}

impl MessageHistory {
    /// Returns the position before which every commit is complete: webhooks that are recorded later are at it or after it.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn end_of_recording(&self) -> Result<i64, StoreError> {
        within(self.timeout, self.reader.end_of_recording()).await
    }

    /// Returns the webhooks after a position and before `end`, which [`MessageHistory::end_of_recording`] returned, in the order of
    /// recording. Webhooks whose content was not recorded are left out.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn recorded_after(
        &self,
        after: &StreamPosition,
        end: i64,
        limit: usize,
    ) -> Result<Vec<(StreamPosition, RecordedWebhook)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let range = RecordingRange { after, end, limit };
        let rows = within(self.timeout, self.reader.recorded(&range)).await?;
        let read = |row: RecordingRow| {
            let commit = row.commit_position;
            let webhook = row.webhook.read();
            let (received_ms, key) = (webhook.received_ms, webhook.key.clone());
            (StreamPosition { commit, received_ms, key }, webhook)
        };
        Ok(rows.into_iter().map(read).collect())
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::sqlite;

    const ADD: &str = "INSERT INTO events AS stored (dedupe_key, class, account_sid, message_sid, received_at_ms, attempts) \
         VALUES ($1, 'inbound', 'AC1', $1, $2, 1) ON CONFLICT (dedupe_key) DO UPDATE \
         SET received_at_ms = coalesce(stored.received_at_ms, excluded.received_at_ms)";

    async fn add(connection: &mut SqliteConnection, key: &str, received_at_ms: Option<i64>) {
        sqlx::query(ADD).bind(key).bind(received_at_ms).execute(connection).await.unwrap();
    }

    async fn end(connection: &mut SqliteConnection) -> i64 {
        let end = sqlx::query_as(sqlite::STATEMENTS.end_of_recording).fetch_one(connection).await;
        let (end,): (i64,) = end.unwrap();
        end
    }

    async fn keys(connection: &mut SqliteConnection, from: i64, end: i64) -> Vec<String> {
        let rows: Vec<RecordingRow> = sqlx::query_as(RECORDED)
            .bind(from)
            .bind(i64::MIN)
            .bind("")
            .bind(end)
            .bind(10)
            .fetch_all(connection)
            .await
            .unwrap();
        rows.into_iter().map(|row| row.webhook.read().key).collect()
    }

    #[tokio::test]
    async fn number_of_a_deleted_webhook_is_not_given_again() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        assert_eq!(end(&mut connection).await, 1);
        add(&mut connection, "a", Some(1)).await;
        let position = end(&mut connection).await;
        sqlx::query("DELETE FROM events").execute(&mut connection).await.unwrap();
        assert_eq!(end(&mut connection).await, position);
        add(&mut connection, "b", Some(2)).await;
        let next = end(&mut connection).await;
        assert_eq!(keys(&mut connection, position, next).await, ["b"]);
    }

    #[tokio::test]
    async fn arrival_that_is_recorded_after_its_settlement_is_at_the_end() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        add(&mut connection, "settled", None).await;
        add(&mut connection, "b", Some(1)).await;
        let position = end(&mut connection).await;
        assert_eq!(keys(&mut connection, 0, position).await, ["b"]);
        add(&mut connection, "settled", Some(2)).await;
        add(&mut connection, "settled", Some(3)).await;
        add(&mut connection, "c", Some(4)).await;
        let next = end(&mut connection).await;
        assert_eq!(keys(&mut connection, position, next).await, ["settled", "c"]);
    }
}
