//! Outbound messages: evaluates every rule for a message, builds its row, queues it, and applies an operator's decision
//! about a message whose outcome is unknown. It adds no rule of its own and knows neither HTTP nor SQL.

mod rows;

use std::sync::Arc;

pub use self::rows::{masked, quiet_reason, refuse};
use serde_json::{Value, json};
use toml::Table;

use crate::{
    access::{
        api_keys::Caller,
        permissions::{Checks, Intent},
    },
    outbound::{
        deliveries::DeliveryTimes, media::Media, outcome_waiters::OutcomeWaiters,
        routing_file::Routes, status_queue::StatusQueue, templates::Templates,
        verification_starts::Verifications,
    },
    wakeup::Wakeup,
};
use twilio_edge_connectors::{
    email::EmailAccounts,
    send_client::SendClients,
    twilio::{Studio, Twilio},
};
use twilio_edge_domain::{
    contact,
    refusal::RefusalCode,
    sending::{
        errors::ErrorTable,
        provider::Provider,
        request::{Content, Request, Sender},
        rules::{Facts, Verdict, evaluate, media},
    },
    template::locale::Locale,
};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{
    AuditEntry, CompletedRequest, OutboundMessage, OutboundMessages, StoreError,
};

/// Prefix of our message ids. Twilio's start with SM or MM.
pub const PREFIX: &str = "ms_";

/// Prefix of our notification ids. The digits are those of the notification's first message.
pub const NOTIFICATION_PREFIX: &str = "nt_";

/// Code of a message that waits for the end of quiet hours.
pub const QUIET_HOURS: &str = "quiet_hours";

/// Accepts outbound messages.
#[derive(Clone)]
pub struct Sending {
    /// Store of outbound messages.
    pub messages: OutboundMessages,
    /// Checks of suppressions, consents and conversation windows.
    pub checks: Checks,
    /// Client of Twilio, with the credentials of the accounts.
    pub twilio: Twilio,
    /// Clients of the providers that take messages.
    pub clients: SendClients,
    /// Client of Twilio Studio.
    pub studio: Studio,
    /// Accounts that send e-mails, with their providers and senders.
    pub emails: EmailAccounts,
    /// Verification of numbers.
    pub verifications: Verifications,
    /// Wakes the dispatcher.
    pub wakeup: Wakeup,
    /// Meaning of Twilio's error codes.
    pub errors: Arc<ErrorTable>,
    /// Routes that supply a sender and a fallback where the request names none.
    pub routes: Routes,
    /// Catalogue of templates.
    pub templates: Templates,
    /// Requests that wait for the outcome of a message.
    pub outcome_waiters: OutcomeWaiters,
    /// Checks whether Twilio can fetch the media of a message.
    pub media: Media,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Statuses that are applied in the background.
    pub status_queue: StatusQueue,
    /// Times of repetitions and lookups of sent messages.
    pub delivery_times: DeliveryTimes,
}

impl Sending {
    /// Completes a request: adds the sender and the fallback from the routes if the request names none, and the
    /// template from the catalogue.
    pub fn complete(&self, request: Request) -> Request {
        if matches!(request.content, Content::Email(_)) {
            return self.complete_email(request);
        }
        let request = self.with_template(request);
        let country = contact::country(&request.to.channel, &request.to.number);
        let routing = self.routes.current();
        let route =
            routing.of(&request.account_sid).sender(&request.to.channel, country.as_deref());
        let routes = routing.of(&request.account_sid);
        let fallback = request.fallback.map(|own| own.with_email_of(routes.fallback()));
        let fallback = fallback.or_else(|| routes.fallback().cloned());
        Request { sender: request.sender.or_else(|| route.cloned()), fallback, ..request }
    }

    fn with_template(&self, request: Request) -> Request {
        let catalogue = self.templates.of(&request.account_sid);
        let template = match &request.content {
            Content::Session { .. } | Content::Email(_) => None,
            Content::Template { content_sid, .. } => catalogue.of_sid(content_sid),
            Content::Named { name, .. } => {
                let default_locale = Locale::default_locale();
                let locale = request.locale.as_ref().unwrap_or(&default_locale);
                catalogue.named(name, locale, &request.to.channel)
            }
        };
        let Some(template) = template.cloned() else { return request };
        let content = match request.content {
            Content::Named { variables, .. } => {
                Content::Template { content_sid: template.content_sid.clone(), variables }
            }
            content => content,
        };
        Request { content, template: Some(template), ..request }
    }

    /// Evaluates every rule for a message. Its media are fetched only if every other rule permits the message, so that
    /// a refused message causes no outgoing calls.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn evaluate(
        &self,
        request: &Request,
        now_ms: i64,
    ) -> Result<Vec<Verdict>, StoreError> {
        let intent = Intent {
            account_sid: request.account_sid.clone(),
            from: match &request.sender {
                Some(Sender::From(from)) => Some(from.number.clone()),
                Some(Sender::Service(_)) | None => None,
            },
            to: request.to.clone(),
            category: request.category(),
            kind: request.kind(),
            reply: None,
            ignores_opt_outs: false,
        };
        let urls: &[String] = match &request.content {
            Content::Session { media, .. } => media,
            Content::Template { .. } | Content::Named { .. } | Content::Email(_) => &[],
        };
        let spelling = self.media.check_spelling(&request.to.channel, urls);
        let checks = self.checks.may_send(&intent, now_ms).await?;
        let is_closed =
            checks.iter().any(|verdict| verdict.code == Some(RefusalCode::WindowClosed));
        let offers = match is_closed {
            true => {
                let catalogue = self.templates.of(&request.account_sid);
                catalogue.offers(request.locale.as_ref(), &request.to.channel)
            }
            false => Vec::new(),
        };
        let routing = self.routes.current();
        let provider = self.provider(request);
        let facts = Facts {
            has_credentials: match provider {
                Some(Provider::Messaging) => self.twilio.has_credentials(&request.account_sid),
                provider => provider.is_some(),
            },
            has_email_templates: provider == Some(Provider::SendGrid),
            routes: routing.of(&request.account_sid),
            media: &spelling,
            checks,
            offers,
        };
        let mut verdicts = evaluate(request, facts);
        if !urls.is_empty() && verdicts.iter().all(|verdict| verdict.ok) {
            verdicts.pop();
            let checked = self.media.check(&request.account_sid, &request.to.channel, urls).await;
            verdicts.push(media(&checked));
        }
        Ok(verdicts)
    }

    /// Queues messages durably, with the response for repetitions of the request, and wakes the dispatcher. The audit log
    /// records messages of a session, because a person sends them; those of an application are too many for it.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn add_all(
        &self,
        by: &Caller,
        messages: &[OutboundMessage],
        done: Option<&CompletedRequest>,
    ) -> Result<(), StoreError> {
        let created = |message: &OutboundMessage| {
            let detail = json!({"channel": message.channel, "to": masked(message)});
            entry(by, message, "message.created", &detail, message.created_at_ms)
        };
        let entries = match &by.session {
            Some(_) => messages.iter().map(created).collect(),
            None => Vec::new(),
        };
        self.messages.add_all(messages, done, entries).await?;
        self.wakeup.wake();
        Ok(())
    }
}

/// Reads the table of Twilio's error codes, with the overrides of `file`. An empty name means no overrides. Returns
/// every problem of the file.
pub fn errors(file: &str) -> Result<ErrorTable, Vec<String>> {
    let over = match file {
        "" => Table::new(),
        file => {
            let text = std::fs::read_to_string(file).map_err(|error| vec![error.to_string()])?;
            twilio_edge_platform::config::parse(&text).map_err(|problem| vec![problem])?
        }
    };
    ErrorTable::of(over)
}

/// Cancels a message that is still queued. Returns false in any other state.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn cancel(
    messages: &OutboundMessages,
    by: &Caller,
    message: &OutboundMessage,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let entry = entry(by, message, "message.canceled", &json!({}), now_ms);
    messages.cancel(message, &masked(message), &entry).await
}

/// Deletes a message that ended without Twilio (`refused`, `not_sent` or `canceled`). Returns false in any other state.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn remove(
    messages: &OutboundMessages,
    by: &Caller,
    message: &OutboundMessage,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let entry = entry(by, message, "message.deleted", &json!({}), now_ms);
    messages.delete(message, &entry).await
}

/// Resolves a message whose outcome is unknown: it was sent as `message_sid`, or it was not sent. Returns false if its
/// outcome is not unknown.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn resolve(
    messages: &OutboundMessages,
    by: &Caller,
    message: &OutboundMessage,
    message_sid: Option<&str>,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let detail = json!({"sent": message_sid.is_some(), "message_sid": message_sid});
    let entry = entry(by, message, "message.resolved", &detail, now_ms);
    messages.resolve(message, &masked(message), message_sid, &entry).await
}

fn entry(
    by: &Caller,
    message: &OutboundMessage,
    action: &str,
    detail: &Value,
    now_ms: i64,
) -> AuditEntry {
    by.audit_entry(action, message.id.clone(), Some(message.account_sid.clone()), detail, now_ms)
}
