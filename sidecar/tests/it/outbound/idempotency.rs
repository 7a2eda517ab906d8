//! `Idempotency-Key` for clients: copies of a request, at the same time and later, at one sidecar and at two; other requests
//! and other callers with an equal key; and the recovery after a sidecar dies during a request.

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

/// Returns the status, whether the answer is a replay, and the body.
async fn parsed(response: Response) -> (StatusCode, bool, Value) {
    let replayed =
        response.headers().get("idempotent-replayed").is_some_and(|value| value == "true");
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
        let first = parsed(post(caller, path, &key, body).await).await;
        assert_eq!((first.0, first.1), (StatusCode::OK, false), "{path}: {}", first.2);
        let entries = world.stored(audit).await;
        for _ in 0..2 {
            let again = parsed(post(caller, path, &key, body).await).await;
            assert_eq!(again, (StatusCode::OK, true, first.2.clone()), "{path}");
        }
        assert_eq!(world.stored(audit).await, entries, "{path}: done once");
        // A body with one more byte is another request, and is not carried out.
        let other = refused(post(caller, path, &key, &format!("{body} ")).await).await;
        assert_eq!(other, coded(422, "idempotency_key_reused"), "{path}");
        assert_eq!(world.stored(audit).await, entries, "{path}");
    }

    // The token of an API key is returned once.
    let wanted = json!({"scope": "app", "name": "till", "account_sid": ACCOUNT}).to_string();
    let first = post(&admin, "/v1/keys", "k1", &wanted).await;
    let place = first.headers()["location"].clone();
    let first = parsed(first).await;
    let secret = first.2["token"].as_str().unwrap().to_owned();
    let again = post(&admin, "/v1/keys", "k1", &wanted).await;
    assert_eq!(again.headers()["location"], place);
    let again = parsed(again).await;
    assert_eq!((again.0, again.1), (StatusCode::CREATED, true));
    assert_eq!((&again.2["key"], &again.2["token"]), (&first.2["key"], &Value::Null));
    let stored = world.stored("SELECT coalesce(body, '') || fingerprint FROM idempotency_keys");
    let secret = secret.rsplit('_').next().unwrap().to_owned();
    assert!(!stored.await.concat().contains(&secret));

    // Equal keys of two callers are independent, also within one account.
    for account in [ACCOUNT, OTHER] {
        let (_, token) = admin.create("app", Some(account), "another").await;
        let another = Caller::app(&sidecar, &token);
        let (_, _, body) = &cases[1];
        let own = parsed(post(&another, "/v1/consents", "\"order 1\"", body).await).await;
        assert_eq!((own.0, own.1), (StatusCode::OK, false), "{}", own.2);
        assert_eq!(own.2["consent"]["account_sid"], account);
    }

    // A refused request is not carried out: its key may be used for the corrected request.
    let wrong = json!({"number": "no number"}).to_string();
    let refusal = refused(post(&app, "/v1/suppressions", "k2", &wrong).await).await;
    assert_eq!(refusal, coded(422, "invalid_field"));
    let right = json!({"number": ALICE}).to_string();
    assert_eq!(post(&app, "/v1/suppressions", "k2", &right).await.status(), 200);

    // An invalid key is refused before the request is carried out. A check changes nothing and ignores the key.
    for key in ["", "two words", "\"open", &"k".repeat(256)] {
        let refusal = refused(post(&app, "/v1/suppressions", key, &right).await).await;
        assert_eq!(refusal, coded(400, "malformed_request"), "{key}");
    }
    let check = json!({"to": ALICE, "kind": "template"}).to_string();
    for _ in 0..2 {
        let asked = parsed(post(&app, "/v1/checks", "k1", &check).await).await;
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
            // A client repeats a copy that arrives while another copy is carried out.
            loop {
                let response = post(&caller, "/v1/keys", "once", wanted).await;
                if response.status() != StatusCode::CONFLICT {
                    return parsed(response).await;
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
    let with_token = answers.iter().filter(|answer| answer.2["token"].is_string());
    let replayed: Vec<_> = with_token.map(|answer| answer.1).collect();
    assert_eq!(replayed, [false], "only the first answer has the token");
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
    let first = parsed(post(&app, "/v1/consents", "c1", &body).await).await;
    assert_eq!(first.0, StatusCode::OK);

    // State that a sidecar leaves if it is killed after the change and before its answer.
    let cut = |until: i64| {
        format!(
            "UPDATE idempotency_keys SET status = NULL, body = NULL, held_until_ms = {until} RETURNING owner"
        )
    };
    world.stored(&cut(i64::MAX)).await;
    let response = post(&app, "/v1/consents", "c1", &body).await;
    assert_eq!(refused(response).await, coded(409, "request_in_progress"));
    world.stored(&cut(0)).await;
    let again = parsed(post(&app, "/v1/consents", "c1", &body).await).await;
    assert_eq!((again.0, again.1), (StatusCode::OK, false));
    assert_eq!(again.2["consent"]["id"], first.2["consent"]["id"], "the very same");
    assert_eq!(again.2["new"], false);
    assert_eq!(world.stored(consents).await.len(), 1);

    // Expired answers are deleted in the background, without a request.
    world.stored("UPDATE idempotency_keys SET expires_at_ms = 0 RETURNING owner").await;
    eventually("the answer is deleted", || async {
        world.stored("SELECT owner FROM idempotency_keys").await.is_empty()
    })
    .await;
    let anew = parsed(post(&app, "/v1/consents", "c1", &body).await).await;
    assert_eq!((anew.0, anew.1, &anew.2["new"]), (StatusCode::OK, false, &json!(true)));
}

/// Uses the store directly. The changes of a request and its completion are one transaction, and of two sidecars that carry
/// out the request only one commits.
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
    let stores = {
        let tasks = Supervisor::new(Arc::default());
        Stores::open(&config, Default::default(), Arc::default(), &tasks).await.unwrap()
    };
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

    // The sidecar that was too late does not undo the completed request.
    requests.release(&slow).await.unwrap();
    requests.abandon(&slow).await.unwrap();
    let Admission::Replay(replayed) = requests.claim(&once, 5000).await.unwrap() else { panic!() };
    assert_eq!(replayed, answer("quick"));
    let other = IdempotentRequest { fingerprint: fingerprint("POST", "/v1/keys", b"[]"), ..once };
    assert!(matches!(requests.claim(&other, 5000).await.unwrap(), Admission::KeyReused));
    assert!(stores.close(second * 10).await);
}
