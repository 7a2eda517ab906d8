//! Live streams of recorded webhooks, as clients read them: order, filters, accounts, continuation without a gap and without a
//! repetition, limits, slow clients, and the end.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{Stream, StreamExt, future::join_all, stream};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use sse_stream::{Sse, SseByteStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use twilio_edge_domain::{cursor::Cursor, live_stream::StreamPosition};

use crate::{
    access::api_keys::{Caller, administrator, coded, made_by_operator},
    api::{
        endpoints::refused,
        message_lists::{ALICE, BOB, OTHER, accepted, from, of_other, status_callback},
    },
    support::{
        servers::eventually,
        sidecar::{ACCOUNT, Sidecar, inbound},
        world::{Kind, World, on_every_shared_store, on_every_store},
    },
};

on_every_store!(
    stream_has_each_webhook_in_order_with_its_parameters,
    stream_is_filtered,
    stream_shows_one_account,
    stream_continues_without_gap_and_repetition_under_concurrent_writers,
);
on_every_shared_store!(stream_has_the_webhooks_of_every_sidecar);

/// Longest wait for an event, for slow machines as well.
const PATIENCE: Duration = Duration::from_secs(30);

/// Client of one stream.
pub(crate) struct LiveClient {
    events: std::pin::Pin<Box<dyn Stream<Item = Result<Sse, sse_stream::Error>> + Send>>,
    /// Id of the last event.
    pub(crate) last_id: String,
}

/// Event of a stream.
#[derive(Debug, PartialEq)]
pub(crate) enum LiveEvent {
    Webhook(Value),
    Gap(Value),
    Heartbeat,
    End(Value),
    /// The connection was closed without a last event.
    Closed,
}

impl LiveClient {
    /// Opens a stream, and waits until it has begun.
    pub(crate) async fn open(
        sidecar: &Sidecar,
        key: &str,
        query: &str,
        last_id: &str,
    ) -> LiveClient {
        let response = request(sidecar, key, query, last_id).await;
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        let chunks = stream::try_unfold(response, |mut response| async move {
            Ok::<_, reqwest::Error>(response.chunk().await?.map(|chunk| (chunk, response)))
        });
        let events = SseByteStream::new(Box::pin(chunks));
        let mut client = LiveClient { events: Box::pin(events), last_id: String::new() };
        if last_id.is_empty() {
            assert_eq!(client.next().await, LiveEvent::Heartbeat);
        }
        client
    }

    pub(crate) async fn next(&mut self) -> LiveEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.next()).await;
        let event = match event.map_err(|_| "no event came").unwrap() {
            Some(Ok(event)) => event,
            Some(Err(_)) | None => return LiveEvent::Closed,
        };
        self.last_id = event.id.unwrap_or(std::mem::take(&mut self.last_id));
        let data = || serde_json::from_str(event.data.as_deref().unwrap()).unwrap();
        match event.event.as_deref() {
            Some("webhook") => LiveEvent::Webhook(data()),
            Some("gap") => LiveEvent::Gap(data()),
            Some("end") => LiveEvent::End(data()),
            _ => LiveEvent::Heartbeat,
        }
    }

    /// Returns the next webhook.
    pub(crate) async fn webhook(&mut self) -> Value {
        loop {
            match self.next().await {
                LiveEvent::Webhook(webhook) => return webhook,
                LiveEvent::Heartbeat => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Returns the next `count` webhooks as `SID status`.
    async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            let webhook = self.webhook().await;
            let text = |name: &str| webhook[name].as_str().unwrap();
            lines.push(format!("{} {}", text("sid"), text("status")));
        }
        lines
    }

    /// Returns the data of the last event.
    async fn end(&mut self) -> Value {
        loop {
            match self.next().await {
                LiveEvent::End(data) => return data,
                LiveEvent::Heartbeat | LiveEvent::Webhook(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn request(sidecar: &Sidecar, key: &str, query: &str, last_id: &str) -> Response {
    // Without the time limit of the other clients: a stream has no end.
    let client = Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/stream?{query}", sidecar.base);
    let mut request = client.get(url).bearer_auth(key);
    if !last_id.is_empty() {
        request = request.header("last-event-id", last_id);
    }
    request.send().await.unwrap()
}

async fn app_key(sidecar: &Sidecar) -> String {
    administrator(sidecar).await.create("app", Some(ACCOUNT), "live").await.1
}

async fn stream_has_each_webhook_in_order_with_its_parameters(world: World) {
    let sidecar = world.sidecar().await;
    let key = app_key(&sidecar).await;
    accepted(&sidecar, &[from("SM0", ALICE)]).await;
    let mut live = LiveClient::open(&sidecar, &key, "", "").await;
    let sent = [
        from("SM1", ALICE),
        // Alphabetical order would be another one.
        status_callback("SM2", "sent", None, ALICE),
        status_callback("SM2", "delivered", None, ALICE),
        status_callback("SM3", "undelivered", Some("30005"), BOB),
    ];
    accepted(&sidecar, &sent).await;
    let first = live.webhook().await;
    assert_eq!(
        (&first["sid"], &first["class"], &first["from"], &first["backend"]),
        (&json!("SM1"), &json!("inbound"), &json!(ALICE), &json!("accepted"))
    );
    let body = json!({"name": "Body", "value": "hello"});
    assert!(first["parameters"].as_array().unwrap().contains(&body), "{first}");
    let shown =
        sidecar.client.get(format!("{}/v1/events/{}", sidecar.base, first["id"].as_str().unwrap()));
    let shown: Value = shown.bearer_auth(&key).send().await.unwrap().json().await.unwrap();
    assert_eq!(first, shown, "the data is that of GET /v1/events/{{id}}");
    assert_eq!(live.lines(3).await, ["SM2 sent", "SM2 delivered", "SM3 undelivered"]);

    // A copy is no new webhook.
    sidecar.claim(from("SM1", ALICE)).await;
    accepted(&sidecar, &[from("SM4", ALICE)]).await;
    assert_eq!(live.lines(1).await, ["SM4 received"]);
}

async fn stream_is_filtered(world: World) {
    let sidecar = world.sidecar().await;
    let key = app_key(&sidecar).await;
    let bob = format!("number={}", BOB.replace('+', "%2B"));
    let filters = ["class=inbound", "class=status", &bob, "sid=SM2", "status=delivered"];
    let streams = filters.map(async |filter| LiveClient::open(&sidecar, &key, filter, "").await);
    let mut streams = join_all(streams).await;
    accepted(
        &sidecar,
        &[
            from("SM1", ALICE),
            status_callback("SM2", "sent", None, ALICE),
            from("SM3", BOB),
            status_callback("SM2", "delivered", None, ALICE),
            from("SM4", BOB),
            status_callback("SM5", "delivered", None, BOB),
        ],
    )
    .await;
    for (live, expected) in streams.iter_mut().zip([
        vec!["SM1 received", "SM3 received", "SM4 received"],
        vec!["SM2 sent", "SM2 delivered", "SM5 delivered"],
        vec!["SM3 received", "SM4 received", "SM5 delivered"],
        vec!["SM2 sent", "SM2 delivered"],
        vec!["SM2 delivered", "SM5 delivered"],
    ]) {
        assert_eq!(live.lines(expected.len()).await, expected);
    }
    let wrong = request(&sidecar, &key, "class=other", "").await;
    assert_eq!(refused(wrong).await, coded(400, "malformed_request"));
    let wrong = request(&sidecar, &key, "", "x").await;
    assert_eq!(refused(wrong).await, coded(400, "malformed_request"));
}

async fn stream_shows_one_account(world: World) {
    let sidecar = world.sidecar().await;
    let administrator = administrator(&sidecar).await;
    let (_, own) = administrator.create("app", Some(ACCOUNT), "own").await;
    let (_, any) = administrator.create("app", None, "any").await;
    let (_, filter) = administrator.create("app", Some(OTHER), "other").await;
    let mut of_own = LiveClient::open(&sidecar, &own, "", "").await;
    let mut of_any = LiveClient::open(&sidecar, &any, "", "").await;
    let mut of_other_account =
        LiveClient::open(&sidecar, &any, &format!("account_sid={OTHER}"), "").await;
    accepted(&sidecar, &[of_other(from("SM1", ALICE)), from("SM2", ALICE)]).await;
    assert_eq!(of_own.lines(1).await, ["SM2 received"]);
    assert_eq!(of_any.lines(2).await, ["SM1 received", "SM2 received"]);
    assert_eq!(of_other_account.lines(1).await, ["SM1 received"]);
    let foreign = request(&sidecar, &own, &format!("account_sid={OTHER}"), "").await;
    assert_eq!(refused(foreign).await, coded(403, "other_account"));

    // The position of a webhook of one account opens nothing of it to another.
    let mut continued = LiveClient::open(&sidecar, &filter, "", &of_any.last_id).await;
    accepted(&sidecar, &[from("SM3", ALICE), of_other(from("SM4", ALICE))]).await;
    assert_eq!(continued.lines(1).await, ["SM4 received"]);
    for text in [&of_own.last_id, &of_any.last_id, &of_other_account.last_id, &continued.last_id] {
        assert!(text.parse::<Cursor>().is_ok(), "{text}");
    }
}

async fn stream_continues_without_gap_and_repetition_under_concurrent_writers(world: World) {
    const WRITERS: usize = 6;
    const EACH: usize = 25;
    let sidecar = world.sidecar().await;
    let key = app_key(&sidecar).await;
    let mut live = LiveClient::open(&sidecar, &key, "", "").await;
    let write = async |writer: usize| {
        for number in 0..EACH {
            let sid = format!("SM{writer}x{number}");
            let claim = from(&sid, ALICE);
            sidecar.claim(claim.clone()).await;
            sidecar.commit(&claim).await;
        }
    };
    let read = async {
        let mut sids = Vec::new();
        while sids.len() < WRITERS * EACH {
            // Every stream is cut off in the middle, as by a lost connection.
            for _ in 0..7.min(WRITERS * EACH - sids.len()) {
                sids.push(live.webhook().await["sid"].as_str().unwrap().to_owned());
            }
            let last_id = live.last_id.clone();
            live = LiveClient::open(&sidecar, &key, "", &last_id).await;
        }
        sids
    };
    let (_, sids) = tokio::join!(join_all((0..WRITERS).map(write)), read);
    let different: BTreeSet<&String> = sids.iter().collect();
    assert_eq!((sids.len(), different.len()), (WRITERS * EACH, WRITERS * EACH), "{sids:?}");
    // The order is kept across connections.
    for writer in 0..WRITERS {
        let own = format!("SM{writer}x");
        let numbers: Vec<usize> = sids
            .iter()
            .filter_map(|sid| sid.strip_prefix(&own).map(|number| number.parse().unwrap()))
            .collect();
        assert_eq!(numbers.len(), EACH);
    }
}

async fn stream_has_the_webhooks_of_every_sidecar(world: World) {
    let one = world.sidecar().await;
    let key = app_key(&one).await;
    let other = world.sidecar().await;
    let mut at_one = LiveClient::open(&one, &key, "", "").await;
    let mut at_other = LiveClient::open(&other, &key, "", "").await;
    accepted(&one, &[from("SM1", ALICE)]).await;
    accepted(&other, &[from("SM2", ALICE)]).await;
    for live in [&mut at_one, &mut at_other] {
        assert_eq!(live.lines(2).await, ["SM1 received", "SM2 received"]);
    }
    // A stream continues at another sidecar.
    let last_id = at_one.last_id.clone();
    drop(at_one);
    one.kill();
    accepted(&other, &[from("SM3", ALICE)]).await;
    let mut continued = LiveClient::open(&other, &key, "", &last_id).await;
    assert_eq!(continued.lines(1).await, ["SM3 received"]);
}

/// On PostgreSQL an earlier transaction may commit after a later one. The stream waits for it.
#[tokio::test]
async fn stream_misses_no_transaction_that_commits_late() {
    let world = World::new(Kind::Postgres).await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_STREAM_HEARTBEAT_MS", "200")]).await;
    let key = app_key(&sidecar).await;
    let mut live = LiveClient::open(&sidecar, &key, "", "").await;
    let mut connection = PgConnection::connect(&world.database_url).await.unwrap();
    let mut late = connection.begin().await.unwrap();
    let now = jiff::Timestamp::now().as_millisecond();
    let insert = format!(
        "INSERT INTO events (dedupe_key, class, account_sid, message_sid, route, form, received_at_ms, attempts) \
         VALUES ('inbound:{ACCOUNT}:SMlate', 'inbound', '{ACCOUNT}', 'SMlate', '/twilio/inbound', 'Body=late', {now}, 1)"
    );
    sqlx::query(AssertSqlSafe(insert)).execute(&mut *late).await.unwrap();
    accepted(&sidecar, &[from("SM2", ALICE)]).await;
    assert_eq!(world.stored("SELECT message_sid FROM events").await, ["SM2"]);
    for _ in 0..3 {
        assert_eq!(live.next().await, LiveEvent::Heartbeat, "SM2 would come before SMlate");
    }
    let last_id = live.last_id.clone();
    late.commit().await.unwrap();
    assert_eq!(live.lines(2).await, ["SMlate received", "SM2 received"]);
    let mut continued = LiveClient::open(&sidecar, &key, "", &last_id).await;
    assert_eq!(continued.lines(2).await, ["SMlate received", "SM2 received"]);
}

/// A settlement at another sidecar may be recorded before the arrival, which has the content.
#[tokio::test]
async fn webhook_that_is_settled_before_it_is_recorded_comes_once_with_its_content() {
    let world = World::new(Kind::RedisPostgres).await;
    let late = world.sidecar_with(&[("TWILIO_EDGE_EVENTS_LINGER_MS", "3000")]).await;
    let key = app_key(&late).await;
    let early = world.sidecar_with(&[("TWILIO_EDGE_EVENTS_LINGER_MS", "1")]).await;
    let mut live = LiveClient::open(&early, &key, "", "").await;
    let claim = from("SM1", ALICE);
    late.claim(claim.clone()).await;
    early.commit(&claim).await;
    accepted(&early, &[from("SM2", ALICE)]).await;
    late.until_written().await;
    let mut lines = live.lines(2).await;
    lines.sort();
    assert_eq!(lines, ["SM1 received", "SM2 received"]);
    accepted(&early, &[from("SM3", ALICE)]).await;
    assert_eq!(live.lines(1).await, ["SM3 received"], "each comes once");
}

#[tokio::test]
async fn streams_are_limited_by_key_and_in_all() {
    let world = World::new(Kind::Sqlite).await;
    let limits = [("TWILIO_EDGE_STREAM_MAX_PER_KEY", "2"), ("TWILIO_EDGE_STREAM_MAX", "3")];
    let sidecar = world.sidecar_with(&limits).await;
    let administrator = administrator(&sidecar).await;
    let (_, one) = administrator.create("app", Some(ACCOUNT), "one").await;
    let (_, two) = administrator.create("app", Some(ACCOUNT), "two").await;
    let first = LiveClient::open(&sidecar, &one, "", "").await;
    let _second = LiveClient::open(&sidecar, &one, "", "").await;
    let third = request(&sidecar, &one, "", "").await;
    assert!(third.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(refused(third).await, coded(429, "too_many_streams"));
    let _of_two = LiveClient::open(&sidecar, &two, "", "").await;
    let of_two = request(&sidecar, &two, "", "").await;
    assert_eq!(refused(of_two).await, coded(429, "too_many_streams"));
    assert_eq!(sidecar.metric("twilio_edge_streams").await, 3.0);
    drop(first);
    eventually("the closed stream makes room", || async {
        sidecar.metric("twilio_edge_streams").await == 2.0
    })
    .await;
    LiveClient::open(&sidecar, &two, "", "").await;
    let closed = "twilio_edge_streams_closed_total{reason=\"client\"}";
    eventually("the ends are counted", || async { sidecar.metric(closed).await == 2.0 }).await;
    let log = sidecar.log();
    assert_eq!(log.matches("stream.opened").count(), 4, "{log}");
}

#[tokio::test]
async fn stream_of_a_slow_client_ends_and_can_be_continued() {
    const WEBHOOKS: usize = 300;
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_STREAM_SLOW_MS", "300")]).await;
    let key = app_key(&sidecar).await;
    // A client with a small buffer that does not read.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let address = sidecar.base.strip_prefix("http://").unwrap();
    let mut slow = socket.connect(address.parse().unwrap()).await.unwrap();
    let head = format!("GET /v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("id: ") {
        slow.read_buf(&mut text).await.unwrap();
    }
    let body = "x".repeat(30_000);
    for number in 0..WEBHOOKS {
        let claim =
            inbound(&format!("c{number}"), &format!("SM{number}"), "whatsapp:+15551230001", &body);
        sidecar.claim(claim.clone()).await;
        sidecar.commit(&claim).await;
    }
    sidecar.until_written().await;
    let sent = std::cell::Cell::new(-1.0);
    eventually("the client's buffers are full", || async {
        // Longer than the time after which the client is slow.
        tokio::time::sleep(Duration::from_millis(600)).await;
        let now = sidecar.metric("twilio_edge_stream_webhooks_total").await;
        sent.replace(now) == now
    })
    .await;
    assert!(sent.get() < WEBHOOKS as f64, "{}", sent.get());
    while !String::from_utf8_lossy(&text).contains("event: end") {
        assert!(slow.read_buf(&mut text).await.unwrap() > 0, "the stream broke without an end");
    }
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains(r#""reason":"slow""#));
    assert_eq!(sidecar.metric("twilio_edge_streams_closed_total{reason=\"slow\"}").await, 1.0);
    let got = text.matches("event: webhook").count();
    let last_id = text.rsplit("\nid: ").next().unwrap().lines().next().unwrap().trim();
    let mut live = LiveClient::open(&sidecar, &key, "", last_id).await;
    let rest = live.lines(WEBHOOKS - got).await;
    assert_eq!(rest.last().unwrap(), &format!("SM{} received", WEBHOOKS - 1));
}

#[tokio::test]
async fn stream_ends_at_its_greatest_age_and_with_its_key() {
    let world = World::new(Kind::Sqlite).await;
    let old = world.sidecar_with(&[("TWILIO_EDGE_STREAM_MAX_AGE_S", "1")]).await;
    let (_, key) = administrator(&old).await.create("app", Some(ACCOUNT), "live").await;
    let mut live = LiveClient::open(&old, &key, "", "").await;
    let LiveEvent::End(end) = live.next().await else { panic!("a sign of life came first") };
    assert_eq!(end["reason"], "expired");
    assert_eq!(live.next().await, LiveEvent::Closed);
    old.stop();

    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_STREAM_HEARTBEAT_MS", "200")]).await;
    let (_, admin) = made_by_operator(&world, "admin", None);
    let administrator = Caller::admin(&sidecar, &admin);
    let (id, revoked) = administrator.create("app", Some(ACCOUNT), "revoked").await;
    let mut live = LiveClient::open(&sidecar, &revoked, "", "").await;
    let path = format!("/v1/keys/{id}");
    administrator.send(reqwest::Method::DELETE, &path, String::new()).await;
    assert_eq!(live.end().await["reason"], "unauthorized");
    let again = request(&sidecar, &revoked, "", &live.last_id).await;
    assert_eq!(refused(again).await, coded(401, "unauthorized"));
}

#[tokio::test]
async fn stream_ends_with_the_sidecar() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let key = app_key(&sidecar).await;
    let mut live = LiveClient::open(&sidecar, &key, "", "").await;
    accepted(&sidecar, &[from("SM1", ALICE)]).await;
    let stopped = tokio::task::spawn_blocking(move || sidecar.stop());
    let end = live.end().await;
    assert_eq!(end["reason"], "shutdown");
    assert!(end["detail"].as_str().unwrap().contains("Last-Event-ID"), "{end}");
    assert_eq!(live.next().await, LiveEvent::Closed);
    let log = stopped.await.unwrap();
    assert!(!log.contains("shutdown.requests_aborted"), "{log}");
    assert!(log.contains("stream.closed"), "{log}");
}

#[tokio::test]
async fn gap_is_reported_before_the_webhooks() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let key = app_key(&sidecar).await;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let day_ms = 86_400_000;
    for (commit, at_ms, reason) in
        [(1, now_ms - day_ms - 1000, "expired"), (1_000_000, now_ms, "unknown")]
    {
        let position = StreamPosition::before(commit);
        let last_id = Cursor::Stream { position, at_ms }.to_string();
        let mut live = LiveClient::open(&sidecar, &key, "", &last_id).await;
        let LiveEvent::Gap(gap) = live.next().await else { panic!("no gap") };
        assert_eq!(gap["reason"], reason);
        assert!(gap["detail"].as_str().unwrap().contains("GET /v1/events"), "{gap}");
        accepted(&sidecar, &[from(&format!("SM{reason}"), ALICE)]).await;
        assert_eq!(live.lines(1).await, [format!("SM{reason} received")]);
    }
}
