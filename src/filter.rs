//! Adapter between Envoy and the state machine: each callback of a stream becomes an [`Event`], each [`Effect`] a host
//! call. No business decision is made here.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use twilio_edge_contract::{Claim, RefusedRequest, Settlement, Verdict, headers};

use crate::adapter::{Callback, StreamHost, carry_out, read_head, read_response};
use crate::callouts::Lane;
use crate::exchange::{Effect, Event, Exchange};
use crate::header_map::HeaderMap;
use crate::host;
use crate::metrics::Counter;
use crate::reply::Answer;
use crate::worker::Shared;

/// HTTP context of one request.
pub(crate) struct Stream {
    id: u32,
    exchange: Rc<RefCell<Exchange>>,
    shared: Shared,
}

impl Stream {
    pub(crate) fn new(id: u32, exchange: Rc<RefCell<Exchange>>, shared: Shared) -> Self {
        Self { id, exchange, shared }
    }

    fn apply(&self, event: Event<'_>) {
        let Self { id, exchange, shared } = self;
        let stream = FocusedStream { shared, id: *id, exchange };
        carry_out(&stream, stream.step(event), Callback::Stream);
    }

    fn is(&self, question: fn(&Exchange) -> bool) -> bool {
        self.exchange.try_borrow().is_ok_and(|exchange| question(&exchange))
    }

    /// Ends the request exactly once. Envoy reports the end in three ways: `end_of_stream` with the headers, `end_of_stream`
    /// with the body, or the trailers callback alone when there are trailers.
    fn complete(&self, has_body: bool) {
        let body = match has_body && self.is(Exchange::needs_body) {
            // One byte over the cap is enough to know that it is over.
            true => host::request_body(self.shared.max_body_bytes().saturating_add(1)),
            false => Vec::new(),
        };
        self.apply(Event::Complete { body: &body });
    }

    fn request_action(&self) -> Action {
        if self.is(|exchange| !exchange.holds_request()) { Action::Continue } else { Action::Pause }
    }

    fn response_action(&self) -> Action {
        if self.is(Exchange::holds_response) { Action::Pause } else { Action::Continue }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.apply(Event::Head(read_head(HeaderMap::parse(&host::request_headers()))));
        if end_of_stream {
            self.complete(false);
        }
        self.request_action()
    }

    fn on_http_request_body(&mut self, received: usize, end_of_stream: bool) -> Action {
        // While the request is paused `received` counts everything so far, not this chunk.
        self.apply(Event::Body { received });
        if end_of_stream {
            self.complete(received > 0);
        }
        self.request_action()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // Some servers add trailers to the headers, so the filter's own names must not arrive as trailers either.
        for (name, _) in HeaderMap::parse(&host::request_trailers()) {
            if headers::is_reserved(name) {
                self.shared.count(Counter::Forged);
                host::remove_request_trailer(&String::from_utf8_lossy(name));
            }
        }
        self.complete(true);
        self.request_action()
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        if self.is(Exchange::awaits_response) {
            let headers = host::response_headers();
            let pairs = HeaderMap::parse(&headers);
            let head = read_response(pairs, end_of_stream, host::is_response_from_backend);
            self.apply(Event::Response(head));
        }
        self.response_action()
    }

    fn on_http_response_body(&mut self, bytes: usize, end_of_stream: bool) -> Action {
        if self.is(Exchange::copies_response) {
            let part = host::response_body(bytes);
            self.apply(Event::ResponseBody { part: &part, is_last: end_of_stream });
        }
        self.response_action()
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.apply(Event::ResponseBody { part: b"", is_last: true });
        self.response_action()
    }

    fn on_log(&mut self) {
        self.apply(Event::Ended);
    }
}

/// The stream that the host has in focus.
pub(crate) struct FocusedStream<'s> {
    pub(crate) shared: &'s Shared,
    pub(crate) id: u32,
    pub(crate) exchange: &'s Rc<RefCell<Exchange>>,
}

impl StreamHost for FocusedStream<'_> {
    fn set_request_header(&self, name: &str, value: Option<&str>) {
        host::set_request_header(name, value);
    }

    fn add_request_header(&self, name: &str, value: &str) {
        host::add_request_header(name, value);
    }

    fn replace_request_body(&self, body: &str) {
        host::replace_request_body(body);
    }

    fn answer(&self, answer: &Answer) {
        host::answer(answer);
    }

    fn forward(&self) {
        host::forward();
    }

    fn respond(&self) {
        host::respond();
    }

    fn set_access_log_verdict(&self, word: &'static str) {
        host::set_access_log_verdict(word);
    }

    /// Also records whether the stream waits.
    fn step(&self, event: Event<'_>) -> Vec<Effect> {
        let Ok(mut stepping) = self.exchange.try_borrow_mut() else { return Vec::new() };
        let waited = stepping.waits();
        let effects = stepping.step(event);
        let waits = stepping.waits();
        drop(stepping);
        match (waited, waits) {
            (false, true) => self.shared.add_waiting(self.id, self.exchange),
            (true, false) => self.shared.remove_waiting(self.id),
            _ => {}
        }
        effects
    }

    fn claim(&self, claim: &Claim, lane: Lane) -> Option<Verdict> {
        self.shared.claim(self.id, claim, lane)
    }

    fn withdraw(&self) {
        self.shared.withdraw(self.id);
    }

    fn settle(&self, settlement: &Settlement, is_urgent: bool) {
        self.shared.queue_settlement(self.id, settlement, is_urgent);
    }

    fn count(&self, counter: Counter) {
        self.shared.count(counter);
    }

    fn log_refusal(&self, line: &str) {
        self.shared.log_refusal(line);
    }

    fn report_refusal(&self, request: RefusedRequest) {
        self.shared.report_refusal(request);
    }
}
