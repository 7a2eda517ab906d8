//! Media that Twilio is to fetch. The media probe connects to no internal address, whether a URL spells it, a redirect names
//! it or a name resolves to it. The probe also verifies the headers of media servers against the content.

mod kept;
pub(crate) mod server;

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_connectors::public_resolver::{Lookup, LookupResult};
use twilio_edge_domain::media::{MediaCheck, MediaProblemKind};
use twilio_edge_platform::{config::Merged, metrics::Metrics};
use twilio_edge_services::outbound::media::Media;

use self::server::{OUTSIDE, Server, Trap};
use crate::{
    access::api_keys::{Caller, administrator, coded},
    outbound::sending::{Twilio, started_with},
    support::servers::eventually,
    support::sidecar::ACCOUNT,
    support::world::{World, on_every_store},
};

on_every_store! {
    media_that_disappeared_is_not_sent,
}

const INSIDE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// URLs by which an attacker may address an internal server; `PORT` stands for the port of the trap.
const SPELLINGS: [&str; 78] = [
    "https://127.0.0.1:PORT/",
    "https://127.0.0.1.:PORT/",
    "https://127.1:PORT/",
    "https://127.0.1:PORT/",
    "https://2130706433:PORT/",
    "https://0x7f000001:PORT/",
    "https://0x7F.1:PORT/",
    "https://017700000001:PORT/",
    "https://0177.0.0.1:PORT/",
    "https://0x7f.0x0.0x0.0x1:PORT/",
    "https://0177.0x0.0.1:PORT/",
    "https://00000177.0.0.1:PORT/",
    "https://127.0.0.01:PORT/",
    "https://127.255.255.254:PORT/",
    "https://0:PORT/",
    "https://0.0.0.0:PORT/",
    "https://0x0:PORT/",
    "https://00:PORT/",
    "https://１２７.０.０.１:PORT/",
    "https://①②⑦.⓪.⓪.①:PORT/",
    "https://127。0。0。1:PORT/",
    "https://%31%32%37.0.0.1:PORT/",
    "https://127%2e0%2e0%2e1:PORT/",
    "https://localhost:PORT/",
    "https://LOCALHOST:PORT/",
    "https://localhost.:PORT/",
    "https://a.localhost:PORT/",
    "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT/",
    "https://localhost.localdomain:PORT/",
    "https://%6cocalhost:PORT/",
    "https://[::1]:PORT/",
    "https://[0:0:0:0:0:0:0:1]:PORT/",
    "https://[0000::0001]:PORT/",
    "https://[::]:PORT/",
    "https://[::ffff:127.0.0.1]:PORT/",
    "https://[::ffff:7f00:1]:PORT/",
    "https://[0:0:0:0:0:ffff:127.0.0.1]:PORT/",
    "https://[::127.0.0.1]:PORT/",
    "https://[::7f00:1]:PORT/",
    "https://[::ffff:0:127.0.0.1]:PORT/",
    "https://[64:ff9b::127.0.0.1]:PORT/",
    "https://[64:ff9b::7f00:1]:PORT/",
    "https://[64:ff9b:1::7f00:1]:PORT/",
    "https://[2002:7f00:1::]:PORT/",
    "https://[2002:7f00:1::1]:PORT/",
    "https://[2001:0:4136:e378:8000:63bf:80ff:fffe]:PORT/",
    "https://[fe80::1]:PORT/",
    "https://[fc00::1]:PORT/",
    "https://[fd00:ec2::254]:PORT/",
    "https://[ff02::1]:PORT/",
    "https://[2001:db8::1]:PORT/",
    "https://169.254.169.254:PORT/latest/meta-data/",
    "https://0xa9fea9fe:PORT/",
    "https://2852039166:PORT/",
    "https://[::ffff:169.254.169.254]:PORT/",
    "https://[64:ff9b::a9fe:a9fe]:PORT/",
    "https://metadata.google.internal:PORT/computeMetadata/v1/",
    "https://metadata.google.internal.:PORT/",
    "https://metadata:PORT/",
    "https://100.100.100.200:PORT/",
    "https://192.0.0.192:PORT/",
    "https://168.63.129.16:PORT/",
    "https://10.0.0.1:PORT/",
    "https://172.16.0.1:PORT/",
    "https://192.168.1.1:PORT/",
    "https://100.64.0.1:PORT/",
    "https://198.18.0.1:PORT/",
    "https://224.0.0.1:PORT/",
    "https://255.255.255.255:PORT/",
    "https://192.0.2.1:PORT/",
    "https://kubernetes.default.svc.cluster.local:PORT/",
    "https://printer.local:PORT/",
    "https://router.home.arpa:PORT/",
    "https://redis:PORT/",
    "https://example.com@127.0.0.1:PORT/",
    "https://example.com:a@[::1]:PORT/",
    "https://example.com#@127.0.0.1:PORT\\@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT/",
];

fn spelled(port: u16) -> impl Iterator<Item = String> {
    SPELLINGS.iter().map(move |one| one.replace("PORT", &port.to_string()))
}

/// Resolver whose answer changes with each lookup; the last answer stays.
struct Changing(Mutex<(VecDeque<Vec<IpAddr>>, usize)>);

impl Changing {
    fn through(answers: &[&[Ipv4Addr]]) -> Arc<Changing> {
        let answers = answers.iter().map(|one| one.iter().map(|one| IpAddr::V4(*one)).collect());
        Arc::new(Changing(Mutex::new((answers.collect(), 0))))
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl Lookup for Changing {
    fn lookup<'a>(&'a self, _: &'a str) -> LookupResult<'a> {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        let answer = match state.0.len() {
            0 | 1 => state.0.front().cloned().unwrap_or_default(),
            _ => state.0.pop_front().unwrap(),
        };
        Box::pin(async move { Ok(answer) })
    }
}

/// Returns a media probe with these settings, for which [`OUTSIDE`] is a public address.
fn looking(settings: &[(&str, &str)], lookup: Arc<dyn Lookup>) -> Media {
    let outside = OUTSIDE.to_string();
    let usual = [("TRUST_ADDRESSES", outside.as_str()), ("TIMEOUT_MS", "15000")];
    let set = usual.iter().chain(settings).map(|(name, value)| {
        (format!("TWILIO_EDGE_MEDIA_{name}").into(), (*value).to_owned().into())
    });
    let config = Merged::read(None, set.collect::<Vec<_>>().into_iter()).check().unwrap();
    let metrics = Arc::new(Metrics::default());
    Media::with(&config.media, Duration::from_secs(60), &metrics, lookup).unwrap()
}

async fn look(media: &Media, url: &str) -> Result<(), (MediaProblemKind, String)> {
    match media.check(ACCOUNT, "whatsapp", &[url.to_owned()]).await {
        MediaCheck::Valid => Ok(()),
        MediaCheck::Invalid(0, unfit) => Err((unfit.kind, unfit.detail)),
        other => panic!("{url}: {other:?}"),
    }
}

/// Detail of a refusal of an internal URL, unless the spelling of the URL is invalid itself.
const NOT_PUBLIC: &str = "is not at a public address";

#[tokio::test]
async fn internal_addresses_are_refused_in_every_spelling() {
    let world = World::new(crate::support::world::Kind::Sqlite).await;
    let (port, trap) = Trap::set((INSIDE, 0)).await;
    let (url, twilio) = Twilio::start().await;
    let allowed = format!("443,{port}");
    let settings = [
        ("TWILIO_EDGE_MEDIA_CHECK", "true"),
        ("TWILIO_EDGE_MEDIA_PORTS", allowed.as_str()),
        ("TWILIO_EDGE_API_BURST", "1000"),
    ];
    let sidecar = started_with(&world, &url, &settings).await;
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    for url in spelled(port) {
        let wanted = json!({"account_sid": ACCOUNT, "to": "+15550001234", "from": "+15557654321", "media": [url]});
        let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(
            (status.as_u16(), &body["code"]),
            (409, &json!("media_rejected")),
            "{url}: {body}"
        );
        let detail = body["detail"].as_str().unwrap();
        let is_letters =
            ["user name or a password", "backslash", "must begin with https://", "is not a URL"];
        let is_known = detail == format!("media[0]: {NOT_PUBLIC}")
            || is_letters.iter().any(|part| detail.contains(part));
        assert!(is_known, "{url}: {detail}");
    }
    let form = [
        ("To", "+15550001234"),
        ("From", "+15557654321"),
        ("MediaUrl", &format!("https://127.1:{port}/")),
    ];
    let (status, body) = in_twilios_words(&app, &form).await;
    assert_eq!((status, &body["code"]), (400, &json!(21620)), "{body}");
    assert!(body["message"].as_str().unwrap().contains(NOT_PUBLIC), "{body}");
    assert_eq!(trap.count(), 0, "the sidecar connected to an internal address");
    assert!(twilio.made.lock().unwrap().is_empty());
    let refused = sidecar.metric(r#"twilio_edge_message_attempts_total{outcome="sent"}"#).await;
    assert_eq!(refused, 0.0);

    // Proves that the trap counts connections.
    let trusting = looking(&[("TRUST_ADDRESSES", "127.0.0.1")], Changing::through(&[]));
    let _ = look(&trusting, &format!("http://127.0.0.1:{port}/")).await;
    assert!(trap.count() > 0);
}

async fn in_twilios_words(app: &Caller<'_>, form: &[(&str, &str)]) -> (u16, Value) {
    let basic = format!("Basic {}", STANDARD.encode(format!("{ACCOUNT}:{}", app.token)));
    let path = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Messages.json", app.base);
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let asked = app.client().post(path).header("authorization", basic);
    let asked = asked.header("content-type", "application/x-www-form-urlencoded").body(body);
    let answer = asked.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn redirects_to_internal_addresses_are_refused() {
    let (port, trap) = Trap::set((INSIDE, 0)).await;
    let server = Server::start().await;
    let allowed = format!("443,{port}");
    let media = looking(&[("PORTS", &allowed)], Changing::through(&[&[INSIDE]]));
    // A name that resolves to an internal address.
    let named = format!("https://media.example.com:{port}/");
    for url in spelled(port).filter(|url| url.is_ascii()).chain([named]) {
        let (why, detail) = look(&media, &format!("{}/to?{url}", server.base)).await.unwrap_err();
        assert!(
            matches!(
                why,
                MediaProblemKind::NotPublic | MediaProblemKind::Url | MediaProblemKind::Redirects
            ),
            "{url}: {why:?} {detail}"
        );
        assert!(!detail.contains("127.") && !detail.contains("answers"), "{url}: {detail}");
    }
    assert_eq!(trap.count(), 0, "the sidecar connected to an internal address");
    let seen = server.asked.lock().unwrap().len();
    assert!(seen >= 60, "each URL was a redirect: {seen}");
}

/// The name resolves to a public address during the check and to an internal one afterwards.
#[tokio::test]
async fn server_that_changes_its_answer_gains_nothing() {
    let (port, outside) = Trap::set((OUTSIDE, 0)).await;
    let (_, inside) = Trap::set((INSIDE, port)).await;
    let allowed = port.to_string();
    let names = Changing::through(&[&[OUTSIDE], &[INSIDE]]);
    let media = looking(&[("PORTS", &allowed)], names.clone());
    let url = format!("https://rebind.example.com:{port}/a.png");
    let (why, _) = look(&media, &url).await.unwrap_err();
    assert_eq!(
        (why, outside.count(), names.asked()),
        (MediaProblemKind::Unreachable, 1, 1),
        "the probe connected to the address that it had checked"
    );
    let hello = String::from_utf8_lossy(&outside.first_bytes.lock().unwrap()).into_owned();
    assert!(
        hello.contains("rebind.example.com"),
        "the client hello has the name of the server: {hello:?}"
    );
    assert_eq!(look(&media, &url).await, Err((MediaProblemKind::NotPublic, NOT_PUBLIC.to_owned())));
    // One internal address is enough, at any position. A name without addresses gets the same refusal.
    for answer in [&[OUTSIDE, INSIDE][..], &[INSIDE, OUTSIDE], &[]] {
        let media = looking(&[("PORTS", &allowed)], Changing::through(&[answer]));
        assert_eq!(
            look(&media, &url).await,
            Err((MediaProblemKind::NotPublic, NOT_PUBLIC.to_owned()))
        );
    }
    assert_eq!((inside.count(), outside.count()), (0, 1));
}

#[tokio::test]
async fn headers_of_media_servers_are_verified() {
    let server = Server::start().await;
    let media = looking(&[], Changing::through(&[]));
    for (path, expected) in [
        ("/good.png", None),
        ("/once", None),
        ("/no-head", None),
        ("/no-length", None),
        // The client reads no more than the announced length.
        ("/lies-less", None),
        ("/two-tongues", Some(MediaProblemKind::Mismatch)),
        ("/html", Some(MediaProblemKind::Mismatch)),
        ("/wrong-type", Some(MediaProblemKind::Type)),
        ("/no-type", Some(MediaProblemKind::Type)),
        ("/gzip", Some(MediaProblemKind::Encoded)),
        ("/lies-more", Some(MediaProblemKind::Unreachable)),
        ("/cut", Some(MediaProblemKind::Unreachable)),
        ("/large", Some(MediaProblemKind::Size)),
        ("/huge", Some(MediaProblemKind::Size)),
        ("/endless", Some(MediaProblemKind::Size)),
        ("/403", Some(MediaProblemKind::Status)),
        ("/503", Some(MediaProblemKind::Status)),
        ("/loop", Some(MediaProblemKind::Redirects)),
        ("/nowhere", Some(MediaProblemKind::Redirects)),
    ] {
        let looked = look(&media, &format!("{}{path}", server.base)).await;
        assert_eq!(looked.as_ref().err().map(|(why, _)| *why), expected, "{path}: {looked:?}");
    }
    assert_eq!(server.count("HEAD /loop"), 4, "three redirects at most");
    // The response does not end before the timeout.
    let hurried = looking(&[("TIMEOUT_MS", "400")], Changing::through(&[]));
    let (why, _) = look(&hurried, &format!("{}/drip", server.base)).await.unwrap_err();
    assert_eq!(why, MediaProblemKind::Slow);
}

#[tokio::test]
async fn media_probe_fetches_once_and_limits_each_account() {
    const OTHER: &str = "ACffffffffffffffffffffffffffffffff";
    let server = Server::start().await;
    let limits = [("CONCURRENCY", "3"), ("CONCURRENCY_PER_ACCOUNT", "2")];
    let media = looking(&limits, Changing::through(&[]));
    let good = vec![format!("{}/good.png", server.base)];
    for account in [ACCOUNT, ACCOUNT, OTHER] {
        assert_eq!(media.check(account, "whatsapp", &good).await, MediaCheck::Valid);
    }
    assert_eq!(server.count("GET /good.png"), 2, "once for each account");

    let mut looks = tokio::task::JoinSet::new();
    for n in 0..6 {
        let (media, url) = (media.clone(), format!("{}/hold?{n}", server.base));
        looks.spawn(async move { media.check(ACCOUNT, "whatsapp", &[url]).await });
    }
    eventually("two probes of the account are running", async || {
        server.holding.0.load(SeqCst) == 2
    })
    .await;
    let other = vec![format!("{}/no-head", server.base)];
    assert_eq!(media.check(OTHER, "whatsapp", &other).await, MediaCheck::Valid, "others have room");
    server.go.send_replace(true);
    while let Some(looked) = looks.join_next().await {
        assert_eq!(looked.unwrap(), MediaCheck::Valid);
    }
    assert_eq!(server.holding.1.load(SeqCst), 2, "never more at once");
}

/// The sidecar checks the media again before it calls Twilio.
async fn media_that_disappeared_is_not_sent(world: World) {
    let (url, twilio) = Twilio::start().await;
    let server = Server::start().await;
    let outside = OUTSIDE.to_string();
    let settings = [
        ("TWILIO_EDGE_MEDIA_CHECK", "true"),
        ("TWILIO_EDGE_MEDIA_TIMEOUT_MS", "15000"),
        ("TWILIO_EDGE_MEDIA_REMEMBER_S", "0"),
        ("TWILIO_EDGE_MEDIA_TRUST_ADDRESSES", outside.as_str()),
    ];
    let sidecar = started_with(&world, &url, &settings).await;
    assert!(
        sidecar.log().contains("media.trust_addresses"),
        "the log warns about the setting, which is not for production"
    );
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    let at = (jiff::Timestamp::now() + Duration::from_secs(3)).to_string();
    let wanted = |path: &str| {
        json!({"account_sid": ACCOUNT, "to": "+15550001234", "from": "+15557654321", "send_at": at,
            "media": [format!("{}{path}", server.base)]})
    };
    let mut places = Vec::new();
    for path in ["/there", "/good.png"] {
        let answer = app.send(Method::POST, "/v1/messages", wanted(path).to_string()).await;
        let status = answer.status();
        let taken: Value = answer.json().await.unwrap();
        assert_eq!(status, 202, "{taken}");
        places.push(format!("{}?account_sid={ACCOUNT}", taken["links"]["self"].as_str().unwrap()));
    }
    server.go.send_replace(true);
    eventually("the message without its media is refused", async || {
        app.get(&places[0]).await["state"] == "refused"
    })
    .await;
    let shown = app.get(&places[0]).await;
    assert_eq!(shown["error"]["code"], "media_unreachable", "{shown}");
    eventually("the other message is sent", async || app.get(&places[1]).await["state"] == "sent")
        .await;
    let sent: Vec<String> =
        twilio.made.lock().unwrap().iter().map(|(_, form)| form["MediaUrl"].clone()).collect();
    assert_eq!(sent, [format!("{}/good.png", server.base)]);
    assert!(
        server.count("GET /good.png") >= 2,
        "once for the request, and once before the message is sent"
    );

    // The sidecar probes the media of a request, and refuses it at once. The code shows who has to act.
    let refusal = async |path: &str| app.refusal(Method::POST, "/v1/messages", &wanted(path)).await;
    assert_eq!(refusal("/403").await, coded(409, "media_unreachable"));
    assert_eq!(refusal("/large").await, coded(409, "media_too_large"));
    assert_eq!(refusal("/html").await, coded(409, "media_rejected"));
    for (path, code) in [("/403", 63019), ("/large", 11751), ("/html", 21620)] {
        let url = format!("{}{path}", server.base);
        let form = [("To", "+15550001234"), ("From", "+15557654321"), ("MediaUrl", url.as_str())];
        let (_, body) = in_twilios_words(&app, &form).await;
        assert_eq!(body["code"], code, "{body}");
    }
    // The sidecar does not probe the media of a message that another rule refuses.
    let before = server.asked.lock().unwrap().len();
    let mut closed = wanted("/good.png");
    closed["to"] = json!("whatsapp:+15550001234");
    closed["from"] = json!("whatsapp:+15557654321");
    assert_eq!(
        app.refusal(Method::POST, "/v1/messages", &closed).await,
        coded(409, "window_closed")
    );
    assert_eq!(server.asked.lock().unwrap().len(), before);
}
