//! Suppressions with a time to live: in effect up to their last millisecond and not after it, at every place that asks; a STOP
//! outlasts them.

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::Claim;

use crate::{
    access::api_keys::{Caller, administrator, coded},
    access::permissions::{lists, posted},
    inbound::deliveries::{command, sinks},
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound},
    support::world::{World, on_every_store},
};

on_every_store! {
    suppression_ends_exactly_at_its_expiry,
    stop_outlasts_an_expiring_suppression,
    expiry_is_imported_exported_and_set_by_the_command_line,
}

const PERSON: &str = "whatsapp:+14155550123";

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn at(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap().to_string()
}

fn message(claim_id: &str, body: &str) -> Claim {
    inbound(claim_id, claim_id, PERSON, body)
}

async fn begin(sidecar: &Sidecar) -> (Caller<'_>, Caller<'_>) {
    let admin = administrator(sidecar).await;
    let (_, token) = admin.create("app", Some(ACCOUNT), "the shop").await;
    (admin, Caller::app(sidecar, &token))
}

/// Suppresses the contact as the application, and returns the suppression of the application.
async fn suppress(app: &Caller<'_>, expires_at_ms: i64) -> Value {
    let new = json!({"number": PERSON, "expires_at": at(expires_at_ms)});
    let all = posted(app, "/v1/suppressions", new).await;
    let all = all["suppressions"].as_array().unwrap().clone();
    all.into_iter().find(|one| one["source"] == "application").unwrap()
}

/// Returns the refusal of a check, if there is one.
async fn refusal(app: &Caller<'_>) -> Option<String> {
    let question = json!({"to": PERSON, "kind": "template", "category": "authentication"});
    let answer = app.send(Method::POST, "/v1/checks", question.to_string()).await;
    let answer: Value = answer.json().await.unwrap();
    let rules = answer["verdicts"].as_array().unwrap();
    let verdict = rules.iter().find(|verdict| verdict["rule"] == "suppression").unwrap();
    (verdict["ok"] == false).then(|| verdict["detail"].as_str().unwrap().to_owned())
}

async fn suppression_ends_exactly_at_its_expiry(world: World) {
    let sink = Receiver::start().await;
    let events = "classes = []\nevents = [\"suppression.changed\"]";
    let file = sinks(&world, &[("crm", &sink, events)]);
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_SINKS_FILE", file.as_str())]).await;
    let (_, app) = begin(&sidecar).await;
    let invalid = coded(422, "invalid_field");
    for expires_at in [at(now_ms()), "soon".to_owned(), "2200-01-01T00:00:00Z".to_owned()] {
        let new = json!({"number": PERSON, "expires_at": expires_at});
        assert_eq!(app.refusal(Method::POST, "/v1/suppressions", &new).await, invalid);
    }

    // A longer time prolongs it, a shorter one changes nothing.
    let expires_at_ms = now_ms() + 4000;
    suppress(&app, now_ms() + 2000).await;
    let known = suppress(&app, expires_at_ms).await;
    assert_eq!(known["in_force"], true, "{known}");
    let shorter = suppress(&app, expires_at_ms - 1500).await;
    assert_eq!(shorter["expires_at"], known["expires_at"]);
    assert_eq!(shorter["since"], known["since"]);
    let detail = refusal(&app).await.unwrap();
    let until = known["expires_at"].as_str().unwrap();
    assert!(detail.contains(&format!("until {until}")) && detail.ends_with("earlier"), "{detail}");

    // No refusal begins after the expiry, and no permission ends before it.
    let mut claims = 0;
    loop {
        let began_ms = now_ms();
        let check = refusal(&app).await;
        let checked_ms = now_ms();
        match &check {
            Some(_) => assert!(began_ms < expires_at_ms, "refused after its end"),
            None => assert!(checked_ms >= expires_at_ms, "permitted before its end"),
        }
        claims += 1;
        let began_ms = now_ms();
        let verdict = sidecar.claim(message(&format!("SM{claims}"), "hello")).await;
        match verdict.suppressed {
            true => assert!(began_ms < expires_at_ms, "a claim says so after its end"),
            false => assert!(now_ms() >= expires_at_ms, "a claim denies it before its end"),
        }
        if check.is_none() && !verdict.suppressed {
            break;
        }
    }
    let listed = app.get("/v1/suppressions").await;
    assert_eq!(listed["suppressions"], json!([]), "the list shows those in effect");
    let all = app.get("/v1/suppressions?ended=true").await["suppressions"][0].clone();
    assert_eq!((&all["in_force"], &all["expires_at"]), (&json!(false), &json!(until)));

    // The stored state follows, and sinks learn of the end once.
    let ended = "twilio_edge_suppression_changes_total{change=\"ended\",source=\"application\"}";
    eventually("the end is counted", async || sidecar.metric(ended).await == 1.0).await;
    let open = "SELECT number FROM suppressions WHERE suppressed";
    assert!(world.stored(open).await.is_empty());
    let ends = || -> Vec<Value> {
        let events = sink.taken().into_iter().map(|taken| taken.event());
        events.filter(|event| event["data"]["suppressed"] == false).collect()
    };
    eventually("the sink has the end", async || !ends().is_empty()).await;
    assert_eq!(ends().len(), 1);
    assert_eq!(ends()[0]["data"]["expires_at"], until);
    assert_eq!(ends()[0]["recorded_at"], until);
    let changed = app.get("/v1/suppressions?ended=true").await["suppressions"][0].clone();
    assert_eq!((&changed["changed_at"], &changed["changed_by"]), (&json!(until), &Value::Null));

    // It begins again as a new one.
    let again = suppress(&app, now_ms() + 3_600_000).await;
    assert!(again["since"].as_str() > known["since"].as_str(), "{again}");
    assert!(refusal(&app).await.is_some());
}

async fn stop_outlasts_an_expiring_suppression(world: World) {
    // The STOP of this account lasts a day, and every STOP prolongs it.
    let limited = [("TWILIO_EDGE_POLICY_STOP_LASTS_DAYS", "1")];
    let sidecar = world.sidecar_with(&limited).await;
    let (_, app) = begin(&sidecar).await;
    let expires_at_ms = now_ms() + 1500;
    suppress(&app, expires_at_ms).await;
    assert!(sidecar.claim(message("SM1", "STOP")).await.suppressed);
    eventually("the suppression of the application has expired", async || {
        now_ms() >= expires_at_ms
    })
    .await;
    assert!(refusal(&app).await.unwrap().contains("(keyword); a START"));
    assert!(sidecar.claim(message("SM2", "hello")).await.suppressed);

    // A second STOP counts from its own arrival. Age the first one to almost its end.
    let age = format!(
        "UPDATE suppressions SET expires_at_ms = {} WHERE source = 'keyword' RETURNING number",
        now_ms() + 1500
    );
    world.stored(&age).await;
    let aged_ms = now_ms() + 1500;
    assert!(sidecar.claim(message("SM3", "STOP")).await.suppressed);
    eventually("the first STOP would have expired", async || now_ms() > aged_ms).await;
    assert!(refusal(&app).await.is_some());
    let stored = "SELECT message_sid FROM suppressions WHERE source = 'keyword' AND suppressed";
    assert_eq!(world.stored(stored).await, ["SM1"], "one reason, prolonged");

    // Without a limit in the policy, the next STOP lasts for ever.
    sidecar.kill();
    let sidecar = world.sidecar().await;
    assert!(sidecar.claim(message("SM4", "STOP")).await.suppressed);
    let endless =
        "SELECT number FROM suppressions WHERE source = 'keyword' AND expires_at_ms IS NULL";
    assert_eq!(world.stored(endless).await.len(), 1);
    // START ends it, and an expired one is nothing to end.
    assert!(!sidecar.claim(message("SM5", "START")).await.suppressed);
}

async fn expiry_is_imported_exported_and_set_by_the_command_line(world: World) {
    let sidecar = world.sidecar().await;
    let (admin, app) = begin(&sidecar).await;
    let csv =
        "number,channel,expires_at\n+14155550201,sms,2100-01-02T03:04:05Z\n+14155550202,sms,\n";
    let imported = posted(&admin, &lists("suppressions"), csv).await;
    assert_eq!(imported["added"], 2);
    let past = "number,channel,expires_at\n+14155550203,sms,2020-01-01\n";
    let refused = admin.send(Method::POST, &lists("suppressions"), past.to_owned()).await;
    assert_eq!(refused.status(), 422);
    let refused: Value = refused.json().await.unwrap();
    assert!(
        refused.to_string().contains("expires_at: 2020-01-01 is not in the future"),
        "{refused}"
    );
    let account = ["--account", ACCOUNT];
    let add = ["suppressions", "add", "sms:+14155550204", "--expires-at", "2100-01-01"];
    let added = command(&world, &[&add[..], &account].concat());
    assert!(added.contains("2100-01-01T00:00:00.000Z"), "{added}");

    let exported = command(&world, &[&["suppressions", "export"][..], &account].concat());
    let response = app.send(Method::GET, "/v1/suppressions/export", String::new()).await;
    assert_eq!(exported, response.text().await.unwrap());
    let rows: Vec<&str> = exported.lines().collect();
    assert!(
        rows[0].starts_with("number,channel,source,error_code,since,expires_at,"),
        "{exported}"
    );
    assert_eq!(rows.len(), 4);
    assert!(rows[1].contains("2100-01-02T03:04:05.000Z"), "{exported}");

    // The export is imported elsewhere with the same ends.
    let again = posted(&admin, &lists("suppressions"), &exported).await;
    assert_eq!((&again["lines"], &again["added"]), (&json!(3), &json!(1)));
    let of_cli = app.get("/v1/suppressions?number=%2B14155550204&source=import").await;
    assert_eq!(of_cli["suppressions"][0]["expires_at"], "2100-01-01T00:00:00.000Z");
    let list = [&["suppressions", "list", "--number", "sms:+14155550201"][..], &account].concat();
    assert!(command(&world, &list).contains("2100-01-02T03:04:05.000Z"));
}
