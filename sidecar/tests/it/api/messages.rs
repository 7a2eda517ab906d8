//! Messages of both directions: one list with filters and cursors, and one view of a message with its timeline, through the
//! API and on the command line.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::{accepted, from, status_callback},
    inbound::deliveries::command,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound},
    support::simulator::Simulator,
    support::world::{World, on_every_store},
};

on_every_store!(
    list_has_both_directions_page_by_page,
    message_shows_status_error_attempts_and_timeline,
    number_of_a_search_may_be_any_address,
);

const SENDER: &str = "+14155238886";
const INBOUND_FROM: &str = "+15551230001";
const RECIPIENT: &str = "+14155550101";

async fn started(world: &World, simulator: &Simulator) -> Sidecar {
    let file = simulator.credentials(world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
    ];
    world.sidecar_with(&settings).await
}

/// Sends a message; with `wait`, once Twilio has decided. Returns the answer.
async fn send(app: &Caller<'_>, to: &str, at: Option<Duration>) -> Value {
    let mut body = json!({"to": to, "from": SENDER, "body": "hi"});
    if let Some(at) = at {
        body["send_at"] = json!((jiff::Timestamp::now() + at).to_string());
    }
    let path = if at.is_some() { "/v1/messages" } else { "/v1/messages?wait_ms=20000" };
    let answer = app.send(Method::POST, path, body.to_string()).await;
    assert!(answer.status().is_success(), "{:?}", answer.text().await);
    answer.json().await.unwrap()
}

fn ids(rows: &Value) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// Returns the ids of all pages, and checks the size of each page.
async fn walked(app: &Caller<'_>, query: &str, limit: usize) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("/v1/messages?limit={limit}{query}{cursor}")).await;
        let found = ids(&page["messages"]);
        assert!(found.len() <= limit, "{page}");
        all.extend(found);
        assert!(all.len() < 100, "the pages do not end");
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

async fn list_has_both_directions_page_by_page(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator).await;
    let root = administrator(&sidecar).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(&sidecar, &token);
    // Inbound messages, and outbound ones that wait, that are sent, and that Twilio has from another program.
    let (mut newest_first, mut waiting, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..4 {
        let inbound = format!("SM1{n}");
        accepted(&sidecar, &[from(&inbound, INBOUND_FROM)]).await;
        let queued = send(&app, RECIPIENT, Some(Duration::from_secs(3600))).await;
        waiting.push(queued["id"].as_str().unwrap().to_owned());
        let message = send(&app, &format!("+1415555020{n}"), None).await;
        assert_eq!(message["state"], "sent", "{message}");
        let sid = message["sid"].as_str().unwrap();
        sent.push(message["id"].as_str().unwrap().to_owned());
        // The sent message is listed once, with its row and its webhook.
        accepted(&sidecar, &[status_callback(sid, "delivered", None, &format!("+1415555020{n}"))])
            .await;
        let foreign = format!("SM2{n}");
        accepted(&sidecar, &[status_callback(&foreign, "failed", Some("30003"), RECIPIENT)]).await;
        newest_first.splice(0..0, [foreign, sent[n].clone(), waiting[n].clone(), inbound]);
    }
    eventually("the webhooks are written", async || walked(&app, "", 50).await == newest_first)
        .await;
    for limit in [1, 2, 3, 5, 16] {
        assert_eq!(walked(&app, "", limit).await, newest_first, "{limit}");
    }
    let only = |part: &[&str]| -> Vec<String> {
        let is_in = |id: &&String| part.iter().any(|start| id.starts_with(start));
        newest_first.iter().filter(is_in).cloned().collect()
    };
    let reversed = |ids: &[String]| ids.iter().rev().cloned().collect::<Vec<_>>();
    for (query, expected) in [
        ("&direction=inbound", only(&["SM1"])),
        ("&direction=outbound", only(&["SM2", "ms_"])),
        ("&state=received", only(&["SM1"])),
        ("&state=queued", reversed(&waiting)),
        ("&state=refused", Vec::new()),
        ("&state=queued&direction=inbound", Vec::new()),
        ("&status=failed", only(&["SM2"])),
        ("&status=delivered", reversed(&sent)),
        ("&from=%2B15551230001", only(&["SM1"])),
        ("&to=%2B14155550202", vec![sent[2].clone()]),
        ("&since=2001-01-01&until=2002-01-01", Vec::new()),
    ] {
        for limit in [1, 3, 50] {
            assert_eq!(walked(&app, query, limit).await, expected, "{query} {limit}");
        }
    }
    // By its number a message is found while it waits, and once Twilio has reported its status.
    let mut of_recipient = walked(&app, "&number=%2B14155550101", 3).await;
    of_recipient.sort();
    let mut expected = [only(&["SM2"]), waiting.clone()].concat();
    expected.sort();
    assert_eq!(of_recipient, expected);
    let mut of_sent = walked(&app, "&state=sent", 3).await;
    of_sent.sort();
    let mut expected = [only(&["SM2"]), sent].concat();
    expected.sort();
    assert_eq!(of_sent, expected);
}

async fn message_shows_status_error_attempts_and_timeline(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator).await;
    let root = administrator(&sidecar).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(&sidecar, &token);
    let message = send(&app, RECIPIENT, None).await;
    let (id, sid) = (message["id"].as_str().unwrap(), message["sid"].as_str().unwrap());
    accepted(&sidecar, &[status_callback(sid, "sent", None, RECIPIENT)]).await;
    accepted(&sidecar, &[status_callback(sid, "undelivered", Some("30003"), RECIPIENT)]).await;
    let path = format!("/v1/messages/{id}");
    eventually("the failure is written", async || app.get(&path).await["webhooks"] == 2).await;
    // The URLs of the callbacks have no id of ours, so the row of the message follows in the background.
    eventually("the failure is counted", async || {
        app.get("/v1/statistics").await["totals"]["failed"] == 1
    })
    .await;
    let shown = app.get(&path).await;
    assert_eq!(shown, app.get(&format!("/v1/messages/{sid}")).await, "by id and by SID");
    let expected = json!({
        "id": id, "sid": sid, "account_sid": ACCOUNT, "direction": "outbound", "to": RECIPIENT,
        "state": "sent", "status": "undelivered", "category": "service", "kind": "session",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}: {shown}");
    }
    assert_eq!(shown["error"]["code"], "30003");
    assert_eq!(shown["error"]["actor"], "caller", "{shown}");
    assert!(shown["error"]["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()));
    assert_eq!(
        (&shown["attempts"]["count"], &shown["attempts"]["segments"]),
        (&json!(1), &json!(1))
    );
    let timeline = shown["timeline"].as_array().unwrap();
    let events: Vec<&str> = timeline.iter().map(|entry| entry["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["accepted", "attempt", "state", "webhook", "webhook"], "{shown}");
    assert_eq!(timeline[2]["state"], "sent");
    assert_eq!(timeline[4]["webhook"]["status"], "undelivered");
    assert_eq!(timeline[4]["webhook"]["backend"], "accepted");
    assert_eq!(timeline[4]["error"]["code"], "30003");

    accepted(&sidecar, &[from("SM1", INBOUND_FROM)]).await;
    eventually("it is written", async || {
        app.get("/v1/messages/SM1").await["timeline"][0]["webhook"]["backend"] == "accepted"
    })
    .await;
    let inbound = app.get("/v1/messages/SM1").await;
    let shown = ["id", "sid", "direction", "from", "state", "status"].map(|name| &inbound[name]);
    assert_eq!(shown, ["SM1", "SM1", "inbound", INBOUND_FROM, "received", "received"]);
    assert_eq!((&inbound["attempts"], &inbound["error"]), (&Value::Null, &Value::Null));
    assert_eq!(
        app.refusal(Method::GET, "/v1/messages/ms_0", &Value::Null).await,
        coded(404, "no_such_message")
    );

    // The command line shows the same.
    for name in [id, sid, "SM1"] {
        let printed = command(&world, &["messages", "show", name, "--account", ACCOUNT, "--json"]);
        let printed: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(printed, app.get(&format!("/v1/messages/{name}")).await);
        let table =
            command(&world, &["-o", "table", "messages", "show", name, "--account", ACCOUNT]);
        assert!(table.contains("webhook"), "{table}");
    }
    let listed = command(&world, &["messages", "list", "--account", ACCOUNT, "--output", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(ids(&listed), ids(&app.get("/v1/messages").await["messages"]));
    let all = command(&world, &["messages", "list", "--state", "sent", "--json"]);
    assert_eq!(ids(&serde_json::from_str(&all).unwrap()), [id]);
}

async fn number_of_a_search_may_be_any_address(world: World) {
    let sidecar = world.sidecar().await;
    let root = administrator(&sidecar).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(&sidecar, &token);
    for (sid, sender) in [("SM1", "Caf\u{e9} M\u{fc}nchen"), ("SM2", "messenger:10\u{661}8")] {
        accepted(&sidecar, &[inbound(sid, sid, sender, "hi")]).await;
        let number: String = form_urlencoded::byte_serialize(sender.as_bytes()).collect();
        eventually("it is found", async || {
            ids(&app.get(&format!("/v1/messages?number={number}")).await["messages"]) == [sid]
        })
        .await;
        assert_eq!(ids(&app.get(&format!("/v1/messages?from={number}")).await["messages"]), [sid]);
        assert!(ids(&app.get(&format!("/v1/messages?to={number}")).await["messages"]).is_empty());
    }
}
