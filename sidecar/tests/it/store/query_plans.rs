//! Query plans of PostgreSQL, as the server reports them for each statement that a sidecar runs, with tables that are large
//! enough for an index. No list reads a whole table, however it is filtered. (SQLite's plans are tested beside the
//! statements.)

use crate::{
    access::api_keys::{Caller, administrator},
    support::sidecar::ACCOUNT,
    support::world::{Kind, World},
};

/// Webhooks, suppressions and consents, of two accounts and many people each.
const ROWS: usize = 20_000;

const TABLES: [&str; 6] =
    ["events", "suppressions", "consents", "outbound_messages", "message_counts", "audit"];

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
        // A few messages of each account fail, with different codes.
        format!(
            "WITH made AS (INSERT INTO outbound_messages (id, account_sid, channel, recipient, sender, category, kind, priority, form, \
                state, due_at_ms, first_due_at_ms, attempt_id, attempts, message_sid, code, reason, created_at_ms, created_by, \
                changed_at_ms, status, template) \
            SELECT 'ms_' || n, {account}, 'sms', 'sms:..01', '+1555' || n % 50, 'service', 'session', 1, '', 'sent', n, n, '', 1, \
                'SM' || n, CASE WHEN n % 100 < 2 THEN '30003' ELSE '' END, '', 1700000000000 + n, 'test', n, \
                CASE WHEN n % 100 < 2 THEN 'undelivered' ELSE 'delivered' END, CASE WHEN n % 10 < 2 THEN 'news' ELSE '' END \
            FROM generate_series(1, {ROWS}) AS n RETURNING 1) SELECT count(*)::text FROM made"
        ),
        format!(
            "WITH made AS (INSERT INTO audit (at_ms, actor, source, action, subject, account_sid, detail) \
            SELECT n, 'key ' || n % 100, '127.0.0.1', 'key.created', 'key ' || n, {account}, '{{}}' \
            FROM generate_series(1, {ROWS}) AS n RETURNING 1) SELECT count(*)::text FROM made"
        ),
        format!(
            "WITH made AS (INSERT INTO message_counts (account_sid, hour_ms, event, channel, sender, template, country, code, shard, count) \
            SELECT {account}, n::bigint * 3600000, 'sent', 'sms', '+15550000001', '', 'US', '', 0, 1 \
            FROM generate_series(1, {ROWS}) AS n RETURNING 1) SELECT count(*)::text FROM made"
        ),
    ] {
        assert_eq!(world.stored(&statement).await, [ROWS.to_string()]);
    }
    world.stored("ANALYZE").await;
}

/// Makes the server report the plan of each statement, from the next connection on.
async fn enable_plan_reports(world: &World) {
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
async fn lists_never_read_a_whole_table() {
    let world = World::new(Kind::Postgres).await;
    world.sidecar().await.stop();
    fill(&world).await;
    enable_plan_reports(&world).await;
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
                "status=undelivered",
                "error_code=30003",
                "error_code=30003&sender=%2B15551",
                "template=news",
                "sender=%2B15551",
                "state=sent",
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
        "statistics?since=1970-01-10&until=1970-01-12&by=sender,code".into(),
    ] {
        app.get(&format!("/v1/{path}")).await;
    }
    for filter in ["", "account_sid={ACCOUNT}", "actor=key%202", "action=key.created", day] {
        let filter = filter.replace("{ACCOUNT}", ACCOUNT);
        let page = admin.get(&format!("/v1/audit?limit=5&{filter}")).await;
        if let Some(cursor) = page["next_cursor"].as_str() {
            admin.get(&format!("/v1/audit?limit=5&{filter}&cursor={cursor}")).await;
        }
    }
    let check = format!(
        "{{\"to\": \"+15550000002\", \"channel\": \"sms\", \"kind\": \"template\", \"account_sid\": \"{ACCOUNT}\"}}"
    );
    assert_eq!(app.send(reqwest::Method::POST, "/v1/checks", check).await.status(), 200);
    // The log escapes the line breaks of a plan. Each line is one step of it.
    let log = sidecar.stop().replace("\\u000a", "\n");
    assert_pages_end_at_their_limit(&log);
    for table in TABLES {
        let by_index = |line: &&str| {
            line.contains("Index")
                && line.split(" on ").nth(1).is_some_and(|on| on.starts_with(table))
        };
        assert!(log.lines().any(|line| by_index(&line)), "the log has no plan for {table}:\n{log}");
        let whole = format!("Seq Scan on {table}");
        let scan = log.lines().find(|line| line.contains(&whole));
        assert_eq!(scan, None, "{table} in\n{}", around(&log, &whole));
    }
}

/// A page is read in the order of an index, up to its limit: however large the account is, its list costs the same.
fn assert_pages_end_at_their_limit(log: &str) {
    for (table, page) in [("suppressions", "after_source"), ("consents", "in_category")] {
        let plans: Vec<&str> = log.split("duration: ").filter(|plan| plan.contains(page)).collect();
        assert!(!plans.is_empty(), "the log has no plan for a page of {table}:\n{log}");
        for plan in plans {
            let lines: Vec<&str> = plan.lines().collect();
            let by_index = format!(" on {table}");
            let is_by_index = |line: &&str| line.contains("Index Scan") && line.contains(&by_index);
            let place = lines.iter().position(is_by_index).unwrap_or_else(|| panic!("{plan}"));
            assert!(lines[place - 1].contains("Limit"), "{plan}");
        }
    }
}

/// The dispatcher's query reads the first message of each lane, however many messages one account has queued.
#[tokio::test]
async fn queued_messages_are_found_lane_by_lane() {
    let world = World::new(Kind::Postgres).await;
    world.sidecar().await.stop();
    let rows = format!(
        "WITH made AS (INSERT INTO outbound_messages (id, account_sid, channel, recipient, sender, category, kind, priority, form, state, \
            due_at_ms, first_due_at_ms, attempt_id, attempts, message_sid, code, reason, created_at_ms, created_by, changed_at_ms) \
        SELECT 'ms_' || n, '{ACCOUNT}', 'sms', '+15550000001', CASE WHEN n % 4000 = 0 THEN '+1555' || n ELSE '+15557654321' END, \
            'service', 'session', 1, 'Body=hi', 'queued', n, {now}, '', 0, '', '', '', n, 'test', n \
        FROM generate_series(1, {ROWS}) AS n RETURNING 1) SELECT count(*)::text FROM made",
        now = jiff::Timestamp::now().as_millisecond()
    );
    assert_eq!(world.stored(&rows).await, [ROWS.to_string()]);
    world.stored("ANALYZE").await;
    enable_plan_reports(&world).await;
    let file = world.directory.path().join("sending.toml");
    std::fs::write(&file, crate::support::simulator::account(ACCOUNT)).unwrap();
    let nowhere = format!("http://127.0.0.1:{}", crate::support::servers::free_port());
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.to_str().unwrap()),
        ("TWILIO_EDGE_SENDING_BASE_URL", nowhere.as_str()),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    let tried = "SELECT DISTINCT sender FROM outbound_messages WHERE attempts > 0";
    crate::support::servers::eventually("each sender has an attempt", async || {
        world.stored(tried).await.len() == 1 + ROWS / 4000
    })
    .await;
    let log = sidecar.stop();
    for statement in ["WITH RECURSIVE firsts", "WITH due AS MATERIALIZED"] {
        let plans: Vec<&str> =
            log.split("duration: ").filter(|plan| plan.contains(statement)).collect();
        assert!(!plans.is_empty(), "the log has no plan for {statement}:\n{log}");
        for plan in plans {
            assert!(plan.contains("using outbound_messages_queued on outbound_messages"), "{plan}");
            assert!(
                !plan.contains("Seq Scan on outbound_messages")
                    && !plan.contains("outbound_messages_due"),
                "{plan}"
            );
        }
    }
}

/// Returns the logged plan and query that contain `text`.
fn around<'a>(log: &'a str, text: &str) -> &'a str {
    log.split("duration: ").find(|plan| plan.contains(text)).unwrap_or_default()
}
