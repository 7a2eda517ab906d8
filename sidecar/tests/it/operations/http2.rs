//! Callers over HTTP/2 that misbehave: none of them shuts out another caller, and their connections end. The frames are
//! written by hand, because no client library writes such ones.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, Instant, sleep, timeout},
};
use twilio_edge_contract::EXCHANGE_PATH;

use crate::{
    operations::connections::{claim, place, timed_out, until_closed},
    support::servers::eventually,
    support::sidecar::{TOKEN, message},
    support::world::{Kind, World},
};

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// Flags of HEADERS.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const WHOLE: u8 = END_STREAM | END_HEADERS;

/// `:status: 200` as a response's first field.
const OK: u8 = 0x88;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The preface, and SETTINGS that give each response so much room.
fn preface(window: u32) -> Vec<u8> {
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut settings = 4_u16.to_be_bytes().to_vec();
    settings.extend(window.to_be_bytes());
    preface.extend(frame(SETTINGS, 0, 0, &settings));
    preface
}

/// The fields of a request, uncompressed.
fn fields(method: &str, path: &str, token: Option<&str>) -> Vec<u8> {
    let mut fields = vec![if method == "GET" { 0x82 } else { 0x83 }, 0x86];
    let mut field = |name: &[u8], value: &str| {
        fields.extend(name);
        fields.push(u8::try_from(value.len()).unwrap());
        fields.extend(value.as_bytes());
    };
    field(&[0x01], "x");
    field(&[0x04], path);
    if let Some(token) = token {
        field(&[0x0f, 0x08], &format!("Bearer {token}"));
    }
    fields
}

async fn opened(address: &str, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other end may have closed it already.
    let _ = stream.write_all(sent).await;
    stream
}

/// The next frame of this type: its flags, its stream and its payload. None at the end of the connection.
async fn next(stream: &mut TcpStream, wanted: u8) -> Option<(u8, u32, Vec<u8>)> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.ok()?;
        if head[3] == wanted {
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            return Some((head[4], id, payload));
        }
    }
}

/// Returns whether the next response is 200.
async fn is_ok(stream: &mut TcpStream) -> bool {
    next(stream, HEADERS).await.is_some_and(|(_, _, fields)| fields.first() == Some(&OK))
}

/// Bytes that strangers send on connections that they leave open.
fn openings() -> [(&'static str, Vec<u8>); 5] {
    let with = |window: u32, frames: &[Vec<u8>]| [preface(window), frames.concat()].concat();
    let health = fields("GET", "/healthz", None);
    [
        ("nothing but the preface", with(65_535, &[])),
        ("a HEADERS frame that never ends", with(65_535, &[frame(HEADERS, 0, 1, &health)])),
        ("an idle connection", with(65_535, &[frame(HEADERS, WHOLE, 1, &health)])),
        (
            "a request without its body",
            with(65_535, &[frame(HEADERS, END_HEADERS, 1, &fields("POST", EXCHANGE_PATH, None))]),
        ),
        (
            "a response that is not read",
            with(0, &[frame(HEADERS, WHOLE, 1, &fields("GET", "/metrics", None))]),
        ),
    ]
}

#[tokio::test]
async fn http2_strangers_block_no_other_caller() {
    let world = World::new(Kind::Sqlite).await;
    let settings = [
        // Only room is what closes them here.
        ("TWILIO_EDGE_CONNECTIONS_HEADER_TIMEOUT_MS", "600000"),
        ("TWILIO_EDGE_CONNECTIONS_IDLE_TIMEOUT_MS", "600000"),
    ];
    let sidecar = world.sidecar_under("ulimit -n 256", &settings).await;
    let main = place(&sidecar.base);
    let mut filter = TcpStream::connect(main).await.unwrap();
    assert_eq!(claim(&mut filter, "SM1").await, "HTTP/1.1 200 OK");
    let mut open = Vec::new();
    for (n, (name, sent)) in openings().into_iter().enumerate() {
        for _ in 0..100 {
            open.push(opened(main, &sent).await);
        }
        assert_eq!(sidecar.get("/healthz").await.0, 200, "{name}");
        sidecar.claim(message(&format!("c{n}"), &format!("SM2{n}"))).await;
        assert_eq!(claim(&mut filter, &format!("SM3{n}")).await, "HTTP/1.1 200 OK", "{name}");
    }
    let series = "twilio_edge_connections_refused_total{listener=\"main\",reason=\"listener\"}";
    assert!(sidecar.metric(series).await >= 300.0);
    assert!(sidecar.metric("twilio_edge_connections_open{listener=\"main\"}").await <= 64.0);
    // A caller with a good token gets through over HTTP/2 as well.
    let request = frame(HEADERS, END_HEADERS, 1, &fields("POST", EXCHANGE_PATH, Some(TOKEN)));
    let mut caller = opened(main, &[preface(65_535), request].concat()).await;
    let body = json!({"v": 1, "claims": [message("c9", "SM9")]}).to_string();
    caller.write_all(&frame(DATA, END_STREAM, 1, body.as_bytes())).await.unwrap();
    assert!(is_ok(&mut caller).await);
}

#[tokio::test]
async fn http2_connections_end() {
    let world = World::new(Kind::Sqlite).await;
    let settings = [
        ("TWILIO_EDGE_CONNECTIONS_HEADER_TIMEOUT_MS", "300"),
        ("TWILIO_EDGE_CONNECTIONS_IDLE_TIMEOUT_MS", "1000"),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    for (name, sent) in openings() {
        let mut stream = opened(place(&sidecar.base), &sent).await;
        // Frames that are no request give no more time.
        let (mut reading, mut writing) = stream.split();
        let pinging = async {
            while writing.write_all(&frame(PING, 0, 0, &[0; 8])).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = timeout(Duration::from_secs(20), async {
            tokio::select! {
                _ = until_closed(&mut reading) => {}
                () = pinging => {}
            }
        });
        assert!(ended.await.is_ok(), "{name}");
    }
    let count = async |what| timed_out(&sidecar, "main", what).await;
    // PING between HEADERS and its CONTINUATION is an error of the caller, which ends the second one at once.
    assert_eq!(count("headers").await, 1.0);
    assert_eq!(count("request").await, 2.0);
    assert_eq!(count("response").await, 1.0);
    // A HEADERS frame that never ends: the first request of a connection, and a later one.
    let health = fields("GET", "/healthz", None);
    let unfinished = [preface(65_535), frame(HEADERS, 0, 1, &health)].concat();
    until_closed(&mut opened(place(&sidecar.base), &unfinished).await).await;
    assert_eq!(count("headers").await, 2.0);
    let whole = [preface(65_535), frame(HEADERS, WHOLE, 1, &health)].concat();
    let mut later = opened(place(&sidecar.base), &whole).await;
    assert!(is_ok(&mut later).await);
    later.write_all(&frame(HEADERS, 0, 3, &health)).await.unwrap();
    until_closed(&mut later).await;
    // Connections of this test's own client may have ended by now as well.
    assert!(count("request").await >= 3.0);
    eventually("all of them are gone", async || {
        // The one that asks.
        sidecar.metric("twilio_edge_connections_open{listener=\"main\"}").await <= 1.0
    })
    .await;
}

#[tokio::test]
async fn http2_headers_that_never_end_are_cut() {
    let (world, health) = (World::new(Kind::Sqlite).await, fields("GET", "/healthz", None));
    let sidecar = world.sidecar().await;
    let mut stream =
        opened(place(&sidecar.base), &[preface(65_535), frame(HEADERS, 0, 1, &health)].concat())
            .await;
    let more = frame(CONTINUATION, 0, 1, &vec![0x82; 16_000]);
    let mut sent = 0;
    while stream.write_all(&more).await.is_ok() {
        sent += more.len();
        assert!(sent < 64 << 20, "the connection takes headers without end");
    }
    assert_eq!(sidecar.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn http2_rapid_reset_ends_the_connection() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let metrics = fields("GET", "/metrics", None);
    let cancel = 8_u32.to_be_bytes();
    let mut stream = opened(place(&sidecar.base), &preface(65_535)).await;
    let mut id = 1;
    let begun = Instant::now();
    let cut = loop {
        let mut burst = Vec::new();
        for _ in 0..500 {
            burst.extend(frame(HEADERS, WHOLE, id, &metrics));
            burst.extend(frame(RST_STREAM, 0, id, &cancel));
            id += 2;
        }
        if stream.write_all(&burst).await.is_err() {
            break true;
        }
        if begun.elapsed() > Duration::from_secs(20) {
            break false;
        }
    };
    assert!(cut, "{id} streams");
    assert_eq!(sidecar.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn http2_stranger_leaves_few_responses_unread() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let metrics = fields("GET", "/metrics", None);
    let mut sent = preface(0);
    for n in 0..100 {
        sent.extend(frame(HEADERS, WHOLE, 2 * n + 1, &metrics));
    }
    let mut stream = opened(place(&sidecar.base), &sent).await;
    let (mut served, mut refused) = (0, 0);
    while served + refused < 100 {
        let (flags, _, fields) = next(&mut stream, HEADERS).await.unwrap();
        match fields[0] == OK {
            true => served += 1,
            false => {
                assert_eq!(flags & END_STREAM, END_STREAM, "no body");
                refused += 1;
            }
        }
    }
    assert!((1..=40).contains(&served), "{served} bodies are kept for one stranger");
}

#[tokio::test]
async fn http2_shutdown_answers_what_is_under_way_and_waits_for_no_idle_caller() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let main = place(&sidecar.base).to_owned();
    let mut idle = Vec::new();
    for (_, sent) in openings() {
        idle.push(opened(&main, &sent).await);
    }
    let request = frame(HEADERS, END_HEADERS, 1, &fields("POST", EXCHANGE_PATH, Some(TOKEN)));
    let mut caller = opened(&main, &[preface(65_535), request].concat()).await;
    // The open connections of the listener include the idle ones and the caller's.
    eventually("all clients are connected", async || {
        sidecar.metric("twilio_edge_connections_open{listener=\"main\"}").await >= 6.0
    })
    .await;
    let body = json!({"v": 1, "claims": [message("c1", "SM1")]}).to_string();
    let (half, rest) = body.as_bytes().split_at(10);
    caller.write_all(&frame(DATA, 0, 1, half)).await.unwrap();
    caller.write_all(&frame(PING, 0, 0, &[1; 8])).await.unwrap();
    assert!(next(&mut caller, PING).await.is_some(), "the sidecar has read the first half");
    let stopping = tokio::task::spawn_blocking(move || sidecar.stop());
    assert!(next(&mut caller, GOAWAY).await.is_some());
    caller.write_all(&frame(DATA, END_STREAM, 1, rest)).await.unwrap();
    assert!(is_ok(&mut caller).await, "a request under way is answered");
    let log = stopping.await.unwrap();
    assert!(log.contains("sidecar.stopped"), "{log}");
    assert!(!log.contains("shutdown.requests_aborted"), "{log}");
    for stream in &mut idle {
        until_closed(stream).await;
    }
}
