//! E-mail that is sent instead of a message whose channel does not reach the recipient.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{fallback::FallbackProblem, request::Content};
use crate::{
    address::Address,
    email::{
        CHANNEL, EmailAddress,
        content::{Body, Email, Mailbox, is_template_id},
    },
};

/// E-mail as a fallback: its recipient, and either a template or a subject with text or HTML.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FallbackEmail {
    /// Address of the recipient. The routes have none; a message without it has no e-mail as its fallback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 3, max_length = 254)]
    pub to: Option<String>,
    /// Sender; default: the sender of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 3, max_length = 254)]
    pub from: Option<String>,
    /// Id of a dynamic template of SendGrid. Without it and without a subject, the content of the routes applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^d-[0-9a-fA-F]{32}$")]
    pub template_id: Option<String>,
    /// Values for the template.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub data: Map<String, Value>,
    /// Subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 300)]
    pub subject: Option<String>,
    /// Plain text; default: the text of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub text: Option<String>,
    /// HTML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub html: Option<String>,
}

impl FallbackEmail {
    /// Returns every problem, in the order of the fields.
    pub fn problems(&self) -> Vec<FallbackProblem> {
        let mut problems = Vec::new();
        for (field, address) in [("to", &self.to), ("from", &self.from)] {
            if let Some(Err(problem)) = address.as_deref().map(EmailAddress::parse) {
                problems.push(FallbackProblem::Malformed(format!("email.{field}: {problem}")));
            }
        }
        if self.template_id.as_deref().is_some_and(|id| !is_template_id(id)) {
            let must = "email.template_id: must be d- and 32 hexadecimal digits".to_owned();
            problems.push(FallbackProblem::Malformed(must));
        }
        let has_text = self.text.is_some() || self.html.is_some();
        if self.template_id.is_some() && (self.subject.is_some() || has_text) {
            let must = "email: must have either a template_id or a subject with text or html";
            problems.push(FallbackProblem::Invalid(must));
        }
        if self.template_id.is_none() && self.subject.is_none() && has_text {
            problems.push(FallbackProblem::Invalid("email.subject: is required with text or html"));
        }
        problems
    }

    /// Returns the address of the recipient as messages store it.
    pub(super) fn recipient(&self) -> Option<String> {
        EmailAddress::parse(self.to.as_deref()?).ok().map(|to| to.as_str().to_owned())
    }

    fn has_content(&self) -> bool {
        self.template_id.is_some() || self.subject.is_some()
    }

    /// Completes an e-mail without content with that of the routes.
    pub(super) fn with_content_of(self, usual: Option<&FallbackEmail>) -> FallbackEmail {
        match usual {
            Some(usual) if !self.has_content() => FallbackEmail {
                to: self.to,
                from: self.from.or_else(|| usual.from.clone()),
                data: if self.data.is_empty() { usual.data.clone() } else { self.data },
                ..usual.clone()
            },
            _ => self,
        }
    }

    /// Returns the field that is missing, and the problem; `text` is the text of the message.
    pub fn missing_field(&self, text: &str) -> Option<(&'static str, &'static str)> {
        let has_text = self.text.is_some() || self.html.is_some() || !text.is_empty();
        match (self.has_content(), self.template_id.is_some() || has_text) {
            (false, _) => Some((
                "fallback.email",
                "needs a template_id or a subject, here or in the fallback of the routes",
            )),
            (true, false) => Some(("fallback.email.text", "is required: the message has no text")),
            (true, true) => None,
        }
    }

    /// Returns the recipient and the content; `None` without a recipient or content. `text` is the text of the message.
    pub(super) fn content(&self, text: &str) -> Option<(Address, Content)> {
        let to = EmailAddress::parse(self.to.as_deref()?).ok()?;
        if self.missing_field(text).is_some() {
            return None;
        }
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let body = match (&self.template_id, self.text.is_some() || self.html.is_some()) {
            (Some(id), _) => Body::Template { id: id.clone(), data: self.data.clone() },
            (None, true) => {
                Body::Own { subject: of(&self.subject), text: of(&self.text), html: of(&self.html) }
            }
            (None, false) => {
                Body::Own { subject: of(&self.subject), text: text.to_owned(), html: String::new() }
            }
        };
        let from = self.from.as_deref().and_then(|from| EmailAddress::parse(from).ok());
        let address = from.map_or_else(String::new, |from| from.as_str().to_owned());
        let email = Email {
            to: to.as_str().to_owned(),
            from: Mailbox { address, name: String::new() },
            reply_to: None,
            body,
        };
        let to = Address { channel: CHANNEL.to_owned(), number: to.as_str().to_owned() };
        Some((to, Content::Email(Box::new(email))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn email(json: Value) -> FallbackEmail {
        serde_json::from_value(json).unwrap()
    }

    fn template() -> String {
        format!("d-{}", "0".repeat(32))
    }

    #[test]
    fn email_without_content_gets_that_of_the_routes() {
        let usual = email(json!({"template_id": template(), "data": {"shop": "A"}}));
        let named = email(json!({"to": "ava@example.com", "data": {"order": 1}}));
        assert_eq!(named.content("hello"), None);
        let (to, content) = named.with_content_of(Some(&usual)).content("").unwrap();
        assert_eq!(to.written(), "email:ava@example.com");
        let Content::Email(sent) = content else { panic!() };
        assert_eq!(sent.template_id(), template());
        let own = email(json!({"to": "ava@example.com", "subject": "Hi"}));
        let own = own.with_content_of(Some(&usual));
        let Some((_, Content::Email(sent))) = own.content("hello") else { panic!() };
        assert!(matches!(sent.body, Body::Own { text, .. } if text == "hello"));
        assert_eq!(own.content(""), None, "there is no text");
        assert_eq!(usual.content("hello"), None, "the routes know no recipient");
    }

    #[test]
    fn email_problem_names_its_field() {
        for (said, field) in [
            (json!({"to": "ava"}), "email.to"),
            (json!({"from": "shop"}), "email.from"),
            (json!({"template_id": "d-1"}), "email.template_id"),
            (json!({"template_id": template(), "subject": "Hi"}), "email:"),
            (json!({"text": "hello"}), "email.subject"),
        ] {
            let problems = email(said.clone()).problems();
            assert_eq!(problems.len(), 1, "{said}: {problems:?}");
            assert!(problems[0].to_string().starts_with(field), "{said}: {problems:?}");
        }
    }
}
