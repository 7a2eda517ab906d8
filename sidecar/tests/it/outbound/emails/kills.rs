//! Every e-mail is sent once, however often a sidecar is killed while it sends. SendGrid's events settle the e-mails whose answer
//! was lost with the sidecar; the others stay unknown.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Shop, emails};
use crate::support::{servers::eventually_within, simulator::Simulator, world::World};

crate::support::world::on_every_store!(@ sqlite Sqlite sidecar_that_is_killed_sends_each_email_once);
crate::support::world::on_every_store!(@ postgres Postgres sidecar_that_is_killed_sends_each_email_once);

/// Number of e-mails and of kills.
const EMAILS: u64 = 24;
const KILLS: u64 = 8;

/// Sends the request with its idempotency key. Returns false if the sidecar ended before its answer.
async fn request(shop: &Shop, n: u64) -> bool {
    let app = shop.app();
    let body = json!({"to": format!("m{n}@example.com"), "subject": "Hi", "text": "x"}).to_string();
    let request = app.client().post(format!("{}/v1/emails", app.base)).bearer_auth(&app.token);
    let request = request.header("idempotency-key", format!("key-{n}")).body(body);
    request.send().await.is_ok_and(|answer| answer.status() == 202)
}

async fn sidecar_that_is_killed_sends_each_email_once(world: World) {
    let simulator = Simulator::start(&world, &["--latency-ms", "80"]);
    let accounts = Shop::account(&simulator).await;
    let mut shop = Shop::start(&world, &simulator).await;
    let mut accepted = BTreeSet::new();
    for kill in 0..=KILLS {
        let last = if kill == KILLS { EMAILS } else { EMAILS * (kill + 1) / (KILLS + 1) };
        for n in 0..last {
            if !accepted.contains(&n) && request(&shop, n).await {
                accepted.insert(n);
            }
        }
        if kill == KILLS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(getrandom::u64().unwrap() % 120)).await;
        let Shop { sidecar, token, root } = shop;
        sidecar.kill();
        // Ends the holds of the interrupted attempts.
        let end_hold = "UPDATE outbound_messages SET due_at_ms = attempted_at_ms + 1000 WHERE state = 'attempting' RETURNING id";
        world.stored(end_hold).await;
        shop = Shop { sidecar: Shop::serve(&world, &accounts, &simulator).await, token, root };
        shop.receive_events(&simulator).await;
    }
    assert_eq!(accepted.len() as u64, EMAILS);
    let limit = Duration::from_secs(180);
    let waiting = "SELECT id FROM outbound_messages WHERE state IN ('queued', 'attempting')";
    eventually_within(limit, "every attempt has ended", async || {
        world.stored(waiting).await.is_empty()
    })
    .await;
    let counts = async || -> BTreeMap<String, usize> {
        let listed = emails(&simulator).await;
        let to = |email: &Value| email["to"].as_str().unwrap().to_owned();
        let all = listed["emails"].as_array().unwrap();
        all.iter()
            .map(|email| (to(email), all.iter().filter(|other| to(other) == to(email)).count()))
            .collect()
    };
    assert!(counts().await.values().all(|count| *count == 1), "{:?}", counts().await);
    // The events settle each e-mail that SendGrid has.
    let sent = "SELECT contact FROM outbound_messages WHERE state = 'sent' AND status = 'delivered' ORDER BY contact";
    eventually_within(limit, "every e-mail of the simulator is delivered", async || {
        let known: Vec<String> = counts().await.into_keys().collect();
        world.stored(sent).await == known
    })
    .await;
    let rows = world.stored("SELECT id FROM outbound_messages").await;
    assert_eq!(rows.len() as u64, EMAILS, "one row for each request");
}
