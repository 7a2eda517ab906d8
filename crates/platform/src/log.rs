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

/// Starts to log to standard error. The lines of `quiet_targets` are off unless `log.level` enables them. Returns the
/// limiter that counts suppressed lines.
pub fn begin<'a>(settings: &config::Log, quiet_targets: impl Iterator<Item = &'a str>) -> Repeats {
    let repeats = Repeats::default();
    let quiet: String = quiet_targets.map(|target| format!("{target}=off,")).collect();
    let levels: Targets = format!("{quiet}{}", settings.level).parse().unwrap_or_default();
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
