//! Query parameters of lists (account, number, time, limit, cursor), and pages of results with the cursor that continues
//! them. An invalid parameter is refused with the name of its field. Nothing here reads the store.

use axum::extract::{Query, rejection::QueryRejection};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::{kinds, problem::Problem};
use twilio_edge_domain::{
    cursor::Cursor,
    message::NumberQuery,
    period::{self, DAY_MS},
    tenant::is_account_sid,
};
use twilio_edge_services::access::api_keys::Caller;
use twilio_edge_store::message_history::Page;

/// Default page size.
const USUAL: u32 = 50;

/// Largest page size.
const MOST: u32 = 200;

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
    query.map(|Query(query)| query).map_err(|error| Problem::unreadable(&error.body_text()))
}

/// Returns the account of a request: the account of the key, or the account that a key without one names.
pub(super) fn account(caller: &Caller, text: Option<String>) -> Result<String, Problem> {
    match one_account(text)? {
        Some(text) if !caller.sees(&text) => Err(Problem::other_account()),
        Some(text) => Ok(text),
        None => caller.account_sid.clone().ok_or_else(|| Problem::of(kinds::ACCOUNT_REQUIRED)),
    }
}

/// Validates an account SID, if there is one. It does not check whether the caller sees the account.
pub(super) fn one_account(text: Option<String>) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if !is_account_sid(&text) => {
            Err(Problem::unreadable("account_sid: must be AC and 32 lower-case hexadecimal digits"))
        }
        text => Ok(text),
    }
}

/// Parses a number: without a channel prefix it matches every channel.
pub(super) fn one_number(field: &str, text: &str) -> Result<NumberQuery, Problem> {
    let must =
        "must be an address such as +15551234567, or one on a channel: whatsapp:+15551234567";
    NumberQuery::parse_query(text).ok_or_else(|| Problem::unreadable(&format!("{field}: {must}")))
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
        let wrong = |problem| Problem::unreadable(&format!("{field}: {problem}"));
        text.map(|text| of(&text)).transpose().map_err(wrong)
    };
    let since = read("since", since, period::instant)?.unwrap_or(i64::MIN);
    let until = read("until", until, period::instant)?.unwrap_or(i64::MAX);
    let day = read("date_sent", day, period::day)?;
    let (first, last) = day.map_or((i64::MIN, i64::MAX), |day| (day, day.saturating_add(DAY_MS)));
    Ok((since.max(first), until.min(last)))
}

/// Validates the page size.
pub(super) fn limit(limit: Option<u32>) -> Result<usize, Problem> {
    match limit.unwrap_or(USUAL) {
        limit @ 1..=MOST => Ok(limit as usize),
        _ => Err(Problem::unreadable(&format!("limit: must be 1 to {MOST}"))),
    }
}

/// Parses a cursor, and refuses one of another list.
pub(super) fn cursor(
    text: Option<String>,
    is_of_this_list: fn(&Cursor) -> bool,
) -> Result<Option<Cursor>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let cursor = text.parse().ok().filter(is_of_this_list);
    cursor.map(Some).ok_or_else(|| Problem::of(kinds::INVALID_CURSOR))
}

/// Returns the number of rows to read: one more than the page size, which shows whether a next page exists.
pub(super) fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// Cuts the rows to one page. Returns the cursor after its last row, if more rows follow.
pub(super) fn cut<T>(
    found: &mut Vec<T>,
    limit: usize,
    place: impl FnOnce(&T) -> Cursor,
) -> Option<String> {
    let more = found.len() > limit;
    found.truncate(limit);
    found.last().filter(|_| more).map(|last| place(last).to_string())
}

/// Tests for a cursor of webhooks.
pub(super) fn is_event(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Event { .. })
}

/// Tests for a cursor of windows.
pub(super) fn is_pair(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Pair { .. })
}

/// Tests for a cursor of suppressions.
pub(super) fn is_suppression(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Suppression { .. })
}

/// Tests for a cursor of consents.
pub(super) fn is_consent(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Consent { .. })
}

/// Tests for a cursor of API keys.
pub(super) fn is_key(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Key { .. })
}

/// Tests for a cursor of the audit log.
pub(super) fn is_entry(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Entry { .. })
}

/// Tests for a cursor of dead letters.
pub(super) fn is_dead_letter(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::DeadLetter { .. })
}

/// Tests for a cursor of messages.
pub(super) fn is_message(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Message { .. })
}

/// Tests for a cursor of accounts.
pub(super) fn is_tenant(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Tenant { .. })
}

/// Tests for a cursor of templates.
pub(super) fn is_template(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Template { .. })
}

/// Renders the rows of a page, and the cursor of the next one.
pub(super) fn rendered<T, S>(page: &Page<T>, show: impl Fn(&T) -> S) -> (Vec<S>, Option<String>) {
    (page.found.iter().map(show).collect(), page.next.as_ref().map(Cursor::to_string))
}
