//! Suppressions and consents as they are shown and exchanged: the one shape of their JSON, and their lines of CSV (RFC 4180),
//! written and read. A list that is read is read whole before anything is done with it, and every bad line is told with its
//! number. Asks nobody and changes nothing.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{
    address::Address,
    consent::{Consent, State},
    period,
    phone::Region,
    policy::Category,
    suppression::{Source, Suppression},
    window::rfc3339,
};

/// One reason not to write to a person.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SuppressionShown {
    account_sid: String,
    /// E.164, a short code, or the channel's own id.
    number: String,
    /// `sms`, `whatsapp`, .. or `*` for every channel.
    channel: String,
    source: Source,
    /// Of a callback: why Twilio did not deliver.
    error_code: Option<String>,
    /// Whether it holds; one that does not tells when it did.
    in_force: bool,
    /// Since when it holds, or did the last time.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// When it last began or ended.
    #[schema(format = DateTime)]
    changed_at: Option<String>,
    /// The message that made it so, or ended it.
    message_sid: Option<String>,
    /// The route on which that came.
    route: Option<String>,
    /// The channel on which it was said.
    heard_on: Option<String>,
    /// Our number or sender that it was said to, or that a callback was about.
    sender: Option<String>,
    /// The Messaging Service that a callback was about.
    messaging_service_sid: Option<String>,
    /// Who made it so, or ended it; nobody for what a person said.
    changed_by: Option<String>,
}

impl SuppressionShown {
    /// As it is shown.
    pub fn of(known: &Suppression) -> SuppressionShown {
        let known = known.clone();
        SuppressionShown {
            account_sid: known.account_sid,
            number: known.address.number,
            channel: known.address.channel,
            source: known.source,
            error_code: Some(known.error_code).filter(|code| !code.is_empty()),
            in_force: known.in_force,
            since: rfc3339(known.since_ms),
            changed_at: rfc3339(known.changed_at_ms),
            message_sid: known.message_sid,
            route: known.route,
            heard_on: known.heard_on,
            sender: known.sender,
            messaging_service_sid: known.service_sid,
            changed_by: known.changed_by,
        }
    }
}

/// One piece of evidence of what a person agreed to, or took back.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ConsentShown {
    id: String,
    account_sid: String,
    /// E.164, a short code, or the channel's own id.
    number: String,
    /// `sms`, `whatsapp`, ..
    channel: String,
    category: Category,
    state: State,
    /// When the person said so.
    #[schema(format = DateTime)]
    at: Option<String>,
    /// Where: a form, a call, a contract.
    source: String,
    /// What they were shown, and said.
    proof: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
    #[schema(format = DateTime)]
    recorded_at: Option<String>,
    recorded_by: String,
}

impl ConsentShown {
    /// As it is shown.
    pub fn of(known: &Consent) -> ConsentShown {
        let id = known.id();
        let known = known.clone();
        ConsentShown {
            id,
            account_sid: known.account_sid,
            number: known.address.number,
            channel: known.address.channel,
            category: known.category,
            state: known.state,
            at: rfc3339(known.at_ms),
            source: known.source,
            proof: known.proof,
            ip: known.ip,
            user_agent: known.user_agent,
            recorded_at: rfc3339(known.recorded_at_ms),
            recorded_by: known.recorded_by,
        }
    }
}

/// A line that is no line of such a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BadLine {
    /// Counted from 1, the line of names included.
    pub line: u64,
    /// What is wrong, with the name of the column.
    pub problem: String,
}

/// A list, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T> {
    /// What its good lines say, in order.
    pub good: Vec<T>,
    /// The others.
    pub bad: Vec<BadLine>,
}

impl<T> List<T> {
    /// The first bad lines, in one sentence.
    pub fn complaint(&self) -> Option<String> {
        const TOLD: usize = 20;
        if self.bad.is_empty() {
            return None;
        }
        let told = self.bad.iter().take(TOLD);
        let told: Vec<String> =
            told.map(|bad| format!("line {}: {}", bad.line, bad.problem)).collect();
        let more = match self.bad.len().saturating_sub(TOLD) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Some(told.join("; ") + &more)
    }
}

/// Whose list it is, and how its numbers are read.
#[derive(Debug, Clone)]
pub struct About<'a> {
    /// The account.
    pub account_sid: &'a str,
    /// Of numbers without a country code.
    pub region: Option<Region>,
    /// Who records it.
    pub by: &'a str,
    /// When.
    pub now_ms: i64,
}

#[derive(Deserialize)]
struct SuppressionLine {
    number: String,
    channel: Option<String>,
}

#[derive(Deserialize)]
struct ConsentLine {
    number: String,
    channel: Option<String>,
    category: String,
    state: Option<String>,
    at: Option<String>,
    source: String,
    proof: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
}

/// People to suppress: a column `number`, with its channel before it or in a column `channel`; other columns are for people.
pub fn read_suppressions(csv: &[u8], about: &About<'_>) -> Result<List<Address>, String> {
    read(csv, &["number"], |line: SuppressionLine| {
        address(&line.number, line.channel.as_deref(), about)
    })
}

/// Consents: columns `number`, `category`, `source` and, where there is something to say, `channel`, `state`, `at`, `proof`,
/// `ip`, `user_agent`.
pub fn read_consents(csv: &[u8], about: &About<'_>) -> Result<List<Consent>, String> {
    read(csv, &["number", "category", "source"], |line: ConsentLine| {
        let column = |name: &'static str| move |problem: String| format!("{name}: {problem}");
        let state = line.state.map(State::try_from).transpose().map_err(column("state"))?;
        let at_ms = line.at.as_deref().map(period::instant).transpose().map_err(column("at"))?;
        let consent = Consent {
            account_sid: about.account_sid.to_owned(),
            address: address(&line.number, line.channel.as_deref(), about)?,
            category: Category::try_from(line.category).map_err(column("category"))?,
            state: state.unwrap_or(State::Granted),
            at_ms: at_ms.unwrap_or(about.now_ms),
            source: line.source,
            proof: line.proof,
            ip: line.ip,
            user_agent: line.user_agent,
            recorded_at_ms: about.now_ms,
            recorded_by: about.by.to_owned(),
        };
        consent.check(about.now_ms)?;
        Ok(consent)
    })
}

fn address(number: &str, channel: Option<&str>, about: &About<'_>) -> Result<Address, String> {
    let address = match channel.map(str::trim) {
        Some("*") => Address::given(number, None, about.region)
            .map(|address| Address { channel: "*".to_owned(), ..address }),
        channel => Address::given(number, channel, about.region),
    };
    address.map_err(|problem| format!("number: {problem}"))
}

fn read<L: for<'de> Deserialize<'de>, T>(
    csv: &[u8],
    needed: &[&str],
    good: impl Fn(L) -> Result<T, String>,
) -> Result<List<T>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(csv);
    let names = reader.headers().map_err(|error| format!("line 1: {error}"))?.clone();
    if let Some(missing) = needed.iter().find(|needed| !names.iter().any(|name| name == **needed)) {
        return Err(format!(
            "line 1: names no column `{missing}`; it must name {}",
            needed.join(", ")
        ));
    }
    let mut lines = Lines { csv, from: 0, line: 1 };
    let mut list = List { good: Vec::new(), bad: Vec::new() };
    let mut record = csv::ByteRecord::new();
    loop {
        let line = lines.at(reader.position().byte());
        let read = match reader.read_byte_record(&mut record) {
            Ok(false) => return Ok(list),
            Ok(true) => {
                let names = names.as_byte_record();
                let line = record.deserialize::<L>(Some(names));
                line.map_err(|error| shortened(&error)).and_then(&good)
            }
            Err(error) => Err(shortened(&error)),
        };
        match read {
            Ok(read) => list.good.push(read),
            Err(problem) => list.bad.push(BadLine { line, problem }),
        }
    }
}

/// Counts lines as an editor does: the reader counts the end of one to the next, and blank ones not at all.
struct Lines<'a> {
    csv: &'a [u8],
    from: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of what comes at or after a place; places only go forward.
    fn at(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        let rest = self.csv.get(byte..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let to = byte.saturating_add(blank);
        let passed = self.csv.get(self.from..to).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.from = self.from.max(to);
        self.line
    }
}

/// Without the place, which is told beside it.
fn shortened(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("it has {len} columns, and line 1 names {expected_len}")
        }
        csv::ErrorKind::Deserialize { err, .. } => err.to_string(),
        _ => error.to_string(),
    }
}

/// The names of the columns of a list of suppressions.
pub const SUPPRESSION_COLUMNS: [&str; 8] =
    ["number", "channel", "source", "error_code", "since", "message_sid", "sender", "changed_by"];

/// A line of it.
pub fn suppression_line(known: &Suppression) -> [String; 8] {
    [
        known.address.number.clone(),
        known.address.channel.clone(),
        known.source.to_string(),
        known.error_code.clone(),
        rfc3339(known.since_ms).unwrap_or_default(),
        known.message_sid.clone().unwrap_or_default(),
        known.sender.clone().unwrap_or_default(),
        known.changed_by.clone().unwrap_or_default(),
    ]
}

/// The names of the columns of a list of consents.
pub const CONSENT_COLUMNS: [&str; 11] = [
    "number",
    "channel",
    "category",
    "state",
    "at",
    "source",
    "proof",
    "ip",
    "user_agent",
    "recorded_at",
    "recorded_by",
];

/// A line of it.
pub fn consent_line(known: &Consent) -> [String; 11] {
    [
        known.address.number.clone(),
        known.address.channel.clone(),
        known.category.as_str().to_owned(),
        known.state.as_str().to_owned(),
        rfc3339(known.at_ms).unwrap_or_default(),
        known.source.clone(),
        known.proof.clone().unwrap_or_default(),
        known.ip.clone().unwrap_or_default(),
        known.user_agent.clone().unwrap_or_default(),
        rfc3339(known.recorded_at_ms).unwrap_or_default(),
        known.recorded_by.clone(),
    ]
}

/// Lines of CSV.
pub fn written<const N: usize>(lines: impl IntoIterator<Item = [String; N]>) -> Vec<u8> {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for line in lines {
        // Nothing fails that is written to memory.
        let _ = writer.write_record(&line);
    }
    writer.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn about() -> About<'static> {
        let region = "US".parse().ok();
        About { account_sid: "AC1", region, by: "key 1", now_ms: 1_795_436_897_042 }
    }

    #[test]
    fn every_bad_line_is_told_with_its_number() {
        let csv = "number,channel,note\r\n(415) 555-2671,sms,\"two\r\nlines\"\r\n12,whatsapp,\r\n\r\n\
                   whatsapp:+14155552672,,\r\n+14155552673\r\n+1415,sms,x\r\n+14155552674,*,\r\n";
        let list = read_suppressions(csv.as_bytes(), &about()).unwrap();
        let good: Vec<_> =
            list.good.iter().map(|a| format!("{} {}", a.channel, a.number)).collect();
        assert_eq!(good, ["sms +14155552671", "whatsapp +14155552672", "* +14155552674"]);
        let bad: Vec<_> = list.bad.iter().map(|bad| (bad.line, bad.problem.as_str())).collect();
        assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 7, 8], "{bad:?}");
        assert_eq!(bad[1].1, "it has 1 columns, and line 1 names 3");
        assert!(list.complaint().unwrap().starts_with("line 4: number: \"12\" is no phone number"));
        let none = read_suppressions("phone\n+14155552671\n".as_bytes(), &about()).unwrap_err();
        assert!(none.contains("names no column `number`"), "{none}");
    }

    #[test]
    fn a_consent_says_what_it_has_to() {
        let csv = "number,category,source,at,state,ip\n\
                   +14155552671,marketing,form,2026-01-02,,192.0.2.1\n\
                   +14155552671,sales,form,,,\n\
                   +14155552671,utility,form,tomorrow,,\n\
                   +14155552671,utility,,,,\n\
                   +14155552671,utility,form,,no,\n";
        let list = read_consents(csv.as_bytes(), &about()).unwrap();
        assert_eq!(list.good.len(), 1);
        assert_eq!(rfc3339(list.good[0].at_ms).unwrap(), "2026-01-02T00:00:00.000Z");
        let problems: Vec<_> = list.bad.iter().map(|bad| bad.problem.as_str()).collect();
        for (problem, start) in problems.iter().zip(["category:", "at:", "source:", "state:"]) {
            assert!(problem.starts_with(start), "{problem}");
        }
        assert_eq!(problems.len(), 4);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            source in "[a-z][a-z ]{0,20}[a-z]", proof in "[^\0\r]{0,60}", ip in prop::option::of(Just("::1")),
        ) {
            let proof = Some(proof.trim().to_owned()).filter(|proof| !proof.is_empty());
            let now_ms = about().now_ms;
            let consent = Consent {
                account_sid: "AC1".into(),
                address: Address::parse("whatsapp:+14155552671").unwrap(),
                category: Category::Utility,
                state: State::Withdrawn,
                at_ms: now_ms - 5,
                source,
                proof,
                ip: ip.map(str::to_owned),
                user_agent: None,
                recorded_at_ms: now_ms,
                recorded_by: "key 1".into(),
            };
            let lines = [CONSENT_COLUMNS.map(str::to_owned), consent_line(&consent)];
            let list = read_consents(written(lines).as_slice(), &about()).unwrap();
            prop_assert_eq!(list, List { good: vec![consent], bad: vec![] });
        }

        #[test]
        fn nothing_panics(csv: Vec<u8>, text in "(number|channel|category|source|,|\"|\r|\n|[+0-9a-z])*") {
            let _ = read_suppressions(csv.as_slice(), &about());
            let _ = read_consents(text.as_bytes(), &about());
            let _ = read_suppressions([b"number\n", csv.as_slice()].concat().as_slice(), &about());
        }
    }
}
