//! Commands of `twilio-edge`: one file per command, with its arguments and its `run`. This file has no other logic.

mod api_client;
mod archive;
mod backend;
mod consents;
mod credentials;
mod deliveries;
mod demo;
mod event_reporting;
mod events;
mod explain;
mod failure;
mod flows;
mod globals;
mod health;
mod history;
mod keys;
mod ledger;
mod listen;
mod listing;
mod live;
mod load;
mod media;
mod messages;
mod migrate;
mod notifications;
mod notify;
mod permissions;
mod preflight;
mod print_config;
mod redact;
mod reference;
mod refused;
mod replay;
mod send;
mod serve;
mod sign;
mod signing;
mod simulator;
mod sinks;
mod stats;
mod suppressions;
mod tail;
mod templates;
mod tenants;
mod vectors;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use twilio_edge_platform::{file_access, terminal};

/// Name of the program.
const NAME: &str = "twilio-edge";

/// Exit code of a command line that cannot be parsed.
const WRONG_ARGUMENTS: u8 = 2;

/// Verified Twilio webhooks at the edge: the sidecar of the twilio-edge filter, and its tools.
#[derive(Debug, Parser)]
#[command(name = NAME, version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    globals: globals::Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar
    Serve,
    /// Migrate the database and stop; `serve` migrates as well when it starts
    Migrate,
    /// Check whether a sidecar on this machine is ready
    Health(health::Args),
    /// Show the history of a number: its suppressions, consents, windows, messages, notifications and webhooks
    History(history::Args),
    /// List messages of both directions, show one, cancel one, or resolve an unknown one
    Messages(messages::Args),
    /// List notifications with their attempts, or show one
    Notifications(notifications::Args),
    /// Count the outbound messages of an account over a period: accepted, sent, delivered, read, failed, refused
    Stats(stats::Args),
    /// List received webhooks with all their parameters
    Events(events::Args),
    /// Show webhooks as they are recorded, through the API of a sidecar
    Tail(tail::Args),
    /// Deliver a copy of each webhook to a program on this machine, through the API of a sidecar
    Listen(listen::Args),
    /// List, show or refresh the templates of an account
    Templates(templates::Args),
    /// List, show or change the profiles of accounts
    Tenants(tenants::Args),
    /// Add, remove, list, import or export suppressions
    Suppressions(suppressions::Args),
    /// Record, withdraw, list, import or export consents
    Consents(consents::Args),
    /// List media of inbound messages, and delete them, here and at Twilio
    Media(media::Args),
    /// Show deliveries to sinks and their attempts; retry or discard dead letters
    Deliveries(deliveries::Args),
    /// List the sinks, or send a test event to one
    Sinks(sinks::Args),
    /// Deliver webhooks again to one sink
    Replay(replay::Args),
    /// Show or stop the archive queue
    Archive(archive::Args),
    /// Send one message through the API of a sidecar
    Send(send::Args),
    /// Notify one contact by a plan of channels, as an application, through the API
    Notify(notify::Args),
    /// Start or show an execution of a Studio flow through the API of a sidecar
    Flows(flows::Args),
    /// Start, check, show or cancel a verification through the API of a sidecar
    Verify(verify::Args),
    /// Create, list and revoke API keys
    Keys(keys::Args),
    /// List the causes for which filters refused requests, show the requests of one, or explain a request
    Refused(refused::Args),
    /// Remove the stored content of a message, a contact or a period
    Redact(redact::Args),
    /// Print the settings in effect, without secrets
    PrintConfig,
    /// Print reference tables as Markdown (settings, refusals, metrics and others), completions of shells, and man pages
    Reference(reference::Args),
    /// Run Envoy with the filter, the sidecar and a demo backend on this machine
    Demo(demo::Args),
    /// Run the demo's application, which prints each webhook it receives
    Backend(backend::Args),
    /// Create a webhook with Twilio's signature, and print it as a curl command or send it
    Sign(sign::Args),
    /// Send signed webhooks to your own edge at a rate, and report latencies and what was not answered 2xx in time
    Load(load::Args),
    /// Run a simulator of Twilio on this machine: REST, message statuses, signed webhooks, errors on demand
    Simulator(simulator::Args),
    /// Explain why a request was refused, and what would make its signature match
    Explain(explain::Args),
    /// Compare the filter's verdicts with a file of signed requests
    Vectors(vectors::Args),
}

/// Returns the definition of all commands and options.
fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs its command.
pub fn main() -> ExitCode {
    file_access::restrict_new_files();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // The error repeats arguments, which may contain text of others.
        Err(error) if error.use_stderr() => {
            terminal::print_error(error.render().to_string().trim_end());
            return ExitCode::from(WRONG_ARGUMENTS);
        }
        Err(help) => help.exit(),
    };
    let globals = &cli.globals;
    match cli.command {
        Command::Serve => serve::run(globals),
        Command::Migrate => migrate::run(globals),
        Command::Health(args) => health::run(args, globals),
        Command::History(args) => history::run(args, globals),
        Command::Messages(args) => messages::run(args, globals),
        Command::Notifications(args) => notifications::run(args, globals),
        Command::Stats(args) => stats::run(args, globals),
        Command::Events(args) => events::run(args, globals),
        Command::Tail(args) => tail::run(args, globals),
        Command::Listen(args) => listen::run(args, globals),
        Command::Templates(args) => templates::run(args, globals),
        Command::Tenants(args) => tenants::run(args, globals),
        Command::Suppressions(args) => suppressions::run(args, globals),
        Command::Consents(args) => consents::run(args, globals),
        Command::Media(args) => media::run(args, globals),
        Command::Deliveries(args) => deliveries::run(args, globals),
        Command::Sinks(args) => sinks::run(args, globals),
        Command::Replay(args) => replay::run(args, globals),
        Command::Archive(args) => archive::run(args, globals),
        Command::Send(args) => send::run(args),
        Command::Notify(args) => notify::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Keys(args) => keys::run(args, globals),
        Command::Refused(args) => refused::run(args, globals),
        Command::Redact(args) => redact::run(args, globals),
        Command::PrintConfig => print_config::run(globals),
        Command::Reference(args) => reference::run(args, command()),
        Command::Demo(args) => demo::run(args),
        Command::Backend(args) => backend::run(args),
        Command::Sign(args) => sign::run(args),
        Command::Load(args) => load::run(args, globals),
        Command::Simulator(args) => simulator::run(args),
        Command::Explain(args) => explain::run(args, globals),
        Command::Vectors(args) => vectors::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::{listing::Output, *};

    /// Returns the words of every command that has no subcommand, or that works without one.
    fn commands(command: &clap::Command, words: &[String]) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for subcommand in command.get_subcommands() {
            let words = [words, &[subcommand.get_name().to_owned()]].concat();
            if !subcommand.is_subcommand_required_set() {
                found.push(words.clone());
            }
            found.extend(commands(subcommand, &words));
        }
        found
    }

    #[test]
    fn global_options_work_at_every_place_of_every_command() {
        let all = commands(&Cli::command(), &[]);
        assert!(all.len() > 40, "{all:?}");
        let mut parsed = 0;
        for words in all {
            for options in
                [["--config", "edge.toml", "--json"], ["-o", "json", "--config=edge.toml"]]
            {
                for place in 0..=words.len() {
                    let (before, after) = words.split_at(place);
                    let options = options.map(str::to_owned);
                    let program = ["twilio-edge".to_owned()];
                    let arguments = [&program[..], before, &options, after].concat();
                    match Cli::try_parse_from(&arguments) {
                        Ok(cli) => {
                            assert_eq!(cli.globals.output(), Output::Json, "{arguments:?}");
                            assert!(cli.globals.has_config("edge.toml"), "{arguments:?}");
                            parsed += 1;
                        }
                        // The words lack the arguments that the command requires; the options are not the problem.
                        Err(error) => {
                            let kind = error.kind();
                            assert_eq!(
                                kind,
                                ErrorKind::MissingRequiredArgument,
                                "{arguments:?}: {error}"
                            );
                        }
                    }
                }
            }
        }
        assert!(parsed > 60, "{parsed}");
    }
}
