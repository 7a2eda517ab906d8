//! Drop-in Twilio API: Twilio's official SDKs work with the sidecar unchanged. Further tests check that accounts are separate,
//! and that no message is sent twice.

mod resources;

use std::{path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    access::api_keys::{Caller, administrator},
    api::message_lists::OTHER,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound},
    support::simulator::{SERVICE, Simulator},
    support::world::{Kind, World},
};

crate::support::world::on_every_store!(@ sqlite Sqlite
    python_sdk_works_unchanged node_sdk_works_unchanged resources_of_another_account_are_not_found
    repeated_create_returns_the_first_message);
crate::support::world::on_every_store!(@ postgres Postgres
    python_sdk_works_unchanged resources_of_another_account_are_not_found repeated_create_returns_the_first_message);

const STOPPED: &str = "+14155550177";
const AGREED: &str = "whatsapp:+14155550166";

async fn started(world: &World, simulator: &Simulator, more: &[(&str, &str)]) -> Sidecar {
    let file = simulator.credentials(world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "2000"),
    ];
    world.sidecar_with(&[&settings[..], more].concat()).await
}

/// A sidecar on which one person has said STOP and another has agreed, and two keys of its account: id and token.
async fn prepared(
    world: &World,
    simulator: &Simulator,
    more: &[(&str, &str)],
) -> (Sidecar, [(String, String); 2]) {
    let sidecar = started(world, simulator, more).await;
    let keys = {
        let root = administrator(&sidecar).await;
        let app = Caller::app(&sidecar, &root.token);
        let place = format!("/v1/templates?account_sid={ACCOUNT}");
        eventually("the sidecar knows the templates", async || {
            let known = app.get(&place).await;
            known["templates"].as_array().is_some_and(|known| !known.is_empty())
        })
        .await;
        // As the template is registered.
        let agreed = json!({"account_sid": ACCOUNT, "number": AGREED, "category": "utility",
            "source": "checkout form", "at": "2026-11-01T10:00:00Z"});
        let recorded = app.send(Method::POST, "/v1/consents", agreed.to_string()).await;
        assert!(recorded.status().is_success(), "{:?}", recorded.text().await);
        let mut keys = Vec::new();
        for account in [ACCOUNT, OTHER] {
            keys.push(root.create("app", Some(account), "the shop").await);
        }
        <[_; 2]>::try_from(keys).unwrap()
    };
    sidecar.claim(inbound("c1", "SM1", STOPPED, "STOP")).await;
    (sidecar, keys)
}

/// Runs a script with an SDK against the sidecar. The script prints `judged` if all its checks pass.
async fn judged(program: &str, script: &str, sdk: &str, world: &World) {
    let simulator = Simulator::start(world, &[]);
    let short = [("TWILIO_EDGE_SENDING_ANSWER_WITHIN_MS", "1500")];
    let (sidecar, [(id, token), _]) = prepared(world, &simulator, &short).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let config = json!({
        "base": sidecar.base, "account": ACCOUNT, "key": id, "token": token, "stopped": STOPPED,
        "agreed": AGREED, "other": OTHER, "sdk": root.join(sdk), "service": SERVICE,
        "codes": format!("{}/simulator/verifications", simulator.base),
    });
    let mut run = Command::new(root.join(program));
    if !program.contains('/') {
        run = Command::new(program);
    }
    let judged = run
        .arg(root.join("sidecar/tests/it/outbound/dropin").join(script))
        .arg(config.to_string())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stderr);
    let log = sidecar.log();
    assert!(judged.status.success(), "run `make setup-test` if twilio is missing: {said}\n{log}");
    assert_eq!(String::from_utf8_lossy(&judged.stdout).trim(), "judged");
}

async fn python_sdk_works_unchanged(world: World) {
    judged(".venv/bin/python", "sdk.py", ".venv", &world).await;
}

async fn node_sdk_works_unchanged(world: World) {
    judged("node", "sdk.mjs", "wasm-tests/signers", &world).await;
}

#[tokio::test]
async fn answers_match_twilios_description() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let (sidecar, [(_, token), _]) = prepared(&world, &simulator, &[]).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let later = jiff::Timestamp::now() + Duration::from_secs(3600);
    let config = json!({
        "base": sidecar.base, "user": ACCOUNT, "password": token, "account": ACCOUNT,
        "specs": root.join(".tools/openapi"), "to": "+14155550123", "content": false,
        "flow": "FW00112233445566778899aabbccddeeff",
        "later": later.to_string(), "service": SERVICE,
        "codes": format!("{}/simulator/verifications", simulator.base),
    });
    let judged = Command::new(root.join(".tools/webhooks/bin/python"))
        .arg(root.join("sidecar/tests/cli/openapi.py"))
        .arg(config.to_string())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "run `make setup-test` if anything is missing: {said}");
    assert_eq!(String::from_utf8_lossy(&judged.stdout).trim(), "judged 19");
}

/// Makes one request as Twilio's clients do. Returns status and body.
async fn asked(
    sidecar: &Sidecar,
    (user, password): (&str, &str),
    (method, path): (Method, &str),
    form: &[(&str, &str)],
    key: Option<&str>,
) -> (StatusCode, Value) {
    let basic = STANDARD.encode(format!("{user}:{password}"));
    let request = sidecar.client.request(method, format!("{}/2010-04-01/{path}", sidecar.base));
    let mut request = request.header("authorization", format!("Basic {basic}"));
    if let Some(key) = key {
        request = request.header("i-twilio-idempotency-token", key);
    }
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
    let answer = request.send().await.unwrap();
    let status = answer.status();
    assert_eq!(answer.headers()["content-type"], "application/json", "{path}");
    (status, answer.json().await.unwrap())
}

async fn resources_of_another_account_are_not_found(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let (sidecar, [(id, token), (other_id, other)]) = prepared(&world, &simulator, &[]).await;
    let messages = format!("Accounts/{ACCOUNT}/Messages.json");
    let secret = other.rsplit('_').next().unwrap();
    let form = [("To", "+14155550123"), ("From", "+14155238886"), ("Body", "hi")];
    for (user, password) in [
        (ACCOUNT, other.as_str()),
        (&other_id, &other),
        (&other_id, secret),
        (&id, secret),
        (OTHER, &token),
        (ACCOUNT, "hush"),
        (ACCOUNT, ""),
        ("", &token),
    ] {
        for method in [Method::GET, Method::POST] {
            let place = (method, messages.as_str());
            let (status, said) = asked(&sidecar, (user, password), place, &form, None).await;
            assert_eq!(said["code"], 20003, "{user} {password}: {said}");
            assert_eq!(said["status"], status.as_u16(), "{said}");
            assert!(matches!(status.as_u16(), 401 | 403), "{status}");
        }
    }
    assert!(simulator.made().await.is_empty());

    // A waiting message is visible to its own account only, on the path of either account.
    let later = jiff::Timestamp::now() + Duration::from_secs(3600);
    let later = later.to_string();
    let form = [&form[..], &[("ScheduleType", "fixed"), ("SendAt", later.as_str())]].concat();
    let ours = (ACCOUNT, token.as_str());
    let (status, made) = asked(&sidecar, ours, (Method::POST, &messages), &form, None).await;
    assert_eq!((status.as_u16(), &made["status"]), (201, &json!("scheduled")), "{made}");
    let place = |account: &str| {
        format!("Accounts/{account}/Messages/{}.json", made["sid"].as_str().unwrap())
    };
    let cancel = [("Status", "canceled")];
    let sid = made["sid"].as_str().unwrap();
    let medium = format!("ME{}", "0".repeat(32));
    for (method, rest, form) in [
        (Method::GET, format!("/Messages/{sid}.json"), &[][..]),
        (Method::POST, format!("/Messages/{sid}.json"), &cancel),
        (Method::POST, format!("/Messages/{sid}.json"), &[("Body", "")]),
        (Method::DELETE, format!("/Messages/{sid}.json"), &[]),
        (Method::GET, format!("/Messages/{sid}/Media.json"), &[]),
        (Method::GET, format!("/Messages/{sid}/Media/{medium}.json"), &[]),
        (Method::GET, format!("/Messages/{sid}/Media/{medium}"), &[]),
        (Method::DELETE, format!("/Messages/{sid}/Media/{medium}.json"), &[]),
        (Method::POST, format!("/Messages/{sid}/Feedback.json"), &[]),
        (Method::GET, ".json".to_owned(), &[]),
    ] {
        let theirs = (OTHER, other.as_str());
        let ours = format!("Accounts/{ACCOUNT}{rest}");
        let (_, said) = asked(&sidecar, theirs, (method.clone(), &ours), form, None).await;
        assert_eq!(said["code"], 20003, "{rest}: {said}");
        let other = format!("Accounts/{OTHER}{rest}");
        let (_, said) = asked(&sidecar, theirs, (method, &other), form, None).await;
        // The request would be for Twilio, but the account has no credentials.
        assert_eq!((&said["code"], &said["status"]), (&json!(20003), &json!(403)), "{said}");
    }
    let (_, shown) = asked(&sidecar, ours, (Method::GET, &place(ACCOUNT)), &[], None).await;
    assert_eq!(shown["status"], "scheduled", "{shown}");
    let (_, shown) = asked(&sidecar, ours, (Method::POST, &place(ACCOUNT)), &cancel, None).await;
    assert_eq!(shown["status"], "canceled", "{shown}");
    let (status, said) =
        asked(&sidecar, ours, (Method::POST, &place(ACCOUNT)), &cancel, None).await;
    assert_eq!((status.as_u16(), &said["code"]), (400, &json!(30409)), "{said}");

    // Resources of Twilio that the sidecar does not offer are refused in Twilio's format.
    for (method, path, code) in [
        (Method::GET, "Accounts.json", 20404),
        (Method::DELETE, messages.as_str(), 20004),
        (Method::POST, &format!("Accounts/{ACCOUNT}.json"), 20004),
        (Method::GET, &format!("Accounts/{ACCOUNT}/Calls.json"), 20404),
        (Method::GET, &format!("Accounts/{ACCOUNT}/Messages/SM1.json"), 20404),
        (Method::GET, &format!("Accounts/{ACCOUNT}/Messages.json?PageSize=x"), 20001),
    ] {
        let (status, said) = asked(&sidecar, ours, (method, path), &[], None).await;
        assert_eq!((&said["code"], &said["status"]), (&json!(code), &json!(status.as_u16())));
    }
    assert!(simulator.made().await.is_empty());
}

/// All copies of a create request are one message, and each copy gets the current state of that message.
async fn repeated_create_returns_the_first_message(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let (sidecar, [(_, token), _]) = prepared(&world, &simulator, &[]).await;
    let path = format!("Accounts/{ACCOUNT}/Messages.json");
    let ask = async |to: &str, key: &str| {
        let form = [("To", to), ("From", "+14155238886"), ("Body", "hi")];
        asked(&sidecar, (ACCOUNT, &token), (Method::POST, &path), &form, Some(key)).await
    };
    let (status, first) = ask("+14155550123", "a").await;
    assert_eq!(status, 201, "{first}");
    assert!(simulator.made().await.contains_key(first["sid"].as_str().unwrap()), "Twilio's own");
    let (status, copy) = ask("+14155550123", "a").await;
    assert_eq!((status.as_u16(), &copy["sid"]), (201, &first["sid"]));
    let (status, other) = ask("+14155550124", "a").await;
    assert_eq!((status.as_u16(), &other["code"]), (400, &json!(20001)), "{other}");
    // Twilio refuses the message after the sidecar has accepted it. Every copy of the request gets that error.
    for _ in 0..2 {
        let (status, refused) = ask("+14155559002", "b").await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!(21211)), "{refused}");
    }
    // The outcome is unknown, so the message is shown as queued until the reconciler finds it.
    let (status, unknown) = ask("+14155559005", "c").await;
    assert_eq!((status.as_u16(), &unknown["status"]), (201, &json!("queued")), "{unknown}");
    eventually("the reconciler finds the message at Twilio", async || {
        ask("+14155559005", "c").await.1["sid"] != unknown["sid"]
    })
    .await;
    let place = format!("Accounts/{ACCOUNT}/Messages/{}.json", unknown["sid"].as_str().unwrap());
    let ours = (ACCOUNT, token.as_str());
    let (_, found) = asked(&sidecar, ours, (Method::GET, &place), &[], None).await;
    assert_eq!(found["sid"], ask("+14155559005", "c").await.1["sid"], "both SIDs name the message");
    assert_eq!(simulator.made().await.len(), 2);
}

/// A caller that exceeds its rate gets status 429 with Twilio's code 20429.
#[tokio::test]
async fn caller_over_its_rate_gets_twilios_error() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let rare = [("TWILIO_EDGE_API_BURST", "1"), ("TWILIO_EDGE_API_REQUESTS_PER_SECOND", "1")];
    let sidecar = started(&world, &simulator, &rare).await;
    let (_, token) = administrator(&sidecar).await.create("app", Some(ACCOUNT), "shop").await;
    let path = format!("Accounts/{ACCOUNT}/Messages.json");
    let ask = async || asked(&sidecar, (ACCOUNT, &token), (Method::GET, &path), &[], None).await;
    eventually("the rate limit is exceeded", async || {
        let (status, said) = ask().await;
        status == 429 && said["code"] == 20429
    })
    .await;
}

/// The Node SDK retries by itself if it is configured to. A request over the rate limit creates no message.
#[tokio::test]
async fn node_sdk_retries_when_it_is_configured_to() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let rare = [("TWILIO_EDGE_API_BURST", "2"), ("TWILIO_EDGE_API_REQUESTS_PER_SECOND", "5")];
    let sidecar = started(&world, &simulator, &rare).await;
    let (_, token) = administrator(&sidecar).await.create("app", Some(ACCOUNT), "shop").await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sdk = root.join("wasm-tests/signers");
    let config = json!({"base": sidecar.base, "account": ACCOUNT, "token": token, "sdk": sdk});
    let judged = Command::new("node")
        .arg(root.join("sidecar/tests/it/outbound/dropin/retry.mjs"))
        .arg(config.to_string())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "run `make setup-test` if twilio is missing: {said}");
    let counted: Value = serde_json::from_slice(&judged.stdout).unwrap();
    assert_eq!(simulator.made().await.len() as u64, counted["made"].as_u64().unwrap());
}
