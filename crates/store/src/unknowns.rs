//! Sends that are changed from outside of their attempts: those of which nobody knows, and what is learned of them: that Twilio has one, by its SID, or that it never had it. Each look
//! is one sidecar's: who raises `looks` has it, and only while nobody else has learned anything it may bring a message back to
//! `queued`. What a look has to find for that is the domain's to say.

use std::slice;

use sqlx::FromRow;

use super::sends::{OutboundMessage, OutboundMessages, send_columns};
use crate::api_keys::AuditEntry;
use crate::{
    database::{Bind, Database, Durability},
    error::StoreError,
};
use twilio_edge_domain::{address::Address, phone, sending::matching::Sought};

/// Whose text was taken out can be compared with nothing.
const LOOKED_FOR: &str = concat!(
    "SELECT ",
    send_columns!(),
    " FROM sends WHERE state = 'unknown' AND look_at_ms > 0 AND look_at_ms <= $1 AND form <> '' ORDER BY look_at_ms LIMIT $2"
);

const LOOK: &str = "
    UPDATE sends SET looks = looks + 1, look_at_ms = $3 WHERE id = $1 AND looks = $2 AND state = 'unknown'";

/// Whatever is believed of it: Twilio has it.
const LEARN: &str = "
    UPDATE sends SET state = 'sent', message_sid = $2, attempt_id = '', form = '', recipient = $3, code = '', reason = $4,
        changed_at_ms = $5, look_at_ms = 0
    WHERE id = $1 AND account_sid = $6 AND state <> 'sent'";

const REQUEUE: &str = "
    UPDATE sends SET state = 'queued', attempt_id = '', due_at_ms = $3, code = 'absent', reason = 'Twilio never had it',
        changed_at_ms = $3, look_at_ms = 0
    WHERE id = $1 AND looks = $2 AND state = 'unknown' AND form <> ''";

/// What nobody has begun to send.
const CANCEL: &str = "
    UPDATE sends SET state = 'canceled', form = '', fallback = '', fallback_to = '', recipient = $2, code = '', reason = '', changed_at_ms = $3
    WHERE id = $1 AND state = 'queued'";

/// What has ended without Twilio: there is nothing left to send or to learn.
const REMOVE: &str = "
    DELETE FROM sends WHERE id = $1 AND account_sid = $2 AND state IN ('refused', 'not_sent', 'canceled')";

const REMOVE_USES: &str = "DELETE FROM media_uses WHERE send_id = $1";

/// Others of one recipient whose outcome is not known either; `$4` at most.
const LIKE_IT: &str = "
    SELECT sender, form FROM sends WHERE state IN ('attempting', 'unknown') AND account_sid = $1 AND recipient = $2
        AND id <> $3 LIMIT $4";

/// Most of them that are compared: who has more is not told apart.
const MOST_LIKE: i64 = 100;

const OWNED: &str = "
    SELECT message_sid AS id FROM sends WHERE message_sid <> ''
        AND message_sid IN (SELECT value FROM json_each($1))";

const OWNED_BY_ARRAY: &str = "
    SELECT message_sid AS id FROM sends WHERE message_sid <> ''
        AND message_sid = ANY(ARRAY(SELECT json_array_elements_text($1::json)))";

const OPEN: &str = concat!(
    "SELECT ",
    send_columns!(),
    " FROM sends WHERE (state <> 'sent' OR fallback <> '') AND id IN (SELECT value FROM json_each($1))"
);

const OPEN_BY_ARRAY: &str = concat!(
    "SELECT ",
    send_columns!(),
    " FROM sends WHERE (state <> 'sent' OR fallback <> '') AND id = ANY(ARRAY(SELECT json_array_elements_text($1::json)))"
);

#[derive(Debug, FromRow)]
struct Like {
    sender: String,
    form: String,
}

fn is_same_sender(one: &str, other: &str) -> bool {
    match (Address::parse(one), Address::parse(other)) {
        (Some(one), Some(other)) => {
            one.channel == other.channel && phone::is_same(&one.number, &other.number)
        }
        _ => one == other,
    }
}

#[derive(Debug, FromRow)]
struct Named {
    id: String,
}

impl OutboundMessages {
    /// The contacts beside it, in the same database.
    pub fn contacts(&self) -> crate::contacts::Contacts {
        crate::contacts::Contacts::of(self.database.clone(), self.timeout)
    }

    /// Those that are to be looked for now.
    pub async fn looked_for(
        &self,
        most: i64,
        now_ms: i64,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let binds = [Bind::Whole(now_ms), Bind::Whole(most)];
        self.bounded(self.database.read_bound(LOOKED_FOR, &binds)).await
    }

    /// Begins a look, and says when the next one is; 0: never. False if another sidecar has it, or there is nothing to find out
    /// any more.
    pub async fn look(&self, send: &OutboundMessage, next_ms: i64) -> Result<bool, StoreError> {
        let binds = [Bind::Text(&send.id), Bind::Whole(send.looks), Bind::Whole(next_ms)];
        self.changed(LOOK, &binds).await.map(|rows| rows == 1)
    }

    /// Twilio has it, by this name; false if that was known.
    pub async fn learn(
        &self,
        send: &OutboundMessage,
        masked: &str,
        message_sid: &str,
        reason: &str,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&send.id),
            Bind::Text(message_sid),
            Bind::Text(masked),
            Bind::Text(reason),
            Bind::Whole(now_ms),
            Bind::Text(&send.account_sid),
        ];
        self.changed(LEARN, &binds).await.map(|rows| rows == 1)
    }

    /// Twilio never had it: it is due again. Only for who has its latest look, as long as nobody has learned anything.
    pub async fn requeue(&self, send: &OutboundMessage, now_ms: i64) -> Result<bool, StoreError> {
        let looks = send.looks.saturating_add(1);
        let binds = [Bind::Text(&send.id), Bind::Whole(looks), Bind::Whole(now_ms)];
        self.changed(REQUEUE, &binds).await.map(|rows| rows == 1)
    }

    /// Removes a message that has ended without Twilio; false if it has not.
    pub async fn remove(
        &self,
        send: &OutboundMessage,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            let binds = [Bind::Text(&send.id), Bind::Text(&send.account_sid)];
            if tx.execute_bound(REMOVE, &binds).await? == 0 {
                return Ok(false);
            }
            tx.execute_bound(REMOVE_USES, &[Bind::Text(&send.id)]).await?;
            let add_entry = self.database.statements().register.add_entry;
            tx.execute(add_entry, slice::from_ref(entry)).await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    /// It is not wanted any more; false if it is not waiting.
    pub async fn cancel(
        &self,
        send: &OutboundMessage,
        masked: &str,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let binds = [Bind::Text(&send.id), Bind::Text(masked), Bind::Whole(entry.at_ms)];
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            if tx.execute_bound(CANCEL, &binds).await? == 0 {
                return Ok(false);
            }
            let add_entry = self.database.statements().register.add_entry;
            tx.execute(add_entry, slice::from_ref(entry)).await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Whether another one that is on its way or unknown goes from the same sender to the same person, however their numbers
    /// are spelled, and says the same as far as anybody can tell.
    pub async fn has_like(
        &self,
        send: &OutboundMessage,
        sought: &Sought,
    ) -> Result<bool, StoreError> {
        for recipient in phone::spellings(&send.recipient) {
            let binds = [
                Bind::Text(&send.account_sid),
                Bind::Text(&recipient),
                Bind::Text(&send.id),
                Bind::Whole(MOST_LIKE),
            ];
            let found: Vec<Like> = self.bounded(self.database.read_bound(LIKE_IT, &binds)).await?;
            let is_like = |like: &Like| {
                let other = Sought::of(&like.form, 0, 0);
                let says_else = sought.body.is_some() && sought.body != other.body;
                is_same_sender(&like.sender, &send.sender) && !says_else
            };
            let is_full = i64::try_from(found.len()).is_ok_and(|found| found >= MOST_LIKE);
            if is_full || found.iter().any(is_like) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Which of Twilio's messages are known to be ones of these.
    pub async fn owned(&self, message_sids: &[&str]) -> Result<Vec<String>, StoreError> {
        let statement = match self.database {
            Database::Sqlite(_) => OWNED,
            Database::Postgres(_) => OWNED_BY_ARRAY,
        };
        let asked = serde_json::to_string(message_sids).unwrap_or_default();
        let found: Vec<Named> =
            self.bounded(self.database.read_bound(statement, &[Bind::Text(&asked)])).await?;
        Ok(found.into_iter().map(|named| named.id).collect())
    }

    /// Those of these that are not known to be sent, or may have something sent instead of them.
    pub async fn open_of(&self, ids: &[&str]) -> Result<Vec<OutboundMessage>, StoreError> {
        let statement = match self.database {
            Database::Sqlite(_) => OPEN,
            Database::Postgres(_) => OPEN_BY_ARRAY,
        };
        let asked = serde_json::to_string(ids).unwrap_or_default();
        self.bounded(self.database.read_bound(statement, &[Bind::Text(&asked)])).await
    }
}
