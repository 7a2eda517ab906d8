//! Retention: redaction and deletion in the ledger. It runs in small transactions that can be interrupted at any time; each
//! one records its progress. Rows are found by the indexes that reads use; no row carries a mark that it is due. The domain
//! decides when something is due.

use std::{collections::BTreeMap, future::Future, time::Duration};
use twilio_edge_domain::sweep_counts::SweepCounts;

use serde::Serialize;
use sqlx::FromRow;

use super::idempotency::FORGET_KEYS;
use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
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

macro_rules! found {
    ($rest:literal) => {
        concat!(
            "SELECT dedupe_key, coalesce(received_at_ms, settled_at_ms, 0) AS at_ms, form, \
             answer IS NOT NULL AS answered, theirs, channel, \
             coalesce(redacted, 0) AS redacted, \
             coalesce(held_until_ms, settled_at_ms, received_at_ms, 0) AS last_ms, \
             EXISTS (SELECT 1 FROM deliveries WHERE deliveries.dedupe_key = events.dedupe_key \
             AND state IN ('waiting', 'dead')) OR EXISTS (SELECT 1 FROM archive_queue \
             WHERE archive_queue.dedupe_key = events.dedupe_key) AS owed FROM events WHERE ",
            $rest
        )
    };
}

/// `$1` is the account, `$2` and `$3` the position to continue from, `$4` the end, `$5` the maximum number of rows.
macro_rules! forward {
    ($which:literal) => {
        concat!(
            found!($which),
            "account_sid = $1 AND received_at_ms >= $2 AND (received_at_ms > $2 OR dedupe_key > $3) \
             AND received_at_ms <= $4 ORDER BY received_at_ms, dedupe_key LIMIT $5"
        )
    };
}
pub(super) use {forward, found};

pub(super) const OF_ACCOUNT: &str = forward!("");

/// Returns each account once. The query jumps from account to account in the index instead of scanning all rows.
pub(super) const ACCOUNTS: &str = "
    WITH RECURSIVE accounts(account_sid) AS (
        SELECT min(account_sid) FROM events WHERE received_at_ms IS NOT NULL
        UNION ALL
        SELECT (SELECT min(account_sid) FROM events
            WHERE events.account_sid > accounts.account_sid AND received_at_ms IS NOT NULL)
        FROM accounts WHERE accounts.account_sid IS NOT NULL)
    SELECT account_sid FROM accounts WHERE account_sid IS NOT NULL";

/// Returns the first row after a position: `$1` is the account, `$2` and `$3` the position.
pub(super) const FIRST_AFTER: &str = "
    SELECT received_at_ms FROM events
    WHERE account_sid = $1 AND received_at_ms >= $2 AND (received_at_ms > $2 OR dedupe_key > $3)
    ORDER BY received_at_ms, dedupe_key LIMIT 1";

const PROGRESS: &str =
    "SELECT part, through_ms, through_key FROM retention WHERE account_sid = $1 AND part = $2";

/// Deletes rows without later changes and open deliveries, by time of arrival. `$1` is the account, `$2` the end, `$3` the
/// maximum number of rows.
pub(super) const DELETE_OLD: &str = "
    DELETE FROM events WHERE dedupe_key IN (SELECT dedupe_key FROM events
        WHERE account_sid = $1 AND received_at_ms <= $2
            AND coalesce(held_until_ms, settled_at_ms, received_at_ms) <= $2
            AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.dedupe_key = events.dedupe_key
                AND state IN ('waiting', 'dead'))
            AND NOT EXISTS (SELECT 1 FROM archive_queue WHERE archive_queue.dedupe_key = events.dedupe_key)
        ORDER BY received_at_ms LIMIT $3)";

pub(super) const DELETE_UNHEARD: &str = "
    DELETE FROM events WHERE dedupe_key IN (SELECT dedupe_key FROM events
        WHERE received_at_ms IS NULL AND settled_at_ms <= $2 AND account_sid = $1
        ORDER BY settled_at_ms LIMIT $3)";

/// Audit entries are in order of time: `$1` is the end, `$2` the maximum number of rows.
pub(super) const DELETE_AUDIT: &str = "
    DELETE FROM audit WHERE at_ms <= $1 AND id IN (SELECT id FROM audit ORDER BY id LIMIT $2)";

/// `$1` is now, `$2` the maximum number of rows.
pub(super) const FORGET_ENDINGS: &str = "
    DELETE FROM endings WHERE (dedupe_key, claim_id) IN
        (SELECT dedupe_key, claim_id FROM endings WHERE forget_at_ms <= $1 LIMIT $2)";

/// `$1` is the end, `$2` the maximum number of rows. Waiting deliveries and dead letters are never deleted.
pub(super) const FORGET_DELIVERIES: &str = "
    DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries
        WHERE state IN ('done', 'discarded') AND ended_at_ms <= $1 LIMIT $2)";

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
struct Place {
    part: String,
    through_ms: i64,
    through_key: String,
}

#[derive(Debug, Serialize)]
struct Progress<'a> {
    account_sid: &'a str,
    #[serde(flatten)]
    place: Place,
}

#[derive(Debug, Serialize)]
struct Rewound<'a> {
    account_sid: &'a str,
    at_ms: i64,
}

/// Redacts and deletes rows of one ledger.
#[derive(Debug, Clone)]
pub struct Sweeper {
    pub(super) database: Database,
    timeout: Duration,
    /// Copies of webhooks younger than this, in milliseconds, may still arrive.
    pub(super) result_ms: i64,
}

impl Sweeper {
    pub(super) fn of(database: Database, timeout: Duration, result_ms: i64) -> Sweeper {
        Sweeper { database, timeout, result_ms }
    }

    /// Connects for a command, beside a sidecar that may have the database open.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(
        settings: &config::Database,
        leases: &config::Leases,
    ) -> Result<Sweeper, StoreError> {
        // A command is not urgent: it waits for the sidecar's writes instead of failing.
        let timeout_ms = settings.timeout_ms.max(settings.connect_timeout_ms);
        let patient = config::Database { timeout_ms, ..settings.clone() };
        let database = Database::open_beside(&patient).await?;
        let result_ms = i64::from(leases.result_ttl_s).saturating_mul(1000);
        Ok(Sweeper::of(database, Duration::from_millis(timeout_ms), result_ms))
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
        self.bounded(async {
            let found: Vec<(String,)> = self.database.read_bound(ACCOUNTS, &[]).await?;
            Ok(found.into_iter().map(|(account_sid,)| account_sid).collect())
        })
        .await
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
        self.bounded(async {
            let statements = &self.database.statements().retention;
            let mut tx = self.database.begin(Durability::Process).await?;
            let parts: Vec<Progress<'_>> = due
                .plan
                .parts()
                .map(|part| Progress { account_sid, place: Place::start(part) })
                .collect();
            tx.execute(statements.begin_progress, &parts).await?;
            let places: Vec<Place> = tx.fetch(statements.lock_progress, &parts).await?;
            if places.len() < parts.len() {
                return Ok(SweepCounts::default());
            }
            // Parts with different progress are redacted again from the earliest position.
            let from = places.iter().map(Place::order).min().unwrap_or((0, ""));
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
            let ahead =
                |place: &Place| (place.through_ms, &place.through_key) < (through.0, &through.1);
            let places = places.into_iter().filter(ahead).map(|place| Progress {
                account_sid,
                place: Place { through_ms: through.0, through_key: through.1.clone(), ..place },
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
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let binds = [Bind::Text(account_sid), Bind::Whole(until_ms), Bind::Whole(most.into())];
            let old = tx.execute_bound(DELETE_OLD, &binds).await?;
            let unheard = tx.execute_bound(DELETE_UNHEARD, &binds).await?;
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
        self.bounded(async {
            let binds = [Bind::Text(account_sid), Bind::Text(part.as_str())];
            let place: Vec<Place> = self.database.read_bound(PROGRESS, &binds).await?;
            let place = place.into_iter().next().unwrap_or_else(|| Place::start(part));
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

    /// Deletes a bounded number of each: ends of claims and deliveries that are no longer needed, expired idempotency keys,
    /// and audit entries until `audit_until_ms`. Returns the number of deleted rows.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn forget(
        &self,
        audit_until_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let binds = [Bind::Whole(now_ms), Bind::Whole(SMALL)];
            let mut forgotten = tx.execute_bound(FORGET_ENDINGS, &binds).await?;
            forgotten += tx.execute_bound(FORGET_KEYS, &binds).await?;
            let until_ms = now_ms.saturating_sub(self.result_ms);
            let binds = [Bind::Whole(until_ms), Bind::Whole(SMALL)];
            forgotten += tx.execute_bound(FORGET_DELIVERIES, &binds).await?;
            if let Some(until_ms) = audit_until_ms {
                let binds = [Bind::Whole(until_ms), Bind::Whole(SMALL)];
                forgotten += tx.execute_bound(DELETE_AUDIT, &binds).await?;
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

    pub(super) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.timeout))),
        }
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
    statement: &'static str,
    late: BTreeMap<&str, i64>,
) -> Result<(), StoreError> {
    if late.is_empty() {
        return Ok(());
    }
    let late: Vec<Rewound<'_>> =
        late.into_iter().map(|(account_sid, at_ms)| Rewound { account_sid, at_ms }).collect();
    tx.execute(statement, &late).await
}

impl FoundRow {
    /// Returns whether the webhook is about this contact.
    pub(super) fn is_of(&self, number: &NumberQuery) -> bool {
        self.theirs.as_ref() == Some(&number.number)
            && (number.channel.is_none() || self.channel == number.channel)
    }
}

impl Place {
    fn start(part: Part) -> Place {
        Place { part: part.as_str().to_owned(), through_ms: 0, through_key: String::new() }
    }

    fn order(&self) -> (i64, &str) {
        (self.through_ms, &self.through_key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sqlx::{Connection, SqliteConnection};
    use twilio_edge_contract::{Claim, Class, Identity};

    use super::*;
    use crate::{
        archiving,
        erasure::{OF_ADDRESS, OF_KEYS, OF_NUMBER},
        event::{Event, EventRow},
        ledger::Ledger,
        sqlite,
    };
    use twilio_edge_domain::{
        lease::Periods, optout::Lexicon, policy::Policies, retention::Retention, webhook::Webhook,
    };
    use twilio_edge_platform::{clock::now_ms, tasks::Supervisor};

    const ACCOUNT: &str = "AC1";
    const DAY_MS: i64 = 86_400_000;

    #[tokio::test]
    async fn sqlite_finds_everything_by_an_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        let own = &sqlite::STATEMENTS.retention;
        for (statement, index) in [
            (
                OF_ACCOUNT,
                "events_account (account_sid=? AND received_at_ms>? AND received_at_ms<?)",
            ),
            (OF_NUMBER, "events_theirs (theirs=? AND received_at_ms>? AND received_at_ms<?)"),
            (OF_ADDRESS, "events_theirs (theirs=? AND received_at_ms>? AND received_at_ms<?)"),
            (OF_KEYS, "(dedupe_key>? AND dedupe_key<?)"),
            (ACCOUNTS, "events_account (account_sid>?)"),
            (FIRST_AFTER, "events_account (account_sid=? AND received_at_ms>?)"),
            (DELETE_OLD, "events_account (account_sid=? AND received_at_ms<?)"),
            (DELETE_UNHEARD, "events_received (received_at_ms=?)"),
            (FORGET_ENDINGS, "endings_forget (forget_at_ms<?)"),
            (FORGET_KEYS, "idempotency_keys_expires (expires_at_ms<?)"),
            (FORGET_DELIVERIES, "deliveries_done (ended_at_ms<?)"),
            (own.redact_events, "sqlite_autoindex_events_1 (dedupe_key=?)"),
            (own.delete_events, "sqlite_autoindex_events_1 (dedupe_key=?)"),
            (own.unqueue, "(dedupe_key=?)"),
            (archiving::OLDEST, "archive_queue_account (account_sid=?)"),
            (archiving::NEXT, "archive_queue_account (account_sid=?)"),
            (archiving::LINES, "archive_queue_batch (batch_id=?)"),
        ] {
            let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(plan).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = plan.into_iter().map(|(.., detail)| detail).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{index}: {plan:#?}");
            assert!(!plan.iter().any(|step| step == "SCAN events"), "{plan:#?}");
        }
    }

    /// Returns a row received so many days ago and written now.
    fn row(sid: &str, days: i64) -> EventRow {
        let identity = Identity {
            class: Class::Inbound,
            account_sid: ACCOUNT.into(),
            message_sid: sid.into(),
            status: None,
            error_code: None,
        };
        let claim = Claim::new("c1".into(), identity, "/in".into(), "From=%2B1&Body=hi".into());
        let webhook = Webhook::from_claim(claim, &Lexicon::default()).unwrap();
        EventRow::of(Event::came(&webhook, now_ms() - days * DAY_MS, now_ms()))
    }

    #[tokio::test]
    async fn what_is_written_late_is_not_passed_by() {
        let (folder, defaults) =
            (tempfile::tempdir().unwrap(), twilio_edge_platform::config::defaults());
        let database = config::Database {
            url: serde_json::from_value(
                format!("sqlite://{}/l.db", folder.path().display()).into(),
            )
            .unwrap(),
            ..defaults.database
        };
        let periods = Periods { lease_ms: 1000, result_ms: 7 * DAY_MS };
        let tasks = Supervisor::new(Arc::default());
        let policies = Policies::new(defaults.policy);
        let ledger = Ledger::open(&database, periods, policies, &tasks).await.unwrap();
        let sweeper = ledger.sweeper();
        let rules: Retention = defaults.retention;
        let sweep = async || {
            let mut rows = 0;
            for due in rules.due(now_ms()) {
                rows += sweeper.redact(ACCOUNT, &due, None, 10, now_ms()).await.unwrap().rows;
            }
            rows
        };

        ledger.keep_events(&[row("SM1", 31).event()]).await.unwrap();
        assert_eq!(sweep().await, 1);
        assert_eq!(sweep().await, 0);
        assert_eq!(sweeper.oldest(ACCOUNT, Part::Body).await.unwrap(), None);
        ledger.keep_events(&[row("SM2", 40).event(), row("SM3", 1).event()]).await.unwrap();
        assert!(sweeper.oldest(ACCOUNT, Part::Body).await.unwrap() < Some(now_ms() - 39 * DAY_MS));
        assert_eq!(sweep().await, 1, "the one that is due");
        let fresh = sweeper.oldest(ACCOUNT, Part::Body).await.unwrap().unwrap();
        assert!(fresh > now_ms() - 2 * DAY_MS);
    }
}
