//! Lines of exported lists. An import reads them unchanged.

use crate::{
    consent::Consent, spreadsheet::neutralized, suppression::Suppression, window::rfc3339,
};

/// Columns of a list of suppressions.
pub const SUPPRESSION_COLUMNS: [&str; 9] = [
    "number",
    "channel",
    "source",
    "error_code",
    "since",
    "expires_at",
    "message_sid",
    "sender",
    "changed_by",
];

/// Returns the line of a suppression.
pub fn suppression_row(known: &Suppression) -> [String; 9] {
    [
        known.address.number.clone(),
        known.address.channel.clone(),
        known.source.to_string(),
        known.error_code.clone(),
        rfc3339(known.since_ms).unwrap_or_default(),
        known.expires_at_ms.and_then(rfc3339).unwrap_or_default(),
        known.message_sid.clone().unwrap_or_default(),
        known.sender.clone().unwrap_or_default(),
        known.changed_by.clone().unwrap_or_default(),
    ]
}

/// Columns of a list of consents.
pub const CONSENT_COLUMNS: [&str; 11] = [
    "number",
    "channel",
    "category",
    "state",
    "at",
    "source",
    "proof",
    "ip",
    "user_agent",
    "recorded_at",
    "recorded_by",
];

/// Returns the line of a consent.
pub fn consent_row(known: &Consent) -> [String; 11] {
    [
        known.address.number.clone(),
        known.address.channel.clone(),
        known.category.as_str().to_owned(),
        known.state.as_str().to_owned(),
        rfc3339(known.at_ms).unwrap_or_default(),
        known.source.clone(),
        known.proof.clone().unwrap_or_default(),
        known.ip.clone().unwrap_or_default(),
        known.user_agent.clone().unwrap_or_default(),
        rfc3339(known.recorded_at_ms).unwrap_or_default(),
        known.recorded_by.clone(),
    ]
}

/// Returns the lines as CSV in which no cell is a formula (`domain/spreadsheet.rs`).
pub fn to_csv<const N: usize>(lines: impl IntoIterator<Item = [String; N]>) -> Vec<u8> {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for line in lines {
        // Writing to memory does not fail.
        let _ = writer.write_record(line.each_ref().map(|cell| neutralized(cell)));
    }
    writer.into_inner().unwrap_or_default()
}
