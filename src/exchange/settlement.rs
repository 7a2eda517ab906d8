//! End of a forwarded request: its response, and the settlement of its claim.

use twilio_edge_contract::{Class, Outcome, SavedAnswer, Settlement, UnclaimedWebhook};

use super::event::{Effect, ResponseHead};
use super::saved_answer::{MAX_SAVED_BYTES, saved, twiml_type};
use super::state::{OpenClaim, PendingClaim, ResponseCopy, State, TimeLimit};
use crate::metrics::Counter;

/// Longest time in milliseconds that a response waits for its release to be acknowledged. Twilio retries later than that.
pub(super) const RELEASE_HOLD_MS: u64 = 250;

/// Settles the claim of a client that disconnected before the verdict. The claim may be on its way, so the filter sends a
/// release; a sidecar that sees the release first stores it for the claim. The claim may also never have been sent, so the
/// release carries its contents: a verified STOP is in effect, delivered or not.
pub(super) fn withdraw(pending: &PendingClaim, effects: &mut Vec<Effect>) {
    effects.push(Effect::Withdraw);
    let open = pending.without_verdict();
    let is_urgent = open.may_change_consent();
    settle(open, Outcome::Release, is_urgent, effects);
}

/// Handles the response headers. Only a backend's 2xx means that the webhook was accepted. After any other response the
/// next attempt must reach the backend again, also at the fallback URL, which has the same MessageSid: a redirect makes
/// Twilio request the new URL, a 4xx the fallback, and neither may be treated as a duplicate.
pub(super) fn handle_response(
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
pub(super) fn copy_response(
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

pub(super) fn settle(open: OpenClaim, outcome: Outcome, urgent: bool, effects: &mut Vec<Effect>) {
    settle_with(open, outcome, urgent, None, effects);
}

fn settle_with(
    open: OpenClaim,
    outcome: Outcome,
    urgent: bool,
    answer: Option<SavedAnswer>,
    effects: &mut Vec<Effect>,
) {
    let OpenClaim { claim, has_no_verdict, step, is_consent_candidate: _ } = open;
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
