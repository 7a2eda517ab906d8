//! Wait for a verdict, and the policy of the route if there is none.

use twilio_edge_contract::{Outcome, Verdict};

use super::event::Effect;
use super::refuse;
use super::settlement::settle;
use super::state::{PendingClaim, Phase, State, TimeLimit};
use crate::config::{Mode, OnUnavailable};
use crate::metrics::Counter;
use crate::reply::Reason;
use crate::upstream_request::{UpstreamRequest, dedupe};
use crate::verification::Refusal;

impl PendingClaim {
    /// Sets the headers and body for the backend, and forwards the request.
    pub(super) fn set_upstream(&self, verdict: Option<&Verdict>, effects: &mut Vec<Effect>) {
        let form = Some(self.claim.form.as_str()).filter(|_| self.form_is_body);
        let upstream = UpstreamRequest::new(&self.proof, verdict, self.body, form);
        set_upstream(upstream, verdict, effects);
        effects.push(Effect::Forward);
    }
}

pub(super) fn set_upstream(
    upstream: UpstreamRequest,
    verdict: Option<&Verdict>,
    effects: &mut Vec<Effect>,
) {
    effects.push(Effect::SetUpstream(upstream));
    effects.push(Effect::AccessLog(dedupe(verdict)));
}

/// Applies the route's policy, because the sidecar gave no usable verdict.
pub(super) fn no_verdict(pending: PendingClaim, effects: &mut Vec<Effect>) -> State {
    let PendingClaim { claim, proof, mode, .. } = &pending;
    let open = pending.without_verdict();
    effects.push(Effect::Count(Counter::NoVerdict));
    let refusal = Refusal::new(Reason::SidecarUnavailable).with_account(&proof.account_sid);
    match (pending.on_unavailable, *mode) {
        (OnUnavailable::Reject, Mode::Enforce | Mode::Off) => {
            // The claim may have arrived although its verdict did not: the next attempt must not find it in flight. If the claim
            // did not arrive, a STOP in it must still be recorded: Twilio does not send it again.
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
    State::Forwarded(Some(Box::new(open)))
}

/// Applies a tick to a request without a verdict.
pub(super) fn apply_tick(
    mut pending: Box<PendingClaim>,
    now_ms: u64,
    effects: &mut Vec<Effect>,
) -> State {
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
            effects.push(pending.send());
            State::Deciding(pending)
        }
    }
}
