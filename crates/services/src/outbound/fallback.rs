//! Fallbacks: messages that are sent instead of a message that its channel refused. A fallback is a message of its own,
//! for which every rule is evaluated again. It is stored in the same transaction that ends the first message, so that
//! it is sent once. The table of error codes decides which codes cause a fallback; the domain decides what is sent.

use crate::outbound::sending::{Sending, masked};
use twilio_edge_domain::{
    address::Address,
    check::Kind,
    policy::Category,
    sending::{
        errors::FallbackTarget,
        fallback::{FailedMessage, FallbackPlan},
        request::Request,
        rules::Verdict,
    },
};
use twilio_edge_store::{OutboundMessage, StoreError};

/// All kinds of fallback, in order of preference.
const EVERY: [FallbackTarget; 2] = [FallbackTarget::Template, FallbackTarget::Channel];

/// One possible fallback, with the verdict of every rule.
#[derive(Debug, Clone)]
pub struct Alternative {
    /// Kind of fallback.
    pub to: FallbackTarget,
    /// Message that would be sent.
    pub request: Request,
    /// Verdicts of the rules.
    pub verdicts: Vec<Verdict>,
}

/// Fallback that is sent instead of another message.
#[derive(Debug, Clone)]
pub struct Switched {
    /// Kind of fallback.
    pub to: FallbackTarget,
    /// Row of the fallback.
    pub send: OutboundMessage,
}

/// Status of one of our messages, as Twilio reports it.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Our id of the message, from the signed URL.
    pub id: &'a str,
    /// Account of the message.
    pub account_sid: &'a str,
    /// Twilio's id of the message.
    pub message_sid: &'a str,
    /// `sent`, `delivered`, `failed`, ..
    pub status: &'a str,
    /// Twilio's error code; empty if there is none.
    pub code: &'a str,
}

impl Told<'_> {
    /// Returns whether the message failed for good.
    pub fn is_failure(&self) -> bool {
        matches!(self.status, "failed" | "undelivered")
    }

    fn is_arrival(&self) -> bool {
        matches!(self.status, "delivered" | "read")
    }
}

impl Alternative {
    /// Returns whether every rule permits it.
    pub fn is_allowed(&self) -> bool {
        self.verdicts.iter().all(|said| said.ok)
    }
}

impl Sending {
    /// Lists the possible fallbacks of a message, in order of preference.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn alternatives(
        &self,
        request: &Request,
        now_ms: i64,
    ) -> Result<Vec<Alternative>, StoreError> {
        let Some(kept) = FallbackPlan::of(request) else { return Ok(Vec::new()) };
        let sender = request.sender_name();
        let failed = FailedMessage {
            account_sid: &request.account_sid,
            to: &request.to,
            sender: &sender,
            kind: request.kind(),
            category: Some(request.category()),
        };
        self.judged(&kept, failed, &EVERY, now_ms).await
    }

    async fn judged(
        &self,
        kept: &FallbackPlan,
        failed: FailedMessage<'_>,
        order: &[FallbackTarget],
        now_ms: i64,
    ) -> Result<Vec<Alternative>, StoreError> {
        let mut found = Vec::new();
        for way in order {
            let Some((to, request)) = kept.next_request(failed, &[*way]) else { continue };
            let request = self.completed(request);
            let verdicts = self.evaluate(&request, now_ms).await?;
            found.push(Alternative { to, request, verdicts });
        }
        Ok(found)
    }

    /// Builds the fallback of a message that ended with this code: the first that every rule permits. If none is
    /// permitted, returns the first in state `refused`, so that callers can see the reason. Returns `None` if the code
    /// or the message has no fallback.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn instead(
        &self,
        send: &OutboundMessage,
        code: &str,
        now_ms: i64,
    ) -> Result<Option<Switched>, StoreError> {
        let order = self.errors.fallback_targets(code);
        let Some(kept) = FallbackPlan::read(&send.fallback).filter(|_| !order.is_empty()) else {
            return Ok(None);
        };
        let to = Address { channel: send.channel.clone(), number: send.fallback_to.clone() };
        let failed = FailedMessage {
            account_sid: &send.account_sid,
            to: &to,
            sender: &send.sender,
            kind: if send.kind == "template" { Kind::Template } else { Kind::Session },
            category: Category::ALL.into_iter().find(|one| one.as_str() == send.category),
        };
        let ways = self.judged(&kept, failed, order, now_ms).await?;
        let chosen = ways.iter().find(|way| way.is_allowed()).or(ways.first());
        let Some(Alternative { to, request, verdicts }) = chosen else { return Ok(None) };
        let mut row = self.row(request, &send.created_by, None, now_ms)?;
        row.fallback_of = send.id.clone();
        let against = verdicts.iter().find_map(|said| Some((said.code?, &said.detail)));
        if let Some((code, detail)) = against {
            row.recipient = masked(&row);
            (row.state, row.code) = ("refused".to_owned(), code.as_str().to_owned());
            row.reason.clone_from(detail);
            (row.form, row.fallback, row.fallback_to) = Default::default();
        }
        Ok(Some(Switched { to: *to, send: row }))
    }

    /// Applies statuses that Twilio reported. A message with a status was sent, whatever state it had; a failed one may
    /// cause a fallback. Returns the number of messages that were not known to be sent.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn heard(&self, told: &[Told<'_>], now_ms: i64) -> Result<u64, StoreError> {
        let ids: Vec<&str> = told.iter().map(|told| told.id).collect();
        let mut learned = 0;
        for send in self.sends.pending_by_ids(&ids).await? {
            let theirs =
                |told: &&Told<'_>| told.id == send.id && told.account_sid == send.account_sid;
            let of_it: Vec<&Told<'_>> = told.iter().filter(theirs).collect();
            let Some(any) = of_it.first() else { continue };
            if send.state != "sent" {
                let reason = "its status was told";
                let is_new = self
                    .sends
                    .mark_sent(&send, &masked(&send), any.message_sid, reason, now_ms)
                    .await?;
                learned += u64::from(is_new);
            }
            if send.fallback.is_empty() {
                continue;
            }
            if let Some(failure) = of_it.iter().find(|told| told.is_failure()) {
                self.failed(&send, failure.code, now_ms).await?;
            } else if of_it.iter().any(|told| told.is_arrival()) {
                self.sends.discard_fallback(&send.id).await?;
            }
        }
        Ok(learned)
    }

    async fn failed(
        &self,
        send: &OutboundMessage,
        code: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let Some(switched) = self.instead(send, code, now_ms).await? else {
            return self.sends.discard_fallback(&send.id).await;
        };
        let why = (code, "it failed at Twilio, and another message is sent instead");
        if self.sends.replace_with_fallback(send, why, &switched.send, now_ms).await? {
            self.tell(send, code, &switched);
        }
        Ok(())
    }

    /// Counts and logs a fallback, and wakes the dispatcher.
    pub fn tell(&self, send: &OutboundMessage, code: &str, switched: &Switched) {
        self.metrics.sends.switched(switched.to);
        self.wakeup.wake();
        tracing::info!(event = "send.switched", send.id = %send.id, account.sid = %send.account_sid, code, to = switched.to.as_str(), instead = %switched.send.id, state = %switched.send.state, "the sidecar replaced a message that its channel did not accept");
    }
}
