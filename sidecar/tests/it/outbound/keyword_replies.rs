//! Replies to STOP, START and HELP: each is sent once, also after repeats and kills and with two sidecars, and only the
//! suppression that the keyword began does not forbid it. The simulator acts as Twilio.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{Claim, Outcome};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::accepted,
    inbound::deliveries::sinks,
    outbound::templates::started,
    support::receiver::Receiver,
    support::servers::{eventually, eventually_within},
    support::sidecar::{ACCOUNT, Sidecar, inbound, status, unclaimed},
    support::simulator::Simulator,
    support::world::{World, on_every_shared_store, on_every_store},
};

on_every_store! {
    each_keyword_is_answered_once,
    reply_is_exempt_from_its_own_suppression_only,
    twilio_answers_keywords_itself,
    reply_has_the_language_of_its_keyword,
    refused_reply_shows_its_reason,
    killed_sidecars_send_each_reply_once,
}
on_every_shared_store! {
    two_sidecars_send_one_reply,
}

const ALICE: &str = "whatsapp:+14155550123";
const OURS: &str = "whatsapp:+15550001111";

fn policy() -> Value {
    json!({"replies": [
        {"keyword": "stop", "text": "bye"},
        {"keyword": "stop", "text": "au revoir", "language": "fr"},
        {"keyword": "stop", "text": "tschüss", "countries": ["DE", "AT"]},
        {"keyword": "start", "text": "welcome"},
        {"keyword": "help", "text": "ask us"},
    ]})
}

/// Stores the account's policy as an administrator does.
async fn with_policy(admin: &Caller<'_>, policy: &Value) {
    let path = format!("/v1/tenants/{ACCOUNT}");
    let profile = json!({"friendly_name": "Shop", "policy": policy}).to_string();
    let url = format!("{}{path}", admin.base);
    let known = admin.send(Method::GET, &path, String::new()).await;
    let revision = known.headers().get("etag").cloned();
    let request = admin.client().request(Method::PUT, url).bearer_auth(&admin.token);
    let request = match revision {
        Some(revision) => request.header("if-match", revision),
        None => request,
    };
    let answer = request.body(profile).send().await.unwrap();
    let (status, body) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{body}");
}

async fn begin(
    world: &World,
    simulator: &Simulator,
    more: &[(&str, &str)],
) -> (Sidecar, String, String) {
    let sidecar = started(world, simulator, more).await;
    let admin = administrator(&sidecar).await;
    with_policy(&admin, &policy()).await;
    let (_, token) = admin.create("app", Some(ACCOUNT), "the shop").await;
    let admin = admin.token.clone();
    (sidecar, admin, token)
}

/// Returns all texts that Twilio got, oldest first.
async fn texts(simulator: &Simulator) -> Vec<String> {
    let listed = simulator.listed(ACCOUNT).await;
    listed.iter().map(|one| one["body"].as_str().unwrap().to_owned()).collect()
}

/// Waits until Twilio has this many texts, and returns them.
async fn sent(simulator: &Simulator, count: usize) -> Vec<String> {
    eventually(&format!("{count} texts"), async || texts(simulator).await.len() >= count).await;
    texts(simulator).await
}

/// Returns the reply to a message of the contact, once it has this state.
async fn reply(app: &Caller<'_>, message_sid: &str, state: &str) -> Value {
    let find = async || {
        let listed = app.get("/v1/messages?direction=outbound&limit=200").await;
        let listed = listed["messages"].as_array().unwrap().clone();
        listed.into_iter().find(|one| one["reply_to"]["sid"] == message_sid)
    };
    eventually(&format!("the reply to {message_sid} is {state}"), async || {
        find().await.is_some_and(|one| one["state"] == state)
    })
    .await;
    find().await.unwrap()
}

fn keyword(message_sid: &str, word: &str) -> Claim {
    inbound(message_sid, message_sid, ALICE, word)
}

/// Returns a claim of a message on any channel, with more parameters.
fn message(message_sid: &str, from: &str, to: &str, rest: &str) -> Claim {
    let mut claim = inbound(message_sid, message_sid, from, "");
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    claim.form =
        format!("MessageSid={message_sid}&From={}&To={}&{rest}", encoded(from), encoded(to));
    claim
}

async fn each_keyword_is_answered_once(world: World) {
    let sink = Receiver::start().await;
    let events = "classes = []\nevents = [\"message.sent\"]";
    let file = sinks(&world, &[("crm", &sink, events)]);
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let settings = [("TWILIO_EDGE_SINKS_FILE", file.as_str())];
    let (sidecar, _, token) = begin(&world, &simulator, &settings).await;
    let app = Caller::app(&sidecar, &token);

    // The contact opts out; Twilio, the network and the filter repeat the webhook.
    let stop = keyword("SM1", "Stop");
    assert!(sidecar.claim(stop.clone()).await.suppressed);
    for copy in ["c2", "c3"] {
        sidecar.claim(Claim { claim_id: copy.into(), ..stop.clone() }).await;
    }
    let late = unclaimed(&Claim { claim_id: "c4".into(), ..stop.clone() }, Outcome::Commit);
    sidecar.settle(late).await;
    let first = reply(&app, "SM1", "sent").await;
    assert_eq!(first["reply_to"], json!({"sid": "SM1", "keyword": "stop"}));
    assert_eq!((&first["from"], &first["category"]), (&json!(OURS), &json!("service")), "{first}");
    let hello = json!({"to": ALICE, "from": OURS, "body": "hello"});
    let refused = app.refusal(Method::POST, "/v1/messages", &hello).await;
    assert_eq!(refused, coded(409, "suppressed"));

    // A STOP and a START that change nothing are not answered.
    sidecar.claim(keyword("SM2", "STOP")).await;
    sidecar.claim(keyword("SM3", "START")).await;
    sidecar.claim(keyword("SM4", "YES")).await;
    sidecar.claim(keyword("SM5", "HELP")).await;
    sidecar.claim(Claim { claim_id: "c5".into(), ..keyword("SM5", "HELP") }).await;
    assert_eq!(sent(&simulator, 3).await.len(), 3);
    sidecar.claim(keyword("SM6", "info")).await;
    let mut texts = sent(&simulator, 4).await;
    texts.sort();
    assert_eq!(texts, ["ask us", "ask us", "bye", "welcome"]);
    assert_eq!(reply(&app, "SM6", "sent").await["reply_to"]["keyword"], "help");
    for (word, count) in [("stop", 1.0), ("start", 1.0), ("help", 2.0)] {
        let series =
            format!("twilio_edge_keyword_replies_total{{keyword=\"{word}\",state=\"queued\"}}");
        assert_eq!(sidecar.metric(&series).await, count, "{word}");
    }
    // A declined message is a row that replies to nothing.
    let stored = "SELECT reply_keyword || ' ' || reply_to FROM outbound_messages WHERE reply_to <> '' ORDER BY reply_to";
    assert_eq!(world.stored(stored).await, ["stop SM1", "start SM3", "help SM5", "help SM6"]);

    // The event has the cause, and the statistics have the messages.
    eventually("four events", async || sink.taken().len() == 4).await;
    let causes: Vec<Value> =
        sink.taken().iter().map(|taken| taken.event()["data"]["reply_to"].clone()).collect();
    assert!(causes.contains(&json!({"sid": "SM1", "keyword": "stop"})), "{causes:?}");
    let counted = "SELECT CAST(sum(count) AS TEXT) FROM message_counts WHERE event = 'accepted'";
    assert_eq!(world.stored(counted).await, ["4"]);

    // The history of the contact shows the reply with its cause.
    let mut delivered = status("s1", first["sid"].as_str().unwrap(), "delivered");
    delivered.form += "&From=whatsapp%3A%2B15550001111&To=whatsapp%3A%2B14155550123";
    delivered.message_id = first["id"].as_str().map(str::to_owned);
    accepted(&sidecar, &[delivered]).await;
    let history = app.get(&format!("/v1/numbers/{ALICE}")).await;
    let messages = history["messages"].as_array().unwrap();
    let shown = messages.iter().find(|one| one["id"] == first["id"]).unwrap();
    assert_eq!((&shown["reply_to"]["sid"], &shown["status"]), (&json!("SM1"), &json!("delivered")));
}

async fn reply_is_exempt_from_its_own_suppression_only(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let (sidecar, admin, token) = begin(&world, &simulator, &[]).await;
    let (admin, app) = (Caller::admin(&sidecar, &admin), Caller::app(&sidecar, &token));
    // Another reason forbids the confirmation, too: of an application, in any channel.
    let number = json!({"number": ALICE, "channel": null}).to_string();
    let added = app.send(Method::POST, "/v1/suppressions", number).await;
    assert_eq!(added.status(), 200);
    sidecar.claim(keyword("SM1", "STOP")).await;
    let refused = reply(&app, "SM1", "refused").await;
    assert_eq!(refused["error"]["code"], "suppressed", "{refused}");
    // Help confirms no suppression, and START does not end the application's.
    sidecar.claim(keyword("SM2", "HELP")).await;
    assert_eq!(reply(&app, "SM2", "refused").await["error"]["code"], "suppressed");
    sidecar.claim(keyword("SM3", "START")).await;
    assert_eq!(reply(&app, "SM3", "refused").await["error"]["code"], "suppressed");
    let path = format!("/v1/suppressions/{ALICE}?account_sid={ACCOUNT}");
    assert_eq!(admin.send(Method::DELETE, &path, String::new()).await.status(), 200);

    // A consent that the policy requires is required of a reply as well, but the STOP itself does not overtake it.
    let strict = json!({"replies": policy()["replies"], "consent": {"required_for": ["service"]}});
    with_policy(&admin, &strict).await;
    sidecar.claim(keyword("SM4", "STOP")).await;
    assert_eq!(reply(&app, "SM4", "refused").await["error"]["code"], "no_consent");
    sidecar.claim(keyword("SM5", "START")).await;
    assert_eq!(reply(&app, "SM5", "refused").await["error"]["code"], "no_consent");
    let now = jiff::Timestamp::now().to_string();
    let agreed = json!({"number": ALICE, "category": "service", "source": "form", "at": now});
    let agreed = app.send(Method::POST, "/v1/consents", agreed.to_string()).await;
    assert!(agreed.status().is_success());
    sidecar.claim(keyword("SM6", "STOP")).await;
    reply(&app, "SM6", "sent").await;
    assert_eq!(texts(&simulator).await, ["bye"]);

    // A reply waits at most as long as the window of its keyword is open: 24 hours after the keyword.
    with_policy(&admin, &policy()).await;
    let quiet = "UPDATE suppressions SET suppressed = (1 = 0) RETURNING number";
    world.stored(quiet).await;
    let stop = world.stored("SELECT id FROM outbound_messages WHERE reply_to = 'SM6'").await;
    let day = 24 * 60 * 60 * 1000;
    let aged = format!(
        "UPDATE outbound_messages SET state = 'queued', form = 'To=%2B1', recipient = '+14155550123', \
         created_at_ms = created_at_ms - {day}, due_at_ms = 1 WHERE id = '{}' RETURNING id",
        stop[0]
    );
    world.stored(&aged).await;
    let expired = reply(&app, "SM6", "refused").await;
    assert_eq!(expired["error"]["code"], "expired", "{expired}");
}

async fn twilio_answers_keywords_itself(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let (sidecar, admin, token) = begin(&world, &simulator, &[]).await;
    let (admin, app) = (Caller::admin(&sidecar, &admin), Caller::app(&sidecar, &token));
    let (sms, ours) = ("+14155550124", "+15557654321");
    // Twilio's default handling answers an SMS; Advanced Opt-Out also answers on WhatsApp.
    assert!(sidecar.claim(message("SM1", sms, ours, "Body=STOP")).await.suppressed);
    let handled = message("SM2", ALICE, OURS, "Body=STOP&OptOutType=STOP");
    assert!(sidecar.claim(handled).await.suppressed);
    // A text for SMS is refused while the account does not state that Twilio leaves the answer to us.
    let mut own = json!({"replies": [
        {"keyword": "stop", "text": "bye"}, {"keyword": "stop", "text": "bye by sms", "channel": "sms"},
    ]});
    let path = format!("/v1/tenants/{ACCOUNT}");
    let profile = json!({"friendly_name": "Shop", "policy": own});
    let known = admin.send(Method::GET, &path, String::new()).await;
    let etag = known.headers()["etag"].clone();
    let request = admin.client().put(format!("{}{path}", admin.base)).bearer_auth(&admin.token);
    let request = request.header("if-match", etag).body(profile.to_string());
    let refused: Value = request.send().await.unwrap().json().await.unwrap();
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("replies[1].channel: Twilio answers keywords on sms"), "{detail}");
    own["twilio_answers"] = json!([]);
    with_policy(&admin, &own).await;
    sidecar.claim(message("SM3", "+14155550125", ours, "Body=STOP")).await;
    let by_sms = reply(&app, "SM3", "sent").await;
    assert_eq!((&by_sms["channel"], &by_sms["from"]), (&json!("sms"), &json!(ours)));
    assert_eq!(texts(&simulator).await, ["bye by sms"]);
}

async fn reply_has_the_language_of_its_keyword(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let french = [("TWILIO_EDGE_OPTOUT_LOCALES", "fr,de")];
    let (sidecar, _, token) = begin(&world, &simulator, &french).await;
    let app = Caller::app(&sidecar, &token);
    for (sid, from, word, expected) in [
        ("SM1", ALICE, "ARRÊT", "au revoir"),
        ("SM2", "whatsapp:+4915112345678", "stop", "tschüss"),
        ("SM3", "whatsapp:+4915112345679", "arret", "au revoir"),
        ("SM4", "whatsapp:+14155550126", "ABMELDEN", "bye"),
    ] {
        sidecar.claim(inbound(sid, sid, from, word)).await;
        reply(&app, sid, "sent").await;
        assert_eq!(texts(&simulator).await.last().unwrap(), expected, "{word}");
    }
}

/// Without credentials for the account nothing can be sent, and the opt-out is recorded all the same.
async fn refused_reply_shows_its_reason(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    with_policy(&admin, &policy()).await;
    let (_, token) = admin.create("app", Some(ACCOUNT), "the shop").await;
    let app = Caller::app(&sidecar, &token);
    assert!(sidecar.claim(keyword("SM1", "STOP")).await.suppressed);
    let refused = reply(&app, "SM1", "refused").await;
    assert_eq!(refused["error"]["code"], "no_credentials", "{refused}");
    assert_eq!(refused["to"], "whatsapp:..23");
    let series = "twilio_edge_keyword_replies_total{keyword=\"stop\",state=\"refused\"}";
    assert_eq!(sidecar.metric(series).await, 1.0);
}

async fn killed_sidecars_send_each_reply_once(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows", "--latency-ms", "50"]);
    let short = [
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "1000"),
        ("TWILIO_EDGE_SENDING_ABSENT_AFTER_S", "2"),
        ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "5000"),
    ];
    let (mut sidecar, ..) = begin(&world, &simulator, &short).await;
    let people: Vec<String> = (0..6).map(|n| format!("whatsapp:+1415555020{n}")).collect();
    for (n, person) in people.iter().enumerate() {
        let sid = format!("SM{n}");
        let stop = inbound(&format!("{sid}-1"), &sid, person, "STOP");
        // The sidecar dies before, during and after the transaction, and before, during and after the call of Twilio. The
        // filter then sends the webhook again.
        let pause = Duration::from_millis(20 * u64::try_from(n).unwrap());
        let claiming = async {
            sidecar.claim(stop.clone()).await;
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(pause, claiming).await;
        sidecar.kill();
        sidecar = started(&world, &simulator, &short).await;
        let again = inbound(&format!("{sid}-2"), &sid, person, "STOP");
        sidecar.claim(again).await;
    }
    let open = "SELECT id FROM outbound_messages WHERE state <> 'sent'";
    eventually_within(Duration::from_secs(120), "each reply is sent", async || {
        // As if the holds of the killed attempts were over. A call of the living sidecar takes at most a second.
        let before = jiff::Timestamp::now().as_millisecond() - 3000;
        let age = format!(
            "UPDATE outbound_messages SET due_at_ms = attempted_at_ms + 1000 \
             WHERE state IN ('attempting', 'unknown') AND attempted_at_ms < {before} RETURNING id"
        );
        world.stored(&age).await;
        world.stored(open).await.is_empty()
    })
    .await;
    let listed = simulator.listed(ACCOUNT).await;
    let mut recipients: Vec<&str> = listed.iter().map(|one| one["to"].as_str().unwrap()).collect();
    recipients.sort_unstable();
    assert_eq!(recipients, people.iter().map(String::as_str).collect::<Vec<_>>(), "each once");
    let suppressed =
        "SELECT message_sid FROM suppressions WHERE source = 'keyword' ORDER BY number";
    assert_eq!(world.stored(suppressed).await, ["SM0", "SM1", "SM2", "SM3", "SM4", "SM5"]);
}

async fn two_sidecars_send_one_reply(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let (one, _, token) = begin(&world, &simulator, &[]).await;
    let other = started(&world, &simulator, &[]).await;
    for n in 0..8 {
        let sid = format!("SM{n}");
        let stop = |claim: &str| inbound(&format!("{sid}-{claim}"), &sid, &number(n), "STOP");
        let both = tokio::join!(one.claim(stop("a")), other.claim(stop("b")));
        assert!(both.0.opt.is_some() && both.1.opt.is_some());
    }
    let app = Caller::app(&one, &token);
    for n in 0..8 {
        reply(&app, &format!("SM{n}"), "sent").await;
    }
    assert_eq!(texts(&simulator).await, vec!["bye"; 8]);
}

fn number(n: usize) -> String {
    format!("whatsapp:+1415555030{n}")
}
