//! The API keys as their owners meet them: made, used, limited, revoked, by API and command line; the audit of all that;
//! and tenants that try to see each other.

use std::process::{Command, Output};

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{EDGE_CONFIG_PATH, EXCHANGE_PATH, Outcome};

use crate::{
    api::endpoints::refused,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, TOKEN, message, settlement},
    support::world::{Kind, World},
};

const OTHER: &str = "ACffffffffffffffffffffffffffffffff";

crate::support::world::on_every_store!(@ sqlite Sqlite
    key_is_shown_once_and_good_until_it_is_revoked scope_permits_only_its_requests
    tenant_sees_only_its_own_keys pages_skip_nothing_and_repeat_nothing
    command_line_creates_keys_beside_a_running_sidecar key_creates_no_key_with_more_rights);
crate::support::world::on_every_store!(@ postgres Postgres
    key_is_shown_once_and_good_until_it_is_revoked scope_permits_only_its_requests
    tenant_sees_only_its_own_keys pages_skip_nothing_and_repeat_nothing
    command_line_creates_keys_beside_a_running_sidecar);

/// One caller of one listener.
pub(crate) struct Caller<'a> {
    sidecar: &'a Sidecar,
    pub(crate) base: String,
    pub(crate) token: String,
}

impl Caller<'_> {
    pub(crate) fn app<'a>(sidecar: &'a Sidecar, token: &str) -> Caller<'a> {
        Caller { sidecar, base: sidecar.base.clone(), token: token.to_owned() }
    }

    pub(crate) fn admin<'a>(sidecar: &'a Sidecar, token: &str) -> Caller<'a> {
        Caller { sidecar, base: sidecar.admin(), token: token.to_owned() }
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.sidecar.client
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: String) -> reqwest::Response {
        let url = format!("{}{path}", self.base);
        let request = self.sidecar.client.request(method, url).bearer_auth(&self.token);
        request.body(body).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.send(Method::GET, path, String::new()).await;
        let (status, body) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn refusal(&self, method: Method, path: &str, body: &Value) -> (u16, String) {
        refused(self.send(method, path, body.to_string()).await).await
    }

    /// Makes a key; its id and its token.
    pub(crate) async fn create(
        &self,
        scope: &str,
        account: Option<&str>,
        name: &str,
    ) -> (String, String) {
        let wanted = json!({"scope": scope, "account_sid": account, "name": name});
        let response = self.send(Method::POST, "/v1/keys", wanted.to_string()).await;
        assert_eq!((response.status().as_u16(), account), (201, account));
        assert_eq!(response.headers()["cache-control"], "no-store");
        let place = response.headers()["location"].to_str().unwrap().to_owned();
        let made: Value = response.json().await.unwrap();
        let id = made["key"]["id"].as_str().unwrap().to_owned();
        assert_eq!(place, format!("/v1/keys/{id}"));
        assert_eq!((&made["key"]["scope"], &made["key"]["name"]), (&json!(scope), &json!(name)));
        (id, made["token"].as_str().unwrap().to_owned())
    }
}

/// The first administrator, made with the token the sidecar was started with.
pub(crate) async fn administrator(sidecar: &Sidecar) -> Caller<'_> {
    let (_, token) = Caller::admin(sidecar, TOKEN).create("admin", None, "first").await;
    Caller::admin(sidecar, &token)
}

pub(crate) fn coded(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn ids(page: &Value) -> Vec<String> {
    let rows = page.as_object().unwrap().values().find_map(Value::as_array).unwrap();
    rows.iter().map(|row| row["id"].to_string()).collect()
}

pub(crate) async fn key_is_shown_once_and_good_until_it_is_revoked(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    // The token was good for the first administrator only.
    let bootstrap = Caller::admin(&sidecar, TOKEN);
    let over = coded(403, "bootstrap_over");
    assert_eq!(bootstrap.refusal(Method::GET, "/v1/keys", &Value::Null).await, over);

    let (id, token) = admin.create("app", Some(ACCOUNT), "the shop").await;
    let app = Caller::app(&sidecar, &token);
    let own = app.get("/v1/key").await;
    assert_eq!((&own["id"], &own["account_sid"]), (&json!(id), &json!(ACCOUNT)));
    eventually("the use of the key is noted", || async {
        admin.get(&format!("/v1/keys/{id}")).await["last_used_at"].is_string()
    })
    .await;

    // Neither the API nor the database nor the log contains the secret afterwards.
    let secret = token.rsplit('_').next().unwrap();
    let listed =
        admin.get("/v1/keys").await.to_string() + &admin.get("/v1/audit").await.to_string();
    let stored =
        world.stored("SELECT id || name || secret_sha256 || created_by FROM api_keys").await;
    let audited = world.stored("SELECT actor || subject || detail FROM audit").await;
    for text in [listed, stored.concat(), audited.concat(), sidecar.log()] {
        assert!(!text.contains(secret), "{text}");
    }

    // A token with the same id and another secret is not valid.
    let forged = token.replace(secret, &secret.chars().rev().collect::<String>());
    let unauthorized = coded(401, "unauthorized");
    let forger = Caller::app(&sidecar, &forged);
    assert_eq!(forger.refusal(Method::GET, "/v1/key", &Value::Null).await, unauthorized);

    let path = format!("/v1/keys/{id}");
    for _ in 0..2 {
        let response = admin.send(Method::DELETE, &path, String::new()).await;
        assert_eq!(response.status(), 200);
        let key: Value = response.json().await.unwrap();
        assert!(key["revoked_at"].is_string(), "{key}");
        assert_eq!(app.refusal(Method::GET, "/v1/key", &Value::Null).await, unauthorized);
    }
    let audit = admin.get("/v1/audit").await;
    let entries = audit["entries"].as_array().unwrap();
    let actions: Vec<&str> = entries.iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["key.revoked", "key.created", "key.created"]);
    assert_eq!(entries[0]["subject"], format!("key {id}"));
    assert_eq!(entries[0]["source"], "127.0.0.1");
    assert_eq!(entries[0]["account_sid"], ACCOUNT);
    assert_eq!(entries[1]["detail"], json!({"name": "the shop", "scope": "app"}));
    assert_eq!(entries[2]["actor"], "TWILIO_EDGE_TOKEN");

    let of_admin = format!("actor={}", entries[0]["actor"].as_str().unwrap().replace(' ', "%20"));
    for (filter, count) in [
        ("action=key.created", 2),
        ("actor=TWILIO_EDGE_TOKEN", 1),
        (&of_admin, 2),
        (&format!("{of_admin}&action=key.created&account_sid={ACCOUNT}"), 1),
        ("since=2001-01-01&until=2999-01-01", 3),
        ("since=2999-01-01", 0),
        ("until=2001-01-01", 0),
    ] {
        assert_eq!(ids(&admin.get(&format!("/v1/audit?{filter}")).await).len(), count, "{filter}");
    }
    let malformed = coded(400, "malformed_request");
    for filter in ["actor=", "action=%01", "since=yesterday"] {
        let path = format!("/v1/audit?{filter}");
        assert_eq!(admin.refusal(Method::GET, &path, &Value::Null).await, malformed, "{filter}");
    }
}

async fn scope_permits_only_its_requests(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let claims = json!({"v": 1, "claims": [message("c1", "SM1")]}).to_string();
    let wrong = coded(403, "wrong_scope");
    for (scope, edge, app, administration) in
        [("edge", true, false, false), ("app", false, true, false), ("admin", false, true, true)]
    {
        let (_, token) = match scope {
            "edge" => made_by_operator(&world, scope, None),
            _ => admin.create(scope, None, scope).await,
        };
        let (main, other) = (Caller::app(&sidecar, &token), Caller::admin(&sidecar, &token));
        for (permitted, caller, method, path, body) in [
            (edge, &main, Method::POST, EXCHANGE_PATH, claims.clone()),
            (app, &main, Method::GET, "/v1/key", String::new()),
            (administration, &other, Method::GET, "/v1/keys", String::new()),
            (administration, &other, Method::GET, "/v1/audit", String::new()),
        ] {
            let response = caller.send(method, path, body).await;
            match permitted {
                true => assert_eq!(response.status(), 200, "{scope} {path}"),
                false => assert_eq!(refused(response).await, wrong, "{scope} {path}"),
            }
        }
        // Each listener has its own paths.
        let nowhere = coded(404, "not_found");
        assert_eq!(main.refusal(Method::GET, "/v1/keys", &Value::Null).await, nowhere);
        assert_eq!(other.refusal(Method::POST, EXCHANGE_PATH, &Value::Null).await, nowhere);
    }
    // The edge token is for filters and not for applications.
    let filter = Caller::app(&sidecar, TOKEN);
    assert_eq!(filter.refusal(Method::GET, "/v1/key", &Value::Null).await, wrong);
}

async fn tenant_sees_only_its_own_keys(world: World) {
    let file = format!(
        "[[account]]\nsid = \"{ACCOUNT}\"\nauth_tokens = [\"mine\"]\n\
         [[account]]\nsid = \"{OTHER}\"\nauth_tokens = [\"theirs\"]\n"
    );
    std::fs::write(world.directory.path().join("accounts.toml"), file).unwrap();
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_ACCOUNTS_FILE", "accounts.toml")]).await;
    let admin = administrator(&sidecar).await;
    let (theirs, _) = admin.create("app", Some(OTHER), "theirs").await;
    let (unbound, _) = admin.create("app", None, "of all").await;
    let (_, token) = admin.create("admin", Some(ACCOUNT), "mine").await;
    let tenant = Caller::admin(&sidecar, &token);
    // A key that is bound to an account creates bound keys, also if the request names no account.
    let (mine, _) = tenant.create("app", None, "my own").await;

    let hidden = coded(404, "no_such_key");
    for id in [&theirs, &unbound] {
        let path = format!("/v1/keys/{id}");
        assert_eq!(tenant.refusal(Method::GET, &path, &Value::Null).await, hidden);
        assert_eq!(tenant.refusal(Method::DELETE, &path, &Value::Null).await, hidden);
        assert!(admin.get(&path).await["revoked_at"].is_null());
    }
    for (path, all) in [("/v1/keys", 5), ("/v1/audit", 5)] {
        assert_eq!(ids(&admin.get(path).await).len(), all);
        let seen = tenant.get(path).await.to_string();
        assert!(seen.contains(&mine), "{seen}");
        assert!(!seen.contains(OTHER) && !seen.contains(&theirs) && !seen.contains(&unbound));
        let query = format!("{path}?account_sid={OTHER}");
        let other = coded(403, "other_account");
        assert_eq!(tenant.refusal(Method::GET, &query, &Value::Null).await, other);
        assert_eq!(ids(&admin.get(&query).await).len(), 1);
    }
    let wanted = json!({"scope": "app", "account_sid": OTHER, "name": "n"});
    let other = coded(403, "other_account");
    assert_eq!(tenant.refusal(Method::POST, "/v1/keys", &wanted).await, other);

    // A filter whose key is bound to an account neither claims other accounts' webhooks nor gets their auth tokens.
    let (_, token) = made_by_operator(&world, "edge", Some(OTHER));
    let filter = Caller::app(&sidecar, &token);
    let claim = message("c1", "SM1");
    let claims = json!({"v": 1, "claims": [claim]});
    let settlements = json!({"v": 1, "settlements": [settlement(&claim, Outcome::Commit)]});
    let mut own = message("c2", "SM2");
    own.identity.account_sid = OTHER.into();
    let mixed =
        json!({"v": 1, "claims": [own], "settlements": [settlement(&claim, Outcome::Commit)]});
    assert_eq!(filter.refusal(Method::POST, EXCHANGE_PATH, &claims).await, other);
    assert_eq!(filter.refusal(Method::POST, EXCHANGE_PATH, &settlements).await, other);
    assert_eq!(filter.refusal(Method::POST, EXCHANGE_PATH, &mixed).await, other);
    let ring = filter.get(EDGE_CONFIG_PATH).await;
    assert_eq!(ring["accounts"].as_array().unwrap().len(), 1);
    assert_eq!(ring["accounts"][0]["auth_tokens"], json!(["theirs"]));
}

async fn pages_skip_nothing_and_repeat_nothing(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    for path in ["/v1/keys", "/v1/audit"] {
        // Made at once: however their transactions interleave, a walk meets each once.
        for _ in 0..4 {
            let make = |name| admin.create("app", Some(ACCOUNT), name);
            tokio::join!(make("one"), make("two"), make("three"));
        }
        let all = ids(&admin.get(&format!("{path}?limit=200")).await);
        let (mut walked, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = admin.get(&format!("{path}?limit=5{cursor}")).await;
            walked.extend(ids(&page));
            let Some(next) = page["next_cursor"].as_str() else { break };
            assert_eq!(ids(&page).len(), 5);
            cursor = format!("&cursor={next}");
            // What is added meanwhile comes before what is walked.
            admin.create("app", None, "meanwhile").await;
        }
        assert_eq!(walked, all, "{path}");
        for query in ["cursor=x", "cursor="] {
            let path = format!("{path}?{query}");
            let no_page = coded(404, "invalid_cursor");
            assert_eq!(admin.refusal(Method::GET, &path, &Value::Null).await, no_page, "{path}");
        }
        for query in ["limit=0", "limit=201", "limit=x", "page=2", "account_sid="] {
            let path = format!("{path}?{query}");
            let bad = coded(400, "malformed_request");
            assert_eq!(admin.refusal(Method::GET, &path, &Value::Null).await, bad, "{path}");
        }
    }
}

async fn command_line_creates_keys_beside_a_running_sidecar(world: World) {
    // Before there is any sidecar, and any table.
    let first = keys(&world, &["create", "--scope", "admin", "--name", "by hand", "--json"]);
    let first: Value = serde_json::from_slice(&first.stdout).unwrap();
    let sidecar = world.sidecar().await;
    let admin = Caller::admin(&sidecar, first["token"].as_str().unwrap());
    assert_eq!(ids(&admin.get("/v1/keys").await).len(), 1);

    let said = keys(&world, &["create", "--scope", "app", "--account", ACCOUNT, "--name", "shop"]);
    let said = String::from_utf8(said.stdout).unwrap();
    let token = said.lines().find(|line| line.starts_with("twilio_edge_")).unwrap();
    let app = Caller::app(&sidecar, token);
    let id = app.get("/v1/key").await["id"].as_str().unwrap().to_owned();

    let table = String::from_utf8(keys(&world, &["list"]).stdout).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("ID ") && lines.len() == 3, "{table}");
    assert!(lines[1].starts_with(&id) && lines[1].ends_with("shop"), "{table}");
    assert!(lines[1].contains(ACCOUNT) && !table.contains(token), "{table}");

    assert!(keys(&world, &["revoke", &id]).status.success());
    eventually("the sidecar hears of the revocation", || async {
        let response = app.send(Method::GET, "/v1/key", String::new()).await;
        response.status() == 401
    })
    .await;
    let listed = keys(&world, &["list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let entries = admin.get("/v1/audit").await["entries"].clone();
    assert_eq!(entries[0]["action"], "key.revoked");
    assert_eq!(entries[0]["actor"], "command line");
    assert_eq!(entries[0]["source"], "user tester");

    for (args, problem) in [
        (&["revoke", "0000000000000000"][..], "there is no such key"),
        (
            &["create", "--scope", "app", "--account", "AC1", "--name", "n"],
            "--account: \"AC1\" is not",
        ),
        (&["create", "--scope", "app", "--name", " "], "name: must be 1 to 100 characters"),
    ] {
        let output = keys(&world, args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(problem), "{said}");
    }
}

/// A key that the command line makes; its id and its token.
pub(crate) fn made_by_operator(
    world: &World,
    scope: &str,
    account: Option<&str>,
) -> (String, String) {
    let account = account.map(|account| ["--account", account]);
    let create = ["create", "--json", "--name", "of the operator", "--scope", scope];
    let made = keys(world, &[&create[..], account.as_ref().map_or(&[], |some| &some[..])].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["key"]["id"]), text(&made["token"]))
}

/// A new key permits no more than the key that creates it.
async fn key_creates_no_key_with_more_rights(world: World) {
    let accounts = format!("[[account]]\nsid = \"{ACCOUNT}\"\nauth_tokens = [\"twilios\"]\n");
    std::fs::write(world.directory.path().join("accounts.toml"), accounts).unwrap();
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_ACCOUNTS_FILE", "accounts.toml")]).await;
    // The edge token reads Twilio's auth tokens, so it may create such a key while there is no administrator.
    let (_, early) = Caller::admin(&sidecar, TOKEN).create("edge", None, "early").await;
    let ring = Caller::app(&sidecar, &early).get(EDGE_CONFIG_PATH).await;
    assert_eq!(ring["accounts"][0]["auth_tokens"], json!(["twilios"]));

    let admin = administrator(&sidecar).await;
    let bound = admin.create("admin", Some(ACCOUNT), "bound").await.1;
    let bound = Caller::admin(&sidecar, &bound);
    let (ungrantable, other) = (coded(403, "scope_not_grantable"), coded(403, "other_account"));
    for (caller, scope, account, expected) in [
        (&admin, "edge", None, Some(&ungrantable)),
        (&admin, "edge", Some(ACCOUNT), Some(&ungrantable)),
        (&admin, "app", None, None),
        (&admin, "admin", Some(OTHER), None),
        (&bound, "edge", None, Some(&ungrantable)),
        (&bound, "edge", Some(ACCOUNT), Some(&ungrantable)),
        (&bound, "edge", Some(OTHER), Some(&ungrantable)),
        (&bound, "app", Some(ACCOUNT), None),
        (&bound, "app", Some(OTHER), Some(&other)),
        (&bound, "admin", None, None),
        (&bound, "admin", Some(OTHER), Some(&other)),
    ] {
        let wanted = json!({"scope": scope, "account_sid": account, "name": "n"});
        let before = world.stored("SELECT id FROM api_keys").await.len();
        match expected {
            Some(refusal) => {
                let refused = caller.refusal(Method::POST, "/v1/keys", &wanted).await;
                assert_eq!(&refused, refusal, "{scope} {account:?}");
                assert_eq!(world.stored("SELECT id FROM api_keys").await.len(), before);
            }
            None => {
                let made = caller.send(Method::POST, "/v1/keys", wanted.to_string()).await;
                let made: Value = made.json().await.unwrap();
                let is_bound = caller.token == bound.token;
                let account = account.or(is_bound.then_some(ACCOUNT));
                assert_eq!(made["key"]["account_sid"], json!(account), "{scope}");
                // What was made reads no tokens of Twilio.
                let token = made["token"].as_str().unwrap();
                let edge = Caller::app(&sidecar, token);
                let wrong = coded(403, "wrong_scope");
                assert_eq!(edge.refusal(Method::GET, EDGE_CONFIG_PATH, &Value::Null).await, wrong);
            }
        }
    }
    // Keys of other scopes make none.
    let (_, app) = admin.create("app", None, "app").await;
    let (_, edge) = made_by_operator(&world, "edge", None);
    for token in [app, edge] {
        let wanted = json!({"scope": "app", "name": "n"});
        let caller = Caller::admin(&sidecar, &token);
        let refused = caller.refusal(Method::POST, "/v1/keys", &wanted).await;
        assert_eq!(refused, coded(403, "wrong_scope"));
    }
}

fn keys(world: &World, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
    command.current_dir(world.directory.path()).arg("keys").args(args).env_clear();
    command.env("DATABASE_URL", &world.database_url).env("USER", "tester").output().unwrap()
}

#[tokio::test]
async fn caller_over_its_rate_gets_retry_after() {
    let world = World::new(Kind::Sqlite).await;
    let slow = [("TWILIO_EDGE_API_BURST", "3"), ("TWILIO_EDGE_API_REQUESTS_PER_SECOND", "1")];
    let sidecar = world.sidecar_with(&slow).await;
    let (_, token) = Caller::admin(&sidecar, TOKEN).create("admin", None, "first").await;
    let (one, two) = (Caller::app(&sidecar, &token), Caller::admin(&sidecar, &token));
    let (_, patient) = two.create("app", None, "another").await;
    let mut refusal = None;
    for _ in 0..20 {
        let response = one.send(Method::GET, "/v1/key", String::new()).await;
        if response.status() == 429 {
            refusal = Some(response);
            break;
        }
    }
    let refusal = refusal.unwrap();
    let wait = refusal.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(refused(refusal).await, coded(429, "rate_limited"));
    // It is that key's limit, at whichever listener, and not another's.
    Caller::app(&sidecar, &patient).get("/v1/key").await;
    // Filters are not limited.
    for n in 0..20 {
        sidecar.claim(message(&format!("c{n}"), &format!("SM{n}"))).await;
    }
    eventually("the key is answered again", || async {
        one.send(Method::GET, "/v1/key", String::new()).await.status() == 200
    })
    .await;
}

#[tokio::test]
async fn invalid_key_request_is_refused_with_a_reason() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let long = "n".repeat(101);
    for wanted in [
        json!(null),
        json!({"scope": "app"}),
        json!({"scope": "root", "name": "n"}),
        json!({"scope": "app", "name": ""}),
        json!({"scope": "app", "name": long}),
        json!({"scope": "app", "name": "a\u{7}b"}),
        json!({"scope": "app", "name": "n", "account_sid": "AC1"}),
        json!({"scope": "app", "name": "n", "account_sid": OTHER.to_uppercase()}),
        json!({"scope": "app", "name": "n", "more": 1}),
    ] {
        let bad = coded(400, "malformed_request");
        assert_eq!(admin.refusal(Method::POST, "/v1/keys", &wanted).await, bad, "{wanted}");
    }
    let large = json!({"scope": "app", "name": "n".repeat(70_000)});
    let too_large = coded(413, "body_too_large");
    assert_eq!(admin.refusal(Method::POST, "/v1/keys", &large).await, too_large);
    let no_method = coded(405, "method_not_allowed");
    assert_eq!(admin.refusal(Method::PUT, "/v1/keys", &Value::Null).await, no_method);
    for id in ["x", "0000000000000000", "%ff", "'"] {
        let path = format!("/v1/keys/{id}");
        let hidden = coded(404, "no_such_key");
        assert_eq!(admin.refusal(Method::GET, &path, &Value::Null).await, hidden, "{id}");
        assert_eq!(admin.refusal(Method::DELETE, &path, &Value::Null).await, hidden, "{id}");
    }
    assert_eq!(ids(&admin.get("/v1/keys").await).len(), 1);
    let stranger = Caller::admin(&sidecar, "twilio_edge_x_y");
    let response = stranger.send(Method::GET, "/v1/keys", String::new()).await;
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    assert_eq!(refused(response).await, coded(401, "unauthorized"));
}

#[tokio::test]
async fn administration_may_be_off() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_ADMIN_LISTEN", "off")]).await;
    assert!(!sidecar.log().contains("the admin listener started"), "{}", sidecar.log());
    let app = Caller::app(&sidecar, TOKEN);
    let nowhere = coded(404, "not_found");
    assert_eq!(app.refusal(Method::GET, "/v1/keys", &Value::Null).await, nowhere);
}
