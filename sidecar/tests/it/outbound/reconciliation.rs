//! Reconciliation of `unknown` messages that Twilio lists under another spelling of the recipient: the reconciler finds them and
//! does not send them again. A small server stands for Twilio and lists each message only under the spelling that it chose.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use jiff::fmt::rfc2822;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::Caller,
    api::message_lists::OURS,
    api::message_views::application,
    outbound::sending::started_with,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, inbound},
    support::world::{World, on_every_store},
};

on_every_store!(message_listed_under_another_spelling_is_found_and_not_sent_again);

/// Requested recipient, and the spelling under which Twilio lists it.
const SPELLINGS: [(&str, &str); 10] = [
    ("+525512345678", "+5215512345678"),
    ("+52 1 55 1234 5679", "+525512345679"),
    ("+541169071234", "+5491169071234"),
    ("+5491169071235", "+541169071235"),
    ("+5511987654321", "+551187654321"),
    ("whatsapp:+551187654322", "whatsapp:+5511987654322"),
    ("whatsapp:+22507123456", "whatsapp:+2250707123456"),
    ("whatsapp:+2290197123456", "whatsapp:+22997123456"),
    ("+44 (0) 7400 123477", "+447400123477"),
    ("+4407400123478", "+447400123478"),
];

/// Twilio, which makes every message and answers 500.
#[derive(Clone, Default)]
struct Twilio {
    made: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
}

impl Twilio {
    async fn start() -> (String, Twilio) {
        let twilio = Twilio::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
        let app = Router::new().route(&path, get(list).post(make)).with_state(twilio.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (url, twilio)
    }
}

async fn make(State(twilio): State<Twilio>, body: String) -> StatusCode {
    let form = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    twilio.made.lock().unwrap().push(form);
    StatusCode::INTERNAL_SERVER_ERROR
}

/// The other spelling of what was posted, as Twilio lists it.
fn listed_as(posted: &str) -> &str {
    let same = |(asked, _): &&(&str, &str)| {
        let plain: String = asked.chars().filter(|c| !" ()".contains(*c)).collect();
        plain.replace("+440", "+44") == posted
    };
    SPELLINGS.iter().find(same).map(|(_, listed)| *listed).unwrap()
}

async fn list(
    State(twilio): State<Twilio>,
    Query(query): Query<HashMap<String, String>>,
) -> String {
    let made = twilio.made.lock().unwrap().clone();
    let shown = made.iter().enumerate().filter_map(|(n, form)| {
        let to = listed_as(&form["To"]);
        let created = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now()).unwrap();
        (query.get("To").is_none_or(|asked| asked == to)).then(|| {
            json!({"sid": format!("SM{n:032x}"), "to": to, "from": form["From"], "body": form["Body"],
                "messaging_service_sid": null, "direction": "outbound-api", "date_created": created})
        })
    });
    let messages: Vec<Value> = shown.collect();
    json!({"messages": messages, "next_page_uri": null}).to_string()
}

async fn message_listed_under_another_spelling_is_found_and_not_sent_again(world: World) {
    let (url, twilio) = Twilio::start().await;
    let settings = [
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "1000"),
        // Silence would count as soon as it may.
        ("TWILIO_EDGE_SENDING_ABSENT_AFTER_S", "1"),
    ];
    let sidecar = started_with(&world, &url, &settings).await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    let mut ids = Vec::new();
    for (n, (to, _)) in SPELLINGS.iter().enumerate() {
        let mut from = "+15557654321".to_owned();
        if to.starts_with("whatsapp:") {
            from = format!("whatsapp:{OURS}");
            sidecar.claim(inbound(&format!("c{n}"), &format!("SM{n}"), to, "hello")).await;
        }
        let wanted = json!({"to": to, "from": from, "body": format!("text {n}")});
        let taken = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
        let (status, taken) = (taken.status(), taken.json::<Value>().await.unwrap());
        assert_eq!(status, 202, "{to}: {taken}");
        ids.push(taken["id"].as_str().unwrap().to_owned());
    }
    for (n, (id, (to, _))) in ids.iter().zip(SPELLINGS).enumerate() {
        let place = format!("/v1/messages/{id}");
        eventually(to, async || app.get(&place).await["state"] == "sent").await;
        let made = twilio.made.lock().unwrap().clone();
        let text = format!("text {n}");
        let posted = made.iter().position(|form| form["Body"] == text).unwrap();
        let shown = app.get(&place).await;
        assert_eq!(shown["sid"], format!("SM{posted:032x}"), "{to}: {shown}");
    }
    assert_eq!(twilio.made.lock().unwrap().len(), SPELLINGS.len(), "each was posted once");
    let found = sidecar.metric("twilio_edge_messages_reconciled_total{by=\"found\"}").await;
    assert_eq!(found, 10.0);
}
