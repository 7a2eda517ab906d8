//! What is asked for, and how Twilio is told: one recipient, one sender, one content. Whether it may be sent is decided in
//! `rules.rs`; nothing is looked up here.

use std::collections::BTreeMap;

use form_urlencoded::Serializer;

use super::fallback::Fallback;
use crate::{
    address::Address,
    check::Kind,
    policy::Category,
    template::{Standing, Template, locale::Locale},
};

/// Most characters of a text (Twilio's error 21617).
pub const LONGEST_BODY: usize = 1600;

/// Most media of one message; on WhatsApp it is one.
pub const MOST_MEDIA: usize = 10;

/// A message that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose.
    pub account_sid: String,
    /// The person.
    pub to: Address,
    /// Who sends, if somebody says.
    pub sender: Option<Sender>,
    /// What.
    pub content: Content,
    /// What it is for, if somebody says.
    pub category: Option<Category>,
    /// What the person reads, if somebody says.
    pub locale: Option<Locale>,
    /// What the catalogue knows of its template.
    pub template: Option<Template>,
    /// What is sent instead, if its channel does not take it; of the account, where nobody says.
    pub fallback: Option<Fallback>,
}

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A number of ours, on the channel of the recipient.
    From(Address),
    /// A Messaging Service, which chooses one.
    Service(String),
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text, media, or both.
    Session {
        /// The text; empty if there is none.
        body: String,
        /// Where the media are.
        media: Vec<String>,
    },
    /// A template by its name in the catalogue, which is not known to have it.
    Named {
        /// What people call it.
        name: String,
        /// What stands in its places.
        variables: BTreeMap<String, String>,
    },
    /// A template of the Content API.
    Template {
        /// Twilio's name of it.
        content_sid: String,
        /// What stands in its places.
        variables: BTreeMap<String, String>,
    },
}

impl Request {
    /// What the rules about windows and consents go by.
    pub fn kind(&self) -> Kind {
        match (&self.content, &self.template) {
            (Content::Session { .. }, _) => Kind::Session,
            // Nobody has approved it as a template: on WhatsApp it is free text.
            (_, Some(template)) if template.approval.on(&self.to.channel) == Standing::FreeText => {
                Kind::Session
            }
            (Content::Template { .. } | Content::Named { .. }, _) => Kind::Template,
        }
    }

    /// What it is for: as somebody says, as its template is registered, or else the strictest that it may be.
    pub fn category(&self) -> Category {
        let usual = match self.content {
            Content::Session { .. } => Kind::Session.usual_category(),
            Content::Template { .. } | Content::Named { .. } => Kind::Template.usual_category(),
        };
        let registered = self.template.as_ref().and_then(|template| template.category);
        self.category.or(registered).unwrap_or(usual)
    }

    /// Who sends, in one word: the unit that Twilio limits.
    pub fn sender_name(&self) -> String {
        match &self.sender {
            Some(Sender::From(from)) => from.written(),
            Some(Sender::Service(sid)) => sid.clone(),
            None => String::new(),
        }
    }

    /// The parameters of Twilio's `Messages.json`, but for the status callback.
    pub fn form(&self) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("To", &self.to.written());
        match &self.sender {
            Some(Sender::From(from)) => form.append_pair("From", &from.written()),
            Some(Sender::Service(sid)) => form.append_pair("MessagingServiceSid", sid),
            None => &mut form,
        };
        match &self.content {
            Content::Session { body, media } => {
                if !body.is_empty() {
                    form.append_pair("Body", body);
                }
                media.iter().for_each(|url| {
                    form.append_pair("MediaUrl", url);
                });
            }
            // No rule lets it through.
            Content::Named { .. } => {}
            Content::Template { content_sid, variables } => {
                form.append_pair("ContentSid", content_sid);
                if !variables.is_empty() {
                    let variables = serde_json::to_string(variables).unwrap_or_default();
                    form.append_pair("ContentVariables", &variables);
                }
            }
        }
        form.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content: Content) -> Request {
        let address = |text| Address::parse(text).unwrap();
        Request {
            account_sid: "AC00112233445566778899aabbccddeeff".into(),
            to: address("whatsapp:+15551234567"),
            sender: Some(Sender::From(address("whatsapp:+15557654321"))),
            content,
            category: None,
            locale: None,
            template: None,
            fallback: None,
        }
    }

    #[test]
    fn twilio_is_told_in_its_own_words() {
        let media = vec!["https://a.example/1".into(), "https://a.example/2".into()];
        let text = request(Content::Session { body: "a & b".into(), media });
        let told = "To=whatsapp%3A%2B15551234567&From=whatsapp%3A%2B15557654321";
        let media = "MediaUrl=https%3A%2F%2Fa.example%2F1&MediaUrl=https%3A%2F%2Fa.example%2F2";
        assert_eq!(text.form(), format!("{told}&Body=a+%26+b&{media}"));
        let variables = BTreeMap::from([("1".to_owned(), "Ava".to_owned())]);
        let content_sid = "HXb5b62575e6e4ff6129ad7c8efe1f983e".to_owned();
        let template = request(Content::Template { content_sid: content_sid.clone(), variables });
        let asked = format!("ContentSid={content_sid}&ContentVariables=%7B%221%22%3A%22Ava%22%7D");
        assert_eq!(template.form(), format!("{told}&{asked}"));
    }
}
