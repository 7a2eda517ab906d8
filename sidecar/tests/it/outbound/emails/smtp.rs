//! E-mails through a mail server, and SendGrid's own library as the judge of signatures.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::Shop;
use crate::{
    access::api_keys::coded,
    support::{
        servers::{Guarded, eventually, free_port},
        sidecar::ACCOUNT,
        simulator::Simulator,
        world::{World, on_every_store},
    },
};

on_every_store! {
    mail_server_gets_each_email_once,
}

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(super) fn python() -> PathBuf {
    root().join(".tools/email/bin/python")
}

pub(super) fn script(name: &str) -> PathBuf {
    root().join("sidecar/tests/it/outbound/emails").join(name)
}

/// Returns the verdict of SendGrid's library about a signed body.
pub(super) fn judged_by_send_grid(signed: &Value, body: &str) -> String {
    let mut judge = Command::new(python())
        .arg(script("verify_events.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut post = signed.clone();
    post["body"] = json!(body);
    judge.stdin.take().unwrap().write_all(post.to_string().as_bytes()).unwrap();
    let output = judge.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Mail server, and the messages that it accepted.
struct MailServer {
    _process: Guarded,
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    async fn start() -> MailServer {
        let port = free_port();
        let (script, text) = (script("mail_server.py"), port.to_string());
        let args = [script.to_str().unwrap(), &text];
        // The lines of the server are its standard output; the shell moves them to the piped standard error.
        let command = format!("exec '{}' \"$0\" \"$1\" 1>&2", python().display());
        let mut process = Guarded::start(
            Path::new("sh"),
            &["-c", &command, args[0], args[1]],
            &[],
            "KILL",
            None,
            Stdio::piped(),
        );
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, all) = (process.stderr(), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                all.lock().unwrap().push(line);
            }
        });
        let server = MailServer { _process: process, port, lines };
        eventually("the mail server listens", async || {
            server.lines.lock().unwrap().iter().any(|line| line == "ready")
        })
        .await;
        server
    }

    fn messages_to(&self, to: &str) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let messages = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        messages.filter(|message| message["to"][0] == to).collect()
    }
}

async fn mail_server_gets_each_email_once(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let server = MailServer::start().await;
    let accounts = format!(
        "[[account]]\nsid = \"{ACCOUNT}\"\nprovider = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"shop@example.com\"\nfrom_name = \"Sh\u{f6}p\"\n",
        server.port
    );
    let shop = Shop::with(&world, &accounts, &simulator).await;
    let id = shop.send("ava@example.com").await;
    let email = shop.wait_for(&id, "state", "sent").await;
    let got = server.messages_to("ava@example.com");
    assert_eq!(got.len(), 1);
    let text = got[0]["text"].as_str().unwrap();
    assert!(text.contains(&format!("Message-ID: <{id}@example.com>")), "{text}");
    assert!(text.contains("Subject: Your order") && text.contains("It is on its way."), "{text}");
    assert_eq!(email["sid"], format!("{id}@example.com"));

    // The server refuses a recipient for good, or the whole e-mail, or for a while; or its answer is lost.
    for (to, state, code) in [
        ("missing@example.com", "refused", "email_bounced"),
        ("large@example.com", "refused", "email_refused"),
        ("later@example.com", "queued", "smtp_later"),
        ("lost@example.com", "unknown", "unknown"),
    ] {
        let id = shop.send(to).await;
        let place = format!("/v1/messages/{id}");
        eventually(&format!("{to} is {state}"), async || {
            let email = shop.app().get(&place).await;
            email["state"] == state && email["error"]["code"] == code
        })
        .await;
    }
    assert_eq!(server.messages_to("lost@example.com").len(), 1);
    let again = json!({"to": "missing@example.com", "subject": "x", "text": "x"});
    let refusal = shop.app().refusal(reqwest::Method::POST, "/v1/emails", &again).await;
    assert_eq!(refusal, coded(409, "suppressed"));
    let template = json!({"to": "ava@example.com", "template_id": format!("d-{}", "0".repeat(32)), "category": "service"});
    let refusal = shop.app().refusal(reqwest::Method::POST, "/v1/emails", &template).await;
    assert_eq!(refusal, coded(409, "content_rejected"));
}
