//! Log of the sidecar for its operators. Every line has an `event`, which never changes its meaning, and can be
//! understood by itself. Decides the format of lines, and limits repeated ones, so that they do not fill the disk; the
//! code that logs decides which lines to write. No line contains a secret, a signature, a body or a complete phone
//! number.

mod events;
mod panics;
mod repeats;

use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

pub use self::{
    events::reference,
    panics::report_panics,
    repeats::{REFUSALS, Repeats},
};
use crate::{
    config::{self, LogFormat},
    terminal::LogLines,
};

/// Starts to log to standard error. Returns the limiter that counts suppressed lines.
pub fn begin(settings: &config::Log) -> Repeats {
    let repeats = Repeats::default();
    // Problems of the Kafka client are logged with the failed delivery, as an event; its own lines are off unless
    // enabled.
    let levels: Targets = format!("krafka=off,{}", settings.level).parse().unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer().with_writer(LogLines);
    let registry = tracing_subscriber::registry().with(levels).with(repeats.clone());
    match settings.format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
        LogFormat::Text => {
            registry.with(lines.with_ansi(false)).init();
        }
    }
    repeats
}
