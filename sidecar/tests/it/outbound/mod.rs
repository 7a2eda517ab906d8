//! Messages: sending, scheduling, media, templates, the drop-in Twilio API.

pub(crate) mod accepted_messages;
pub(crate) mod checks;
pub(crate) mod deliveries;
pub(crate) mod dropin;
pub(crate) mod emails;
pub(crate) mod fair_scheduling;
pub(crate) mod fallbacks;
pub(crate) mod flows;
pub(crate) mod idempotency;
pub(crate) mod keyword_replies;
pub(crate) mod media;
pub(crate) mod message_options;
pub(crate) mod never_twice;
pub(crate) mod notifications;
pub(crate) mod operational_events;
pub(crate) mod outcomes;
pub(crate) mod plans;
pub(crate) mod prism;
pub(crate) mod reconciliation;
pub(crate) mod sending;
pub(crate) mod sending_rate;
pub(crate) mod status_callbacks;
pub(crate) mod templates;
pub(crate) mod twilio_requests;
pub(crate) mod verifications;
