//! A person as callers name them: a number in any sensible spelling, its channel, the country of one without a code. What
//! cannot be is refused with the name of the field; nothing here is looked up.

use axum::extract::{Path, rejection::PathRejection};

use super::{kinds, problem::Problem};
use crate::app::App;
use twilio_edge_domain::{address::Address, contact, phone::Region, suppression::EVERY_CHANNEL};

/// Longest number or id, in characters.
const LONGEST: usize = 255;

/// An address, in the spelling of people.
pub(super) fn address(
    field: &str,
    text: &str,
    channel: Option<&str>,
    region: Option<Region>,
) -> Result<Address, Problem> {
    let channel = one_channel(channel)?;
    read(field, text, || Address::given(text, channel, region))
}

/// The same, a person on every channel, or an address that the account knows ([`Permissions::person`]).
///
/// [`Permissions::person`]: crate::permissions::Permissions::person
pub(super) async fn person(
    app: &App,
    account_sid: &str,
    text: &str,
    channel: Option<&str>,
    region: Option<Region>,
) -> Result<Address, Problem> {
    const FIELD: &str = "number";
    let channel = any_channel(channel)?;
    check_length(FIELD, text)?;
    let person = app.permissions.person(account_sid, text, channel, region).await;
    let person = person.map_err(|reason| Problem::unavailable(&reason))?;
    person.map_err(|problem| impossible(FIELD, &problem))
}

/// The same as [`address`], or an address from which somebody wrote to the account: it can be answered whatever its numbering
/// plan says today.
pub(super) async fn known_address(
    app: &App,
    account_sid: &str,
    field: &str,
    text: &str,
    channel: Option<&str>,
    region: Option<Region>,
) -> Result<Address, Problem> {
    let problem = match address(field, text, channel, region) {
        Ok(address) => return Ok(address),
        Err(problem) => problem,
    };
    let Some(candidate) = Address::as_in_webhook(text, channel) else { return Err(problem) };
    let has_written = app.checks.has_written(account_sid, &candidate).await;
    match has_written.map_err(|reason| Problem::unavailable(&reason))? {
        true => Ok(candidate),
        false => Err(problem),
    }
}

fn read(
    field: &str,
    text: &str,
    address: impl FnOnce() -> Result<Address, String>,
) -> Result<Address, Problem> {
    check_length(field, text)?;
    address().map_err(|problem| impossible(field, &problem))
}

fn check_length(field: &str, text: &str) -> Result<(), Problem> {
    match (1..=LONGEST).contains(&text.chars().count()) {
        true => Ok(()),
        false => Err(Problem::unreadable(&format!("{field}: must be 1 to {LONGEST} characters"))),
    }
}

/// The number of a path, and the channel that it or the query says.
pub(super) async fn in_path(
    app: &App,
    account_sid: &str,
    number: Result<Path<String>, PathRejection>,
    channel: Option<String>,
) -> Result<(String, Option<String>), Problem> {
    let number = number.map_or_else(|_| String::new(), |Path(number)| number);
    let says = number.contains(':') || channel.is_some();
    // A user id is of one channel only, and needs not say which.
    let of_id = contact::is_user_id(&number).then_some(contact::CHANNEL);
    let found = person(app, account_sid, &number, channel.as_deref().or(of_id), None).await?;
    Ok((found.number, says.then_some(found.channel)))
}

/// A channel, if one is named.
pub(super) fn one_channel(channel: Option<&str>) -> Result<Option<&str>, Problem> {
    let is_name = |text: &str| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    match channel {
        Some(text) if !is_name(text) => {
            Err(Problem::unreadable("channel: must be sms, whatsapp, .."))
        }
        channel => Ok(channel),
    }
}

/// The same; [`EVERY_CHANNEL`] is one.
pub(super) fn any_channel(channel: Option<&str>) -> Result<Option<&str>, Problem> {
    match channel {
        Some(EVERY_CHANNEL) => Ok(channel),
        channel => one_channel(channel).map_err(|_| {
            Problem::unreadable("channel: must be sms, whatsapp, .. or * for every channel")
        }),
    }
}

/// A country, if one is named.
pub(super) fn region(asked: Option<String>) -> Result<Option<Region>, Problem> {
    let read = |text: String| match text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic())
    {
        true => text.parse::<Region>().map_err(|problem| impossible("region", &problem)),
        false => Err(Problem::unreadable("region: must be two letters, as in FR")),
    };
    asked.map(read).transpose()
}

/// What cannot be, of a field that could be read.
pub(super) fn impossible(field: &str, problem: &str) -> Problem {
    Problem::with(kinds::IMPOSSIBLE, format!("{field}: {problem}"))
}
