//! Notifications: each is an outbound message with the fallbacks that replaced it, also a message that a rule declined before it was
//! accepted. They are listed by the time of the first message, the latest first.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{MAX_EXAMINED, MessageHistory, Page, STEP};
use crate::{
    database::within,
    error::StoreError,
    outbound_messages::{OutboundMessage, notifications::FirstMessages},
};
use twilio_edge_domain::{cursor::Cursor, message::NumberQuery, phone};

/// Conditions and position of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationSearch {
    /// Account SID of all results.
    pub account_sid: String,
    /// Recipient of one of the messages.
    pub contact: Option<NumberQuery>,
    /// State of the last message.
    pub state: Option<String>,
    /// Start of the period, inclusive, in milliseconds since 1970.
    pub since_ms: i64,
    /// End of the period, exclusive, in milliseconds since 1970.
    pub until_ms: i64,
    /// Position: the end of the previous page.
    pub after: Option<Cursor>,
    /// Maximum number of results.
    pub limit: usize,
}

/// Notification: its messages in the order of their attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// First message.
    pub first: OutboundMessage,
    /// Fallbacks, each of which replaced the message before it.
    pub fallbacks: Vec<OutboundMessage>,
}

impl Notification {
    /// Builds the notification of these messages; `None` without a first message.
    pub fn of(messages: Vec<OutboundMessage>) -> Option<Notification> {
        let (first, rest): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| message.fallback_of.is_empty());
        let first = first.into_iter().next()?;
        let mut by_replaced: BTreeMap<String, OutboundMessage> =
            rest.into_iter().map(|message| (message.fallback_of.clone(), message)).collect();
        let mut fallbacks: Vec<OutboundMessage> = Vec::new();
        let mut id = first.id.clone();
        while let Some(fallback) = by_replaced.remove(&id) {
            id.clone_from(&fallback.id);
            fallbacks.push(fallback);
        }
        Some(Notification { first, fallbacks })
    }

    /// Returns the messages in the order of their attempts.
    pub fn messages(&self) -> impl Iterator<Item = &OutboundMessage> {
        std::iter::once(&self.first).chain(&self.fallbacks)
    }

    /// Returns the last message, whose state is that of the notification.
    pub fn last(&self) -> &OutboundMessage {
        self.fallbacks.last().unwrap_or(&self.first)
    }
}

impl NotificationSearch {
    /// Returns the search for all notifications of an account.
    pub fn of(account_sid: &str, limit: usize) -> NotificationSearch {
        NotificationSearch {
            account_sid: account_sid.to_owned(),
            contact: None,
            state: None,
            since_ms: i64::MIN,
            until_ms: i64::MAX,
            after: None,
            limit,
        }
    }

    fn has(&self, notification: &Notification) -> bool {
        let is_to = |contact: &NumberQuery| {
            let is_it = |message: &OutboundMessage| {
                contact.is_on(&message.channel) && contact.is(&message.contact)
            };
            notification.messages().any(is_it)
        };
        self.contact.as_ref().is_none_or(is_to)
            && self.state.as_ref().is_none_or(|state| *state == notification.last().state)
    }
}

impl MessageHistory {
    /// Returns a page of notifications.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or a read fails.
    pub async fn notifications(
        &self,
        search: &NotificationSearch,
    ) -> Result<Page<Notification>, StoreError> {
        within(self.timeout, async {
            let contact = match &search.contact {
                Some(contact) => Some(self.with_contact(&search.account_sid, contact).await?),
                None => None,
            };
            let search = &NotificationSearch { contact, ..search.clone() };
            let mut before = match &search.after {
                Some(Cursor::Notification { created_ms, id }) => (*created_ms, id.clone()),
                _ => (search.until_ms, String::new()),
            };
            let mut page = Page { found: Vec::new(), next: None };
            let mut examined = 0;
            loop {
                let step = self.first_messages(search, &before).await?;
                let (size, is_last) = (step.len(), step.len() < STEP);
                let mut notifications = self.of_messages(&search.account_sid, &step).await?;
                for message in step {
                    if page.found.len() >= search.limit {
                        page.next = Some(position(&before));
                        return Ok(page);
                    }
                    before = (message.created_at_ms, message.id.clone());
                    let notification = notifications.remove(&message.notification_id);
                    page.found.extend(notification.filter(|found| search.has(found)));
                }
                examined += size;
                if is_last {
                    return Ok(page);
                }
                if examined >= MAX_EXAMINED || page.found.len() >= search.limit {
                    page.next = Some(position(&before));
                    return Ok(page);
                }
            }
        })
        .await
    }

    /// Returns one notification of an account.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn notification(
        &self,
        account_sid: &str,
        id: &str,
    ) -> Result<Option<Notification>, StoreError> {
        if [account_sid, id].into_iter().any(|text| text.contains('\0')) {
            return Ok(None);
        }
        let found = within(self.timeout, self.reader.of_notifications(account_sid, &[id])).await?;
        Ok(Notification::of(found))
    }

    /// Returns the next first messages of the search, the latest first.
    async fn first_messages(
        &self,
        search: &NotificationSearch,
        before: &(i64, String),
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let contacts: Vec<Option<String>> = match &search.contact {
            Some(contact) => {
                let also = contact.other_ids.iter().map(|also| Cow::Borrowed(also.as_str()));
                let contacts: BTreeSet<_> =
                    phone::spellings(&contact.number).into_iter().chain(also).collect();
                contacts.into_iter().map(|contact| Some(contact.into_owned())).collect()
            }
            None => vec![None],
        };
        let mut step: Vec<OutboundMessage> = Vec::new();
        for contact in &contacts {
            let range = FirstMessages {
                account_sid: &search.account_sid,
                contact: contact.as_deref(),
                before: (before.0, &before.1),
                since_ms: search.since_ms,
                limit: i64::try_from(STEP).unwrap_or(i64::MAX),
            };
            step.extend(self.reader.first_messages(&range).await?);
        }
        step.sort_by(|a, b| (b.created_at_ms, &b.id).cmp(&(a.created_at_ms, &a.id)));
        step.dedup_by(|a, b| a.id == b.id);
        step.truncate(STEP);
        Ok(step)
    }

    /// Returns the notifications of these messages, by id.
    async fn of_messages(
        &self,
        account_sid: &str,
        messages: &[OutboundMessage],
    ) -> Result<BTreeMap<String, Notification>, StoreError> {
        let ids: BTreeSet<&str> =
            messages.iter().map(|message| message.notification_id.as_str()).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        let found = self.reader.of_notifications(account_sid, &ids).await?;
        let mut by_id: BTreeMap<String, Vec<OutboundMessage>> = BTreeMap::new();
        for message in found {
            by_id.entry(message.notification_id.clone()).or_default().push(message);
        }
        let notifications =
            by_id.into_iter().filter_map(|(id, rows)| Some((id, Notification::of(rows)?)));
        Ok(notifications.collect())
    }
}

fn position((created_ms, id): &(i64, String)) -> Cursor {
    Cursor::Notification { created_ms: *created_ms, id: id.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notification_has_its_messages_in_the_order_of_their_attempts() {
        let message = |id: &str, fallback_of: &str| OutboundMessage {
            id: id.to_owned(),
            fallback_of: fallback_of.to_owned(),
            ..OutboundMessage::default()
        };
        let rows = vec![message("c", "b"), message("b", "a"), message("a", "")];
        let notification = Notification::of(rows).unwrap();
        let ids: Vec<&str> = notification.messages().map(|message| message.id.as_str()).collect();
        assert_eq!((ids, notification.last().id.as_str()), (vec!["a", "b", "c"], "c"));
        assert_eq!(Notification::of(vec![message("b", "a")]), None);
    }
}
