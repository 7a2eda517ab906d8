//! Request to send a message, and its form for Twilio: one recipient, one sender, one content. `rules.rs` decides whether it
//! may be sent; this module does no lookups.

use std::collections::BTreeMap;

use form_urlencoded::Serializer;

use super::{fallback::Fallback, options::MessageOptions};
use crate::{
    address::Address,
    check::Kind,
    dropin::resource::segments,
    email::content::Email,
    policy::Category,
    template::{SendPermission, Template, locale::Locale},
};

/// Longest text, in characters (Twilio's error 21617).
pub const MAX_BODY_CHARS: usize = 1600;

/// Highest number of media of one message; on WhatsApp it is one.
pub const MAX_MEDIA: usize = 10;

/// Request to send a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Account of the message.
    pub account_sid: String,
    /// Recipient.
    pub to: Address,
    /// Sender, if the request or a route names one.
    pub sender: Option<Sender>,
    /// Content.
    pub content: Content,
    /// Category, if the request names one.
    pub category: Option<Category>,
    /// Language of the recipient, if the request names one.
    pub locale: Option<Locale>,
    /// Entry of the template in the catalogue.
    pub template: Option<Template>,
    /// Fallback if the channel refuses the message; default: the fallback of the account.
    pub fallback: Option<Fallback>,
    /// Options that no rule reads.
    pub options: MessageOptions,
}

/// Sender of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// Own address on the channel of the recipient.
    From(Address),
    /// Messaging Service, which selects the sender.
    Service(String),
}

/// Content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text, media, or both.
    Session {
        /// Text; empty if there is none.
        body: String,
        /// URLs of the media.
        media: Vec<String>,
    },
    /// Template by a name that was not found in the catalogue.
    Named {
        /// Name in the catalogue.
        name: String,
        /// Values of the variables.
        variables: BTreeMap<String, String>,
    },
    /// An e-mail, to a recipient on the channel `email`.
    Email(Box<Email>),
    /// A template of the Content API.
    Template {
        /// Content SID of the template at Twilio.
        content_sid: String,
        /// Values of the variables.
        variables: BTreeMap<String, String>,
    },
}

impl Sender {
    /// Returns the sender as one word.
    pub fn name(&self) -> String {
        match self {
            Sender::From(from) => from.written(),
            Sender::Service(sid) => sid.clone(),
        }
    }
}

impl Request {
    /// Returns a request with the three fields that every message has. Every other field has the value that it has in a
    /// request that does not mention it.
    pub fn new(account_sid: String, to: Address, content: Content) -> Request {
        Request {
            account_sid,
            to,
            sender: None,
            content,
            category: None,
            locale: None,
            template: None,
            fallback: None,
            options: MessageOptions::default(),
        }
    }

    /// Returns the kind, on which the rules about windows and consents depend.
    pub fn kind(&self) -> Kind {
        match (&self.content, &self.template) {
            (Content::Session { .. }, _) => Kind::Session,
            (Content::Email(email), _) if email.template_id().is_empty() => Kind::Session,
            (Content::Email(_), _) => Kind::Template,
            // The template is not approved: on WhatsApp it counts as free text.
            (_, Some(template))
                if template.approval.on(&self.to.channel) == SendPermission::FreeText =>
            {
                Kind::Session
            }
            (Content::Template { .. } | Content::Named { .. }, _) => Kind::Template,
        }
    }

    /// Returns the category of the request, else that of the registered template, else the strictest one possible.
    pub fn category(&self) -> Category {
        let usual = match self.content {
            Content::Session { .. } => Kind::Session.default_category(),
            Content::Email(_) => self.kind().default_category(),
            Content::Template { .. } | Content::Named { .. } => Kind::Template.default_category(),
        };
        let registered = self.template.as_ref().and_then(|template| template.category);
        self.category.or(registered).unwrap_or(usual)
    }

    /// Returns the number of SMS segments, by which Twilio bills a text; `None` for a message that is billed as one.
    pub fn segments(&self) -> Option<usize> {
        match &self.content {
            Content::Session { body, media } if media.is_empty() && self.to.channel == "sms" => {
                Some(segments(body))
            }
            _ => None,
        }
    }

    /// Returns the name of the template in the catalogue, or its content SID if the catalogue does not have it, or SendGrid's id
    /// of the template of an e-mail; empty without a template.
    pub fn template_name(&self) -> String {
        match (&self.template, &self.content) {
            (Some(template), _) => template.name.clone(),
            (None, Content::Template { content_sid, .. }) => content_sid.clone(),
            (None, Content::Named { name, .. }) => name.clone(),
            (None, Content::Session { .. }) => String::new(),
            (None, Content::Email(email)) => email.template_id().to_owned(),
        }
    }

    /// Returns the sender as one word, the unit that Twilio limits.
    pub fn sender_name(&self) -> String {
        self.sender.as_ref().map(Sender::name).unwrap_or_default()
    }

    /// Returns the content for the provider: the parameters of Twilio's `Messages.json`, without the status callback, or the
    /// stored form of an e-mail.
    pub fn form(&self) -> String {
        if let Content::Email(email) = &self.content {
            return email.to_json();
        }
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
            // The rules refuse this content before it is posted. An e-mail has no form of Twilio.
            Content::Named { .. } | Content::Email(_) => {}
            Content::Template { content_sid, variables } => {
                form.append_pair("ContentSid", content_sid);
                if !variables.is_empty() {
                    let variables = serde_json::to_string(variables).unwrap_or_default();
                    form.append_pair("ContentVariables", &variables);
                }
            }
        }
        self.options.add_to(&mut form);
        form.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content: Content) -> Request {
        let address = |text| Address::parse(text).unwrap();
        let account_sid = "AC00112233445566778899aabbccddeeff".to_owned();
        Request {
            sender: Some(Sender::From(address("whatsapp:+15557654321"))),
            ..Request::new(account_sid, address("whatsapp:+15551234567"), content)
        }
    }

    #[test]
    fn form_has_the_parameters_of_twilio() {
        let media = vec!["https://a.example/1".into(), "https://a.example/2".into()];
        let text = request(Content::Session { body: "a & b".into(), media });
        let addresses = "To=whatsapp%3A%2B15551234567&From=whatsapp%3A%2B15557654321";
        let media = "MediaUrl=https%3A%2F%2Fa.example%2F1&MediaUrl=https%3A%2F%2Fa.example%2F2";
        assert_eq!(text.form(), format!("{addresses}&Body=a+%26+b&{media}"));
        let variables = BTreeMap::from([("1".to_owned(), "Ava".to_owned())]);
        let content_sid = "HXb5b62575e6e4ff6129ad7c8efe1f983e".to_owned();
        let template = request(Content::Template { content_sid: content_sid.clone(), variables });
        let content =
            format!("ContentSid={content_sid}&ContentVariables=%7B%221%22%3A%22Ava%22%7D");
        assert_eq!(template.form(), format!("{addresses}&{content}"));
    }
}
