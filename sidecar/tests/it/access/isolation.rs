//! Isolation of accounts: no account reads or changes data of another one. All data belongs to account A. Keys of account B
//! send every operation of each listener's OpenAPI document, with every id, number and name of A in path, query and body.
//! The operations come from that document, so the test covers a new operation automatically. A's keys send the same
//! requests, so that an operation without any successful request fails the test.

use reqwest::Method;
use serde_json::{Map, Value, json};
use twilio_edge_contract::Decision;

use crate::{
    access::api_keys::{Caller, administrator, made_by_operator},
    api::message_lists::{accepted, of_other as of_a},
    inbound::deliveries::sinks,
    inbound::refused_requests::{report, signed_by},
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::{ACCOUNT as B, Sidecar, TOKEN, inbound, status},
    support::world::{World, on_every_store},
};

const A: &str = crate::api::message_lists::OTHER;
const ALICE: &str = "+15553217001";

/// Data of A that is in no request. A response to B that contains one of these texts is a leak.
const SECRETS: [&str; 5] =
    ["shop of A", "hello from A", "/twilio/route-of-A", "token-of-A", "whatsapp:+15553217009"];

/// Flow of A.
const FLOW: &str = "FW00112233445566778899aabbccddeeff";

/// Content type of the stored media.
const MEDIUM: &str = "text/plain";

/// Serial number of A's first object, for paths with a numeric id such as that of a dead letter.
const FIRST: &str = "1";

on_every_store!(accounts_are_isolated_on_every_endpoint);

async fn accounts_are_isolated_on_every_endpoint(world: World) {
    let accounts = world.directory.path().join("accounts.toml");
    let keys = [(A, "token-of-A"), (B, "token-of-B")]
        .map(|(sid, token)| format!("[[account]]\nsid = \"{sid}\"\nauth_tokens = [\"{token}\"]\n"));
    std::fs::write(&accounts, keys.concat()).unwrap();
    let receiver = Receiver::start().await;
    receiver.answers(|_| 422);
    let sinks = sinks(&world, &[("app", &receiver, "")]);
    let sending = world.directory.path().join("sending.toml");
    std::fs::write(&sending, format!("[[account]]\nsid = \"{A}\"\nauth_token = \"hush\"\nverify_service_sid = \"VA00112233445566778899aabbccddeeff\"\n"))
        .unwrap();
    // No server listens here, so no e-mail is sent.
    let email = world.directory.path().join("email.toml");
    std::fs::write(&email, format!("[[account]]\nsid = \"{A}\"\nprovider = \"sendgrid\"\napi_key = \"hush\"\nfrom = \"shop@example.com\"\n"))
        .unwrap();
    let bucket = format!("file://{}", world.directory.path().join("bucket").display());
    let sidecar = world
        .sidecar_with(&[
            ("TWILIO_EDGE_SINKS_FILE", sinks.as_str()),
            ("TWILIO_EDGE_API_BURST", "1000000"),
            ("TWILIO_EDGE_API_REQUESTS_PER_SECOND", "1000000"),
            ("TWILIO_EDGE_ACCOUNTS_FILE", accounts.to_str().unwrap()),
            ("TWILIO_EDGE_SENDING_FILE", sending.to_str().unwrap()),
            // No server listens here, so no message is sent.
            ("TWILIO_EDGE_SENDING_BASE_URL", "http://127.0.0.1:1"),
            ("TWILIO_EDGE_EMAIL_FILE", email.to_str().unwrap()),
            ("TWILIO_EDGE_EMAIL_BASE_URL", "http://127.0.0.1:1"),
            // A stream ends soon, so that its answer can be searched.
            ("TWILIO_EDGE_STREAM_MAX_AGE_S", "1"),
            ("TWILIO_EDGE_MEDIA_STORE_URL", &bucket),
            ("TWILIO_EDGE_MEDIA_STORE_PUBLIC_URL", "https://media.example.com"),
            ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", "6f1c0a9be54d4f62a3d87c15e0b29f48"),
        ])
        .await;
    let root = administrator(&sidecar).await;
    let mut of_a = Vec::new();
    for (scope, account) in [("admin", A), ("edge", A), ("admin", B), ("edge", B), ("app", A)] {
        let name = if account == A { "shop of A" } else { "shop of B" };
        of_a.push(match scope {
            "edge" => made_by_operator(&world, scope, Some(account)),
            _ => root.create(scope, Some(account), name).await,
        });
    }
    let (victim, _) = of_a.pop().unwrap();
    let tokens: Vec<String> = of_a.into_iter().map(|(_, token)| token).collect();
    let (a, b) = tokens.split_at(2);
    fill(&sidecar, &root).await;
    let wanted = json!({"sink": "app", "account_sid": A, "message_sid": "SMofA1"}).to_string();
    let replay: Value = root.send(Method::POST, "/v1/replays", wanted).await.json().await.unwrap();
    eventually("the sink has refused both", async || {
        root.get("/v1/dead-letters").await["dead_letters"].as_array().unwrap().len() == 2
    })
    .await;
    let mut known = known(&sidecar, &a[0], victim).await;
    known.ids.push(replay["id"].as_str().unwrap().to_owned());
    known.ids.push(medium(&sidecar, &a[0]).await);
    known.ids.push(waiting(&sidecar, &a[0]).await);
    let unknown = waiting(&sidecar, &a[0]).await;
    let change = format!("UPDATE outbound_messages SET state = 'unknown' WHERE id = '{unknown}'");
    world.stored(&format!("{change} RETURNING id")).await;
    known.ids.push(unknown);
    known.ids.push(refused(&sidecar, &a[0]).await);
    known.ids.extend(verification(&sidecar, &a[0]).await);
    known.ids.push(execution(&sidecar, &a[0]).await);

    let before = everything_of_a(&root, &sidecar).await;
    let (tried, leaks) = tried(&sidecar, b, &known).await;
    assert_eq!(leaks, [""; 0], "data of A in a response to B");
    assert_eq!(everything_of_a(&root, &sidecar).await, before, "changed by B");
    let (found, _) = self::tried(&sidecar, a, &known).await;
    for (operation, answered) in tried.iter().zip(&found) {
        // Settings concern all accounts: a key that is bound to one never sees them.
        let is_of_all = operation.0.ends_with("/v1/settings");
        assert!(
            answered.1 != is_of_all,
            "{}: no request succeeded, even by A, so this proves nothing",
            operation.0
        );
    }
    assert!(tried.len() > 15, "{tried:?}");
}

/// Creates the data, all of account A.
async fn fill(sidecar: &Sidecar, root: &Caller<'_>) {
    let tenant = json!({"friendly_name": "shop of A"}).to_string();
    let response = root.send(Method::PUT, &format!("/v1/tenants/{A}"), tenant).await;
    assert_eq!(response.status(), 200);

    let template = json!({"content_sid": "HX00112233445566778899aabbccddeeff"}).to_string();
    let place = format!("/v1/templates/template-of-A/en?account_sid={A}");
    assert_eq!(root.send(Method::PUT, &place, template).await.status(), 200);

    let route = |mut claim: twilio_edge_contract::Claim| {
        claim.route = "/twilio/route-of-A".into();
        of_a(claim)
    };
    let callback = status("c2", "SMofA2", "failed");
    let callback = twilio_edge_contract::Claim {
        form: format!("{}&To=%2B15553217001&From=%2B15553217009", callback.form),
        ..callback
    };
    let whatsapp = format!("whatsapp:{ALICE}");
    accepted(
        sidecar,
        &[
            route(inbound("c1", "SMofA1", &whatsapp, "hello from A")),
            route(callback),
            route(inbound("c3", "SMofA3", ALICE, "STOP")),
        ],
    )
    .await;
    let owed = route(inbound("c4", "SMofA4", &whatsapp, "hello from A"));
    assert_eq!(
        sidecar.decide(crate::inbound::deliveries::accepted(owed)).await,
        Decision::Accepted
    );
}

/// Stores a medium of A and returns its id.
async fn medium(sidecar: &Sidecar, admin_of_a: &str) -> String {
    let asked = sidecar.client.post(format!("{}/v1/media", sidecar.base)).bearer_auth(admin_of_a);
    let kept = asked.header("content-type", MEDIUM).body("hello from A").send().await.unwrap();
    assert_eq!(kept.status(), 201);
    kept.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

/// Creates a queued message of A, to a contact that is not suppressed, and returns its id.
async fn waiting(sidecar: &Sidecar, admin_of_a: &str) -> String {
    let at = (jiff::Timestamp::now() + std::time::Duration::from_secs(86_400)).to_string();
    let wanted = json!({"to": "+15553217002", "from": "+15553217009", "body": "hello from A", "send_at": at});
    let app = Caller::app(sidecar, admin_of_a);
    let taken = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    assert_eq!(taken.status(), 202);
    taken.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

/// Reports a refused request of A, signed for another origin, and returns its id.
async fn refused(sidecar: &Sidecar, admin_of_a: &str) -> String {
    let request = signed_by(A, "https://old.example.com", "token-of-A");
    assert_eq!(report(sidecar, TOKEN, vec![request]).await, 1);
    let app = Caller::app(sidecar, admin_of_a);
    let requests = async || app.get("/v1/refusals/requests").await["requests"].clone();
    eventually("the request is explained", async || requests().await[0].is_object()).await;
    requests().await[0]["id"].as_str().unwrap().to_owned()
}

/// Starts a verification of A, which waits because no server listens, and returns its id and that of its notification.
async fn verification(sidecar: &Sidecar, admin_of_a: &str) -> [String; 2] {
    let app = Caller::app(sidecar, admin_of_a);
    let wanted = json!({"to": "+15553217002", "channel": "sms"}).to_string();
    let started = app.send(Method::POST, "/v1/verifications", wanted).await;
    assert_eq!(started.status(), 202);
    let started: Value = started.json().await.unwrap();
    ["id", "notification_id"].map(|name| started[name].as_str().unwrap().to_owned())
}

/// Creates an execution of a flow of A, to a contact that is not suppressed, and returns its id.
async fn execution(sidecar: &Sidecar, admin_of_a: &str) -> String {
    let wanted = json!({"to": "+15553217002", "from": "+15553217009"});
    let app = Caller::app(sidecar, admin_of_a);
    let path = format!("/v1/flows/{FLOW}/executions");
    let taken = app.send(Method::POST, &path, wanted.to_string()).await;
    assert_eq!(taken.status(), 202);
    taken.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

/// Ids and the cursor by which a request can name A's data.
struct Known {
    ids: Vec<String>,
    cursor: String,
}

async fn known(sidecar: &Sidecar, admin_of_a: &str, victim: String) -> Known {
    let app = Caller::app(sidecar, admin_of_a);
    let events = app.get("/v1/events?limit=1").await;
    let event = events["events"][0]["id"].as_str().unwrap().to_owned();
    let cursor = events["next_cursor"].as_str().unwrap().to_owned();
    let message = "SMofA1".to_owned();
    Known { ids: vec![event, message, ALICE.into(), A.into(), victim], cursor }
}

/// Returns all data of A, as a key for all accounts sees it, without the times at which keys were used.
async fn everything_of_a(root: &Caller<'_>, sidecar: &Sidecar) -> Vec<Value> {
    let app = Caller::app(sidecar, &root.token);
    let mut all = Vec::new();
    for path in ["messages?", "events?", "windows?person=%2B15553217001&", "numbers/+15553217001?"]
    {
        all.push(app.get(&format!("/v1/{path}account_sid={A}")).await);
    }
    all.push(root.get(&format!("/v1/tenants/{A}")).await);
    for path in ["keys", "audit", "dead-letters", "replays"] {
        let mut page = root.get(&format!("/v1/{path}?account_sid={A}&limit=200")).await;
        for key in page["keys"].as_array_mut().into_iter().flatten() {
            key["last_used_at"] = Value::Null;
        }
        all.push(page);
    }
    all
}

/// Sends every operation of both OpenAPI documents with each token. Returns each operation and whether any of its requests
/// succeeded, and the responses that contain data of A.
async fn tried(
    sidecar: &Sidecar,
    tokens: &[String],
    known: &Known,
) -> (Vec<(String, bool)>, Vec<String>) {
    let (mut operations, mut leaks) = (Vec::new(), Vec::new());
    for base in [sidecar.base.clone(), sidecar.admin()] {
        let document = sidecar.client.get(format!("{base}/openapi.json")).send().await.unwrap();
        let document: Value = document.json().await.unwrap();
        // A canceled verification accepts no other operation.
        let mut paths: Vec<_> = document["paths"].as_object().unwrap().iter().collect();
        paths.sort_by_key(|(path, _)| path.ends_with("/cancel"));
        for (path, methods) in paths {
            // Reads come before the operations that delete data.
            let mut methods: Vec<_> = methods.as_object().unwrap().iter().collect();
            methods.sort_by_key(|(method, _)| *method != "get");
            for (method, operation) in methods {
                let mut good = false;
                for (place, body) in requests(&document, path, operation, known) {
                    for token in tokens {
                        let asked = format!("{method} {place} {body}");
                        let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                        let request = sidecar.client.request(verb, format!("{base}{place}"));
                        // A PUT needs the ETag of the stored version in If-Match.
                        let request = match method == "put" {
                            true => request.header("if-match", "\"2\""),
                            false => request,
                        };
                        let request = match path == "/v1/media" {
                            true => request.header("content-type", MEDIUM),
                            false => request,
                        };
                        let answer = request.bearer_auth(token).body(body.clone());
                        let answer = answer.send().await.unwrap();
                        good |= answer.status().is_success();
                        let head = format!("{:?}", answer.headers());
                        let text = head + &answer.text().await.unwrap();
                        let secrets = SECRETS.iter().copied();
                        let names = known.ids.iter().map(String::as_str);
                        let mut leaked = secrets.chain(names).filter(|word| {
                            text.contains(word) && !asked.contains(word.trim_start_matches('+'))
                        });
                        if let Some(word) = leaked.next() {
                            leaks.push(format!("{asked} leaked {word}: {text}"));
                        }
                    }
                }
                operations.push((format!("{method} {path}"), good));
            }
        }
    }
    (operations, leaks)
}

/// Builds every request of one operation that names data of A: path with query, and body.
fn requests(
    document: &Value,
    path: &str,
    operation: &Value,
    known: &Known,
) -> Vec<(String, String)> {
    let content = &operation["requestBody"]["content"];
    let body = match &content["application/json"]["schema"] {
        Value::Null if content["application/octet-stream"].is_object() => "hello".to_owned(),
        Value::Null if content["text/csv"].is_null() => String::new(),
        Value::Null => format!("number,category,source\n{ALICE},utility,form\n"),
        schema => {
            let mut body = example(document, schema, "");
            // These fields exclude others of the same request, or must be a time of today.
            if let Some(fields) = body.as_object_mut() {
                let others = [
                    "messaging_service_sid",
                    "content_sid",
                    "content_variables",
                    "template",
                    "fallback",
                    "send_at",
                ];
                for other in others.iter().filter(|_| path == "/v1/messages") {
                    fields.remove(*other);
                }
                if path.ends_with("/resolve") {
                    fields["message_sid"] = json!("SM00112233445566778899aabbccddeeff");
                }
            }
            own_body(path).unwrap_or(body).to_string()
        }
    };
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let of = |place: &str| parameters.iter().filter(|one| one["in"] == place).collect::<Vec<_>>();
    let (in_query, in_path) = (of("query"), of("path"));
    let value = |one: &Value| {
        let name = one["name"].as_str().unwrap();
        let value = match name {
            "cursor" => known.cursor.clone(),
            "sid" => "SMofA1".into(),
            _ => match example(document, &one["schema"], name) {
                Value::String(text) => text,
                other => other.to_string(),
            },
        };
        format!("{name}={}", value.replace('+', "%2B"))
    };
    let required = in_query.iter().filter(|one| one["required"] == true).map(|one| value(one));
    let required = required.collect::<Vec<_>>().join("&");
    let mut queries = vec![required.clone(), format!("{required}&account_sid={A}")];
    let optional = in_query.iter().filter(|one| one["required"] != true);
    queries.extend(optional.map(|one| format!("{required}&{}", value(one))));
    let mut paths = vec![path.to_owned()];
    for one in in_path {
        let place = format!("{{{}}}", one["name"].as_str().unwrap());
        let fill = |path: &String| -> Vec<String> {
            let ids = known.ids.iter().map(String::as_str).chain([FIRST]);
            match one["name"].as_str() {
                Some("name") if path.starts_with("/v1/sinks") => vec![path.replace(&place, "app")],
                Some("name") => vec![path.replace(&place, "template-of-A")],
                Some("locale") => vec![path.replace(&place, "en")],
                Some("flow_sid") => vec![path.replace(&place, FLOW)],
                _ => ids.map(|id| path.replace(&place, id)).collect(),
            }
        };
        paths = paths.iter().flat_map(fill).collect();
    }
    let all = paths.iter().flat_map(|path| queries.iter().map(move |query| (path, query)));
    all.map(|(path, query)| (format!("{path}?{}", query.trim_start_matches('&')), body.clone()))
        .collect()
}

/// Returns the body of an operation whose fields exclude each other. This contact is not suppressed, and an SMS needs no
/// conversation window.
fn own_body(path: &str) -> Option<Value> {
    let (to, from) = ("+15553217002", "+15553217009");
    let email = json!({"to": "ava@example.com", "subject": "Hi", "text": "Hi"});
    Some(match path {
        "/v1/emails" => email,
        "/v1/emails/batch" => json!({"emails": [email]}),
        "/v1/flows/{flow_sid}/executions" => json!({"to": to, "from": from}),
        "/v1/notifications" => json!({
            "to": {"number": to},
            "category": "service",
            "content": {"sms": {"text": "Hi", "from": from}},
            "plan": [{"channel": "sms"}],
        }),
        "/v1/verifications" => json!({"to": to, "channel": "sms"}),
        _ => return None,
    })
}

/// Returns a value that conforms to the schema, with an id, number or name of A in each field that takes one.
fn example(document: &Value, schema: &Value, name: &str) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = document.pointer(reference.trim_start_matches('#')).unwrap();
        return example(document, found, name);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let real = choices.iter().find(|one| one["type"] != "null").unwrap();
            return example(document, real, name);
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let mut whole = Map::new();
        for part in parts {
            match example(document, part, name) {
                Value::Object(fields) => whole.extend(fields),
                other => return other,
            }
        }
        return Value::Object(whole);
    }
    if let Some(words) = schema["enum"].as_array() {
        // No key makes a key of scope `edge`.
        let is_allowed = |word: &&Value| name != "scope" || **word != "edge";
        return words.iter().find(is_allowed).unwrap().clone();
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    match kinds.iter().find(|kind| **kind != "null").and_then(Value::as_str) {
        Some("object") => {
            let fields = schema["properties"].as_object().cloned().unwrap_or_default();
            let value = |(name, schema): (String, Value)| {
                let value = example(document, &schema, &name);
                (name, value)
            };
            Value::Object(fields.into_iter().map(value).collect())
        }
        Some("array") => json!([example(document, &schema["items"], name)]),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(true),
        _ => json!(text(name, schema)),
    }
}

fn text(name: &str, schema: &Value) -> &'static str {
    match name {
        "account_sid" => A,
        "number" | "to" | "person" | "theirs" => ALICE,
        "from" | "sender" => "+15553217009",
        "message_sid" | "sid" => "SMofA1",
        "parent_sid" => B,
        "senders" => ALICE,
        "services" => "MG00112233445566778899aabbccddeeff",
        "sink" => "app",
        "channel" => "whatsapp",
        "region" => "US",
        "locale" => "en",
        "content_sid" => "HX00112233445566778899aabbccddeeff",
        "at" => "2026-11-23T12:00:00Z",
        // It must be in the future, and within a hundred years.
        "expires_at" => "2100-01-01T00:00:00Z",
        "ip" | "end_user_address" => "192.0.2.1",
        "code" => "123456",
        "status_callback" => "https://app.example/status",
        "since" => "2001-01-01T00:00:00Z",
        "until" => "2101-01-01T00:00:00Z",
        "date_sent" => "2026-11-23",
        "form" => "From=%2B15553217001&To=%2B15553217009&Body=x",
        _ if schema["format"] == "date-time" => "2026-11-23T12:00:00Z",
        _ => "1",
    }
}
