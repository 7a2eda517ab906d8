//! What is sent instead of a message that its channel does not take: a template, or a text on another channel. Decides which of
//! them, and what it is; whether that may be sent is asked like of every other message.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    errors::To,
    request::{Content, LONGEST_BODY, Request, Sender},
    sender::{is_service, sender as read_sender},
};
use crate::{
    address::Address,
    check::Kind,
    policy::Category,
    template::{is_content_sid, is_name, locale::Locale, variables},
};

/// The only channel there is to go to: it reaches a number wherever it is.
const SMS: &str = "sms";

/// What is sent instead; nothing, if it says neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// A template to the same person on the same channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Instead>,
    /// Another channel: `sms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^sms$")]
    pub channel: Option<String>,
    /// Who sends there; or `messaging_service_sid`; or neither, and the route to the recipient's country says who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The Messaging Service that chooses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^MG[0-9a-fA-F]{32}$")]
    pub messaging_service_sid: Option<String>,
    /// What is said there; the text of the message where this says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 1600)]
    pub body: Option<String>,
}

/// A template, and what stands in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FallbackTemplate)]
pub struct Instead {
    /// In the catalogue; or `content_sid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Twilio's name of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^HX[0-9a-fA-F]{32}$")]
    pub content_sid: Option<String>,
    /// Its language; that of the message where this says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// What stands in its places.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

/// What is kept of it with a message, until that has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackPlan {
    fallback: Fallback,
    /// What the message says.
    #[serde(default)]
    text: String,
    #[serde(default)]
    locale: Option<String>,
}

/// A message that failed, as far as what is sent instead goes by it.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// Whose.
    pub account_sid: &'a str,
    /// To whom.
    pub to: &'a Address,
    /// Our number, or the Messaging Service.
    pub sender: &'a str,
    /// What it was.
    pub kind: Kind,
    /// What it was for.
    pub category: Option<Category>,
}

impl Fallback {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Fallback::default()
    }

    /// Everything that cannot be, by its field.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(template) = &self.template {
            match (&template.name, &template.content_sid) {
                (Some(name), None) if is_name(name) => {}
                (None, Some(sid)) if is_content_sid(sid) => {}
                (Some(_), None) => {
                    problems.push("template.name: must be one line, and not empty".to_owned())
                }
                (None, Some(_)) => problems
                    .push("template.content_sid: must be HX and 32 hexadecimal digits".to_owned()),
                _ => problems.push("template: takes a name or a content_sid".to_owned()),
            }
            if template.locale.as_deref().is_some_and(|locale| Locale::parse(locale).is_none()) {
                problems.push("template.locale: must be a language such as en or pt_BR".to_owned());
            }
        }
        if self.channel.as_deref().is_some_and(|channel| channel != SMS) {
            problems.push("channel: must be sms".to_owned());
        }
        let of_channel = [&self.from, &self.messaging_service_sid, &self.body];
        if self.channel.is_none() && of_channel.into_iter().any(Option::is_some) {
            problems.push(
                "channel: must be sms, where from, messaging_service_sid or body is".to_owned(),
            );
        }
        match (&self.from, &self.messaging_service_sid) {
            (Some(_), Some(_)) => {
                problems.push("from: there is a messaging_service_sid too".to_owned());
            }
            (Some(from), None) if !sends_sms(from) => {
                problems.push(
                    "from: must be a number, a short code or a name that sends SMS".to_owned(),
                );
            }
            (None, Some(sid)) if !is_service(sid) => {
                problems
                    .push("messaging_service_sid: must be MG and 32 hexadecimal digits".to_owned());
            }
            _ => {}
        }
        if self
            .body
            .as_ref()
            .is_some_and(|body| body.is_empty() || body.chars().count() > LONGEST_BODY)
        {
            problems.push(format!("body: must have 1 to {LONGEST_BODY} characters"));
        }
        problems
    }
}

impl FallbackPlan {
    /// With a message; none if there is nothing to send instead.
    pub fn of(request: &Request) -> Option<FallbackPlan> {
        let fallback = request.fallback.clone().filter(|fallback| !fallback.is_empty())?;
        let text = match (&request.content, &request.template) {
            (Content::Session { body, .. }, _) => body.clone(),
            (Content::Template { variables, .. }, Some(template)) => {
                variables::filled(&template.text, variables)
            }
            (Content::Template { .. } | Content::Named { .. }, _) => String::new(),
        };
        let locale = request.locale.as_ref().map(Locale::to_string);
        Some(FallbackPlan { fallback, text, locale })
    }

    /// Whether there is nothing to say on the other channel.
    pub fn is_speechless(&self) -> bool {
        let Fallback { channel, body, .. } = &self.fallback;
        channel.is_some() && body.is_none() && self.text.is_empty()
    }

    /// As it is stored.
    pub fn written(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What [`FallbackPlan::written`] wrote.
    pub fn read(text: &str) -> Option<FallbackPlan> {
        serde_json::from_str(text).ok()
    }

    /// What is sent instead of a message: the first of these that it has. It has in turn what is left of them.
    pub fn instead(&self, failed: Failed<'_>, order: &[To]) -> Option<(To, Request)> {
        order.iter().find_map(|to| {
            let request = match to {
                To::Template => self.template(failed)?,
                To::Channel => self.channel(failed)?,
            };
            Some((*to, request))
        })
    }

    fn template(&self, failed: Failed<'_>) -> Option<Request> {
        // Who was refused a template is not sent another one.
        let template = self.fallback.template.as_ref().filter(|_| failed.kind == Kind::Session)?;
        let variables = template.variables.clone();
        let content = match (&template.name, &template.content_sid) {
            (Some(name), _) => Content::Named { name: name.clone(), variables },
            (None, Some(sid)) => Content::Template { content_sid: sid.clone(), variables },
            (None, None) => return None,
        };
        let locale = template.locale.as_deref().or(self.locale.as_deref());
        Some(Request {
            account_sid: failed.account_sid.to_owned(),
            to: failed.to.clone(),
            sender: sender(failed.sender),
            content,
            category: None,
            locale: locale.and_then(Locale::parse),
            template: None,
            fallback: Some(Fallback { template: None, ..self.fallback.clone() }),
        })
    }

    fn channel(&self, failed: Failed<'_>) -> Option<Request> {
        let channel =
            self.fallback.channel.as_ref().filter(|channel| **channel != failed.to.channel)?;
        let said = [&self.fallback.from, &self.fallback.messaging_service_sid];
        let body = self.fallback.body.as_ref().unwrap_or(&self.text).clone();
        if body.is_empty() {
            return None;
        }
        Some(Request {
            account_sid: failed.account_sid.to_owned(),
            to: Address { channel: channel.clone(), number: failed.to.number.clone() },
            sender: said.into_iter().flatten().find_map(|said| sender(said)),
            content: Content::Session { body, media: Vec::new() },
            category: failed.category,
            locale: None,
            template: None,
            fallback: Some(Fallback::default()),
        })
    }
}

fn sends_sms(from: &str) -> bool {
    let from = read_sender(from, Some(SMS));
    from.is_ok_and(|from| matches!(from, Sender::From(from) if from.channel == SMS))
}

fn sender(said: &str) -> Option<Sender> {
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
        }
    }

    fn person() -> Address {
        Address::parse("whatsapp:+16132345678").unwrap()
    }

    fn instead(kept: &FallbackPlan, kind: Kind, order: &[To]) -> Option<(To, Request)> {
        let to = person();
        let category = Some(Category::Utility);
        let failed = Failed { account_sid: "AC", to: &to, sender: OURS, kind, category };
        kept.instead(failed, order)
    }

    #[test]
    fn the_first_that_there_is_goes() {
        let both =
            kept(json!({"template": {"name": "a"}, "channel": "sms", "from": "+16135550100"}));
        let order = [To::Template, To::Channel];
        let (to, template) = instead(&both, Kind::Session, &order).unwrap();
        assert_eq!(
            (to, &template.to, template.sender_name().as_str()),
            (To::Template, &person(), OURS)
        );
        assert_eq!((template.locale.unwrap().as_str(), template.category), ("pt_BR", None));
        // What it does not reach goes on.
        let rest = template.fallback.unwrap();
        assert_eq!((rest.template.is_none(), rest.channel.as_deref()), (true, Some("sms")));
        let (to, text) = instead(&both, Kind::Session, &[To::Channel]).unwrap();
        assert_eq!((to, text.to.written().as_str()), (To::Channel, "+16132345678"));
        assert_eq!(text.content, Content::Session { body: "hello".into(), media: Vec::new() });
        assert_eq!(
            (text.sender_name().as_str(), text.category),
            ("+16135550100", Some(Category::Utility))
        );
        assert_eq!(text.fallback, Some(Fallback::default()), "and there it ends");
        // A template is not sent instead of a template, an SMS not instead of an SMS.
        assert_eq!(instead(&both, Kind::Template, &order).unwrap().0, To::Channel);
        assert_eq!(instead(&kept(json!({"channel": "sms"})), Kind::Session, &[To::Template]), None);
        assert_eq!(instead(&both, Kind::Session, &[]), None);
        let said = kept(json!({"channel": "sms", "body": "other"}));
        let (_, text) = instead(&said, Kind::Session, &order).unwrap();
        assert_eq!(text.content, Content::Session { body: "other".into(), media: Vec::new() });
        assert_eq!(text.sender, None, "a route says it");
    }

    #[test]
    fn what_cannot_be_is_named_by_its_field() {
        let mg = format!("MG{}", "0".repeat(32));
        for (said, field) in [
            (json!({"template": {}}), "template"),
            (json!({"template": {"name": "a", "content_sid": "HX"}}), "template"),
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
            assert!(problems[0].starts_with(field), "{said}: {problems:?}");
        }
        assert_eq!(fallback(json!({})).problems(), [""; 0]);
    }

    proptest! {
        /// Whatever is kept is read again, and what goes instead never says less than it has to.
        #[test]
        fn what_is_written_is_read_again(body: Option<String>, name: Option<String>, text: String, channel in prop::option::of("sms")) {
            let template = name.map(|name| Instead { name: Some(name), ..Instead::default() });
            let kept = FallbackPlan { fallback: Fallback { template, channel, body, ..Fallback::default() }, text, locale: None };
            prop_assert_eq!(FallbackPlan::read(&kept.written()), Some(kept.clone()));
            for order in [&[To::Template, To::Channel][..], &[To::Channel]] {
                match instead(&kept, Kind::Session, order).map(|(_, request)| request.content) {
                    Some(Content::Session { body, .. }) => prop_assert!(!body.is_empty()),
                    Some(_) => prop_assert!(kept.fallback.template.is_some()),
                    None => prop_assert!(order.len() == 1 || kept.fallback.template.is_none()),
                }
            }
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,60}") {
            let _ = FallbackPlan::read(&text);
        }
    }
}
