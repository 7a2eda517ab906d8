//! Tests of retention: its statements use an index, and a row that is written late is redacted.

use std::sync::Arc;

use sqlx::{Connection, SqliteConnection};
use twilio_edge_contract::{Claim, Class, Identity};

use super::*;
use crate::{
    archive_queue,
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
        (OF_ACCOUNT, "events_account (account_sid=? AND received_at_ms>? AND received_at_ms<?)"),
        (OF_NUMBER, "events_theirs (theirs=? AND received_at_ms>? AND received_at_ms<?)"),
        (OF_ADDRESS, "events_theirs (theirs=? AND received_at_ms>? AND received_at_ms<?)"),
        (OF_KEYS, "(dedupe_key>? AND dedupe_key<?)"),
        (ACCOUNTS, "events_account (account_sid>?)"),
        (FIRST_AFTER, "events_account (account_sid=? AND received_at_ms>?)"),
        (DELETE_OLD, "events_account (account_sid=? AND received_at_ms<?)"),
        (DELETE_UNRECEIVED, "events_received (received_at_ms=?)"),
        (DELETE_CLAIM_ENDS, "claim_ends_expires (expires_at_ms<?)"),
        (DELETE_KEYS, "idempotency_keys_expires (expires_at_ms<?)"),
        (DELETE_DELIVERIES, "deliveries_done (ended_at_ms<?)"),
        (own.redact_events, "sqlite_autoindex_events_1 (dedupe_key=?)"),
        (own.delete_events, "sqlite_autoindex_events_1 (dedupe_key=?)"),
        (own.unqueue, "(dedupe_key=?)"),
        (archive_queue::OLDEST, "archive_queue_account (account_sid=?)"),
        (archive_queue::NEXT, "archive_queue_account (account_sid=?)"),
        (archive_queue::LINES, "archive_queue_batch (batch_id=?)"),
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
async fn webhook_that_is_written_late_is_redacted() {
    let (folder, defaults) =
        (tempfile::tempdir().unwrap(), twilio_edge_platform::config::defaults());
    let database = config::Database {
        url: serde_json::from_value(format!("sqlite://{}/l.db", folder.path().display()).into())
            .unwrap(),
        ..defaults.database
    };
    let periods = Periods { lease_ms: 1000, result_ms: 7 * DAY_MS };
    let tasks = Supervisor::new(Arc::default());
    let policies = Policies::new(defaults.policy);
    let ledger =
        Ledger::open(&database, periods, policies, Default::default(), &tasks).await.unwrap();
    let sweeper = ledger.sweeper();
    let rules: Retention = defaults.retention;
    let sweep = async || {
        let mut rows = 0;
        for due in rules.due(now_ms()) {
            rows += sweeper.redact(ACCOUNT, &due, None, 10, now_ms()).await.unwrap().rows;
        }
        rows
    };

    ledger.write_events(&[row("SM1", 31).event()]).await.unwrap();
    assert_eq!(sweep().await, 1);
    assert_eq!(sweep().await, 0);
    assert_eq!(sweeper.oldest(ACCOUNT, Part::Body).await.unwrap(), None);
    ledger.write_events(&[row("SM2", 40).event(), row("SM3", 1).event()]).await.unwrap();
    assert!(sweeper.oldest(ACCOUNT, Part::Body).await.unwrap() < Some(now_ms() - 39 * DAY_MS));
    assert_eq!(sweep().await, 1, "the one that is due");
    let fresh = sweeper.oldest(ACCOUNT, Part::Body).await.unwrap().unwrap();
    assert!(fresh > now_ms() - 2 * DAY_MS);
}
