//! Message histories: one message, or those of an account by number, time and status, page by page, latest first. The
//! module only reads, and works beside a running sidecar. An index leads to the webhooks of a contact, of one of our
//! numbers or of an account. The search conditions are then checked on the whole message, whose webhooks are one range of
//! the ledger's key. Every query is about one account, and no result contains data of another.

mod contact;
pub mod messages;
pub mod notifications;
mod permissions;
mod recording;
mod rows;
mod search;
mod windows;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub(super) use self::{
    recording::{RECORDED, RecordingRange, RecordingRow},
    rows::{Range, WALK, WALK_NUMBER, Walk, WebhookRow},
    windows::{Pairs, WINDOWS, WindowRow},
};
pub use self::{search::Search, windows::WindowSearch};
use super::reader::Reader;
use crate::{database::within, error::StoreError};
use twilio_edge_domain::{cursor::Cursor, message::RecordedWebhook, phone};
use twilio_edge_platform::{config, metrics::Connections};

/// Number of webhooks per read.
const STEP: usize = 200;

/// Maximum number of webhooks examined for one page, so that a search for a rare status does not read a whole ledger.
const MAX_EXAMINED: usize = 10_000;

/// Migration that created the columns and indexes of these queries.
const REQUIRED_MIGRATION: i64 = 1;

const MIGRATE: &str =
    "its tables are not up to date; run `twilio-edge migrate`, or start a sidecar on it";

/// The ledger, opened for queries; each query has a timeout.
#[derive(Debug, Clone)]
pub struct MessageHistory {
    reader: Reader,
    timeout: Duration,
}

/// All recorded webhooks of some messages, by message SID.
type WebhooksByMessage = BTreeMap<String, Vec<RecordedWebhook>>;

/// One page of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Results, latest first. A page may have fewer than requested although more follow.
    pub found: Vec<T>,
    /// Position of the next page; `None` at the end.
    pub next: Option<Cursor>,
}

impl MessageHistory {
    /// Opens the ledger read-only, beside the sidecar that uses it.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or its schema is too old.
    pub async fn open(settings: &config::Database) -> Result<MessageHistory, StoreError> {
        let reader = Reader::open(settings).await?;
        let timeout = Duration::from_millis(settings.read_timeout_ms);
        match reader.migrated(REQUIRED_MIGRATION).await {
            Ok(true) => Ok(MessageHistory { reader, timeout }),
            Ok(false) => Err(StoreError::Refused(MIGRATE.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Returns the connection counts.
    pub fn connections(&self) -> Connections {
        self.reader.connections()
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.reader.close().await;
    }

    /// Returns a page of webhooks, by the time of their arrival.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or a read fails.
    pub async fn events(&self, search: &Search) -> Result<Page<RecordedWebhook>, StoreError> {
        within(self.timeout, async {
            let search = self.with_contacts(search).await?;
            match &search.message_sid {
                Some(message_sid) => self.events_of(&search, message_sid).await,
                None => self.page(&search, false, Search::event_at).await,
            }
        })
        .await
    }

    /// Returns the webhook with this dedupe key. With an account, only if it belongs to that account.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn event(
        &self,
        account_sid: Option<&str>,
        key: &str,
    ) -> Result<Option<RecordedWebhook>, StoreError> {
        let rows = within(self.timeout, self.reader.histories(&[Range::just(key)])).await?;
        let theirs =
            |webhook: &RecordedWebhook| account_sid.is_none_or(|own| own == webhook.account_sid);
        Ok(rows.into_iter().map(WebhookRow::read).find(theirs))
    }

    /// Returns the webhooks of one message, which are few.
    async fn events_of(
        &self,
        search: &Search,
        message_sid: &str,
    ) -> Result<Page<RecordedWebhook>, StoreError> {
        let mut webhooks = self.read_all(&search.account_sid, [message_sid].into()).await?;
        let mut webhooks = webhooks.remove(message_sid).unwrap_or_default();
        webhooks.sort_by(|a, b| (b.received_ms, &b.key).cmp(&(a.received_ms, &a.key)));
        let (from_ms, from_key) = match &search.after {
            Some(Cursor::Event { received_ms, key }) => (*received_ms, key.as_str()),
            _ => (search.until_ms, ""),
        };
        let is_next = |webhook: &RecordedWebhook| {
            webhook.received_ms >= search.since_ms
                && (webhook.received_ms, webhook.key.as_str()) < (from_ms, from_key)
        };
        let mut found: Vec<RecordedWebhook> = webhooks
            .into_iter()
            .filter(is_next)
            .filter_map(|webhook| search.listed(webhook))
            .collect();
        let more = found.len() > search.limit;
        found.truncate(search.limit);
        Ok(Page { next: found.last().filter(|_| more).map(place), found })
    }

    /// Reads step by step until a page is full. `list` maps each webhook to its result, if it has one. With `with_messages`, it also
    /// gets all webhooks of the step's messages.
    async fn page<T>(
        &self,
        search: &Search,
        with_messages: bool,
        list: fn(&Search, RecordedWebhook, &mut WebhooksByMessage) -> Option<T>,
    ) -> Result<Page<T>, StoreError> {
        let start = || Cursor::Event { received_ms: search.until_ms, key: String::new() };
        let mut page =
            Page { found: Vec::new(), next: Some(search.after.clone().unwrap_or_else(start)) };
        let mut examined = 0;
        while let Some(from) = page.next.take() {
            let step = self.walk(search, &from).await?;
            let places: Vec<Cursor> = step.iter().map(place).collect();
            examined += places.len();
            let is_last = places.len() < STEP;
            let sids =
                step.iter().filter(|_| with_messages).map(|webhook| webhook.message_sid.as_str());
            let mut by_message = self.read_all(&search.account_sid, sids.collect()).await?;
            for (place, webhook) in places.into_iter().zip(step) {
                if page.found.len() >= search.limit {
                    return Ok(page);
                }
                page.next = Some(place);
                page.found.extend(list(search, webhook, &mut by_message));
            }
            if is_last {
                page.next = None;
            }
            if examined >= MAX_EXAMINED || page.found.len() >= search.limit {
                break;
            }
        }
        Ok(page)
    }

    /// Returns the webhooks from a position on that may match the search.
    async fn walk(
        &self,
        search: &Search,
        from: &Cursor,
    ) -> Result<Vec<RecordedWebhook>, StoreError> {
        let number = [&search.to, &search.from, &search.number].into_iter().flatten().next();
        let Cursor::Event { received_ms, key } = from else { return Ok(Vec::new()) };
        // The search covers every spelling and id of the contact; a webhook with two of them is found twice.
        let numbers = number.map(|number| {
            let also = number.other_ids.iter().map(|also| Cow::Borrowed(also.as_str()));
            phone::spellings(&number.number).into_iter().chain(also).collect::<BTreeSet<_>>()
        });
        let numbers = match &numbers {
            Some(numbers) => numbers.iter().map(|number| Some(&**number)).collect(),
            None => vec![None],
        };
        let mut step: Vec<RecordedWebhook> = Vec::new();
        for number in numbers {
            let walk = Walk {
                account_sid: &search.account_sid,
                since_ms: search.since_ms,
                before_ms: *received_ms,
                before_key: key,
                limit: i64::try_from(STEP).unwrap_or(i64::MAX),
                number,
            };
            let rows: Vec<WebhookRow> = self.reader.walk(&walk).await?;
            step.extend(rows.into_iter().map(WebhookRow::read));
        }
        step.sort_by(|a, b| (b.received_ms, &b.key).cmp(&(a.received_ms, &a.key)));
        step.dedup_by(|a, b| a.key == b.key);
        step.truncate(STEP);
        Ok(step)
    }

    /// Returns all recorded webhooks of these messages.
    async fn read_all(
        &self,
        account_sid: &str,
        message_sids: BTreeSet<&str>,
    ) -> Result<WebhooksByMessage, StoreError> {
        // An id with the key's separator in it does not exist, and must not reach into the range of another id. The same
        // applies to NUL, which PostgreSQL refuses.
        let strange = |sid: &str| sid.contains([':', '\0']);
        let sids = message_sids.into_iter().filter(|sid| !strange(sid));
        let ranges: Vec<Range> = match strange(account_sid) {
            true => Vec::new(),
            false => sids.flat_map(|sid| Range::of(account_sid, sid)).collect(),
        };
        if ranges.is_empty() {
            return Ok(WebhooksByMessage::new());
        }
        let rows: Vec<WebhookRow> = self.reader.histories(&ranges).await?;
        let mut found = WebhooksByMessage::new();
        for row in rows {
            let webhook = row.read();
            found.entry(webhook.message_sid.clone()).or_default().push(webhook);
        }
        Ok(found)
    }
}

fn place(webhook: &RecordedWebhook) -> Cursor {
    Cursor::Event { received_ms: webhook.received_ms, key: webhook.key.clone() }
}
