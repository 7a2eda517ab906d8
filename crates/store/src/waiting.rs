//! List of waiting outbound messages: one account, optionally one recipient and sender, latest first, page by page. This
//! module must not know how a message is displayed.

use super::sends::{OutboundMessage, OutboundMessages, send_columns};
use crate::{database::Bind, error::StoreError};
use twilio_edge_domain::address::Address;

/// Leaves out `unknown` messages, because Twilio may list them.
const WAITING: &str = concat!(
    "SELECT ",
    send_columns!(),
    " FROM sends WHERE state = 'queued' AND account_sid = $1 AND (created_at_ms, id) < ($2, $3)
        AND ($4 = '' OR (channel = $4 AND recipient = $5)) AND ($6 = '' OR sender = $6)
    ORDER BY created_at_ms DESC, id DESC LIMIT $7"
);

/// Filter and position of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPage<'a> {
    /// Account SID of the tenant.
    pub account_sid: &'a str,
    /// Returns only messages to this recipient.
    pub to: Option<&'a Address>,
    /// Returns only messages from this number of ours; empty: any.
    pub from: &'a str,
    /// Position: messages older than this one, by time in milliseconds since 1970 and id.
    pub before: (i64, &'a str),
    /// Maximum number of messages.
    pub most: i64,
}

impl OutboundMessages {
    /// Returns a page of waiting messages.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or a read fails.
    pub async fn waiting(
        &self,
        page: &WaitingPage<'_>,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let (channel, number) =
            page.to.map_or(("", ""), |to| (to.channel.as_str(), to.number.as_str()));
        let binds = [
            Bind::Text(page.account_sid),
            Bind::Whole(page.before.0),
            Bind::Text(page.before.1),
            Bind::Text(channel),
            Bind::Text(number),
            Bind::Text(page.from),
            Bind::Whole(page.most),
        ];
        self.bounded(self.database.read_bound(WAITING, &binds)).await
    }
}
