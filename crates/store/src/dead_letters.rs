//! Deliveries that were given up, and what a person does about them: look, bring back on the way, discard. Each such change is
//! in the audit, in the same transaction.

use serde::Serialize;
use sqlx::FromRow;

use super::retention::{late, rewind};
use crate::api_keys::AuditEntry;
use crate::{
    database::Durability,
    error::StoreError,
    outbox::{Outbox, PendingDelivery},
};

/// A delivery that was given up. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DeadLetter {
    /// Its number, for people.
    pub seq: i64,
    /// Who did not take it.
    pub sink: String,
    /// What identifies it to the sink.
    pub delivery_id: String,
    /// Of which event.
    pub dedupe_key: String,
    /// Whose.
    pub account_sid: String,
    /// What it was kept in order with.
    pub lane: String,
    /// When it was to be delivered.
    pub recorded_at_ms: i64,
    /// How often it was tried.
    pub tries: i64,
    /// Why the last try failed.
    pub reason: Option<String>,
    /// When it was given up.
    pub ended_at_ms: i64,
}

/// Which to list: the latest first, those before one that was seen already.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetters<'a> {
    /// Of this account only.
    pub account_sid: Option<&'a str>,
    /// Of this sink only.
    pub sink: Option<&'a str>,
    /// Given up before, or then and with a smaller number.
    pub before_ms: i64,
    /// See `before_ms`.
    pub before_seq: i64,
    /// How many.
    pub most: i64,
}

/// One delivery that was given up, with what it holds, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DeadLetterDetail {
    /// `dead`, or what became of it since: `waiting`, `done`, `discarded`.
    pub state: String,
    /// Who did not take it.
    pub sink: String,
    /// Why the last try failed.
    pub reason: Option<String>,
    /// When it was given up, taken or discarded.
    pub ended_at_ms: Option<i64>,
    /// With its event.
    #[sqlx(flatten)]
    pub due: PendingDelivery,
}

/// Which dead letters somebody decides about.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// Of these numbers.
    pub seqs: &'a [i64],
    /// Of this account only.
    pub account_sid: Option<&'a str>,
    /// Of this sink only.
    pub sink: Option<&'a str>,
}

/// What is to become of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is tried again, with all its patience, before what waits of the same person.
    Retried,
    /// It is never delivered.
    Discarded,
}

impl Fate {
    /// What the audit calls it.
    pub fn action(self) -> &'static str {
        match self {
            Fate::Retried => "delivery.retried",
            Fate::Discarded => "delivery.discarded",
        }
    }
}

/// How many deliveries of a sink wait, or were given up.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Standing {
    /// Of which sink.
    pub sink: String,
    /// `waiting` or `dead`.
    pub state: String,
    /// How many.
    pub count: i64,
    /// Since when the oldest of them.
    pub oldest_ms: i64,
}

#[derive(Serialize)]
struct ChosenRow<'a> {
    seq: i64,
    account_sid: Option<&'a str>,
    sink: Option<&'a str>,
    now_ms: i64,
}

#[derive(Serialize)]
struct SinkAsked<'a> {
    sink: &'a str,
}

/// When the oldest dead letter of a sink was given up.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct OldestDead {
    /// Of which sink.
    pub sink: String,
    /// In milliseconds since 1970; none if it has none.
    pub ended_at_ms: Option<i64>,
}

/// A dead letter that was decided about.
#[derive(Debug, Serialize, FromRow)]
pub struct Resolved {
    /// Its number.
    pub seq: i64,
    /// Whose it is.
    pub account_sid: String,
    sink: String,
    lane: String,
    recorded_at_ms: i64,
    received_at_ms: Option<i64>,
}

impl Outbox {
    /// A page of dead letters, the latest first.
    pub async fn dead_letters(&self, page: DeadLetters<'_>) -> Result<Vec<DeadLetter>, StoreError> {
        self.bounded(self.database.read(self.statements().dead, &[page])).await
    }

    /// How much waits and how much was given up, by sink.
    pub async fn standings(&self) -> Result<Vec<Standing>, StoreError> {
        self.bounded(self.database.read(self.statements().standing, &[0])).await
    }

    /// One of them, if it is of this account, whatever became of it since.
    pub async fn letter(
        &self,
        seq: i64,
        account_sid: Option<&str>,
    ) -> Result<Option<DeadLetterDetail>, StoreError> {
        let asked = [ChosenRow { seq, account_sid, sink: None, now_ms: 0 }];
        let found = self.bounded(self.database.read(self.statements().letter, &asked)).await?;
        Ok(found.into_iter().next())
    }

    /// Since when each of these sinks has something that was given up.
    pub async fn oldest_dead(&self, sinks: &[&str]) -> Result<Vec<OldestDead>, StoreError> {
        let asked: Vec<SinkAsked<'_>> = sinks.iter().map(|sink| SinkAsked { sink }).collect();
        self.bounded(self.database.read(self.statements().oldest_dead, &asked)).await
    }

    /// Decides about those that still are dead letters, and writes down what `entries` says of them; how many they were.
    pub async fn decide(
        &self,
        fate: Fate,
        chosen: Chosen<'_>,
        now_ms: i64,
        entries: impl FnOnce(&[Resolved]) -> Vec<AuditEntry>,
    ) -> Result<usize, StoreError> {
        let Chosen { seqs, account_sid, sink } = chosen;
        let row = |seq: &i64| ChosenRow { seq: *seq, account_sid, sink, now_ms };
        let mut chosen: Vec<ChosenRow<'_>> = seqs.iter().map(row).collect();
        chosen.sort_unstable_by_key(|row| row.seq);
        chosen.dedup_by_key(|row| row.seq);
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            let changed: Vec<Resolved> = match fate {
                Fate::Retried => tx.fetch(self.statements().bring_back, &chosen).await?,
                Fate::Discarded => tx.fetch(self.statements().discard, &chosen).await?,
            };
            match fate {
                Fate::Retried => tx.execute(self.statements().open_lanes, &changed).await?,
                Fate::Discarded => {
                    let rows = changed.iter().map(|c| (c.account_sid.as_str(), c.received_at_ms));
                    let statement = self.database.statements().retention.rewind;
                    rewind(&mut tx, statement, late(rows, now_ms)).await?;
                }
            }
            let entries = entries(&changed);
            tx.execute(self.database.statements().register.add_entry, &entries).await?;
            tx.commit().await?;
            Ok(changed.len())
        })
        .await
    }
}
