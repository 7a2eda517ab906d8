//! Parts of a webhook's form: the text, the contact, the addresses, and technical parameters without personal data. An
//! unknown parameter never counts as technical. Other modules decide how long a part is stored.

twilio_edge_contract::string_enum! {
    /// Part of a stored webhook.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Part {
        /// Text of the message.
        Body = "body",
        /// URLs of media.
        Media = "media",
        /// Name and location of the contact, without their address.
        Person = "person",
        /// The addresses of both ends.
        Addresses = "addresses",
        /// Parameters that no list contains.
        Other = "other",
        /// Answer of the backend: not a parameter, but a column of its own.
        Answer = "answer",
    }
}

/// Parameters of each part (Twilio's guides to inbound messages and to status callbacks; twilio.com/docs/messaging). A
/// `*` at the end stands for a number.
const PARAMETERS: [(Part, &[&str]); 4] = [
    (
        Part::Body,
        &[
            "Body",
            "ButtonText",
            "ButtonPayload",
            "ListId",
            "ListTitle",
            "ListDescription",
            "InteractiveData",
            "FlowData",
            "StructuredMessage",
            "AddOns",
            "ReferralBody",
            "ReferralHeadline",
        ],
    ),
    (Part::Media, &["MediaUrl*", "ReferralMediaUrl", "ReferralMediaId", "ReferralSourceUrl"]),
    (
        Part::Person,
        &[
            "ProfileName",
            "Username",
            "Latitude",
            "Longitude",
            "Address",
            "Label",
            "FromCity",
            "FromState",
            "FromZip",
            "FromCountry",
            "ToCity",
            "ToState",
            "ToZip",
            "ToCountry",
            "ChannelMetadata",
            "ReferralSourceId",
            "ReferralCtwaClid",
        ],
    ),
    (
        Part::Addresses,
        &[
            "From",
            "To",
            "WaId",
            "ExternalUserId",
            "ParentExternalUserId",
            "ChannelToAddress",
            "OriginalRepliedMessageSender",
        ],
    ),
];

/// Parameters that are stored as long as their row: they identify the message and its outcome, and contain no personal
/// data.
const TECHNICAL: &[&str] = &[
    "AccountSid",
    "ApiVersion",
    "ChannelInstallSid",
    "ChannelPrefix",
    "ErrorCode",
    "EventType",
    "Forwarded",
    "FrequentlyForwarded",
    "MediaContentType*",
    "MessageSid",
    "MessageStatus",
    "MessageType",
    "MessagingServiceSid",
    "NumMedia",
    "NumSegments",
    "OptOutType",
    "OriginalRepliedMessageSid",
    "RawDlrDoneDate",
    "ReferralMediaContentType",
    "ReferralNumMedia",
    "ReferralSourceType",
    "SmsMessageSid",
    "SmsSid",
    "SmsStatus",
];

/// Returns every name in the lists above.
#[cfg(test)]
pub(super) fn listed() -> impl Iterator<Item = &'static str> {
    let parts = PARAMETERS.iter().flat_map(|(_, names)| names.iter());
    parts.chain(TECHNICAL).copied()
}

impl Part {
    /// Returns the part of a parameter, or `None` if it is technical. Twilio's names are case-sensitive.
    pub fn of(parameter: &str) -> Option<Part> {
        let is = |listed: &&str| match listed.strip_suffix('*') {
            Some(prefix) => parameter
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())),
            None => *listed == parameter,
        };
        if TECHNICAL.iter().any(is) {
            return None;
        }
        let part = PARAMETERS.iter().find(|(_, names)| names.iter().any(is));
        Some(part.map_or(Part::Other, |(part, _)| *part))
    }

    /// Returns the parameters of the part, as text for the documents.
    pub fn parameters(self) -> String {
        match (self, PARAMETERS.iter().find(|(part, _)| *part == self)) {
            (_, Some((_, names))) => list(names),
            (Part::Answer, _) => "the backend's answer (no parameter)".to_owned(),
            (_, None) => {
                format!(
                    "every other parameter except {}, which are stored as long as their row",
                    list(TECHNICAL)
                )
            }
        }
    }
}

/// Set of parts as one number: a row stores which of its parts were redacted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts(pub i64);

impl Parts {
    /// Adds a part.
    pub fn add(&mut self, part: Part) {
        self.0 |= 1 << part as i64;
    }

    /// Returns the union of both.
    pub fn with(self, others: Parts) -> Parts {
        Parts(self.0 | others.0)
    }

    /// Returns the parts in the set, in the order of [`Part::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(move |part| self.0 & (1 << *part as i64) != 0)
    }
}

/// Returns the parts as a Markdown table, which docs/RETENTION.md shows.
pub fn reference() -> String {
    let mut table = "| part | setting | parameters |\n|---|---|---|\n".to_owned();
    for part in Part::ALL {
        let setting = match part {
            Part::Answer => "retention.answers".to_owned(),
            part => format!("retention.{}", part.as_str()),
        };
        let row = format!("| {} | `{setting}` | {} |\n", part.as_str(), part.parameters());
        table.push_str(&row);
    }
    table
        + "| the whole row | `retention.events` | everything else |\n\
        | administrative changes | `retention.audit` | the audit |\n"
}

fn list(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_table_of_the_document_is_current() {
        let document = include_str!("../../../docs/RETENTION.md");
        assert!(document.contains(&reference()), "put in `twilio-edge reference retention`");
    }

    #[test]
    fn parameter_is_in_one_list_only() {
        let mut names: Vec<&str> = listed().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(Part::of("MediaUrl12"), Some(Part::Media));
        assert_eq!(Part::of("body"), Some(Part::Other), "an unknown parameter is not technical");
        assert_eq!(Part::of("MessageSid"), None);
    }
}
