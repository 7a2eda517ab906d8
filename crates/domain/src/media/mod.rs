//! Decisions about media of a message: permitted locations (`place.rs`), limits of Twilio and the channel
//! (`fitness.rs`), types detected from the bytes (`magic.rs`), and links to stored media (`link.rs`). Fetching media is
//! the caller's task.

use form_urlencoded::Serializer;

pub mod disposition;
pub mod fitness;
pub mod link;
mod magic;
pub mod place;

/// Problem of one media item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Kind of problem.
    pub why: Why,
    /// Sentence that names the problem and the party that has to act. It never reveals the content of an address that
    /// is not public.
    pub detail: String,
    /// True if a later check may succeed.
    pub may_pass: bool,
}

/// Kinds of problems; they are labels of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// More items than one message may have.
    Count,
    /// A URL that Twilio cannot fetch, or that two URL parsers may read differently.
    Url,
    /// Not at a public address. Names that do not exist get it as well, so that a caller cannot learn which names
    /// exist.
    NotPublic,
    /// The server does not answer, or the answer breaks off.
    Unreachable,
    /// A status other than 200.
    Status,
    /// The answer takes too long.
    Slow,
    /// Too many redirects.
    Redirects,
    /// Larger than the channel permits.
    Size,
    /// A type that the channel does not permit, or no type.
    Type,
    /// HEAD, GET and the bytes disagree about the type.
    Mismatch,
    /// Compressed, although the request did not permit it.
    Encoded,
    /// No stored item has this id.
    Missing,
    /// Too many checks are in progress.
    Busy,
}

impl Why {
    /// Every kind.
    pub const ALL: [Why; 13] = [
        Why::Count,
        Why::Url,
        Why::NotPublic,
        Why::Unreachable,
        Why::Status,
        Why::Slow,
        Why::Redirects,
        Why::Size,
        Why::Type,
        Why::Mismatch,
        Why::Encoded,
        Why::Missing,
        Why::Busy,
    ];

    /// Returns the word used in the API and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Count => "count",
            Why::Url => "url",
            Why::NotPublic => "not_public",
            Why::Unreachable => "unreachable",
            Why::Status => "status",
            Why::Slow => "slow",
            Why::Redirects => "redirects",
            Why::Size => "size",
            Why::Type => "type",
            Why::Mismatch => "mismatch",
            Why::Encoded => "encoded",
            Why::Missing => "missing",
            Why::Busy => "busy",
        }
    }
}

impl Unfit {
    /// Creates a permanent problem.
    pub fn new(why: Why, detail: impl Into<String>) -> Unfit {
        Unfit { why, detail: detail.into(), may_pass: false }
    }

    /// Creates a temporary problem.
    pub fn passing(why: Why, detail: impl Into<String>) -> Unfit {
        Unfit { why, detail: detail.into(), may_pass: true }
    }

    /// Returns the problem of every address that is not public, always with the same text.
    pub fn not_public() -> Unfit {
        Unfit::new(Why::NotPublic, "is not at a public address")
    }
}

/// Result of checking the media of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// The message has no media.
    Nothing,
    /// The URLs are well-formed, but the items were not fetched, for this reason.
    Unseen(&'static str),
    /// All items are valid.
    Fit,
    /// The item at this index has a problem.
    Unfit(usize, Unfit),
}

/// Prefix of a stored item's id where other items have a URL. No client fetches this scheme.
const KEPT: &str = "twilio-edge-media:";

/// Twilio's parameter of media URLs.
const PARAMETER: &str = "MediaUrl";

/// Returns the reference by which a message names a stored item.
pub fn kept(id: &str) -> String {
    format!("{KEPT}{id}")
}

/// Returns the id of a stored item, if the text is a reference to one.
pub fn id_of(text: &str) -> Option<&str> {
    text.strip_prefix(KEPT)
}

/// Returns all media of a form, as URLs or references.
pub fn of_form(form: &str) -> Vec<String> {
    let pairs = form_urlencoded::parse(form.as_bytes());
    pairs.filter(|(name, _)| name == PARAMETER).map(|(_, text)| text.into_owned()).collect()
}

/// Returns the form with the media replaced by their new names; media without a new name stay unchanged.
pub fn renamed(form: &str, names: &[(String, String)]) -> String {
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
    fn what_is_kept_is_named_and_told_by_another_name() {
        let name = kept("md_1");
        let form = "To=%2B1&MediaUrl=https%3A%2F%2Fa.example%2F1&MediaUrl=twilio-edge-media%3Amd_1&Body=twilio-edge-media%3Amd_1";
        assert_eq!(of_form(form), ["https://a.example/1", &name]);
        assert_eq!((id_of(&name), id_of("https://a.example/1")), (Some("md_1"), None));
        let told = renamed(form, &[(name, "https://b.example/?a=b&c".into())]);
        let link = "https%3A%2F%2Fb.example%2F%3Fa%3Db%26c";
        assert_eq!(told, form.replacen("twilio-edge-media%3Amd_1", link, 1));
    }
}
