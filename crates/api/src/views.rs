//! Views of stored data, shared by the API and the JSON output of the command line. Times are in RFC 3339 and UTC. The
//! views decide nothing and read no store.

mod flows;
mod media;
mod messages;
mod notifications;
mod refused_requests;
mod statistics;
mod verifications;

pub use self::flows::{FlowExecution, FlowExecutionLinks};
pub use self::media::{FetchError, InboundMediaItem};
pub use self::messages::{
    Message, MessageAttempts, MessageError, MessageLinks, MessageSummary, TimelineEntry,
    TimelineEvent,
};
pub use self::refused_requests::{ExplainedRequest, RefusalGroup, RefusedRequestSummary};

pub use self::notifications::{
    NotificationAttempt, NotificationLinks, NotificationState, NotificationView, RemainingStep,
};
pub use self::statistics::{StatisticsGroupView, StatisticsView};
pub use self::verifications::{VerificationLinks, VerificationView};

use serde::Serialize;
use utoipa::ToSchema;

use twilio_edge_contract::Opt;
use twilio_edge_domain::{
    consent::{Consent, State},
    cursor,
    message::{Direction, RecordedWebhook},
    policy::Category,
    sending::errors::ErrorTable,
    suppression::{Source, Suppression},
    window::{Window, rfc3339},
};
use twilio_edge_services::access::contact_history::ContactHistory;
use twilio_edge_store::OutboundMessage;

/// A webhook, with its receipt and its outcome.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventSummary {
    /// Id of the webhook in this API.
    pub id: String,
    /// SID of the account.
    pub account_sid: String,
    /// SID of the message.
    pub sid: String,
    /// Class: `inbound` for a received message, `status` for the status of a message.
    pub class: Class,
    /// Direction of the message.
    pub direction: Direction,
    /// Channel: `sms`, `whatsapp`, ..
    pub channel: Option<String>,
    /// Sender of the message; `null` if only the settlement was recorded.
    pub from: Option<String>,
    /// Recipient of the message.
    pub to: Option<String>,
    /// Twilio's status; `received` for a received message.
    pub status: String,
    /// Twilio's error code of a failure.
    pub error_code: Option<String>,
    /// Time of the first receipt.
    #[schema(format = DateTime)]
    pub received_at: Option<String>,
    /// Path of the route on which it arrived; `null` if only the settlement was recorded.
    pub route: Option<String>,
    /// Number of times it was forwarded to the backend.
    pub attempts: i64,
    /// Outcome at the backend: `accepted` or `refused`; `null` as long as there is none.
    pub backend: Option<String>,
    /// Time of the outcome.
    #[schema(format = DateTime)]
    pub settled_at: Option<String>,
    /// Time of the last redaction, by retention or on request.
    #[schema(format = DateTime)]
    pub redacted_at: Option<String>,
}

/// Class of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A received message.
    Inbound,
    /// The status of a message, outbound or inbound.
    Status,
}

/// One parameter of a webhook.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Parameter {
    /// Name, as Twilio spells it.
    pub name: String,
    /// Value, as Twilio sent it.
    pub value: String,
}

/// A webhook with every parameter.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Event {
    /// The webhook.
    #[serde(flatten)]
    pub event: EventSummary,
    /// Parameters in their original order, with repeated names.
    pub parameters: Vec<Parameter>,
}

/// Keyword of a contact to which a message replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReplyTo {
    /// SID of the contact's message.
    pub sid: String,
    /// Meaning of the keyword: `stop`, `start` or `help`.
    #[schema(value_type = Opt)]
    pub keyword: String,
}

impl ReplyTo {
    fn of(message: &OutboundMessage) -> Option<ReplyTo> {
        let (sid, keyword) = (message.reply_to.clone(), message.reply_keyword.clone());
        message.is_reply().then_some(ReplyTo { sid, keyword })
    }
}

/// Conversation window: the time in which free text may be sent.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WindowView {
    /// Channel: `sms`, `whatsapp`, ..
    pub channel: String,
    /// Number or id of the contact.
    pub person: String,
    /// Own number or sender.
    pub sender: String,
    /// Time of the contact's last message.
    #[schema(format = DateTime)]
    pub last_inbound_at: Option<String>,
    /// Time until which free text may be sent.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// True if free text may be sent now.
    pub open: bool,
}

impl EventSummary {
    /// Renders a webhook without its parameters.
    pub fn of(webhook: &RecordedWebhook) -> EventSummary {
        EventSummary {
            id: cursor::token(&webhook.key),
            account_sid: webhook.account_sid.clone(),
            sid: webhook.message_sid.clone(),
            class: if webhook.is_status { Class::Status } else { Class::Inbound },
            direction: webhook.direction,
            channel: webhook.channel().map(str::to_owned),
            from: webhook.from().map(str::to_owned),
            to: webhook.to().map(str::to_owned),
            status: webhook.status.clone(),
            error_code: webhook.error_code.clone(),
            received_at: rfc3339(webhook.received_ms),
            route: webhook.route.clone(),
            attempts: webhook.attempts,
            backend: webhook.outcome.clone(),
            settled_at: webhook.settled_ms.and_then(rfc3339),
            redacted_at: webhook.redacted_ms.and_then(rfc3339),
        }
    }
}

impl Event {
    /// Renders a webhook with its parameters.
    pub fn of(webhook: &RecordedWebhook) -> Event {
        let form = webhook.form.as_deref().unwrap_or_default();
        let parameter = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            Parameter { name: name.into_owned(), value: value.into_owned() }
        };
        let parameters = form_urlencoded::parse(form.as_bytes()).map(parameter).collect();
        Event { event: EventSummary::of(webhook), parameters }
    }
}

impl WindowView {
    /// Renders a window as it is at `now_ms`.
    pub fn of(window: &Window, now_ms: i64) -> WindowView {
        WindowView {
            channel: window.theirs.channel.clone(),
            person: window.theirs.number.clone(),
            sender: window.ours.clone(),
            last_inbound_at: rfc3339(window.last_inbound_ms),
            expires_at: rfc3339(window.expires_ms()),
            open: window.is_open(now_ms),
        }
    }
}

/// A suppression: one reason not to send to a contact.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SuppressionView {
    /// SID of the account.
    account_sid: String,
    /// Number of the contact: E.164, a short code, or the channel's own id.
    number: String,
    /// Channel: `sms`, `whatsapp`, .., or `*` for every channel.
    channel: String,
    source: Source,
    /// Twilio's error code, for a suppression that a status callback caused.
    error_code: Option<String>,
    /// True if the suppression is in effect; false if it has ended or expired.
    in_force: bool,
    /// Time since which it is in effect, or the start of its last period in effect.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// Time at which it ends by itself; `null` if it lasts until an event ends it.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Time of its last start, prolongation or end.
    #[schema(format = DateTime)]
    changed_at: Option<String>,
    /// SID of the message that started or ended it.
    message_sid: Option<String>,
    /// Path of the route on which that message arrived.
    route: Option<String>,
    /// Channel on which the contact opted out or in.
    origin_channel: Option<String>,
    /// Own number or sender that received that message, or that the status callback was about.
    sender: Option<String>,
    /// SID of the Messaging Service that the status callback was about.
    messaging_service_sid: Option<String>,
    /// Key that started or ended it; `null` if the contact did.
    changed_by: Option<String>,
}

impl SuppressionView {
    /// Renders a suppression as it is at `now_ms`.
    pub fn of(known: &Suppression, now_ms: i64) -> SuppressionView {
        let in_force = known.is_in_force(now_ms);
        let known = known.clone();
        SuppressionView {
            account_sid: known.account_sid,
            number: known.address.number,
            channel: known.address.channel,
            source: known.source,
            error_code: Some(known.error_code).filter(|code| !code.is_empty()),
            in_force,
            since: rfc3339(known.since_ms),
            expires_at: known.expires_at_ms.and_then(rfc3339),
            changed_at: rfc3339(known.changed_at_ms),
            message_sid: known.message_sid,
            route: known.route,
            origin_channel: known.origin_channel,
            sender: known.sender,
            messaging_service_sid: known.service_sid,
            changed_by: known.changed_by,
        }
    }
}

/// One piece of evidence that a contact gave or withdrew a consent.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ConsentView {
    /// Id of the evidence.
    id: String,
    /// SID of the account.
    account_sid: String,
    /// Number of the contact: E.164, a short code, or the channel's own id.
    number: String,
    /// Channel: `sms`, `whatsapp`, ..
    channel: String,
    category: Category,
    state: State,
    /// Time at which the contact gave or withdrew the consent.
    #[schema(format = DateTime)]
    at: Option<String>,
    /// Source of the evidence, such as a form, a call or a contract.
    source: String,
    /// Text that the contact was shown, and the reply.
    proof: Option<String>,
    /// IP address of the contact.
    ip: Option<String>,
    /// User agent of the contact.
    user_agent: Option<String>,
    /// Time of the recording.
    #[schema(format = DateTime)]
    recorded_at: Option<String>,
    /// API key or command that recorded the consent.
    recorded_by: String,
}

impl ConsentView {
    /// Renders a consent.
    pub fn of(known: &Consent) -> ConsentView {
        let id = known.id();
        let known = known.clone();
        ConsentView {
            id,
            account_sid: known.account_sid,
            number: known.address.number,
            channel: known.address.channel,
            category: known.category,
            state: known.state,
            at: rfc3339(known.at_ms),
            source: known.source,
            proof: known.proof,
            ip: known.ip,
            user_agent: known.user_agent,
            recorded_at: rfc3339(known.recorded_at_ms),
            recorded_by: known.recorded_by,
        }
    }
}

/// Stored data about a number in one account, the latest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NumberHistory {
    /// SID of the account.
    pub account_sid: String,
    /// Number, as Twilio writes it.
    pub number: String,
    /// Channel to which the answer is limited; `null` for every channel.
    pub channel: Option<String>,
    /// Suppressions, with those that have ended.
    pub suppressions: Vec<SuppressionView>,
    /// Consents given and withdrawn.
    pub consents: Vec<ConsentView>,
    /// Conversation windows, ordered by own number.
    pub windows: Vec<WindowView>,
    /// Latest messages from and to the number.
    pub messages: Vec<MessageSummary>,
    /// Latest notifications to the number, with their attempts.
    pub notifications: Vec<NotificationView>,
    /// Latest webhooks about the number.
    pub events: Vec<EventSummary>,
}

impl NumberHistory {
    /// Renders the history as of `now_ms`.
    pub fn of(history: &ContactHistory, errors: &ErrorTable, now_ms: i64) -> NumberHistory {
        NumberHistory {
            account_sid: history.account_sid.clone(),
            number: history.number.number.clone(),
            channel: history.number.channel.clone(),
            suppressions: history
                .suppressions
                .iter()
                .map(|known| SuppressionView::of(known, now_ms))
                .collect(),
            consents: history.consents.iter().map(ConsentView::of).collect(),
            windows: history.windows.iter().map(|window| WindowView::of(window, now_ms)).collect(),
            messages: history
                .messages
                .iter()
                .map(|message| MessageSummary::of(message, errors))
                .collect(),
            notifications: history
                .notifications
                .iter()
                .map(|notification| NotificationView::of(notification, errors))
                .collect(),
            events: history.events.iter().map(EventSummary::of).collect(),
        }
    }
}
