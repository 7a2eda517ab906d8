//! Envoy's side of a stream: headers, body, answer, callouts.

use std::borrow::Cow;

use twilio_edge_filter::config::Sidecar;
use twilio_edge_filter::reply::Answer;

use super::{abi, call, post_headers};
use crate::abi::{BodyKind, Buffer, EnvoyPtr, Header, HeaderKind, RESPONSE_CODE_DETAILS};

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
