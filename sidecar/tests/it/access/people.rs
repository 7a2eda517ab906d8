//! People as the API, lists and the command line know them: which channels share an opt-out, withdrawals that Twilio reports,
//! messages whose status is about the sender, and WhatsApp users without a phone number.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, http::StatusCode, routing::post};
use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{Claim, Outcome};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    access::contacts::{against, beside},
    access::permissions::{both, lists, posted, ran, run},
    api::message_lists::{OURS, accepted, status_callback},
    api::message_views::{application, column},
    outbound::templates::{known, started},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound, status, unclaimed},
    support::simulator::Simulator,
    support::world::{World, on_every_store},
};

on_every_store!(
    opt_out_on_one_shared_channel_blocks_the_others,
    shared_channels_are_those_of_the_policy,
    status_63033_withdraws_consent_to_marketing,
    refusal_63033_withdraws_consent_to_marketing,
    status_of_an_inbound_message_is_shown_as_inbound,
    user_id_passes_through_every_list_and_command,
    address_of_no_numbering_plan_passes_through_every_list_and_command,
    sender_without_a_number_is_accepted_once_it_wrote,
    consent_under_a_trunk_prefix_counts_for_the_number,
    user_id_is_answered_inside_its_window,
    window_is_known_right_after_its_message,
    history_of_a_channel_has_the_opt_outs_it_shares,
    history_and_windows_follow_a_contact_to_its_other_id,
);

const PERSON: &str = "+14155557901";
const ADA: &str = "whatsapp:+14155557903";
const ADAS_ID: &str = "whatsapp:US.31491208655302741900";
const SMS: &str = "+15557654321";
/// The template of the simulator's catalogue that needs two variables.
const SHIPPING: &str = "HX00112233445566778899aabbccddeeff";

fn on(channel: &str) -> String {
    if channel == "sms" { PERSON.to_owned() } else { format!("{channel}:{PERSON}") }
}

async fn says(sidecar: &Sidecar, sid: &str, from: &str, body: &str) {
    accepted(sidecar, &[inbound(sid, sid, from, body)]).await;
}

async fn opt_out_on_one_shared_channel_blocks_the_others(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let sidecar = started(&world, &simulator, &[]).await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    says(&sidecar, "SM1", &on("whatsapp"), "hello").await;
    let message = |channel: &str| {
        let from = if channel == "whatsapp" { "whatsapp:+15550001111" } else { SMS };
        json!({"to": on(channel), "from": from, "body": "hi"})
    };
    for (n, said_on) in ["rcs", "mms", "sms"].into_iter().enumerate() {
        says(&sidecar, &format!("SMa{n}"), &on(said_on), "STOP").await;
        for channel in ["sms", "mms", "rcs"] {
            let codes = against(&app, &on(channel), "session").await;
            assert_eq!(codes, ["suppressed"], "STOP on {said_on}, message on {channel}");
        }
        let refusal = app.refusal(Method::POST, "/v1/messages", &message("sms")).await;
        assert_eq!(refusal, coded(409, "suppressed"), "STOP on {said_on}");
        assert_eq!(against(&app, &on("whatsapp"), "session").await, [""; 0], "{said_on}");
        let sent = app.send(Method::POST, "/v1/messages", message("whatsapp").to_string()).await;
        assert_eq!(sent.status(), 202, "STOP on {said_on}");
        // A START on another channel of the group ends it.
        let other = if said_on == "rcs" { "sms" } else { "rcs" };
        says(&sidecar, &format!("SMb{n}"), &on(other), "START").await;
        for channel in ["sms", "mms", "rcs"] {
            assert_eq!(against(&app, &on(channel), "session").await, [""; 0], "{channel}");
        }
    }
    let sent = app.send(Method::POST, "/v1/messages", message("sms").to_string()).await;
    assert_eq!(sent.status(), 202);
    // And a STOP on WhatsApp is of WhatsApp alone.
    says(&sidecar, "SM2", &on("whatsapp"), "STOP").await;
    assert_eq!(against(&app, &on("whatsapp"), "session").await, ["suppressed"]);
    assert_eq!(against(&app, &on("sms"), "session").await, [""; 0]);
}

async fn shared_channels_are_those_of_the_policy(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let message = json!({"to": PERSON, "from": SMS, "body": "hi"});
    let sharing = async |groups: &str| {
        started(&world, &simulator, &[("TWILIO_EDGE_POLICY_SHARED_CHANNELS", groups)]).await
    };
    let sidecar = sharing("rcs,sms").await;
    says(&sidecar, "SM1", &on("rcs"), "STOP").await;
    let (root, token) = {
        let root = administrator(&sidecar).await;
        let (_, token) = root.create("app", Some(ACCOUNT), "shop").await;
        (root.token, token)
    };
    sidecar.kill();
    for (groups, is_sms_blocked, is_whatsapp_blocked) in
        [("rcs,sms", true, false), ("rcs,whatsapp;sms,mms", false, true), ("mms,rcs", false, false)]
    {
        let sidecar = sharing(groups).await;
        let app = Caller::app(&sidecar, &token);
        let is_blocked = async |channel: &str| {
            against(&app, &on(channel), "template").await.contains(&"suppressed".to_owned())
        };
        assert!(is_blocked("rcs").await, "{groups}");
        assert_eq!(is_blocked("sms").await, is_sms_blocked, "{groups}");
        assert_eq!(is_blocked("whatsapp").await, is_whatsapp_blocked, "{groups}");
        let sent = app.send(Method::POST, "/v1/messages", message.to_string()).await;
        assert_eq!(sent.status(), if is_sms_blocked { 409 } else { 202 }, "{groups}");
        sidecar.kill();
    }
    // An account may have a policy of its own.
    let sidecar = sharing("mms,rcs").await;
    let root = Caller::admin(&sidecar, &root);
    let profile = json!({"policy": {"shared_channels": [["sms", "rcs"]]}});
    let place = format!("/v1/tenants/{ACCOUNT}");
    let made = root.send(Method::PUT, &place, profile.to_string()).await;
    assert!(made.status().is_success(), "{:?}", made.text().await);
    let app = Caller::app(&sidecar, &token);
    eventually("the account's own policy counts", async || {
        against(&app, PERSON, "session").await == ["suppressed"]
    })
    .await;
}

/// An application of an account whose template is known, and a person who agreed to every kind of message.
async fn agreed<'a>(sidecar: &'a Sidecar, person: &str) -> Caller<'a> {
    let key = application(sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(sidecar, &key);
    for category in ["marketing", "utility"] {
        let consent = json!({"number": person, "category": category, "source": "form",
            "at": "2026-11-01T10:00:00Z"});
        posted(&app, "/v1/consents", &consent).await;
    }
    app
}

fn template(to: &str, category: &str) -> Value {
    json!({"to": to, "from": format!("whatsapp:{OURS}"), "content_sid": SHIPPING, "category": category,
        "content_variables": {"1": "Ada", "2": "7"}})
}

/// The consents to marketing that the API lists: `state source`.
async fn marketing(app: &Caller<'_>) -> Vec<String> {
    let listed = app.get("/v1/consents?category=marketing").await;
    let line = |one: &Value| format!("{} {}", one["state"], one["source"]).replace('"', "");
    listed["consents"].as_array().unwrap().iter().map(line).collect()
}

async fn refuses_marketing_alone(app: &Caller<'_>, person: &str) {
    assert_eq!(marketing(app).await, ["withdrawn error 63033"]);
    let refusal = app.refusal(Method::POST, "/v1/messages", &template(person, "marketing")).await;
    assert_eq!(refusal, coded(409, "no_consent"));
    let sent = app.send(Method::POST, "/v1/messages", template(person, "utility").to_string());
    let sent = sent.await;
    assert_eq!(sent.status(), 202, "{:?}", sent.text().await);
    assert_eq!(app.get("/v1/suppressions").await["suppressions"], json!([]));
    // What the person says later counts again.
    let again = json!({"number": person, "category": "marketing", "source": "form"});
    posted(app, "/v1/consents", &again).await;
    let mut question = template(person, "marketing");
    question["dry_run"] = json!(true);
    let dry = posted(app, "/v1/messages", &question).await;
    assert_eq!(dry["allowed"], true, "{dry}");
}

async fn status_63033_withdraws_consent_to_marketing(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let sidecar = started(&world, &simulator, &[]).await;
    let app = agreed(&sidecar, ADA).await;
    known(&app).await;
    assert_eq!(marketing(&app).await, ["granted form"]);
    let number = ADA.trim_start_matches("whatsapp:");
    accepted(&sidecar, &[status_callback("SM1", "undelivered", Some("63033"), number)]).await;
    refuses_marketing_alone(&app, ADA).await;
    // Another and a late status of the same message report the code again, without effect.
    accepted(&sidecar, &[status_callback("SM1", "failed", Some("63033"), number)]).await;
    sidecar
        .settle(unclaimed(
            &status_callback("SM1", "failed", Some("63033"), number),
            Outcome::Commit,
        ))
        .await;
    assert_eq!(marketing(&app).await, ["granted form"]);
    // The filter forwarded this status while no sidecar was available.
    let late = status_callback("SM2", "undelivered", Some("63033"), number);
    sidecar.settle(unclaimed(&late, Outcome::Commit)).await;
    refuses_marketing_alone(&app, ADA).await;
}

async fn refusal_63033_withdraws_consent_to_marketing(world: World) {
    // Twilio refuses the first message and takes every other.
    let asked = Arc::new(AtomicBool::new(false));
    let refusing = move || {
        let is_first = !asked.swap(true, Ordering::Relaxed);
        async move {
            let problem = json!({"code": 63033, "message": "Recipient opted out", "status": 400});
            let made = json!({"sid": format!("SM{}", "0".repeat(32)), "status": "queued"});
            match is_first {
                true => (StatusCode::BAD_REQUEST, problem.to_string()),
                false => (StatusCode::CREATED, made.to_string()),
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
    let twilio = Router::new().route(&path, post(refusing));
    tokio::spawn(async move { axum::serve(listener, twilio).await });
    let sidecar = crate::outbound::sending::started_with(&world, &url, &[]).await;
    let app = agreed(&sidecar, ADA).await;
    let taken = app.send(
        Method::POST,
        "/v1/messages?wait_ms=20000",
        template(ADA, "marketing").to_string(),
    );
    let taken: Value = taken.await.json().await.unwrap();
    assert_eq!(
        (&taken["state"], &taken["error"]["code"]),
        (&json!("refused"), &json!("63033")),
        "{taken}"
    );
    refuses_marketing_alone(&app, ADA).await;
}

/// A status of a message that a person sent to us by SMS.
fn of_theirs(sid: &str, word: &str, code: Option<&str>) -> Claim {
    let claim = status(&format!("{sid}-{word}"), sid, word);
    let form = form_urlencoded::Serializer::new(claim.form.clone())
        .append_pair("From", PERSON)
        .append_pair("To", OURS)
        .extend_pairs(code.map(|code| ("ErrorCode", code)))
        .finish();
    let mut identity = claim.identity.clone();
    identity.error_code = code.map(str::to_owned);
    Claim::new(claim.claim_id, identity, claim.route, form)
}

async fn status_of_an_inbound_message_is_shown_as_inbound(world: World) {
    let codes = [("TWILIO_EDGE_OPTOUT_ERROR_CODES", "21610,63014,30009,30008")];
    let sidecar = world.sidecar_with(&codes).await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    // Only the status came; the webhook came as well, and names a code that Twilio has for both directions; and a late one.
    accepted(&sidecar, &[of_theirs("SM1", "failed", Some("30039"))]).await;
    accepted(&sidecar, &[of_theirs("SM2", "receiving", None)]).await;
    let mut sms = inbound("SM3", "SM3", PERSON, "hello");
    sms.form = sms.form.replace("whatsapp%3A%2B15550001111", "%2B15550001111");
    let mut other = inbound("SM4", "SM4", PERSON, "hello");
    other.form = sms.form.replace("SM3", "SM4");
    accepted(&sidecar, &[sms, other]).await;
    let written = "SELECT dedupe_key FROM events WHERE class = 'inbound'";
    eventually("the messages are written", async || world.stored(written).await.len() == 2).await;
    accepted(&sidecar, &[of_theirs("SM3", "failed", Some("30009"))]).await;
    let late = of_theirs("SM4", "failed", Some("30008"));
    sidecar.settle(unclaimed(&late, Outcome::Commit)).await;
    let statuses = "SELECT dedupe_key FROM events WHERE class = 'status'";
    eventually("the statuses are written", async || world.stored(statuses).await.len() == 4).await;

    let number = PERSON.replace('+', "%2B");
    let messages = app.get(&format!("/v1/messages?number={number}")).await;
    let messages = &messages["messages"];
    assert_eq!(column(messages, "direction"), ["inbound"; 4], "{messages}");
    assert_eq!(column(messages, "from"), [PERSON; 4]);
    assert_eq!(column(messages, "to"), [OURS; 4]);
    let from_them = app.get(&format!("/v1/messages?from={number}")).await;
    assert_eq!(from_them["messages"].as_array().unwrap().len(), 4);
    let to_them = app.get(&format!("/v1/messages?to={number}")).await;
    assert_eq!(to_them["messages"], json!([]));
    for (sid, word, code) in [
        ("SM1", "failed", json!("30039")),
        ("SM2", "receiving", Value::Null),
        ("SM3", "failed", json!("30009")),
        ("SM4", "failed", json!("30008")),
    ] {
        let message = app.get(&format!("/v1/messages/{sid}")).await;
        let shown = (&message["direction"], &message["status"], &message["error"]["code"]);
        assert_eq!(shown, (&json!("inbound"), &json!(word), &code), "{message}");
    }
    let events = app.get("/v1/events?class=status").await;
    assert_eq!(column(&events["events"], "direction"), ["inbound"; 4], "{events}");
    let history = app.get(&format!("/v1/numbers/{number}")).await;
    assert_eq!(column(&history["messages"], "direction"), ["inbound"; 4], "{history}");
    assert_eq!(column(&history["events"], "direction"), ["inbound"; 6], "{history}");
    // There is no suppression, neither of a contact nor of our own number.
    assert_eq!(app.get("/v1/suppressions?ended=true").await["suppressions"], json!([]));
}

/// Brings suppressions and consents of an address in by every door and out again.
async fn passes_every_list_and_command(
    world: &World,
    (app, admin): (&Caller<'_>, &Caller<'_>),
    address: &str,
) {
    let number = address.trim_start_matches("whatsapp:");
    let path = |of: &str| format!("/v1/{of}/{}", number.replace('+', "%2B"));
    let held =
        async || app.get(&path("suppressions")).await["suppressions"].as_array().unwrap().len();
    let said = async || app.get(&path("consents")).await["history"].as_array().unwrap().len();

    // The API: one, a list, an export, and the export as a list.
    posted(app, "/v1/suppressions", json!({"number": address})).await;
    let list = format!("number,channel\n{number},whatsapp\n");
    assert_eq!(posted(admin, &lists("suppressions"), &list).await["added"], 1);
    assert_eq!(held().await, 2);
    let by_number = path("suppressions").replace("ns/", "ns?number=whatsapp:");
    let found = app.get(&by_number).await;
    assert_eq!(found["suppressions"].as_array().unwrap().len(), 2, "{found}");
    let export = app.send(Method::GET, "/v1/suppressions/export", String::new()).await;
    let export = export.text().await.unwrap();
    assert!(export.contains(number), "{export}");
    assert_eq!(posted(admin, &lists("suppressions"), &export).await["lines"], 2);
    let consents =
        format!("number,channel,category,source,at\n{number},whatsapp,utility,paper,2026-11-01\n");
    assert_eq!(posted(admin, &lists("consents"), &consents).await["added"], 1);
    let export = app.send(Method::GET, "/v1/consents/export", String::new()).await;
    let export = export.text().await.unwrap();
    assert!(export.contains(number), "{export}");
    let again = posted(admin, &lists("consents"), &export).await;
    assert_eq!((&again["lines"], &again["added"]), (&json!(1), &json!(0)));
    assert_eq!(said().await, 1);
    let end = format!("{}?account_sid={ACCOUNT}", path("suppressions"));
    assert_eq!(admin.send(Method::DELETE, &end, String::new()).await.status(), 200);

    // The command line.
    ran(world, &["suppressions", "add", address]);
    let file = world.directory.path().join("list.csv");
    let path = file.to_str().unwrap();
    std::fs::write(&file, ran(world, &["suppressions", "export"])).unwrap();
    assert_eq!(ran(world, &["suppressions", "import", path]), "1 lines, 1 new suppressions\n");
    let shown = ran(world, &["suppressions", "list", "--number", address]);
    assert!(shown.contains(number), "{shown}");
    ran(world, &["suppressions", "remove", address]);
    let about = ["--category", "marketing", "--source", "call", "--at", "2026-11-02"];
    ran(world, &[&["consents", "record", address][..], &about[..]].concat());
    std::fs::write(&file, ran(world, &["consents", "export"])).unwrap();
    assert_eq!(ran(world, &["consents", "import", path]), "2 lines, 0 new consents\n");
    let shown = ran(world, &["consents", "list", "--number", address, "--category", "marketing"]);
    assert!(shown.contains(number) && shown.contains("granted"), "{shown}");
    ran(world, &[&["consents", "withdraw", address][..], &about[..]].concat());
    assert_eq!(said().await, 3);
    let story = ran(world, &["history", address]);
    assert!(story.contains("withdrawn") && story.contains("administrator"), "{story}");
}

async fn user_id_passes_through_every_list_and_command(world: World) {
    let sidecar = world.sidecar().await;
    let (app, admin) = both(&sidecar).await;
    passes_every_list_and_command(&world, (&app, &admin), ADAS_ID).await;
    // Without its channel as well: no other channel has such ids.
    let id = ADAS_ID.trim_start_matches("whatsapp:");
    ran(&world, &["consents", "record", id, "--category", "service", "--source", "call"]);
    for like_it in ["whatsapp:us.31491208655302741900", "whatsapp:US.3149 1208"] {
        let args = ["consents", "record", like_it, "--category", "service", "--source", "call"];
        let (success, _, err) = run(&world, &args);
        assert!(!success && err.contains("is not a user id"), "{like_it}: {err}");
    }
}

async fn address_of_no_numbering_plan_passes_through_every_list_and_command(world: World) {
    let sidecar = world.sidecar().await;
    // No plan has a number of this length for that code.
    let strange = "whatsapp:+225071234567";
    let (app, admin) = both(&sidecar).await;
    passes_every_list_and_command(&world, (&app, &admin), strange).await;
    let letters = "number,channel,category,source\n+1510ABC-DEFG,whatsapp,utility,paper\n";
    let refused = admin.send(Method::POST, &lists("consents"), letters.to_owned()).await;
    assert_eq!(refused.status(), 422);
}

async fn sender_without_a_number_is_accepted_once_it_wrote(world: World) {
    let sidecar = world.sidecar().await;
    let (app, admin) = both(&sidecar).await;
    let impossible = coded(422, "invalid_field");
    for (n, sender) in ["O'Reilly", "12", "Café/Bar"].into_iter().enumerate() {
        let encoded: String = form_urlencoded::byte_serialize(sender.as_bytes()).collect();
        let path = format!("/v1/suppressions/{encoded}");
        let list = format!("number,channel,category,source\n{sender},sms,utility,paper\n");
        // The API and the command line refuse such an address before it has written.
        let new = json!({"number": sender});
        let consent = json!({"number": sender, "category": "marketing", "source": "form"});
        assert_eq!(app.refusal(Method::GET, &path, &Value::Null).await, impossible, "{sender}");
        assert_eq!(app.refusal(Method::POST, "/v1/suppressions", &new).await, impossible);
        assert_eq!(app.refusal(Method::POST, "/v1/consents", &consent).await, impossible);
        let refused = admin.send(Method::POST, &lists("consents"), list.clone()).await;
        assert_eq!(refused.status(), 422, "{sender}");
        let (success, _, err) = run(&world, &["suppressions", "add", sender]);
        assert!(!success && err.contains("is not a phone number"), "{sender}: {err}");

        says(&sidecar, &format!("SM{n}"), sender, "STOP").await;
        assert_eq!(against(&app, sender, "session").await, ["suppressed"], "{sender}");
        let found = app.get(&path).await;
        assert_eq!(column(&found["suppressions"], "source"), ["keyword"], "{sender}");
        let export = app.send(Method::GET, "/v1/suppressions/export", String::new()).await;
        let export = export.text().await.unwrap();
        assert_eq!(posted(&admin, &lists("suppressions"), &export).await["lines"], 1, "{export}");
        posted(&app, "/v1/suppressions", &new).await;
        let shown = ran(&world, &["suppressions", "list", "--number", sender]);
        assert_eq!(shown.lines().count(), 4, "as a word, as a list and by API: {shown}");
        ran(&world, &["suppressions", "remove", sender]);
        posted(&app, "/v1/suppressions", &new).await;
        let end = format!("{path}?account_sid={ACCOUNT}");
        assert_eq!(admin.send(Method::DELETE, &end, String::new()).await.status(), 200);
        assert_eq!(against(&app, sender, "session").await, [""; 0], "{sender}");

        posted(&app, "/v1/consents", &consent).await;
        assert_eq!(posted(&admin, &lists("consents"), &list).await["added"], 1);
        let about = ["--category", "service", "--source", "call"];
        ran(&world, &[&["consents", "record", sender][..], &about[..]].concat());
        let said = app.get(&format!("/v1/consents/{encoded}")).await;
        assert_eq!(said["current"].as_array().unwrap().len(), 3, "{said}");
        let file = world.directory.path().join("list.csv");
        std::fs::write(&file, ran(&world, &["consents", "export"])).unwrap();
        let output = ran(&world, &["consents", "import", file.to_str().unwrap()]);
        assert!(output.ends_with(" 0 new consents\n"), "{output}");
    }
    let everywhere = ["--channel", "*", "--category", "service", "--source", "call"];
    let (success, _, err) =
        run(&world, &[&["consents", "record", PERSON][..], &everywhere[..]].concat());
    assert!(!success && err.contains("is not a channel"), "{err}");
}

async fn consent_under_a_trunk_prefix_counts_for_the_number(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    for (written, number) in [
        ("+4407400123460", "+447400123460"),
        ("+33 (0)6 12 34 56 78", "+33612345678"),
        ("+61 0412 345 678", "+61412345678"),
    ] {
        assert_eq!(against_marketing(&app, number).await, ["no_consent"], "{number}");
        let consent = json!({"number": written, "category": "marketing", "source": "form"});
        let recorded = posted(&app, "/v1/consents", &consent).await;
        assert_eq!(recorded["consent"]["number"], number);
        assert_eq!(against_marketing(&app, number).await, [""; 0], "{number}");
        assert_eq!(against_marketing(&app, written).await, [""; 0], "{written}");
    }
}

/// The codes that speak against a marketing template.
async fn against_marketing(app: &Caller<'_>, to: &str) -> Vec<String> {
    let question = json!({"to": to, "kind": "template", "category": "marketing"});
    let answer = posted(app, "/v1/checks", &question).await;
    let verdicts = answer["verdicts"].as_array().unwrap();
    verdicts.iter().filter_map(|said| said["code"].as_str().map(str::to_owned)).collect()
}

async fn user_id_is_answered_inside_its_window(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let sidecar = started(&world, &simulator, &[]).await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    let ours = format!("whatsapp:{OURS}");
    let message = |body: &str| json!({"to": ADAS_ID, "from": ours, "body": body});
    let form = |body: &'static str| [("To", ADAS_ID), ("From", ours.as_str()), ("Body", body)];
    let dropin = async |body: &'static str| -> (u16, Value) {
        let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Messages.json", sidecar.base);
        let asked = sidecar.client.post(url).basic_auth(ACCOUNT, Some(&key));
        let body =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(form(body)).finish();
        let asked = asked.header("content-type", "application/x-www-form-urlencoded").body(body);
        let answer = asked.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    };
    let refusal = app.refusal(Method::POST, "/v1/messages", &message("early")).await;
    assert_eq!(refusal, coded(409, "window_closed"));
    let (status, early) = dropin("early").await;
    assert_eq!((status, &early["code"]), (400, &json!(63016)), "{early}");

    says(&sidecar, "SM1", ADAS_ID, "hello").await;
    assert_eq!(against(&app, ADAS_ID, "session").await, [""; 0]);
    let windows = app.get(&format!("/v1/windows?person={ADAS_ID}&open=true")).await;
    assert_eq!(column(&windows["windows"], "person"), ["US.31491208655302741900"], "{windows}");
    let sent = app.send(Method::POST, "/v1/messages?wait_ms=20000", message("one").to_string());
    let sent: Value = sent.await.json().await.unwrap();
    assert_eq!(sent["state"], "sent", "{sent}");
    let (status, made) = dropin("two").await;
    assert_eq!((status, &made["to"]), (201, &json!(ADAS_ID)), "{made}");
    let to: Vec<Value> =
        simulator.listed(ACCOUNT).await.iter().map(|one| one["to"].clone()).collect();
    assert_eq!(to, [ADAS_ID, ADAS_ID], "Twilio is given the id as it is");
    says(&sidecar, "SM2", ADAS_ID, "STOP").await;
    let refusal = app.refusal(Method::POST, "/v1/messages", &message("late")).await;
    assert_eq!(refusal, coded(409, "suppressed"));
    let (status, late) = dropin("late").await;
    assert_eq!((status, &late["code"]), (400, &json!(21610)), "{late}");
}

async fn window_is_known_right_after_its_message(world: World) {
    // Messages are on their way to the database nearly all the time.
    let settings =
        [("TWILIO_EDGE_EVENTS_LINGER_MS", "1"), ("TWILIO_EDGE_API_REQUESTS_PER_SECOND", "10000")];
    let sidecar = world.sidecar_with(&settings).await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    for n in 0..150 {
        let person = format!("whatsapp:+1415555{n:04}");
        let (one, other) = (format!("SMa{n}"), format!("SMb{n}"));
        sidecar.claim(inbound(&one, &one, &person, "hello")).await;
        sidecar.claim(inbound(&other, &other, "whatsapp:+14155559999", "hello")).await;
        assert_eq!(against(&app, &person, "session").await, [""; 0], "{n}");
    }
}

async fn history_of_a_channel_has_the_opt_outs_it_shares(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    says(&sidecar, "SM1", &on("rcs"), "STOP").await;
    let number = PERSON.replace('+', "%2B");
    for (channel, expected) in [
        ("sms:", &["rcs"][..]),
        ("mms:", &["rcs"]),
        ("rcs:", &["rcs"]),
        ("", &["rcs"]),
        ("whatsapp:", &[]),
    ] {
        let history = app.get(&format!("/v1/numbers/{channel}{number}")).await;
        assert_eq!(column(&history["suppressions"], "channel"), expected, "{channel}");
        let listed = app.get(&format!("/v1/suppressions/{channel}{number}")).await;
        assert_eq!(column(&listed["suppressions"], "channel"), expected, "{channel}");
    }
    let history: Value =
        serde_json::from_str(&ran(&world, &["history", &on("mms"), "--json"])).unwrap();
    assert_eq!(column(&history["suppressions"], "channel"), ["rcs"]);
}

async fn history_and_windows_follow_a_contact_to_its_other_id(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    says(&sidecar, "SM1", ADA, "by number").await;
    says(&sidecar, "SM2", ADAS_ID, "by id").await;
    accepted(&sidecar, &[status_callback("SM3", "delivered", None, "+14155557903")]).await;
    let consent = json!({"number": ADA, "category": "marketing", "source": "form"});
    posted(&app, "/v1/consents", &consent).await;
    let sids = async |address: &str| {
        let address = address.replace('+', "%2B");
        let found = app.get(&format!("/v1/messages?number={address}")).await;
        column(&found["messages"], "sid").join(" ")
    };
    eventually("the accepted webhooks are in the history", async || sids(ADA).await == "SM3 SM1")
        .await;
    assert_eq!(sids(ADAS_ID).await, "SM2", "no webhook has named the number and the id together");

    accepted(&sidecar, &[beside("SM4", ADA, ADAS_ID, "by both")]).await;
    eventually("the accepted webhooks are in the history", async || {
        sids(ADA).await.starts_with("SM4")
    })
    .await;
    for address in [ADA, ADAS_ID, "+14155557903", "US.31491208655302741900"] {
        assert_eq!(sids(address).await, "SM4 SM3 SM2 SM1", "{address}");
        let address = address.replace('+', "%2B");
        for (query, expected) in [
            (format!("/v1/messages?from={address}"), "SM4 SM2 SM1"),
            (format!("/v1/messages?to={address}"), "SM3"),
        ] {
            let found = app.get(&query).await;
            assert_eq!(column(&found["messages"], "sid").join(" "), expected, "{query}");
        }
        let events = app.get(&format!("/v1/events?number={address}")).await;
        assert_eq!(events["events"].as_array().unwrap().len(), 4, "{address}");
        // A contact has one window with each of our numbers: the latest.
        let windows = app.get(&format!("/v1/windows?person={address}")).await;
        assert_eq!(windows["windows"].as_array().unwrap().len(), 1, "{windows}");
        let history = app.get(&format!("/v1/numbers/{address}")).await;
        let count = |part: &str| history[part].as_array().unwrap().len();
        let counts = [count("messages"), count("events"), count("windows"), count("consents")];
        assert_eq!(counts, [4, 4, 1, 1], "{history}");
    }
    assert_eq!(sids("sms:+14155557903").await, "", "the id is of WhatsApp");
    // The pages contain each message once.
    let (mut walked, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("/v1/messages?number={ADAS_ID}&limit=1{cursor}")).await;
        walked.extend(column(&page["messages"], "sid").iter().map(|sid| (*sid).to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(walked, ["SM4", "SM3", "SM2", "SM1"]);
    // A STOP from the id is in the history of the number.
    says(&sidecar, "SM5", ADAS_ID, "STOP").await;
    let number = ADA.replace('+', "%2B");
    let history = app.get(&format!("/v1/numbers/{number}")).await;
    assert_eq!(column(&history["suppressions"], "source"), ["keyword"], "{history}");
    // Another number that claims the same id does not get the contact's history.
    accepted(&sidecar, &[beside("SM6", "whatsapp:+447400123456", ADAS_ID, "me")]).await;
    eventually("the accepted webhooks are in the history", async || {
        sids("whatsapp:+447400123456").await == "SM6"
    })
    .await;
    assert_eq!(sids(ADA).await, "SM5 SM4 SM3 SM2 SM1");
}
