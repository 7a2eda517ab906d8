//! Decisions about an outbound message, from the request to Twilio's answer: the request (`request.rs`, `options.rs`), the sender
//! (`sender.rs`, `routing.rs`), the quiet hours (`quiet_hours.rs`), the fallback (`fallback.rs`), the plan of a notification (`plan.rs`, `failure_code.rs`), the rules (`rules.rs`), the meaning of Twilio's answer
//! (`outcome.rs`, `errors.rs`, `call_failure.rs`), the effect of its status callbacks (`delivery_status.rs`), the search for an `unknown` message in Twilio's list (`matching.rs`), the
//! order of sending (`fair_scheduler.rs`), the rate (`rate_limit.rs`) and the number of concurrent calls
//! (`adaptive_concurrency.rs`). `backlog.rs` has the size of the backlog,
//! `statistics.rs` the counters, `provider.rs` the services that take messages, `verification.rs` and `verification_attempts.rs` one-time passwords, and `status_callback.rs` the sidecar's own status callbacks.

pub mod adaptive_concurrency;
pub mod backlog;
pub mod call_failure;
pub mod delivery_status;
pub mod errors;
pub mod failure_code;
pub mod fair_scheduler;
pub mod fallback;
pub mod fallback_email;
pub mod flow;
pub mod matching;
pub mod options;
pub mod outcome;
pub mod plan;
pub mod provider;
pub mod quiet_hours;
pub mod rate_limit;
pub mod request;
pub mod routing;
pub mod rules;
pub mod sender;
pub mod statistics;
pub mod status_callback;
pub mod verification;
pub mod verification_attempts;
