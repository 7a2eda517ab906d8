//! Lists of outbound messages of one account, latest first, page by page: all of them, or the queued ones by recipient and
//! sender. This module must not know how a message is displayed.

use super::{OutboundMessage, OutboundMessages, outbound_message_columns};
use crate::{database::Bind, error::StoreError};
use twilio_edge_domain::address::Address;

/// All states of a message.
const STATES: [&str; 7] =
    ["queued", "attempting", "sent", "refused", "unknown", "not_sent", "canceled"];

const OF_STATE: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE account_sid = $1 AND state = $2 AND (created_at_ms, id) < ($3, $4)
    ORDER BY created_at_ms DESC, id DESC LIMIT $5"
);

/// Leaves out `unknown` messages, because Twilio may list them.
const WAITING: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE state = 'queued' AND account_sid = $1 AND (created_at_ms, id) < ($2, $3)
        AND ($4 = '' OR (channel = $4 AND recipient = $5)) AND ($6 = '' OR sender = $6)
    ORDER BY created_at_ms DESC, id DESC LIMIT $7"
);

/// Filter and position of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboundMessagesPage<'a> {
    /// Account SID of the tenant.
    pub account_sid: &'a str,
    /// Returns only messages in this state.
    pub state: Option<&'a str>,
    /// Position: messages older than this one, by time in milliseconds since 1970 and id.
    pub before: (i64, &'a str),
    /// Maximum number of messages.
    pub most: i64,
}

/// Filter and position of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedMessagesPage<'a> {
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
    /// Returns a page of messages.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or a read fails.
    pub async fn list_page(
        &self,
        page: &OutboundMessagesPage<'_>,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let mut found: Vec<OutboundMessage> = Vec::new();
        // Each state has its own range in the index, so a query scans no messages of other states.
        for state in STATES.into_iter().filter(|state| page.state.is_none_or(|one| one == *state)) {
            let binds = [
                Bind::Text(page.account_sid),
                Bind::Text(state),
                Bind::Whole(page.before.0),
                Bind::Text(page.before.1),
                Bind::Whole(page.most),
            ];
            found.extend(self.database.read_bound::<OutboundMessage>(OF_STATE, &binds).await?);
        }
        found.sort_by(|one, other| {
            (other.created_at_ms, &other.id).cmp(&(one.created_at_ms, &one.id))
        });
        // A message that changed its state between two queries is found twice.
        found.dedup_by(|one, other| one.id == other.id);
        found.truncate(usize::try_from(page.most).unwrap_or_default());
        Ok(found)
    }

    /// Returns a page of waiting messages.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or a read fails.
    pub async fn list_queued(
        &self,
        page: &QueuedMessagesPage<'_>,
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
        self.database.read_bound(WAITING, &binds).await
    }
}
