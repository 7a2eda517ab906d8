//! An application that receives deliveries. It records each one, and answers as the test says.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};
use twilio_edge_contract::{Claim, Class, Identity, MESSAGE_PARAMETER};

/// A received request.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// Status of the answer.
    pub(crate) status: u16,
    /// Time of the answer.
    pub(crate) at: Instant,
}

impl Received {
    pub(crate) fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Returns the first parameter of this name in the body, a form.
    pub(crate) fn parameter(&self, name: &str) -> String {
        let mut pairs = form_urlencoded::parse(self.body.as_bytes());
        pairs
            .find(|(have, _)| have == name)
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    }

    /// Returns the claim that the filter makes of this status callback.
    pub(crate) fn status_claim(&self, claim_id: &str) -> Claim {
        let optional = |name| Some(self.parameter(name)).filter(|value| !value.is_empty());
        let identity = Identity {
            class: Class::Status,
            account_sid: self.parameter("AccountSid"),
            message_sid: self.parameter("MessageSid"),
            status: optional("MessageStatus"),
            error_code: optional("ErrorCode"),
        };
        let mut claim =
            Claim::new(claim_id.into(), identity, "/twilio/status".into(), self.body.clone());
        let (_, query) = self.target.split_once('?').unwrap_or_default();
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let id = pairs.find(|(name, _)| name == MESSAGE_PARAMETER);
        claim.message_id = id.map(|(_, id)| id.into_owned());
        claim
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// Computes the status of an answer from the body.
type StatusRule = Arc<dyn Fn(&str) -> u16 + Send + Sync>;

#[derive(Clone)]
struct Shared {
    got: Arc<Mutex<Vec<Received>>>,
    status_rule: Arc<Mutex<StatusRule>>,
    answer: Arc<Mutex<String>>,
    concurrent: Arc<Mutex<ConcurrentRequests>>,
    slow: watch::Sender<bool>,
}

/// Number of concurrent requests: now, and the maximum since the last query.
#[derive(Default)]
struct ConcurrentRequests {
    now: usize,
    most: usize,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Shared,
    /// Separate, so that its connections end with the receiver.
    serving: Option<Runtime>,
}

impl Receiver {
    pub(crate) async fn start() -> Receiver {
        let status_rule: StatusRule = Arc::new(|_| 200);
        let shared = Shared {
            got: Arc::default(),
            status_rule: Arc::new(Mutex::new(status_rule)),
            answer: Arc::default(),
            concurrent: Arc::default(),
            slow: watch::Sender::new(false),
        };
        let mut receiver = Receiver { address: ([127, 0, 0, 1], 0).into(), shared, serving: None };
        receiver.listen().await;
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks?token=hush", self.address)
    }

    /// Sets the answer of later requests.
    pub(crate) fn answers(&self, status_rule: impl Fn(&str) -> u16 + Send + Sync + 'static) {
        *self.shared.status_rule.lock().unwrap() = Arc::new(status_rule);
    }

    /// Sets the body of later answers.
    pub(crate) fn says(&self, text: &str) {
        text.clone_into(&mut self.shared.answer.lock().unwrap());
    }

    /// Leaves requests without an answer while `slow` is true.
    pub(crate) fn is_slow(&self, slow: bool) {
        self.shared.slow.send_replace(slow);
    }

    /// Returns the number of concurrent requests.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.concurrent.lock().unwrap().now
    }

    /// Returns the maximum of concurrent requests since the last call.
    pub(crate) fn most_at_a_time(&self) -> usize {
        let mut concurrent = self.shared.concurrent.lock().unwrap();
        let now = concurrent.now;
        std::mem::replace(&mut concurrent.most, now)
    }

    /// Closes the listener and all connections.
    pub(crate) fn leave(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.shutdown_background();
        }
    }

    /// Listens again, at the same address.
    pub(crate) async fn listen(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (address, router) =
            (self.address, Router::new().fallback(receive).with_state(self.shared.clone()));
        let (ready, listening) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            ready.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        self.address = listening.await.unwrap();
        self.serving = Some(runtime);
    }

    pub(crate) fn got(&self) -> Vec<Received> {
        self.shared.got.lock().unwrap().clone()
    }

    /// Returns the accepted requests, in order.
    pub(crate) fn taken(&self) -> Vec<Received> {
        self.got().into_iter().filter(|got| got.status == 200).collect()
    }
}

/// A request in progress, until it is answered or dropped.
struct Present(Arc<Mutex<ConcurrentRequests>>);

impl Present {
    fn among(concurrent: &Arc<Mutex<ConcurrentRequests>>) -> Present {
        let mut here = concurrent.lock().unwrap();
        here.now += 1;
        here.most = here.most.max(here.now);
        Present(concurrent.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.lock().unwrap().now -= 1;
    }
}

async fn receive(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let _present = Present::among(&shared.concurrent);
    let mut slow = shared.slow.subscribe();
    let _ = slow.wait_for(|slow| !slow).await;
    let body = String::from_utf8(body.to_vec()).unwrap();
    let status_rule = shared.status_rule.lock().unwrap().clone();
    let status = status_rule(&body);
    shared.got.lock().unwrap().push(Received {
        target: uri.to_string(),
        headers,
        body,
        status,
        at: Instant::now(),
    });
    (StatusCode::from_u16(status).unwrap(), shared.answer.lock().unwrap().clone())
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.leave();
    }
}
