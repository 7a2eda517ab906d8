//! Metrics of the sidecar. All names and label values are fixed here, so no external data can name a metric. Every series
//! exists with zero from the first scrape; the series of a route exist from its first request.

mod activity;
mod archive;
mod catalogue;
mod connections;
mod emails;
mod journal;
mod labels;
mod media;
mod messages;
mod process;
mod refused_requests;
mod requests;
mod retention;
mod series;
mod sinks;
mod stores;
mod streams;
mod tasks;
mod templates;
mod webhooks;

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

pub use self::activity::{ActivityCounts, ActivityInterval, INTERVAL as ACTIVITY_INTERVAL};
pub use self::connections::{ConnectionMetrics, ConnectionRefusal, ConnectionWait};
pub use self::emails::{EmailMetrics, EventPost};
pub use self::labels::{Batch, Connections, Denial, Limit, Pool, RedisState};
pub use self::refused_requests::ReportOutcome;
use self::{
    activity::ActivityLog,
    archive::ArchiveMetrics,
    catalogue::{Catalogue, Labels},
    connections::ListenerMetrics,
    journal::JournalMetrics,
    media::MediaMetrics,
    messages::MessageMetrics,
    process::Process,
    refused_requests::RefusedRequestMetrics,
    requests::Requests,
    retention::RetentionMetrics,
    sinks::SinkMetrics,
    stores::StoreMetrics,
    streams::StreamMetrics,
    tasks::TaskMetrics,
    templates::TemplateMetrics,
    webhooks::WebhookMetrics,
};

/// All metrics of one sidecar.
#[derive(Debug)]
pub struct Metrics {
    catalogue: Catalogue,
    activity: ActivityLog,
    /// Metrics of webhooks.
    pub webhooks: WebhookMetrics,
    /// Metrics of the stores.
    pub stores: StoreMetrics,
    /// Metrics of events on their way to the database.
    pub journal: JournalMetrics,
    /// Metrics of the retention job.
    pub retention: RetentionMetrics,
    accounts_stale: Gauge,
    requests: Requests,
    denied: Family<Labels<1>, Counter>,
    limited: Family<Labels<1>, Counter>,
    exports_failed: Counter,
    lines_held_back: Counter,
    /// Connections of each listener.
    pub listeners: ListenerMetrics,
    /// Metrics of the archive.
    pub archive: ArchiveMetrics,
    /// Metrics of events about e-mails.
    pub emails: EmailMetrics,
    /// Metrics of outbound messages.
    pub messages: MessageMetrics,
    /// Metrics of media probes.
    pub media: MediaMetrics,
    /// Metrics of the template catalogue.
    pub templates: TemplateMetrics,
    /// Metrics of deliveries to sinks.
    pub sinks: SinkMetrics,
    /// Metrics of refused requests.
    pub refused_requests: RefusedRequestMetrics,
    /// Metrics of live streams.
    pub streams: StreamMetrics,
    /// Metrics of background tasks and panics.
    pub tasks: TaskMetrics,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut catalogue = Catalogue::default();
        let all = &mut catalogue;
        let metrics = Metrics {
            webhooks: WebhookMetrics::of(all),
            stores: StoreMetrics::of(all),
            journal: JournalMetrics::of(all),
            accounts_stale: all.gauge(
                "accounts_stale",
                "1 while the accounts file is unusable and filters receive the last valid keys; otherwise 0",
            ),
            requests: Requests::of(all),
            denied: all.counters(
                "api_key_failures",
                &["reason"],
                "Requests with a refused token by reason: `unknown` token, wrong `scope`, `closed` account",
            ),
            limited: all.counters(
                "rate_limited",
                &["by"],
                "Requests refused by a rate limit: limit of a `key`, or of an `address` that sent invalid tokens",
            ),
            exports_failed: all.counter(
                "trace_exports_failed",
                "Batches of spans that the collector did not accept; they are lost",
            ),
            lines_held_back: all.counter(
                "log_lines_suppressed",
                "Log lines suppressed because there were too many of the same kind (docs/OBSERVABILITY.md)",
            ),
            retention: RetentionMetrics::of(all),
            listeners: ListenerMetrics::of(all),
            archive: ArchiveMetrics::of(all),
            emails: EmailMetrics::of(all),
            messages: MessageMetrics::of(all),
            media: MediaMetrics::of(all),
            templates: TemplateMetrics::of(all),
            sinks: SinkMetrics::of(all),
            refused_requests: RefusedRequestMetrics::of(all),
            streams: StreamMetrics::of(all),
            tasks: TaskMetrics::of(all),
            activity: ActivityLog::default(),
            catalogue: Catalogue::default(),
        };
        all.info(
            "build",
            "Version of the running program",
            [("version", env!("CARGO_PKG_VERSION"))],
        );
        all.read_off(&process::FAMILIES, Process::default());
        metrics.begin();
        Metrics { catalogue, ..metrics }
    }
}

impl Metrics {
    /// Creates every series with zero.
    fn begin(&self) {
        self.webhooks.begin();
        self.stores.begin();
        self.retention.begin();
        self.listeners.begin();
        self.emails.begin();
        self.messages.begin();
        self.media.begin();
        self.templates.begin();
        self.refused_requests.begin();
        self.streams.begin();
        for denial in Denial::ALL {
            self.denied.get_or_create(&[("reason", denial.as_str())]).inc_by(0);
        }
        for limit in Limit::ALL {
            self.limited.get_or_create(&[("by", limit.as_str())]).inc_by(0);
        }
    }

    /// Sets whether the accounts file is unusable and earlier keys are in effect.
    pub fn accounts_are_stale(&self, stale: bool) {
        self.accounts_stale.set(stale.into());
    }

    /// Records a response by route and status.
    pub fn answered(&self, route: &str, status: u16, took: Duration) {
        self.requests.answered(route, status, took);
    }

    /// Counts a request without sufficient rights.
    pub fn denied(&self, denial: Denial) {
        self.denied.get_or_create(&[("reason", denial.as_str())]).inc();
    }

    /// Counts a request over a limit.
    pub fn limited(&self, limit: Limit) {
        self.limited.get_or_create(&[("by", limit.as_str())]).inc();
    }

    pub(crate) fn lines_held_back(&self, count: u64) {
        self.lines_held_back.inc_by(count);
    }

    pub(crate) fn spans_lost(&self) {
        self.exports_failed.inc();
    }

    /// Renders all series as OpenMetrics text.
    pub fn text(&self) -> String {
        self.catalogue.text()
    }
}

/// Renders every family as the table of docs/METRICS.md.
pub fn reference() -> String {
    Metrics::default().catalogue.reference()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_contains_the_table_of_metrics() {
        let document = include_str!("../../../docs/METRICS.md");
        let remedy = "docs/METRICS.md: put in `twilio-edge reference metrics`";
        assert!(document.contains(&reference()), "{remedy}");
    }
}
