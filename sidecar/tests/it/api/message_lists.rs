//! Message history, read from the ledger while a sidecar writes it: by number, time and status, for one account only, and
//! without a scan of the whole ledger.

use std::ffi::OsString;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use twilio_edge_contract::{Claim, Outcome};
use twilio_edge_domain::message::{Direction, Message, NumberQuery};
use twilio_edge_platform::config::Merged;
use twilio_edge_store::message_history::{MessageHistory, Search};

use crate::{
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound, settlement, status},
    support::world::{Kind, World, on_every_store},
};

pub(crate) const OTHER: &str = "ACffffffffffffffffffffffffffffffff";
pub(crate) const ALICE: &str = "+15551230001";
pub(crate) const BOB: &str = "+15551230002";
pub(crate) const OURS: &str = "+15550001111";

on_every_store!(
    message_has_one_status_and_its_whole_timeline,
    messages_are_found_by_either_end_status_and_time,
    pages_have_each_message_once,
    account_reads_only_its_own_messages,
    status_opens_no_window,
);

/// Status callback as Twilio sends it, with sender and recipient.
pub(crate) fn status_callback(
    message_sid: &str,
    word: &str,
    error_code: Option<&str>,
    to: &str,
) -> Claim {
    let claim = status(&format!("{message_sid}-{word}"), message_sid, word);
    let form = form_urlencoded::Serializer::new(claim.form)
        .append_pair("To", &format!("whatsapp:{to}"))
        .append_pair("From", &format!("whatsapp:{OURS}"))
        .extend_pairs(error_code.map(|code| ("ErrorCode", code)))
        .finish();
    let mut identity = claim.identity;
    identity.error_code = error_code.map(str::to_owned);
    Claim {
        form,
        identity,
        ..Claim::new(claim.claim_id, status("", "", "").identity, claim.route, String::new())
    }
}

pub(crate) fn from(message_sid: &str, number: &str) -> Claim {
    inbound(message_sid, message_sid, &format!("whatsapp:{number}"), "hello")
}

pub(crate) fn of_other(mut claim: Claim) -> Claim {
    claim.identity.account_sid = OTHER.into();
    claim
}

/// Claims and commits one after the other, so that no two claims are received in the same millisecond.
pub(crate) async fn accepted(sidecar: &Sidecar, claims: &[Claim]) {
    for claim in claims {
        let now = jiff::Timestamp::now().as_millisecond();
        eventually("the clock advances", || async {
            jiff::Timestamp::now().as_millisecond() > now
        })
        .await;
        sidecar.claim(claim.clone()).await;
        sidecar.settle(settlement(claim, Outcome::Commit)).await;
    }
    sidecar.until_written().await;
}

async fn histories(world: &World) -> MessageHistory {
    let settings = [(OsString::from("DATABASE_URL"), OsString::from(&world.database_url))];
    let config = Merged::read(None, settings.into_iter()).check().unwrap();
    MessageHistory::open(&config.database).await.unwrap()
}

fn number(text: &str) -> Option<NumberQuery> {
    Some(NumberQuery::parse(text).unwrap())
}

/// The messages found, as `SID status`.
async fn listed(histories: &MessageHistory, search: &Search) -> Vec<String> {
    let page = histories.messages(search).await.unwrap();
    let line = |m: &Message| format!("{} {}", m.first.message_sid, m.status);
    page.found.iter().map(|record| line(record.recorded().unwrap())).collect()
}

/// The message as its webhooks describe it.
async fn recorded(histories: &MessageHistory, sid: &str) -> Message {
    histories.message(ACCOUNT, sid).await.unwrap().unwrap().recorded().unwrap().clone()
}

async fn message_has_one_status_and_its_whole_timeline(world: World) {
    let sidecar = world.sidecar().await;
    accepted(
        &sidecar,
        &[
            status_callback("SM1", "sent", None, ALICE),
            status_callback("SM1", "undelivered", Some("63016"), ALICE),
            status_callback("SM1", "queued", None, ALICE),
        ],
    )
    .await;
    sidecar.claim(status_callback("SM1", "delivered", None, ALICE)).await;
    sidecar.release(&status_callback("SM1", "delivered", None, ALICE)).await;

    let histories = histories(&world).await;
    eventually("the refusal is written", || async {
        world.stored("SELECT status FROM events WHERE outcome = 'refused'").await == ["delivered"]
    })
    .await;
    let message = recorded(&histories, "SM1").await;
    assert_eq!(
        (message.status.as_str(), message.error_code.as_deref()),
        ("undelivered", Some("63016"))
    );
    assert_eq!(message.first.direction, Direction::Outbound);
    assert_eq!((message.first.from(), message.first.to()), (Some(OURS), Some(ALICE)));
    assert_eq!(message.first.channel(), Some("whatsapp"));
    let story: Vec<_> =
        message.timeline().map(|h| (h.status.as_str(), h.outcome.as_deref().unwrap())).collect();
    let expected = [
        ("sent", "accepted"),
        ("undelivered", "accepted"),
        ("queued", "accepted"),
        ("delivered", "refused"),
    ];
    assert_eq!(story, expected, "in the order in which they came");
    assert!(message.first.received_ms < message.last_received_ms());
    assert!(message.first.form.as_ref().unwrap().contains("MessageStatus=sent"));
    assert_eq!(
        histories.message(ACCOUNT, "SM").await.unwrap(),
        None,
        "a part of a SID is not found"
    );
    assert_eq!(histories.message(ACCOUNT, "SM1:sent").await.unwrap(), None);
}

async fn messages_are_found_by_either_end_status_and_time(world: World) {
    let sidecar = world.sidecar().await;
    accepted(
        &sidecar,
        &[
            status_callback("SM1", "sent", None, ALICE),
            from("SM2", ALICE),
            status_callback("SM3", "sent", None, BOB),
            status_callback("SM1", "read", None, ALICE),
            status_callback("SM3", "failed", Some("21610"), BOB),
            from("SM4", BOB),
        ],
    )
    .await;
    let histories = histories(&world).await;
    let all = Search::of(ACCOUNT, 50);
    let everything = ["SM4 received", "SM3 failed", "SM2 received", "SM1 read"];
    assert_eq!(listed(&histories, &all).await, everything, "the latest first");
    for (search, expected) in [
        (Search { to: number(ALICE), ..all.clone() }, &["SM1 read"][..]),
        (Search { from: number(ALICE), ..all.clone() }, &["SM2 received"]),
        (Search { number: number(ALICE), ..all.clone() }, &["SM2 received", "SM1 read"]),
        (Search { to: number(OURS), ..all.clone() }, &["SM4 received", "SM2 received"]),
        (Search { from: number(OURS), ..all.clone() }, &["SM3 failed", "SM1 read"]),
        (Search { from: number(OURS), to: number(BOB), ..all.clone() }, &["SM3 failed"]),
        (Search { to: number(&format!("whatsapp:{ALICE}")), ..all.clone() }, &["SM1 read"]),
        (Search { to: number(&format!("sms:{ALICE}")), ..all.clone() }, &[]),
        (Search { status: Some("read".into()), ..all.clone() }, &["SM1 read"]),
        (Search { status: Some("sent".into()), ..all.clone() }, &[]),
    ] {
        assert_eq!(listed(&histories, &search).await, expected, "{search:?}");
    }
    let third = recorded(&histories, "SM3").await.first.received_ms;
    let since = Search { since_ms: third, ..all.clone() };
    assert_eq!(listed(&histories, &since).await, ["SM4 received", "SM3 failed"]);
    let until = Search { until_ms: third, ..all.clone() };
    assert_eq!(listed(&histories, &until).await, ["SM2 received", "SM1 read"]);
    let events = histories.events(&Search { number: number(BOB), ..all }).await.unwrap().found;
    let statuses: Vec<_> = events.iter().map(|event| event.status.as_str()).collect();
    assert_eq!(statuses, ["received", "failed", "sent"]);
}

async fn pages_have_each_message_once(world: World) {
    let sidecar = world.sidecar().await;
    // Twenty claims in one batch have the same millisecond: more messages than one page has.
    for word in ["sent", "delivered"] {
        for tens in 0..13 {
            let sids = (0..20).map(|ones| format!("SM{:03}", tens * 20 + ones));
            let claims: Vec<_> = sids.map(|sid| status_callback(&sid, word, None, ALICE)).collect();
            sidecar.claim_all(claims.clone()).await;
            let commits = claims.iter().map(|claim| settlement(claim, Outcome::Commit));
            sidecar.settle_all(commits.collect()).await;
        }
    }
    sidecar.until_written().await;
    let histories = histories(&world).await;
    for search in [Search::of(ACCOUNT, 7), Search { to: number(ALICE), ..Search::of(ACCOUNT, 7) }] {
        let (mut search, mut sids) = (search, Vec::new());
        loop {
            let page = histories.messages(&search).await.unwrap();
            assert!(page.found.len() <= 7);
            let found: Vec<_> =
                page.found.iter().map(|record| record.recorded().unwrap().clone()).collect();
            assert!(found.iter().all(|message| message.status == "delivered"));
            sids.extend(found.into_iter().map(|message| message.first.message_sid));
            let Some(next) = page.next else { break };
            search.after = Some(next);
        }
        let (listed, first, last) = (sids.len(), sids[0].clone(), sids[259].clone());
        sids.sort();
        sids.dedup();
        assert_eq!((listed, sids.len()), (260, 260));
        assert!(first > last, "the latest first");
    }
}

async fn account_reads_only_its_own_messages(world: World) {
    let sidecar = world.sidecar().await;
    let mine = [from("SM1", ALICE), status_callback("SM2", "sent", None, ALICE)];
    let theirs =
        [from("SM1", ALICE), from("SM8", ALICE), status_callback("SM9", "failed", None, ALICE)];
    accepted(&sidecar, &[&mine[..], &theirs.map(of_other)].concat()).await;
    let histories = histories(&world).await;
    let all = Search::of(ACCOUNT, 50);
    for search in [
        all.clone(),
        Search { to: number(ALICE), ..all.clone() },
        Search { from: number(ALICE), ..all.clone() },
        Search { number: number(ALICE), ..all.clone() },
        Search { number: number(OURS), ..all.clone() },
    ] {
        let messages = histories.messages(&search).await.unwrap().found;
        assert!(!messages.is_empty());
        let events = histories.events(&search).await.unwrap().found;
        let messages = messages.iter().map(|record| record.recorded().unwrap());
        let entries = messages.flat_map(|message| message.timeline()).chain(&events);
        for entry in entries {
            assert_eq!(entry.account_sid, ACCOUNT, "{search:?}");
        }
    }
    let shared = recorded(&histories, "SM1").await;
    assert_eq!((shared.timeline().count(), shared.first.account_sid.as_str()), (1, ACCOUNT));
    assert_eq!(histories.message(ACCOUNT, "SM9").await.unwrap(), None);
    for hostile in [format!("{ACCOUNT}:SM1"), format!("{OTHER}:SM9"), "' OR '1'='1".into()] {
        assert_eq!(histories.message(&hostile, "SM1").await.unwrap(), None);
        assert_eq!(histories.message("AC0", &hostile).await.unwrap(), None);
        assert_eq!(listed(&histories, &Search::of(&hostile, 9)).await, [""; 0]);
    }
}

async fn status_opens_no_window(world: World) {
    let sidecar = world.sidecar().await;
    let hello = from("SM1", ALICE);
    let opened = sidecar.claim(hello.clone()).await.window_expires.unwrap();
    sidecar.release(&hello).await;
    accepted(&sidecar, &[status_callback("SM2", "read", None, ALICE)]).await;
    let again = sidecar.claim(Claim { claim_id: "again".into(), ..hello }).await;
    assert_eq!(again.window_expires, Some(opened));
}

#[tokio::test]
async fn queries_never_read_the_whole_ledger_in_postgres() {
    let world = World::new(Kind::Postgres).await;
    drop(world.sidecar().await);
    let mut connection = PgConnection::connect(&world.database_url).await.unwrap();
    // 40,000 webhooks of 20,000 messages to 5,000 people, by three accounts.
    let fill = "INSERT INTO events (dedupe_key, class, account_sid, message_sid, status, route, form, channel,
            theirs, ours, received_at_ms, attempts, outcome, settled_at_ms)
        SELECT 'status:' || account || ':SM' || n || ':' || word || ':', 'status', account, 'SM' || n, word,
            '/twilio/status', 'MessageStatus=' || word, 'sms', '+1555' || n % 5000, '+1666' || n % 10,
            1795000000000 + n, 1, 'accepted', 1795000000000 + n
        FROM generate_series(1, 20000) AS n, unnest(ARRAY['sent', 'delivered']) AS word,
            LATERAL (SELECT 'AC' || n % 3 AS account) AS accounts";
    sqlx::query(AssertSqlSafe(fill)).execute(&mut connection).await.unwrap();
    sqlx::query("ANALYZE events").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let counted =
        "SELECT seq_scan || ' ' || seq_tup_read FROM pg_stat_user_tables WHERE relname = 'events'";
    let by_index = "SELECT (idx_scan >= 7)::text FROM pg_stat_user_tables WHERE relname = 'events'";
    let reset = "SELECT pg_stat_reset()::text";
    world.stored(reset).await;

    let histories = histories(&world).await;
    let all = Search::of("AC1", 20);
    let at = 1_795_000_010_000;
    for search in [
        all.clone(),
        Search { to: number("+15557"), ..all.clone() },
        Search { from: number("+16667"), ..all.clone() },
        Search { number: number("+15557"), ..all.clone() },
        Search { from: number("+16667"), to: number("+15557"), ..all.clone() },
        Search { since_ms: at, until_ms: at + 100, ..all.clone() },
    ] {
        let messages = histories.messages(&search).await.unwrap().found;
        assert!(!messages.is_empty(), "{search:?}");
        assert!(messages.iter().all(|record| record.recorded().unwrap().status == "delivered"));
    }
    assert!(histories.message("AC1", "SM1").await.unwrap().is_some());
    drop(histories);
    eventually("PostgreSQL has counted the reads", || async {
        world.stored(by_index).await == ["true"]
    })
    .await;
    assert_eq!(world.stored(counted).await, ["0 0"]);
    let fetched = "SELECT (coalesce(idx_tup_fetch, 0) < 12000)::text || ' ' || idx_tup_fetch FROM pg_stat_user_tables
        WHERE relname = 'events'";
    let fetched = world.stored(fetched).await;
    assert!(fetched[0].starts_with("true"), "of 40,000 webhooks it read {fetched:?}");
}
