//! `GET /v1/statistics`: counts of the outbound messages of an account over a period, by dimension. The counters exist already,
//! so a request reads no message.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{problem::Problem, query};
use crate::{app::App, body::json, views::StatisticsView};
use twilio_edge_domain::{period::DAY_MS, sending::statistics::Dimension};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::{sending::Sending, statistics::statistics},
};
use twilio_edge_store::CountQuery;

/// Period, dimensions and filter of the statistics. Write a `+` in a URL as `%2B`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StatisticsQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Start of the period, inclusive: a time with its zone, or a day in UTC. Rounded down to a whole hour. Defaults to one day
    /// before `until`.
    #[param(format = DateTime)]
    since: Option<String>,
    /// End of the period, exclusive. Rounded up to a whole hour. Defaults to now.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Dimensions by which the counts are grouped, separated by commas: `hour`, `channel`, `sender`, `template`, `country`,
    /// `code`. Without it, the answer has the totals only.
    #[param(
        pattern = "^(hour|channel|sender|template|country|code)(,(hour|channel|sender|template|country|code))*$"
    )]
    by: Option<String>,
    /// Only messages on this channel: `sms`, `whatsapp`, ..
    channel: Option<String>,
    /// Only messages from this sender, as it was requested: a number, a sender id, or the SID of a Messaging Service.
    sender: Option<String>,
    /// Only messages with this template: its name in the catalogue, or its content SID if the catalogue does not have it.
    template: Option<String>,
    /// Only messages to recipients in this country, in two letters.
    country: Option<String>,
    /// Only events with this error code.
    code: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Counts the outbound messages of an account that were accepted, sent, delivered, read, failed and refused in a period. An
/// event counts in the hour in which it happened.
#[utoipa::path(
    get,
    path = "/v1/statistics",
    tag = "messages",
    params(StatisticsQuery),
    operation_id = "show_statistics",
    responses((status = 200, description = "Counts of messages", body = StatisticsView), Problem),
    security(("key" = [])),
)]
async fn show(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<StatisticsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query::read(query)?;
    let (since_ms, until_ms) = query::period(query.since, query.until, None)?;
    let until_ms = until_ms.min(now_ms());
    let since_ms = if since_ms == i64::MIN { until_ms.saturating_sub(DAY_MS) } else { since_ms };
    let by = query.by.as_deref().map(dimensions).transpose()?.unwrap_or_default();
    let value = |field: &str, value: Option<String>| match value {
        // The databases reject a NUL character in text.
        Some(value) if value.contains('\0') => {
            Err(Problem::malformed(&format!("{field}: must not contain a NUL character")))
        }
        value => Ok(value.unwrap_or_default()),
    };
    let counters = CountQuery {
        account_sid: query::account(&caller, query.account_sid)?,
        since_ms,
        until_ms,
        by: by.clone(),
        channel: value("channel", query.channel)?,
        sender: value("sender", query.sender)?,
        template: value("template", query.template)?,
        country: value("country", query.country)?,
        code: value("code", query.code)?,
    };
    let found = statistics(&sending.messages, counters).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&StatisticsView::of(&found, &by)))
}

fn dimensions(text: &str) -> Result<BTreeSet<Dimension>, Problem> {
    let names = Dimension::ALL.map(Dimension::as_str).join(", ");
    let problem = |_| Problem::malformed(&format!("by: must be a list of {names}"));
    text.split(',').map(|name| name.parse().map_err(problem)).collect()
}
