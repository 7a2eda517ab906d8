//! Conversation windows of a contact: the latest inbound message to each of our numbers. It is read from the index that
//! contains only the messages of each pair.

use sqlx::FromRow;

use super::{MessageHistory, Page};
use crate::{database::within, error::StoreError};
use twilio_edge_domain::{address::Address, cursor::Cursor, message::NumberQuery, window::Window};

/// Search for the windows of one contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowSearch {
    /// Account SID of all results.
    pub account_sid: String,
    /// The contact.
    pub person: NumberQuery,
    /// The number or sender of ours that the contact wrote to.
    pub sender: Option<NumberQuery>,
    /// Start of the period of the last message, exclusive, in milliseconds since 1970.
    pub after_ms: i64,
    /// End of that period, inclusive, in milliseconds since 1970.
    pub until_ms: i64,
    /// Position: the end of the previous page.
    pub after: Option<Cursor>,
    /// Maximum number of windows.
    pub limit: usize,
}

/// Maximum number of our senders per read to which a contact wrote.
const MOST_PAIRS: i64 = 1000;

impl MessageHistory {
    /// Returns a page of the windows of a contact, by our number.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn windows(&self, search: &WindowSearch) -> Result<Page<Window>, StoreError> {
        let (after_ours, after_channel) = match &search.after {
            Some(Cursor::Pair { ours, channel }) => (ours.as_str(), channel.as_str()),
            _ => ("", ""),
        };
        let sender = search.sender.as_ref();
        let channel = search.person.channel.as_deref();
        let keys =
            within(self.timeout, self.keys(&search.account_sid, &search.person.number)).await?;
        let mut found: Vec<Window> = Vec::new();
        for theirs in keys.certain_keys() {
            let pairs = Pairs {
                theirs,
                account_sid: &search.account_sid,
                after_ours,
                after_channel,
                limit: MOST_PAIRS,
                ours: sender.map(|sender| sender.number.as_str()),
                channel: channel.or(sender.and_then(|sender| sender.channel.as_deref())),
                after_ms: i64::MIN,
                until_ms: i64::MAX,
            };
            let rows = within(self.timeout, self.reader.windows(&pairs)).await?;
            found.extend(rows.into_iter().map(WindowRow::read));
        }
        // A contact who wrote under two spellings or ids has one window: the later of the two.
        found.sort_by(|a, b| {
            let place = |window: &Window| (window.ours.clone(), window.theirs.channel.clone());
            place(a).cmp(&place(b)).then(b.last_inbound_ms.cmp(&a.last_inbound_ms))
        });
        found.dedup_by(|a, b| a.ours == b.ours && a.theirs.channel == b.theirs.channel);
        // This filter must follow the merge: the window of one spelling or id may be closed, and that of another open.
        let period = |window: &Window| {
            window.last_inbound_ms > search.after_ms && window.last_inbound_ms <= search.until_ms
        };
        found.retain(period);
        let more = found.len() > search.limit;
        found.truncate(search.limit);
        let end = |window: &Window| Cursor::Pair {
            ours: window.ours.clone(),
            channel: window.theirs.channel.clone(),
        };
        Ok(Page { next: found.last().filter(|_| more).map(end), found })
    }
}

/// Parameters of the query for last messages, as both databases bind them.
pub(crate) struct Pairs<'a> {
    pub(crate) theirs: &'a str,
    pub(crate) account_sid: &'a str,
    pub(crate) after_ours: &'a str,
    pub(crate) after_channel: &'a str,
    pub(crate) limit: i64,
    pub(crate) ours: Option<&'a str>,
    pub(crate) channel: Option<&'a str>,
    pub(crate) after_ms: i64,
    pub(crate) until_ms: i64,
}

/// The last message of a contact `$1` to each of our numbers: one range of the index that contains nothing else. Both
/// databases require the type of a parameter that may be NULL.
pub(crate) const WINDOWS: &str = "
    SELECT channel, theirs, ours, max(received_at_ms) AS last_inbound_ms FROM events
    WHERE class = 'inbound' AND theirs = $1 AND account_sid = $2 AND received_at_ms IS NOT NULL
        AND (ours, channel) > ($3, $4)
        AND (CAST($6 AS TEXT) IS NULL OR ours = $6) AND (CAST($7 AS TEXT) IS NULL OR channel = $7)
    GROUP BY theirs, ours, channel
    HAVING max(received_at_ms) > $8 AND max(received_at_ms) <= $9
    ORDER BY ours, channel LIMIT $5";

#[derive(Debug, FromRow)]
pub(crate) struct WindowRow {
    channel: String,
    theirs: String,
    ours: String,
    last_inbound_ms: i64,
}

impl WindowRow {
    fn read(self) -> Window {
        let WindowRow { channel, theirs, ours, last_inbound_ms } = self;
        Window { theirs: Address { channel, number: theirs }, ours, last_inbound_ms }
    }
}
