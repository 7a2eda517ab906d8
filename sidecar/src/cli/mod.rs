//! The commands of `twilio-edge`, one file each: its arguments and its `run`. Nothing else is decided here.

mod archive;
mod backend;
mod captured;
mod consents;
mod credentials;
mod deliveries;
mod demo;
mod events;
mod explain;
mod failure;
mod health;
mod keys;
mod ledger;
mod listing;
mod messages;
mod migrate;
mod permissions;
mod preflight;
mod print_config;
mod redact;
mod reference;
mod replay;
mod send;
mod sends;
mod serve;
mod sign;
mod simulator;
mod sources;
mod story;
mod suppressions;
mod templates;
mod tenants;
mod vectors;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use twilio_edge_platform::{file_access, terminal};

/// Exit code of a command line that cannot be parsed.
const WRONG_ARGUMENTS: u8 = 2;

/// Proven webhooks at the edge: the sidecar of the twilio-edge filter, and its tools.
#[derive(Debug, Parser)]
#[command(name = "twilio-edge", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar
    Serve(serve::Args),
    /// Bring the database up to date and stop; `serve` does the same when it starts
    Migrate(migrate::Args),
    /// Ask a sidecar of this machine whether it is ready
    Health(health::Args),
    /// Everything known of a number: its windows, messages and webhooks
    Story(story::Args),
    /// What is known of messages: list them, tell the whole story of one
    Messages(messages::Args),
    /// The webhooks that came, with every parameter
    Events(events::Args),
    /// The templates of an account: list them, show one, read them from Twilio now
    Templates(templates::Args),
    /// What is said of accounts: who they are, and what counts for them alone
    Tenants(tenants::Args),
    /// Who must not be written to: add, remove, list, import, export
    Suppressions(suppressions::Args),
    /// What people agreed to: record, withdraw, list, import, export
    Consents(consents::Args),
    /// What sinks are owed; what was given up, and bringing it on its way again
    Deliveries(deliveries::Args),
    /// Deliver webhooks once more, to one sink
    Replay(replay::Args),
    /// What waits for the archive, and ending that
    Archive(archive::Args),
    /// Ask a sidecar for one message, by its API
    Send(send::Args),
    /// Messages that were taken on to be sent, and those of which nobody knows
    Sends(sends::Args),
    /// Make, list and revoke the keys of the API
    Keys(keys::Args),
    /// Take everything out of what was heard: of a message, of a person, of a time
    Redact(redact::Args),
    /// Print the settings in effect, without secrets
    PrintConfig(print_config::Args),
    /// Print a reference as Markdown: what may be configured, refused, measured
    Reference(reference::Args),
    /// Run Envoy with the filter, the sidecar and a demo backend on this machine
    Demo(demo::Args),
    /// Run the demo's application: it shows each webhook it gets
    Backend(backend::Args),
    /// Make a webhook signed as Twilio signs it: print it as curl, or send it
    Sign(sign::Args),
    /// Run a Twilio on this machine: REST, messages that get somewhere, signed webhooks, errors on demand
    Simulator(simulator::Args),
    /// Tell why a request was refused, and what would make its signature match
    Explain(explain::Args),
    /// Compare the filter's verdicts with a file of signed requests
    Vectors(vectors::Args),
}

/// Parses the command line and runs the command it names.
pub fn main() -> ExitCode {
    file_access::restrict_new_files();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // The error repeats arguments, and those may hold what strangers wrote.
        Err(error) if error.use_stderr() => {
            terminal::complain(error.render().to_string().trim_end());
            return ExitCode::from(WRONG_ARGUMENTS);
        }
        Err(help) => help.exit(),
    };
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Health(args) => health::run(args),
        Command::Story(args) => story::run(args),
        Command::Messages(args) => messages::run(args),
        Command::Events(args) => events::run(args),
        Command::Templates(args) => templates::run(args),
        Command::Tenants(args) => tenants::run(args),
        Command::Suppressions(args) => suppressions::run(args),
        Command::Consents(args) => consents::run(args),
        Command::Deliveries(args) => deliveries::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Archive(args) => archive::run(args),
        Command::Send(args) => send::run(args),
        Command::Sends(args) => sends::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Redact(args) => redact::run(args),
        Command::PrintConfig(args) => print_config::run(args),
        Command::Reference(args) => reference::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Backend(args) => backend::run(args),
        Command::Sign(args) => sign::run(args),
        Command::Simulator(args) => simulator::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Vectors(args) => vectors::run(args),
    }
}
