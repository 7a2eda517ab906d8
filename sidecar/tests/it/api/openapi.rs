//! The description of the API, held against the API: that it is whole, and that what it names is there.

use std::collections::BTreeSet;

use reqwest::{Client, Method};
use serde_json::Value;
use twilio_edge_contract::{EDGE_CONFIG_PATH, EXCHANGE_PATH};

use crate::support::world::{Kind, World};

/// The listeners, and every route of each.
const MAIN: &[(&str, &str)] = &[
    ("post", EXCHANGE_PATH),
    ("get", EDGE_CONFIG_PATH),
    ("get", "/v1/key"),
    ("get", "/v1/messages"),
    ("get", "/v1/messages/{id}"),
    ("get", "/v1/messages/{id}/media"),
    ("get", "/v1/events"),
    ("get", "/v1/events/{id}"),
    ("get", "/v1/windows"),
    ("get", "/v1/statistics"),
    ("post", "/v1/messages"),
    ("post", "/v1/messages/batch"),
    ("post", "/v1/messages/{id}/cancel"),
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
    ("post", "/v1/replays"),
    ("get", "/v1/replays/{id}"),
    ("post", "/v1/redactions"),
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
    let sidecar = world.sidecar().await;
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

        let page = sidecar.client.get(format!("{base}/docs")).send().await.unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        let page = page.text().await.unwrap();
        assert!(page.contains("fetch(\"openapi.json\")"), "{page}");
        assert!(!page.contains("://"), "the page loads nothing from elsewhere");
    }
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
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
