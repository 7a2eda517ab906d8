//! Metrics of the connections of each listener.

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use super::catalogue::{Catalogue, Labels};

/// Names of the listeners.
const LISTENERS: [&str; 3] = ["main", "admin", "media"];

twilio_edge_contract::string_enum! {
    /// Limit that was reached when a connection was refused or closed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum ConnectionRefusal {
        /// Limit of one address.
        Address = "address",
        /// Limit of the listener.
        Listener = "listener",
    }
}

twilio_edge_contract::string_enum! {
    /// Event for which a connection waited too long.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum ConnectionWait {
        /// The headers of a request.
        Headers = "headers",
        /// The next request.
        Request = "request",
        /// The caller to read a response.
        Response = "response",
    }
}

/// The series of all listeners.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    open: Family<Labels<1>, Gauge>,
    refused: Family<Labels<2>, Counter>,
    timed_out: Family<Labels<2>, Counter>,
}

/// The series of one listener.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    listener: &'static str,
    all: ListenerMetrics,
}

impl ListenerMetrics {
    pub(super) fn of(all: &mut Catalogue) -> ListenerMetrics {
        ListenerMetrics {
            open: all.gauges(
                "connections_open",
                ["listener"],
                "Open connections by listener: `main`, `admin` or `media`",
            ),
            refused: all.counters(
                "connections_refused",
                &["listener", "reason"],
                "Connections refused, or closed in favor of another, by limit: `address`, connections from one address without a valid key (`connections.max_per_address`); `listener`, all connections of the listener (`connections.max`)",
            ),
            timed_out: all.counters(
                "connections_timed_out",
                &["listener", "waiting_for"],
                "Connections closed because the caller was too slow to send the `headers` of a request, to send its next `request`, or to read a `response`",
            ),
        }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
        for listener in LISTENERS {
            let one = self.listener(listener);
            one.open(0);
            for reason in ConnectionRefusal::ALL {
                one.refusals(reason).inc_by(0);
            }
            for wait in ConnectionWait::ALL {
                one.timeouts(wait).inc_by(0);
            }
        }
    }

    pub fn listener(&self, listener: &'static str) -> ConnectionMetrics {
        ConnectionMetrics { listener, all: self.clone() }
    }
}

impl ConnectionMetrics {
    /// Sets the number of open connections.
    pub fn open(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.all.open.get_or_create(&[("listener", self.listener)]).set(count);
    }

    /// Counts a connection that was refused.
    pub fn refused(&self, reason: ConnectionRefusal) {
        self.refusals(reason).inc();
    }

    /// Counts a connection that was closed because it waited too long.
    pub fn timed_out(&self, wait: ConnectionWait) {
        self.timeouts(wait).inc();
    }

    fn refusals(&self, reason: ConnectionRefusal) -> Counter {
        let labels = [("listener", self.listener), ("reason", reason.as_str())];
        self.all.refused.get_or_create(&labels).clone()
    }

    fn timeouts(&self, wait: ConnectionWait) -> Counter {
        let labels = [("listener", self.listener), ("waiting_for", wait.as_str())];
        self.all.timed_out.get_or_create(&labels).clone()
    }
}
