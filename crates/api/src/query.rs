//! Query parameters of lists: account, number and time. An invalid parameter is refused with the name of its field.
//! Nothing here reads the store.

use axum::extract::{Query, rejection::QueryRejection};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::problem::Problem;
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{
    message::NumberQuery,
    period::{self, DAY_MS},
    tenant::is_account_sid,
};
use twilio_edge_services::access::api_keys::Caller;

/// Account of a request.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AccountQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    pub(super) account_sid: Option<String>,
}

/// Filter and page of a list for administrators, for one account or for all.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// Account SID of the entries. If omitted, entries of all accounts that the key sees.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    pub(super) account_sid: Option<String>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    pub(super) cursor: Option<String>,
}

/// Parses the whole query, or refuses it with the name of the wrong field.
pub(super) fn read<T: DeserializeOwned>(
    query: Result<Query<T>, QueryRejection>,
) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::malformed(&error.body_text()))
}

/// Returns the account of a request: the account of the key, or the account that a key without one names.
pub(super) fn account(caller: &Caller, text: Option<String>) -> Result<String, Problem> {
    match one_account(text)? {
        Some(text) if !caller.sees(&text) => Err(Problem::other_account()),
        Some(text) => Ok(text),
        None => caller.account_sid.clone().ok_or_else(|| Problem::of(RefusalCode::AccountRequired)),
    }
}

/// Returns the account of a list that may be about all accounts: the account of the key, or a named one that the key sees;
/// `None` means all accounts.
pub(super) fn account_or_all(
    caller: &Caller,
    text: Option<String>,
) -> Result<Option<String>, Problem> {
    match one_account(text)? {
        Some(text) if !caller.sees(&text) => Err(Problem::other_account()),
        Some(text) => Ok(Some(text)),
        None => Ok(caller.account_sid.clone()),
    }
}

/// Validates an account SID, if there is one. It does not check whether the caller sees the account.
pub(super) fn one_account(text: Option<String>) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if !is_account_sid(&text) => {
            Err(Problem::malformed("account_sid: must be AC and 32 lower-case hexadecimal digits"))
        }
        text => Ok(text),
    }
}

/// Parses a number: without a channel prefix it matches every channel.
pub(super) fn one_number(field: &str, text: &str) -> Result<NumberQuery, Problem> {
    let must =
        "must be an address such as +15551234567, or one on a channel: whatsapp:+15551234567";
    NumberQuery::parse_query(text).ok_or_else(|| Problem::malformed(&format!("{field}: {must}")))
}

/// Parses an optional number.
pub(super) fn number(field: &str, text: Option<String>) -> Result<Option<NumberQuery>, Problem> {
    text.map(|text| one_number(field, &text)).transpose()
}

/// Returns the time range in milliseconds, start inclusive and end exclusive, limited to one day in UTC if `day` is
/// given.
pub(super) fn period(
    since: Option<String>,
    until: Option<String>,
    day: Option<String>,
) -> Result<(i64, i64), Problem> {
    let read = |field: &str, text: Option<String>, of: fn(&str) -> Result<i64, String>| {
        let wrong = |problem| Problem::malformed(&format!("{field}: {problem}"));
        text.map(|text| of(&text)).transpose().map_err(wrong)
    };
    let since = read("since", since, period::instant)?.unwrap_or(i64::MIN);
    let until = read("until", until, period::instant)?.unwrap_or(i64::MAX);
    let day = read("date_sent", day, period::day)?;
    let (first, last) = day.map_or((i64::MIN, i64::MAX), |day| (day, day.saturating_add(DAY_MS)));
    Ok((since.max(first), until.min(last)))
}
