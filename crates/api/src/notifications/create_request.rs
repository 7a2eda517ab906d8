//! Body of `POST /v1/notifications`: its fields, and how they become the steps of a plan.

use axum::Extension;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr,
        schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type},
    },
};

use crate::{
    addresses,
    idempotency::as_of_ms,
    messages::create_request::{MediumReference, locale, media_of, send_at_ms},
    problem::Problem,
    query,
};
use twilio_edge_domain::{
    email::EmailAddress,
    policy::Category,
    sending::{
        fallback::{Fallback, FallbackProblem, FallbackTemplate},
        fallback_email::FallbackEmail,
        options::{MessageOptions, Metadata},
        plan::{NotificationPlan, PlanChannel, PlanStep, Step, StepContent, plan_problem},
        request::{MAX_BODY_CHARS, MAX_MEDIA},
        routing::is_plan_name,
        sender::sender,
    },
};
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::{plans::NewNotification, sending::Sending},
};
use twilio_edge_store::IdempotencyClaim;

/// Request to notify one contact.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateNotificationRequest {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Contact.
    to: NotificationRecipient,
    /// Purpose of the notification, for every step.
    category: Category,
    /// Content for each channel of the plan.
    content: NotificationContent,
    /// Plan: its name in the routes, or its steps.
    plan: StatedPlan,
    /// Language of the recipient, such as `pt_BR`: the default for the template.
    #[schema(pattern = "^[A-Za-z]{2,3}([_-][A-Za-z]{4})?([_-]([A-Za-z]{2}|[0-9]{3}))?$")]
    locale: Option<String>,
    /// Earliest time of the first step, in RFC 3339: not in the past, and at most 35 days ahead.
    #[schema(value_type = Option<String>, format = DateTime)]
    send_at: Option<String>,
    /// Data of the caller, which every answer about the notification returns: at most 20 texts of at most 500 characters. It
    /// must contain no personal data, because it is stored as long as the notification.
    #[serde(default)]
    metadata: std::collections::BTreeMap<String, String>,
    /// True: return the verdict of every rule for each step without sending.
    #[serde(default)]
    pub(super) dry_run: bool,
}

/// Contact: the recipient of each channel.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NotificationRecipient {
    /// Number, for WhatsApp and SMS; required if the plan has one of them.
    #[schema(min_length = 1, max_length = 255)]
    number: Option<String>,
    /// Address of e-mail; required if the plan has that channel.
    #[schema(min_length = 3, max_length = 254)]
    email: Option<String>,
    /// Country of a number that has no country code: two letters, such as `DE`.
    #[schema(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
}

/// Contents: one for each channel of the plan.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NotificationContent {
    /// Content for WhatsApp.
    whatsapp: Option<WhatsAppContent>,
    /// Content for SMS.
    sms: Option<SmsContent>,
    /// Content of the e-mail.
    email: Option<EmailContent>,
}

/// Content for WhatsApp: a template, a text with media, or both. With both, the template replaces the text outside of the
/// conversation window.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WhatsAppContent {
    /// Sender on the channel. Without it, the route to the recipient's country names the sender.
    #[schema(min_length = 1, max_length = 255)]
    from: Option<String>,
    /// Text.
    #[schema(min_length = 1, max_length = 1600)]
    text: Option<String>,
    /// Media of the text: public https URLs, or ids from `POST /v1/media`.
    #[serde(default)]
    media: Vec<MediumReference>,
    /// Template.
    template: Option<FallbackTemplate>,
}

/// Content for SMS.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SmsContent {
    /// Sender on the channel. Without it, the route to the recipient's country names the sender.
    #[schema(min_length = 1, max_length = 255)]
    from: Option<String>,
    /// Text.
    #[schema(min_length = 1, max_length = 1600)]
    text: String,
}

/// Content of the e-mail: either a template, or a subject with text or HTML.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EmailContent {
    /// Sender; default: the sender of the account.
    #[schema(min_length = 3, max_length = 254)]
    from: Option<String>,
    /// Id of a dynamic template of SendGrid.
    #[schema(pattern = "^d-[0-9a-fA-F]{32}$")]
    template_id: Option<String>,
    /// Values for the template.
    #[serde(default)]
    #[schema(value_type = Object)]
    data: Map<String, Value>,
    /// Subject.
    #[schema(min_length = 1, max_length = 300)]
    subject: Option<String>,
    /// Plain text.
    #[schema(min_length = 1)]
    text: Option<String>,
    /// HTML.
    #[schema(min_length = 1)]
    html: Option<String>,
}

/// Name of a plan in the routes, or its steps.
#[derive(Deserialize)]
#[serde(untagged)]
enum StatedPlan {
    /// Name of a plan in the routes.
    Named(String),
    /// Steps in their order, with at most one for each channel.
    Steps(Vec<PlanStep>),
}

impl PartialSchema for StatedPlan {
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("Name of a plan in the routes"))
            .pattern(Some("^[a-z0-9_-]{1,64}$"));
        let steps = ArrayBuilder::new()
            .items(Ref::from_schema_name(PlanStep::name()))
            .description(Some("Steps in their order, at most one for each channel"))
            .min_items(Some(1))
            .max_items(Some(PlanChannel::ALL.len()));
        let either = OneOfBuilder::new().item(name).item(steps);
        let about = "Plan: its name in the routes, or its steps";
        RefOr::T(Schema::OneOf(either.description(Some(about)).build()))
    }
}

impl ToSchema for StatedPlan {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((PlanStep::name().into(), PlanStep::schema()));
        <PlanStep as ToSchema>::schemas(schemas);
    }
}

impl CreateNotificationRequest {
    /// Reads the request of a caller.
    pub(super) fn into_notification(
        self,
        sending: &Sending,
        caller: &Caller,
        turn: Option<Extension<IdempotencyClaim>>,
    ) -> Result<NewNotification, Problem> {
        let send_at_ms = send_at_ms(self.send_at.as_deref(), as_of_ms(turn))?;
        let account_sid = query::account(caller, self.account_sid)?;
        let locale = self.locale.as_deref().map(locale).transpose()?;
        let metadata = Metadata(self.metadata);
        let options = MessageOptions { metadata: metadata.clone(), ..MessageOptions::default() };
        if let Some((field, problem)) = options.problem() {
            return Err(addresses::invalid_field(field, &problem));
        }
        let (plan_name, stated) = self.plan.steps(sending, &account_sid)?;
        let contents = Contents::read(self.content, &self.to)?;
        let mut steps = Vec::new();
        for (n, stated) in stated.into_iter().enumerate() {
            let found = contents.of(&stated);
            if found.is_empty() {
                let channel = stated.channel;
                let field = match channel {
                    _ if contents.has(channel) && channel == PlanChannel::Email => "to.email",
                    _ if contents.has(channel) => "to.number",
                    PlanChannel::WhatsApp => "content.whatsapp",
                    PlanChannel::Sms => "content.sms",
                    PlanChannel::Email => "content.email",
                };
                let must =
                    format!("is required: step {} of the plan has the channel {channel}", n + 1);
                return Err(addresses::invalid_field(field, &must));
            }
            steps.extend(found);
        }
        let plan = NotificationPlan::new(self.category, locale.as_ref(), steps);
        Ok(NewNotification { account_sid, plan_name, plan, metadata, send_at_ms })
    }
}

impl StatedPlan {
    /// Returns the name of the plan, and its steps.
    fn steps(
        self,
        sending: &Sending,
        account_sid: &str,
    ) -> Result<(String, Vec<PlanStep>), Problem> {
        match self {
            StatedPlan::Steps(steps) => match plan_problem(&steps) {
                Some(problem) if steps.is_empty() || steps.len() > PlanChannel::ALL.len() => {
                    Err(Problem::malformed(&format!("plan: {problem}")))
                }
                Some(problem) => Err(addresses::invalid_field("plan", &problem)),
                None => Ok((String::new(), steps)),
            },
            StatedPlan::Named(name) if !is_plan_name(&name) => Err(Problem::malformed(
                "plan: must be a name of 1 to 64 lower-case letters, digits, - or _, or a list of steps",
            )),
            StatedPlan::Named(name) => {
                let routing = sending.routes.current();
                let steps = routing.of(account_sid).plan(&name).map(<[PlanStep]>::to_vec);
                let must = "is not a plan in the routes of the account (plans in the file of sending.routing_file)";
                Ok((name, steps.ok_or_else(|| addresses::invalid_field("plan", must))?))
            }
        }
    }
}

/// Contents and recipients that have been read.
struct Contents {
    number: Option<String>,
    whatsapp: Vec<(Option<String>, StepContent)>,
    sms: Option<(Option<String>, StepContent)>,
    email: Option<FallbackEmail>,
}

impl Contents {
    fn read(content: NotificationContent, to: &NotificationRecipient) -> Result<Contents, Problem> {
        let region = addresses::region(to.region.clone())?;
        let number = to.number.as_deref().map(|number| {
            let read = addresses::address("to.number", number, Some("sms"), region);
            read.map(|to| to.number).map_err(Problem::about_recipient)
        });
        let address = to.email.as_deref().map(|email| {
            EmailAddress::parse(email)
                .map_err(|problem| addresses::invalid_field("to.email", problem))
        });
        let sms = content.sms.map(|sms| {
            check_text("content.sms.text", &sms.text)?;
            let from = sms.from.as_deref().map(|from| from_of("sms", from)).transpose()?;
            Ok((from, StepContent::Text { body: sms.text, media: Vec::new() }))
        });
        let (number, sms) = (number.transpose()?, sms.transpose()?);
        let to = address.transpose()?.map(|to| to.as_str().to_owned());
        let whatsapp = content.whatsapp.map(WhatsAppContent::read).transpose()?;
        let email = content.email.map(|email| email.read(to)).transpose()?;
        Ok(Contents { number, whatsapp: whatsapp.unwrap_or_default(), sms, email })
    }

    /// Returns whether the request has a content for this channel.
    fn has(&self, channel: PlanChannel) -> bool {
        match channel {
            PlanChannel::WhatsApp => !self.whatsapp.is_empty(),
            PlanChannel::Sms => self.sms.is_some(),
            PlanChannel::Email => self.email.is_some(),
        }
    }

    /// Returns the steps of a stated step: two for a text and its template; none without a content or a recipient.
    fn of(&self, stated: &PlanStep) -> Vec<Step> {
        let step = |to: &str, from: &Option<String>, content: &StepContent| Step {
            channel: stated.channel,
            to: to.to_owned(),
            from: from.clone(),
            content: content.clone(),
            within_s: stated.within_s,
            move_on: stated.move_on.clone(),
        };
        let number = self.number.as_deref();
        match stated.channel {
            PlanChannel::WhatsApp => {
                let contents = number.map(|_| &self.whatsapp).into_iter().flatten();
                let number = number.unwrap_or_default();
                contents.map(|(from, content)| step(number, from, content)).collect()
            }
            PlanChannel::Sms => {
                let found = self.sms.as_ref().zip(number);
                found.map(|((from, content), to)| step(to, from, content)).into_iter().collect()
            }
            PlanChannel::Email => {
                let found = self.email.as_ref().and_then(|email| Some((email, email.to.as_ref()?)));
                let content = |email: &FallbackEmail| StepContent::Email(Box::new(email.clone()));
                found.map(|(email, to)| step(to, &None, &content(email))).into_iter().collect()
            }
        }
    }
}

impl WhatsAppContent {
    /// Returns the text and the template, each with the sender.
    fn read(self) -> Result<Vec<(Option<String>, StepContent)>, Problem> {
        let from = self.from.as_deref().map(|from| from_of("whatsapp", from)).transpose()?;
        let media = media_of(self.media);
        if media.len() > MAX_MEDIA {
            let must = format!("must have at most {MAX_MEDIA} entries");
            return Err(addresses::invalid_field("content.whatsapp.media", &must));
        }
        let mut contents = Vec::new();
        if let Some(text) = &self.text {
            check_text("content.whatsapp.text", text)?;
        }
        if self.text.is_some() || !media.is_empty() {
            contents.push(StepContent::Text { body: self.text.unwrap_or_default(), media });
        }
        if let Some(template) = self.template {
            let fallback = Fallback { template: Some(template.clone()), ..Fallback::default() };
            refuse_first("content.whatsapp", &fallback.problems())?;
            contents.push(StepContent::Template(template));
        }
        if contents.is_empty() {
            let must = "must have a text, media, or a template";
            return Err(addresses::invalid_field("content.whatsapp", must));
        }
        Ok(contents.into_iter().map(|content| (from.clone(), content)).collect())
    }
}

impl EmailContent {
    fn read(self, to: Option<String>) -> Result<FallbackEmail, Problem> {
        let email = FallbackEmail {
            to,
            from: self.from,
            template_id: self.template_id,
            data: self.data,
            subject: self.subject,
            text: self.text,
            html: self.html,
        };
        refuse_first("content", &email.problems())?;
        let is_complete = email.template_id.is_some()
            || (email.subject.is_some() && (email.text.is_some() || email.html.is_some()));
        match is_complete {
            true => Ok(email),
            false => Err(addresses::invalid_field(
                "content.email",
                "must have either a template_id, or a subject with text or html",
            )),
        }
    }
}

fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    match (1..=MAX_BODY_CHARS).contains(&text.chars().count()) {
        true => Ok(()),
        false => {
            Err(Problem::malformed(&format!("{field}: must have 1 to {MAX_BODY_CHARS} characters")))
        }
    }
}

/// Reads a sender on a channel, as messages store it.
fn from_of(channel: &str, from: &str) -> Result<String, Problem> {
    let field = format!("content.{channel}.from");
    let read = sender(from, Some(channel));
    let read = read.map_err(|problem| addresses::invalid_field(&field, &problem))?;
    Ok(read.name())
}

fn refuse_first(field: &str, problems: &[FallbackProblem]) -> Result<(), Problem> {
    match problems.first() {
        Some(FallbackProblem::Malformed(problem)) => {
            Err(Problem::malformed(&format!("{field}.{problem}")))
        }
        Some(FallbackProblem::Invalid(problem)) => Err(addresses::invalid_field(field, problem)),
        None => Ok(()),
    }
}
