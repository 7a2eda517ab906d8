//! Media of a message as decisions: where they may be fetched (`place.rs`), and whether Twilio and the channel take them
//! (`fitness.rs`, by what the bytes themselves say: `magic.rs`). What is looked at, and when, is not known here.

pub mod fitness;
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
    /// Too much is being looked at.
    Busy,
}

impl Why {
    /// All of them.
    pub const ALL: [Why; 12] = [
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
