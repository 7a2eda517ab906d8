//! What is known, in the one shape in which it is shown: by the API, and as JSON by the command line. Times are RFC 3339 in
//! UTC. Decides nothing and asks nobody.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{
    cursor,
    message::{Direction, Heard, Message},
    window::{Window, rfc3339},
};

/// A message, put together from everything that was heard of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MessageShown {
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
pub struct EventShown {
    /// Its name here.
    pub id: String,
    /// Whose it is.
    pub account_sid: String,
    /// The message it tells of.
    pub sid: String,
    /// `inbound` for a message that came, `status` for word of one that we sent.
    pub class: Class,
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
}

/// What a webhook tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A message that came.
    Inbound,
    /// Where one that we sent has got to.
    Status,
}

impl Class {
    /// Who sent the message that it tells of.
    pub fn direction(self) -> Direction {
        match self {
            Class::Inbound => Direction::Inbound,
            Class::Status => Direction::Outbound,
        }
    }
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
pub struct MessageTold {
    /// What is known of it.
    #[serde(flatten)]
    pub message: MessageShown,
    /// All that was heard, in the order in which it came.
    pub timeline: Vec<EventShown>,
}

/// A webhook with every parameter.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventTold {
    /// The webhook.
    #[serde(flatten)]
    pub event: EventShown,
    /// In their order, and a name as often as it came.
    pub parameters: Vec<Parameter>,
}

/// A conversation's window: until when free text may be sent.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WindowShown {
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

impl MessageShown {
    /// A message without its story.
    pub fn of(message: &Message) -> MessageShown {
        let first = &message.first;
        MessageShown {
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

impl EventShown {
    /// A webhook without what was in it.
    pub fn of(heard: &Heard) -> EventShown {
        EventShown {
            id: cursor::token(&heard.key),
            account_sid: heard.account_sid.clone(),
            sid: heard.message_sid.clone(),
            class: match heard.direction {
                Direction::Inbound => Class::Inbound,
                Direction::Outbound => Class::Status,
            },
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
        }
    }
}

impl MessageTold {
    /// A message with its story.
    pub fn of(message: &Message) -> MessageTold {
        let timeline = message.story().map(EventShown::of).collect();
        MessageTold { message: MessageShown::of(message), timeline }
    }
}

impl EventTold {
    /// A webhook with everything in it.
    pub fn of(heard: &Heard) -> EventTold {
        let form = heard.form.as_deref().unwrap_or_default();
        let parameter = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            Parameter { name: name.into_owned(), value: value.into_owned() }
        };
        let parameters = form_urlencoded::parse(form.as_bytes()).map(parameter).collect();
        EventTold { event: EventShown::of(heard), parameters }
    }
}

impl WindowShown {
    /// A window as it is at `now_ms`.
    pub fn of(window: &Window, now_ms: i64) -> WindowShown {
        WindowShown {
            channel: window.theirs.channel.clone(),
            person: window.theirs.number.clone(),
            sender: window.ours.clone(),
            last_inbound_at: rfc3339(window.last_inbound_ms),
            expires_at: rfc3339(window.expires_ms()),
            open: window.is_open(now_ms),
        }
    }
}
