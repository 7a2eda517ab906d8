//! One person, one identity: whichever spelling of a number or user id is used, a STOP, a START, a consent and a window count
//! for the person, and so does the right to be forgotten.

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{Claim, Outcome, Verdict};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_views::application,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound, unclaimed},
    support::world::{World, on_every_shared_store, on_every_store},
};

on_every_store!(
    stop_follows_a_contact_across_number_and_user_id,
    number_that_claims_the_user_id_of_another_ends_no_stop,
    consent_and_window_follow_a_contact_to_the_user_id,
    stop_under_an_old_spelling_counts_for_the_new_one,
    contact_that_wrote_can_be_answered_outside_every_numbering_plan,
    number_that_cannot_be_one_person_is_refused_everywhere,
    erasure_reaches_every_spelling_and_user_id,
);
on_every_shared_store!(link_made_by_one_sidecar_is_known_to_the_others);

const ADA: &str = "whatsapp:+14155557903";
const ADAS_ID: &str = "whatsapp:US.31491208655302741900";

pub(crate) fn beside(sid: &str, from: &str, id: &str, body: &str) -> Claim {
    let mut claim = inbound(sid, sid, from, body);
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    claim.form = format!("{}&ExternalUserId={id}&Username=ada", claim.form);
    claim
}

async fn said(sidecar: &Sidecar, sid: &str, from: &str, body: &str) -> Verdict {
    sidecar.claim(inbound(sid, sid, from, body)).await
}

/// Returns the codes of the rules that refuse a message to a contact.
pub(crate) async fn against(app: &Caller<'_>, to: &str, kind: &str) -> Vec<String> {
    let question = json!({"to": to, "kind": kind, "category": "service"}).to_string();
    let response = app.send(Method::POST, "/v1/checks", question).await;
    assert_eq!(response.status(), 200, "{to}");
    let answer: Value = response.json().await.unwrap();
    let verdicts = answer["verdicts"].as_array().unwrap();
    verdicts.iter().filter_map(|said| said["code"].as_str().map(str::to_owned)).collect()
}

async fn stop_follows_a_contact_across_number_and_user_id(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    sidecar.claim(beside("SM1", ADA, ADAS_ID, "STOP")).await;
    assert!(said(&sidecar, "SM2", ADAS_ID, "hello again").await.suppressed);
    for address in [ADA, ADAS_ID] {
        assert_eq!(against(&app, address, "session").await, ["suppressed"], "{address}");
    }
    let found = app.get("/v1/suppressions/US.31491208655302741900").await;
    assert_eq!(found["suppressions"].as_array().unwrap().len(), 1, "{found}");
    said(&sidecar, "SM3", ADAS_ID, "START").await;
    for address in [ADA, ADAS_ID] {
        assert_eq!(against(&app, address, "session").await, [""; 0], "{address}");
    }
    // The reverse: an id whose number was unknown at the time of the STOP.
    let (bob, bobs_id) = ("whatsapp:+14155557904", "whatsapp:GB.77");
    said(&sidecar, "SM4", bobs_id, "STOP").await;
    assert!(sidecar.claim(beside("SM5", bob, bobs_id, "hello")).await.suppressed);
    assert_eq!(against(&app, bob, "session").await, ["suppressed"]);
    sidecar.claim(beside("SM6", bob, bobs_id, "START")).await;
    assert_eq!(against(&app, bobs_id, "session").await, [""; 0]);
    // The filter forwarded this webhook while no sidecar was available.
    let late = beside("SM7", "whatsapp:+14155557905", "whatsapp:US.78", "STOP");
    sidecar.settle(unclaimed(&late, Outcome::Commit)).await;
    assert!(said(&sidecar, "SM8", "whatsapp:US.78", "hello").await.suppressed);
}

async fn number_that_claims_the_user_id_of_another_ends_no_stop(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    sidecar.claim(beside("SM1", ADA, ADAS_ID, "STOP")).await;
    let mallory = "whatsapp:+447400123456";
    sidecar.claim(beside("SM2", mallory, ADAS_ID, "START")).await;
    for address in [ADA, ADAS_ID] {
        assert!(
            against(&app, address, "session").await.contains(&"suppressed".into()),
            "{address}"
        );
    }
    // An ambiguous form: the name of another parameter contains the id of the sender.
    let (eve, victim) = ("whatsapp:+447400123457", "whatsapp:US.9");
    said(&sidecar, "SM3", victim, "STOP").await;
    let mut cut = beside("SM4", eve, victim, "START");
    cut.form = format!("{}&ExternalUserIdw=hatsapp%3AGB.8", cut.form);
    sidecar.claim(cut).await;
    assert!(against(&app, victim, "session").await.contains(&"suppressed".into()));
}

async fn consent_and_window_follow_a_contact_to_the_user_id(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    assert_eq!(against(&app, ADAS_ID, "session").await, ["window_closed"]);
    sidecar.claim(beside("SM1", ADA, ADAS_ID, "hello")).await;
    assert_eq!(against(&app, ADAS_ID, "session").await, [""; 0]);
    let consent = json!({"number": ADA, "category": "marketing", "source": "form"});
    app.send(Method::POST, "/v1/consents", consent.to_string()).await;
    let question = json!({"to": ADAS_ID, "kind": "template"}).to_string();
    let response = app.send(Method::POST, "/v1/checks", question).await;
    let answer: Value = response.json().await.unwrap();
    assert_eq!((&answer["allowed"], &answer["country"]), (&json!(true), &json!("US")), "{answer}");
    let found = app.get("/v1/consents/US.31491208655302741900").await;
    assert_eq!(found["current"].as_array().unwrap().len(), 1, "{found}");
    // Recorded, suppressed and sent to by the id itself.
    let consent = json!({"number": "whatsapp:BR.5", "category": "marketing", "source": "form"});
    let recorded = app.send(Method::POST, "/v1/consents", consent.to_string()).await;
    assert_eq!(recorded.status(), 200);
    let added = json!({"number": "whatsapp:BR.5"}).to_string();
    let added = app.send(Method::POST, "/v1/suppressions", added).await;
    assert_eq!(added.status(), 200);
    assert!(against(&app, "whatsapp:BR.5", "template").await.contains(&"suppressed".into()));
    let message =
        json!({"to": ADAS_ID, "from": "whatsapp:+14155238886", "body": "hi", "dry_run": true});
    let response = app.send(Method::POST, "/v1/messages", message.to_string()).await;
    assert_eq!(response.status(), 200);
    let message = json!({"to": "whatsapp:DE.151 2345", "region": "DE", "from": "whatsapp:+14155238886", "body": "hi"});
    let refusal = app.refusal(Method::POST, "/v1/messages", &message).await;
    assert_eq!(refusal, coded(422, "invalid_recipient"));
}

async fn stop_under_an_old_spelling_counts_for_the_new_one(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    let pairs = [
        ("whatsapp:+22505123456", "whatsapp:+2250505123456"),
        ("whatsapp:+22997123456", "whatsapp:+2290197123456"),
        ("whatsapp:+5215512345678", "whatsapp:+52 55 1234 5678"),
        ("whatsapp:+551187654321", "whatsapp:+55 (11) 98765-4321"),
        ("whatsapp:+541169071234", "whatsapp:+5491169071234"),
        ("whatsapp:+447400123456", "whatsapp:+44 (0) 7400 123456"),
    ];
    for (n, (old, new)) in pairs.into_iter().enumerate() {
        said(&sidecar, &format!("SM{n}a"), old, "STOP").await;
        assert_eq!(against(&app, new, "session").await, ["suppressed"], "{new}");
        let plain: String = new.chars().filter(|c| !" ()-".contains(*c)).collect();
        let plain = plain.replace("+440", "+44");
        assert!(said(&sidecar, &format!("SM{n}b"), &plain, "hello").await.suppressed, "{plain}");
        said(&sidecar, &format!("SM{n}c"), &plain, "START").await;
        assert_eq!(against(&app, old, "session").await, [""; 0], "{old}");
    }
    let number = pairs[0].1.trim_start_matches("whatsapp:+");
    let found = app.get(&format!("/v1/windows?person=whatsapp:%2B{number}")).await;
    assert_eq!(found["windows"].as_array().unwrap().len(), 1, "{found}");
}

async fn contact_that_wrote_can_be_answered_outside_every_numbering_plan(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    // No numbering plan has such a long number for this country code.
    let strange = "whatsapp:+225071234567";
    let question = json!({"to": strange, "kind": "session"});
    let unknown = coded(422, "invalid_field");
    assert_eq!(app.refusal(Method::POST, "/v1/checks", &question).await, unknown);
    let suppressed = json!({"number": strange}).to_string();
    let added = app.send(Method::POST, "/v1/suppressions", suppressed).await;
    assert_eq!(added.status(), 200, "each address that Twilio may use can be suppressed");
    let other = "whatsapp:+225071234568";
    said(&sidecar, "SM1", other, "hello").await;
    assert_eq!(against(&app, other, "session").await, [""; 0]);
    let consent = json!({"number": other, "category": "marketing", "source": "form"});
    let recorded = app.send(Method::POST, "/v1/consents", consent.to_string()).await;
    assert_eq!(recorded.status(), 200);
    let message =
        json!({"to": other, "from": "whatsapp:+14155238886", "body": "hi", "dry_run": true});
    let response = app.send(Method::POST, "/v1/messages", message.to_string()).await;
    assert_eq!(response.status(), 200);
}

async fn number_that_cannot_be_one_person_is_refused_everywhere(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    let impossible = coded(422, "invalid_field");
    for number in ["+5511XXXXXXXXX", "+1510ABC-DEFG", "+1415555XXXX", "whatsapp:+1510ABC-DEFG"] {
        let question = json!({"to": number, "kind": "session"});
        assert_eq!(app.refusal(Method::POST, "/v1/checks", &question).await, impossible);
        let suppressed = json!({"number": number});
        assert_eq!(app.refusal(Method::POST, "/v1/suppressions", &suppressed).await, impossible);
        let consent = json!({"number": number, "category": "marketing", "source": "form"});
        assert_eq!(app.refusal(Method::POST, "/v1/consents", &consent).await, impossible);
        let message = json!({"to": number, "from": "+14155238886", "body": "x"});
        let refusal = app.refusal(Method::POST, "/v1/messages", &message).await;
        assert_eq!(refusal, coded(422, "invalid_recipient"), "{number}");
    }
    let local = json!({"to": "+15550123", "kind": "session"});
    assert_eq!(app.refusal(Method::POST, "/v1/checks", &local).await, impossible);
    for fine in ["+14155550123", "+15005550006"] {
        assert_eq!(against(&app, fine, "session").await, [""; 0], "{fine}");
    }
}

async fn erasure_reaches_every_spelling_and_user_id(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let body = |sid: &str| format!("words of {sid}");
    let (old, new) = ("whatsapp:+22505123456", "whatsapp:+2250505123456");
    let id = "whatsapp:CI.5";
    sidecar.claim(inbound("SM1", "SM1", old, &body("SM1"))).await;
    sidecar.claim(beside("SM2", new, id, &body("SM2"))).await;
    sidecar.claim(inbound("SM3", "SM3", id, &body("SM3"))).await;
    sidecar.claim(inbound("SM4", "SM4", "whatsapp:+14155552671", &body("SM4"))).await;
    let written = "SELECT form FROM events WHERE form LIKE '%words%'";
    eventually("the messages are written", async || world.stored(written).await.len() == 4).await;
    let asked = json!({"account_sid": ACCOUNT, "number": new});
    let done = admin.send(Method::POST, "/v1/redactions", asked.to_string()).await;
    assert_eq!(done.status(), 200, "{:?}", done.text().await);
    let left = world.stored(written).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].contains("SM4"), "{left:?}");
    assert_eq!(world.stored("SELECT number FROM contact_links").await, [""; 0]);
}

async fn link_made_by_one_sidecar_is_known_to_the_others(world: World) {
    let (one, other) = (world.sidecar().await, world.sidecar().await);
    one.claim(beside("SM1", ADA, ADAS_ID, "hello")).await;
    other.claim(inbound("SM2", "SM2", ADAS_ID, "STOP")).await;
    assert!(said(&one, "SM3", ADA, "hello").await.suppressed);
}
