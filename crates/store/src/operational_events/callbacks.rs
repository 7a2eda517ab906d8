//! Status callbacks of the sidecar's own, in the database. A callback is an event of its own with one delivery, to the built-in
//! sink, and is written in the transaction that ends its message. Its SID is derived from the id of the message: it is
//! stored among the replaced SIDs, so that a webhook with this SID is found as one about the message.

use super::Row;
use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
    outbox::NewDelivery,
};
use twilio_edge_domain::{
    address::Address,
    dropin::resource::provisional_sid,
    sending::status_callback::{EVENT_TYPE, SINK, StatusCallback, event_id},
    webhook::subject_ordering_key,
};

const ADD_SID: &str = "
    INSERT INTO replaced_sids (message_sid, message_id) VALUES ($1, $2) ON CONFLICT (message_sid) DO NOTHING";

/// Withdraws a callback that no attempt has sent.
const WITHDRAW: &str = "DELETE FROM deliveries WHERE sink = $1 AND delivery_id = $2 AND state = 'waiting' AND tries = 0";

const DELETE_EVENT: &str = "
    DELETE FROM operational_events WHERE event_id = $1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE dedupe_key = $1)";

/// Callback to store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewCallback {
    event_id: String,
    message_id: String,
    account_sid: String,
    contact: Option<Address>,
    data: String,
    due_at_ms: i64,
}

impl NewCallback {
    /// Builds the row of a callback about a message, which is sent at `due_at_ms`.
    pub(crate) fn of(
        message_id: &str,
        account_sid: &str,
        contact: Option<Address>,
        callback: &StatusCallback,
        due_at_ms: i64,
    ) -> NewCallback {
        NewCallback {
            event_id: event_id(message_id),
            message_id: message_id.to_owned(),
            account_sid: account_sid.to_owned(),
            contact,
            data: callback.to_json().to_string(),
            due_at_ms,
        }
    }

    pub(super) fn row(&self) -> Row<'_> {
        let contact = self.contact.as_ref();
        Row {
            event_id: &self.event_id,
            event_type: EVENT_TYPE,
            account_sid: &self.account_sid,
            channel: contact.map_or("", |contact| &contact.channel),
            contact: contact.map_or("", |contact| &contact.number),
            subject: &self.message_id,
            data: self.data.clone(),
            recorded_at_ms: self.due_at_ms,
        }
    }

    /// Returns the delivery. Each message has a lane of its own, so that no callback waits for the URL of another.
    pub(super) fn delivery(&self) -> NewDelivery {
        NewDelivery {
            sink: SINK.to_owned(),
            delivery_id: self.event_id.clone(),
            dedupe_key: self.event_id.clone(),
            replay_id: None,
            account_sid: self.account_sid.clone(),
            lane: subject_ordering_key(&self.account_sid, &self.message_id),
            recorded_at_ms: self.due_at_ms,
            facts: String::new(),
        }
    }
}

/// Records the SIDs of callbacks.
pub(super) async fn record_sids(
    tx: &mut Transaction,
    callbacks: &[NewCallback],
) -> Result<(), StoreError> {
    for callback in callbacks {
        let sid = provisional_sid(&callback.message_id);
        tx.execute_bound(ADD_SID, &[Bind::Text(&sid), Bind::Text(&callback.message_id)]).await?;
    }
    Ok(())
}

/// Withdraws the callbacks about these messages that no attempt has sent.
pub(crate) async fn withdraw(
    database: &Database,
    message_ids: &[String],
) -> Result<(), StoreError> {
    database
        .within_timeout(async {
            let mut tx = database.begin(Durability::Process).await?;
            for id in message_ids {
                let event_id = event_id(id);
                let of_delivery = [Bind::Text(SINK), Bind::Text(&event_id)];
                if tx.execute_bound(WITHDRAW, &of_delivery).await? > 0 {
                    tx.execute_bound(DELETE_EVENT, &[Bind::Text(&event_id)]).await?;
                }
            }
            tx.commit().await
        })
        .await
}
