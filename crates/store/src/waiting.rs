//! Messages that wait to be sent, as a list: of one account, to and from whom that is asked for, the latest first, a page at a
//! time. What is shown of them is decided elsewhere.

use super::sends::{OutboundMessage, OutboundMessages, send_columns};
use crate::{database::Bind, error::StoreError};
use twilio_edge_domain::address::Address;

/// What nobody knows of is left out: Twilio may list it.
const WAITING: &str = concat!(
    "SELECT ",
    send_columns!(),
    " FROM sends WHERE state = 'queued' AND account_sid = $1 AND (created_at_ms, id) < ($2, $3)
        AND ($4 = '' OR (channel = $4 AND recipient = $5)) AND ($6 = '' OR sender = $6)
    ORDER BY created_at_ms DESC, id DESC LIMIT $7"
);

/// Which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPage<'a> {
    /// Whose.
    pub account_sid: &'a str,
    /// To whom, if that is asked for.
    pub to: Option<&'a Address>,
    /// From which number of ours, or empty.
    pub from: &'a str,
    /// Older than one of that time, in milliseconds since 1970, and with that id.
    pub before: (i64, &'a str),
    /// How many.
    pub most: i64,
}

impl OutboundMessages {
    /// A page of those that wait.
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
