//! `twilio-edge reference`: the tables of the documents, printed by the code they describe.

use std::process::ExitCode;

use clap::ValueEnum;
use twilio_edge_filter::{config, metrics, overrides, reply};

use crate::cli::failure::fail;
use twilio_edge_domain::{event, optout};
use twilio_edge_platform::config::Merged;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of what
    subject: Subject,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Subject {
    /// The filter's configuration (docs/CONFIG.md)
    Filter,
    /// Every refusal of the filter (docs/FAILURE-MODES.md)
    Refusals,
    /// Every header that guarded routes remove (docs/CONFIG.md)
    Overrides,
    /// What the filter measures, and what the sidecar does (docs/METRICS.md)
    Metrics,
    /// Every event of the sidecar's log (docs/OBSERVABILITY.md)
    Events,
    /// The sidecar's settings, with their defaults
    Sidecar,
    /// Every refusal of the API (docs/API.md)
    Problems,
    /// What Twilio's error codes mean for a message (docs/ERRORS.md)
    Errors,
    /// Which parameter is kept for how long (docs/RETENTION.md)
    Retention,
    /// The JSON Schema of what sinks get (docs/event.schema.json)
    EventSchema,
    /// The words that mean STOP, START and HELP (docs/COMPLIANCE.md)
    Keywords,
    /// Which of Twilio's error codes refusals are told by (docs/DROP-IN.md)
    DropIn,
    /// What goes wrong at the simulator, by number (docs/SIMULATOR.md)
    Simulator,
}

pub(super) fn run(args: Args) -> ExitCode {
    let text = match args.subject {
        Subject::Filter => config::reference(),
        Subject::Refusals => reply::reference(),
        Subject::Overrides => overrides::reference(),
        Subject::Metrics => {
            metrics::reference() + "\n" + &twilio_edge_platform::metrics::reference()
        }
        Subject::Events => twilio_edge_platform::log::reference(),
        Subject::Sidecar => twilio_edge_platform::config::DEFAULTS.to_owned(),
        Subject::Problems => twilio_edge_api::kinds::reference(),
        Subject::Errors => twilio_edge_domain::sending::errors::reference(),
        Subject::Retention => twilio_edge_domain::part::reference(),
        Subject::EventSchema => event::SCHEMA.to_owned(),
        Subject::DropIn => twilio_edge_api::dropin::reference(),
        Subject::Simulator => twilio_edge_simulator::reference(),
        Subject::Keywords => match Merged::read(None, std::iter::empty()).check() {
            Ok(usual) => optout::reference(&usual.optout),
            Err(problems) => return fail(problems),
        },
    };
    super::listing::write(&text)
}
