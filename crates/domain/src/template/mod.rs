//! Templates of the Content API: which there are of an account, in which languages, what they need, and whether they may be
//! sent. Knows neither Twilio's server nor where they are kept.

pub mod catalogue;
pub mod content;
pub mod locale;
pub mod variables;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::policy::Category;
use locale::Locale;

/// Longest name, in characters.
pub const LONGEST_NAME: usize = 512;

/// Most of a template's text that is kept, in characters: Twilio's longest.
pub const LONGEST_TEXT: usize = 1600;

/// Most places of one template.
pub const MOST_VARIABLES: usize = 100;

/// Who says that there is a template.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = TemplateSource)]
pub enum Source {
    /// An administrator; goes before what Twilio says.
    Administrator,
    /// Twilio's Content API.
    Twilio,
}

impl Source {
    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Administrator => "administrator",
            Source::Twilio => "twilio",
        }
    }
}

/// What WhatsApp says of a template. Other channels do not ask.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = TemplateApproval)]
pub enum Approval {
    /// It may be sent at any time.
    Approved,
    /// It is being looked at; until then it is free text.
    Pending,
    /// Nobody asked; it is free text.
    Unsubmitted,
    /// For now it is not sent: too many people did not want it.
    Paused,
    /// It may not be sent.
    Rejected,
    /// The same, and for ever.
    Disabled,
}

impl Approval {
    /// All of them.
    pub const ALL: [Approval; 6] = [
        Approval::Approved,
        Approval::Pending,
        Approval::Unsubmitted,
        Approval::Paused,
        Approval::Rejected,
        Approval::Disabled,
    ];

    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Approval::Approved => "approved",
            Approval::Pending => "pending",
            Approval::Unsubmitted => "unsubmitted",
            Approval::Paused => "paused",
            Approval::Rejected => "rejected",
            Approval::Disabled => "disabled",
        }
    }

    /// As it is written, and as Twilio does; what is not known is not approved.
    pub fn of(text: &str) -> Approval {
        let text = text.to_ascii_lowercase();
        match text.as_str() {
            "received" | "in_review" | "in_appeal" => Approval::Pending,
            _ => Approval::ALL
                .into_iter()
                .find(|approval| approval.as_str() == text)
                .unwrap_or(Approval::Unsubmitted),
        }
    }

    /// What such a template is on a channel.
    pub fn on(self, channel: &str) -> Standing {
        match self {
            _ if channel != "whatsapp" => Standing::Template,
            Approval::Approved => Standing::Template,
            Approval::Pending | Approval::Unsubmitted => Standing::FreeText,
            Approval::Paused | Approval::Rejected | Approval::Disabled => Standing::Barred,
        }
    }
}

/// What a content is where it is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// May be sent at any time.
    Template,
    /// Only while the person's window is open.
    FreeText,
    /// Not at all.
    Barred,
}

/// A template in one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Who says so.
    pub source: Source,
    /// Twilio's name: `HX..`
    pub content_sid: String,
    /// What people call it; in each language the same.
    pub name: String,
    /// Its language.
    pub locale: Locale,
    /// Whether WhatsApp lets it be sent.
    pub approval: Approval,
    /// Why not, if WhatsApp says that.
    pub reason: String,
    /// What it is for, if that is known.
    pub category: Option<Category>,
    /// The names of its places: `1`, `2`, ..
    pub variables: BTreeSet<String>,
    /// Its text, if it has one and it is known.
    pub text: String,
    /// Whether WhatsApp shows anything of it beside the text: a header, buttons, media. False where nobody knows.
    pub has_others: bool,
    /// Changes with whatever is shown of it: in text, buttons, media.
    pub digest: String,
    /// When anything of that last changed, in milliseconds since 1970.
    pub changed_at_ms: i64,
}

impl Template {
    /// What tells it from the others of its source.
    pub fn reference(&self) -> String {
        match self.source {
            Source::Twilio => self.content_sid.clone(),
            Source::Administrator => format!("{}/{}", self.name, self.locale),
        }
    }
}

/// Whether it can be a name: something, of no more than so many characters, and on one line.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= LONGEST_NAME && !text.chars().any(char::is_control)
}

/// Whether it is Twilio's name of a template: `HX` and 32 hexadecimal digits.
pub fn is_content_sid(text: &str) -> bool {
    text.strip_prefix("HX")
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
