//! Proxy between the sidecar and the simulator, which records each request with its answer.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::{Map, Value, json};

use crate::support::simulator::Simulator;

/// Headers that pass the proxy: of requests, and of answers.
const REQUEST_HEADERS: [&str; 2] = ["authorization", "content-type"];
const ANSWER_HEADERS: [&str; 6] = [
    "content-type",
    "retry-after",
    "x-message-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
];

/// The proxy.
pub(crate) struct Recorder {
    /// URL of the proxy.
    pub(crate) base: String,
    exchanges: Arc<Mutex<Vec<Value>>>,
}

#[derive(Clone)]
struct Route {
    simulator: String,
    client: reqwest::Client,
    exchanges: Arc<Mutex<Vec<Value>>>,
}

impl Recorder {
    pub(crate) async fn start(simulator: &Simulator) -> Recorder {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exchanges = Arc::default();
        let route = Route {
            simulator: simulator.base.clone(),
            client: reqwest::Client::new(),
            exchanges: Arc::clone(&exchanges),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(forward).with_state(route);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Recorder { base, exchanges }
    }

    /// Returns the requests and their answers, in the order of the answers.
    pub(crate) fn exchanges(&self) -> Vec<Value> {
        self.exchanges.lock().unwrap().clone()
    }
}

async fn forward(State(route): State<Route>, request: Request) -> Response {
    let at_ms = jiff::Timestamp::now().as_millisecond();
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let url = format!("{}{}", route.simulator, head.uri);
    let mut forwarded = route.client.request(head.method.clone(), url).body(body.clone());
    for name in REQUEST_HEADERS {
        if let Some(value) = head.headers.get(name) {
            forwarded = forwarded.header(name, value);
        }
    }
    let answer = forwarded.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let answer = answer.bytes().await.unwrap();
    let text =
        |name: &str| head.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    route.exchanges.lock().unwrap().push(json!({
        "at_ms": at_ms, "method": head.method.as_str(), "target": head.uri.to_string(),
        "type": text("content-type"), "authorization": text("authorization"),
        "body": String::from_utf8(body.to_vec()).unwrap(),
        "answer": {
            "status": status.as_u16(), "headers": shown(&headers),
            "body": String::from_utf8(answer.to_vec()).unwrap(),
        },
    }));
    let mut response = Response::builder().status(StatusCode::from_u16(status.as_u16()).unwrap());
    for name in ANSWER_HEADERS {
        if let Some(value) = headers.get(name) {
            response = response.header(name, value);
        }
    }
    response.body(Body::from(answer)).unwrap()
}

fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let named = |name: &str| Some((name.to_owned(), json!(headers.get(name)?.to_str().unwrap())));
    ANSWER_HEADERS.into_iter().filter_map(named).collect()
}
