//! An application that receives deliveries: it remembers each, and answers as it was told to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};

/// One request it got.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// What it was answered.
    pub(crate) status: u16,
}

impl Got {
    pub(crate) fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// Decides the status of an answer from the body.
type Mood = Arc<dyn Fn(&str) -> u16 + Send + Sync>;

#[derive(Clone)]
struct Shared {
    got: Arc<Mutex<Vec<Got>>>,
    mood: Arc<Mutex<Mood>>,
    crowd: Arc<Mutex<Crowd>>,
    slow: watch::Sender<bool>,
}

/// How many requests are there at a time: now, and at most since somebody asked.
#[derive(Default)]
struct Crowd {
    now: usize,
    most: usize,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Shared,
    /// Its own, so that its connections end with it.
    serving: Option<Runtime>,
}

impl Receiver {
    pub(crate) async fn start() -> Receiver {
        let mood: Mood = Arc::new(|_| 200);
        let shared = Shared {
            got: Arc::default(),
            mood: Arc::new(Mutex::new(mood)),
            crowd: Arc::default(),
            slow: watch::Sender::new(false),
        };
        let mut receiver = Receiver { address: ([127, 0, 0, 1], 0).into(), shared, serving: None };
        receiver.listen().await;
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks?token=hush", self.address)
    }

    /// From now on it answers so.
    pub(crate) fn answers(&self, mood: impl Fn(&str) -> u16 + Send + Sync + 'static) {
        *self.shared.mood.lock().unwrap() = Arc::new(mood);
    }

    /// Says nothing to anybody, until it is told otherwise.
    pub(crate) fn is_slow(&self, slow: bool) {
        self.shared.slow.send_replace(slow);
    }

    /// How many requests are there now.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.crowd.lock().unwrap().now
    }

    /// How many there were at a time, at most, since this was asked last.
    pub(crate) fn most_at_a_time(&self) -> usize {
        let mut crowd = self.shared.crowd.lock().unwrap();
        let now = crowd.now;
        std::mem::replace(&mut crowd.most, now)
    }

    /// Nobody is there any more.
    pub(crate) fn leave(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.shutdown_background();
        }
    }

    /// And is again, at the same place.
    pub(crate) async fn listen(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (address, router) =
            (self.address, Router::new().fallback(receive).with_state(self.shared.clone()));
        let (told, listening) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        self.address = listening.await.unwrap();
        self.serving = Some(runtime);
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.shared.got.lock().unwrap().clone()
    }

    /// What it said yes to, in order.
    pub(crate) fn taken(&self) -> Vec<Got> {
        self.got().into_iter().filter(|got| got.status == 200).collect()
    }
}

/// One request that is there, until it is answered or given up.
struct Present(Arc<Mutex<Crowd>>);

impl Present {
    fn among(crowd: &Arc<Mutex<Crowd>>) -> Present {
        let mut here = crowd.lock().unwrap();
        here.now += 1;
        here.most = here.most.max(here.now);
        Present(crowd.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.lock().unwrap().now -= 1;
    }
}

async fn receive(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let _present = Present::among(&shared.crowd);
    let mut slow = shared.slow.subscribe();
    let _ = slow.wait_for(|slow| !slow).await;
    let body = String::from_utf8(body.to_vec()).unwrap();
    let mood = shared.mood.lock().unwrap().clone();
    let status = mood(&body);
    shared.got.lock().unwrap().push(Got { headers, body, status });
    StatusCode::from_u16(status).unwrap()
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.leave();
    }
}
