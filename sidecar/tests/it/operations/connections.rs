//! Callers that only hold connections open: they block no other caller at any listener, and their connections end.

use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use twilio_edge_contract::EXCHANGE_PATH;

use crate::{
    support::servers::{eventually, free_port},
    support::sidecar::{Sidecar, TOKEN, message},
    support::world::{Kind, World},
};

/// The preface of HTTP/2 and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

pub(crate) fn place(base: &str) -> &str {
    base.strip_prefix("http://").unwrap()
}

/// Half a request on each of so many connections.
async fn half_open(address: &str, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The other end may have closed it already.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-half: ").await;
        open.push(stream);
    }
    open
}

/// Everything that comes until the other end closes the connection.
pub(crate) async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut all).await;
    all
}

/// A claim on this connection, which stays open; the status it is answered.
pub(crate) async fn claim(stream: &mut TcpStream, claim_id: &str) -> String {
    let body = json!({"v": 1, "claims": [message(claim_id, claim_id)]}).to_string();
    let head = format!(
        "POST {EXCHANGE_PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    answered(stream, head.as_bytes()).await
}

async fn answered(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 16 << 10];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    answer.lines().next().unwrap_or_default().to_owned()
}

pub(crate) async fn timed_out(sidecar: &Sidecar, listener: &str, waiting_for: &str) -> f64 {
    let labels = format!("listener=\"{listener}\",waiting_for=\"{waiting_for}\"");
    sidecar.metric(&format!("twilio_edge_connections_timed_out_total{{{labels}}}")).await
}

#[tokio::test]
async fn half_open_connections_block_no_other_caller() {
    let world = World::new(Kind::Sqlite).await;
    let bucket = format!("file://{}", world.directory.path().join("bucket").display());
    let links = format!("127.0.0.1:{}", free_port());
    let public = format!("http://{links}");
    // The limit of open files is the default of old shells, and less than the attacker's number of connections.
    let settings = [
        ("TWILIO_EDGE_MEDIA_STORE_URL", bucket.as_str()),
        ("TWILIO_EDGE_MEDIA_STORE_LISTEN", &links),
        ("TWILIO_EDGE_MEDIA_STORE_PUBLIC_URL", &public),
        ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", "a key of the tests, 32 characters"),
        // The long timeout ensures that only a lack of room closes connections here.
        ("TWILIO_EDGE_CONNECTIONS_HEADER_TIMEOUT_MS", "600000"),
        ("TWILIO_EDGE_CONNECTIONS_MAX_PER_ADDRESS", "40"),
    ];
    let sidecar = world.sidecar_under("ulimit -n 256", &settings).await;
    let mut filter = TcpStream::connect(place(&sidecar.base)).await.unwrap();
    assert_eq!(claim(&mut filter, "SM1").await, "HTTP/1.1 200 OK");
    let _main = half_open(place(&sidecar.base), 220).await;
    let admin = sidecar.admin();
    let _admin = half_open(place(&admin), 220).await;
    let _media = half_open(&links, 220).await;
    // From the same address: health, a claim on a new connection, the filter's own, and an administrator.
    assert_eq!(sidecar.get("/healthz").await.0, 200);
    sidecar.claim(message("c2", "SM2")).await;
    assert_eq!(
        claim(&mut filter, "SM3").await,
        "HTTP/1.1 200 OK",
        "the filter's connection stays open"
    );
    let keys = sidecar.client.get(format!("{admin}/v1/keys")).bearer_auth(TOKEN);
    assert_eq!(keys.send().await.unwrap().status(), 200);
    // A link is answered, although it leads to no medium.
    let link = sidecar.client.get(format!("{public}/media/md_1"));
    assert_eq!(link.send().await.unwrap().status(), 404);
    for listener in ["main", "admin", "media"] {
        let mut refused = 0.0;
        for reason in ["address", "listener"] {
            let labels = format!("listener=\"{listener}\",reason=\"{reason}\"");
            let series = format!("twilio_edge_connections_refused_total{{{labels}}}");
            refused += sidecar.metric(&series).await;
        }
        assert!(refused >= 150.0, "{listener}: {refused}");
        let open = format!("twilio_edge_connections_open{{listener=\"{listener}\"}}");
        assert!(sidecar.metric(&open).await <= 64.0, "{listener}: half of its open files, shared");
    }
    assert!(sidecar.log().contains("connections.capped"), "{}", sidecar.log());
}

#[tokio::test]
async fn full_listener_accepts_the_next_connection() {
    let world = World::new(Kind::Sqlite).await;
    let settings = [
        ("TWILIO_EDGE_CONNECTIONS_HEADER_TIMEOUT_MS", "600000"),
        ("TWILIO_EDGE_CONNECTIONS_MAX", "16"),
        ("TWILIO_EDGE_CONNECTIONS_MAX_PER_ADDRESS", "16"),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    // Filters that keep half of it open.
    let mut filters = Vec::new();
    for n in 0..8 {
        let mut filter = TcpStream::connect(place(&sidecar.base)).await.unwrap();
        assert_eq!(claim(&mut filter, &format!("SM{n}")).await, "HTTP/1.1 200 OK");
        filters.push(filter);
    }
    let _strangers = half_open(place(&sidecar.base), 60).await;
    assert_eq!(sidecar.get("/healthz").await.0, 200);
    for (n, filter) in filters.iter_mut().enumerate() {
        assert_eq!(claim(filter, &format!("SM2{n}")).await, "HTTP/1.1 200 OK");
    }
}

#[tokio::test]
async fn request_without_complete_headers_times_out() {
    let world = World::new(Kind::Sqlite).await;
    let bucket = format!("file://{}", world.directory.path().join("bucket").display());
    let links = format!("127.0.0.1:{}", free_port());
    let public = format!("http://{links}");
    let settings = [
        ("TWILIO_EDGE_CONNECTIONS_HEADER_TIMEOUT_MS", "200"),
        ("TWILIO_EDGE_MEDIA_STORE_URL", bucket.as_str()),
        ("TWILIO_EDGE_MEDIA_STORE_LISTEN", &links),
        ("TWILIO_EDGE_MEDIA_STORE_PUBLIC_URL", &public),
        ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", "a key of the tests, 32 characters"),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    let admin = sidecar.admin();
    for (base, listener) in [(&sidecar.base, "main"), (&admin, "admin"), (&public, "media")] {
        for sent in [&b""[..], b"G", b"GET /healthz HTTP/1.1\r\nhost:", b"PRI * HTTP/2", HTTP2] {
            let mut stream = TcpStream::connect(place(base)).await.unwrap();
            stream.write_all(sent).await.unwrap();
            until_closed(&mut stream).await;
        }
        assert_eq!(timed_out(&sidecar, listener, "headers").await, 5.0, "{listener}");
    }
    // A caller that drips gets no more time than one that is silent.
    let mut stream = TcpStream::connect(place(&sidecar.base)).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let dripping = async {
        loop {
            if stream.write_all(b"x-drip: 1\r\n").await.is_err() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    dripping.await;
    // Nor is the second request of a connection another matter.
    let mut stream = TcpStream::connect(place(&sidecar.base)).await.unwrap();
    let first = answered(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(first, "HTTP/1.1 200 OK");
    stream.write_all(b"GET /heal").await.unwrap();
    until_closed(&mut stream).await;
    assert_eq!(timed_out(&sidecar, "main", "headers").await, 7.0);
}

#[tokio::test]
async fn idle_connection_ends_unless_its_caller_is_known() {
    let world = World::new(Kind::Sqlite).await;
    let settings = [("TWILIO_EDGE_CONNECTIONS_IDLE_TIMEOUT_MS", "1000")];
    let sidecar = world.sidecar_with(&settings).await;
    let mut filter = TcpStream::connect(place(&sidecar.base)).await.unwrap();
    assert_eq!(claim(&mut filter, "SM1").await, "HTTP/1.1 200 OK");
    for request in [
        "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        format!(
            "POST {EXCHANGE_PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer guess\r\ncontent-length: 0\r\n\r\n"
        ),
    ] {
        let mut stranger = TcpStream::connect(place(&sidecar.base)).await.unwrap();
        stranger.write_all(request.as_bytes()).await.unwrap();
        let answer = until_closed(&mut stranger).await;
        assert!(answer.starts_with(b"HTTP/1.1 "), "answered, and closed later");
    }
    assert_eq!(timed_out(&sidecar, "main", "request").await, 2.0);
    // Idle for longer than both of them.
    assert_eq!(claim(&mut filter, "SM2").await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn sockets_of_the_file_system_have_the_same_limits() {
    let world = World::new(Kind::Sqlite).await;
    let path = world.directory.path().join("admin.sock");
    let listen = format!("unix:{}", path.display());
    let settings = [
        ("TWILIO_EDGE_ADMIN_LISTEN", listen.as_str()),
        ("TWILIO_EDGE_CONNECTIONS_HEADER_TIMEOUT_MS", "200"),
        ("TWILIO_EDGE_CONNECTIONS_MAX", "16"),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let _ = stream.write_all(b"GET /v1/keys HTTP/1.1\r\n").await;
        streams.push(stream);
    }
    let mut caller = UnixStream::connect(&path).await.unwrap();
    let request = format!(
        "GET /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
    );
    caller.write_all(request.as_bytes()).await.unwrap();
    assert!(until_closed(&mut caller).await.starts_with(b"HTTP/1.1 200 "));
    for stream in &mut streams {
        until_closed(stream).await;
    }
    eventually("all of them are gone", async || {
        sidecar.metric("twilio_edge_connections_open{listener=\"admin\"}").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn headers_have_a_largest_size() {
    let (world, large) = (World::new(Kind::Sqlite).await, "x".repeat(70_000));
    let sidecar = world.sidecar().await;
    let mut stream = TcpStream::connect(place(&sidecar.base)).await.unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-large: {large}\r\n\r\n");
    // It may be refused before all of it is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let answer = until_closed(&mut stream).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(sidecar.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn shutdown_answers_requests_in_progress_and_closes_idle_connections() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let _half = half_open(place(&sidecar.base), 3).await;
    let mut filter = TcpStream::connect(place(&sidecar.base)).await.unwrap();
    assert_eq!(claim(&mut filter, "SM1").await, "HTTP/1.1 200 OK");
    let log = sidecar.stop();
    assert!(log.contains("sidecar.stopped"), "{log}");
    assert!(!log.contains("shutdown.requests_aborted"), "{log}");
    assert!(until_closed(&mut filter).await.is_empty());
}
