//! The commands of `twilio-edge`, one file each: its arguments and its `run`. Nothing else is decided here.

mod backend;
mod captured;
mod demo;
mod serve;
mod vectors;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Run Envoy with the filter, the sidecar and a demo backend on this machine
    Demo(demo::Args),
    /// Run the demo's application: it shows each webhook it gets
    Backend(backend::Args),
    /// Compare the filter's verdicts with a file of signed requests
    Vectors(vectors::Args),
}

/// Parses the command line and runs the command it names.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Backend(args) => backend::run(args),
        Command::Vectors(args) => vectors::run(args),
    }
}
