//! Notification plan: the steps in which a notification tries to reach one contact, each on one channel. A plan is stated in a
//! request or in the routes; with the contents it becomes a [`NotificationPlan`], which is stored with the message of the current
//! step. Decides which failures move on to the next step, and builds its message. The rules for that message are applied
//! elsewhere.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{
    errors::{Action, ErrorTable, FallbackTarget},
    failure_code::{FailureCode, whole_number},
    fallback::{Fallback, FallbackTemplate, sender},
    fallback_email::FallbackEmail,
    request::{Content, Request},
};
use crate::{
    actor::Actor, address::Address, email::error_code::EmailErrorCode, policy::Category,
    refusal::RefusalCode, template::locale::Locale,
};

/// Longest `within_s`: a day.
pub const MAX_WITHIN_S: u32 = 86_400;

/// Code of a step that was sent but not delivered in time.
pub const NO_ANSWER: &str = "no_answer";

twilio_edge_contract::string_enum! {
    /// Channel of a step.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
    pub enum PlanChannel: serde {
        /// WhatsApp.
        WhatsApp = "whatsapp",
        /// SMS.
        Sms = "sms",
        /// E-mail.
        Email = "email",
    }
}

/// Step of a plan, as a request or the routes state it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanStep {
    /// Channel of the step.
    pub channel: PlanChannel,
    /// Seconds after which the next step begins, if the provider accepted the message but did not report its delivery. Without
    /// it, only a failure moves on.
    #[serde(default, deserialize_with = "within_s", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86400)]
    pub within_s: Option<u32>,
    /// Failures that move on to the next step, instead of the usual ones: Twilio's error codes, codes of e-mails, and codes of
    /// rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub move_on: Option<Vec<FailureCode>>,
}

fn within_s<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let seconds = whole_number(&number).filter(|seconds| (1..=MAX_WITHIN_S).contains(seconds));
    let problem = || serde::de::Error::custom(format!("within_s must be 1 to {MAX_WITHIN_S}"));
    seconds.map(Some).ok_or_else(problem)
}

/// Returns the first problem of a plan, with the place of its step.
pub fn plan_problem(steps: &[PlanStep]) -> Option<String> {
    if steps.is_empty() || steps.len() > PlanChannel::ALL.len() {
        return Some(format!("must have 1 to {} steps", PlanChannel::ALL.len()));
    }
    let mut channels = BTreeSet::new();
    for (n, step) in steps.iter().enumerate() {
        if !channels.insert(step.channel) {
            return Some(format!("[{n}].channel: another step has the channel {}", step.channel));
        }
        if n + 1 == steps.len() {
            let set = [("within_s", step.within_s.is_some()), ("move_on", step.move_on.is_some())];
            let set = set.into_iter().find_map(|(name, is_set)| is_set.then_some(name));
            return set.map(|name| format!("[{n}].{name}: no step follows the last one"));
        }
    }
    None
}

/// Content of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepContent {
    /// Text, media, or both.
    Text {
        /// Text; empty if there is none.
        body: String,
        /// URLs of the media.
        media: Vec<String>,
    },
    /// Template.
    Template(FallbackTemplate),
    /// E-mail, with its recipient.
    Email(Box<FallbackEmail>),
}

/// Step with its recipient and its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Channel of the step.
    pub channel: PlanChannel,
    /// Number or address of the recipient.
    pub to: String,
    /// Sender; default: the route to the recipient, or the sender of the account's e-mails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Content.
    pub content: StepContent,
    /// See [`PlanStep::within_s`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_s: Option<u32>,
    /// See [`PlanStep::move_on`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub move_on: Option<Vec<FailureCode>>,
}

/// Current step of a stored plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CurrentStep {
    channel: PlanChannel,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    move_on: Option<Vec<FailureCode>>,
}

/// Plan as it is stored with the message of its current step: the steps that remain, and what they have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationPlan {
    category: Category,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<CurrentStep>,
    steps: VecDeque<Step>,
}

impl NotificationPlan {
    /// Returns a plan that has not begun.
    pub fn new(category: Category, locale: Option<&Locale>, steps: Vec<Step>) -> NotificationPlan {
        let locale = locale.map(Locale::to_string);
        NotificationPlan { category, locale, current: None, steps: steps.into() }
    }

    /// Returns the stored form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the stored form of [`NotificationPlan::to_json`]; `None` if a message has another fallback or none.
    pub fn read(text: &str) -> Option<NotificationPlan> {
        serde_json::from_str(text).ok()
    }

    /// Returns the steps that remain.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    /// Returns the recipients of the steps that remain, separated by blanks.
    pub fn recipients(&self) -> String {
        let recipients: BTreeSet<&str> = self.steps().map(|step| step.to.as_str()).collect();
        recipients.into_iter().collect::<Vec<_>>().join(" ")
    }

    /// Returns the time in milliseconds after which a sent message of this step moves on; 0 without such a time, or without a
    /// step on another channel.
    pub fn answer_within_ms(&self, step: &Step) -> i64 {
        let has_other = self.steps().any(|other| other.channel != step.channel);
        let within_ms = step.within_s.map_or(0, |seconds| i64::from(seconds) * 1000);
        if has_other { within_ms } else { 0 }
    }

    /// Returns whether the failure of the current step moves on to the next one. Without `move_on`, these failures do: a
    /// rule declined the step, the code is about the recipient or the channel, the channel could not deliver now, or the
    /// failure has no code.
    pub fn moves_on(&self, code: &str, errors: &ErrorTable) -> bool {
        let current = self.current.as_ref();
        if code == NO_ANSWER || (self.has_template_next() && permits_template(code, errors)) {
            return true;
        }
        if let Some(listed) = current.and_then(|current| current.move_on.as_ref()) {
            return listed.iter().any(|listed| listed.as_str() == code);
        }
        let entry = code.parse().ok().and_then(|code| errors.get(code));
        match entry {
            Some(entry) => {
                matches!(entry.action, Action::Switch | Action::Retry)
                    || entry.actor == Actor::Recipient
            }
            None => {
                code.is_empty()
                    || RefusalCode::find(code).is_some()
                    || code.parse::<EmailErrorCode>().is_ok()
            }
        }
    }

    /// Takes the next step: the first one, or the one after a failure. A template on the channel of a text replaces only a
    /// text outside of the conversation window.
    pub fn take_next(&mut self, failure: Option<&str>, errors: &ErrorTable) -> Option<Step> {
        let is_for_window = failure.is_none_or(|code| permits_template(code, errors));
        loop {
            let is_skipped = self.has_template_next() && !is_for_window;
            let step = self.steps.pop_front()?;
            if !is_skipped {
                let move_on = step.move_on.clone();
                self.current = Some(CurrentStep { channel: step.channel, move_on });
                return Some(step);
            }
        }
    }

    /// Returns the request of a step; `None` for an e-mail without a recipient or content.
    pub fn request(&self, account_sid: &str, step: &Step) -> Option<Request> {
        let to = || Address { channel: step.channel.as_str().to_owned(), number: step.to.clone() };
        let mut locale = self.locale.as_deref();
        let (to, content) = match &step.content {
            StepContent::Text { body, media } => {
                (to(), Content::Session { body: body.clone(), media: media.clone() })
            }
            StepContent::Template(template) => {
                locale = template.locale.as_deref().or(locale);
                (to(), template.content()?)
            }
            StepContent::Email(email) => email.content("")?,
        };
        Some(Request {
            sender: step.from.as_deref().and_then(sender),
            category: Some(self.category),
            locale: locale.and_then(Locale::parse),
            // The plan is the only fallback.
            fallback: Some(Fallback::default()),
            ..Request::new(account_sid.to_owned(), to, content)
        })
    }

    /// Returns whether the next step is a template on the channel of the current one.
    fn has_template_next(&self) -> bool {
        let channel = self.current.as_ref().map(|current| current.channel);
        self.steps.front().is_some_and(|next| Some(next.channel) == channel)
    }
}

fn permits_template(code: &str, errors: &ErrorTable) -> bool {
    errors.fallback_targets(code).contains(&FallbackTarget::Template)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sending::errors::built_in;

    fn steps(json: serde_json::Value) -> Vec<PlanStep> {
        serde_json::from_value(json).unwrap()
    }

    fn step(channel: PlanChannel, content: StepContent) -> Step {
        let to = if channel == PlanChannel::Email { "ava@example.com" } else { "+14155550123" };
        Step { channel, to: to.into(), from: None, content, within_s: None, move_on: None }
    }

    fn text(body: &str) -> StepContent {
        StepContent::Text { body: body.into(), media: Vec::new() }
    }

    fn template() -> StepContent {
        let name = Some("order".to_owned());
        StepContent::Template(FallbackTemplate { name, ..FallbackTemplate::default() })
    }

    fn email() -> StepContent {
        let of = |text: &str| Some(text.to_owned());
        StepContent::Email(Box::new(FallbackEmail {
            to: of("ava@example.com"),
            subject: of("Hi"),
            text: of("hello"),
            ..FallbackEmail::default()
        }))
    }

    fn plan(move_on: Option<Vec<FailureCode>>) -> NotificationPlan {
        let all = vec![
            Step { move_on, within_s: Some(60), ..step(PlanChannel::WhatsApp, text("a")) },
            Step { within_s: Some(60), ..step(PlanChannel::WhatsApp, template()) },
            step(PlanChannel::Sms, text("b")),
            step(PlanChannel::Email, email()),
        ];
        NotificationPlan::new(Category::Utility, None, all)
    }

    #[test]
    fn plan_states_its_problem_with_the_place() {
        for (stated, problem) in [
            (json!([]), "must have 1 to 3 steps"),
            (json!([{"channel": "sms"}, {"channel": "sms"}]), "[1].channel: another"),
            (json!([{"channel": "sms", "within_s": 5}]), "[0].within_s: no step"),
            (json!([{"channel": "email"}, {"channel": "sms", "move_on": [21610]}]), "[1].move_on"),
        ] {
            let found = plan_problem(&steps(stated.clone())).unwrap();
            assert!(found.starts_with(problem), "{stated}: {found}");
        }
        let good = json!([{"channel": "whatsapp", "within_s": 5.0, "move_on": [63016, "suppressed"]}, {"channel": "email"}]);
        assert_eq!(plan_problem(&steps(good)), None);
        for bad in [
            json!({"channel": "fax"}),
            json!({"channel": "sms", "within_s": 0}),
            json!({"channel": "sms", "within_s": 1.5}),
            json!({"channel": "sms", "within_s": 86_401}),
            json!({"channel": "sms", "move_on": [99]}),
            json!({"channel": "sms", "move_on": ["never"]}),
            json!({"channel": "sms", "to": "x"}),
        ] {
            assert!(serde_json::from_value::<PlanStep>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn failures_about_the_recipient_or_the_channel_move_on() {
        let errors = built_in();
        let mut usual = plan(None);
        usual.take_next(None, &errors);
        for (code, moves_on) in [
            ("63016", true),
            ("63024", true),
            ("21610", true),
            ("30003", true),
            ("suppressed", true),
            ("no_credentials", true),
            ("window_closed", true),
            (NO_ANSWER, true),
            ("", true),
            ("email_bounced", true),
            ("expired", false),
            ("99999", false),
        ] {
            assert_eq!(usual.moves_on(code, &errors), moves_on, "{code}");
        }
        let mut own = plan(Some(vec!["21610".parse().unwrap(), "suppressed".parse().unwrap()]));
        own.take_next(None, &errors);
        for (code, moves_on) in [
            ("21610", true),
            ("suppressed", true),
            ("63024", false),
            ("", false),
            (NO_ANSWER, true),
            // The template on the same channel is not another step of the caller.
            ("window_closed", true),
        ] {
            assert_eq!(own.moves_on(code, &errors), moves_on, "{code}");
        }
    }

    #[test]
    fn template_replaces_only_a_text_outside_of_the_window() {
        let errors = built_in();
        for (code, content) in [
            ("63016", template()),
            ("window_closed", template()),
            ("63024", text("b")),
            ("suppressed", text("b")),
            (NO_ANSWER, text("b")),
        ] {
            let mut plan = plan(None);
            assert_eq!(plan.take_next(None, &errors).unwrap().content, text("a"));
            let mut plan = NotificationPlan::read(&plan.to_json()).unwrap();
            assert_eq!(plan.take_next(Some(code), &errors).unwrap().content, content, "{code}");
        }
    }

    #[test]
    fn remaining_steps_name_their_recipients_and_become_requests() {
        let errors = built_in();
        let mut plan = plan(None);
        let mut written = Vec::new();
        while let Some(step) = plan.take_next(Some("63016"), &errors) {
            let request = plan.request("AC1", &step).unwrap();
            assert_eq!(
                (request.category, request.fallback),
                (Some(Category::Utility), Some(Fallback::default()))
            );
            written.push((request.to.written(), plan.answer_within_ms(&step), plan.recipients()));
        }
        let both = "+14155550123 ava@example.com";
        let expected = [
            ("whatsapp:+14155550123", 60_000, both),
            ("whatsapp:+14155550123", 60_000, both),
            ("+14155550123", 0, "ava@example.com"),
            ("email:ava@example.com", 0, ""),
        ];
        let written: Vec<_> =
            written.iter().map(|(to, ms, all)| (to.as_str(), *ms, all.as_str())).collect();
        assert_eq!(written, expected);
    }
}
