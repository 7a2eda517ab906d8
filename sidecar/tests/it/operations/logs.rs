//! Log lines of the sidecar: each has its fields, none contains a secret, and repeated lines are limited so that they do not
//! fill the disk.

use std::{collections::BTreeSet, process::Command};

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{Decision, EXCHANGE_PATH, Outcome};

use crate::{
    access::api_keys::{Caller, administrator},
    inbound::deliveries::accepted,
    support::servers::{eventually, free_port},
    support::sidecar::{ACCOUNT, Sidecar, TOKEN, inbound, settlement, status},
    support::world::{Kind, World},
};

const ALICE: &str = "15557654321";

/// Values that no log line may contain: tokens, passwords, bodies, names, proofs, numbers.
const SECRETS: [&str; 18] = [
    TOKEN,
    "auth-token-of-the-account",
    "shared-secret-of-the-account",
    "password-of-postgres",
    "password-of-redis",
    "key-of-the-hashes",
    "twe_0000000000000000_forged",
    "this is confidential",
    "confidential+name",
    "proof-they-were-shown",
    "header-of-the-collector",
    "path-of-the-collector",
    "path-of-the-sink",
    "query-of-the-sink",
    "path-of-the-callback",
    ALICE,
    "7654321",
    "5550001111",
];

const ACCOUNTS: &str = r#"
[[account]]
sid = "AC00112233445566778899aabbccddeeff"
auth_tokens = ["auth-token-of-the-account"]
[[account.shared_keys]]
id = "webhooks_sharedkey_1"
secret = "shared-secret-of-the-account"
algorithm = "HMAC_SHA256"
"#;

/// Performs each action that may be logged, with valid and with invalid input. Returns the tokens that it created.
async fn live(sidecar: &Sidecar) -> Vec<String> {
    let from = format!("whatsapp:+{ALICE}");
    let mut claims = Vec::new();
    for (nth, body) in ["this is confidential", "STOP", "START"].into_iter().enumerate() {
        let mut claim = inbound("c1", &format!("SM{nth}"), &from, body);
        claim.form += "&ProfileName=confidential+name&X-Twilio-Signature=c2lnbmF0dXJl";
        claims.push(claim);
    }
    sidecar.claim_all(claims.clone()).await;
    sidecar.claim_all(vec![status("c2", "SM0", "delivered"), claims[0].clone()]).await;
    sidecar.settle_all(claims.iter().map(|one| settlement(one, Outcome::Commit)).collect()).await;
    sidecar.post(EXCHANGE_PATH, "this is confidential").await;
    sidecar.post_exchange("this is confidential").await;
    sidecar.post_exchange("TE\u{1}\u{1}\u{14}this is confidential").await;
    let edge = Caller::app(sidecar, TOKEN);
    edge.send(Method::GET, "/edge/v1/config", String::new()).await;

    let admin = administrator(sidecar).await;
    let (id, token) = admin.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(sidecar, &token);
    for (path, body) in [
        ("/v1/suppressions", json!({"number": format!("+{ALICE}")})),
        ("/v1/suppressions", json!({"number": format!("no number {ALICE}")})),
        (
            "/v1/consents",
            json!({"number": format!("+{ALICE}"), "category": "marketing",
            "source": "form", "proof": "proof-they-were-shown"}),
        ),
        ("/v1/checks", json!({"to": format!("+{ALICE}"), "kind": "template"})),
        ("/v1/checks", json!("this is confidential")),
    ] {
        app.send(Method::POST, path, body.to_string()).await;
    }
    for path in [
        format!("/v1/messages?number=%2B{ALICE}"),
        format!("/v1/numbers/+{ALICE}"),
        format!("/v1/nowhere/{ALICE}"),
        format!("/v1/consents/{ALICE}?account_sid=ACffffffffffffffffffffffffffffffff"),
    ] {
        app.send(Method::GET, &path, String::new()).await;
    }
    let list = format!("/v1/suppressions/import?account_sid={ACCOUNT}");
    admin.send(Method::POST, &list, format!("number\n+{ALICE}\nno {ALICE}\n")).await;
    let redaction = json!({"account_sid": ACCOUNT, "number": format!("+{ALICE}")});
    admin.send(Method::POST, "/v1/redactions", redaction.to_string()).await;
    let forged = Caller::app(sidecar, "twe_0000000000000000_forged");
    forged.send(Method::GET, "/v1/key", String::new()).await;
    admin.send(Method::DELETE, &format!("/v1/keys/{id}"), String::new()).await;
    app.send(Method::GET, "/v1/key", String::new()).await;
    vec![admin.token.clone(), token]
}

/// The names of the events, as the program prints them.
fn events() -> BTreeSet<String> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
    let printed = program.args(["reference", "events"]).output().unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    let names = text.lines().skip(2).map(|line| line.split('`').nth(1).unwrap().to_owned());
    names.collect()
}

fn nothing_secret(log: &str, made: &[String]) {
    let own = made.iter().map(|token| token.rsplit('_').next().unwrap());
    for secret in SECRETS.into_iter().chain(own) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test]
async fn log_lines_have_an_event_and_no_secret() {
    for format in ["json", "text"] {
        let world = World::new(Kind::RedisPostgres).await;
        let accounts = world.directory.path().join("accounts.toml");
        std::fs::write(&accounts, ACCOUNTS).unwrap();
        let with = |url: &str, credentials: &str| {
            let (scheme, rest) = url.split_once("://").unwrap();
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{credentials}@{host}")
        };
        let user = world.database_url.split_once("://").unwrap().1;
        let user = user.split_once('@').map_or("postgres", |(user, _)| user);
        let user = user.split(':').next().unwrap().to_owned();
        let database = with(&world.database_url, &format!("{user}:password-of-postgres"));
        let redis = with(&world.redis.as_ref().unwrap().url(), ":password-of-redis");
        let collector = format!("http://127.0.0.1:{}/path-of-the-collector", free_port());
        // The path of a sink's URL may be its password. No server listens at this address.
        let sinks = world.directory.path().join("sinks.toml");
        let url = format!("http://127.0.0.1:{}/path-of-the-sink?query-of-the-sink", free_port());
        let sink = format!("[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"{url}\"\n");
        std::fs::write(&sinks, sink).unwrap();
        let sidecar = world
            .sidecar_with(&[
                ("DATABASE_URL", &database),
                // This Redis has no password and refuses clients that send one, so it stays unavailable.
                ("REDIS_URL", &redis),
                ("TWILIO_EDGE_ACCOUNTS_FILE", accounts.to_str().unwrap()),
                ("TWILIO_EDGE_REDACTION_HASH_KEY", "key-of-the-hashes"),
                ("TWILIO_EDGE_SINKS_FILE", sinks.to_str().unwrap()),
                (
                    "TWILIO_EDGE_SENDING_STATUS_CALLBACK_URL",
                    "https://hooks.example.com/path-of-the-callback",
                ),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector),
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=header-of-the-collector"),
                ("TWILIO_EDGE_TELEMETRY_EVERY_MS", "20"),
                ("TWILIO_EDGE_LOG_LEVEL", "debug"),
                ("TWILIO_EDGE_LOG_FORMAT", format),
            ])
            .await;
        let made = live(&sidecar).await;
        let owed = accepted(inbound("c9", "SM9", "whatsapp:+15550009999", "hello"));
        assert_eq!(sidecar.decide(owed).await, Decision::Accepted);
        eventually("the unavailable sink is logged", async || {
            sidecar.log().contains("sink.unavailable")
        })
        .await;
        eventually("the failed export of traces is logged", || async {
            sidecar.log().contains("traces.export_failed")
        })
        .await;
        // A user may forget the brackets.
        let broken = ACCOUNTS.replace(['[', ']'], "").replace("account\n", "[[account]]\n");
        std::fs::write(&accounts, broken).unwrap();
        let reread = || async {
            let edge = Caller::app(&sidecar, TOKEN);
            edge.send(Method::GET, "/edge/v1/config", String::new()).await;
            sidecar.log().contains("accounts.reload_failed")
        };
        eventually("the unusable accounts file is logged", reread).await;
        let log = sidecar.stop();
        nothing_secret(&log, &made);
        let is_logged = |event: &str| match format {
            "json" => log.contains(&format!("\"event\":\"{event}\"")),
            _ => log.contains(&format!("event=\"{event}\"")),
        };
        for event in [
            "sidecar.listening",
            "admin.listening",
            "accounts.loaded",
            "accounts.reload_failed",
            "redis.unavailable",
            "claim.answered",
            "settlement.answered",
            "suppression.changed",
            "request.answered",
            "request.refused",
            "key.created",
            "key.revoked",
            "traces.export_failed",
            "sidecar.stopping",
            "sidecar.stopped",
        ] {
            assert!(is_logged(event), "{event} in\n{log}");
        }
        if format == "json" {
            every_line_is_whole(&log);
        }
    }
}

fn every_line_is_whole(log: &str) {
    let events = events();
    for line in log.lines() {
        let fields: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for field in ["timestamp", "level", "target"] {
            assert!(fields[field].is_string(), "{field}: {line}");
        }
        // Lines of libraries have no event.
        if fields["target"].as_str().unwrap().starts_with("twilio_edge") {
            let event = fields["event"].as_str().unwrap_or_else(|| panic!("no event: {line}"));
            assert!(events.contains(event), "{event} is not in the table");
            assert!(fields["message"].is_string(), "{line}");
        }
        if fields["event"] == "request.refused" {
            assert!(fields["code"].is_string() && fields["http.route"].is_string(), "{line}");
            assert!(fields["status"].as_u64().unwrap() < 500, "{line}");
        }
    }
}

#[tokio::test]
async fn repeated_log_lines_are_limited_and_counted() {
    let world = World::new(Kind::Sqlite).await;
    let settings = [
        ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "30"),
        ("TWILIO_EDGE_LOG_LEVEL", "debug"),
        ("TWILIO_EDGE_API_BAD_TOKENS_PER_MINUTE", "1000"),
        ("TWILIO_EDGE_EVENTS_SPOOL_DIR", "off"),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    let stranger = Caller::app(&sidecar, "unknown-token");
    for _ in 0..100 {
        stranger.send(Method::GET, "/v1/key", String::new()).await;
    }
    // The test reads the log in the background, on a busy machine with a delay.
    let count = |what: &str| sidecar.log().matches(what).count();
    eventually("ten refusals are logged", async || count("request.refused") >= 10).await;

    // The database does not answer, because another connection has locked the file.
    let path = world.database_url.strip_prefix("sqlite://").unwrap().to_owned();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let from = format!("+{ALICE}");
    for nth in 0..40 {
        sidecar.claim(inbound("c1", &format!("SM{nth}"), &from, "STOP")).await;
    }
    // Each decision is logged.
    eventually("forty decisions are logged", async || count("claim.answered") >= 40).await;
    assert_eq!(count("claim.answered"), 40);
    let (lines, refusals) = (count("optout.persist_failed"), count("request.refused"));
    assert!((10..25).contains(&lines), "{lines}");
    assert!((10..60).contains(&refusals), "{refusals}");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    eventually("the number of suppressed lines is logged", || async {
        sidecar.log().contains("log.lines_suppressed")
            && sidecar.log().contains("of=\"request.refused\"")
    })
    .await;
    let held = sidecar.metric("twilio_edge_log_lines_suppressed_total").await;
    assert!(held >= 40.0, "{held}");
    nothing_secret(&sidecar.stop(), &[]);
}
