//! Metrics of SendGrid's events about e-mails.

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::catalogue::{Catalogue, Labels};
use twilio_edge_domain::email::event::EventKind;

/// Label of a kind of event that this version does not know.
const OTHER: &str = "other";

twilio_edge_contract::string_enum! {
    /// Result of a post of events.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum EventPost {
        /// The events were stored.
        Accepted = "accepted",
        /// The account has no verification key.
        NoKey = "no_key",
        /// The signature does not fit.
        Forged = "forged",
        /// The body is no list of events.
        Malformed = "malformed",
        /// A store failed; SendGrid repeats the post.
        Failed = "failed",
    }
}

/// The series of events about e-mails.
#[derive(Debug)]
pub struct EmailMetrics {
    events: Family<Labels<1>, Counter>,
    posts: Family<Labels<1>, Counter>,
}

impl EmailMetrics {
    pub(super) fn of(all: &mut Catalogue) -> EmailMetrics {
        EmailMetrics {
            events: all.counters(
                "email_events",
                &["event"],
                "Events of SendGrid about e-mails, by SendGrid's name; `other` for a name that this version does not know",
            ),
            posts: all.counters(
                "email_event_posts",
                &["result"],
                "Posts of SendGrid's Event Webhook, by result: `accepted`, `no_key` (the account has no verification key), `forged` (the signature does not fit), `malformed`, `failed` (a store failed; SendGrid repeats the post)",
            ),
        }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
        for kind in EventKind::ALL {
            self.events.get_or_create(&[("event", kind.as_str())]).inc_by(0);
        }
        for result in EventPost::ALL {
            self.posts.get_or_create(&[("result", result.as_str())]).inc_by(0);
        }
    }

    /// Counts an event.
    pub fn event(&self, kind: Option<EventKind>) {
        let kind = kind.map_or(OTHER, EventKind::as_str);
        self.events.get_or_create(&[("event", kind)]).inc();
    }

    /// Counts a post of events.
    pub fn posted(&self, result: EventPost) {
        self.posts.get_or_create(&[("result", result.as_str())]).inc();
    }
}
