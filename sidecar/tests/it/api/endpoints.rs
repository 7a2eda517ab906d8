//! The endpoints as such: who may call, what is refused and how, what is counted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, Executor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use twilio_edge_contract::{
    Decision, EXCHANGE_MEDIA_TYPE, EXCHANGE_PATH, ExchangeReply, ExchangeRequest, MAX_BATCH,
    Outcome, SettlementResult,
};

use crate::{
    access::api_keys::made_by_operator,
    support::servers::eventually,
    support::sidecar::{Sidecar, TOKEN, inbound, message, settlement, status},
    support::world::{Kind, World},
};

async fn sidecar() -> (World, Sidecar) {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    (world, sidecar)
}

/// Posts and expects a refusal; its status and its code.
async fn refusal(sidecar: &Sidecar, path: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
    refused(sidecar.post(path, body).await).await
}

/// As [`refusal`], of an exchange in its binary form.
async fn binary_refusal(sidecar: &Sidecar, body: impl Into<reqwest::Body>) -> (u16, String) {
    refused(sidecar.post_exchange(body).await).await
}

pub(crate) async fn refused(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").cloned().unwrap();
    let problem: Value = response.json().await.unwrap();
    assert_eq!(kind, "application/problem+json", "{problem}");
    assert_eq!(problem["status"], status);
    let code = problem["code"].as_str().unwrap().to_owned();
    assert_eq!(problem["type"], format!("urn:twilio-edge:problem:{code}"));
    assert!(!problem["title"].as_str().unwrap().is_empty());
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    let actors = ["caller", "operator", "recipient"];
    assert!(actors.contains(&problem["actor"].as_str().unwrap()));
    (status, code)
}

#[tokio::test]
async fn requests_without_the_token_are_refused() {
    let (world, sidecar) = sidecar().await;
    let body = json!({"v": 1, "claims": [message("c1", "SM1")]}).to_string();
    for shown in [
        None,
        Some(String::new()),
        Some(TOKEN.to_owned()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(format!("Basic {TOKEN}")),
        Some(format!("Bearer {TOKEN}x")),
        Some(format!("Bearer {}", TOKEN.trim_start_matches('a'))),
        Some(format!("Bearer {}", TOKEN.to_uppercase())),
    ] {
        let mut request = sidecar.client.post(format!("{}{EXCHANGE_PATH}", sidecar.base));
        if let Some(shown) = &shown {
            request = request.header("authorization", shown);
        }
        let response = request.body(body.clone()).send().await.unwrap();
        let expected = (401, "unauthorized".to_owned());
        assert_eq!(refused(response).await, expected, "{shown:?}");
    }
    let request = sidecar.client.post(format!("{}{EXCHANGE_PATH}", sidecar.base));
    let request = request.header("authorization", format!("bearer {TOKEN}"));
    assert_eq!(request.body(body).send().await.unwrap().status(), 200);
    assert!(!sidecar.log().contains(TOKEN));
    drop(world);
}

#[tokio::test]
async fn caller_with_many_wrong_tokens_is_blocked() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_API_BAD_TOKENS_PER_MINUTE", "5")]).await;
    let body = json!({"scope": "app", "name": "shop"}).to_string();
    let make = sidecar.client.post(format!("{}/v1/keys", sidecar.admin())).bearer_auth(TOKEN);
    let made: Value = make.body(body).send().await.unwrap().json().await.unwrap();
    let ask = async |token: &str| {
        let request = sidecar.client.get(format!("{}/v1/key", sidecar.base));
        request.bearer_auth(token).send().await.unwrap()
    };
    let good = made["token"].as_str().unwrap();
    assert_eq!(ask(good).await.status(), 200);
    let mut refusals = Vec::new();
    for n in 0..7 {
        refusals.push(refused(ask(&format!("guess{n}")).await).await);
    }
    let (unknown, enough) = ((401, "unauthorized".into()), (429, "too_many_bad_tokens".into()));
    assert_eq!(refusals[..5], vec![unknown; 5]);
    assert_eq!(refusals[5..], vec![enough.clone(); 2]);
    let again = ask("guess").await;
    let wait = again.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap();
    assert!((1..=13).contains(&wait), "{wait}");
    // The address is also blocked at the other listener, for a filter's token, and without any token.
    let keyless = sidecar.client.get(format!("{}/v1/keys", sidecar.admin())).send().await.unwrap();
    assert_eq!(refused(keyless).await, enough);
    let forged = sidecar.client.post(format!("{}{EXCHANGE_PATH}", sidecar.base)).bearer_auth("x");
    assert_eq!(refused(forged.send().await.unwrap()).await, enough);
    // Callers with a valid token at the same address are still served.
    assert_eq!(ask(good).await.status(), 200);
    sidecar.claim(message("c1", "SM1")).await;
}

#[tokio::test]
async fn bad_tokens_lock_no_good_key_of_their_address_out() {
    let world = World::new(Kind::Sqlite).await;
    let few = [("TWILIO_EDGE_API_BAD_TOKENS_PER_MINUTE", "1")];
    let sidecar = world.sidecar_with(&few).await;
    let (used, good) = made_by_operator(&world, "app", None);
    let (_, edge) = made_by_operator(&world, "edge", None);
    let ask = async |token: &str| {
        let request = sidecar.client.get(format!("{}/v1/key", sidecar.base));
        request.bearer_auth(token).send().await.unwrap()
    };
    assert_eq!(refused(ask("guess").await).await, (401, "unauthorized".into()));
    let enough = (429, "too_many_bad_tokens".to_owned());
    assert_eq!(refused(ask("guess").await).await, enough);
    // These valid keys are new to the sidecar, and their address has no attempts left.
    assert_eq!(ask(&good).await.status(), 200);
    let claims = sidecar.client.post(format!("{}{EXCHANGE_PATH}", sidecar.base)).bearer_auth(&edge);
    let claims = claims.body(json!({"v": 1, "claims": [message("c1", "SM1")]}).to_string());
    assert_eq!(claims.send().await.unwrap().status(), 200);
    // The sidecar accepts a new key within about a second.
    let (_, late) = made_by_operator(&world, "app", None);
    eventually("the new key is good", async || ask(&late).await.status() == 200).await;
    // The id of a valid key is not sufficient without its secret.
    let secret = good.rsplit('_').next().unwrap();
    let forged = good.replace(secret, &secret.chars().rev().collect::<String>());
    assert_eq!(refused(ask(&forged).await).await, enough);
    let unknown = good.replace(&used, "00000000deadbeef");
    assert_eq!(refused(ask(&unknown).await).await, enough);
    assert_eq!(ask(&good).await.status(), 200);
}

#[tokio::test]
async fn good_key_is_not_called_bad_while_the_list_of_keys_fails() {
    let world = World::new(Kind::Sqlite).await;
    let few = [("TWILIO_EDGE_API_BAD_TOKENS_PER_MINUTE", "1")];
    let sidecar = world.sidecar_with(&few).await;
    let (_, good) = made_by_operator(&world, "app", None);
    // The good key is on the second page of the list, beside a row that cannot be read.
    let unreadable = "
        PRAGMA ignore_check_constraints = ON;
        WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 500)
        INSERT INTO api_keys (id, name, scope, secret_sha256, created_at_ms, created_by)
        SELECT 'key' || n, 'many', CASE n WHEN 0 THEN 'unreadable' ELSE 'app' END, '', created_at_ms + 1 + n, 'test'
        FROM numbers, (SELECT max(created_at_ms) AS created_at_ms FROM api_keys)";
    let mut connection = sqlx::SqliteConnection::connect(&world.database_url).await.unwrap();
    connection.execute(sqlx::raw_sql(unreadable)).await.unwrap();
    let ask = async |token: &str| {
        let request = sidecar.client.get(format!("{}/v1/key", sidecar.base));
        request.bearer_auth(token).send().await.unwrap()
    };
    assert_eq!(refused(ask("guess").await).await, (401, "unauthorized".into()));
    assert_eq!(refused(ask("guess").await).await, (429, "too_many_bad_tokens".into()));
    for _ in 0..2 {
        assert_eq!(ask(&good).await.status(), 503, "the list of keys is incomplete");
    }
    world.stored("DELETE FROM api_keys WHERE scope = 'unreadable' RETURNING id").await;
    eventually("the good key is found", async || ask(&good).await.status() == 200).await;
    assert_eq!(refused(ask("guess").await).await, (429, "too_many_bad_tokens".into()));
}

#[tokio::test]
async fn malformed_batch_is_refused_whole() {
    let (world, sidecar) = sidecar().await;
    let good = json!(message("c1", "SM1"));
    let bad = |field: &str, value: Value| {
        let mut claim = good.clone();
        claim[field] = value;
        json!({"v": 1, "claims": [good, claim]}).to_string()
    };
    for body in [
        String::new(),
        "null".into(),
        "[]".into(),
        "{".into(),
        "\u{feff}{}".into(),
        "{}".into(),
        r#"{"v":"1","claims":[]}"#.into(),
        r#"{"v":1,"claims":{}}"#.into(),
        r#"{"v":1,"claims":null}"#.into(),
        bad("class", json!("other")),
        bad("class", json!("inbund")),
        bad("class", json!("status")),
        bad("claim_id", json!("")),
        bad("claim_id", json!("c\u{0}")),
        bad("account_sid", json!("AC:1")),
        bad("message_sid", json!("x".repeat(256))),
        bad("form", json!(7)),
        bad("form", Value::Null),
    ] {
        let refusal = refusal(&sidecar, EXCHANGE_PATH, body.clone()).await;
        assert_eq!(refusal, (400, "malformed_request".into()), "{body}");
    }
    let not_utf8 = b"{\"v\":1,\"claims\":[\"\xff\"]}".to_vec();
    assert_eq!(refusal(&sidecar, EXCHANGE_PATH, not_utf8).await, (400, "malformed_request".into()));
    let problem: Value =
        sidecar.post(EXCHANGE_PATH, bad("claim_id", json!(""))).await.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().starts_with("claims[1].claim_id:"), "{problem}");
    // Not even the good half of a batch was done.
    let claim = sidecar.claim(message("c1", "SM1")).await;
    assert_eq!(claim.attempt, Some(1));
    sidecar.stop();
    assert_eq!(world.stored("SELECT dedupe_key FROM events").await.len(), 1);
}

#[tokio::test]
async fn empty_exchange_is_answered_with_empty_lists() {
    let (_world, sidecar) = sidecar().await;
    for body in [r#"{"v":1}"#, r#"{"v":1,"claims":[],"settlements":[]}"#] {
        let response = sidecar.post(EXCHANGE_PATH, body).await;
        assert_eq!(response.status(), 200, "{body}");
        let reply: Value = response.json().await.unwrap();
        assert_eq!(reply, json!({"v": 1, "verdicts": [], "results": []}));
    }
    let (verdicts, results) = sidecar.exchange(vec![], vec![]).await;
    assert!(verdicts.is_empty() && results.is_empty());
}

#[tokio::test]
async fn malformed_binary_batch_is_refused_whole() {
    let (world, sidecar) = sidecar().await;
    let good = message("c1", "SM1");
    let exchange = ExchangeRequest::new(vec![good.clone()], vec![]).encode();
    let mut bodies: Vec<Vec<u8>> = (0..exchange.len()).map(|end| exchange[..end].into()).collect();
    bodies.extend([
        b"{}".to_vec(),
        json!({"v": 1, "claims": [good]}).to_string().into_bytes(),
        // The second claim is invalid.
        ExchangeRequest::new(vec![good.clone(), message("", "SM2")], vec![]).encode(),
        // An unknown class, no claim id, a claim id that is not UTF-8, a number that is too large, and too many records.
        b"TE\x01\x01\x04\x03c1\x09\x00".to_vec(),
        b"TE\x01\x01\x01\x00\x00".to_vec(),
        b"TE\x01\x01\x03\x02\xff\x00\x00".to_vec(),
        b"TE\x01\xff\xff\xff\xff\xff\x00".to_vec(),
        b"TE\x01\xff\xff\x03\x00".to_vec(),
    ]);
    for body in bodies {
        let refusal = binary_refusal(&sidecar, body.clone()).await;
        assert_eq!(refusal, (400, "malformed_request".into()), "{body:02x?}");
    }
    // A JSON endpoint reads no binary body.
    let refusal = refusal(&sidecar, EXCHANGE_PATH, exchange).await;
    assert_eq!(refusal, (400, "malformed_request".into()));
    for (body, start) in [
        (b"TE\x01\x01\x04\x03c1\x09\x00".to_vec(), "claims[0].class has an unknown value"),
        (ExchangeRequest::new(vec![message("", "SM2")], vec![]).encode(), "claims[0].claim_id:"),
    ] {
        let problem: Value = sidecar.post_exchange(body).await.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().starts_with(start), "{problem}");
    }
    assert_eq!(sidecar.claim(good).await.attempt, Some(1), "no part of a batch was processed");
    sidecar.stop();
    assert_eq!(world.stored("SELECT dedupe_key FROM events").await.len(), 1);
}

#[tokio::test]
async fn reply_has_the_form_of_its_request() {
    let (_world, sidecar) = sidecar().await;
    let request = |n: u8| {
        let earlier = settlement(&message(&format!("earlier{n}"), "SM0"), Outcome::Release);
        ExchangeRequest::new(vec![message(&format!("c{n}"), &format!("SM{n}"))], vec![earlier])
    };
    let json = |n| serde_json::to_vec(&request(n)).unwrap();
    let post = |kind: Option<&str>, body: Vec<u8>| {
        let post = sidecar.client.post(format!("{}{EXCHANGE_PATH}", sidecar.base));
        let post = kind.into_iter().fold(post, |post, kind| post.header("content-type", kind));
        post.bearer_auth(TOKEN).body(body).send()
    };
    for (n, kind, body, replied) in [
        (1, Some(EXCHANGE_MEDIA_TYPE), request(1).encode(), EXCHANGE_MEDIA_TYPE),
        (2, Some("application/json"), json(2), "application/json"),
        (3, None, json(3), "application/json"),
    ] {
        let response = post(kind, body).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], replied);
        let body = response.bytes().await.unwrap();
        let reply = match replied == EXCHANGE_MEDIA_TYPE {
            true => ExchangeReply::decode(&body).unwrap(),
            false => serde_json::from_slice(&body).unwrap(),
        };
        let [verdict] = &reply.verdicts[..] else { panic!("{reply:?}") };
        assert_eq!((&*verdict.claim_id, verdict.decision), (&*format!("c{n}"), Decision::Proceed));
        let [ack] = &reply.results[..] else { panic!("{reply:?}") };
        assert_eq!(ack.claim_id, format!("earlier{n}"));
        assert_eq!(ack.result, SettlementResult::Tombstoned);
    }
}

#[tokio::test]
async fn unknown_protocol_version_is_refused_before_its_contents() {
    let (_world, sidecar) = sidecar().await;
    let expected = (400, "unknown_version".to_owned());
    for body in [
        r#"{"v":2,"claims":[]}"#,
        r#"{"v":2,"settlements":[]}"#,
        r#"{"v":0}"#,
        r#"{"v":99,"anything":"else"}"#,
    ] {
        assert_eq!(refusal(&sidecar, EXCHANGE_PATH, body).await, expected, "{body}");
    }
    for body in [b"TE\x02".as_slice(), b"TE\x02\x00\x00", b"TE\x00", b"TE\x63anything"] {
        assert_eq!(binary_refusal(&sidecar, body).await, expected, "{body:02x?}");
    }
}

#[tokio::test]
async fn limits_are_kept_to_the_last_one() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_HTTP_MAX_BODY_BYTES", "200000")]).await;
    let batch =
        |count: usize| (0..count).map(|i| status(&format!("c{i}"), &format!("SM{i}"), "sent"));
    assert_eq!(sidecar.claim_all(batch(MAX_BATCH).collect()).await.len(), MAX_BATCH);
    // Each kind has its own limit.
    let settlements: Vec<_> =
        batch(MAX_BATCH).map(|claim| settlement(&claim, Outcome::Commit)).collect();
    let (verdicts, results) =
        sidecar.exchange(batch(MAX_BATCH).collect(), settlements.clone()).await;
    assert_eq!((verdicts.len(), results.len()), (MAX_BATCH, MAX_BATCH));
    let claims: Vec<_> = batch(MAX_BATCH + 1).collect();
    let settlement = settlement(&claims[0], Outcome::Commit);
    let settlements = [settlements, vec![settlement]].concat();
    let too_large = (413, "batch_too_large".to_owned());
    for request in [
        ExchangeRequest::new(claims, vec![]),
        ExchangeRequest::new(vec![message("c", "SM")], settlements),
    ] {
        let json = serde_json::to_vec(&request).unwrap();
        assert_eq!(refusal(&sidecar, EXCHANGE_PATH, json).await, too_large);
        assert_eq!(binary_refusal(&sidecar, request.encode()).await, too_large);
    }
    let claims = vec![inbound("c", "SM", "+1555", &"x".repeat(200_000))];
    let request = ExchangeRequest::new(claims, vec![]);
    let json = serde_json::to_vec(&request).unwrap();
    let too_large = (413, "body_too_large".to_owned());
    assert_eq!(refusal(&sidecar, EXCHANGE_PATH, json).await, too_large);
    assert_eq!(binary_refusal(&sidecar, request.encode()).await, too_large);
}

#[tokio::test]
async fn largest_batch_of_the_largest_webhooks_fits_the_defaults() {
    let (_world, sidecar) = sidecar().await;
    let claims = (0..MAX_BATCH).map(|i| {
        let claim = message(&format!("c{i}"), &format!("SM{i}"));
        let form = format!("{}&Filler={}", claim.form, "x".repeat(65_000));
        twilio_edge_contract::Claim { form, ..claim }
    });
    assert_eq!(sidecar.claim_all(claims.collect()).await.len(), MAX_BATCH);
}

#[tokio::test]
async fn request_that_does_not_arrive_times_out() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_HTTP_REQUEST_TIMEOUT_MS", "300")]).await;
    let address = sidecar.base.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {EXCHANGE_PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 10\r\n\r\n{{\"v\""
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let asked = Instant::now();
    let mut reply = vec![0; 1024];
    let read = stream.read(&mut reply).await.unwrap();
    let reply = String::from_utf8_lossy(&reply[..read]).into_owned();
    assert!(reply.starts_with("HTTP/1.1 503") && reply.contains("\"timeout\""), "{reply}");
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_in_the_same_form() {
    let (_world, sidecar) = sidecar().await;
    assert_eq!(refusal(&sidecar, "/edge/v2/exchange", "").await, (404, "not_found".into()));
    let expected = (405, "method_not_allowed".to_owned());
    assert_eq!(refusal(&sidecar, "/healthz", "").await, expected);
    let get = sidecar.client.get(format!("{}{EXCHANGE_PATH}", sidecar.base)).bearer_auth(TOKEN);
    assert_eq!(refused(get.send().await.unwrap()).await, expected);
}

#[tokio::test]
async fn health_and_metrics_report_the_state() {
    let (_world, sidecar) = sidecar().await;
    assert_eq!(sidecar.get("/healthz").await, (200, "ok\n".into()));
    assert_eq!(sidecar.get("/readyz").await, (200, r#"{"ready":true,"database":"ok"}"#.into()));

    sidecar.claim_all(vec![message("c1", "SM1"), message("c2", "SM1")]).await;
    let stop = inbound("c3", "SM3", "+15551230001", "STOP");
    sidecar.claim(stop.clone()).await;
    sidecar.commit(&stop).await;
    sidecar.release(&message("c9", "SM9")).await;
    for (series, value) in [
        ("twilio_edge_claims_total{decision=\"proceed\",class=\"inbound\"}", 2.0),
        ("twilio_edge_claims_total{decision=\"in_flight\",class=\"inbound\"}", 1.0),
        ("twilio_edge_claims_total{decision=\"duplicate\",class=\"inbound\"}", 0.0),
        ("twilio_edge_settlements_total{outcome=\"commit\",result=\"settled\"}", 1.0),
        ("twilio_edge_settlements_total{outcome=\"release\",result=\"tombstoned\"}", 1.0),
        ("twilio_edge_opt_events_total{opt=\"stop\"}", 1.0),
        ("twilio_edge_opt_events_total{opt=\"start\"}", 0.0),
        ("twilio_edge_claim_duration_seconds_count", 2.0),
        ("twilio_edge_store_fallthroughs_total{store=\"redis\"}", 0.0),
    ] {
        assert_eq!(sidecar.metric(series).await, value, "{series}");
    }
    assert!(sidecar.metric("twilio_edge_event_queue_depth").await >= 0.0);
}
