//! Status callbacks of the sidecar's own: the StatusCallback of a caller gets the end of a message that Twilio never received, with
//! Twilio's parameters and signature, until it accepts, also after a kill. A callback that reaches the sidecar again
//! changes nothing.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{Class, Decision};
use twilio_edge_filter::{
    form::{Form, SignedParameters, Webhook},
    signature::{Key, Payload, verify},
};

use crate::{
    access::api_keys::{Caller, administrator},
    inbound::deliveries::command,
    support::receiver::{Received, Receiver},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound},
    support::simulator::{SECRET, Simulator},
    support::world::{World, on_every_store},
};

on_every_store! {
    callback_survives_a_kill_and_an_outage_of_its_url,
    answer_of_the_drop_in_api_withdraws_the_callback,
    callback_through_the_filter_changes_no_consent,
    callback_that_is_rejected_becomes_a_dead_letter,
}

const OURS: &str = "+15557654321";
const PERSON: &str = "+14155550104";
/// Twilio refuses a message to this number with 21211.
const REFUSED: &str = "+14155559002";

/// The application of the caller. It receives StatusCallbacks and hands them on to the sidecar, as a route of the filter does.
pub(crate) struct Application {
    receiver: Receiver,
    relayed: AtomicUsize,
    settings: Vec<(String, String)>,
}

impl Application {
    pub(crate) async fn start() -> Application {
        let (receiver, relayed) = (Receiver::start().await, AtomicUsize::new(0));
        Application { receiver, relayed, settings: Vec::new() }
    }

    /// Returns the StatusCallback.
    pub(crate) fn url(&self) -> String {
        self.receiver.url()
    }

    /// Sets the settings of later commands, besides the accounts file.
    pub(crate) fn settings(&mut self, world: &World, more: &[(&str, &str)]) {
        let accounts = ("TWILIO_EDGE_ACCOUNTS_FILE", &*accounts(world));
        let all = more.iter().copied().chain([accounts]);
        self.settings = all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    }

    /// Runs a command with the settings.
    pub(crate) fn command(&self, world: &World, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
        command.args(arguments).env("DATABASE_URL", &world.database_url);
        let settings = self.settings.iter().map(|(name, value)| (name, value));
        let output = command.envs(settings).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Hands the accepted callbacks on that have arrived since the last call, and checks the signature of each.
    pub(crate) async fn relay(&self, sidecar: &Sidecar) {
        let got = self.receiver.taken();
        let begun = self.relayed.swap(got.len(), SeqCst);
        for (n, got) in got.iter().enumerate().skip(begun) {
            self.assert_valid(got);
            let decision = sidecar.decide(got.status_claim(&format!("relayed {n}"))).await;
            assert_ne!(decision, Decision::Unavailable);
        }
    }

    /// Checks a callback as the filter does.
    fn assert_valid(&self, got: &Received) {
        let url = format!("http://{}{}", self.receiver.address, got.target);
        let form = Form::parse(got.body.as_bytes()).unwrap();
        let key = Key::auth_token("the account's", SECRET).unwrap();
        let signature = got.header("x-twilio-signature").as_bytes();
        let verified = verify(&url, Payload::Form(&form), Some(signature), &[key]);
        assert!(verified.is_ok(), "{url} {got:?}");
        let signed = SignedParameters::posted(&form, got.body.as_bytes(), &got.target);
        let webhook = Webhook::read(Class::Status, &signed).unwrap();
        assert_eq!(webhook.identity.unwrap().account_sid, ACCOUNT);
    }

    /// Returns status and code of each callback about a message, sorted.
    pub(crate) fn callbacks(&self, id: &str) -> Vec<[String; 2]> {
        let about = |got: &Received| got.target.contains(&format!("twilio_edge_message={id}"));
        let got = self.receiver.taken().into_iter().filter(about);
        let mut found: Vec<_> =
            got.map(|got| [got.parameter("MessageStatus"), got.parameter("ErrorCode")]).collect();
        found.sort();
        found
    }

    /// Requests a message with Twilio's API. Returns our id, which has the digits of the provisional SID or is found by Twilio's.
    pub(crate) async fn create(&self, app: &Caller<'_>, form: &[(&str, &str)]) -> String {
        let (status, body) = self.post(app, form).await;
        assert_eq!(status, 201, "{body}");
        let sid = body["sid"].as_str().unwrap();
        app.get(&format!("/v1/messages/{sid}")).await["id"].as_str().unwrap().to_owned()
    }

    async fn post(&self, app: &Caller<'_>, form: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Messages.json", app.base);
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = app.client().post(url).basic_auth(ACCOUNT, Some(&app.token)).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Fetches a message with Twilio's API, by its provisional SID.
    pub(crate) async fn fetch(&self, app: &Caller<'_>, id: &str) -> Value {
        let sid = id.replace("ms_", "SM");
        let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}.json", app.base);
        let request = app.client().get(url).basic_auth(ACCOUNT, Some(&app.token));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }
}

/// Writes the accounts file, whose token signs the callbacks.
fn accounts(world: &World) -> String {
    let path = world.directory.path().join("webhook-accounts.toml");
    let text = format!("[[account]]\nsid = \"{ACCOUNT}\"\nauth_tokens = [\"{SECRET}\"]\n");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Starts a sidecar that sends status callbacks.
pub(crate) async fn started(
    world: &World,
    simulator: &Simulator,
    application: &Application,
    more: &[(&str, &str)],
) -> Sidecar {
    let (file, accounts) = (simulator.credentials(world), accounts(world));
    let address = application.receiver.address.ip().to_string();
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "5000"),
        ("TWILIO_EDGE_ACCOUNTS_FILE", &accounts),
        ("TWILIO_EDGE_MEDIA_TRUST_ADDRESSES", &address),
    ];
    world.sidecar_with(&[&settings[..], more].concat()).await
}

async fn token(sidecar: &Sidecar) -> String {
    administrator(sidecar).await.create("app", Some(ACCOUNT), "the shop").await.1
}

async fn requested(app: &Caller<'_>, application: &Application, to: &str, more: Value) -> String {
    let mut wanted =
        json!({"to": to, "from": OURS, "body": "hi", "status_callback": application.url()});
    wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    let (code, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(code, 202, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn until(app: &Caller<'_>, id: &str, state: &str) {
    let path = format!("/v1/messages/{id}");
    eventually(&format!("{id} is {state}"), async || app.get(&path).await["state"] == state).await;
}

async fn callback_survives_a_kill_and_an_outage_of_its_url(world: World) {
    let mut application = Application::start().await;
    let simulator = Simulator::start(&world, &[]);
    // The callback is due when the sidecar is back.
    let soon = [("TWILIO_EDGE_SENDING_ANSWER_WITHIN_MS", "0")];
    let sidecar = started(&world, &simulator, &application, &soon).await;
    let token = token(&sidecar).await;
    let app = Caller::app(&sidecar, &token);
    application.receiver.leave();
    let id = requested(&app, &application, REFUSED, json!({})).await;
    until(&app, &id, "refused").await;
    sidecar.kill();
    world.stored("UPDATE lanes SET due_at_ms = 0 WHERE held_by IS NOT NULL RETURNING lane").await;

    // The first answer of the application is an error, and the second one is not.
    application.receiver.listen().await;
    let answers = AtomicUsize::new(0);
    application
        .receiver
        .answers(move |_| if answers.fetch_add(1, SeqCst) == 0 { 503 } else { 200 });
    let sidecar = started(&world, &simulator, &application, &soon).await;
    eventually("the callback arrives", async || !application.callbacks(&id).is_empty()).await;
    assert_eq!(application.callbacks(&id), [["failed", "21211"]]);
    let got = application.receiver.got();
    assert_eq!(got.iter().map(|got| got.status).collect::<Vec<_>>(), [503, 200]);
    assert_eq!(got[1].parameter("MessageSid"), id.replace("ms_", "SM"));
    assert_eq!(got[1].parameter("To"), REFUSED);
    assert_eq!(got[0].header("i-twilio-idempotency-token"), format!("status_callback:{id}"));
    application.relay(&sidecar).await;
    // The attempts are shown, and the number is not kept.
    eventually("the result is stored", async || {
        world.stored("SELECT state FROM deliveries").await == ["done"]
    })
    .await;
    let done = ["deliveries", "show", &format!("status_callback:{id}"), "--json"];
    let attempts = command(&world, &done);
    assert!(attempts.contains("503"), "{attempts}");
}

async fn answer_of_the_drop_in_api_withdraws_the_callback(world: World) {
    let application = Application::start().await;
    let simulator = Simulator::start(&world, &[]);
    // The answer waits for Twilio, however slow the machine is.
    let slow = [("TWILIO_EDGE_SENDING_ANSWER_WITHIN_MS", "20000")];
    let sidecar = started(&world, &simulator, &application, &slow).await;
    let token = token(&sidecar).await;
    let app = Caller::app(&sidecar, &token);
    let url = application.url();
    let form = [("To", REFUSED), ("From", OURS), ("Body", "hi"), ("StatusCallback", &url)];
    let (status, body) = application.post(&app, &form).await;
    assert_eq!((status, &body["code"]), (400, &json!(21211)), "{body}");
    for table in ["deliveries", "operational_events"] {
        assert!(world.stored(&format!("SELECT account_sid FROM {table}")).await.is_empty());
    }
    // A caller of our own API has the id of the message, so it gets the callback.
    let id = requested(&app, &application, REFUSED, json!({})).await;
    until(&app, &id, "refused").await;
    let stored = world.stored("SELECT event_id FROM operational_events").await;
    assert_eq!(stored, [format!("status_callback:{id}")]);
    assert!(application.receiver.got().is_empty(), "it is sent when no answer can come any more");
}

async fn callback_through_the_filter_changes_no_consent(world: World) {
    let application = Application::start().await;
    let simulator = Simulator::start(&world, &[]);
    let soon = [("TWILIO_EDGE_SENDING_ANSWER_WITHIN_MS", "0")];
    let sidecar = started(&world, &simulator, &application, &soon).await;
    let token = token(&sidecar).await;
    let app = Caller::app(&sidecar, &token);
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
    let id = requested(&app, &application, PERSON, json!({"send_at": later.to_string()})).await;
    sidecar.claim(inbound("stop", "SMstop", PERSON, "STOP")).await;
    let due = format!(
        "UPDATE outbound_messages SET due_at_ms = 1, first_due_at_ms = {} WHERE id = '{id}' RETURNING id",
        jiff::Timestamp::now().as_millisecond()
    );
    world.stored(&due).await;
    until(&app, &id, "refused").await;
    eventually("the callback arrives", async || !application.callbacks(&id).is_empty()).await;
    assert_eq!(application.callbacks(&id), [["failed", "21610"]]);
    application.relay(&sidecar).await;
    let suppressions = app.get("/v1/suppressions").await["suppressions"].clone();
    let sources: Vec<&Value> =
        suppressions.as_array().unwrap().iter().map(|one| &one["source"]).collect();
    assert_eq!(sources, [&json!("keyword")], "{suppressions:#}");
    sidecar.claim(inbound("start", "SMstart", PERSON, "START")).await;
    let again = requested(&app, &application, PERSON, json!({})).await;
    until(&app, &again, "sent").await;
    let message = app.get(&format!("/v1/messages/{id}")).await;
    assert_eq!(
        (&message["state"], &message["error"]["code"]),
        (&json!("refused"), &json!("suppressed"))
    );
}

async fn callback_that_is_rejected_becomes_a_dead_letter(world: World) {
    let application = Application::start().await;
    application.receiver.answers(|_| 400);
    application.receiver.says("no such message");
    let simulator = Simulator::start(&world, &[]);
    let soon = [("TWILIO_EDGE_SENDING_ANSWER_WITHIN_MS", "0")];
    let sidecar = started(&world, &simulator, &application, &soon).await;
    let token = token(&sidecar).await;
    let app = Caller::app(&sidecar, &token);
    let id = requested(&app, &application, REFUSED, json!({})).await;
    eventually("it is given up", async || {
        world.stored("SELECT state FROM deliveries").await == ["dead"]
    })
    .await;
    let listed = command(&world, &["deliveries", "list", "--json"]);
    assert!(listed.contains(&format!("status_callback:{id}")), "{listed}");
    assert!(listed.contains("400: no such message"), "{listed}");
    application.receiver.answers(|_| 200);
    command(&world, &["deliveries", "retry", "--all", "--sink", "status_callbacks"]);
    eventually("it arrives", async || !application.callbacks(&id).is_empty()).await;
    // An erasure of the contact removes the callback with the number.
    command(&world, &["redact", "--account", ACCOUNT, "--number", REFUSED]);
    let data = world.stored("SELECT data FROM operational_events").await.concat();
    assert!(!data.contains("14155559002"), "{data}");
}
