//! Rules that a message must pass, in the order in which refusals are reported: first those that the operator must resolve,
//! then those of the request, then those of the recipient and the law. Every rule gives a verdict; a request to send reports
//! the first refusal, a dry run all of them. The caller passes the facts; this module does no lookups.

use serde::Serialize;

use super::{
    request::{Content, MAX_BODY_CHARS, Request, Sender},
    routing::Routes,
};
use crate::{
    actor::Actor,
    address::Address,
    check, contact, email,
    media::{MediaCheck, MediaProblem, MediaProblemKind},
    phone,
    refusal::{RefusalCode, SendRefusalCode},
    template::{
        SendPermission,
        catalogue::OfferedTemplate,
        locale::Locale,
        variables::{self, VariableContext},
    },
};

/// Rules in their order. Rules about templates, media or routes precede those about the recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SendRule)]
pub enum Rule {
    /// The account has Twilio credentials.
    Credentials,
    /// The message has a sender on the channel of the recipient.
    Sender,
    /// The recipient can receive messages of the channel.
    Recipient,
    /// Twilio accepts the content.
    Content,
    /// The template exists, may be sent, and has a value for each variable.
    Template,
    /// The country is not blocked.
    Region,
    /// See [`check::Rule`].
    Suppression,
    /// See [`check::Rule`].
    Consent,
    /// See [`check::Rule`].
    Freshness,
    /// See [`check::Rule`].
    Window,
    /// Few verifications of the number, and of the end user, started before.
    Limit,
    /// Twilio can fetch the media, and the channel accepts them. This rule comes last because it fetches them, which must
    /// not happen for a recipient who may not be contacted.
    Media,
}

impl Rule {
    /// Returns whether the rule depends on the recipient; its verdict may change before the message is sent.
    pub fn is_about_recipient(self) -> bool {
        matches!(self, Rule::Suppression | Rule::Consent | Rule::Freshness | Rule::Window)
    }
}

/// Verdict of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = SendVerdict)]
pub struct Verdict {
    /// Rule.
    pub rule: Rule,
    /// True if the rule allows the message.
    pub ok: bool,
    /// RefusalCode of the refusal.
    #[schema(value_type = Option<SendRefusalCode>)]
    pub code: Option<RefusalCode>,
    /// Explanation in words, without the number of the recipient.
    pub detail: String,
    /// Party that can resolve the refusal.
    pub actor: Option<Actor>,
    /// Templates that may be sent instead, if the window is closed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<OfferedTemplate>,
}

/// Facts beside the request.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// True if the account has credentials: of Twilio, or for an e-mail those of its provider.
    pub has_credentials: bool,
    /// True if the provider of the account's e-mails has templates.
    pub has_email_templates: bool,
    /// Routes of the account.
    pub routes: &'a Routes,
    /// Verdicts of `POST /v1/checks`: the same decision, not a second one.
    pub checks: Vec<check::Verdict>,
    /// Result of the media probe.
    pub media: &'a MediaCheck,
    /// Templates that may be sent to this recipient at any time.
    pub offers: Vec<OfferedTemplate>,
}

/// Returns the verdict of every rule, in order. The message may be sent if all verdicts are `ok`.
pub fn evaluate(request: &Request, facts: Facts<'_>) -> Vec<Verdict> {
    let is_closed = |said: &check::Verdict| said.code == Some(RefusalCode::WindowClosed);
    let has_window = !facts.checks.iter().any(is_closed);
    let mut verdicts = vec![
        match request.content {
            Content::Email(_) => email_account(facts.has_credentials),
            _ => credentials(facts.has_credentials),
        },
        match (&request.sender, &request.content) {
            (None, Content::Email(_)) => refuse(
                Rule::Sender,
                RefusalCode::SenderUnknown,
                Actor::Caller,
                "from: the account may not send e-mails from this address: use its default sender, or one of senders in the file of email.file",
            ),
            (named, _) => sender(named.as_ref(), &request.to),
        },
        recipient(&request.to),
        content(request, facts.has_email_templates),
        template(request, has_window),
        region(&request.to, facts.routes),
    ];
    verdicts.extend(facts.checks.into_iter().map(of_check));
    verdicts.push(media(facts.media));
    let closed = verdicts.iter_mut().find(|said| said.code == Some(RefusalCode::WindowClosed));
    if let Some(closed) = closed {
        closed.templates = facts.offers;
    }
    verdicts
}

/// Returns the verdict about the media of a message, before or after they are fetched.
pub fn media(looked: &MediaCheck) -> Verdict {
    match looked {
        MediaCheck::NoMedia => pass(Rule::Media, "the message has no media"),
        MediaCheck::NotFetched(why) => {
            pass(Rule::Media, format!("the media were not fetched: {why}"))
        }
        MediaCheck::Valid => {
            pass(Rule::Media, "Twilio can fetch the media, and the channel accepts them")
        }
        MediaCheck::Invalid(n, unfit) => {
            let detail = format!("media[{n}]: {}", unfit.detail);
            refuse(Rule::Media, code_of_problem(unfit), Actor::Caller, detail)
        }
    }
}

/// Returns the code for an unfit medium.
pub fn code_of_problem(unfit: &MediaProblem) -> RefusalCode {
    match unfit.kind {
        MediaProblemKind::Size => RefusalCode::MediaTooLarge,
        MediaProblemKind::Unreachable
        | MediaProblemKind::Status
        | MediaProblemKind::Slow
        | MediaProblemKind::Busy => RefusalCode::MediaUnreachable,
        MediaProblemKind::Count => RefusalCode::TooManyMedia,
        MediaProblemKind::Url
        | MediaProblemKind::NotPublic
        | MediaProblemKind::Redirects
        | MediaProblemKind::Type
        | MediaProblemKind::Mismatch
        | MediaProblemKind::Encoded
        | MediaProblemKind::Missing => RefusalCode::MediaRejected,
    }
}

fn pass(rule: Rule, detail: impl Into<String>) -> Verdict {
    let (detail, templates) = (detail.into(), Vec::new());
    Verdict { rule, ok: true, code: None, detail, actor: None, templates }
}

fn refuse(rule: Rule, code: RefusalCode, actor: Actor, detail: impl Into<String>) -> Verdict {
    let (code, actor) = (Some(code), Some(actor));
    let (detail, templates) = (detail.into(), Vec::new());
    Verdict { rule, ok: false, code, detail, actor, templates }
}

pub(super) fn credentials(has_credentials: bool) -> Verdict {
    if has_credentials {
        return pass(Rule::Credentials, "the account has Twilio credentials");
    }
    let detail = "the account has no Twilio credentials: add the account and its API key to the file of sending.file";
    refuse(Rule::Credentials, RefusalCode::NoCredentials, Actor::Operator, detail)
}

fn email_account(has_credentials: bool) -> Verdict {
    if has_credentials {
        return pass(Rule::Credentials, "the account has a provider of e-mails");
    }
    let detail =
        "the account sends no e-mails: add the account and its provider to the file of email.file";
    refuse(Rule::Credentials, RefusalCode::NoCredentials, Actor::Operator, detail)
}

pub(super) fn sender(sender: Option<&Sender>, to: &Address) -> Verdict {
    let unknown = |detail| refuse(Rule::Sender, RefusalCode::SenderUnknown, Actor::Caller, detail);
    match sender {
        None => unknown(
            "from: is missing, and no route names a sender: specify from or messaging_service_sid",
        ),
        // Twilio's 21910.
        Some(Sender::From(from)) if from.channel != to.channel => {
            unknown("from: must be on the same channel as to")
        }
        // Twilio's 63031.
        Some(Sender::From(from)) if from == to => unknown("from: must differ from to"),
        Some(Sender::From(from)) => pass(Rule::Sender, format!("the sender is {from}")),
        Some(Sender::Service(sid)) => pass(Rule::Sender, format!("the sender is {sid}")),
    }
}

pub(super) fn verify_service(service_sid: Option<&str>) -> Verdict {
    if let Some(sid) = service_sid {
        return pass(Rule::Sender, format!("the Verify Service is {sid}"));
    }
    let detail = "the account has no Verify Service: set verify_service_sid of the account in the file of sending.file";
    refuse(Rule::Sender, RefusalCode::NoVerifyService, Actor::Operator, detail)
}

/// Returns the verdict about a verification of a number, or of an end user, that started too many of them.
pub fn start_limit() -> Verdict {
    let detail = "too many verifications of this number or this end user started";
    refuse(Rule::Limit, RefusalCode::VerificationLimit, Actor::Caller, detail)
}

pub(super) fn recipient(to: &Address) -> Verdict {
    // Twilio reports it as 21614 or 30006 after the message was paid for.
    if to.channel == "sms" && phone::is_landline(&to.number) {
        let detail = "to: is a landline, which cannot receive SMS";
        return refuse(Rule::Recipient, RefusalCode::InvalidRecipient, Actor::Caller, detail);
    }
    pass(Rule::Recipient, "the recipient can receive messages on this channel")
}

fn content(request: &Request, has_email_templates: bool) -> Verdict {
    let refused =
        |detail: String| refuse(Rule::Content, RefusalCode::ContentRejected, Actor::Caller, detail);
    if let Content::Email(email) = &request.content {
        let is_possible = has_email_templates || email.template_id().is_empty();
        let problem = "template_id: the account sends e-mails by SMTP, which has no templates: specify subject and text or html";
        return match (is_possible, email.problem()) {
            (false, _) => refused(problem.to_owned()),
            (true, Some((field, problem))) => refused(format!("{field}: {problem}")),
            (true, None) => pass(Rule::Content, "the provider accepts the content"),
        };
    }
    let Content::Session { body, .. } = &request.content else {
        return pass(Rule::Content, "the content is a template");
    };
    if body.chars().count() > MAX_BODY_CHARS {
        return refused(format!("body: has more than {MAX_BODY_CHARS} characters"));
    }
    pass(Rule::Content, "Twilio accepts the content")
}

fn template(request: &Request, has_window: bool) -> Verdict {
    let unapproved = |detail: String| {
        refuse(Rule::Template, RefusalCode::TemplateNotApproved, Actor::Operator, detail)
    };
    let given = match &request.content {
        Content::Session { .. } => return pass(Rule::Template, "the content is not a template"),
        Content::Email(_) => {
            return pass(Rule::Template, "the provider of e-mails validates its templates");
        }
        Content::Named { name, .. } => {
            let wanted = request.locale.clone().unwrap_or_else(Locale::default_locale);
            let chain: Vec<String> = wanted.chain().iter().map(Locale::to_string).collect();
            let detail = format!(
                "the catalogue of the account has no template {name:?} in {}; GET /v1/templates lists it",
                chain.join(", ")
            );
            return refuse(Rule::Template, RefusalCode::TemplateUnknown, Actor::Caller, detail);
        }
        Content::Template { variables, .. } => variables,
    };
    let known = request.template.as_ref();
    if let Some(template) = known {
        let says = template.approval.as_str();
        match template.approval.on(&request.to.channel) {
            SendPermission::Template => {}
            SendPermission::FreeText if has_window => {}
            SendPermission::FreeText => {
                return unapproved(format!(
                    "WhatsApp has not approved the template ({says}): it can be sent only while the conversation window is open"
                ));
            }
            SendPermission::Forbidden if template.reason.is_empty() => {
                return unapproved(format!("WhatsApp does not allow the template: {says}"));
            }
            SendPermission::Forbidden => {
                return unapproved(format!(
                    "WhatsApp does not allow the template: {says}, {}",
                    template.reason
                ));
            }
        }
    }
    let asked = VariableContext {
        places: known.map(|template| &template.variables),
        text: known.map_or("", |template| &template.text),
        has_others: known.is_some_and(|template| template.has_others),
        channel: &request.to.channel,
    };
    let problems = variables::problems(asked, given);
    if problems.is_empty() {
        let detail = if known.is_some() {
            "every variable has a value"
        } else {
            "the catalogue does not have the template; Twilio validates it"
        };
        return pass(Rule::Template, detail);
    }
    let detail = format!("variables: {}", problems.join("; "));
    refuse(Rule::Template, RefusalCode::VariablesRejected, Actor::Caller, detail)
}

pub(super) fn region(to: &Address, routes: &Routes) -> Verdict {
    if to.channel == email::CHANNEL {
        return pass(Rule::Region, "an address of e-mail has no country");
    }
    match routes.blocks(contact::country(&to.channel, &to.number).as_deref()) {
        Some(detail) => refuse(Rule::Region, RefusalCode::RegionBlocked, Actor::Operator, detail),
        None => pass(Rule::Region, "the country is not blocked"),
    }
}

pub(super) fn of_check(verdict: check::Verdict) -> Verdict {
    Verdict {
        rule: match verdict.rule {
            check::Rule::Suppression => Rule::Suppression,
            check::Rule::Consent => Rule::Consent,
            check::Rule::Freshness => Rule::Freshness,
            check::Rule::Window => Rule::Window,
        },
        ok: verdict.ok,
        code: verdict.code,
        detail: verdict.detail,
        actor: verdict.actor,
        templates: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
