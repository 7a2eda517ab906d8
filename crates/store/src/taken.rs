//! Messages that were taken on, as a list: of one account, those that are so far or all, the latest first, a page at a time. What is
//! shown of them is decided elsewhere.

use super::sends::{OutboundMessage, OutboundMessages, send_columns};
use crate::{database::Bind, error::StoreError};

/// How far a message may be.
const STATES: [&str; 7] =
    ["queued", "attempting", "sent", "refused", "unknown", "not_sent", "canceled"];

const OF_STATE: &str = concat!(
    "SELECT ",
    send_columns!(),
    " FROM sends WHERE account_sid = $1 AND state = $2 AND (created_at_ms, id) < ($3, $4)
    ORDER BY created_at_ms DESC, id DESC LIMIT $5"
);

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendsPage<'a> {
    /// Whose.
    pub account_sid: &'a str,
    /// Only those that are so far.
    pub state: Option<&'a str>,
    /// Older than one of that time, in milliseconds since 1970, and with that id.
    pub before: (i64, &'a str),
    /// How many.
    pub most: i64,
}

impl OutboundMessages {
    /// A page of them.
    pub async fn taken_on(&self, page: &SendsPage<'_>) -> Result<Vec<OutboundMessage>, StoreError> {
        let mut found: Vec<OutboundMessage> = Vec::new();
        // Each state has its place in the index: none is gone through for what it does not have.
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
        // One that went on meanwhile is found twice.
        found.dedup_by(|one, other| one.id == other.id);
        found.truncate(usize::try_from(page.most).unwrap_or_default());
        Ok(found)
    }
}
