//! Dead letters: deliveries that were given up, and an operator's actions on them: list, retry, discard. Each change is in
//! the audit log, in the same transaction.

use serde::Serialize;
use sqlx::FromRow;

use super::retention::{late, rewind};
use crate::audit_log::{self, AuditEntry};
use crate::{
    database::Durability,
    error::StoreError,
    outbox::{Outbox, PendingDelivery},
};

/// Delivery that was given up. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DeadLetter {
    /// Number of the dead letter, for people.
    pub seq: i64,
    /// Name of the sink that did not accept it.
    pub sink: String,
    /// Delivery id, which identifies it to the sink.
    pub delivery_id: String,
    /// Dedupe key of its event.
    pub dedupe_key: String,
    /// Account SID of the tenant.
    pub account_sid: String,
    /// Ordering key of its lane.
    pub lane: String,
    /// Time at which the delivery was recorded.
    pub recorded_at_ms: i64,
    /// Number of attempts.
    pub tries: i64,
    /// Reason of the last failure.
    pub reason: Option<String>,
    /// Time at which it was given up.
    pub ended_at_ms: i64,
}

/// Filter and position of a page of dead letters, latest first.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetters<'a> {
    /// Returns only dead letters of this account.
    pub account_sid: Option<&'a str>,
    /// Returns only dead letters of this sink.
    pub sink: Option<&'a str>,
    /// Returns only dead letters given up before this time, or at this time with a smaller number than `before_seq`.
    pub before_ms: i64,
    /// See `before_ms`.
    pub before_seq: i64,
    /// Maximum number of dead letters.
    pub most: i64,
}

/// One dead letter with its content and current state.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DeadLetterDetail {
    /// `dead`, or the later state: `waiting`, `done`, `discarded`.
    pub state: String,
    /// Name of the sink that did not accept it.
    pub sink: String,
    /// Reason of the last failure.
    pub reason: Option<String>,
    /// Time at which it was given up, accepted or discarded.
    pub ended_at_ms: Option<i64>,
    /// The delivery with its event.
    #[sqlx(flatten)]
    pub due: PendingDelivery,
}

/// Delivery of one event to one sink, in any state. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DeliveryState {
    /// Number of the delivery, for people.
    pub seq: i64,
    /// Name of the sink.
    pub sink: String,
    /// Delivery id, which identifies it to the sink.
    pub delivery_id: String,
    /// Dedupe key of its event.
    pub dedupe_key: String,
    /// Account SID of the tenant.
    pub account_sid: String,
    /// `waiting`, `done`, `dead` or `discarded`.
    pub state: String,
    /// Time at which it was recorded.
    pub recorded_at_ms: i64,
    /// Number of attempts.
    pub tries: i64,
    /// Reason of the last failure.
    pub reason: Option<String>,
    /// Latest attempts, as [`twilio_edge_domain::delivery_attempt`] stores them.
    pub attempts: String,
    /// Time at which it was given up, accepted or discarded.
    pub ended_at_ms: Option<i64>,
}

/// Selection of dead letters for a decision.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterSelection<'a> {
    /// Numbers of the dead letters.
    pub seqs: &'a [i64],
    /// Selects only dead letters of this account.
    pub account_sid: Option<&'a str>,
    /// Selects only dead letters of this sink.
    pub sink: Option<&'a str>,
}

/// Decision about a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterAction {
    /// It is retried with a fresh retry policy, before the waiting deliveries of the same lane.
    Retry,
    /// It is never delivered.
    Discard,
}

impl DeadLetterAction {
    /// Returns the name of the decision in the audit log.
    pub fn action(self) -> &'static str {
        match self {
            DeadLetterAction::Retry => "delivery.retried",
            DeadLetterAction::Discard => "delivery.discarded",
        }
    }
}

/// Number of deliveries of one sink in one state.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DeliveryCount {
    /// Name of the sink.
    pub sink: String,
    /// `waiting` or `dead`.
    pub state: String,
    /// Number of deliveries.
    pub count: i64,
    /// Time since which the oldest of them is in this state, in milliseconds since 1970.
    pub oldest_ms: i64,
}

#[derive(Serialize)]
struct SelectionRow<'a> {
    seq: i64,
    account_sid: Option<&'a str>,
    sink: Option<&'a str>,
    now_ms: i64,
}

#[derive(Serialize)]
struct EventQuery<'a> {
    dedupe_key: &'a str,
    account_sid: Option<&'a str>,
}

#[derive(Serialize)]
struct SinkQuery<'a> {
    sink: &'a str,
}

/// Time at which the oldest dead letter of a sink was given up.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct OldestDeadLetter {
    /// Name of the sink.
    pub sink: String,
    /// In milliseconds since 1970; `None` if the sink has no dead letter.
    pub ended_at_ms: Option<i64>,
}

/// Dead letter after a decision.
#[derive(Debug, Serialize, FromRow)]
pub struct ResolvedDeadLetter {
    /// Number of the dead letter.
    pub seq: i64,
    /// Account SID of the tenant.
    pub account_sid: String,
    sink: String,
    lane: String,
    recorded_at_ms: i64,
    received_at_ms: Option<i64>,
}

impl Outbox {
    /// Returns a page of dead letters, latest first.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn dead_letters(&self, page: DeadLetters<'_>) -> Result<Vec<DeadLetter>, StoreError> {
        self.database.read(self.statements().dead, &[page]).await
    }

    /// Returns the number of waiting and dead deliveries of each sink.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn delivery_counts(&self) -> Result<Vec<DeliveryCount>, StoreError> {
        self.database.read(self.statements().standing, &[0]).await
    }

    /// Returns one dead letter of this account, in any current state.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn dead_letter(
        &self,
        seq: i64,
        account_sid: Option<&str>,
    ) -> Result<Option<DeadLetterDetail>, StoreError> {
        let query = [SelectionRow { seq, account_sid, sink: None, now_ms: 0 }];
        let found = self.database.read(self.statements().letter, &query).await?;
        Ok(found.into_iter().next())
    }

    /// Returns the deliveries of one event of this account, in the order in which they were recorded.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn deliveries_of_event(
        &self,
        dedupe_key: &str,
        account_sid: Option<&str>,
    ) -> Result<Vec<DeliveryState>, StoreError> {
        self.database
            .read(self.statements().of_event, &[EventQuery { dedupe_key, account_sid }])
            .await
    }

    /// Adds an entry about a sink to the audit log.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                audit_log::add(&mut tx, std::slice::from_ref(entry)).await?;
                tx.commit().await
            })
            .await
    }

    /// Returns for each of these sinks the time of its oldest dead letter.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn oldest_dead_letters(
        &self,
        sinks: &[&str],
    ) -> Result<Vec<OldestDeadLetter>, StoreError> {
        let query: Vec<SinkQuery<'_>> = sinks.iter().map(|sink| SinkQuery { sink }).collect();
        self.database.read(self.statements().oldest_dead, &query).await
    }

    /// Retries or discards the selected deliveries that are still dead letters, and adds `entries` about them to the audit
    /// log. Returns their number.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn resolve_dead_letters(
        &self,
        fate: DeadLetterAction,
        chosen: DeadLetterSelection<'_>,
        now_ms: i64,
        entries: impl FnOnce(&[ResolvedDeadLetter]) -> Vec<AuditEntry>,
    ) -> Result<usize, StoreError> {
        let DeadLetterSelection { seqs, account_sid, sink } = chosen;
        let row = |seq: &i64| SelectionRow { seq: *seq, account_sid, sink, now_ms };
        let mut chosen: Vec<SelectionRow<'_>> = seqs.iter().map(row).collect();
        chosen.sort_unstable_by_key(|row| row.seq);
        chosen.dedup_by_key(|row| row.seq);
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                let changed: Vec<ResolvedDeadLetter> = match fate {
                    DeadLetterAction::Retry => {
                        tx.fetch(self.statements().bring_back, &chosen).await?
                    }
                    DeadLetterAction::Discard => {
                        tx.fetch(self.statements().discard, &chosen).await?
                    }
                };
                match fate {
                    DeadLetterAction::Retry => {
                        tx.execute(self.statements().open_lanes, &changed).await?
                    }
                    DeadLetterAction::Discard => {
                        let rows =
                            changed.iter().map(|c| (c.account_sid.as_str(), c.received_at_ms));
                        rewind(&mut tx, late(rows, now_ms)).await?;
                    }
                }
                let entries = entries(&changed);
                audit_log::add(&mut tx, &entries).await?;
                tx.commit().await?;
                Ok(changed.len())
            })
            .await
    }
}
