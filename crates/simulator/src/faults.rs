//! Faults, selected by the last four digits of the recipient's number. The table is the document: a test compares
//! docs/SIMULATOR.md with the output of `twilio-edge reference simulator`.

use std::{fmt::Write as _, sync::LazyLock};

use twilio_edge_domain::sending::errors::ErrorTable;

use super::request::is_whatsapp;

/// Fault that a number's suffix requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// 429 with code 20429 and `Retry-After: 1`; nothing is accepted.
    TooMany,
    /// 400 with this code; nothing is accepted.
    Refused(u32),
    /// 404 with code 20404; nothing is accepted.
    NotFound,
    /// 401 with code 20003; nothing is accepted.
    Unauthorized,
    /// 503 before anything is accepted.
    Unavailable,
    /// The message is accepted, but the answer is 500.
    ErrorAfterAccept,
    /// The message is accepted, but there is no answer.
    SilenceAfterAccept,
    /// The connection is closed without an answer; nothing is accepted.
    Closed,
    /// The message ends as `failed` with this code.
    Failed(u32),
    /// The first message with its text ends as `failed` with this code; later ones arrive.
    FailedOnce(u32),
    /// The message ends as `undelivered` with this code, after `sent`.
    Undelivered(u32),
    /// Every status callback comes twice.
    Duplicates,
    /// The status callbacks come in the reverse order.
    Disorder,
}

/// Suffix, fault, and description.
const TABLE: &[(&str, Fault, &str)] = &[
    ("9001", Fault::TooMany, "429, code 20429, `Retry-After: 1`; not accepted"),
    ("9002", Fault::Refused(21211), "400, code 21211 (invalid `To`); not accepted"),
    ("9003", Fault::Refused(21610), "400, code 21610 (unsubscribed); not accepted"),
    ("9004", Fault::Unavailable, "503, code 20503; not accepted"),
    ("9005", Fault::ErrorAfterAccept, "500, code 20500, **after** accepting: the message is sent"),
    (
        "9006",
        Fault::SilenceAfterAccept,
        "no answer at all, **after** accepting: the message is sent",
    ),
    ("9007", Fault::Closed, "the connection is closed without an answer; not accepted"),
    ("9008", Fault::NotFound, "404, code 20404; not accepted"),
    ("9009", Fault::Unauthorized, "401, code 20003; not accepted"),
    (
        "9010",
        Fault::Failed(63016),
        "on WhatsApp: 201, then `failed` with 63016 (outside of the window), unless it is a template",
    ),
    (
        "9011",
        Fault::Failed(63018),
        "on WhatsApp: 201, then `failed` with 63018 (rate limit of the channel)",
    ),
    (
        "9012",
        Fault::Undelivered(30003),
        "201, `sent`, then `undelivered` with 30003 (handset unreachable)",
    ),
    (
        "9013",
        Fault::Undelivered(30005),
        "201, `sent`, then `undelivered` with 30005 (unknown handset)",
    ),
    (
        "9014",
        Fault::Failed(63024),
        "on WhatsApp: 201, then `failed` with 63024 (not a user of WhatsApp)",
    ),
    (
        "9015",
        Fault::Refused(63016),
        "on WhatsApp: 400, code 63016 (outside of the window), unless it is a template; not accepted",
    ),
    (
        "9016",
        Fault::FailedOnce(30022),
        "201, then `failed` with 30022 (rate limit of the carrier) for the first message with its text; later ones arrive",
    ),
    (
        "9017",
        Fault::Undelivered(30007),
        "201, `sent`, then `undelivered` with 30007 (filtered by the carrier)",
    ),
    ("9020", Fault::Duplicates, "every status callback comes twice"),
    ("9021", Fault::Disorder, "the status callbacks come in the reverse order"),
];

impl Fault {
    /// Returns the fault of a recipient, if it has one.
    pub(super) fn of(address: &str) -> Option<Fault> {
        let found = TABLE.iter().find(|(suffix, ..)| address.ends_with(suffix));
        let fault = match found {
            Some((_, fault, _)) => *fault,
            None => Fault::Failed(channel_codes().find(|code| address.ends_with(&suffix(*code)))?),
        };
        (!fault.is_of_whatsapp() || is_whatsapp(address)).then_some(fault)
    }

    /// Returns whether the fault applies to free texts only.
    pub(super) fn is_about_windows(self) -> bool {
        matches!(self, Fault::Failed(63016) | Fault::Refused(63016))
    }

    fn is_of_whatsapp(self) -> bool {
        matches!(self, Fault::Failed(63_000..64_000) | Fault::Refused(63_000..64_000))
    }
}

/// Returns the known error codes of channels, 63001 to 63099.
fn channel_codes() -> impl Iterator<Item = u32> {
    static CODES: LazyLock<Vec<u32>> = LazyLock::new(|| {
        let Ok(errors) = ErrorTable::of(Default::default()) else { return Vec::new() };
        (63_001..63_100).filter(|code| errors.get(i64::from(*code)).is_some()).collect()
    });
    CODES.iter().copied()
}

/// Returns the suffix that selects a code of a channel: `93` and its last two digits.
fn suffix(code: u32) -> String {
    format!("93{:02}", code % 100)
}

/// Renders the table in Markdown.
pub fn reference() -> String {
    let mut text = "| suffix of `To` | effect |\n| --- | --- |\n".to_owned();
    for (suffix, _, seen) in TABLE {
        let _ = writeln!(text, "| `{suffix}` | {seen} |");
    }
    let codes: Vec<String> = channel_codes().map(|code| format!("`{}`", suffix(code))).collect();
    let _ = writeln!(
        text,
        "| {} | on WhatsApp: 201, then `failed` with the code 630xx that has the last two digits ([ERRORS.md](ERRORS.md#table)); 63016 only without a template |",
        codes.join(", ")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_lists_every_fault() {
        let guide = include_str!("../../../docs/SIMULATOR.md");
        let hint = "docs/SIMULATOR.md: insert the output of `twilio-edge reference simulator`";
        assert!(guide.contains(&reference()), "{hint}:\n{}", reference());
    }

    #[test]
    fn suffix_applies_on_every_channel() {
        assert_eq!(Fault::of("whatsapp:+14155559001"), Some(Fault::TooMany));
        assert_eq!(Fault::of("+14155559013"), Some(Fault::Undelivered(30005)));
        assert_eq!(Fault::of("+14155550123"), None);
        assert_eq!(Fault::of("whatsapp:+14155559010"), Some(Fault::Failed(63016)));
        assert_eq!(Fault::of("+14155559010"), None, "a code of WhatsApp's");
    }

    #[test]
    fn every_known_code_of_a_channel_has_a_suffix() {
        let known = ErrorTable::of(Default::default()).unwrap();
        for code in (63_000..64_000).filter(|code| known.get(i64::from(*code)).is_some()) {
            let address = format!("whatsapp:+1415555{}", suffix(code));
            assert_eq!(Fault::of(&address), Some(Fault::Failed(code)));
        }
        assert_eq!(Fault::of("whatsapp:+14155559399"), None, "an unknown code");
        assert_eq!(Fault::of("+14155559324"), None, "an SMS");
        assert_eq!(Fault::of("+14155559017"), Some(Fault::Undelivered(30007)));
    }
}
