//! `POST /v1/emails`: sends an e-mail, or with `dry_run` returns the verdicts of all rules. An e-mail is a message on the channel
//! `email`; `create.rs` accepts it and renders the answer.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    acceptance::NewMessage,
    create::{CreateMessageResponse, create},
    create_request::send_at_ms,
    outcome::WaitQuery,
};
use crate::{
    addresses,
    app::App,
    body::object,
    idempotency::{IdempotencyKeyHeader, as_of_ms},
    problem::Problem,
    query,
    views::Message,
};
use twilio_edge_domain::{
    address::Address,
    email::{
        CHANNEL, EmailAddress,
        content::{Body, Email, Mailbox},
    },
    policy::Category,
    refusal::RefusalCode,
    sending::{
        options::{MessageOptions, Metadata},
        request::{Content, Request},
    },
};
use twilio_edge_services::{access::api_keys::Caller, outbound::sending::Sending};
use twilio_edge_store::IdempotencyClaim;

/// Request to send an e-mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateEmailRequest {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Address of the recipient, without a display name.
    #[schema(min_length = 3, max_length = 254)]
    to: String,
    /// Address of the sender: the default sender of the account, which applies without this field, or another one that the
    /// operator permits.
    #[schema(min_length = 3, max_length = 254)]
    from: Option<String>,
    /// Name of the sender that mail programs show.
    #[schema(max_length = 100)]
    from_name: Option<String>,
    /// Address for replies.
    #[schema(min_length = 3, max_length = 254)]
    reply_to: Option<String>,
    /// Id of a dynamic template of SendGrid, instead of subject, text and html.
    #[schema(pattern = "^d-[0-9a-fA-F]{32}$")]
    template_id: Option<String>,
    /// Values for the template.
    #[serde(default)]
    #[schema(value_type = Object)]
    data: Map<String, Value>,
    /// Subject.
    #[schema(min_length = 1, max_length = 300)]
    subject: Option<String>,
    /// Plain text; with `html`, its alternative for mail programs that show none.
    #[schema(min_length = 1)]
    text: Option<String>,
    /// HTML.
    #[schema(min_length = 1)]
    html: Option<String>,
    /// Purpose of the e-mail. Defaults to `service`, and with a template to `marketing`.
    category: Option<Category>,
    /// Earliest time of sending, in RFC 3339: not in the past, and at most 35 days ahead.
    #[schema(value_type = Option<String>, format = DateTime)]
    send_at: Option<String>,
    /// Data of the caller, which every answer about the e-mail returns: at most 20 texts of at most 500 characters. It must
    /// contain no personal data, because it is stored as long as the e-mail.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    /// True: return the verdict of every rule without sending.
    #[serde(default)]
    dry_run: bool,
}

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(send))
}

/// Sends an e-mail once. The answer comes as soon as the e-mail is durably stored, and it is sent right after. With `wait_ms`, the
/// answer comes once the provider has decided. `GET /v1/messages/{id}` shows its state. docs/EMAIL.md describes e-mails.
#[utoipa::path(
    post,
    path = "/v1/emails",
    tag = "messages",
    params(IdempotencyKeyHeader, WaitQuery),
    operation_id = "send_email",
    request_body = CreateEmailRequest,
    responses(
        (status = 200, description = "With `dry_run`: the verdict of each rule; nothing is sent. With `wait_ms`: the outcome of the e-mail", body = CreateMessageResponse),
        (status = 202, description = "The e-mail is accepted and has no outcome yet", body = Message, headers(("location" = String, description = "Path of the message, which shows its state"), ("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn send(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body: CreateEmailRequest = object(body)?;
    let dry_run = body.dry_run;
    let message = body.into_message(&caller, as_of_ms(turn.clone()))?;
    create(&sending, &caller, turn, message, dry_run).await
}

impl CreateEmailRequest {
    /// Returns whether the request asks for the verdicts only.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Reads the request of a caller.
    pub(super) fn into_message(self, caller: &Caller, now_ms: i64) -> Result<NewMessage, Problem> {
        let send_at_ms = send_at_ms(self.send_at.as_deref(), now_ms)?;
        let account_sid = query::account(caller, self.account_sid.clone())?;
        let to = address("to", &self.to)?;
        let from = self.from.as_deref().map(|from| address("from", from)).transpose()?;
        let reply_to =
            self.reply_to.as_deref().map(|text| address("reply_to", text)).transpose()?;
        let own = |text: &Option<String>| text.clone().unwrap_or_default();
        let is_own = self.subject.is_some() || self.text.is_some() || self.html.is_some();
        let body = match (self.template_id, is_own) {
            (Some(id), false) => Body::Template { id, data: self.data },
            (None, true) if self.data.is_empty() => Body::Own {
                subject: own(&self.subject),
                text: own(&self.text),
                html: own(&self.html),
            },
            _ => {
                let must =
                    "Specify either template_id with data, or subject with text, html or both.";
                return Err(Problem::with(RefusalCode::UnclearMessage, must));
            }
        };
        let mailbox = |address: EmailAddress, name: String| Mailbox {
            address: address.as_str().to_owned(),
            name,
        };
        let name = self.from_name.unwrap_or_default();
        let email = Email {
            to: to.as_str().to_owned(),
            from: match from {
                Some(from) => mailbox(from, name),
                None => Mailbox { address: String::new(), name },
            },
            reply_to: reply_to.map(|address| mailbox(address, String::new())),
            body,
        };
        if let Some((field, problem)) = email.problem() {
            return Err(addresses::invalid_field(field, &problem));
        }
        let options =
            MessageOptions { metadata: Metadata(self.metadata), ..MessageOptions::default() };
        if let Some((field, problem)) = options.problem() {
            return Err(addresses::invalid_field(field, &problem));
        }
        let to = Address { channel: CHANNEL.to_owned(), number: to.as_str().to_owned() };
        let request = Request {
            category: self.category,
            options,
            ..Request::new(account_sid, to, Content::Email(Box::new(email)))
        };
        // Nothing reports that an e-mail certainly was not delivered, so none is sent again.
        Ok(NewMessage {
            request,
            send_at_ms,
            other_parameters: String::new(),
            is_repeatable: false,
        })
    }
}

fn address(field: &str, text: &str) -> Result<EmailAddress, Problem> {
    EmailAddress::parse(text).map_err(|problem| addresses::invalid_field(field, problem))
}
