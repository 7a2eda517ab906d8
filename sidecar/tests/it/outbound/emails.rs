//! E-mails: sent once through SendGrid or a mail server, followed by SendGrid's signed events, and never sent to a recipient who
//! left. The simulator acts as SendGrid, and a server of Python as the mail server.

mod described;
mod kills;
mod smtp;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    support::{
        servers::eventually,
        sidecar::{ACCOUNT, Sidecar, inbound, status},
        simulator::{SECRET, Simulator},
        world::{World, on_every_store},
    },
};

on_every_store! {
    email_is_sent_once_and_followed,
    recipient_who_left_gets_no_email,
    email_without_an_answer_is_not_sent_again,
    events_without_a_valid_signature_are_refused,
    email_is_the_last_fallback,
    batch_has_one_verdict_for_each_email,
}

const SHOP: &str = "shop@example.com";
const OURS: &str = "whatsapp:+15550001111";
const NOT_ON_WHATSAPP: &str = "whatsapp:+14155559014";

/// A sidecar whose account sends e-mails through the simulator.
pub(crate) struct Shop {
    pub(crate) sidecar: Sidecar,
    pub(crate) token: String,
    root: String,
}

impl Shop {
    async fn start(world: &World, simulator: &Simulator) -> Shop {
        let shop = Shop::with(world, &Shop::account(simulator).await, simulator).await;
        shop.receive_events(simulator).await;
        shop
    }

    /// Returns the file with the account of the shop at SendGrid.
    async fn account(simulator: &Simulator) -> String {
        let listed = emails(simulator).await;
        let key = listed["event_public_key"].as_str().unwrap();
        format!(
            "[[account]]\nsid = \"{ACCOUNT}\"\nprovider = \"sendgrid\"\napi_key = \"{SECRET}\"\nfrom = \"{SHOP}\"\nfrom_name = \"Shop\"\nsenders = [\"news@example.com\"]\nevent_public_key = \"{key}\"\n"
        )
    }

    /// Names this sidecar to the simulator as the receiver of events.
    async fn receive_events(&self, simulator: &Simulator) {
        let url = format!("{}/email/events/{ACCOUNT}", self.sidecar.base);
        let change = json!({"url": url}).to_string();
        let place = format!("{}/simulator/email-events", simulator.base);
        let changed = reqwest::Client::new().post(place).body(change).send().await.unwrap();
        assert_eq!(changed.status(), 204);
    }

    /// Starts it with this file of accounts.
    pub(crate) async fn with(world: &World, accounts: &str, simulator: &Simulator) -> Shop {
        Shop::open(Shop::serve(world, accounts, simulator).await).await
    }

    /// Creates the keys of the shop.
    async fn open(sidecar: Sidecar) -> Shop {
        let root = administrator(&sidecar).await;
        let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
        let root = root.token.clone();
        Shop { sidecar, token, root }
    }

    async fn serve(world: &World, accounts: &str, simulator: &Simulator) -> Sidecar {
        Shop::serve_through(world, accounts, simulator, &simulator.base).await
    }

    /// Starts the sidecar, which reaches SendGrid at this URL.
    async fn serve_through(
        world: &World,
        accounts: &str,
        simulator: &Simulator,
        send_grid: &str,
    ) -> Sidecar {
        let file = world.directory.path().join("email.toml");
        std::fs::write(&file, accounts).unwrap();
        let sending = simulator.credentials(world);
        let settings = [
            ("TWILIO_EDGE_SENDING_FILE", sending.as_str()),
            ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
            ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "3000"),
            ("TWILIO_EDGE_EMAIL_FILE", file.to_str().unwrap()),
            ("TWILIO_EDGE_EMAIL_BASE_URL", send_grid),
        ];
        world.sidecar_with(&settings).await
    }

    pub(crate) fn app(&self) -> Caller<'_> {
        Caller::app(&self.sidecar, &self.token)
    }

    pub(crate) async fn send(&self, to: &str) -> String {
        self.send_email(json!({"to": to, "subject": "Your order", "text": "It is on its way."}))
            .await
    }

    async fn send_email(&self, wanted: Value) -> String {
        let answer = self.app().send(Method::POST, "/v1/emails", wanted.to_string()).await;
        let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
        assert_eq!(status, 202, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a field of a message has a value, and returns the message.
    pub(crate) async fn wait_for(&self, id: &str, field: &str, value: &str) -> Value {
        let place = format!("/v1/messages/{id}");
        let is_there = async || self.app().get(&place).await[field] == value;
        eventually(&format!("{field} of {id} is {value}"), is_there).await;
        self.app().get(&place).await
    }
}

/// Returns the e-mails that the simulator accepted.
async fn emails(simulator: &Simulator) -> Value {
    let url = format!("{}/simulator/emails", simulator.base);
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

async fn count_to(simulator: &Simulator, to: &str) -> usize {
    let listed = emails(simulator).await;
    listed["emails"].as_array().unwrap().iter().filter(|email| email["to"] == to).count()
}

async fn email_is_sent_once_and_followed(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let shop = Shop::start(&world, &simulator).await;
    let app = shop.app();
    let wanted = json!({"to": "Ava@Example.com", "subject": "Your order", "html": "<p>It is on its way.", "metadata": {"order": "7"}});
    let request = || {
        let url = format!("{}/v1/emails", app.base);
        let request =
            app.client().post(url).bearer_auth(&app.token).header("idempotency-key", "k1");
        request.body(wanted.to_string()).send()
    };
    let (first, copy) = (request().await.unwrap(), request().await.unwrap());
    assert_eq!(
        (first.status(), copy.status()),
        (reqwest::StatusCode::ACCEPTED, reqwest::StatusCode::ACCEPTED)
    );
    let (first, copy): (Value, Value) = (first.json().await.unwrap(), copy.json().await.unwrap());
    assert_eq!(first["id"], copy["id"]);
    let id = first["id"].as_str().unwrap();
    let email = shop.wait_for(id, "status", "delivered").await;
    assert_eq!((&email["state"], &email["channel"]), (&json!("sent"), &json!("email")), "{email}");
    assert_eq!(
        (&email["from"], &email["metadata"]["order"]),
        (&json!(format!("email:{SHOP}")), &json!("7"))
    );
    assert!(!email.to_string().contains("ava@"), "the recipient is masked: {email}");
    assert_eq!(count_to(&simulator, "ava@example.com").await, 1);
    let stored = world.stored("SELECT form || fallback || recipient FROM outbound_messages").await;
    assert_eq!(stored, ["email:..@example.com"], "the content is deleted after the delivery");

    // The log of notifications has it.
    let log = app.get("/v1/notifications").await;
    let attempt = &log["notifications"][0]["attempts"][0];
    assert_eq!((&attempt["provider"], &attempt["channel"]), (&json!("sendgrid"), &json!("email")));
    assert_eq!(attempt["provider_id"], email["sid"]);

    // A template, another sender, and the events of a reader.
    let template = json!({"to": "read@example.com", "from": "news@example.com", "template_id": format!("d-{}", "0".repeat(32)),
        "data": {"name": "Ava"}, "category": "utility"});
    let consent = json!({"number": "read@example.com", "category": "utility", "source": "form", "at": "2026-11-01T10:00:00Z"});
    assert!(
        app.send(Method::POST, "/v1/consents", consent.to_string()).await.status().is_success()
    );
    let id = shop.send_email(template).await;
    let email = shop.wait_for(&id, "status", "read").await;
    assert_eq!(email["template"], format!("d-{}", "0".repeat(32)));
    let delivered = "twilio_edge_email_events_total{event=\"delivered\"}";
    assert_eq!(shop.sidecar.metric(delivered).await, 2.0);

    for (wanted, expected) in [
        (json!({"to": "ava", "subject": "x", "text": "x"}), coded(422, "invalid_field")),
        (json!({"to": "a@b.example", "text": "x"}), coded(422, "invalid_field")),
        (json!({"to": "a@b.example"}), coded(409, "unclear_message")),
        (
            json!({"to": "a@b.example", "subject": "x", "text": "x", "from": "other@example.com"}),
            coded(409, "sender_unknown"),
        ),
        (
            json!({"to": "a@b.example", "subject": "x", "text": "x", "category": "marketing"}),
            coded(409, "no_consent"),
        ),
        (
            json!({"to": "a@b.example", "subject": "x", "text": "x", "cc": "c@b.example"}),
            coded(400, "malformed_request"),
        ),
    ] {
        assert_eq!(app.refusal(Method::POST, "/v1/emails", &wanted).await, expected, "{wanted}");
    }
    let as_message = json!({"to": "email:ava@example.com", "from": "+15550001111", "body": "x"});
    assert_eq!(
        app.refusal(Method::POST, "/v1/messages", &as_message).await,
        coded(422, "invalid_field")
    );
    let dry = json!({"to": "a@b.example", "subject": "x", "text": "x", "dry_run": true});
    let dry: Value =
        app.send(Method::POST, "/v1/emails", dry.to_string()).await.json().await.unwrap();
    assert_eq!(dry["allowed"], true, "{dry}");
}

async fn recipient_who_left_gets_no_email(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let shop = Shop::start(&world, &simulator).await;
    let app = shop.app();
    for (to, status, code) in [
        ("bounce@example.com", "undelivered", "email_bounced"),
        ("drop@example.com", "failed", "email_bounced"),
        ("spam@example.com", "delivered", "email_spam_reported"),
        ("leave@example.com", "delivered", "email_unsubscribed"),
        ("blocked@example.com", "undelivered", ""),
    ] {
        let id = shop.send(to).await;
        shop.wait_for(&id, "status", status).await;
        let again = json!({"to": to.to_uppercase(), "subject": "Again", "text": "x"});
        if code.is_empty() {
            shop.send_email(again).await;
            continue;
        }
        let place = format!("/v1/suppressions/email:{to}");
        eventually(&format!("{to} is suppressed"), async || {
            app.get(&place).await["suppressions"][0]["error_code"] == code
        })
        .await;
        assert_eq!(app.refusal(Method::POST, "/v1/emails", &again).await, coded(409, "suppressed"));
        assert_eq!(count_to(&simulator, to).await, 1, "{to}");
    }
    let root = Caller::admin(&shop.sidecar, &shop.root);
    // An administrator ends a suppression, after which an e-mail is possible.
    let removed = root
        .send(
            Method::DELETE,
            &format!("/v1/suppressions/email:leave@example.com?account_sid={ACCOUNT}"),
            String::new(),
        )
        .await;
    assert!(removed.status().is_success());
    shop.send("leave@example.com").await;
    // A suppression of an address by an application applies as well.
    let new = json!({"number": "Eve@example.com"});
    assert!(
        app.send(Method::POST, "/v1/suppressions", new.to_string()).await.status().is_success()
    );
    let to_eve = json!({"to": "eve@example.com", "subject": "x", "text": "x"});
    assert_eq!(app.refusal(Method::POST, "/v1/emails", &to_eve).await, coded(409, "suppressed"));
}

async fn email_without_an_answer_is_not_sent_again(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let shop = Shop::start(&world, &simulator).await;
    for (to, state, count) in [
        // SendGrid has them, and its events say so.
        ("silence@example.com", "sent", 1),
        ("error@example.com", "sent", 1),
        ("throttled@example.com", "sent", 1),
        ("twice@example.com", "sent", 1),
        // It is not known whether SendGrid has them, so they are not sent again.
        ("closed@example.com", "unknown", 0),
        ("unavailable@example.com", "unknown", 0),
        ("unauthorized@example.com", "refused", 0),
        ("too-large@example.com", "refused", 0),
    ] {
        let id = shop.send(to).await;
        let email = shop.wait_for(&id, "state", state).await;
        assert_eq!(count_to(&simulator, to).await, count, "{email}");
        if state == "sent" {
            shop.wait_for(&id, "status", "delivered").await;
        }
        if state == "refused" {
            assert!(email["error"]["actor"].is_string(), "{email}");
        }
    }
    let twice = "SELECT id FROM outbound_messages WHERE attempts > 1";
    assert_eq!(world.stored(twice).await.len(), 1, "only the throttled one has a second attempt");
}

async fn events_without_a_valid_signature_are_refused(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let shop = Shop::start(&world, &simulator).await;
    let post = async |account: &str, body: &str, signature: Option<(&str, &str)>| {
        let url = format!("{}/email/events/{account}", shop.sidecar.base);
        let mut request = shop.sidecar.client.post(url).body(body.to_owned());
        if let Some((signature, timestamp)) = signature {
            request = request
                .header("X-Twilio-Email-Event-Webhook-Signature", signature)
                .header("X-Twilio-Email-Event-Webhook-Timestamp", timestamp);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let bounce = json!([{"email": "ava@example.com", "event": "bounce", "type": "bounce", "sg_event_id": "e1"}]).to_string();
    let signed = simulator_signature(&simulator, &bounce).await;
    let (signature, timestamp) =
        (signed["signature"].as_str().unwrap(), signed["timestamp"].as_str().unwrap());
    let judged = smtp::judged_by_send_grid(&signed, &bounce);
    assert_eq!(judged, "True", "SendGrid's own library accepts the signature of the simulator");
    let other = format!("AC{}", "f".repeat(32));
    for (account, body, signature) in [
        (ACCOUNT, bounce.as_str(), None),
        (ACCOUNT, bounce.as_str(), Some(("MEUCIQ==", timestamp))),
        (ACCOUNT, bounce.as_str(), Some((signature, "1600000000"))),
        (ACCOUNT, "[]", Some((signature, timestamp))),
        (other.as_str(), bounce.as_str(), Some((signature, timestamp))),
    ] {
        assert_eq!(post(account, body, signature).await, 403, "{account} {body}");
    }
    let large = "x".repeat((4 << 20) + 1);
    assert_eq!(post(ACCOUNT, &large, Some((signature, timestamp))).await, 413);
    let app = shop.app();
    let to_ava = json!({"to": "ava@example.com", "subject": "x", "text": "x", "dry_run": true});
    let dry = async || -> Value {
        app.send(Method::POST, "/v1/emails", to_ava.to_string()).await.json().await.unwrap()
    };
    assert_eq!(dry().await["allowed"], true, "no refused event has an effect");
    assert_eq!(post(ACCOUNT, &bounce, Some((signature, timestamp))).await, 204);
    assert_eq!(
        post(ACCOUNT, &bounce, Some((signature, timestamp))).await,
        204,
        "a copy changes nothing"
    );
    assert_eq!(dry().await["allowed"], false);
    let posts = "twilio_edge_email_event_posts_total";
    assert_eq!(shop.sidecar.metric(&format!("{posts}{{result=\"forged\"}}")).await, 4.0);
    assert_eq!(shop.sidecar.metric(&format!("{posts}{{result=\"no_key\"}}")).await, 1.0);
}

/// Signs a body as the simulator signs its events.
async fn simulator_signature(simulator: &Simulator, body: &str) -> Value {
    let url = format!("{}/simulator/email-signature", simulator.base);
    let answer = reqwest::Client::new().post(url).body(body.to_owned()).send().await.unwrap();
    answer.json().await.unwrap()
}

async fn email_is_the_last_fallback(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let shop = Shop::start(&world, &simulator).await;
    let (app, sidecar) = (shop.app(), &shop.sidecar);
    sidecar.claim(inbound("w1", "SMw1", NOT_ON_WHATSAPP, "hello")).await;
    let wanted = json!({"to": NOT_ON_WHATSAPP, "from": OURS, "body": "Your order is on its way.",
        "fallback": {"email": {"to": "Ava@example.com", "subject": "Your order"}}});
    let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    let message: Value = answer.json().await.unwrap();
    let id = message["id"].as_str().unwrap_or_else(|| panic!("{message}")).to_owned();
    let sent = shop.wait_for(&id, "state", "sent").await;
    let mut failed = status("f1", sent["sid"].as_str().unwrap(), "failed");
    failed.identity.error_code = Some("63024".to_owned());
    failed.form = format!("{}&ErrorCode=63024", failed.form);
    failed.message_id = Some(id.clone());
    sidecar.claim(failed).await;
    let place = format!("/v1/messages/{id}");
    eventually("the message has a fallback", async || {
        app.get(&place).await["fallback"].is_string()
    })
    .await;
    let fallback = app.get(&place).await["fallback"].as_str().unwrap().to_owned();
    let email = shop.wait_for(&fallback, "status", "delivered").await;
    assert_eq!(
        (&email["channel"], &email["fallback_of"]),
        (&json!("email"), &json!(id)),
        "{email}"
    );
    let listed = emails(&simulator).await;
    assert_eq!(listed["emails"][0]["subject"], "Your order", "{listed}");
    assert_eq!(count_to(&simulator, "ava@example.com").await, 1);
    let switched = "twilio_edge_fallbacks_total{to=\"email\"}";
    assert_eq!(sidecar.metric(switched).await, 1.0);
    for (fallback, expected) in [
        (json!({"email": {"to": "ava@example.com"}}), coded(422, "invalid_field")),
        (json!({"email": {"to": "ava", "subject": "x"}}), coded(400, "malformed_request")),
        (
            json!({"email": {"to": "ava@example.com", "from": "x@example.com", "subject": "x"}}),
            coded(409, "sender_unknown"),
        ),
    ] {
        let wanted =
            json!({"to": NOT_ON_WHATSAPP, "from": OURS, "body": "x", "fallback": fallback});
        assert_eq!(app.refusal(Method::POST, "/v1/messages", &wanted).await, expected, "{wanted}");
    }
}

async fn batch_has_one_verdict_for_each_email(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let shop = Shop::start(&world, &simulator).await;
    let app = shop.app();
    let blocked = json!({"number": "m5@example.com"}).to_string();
    assert!(app.send(Method::POST, "/v1/suppressions", blocked).await.status().is_success());
    let email = |to: &str| json!({"to": to, "subject": "Your order", "text": "It is on its way."});
    let mut emails: Vec<Value> = (0..12).map(|n| email(&format!("m{n}@example.com"))).collect();
    emails[7] = json!({"to": "m7@example.com"});
    emails[8] = email("ava");
    emails[9]["dry_run"] = json!(true);
    emails[10] = json!(17);
    let wanted = json!({"emails": emails}).to_string();
    let send = async || {
        let request = app.client().post(format!("{}/v1/emails/batch", app.base));
        let request = request.bearer_auth(&app.token).header("idempotency-key", "batch-1");
        request.body(wanted.clone()).send().await.unwrap()
    };
    let answer = send().await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(7), &json!(5)), "{answer}");
    for (n, code) in [
        (5, "suppressed"),
        (7, "unclear_message"),
        (8, "invalid_field"),
        (9, "malformed_request"),
        (10, "malformed_request"),
    ] {
        let verdict = &answer["results"][n];
        assert_eq!(verdict["problem"]["code"], code, "{verdict}");
        assert_eq!((&verdict["index"], &verdict["id"]), (&json!(n), &Value::Null));
    }
    // A copy of the request gets the same answer, and sends nothing.
    let copy = send().await;
    assert_eq!(copy.headers()["idempotent-replayed"], "true");
    assert_eq!(copy.json::<Value>().await.unwrap(), answer);
    for n in [0, 11] {
        let id = answer["results"][n]["id"].as_str().unwrap();
        shop.wait_for(id, "status", "delivered").await;
    }
    let sent = "SELECT id FROM outbound_messages WHERE state = 'sent'";
    eventually("all are sent", async || world.stored(sent).await.len() == 7).await;
    let list = async || self::emails(&simulator).await["emails"].clone();
    assert_eq!(list().await.as_array().unwrap().len(), 7, "one call for each e-mail");
    let other = format!("AC{}", "f".repeat(32));
    let mut foreign = email("ava@example.com");
    foreign["account_sid"] = json!(other);
    let foreign = json!({"emails": [foreign]}).to_string();
    let foreign = app.send(Method::POST, "/v1/emails/batch", foreign).await;
    let foreign: Value = foreign.json().await.unwrap();
    assert_eq!(foreign["results"][0]["problem"]["code"], "other_account", "{foreign}");
    for wrong in [json!({"emails": []}), json!({"emails": vec![json!({}); 1001]}), json!([])] {
        let refusal = app.refusal(Method::POST, "/v1/emails/batch", &wrong).await;
        assert_eq!(refusal, coded(400, "malformed_request"));
    }
}
