//! Views of messages, webhooks, windows and numbers, as applications read them: over HTTP, with a key of their account, on
//! every store.

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::Outcome;

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::{ALICE, BOB, OTHER, OURS, accepted, from, of_other, status_callback},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound, settlement, unclaimed},
    support::world::{World, on_every_store},
};

on_every_store!(
    message_is_found_with_its_timeline,
    webhooks_are_found_with_every_parameter,
    pages_go_on_where_the_last_one_ended,
    window_follows_the_last_message,
    window_is_not_moved_back_by_a_late_or_repeated_webhook,
    number_has_one_history,
    invalid_query_is_refused_with_its_field,
);

/// Creates an API key of scope `app` for the account.
pub(crate) async fn application(sidecar: &Sidecar, account: Option<&str>) -> String {
    administrator(sidecar).await.create("app", account, "shop").await.1
}

pub(crate) fn column<'a>(rows: &'a Value, name: &str) -> Vec<&'a str> {
    rows.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap()).collect()
}

async fn message_is_found_with_its_timeline(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    accepted(
        &sidecar,
        &[
            status_callback("SM1", "sent", None, ALICE),
            from("SM2", ALICE),
            status_callback("SM1", "undelivered", Some("63016"), ALICE),
            status_callback("SM1", "delivered", None, ALICE),
            status_callback("SM3", "read", None, BOB),
            of_other(status_callback("SM1", "failed", None, ALICE)),
            of_other(from("SM9", ALICE)),
        ],
    )
    .await;
    let all = app.get("/v1/messages").await;
    assert_eq!(column(&all["messages"], "sid"), ["SM3", "SM2", "SM1"], "the latest first");
    assert_eq!(all["next_cursor"], Value::Null);
    let at = all["messages"][1]["created_at"].as_str().unwrap();
    let (day, _) = at.split_once('T').unwrap();
    for (query, expected) in [
        ("to=%2B15551230001", &["SM1"][..]),
        ("to=%2B1%20(555)%20123-0001", &["SM1"]),
        // An unescaped plus sign.
        ("to=+15551230001", &["SM1"]),
        ("number=whatsapp:+15551230001", &["SM2", "SM1"]),
        ("from=whatsapp%3A%2B15551230001", &["SM2"]),
        ("number=sms:%2B15551230001", &[]),
        ("from=%2B15550001111&status=read", &["SM3"]),
        ("status=undelivered", &["SM1"]),
        ("status=delivered", &[]),
        (&format!("since={at}"), &["SM3", "SM2"]),
        (&format!("until={at}"), &["SM1"]),
        (&format!("date_sent={day}"), &["SM3", "SM2", "SM1"]),
        ("date_sent=2001-01-01", &[]),
        (&format!("date_sent={day}&until={at}"), &["SM1"]),
        (&format!("account_sid={ACCOUNT}&limit=1"), &["SM3"]),
    ] {
        let page = app.get(&format!("/v1/messages?{query}")).await;
        assert_eq!(column(&page["messages"], "sid"), expected, "{query}");
    }

    let message = app.get("/v1/messages/SM1").await;
    assert_eq!(
        (&message["status"], &message["error"]["code"]),
        (&json!("undelivered"), &json!("63016"))
    );
    assert_eq!((&message["from"], &message["to"]), (&json!(OURS), &json!(ALICE)));
    assert_eq!(
        (&message["direction"], &message["channel"]),
        (&json!("outbound"), &json!("whatsapp"))
    );
    let webhooks: Vec<_> =
        message["timeline"].as_array().unwrap().iter().map(|entry| &entry["webhook"]).collect();
    let statuses: Vec<_> = webhooks.iter().map(|webhook| webhook["status"].clone()).collect();
    assert_eq!(statuses, ["sent", "undelivered", "delivered"]);
    assert!(webhooks.iter().all(|webhook| webhook["backend"] == "accepted"), "{message}");
    assert_eq!(column(&message["timeline"], "event"), ["webhook"; 3]);
    assert_eq!(message["error"]["actor"], "caller", "{message}");
    let not_found = coded(404, "no_such_message");
    for sid in ["SM9", "SM404", "SM1:sent", "%00", "%ff", "SM"] {
        let path = format!("/v1/messages/{sid}");
        assert_eq!(app.refusal(Method::GET, &path, &Value::Null).await, not_found, "{sid}");
    }
}

async fn webhooks_are_found_with_every_parameter(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    let theirs = of_other(from("SM9", ALICE));
    accepted(
        &sidecar,
        &[
            from("SM1", ALICE),
            status_callback("SM2", "sent", None, BOB),
            status_callback("SM2", "read", None, BOB),
            theirs,
        ],
    )
    .await;
    for (query, expected) in [
        ("", &["read", "sent", "received"][..]),
        ("class=inbound", &["received"]),
        ("class=status&limit=1", &["read"]),
        ("sid=SM2", &["read", "sent"]),
        ("sid=SM2&status=sent", &["sent"]),
        ("sid=SM9", &[]),
        ("number=%2B15551230002", &["read", "sent"]),
        ("number=%2B15551230001", &["received"]),
        ("since=2001-01-01T00:00:00Z&until=2001-01-02T00:00:00Z", &[]),
    ] {
        let page = app.get(&format!("/v1/events?{query}")).await;
        assert_eq!(column(&page["events"], "status"), expected, "{query}");
    }
    let listed = app.get("/v1/events?class=inbound").await["events"][0].clone();
    let path = format!("/v1/events/{}", listed["id"].as_str().unwrap());
    let event = app.get(&path).await;
    for (field, value) in listed.as_object().unwrap() {
        assert_eq!(&event[field], value);
    }
    let names = column(&event["parameters"], "name");
    assert_eq!(names, ["MessageSid", "From", "To", "Body"], "in their order");
    assert_eq!(event["parameters"][3]["value"], "hello");

    // A key for all accounts finds the event; a key of another account does not.
    let admin = administrator_again(&sidecar, &world).await;
    assert_eq!(Caller::app(&sidecar, &admin).get(&path).await, event);
    let other = Caller::admin(&sidecar, &admin).create("app", Some(OTHER), "theirs").await.1;
    let hidden = coded(404, "no_such_event");
    for path in [path.as_str(), "/v1/events/x", "/v1/events/AAAA", "/v1/events/%20"] {
        let other = Caller::app(&sidecar, &other);
        assert_eq!(other.refusal(Method::GET, path, &Value::Null).await, hidden, "{path}");
    }
}

/// Creates another administrator's key with the command line, which needs only the database.
async fn administrator_again(sidecar: &Sidecar, world: &World) -> String {
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["keys", "create", "--scope", "admin", "--name", "again", "--json"])
        .env_clear()
        .env("DATABASE_URL", &world.database_url)
        .current_dir(world.directory.path())
        .output()
        .unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap().to_owned();
    Caller::admin(sidecar, &token).get("/v1/keys").await;
    token
}

async fn pages_go_on_where_the_last_one_ended(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    // One batch, so that many webhooks have the same time in milliseconds.
    let claims: Vec<_> = (0..23)
        .flat_map(|n| {
            ["sent", "delivered"]
                .map(|word| status_callback(&format!("SM{n:02}"), word, None, ALICE))
        })
        .collect();
    sidecar.claim_all(claims.clone()).await;
    sidecar.settle_all(claims.iter().map(|c| settlement(c, Outcome::Commit)).collect()).await;
    sidecar.until_written().await;
    for (list, limit, id, count) in [
        ("messages?status=delivered&limit=5", 5, "sid", 23),
        ("events?number=%2B15551230001&limit=9", 9, "id", 46),
        ("events?sid=SM07&limit=1", 1, "id", 2),
    ] {
        let (noun, _) = list.split_once('?').unwrap();
        let (mut walked, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = app.get(&format!("/v1/{list}{cursor}")).await;
            let ids = column(&page[noun], id);
            assert!(ids.len() <= limit, "{list}");
            walked.extend(ids.into_iter().map(str::to_owned));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            // A webhook that is added meanwhile comes before the pages that are read.
            sidecar.claim(from(&format!("SMnew{}", walked.len()), BOB)).await;
        }
        let listed = walked.len();
        walked.sort();
        walked.dedup();
        assert_eq!((listed, walked.len()), (count, count), "{list}");
    }
}

/// Returns the opening time and the end of the conversation window between Alice and one of our numbers, as the API shows them.
async fn window(app: &Caller<'_>) -> Option<(String, String)> {
    let query = format!("person={}&sender={}", ALICE.replace('+', "%2B"), OURS.replace('+', "%2B"));
    let page = app.get(&format!("/v1/windows?{query}")).await;
    let windows = page["windows"].as_array().unwrap();
    assert!(windows.len() <= 1, "{page}");
    let text = |field: &str| windows[0][field].as_str().unwrap().to_owned();
    let known = !windows.is_empty();
    known.then(|| (text("last_inbound_at"), text("expires_at")))
}

async fn window_follows_the_last_message(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    assert_eq!(window(&app).await, None, "a contact who never wrote has no window");
    let sms = inbound("c3", "SM3", ALICE, "hi");
    accepted(
        &sidecar,
        &[
            from("SM1", ALICE),
            of_other(from("SM7", BOB)),
            from("SM2", ALICE),
            sms,
            status_callback("SM4", "read", None, ALICE),
        ],
    )
    .await;
    let windows = app.get("/v1/windows?person=%2B15551230001").await["windows"].clone();
    assert_eq!(column(&windows, "channel"), ["sms", "whatsapp"]);
    assert_eq!(windows[1]["open"], true);
    let last = app.get("/v1/messages/SM2").await["created_at"].clone();
    assert_eq!(windows[1]["last_inbound_at"], last, "the last message counts, and no status does");
    let (last, ends) = (last.as_str().unwrap(), windows[1]["expires_at"].as_str().unwrap());
    let [last, ends] = [last, ends].map(|time| time.parse::<jiff::Timestamp>().unwrap());
    assert_eq!(ends.duration_since(last).as_hours(), 24);
    for (query, expected) in [
        ("person=whatsapp:%2B15551230001", &["whatsapp"][..]),
        ("person=%2B15551230001&open=true", &["sms", "whatsapp"]),
        ("person=%2B15551230001&open=false", &[]),
        ("person=%2B15551230001&sender=%2B15550009999", &[]),
        ("person=%2B15551230002", &[]),
        ("person=%2B15551230001&limit=1", &["sms"]),
    ] {
        let page = app.get(&format!("/v1/windows?{query}")).await;
        assert_eq!(column(&page["windows"], "channel"), expected, "{query}");
    }
    let first = app.get("/v1/windows?person=%2B15551230001&limit=1").await;
    let next = first["next_cursor"].as_str().unwrap();
    let second = app.get(&format!("/v1/windows?person=%2B15551230001&cursor={next}")).await;
    assert_eq!(column(&second["windows"], "channel"), ["whatsapp"]);
    assert_eq!(second["next_cursor"], Value::Null);
}

async fn window_is_not_moved_back_by_a_late_or_repeated_webhook(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    let (first, second) = (from("SM1", ALICE), from("SM2", ALICE));
    // The backend refuses the first message and accepts the second one.
    sidecar.claim(first.clone()).await;
    sidecar.release(&first).await;
    accepted(&sidecar, std::slice::from_ref(&second)).await;
    eventually("the second message is listed as accepted", || async {
        app.get("/v1/events?sid=SM2").await["events"][0]["backend"] == "accepted"
    })
    .await;
    let opened = window(&app).await.unwrap();
    let second_came = app.get("/v1/messages/SM2").await["created_at"].clone();
    assert_eq!(json!(opened.0), second_came);

    // Twilio repeats the first message after the second one. Then late settlements of the first one arrive.
    let again = twilio_edge_contract::Claim { claim_id: "again".into(), ..first.clone() };
    accepted(&sidecar, std::slice::from_ref(&again)).await;
    sidecar.settle(settlement(&first, Outcome::Release)).await;
    sidecar.settle(unclaimed(&again, Outcome::Commit)).await;
    // A copy of the second message arrives, too.
    sidecar.claim(twilio_edge_contract::Claim { claim_id: "copy".into(), ..second.clone() }).await;
    sidecar.settle(unclaimed(&second, Outcome::Commit)).await;
    accepted(&sidecar, &[status_callback("SM5", "sent", None, ALICE)]).await;
    eventually("all of it is written", || async {
        let is_accepted = app.get("/v1/events?sid=SM1").await["events"][0]["backend"] == "accepted";
        is_accepted && app.get("/v1/messages/SM5").await["status"] == "sent"
    })
    .await;
    assert_eq!(window(&app).await.unwrap(), opened);
    // A restart of the sidecar does not move the window either.
    sidecar.stop();
    let sidecar = world.sidecar().await;
    let app = Caller::app(&sidecar, &key);
    assert_eq!(window(&app).await.unwrap(), opened);
}

async fn number_has_one_history(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    accepted(
        &sidecar,
        &[
            from("SM1", ALICE),
            status_callback("SM2", "sent", None, ALICE),
            status_callback("SM3", "sent", None, BOB),
            of_other(from("SM8", ALICE)),
        ],
    )
    .await;
    let story = app.get("/v1/numbers/%2B15551230001").await;
    assert_eq!((&story["number"], &story["account_sid"]), (&json!(ALICE), &json!(ACCOUNT)));
    assert_eq!(column(&story["messages"], "sid"), ["SM2", "SM1"]);
    assert_eq!(column(&story["events"], "sid"), ["SM2", "SM1"]);
    assert_eq!(column(&story["windows"], "sender"), [OURS]);
    assert_eq!((&story["suppressions"], &story["consents"]), (&json!([]), &json!([])));

    // Unescaped, and on one channel.
    assert_eq!(app.get("/v1/numbers/+15551230001").await["messages"], story["messages"]);
    let sms = app.get("/v1/numbers/sms:+15551230001").await;
    assert_eq!((&sms["messages"], &sms["channel"]), (&json!([]), &json!("sms")));
    // Our own number has a history as well, and an unknown number has an empty one.
    let ours = app.get("/v1/numbers/+15550001111?limit=1").await;
    assert_eq!(column(&ours["messages"], "sid"), ["SM3"]);
    let stranger = app.get("/v1/numbers/+15559999999").await;
    for part in ["suppressions", "consents", "windows", "messages", "events"] {
        assert_eq!(stranger[part], json!([]), "{part}");
    }

    // A STOP and a consent are part of the history at once.
    let stop = inbound("stop", "SM4", &format!("whatsapp:{ALICE}"), "STOP");
    sidecar.claim(stop).await;
    let number = format!("sms:{ALICE}");
    let evidence =
        json!({"number": number, "category": "marketing", "source": "form", "at": "2026-11-01"});
    let made = app.send(Method::POST, "/v1/consents", evidence.to_string()).await;
    assert_eq!(made.status(), 200);
    let stopped = app.get("/v1/numbers/+15551230001").await;
    assert_eq!(column(&stopped["suppressions"], "source"), ["keyword"]);
    assert_eq!(column(&stopped["consents"], "category"), ["marketing"]);
    assert_eq!(app.get("/v1/numbers/whatsapp:+15551230001").await["consents"], json!([]));
    assert_eq!(app.get("/v1/numbers/sms:+15551230001").await["suppressions"], json!([]));
}

async fn invalid_query_is_refused_with_its_field(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let (bound, unbound) = (
        admin.create("app", Some(ACCOUNT), "bound").await.1,
        admin.create("app", None, "unbound").await.1,
    );
    let bound = Caller::app(&sidecar, &bound);
    for (path, code) in [
        (format!("/v1/messages?account_sid={OTHER}"), coded(403, "other_account")),
        (format!("/v1/messages/SM1?account_sid={OTHER}"), coded(403, "other_account")),
        (format!("/v1/events?account_sid={OTHER}"), coded(403, "other_account")),
        (format!("/v1/windows?person=1&account_sid={OTHER}"), coded(403, "other_account")),
        (format!("/v1/numbers/1?account_sid={OTHER}"), coded(403, "other_account")),
    ] {
        assert_eq!(bound.refusal(Method::GET, &path, &Value::Null).await, code, "{path}");
    }
    for (path, field) in [
        ("/v1/messages?limit=0", "limit"),
        ("/v1/messages?limit=201", "limit"),
        ("/v1/messages?limit=x", "limit"),
        ("/v1/messages?page=2", "page"),
        ("/v1/messages?to=whatsapp:", "to"),
        ("/v1/messages?since=yesterday", "since"),
        ("/v1/messages?until=2026-11-23T12:00", "until"),
        ("/v1/messages?date_sent=2026-11-31", "date_sent"),
        ("/v1/messages?account_sid=AC1", "account_sid"),
        ("/v1/messages?state=gone", "state"),
        ("/v1/messages?direction=sideways", "direction"),
        ("/v1/events?class=other", "class"),
        ("/v1/windows", "person"),
        ("/v1/windows?person=", "person"),
        ("/v1/numbers/%00", "number"),
    ] {
        let response = bound.send(Method::GET, path, String::new()).await;
        assert_eq!(response.status(), 400, "{path}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["code"], "malformed_request", "{path}");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{path}: {problem}");
    }
    for path in [
        "/v1/messages?cursor=x",
        "/v1/messages?cursor=",
        "/v1/messages?cursor=eyJ3Ijp7Im8iOiIiLCJjIjoiIn19",
        "/v1/messages?cursor=eyJlIjp7InQiOjEsImsiOiIifX0",
        "/v1/windows?person=1&cursor=eyJlIjp7InQiOjEsImsiOiIifX0",
    ] {
        let no_page = coded(404, "invalid_cursor");
        assert_eq!(bound.refusal(Method::GET, path, &Value::Null).await, no_page, "{path}");
    }
    let unbound = Caller::app(&sidecar, &unbound);
    let required = coded(422, "account_required");
    for path in
        ["/v1/messages", "/v1/messages/SM1", "/v1/events", "/v1/windows?person=1", "/v1/numbers/1"]
    {
        assert_eq!(unbound.refusal(Method::GET, path, &Value::Null).await, required, "{path}");
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}account_sid={ACCOUNT}");
        let status = unbound.send(Method::GET, &path, String::new()).await.status().as_u16();
        assert!([200, 404].contains(&status), "{path}: {status}");
    }
}
