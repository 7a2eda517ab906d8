//! Queries for the webhooks of the ledger: one step along an index, or all webhooks of some messages, which are ranges of
//! the ledger's key. The statements are the same in both databases.

use serde::Serialize;
use sqlx::FromRow;

use crate::columns::webhook_columns;
use twilio_edge_domain::{
    address::Address,
    message::{Direction, RecordedWebhook, is_of_inbound},
    webhook,
};

/// Parameters of one step along an index, as both databases bind them.
pub(crate) struct Walk<'a> {
    pub(crate) account_sid: &'a str,
    pub(crate) since_ms: i64,
    pub(crate) before_ms: i64,
    pub(crate) before_key: &'a str,
    pub(crate) limit: i64,
    pub(crate) number: Option<&'a str>,
}

/// `$1` is the account, `$2` the start, `$3` and `$4` the position to continue from, `$5` the maximum number of rows. The
/// same in both databases.
macro_rules! walk {
    ($which:literal) => {
        concat!(
            "SELECT ",
            webhook_columns!(),
            " FROM events WHERE ",
            $which,
            " AND account_sid = $1 AND received_at_ms >= $2 AND received_at_ms <= $3 \
             AND (received_at_ms < $3 OR dedupe_key < $4) \
             ORDER BY received_at_ms DESC, dedupe_key DESC LIMIT $5"
        )
    };
}

/// Walk over the webhooks of an account.
pub(crate) const WALK: &str = walk!("received_at_ms IS NOT NULL");

/// Walk over the webhooks of a number `$6`, theirs or ours.
pub(crate) const WALK_NUMBER: &str = concat!(
    "SELECT * FROM (SELECT * FROM (",
    walk!("theirs = $6"),
    ") AS of_theirs UNION ALL SELECT * FROM (",
    walk!("ours = $6 AND (theirs IS NULL OR theirs <> $6)"),
    ") AS of_ours) AS both_ends ORDER BY received_ms DESC, dedupe_key DESC LIMIT $5"
);

/// Range of dedupe keys, from the first to the last.
#[derive(Debug, Serialize)]
pub(crate) struct Range {
    pub(crate) first: String,
    pub(crate) last: String,
}

impl Range {
    pub(super) fn just(key: &str) -> Range {
        Range { first: key.to_owned(), last: key.to_owned() }
    }

    /// Returns the keys of the later steps of a message.
    pub(crate) fn of_steps(account_sid: &str, message_sid: &str) -> Range {
        let inbound = format!("inbound:{account_sid}:{message_sid}");
        Range { first: format!("{inbound}:"), last: format!("{inbound};") }
    }

    /// Returns all possible keys of a message, except for its later steps (`Identity::dedupe_key`). `;` comes right after
    /// `:`.
    pub(crate) fn of(account_sid: &str, message_sid: &str) -> [Range; 2] {
        let inbound = format!("inbound:{account_sid}:{message_sid}");
        let status = format!("status:{account_sid}:{message_sid}");
        [
            Range { first: inbound.clone(), last: inbound },
            Range { first: format!("{status}:"), last: format!("{status};") },
        ]
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct WebhookRow {
    dedupe_key: String,
    class: String,
    account_sid: String,
    message_sid: String,
    status: Option<String>,
    error_code: Option<String>,
    route: Option<String>,
    form: Option<String>,
    channel: Option<String>,
    theirs: Option<String>,
    ours: Option<String>,
    received_ms: i64,
    attempts: i64,
    outcome: Option<String>,
    settled_at_ms: Option<i64>,
    redacted_at_ms: Option<i64>,
}

impl WebhookRow {
    pub(super) fn read(self) -> RecordedWebhook {
        let is_status = self.class != "inbound";
        let word = self.status.as_deref().unwrap_or_default();
        let is_from_them = !is_status
            || is_of_inbound(word, self.error_code.as_deref())
            || self.theirs.as_deref().is_some_and(|theirs| {
                self.form.as_deref().is_some_and(|form| webhook::is_from(form, theirs))
            });
        let (direction, default) = match (is_from_them, is_status) {
            (true, false) => (Direction::Inbound, "received"),
            (true, true) => (Direction::Inbound, "unknown"),
            (false, _) => (Direction::Outbound, "unknown"),
        };
        let theirs = self.channel.zip(self.theirs);
        RecordedWebhook {
            key: self.dedupe_key,
            direction,
            is_status,
            account_sid: self.account_sid,
            message_sid: self.message_sid,
            status: self.status.unwrap_or_else(|| default.to_owned()),
            error_code: self.error_code,
            route: self.route,
            form: self.form,
            theirs: theirs.map(|(channel, number)| Address { channel, number }),
            ours: self.ours.filter(|ours| !ours.is_empty()),
            received_ms: self.received_ms,
            attempts: self.attempts,
            outcome: self.outcome,
            settled_ms: self.settled_at_ms,
            redacted_ms: self.redacted_at_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::{
        message_history::{MessageHistory, RECORDED, Search, WINDOWS},
        sqlite,
    };

    /// A server continues a query on any free thread, so its future must be `Send`.
    #[expect(dead_code, reason = "it only has to compile")]
    fn questions_may_change_threads(histories: &MessageHistory, search: &Search) {
        fn may_change_threads(_: impl Send) {}
        may_change_threads(histories.message("AC1", "SM1"));
        may_change_threads(histories.messages(search));
        may_change_threads(histories.events(search));
    }

    #[tokio::test]
    async fn sqlite_finds_everything_by_an_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        for (statement, index) in [
            (WALK, "events_account (account_sid=? AND received_at_ms>? AND received_at_ms<?)"),
            (WALK_NUMBER, "events_theirs (theirs=? AND received_at_ms>? AND received_at_ms<?)"),
            (WALK_NUMBER, "events_ours (ours=? AND received_at_ms>? AND received_at_ms<?)"),
            (WINDOWS, "USING COVERING INDEX events_pair (theirs=? AND ours>?)"),
            (sqlite::STATEMENTS.histories, "(dedupe_key>? AND dedupe_key<?)"),
            (RECORDED, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
            (
                sqlite::STATEMENTS.last_inbound,
                "events_pair (theirs=? AND ours=? AND account_sid=? AND channel=?)",
            ),
        ] {
            let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(plan).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = plan.into_iter().map(|(.., detail)| detail).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{index}: {plan:#?}");
            assert!(!plan.iter().any(|step| step.contains("SCAN events")), "{plan:#?}");
        }
    }
}
