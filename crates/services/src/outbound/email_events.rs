//! Events of SendGrid about e-mails: proves that SendGrid signed them, suppresses recipients who left, and applies the statuses
//! of messages. Everything is durable before SendGrid gets an answer, so that SendGrid repeats what was not stored. The domain
//! decides what an event means.

use std::{collections::BTreeMap, sync::Arc};

use twilio_edge_contract::Opt;

use crate::outbound::{deliveries::StatusReport, sending::Sending};
use twilio_edge_domain::{
    address::Address,
    email::{
        CHANNEL,
        error_code::EmailErrorCode,
        event::{EmailEvent, EventEffect, read_events},
        signature::SignatureProblem,
    },
    optout::Arrival,
    suppression::{OptEvent, Source},
};
use twilio_edge_platform::metrics::{EventPost, Metrics};
use twilio_edge_store::{OutboundMessage, ReceivedOpt, StoreError, Stores};

/// Path at which SendGrid posts events, without the account.
pub const ROUTE: &str = "/email/events";

/// Events that are applied in one batch.
const BATCH: usize = 256;

/// Reason why a post of events is refused.
#[derive(Debug)]
pub enum EventRefusal {
    /// The account has no verification key.
    NoKey,
    /// The signature does not prove that SendGrid sent the events.
    Signature(SignatureProblem),
    /// The body is signed, but it is no list of events.
    Malformed(&'static str),
    /// A store failed.
    Store(StoreError),
}

/// Post of events as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct EventsPost<'a> {
    /// Account in the path.
    pub account_sid: &'a str,
    /// Header with the signature.
    pub signature: &'a str,
    /// Header with the time of signing.
    pub timestamp: &'a str,
    /// Body, byte for byte.
    pub body: &'a [u8],
}

/// Receiver of events.
#[derive(Clone)]
pub struct EmailEvents {
    sending: Sending,
    stores: Stores,
    metrics: Arc<Metrics>,
}

impl EmailEvents {
    /// Creates the receiver.
    pub fn new(sending: Sending, stores: Stores, metrics: Arc<Metrics>) -> EmailEvents {
        EmailEvents { sending, stores, metrics }
    }

    /// Verifies and applies a post of events. Returns their number.
    ///
    /// # Errors
    /// Returns the reason why the post is refused. Then SendGrid repeats it.
    pub async fn receive(&self, post: EventsPost<'_>, now_ms: i64) -> Result<usize, EventRefusal> {
        let received = self.verify_and_apply(post, now_ms).await;
        self.metrics.emails.posted(match &received {
            Ok(_) => EventPost::Accepted,
            Err(EventRefusal::NoKey) => EventPost::NoKey,
            Err(EventRefusal::Signature(_)) => EventPost::Forged,
            Err(EventRefusal::Malformed(_)) => EventPost::Malformed,
            Err(EventRefusal::Store(_)) => EventPost::Failed,
        });
        received
    }

    async fn verify_and_apply(
        &self,
        post: EventsPost<'_>,
        now_ms: i64,
    ) -> Result<usize, EventRefusal> {
        let key = self.sending.emails.event_key(post.account_sid).ok_or(EventRefusal::NoKey)?;
        key.verify(post.signature, post.timestamp, post.body, now_ms)
            .map_err(EventRefusal::Signature)?;
        let events = read_events(post.body).map_err(EventRefusal::Malformed)?;
        for batch in events.chunks(BATCH) {
            // A recipient who left is suppressed first: an interruption then loses no opt-out.
            self.suppress(post.account_sid, batch, now_ms).await.map_err(EventRefusal::Store)?;
            self.apply(post.account_sid, batch, now_ms).await.map_err(EventRefusal::Store)?;
        }
        for event in &events {
            self.metrics.emails.event(event.kind);
        }
        Ok(events.len())
    }

    /// Suppresses the recipients of events that mean it. Each event has an effect once.
    async fn suppress(
        &self,
        account_sid: &str,
        events: &[EmailEvent],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let opts: Vec<(&EmailEvent, ReceivedOpt)> =
            events.iter().filter_map(|event| Some((event, opt_out(account_sid, event)?))).collect();
        if opts.is_empty() {
            return Ok(());
        }
        let (events, opts): (Vec<&EmailEvent>, Vec<ReceivedOpt>) = opts.into_iter().unzip();
        let codes: Vec<String> = opts.iter().map(|opt| opt.event.error_code.clone()).collect();
        let effects = self.stores.record_opts(opts, now_ms).await?;
        for ((event, effect), code) in events.into_iter().zip(effects).zip(codes) {
            if effect.has_changed {
                self.metrics.webhooks.suppression_changed(true, Source::Callback);
                let recipient = event.recipient.as_ref().map(ToString::to_string);
                tracing::info!(
                    event = "suppression.changed",
                    message.id = event.message_id,
                    account.sid = account_sid,
                    address = recipient,
                    code,
                    "the sidecar recorded a suppression"
                );
            }
        }
        Ok(())
    }

    /// Applies the statuses of messages of the account.
    async fn apply(
        &self,
        account_sid: &str,
        events: &[EmailEvent],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let ids: Vec<&str> =
            events.iter().filter_map(|event| event.message_id.as_deref()).collect();
        let rows = self.sending.messages.by_ids(&ids).await?;
        let is_own =
            |row: &&OutboundMessage| row.account_sid == account_sid && row.channel == CHANNEL;
        let rows: BTreeMap<&str, &OutboundMessage> =
            rows.iter().filter(is_own).map(|row| (row.id.as_str(), row)).collect();
        let reports: Vec<StatusReport<'_>> = events
            .iter()
            .filter_map(|event| {
                let row = rows.get(event.message_id.as_deref()?)?;
                let EventEffect { status, code } = event.effect();
                // The header of SendGrid's answer is authoritative; events have the same id with an appendix.
                let provider_id = Some(row.message_sid.as_str()).filter(|id| !id.is_empty());
                Some(StatusReport {
                    id: Some(&row.id),
                    account_sid: &row.account_sid,
                    message_sid: provider_id.or(event.provider_id.as_deref())?,
                    status: status?.as_str(),
                    code: code.map_or("", EmailErrorCode::as_str),
                    recipient: event.recipient.as_ref().map_or("", |address| address.as_str()),
                })
            })
            .collect();
        let learned = self.sending.apply_statuses(&reports, now_ms).await?;
        self.sending.metrics.messages.reconciled("callback", learned);
        for report in &reports {
            self.sending.outcome_waiters.notify(report.id.unwrap_or_default());
        }
        Ok(())
    }
}

/// Returns the opt-out that an event means, if it means one.
fn opt_out(account_sid: &str, event: &EmailEvent) -> Option<ReceivedOpt> {
    let code = event.effect().code.filter(|code| code.suppresses())?;
    let number = event.recipient.as_ref()?.as_str().to_owned();
    let event = OptEvent {
        opt: Opt::Stop,
        source: Source::Callback,
        arrival: Arrival::OnTime,
        account_sid: account_sid.to_owned(),
        message_sid: event.id.clone(),
        address: Address { channel: CHANNEL.to_owned(), number },
        error_code: code.as_str().to_owned(),
        route: ROUTE.to_owned(),
        sender: String::new(),
        service_sid: None,
    };
    Some(ReceivedOpt { event, reply: None })
}
