//! History of a contact in one answer: consents, suppressions, conversation windows, and the latest messages, notifications
//! and webhooks. Queries the stores concurrently and combines the results. The API and `twilio-edge history` show the same
//! history.

use twilio_edge_domain::{
    consent::Consent,
    message::{NumberQuery, RecordedWebhook},
    policy::Policy,
    suppression::{self, Suppression},
    window::Window,
};
use twilio_edge_store::{
    StoreError,
    message_history::{
        MessageHistory, Search, WindowSearch,
        messages::MessageRecord,
        notifications::{Notification, NotificationSearch},
    },
};

/// Upper bound of windows in a history. A contact rarely writes to more than a few of our numbers.
const WINDOWS: usize = 100;

/// Stored data about a number in one account, the latest first.
#[derive(Debug, Clone)]
pub struct ContactHistory {
    /// Account that the data belongs to.
    pub account_sid: String,
    /// The number, and the channel if the query is for one channel only.
    pub number: NumberQuery,
    /// Reasons why messages to it are refused now, and earlier reasons.
    pub suppressions: Vec<Suppression>,
    /// Consents, given and withdrawn.
    pub consents: Vec<Consent>,
    /// Conversation windows, one for each of our numbers.
    pub windows: Vec<Window>,
    /// Latest messages from and to it.
    pub messages: Vec<MessageRecord>,
    /// Latest notifications to it.
    pub notifications: Vec<Notification>,
    /// Latest webhooks about it.
    pub events: Vec<RecordedWebhook>,
}

/// Reads the history of a number: at most `limit` messages, and as many notifications and webhooks. For a number on one channel, it
/// contains the suppressions of every channel that shares opt-outs with it under the account's policy.
///
/// # Errors
///
/// The database is unavailable or too slow.
pub async fn of(
    histories: &MessageHistory,
    policy: &Policy,
    account_sid: &str,
    number: &NumberQuery,
    limit: usize,
) -> Result<ContactHistory, StoreError> {
    let latest = Search { number: Some(number.clone()), ..Search::of(account_sid, limit) };
    let windows = WindowSearch {
        account_sid: account_sid.to_owned(),
        person: number.clone(),
        sender: None,
        after_ms: i64::MIN,
        until_ms: i64::MAX,
        after: None,
        limit: WINDOWS,
    };
    let said = NotificationSearch {
        contact: Some(number.clone()),
        ..NotificationSearch::of(account_sid, limit)
    };
    let (suppressions, consents, windows, messages, notifications, events) = tokio::try_join!(
        histories.suppressions(account_sid, &number.number),
        histories.consents(account_sid, &number.number),
        histories.windows(&windows),
        histories.messages(&latest),
        histories.notifications(&said),
        histories.events(&latest),
    )?;
    let reaches = |suppressed: &str| {
        let channel = number.channel.as_deref();
        channel.is_none_or(|channel| suppression::covers(suppressed, channel, policy))
    };
    Ok(ContactHistory {
        account_sid: account_sid.to_owned(),
        suppressions: suppressions
            .into_iter()
            .filter(|known| reaches(&known.address.channel))
            .collect(),
        consents: consents
            .into_iter()
            .filter(|known| number.is_on(&known.address.channel))
            .collect(),
        windows: windows.found,
        messages: messages.found,
        notifications: notifications.found,
        events: events.found,
        number: number.clone(),
    })
}
