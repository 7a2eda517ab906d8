//! Outbound messages: evaluates every rule for a message, builds its row, queues it, and applies an operator's decision
//! about a message whose outcome is unknown. It adds no rule of its own and knows neither HTTP nor SQL.

use std::sync::Arc;

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
    },
    wakeup::Wakeup,
};
use twilio_edge_connectors::twilio::Twilio;
use twilio_edge_domain::{
    address::Address,
    check, contact,
    policy::Category,
    refusal::RefusalCode,
    sending::{
        errors::ErrorTable,
        fallback::FallbackPlan,
        rate_limit::priority,
        request::{Content, Request, Sender},
        rules::{Facts, Verdict, evaluate, media},
        statistics::{MessageEvent, hour_of},
    },
    template::locale::Locale,
    window::rfc3339,
};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{
    AuditEntry, CompletedRequest, MessageCount, OutboundMessage, OutboundMessages, StoreError,
};

/// Prefix of our message ids. Twilio's start with SM or MM.
pub const PREFIX: &str = "ms_";

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
        let request = self.with_template(request);
        let country = contact::country(&request.to.channel, &request.to.number);
        let routing = self.routes.current();
        let route =
            routing.of(&request.account_sid).sender(&request.to.channel, country.as_deref());
        let routes = routing.of(&request.account_sid);
        let fallback = request.fallback.or_else(|| routes.fallback().cloned());
        Request { sender: request.sender.or_else(|| route.cloned()), fallback, ..request }
    }

    fn with_template(&self, request: Request) -> Request {
        let catalogue = self.templates.of(&request.account_sid);
        let template = match &request.content {
            Content::Session { .. } => None,
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
        };
        let urls: &[String] = match &request.content {
            Content::Session { media, .. } => media,
            Content::Template { .. } | Content::Named { .. } => &[],
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
        let facts = Facts {
            has_credentials: self.twilio.has_credentials(&request.account_sid),
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

    /// Sets the period in which a message may be sent again after a failed delivery: its validity period, or the default.
    pub fn permit_repetitions(&self, message: &mut OutboundMessage) {
        let times = self.delivery_times;
        message.repeat_until_ms = match message.valid_until_ms {
            _ if times.repeat_after_ms == 0 => 0,
            0 => message.first_due_at_ms.saturating_add(times.repeat_for_ms),
            until_ms => until_ms,
        };
    }

    /// Builds the row of a message, in state `queued`. Nothing is stored. `send_at_ms` is in milliseconds since 1970.
    ///
    /// # Errors
    /// Returns an error if the system supplies no random bytes for the id.
    pub fn row(
        &self,
        request: &Request,
        created_by: &str,
        send_at_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<OutboundMessage, StoreError> {
        let plan = FallbackPlan::of(request);
        let wanted_ms = send_at_ms.unwrap_or(now_ms).max(now_ms);
        let (country, category) = (country(&request.to), request.category());
        let held_ms = self.held_until_ms(&request.account_sid, &country, category, wanted_ms);
        let due_at_ms = held_ms.unwrap_or(wanted_ms);
        let random = || {
            getrandom::u64()
                .map_err(|error| StoreError::Unavailable(format!("no random bytes: {error}")))
        };
        Ok(OutboundMessage {
            id: format!("{PREFIX}{:016x}{:016x}", random()?, random()?),
            account_sid: request.account_sid.clone(),
            channel: request.to.channel.clone(),
            recipient: request.to.number.clone(),
            sender: request.sender_name(),
            category: request.category().as_str().to_owned(),
            kind: match request.kind() {
                check::Kind::Session => "session".to_owned(),
                check::Kind::Template => "template".to_owned(),
            },
            priority: priority(request.category()),
            form: request.form(),
            segments: request.segments().and_then(|count| i64::try_from(count).ok()).unwrap_or(0),
            template: request.template_name(),
            country,
            state: "queued".to_owned(),
            due_at_ms,
            first_due_at_ms: due_at_ms,
            code: held_ms.map_or_else(String::new, |_| QUIET_HOURS.to_owned()),
            reason: held_ms.map_or_else(String::new, quiet_reason),
            metadata: request.options.metadata.to_json(),
            created_at_ms: now_ms,
            created_by: created_by.to_owned(),
            changed_at_ms: now_ms,
            fallback_to: plan.as_ref().map_or_else(String::new, |_| request.to.number.clone()),
            fallback: plan.map_or_else(String::new, |plan| plan.to_json()),
            ..OutboundMessage::default()
        })
    }

    /// Returns the end of the quiet hours that contain this time, in milliseconds since 1970.
    pub fn held_until_ms(
        &self,
        account_sid: &str,
        country: &str,
        category: Category,
        at_ms: i64,
    ) -> Option<i64> {
        let country = Some(country).filter(|country| !country.is_empty());
        let routing = self.routes.current();
        routing.of(account_sid).quiet_hours().held_until_ms(country, category, at_ms)
    }

    /// Counts a request that a rule refused. A sender that the account does not have is not counted by its name, because
    /// callers could name any number of them.
    pub fn count_refusal(&self, request: &Request, code: RefusalCode, now_ms: i64) {
        let is_named = request.template.is_some();
        self.messages.count_refusal(MessageCount {
            account_sid: request.account_sid.clone(),
            hour_ms: hour_of(now_ms),
            event: MessageEvent::Refused,
            channel: request.to.channel.clone(),
            sender: match code {
                RefusalCode::NoCredentials | RefusalCode::SenderUnknown => String::new(),
                _ => request.sender_name(),
            },
            template: if is_named { request.template_name() } else { String::new() },
            country: country(&request.to),
            code: code.as_str().to_owned(),
        });
    }

    /// Queues messages durably, with the response for repetitions of the request, and wakes the dispatcher.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn add_all(
        &self,
        messages: &[OutboundMessage],
        done: Option<&CompletedRequest>,
    ) -> Result<(), StoreError> {
        self.messages.add_all(messages, done).await?;
        self.wakeup.wake();
        Ok(())
    }
}

/// Returns the reason why a message waits until the end of the quiet hours.
pub fn quiet_reason(until_ms: i64) -> String {
    let until = rfc3339(until_ms).unwrap_or_default();
    format!(
        "the recipient's country has quiet hours for this category; the message waits until {until}"
    )
}

/// Returns the country of a recipient; empty if it is unknown.
fn country(to: &Address) -> String {
    contact::country(&to.channel, &to.number).unwrap_or_default()
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

/// Ends a new message as `refused` if a rule forbids it, so that callers can see the reason.
pub fn refuse(message: &mut OutboundMessage, verdicts: &[Verdict]) {
    let refusal = verdicts.iter().find_map(|verdict| Some((verdict.code?, &verdict.detail)));
    let Some((code, detail)) = refusal else { return };
    message.recipient = masked(message);
    (message.state, message.code) = ("refused".to_owned(), code.as_str().to_owned());
    message.reason.clone_from(detail);
    (message.form, message.fallback, message.fallback_to) = Default::default();
    message.repeat_until_ms = 0;
}

/// Returns the recipient in the masked form that is shown after the message has ended.
pub fn masked(message: &OutboundMessage) -> String {
    if message.recipient.contains("..") {
        return message.recipient.clone();
    }
    Address { channel: message.channel.clone(), number: message.recipient.clone() }.to_string()
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
