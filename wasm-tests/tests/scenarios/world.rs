//! Environment of the filter in a scenario: clients, a backend, a sidecar, and time. It drives either build of
//! the filter through the same script and records what each of them received.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use twilio_edge_contract::{Claim, RefusalReport};
use twilio_edge_wasm_tests::host::{Cluster, Cost, Filter, Host, HttpMessage, Pairs, Proxy, Reply};
use twilio_edge_wasm_tests::stack::{NEXT_TOKEN, ORIGIN, TOKEN};
use twilio_edge_wasm_tests::webhook::ACCOUNT;

use crate::request::Request;
use crate::sidecar::{Behaviour, ReceivedSettlement, Sidecar};

/// Envoy's name for the sidecar.
pub(crate) const CLUSTER: &str = "sidecar";
const EDGE_TOKEN: &str = "the-token-between-filter-and-sidecar";
/// Longer than any wait of the filter.
const CALM_MS: u64 = 12_000;
/// Time for retries.
const AFTERMATH_MS: u64 = 5_000;

/// Behaviour of the backend after a complete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backend {
    /// A response with a body in several parts.
    Answers { status: u16, kind: &'static str, body: String, parts: usize },
    /// A response of headers alone.
    Empty(u16),
    /// The same as the first, ended by trailers.
    WithTrailers(Box<Backend>),
    /// The connection breaks before the response.
    Resets,
    /// The connection breaks after the headers of a 200 and half of its body.
    ResetsInBody,
    /// No response.
    Silent,
    /// Envoy answers in its place.
    EnvoyAnswers(u16, &'static str),
    /// The same, after this number of milliseconds.
    After(u64, Box<Backend>),
}

impl Backend {
    /// A small answer of this status.
    pub(crate) fn status(status: u16) -> Self {
        Self::Answers {
            status,
            kind: "text/plain",
            body: format!("backend says {status}"),
            parts: 1,
        }
    }

    /// TwiML.
    pub(crate) fn twiml(body: &str) -> Self {
        Self::Answers { status: 200, kind: "text/xml", body: body.to_owned(), parts: 3 }
    }

    /// Later.
    pub(crate) fn after(self, ms: u64) -> Self {
        Self::After(ms, Box::new(self))
    }
}

/// Step of a script. Streams are numbered from 0 in the order in which they began.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A whole request.
    Send(Request),
    /// The headers of a request only.
    Begin(Request),
    /// More of a stream's body.
    Part(usize, Bytes, bool),
    /// A stream's trailers.
    Trailers(usize, Pairs),
    /// The client of a stream disconnects.
    Disconnect(usize),
    /// Envoy itself answers a stream.
    EnvoyAnswer(usize, u16, &'static str),
    /// The backend's connection of a stream breaks.
    Reset(usize),
    /// A request too broken for Envoy.
    Broken,
    /// Time passes.
    Wait(u64),
    /// Steps within one turn of the event loop.
    Together(Vec<Step>),
    /// A new configuration beside the present one.
    Configure(Value),
    /// The oldest configuration is drained.
    Retire,
}

/// Initial state of a scenario.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) configuration: Value,
    pub(crate) claims: Vec<Behaviour>,
    pub(crate) settlements: Vec<Behaviour>,
    /// Behaviour for requests for keys.
    pub(crate) keys: Vec<Behaviour>,
    /// Behaviour for reports of refused requests.
    pub(crate) reports: Vec<Behaviour>,
    pub(crate) backend: Vec<Backend>,
    /// `None`: Envoy has no such cluster.
    pub(crate) cluster: Option<Cluster>,
}

/// Result of one stream.
#[derive(Debug, Clone)]
pub(crate) struct StreamRecord {
    /// Request that the backend received.
    pub(crate) backend: Option<HttpMessage>,
    /// Response that the client received.
    pub(crate) client: Option<HttpMessage>,
    /// Verdict for the access log.
    pub(crate) access_log: Option<String>,
    /// Request of the client.
    pub(crate) request: Option<Request>,
    /// The configuration under which it began.
    pub(crate) configuration: Rc<Value>,
    /// True if the client has sent its complete request.
    pub(crate) complete: bool,
    /// True if the client disconnected, or if a failure of the backend ended the stream.
    pub(crate) client_left: bool,
    /// True if the stream was unfinished although no event was pending.
    pub(crate) is_stuck: bool,
}

/// Result of a run.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) streams: Vec<StreamRecord>,
    pub(crate) claims: Vec<(u64, Claim)>,
    pub(crate) granted: BTreeSet<String>,
    pub(crate) settlements: Vec<ReceivedSettlement>,
    /// Numbers of claims and settlements of each exchange.
    pub(crate) exchanges: Vec<(usize, usize)>,
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) log: Vec<String>,
    pub(crate) violations: Vec<String>,
    pub(crate) taken: Vec<bool>,
    pub(crate) memory_bytes: Option<usize>,
    pub(crate) cost: Option<Cost>,
    /// Reports of refused requests.
    pub(crate) reports: Vec<(u64, RefusalReport)>,
    /// Callouts without the sidecar's token.
    pub(crate) unauthorized: usize,
}

#[derive(Debug, Clone)]
struct StreamState {
    number: u32,
    request: Option<Request>,
    configuration: Rc<Value>,
    client_left: bool,
    is_stuck: bool,
}

enum Due {
    Reply(u32, Reply),
    Respond(u32, Backend),
}

/// The world around one filter.
pub(crate) struct World<F> {
    host: Host<F>,
    sidecar: Sidecar,
    backend: VecDeque<Backend>,
    configuration: Rc<Value>,
    streams: Vec<StreamState>,
    due: BTreeMap<(u64, u64), Due>,
    dues: u64,
    seen_callouts: BTreeSet<u32>,
    answering: BTreeSet<u32>,
    taken: Vec<bool>,
    retired: usize,
}

/// Returns the proxy that the filter runs in.
pub(crate) fn proxy(setting: &Setting) -> Proxy {
    let environment = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("TWILIO_AUTH_TOKEN_NEXT", NEXT_TOKEN),
        ("TWILIO_EDGE_TOKEN", EDGE_TOKEN),
        ("PUBLIC_ORIGIN", ORIGIN),
    ];
    let clusters: Vec<_> = setting.cluster.iter().map(|state| (CLUSTER, *state)).collect();
    Proxy::new(&environment, &clusters)
}

impl<F: Filter> World<F> {
    /// Runs a script to its end. After the script the sidecar works, time passes, and the remaining clients disconnect.
    pub(crate) fn run(filter: F, setting: &Setting, script: &[Step]) -> Result<Record> {
        let mut world = Self {
            host: Host::new(filter),
            sidecar: Sidecar::with_plan(setting),
            backend: setting.backend.clone().into(),
            configuration: Rc::default(),
            streams: Vec::new(),
            due: BTreeMap::new(),
            dues: 0,
            seen_callouts: BTreeSet::new(),
            answering: BTreeSet::new(),
            taken: Vec::new(),
            retired: 0,
        };
        world.take(&Step::Configure(setting.configuration.clone()))?;
        for step in script {
            world.take(step).with_context(|| format!("at {} ms", world.now_ms()))?;
        }
        world.finish()
    }

    fn now_ms(&mut self) -> u64 {
        self.host.proxy().clock_ms()
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Wait(ms) => self.pass(*ms)?,
            Step::Together(steps) => steps.iter().try_for_each(|step| self.perform(step))?,
            step => self.perform(step)?,
        }
        self.run_until_idle()
    }

    fn perform(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Send(request) => {
                let stream = self.begin(request)?;
                for (part, ends) in request.parts() {
                    self.host.request_body(stream, part, ends)?;
                }
                match &request.trailers {
                    Some(trailers) => self.host.request_trailers(stream, trailers.clone()),
                    None => Ok(()),
                }
            }
            Step::Begin(request) => self.begin(request).map(|_| ()),
            Step::Part(stream, bytes, ends) => match self.number(*stream) {
                Some(stream) => self.host.request_body(stream, bytes, *ends),
                None => Ok(()),
            },
            Step::Trailers(stream, lines) => match self.number(*stream) {
                Some(stream) => self.host.request_trailers(stream, lines.clone()),
                None => Ok(()),
            },
            Step::Disconnect(stream) => match self.streams.get_mut(*stream) {
                Some(started) => {
                    started.client_left = true;
                    self.host.client_gone(started.number)
                }
                None => Ok(()),
            },
            Step::EnvoyAnswer(stream, status, details) => match self.number(*stream) {
                Some(stream) => self.host.own_response(stream, *status, details),
                None => Ok(()),
            },
            Step::Reset(stream) => match self.number(*stream) {
                Some(stream) => self.reset(stream),
                None => Ok(()),
            },
            Step::Broken => {
                let stream = self.host.broken_request()?;
                self.start(stream, None);
                Ok(())
            }
            Step::Configure(configuration) => {
                let taken = self.host.configure(&configuration.to_string())?;
                self.taken.push(taken);
                if taken {
                    self.configuration = Rc::new(configuration.clone());
                }
                Ok(())
            }
            Step::Retire => self.retire(),
            Step::Wait(_) | Step::Together(_) => self.take(step),
        }
    }

    /// Drains the oldest configuration, and closes the remaining connections at the end of the drain.
    fn retire(&mut self) -> Result<()> {
        if self.taken.iter().filter(|taken| **taken).count() < 2 + self.retired {
            return Ok(());
        }
        self.retired += 1;
        let current = Rc::clone(&self.configuration);
        for started in &mut self.streams {
            if !Rc::ptr_eq(&started.configuration, &current)
                && !self.host.proxy().stream(started.number).is_over()
            {
                started.client_left = true;
                self.host.client_gone(started.number)?;
            }
        }
        self.host.retire()
    }

    fn begin(&mut self, request: &Request) -> Result<u32> {
        let stream = self.host.request(request.headers.clone(), request.ends_with_headers())?;
        self.start(stream, Some(request.clone()));
        Ok(stream)
    }

    fn start(&mut self, number: u32, request: Option<Request>) {
        let configuration = Rc::clone(&self.configuration);
        // A request that Envoy refuses has no client in the record.
        let client_left = request.is_none();
        let is_stuck = false;
        self.streams.push(StreamState { number, request, configuration, client_left, is_stuck });
    }

    fn reset(&mut self, number: u32) -> Result<()> {
        self.host.reset_by_backend(number)?;
        let is_cut = self.host.proxy().stream(number).is_over();
        let started = self.streams.iter_mut().filter(|started| started.number == number);
        started.for_each(|started| started.client_left |= is_cut);
        Ok(())
    }

    fn number(&self, stream: usize) -> Option<u32> {
        self.streams.get(stream).map(|started| started.number)
    }

    /// Until nothing happens any more without time passing.
    fn run_until_idle(&mut self) -> Result<()> {
        loop {
            self.host.wake()?;
            let worked = self.ask_sidecar()? | self.ask_backend() | self.do_due()?;
            if !worked {
                return Ok(());
            }
        }
    }

    fn pass(&mut self, ms: u64) -> Result<()> {
        let until_ms = self.now_ms() + ms;
        loop {
            let due_ms = self.due.keys().next().map(|(at_ms, _)| *at_ms);
            let next_ms = self.host.next_ms().into_iter().chain(due_ms).min();
            let Some(next_ms) = next_ms.filter(|next_ms| *next_ms <= until_ms) else { break };
            self.host.turn_to(next_ms)?;
            self.run_until_idle()?;
        }
        self.host.turn_to(until_ms)?;
        self.run_until_idle()
    }

    fn plan(&mut self, after_ms: u64, due: Due) {
        self.dues += 1;
        let at_ms = self.now_ms() + after_ms;
        self.due.insert((at_ms, self.dues), due);
    }

    fn ask_sidecar(&mut self) -> Result<bool> {
        let now_ms = self.now_ms();
        let new: Vec<_> = self.host.proxy().callouts().cloned().collect();
        let mut worked = false;
        for callout in new {
            if !self.seen_callouts.insert(callout.token) {
                continue;
            }
            worked = true;
            if let Some(due) = self.sidecar.take(&callout, EDGE_TOKEN, now_ms)? {
                self.plan(due.after_ms, Due::Reply(callout.token, due.reply));
            }
        }
        Ok(worked)
    }

    fn ask_backend(&mut self) -> bool {
        let streams = self.host.proxy().streams().iter();
        let ready = streams.filter(|(_, stream)| {
            stream.takes_response() && stream.to_backend().is_some_and(|passed| passed.ended)
        });
        let ready: Vec<u32> = ready.map(|(number, _)| *number).collect();
        let mut worked = false;
        for stream in ready {
            if self.answering.insert(stream) {
                worked = true;
                let backend = self.backend.pop_front().unwrap_or_else(|| Backend::status(200));
                match backend {
                    Backend::After(ms, backend) => self.plan(ms, Due::Respond(stream, *backend)),
                    backend => self.plan(0, Due::Respond(stream, backend)),
                }
            }
        }
        worked
    }

    fn do_due(&mut self) -> Result<bool> {
        let now_ms = self.now_ms();
        let Some(first) = self.due.first_entry().filter(|entry| entry.key().0 <= now_ms) else {
            return Ok(false);
        };
        match first.remove() {
            Due::Reply(token, reply) => {
                if self.host.reply(token, reply)? {
                    self.sidecar.is_reply_delivered(token);
                }
            }
            Due::Respond(stream, backend) => self.respond(stream, backend)?,
        }
        Ok(true)
    }

    fn respond(&mut self, stream: u32, backend: Backend) -> Result<()> {
        let head = |status: u16, kind: &str| {
            let lines = [(":status", status.to_string()), ("content-type", kind.to_owned())];
            lines.map(|(name, value)| (name.to_owned(), value.into_bytes())).to_vec()
        };
        let trailers = vec![("x-checksum".to_owned(), b"1".to_vec())];
        match backend {
            Backend::WithTrailers(backend) => {
                if let Backend::Answers { status, kind, body, .. } = *backend {
                    self.host.response(stream, head(status, kind), false)?;
                    self.host.response_body(stream, body.as_bytes(), false)?;
                    self.host.response_trailers(stream, trailers)?;
                }
                Ok(())
            }
            Backend::Answers { status, kind, body, parts } => {
                self.host.response(stream, head(status, kind), false)?;
                let size = body.len().div_ceil(parts.max(1)).max(1);
                for part in body.as_bytes().chunks(size) {
                    self.host.response_body(stream, part, false)?;
                }
                self.host.response_body(stream, b"", true)
            }
            Backend::Empty(status) => self.host.response(stream, head(status, "text/plain"), true),
            Backend::Resets => self.reset(stream),
            Backend::ResetsInBody => {
                self.host.response(stream, head(200, "text/xml"), false)?;
                self.host.response_body(stream, b"<Resp", false)?;
                self.reset(stream)
            }
            Backend::EnvoyAnswers(status, details) => {
                self.host.own_response(stream, status, details)
            }
            Backend::Silent => Ok(()),
            Backend::After(ms, backend) => {
                self.plan(ms, Due::Respond(stream, *backend));
                Ok(())
            }
        }
    }

    fn finish(mut self) -> Result<Record> {
        self.sidecar.recover();
        self.pass(CALM_MS)?;
        for started in &mut self.streams {
            let stream = self.host.proxy().stream(started.number);
            if !stream.is_over() {
                started.client_left = true;
                started.is_stuck = stream.request_has_ended() && !stream.takes_response();
                self.host.client_gone(started.number)?;
            }
        }
        self.run_until_idle()?;
        self.pass(AFTERMATH_MS)?;
        ensure!(self.host.proxy().callouts().next().is_none(), "a callout is still under way");
        let memory_bytes = self.host.memory_bytes();
        let cost = self.host.cost();
        self.host.shut_down()?;
        let Self { mut host, sidecar, streams, taken, .. } = self;
        let proxy = host.proxy();
        let mut seen = Vec::new();
        for StreamState { number, request, configuration, client_left, is_stuck } in streams {
            let stream = proxy.stream(number);
            ensure!(stream.is_over(), "stream {number} never ends");
            seen.push(StreamRecord {
                backend: stream.to_backend().cloned(),
                client: stream.to_client().cloned(),
                access_log: stream.filter_state("wasm.twilio_edge.verdict"),
                complete: stream.request_has_ended(),
                request,
                configuration,
                client_left,
                is_stuck,
            });
        }
        Ok(Record {
            streams: seen,
            claims: sidecar.claims,
            granted: sidecar.granted,
            settlements: sidecar.settlements,
            exchanges: sidecar.exchanges,
            reports: sidecar.reports,
            unauthorized: sidecar.unauthorized,
            counters: proxy.metrics().map(|(name, it)| (name.to_owned(), it)).collect(),
            log: proxy.log().map(str::to_owned).collect(),
            violations: proxy.violations().to_vec(),
            taken,
            memory_bytes,
            cost,
        })
    }
}
