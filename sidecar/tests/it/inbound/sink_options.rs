//! Options of sinks: filters, headers and credentials of HTTP sinks, their TLS, and the pace of deliveries.

use std::time::Duration;

use twilio_edge_contract::{Claim, Decision};

use crate::{
    inbound::deliveries::{accepted, command, from, sinks, start},
    support::receiver::Receiver,
    support::servers::{eventually, free_port},
    support::sidecar::{ACCOUNT, inbound, status},
    support::tls_proxy::{self, Pem},
    support::world::{Kind, World, on_every_store},
};

on_every_store! {
    sink_gets_only_the_webhooks_that_its_filter_admits,
    sink_gets_only_the_operational_events_that_its_filter_admits,
}

fn message(person: usize, text: &str) -> Claim {
    let sid = format!("SM{person}x{text}");
    let number = format!("whatsapp:+1555000{person:04}");
    accepted(inbound(&format!("c{sid}"), &sid, &number, text))
}

async fn sink_gets_only_the_webhooks_that_its_filter_admits(world: World) {
    let (stops, failures, other) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let of_stops = "classes = [\"inbound\"]\nopts = [\"stop\"]\nchannels = [\"whatsapp\"]\nnumbers = [\"+15550001111\"]";
    let of_failures = "classes = [\"status\"]\nstatuses = [\"failed\", \"undelivered\"]";
    let of_other = "accounts = [\"AC000000000000000000000000000000ff\"]";
    let receivers = [
        ("stops", &stops, of_stops),
        ("failures", &failures, of_failures),
        ("other", &other, of_other),
    ];
    let sidecar = start(&world, &sinks(&world, &receivers)).await;
    assert_eq!(sidecar.decide(message(1, "hello")).await, Decision::Proceed, "no sink receives it");
    assert_eq!(sidecar.decide(message(1, "STOP")).await, Decision::Accepted);
    let callback = |sid: &str, word: &str| accepted(status(&format!("{sid}{word}"), sid, word));
    assert_eq!(sidecar.decide(callback("SM9", "delivered")).await, Decision::Proceed);
    assert_eq!(sidecar.decide(callback("SM8", "failed")).await, Decision::Accepted);
    eventually("each sink has its webhook", async || {
        stops.taken().len() == 1 && failures.taken().len() == 1
    })
    .await;
    assert_eq!(stops.got()[0].event()["body"], "STOP");
    assert_eq!(failures.got()[0].event()["status"], "failed");
    let recorded = world.stored("SELECT sink FROM deliveries ORDER BY sink").await;
    assert_eq!(recorded, ["failures", "stops"]);
    assert!(other.got().is_empty());
}

async fn sink_gets_only_the_operational_events_that_its_filter_admits(world: World) {
    const OTHER: &str = "AC000000000000000000000000000000ff";
    let app = Receiver::start().await;
    let own = format!("accounts = [\"{ACCOUNT}\"]");
    let other = format!("accounts = [\"{OTHER}\"]");
    let filters = [
        ("all", ""),
        ("other_account", other.as_str()),
        ("other_channel", "channels = [\"sms\"]"),
        ("other_number", "numbers = [\"+15550002222\"]"),
        ("own", "channels = [\"whatsapp\"]\nnumbers = [\"+15550001111\"]"),
        ("own_account", own.as_str()),
    ];
    let of = |filter: &str| format!("classes = []\nevents = [\"window.opened\"]\n{filter}");
    let filters = filters.map(|(name, filter)| (name, of(filter)));
    let receivers: Vec<_> =
        filters.iter().map(|(name, filter)| (*name, &app, filter.as_str())).collect();
    let sidecar = start(&world, &sinks(&world, &receivers)).await;
    assert_eq!(sidecar.decide(message(1, "hello")).await, Decision::Proceed);
    let mut of_other = message(2, "hello");
    of_other.identity.account_sid = OTHER.into();
    assert_eq!(sidecar.decide(of_other).await, Decision::Proceed);
    let delivered = "SELECT sink || ' ' || account_sid FROM deliveries WHERE state = 'done'";
    let expected = [
        ("all", OTHER),
        ("all", ACCOUNT),
        ("other_account", OTHER),
        ("own", OTHER),
        ("own", ACCOUNT),
        ("own_account", ACCOUNT),
    ];
    let mut expected = expected.map(|(sink, account)| format!("{sink} {account}"));
    expected.sort();
    eventually("each sink has its events", async || {
        let mut delivered = world.stored(delivered).await;
        delivered.sort();
        delivered == expected
    })
    .await;
    assert_eq!(world.stored("SELECT sink FROM deliveries").await.len(), expected.len());
}

#[tokio::test]
async fn request_has_the_configured_headers_and_credentials() {
    let world = World::new(Kind::Sqlite).await;
    let (app, crm) = (Receiver::start().await, Receiver::start().await);
    let of_app = "bearer_token = \"hush-token\"\nheaders = { X-Team = \"customer support\" }";
    let of_crm =
        "basic = { username = \"Aladdin\", password = \"open sesame\" }\nformat = \"form\"";
    let sidecar =
        start(&world, &sinks(&world, &[("app", &app, of_app), ("crm", &crm, of_crm)])).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    eventually("both sinks have it", async || app.taken().len() + crm.taken().len() == 2).await;
    let (of_app, of_crm) = (&app.got()[0], &crm.got()[0]);
    assert_eq!(of_app.header("authorization"), "Bearer hush-token");
    assert_eq!(of_app.header("x-team"), "customer support");
    assert_eq!(of_app.header("content-type"), "application/json");
    assert_eq!(of_crm.header("authorization"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(of_crm.body, from(1, 1).form);
    let log = sidecar.stop();
    assert!(!log.contains("hush") && !log.contains("sesame"), "{log}");
}

#[tokio::test]
async fn receiver_and_sidecar_authenticate_each_other_with_certificates() {
    let world = World::new(Kind::Sqlite).await;
    let receiver = Receiver::start().await;
    let (pem, port) = (Pem::make(world.directory.path()), free_port());
    let _tls = tls_proxy::start(port, receiver.address.port(), &pem);
    let file = |tls: &str| {
        let path = world.directory.path().join("sinks.toml");
        let sink = format!(
            "[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"https://127.0.0.1:{port}/\"\n\
             longest_pause_ms = 100\n{tls}\n"
        );
        std::fs::write(&path, sink).unwrap();
        path.display().to_string()
    };
    let sidecar = start(&world, &file("tls = {}")).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    let reason = "SELECT reason FROM deliveries WHERE reason LIKE '%UnknownIssuer%'";
    eventually("an unknown root certificate is refused", async || {
        !world.stored(reason).await.is_empty()
    })
    .await;
    sidecar.stop();
    let only_root = format!("tls = {{ ca_file = \"{}\" }}", pem.cert);
    let sidecar = start(&world, &file(&only_root)).await;
    // The proxy closes the connection without a certificate of the client; the error depends on the moment.
    let reason = "SELECT reason FROM deliveries WHERE reason NOT LIKE '%UnknownIssuer%'";
    eventually("the receiver refuses a client without a certificate", async || {
        !world.stored(reason).await.is_empty()
    })
    .await;
    assert!(receiver.got().is_empty());
    sidecar.stop();
    let sidecar = start(&world, &file(&pem.field())).await;
    eventually("the delivery arrives", async || receiver.taken().len() == 1).await;
    drop(sidecar);
}

#[tokio::test]
async fn deliveries_keep_the_configured_pace() {
    let world = World::new(Kind::Sqlite).await;
    let receiver = Receiver::start().await;
    let file = sinks(&world, &[("app", &receiver, "requests_per_second = 5")]);
    let sidecar = start(&world, &file).await;
    // Half of them are of one contact, and so in one lane.
    let batch = (0..10).map(|n| from(if n % 2 == 0 { 0 } else { n }, n)).collect();
    let verdicts = sidecar.claim_all(batch).await;
    assert!(verdicts.iter().all(|verdict| verdict.decision == Decision::Accepted));
    eventually("all deliveries arrive", async || receiver.taken().len() == 10).await;
    let times: Vec<_> = receiver.taken().iter().map(|got| got.at).collect();
    // Ten starts at intervals of 200 ms. An answer that comes late may shorten the time by one interval.
    assert!(times[9] - times[0] >= Duration::from_millis(8 * 200), "{times:?}");
    for window in times.windows(6) {
        assert!(window[5] - window[0] >= Duration::from_millis(700), "{times:?}");
    }
    let waiting = command(&world, &["deliveries", "status", "--json"]);
    assert!(waiting.starts_with("[]"), "{waiting}");
}
