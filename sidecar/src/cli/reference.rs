//! `twilio-edge reference`: the tables of the documents, printed by the code they describe.

use std::process::ExitCode;

use clap::ValueEnum;
use twilio_edge_filter::{config, metrics, overrides, reply};

use crate::cli::failure::fail;
use twilio_edge_domain::{event, optout};
use twilio_edge_platform::config::Merged;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Subject of the table
    subject: Subject,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Subject {
    /// Configuration of the filter (docs/CONFIG.md)
    Filter,
    /// Refusals of the filter (docs/FAILURE-MODES.md)
    Refusals,
    /// Headers that guarded routes remove (docs/CONFIG.md)
    Overrides,
    /// Metrics of the filter and the sidecar (docs/METRICS.md)
    Metrics,
    /// Log events of the sidecar (docs/OBSERVABILITY.md)
    Events,
    /// Background tasks of the sidecar (docs/ARCHITECTURE.md)
    Tasks,
    /// Settings of the sidecar with their defaults
    Sidecar,
    /// Refusals of the API (docs/API.md)
    Problems,
    /// Meaning of Twilio's error codes for a message (docs/ERRORS.md)
    Errors,
    /// Retention of each parameter (docs/RETENTION.md)
    Retention,
    /// JSON Schema of the events that sinks receive (docs/event.schema.json)
    EventSchema,
    /// Types of sinks, and the fields of the sinks file (docs/DELIVERY.md)
    Sinks,
    /// Keywords that mean STOP, START and HELP (docs/COMPLIANCE.md)
    Keywords,
    /// Twilio error codes of the drop-in API's refusals (docs/DROP-IN.md)
    DropIn,
    /// Faults of the simulator by number (docs/SIMULATOR.md)
    Simulator,
    /// Faults and events of the simulator by address of e-mail (docs/SIMULATOR.md)
    SimulatorEmails,
    /// Codes of e-mails that were not sent or not delivered (docs/EMAIL.md)
    EmailErrors,
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
        Subject::Tasks => twilio_edge_platform::tasks::reference(),
        Subject::Sidecar => twilio_edge_platform::config::DEFAULTS.to_owned(),
        Subject::Problems => twilio_edge_domain::refusal::reference(),
        Subject::Errors => twilio_edge_domain::sending::errors::reference(),
        Subject::Retention => twilio_edge_domain::part::reference(),
        Subject::EventSchema => event::SCHEMA.to_owned(),
        Subject::Sinks => twilio_edge_connectors::sinks::reference(),
        Subject::DropIn => twilio_edge_api::dropin::reference(),
        Subject::Simulator => format!(
            "{}\n{}",
            twilio_edge_simulator::reference(),
            twilio_edge_simulator::verify_reference(),
        ),
        Subject::SimulatorEmails => twilio_edge_simulator::email_reference(),
        Subject::EmailErrors => twilio_edge_domain::email::error_code::reference(),
        Subject::Keywords => match Merged::read(None, std::iter::empty()).check() {
            Ok(usual) => optout::reference(&usual.optout),
            Err(problems) => return fail(problems),
        },
    };
    super::listing::write(&text)
}
