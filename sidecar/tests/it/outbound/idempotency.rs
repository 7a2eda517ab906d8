//! `Idempotency-Key` as a client meets it: copies of a request, at once and later, at one sidecar and at two, beside other
//! requests with the same key and other callers with the same one; and what is left when whoever carried it out is gone.

use std::{ffi::OsString, sync::Arc};

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use twilio_edge_domain::{
    api_key::Scope,
    idempotency::{Headers, Key, StoredResponse, fingerprint},
};
use twilio_edge_platform::{config::Merged, tasks::Supervisor};
use twilio_edge_store::{
    Admission, AuditEntry, CompletedRequest, IdempotentRequest, NewKey, StoreError, Stores,
};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::endpoints::refused,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar},
    support::world::{Kind, World, on_every_store},
};

const OTHER: &str = "ACffffffffffffffffffffffffffffffff";
const ALICE: &str = "+14155552671";

on_every_store!(
    repeated_request_gets_the_first_answer_and_changes_nothing,
    sixteen_copies_at_once_are_one_request,
    interrupted_request_is_carried_out_as_of_its_own_time,
    request_that_another_sidecar_took_over_is_rolled_back,
);

async fn post(caller: &Caller<'_>, path: &str, key: &str, body: &str) -> Response {
    let url = format!("{}{path}", caller.base);
    let request = caller.client().post(url).bearer_auth(&caller.token);
    request.header("Idempotency-Key", key).body(body.to_owned()).send().await.unwrap()
}

/// The status, whether it was answered before, and the body.
async fn told(response: Response) -> (StatusCode, bool, Value) {
    let replayed = response.headers().get("idempotent-replayed").is_some_and(|told| told == "true");
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.ends_with("json"), "{kind}");
    (response.status(), replayed, response.json().await.unwrap())
}

pub(crate) async fn repeated_request_gets_the_first_answer_and_changes_nothing(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let (_, token) = admin.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(&sidecar, &token);
    let of_account = format!("account_sid={ACCOUNT}");
    let consent = json!({"number": ALICE, "category": "marketing", "source": "form"}).to_string();
    let redaction = json!({"account_sid": ACCOUNT, "message_sid": "SM1"}).to_string();
    let list = format!("number,category,source\n{ALICE},utility,shop\n");
    let cases = [
        (&app, "/v1/suppressions".to_owned(), json!({"number": ALICE}).to_string()),
        (&app, "/v1/consents".to_owned(), consent),
        (&admin, format!("/v1/suppressions/import?{of_account}"), format!("number\n{ALICE}\n")),
        (&admin, format!("/v1/consents/import?{of_account}"), list),
        (&admin, "/v1/redactions".to_owned(), redaction),
    ];
    let audit = "SELECT action || subject FROM audit";
    for (nth, (caller, path, body)) in cases.iter().enumerate() {
        let key = format!("\"order {nth}\"");
        let first = told(post(caller, path, &key, body).await).await;
        assert_eq!((first.0, first.1), (StatusCode::OK, false), "{path}: {}", first.2);
        let entries = world.stored(audit).await;
        for _ in 0..2 {
            let again = told(post(caller, path, &key, body).await).await;
            assert_eq!(again, (StatusCode::OK, true, first.2.clone()), "{path}");
        }
        assert_eq!(world.stored(audit).await, entries, "{path}: done once");
        // To the byte, it is another request; and nothing of it is done.
        let other = refused(post(caller, path, &key, &format!("{body} ")).await).await;
        assert_eq!(other, coded(422, "idempotency_key_reused"), "{path}");
        assert_eq!(world.stored(audit).await, entries, "{path}");
    }

    // The token of a key is told once.
    let wanted = json!({"scope": "app", "name": "till", "account_sid": ACCOUNT}).to_string();
    let first = post(&admin, "/v1/keys", "k1", &wanted).await;
    let place = first.headers()["location"].clone();
    let first = told(first).await;
    let secret = first.2["token"].as_str().unwrap().to_owned();
    let again = post(&admin, "/v1/keys", "k1", &wanted).await;
    assert_eq!(again.headers()["location"], place);
    let again = told(again).await;
    assert_eq!((again.0, again.1), (StatusCode::CREATED, true));
    assert_eq!((&again.2["key"], &again.2["token"]), (&first.2["key"], &Value::Null));
    let stored = world.stored("SELECT coalesce(body, '') || fingerprint FROM idempotency_keys");
    let secret = secret.rsplit('_').next().unwrap().to_owned();
    assert!(!stored.await.concat().contains(&secret));

    // Another caller's key of the same name is another, of the same account or not.
    for account in [ACCOUNT, OTHER] {
        let (_, token) = admin.create("app", Some(account), "another").await;
        let another = Caller::app(&sidecar, &token);
        let (_, _, body) = &cases[1];
        let own = told(post(&another, "/v1/consents", "\"order 1\"", body).await).await;
        assert_eq!((own.0, own.1), (StatusCode::OK, false), "{}", own.2);
        assert_eq!(own.2["consent"]["account_sid"], account);
    }

    // What was refused was not done: the key is free for what is put right.
    let wrong = json!({"number": "nobody"}).to_string();
    let refusal = refused(post(&app, "/v1/suppressions", "k2", &wrong).await).await;
    assert_eq!(refusal, coded(422, "invalid_field"));
    let right = json!({"number": ALICE}).to_string();
    assert_eq!(post(&app, "/v1/suppressions", "k2", &right).await.status(), 200);

    // What is no key is refused before anything is done; who only asks needs none.
    for key in ["", "two words", "\"open", &"k".repeat(256)] {
        let refusal = refused(post(&app, "/v1/suppressions", key, &right).await).await;
        assert_eq!(refusal, coded(400, "malformed_request"), "{key}");
    }
    let check = json!({"to": ALICE, "kind": "template"}).to_string();
    for _ in 0..2 {
        let asked = told(post(&app, "/v1/checks", "k1", &check).await).await;
        assert_eq!((asked.0, asked.1), (StatusCode::OK, false));
    }
}

async fn sixteen_copies_at_once_are_one_request(world: World) {
    let first = world.sidecar().await;
    let is_shared = matches!(world.kind, Kind::Postgres | Kind::RedisPostgres);
    let second = if is_shared { Some(world.sidecar().await) } else { None };
    let sidecars: Vec<&Sidecar> = std::iter::once(&first).chain(&second).collect();
    let admin = administrator(&first).await;
    let keys = "SELECT id FROM api_keys WHERE name = 'till'";
    let wanted = json!({"scope": "app", "name": "till", "account_sid": ACCOUNT}).to_string();
    let copies = (0..16).map(|nth| {
        let caller = Caller::admin(sidecars[nth % sidecars.len()], &admin.token);
        let wanted = &wanted;
        async move {
            // As told: a copy that comes while another is carried out comes again.
            loop {
                let response = post(&caller, "/v1/keys", "once", wanted).await;
                if response.status() != StatusCode::CONFLICT {
                    return told(response).await;
                }
                assert_eq!(response.headers()["retry-after"], "1");
                assert_eq!(refused(response).await, coded(409, "request_in_progress"));
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    });
    let answers = futures_util::future::join_all(copies).await;
    let ids: Vec<_> = answers.iter().map(|answer| answer.2["key"]["id"].clone()).collect();
    assert!(ids.iter().all(|id| id.is_string() && *id == ids[0]), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.0 == StatusCode::CREATED), "{answers:?}");
    let told = answers.iter().filter(|answer| answer.2["token"].is_string());
    assert_eq!(told.map(|answer| answer.1).collect::<Vec<_>>(), [false], "told once");
    assert_eq!(answers.iter().filter(|answer| !answer.1).count(), 1);
    assert_eq!(world.stored(keys).await.len(), 1);
    let audited = "SELECT subject FROM audit WHERE detail LIKE '%till%'";
    assert_eq!(world.stored(audited).await.len(), 1);
}

async fn interrupted_request_is_carried_out_as_of_its_own_time(world: World) {
    let settings = [("TWILIO_EDGE_REDACTION_EVERY_S", "1")];
    let sidecar = world.sidecar_with(&settings).await;
    let admin = administrator(&sidecar).await;
    let (_, token) = admin.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(&sidecar, &token);
    let body = json!({"number": ALICE, "category": "marketing", "source": "form"}).to_string();
    let consents = "SELECT id FROM consents";
    let first = told(post(&app, "/v1/consents", "c1", &body).await).await;
    assert_eq!(first.0, StatusCode::OK);

    // As a sidecar leaves it that is killed between what it did and its answer.
    let cut = |until: i64| {
        format!(
            "UPDATE idempotency_keys SET status = NULL, body = NULL, held_until_ms = {until} RETURNING owner"
        )
    };
    world.stored(&cut(i64::MAX)).await;
    let response = post(&app, "/v1/consents", "c1", &body).await;
    assert_eq!(refused(response).await, coded(409, "request_in_progress"));
    world.stored(&cut(0)).await;
    let again = told(post(&app, "/v1/consents", "c1", &body).await).await;
    assert_eq!((again.0, again.1), (StatusCode::OK, false));
    assert_eq!(again.2["consent"]["id"], first.2["consent"]["id"], "the very same");
    assert_eq!(again.2["new"], false);
    assert_eq!(world.stored(consents).await.len(), 1);

    // What is not told any more is gone, without anybody asking for it.
    world.stored("UPDATE idempotency_keys SET expires_at_ms = 0 RETURNING owner").await;
    eventually("the answer is forgotten", || async {
        world.stored("SELECT owner FROM idempotency_keys").await.is_empty()
    })
    .await;
    let anew = told(post(&app, "/v1/consents", "c1", &body).await).await;
    assert_eq!((anew.0, anew.1, &anew.2["new"]), (StatusCode::OK, false, &json!(true)));
}

/// The store itself, as whoever writes more than one row needs it: what a request changes and that it is done are one
/// transaction, and of two that carry it out only one commits.
async fn request_that_another_sidecar_took_over_is_rolled_back(world: World) {
    let redis_url =
        world.redis.as_ref().map(crate::support::servers::Redis::url).unwrap_or_default();
    let spool = world.directory.path().join("spool").display().to_string();
    let settings = [
        ("DATABASE_URL", world.database_url.as_str()),
        ("REDIS_URL", &redis_url),
        ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "20000"),
        ("TWILIO_EDGE_EVENTS_SPOOL_DIR", &spool),
    ];
    let settings = settings.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let config = Merged::read(None, settings.into_iter()).check().unwrap();
    let stores =
        Stores::open(&config, Arc::default(), &Supervisor::new(Arc::default())).await.unwrap();
    let second = std::time::Duration::from_secs(1);
    let requests = stores.idempotency(second, second * 60);
    let once = IdempotentRequest {
        tenant: Some(ACCOUNT.into()),
        principal: "key 1".into(),
        key: Key::read(b"k1").unwrap(),
        fingerprint: fingerprint("POST", "/v1/keys", b"{}"),
    };
    let ours = |admission| match admission {
        Admission::Execute(turn) => turn,
        other => panic!("{other:?}"),
    };
    let slow = ours(requests.claim(&once, 1000).await.unwrap());
    assert!(matches!(requests.claim(&once, 1999).await.unwrap(), Admission::InProgress));
    let quick = ours(requests.claim(&once, 2000).await.unwrap());
    assert_eq!((slow.as_of_ms, quick.as_of_ms), (1000, 1000));

    let answer =
        |body: &str| StoredResponse { status: 201, headers: Headers::default(), body: body.into() };
    let api_keys = stores.api_keys();
    let add = async |id: &str, done: &CompletedRequest| {
        let key = NewKey {
            id: id.into(),
            name: "till".into(),
            scope: Scope::App,
            account_sid: None,
            secret_sha256: String::new(),
            created_at_ms: 1,
            created_by: "test".into(),
        };
        let entry = AuditEntry {
            id: 0,
            at_ms: 1,
            actor: "test".into(),
            source: "test".into(),
            action: "key.created".into(),
            subject: id.into(),
            account_sid: None,
            detail: "{}".into(),
        };
        api_keys.add_key(&key, &entry, Some(done)).await
    };
    add("quick", &CompletedRequest { turn: quick, answer: answer("quick") }).await.unwrap();
    let late = add("slow", &CompletedRequest { turn: slow.clone(), answer: answer("slow") }).await;
    assert!(matches!(late, Err(StoreError::Refused(_))), "{late:?}");
    assert_eq!(world.stored("SELECT id FROM api_keys").await, ["quick"]);
    assert_eq!(world.stored("SELECT subject FROM audit").await, ["quick"]);

    // Nor does it take back what is done.
    requests.release(&slow).await.unwrap();
    requests.abandon(&slow).await.unwrap();
    let Admission::Replay(told) = requests.claim(&once, 5000).await.unwrap() else { panic!() };
    assert_eq!(told, answer("quick"));
    let other = IdempotentRequest { fingerprint: fingerprint("POST", "/v1/keys", b"[]"), ..once };
    assert!(matches!(requests.claim(&other, 5000).await.unwrap(), Admission::KeyReused));
    assert!(stores.close(second * 10).await);
}
