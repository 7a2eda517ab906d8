//! Notification plans: a notification walks from channel to channel until one reaches the contact, with one log, and never sends
//! twice on a channel. `kills.rs` kills the sidecar meanwhile. The simulator acts as Twilio and SendGrid; the sidecar asks it for
//! statuses, because no callback arrives.

mod kills;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    inbound::deliveries::command,
    outbound::templates::known,
    support::{
        documented,
        servers::{eventually, eventually_within},
        sidecar::{ACCOUNT, Sidecar, inbound, status},
        simulator::{SECRET, Simulator},
        world::{Kind, World, on_every_store},
    },
};

on_every_store! {
    notification_walks_its_plan_to_the_end,
    unanswered_step_moves_on_once,
    person_who_left_a_channel_is_not_reached_there,
    repeated_request_is_one_notification,
    redaction_reaches_a_stored_plan_by_each_address,
}

/// WhatsApp and SMS report that this handset is unknown.
const UNREACHABLE: &str = "+14155559013";
/// This number has no WhatsApp user.
const NOT_ON_WHATSAPP: &str = "+14155559014";
const PERSON: &str = "+14155550123";
const EMAIL: &str = "ava@example.com";

const ROUTES: &str = r#"
default: {whatsapp: "whatsapp:+15550001111", sms: "+15557654321"}
plans:
  order:
    - {channel: whatsapp}
    - {channel: sms}
    - {channel: email}
"#;

/// Settings with which a sidecar sends on every channel of the simulator.
async fn settings(world: &World, simulator: &Simulator) -> Vec<(&'static str, String)> {
    let listed: Value = reqwest::get(format!("{}/simulator/emails", simulator.base))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let key = listed["event_public_key"].as_str().unwrap();
    let write = |name: &str, text: &str| {
        let file = world.directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let accounts = format!(
        "[[account]]\nsid = \"{ACCOUNT}\"\nprovider = \"sendgrid\"\napi_key = \"{SECRET}\"\nfrom = \"shop@example.com\"\nevent_public_key = \"{key}\"\n"
    );
    vec![
        ("TWILIO_EDGE_SENDING_FILE", simulator.credentials(world)),
        ("TWILIO_EDGE_SENDING_BASE_URL", simulator.base.clone()),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "1000".to_owned()),
        ("TWILIO_EDGE_SENDING_ABSENT_AFTER_S", "2".to_owned()),
        ("TWILIO_EDGE_SENDING_STATUS_AFTER_S", "1".to_owned()),
        ("TWILIO_EDGE_SENDING_ROUTING_FILE", write("routes.yaml", ROUTES)),
        ("TWILIO_EDGE_EMAIL_FILE", write("email.toml", &accounts)),
        ("TWILIO_EDGE_EMAIL_BASE_URL", simulator.base.clone()),
    ]
}

async fn serve(world: &World, simulator: &Simulator, more: &[(&str, &str)]) -> Sidecar {
    let settings = settings(world, simulator).await;
    let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
    let sidecar =
        world.sidecar_with(&settings.chain(more.iter().copied()).collect::<Vec<_>>()).await;
    let url = format!("{}/email/events/{ACCOUNT}", sidecar.base);
    let place = format!("{}/simulator/email-events", simulator.base);
    let change = json!({"url": url}).to_string();
    reqwest::Client::new().post(place).body(change).send().await.unwrap();
    sidecar
}

async fn application<'a>(sidecar: &'a Sidecar, root: &Caller<'_>) -> Caller<'a> {
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    let app = Caller::app(sidecar, &token);
    known(&app).await;
    app
}

fn wanted(number: &str, plan: Value) -> Value {
    json!({
        "to": {"number": number, "email": EMAIL},
        "category": "service",
        "content": {
            "whatsapp": {"template": {"name": "may_we_write"}},
            "sms": {"text": "Your order is on its way."},
            "email": {"subject": "Your order", "text": "It is on its way."},
        },
        "plan": plan,
        "metadata": {"order": "17"},
    })
}

async fn notify(app: &Caller<'_>, wanted: &Value) -> Value {
    let answer = app.send(Method::POST, "/v1/notifications", wanted.to_string()).await;
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 202, "{body}");
    body
}

async fn shown(app: &Caller<'_>, notification: &Value) -> Value {
    app.get(notification["links"]["self"].as_str().unwrap()).await
}

/// Returns a field of every attempt.
fn of_attempts(notification: &Value, field: &str) -> Vec<String> {
    let attempts = notification["attempts"].as_array().unwrap();
    attempts.iter().map(|one| one[field].as_str().unwrap_or("-").to_owned()).collect()
}

/// Waits until the last attempt is sent on this channel, and returns the notification.
async fn sent_on(app: &Caller<'_>, notification: &Value, channel: &str) -> Value {
    eventually(&format!("it is sent on {channel}"), async || {
        let shown = shown(app, notification).await;
        shown["channel"] == channel && shown["state"] == "sent"
    })
    .await;
    shown(app, notification).await
}

/// Returns the number of messages that the simulator created on WhatsApp and by SMS, and of its e-mails.
async fn count(simulator: &Simulator) -> [usize; 3] {
    let listed = simulator.listed(ACCOUNT).await;
    let is_chat = |one: &&Value| one["to"].as_str().unwrap().starts_with("whatsapp:");
    let chats = listed.iter().filter(is_chat).count();
    let emails = reqwest::get(format!("{}/simulator/emails", simulator.base)).await.unwrap();
    let emails: Value = emails.json().await.unwrap();
    [chats, listed.len() - chats, emails["emails"].as_array().unwrap().len()]
}

async fn notification_walks_its_plan_to_the_end(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = serve(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let accepted = notify(&app, &wanted(UNREACHABLE, json!("order"))).await;
    assert_eq!(
        (&accepted["plan"], &accepted["remaining_steps"]),
        (
            &json!("order"),
            &json!([{"channel": "sms", "within_s": null}, {"channel": "email", "within_s": null}])
        ),
        "{accepted}"
    );
    eventually("the e-mail is delivered", async || {
        shown(&app, &accepted).await["status"] == "delivered"
    })
    .await;
    let ended = shown(&app, &accepted).await;
    assert_eq!(of_attempts(&ended, "channel"), ["whatsapp", "sms", "email"], "{ended}");
    assert_eq!(of_attempts(&ended, "status"), ["undelivered", "undelivered", "delivered"]);
    assert_eq!(ended["attempts"][0]["error"]["code"], "30005", "{ended}");
    assert_eq!(
        (&ended["remaining_steps"], &ended["metadata"], &ended["to"]),
        (&json!([]), &json!({"order": "17"}), &json!(format!("email:{EMAIL}")))
    );
    assert_eq!(count(&simulator).await, [1, 1, 1]);
    let listed = app.get("/v1/notifications").await;
    assert_eq!(listed["notifications"], json!([ended]), "one log");
    let stored =
        world.stored("SELECT form || fallback || fallback_to FROM outbound_messages").await;
    assert_eq!(stored, ["", "", ""], "nothing of the plan remains");

    // `move_on` names the failures instead.
    let only =
        json!([{"channel": "whatsapp", "move_on": [63024, "suppressed"]}, {"channel": "sms"}]);
    let stays = notify(&app, &wanted(UNREACHABLE, only.clone())).await;
    let moves = notify(&app, &wanted(NOT_ON_WHATSAPP, only)).await;
    sent_on(&app, &moves, "sms").await;
    eventually("the first one fails", async || {
        shown(&app, &stays).await["error"]["code"] == "30005"
    })
    .await;
    let stays = shown(&app, &stays).await;
    assert_eq!(
        (of_attempts(&stays, "channel"), &stays["plan"]),
        (vec!["whatsapp".to_owned()], &Value::Null)
    );
}

async fn unanswered_step_moves_on_once(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    // The sidecar never learns that WhatsApp delivered the message.
    let silent = [("TWILIO_EDGE_SENDING_STATUS_AFTER_S", "0")];
    let sidecar = serve(&world, &simulator, &silent).await;
    // Two sidecars move steps on at the same time, where a database permits two.
    let is_shared = matches!(world.kind, Kind::Postgres | Kind::RedisPostgres);
    let other = match is_shared {
        true => Some(serve(&world, &simulator, &silent).await),
        false => None,
    };
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let plan = json!([{"channel": "whatsapp", "within_s": 2}, {"channel": "sms", "within_s": 600}, {"channel": "email"}]);
    let accepted = notify(&app, &wanted(PERSON, plan)).await;
    let moved = sent_on(&app, &accepted, "sms").await;
    assert_eq!(of_attempts(&moved, "channel"), ["whatsapp", "sms"]);
    assert_eq!(moved["attempts"][0]["error"]["code"], "no_answer", "{moved}");
    let series = "twilio_edge_plan_steps_unanswered_total{channel=\"whatsapp\"}";
    let by_other = match &other {
        Some(other) => other.metric(series).await,
        None => 0.0,
    };
    assert_eq!(sidecar.metric(series).await + by_other, 1.0);

    // The first message is delivered late, which the log shows. No other step follows.
    let first = &moved["attempts"][0];
    let mut late = status("c1", first["provider_id"].as_str().unwrap(), "delivered");
    late.message_id = Some(first["id"].as_str().unwrap().to_owned());
    sidecar.claim(late).await;
    eventually("the delivery is shown", async || {
        shown(&app, &accepted).await["attempts"][0]["status"] == "delivered"
    })
    .await;
    // A delivery in time ends the plan.
    let second = &moved["attempts"][1];
    let mut in_time = status("c2", second["provider_id"].as_str().unwrap(), "delivered");
    in_time.message_id = Some(second["id"].as_str().unwrap().to_owned());
    sidecar.claim(in_time).await;
    eventually("no step remains", async || {
        shown(&app, &accepted).await["remaining_steps"] == json!([])
    })
    .await;
    world.stored("UPDATE outbound_messages SET changed_at_ms = 1 WHERE answer_within_ms > 0 RETURNING id").await;
    let again = notify(&app, &wanted(PERSON, json!([{"channel": "sms"}]))).await;
    sent_on(&app, &again, "sms").await;
    assert_eq!(count(&simulator).await, [1, 2, 0]);
}

async fn person_who_left_a_channel_is_not_reached_there(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = serve(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let left = |n: u32| format!("+1415555020{n}");
    sidecar.claim(inbound("c1", "SM1", &format!("whatsapp:{}", left(1)), "STOP")).await;
    sidecar.claim(inbound("c2", "SM2", &left(2), "STOP")).await;
    for (claim, from) in [("c3", format!("whatsapp:{}", left(3))), ("c4", left(3))] {
        sidecar.claim(inbound(claim, &format!("SM{claim}"), &from, "STOP")).await;
    }
    // A dry run shows the verdicts of each step.
    let mut dry = wanted(&left(1), json!("order"));
    dry["dry_run"] = json!(true);
    let answer = app.send(Method::POST, "/v1/notifications", dry.to_string()).await;
    let verdicts: Value = answer.json().await.unwrap();
    let allowed: Vec<&Value> =
        verdicts["steps"].as_array().unwrap().iter().map(|step| &step["allowed"]).collect();
    assert_eq!(
        (&verdicts["allowed"], allowed),
        (&json!(true), vec![&json!(false), &json!(true), &json!(true)])
    );

    // The step is skipped at once, and is in the log.
    let first = notify(&app, &wanted(&left(1), json!("order"))).await;
    assert_eq!(of_attempts(&first, "state"), ["refused", "queued"], "{first}");
    let first = sent_on(&app, &first, "sms").await;
    assert_eq!(first["attempts"][0]["error"]["code"], "suppressed", "{first}");
    // The next step would be on the channel that the contact left.
    let plan =
        json!([{"channel": "whatsapp", "within_s": 1}, {"channel": "sms"}, {"channel": "email"}]);
    let second = notify(&app, &wanted(&left(2), plan)).await;
    let person = format!("outbound_messages WHERE contact = '{}'", left(2));
    eventually("WhatsApp has delivered it, or the e-mail is sent", async || {
        let shown = shown(&app, &second).await;
        shown["status"] == "delivered" || (shown["channel"] == "email" && shown["state"] == "sent")
    })
    .await;
    let on_sms = format!("SELECT state FROM {person} AND channel = 'sms' AND state <> 'refused'");
    assert_eq!(world.stored(&on_sms).await, [] as [String; 0]);
    // Nothing remains: the refusal of the last step, and the log has all of them.
    let chats = json!([{"channel": "whatsapp"}, {"channel": "sms"}]);
    let refusal = app.refusal(Method::POST, "/v1/notifications", &wanted(&left(3), chats)).await;
    assert_eq!(refusal, coded(409, "suppressed"));
    let declined = app.get("/v1/notifications?state=declined").await;
    let declined = declined["notifications"][0].clone();
    assert_eq!(of_attempts(&declined, "state"), ["declined", "declined"], "{declined}");
    let third = notify(&app, &wanted(&left(3), json!("order"))).await;
    let third = sent_on(&app, &third, "email").await;
    assert_eq!(of_attempts(&third, "state"), ["refused", "refused", "sent"]);
    let to = simulator.listed(ACCOUNT).await;
    let to: Vec<&str> = to.iter().map(|one| one["to"].as_str().unwrap()).collect();
    let opted_out =
        [format!("whatsapp:{}", left(1)), left(2), left(3), format!("whatsapp:{}", left(3))];
    assert!(!to.iter().any(|to| opted_out.iter().any(|left| left == to)), "{to:?}");
}

async fn repeated_request_is_one_notification(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = serve(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let send = async |key: &str, body: &Value| -> (u16, Value) {
        let request = app.client().post(format!("{}/v1/notifications?wait_ms=4000", app.base));
        let request = request.bearer_auth(&app.token).header("idempotency-key", key);
        let answer = request.body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    };
    let body = wanted(PERSON, json!("order"));
    let (first, second) = (send("one", &body).await, send("one", &body).await);
    assert_eq!((first.0, &first.1["state"]), (200, &json!("sent")), "{first:?}");
    assert_eq!((second.0, &second.1["id"]), (200, &first.1["id"]));
    assert_eq!(send("one", &wanted(PERSON, json!([{"channel": "sms"}]))).await.0, 422);
    sidecar.claim(inbound("c1", "SM1", "+14155550199", "STOP")).await;
    for _ in 0..2 {
        assert_eq!(send("two", &wanted("+14155550199", json!([{"channel": "sms"}]))).await.0, 409);
    }
    let listed = app.get("/v1/notifications").await;
    assert_eq!(listed["notifications"].as_array().unwrap().len(), 2, "{listed}");
    assert_eq!(count(&simulator).await, [1, 0, 0]);
}

#[tokio::test]
async fn impossible_plan_is_refused_with_its_field() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let sidecar = serve(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let with = |pointer: &str, value: Value| {
        let mut body = wanted(PERSON, json!("order"));
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => parent.remove(field),
            value => parent.insert(field.to_owned(), value),
        };
        body
    };
    let (invalid, malformed) = ("invalid_field", "malformed_request");
    for (body, code, named) in [
        (with("/plan", json!("orders")), invalid, "plan: is not a plan"),
        (with("/plan", json!("Order")), malformed, "plan: must be a name"),
        (with("/plan", json!([])), malformed, "plan: must have 1 to 3 steps"),
        (with("/plan", json!([{"channel": "fax"}])), malformed, ""),
        (
            with("/plan", json!([{"channel": "sms"}, {"channel": "sms"}])),
            invalid,
            "plan: [1].channel",
        ),
        (with("/plan", json!([{"channel": "sms", "within_s": 5}])), invalid, "plan: [0].within_s"),
        (
            with("/plan", json!([{"channel": "sms", "move_on": ["never"]}, {"channel": "email"}])),
            malformed,
            "",
        ),
        (with("/to/email", Value::Null), invalid, "to.email: is required"),
        (with("/to/number", Value::Null), invalid, "to.number: is required"),
        (with("/to/number", json!("12")), "invalid_recipient", "to.number"),
        (with("/content/sms", Value::Null), invalid, "content.sms: is required"),
        (with("/content/whatsapp", json!({})), invalid, "content.whatsapp: must have"),
        (with("/content/sms/text", json!("")), malformed, "content.sms.text"),
        (with("/content/email", json!({"subject": "x"})), invalid, "content.email: must have"),
        (with("/content/whatsapp/template", json!({})), invalid, "content.whatsapp: template"),
        (with("/content/sms/from", json!("whatsapp:+15550001111")), invalid, "content.sms.from"),
        (with("/category", Value::Null), malformed, ""),
    ] {
        let answer = app.send(Method::POST, "/v1/notifications", body.to_string()).await;
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], code, "{body}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{body}: {problem}");
    }
    assert_eq!(world.stored("SELECT id FROM outbound_messages").await, [] as [String; 0]);
}

async fn redaction_reaches_a_stored_plan_by_each_address(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = serve(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let tomorrow = jiff::Timestamp::now() + std::time::Duration::from_secs(86_400);
    for (n, address) in ["email:ava@example.com", PERSON].into_iter().enumerate() {
        let mut body = wanted(PERSON, json!("order"));
        body["send_at"] = json!(tomorrow.to_string());
        let waiting = notify(&app, &body).await;
        let mut others = body.clone();
        others["to"] = json!({"number": format!("+1415555030{n}"), "email": "a.va@example.com"});
        let others = notify(&app, &others).await;
        let request = json!({"account_sid": ACCOUNT, "number": address});
        let answer = root.send(Method::POST, "/v1/redactions", request.to_string()).await;
        assert_eq!(answer.status(), 200, "{address}");
        let id = waiting["attempts"][0]["id"].as_str().unwrap();
        let columns = "SELECT state || code || form || fallback || fallback_to || contact FROM outbound_messages";
        let stored = world.stored(&format!("{columns} WHERE id = '{id}'")).await;
        assert_eq!(stored, ["refusederased"], "{address}");
        assert_eq!(shown(&app, &others).await["state"], "queued", "{address}");
    }
}

#[tokio::test]
async fn documented_plan_works() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let sidecar = serve(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let guide = include_str!("../../../../docs/NOTIFICATIONS.md");
    let (_, plans) = guide.split_once("```yaml\n").unwrap();
    let (plans, _) = plans.split_once("```").unwrap();
    let routes = world.directory.path().join("routes.yaml");
    let before = std::fs::metadata(&routes).unwrap().modified().unwrap();
    std::fs::write(
        &routes,
        format!(
            "default: {{whatsapp: \"whatsapp:+15550001111\", sms: \"+15557654321\"}}
{plans}"
        ),
    )
    .unwrap();
    assert!(std::fs::metadata(&routes).unwrap().modified().unwrap() >= before);
    let known = wanted(UNREACHABLE, json!("order_news"));
    let mut dry = known.clone();
    dry["dry_run"] = json!(true);
    eventually("the sidecar has read the routes", async || {
        let answer = app.send(Method::POST, "/v1/notifications", dry.to_string()).await;
        answer.status() == 200
    })
    .await;
    let script = documented::script(guide, "Notify a person");
    let shown = documented::run(&world, &app, &simulator, &script).await;
    for channel in ["whatsapp", "sms", "email"] {
        assert!(shown.contains(&format!("\"channel\":\"{channel}\"")), "{shown}");
    }
    let list = command(&world, &["notifications", "list", "--account", ACCOUNT, "-o", "json"]);
    assert!(
        list.contains("\"plan\": \"order_news\"") || list.contains("\"plan\":\"order_news\""),
        "{list}"
    );
    eventually_within(std::time::Duration::from_secs(20), "the e-mail is sent", async || {
        count(&simulator).await == [1, 1, 1]
    })
    .await;
}
