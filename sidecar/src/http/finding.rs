//! What a caller looks for, read from a query: whose, about which number, when, and where to go on. Wrong questions get an
//! answer that names the field; nothing here looks anything up.

use axum::extract::{Query, rejection::QueryRejection};
use serde::de::DeserializeOwned;
use twilio_edge_filter::form::is_account_sid;

use super::{kinds, problem::Problem};
use crate::{
    domain::{cursor::Cursor, message::Number, period},
    keys::Caller,
    store::histories::Page,
};

/// How many are shown where nobody says.
const USUAL: u32 = 50;

/// Most that are shown at a time.
const MOST: u32 = 200;

/// The whole query, or which field is wrong.
pub(super) fn query<T: DeserializeOwned>(
    query: Result<Query<T>, QueryRejection>,
) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::unreadable(&error.body_text()))
}

/// The account that is asked about: the one of the key, or the one that is named to a key which sees all of them.
pub(super) fn account(caller: &Caller, asked: Option<String>) -> Result<String, Problem> {
    match asked {
        Some(asked) if !is_account_sid(&asked) => {
            Err(Problem::unreadable("account_sid: must be AC and 32 lower-case hexadecimal digits"))
        }
        Some(asked) if !caller.sees(&asked) => Err(Problem::other_account()),
        Some(asked) => Ok(asked),
        None => caller.account_sid.clone().ok_or_else(|| Problem::of(kinds::ACCOUNT_REQUIRED)),
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

/// What is found, shown, and the cursor that goes on.
pub(super) fn shown<T, S>(page: &Page<T>, show: impl Fn(&T) -> S) -> (Vec<S>, Option<String>) {
    (page.found.iter().map(show).collect(), page.next.as_ref().map(Cursor::to_string))
}
