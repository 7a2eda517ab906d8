//! Decisions about media of a message: permitted locations (`url_policy.rs`), limits of Twilio and the channel
//! (`limits.rs`), types detected from the bytes (`magic.rs`), links to stored media (`link.rs`), and media of inbound
//! messages (`inbound.rs`). Fetching media is the caller's task.

use form_urlencoded::Serializer;

pub mod disposition;
pub mod inbound;
pub mod limits;
pub mod link;
mod magic;
pub mod url_policy;

/// Problem of one media item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaProblem {
    /// Kind of problem.
    pub kind: MediaProblemKind,
    /// Sentence that names the problem and the party that has to act. It never reveals the content of an address that
    /// is not public.
    pub detail: String,
    /// True if a later check may succeed.
    pub is_temporary: bool,
}

twilio_edge_contract::string_enum! {
    /// Kinds of problems; they are labels of metrics.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum MediaProblemKind {
        /// More items than one message may have.
        Count = "count",
        /// A URL that Twilio cannot fetch, or that two URL parsers may read differently.
        Url = "url",
        /// Not at a public address. Names that do not exist get it as well, so that a caller cannot learn which names
        /// exist.
        NotPublic = "not_public",
        /// The server does not answer, or the answer breaks off.
        Unreachable = "unreachable",
        /// A status other than 200.
        Status = "status",
        /// The answer takes too long.
        Slow = "slow",
        /// Too many redirects.
        Redirects = "redirects",
        /// Larger than the channel permits.
        Size = "size",
        /// A type that the channel does not permit, or no type.
        Type = "type",
        /// HEAD, GET and the bytes disagree about the type.
        Mismatch = "mismatch",
        /// Compressed, although the request did not permit it.
        Encoded = "encoded",
        /// No stored item has this id.
        Missing = "missing",
        /// Too many checks are in progress.
        Busy = "busy",
    }
}

impl MediaProblem {
    /// Creates a permanent problem.
    pub fn new(kind: MediaProblemKind, detail: impl Into<String>) -> MediaProblem {
        MediaProblem { kind, detail: detail.into(), is_temporary: false }
    }

    /// Creates a temporary problem.
    pub fn temporary(kind: MediaProblemKind, detail: impl Into<String>) -> MediaProblem {
        MediaProblem { kind, detail: detail.into(), is_temporary: true }
    }

    /// Returns the problem of every address that is not public, always with the same text.
    pub fn not_public() -> MediaProblem {
        MediaProblem::new(MediaProblemKind::NotPublic, "is not at a public address")
    }
}

/// Result of checking the media of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaCheck {
    /// The message has no media.
    NoMedia,
    /// The URLs are well-formed, but the items were not fetched, for this reason.
    NotFetched(&'static str),
    /// All items are valid.
    Valid,
    /// The item at this index has a problem.
    Invalid(usize, MediaProblem),
}

/// Prefix of a stored item's id where other items have a URL. No client fetches this scheme.
const REFERENCE_PREFIX: &str = "twilio-edge-media:";

/// Twilio's parameter of media URLs.
const PARAMETER: &str = "MediaUrl";

/// Returns the reference by which a message names a stored item.
pub fn reference_to(id: &str) -> String {
    format!("{REFERENCE_PREFIX}{id}")
}

/// Returns the id of a stored item, if the text is a reference to one.
pub fn referenced_id(text: &str) -> Option<&str> {
    text.strip_prefix(REFERENCE_PREFIX)
}

/// Returns all media of a form, as URLs or references.
pub fn media_of_form(form: &str) -> Vec<String> {
    let pairs = form_urlencoded::parse(form.as_bytes());
    pairs.filter(|(name, _)| name == PARAMETER).map(|(_, text)| text.into_owned()).collect()
}

/// Returns the form with the media replaced by their new names; media without a new name stay unchanged.
pub fn with_renamed_media(form: &str, names: &[(String, String)]) -> String {
    let pairs = form_urlencoded::parse(form.as_bytes()).map(|(name, text)| {
        let other = names.iter().find(|(old, _)| name == PARAMETER && *old == text);
        let text = other.map_or_else(|| text.clone().into_owned(), |(_, new)| new.clone());
        (name, text)
    });
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_media_are_referenced_and_renamed() {
        let name = reference_to("md_1");
        let form = "To=%2B1&MediaUrl=https%3A%2F%2Fa.example%2F1&MediaUrl=twilio-edge-media%3Amd_1&Body=twilio-edge-media%3Amd_1";
        assert_eq!(media_of_form(form), ["https://a.example/1", &name]);
        assert_eq!(
            (referenced_id(&name), referenced_id("https://a.example/1")),
            (Some("md_1"), None)
        );
        let renamed = with_renamed_media(form, &[(name, "https://b.example/?a=b&c".into())]);
        let link = "https%3A%2F%2Fb.example%2F%3Fa%3Db%26c";
        assert_eq!(renamed, form.replacen("twilio-edge-media%3Amd_1", link, 1));
    }
}
