//! The `twilio-edge` binary: everything it does is a command of [`twilio_edge::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    twilio_edge::cli::main()
}
