//! A number's whole story in one answer: what was agreed and refused, which windows are open, what was said last. Asks the
//! stores side by side and puts the answers together; the API and `twilio-edge story` show the same.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{message::Number, policy::Policy, suppression},
    shown::{ConsentShown, EventShown, MessageShown, SuppressionShown, WindowShown},
    store::{
        StoreError,
        histories::{Histories, Search, WindowSearch},
    },
};

/// Windows told, at most: a person writes to few of our numbers.
const WINDOWS: usize = 100;

/// Everything known of a number in one account, the latest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Story {
    /// Whose view of it this is.
    pub account_sid: String,
    /// The number, as Twilio writes it.
    pub number: String,
    /// The only channel that was asked about; every one without.
    pub channel: Option<String>,
    /// Why it must not be written to, and why it once must not.
    pub suppressions: Vec<SuppressionShown>,
    /// What was agreed to and taken back.
    pub consents: Vec<ConsentShown>,
    /// The conversations with it, by our number.
    pub windows: Vec<WindowShown>,
    /// The latest messages from and to it.
    pub messages: Vec<MessageShown>,
    /// The latest webhooks about it.
    pub events: Vec<EventShown>,
}

/// Returns the history of a number: at most `limit` messages, and as many webhooks. Of a number on one channel it has the
/// suppressions of every channel that shares opt-outs with it under the account's policy.
pub async fn of(
    histories: &Histories,
    policy: &Policy,
    account_sid: &str,
    number: &Number,
    limit: usize,
    now_ms: i64,
) -> Result<Story, StoreError> {
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
    let (suppressions, consents, windows, messages, events) = tokio::try_join!(
        histories.suppressions(account_sid, &number.number),
        histories.consents(account_sid, &number.number),
        histories.windows(&windows),
        histories.messages(&latest),
        histories.events(&latest),
    )?;
    let reaches = |suppressed: &str| {
        let channel = number.channel.as_deref();
        channel.is_none_or(|channel| suppression::reaches(suppressed, channel, policy))
    };
    Ok(Story {
        account_sid: account_sid.to_owned(),
        number: number.number.clone(),
        channel: number.channel.clone(),
        suppressions: suppressions
            .iter()
            .filter(|known| reaches(&known.address.channel))
            .map(SuppressionShown::of)
            .collect(),
        consents: consents
            .iter()
            .filter(|known| number.is_on(&known.address.channel))
            .map(ConsentShown::of)
            .collect(),
        windows: windows.found.iter().map(|window| WindowShown::of(window, now_ms)).collect(),
        messages: messages.found.iter().map(MessageShown::of).collect(),
        events: events.found.iter().map(EventShown::of).collect(),
    })
}
