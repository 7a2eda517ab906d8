//! A notification never sends twice on a channel, however often the sidecar is killed while it walks the plan, and each one ends.
//! `PLANS_KILLED="300 200"` sets the number of notifications and of kills; `make plans-killed` runs the long test.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Caller, administrator, serve, settings};
use crate::{
    api::message_lists::accepted,
    support::{
        servers::eventually_within,
        sidecar::{ACCOUNT, Sidecar, inbound},
        simulator::Simulator,
        world::World,
    },
};

crate::support::world::on_every_store!(@ sqlite Sqlite sidecar_that_is_killed_never_sends_twice_on_a_channel);
crate::support::world::on_every_store!(@ postgres Postgres sidecar_that_is_killed_never_sends_twice_on_a_channel);

/// Contact who left WhatsApp.
const LEFT: &str = "+14155550177";

/// Recipients by the way of their notifications: both chats fail; WhatsApp fails; WhatsApp delivers; Twilio's answer is lost; the
/// contact left WhatsApp.
const NUMBERS: [&str; 6] =
    ["+14155559013", "+14155559014", "+14155550123", "+14155559005", "+14155559006", LEFT];

fn size() -> (u64, u64) {
    let words = std::env::var("PLANS_KILLED").unwrap_or_default();
    let mut numbers = words.split_whitespace().map(|word| word.parse::<u64>().unwrap());
    match (numbers.next(), numbers.next()) {
        (Some(notifications), Some(kills)) => (notifications, kills),
        _ => (36, 12),
    }
}

fn number(n: u64) -> &'static str {
    NUMBERS[usize::try_from(n).unwrap() % NUMBERS.len()]
}

/// Sends the request with its idempotency key. Returns false if the sidecar ended before its answer.
async fn request(app: &Caller<'_>, n: u64) -> bool {
    // Some steps move on without an answer, at the moment at which the sidecar asks for the status.
    let first = if n.is_multiple_of(4) {
        json!({"channel": "whatsapp", "within_s": 1})
    } else {
        json!({"channel": "whatsapp"})
    };
    let body = json!({
        "to": {"number": number(n), "email": format!("m{n}@example.com")},
        "category": "service",
        "content": {
            "whatsapp": {"text": format!("m{n}")},
            "sms": {"text": format!("m{n}")},
            "email": {"subject": format!("m{n}"), "text": "x"},
        },
        "plan": [first, {"channel": "sms"}, {"channel": "email"}],
    });
    let request = app.client().post(format!("{}/v1/notifications", app.base));
    let request = request.bearer_auth(&app.token).header("idempotency-key", format!("key-{n}"));
    request.body(body.to_string()).send().await.is_ok_and(|answer| answer.status() == 202)
}

/// Returns the number of times the simulator accepted each text on each channel.
async fn counts(simulator: &Simulator) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for one in simulator.listed(ACCOUNT).await {
        let to = one["to"].as_str().unwrap();
        let channel = if to.starts_with("whatsapp:") { "whatsapp" } else { "sms" };
        let text = one["body"].as_str().unwrap();
        *counts.entry((text.to_owned(), channel.to_owned())).or_default() += 1;
    }
    let emails = reqwest::get(format!("{}/simulator/emails", simulator.base)).await.unwrap();
    let emails: Value = emails.json().await.unwrap();
    for one in emails["emails"].as_array().unwrap() {
        let text = one["subject"].as_str().unwrap();
        *counts.entry((text.to_owned(), "email".to_owned())).or_default() += 1;
    }
    counts
}

async fn sidecar_that_is_killed_never_sends_twice_on_a_channel(world: World) {
    let (notifications, kills) = size();
    let simulator =
        Simulator::start(&world, &["--no-windows", "--latency-ms", "60", "--mps", "1000"]);
    assert!(!settings(&world, &simulator).await.is_empty());
    let mut sidecar: Sidecar = serve(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    for (n, number) in NUMBERS.into_iter().enumerate() {
        let from = format!("whatsapp:{number}");
        accepted(&sidecar, &[inbound(&format!("w{n}"), &format!("SMw{n}"), &from, "hello")]).await;
    }
    sidecar.claim(inbound("stop", "SMstop", &format!("whatsapp:{LEFT}"), "STOP")).await;

    let mut done = BTreeSet::new();
    let mut hits = 0;
    for kill in 0..kills {
        let last = notifications * (kill + 1) / kills;
        let app = Caller::app(&sidecar, &token);
        for n in 0..last {
            if !done.contains(&n) && request(&app, n).await {
                done.insert(n);
            }
        }
        // Each kill hits other steps: the first calls, a move after a status, or a move without an answer.
        let pause = getrandom::u64().unwrap() % 1500;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        sidecar.kill();
        let open = "SELECT id FROM outbound_messages WHERE state = 'attempting' AND due_at_ms > attempted_at_ms + 1000";
        hits += u64::from(!world.stored(open).await.is_empty());
        // As if the holds of the interrupted attempts were over.
        let end_hold = "UPDATE outbound_messages SET due_at_ms = attempted_at_ms + 1000 WHERE state IN ('attempting', 'unknown') RETURNING id";
        world.stored(end_hold).await;
        sidecar = serve(&world, &simulator, &[]).await;
    }
    let app = Caller::app(&sidecar, &token);
    let deadline = Instant::now() + Duration::from_secs(60);
    for n in 0..notifications {
        while !done.contains(&n) {
            assert!(Instant::now() < deadline, "m{n} was not accepted");
            if request(&app, n).await {
                done.insert(n);
            } else {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // An e-mail of which SendGrid has no event stays unknown, because SendGrid has no list; nothing follows it.
    let open = "SELECT channel || ' ' || state || ' ' || contact FROM outbound_messages WHERE state IN ('queued', 'attempting') OR (state = 'unknown' AND channel <> 'email') OR fallback <> ''";
    let limit = Duration::from_secs(240);
    eventually_within(limit, "every notification has ended", async || {
        // A lookup that a kill interrupted is repeated at once.
        world.stored("UPDATE outbound_messages SET lookup_due_at_ms = 1 WHERE state = 'sent' AND fallback <> '' AND lookup_due_at_ms > 0 RETURNING id").await;
        let left = world.stored(open).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        left.is_empty()
    })
    .await;

    let counts = counts(&simulator).await;
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "sent twice on a channel: {twice:?}");
    let unknown =
        world.stored("SELECT contact FROM outbound_messages WHERE state = 'unknown'").await;
    println!(
        "{notifications} notifications, {kills} kills, {hits} of them during a call; {} messages and e-mails, each once; {} e-mails stay unknown",
        counts.len(),
        unknown.len()
    );
    for n in 0..notifications {
        let text = format!("m{n}");
        let is_on = |channel: &str| counts.contains_key(&(text.clone(), channel.to_owned()));
        let is_lost = unknown.contains(&format!("m{n}@example.com"));
        match number(n) {
            "+14155559013" => {
                assert!(is_on("whatsapp") && is_on("sms"), "{text}");
                assert!(is_on("email") || is_lost, "{text}");
            }
            "+14155559014" => {
                assert!(is_on("whatsapp") && is_on("sms") && !is_on("email"), "{text}")
            }
            LEFT => assert!(!is_on("whatsapp") && is_on("sms"), "{text}"),
            _ => assert!(is_on("whatsapp") && !is_on("email"), "{text}"),
        }
    }
    let rows = world.stored("SELECT DISTINCT notification_id FROM outbound_messages").await;
    assert_eq!(rows.len() as u64, notifications, "one notification for each request");
}
