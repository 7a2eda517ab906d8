//! `twilio-edge load`: sends signed webhooks to the user's own edge at a fixed rate, and reports how they were answered.
//!
//! Decides: whether the arguments make sense, and whether the address may be loaded. `load/mix.rs` selects the webhooks,
//! `load/composer.rs` signs them, `load/schedule.rs` sends them when they are due, `load/tally.rs` judges the
//! answers, `load/report.rs` shows them.

mod composer;
mod edge;
mod histogram;
mod mix;
mod progress;
mod report;
mod schedule;
mod tally;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use twilio_edge_platform::terminal;
use twilio_edge_simulator::webhook::Channel;

use self::composer::Composer;
use self::edge::Edge;
use self::mix::Mix;
use self::report::Report;
use self::schedule::{MAX_IN_FLIGHT, Schedule};
use super::signing::{SigningOptions, checked_path};
use crate::cli::{globals::Globals, listing};

/// Longest run.
const MAX_DURATION: Duration = Duration::from_secs(3600);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The application behind the edge receives these webhooks as if Twilio had sent them. All contacts have numbers \
that begin with +1555.\n\
The auth token is read from TWILIO_AUTH_TOKEN or --token-file; without TWILIO_ACCOUNT_SID and token, the demo's account is \
used.\n\
Ctrl-C ends the sending and prints the report; a second one does not wait for answers either.\n\
The exit code is 0 if every genuine webhook was answered 2xx and every forged one 403, 1 if not, 2 if nothing was sent."
)]
pub(super) struct Args {
    /// Webhooks per second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Duration of the sending: 60s, 5m, at most 1h
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Inbound messages of a hundred webhooks; the others are status callbacks
    #[arg(long, value_name = "PERCENT", default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(0..=100))]
    inbound: u32,
    /// Webhooks of a hundred that repeat one of a second before, as Twilio does after a failure
    #[arg(long, value_name = "PERCENT", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(0..=50))]
    repeats: u32,
    /// Webhooks of a hundred with a wrong signature; the edge must answer 403
    #[arg(long, value_name = "PERCENT", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(0..=50))]
    forged: u32,
    /// Channel [default: both]
    #[arg(long, value_enum)]
    channel: Option<Channel>,
    /// Our number, which receives the messages and sent those with a status [default: that of Twilio's WhatsApp sandbox]
    #[arg(long, value_name = "NUMBER", value_parser = sender)]
    sender: Option<String>,
    /// Path and query of inbound messages
    #[arg(long, value_name = "PATH", default_value = "/twilio/inbound")]
    inbound_path: String,
    /// Path and query of status callbacks
    #[arg(long, value_name = "PATH", default_value = "/twilio/status")]
    status_path: String,
    /// Allow an edge with an address that is neither loopback, private nor link-local; it must be yours
    #[arg(long)]
    allow_public: bool,
    #[command(flatten)]
    signing: SigningOptions,
}

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let report = match load(args) {
        Ok(report) => report,
        Err(problem) => {
            terminal::print_error(&format!("twilio-edge load: {problem}"));
            return ExitCode::from(2);
        }
    };
    let text = if globals.is_json() { report.json() } else { report.text() };
    let written = listing::write(&text);
    if report.is_passed() { written } else { ExitCode::FAILURE }
}

fn load(args: Args) -> Result<Report, String> {
    let signing = args.signing.resolve()?;
    for (option, path) in
        [("--inbound-path", &args.inbound_path), ("--status-path", &args.status_path)]
    {
        checked_path(option, path)?;
    }
    let edge = Edge::open(&signing, args.allow_public, MAX_IN_FLIGHT)?;
    edge.check_path("--inbound-path", &args.inbound_path)?;
    edge.check_path("--status-path", &args.status_path)?;
    let run = getrandom::u64().map_err(|error| format!("no random numbers: {error}"))?;
    let mix =
        Mix { inbound: args.inbound, repeats: args.repeats, forged: args.forged, rate: args.rate };
    let composer = Arc::new(Composer {
        mix,
        run,
        account_sid: signing.account_sid,
        key: signing.key,
        origin: signing.origin.clone(),
        inbound_path: args.inbound_path,
        status_path: args.status_path,
        channel: args.channel,
        sender: args.sender,
        sent_at: jiff::Timestamp::now().strftime("%y%m%d%H%M").to_string(),
    });
    let schedule = Schedule { rate: args.rate, duration: args.duration };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let sending = schedule::send_all(schedule, composer.clone(), Arc::new(edge));
    let run = runtime.block_on(sending).map_err(|error| error.to_string())?;
    Ok(Report {
        edge: signing.edge,
        origin: signing.origin,
        sid_prefix: composer.sid_prefix(),
        rate: args.rate,
        elapsed: run.elapsed,
        is_interrupted: run.is_interrupted,
        tally: run.tally,
    })
}

/// Parses whole seconds, minutes or hours.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let parsed = units.into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(number.checked_mul(seconds)?))
    });
    let valid = parsed.filter(|duration| !duration.is_zero() && *duration <= MAX_DURATION);
    valid.ok_or_else(|| "must be a number with s, m or h, as in 60s; at most 1h".to_owned())
}

/// Checks that the number has no channel, because a run may use both.
fn sender(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(':') {
        true => Err("must be a number without a channel, as in +15551234567".to_owned()),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_has_a_unit_and_is_at_most_an_hour() {
        let parsed = |text| duration(text).map(|parsed| parsed.as_secs()).ok();
        assert_eq!(["1s", "60s", "5m", "1h"].map(parsed), [1, 60, 300, 3600].map(Some));
        for text in ["", "s", "0s", "60", "61m", "2h", "1.5s", "-1s", "1d", "99999999999999999h"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn sender_has_no_channel() {
        assert!(sender("+15551234567").is_ok() && sender("whatsapp:+15551234567").is_err());
    }
}
