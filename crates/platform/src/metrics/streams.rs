//! Metrics of live streams of webhooks.

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use super::catalogue::{Catalogue, Labels};
use twilio_edge_domain::live_stream::StreamEnd;

/// The series of live streams.
#[derive(Debug)]
pub struct StreamMetrics {
    open: Gauge,
    sent: Counter,
    closed: Family<Labels<1>, Counter>,
}

impl StreamMetrics {
    pub(super) fn of(all: &mut Catalogue) -> StreamMetrics {
        StreamMetrics {
            open: all.gauge("streams", "Open live streams (docs/STREAM.md)"),
            sent: all.counter("stream_webhooks", "Webhooks that were sent through live streams"),
            closed: all.counters(
                "streams_closed",
                &["reason"],
                "Live streams that ended, by reason: the `client` closed it, or was `slow`; `expired` (greatest age), `unauthorized` (key revoked, account closed), `shutdown`",
            ),
        }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
        for end in StreamEnd::ALL {
            self.closed.get_or_create(&[("reason", end.as_str())]).inc_by(0);
        }
    }

    /// Counts an opened stream.
    pub fn opened(&self) {
        self.open.inc();
    }

    /// Counts a webhook that was sent through a stream.
    pub fn sent(&self) {
        self.sent.inc();
    }

    /// Counts a stream that ended.
    pub fn closed(&self, end: StreamEnd) {
        self.open.dec();
        self.closed.get_or_create(&[("reason", end.as_str())]).inc();
    }
}
