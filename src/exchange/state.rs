//! States of one request, and the data of each.

use std::rc::Rc;
use std::sync::Arc;

use twilio_edge_contract::{Claim, Verdict};

use super::event::Effect;
use crate::callouts::Lane;
use crate::config::{BodyFormat, Mode, OnUnavailable, RouteAnswers};
use crate::metrics::Counter;
use crate::verification::{Head, Proof};

/// Longest time in milliseconds that a response waits for the sidecar to acknowledge a possible opt-out whose claim got no
/// verdict. A restarting sidecar is back within it. Twilio gives up 15 s after its request; the backend may have used 14 s.
const OPT_OUT_HOLD_MS: u64 = 1_000;

#[derive(Debug)]
pub(super) enum State {
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
pub(super) struct PendingBody {
    pub(super) head: Head,
    /// Time limit for the first part of the body; `None` after it has arrived.
    pub(super) first_part: Option<TimeLimit>,
}

#[derive(Debug)]
pub(super) struct PendingClaim {
    pub(super) claim: Rc<Claim>,
    pub(super) proof: Proof,
    pub(super) mode: Mode,
    /// Answers of the route to accepted messages.
    pub(super) answers: Option<Arc<RouteAnswers>>,
    pub(super) body: BodyFormat,
    pub(super) form_is_body: bool,
    pub(super) on_unavailable: OnUnavailable,
    pub(super) timeout_ms: u64,
    pub(super) phase: Phase,
    /// Time limit for a copy in flight to settle.
    pub(super) in_flight_limit: TimeLimit,
    /// Pause before the next repeated claim, in milliseconds.
    pub(super) pause_ms: u64,
}

impl PendingClaim {
    /// Returns the effect that sends the claim.
    pub(super) fn send(&self) -> Effect {
        let lane = Lane::of_claim(&self.claim, self.proof.webhook.may_change_consent);
        Effect::Claim { claim: Rc::clone(&self.claim), lane }
    }

    /// Returns the answer of the route to a message with this verdict.
    pub(super) fn route_answer(&self, verdict: &Verdict) -> Option<&str> {
        self.answers.as_ref()?.of(verdict.opt)
    }

    /// Returns the claim as one that got no verdict.
    pub(super) fn without_verdict(&self) -> OpenClaim {
        OpenClaim {
            claim: Rc::clone(&self.claim),
            has_no_verdict: true,
            step: None,
            is_consent_candidate: self.proof.webhook.may_change_consent,
        }
    }
}

/// Event that a claim without a usable verdict waits for.
#[derive(Debug)]
pub(super) enum Phase {
    /// A verdict, within this time.
    Verdict(TimeLimit),
    /// The moment to repeat the claim because a copy is in flight.
    Pause(TimeLimit),
}

/// Time limit. It starts with the first tick that sees it, so it lasts up to one tick longer than configured, never less.
#[derive(Debug)]
pub(super) struct TimeLimit {
    pub(super) length_ms: u64,
    pub(super) until_ms: Option<u64>,
    pub(super) is_over: bool,
}

impl TimeLimit {
    pub(super) fn new(length_ms: u64) -> Self {
        Self { length_ms, until_ms: None, is_over: length_ms == 0 }
    }

    /// Reports whether the time limit is reached at `now_ms`.
    pub(super) fn is_reached(&mut self, now_ms: u64) -> bool {
        let until_ms = *self.until_ms.get_or_insert(now_ms.saturating_add(self.length_ms));
        self.is_over |= now_ms >= until_ms;
        self.is_over
    }
}

/// A claim that must be settled, with or without a lease.
#[derive(Debug)]
pub(super) struct OpenClaim {
    pub(super) claim: Rc<Claim>,
    /// No verdict arrived: the settlement must carry the contents of the claim.
    pub(super) has_no_verdict: bool,
    /// [`Verdict::step`](twilio_edge_contract::Verdict::step) of the claim.
    pub(super) step: Option<String>,
    /// The webhook may record an opt-out or an opt-in.
    pub(super) is_consent_candidate: bool,
}

impl OpenClaim {
    /// Reports whether this is a possible opt-out that the sidecar does not know of. Twilio sends it once, so the memory of
    /// this proxy is its only copy until the settlement is acknowledged.
    pub(super) fn may_change_consent(&self) -> bool {
        self.has_no_verdict && self.is_consent_candidate
    }

    /// Returns the state in which a response waits until the sidecar has such a webhook; `None` for all other webhooks.
    pub(super) fn acknowledgement_wait(&self) -> Option<State> {
        self.may_change_consent().then(|| {
            State::Settling(TimeLimit::new(OPT_OUT_HOLD_MS), Counter::OptOutUnacknowledged)
        })
    }
}

#[derive(Debug)]
pub(super) struct ResponseCopy {
    pub(super) open: OpenClaim,
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}
