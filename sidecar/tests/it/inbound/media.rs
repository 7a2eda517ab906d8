//! Media of inbound messages: fetched from Twilio with the credentials of the account, stored, passed on as our own link, and
//! deleted here and at Twilio on request. The simulator requires credentials, and its content network refuses them.

mod failures;

use std::{path::Path, time::Duration};

use reqwest::{Method, header};
use serde_json::{Value, json};
use tokio::process::Command;
use twilio_edge_contract::{Claim, Class, Decision, Identity};

use super::deliveries::{accepted, command, sinks};
use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::OTHER,
    support::receiver::Receiver,
    support::servers::{eventually, free_port},
    support::sidecar::{ACCOUNT, Sidecar},
    support::simulator::{SECRET, Simulator},
    support::world::{Kind, World, on_every_shared_store, on_every_store},
};

on_every_store! {
    inbound_media_reach_the_application_by_our_link,
    inbound_media_are_deleted_at_twilio_after_their_fetch,
    inbound_media_of_an_erased_contact_are_gone,
}

on_every_shared_store! {
    inbound_media_are_fetched_once_by_sidecars_that_die,
}

const KEY: &str = "a key of the tests, 32 characters";
const CONTACT: &str = "+14155550123";
const OURS: &str = "+14155238886";

/// Simulator, the application, and the settings of a sidecar that stores media of inbound messages.
struct Setup {
    simulator: Simulator,
    /// Receives the webhooks of the simulator in place of Envoy.
    edge: Receiver,
    app: Receiver,
    settings: Vec<(&'static str, String)>,
}

impl Setup {
    async fn new(world: &World) -> Setup {
        let (edge, app) = (Receiver::start().await, Receiver::start().await);
        let simulator = Simulator::start(world, &["--inbound-url", &edge.url()]);
        let listen = format!("127.0.0.1:{}", free_port());
        let settings = vec![
            ("TWILIO_EDGE_SENDING_FILE", simulator.credentials(world)),
            ("TWILIO_EDGE_SENDING_BASE_URL", simulator.base.clone()),
            ("TWILIO_EDGE_SINKS_FILE", sinks(world, &[("app", &app, "")])),
            ("TWILIO_EDGE_POLICY_INBOUND_MEDIA_FETCH", "true".to_owned()),
            (
                "TWILIO_EDGE_MEDIA_STORE_URL",
                format!("file://{}", world.directory.path().join("bucket").display()),
            ),
            ("TWILIO_EDGE_MEDIA_STORE_PUBLIC_URL", format!("http://{listen}")),
            ("TWILIO_EDGE_MEDIA_STORE_LISTEN", listen),
            ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", KEY.to_owned()),
            ("TWILIO_EDGE_REDACTION_EVERY_S", "1".to_owned()),
        ];
        Setup { simulator, edge, app, settings }
    }

    fn set(mut self, name: &'static str, value: &str) -> Setup {
        self.settings.retain(|(have, _)| *have != name);
        self.settings.push((name, value.to_owned()));
        self
    }

    async fn sidecar(&self, world: &World) -> Sidecar {
        let settings: Vec<(&str, &str)> =
            self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        world.sidecar_with(&settings).await
    }

    /// Lets a contact send these media, and returns the claim of the webhook.
    async fn send(&self, claim_id: &str, media: &[&str]) -> Claim {
        let before = self.edge.got().len();
        let message = json!({"from": CONTACT, "to": OURS, "body": "look", "media": media});
        let url = format!("{}/simulator/inbound", self.simulator.base);
        let sent = reqwest::Client::new().post(url).body(message.to_string()).send().await.unwrap();
        let sent: Value = sent.json().await.unwrap();
        let message_sid = sent["sid"].as_str().unwrap_or_else(|| panic!("{sent}")).to_owned();
        let form = self.edge.got()[before].body.clone();
        let identity = Identity {
            class: Class::Inbound,
            account_sid: ACCOUNT.into(),
            message_sid,
            status: None,
            error_code: None,
        };
        Claim::new(claim_id.into(), identity, "/twilio/inbound".into(), form)
    }

    /// Returns the media that Twilio has of a message.
    async fn at_twilio(&self, message_sid: &str) -> usize {
        let path = format!("2010-04-01/Accounts/{ACCOUNT}/Messages/{message_sid}/Media.json");
        let request = reqwest::Client::new().get(format!("{}/{path}", self.simulator.base));
        let answer = request.basic_auth(ACCOUNT, Some(SECRET)).send().await.unwrap();
        let list: Value = answer.json().await.unwrap();
        list["media_list"].as_array().unwrap().len()
    }

    /// Returns the number of answers of the simulator with this status.
    async fn answers(&self, what: &str, status: u16) -> u64 {
        let all = self.simulator.answered().await;
        let all = all["requests"].as_array().unwrap().iter();
        let mut found = all.filter(|one| one["what"] == what && one["status"] == status);
        found.next().map_or(0, |one| one["count"].as_u64().unwrap())
    }
}

fn media_of(claim: &Claim) -> String {
    format!("/v1/messages/{}/media", claim.identity.message_sid)
}

fn field(items: &Value, name: &str) -> Vec<Value> {
    items["media"].as_array().unwrap().iter().map(|item| item[name].clone()).collect()
}

async fn until_states(app: &Caller<'_>, claim: &Claim, expected: &[&str]) -> Value {
    let expected: Vec<Value> = expected.iter().map(|state| json!(state)).collect();
    let path = media_of(claim);
    // A forwarded webhook is written after its answer.
    eventually("the media have their states", async || {
        let answer = app.send(Method::GET, &path, String::new()).await;
        answer.status() == 200 && field(&answer.json().await.unwrap(), "state") == expected
    })
    .await;
    app.get(&path).await
}

async fn link_status(sidecar: &Sidecar, url: &Value) -> u16 {
    sidecar.client.get(url.as_str().unwrap()).send().await.unwrap().status().as_u16()
}

async fn inbound_media_reach_the_application_by_our_link(world: World) {
    let setup = Setup::new(&world).await;
    let sidecar = setup.sidecar(&world).await;
    let admin = administrator(&sidecar).await;
    let token = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &token);

    // Accepted: the event has the links, the same ones as the API.
    let claim = accepted(setup.send("c1", &["image/jpeg", "application/pdf"]).await);
    let verdict = sidecar.claim(claim.clone()).await;
    assert_eq!((verdict.decision, verdict.media.len()), (Decision::Accepted, 0));
    eventually("the event is delivered", async || !setup.app.got().is_empty()).await;
    let event = setup.app.got()[0].event();
    assert_eq!(event["num_media"], 2);
    let listed = until_states(&app, &claim, &["stored", "stored"]).await;
    assert_eq!(field(&event, "url"), field(&listed, "url"));
    assert_eq!(field(&event, "content_type"), [json!("image/jpeg"), json!("application/pdf")]);
    assert!(event["raw"]["MediaUrl0"].as_str().unwrap().contains("/Media/ME"), "{event}");

    // The link has the bytes, without any credentials of Twilio.
    for (item, begin) in field(&listed, "url").iter().zip([&b"\xff\xd8\xff"[..], b"%PDF"]) {
        let answer = sidecar.client.get(item.as_str().unwrap()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(answer.bytes().await.unwrap().starts_with(begin));
    }
    let first = &listed["media"][0];
    let stored = app.get(&format!("/v1/media/{}", first["id"].as_str().unwrap())).await;
    assert_eq!((&stored["digest"], &stored["bytes"]), (&first["digest"], &first["bytes"]));
    assert_eq!((setup.answers("media", 307).await, setup.answers("media", 401).await), (2, 0));
    assert_eq!(setup.answers("media_content", 200).await, 2, "without credentials");
    let plain = sidecar.client.get(event["raw"]["MediaUrl0"].as_str().unwrap()).send().await;
    assert_eq!(plain.unwrap().status(), 401, "Twilio's own URL needs credentials");

    // Forwarded: the verdict has the links for the filter, and a copy has none.
    let claim = setup.send("c2", &["image/png"]).await;
    let verdict = sidecar.claim(claim.clone()).await;
    assert_eq!(verdict.decision, Decision::Proceed);
    let listed = until_states(&app, &claim, &["stored"]).await;
    let links: Vec<Value> = verdict.media.iter().map(|link| json!(link.url)).collect();
    assert_eq!(links, field(&listed, "url"));
    assert_eq!(verdict.media[0].content_type, "image/png");
    sidecar.commit(&claim).await;
    let copy = sidecar.claim(Claim { claim_id: "c3".into(), ..claim.clone() }).await;
    assert_eq!((copy.decision, copy.media.len()), (Decision::Duplicate, 0));
    assert_eq!(setup.answers("media", 307).await, 3, "each medium is fetched once");

    // A message without media, an unknown message, and another account.
    let text = setup.send("c4", &[]).await;
    assert!(sidecar.claim(text.clone()).await.media.is_empty());
    sidecar.until_written().await;
    assert_eq!(app.get(&media_of(&text)).await, json!({"media": []}));
    let unknown = app.refusal(Method::GET, "/v1/messages/SM1/media", &Value::Null).await;
    assert_eq!(unknown, coded(404, "no_such_message"));
    let theirs = admin.create("app", Some(OTHER), "theirs").await.1;
    let theirs = Caller::app(&sidecar, &theirs);
    let id = listed["media"][0]["id"].as_str().unwrap();
    for (method, path, code) in [
        (Method::GET, media_of(&claim), "no_such_message"),
        (Method::GET, format!("/v1/media/{id}"), "no_such_media"),
        (Method::DELETE, format!("/v1/media/{id}?at_twilio=true"), "no_such_media"),
    ] {
        assert_eq!(theirs.refusal(method, &path, &Value::Null).await, coded(404, code), "{path}");
    }
    let table =
        command(&world, &["media", "list", &claim.identity.message_sid, "--account", ACCOUNT]);
    assert!(table.contains(id) && table.contains("stored"), "{table}");
    let log = sidecar.stop();
    assert!(!log.contains("sig=") && !log.contains(SECRET), "{log}");
}

async fn inbound_media_are_deleted_at_twilio_after_their_fetch(world: World) {
    let setup = Setup::new(&world).await;
    let setup = setup.set("TWILIO_EDGE_POLICY_INBOUND_MEDIA_DELETE_AFTER_FETCH", "true");
    let sidecar = setup.sidecar(&world).await;
    let admin = administrator(&sidecar).await;
    let token = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &token);
    let claim = setup.send("c1", &["image/jpeg", "text/vcard"]).await;
    sidecar.claim(claim.clone()).await;
    until_states(&app, &claim, &["stored", "stored"]).await;
    let sid = &claim.identity.message_sid;
    eventually("Twilio has none", async || setup.at_twilio(sid).await == 0).await;
    eventually("it is recorded", async || {
        let listed = app.get(&media_of(&claim)).await;
        field(&listed, "twilio_state") == [json!("deleted"), json!("deleted")]
    })
    .await;
    let listed = app.get(&media_of(&claim)).await;
    assert_eq!(link_status(&sidecar, &listed["media"][0]["url"]).await, 200, "ours is kept");
    let audited =
        world.stored("SELECT actor || ' ' || action FROM audit WHERE action LIKE 'media.%'").await;
    let expected = "policy.inbound_media.delete_after_fetch media.deleted_at_twilio";
    assert_eq!(audited, [expected, expected]);
}

async fn inbound_media_of_an_erased_contact_are_gone(world: World) {
    let setup = Setup::new(&world).await;
    let sidecar = setup.sidecar(&world).await;
    let admin = administrator(&sidecar).await;
    let token = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &token);
    let claim = setup.send("c1", &["image/jpeg"]).await;
    sidecar.claim(claim.clone()).await;
    let listed = until_states(&app, &claim, &["stored"]).await;
    let link = &listed["media"][0]["url"];
    assert_eq!(link_status(&sidecar, link).await, 200);
    assert_eq!(world.stored("SELECT recipient FROM media_uses").await, [CONTACT]);

    // A redaction of the text keeps the medium.
    let sid = &claim.identity.message_sid;
    let redact = async |more: Value| {
        let mut request = json!({"account_sid": ACCOUNT});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = admin.send(Method::POST, "/v1/redactions", request.to_string()).await;
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let path = format!("2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}.json");
    let request = sidecar.client.post(format!("{}/{path}", sidecar.base));
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let redacted = request.basic_auth(ACCOUNT, Some(&token)).body("Body=").send().await.unwrap();
    assert_eq!(redacted.status(), 200);
    assert_eq!(link_status(&sidecar, link).await, 200);

    let counted = redact(json!({"number": CONTACT, "dry_run": true})).await;
    let erased = redact(json!({"number": CONTACT})).await;
    assert_eq!(counted["found"], erased["found"]);
    assert_eq!(link_status(&sidecar, link).await, 410);
    assert_eq!(field(&app.get(&media_of(&claim)).await, "state"), [json!("erased")]);
    let left =
        world.stored("SELECT contact FROM inbound_media UNION SELECT recipient FROM media_uses");
    assert_eq!(left.await, [""]);
    eventually("the bytes are gone", async || {
        world.stored("SELECT id FROM media").await.is_empty()
    })
    .await;

    // The same webhook does not bring the medium back.
    sidecar.release(&claim).await;
    sidecar.claim(Claim { claim_id: "c2".into(), ..claim.clone() }).await;
    sidecar.until_written().await;
    assert_eq!(field(&app.get(&media_of(&claim)).await, "state"), [json!("erased")]);
    assert_eq!(setup.answers("media", 307).await, 1);
}

async fn inbound_media_are_fetched_once_by_sidecars_that_die(world: World) {
    const MESSAGES: usize = 12;
    let setup = Setup::new(&world).await;
    let first = setup.sidecar(&world).await;
    let listen = format!("127.0.0.1:{}", free_port());
    let setup = setup.set("TWILIO_EDGE_MEDIA_STORE_LISTEN", &listen);
    let second = setup.sidecar(&world).await;
    let admin = administrator(&second).await;
    let token = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&second, &token);
    let mut claims = Vec::new();
    for n in 0..MESSAGES {
        let claim = accepted(setup.send(&format!("c{n}"), &["image/jpeg", "image/png"]).await);
        assert_eq!(first.decide(claim.clone()).await, Decision::Accepted);
        claims.push(claim);
    }
    first.kill();
    // What the killed sidecar held is due at once; a test would wait for its hold otherwise.
    world
        .stored("UPDATE inbound_media SET due_at_ms = 0 WHERE is_open = 1 AND held_by <> '' RETURNING id")
        .await;
    for claim in &claims {
        until_states(&app, claim, &["stored", "stored"]).await;
    }
    let rows = world
        .stored("SELECT i.id FROM inbound_media i JOIN media m ON m.id = i.id WHERE m.is_stored = 1 AND i.attempts = 1")
        .await;
    assert_eq!(rows.len(), MESSAGES * 2);
    eventually("nothing is pending", async || {
        second.metric("twilio_edge_inbound_media_pending").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn profile_of_an_account_decides_about_inbound_media() {
    let world = World::new(Kind::Sqlite).await;
    let setup = Setup::new(&world).await;
    let setup = setup.set("TWILIO_EDGE_POLICY_INBOUND_MEDIA_FETCH", "false");
    let sidecar = setup.sidecar(&world).await;
    let admin = administrator(&sidecar).await;
    let before = sidecar.claim(setup.send("c1", &["image/jpeg"]).await).await;
    assert!(before.media.is_empty(), "it is off");
    sidecar.until_written().await;
    let profile = json!({"policy": {"inbound_media": {"fetch": true}}});
    let path = format!("/v1/tenants/{ACCOUNT}");
    let set = admin.send(Method::PUT, &path, profile.to_string()).await;
    assert!(set.status().is_success(), "{}", set.text().await.unwrap());
    let after = sidecar.claim(setup.send("c2", &["image/jpeg"]).await).await;
    assert_eq!(after.media.len(), 1);
    let link = json!(after.media[0].url);
    eventually("it is stored", async || link_status(&sidecar, &link).await == 200).await;
    assert_eq!(world.stored("SELECT id FROM inbound_media").await.len(), 1);
}

#[tokio::test]
async fn python_sdk_lists_and_deletes_inbound_media() {
    let world = World::new(Kind::Sqlite).await;
    let setup = Setup::new(&world).await;
    let setup = setup.set("TWILIO_EDGE_POLICY_INBOUND_MEDIA_DELETE_AFTER_FETCH", "true");
    let sidecar = setup.sidecar(&world).await;
    let admin = administrator(&sidecar).await;
    let token = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &token);
    let claim = setup.send("c1", &["image/jpeg", "application/pdf"]).await;
    sidecar.claim(claim.clone()).await;
    until_states(&app, &claim, &["stored", "stored"]).await;
    let sid = &claim.identity.message_sid;
    eventually("Twilio has none", async || setup.at_twilio(sid).await == 0).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let config = json!({"base": sidecar.base, "account": ACCOUNT, "token": token, "message": sid});
    let judged = tokio::time::timeout(
        Duration::from_secs(60),
        Command::new(root.join(".venv/bin/python"))
            .arg(root.join("sidecar/tests/it/inbound/media/sdk.py"))
            .arg(config.to_string())
            .kill_on_drop(true)
            .output(),
    );
    let judged = judged.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "run `make setup-test` if twilio is missing: {said}");
    assert_eq!(String::from_utf8_lossy(&judged.stdout).trim(), "judged");
}
