//! One stream: each hook of Envoy becomes an event of the state machine, each effect a call of Envoy. No business decision is
//! made here.

use std::cell::{Cell, RefCell, RefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use twilio_edge_contract::{Claim, RefusedRequest, Settlement, Verdict, headers};
use twilio_edge_filter::adapter::{
    Callback, SettlementOrigin, StreamHost, carry_out, read_head, read_response,
};
use twilio_edge_filter::callouts::{Lane, QueuedItem};
use twilio_edge_filter::exchange::{Effect, Event, Exchange};
use twilio_edge_filter::metrics::{Counter, ReportResult};
use twilio_edge_filter::reply::Answer;

use crate::abi::{BodyKind, CONTINUE, HeaderKind, STOP};
use crate::edge::{Edge, PostedSettlement};
use crate::envoy::{EnvoyStream, Reply};
use crate::open_callouts::OpenCallouts;
use crate::sabotage;
use crate::sync::lock;
use crate::worker::{EVENT_SETTLED, EVENT_TICK, LocalWorker, now_ms};

/// Hook of this stream that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A body hook.
    RequestBody,
    /// Another request hook.
    Request,
    /// Any other hook, also of another stream.
    Elsewhere,
}

/// One request.
pub(crate) struct Stream {
    id: u32,
    /// `None` once Envoy has destroyed its side.
    envoy: Cell<Option<EnvoyStream>>,
    exchange: RefCell<Exchange>,
    worker: Rc<LocalWorker>,
    edge: Arc<Edge>,
    place: Cell<Place>,
    /// Request headers have changed since Envoy chose the route.
    has_changed_headers: Cell<bool>,
    has_response: Cell<bool>,
    /// A hook has panicked.
    is_broken: Cell<bool>,
    open_callouts: RefCell<OpenCallouts>,
}

impl Stream {
    /// Creates the stream; `None` if Envoy calls its worker on another thread than before, which it never does.
    pub(crate) fn new(edge: &Arc<Edge>, envoy: EnvoyStream) -> Option<Rc<Self>> {
        let index = envoy.worker_index();
        let slot = edge.slot(index)?;
        let worker = slot.local.get_or_create(|| Rc::new(LocalWorker::new(edge, index)))?;
        let (id, exchange) = worker.begin(edge);
        Some(Rc::new(Self {
            id,
            envoy: Cell::new(Some(envoy)),
            exchange: RefCell::new(exchange),
            worker: Rc::clone(worker),
            edge: Arc::clone(edge),
            place: Cell::new(Place::Elsewhere),
            has_changed_headers: Cell::new(false),
            has_response: Cell::new(false),
            is_broken: Cell::new(false),
            open_callouts: RefCell::default(),
        }))
    }

    /// Returns the number among the streams of the worker.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Returns Envoy's side, unless it is destroyed.
    pub(crate) fn envoy(&self) -> Option<EnvoyStream> {
        self.envoy.get()
    }

    /// Returns the callouts that end with this stream.
    pub(crate) fn open_callouts(&self) -> RefMut<'_, OpenCallouts> {
        self.open_callouts.borrow_mut()
    }

    fn is(&self, question: fn(&Exchange) -> bool) -> bool {
        self.exchange.try_borrow().is_ok_and(|exchange| question(&exchange))
    }

    fn request_status(&self) -> u32 {
        if self.is_broken.get() || self.is(Exchange::holds_request) { STOP } else { CONTINUE }
    }

    fn response_status(&self) -> u32 {
        if self.is(Exchange::holds_response) { STOP } else { CONTINUE }
    }

    pub(crate) fn on_request_headers(self: &Rc<Self>, end_of_stream: bool) -> u32 {
        sabotage::panic_in("request_headers");
        let Some(envoy) = self.envoy() else { return STOP };
        self.within(Place::Request, || {
            let head = envoy.with_headers(HeaderKind::Request, |pairs| read_head(pairs));
            self.apply(Event::Head(head));
            if end_of_stream {
                self.complete(&[]);
            }
        });
        self.request_status()
    }

    pub(crate) fn on_request_body(self: &Rc<Self>, end_of_stream: bool) -> u32 {
        sabotage::panic_in("request_body");
        let Some(envoy) = self.envoy().filter(|_| self.is(Exchange::needs_body)) else {
            return self.request_status();
        };
        self.within(Place::RequestBody, || {
            // If a filter in front has buffered the body, both parts are the same.
            let kinds: &[BodyKind] = match envoy.is_received_buffered() {
                true => &[BodyKind::ReceivedRequest],
                false => &[BodyKind::BufferedRequest, BodyKind::ReceivedRequest],
            };
            let received = kinds.iter().map(|kind| envoy.body_size(*kind)).sum();
            self.apply(Event::Body { received });
            if end_of_stream {
                self.complete(kinds);
            }
        });
        self.request_status()
    }

    pub(crate) fn on_request_trailers(self: &Rc<Self>) -> u32 {
        sabotage::panic_in("request_trailers");
        let Some(envoy) = self.envoy() else { return STOP };
        // Some servers add trailers to the headers, so the filter's own names must not arrive as trailers either.
        let reserved = envoy.with_headers(HeaderKind::RequestTrailer, |pairs| {
            let names = pairs.map(|(name, _)| name).filter(|name| headers::is_reserved(name));
            names.map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
        });
        for name in reserved {
            self.worker.count(&self.edge, Counter::Forged);
            envoy.set_header(HeaderKind::RequestTrailer, &name, None);
        }
        self.within(Place::Request, || self.complete(&[BodyKind::BufferedRequest]));
        self.request_status()
    }

    pub(crate) fn on_response_headers(self: &Rc<Self>, end_of_stream: bool) -> u32 {
        sabotage::panic_in("response_headers");
        if let Some(envoy) = self.envoy().filter(|_| self.is(Exchange::awaits_response)) {
            let head = envoy.with_headers(HeaderKind::Response, |pairs| {
                read_response(pairs, end_of_stream, || envoy.is_response_from_backend())
            });
            self.apply(Event::Response(head));
        }
        // A panic until here is still answered with 500.
        self.has_response.set(true);
        self.response_status()
    }

    pub(crate) fn on_response_body(self: &Rc<Self>, end_of_stream: bool) -> u32 {
        sabotage::panic_in("response_body");
        if let Some(envoy) = self.envoy().filter(|_| self.is(Exchange::copies_response)) {
            let effects = envoy.with_body(&[BodyKind::ReceivedResponse], usize::MAX, |part| {
                self.step(Event::ResponseBody { part, is_last: end_of_stream })
            });
            self.carry_out(effects);
        }
        self.response_status()
    }

    pub(crate) fn on_response_trailers(self: &Rc<Self>) -> u32 {
        sabotage::panic_in("response_trailers");
        self.apply(Event::ResponseBody { part: b"", is_last: true });
        self.response_status()
    }

    pub(crate) fn on_complete(self: &Rc<Self>) {
        sabotage::panic_in("stream_complete");
        self.apply(Event::Ended);
    }

    pub(crate) fn on_scheduled(self: &Rc<Self>, event: u64) {
        match event {
            EVENT_TICK => {
                sabotage::panic_in("scheduled");
                self.worker.tick(&self.edge);
            }
            EVENT_SETTLED => self.apply(Event::Settled),
            _ => {}
        }
    }

    pub(crate) fn on_callout_done(self: &Rc<Self>, id: u64, reply: &Reply<'_>) {
        sabotage::panic_in("http_callout_done");
        let token = self.open_callouts().complete(id);
        if let Some(token) = token {
            self.worker.handle_reply(&self.edge, self, token, reply);
        }
    }

    /// Ends the stream. Envoy's side exists until the hook returns, but is not used any more.
    pub(crate) fn on_destroy(self: &Rc<Self>) {
        self.apply(Event::Ended);
        self.envoy.set(None);
        self.worker.remove(&self.edge, self);
    }

    /// Answers 500 after a panic. The state machine is lost, and with it what was to be settled: the lease ends by itself.
    pub(crate) fn break_off(&self) {
        self.edge.count_panic();
        if self.is_broken.replace(true) {
            return;
        }
        self.worker.withdraw(self.id);
        self.worker.remove_waiting(&self.edge, self.id);
        if let Some(envoy) = self.envoy().filter(|_| !self.has_response.get()) {
            let headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
            let body = "the webhook filter has an internal error\n".to_owned();
            envoy.answer(&Answer { status: 500, headers, body });
        }
    }

    /// Delivers an event in a hook of another stream. A panic concerns this stream only.
    pub(crate) fn deliver(self: &Rc<Self>, event: Event<'_>) {
        let delivered = catch_unwind(AssertUnwindSafe(|| {
            sabotage::panic_in("deliver");
            self.apply(event);
        }));
        if delivered.is_err() {
            self.break_off();
        }
    }

    /// Runs a part of a hook. Hooks may nest: an answer of the filter passes its own response hooks.
    fn within(&self, place: Place, run: impl FnOnce()) {
        let outer = self.place.replace(place);
        run();
        self.place.set(outer);
    }

    fn apply(self: &Rc<Self>, event: Event<'_>) {
        let effects = self.step(event);
        self.carry_out(effects);
    }

    /// Ends the request exactly once. Envoy reports the end in three ways: `end_of_stream` with the headers, `end_of_stream`
    /// with the body, or the trailers hook alone when there are trailers.
    fn complete(self: &Rc<Self>, kinds: &[BodyKind]) {
        let Some(envoy) = self.envoy().filter(|_| self.is(Exchange::needs_body)) else { return };
        // One byte over the cap is enough to know that it is over.
        let max_bytes = self.worker.max_body_bytes().saturating_add(1);
        let effects = envoy.with_body(kinds, max_bytes, |body| self.step(Event::Complete { body }));
        self.carry_out(effects);
    }

    /// Steps the state machine and records whether the stream waits.
    fn step(self: &Rc<Self>, event: Event<'_>) -> Vec<Effect> {
        let Ok(mut stepping) = self.exchange.try_borrow_mut() else { return Vec::new() };
        let waited = stepping.waits();
        let effects = stepping.step(event);
        let waits = stepping.waits();
        drop(stepping);
        match (waited, waits) {
            (false, true) => self.worker.add_waiting(&self.edge, self),
            (true, false) => self.worker.remove_waiting(&self.edge, self.id),
            _ => {}
        }
        effects
    }

    fn carry_out(self: &Rc<Self>, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        // A hook of the request resumes it by its return value.
        let callback = match self.place.get() {
            Place::Elsewhere => Callback::Root,
            Place::Request | Place::RequestBody => Callback::Stream,
        };
        carry_out(&Host(self), effects, callback);
        self.choose_route();
    }

    /// Makes Envoy choose the route again if request headers have changed.
    fn choose_route(&self) {
        if self.has_changed_headers.replace(false)
            && let Some(envoy) = self.envoy()
        {
            envoy.clear_route_cache();
        }
    }
}

/// A stream, for the effects of its state machine.
struct Host<'s>(&'s Rc<Stream>);

impl StreamHost for Host<'_> {
    fn set_request_header(&self, name: &str, value: Option<&str>) {
        if let Some(envoy) = self.0.envoy() {
            self.0.has_changed_headers.set(true);
            envoy.set_header(HeaderKind::Request, name, value);
        }
    }

    fn add_request_header(&self, name: &str, value: &str) {
        if let Some(envoy) = self.0.envoy() {
            self.0.has_changed_headers.set(true);
            envoy.add_request_header(name, value);
        }
    }

    fn replace_request_body(&self, body: &str) {
        let Some(envoy) = self.0.envoy() else { return };
        let into = match self.0.place.get() {
            Place::RequestBody => BodyKind::ReceivedRequest,
            Place::Request | Place::Elsewhere => BodyKind::BufferedRequest,
        };
        envoy.replace_request_body(into, body.as_bytes());
    }

    fn answer(&self, answer: &Answer) {
        if let Some(envoy) = self.0.envoy() {
            envoy.answer(answer);
        }
    }

    fn forward(&self) {
        if let Some(envoy) = self.0.envoy() {
            // The next filter chooses the route as soon as the request continues.
            self.0.choose_route();
            envoy.continue_request();
        }
    }

    fn respond(&self) {
        if let Some(envoy) = self.0.envoy() {
            envoy.continue_response();
        }
    }

    fn set_access_log_verdict(&self, word: &'static str) {
        if let Some(envoy) = self.0.envoy() {
            envoy.set_access_log_verdict(word);
        }
    }

    fn step(&self, event: Event<'_>) -> Vec<Effect> {
        self.0.step(event)
    }

    fn claim(&self, claim: &Claim, lane: Lane) -> Option<Verdict> {
        self.0.worker.claim(&self.0.edge, self.0.id, claim, lane)
    }

    fn withdraw(&self) {
        self.0.worker.withdraw(self.0.id);
    }

    fn settle(&self, settlement: &Settlement, is_urgent: bool) {
        let stream = self.0;
        stream.worker.record_settlement(stream.id, settlement, is_urgent);
        let waiting = stream.envoy().filter(|_| is_urgent).map(EnvoyStream::scheduler);
        let claim_id = settlement.claim_id.clone();
        let origin = SettlementOrigin { claim_id, stream: waiting };
        let posted = PostedSettlement {
            lane: Lane::of_settlement(settlement),
            item: QueuedItem::new(origin, settlement.encode()),
            is_urgent,
        };
        if !stream.edge.post_settlement(posted) {
            self.count(Counter::SettlementDropped);
        }
    }

    fn count(&self, counter: Counter) {
        self.0.worker.count(&self.0.edge, counter);
    }

    fn log_refusal(&self, line: &str) {
        self.0.worker.log_refusal(&self.0.edge, line);
    }

    fn report_refusal(&self, mut request: RefusedRequest) {
        let mut reports = lock(&self.0.edge.reports);
        let envoy = self.0.envoy().filter(|_| reports.admits(&mut request));
        let Some(envoy) = envoy else {
            drop(reports);
            return self.count(Counter::Report(ReportResult::Skipped));
        };
        envoy.with_headers(HeaderKind::Request, |pairs| reports.post(request, pairs, now_ms()));
    }
}
