//! The API held against its own description by Schemathesis, which invents requests, good and bad, from the specification
//! that each listener serves: no 5xx, nothing that is not described, nothing refused that is described as good or taken
//! that is described as bad. The same in every run; TWILIO_EDGE_SCHEMATHESIS_SEED asks for others.

use std::{io::Write, path::Path, process::Stdio, time::Duration};

use serde_json::json;
use tokio::process::Command;

use crate::{
    access::api_keys::Caller,
    api::message_lists::{ALICE, accepted, from, status_callback},
    support::sidecar::{ACCOUNT, Sidecar, TOKEN},
    support::world::{Kind, World},
};

/// Requests invented for each operation, besides those that its description alone suggests.
const EXAMPLES: &str = "10";

/// Time limit of one run, for slow machines as well.
const PATIENCE: Duration = Duration::from_secs(480);

/// Caller of a listener, and its paths as a regular expression.
struct Part<'a> {
    caller: Caller<'a>,
    paths: &'static str,
}

async fn api_is_as_described(kind: Kind) {
    let world = World::new(kind).await;
    let boundless = [
        ("TWILIO_EDGE_API_BURST", "1000000"),
        ("TWILIO_EDGE_API_REQUESTS_PER_SECOND", "1000000"),
        ("TWILIO_EDGE_API_BAD_TOKENS_PER_MINUTE", "1000000"),
    ];
    let sidecar = world.sidecar_with(&boundless).await;
    let bootstrap = Caller::admin(&sidecar, TOKEN);
    let admin = bootstrap.create("admin", None, "first").await.1;
    let app = Caller::admin(&sidecar, &admin).create("app", Some(ACCOUNT), "shop").await.1;
    accepted(&sidecar, &[from("SM1", ALICE), status_callback("SM2", "sent", None, ALICE)]).await;

    let parts = [
        Part { caller: Caller::app(&sidecar, TOKEN), paths: "^/edge/" },
        Part { caller: Caller::app(&sidecar, &app), paths: "^/(v1|healthz|readyz|metrics)" },
        Part { caller: Caller::admin(&sidecar, &admin), paths: "^/" },
    ];
    every_operation_is_in_one(&sidecar, &parts).await;
    let seed = seed();
    tell(&format!("schemathesis: TWILIO_EDGE_SCHEMATHESIS_SEED={seed} on {kind:?}"));
    let home = world.directory.path();
    let [edge, apps, admins] = &parts;
    tokio::join!(judged(home, edge, &seed), judged(home, apps, &seed));
    // With a revoked key, the run would see only refusals. The administrator may revoke every key but its own.
    apps.caller.get("/v1/key").await;
    judged(home, admins, &seed).await;
    admins.caller.get("/v1/keys?limit=1").await;
    let made = world.stored("SELECT id FROM api_keys").await.len();
    let claimed = world.stored("SELECT dedupe_key FROM events").await.len();
    assert!(made > 3 && claimed > 3, "{made} keys and {claimed} events: nothing good was asked");
}

/// Checks that each operation belongs to exactly one part, so that none is left out.
async fn every_operation_is_in_one(sidecar: &Sidecar, parts: &[Part<'_>]) {
    let starts = |paths: &str| match paths {
        "^/edge/" => vec!["/edge/"],
        "^/" => vec!["/"],
        _ => vec!["/v1", "/healthz", "/readyz", "/metrics"],
    };
    for base in [sidecar.base.clone(), sidecar.admin()] {
        let document = sidecar.client.get(format!("{base}/openapi.json")).send().await.unwrap();
        let document: serde_json::Value = document.json().await.unwrap();
        for path in document["paths"].as_object().unwrap().keys() {
            let is_in = |part: &&Part<'_>| {
                part.caller.base == base
                    && starts(part.paths).iter().any(|start| path.starts_with(start))
            };
            assert_eq!(parts.iter().filter(is_in).count(), 1, "{path}");
        }
    }
}

async fn judged(home: &Path, part: &Part<'_>, seed: &str) {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = manifest.parent().unwrap().join(".tools/schemathesis/bin/st");
    assert!(program.exists(), "Schemathesis is not installed: run `make setup-test`");
    let mut run = Command::new(program);
    run.arg("--config-file")
        .arg(manifest.join("tests/it/api/schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", part.caller.base)])
        .args(["--header", &format!("Authorization: Bearer {}", part.caller.token)])
        // The answer of a stream has no end.
        .args([
            "--include-path-regex",
            part.paths,
            "--exclude-path",
            "/v1/stream",
            "--checks",
            "all",
        ])
        // Nothing that is deleted here is gone: a revoked key can still be looked at, so that the audit can be read.
        .args(["--exclude-checks", "use_after_free"])
        .args(["--max-examples", EXAMPLES, "--seed", seed, "--no-shrink", "--warnings", "off"])
        .current_dir(home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, run.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{} {}: {said}", part.caller.base, part.paths);
    assert!(said.contains("Tested: ") && !said.contains("Tested: 0"), "{said}");
}

/// The same in every run unless asked otherwise: a change of ours is judged, not the dice.
fn seed() -> String {
    std::env::var("TWILIO_EDGE_SCHEMATHESIS_SEED").unwrap_or_else(|_| "20".to_owned())
}

/// Writes to standard error directly, because the test runner hides the output of passed tests.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[tokio::test]
async fn api_is_as_described_on_sqlite() {
    api_is_as_described(Kind::Sqlite).await;
}

#[tokio::test]
async fn api_is_as_described_on_postgres() {
    api_is_as_described(Kind::Postgres).await;
}

#[tokio::test]
async fn refusal_is_described_with_its_code() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    for base in [sidecar.base.clone(), sidecar.admin()] {
        let document = sidecar.client.get(format!("{base}/openapi.json")).send().await.unwrap();
        let document: serde_json::Value = document.json().await.unwrap();
        let problem = &document["components"]["schemas"]["Problem"]["properties"];
        let codes = problem["code"]["oneOf"].as_array().unwrap();
        let described = |code: &str| codes.iter().any(|one| one["enum"] == json!([code]));
        assert!(described("unauthorized") && described("unavailable"), "{problem}");
        let actors = json!(["caller", "operator", "administrator", "recipient", "none"]);
        assert_eq!(problem["actor"]["enum"], actors);
    }
}
