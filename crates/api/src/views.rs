//! What is known, in the one shape in which it is shown: by the API, and as JSON by the command line. Times are RFC 3339 in
//! UTC. Decides nothing and asks nobody.

use serde::Serialize;
use utoipa::ToSchema;

use twilio_edge_domain::{
    consent::{Consent, State},
    cursor,
    message::{Direction, Message, RecordedWebhook},
    policy::Category,
    suppression::{Source, Suppression},
    window::{Window, rfc3339},
};
use twilio_edge_services::access::contact_history::ContactHistory;

/// A message, put together from everything that was heard of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MessageSummary {
    /// Twilio's id of it.
    pub sid: String,
    /// Whose it is.
    pub account_sid: String,
    /// Who sent it.
    pub direction: Direction,
    /// `sms`, `whatsapp`, ..
    pub channel: Option<String>,
    /// Who it is from; unknown while only its end was heard.
    pub from: Option<String>,
    /// Who it is to.
    pub to: Option<String>,
    /// Where it has got to: a failure, else `read`, else `delivered`, else the last step on the way.
    pub status: String,
    /// Twilio's reason for a failure.
    pub error_code: Option<String>,
    /// When something was first heard of it.
    #[schema(format = DateTime)]
    pub first_heard_at: Option<String>,
    /// And when last.
    #[schema(format = DateTime)]
    pub last_heard_at: Option<String>,
    /// How many webhooks told of it.
    pub webhooks: usize,
}

/// A webhook, as it came and as it ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventView {
    /// Its name here.
    pub id: String,
    /// Whose it is.
    pub account_sid: String,
    /// The message it tells of.
    pub sid: String,
    /// `inbound` for a message that came, `status` for a status of a message.
    pub class: Class,
    /// Who sent the message.
    pub direction: Direction,
    /// `sms`, `whatsapp`, ..
    pub channel: Option<String>,
    /// Who the message is from; unknown when only its end was heard.
    pub from: Option<String>,
    /// Who it is to.
    pub to: Option<String>,
    /// Twilio's word; `received` for a message that came.
    pub status: String,
    /// Twilio's reason for a failure.
    pub error_code: Option<String>,
    /// When it was first heard.
    #[schema(format = DateTime)]
    pub heard_at: Option<String>,
    /// The path it came on; unknown when only its end was heard.
    pub route: Option<String>,
    /// How often it was handed to the backend.
    pub attempts: i64,
    /// What the backend said in the end: `accepted` or `refused`; nothing yet, or never, without.
    pub backend: Option<String>,
    /// When it said so.
    #[schema(format = DateTime)]
    pub settled_at: Option<String>,
    /// When something of it was last taken out, because its time was over or somebody asked for it.
    #[schema(format = DateTime)]
    pub redacted_at: Option<String>,
}

/// What a webhook tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A message that came.
    Inbound,
    /// The status of a message: of one that we sent, or of one that a person sent to us.
    Status,
}

/// One parameter of a webhook.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Parameter {
    /// As Twilio calls it.
    pub name: String,
    /// As it was sent.
    pub value: String,
}

/// A message with all of its webhooks.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MessageDetail {
    /// What is known of it.
    #[serde(flatten)]
    pub message: MessageSummary,
    /// All that was heard, in the order in which it came.
    pub timeline: Vec<EventView>,
}

/// A webhook with every parameter.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventTold {
    /// The webhook.
    #[serde(flatten)]
    pub event: EventView,
    /// In their order, and a name as often as it came.
    pub parameters: Vec<Parameter>,
}

/// A conversation's window: until when free text may be sent.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WindowView {
    /// `sms`, `whatsapp`, ..
    pub channel: String,
    /// The person.
    pub person: String,
    /// Our number or sender.
    pub sender: String,
    /// When the person last wrote.
    #[schema(format = DateTime)]
    pub last_inbound_at: Option<String>,
    /// Until when free text may be sent.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Whether it may be sent now.
    pub open: bool,
}

impl MessageSummary {
    /// A message without its story.
    pub fn of(message: &Message) -> MessageSummary {
        let first = &message.first;
        MessageSummary {
            sid: first.message_sid.clone(),
            account_sid: first.account_sid.clone(),
            direction: first.direction,
            channel: first.channel().map(str::to_owned),
            from: first.from().map(str::to_owned),
            to: first.to().map(str::to_owned),
            status: message.status.clone(),
            error_code: message.error_code.clone(),
            first_heard_at: rfc3339(first.heard_ms),
            last_heard_at: rfc3339(message.last_heard_ms()),
            webhooks: message.story().count(),
        }
    }
}

impl EventView {
    /// A webhook without what was in it.
    pub fn of(heard: &RecordedWebhook) -> EventView {
        EventView {
            id: cursor::token(&heard.key),
            account_sid: heard.account_sid.clone(),
            sid: heard.message_sid.clone(),
            class: if heard.is_status { Class::Status } else { Class::Inbound },
            direction: heard.direction,
            channel: heard.channel().map(str::to_owned),
            from: heard.from().map(str::to_owned),
            to: heard.to().map(str::to_owned),
            status: heard.status.clone(),
            error_code: heard.error_code.clone(),
            heard_at: rfc3339(heard.heard_ms),
            route: heard.route.clone(),
            attempts: heard.attempts,
            backend: heard.outcome.clone(),
            settled_at: heard.settled_ms.and_then(rfc3339),
            redacted_at: heard.redacted_ms.and_then(rfc3339),
        }
    }
}

impl MessageDetail {
    /// A message with its story.
    pub fn of(message: &Message) -> MessageDetail {
        let timeline = message.story().map(EventView::of).collect();
        MessageDetail { message: MessageSummary::of(message), timeline }
    }
}

impl EventTold {
    /// A webhook with everything in it.
    pub fn of(heard: &RecordedWebhook) -> EventTold {
        let form = heard.form.as_deref().unwrap_or_default();
        let parameter = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            Parameter { name: name.into_owned(), value: value.into_owned() }
        };
        let parameters = form_urlencoded::parse(form.as_bytes()).map(parameter).collect();
        EventTold { event: EventView::of(heard), parameters }
    }
}

impl WindowView {
    /// A window as it is at `now_ms`.
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

/// One reason not to write to a person.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SuppressionView {
    account_sid: String,
    /// E.164, a short code, or the channel's own id.
    number: String,
    /// `sms`, `whatsapp`, .. or `*` for every channel.
    channel: String,
    source: Source,
    /// Of a callback: why Twilio did not deliver.
    error_code: Option<String>,
    /// Whether it holds; one that does not tells when it did.
    in_force: bool,
    /// Since when it holds, or did the last time.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// When it last began or ended.
    #[schema(format = DateTime)]
    changed_at: Option<String>,
    /// The message that made it so, or ended it.
    message_sid: Option<String>,
    /// The route on which that came.
    route: Option<String>,
    /// The channel on which it was said.
    heard_on: Option<String>,
    /// Our number or sender that it was said to, or that a callback was about.
    sender: Option<String>,
    /// The Messaging Service that a callback was about.
    messaging_service_sid: Option<String>,
    /// Who made it so, or ended it; nobody for what a person said.
    changed_by: Option<String>,
}

impl SuppressionView {
    /// As it is shown.
    pub fn of(known: &Suppression) -> SuppressionView {
        let known = known.clone();
        SuppressionView {
            account_sid: known.account_sid,
            number: known.address.number,
            channel: known.address.channel,
            source: known.source,
            error_code: Some(known.error_code).filter(|code| !code.is_empty()),
            in_force: known.in_force,
            since: rfc3339(known.since_ms),
            changed_at: rfc3339(known.changed_at_ms),
            message_sid: known.message_sid,
            route: known.route,
            heard_on: known.heard_on,
            sender: known.sender,
            messaging_service_sid: known.service_sid,
            changed_by: known.changed_by,
        }
    }
}

/// One piece of evidence of what a person agreed to, or took back.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ConsentView {
    id: String,
    account_sid: String,
    /// E.164, a short code, or the channel's own id.
    number: String,
    /// `sms`, `whatsapp`, ..
    channel: String,
    category: Category,
    state: State,
    /// When the person said so.
    #[schema(format = DateTime)]
    at: Option<String>,
    /// Where: a form, a call, a contract.
    source: String,
    /// What they were shown, and said.
    proof: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
    #[schema(format = DateTime)]
    recorded_at: Option<String>,
    recorded_by: String,
}

impl ConsentView {
    /// As it is shown.
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

/// Everything known of a number in one account, the latest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Story {
    /// Whose view of it this is.
    pub account_sid: String,
    /// The number, as Twilio writes it.
    pub number: String,
    /// The only channel that was asked about; every one without.
    pub channel: Option<String>,
    /// Why it must not be written to, and why it once must not.
    pub suppressions: Vec<SuppressionView>,
    /// What was agreed to and taken back.
    pub consents: Vec<ConsentView>,
    /// The conversations with it, by our number.
    pub windows: Vec<WindowView>,
    /// The latest messages from and to it.
    pub messages: Vec<MessageSummary>,
    /// The latest webhooks about it.
    pub events: Vec<EventView>,
}

impl Story {
    /// Renders the history as of `now_ms`.
    pub fn of(history: &ContactHistory, now_ms: i64) -> Story {
        Story {
            account_sid: history.account_sid.clone(),
            number: history.number.number.clone(),
            channel: history.number.channel.clone(),
            suppressions: history.suppressions.iter().map(SuppressionView::of).collect(),
            consents: history.consents.iter().map(ConsentView::of).collect(),
            windows: history.windows.iter().map(|window| WindowView::of(window, now_ms)).collect(),
            messages: history.messages.iter().map(MessageSummary::of).collect(),
            events: history.events.iter().map(EventView::of).collect(),
        }
    }
}
