//! Body of `POST /v1/messages`, and of each message of a batch: its fields, and how they become a request of the domain.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::acceptance::NewMessage;
use crate::{addresses, body::integer, problem::Problem, query};
use twilio_edge_domain::{
    address::Address,
    email,
    media::reference_to,
    period::instant,
    policy::Category,
    refusal::RefusalCode,
    sending::{
        fallback::{Fallback, FallbackProblem},
        options::{MessageOptions, Metadata},
        request::{Content, Request, Sender},
        sender::sender,
    },
    template::{is_content_sid, is_name, locale::Locale},
};
use twilio_edge_services::{access::api_keys::Caller, outbound::sending::Sending};

/// Latest `send_at`, in milliseconds from now: the same limit as that of Twilio's message scheduling.
const FURTHEST_MS: i64 = 35 * 86_400_000;

/// Largest age of `send_at`, in milliseconds: the clocks of caller and sidecar may differ.
const LATE_MS: i64 = 60_000;

/// Request to send a message.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateMessageRequest {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Recipient, such as `+15551234567` or `whatsapp:+15551234567`.
    #[schema(min_length = 1, max_length = 255)]
    to: String,
    /// Channel of the recipient, such as `sms` or `whatsapp`, if `to` has no channel prefix.
    #[schema(pattern = "^[a-z_]{1,32}$")]
    channel: Option<String>,
    /// Country of a number that has no country code: two letters, such as `DE`.
    #[schema(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    /// Sender on the channel of the recipient: a number, on SMS also a short code or an alphanumeric sender id, or the SID of
    /// a Messaging Service. Without `from` and `messaging_service_sid` the route to the recipient's country names the sender.
    #[schema(min_length = 1, max_length = 255)]
    from: Option<String>,
    /// SID of the Messaging Service that chooses the sender.
    #[schema(pattern = "^MG[0-9a-f]{32}$")]
    messaging_service_sid: Option<String>,
    /// Text of the message.
    #[schema(min_length = 1)]
    body: Option<String>,
    /// Media of the message: public https URLs that Twilio and this sidecar can fetch, or ids from `POST /v1/media`.
    /// WhatsApp permits one.
    #[serde(default)]
    media: Vec<MediumReference>,
    /// Template by its name in the catalogue (`GET /v1/templates`), instead of text and media.
    template: Option<MessageTemplate>,
    /// Language of the recipient, such as `pt_BR`. It is the default for the template, and selects the templates that are
    /// offered instead of free text.
    #[schema(pattern = "^[A-Za-z]{2,3}([_-][A-Za-z]{4})?([_-]([A-Za-z]{2}|[0-9]{3}))?$")]
    locale: Option<String>,
    /// Template by Twilio's content SID, instead of text and media.
    #[schema(pattern = "^HX[0-9a-f]{32}$")]
    content_sid: Option<String>,
    /// Values of the template's variables, for `content_sid`.
    #[serde(default)]
    content_variables: BTreeMap<String, String>,
    /// Purpose of the message. Defaults to `service` for free text. For a template it defaults to the category in the
    /// catalogue, or else to `marketing`.
    category: Option<Category>,
    /// Earliest time of sending, in RFC 3339: not in the past, and at most 35 days ahead.
    #[schema(value_type = Option<String>, format = DateTime)]
    send_at: Option<String>,
    /// URL to which Twilio reports the statuses of the message, instead of the configured one. The sidecar adds its id of the
    /// message to the query. A callback to a URL that is not behind the filter does not reach the sidecar. If Twilio never
    /// receives the message, the sidecar sends its end to the URL: `failed` or `canceled`, with Twilio's signature.
    #[schema(min_length = 1)]
    status_callback: Option<String>,
    /// Time in seconds, from the earliest time of sending, after which the message must no longer be sent. Defaults to the
    /// settings of the sidecar, and at Twilio to 36000.
    #[serde(default, deserialize_with = "integer")]
    #[schema(minimum = 1, maximum = 36000)]
    validity_period_s: Option<u32>,
    /// Twilio's `MaxPrice`, a decimal number. Twilio ignores it since June 2024.
    #[schema(pattern = r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]
    max_price: Option<String>,
    /// Data of the caller, which every answer about the message returns: at most 20 texts of at most 500 characters. It must
    /// contain no personal data, because it is stored as long as the message.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    /// Fallback if the channel does not accept the message: a template, a text by SMS, an e-mail, or several of them, tried
    /// in turn. Defaults to the fallback that the operator configured; `{}` disables it.
    fallback: Option<Fallback>,
    /// True: return the verdict of every rule without sending.
    #[serde(default)]
    dry_run: bool,
}

/// A template and the values of its variables.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageTemplate {
    /// Name of the template in the catalogue.
    #[schema(min_length = 1, max_length = 512, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    name: String,
    /// Language, such as `pt_BR`. If the template lacks it, the order is `pt`, then `en_US`, then `en`. Defaults to
    /// `en_US`.
    #[schema(pattern = "^[A-Za-z]{2,3}([_-][A-Za-z]{4})?([_-]([A-Za-z]{2}|[0-9]{3}))?$")]
    locale: Option<String>,
    /// Values of the variables: one text for each.
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// A URL, or a reference to a stored medium.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum MediumReference {
    Url(String),
    Stored(StoredMedium),
}

/// Reference to a medium that `POST /v1/media` stored.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredMedium {
    /// Id of the medium, `md_` and 32 hexadecimal digits.
    #[schema(pattern = "^md_[0-9a-f]{32}$")]
    id: String,
}

impl CreateMessageRequest {
    /// Returns whether the request asks for the verdicts only.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Reads the request of a caller.
    pub(super) async fn into_message(
        self,
        sending: &Sending,
        caller: &Caller,
        now_ms: i64,
    ) -> Result<NewMessage, Problem> {
        let send_at_ms = send_at_ms(self.send_at.as_deref(), now_ms)?;
        let account_sid = query::account(caller, self.account_sid.clone())?;
        let region = addresses::region(self.region.clone())?;
        let channel = self.channel.as_deref();
        let to =
            addresses::recipient(&sending.checks, &account_sid, "to", &self.to, channel, region)
                .await
                .map_err(|problem| problem.about_recipient())?;
        if to.channel == email::CHANNEL {
            let must = "must not be an address of e-mail: POST /v1/emails sends e-mails";
            return Err(addresses::invalid_field("to", must));
        }
        let request = self.read(account_sid, to)?;
        let other_parameters = String::new();
        Ok(NewMessage { request, send_at_ms, other_parameters, is_repeatable: true })
    }

    fn read(self, account_sid: String, to: Address) -> Result<Request, Problem> {
        let is_sid = |text: &str, prefix: &str| {
            text.strip_prefix(prefix).is_some_and(|rest| {
                rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        };
        let sender = match (self.from, self.messaging_service_sid) {
            (Some(_), Some(_)) => return Err(Problem::of(RefusalCode::UnclearMessage)),
            (Some(from), None) => Some(
                sender(&from, Some(&to.channel))
                    .map_err(|problem| addresses::invalid_field("from", &problem))?,
            ),
            (None, Some(sid)) if !is_sid(&sid, "MG") => {
                let must = "messaging_service_sid: must be MG and 32 hexadecimal digits";
                return Err(Problem::malformed(must));
            }
            (None, sid) => sid.map(Sender::Service),
        };
        let body = self.body.unwrap_or_default();
        let media = media_of(self.media);
        let asked = self.template.as_ref().and_then(|template| template.locale.as_deref());
        let locale = asked.or(self.locale.as_deref()).map(locale).transpose()?;
        let content = match (self.content_sid, self.template) {
            (Some(_), Some(_)) => return Err(Problem::of(RefusalCode::UnclearMessage)),
            (None, Some(MessageTemplate { name, variables, .. }))
                if body.is_empty() && media.is_empty() && self.content_variables.is_empty() =>
            {
                if !is_name(&name) {
                    return Err(Problem::malformed(
                        "template.name: must be one line, and not empty",
                    ));
                }
                Content::Named { name, variables }
            }
            (Some(sid), None) if !is_content_sid(&sid) => {
                return Err(Problem::malformed(
                    "content_sid: must be HX and 32 hexadecimal digits",
                ));
            }
            (Some(content_sid), None) if body.is_empty() && media.is_empty() => {
                Content::Template { content_sid, variables: self.content_variables }
            }
            (None, None)
                if self.content_variables.is_empty() && !(body.is_empty() && media.is_empty()) =>
            {
                Content::Session { body, media }
            }
            _ => return Err(Problem::of(RefusalCode::UnclearMessage)),
        };
        let fallback = self.fallback.map(|fallback| match fallback.problems().first() {
            Some(FallbackProblem::Malformed(problem)) => {
                Err(Problem::malformed(&format!("fallback.{problem}")))
            }
            Some(FallbackProblem::Invalid(problem)) => {
                Err(addresses::invalid_field("fallback", problem))
            }
            None => Ok(fallback),
        });
        let options = MessageOptions {
            status_callback: self.status_callback,
            validity_period_s: self.validity_period_s,
            max_price: self.max_price,
            metadata: Metadata(self.metadata),
        };
        if let Some((field, problem)) = options.problem() {
            return Err(addresses::invalid_field(field, &problem));
        }
        Ok(Request {
            sender,
            category: self.category,
            locale,
            fallback: fallback.transpose()?,
            options,
            ..Request::new(account_sid, to, content)
        })
    }
}

/// Returns the URLs of media, and the references to stored ones.
pub(crate) fn media_of(media: Vec<MediumReference>) -> Vec<String> {
    let named = |medium| match medium {
        MediumReference::Url(url) => url,
        MediumReference::Stored(StoredMedium { id }) => reference_to(&id),
    };
    media.into_iter().map(named).collect()
}

/// Parses the earliest time of sending, in milliseconds since 1970, or refuses it.
pub(crate) fn send_at_ms(text: Option<&str>, now_ms: i64) -> Result<Option<i64>, Problem> {
    let send_at_ms = text.map(instant).transpose();
    let send_at_ms =
        send_at_ms.map_err(|problem| Problem::malformed(&format!("send_at: {problem}")))?;
    let times = now_ms.saturating_sub(LATE_MS)..=now_ms.saturating_add(FURTHEST_MS);
    if send_at_ms.is_some_and(|at_ms| !times.contains(&at_ms)) {
        let must = "must not be in the past, and must be within 35 days";
        return Err(addresses::invalid_field("send_at", must));
    }
    Ok(send_at_ms)
}

/// Parses a language, or refuses it.
pub(crate) fn locale(text: &str) -> Result<Locale, Problem> {
    let must = "locale: must be a language such as en, pt_BR or zh_Hant_TW";
    Locale::parse(text).ok_or_else(|| Problem::malformed(must))
}
