//! Templates: asked for by name and language, filled in as Twilio takes it, read from Twilio's Content API with every change in
//! the audit, and named by administrators. Twilio is the simulator.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::{OTHER, accepted},
    inbound::deliveries::command,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound},
    support::simulator::Simulator,
    support::world::{World, on_every_shared_store, on_every_store},
};

on_every_store! {
    template_is_requested_by_name,
    template_changes_at_twilio_are_in_the_audit,
    administrator_resolves_messages_that_twilio_does_not_list,
    variables_have_the_names_and_lengths_of_twilio,
}

on_every_shared_store! {
    templates_are_read_by_one_sidecar_for_all,
}

const PERSON: &str = "whatsapp:+14155550123";
const OURS: &str = "whatsapp:+14155238886";
const SHIPPING: &str = "HX00112233445566778899aabbccddeeff";

pub(crate) async fn started(
    world: &World,
    simulator: &Simulator,
    more: &[(&str, &str)],
) -> Sidecar {
    let file = simulator.credentials(world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "5000"),
    ];
    world.sidecar_with(&[&settings[..], more].concat()).await
}

/// The catalogue of the account, once it is read.
pub(crate) async fn known(app: &Caller<'_>) {
    eventually("the templates are read", async || {
        app.get("/v1/templates").await["synced_at"].is_string()
    })
    .await;
}

/// A key of the account, whose people have agreed to what is useful to them.
pub(crate) async fn application<'a>(sidecar: &'a Sidecar, root: &Caller<'_>) -> Caller<'a> {
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    let app = Caller::app(sidecar, &token);
    known(&app).await;
    let agreed = json!({"number": PERSON, "category": "utility", "source": "form",
        "at": "2026-11-01T10:00:00Z"});
    let recorded = app.send(Method::POST, "/v1/consents", agreed.to_string()).await;
    assert!(recorded.status().is_success());
    app
}

fn named(name: &str, locale: Option<&str>, variables: Value) -> Value {
    json!({"to": PERSON, "from": OURS, "template": {"name": name, "locale": locale, "variables": variables}})
}

fn dry(wanted: &Value) -> Value {
    let mut wanted = wanted.clone();
    wanted["dry_run"] = json!(true);
    wanted
}

async fn simulate(simulator: &Simulator, content: Value) {
    let url = format!("{}/simulator/contents", simulator.base);
    let answer = reqwest::Client::new().post(url).body(content.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

fn shipping(approval: &str, body: &str) -> Value {
    json!({"sid": SHIPPING, "friendly_name": "shipping_update", "language": "en_US",
        "body": body, "approval": approval, "category": "UTILITY"})
}

async fn variables_have_the_names_and_lengths_of_twilio(world: World) {
    let simulator = Simulator::start(&world, &[]);
    for (n, name, body) in
        [(1, "greeting", "Hello {{first_name}}, order {{order-id}}"), (2, "letter", "Dear {{1}}")]
    {
        let content = json!({"sid": format!("HX{n:032}"), "friendly_name": name, "language": "en_US",
            "body": body, "approval": "approved", "category": "UTILITY"});
        simulate(&simulator, content).await;
    }
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let long = "x".repeat(1020);
    for (name, variables, text) in [
        (
            "greeting",
            json!({"first_name": "Ada", "order-id": "7"}),
            "Hello Ada, order 7".to_owned(),
        ),
        ("letter", json!({"1": long}), format!("Dear {long}")),
    ] {
        let wanted = named(name, None, variables);
        let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
        assert_eq!(answer.status(), 202, "{:?}", answer.text().await);
        eventually("Twilio has the message", async || {
            simulator.made().await.values().any(|made| *made == text)
        })
        .await;
    }
    let rejected = coded(422, "variables_rejected");
    for (name, variables) in [
        ("greeting", json!({"first_name": "Ada", "order_id": "7"})),
        ("letter", json!({"1": "x".repeat(1596)})),
    ] {
        let wanted = named(name, None, variables);
        assert_eq!(app.refusal(Method::POST, "/v1/messages", &wanted).await, rejected);
    }
}

async fn template_is_requested_by_name(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let languages = app.get("/v1/templates/shipping_update").await;
    let locales: Vec<&str> = languages["templates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["locale"].as_str().unwrap())
        .collect();
    assert_eq!(locales, ["en_US", "pt_BR"]);
    assert_eq!(languages["templates"][0]["variables"], json!(["1", "2"]));
    let page = app.get("/v1/templates?limit=2").await;
    let next = app
        .get(&format!("/v1/templates?limit=200&cursor={}", page["next_cursor"].as_str().unwrap()))
        .await;
    let count = |page: &Value| page["templates"].as_array().unwrap().len();
    assert_eq!((count(&page), count(&next), &next["next_cursor"]), (2, 3, &json!(null)));
    let approved = app.get("/v1/templates?approval=approved").await;
    assert_eq!(count(&approved), 3);

    // In the language, or what does instead.
    let given = json!({"1": "Ada", "2": "7"});
    for (locale, text) in [
        (Some("pt-br"), "Oi Ada, seu pedido 7 está a caminho."),
        (Some("fr"), "Hello Ada, your order 7 is on its way."),
    ] {
        let wanted = named("shipping_update", locale, given.clone());
        let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
        let (status, taken) = (answer.status(), answer.json::<Value>().await.unwrap());
        assert_eq!((status.as_u16(), &taken["category"]), (202, &json!("utility")), "{taken}");
        eventually("Twilio has the message", async || {
            simulator.made().await.values().any(|made| made == text)
        })
        .await;
    }

    // Requests that the sidecar refuses, each with the code that names its cause.
    let refusal = async |wanted: &Value| app.refusal(Method::POST, "/v1/messages", wanted).await;
    let unknown = coded(422, "template_unknown");
    assert_eq!(refusal(&named("nothing", None, json!({}))).await, unknown);
    let unapproved = coded(409, "template_not_approved");
    for name in ["spring_sale", "winter_sale"] {
        assert_eq!(refusal(&named(name, None, json!({"1": "a", "2": "b"}))).await, unapproved);
    }
    let rejected = coded(422, "variables_rejected");
    for variables in [
        json!({"1": "Ada"}),
        json!({"1": "Ada", "2": "7", "3": "x"}),
        json!({"1": "Ada", "2": ""}),
        json!({"1": "Ada\nB", "2": "7"}),
    ] {
        assert_eq!(refusal(&named("shipping_update", None, variables.clone())).await, rejected);
        let by_sid = json!({"to": PERSON, "from": OURS, "content_sid": SHIPPING, "content_variables": variables});
        assert_eq!(refusal(&by_sid).await, rejected);
    }
    assert_eq!(refusal(&named("shipping_update", None, json!({"1": 1}))).await.0, 400);

    // Outside of the window, the refusal of a free text lists the templates that may be sent.
    let text = json!({"to": PERSON, "from": OURS, "body": "hello"});
    let answer = app.send(Method::POST, "/v1/messages", text.to_string()).await;
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["code"], "window_closed", "{answer}");
    let offered: Vec<(&str, &str)> = answer["templates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["locale"].as_str().unwrap()))
        .collect();
    assert_eq!(offered, [("may_we_write", "en_US"), ("shipping_update", "en_US")]);
    assert_eq!(answer["templates"][1]["variables"], json!(["1", "2"]));
    let mut portuguese = dry(&text);
    portuguese["locale"] = json!("pt_PT");
    let answer = app.send(Method::POST, "/v1/messages", portuguese.to_string()).await;
    let answer: Value = answer.json().await.unwrap();
    let window = answer["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|verdict| verdict["rule"] == "window")
        .unwrap();
    assert_eq!(window["templates"][1]["locale"], "en_US", "pt_BR is none of pt_PT's: {window}");

    // Within a window, an unapproved template is sent as free text.
    accepted(&sidecar, &[inbound("c1", "SM1", PERSON, "hello")]).await;
    let mut pending = dry(&named("spring_sale", None, json!({"1": "a", "2": "b"})));
    pending["from"] = json!("whatsapp:+15550001111");
    let answer = app.send(Method::POST, "/v1/messages", pending.to_string()).await;
    let answer: Value = answer.json().await.unwrap();
    let refusing: Vec<&Value> = answer["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|verdict| verdict["ok"] == false)
        .map(|verdict| &verdict["code"])
        .collect();
    assert_eq!(refusing, ["no_consent"], "its category is still marketing: {answer}");
}

async fn template_changes_at_twilio_are_in_the_audit(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let often = [("TWILIO_EDGE_SENDING_TEMPLATES_EVERY_S", "1")];
    let sidecar = started(&world, &simulator, &often).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let audited = async |action: &str| -> Vec<Value> {
        let page = root.get(&format!("/v1/audit?account_sid={ACCOUNT}&limit=200")).await;
        let entries = page["entries"].as_array().unwrap().clone();
        entries.into_iter().filter(|entry| entry["action"] == action).collect()
    };
    assert_eq!(audited("template.added").await.len(), 5);
    let text = "Hello {{1}}, your order {{2}} is on its way.";
    simulate(&simulator, shipping("paused", text)).await;
    eventually("the audit log has the paused template", async || {
        audited("template.approval_changed").await.len() == 1
    })
    .await;
    let entry = audited("template.approval_changed").await.swap_remove(0);
    let recorded = (&entry["subject"], &entry["actor"], &entry["detail"]["approval"]);
    let expected = json!({"was": "approved", "is": "paused"});
    assert_eq!(recorded, (&json!("template shipping_update/en_US"), &json!("twilio"), &expected));
    let wanted = named("shipping_update", None, json!({"1": "Ada", "2": "7"}));
    let unapproved = coded(409, "template_not_approved");
    assert_eq!(app.refusal(Method::POST, "/v1/messages", &wanted).await, unapproved);
    simulate(&simulator, shipping("paused", "Hello {{1}}")).await;
    eventually("the audit log has the changed text", async || {
        audited("template.changed").await.len() == 1
    })
    .await;
    simulate(&simulator, json!({"removed": SHIPPING})).await;
    eventually("the audit log has the removed template", async || {
        audited("template.removed").await.len() == 1
    })
    .await;
    // The other language stays, and English readers get nothing in Portuguese. The sidecar uses the new catalogue shortly after
    // it has stored it.
    eventually("the removed template is unknown", async || {
        app.refusal(Method::POST, "/v1/messages", &wanted).await == coded(422, "template_unknown")
    })
    .await;

    // While Twilio is unavailable, the templates of the last successful read stay in effect.
    assert!(sidecar.metric("twilio_edge_template_changes_total").await >= 8.0);
    drop(simulator);
    eventually("the template list reports a problem", async || {
        app.get("/v1/templates").await["problem"].is_string()
    })
    .await;
    let kept = app.get("/v1/templates").await;
    assert_eq!(kept["templates"].as_array().unwrap().len(), 4);
    assert!(kept["synced_at"].is_string(), "{kept}");
    eventually("the metric reports the age of the templates", async || {
        sidecar.metric("twilio_edge_templates_age_seconds").await > 1.5
    })
    .await;
}

async fn administrator_resolves_messages_that_twilio_does_not_list(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let never = [("TWILIO_EDGE_SENDING_TEMPLATES_EVERY_S", "0")];
    let sidecar = started(&world, &simulator, &never).await;
    let root = administrator(&sidecar).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    let app = Caller::app(&sidecar, &token);
    let wanted = dry(&named("hello", Some("en_GB"), json!({"1": "Ada", "2": "7"})));
    let place = format!("/v1/templates/hello/en?account_sid={ACCOUNT}");
    let said =
        json!({"content_sid": SHIPPING, "variables": ["1", "2"], "category": "authentication"});
    let put = root.send(Method::PUT, &place, said.to_string()).await;
    assert_eq!(put.status(), 200, "{:?}", put.text().await);
    let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["allowed"], true, "{answer}");
    let shown = app.get("/v1/templates/hello").await;
    assert_eq!(shown["templates"][0]["source"], "administrator");

    // Others see nothing of it, and what cannot be is refused.
    let (_, theirs) = root.create("app", Some(OTHER), "theirs").await;
    let theirs = Caller::app(&sidecar, &theirs);
    let nothing = coded(404, "no_such_template");
    assert_eq!(theirs.refusal(Method::GET, "/v1/templates/hello", &Value::Null).await, nothing);
    for (place, body) in [
        ("/v1/templates/hello/english", said.clone()),
        ("/v1/templates/hello/en", json!({"content_sid": "HX1"})),
        ("/v1/templates/hello/en", json!({"content_sid": SHIPPING, "variables": ["a b"]})),
        ("/v1/templates/a%0Ab/en", said.clone()),
    ] {
        let place = format!("{place}?account_sid={ACCOUNT}");
        assert_eq!(
            root.refusal(Method::PUT, &place, &body).await,
            coded(400, "malformed_request"),
            "{place}"
        );
    }

    // The command line reads the same, and Twilio on demand.
    let list = command(&world, &["templates", "list", "--account", ACCOUNT, "--json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["name"]), (1, &json!("hello")));
    let file = simulator.credentials(&world);
    let settings = format!(
        "[database]\nurl = \"{}\"\n[sending]\nfile = \"{file}\"\nbase_url = \"{}\"\n",
        world.database_url, simulator.base
    );
    let config = world.directory.path().join("edge.toml");
    std::fs::write(&config, settings).unwrap();
    let sync = [
        "templates",
        "--config",
        config.to_str().unwrap(),
        "sync",
        "--account",
        ACCOUNT,
        "-o",
        "tsv",
    ];
    let synced = command(&world, &sync);
    assert_eq!(synced.matches("template.added").count(), 5, "{synced}");
    assert_eq!(command(&world, &sync).matches("template.").count(), 0, "nothing has changed");
    eventually("the sidecar has it", async || {
        app.get("/v1/templates").await["templates"].as_array().is_some_and(|all| all.len() == 6)
    })
    .await;
    let show = command(&world, &["templates", "show", "shipping_update", "--account", ACCOUNT]);
    assert!(show.contains("Oi {{1}}"), "{show}");

    let gone = root.send(Method::DELETE, &place, String::new()).await;
    assert_eq!(gone.status(), 204);
    assert_eq!(root.refusal(Method::DELETE, &place, &Value::Null).await, nothing);
    assert_eq!(
        app.refusal(Method::POST, "/v1/messages", &named("hello", None, json!({}))).await,
        coded(422, "template_unknown")
    );
    let audit = root.get(&format!("/v1/audit?account_sid={ACCOUNT}&limit=200")).await;
    let actions: Vec<&str> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .filter(|action| action.starts_with("template.") && *action != "template.added")
        .collect();
    assert_eq!(actions, ["template.unset", "template.set"]);
}

/// However many sidecars there are, Twilio is asked once, and all of them know.
async fn templates_are_read_by_one_sidecar_for_all(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecars = [started(&world, &simulator, &[]).await, started(&world, &simulator, &[]).await];
    let root = administrator(&sidecars[0]).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    for sidecar in &sidecars {
        known(&Caller::app(sidecar, &token)).await;
    }
    let asked = reqwest::get(format!("{}/simulator/requests", simulator.base)).await.unwrap();
    let asked: Value = asked.json().await.unwrap();
    let contents =
        asked["requests"].as_array().unwrap().iter().find(|one| one["what"] == "content");
    assert_eq!(contents.unwrap()["count"], 1, "{asked}");
}
