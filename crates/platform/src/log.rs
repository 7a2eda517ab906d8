//! What the sidecar writes down for those who run it: every line has an `event`, which never changes its meaning, and reads
//! alone and by its fields. Decides how a line looks and that one that comes again and again does not fill the disk; what is
//! worth a line is decided where it happens. No line has a secret, a signature, a body or a whole number.

mod events;
mod repeats;

use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

pub use self::{
    events::reference,
    repeats::{REFUSALS, Repeats},
};
use crate::{
    config::{self, LogFormat},
    terminal::LogLines,
};

/// Writes to stderr from now on, as told. What keeps count of lines that were too many.
pub fn begin(settings: &config::Log) -> Repeats {
    let repeats = Repeats::default();
    // What this client has to say is told with the delivery it happened to, as an event; unless it is asked for.
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
