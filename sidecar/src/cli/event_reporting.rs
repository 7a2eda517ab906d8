//! Rules by which the sidecar and its commands report changes: the subscriptions of the sinks file, the table of error codes,
//! and whether callers get status callbacks of the sidecar's own.

use std::{sync::Arc, time::Duration};

use twilio_edge_connectors::sinks;
use twilio_edge_domain::operational_event::EventReporting;
use twilio_edge_platform::{clock::millis, config::Config};
use twilio_edge_services::outbound::sending;

/// Time after the answer of a request in which a status callback is withdrawn if the answer reported the end.
const WITHDRAWAL: Duration = Duration::from_secs(1);

/// Reads the rules. Without a sinks file nothing is reported to sinks; without an accounts file, whose tokens sign them, no
/// status callbacks are sent.
///
/// # Errors
///
/// A file is invalid. The text names the setting.
pub(super) fn event_reporting(config: &Config) -> Result<EventReporting, String> {
    let reporting = to_sinks(config)?;
    let answer_within = Duration::from_millis(config.sending.answer_within_ms);
    Ok(match config.accounts.file.is_empty() {
        true => reporting,
        false => reporting.with_callbacks(millis(answer_within + WITHDRAWAL)),
    })
}

fn to_sinks(config: &Config) -> Result<EventReporting, String> {
    let file = &config.sinks.file;
    if file.is_empty() {
        return Ok(EventReporting::default());
    }
    let subscriptions = sinks::subscriptions(file)
        .map_err(|problems| format!("sinks.file: {file}: {}", problems.join("; ")))?;
    let errors = sending::errors(&config.sending.errors_file)
        .map_err(|problems| format!("sending.errors_file: {}", problems.join("; ")))?;
    Ok(EventReporting::new(subscriptions, Arc::new(errors)))
}
