//! What a caller looks for, read from a query: whose, about which number, when, how many and where to go on; and a page of
//! what is found, with the cursor that continues. Wrong questions get an answer that names the field; nothing here looks
//! anything up.

use axum::extract::{Query, rejection::QueryRejection};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::{kinds, problem::Problem};
use twilio_edge_domain::{cursor::Cursor, message::Number, period, tenant::is_account_sid};
use twilio_edge_services::access::api_keys::Caller;
use twilio_edge_store::histories::Page;

/// How many are shown where nobody says.
const USUAL: u32 = 50;

/// Most that are shown at a time.
const MOST: u32 = 200;

/// Whose something is.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AccountQuery {
    /// Whose: that of the key, if it is bound to one; else this has to be said.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    pub(super) account_sid: Option<String>,
}

/// A page of what administrators see, of one account or of all.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// Only what belongs to this account.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    pub(super) account_sid: Option<String>,
    /// How many, 50 if not said.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    pub(super) cursor: Option<String>,
}

/// The whole query, or which field is wrong.
pub(super) fn query<T: DeserializeOwned>(
    query: Result<Query<T>, QueryRejection>,
) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::unreadable(&error.body_text()))
}

/// The account that is asked about: the one of the key, or the one that is named to a key which sees all of them.
pub(super) fn account(caller: &Caller, asked: Option<String>) -> Result<String, Problem> {
    match one_account(asked)? {
        Some(asked) if !caller.sees(&asked) => Err(Problem::other_account()),
        Some(asked) => Ok(asked),
        None => caller.account_sid.clone().ok_or_else(|| Problem::of(kinds::ACCOUNT_REQUIRED)),
    }
}

/// What can be an account, if one is named. Whether the caller sees it is not asked.
pub(super) fn one_account(asked: Option<String>) -> Result<Option<String>, Problem> {
    match asked {
        Some(asked) if !is_account_sid(&asked) => {
            Err(Problem::unreadable("account_sid: must be AC and 32 lower-case hexadecimal digits"))
        }
        asked => Ok(asked),
    }
}

/// A number, on every channel or with one before it.
pub(super) fn one_number(field: &str, asked: &str) -> Result<Number, Problem> {
    let told = "must be a number such as +15551234567, or one on a channel: whatsapp:+15551234567";
    Number::asked(asked).ok_or_else(|| Problem::unreadable(&format!("{field}: {told}")))
}

/// The same, if one is asked about.
pub(super) fn number(field: &str, asked: Option<String>) -> Result<Option<Number>, Problem> {
    asked.map(|asked| one_number(field, &asked)).transpose()
}

/// Since when and until when; within one day of UTC, if that is said too.
pub(super) fn times(
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
    let (first, last) = day.map_or((i64::MIN, i64::MAX), |day| (day, day + period::DAY_MS));
    Ok((since.max(first), until.min(last)))
}

/// How many are wanted.
pub(super) fn limit(asked: Option<u32>) -> Result<usize, Problem> {
    match asked.unwrap_or(USUAL) {
        limit @ 1..=MOST => Ok(limit as usize),
        _ => Err(Problem::unreadable(&format!("limit: must be 1 to {MOST}"))),
    }
}

/// Where to go on, if that is in such a list.
pub(super) fn cursor(
    asked: Option<String>,
    is_of_this_list: fn(&Cursor) -> bool,
) -> Result<Option<Cursor>, Problem> {
    let Some(asked) = asked else { return Ok(None) };
    let cursor = asked.parse().ok().filter(is_of_this_list);
    cursor.map(Some).ok_or_else(|| Problem::of(kinds::NO_SUCH_PAGE))
}

/// How many to look for: one more than are shown tells whether there is a next page.
pub(super) fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// Cuts what was found to one page; the cursor behind its last row, if more follow.
pub(super) fn cut<T>(
    found: &mut Vec<T>,
    limit: usize,
    place: impl FnOnce(&T) -> Cursor,
) -> Option<String> {
    let more = found.len() > limit;
    found.truncate(limit);
    found.last().filter(|_| more).map(|last| place(last).to_string())
}

/// Of webhooks and messages.
pub(super) fn is_event(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Event { .. })
}

/// Of windows.
pub(super) fn is_pair(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Pair { .. })
}

/// Of suppressions.
pub(super) fn is_suppression(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Suppression { .. })
}

/// Of consents.
pub(super) fn is_consent(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Consent { .. })
}

/// Of API keys.
pub(super) fn is_key(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Key { .. })
}

/// Of the audit.
pub(super) fn is_entry(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Entry { .. })
}

/// Of dead letters.
pub(super) fn is_dead_letter(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::DeadLetter { .. })
}

/// Of messages that were taken on.
pub(super) fn is_send(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Send { .. })
}

/// Of accounts.
pub(super) fn is_tenant(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Tenant { .. })
}

/// Of templates.
pub(super) fn is_template(cursor: &Cursor) -> bool {
    matches!(cursor, Cursor::Template { .. })
}

/// What is found, shown, and the cursor that goes on.
pub(super) fn shown<T, S>(page: &Page<T>, show: impl Fn(&T) -> S) -> (Vec<S>, Option<String>) {
    (page.found.iter().map(show).collect(), page.next.as_ref().map(Cursor::to_string))
}
