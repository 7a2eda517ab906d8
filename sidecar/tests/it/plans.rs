//! How PostgreSQL finds what the API asks it for: the plans themselves, as the server tells them for each statement that a
//! sidecar really runs, over tables that are worth an index. No list reads a whole table, however it is filtered.
//! (SQLite's plans are held beside the statements.)

use crate::{
    api_keys::{Caller, administrator},
    sidecar::ACCOUNT,
    world::{Kind, World},
};

/// Webhooks, suppressions and consents, of two accounts and many people each.
const ROWS: usize = 20_000;

const TABLES: [&str; 3] = ["events", "suppressions", "consents"];

async fn fill(world: &World) {
    let account = format!(
        "CASE WHEN n % 2 = 0 THEN '{ACCOUNT}' ELSE 'ACffffffffffffffffffffffffffffffff' END"
    );
    let person = "'+1555' || lpad((n % 5000)::text, 7, '0')";
    for statement in [
        format!(
            "WITH made AS (INSERT INTO events (dedupe_key, class, account_sid, message_sid, form, channel, theirs, ours, \
                received_at_ms, attempts, outcome, settled_at_ms) \
            SELECT 'inbound:' || {account} || ':SM' || n, 'inbound', {account}, 'SM' || n, 'Body=hi', 'sms', {person}, \
                '+15550001111', 1700000000000 + n, 1, 'accepted', 1700000000000 + n \
            FROM generate_series(1, {ROWS}) AS n RETURNING 1) SELECT count(*)::text FROM made"
        ),
        format!(
            "WITH made AS (INSERT INTO suppressions (tenant, number, channel, source, suppressed, since_ms, changed_at_ms) \
            SELECT {account}, '+1555' || lpad(n::text, 7, '0'), 'sms', 'keyword', n % 3 > 0, n, n \
            FROM generate_series(1, {ROWS}) AS n RETURNING 1) SELECT count(*)::text FROM made"
        ),
        format!(
            "WITH made AS (INSERT INTO consents (id, tenant, number, channel, category, state, at_ms, source, \
                recorded_at_ms, recorded_by) \
            SELECT 'c' || n, {account}, {person}, 'sms', 'marketing', 'granted', n, 'form', n, 'test' \
            FROM generate_series(1, {ROWS}) AS n RETURNING 1) SELECT count(*)::text FROM made"
        ),
    ] {
        assert_eq!(world.stored(&statement).await, [ROWS.to_string()]);
    }
    world.stored("ANALYZE").await;
}

/// From the next connection on, the server tells whoever asks how it finds it.
async fn have_plans_told(world: &World) {
    let name = world.database_url.rsplit('/').next().unwrap();
    for (setting, value) in [
        ("session_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_level", "notice"),
    ] {
        world.stored(&format!("ALTER DATABASE {name} SET {setting} = '{value}'")).await;
    }
}

#[tokio::test]
async fn no_list_reads_a_whole_table() {
    let world = World::new(Kind::Postgres).await;
    world.sidecar().await.stop();
    fill(&world).await;
    have_plans_told(&world).await;
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let (_, token) = admin.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(&sidecar, &token);
    let person = "%2B15550000002";
    let filters = |filters: &[&str]| -> Vec<String> {
        filters.iter().map(|filter| format!("limit=5&{filter}")).collect()
    };
    let day = "since=2023-11-14T00:00:00Z&until=2023-11-15T00:00:00Z";
    let of_person = format!("number={person}");
    for (list, rows, asked) in [
        (
            "messages",
            "messages",
            filters(&[
                "",
                &of_person,
                &format!("from={person}"),
                "to=%2B15550001111",
                "status=received",
                day,
                "date_sent=2023-11-14",
            ]),
        ),
        ("events", "events", filters(&["", &of_person, "class=inbound", day])),
        (
            "windows",
            "windows",
            filters(&[&format!("person={person}"), &format!("person={person}&open=true")]),
        ),
        (
            "suppressions",
            "suppressions",
            filters(&["", &of_person, "channel=sms", "source=keyword", "ended=true"]),
        ),
        (
            "consents",
            "consents",
            filters(&["", "channel=sms", "category=marketing", "history=true"]),
        ),
    ] {
        for query in asked {
            let page = app.get(&format!("/v1/{list}?{query}")).await;
            let found = page[rows].as_array().unwrap().len();
            assert!(found <= 5, "{list}?{query}");
            // And from somewhere in the middle.
            if let Some(cursor) = page["next_cursor"].as_str() {
                app.get(&format!("/v1/{list}?{query}&cursor={cursor}")).await;
            }
        }
    }
    for path in [
        format!("numbers/{person}"),
        format!("suppressions/{person}"),
        format!("consents/{person}"),
        "messages/SM2".into(),
    ] {
        app.get(&format!("/v1/{path}")).await;
    }
    let check = format!(
        "{{\"to\": \"+15550000002\", \"channel\": \"sms\", \"kind\": \"template\", \"account_sid\": \"{ACCOUNT}\"}}"
    );
    assert_eq!(app.send(reqwest::Method::POST, "/v1/checks", check).await.status(), 200);
    let log = sidecar.stop();
    for table in TABLES {
        let by_index = |line: &&str| {
            line.contains("Index")
                && line.split(" on ").nth(1).is_some_and(|on| on.starts_with(table))
        };
        assert!(log.lines().any(|line| by_index(&line)), "no plan of {table} was told:\n{log}");
        let whole = format!("Seq Scan on {table}");
        let scan = log.lines().find(|line| line.contains(&whole));
        assert_eq!(scan, None, "{table} in\n{}", around(&log, &whole));
    }
}

/// The plan that has this, and its query.
fn around<'a>(log: &'a str, text: &str) -> &'a str {
    log.split("duration: ").find(|plan| plan.contains(text)).unwrap_or_default()
}
