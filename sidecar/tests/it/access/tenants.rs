//! Tenant profiles: API and command line change them, an update needs the current ETag, and each profile is in effect for its
//! account.

use std::process::{Command, Output};

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::endpoints::refused,
    api::message_lists::{ALICE, OTHER, from, of_other},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, inbound},
    support::world::World,
};

crate::support::world::on_every_store!(@ sqlite Sqlite
    stale_etag_overwrites_nothing tenant_profile_applies_to_its_account_alone
    closed_account_is_not_answered tenants_are_changed_by_the_command_line);
crate::support::world::on_every_store!(@ postgres Postgres
    stale_etag_overwrites_nothing tenant_profile_applies_to_its_account_alone
    closed_account_is_not_answered tenants_are_changed_by_the_command_line);

fn path(account: &str) -> String {
    format!("/v1/tenants/{account}")
}

async fn put(admin: &Caller<'_>, account: &str, seen: Option<&str>, said: &Value) -> Response {
    let url = format!("{}{}", admin.base, path(account));
    let mut request = reqwest::Client::new().put(url).bearer_auth(&admin.token);
    if let Some(seen) = seen {
        request = request.header("if-match", seen);
    }
    request.body(said.to_string()).send().await.unwrap()
}

fn etag(response: &Response) -> String {
    response.headers()["etag"].to_str().unwrap().to_owned()
}

async fn stale_etag_overwrites_nothing(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let nothing = coded(404, "no_such_tenant");
    assert_eq!(admin.refusal(Method::GET, &path(ACCOUNT), &Value::Null).await, nothing);
    let early = put(&admin, ACCOUNT, Some("\"1\""), &json!({})).await;
    assert_eq!(refused(early).await, coded(412, "etag_mismatch"));

    let said = json!({"friendly_name": "Shop", "senders": ["+15550001111"], "parent_sid": OTHER});
    let first = put(&admin, ACCOUNT, None, &said).await;
    assert_eq!((first.status().as_u16(), etag(&first)), (200, "\"1\"".into()));
    let tenant: Value = first.json().await.unwrap();
    assert_eq!((&tenant["friendly_name"], &tenant["policy"]), (&json!("Shop"), &json!({})));
    assert_eq!(admin.get(&path(ACCOUNT)).await, tenant);
    assert_eq!(admin.get("/v1/tenants").await["tenants"], json!([tenant]));

    let unseen = put(&admin, ACCOUNT, None, &said).await;
    assert_eq!(refused(unseen).await, coded(428, "if_match_required"));
    let second = put(&admin, ACCOUNT, Some("\"1\""), &json!({"friendly_name": "Store"})).await;
    assert_eq!(etag(&second), "\"2\"");
    for stale in ["\"1\"", "\"3\"", "2", "*", "x"] {
        let stale = put(&admin, ACCOUNT, Some(stale), &said).await;
        assert_eq!(refused(stale).await, coded(412, "etag_mismatch"));
    }
    // Of many who saw the same, one changes it.
    let name = |n: usize| json!({"friendly_name": format!("n{n}")});
    let names: Vec<Value> = (0..8).map(name).collect();
    let all = names.iter().map(|said| put(&admin, ACCOUNT, Some("\"2\""), said));
    let mut changed = 0;
    for answer in futures(all).await {
        changed += usize::from(answer.status() == 200);
    }
    assert_eq!(changed, 1);
    let entries = admin.get("/v1/audit").await["entries"].clone();
    let sets = entries.as_array().unwrap().iter().filter(|entry| entry["action"] == "tenant.set");
    assert_eq!(sets.count(), 3, "{entries}");
    assert_eq!(entries[0]["detail"]["revision"], 3);

    for (said, code) in [
        (json!({"senders": ["whatsapp:"]}), coded(400, "malformed_request")),
        (json!({"more": 1}), coded(400, "malformed_request")),
        // Which would be one with nothing said in it.
        (json!([]), coded(400, "malformed_request")),
        (json!({"policy": {"nonsense": 1}}), coded(422, "invalid_field")),
        (json!({"retention": {"events": "1h"}}), coded(422, "invalid_field")),
        (json!({"parent_sid": ACCOUNT}), coded(422, "invalid_field")),
    ] {
        assert_eq!(refused(put(&admin, ACCOUNT, Some("\"3\""), &said).await).await, code, "{said}");
    }
    // An administrator of another account neither sees nor changes it.
    let other = admin.create("admin", Some(OTHER), "theirs").await.1;
    let other = Caller::admin(&sidecar, &other);
    let foreign = coded(403, "other_account");
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        assert_eq!(other.refusal(method, &path(ACCOUNT), &json!({})).await, foreign);
    }
    assert_eq!(other.get("/v1/tenants").await["tenants"], json!([]));
}

/// All of them, side by side.
async fn futures<F: Future<Output = Response>>(all: impl Iterator<Item = F>) -> Vec<Response> {
    let mut under_way: Vec<_> = all.map(Box::pin).collect();
    let mut ended = Vec::new();
    std::future::poll_fn(|context| {
        under_way.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(response) => {
                ended.push(response);
                false
            }
            std::task::Poll::Pending => true,
        });
        if under_way.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    ended
}

pub(crate) async fn tenant_profile_applies_to_its_account_alone(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    // One account keeps no bodies at all, and its STOPs are of every channel; the other is as usual.
    let said = json!({
        "policy": {"stop_reaches": "every_channel"},
        "retention": {"body": {"keep": "none", "redact": "remove"}},
    });
    assert_eq!(put(&admin, OTHER, None, &said).await.status(), 200);
    let app = admin.create("app", None, "both").await.1;
    let app = Caller::app(&sidecar, &app);
    let stop = |sid: &str| inbound(sid, sid, &format!("whatsapp:{ALICE}"), "STOP");
    for claim in
        [from("SM1", ALICE), of_other(from("SM2", ALICE)), stop("SM3"), of_other(stop("SM4"))]
    {
        sidecar.claim(claim).await;
    }
    let body = async |account: &str, sid: &str| {
        eventually("it is written", || async {
            let list = format!("/v1/events?account_sid={account}&sid={sid}");
            app.get(&list).await["events"][0].is_object()
        })
        .await;
        let list = app.get(&format!("/v1/events?account_sid={account}&sid={sid}")).await;
        let id = list["events"][0]["id"].as_str().unwrap();
        let event = app.get(&format!("/v1/events/{id}")).await;
        event["parameters"].to_string().contains("hello")
    };
    assert!(body(ACCOUNT, "SM1").await, "kept as for all");
    assert!(!body(OTHER, "SM2").await, "not kept at all");
    let reaches = async |account: &str| {
        world.stored(&format!("SELECT channel FROM suppressions WHERE tenant = '{account}'")).await
    };
    assert_eq!((reaches(ACCOUNT).await.len(), reaches(OTHER).await.len()), (1, 1));
    assert_ne!(reaches(ACCOUNT).await, reaches(OTHER).await);
}

async fn closed_account_is_not_answered(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let app = admin.create("app", Some(ACCOUNT), "shop").await.1;
    let app = Caller::app(&sidecar, &app);
    assert_eq!(put(&admin, ACCOUNT, None, &json!({"friendly_name": "Shop"})).await.status(), 200);
    app.get("/v1/key").await;
    let closed = admin.send(Method::DELETE, &path(ACCOUNT), String::new()).await;
    let closed: Value = closed.json().await.unwrap();
    assert!(closed["closed_at"].is_string(), "{closed}");
    let refusal = app.refusal(Method::GET, "/v1/messages", &Value::Null).await;
    assert_eq!(refusal, coded(403, "account_closed"));
    // Webhooks go on, and so does who is bound to no account.
    sidecar.claim(from("SM1", ALICE)).await;
    let opened = put(&admin, ACCOUNT, Some("\"2\""), &json!({"friendly_name": "Shop"})).await;
    assert_eq!(opened.status(), 200);
    app.get("/v1/messages").await;
    assert_eq!(admin.get("/v1/audit").await["entries"][1]["action"], "tenant.closed");
}

async fn tenants_are_changed_by_the_command_line(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let ran = |args: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
        command.current_dir(world.directory.path()).arg("tenants").args(args).env_clear();
        command.env("DATABASE_URL", &world.database_url).env("USER", "tester").output().unwrap()
    };
    let out = |args: &[&str]| {
        let output = ran(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(out(&["list"]), "No account has a profile.\n");
    out(&["set", ACCOUNT, "--name", "Shop", "--sender", "+15550001111", "--policy", "{}"]);
    let said = out(&["set", ACCOUNT, "--retention", r#"{"redact_codes": true}"#, "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["friendly_name"], &said["revision"]), (&json!("Shop"), &json!(2)));
    assert_eq!(admin.get(&path(ACCOUNT)).await, said);
    assert!(out(&["list"]).contains("Shop"));
    let shown = out(&["show", ACCOUNT]);
    assert!(shown.contains("redact_codes") && shown.contains("+15550001111"), "{shown}");
    // A sidecar that runs follows: what looks like a code is taken out of what comes from now on.
    eventually("it counts", || async {
        let sid = format!("SM{}", jiff::Timestamp::now().as_microsecond());
        sidecar.claim(inbound(&sid, &sid, ALICE, "your code is 123456")).await;
        // What came before is kept as it was, and what comes is written behind the answer.
        let without = "SELECT form FROM events WHERE form NOT LIKE '%123456%'";
        !world.stored(without).await.is_empty()
    })
    .await;
    let entry = admin.get("/v1/audit").await["entries"][0].clone();
    assert_eq!((&entry["action"], &entry["source"]), (&json!("tenant.set"), &json!("user tester")));
    for (args, problem) in [
        (&["show", OTHER][..], "the account has no profile"),
        (&["set", ACCOUNT, "--policy", r#"{"x": 1}"#], "policy.x"),
        (&["set", ACCOUNT, "--policy", "{"], "--policy"),
        (&["show", "AC1"], "must be AC and 32 lower-case"),
    ] {
        let output = ran(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(problem), "{problem}: {said}");
    }
}
