//! Lists of outbound messages of one account, latest first, page by page: the queued ones by recipient and sender, and the
//! statements with which `message_history` reads rows beside webhooks. This module must not know how a message is displayed.

use super::{OutboundMessage, OutboundMessages, outbound_message_columns};
use crate::{database::Bind, error::StoreError};
use twilio_edge_domain::address::Address;

/// One range of an index of messages by time. `$1` is the account, `$2` the value of the indexed column, `$3` and `$4` the
/// position to continue from, `$5` the start of the period, `$6` the maximum number of rows.
macro_rules! rows {
    ($column:literal) => {
        concat!(
            "SELECT ",
            outbound_message_columns!(),
            " FROM outbound_messages WHERE account_sid = $1 AND ",
            $column,
            " = $2 AND ",
            $column,
            " <> '' AND (created_at_ms, id) < ($3, $4) AND created_at_ms >= $5
            ORDER BY created_at_ms DESC, id DESC LIMIT $6"
        )
    };
}

/// Indexed column of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowIndex {
    State,
    Status,
    Code,
    Template,
    Sender,
}

impl RowIndex {
    pub(crate) fn statement(self) -> &'static str {
        match self {
            RowIndex::State => rows!("state"),
            RowIndex::Status => rows!("status"),
            RowIndex::Code => rows!("code"),
            RowIndex::Template => rows!("template"),
            RowIndex::Sender => rows!("sender"),
        }
    }
}

/// Row of one id. `$1` is the account, `$2` the id.
pub(crate) const ROW: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE account_sid = $1 AND id = $2"
);

/// Parameters of a range, as both databases bind them.
pub(crate) struct RowRange<'a> {
    pub(crate) account_sid: &'a str,
    pub(crate) index: RowIndex,
    pub(crate) value: &'a str,
    pub(crate) before: (i64, &'a str),
    pub(crate) since_ms: i64,
    pub(crate) limit: i64,
}

/// SID of a message, for a query.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Sid<'a> {
    pub(crate) message_sid: &'a str,
}

/// Rows of outbound messages by Twilio's SID, also by that of a failed delivery.
pub(crate) const ROWS_BY_SID: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE message_sid <> '' AND message_sid IN (SELECT value ->> 'message_sid' FROM json_each($1))
    UNION ALL SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE id IN (SELECT message_id FROM replaced_sids
        WHERE replaced_sids.message_sid IN (SELECT value ->> 'message_sid' FROM json_each($1)))"
);

/// The same for PostgreSQL, which looks up each element of an array in the index.
pub(crate) const ROWS_BY_SID_OF_ARRAY: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE message_sid <> ''
        AND message_sid = ANY(ARRAY(SELECT one ->> 'message_sid' FROM json_array_elements($1::json) AS one))
    UNION ALL SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE id = ANY(ARRAY(SELECT message_id FROM replaced_sids WHERE replaced_sids.message_sid
        = ANY(ARRAY(SELECT one ->> 'message_sid' FROM json_array_elements($1::json) AS one))))"
);

/// Leaves out `unknown` messages, because Twilio may list them.
const WAITING: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE state = 'queued' AND account_sid = $1 AND (created_at_ms, id) < ($2, $3)
        AND ($4 = '' OR (channel = $4 AND recipient = $5)) AND ($6 = '' OR sender = $6)
    ORDER BY created_at_ms DESC, id DESC LIMIT $7"
);

/// Filter and position of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedMessagesPage<'a> {
    /// Account SID of the tenant.
    pub account_sid: &'a str,
    /// Returns only messages to this recipient.
    pub to: Option<&'a Address>,
    /// Returns only messages from this number of ours; empty: any.
    pub from: &'a str,
    /// Position: messages older than this one, by time in milliseconds since 1970 and id.
    pub before: (i64, &'a str),
    /// Maximum number of messages.
    pub most: i64,
}

impl OutboundMessages {
    /// Returns a page of waiting messages.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or a read fails.
    pub async fn list_queued(
        &self,
        page: &QueuedMessagesPage<'_>,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let (channel, number) =
            page.to.map_or(("", ""), |to| (to.channel.as_str(), to.number.as_str()));
        let binds = [
            Bind::Text(page.account_sid),
            Bind::Whole(page.before.0),
            Bind::Text(page.before.1),
            Bind::Text(channel),
            Bind::Text(number),
            Bind::Text(page.from),
            Bind::Whole(page.most),
        ];
        self.database.read_bound(WAITING, &binds).await
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn rows_are_read_by_an_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        for (statement, index) in [
            (RowIndex::State.statement(), "outbound_messages_listed (account_sid=? AND state=?"),
            (RowIndex::Status.statement(), "outbound_messages_status (account_sid=? AND status=?"),
            (RowIndex::Code.statement(), "outbound_messages_code (account_sid=? AND code=?"),
            (
                RowIndex::Template.statement(),
                "outbound_messages_template (account_sid=? AND template=?",
            ),
            (RowIndex::Sender.statement(), "outbound_messages_sender (account_sid=? AND sender=?"),
            (ROWS_BY_SID, "USING INDEX outbound_messages_by_sid (message_sid=?)"),
        ] {
            let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(plan).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = plan.into_iter().map(|(.., detail)| detail).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{index}: {plan:#?}");
            assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:#?}");
        }
    }
}
