//! A message from what is asked for to what Twilio said of it, as decisions: what may be asked (`request.rs`), who sends it
//! (`sender.rs`, `routing.rs`), what goes instead (`fallback.rs`), what speaks against it (`rules.rs`), what an answer of Twilio means (`outcome.rs`, `errors.rs`, `failing.rs`), whether its
//! list has a message of which nobody knows (`matching.rs`), whose turn it is (`turns.rs`), when the next one may go (`pace.rs`) and how
//! many at a time (`concurrency.rs`).

pub mod adaptive_concurrency;
pub mod backlog;
pub mod errors;
pub mod failing;
pub mod fair_scheduler;
pub mod fallback;
pub mod matching;
pub mod outcome;
pub mod pace;
pub mod request;
pub mod routing;
pub mod rules;
pub mod sender;
