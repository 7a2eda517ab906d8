//! State machine of one request, from its headers to its settlement: `step(Event) -> Effects`.
//!
//! Decides which requests are refused, what the filter claims from the sidecar, which headers and body the backend gets, and
//! when a response may continue. The state machine is a plain value: it needs_body an event and returns the effects to
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

use std::rc::Rc;
use std::sync::Arc;

use twilio_edge_contract::{
    Claim, Class, Decision, Delivery, Outcome, SavedAnswer, Settlement, UnclaimedWebhook, Verdict,
};

pub use self::event::{Effect, Event, ResponseHead};
use self::saved_answer::{MAX_SAVED_BYTES, saved, twiml_type};
use crate::config::{BodyFormat, Config, Mode, OnUnavailable};
use crate::metrics::Counter;
use crate::opt_out::may_change_consent;
use crate::overrides::foreign_encoding;
use crate::reply::{Answer, Reason};
pub use crate::upstream_request::UpstreamRequest;
use crate::upstream_request::dedupe;
use crate::url_digest;
pub use crate::verification::Head;
use crate::verification::{Proof, Refusal, VerifiedRequest, loggable, verify};

/// Longest time in milliseconds that a response waits for its release to be acknowledged. Twilio retries later than that.
const RELEASE_HOLD_MS: u64 = 250;

/// Longest time in milliseconds that a response waits for the sidecar to acknowledge a possible opt-out whose claim got no
/// verdict. A restarting sidecar is back within it. Twilio gives up 15 s after its request; the backend may have used 14 s.
const OPT_OUT_HOLD_MS: u64 = 1_000;

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

#[derive(Debug)]
enum State {
    /// No request headers yet. Streams that Envoy itself refuses end here.
    Idle,
    /// The route is not guarded: the filter does not touch the request again.
    Passing,
    /// The body is on its way; nothing has been forwarded.
    Receiving(Box<PendingBody>),
    /// Proven, and paused until there is a verdict.
    Deciding(Box<PendingClaim>),
    /// The backend has the request. The open claim must be settled exactly once.
    Forwarded(Option<Box<OpenClaim>>),
    /// The backend's 2xx is on its way to the client. The filter copies its body, to answer duplicates with it.
    Answering(Box<ResponseCopy>),
    /// The response waits for the settlement to be acknowledged. The counter counts responses that waited too long.
    Settling(TimeLimit, Counter),
    /// The client has an answer that is not the backend's; the request is not forwarded.
    Answered,
    /// The request is complete; nothing is left to do.
    Done,
}

#[derive(Debug)]
struct PendingBody {
    head: Head,
    /// Time limit for the first part of the body; `None` after it has arrived.
    first_part: Option<TimeLimit>,
}

#[derive(Debug)]
struct PendingClaim {
    claim: Rc<Claim>,
    proof: Proof,
    mode: Mode,
    /// TwiML with which the route answers accepted messages.
    answer: Option<Arc<str>>,
    body: BodyFormat,
    form_is_body: bool,
    on_unavailable: OnUnavailable,
    timeout_ms: u64,
    phase: Phase,
    /// Time limit for a copy in flight to settle.
    in_flight_limit: TimeLimit,
    /// Pause before the next repeated claim, in milliseconds.
    pause_ms: u64,
}

/// Event that a claim without a usable verdict waits for.
#[derive(Debug)]
enum Phase {
    /// A verdict, within this time.
    Verdict(TimeLimit),
    /// The moment to repeat the claim because a copy is in flight.
    Pause(TimeLimit),
}

/// Time limit. It starts with the first tick that sees it, so it lasts up to one tick longer than configured, never less.
#[derive(Debug)]
struct TimeLimit {
    length_ms: u64,
    until_ms: Option<u64>,
    is_over: bool,
}

impl TimeLimit {
    fn new(length_ms: u64) -> Self {
        Self { length_ms, until_ms: None, is_over: length_ms == 0 }
    }

    /// Reports whether the time limit is reached at `now_ms`.
    fn is_reached(&mut self, now_ms: u64) -> bool {
        let until_ms = *self.until_ms.get_or_insert(now_ms.saturating_add(self.length_ms));
        self.is_over |= now_ms >= until_ms;
        self.is_over
    }
}

/// A claim that must be settled, with or without a lease.
#[derive(Debug)]
struct OpenClaim {
    claim: Rc<Claim>,
    /// No verdict arrived: the settlement must carry the contents of the claim.
    has_no_verdict: bool,
    /// [`Verdict::step`] of the claim.
    step: Option<String>,
}

impl OpenClaim {
    /// Reports whether this is a possible opt-out that the sidecar does not know of. Twilio sends it once, so the memory of
    /// this proxy is its only copy until the settlement is acknowledged.
    fn may_change_consent(&self) -> bool {
        self.has_no_verdict && may_change_consent(self.claim.identity.class, &self.claim.form)
    }

    /// Returns the state in which a response waits until the sidecar has such a webhook; `None` for all other webhooks.
    fn acknowledgement_wait(&self) -> Option<State> {
        self.may_change_consent().then(|| {
            State::Settling(TimeLimit::new(OPT_OUT_HOLD_MS), Counter::OptOutUnacknowledged)
        })
    }
}

#[derive(Debug)]
struct ResponseCopy {
    open: OpenClaim,
    status: u16,
    content_type: String,
    body: Vec<u8>,
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
                withdraw(&pending.claim, &mut effects);
                State::Answered
            }
            (State::Deciding(pending), Event::Ended) => {
                withdraw(&pending.claim, &mut effects);
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
            effects.extend(head.overrides.iter().cloned().map(Effect::Remove));
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
            Some(refusal) => self.refuse(refusal, &head, effects),
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
            return self.refuse(Refusal::new(Reason::BodyTooLarge), &pending.head, effects);
        }
        pending.first_part = None;
        State::Receiving(pending)
    }

    /// Ends the wait for a body of which no part has come. Either the client sent none, or Envoy is not configured to let
    /// the filter wait for one: without allow_on_headers_stop_iteration the body never reaches the filter, and the request
    /// would hang until a timeout of Envoy.
    fn give_up(&self, head: &Head, effects: &mut Vec<Effect>) -> State {
        let state = self.refuse(Refusal::new(Reason::NoBody), head, effects);
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
            Err(refusal) => return self.refuse(refusal, head, effects),
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
            claim_id: format!("{worker:016x}{stream:08x}"),
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
        effects.push(Effect::Claim(Rc::clone(&claim)));
        State::Deciding(Box::new(PendingClaim {
            claim,
            proof,
            mode: route.mode,
            answer: route.answer.clone(),
            body: route.body,
            form_is_body,
            on_unavailable: route.on_unavailable,
            timeout_ms: route.timeout_ms,
            phase: Phase::Verdict(TimeLimit::new(route.timeout_ms)),
            in_flight_limit: TimeLimit::new(sidecar.in_flight_wait_ms),
            pause_ms: RECLAIM_MS,
        }))
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
                let open = OpenClaim { claim: pending.claim, has_no_verdict: false, step };
                State::Forwarded(Some(Box::new(open)))
            }
            Decision::Duplicate if pending.mode == Mode::Enforce => {
                effects.push(Effect::AccessLog("duplicate"));
                let class = pending.proof.webhook.class;
                let route_answer = pending.answer.as_deref();
                let answer = Answer::duplicate(class, verdict.answer.as_ref(), route_answer);
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
                effects.push(Effect::Answer(Answer::accepted(class, pending.answer.as_deref())));
                State::Answered
            }
            Decision::Accepted => no_verdict(*pending, effects),
            Decision::Released | Decision::Unavailable => no_verdict(*pending, effects),
        }
    }

    fn refuse(&self, refusal: Refusal, head: &Head, effects: &mut Vec<Effect>) -> State {
        let route = head.route(&self.config);
        let mode = route.map_or(Mode::Enforce, |route| route.mode);
        let route = route.map_or("", |route| route.path.as_str());
        refuse(&refusal, mode, route, head.request_id.as_deref(), effects)
    }
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

impl PendingClaim {
    /// Sets the headers and body for the backend, and forwards the request.
    fn set_upstream(&self, verdict: Option<&Verdict>, effects: &mut Vec<Effect>) {
        let form = Some(self.claim.form.as_str()).filter(|_| self.form_is_body);
        let upstream = UpstreamRequest::new(&self.proof, verdict, self.body, form);
        set_upstream(upstream, verdict, effects);
        effects.push(Effect::Forward);
    }
}

fn set_upstream(upstream: UpstreamRequest, verdict: Option<&Verdict>, effects: &mut Vec<Effect>) {
    effects.push(Effect::SetUpstream(upstream));
    effects.push(Effect::AccessLog(dedupe(verdict)));
}

/// Applies the route's policy, because the sidecar gave no usable verdict.
fn no_verdict(pending: PendingClaim, effects: &mut Vec<Effect>) -> State {
    let PendingClaim { claim, proof, mode, .. } = &pending;
    effects.push(Effect::Count(Counter::NoVerdict));
    let refusal = Refusal::new(Reason::SidecarUnavailable).with_account(&proof.account_sid);
    match (pending.on_unavailable, *mode) {
        (OnUnavailable::Reject, Mode::Enforce | Mode::Off) => {
            // The claim may have arrived although its verdict did not: the next attempt must not find it in flight. If the claim
            // did not arrive, a STOP in it must still be recorded: Twilio does not send it again.
            let open = OpenClaim { claim: Rc::clone(claim), has_no_verdict: true, step: None };
            let is_urgent = open.may_change_consent();
            settle(open, Outcome::Release, is_urgent, effects);
            return refuse(&refusal, *mode, &claim.route, None, effects);
        }
        (OnUnavailable::Reject, Mode::Shadow) => {
            refuse(&refusal, *mode, &claim.route, None, effects);
        }
        (OnUnavailable::Forward, _) => {}
    }
    pending.set_upstream(None, effects);
    State::Forwarded(Some(Box::new(OpenClaim {
        claim: pending.claim,
        has_no_verdict: true,
        step: None,
    })))
}

/// Applies a tick to a request without a verdict.
fn apply_tick(mut pending: Box<PendingClaim>, now_ms: u64, effects: &mut Vec<Effect>) -> State {
    pending.in_flight_limit.is_reached(now_ms);
    let (Phase::Verdict(limit) | Phase::Pause(limit)) = &mut pending.phase;
    if !limit.is_reached(now_ms) {
        return State::Deciding(pending);
    }
    match pending.phase {
        Phase::Verdict(_) => {
            effects.push(Effect::Withdraw);
            no_verdict(*pending, effects)
        }
        Phase::Pause(_) => {
            pending.phase = Phase::Verdict(TimeLimit::new(pending.timeout_ms));
            effects.push(Effect::Claim(Rc::clone(&pending.claim)));
            State::Deciding(pending)
        }
    }
}

/// Settles the claim of a client that disconnected before the verdict. The claim may be on its way, so the filter sends a
/// release; a sidecar that sees the release first stores it for the claim. The claim may also never have been sent, so the
/// release carries its contents: a verified STOP is in effect, delivered or not.
fn withdraw(claim: &Rc<Claim>, effects: &mut Vec<Effect>) {
    effects.push(Effect::Withdraw);
    let open = OpenClaim { claim: Rc::clone(claim), has_no_verdict: true, step: None };
    let is_urgent = open.may_change_consent();
    settle(open, Outcome::Release, is_urgent, effects);
}

/// Handles the response headers. Only a backend's 2xx means that the webhook was accepted. After any other response the
/// next attempt must reach the backend again, also at the fallback URL, which has the same MessageSid: a redirect makes
/// Twilio request the new URL, a 4xx the fallback, and neither may be treated as a duplicate.
fn handle_response(
    open: Option<Box<OpenClaim>>,
    head: ResponseHead,
    effects: &mut Vec<Effect>,
) -> State {
    let Some(open) = open else { return State::Done };
    if !head.from_backend || !(200..300).contains(&head.status) {
        let wait = open.acknowledgement_wait();
        settle(*open, Outcome::Release, true, effects);
        return wait.unwrap_or(State::Settling(
            TimeLimit::new(RELEASE_HOLD_MS),
            Counter::ReleaseUnacknowledged,
        ));
    }
    match head.content_type.and_then(twiml_type) {
        // The answer to a possible opt-out is held at its headers and not copied. A part of it that passed could be all of
        // it, and Twilio would have it before the sidecar has the opt-out. A copy of that webhook gets an empty answer.
        Some(content_type)
            if !head.is_last
                && open.claim.identity.class == Class::Inbound
                && !open.may_change_consent() =>
        {
            let status = head.status;
            State::Answering(Box::new(ResponseCopy {
                open: *open,
                status,
                content_type,
                body: vec![],
            }))
        }
        _ => {
            let wait = open.acknowledgement_wait();
            settle(*open, Outcome::Commit, wait.is_some(), effects);
            wait.unwrap_or(State::Done)
        }
    }
}

/// Copies the answer as it passes. An answer that is too large, or that is no text, is not stored: a duplicate then gets an
/// empty answer.
fn copy_response(
    mut copy: Box<ResponseCopy>,
    part: &[u8],
    is_last: bool,
    effects: &mut Vec<Effect>,
) -> State {
    copy.body.extend_from_slice(part);
    let fits = copy.body.len() <= MAX_SAVED_BYTES;
    if fits && !is_last {
        return State::Answering(copy);
    }
    let ResponseCopy { open, status, content_type, body } = *copy;
    settle_with(open, Outcome::Commit, false, saved(status, content_type, body), effects);
    State::Done
}

fn settle(open: OpenClaim, outcome: Outcome, urgent: bool, effects: &mut Vec<Effect>) {
    settle_with(open, outcome, urgent, None, effects);
}

fn settle_with(
    open: OpenClaim,
    outcome: Outcome,
    urgent: bool,
    answer: Option<SavedAnswer>,
    effects: &mut Vec<Effect>,
) {
    let OpenClaim { claim, has_no_verdict, step } = open;
    let unclaimed = has_no_verdict.then(|| UnclaimedWebhook {
        route: claim.route.clone(),
        form: claim.form.clone(),
        envelope: claim.envelope.clone(),
    });
    effects.push(Effect::Count(Counter::Settled(outcome)));
    effects.push(Effect::Settle {
        settlement: Box::new(Settlement {
            claim_id: claim.claim_id.clone(),
            identity: claim.identity.clone(),
            outcome,
            unclaimed,
            answer,
            url_digest: claim.url_digest.clone(),
            step,
        }),
        urgent,
    });
}

#[cfg(test)]
mod tests;
