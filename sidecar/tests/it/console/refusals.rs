//! Page of refused requests: groups by cause, and the explanation in one click.

use serde_json::json;

use super::{browse, pages::MARKUP};
use crate::{
    access::api_keys::{Caller, administrator},
    inbound::refused_requests::{report, signed_by},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, TOKEN},
    support::world::{Kind, World},
};

const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn webhook_that_was_signed_for_another_url_is_explained_in_one_click() {
    let world = World::new(Kind::Sqlite).await;
    let accounts = world.directory.path().join("accounts.toml");
    let file = format!("[[account]]\nsid = \"{ACCOUNT}\"\nauth_tokens = [\"{AUTH_TOKEN}\"]\n");
    std::fs::write(&accounts, file).unwrap();
    let accounts = [("TWILIO_EDGE_ACCOUNTS_FILE", accounts.to_str().unwrap())];
    let sidecar = world.sidecar_with(&accounts).await;
    let admin = administrator(&sidecar).await;
    let config = |state: &str| json!({"main": sidecar.base, "key": admin.token, "state": state, "markup": MARKUP});
    browse("refusals.mjs", &config("empty")).await;

    let mut request = signed_by(ACCOUNT, "https://old.example.com", AUTH_TOKEN);
    // A request id has at most 64 characters.
    request.request_id = MARKUP.get(..53).map(str::to_owned);
    let stranger = signed_by(ACCOUNT, "https://hooks.example.com", &AUTH_TOKEN.replace('0', "1"));
    assert_eq!(report(&sidecar, TOKEN, vec![request, stranger]).await, 2);
    let app = Caller::app(&sidecar, &admin.token);
    eventually("both are explained", async || {
        app.get("/v1/refusals").await["refusals"].as_array().unwrap().len() == 2
    })
    .await;
    browse("refusals.mjs", &config("full")).await;
}
