//! `POST /v1/checks`: may this be sent to this person now?

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{finding, people, problem::Problem};
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
use twilio_edge_services::access::{api_keys::Caller, permissions::Intent};

/// What is to be sent, by whom, to whom.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Check {
    /// Whose: that of the key, if it is bound to one; else this has to be said.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Our number or sender. Without, the window is that with any of ours.
    from: Option<String>,
    /// The person: `+15551234567`, `whatsapp:+15551234567`.
    #[schema(min_length = 1, max_length = 255)]
    to: String,
    /// Where `to` does not say.
    #[schema(pattern = "^[a-z_]{1,32}$")]
    channel: Option<String>,
    /// Of a number without a country code: two letters.
    #[schema(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    /// What it is for. Without, `service` for free text and `marketing` for a template.
    category: Option<Category>,
    /// Free text or a template.
    kind: Kind,
}

/// Whether it may be sent, and what every rule says.
#[derive(Serialize, ToSchema)]
struct CheckAnswer {
    allowed: bool,
    account_sid: String,
    to: String,
    channel: String,
    /// Of the number: two letters, none if it belongs to no country.
    country: Option<String>,
    category: Category,
    kind: Kind,
    verdicts: Vec<Verdict>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(check))
}

/// May this be sent to this person now? Nothing is sent. What a STOP has said to any sidecar counts here at once.
#[utoipa::path(
    post,
    path = "/v1/checks",
    tag = "checks",
    operation_id = "check",
    request_body = Check,
    responses((status = 200, description = "What every rule says", body = CheckAnswer), Problem),
    security(("key" = [])),
)]
async fn check(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let wanted: Check = object(body)?;
    let Check { account_sid, from, to, channel, region, category, kind } = wanted;
    let region = people::region(region)?;
    let account_sid = finding::account(&caller, account_sid)?;
    let to =
        people::known_address(&app, &account_sid, "to", &to, channel.as_deref(), region).await?;
    let from = from.map(|from| Address::parse(&from).map(|from| from.number).unwrap_or(from));
    let intent = Intent {
        account_sid,
        from,
        category: category.unwrap_or_else(|| kind.usual_category()),
        to,
        kind,
    };
    let verdicts = app.checks.may_send(&intent, now_ms()).await;
    let verdicts = verdicts.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&CheckAnswer {
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
