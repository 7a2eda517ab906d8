//! Outbound messages: acceptance, dispatch to Twilio, reconciliation, delivery, fallbacks, media and templates.

pub mod declined;
pub mod deliveries;
pub mod dispatcher;
pub mod email_events;
mod emails;
pub mod fallback;
pub mod flows;
pub mod keyword_replies;
pub mod media;
pub mod opt_out_from_error;
pub mod outcome_waiters;
pub mod plans;
pub mod reconciler;
pub mod routing_file;
pub mod sending;
pub mod statistics;
pub mod status_queue;
pub mod templates;
pub mod verification_starts;
pub mod verifications;
