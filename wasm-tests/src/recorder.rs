//! A server that records the requests it receives, byte for byte from the first header line on, and answers as a scenario
//! scripted it. It is the backend behind Envoy, and also the sidecar in scenarios with a misbehaving sidecar. Requests are
//! identified by the `x-case` header that every client of this crate sends, or by their path if there is none. The filter's
//! exchanges are identified by their contents: [`CLAIMS`], [`SETTLEMENTS`] or both.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use twilio_edge_contract::{EXCHANGE_PATH, ExchangeRequest, headers};

use crate::http1::{Body, Head, Reader};
use crate::process::{free_port, until};

/// The header that names the scenario's request.
pub const CASE: &str = "x-case";

/// Case of an exchange with claims.
pub const CLAIMS: &str = "claims";

/// Case of an exchange with settlements.
pub const SETTLEMENTS: &str = "settlements";

/// One request as it arrived. Recorded when its head was read; `body` follows when that was read too.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Number of its connection, from 0.
    pub connection: usize,
    /// Request line and header lines.
    pub head: Head,
    /// None while it is still arriving, or if it never arrived whole.
    pub body: Option<Body>,
    /// The peer closed the connection before it was answered.
    pub abandoned: bool,
    /// Names under which scenarios find it.
    cases: Vec<String>,
}

impl Seen {
    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.one(name)
    }

    /// The body's bytes; empty while there is none.
    pub fn bytes(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], |body| &body.bytes)
    }

    /// Returns all headers that a backend could mistake for trusted ones, without the prefix `x-twilio-edge-` but otherwise
    /// as they were spelled; the values of a repeated one are joined.
    pub fn trusted(&self) -> BTreeMap<String, String> {
        let mut trusted = BTreeMap::<String, String>::new();
        for (name, value) in &self.head.lines {
            if !headers::is_reserved(name.as_bytes()) {
                continue;
            }
            let name = name.strip_prefix(headers::PREFIX).unwrap_or(name);
            let value = String::from_utf8_lossy(value);
            trusted
                .entry(name.to_owned())
                .and_modify(|have| have.push_str(&format!(", {value}")))
                .or_insert_with(|| value.into_owned());
        }
        trusted
    }
}

/// Answer to one request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A whole response.
    Reply {
        /// Its status code.
        status: u16,
        /// Its content type; left out together with the body where a status allows none.
        content_type: &'static str,
        /// Its bytes.
        body: Vec<u8>,
    },
    /// An answer that depends on the request's body.
    By(fn(&[u8]) -> Answer),
    /// The answer, once the gate is open.
    After(Gate, Box<Answer>),
    /// No answer, as long as the peer waits.
    Never,
    /// The connection is closed before the first header line.
    Close,
    /// The connection is closed after the headers of a 200 and half of its body.
    CloseInBody,
    /// A 200 of this content type with half of its body; the other half once the gate is open.
    Halves(Gate, &'static str),
    /// The headers of a 200 with JSON, and blanks that come one by one, as long as the peer waits.
    Drops,
    /// Bytes that are not HTTP at all.
    Noise(Vec<u8>),
}

impl Answer {
    /// A response without a body.
    pub fn status(status: u16) -> Self {
        Answer::Reply { status, content_type: "text/plain", body: Vec::new() }
    }

    /// 200 with a body.
    pub fn ok(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Answer::Reply { status: 200, content_type, body: body.into() }
    }
}

/// Delays answers until a scenario opens it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Gate(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// Releases all waiting answers, and lets all later ones pass.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns `answer`, delayed until this gate is open.
    pub fn then(&self, answer: Answer) -> Answer {
        Answer::After(self.clone(), Box::new(answer))
    }

    async fn opened(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let mut gate = self.0.subscribe();
        let _open = gate.wait_for(|open| *open).await;
    }
}

#[derive(Default)]
struct Notes {
    seen: Mutex<Vec<Seen>>,
    scripts: Mutex<HashMap<String, VecDeque<Answer>>>,
    otherwise: Mutex<Option<Answer>>,
    connections: AtomicUsize,
}

/// The server. It stops listening when dropped.
pub struct Recorder {
    address: SocketAddr,
    notes: Arc<Notes>,
    accepting: Mutex<JoinHandle<()>>,
}

impl Recorder {
    /// Listens on a free port.
    pub async fn start() -> Result<Self> {
        // Another process may take a free port a moment later; the loop tries others.
        let listener = until("a port to listen on", async || {
            Ok(TcpListener::bind(("127.0.0.1", free_port()?)).await.ok())
        })
        .await?;
        let address = listener.local_addr()?;
        let notes = Arc::new(Notes::default());
        let accepting = Mutex::new(tokio::spawn(accept(listener, notes.clone())));
        Ok(Self { address, notes, accepting })
    }

    /// Stops listening, and breaks all connections.
    pub async fn leave(&self) -> Result<()> {
        lock(&self.accepting).abort();
        until("the listener to close", async || {
            Ok(TcpStream::connect(self.address).await.is_err().then_some(()))
        })
        .await
    }

    /// Listens again after [`Self::leave`], at the same address, with all it has recorded.
    pub async fn come_back(&self) -> Result<()> {
        let listener =
            until("its port to be free", async || Ok(TcpListener::bind(self.address).await.ok()))
                .await?;
        *lock(&self.accepting) = tokio::spawn(accept(listener, self.notes.clone()));
        Ok(())
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answers to the requests of `case`, in their order; after the last one the default answer follows. An exchange
    /// with claims and settlements is answered as one of [`CLAIMS`].
    pub fn script(&self, case: &str, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.notes.scripts).insert(case.to_owned(), answers.into_iter().collect());
    }

    /// Sets the default answer, instead of an empty 200.
    pub fn usually(&self, answer: Answer) {
        *lock(&self.notes.otherwise) = Some(answer);
    }

    /// Returns all recorded requests of `case`, in order of arrival.
    pub fn seen(&self, case: &str) -> Vec<Seen> {
        let seen = lock(&self.notes.seen);
        seen.iter().filter(|seen| seen.cases.iter().any(|one| one == case)).cloned().collect()
    }

    /// Returns all recorded requests.
    pub fn all(&self) -> Vec<Seen> {
        lock(&self.notes.seen).clone()
    }

    /// Waits until `count` requests of `case` have arrived whole.
    pub async fn wait(&self, case: &str, count: usize) -> Result<Vec<Seen>> {
        until(&format!("{count} requests of {case} at {}", self.address), async || {
            let whole: Vec<Seen> =
                self.seen(case).into_iter().filter(|seen| seen.body.is_some()).collect();
            Ok((whole.len() >= count).then_some(whole))
        })
        .await
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        lock(&self.accepting).abort();
    }
}

async fn accept(listener: TcpListener, notes: Arc<Notes>) {
    // The set ends its connections when the accept loop is aborted.
    let mut serving = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = notes.connections.fetch_add(1, Ordering::Relaxed);
        let notes = notes.clone();
        serving.spawn(async move {
            // Many scenarios have a peer that breaks off.
            let _broken_off = serve(stream, number, &notes).await;
        });
        while serving.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, connection: usize, notes: &Notes) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = Reader::default();
    while let Some(head) = reader.head(&mut stream).await? {
        let index = {
            let mut seen = lock(&notes.seen);
            let (head, cases) = (head.clone(), cases(&head, &[]));
            seen.push(Seen { connection, head, body: None, abandoned: false, cases });
            seen.len() - 1
        };
        let note = |change: &dyn Fn(&mut Seen)| {
            if let Some(seen) = lock(&notes.seen).get_mut(index) {
                change(seen);
            }
        };
        let body = reader.request_body(&mut stream, &head).await?;
        let cases = cases(&head, &body.bytes);
        note(&|seen| {
            seen.body = Some(body.clone());
            seen.cases.clone_from(&cases);
        });
        let mut answer = next_answer(notes, &cases);
        loop {
            answer = match answer {
                Answer::After(gate, then) => tokio::select! {
                    () = gate.opened() => *then,
                    _ = stream.read_u8() => {
                        note(&|seen| seen.abandoned = true);
                        return Ok(());
                    }
                },
                Answer::By(answer) => answer(&body.bytes),
                Answer::Never => {
                    let _closed = stream.read_u8().await;
                    note(&|seen| seen.abandoned = true);
                    return Ok(());
                }
                Answer::Close => return Ok(()),
                Answer::CloseInBody => {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf of it")
                        .await?;
                    return Ok(());
                }
                Answer::Noise(bytes) => {
                    stream.write_all(&bytes).await?;
                    return Ok(());
                }
                Answer::Halves(gate, content_type) => {
                    let [first, second] = HALVES;
                    let head = head_of_200(content_type, first.len() + second.len());
                    stream.write_all(&[head.as_bytes(), first].concat()).await?;
                    gate.then(Answer::Noise(second.to_vec()))
                }
                Answer::Drops => {
                    stream.write_all(head_of_200("application/json", 1 << 20).as_bytes()).await?;
                    // Ends when the peer gives up: then a write fails.
                    loop {
                        stream.write_all(b" ").await?;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                Answer::Reply { status, content_type, body } => {
                    let head = format!("HTTP/1.1 {status} Scripted\r\n");
                    let response = match status {
                        204 | 304 => format!("{head}\r\n").into_bytes(),
                        _ => {
                            let length = body.len();
                            let framing = format!(
                                "content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
                            );
                            [head.as_bytes(), framing.as_bytes(), &body].concat()
                        }
                    };
                    stream.write_all(&response).await?;
                    break;
                }
            };
        }
    }
    Ok(())
}

/// The two parts of [`Answer::Halves`].
const HALVES: [&[u8]; 2] = [b"<Response>", b"</Response>"];

fn head_of_200(content_type: &str, length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n")
}

/// Returns the names of a request; those of an exchange are known once its body has arrived.
fn cases(head: &Head, body: &[u8]) -> Vec<String> {
    let name = head.one(CASE).unwrap_or_else(|| head.word(1).to_owned());
    if name == EXCHANGE_PATH
        && let Ok(exchange) = ExchangeRequest::decode(body)
    {
        let claims = (!exchange.claims.is_empty()).then_some(CLAIMS);
        let settlements = (!exchange.settlements.is_empty()).then_some(SETTLEMENTS);
        return claims.into_iter().chain(settlements).map(str::to_owned).collect();
    }
    vec![name]
}

fn next_answer(notes: &Notes, cases: &[String]) -> Answer {
    let mut scripts = lock(&notes.scripts);
    let scripted = cases.iter().find_map(|case| scripts.get_mut(case)?.pop_front());
    scripted.or_else(|| lock(&notes.otherwise).clone()).unwrap_or_else(|| Answer::status(200))
}

/// Locks a mutex. A scenario that panicked while it held the lock has failed already; the others may continue.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
