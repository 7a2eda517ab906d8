//! Templates of Twilio's Content API: their languages, variables and approval, and whether each may be sent. This
//! module knows neither Twilio's server nor the store.

pub mod catalogue;
pub mod content;
pub mod locale;
pub mod variables;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::policy::Category;
use locale::Locale;

/// Maximum length of a name, in characters.
pub const MAX_NAME_CHARS: usize = 512;

/// Maximum length of a template's stored text, in characters: Twilio's limit.
pub const MAX_TEXT_CHARS: usize = 1600;

/// Maximum number of variables of one template.
pub const MAX_VARIABLES: usize = 100;

twilio_edge_contract::string_enum! {
    /// Origin of a template.
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
    #[schema(as = TemplateSource)]
    pub enum Source: serde {
        /// An administrator registered it; this takes precedence over Twilio.
        Administrator = "administrator",
        /// Twilio's Content API listed it.
        Twilio = "twilio",
    }
}

twilio_edge_contract::string_enum! {
    /// WhatsApp's approval of a template. Other channels need none.
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
    #[schema(as = TemplateApproval)]
    pub enum Approval: serde {
        /// It may be sent at any time.
        Approved = "approved",
        /// WhatsApp is reviewing it; until then it is treated as free text.
        Pending = "pending",
        /// Not submitted for approval; it is treated as free text.
        Unsubmitted = "unsubmitted",
        /// It may not be sent for now: too many recipients rejected it.
        Paused = "paused",
        /// It may not be sent.
        Rejected = "rejected",
        /// It may not be sent, permanently.
        Disabled = "disabled",
    }
}

impl Approval {
    /// Parses our word or Twilio's. An unknown word is `Unsubmitted`.
    pub fn of(text: &str) -> Approval {
        let text = text.to_ascii_lowercase();
        match text.as_str() {
            "received" | "in_review" | "in_appeal" => Approval::Pending,
            _ => text.parse().unwrap_or(Approval::Unsubmitted),
        }
    }

    /// Returns the sending permission of a template with this approval on a channel.
    pub fn on(self, channel: &str) -> SendPermission {
        match self {
            _ if channel != "whatsapp" => SendPermission::Template,
            Approval::Approved => SendPermission::Template,
            Approval::Pending | Approval::Unsubmitted => SendPermission::FreeText,
            Approval::Paused | Approval::Rejected | Approval::Disabled => SendPermission::Forbidden,
        }
    }
}

/// Sending permission of a content on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendPermission {
    /// May be sent at any time.
    Template,
    /// May be sent only while the contact's conversation window is open.
    FreeText,
    /// May not be sent.
    Forbidden,
}

/// Template in one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Origin.
    pub source: Source,
    /// Twilio's id: `HX..`
    pub content_sid: String,
    /// Display name; the same in every language.
    pub name: String,
    /// Language.
    pub locale: Locale,
    /// WhatsApp's approval.
    pub approval: Approval,
    /// WhatsApp's reason for a rejection, if it gave one.
    pub reason: String,
    /// Category, if known.
    pub category: Option<Category>,
    /// Names of its variables: `1`, `2`, ..
    pub variables: BTreeSet<String>,
    /// Text, if it has one and it is known; otherwise empty.
    pub text: String,
    /// True if WhatsApp shows more than the text: a header, buttons, media. False if unknown.
    pub has_others: bool,
    /// Digest of all visible content: text, buttons, media.
    pub digest: String,
    /// Time of the last change, in milliseconds since 1970.
    pub changed_at_ms: i64,
}

impl Template {
    /// Returns the key that is unique among the templates of its source.
    pub fn reference(&self) -> String {
        match self.source {
            Source::Twilio => self.content_sid.clone(),
            Source::Administrator => format!("{}/{}", self.name, self.locale),
        }
    }
}

/// Returns whether a text can be a template name: not empty, within the maximum length, and on one line.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().count() <= MAX_NAME_CHARS
        && !text.chars().any(char::is_control)
}

/// Returns whether a text is Twilio's id of a template: `HX` and 32 hexadecimal digits.
pub fn is_content_sid(text: &str) -> bool {
    text.strip_prefix("HX")
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
