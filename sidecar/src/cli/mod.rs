//! Commands of `twilio-edge`: one file per command, with its arguments and its `run`. This file has no other logic.

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

/// Verified Twilio webhooks at the edge: the sidecar of the twilio-edge filter, and its tools.
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
    /// Migrate the database and stop; `serve` migrates as well when it starts
    Migrate(migrate::Args),
    /// Check whether a sidecar on this machine is ready
    Health(health::Args),
    /// Show the history of a number: its windows, messages and webhooks
    Story(story::Args),
    /// List messages, or show the history of one
    Messages(messages::Args),
    /// List received webhooks with all their parameters
    Events(events::Args),
    /// List, show or refresh the templates of an account
    Templates(templates::Args),
    /// List, show or change the profiles of accounts
    Tenants(tenants::Args),
    /// Add, remove, list, import or export suppressions
    Suppressions(suppressions::Args),
    /// Record, withdraw, list, import or export consents
    Consents(consents::Args),
    /// Show deliveries to sinks; retry or discard dead letters
    Deliveries(deliveries::Args),
    /// Deliver webhooks again to one sink
    Replay(replay::Args),
    /// Show or stop the archive queue
    Archive(archive::Args),
    /// Send one message through the API of a sidecar
    Send(send::Args),
    /// List outbound messages, cancel one, or resolve an unknown one
    Sends(sends::Args),
    /// Create, list and revoke API keys
    Keys(keys::Args),
    /// Remove the stored content of a message, a person or a period
    Redact(redact::Args),
    /// Print the settings in effect, without secrets
    PrintConfig(print_config::Args),
    /// Print a reference table as Markdown: settings, refusals, metrics and others
    Reference(reference::Args),
    /// Run Envoy with the filter, the sidecar and a demo backend on this machine
    Demo(demo::Args),
    /// Run the demo's application, which prints each webhook it receives
    Backend(backend::Args),
    /// Create a webhook with Twilio's signature, and print it as a curl command or send it
    Sign(sign::Args),
    /// Run a simulator of Twilio on this machine: REST, message statuses, signed webhooks, errors on demand
    Simulator(simulator::Args),
    /// Explain why a request was refused, and what would make its signature match
    Explain(explain::Args),
    /// Compare the filter's verdicts with a file of signed requests
    Vectors(vectors::Args),
}

/// Parses the command line and runs its command.
pub fn main() -> ExitCode {
    file_access::restrict_new_files();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // The error repeats arguments, which may contain text of strangers.
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
