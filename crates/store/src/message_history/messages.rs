//! Messages of both directions in one list: the rows of outbound messages that this installation accepted, and the messages
//! that are known from webhooks. Both are read by an index from the same position, and the domain merges them.
//!
//! A message that has both is listed once: at the time of its acceptance. The recipient of a row is masked after the message
//! has ended. A search by number therefore lists such a message by its webhooks, at the time of the first one. The same
//! applies to a search by a status that only webhooks without our id reported.

use super::{MAX_EXAMINED, MessageHistory, Page, STEP, Search, WebhooksByMessage};
use crate::{
    database::within,
    error::StoreError,
    outbound_messages::{
        OutboundMessage,
        pages::{RowIndex, RowRange, Sid},
    },
};
use twilio_edge_domain::{
    address::Address,
    cursor::Cursor,
    dropin::resource::id_of_sid,
    merge::{Part, Position, merge},
    message::{Direction, Message, NumberQuery, RecordedWebhook},
    sending::provider::Provider,
};

/// All states of a row that was accepted.
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
    /// Row of an outbound message that this installation accepted, and the message as the webhooks of its current delivery
    /// describe it. The last field has the webhooks of failed deliveries that were repeated.
    Accepted(Box<OutboundMessage>, Option<Box<Message>>, Vec<RecordedWebhook>),
    /// Message that is known from its webhooks alone.
    Recorded(Box<Message>),
}

impl From<OutboundMessage> for MessageRecord {
    fn from(row: OutboundMessage) -> MessageRecord {
        MessageRecord::Accepted(Box::new(row), None, Vec::new())
    }
}

impl MessageRecord {
    fn of(outbound: Option<OutboundMessage>, recorded: Option<Message>) -> Option<MessageRecord> {
        match (outbound, recorded.map(Box::new)) {
            (Some(row), recorded) => {
                Some(MessageRecord::Accepted(Box::new(row), recorded, Vec::new()))
            }
            (None, Some(recorded)) => Some(MessageRecord::Recorded(recorded)),
            (None, None) => None,
        }
    }

    /// Returns the row of an outbound message that this installation accepted.
    pub fn outbound(&self) -> Option<&OutboundMessage> {
        match self {
            MessageRecord::Accepted(row, ..) => Some(row),
            MessageRecord::Recorded(_) => None,
        }
    }

    /// Returns the webhooks of failed deliveries that were repeated.
    pub fn earlier(&self) -> &[RecordedWebhook] {
        match self {
            MessageRecord::Accepted(.., earlier) => earlier,
            MessageRecord::Recorded(_) => &[],
        }
    }

    /// Returns the message as its webhooks describe it.
    pub fn recorded(&self) -> Option<&Message> {
        match self {
            MessageRecord::Accepted(_, recorded, _) => recorded.as_deref(),
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
        let by_number = search.is_by_number();
        let is_possible = |state: &&str| {
            search.direction != Some(Direction::Inbound)
                && search.state.as_deref().is_none_or(|wanted| wanted == *state)
                && (!by_number || OPEN_STATES.contains(state))
        };
        Rows { search, states: STATES.into_iter().filter(is_possible).collect() }
    }

    /// Returns the index ranges to read: those of the most selective condition.
    fn ranges(&self) -> Vec<(RowIndex, &str)> {
        if self.states.is_empty() {
            return Vec::new();
        }
        let Search { error_code, template, status, sender, .. } = self.search;
        let conditions = [
            (RowIndex::Code, error_code),
            (RowIndex::Template, template),
            (RowIndex::Status, status),
            (RowIndex::Sender, sender),
        ];
        let found =
            conditions.into_iter().find_map(|(index, value)| Some((index, value.as_deref()?)));
        match found.filter(|_| !self.search.is_by_number()) {
            Some(range) => vec![range],
            None => self.states.iter().map(|state| (RowIndex::State, *state)).collect(),
        }
    }

    /// Returns whether the list has this row, at the time of its acceptance.
    fn has(&self, row: &OutboundMessage) -> bool {
        let is = |wanted: &Option<String>, value: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == value)
        };
        row.provider() == Provider::Messaging
            && self.states.contains(&row.state.as_str())
            && is(&self.search.status, &row.status)
            && is(&self.search.error_code, &row.code)
            && self.search.is_sent_as(row)
            && self.search.is_between(row)
    }
}

impl Search {
    fn is_by_number(&self) -> bool {
        [&self.number, &self.from, &self.to].into_iter().any(Option::is_some)
    }

    /// Returns whether the template and the sender of a row match the search.
    fn is_sent_as(&self, row: &OutboundMessage) -> bool {
        self.template.as_ref().is_none_or(|template| *template == row.template)
            && self.sender.as_ref().is_none_or(|sender| *sender == row.sender)
    }

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
        // Only rows have a template and a requested sender. Webhooks are needed only to find the recipient.
        if (self.template.is_some() || self.sender.is_some()) && !self.is_by_number() {
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
        let Search { status, error_code, template, sender, .. } = search;
        let values = [status, error_code, template, sender].into_iter().flatten();
        // PostgreSQL refuses a NUL character in text, and no message has one in these columns.
        if values.into_iter().any(|value| value.contains('\0')) {
            return Ok(Page { found: Vec::new(), next: None });
        }
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

    /// Returns one message of an account by Twilio's SID, or by the SID that the drop-in API derives from our id.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn message(
        &self,
        account_sid: &str,
        message_sid: &str,
    ) -> Result<Option<MessageRecord>, StoreError> {
        within(self.timeout, async {
            let outbound = self.rows_of(account_sid, &[message_sid]).await?.into_iter().next();
            if let Some(row) = outbound {
                let mut record = [MessageRecord::from(row)];
                self.add_webhooks(account_sid, &mut record).await?;
                let [record] = record;
                return Ok(Some(record));
            }
            let mut by_message = self.read_all(account_sid, [message_sid].into()).await?;
            let recorded = by_message.remove(message_sid).and_then(Message::of);
            if let Some(record) = MessageRecord::of(None, recorded) {
                return Ok(Some(record));
            }
            // Until Twilio assigns a SID, the drop-in API names the message by one that is derived from our id.
            let Some(id) = id_of_sid(message_sid).filter(|id| !id.contains('\0')) else {
                return Ok(None);
            };
            let Some(row) = self.reader.row(account_sid, &id).await? else { return Ok(None) };
            let mut record = [MessageRecord::from(row)];
            self.add_webhooks(account_sid, &mut record).await?;
            let [record] = record;
            Ok(Some(record))
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

    /// Returns the next rows of an account, the latest first. Each value of an indexed column has its own range, so the query
    /// scans no row with another value.
    async fn rows_step(
        &self,
        rows: &Rows<'_>,
        before: &Position,
        limit: usize,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let mut step: Vec<OutboundMessage> = Vec::new();
        for (index, value) in rows.ranges() {
            let range = RowRange {
                account_sid: &rows.search.account_sid,
                index,
                value,
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
        let by_row = rows.search.template.is_some() || rows.search.sender.is_some();
        let entries = page.found.into_iter().filter_map(|(position, message)| {
            let sid = &message.first.message_sid;
            // The webhooks of a failed delivery that was repeated are part of its message, which is listed by other webhooks
            // or by its row.
            let is_replaced = |row: &OutboundMessage| {
                row.message_sid != *sid && row.earlier_sids().any(|earlier| earlier == *sid)
            };
            if known.iter().any(is_replaced) {
                return None;
            }
            let outbound = known.iter().find(|row| row.message_sid == *sid).cloned();
            let is_listed = outbound.as_ref().is_some_and(|row| rows.has(row));
            let is_found = match &outbound {
                Some(row) => rows.search.is_sent_as(row),
                None => !by_row,
            };
            let record = MessageRecord::of(outbound, Some(message))?;
            (is_found && !is_listed).then_some((position, record))
        });
        Ok(Part { entries: entries.collect(), read_to })
    }

    /// Adds the webhooks to records that have only a row, and those of failed deliveries to all.
    async fn add_webhooks(
        &self,
        account_sid: &str,
        records: &mut [MessageRecord],
    ) -> Result<(), StoreError> {
        let of_record = |record: &MessageRecord| match record {
            MessageRecord::Accepted(row, recorded, _) => {
                let current = Some(row.message_sid.clone())
                    .filter(|sid| !sid.is_empty() && recorded.is_none());
                let earlier = row.earlier_sids().filter(|sid| *sid != row.message_sid);
                (current, earlier.collect())
            }
            MessageRecord::Recorded(_) => (None, Vec::new()),
        };
        let sids: Vec<String> = records
            .iter()
            .map(of_record)
            .flat_map(|(current, earlier)| current.into_iter().chain(earlier))
            .collect();
        let sids = sids.iter().map(String::as_str).collect();
        let mut by_message = self.read_all(account_sid, sids).await?;
        for record in records {
            let (current, replaced) = of_record(record);
            let MessageRecord::Accepted(_, recorded, earlier) = record else { continue };
            if let Some(sid) = current {
                *recorded = by_message.remove(&sid).and_then(Message::of).map(Box::new);
            }
            let webhooks = replaced.iter().filter_map(|sid| by_message.remove(sid));
            *earlier = webhooks.flatten().collect();
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
