//! Media of a message as decisions: where they may be fetched (`place.rs`), whether Twilio and the channel take them (`fitness.rs`,
//! by what the bytes themselves say: `magic.rs`), and links to those that are kept here (`link.rs`). What is looked at, and when,
//! is not known here.

use form_urlencoded::Serializer;

pub mod disposition;
pub mod fitness;
pub mod link;
mod magic;
pub mod place;

/// What is wrong with a medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// In one word.
    pub why: Why,
    /// In a sentence that says who has to do what; never what is at an address that is not public.
    pub detail: String,
    /// Whether it may be otherwise the next time it is looked at.
    pub may_pass: bool,
}

/// What may be wrong, in one word each: they name metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// More than one message may have.
    Count,
    /// The URL is none that Twilio could fetch, or is spelled as no two readers would read it.
    Url,
    /// Not at a public address; also of what does not exist, so that nobody learns which names do.
    NotPublic,
    /// Nobody answers, or not to the end.
    Unreachable,
    /// Another status than 200.
    Status,
    /// It takes too long.
    Slow,
    /// Sent on too often.
    Redirects,
    /// Larger than the channel takes.
    Size,
    /// Of no type that the channel takes, or of none at all.
    Type,
    /// HEAD, GET and the bytes do not say the same.
    Mismatch,
    /// Compressed, although nobody asked for that.
    Encoded,
    /// None that is kept here.
    Missing,
    /// Too much is being looked at.
    Busy,
}

impl Why {
    /// All of them.
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

    /// As it is written everywhere.
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
    /// For good.
    pub fn new(why: Why, detail: impl Into<String>) -> Unfit {
        Unfit { why, detail: detail.into(), may_pass: false }
    }

    /// For now.
    pub fn passing(why: Why, detail: impl Into<String>) -> Unfit {
        Unfit { why, detail: detail.into(), may_pass: true }
    }

    /// The one text for everything that is not out in the open.
    pub fn not_public() -> Unfit {
        Unfit::new(Why::NotPublic, "is not at a public address")
    }
}

/// What is known of the media of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// It has none.
    Nothing,
    /// They are spelled well; nobody has looked at them, and why not.
    Unseen(&'static str),
    /// They are as they should be.
    Fit,
    /// The one at this place is not.
    Unfit(usize, Unfit),
}

/// What stands before the id of a medium that is kept here, where others have a URL. No scheme that anybody fetches by.
const KEPT: &str = "twilio-edge-media:";

/// By which name Twilio is told media.
const PARAMETER: &str = "MediaUrl";

/// How a message names a medium that is kept here.
pub fn kept(id: &str) -> String {
    format!("{KEPT}{id}")
}

/// The id of a medium that is kept here, if a message names one.
pub fn id_of(text: &str) -> Option<&str> {
    text.strip_prefix(KEPT)
}

/// All media of a form, as they are named.
pub fn of_form(form: &str) -> Vec<String> {
    let pairs = form_urlencoded::parse(form.as_bytes());
    pairs.filter(|(name, _)| name == PARAMETER).map(|(_, text)| text.into_owned()).collect()
}

/// The form with other names for media; those that have none keep their own.
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
