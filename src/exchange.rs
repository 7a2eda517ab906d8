//! State machine of one request, from its headers to its settlement: `step(Event) -> Effects`.
//!
//! Decides which requests are refused, what the filter claims from the sidecar, which headers and body the backend gets, and
//! when a response may continue. The state machine is a plain value: it receives an event and returns the effects to
//! carry out, so every path through it can be tested without a proxy.
//!
//! ```text
//! Idle --Head--> Passing                                    a route that is not guarded
//!            \-> Receiving --Complete--> [verify] --bad--> Answered
//!                                           \--ok--> Deciding --Verdict(duplicate)--> Answered
//!                                                        |  ^--in flight: claims again
//!                            Verdict(proceed) or policy  v
//!                                                    Forwarded --2xx--> (Answering) --> Done      commit
//!                                                        \--anything else--> Settling --> Done   release
//! any --Ended--> Done, releasing its open claim
//! ```
//!
//! An event that does not belong to a state changes nothing. Must not know: the host, callouts, clocks.

mod event;
mod saved_answer;
mod settlement;
mod state;
mod verdict;

use std::rc::Rc;

use twilio_edge_contract::{Claim, Class, Decision, Delivery, Outcome, Verdict};

pub use self::event::{Effect, Event, ResponseHead};
use self::settlement::{copy_response, handle_response, settle, withdraw};
use self::state::{OpenClaim, PendingBody, PendingClaim, Phase, State, TimeLimit};
use self::verdict::{apply_tick, no_verdict, set_upstream};
use crate::config::{Config, Mode};
use crate::metrics::Counter;
use crate::overrides::foreign_encoding;
use crate::refused_requests;
use crate::reply::{Answer, Reason};
pub use crate::upstream_request::UpstreamRequest;
use crate::url_digest;
pub use crate::verification::Head;
use crate::verification::{Refusal, VerifiedRequest, loggable, verify};

/// Longest wait for the first part of a body, in milliseconds. Twilio sends it with the headers, and gives up after 15 s.
const MAX_FIRST_PART_MS: u64 = 10_000;

/// Headers that allow a recipient to replay the request as Twilio's.
const SIGNATURE_HEADERS: [&str; 2] = ["x-twilio-signature", "x-twilio-webhooks-signature-settings"];

/// First and longest pause, in milliseconds, before the filter claims a webhook again whose copy is in flight.
const RECLAIM_MS: u64 = 25;
const MAX_RECLAIM_MS: u64 = 400;

/// One request.
#[derive(Debug)]
pub struct Exchange {
    config: Rc<Config>,
    /// Prefix that is unique among all workers and VMs, and the stream's number within the worker.
    claim_id: (u64, u32),
    state: State,
}

impl Exchange {
    /// Creates the state machine. `worker` must differ between all workers that share a sidecar, `stream` within one worker.
    pub fn new(config: Rc<Config>, worker: u64, stream: u32) -> Self {
        Self { config, claim_id: (worker, stream), state: State::Idle }
    }

    /// Reports whether the request must stay paused. The filter checks it after every event: a callback that returns
    /// Continue while a verdict is awaited would forward the request.
    pub fn holds_request(&self) -> bool {
        match self.state {
            State::Idle | State::Receiving(_) | State::Deciding(_) | State::Answered => true,
            State::Passing
            | State::Forwarded(_)
            | State::Answering(_)
            | State::Settling(..)
            | State::Done => false,
        }
    }

    /// Reports whether the response must stay paused.
    pub fn holds_response(&self) -> bool {
        matches!(self.state, State::Settling(..))
    }

    /// Reports whether the state machine still needs the request body.
    pub fn needs_body(&self) -> bool {
        matches!(self.state, State::Receiving(_))
    }

    /// Reports whether the state machine still needs the status of the response.
    pub fn awaits_response(&self) -> bool {
        matches!(self.state, State::Receiving(_) | State::Deciding(_) | State::Forwarded(Some(_)))
    }

    /// Reports whether the state machine needs the body of the response.
    pub fn copies_response(&self) -> bool {
        matches!(self.state, State::Answering(_))
    }

    /// Reports whether a tick may change the state.
    pub fn waits(&self) -> bool {
        match &self.state {
            State::Receiving(pending) => pending.first_part.is_some(),
            State::Deciding(_) | State::Settling(..) => true,
            _ => false,
        }
    }

    /// Applies an event and returns the effects to carry out.
    pub fn step(&mut self, event: Event<'_>) -> Vec<Effect> {
        let state = std::mem::replace(&mut self.state, State::Done);
        let mut effects = Vec::new();
        self.state = match (state, event) {
            (State::Idle, Event::Head(head)) => self.begin(head, &mut effects),
            (State::Receiving(pending), Event::Body { received }) => {
                self.receive(pending, received, &mut effects)
            }
            (State::Receiving(pending), Event::Complete { body }) => {
                self.complete(&pending.head, body, &mut effects)
            }
            (State::Receiving(mut pending), Event::Tick { now_ms }) => {
                match pending.first_part.as_mut().is_some_and(|limit| limit.is_reached(now_ms)) {
                    true => self.give_up(&pending.head, &mut effects),
                    false => State::Receiving(pending),
                }
            }
            (State::Deciding(pending), Event::Verdict(verdict)) => {
                self.decide(pending, &verdict, &mut effects)
            }
            (State::Deciding(pending), Event::NoVerdict) => no_verdict(*pending, &mut effects),
            (State::Deciding(pending), Event::Tick { now_ms }) => {
                apply_tick(pending, now_ms, &mut effects)
            }
            (State::Forwarded(open), Event::Response(head)) => {
                handle_response(open, head, &mut effects)
            }
            (State::Answering(copy), Event::ResponseBody { part, is_last }) => {
                copy_response(copy, part, is_last, &mut effects)
            }
            (State::Settling(..), Event::Settled) => {
                effects.push(Effect::Respond);
                State::Done
            }
            (State::Settling(mut limit, overdue), Event::Tick { now_ms }) => {
                match limit.is_reached(now_ms) {
                    true => {
                        effects.push(Effect::Count(overdue));
                        effects.push(Effect::Respond);
                        State::Done
                    }
                    false => State::Settling(limit, overdue),
                }
            }
            // The proxy answered a request that the filter still holds: the upload was too slow, or the wait too long.
            (State::Receiving(_), Event::Response(_)) => State::Answered,
            (State::Deciding(pending), Event::Response(_)) => {
                withdraw(&pending, &mut effects);
                State::Answered
            }
            (State::Deciding(pending), Event::Ended) => {
                withdraw(&pending, &mut effects);
                State::Done
            }
            (State::Forwarded(Some(open)), Event::Ended) => {
                let is_urgent = open.may_change_consent();
                settle(*open, Outcome::Release, is_urgent, &mut effects);
                State::Done
            }
            // The backend accepted the webhook, even if only part of its answer arrived. A possible opt-out is never in this
            // state.
            (State::Answering(copy), Event::Ended) => {
                settle(copy.open, Outcome::Commit, false, &mut effects);
                State::Done
            }
            (_, Event::Ended) => State::Done,
            (unchanged, _) => unchanged,
        };
        if !self.config.access_log {
            effects.retain(|effect| !matches!(effect, Effect::AccessLog(_)));
        }
        effects
    }

    fn begin(&self, head: Head, effects: &mut Vec<Effect>) -> State {
        if !head.forged.is_empty() {
            effects.push(Effect::Count(Counter::Forged));
            effects.extend(head.forged.iter().cloned().map(Effect::Remove));
        }
        let route = head.route(&self.config);
        if route.is_some_and(|route| !route.forward_signature) {
            effects.extend(SIGNATURE_HEADERS.map(|name| Effect::Remove(name.to_owned())));
        }
        let Some(route) = route.filter(|route| route.mode != Mode::Off) else {
            effects.push(Effect::Count(Counter::Passed));
            return State::Passing;
        };
        effects.push(Effect::Count(Counter::Webhook));
        if !head.overrides.is_empty() {
            effects.push(Effect::Count(Counter::Overridden));
            let names = head.overrides.iter().map(|(name, _)| name.clone());
            effects.extend(names.map(Effect::Remove));
        }
        let max_bytes = u64::try_from(self.config.max_body_bytes).unwrap_or(u64::MAX);
        let refusal = if head.method != b"GET" && head.method != b"POST" {
            Some(Refusal::with_methods(Reason::MethodNotAllowed, route.methods.allow()))
        } else if !route.methods.accept(&head.method) {
            Some(Refusal::with_methods(Reason::MethodNotEnabled, route.methods.allow()))
        } else if head.ambiguous {
            Some(Refusal::new(Reason::AmbiguousRequest))
        } else if head.content_length.is_some_and(|length| length > max_bytes) {
            Some(Refusal::new(Reason::BodyTooLarge))
        } else {
            let (coding, kind) = (head.content_encoding.as_deref(), head.content_type.as_deref());
            foreign_encoding(coding, kind).map(|(reason, field)| Refusal::with_field(reason, field))
        };
        match refusal {
            Some(refusal) => self.refuse(refusal, &head, None, effects),
            None => {
                let first_part = Some(TimeLimit::new(MAX_FIRST_PART_MS));
                State::Receiving(Box::new(PendingBody { head, first_part }))
            }
        }
    }

    fn receive(
        &self,
        mut pending: Box<PendingBody>,
        received: usize,
        effects: &mut Vec<Effect>,
    ) -> State {
        if received > self.config.max_body_bytes {
            let refusal = Refusal::new(Reason::BodyTooLarge);
            return self.refuse(refusal, &pending.head, None, effects);
        }
        pending.first_part = None;
        State::Receiving(pending)
    }

    /// Ends the wait for a body of which no part has come. Either the client sent none, or Envoy is not configured to let
    /// the filter wait for one: without allow_on_headers_stop_iteration the body never reaches the filter, and the request
    /// would hang until a timeout of Envoy.
    fn give_up(&self, head: &Head, effects: &mut Vec<Effect>) -> State {
        let state = self.refuse(Refusal::new(Reason::NoBody), head, None, effects);
        if let State::Forwarded(_) = state {
            effects.push(Effect::Forward);
        }
        state
    }

    fn complete(&self, head: &Head, body: &[u8], effects: &mut Vec<Effect>) -> State {
        let verified = if body.len() > self.config.max_body_bytes {
            Err(Refusal::new(Reason::BodyTooLarge))
        } else {
            verify(&self.config, head, body)
        };
        let VerifiedRequest { route, proof, form, form_is_body } = match verified {
            Ok(verified) => verified,
            Err(refusal) => return self.refuse(refusal, head, Some(body), effects),
        };
        effects.push(Effect::Count(Counter::Verified));
        effects.push(Effect::Count(Counter::Matched(proof.slot)));
        let (Some(identity), Some(sidecar)) =
            (proof.webhook.identity.clone(), &self.config.sidecar)
        else {
            // There is no identity to claim, or no sidecar to claim it from.
            let form = Some(form).filter(|_| form_is_body);
            set_upstream(UpstreamRequest::new(&proof, None, route.body, form), None, effects);
            return State::Forwarded(None);
        };
        let (worker, stream) = self.claim_id;
        let claim = Rc::new(Claim {
            claim_id: claim_id(worker, stream),
            identity,
            route: route.path.clone(),
            form: form.to_owned(),
            // In shadow mode the backend answers, so the sidecar must not deliver as well.
            delivery: if route.mode == Mode::Shadow { Delivery::Forward } else { route.delivery },
            request_id: head.request_id.as_deref().map(loggable),
            traceparent: head.traceparent.as_deref().map(loggable),
            message_id: head.message_id(),
            envelope: head.envelope(&proof),
            url_digest: match proof.webhook.class {
                Class::Inbound => url_digest::digest(&head.target, form, &self.config.origins),
                Class::Status | Class::Other => None,
            },
        });
        let pending = Box::new(PendingClaim {
            claim,
            proof,
            mode: route.mode,
            answers: route.answers.clone(),
            body: route.body,
            form_is_body,
            on_unavailable: route.on_unavailable,
            timeout_ms: route.timeout_ms,
            phase: Phase::Verdict(TimeLimit::new(route.timeout_ms)),
            in_flight_limit: TimeLimit::new(sidecar.in_flight_wait_ms),
            pause_ms: RECLAIM_MS,
        });
        effects.push(pending.send());
        State::Deciding(pending)
    }

    fn decide(
        &self,
        mut pending: Box<PendingClaim>,
        verdict: &Verdict,
        effects: &mut Vec<Effect>,
    ) -> State {
        if verdict.claim_id != pending.claim.claim_id {
            return State::Deciding(pending);
        }
        effects.push(Effect::Count(Counter::Verdict(verdict.decision)));
        match verdict.decision {
            Decision::Proceed => {
                pending.set_upstream(Some(verdict), effects);
                let step = verdict.step.clone();
                let open = OpenClaim { has_no_verdict: false, step, ..pending.without_verdict() };
                State::Forwarded(Some(Box::new(open)))
            }
            Decision::Duplicate if pending.mode == Mode::Enforce => {
                effects.push(Effect::AccessLog("duplicate"));
                let class = pending.proof.webhook.class;
                let answer = pending.route_answer(verdict);
                let answer = Answer::duplicate(class, verdict.answer.as_ref(), answer);
                effects.push(Effect::Answer(answer));
                State::Answered
            }
            Decision::InFlight if pending.mode == Mode::Enforce => {
                if pending.in_flight_limit.is_over {
                    let refusal = Refusal::new(Reason::StillInFlight);
                    return refuse(&refusal, Mode::Enforce, &pending.claim.route, None, effects);
                }
                pending.phase = Phase::Pause(TimeLimit::new(pending.pause_ms));
                pending.pause_ms = (pending.pause_ms * 2).min(MAX_RECLAIM_MS);
                State::Deciding(pending)
            }
            // In shadow mode a copy is counted as a copy, and forwarded as if there had been no check.
            Decision::Duplicate | Decision::InFlight => {
                pending.set_upstream(Some(verdict), effects);
                State::Forwarded(None)
            }
            Decision::Accepted if pending.claim.delivery == Delivery::Accept => {
                effects.push(Effect::AccessLog("accepted"));
                let class = pending.proof.webhook.class;
                let answer = Answer::accepted(class, pending.route_answer(verdict));
                effects.push(Effect::Answer(answer));
                State::Answered
            }
            Decision::Accepted => no_verdict(*pending, effects),
            Decision::Released | Decision::Unavailable => no_verdict(*pending, effects),
        }
    }

    /// Refuses a request and reports it to the sidecar, which the client does not wait for. `body` is `None` if the request
    /// is refused before its body arrived.
    fn refuse(
        &self,
        refusal: Refusal,
        head: &Head,
        body: Option<&[u8]>,
        effects: &mut Vec<Effect>,
    ) -> State {
        let route = head.route(&self.config);
        let mode = route.map_or(Mode::Enforce, |route| route.mode);
        let route = route.map_or("", |route| route.path.as_str());
        let state = refuse(&refusal, mode, route, head.request_id.as_deref(), effects);
        let report = refused_requests::report(&self.config, refusal.reason, head, body);
        effects.extend(report.map(|report| Effect::Report(Box::new(report))));
        state
    }
}

/// Returns a claim id: 24 hexadecimal digits. The formatter of the standard library needs several times the instructions.
fn claim_id(worker: u64, stream: u32) -> String {
    let bytes = worker.to_be_bytes().into_iter().chain(stream.to_be_bytes());
    let digits = bytes.flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }))
        .collect()
}

/// Refuses a request. In shadow mode it is forwarded, unproven and without a trusted header. A request whose callback is
/// still running needs no `Forward` effect to continue.
fn refuse(
    refusal: &Refusal,
    mode: Mode,
    route: &str,
    request_id: Option<&[u8]>,
    effects: &mut Vec<Effect>,
) -> State {
    let line = refusal.log_line(route, request_id);
    if mode == Mode::Shadow {
        effects.push(Effect::Count(Counter::Shadowed(refusal.reason)));
        effects.push(Effect::AccessLog("shadow"));
        effects.push(Effect::Warn(format!("shadow mode, forwarded all the same: {line}")));
        return State::Forwarded(None);
    }
    effects.push(Effect::Count(Counter::Rejected(refusal.reason)));
    effects.push(Effect::AccessLog(refusal.reason.slug()));
    effects.push(Effect::Warn(line));
    effects.push(Effect::Answer(refusal.answer()));
    State::Answered
}

#[cfg(test)]
mod tests;
