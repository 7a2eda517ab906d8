//! Statements about notifications: a message with the fallbacks that replaced it. `message_history` executes them. This module must
//! not know how a notification is displayed.

use super::outbound_message_columns;

/// First messages of an account's notifications, the latest first. `$1` is the account, `$2` and `$3` the position to continue from,
/// `$4` the start of the period, `$5` the maximum number of rows.
pub(crate) const FIRST_MESSAGES: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE account_sid = $1 AND fallback_of = '' AND (created_at_ms, id) < ($2, $3)
        AND created_at_ms >= $4 ORDER BY created_at_ms DESC, id DESC LIMIT $5"
);

/// The same for one contact, `$6`: the first message of each notification that has this contact. An e-mail has another contact than
/// the text message that it replaces.
pub(crate) const FIRST_MESSAGES_TO: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE account_sid = $1 AND contact = $6 AND contact <> '' AND (created_at_ms, id) < ($2, $3)
        AND created_at_ms >= $4 AND NOT EXISTS (SELECT 1 FROM outbound_messages AS replaced
            WHERE replaced.id = outbound_messages.fallback_of AND replaced.contact = outbound_messages.contact)
    ORDER BY created_at_ms DESC, id DESC LIMIT $5"
);

/// Messages of notifications, in any order. `$1` is the account, `$2` a JSON list of notification ids.
pub(crate) const OF_NOTIFICATIONS: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE account_sid = $1 AND notification_id <> ''
        AND notification_id IN (SELECT value FROM json_each($2))"
);

/// The same for PostgreSQL, which looks up each element of an array in the index.
pub(crate) const OF_NOTIFICATIONS_OF_ARRAY: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE account_sid = $1 AND notification_id <> ''
        AND notification_id = ANY(ARRAY(SELECT json_array_elements_text($2::json)))"
);

/// Range of first messages, as both databases bind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstMessages<'a> {
    pub(crate) account_sid: &'a str,
    /// Contact; `None` for all.
    pub(crate) contact: Option<&'a str>,
    pub(crate) before: (i64, &'a str),
    pub(crate) since_ms: i64,
    pub(crate) limit: i64,
}
