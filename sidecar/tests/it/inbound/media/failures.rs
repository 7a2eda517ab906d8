//! Media that the sidecar cannot fetch: each says why, and credentials go to Twilio only.

use reqwest::{Method, header};
use serde_json::{Value, json};

use super::{Setup, field, link_status, media_of, until_states};
use crate::{
    access::api_keys::{Caller, administrator, coded},
    inbound::deliveries::command,
    outbound::media::server::{OUTSIDE, PNG, Server, Trap},
    support::servers::eventually,
    support::sidecar::ACCOUNT,
    support::world::{Kind, World},
};

#[tokio::test]
async fn inbound_medium_that_is_not_fetched_says_why() {
    let world = World::new(Kind::Sqlite).await;
    let server = Server::start().await;
    let (port, trap) = Trap::set((OUTSIDE, 0)).await;
    let setup = Setup::new(&world).await;
    let setup = setup
        .set("TWILIO_EDGE_MEDIA_TRUST_ADDRESSES", "127.0.0.2")
        .set("TWILIO_EDGE_MEDIA_INBOUND_HOSTS", "127.0.0.2")
        .set("TWILIO_EDGE_MEDIA_INBOUND_MAX_BYTES", "100000");
    let sidecar = setup.sidecar(&world).await;
    let admin = administrator(&sidecar).await;
    let token = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &token);
    let at = |path: &str| format!("{}{path}", server.base);
    let media = [at("/good.png"), at("/html"), at("/large"), at("/endless")];
    let media: Vec<&str> = media.iter().map(String::as_str).collect();
    let claim = setup.send("c1", &media).await;
    sidecar.claim(claim.clone()).await;
    let listed = until_states(&app, &claim, &["stored", "refused", "refused", "refused"]).await;
    let codes: Vec<Value> =
        field(&listed, "error").iter().map(|error| error["code"].clone()).collect();
    assert_eq!(codes, [Value::Null, json!("mismatch"), json!("too_large"), json!("too_large")]);
    assert_eq!(listed["media"][2]["error"]["actor"], "operator");
    let bytes =
        sidecar.client.get(listed["media"][0]["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(bytes.bytes().await.unwrap(), PNG);
    let refused =
        sidecar.client.get(listed["media"][1]["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(refused.status(), 404);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(
        (&problem["code"], &problem["actor"]),
        (&json!("media_refused"), &json!("recipient"))
    );
    let id = listed["media"][1]["id"].as_str().unwrap();
    let shown = app.refusal(Method::GET, &format!("/v1/media/{id}"), &Value::Null).await;
    assert_eq!(shown, coded(404, "media_refused"));
    let series = "twilio_edge_inbound_media_fetches_total{result=\"refused\",code=\"mismatch\"}";
    assert_eq!(sidecar.metric(series).await, 1.0);

    // Neither the server of a redirect nor any other one gets the credentials.
    let trapped = setup.send("c2", &[&format!("http://127.0.0.2:{port}/a.png")]).await;
    sidecar.claim(trapped).await;
    eventually("the trap is asked", async || !trap.first_bytes.lock().unwrap().is_empty()).await;
    let asked = String::from_utf8(trap.first_bytes.lock().unwrap().clone()).unwrap();
    assert!(!asked.to_ascii_lowercase().contains("authorization"), "{asked}");
}

#[tokio::test]
async fn inbound_medium_is_pending_until_the_operator_acts() {
    let world = World::new(Kind::Sqlite).await;
    let (port, trap) = Trap::set((OUTSIDE, 0)).await;
    let setup = Setup::new(&world).await;
    let sidecar = setup.sidecar(&world).await;
    let admin = administrator(&sidecar).await;
    let token = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &token);
    // The redirect leads to a host that is not Twilio's.
    let claim = setup.send("c1", &[&format!("http://127.0.0.2:{port}/a.png")]).await;
    let verdict = sidecar.claim(claim.clone()).await;
    let early = sidecar.client.get(&verdict.media[0].url).send().await.unwrap();
    assert_eq!(early.status(), 503, "the link is valid from the first moment");
    assert!(early.headers().contains_key(header::RETRY_AFTER));
    until_states(&app, &claim, &["pending"]).await;
    eventually("the fetch has failed", async || {
        let listed = app.get(&media_of(&claim)).await;
        listed["media"][0]["error"]["code"] == "redirect"
    })
    .await;
    let listed = app.get(&media_of(&claim)).await;
    let item = &listed["media"][0];
    assert_eq!((&item["state"], &item["error"]["actor"]), (&json!("pending"), &json!("operator")));
    assert!(item["next_attempt_at"].is_string() && item["bytes"].is_null(), "{item}");
    assert_eq!(link_status(&sidecar, &item["url"]).await, 503);
    let path = format!("/v1/media/{}", item["id"].as_str().unwrap());
    let shown = app.refusal(Method::GET, &path, &Value::Null).await;
    assert_eq!(shown, coded(503, "media_pending"));
    assert_eq!(trap.count(), 0, "the host is not asked");
    assert!(sidecar.log().contains("media.inbound.hosts does not permit 127.0.0.2"));
    eventually("the backlog is measured", async || {
        sidecar.metric("twilio_edge_inbound_media_pending").await == 1.0
    })
    .await;

    // Deleted before it was fetched, here and at Twilio.
    let deleted = command(
        &world,
        &["media", "delete", item["id"].as_str().unwrap(), "--at-twilio", "--account", ACCOUNT],
    );
    assert_eq!(deleted, "1 of 1 media were deleted\n");
    assert_eq!(link_status(&sidecar, &item["url"]).await, 410);
    let sid = &claim.identity.message_sid;
    eventually("Twilio has none", async || setup.at_twilio(sid).await == 0).await;
    eventually("it is recorded", async || {
        let listed = app.get(&media_of(&claim)).await;
        listed["media"][0]["twilio_state"] == "deleted"
    })
    .await;
    let audited = world
        .stored("SELECT actor || ' ' || action || ' ' || detail FROM audit WHERE action LIKE 'media.%' ORDER BY id")
        .await;
    assert_eq!(audited[0], "command line media.deleted {\"at_twilio\":true}");
    assert!(audited[1].starts_with("command line media.deleted_at_twilio "), "{audited:?}");
    let again = app.refusal(Method::DELETE, &path, &Value::Null).await;
    assert_eq!(again, coded(404, "no_such_media"));
}
