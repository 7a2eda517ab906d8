//! Compliance check of one message to one contact. Every rule returns a verdict, not only the first that fails, so that
//! a caller can fix all problems at once. The caller passes all facts; this module reads no store.

use serde::{Deserialize, Serialize};

use crate::{
    actor::Actor,
    consent::{Consent, State},
    contact,
    policy::{Category, Policy},
    refusal::{CheckRefusalCode, RefusalCode},
    suppression::Suppression,
    window,
};

/// Kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = MessageKind)]
pub enum Kind {
    /// Free text, as an answer while the conversation window is open.
    Session,
    /// An approved template.
    Template,
}

impl Kind {
    /// Returns the category of a message without a category: the strictest possible one.
    pub fn default_category(self) -> Category {
        match self {
            Kind::Session => Category::Service,
            Kind::Template => Category::Marketing,
        }
    }
}

/// Message to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The contact's number or id on the channel.
    pub number: &'a str,
    /// Purpose of the message.
    pub category: Category,
    /// Free text or template.
    pub kind: Kind,
}

/// Stored facts about the contact.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Keys that may belong to another contact: their suppressions are in effect, but a START of this contact does not
    /// end them.
    pub possible: Vec<String>,
    /// All suppressions of the contact, ended ones included.
    pub suppressions: Vec<Suppression>,
    /// The contact's consent in effect for this category on this channel.
    pub consent: Option<Consent>,
    /// Time of the contact's last message on this channel to our sender, or to any of ours, in milliseconds since 1970.
    pub last_inbound_ms: Option<i64>,
}

/// Rule of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CheckRule)]
pub enum Rule {
    /// A suppressed contact gets no messages.
    Suppression,
    /// A message that needs a consent has one.
    Consent,
    /// The consent is not too old.
    Freshness,
    /// Free text needs an open conversation window.
    Window,
}

/// Verdict of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = CheckVerdict)]
pub struct Verdict {
    /// The rule.
    pub rule: Rule,
    /// True if the rule permits the message.
    pub ok: bool,
    /// Reason why it does not.
    #[schema(value_type = Option<CheckRefusalCode>)]
    pub code: Option<RefusalCode>,
    /// Explanation for people, without any phone number.
    pub detail: String,
    /// Party that can change the verdict.
    pub actor: Option<Actor>,
}

/// Returns the verdict of every rule, in their order. The message may be sent if all are ok.
pub fn may_send(
    policy: &Policy,
    question: &Question<'_>,
    facts: &Facts,
    now_ms: i64,
) -> Vec<Verdict> {
    let consent = effective_consent(policy, question, facts);
    vec![
        suppression(policy, question, facts, now_ms),
        has_consent(policy, question, &consent),
        freshness(policy, question, &consent, now_ms),
        open_window(policy, question, facts, now_ms),
    ]
}

fn pass(rule: Rule, detail: impl Into<String>) -> Verdict {
    Verdict { rule, ok: true, code: None, detail: detail.into(), actor: None }
}

fn refuse(rule: Rule, code: RefusalCode, actor: Actor, detail: impl Into<String>) -> Verdict {
    let (code, actor) = (Some(code), Some(actor));
    Verdict { rule, ok: false, code, detail: detail.into(), actor }
}

fn suppression(policy: &Policy, question: &Question<'_>, facts: &Facts, now_ms: i64) -> Verdict {
    let in_force = facts.suppressions.iter().filter(|known| {
        known.is_in_force(now_ms)
            && known.holds_for(&known.address.number, question.channel, policy)
    });
    let ends_by_start = |known: &Suppression| {
        let origin_channel = known.origin_channel.as_deref();
        !facts.possible.contains(&known.address.number)
            && policy.start_may_end(
                known.source,
                &known.error_code,
                origin_channel,
                question.channel,
            )
    };
    // A suppression that only an administrator can end decides the actor.
    let Some(known) = in_force.min_by_key(|known| (ends_by_start(known), known.since_ms)) else {
        return pass(Rule::Suppression, "the contact is not suppressed");
    };
    let of = match known.error_code.as_str() {
        "" => known.source.as_str().to_owned(),
        code => format!("{} {code}", known.source),
    };
    let mut since = at(known.since_ms);
    if let Some(expires_at_ms) = known.expires_at_ms {
        since = format!("{since} until {}", at(expires_at_ms));
    }
    let earlier = if known.expires_at_ms.is_some() { " earlier" } else { "" };
    match ends_by_start(known) {
        true => refuse(
            Rule::Suppression,
            RefusalCode::Suppressed,
            Actor::Recipient,
            format!("suppressed since {since} ({of}); a START from the contact ends it{earlier}"),
        ),
        false => refuse(
            Rule::Suppression,
            RefusalCode::Suppressed,
            Actor::Administrator,
            format!("suppressed since {since} ({of}); only an administrator can end it{earlier}"),
        ),
    }
}

/// State of the contact's consent.
enum EffectiveConsent<'a> {
    None,
    Withdrawn(&'a Consent),
    /// Older than a STOP.
    Overtaken(&'a Consent),
    Granted(&'a Consent),
}

fn effective_consent<'a>(
    policy: &Policy,
    question: &Question<'_>,
    facts: &'a Facts,
) -> EffectiveConsent<'a> {
    let Some(consent) = &facts.consent else { return EffectiveConsent::None };
    if consent.state == State::Withdrawn {
        return EffectiveConsent::Withdrawn(consent);
    }
    let overtaken = facts.suppressions.iter().any(|known| {
        known.source.is_by_contact()
            && known.holds_for(&known.address.number, question.channel, policy)
            && known.since_ms >= consent.at_ms
    });
    match overtaken && !policy.consent.survives_stop {
        true => EffectiveConsent::Overtaken(consent),
        false => EffectiveConsent::Granted(consent),
    }
}

fn has_consent(
    policy: &Policy,
    question: &Question<'_>,
    consent: &EffectiveConsent<'_>,
) -> Verdict {
    let category = question.category.as_str();
    // A contact who withdrew their consent gets no such message, whether or not a consent is required.
    let is_withdrawn = matches!(consent, EffectiveConsent::Withdrawn(_));
    if !policy.asks_consent_for(question.category) && !is_withdrawn {
        return pass(Rule::Consent, format!("messages of category {category} need no consent"));
    }
    let (why, at_ms) = match consent {
        EffectiveConsent::Granted(consent) => {
            return pass(
                Rule::Consent,
                format!("given {} ({})", at(consent.at_ms), consent.source),
            );
        }
        EffectiveConsent::None => ("no consent is recorded", None),
        EffectiveConsent::Withdrawn(consent) => {
            let detail = format!(
                "the consent to {category} was withdrawn {} ({}): ask the contact, and record the new consent",
                at(consent.at_ms),
                consent.source
            );
            return refuse(Rule::Consent, RefusalCode::NoConsent, Actor::Caller, detail);
        }
        EffectiveConsent::Overtaken(consent) => {
            ("a STOP came after the consent", Some(consent.at_ms))
        }
    };
    let when = at_ms.map(|ms| format!(" of {}", at(ms))).unwrap_or_default();
    let detail = format!("{why}{when} to {category}: ask the contact, and record the consent");
    refuse(Rule::Consent, RefusalCode::NoConsent, Actor::Caller, detail)
}

fn freshness(
    policy: &Policy,
    question: &Question<'_>,
    consent: &EffectiveConsent<'_>,
    now_ms: i64,
) -> Verdict {
    let EffectiveConsent::Granted(consent) = consent else {
        return pass(Rule::Freshness, "no consent is recorded");
    };
    if !policy.asks_consent_for(question.category) {
        return pass(
            Rule::Freshness,
            format!("messages of category {} need no consent", question.category.as_str()),
        );
    }
    let country = contact::country(question.channel, question.number);
    let Some(lasts_ms) = policy.consent_lasts_ms(question.category, country.as_deref()) else {
        return pass(Rule::Freshness, "consents to this category do not expire");
    };
    let until_ms = consent.at_ms.saturating_add(lasts_ms);
    let where_from = country.unwrap_or_else(|| "no country".to_owned());
    match now_ms < until_ms {
        true => pass(Rule::Freshness, format!("valid until {} ({where_from})", at(until_ms))),
        false => refuse(
            Rule::Freshness,
            RefusalCode::ConsentStale,
            Actor::Caller,
            format!(
                "the consent was valid until {} ({where_from}): ask the contact again, and record the consent",
                at(until_ms)
            ),
        ),
    }
}

fn open_window(policy: &Policy, question: &Question<'_>, facts: &Facts, now_ms: i64) -> Verdict {
    if question.kind == Kind::Template {
        return pass(Rule::Window, "a template needs no open window");
    }
    if !policy.has_window(question.channel) {
        return pass(Rule::Window, format!("the channel {} has no window", question.channel));
    }
    let until_ms = facts.last_inbound_ms.map(window::expires_ms);
    match until_ms {
        Some(until_ms) if now_ms < until_ms => {
            pass(Rule::Window, format!("open until {}", at(until_ms)))
        }
        Some(until_ms) => refuse(
            Rule::Window,
            RefusalCode::WindowClosed,
            Actor::Caller,
            format!(
                "the window closed {}: send a template, or wait for a message from the contact",
                at(until_ms)
            ),
        ),
        None => refuse(
            Rule::Window,
            RefusalCode::WindowClosed,
            Actor::Caller,
            "the contact has never sent a message to this sender: send a template",
        ),
    }
}

fn at(ms: i64) -> String {
    window::rfc3339(ms).unwrap_or_else(|| "at an unknown time".to_owned())
}

#[cfg(test)]
mod tests;
