//! Events of one request, and the effects with which the state machine answers them.

use std::rc::Rc;

use twilio_edge_contract::{Claim, RefusedRequest, Settlement, Verdict};

use crate::callouts::Lane;
use crate::metrics::Counter;
use crate::reply::Answer;
use crate::upstream_request::UpstreamRequest;
use crate::verification::Head;

/// Response headers, as far as the filter uses them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// `:status`.
    pub status: u16,
    /// True if a backend sent the response, false if Envoy itself did.
    pub from_backend: bool,
    /// `content-type`, if the body is plain text without content-encoding.
    pub content_type: Option<Vec<u8>>,
    /// The response has no body.
    pub is_last: bool,
}

/// Event of one request.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// Request headers.
    Head(Head),
    /// Part of the body: bytes received so far. More will come.
    Body {
        /// Bytes received so far.
        received: usize,
    },
    /// The request has ended, in any of the three ways in which Envoy reports it.
    Complete {
        /// The whole body.
        body: &'a [u8],
    },
    /// The sidecar's answer.
    Verdict(Verdict),
    /// The sidecar will not answer.
    NoVerdict,
    /// Response headers, the backend's or the proxy's own.
    Response(ResponseHead),
    /// Part of the response body, on its way to the client.
    ResponseBody {
        /// The bytes of this part alone.
        part: &'a [u8],
        /// This is the last part.
        is_last: bool,
    },
    /// The sidecar has acknowledged the settlement.
    Settled,
    /// Time has passed. No other event carries the time, so a request that does not wait never reads the clock. Any
    /// monotonic clock will do.
    Tick {
        /// Now, in milliseconds.
        now_ms: u64,
    },
    /// The stream is over.
    Ended,
}

/// Effect to carry out; effects are carried out in the order of their list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Remove a request header, all of its values.
    Remove(String),
    /// Set the headers and body for the backend; comes right before the request is forwarded.
    SetUpstream(UpstreamRequest),
    /// Answer the client; nothing is forwarded.
    Answer(Answer),
    /// Let the paused request go to the backend.
    Forward,
    /// Let the paused response go to the client.
    Respond,
    /// Ask the sidecar for a verdict.
    Claim {
        /// The claim to send.
        claim: Rc<Claim>,
        /// Lane in which it is sent.
        lane: Lane,
    },
    /// The request no longer waits for the verdict.
    Withdraw,
    /// Send the outcome to the sidecar; `urgent` if a response waits for it, or if it contains a possible opt-out.
    Settle {
        /// The settlement to send.
        settlement: Box<Settlement>,
        /// True to send it now, instead of with the next claim or on the next tick.
        urgent: bool,
    },
    /// Write this word to the access log.
    AccessLog(&'static str),
    /// Increment the counter.
    Count(Counter),
    /// Log a warning; it never contains a secret, a body or a phone number.
    Warn(String),
    /// Report a refused request to the sidecar, if it is part of the sample. Its client is already answered.
    Report(Box<RefusedRequest>),
}
