//! Pages of the console: their main tasks, their accessibility, and that markup in webhooks stays text.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use twilio_edge_contract::{Claim, Class, Decision, Identity};

use super::browse;
use crate::{
    access::api_keys::{Caller, administrator},
    support::sidecar::{ACCOUNT, Sidecar},
    support::simulator::Simulator,
    support::world::{Kind, World},
};

/// Text that a page without escapes would carry out.
pub(super) const MARKUP: &str =
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>";

pub(super) const OWN: &str = "+14155238886";

/// Returns the claim of a message of a contact.
pub(super) fn message(contact: &str, message_sid: &str, body: &str) -> Claim {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("MessageSid", message_sid)
        .append_pair("From", contact)
        .append_pair("To", OWN)
        .append_pair("Body", body)
        .append_pair("ProfileName", MARKUP)
        .finish();
    let identity = Identity {
        class: Class::Inbound,
        account_sid: ACCOUNT.into(),
        message_sid: message_sid.into(),
        status: None,
        error_code: None,
    };
    Claim::new(format!("claim-{message_sid}"), identity, "/twilio/inbound".into(), form)
}

/// Lets a webhook arrive, which the application accepts.
async fn arrive(sidecar: &Sidecar, claim: Claim) {
    assert_eq!(sidecar.decide(claim.clone()).await, Decision::Proceed);
    sidecar.commit(&claim).await;
}

async fn stack(world: &World) -> (Simulator, Sidecar) {
    let simulator = Simulator::start(world, &[]);
    let sidecar = world
        .sidecar_with(&[
            ("TWILIO_EDGE_SENDING_FILE", &simulator.credentials(world)),
            ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
        ])
        .await;
    (simulator, sidecar)
}

pub(super) fn sid(number: u32) -> String {
    format!("SM{number:032x}")
}

#[tokio::test]
async fn empty_pages_say_so() {
    let world = World::new(Kind::Sqlite).await;
    let (_simulator, sidecar) = stack(&world).await;
    let (_, key) = administrator(&sidecar).await.create("admin", Some(ACCOUNT), "console").await;
    let config = json!({
        "main": sidecar.base, "admin": sidecar.admin(), "admin_key": key, "state": "empty",
    });
    browse("pages.mjs", &config).await;
}

#[tokio::test]
async fn pages_do_their_task_and_show_markup_as_text() {
    let world = World::new(Kind::Sqlite).await;
    let (_simulator, sidecar) = stack(&world).await;
    let admin = administrator(&sidecar).await;
    let (_, key) = admin.create("admin", Some(ACCOUNT), "console").await;

    let (contact, suppressed) = ("+14155550123", "+14155550177");
    arrive(&sidecar, message(contact, &sid(1), MARKUP)).await;
    arrive(&sidecar, message(suppressed, &sid(2), "STOP")).await;
    sidecar.until_written().await;
    let tomorrow = jiff::Timestamp::now() + Duration::from_secs(86_400);
    let scheduled = json!({
        "to": "+14155550188", "from": OWN, "body": "later", "send_at": tomorrow.to_string(),
    });
    let app = Caller::app(&sidecar, &key);
    let scheduled = app.send(Method::POST, "/v1/messages", scheduled.to_string()).await;
    assert_eq!(scheduled.status(), 202);
    let scheduled: serde_json::Value = scheduled.json().await.unwrap();

    let config = json!({
        "main": sidecar.base, "admin": sidecar.admin(), "admin_key": key, "state": "full",
        "number": contact, "markup": MARKUP, "suppressed": suppressed,
        "scheduled": scheduled["id"],
    });
    let arriving = async {
        for number in 1_000.. {
            arrive(&sidecar, message("+14155550166", &sid(number), "more")).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = browse("pages.mjs", &config) => {}
        () = arriving => {}
    }
    // The messages that a person sent and canceled are in the audit log; that of the application is not.
    for (action, subject) in
        [("message.created", None), ("message.canceled", scheduled["id"].as_str())]
    {
        let entries = admin.get(&format!("/v1/audit?action={action}")).await["entries"].clone();
        let [entry] = entries.as_array().unwrap().as_slice() else { panic!("{action}: {entries}") };
        assert!(entry["source"].as_str().unwrap().ends_with(", session"), "{entry}");
        assert!(subject.is_none_or(|id| entry["subject"] == id), "{entry}");
    }
}

#[tokio::test]
async fn console_has_the_rights_of_the_key_as_long_as_its_session() {
    let world = World::new(Kind::Sqlite).await;
    let (_simulator, sidecar) = stack(&world).await;
    let admin = administrator(&sidecar).await;
    let (id, app) = admin.create("app", Some(ACCOUNT), "shop").await;
    let config = json!({
        "main": sidecar.base, "app": app, "admin_key": admin.token,
        "revoke": format!("{}/v1/keys/{id}", admin.base),
    });
    browse("rights.mjs", &config).await;
}
