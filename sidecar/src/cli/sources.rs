//! Sources of the settings, as options of a command.

use std::path::PathBuf;

use twilio_edge_platform::config::Merged;

/// Options for the sources of the sidecar's settings.
#[derive(Debug, clap::Args)]
pub(super) struct Sources {
    /// Settings that differ from the defaults, as TOML; the environment wins over it
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl Sources {
    /// Reads all sources; [`Merged::check`] reports what is wrong with them.
    pub(super) fn read(&self) -> Merged {
        Merged::read(self.config.as_deref(), std::env::vars_os())
    }
}
