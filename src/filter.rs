//! Adapter between Envoy and the state machine: each callback of a stream becomes an [`Event`], each [`Effect`] a host
//! call. No business decision is made here.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use twilio_edge_contract::headers;

use crate::exchange::{Effect, Event, Exchange, Head, ResponseHead};
use crate::header_map::HeaderMap;
use crate::host;
use crate::metrics::Counter;
use crate::overrides::is_override;
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
        apply(&self.shared, self.id, &self.exchange, event);
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
            let head = read_response(HeaderMap::parse(&host::response_headers()), end_of_stream);
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

/// Steps one exchange and carries out its effects. The calls affect the stream the host has in focus, which must be `id`.
fn apply(shared: &Shared, id: u32, exchange: &Rc<RefCell<Exchange>>, event: Event<'_>) {
    let effects = step(shared, id, exchange, event);
    carry_out(shared, id, effects, Callback::Stream);
}

/// Callback of the host in which effects are carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callback {
    /// A callback of the stream itself: it resumes the request by its return value, and must not call the host for that.
    Stream,
    /// A callback of the root context.
    Root,
}

/// Steps one exchange and returns its effects, which the caller must carry out.
pub(crate) fn step(
    shared: &Shared,
    id: u32,
    exchange: &Rc<RefCell<Exchange>>,
    event: Event<'_>,
) -> Vec<Effect> {
    let Ok(mut stepping) = exchange.try_borrow_mut() else { return Vec::new() };
    let waited = stepping.waits();
    let effects = stepping.step(event);
    let waits = stepping.waits();
    drop(stepping);
    match (waited, waits) {
        (false, true) => shared.add_waiting(id, exchange),
        (true, false) => shared.remove_waiting(id),
        _ => {}
    }
    effects
}

/// Carries out the effects of an exchange in the stream the host has in focus, which must be `id`.
pub(crate) fn carry_out(shared: &Shared, id: u32, effects: Vec<Effect>, callback: Callback) {
    for effect in effects {
        match effect {
            Effect::Remove(name) => host::set_request_header(&name, None),
            Effect::SetUpstream(upstream_request) => {
                // All headers of these names were removed when the request began.
                for (name, value) in upstream_request.trusted.iter() {
                    host::add_request_header(name, value);
                }
                for (name, value) in &upstream_request.replaced {
                    host::set_request_header(name, Some(value));
                }
                if let Some(body) = &upstream_request.body {
                    host::replace_request_body(body);
                }
            }
            Effect::Answer(answer) => host::answer(&answer),
            Effect::Forward if callback == Callback::Stream => {}
            Effect::Forward => host::forward(),
            Effect::Respond => host::respond(),
            Effect::Claim { claim, lane } => {
                if let Some(verdict) = shared.claim(id, &claim, lane)
                    && let Some(exchange) = shared.waiting(id)
                {
                    let effects = step(shared, id, &exchange, Event::Verdict(verdict));
                    carry_out(shared, id, effects, callback);
                }
            }
            Effect::Withdraw => shared.withdraw(id),
            Effect::Settle { settlement, urgent } => {
                shared.queue_settlement(id, &settlement, urgent)
            }
            Effect::AccessLog(word) => host::set_access_log_verdict(word),
            Effect::Count(counter) => shared.count(counter),
            Effect::Warn(line) => shared.log_refusal(&line),
            Effect::Report(request) => shared.report_refusal(*request),
        }
    }
}

fn read_head(pairs: HeaderMap<'_>) -> Head {
    let mut head = Head::default();
    for (name, value) in pairs {
        if headers::is_reserved(name) {
            head.forged.push(String::from_utf8_lossy(name).into_owned());
            continue;
        }
        let field = match name {
            b":method" => {
                head.method = value.to_vec();
                continue;
            }
            b":path" => {
                head.target = value.to_vec();
                continue;
            }
            b"content-length" => {
                head.content_length =
                    std::str::from_utf8(value).ok().and_then(|length| length.parse().ok());
                continue;
            }
            b"content-type" => &mut head.content_type,
            b"content-encoding" => {
                head.add_content_encoding(value);
                continue;
            }
            b"x-twilio-signature" => &mut head.signature,
            b"x-twilio-webhooks-signature-settings" => &mut head.signature_settings,
            b"x-request-id" => {
                head.request_id = Some(value.to_vec());
                continue;
            }
            b"traceparent" => {
                head.traceparent = Some(value.to_vec());
                continue;
            }
            b"i-twilio-idempotency-token" => {
                head.idempotency_token = Some(value.to_vec());
                continue;
            }
            _ if is_override(name) => {
                head.overrides.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
                continue;
            }
            _ => continue,
        };
        // Envoy joins the lines of this header with a comma; a single content type holds none.
        let joined = name == b"content-type" && value.contains(&b',');
        head.ambiguous |= joined | field.replace(value.to_vec()).is_some();
    }
    head
}

fn read_response(pairs: HeaderMap<'_>, is_last: bool) -> ResponseHead {
    let mut head = ResponseHead { is_last, ..ResponseHead::default() };
    let (mut content_type, mut encoded) = (None, false);
    for (name, value) in pairs {
        match name {
            b":status" => {
                let status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                head.status = status.unwrap_or_default();
            }
            b"content-type" => content_type = Some(value),
            b"content-encoding" => encoded = true,
            _ => {}
        }
    }
    head.content_type = content_type.filter(|_| !encoded).map(<[u8]>::to_vec);
    // The origin of the response matters only for a success.
    head.from_backend = (200..300).contains(&head.status) && host::is_response_from_backend();
    head
}
