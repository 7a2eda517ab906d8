//! Settlements are answered before SQL has them. Until it has them, the spool and the lease store answer for them: repeats are
//! duplicates at every sidecar, and a `kill -9` loses none.

use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use twilio_edge_contract::{Decision, Outcome, SettlementResult};

use crate::{
    support::servers::eventually,
    support::sidecar::{message, settlement, status, unclaimed},
    support::world::{Kind, World},
};

/// Far below the time limits of the stores in these tests.
const SOON: Duration = Duration::from_secs(5);

/// Time limit of the database where a test waits for it.
const IMPATIENT: (&str, &str) = ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "400");

/// Stores that acknowledge a commit before SQL has it.
const DEFERRING: [Kind; 3] = [Kind::Sqlite, Kind::RedisSqlite, Kind::RedisPostgres];

const ACCEPTED: &str = "SELECT message_sid FROM events WHERE outcome = 'accepted' ORDER BY 1";

/// Transaction that stalls every write of events. Reads continue.
enum Stall {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Stall {
    async fn begin(world: &World) -> Stall {
        if world.database_url.starts_with("sqlite") {
            let mut connection = SqliteConnection::connect(&world.database_url).await.unwrap();
            connection.execute("BEGIN IMMEDIATE").await.unwrap();
            Stall::Sqlite(connection)
        } else {
            let mut connection = PgConnection::connect(&world.database_url).await.unwrap();
            connection.execute("BEGIN; LOCK TABLE events IN SHARE MODE").await.unwrap();
            Stall::Postgres(connection)
        }
    }

    async fn end(self) {
        match self {
            Stall::Sqlite(mut connection) => connection.execute("ROLLBACK").await.map(drop),
            Stall::Postgres(mut connection) => connection.execute("ROLLBACK").await.map(drop),
        }
        .unwrap();
    }
}

#[tokio::test]
async fn commit_is_answered_while_the_database_stalls_and_repeats_are_duplicates() {
    for kind in DEFERRING {
        let world = World::new(kind).await;
        let sidecar = world.sidecar().await;
        let other = match kind {
            Kind::RedisPostgres => Some(world.sidecar().await),
            _ => None,
        };
        let claims = [message("c1", "SM1"), status("c2", "SM2", "delivered")];
        sidecar.claim_all(claims.to_vec()).await;
        let stall = Stall::begin(&world).await;
        let asked = Instant::now();
        let commits = claims.iter().map(|claim| settlement(claim, Outcome::Commit)).collect();
        assert_eq!(sidecar.settle_all(commits).await, [SettlementResult::Settled; 2], "{kind:?}");
        for (nth, sidecar) in [Some(&sidecar), other.as_ref()].into_iter().flatten().enumerate() {
            let repeats = vec![
                message(&format!("d{nth}"), "SM1"),
                status(&format!("e{nth}"), "SM2", "delivered"),
            ];
            let verdicts = sidecar.claim_all(repeats).await;
            let duplicates = verdicts.iter().filter(|v| v.decision == Decision::Duplicate).count();
            assert_eq!(duplicates, 2, "{kind:?}, sidecar {nth}");
        }
        assert!(asked.elapsed() < SOON, "{kind:?}: it took {:?}", asked.elapsed());
        assert_eq!(world.stored(ACCEPTED).await, [""; 0], "{kind:?}");
        stall.end().await;
        eventually("SQL has the commits", || async {
            world.stored(ACCEPTED).await == ["SM1", "SM2"]
        })
        .await;
        let repeat = sidecar.decide(message("f1", "SM1")).await;
        assert_eq!(repeat, Decision::Duplicate, "{kind:?}");
    }
}

#[tokio::test]
async fn kill_before_sql_has_a_commit_loses_none() {
    for kind in DEFERRING {
        let mut world = World::new(kind).await;
        world.own_redis().await;
        let sidecar = world.sidecar().await;
        let claim = message("c1", "SM1");
        sidecar.claim(claim.clone()).await;
        let stall = Stall::begin(&world).await;
        assert_eq!(sidecar.commit(&claim).await, SettlementResult::Settled, "{kind:?}");
        sidecar.kill();
        // Only the spool has the commit now.
        if let Some(redis) = &world.redis {
            redis.ask("FLUSHDB").await.unwrap();
        }
        stall.end().await;
        let sidecar = world.sidecar().await;
        assert_eq!(world.stored(ACCEPTED).await, ["SM1"], "{kind:?}");
        let repeat = sidecar.decide(message("c2", "SM1")).await;
        assert_eq!(repeat, Decision::Duplicate, "{kind:?}");
    }
}

#[tokio::test]
async fn emptied_redis_does_not_forget_a_commit_that_sql_does_not_have() {
    let mut world = World::new(Kind::RedisPostgres).await;
    world.own_redis().await;
    let sidecar = world.sidecar().await;
    let (done, held) = (message("c1", "SM1"), message("c2", "SM2"));
    sidecar.claim_all(vec![done.clone(), held]).await;
    let stall = Stall::begin(&world).await;
    assert_eq!(sidecar.commit(&done).await, SettlementResult::Settled);
    world.redis.as_ref().unwrap().ask("FLUSHDB").await.unwrap();
    let verdicts = sidecar.claim_all(vec![message("d1", "SM1"), message("d2", "SM2")]).await;
    let decisions: Vec<Decision> = verdicts.iter().map(|verdict| verdict.decision).collect();
    assert_eq!(decisions, [Decision::Duplicate, Decision::InFlight]);
    stall.end().await;
}

#[tokio::test]
async fn commit_that_nothing_else_answers_for_waits_for_sql() {
    // PostgreSQL decides alone; Redis is gone; there is no spool; the settlement is the only copy of the webhook.
    for case in ["alone", "redis", "spool", "unclaimed"] {
        let kind = if case == "alone" { Kind::Postgres } else { Kind::RedisPostgres };
        let mut world = World::new(kind).await;
        world.own_redis().await;
        let spool = if case == "spool" { "off" } else { "" };
        let settings = [IMPATIENT, ("TWILIO_EDGE_EVENTS_SPOOL_DIR", spool)];
        let sidecar = world.sidecar_with(&settings).await;
        let claim = message("c1", "SM1");
        sidecar.claim(claim.clone()).await;
        let stall = Stall::begin(&world).await;
        if case == "redis" {
            world.redis.as_mut().unwrap().kill();
        }
        let commit = match case {
            "unclaimed" => unclaimed(&message("u1", "SM2"), Outcome::Commit),
            _ => settlement(&claim, Outcome::Commit),
        };
        let settled = sidecar.settle(commit.clone()).await;
        assert_eq!(settled, SettlementResult::Unavailable, "{case}");
        stall.end().await;
        eventually("the commit is stored", || async {
            sidecar.settle(commit.clone()).await == SettlementResult::Settled
        })
        .await;
        assert_eq!(world.stored(ACCEPTED).await, [&*commit.identity.message_sid], "{case}");
    }
}

/// A sidecar expects no row of a webhook that it saw first. Another one may have written the row meanwhile.
#[tokio::test]
async fn row_of_another_sidecar_in_a_batch_of_new_rows_is_merged() {
    let world = World::new(Kind::RedisPostgres).await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_EVENTS_LINGER_MS", "60000")]).await;
    let claims: Vec<_> = (10..60).map(|n| message(&format!("c{n}"), &format!("SM{n}"))).collect();
    sidecar.claim_all(claims.clone()).await;
    let commits = claims.iter().map(|claim| settlement(claim, Outcome::Commit)).collect();
    assert_eq!(sidecar.settle_all(commits).await, [SettlementResult::Settled; 50]);
    let key = claims[7].identity.dedupe_key();
    let account = &claims[7].identity.account_sid;
    let row = format!(
        "INSERT INTO events (dedupe_key, class, account_sid, message_sid, attempts, outcome, settled_at_ms) \
         VALUES ('{key}', 'inbound', '{account}', 'SM17', 1, 'refused', {}) RETURNING message_sid",
        jiff::Timestamp::now().as_millisecond()
    );
    assert_eq!(world.stored(&row).await, ["SM17"]);
    sidecar.stop();
    let sids: Vec<String> = (10..60).map(|n| format!("SM{n}")).collect();
    assert_eq!(world.stored(ACCEPTED).await, sids);
    let forms = "SELECT count(*)::text FROM events WHERE form LIKE '%Body=hello%'";
    assert_eq!(world.stored(forms).await, ["50"]);
}

/// The sidecar stops waiting for a COPY before the server has begun it. Then the server waits for rows that never come.
#[tokio::test]
async fn abandoned_copy_keeps_no_connection() {
    let world = World::new(Kind::RedisPostgres).await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "200")]).await;
    let claims: Vec<_> = (10..60).map(|n| message(&format!("c{n}"), &format!("SM{n}"))).collect();
    let commits = claims.iter().map(|claim| settlement(claim, Outcome::Commit)).collect();
    let stall = Stall::begin(&world).await;
    sidecar.claim_all(claims).await;
    assert_eq!(sidecar.settle_all(commits).await, [SettlementResult::Settled; 50]);
    // The limit is ten times that of a request; the server itself ends the statement after twice that time.
    let abandoned = "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() \
        AND query LIKE 'COPY events%' AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '2050 ms'";
    eventually("the sidecar has abandoned a COPY", || async {
        !world.stored(abandoned).await.is_empty()
    })
    .await;
    stall.end().await;
    let sids: Vec<String> = (10..60).map(|n| format!("SM{n}")).collect();
    eventually("SQL has the commits", || async { world.stored(ACCEPTED).await == sids }).await;
    let waiting = "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() \
        AND query LIKE 'COPY events%' AND state = 'active'";
    eventually("no session waits for rows", || async { world.stored(waiting).await.is_empty() })
        .await;
}
