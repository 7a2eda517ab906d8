//! List of accepted outbound messages: one account, one state or all, latest first, page by page. This module must not know
//! how a message is displayed.

use super::sends::{OutboundMessage, OutboundMessages, send_columns};
use crate::{database::Bind, error::StoreError};

/// All states of a message.
const STATES: [&str; 7] =
    ["queued", "attempting", "sent", "refused", "unknown", "not_sent", "canceled"];

const OF_STATE: &str = concat!(
    "SELECT ",
    send_columns!(),
    " FROM sends WHERE account_sid = $1 AND state = $2 AND (created_at_ms, id) < ($3, $4)
    ORDER BY created_at_ms DESC, id DESC LIMIT $5"
);

/// Filter and position of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendsPage<'a> {
    /// Account SID of the tenant.
    pub account_sid: &'a str,
    /// Returns only messages in this state.
    pub state: Option<&'a str>,
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
    pub async fn taken_on(&self, page: &SendsPage<'_>) -> Result<Vec<OutboundMessage>, StoreError> {
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
            found.extend(
                self.bounded(self.database.read_bound::<OutboundMessage>(OF_STATE, &binds)).await?,
            );
        }
        found.sort_by(|one, other| {
            (other.created_at_ms, &other.id).cmp(&(one.created_at_ms, &one.id))
        });
        // A message that changed its state between two queries is found twice.
        found.dedup_by(|one, other| one.id == other.id);
        found.truncate(usize::try_from(page.most).unwrap_or_default());
        Ok(found)
    }
}
