//! Text that `twilio-edge demo` prints when all parts are ready: the link to the console, the addresses, and commands to try.

use std::env;
use std::fmt::Write as _;

use super::Demo;
use twilio_edge_demo::{self as demo, account::Account};

impl Demo {
    /// Returns the text for the user; `console` is the link that signs in.
    pub(super) fn banner(&self, console: &str) -> String {
        let mut text = "\ntwilio-edge is running; Ctrl-C stops all of it.\n\n".to_owned();
        let _ = writeln!(
            text,
            "Open the console; the link signs you in once, within an hour:\n\n  {console}\n\n\
            There you are the customer and the business. To sign in again, use the key in {}.\n",
            self.args.console_key().display()
        );
        for (part, address, what) in [
            ("edge", self.args.edge(), "Envoy with the filter: /twilio/inbound, status and other"),
            ("sidecar", self.args.sidecar(), "leases, opt-outs and the ledger; remembers them"),
            (
                "backend",
                self.args.backend(),
                "shows here what reaches it; PUT /answer/500 makes it fail",
            ),
            ("twilio", self.args.simulator(), "the simulator: REST, statuses and replies"),
            ("admin", self.args.admin(), "Envoy's own: /stats?filter=twilio_edge"),
        ] {
            let _ = writeln!(text, "  {part:<9}http://{address}  {what}");
        }
        let Account { sid, origin, .. } = &self.account;
        let key = self.args.key();
        let _ = writeln!(
            text,
            "\nIt takes webhooks of {sid} signed for {origin},\nand messages to send with the API key in {}.",
            key.display()
        );
        if *sid != demo::ACCOUNT_SID {
            text.push_str("To sign some yourself, set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN there as here.\n");
        }
        let sign = self.sign_command();
        let message = format!("{sign} inbound --send --message-sid {}", fresh_message_sid());
        let _ = write!(
            text,
            "\
Try in another terminal:

  {message}
      a message: arrives once, verified
  {message}
      the same message again: answered, but the backend sees nothing
  {sign} stop --send
      an opt-out: on record before the backend hears of it
"
        );
        text
    }

    /// Returns the `sign` command with options that make it sign for and send to this demo.
    fn sign_command(&self) -> String {
        let mut command = String::new();
        if self.args.edge_port != demo::EDGE_PORT {
            let _ = write!(command, "EDGE_PORT={} ", self.args.edge_port);
        }
        if self.account.origin != format!("http://{}", self.args.edge()) {
            let _ = write!(command, "PUBLIC_ORIGIN={} ", self.account.origin);
        }
        command + &env::args().next().unwrap_or_else(|| "twilio-edge".to_owned()) + " sign"
    }
}

/// Returns a new message SID: with a fixed one, the second `make run` would treat the first message as a duplicate.
fn fresh_message_sid() -> String {
    let now = jiff::Timestamp::now().as_nanosecond();
    format!("SM{now:032x}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use std::path::PathBuf;

    use super::*;
    use crate::cli::demo::Args;

    const README: &str = include_str!("../../../../README.md");

    const LINK: &str = "http://127.0.0.1:8082/console/sign-in?token=x";

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn demo(arguments: &[&str]) -> Demo {
        let args = Program::parse_from([&["demo"], arguments].concat()).args;
        let account = Account::new(|_| None, args.edge_port).unwrap();
        Demo { args, account, envoy_config: PathBuf::new() }
    }

    /// Returns the `sign` commands in `text`, without the shell's quoting.
    fn sign_commands(text: &str) -> Vec<Vec<String>> {
        text.lines()
            .filter(|line| !line.contains(" sign in "))
            .filter_map(|line| line.split_once(" sign ").map(|(_, command)| command))
            .map(|command| command.split(" #").next().unwrap().replace("Where is my order?", "hi"))
            .map(|command| {
                let words =
                    command.split_whitespace().map(|word| word.trim_matches('"').to_owned());
                ["twilio-edge", "sign"].map(str::to_owned).into_iter().chain(words).collect()
            })
            .collect()
    }

    #[test]
    fn commands_of_banner_and_readme_exist() {
        for (text, at_least) in [(demo(&[]).banner(LINK), 3), (README.to_owned(), 3)] {
            let commands = sign_commands(&text);
            assert!(commands.len() >= at_least, "{text}");
            for command in commands {
                let parsed = crate::cli::Cli::try_parse_from(&command);
                assert!(parsed.is_ok(), "{command:?}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn readme_shows_the_banner_as_it_is() {
        let banner = demo(&[]).banner(LINK);
        let is_part = |line: &&str| line.contains("  http://") && !line.contains(LINK);
        let port_uses: Vec<_> = banner.lines().filter(is_part).collect();
        assert_eq!(port_uses.len(), 5, "{banner}");
        for line in port_uses {
            assert!(README.lines().any(|shown| shown == line), "README.md lacks: {line}");
        }
    }

    #[test]
    fn banner_begins_with_the_console() {
        let banner = demo(&[]).banner(LINK);
        let first = banner.lines().find(|line| line.contains("http://")).unwrap();
        assert_eq!(first.trim(), LINK);
    }

    #[test]
    fn commands_for_another_edge_say_so() {
        let banner = demo(&["--edge-port", "18080"]).banner(LINK);
        assert!(banner.contains("EDGE_PORT=18080 "), "{banner}");
        assert!(!banner.contains("PUBLIC_ORIGIN="), "{banner}");
    }
}
