//! Options of every command. Each may stand before or after the subcommand.

use std::path::PathBuf;

use super::listing::Output;
use twilio_edge_platform::config::Merged;

/// Options of every command.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Globals {
    /// Settings that differ from the defaults, as TOML; the environment wins over it
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Format of printed data [default: table]
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum, global = true)]
    output: Option<Output>,
    /// Same as --output json
    #[arg(long, global = true, conflicts_with = "output")]
    json: bool,
}

impl Globals {
    /// Reads all sources of the settings; [`Merged::check`] reports what is wrong with them.
    pub(super) fn settings(&self) -> Merged {
        Merged::read(self.config.as_deref(), std::env::vars_os())
    }

    #[cfg(test)]
    pub(super) fn has_config(&self, file: &str) -> bool {
        self.config.as_deref() == Some(std::path::Path::new(file))
    }

    /// Returns the format of printed data.
    pub(super) fn output(&self) -> Output {
        match self.json {
            true => Output::Json,
            false => self.output.unwrap_or(Output::Table),
        }
    }

    /// Returns whether the data is printed as JSON.
    pub(super) fn is_json(&self) -> bool {
        self.output() == Output::Json
    }
}
