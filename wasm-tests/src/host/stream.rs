//! One HTTP stream as in Envoy's filter manager, with one filter: the received parts, the parts that the filter may see, and
//! the parts that were forwarded to the other side.

use std::collections::BTreeMap;

use super::proxy::Pairs;

/// Time of an event: the clock, and the order of events at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Milliseconds since the start.
    pub ms: u64,
    /// Increases with everything that is forwarded.
    pub order: u64,
}

/// Forwarded part of a message: what a backend received of a request, or a client of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpMessage {
    /// All headers.
    pub headers: Pairs,
    /// The body so far.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Pairs,
    /// True if the message is complete.
    pub ended: bool,
    /// Time at which the headers were forwarded.
    pub since: Moment,
    /// Time at which the end was forwarded.
    pub until: Option<Moment>,
}

impl HttpMessage {
    /// Returns the values of a header, joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let values = self.headers.iter().filter(|(have, _)| have == name);
        let values: Vec<_> =
            values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Returns `:status`.
    pub fn status(&self) -> Option<u16> {
        self.header(":status")?.parse().ok()
    }
}

/// A message on its way through the filter.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Received, but not forwarded.
    headers: Option<Pairs>,
    body: Vec<u8>,
    trailers: Option<Pairs>,
    ended: bool,
    held: bool,
    /// State of the maps and buffers. They exist for the filter from a callback until the message is forwarded, then are
    /// null.
    shows: Shows,
    passed: Option<HttpMessage>,
}

#[derive(Debug, Default)]
struct Shows {
    headers: bool,
    body: bool,
    trailers: bool,
}

impl Flow {
    pub(super) fn offer_headers(&mut self, headers: Pairs, ends: bool) {
        self.headers = Some(headers);
        self.shows.headers = true;
        self.ended |= ends;
    }

    /// Returns the size that the filter receives: everything that is held, not this part.
    pub(super) fn offer_body(&mut self, part: &[u8], ends: bool) -> usize {
        self.body.extend_from_slice(part);
        self.shows.body = true;
        self.ended |= ends;
        self.body.len()
    }

    pub(super) fn offer_trailers(&mut self, trailers: Pairs) {
        self.trailers = Some(trailers);
        self.shows.trailers = true;
        self.ended = true;
    }

    /// Forwards everything that is held, the headers first.
    pub(super) fn pass(&mut self, moment: Moment) {
        self.held = false;
        self.hide();
        if let Some(headers) = self.headers.take() {
            self.passed = Some(HttpMessage { headers, since: moment, ..HttpMessage::default() });
        }
        if let Some(passed) = &mut self.passed {
            passed.body.append(&mut self.body);
            passed.trailers.extend(self.trailers.take().unwrap_or_default());
            passed.ended = self.ended;
            if passed.ended && passed.until.is_none() {
                passed.until = Some(moment);
            }
        }
    }

    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    pub(super) fn hide(&mut self) {
        self.shows = Shows::default();
    }

    pub(super) fn passed(&self) -> Option<&HttpMessage> {
        self.passed.as_ref()
    }

    pub(super) fn headers(&mut self) -> Option<&mut Pairs> {
        self.headers.as_mut().filter(|_| self.shows.headers)
    }

    pub(super) fn body(&mut self) -> Option<&mut Vec<u8>> {
        self.shows.body.then_some(&mut self.body)
    }

    pub(super) fn trailers(&mut self) -> Option<&mut Pairs> {
        self.trailers.as_mut().filter(|_| self.shows.trailers)
    }

    /// Returns the headers that an access log can read.
    fn logged_headers(&self) -> Option<Pairs> {
        let passed = self.passed.as_ref().map(|passed| &passed.headers);
        self.headers.as_ref().or(passed).cloned()
    }
}

/// Progress of a stream towards its end.
#[derive(Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// on_log: headers can be read once more, but no other call has an effect.
    Logging,
    /// After on_log.
    Ending,
    Over,
}

/// A stream.
#[derive(Debug, Default)]
pub struct Stream {
    pub(super) root: u32,
    pub(super) request: Flow,
    pub(super) response: Flow,
    pub(super) log_headers: [Option<Pairs>; 2],
    /// An answer is on its way: the rest of the request is ignored.
    request_closed: bool,
    code_details: Option<Vec<u8>>,
    filter_state: BTreeMap<String, Vec<u8>>,
    end: End,
}

impl Stream {
    pub(super) fn of(root: u32) -> Self {
        Self { root, ..Self::default() }
    }

    /// Returns what the backend received; `None` if it received nothing.
    pub fn to_backend(&self) -> Option<&HttpMessage> {
        self.request.passed()
    }

    /// Returns what the client received.
    pub fn to_client(&self) -> Option<&HttpMessage> {
        self.response.passed()
    }

    /// Returns filter state, by its name in access log formats.
    pub fn filter_state(&self, name: &str) -> Option<String> {
        self.filter_state.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Returns whether the client has sent the whole request.
    pub fn request_has_ended(&self) -> bool {
        self.request.ended
    }

    /// Returns whether the stream has ended.
    pub fn is_over(&self) -> bool {
        self.end == End::Over
    }

    pub(super) fn is_ending(&self) -> bool {
        self.end != End::Open
    }

    pub(super) fn takes_request(&self) -> bool {
        !self.is_ending() && !self.request_closed && !self.request.ended
    }

    /// Returns whether a backend has the request and has not answered.
    pub fn takes_response(&self) -> bool {
        self.takes_own_response() && self.request.passed.is_some()
    }

    pub(super) fn takes_own_response(&self) -> bool {
        !self.is_ending() && !self.has_response()
    }

    pub(super) fn continues_response(&self) -> bool {
        !self.is_ending() && self.has_response() && !self.response.ended
    }

    pub(super) fn has_response(&self) -> bool {
        self.code_details.is_some()
    }

    pub(super) fn is_answered(&self) -> bool {
        self.response.passed.as_ref().is_some_and(|passed| passed.ended)
    }

    pub(super) fn close_request(&mut self) {
        self.request_closed = true;
    }

    pub(super) fn begin_response(&mut self, details: &[u8]) {
        self.code_details = Some(details.to_vec());
    }

    pub(super) fn code_details(&self) -> Option<&[u8]> {
        self.code_details.as_deref()
    }

    pub(super) fn set_filter_state(&mut self, name: String, value: Vec<u8>) {
        self.filter_state.insert(name, value);
    }

    pub(super) fn begin_log(&mut self) {
        self.end = End::Logging;
        self.request.hide();
        self.response.hide();
        self.log_headers = [self.request.logged_headers(), self.response.logged_headers()];
    }

    pub(super) fn end_log(&mut self) {
        self.end = End::Ending;
        self.log_headers = [None, None];
    }

    pub(super) fn close(&mut self) {
        self.end = End::Over;
    }
}
