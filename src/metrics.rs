//! The counters: a closed list, defined once per VM, never named by input.
//!
//! In Envoy's `/stats` they are `wasmcustom.<name>`, in Prometheus `<name>` with `_` for every other
//! character; the tag extraction in `envoy/envoy.yaml` turns the last word into a label.

use twilio_edge_contract::{Decision, Outcome};

use crate::reply::Reason;

/// What can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// A request on a guarded route.
    Webhook,
    /// A request that passed on a route the filter does not guard.
    Passed,
    /// A request from which headers in our name were removed.
    Forged,
    /// A request whose signature and shape were proven.
    Verified,
    /// A refusal.
    Rejected(Reason),
    /// What would have been a refusal, had the route not been in shadow mode.
    Shadowed(Reason),
    /// A verdict of the sidecar.
    Verdict(Decision),
    /// A claim that got no verdict: the policy decided.
    NoVerdict,
    /// A settlement handed to the outbox.
    Settled(Outcome),
    /// A settlement given up: the outbox was full, or the sidecar away for too long. Its lease expires.
    SettlementDropped,
    /// A claims callout that failed.
    ClaimsFailed,
    /// A settlements callout that failed; it is sent again.
    SettlementsFailed,
    /// A response delivered before its release was acknowledged, because that took too long.
    ReleaseUnacknowledged,
}

impl Counter {
    /// Every counter there is.
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Counter::Webhook,
            Counter::Passed,
            Counter::Forged,
            Counter::Verified,
            Counter::NoVerdict,
            Counter::SettlementDropped,
            Counter::ClaimsFailed,
            Counter::SettlementsFailed,
            Counter::ReleaseUnacknowledged,
        ];
        all.extend(Reason::ALL.map(Counter::Rejected));
        all.extend(Reason::ALL.map(Counter::Shadowed));
        all.extend(
            [
                Decision::Proceed,
                Decision::Duplicate,
                Decision::InFlight,
                Decision::Released,
                Decision::Unavailable,
            ]
            .map(Counter::Verdict),
        );
        all.extend([Outcome::Commit, Outcome::Release].map(Counter::Settled));
        all
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Counter::Webhook => "twilio_edge.webhooks".to_owned(),
            Counter::Passed => "twilio_edge.passed".to_owned(),
            Counter::Forged => "twilio_edge.forged_headers".to_owned(),
            Counter::Verified => "twilio_edge.verified".to_owned(),
            Counter::Rejected(reason) => format!("twilio_edge.rejected.{}", reason.slug()),
            Counter::Shadowed(reason) => format!("twilio_edge.shadowed.{}", reason.slug()),
            Counter::Verdict(decision) => {
                let decision = match decision {
                    Decision::Proceed => "proceed",
                    Decision::Duplicate => "duplicate",
                    Decision::InFlight => "in_flight",
                    Decision::Released => "released",
                    Decision::Unavailable => "unavailable",
                };
                format!("twilio_edge.verdict.{decision}")
            }
            Counter::NoVerdict => "twilio_edge.verdict.none".to_owned(),
            Counter::Settled(Outcome::Commit) => "twilio_edge.settled.commit".to_owned(),
            Counter::Settled(Outcome::Release) => "twilio_edge.settled.release".to_owned(),
            Counter::SettlementDropped => "twilio_edge.settlements_dropped".to_owned(),
            Counter::ClaimsFailed => "twilio_edge.callout_failed.claims".to_owned(),
            Counter::SettlementsFailed => "twilio_edge.callout_failed.settlements".to_owned(),
            Counter::ReleaseUnacknowledged => "twilio_edge.release_unacknowledged".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_counters_share_a_name() {
        let names: HashSet<_> = Counter::all().into_iter().map(Counter::name).collect();
        assert_eq!(names.len(), Counter::all().len());
    }
}
