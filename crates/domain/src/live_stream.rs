//! Live streams of recorded webhooks: the order of the webhooks, which of them a stream has, where a stream continues, and why it
//! ends.

use serde::{Deserialize, Serialize};

use crate::{
    message::{NumberQuery, RecordedWebhook},
    period::DAY_MS,
};

/// Age after which a webhook is no longer live, in milliseconds. A sidecar may record a webhook long after its arrival, from the
/// spool of a stopped sidecar. The same limit keeps the webhooks of a restored backup out of live streams, and bounds the time after
/// which a stream can be continued.
pub const LIVE_MS: i64 = DAY_MS;

/// Position in the order in which webhooks are recorded: by commit, then by arrival, then by key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamPosition {
    /// Position of the commit, ascending.
    #[serde(rename = "c")]
    pub commit: i64,
    /// Time of arrival, in milliseconds since 1970.
    #[serde(rename = "t")]
    pub received_ms: i64,
    /// Dedupe key.
    #[serde(rename = "k")]
    pub key: String,
}

impl StreamPosition {
    /// Returns the position before every webhook of this commit and of later ones.
    pub fn before(commit: i64) -> StreamPosition {
        StreamPosition { commit, received_ms: i64::MIN, key: String::new() }
    }
}

/// Webhooks that a stream has: those that match every given field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamFilter {
    /// Account; `None` for every account.
    pub account_sid: Option<String>,
    /// Sender or recipient of the message.
    pub number: Option<NumberQuery>,
    /// Message.
    pub message_sid: Option<String>,
    /// True for status callbacks, false for inbound messages.
    pub is_status: Option<bool>,
    /// Status that the webhook reports.
    pub status: Option<String>,
}

impl StreamFilter {
    /// Returns whether a stream has this webhook at `now_ms`.
    pub fn selects(&self, webhook: &RecordedWebhook, now_ms: i64) -> bool {
        let is =
            |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|own| own == text);
        is(&self.account_sid, &webhook.account_sid)
            && is(&self.message_sid, &webhook.message_sid)
            && is(&self.status, &webhook.status)
            && self.is_status.is_none_or(|is_status| is_status == webhook.is_status)
            && self.number.as_ref().is_none_or(|number| webhook.involves(number))
            && webhook.received_ms >= now_ms.saturating_sub(LIVE_MS)
            && !webhook.is_step()
    }
}

/// Start of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamStart {
    /// The webhooks that are recorded from now on.
    Now,
    /// The webhooks after this position.
    After(StreamPosition),
    /// The webhooks that are recorded from now on, although the caller asked to continue after an earlier one: some webhooks are
    /// missing.
    Gap(GapReason),
}

twilio_edge_contract::string_enum! {
    /// Reason why a stream cannot continue where an earlier one ended.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
    pub enum GapReason: serde {
        /// The position is more than a day old.
        Expired = "expired",
        /// The position belongs to another database, for instance to the one before a restore.
        Unknown = "unknown",
    }
}

/// Returns where a stream starts: after `asked`, which was current at `at_ms`, if the ledger still shows all webhooks since then.
/// `end` is the position before which the ledger is complete.
pub fn start(asked: Option<(StreamPosition, i64)>, end: i64, now_ms: i64) -> StreamStart {
    match asked {
        None => StreamStart::Now,
        Some((position, _)) if position.commit > end => StreamStart::Gap(GapReason::Unknown),
        Some((_, at_ms)) if at_ms < now_ms.saturating_sub(LIVE_MS) => {
            StreamStart::Gap(GapReason::Expired)
        }
        Some((position, _)) => StreamStart::After(position),
    }
}

twilio_edge_contract::string_enum! {
    /// Reason why a stream ended.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
    pub enum StreamEnd: serde {
        /// The sidecar is stopping.
        Shutdown = "shutdown",
        /// The client did not read what it was sent.
        Slow = "slow",
        /// The stream reached its greatest age.
        Expired = "expired",
        /// The API key was revoked, or its account was closed.
        Unauthorized = "unauthorized",
        /// The client closed the connection.
        Client = "client",
    }
}

impl StreamEnd {
    /// Explains the reason to the client, and what to do.
    pub fn detail(self) -> &'static str {
        match self {
            StreamEnd::Shutdown => "The sidecar is stopping. Connect again with Last-Event-ID.",
            StreamEnd::Slow => {
                "The client did not read in time. Connect again with Last-Event-ID, and read faster or filter more."
            }
            StreamEnd::Expired => {
                "The stream reached its greatest age. Connect again with Last-Event-ID."
            }
            StreamEnd::Unauthorized => "The API key was revoked, or its account was closed.",
            StreamEnd::Client => "The client closed the connection.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::Address, message::Direction};

    const NOW: i64 = 1_795_000_000_000;

    fn webhook() -> RecordedWebhook {
        RecordedWebhook {
            key: "status:AC1:SM1:sent:".into(),
            direction: Direction::Outbound,
            is_status: true,
            account_sid: "AC1".into(),
            message_sid: "SM1".into(),
            status: "sent".into(),
            error_code: None,
            route: Some("/twilio/status".into()),
            form: Some(String::new()),
            theirs: Address::parse("whatsapp:+14155550123"),
            ours: Some("+14155550100".into()),
            received_ms: NOW - 5,
            attempts: 1,
            outcome: None,
            settled_ms: None,
            redacted_ms: None,
        }
    }

    #[test]
    fn positions_are_ordered_by_commit_arrival_and_key() {
        let at = |commit, received_ms, key: &str| StreamPosition {
            commit,
            received_ms,
            key: key.into(),
        };
        let ordered = [
            StreamPosition::before(7),
            at(7, i64::MIN, "a"),
            at(7, 1, "b"),
            at(7, 2, "a"),
            at(7, 2, "a:"),
            StreamPosition::before(8),
        ];
        assert!(ordered.is_sorted_by(|one, next| one < next), "{ordered:?}");
    }

    #[test]
    fn filter_selects_webhooks_that_match_every_field() {
        let number = |text: &str| NumberQuery::parse_query(text);
        let text = |text: &str| Some(text.to_owned());
        let all = StreamFilter::default();
        for (filter, is_selected) in [
            (all.clone(), true),
            (StreamFilter { account_sid: text("AC1"), ..all.clone() }, true),
            (StreamFilter { account_sid: text("AC2"), ..all.clone() }, false),
            (StreamFilter { number: number("+14155550123"), ..all.clone() }, true),
            (StreamFilter { number: number("whatsapp:+14155550100"), ..all.clone() }, true),
            (StreamFilter { number: number("sms:+14155550123"), ..all.clone() }, false),
            (StreamFilter { message_sid: text("SM2"), ..all.clone() }, false),
            (StreamFilter { is_status: Some(true), status: text("sent"), ..all.clone() }, true),
            (StreamFilter { is_status: Some(false), ..all.clone() }, false),
            (StreamFilter { status: text("read"), ..all.clone() }, false),
        ] {
            assert_eq!(filter.selects(&webhook(), NOW), is_selected, "{filter:?}");
        }
        let old = RecordedWebhook { received_ms: NOW - LIVE_MS - 1, ..webhook() };
        let key = "inbound:AC1:SM1:0123456789abcdef".to_owned();
        let step = RecordedWebhook { key, is_status: false, ..webhook() };
        assert!(!all.selects(&old, NOW) && !all.selects(&step, NOW));
    }

    #[test]
    fn stream_continues_after_a_position_of_the_last_day() {
        let position = StreamPosition::before(7);
        let asked = |at_ms| Some((position.clone(), at_ms));
        assert_eq!(start(None, 7, NOW), StreamStart::Now);
        assert_eq!(start(asked(NOW - LIVE_MS), 7, NOW), StreamStart::After(position.clone()));
        let expired = start(asked(NOW - LIVE_MS - 1), 7, NOW);
        assert_eq!(expired, StreamStart::Gap(GapReason::Expired));
        assert_eq!(start(asked(NOW), 6, NOW), StreamStart::Gap(GapReason::Unknown));
    }
}
