//! `twilio-edge tail`: shows webhooks as they are recorded.

use std::{ops::ControlFlow, process::ExitCode};

use super::{
    failure::fail,
    globals::Globals,
    listing::{self, Output},
    live::{self, LiveOptions},
};
use twilio_edge_platform::terminal;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --json each line is one webhook, as GET /v1/events/{id} shows it. Ctrl-C ends the command."
)]
pub(super) struct Args {
    #[command(flatten)]
    live: LiveOptions,
}

const COLUMNS: [&str; 9] =
    ["received_at", "sid", "class", "from", "to", "status", "error_code", "backend", "route"];

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let output = globals.output();
    let mut has_header = false;
    let shown = live::run(args.live.follow(async |webhook| {
        let text = match output {
            Output::Table => live::line(webhook) + "\n",
            Output::Json => format!("{}\n", serde_json::Value::Object(webhook.clone())),
            Output::Tsv | Output::Csv => {
                let text = listing::text(output, &COLUMNS, std::slice::from_ref(webhook));
                match std::mem::replace(&mut has_header, true) {
                    false => text,
                    true => text.split_once('\n').map_or(String::new(), |(_, row)| row.to_owned()),
                }
            }
        };
        // A closed reader, for instance `head`, ends the command.
        match terminal::print(&text) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }));
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(problem),
    }
}
