//! What host calls act on: Envoy's side of one worker. Every call answers with the status Envoy answers with; the SDK
//! panics on most that are not Ok, and so traps.
//!
//! Knows no wasm: memory and encodings are the callers' business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::stream::{Moment, Stream};

/// Header lines, names in lower case, pseudo headers first.
pub type Pairs = Vec<(String, Vec<u8>)>;

/// Most header lines and bytes a filter may hand over at once.
const MOST_PAIRS: usize = 1024;
const MOST_PAIR_BYTES: usize = 1 << 20;
/// Wall-clock time of the start.
const START_MS: u64 = 1_790_000_000_000;
/// Log lines kept.
const MOST_LINES: usize = 10_000;

/// The ABI's, by their numbers.
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

/// What a call gives.
pub type Answer<T> = Result<T, Status>;

/// The ABI's maps.
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

/// The ABI's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the ABI")]
pub enum BufferKind {
    RequestBody,
    ResponseBody,
    CallResponseBody,
    PluginConfiguration,
}

/// What a callout finds at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster {
    /// Somebody.
    Up,
    /// No endpoint, or no more requests allowed: a callout fails at once.
    NoEndpoint,
}

/// A callout under way.
#[derive(Debug, Clone)]
pub struct Callout {
    /// Its number.
    pub token: u32,
    /// The context that owns it: a root, whoever asked.
    pub root: u32,
    /// Headers, pseudo headers included.
    pub headers: Pairs,
    /// Body.
    pub body: Vec<u8>,
    deadline_ms: Option<u64>,
}

impl Callout {
    /// `:path`
    pub fn path(&self) -> &[u8] {
        find(&self.headers, ":path").unwrap_or_default()
    }
}

/// A reply to a callout. Without headers it is one that broke off, or one that is too large for Envoy.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Headers, `:status` included.
    pub headers: Pairs,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// What Envoy says when it has no reply to give.
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

/// What the filter asked for during a callback, to be done after it.
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

/// Envoy, as far as a filter can reach it.
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
    offences: Vec<String>,
}

impl Proxy {
    /// `environment` is what the plugin may see of Envoy's.
    pub fn new(environment: &[(&str, &str)], clusters: &[(&str, Cluster)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            environment: environment.iter().map(owned).collect(),
            clusters: clusters.iter().map(|(name, it)| ((*name).to_owned(), *it)).collect(),
            ..Self::default()
        }
    }

    /// A stream, over or not; an empty one if there never was one of this number.
    pub fn stream(&mut self, stream: u32) -> &mut Stream {
        self.streams.entry(stream).or_default()
    }

    /// All streams there were, by their numbers.
    pub fn streams(&self) -> &BTreeMap<u32, Stream> {
        &self.streams
    }

    /// Callouts without a reply.
    pub fn callouts(&self) -> impl Iterator<Item = &Callout> {
        self.callouts.values()
    }

    /// The value of a counter, gauge, or the last of a histogram; none if it was not defined.
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    /// All metrics.
    pub fn metrics(&self) -> impl Iterator<Item = (&str, u64)> {
        self.metrics.iter().map(|metric| (metric.name.as_str(), metric.value))
    }

    /// All log lines.
    pub fn log(&self) -> impl Iterator<Item = &str> {
        self.log.iter().map(|(_, line)| line.as_str())
    }

    /// What would have made Envoy crash, hang or answer wrongly, although no call failed.
    pub fn offences(&self) -> &[String] {
        &self.offences
    }

    /// The clock, in milliseconds since the start.
    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// The next in the order of things.
    pub fn moment(&mut self) -> Moment {
        self.order += 1;
        Moment { ms: self.clock_ms, order: self.order }
    }

    /// `proxy_get_current_time_nanoseconds`, in milliseconds.
    pub fn wall_clock_ms(&self) -> u64 {
        START_MS + self.clock_ms
    }

    /// The same bytes in every run (Vigna's splitmix64).
    pub(super) fn random_byte(&mut self) -> u8 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 56) as u8
    }

    /// What `environ_get` gives.
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
        self.offences.push(format!("stream {stream} at {} ms: {what}", self.clock_ms));
    }

    pub(super) fn add_root(&mut self, configuration: &[u8]) -> u32 {
        self.contexts += 1;
        self.roots.push(self.contexts);
        self.configuration = Some(configuration.to_vec());
        self.contexts
    }

    /// The configuration can be read during on_configure only.
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

    // What follows is called by the filter.

    /// `proxy_log`
    pub fn write_log(&mut self, level: u32, line: String) {
        if self.log.len() < MOST_LINES {
            self.log.push((level, line));
        }
    }

    /// `proxy_set_tick_period_milliseconds`
    pub fn set_tick_period(&mut self, period_ms: u64) {
        let root = self.owner();
        self.ticking.remove(&root);
        if period_ms > 0 {
            let next_ms = self.clock_ms + period_ms;
            self.ticking.insert(root, Ticking { period_ms, next_ms });
        }
    }

    /// `proxy_done`: refused to whom did not ask to stay.
    pub fn done(&mut self) -> Answer<()> {
        let root = self.owner();
        if !self.staying.remove(&root) {
            return Err(Status::NotFound);
        }
        self.done.push(root);
        Ok(())
    }

    /// `proxy_set_effective_context`
    pub fn set_effective_context(&mut self, context: u32) -> Answer<()> {
        let exists = self.roots.contains(&context)
            || self.streams.get(&context).is_some_and(|stream| !stream.is_over());
        if !exists {
            return Err(Status::BadArgument);
        }
        self.effective = context;
        Ok(())
    }

    /// `proxy_get_header_map_pairs`. In on_log headers can be read once more.
    pub fn map(&mut self, kind: MapKind) -> Answer<Pairs> {
        let log_headers = self.focused().map(|stream| stream.log_headers.clone());
        if let Some([request, response]) = log_headers {
            match (kind, request, response) {
                (MapKind::RequestHeaders, Some(headers), _)
                | (MapKind::ResponseHeaders, _, Some(headers)) => return Ok(headers),
                _ => {}
            }
        }
        self.map_mut(kind).cloned()
    }

    /// Null maps are a bad argument.
    fn map_mut(&mut self, kind: MapKind) -> Answer<&mut Pairs> {
        match kind {
            MapKind::CallResponseHeaders => {
                // A reply that broke off has no map, rather than an empty one.
                let headers = self.reply.as_mut().map(|reply| &mut reply.headers);
                headers.filter(|headers| !headers.is_empty())
            }
            MapKind::CallResponseTrailers => None,
            MapKind::RequestHeaders => self.focused().and_then(|it| it.request.headers()),
            MapKind::RequestTrailers => self.focused().and_then(|it| it.request.trailers()),
            MapKind::ResponseHeaders => self.focused().and_then(|it| it.response.headers()),
            MapKind::ResponseTrailers => self.focused().and_then(|it| it.response.trailers()),
        }
        .ok_or(Status::BadArgument)
    }

    /// `proxy_get_header_map_value`: the first of several.
    pub fn map_value(&mut self, kind: MapKind, name: &str) -> Answer<Vec<u8>> {
        let map = self.map(kind)?;
        find(&map, &name.to_ascii_lowercase()).map(<[u8]>::to_vec).ok_or(Status::NotFound)
    }

    /// `proxy_set_header_map_pairs`
    pub fn set_map(&mut self, kind: MapKind, pairs: Pairs) -> Answer<()> {
        let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if pairs.len() > MOST_PAIRS || bytes > MOST_PAIR_BYTES {
            return Err(Status::BadArgument);
        }
        self.check(&pairs);
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        *self.map_mut(kind)? = pairs.collect();
        Ok(())
    }

    /// `proxy_remove_header_map_value`: all of several.
    pub fn remove_map_value(&mut self, kind: MapKind, name: &str) -> Answer<()> {
        self.map_mut(kind)?.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        Ok(())
    }

    /// `proxy_add_header_map_value`
    pub fn add_map_value(&mut self, kind: MapKind, name: &str, value: &[u8]) -> Answer<()> {
        let pair = (name.to_ascii_lowercase(), value.to_vec());
        self.check(std::slice::from_ref(&pair));
        self.map_mut(kind)?.push(pair);
        Ok(())
    }

    /// `proxy_replace_header_map_value`: one instead of all there are.
    pub fn replace_map_value(&mut self, kind: MapKind, name: &str, value: &[u8]) -> Answer<()> {
        self.remove_map_value(kind, name)?;
        self.add_map_value(kind, name, value)
    }

    /// `proxy_get_buffer_bytes`. No buffer is not found; what is asked for beyond its end is left out.
    pub fn buffer(&mut self, kind: BufferKind, start: usize, most: usize) -> Answer<Vec<u8>> {
        let buffer = match kind {
            BufferKind::RequestBody => self.focused().and_then(|it| it.request.body()).cloned(),
            BufferKind::ResponseBody => self.focused().and_then(|it| it.response.body()).cloned(),
            BufferKind::CallResponseBody => self.reply.as_ref().map(|reply| reply.body.clone()),
            BufferKind::PluginConfiguration => self.configuration.clone(),
        };
        let buffer = buffer.ok_or(Status::NotFound)?;
        let end = start.saturating_add(most).min(buffer.len());
        Ok(buffer.get(start..end).unwrap_or_default().to_vec())
    }

    /// `proxy_set_buffer_bytes`: replaces part of a body. The content length is the filter's business.
    pub fn set_buffer(
        &mut self,
        kind: BufferKind,
        start: usize,
        length: usize,
        bytes: &[u8],
    ) -> Answer<()> {
        let buffer = match kind {
            BufferKind::RequestBody => self.focused().and_then(|it| it.request.body()),
            BufferKind::ResponseBody => self.focused().and_then(|it| it.response.body()),
            BufferKind::CallResponseBody | BufferKind::PluginConfiguration => None,
        };
        let buffer = buffer.ok_or(Status::NotFound)?;
        let start = start.min(buffer.len());
        let end = start.saturating_add(length).min(buffer.len());
        buffer.splice(start..end, bytes.iter().copied());
        Ok(())
    }

    /// `proxy_get_property`. Only what the filter may rely on is there.
    pub fn property(&mut self, path: &[&str]) -> Answer<Vec<u8>> {
        let stream = self.focused().ok_or(Status::NotFound)?;
        match path {
            ["response", "code_details"] => {
                stream.code_details().map(<[u8]>::to_vec).ok_or(Status::NotFound)
            }
            _ => Err(Status::NotFound),
        }
    }

    /// `proxy_set_property`: filter state of the stream; there is none without a stream.
    pub fn set_property(&mut self, name: &str, value: &[u8]) -> Answer<()> {
        let stream = self.focused().ok_or(Status::NotFound)?;
        stream.set_filter_state(format!("wasm.{name}"), value.to_vec());
        Ok(())
    }

    /// `proxy_continue_stream` of the request. Nothing happens without a stream. Request maps are null from now on.
    pub fn resume_request(&mut self) {
        self.resume(Deferred::ResumeRequest);
    }

    /// `proxy_continue_stream` of the response. It, too, makes the request's maps null.
    pub fn resume_response(&mut self) {
        self.resume(Deferred::ResumeResponse);
    }

    fn resume(&mut self, what: Deferred) {
        let id = self.effective;
        if let Some(stream) = self.focused() {
            stream.request.hide();
            self.deferred.push_back((id, what));
        }
    }

    /// `proxy_send_local_response`. Without a stream in focus it is lost, and says Ok all the same.
    pub fn send_local_response(&mut self, status: u32, headers: Pairs, body: &[u8]) {
        self.check(&headers);
        let id = self.effective;
        if self.focused().is_none() {
            return self.offend("answered without a stream in focus");
        }
        if self.is_answering(id) {
            return self.offend("answered twice");
        }
        let mut all = vec![(":status".to_owned(), status.to_string().into_bytes())];
        all.extend(headers);
        if !body.is_empty() {
            all.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
        }
        self.deferred.push_back((id, Deferred::Answer { headers: all, body: body.to_vec() }));
    }

    /// `proxy_http_call`
    pub fn call(
        &mut self,
        cluster: &str,
        headers: Pairs,
        body: &[u8],
        timeout_ms: u64,
    ) -> Answer<u32> {
        let complete =
            [":method", ":path", ":authority"].iter().all(|name| find(&headers, name).is_some());
        match self.clusters.get(cluster) {
            Some(_) if !complete => return Err(Status::BadArgument),
            None => return Err(Status::BadArgument),
            Some(Cluster::NoEndpoint) => return Err(Status::InternalFailure),
            Some(Cluster::Up) => {}
        }
        self.check(&headers);
        self.tokens += 1;
        let callout = Callout {
            token: self.tokens,
            root: self.owner(),
            headers,
            body: body.to_vec(),
            deadline_ms: (timeout_ms > 0).then(|| self.clock_ms + timeout_ms),
        };
        self.callouts.insert(self.tokens, callout);
        Ok(self.tokens)
    }

    /// `proxy_register_shared_queue`: one queue per name; its events go to whoever registered it last.
    pub fn register_queue(&mut self, name: &[u8]) -> u32 {
        let root = self.owner();
        let at = self.queues.iter().position(|queue| queue.name == name).unwrap_or_else(|| {
            self.queues.push(Queue { name: name.to_vec(), root, items: VecDeque::new() });
            self.queues.len() - 1
        });
        if let Some(queue) = self.queues.get_mut(at) {
            queue.root = root;
        }
        u32::try_from(at + 1).unwrap_or_default()
    }

    /// `proxy_enqueue_shared_queue`
    pub fn enqueue(&mut self, queue: u32, item: &[u8]) -> Answer<()> {
        let found = self.queue(queue).ok_or(Status::NotFound)?;
        found.items.push_back(item.to_vec());
        let root = found.root;
        if self.roots.contains(&root) {
            self.wakes.push_back((root, queue));
        }
        Ok(())
    }

    /// `proxy_dequeue_shared_queue`
    pub fn dequeue(&mut self, queue: u32) -> Answer<Vec<u8>> {
        self.queue(queue).ok_or(Status::NotFound)?.items.pop_front().ok_or(Status::Empty)
    }

    /// `proxy_define_metric`: the same name is the same metric, whoever defines it.
    pub fn define_metric(&mut self, kind: u32, name: &str) -> u32 {
        let at = self.metrics.iter().position(|metric| metric.name == name).unwrap_or_else(|| {
            self.metrics.push(Metric { kind, name: name.to_owned(), value: 0 });
            self.metrics.len() - 1
        });
        u32::try_from(at).unwrap_or_default()
    }

    /// `proxy_increment_metric`: counters only rise, histograms have nothing to add to.
    pub fn increment_metric(&mut self, metric: u32, by: i64) -> Answer<()> {
        let metric = self.metric_mut(metric)?;
        match (metric.kind, by) {
            (0, 1..) | (1, _) => metric.value = metric.value.saturating_add_signed(by),
            _ => return Err(Status::BadArgument),
        }
        Ok(())
    }

    /// `proxy_record_metric`
    pub fn record_metric(&mut self, metric: u32, value: u64) -> Answer<()> {
        self.metric_mut(metric)?.value = value;
        Ok(())
    }

    /// `proxy_get_metric`
    pub fn metric_value(&mut self, metric: u32) -> Answer<u64> {
        self.metric_mut(metric).map(|metric| metric.value)
    }

    fn metric_mut(&mut self, metric: u32) -> Answer<&mut Metric> {
        let at = usize::try_from(metric).map_err(|_| Status::NotFound)?;
        self.metrics.get_mut(at).ok_or(Status::NotFound)
    }

    fn queue(&mut self, queue: u32) -> Option<&mut Queue> {
        let at = usize::try_from(queue).ok()?.checked_sub(1)?;
        self.queues.get_mut(at)
    }

    /// The stream host calls act on; none when that is a root, or a stream that is gone.
    fn focused(&mut self) -> Option<&mut Stream> {
        self.streams.get_mut(&self.effective).filter(|stream| !stream.is_over())
    }

    /// The root of the context in focus.
    fn owner(&self) -> u32 {
        self.streams.get(&self.effective).map_or(self.effective, |stream| stream.root)
    }

    /// A codec refuses these, or splits the message at them.
    fn check(&mut self, pairs: &[(String, Vec<u8>)]) {
        let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
        for (name, value) in pairs {
            if name.is_empty() || name.bytes().any(|it| breaks(&it)) || value.iter().any(breaks) {
                self.offend("handed over a header that breaks the message");
            }
        }
    }
}

fn find<'a>(pairs: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    pairs.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_slice())
}
