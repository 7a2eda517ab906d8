//! `twilio-edge sinks`: lists the sinks of the sinks file, and sends a test event to one of them. Needs no sidecar and no
//! database.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{deliveries, listing};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_connectors::sinks::{Sink, Sinks};
use twilio_edge_domain::delivery_attempt::AttemptOutcome;
use twilio_edge_platform::config::Config;
use twilio_edge_services::inbound::sink_tests::{self, SinkTest};

const COLUMNS: [&str; 2] = ["name", "type"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the sinks of the sinks file
    List,
    /// Send one event of type `test` to a sink and show its answer
    Test {
        /// Name of the sink
        name: String,
    },
}

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let config = match globals.settings().check() {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let sinks = match read(&config) {
        Ok(sinks) => sinks,
        Err(problem) => return fail(problem),
    };
    match args.verb {
        Verb::List => {
            let rows: Vec<Map<String, Value>> = sinks.iter().map(row).collect();
            listing::print(globals.output(), &COLUMNS, &rows)
        }
        Verb::Test { name } => match sinks.get(&name) {
            Some(sink) => test(sink, globals),
            None => fail(format!("sinks.file: {} has no sink {name}", config.sinks.file)),
        },
    }
}

/// Reads the sinks file of the configuration.
pub(super) fn read(config: &Config) -> Result<Sinks, String> {
    let file = config.sinks.file.as_str();
    if file.is_empty() {
        return Err("there are no sinks: set sinks.file (TWILIO_EDGE_SINKS_FILE)".to_owned());
    }
    Sinks::read(file).map_err(|problems| format!("sinks.file: {file}: {}", problems.join("; ")))
}

fn row(sink: &Sink) -> Map<String, Value> {
    let fields = [("name", sink.name()), ("type", sink.type_name())];
    fields.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

fn test(sink: &Sink, globals: &Globals) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let SinkTest { delivery_id, attempt } = runtime.block_on(sink_tests::test(sink));
    let is_delivered = attempt.outcome == AttemptOutcome::Delivered;
    let mut row = deliveries::attempt_row(attempt);
    row.insert("sink".to_owned(), json!(sink.name()));
    row.insert("delivery".to_owned(), json!(delivery_id));
    let printed = listing::print(globals.output(), &deliveries::ATTEMPT, &[row]);
    if is_delivered { printed } else { ExitCode::FAILURE }
}
