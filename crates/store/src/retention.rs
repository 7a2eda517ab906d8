//! What is taken out of the ledger, and what is deleted from it: in small transactions that anybody may interrupt, each of
//! which notes how far it got. Rows are found by the indexes that are there for reading; none carries a mark that it
//! waits. When something is due is the domain's business.

use std::{collections::BTreeMap, future::Future, time::Duration};
use twilio_edge_domain::sweep_counts::Swept;

use serde::Serialize;
use sqlx::FromRow;

use super::idempotency::FORGET_KEYS;
use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
};
use twilio_edge_domain::{
    message::Number,
    part::{Part, Parts},
    redaction::{HashKey, Plan},
    retention::Due,
};
use twilio_edge_platform::config;

/// Nothing is kept for less than an hour without being taken out before it is written, so until then a row is in time.
const LATE_MS: i64 = 1_800_000;

/// What is deleted at a time of what is small.
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

/// `$1` account, `$2` and `$3` the place to go on from, `$4` until, `$5` how many.
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

/// Each account once: from one to the next in the index, not through all rows.
pub(super) const ACCOUNTS: &str = "
    WITH RECURSIVE accounts(account_sid) AS (
        SELECT min(account_sid) FROM events WHERE received_at_ms IS NOT NULL
        UNION ALL
        SELECT (SELECT min(account_sid) FROM events
            WHERE events.account_sid > accounts.account_sid AND received_at_ms IS NOT NULL)
        FROM accounts WHERE accounts.account_sid IS NOT NULL)
    SELECT account_sid FROM accounts WHERE account_sid IS NOT NULL";

/// The first row after a place: `$1` account, `$2` and `$3` the place.
pub(super) const FIRST_AFTER: &str = "
    SELECT received_at_ms FROM events
    WHERE account_sid = $1 AND received_at_ms >= $2 AND (received_at_ms > $2 OR dedupe_key > $3)
    ORDER BY received_at_ms, dedupe_key LIMIT 1";

const PROGRESS: &str =
    "SELECT part, through_ms, through_key FROM retention WHERE account_sid = $1 AND part = $2";

/// What nothing has happened to since and nobody is owed, by when it was heard; `$1` account, `$2` until, `$3` how many.
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

/// Entries are made in the order of time: `$1` until, `$2` how many.
pub(super) const DELETE_AUDIT: &str = "
    DELETE FROM audit WHERE at_ms <= $1 AND id IN (SELECT id FROM audit ORDER BY id LIMIT $2)";

/// `$1` now, `$2` how many.
pub(super) const FORGET_ENDINGS: &str = "
    DELETE FROM endings WHERE (dedupe_key, claim_id) IN
        (SELECT dedupe_key, claim_id FROM endings WHERE forget_at_ms <= $1 LIMIT $2)";

/// `$1` until when, `$2` how many. What waits and what was given up is never forgotten.
pub(super) const FORGET_DELIVERIES: &str = "
    DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries
        WHERE state IN ('done', 'discarded') AND ended_at_ms <= $1 LIMIT $2)";

/// A webhook, as far as it can be redacted.
#[derive(Debug, FromRow)]
pub(super) struct FoundRow {
    pub(super) dedupe_key: String,
    pub(super) at_ms: i64,
    form: Option<String>,
    answered: bool,
    theirs: Option<String>,
    channel: Option<String>,
    redacted: i64,
    /// When something last happened to it.
    pub(super) last_ms: i64,
    /// Whether a sink has not got it yet, or the archive.
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

/// Takes parts out of one ledger.
#[derive(Debug, Clone)]
pub struct Sweeper {
    pub(super) database: Database,
    timeout: Duration,
    /// What is younger may still have copies under way.
    pub(super) result_ms: i64,
}

impl Sweeper {
    pub(super) fn of(database: Database, timeout: Duration, result_ms: i64) -> Sweeper {
        Sweeper { database, timeout, result_ms }
    }

    /// Reaches the ledger for a command, beside the sidecar that may have it open.
    pub async fn open(
        settings: &config::Database,
        leases: &config::Leases,
    ) -> Result<Sweeper, StoreError> {
        // A command has time: it waits for the sidecar's writes rather than failing.
        let timeout_ms = settings.timeout_ms.max(settings.connect_timeout_ms);
        let patient = config::Database { timeout_ms, ..settings.clone() };
        let database = Database::open_beside(&patient).await?;
        let result_ms = i64::from(leases.result_ttl_s).saturating_mul(1000);
        Ok(Sweeper::of(database, Duration::from_millis(timeout_ms), result_ms))
    }

    /// Ends its connections. Only for one that was opened by [`Sweeper::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Everybody of whom there is something.
    pub async fn accounts(&self) -> Result<Vec<String>, StoreError> {
        self.bounded(async {
            let found: Vec<(String,)> = self.database.read_bound(ACCOUNTS, &[]).await?;
            Ok(found.into_iter().map(|(account_sid,)| account_sid).collect())
        })
        .await
    }

    /// Takes what is due out of the next `most` rows of an account. Does nothing while somebody else is at it.
    pub async fn redact(
        &self,
        account_sid: &str,
        due: &Due,
        key: Option<&HashKey>,
        most: u32,
        now_ms: i64,
    ) -> Result<Swept, StoreError> {
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
                return Ok(Swept::default());
            }
            // Parts that were not always due together are at different places: from the first one on it is done again.
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
            let mut swept = Swept { found: found.len(), more, ..Swept::default() };
            // What a sink is owed stays whole. When that is over, whoever ends it has the row looked at again.
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

    /// Deletes up to `most` rows of an account that nothing has happened to since `until_ms`.
    pub async fn delete(
        &self,
        account_sid: &str,
        until_ms: i64,
        most: u32,
    ) -> Result<Swept, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let binds = [Bind::Text(account_sid), Bind::Whole(until_ms), Bind::Whole(most.into())];
            let old = tx.execute_bound(DELETE_OLD, &binds).await?;
            let unheard = tx.execute_bound(DELETE_UNHEARD, &binds).await?;
            tx.commit().await?;
            let more = old.max(unheard) >= u64::from(most);
            let deleted = usize::try_from(old + unheard).unwrap_or(usize::MAX);
            Ok(Swept { deleted, more, ..Swept::default() })
        })
        .await
    }

    /// When the oldest row came that still has this part, if it ever had it: none when there is no such row.
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

    /// Deletes how claims and deliveries ended that nobody can ask about any more, what was answered to requests that are not
    /// told again, and what was entered into the audit until `audit_until_ms`: a bounded number of each. How many.
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

    /// What is to be written of each row that something is taken out of, in the order of their keys.
    pub(super) fn plan(
        &self,
        found: Vec<FoundRow>,
        plan: &Plan,
        key: Option<&HashKey>,
        now_ms: i64,
        swept: &mut Swept,
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

/// Of each account, when the first came of what may have been passed by: received at these times, and changed only now.
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

/// Has what was received at these times, and is changed only now, looked at once more.
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
    /// Whether it is about this person.
    pub(super) fn is_of(&self, number: &Number) -> bool {
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
    use twilio_edge_platform::clock::now_ms;

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

    /// What was received so long ago, and is written only now.
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
        let ledger =
            Ledger::open(&database, periods, Policies::new(defaults.policy)).await.unwrap();
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
