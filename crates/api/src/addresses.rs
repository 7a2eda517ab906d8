//! Contacts in requests: a number in a common spelling, its channel, and the country of a number without a country code.
//! Invalid values are refused with the name of the field.

use axum::extract::{Path, rejection::PathRejection};

use super::problem::Problem;
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{
    address::Address, contact as user_id, phone::Region, suppression::EVERY_CHANNEL,
};
use twilio_edge_services::access::permissions::{Checks, Permissions};

/// Longest number or id, in characters.
const LONGEST: usize = 255;

/// Parses an address in a common spelling.
pub(super) fn address(
    field: &str,
    text: &str,
    channel: Option<&str>,
    region: Option<Region>,
) -> Result<Address, Problem> {
    let channel = one_channel(channel)?;
    read(field, text, || Address::given(text, channel, region))
}

/// Parses a contact on every channel, or an address that the account knows ([`Permissions::resolve_contact`]).
pub(super) async fn contact(
    permissions: &Permissions,
    account_sid: &str,
    text: &str,
    channel: Option<&str>,
    region: Option<Region>,
) -> Result<Address, Problem> {
    const FIELD: &str = "number";
    let channel = any_channel(channel)?;
    check_length(FIELD, text)?;
    let contact = permissions.resolve_contact(account_sid, text, channel, region).await;
    let contact = contact.map_err(|reason| Problem::unavailable(&reason))?;
    contact.map_err(|problem| invalid_field(FIELD, &problem))
}

/// Parses an address as [`address`] does, and also accepts an address from which a contact wrote to the account: a reply
/// must be possible even if the current numbering plan lacks the number.
pub(super) async fn recipient(
    checks: &Checks,
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
    let has_written = checks.has_sent_message(account_sid, &candidate).await;
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
    address().map_err(|problem| invalid_field(field, &problem))
}

fn check_length(field: &str, text: &str) -> Result<(), Problem> {
    match (1..=LONGEST).contains(&text.chars().count()) {
        true => Ok(()),
        false => Err(Problem::malformed(&format!("{field}: must be 1 to {LONGEST} characters"))),
    }
}

/// Parses the number of a path, and its channel from the path or the query.
pub(super) async fn in_path(
    permissions: &Permissions,
    account_sid: &str,
    number: Result<Path<String>, PathRejection>,
    channel: Option<String>,
) -> Result<(String, Option<String>), Problem> {
    let number = number.map_or_else(|_| String::new(), |Path(number)| number);
    let says = number.contains(':') || channel.is_some();
    // A user id belongs to one channel only, so its channel may be omitted.
    let of_id = user_id::is_user_id(&number).then_some(user_id::CHANNEL);
    let found =
        contact(permissions, account_sid, &number, channel.as_deref().or(of_id), None).await?;
    Ok((found.number, says.then_some(found.channel)))
}

/// Validates the name of a channel, if there is one.
pub(super) fn one_channel(channel: Option<&str>) -> Result<Option<&str>, Problem> {
    let is_name = |text: &str| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    match channel {
        Some(text) if !is_name(text) => {
            Err(Problem::malformed("channel: must be sms, whatsapp, .."))
        }
        channel => Ok(channel),
    }
}

/// Validates the name of a channel, or [`EVERY_CHANNEL`].
pub(super) fn any_channel(channel: Option<&str>) -> Result<Option<&str>, Problem> {
    match channel {
        Some(EVERY_CHANNEL) => Ok(channel),
        channel => one_channel(channel).map_err(|_| {
            Problem::malformed("channel: must be sms, whatsapp, .. or * for every channel")
        }),
    }
}

/// Validates a country, if there is one.
pub(super) fn region(text: Option<String>) -> Result<Option<Region>, Problem> {
    let read = |text: String| match text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic())
    {
        true => text.parse::<Region>().map_err(|problem| invalid_field("region", &problem)),
        false => Err(Problem::malformed("region: must be two letters, as in FR")),
    };
    text.map(read).transpose()
}

/// Refuses a field that can be read but has an invalid value.
pub(super) fn invalid_field(field: &str, problem: &str) -> Problem {
    Problem::with(RefusalCode::InvalidField, format!("{field}: {problem}"))
}
