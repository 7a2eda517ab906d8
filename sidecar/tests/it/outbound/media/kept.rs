//! Uploaded media: stored in a bucket, sent to Twilio as a link that is created for each call, fetched by Twilio, and deleted
//! by an erasure or by retention.

use std::{path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, process::Command};

use super::server::PNG;
use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::OTHER,
    inbound::deliveries::command,
    operations::archives::Objects,
    outbound::sending::{Twilio, started_with},
    support::servers::{eventually, eventually_within, free_port},
    support::sidecar::{ACCOUNT, Sidecar},
    support::world::{Kind, World, on_every_store},
};

on_every_store! {
    stored_media_are_sent_by_a_link_and_deleted,
    kept_media_run_no_scripts,
}

const KEY: &str = "a key of the tests, 32 characters";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Fetches a medium as Twilio does, with Python's `requests`.
async fn fetch(url: &str, is_ours: bool) {
    let arguments =
        json!({"url": url, "type": "image/png", "ours": is_ours, "bytes": STANDARD.encode(PNG)});
    let fetched = Command::new(root().join(".venv/bin/python"))
        .arg(root().join("sidecar/tests/it/outbound/media/fetch.py"))
        .arg(arguments.to_string())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&fetched.stderr);
    assert!(fetched.status.success(), "run `make setup-test` if requests is missing: {said}");
    assert_eq!(String::from_utf8_lossy(&fetched.stdout).trim(), "fetched");
}

async fn upload(
    sidecar: &Sidecar,
    token: &str,
    kind: &str,
    key: &str,
    bytes: impl Into<reqwest::Body>,
) -> (u16, bool, Value) {
    let asked = sidecar.client.post(format!("{}/v1/media", sidecar.base)).bearer_auth(token);
    let asked = asked.header("content-type", kind).header("idempotency-key", key).body(bytes);
    let answer = asked.send().await.unwrap();
    let is_copy = answer.headers().contains_key("idempotent-replayed");
    (answer.status().as_u16(), is_copy, answer.json().await.unwrap())
}

async fn status(sidecar: &Sidecar, url: &str) -> StatusCode {
    sidecar.client.get(url).send().await.unwrap().status()
}

fn message(to: &str, media: &Value) -> Value {
    json!({"to": to, "from": "+15557654321", "media": [{"id": media["id"]}]})
}

/// Asks for it, and waits until Twilio has it; by which link.
async fn sent(app: &Caller<'_>, twilio: &Twilio, wanted: &Value) -> String {
    let before = twilio.made.lock().unwrap().len();
    let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    let status = answer.status();
    let taken: Value = answer.json().await.unwrap();
    assert_eq!(status, 202, "{taken}");
    eventually("it is sent", async || twilio.made.lock().unwrap().len() > before).await;
    twilio.made.lock().unwrap()[before].1["MediaUrl"].clone()
}

fn objects(folder: &Path) -> usize {
    let entries = |path: &Path| {
        std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    entries(&folder.join("media")).iter().map(|account| entries(account).len()).sum()
}

async fn kept_media_run_no_scripts(world: World) {
    let (url, _) = Twilio::start().await;
    let bucket = format!("file://{}", world.directory.path().join("bucket").display());
    let listen = format!("127.0.0.1:{}", free_port());
    let public = format!("http://{listen}");
    let settings = [
        ("TWILIO_EDGE_MEDIA_STORE_URL", bucket.as_str()),
        ("TWILIO_EDGE_MEDIA_STORE_LISTEN", &listen),
        ("TWILIO_EDGE_MEDIA_STORE_PUBLIC_URL", &public),
        ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", KEY),
    ];
    let sidecar = started_with(&world, &url, &settings).await;
    let admin = administrator(&sidecar).await;
    let token = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";
    let page = "<!doctype html><script>alert(1)</script>";
    let kinds: [(&str, Vec<u8>, Option<&str>); 4] = [
        ("image/png", PNG.to_vec(), None),
        ("image/svg+xml", svg.into(), Some("svg")),
        ("text/html", page.into(), Some("html")),
        ("text/vcard", "BEGIN:VCARD\r\nEND:VCARD\r\n".into(), Some("vcard")),
    ];
    for (n, (kind, bytes, ending)) in kinds.into_iter().enumerate() {
        let (status, _, kept) = upload(&sidecar, &token, kind, &format!("k{n}"), bytes).await;
        assert_eq!(status, 201, "{kind}: {kept}");
        let link = kept["url"].as_str().unwrap();
        for method in [Method::GET, Method::HEAD] {
            let answer = sidecar.client.request(method, link).send().await.unwrap();
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(header("content-type"), kind);
            assert_eq!(header("content-security-policy"), "default-src 'none'; sandbox");
            assert_eq!(header("x-content-type-options"), "nosniff");
            let expected = match ending {
                None => "inline".to_owned(),
                Some(ending) => {
                    let id = kept["id"].as_str().unwrap();
                    format!("attachment; filename=\"{id}.{ending}\"")
                }
            };
            assert_eq!(header("content-disposition"), expected, "{kind}");
        }
    }
}

async fn stored_media_are_sent_by_a_link_and_deleted(world: World) {
    let (url, twilio) = Twilio::start().await;
    let folder = world.directory.path().join("bucket");
    let bucket = format!("file://{}", folder.display());
    let listen = format!("127.0.0.1:{}", free_port());
    let public = format!("http://{listen}");
    let settings = [
        ("TWILIO_EDGE_MEDIA_STORE_URL", bucket.as_str()),
        ("TWILIO_EDGE_MEDIA_STORE_LISTEN", &listen),
        ("TWILIO_EDGE_MEDIA_STORE_PUBLIC_URL", &public),
        ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", KEY),
        ("TWILIO_EDGE_REDACTION_EVERY_S", "1"),
    ];
    let sidecar = started_with(&world, &url, &settings).await;
    let admin = administrator(&sidecar).await;
    let token = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &token);

    let (made, _, one) = upload(&sidecar, &token, "image/png", "k1", PNG).await;
    assert_eq!(
        (made, &one["bytes"], &one["content_type"]),
        (201, &json!(PNG.len()), &json!("image/png")),
        "{one}"
    );
    let copy = upload(&sidecar, &token, "image/png", "k1", PNG).await;
    assert_eq!(copy, (201, true, one.clone()));
    assert_eq!(objects(&folder), 1, "a copy is no second one");
    fetch(one["url"].as_str().unwrap(), true).await;
    let place = format!("/v1/media/{}", one["id"].as_str().unwrap());
    assert_eq!(app.get(&place).await["digest"], one["digest"]);

    // Invalid media are not stored, and another account cannot read, delete or send the stored medium.
    let refused = async |kind: &str, bytes: Vec<u8>| {
        let (status, _, body) = upload(&sidecar, &token, kind, "k2", bytes).await;
        (status, body["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(refused("image/jpeg", PNG.to_vec()).await, coded(409, "media_rejected"));
    assert_eq!(refused("image", PNG.to_vec()).await, coded(400, "malformed_request"));
    assert_eq!(refused("image/png", Vec::new()).await, coded(400, "malformed_request"));
    assert_eq!(refused("image/png", vec![0; (16 << 20) + 1]).await, coded(413, "body_too_large"));
    assert_eq!(objects(&folder), 1);
    let (_, theirs) = admin.create("app", Some(OTHER), "theirs").await;
    let theirs = Caller::app(&sidecar, &theirs);
    let nothing = coded(404, "no_such_media");
    assert_eq!(theirs.refusal(Method::GET, &place, &json!(null)).await, nothing);
    assert_eq!(theirs.refusal(Method::DELETE, &place, &json!(null)).await, nothing);
    let stolen = message("+15550001234", &one);
    assert_eq!(theirs.refusal(Method::POST, "/v1/messages", &stolen).await.0, 409);

    // The link is made when Twilio is called, not when it was asked for.
    let mut later = message("+15550001234", &one);
    let at = jiff::Timestamp::now() + Duration::from_secs(2);
    later["send_at"] = json!(at.to_string());
    let link = sent(&app, &twilio, &later).await;
    let expires = link.split_once("expires=").unwrap().1.split('&').next().unwrap();
    assert!(expires.parse::<i64>().unwrap() >= at.as_second() + 900, "{link}");
    fetch(&link, true).await;
    assert_eq!(
        app.refusal(Method::POST, "/v1/messages", &message("whatsapp:+15550001234", &one)).await.0,
        409
    );
    let unknown = message("+15550001234", &json!({"id": format!("md_{}", "0".repeat(32))}));
    assert_eq!(
        app.refusal(Method::POST, "/v1/messages", &unknown).await,
        coded(409, "media_rejected")
    );

    // The erasure of a contact deletes media that were sent to this contact alone. Media that others received stay.
    let (_, _, alone) = upload(&sidecar, &token, "image/png", "k3", PNG).await;
    let alone_link = sent(&app, &twilio, &message("+15550001234", &alone)).await;
    sent(&app, &twilio, &message("+15550005678", &one)).await;
    let forget = json!({"account_sid": ACCOUNT, "number": "+15550001234"});
    let erasure = admin.send(Method::POST, "/v1/redactions", forget.to_string()).await;
    assert!(erasure.status().is_success(), "{:?}", erasure.text().await);
    assert_eq!(
        (status(&sidecar, &alone_link).await, status(&sidecar, &link).await),
        (StatusCode::NOT_FOUND, StatusCode::OK)
    );
    eventually("the object of the deleted medium is gone", async || objects(&folder) == 1).await;
    let uses = world.stored("SELECT recipient FROM media_uses").await;
    assert_eq!(uses, ["+15550005678"]);

    // Taken back: a message that waits with it is refused.
    let mut waits = message("+15550009999", &one);
    waits["send_at"] = json!((jiff::Timestamp::now() + Duration::from_secs(2)).to_string());
    let taken: Value =
        app.send(Method::POST, "/v1/messages", waits.to_string()).await.json().await.unwrap();
    assert_eq!(app.send(Method::DELETE, &place, String::new()).await.status(), 204);
    assert_eq!(status(&sidecar, &link).await, StatusCode::NOT_FOUND);
    eventually("the object of the deleted medium is gone", async || objects(&folder) == 0).await;
    let waiting = taken["links"]["self"].as_str().unwrap();
    eventually("it is refused", async || {
        app.get(waiting).await["error"]["code"] == "media_rejected"
    })
    .await;

    // And what has had its time.
    let (_, _, old) = upload(&sidecar, &token, "image/png", "k4", PNG).await;
    let id = old["id"].as_str().unwrap();
    world
        .stored(&format!("UPDATE media SET expires_at_ms = 1 WHERE id = '{id}' RETURNING id"))
        .await;
    eventually("it is gone", async || {
        objects(&folder) == 0 && world.stored("SELECT id FROM media").await.is_empty()
    })
    .await;
    let log = sidecar.stop();
    assert!(!log.contains(KEY) && !log.contains("sig="), "{log}");
}

#[tokio::test]
async fn bucket_signs_its_links() {
    let world = World::new(Kind::Sqlite).await;
    let mut s3 = Objects::to_come("s3");
    s3.start().await;
    let endpoint = s3.endpoint();
    let (url, twilio) = Twilio::start().await;
    let credentials = world.directory.path().join("credentials");
    std::fs::write(&credentials, "aws_access_key_id = AKIA\naws_secret_access_key = hush\n")
        .unwrap();
    let settings = [
        ("TWILIO_EDGE_MEDIA_STORE_URL", "s3://edge/pictures"),
        ("TWILIO_EDGE_MEDIA_STORE_ENDPOINT", &endpoint),
        ("TWILIO_EDGE_MEDIA_STORE_REGION", "us-east-1"),
        ("TWILIO_EDGE_MEDIA_STORE_CREDENTIALS_FILE", credentials.to_str().unwrap()),
        ("TWILIO_EDGE_REDACTION_EVERY_S", "1"),
    ];
    let sidecar = started_with(&world, &url, &settings).await;
    let root = administrator(&sidecar).await;
    let token = root.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &token);
    let (made, _, one) = upload(&sidecar, &token, "image/png", "k1", PNG).await;
    assert_eq!(made, 201, "{one}");
    let shown = one["url"].as_str().unwrap();
    assert!(shown.starts_with(&format!("{endpoint}/edge/pictures/media/{ACCOUNT}/md_")), "{shown}");
    assert!(shown.contains("X-Amz-Expires=900") && shown.contains("X-Amz-Signature="), "{shown}");
    let link = sent(&app, &twilio, &message("+15550001234", &one)).await;
    for url in [shown, &link] {
        fetch(url, false).await;
    }
    // The bucket answers without our Content-Security-Policy. Therefore links and objects say `attachment`, so that a browser
    // downloads the medium, and a link cannot be changed.
    let page = "<!doctype html><script>alert(1)</script>";
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";
    let kinds =
        [("image/png", PNG.to_vec()), ("text/html", page.into()), ("image/svg+xml", svg.into())];
    for (n, (kind, bytes)) in kinds.into_iter().enumerate() {
        let (made, _, kept) = upload(&sidecar, &token, kind, &format!("p{n}"), bytes).await;
        assert_eq!(made, 201, "{kind}: {kept}");
        let (link, id) = (kept["url"].as_str().unwrap(), kept["id"].as_str().unwrap());
        let ending = kind.split('/').nth(1).unwrap().split('+').next().unwrap();
        let expected = format!("attachment; filename=\"{id}.{ending}\"");
        let answer = sidecar.client.get(link).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(answer.status(), StatusCode::OK, "{link}");
        assert_eq!(header("content-disposition"), expected, "{link}");
        assert_eq!(header("content-type"), kind, "{link}");
        // This server answers with what is stored, others with what the link says.
        for parameter in ["response-content-disposition=attachment%3B", "response-content-type="] {
            assert!(link.contains(parameter), "{link}");
        }
    }
    command(&world, &["redact", "--account", ACCOUNT, "--number", "+15550001234"]);
    // 404 from S3; this server takes a link to nothing for a wrong one if it has parameters of its own.
    eventually("the object of the deleted medium is gone", async || {
        status(&sidecar, &link).await.is_client_error()
    })
    .await;
    let log = sidecar.stop();
    assert!(!log.contains("X-Amz-Signature") && !log.contains("hush"), "{log}");
}

/// A bucket of S3's, and links of ours to what is in it.
async fn linking(world: &World, s3: &Objects, twilio: &str) -> Sidecar {
    let credentials = world.directory.path().join("credentials");
    std::fs::write(&credentials, "aws_access_key_id = AKIA\naws_secret_access_key = hush\n")
        .unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let settings = [
        ("TWILIO_EDGE_MEDIA_STORE_URL", "s3://edge/pictures"),
        ("TWILIO_EDGE_MEDIA_STORE_ENDPOINT", &s3.endpoint()),
        ("TWILIO_EDGE_MEDIA_STORE_REGION", "us-east-1"),
        ("TWILIO_EDGE_MEDIA_STORE_CREDENTIALS_FILE", credentials.to_str().unwrap()),
        ("TWILIO_EDGE_MEDIA_STORE_LISTEN", &listen),
        ("TWILIO_EDGE_MEDIA_STORE_PUBLIC_URL", &format!("http://{listen}")),
        ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", KEY),
    ];
    started_with(world, twilio, &settings).await
}

#[tokio::test]
async fn unavailable_bucket_refuses_media_without_hanging() {
    let world = World::new(Kind::Sqlite).await;
    let mut s3 = Objects::to_come("s3");
    s3.start().await;
    let (url, twilio) = Twilio::start().await;
    let sidecar = linking(&world, &s3, &url).await;
    let root = administrator(&sidecar).await;
    let token = root.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &token);
    let (made, _, before) = upload(&sidecar, &token, "image/png", "k1", PNG).await;
    assert_eq!(made, 201, "{before}");
    s3.kill();

    let (status, _, problem) = upload(&sidecar, &token, "image/png", "k2", PNG).await;
    assert_eq!((status, &problem["code"]), (503, &json!("unavailable")), "{problem}");
    let link = before["url"].as_str().unwrap();
    let response = sidecar.client.get(link).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    // A message with the medium is sent nevertheless: Twilio fetches the medium and retries.
    let sent = sent(&app, &twilio, &message("+15550001234", &before)).await;
    assert!(sent.starts_with(link.split_once('?').unwrap().0), "{sent}");

    s3.start().await;
    let (made, is_copy, after) = upload(&sidecar, &token, "image/png", "k2", PNG).await;
    assert_eq!((made, is_copy), (201, false), "{after}");
    fetch(after["url"].as_str().unwrap(), true).await;
    let log = sidecar.stop();
    assert!(log.contains("media.bucket_failed"), "{log}");
}

#[tokio::test]
async fn stalled_media_download_is_dropped() {
    let world = World::new(Kind::Sqlite).await;
    let mut s3 = Objects::to_come("s3");
    s3.start().await;
    let (url, _) = Twilio::start().await;
    let sidecar = linking(&world, &s3, &url).await;
    let root = administrator(&sidecar).await;
    let token = root.create("app", Some(ACCOUNT), "shop").await.1;
    let large = [PNG, &vec![0; 15 << 20]].concat();
    let (made, _, one) = upload(&sidecar, &token, "image/png", "k1", large).await;
    assert_eq!(made, 201, "{one}");
    let link = one["url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let (address, path) = link.split_once('/').unwrap();
    let mut stalled = TcpStream::connect(address).await.unwrap();
    let asked = format!("GET /{path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stalled.write_all(asked.as_bytes()).await.unwrap();
    stalled.readable().await.unwrap();
    let [there, here] = [stalled.peer_addr().unwrap(), stalled.local_addr().unwrap()]
        .map(|address| format!(":{:04X} ", address.port()));
    // The stalled client cannot see the end of the connection, so the test looks for the sidecar's socket in the kernel's table.
    let is_held = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().any(|line| {
            let (local, remote) = line.split_at(line.len().min(20));
            local.contains(&there) && remote.contains(&here)
        })
    };
    assert!(is_held());
    // The sidecar drops the connection after 20 seconds, and the kernel may take as long again.
    eventually_within(Duration::from_secs(60), "the sidecar drops the connection", async || {
        !is_held()
    })
    .await;
}

#[tokio::test]
async fn unusable_media_store_prevents_the_start() {
    let folder = tempfile::TempDir::new().unwrap();
    let bucket = format!("file://{}", folder.path().display());
    for (settings, problem) in [
        (
            &[("URL", bucket.as_str())][..],
            "media.store.public_url: missing; a folder hands out no links",
        ),
        (&[("URL", "ftp://a")], "media.store.url: must be s3://"),
        (&[("PUBLIC_URL", "https://a.example")], "media.store.url: missing"),
        (
            &[("URL", "s3://a"), ("LINK_TTL_S", "599")],
            "media.store.link_ttl_s: must be 600 to 604800",
        ),
        (
            &[("URL", bucket.as_str()), ("PUBLIC_URL", "https://a.example"), ("LINK_KEY", "short")],
            "media.store.link_key: must have 32 characters or more",
        ),
    ] {
        let set = settings
            .iter()
            .map(|(name, value)| (format!("TWILIO_EDGE_MEDIA_STORE_{name}"), (*value).to_owned()));
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
            .args(["serve", "--config", "/dev/null"])
            .current_dir(folder.path())
            .env("TWILIO_EDGE_TOKEN", crate::support::sidecar::TOKEN)
            .env("TWILIO_EDGE_ADMIN_LISTEN", "off")
            .env("TWILIO_EDGE_HTTP_REQUEST_TIMEOUT_MS", "0")
            .env("TWILIO_EDGE_LISTEN", "127.0.0.1:0")
            .envs(set)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(problem), "{problem}: {said}");
        assert!(!said.contains("short"), "{said}");
    }
}

#[tokio::test]
async fn shutdown_finishes_a_response_that_is_being_read() {
    let world = World::new(Kind::Sqlite).await;
    let (url, _) = Twilio::start().await;
    let bucket = format!("file://{}", world.directory.path().join("bucket").display());
    let listen = format!("127.0.0.1:{}", free_port());
    let public = format!("http://{listen}");
    let settings = [
        ("TWILIO_EDGE_MEDIA_STORE_URL", bucket.as_str()),
        ("TWILIO_EDGE_MEDIA_STORE_LISTEN", &listen),
        ("TWILIO_EDGE_MEDIA_STORE_PUBLIC_URL", &public),
        ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", KEY),
        ("TWILIO_EDGE_HTTP_SHUTDOWN_TIMEOUT_MS", "60000"),
    ];
    let sidecar = started_with(&world, &url, &settings).await;
    let token = administrator(&sidecar).await.create("app", Some(ACCOUNT), "shop").await.1;
    let large = [PNG, &vec![0; 15 << 20]].concat();
    let size = large.len();
    let (made, _, one) = upload(&sidecar, &token, "image/png", "k1", large).await;
    assert_eq!(made, 201, "{one}");
    let mut answer = sidecar.client.get(one["url"].as_str().unwrap()).send().await.unwrap();
    let mut read = answer.chunk().await.unwrap().unwrap().len();
    let stopping = tokio::task::spawn_blocking(move || sidecar.stop());
    eventually("it takes no more callers", async || TcpStream::connect(&listen).await.is_err())
        .await;
    // A caller that takes three seconds, longer than any grace of a connection.
    let mut paused = Duration::ZERO;
    while let Some(chunk) = answer.chunk().await.unwrap() {
        read += chunk.len();
        if paused < Duration::from_secs(3) {
            paused += Duration::from_millis(50);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(read, size);
    let log = stopping.await.unwrap();
    assert!(log.contains("sidecar.stopped") && !log.contains("shutdown.requests_aborted"), "{log}");
}
