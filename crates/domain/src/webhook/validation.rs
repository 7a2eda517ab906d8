//! Validation of the fields of a claim or a settlement.

use twilio_edge_contract::{Class, Identity};

/// Maximum length of a claim id or an identity part, in characters. Twilio's own ids have 34.
const MAX_PART_CHARS: usize = 255;

/// Validates the claim id and the identity. The error names the field.
pub(super) fn check(claim_id: &str, identity: &Identity) -> Result<(), String> {
    if identity.class == Class::Other {
        return Err("class: must be inbound or status".into());
    }
    part("claim_id", claim_id)?;
    part("account_sid", &identity.account_sid)?;
    part("message_sid", &identity.message_sid)?;
    match (identity.class, &identity.status) {
        (Class::Status, None) => {
            return Err("status: is required for a status callback".into());
        }
        (_, Some(status)) => part("status", status)?,
        (_, None) => {}
    }
    identity.error_code.as_deref().map_or(Ok(()), |code| part("error_code", code))
}

/// Validates one part. A `:` in it would let two identities share a dedupe key.
fn part(name: &str, value: &str) -> Result<(), String> {
    // Twilio's own ids are ASCII: this fast path neither decodes characters nor finds the position of a bad one.
    let is_short = (1..=MAX_PART_CHARS).contains(&value.len());
    let refused = |byte: u8| (byte == b':') | byte.is_ascii_control();
    let has_refused = || value.bytes().fold(false, |found, byte| found | refused(byte));
    if is_short && value.is_ascii() && !has_refused() {
        return Ok(());
    }
    if value.is_empty() || value.chars().count() > MAX_PART_CHARS {
        return Err(format!("{name}: must have 1 to {MAX_PART_CHARS} characters"));
    }
    match value.chars().find(|c| *c == ':' || c.is_control()) {
        Some(c) => Err(format!("{name}: must not contain {c:?}")),
        None => Ok(()),
    }
}

/// Validates the path of a route.
pub(super) fn check_route(route: &str) -> Result<(), String> {
    match route.chars().any(char::is_control) {
        true => Err("route: must not contain control characters".into()),
        false => Ok(()),
    }
}
