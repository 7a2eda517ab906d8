//! `twilio-edge reference`: the tables of the documents, completions of shells and man pages, printed by the code they describe.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::Shell;
use twilio_edge_filter::{config, metrics, overrides, reply};

use crate::cli::failure::fail;
use twilio_edge_domain::{event, optout};
use twilio_edge_platform::config::Merged;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, clap::Subcommand)]
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
    /// Script that completes commands and options in a shell (docs/COMMAND-LINE.md)
    Completions {
        /// Shell
        shell: Shell,
    },
    /// Man page of twilio-edge or of one of its commands, or all of them (docs/COMMAND-LINE.md)
    Man {
        /// Words of the command, for instance `messages list`
        command: Vec<String>,
        /// Existing folder for the pages of all commands, instead of one page to standard output
        #[arg(long, value_name = "DIR", conflicts_with = "command")]
        folder: Option<PathBuf>,
    },
}

pub(super) fn run(args: Args, definition: clap::Command) -> ExitCode {
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
        Subject::Completions { shell } => completions(shell, definition),
        Subject::Man { folder: Some(folder), .. } => match write_pages(&folder, definition) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => return fail(format!("{}: {error}", folder.display())),
        },
        Subject::Man { command, folder: None } => match page(&command, definition) {
            Ok(page) => page,
            Err(problem) => return fail(problem),
        },
        Subject::Keywords => match Merged::read(None, std::iter::empty()).check() {
            Ok(usual) => optout::reference(&usual.optout),
            Err(problems) => return fail(problems),
        },
    };
    super::listing::write(&text)
}

fn completions(shell: Shell, mut definition: clap::Command) -> String {
    let mut script = Vec::new();
    let name = definition.get_name().to_owned();
    clap_complete::generate(shell, &mut definition, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Returns the man page of a command.
fn page(words: &[String], mut root: clap::Command) -> Result<String, String> {
    // Gives each command its full name and the options of all commands.
    root.build();
    let mut command = &root;
    for word in words {
        let found = command.find_subcommand(word);
        command = found.ok_or_else(|| format!("there is no command {}", words.join(" ")))?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Writes the man pages of all commands into a folder. Everyone may read them.
fn write_pages(folder: &Path, definition: clap::Command) -> std::io::Result<()> {
    let program = definition.get_name().to_owned();
    clap_mangen::generate_to(definition.disable_help_subcommand(true), folder)?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.starts_with(&program) && name.ends_with(".1") {
            std::fs::set_permissions(entry.path(), Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}
