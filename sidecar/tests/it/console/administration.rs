//! Pages of contacts, templates and administrators: their main tasks, their accessibility, and that markup stays text.

use reqwest::Method;
use serde_json::json;
use twilio_edge_contract::Decision;

use super::{
    browse,
    pages::{MARKUP, OWN, message, sid},
};
use crate::{
    access::api_keys::{Caller, administrator},
    inbound::deliveries::{accepted, sinks},
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar},
    support::simulator::Simulator,
    support::world::{Kind, World},
};

const CONTACT: &str = "+14155550123";

/// Contact with a consent to utility messages on WhatsApp.
const READER: &str = "+14155550155";

/// Starts the simulator, and a sidecar with one sink that refuses every event.
async fn stack(world: &World) -> (Simulator, Receiver, Sidecar) {
    let receiver = Receiver::start().await;
    receiver.answers(|_| 422);
    receiver.says(MARKUP);
    let sinks = sinks(world, &[("app", &receiver, "")]);
    let simulator = Simulator::start(world, &[]);
    let sidecar = world
        .sidecar_with(&[
            ("TWILIO_EDGE_SENDING_FILE", &simulator.credentials(world)),
            ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
            ("TWILIO_EDGE_SINKS_FILE", &sinks),
        ])
        .await;
    (simulator, receiver, sidecar)
}

#[tokio::test]
async fn empty_pages_of_administrators_say_what_to_do() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let config = json!({
        "admin": sidecar.admin(), "admin_key": admin.token, "account": ACCOUNT, "state": "empty",
        "number": CONTACT,
    });
    browse("administration.mjs", &config).await;
}

#[tokio::test]
async fn pages_of_administrators_do_their_task_and_show_markup_as_text() {
    let world = World::new(Kind::Sqlite).await;
    let (_simulator, _receiver, sidecar) = stack(&world).await;
    let admin = administrator(&sidecar).await;
    for number in 1..=4 {
        let claim = accepted(message(CONTACT, &sid(number), MARKUP));
        assert_eq!(sidecar.decide(claim).await, Decision::Accepted);
    }
    eventually("the sink has refused all", async || {
        admin.get("/v1/dead-letters").await["dead_letters"].as_array().unwrap().len() == 4
    })
    .await;
    let template = json!({
        "content_sid": "HX00112233445566778899aabbccddeeff", "variables": ["1"], "category": "utility",
        "text": format!("Hello {{{{1}}}}, {MARKUP}"),
    });
    for locale in ["en", "pt_BR"] {
        let path = format!("/v1/templates/order_update/{locale}?account_sid={ACCOUNT}");
        assert_eq!(admin.send(Method::PUT, &path, template.to_string()).await.status(), 200);
    }
    let consent = json!({
        "account_sid": ACCOUNT, "number": format!("whatsapp:{READER}"), "category": "utility",
        "source": "form",
    });
    let app = Caller::app(&sidecar, &admin.token);
    let recorded = app.send(Method::POST, "/v1/consents", consent.to_string()).await;
    assert_eq!(recorded.status(), 200);
    let config = json!({
        "admin": sidecar.admin(), "admin_key": admin.token, "account": ACCOUNT, "state": "full",
        "number": CONTACT, "reader": READER, "own": OWN, "markup": MARKUP,
    });
    browse("administration.mjs", &config).await;
}
