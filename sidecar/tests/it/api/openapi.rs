//! The description of the API, held against the API: that it is whole, that what it names is there, that its examples are
//! accepted, and that its viewer is complete.

use std::{collections::BTreeSet, io::Read, path::Path};

use reqwest::{Client, Method};
use serde_json::Value;
use twilio_edge_contract::{EDGE_CONFIG_PATH, EXCHANGE_PATH, REFUSALS_PATH};

use crate::{
    access::api_keys::administrator,
    api::endpoints::refused,
    inbound::deliveries::sinks,
    support::{
        receiver::Receiver,
        sidecar::{ACCOUNT, TOKEN},
        world::{Kind, World},
    },
};

/// The listeners, and every route of each.
const MAIN: &[(&str, &str)] = &[
    ("post", EXCHANGE_PATH),
    ("get", EDGE_CONFIG_PATH),
    ("post", REFUSALS_PATH),
    ("get", "/v1/key"),
    ("post", "/v1/sessions"),
    ("delete", "/v1/session"),
    ("get", "/v1/activity"),
    ("get", "/v1/messages"),
    ("get", "/v1/messages/{id}"),
    ("get", "/v1/messages/{id}/media"),
    ("get", "/v1/notifications"),
    ("post", "/v1/notifications"),
    ("get", "/v1/notifications/{id}"),
    ("get", "/v1/verifications/{id}"),
    ("get", "/v1/events"),
    ("get", "/v1/events/{id}"),
    ("get", "/v1/refusals"),
    ("get", "/v1/refusals/requests"),
    ("get", "/v1/refusals/{id}"),
    ("get", "/v1/stream"),
    ("get", "/v1/windows"),
    ("get", "/v1/statistics"),
    ("post", "/v1/messages"),
    ("post", "/v1/messages/batch"),
    ("post", "/v1/verifications"),
    ("post", "/v1/verifications/{id}/cancel"),
    ("post", "/v1/verifications/{id}/check"),
    ("post", "/v1/messages/{id}/cancel"),
    ("post", "/v1/messages/{id}/resolve"),
    ("post", "/v1/flows/{flow_sid}/executions"),
    ("get", "/v1/flows/{flow_sid}/executions/{id}"),
    ("post", "/v1/emails"),
    ("post", "/v1/emails/batch"),
    ("post", "/v1/media"),
    ("get", "/v1/media/{id}"),
    ("delete", "/v1/media/{id}"),
    ("get", "/v1/numbers/{number}"),
    ("get", "/v1/suppressions"),
    ("post", "/v1/suppressions"),
    ("get", "/v1/suppressions/export"),
    ("get", "/v1/suppressions/{number}"),
    ("get", "/v1/consents"),
    ("post", "/v1/consents"),
    ("get", "/v1/consents/export"),
    ("get", "/v1/consents/{number}"),
    ("post", "/v1/checks"),
    ("get", "/v1/templates"),
    ("get", "/v1/templates/{name}"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
];
const ADMIN: &[(&str, &str)] = &[
    ("get", "/v1/keys"),
    ("post", "/v1/keys"),
    ("get", "/v1/keys/{id}"),
    ("delete", "/v1/keys/{id}"),
    ("get", "/v1/audit"),
    ("get", "/v1/dead-letters"),
    ("get", "/v1/dead-letters/{id}"),
    ("post", "/v1/dead-letters/retry"),
    ("post", "/v1/dead-letters/discard"),
    ("get", "/v1/events/{id}/deliveries"),
    ("get", "/v1/sinks"),
    ("post", "/v1/sinks/{name}/test"),
    ("get", "/v1/replays"),
    ("post", "/v1/replays"),
    ("get", "/v1/replays/{id}"),
    ("post", "/v1/redactions"),
    ("get", "/v1/settings"),
    ("get", "/v1/tenants"),
    ("get", "/v1/tenants/{account_sid}"),
    ("put", "/v1/tenants/{account_sid}"),
    ("delete", "/v1/tenants/{account_sid}"),
    ("put", "/v1/templates/{name}/{locale}"),
    ("delete", "/v1/templates/{name}/{locale}"),
    ("delete", "/v1/suppressions/{number}"),
    ("post", "/v1/suppressions/import"),
    ("post", "/v1/consents/import"),
];

/// Operations with effects that run once even if a client repeats the request.
const ONCE: &[&str] = &[
    "/v1/messages",
    "/v1/messages/batch",
    "/v1/emails",
    "/v1/emails/batch",
    "/v1/notifications",
    "/v1/verifications",
    "/v1/flows/{flow_sid}/executions",
    "/v1/media",
    "/v1/suppressions",
    "/v1/consents",
    "/v1/keys",
    "/v1/redactions",
    "/v1/dead-letters/retry",
    "/v1/dead-letters/discard",
    "/v1/replays",
    "/v1/suppressions/import",
    "/v1/consents/import",
];

#[tokio::test]
async fn each_listener_describes_exactly_what_it_answers() {
    let world = World::new(Kind::Sqlite).await;
    // Each operation is requested once without a key.
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_API_BAD_TOKENS_PER_MINUTE", "1000")]).await;
    for (base, routes) in [(sidecar.base.clone(), MAIN), (sidecar.admin(), ADMIN)] {
        let response = sidecar.client.get(format!("{base}/openapi.json")).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        let document: Value = response.json().await.unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let expected: BTreeSet<_> = routes.iter().map(|(m, p)| format!("{m} {p}")).collect();
        let described: BTreeSet<_> =
            operations(&document).map(|(path, method, _)| format!("{method} {path}")).collect();
        assert_eq!(described, expected);
        every_reference_leads_somewhere(&document, &document);
        every_operation_is_whole(&document);
        check_described_responses(&sidecar.client, &base, &document).await;

        every_text_and_object_has_an_example(&document);
        check_viewer(&sidecar.client, &base).await;
    }
}

/// Clients are generated from the committed documents. `make openapi` writes them.
#[tokio::test]
async fn committed_documents_are_the_served_ones() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi");
    for (base, name) in [(sidecar.base.clone(), "app.json"), (sidecar.admin(), "admin.json")] {
        let served = sidecar.client.get(format!("{base}/openapi.json")).send().await.unwrap();
        let served: Value = served.json().await.unwrap();
        let committed = std::fs::read_to_string(folder.join(name)).unwrap();
        let committed: Value = serde_json::from_str(&committed).unwrap();
        let found = differences(&committed, &served, "");
        assert_eq!(found, Vec::<String>::new(), "docs/openapi/{name}: run `make openapi`");
    }
}

/// Returns the pointers at which two documents differ.
fn differences(committed: &Value, served: &Value, pointer: &str) -> Vec<String> {
    match (committed, served) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            let compared = names.into_iter().flat_map(|name| {
                differences(&committed[name], &served[name], &format!("{pointer}/{name}"))
            });
            compared.collect()
        }
        (one, other) if one == other => Vec::new(),
        _ => vec![pointer.to_owned()],
    }
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// The page, its scripts and its styles are there; its policy permits no inline script and no other host, and its settings name
/// no other host.
async fn check_viewer(client: &Client, base: &str) {
    let page = client.get(format!("{base}/docs")).send().await.unwrap();
    assert_eq!((page.status().as_u16(), page.url().path()), (200, "/docs/"));
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
    assert!(!policy.contains("unsafe-eval") && !policy.contains("http"), "{policy}");
    let page = unpacked(page).await;
    let files: Vec<&str> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|attribute| page.split(attribute).skip(1))
        .map(|rest| rest.split('"').next().unwrap().trim_start_matches("./"))
        .collect();
    assert!(files.contains(&"swagger-ui-bundle.js") && files.contains(&"swagger-ui.css"), "{page}");
    for file in files {
        let file = client.get(format!("{base}/docs/{file}")).send().await.unwrap();
        let kind = file.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(file.status(), 200, "{}", file.url());
        assert_eq!(file.headers()["x-content-type-options"], "nosniff");
        assert!(["text/css", "text/javascript", "image/png"].contains(&kind.as_str()), "{kind}");
    }
    let settings = client.get(format!("{base}/docs/swagger-initializer.js")).send().await.unwrap();
    let settings = unpacked(settings).await;
    for setting in [
        r#""url": "../openapi.json""#,
        r#""validatorUrl": "none""#,
        r#""queryConfigEnabled": false"#,
        r#""persistAuthorization": false"#,
    ] {
        assert!(settings.contains(setting), "{settings}");
    }
    for text in [page, settings] {
        assert!(!text.contains("://"), "the viewer loads nothing from elsewhere: {text}");
    }
    let unknown = client.get(format!("{base}/docs/..%2Fetc")).send().await.unwrap();
    assert_eq!(refused(unknown).await.0, 404);
}

async fn unpacked(response: reqwest::Response) -> String {
    let is_packed = response.headers().get("content-encoding").is_some();
    let body = response.bytes().await.unwrap();
    let mut text = String::new();
    match is_packed {
        true => flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap(),
        false => (&body[..]).read_to_string(&mut text).unwrap(),
    };
    text
}

/// Each field of a fixed type shows a value that could be real: a text, or an object without fields of its own.
fn every_text_and_object_has_an_example(document: &Value) {
    fn check(schema: &Value, place: &str) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let kinds = [&field["type"], &field["type"][0]];
            let is_text = kinds.contains(&&Value::from("string"))
                && field["enum"].is_null()
                && field["format"].is_null();
            let is_map = kinds.contains(&&Value::from("object")) && field["properties"].is_null();
            let has_example = field["examples"].as_array().is_some_and(|list| !list.is_empty());
            assert!(has_example || !is_text && !is_map, "{place}.{name} has no example");
            check(field, &format!("{place}.{name}"));
            check(&field["items"], &format!("{place}.{name}"));
        }
        for combination in ["allOf", "anyOf", "oneOf"] {
            let parts = schema[combination].as_array().into_iter().flatten();
            parts.for_each(|part| check(part, place));
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        check(schema, name);
    }
    for (path, method, operation) in operations(document) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.filter(|parameter| parameter["required"] == true) {
            assert!(!parameter["example"].is_null(), "{method} {path}: {}", parameter["name"]);
        }
        for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten()
        {
            let is_binary = kind == "application/octet-stream";
            assert!(is_binary || content["examples"].is_object(), "{method} {path}: {kind}");
        }
    }
}

/// The examples of a viewer work as they are: none is malformed, though what it names may not exist.
#[tokio::test]
async fn examples_of_requests_are_well_formed() {
    let world = World::new(Kind::Sqlite).await;
    let receiver = Receiver::start().await;
    let sinks = sinks(&world, &[("orders", &receiver, "")]);
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_SINKS_FILE", &sinks)]).await;
    let administrator = administrator(&sidecar).await;
    let (_, key) = administrator.create("admin", Some(ACCOUNT), "examples").await;
    let mut tried = 0;
    for base in [sidecar.base.clone(), sidecar.admin()] {
        let document = sidecar.client.get(format!("{base}/openapi.json")).send().await.unwrap();
        let document: Value = document.json().await.unwrap();
        for (path, method, operation) in operations(&document) {
            let token = if path.starts_with("/edge/") { TOKEN } else { &key };
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let required = parameters.filter(|parameter| parameter["required"] == true);
            let path = required.fold(format!("{path}?"), |path, parameter| {
                let name = parameter["name"].as_str().unwrap();
                let example = parameter["example"].to_string().replace('+', "%2B");
                let example = example.trim_matches('"');
                match parameter["in"] == "path" {
                    true => path.replace(&format!("{{{name}}}"), example),
                    false => format!("{path}&{name}={example}"),
                }
            });
            for (kind, body) in examples(operation) {
                let url = format!("{base}{path}").replace(EXAMPLE_ACCOUNT, ACCOUNT);
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let request = sidecar.client.request(method, &url).bearer_auth(token);
                let request = request.header("content-type", kind);
                let body = body.replace(EXAMPLE_ACCOUNT, ACCOUNT);
                let response = request.body(body.clone()).send().await.unwrap();
                tried += 1;
                if !response.status().is_success() {
                    let (status, code) = refused(response).await;
                    let is_malformed = matches!(status, 400 | 413 | 415 | 500..)
                        || ["invalid_field", "invalid_lines", "invalid_recipient"]
                            .contains(&code.as_str());
                    assert!(!is_malformed, "{url}: {body}: {status} {code}");
                }
            }
        }
    }
    assert!(tried > 20, "{tried}");
}

/// Account of the examples.
const EXAMPLE_ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

/// Returns the content type and the text of each example of a request body; one empty body for an operation that is safe to
/// try without.
fn examples(operation: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let contents = operation["requestBody"]["content"].as_object();
    for (kind, content) in contents.into_iter().flatten() {
        for example in content["examples"].as_object().into_iter().flatten().map(|(_, one)| one) {
            let value = &example["value"];
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            found.push((kind.clone(), text));
        }
    }
    if contents.is_none() && operation["operationId"].as_str().unwrap().starts_with("fetch_") {
        found.push(("application/json".to_owned(), String::new()));
    }
    found
}

fn every_reference_leads_somewhere(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|field| every_reference_leads_somewhere(document, field));
        }
        Value::Array(items) => {
            items.iter().for_each(|item| every_reference_leads_somewhere(document, item));
        }
        _ => {}
    }
}

fn every_operation_is_whole(document: &Value) {
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is the name of two operations");
        assert!(operation["summary"].is_string(), "{method} {path} says nothing of itself");
        let heeds = operation["parameters"].as_array().into_iter().flatten().any(|parameter| {
            parameter["name"] == "Idempotency-Key" && parameter["required"] != true
        });
        assert_eq!(heeds, method == "post" && ONCE.contains(&path), "{method} {path}");
        assert!(operation["security"].is_array(), "{method} {path}: who may call it?");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        for name in in_path {
            let named = |one: &&Value| one["name"] == name && one["in"] == "path";
            let parameter = parameters.iter().find(named).unwrap();
            assert_eq!(parameter["required"], true, "{method} {path}");
        }
    }
}

/// Each route is there; without a key, what says it takes one is refused, and as described.
async fn check_described_responses(client: &Client, base: &str, document: &Value) {
    for (path, method, operation) in operations(document) {
        let secured = operation["security"] == serde_json::json!([{"key": []}]);
        let url = format!("{base}{}", path.replace("{id}", "0000000000000000"));
        let method_name = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let response = client.request(method_name, url).send().await.unwrap();
        let expected = if secured { 401 } else { 200 };
        assert_eq!(response.status(), expected, "{method} {path}");
        let kind = response.headers()["content-type"].to_str().unwrap();
        let kind = kind.split(';').next().unwrap().to_owned();
        let described = if secured { "4XX" } else { "200" };
        let response = &operation["responses"][described];
        let referred =
            response["$ref"].as_str().and_then(|to| document.pointer(to.trim_start_matches('#')));
        let content = &referred.unwrap_or(response)["content"];
        assert!(content.get(&kind).is_some(), "{method} {path}: {kind} in {content}");
    }
}
