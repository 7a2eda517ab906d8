//! Trace ids of a webhook's request: its request id, and the trace it belongs to. This module decides which values are
//! accepted: they come with the request, no signature covers them, and they end in logs and in our own requests. It
//! must not know who uses them.

use twilio_edge_contract::Claim;

/// Maximum length of a request id, in bytes; Envoy's own are 36.
const MAX_REQUEST_ID_BYTES: usize = 64;

/// Trace ids of one request. A malformed value is treated as missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// `x-request-id`: visible ASCII.
    pub request_id: Option<String>,
    /// `traceparent` header.
    pub parent: Option<Traceparent>,
}

/// Position in a trace: 55 bytes (w3.org/TR/trace-context, 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traceparent(String);

impl Trace {
    /// Returns the trace ids in a claim.
    pub fn of(claim: &Claim) -> Trace {
        let is_id = |id: &&str| {
            (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        Trace {
            request_id: claim.request_id.as_deref().filter(is_id).map(str::to_owned),
            parent: claim.traceparent.as_deref().and_then(Traceparent::parse),
        }
    }

    /// Returns the id of the trace, if the request belongs to one.
    pub fn trace_id(&self) -> Option<&str> {
        self.parent.as_ref().map(Traceparent::trace_id)
    }
}

impl Traceparent {
    /// Parses `00-<trace>-<parent>-<flags>` in lower case. Fields that a later version of the standard appends are
    /// dropped.
    pub fn parse(header: &str) -> Option<Traceparent> {
        let mut fields = header.split('-');
        let mut field = |length: usize| {
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            fields.next().filter(|field| field.len() == length && field.bytes().all(is_hex))
        };
        let (version, trace, parent, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let is_zero = |field: &str| field.bytes().all(|byte| byte == b'0');
        let has_more = fields.next().is_some();
        if version == "ff" || (version == "00" && has_more) || is_zero(trace) || is_zero(parent) {
            return None;
        }
        Some(Traceparent(format!("{version}-{trace}-{parent}-{flags}")))
    }

    /// Returns the value of the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the sender's span id.
    pub fn span_id(&self) -> &str {
        self.0.split('-').nth(2).unwrap_or_default()
    }

    /// Returns the sender's flags: the first bit means that the trace is recorded.
    pub fn flags(&self) -> u8 {
        let flags = self.0.split('-').nth(3).unwrap_or_default();
        u8::from_str_radix(flags, 16).unwrap_or_default()
    }

    /// Returns the trace id, the same for all requests of one trace.
    pub fn trace_id(&self) -> &str {
        self.0.split('-').nth(1).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn traceparent_has_the_standard_form_or_none() {
        let parent = Traceparent::parse(HEADER).unwrap();
        assert_eq!(parent.as_str(), HEADER);
        assert_eq!(parent.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = Traceparent::parse(&HEADER.replace("00-4", "cc-4").replace("-01", "-01-more"));
        assert_eq!(later.unwrap().as_str(), HEADER.replace("00-4", "cc-4"));
        for wrong in [
            "",
            "00",
            &HEADER.replace("00-4", "ff-4"),
            &HEADER.replace("-01", "-01-more"),
            &HEADER.replace("-01", "-01-"),
            &HEADER.replace("-01", "-1"),
            &HEADER.replace("-01", ""),
            &HEADER.to_uppercase(),
            &HEADER.replace("4bf92f", "4bf92\u{e9}"),
            &HEADER.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &HEADER.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &HEADER.replace("4bf92f", "4bf92f0"),
            &format!(" {HEADER}"),
        ] {
            assert_eq!(Traceparent::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn request_id_is_short_and_visible_or_none() {
        let read = |id: &str| {
            let json = serde_json::json!({
                "claim_id": "c1", "class": "inbound", "account_sid": "AC1", "message_sid": "SM1",
                "route": "/in", "form": "", "request_id": id, "traceparent": "nonsense",
            });
            let trace = Trace::of(&serde_json::from_value(json).unwrap());
            assert_eq!(trace.trace_id(), None);
            trace.request_id
        };
        let id = "f5a0e5b8-0d4c-9b1f-8c5e-3f0d5f6b7a10";
        assert_eq!(read(id).as_deref(), Some(id));
        assert_eq!(read(&"x".repeat(64)).map(|id| id.len()), Some(64));
        for wrong in ["", "a b", "a\nlevel=ERROR", "caf\u{e9}", &"x".repeat(65)] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        /// Property: a parsed header has a fixed length and parses to itself.
        #[test]
        fn trace_ids_are_bounded(header in "[0-9a-f]{2}-[0-9a-f]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{2}(-.{0,9})?|.*") {
            if let Some(parent) = Traceparent::parse(&header) {
                prop_assert_eq!(parent.as_str().len(), 55);
                prop_assert_eq!(Traceparent::parse(parent.as_str()), Some(parent));
            }
        }
    }
}
