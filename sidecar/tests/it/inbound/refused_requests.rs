//! Requests that filters refused and reported: their causes, over the API and the command line, and the bounds of a flood.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{
    BodyContent, EXCHANGE_MEDIA_TYPE, HeaderLine, PublicOrigin, REFUSALS_PATH, RefusalReport,
    RefusalReportReply, RefusedRequest,
};
use twilio_edge_filter::form::Form;
use twilio_edge_filter::signature::{Key, Payload, sign};

use crate::{
    access::api_keys::{Caller, administrator},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, TOKEN},
    support::world::{Kind, World, on_every_store},
};

const OTHER: &str = "ACffffffffffffffffffffffffffffffff";
const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
const MESSAGE: &str = "SM00112233445566778899aabbccddeeff";

on_every_store!(
    cause_of_refused_requests_is_explained,
    refused_requests_are_visible_to_their_account_only,
    erasure_and_retention_reach_refused_requests,
);

async fn sidecar(world: &World, settings: &[(&str, &str)]) -> Sidecar {
    let accounts = world.directory.path().join("accounts.toml");
    let file = format!("[[account]]\nsid = \"{ACCOUNT}\"\nauth_tokens = [\"{AUTH_TOKEN}\"]\n");
    std::fs::write(&accounts, file).unwrap();
    let accounts = [("TWILIO_EDGE_ACCOUNTS_FILE", accounts.to_str().unwrap())];
    world.sidecar_with(&[&accounts, settings].concat()).await
}

fn signed_for(origin: &str, token: &str) -> RefusedRequest {
    signed_by(ACCOUNT, origin, token)
}

/// A webhook of an account that is signed for `origin` and arrived at another one.
pub(crate) fn signed_by(account_sid: &str, origin: &str, token: &str) -> RefusedRequest {
    let body = format!(
        "AccountSid={account_sid}&MessageSid={MESSAGE}&From=%2B15553217001&To=%2B15550001111&Body=hush"
    );
    let form = Form::parse(body.as_bytes()).unwrap();
    let key = Key::auth_token("", token).unwrap();
    let url = format!("{origin}/twilio/inbound?tenant=acme");
    let signature = sign(&url, Payload::Form(&form), &key);
    let host = origin.split_once("://").unwrap().1.to_owned();
    let line = |name: &str, value: String| HeaderLine { name: name.to_owned(), value };
    RefusedRequest {
        reason: "invalid-signature".to_owned(),
        route: "/twilio/inbound".to_owned(),
        is_shadow: false,
        method: "POST".to_owned(),
        target: "/twilio/inbound?tenant=acme".to_owned(),
        headers: vec![
            line("x-twilio-signature", signature),
            line("content-type", "application/x-www-form-urlencoded".to_owned()),
            line(":authority", host),
        ],
        body_bytes: u32::try_from(body.len()).unwrap(),
        body,
        body_content: BodyContent::Full,
        age_ms: 0,
        skipped: 0,
        request_id: Some("request-1".to_owned()),
    }
}

/// Reports requests as a filter does. Returns the number that the sidecar examines.
pub(crate) async fn report(sidecar: &Sidecar, token: &str, requests: Vec<RefusedRequest>) -> u32 {
    let origin = PublicOrigin("https://hooks.example.com".to_owned());
    let report = RefusalReport::new(vec![origin], requests);
    let post = sidecar.client.post(format!("{}{REFUSALS_PATH}", sidecar.base)).bearer_auth(token);
    let post = post.header("content-type", EXCHANGE_MEDIA_TYPE).body(report.encode());
    let response = post.send().await.unwrap();
    let (status, body) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<RefusalReportReply>(&body).unwrap().accepted
}

/// Waits until the sidecar has stored so many requests in all groups that the caller sees.
async fn groups(app: &Caller<'_>, requests: i64) -> Vec<Value> {
    let groups = async || app.get("/v1/refusals").await["refusals"].as_array().unwrap().clone();
    eventually("the reported requests are stored", async || {
        let groups = groups().await;
        groups.iter().map(|group| group["requests"].as_i64().unwrap()).sum::<i64>() == requests
    })
    .await;
    groups().await
}

async fn cause_of_refused_requests_is_explained(world: World) {
    let sidecar = sidecar(&world, &[]).await;
    let admin = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &admin.create("app", None, "console").await.1);
    let old = signed_for("https://old.example.com", AUTH_TOKEN);
    let forged = signed_for("https://hooks.example.com", "ffffffffffffffffffffffffffffffff");
    let sent = vec![old.clone(), RefusedRequest { skipped: 7, ..old }, forged];
    assert_eq!(report(&sidecar, TOKEN, sent).await, 3);

    let found = groups(&app, 3).await;
    let group = found.iter().find(|group| group["cause"] == "origin").unwrap();
    assert_eq!((&group["requests"], &group["skipped"]), (&json!(2), &json!(7)), "{group}");
    assert_eq!(group["kind"], "misconfiguration");
    assert_eq!(group["account_sid"], ACCOUNT);
    let summary = group["summary"].as_str().unwrap();
    assert!(summary.starts_with("2 requests since "), "{summary}");
    assert!(summary.ends_with("were signed for https://old.example.com"), "{summary}");
    let remedy = group["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("Add https://old.example.com to `origins`"), "{remedy}");
    let other = found.iter().find(|group| group["cause"] == "stranger").unwrap();
    assert_eq!((&other["kind"], &other["account_sid"]), (&json!("stranger"), &Value::Null));

    // One request, with the complete explanation and without any value.
    let id = group["id"].as_str().unwrap();
    let page = app.get(&format!("/v1/refusals/requests?group_id={id}&limit=1")).await;
    let next = page["next_cursor"].as_str().unwrap();
    let rest = app.get(&format!("/v1/refusals/requests?group_id={id}&cursor={next}")).await;
    assert_eq!(rest["requests"].as_array().unwrap().len(), 1);
    assert_ne!(rest["requests"][0]["id"], page["requests"][0]["id"]);
    let id = page["requests"][0]["id"].as_str().unwrap();
    let request = app.get(&format!("/v1/refusals/{id}")).await;
    assert_eq!(request["explanation"]["signed"]["changes"][0]["what"], "host", "{request}");
    assert_eq!(request["message_sid"], MESSAGE);
    assert_eq!(request["parameters"][4], "Body");
    assert_eq!(request["request_id"], "request-1");
    let text = request.to_string();
    for private in ["hush", "15553217001", "acme", AUTH_TOKEN] {
        assert!(!text.contains(private), "{private} in {text}");
    }
    let stored =
        world.stored("SELECT explanation || path || parameters FROM refused_requests").await;
    assert!(!stored.concat().contains("hush") && !stored.concat().contains("acme"), "{stored:?}");

    // Filters, and what is refused.
    for (query, count) in [("kind=stranger", 1), ("cause=origin", 1), ("cause=path", 0)] {
        let page = app.get(&format!("/v1/refusals?{query}")).await;
        assert_eq!(page["refusals"].as_array().unwrap().len(), count, "{query}");
    }
    for (path, code) in [
        ("/v1/refusals?kind=x", "malformed_request"),
        ("/v1/refusals?cursor=x", "invalid_cursor"),
        ("/v1/refusals/requests?group_id=rg_1", "malformed_request"),
        ("/v1/refusals/rr_00112233445566778899aabbccddeeff", "no_such_refused_request"),
        ("/v1/refusals/x", "no_such_refused_request"),
    ] {
        assert_eq!(app.refusal(Method::GET, path, &Value::Null).await.1, code, "{path}");
    }
    let series = "twilio_edge_refused_requests_total{kind=\"misconfiguration\",cause=\"origin\"}";
    assert_eq!(sidecar.metric(series).await, 2.0);

    command_line_explains(&world, group["id"].as_str().unwrap(), id);
    let log = sidecar.stop();
    let logged = log.matches("refused_requests.misconfigured").count();
    assert_eq!(logged, 1, "once for each cause: {log}");
    assert!(!log.contains("hush"), "{log}");
}

fn command_line_explains(world: &World, group: &str, request: &str) {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
        let done =
            command.args(arguments).env("DATABASE_URL", &world.database_url).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let listed = run(&["refused", "list", "--kind", "misconfiguration"]);
    assert!(listed.contains(group) && listed.contains("https://old.example.com"), "{listed}");
    assert!(!listed.contains("stranger"), "{listed}");
    assert!(run(&["refused", "show", group]).contains(request));
    let explained = run(&["refused", "explain", request]);
    assert!(explained.contains("Cause: origin (misconfiguration)"), "{explained}");
    assert!(explained.contains("Add https://old.example.com to `origins`"), "{explained}");
    let json: Value =
        serde_json::from_str(&run(&["refused", "explain", request, "--json"])).unwrap();
    assert_eq!(json["cause"], "origin");
}

async fn refused_requests_are_visible_to_their_account_only(world: World) {
    let sidecar = sidecar(&world, &[]).await;
    let admin = administrator(&sidecar).await;
    let all = Caller::app(&sidecar, &admin.create("app", None, "all").await.1);
    let own = Caller::app(&sidecar, &admin.create("app", Some(ACCOUNT), "own").await.1);
    let other = Caller::app(&sidecar, &admin.create("app", Some(OTHER), "other").await.1);
    let old = signed_for("https://old.example.com", AUTH_TOKEN);
    // A stranger may name any account.
    let forged = signed_for("https://old.example.com", "ffffffffffffffffffffffffffffffff");
    report(&sidecar, TOKEN, vec![old, forged]).await;
    groups(&all, 2).await;
    let seen = groups(&own, 1).await;
    assert_eq!(seen[0]["cause"], "origin");
    let id =
        own.get("/v1/refusals/requests").await["requests"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(own.get(&format!("/v1/refusals/{id}")).await["account_sid"], ACCOUNT);

    groups(&other, 0).await;
    assert_eq!(other.get("/v1/refusals/requests").await["requests"], json!([]));
    let missing = (404, "no_such_refused_request".to_owned());
    let path = format!("/v1/refusals/{id}");
    assert_eq!(other.refusal(Method::GET, &path, &Value::Null).await, missing);
    let path = format!("/v1/refusals?account_sid={ACCOUNT}");
    let refused = other.refusal(Method::GET, &path, &Value::Null).await;
    assert_eq!(refused, (403, "other_account".to_owned()));
}

async fn erasure_and_retention_reach_refused_requests(world: World) {
    let sidecar = sidecar(&world, &[("TWILIO_EDGE_REDACTION_EVERY_S", "1")]).await;
    let admin = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &admin.create("app", None, "all").await.1);
    report(&sidecar, TOKEN, vec![signed_for("https://old.example.com", AUTH_TOKEN)]).await;
    groups(&app, 1).await;
    let asked = json!({"account_sid": ACCOUNT, "message_sid": MESSAGE}).to_string();
    let erased = admin.send(Method::POST, "/v1/redactions", asked).await;
    assert_eq!(erased.status(), 200);
    assert_eq!(app.get("/v1/refusals/requests").await["requests"], json!([]));
    groups(&app, 1).await;

    // A request of last week, and its group, end by themselves.
    let token = app.token.clone();
    sidecar.stop();
    let sidecar = self::sidecar(
        &world,
        &[
            ("TWILIO_EDGE_REDACTION_EVERY_S", "1"),
            ("TWILIO_EDGE_RETENTION_REFUSED_REQUESTS", "none"),
        ],
    )
    .await;
    let app = Caller::app(&sidecar, &token);
    groups(&app, 0).await;
    let ignored = report(&sidecar, TOKEN, vec![signed_for("https://a.example", AUTH_TOKEN)]).await;
    assert_eq!(ignored, 0, "nothing is examined if nothing is stored");
}

#[tokio::test]
async fn strangers_fill_neither_the_queue_nor_the_database() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = sidecar(&world, &[]).await;
    let admin = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &admin.create("app", None, "all").await.1);
    let mut accepted = 0;
    for n in 0..25 {
        let forged = signed_for("https://old.example.com", &format!("{n:032x}"));
        accepted += report(&sidecar, TOKEN, vec![forged; 16]).await;
    }
    // 128 wait, and a few were examined meanwhile.
    assert!((128..400).contains(&accepted), "{accepted}");
    let dropped = "twilio_edge_refused_request_reports_total{outcome=\"dropped\"}";
    assert_eq!(sidecar.metric(dropped).await, f64::from(400 - accepted));
    // Genuine webhooks are answered meanwhile.
    let claim = crate::support::sidecar::message("c1", "SM1");
    assert_eq!(sidecar.decide(claim).await, twilio_edge_contract::Decision::Proceed);
    eventually("more than one group's requests were examined", async || {
        let page = app.get("/v1/refusals").await;
        page["refusals"][0]["requests"].as_i64().unwrap_or_default() > 21
    })
    .await;
    let stored = world.stored("SELECT CAST(count(*) AS TEXT) FROM refused_requests").await;
    assert_eq!(stored, ["20"]);
    let groups = world.stored("SELECT kind FROM refused_groups").await;
    assert_eq!(groups, ["stranger"]);
}

#[tokio::test]
async fn invalid_report_is_refused() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let post = async |body: Vec<u8>, token: &str| {
        let request = sidecar.client.post(format!("{}{REFUSALS_PATH}", sidecar.base));
        let request = request.bearer_auth(token).header("content-type", EXCHANGE_MEDIA_TYPE);
        crate::api::endpoints::refused(request.body(body).send().await.unwrap()).await
    };
    let request = signed_for("https://a.example", AUTH_TOKEN);
    let many = RefusalReport::new(Vec::new(), vec![request; 17]).encode();
    assert_eq!(post(many, TOKEN).await, (413, "batch_too_large".to_owned()));
    assert_eq!(post(b"TE\x02".to_vec(), TOKEN).await, (400, "unknown_version".to_owned()));
    assert_eq!(post(b"{}".to_vec(), TOKEN).await, (400, "malformed_request".to_owned()));
    let empty = RefusalReport::new(Vec::new(), Vec::new()).encode();
    assert_eq!(post(empty, "wrong").await, (401, "unauthorized".to_owned()));
}
