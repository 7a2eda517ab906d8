//! Published formats, checked with independent software: signatures with the official Standard Webhooks libraries for Python
//! and JavaScript, events with a JSON Schema validator and the published schema.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use serde::Deserialize;
use serde_json::{Value, json};
use twilio_edge_contract::{Claim, Decision};

use crate::{
    inbound::deliveries::{accepted, from, sinks, start},
    support::receiver::{Received, Receiver},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, inbound, status},
    support::world::{Kind, World},
};

const CURRENT: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BEFORE: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OF_ANOTHER: &str = "whsec_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Results of a library for one delivery with one secret.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Signed {
    whole: bool,
    /// With another body, id or time.
    body: bool,
    id: bool,
    time: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Judged {
    signed: Vec<Signed>,
    /// Validates an event with the schema.
    #[serde(default)]
    pub(crate) problems: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub(crate) fn judged(mut judge: Command, secrets: &[&str], deliveries: &[Received]) -> Vec<Judged> {
    let schema: Value =
        serde_json::from_slice(&std::fs::read(root().join("docs/event.schema.json")).unwrap())
            .unwrap();
    let deliveries: Vec<Value> = deliveries
        .iter()
        .map(|got| {
            let signed = ["webhook-id", "webhook-timestamp", "webhook-signature"];
            let headers: Value =
                signed.iter().map(|name| ((*name).to_owned(), json!(got.header(name)))).collect();
            json!({"body": got.body, "headers": headers})
        })
        .collect();
    let asked = json!({"schema": schema, "secrets": secrets, "deliveries": deliveries});
    judge.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut judge = judge.spawn().unwrap();
    judge.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let answer = judge.wait_with_output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    serde_json::from_slice(&answer.stdout).unwrap()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/inbound/event_formats").join(name)
}

pub(crate) fn python() -> Command {
    let python = root().join(".tools/webhooks/bin/python");
    assert!(python.exists(), "Python's standardwebhooks is not here: run `make setup-test`");
    let mut command = Command::new(python);
    command.arg(script("verify.py"));
    command
}

fn javascript() -> Command {
    let modules = root().join("wasm-tests/signers");
    let installed = modules.join("node_modules/standardwebhooks").exists();
    assert!(installed, "JavaScript's standardwebhooks is not here: run `make setup-test`");
    let mut command = Command::new("node");
    command.arg(script("verify.mjs")).arg(modules);
    command
}

/// Generates forms of every kind that a client could send, with the parameters of events and with others.
fn forms(count: usize) -> Vec<String> {
    let name = prop_oneof![
        Just("From".to_owned()),
        Just("To".to_owned()),
        Just("Body".to_owned()),
        Just("NumMedia".to_owned()),
        ".{0,12}",
    ];
    let value = prop_oneof![
        "[0-9]{1,9}".prop_map(|digits| digits),
        r"(whatsapp:|rcs:|messenger:)?\+[1-9][0-9]{6,14}",
        ".{0,40}",
    ];
    let form = prop::collection::vec((name, value), 0..8).prop_map(|pairs| {
        let mut form = form_urlencoded::Serializer::new(String::new());
        pairs.iter().for_each(|(name, value)| {
            form.append_pair(name, value);
        });
        form.finish()
    });
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    (0..count).map(|_| form.new_tree(&mut runner).unwrap().current()).collect()
}

#[tokio::test]
async fn every_event_matches_the_schema_and_verifies_with_the_official_libraries() {
    let world = World::new(Kind::Sqlite).await;
    let app = Receiver::start().await;
    let secrets = format!("secrets = [\"{CURRENT}\", \"{BEFORE}\"]");
    let file = sinks(&world, &[("app", &app, &secrets)]);
    let sidecar = start(&world, &file).await;
    let failed = Claim {
        form: "MessageStatus=failed&ErrorCode=63016&To=whatsapp%3A%2B15550000001&From=whatsapp%3A%2B1415".into(),
        ..status("s1", "SM1s", "failed")
    };
    let mut claims = vec![
        Claim {
            form: "From=%2B1555&Body=%F0%9F%91%8B+%E2%82%AC&NumMedia=2&M=1&M=2".into(),
            ..from(7, 1)
        },
        Claim {
            form: "From=whatsapp%3A%2B15550000008&To=whatsapp%3A%2B1555&Body=STOP&ButtonText=Stop&ButtonPayload=STOP&ListId=l&Latitude=1.5&Longitude=2&ReferralSourceId=7&MediaContentType0=text%2Fvcard&MediaUrl0=https%3A%2F%2Fa&OriginalRepliedMessageSid=SM0".into(),
            ..from(8, 1)
        },
        accepted(failed),
        accepted(status("s2", "SM2s", "delivered")),
    ];
    for (n, form) in forms(200).into_iter().enumerate() {
        let id = format!("SMf{n}");
        claims.push(accepted(Claim { form, ..inbound(&id, &id, "+15550001", "x") }));
    }
    let verdicts = sidecar.claim_all(claims.clone()).await;
    assert!(verdicts.iter().all(|verdict| verdict.decision == Decision::Accepted));
    eventually("all are there", async || app.taken().len() == claims.len()).await;
    // And one of them once more.
    let replay = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["replay", "--message-sid", "SM1s", "--account", ACCOUNT, "--to", "app"])
        .envs([("DATABASE_URL", &world.database_url), ("TWILIO_EDGE_SINKS_FILE", &file)])
        .output()
        .unwrap();
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    eventually("it is replayed", async || app.taken().len() == claims.len() + 1).await;

    let (taken, secrets) = (app.taken(), [CURRENT, BEFORE, OF_ANOTHER]);
    let ours = Signed { whole: true, body: false, id: false, time: false };
    let foreign = Signed { whole: false, body: false, id: false, time: false };
    for judge in [python(), javascript()] {
        let who = format!("{judge:?}");
        let judgements = judged(judge, &secrets, &taken);
        assert_eq!(judgements.len(), taken.len(), "{who}");
        for (judgement, got) in judgements.iter().zip(&taken) {
            let [current, before, another] = judgement.signed.as_slice() else { panic!("{who}") };
            assert_eq!((current, before, another), (&ours, &ours, &foreign), "{who}: {got:?}");
            assert!(judgement.problems.is_empty(), "{:?} of {}", judgement.problems, got.body);
        }
    }
    let replayed = taken.last().unwrap().event();
    assert_eq!((&replayed["replay"], &replayed["status"]), (&true.into(), &"failed".into()));
}

/// A schema that says yes to everything would be none.
#[tokio::test]
async fn schema_refuses_what_is_no_event() {
    let event = json!({
        "event_id": "e", "event_type": "twilio_status", "account_sid": "AC", "message_sid": "SM", "status": "sent",
        "received_at": "2026-11-23T12:28:17.042Z", "route": "/", "replay": false, "raw": {"To": "+1"},
    });
    let changes = [
        json!({}),
        json!({"event_type": "twilio_other"}),
        json!({"received_at": "yesterday"}),
        json!({"status": null}),
        json!({"event_type": "twilio_inbound"}),
        json!({"replay": true}),
        json!({"num_media": "2"}),
        json!({"raw": {"To": 1}}),
        json!({"raw": {"To": ["+1"]}}),
        json!({"account_sid": ""}),
        json!({"surprise": 1}),
    ];
    let changed = |change: &Value| {
        let mut event = event.clone();
        let fields = event.as_object_mut().unwrap();
        fields.extend(change.as_object().unwrap().clone());
        fields.retain(|_, value| !value.is_null());
        let headers =
            [("webhook-id", "i"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,")];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers = headers.into_iter().collect();
        let (target, body) = (String::new(), event.to_string());
        Received { target, headers, body, status: 200, at: Instant::now() }
    };
    let events: Vec<Received> = changes.iter().map(changed).collect();
    let judgements = judged(python(), &[CURRENT], &events);
    let refused: Vec<bool> = judgements.iter().map(|judged| !judged.problems.is_empty()).collect();
    assert_eq!(refused, [&[false][..], &[true; 10]].concat(), "{judgements:?}");
}
