//! Sign-in to the console over HTTP: the cookie, links, requests of other sites, and the audit log.

use reqwest::{Client, Method, Response, header, redirect::Policy};
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    support::sidecar::{ACCOUNT, Sidecar},
    support::world::{Kind, World},
};

crate::support::world::on_every_store!(@ sqlite Sqlite
    session_stands_for_its_key_until_it_ends link_signs_one_browser_in);
crate::support::world::on_every_store!(@ postgres Postgres
    session_stands_for_its_key_until_it_ends link_signs_one_browser_in);

/// Browser without scripts, which follows no redirect by itself.
struct Browser {
    client: Client,
    base: String,
}

impl Browser {
    fn new(base: &str) -> Browser {
        let client = Client::builder().redirect(Policy::none()).build().unwrap();
        Browser { client, base: base.to_owned() }
    }

    async fn get(&self, path: &str, cookie: &str) -> Response {
        let request = self.client.get(format!("{}{path}", self.base));
        request.header(header::COOKIE, cookie).send().await.unwrap()
    }

    /// Sends a form as a page of `origin` does.
    async fn post(
        &self,
        path: &str,
        origin: &str,
        cookie: &str,
        form: &[(&str, &str)],
    ) -> Response {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.client.post(format!("{}{path}", self.base));
        let request = request.header(header::COOKIE, cookie).header(header::ORIGIN, origin);
        let kind = "application/x-www-form-urlencoded";
        request.header(header::CONTENT_TYPE, kind).body(body).send().await.unwrap()
    }

    async fn sign_in(&self, key: &str) -> Response {
        self.post("/console/sign-in", &self.base, "", &[("key", key)]).await
    }
}

fn cookie(response: &Response) -> String {
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

fn location(response: &Response) -> &str {
    response.headers()[header::LOCATION].to_str().unwrap()
}

async fn actions(admin: &Caller<'_>) -> Vec<String> {
    let audit = admin.get("/v1/audit").await;
    let entries = audit["entries"].as_array().unwrap().iter();
    entries.map(|entry| format!("{} {}", entry["action"], entry["source"])).collect()
}

async fn start_session(sidecar: &Sidecar, token: &str) -> Response {
    let app = Caller::app(sidecar, token);
    app.send(Method::POST, "/v1/sessions", json!({"lifetime_s": 600}).to_string()).await
}

async fn session_stands_for_its_key_until_it_ends(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let (id, key) = admin.create("app", Some(ACCOUNT), "shop").await;
    let started = start_session(&sidecar, &key).await;
    assert_eq!(started.status(), 201);
    assert_eq!(started.headers()["cache-control"], "no-store");
    let started: Value = started.json().await.unwrap();
    assert_eq!(started["key"]["id"], json!(id));
    let token = started["token"].as_str().unwrap();
    let session = Caller::app(&sidecar, token);
    assert_eq!(session.get("/v1/key").await["id"], json!(id));
    // The session has the rights of the key, and no more.
    let administrator = Caller::admin(&sidecar, token);
    let forbidden = administrator.refusal(Method::GET, "/v1/keys", &Value::Null).await;
    assert_eq!(forbidden, coded(403, "wrong_scope"));
    // Only the digest of the token is stored.
    let secret = token.rsplit('_').next().unwrap();
    let stored = world.stored("SELECT secret_sha256 || key_id FROM sessions").await.concat();
    assert!(!stored.contains(secret), "{stored}");

    let unauthorized = coded(401, "unauthorized");
    let forged = token.replace(secret, &secret.chars().rev().collect::<String>());
    let forger = Caller::app(&sidecar, &forged);
    assert_eq!(forger.refusal(Method::GET, "/v1/key", &Value::Null).await, unauthorized);
    let ended = session.send(Method::DELETE, "/v1/session", String::new()).await;
    assert_eq!(ended.status(), 204);
    assert_eq!(session.refusal(Method::GET, "/v1/key", &Value::Null).await, unauthorized);
    let malformed = coded(400, "malformed_request");
    let app = Caller::app(&sidecar, &key);
    let without = app.send(Method::DELETE, "/v1/session", String::new()).await;
    assert_eq!(without.status(), 204, "a key has no session to end");
    for lifetime_s in [json!(0), json!(-1), json!("1")] {
        let body = json!({"lifetime_s": lifetime_s});
        assert_eq!(app.refusal(Method::POST, "/v1/sessions", &body).await, malformed);
    }
    let actions = actions(&admin).await;
    assert_eq!(
        actions[..2],
        [r#""session.ended" "127.0.0.1, session""#, r#""session.started" "127.0.0.1""#]
    );

    // A revoked key ends its sessions, and a key has a bounded number of them.
    for _ in 0..25 {
        assert_eq!(start_session(&sidecar, &key).await.status(), 201);
    }
    assert_eq!(world.stored("SELECT key_id FROM sessions").await.len(), 20);
    let started: Value = start_session(&sidecar, &key).await.json().await.unwrap();
    let session = Caller::app(&sidecar, started["token"].as_str().unwrap());
    session.get("/v1/key").await;
    admin.send(Method::DELETE, &format!("/v1/keys/{id}"), String::new()).await;
    assert_eq!(session.refusal(Method::GET, "/v1/key", &Value::Null).await, unauthorized);
}

async fn link_signs_one_browser_in(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let (_, key) = admin.create("app", Some(ACCOUNT), "shop").await;
    let started: Value = start_session(&sidecar, &key).await.json().await.unwrap();
    let token = started["token"].as_str().unwrap();
    let link = format!("/console/sign-in?next=/console/messages&token={token}");
    let browser = Browser::new(&sidecar.base);
    let opened = browser.get(&link, "").await;
    assert_eq!((opened.status().as_u16(), location(&opened)), (303, "/console/messages"));
    let signed_in = cookie(&opened);
    assert!(!signed_in.contains(token), "{signed_in}");
    assert_eq!(browser.get("/console/messages", &signed_in).await.status(), 200);
    // The link is used. The browser that used it is signed in, another one is not.
    assert_eq!(location(&browser.get(&link, &signed_in).await), "/console/messages");
    assert_eq!(browser.get(&link, "").await.status(), 401);
    // A link never contains a key, and leads to no other site.
    let with_key = format!("/console/sign-in?token={key}");
    assert_eq!(browser.get(&with_key, "").await.status(), 401);
    let started: Value = start_session(&sidecar, &key).await.json().await.unwrap();
    let elsewhere = format!(
        "/console/sign-in?next=https://evil.example/&token={}",
        started["token"].as_str().unwrap()
    );
    assert_eq!(location(&browser.get(&elsewhere, "").await), "/console");
}

#[tokio::test]
async fn sign_in_sets_a_protected_cookie_and_refuses_other_sites() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let (_, key) = admin.create("app", Some(ACCOUNT), "shop").await;
    let browser = Browser::new(&sidecar.base);

    let front = browser.get("/", "").await;
    assert_eq!(location(&front), "/console");
    let page = browser.get("/console/webhooks?number=%2B1", "").await;
    assert_eq!(location(&page), "/console/sign-in?next=%2Fconsole%2Fwebhooks%3Fnumber%3D%252B1");
    let sign_in = browser.get("/console/sign-in", "").await;
    let policy = sign_in.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(sign_in.headers()[header::CACHE_CONTROL], "no-store");

    let signed_in = browser.sign_in(&key).await;
    assert_eq!((signed_in.status().as_u16(), location(&signed_in)), (303, "/console"));
    let set = signed_in.headers()[header::SET_COOKIE].to_str().unwrap();
    assert!(set.ends_with("; Path=/console; HttpOnly; SameSite=Strict"), "{set}");
    let secure = sidecar.base.replace("http://", "https://");
    let over_https = browser.post("/console/sign-in", &secure, "", &[("key", &key)]).await;
    let set = over_https.headers()[header::SET_COOKIE].to_str().unwrap();
    assert!(set.ends_with("; Secure"), "{set}");

    let session = cookie(&signed_in);
    for origin in ["https://evil.example", "null"] {
        for path in ["/console/sign-in", "/console/sign-out", "/console/messages"] {
            let refused = browser.post(path, origin, &session, &[("key", &key)]).await;
            assert_eq!((refused.status().as_u16(), path), (403, path));
        }
    }
    assert_eq!(browser.get("/console", &session).await.status(), 200);

    // Filters' tokens sign in no browser, and wrong keys are limited as at the API.
    assert_eq!(browser.sign_in(crate::support::sidecar::TOKEN).await.status(), 403);
    let statuses = async {
        let mut statuses = Vec::new();
        for _ in 0..80 {
            statuses.push(browser.sign_in("twilio_edge_wrong").await.status().as_u16());
        }
        statuses
    };
    let statuses = statuses.await;
    assert_eq!((statuses[0], statuses[79]), (401, 429));
    assert_eq!(browser.sign_in(&key).await.status(), 303);
}

#[tokio::test]
async fn console_of_the_main_listener_has_no_administration_and_can_be_disabled() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let browser = Browser::new(&sidecar.base);
    let session = cookie(&browser.sign_in(&admin.token).await);
    let page = browser.get("/console", &session).await.text().await.unwrap();
    assert!(page.contains("/console/webhooks") && !page.contains("/console/audit"), "{page}");
    assert_eq!(browser.get("/console/nowhere", &session).await.status(), 404);
    assert_eq!(browser.get("/console/phone", &session).await.status(), 404);
    sidecar.stop();

    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_CONSOLE_ENABLED", "false")]).await;
    for base in [sidecar.base.clone(), sidecar.admin()] {
        assert_eq!(Browser::new(&base).get("/console/sign-in", "").await.status(), 404);
    }
}

#[tokio::test]
async fn session_outlives_a_restart() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let session = cookie(&Browser::new(&sidecar.base).sign_in(&admin.token).await);
    sidecar.stop();
    let sidecar = world.sidecar().await;
    assert_eq!(Browser::new(&sidecar.base).get("/console", &session).await.status(), 200);
}
