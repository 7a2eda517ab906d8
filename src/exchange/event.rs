//! The events of one request, and the effects that the filter answers them with.

use std::rc::Rc;

use twilio_edge_contract::{Claim, Settlement, Verdict};

use crate::handover::UpstreamRequest;
use crate::judgement::Head;
use crate::metrics::Counter;
use crate::reply::Answer;

/// What the response's headers say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// `:status`
    pub status: u16,
    /// Whether a backend sent it, rather than Envoy itself.
    pub from_backend: bool,
    /// `content-type`, if the body is text as it stands: no content-encoding.
    pub content_type: Option<Vec<u8>>,
    /// There is no body.
    pub ends: bool,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// Request headers.
    Head(Head),
    /// Part of the body: bytes received so far. More will come.
    Body {
        /// Size of everything received.
        received: usize,
    },
    /// The request has ended, in whichever of the three ways requests end.
    Complete {
        /// The whole body.
        body: &'a [u8],
    },
    /// The sidecar's answer.
    Verdict(Verdict),
    /// There will be no answer.
    NoVerdict,
    /// Response headers, the backend's or the proxy's own.
    Response(ResponseHead),
    /// Part of the response body, on its way to the client.
    ResponseBody {
        /// This part alone.
        part: &'a [u8],
        /// Nothing follows.
        ends: bool,
    },
    /// The sidecar has taken the release.
    Settled,
    /// Time has passed. The only event that says what time it is, by any monotonic clock: a request that does
    /// not wait costs no reading of it.
    Tick {
        /// Now, in milliseconds.
        now_ms: u64,
    },
    /// The stream is over.
    Gone,
}

/// What to do about it, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Remove a request header, all of its values.
    Remove(String),
    /// Tell the backend what is known: comes right before the request goes.
    Tell(UpstreamRequest),
    /// Answer the client; nothing is forwarded.
    Answer(Answer),
    /// Let the paused request go to the backend.
    Forward,
    /// Let the paused response go to the client.
    Respond,
    /// Ask the sidecar for a verdict.
    Ask(Rc<Claim>),
    /// Nobody waits for the verdict any more.
    Withdraw,
    /// Tell the sidecar how it ended; `urgent` if a response waits for it, or a possible opt-out is in it.
    Settle {
        /// What to tell.
        settlement: Box<Settlement>,
        /// Whether to send it now and before others, rather than with the next batch.
        urgent: bool,
    },
    /// The word for the access log.
    Note(&'static str),
    /// Count it.
    Count(Counter),
    /// Tell the operator; never a secret, body or phone number.
    Warn(String),
}
