//! Queued messages by lane: one priority, account and sender. A query jumps from lane to lane in the index, so its cost
//! depends on the number of lanes and not on the number of queued messages. Attempts begin lane by lane; each is committed,
//! with its own id, before the sidecar calls Twilio. The domain decides the order of the lanes.

use sqlx::FromRow;

use super::{OutboundMessage, OutboundMessages, events::MessageChange, outbound_message_columns};
use crate::{
    database::{Bind, Durability},
    error::StoreError,
    operational_events,
};
use twilio_edge_domain::{
    operational_event::OperationalEventType, sending::fair_scheduler::SenderQueue,
};

/// Maximum number of lanes per query; the next query continues after them.
const MAX_QUEUES: i64 = 2000;

/// SQLite has no LATERAL: the query steps from each lane's first message to that of the next lane.
const QUEUES: &str = "
    WITH RECURSIVE firsts (id, n) AS (
        SELECT (SELECT id FROM outbound_messages WHERE state = 'queued' AND (priority, account_sid, sender) > ($3, $4, $5)
            ORDER BY priority, account_sid, sender, due_at_ms LIMIT 1), 1
        UNION ALL
        SELECT (SELECT id FROM outbound_messages WHERE state = 'queued'
                AND (priority, account_sid, sender) > (this.priority, this.account_sid, this.sender)
            ORDER BY priority, account_sid, sender, due_at_ms LIMIT 1), firsts.n + 1
        FROM firsts CROSS JOIN outbound_messages AS this ON this.id = firsts.id WHERE firsts.n < $6)
    SELECT this.priority, this.account_sid, this.sender, (SELECT count(*) FROM (SELECT 1 FROM outbound_messages WHERE state = 'queued'
            AND priority = this.priority AND account_sid = this.account_sid AND sender = this.sender AND due_at_ms <= $1
        LIMIT $2)) AS waiting
    FROM firsts CROSS JOIN outbound_messages AS this ON this.id = firsts.id";

/// Written so that only the index on lanes is usable. A planner that assumes an average lane would otherwise scan all
/// queued messages to find a lane with few of them.
const QUEUES_LATERAL: &str = "
    WITH RECURSIVE firsts AS (
        (SELECT priority, account_sid, sender, 1::bigint AS n FROM outbound_messages
            WHERE state = 'queued' AND (priority, account_sid, sender) > ($3, $4, $5)
            ORDER BY priority, account_sid, sender LIMIT 1)
        UNION ALL
        SELECT next.priority, next.account_sid, next.sender, this.n + 1 FROM firsts AS this CROSS JOIN LATERAL (
            SELECT priority, account_sid, sender FROM outbound_messages
            WHERE state = 'queued' AND (priority, account_sid, sender) > (this.priority, this.account_sid, this.sender)
            ORDER BY priority, account_sid, sender LIMIT 1) AS next WHERE this.n < $6)
    SELECT this.priority, this.account_sid, this.sender, (SELECT count(*) FROM (SELECT 1 FROM outbound_messages WHERE state = 'queued'
            AND (priority, account_sid, sender, due_at_ms) >= (this.priority, this.account_sid, this.sender, 0)
            AND (priority, account_sid, sender, due_at_ms) <= (this.priority, this.account_sid, this.sender, $1)
        ORDER BY priority, account_sid, sender, due_at_ms LIMIT $2) AS counted) AS waiting
    FROM firsts AS this";

/// MATERIALIZED makes the database choose the rows once, with every plan.
macro_rules! attempt {
    ($lane:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (SELECT id FROM outbound_messages WHERE state = 'queued' AND ", $lane, ")
            UPDATE outbound_messages SET state = 'attempting', attempt_id = $6, due_at_ms = $7, attempts = attempts + 1, changed_at_ms = $5,
                attempted_at_ms = $5
            WHERE id IN (SELECT id FROM due) AND state = 'queued' RETURNING ",
            outbound_message_columns!()
        )
    };
}

const ATTEMPT: &str = attempt!(
    "priority = $1 AND account_sid = $2 AND sender = $3 AND due_at_ms <= $5 ORDER BY due_at_ms LIMIT $4"
);

/// The same for databases with many writers: rows that another transaction has locked are skipped.
const ATTEMPT_UNLOCKED: &str = attempt!(
    "(priority, account_sid, sender, due_at_ms) >= ($1, $2, $3, 0)
        AND (priority, account_sid, sender, due_at_ms) <= ($1, $2, $3, $5)
    ORDER BY priority, account_sid, sender, due_at_ms LIMIT $4 FOR UPDATE SKIP LOCKED"
);

const HAS_LOST: &str =
    "SELECT id FROM outbound_messages WHERE state = 'attempting' AND due_at_ms <= $1 LIMIT 1";

/// Update that ends attempts without a known outcome.
macro_rules! expire {
    ($which:literal) => {
        concat!(
            "UPDATE outbound_messages SET state = 'unknown', code = 'unknown',
                reason = 'the sidecar ended while the message was on its way to Twilio', changed_at_ms = $1,
                lookups = 0, lookup_due_at_ms = $1
            WHERE ",
            $which,
            " RETURNING ",
            outbound_message_columns!()
        )
    };
}

const EXPIRE: &str = expire!("state = 'attempting' AND due_at_ms <= $1");

/// Skips the attempts whose outcome is being written at the moment.
const EXPIRE_UNLOCKED: &str = expire!(
    "id IN (SELECT id FROM outbound_messages WHERE state = 'attempting' AND due_at_ms <= $1 FOR UPDATE SKIP LOCKED)"
);

/// Position of a query in the lanes: it continues after this lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePosition {
    priority: i64,
    account_sid: String,
    sender: String,
}

impl Default for QueuePosition {
    /// Returns the position before the first lane.
    fn default() -> QueuePosition {
        QueuePosition { priority: -1, account_sid: String::new(), sender: String::new() }
    }
}

/// AttemptStart that begin together.
#[derive(Debug, Clone, Copy)]
pub struct AttemptStart<'a> {
    /// Id of the attempts.
    pub id: &'a str,
    /// Start, in milliseconds since 1970.
    pub now_ms: i64,
    /// End of their hold, in milliseconds since 1970.
    pub until_ms: i64,
}

#[derive(Debug, FromRow)]
struct QueueRow {
    priority: i64,
    account_sid: String,
    sender: String,
    waiting: i64,
}

#[derive(Debug, FromRow)]
#[expect(dead_code, reason = "whether there is one is all that is query")]
struct ExpiredRow {
    id: String,
}

impl OutboundMessages {
    /// Returns the lanes with due messages, each counted up to `most`, and the position at which the next query continues.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn due_queues(
        &self,
        behind: &QueuePosition,
        most: usize,
        now_ms: i64,
    ) -> Result<(Vec<SenderQueue>, QueuePosition), StoreError> {
        let statement = self.database.choose(QUEUES, QUEUES_LATERAL);
        let binds = [
            Bind::Whole(now_ms),
            Bind::Whole(i64::try_from(most).unwrap_or(i64::MAX)),
            Bind::Whole(behind.priority),
            Bind::Text(&behind.account_sid),
            Bind::Text(&behind.sender),
            Bind::Whole(MAX_QUEUES),
        ];
        let found: Vec<QueueRow> = self.database.read_bound(statement, &binds).await?;
        let is_cut = i64::try_from(found.len()).unwrap_or(i64::MAX) >= MAX_QUEUES;
        let next = found.last().filter(|_| is_cut).map(|last| QueuePosition {
            priority: last.priority,
            account_sid: last.account_sid.clone(),
            sender: last.sender.clone(),
        });
        let lanes = found.into_iter().map(|found| SenderQueue {
            priority: found.priority,
            account_sid: found.account_sid,
            sender: found.sender,
            waiting: usize::try_from(found.waiting).unwrap_or_default(),
        });
        Ok((lanes.filter(|lane| lane.waiting > 0).collect(), next.unwrap_or_default()))
    }

    /// Begins up to the given number of attempts in each lane, longest due first. The attempts are durable on return; only
    /// then may the caller call Twilio.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn begin_attempts(
        &self,
        queues: &[(&SenderQueue, u32)],
        attempts: AttemptStart<'_>,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let statement = self.database.choose(ATTEMPT, ATTEMPT_UNLOCKED);
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                let mut begun = Vec::new();
                for (lane, most) in queues {
                    let binds = [
                        Bind::Whole(lane.priority),
                        Bind::Text(&lane.account_sid),
                        Bind::Text(&lane.sender),
                        Bind::Whole(i64::from(*most)),
                        Bind::Whole(attempts.now_ms),
                        Bind::Text(attempts.id),
                        Bind::Whole(attempts.until_ms),
                    ];
                    begun.extend(tx.fetch_bound::<OutboundMessage>(statement, &binds).await?);
                }
                tx.commit().await?;
                Ok(begun)
            })
            .await
    }

    /// Marks attempts whose hold has expired as `unknown`. Returns their number.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn expire_attempts(&self, now_ms: i64) -> Result<u64, StoreError> {
        let statement = self.database.choose(EXPIRE, EXPIRE_UNLOCKED);
        let binds = [Bind::Whole(now_ms)];
        // Most calls find nothing; this read saves them the writer lock and a sync.
        let lost: Vec<ExpiredRow> = self.database.read_bound(HAS_LOST, &binds).await?;
        if lost.is_empty() {
            return Ok(0);
        }
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                let expired: Vec<OutboundMessage> = tx.fetch_bound(statement, &binds).await?;
                let event = |message: &OutboundMessage| {
                    let change = MessageChange {
                        state: &message.state,
                        code: &message.code,
                        reason: &message.reason,
                        now_ms,
                        ..MessageChange::default()
                    };
                    self.event(OperationalEventType::MessageUnknown, message, change)
                };
                let events: Vec<_> = expired.iter().filter_map(event).collect();
                operational_events::record(&mut tx, self.database.reporting(), &events).await?;
                tx.commit().await?;
                Ok(u64::try_from(expired.len()).unwrap_or(u64::MAX))
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the plans of SQLite; tests/it/store/query_plans.rs checks those of PostgreSQL.
    #[tokio::test]
    async fn query_skips_from_queue_to_queue() {
        use sqlx::{Connection, SqliteConnection};
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        for statement in [QUEUES, ATTEMPT] {
            let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(plan).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = plan.into_iter().map(|(.., detail)| detail).collect();
            // `this` is the same table; all other scans are bounded.
            let goes_through_all = |step: &String| {
                ["SCAN outbound_messages", "SCAN this"].iter().any(|all| step.starts_with(all))
            };
            assert!(!plan.iter().any(goes_through_all), "{plan:#?}");
            assert!(
                plan.iter().any(|step| step.contains("INDEX outbound_messages_queued")),
                "{plan:#?}"
            );
            assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:#?}");
        }
    }
}
