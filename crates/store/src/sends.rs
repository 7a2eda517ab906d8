//! What is to be sent, as the database has it. An attempt is committed, with a name of its own, before Twilio is called, and
//! only who has that name writes down how it ended. An attempt whose hold is over without that is `unknown`: nothing here
//! brings it back to `queued`, because nobody knows whether the message has left (`unknowns.rs` finds out). What is due is taken
//! in `lanes.rs`. What Twilio's answers mean is not known here.

use std::{future::Future, slice, time::Duration};
use twilio_edge_domain::sending::backlog::SendsStanding;

use sqlx::FromRow;

use super::{idempotency::Done, writes::Writes};
use crate::api_keys::AuditEntry;
use crate::{
    database::{Bind, Database, Durability},
    error::StoreError,
};
use twilio_edge_platform::config;

/// What one of them is shown by.
macro_rules! send_columns {
    () => {
        "id, account_sid, channel, recipient, sender, category, kind, form, state, due_at_ms, wanted_at_ms, attempt_id, tries, \
         message_sid, code, reason, created_at_ms, created_by, changed_at_ms, attempted_at_ms, looks, request_id, fallback, \
         fallback_to, fallback_of, twilio_status"
    };
}
pub(super) use send_columns;

pub(super) const ADD: &str = "
    INSERT INTO sends (id, account_sid, channel, recipient, sender, category, kind, priority, form, state, due_at_ms,
        wanted_at_ms, attempt_id, tries, message_sid, code, reason, created_at_ms, created_by, changed_at_ms, fallback,
        fallback_to, fallback_of)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $13, $10, $10, '', 0, '', $14, $15, $11, $12, $11, $16, $17, $18)
    ON CONFLICT (fallback_of) WHERE fallback_of <> '' DO NOTHING";

/// Nothing has left: it is tried again, unless what it says was taken out meanwhile.
const AGAIN: &str = "
    UPDATE sends SET state = CASE WHEN form = '' THEN 'refused' ELSE 'queued' END, attempt_id = '', due_at_ms = $3,
        code = CASE WHEN form = '' THEN 'erased' ELSE $4 END, reason = $5, changed_at_ms = $6, request_id = $7
    WHERE id = $1 AND attempt_id = $2 AND state = 'attempting'";

/// An answer that comes after the hold is as good as one before.
const END: &str = "
    UPDATE sends SET state = $3, message_sid = $4, code = $5, reason = $6, changed_at_ms = $7,
        request_id = $9, twilio_status = $10, looks = 0, look_at_ms = CASE WHEN $3 = 'unknown' THEN $7 ELSE 0 END,
        form = CASE WHEN $3 = 'unknown' THEN form ELSE '' END,
        fallback = CASE WHEN $3 = 'refused' THEN '' ELSE fallback END,
        fallback_to = CASE WHEN $3 = 'refused' THEN '' ELSE fallback_to END,
        recipient = CASE WHEN $3 = 'unknown' THEN recipient ELSE $8 END
    WHERE id = $1 AND attempt_id = $2 AND state IN ('attempting', 'unknown')";

const RESOLVE: &str = "
    UPDATE sends SET state = $2, message_sid = $3, attempt_id = '', form = '', recipient = $4, code = '',
        reason = 'decided by an operator', changed_at_ms = $5, look_at_ms = 0,
        fallback = CASE WHEN $2 = 'sent' THEN fallback ELSE '' END,
        fallback_to = CASE WHEN $2 = 'sent' THEN fallback_to ELSE '' END
    WHERE id = $1 AND state = 'unknown'";

const FETCH: &str = concat!("SELECT ", send_columns!(), " FROM sends WHERE id = $1");

const LIST: &str = concat!(
    "SELECT ",
    send_columns!(),
    " FROM sends WHERE ($1 = '' OR state = $1) ORDER BY created_at_ms DESC, id DESC LIMIT $2"
);

/// How many there are of which nobody knows, and since when the oldest waits that should have been sent by now: also what is
/// tried again in a moment (ten minutes at most, so that an index finds it).
const STANDING: &str = "
    SELECT (SELECT count(*) FROM sends WHERE state = 'unknown') AS unknowns,
        (SELECT coalesce(min(wanted_at_ms), 0) FROM sends
            WHERE state = 'queued' AND due_at_ms <= $1 + 600000 AND wanted_at_ms <= $1) AS oldest_due_ms";

/// A message that is to be sent, and how far it is. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct OutboundMessage {
    /// Ours.
    pub id: String,
    /// Whose.
    pub account_sid: String,
    /// On which it goes.
    pub channel: String,
    /// To whom; masked once it has ended.
    pub recipient: String,
    /// Our number, or the Messaging Service.
    pub sender: String,
    /// What it is for.
    pub category: String,
    /// `session` or `template`.
    pub kind: String,
    /// What Twilio is told, as a form; empty once it has ended.
    pub form: String,
    /// `queued`, `attempting`, `sent`, `refused`, `unknown`, `not_sent`, `canceled`.
    pub state: String,
    /// When it is to be sent; of an attempt, when its hold ends.
    pub due_at_ms: i64,
    /// When it was first to be sent.
    pub wanted_at_ms: i64,
    /// Who has it.
    pub attempt_id: String,
    /// Attempts so far.
    pub tries: i64,
    /// Twilio's name of it; empty until that is known.
    pub message_sid: String,
    /// Why it was not sent, or not yet.
    pub code: String,
    /// The same in words.
    pub reason: String,
    /// When it was asked for.
    pub created_at_ms: i64,
    /// By whom.
    pub created_by: String,
    /// When that was last changed.
    pub changed_at_ms: i64,
    /// When its last attempt began; 0 if there was none.
    pub attempted_at_ms: i64,
    /// How often it was looked for in Twilio's list, since nobody knows.
    pub looks: i64,
    /// Twilio's name of the last call, for its support; empty if it answered none.
    pub request_id: String,
    /// What is sent instead if it fails, as `domain/sending/fallback.rs` reads it; empty if there is nothing, or any more.
    pub fallback: String,
    /// To whose number, as long as there is.
    pub fallback_to: String,
    /// Instead of which message of ours it is; empty if of none.
    pub fallback_of: String,
    /// HTTP status with which Twilio refused it; 0 where Twilio did not.
    pub twilio_status: i64,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// `sent`, `refused` or `unknown`.
    pub state: &'a str,
    /// Twilio's name of it, if it is sent.
    pub message_sid: &'a str,
    /// Why it was not.
    pub code: &'a str,
    /// The same in words.
    pub reason: &'a str,
    /// Twilio's name of the call; empty if it answered none.
    pub request_id: &'a str,
    /// HTTP status of Twilio's refusal; 0 where Twilio did not refuse it.
    pub twilio_status: i64,
}

/// The messages to be sent of one database.
#[derive(Clone)]
pub struct OutboundMessages {
    pub(super) database: Database,
    pub(super) timeout: Duration,
    pub(super) writes: Writes,
}

impl OutboundMessage {
    /// The values of [`ADD`].
    pub(super) fn added(&self, priority: i64) -> [Bind<'_>; 18] {
        [
            Bind::Text(&self.id),
            Bind::Text(&self.account_sid),
            Bind::Text(&self.channel),
            Bind::Text(&self.recipient),
            Bind::Text(&self.sender),
            Bind::Text(&self.category),
            Bind::Text(&self.kind),
            Bind::Whole(priority),
            Bind::Text(&self.form),
            Bind::Whole(self.due_at_ms),
            Bind::Whole(self.created_at_ms),
            Bind::Text(&self.created_by),
            Bind::Text(&self.state),
            Bind::Text(&self.code),
            Bind::Text(&self.reason),
            Bind::Text(&self.fallback),
            Bind::Text(&self.fallback_to),
            Bind::Text(&self.fallback_of),
        ]
    }
}

impl OutboundMessages {
    pub(super) fn of(database: Database, timeout: Duration) -> OutboundMessages {
        let writes = Writes::start(database.clone(), timeout);
        OutboundMessages { database, timeout, writes }
    }

    /// Reaches it for a command, beside the sidecar that may have it open.
    pub async fn open(settings: &config::Database) -> Result<OutboundMessages, StoreError> {
        let timeout = Duration::from_millis(settings.connect_timeout_ms);
        Ok(OutboundMessages::of(Database::open_beside(settings).await?, timeout))
    }

    /// Ends its connections. Only for one that was opened by [`OutboundMessages::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// The database, if sidecars share it.
    pub(super) fn shared(&self) -> Option<OutboundMessages> {
        match self.database {
            Database::Sqlite(_) => None,
            Database::Postgres(_) => Some(self.clone()),
        }
    }

    /// Takes a message on, and with it the answer to copies of its request: both, or neither.
    pub async fn add(
        &self,
        send: &OutboundMessage,
        priority: i64,
        done: Option<&Done>,
    ) -> Result<(), StoreError> {
        self.writes.add(send, priority, done).await
    }

    /// Nothing has left: it is due again at that time, for that reason.
    pub async fn again(
        &self,
        send: &OutboundMessage,
        due_at_ms: i64,
        (code, reason): (&str, &str),
        request_id: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let binds = [
            Bind::Text(&send.id),
            Bind::Text(&send.attempt_id),
            Bind::Whole(due_at_ms),
            Bind::Text(code),
            Bind::Text(reason),
            Bind::Whole(now_ms),
            Bind::Text(request_id),
        ];
        self.changed(AGAIN, &binds).await.map(|_| ())
    }

    /// Writes down how an attempt ended, and with it what is sent `instead` and how soon: both, or neither. False if somebody
    /// else has decided about it.
    pub async fn end(
        &self,
        send: &OutboundMessage,
        masked: &str,
        outcome: &Outcome<'_>,
        instead: Option<(&OutboundMessage, i64)>,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&send.id),
            Bind::Text(&send.attempt_id),
            Bind::Text(outcome.state),
            Bind::Text(outcome.message_sid),
            Bind::Text(outcome.code),
            Bind::Text(outcome.reason),
            Bind::Whole(now_ms),
            Bind::Text(masked),
            Bind::Text(outcome.request_id),
            Bind::Whole(outcome.twilio_status),
        ];
        let ended = self.writes.change_with(END, &binds, instead);
        ended.await.map(|rows| rows == 1)
    }

    /// Decides about one of which nobody knows; false if it is no such one.
    pub async fn resolve(
        &self,
        send: &OutboundMessage,
        masked: &str,
        message_sid: Option<&str>,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let state = if message_sid.is_some() { "sent" } else { "not_sent" };
        let binds = [
            Bind::Text(&send.id),
            Bind::Text(state),
            Bind::Text(message_sid.unwrap_or_default()),
            Bind::Text(masked),
            Bind::Whole(entry.at_ms),
        ];
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            if tx.execute_bound(RESOLVE, &binds).await? == 0 {
                return Ok(false);
            }
            let add_entry = self.database.statements().register.add_entry;
            tx.execute(add_entry, slice::from_ref(entry)).await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    /// One of them, if it is of this account or that does not matter.
    pub async fn fetch(
        &self,
        id: &str,
        account_sid: Option<&str>,
    ) -> Result<Option<OutboundMessage>, StoreError> {
        let found: Vec<OutboundMessage> =
            self.bounded(self.database.read_bound(FETCH, &[Bind::Text(id)])).await?;
        let is_theirs =
            |send: &OutboundMessage| account_sid.is_none_or(|sid| sid == send.account_sid);
        Ok(found.into_iter().find(is_theirs))
    }

    /// The latest of them, in this state or any.
    pub async fn list(
        &self,
        state: Option<&str>,
        most: u32,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let binds = [Bind::Text(state.unwrap_or_default()), Bind::Whole(most.into())];
        self.bounded(self.database.read_bound(LIST, &binds)).await
    }

    /// How it stands now.
    pub async fn standing(&self, now_ms: i64) -> Result<SendsStanding, StoreError> {
        let found: Vec<(i64, i64)> =
            self.bounded(self.database.read_bound(STANDING, &[Bind::Whole(now_ms)])).await?;
        let (unknowns, oldest_due_ms) = found.into_iter().next().unwrap_or_default();
        Ok(SendsStanding { unknowns, oldest_due_ms })
    }

    /// Changes one of them, whose id is the first of these; how many it were.
    pub(super) async fn changed(
        &self,
        statement: &'static str,
        binds: &[Bind<'_>],
    ) -> Result<u64, StoreError> {
        self.writes.change(statement, binds).await
    }

    /// Changes whatever the statement is about; how many these were.
    pub(super) async fn changed_all(
        &self,
        statement: &'static str,
        binds: &[Bind<'_>],
    ) -> Result<u64, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            let rows = tx.execute_bound(statement, binds).await?;
            tx.commit().await?;
            Ok(rows)
        })
        .await
    }

    pub(super) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.timeout))),
        }
    }
}
