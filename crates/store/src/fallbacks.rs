//! What is sent instead of messages that have failed after Twilio had them: written once with what ends the wait for it, and
//! found by the message it is instead of. What that is, and when, is the domain's to say.

use super::sends::{OutboundMessage, OutboundMessages, send_columns};
use crate::{database::Bind, error::StoreError};

/// Only who takes the fallback away sends it.
const SWITCH: &str = "
    UPDATE sends SET code = $2, reason = $3, fallback = '', fallback_to = '', changed_at_ms = $4
    WHERE id = $1 AND state = 'sent' AND fallback <> ''";

const ARRIVED: &str = "
    UPDATE sends SET fallback = '', fallback_to = '' WHERE id = $1 AND state = 'sent' AND fallback <> ''";

/// What has an end of which nobody will tell any more.
const FORGET: &str = "
    UPDATE sends SET fallback = '', fallback_to = ''
    WHERE fallback <> '' AND state = 'sent' AND changed_at_ms < $1";

const INSTEAD_OF: &str =
    concat!("SELECT ", send_columns!(), " FROM sends WHERE fallback_of = $1 AND fallback_of <> ''");

impl OutboundMessages {
    /// It has failed with that code at Twilio, and `instead` is sent: both are written, or neither. False if somebody else has
    /// done so, or it is not wanted any more.
    pub async fn switch(
        &self,
        send: &OutboundMessage,
        (code, reason): (&str, &str),
        instead: (&OutboundMessage, i64),
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds =
            [Bind::Text(&send.id), Bind::Text(code), Bind::Text(reason), Bind::Whole(now_ms)];
        let switched = self.writes.change_with(SWITCH, &binds, Some(instead));
        switched.await.map(|rows| rows == 1)
    }

    /// It needs nothing instead any more.
    pub async fn arrived(&self, id: &str) -> Result<(), StoreError> {
        self.changed(ARRIVED, &[Bind::Text(id)]).await.map(|_| ())
    }

    /// Of what was sent before then nothing is kept to be sent instead; how many these were.
    pub async fn forget_fallbacks(&self, before_ms: i64) -> Result<u64, StoreError> {
        self.changed(FORGET, &[Bind::Whole(before_ms)]).await
    }

    /// What is sent instead of a message.
    pub async fn instead_of(&self, id: &str) -> Result<Option<OutboundMessage>, StoreError> {
        let found: Vec<OutboundMessage> =
            self.bounded(self.database.read_bound(INSTEAD_OF, &[Bind::Text(id)])).await?;
        Ok(found.into_iter().next())
    }
}
