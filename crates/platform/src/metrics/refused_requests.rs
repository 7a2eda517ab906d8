//! Metrics of refused requests that filters report. Routes, hosts and accounts are not labels.

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::catalogue::{Catalogue, Labels};
use twilio_edge_domain::refused_request::Cause;

twilio_edge_contract::string_enum! {
    /// Result of a report of one request.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum ReportOutcome {
        /// It waits for its examination.
        Queued = "queued",
        /// Too many others waited.
        Dropped = "dropped",
        /// `retention.refused_requests` is `none`.
        Disabled = "disabled",
        /// The database did not store it.
        Failed = "failed",
    }
}

/// The series of refused requests.
#[derive(Debug)]
pub struct RefusedRequestMetrics {
    causes: Family<Labels<2>, Counter>,
    reports: Family<Labels<1>, Counter>,
}

impl RefusedRequestMetrics {
    pub(super) fn of(all: &mut Catalogue) -> RefusedRequestMetrics {
        RefusedRequestMetrics {
            causes: all.counters(
                "refused_requests",
                &["kind", "cause"],
                "Refused requests by the cause that the sidecar found (docs/SIGNATURES.md): `misconfiguration` if Twilio signed them, `stranger` if not, `unexamined` if the sidecar lacks keys or the body. Filters report a sample",
            ),
            reports: all.counters(
                "refused_request_reports",
                &["outcome"],
                "Reports of refused requests from filters: `queued`, `dropped` because too many waited, `disabled` by `retention.refused_requests`, or `failed` in the database",
            ),
        }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
        for cause in Cause::ALL {
            self.series(cause).inc_by(0);
        }
        for outcome in ReportOutcome::ALL {
            self.reported(outcome, 0);
        }
    }

    /// Counts a request by its cause.
    pub fn examined(&self, cause: Cause) {
        self.series(cause).inc();
    }

    /// Counts reported requests by their outcome.
    pub fn reported(&self, outcome: ReportOutcome, count: u64) {
        self.reports.get_or_create(&[("outcome", outcome.as_str())]).inc_by(count);
    }

    fn series(&self, cause: Cause) -> Counter {
        let labels = [("kind", cause.kind().as_str()), ("cause", cause.as_str())];
        self.causes.get_or_create(&labels).clone()
    }
}
