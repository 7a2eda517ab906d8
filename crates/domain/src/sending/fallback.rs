//! Fallback of a message that its channel refuses: a template, a text on another channel, or an e-mail. Decides which of
//! them is sent, and with which content. The rules for the fallback message are the same as for every message and are applied
//! elsewhere.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    errors::FallbackTarget,
    fallback_email::FallbackEmail,
    options::MessageOptions,
    request::{Content, MAX_BODY_CHARS, Request, Sender},
    sender::{is_service, sender as read_sender},
};
use crate::{
    address::Address,
    check::Kind,
    email::CHANNEL,
    policy::Category,
    template::{is_content_sid, is_name, locale::Locale, variables},
};

/// Only fallback channel: SMS reaches the number independently of the chat apps.
const SMS: &str = "sms";

/// Fallback of a message; an empty object disables it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// Template to the same recipient on the same channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<FallbackTemplate>,
    /// Other channel: `sms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^sms$")]
    pub channel: Option<String>,
    /// Sender on the other channel. Without `from` and `messaging_service_sid`, the route to the recipient's country
    /// decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255)]
    pub from: Option<String>,
    /// Messaging Service that selects the sender on the other channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^MG[0-9a-fA-F]{32}$")]
    pub messaging_service_sid: Option<String>,
    /// Text on the other channel; default: the text of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 1600)]
    pub body: Option<String>,
    /// E-mail, if neither the template nor the other channel is possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<FallbackEmail>,
}

/// Template and its variables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FallbackTemplate)]
pub struct FallbackTemplate {
    /// Name in the catalogue; mutually exclusive with `content_sid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 512, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub name: Option<String>,
    /// Content SID of the template at Twilio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^HX[0-9a-fA-F]{32}$")]
    pub content_sid: Option<String>,
    /// Language of the template; default: the language of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z]{2,3}([_-][A-Za-z]{4})?([_-]([A-Za-z]{2}|[0-9]{3}))?$")]
    pub locale: Option<String>,
    /// Values of the template's variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

/// Fallback as it is stored with a message until the message is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackPlan {
    fallback: Fallback,
    /// Text of the message.
    #[serde(default)]
    text: String,
    #[serde(default)]
    locale: Option<String>,
    /// URL to which the statuses of the message are reported, and so those of its fallback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status_callback: Option<String>,
}

/// Properties of a failed message that its fallback depends on.
#[derive(Debug, Clone, Copy)]
pub struct FailedMessage<'a> {
    /// Account of the message.
    pub account_sid: &'a str,
    /// Recipient.
    pub to: &'a Address,
    /// Sender address, or the SID of the Messaging Service.
    pub sender: &'a str,
    /// Kind of the message.
    pub kind: Kind,
    /// Category of the message.
    pub category: Option<Category>,
}

/// Reason why a fallback cannot be used. Its text begins with the name of the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FallbackProblem {
    /// A field does not have the form that the JSON schema of the API states.
    Malformed(String),
    /// The fields have the form of the schema, but no message can be sent with them.
    Invalid(&'static str),
}

impl fmt::Display for FallbackProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FallbackProblem::Malformed(text) => text,
            FallbackProblem::Invalid(text) => text,
        })
    }
}

impl Fallback {
    /// Returns whether the fallback is empty.
    pub fn is_empty(&self) -> bool {
        *self == Fallback::default()
    }

    /// Returns every problem, in the order of the fields.
    pub fn problems(&self) -> Vec<FallbackProblem> {
        let mut problems = Vec::new();
        let mut malformed = |text: &str| problems.push(FallbackProblem::Malformed(text.to_owned()));
        if let Some(template) = &self.template {
            if template.name.as_ref().is_some_and(|name| !is_name(name)) {
                malformed("template.name: must be one line, and not empty");
            }
            if template.content_sid.as_ref().is_some_and(|sid| !is_content_sid(sid)) {
                malformed("template.content_sid: must be HX and 32 hexadecimal digits");
            }
            if template.locale.as_deref().is_some_and(|locale| Locale::parse(locale).is_none()) {
                malformed("template.locale: must be a language such as en or pt_BR");
            }
        }
        if self.channel.as_deref().is_some_and(|channel| channel != SMS) {
            malformed("channel: must be sms");
        }
        if self.messaging_service_sid.as_deref().is_some_and(|sid| !is_service(sid)) {
            malformed("messaging_service_sid: must be MG and 32 hexadecimal digits");
        }
        let is_possible = |body: &String| (1..=MAX_BODY_CHARS).contains(&body.chars().count());
        if self.body.as_ref().is_some_and(|body| !is_possible(body)) {
            malformed(&format!("body: must have 1 to {MAX_BODY_CHARS} characters"));
        }
        problems.extend(self.conflicts().map(FallbackProblem::Invalid));
        if let Some(email) = &self.email {
            problems.extend(email.problems());
        }
        problems
    }

    /// Completes the e-mail of a message with the content of the account's routes, if the message names only its recipient.
    #[must_use]
    pub fn with_email_of(self, routes: Option<&Fallback>) -> Fallback {
        let usual = routes.and_then(|routes| routes.email.as_ref());
        let email = self.email.map(|email| email.with_content_of(usual));
        Fallback { email, ..self }
    }

    /// Returns the problems that a JSON schema cannot express.
    fn conflicts(&self) -> impl Iterator<Item = &'static str> {
        let template = self.template.as_ref();
        let of_channel = [&self.from, &self.messaging_service_sid, &self.body];
        let found = [
            (
                template.is_some_and(|t| t.name.is_some() == t.content_sid.is_some()),
                "template: must have either a name or a content_sid",
            ),
            (
                self.channel.is_none() && of_channel.into_iter().any(Option::is_some),
                "channel: must be sms if from, messaging_service_sid or body is set",
            ),
            (
                self.from.is_some() && self.messaging_service_sid.is_some(),
                "from: must not be combined with messaging_service_sid",
            ),
            (
                self.from.as_deref().is_some_and(|from| !sends_sms(from)),
                "from: must be a number, a short code or an alphanumeric sender id for SMS",
            ),
        ];
        found.into_iter().filter_map(|(holds, text)| holds.then_some(text))
    }
}

impl FallbackTemplate {
    /// Returns the content; `None` without a name and a SID.
    pub(super) fn content(&self) -> Option<Content> {
        let variables = self.variables.clone();
        match (&self.name, &self.content_sid) {
            (Some(name), _) => Some(Content::Named { name: name.clone(), variables }),
            (None, Some(sid)) => Some(Content::Template { content_sid: sid.clone(), variables }),
            (None, None) => None,
        }
    }
}

impl FallbackPlan {
    /// Returns the plan of a request; `None` if it has no fallback.
    pub fn of(request: &Request) -> Option<FallbackPlan> {
        let fallback = request.fallback.clone().filter(|fallback| !fallback.is_empty())?;
        let text = match (&request.content, &request.template) {
            (Content::Session { body, .. }, _) => body.clone(),
            (Content::Template { variables, .. }, Some(template)) => {
                variables::filled(&template.text, variables)
            }
            (Content::Template { .. } | Content::Named { .. } | Content::Email(_), _) => {
                String::new()
            }
        };
        let locale = request.locale.as_ref().map(Locale::to_string);
        let status_callback = request.options.status_callback.clone();
        Some(FallbackPlan { fallback, text, locale, status_callback })
    }

    /// Returns the field that the fallback lacks, and the problem, if the message has no text for it.
    pub fn missing_field(&self) -> Option<(&'static str, &'static str)> {
        let Fallback { channel, body, email, .. } = &self.fallback;
        if channel.is_some() && body.is_none() && self.text.is_empty() {
            return Some(("fallback.body", "is required: the message has no text"));
        }
        email.as_ref()?.missing_field(&self.text)
    }

    /// Returns the recipients of the fallback of a message to `to`, separated by a blank: that of the message, and that of the
    /// e-mail.
    pub fn recipients(&self, to: &Address) -> String {
        let email = self.fallback.email.as_ref().and_then(FallbackEmail::recipient);
        match email {
            Some(email) => format!("{} {email}", to.number),
            None => to.number.clone(),
        }
    }

    /// Returns the stored form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the stored form of [`FallbackPlan::to_json`].
    pub fn read(text: &str) -> Option<FallbackPlan> {
        serde_json::from_str(text).ok()
    }

    /// Returns the first fallback in `order` that the plan has. The new request keeps the remaining fallbacks.
    pub fn next_request(
        &self,
        failed: FailedMessage<'_>,
        order: &[FallbackTarget],
    ) -> Option<(FallbackTarget, Request)> {
        order.iter().find_map(|to| {
            let request = match to {
                FallbackTarget::Template => self.template(failed)?,
                FallbackTarget::Channel => self.channel(failed)?,
                FallbackTarget::Email => self.email(failed)?,
            };
            let status_callback = self.status_callback.clone();
            let options = MessageOptions { status_callback, ..request.options };
            Some((*to, Request { options, ..request }))
        })
    }

    fn template(&self, failed: FailedMessage<'_>) -> Option<Request> {
        // A refused template is not replaced by another template.
        let template = self.fallback.template.as_ref().filter(|_| failed.kind == Kind::Session)?;
        let content = template.content()?;
        let locale = template.locale.as_deref().or(self.locale.as_deref());
        Some(Request {
            sender: sender(failed.sender),
            locale: locale.and_then(Locale::parse),
            fallback: Some(Fallback { template: None, ..self.fallback.clone() }),
            ..Request::new(failed.account_sid.to_owned(), failed.to.clone(), content)
        })
    }

    fn channel(&self, failed: FailedMessage<'_>) -> Option<Request> {
        let channel =
            self.fallback.channel.as_ref().filter(|channel| **channel != failed.to.channel)?;
        let said = [&self.fallback.from, &self.fallback.messaging_service_sid];
        let body = self.fallback.body.as_ref().unwrap_or(&self.text).clone();
        if body.is_empty() {
            return None;
        }
        let to = Address { channel: channel.clone(), number: failed.to.number.clone() };
        let content = Content::Session { body, media: Vec::new() };
        Some(Request {
            sender: said.into_iter().flatten().find_map(|said| sender(said)),
            category: failed.category,
            fallback: Some(Fallback { email: self.fallback.email.clone(), ..Fallback::default() }),
            ..Request::new(failed.account_sid.to_owned(), to, content)
        })
    }
}

impl FallbackPlan {
    fn email(&self, failed: FailedMessage<'_>) -> Option<Request> {
        let email = self.fallback.email.as_ref().filter(|_| failed.to.channel != CHANNEL)?;
        let (to, content) = email.content(&self.text)?;
        Some(Request {
            category: failed.category,
            fallback: Some(Fallback::default()),
            ..Request::new(failed.account_sid.to_owned(), to, content)
        })
    }
}

fn sends_sms(from: &str) -> bool {
    let from = read_sender(from, Some(SMS));
    from.is_ok_and(|from| matches!(from, Sender::From(from) if from.channel == SMS))
}

pub(super) fn sender(said: &str) -> Option<Sender> {
    match is_service(said) {
        true => Some(Sender::Service(said.to_owned())),
        false => Address::parse(said).map(Sender::From),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const OURS: &str = "whatsapp:+16135550100";

    fn fallback(json: serde_json::Value) -> Fallback {
        serde_json::from_value(json).unwrap()
    }

    fn kept(json: serde_json::Value) -> FallbackPlan {
        FallbackPlan {
            fallback: fallback(json),
            text: "hello".into(),
            locale: Some("pt_BR".into()),
            status_callback: Some("https://app.example/s".into()),
        }
    }

    fn person() -> Address {
        Address::parse("whatsapp:+16132345678").unwrap()
    }

    fn instead(
        kept: &FallbackPlan,
        kind: Kind,
        order: &[FallbackTarget],
    ) -> Option<(FallbackTarget, Request)> {
        let to = person();
        let category = Some(Category::Utility);
        let failed = FailedMessage { account_sid: "AC", to: &to, sender: OURS, kind, category };
        kept.next_request(failed, order)
    }

    #[test]
    fn first_available_fallback_is_sent() {
        let both =
            kept(json!({"template": {"name": "a"}, "channel": "sms", "from": "+16135550100"}));
        let order = [FallbackTarget::Template, FallbackTarget::Channel];
        let (to, template) = instead(&both, Kind::Session, &order).unwrap();
        assert_eq!(
            (to, &template.to, template.sender_name().as_str()),
            (FallbackTarget::Template, &person(), OURS)
        );
        assert_eq!((template.locale.unwrap().as_str(), template.category), ("pt_BR", None));
        let callback = Some("https://app.example/s");
        assert_eq!(template.options.status_callback.as_deref(), callback);
        // The next fallback applies where the first one fails.
        let rest = template.fallback.unwrap();
        assert_eq!((rest.template.is_none(), rest.channel.as_deref()), (true, Some("sms")));
        let (to, text) = instead(&both, Kind::Session, &[FallbackTarget::Channel]).unwrap();
        assert_eq!((to, text.to.written().as_str()), (FallbackTarget::Channel, "+16132345678"));
        assert_eq!(text.content, Content::Session { body: "hello".into(), media: Vec::new() });
        assert_eq!(
            (text.sender_name().as_str(), text.category),
            ("+16135550100", Some(Category::Utility))
        );
        assert_eq!(text.fallback, Some(Fallback::default()), "and there it ends");
        // A template does not replace a template, nor an SMS an SMS.
        assert_eq!(instead(&both, Kind::Template, &order).unwrap().0, FallbackTarget::Channel);
        assert_eq!(
            instead(&kept(json!({"channel": "sms"})), Kind::Session, &[FallbackTarget::Template]),
            None
        );
        assert_eq!(instead(&both, Kind::Session, &[]), None);
        let said = kept(json!({"channel": "sms", "body": "other"}));
        let (_, text) = instead(&said, Kind::Session, &order).unwrap();
        assert_eq!(text.content, Content::Session { body: "other".into(), media: Vec::new() });
        assert_eq!(text.sender, None, "a route says it");
    }

    #[test]
    fn fallback_problem_names_its_field() {
        let mg = format!("MG{}", "0".repeat(32));
        for (said, field) in [
            (json!({"template": {}}), "template"),
            (
                json!({"template": {"name": "a", "content_sid": format!("HX{}", "0".repeat(32))}}),
                "template",
            ),
            (json!({"template": {"name": "a\nb"}}), "template.name"),
            (json!({"template": {"content_sid": "HX1"}}), "template.content_sid"),
            (json!({"template": {"name": "a", "locale": "english"}}), "template.locale"),
            (json!({"channel": "rcs"}), "channel"),
            (json!({"body": "hi"}), "channel"),
            (json!({"channel": "sms", "from": "whatsapp:+15551234567"}), "from"),
            (
                json!({"channel": "sms", "from": "+15551234567", "messaging_service_sid": mg}),
                "from",
            ),
            (json!({"channel": "sms", "messaging_service_sid": "MG1"}), "messaging_service_sid"),
            (json!({"channel": "sms", "body": ""}), "body"),
        ] {
            let problems = fallback(said.clone()).problems();
            assert_eq!(problems.len(), 1, "{said}: {problems:?}");
            assert!(problems[0].to_string().starts_with(field), "{said}: {problems:?}");
        }
        assert_eq!(fallback(json!({})).problems(), []);
    }

    proptest! {
        /// Every stored plan is read back, and a fallback message is never empty.
        #[test]
        fn fallback_plan_round_trips(body: Option<String>, name: Option<String>, text: String, channel in prop::option::of("sms")) {
            let template = name.map(|name| FallbackTemplate { name: Some(name), ..FallbackTemplate::default() });
            let kept = FallbackPlan { fallback: Fallback { template, channel, body, ..Fallback::default() }, text, locale: None, status_callback: None };
            prop_assert_eq!(FallbackPlan::read(&kept.to_json()), Some(kept.clone()));
            for order in [&[FallbackTarget::Template, FallbackTarget::Channel][..], &[FallbackTarget::Channel]] {
                match instead(&kept, Kind::Session, order).map(|(_, request)| request.content) {
                    Some(Content::Session { body, .. }) => prop_assert!(!body.is_empty()),
                    Some(_) => prop_assert!(kept.fallback.template.is_some()),
                    None => prop_assert!(order.len() == 1 || kept.fallback.template.is_none()),
                }
            }
        }

        #[test]
        fn fallback_plan_of_any_text_is_read_without_panic(text in "\\PC{0,60}") {
            let _ = FallbackPlan::read(&text);
        }
    }
}
