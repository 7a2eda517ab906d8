//! `POST /v1/checks`: checks whether a message may be sent to a recipient now.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{addresses, problem::Problem, query};
use crate::{
    app::App,
    body::{json, object},
};
use twilio_edge_domain::{
    address::Address,
    check::{Kind, Verdict},
    contact,
    policy::Category,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::{
    api_keys::Caller,
    permissions::{Checks, Intent},
};

/// A message to check: its sender, recipient, kind and category.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CheckRequest {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Own number or sender. If omitted, a conversation window with any own number counts.
    from: Option<String>,
    /// Recipient, such as `+15551234567` or `whatsapp:+15551234567`.
    #[schema(min_length = 1, max_length = 255)]
    to: String,
    /// Channel of the recipient, such as `sms` or `whatsapp`, if `to` has no channel prefix.
    #[schema(pattern = "^[a-z_]{1,32}$")]
    channel: Option<String>,
    /// Country of a number that has no country code: two letters, such as `DE`.
    #[schema(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    /// Purpose of the message. Defaults to `service` for free text and to `marketing` for a template.
    category: Option<Category>,
    /// Kind of the message: free text or a template.
    kind: Kind,
}

/// Result of a check: the decision, and the verdict of every rule.
#[derive(Serialize, ToSchema)]
struct CheckResponse {
    /// True if no rule refuses the message.
    allowed: bool,
    account_sid: String,
    to: String,
    /// Channel of the recipient: `sms`, `whatsapp`, ..
    channel: String,
    /// Country of the number: two letters; `null` if the number belongs to no country.
    country: Option<String>,
    category: Category,
    kind: Kind,
    /// Verdicts of all rules.
    verdicts: Vec<Verdict>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(check))
}

/// Checks whether a message may be sent to a recipient now. Nothing is sent. A STOP that any sidecar received counts at
/// once.
#[utoipa::path(
    post,
    path = "/v1/checks",
    tag = "checks",
    operation_id = "check",
    request_body = CheckRequest,
    responses((status = 200, description = "The verdict of each rule", body = CheckResponse), Problem),
    security(("key" = [])),
)]
async fn check(
    State(checks): State<Arc<Checks>>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let CheckRequest { account_sid, from, to, channel, region, category, kind } = object(body)?;
    let region = addresses::region(region)?;
    let account_sid = query::account(&caller, account_sid)?;
    let to =
        addresses::recipient(&checks, &account_sid, "to", &to, channel.as_deref(), region).await?;
    let from = from.map(|from| Address::parse(&from).map(|from| from.number).unwrap_or(from));
    let intent = Intent {
        account_sid,
        from,
        category: category.unwrap_or_else(|| kind.default_category()),
        to,
        kind,
        reply: None,
        ignores_opt_outs: false,
    };
    let verdicts = checks.may_send(&intent, now_ms()).await;
    let verdicts = verdicts.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&CheckResponse {
        allowed: verdicts.iter().all(|verdict| verdict.ok),
        account_sid: intent.account_sid,
        country: contact::country(&intent.to.channel, &intent.to.number),
        to: intent.to.number,
        channel: intent.to.channel,
        category: intent.category,
        kind,
        verdicts,
    }))
}
