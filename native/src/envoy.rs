//! Envoy behind safe calls. The pointers that it lends are in types of this module, so that the unsafe calls are here and in
//! `hooks`, where Envoy calls the module.

#![expect(unsafe_code, reason = "the functions of Envoy are those of a C header")]

use std::borrow::Cow;
use std::ffi::CStr;
use std::sync::OnceLock;

use twilio_edge_contract::EXCHANGE_MEDIA_TYPE;
use twilio_edge_filter::adapter::{MAX_REPLY_BYTES, is_reply_of, sidecar_headers};
use twilio_edge_filter::config::Sidecar;
use twilio_edge_filter::reply::Answer;

use crate::abi::{
    BodyKind, Buffer, CALLOUT_SUCCESS, Callbacks, EnvoyPtr, Header, HeaderKind, LogLevel,
    METRIC_SUCCESS, RESPONSE_CODE_DETAILS,
};

static CALLBACKS: OnceLock<Callbacks> = OnceLock::new();

/// Looks up the functions of Envoy.
///
/// # Errors
///
/// Returns the name of a function that this Envoy does not have.
pub(crate) fn load() -> Result<(), &'static CStr> {
    if CALLBACKS.get().is_none() {
        let _ = CALLBACKS.set(Callbacks::look_up()?);
    }
    Ok(())
}

fn abi() -> &'static Callbacks {
    match CALLBACKS.get() {
        Some(callbacks) => callbacks,
        // Envoy calls no hook of a module whose first hook has returned null.
        None => std::process::abort(),
    }
}

fn log(level: LogLevel, line: &str) {
    // SAFETY: the line is lent for the call; Envoy copies it. Any thread may log.
    unsafe { (abi().log)(level as u32, Buffer::lend(line.as_bytes())) }
}

/// Logs a line for the operator, once per start.
pub(crate) fn info(line: &str) {
    log(LogLevel::Info, line);
}

/// Logs a line for the operator.
pub(crate) fn warn(line: &str) {
    log(LogLevel::Warn, line);
}

/// Logs an error for the operator: the filter does not work until it is corrected.
pub(crate) fn error(line: &str) {
    log(LogLevel::Error, line);
}

/// Returns the number of workers. Only on the main thread.
pub(crate) fn concurrency() -> usize {
    // SAFETY: called in `config_new`, which runs on the main thread.
    let workers = unsafe { (abi().concurrency)() };
    usize::try_from(workers).unwrap_or(1)
}

/// Reports whether Envoy only validates its configuration. Only on the main thread.
pub(crate) fn is_validation_mode() -> bool {
    // SAFETY: called in `config_new`, which runs on the main thread.
    unsafe { (abi().is_validation_mode)() }
}

/// Stores a pointer to an object of the process, under a name that all modules of the process see. The object must live as
/// long as the process.
pub(crate) fn register_shared<T>(name: &str, object: &'static T) {
    let object = std::ptr::from_ref(object).cast_mut().cast();
    // SAFETY: the object is static; whoever receives the pointer only reads it.
    unsafe { (abi().register_shared_data)(Buffer::lend(name.as_bytes()), object) };
}

/// Returns the pointer that was stored last under a name.
pub(crate) fn shared(name: &str) -> Option<EnvoyPtr> {
    let mut object = std::ptr::null_mut();
    // SAFETY: the pointer is to a live variable.
    let is_found = unsafe { (abi().shared_data)(Buffer::lend(name.as_bytes()), &raw mut object) };
    (is_found && !object.is_null()).then_some(object)
}

/// Reply to a callout; the bytes are lent for the duration of the hook.
pub(crate) struct Reply<'h> {
    pub(crate) is_complete: bool,
    pub(crate) headers: &'h [Header],
    pub(crate) body: &'h [Buffer],
}

impl Reply<'_> {
    /// Returns the body if the reply can be the sidecar's: 200 and of this content type.
    pub(crate) fn body_of(&self, media_type: &str) -> Option<Vec<u8>> {
        let size: usize = self.body.iter().map(|part| part.len).sum();
        if !self.is_complete || size > MAX_REPLY_BYTES {
            return None;
        }
        let value = |name: &[u8]| {
            // SAFETY: Envoy lends the headers until the hook returns, and `self` is borrowed from the hook.
            let pairs =
                self.headers.iter().map(|it| unsafe { (it.name.bytes(), it.value.bytes()) });
            pairs.into_iter().find(|(have, _)| *have == name).map(|(_, value)| value)
        };
        if !is_reply_of(value(b":status"), value(b"content-type"), media_type) {
            return None;
        }
        let mut body = Vec::with_capacity(size);
        for part in self.body {
            // SAFETY: as for the headers.
            body.extend_from_slice(unsafe { part.bytes() });
        }
        Some(body)
    }
}

type Callout =
    unsafe extern "C" fn(EnvoyPtr, *mut u64, Buffer, *mut Header, usize, Buffer, u64) -> u32;

/// Sends a request to the sidecar, and returns the id under which the reply comes. `None`: Envoy cannot send it.
fn call(
    function: Callout,
    envoy: EnvoyPtr,
    sidecar: &Sidecar,
    own: &[(&str, &str)],
    body: &[u8],
) -> Option<u64> {
    let headers = sidecar_headers(sidecar, own);
    let mut lent: Vec<Header> =
        headers.into_iter().map(|(name, value)| Header::lend(name, value)).collect();
    let (mut id, cluster) = (0, Buffer::lend(sidecar.cluster.as_bytes()));
    let (count, body) = (lent.len(), Buffer::lend(body));
    // SAFETY: all arguments are lent for the call, which copies them; `envoy` is valid (see the types that call this).
    let result = unsafe {
        function(envoy, &raw mut id, cluster, lent.as_mut_ptr(), count, body, sidecar.timeout_ms)
    };
    (result == CALLOUT_SUCCESS).then_some(id)
}

fn post_headers(path: &str) -> [(&str, &str); 3] {
    [(":method", "POST"), (":path", path), ("content-type", EXCHANGE_MEDIA_TYPE)]
}

/// Envoy's side of a configuration. Valid from `config_new` until `config_destroy` has returned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EnvoyConfig(EnvoyPtr);

// SAFETY: Envoy allows the functions about metrics on any thread; the callouts are private to the main thread, which the only
// caller (`main_thread`) cannot leave.
unsafe impl Send for EnvoyConfig {}
// SAFETY: as above.
unsafe impl Sync for EnvoyConfig {}

type Define = unsafe extern "C" fn(EnvoyPtr, Buffer, *mut Buffer, usize, *mut usize) -> u32;

impl EnvoyConfig {
    /// Takes the pointer of a hook.
    ///
    /// # Safety
    ///
    /// It is the pointer that Envoy gave to `config_new`, and no copy is used after `config_destroy`.
    pub(crate) unsafe fn new(envoy: EnvoyPtr) -> Self {
        Self(envoy)
    }

    fn define(self, function: Define, name: &str) -> Option<usize> {
        let (mut id, name) = (0, Buffer::lend(name.as_bytes()));
        // SAFETY: the name is lent for the call; there are no labels, so the list of them may be null.
        let result = unsafe { function(self.0, name, std::ptr::null_mut(), 0, &raw mut id) };
        (result == METRIC_SUCCESS).then_some(id)
    }

    /// Defines a counter. Only in `config_new`, as the two below.
    pub(crate) fn define_counter(self, name: &str) -> Option<usize> {
        self.define(abi().define_counter, name)
    }

    pub(crate) fn define_gauge(self, name: &str) -> Option<usize> {
        self.define(abi().define_gauge, name)
    }

    pub(crate) fn define_histogram(self, name: &str) -> Option<usize> {
        self.define(abi().define_histogram, name)
    }

    /// Adds to a counter.
    pub(crate) fn increment_counter(self, id: usize, by: u64) {
        // SAFETY: an id that Envoy does not know is an error, not undefined; no labels as when it was defined.
        unsafe { (abi().config_increment_counter)(self.0, id, std::ptr::null_mut(), 0, by) };
    }

    /// Changes a gauge, which several configurations share, by a difference.
    pub(crate) fn change_gauge(self, id: usize, by: i64) {
        let function = match by >= 0 {
            true => abi().config_increment_gauge,
            false => abi().config_decrement_gauge,
        };
        // SAFETY: as for the counter.
        unsafe { function(self.0, id, std::ptr::null_mut(), 0, by.unsigned_abs()) };
    }

    /// Sets a gauge.
    pub(crate) fn set_gauge(self, id: usize, value: u64) {
        // SAFETY: as for the counter.
        unsafe { (abi().config_set_gauge)(self.0, id, std::ptr::null_mut(), 0, value) };
    }

    /// Posts a body to the sidecar. Only on the main thread. The callout ends with the configuration, not with a stream.
    pub(crate) fn post(self, sidecar: &Sidecar, path: &str, body: &[u8]) -> Option<u64> {
        call(abi().config_http_callout, self.0, sidecar, &post_headers(path), body)
    }

    /// Requests `path` of the sidecar with GET; otherwise as [`Self::post`].
    pub(crate) fn get(self, sidecar: &Sidecar, path: &str) -> Option<u64> {
        let headers = [(":method", "GET"), (":path", path)];
        call(abi().config_http_callout, self.0, sidecar, &headers, b"")
    }

    /// Creates the means to call the main thread from other threads.
    pub(crate) fn scheduler(self) -> ConfigScheduler {
        // SAFETY: the pointer is valid in `config_new`.
        ConfigScheduler(unsafe { (abi().config_scheduler_new)(self.0) })
    }
}

/// Calls the hook `config_scheduled` on the main thread.
#[derive(Debug)]
pub(crate) struct ConfigScheduler(EnvoyPtr);

// SAFETY: Envoy allows `commit` on any thread, and any number of them at the same time.
unsafe impl Send for ConfigScheduler {}
// SAFETY: as above.
unsafe impl Sync for ConfigScheduler {}

impl ConfigScheduler {
    /// Schedules the hook; it does nothing once the configuration has ended.
    pub(crate) fn commit(&self, event: u64) {
        // SAFETY: the scheduler exists until it is dropped.
        unsafe { (abi().config_scheduler_commit)(self.0, event) }
    }
}

impl Drop for ConfigScheduler {
    fn drop(&mut self) {
        // SAFETY: it was created by Envoy for this owner, and is not used again.
        unsafe { (abi().config_scheduler_delete)(self.0) }
    }
}

/// Calls the hook `scheduled` of one stream on its worker.
#[derive(Debug)]
pub(crate) struct StreamScheduler(EnvoyPtr);

// SAFETY: Envoy allows `commit` and `delete` on any thread.
unsafe impl Send for StreamScheduler {}
// SAFETY: as above.
unsafe impl Sync for StreamScheduler {}

impl StreamScheduler {
    /// Schedules the hook; it does nothing if the stream has ended. Only on the main thread, which ends the workers, or on the
    /// worker itself: no other thread may do it while a worker ends.
    pub(crate) fn commit(&self, event: u64) {
        // SAFETY: the scheduler exists until it is dropped.
        unsafe { (abi().scheduler_commit)(self.0, event) }
    }
}

impl Drop for StreamScheduler {
    fn drop(&mut self) {
        // SAFETY: it was created by Envoy for this owner, and is not used again.
        unsafe { (abi().scheduler_delete)(self.0) }
    }
}

/// Names and values of headers that Envoy lends.
pub(crate) struct Pairs<'h>(std::slice::Iter<'h, Header>);

impl<'h> Iterator for Pairs<'h> {
    type Item = (&'h [u8], &'h [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.next()?;
        // SAFETY: Envoy lends the texts until the stream changes, which the reader of `with_headers` does not do.
        Some(unsafe { (header.name.bytes(), header.value.bytes()) })
    }
}

/// Envoy's side of a stream. Valid from `filter_new` until `filter_destroy`, on the worker of the stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EnvoyStream(EnvoyPtr);

impl EnvoyStream {
    /// Takes the pointer of a hook.
    ///
    /// # Safety
    ///
    /// It is the pointer of a stream that exists, on the thread of its worker, and no copy is used after `filter_destroy`.
    pub(crate) unsafe fn new(envoy: EnvoyPtr) -> Self {
        Self(envoy)
    }

    /// Returns the number of the stream's worker.
    pub(crate) fn worker_index(self) -> usize {
        // SAFETY: the stream exists (see the type). The same for all calls below.
        let index = unsafe { (abi().worker_index)(self.0) };
        usize::try_from(index).unwrap_or(usize::MAX)
    }

    /// Calls `read` with all headers. `read` must not change the stream: Envoy lends the texts until the next change.
    pub(crate) fn with_headers<R>(self, kind: HeaderKind, read: impl FnOnce(Pairs<'_>) -> R) -> R {
        let kind = kind as u32;
        // SAFETY: the stream exists.
        let count = unsafe { (abi().headers_size)(self.0, kind) };
        let mut headers = vec![Header::NONE; count];
        // SAFETY: the list has room for the headers that Envoy has counted.
        let is_there = unsafe { (abi().headers)(self.0, kind, headers.as_mut_ptr()) };
        if !is_there {
            headers.clear();
        }
        read(Pairs(headers.iter()))
    }

    /// Replaces a header or trailer, or removes all of its values.
    pub(crate) fn set_header(self, kind: HeaderKind, name: &str, value: Option<&str>) {
        let value = value.map_or(Buffer::NONE, |value| Buffer::lend(value.as_bytes()));
        // SAFETY: the texts are lent for the call, which copies them.
        unsafe { (abi().set_header)(self.0, kind as u32, Buffer::lend(name.as_bytes()), value) };
    }

    /// Adds a request header.
    pub(crate) fn add_request_header(self, name: &str, value: &str) {
        let (name, value) = (Buffer::lend(name.as_bytes()), Buffer::lend(value.as_bytes()));
        // SAFETY: the texts are lent for the call, which copies them.
        unsafe { (abi().add_header)(self.0, HeaderKind::Request as u32, name, value) };
    }

    /// Makes Envoy choose the route again. It must follow every change of request headers: a route may match on a header.
    pub(crate) fn clear_route_cache(self) {
        // SAFETY: the stream exists.
        unsafe { (abi().clear_route_cache)(self.0) }
    }

    /// Ends the request with an answer. At most once per request.
    pub(crate) fn answer(self, answer: &Answer) {
        let mut headers: Vec<Header> =
            answer.headers.iter().map(|(name, value)| Header::lend(name, value)).collect();
        let (status, count) = (u32::from(answer.status), headers.len());
        let body = Buffer::lend(answer.body.as_bytes());
        // SAFETY: all is lent for the call, which copies it. No details, as for the wasm filter.
        unsafe {
            (abi().send_response)(self.0, status, headers.as_mut_ptr(), count, body, Buffer::NONE);
        }
    }

    /// Returns the size of a part of the body.
    pub(crate) fn body_size(self, kind: BodyKind) -> usize {
        // SAFETY: the stream exists.
        unsafe { (abi().body_size)(self.0, kind as u32) }
    }

    /// Returns the pieces of a part of the body, at most `max_bytes` bytes of them.
    fn body_pieces(self, kind: BodyKind, mut max_bytes: usize) -> Vec<Buffer> {
        let kind = kind as u32;
        // SAFETY: the stream exists.
        let count = unsafe { (abi().body_chunks_size)(self.0, kind) };
        let mut pieces = vec![Buffer::NONE; count];
        // SAFETY: the list has room for the pieces that Envoy has counted.
        if count == 0 || !unsafe { (abi().body_chunks)(self.0, kind, pieces.as_mut_ptr()) } {
            return Vec::new();
        }
        pieces.retain_mut(|piece| {
            piece.len = piece.len.min(max_bytes);
            max_bytes -= piece.len;
            piece.len > 0
        });
        pieces
    }

    /// Calls `read` with parts of the body, one after the other, at most `max_bytes` bytes. `read` must not change the stream.
    pub(crate) fn with_body<R>(
        self,
        kinds: &[BodyKind],
        max_bytes: usize,
        read: impl FnOnce(&[u8]) -> R,
    ) -> R {
        let mut pieces: Vec<Buffer> = Vec::new();
        let mut size = 0;
        for kind in kinds {
            pieces.extend(self.body_pieces(*kind, max_bytes - size));
            size = pieces.iter().map(|piece| piece.len).sum();
        }
        // SAFETY: Envoy lends the pieces until the stream changes, which `read` does not do.
        let pieces = pieces.iter().map(|piece| unsafe { piece.bytes() });
        let body: Cow<'_, [u8]> = match (pieces.len(), pieces.clone().next()) {
            (1, Some(only)) => Cow::Borrowed(only),
            _ => Cow::Owned(pieces.flatten().copied().collect()),
        };
        read(&body)
    }

    /// Reports whether the part that the body hook is called with is the buffered part: a filter in front has buffered.
    pub(crate) fn is_received_buffered(self) -> bool {
        // SAFETY: the stream exists.
        unsafe { (abi().received_buffered_request_body)(self.0) }
    }

    /// Replaces the whole request body, in `into` and everywhere else.
    pub(crate) fn replace_request_body(self, into: BodyKind, body: &[u8]) {
        for kind in [BodyKind::BufferedRequest, BodyKind::ReceivedRequest] {
            // SAFETY: the stream exists; a part that is not there is an error, not undefined.
            unsafe { (abi().drain_body)(self.0, kind as u32, usize::MAX) };
        }
        // SAFETY: the body is lent for the call, which copies it.
        unsafe { (abi().append_body)(self.0, into as u32, Buffer::lend(body)) };
    }

    /// Sets the verdict for the access log.
    pub(crate) fn set_access_log_verdict(self, word: &str) {
        let key = Buffer::lend(b"wasm.twilio_edge.verdict");
        // SAFETY: the texts are lent for the call, which copies them.
        unsafe { (abi().set_filter_state)(self.0, key, Buffer::lend(word.as_bytes())) };
    }

    /// Reports whether the response came from an upstream, and not from Envoy. Only in response hooks.
    pub(crate) fn is_response_from_backend(self) -> bool {
        let mut details = Buffer::NONE;
        // SAFETY: Envoy writes the position of a text that it lends until the hook returns.
        unsafe {
            (abi().attribute_string)(self.0, RESPONSE_CODE_DETAILS, &raw mut details)
                && details.bytes() == b"via_upstream"
        }
    }

    /// Resumes the paused request. Not in its own request hooks, which return [`crate::abi::CONTINUE`].
    pub(crate) fn continue_request(self) {
        // SAFETY: the stream exists.
        unsafe { (abi().continue_decoding)(self.0) }
    }

    /// Resumes the paused response. Not in its own response hooks.
    pub(crate) fn continue_response(self) {
        // SAFETY: the stream exists.
        unsafe { (abi().continue_encoding)(self.0) }
    }

    /// Posts a body to the sidecar. The reply does not come if this stream ends before.
    pub(crate) fn post(self, sidecar: &Sidecar, path: &str, body: &[u8]) -> Option<u64> {
        call(abi().http_callout, self.0, sidecar, &post_headers(path), body)
    }

    /// Records one value of a histogram.
    pub(crate) fn record(self, id: usize, value: u64) {
        // SAFETY: an id that Envoy does not know is an error, not undefined; there are no labels.
        unsafe { (abi().record_histogram_value)(self.0, id, std::ptr::null_mut(), 0, value) };
    }

    /// Creates the means to call this stream from the main thread.
    pub(crate) fn scheduler(self) -> StreamScheduler {
        // SAFETY: the stream exists.
        StreamScheduler(unsafe { (abi().scheduler_new)(self.0) })
    }
}
