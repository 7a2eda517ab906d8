//! Retention: redaction and deletion in the ledger. It runs in small transactions that can be interrupted at any time; each
//! one records its progress. Rows are found by the indexes that reads use; no row carries a mark that it is due. The domain
//! decides when something is due.

pub(crate) mod notifications;
mod statements;

use std::collections::BTreeMap;
use twilio_edge_domain::sweep_counts::SweepCounts;

use serde::Serialize;
use sqlx::FromRow;

use self::statements::{
    ACCOUNTS, DELETE_AUDIT, DELETE_CLAIM_ENDS, DELETE_DELIVERIES, DELETE_OLD, DELETE_UNRECEIVED,
    FIRST_AFTER, PROGRESS,
};
pub(crate) use self::statements::{OF_ACCOUNT, forward, found};
use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
    idempotency::DELETE_KEYS,
    operational_events::DELETE_DELIVERED,
    refused_requests::{DELETE_GROUPS, DELETE_REQUESTS},
    verification_starts::DELETE_ENDED,
};
use twilio_edge_domain::{
    message::NumberQuery,
    part::{Part, Parts},
    redaction::{HashKey, RedactionPlan},
    retention::DueRedaction,
};
use twilio_edge_platform::config;

/// Age in milliseconds from which a written row counts as late. Except for parts that are redacted before the write, no
/// retention period is below an hour, so a younger row is in time.
const LATE_MS: i64 = 1_800_000;

/// Number of small rows to delete at a time.
const SMALL: i64 = 1000;

/// Webhook with the columns that redaction uses.
#[derive(Debug, FromRow)]
pub(super) struct FoundRow {
    pub(super) dedupe_key: String,
    pub(super) at_ms: i64,
    form: Option<String>,
    answered: bool,
    theirs: Option<String>,
    channel: Option<String>,
    redacted: i64,
    /// Time of the last change.
    pub(super) last_ms: i64,
    /// Set while a delivery to a sink or to the archive is open.
    pub(super) owed: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct RedactedRow {
    dedupe_key: String,
    form: Option<String>,
    no_answer: bool,
    no_address: bool,
    redacted: i64,
    now_ms: i64,
}

#[derive(Debug, Clone, Serialize, FromRow)]
struct ProgressRow {
    part: String,
    through_ms: i64,
    through_key: String,
}

#[derive(Debug, Serialize)]
struct AccountProgress<'a> {
    account_sid: &'a str,
    #[serde(flatten)]
    place: ProgressRow,
}

#[derive(Debug, Serialize)]
struct RewindRow<'a> {
    account_sid: &'a str,
    at_ms: i64,
}

/// Redacts and deletes rows of one ledger.
#[derive(Debug, Clone)]
pub struct Sweeper {
    pub(super) database: Database,
    /// Copies of webhooks younger than this, in milliseconds, may still arrive.
    pub(super) result_ms: i64,
}

impl Sweeper {
    pub(super) fn of(database: Database, result_ms: i64) -> Sweeper {
        Sweeper { database, result_ms }
    }

    /// Connects for a command, beside a sidecar that may have the database open.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(
        settings: &config::Database,
        leases: &config::Leases,
    ) -> Result<Sweeper, StoreError> {
        let database = Database::open_beside(settings).await?;
        let result_ms = i64::from(leases.result_ttl_s).saturating_mul(1000);
        Ok(Sweeper::of(database, result_ms))
    }

    /// Closes the connections. Only for an instance from [`Sweeper::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Returns all accounts with webhooks.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn accounts(&self) -> Result<Vec<String>, StoreError> {
        let found: Vec<(String,)> = self.database.read_bound(ACCOUNTS, &[]).await?;
        Ok(found.into_iter().map(|(account_sid,)| account_sid).collect())
    }

    /// Redacts the due parts of the next `most` rows of an account. Does nothing while another sidecar redacts them.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn redact(
        &self,
        account_sid: &str,
        due: &DueRedaction,
        key: Option<&HashKey>,
        most: u32,
        now_ms: i64,
    ) -> Result<SweepCounts, StoreError> {
        self.database
            .within_timeout(async {
                let statements = &self.database.statements().retention;
                let mut tx = self.database.begin(Durability::Process).await?;
                let parts: Vec<AccountProgress<'_>> = due
                    .plan
                    .parts()
                    .map(|part| AccountProgress { account_sid, place: ProgressRow::start(part) })
                    .collect();
                tx.execute(statements.begin_progress, &parts).await?;
                let places: Vec<ProgressRow> = tx.fetch(statements.lock_progress, &parts).await?;
                if places.len() < parts.len() {
                    return Ok(SweepCounts::default());
                }
                // Parts with different progress are redacted again from the earliest position.
                let from = places.iter().map(ProgressRow::order).min().unwrap_or((0, ""));
                let binds = [
                    Bind::Text(account_sid),
                    Bind::Whole(from.0),
                    Bind::Text(from.1),
                    Bind::Whole(due.until_ms),
                    Bind::Whole(most.into()),
                ];
                let found: Vec<FoundRow> = tx.fetch_bound(OF_ACCOUNT, &binds).await?;
                let more = found.len() >= usize::try_from(most).unwrap_or(usize::MAX);
                let through = match found.last() {
                    Some(last) if more => (last.at_ms, last.dedupe_key.clone()),
                    _ => (due.until_ms, String::new()),
                };
                let mut swept = SweepCounts { found: found.len(), more, ..SweepCounts::default() };
                // A row with an open delivery stays complete. The end of that delivery moves the progress back to the row.
                let found = found.into_iter().filter(|row| !row.owed).collect();
                let rows = self.plan(found, &due.plan, key, now_ms, &mut swept);
                tx.execute(statements.redact_events, &rows).await?;
                let ahead = |place: &ProgressRow| {
                    (place.through_ms, &place.through_key) < (through.0, &through.1)
                };
                let places = places.into_iter().filter(ahead).map(|place| AccountProgress {
                    account_sid,
                    place: ProgressRow {
                        through_ms: through.0,
                        through_key: through.1.clone(),
                        ..place
                    },
                });
                tx.execute(statements.keep_progress, &places.collect::<Vec<_>>()).await?;
                tx.commit().await?;
                Ok(swept)
            })
            .await
    }

    /// Deletes up to `most` rows of an account that have not changed since `until_ms`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn delete(
        &self,
        account_sid: &str,
        until_ms: i64,
        most: u32,
    ) -> Result<SweepCounts, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let binds =
                    [Bind::Text(account_sid), Bind::Whole(until_ms), Bind::Whole(most.into())];
                let old = tx.execute_bound(DELETE_OLD, &binds).await?;
                let unheard = tx.execute_bound(DELETE_UNRECEIVED, &binds).await?;
                tx.commit().await?;
                let more = old.max(unheard) >= u64::from(most);
                let deleted = usize::try_from(old + unheard).unwrap_or(usize::MAX);
                Ok(SweepCounts { deleted, more, ..SweepCounts::default() })
            })
            .await
    }

    /// Returns the arrival time of the oldest row that may still have this part; `None` without such a row.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn oldest(&self, account_sid: &str, part: Part) -> Result<Option<i64>, StoreError> {
        self.database
            .within_timeout(async {
                let binds = [Bind::Text(account_sid), Bind::Text(part.as_str())];
                let place: Vec<ProgressRow> = self.database.read_bound(PROGRESS, &binds).await?;
                let place = place.into_iter().next().unwrap_or_else(|| ProgressRow::start(part));
                let binds = [
                    Bind::Text(account_sid),
                    Bind::Whole(place.through_ms),
                    Bind::Text(&place.through_key),
                ];
                let first: Vec<(i64,)> = self.database.read_bound(FIRST_AFTER, &binds).await?;
                Ok(first.first().map(|(at_ms,)| *at_ms))
            })
            .await
    }

    /// Deletes a bounded number of each: ends of claims and deliveries that are no longer needed, with their operational
    /// events, expired idempotency keys, ended windows of verifications, audit entries until `audit_until_ms`, and refused
    /// requests until `refused_until_ms`. Returns the number of deleted rows.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn delete_expired(
        &self,
        audit_until_ms: Option<i64>,
        refused_until_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let binds = [Bind::Whole(now_ms), Bind::Whole(SMALL)];
                let mut forgotten = tx.execute_bound(DELETE_CLAIM_ENDS, &binds).await?;
                forgotten += tx.execute_bound(DELETE_KEYS, &binds).await?;
                forgotten += tx.execute_bound(DELETE_ENDED, &binds).await?;
                let until_ms = now_ms.saturating_sub(self.result_ms);
                let binds = [Bind::Whole(until_ms), Bind::Whole(SMALL)];
                forgotten += tx.execute_bound(DELETE_DELIVERED, &binds).await?;
                forgotten += tx.execute_bound(DELETE_DELIVERIES, &binds).await?;
                if let Some(until_ms) = audit_until_ms {
                    let binds = [Bind::Whole(until_ms), Bind::Whole(SMALL)];
                    forgotten += tx.execute_bound(DELETE_AUDIT, &binds).await?;
                }
                if let Some(until_ms) = refused_until_ms {
                    let binds = [Bind::Whole(until_ms), Bind::Whole(SMALL)];
                    forgotten += tx.execute_bound(DELETE_REQUESTS, &binds).await?;
                    forgotten += tx.execute_bound(DELETE_GROUPS, &binds).await?;
                }
                tx.commit().await?;
                Ok(forgotten)
            })
            .await
    }

    /// Returns the new content of each row that is redacted, in key order.
    pub(super) fn plan(
        &self,
        found: Vec<FoundRow>,
        plan: &RedactionPlan,
        key: Option<&HashKey>,
        now_ms: i64,
        swept: &mut SweepCounts,
    ) -> Vec<RedactedRow> {
        let mut rows = Vec::new();
        for row in found {
            let redacted = row.form.as_deref().and_then(|form| plan.redact(form, key));
            let no_answer = row.answered && plan.means(Part::Answer).is_some();
            let no_address = row.theirs.is_some() && plan.means(Part::Addresses).is_some();
            let mut parts = redacted.as_ref().map(|redacted| redacted.parts).unwrap_or_default();
            if no_answer {
                parts.add(Part::Answer);
            }
            if no_address {
                parts.add(Part::Addresses);
            }
            if parts == Parts::default() {
                continue;
            }
            swept.count(parts);
            rows.push(RedactedRow {
                dedupe_key: row.dedupe_key,
                form: redacted.map(|redacted| redacted.form),
                no_answer,
                no_address,
                redacted: parts.with(Parts(row.redacted)).0,
                now_ms,
            });
        }
        rows.sort_unstable_by(|a, b| a.dedupe_key.cmp(&b.dedupe_key));
        rows
    }
}

/// Returns for each account the earliest arrival time of rows that change late, which the progress may have passed.
pub(super) fn late<'a>(
    rows: impl Iterator<Item = (&'a str, Option<i64>)>,
    now_ms: i64,
) -> BTreeMap<&'a str, i64> {
    let mut late = BTreeMap::new();
    for (account_sid, received_at_ms) in rows {
        if let Some(at_ms) = received_at_ms.filter(|at_ms| *at_ms < now_ms - LATE_MS) {
            let earliest = late.entry(account_sid).or_insert(at_ms);
            *earliest = at_ms.min(*earliest);
        }
    }
    late
}

/// Moves the progress of retention back to these late rows.
pub(super) async fn rewind(
    tx: &mut Transaction,
    late: BTreeMap<&str, i64>,
) -> Result<(), StoreError> {
    if late.is_empty() {
        return Ok(());
    }
    let late: Vec<RewindRow<'_>> =
        late.into_iter().map(|(account_sid, at_ms)| RewindRow { account_sid, at_ms }).collect();
    tx.execute(tx.statements().retention.rewind, &late).await
}

impl FoundRow {
    /// Returns whether the webhook is about this contact.
    pub(super) fn is_of(&self, number: &NumberQuery) -> bool {
        self.theirs.as_ref() == Some(&number.number)
            && (number.channel.is_none() || self.channel == number.channel)
    }
}

impl ProgressRow {
    fn start(part: Part) -> ProgressRow {
        ProgressRow { part: part.as_str().to_owned(), through_ms: 0, through_key: String::new() }
    }

    fn order(&self) -> (i64, &str) {
        (self.through_ms, &self.through_key)
    }
}

#[cfg(test)]
mod tests;
