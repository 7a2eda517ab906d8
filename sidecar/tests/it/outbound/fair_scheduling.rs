//! Fair scheduling: neither the queue of an account nor the rate limit of a sender delays others. The simulator acts as
//! Twilio, and lists messages in the order of their arrival.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator},
    api::message_lists::OTHER,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar},
    support::simulator::{Simulator, account},
    support::world::{World, on_every_store},
};

on_every_store! {
    account_with_a_long_queue_delays_no_other,
    waiting_sender_delays_no_other,
    login_code_is_sent_before_an_offer,
    login_code_is_not_delayed_by_calls_that_hang,
    throttled_recipient_does_not_delay_the_account,
}

const OURS: &str = "+14155238886";

/// Starts a sidecar with two accounts. `more` is configuration of the second account's senders.
async fn started(
    world: &World,
    simulator: &Simulator,
    more: &str,
    settings: &[(&str, &str)],
) -> Sidecar {
    let file = world.directory.path().join("sending.toml");
    std::fs::write(&file, [account(OTHER), account(ACCOUNT), more.to_owned()].concat()).unwrap();
    let ours = [
        ("TWILIO_EDGE_SENDING_FILE", file.to_str().unwrap()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
    ];
    world.sidecar_with(&[&ours[..], settings].concat()).await
}

/// Writes `count` accepted messages of a sender directly into the database.
async fn waiting(world: &World, account_sid: &str, sender: &str, priority: u8, count: u32) {
    let row = |n: &str| {
        format!(
            "'ms_' || {n} || '{sender}{priority}', '{account_sid}', 'sms', '+1415555' || (1000 + {n} % 8000), '{sender}', 'service', 'session', {priority},
            'To=%2B1415555' || (1000 + {n} % 8000) || '&From=%2B{}&Body=many', 'queued', 1, {now}, '', 0, '', '', '', 1, 'test', 1",
            sender.trim_start_matches('+'),
            now = jiff::Timestamp::now().as_millisecond()
        )
    };
    let into = "INSERT INTO outbound_messages (id, account_sid, channel, recipient, sender, category, kind, priority, form, state, due_at_ms,
        first_due_at_ms, attempt_id, attempts, message_sid, code, reason, created_at_ms, created_by, changed_at_ms)";
    if world.database_url.starts_with("sqlite") {
        let from = format!(
            "WITH RECURSIVE some(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM some WHERE n < {count})"
        );
        world.stored(&format!("{from} {into} SELECT {} FROM some RETURNING ''", row("n"))).await;
    } else {
        let made =
            format!("{into} SELECT {} FROM generate_series(1, {count}) AS n RETURNING 1", row("n"));
        world.stored(&format!("WITH made AS ({made}) SELECT count(*)::text FROM made")).await;
    }
}

/// All permitted calls hang, as Twilio's calls do at times. A login code is still sent.
async fn login_code_is_not_delayed_by_calls_that_hang(world: World) {
    let simulator = Simulator::of(&world, &[ACCOUNT, OTHER], &["--mps", "1000"]);
    let few = [
        ("TWILIO_EDGE_SENDING_CONCURRENCY", "2"),
        ("TWILIO_EDGE_SENDING_AUTHENTICATION_RESERVE", "2"),
        // Longer than anything here is waited for.
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "600000"),
    ];
    let sidecar = started(&world, &simulator, "", &few).await;
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    let ask_for = async |to: &str, from: &str, category: &str| {
        let wanted = json!({"account_sid": ACCOUNT, "to": to, "from": from, "body": "x", "category": category});
        ask(&app, &wanted).await
    };
    // Twilio does not answer these: 9006.
    for n in 0..4 {
        ask_for(&format!("+141555{n}9006"), &format!("+1415523888{n}"), "service").await;
    }
    eventually("every call there may be hangs", async || {
        sidecar.metric("twilio_edge_twilio_calls_in_flight").await >= 1.0
            && world.stored("SELECT id FROM outbound_messages WHERE state = 'queued'").await.len()
                < 4
    })
    .await;
    let code = ask_for("+14155550123", OURS, "authentication").await;
    let place = format!("{code}?account_sid={ACCOUNT}");
    eventually("the code is sent", async || app.get(&place).await["state"] == "sent").await;
    let hanging = "SELECT id FROM outbound_messages WHERE state = 'attempting'";
    assert!(!world.stored(hanging).await.is_empty(), "while calls hang");
    let waiting =
        "SELECT id FROM outbound_messages WHERE state = 'queued' AND category = 'service'";
    assert!(!world.stored(waiting).await.is_empty(), "and others have no room");
    sidecar.kill();
}

/// Twilio says 429 with 20429 of one number only, again and again.
async fn throttled_recipient_does_not_delay_the_account(world: World) {
    const ALLOWED: &str = "twilio_edge_twilio_calls_allowed";
    let simulator = Simulator::of(&world, &[ACCOUNT, OTHER], &["--mps", "1000"]);
    let settings =
        [("TWILIO_EDGE_SENDING_CONCURRENCY", "16"), ("TWILIO_EDGE_SENDING_CONCURRENCY_FLOOR", "5")];
    let sidecar = started(&world, &simulator, "", &settings).await;
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    let ask_for = async |to: String| {
        let wanted = json!({"account_sid": ACCOUNT, "to": to, "from": OURS, "body": "x", "category": "service"});
        ask(&app, &wanted).await
    };
    const ERRORS: &str = "twilio_edge_twilio_errors_total{class=\"throttled\"}";
    for _ in 0..6 {
        ask_for("+14155559001".into()).await;
    }
    eventually("Twilio has said so often", async || sidecar.metric(ERRORS).await >= 12.0).await;
    assert_eq!(sidecar.metric(ALLOWED).await, 12.0, "three quarters of 16, as before");
    let place = format!("{}?account_sid={ACCOUNT}", ask_for("+14155550123".into()).await);
    eventually("others are sent", async || app.get(&place).await["state"] == "sent").await;
    // Many of them: that is the account, which keeps its floor.
    for n in 0..30 {
        ask_for(format!("+14155{n:02}9001")).await;
    }
    eventually("the account's limit falls", async || sidecar.metric(ALLOWED).await == 5.0).await;
    let before = sidecar.metric(ERRORS).await;
    eventually("Twilio says it again", async || sidecar.metric(ERRORS).await >= before + 60.0)
        .await;
    assert_eq!(sidecar.metric(ALLOWED).await, 5.0, "not below its floor");
    sidecar.kill();
}

async fn ask(app: &Caller<'_>, wanted: &Value) -> String {
    let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    assert_eq!(answer.status(), 202);
    let taken: Value = answer.json().await.unwrap();
    taken["links"]["self"].as_str().unwrap().to_owned()
}

async fn account_with_a_long_queue_delays_no_other(world: World) {
    const MANY: u32 = 100_000;
    let simulator = Simulator::of(&world, &[ACCOUNT, OTHER], &["--mps", "1000"]);
    // A first start of the sidecar creates the tables.
    started(&world, &simulator, "", &[]).await.stop();
    waiting(&world, OTHER, OURS, 1, MANY).await;
    let sidecar =
        started(&world, &simulator, "", &[("TWILIO_EDGE_SENDING_CONCURRENCY", "8")]).await;
    let root = administrator(&sidecar).await;
    eventually("messages of the other account are sent", async || {
        !simulator.listed(OTHER).await.is_empty()
    })
    .await;
    let app = Caller::app(&sidecar, &root.token);
    let wanted = json!({"account_sid": ACCOUNT, "to": "+14155550123", "from": "+14155238887", "body": "mine"});
    let before = simulator.listed(OTHER).await.len();
    let place = format!("{}?account_sid={ACCOUNT}", ask(&app, &wanted).await);
    eventually("the message of this account is sent", async || {
        app.get(&place).await["state"] == "sent"
    })
    .await;
    let after = simulator.listed(OTHER).await.len();
    let queued =
        world.stored("SELECT id FROM outbound_messages WHERE state = 'queued' LIMIT 1").await;
    assert!(!queued.is_empty(), "messages of the other account still wait");
    // Only messages that were already in progress may precede it, and not those that waited.
    assert!(after - before < 2_000, "{before} {after}");
    let first = &simulator.listed(ACCOUNT).await[0];
    assert_eq!(first["body"], "mine");
}

async fn waiting_sender_delays_no_other(world: World) {
    let simulator = Simulator::of(&world, &[ACCOUNT, OTHER], &["--mps", "1000"]);
    let sandbox = format!("[[account.sender]]\nname = \"{OURS}\"\nper_second = 0.01\n");
    let few = [("TWILIO_EDGE_SENDING_CONCURRENCY", "4")];
    let sidecar = started(&world, &simulator, &sandbox, &few).await;
    let root = administrator(&sidecar).await;
    waiting(&world, ACCOUNT, OURS, 0, 50).await;
    let app = Caller::app(&sidecar, &root.token);
    let mut places = Vec::new();
    for n in 0..20 {
        let wanted = json!({"account_sid": ACCOUNT, "to": format!("+141555501{n:02}"), "from": "+14155238887", "body": "mine",
            "category": "service"});
        places.push(ask(&app, &wanted).await);
    }
    let sent = "SELECT id FROM outbound_messages WHERE state = 'sent' AND sender = '+14155238887'";
    eventually("all of the other sender's are sent", async || world.stored(sent).await.len() == 20)
        .await;
    let slow = simulator.listed(ACCOUNT).await;
    let slow = slow.iter().filter(|one| one["from"] == OURS).count();
    assert_eq!(slow, 1, "one in a hundred seconds");
    let begun = "SELECT id FROM outbound_messages WHERE state = 'attempting'";
    eventually("what has no turn is not begun", async || world.stored(begun).await.is_empty())
        .await;
}

/// All of them wait for one sender, which sends one after another.
async fn login_code_is_sent_before_an_offer(world: World) {
    let simulator = Simulator::of(&world, &[ACCOUNT, OTHER], &["--mps", "1000"]);
    let slow = format!("[[account.sender]]\nname = \"{OURS}\"\nper_second = 40\n");
    started(&world, &simulator, "", &[]).await.stop();
    waiting(&world, ACCOUNT, OURS, 2, 200).await;
    let sidecar = started(&world, &simulator, &slow, &[]).await;
    let root = administrator(&sidecar).await;
    eventually("offers are sent", async || simulator.listed(ACCOUNT).await.len() > 3).await;
    let app = Caller::app(&sidecar, &root.token);
    let codes = (0..10).map(|n| {
        json!({"account_sid": ACCOUNT, "to": format!("+141555501{n:02}"), "from": OURS, "body": "code",
            "category": "authentication"})
    });
    // All at the same time: the more time between two of them, the more offers are sent in between.
    let codes: Vec<Value> = codes.collect();
    futures_util::future::join_all(codes.iter().map(|wanted| ask(&app, wanted))).await;
    let codes =
        "SELECT id FROM outbound_messages WHERE state = 'sent' AND category = 'authentication'";
    eventually("the codes are sent", async || {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.stored(codes).await.len() == 10
    })
    .await;
    let offers = "SELECT id FROM outbound_messages WHERE state = 'queued' AND priority = 2 LIMIT 1";
    assert_eq!(world.stored(offers).await.len(), 1, "before the offers");
    let order = simulator.listed(ACCOUNT).await;
    let is_code = |one: &Value| one["body"] == "code";
    let first = order.iter().position(is_code).unwrap();
    let last = order.iter().rposition(is_code).unwrap();
    // Two are asked for between them at most, and one turn in ten is an offer's.
    assert!(last - first < 40, "{first} {last}");
    eventually("offers go on", async || simulator.listed(ACCOUNT).await.len() > last + 2).await;
}
