//! Metrics of a running sidecar, read by the parser of Prometheus' official Python client, which refuses what OpenMetrics
//! forbids. The families are exactly those of docs/METRICS.md, and no request can add one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::Outcome;

use crate::{
    access::api_keys::{Caller, administrator},
    support::servers::eventually,
    support::sidecar::{Sidecar, inbound, message, settlement, status},
    support::world::{Kind, World},
};

/// Each family with its kind and, of each of its series, the labels.
const READ: &str = r#"
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
hidden = {"le"}
families = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family.name
    assert family.name not in families, family.name
    series = [[s.name, {k: v for k, v in s.labels.items() if k not in hidden}] for s in family.samples]
    families[family.name] = [family.type, series]
json.dump(families, sys.stdout)
"#;

type Labels = BTreeMap<String, String>;

struct Family {
    kind: String,
    labels: BTreeSet<Labels>,
}

async fn scraped(sidecar: &Sidecar) -> BTreeMap<String, Family> {
    let response = sidecar.client.get(format!("{}/metrics", sidecar.base)).send().await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let text = response.text().await.unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = root.join(".tools/prometheus/bin/python");
    assert!(python.exists(), "Prometheus' client is not installed: run `make setup-test`");
    let mut reader = Command::new(python);
    reader.args(["-c", READ]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut reader = reader.spawn().unwrap();
    reader.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let read = reader.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "{complaint}\n{text}");
    let families: BTreeMap<String, (String, Vec<(String, Labels)>)> =
        serde_json::from_slice(&read.stdout).unwrap();
    let whole = families.into_iter().map(|(name, (kind, series))| {
        let suffix = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels = series.into_iter().map(|(_, labels)| labels).collect();
        (name + suffix, Family { kind, labels })
    });
    whole.collect()
}

/// Each row of the sidecar's table, as the program prints it: name, with its labels, and kind.
fn described() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let program = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["reference", "metrics"])
        .output()
        .unwrap();
    let text = String::from_utf8(program.stdout).unwrap();
    let table =
        text.rsplit_once("| metric | kind | meaning |\n|---|---|---|\n").unwrap().1.to_owned();
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (name, kind) = (cells.next().unwrap().trim_matches('`'), cells.next().unwrap());
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.split_once('=').unwrap().0.to_owned()).collect();
        (name.to_owned(), (kind.to_owned(), labels))
    };
    table.lines().map(row).collect()
}

#[tokio::test]
async fn every_family_is_in_the_table_and_the_other_way_round() {
    for kind in [Kind::Sqlite, Kind::RedisPostgres] {
        let world = World::new(kind).await;
        // A sink's families have series when there is a sink.
        let sinks = world.directory.path().join("sinks.toml");
        let sink = "[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"http://127.0.0.1:9/\"\n";
        std::fs::write(&sinks, sink).unwrap();
        let sinks = sinks.display().to_string();
        let sidecar = world.sidecar_with(&[("TWILIO_EDGE_SINKS_FILE", &sinks)]).await;
        let described = described();
        let scraped = scraped(&sidecar).await;
        let names = |one: BTreeSet<&String>| one.into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(names(scraped.keys().collect()), names(described.keys().collect()));
        for (name, family) in &scraped {
            let (kind, labels) = &described[name];
            assert_eq!(&family.kind, kind, "{name}");
            assert!(!family.labels.is_empty(), "{name}: no series before anything happened");
            for series in &family.labels {
                assert_eq!(&series.keys().cloned().collect::<BTreeSet<_>>(), labels, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn metrics_have_no_label_from_a_request() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let ask = async |nth: usize| {
        let marked = format!("odd{nth}");
        let from = format!("whatsapp:+1415555{nth:04}");
        let claim = inbound(&marked, &format!("SM{nth}"), &from, &marked);
        sidecar.claim_all(vec![claim.clone(), status("c2", &format!("SM{nth}"), &marked)]).await;
        sidecar.settle(settlement(&claim, Outcome::Commit)).await;
        let stranger = Caller::app(&sidecar, &marked);
        stranger.refusal(Method::GET, &format!("/v1/messages/{marked}"), &Value::Null).await;
        stranger.refusal(Method::GET, &format!("/{marked}"), &Value::Null).await;
        let method = Method::from_bytes(marked.to_uppercase().as_bytes()).unwrap();
        stranger.send(method, "/v1/key", String::new()).await;
        admin.get(&format!("/v1/keys?account_sid=AC{nth:032x}")).await;
    };
    ask(0).await;
    let series = async || -> Vec<(String, Labels)> {
        let families = scraped(&sidecar).await.into_iter();
        let of = |(name, family): (String, Family)| {
            family.labels.into_iter().map(move |labels| (name.clone(), labels))
        };
        families.flat_map(of).collect()
    };
    // TomlReader them is a route of its own.
    series().await;
    let before = series().await;
    for nth in 1..20 {
        ask(nth).await;
    }
    assert_eq!(series().await, before);
    assert!(before.iter().all(|(_, labels)| !json!(labels).to_string().contains("odd")));
}

#[tokio::test]
async fn metrics_count_each_operation() {
    let mut world = World::new(Kind::RedisPostgres).await;
    world.own_redis().await;
    let settings = [
        ("TWILIO_EDGE_API_BURST", "1"),
        ("TWILIO_EDGE_API_REQUESTS_PER_SECOND", "1"),
        ("TWILIO_EDGE_API_BAD_TOKENS_PER_MINUTE", "2"),
        ("TWILIO_EDGE_REDIS_RETRY_AFTER_MS", "10"),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    let claims: Vec<_> = (0..3).map(|nth| message("c1", &format!("SM{nth}"))).collect();
    sidecar.claim_all(claims.clone()).await;
    sidecar.commit(&claims[0]).await;
    sidecar.release(&claims[1]).await;
    let bucket =
        |of: &str, le: &str| format!("twilio_edge_batch_size_bucket{{le=\"{le}\",of=\"{of}\"}}");
    let count = |operation: &str| {
        format!("twilio_edge_store_duration_seconds_count{{operation=\"{operation}\"}}")
    };
    for (series, value) in [
        (bucket("claims", "2.0"), 0.0),
        (bucket("claims", "4.0"), 1.0),
        (bucket("settlements", "1.0"), 2.0),
        (count("leases_claim"), 1.0),
        (count("ledger_look_up"), 1.0),
        (count("journal_note"), 3.0),
        (count("journal_write"), 0.0),
        (count("leases_commit"), 1.0),
        (count("leases_release"), 1.0),
        (count("ledger_claim"), 0.0),
        ("twilio_edge_redis_state{state=\"up\"}".into(), 1.0),
        ("twilio_edge_redis_state{state=\"none\"}".into(), 0.0),
        ("twilio_edge_claims_total{decision=\"proceed\",class=\"inbound\"}".into(), 3.0),
    ] {
        assert_eq!(sidecar.metric(&series).await, value, "{series}");
    }
    assert!(
        sidecar.metric("twilio_edge_sql_connections{pool=\"quick\",state=\"idle\"}").await > 0.0
    );
    assert!(sidecar.metric("process_resident_memory_bytes").await > 1e6);
    assert!(sidecar.metric("process_open_fds").await > 5.0);
    assert!(sidecar.metric("process_max_fds").await > sidecar.metric("process_open_fds").await);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let age_s = now.as_secs_f64() - sidecar.metric("process_start_time_seconds").await;
    assert!((0.0..60.0).contains(&age_s), "{age_s}");

    // Refused API keys and rate-limited callers.
    let failures =
        |reason: &str| format!("twilio_edge_api_key_failures_total{{reason=\"{reason}\"}}");
    let limited = |by: &str| format!("twilio_edge_rate_limited_total{{by=\"{by}\"}}");
    let admin = administrator(&sidecar).await;
    let bootstrap = Caller::admin(&sidecar, crate::support::sidecar::TOKEN);
    bootstrap.refusal(Method::GET, "/v1/keys", &Value::Null).await;
    assert_eq!(sidecar.metric(&failures("scope")).await, 1.0);
    for _ in 0..2 {
        admin.send(Method::GET, "/v1/keys", String::new()).await;
    }
    assert!(sidecar.metric(&limited("key")).await >= 1.0);
    for _ in 0..3 {
        Caller::app(&sidecar, "stranger").refusal(Method::GET, "/v1/key", &Value::Null).await;
    }
    assert_eq!(sidecar.metric(&failures("unknown")).await, 2.0);
    assert_eq!(sidecar.metric(&limited("address")).await, 1.0);

    // Redis becomes unavailable and available again, while no claim arrives.
    world.redis.as_mut().unwrap().kill();
    sidecar.claim(message("c1", "SM10")).await;
    assert_eq!(sidecar.metric("twilio_edge_redis_state{state=\"unavailable\"}").await, 1.0);
    let failed = "twilio_edge_store_failures_total{operation=\"leases_claim\"}";
    assert!(sidecar.metric(failed).await >= 1.0);
    assert_eq!(sidecar.metric(&count("ledger_claim")).await, 1.0);
    world.redis.as_mut().unwrap().start_again().await;
    let is_up = async || sidecar.metric("twilio_edge_redis_state{state=\"up\"}").await == 1.0;
    eventually("Redis is up again", &is_up).await;
    // A replica answers, and refuses the writes of claims.
    let redis = world.redis.as_ref().unwrap();
    redis.ask_all(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    sidecar.claim(message("c1", "SM11")).await;
    for _ in 0..40 {
        assert!(!is_up().await);
    }
    redis.ask_all(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    eventually("Redis is up again", is_up).await;
}

#[tokio::test]
async fn age_of_unwritten_events_grows_during_an_outage() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "200")]).await;
    let age = "twilio_edge_event_queue_age_seconds";
    assert_eq!(sidecar.metric(age).await, 0.0);
    let path = world.database_url.strip_prefix("sqlite://").unwrap().to_owned();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    sidecar.claim(message("c1", "SM1")).await;
    eventually("it waits for more than a second", || async {
        sidecar.metric(age).await > 1.0
            && sidecar.metric("twilio_edge_event_queue_depth").await > 0.0
    })
    .await;
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    eventually("it is written", || async { sidecar.metric(age).await == 0.0 }).await;
    assert!(
        sidecar.metric("twilio_edge_store_failures_total{operation=\"ledger_write\"}").await > 0.0
    );
}
