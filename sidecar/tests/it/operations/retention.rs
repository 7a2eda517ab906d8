//! Retention: bodies, media, profile names and answers of old webhooks disappear from the database and from every output. The
//! data that the sidecar needs for its decisions stays.

use std::process::Command;

use twilio_edge_contract::{Claim, Decision, Opt, Outcome, Settlement};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator},
    api::endpoints::refused,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, TOKEN, inbound, message, settlement, status, twiml},
    support::world::{World, on_every_shared_store, on_every_store},
};

const ALICE: &str = "whatsapp:+15551230001";
const BOB: &str = "whatsapp:+15551230002";

/// Texts that may be in no output and in no row after redaction.
const SECRETS: [&str; 5] =
    ["confidential", "Ava+Lovelace", "Ava Lovelace", "media.example", "Thanks"];

on_every_store!(
    bodies_are_redacted_and_decisions_stay_the_same,
    fields_with_no_retention_are_never_written,
    killed_job_continues_where_it_stopped,
    each_account_has_its_retention_period,
    old_rows_are_deleted_and_evidence_stays,
    erased_contact_stays_suppressed,
);
on_every_shared_store!(retention_job_runs_once_on_two_sidecars);

/// A message with body, profile name and media.
fn full(claim_id: &str, message_sid: &str, from: &str) -> Claim {
    let mut claim = inbound(claim_id, message_sid, from, "this is confidential");
    claim.form += "&ProfileName=Ava+Lovelace&NumMedia=1&MediaUrl0=https%3A%2F%2Fmedia.example%2F1";
    claim
}

async fn commit(sidecar: &Sidecar, claim: &Claim) {
    let answer = Some(twiml("<Response><Message>Thanks</Message></Response>"));
    sidecar.settle(Settlement { answer, ..settlement(claim, Outcome::Commit) }).await;
}

impl World {
    /// Starts a sidecar whose retention job runs every second, in steps of `batch` rows.
    async fn keeping(&self, batch: &str, more: &[(&str, &str)]) -> Sidecar {
        let settings =
            [("TWILIO_EDGE_REDACTION_EVERY_S", "1"), ("TWILIO_EDGE_REDACTION_BATCH", batch)];
        self.sidecar_with(&[&settings[..], more].concat()).await
    }

    /// Starts a sidecar whose retention job does not run during the test.
    async fn filling(&self) -> Sidecar {
        self.sidecar_with(&[("TWILIO_EDGE_REDACTION_EVERY_S", "3600")]).await
    }

    /// Waits until `rows` webhooks are stored, then makes those that match `which` `days` older.
    async fn age(&self, days: i64, rows: usize, which: &str) {
        eventually("everything is written", || async {
            self.stored("SELECT dedupe_key FROM events").await.len() >= rows
        })
        .await;
        let ms = days * 86_400_000;
        let update = format!(
            "UPDATE events SET received_at_ms = received_at_ms - {ms} WHERE {which} RETURNING dedupe_key"
        );
        assert!(!self.stored(&update).await.is_empty(), "nothing is {which}");
    }

    /// Every text of every row.
    async fn rows(&self) -> String {
        self.stored("SELECT dedupe_key || ' ' || coalesce(form, '') || ' ' || coalesce(answer, '') FROM events")
            .await
            .join("\n")
    }

    fn command(&self, args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
            .args(args)
            .env_clear()
            .env("DATABASE_URL", &self.database_url)
            .env("TWILIO_ACCOUNT_SID", ACCOUNT)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap() + &said
    }
}

fn has_secrets(text: &str) -> bool {
    SECRETS.iter().any(|secret| text.contains(secret))
}

async fn bodies_are_redacted_and_decisions_stay_the_same(world: World) {
    let sidecar = world.filling().await;
    for (claim_id, sid) in [("c1", "SM1"), ("c2", "SM2"), ("c3", "SM3"), ("c4", "SM4")] {
        let claim = full(claim_id, sid, ALICE);
        assert_eq!(sidecar.decide(claim.clone()).await, Decision::Proceed);
        commit(&sidecar, &claim).await;
    }
    let sent = status("c5", "SM5", "delivered");
    assert_eq!(sidecar.decide(sent.clone()).await, Decision::Proceed);
    sidecar.commit(&sent).await;
    assert_eq!(sidecar.claim(inbound("c6", "SM6", BOB, "stop")).await.opt, Some(Opt::Stop));
    sidecar.commit(&inbound("c6", "SM6", BOB, "stop")).await;
    let window = sidecar.claim(full("c7", "SM7", ALICE)).await.window_expires;
    sidecar.stop();
    assert!(has_secrets(&world.rows().await));

    // Retention counts from the time of reception. The job does not return to times that it has already passed.
    world.age(31, 7, "message_sid <> 'SM7'").await;
    let sidecar = world.keeping("2", &[]).await;
    eventually("the old webhooks are redacted", || async {
        let gone = "SELECT message_sid FROM events WHERE redacted IS NOT NULL ORDER BY message_sid";
        world.stored(gone).await == ["SM1", "SM2", "SM3", "SM4", "SM6"]
    })
    .await;
    let kept = "SELECT message_sid FROM events WHERE form LIKE '%confidential%'";
    assert_eq!(world.stored(kept).await, ["SM7"], "the recent webhook stays");
    let form = "SELECT form FROM events WHERE message_sid = 'SM1'";
    let form = world.stored(form).await.remove(0);
    assert_eq!(
        form,
        "MessageSid=SM1&From=whatsapp%3A%2B15551230001&To=whatsapp%3A%2B15550001111&Body=%5Bredacted%5D\
         &ProfileName=%5Bredacted%5D&NumMedia=1&MediaUrl0=%5Bredacted%5D"
    );
    let when = "SELECT message_sid FROM events WHERE redacted_at_ms IS NOT NULL AND redacted = 39 AND answer IS NULL";
    assert_eq!(world.stored(when).await.len(), 4, "body, media, person and answer");

    // The commands still show the webhooks, without the redacted content.
    let output = world.command(&["messages", "list", "--json"]);
    assert!(output.contains("SM1") && output.contains("+15551230001"), "{output}");
    let output = world.command(&["events", "list", "--number", BOB, "--json"]);
    assert!(output.contains("SM6") && !output.contains("stop"), "{output}");
    let output = world.command(&["messages", "show", "SM1", "--json"]);
    assert!(output.contains("accepted") && !has_secrets(&output), "{output}");
    let view: Value = serde_json::from_str(&output).unwrap();
    assert!(
        view["timeline"][0]["webhook"]["redacted_at"].is_string(),
        "the time of the redaction: {view}"
    );
    let view: Value =
        serde_json::from_str(&world.command(&["messages", "show", "SM7", "--json"])).unwrap();
    assert!(
        view["timeline"][0]["webhook"]["redacted_at"].is_null(),
        "SM7 was not redacted: {view}"
    );

    // The decisions are the same as before, also at a new sidecar that has only the database.
    sidecar.stop();
    let sidecar = world.keeping("2", &[]).await;
    for sid in ["SM1", "SM2", "SM3", "SM4"] {
        assert_eq!(sidecar.decide(message("again", sid)).await, Decision::Duplicate, "{sid}");
    }
    assert_eq!(sidecar.decide(status("again", "SM5", "delivered")).await, Decision::Duplicate);
    assert!(sidecar.claim(inbound("c8", "SM8", BOB, "hello?")).await.suppressed);
    let verdict = sidecar.claim(message("c9", "SM7")).await;
    assert_eq!(verdict.decision, Decision::InFlight);
    assert!(window.is_some());
    assert!(sidecar.metric("twilio_edge_retention_oldest_body_age_seconds").await < 86_400.0);
}

async fn fields_with_no_retention_are_never_written(world: World) {
    let sidecar = world
        .sidecar_with(&[
            ("TWILIO_EDGE_RETENTION_MEDIA_KEEP", "none"),
            ("TWILIO_EDGE_RETENTION_PERSON_KEEP", "none"),
            ("TWILIO_EDGE_RETENTION_PERSON_REDACT", "hash"),
            ("TWILIO_EDGE_REDACTION_HASH_KEY", "a key of the tests"),
            ("TWILIO_EDGE_RETENTION_REDACT_CODES", "true"),
        ])
        .await;
    let mut claim = inbound("c1", "SM1", ALICE, "your code is 493822");
    claim.form += "&MediaUrl0=https%3A%2F%2Fmedia.example%2F1&ProfileName=Ava+Lovelace";
    assert_eq!(sidecar.decide(claim.clone()).await, Decision::Proceed);
    sidecar.commit(&claim).await;
    // The filter forwarded this webhook without a claim, because no sidecar answered.
    let mut late = crate::support::sidecar::unclaimed(&message("c2", "SM2"), Outcome::Commit);
    late.unclaimed.as_mut().unwrap().form += "&ProfileName=Ava+Lovelace&Body=1234";
    sidecar.settle(late).await;
    // The keyword is read before the content is removed.
    let stop = sidecar.claim(inbound("c3", "SM3", BOB, "STOP")).await;
    assert_eq!((stop.opt, stop.suppressed), (Some(Opt::Stop), true));
    sidecar.stop();

    let rows = world.rows().await;
    assert!(!has_secrets(&rows) && !rows.contains("493822") && !rows.contains("1234&"), "{rows}");
    let codes = "SELECT form FROM events WHERE form LIKE '%your+code+is+%5Bredacted%5D%'";
    assert_eq!(world.stored(codes).await.len(), 1, "{rows}");
    let hashed = "SELECT form FROM events WHERE form LIKE '%ProfileName=%5Bredacted%3A%'";
    assert_eq!(world.stored(hashed).await.len(), 2, "{rows}");
}

const MANY: usize = 120;

async fn fill(sidecar: &Sidecar) {
    for first in (0..MANY).step_by(60) {
        let sids = (first..first + 60).map(|nth| format!("SM{nth}"));
        sidecar.claim_all(sids.map(|sid| full(&sid, &sid, ALICE)).collect()).await;
    }
}

async fn killed_job_continues_where_it_stopped(world: World) {
    let redacted = "SELECT dedupe_key FROM events WHERE redacted IS NOT NULL";
    let sidecar = world.filling().await;
    fill(&sidecar).await;
    sidecar.stop();
    world.age(31, MANY, "form IS NOT NULL").await;

    // The job does one row at a time, and each run continues until the sidecar is killed.
    let mut done = 0;
    while done < MANY {
        let sidecar = world.keeping("1", &[]).await;
        eventually("the job has redacted more rows", || async {
            let now = world.stored(redacted).await.len();
            now > done || now == MANY
        })
        .await;
        if done < MANY / 2 {
            sidecar.kill();
            done = world.stored(redacted).await.len();
            continue;
        }
        eventually("all rows are redacted", || async {
            world.stored(redacted).await.len() == MANY
        })
        .await;
        assert!(sidecar.metric("twilio_edge_retention_redacted_total{part=\"body\"}").await > 0.0);
        done = MANY;
    }
    assert!(!has_secrets(&world.rows().await));
}

/// The job applies the profile of a tenant, also a changed one, and the configuration for all other accounts.
async fn each_account_has_its_retention_period(world: World) {
    const BRIEF: &str = "AC00000000000000000000000000000001";
    const LONG: &str = "AC00000000000000000000000000000002";
    let accounts = [BRIEF, LONG, ACCOUNT];
    let sidecar = world.filling().await;
    let root = administrator(&sidecar).await;
    for (account, days) in [(BRIEF, "7d"), (LONG, "90d")] {
        let profile = json!({"retention": {"body": {"keep": days}}}).to_string();
        let response = root.send(Method::PUT, &format!("/v1/tenants/{account}"), profile).await;
        assert_eq!(response.status(), 200);
    }
    for account in accounts {
        let mut claim = inbound("c1", "SM1", ALICE, "this is confidential");
        claim.identity.account_sid = account.into();
        sidecar.claim(claim.clone()).await;
        sidecar.commit(&claim).await;
    }
    let token = root.token.clone();
    sidecar.stop();

    let left = async || {
        let kept =
            "SELECT account_sid FROM events WHERE form LIKE '%confidential%' ORDER BY account_sid";
        world.stored(kept).await
    };
    let runs = "twilio_edge_retention_last_run_timestamp_seconds";
    // By default bodies stay for 30 days.
    for (days, kept) in
        [(6, vec![ACCOUNT, BRIEF, LONG]), (4, vec![ACCOUNT, LONG]), (25, vec![LONG])]
    {
        world.age(days, accounts.len(), "form IS NOT NULL").await;
        // The job skips rows before its saved position. Only this test makes such rows older, so it deletes the position.
        world.stored("DELETE FROM retention RETURNING part").await;
        let sidecar = world.keeping("2", &[]).await;
        eventually("the job has run", || async { sidecar.metric(runs).await > 0.0 }).await;
        let mut kept = kept;
        kept.sort_unstable();
        assert_eq!(left().await, kept, "after {days} days more");
        sidecar.stop();
    }

    // A changed profile is in effect from the next run on, without a restart.
    let sidecar = world.keeping("2", &[]).await;
    let root = Caller::admin(&sidecar, &token);
    let known = root.send(Method::GET, &format!("/v1/tenants/{LONG}"), String::new()).await;
    let tag = known.headers()["etag"].clone();
    let url = format!("{}/v1/tenants/{LONG}", root.base);
    let change = sidecar.client.put(url).bearer_auth(&root.token).header("if-match", tag);
    let profile = json!({"retention": {"body": {"keep": "20d"}}}).to_string();
    assert_eq!(change.body(profile).send().await.unwrap().status(), 200);
    eventually("no body is left", || async { left().await.is_empty() }).await;
}

async fn retention_job_runs_once_on_two_sidecars(world: World) {
    let first = world.filling().await;
    fill(&first).await;
    first.stop();
    world.age(31, MANY, "form IS NOT NULL").await;
    let (one, two) = tokio::join!(world.keeping("3", &[]), world.keeping("3", &[]));
    let redacted = "twilio_edge_retention_redacted_total{part=\"body\"}";
    eventually("all rows are redacted", || async {
        one.metric(redacted).await + two.metric(redacted).await >= MANY as f64
    })
    .await;
    assert!(!has_secrets(&world.rows().await));
    let both = one.metric(redacted).await + two.metric(redacted).await;
    assert_eq!(both as usize, MANY, "no row was redacted twice");
    let failures = "twilio_edge_retention_failures_total";
    assert_eq!(one.metric(failures).await + two.metric(failures).await, 0.0);
}

pub(crate) async fn old_rows_are_deleted_and_evidence_stays(world: World) {
    let sidecar = world.filling().await;
    for (sid, from, body) in [("SM1", ALICE, "hi"), ("SM2", BOB, "STOP"), ("SM3", ALICE, "late")] {
        assert_eq!(sidecar.decide(inbound(sid, sid, from, body)).await, Decision::Proceed);
        commit(&sidecar, &inbound(sid, sid, from, body)).await;
    }
    // The insert below adds a webhook with a settlement but without a claim.
    sidecar.stop();
    let old = 401_i64 * 86_400_000;
    let age = format!(
        "UPDATE events SET received_at_ms = received_at_ms - {old}, settled_at_ms = settled_at_ms - {old}, \
         held_until_ms = NULL WHERE message_sid IN ('SM1', 'SM2') RETURNING dedupe_key"
    );
    assert_eq!(world.stored(&age).await.len(), 2);
    let insert = format!(
        "INSERT INTO events (dedupe_key, class, account_sid, message_sid, attempts, outcome, settled_at_ms) \
         SELECT 'inbound:' || account_sid || ':SM9', class, account_sid, 'SM9', 0, 'refused', settled_at_ms - {old} \
         FROM events WHERE message_sid = 'SM3' RETURNING dedupe_key"
    );
    assert_eq!(world.stored(&insert).await.len(), 1);

    let sidecar = world.keeping("2", &[]).await;
    eventually("the old webhooks are deleted", || async {
        world.stored("SELECT message_sid FROM events").await == ["SM3"]
    })
    .await;
    assert!(sidecar.claim(inbound("c8", "SM8", BOB, "hello?")).await.suppressed);
    assert_eq!(world.stored("SELECT opt FROM opt_events").await, ["stop"]);
    // The job deleted the three old webhooks.
    assert_eq!(sidecar.metric("twilio_edge_retention_deleted_total").await, 3.0);
}

/// Sends a redaction request as an administrator.
async fn redact(sidecar: &Sidecar, wanted: &Value) -> reqwest::Response {
    let url = format!("{}/v1/redactions", sidecar.admin());
    let request = sidecar.client.post(url).bearer_auth(TOKEN);
    request.body(wanted.to_string()).send().await.unwrap()
}

async fn redacted(sidecar: &Sidecar, wanted: &Value) -> Value {
    let response = redact(sidecar, wanted).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

pub(crate) async fn erased_contact_stays_suppressed(world: World) {
    let sidecar = world.filling().await;
    for (sid, from) in [("SM1", ALICE), ("SM2", ALICE), ("SM3", BOB), ("SM4", BOB), ("SM5", BOB)] {
        let claim = full(sid, sid, from);
        assert_eq!(sidecar.decide(claim.clone()).await, Decision::Proceed);
        commit(&sidecar, &claim).await;
    }
    let stop = inbound("SM6", "SM6", ALICE, "STOP");
    assert!(sidecar.claim(stop.clone()).await.suppressed);
    sidecar.commit(&stop).await;
    let rows = "SELECT dedupe_key FROM events WHERE outcome = 'accepted'";
    eventually("all is written", || async { world.stored(rows).await.len() == 6 }).await;

    // An invalid request is refused, and the error names the wrong field.
    for (wanted, expected) in [
        (json!({"number": ALICE}), "account_sid"),
        (json!({"account_sid": "AC1", "number": ALICE}), "account_sid: must be"),
        (json!({"account_sid": ACCOUNT, "message_sid": "SM1:", "dry_run": true}), "message_sid:"),
        (json!({"account_sid": ACCOUNT, "since": "yesterday"}), "since:"),
        (json!({"account_sid": ACCOUNT, "number": "whatsapp:"}), "number:"),
        (json!({"account_sid": ACCOUNT, "numbers": ALICE}), "unknown field"),
    ] {
        let response = redact(&sidecar, &wanted).await;
        let problem: Value = response.json().await.unwrap();
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&json!(400), &json!("malformed_request"))
        );
        assert!(problem["detail"].as_str().unwrap().contains(expected), "{problem}");
    }
    let nothing = redact(&sidecar, &json!({"account_sid": ACCOUNT})).await;
    assert_eq!(refused(nothing).await, (409, "unclear_redaction".to_owned()));
    let other = json!({"account_sid": ACCOUNT, "message_sid": "SM1", "number": BOB});
    assert_eq!(redacted(&sidecar, &other).await["found"], 0, "it is not Bob's");
    let audit = "DELETE FROM audit RETURNING action";
    assert_eq!(world.stored(audit).await, ["events.redacted"]);
    let request = sidecar.client.post(format!("{}/v1/redactions", sidecar.admin()));
    assert_eq!(refused(request.send().await.unwrap()).await, (401, "unauthorized".to_owned()));

    // Counting changes nothing and is in no audit.
    let alice = json!({"account_sid": ACCOUNT, "number": ALICE, "delete": true, "dry_run": true});
    let counted = redacted(&sidecar, &alice).await;
    assert_eq!((&counted["found"], &counted["redacted"]), (&json!(3), &json!(3)));
    let audit = "SELECT subject || ' ' || action FROM audit";
    assert_eq!(world.stored(audit).await, [""; 0]);
    assert!(world.rows().await.matches("confidential").count() == 5);

    // The command redacts one message. Then the API redacts the whole contact, including recent rows.
    let said = world.command(&["redact", "--message-sid", "SM3", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["redacted"], 1);
    let alice = json!({"account_sid": ACCOUNT, "number": "+15551230001", "delete": true});
    let done = redacted(&sidecar, &alice).await;
    assert_eq!((&done["redacted"], &done["deleted"]), (&json!(3), &json!(0)), "{done}");
    assert_eq!((&done["complete"], &done["parts"]["addresses"]), (&json!(true), &json!(3)));
    let left = world.rows().await;
    assert_eq!(left.matches("confidential").count(), 2, "{left}");
    assert!(!left.contains("15551230001") && left.contains("15551230002"), "{left}");
    assert_eq!(
        world.stored("SELECT theirs FROM events WHERE theirs = '+15551230001'").await,
        [""; 0]
    );
    assert_eq!(redacted(&sidecar, &alice).await["found"], 0, "the number finds nothing");
    let output = world.command(&["events", "list", "--json"]);
    assert!(output.contains("SM1") && !output.contains("15551230001"), "{output}");
    assert_eq!(
        world.stored(audit).await,
        ["SM3 events.redacted", "**********01 events.redacted", "**********01 events.redacted"]
    );

    // With `--delete`, old webhooks are deleted.
    let month = 31_i64 * 86_400_000;
    let age = format!(
        "UPDATE events SET received_at_ms = received_at_ms - {month}, settled_at_ms = settled_at_ms - {month}, \
         held_until_ms = NULL WHERE message_sid = 'SM4' RETURNING dedupe_key"
    );
    assert_eq!(world.stored(&age).await.len(), 1);
    let said = world.command(&["redact", "--since", "2026-01-01", "--delete"]);
    assert!(
        said.starts_with("6 webhooks found: 1 redacted") && said.contains("1 deleted"),
        "{said}"
    );
    assert!(!has_secrets(&world.rows().await));
    assert_eq!(world.stored("SELECT message_sid FROM events").await.len(), 5);

    // Deduplication and suppressions stay, also at a new sidecar that has only the database.
    sidecar.stop();
    let sidecar = world.filling().await;
    for sid in ["SM1", "SM2", "SM3", "SM5", "SM6"] {
        assert_eq!(sidecar.decide(message("again", sid)).await, Decision::Duplicate, "{sid}");
    }
    assert!(sidecar.claim(inbound("c9", "SM9", ALICE, "hello?")).await.suppressed);
    assert_eq!(world.stored("SELECT opt FROM opt_events").await, ["stop"]);
}
