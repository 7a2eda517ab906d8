//! Replay: its period, its source and its progress. The functions are pure: this module must not know where webhooks are read
//! and how deliveries are queued.

use sqlx::FromRow;
use twilio_edge_domain::{
    address::Address,
    archive::ArchivePage,
    event::delivery_id,
    webhook::{Webhook, contact_ordering_key, subject_ordering_key},
};

use crate::outbox::NewDelivery;

/// Values of a replay's `origin`.
const LEDGER: &str = "ledger";
const ARCHIVE: &str = "archive";
const EVENTS: &str = "events";

/// Replay with its progress. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Replay {
    /// Replay id, part of each of its deliveries, so that a sink does not take one for a copy.
    pub id: String,
    /// Name of the sink.
    pub sink: String,
    /// Account SID; `None` for all accounts.
    pub account_sid: Option<String>,
    /// Message SID; `None` for all messages.
    pub message_sid: Option<String>,
    /// Source: `ledger` or `archive` of webhooks, or `events`.
    pub origin: String,
    /// `inbound` or `status`; `None` for both.
    pub class: Option<String>,
    /// Start of the period, inclusive.
    pub since_ms: i64,
    /// End of the period, exclusive.
    pub until_ms: i64,
    /// `running`, or `done` when every delivery is queued, though not yet delivered.
    pub state: String,
    pub(super) through_ms: i64,
    pub(super) through_key: String,
    /// Number of webhooks found.
    pub found: i64,
    /// Number of them that are queued for the sink.
    pub queued: i64,
    /// Number of them that are left out, because they are redacted or only their outcome is known.
    pub left_out: i64,
    /// Time of the request.
    pub created_at_ms: i64,
    /// Author of the request.
    pub created_by: String,
    /// Time at which every delivery was queued.
    pub ended_at_ms: Option<i64>,
}

/// Webhook of the ledger that a replay examines.
#[derive(Debug, FromRow)]
pub(super) struct ReplayedRow {
    pub(super) dedupe_key: String,
    class: String,
    account_sid: String,
    message_sid: String,
    channel: Option<String>,
    theirs: Option<String>,
    pub(super) at_ms: i64,
    /// It can be delivered: its form is complete and not redacted.
    whole: bool,
}

impl Replay {
    /// Creates a replay that has not begun.
    pub fn new(id: String, sink: String, until_ms: i64, now_ms: i64, by: &str) -> Replay {
        Replay {
            id,
            sink,
            account_sid: None,
            message_sid: None,
            origin: LEDGER.to_owned(),
            class: None,
            since_ms: 0,
            until_ms,
            state: "running".to_owned(),
            through_ms: 0,
            through_key: String::new(),
            found: 0,
            queued: 0,
            left_out: 0,
            created_at_ms: now_ms,
            created_by: by.to_owned(),
            ended_at_ms: None,
        }
    }

    /// Sets the start of the period.
    pub fn since(self, since_ms: i64) -> Replay {
        Replay { since_ms, through_ms: since_ms, ..self }
    }

    /// Sets the archive as the source of the webhooks.
    pub fn of_archive(self) -> Replay {
        Replay { origin: ARCHIVE.to_owned(), ..self }
    }

    /// Sets the operational events of the database as the source.
    pub fn of_events(self) -> Replay {
        Replay { origin: EVENTS.to_owned(), ..self }
    }

    /// Returns whether operational events are replayed, and not webhooks.
    pub fn is_of_events(&self) -> bool {
        self.origin == EVENTS
    }

    /// Returns whether the archive is the source of the webhooks.
    pub fn is_of_archive(&self) -> bool {
        self.origin == ARCHIVE
    }

    /// Returns the position after the last examined webhook: its key, or its place in the archive.
    pub fn place(&self) -> &str {
        &self.through_key
    }

    /// Returns the time up to which the webhooks are examined.
    pub fn through_ms(&self) -> i64 {
        self.through_ms
    }

    /// Returns whether every delivery is queued.
    pub fn is_done(&self) -> bool {
        self.state == "done"
    }

    /// Returns the progress after webhooks found in the archive, if all of them are queued.
    pub fn counted(&self, found: &ArchivePage) -> Replay {
        let mut next = self.clone();
        let count = i64::try_from(found.lines.len()).unwrap_or(i64::MAX);
        (next.found, next.queued) = (self.found + count, self.queued + count);
        if let Some(last) = found.lines.last() {
            (next.through_ms, next.through_key) = (last.received_at_ms(), found.place.clone());
        }
        if found.is_last {
            next.state = "done".to_owned();
        }
        next
    }

    /// Returns the progress after these rows, and their deliveries to the sink.
    pub(super) fn after(
        &self,
        rows: Vec<ReplayedRow>,
        is_last: bool,
        now_ms: i64,
    ) -> (Replay, Vec<NewDelivery>) {
        let mut next = self.clone();
        if let Some(last) = rows.last() {
            (next.through_ms, next.through_key) = (last.at_ms, last.dedupe_key.clone());
        }
        if is_last {
            next.state = "done".to_owned();
            next.ended_at_ms = Some(now_ms);
        }
        let class = self.class.as_deref();
        let mut owed = Vec::new();
        for row in rows.into_iter().filter(|row| class.is_none_or(|class| row.class == class)) {
            next.found += 1;
            match row.whole {
                true => owed.push(self.delivery_of_row(row, now_ms)),
                false => next.left_out += 1,
            }
        }
        next.queued += i64::try_from(owed.len()).unwrap_or(i64::MAX);
        (next, owed)
    }

    /// Returns the delivery of a webhook from the archive.
    pub(super) fn delivery_of_webhook(&self, webhook: &Webhook, now_ms: i64) -> NewDelivery {
        NewDelivery {
            sink: self.sink.clone(),
            delivery_id: delivery_id(&webhook.key, Some(&self.id)),
            dedupe_key: webhook.key.clone(),
            replay_id: Some(self.id.clone()),
            account_sid: webhook.identity.account_sid.clone(),
            lane: webhook.ordering_key(),
            recorded_at_ms: now_ms,
            facts: String::new(),
        }
    }

    fn delivery_of_row(&self, row: ReplayedRow, now_ms: i64) -> NewDelivery {
        // The same key as of new events, so that a replayed one stays in order with them.
        let lane = match (&row.channel, &row.theirs) {
            (Some(channel), Some(theirs)) => {
                let contact = Address { channel: channel.clone(), number: theirs.clone() };
                contact_ordering_key(&row.account_sid, &contact)
            }
            _ => subject_ordering_key(&row.account_sid, &row.message_sid),
        };
        NewDelivery {
            sink: self.sink.clone(),
            delivery_id: delivery_id(&row.dedupe_key, Some(&self.id)),
            dedupe_key: row.dedupe_key,
            replay_id: Some(self.id.clone()),
            account_sid: row.account_sid,
            lane,
            recorded_at_ms: now_ms,
            facts: String::new(),
        }
    }
}
