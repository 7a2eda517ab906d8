//! Every end of a message is the same in every place where a user looks: the API, the drop-in API, the command line, the metrics,
//! the events of sinks, and the StatusCallback of the caller. The simulator acts as Twilio. The application of the caller
//! hands each callback on to the sidecar, as a route of the filter does.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator},
    inbound::deliveries::{command, sinks},
    outbound::{
        status_callbacks::{Application, started},
        templates::known,
    },
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound},
    support::simulator::Simulator,
    support::world::{World, on_every_store},
};

on_every_store! {
    every_end_is_the_same_everywhere,
}

const OURS: &str = "whatsapp:+15550001111";
const SMS: &str = "+15557654321";
/// Twilio refuses a free text to this contact with 63016.
const SWITCHED: &str = "whatsapp:+14155559015";

/// API in which a message is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Native,
    DropIn,
}

/// Step that ends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The dispatcher sends it.
    Send,
    /// Its validity period ends while it waits.
    Expire,
    /// The caller cancels it.
    Cancel,
    /// An operator decides that Twilio never had it.
    DecideNotSent,
}

/// A message, and its end as each place shows it. An empty text stands for nothing.
struct Row {
    name: &'static str,
    api: Api,
    to: &'static str,
    step: Step,
    /// State, status and code of the API and of the command line.
    shown: [&'static str; 3],
    /// Status and code of the drop-in API.
    drop_in: [&'static str; 2],
    /// Types of the events of sinks.
    events: &'static [&'static str],
    /// Status and code of each StatusCallback.
    callbacks: &'static [[&'static str; 2]],
    /// Series of the metrics, with its value after all rows.
    metric: (&'static str, f64),
}

const TABLE: &[Row] = &[
    Row {
        name: "delivered",
        api: Api::Native,
        to: "+14155550101",
        step: Step::Send,
        shown: ["sent", "delivered", ""],
        drop_in: ["delivered", ""],
        events: &["message.sent"],
        callbacks: &[["delivered", ""], ["sent", ""]],
        metric: ("message_outcomes_total{status=\"delivered\",code=\"none\",channel=\"sms\"}", 1.0),
    },
    Row {
        name: "failed",
        api: Api::DropIn,
        to: "+14155559013",
        step: Step::Send,
        shown: ["sent", "undelivered", "30005"],
        drop_in: ["undelivered", "30005"],
        events: &["message.failed", "message.sent"],
        callbacks: &[["sent", ""], ["undelivered", "30005"]],
        metric: (
            "message_outcomes_total{status=\"undelivered\",code=\"30005\",channel=\"sms\"}",
            1.0,
        ),
    },
    Row {
        name: "expired",
        api: Api::DropIn,
        to: "+14155550102",
        step: Step::Expire,
        shown: ["refused", "", "expired"],
        drop_in: ["failed", "30036"],
        events: &["message.expired"],
        callbacks: &[["failed", "30036"]],
        // This one, the refused one, and the first message of the switched one.
        metric: ("message_attempts_total{outcome=\"refused\"}", 3.0),
    },
    Row {
        name: "refused",
        api: Api::Native,
        to: "+14155559002",
        step: Step::Send,
        shown: ["refused", "", "21211"],
        drop_in: ["failed", "21211"],
        events: &["message.refused"],
        callbacks: &[["failed", "21211"]],
        // And the first message of the switched one.
        metric: ("twilio_errors_total{class=\"caller\"}", 2.0),
    },
    // The API shows the first message; the drop-in API shows the fallback in its place, and only the fallback is reported.
    Row {
        name: "switched",
        api: Api::Native,
        to: SWITCHED,
        step: Step::Send,
        shown: ["refused", "", "63016"],
        drop_in: ["read", ""],
        events: &["message.refused", "message.sent", "message.switched"],
        callbacks: &[["delivered", ""], ["read", ""], ["sent", ""]],
        metric: ("fallbacks_total{to=\"template\"}", 1.0),
    },
    Row {
        name: "unknown",
        api: Api::Native,
        to: "+14155559004",
        step: Step::Send,
        shown: ["unknown", "", "unknown"],
        drop_in: ["queued", ""],
        events: &["message.unknown"],
        callbacks: &[],
        metric: ("messages_unknown", 1.0),
    },
    Row {
        name: "not sent",
        api: Api::Native,
        to: "+14155559004",
        step: Step::DecideNotSent,
        shown: ["not_sent", "", ""],
        drop_in: ["failed", "30008"],
        events: &["message.unknown"],
        callbacks: &[["failed", "30008"]],
        metric: ("message_attempts_total{outcome=\"unknown\"}", 2.0),
    },
    Row {
        name: "canceled",
        api: Api::DropIn,
        to: "+14155550103",
        step: Step::Cancel,
        shown: ["canceled", "", ""],
        drop_in: ["canceled", ""],
        events: &[],
        callbacks: &[["canceled", ""]],
        // Those that Twilio never had: expired, refused, not sent, canceled.
        metric: ("deliveries_total{sink=\"status_callbacks\",outcome=\"delivered\"}", 4.0),
    },
];

/// Requests the message of a row, and carries out its step. Returns the id.
async fn begin(row: &Row, world: &World, app: &Caller<'_>, application: &Application) -> String {
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600)).to_string();
    let waits = matches!(row.step, Step::Expire | Step::Cancel);
    let id = match row.api {
        Api::Native => {
            let from = if row.to.starts_with("whatsapp:") { OURS } else { SMS };
            let mut wanted = json!({"to": row.to, "from": from, "body": row.name,
                "status_callback": application.url(), "metadata": {"row": row.name}});
            if row.to == SWITCHED {
                wanted["fallback"] = json!({"template": {"name": "may_we_write"}});
            }
            let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
            let (code, body) = (answer.status(), answer.json::<Value>().await.unwrap());
            assert_eq!(code, 202, "{}: {body}", row.name);
            body["id"].as_str().unwrap().to_owned()
        }
        Api::DropIn => {
            let url = application.url();
            let mut form =
                vec![("To", row.to), ("From", SMS), ("Body", row.name), ("StatusCallback", &url)];
            if waits {
                form.extend([("ScheduleType", "fixed"), ("SendAt", later.as_str())]);
                form.push(("ValidityPeriod", "60"));
            }
            application.create(app, &form).await
        }
    };
    match row.step {
        Step::Send => {}
        Step::Expire => {
            let expire = format!(
                "UPDATE outbound_messages SET due_at_ms = 1, first_due_at_ms = 1, valid_until_ms = 60001 WHERE id = '{id}' RETURNING id"
            );
            world.stored(&expire).await;
        }
        Step::Cancel => {
            let sid = id.replace("ms_", "SM");
            application.command(world, &["messages", "cancel", "--sid", &sid]);
        }
        Step::DecideNotSent => {
            let path = format!("/v1/messages/{id}");
            eventually("it is unknown", async || app.get(&path).await["state"] == "unknown").await;
            application.command(world, &["messages", "resolve", &id, "--not-sent"]);
        }
    }
    id
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns state, status and code, as the API shows a message.
fn shown(message: &Value) -> [&str; 3] {
    [text(&message["state"]), text(&message["status"]), text(&message["error"]["code"])]
}

/// Returns the types of the events about a message and its fallback.
fn events(sink: &Receiver, id: &str) -> Vec<String> {
    let events = sink.taken().into_iter().map(|got| got.event());
    let is_about = |event: &Value| event["data"]["id"] == id || event["data"]["fallback_of"] == id;
    let types = events.filter(is_about).map(|event| text(&event["event_type"]).to_owned());
    let mut types: Vec<String> = types.collect();
    types.sort();
    types
}

async fn every_end_is_the_same_everywhere(world: World) {
    let (mut application, sink) = (Application::start().await, Receiver::start().await);
    let file = sinks(&world, &[("all", &sink, "classes = []\nevents = [\"message.*\"]")]);
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let more =
        [("TWILIO_EDGE_SINKS_FILE", file.as_str()), ("TWILIO_EDGE_SENDING_ANSWER_WITHIN_MS", "0")];
    let sidecar = started(&world, &simulator, &application, &more).await;
    application.settings(&world, &more);
    let root = administrator(&sidecar).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    let app = Caller::app(&sidecar, &token);
    known(&app).await;
    let agreed = json!({"number": SWITCHED, "category": "utility", "source": "form", "at": "2026-11-01T10:00:00Z"});
    let recorded = app.send(Method::POST, "/v1/consents", agreed.to_string()).await;
    assert!(recorded.status().is_success());
    sidecar.claim(inbound("w1", "SMw1", SWITCHED, "hello")).await;

    let mut ids = Vec::new();
    for row in TABLE {
        ids.push(begin(row, &world, &app, &application).await);
    }
    // The application receives the callbacks, and the sidecar learns the statuses from them.
    for (row, id) in TABLE.iter().zip(&ids) {
        let fallback = fallback_of(&app, row, id).await;
        let about = fallback.as_deref().unwrap_or(id);
        eventually(&format!("{}: every callback arrives", row.name), async || {
            application.relay(&sidecar).await;
            application.callbacks(about).len() >= row.callbacks.len()
                && events(&sink, id).len() >= row.events.len()
        })
        .await;
    }
    application.relay(&sidecar).await;

    for (row, id) in TABLE.iter().zip(&ids) {
        let name = row.name;
        let message = app.get(&format!("/v1/messages/{id}")).await;
        assert_eq!(shown(&message), row.shown, "API: {name}: {message}");
        assert_eq!(command_line(&world, id), row.shown, "command line: {name}");
        let resource = application.fetch(&app, id).await;
        let code = resource["error_code"].as_u64().map(|code| code.to_string());
        let of_drop_in = [text(&resource["status"]), code.as_deref().unwrap_or_default()];
        assert_eq!(of_drop_in, row.drop_in, "drop-in: {name}: {resource}");
        assert_eq!(events(&sink, id), row.events, "events: {name}");
        let fallback = fallback_of(&app, row, id).await;
        let about = fallback.as_deref().unwrap_or(id);
        assert_eq!(application.callbacks(about), row.callbacks, "callbacks: {name}");
        let (series, expected) = row.metric;
        let series = format!("twilio_edge_{series}");
        eventually(&format!("metrics: {name}: {series} is {expected}"), async || {
            sidecar.metric(&series).await == expected
        })
        .await;
        if row.api == Api::Native {
            assert_eq!(message["metadata"], json!({"row": name}));
        }
        if let Some(fallback) = &fallback {
            assert!(application.callbacks(id).is_empty(), "{name}: the first is not reported");
            let instead = app.get(&format!("/v1/messages/{fallback}")).await;
            assert_eq!(shown(&instead), ["sent", "read", ""], "{instead}");
            assert_eq!(instead["metadata"], json!({"row": name}), "{instead}");
        }
    }
    only_messages_are_listed(&sidecar, &app, &ids).await;
}

async fn fallback_of(app: &Caller<'_>, row: &Row, id: &str) -> Option<String> {
    if row.to != SWITCHED {
        return None;
    }
    let path = format!("/v1/messages/{id}");
    eventually("it is switched", async || app.get(&path).await["fallback"].is_string()).await;
    Some(text(&app.get(&path).await["fallback"]).to_owned())
}

/// Returns state, status and code, as the command line shows a message.
fn command_line(world: &World, id: &str) -> [String; 3] {
    let show = ["messages", "show", "--sid", id, "--account", ACCOUNT];
    let csv = ["-o", "csv", "--no-header", "--properties", "state,status,error"];
    let printed = command(world, &[&show[..], &csv].concat());
    let cells: Vec<String> = printed.trim_end().split(',').map(str::to_owned).collect();
    let json = command(world, &[&show[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(cells, shown(&json), "{printed} {json}");
    cells.try_into().unwrap()
}

/// The sidecar's own callbacks have arrived at the sidecar again: each is part of the timeline of its message, and no message.
async fn only_messages_are_listed(sidecar: &Sidecar, app: &Caller<'_>, ids: &[String]) {
    sidecar.until_written().await;
    let listed = app.get("/v1/messages?direction=outbound").await;
    let listed = listed["messages"].as_array().unwrap();
    let mut found: Vec<&str> = listed.iter().map(|one| text(&one["id"])).collect();
    found.retain(|id| ids.iter().any(|one| one == id));
    assert_eq!((listed.len(), found.len()), (ids.len() + 1, ids.len()), "{listed:#?}");
    let canceled = app.get(&format!("/v1/messages/{}", ids.last().unwrap())).await;
    let timeline = canceled["timeline"].as_array().unwrap();
    let webhook = timeline.iter().find(|entry| entry["event"] == "webhook").unwrap();
    let sid = ids.last().unwrap().replace("ms_", "SM");
    assert_eq!((&webhook["webhook"]["sid"], &canceled["sid"]), (&json!(sid), &Value::Null));
    // The message is found by the SID that its callback named.
    assert_eq!(app.get(&format!("/v1/messages/{sid}")).await["id"], canceled["id"]);
}
