//! Envoy's side of one worker: the state that host calls act on. The calls themselves are in [`abi`]; this module has the
//! state, and the operations that [`super::Host`] needs.
//!
//! Knows no wasm: the callers handle memory and encodings.

mod abi;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::stream::{Moment, Stream};

/// Header lines, names in lower case, pseudo headers first.
pub type Pairs = Vec<(String, Vec<u8>)>;

/// Most header lines and bytes of one call of a filter.
const MOST_PAIRS: usize = 1024;
const MOST_PAIR_BYTES: usize = 1 << 20;
/// Wall-clock time of the start.
const START_MS: u64 = 1_790_000_000_000;
/// Most log lines that are stored.
const MOST_LINES: usize = 10_000;

/// Status codes of the ABI, with their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the ABI")]
pub enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    InvalidMemoryAccess = 6,
    Empty = 7,
    InternalFailure = 10,
    Unimplemented = 12,
}

/// Result of a host call.
pub type Answer<T> = Result<T, Status>;

/// Header maps of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the ABI")]
pub enum MapKind {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    CallResponseHeaders,
    CallResponseTrailers,
}

/// Buffers of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the ABI")]
pub enum BufferKind {
    RequestBody,
    ResponseBody,
    CallResponseBody,
    PluginConfiguration,
}

/// State of the cluster of a callout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster {
    /// It has an endpoint.
    Up,
    /// No endpoint, or no more requests allowed: a callout fails at once.
    NoEndpoint,
}

/// A callout in flight.
#[derive(Debug, Clone)]
pub struct Callout {
    /// Its number.
    pub token: u32,
    /// The context that owns it: always a root.
    pub root: u32,
    /// Headers, pseudo headers included.
    pub headers: Pairs,
    /// Body.
    pub body: Vec<u8>,
    deadline_ms: Option<u64>,
}

impl Callout {
    /// Returns `:path`.
    pub fn path(&self) -> &[u8] {
        find(&self.headers, ":path").unwrap_or_default()
    }
}

/// Reply to a callout. A reply without headers broke off, or is too large for Envoy.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Headers, `:status` included.
    pub headers: Pairs,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Creates the reply that Envoy gives when there is no other.
    pub fn made_by_envoy(status: u16, text: &str) -> Self {
        let headers = [
            (":status", status.to_string()),
            ("content-length", text.len().to_string()),
            ("content-type", "text/plain".to_owned()),
        ];
        Self {
            headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).to_vec(),
            body: text.as_bytes().to_vec(),
        }
    }
}

/// Request of the filter during a callback, to be carried out after it.
#[derive(Debug)]
pub(super) enum Deferred {
    ResumeRequest,
    ResumeResponse,
    Answer { headers: Pairs, body: Vec<u8> },
}

#[derive(Debug)]
struct Queue {
    name: Vec<u8>,
    root: u32,
    items: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct Metric {
    kind: u32,
    name: String,
    value: u64,
}

#[derive(Debug)]
struct Ticking {
    period_ms: u64,
    next_ms: u64,
}

/// The part of Envoy that a filter can reach.
#[derive(Debug, Default)]
pub struct Proxy {
    clock_ms: u64,
    order: u64,
    random: u64,
    contexts: u32,
    effective: u32,
    environment: Vec<(String, String)>,
    clusters: BTreeMap<String, Cluster>,
    roots: Vec<u32>,
    streams: BTreeMap<u32, Stream>,
    configuration: Option<Vec<u8>>,
    callouts: BTreeMap<u32, Callout>,
    tokens: u32,
    reply: Option<Reply>,
    queues: Vec<Queue>,
    wakes: VecDeque<(u32, u32)>,
    deferred: VecDeque<(u32, Deferred)>,
    ticking: BTreeMap<u32, Ticking>,
    /// Roots that asked to stay when their configuration was drained.
    staying: BTreeSet<u32>,
    done: Vec<u32>,
    metrics: Vec<Metric>,
    log: Vec<(u32, String)>,
    violations: Vec<String>,
    host_calls: u64,
}

impl Proxy {
    /// Creates the state; `environment` contains the variables of Envoy that the plugin may see.
    pub fn new(environment: &[(&str, &str)], clusters: &[(&str, Cluster)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            environment: environment.iter().map(owned).collect(),
            clusters: clusters.iter().map(|(name, it)| ((*name).to_owned(), *it)).collect(),
            ..Self::default()
        }
    }

    /// Returns the number of calls that the filter has made.
    pub fn host_calls(&self) -> u64 {
        self.host_calls
    }

    /// Counts another call.
    pub fn called(&mut self) -> &mut Self {
        self.host_calls += 1;
        self
    }

    /// Returns a stream, ended or not; an empty one if the number was never used.
    pub fn stream(&mut self, stream: u32) -> &mut Stream {
        self.streams.entry(stream).or_default()
    }

    /// Returns all streams, including ended ones, by their numbers.
    pub fn streams(&self) -> &BTreeMap<u32, Stream> {
        &self.streams
    }

    /// Returns the callouts without a reply.
    pub fn callouts(&self) -> impl Iterator<Item = &Callout> {
        self.callouts.values()
    }

    /// Returns the value of a counter or gauge, or the last of a histogram; `None` if it was not defined.
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    /// Returns all metrics.
    pub fn metrics(&self) -> impl Iterator<Item = (&str, u64)> {
        self.metrics.iter().map(|metric| (metric.name.as_str(), metric.value))
    }

    /// Returns all log lines.
    pub fn log(&self) -> impl Iterator<Item = &str> {
        self.log.iter().map(|(_, line)| line.as_str())
    }

    /// Returns the actions that would have made Envoy crash, hang or answer wrongly, although no call failed.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Returns the clock, in milliseconds since the start.
    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// Returns the next moment, which orders events of the same time.
    pub fn moment(&mut self) -> Moment {
        self.order += 1;
        Moment { ms: self.clock_ms, order: self.order }
    }

    /// Returns the value of `proxy_get_current_time_nanoseconds`, in milliseconds.
    pub fn wall_clock_ms(&self) -> u64 {
        START_MS + self.clock_ms
    }

    /// Returns the next random byte. The bytes are the same in every run (Vigna's splitmix64).
    pub(super) fn random_byte(&mut self) -> u8 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 56) as u8
    }

    /// Returns the variables for `environ_get`.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    pub(super) fn log_tail(&self) -> String {
        let lines: Vec<_> = self.log().collect();
        let from = lines.len().saturating_sub(8);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    pub(super) fn offend(&mut self, what: &str) {
        let stream = self.effective;
        self.violations.push(format!("stream {stream} at {} ms: {what}", self.clock_ms));
    }

    pub(super) fn add_root(&mut self, configuration: &[u8]) -> u32 {
        self.contexts += 1;
        self.roots.push(self.contexts);
        self.configuration = Some(configuration.to_vec());
        self.contexts
    }

    /// Removes the configuration, which can be read during on_configure only.
    pub(super) fn configured(&mut self) {
        self.configuration = None;
    }

    pub(super) fn remove_root(&mut self, root: u32) {
        self.roots.retain(|have| *have != root);
        self.ticking.remove(&root);
        self.callouts.retain(|_, callout| callout.root != root);
        self.wakes.retain(|(have, _)| *have != root);
    }

    pub(super) fn roots(&self) -> Vec<u32> {
        self.roots.clone()
    }

    pub(super) fn await_done(&mut self, root: u32) {
        self.staying.insert(root);
    }

    pub(super) fn next_done(&mut self) -> Option<u32> {
        self.done.pop()
    }

    pub(super) fn add_stream(&mut self, root: u32) -> u32 {
        self.contexts += 1;
        self.streams.insert(self.contexts, Stream::of(root));
        self.contexts
    }

    pub(super) fn focus(&mut self, context: u32) {
        self.effective = context;
    }

    pub(super) fn is_answering(&self, stream: u32) -> bool {
        let mut deferred = self.deferred.iter();
        deferred.any(|(id, what)| *id == stream && matches!(what, Deferred::Answer { .. }))
    }

    pub(super) fn next_deferred(&mut self) -> Option<(u32, Deferred)> {
        self.deferred.pop_front()
    }

    pub(super) fn next_wake(&mut self) -> Option<(u32, u32)> {
        self.wakes.pop_front()
    }

    pub(super) fn take_callout(&mut self, token: u32) -> Option<Callout> {
        self.callouts.remove(&token)
    }

    pub(super) fn begin_reply(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    pub(super) fn end_reply(&mut self) {
        self.reply = None;
    }

    pub(super) fn set_clock(&mut self, now_ms: u64) {
        self.clock_ms = self.clock_ms.max(now_ms);
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        let ticks = self.ticking.values().map(|ticking| ticking.next_ms);
        let deadlines = self.callouts.values().filter_map(|callout| callout.deadline_ms);
        ticks.chain(deadlines).min()
    }

    pub(super) fn overdue_callout(&self) -> Option<u32> {
        let mut callouts = self.callouts.values();
        let late = callouts.find(|it| it.deadline_ms.is_some_and(|at| at <= self.clock_ms));
        late.map(|callout| callout.token)
    }

    pub(super) fn due_tick(&mut self) -> Option<u32> {
        let now_ms = self.clock_ms;
        let (root, ticking) = self.ticking.iter_mut().find(|(_, it)| it.next_ms <= now_ms)?;
        ticking.next_ms = now_ms + ticking.period_ms;
        Some(*root)
    }
}

fn find<'a>(pairs: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    pairs.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_slice())
}
