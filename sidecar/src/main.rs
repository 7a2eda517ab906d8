//! The `twilio-edge` binary: everything it does is a command of [`twilio_edge::cli`].

use std::process::ExitCode;

/// A sidecar makes and drops some hundred small pieces per webhook, on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    twilio_edge::cli::main()
}
