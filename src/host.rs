//! The only file that talks to the proxy.
//!
//! Nothing here may panic on input from a client, a backend or a sidecar: a panic kills the worker's VM, and with it every
//! request of the worker. So this module uses only the `_bytes` calls, because the String ones unwrap UTF-8. It reads a map
//! only in phases in which it exists, because the SDK panics on any other status. It turns errors into absence.

use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType, Status};
use twilio_edge_contract::EXCHANGE_MEDIA_TYPE;

use crate::adapter::{MAX_REPLY_BYTES, is_reply_of, sidecar_headers};
use crate::config::Sidecar;
use crate::metrics::{Counter, Gauge, Histogram, Tally};
use crate::reply::Answer;

/// Returns a header map, to be read by [`HeaderMap`]; empty if the host has none.
///
/// The SDK's own calls allocate twice for each header, and panic if there is no such map.
#[expect(unsafe_code, reason = "the host allocates the map through the SDK and hands it over")]
fn map(kind: MapType) -> Vec<u8> {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn proxy_get_header_map_pairs(kind: MapType, map: *mut *mut u8, size: *mut usize)
        -> Status;
    }
    let (mut map, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: both point to live variables of the types the ABI writes to.
    let status = unsafe { proxy_get_header_map_pairs(kind, &raw mut map, &raw mut size) };
    if status != Status::Ok || map.is_null() {
        return Vec::new();
    }
    // SAFETY: the host got the buffer from `proxy_on_memory_allocate`, which is the SDK's: a Vec<u8> of this
    // capacity, forgotten. The host has filled it and keeps no pointer to it.
    unsafe { Vec::from_raw_parts(map, size, size) }
}

/// Returns the request headers. Only while the request is paused; empty afterwards.
pub(crate) fn request_headers() -> Vec<u8> {
    map(MapType::HttpRequestHeaders)
}

/// Replaces a request header, or removes all of its values. Only while the filter has paused the request.
pub(crate) fn set_request_header(name: &str, value: Option<&str>) {
    let value = value.map(str::as_bytes);
    let _ = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, value);
}

/// Adds a request header of which there is none. Cheaper than [`set_request_header`], for which the host searches the name.
pub(crate) fn add_request_header(name: &str, value: &str) {
    let _ = hostcalls::add_map_value_bytes(MapType::HttpRequestHeaders, name, value.as_bytes());
}

/// Returns the request trailers. Only in the request trailers callback.
pub(crate) fn request_trailers() -> Vec<u8> {
    map(MapType::HttpRequestTrailers)
}

/// Removes a request trailer, all of its values. Only in the request trailers callback.
pub(crate) fn remove_request_trailer(name: &str) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpRequestTrailers, name, None);
}

/// Returns the buffered part of the request body, at most `max_bytes` bytes. Only in body and trailers callbacks.
pub(crate) fn request_body(max_bytes: usize) -> Vec<u8> {
    match hostcalls::get_buffer(BufferType::HttpRequestBody, 0, max_bytes) {
        Ok(Some(body)) => body,
        Ok(None) | Err(_) => Vec::new(),
    }
}

/// Replaces the whole request body. Only while the filter has paused the request, after its end; the caller sets
/// content-length.
pub(crate) fn replace_request_body(body: &str) {
    let body = body.as_bytes();
    let _ = hostcalls::set_buffer(BufferType::HttpRequestBody, 0, usize::MAX, body);
}

/// Returns the response headers. Only in the response headers callback.
pub(crate) fn response_headers() -> Vec<u8> {
    map(MapType::HttpResponseHeaders)
}

/// Returns the part of the response body that is passing. Only in the response body callback.
pub(crate) fn response_body(bytes: usize) -> Vec<u8> {
    match hostcalls::get_buffer(BufferType::HttpResponseBody, 0, bytes) {
        Ok(Some(part)) => part,
        Ok(None) | Err(_) => Vec::new(),
    }
}

/// Reports whether the response came from an upstream, and not from Envoy (a timeout, a reset, a redirect or
/// direct_response route). Only in response callbacks.
pub(crate) fn is_response_from_backend() -> bool {
    let details = hostcalls::get_property(vec!["response", "code_details"]);
    matches!(details, Ok(Some(details)) if details == b"via_upstream")
}

/// Ends the request with an answer of the filter. At most once per request.
pub(crate) fn answer(answer: &Answer) {
    let headers = answer.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = (!answer.body.is_empty()).then_some(answer.body.as_bytes());
    let _ = hostcalls::send_http_response(u32::from(answer.status), headers, body);
}

/// Resumes a paused request.
pub(crate) fn forward() {
    let _ = hostcalls::resume_http_request();
}

/// Resumes a paused response.
pub(crate) fn respond() {
    let _ = hostcalls::resume_http_response();
}

/// Directs the calls above to the stream `context`. Only for ids of streams that still exist.
pub(crate) fn focus(context: u32) -> bool {
    hostcalls::set_effective_context(context).is_ok()
}

/// Posts a binary body to the sidecar. Returns the token under which [`reply`] will come, or `None` if the call cannot be sent.
/// Must be called in a root callback: a reply to a stream that has ended is lost.
pub(crate) fn post(sidecar: &Sidecar, path: &str, body: &[u8]) -> Option<u32> {
    let headers = [(":method", "POST"), (":path", path), ("content-type", EXCHANGE_MEDIA_TYPE)];
    call(sidecar, &headers, Some(body))
}

/// Requests `path` of the sidecar with GET; otherwise as [`post`].
pub(crate) fn get(sidecar: &Sidecar, path: &str) -> Option<u32> {
    call(sidecar, &[(":method", "GET"), (":path", path)], None)
}

fn call(sidecar: &Sidecar, headers: &[(&str, &str)], body: Option<&[u8]>) -> Option<u32> {
    let headers = sidecar_headers(sidecar, headers);
    let timeout = Duration::from_millis(sidecar.timeout_ms);
    hostcalls::dispatch_http_call(&sidecar.cluster, headers, body, vec![], timeout).ok()
}

/// Returns the body of a callout's reply if it can be the sidecar's: 200 and of this content type. Only in the reply callback.
pub(crate) fn reply(headers: usize, body_bytes: usize, media_type: &str) -> Option<Vec<u8>> {
    // A reset half-way or a reply over Envoy's limit has no headers at all, and asking for one is fatal.
    if headers == 0 || body_bytes > MAX_REPLY_BYTES {
        return None;
    }
    let kind = MapType::HttpCallResponseHeaders;
    let value = |name| hostcalls::get_map_value_bytes(kind, name).ok().flatten();
    if !is_reply_of(value(":status").as_deref(), value("content-type").as_deref(), media_type) {
        return None;
    }
    hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, body_bytes).ok()?
}

/// Releases a root context that asked to stay in `on_done`. Only once, and only then: the SDK panics at a refusal.
pub(crate) fn leave() {
    let _ = hostcalls::done();
}

/// Returns the milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    hostcalls::get_current_time()
        .ok()
        .and_then(|now| now.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

/// Makes Envoy call `on_tick` every `period_ms` milliseconds.
pub(crate) fn tick_every(period_ms: u64) {
    let _ = hostcalls::set_tick_period(Duration::from_millis(period_ms));
}

/// Returns the plugin configuration. Only in `on_configure`.
pub(crate) fn plugin_configuration() -> Vec<u8> {
    match hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX) {
        Ok(Some(json)) => json,
        Ok(None) | Err(_) => Vec::new(),
    }
}

/// Sets the verdict for the access log: `%FILTER_STATE(wasm.twilio_edge.verdict:PLAIN)%`.
pub(crate) fn set_access_log_verdict(word: &str) {
    let _ = hostcalls::set_property(vec!["twilio_edge.verdict"], Some(word.as_bytes()));
}

/// Logs a line for the operator, at level warning.
pub(crate) fn warn(line: &str) {
    log::warn!("{line}");
}

/// Logs a line for the operator, once per start.
pub(crate) fn info(line: &str) {
    log::info!("{line}");
}

/// Logs an error for the operator: the filter does not work until it is corrected.
pub(crate) fn error(line: &str) {
    log::error!("{line}");
}

/// Signal that wakes the root context of this worker only.
///
/// Envoy gives the events of a shared queue to the thread that registered it last, so each worker has a queue with a name
/// of its own. It is the only way from a stream callback into a root callback without waiting for the tick.
pub(crate) struct Wakeup(u32);

impl Wakeup {
    /// Registers the queue; `worker` is part of its name.
    pub(crate) fn new(worker: u64) -> Option<Self> {
        hostcalls::register_shared_queue(&format!("twilio-edge.{worker:016x}")).ok().map(Self)
    }

    /// Makes Envoy call `on_queue_ready` soon.
    pub(crate) fn send(&self) {
        let _ = hostcalls::enqueue_shared_queue(self.0, Some(b"."));
    }

    /// Empties the queue, so that the next wakeup is delivered.
    pub(crate) fn clear(&self) {
        while let Ok(Some(_)) = hostcalls::dequeue_shared_queue(self.0) {}
    }
}

/// The metrics of this VM.
pub(crate) struct Metrics {
    counters: Vec<(Counter, u32)>,
    gauges: Vec<GaugeShare>,
    histograms: Vec<(Histogram, u32)>,
}

/// Share of this worker in a gauge.
struct GaugeShare {
    gauge: Gauge,
    id: u32,
    reported: i64,
}

impl Metrics {
    /// Defines all metrics, so that they are visible from the start.
    pub(crate) fn define() -> Self {
        let define = |kind, name: &str| hostcalls::define_metric(kind, name).ok();
        let counter = |it: Counter| Some((it, define(MetricType::Counter, &it.name())?));
        let gauge = |gauge: Gauge| {
            Some(GaugeShare { gauge, id: define(MetricType::Gauge, gauge.name())?, reported: 0 })
        };
        let histogram = |it: Histogram| Some((it, define(MetricType::Histogram, it.name())?));
        Self {
            counters: Counter::all().into_iter().filter_map(counter).collect(),
            gauges: Gauge::ALL.into_iter().filter_map(gauge).collect(),
            histograms: Histogram::ALL.into_iter().filter_map(histogram).collect(),
        }
    }

    /// Adds the counts of a tally.
    pub(crate) fn add(&self, tally: &mut Tally) {
        for (counter, count) in tally.take() {
            let defined = self.counters.iter().find(|(defined, _)| *defined == counter);
            if let (Some((_, id)), Ok(count)) = (defined, i64::try_from(count)) {
                let _ = hostcalls::increment_metric(*id, count);
            }
        }
    }

    /// Sets the share of this worker in a gauge; Envoy adds up the workers.
    pub(crate) fn set_share(&mut self, gauge: Gauge, value: usize) {
        let Some(share) = self.gauges.iter_mut().find(|share| share.gauge == gauge) else { return };
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let change = value.saturating_sub(share.reported);
        if change != 0 && hostcalls::increment_metric(share.id, change).is_ok() {
            share.reported = value;
        }
    }

    /// Sets a gauge whose value is the same for all workers.
    pub(crate) fn set(&self, gauge: Gauge, value: u32) {
        if let Some(share) = self.gauges.iter().find(|share| share.gauge == gauge) {
            let _ = hostcalls::record_metric(share.id, u64::from(value));
        }
    }

    /// Records one value of a histogram.
    pub(crate) fn record(&self, histogram: Histogram, value: u64) {
        if let Some((_, id)) = self.histograms.iter().find(|(defined, _)| *defined == histogram) {
            let _ = hostcalls::record_metric(*id, value);
        }
    }
}
