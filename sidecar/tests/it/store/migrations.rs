//! A database of an earlier version, brought up to date by a sidecar that starts on it: what people said then still counts, and
//! what came then is still found. And one of a newer version, on which a sidecar starts that was rolled back.

use jiff::ToSpan;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use twilio_edge_contract::Decision;

use crate::{
    access::api_keys::{Caller, administrator},
    support::servers::Postgres,
    support::sidecar::{ACCOUNT, inbound, message, status},
    support::world::{World, on_every_store},
};

on_every_store!(
    data_of_an_early_version_is_in_effect_and_found,
    a_sidecar_starts_on_tables_of_a_newer_version,
);

const ALICE: &str = "+15551230001";
const BOB: &str = "+15551230002";
const CAROL: &str = "+15551230003";

/// As the first version wrote it: statuses without the numbers of their messages, one suppression for each person.
fn early_rows(then_ms: i64) -> String {
    let event = |class: &str, sid: &str, status: Option<&str>, theirs: Option<&str>, at_ms: i64| {
        let text = |text: Option<&str>| text.map_or("NULL".into(), |text| format!("'{text}'"));
        let claim = status.map_or_else(|| message("c", sid), |word| self::status("c", sid, word));
        let key = claim.identity.dedupe_key();
        format!(
            "INSERT INTO events (dedupe_key, class, account_sid, message_sid, status, route, form, channel, theirs, ours,
                received_at_ms, attempts, claim_id, outcome, settled_at_ms)
            VALUES ('{key}', '{class}', '{ACCOUNT}', '{sid}', {}, '/twilio', 'MessageSid={sid}', {}, {}, {}, {at_ms}, 1,
                'c', 'accepted', {at_ms});",
            text(status),
            text(theirs.map(|_| "whatsapp")),
            text(theirs),
            text(theirs.map(|_| "+15550001111")),
        )
    };
    let opt = |sid: &str, number: &str, opt: &str, cause: &str| {
        format!(
            "INSERT INTO opt_events (account_sid, message_sid, channel, number, opt, cause, route, recorded_at_ms)
            VALUES ('{ACCOUNT}', '{sid}', 'whatsapp', '{number}', '{opt}', '{cause}', '/twilio/inbound', {then_ms});"
        )
    };
    let suppression = |number: &str, suppressed: &str, sid: &str| {
        format!(
            "INSERT INTO suppressions (tenant, channel, number, suppressed, message_sid, changed_at_ms)
            VALUES ('{ACCOUNT}', 'whatsapp', '{number}', {suppressed}, '{sid}', {then_ms});"
        )
    };
    [
        event("inbound", "SM1", None, Some(ALICE), then_ms),
        event("status", "SM2", Some("sent"), None, then_ms + 1000),
        event("status", "SM2", Some("delivered"), None, then_ms + 2000),
        opt("SM1", ALICE, "stop", "opt_out_type"),
        opt("SM3", BOB, "start", "keyword"),
        suppression(ALICE, "true", "SM1"),
        suppression(BOB, "false", "SM3"),
        // Of an audit that was lost.
        suppression(CAROL, "true", "SM4"),
    ]
    .concat()
}

async fn at_first(world: &mut World, then_ms: i64) {
    let rows = AssertSqlSafe(early_rows(then_ms));
    if world.database_url.starts_with("sqlite") {
        std::fs::create_dir(world.directory.path().join("data")).unwrap();
        let url = format!("{}?mode=rwc", world.database_url);
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::migrate!("../crates/store/migrations/sqlite")
            .run_to(1, &mut connection)
            .await
            .unwrap();
        connection.execute(sqlx::raw_sql(rows)).await.unwrap();
        connection.close().await.unwrap();
    } else {
        world.database_url = Postgres::shared().await.database().await;
        let mut connection = PgConnection::connect(&world.database_url).await.unwrap();
        sqlx::migrate!("../crates/store/migrations/postgres")
            .run_to(1, &mut connection)
            .await
            .unwrap();
        connection.execute(sqlx::raw_sql(rows)).await.unwrap();
        connection.close().await.unwrap();
    }
}

async fn data_of_an_early_version_is_in_effect_and_found(mut world: World) {
    let now = jiff::Timestamp::from_millisecond(jiff::Timestamp::now().as_millisecond()).unwrap();
    let (then, later) = (now - 48.hours(), now - 24.hours());
    at_first(&mut world, then.as_millisecond()).await;
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let (_, token) = admin.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(&sidecar, &token);

    let then = json!(format!("{then:.3}"));
    for (number, source, in_force, sid) in [
        (ALICE, "opt_out_type", true, "SM1"),
        (BOB, "keyword", false, "SM3"),
        (CAROL, "keyword", true, "SM4"),
    ] {
        let known = app.get(&format!("/v1/suppressions/{number}")).await["suppressions"].clone();
        assert_eq!(known.as_array().unwrap().len(), 1, "{known}");
        let expected = json!({
            "source": source, "in_force": in_force, "message_sid": sid, "channel": "whatsapp", "since": then,
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(known[0][field], *value, "{known}");
        }
    }
    let says = async |sid: &str, number: &str, body: &str| {
        sidecar.claim(inbound(sid, sid, &format!("whatsapp:{number}"), body)).await.suppressed
    };
    assert!(says("SM10", ALICE, "hello").await && !says("SM11", BOB, "hello").await);
    assert!(!says("SM12", ALICE, "START").await && !says("SM13", CAROL, "START").await);

    // What was done then is not done again.
    assert_eq!(sidecar.decide(message("again", "SM1")).await, Decision::Duplicate);
    assert_eq!(sidecar.decide(status("again", "SM2", "sent")).await, Decision::Duplicate);
    // A status of then names no number: it is found by its message, and by its time.
    let told = app.get("/v1/messages/SM2").await;
    assert_eq!((&told["status"], &told["webhooks"]), (&json!("delivered"), &json!(2)), "{told}");
    let found = async |query: &str| {
        let found = app.get(&format!("/v1/messages?until={later:.0}&{query}")).await;
        let sids = found["messages"].as_array().unwrap().iter();
        sids.map(|message| message["sid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("").await, ["SM2", "SM1"]);
    assert_eq!(found("number=%2B15550001111").await, ["SM1"]);
    let window = app.get("/v1/windows?person=%2B15551230001").await["windows"][0].clone();
    assert_eq!(window["sender"], "+15550001111", "{window}");
}

async fn a_sidecar_starts_on_tables_of_a_newer_version(world: World) {
    let before = world.sidecar().await;
    assert_eq!(before.decide(message("c", "SM1")).await, Decision::Proceed);
    drop(before);
    let newer = "
        INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        SELECT version + 1000, 'of a newer version', success, checksum, execution_time FROM _sqlx_migrations
        ORDER BY version DESC LIMIT 1";
    match world.database_url.starts_with("sqlite") {
        true => {
            let mut connection = SqliteConnection::connect(&world.database_url).await.unwrap();
            assert_eq!(connection.execute(newer).await.unwrap().rows_affected(), 1);
        }
        false => {
            let mut connection = PgConnection::connect(&world.database_url).await.unwrap();
            assert_eq!(connection.execute(newer).await.unwrap().rows_affected(), 1);
        }
    }
    let after = world.sidecar().await;
    assert_eq!(after.decide(message("d", "SM2")).await, Decision::Proceed);
}
