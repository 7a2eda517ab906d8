//! Commands that show text of strangers: no stored control, bidirectional or invisible character reaches the terminal.

use std::{path::Path, process::Command};

use reqwest::Method;
use serde_json::json;

use crate::{
    access::api_keys::{Caller, administrator},
    inbound::deliveries::{accepted, sinks},
    outbound::sending::{Twilio, started_with},
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, inbound},
    support::world::{Kind, World},
};

/// Clears the screen, turns the rest around, hides a part, begins a line of its own.
const HOSTILE: &str = "\u{1b}[2J\u{9b}31m\u{202e}evil\u{200b}\u{7}\r\nforged line\t=1";

/// Appearance of each hostile part in text and in JSON.
const ESCAPED: [&str; 4] = ["\\u001b[2J", "\\u009b31m", "\\u202eevil", "\\u200b\\u0007"];

const NUMBER: &str = "+15550001234";

fn is_hazardous(letter: char) -> bool {
    let is_invisible = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    (letter.is_control() && !matches!(letter, '\n' | '\t')) || is_invisible
}

/// Everything a command writes, to both outputs.
fn written(world: &World, arguments: &[&str], on_a_terminal: bool) -> (bool, String) {
    let program = env!("CARGO_BIN_EXE_twilio-edge");
    let mut command = match on_a_terminal {
        false => Command::new(program),
        true => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
            let mut python = Command::new(root.join(".venv/bin/python"));
            let spawn =
                "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
            python.args(["-c", spawn, program]);
            python
        }
    };
    let output = command
        .args(arguments)
        .env("DATABASE_URL", &world.database_url)
        .current_dir(world.directory.path())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    // A terminal ends each line with both.
    (output.status.success(), if on_a_terminal { text.replace("\r\n", "\n") } else { text })
}

/// A ledger in which every text that a stranger, a receiver or an administrator can choose is hostile.
async fn hostile_ledger(world: &World) {
    let (url, twilio) = Twilio::start().await;
    let receiver = Receiver::start().await;
    receiver.answers(|_| 422);
    let file = sinks(world, &[("app", &receiver, "")]);
    let sidecar = started_with(world, &url, &[("TWILIO_EDGE_SINKS_FILE", &file)]).await;
    let mut claim = accepted(inbound("c1", "SM00112233445566778899aabbccddeeff", NUMBER, HOSTILE));
    let name: String = form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    claim.form += &format!("&ProfileName={name}&ButtonText={name}");
    sidecar.claim(claim).await;
    let admin = administrator(&sidecar).await;
    let token = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &token);
    for (path, wanted) in [
        (
            "/v1/consents",
            json!({"number": NUMBER, "category": "utility", "source": "form", "proof": "p"}),
        ),
        ("/v1/messages", json!({"to": NUMBER, "from": "+15557654321", "body": HOSTILE})),
    ] {
        let answer = app.send(Method::POST, path, wanted.to_string()).await;
        assert!(answer.status().is_success(), "{path}: {:?}", answer.text().await);
    }
    for (path, said) in [
        (format!("/v1/tenants/{ACCOUNT}"), json!({"friendly_name": "Shop"})),
        (
            format!("/v1/templates/hello/en?account_sid={ACCOUNT}"),
            json!({"content_sid": format!("HX{}", "0".repeat(32)), "text": "Hello"}),
        ),
    ] {
        let answer = admin.send(Method::PUT, &path, said.to_string()).await;
        assert!(answer.status().is_success(), "{path}: {:?}", answer.text().await);
    }
    eventually("it is sent and given up", async || {
        !twilio.made.lock().unwrap().is_empty()
            && !world.stored("SELECT sink FROM deliveries WHERE state = 'dead'").await.is_empty()
            && !world
                .stored("SELECT id FROM outbound_messages WHERE state = 'sent'")
                .await
                .is_empty()
    })
    .await;
    // From now on nothing is sent there.
    let number = json!({"number": NUMBER});
    let answer = app.send(Method::POST, "/v1/suppressions", number.to_string()).await;
    assert!(answer.status().is_success(), "{:?}", answer.text().await);
    sidecar.stop();
    // What the API would refuse may still be there, from Twilio, a receiver or another release.
    for (table, columns) in [
        ("consents", &["source", "proof", "user_agent", "recorded_by"][..]),
        ("suppressions", &["sender", "changed_by"]),
        ("api_keys", &["name", "created_by"]),
        ("tenants", &["friendly_name"]),
        ("templates", &["name", "reason", "text"]),
        ("deliveries", &["reason"]),
        ("outbound_messages", &["sender", "reason", "created_by"]),
    ] {
        let set: Vec<String> =
            columns.iter().map(|column| format!("{column} = '{HOSTILE}'")).collect();
        let changed = format!("UPDATE {table} SET {} RETURNING '1'", set.join(", "));
        assert!(!world.stored(&changed).await.is_empty(), "{table}");
    }
    // The id is no longer the digest of the record: pages must end all the same.
    let last = "UPDATE consents SET id = 'ffffffffffffffffffffffffffffffff' RETURNING '1'";
    assert!(!world.stored(last).await.is_empty());
}

#[tokio::test]
async fn stored_text_cannot_command_the_terminal() {
    let world = World::new(Kind::Sqlite).await;
    hostile_ledger(&world).await;
    let account = ["--account", ACCOUNT];
    // Whether what is shown has some of the hostile text.
    let lists: [(&[&str], bool); 10] = [
        (&["messages", "list", account[0], account[1]], false),
        (
            &["messages", "show", "SM00112233445566778899aabbccddeeff", account[0], account[1]],
            false,
        ),
        (&["events", "list", account[0], account[1]], false),
        (&["history", NUMBER, account[0], account[1]], true),
        (&["suppressions", "list", account[0], account[1]], false),
        (&["consents", "list", account[0], account[1]], true),
        (&["deliveries", "list"], true),
        (&["messages", "list"], true),
        (&["templates", "list", account[0], account[1]], true),
        (&["keys", "list"], true),
    ];
    let mut shown = String::new();
    for (arguments, is_shown) in lists {
        for output in ["table", "json", "tsv"] {
            let arguments = [arguments, &["-o", output]].concat();
            let (is_done, text) = written(&world, &arguments, false);
            assert!(is_done, "{arguments:?}: {text}");
            let found = text.find(is_hazardous);
            assert!(
                found.is_none(),
                "{arguments:?}: {:?} in {text}",
                found.and_then(|at| text.get(at..))
            );
            assert!(!text.lines().any(|line| line.starts_with("forged line")), "{text}");
            let is_escaped = ESCAPED.iter().all(|escaped| text.contains(escaped));
            assert!(is_escaped || !is_shown, "{arguments:?} shows nothing hostile: {text}");
            shown += &text;
        }
    }
    for arguments in [
        &["tenants", "list"][..],
        &["tenants", "list", "--json"],
        &["tenants", "show", ACCOUNT],
        &["deliveries", "status"],
        &["archive", "status"],
    ] {
        let (_, text) = written(&world, arguments, false);
        assert!(!text.contains(is_hazardous), "{arguments:?}: {text}");
        shown += &text;
    }
    // The body of the message, its sender's name, and what an administrator named.
    assert!(shown.matches("\\u001b[2J").count() > 20, "{shown}");
    // What is exported is the text itself in a file, and escaped on a terminal.
    for list in ["suppressions", "consents"] {
        let arguments = [list, "export", account[0], account[1]];
        let (is_done, text) = written(&world, &arguments, false);
        assert!(is_done && text.contains(HOSTILE), "{text}");
        let (is_done, text) = written(&world, &arguments, true);
        assert!(is_done && text.contains("\\u001b[2J"), "{text}");
        assert!(!text.contains(is_hazardous), "{text:?}");
    }
    // Errors repeat what was typed or read.
    for arguments in
        [&["history", HOSTILE, account[0], account[1]][..], &["templates", "show", HOSTILE]]
    {
        let (is_done, text) = written(&world, arguments, false);
        assert!(!is_done && !text.contains(is_hazardous), "{text:?}");
    }
}
