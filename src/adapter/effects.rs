//! Effects of the state machine, carried out in one stream of a proxy.

use twilio_edge_contract::{Claim, RefusedRequest, Settlement, Verdict};

use crate::callouts::Lane;
use crate::exchange::{Effect, Event};
use crate::metrics::Counter;
use crate::reply::Answer;

/// Callback of the proxy in which effects are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callback {
    /// A callback of the stream itself: it resumes the request by its return value, and must not call the proxy for that.
    Stream,
    /// Any other callback.
    Root,
}

/// One stream of a proxy, and the services of its worker.
pub trait StreamHost {
    /// Replaces a request header, or removes all of its values. Only while the filter has paused the request.
    fn set_request_header(&self, name: &str, value: Option<&str>);
    /// Adds a request header of which there is none.
    fn add_request_header(&self, name: &str, value: &str);
    /// Replaces the whole request body. Only while the filter has paused the request, after its end; the caller sets
    /// content-length.
    fn replace_request_body(&self, body: &str);
    /// Ends the request with an answer of the filter. At most once per request.
    fn answer(&self, answer: &Answer);
    /// Resumes the paused request.
    fn forward(&self);
    /// Resumes the paused response.
    fn respond(&self);
    /// Sets the verdict for the access log: `%FILTER_STATE(wasm.twilio_edge.verdict:PLAIN)%`.
    fn set_access_log_verdict(&self, word: &'static str);
    /// Steps the state machine of the stream and returns its effects.
    fn step(&self, event: Event<'_>) -> Vec<Effect>;
    /// Queues a claim for the sidecar, or returns the verdict if the claim is a repeat that needs none.
    fn claim(&self, claim: &Claim, lane: Lane) -> Option<Verdict>;
    /// Removes the claim of the stream from the queue.
    fn withdraw(&self);
    /// Queues a settlement for the sidecar.
    fn settle(&self, settlement: &Settlement, is_urgent: bool);
    /// Increments a counter.
    fn count(&self, counter: Counter);
    /// Logs a refusal, unless there were too many.
    fn log_refusal(&self, line: &str);
    /// Queues the report of a refusal, if it is part of the sample.
    fn report_refusal(&self, request: RefusedRequest);
}

/// Carries out the effects of an exchange.
pub fn carry_out(host: &impl StreamHost, effects: Vec<Effect>, callback: Callback) {
    for effect in effects {
        match effect {
            Effect::Remove(name) => host.set_request_header(&name, None),
            Effect::SetUpstream(upstream_request) => {
                // All headers of these names were removed when the request began.
                for (name, value) in upstream_request.trusted.iter() {
                    host.add_request_header(name, value);
                }
                for (name, value) in &upstream_request.replaced {
                    host.set_request_header(name, Some(value));
                }
                if let Some(body) = &upstream_request.body {
                    host.replace_request_body(body);
                }
            }
            Effect::Answer(answer) => host.answer(&answer),
            Effect::Forward if callback == Callback::Stream => {}
            Effect::Forward => host.forward(),
            Effect::Respond => host.respond(),
            Effect::Claim { claim, lane } => {
                if let Some(verdict) = host.claim(&claim, lane) {
                    carry_out(host, host.step(Event::Verdict(verdict)), callback);
                }
            }
            Effect::Withdraw => host.withdraw(),
            Effect::Settle { settlement, urgent } => host.settle(&settlement, urgent),
            Effect::AccessLog(word) => host.set_access_log_verdict(word),
            Effect::Count(counter) => host.count(counter),
            Effect::Warn(line) => host.log_refusal(&line),
            Effect::Report(request) => host.report_refusal(*request),
        }
    }
}
