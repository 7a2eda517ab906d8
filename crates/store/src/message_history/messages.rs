//! Messages of both directions in one list: the rows of outbound messages that this installation accepted, and the messages
//! that are known from webhooks. Both are read by an index from the same position, and the domain merges them.
//!
//! A message that has both is listed once: at the time of its acceptance. The recipient of a row is masked after the message
//! has ended, and a row has no status of Twilio. A search by number or by status therefore lists such a message by its
//! webhooks, at the time of the first one.

use super::{MAX_EXAMINED, MessageHistory, Page, STEP, Search, WebhooksByMessage};
use crate::{
    database::within,
    error::StoreError,
    outbound_messages::{
        OutboundMessage,
        pages::{RowRange, Sid},
    },
};
use twilio_edge_domain::{
    address::Address,
    cursor::Cursor,
    merge::{Part, Position, merge},
    message::{Direction, Message, NumberQuery, RecordedWebhook},
};

/// All states of a row.
const STATES: [&str; 7] =
    ["queued", "attempting", "sent", "refused", "unknown", "not_sent", "canceled"];

/// States of a row in which its recipient is not masked.
const OPEN_STATES: [&str; 3] = ["queued", "attempting", "unknown"];

/// State of an inbound message in a search.
const RECEIVED: &str = "received";

/// State of an outbound message that Twilio has.
const SENT: &str = "sent";

/// A message of either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageRecord {
    /// Row of an outbound message that this installation accepted, and the message as its webhooks describe it.
    Accepted(Box<OutboundMessage>, Option<Box<Message>>),
    /// Message that is known from its webhooks alone.
    Recorded(Box<Message>),
}

impl From<OutboundMessage> for MessageRecord {
    fn from(row: OutboundMessage) -> MessageRecord {
        MessageRecord::Accepted(Box::new(row), None)
    }
}

impl MessageRecord {
    fn of(outbound: Option<OutboundMessage>, recorded: Option<Message>) -> Option<MessageRecord> {
        match (outbound, recorded.map(Box::new)) {
            (Some(row), recorded) => Some(MessageRecord::Accepted(Box::new(row), recorded)),
            (None, Some(recorded)) => Some(MessageRecord::Recorded(recorded)),
            (None, None) => None,
        }
    }

    /// Returns the row of an outbound message that this installation accepted.
    pub fn outbound(&self) -> Option<&OutboundMessage> {
        match self {
            MessageRecord::Accepted(row, _) => Some(row),
            MessageRecord::Recorded(_) => None,
        }
    }

    /// Returns the message as its webhooks describe it.
    pub fn recorded(&self) -> Option<&Message> {
        match self {
            MessageRecord::Accepted(_, recorded) => recorded.as_deref(),
            MessageRecord::Recorded(recorded) => Some(recorded),
        }
    }
}

/// Rows that a search reads.
struct Rows<'s> {
    search: &'s Search,
    states: Vec<&'static str>,
}

impl<'s> Rows<'s> {
    fn of(search: &'s Search) -> Rows<'s> {
        let by_number = [&search.number, &search.from, &search.to].into_iter().any(Option::is_some);
        let is_possible = |state: &&str| {
            search.direction != Some(Direction::Inbound)
                && search.status.is_none()
                && search.state.as_deref().is_none_or(|wanted| wanted == *state)
                && (!by_number || OPEN_STATES.contains(state))
        };
        Rows { search, states: STATES.into_iter().filter(is_possible).collect() }
    }

    /// Returns whether the list has this row, at the time of its acceptance.
    fn has(&self, row: &OutboundMessage) -> bool {
        self.states.contains(&row.state.as_str()) && self.search.is_between(row)
    }
}

impl Search {
    /// Returns whether the sender and the recipient of a row match the search.
    fn is_between(&self, row: &OutboundMessage) -> bool {
        let sender = Address::parse(&row.sender);
        let is_from = |number: &NumberQuery| {
            sender
                .as_ref()
                .is_some_and(|sender| number.is_on(&sender.channel) && number.is(&sender.number))
        };
        let is_to = |number: &NumberQuery| number.is_on(&row.channel) && number.is(&row.recipient);
        self.from.as_ref().is_none_or(is_from)
            && self.to.as_ref().is_none_or(is_to)
            && self.number.as_ref().is_none_or(|number| is_from(number) || is_to(number))
    }

    /// Returns the search for messages that are known from webhooks; `None` if none of them can match.
    fn of_webhooks(&self, before: &Position) -> Option<Search> {
        let direction = match self.state.as_deref() {
            None => self.direction,
            Some(RECEIVED) => Some(Direction::Inbound),
            Some(SENT) => Some(Direction::Outbound),
            Some(_) => return None,
        };
        if self.direction.is_some() && self.direction != direction {
            return None;
        }
        let after = Cursor::Event { received_ms: before.0, key: before.1.clone() };
        let limit = self.limit.saturating_add(1);
        Some(Search { direction, limit, after: Some(after), ..self.clone() })
    }

    fn message_with_position_at(
        &self,
        webhook: RecordedWebhook,
        by_message: &mut WebhooksByMessage,
    ) -> Option<(Position, Message)> {
        let position = (webhook.received_ms, webhook.key.clone());
        Some((position, self.message_at(webhook, by_message)?))
    }
}

impl MessageHistory {
    /// Returns a page of messages of both directions, the latest first. The time of a message is that of its acceptance, or
    /// of its first webhook.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or a read fails.
    pub async fn messages(&self, search: &Search) -> Result<Page<MessageRecord>, StoreError> {
        within(self.timeout, async {
            let search = &self.with_contacts(search).await?;
            let before = match &search.after {
                Some(Cursor::Message { at_ms, key }) => (*at_ms, key.clone()),
                _ => (search.until_ms, String::new()),
            };
            let rows = Rows::of(search);
            let parts = tokio::try_join!(
                self.rows_part(&rows, &before),
                self.webhooks_part(&rows, &before),
            )?;
            let (mut found, next) = merge(<[_; 2]>::from(parts), search.limit);
            self.add_webhooks(&search.account_sid, &mut found).await?;
            let next = next.map(|(at_ms, key)| Cursor::Message { at_ms, key });
            Ok(Page { found, next })
        })
        .await
    }

    /// Returns one message of an account by Twilio's SID.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn message(
        &self,
        account_sid: &str,
        message_sid: &str,
    ) -> Result<Option<MessageRecord>, StoreError> {
        within(self.timeout, async {
            let mut by_message = self.read_all(account_sid, [message_sid].into()).await?;
            let recorded = by_message.remove(message_sid).and_then(Message::of);
            let outbound = self.rows_of(account_sid, &[message_sid]).await?.into_iter().next();
            Ok(MessageRecord::of(outbound, recorded))
        })
        .await
    }

    /// Returns one outbound message of an account by our id, with its webhooks.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn outbound_message(
        &self,
        account_sid: &str,
        id: &str,
    ) -> Result<Option<MessageRecord>, StoreError> {
        if [account_sid, id].into_iter().any(|text| text.contains('\0')) {
            return Ok(None);
        }
        let row = within(self.timeout, self.reader.row(account_sid, id)).await?;
        match row {
            Some(row) => self.with_webhooks(row).await.map(Some),
            None => Ok(None),
        }
    }

    /// Adds the webhooks of an outbound message to its row.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn with_webhooks(&self, row: OutboundMessage) -> Result<MessageRecord, StoreError> {
        let account_sid = row.account_sid.clone();
        let mut record = [MessageRecord::from(row)];
        within(self.timeout, self.add_webhooks(&account_sid, &mut record)).await?;
        let [record] = record;
        Ok(record)
    }

    /// Reads rows until a page is full, or enough rows were examined.
    async fn rows_part(
        &self,
        rows: &Rows<'_>,
        before: &Position,
    ) -> Result<Part<MessageRecord>, StoreError> {
        let mut part = Part { entries: Vec::new(), read_to: Some(before.clone()) };
        let most = rows.search.limit.saturating_add(1);
        let mut examined = 0;
        while let Some(from) = part.read_to.take() {
            let step = self.rows_step(rows, &from, most.min(STEP)).await?;
            let is_last = step.len() < most.min(STEP);
            examined += step.len();
            for row in step {
                let position = (row.created_at_ms, row.id.clone());
                part.read_to = Some(position.clone());
                if rows.has(&row) {
                    part.entries.push((position, MessageRecord::from(row)));
                }
            }
            if is_last {
                part.read_to = None;
            }
            if examined >= MAX_EXAMINED || part.entries.len() >= most {
                break;
            }
        }
        Ok(part)
    }

    /// Returns the next rows of an account, the latest first. Each state has its own range in the index, so the query scans
    /// no row of another state.
    async fn rows_step(
        &self,
        rows: &Rows<'_>,
        before: &Position,
        limit: usize,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let mut step: Vec<OutboundMessage> = Vec::new();
        for state in &rows.states {
            let range = RowRange {
                account_sid: &rows.search.account_sid,
                state,
                before: (before.0, &before.1),
                since_ms: rows.search.since_ms,
                limit: i64::try_from(limit).unwrap_or(i64::MAX),
            };
            step.extend(self.reader.rows(&range).await?);
        }
        step.sort_by(|one, other| {
            (other.created_at_ms, &other.id).cmp(&(one.created_at_ms, &one.id))
        });
        // A message that changed its state between two queries is found twice.
        step.dedup_by(|one, other| one.id == other.id);
        step.truncate(limit);
        Ok(step)
    }

    /// Reads the messages that are known from webhooks, without those that are listed by their rows.
    async fn webhooks_part(
        &self,
        rows: &Rows<'_>,
        before: &Position,
    ) -> Result<Part<MessageRecord>, StoreError> {
        let Some(search) = rows.search.of_webhooks(before) else { return Ok(Part::empty()) };
        let page = self.page(&search, true, Search::message_with_position_at).await?;
        let sids = page.found.iter().map(|(_, message)| message.first.message_sid.as_str());
        let sids: Vec<&str> = sids.collect();
        let known = self.rows_of(&search.account_sid, &sids).await?;
        let read_to = match page.next {
            Some(Cursor::Event { received_ms, key }) => Some((received_ms, key)),
            _ => None,
        };
        let entries = page.found.into_iter().filter_map(|(position, message)| {
            let is_of = |row: &&OutboundMessage| row.message_sid == message.first.message_sid;
            let outbound = known.iter().find(is_of).cloned();
            let is_listed = outbound.as_ref().is_some_and(|row| rows.has(row));
            let record = MessageRecord::of(outbound, Some(message))?;
            (!is_listed).then_some((position, record))
        });
        Ok(Part { entries: entries.collect(), read_to })
    }

    /// Adds the webhooks to records that have only a row.
    async fn add_webhooks(
        &self,
        account_sid: &str,
        records: &mut [MessageRecord],
    ) -> Result<(), StoreError> {
        let without = |record: &MessageRecord| match record {
            MessageRecord::Accepted(row, None) if !row.message_sid.is_empty() => {
                Some(row.message_sid.clone())
            }
            _ => None,
        };
        let sids: Vec<String> = records.iter().filter_map(without).collect();
        let sids = sids.iter().map(String::as_str).collect();
        let mut by_message = self.read_all(account_sid, sids).await?;
        for record in records {
            if let Some(sid) = without(record)
                && let MessageRecord::Accepted(_, recorded) = record
            {
                *recorded = by_message.remove(&sid).and_then(Message::of).map(Box::new);
            }
        }
        Ok(())
    }

    /// Returns the rows of messages with these SIDs.
    async fn rows_of(
        &self,
        account_sid: &str,
        sids: &[&str],
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let sids = sids.iter().filter(|sid| !sid.is_empty() && !sid.contains('\0'));
        let sids: Vec<Sid<'_>> = sids.map(|message_sid| Sid { message_sid }).collect();
        if sids.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows: Vec<OutboundMessage> = self.reader.rows_by_sid(&sids).await?;
        rows.retain(|row| row.account_sid == account_sid);
        Ok(rows)
    }
}
