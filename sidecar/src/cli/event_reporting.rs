//! Rules by which the sidecar and its commands report changes to sinks: the subscriptions of the sinks file, and the table of
//! error codes.

use std::sync::Arc;

use twilio_edge_connectors::sinks;
use twilio_edge_domain::operational_event::EventReporting;
use twilio_edge_platform::config::Config;
use twilio_edge_services::outbound::sending;

/// Reads the rules. Without a sinks file nothing is reported.
///
/// # Errors
///
/// A file is invalid. The text names the setting.
pub(super) fn event_reporting(config: &Config) -> Result<EventReporting, String> {
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
