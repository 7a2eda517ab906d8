//! Suppressions and consents, as applications and administrators use them: over HTTP and on the command line, on every store.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{Decision, Outcome, SettlementResult};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::{ALICE, BOB, OTHER, OURS, of_other, status_callback},
    support::sidecar::{ACCOUNT, Sidecar, inbound, unclaimed},
    support::world::{World, on_every_store},
};

on_every_store!(
    status_with_an_opt_out_error_suppresses_once,
    keywords_leave_decisions_of_administrators,
    stop_reaches_as_far_as_the_policy_says,
    suppressions_are_listed_page_by_page,
    imported_list_is_stored_whole_or_its_bad_lines_are_reported,
    consents_are_added_to_and_the_latest_counts,
    tenant_sees_and_changes_only_its_own_permissions,
    command_line_works_beside_a_running_sidecar,
);

fn text_from(message_sid: &str, from: &str, body: &str) -> twilio_edge_contract::Claim {
    inbound(message_sid, message_sid, &format!("whatsapp:{from}"), body)
}

pub(crate) async fn both(sidecar: &Sidecar) -> (Caller<'_>, Caller<'_>) {
    let admin = administrator(sidecar).await;
    both_of(sidecar, &admin).await
}

/// Path at which an administrator imports a list.
pub(crate) fn lists(of: &str) -> String {
    format!("/v1/{of}/import?account_sid={ACCOUNT}")
}

pub(crate) async fn posted(caller: &Caller<'_>, path: &str, body: impl ToString) -> Value {
    let response = caller.send(Method::POST, path, body.to_string()).await;
    let status = response.status();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Returns all suppressions of a number, current and ended: `source code channel in_force`.
pub(crate) async fn reasons(caller: &Caller<'_>, number: &str) -> Vec<String> {
    let found = caller.get(&format!("/v1/suppressions/{number}")).await;
    let found = found["suppressions"].as_array().unwrap();
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |one: &Value| {
        let parts = [word(&one["source"]), word(&one["error_code"]), word(&one["channel"])];
        format!("{} {}", parts.join(" "), one["in_force"])
    };
    let mut lines: Vec<String> = found.iter().map(line).collect();
    lines.sort();
    lines
}

async fn status_with_an_opt_out_error_suppresses_once(world: World) {
    let sidecar = world.sidecar().await;
    let (app, _) = both(&sidecar).await;
    let mut opted_out = status_callback("SM1", "failed", Some("21610"), ALICE);
    opted_out.form += "&MessagingServiceSid=MG1";
    let verdict = sidecar.claim(opted_out.clone()).await;
    assert_eq!((verdict.decision, verdict.opt), (Decision::Proceed, None));
    let found = app.get(&format!("/v1/suppressions/{ALICE}")).await["suppressions"][0].clone();
    for (field, value) in [
        ("channel", "whatsapp"),
        ("source", "callback"),
        ("error_code", "21610"),
        ("message_sid", "SM1"),
        ("sender", OURS),
        ("messaging_service_sid", "MG1"),
        ("route", "/twilio/status"),
    ] {
        assert_eq!(found[field], value, "{found}");
    }
    sidecar.claim(status_callback("SM2", "undelivered", Some("63014"), ALICE)).await;
    sidecar.claim(status_callback("SM3", "undelivered", Some("30003"), BOB)).await;
    assert_eq!(reasons(&app, BOB).await, [""; 0], "error 30003 is no opt-out");
    assert!(sidecar.claim(text_from("SM4", ALICE, "hello")).await.suppressed);

    // START ends an opt-out. A contact that blocked us has to unblock us, and an administrator then ends the suppression.
    assert!(sidecar.claim(text_from("SM5", ALICE, "START")).await.suppressed);
    let (opted, blocked) = ("callback 21610 whatsapp false", "callback 63014 whatsapp true");
    assert_eq!(reasons(&app, ALICE).await, [opted, blocked]);
    // The same message reports the error again, late and in another status, which changes nothing.
    let mut again = status_callback("SM1", "undelivered", Some("21610"), ALICE);
    again.claim_id = "again".into();
    sidecar.claim(again.clone()).await;
    sidecar.settle(unclaimed(&again, Outcome::Commit)).await;
    assert_eq!(reasons(&app, ALICE).await, [opted, blocked]);

    // The opt-out of a webhook without a claim is recorded at its settlement.
    let late = unclaimed(&status_callback("SM7", "failed", Some("21610"), BOB), Outcome::Commit);
    assert_eq!(sidecar.settle(late).await, SettlementResult::Settled);
    assert_eq!(reasons(&app, BOB).await, ["callback 21610 whatsapp true"]);
    let began = "twilio_edge_suppression_changes_total{change=\"began\",source=\"callback\"}";
    assert_eq!(sidecar.metric(began).await, 3.0);
    sidecar.kill();
    let audit =
        world.stored("SELECT message_sid || ' ' || cause FROM opt_events WHERE opt = 'stop'").await;
    assert_eq!(audit.len(), 3, "{audit:?}");
    assert!(audit.contains(&"SM1 21610".to_owned()), "{audit:?}");
}

pub(crate) async fn keywords_leave_decisions_of_administrators(world: World) {
    let sidecar = world.sidecar().await;
    let (app, admin) = both(&sidecar).await;
    // An application may add, in any sensible spelling, and not remove.
    let new = json!({"number": "(555) 123-0001", "region": "US", "channel": "whatsapp"});
    for _ in 0..2 {
        let added = posted(&app, "/v1/suppressions", &new).await;
        assert_eq!(added["suppressions"].as_array().unwrap().len(), 1, "{added}");
    }
    let nowhere = coded(405, "method_not_allowed");
    let path = format!("/v1/suppressions/{ALICE}");
    assert_eq!(app.refusal(Method::DELETE, &path, &Value::Null).await, nowhere);
    assert!(sidecar.claim(text_from("SM1", ALICE, "STOP")).await.suppressed);
    assert!(sidecar.claim(text_from("SM2", ALICE, "START")).await.suppressed);
    let of_app = "application - whatsapp true";
    assert_eq!(reasons(&app, ALICE).await, [of_app, "keyword - whatsapp false"]);

    // An administrator ends the suppression on that channel; a second request finds none.
    let path = format!("{path}?account_sid={ACCOUNT}&channel=whatsapp");
    let response = admin.send(Method::DELETE, &path, String::new()).await;
    assert_eq!(response.status(), 200);
    assert!(!sidecar.claim(text_from("SM3", ALICE, "hi")).await.suppressed);
    let none = coded(404, "not_suppressed");
    assert_eq!(admin.refusal(Method::DELETE, &path, &Value::Null).await, none);

    let audit = admin.get("/v1/audit").await;
    let entries = audit["entries"].as_array().unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions[..2], ["suppression.removed", "suppression.added"], "{audit}");
    assert!(!audit.to_string().contains(ALICE), "no whole number: {audit}");

    // A suppression on every channel is part of the verdict on each channel.
    let admin_there = Caller::app(&sidecar, &admin.token);
    let new = json!({"number": BOB, "channel": "*"});
    posted(&admin_there, "/v1/suppressions", &new).await;
    assert_eq!(reasons(&app, BOB).await, ["administrator - * true"]);
    assert!(sidecar.claim(text_from("SM4", BOB, "hi")).await.suppressed);
    assert!(sidecar.claim(inbound("SM5", "SM5", BOB, "hi")).await.suppressed);
}

async fn stop_reaches_as_far_as_the_policy_says(world: World) {
    let every = [("TWILIO_EDGE_POLICY_STOP_REACHES", "every_channel")];
    let sidecar = world.sidecar_with(&every).await;
    assert!(sidecar.claim(text_from("SM1", ALICE, "STOP")).await.suppressed);
    assert!(sidecar.claim(inbound("SM2", "SM2", ALICE, "hi")).await.suppressed);
    assert!(!sidecar.claim(inbound("SM3", "SM3", ALICE, "START")).await.suppressed);
    assert!(!sidecar.claim(text_from("SM4", ALICE, "hi")).await.suppressed);
    sidecar.kill();
    let same = [every[0], ("TWILIO_EDGE_POLICY_RESUBSCRIBE", "same_channel")];
    let sidecar = world.sidecar_with(&same).await;
    assert!(sidecar.claim(text_from("SM5", ALICE, "STOP")).await.suppressed);
    assert!(sidecar.claim(inbound("SM6", "SM6", ALICE, "START")).await.suppressed);
    assert!(!sidecar.claim(text_from("SM7", ALICE, "START")).await.suppressed);
    sidecar.kill();
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_POLICY_RESUBSCRIBE", "never")]).await;
    assert!(sidecar.claim(text_from("SM8", ALICE, "STOP")).await.suppressed);
    assert!(sidecar.claim(text_from("SM9", ALICE, "START")).await.suppressed);
}

async fn suppressions_are_listed_page_by_page(world: World) {
    let sidecar = world.sidecar().await;
    let (app, admin) = both(&sidecar).await;
    let number = |n: usize| format!("+1415555{n:04}");
    let lines: String = (0..23).map(|n| format!("{}\n", number(n))).collect();
    let imported = posted(&admin, &lists("suppressions"), format!("number\n{lines}")).await;
    assert_eq!((&imported["lines"], &imported["added"]), (&json!(23), &json!(23)));
    posted(&app, "/v1/suppressions", json!({"number": number(7)})).await;
    sidecar.claim(text_from("SM1", &number(30), "STOP")).await;
    for (query, expected) in
        [("", 25), ("&source=import", 23), ("&source=keyword", 1), ("&channel=sms", 24)]
    {
        let (mut walked, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = app.get(&format!("/v1/suppressions?limit=4{query}{cursor}")).await;
            let found = page["suppressions"].as_array().unwrap().clone();
            walked.extend(found.iter().map(|one| format!("{} {}", one["number"], one["source"])));
            let Some(next) = page["next_cursor"].as_str() else { break };
            assert_eq!(found.len(), 4);
            cursor = format!("&cursor={next}");
        }
        assert_eq!(walked.len(), expected, "{query}");
        let mut sorted = walked.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), expected, "each once");
    }
    let one = app.get("/v1/suppressions?number=%2B1%20415%20555%200007").await;
    assert_eq!(one["suppressions"].as_array().unwrap().len(), 2);
    let cannot_be = coded(422, "invalid_field");
    let path = "/v1/suppressions?number=hello";
    assert_eq!(app.refusal(Method::GET, path, &Value::Null).await, cannot_be);
    let no_page = coded(404, "invalid_cursor");
    let path = "/v1/suppressions?cursor=x";
    assert_eq!(app.refusal(Method::GET, path, &Value::Null).await, no_page);
    for query in ["limit=0", "source=me", "channel=%00", "account_sid=AC1"] {
        let bad = coded(400, "malformed_request");
        let path = format!("/v1/suppressions?{query}");
        assert_eq!(app.refusal(Method::GET, &path, &Value::Null).await, bad, "{query}");
    }
}

async fn imported_list_is_stored_whole_or_its_bad_lines_are_reported(world: World) {
    let sidecar = world.sidecar().await;
    let (app, admin) = both(&sidecar).await;
    let csv = "number,channel\r\n\"+1 415 555 2671\",whatsapp\r\nno number,\r\n4155552672,\r\n";
    let path = &lists("suppressions");
    let response = admin.send(Method::POST, path, csv.to_owned()).await;
    assert_eq!(response.status(), 422);
    let problem: Value = response.json().await.unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!(problem["code"], "invalid_lines");
    assert!(
        detail.starts_with("line 3: number: \"no number\"") && detail.contains("line 4:"),
        "{detail}"
    );
    let nothing = app.get("/v1/suppressions").await;
    assert_eq!(nothing["suppressions"], json!([]), "nothing was done");

    let imported = posted(&admin, &format!("{path}&partial=true&region=US"), csv).await;
    assert_eq!((&imported["lines"], &imported["invalid_lines"]), (&json!(2), &json!(1)));
    assert_eq!(imported["invalid"][0]["line"], 3);
    let again = posted(&admin, &format!("{path}&partial=true&region=US"), csv).await;
    assert_eq!(again["added"], 0, "the same list again changes nothing");

    let export = app.send(Method::GET, "/v1/suppressions/export", String::new()).await;
    assert_eq!(export.headers()["content-type"], "text/csv; charset=utf-8");
    let export = export.text().await.unwrap();
    let lines: Vec<&str> = export.split("\r\n").collect();
    assert!(lines[0].starts_with("number,channel,source"), "{export}");
    assert!(lines[1].starts_with("'+14155552671,whatsapp,import,"), "{export}");
    assert_eq!(lines.len(), 4, "{export}");
    // What was exported is a list that may be imported.
    let back = posted(&admin, path, &export).await;
    assert_eq!((&back["lines"], &back["added"]), (&json!(2), &json!(0)));
}

pub(crate) async fn consents_are_added_to_and_the_latest_counts(world: World) {
    let sidecar = world.sidecar().await;
    let (app, admin) = both(&sidecar).await;
    let granted = json!({
        "number": "whatsapp:+1 555 123 0001", "category": "marketing", "source": "checkout form",
        "proof": "☑ Send me offers, \"weekly\"", "ip": "192.0.2.7", "user_agent": "curl/8",
        "at": "2026-11-01T10:00:00Z",
    });
    let first = posted(&app, "/v1/consents", &granted).await;
    assert_eq!((&first["new"], &first["consent"]["number"]), (&json!(true), &json!(ALICE)));
    assert_eq!(posted(&app, "/v1/consents", &granted).await["new"], false, "the same evidence");
    let mut withdrawn = granted.clone();
    withdrawn["state"] = json!("withdrawn");
    withdrawn["at"] = json!("2026-11-02");
    posted(&app, "/v1/consents", &withdrawn).await;
    // Older evidence does not change the current state.
    let mut older = granted.clone();
    older["at"] = json!("2026-10-01");
    posted(&app, "/v1/consents", &older).await;

    let person = app.get(&format!("/v1/consents/{ALICE}")).await;
    assert_eq!(person["current"].as_array().unwrap().len(), 1);
    assert_eq!(person["current"][0]["state"], "withdrawn");
    let times: Vec<_> =
        person["history"].as_array().unwrap().iter().map(|one| one["at"].clone()).collect();
    assert_eq!(times.len(), 3);
    assert_eq!(times[0], "2026-11-02T00:00:00.000Z");
    assert_eq!(person["history"][1]["proof"], granted["proof"]);

    let csv = "number,category,source,at\n+15551230002,marketing,paper,2026-01-01\n+15551230002,utility,paper,2026-01-01\n";
    assert_eq!(posted(&admin, &lists("consents"), csv).await["added"], 2);
    let listed = async |query: &str| {
        app.get(&format!("/v1/consents?{query}")).await["consents"].as_array().unwrap().len()
    };
    assert_eq!(listed("").await, 3);
    assert_eq!(listed("history=true").await, 5);
    assert_eq!(listed("category=utility").await, 1);
    assert_eq!(listed("channel=whatsapp").await, 1);
    let (mut walked, mut cursor) = (0, String::new());
    loop {
        let page = app.get(&format!("/v1/consents?limit=2&history=true{cursor}")).await;
        walked += page["consents"].as_array().unwrap().len();
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(walked, 5);
    let export = app.send(Method::GET, "/v1/consents/export", String::new()).await;
    let export = export.text().await.unwrap();
    assert!(export.contains("\"☑ Send me offers, \"\"weekly\"\"\""), "{export}");
    assert_eq!(posted(&admin, &lists("consents"), &export).await["added"], 0, "as it was");

    let (cannot_be, unreadable) = (coded(422, "invalid_field"), coded(400, "malformed_request"));
    for (field, value, expected) in [
        ("ip", "somewhere", &cannot_be),
        ("at", "tomorrow", &cannot_be),
        ("at", "2999-01-01", &cannot_be),
        ("source", " ", &cannot_be),
        ("number", "5551230001", &cannot_be),
        ("region", "ZZ", &cannot_be),
        ("region", "USA", &unreadable),
        ("category", "sales", &unreadable),
        // A consent belongs to one channel.
        ("channel", "*", &unreadable),
    ] {
        let mut bad = granted.clone();
        bad[field] = json!(value);
        let refusal = app.refusal(Method::POST, "/v1/consents", &bad).await;
        assert_eq!(refusal, *expected, "{field} {value}");
    }
    let everywhere = "number,channel,category,source\n+15551230002,*,marketing,paper\n";
    let response = admin.send(Method::POST, &lists("consents"), everywhere.to_owned()).await;
    assert_eq!(response.status(), 422, "nor on a list");
    let audit = admin.get("/v1/audit").await.to_string();
    assert!(audit.contains("consent.withdrawn") && audit.contains("consents.imported"), "{audit}");
}

async fn tenant_sees_and_changes_only_its_own_permissions(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let (_, theirs) = admin.create("app", Some(OTHER), "theirs").await;
    let (_, their_admin) = admin.create("admin", Some(OTHER), "their administrator").await;
    let (app, own) = both_of(&sidecar, &admin).await;
    let (theirs, their_admin) =
        (Caller::app(&sidecar, &theirs), Caller::admin(&sidecar, &their_admin));
    posted(&app, "/v1/suppressions", json!({"number": ALICE})).await;
    let consent = json!({"number": ALICE, "category": "utility", "source": "form"});
    posted(&app, "/v1/consents", &consent).await;
    sidecar.claim(of_other(text_from("SM1", BOB, "STOP"))).await;

    assert_eq!(reasons(&theirs, ALICE).await, [""; 0]);
    assert_eq!(reasons(&app, BOB).await, [""; 0]);
    assert_eq!(reasons(&theirs, BOB).await, ["keyword - whatsapp true"]);
    assert_eq!(theirs.get("/v1/consents").await["consents"], json!([]));
    assert_eq!(theirs.get(&format!("/v1/consents/{ALICE}")).await["history"], json!([]));
    let none = coded(404, "not_suppressed");
    let path = format!("/v1/suppressions/{ALICE}");
    let own_path = format!("{path}?account_sid={OTHER}");
    assert_eq!(their_admin.refusal(Method::DELETE, &own_path, &Value::Null).await, none);
    for export in ["/v1/suppressions/export", "/v1/consents/export"] {
        let text = theirs.send(Method::GET, export, String::new()).await.text().await.unwrap();
        assert!(!text.contains(ALICE), "{text}");
    }
    let other = coded(403, "other_account");
    for path in ["suppressions", "suppressions/export", "consents", "consents/export"] {
        let path = format!("/v1/{path}?account_sid={ACCOUNT}");
        assert_eq!(theirs.refusal(Method::GET, &path, &Value::Null).await, other, "{path}");
    }
    let delete = format!("{path}?account_sid={ACCOUNT}");
    assert_eq!(their_admin.refusal(Method::DELETE, &delete, &Value::Null).await, other);
    for (path, mut body) in [
        ("/v1/suppressions", json!({"number": BOB})),
        ("/v1/consents", consent),
        ("/v1/checks", json!({"to": BOB, "kind": "session"})),
    ] {
        body["account_sid"] = json!(ACCOUNT);
        assert_eq!(theirs.refusal(Method::POST, path, &body).await, other, "{path}");
    }
    // A caller with a key for all accounts has to specify the account.
    let unbound = Caller::app(&sidecar, &admin.token);
    let account_required = coded(422, "account_required");
    assert_eq!(
        unbound.refusal(Method::GET, "/v1/suppressions", &Value::Null).await,
        account_required
    );
    assert!(own.get("/v1/audit").await.to_string().contains("suppression.added"));
    assert!(!their_admin.get("/v1/audit").await.to_string().contains("suppression"));
}

async fn both_of<'a>(sidecar: &'a Sidecar, admin: &Caller<'_>) -> (Caller<'a>, Caller<'a>) {
    let (_, token) = admin.create("app", Some(ACCOUNT), "shop").await;
    let (_, own) = admin.create("admin", Some(ACCOUNT), "its administrator").await;
    (Caller::app(sidecar, &token), Caller::admin(sidecar, &own))
}

pub(crate) fn run(world: &World, args: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
    command.current_dir(world.directory.path()).args(args).env_clear();
    command.env("DATABASE_URL", &world.database_url).env("USER", "tester");
    let output = command.env("TWILIO_ACCOUNT_SID", ACCOUNT).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

pub(crate) fn ran(world: &World, args: &[&str]) -> String {
    let (success, out, err) = run(world, args);
    assert!(success, "{args:?}: {err}");
    out
}

async fn command_line_works_beside_a_running_sidecar(world: World) {
    let sidecar = world.sidecar().await;
    let (app, admin) = both(&sidecar).await;
    let add = ["suppressions", "add", "(555) 123-0001", "--region", "US", "--channel", "whatsapp"];
    let table = ran(&world, &add);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("NUMBER ") && lines.len() == 2, "{table}");
    assert!(lines[1].starts_with(ALICE) && lines[1].contains("administrator"), "{table}");
    assert!(sidecar.claim(text_from("SM1", ALICE, "START")).await.suppressed, "at once");
    let entry = admin.get("/v1/audit").await["entries"][0].clone();
    assert_eq!(
        (&entry["action"], &entry["actor"]),
        (&json!("suppression.added"), &json!("command line"))
    );
    assert_eq!(entry["source"], "user tester");

    let list = world.directory.path().join("list.csv");
    std::fs::write(&list, "number\n+14155552671\nno number\n").unwrap();
    let list = list.to_str().unwrap();
    let (success, _, err) = run(&world, &["suppressions", "import", list]);
    assert!(
        !success && err.contains("line 3: number: \"no number\" is not a phone number"),
        "{err}"
    );
    let output = ran(&world, &["suppressions", "import", list, "--partial"]);
    assert_eq!(output, "1 lines, 1 new suppressions\n");
    let listed: Value =
        serde_json::from_str(&ran(&world, &["suppressions", "list", "--json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let export = ran(&world, &["suppressions", "export"]);
    assert!(export.contains("+14155552671,sms,import,"), "{export}");
    ran(&world, &["suppressions", "remove", "whatsapp:+1 555 123 0001"]);
    assert!(!sidecar.claim(text_from("SM2", ALICE, "hi")).await.suppressed);
    let (success, _, err) = run(&world, &["suppressions", "remove", ALICE]);
    assert!(!success && err.contains("no suppression of that number is in effect"), "{err}");

    let record = |verb, at| {
        let number = format!("whatsapp:{ALICE}");
        let args = ["--category", "marketing", "--source", "call", "--at", at, "--ip", "192.0.2.1"];
        ran(&world, &[&["consents", verb, &number][..], &args[..]].concat())
    };
    record("record", "2026-11-01");
    record("withdraw", "2026-11-02");
    let listed = ran(&world, &["consents", "list", "--number", ALICE, "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["state"], &listed[1]), (&json!("withdrawn"), &Value::Null));
    let seen = app.get(&format!("/v1/consents/{ALICE}")).await;
    assert_eq!(seen["history"].as_array().unwrap().len(), 2);
    let export = ran(&world, &["consents", "export"]);
    std::fs::write(list, &export).unwrap();
    assert_eq!(ran(&world, &["consents", "import", list]), "2 lines, 0 new consents\n");
    let all = ran(&world, &["consents", "list", "--history", "-o", "tsv"]);
    assert_eq!(all.lines().count(), 3, "{all}");

    for (args, problem) in [
        (&["suppressions", "add", "5551230001"][..], "specify its region"),
        (&["suppressions", "add", ALICE, "--region", "ZZ"], "\"ZZ\" is not a country"),
        (
            &["consents", "record", ALICE, "--category", "sales", "--source", "x"],
            "must be one of marketing",
        ),
        (
            &["consents", "record", ALICE, "--category", "utility", "--source", "x", "--ip", "y"],
            "--ip: \"y\" is no",
        ),
    ] {
        let (success, _, err) = run(&world, args);
        assert!(!success && err.contains(problem), "{args:?}: {err}");
    }
}
